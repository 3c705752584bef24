"""What the quantization of an operator's tensors must be, so that it computes what LiteRT does."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mcuforge.formats.tflite.graph import Tensor

QUANTIZED = ("int8", "uint8", "int16")
"""Types whose values mean steps of a scale."""

Broken = Callable[[Sequence[Tensor], Sequence[Tensor]], str]
_SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Rule:
    """What the quantization of an operator's tensors must be.

    Attributes:
        text: for people.
        broken: ``(operands, results)``: how tensors break the rule, or an empty text; an operand
            left out is none of them.
    """

    text: str
    broken: Broken


def _activation(tensor: Tensor, what: str) -> str:
    """Why a tensor is not quantized as activations must be; empty for other types."""
    if tensor.dtype not in QUANTIZED:
        return ""
    if tensor.scales.size != 1 or tensor.zero_points.size > 1:
        return f"has {what} '{tensor.name}' with {tensor.scales.size} scales, not one"
    scale, zero_point = float(tensor.scales[0]), int(tensor.zero_points.sum())
    low, high = np.iinfo(tensor.dtype).min, np.iinfo(tensor.dtype).max
    if not _SMALLEST <= scale < math.inf:
        return f"has {what} '{tensor.name}' of scale {scale:g}"
    if tensor.dtype == "int16":
        low = high = 0
    if not low <= zero_point <= high:
        return f"has {what} '{tensor.name}' of zero point {zero_point}"
    return ""


def _per_tensor(operands: Sequence[Tensor], results: Sequence[Tensor]) -> str:
    for what, tensors in (("operand", operands), ("result", results)):
        for tensor in tensors:
            reason = _activation(tensor, what)
            if reason:
                return reason
    return ""


def _quantizes(operands: Sequence[Tensor], results: Sequence[Tensor]) -> str:
    for tensor in (*operands, *results):
        if tensor.dtype == "int32":
            one_scale = tensor.scales.size == 1 and _SMALLEST <= tensor.scales[0] < math.inf
            if not one_scale or np.any(tensor.zero_points):
                return f"has int32 tensor '{tensor.name}' without one scale and zero point 0"
    return _per_tensor(operands, results)


def _same(operands: Sequence[Tensor], results: Sequence[Tensor]) -> str:
    result = results[0]
    alike = [t for t in (*operands, *results[1:]) if t.dtype == result.dtype]
    for tensor in alike:
        if tensor.quantization != result.quantization:
            return f"has tensors '{tensor.name}' and '{result.name}' of differing quantization"
    return "" if not result.scales.size else _per_tensor(operands, results)


def _compared(operands: Sequence[Tensor], results: Sequence[Tensor]) -> str:
    unquantized = all(not tensor.scales.size for tensor in (*operands, *results))
    return "" if unquantized else _per_tensor(operands, results)


def _scaled_comparison(operands: Sequence[Tensor], results: Sequence[Tensor]) -> str:
    reason = _per_tensor(operands, results)
    for tensor in operands:
        # QuantizeMultiplierSmallerThanOneExp, quantization_util.cc.
        if not reason and tensor.dtype in ("int8", "uint8") and tensor.scales[0] >= 1:
            return f"has operand '{tensor.name}' of scale {tensor.scales[0]:g}, not below 1"
    return reason


def _concatenated(operands: Sequence[Tensor], results: Sequence[Tensor]) -> str:
    if results[0].dtype == "uint8" and all(tensor.scales.size for tensor in (*operands, *results)):
        return _per_tensor(operands, results)
    return _same(operands, results)


def _fixed_scale(tolerance: float, zero_points: dict[str, int]) -> Broken:
    def broken(operands: Sequence[Tensor], results: Sequence[Tensor]) -> str:
        result = results[0]
        reason = _per_tensor(operands, results)
        if reason or result.dtype not in QUANTIZED:
            return reason
        scale, zero_point = float(result.scales[0]), int(result.zero_points.sum())
        if abs(scale * 256 - 1) > tolerance:
            return f"has result '{result.name}' of scale {scale:g}, not 1/256"
        if zero_points and zero_point != zero_points[result.dtype]:
            return f"has result '{result.name}' of zero point {zero_point}"
        return ""

    return broken


def _weighted(channels: int, dense: bool) -> Broken:
    """The rule of operators with weights; `channels` is the dimension that may have scales."""

    def broken(operands: Sequence[Tensor], results: Sequence[Tensor]) -> str:
        x, weights, *rest = operands
        bias = rest[0] if rest else None
        if len(weights.shape) != (2 if dense else 4):
            return f"has weights of shape {list(weights.shape)}"
        outputs, count = weights.shape[channels], weights.scales.size
        if bias is not None and bias.shape != (outputs,):
            return f"has a bias of shape {list(bias.shape)}, not [{outputs}]"
        if weights.dtype == "float32":
            return ""
        reason = _per_tensor([x], results)
        if reason:
            return reason
        if count != 1 and (count != outputs or weights.axis != channels):
            return f"has {count} weight scales along dimension {weights.axis}"
        if not np.isfinite(weights.scales).all():
            return "has a weight scale that is not finite"
        zero_points = np.unique(weights.zero_points)
        # The reference kernels of convolutions take int8 weights for symmetric.
        if np.any(zero_points) and (count > 1 or (weights.dtype == "int8" and not dense)):
            return f"has {weights.dtype} weights of zero point {zero_points[-1]}"
        if x.dtype == "float32":
            return _hybrid(weights, dense)
        return _scaled(x, weights, bias, results[0], dense)

    return broken


def _root(operands: Sequence[Tensor], results: Sequence[Tensor]) -> str:
    """LiteRT ends an inference that takes the root of a negative number."""
    reason = _per_tensor(operands, results)
    if not reason and operands[0].dtype == "int8" and operands[0].zero_points.sum() != -128:
        return f"has operand '{operands[0].name}' of zero point {operands[0].zero_points.sum()}"
    return reason


def _transposed(operands: Sequence[Tensor], results: Sequence[Tensor]) -> str:
    """The rule of a convolution; its operands are the result's shape, weights, input and bias."""
    shape, weights, x, *bias = operands
    if shape.shape != (4,):
        return f"has a result's shape of shape {list(shape.shape)}"
    reason = _weighted(0, dense=False)((x, weights, *bias), results)
    if not reason and weights.scales.size and weights.scales.min() < 0:
        return f"has a weight scale of {weights.scales.min():g}"
    return reason


def _hybrid(weights: Tensor, dense: bool) -> str:
    if np.any(weights.zero_points) or not (dense or weights.scales.size == 1):
        return "has float activations, and weights of several scales or with a zero point"
    low = weights.scales.min()
    return "" if low > 0 else f"has float activations, and weights of scale {low:g}"


def _scaled(x: Tensor, weights: Tensor, bias: Tensor | None, result: Tensor, dense: bool) -> str:
    """What LiteRT refuses of scales of weights and bias."""
    per_tensor = weights.scales.size == 1
    if weights.dtype == "uint8" and not per_tensor:
        return "has uint8 weights of several scales"
    if bias is not None and np.any(bias.zero_points):
        return f"has a bias of zero point {bias.zero_points[0]}"
    if per_tensor and (dense or weights.dtype == "uint8"):
        # GetQuantizedConvolutionMultipler, kernel_util.cc.
        product = np.float64(x.scales[0]) * np.float64(weights.scales[0])
        if product < 0:
            return f"has weights of scale {weights.scales[0]:g}"
        given = np.float64(bias.scales[0]) if bias is not None and bias.scales.size else 0.0
        if bias is not None and abs(product - given) > 0.02 * np.float64(result.scales[0]):
            return f"has a bias of scale {given:g}, not {product:g}"
    return ""


COPIED = Rule("any: elements are moved as they are", lambda _operands, _results: "")
COMPARED = Rule("one scale each, or none: the integers are compared", _compared)
COMPARED_SCALED = Rule("one scale each, below 1 for 8 bits", _scaled_comparison)
EACH = Rule("one scale each", _per_tensor)
QUANTIZES = Rule("one scale each", _quantizes)
EQUAL = Rule("the same for all, or none", _same)
CONCATENATED = Rule("the same for all; uint8 also one scale each", _concatenated)
LOGISTIC = Rule("one scale each, that of the result is 1/256", _fixed_scale(0.0, {}))
SOFTMAX = Rule(
    "one scale each, that of the result is 1/256, its zero point the smallest value",
    _fixed_scale(1e-3, {"int8": -128, "uint8": 0}),
)
ROOT = Rule("one scale each; that of the operand has the smallest value for zero point", _root)
CONVOLVED = Rule(
    "one scale each; int8 weights one scale per output channel too, of either sign, zero point 0",
    _weighted(0, dense=False),
)
CONVOLVED_DEPTHWISE = Rule(CONVOLVED.text, _weighted(3, dense=False))
CONVOLVED_TRANSPOSED = Rule(
    "one scale each; int8 weights one scale per output channel too, zero point 0", _transposed
)
DENSE = Rule(
    "one scale each; int8 weights one scale per output channel too, then of either sign and with "
    "zero point 0",
    _weighted(0, dense=True),
)
