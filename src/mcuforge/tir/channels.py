"""How the channels of an operator's result, its last axis, depend on those of its operands.

An operator declares one of these classes, and passes ask its methods, whatever the operator is. An
operator that declares none is taken to read every channel of its operands: its operands keep them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mcuforge.tir.registry import Operation
from mcuforge.tir.requantize import requantization


class Channels:
    """What is known of the channels of one tensor.

    Attributes:
        constant: (c,) bool, whether all elements of the channel have one value, known now.
        value: (c,) int64, that value.
        needed: (c,) bool, whether the channel must stay.
    """

    def __init__(self, count: int) -> None:
        self.constant = np.zeros(count, bool)
        self.value = np.zeros(count, np.int64)
        self.needed = np.zeros(count, bool)

    def __len__(self) -> int:
        return len(self.needed)


@dataclass(frozen=True)
class Crossing:
    """One operation, and the channels of its operands and of its result.

    Attributes:
        sources: of the first ``Flow.operands`` operands.
    """

    operation: Operation
    sources: tuple[Channels, ...]
    result: Channels


class Flow(ABC):
    """How channels pass through an operator.

    Attributes:
        operands: how many of the first operands have channels; all others are constants.
    """

    operands: int

    def suits(self, at: Crossing) -> bool:
        """Whether it holds for this operation; otherwise the operator counts as undeclared."""
        return all(operand.value is not None for operand in at.operation.args[self.operands :])

    @abstractmethod
    def find_constants(self, at: Crossing) -> None:
        """Note which channels of the result are constant, from those of the operands."""

    @abstractmethod
    def spread_need(self, at: Crossing) -> None:
        """Mark the channels of operands that the result needs, and the other way round."""

    def without(self, at: Crossing) -> tuple[dict[int, np.ndarray], dict[str, Any]]:
        """What changes when only the needed channels stay.

        Returns:
            New constant operands by their index, and new attributes.
        """
        return {}, {}


@dataclass(frozen=True)
class Channelwise(Flow):
    """Each channel is computed from the same channel of the operands, and all are alike.

    Attributes:
        constant: ``(operation, *values) -> value``: what becomes of channels that are constant;
            None where that is not told.
    """

    constant: Callable[..., int] | None = None
    operands: int = 1

    def suits(self, at: Crossing) -> bool:
        """Operands have as many channels as the result: they are not broadcast."""
        return super().suits(at) and {len(source) for source in at.sources} == {len(at.result)}

    def find_constants(self, at: Crossing) -> None:
        if self.constant is None:
            return
        at.result.constant = np.logical_and.reduce([source.constant for source in at.sources])
        for channel in np.flatnonzero(at.result.constant):
            values = (int(source.value[channel]) for source in at.sources)
            at.result.value[channel] = self.constant(at.operation, *values)

    def spread_need(self, at: Crossing) -> None:
        tensors = (*at.sources, at.result)
        needed = np.logical_or.reduce([channels.needed for channels in tensors])
        for channels in tensors:
            channels.needed |= needed


@dataclass(frozen=True)
class WeightedSum(Flow):
    """``sum((x - input_zero_point) * (weight - weight_zero_point)) + bias``, requantized.

    Operands: x (..., c); weight; bias (o,) int32; scale (o,) float64, real factor from the sum to
    the result. Attributes: input_zero_point, weight_zero_point, zero_point, clamp_min, clamp_max,
    rounding (see ``requantize.requantization``); perhaps padding, whose positions contribute
    nothing, and groups. An output channel reads only the input channels of its group.

    Attributes:
        depthwise: each input channel is a group of its own, and the weight is (..., o). Otherwise
            the weight is (o, ..., c / groups).
    """

    depthwise: bool = False
    operands: int = 1

    @property
    def products(self) -> str:
        """What an input is multiplied by, see ``mlf.Operator``."""
        return "depthwise" if self.depthwise else "dense"

    def weights(self, operation: Operation) -> np.ndarray:
        """int64 (o, taps, c / groups): the weights without their zero point."""
        weight = operation.args[1].constant.astype(np.int64) - operation.attrs["weight_zero_point"]
        if self.depthwise:
            return np.moveaxis(weight, -1, 0).reshape(weight.shape[-1], -1, 1)
        return weight.reshape(len(weight), -1, weight.shape[-1])

    def find_constants(self, at: Crossing) -> None:
        """Outputs are constant that read nothing but constants, or have no weight but zero."""
        weights, attrs = self.weights(at.operation), at.operation.attrs
        constant, offset = _constants(at)
        inputs = _inputs(at, weights)
        found = (constant[inputs] | ~weights.any(axis=1)).all(axis=1)
        if not found.any():
            return
        bias, scale = (operand.constant for operand in at.operation.args[2:])
        acc = (bias + (weights.sum(axis=1) * offset[inputs]).sum(axis=1))[found, np.newaxis]
        result = requantization(at.operation, scale[found])(acc)[:, 0] + attrs["zero_point"]
        at.result.constant = found
        at.result.value[found] = np.clip(result, attrs["clamp_min"], attrs["clamp_max"])

    def spread_need(self, at: Crossing) -> None:
        """Inputs that meet a weight are read, but for constants; groups stay or go as a whole."""
        weights, (source,), result = self.weights(at.operation), at.sources, at.result
        groups = len(source) // weights.shape[-1]
        if groups == 1:
            constant, _ = _constants(at)
            source.needed |= weights[result.needed].any(axis=(0, 1)) & ~constant
            return
        tensors = (source, result)
        needed = np.logical_or.reduce([t.needed.reshape(groups, -1).any(axis=1) for t in tensors])
        for channels in tensors:
            channels.needed |= needed.repeat(len(channels) // groups)

    def without(self, at: Crossing) -> tuple[dict[int, np.ndarray], dict[str, Any]]:
        """What removed inputs contribute moves into the bias."""
        weights, (source,), outputs = self.weights(at.operation), at.sources, at.result.needed
        weight, bias, scale = (operand.constant for operand in at.operation.args[1:])
        _, offset = _constants(at)
        removed = np.where(source.needed, 0, offset)[_inputs(at, weights)]
        bias = bias + (weights.sum(axis=1) * removed).sum(axis=1)
        weight = weight[..., outputs] if self.depthwise else weight[outputs]
        group = weights.shape[-1]
        attrs = {}
        if group < len(source):
            if "groups" in at.operation.attrs:
                attrs["groups"] = int(source.needed.sum()) // group
        elif not self.depthwise:
            weight = weight[..., source.needed]
        return {1: weight, 2: bias[outputs].astype(np.int32), 3: scale[outputs]}, attrs


def _inputs(at: Crossing, weights: np.ndarray) -> np.ndarray:
    """(o, c / groups): the input channel that each of ``WeightedSum.weights`` meets."""
    (source,), (outputs, _, count) = at.sources, weights.shape
    group = np.arange(outputs) * (len(source) // count) // outputs
    return group[:, np.newaxis] * count + np.arange(count)


def _constants(at: Crossing) -> tuple[np.ndarray, np.ndarray]:
    """Input channels that contribute the same to a sum at every position of the result.

    Padding contributes nothing. So where something is padded, a constant contributes the same
    everywhere only if it is the zero point and contributes nothing either.

    Returns:
        (c,) bool, which these are; (c,) int64, what their weights are multiplied by.
    """
    (source,), attrs = at.sources, at.operation.attrs
    offset = source.value - attrs["input_zero_point"]
    padded = any(attrs.get("padding", ()))
    constant = source.constant & (offset == 0) if padded else source.constant
    return constant, np.where(constant, offset, 0)
