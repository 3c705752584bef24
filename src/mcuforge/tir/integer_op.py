"""Integer Relax operators: what they declare of themselves, and calls of them as values."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import ir, relax, tirx

from mcuforge.tir.channels import Flow
from mcuforge.tir.registry import Operand, Operation

INTEGER_OP_PREFIX = "mcuforge."


@dataclass(frozen=True)
class Traits:
    """What passes may know of an operator; what it does not declare, they do not assume.

    Attributes:
        channels: how channels pass through it. Across it dead channels are removed, and where it
            is a ``WeightedSum``, the zero point of its input moves into its bias.
        outside: ``attrs -> value`` of what lies outside of its first operand, an image that its
            attribute ``padding`` (top, left, bottom, right) extends. A PAD with this value in front
            of it becomes its own padding.
        macs: ``operation -> number`` of multiply-accumulates; none if it is not declared.
    """

    channels: Flow | None = None
    outside: Callable[[dict[str, Any]], float] | None = None
    macs: Callable[[Operation], int] | None = None


_UNKNOWN = Traits()
_TRAITS: dict[str, Traits] = {}


def integer_op(
    name: str,
    infer: Callable[..., tuple[Sequence[int], str]],
    traits: Traits = _UNKNOWN,
) -> Callable[..., relax.Call]:
    """Register the Relax operator ``mcuforge.<name>`` and return the function that calls it.

    Args:
        name: the operator's name without prefix.
        infer: ``(arg_shapes, attrs) -> (shape, dtype)`` of the result; ``attrs`` is a dict.
        traits: what passes may know of it.

    Returns:
        ``call(*args, **attrs) -> relax.Call``; usable in TVMScript too.
    """

    def infer_type(call: relax.Call, _builder: relax.BlockBuilder) -> relax.TensorType:
        shapes = [tuple(int(d) for d in arg.ty.shape) for arg in call.args]
        shape, dtype = infer(shapes, attributes(call))
        return relax.TensorType([int(d) for d in shape], dtype)

    full_name = INTEGER_OP_PREFIX + name
    _TRAITS[full_name] = traits
    ir.register_op_attr(full_name, "FInferType", infer_type)
    ir.register_op_attr(full_name, "FPurity", True)

    def call(*args: relax.Expr, **attrs: Any) -> relax.Call:
        return relax.Call(ir.Op.get(full_name), args, ir.make_node("ir.DictAttrs", **attrs))

    return call


def macs_of_weights(operation: Operation) -> int:
    """Every weight is used once for each pixel, or row, of the result."""
    return math.prod(operation.out.shape[:-1]) * math.prod(operation.args[1].shape)


def traits(expr: relax.Expr) -> Traits:
    """What the operator that an expression calls declares."""
    return _TRAITS.get(op_name(expr), _UNKNOWN)


def op_name(expr: relax.Expr) -> str:
    """Full name of the operator an expression calls; empty if it calls none."""
    return getattr(getattr(expr, "op", None), "name", "")


def changed(
    call: relax.Call, args: dict[int, relax.Expr] | None = None, **attrs: Any
) -> relax.Call:
    """A call with some arguments, by their index, and attributes replaced."""
    operands = [(args or {}).get(index, arg) for index, arg in enumerate(call.args)]
    return relax.Call(
        call.op, operands, ir.make_node("ir.DictAttrs", **{**attributes(call), **attrs})
    )


def operation(call: relax.Call, lookup: Callable[[relax.Expr], relax.Expr]) -> Operation:
    """An integer operator call as values.

    Args:
        call: its operands have types.
        lookup: gives the value a variable is bound to.
    """
    # A call that was rebuilt with new operands has no type yet.
    out = relax.BlockBuilder().normalize(call).ty
    return Operation(
        name=op_name(call).removeprefix(INTEGER_OP_PREFIX),
        args=tuple(_operand(arg.ty, constant_value(lookup(arg))) for arg in call.args),
        attrs=attributes(call),
        out=_operand(out, None),
    )


def _operand(ty: relax.TensorType, value: np.ndarray | None) -> Operand:
    return Operand(tuple(int(d) for d in ty.shape), str(ty.dtype), value)


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
