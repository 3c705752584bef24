"""What an instruction is: a definition in TIR beside the C and the LLVM that perform it.

An instruction is described once: its definition in TIR, beside the C that performs it (for gcc and
clang) and the LLVM intrinsic. From the definition follows the portable C, for tests on the host and
for reading. Kernels call it like a function; code generators look it up by name.

To add one, call ``instruction``. ``define`` writes a definition that works lane by lane; any other
is a TVMScript function with ``s_tir=True`` that holds one block named ``root`` with its ``T.reads``
and ``T.writes``, and buffers with ``offset_factor=1``, symbolic in size where the operands say how
much memory is touched::

    @T.prim_func(s_tir=True, private=True)
    def definition(
        source: T.Buffer((n,), "int8", offset_factor=1), ..., result: T.Buffer((1,), "int32", ...)
    ):
        with T.sblock("root"):
            T.reads(source[0:n])
            T.writes(result[0])
            ...
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tvm import ir, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

C_PREFIX = "mcuforge_"


@dataclass(frozen=True)
class Instruction:
    """One machine instruction, or a short fixed sequence, usable in kernels.

    Attributes:
        name: lower case, as in Arm's documentation: ``smlad``.
        feature: the target feature it needs, one of ``feature.FEATURES``.
        result: dtype of the result, ``void`` for stores.
        params: name and dtype of each operand; ``handle`` for a pointer.
        definition: what it computes, a schedulable PrimFunc. It has a buffer for each operand in
            order: as many elements as a vector has lanes, one for a scalar, the memory behind a
            pointer. One for the result follows, unless the result is void, or left in the first
            operand, where it accumulates.
        c: C expression or statements performing it, over the parameter names.
        llvm: the call performing it in LLVM, on TIR expressions; None where a C function must.
        writes: pointer operands it writes through; if empty, a ``void`` one may use them all so.
        shared: too long to repeat at every call: one C function that is not inlined.
    """

    name: str
    feature: str
    result: str
    params: tuple[tuple[str, str], ...]
    definition: tirx.PrimFunc
    c: str
    llvm: Callable[..., ir.Expr] | None
    writes: tuple[str, ...] = ()
    shared: bool = False

    def __call__(self, *args: ir.Expr) -> ir.Expr:
        """A TIR call of the instruction."""
        if len(args) != len(self.params):
            raise TypeError(f"{self.name} takes {len(self.params)} operands, not {len(args)}")
        return T.call_extern(self.result, C_PREFIX + self.name, *args)


INSTRUCTIONS: dict[str, Instruction] = {}


def instruction(**fields) -> Instruction:
    """Declare an instruction; see Instruction for the fields."""
    declared = Instruction(**fields)
    if declared.name in INSTRUCTIONS:
        raise ValueError(f"instruction {declared.name} is declared twice")
    INSTRUCTIONS[declared.name] = declared
    return declared


def lanes(dtype: str) -> tuple[str, int]:
    """Type and number of the elements of a scalar or vector dtype."""
    element, _, count = dtype.partition("x")
    return element, int(count or 1)


def define(
    params: Sequence[tuple[str, str]],
    result: str,
    extent: int,
    lane: Callable[..., None],
    memory: Mapping[str, tuple[str, int | None]] | None = None,
    writes: str = "result",
    reduces: bool = False,
) -> tirx.PrimFunc:
    """The definition of an instruction that does the same thing to each lane.

    Args:
        params: as in Instruction.
        result: as in Instruction.
        extent: number of lanes.
        lane: writes the statements of one lane with TVM's IRBuilder; given its number and the
            buffers of the definition.
        memory: what each pointer operand points to: dtype and number of elements, None if any.
        writes: the operand that is written. One that is no pointer accumulates.
        reduces: whether all lanes go into one element.

    Returns:
        A loop over the lanes around one block.
    """
    operands = [
        (name, *(memory[name] if kind == "handle" else lanes(kind))) for name, kind in params
    ]
    accumulates = writes != "result" and dict(params)[writes] != "handle"
    if result != "void" and not accumulates:
        operands.append(("result", *lanes(result)))
    with IRBuilder() as builder, T.prim_func(private=True, s_tir=True):
        T.func_name("definition")
        buffers = {}
        for name, element, size in operands:
            shape = (tirx.Var("n", "int32") if size is None else size,)
            buffers[name] = T.arg(name, T.buffer(shape, element, offset_factor=1))
        with T.sblock("root"):
            T.reads([b[0 : b.shape[0]] for n, b in buffers.items() if n != writes or accumulates])
            T.writes([buffers[writes][0 : buffers[writes].shape[0]]])
            with T.serial(0, extent) as i:
                IRBuilder.name("i", i)
                with T.sblock("lane"):
                    axis = T.axis.reduce if reduces else T.axis.spatial
                    lane(IRBuilder.name("lane", axis((0, extent), i)), *buffers.values())
    return builder.get()
