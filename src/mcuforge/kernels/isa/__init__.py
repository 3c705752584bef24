"""The instructions a core offers kernels, as data.

An instruction is described once: what it computes, as a TIR expression, beside the C that performs
it (for gcc and clang), a portable C fallback (for tests on the host and for reading), and the LLVM
intrinsic. Kernels call it like a function; code generators look it up by name.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tvm import ir
from tvm.script import tirx as T

C_PREFIX = "mcuforge_"


@dataclass(frozen=True)
class Instruction:
    """One machine instruction, or a short fixed sequence, usable in kernels.

    Attributes:
        name: lower case, as in Arm's documentation: ``smlad``.
        feature: the target feature it needs.
        result: dtype of the result, ``void`` for stores.
        params: name and dtype of each operand; ``handle`` for a pointer.
        semantics: what it computes, on TIR expressions; None where memory is involved.
        c: C expression or statements performing it, over the parameter names.
        portable: the same in plain C99.
        llvm: the call performing it in LLVM, on TIR expressions.
        header: C header the intrinsics come from; empty if none.
        writes: pointer operands it writes through; if empty, a ``void`` one may use them all so.
        shared: too long to repeat at every call: one C function that is not inlined.
    """

    name: str
    feature: str
    result: str
    params: tuple[tuple[str, str], ...]
    semantics: Callable[..., ir.Expr] | None
    c: str
    portable: str
    llvm: Callable[..., ir.Expr] | None
    header: str
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
