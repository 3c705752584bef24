"""TFLite to Relax: TVM's importer, extended where quantized models need it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tflite
import tvm
from tvm import relax
from tvm.relax.frontend.tflite import from_tflite as tvm_from_tflite
from tvm.relax.frontend.tflite.tflite_frontend import TensorWrapper, get_tensor_name

from mcuforge.errors import ModelError, located
from mcuforge.exact import arithmetic
from mcuforge.formats.tflite.choosing import ChoosingConverter
from mcuforge.formats.tflite.computing import ACTIVATIONS, BOUNDS, ComputingConverter, per_tensor
from mcuforge.formats.tflite.graph import Graph, Node
from mcuforge.formats.tflite.moving import options_of
from mcuforge.formats.tflite.normalize import normalize
from mcuforge.operators.hybrid_conv2d import hybrid_conv2d
from mcuforge.operators.quantize import dequantize, quantize, requantize
from mcuforge.operators.resize_nearest import resize_nearest


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
    with located(""):
        # Options and what else `describe` does not read may be damaged.
        graph = normalize(data)

        def converter(model: Any, subgraph: Any, exp_tab: Any, bb: Any) -> _Converter:
            builders.append(bb)
            return _Converter(graph, model, subgraph, exp_tab, bb)

        try:
            model = tflite.Model.GetRootAsModel(graph.pack(), 0)
            return tvm_from_tflite(model, op_converter=converter)
        except Exception:
            for builder in builders:
                builder._end_block()  # TVM leaves it open, and then warns about that on stderr
            raise


class _Converter(ChoosingConverter, ComputingConverter):
    """TVM's converter, with mcuforge's operators where TVM's QDQ form loses information."""

    def __init__(self, graph: Graph, model: Any, subgraph: Any, exp_tab: Any, bb: Any) -> None:
        super().__init__(model, subgraph, exp_tab, bb)
        self.graph = graph

    def check_unsupported_ops(self) -> None:
        """Done already, by ``supported.check``."""

    def convert_op_to_relax(self) -> None:
        for position, node in enumerate(self.graph.nodes):
            op = self.subgraph.Operators(position)
            with located(self.graph.where(node)):
                results = self._convert(node, op)
            for index, result in zip(node.operator.outputs, results, strict=True):
                self.exp_tab.set_expr(get_tensor_name(self.subgraph, index), result)

    def _convert(self, node: Node, op: tflite.Operator) -> list[relax.Expr]:
        """The results of an operator, each of the shape and type that the model states."""
        value = self.bb.normalize(self.convert_map[node.name](op=op))
        outputs = node.operator.outputs
        results = [value] if len(outputs) == 1 else [value[i] for i in range(len(outputs))]
        for index, result in zip(outputs, results, strict=True):
            stated = self.graph.tensor(index)
            shape = tuple(int(extent) for extent in self._infer_shape(result))
            dtype = str(self.bb.normalize(result).ty.dtype)
            if (shape, dtype) != (stated.shape, stated.dtype):
                raise ModelError(
                    f"it computes {dtype} {list(shape)}, but the model says {stated.dtype} "
                    f"{list(stated.shape)} of tensor '{stated.name}'"
                )
        return results

    def get_expr(self, input_tensor_idx: int) -> relax.Expr:
        # TVM looks up variables only where it expects no constant.
        if self.has_expr(input_tensor_idx):
            return super().get_expr(input_tensor_idx)
        return self.get_tensor_expr(*self.get_tensors([input_tensor_idx]))

    def convert_quantize(self, op: tflite.Operator) -> relax.Expr:
        (source,) = self.get_input_tensors(op)
        (result,) = self.get_output_tensors(op)
        scale, zero_point = per_tensor(result)
        dtype = self.get_tensor_type_str(result.tensor.Type())
        data = self.get_tensor_expr(source)
        if self.get_tensor_type_str(source.tensor.Type()) == "float32":
            return quantize(data, scale=scale, zero_point=zero_point, dtype=dtype)
        in_scale, in_zero_point = per_tensor(source)
        return requantize(
            data,
            in_scale=in_scale,
            in_zero_point=in_zero_point,
            scale=scale,
            zero_point=zero_point,
            dtype=dtype,
        )

    def convert_dequantize(self, op: tflite.Operator) -> relax.Expr:
        (source,) = self.get_input_tensors(op)
        scale, zero_point = per_tensor(source)
        return dequantize(self.get_tensor_expr(source), scale=scale, zero_point=zero_point)

    def convert_conv(self, op: tflite.Operator, conv_type: str) -> relax.Expr:
        # TVM refuses dynamic-range quantization: float tensors, 8-bit weights.
        source, weight, *bias = self.get_input_tensors(op)
        if source.qnn_params or not weight.qnn_params:
            return super().convert_conv(op, conv_type)
        options = options_of(op, tflite.Conv2DOptions)
        _, height, width, _ = (int(size) for size in self.get_tensor_shape(source))
        kernel = self.get_tensor_shape(weight)[1:3]
        strides = [options.StrideH(), options.StrideW()]
        dilation = [options.DilationHFactor(), options.DilationWFactor()]
        (top, bottom), (left, right) = (
            arithmetic.same_padding(*map(int, sizes))
            if options.Padding() == tflite.Padding.SAME
            else (0, 0)
            for sizes in zip((height, width), kernel, strides, dilation, strict=True)
        )
        data, values = self.get_tensor_expr(source), self.get_tensor_value(weight)
        return self._hybrid(
            data, values, weight, bias, options, strides, dilation, [top, left, bottom, right]
        )

    def _hybrid(
        self,
        data: relax.Expr,
        values: np.ndarray,
        weight: TensorWrapper,
        bias: Sequence[TensorWrapper],
        options: tflite.Conv2DOptions | tflite.FullyConnectedOptions,
        strides: Sequence[int],
        dilation: Sequence[int],
        padding: Sequence[int],
    ) -> relax.Expr:
        """``hybrid_conv2d`` with the scales of `weight`; its values are (o, kh, kw, c)."""
        scales = weight.tensor.Quantization().ScaleAsNumpy()
        has_bias = bias and bias[0].tensor_idx >= 0
        biases = self.get_tensor_value(bias[0]) if has_bias else np.zeros(len(values))
        low, high = BOUNDS[ACTIVATIONS[options.FusedActivationFunction()]]
        return hybrid_conv2d(
            data,
            relax.const(values, "int8"),
            relax.const(biases, "float32"),
            relax.const(np.broadcast_to(scales, len(values)), "float32"),
            strides=strides,
            dilation=dilation,
            padding=padding,
            low=low,
            high=high,
        )

    def convert_fully_connected(self, op: tflite.Operator) -> relax.Expr:
        # TFLite takes the input for a matrix as wide as the weights, whatever its shape.
        source, weight, *bias = self.get_input_tensors(op)
        (result,) = self.get_output_tensors(op)
        shape = [int(size) for size in self.get_tensor_shape(source)]
        units, depth = (int(size) for size in self.get_tensor_shape(weight))
        if np.prod(shape) % depth:
            raise ModelError(f"cannot take {shape} for rows of {depth}")
        wanted = [int(size) for size in self.get_tensor_shape(result)]
        if not source.qnn_params and weight.qnn_params:
            pixels = relax.op.reshape(self.get_tensor_expr(source), [-1, 1, 1, depth])
            values = self.get_tensor_value(weight).reshape(units, 1, 1, depth)
            options = options_of(op, tflite.FullyConnectedOptions)
            product = self._hybrid(
                self.bb.normalize(pixels), values, weight, bias, options, [1, 1], [1, 1], [0] * 4
            )
            return relax.op.reshape(self.bb.normalize(product), wanted)
        if len(shape) == 2 and shape[1] == depth:
            return super().convert_fully_connected(op)
        name = get_tensor_name(self.subgraph, source.tensor_idx)
        data = self.get_tensor_expr(source)
        matrix = relax.op.reshape(data, [int(np.prod(shape)) // depth, depth])
        self.exp_tab.set_expr(name, self.bb.normalize(matrix), force_override=True)
        product = super().convert_fully_connected(op)
        self.exp_tab.set_expr(name, data, force_override=True)
        return relax.op.reshape(product, wanted)

    def convert_softmax(self, op: tflite.Operator) -> relax.Expr:
        # TVM forgets beta.
        (source,), (result,) = self.get_input_tensors(op), self.get_output_tensors(op)
        beta = options_of(op, tflite.SoftmaxOptions).Beta()
        data = self.get_tensor_expr(source)
        if source.qnn_params:
            data = self.dequantize(data, source)
        if beta != 1.0:
            data = relax.op.multiply(data, relax.const(beta, "float32"))
        data = relax.op.nn.softmax(data, axis=-1)
        return self.quantize(data, result) if result.qnn_params else data

    def convert_resize_nearest_neighbor(self, op: tflite.Operator) -> relax.Expr:
        # Relax's resize2d rounds coordinates its own way.
        source, size = self.get_input_tensors(op)
        height, width = self.get_tensor_value(size)
        options = options_of(op, tflite.ResizeNearestNeighborOptions)
        return resize_nearest(
            self.get_tensor_expr(source),
            tuple(int(extent) for extent in self.get_tensor_shape(source)),
            (int(height), int(width)),
            options.AlignCorners(),
            options.HalfPixelCenters(),
            self.get_tensor_type_str(source.tensor.Type()),
        )

    def convert_qnn_fused_activation_function(
        self, expr: relax.Expr, fused_activation_fn: int, scale: Any, zero_point: Any, dtype: str
    ) -> relax.Expr:
        # TVM rounds the bounds half to even, CalculateActivationRangeQuantized away from zero.
        if fused_activation_fn not in ACTIVATIONS:
            return super().convert_qnn_fused_activation_function(
                expr, fused_activation_fn, scale, zero_point, dtype
            )
        name = ACTIVATIONS[fused_activation_fn]
        if name == "NONE":
            return expr
        low, high = arithmetic.activation_range(
            name, float(np.asarray(scale)), int(np.asarray(zero_point)), dtype
        )
        return relax.op.clip(expr, min=float(low), max=float(high))
