"""TRANSPOSE_CONV: each input pixel, times the weights, is added to a window of the result.

The kernel goes the other way: it gathers for each output what the inputs would scatter to it. The
sums are the same, and none has to be kept. Example: with stride 2 and a window of 3, output 4 gets
input 2 through tap 0 and input 1 through tap 2; output 5 gets input 2 through tap 1 alone.
"""

import math

from tvm import tirx
from tvm.script import tirx as T

from mcuforge.tir.function import Function
from mcuforge.tir.integer_op import Traits, integer_op
from mcuforge.tir.registry import Kernel, Operation, kernel
from mcuforge.tir.requantize import accumulator_bound, clamp, exact_lines, requantize


def _macs(operation: Operation) -> int:
    """Every weight is used once for each pixel of the input."""
    x, weight, *_ = operation.args
    return math.prod(x.shape[:-1]) * math.prod(weight.shape)


transpose_conv = integer_op(
    "transpose_conv",
    lambda shapes, attrs: ([shapes[0][0], *attrs["size"], shapes[1][0]], attrs["dtype"]),
    Traits(macs=_macs),
)
"""``transpose_conv(x, weight, bias, scale, **attrs)``: TRANSPOSE_CONV.

Args: x (n, h, w, c) int8, uint8 or float32; weight (o, kh, kw, c) of the same type; bias (o,) int32
or float32; scale (o,) float64, real factor from accumulator to output, of no use to float32.
Attrs: size (y, x) of the result; strides (y, x); padding (top, left), what the result lacks there;
clamp_min, clamp_max, dtype; of integers also input_zero_point, weight_zero_point, zero_point and
rounding (see ``requantize.requantization``).
"""


# An operator of the model itself at every level: the import knows its integers.
@kernel("transpose_conv", opt_level=0)
def _scalar(operation: Operation) -> Kernel:
    attrs, dtype = operation.attrs, operation.out.dtype
    images, height, width, channels = operation.args[0].shape
    weights, biases, scale = (operand.value for operand in operation.args[1:])
    outputs, *window, _ = weights.shape
    (out_h, out_w), (stride_y, stride_x) = attrs["size"], attrs["strides"]
    (top, left), real = attrs["padding"], dtype == "float32"
    wide = "float32" if real else "int32"
    x_zero, w_zero = (attrs.get(f"{name}_zero_point", 0) for name in ("input", "weight"))

    f = Function("transpose_conv")
    x = f.param("x", math.prod(operation.args[0].shape), dtype)
    weight = f.constant("weight", weights.reshape(-1))
    bias = f.constant("bias", biases)
    if not real:
        exact = exact_lines(operation, scale, accumulator_bound(operation, weights, biases))
        names = ("multiplier", "addend", "shift")
        constants = [f.constant(name, getattr(exact, name)) for name in names]
    y = f.param("y", math.prod(operation.out.shape), dtype)

    def element(buffer: tirx.Var, at: tirx.Expr, zero: int) -> tirx.Expr:
        return buffer[at] if real else T.cast(buffer[at], wide) - zero

    def result(acc: tirx.Expr, o: tirx.Expr) -> tirx.Expr:
        if real:
            low, high = T.float32(attrs["clamp_min"]), T.float32(attrs["clamp_max"])
            return T.min(T.max(acc, low), high)
        value = requantize(acc, *(constant[o] for constant in constants), exact.halves)
        value = value + attrs["zero_point"]
        return T.cast(clamp(value, attrs["clamp_min"], attrs["clamp_max"]), dtype)

    with (
        f.loop("b", images) as b,
        f.loop("oy", out_h) as oy,
        f.loop("ox", out_w) as ox,
        f.loop("o", outputs) as o,
    ):
        acc = f.variable("acc", bias[o])
        with f.loop("j", -(-window[0] // stride_y)) as j:
            ky = f.let("ky", (oy + top) % stride_y + j * stride_y)
            iy = f.let("iy", (oy + top) // stride_y - j)
            with (
                f.when(tirx.all(ky < window[0], iy >= 0, iy < height)),
                f.loop("i", -(-window[1] // stride_x)) as i,
            ):
                kx = f.let("kx", (ox + left) % stride_x + i * stride_x)
                ix = f.let("ix", (ox + left) // stride_x - i)
                with (
                    f.when(tirx.all(kx < window[1], ix >= 0, ix < width)),
                    f.loop("c", channels) as c,
                ):
                    pixel = element(x, ((b * height + iy) * width + ix) * channels + c, x_zero)
                    tap = (o * window[0] + ky) * window[1] + kx
                    acc.set(acc.value + pixel * element(weight, tap * channels + c, w_zero))
        f.store(y, ((b * out_h + oy) * out_w + ox) * outputs + o, result(acc.value, o))
    return Kernel(f.done(), (0, *f.constants))
