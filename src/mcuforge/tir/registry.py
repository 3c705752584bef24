"""What files in ``operators/`` and ``kernels/`` declare, and how passes find it.

A file declares an integer Relax operator (``tir.integer_op``), how to recognise it in the QDQ graph
TVM imports (``restores``), and the TIR kernels that compute it (``kernel``): a scalar one at
opt_level 1 that every core runs, and at higher levels ones for cores with certain features.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tvm import tirx

from mcuforge.target import FEATURES
from mcuforge.tir.geometry import Geometry

# In ``Kernel.inplace``: the result may lie over the operand if it is no larger and starts at the
# same byte, but not anywhere below.
SAME_PLACE = -1


@dataclass(frozen=True)
class Operand:
    """An argument of an operator: its type, and its value where it is constant."""

    shape: tuple[int, ...]
    dtype: str
    value: np.ndarray | None = None

    @property
    def constant(self) -> np.ndarray:
        """The value of an operand that is always constant, as weights are."""
        assert self.value is not None
        return self.value


@dataclass(frozen=True)
class Operation:
    """One integer operator with everything a kernel may depend on.

    Attributes:
        name: operator name without prefix.
        args: its operands in order.
        attrs: its attributes as plain values.
        out: type of the result.
    """

    name: str
    args: tuple[Operand, ...]
    attrs: dict[str, Any]
    out: Operand

    @property
    def geometry(self) -> Geometry:
        """How the window of a convolution or pooling slides."""
        return Geometry.of([arg.shape for arg in self.args[:2]], self.attrs)


@dataclass(frozen=True)
class Kernel:
    """A TIR function and what to pass to it.

    Attributes:
        func: a PrimFunc over buffers, the result last. Global-scope ``T.alloc_buffer`` in it
            becomes part of the workspace.
        args: for each parameter but the result, the index of the operand it takes, or the
            constant it takes.
        inplace: for an operand index, how many bytes below the operand's first byte the result
            must at least start if both share memory (0: the same place or any below). Absent:
            never share. The number follows from the order of the kernel's reads and writes: 0 for
            elementwise kernels whose results are no wider than the operand; ``tir.inplace``
            computes it for sliding windows and in general. A kernel that reads a whole channel of
            the operand before it writes the same bytes says SAME_PLACE; one that passes over the
            operand again after its first write says nothing. The compiler keeps the order of loads
            and stores as written, so a kernel may load earlier than it declares, but never later.
        gcc: what GCC is told for this function, as in ``no-schedule-insns``: without it, it makes
            slow code of it.
    """

    func: tirx.PrimFunc
    args: tuple[int | np.ndarray, ...]
    inplace: dict[int, int] = field(default_factory=dict)
    gcc: tuple[str, ...] = ()


KernelBuilder = Callable[[Operation], Kernel | None]


@dataclass(frozen=True)
class Declaration:
    """A kernel builder and when it is asked for a kernel: see ``kernel``."""

    op: str
    opt_level: int
    needs: frozenset[str]
    unless: frozenset[str]
    rank: int
    builder: KernelBuilder

    def suits(self, features: Set[str]) -> bool:
        """Whether it is for cores with exactly these features."""
        return self.needs <= features and not self.unless & features

    def ties(self, other: "Declaration") -> bool:
        """Whether some core would have to choose between the two."""
        mine, others = ((d.op, d.opt_level, d.rank) for d in (self, other))
        return mine == others and not (self.needs & other.unless or other.needs & self.unless)


class KernelTable:
    """All kernels that were declared; the order in which they were does not matter."""

    def __init__(self) -> None:
        self.declarations: list[Declaration] = []

    def declare(self, declaration: Declaration) -> None:
        """Add a kernel; raises ValueError if no core has its features, or it ties with another."""
        unknown = (declaration.needs | declaration.unless) - FEATURES
        if unknown:
            raise ValueError(f"no core has the feature {', '.join(sorted(unknown))}")
        for other in self.declarations:
            if declaration.ties(other):
                one, two = (
                    f"{d.builder.__module__}.{d.builder.__qualname__}" for d in (other, declaration)
                )
                raise ValueError(
                    f"{one} and {two} are both kernels of {declaration.op} at opt_level "
                    f"{declaration.opt_level} with rank {declaration.rank}: give one another rank"
                )
        self.declarations.append(declaration)

    def candidates(self, op: str, opt_level: int, features: Set[str]) -> list[Declaration]:
        """What is declared for exactly this opt_level, in the order in which it is tried."""
        found = [
            d
            for d in self.declarations
            if (d.op, d.opt_level) == (op, opt_level) and d.suits(features)
        ]
        return sorted(found, key=lambda d: d.rank)

    def select(self, operation: Operation, opt_level: int, features: Set[str]) -> Kernel | None:
        """The kernel for exactly this opt_level on a core with these features, or None."""
        for declaration in self.candidates(operation.name, opt_level, features):
            built = declaration.builder(operation)
            if built is not None:
                return built
        return None


KERNELS = KernelTable()


def kernel(
    op: str,
    *,
    opt_level: int,
    needs: Set[str] = frozenset(),
    unless: Set[str] = frozenset(),
    rank: int = 0,
) -> Callable[[KernelBuilder], KernelBuilder]:
    """Declare a kernel builder for an integer operator.

    The builder returns a Kernel, or None where the operation does not suit it. Then the builder
    with the next higher rank is asked, and after the last one those of the next lower opt_level.

    Args:
        op: operator name without prefix.
        opt_level: from which opt_level it is used.
        needs: instruction set features it needs.
        unless: instruction set features with which it is not used: the core has better kernels.
        rank: its place among the builders of one level, the lowest first.

    Raises:
        ValueError: two builders of one level and rank are for the same core, or no core has a
            feature of that name.
    """

    def register(builder: KernelBuilder) -> KernelBuilder:
        KERNELS.declare(
            Declaration(op, opt_level, frozenset(needs), frozenset(unless), rank, builder)
        )
        return builder

    return register


Restore = Callable[[Any], Any]
"""``(qdq.Region) -> relax.Call | None``; this module is below that one."""


@dataclass(frozen=True)
class Restorer:
    """How a float operator becomes an integer one: see ``restores``."""

    restore: Restore
    any_type: bool
    takes_bias: bool
    on_integers: bool


_RESTORERS: dict[str, Restorer] = {}


def restores(
    *relax_ops: str, any_type: bool = False, takes_bias: bool = False, on_integers: bool = False
) -> Callable[[Restore], Restore]:
    """Declare how float operators between ``dequantize`` and ``quantize`` become integer ones.

    The function is given a ``qdq.Region`` and returns the integer form, or None where there is
    none.

    Args:
        relax_ops: the operators at the heart of the region.
        any_type: it moves elements, which is exact for results of any type, not for 8 bits only.
        takes_bias: a constant added to its result is its bias.
        on_integers: TVM imports it on the integers, without ``dequantize`` and ``quantize``.
    """

    def register(restore: Restore) -> Restore:
        for op in relax_ops:
            _RESTORERS[op] = Restorer(restore, any_type, takes_bias, on_integers)
        return restore

    return register


def restorer(relax_op: str) -> Restorer | None:
    """What is declared with ``restores`` for a Relax operator, or None."""
    return _RESTORERS.get(relax_op)


def import_all(package: str, path: Iterable[str]) -> None:
    """Import every module below a package, so that what they declare is known.

    Args:
        package: its name.
        path: its ``__path__``.
    """
    for module in pkgutil.walk_packages(path, f"{package}."):
        importlib.import_module(module.name)
