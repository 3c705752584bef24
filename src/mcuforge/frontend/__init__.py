"""TFLite to Relax: TVM's importer, extended where quantized models need it."""

import numpy as np
import tflite
import tvm
from tflite.ActivationFunctionType import ActivationFunctionType
from tvm import relax
from tvm.relax.frontend.tflite import from_tflite as tvm_from_tflite
from tvm.relax.frontend.tflite.tflite_frontend import OperatorConverter

from mcuforge.errors import ModelError
from mcuforge.kernels import arithmetic
from mcuforge.kernels.quantize import dequantize, quantize, requantize

_ACTIVATIONS = {
    ActivationFunctionType.NONE: "NONE",
    ActivationFunctionType.RELU: "RELU",
    ActivationFunctionType.RELU6: "RELU6",
    ActivationFunctionType.RELU_N1_TO_1: "RELU_N1_TO_1",
}


def from_tflite(data: bytes) -> tvm.IRModule:
    """Import a TFLite model as Relax with float arithmetic between quantized tensors (QDQ).

    The model's own QUANTIZE and DEQUANTIZE operators become ``mcuforge.quantize``,
    ``mcuforge.dequantize`` and ``mcuforge.requantize``: a ``relax.dequantize`` in the result always
    belongs to the representation of a quantized operator, never to the model.

    Args:
        data: the ``.tflite`` file, already checked to be one (``mcuforge.models.describe``).

    Returns:
        A module with the function ``main``; one parameter per model input, in the model's order.

    Raises:
        ModelError: an operator is not supported; names it, its index and its output tensor.
    """
    try:
        model = tflite.Model.GetRootAsModel(data, 0)
        return tvm_from_tflite(model, op_converter=_Converter)
    except (tvm.error.OpNotImplemented, tvm.error.OpError) as error:
        raise ModelError(str(error).strip().splitlines()[0]) from error


class _Converter(OperatorConverter):
    """TVM's converter, with mcuforge's operators where TVM's QDQ form loses information."""

    def __init__(self, model, subgraph, exp_tab, bb) -> None:
        super().__init__(model, subgraph, exp_tab, bb)
        self._index = -1
        self.convert_map = {
            name: self._locate_errors(name, convert) for name, convert in self.convert_map.items()
        }

    def _locate_errors(self, name: str, convert):
        def convert_or_name(op):
            self._index += 1
            try:
                return convert(op=op)
            except ModelError:
                raise
            except Exception as error:
                reason = str(error).strip().splitlines()
                raise ModelError(
                    f"operator {name} {self._where(self._index)} cannot be imported"
                    + (f": {reason[-1]}" if reason else "")
                ) from error

        return convert_or_name

    def _where(self, index: int) -> str:
        output = self.subgraph.Operators(index).Outputs(0)
        name = self.subgraph.Tensors(output).Name() or b""
        return f"(operator {index}, output tensor '{name.decode(errors='replace')}')"

    def check_unsupported_ops(self) -> None:
        for index in range(self.subgraph.OperatorsLength()):
            try:
                name = self.get_op_code_str(self.subgraph.Operators(index))
            except (tvm.error.OpNotImplemented, AttributeError, KeyError) as error:
                raise ModelError(f"unknown operator {self._where(index)}: {error}") from error
            if name not in self.convert_map:
                raise ModelError(f"operator {name} {self._where(index)} is not supported")

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

    def convert_reshape(self, op):
        # The result's shape is static whatever arithmetic (SHAPE, STRIDED_SLICE, PACK...) the model
        # carries to compute it for a dynamic batch; that arithmetic dies with this.
        source = self.get_input_tensors(op)[0]
        (result,) = self.get_output_tensors(op)
        shape = [int(size) for size in self.get_tensor_shape(result)]
        if np.prod(shape) != np.prod(self.get_tensor_shape(source)):
            raise ModelError(f"cannot reshape {list(self.get_tensor_shape(source))} to {shape}")
        return relax.op.reshape(self.get_tensor_expr(source), shape)

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


def _per_tensor(tensor) -> tuple[float, int]:
    """Scale and zero point of a per-tensor quantized tensor wrapper of TVM's importer."""
    quantization = tensor.tensor.Quantization()
    return float(quantization.Scale(0)), int(quantization.ZeroPoint(0))
