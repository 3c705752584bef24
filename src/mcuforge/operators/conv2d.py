"""2-D convolutions, plain, grouped and depthwise: CONV_2D and DEPTHWISE_CONV_2D."""

from typing import Any

import numpy as np
from tvm import relax
from tvm.script import tirx as T

from mcuforge.exact import arithmetic
from mcuforge.tir import inplace
from mcuforge.tir.channels import WeightedSum
from mcuforge.tir.geometry import Geometry
from mcuforge.tir.integer_op import Traits, integer_op, macs_of_weights
from mcuforge.tir.qdq import Region
from mcuforge.tir.registry import Kernel, Operation, kernel, restores
from mcuforge.tir.requantize import accumulator_bound, clamp, exact_lines, requantize

# Bytes of a window that may be a local variable; larger ones are part of the workspace. It bounds
# stacks and does not decide speed: 3x3 over 8x8x16 to 16 channels, 144 bytes, take 527,919 and
# 531,472 instructions with a local, 528,421 and 530,950 without (Cortex-M7, gcc 12, clang 19, -O3).
_ON_STACK = 256


def infer_conv2d(shapes, attrs):
    """Shape and dtype of a convolution's result, from shapes (n, h, w, c) and the weight's."""
    return Geometry.of(shapes[:2], attrs).out_shape, attrs.get("dtype")


def _outside(attrs: dict[str, Any]) -> int:
    """What contributes nothing: the input's zero point."""
    return attrs["input_zero_point"]


conv2d = integer_op(
    "conv2d",
    infer_conv2d,
    Traits(channels=WeightedSum(), outside=_outside, macs=macs_of_weights),
)
"""``conv2d(x, weight, bias, scale, **attrs)``: exact CONV_2D.

Args: x (n, h, w, c) int8/uint8; weight (o, kh, kw, c / groups) of the same dtype; bias (o,) int32;
scale (o,) float64, real factor from accumulator to output.
Attrs: strides, dilation (y, x); padding (top, left, bottom, right); groups; input_zero_point,
weight_zero_point, zero_point; clamp_min, clamp_max; rounding (see ``requantize.requantization``);
dtype of the result.
"""

depthwise_conv2d = integer_op(
    "depthwise_conv2d",
    infer_conv2d,
    Traits(channels=WeightedSum(depthwise=True), outside=_outside, macs=macs_of_weights),
)
"""``depthwise_conv2d(x, weight, bias, scale, **attrs)``: exact DEPTHWISE_CONV_2D.

As ``conv2d``, with weight (kh, kw, c * m); output channel o reads input channel o // m.
"""


@restores("relax.nn.conv2d", takes_bias=True)
def _restore(region: Region) -> relax.Call | None:
    call, attrs = region.call, region.call.attrs
    x, weight = (region.operand(arg) for arg in call.args)
    if x is None or weight is None or weight.value is None:
        return None
    layout = str(attrs.kernel_layout)
    if str(attrs.data_layout) != "NHWC" or layout not in ("HWIO", "HWOI"):
        return None
    if layout == "HWOI":
        # Importer's depthwise: (kh, kw, c, m), output channel c * m_count + m.
        height, width, channels, per_channel = weight.value.shape
        values = weight.value.reshape(height, width, channels * per_channel)
        operator, outputs = depthwise_conv2d, channels * per_channel
        groups = {}
    else:
        values = weight.value.transpose(3, 0, 1, 2)
        operator, outputs = conv2d, weight.value.shape[3]
        groups = {"groups": int(attrs.groups)}
    bias = np.zeros(outputs, "int32") if region.bias is None else region.bias.value
    scale = arithmetic.convolution_scales(x.scale, weight.scale, region.scale, x.dtype)
    low, high = region.clamp
    return operator(
        x.expr,
        relax.const(np.ascontiguousarray(values)),
        relax.const(bias.astype("int32")),
        relax.const(np.broadcast_to(scale, outputs).copy(), "float64"),
        strides=[int(s) for s in attrs.strides],
        dilation=[int(d) for d in attrs.dilation],
        padding=[int(p) for p in attrs.padding],
        **groups,
        input_zero_point=x.zero_point,
        weight_zero_point=weight.zero_point,
        zero_point=region.zero_point,
        clamp_min=low,
        clamp_max=high,
        rounding="twice",
        dtype=region.dtype,
    )


@kernel("conv2d", opt_level=1)
def _conv2d(operation: Operation) -> Kernel:
    return _scalar(operation, operation.args[1].value)


@kernel("depthwise_conv2d", opt_level=1)
def _depthwise_conv2d(operation: Operation) -> Kernel:
    # One group per input channel.
    weight = np.ascontiguousarray(operation.args[1].value.transpose(2, 0, 1)[..., np.newaxis])
    return _scalar(operation, weight)


def _scalar(operation: Operation, weight: np.ndarray) -> Kernel:
    """The textbook loops over a weight (o, kh, kw, c / groups)."""
    g, attrs = operation.geometry, operation.attrs
    group_channels, group_outputs = g.channels // g.groups, g.outputs // g.groups
    x_zero, w_zero, y_zero = (
        attrs[k] for k in ("input_zero_point", "weight_zero_point", "zero_point")
    )
    low, high, dtype = attrs["clamp_min"], attrs["clamp_max"], operation.out.dtype
    x_dtype, w_dtype = operation.args[0].dtype, str(weight.dtype)
    bias, scale = operation.args[2].value, operation.args[3].value
    exact = exact_lines(operation, scale, accumulator_bound(operation, weight, bias))
    m_dtype = str(exact.multiplier.dtype)

    @T.prim_func(private=True)
    def conv2d(
        x: T.Buffer(g.shape, x_dtype),
        weight: T.Buffer(weight.shape, w_dtype),
        bias: T.Buffer((g.outputs,), "int32"),
        multiplier: T.Buffer((g.outputs,), m_dtype),
        addend: T.Buffer((g.outputs,), "int64"),
        shift: T.Buffer((g.outputs,), "int32"),
        y: T.Buffer(g.out_shape, dtype),
    ):
        for b, oy, ox, o in T.grid(g.batch, g.rows.out, g.columns.out, g.outputs):
            acc: T.int32 = bias[o]
            for ky in range(g.rows.window):
                iy: T.let = oy * g.rows.stride + ky * g.rows.dilation - g.rows.before
                if iy >= 0 and iy < g.rows.size:
                    for kx in range(g.columns.window):
                        ix: T.let = (
                            ox * g.columns.stride + kx * g.columns.dilation - g.columns.before
                        )
                        if ix >= 0 and ix < g.columns.size:
                            first: T.let = o // group_outputs * group_channels
                            for c in range(group_channels):
                                acc += (T.cast(x[b, iy, ix, first + c], "int32") - x_zero) * (
                                    T.cast(weight[o, ky, kx, c], "int32") - w_zero
                                )
            result: T.let = requantize(acc, multiplier[o], addend[o], shift[o], exact.halves)
            y[b, oy, ox, o] = T.cast(clamp(result + y_zero, low, high), dtype)

    args = (0, weight, 2, exact.multiplier, exact.addend, exact.shift)
    return Kernel(
        conv2d,
        args,
        inplace={0: inplace.by_element(g)},
    )


@kernel("conv2d", opt_level=2)
def _gathered(operation: Operation) -> Kernel | None:
    """A pixel's window is gathered once for all output channels, which then need no bounds checks.

    The input's zero point, which is also what lies outside of the input, moves into the bias.
    """
    g, attrs = operation.geometry, operation.attrs
    weight, bias, scale = (operand.value for operand in operation.args[1:])
    # Copying a window costs a fraction of what its checks cost for each output, so a few outputs do
    # not repay it. On an emulated Cortex-M7 (gcc 12 and clang 19, -O3) 3x3 over 8x8x16 to 8 take
    # 269,121 and 270,288 instructions so, 327,065 and 292,783 at opt_level 1.
    if g.groups != 1 or g.taps == 1 or g.outputs * 2 < g.channels:
        return None
    x_zero, w_zero, y_zero = (
        attrs[k] for k in ("input_zero_point", "weight_zero_point", "zero_point")
    )
    low, high, dtype = attrs["clamp_min"], attrs["clamp_max"], operation.out.dtype
    x_dtype, w_dtype = operation.args[0].dtype, str(weight.dtype)
    bound = accumulator_bound(operation, weight, bias)
    exact = exact_lines(operation, scale, bound)
    m_dtype = str(exact.multiplier.dtype)
    sums = (weight.astype(np.int64) - w_zero).reshape(g.outputs, -1)
    folded = bias.astype(np.int64) - x_zero * sums.sum(axis=1)
    if bound + 255 * np.abs(sums).sum(axis=1).max() > arithmetic.INT32_MAX:
        return None
    # The largest layers, which decide how large the workspace is, have few channels.
    scope = "local" if g.taps * g.channels <= _ON_STACK else "global"

    @T.prim_func(private=True)
    def conv2d(
        x: T.Buffer(g.shape, x_dtype),
        weight: T.Buffer((g.outputs, g.taps, g.channels), w_dtype),
        bias: T.Buffer((g.outputs,), "int32"),
        multiplier: T.Buffer((g.outputs,), m_dtype),
        addend: T.Buffer((g.outputs,), "int64"),
        shift: T.Buffer((g.outputs,), "int32"),
        y: T.Buffer(g.out_shape, dtype),
    ):
        window = T.alloc_buffer((g.taps, g.channels), x_dtype, scope=scope)
        for b, oy, ox in T.grid(g.batch, g.rows.out, g.columns.out):
            for ky, kx in T.grid(g.rows.window, g.columns.window):
                iy: T.let = oy * g.rows.stride + ky * g.rows.dilation - g.rows.before
                ix: T.let = ox * g.columns.stride + kx * g.columns.dilation - g.columns.before
                if iy >= 0 and iy < g.rows.size and ix >= 0 and ix < g.columns.size:
                    for c in range(g.channels):
                        window[ky * g.columns.window + kx, c] = x[b, iy, ix, c]
                else:
                    for c in range(g.channels):
                        window[ky * g.columns.window + kx, c] = T.Cast(x_dtype, x_zero)
            for o in range(g.outputs):
                acc: T.int32 = bias[o]
                for tap, c in T.grid(g.taps, g.channels):
                    acc += T.cast(window[tap, c], "int32") * (
                        T.cast(weight[o, tap, c], "int32") - w_zero
                    )
                result: T.let = requantize(acc, multiplier[o], addend[o], shift[o], exact.halves)
                y[b, oy, ox, o] = T.cast(clamp(result + y_zero, low, high), dtype)

    flat = weight.reshape(g.outputs, g.taps, g.channels)
    args = (0, flat, folded.astype(np.int32), exact.multiplier, exact.addend, exact.shift)
    pixels = g.batch * g.pixels
    return Kernel(
        conv2d,
        args,
        inplace={0: inplace.by_pixels(g, range(pixels), 1)},
    )
