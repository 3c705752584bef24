"""What is inside a .tflite file, read defensively: a broken file gives a ModelError, no crash."""

import dataclasses
import hashlib
import math
import struct

import tflite

from mcuforge.errors import ModelError
from mcuforge.formats.description import Description, Operator, Tensor

_DTYPES = {
    tflite.TensorType.FLOAT32: ("float32", 4),
    tflite.TensorType.FLOAT16: ("float16", 2),
    tflite.TensorType.INT32: ("int32", 4),
    tflite.TensorType.UINT8: ("uint8", 1),
    tflite.TensorType.INT64: ("int64", 8),
    tflite.TensorType.BOOL: ("bool", 1),
    tflite.TensorType.INT16: ("int16", 2),
    tflite.TensorType.INT8: ("int8", 1),
}
_OPERATORS = {
    code: name for name, code in vars(tflite.BuiltinOperator).items() if isinstance(code, int)
}
_MAX_ELEMENTS = 1 << 28  # of one tensor; far beyond any microcontroller


def describe(model: bytes, name: str, task: str = "") -> Description:
    """Read a .tflite file.

    Args:
        model: the file's content, not trusted.
        name: for messages and the description.
        task: from the registry.

    Raises:
        ModelError: the file is empty, truncated, inconsistent, or not a TFLite model.
    """
    if not model:
        raise ModelError(f"model '{name}' is empty")
    if model[4:8] != b"TFL3":
        raise ModelError(f"model '{name}' is not a TFLite file: no TFL3 identifier")
    try:
        return _Reader(model).description(name, task)
    except ModelError as error:
        raise ModelError(f"model '{name}' is damaged: {error}") from error
    except (
        struct.error,
        ValueError,
        TypeError,
        IndexError,
        AttributeError,
        OverflowError,
    ) as error:
        # what the flatbuffer accessors raise when an offset leads out of the file
        raise ModelError(
            f"model '{name}' is damaged or truncated: a reference leads out of the file"
        ) from error


class _Reader:
    """Walks a flatbuffer, following and checking every reference an interpreter would follow."""

    def __init__(self, model: bytes) -> None:
        self.bytes = model
        self.model = tflite.Model.GetRootAsModel(model, 0)
        if self.model.SubgraphsLength() != 1:
            raise ModelError(f"{self.model.SubgraphsLength()} subgraphs, expected one")
        self.graph = self.model.Subgraphs(0)
        self.buffers = [
            self._buffer(self.model.Buffers(i)) for i in self._each(self.model.BuffersLength())
        ]
        self.codes = [
            self._code(self.model.OperatorCodes(i))
            for i in self._each(self.model.OperatorCodesLength())
        ]
        self.tensors = [
            self._tensor(self.graph.Tensors(i)) for i in self._each(self.graph.TensorsLength())
        ]

    def _each(self, length: int) -> range:
        if length > len(self.bytes):
            raise ModelError(f"a list of {length} elements in a file of {len(self.bytes)} bytes")
        return range(length)

    def _buffer(self, buffer: tflite.Buffer) -> int:
        return len(buffer.DataAsNumpy()) if buffer.DataLength() else 0

    def _code(self, code: tflite.OperatorCode) -> str:
        builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        if builtin == tflite.BuiltinOperator.CUSTOM:
            return f"CUSTOM:{(code.CustomCode() or b'').decode(errors='replace')}"
        return _OPERATORS.get(builtin, f"BUILTIN:{builtin}")

    def _tensor(self, tensor: tflite.Tensor) -> Tensor:
        name = (tensor.Name() or b"").decode(errors="replace")
        shape = tuple(int(tensor.Shape(i)) for i in self._each(tensor.ShapeLength()))
        if any(extent < 0 for extent in shape) or math.prod(shape) > _MAX_ELEMENTS:
            raise ModelError(f"tensor '{name}' has the impossible shape {list(shape)}")
        dtype, width = _DTYPES.get(tensor.Type(), (f"type {tensor.Type()}", 0))
        stored = self.buffers[tensor.Buffer()]
        if stored and width and stored != math.prod(shape) * width:
            raise ModelError(f"tensor '{name}' has {stored} bytes, not those of its shape")
        scale = zero_point = None
        quantization = tensor.Quantization()
        if quantization is not None and quantization.ScaleLength():
            scales, zero_points = quantization.ScaleAsNumpy(), quantization.ZeroPointAsNumpy()
            if len(scales) == 1:
                scale = float(scales[0])
                zero_point = int(zero_points[0]) if quantization.ZeroPointLength() else 0
        return Tensor(name, shape, dtype, scale, zero_point, math.prod(shape) * width)

    def _index(self, index: int) -> int:
        if not 0 <= index < len(self.tensors):
            raise ModelError(f"tensor {index} of {len(self.tensors)} does not exist")
        return index

    def description(self, name: str, task: str) -> Description:
        graph = self.graph
        operators = [self._operator(i) for i in self._each(graph.OperatorsLength())]
        inputs = [self._index(graph.Inputs(i)) for i in self._each(graph.InputsLength())]
        outputs = [self._index(graph.Outputs(i)) for i in self._each(graph.OutputsLength())]
        if not (inputs and outputs and operators):
            raise ModelError("it has no inputs, no outputs or no operators")
        for index in (*inputs, *outputs):
            if not self.tensors[index].bytes:
                raise ModelError(f"tensor '{self.tensors[index].name}' has no static size")
        return Description(
            name=name,
            task=task,
            sha256=hashlib.sha256(self.bytes).hexdigest(),
            bytes=len(self.bytes),
            inputs=tuple(
                dataclasses.replace(self.tensors[i], range=self._range(i)) for i in inputs
            ),
            outputs=tuple(self.tensors[i] for i in outputs),
            operators=tuple(operators),
            macs=sum(operator.macs for operator in operators),
            weights_bytes=self._weights_bytes(),
        )

    def _weights_bytes(self) -> int:
        tensors = map(self.graph.Tensors, range(len(self.tensors)))
        return sum(self.buffers[buffer] for buffer in {tensor.Buffer() for tensor in tensors})

    def _operator(self, index: int) -> Operator:
        node = self.graph.Operators(index)
        if not 0 <= node.OpcodeIndex() < len(self.codes):
            raise ModelError(f"operator {index} has no operator code")
        op = self.codes[node.OpcodeIndex()]
        inputs = [
            None if node.Inputs(i) == -1 else self.tensors[self._index(node.Inputs(i))]
            for i in self._each(node.InputsLength())
        ]
        outputs = [
            self.tensors[self._index(node.Outputs(i))] for i in self._each(node.OutputsLength())
        ]
        if not outputs:
            raise ModelError(f"operator {index}, {op}, has no output")
        return Operator(index, op, outputs[0].name, _macs(op, inputs, outputs[0]))

    def _range(self, index: int) -> tuple[float, float] | None:
        """Real values the QUANTIZE behind float tensor `index` can represent."""
        for i in range(self.graph.OperatorsLength()):
            node = self.graph.Operators(i)
            if self.codes[node.OpcodeIndex()] == "QUANTIZE" and node.Inputs(0) == index:
                quantized = self.tensors[node.Outputs(0)]
                if self.tensors[index].dtype != "float32" or quantized.scale is None:
                    return None
                low, high = {"int8": (-128, 127), "uint8": (0, 255)}.get(
                    quantized.dtype, (-32768, 32767)
                )
                offset = quantized.zero_point
                return (low - offset) * quantized.scale, (high - offset) * quantized.scale
        return None


def _macs(op: str, inputs: list[Tensor | None], output: Tensor) -> int:
    """Multiply-accumulates of one operator; weights are TFLite's OHWI, 1HWO or [units, in]."""
    if op not in ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED"):
        return 0
    if len(inputs) < 2 or inputs[0] is None or inputs[1] is None:
        raise ModelError(f"{op} lacks an input")
    weights = inputs[1].shape
    if len(weights) != (2 if op == "FULLY_CONNECTED" else 4):
        raise ModelError(f"{op} has weights of shape {list(weights)}")
    if op == "FULLY_CONNECTED":
        return math.prod(output.shape) * weights[1]
    if op == "DEPTHWISE_CONV_2D":
        return math.prod(output.shape) * weights[1] * weights[2]
    if op == "TRANSPOSE_CONV":  # every input element meets the whole kernel
        return math.prod(inputs[2].shape) * math.prod(weights) // weights[3]
    return math.prod(output.shape) * math.prod(weights[1:])
