"""What an operator file in ``kernels/`` declares, and how passes find it.

A file declares an integer Relax operator (``integer_op``), how to recognise it in the QDQ graph
TVM imports (``restores``), and the TIR kernels that compute it (``kernel``): a scalar one at
opt_level 1 that every core runs, and at higher levels ones for cores with certain features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tvm import ir, relax, tirx

INTEGER_OP_PREFIX = "mcuforge."

# In ``Kernel.inplace``: the result may lie over the operand if it is no larger and starts at the
# same byte, but not anywhere below.
SAME_PLACE = -1


def integer_op(name: str, infer: Callable[..., tuple[Sequence[int], str]]) -> Callable:
    """Register the Relax operator ``mcuforge.<name>`` and return the function that calls it.

    Args:
        name: the operator's name without prefix.
        infer: ``(arg_shapes, attrs) -> (shape, dtype)`` of the result; ``attrs`` is a dict.

    Returns:
        ``call(*args, **attrs) -> relax.Call``; usable in TVMScript too.
    """

    def infer_type(call: relax.Call, _builder: relax.BlockBuilder) -> relax.TensorType:
        shapes = [tuple(int(d) for d in arg.ty.shape) for arg in call.args]
        shape, dtype = infer(shapes, attributes(call))
        return relax.TensorType([int(d) for d in shape], dtype)

    full_name = INTEGER_OP_PREFIX + name
    ir.register_op_attr(full_name, "FInferType", infer_type)
    ir.register_op_attr(full_name, "FPurity", True)

    def call(*args: relax.Expr, **attrs: Any) -> relax.Call:
        return relax.Call(ir.Op.get(full_name), args, ir.make_node("ir.DictAttrs", **attrs))

    call.op_name = full_name
    return call


def attributes(call: relax.Call) -> dict[str, Any]:
    """The attributes of an operator call as plain Python values, whatever their node type."""
    if call.attrs is None:
        return {}
    keys = call.attrs.keys() if hasattr(call.attrs, "keys") else []
    return {str(key): _plain(call.attrs[key]) for key in keys}


def constant_value(expr: relax.Expr) -> np.ndarray | None:
    """The value of a Relax constant, or None for any other expression."""
    return expr.value.numpy() if isinstance(expr, ir.GenericConst) else None


def _plain(value: Any) -> Any:
    if isinstance(value, tirx.IntImm | tirx.FloatImm):
        return value.value
    if isinstance(value, bool | int | float) or value is None:
        return value
    if isinstance(value, str):
        return str(value)
    return tuple(_plain(item) for item in value)


@dataclass(frozen=True)
class Operand:
    """An argument of an operator: its type, and its value where it is constant."""

    shape: tuple[int, ...]
    dtype: str
    value: np.ndarray | None = None


@dataclass(frozen=True)
class Operation:
    """One integer operator with everything a kernel may depend on.

    Attributes:
        name: operator name without prefix.
        args: its operands in order.
        attrs: its attributes as plain values.
        out: type of the result.
        features: instruction set features of the target.
    """

    name: str
    args: tuple[Operand, ...]
    attrs: dict[str, Any]
    out: Operand
    features: frozenset[str]


@dataclass(frozen=True)
class Kernel:
    """A TIR function and what to pass to it.

    Attributes:
        func: a PrimFunc over buffers, the result last. Global-scope ``T.alloc_buffer`` in it
            becomes part of the workspace.
        args: for each parameter but the result, the index of the operand it takes, or the
            constant it takes.
        macs: multiply-accumulates it executes.
        inplace: for an operand index, how many bytes below the operand's first byte the result
            must at least start if both share memory (0: the same place or any below). Absent:
            never share. The number follows from the order of the kernel's reads and writes: 0 for
            elementwise kernels whose results are no wider than the operand; ``tir.inplace``
            computes it for sliding windows and in general. A kernel that reads a whole channel of
            the operand before it writes the same bytes says SAME_PLACE; one that passes over the
            operand again after its first write says nothing. The compiler keeps the order of loads
            and stores as written, so a kernel may load earlier than it declares, but never later.
    """

    func: tirx.PrimFunc
    args: tuple[int | np.ndarray, ...]
    macs: int = 0
    inplace: dict[int, int] = field(default_factory=dict)


KernelBuilder = Callable[[Operation], Kernel | None]
_KERNELS: list[tuple[str, int, frozenset[str], KernelBuilder]] = []
_RESTORERS: dict[str, Callable] = {}


def kernel(op: str, *, opt_level: int, needs: frozenset[str] | set[str] = frozenset()) -> Callable:
    """Declare a kernel builder for an integer operator.

    The builder returns a Kernel, or None where the shape does not suit it; the next lower level
    then provides one. Of several builders at one level the first declared that fits is taken.

    Args:
        op: operator name without prefix.
        opt_level: from which opt_level it is used.
        needs: instruction set features it needs.
    """

    def register(builder: KernelBuilder) -> KernelBuilder:
        _KERNELS.append((op, opt_level, frozenset(needs), builder))
        return builder

    return register


def select_kernel(operation: Operation, opt_level: int) -> Kernel | None:
    """The kernel declared for exactly this opt_level, or None."""
    for op, level, needs, builder in _KERNELS:
        if op == operation.name and level == opt_level and needs <= operation.features:
            built = builder(operation)
            if built is not None:
                return built
    return None


def restores(*relax_ops: str) -> Callable:
    """Declare how float operators between ``dequantize`` and ``quantize`` become integer ones."""

    def register(restorer: Callable) -> Callable:
        for op in relax_ops:
            _RESTORERS[op] = restorer
        return restorer

    return register


def restorer(relax_op: str) -> Callable | None:
    """The function declared with ``restores`` for a Relax operator, or None."""
    return _RESTORERS.get(relax_op)
