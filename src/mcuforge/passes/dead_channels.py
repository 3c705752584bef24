"""Channels nobody needs: those that carry a constant, and those that meet only zero weights.

An output channel whose weights are all zero has the same value everywhere, known at compile time:
the consumer's bias can absorb it. An input channel whose weights are all zero is not read at all.
Either way the channel, and what was only computed for it, can go; every remaining number stays what
it was. Non-zero weights that reach an output are never dropped.

The analysis walks forward once (which channels are constant) and then backward until nothing
changes (which channels some consumer needs). What an operator does to channels is declared with it,
as a ``tir.channels.Flow``. One that declares nothing needs all channels of what it reads.
"""

from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from mcuforge.passes.rewrite import Lookup, bindings, rewrite_main
from mcuforge.tir.channels import Channels, Crossing, Flow
from mcuforge.tir.integer_op import changed, op_name, operation, traits


@tvm.transform.module_pass(opt_level=2, name="RemoveDeadChannels")
class RemoveDeadChannels:
    """Remove the channels of integer operators that are constant or unread."""

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        main = mod["main"]
        channels = {param: Channels(_count(param.ty)) for param in main.params}
        steps = [_step(binding, channels) for binding in bindings(mod)]
        for var in (*main.params, *relax.analysis.free_vars(main.body.body)):
            if var in channels:  # a tuple needs what it holds
                channels[var].needed[:] = True
        _spread_need(steps, list(channels.values()))
        remaining = iter(steps)

        def rewrite(_builder: relax.BlockBuilder, value: relax.Expr, _lookup: Lookup) -> relax.Expr:
            return _shrink(value, next(remaining))

        return rewrite_main(mod, rewrite)


@dataclass(frozen=True)
class _Step:
    """One binding of ``main``.

    Attributes:
        result: channels of what it binds; None if that is no tensor.
        whole: tensors that keep all channels because of it.
        flow, crossing: how channels pass through it; None where that is not declared.
    """

    result: Channels | None
    whole: list[Channels]
    flow: Flow | None = None
    crossing: Crossing | None = None


def _step(binding: relax.VarBinding, channels: dict[relax.Var, Channels]) -> _Step:
    """What a binding does; its result, with the channels that are constant, joins ``channels``."""
    var, value = binding.var, binding.value
    read = [channels[var] for var in relax.analysis.free_vars(value) if var in channels]
    if not isinstance(var.ty, relax.TensorType):
        return _Step(None, read)
    source = channels.get(_renamed(value))
    if source is not None:
        channels[var] = source
        return _Step(source, [])
    result = channels[var] = Channels(_count(var.ty))
    flow = traits(value).channels
    if flow is not None:
        operands = value.args[: flow.operands]
        sources = tuple(channels[arg] for arg in operands if arg in channels)
        crossing = Crossing(operation(value, lambda expr: expr), sources, result)
        if len(sources) == flow.operands and flow.suits(crossing):
            flow.find_constants(crossing)
            return _Step(result, [], flow, crossing)
    return _Step(result, [*read, result])


def _count(ty: relax.TensorType) -> int:
    """Channels of a tensor, its last dimension; a scalar is one."""
    return int(ty.shape[-1]) if len(ty.shape) else 1


def _renamed(value: relax.Expr) -> relax.Expr | None:
    """The tensor whose channels an expression has: itself, or what keeps its last dimension."""
    if op_name(value) == "relax.reshape" and _count(value.ty) == _count(value.args[0].ty):
        return value.args[0]
    return value if isinstance(value, relax.Var) else None


def _spread_need(steps: list[_Step], tensors: list[Channels]) -> None:
    """Carry needs across every operator, and keep a channel of what nobody needs.

    Needs only grow. Where channels go through one by one, operand and result keep the same ones,
    so a need travels forward too: to the other consumers of a tensor.
    """

    def kept() -> int:
        return sum(int(channels.needed.sum()) for channels in tensors)

    before = -1
    while kept() > before:
        before = kept()
        for step in reversed(steps):
            for channels in step.whole:
                channels.needed[:] = True
            if step.flow is not None and step.crossing is not None:
                step.flow.spread_need(step.crossing)
        if kept() == before:
            for channels in tensors:
                channels.needed[: 0 if channels.needed.any() else 1] = True


def _shrink(value: relax.Expr, step: _Step) -> relax.Expr:
    """An operator with only the channels that stay; ``value`` has the new operands already."""
    sources = step.crossing.sources if step.crossing else ()
    if step.result is None or all(channels.needed.all() for channels in (step.result, *sources)):
        return value
    if op_name(value) == "relax.reshape":
        shape = [int(size) for size in value.args[1]]
        return relax.op.reshape(value.args[0], [*shape[:-1], int(step.result.needed.sum())])
    assert step.flow and step.crossing, "what is not declared keeps all channels"
    constants, attrs = step.flow.without(step.crossing)
    arrays = {index: np.ascontiguousarray(array) for index, array in constants.items()}
    return changed(value, {i: relax.const(a, str(a.dtype)) for i, a in arrays.items()}, **attrs)
