"""A TFLite model as its operators and tensors, read with the newest schema; and back to bytes."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mcuforge.errors import ModelError

DTYPES = {
    code: name.lower() for name, code in vars(schema.TensorType).items() if isinstance(code, int)
}
"""Element types by TFLite's code, in numpy's names where numpy has them."""

_NUMPY = {name for name in DTYPES.values() if name in np.sctypeDict}
_OPERATORS = {
    code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)
}
_OPTIONS = {
    code: name for name, code in vars(schema.BuiltinOptions).items() if isinstance(code, int)
}
_LONGEST_NAME = 80  # of a tensor, in messages


@dataclass(frozen=True)
class Tensor:
    """A tensor of the model.

    Attributes:
        name: as in the model, not trusted.
        shape: static; () for a scalar.
        dtype: element type, as in `DTYPES`.
        scales, zero_points: float32 and int64 [n], one or one per channel; empty if not quantized.
        axis: the dimension of the channels.
        value: of a constant, else None; its bytes if numpy does not have its type.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: np.ndarray
    zero_points: np.ndarray
    axis: int
    value: np.ndarray | None

    @property
    def constant(self) -> np.ndarray:
        """The value of a tensor that must be a constant; ModelError if it is none."""
        if self.value is None:
            raise ModelError(f"tensor '{self.name}' is no constant")
        return self.value

    @property
    def bytes(self) -> int:
        """Size of a tensor of one of numpy's types."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def quantization(self) -> tuple[list[float], list[int]]:
        """Scales and zero points, to be compared."""
        return self.scales.tolist(), self.zero_points.tolist()


@dataclass(frozen=True)
class Node:
    """An operator of the model.

    Attributes:
        index: its place in the file.
        name: TFLite's name; ``CUSTOM <name>`` of a custom operator.
        operator: inputs, outputs and options; tensors are named by their index.
        options: TFLite's name of the kind of its options, ``NONE`` without any.
        unknown: whether its options hold a field that the schema used here does not know.
    """

    index: int
    name: str
    operator: schema.OperatorT
    options: str
    unknown: bool


class Graph:
    """The first subgraph of a model, which may be changed and written as bytes again.

    Args:
        data: the file, already checked (``formats.tflite.describe``).
    """

    def __init__(self, data: bytes) -> None:
        self.model = schema.ModelT.InitFromPackedBuf(data)
        for buffer in self.model.buffers:
            if buffer.offset > 1:  # behind the flatbuffer; 1 is a placeholder of the converter
                buffer.data = np.frombuffer(data, np.uint8, buffer.size, buffer.offset)
                buffer.offset = buffer.size = 0
        self.subgraph = self.model.subgraphs[0]
        self.tensors: list[schema.TensorT] = list(self.subgraph.tensors)
        self.inputs = [int(index) for index in _list(self.subgraph.inputs)]
        self.outputs = [int(index) for index in _list(self.subgraph.outputs)]
        packed = schema.Model.GetRootAs(data, 0).Subgraphs(0)
        self.nodes = [
            self._node(index, operator, packed.Operators(index))
            for index, operator in enumerate(_list(self.subgraph.operators))
        ]

    def _node(self, index: int, operator: schema.OperatorT, packed: schema.Operator) -> Node:
        # As LiteRT's GetBuiltinCode (core/tools/schema_utils.cc): the old field has 8 bits.
        code = self.model.operatorCodes[operator.opcodeIndex]
        builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
        name = _OPERATORS.get(builtin, f"BUILTIN {builtin}")
        if name == "CUSTOM":
            name = f"CUSTOM {printable(code.customCode)}"
        operator.inputs = [int(i) for i in _list(operator.inputs)]
        operator.outputs = [int(i) for i in _list(operator.outputs)]
        options = _OPTIONS.get(operator.builtinOptionsType, "")
        table = packed.BuiltinOptions()
        unknown = operator.builtinOptions2 is not None or (
            table is not None and _fields(table) > _known_fields(options)
        )
        return Node(index, name, operator, options, unknown)

    def operands(self, node: Node) -> list[Tensor | None]:
        """The operands of an operator in order; None for an optional one left out."""
        return [self.tensor(i) if i >= 0 else None for i in node.operator.inputs]

    def tensor(self, index: int) -> Tensor:
        """A tensor by its index."""
        tensor = self.tensors[index]
        shape = tuple(int(extent) for extent in _list(tensor.shape))
        dtype = DTYPES.get(tensor.type, f"type {tensor.type}")
        data = self.model.buffers[tensor.buffer].data
        value = np.zeros(shape, dtype) if 0 in shape and dtype in _NUMPY else None
        if data is not None and len(data) and not tensor.isVariable:
            value = np.asarray(data, np.uint8)
            if tensor.sparsity is not None:
                dtype = f"sparse {dtype}"
            elif dtype in _NUMPY and value.size == math.prod(shape) * np.dtype(dtype).itemsize:
                value = value.view(dtype).reshape(shape)
        quantization = tensor.quantization or schema.QuantizationParametersT()
        return Tensor(
            name=printable(tensor.name),
            shape=shape,
            dtype=dtype,
            scales=np.asarray(_list(quantization.scale), np.float32),
            zero_points=np.asarray(_list(quantization.zeroPoint), np.int64),
            axis=int(quantization.quantizedDimension),
            value=value,
        )

    def set_value(self, index: int, value: np.ndarray) -> None:
        """Make a tensor a constant, or change it; its shape and type stay."""
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
        self.tensors[index].buffer = len(self.model.buffers)
        self.model.buffers.append(buffer)

    def copy_tensor(self, index: int) -> int:
        """The index of a new tensor like an old one, with a name of its own."""
        tensor = copy.copy(self.tensors[index])
        tensor.name = f"{printable(tensor.name)}_{len(self.tensors)}"
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def set_quantization(
        self, index: int, scales: np.ndarray, zero_points: np.ndarray, axis: int
    ) -> None:
        """Replace what the values of a tensor mean."""
        quantization = schema.QuantizationParametersT()
        quantization.scale = np.asarray(scales, np.float32)
        quantization.zeroPoint = np.asarray(zero_points, np.int64)
        quantization.quantizedDimension = axis
        self.tensors[index].quantization = quantization

    def where(self, node: Node) -> str:
        """An operator in a message: name, index, output tensor."""
        outputs = node.operator.outputs
        output = f"output tensor '{printable(self.tensors[outputs[0]].name)}'" if outputs else ""
        return f"operator {node.name} (operator {node.index}, {output or 'no output'})"

    def pack(self) -> bytes:
        """The model as a flatbuffer of one subgraph, its operators in order."""
        self.subgraph.tensors = self.tensors
        self.subgraph.inputs, self.subgraph.outputs = self.inputs, self.outputs
        self.subgraph.operators = [node.operator for node in self.nodes]
        self.model.subgraphs = [self.subgraph]
        self.model.metadata = self.model.metadataBuffer = self.model.signatureDefs = None
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def printable(name: bytes | str | None) -> str:
    """A name from a file for a message: not endless."""
    text = name.decode(errors="replace") if isinstance(name, bytes) else name or ""
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 3]}..."


def _fields(table: flatbuffers.table.Table) -> int:
    """How many fields a table holds, up to the last that is present."""
    types = flatbuffers.number_types
    vtable = table.Pos - table.Get(types.SOffsetTFlags, table.Pos)
    slots = (table.Get(types.VOffsetTFlags, vtable) - 4) // 2
    present = [slot for slot in range(slots) if table.Offset(4 + 2 * slot)]
    return max(present, default=-1) + 1


def _known_fields(options: str) -> int:
    """How many fields the schema used here has in a kind of options."""
    if not options:
        return 0
    builder = flatbuffers.Builder(0)
    getattr(schema, f"{options}Start")(builder)
    return len(builder.current_vtable)


def _list(values: Iterable[Any] | None) -> list[Any]:
    return [] if values is None else list(values)
