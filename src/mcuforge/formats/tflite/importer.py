"""TFLite to Relax: TVM's importer, extended where quantized models need it."""

import numpy as np
import tflite
import tvm
from tflite.ActivationFunctionType import ActivationFunctionType
from tvm import relax
from tvm.relax.frontend.tflite import from_tflite as tvm_from_tflite
from tvm.relax.frontend.tflite.tflite_frontend import OperatorConverter, get_tensor_name

from mcuforge.errors import ModelError, located
from mcuforge.exact import arithmetic
from mcuforge.operators.hybrid_conv2d import hybrid_conv2d
from mcuforge.operators.layout import resize_nearest
from mcuforge.operators.quantize import dequantize, quantize, requantize

OPERATORS = (
    "ADD",
    "AVERAGE_POOL_2D",
    "CONCATENATION",
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "DEQUANTIZE",
    "FULLY_CONNECTED",
    "HARD_SWISH",
    "LEAKY_RELU",
    "LOGISTIC",
    "MAXIMUM",
    "MAX_POOL_2D",
    "MEAN",
    "MINIMUM",
    "MUL",
    "PACK",
    "PAD",
    "PADV2",
    "QUANTIZE",
    "RELU",
    "RELU6",
    "RELU_N1_TO_1",
    "RESHAPE",
    "RESIZE_NEAREST_NEIGHBOR",
    "SHAPE",
    "SOFTMAX",
    "SPLIT",
    "SQUEEZE",
    "STRIDED_SLICE",
    "SUB",
    "TANH",
    "TRANSPOSE",
)
"""TFLite's operators that compile: exactly where quantized, and tested against LiteRT."""

_ACTIVATIONS = {
    ActivationFunctionType.NONE: "NONE",
    ActivationFunctionType.RELU: "RELU",
    ActivationFunctionType.RELU6: "RELU6",
    ActivationFunctionType.RELU_N1_TO_1: "RELU_N1_TO_1",
}
_LARGEST = float(np.finfo(np.float32).max)
_BOUNDS = {
    "NONE": (-_LARGEST, _LARGEST),
    "RELU": (0.0, _LARGEST),
    "RELU6": (0.0, 6.0),
    "RELU_N1_TO_1": (-1.0, 1.0),
}


def from_tflite(data: bytes) -> tvm.IRModule:
    """Import a TFLite model as Relax with float arithmetic between quantized tensors (QDQ).

    The model's own QUANTIZE and DEQUANTIZE operators become ``mcuforge.quantize``,
    ``mcuforge.dequantize`` and ``mcuforge.requantize``: a ``relax.dequantize`` in the result always
    belongs to the representation of a quantized operator, never to the model.

    Args:
        data: the ``.tflite`` file, already checked to be one (``formats.tflite.describe``).

    Returns:
        A module with the function ``main``; one parameter per model input, in the model's order.

    Raises:
        ModelError: an operator is not supported; names it, its index and its output tensor.
    """
    builders: list[relax.BlockBuilder] = []

    def converter(model, subgraph, exp_tab, bb) -> _Converter:
        builders.append(bb)
        return _Converter(model, subgraph, exp_tab, bb)

    with located(""):
        try:
            model = tflite.Model.GetRootAsModel(_with_unique_names(data), 0)
            return tvm_from_tflite(model, op_converter=converter)
        except Exception:
            for builder in builders:
                builder._end_block()  # TVM leaves it open, and then warns about that on stderr
            raise


def _with_unique_names(data: bytes) -> bytes:
    """The model with every tensor named differently: TVM's importer tells tensors by name."""
    subgraph = tflite.Model.GetRootAsModel(data, 0).Subgraphs(0)
    names = [subgraph.Tensors(index).Name() for index in range(subgraph.TensorsLength())]
    if all(names) and len(set(names)) == len(names):
        return data
    # A large import for a rare model: one whose names were stripped.
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(data)
    for index, tensor in enumerate(model.subgraphs[0].tensors):
        tensor.name = f"t{index}_{(tensor.name or b'').decode(errors='replace')}"
    builder = flatbuffers.Builder(len(data))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


class _Converter(OperatorConverter):
    """TVM's converter, with mcuforge's operators where TVM's QDQ form loses information."""

    def __init__(self, model, subgraph, exp_tab, bb) -> None:
        super().__init__(model, subgraph, exp_tab, bb)
        self._index = -1
        self.convert_map = {
            name: self._locate_errors(name, self.convert_map[name]) for name in OPERATORS
        }

    def _locate_errors(self, name: str, convert):
        def convert_or_name(op):
            self._index += 1
            where = f"operator {name} {self._where(self._index)}"
            with located(where):
                return self.bb.normalize(convert(op=op))  # infers the types

        return convert_or_name

    def _where(self, index: int) -> str:
        operator = self.subgraph.Operators(index)
        if not operator.OutputsLength():
            return f"(operator {index}, no output)"
        name = self.subgraph.Tensors(operator.Outputs(0)).Name() or b""
        return f"(operator {index}, output tensor '{name.decode(errors='replace')}')"

    def check_unsupported_ops(self) -> None:
        for index in range(self.subgraph.OperatorsLength()):
            try:
                name = self.get_op_code_str(self.subgraph.Operators(index))
            except (tvm.error.OpNotImplemented, AttributeError, KeyError) as error:
                raise ModelError(f"unknown operator {self._where(index)}: {error}") from error
            if name not in self.convert_map:
                raise ModelError(f"operator {name} {self._where(index)} is not supported")

    def get_tensors(self, tensors_idx_list):
        # One scale for a single channel: TVM takes it as per tensor, but minds its axis.
        tensors = super().get_tensors(tensors_idx_list)
        for tensor in tensors:
            if tensor.qnn_params and tensor.tensor.Quantization().ScaleLength() == 1:
                tensor.qnn_params["axis"] = 0
        return tensors

    def convert_quantize(self, op):
        (source,) = self.get_input_tensors(op)
        (result,) = self.get_output_tensors(op)
        scale, zero_point = _per_tensor(result)
        dtype = self.get_tensor_type_str(result.tensor.Type())
        data = self.get_tensor_expr(source)
        if self.get_tensor_type_str(source.tensor.Type()) == "float32":
            return quantize(data, scale=scale, zero_point=zero_point, dtype=dtype)
        in_scale, in_zero_point = _per_tensor(source)
        return requantize(
            data,
            in_scale=in_scale,
            in_zero_point=in_zero_point,
            scale=scale,
            zero_point=zero_point,
            dtype=dtype,
        )

    def convert_dequantize(self, op):
        (source,) = self.get_input_tensors(op)
        if source.qnn_params is None:
            return super().convert_dequantize(op)
        scale, zero_point = _per_tensor(source)
        return dequantize(self.get_tensor_expr(source), scale=scale, zero_point=zero_point)

    def convert_conv(self, op, conv_type):
        # TVM refuses dynamic-range quantization: float tensors, 8-bit weights.
        source, weight, *bias = self.get_input_tensors(op)
        if source.qnn_params or not weight.qnn_params:
            return super().convert_conv(op, conv_type)
        scale, zero_point = _per_tensor(weight)
        values = self.get_tensor_value(weight)
        if conv_type != "conv2d" or weight.tensor.Quantization().ScaleLength() != 1 or zero_point:
            raise ModelError("only CONV_2D with one weight scale compiles with float activations")
        options = _options(op, tflite.Conv2DOptions)
        _, height, width, _ = (int(size) for size in self.get_tensor_shape(source))
        strides = [options.StrideH(), options.StrideW()]
        dilation = [options.DilationHFactor(), options.DilationWFactor()]
        (top, bottom), (left, right) = (
            arithmetic.same_padding(*sizes) if options.Padding() == tflite.Padding.SAME else (0, 0)
            for sizes in zip((height, width), values.shape[1:3], strides, dilation, strict=True)
        )
        low, high = _BOUNDS[_ACTIVATIONS[options.FusedActivationFunction()]]
        biases = self.get_tensor_value(bias[0]) if bias else np.zeros(len(values))
        return hybrid_conv2d(
            self.get_tensor_expr(source),
            relax.const(values, "int8"),
            relax.const(biases, "float32"),
            scale=scale,
            strides=strides,
            dilation=dilation,
            padding=[top, left, bottom, right],
            low=low,
            high=high,
        )

    def convert_fully_connected(self, op):
        # TFLite takes the input for a matrix as wide as the weights, whatever its shape.
        source, weight = self.get_input_tensors(op)[:2]
        (result,) = self.get_output_tensors(op)
        shape = [int(size) for size in self.get_tensor_shape(source)]
        depth = int(self.get_tensor_shape(weight)[-1])
        if len(shape) == 2 and shape[1] == depth:
            return super().convert_fully_connected(op)
        name = get_tensor_name(self.subgraph, source.tensor_idx)
        data = self.get_tensor_expr(source)
        matrix = relax.op.reshape(data, [int(np.prod(shape)) // depth, depth])
        self.exp_tab.set_expr(name, self.bb.normalize(matrix), force_override=True)
        product = super().convert_fully_connected(op)
        self.exp_tab.set_expr(name, data, force_override=True)
        return relax.op.reshape(product, [int(size) for size in self.get_tensor_shape(result)])

    def convert_reshape(self, op):
        # The result's shape is static whatever arithmetic (SHAPE, STRIDED_SLICE, PACK...) the model
        # carries to compute it for a dynamic batch; that arithmetic dies with this.
        source = self.get_input_tensors(op)[0]
        (result,) = self.get_output_tensors(op)
        shape = [int(size) for size in self.get_tensor_shape(result)]
        if np.prod(shape) != np.prod(self.get_tensor_shape(source)):
            raise ModelError(f"cannot reshape {list(self.get_tensor_shape(source))} to {shape}")
        return relax.op.reshape(self.get_tensor_expr(source), shape)

    def convert_softmax(self, op):
        # TVM forgets beta.
        (source,), (result,) = self.get_input_tensors(op), self.get_output_tensors(op)
        beta = _options(op, tflite.SoftmaxOptions).Beta()
        data = self.get_tensor_expr(source)
        if source.qnn_params:
            data = self.dequantize(data, source)
        if beta != 1.0:
            data = relax.op.multiply(data, relax.const(beta, "float32"))
        data = relax.op.nn.softmax(data, axis=-1)
        return self.quantize(data, result) if result.qnn_params else data

    def convert_split(self, op):
        axis_tensor, source = self.get_input_tensors(op)
        results = self.get_output_tensors(op)
        data, rank = self.get_tensor_expr(source), len(self.get_tensor_shape(source))
        axis = int(np.asarray(self.get_tensor_value(axis_tensor)).item()) % rank
        size = int(self.get_tensor_shape(results[0])[axis])
        parts = [
            relax.op.strided_slice(data, axes=[axis], begin=[i * size], end=[(i + 1) * size])
            for i in range(len(results))
        ]
        return parts[0] if len(parts) == 1 else relax.Tuple(parts)

    def convert_resize_nearest_neighbor(self, op):
        # Relax's resize2d rounds coordinates its own way.
        source, size = self.get_input_tensors(op)
        options = _options(op, tflite.ResizeNearestNeighborOptions)
        return resize_nearest(
            self.get_tensor_expr(source),
            size=[int(extent) for extent in self.get_tensor_value(size)],
            align_corners=options.AlignCorners(),
            half_pixel_centers=options.HalfPixelCenters(),
            dtype=self.get_tensor_type_str(source.tensor.Type()),
        )

    def convert_qnn_fused_activation_function(
        self, expr, fused_activation_fn, scale, zero_point, dtype
    ):
        # TVM rounds the bounds half to even, CalculateActivationRangeQuantized away from zero.
        if fused_activation_fn not in _ACTIVATIONS:
            return super().convert_qnn_fused_activation_function(
                expr, fused_activation_fn, scale, zero_point, dtype
            )
        name = _ACTIVATIONS[fused_activation_fn]
        if name == "NONE":
            return expr
        low, high = arithmetic.activation_range(
            name, float(np.asarray(scale)), int(np.asarray(zero_point)), dtype
        )
        return relax.op.clip(expr, min=float(low), max=float(high))


def _options(op: tflite.Operator, kind: type):
    """The builtin options of an operator, as the schema's class for them."""
    options = kind()
    options.Init(op.BuiltinOptions().Bytes, op.BuiltinOptions().Pos)
    return options


def _per_tensor(tensor) -> tuple[float, int]:
    """Scale and zero point of a per-tensor quantized tensor wrapper of TVM's importer."""
    quantization = tensor.tensor.Quantization()
    return float(quantization.Scale(0)), int(quantization.ZeroPoint(0))
