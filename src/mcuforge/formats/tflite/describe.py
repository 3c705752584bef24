"""What is inside a .tflite file, read defensively: a broken file gives a ModelError, no crash.

A file can also be well formed and ask for more than any microcontroller has: a few hundred bytes
can declare tensors of gigabytes. Such a file is refused here, before anything is made of that size.
"""

import dataclasses
import hashlib
import math
import struct
from collections.abc import Callable
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from mcuforge.errors import ModelError
from mcuforge.formats.description import Description, Operator, Tensor

# numpy's name and the bits of an element; LiteRT's other types have no size of their own.
_DTYPES = {
    schema.TensorType.FLOAT64: ("float64", 64),
    schema.TensorType.FLOAT32: ("float32", 32),
    schema.TensorType.FLOAT16: ("float16", 16),
    schema.TensorType.BFLOAT16: ("bfloat16", 16),
    schema.TensorType.COMPLEX128: ("complex128", 128),
    schema.TensorType.COMPLEX64: ("complex64", 64),
    schema.TensorType.INT64: ("int64", 64),
    schema.TensorType.UINT64: ("uint64", 64),
    schema.TensorType.INT32: ("int32", 32),
    schema.TensorType.UINT32: ("uint32", 32),
    schema.TensorType.INT16: ("int16", 16),
    schema.TensorType.UINT16: ("uint16", 16),
    schema.TensorType.INT8: ("int8", 8),
    schema.TensorType.UINT8: ("uint8", 8),
    schema.TensorType.FLOAT8_E4M3FN: ("float8_e4m3fn", 8),
    schema.TensorType.FLOAT8_E5M2: ("float8_e5m2", 8),
    schema.TensorType.INT4: ("int4", 4),
    schema.TensorType.UINT4: ("uint4", 4),
    schema.TensorType.INT2: ("int2", 2),
    schema.TensorType.BOOL: ("bool", 8),
    schema.TensorType.STRING: ("string", 0),
    schema.TensorType.RESOURCE: ("resource", 0),
    schema.TensorType.VARIANT: ("variant", 0),
}
_QUANTIZED = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}
_OPERATORS = {
    code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)
}


@dataclasses.dataclass(frozen=True)
class _Products:
    """What an operator multiplies with its weights, its second input.

    Attributes:
        rank: dimensions of the weights.
        weights: the dimensions that one element meets in all their extent.
        each: the input whose elements these are; None: elements of the result.
    """

    rank: int
    weights: slice
    each: int | None = None


# The operators that have multiply-accumulates; TRANSPOSE_CONV only to say how many.
_PRODUCTS = {
    "CONV_2D": _Products(4, slice(1, 4)),  # OHWI
    "DEPTHWISE_CONV_2D": _Products(4, slice(1, 3)),  # 1HWO
    "FULLY_CONNECTED": _Products(2, slice(1, 2)),  # [units, inputs]
    "TRANSPOSE_CONV": _Products(4, slice(0, 3), each=2),  # OHWI, which each element of x meets
}

# Limits of what is compiled, each far beyond what a microcontroller can hold or compute.
MAX_ELEMENTS = 1 << 24
"""Elements of one tensor: 16 Mi, the external memory of the largest boards."""
MAX_RANK = 8
"""Dimensions of one tensor, as many as LiteRT's kernels know."""
MAX_OPERATORS = 1000
"""Operators of one model; the deepest networks in use have a few hundred. So many compile in less
than a minute."""
MAX_ACTIVATION_BYTES = 1 << 28
"""Bytes of all tensors that are no constants, together."""
MAX_MACS = 10**11
"""Multiply-accumulates of one inference, minutes on the fastest core."""


def describe(model: bytes, name: str) -> Description:
    """Read a .tflite file.

    Args:
        model: the file's content, not trusted.
        name: for messages and the description.

    Returns:
        The facts of its first subgraph, which is what an interpreter runs.

    Raises:
        ModelError: the file is empty, truncated, inconsistent, not a TFLite model, larger than the
            limits above, or it has several signatures that do not run the same subgraph.
    """
    if not model:
        raise ModelError(f"model '{name}' is empty")
    if model[4:8] != b"TFL3":
        raise ModelError(f"model '{name}' is not a TFLite file: no TFL3 identifier")
    try:
        return _Reader(model).description(name)
    except ModelError as error:
        raise ModelError(f"model '{name}': {error.message}", error.hint) from error
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
        # Every element of a list takes four bytes. Lists may lie over one another, so a small file
        # could have endless ones.
        self.elements_left = len(model)
        self.model = schema.Model.GetRootAs(model, 0)
        if not self.model.SubgraphsLength():
            raise ModelError("it has no subgraph")
        self._refuse_several_signatures()
        self.graph = self.model.Subgraphs(0)
        self.buffers = self._list(self.model, "Buffers", self._buffer)
        self.codes = self._list(self.model, "OperatorCodes", _code)
        self.tensors = self._list(self.graph, "Tensors", self._tensor)

    def _list(self, table: Any, field: str, read: Callable[[Any], Any]) -> list[Any]:
        """What `read` makes of each element of a vector of a flatbuffer's table."""
        length = getattr(table, f"{field}Length")()
        self.elements_left -= length
        if self.elements_left < 0:
            raise ModelError("it is damaged: its lists have more elements than the file has bytes")
        element = getattr(table, field)
        return [read(element(i)) for i in range(length)]

    def _refuse_several_signatures(self) -> None:
        signatures = self._list(
            self.model, "SignatureDefs", lambda s: (s.SubgraphIndex(), _text(s.SignatureKey()))
        )
        if len({subgraph for subgraph, _ in signatures}) > 1:
            names = ", ".join(f"'{key}'" for _, key in signatures)
            raise ModelError(
                f"its signatures {names} are {len(signatures)} models in one file",
                "export the one to compile by itself",
            )

    def _buffer(self, buffer: schema.Buffer) -> int:
        """Bytes of a buffer, which may lie behind the flatbuffer, as LiteRT finds it."""
        if buffer.Offset() > 1:  # 1 is a placeholder of the converter
            if buffer.Offset() + buffer.Size() > len(self.bytes):
                raise ModelError("it is damaged or truncated: a constant ends behind the file")
            return buffer.Size()
        return len(buffer.DataAsNumpy()) if buffer.DataLength() else 0

    def _tensor(self, tensor: schema.Tensor) -> Tensor:
        name = _text(tensor.Name())
        shape = tuple(self._list(tensor, "Shape", int))
        dtype, bits = _DTYPES.get(tensor.Type(), (f"type {tensor.Type()}", 0))
        elements = math.prod(shape)
        if any(extent < 0 for extent in shape):
            raise ModelError(f"tensor '{name}' has the impossible shape {list(shape)}")
        if len(shape) > MAX_RANK or elements > MAX_ELEMENTS:
            raise ModelError(
                f"tensor '{name}' has the shape {list(shape)}",
                f"at most {MAX_RANK} dimensions and {MAX_ELEMENTS:,} elements are compiled",
            )
        size = -(-elements * bits // 8)
        stored = self.buffers[tensor.Buffer()]
        if stored and bits and not tensor.Sparsity() and stored != size:
            raise ModelError(f"tensor '{name}' has {stored} bytes, not those of its shape")
        scale = zero_point = None
        quantization = tensor.Quantization()
        if quantization is not None and quantization.ScaleLength():
            scales = quantization.ScaleAsNumpy()
            if not all(map(math.isfinite, scales)):
                raise ModelError(f"tensor '{name}' has a scale that is not finite")
            if len(scales) == 1:
                scale = float(scales[0])
                zero_point = quantization.ZeroPoint(0) if quantization.ZeroPointLength() else 0
        return Tensor(name, shape, dtype, scale, zero_point, size)

    def _index(self, index: int) -> int:
        if not 0 <= index < len(self.tensors):
            raise ModelError(f"it is damaged: tensor {index} of {len(self.tensors)} does not exist")
        return index

    def description(self, name: str) -> Description:
        # Options and all else that is not looked at here lie inside the file, too.
        schema.ModelT.InitFromPackedBuf(self.bytes)
        inputs, outputs = (self._list(self.graph, f, self._index) for f in ("Inputs", "Outputs"))
        if not (inputs and outputs):
            raise ModelError("it has no inputs or no outputs")
        for index in (*inputs, *outputs):
            if not self.tensors[index].bytes:
                raise ModelError(f"tensor '{self.tensors[index].name}' has no static size")
        count = self.graph.OperatorsLength()
        if count > MAX_OPERATORS:
            raise ModelError(f"it has {count:,} operators", f"at most {MAX_OPERATORS:,} compile")
        nodes = self._list(self.graph, "Operators", self._node)
        operators = tuple(self._operator(index, node) for index, node in enumerate(nodes))
        macs = sum(operator.macs for operator in operators)
        self._limit(macs)
        self._refuse_overwritten(inputs, nodes)
        ranges = self._ranges(nodes)
        return Description(
            name=name,
            sha256=hashlib.sha256(self.bytes).hexdigest(),
            bytes=len(self.bytes),
            inputs=tuple(dataclasses.replace(self.tensors[i], range=ranges.get(i)) for i in inputs),
            outputs=tuple(self.tensors[i] for i in outputs),
            operators=operators,
            macs=macs,
            weights_bytes=self._weights_bytes(),
        )

    def _node(self, node: schema.Operator) -> tuple[str, list[int], list[int]]:
        """Name of an operator, and the indices of its inputs (-1: left out) and outputs."""
        if not 0 <= node.OpcodeIndex() < len(self.codes):
            raise ModelError(f"it is damaged: operator code {node.OpcodeIndex()} does not exist")
        inputs = self._list(node, "Inputs", lambda i: i if i == -1 else self._index(i))
        return self.codes[node.OpcodeIndex()], inputs, self._list(node, "Outputs", self._index)

    def _operator(self, index: int, node: tuple[str, list[int], list[int]]) -> Operator:
        op, sources, results = node
        inputs = [None if i < 0 else self.tensors[i] for i in sources]
        outputs = [self.tensors[i] for i in results]
        operator = Operator(index, op, outputs[0].name if outputs else "", 0)
        try:
            return dataclasses.replace(operator, macs=_macs(op, inputs, outputs))
        except ModelError as error:
            raise ModelError(f"{operator.where} {error}") from error

    def _refuse_overwritten(
        self, inputs: list[int], nodes: list[tuple[str, list[int], list[int]]]
    ) -> None:
        """Refuse a tensor that has two values: of two operators, or as an input or a constant."""
        tensors = [self.graph.Tensors(index) for index in range(len(self.tensors))]
        written = {i for i, tensor in enumerate(tensors) if self.buffers[tensor.Buffer()]}
        for index in inputs:
            if index in written:
                name = self.tensors[index].name
                raise ModelError(f"input '{name}' is a constant, or comes twice")
            written.add(index)
        for index, (op, _, outputs) in enumerate(nodes):
            for output in outputs:
                if output in written:
                    where = Operator(index, op, self.tensors[output].name, 0).where
                    raise ModelError(f"{where} overwrites a tensor that has a value")
                written.add(output)

    def _limit(self, macs: int) -> None:
        """Refuse what no microcontroller can hold or compute, tensor for tensor unsuspicious."""
        tensors = map(self.graph.Tensors, range(len(self.tensors)))
        activations = sum(
            described.bytes
            for described, tensor in zip(self.tensors, tensors, strict=True)
            if not self.buffers[tensor.Buffer()]
        )
        if activations > MAX_ACTIVATION_BYTES:
            raise ModelError(
                f"its activations take {activations:,} bytes", f"at most {MAX_ACTIVATION_BYTES:,}"
            )
        if macs > MAX_MACS:
            raise ModelError(f"it takes {macs:,} multiply-accumulates", f"at most {MAX_MACS:,}")

    def _weights_bytes(self) -> int:
        tensors = map(self.graph.Tensors, range(len(self.tensors)))
        return sum(self.buffers[buffer] for buffer in {tensor.Buffer() for tensor in tensors})

    def _ranges(self, nodes: list[tuple[str, list[int], list[int]]]) -> dict[int, Any]:
        """Real values the QUANTIZE behind a float tensor can represent, by the tensor's index."""
        ranges: dict[int, tuple[float, float]] = {}
        for op, inputs, outputs in nodes:
            if op != "QUANTIZE" or not (inputs and outputs):
                continue
            source, quantized = self.tensors[inputs[0]], self.tensors[outputs[0]]
            limits = _QUANTIZED.get(quantized.dtype)
            if source.dtype == "float32" and quantized.scale is not None and limits:
                low, high = ((q - quantized.zero_point) * quantized.scale for q in limits)
                ranges.setdefault(inputs[0], (low, high))
        return ranges


def _text(text: bytes | None) -> str:
    return (text or b"").decode(errors="replace")


def _code(code: schema.OperatorCode) -> str:
    """An operator's name; like LiteRT, by the larger of the two fields that may hold its code."""
    builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    if builtin == schema.BuiltinOperator.CUSTOM:
        return f"CUSTOM:{_text(code.CustomCode())}"
    return _OPERATORS.get(builtin, f"BUILTIN:{builtin}")


def _macs(op: str, inputs: list[Tensor | None], outputs: list[Tensor]) -> int:
    """Multiply-accumulates of one operator."""
    products = _PRODUCTS.get(op)
    if products is None:
        return 0
    needed = [tensor for tensor in inputs[: 1 + (products.each or 1)] if tensor is not None]
    if len(needed) < 1 + (products.each or 1) or not outputs:
        raise ModelError("lacks an input or its output")
    weights = needed[1].shape
    if len(weights) != products.rank:
        raise ModelError(f"has weights of shape {list(weights)}")
    each = outputs[0] if products.each is None else needed[products.each]
    return math.prod(each.shape) * math.prod(weights[products.weights])
