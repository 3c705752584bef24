"""CONV_2D of dynamic-range quantized models: float tensors, 8-bit weights.

The input is quantized to 8 bits by its largest magnitude on every inference, and the integer
products are scaled back (EvalHybrid, tflite/kernels/conv.cc; PortableSymmetricQuantizeFloats,
internal/reference/portable_tensor_utils.cc; HybridConv, internal/optimized/optimized_ops.h).
"""

import numpy as np
from tvm.script import tirx as T

from mcuforge.operators.conv2d import infer_conv2d
from mcuforge.tir.registry import Kernel, Operation, integer_op, kernel

hybrid_conv2d = integer_op(
    "hybrid_conv2d", lambda shapes, attrs: (infer_conv2d(shapes, attrs)[0], "float32")
)
"""``hybrid_conv2d(x, weight, bias, **attrs)``: x (1, h, w, c) float32; weight (o, kh, kw, c) int8;
bias (o,) float32. Attrs: scale (of the weights), strides, dilation, padding, low and high (bounds
of the activation)."""


# An operator of the model itself, present at every level, level 0 included.
@kernel("hybrid_conv2d", opt_level=0)
def _scalar(operation: Operation) -> Kernel:
    attrs = operation.attrs
    n, height, width, channels = operation.args[0].shape
    _, out_h, out_w, outputs = operation.out.shape
    weight = operation.args[1].value
    _, kernel_h, kernel_w, _ = weight.shape
    (sy, sx), (dy, dx), (top, left, _, _) = (
        attrs["strides"], attrs["dilation"], attrs["padding"]
    )  # fmt: skip
    scale, low, high = attrs["scale"], attrs["low"], attrs["high"]

    @T.prim_func(private=True)
    def hybrid_conv2d(
        x: T.Buffer((n, height, width, channels), "float32"),
        weight: T.Buffer((outputs, kernel_h, kernel_w, channels), "int8"),
        bias: T.Buffer((outputs,), "float32"),
        y: T.Buffer((n, out_h, out_w, outputs), "float32"),
    ):
        quantized = T.alloc_buffer((height, width, channels), "int8")
        for b in range(n):
            largest: T.float32 = T.float32(0)
            for iy, ix, c in T.grid(height, width, channels):
                largest = T.max(largest, T.max(x[b, iy, ix, c], T.float32(0) - x[b, iy, ix, c]))
            factor: T.float32 = T.float32(1)
            inverse: T.float32 = T.float32(0)
            if largest > T.float32(0):
                factor = largest / T.float32(127)
                inverse = T.float32(127) / largest
            for iy, ix, c in T.grid(height, width, channels):
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
            scaling: T.let = factor * T.float32(scale)
            for oy, ox, o in T.grid(out_h, out_w, outputs):
                acc: T.int32 = 0
                for ky, kx in T.grid(kernel_h, kernel_w):
                    iy: T.let = oy * sy + ky * dy - top
                    ix: T.let = ox * sx + kx * dx - left
                    if iy >= 0 and iy < height and ix >= 0 and ix < width:
                        for c in range(channels):
                            acc += T.cast(quantized[iy, ix, c], "int32") * T.cast(
                                weight[o, ky, kx, c], "int32"
                            )
                total: T.let = T.cast(acc, "float32") * scaling + bias[o]
                y[b, oy, ox, o] = T.min(T.max(total, T.float32(low)), T.float32(high))

    return Kernel(hybrid_conv2d, (0, 1, 2), macs=n * out_h * out_w * int(np.prod(weight.shape)))
