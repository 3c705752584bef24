"""What of TFLite compiles: one table, and the check of a model against it.

`docs/operators.md` is this table written out, and the tests draw their networks from it. What the
table does not allow is refused before it is imported; what it allows is exact, or float arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from mcuforge.errors import ModelError
from mcuforge.formats.tflite import rules
from mcuforge.formats.tflite.graph import Graph, Node, Tensor

ACTIVATIONS = ("NONE", "RELU", "RELU6", "RELU_N1_TO_1")
"""Fused activations."""

_ENUMS = {
    "fusedActivationFunction": schema.ActivationFunctionType,
    "mode": schema.MirrorPadMode,
    "padding": schema.Padding,
    "weightsFormat": schema.FullyConnectedOptionsWeightsFormat,
    "quantizedBiasType": schema.TensorType,
}
_MOVED = ("float32", "int8", "uint8", "int16", "int32", "int64", "bool")


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
    rule: rules.Rule
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


def _unary(*types: str) -> tuple[str, ...]:
    return tuple(f"{dtype} -> {dtype}" for dtype in types)


def _binary(*types: str) -> tuple[str, ...]:
    return tuple(f"{dtype} {dtype} -> {dtype}" for dtype in types)


def _moving(*parameters: str, types: tuple[str, ...] = _MOVED) -> tuple[str, ...]:
    """Types of an operator that moves elements, for each of the ways its parameters may have."""
    return tuple(f"{d} {p}".rstrip() + f" -> {d}" for d in types for p in parameters or ("",))


_REAL_OR_8_BITS = ("float32", "int8", "uint8")
_ACTIVATED: dict[str, tuple[str, ...] | None] = {"fusedActivationFunction": ACTIVATIONS}
_WINDOW = _ACTIVATED | {"padding": None, "strideH": None, "strideW": None}
_DILATED = _WINDOW | {"dilationHFactor": None, "dilationWFactor": None}
# Without effect on 8 bits, and beside a bias that has a type.
_WITHOUT_EFFECT: dict[str, tuple[str, ...] | None] = {"potScaleInt16": None}
_BIAS_TYPE: dict[str, tuple[str, ...] | None] = {"quantizedBiasType": ("FLOAT32", "INT32")}
_POOL = Support(
    _unary(*_REAL_OR_8_BITS),
    rules.EQUAL,
    ranks=(4, 4),
    options=_WINDOW | {"filterHeight": None, "filterWidth": None},
    kind="Pool2D",
    integer=("pool2d",),
)
_FUNCTION = Support(_unary(*_REAL_OR_8_BITS), rules.EACH, integer=("lookup",))
_CHOICE = Support(
    _binary("float32", "int8", "uint8", "int16"), rules.COMPARED, kind="MaximumMinimum"
)
_SUM = Support(
    _binary(*_REAL_OR_8_BITS), rules.EACH, options=_ACTIVATED | _WITHOUT_EFFECT, integer=("add",)
)
_BLOCKS = Support(
    _moving(types=("float32", "int8", "uint8", "int32", "int64")),
    rules.COPIED,
    ranks=(4, 4),
    options={"blockSize": None},
    kind="DepthToSpace",
)
_COMPARISON = Support(
    tuple(f"{dtype} {dtype} -> bool" for dtype in ("float32", "int8", "uint8", "int32", "int64")),
    rules.COMPARED_SCALED,
    ranks=(0, 4),
)
_EQUALITY = replace(_COMPARISON, types=(*_COMPARISON.types, "bool bool -> bool"))
_SELECTION = Support(tuple(f"bool {d} {d} -> {d}" for d in _MOVED), rules.COPIED, ranks=(0, 5))

SUPPORTED: dict[str, Support] = {
    "ABS": replace(_FUNCTION, types=_unary("float32", "int8"), kind="Abs"),
    "ADD": replace(_SUM, kind="Add"),
    "AVERAGE_POOL_2D": _POOL,
    "BATCH_TO_SPACE_ND": Support(
        _moving("int32 int32"), rules.EQUAL, ranks=(3, 4), constant=(1, 2), kind="BatchToSpaceND"
    ),
    "BROADCAST_TO": Support(
        _moving("int32", "int64"), rules.COPIED, constant=(1,), kind="BroadcastTo"
    ),
    "CAST": Support(
        tuple(f"{x} -> {y}" for x in _MOVED for y in _MOVED),
        rules.COPIED,
        options={"inDataType": None, "outDataType": None},
        kind="Cast",
    ),
    "CONCATENATION": Support(
        tuple(f"{dtype}... -> {dtype}" for dtype in _MOVED),
        rules.CONCATENATED,
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
        rules.CONVOLVED,
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
        rules.CONVOLVED_DEPTHWISE,
        ranks=(4, 4),
        options=_DILATED | {"depthMultiplier": None},
        constant=(1, 2),
        kind="DepthwiseConv2D",
        integer=("depthwise_conv2d", "conv2d"),
    ),
    "DEPTH_TO_SPACE": _BLOCKS,
    "DEQUANTIZE": Support(
        tuple(f"{dtype} -> float32" for dtype in rules.QUANTIZED),
        rules.EACH,
        kind="Dequantize",
        integer=("dequantize",),
    ),
    "EQUAL": replace(_EQUALITY, kind="Equal"),
    "EXPAND_DIMS": Support(
        _moving("int32", "int64"), rules.EQUAL, constant=(1,), kind="ExpandDims"
    ),
    "FILL": Support(
        tuple(f"{shape} {d} -> {d}" for d in _MOVED for shape in ("int32", "int64")),
        rules.EQUAL,
        constant=(0,),
        kind="Fill",
    ),
    "FLOOR": Support(_unary("float32"), rules.COPIED),
    "FULLY_CONNECTED": Support(
        (
            "float32 float32 float32? -> float32",
            "int8 int8 int32? -> int8",
            "uint8 uint8 int32? -> uint8",
            "float32 int8 float32? -> float32",
        ),
        rules.DENSE,
        ranks=(1, 6),
        options=_ACTIVATED | _BIAS_TYPE | {"keepNumDims": None},
        constant=(1, 2),
        kind="FullyConnected",
        integer=("fully_connected",),
    ),
    "GATHER": Support(
        _moving("int16", "int32", "int64"),
        rules.COPIED,
        options={"axis": None, "batchDims": None},
        constant=(1,),
        kind="Gather",
    ),
    "EXP": replace(_FUNCTION, types=_unary("float32", "int8"), kind="Exp"),
    "GREATER": replace(_COMPARISON, kind="Greater"),
    "GREATER_EQUAL": replace(_COMPARISON, kind="GreaterEqual"),
    "HARD_SWISH": replace(_FUNCTION, kind="HardSwish"),
    "LEAKY_RELU": replace(_FUNCTION, options={"alpha": None}, kind="LeakyRelu"),
    "LESS": replace(_COMPARISON, kind="Less"),
    "LESS_EQUAL": replace(_COMPARISON, kind="LessEqual"),
    "LOG": replace(_FUNCTION, types=_unary("float32", "int8")),
    "LOGICAL_AND": Support(_binary("bool"), rules.COPIED, ranks=(0, 4), kind="LogicalAnd"),
    "LOGICAL_NOT": Support(_unary("bool"), rules.COPIED, kind="LogicalNot"),
    "LOGICAL_OR": Support(_binary("bool"), rules.COPIED, ranks=(0, 4), kind="LogicalOr"),
    "LOGISTIC": replace(_FUNCTION, rule=rules.LOGISTIC),
    "MAXIMUM": _CHOICE,
    "MAX_POOL_2D": _POOL,
    "MEAN": Support(
        tuple(f"{dtype} int32 -> {dtype}" for dtype in _REAL_OR_8_BITS),
        rules.EACH,
        options={"keepDims": None},
        constant=(1,),
        kind="Reducer",
        integer=("mean",),
    ),
    "MINIMUM": _CHOICE,
    "MIRROR_PAD": Support(
        _moving("int32", "int64"),
        rules.EQUAL,
        options={"mode": ("REFLECT", "SYMMETRIC")},
        constant=(1,),
        kind="MirrorPad",
    ),
    "MUL": Support(
        _binary(*_REAL_OR_8_BITS), rules.EACH, options=_ACTIVATED, kind="Mul", integer=("multiply",)
    ),
    "NEG": Support(_unary("float32", "int8", "int16"), rules.COPIED, kind="Neg"),
    "NOT_EQUAL": replace(_EQUALITY, kind="NotEqual"),
    "PACK": Support(
        tuple(f"{dtype}... -> {dtype}" for dtype in _MOVED if dtype != "bool"),
        rules.EQUAL,
        options={"axis": None, "valuesCount": None},
        kind="Pack",
    ),
    "PAD": Support(_moving("int32"), rules.EQUAL, ranks=(0, 5), constant=(1,), kind="Pad"),
    "PADV2": Support(
        tuple(f"{d} int32 {d} -> {d}" for d in _MOVED),
        rules.EQUAL,
        ranks=(0, 5),
        constant=(1, 2),
        kind="PadV2",
    ),
    "PRELU": Support(_binary(*_REAL_OR_8_BITS), rules.EACH, ranks=(0, 4), integer=("prelu",)),
    "QUANTIZE": Support(
        (
            *(f"float32 -> {result}" for result in rules.QUANTIZED),
            *(f"{x} -> {result}" for x in ("int8", "uint8") for result in rules.QUANTIZED),
            *(f"int16 -> {result}" for result in ("int8", "int16", "int32")),
            *(f"int32 -> {result}" for result in ("int8", "int16")),
        ),
        rules.QUANTIZES,
        kind="Quantize",
        integer=("quantize", "requantize"),
    ),
    "RELU": _FUNCTION,
    "RELU6": _FUNCTION,
    "RELU_0_TO_1": _FUNCTION,
    "RELU_N1_TO_1": _FUNCTION,
    "RESHAPE": Support(
        _moving("int32?"), rules.COPIED, options={"newShape": None}, constant=(1,), kind="Reshape"
    ),
    "RESIZE_BILINEAR": Support(
        ("float32 int32 -> float32", "int8 int32 -> int8"),
        rules.EQUAL,
        ranks=(4, 4),
        options={"alignCorners": None, "halfPixelCenters": None},
        constant=(1,),
        kind="ResizeBilinear",
        integer=("resize_bilinear",),
    ),
    "RESIZE_NEAREST_NEIGHBOR": Support(
        tuple(f"{dtype} int32 -> {dtype}" for dtype in ("float32", *rules.QUANTIZED)),
        rules.COPIED,
        ranks=(4, 4),
        options={"alignCorners": None, "halfPixelCenters": None},
        constant=(1,),
        kind="ResizeNearestNeighbor",
        integer=("move",),
    ),
    "SELECT": replace(_SELECTION, kind="Select"),
    "SELECT_V2": replace(_SELECTION, kind="SelectV2"),
    "SLICE": Support(
        _moving("int32 int32", "int64 int64"),
        rules.COPIED,
        ranks=(0, 5),
        constant=(1, 2),
        kind="Slice",
    ),
    "RSQRT": replace(_FUNCTION, types=_unary("float32", "int8"), rule=rules.ROOT),
    "SOFTMAX": replace(
        _FUNCTION,
        rule=rules.SOFTMAX,
        ranks=(1, 6),
        options={"beta": None},
        kind="Softmax",
        integer=("softmax",),
    ),
    "SPACE_TO_BATCH_ND": Support(
        _moving("int32 int32"), rules.EQUAL, ranks=(3, 4), constant=(1, 2), kind="SpaceToBatchND"
    ),
    "SPACE_TO_DEPTH": replace(_BLOCKS, kind="SpaceToDepth"),
    "SPLIT": Support(
        tuple(f"int32 {dtype} -> {dtype}..." for dtype in _MOVED if dtype != "bool"),
        rules.COPIED,
        ranks=(1, 6),
        options={"numSplits": None},
        constant=(0,),
        kind="Split",
    ),
    "SPLIT_V": Support(
        tuple(
            f"{dtype} {sizes} int32 -> {dtype}..."
            for dtype in _MOVED
            if dtype != "bool"
            for sizes in ("int32", "int64")
        ),
        rules.COPIED,
        ranks=(1, 6),
        options={"numSplits": None},
        constant=(1, 2),
        kind="SplitV",
    ),
    "SQUEEZE": Support(_moving(), rules.COPIED, options={"squeezeDims": None}, kind="Squeeze"),
    "STRIDED_SLICE": Support(
        _moving("int32 int32 int32"),
        rules.COPIED,
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
    "TILE": Support(_moving("int32", "int64"), rules.COPIED, constant=(1,), kind="Tile"),
    "TRANSPOSE_CONV": Support(
        (
            "int32 float32 float32 float32? -> float32",
            "int32 int8 int8 int32? -> int8",
            "int32 uint8 uint8 int32? -> uint8",
        ),
        rules.CONVOLVED_TRANSPOSED,
        ranks=(4, 4),
        options=_WINDOW | _BIAS_TYPE | {"padding": ("SAME", "VALID")},
        constant=(0, 1, 3),
        kind="TransposeConv",
        integer=("transpose_conv",),
    ),
    "TRANSPOSE": Support(
        _moving("int32"), rules.COPIED, ranks=(1, 6), constant=(1,), kind="Transpose"
    ),
    "UNPACK": Support(
        tuple(f"{dtype} -> {dtype}..." for dtype in _MOVED if dtype != "int64"),
        rules.EQUAL,
        ranks=(0, 6),
        options={"axis": None, "num": None},
        kind="Unpack",
    ),
}
"""What compiles, by TFLite's name of the operator. SHAPE and operators of constants are no part of
it: they are computed when the model is imported."""
