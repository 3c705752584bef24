"""The float (QDQ) form of a quantized operator, as ``passes.restore_integers`` hands it over."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tvm import ir, relax

from mcuforge.errors import ModelError
from mcuforge.exact import arithmetic
from mcuforge.tir.integer_op import constant_value

_LAYOUT_OPS = {"relax.reshape", "relax.permute_dims", "relax.expand_dims", "relax.squeeze"}


@dataclass(frozen=True)
class Quantized:
    """An integer tensor and what its values mean: ``real = scale * (q - zero_point)``.

    Attributes:
        expr: the integer tensor; a Relax constant for weights.
        scale: float32, shape () for per-tensor or (channels,) for per-channel quantization.
        zero_point: one for all channels.
        dtype: ``int8``, ``uint8``, ``int16`` or ``int32``.
    """

    expr: relax.Expr
    scale: np.ndarray
    zero_point: int
    dtype: str

    @property
    def value(self) -> np.ndarray | None:
        """The integers, where they are constant."""
        return constant_value(self.expr)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(d) for d in self.expr.ty.shape)


@dataclass(frozen=True)
class Region:
    """A float operator between ``dequantize`` and ``quantize``.

    Attributes:
        call: the operator at the heart of the region.
        bias: the constant added to its result, if any.
        low, high: bounds of the float activation behind it (-inf, inf where there is none).
        scale, zero_point, dtype: quantization of the result; for an operator that TVM imports on
            integers directly, scale is NaN and zero_point 0.
        lookup: the value a variable is bound to, for following operands.
    """

    call: relax.Call
    bias: Quantized | None
    low: float
    high: float
    scale: float
    zero_point: int
    dtype: str
    lookup: Callable[[relax.Expr], relax.Expr]

    @property
    def clamp(self) -> tuple[int, int]:
        """Smallest and largest output value: dtype range narrowed by the activation."""
        names: dict[tuple[float, float], arithmetic.Activation] = {
            (-np.inf, np.inf): "NONE",
            (0.0, np.inf): "RELU",
            (0.0, 6.0): "RELU6",
            (-1.0, 1.0): "RELU_N1_TO_1",
        }
        name = names.get((self.low, self.high))
        if name is None:
            raise ModelError(f"activation clamp [{self.low}, {self.high}] is not TFLite's")
        return arithmetic.activation_range(name, self.scale, self.zero_point, self.dtype)

    def operand(self, expr: relax.Expr, dtype: str = "") -> Quantized | None:
        """The integer tensor behind a float operand, or None where the operand is truly float.

        Also None where it has another type than ``dtype``; by default, than 8 bits or the result's.
        Layout operators between ``dequantize`` and the operand are applied to the integers where
        these are constant.
        """
        value = self.lookup(expr)
        layout = []
        while isinstance(value, relax.Call) and value.op.name in _LAYOUT_OPS:
            layout.append(value)
            value = self.lookup(value.args[0])
        if not isinstance(value, relax.Call) or value.op.name != "relax.dequantize":
            return None
        data, scale, zero_point = (self.constant(arg) for arg in value.args)
        if scale is None or zero_point is None:
            return None
        source = value.args[0]
        if data is not None:
            for step in reversed(layout):
                data = _apply_layout(step, data)
            source = relax.const(data, str(data.dtype))
        elif layout:
            return None
        zero_points = np.unique(zero_point)
        if zero_points.size != 1:
            raise ModelError("per-channel zero points differ: not a TFLite quantization")
        allowed = (dtype,) if dtype else ("int8", "uint8", self.dtype)
        dtype = str(source.ty.dtype)
        if dtype not in allowed:
            return None
        return Quantized(source, np.asarray(scale, "float32"), int(zero_points[0]), dtype)

    def constant(self, expr: relax.Expr) -> np.ndarray | None:
        """The value of a constant operand, evaluated through layout operators, or None."""
        value = self.lookup(expr)
        if isinstance(value, ir.GenericConst):
            return constant_value(value)
        if isinstance(value, relax.Call) and value.op.name in _LAYOUT_OPS:
            data = self.constant(value.args[0])
            return None if data is None else _apply_layout(value, data)
        return None


def _apply_layout(call: relax.Call, data: np.ndarray) -> np.ndarray:
    if call.op.name == "relax.permute_dims":
        axes = call.attrs.axes
        return np.ascontiguousarray(
            data.transpose(None if axes is None else [int(a) for a in axes])
        )
    return data.reshape([int(d) for d in call.ty.shape])
