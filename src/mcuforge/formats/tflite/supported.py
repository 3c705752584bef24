"""What of TFLite compiles: one table, and the check of a model against it.

`docs/operators.md` is this table written out, and the tests draw their networks from it. What the
table does not allow is refused before it is imported; what it allows is exact, or float arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mcuforge.errors import ModelError
from mcuforge.formats.tflite.graph import Graph, Node, Tensor

ACTIVATIONS = ("NONE", "RELU", "RELU6", "RELU_N1_TO_1")
"""Fused activations."""

_ENUMS = {
    "fusedActivationFunction": schema.ActivationFunctionType,
    "padding": schema.Padding,
    "weightsFormat": schema.FullyConnectedOptionsWeightsFormat,
    "quantizedBiasType": schema.TensorType,
}
Broken = Callable[[Sequence[Tensor], Sequence[Tensor]], str]
_SMALLEST = float(np.finfo(np.float32).tiny)
_MOVED = ("float32", "int8", "uint8", "int16", "int32", "int64", "bool")
_QUANTIZED = ("int8", "uint8", "int16")


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


@dataclass(frozen=True)
class Support:
    """What compiles of one TFLite operator.

    Attributes:
        types: allowed types, as ``operands -> result``; ``?`` marks an operand that may be left
            out, ``...`` one that comes once or more often.
        rule: of the quantization.
        ranks: smallest and largest number of dimensions of any operand or result that is no
            constant.
        options: the options that the import reads, and their allowed values; None for any. All
            others must have their defaults.
        constant: places of the operands that must be constants.
        kind: TFLite's name for the options, without ``Options``; empty if the operator has none.
        integer: the operators of ``operators`` that int8 tensors may take it to; none where TVM's
            own moves or compares them.
    """

    types: tuple[str, ...]
    rule: Rule
    ranks: tuple[int, int] = (0, 6)
    options: Mapping[str, tuple[str, ...] | None] = field(default_factory=dict)
    constant: tuple[int, ...] = ()
    kind: str = ""
    integer: tuple[str, ...] = ()


def check(graph: Graph) -> None:
    """Refuse a model that does not compile exactly.

    Raises:
        ModelError: one line that names the operator, its index and its output tensor.
    """
    known = {
        *graph.inputs,
        *(i for i in range(len(graph.tensors)) if graph.tensor(i).value is not None),
    }
    for node in graph.nodes:
        reason = _refusal(graph, node, known)
        if reason:
            raise ModelError(f"{graph.where(node)} {reason}")
        known.update(node.operator.outputs)
    for index in graph.outputs:
        if index not in known:
            raise ModelError(f"output tensor '{graph.tensor(index).name}' is never computed")


def _refusal(graph: Graph, node: Node, known: set[int]) -> str:
    """Why an operator does not compile; empty if it does."""
    support = SUPPORTED.get(node.name)
    if support is None:
        return "is not supported"
    for index in node.operator.inputs:
        if index >= 0 and index not in known:
            return f"takes tensor '{graph.tensor(index).name}', which is never computed"
    for index in node.operator.outputs:
        if index in known:
            return f"writes tensor '{graph.tensor(index).name}', which has a value already"
    operands = graph.operands(node)
    results = [graph.tensor(index) for index in node.operator.outputs]
    return (
        _types(support, operands, results)
        or _constants(support, operands)
        or _ranks(support, operands, results)
        or _options(support, node)
        or support.rule.broken([t for t in operands if t is not None], results)
    )


def _types(support: Support, operands: list[Tensor | None], results: list[Tensor]) -> str:
    given = [None if tensor is None else tensor.dtype for tensor in operands]
    made = [tensor.dtype for tensor in results]
    if any(_matches(signature, given, made) for signature in support.types):
        return ""
    text = " ".join(dtype or "none" for dtype in given)
    return f"has types {text} -> {' '.join(made)}, supported: {'; '.join(support.types)}"


def _matches(signature: str, operands: list[str | None], results: list[str]) -> bool:
    """Whether types fit one signature of `Support.types`."""
    left, right = (side.split() for side in signature.split("->"))
    for pattern, dtypes in ((left, list(operands)), (right, list(results))):
        for item in pattern:
            name = item.rstrip("?.")
            if item.endswith("...") and dtypes:
                while dtypes and dtypes[0] == name:
                    del dtypes[0]
            elif item.endswith("?") and (not dtypes or dtypes[0] is None):
                del dtypes[:1]
            elif dtypes and dtypes[0] == name:
                del dtypes[0]
            else:
                return False
        if dtypes:
            return False
    return True


def _constants(support: Support, operands: list[Tensor | None]) -> str:
    for place in support.constant:
        tensor = operands[place] if place < len(operands) else None
        if tensor is not None and tensor.value is None:
            return f"needs a constant as operand {place}, tensor '{tensor.name}'"
    return ""


def _ranks(support: Support, operands: list[Tensor | None], results: list[Tensor]) -> str:
    low, high = support.ranks
    for tensor in (*operands, *results):
        if tensor is not None and tensor.value is None and not low <= len(tensor.shape) <= high:
            allowed = str(low) if low == high else f"{low} to {high}"
            return f"has tensor '{tensor.name}' of {len(tensor.shape)} dimensions, not {allowed}"
    return ""


def _options(support: Support, node: Node) -> str:
    expected = f"{support.kind}Options" if support.kind else "NONE"
    if node.options not in (expected, "NONE"):
        return f"has options of another operator, {node.options}"
    if node.unknown:
        return "has an option that this version does not know"
    default = vars(getattr(schema, f"{expected}T")()) if support.kind else {}
    given = vars(node.operator.builtinOptions) if node.operator.builtinOptions else default
    for name, value in given.items():
        allowed = support.options.get(name, (_enumerator(name, default[name]),))
        value = _enumerator(name, value)
        if allowed is not None and value not in allowed:
            names = ", ".join(map(str, allowed))
            return f"has option {snake(name)} {value}, supported: {names}"
    return ""


def _enumerator(option: str, value: Any) -> Any:
    """The name of an option's value where TFLite has one."""
    for name, code in vars(_ENUMS[option]).items() if option in _ENUMS else ():
        if code == value and isinstance(code, int):
            return name
    return value


def snake(option: str) -> str:
    """An option's name as the schema has it, such as `stride_h` of `strideH`."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in option)


def _activation(tensor: Tensor, what: str) -> str:
    """Why a tensor is not quantized as activations must be; empty for other types."""
    if tensor.dtype not in _QUANTIZED:
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
    alike = [t for t in operands if t.dtype == result.dtype]
    for tensor in alike:
        if tensor.quantization != result.quantization:
            return f"has tensors '{tensor.name}' and '{result.name}' of differing quantization"
    return "" if not result.scales.size else _per_tensor(operands, results)


def _compared(operands: Sequence[Tensor], results: Sequence[Tensor]) -> str:
    unquantized = all(not tensor.scales.size for tensor in (*operands, *results))
    return "" if unquantized else _per_tensor(operands, results)


def _concatenated(operands: Sequence[Tensor], results: Sequence[Tensor]) -> str:
    if results[0].dtype == "uint8" and all(tensor.scales.size for tensor in (*operands, *results)):
        return _per_tensor(operands, results)
    return _same(operands, results)


def _fixed_scale(tolerance: float, zero_points: dict[str, int]) -> Broken:
    def broken(operands: Sequence[Tensor], results: Sequence[Tensor]) -> str:
        result = results[0]
        reason = _per_tensor(operands, results)
        if reason or result.dtype not in _QUANTIZED:
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


_COPIED = Rule("any: elements are moved as they are", lambda _operands, _results: "")
_COMPARED = Rule("one scale each, or none: the integers are compared", _compared)
_EACH = Rule("one scale each", _per_tensor)
_EQUAL = Rule("the same for all, or none", _same)
_CONCATENATED = Rule("the same for all; uint8 also one scale each", _concatenated)
_LOGISTIC = Rule("one scale each, that of the result is 1/256", _fixed_scale(0.0, {}))
_SOFTMAX = Rule(
    "one scale each, that of the result is 1/256, its zero point the smallest value",
    _fixed_scale(1e-3, {"int8": -128, "uint8": 0}),
)
_CONVOLVED = Rule(
    "one scale each; int8 weights one scale per output channel too, of either sign, zero point 0",
    _weighted(0, dense=False),
)
_CONVOLVED_DEPTHWISE = Rule(_CONVOLVED.text, _weighted(3, dense=False))
_DENSE = Rule(
    "one scale each; int8 weights one scale per output channel too, then of either sign and with "
    "zero point 0",
    _weighted(0, dense=True),
)


def _unary(*types: str) -> tuple[str, ...]:
    return tuple(f"{dtype} -> {dtype}" for dtype in types)


def _binary(*types: str) -> tuple[str, ...]:
    return tuple(f"{dtype} {dtype} -> {dtype}" for dtype in types)


def _moving(parameters: str = "") -> tuple[str, ...]:
    return tuple(f"{dtype}{parameters} -> {dtype}" for dtype in _MOVED)


_REAL_OR_8_BITS = ("float32", "int8", "uint8")
_ACTIVATED: dict[str, tuple[str, ...] | None] = {"fusedActivationFunction": ACTIVATIONS}
_WINDOW = _ACTIVATED | {"padding": None, "strideH": None, "strideW": None}
_DILATED = _WINDOW | {"dilationHFactor": None, "dilationWFactor": None}
# Without effect on 8 bits, and beside a bias that has a type.
_WITHOUT_EFFECT: dict[str, tuple[str, ...] | None] = {"potScaleInt16": None}
_BIAS_TYPE: dict[str, tuple[str, ...] | None] = {"quantizedBiasType": ("FLOAT32", "INT32")}
_POOL = Support(
    _unary(*_REAL_OR_8_BITS),
    _EQUAL,
    ranks=(4, 4),
    options=_WINDOW | {"filterHeight": None, "filterWidth": None},
    kind="Pool2D",
    integer=("pool2d",),
)
_FUNCTION = Support(_unary(*_REAL_OR_8_BITS), _EACH, integer=("lookup",))
_CHOICE = Support(_binary("float32", "int8", "uint8", "int16"), _COMPARED, kind="MaximumMinimum")
_SUM = Support(
    _binary(*_REAL_OR_8_BITS), _EACH, options=_ACTIVATED | _WITHOUT_EFFECT, integer=("add",)
)

SUPPORTED: dict[str, Support] = {
    "ADD": replace(_SUM, kind="Add"),
    "AVERAGE_POOL_2D": _POOL,
    "CONCATENATION": Support(
        tuple(f"{dtype}... -> {dtype}" for dtype in _MOVED),
        _CONCATENATED,
        options={"axis": None},
        kind="Concatenation",
    ),
    "CONV_2D": Support(
        (
            "float32 float32 float32? -> float32",
            "int8 int8 int32? -> int8",
            "uint8 uint8 int32? -> uint8",
            "float32 int8 float32? -> float32",
        ),
        _CONVOLVED,
        ranks=(4, 4),
        options=_DILATED | _BIAS_TYPE,
        constant=(1, 2),
        kind="Conv2D",
        integer=("conv2d",),
    ),
    "DEPTHWISE_CONV_2D": Support(
        (
            "float32 float32 float32? -> float32",
            "int8 int8 int32? -> int8",
            "uint8 uint8 int32? -> uint8",
        ),
        _CONVOLVED_DEPTHWISE,
        ranks=(4, 4),
        options=_DILATED | {"depthMultiplier": None},
        constant=(1, 2),
        kind="DepthwiseConv2D",
        integer=("depthwise_conv2d", "conv2d"),
    ),
    "DEQUANTIZE": Support(
        tuple(f"{dtype} -> float32" for dtype in _QUANTIZED),
        _EACH,
        kind="Dequantize",
        integer=("dequantize",),
    ),
    "FULLY_CONNECTED": Support(
        (
            "float32 float32 float32? -> float32",
            "int8 int8 int32? -> int8",
            "uint8 uint8 int32? -> uint8",
            "float32 int8 float32? -> float32",
        ),
        _DENSE,
        ranks=(1, 6),
        options=_ACTIVATED | _BIAS_TYPE | {"keepNumDims": None},
        constant=(1, 2),
        kind="FullyConnected",
        integer=("fully_connected",),
    ),
    "HARD_SWISH": replace(_FUNCTION, kind="HardSwish"),
    "LEAKY_RELU": replace(_FUNCTION, options={"alpha": None}, kind="LeakyRelu"),
    "LOGISTIC": replace(_FUNCTION, rule=_LOGISTIC),
    "MAXIMUM": _CHOICE,
    "MAX_POOL_2D": _POOL,
    "MEAN": Support(
        tuple(f"{dtype} int32 -> {dtype}" for dtype in _REAL_OR_8_BITS),
        _EACH,
        options={"keepDims": None},
        constant=(1,),
        kind="Reducer",
        integer=("mean",),
    ),
    "MINIMUM": _CHOICE,
    "MUL": Support(
        _binary(*_REAL_OR_8_BITS), _EACH, options=_ACTIVATED, kind="Mul", integer=("multiply",)
    ),
    "PACK": Support(
        tuple(f"{dtype}... -> {dtype}" for dtype in _MOVED if dtype != "bool"),
        _EQUAL,
        options={"axis": None, "valuesCount": None},
        kind="Pack",
    ),
    "PAD": Support(_moving(" int32"), _EQUAL, ranks=(0, 5), constant=(1,), kind="Pad"),
    "PADV2": Support(
        tuple(f"{d} int32 {d} -> {d}" for d in _MOVED),
        _EQUAL,
        ranks=(0, 5),
        constant=(1, 2),
        kind="PadV2",
    ),
    "QUANTIZE": Support(
        (
            *(f"float32 -> {result}" for result in _QUANTIZED),
            *(f"{x} -> {result}" for x in ("int8", "uint8") for result in _QUANTIZED),
            *(f"int16 -> {result}" for result in ("int8", "int16", "int32")),
            *(f"int32 -> {result}" for result in ("int8", "int16")),
        ),
        Rule("one scale each", _quantizes),
        kind="Quantize",
        integer=("quantize", "requantize"),
    ),
    "RELU": _FUNCTION,
    "RELU6": _FUNCTION,
    "RELU_N1_TO_1": _FUNCTION,
    "RESHAPE": Support(
        _moving(" int32?"), _COPIED, options={"newShape": None}, constant=(1,), kind="Reshape"
    ),
    "RESIZE_NEAREST_NEIGHBOR": Support(
        tuple(f"{dtype} int32 -> {dtype}" for dtype in ("float32", *_QUANTIZED)),
        _COPIED,
        ranks=(4, 4),
        options={"alignCorners": None, "halfPixelCenters": None},
        constant=(1,),
        kind="ResizeNearestNeighbor",
        integer=("resize_nearest",),
    ),
    "SOFTMAX": replace(
        _FUNCTION,
        rule=_SOFTMAX,
        ranks=(1, 6),
        options={"beta": None},
        kind="Softmax",
        integer=("softmax",),
    ),
    "SPLIT": Support(
        tuple(f"int32 {dtype} -> {dtype}..." for dtype in _MOVED if dtype != "bool"),
        _COPIED,
        ranks=(1, 6),
        options={"numSplits": None},
        constant=(0,),
        kind="Split",
    ),
    "SQUEEZE": Support(_moving(), _COPIED, options={"squeezeDims": None}, kind="Squeeze"),
    "STRIDED_SLICE": Support(
        _moving(" int32 int32 int32"),
        _COPIED,
        ranks=(0, 5),
        options={
            "beginMask": None,
            "endMask": None,
            "ellipsisMask": None,
            "newAxisMask": None,
            "shrinkAxisMask": None,
            "offset": None,
        },
        constant=(1, 2, 3),
        kind="StridedSlice",
    ),
    "SUB": replace(_SUM, kind="Sub"),
    "TANH": _FUNCTION,
    "TRANSPOSE": Support(_moving(" int32"), _COPIED, ranks=(1, 6), constant=(1,), kind="Transpose"),
}
"""What compiles, by TFLite's name of the operator. SHAPE and operators of constants are no part of
it: they are computed when the model is imported."""
