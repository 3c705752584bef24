"""CONV_2D and FULLY_CONNECTED of dynamic-range quantized models: float tensors, 8-bit weights.

A dense layer is a convolution of one pixel a row. The input is quantized to 8 bits by its largest
magnitude on every inference, and the integer products are scaled back (EvalHybrid in
tflite/kernels/conv.cc; PortableSymmetricQuantizeFloats in
internal/reference/portable_tensor_utils.cc; HybridConv in internal/optimized/optimized_ops.h).
"""

from tvm.script import tirx as T

from mcuforge.operators.conv2d import infer_conv2d
from mcuforge.tir.integer_op import Traits, integer_op, macs_of_weights
from mcuforge.tir.registry import Kernel, Operation, kernel

hybrid_conv2d = integer_op(
    "hybrid_conv2d",
    lambda shapes, attrs: (infer_conv2d(shapes, attrs)[0], "float32"),
    Traits(macs=macs_of_weights),
)
"""``hybrid_conv2d(x, weight, bias, scale, **attrs)``: x (n, h, w, c) float32; weight (o, kh, kw, c)
int8; bias, scale (of the weights) (o,) float32. Attrs: strides, dilation, padding, low and high
(bounds of the activation)."""


# An operator of the model itself, present at every level, level 0 included.
@kernel("hybrid_conv2d", opt_level=0)
def _scalar(operation: Operation) -> Kernel:
    g, attrs = operation.geometry, operation.attrs
    weight_shape = operation.args[1].shape
    low, high = attrs["low"], attrs["high"]

    @T.prim_func(private=True)
    def hybrid_conv2d(
        x: T.Buffer(g.shape, "float32"),
        weight: T.Buffer(weight_shape, "int8"),
        bias: T.Buffer((g.outputs,), "float32"),
        scale: T.Buffer((g.outputs,), "float32"),
        y: T.Buffer(g.out_shape, "float32"),
    ):
        quantized = T.alloc_buffer(g.shape[1:], "int8")
        for b in range(g.batch):
            largest: T.float32 = T.float32(0)
            for iy, ix, c in T.grid(g.rows.size, g.columns.size, g.channels):
                largest = T.max(largest, T.max(x[b, iy, ix, c], T.float32(0) - x[b, iy, ix, c]))
            factor: T.float32 = T.float32(1)
            inverse: T.float32 = T.float32(0)
            if largest > T.float32(0):
                factor = largest / T.float32(127)
                inverse = T.float32(127) / largest
            for iy, ix, c in T.grid(g.rows.size, g.columns.size, g.channels):
                real: T.let = x[b, iy, ix, c] * inverse
                whole: T.let = T.cast(real, "int32")
                rest: T.let = real - T.cast(whole, "float32")
                # Halves away from zero.
                rounded: T.let = (
                    whole
                    + T.cast(rest >= T.float32(0.5), "int32")
                    - T.cast(rest <= T.float32(-0.5), "int32")
                )
                quantized[iy, ix, c] = T.cast(T.min(T.max(rounded, -127), 127), "int8")
            for oy, ox, o in T.grid(g.rows.out, g.columns.out, g.outputs):
                acc: T.int32 = 0
                for ky, kx in T.grid(g.rows.window, g.columns.window):
                    iy: T.let = oy * g.rows.stride + ky * g.rows.dilation - g.rows.before
                    ix: T.let = ox * g.columns.stride + kx * g.columns.dilation - g.columns.before
                    if iy >= 0 and iy < g.rows.size and ix >= 0 and ix < g.columns.size:
                        for c in range(g.channels):
                            acc += T.cast(quantized[iy, ix, c], "int32") * T.cast(
                                weight[o, ky, kx, c], "int32"
                            )
                total: T.let = T.cast(acc, "float32") * (factor * scale[o]) + bias[o]
                y[b, oy, ox, o] = T.min(T.max(total, T.float32(low)), T.float32(high))

    return Kernel(hybrid_conv2d, (0, 1, 2, 3))
