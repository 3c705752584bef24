"""A number compilers know nothing of, for every core."""

from tvm.tirx.script import builder as T

from mcuforge.isa.instruction import define, instruction

opaque = instruction(
    name="opaque",
    feature="scalar",
    result="int32",
    params=(("x", "int32"),),
    definition=define(
        [("x", "int32")], "int32", 1, lambda i, x, result: T.buffer_store(result, x[0], [i])
    ),
    c='__asm("" : "+r"(x));\nreturn x;',
    llvm=lambda x: x,
)
"""x itself. Of an index that is a multiple of 64 clang makes bitwise operations, for each element
anew, where it otherwise has one address and offsets."""
