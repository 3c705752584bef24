"""Channels nobody needs: those that carry a constant, and those that meet only zero weights.

An output channel whose weights are all zero has the same value everywhere, known at compile time:
the consumer's bias can absorb it. An input channel whose weights are all zero is not read at all.
Either way the channel, and what was only computed for it, can go; every remaining number stays what
it was. Non-zero weights that reach an output are never dropped.

The analysis is one walk forward (which channels are constant) and one backward (which channels some
consumer needs present). Channels are the last axis throughout.
"""

from dataclasses import dataclass, field

import numpy as np
import tvm
from tvm import relax

from mcuforge.exact import arithmetic
from mcuforge.passes.rewrite import Lookup, bindings, rewrite_main
from mcuforge.tir.registry import INTEGER_OP_PREFIX, attributes, constant_value

_CONSUMERS = ("conv2d", "fully_connected")
# Operators that treat every channel alike; the result's channel needs the operands' channel.
_CHANNELWISE = ("pool2d", "add", "requantize")


@dataclass
class _Channels:
    """What is known of one tensor's channels.

    Attributes:
        count: how many there are.
        constant: value by channel, where all elements of the channel have it.
        needed: channels that must stay, as a boolean mask.
    """

    count: int
    constant: dict[int, int] = field(default_factory=dict)
    needed: np.ndarray = None

    def __post_init__(self) -> None:
        self.needed = np.zeros(self.count, bool)


@tvm.transform.module_pass(opt_level=2, name="RemoveDeadChannels")
class RemoveDeadChannels:
    """Remove the channels of integer operators that are constant or unread."""

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        channels = _analyse(mod)
        order = iter(bindings(mod))

        def rewrite(_builder: relax.BlockBuilder, value: relax.Expr, _lookup: Lookup) -> relax.Expr:
            binding = next(order)
            return _shrink(binding, value, channels)

        return rewrite_main(mod, rewrite)


def _analyse(mod: tvm.IRModule) -> dict[relax.Var, _Channels]:
    main = mod["main"]
    tensors = [*main.params, *(binding.var for binding in bindings(mod))]
    channels = {
        var: _Channels(_count(var.ty)) for var in tensors if isinstance(var.ty, relax.TensorType)
    }
    for binding in bindings(mod):
        if binding.var in channels:
            channels[binding.var].constant = _constants(binding.value, channels)
    for param in main.params:
        channels[param].needed[:] = True
    _need_all(main.body.body, channels)
    while _spread_need(mod, channels):
        pass
    return channels


def _spread_need(mod: tvm.IRModule, channels: dict[relax.Var, _Channels]) -> bool:
    """Carry needs across every operator, and keep a channel of what nobody needs.

    Needs only grow. Where channels go through one by one, operand and result keep the same ones,
    so a need travels forward too: to the other consumers of a tensor.

    Returns:
        Whether anything changed.
    """

    def kept() -> int:
        return sum(int(state.needed.sum()) for state in channels.values())

    before = kept()
    for binding in reversed(bindings(mod)):
        _propagate_need(binding, channels)
    if kept() == before:
        for state in channels.values():
            state.needed[: 0 if state.needed.any() else 1] = True
    return kept() != before


def _count(ty: relax.TensorType) -> int:
    """Channels of a tensor, its last dimension; a scalar is one."""
    return int(ty.shape[-1]) if len(ty.shape) else 1


def _op(value: relax.Expr) -> str:
    """Name of an integer operator without prefix, or of another operator, or ''."""
    name = getattr(getattr(value, "op", None), "name", "")
    return name.removeprefix(INTEGER_OP_PREFIX)


def _constants(value: relax.Expr, channels: dict[relax.Var, _Channels]) -> dict[int, int]:
    """Values of the constant channels an operator produces."""
    op = _op(value)
    if op in ("conv2d", "depthwise_conv2d", "fully_connected"):
        weight, bias, scale = (constant_value(arg) for arg in value.args[1:4])
        attrs = attributes(value)
        accumulators = _constant_accumulators(op, value, attrs, weight, bias, channels)
        return {
            channel: _requantized(acc, float(scale[channel]), attrs)
            for channel, acc in accumulators.items()
        }
    if op in ("pool2d", "relax.reshape") and value.args[0] in channels:
        source = channels[value.args[0]]
        if op == "pool2d" or source.count == _count(value.ty):
            attrs = attributes(value) if op == "pool2d" else {"clamp_min": -256, "clamp_max": 256}
            return {
                channel: min(max(constant, attrs["clamp_min"]), attrs["clamp_max"])
                for channel, constant in source.constant.items()
            }
    return {}


def _constant_accumulators(
    op: str,
    call: relax.Call,
    attrs: dict,
    weight: np.ndarray,
    bias: np.ndarray,
    channels: dict[relax.Var, _Channels],
) -> dict[int, int]:
    """Accumulators of the outputs that do not depend on the input's position or value."""
    weight = weight.astype(np.int64) - attrs["weight_zero_point"]
    if op != "depthwise_conv2d":
        zero = ~weight.reshape(len(weight), -1).any(axis=1)
        return {int(o): int(bias[o]) for o in np.flatnonzero(zero)}
    outputs = weight.shape[-1]
    per_channel = outputs // int(call.args[0].ty.shape[-1])
    known = _foldable(call.args[0], attrs, channels)
    found = {}
    for o in range(outputs):
        if not weight[..., o].any():
            found[o] = int(bias[o])
        elif o // per_channel in known:
            offset = known[o // per_channel] - attrs["input_zero_point"]
            found[o] = int(bias[o]) + int(weight[..., o].sum()) * offset
    return found


def _foldable(
    source: relax.Expr, attrs: dict, channels: dict[relax.Var, _Channels]
) -> dict[int, int]:
    """Constant input channels whose contribution is the same at every output position.

    Padding contributes nothing; a constant contributes the same everywhere only if nothing is
    padded, or if it is the zero point and contributes nothing either.
    """
    constant = channels[source].constant if source in channels else {}
    if not any(attrs.get("padding", (0,))):
        return constant
    return {c: v for c, v in constant.items() if v == attrs["input_zero_point"]}


def _requantized(acc: int, scale: float, attrs: dict) -> int:
    """One accumulator through TFLite's requantization and clamp."""
    if attrs["rounding"] == "twice":
        result = arithmetic.multiply_by_quantized_multiplier(
            acc, *arithmetic.quantize_multiplier(scale)
        )
    else:
        result = arithmetic.fully_connected_round(np.int64(acc), np.float64(scale))
    return min(max(int(result) + attrs["zero_point"], attrs["clamp_min"]), attrs["clamp_max"])


def _propagate_need(binding: relax.VarBinding, channels: dict[relax.Var, _Channels]) -> None:
    """Mark the channels that must stay because of one operator."""
    value, op = binding.value, _op(binding.value)
    result = channels.get(binding.var)
    if op in _CONSUMERS and attributes(value).get("groups", 1) == 1:
        attrs, weight = attributes(value), constant_value(value.args[1])
        source = channels[value.args[0]]
        kept = weight[_kept(result)].astype(np.int64) - attrs["weight_zero_point"]
        read = kept.reshape(-1, source.count).any(axis=0)
        read[list(_foldable(value.args[0], attrs, channels))] = False
        source.needed |= read
    elif op == "depthwise_conv2d":
        source = channels[value.args[0]]
        source.needed |= result.needed.reshape(source.count, -1).any(axis=1)
        result.needed |= np.repeat(source.needed, result.count // source.count)
    elif (
        op in (*_CHANNELWISE, "relax.reshape")
        and all(arg in channels for arg in _tensors(value))
        and all(channels[arg].count == result.count for arg in _tensors(value))
    ):
        for arg in _tensors(value):
            channels[arg].needed |= result.needed
        for arg in _tensors(value):
            result.needed |= channels[arg].needed
    elif isinstance(value, relax.Var) and value in channels:
        channels[value].needed |= result.needed
        result.needed |= channels[value].needed
    else:
        _need_all(value, channels)
        if result is not None:
            result.needed[:] = True


def _tensors(call: relax.Call) -> list[relax.Expr]:
    """The tensor operands of a channelwise operator."""
    return [arg for arg in call.args if isinstance(arg.ty, relax.TensorType)]


def _need_all(expr: relax.Expr, channels: dict[relax.Var, _Channels]) -> None:
    if isinstance(expr, relax.Var) and expr in channels:
        channels[expr].needed[:] = True
    elif isinstance(expr, relax.Tuple):
        for item in expr.fields:
            _need_all(item, channels)
    elif isinstance(expr, relax.Call):
        for arg in expr.args:
            _need_all(arg, channels)


def _kept(state: _Channels) -> np.ndarray:
    return np.flatnonzero(state.needed)


def _shrink(
    binding: relax.VarBinding, value: relax.Expr, channels: dict[relax.Var, _Channels]
) -> relax.Expr:
    """An operator with only the channels that stay; ``value`` has the new operands already."""
    op = _op(value)
    if op not in (*_CONSUMERS, "depthwise_conv2d", "relax.reshape"):
        return value
    original = binding.value
    source, result = channels.get(original.args[0]), channels[binding.var]
    if source is None or (source.needed.all() and result.needed.all()):
        return value
    inputs, outputs = _kept(source), _kept(result)
    if op == "relax.reshape":
        shape = [int(size) for size in original.ty.shape]
        return relax.op.reshape(value.args[0], [*shape[:-1], len(outputs)])
    attrs = attributes(value)
    weight, bias, scale = (constant_value(arg) for arg in original.args[1:4])
    if op == "depthwise_conv2d":
        weight = weight[..., outputs]
    elif attrs.get("groups", 1) == 1:
        bias = bias + _folded(original, weight, attrs, channels, source)
        weight = weight[outputs][..., inputs]
    else:
        weight = weight[outputs]
    constants = (weight, bias[outputs].astype("int32"), scale[outputs])
    operands = [relax.const(np.ascontiguousarray(c), str(c.dtype)) for c in constants]
    return relax.Call(value.op, [value.args[0], *operands], value.attrs)


def _folded(
    call: relax.Call,
    weight: np.ndarray,
    attrs: dict,
    channels: dict[relax.Var, _Channels],
    source: _Channels,
) -> np.ndarray:
    """What the removed input channels contribute to each accumulator, int64."""
    known = _foldable(call.args[0], attrs, channels)
    removed = [c for c in np.flatnonzero(~source.needed) if c in known]
    offsets = np.array([known[c] - attrs["input_zero_point"] for c in removed], np.int64)
    weights = weight[..., removed].astype(np.int64) - attrs["weight_zero_point"]
    return (weights * offsets).reshape(len(weight), -1).sum(axis=1)
