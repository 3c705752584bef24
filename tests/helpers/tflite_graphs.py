"""Builds small TFLite models in memory, and asks LiteRT's reference kernels for their answers.

    graph = Graph()
    x = graph.input(Spec((1, 8, 8, 3), "int8", 0.5, -3))
    w = graph.constant(weights, scale=0.01)
    y = graph.op("CONV_2D", [x, w], Spec((1, 8, 8, 4), "int8", 0.2, 5), padding="SAME", stride_w=1,
                 stride_h=1)
    model = graph.build(y)

Operator options are those of the TFLite schema in snake case; enumerators are given by name.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import flatbuffers
import numpy as np
from ai_edge_litert import interpreter as litert
from ai_edge_litert import schema_py_generated as schema

_OPTIONS = {
    "ABS": "Abs",
    "ADD": "Add",
    "AVERAGE_POOL_2D": "Pool2D",
    "BATCH_TO_SPACE_ND": "BatchToSpaceND",
    "BROADCAST_TO": "BroadcastTo",
    "CAST": "Cast",
    "CONCATENATION": "Concatenation",
    "CONV_2D": "Conv2D",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2D",
    "DEPTH_TO_SPACE": "DepthToSpace",
    "DEQUANTIZE": "Dequantize",
    "EQUAL": "Equal",
    "EXPAND_DIMS": "ExpandDims",
    "FILL": "Fill",
    "EXP": "Exp",
    "FULLY_CONNECTED": "FullyConnected",
    "GATHER": "Gather",
    "GREATER": "Greater",
    "GREATER_EQUAL": "GreaterEqual",
    "HARD_SWISH": "HardSwish",
    "LEAKY_RELU": "LeakyRelu",
    "LESS": "Less",
    "LESS_EQUAL": "LessEqual",
    "LOGICAL_AND": "LogicalAnd",
    "LOGICAL_NOT": "LogicalNot",
    "LOGICAL_OR": "LogicalOr",
    "MAXIMUM": "MaximumMinimum",
    "MAX_POOL_2D": "Pool2D",
    "MEAN": "Reducer",
    "MINIMUM": "MaximumMinimum",
    "MIRROR_PAD": "MirrorPad",
    "MUL": "Mul",
    "NEG": "Neg",
    "NOT_EQUAL": "NotEqual",
    "PACK": "Pack",
    "PAD": "Pad",
    "PADV2": "PadV2",
    "QUANTIZE": "Quantize",
    "RESHAPE": "Reshape",
    "RESIZE_BILINEAR": "ResizeBilinear",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighbor",
    "SELECT": "Select",
    "SELECT_V2": "SelectV2",
    "SHAPE": "Shape",
    "SLICE": "Slice",
    "SOFTMAX": "Softmax",
    "SPACE_TO_BATCH_ND": "SpaceToBatchND",
    "SPACE_TO_DEPTH": "SpaceToDepth",
    "SPLIT": "Split",
    "SPLIT_V": "SplitV",
    "SQUEEZE": "Squeeze",
    "STRIDED_SLICE": "StridedSlice",
    "SUB": "Sub",
    "TILE": "Tile",
    "TRANSPOSE": "Transpose",
    "TRANSPOSE_CONV": "TransposeConv",
    "UNPACK": "Unpack",
}
_VERSIONS = {"BROADCAST_TO": 3}
"""First version of an operator that LiteRT still has, where it is not 1."""
_ENUMS = {
    "fused_activation_function": schema.ActivationFunctionType,
    "mode": schema.MirrorPadMode,
    "out_type": schema.TensorType,
    "padding": schema.Padding,
}


@dataclass(frozen=True)
class Spec:
    """Shape, type and quantization of a tensor; scale None means not quantized.

    A scale (and zero point) per channel is a sequence along dimension `axis`.
    """

    shape: tuple[int, ...]
    dtype: str = "int8"
    scale: float | Sequence[float] | None = None
    zero_point: int | Sequence[int] = 0
    axis: int = 0


@dataclass(frozen=True)
class Tensor:
    """A tensor of the graph under construction."""

    index: int
    spec: Spec


class Graph:
    """A TFLite model of one subgraph, built operator by operator.

    Args:
        named: whether tensors get names; models can be stripped of them.
    """

    def __init__(self, named: bool = True) -> None:
        self._named = named
        self._tensors: list[schema.TensorT] = []
        self._buffers = [schema.BufferT()]  # buffer 0 is the empty one
        self._operators: list[schema.OperatorT] = []
        self._codes: dict[str, int] = {}
        self._inputs: list[int] = []
        self._text: list[str] = []

    def __repr__(self) -> str:
        return "\n".join(["", *self._text])

    def _tensor(self, spec: Spec, name: str, data: bytes | None = None) -> Tensor:
        tensor = schema.TensorT()
        tensor.name = f"{name}_{len(self._tensors)}" if self._named else ""
        tensor.shape = [int(extent) for extent in spec.shape]
        tensor.type = getattr(schema.TensorType, spec.dtype.upper())
        tensor.buffer = 0
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data, np.uint8)
            tensor.buffer = len(self._buffers)
            self._buffers.append(buffer)
        if spec.scale is not None:
            quantization = schema.QuantizationParametersT()
            quantization.scale = np.atleast_1d(np.float32(spec.scale))
            quantization.zeroPoint = np.broadcast_to(
                np.int64(spec.zero_point), quantization.scale.shape
            )
            quantization.quantizedDimension = spec.axis
            tensor.quantization = quantization
        self._tensors.append(tensor)
        return Tensor(len(self._tensors) - 1, spec)

    def input(self, spec: Spec) -> Tensor:
        """Adds an input of the model."""
        tensor = self._tensor(spec, "input")
        self._inputs.append(tensor.index)
        return tensor

    def constant(
        self,
        values: np.ndarray,
        scale: float | Sequence[float] | None = None,
        zero_point: int | Sequence[int] = 0,
        axis: int = 0,
    ) -> Tensor:
        """Adds a constant with the shape and type of `values`."""
        values = np.asarray(values)
        spec = Spec(values.shape, values.dtype.name, scale, zero_point, axis)
        return self._tensor(spec, "constant", values.tobytes())

    def op(self, name: str, inputs: Sequence[Tensor | None], *outputs: Spec, **options):
        """Adds an operator; an input that is None is an optional one left out.

        Returns the output tensor, or the list of them if there are several.
        """
        operator = schema.OperatorT()
        operator.opcodeIndex = self._codes.setdefault(name, len(self._codes))
        results = [self._tensor(spec, name.lower()) for spec in outputs]
        operator.inputs = [-1 if tensor is None else tensor.index for tensor in inputs]
        operator.outputs = [tensor.index for tensor in results]
        if name in _OPTIONS:
            kind = f"{_OPTIONS[name]}Options"
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            operator.builtinOptions = getattr(schema, f"{kind}T")()
        for key, value in options.items():
            attribute = re.sub(r"_(\w)", lambda match: match[1].upper(), key)
            if not hasattr(operator.builtinOptions, attribute):
                raise AttributeError(f"{name} has no option {key}")
            if key in _ENUMS and isinstance(value, str):
                value = getattr(_ENUMS[key], value)
            setattr(operator.builtinOptions, attribute, value)
        self._operators.append(operator)
        self._text.append(f"{name} {options}")
        self._text += [f"  in  {tensor and tensor.spec}" for tensor in inputs]
        self._text += [f"  out {tensor.spec}" for tensor in results]
        return results[0] if len(results) == 1 else results

    def build(self, *outputs: Tensor) -> bytes:
        """The model as a flatbuffer; `outputs` are its outputs, in order."""
        subgraph = schema.SubGraphT()
        subgraph.name = "main"
        subgraph.tensors = self._tensors
        subgraph.inputs = self._inputs
        subgraph.outputs = [tensor.index for tensor in outputs]
        subgraph.operators = self._operators
        model = schema.ModelT()
        model.version = 3
        model.description = "test"
        model.subgraphs = [subgraph]
        model.buffers = self._buffers
        model.operatorCodes = []
        for name in self._codes:
            code = schema.OperatorCodeT()
            code.builtinCode = getattr(schema.BuiltinOperator, name)
            code.deprecatedBuiltinCode = min(code.builtinCode, 127)
            code.version = _VERSIONS.get(name, 1)
            model.operatorCodes.append(code)
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


@functools.lru_cache(maxsize=32)
def _interpreter(model: bytes) -> litert.Interpreter:
    interpreter = litert.Interpreter(
        model_content=model,
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF,
        num_threads=1,
    )
    interpreter.allocate_tensors()
    return interpreter


def answer(model: bytes, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What LiteRT's reference kernels answer to `inputs`."""
    interpreter = _interpreter(model)
    for detail, values in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], values)
    interpreter.invoke()
    return [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]
