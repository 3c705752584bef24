"""What the blocks of the DSP extension share: how they are declared, and requantization."""

from collections.abc import Sequence

from tvm import ir, tirx
from tvm.script import tirx as T

from mcuforge.isa.instruction import Instruction, instruction

FEATURE = "dsp"
SCALE_BITS = 8
"""Accumulators of most blocks are 2^SCALE_BITS times the sum of products."""

N, M, K = (tirx.Var(name, "int32") for name in "nmk")
"""Sizes of memory, in definitions: as much as the other operands say."""

# GCC 12 clones functions for constant addresses; when it then expresses one address by another
# (it does where one pointer advances twice as fast), it loses sight of the stores and drops calls.
OPAQUE = '__asm("" : "+r"(in), "+r"(out));'


def block(
    name: str, pointers: str, numbers: str, writes: str, definition: tirx.PrimFunc, c: str,
    *, shared: bool = True, feature: str = FEATURE,
) -> Instruction:  # fmt: skip
    """Declare a block: a C function that writes memory and returns nothing.

    Args:
        name: of the block.
        pointers: its first operands, ``"x y"``.
        numbers: the int32 operands that follow, ``"count"``.
        writes: the pointer through which is written.
        definition: what it computes.
        c: its C, over the operands.
        shared: whether it is one C function that is not inlined.
        feature: of the cores that have its instructions.
    """
    params = [(p, "handle") for p in pointers.split()] + [(n, "int32") for n in numbers.split()]
    return instruction(
        name=name,
        feature=feature,
        result="void",
        params=tuple(params),
        definition=definition,
        c=c,
        llvm=None,
        writes=(writes,),
        shared=shared,
    )


def join(*parts: object) -> str:
    """A block's name: what is not empty, between underscores."""
    return "_".join(str(part) for part in parts if part != "")


def assembly(
    pointers: str, numbers: str, writes: str, lines: list[str], vectors: Sequence[str] = ()
) -> str:
    """C of a block that is all assembly; its operands, as for ``block``, are in r0 to r3.

    The instructions may change r0 to r3, r12, the flags, memory and ``vectors``, and save what else
    they change.
    """
    types = ["void *" if p == writes else "const void *" for p in pointers.split()]
    types += ["int32_t "] * len(numbers.split())
    names = [*pointers.split(), *numbers.split()]
    registers = [f"r{i}" for i in range(4)]
    declarations = [
        f'register {dtype}{r} __asm("{r}") = {name};'
        for r, dtype, name in zip(registers, types, names, strict=False)
    ]
    operands = ", ".join(f'"+r"({r})' for r in registers[: len(names)])
    clobbers = ", ".join(
        f'"{c}"' for c in (*registers[len(names) :], *vectors, "r12", "cc", "memory")
    )
    text = "\n".join(f'    "{line}\\n"' for line in lines)
    statement = f"__asm volatile(\n{text}\n    : {operands}\n    :\n    : {clobbers});"
    return "\n".join([*declarations, statement])


def requantize_assembly(
    acc: str, m: str, q: str, c: str, scratch: str, shift: int, signed: bool
) -> list[str]:
    """Assembly for one output, ``ssat8(((acc + (acc >= 0 ? q : 0)) * m >> 32) + c >> shift)``.

    Args:
        acc: register of the accumulator and of the result.
        m: register.
        q: register; only if ``signed``.
        c: register, or empty for 0.
        scratch: a register that is changed if ``signed``.
        shift: 1 to 31.
        signed: whether q is added.
    """
    lines = []
    if signed:
        lines += [f"bic {scratch}, {q}, {acc}, asr #31", f"add {acc}, {acc}, {scratch}"]
    high = f"smmla {acc}, {acc}, {m}, {c}" if c else f"smmul {acc}, {acc}, {m}"
    return [*lines, high, f"ssat {acc}, #8, {acc}, asr #{shift}"]


def requantized(acc: ir.Expr, m: ir.Expr, q: ir.Expr, c: ir.Expr, shift: int) -> ir.Expr:
    """The definition of ``requantize_assembly``, int8; all operands are variables."""
    moved = T.if_then_else(acc < 0, acc, acc + q)
    high = (T.cast(moved, "int64") * T.cast(m, "int64")) >> T.int64(32)
    return saturated((T.cast(high, "int32") + c) >> shift)


def saturated(value: ir.Expr) -> ir.Expr:
    """int32 as int8."""
    return T.cast(T.max(T.min(value, 127), -128), "int8")


def int32(value: ir.Expr) -> ir.Expr:
    """A number of fewer bits as int32."""
    return T.cast(value, "int32")


def low_byte(word: ir.Expr) -> ir.Expr:
    """The lowest byte of a word, signed, as int32."""
    return T.cast(T.cast(word, "int8"), "int32")


def low_half(word: ir.Expr) -> ir.Expr:
    """The lower half of a word, signed, as int32."""
    return T.cast(T.cast(word, "int16"), "int32")
