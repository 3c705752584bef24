"""Operators of TFLite that TVM computes in another way than LiteRT, as operators of our own."""

from typing import Any

import numpy as np
import tflite
from tflite.ActivationFunctionType import ActivationFunctionType
from tvm import relax
from tvm.relax.frontend.tflite.tflite_frontend import OperatorConverter, TensorWrapper

from mcuforge.errors import ModelError
from mcuforge.exact import arithmetic
from mcuforge.formats.tflite.moving import options_of
from mcuforge.operators.prelu import prelu
from mcuforge.operators.resize_bilinear import resize_bilinear
from mcuforge.operators.transpose_conv import transpose_conv
from mcuforge.tir.geometry import Axis

ACTIVATIONS: dict[int, arithmetic.Activation] = {
    ActivationFunctionType.NONE: "NONE",
    ActivationFunctionType.RELU: "RELU",
    ActivationFunctionType.RELU6: "RELU6",
    ActivationFunctionType.RELU_N1_TO_1: "RELU_N1_TO_1",
}
_LARGEST = float(np.finfo(np.float32).max)
BOUNDS = {
    "NONE": (-_LARGEST, _LARGEST),
    "RELU": (0.0, _LARGEST),
    "RELU6": (0.0, 6.0),
    "RELU_N1_TO_1": (-1.0, 1.0),
}
"""Smallest and largest real result of each fused activation."""


class ComputingConverter(OperatorConverter):
    """TVM's converter, with these operators as integers where the model has integers."""

    def convert_resize_bilinear(self, op: tflite.Operator) -> relax.Expr:
        source, size = self.get_input_tensors(op)
        options = options_of(op, tflite.ResizeBilinearOptions)
        aligned, centered = options.AlignCorners(), options.HalfPixelCenters()
        if aligned and centered:
            raise ModelError("align_corners and half_pixel_centers exclude each other")
        return resize_bilinear(
            self.get_tensor_expr(source),
            size=[int(extent) for extent in self.get_tensor_value(size)],
            align_corners=aligned,
            half_pixel_centers=centered,
            dtype=self.get_tensor_type_str(source.tensor.Type()),
        )

    def convert_prelu(self, op: tflite.Operator) -> relax.Expr:
        (source, alpha), (result,) = self.get_input_tensors(op), self.get_output_tensors(op)
        data, slope = self.get_tensor_expr(source), self.get_tensor_expr(alpha)
        if not source.qnn_params:
            negative = relax.op.less(data, relax.const(0.0, "float32"))
            return relax.op.where(negative, relax.op.multiply(data, slope), data)
        in_scale, in_zero_point = per_tensor(source)
        alpha_scale, alpha_zero_point = per_tensor(alpha)
        return prelu(
            data,
            slope,
            in_scale=in_scale,
            in_zero_point=in_zero_point,
            alpha_scale=alpha_scale,
            alpha_zero_point=alpha_zero_point,
            scale=per_tensor(result)[0],
            **self._range(result, "NONE"),
        )

    def convert_transpose_conv(self, op: tflite.Operator) -> relax.Expr:
        shape, weight, source, *bias = self.get_input_tensors(op)
        (result,) = self.get_output_tensors(op)
        options = options_of(op, tflite.TransposeConvOptions)
        batch, *size, outputs = (int(extent) for extent in self.get_tensor_value(shape))
        values = self.get_tensor_value(weight)
        inputs = [int(extent) for extent in self.get_tensor_shape(source)]
        if (batch, outputs, values.shape[3]) != (inputs[0], values.shape[0], inputs[3]):
            raise ModelError(f"weights {list(values.shape)} do not take {inputs} to {size}")
        strides = [options.StrideH(), options.StrideW()]
        if min(strides) < 1:
            raise ModelError(f"cannot move by {strides}")
        # The convolution that takes the result to the input has the paddings, and the sizes.
        same = options.Padding() == tflite.Padding.SAME
        sizes = list(zip(size, values.shape[1:3], strides, strict=True))
        padding = [arithmetic.same_padding(*extents) if same else (0, 0) for extents in sizes]
        windows = [Axis(*axis, 1, *pads).out for axis, pads in zip(sizes, padding, strict=True)]
        if windows != inputs[1:3]:
            raise ModelError(f"an image of {size} comes from one of {windows}, not {inputs[1:3]}")
        dtype = self.get_tensor_type_str(source.tensor.Type())
        given = bool(bias) and bias[0].tensor_idx >= 0
        biases = self.get_tensor_value(bias[0]) if given else np.zeros(outputs)
        scales, zero_points = np.ones(outputs), {}
        if source.qnn_params:
            (in_scale, in_zero_point), (scale, _) = per_tensor(source), per_tensor(result)
            weight_scales = weight.tensor.Quantization().ScaleAsNumpy()
            scales = arithmetic.convolution_scales(in_scale, weight_scales, scale, dtype)
            zero_point = per_tensor(weight)[1]
            zero_points = {"input_zero_point": in_zero_point, "weight_zero_point": zero_point}
        return transpose_conv(
            self.get_tensor_expr(source),
            relax.const(values, dtype),
            relax.const(biases, "int32" if source.qnn_params else "float32"),
            relax.const(np.broadcast_to(scales, outputs).copy(), "float64"),
            size=size,
            strides=strides,
            padding=[before for before, _ in padding],
            rounding="twice",
            **zero_points,
            **self._range(result, ACTIVATIONS[options.FusedActivationFunction()]),
        )

    def _range(self, result: TensorWrapper, activation: arithmetic.Activation) -> dict[str, Any]:
        """Attributes of a result: its type, zero point and bounds, real ones of real numbers."""
        dtype = self.get_tensor_type_str(result.tensor.Type())
        if not result.qnn_params:
            low, high = BOUNDS[activation]
            return {"clamp_min": low, "clamp_max": high, "dtype": dtype}
        scale, zero_point = per_tensor(result)
        low, high = arithmetic.activation_range(activation, scale, zero_point, dtype)
        return {"zero_point": zero_point, "clamp_min": low, "clamp_max": high, "dtype": dtype}


def per_tensor(tensor: TensorWrapper) -> tuple[float, int]:
    """Scale and zero point of a tensor that has one of each."""
    quantization = tensor.tensor.Quantization()
    return float(quantization.Scale(0)), int(quantization.ZeroPoint(0))
