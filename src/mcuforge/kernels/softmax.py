"""SOFTMAX over the last axis, 8 bits in and out."""

import numpy as np
from tvm import relax
from tvm.script import tirx as T

from mcuforge.kernels import arithmetic
from mcuforge.kernels.qdq import Region
from mcuforge.kernels.registry import Kernel, Operation, integer_op, kernel, restores

softmax = integer_op("softmax", lambda shapes, attrs: (shapes[0], attrs["dtype"]))
"""``softmax(x, in_scale, beta, dtype)``: exact SOFTMAX; the result has scale 1/256."""


@restores("relax.nn.softmax")
def _restore(region: Region) -> relax.Call | None:
    data, beta = region.call.args[0], 1.0
    scaled = region.lookup(data)
    if isinstance(scaled, relax.Call) and scaled.op.name == "relax.multiply":
        data, factor = scaled.args
        beta = region.constant(factor).item()
    x = region.operand(data)
    axis, rank = int(region.call.attrs.axis), len(region.call.ty.shape)
    # The kernels do not look at the result's scale; LiteRT accepts what is about 1/256 for int8.
    if x is None or axis % rank != rank - 1 or abs(region.scale * 256 - 1) > 1e-3:
        return None
    return softmax(x.expr, in_scale=float(x.scale), beta=beta, dtype=region.dtype)


@kernel("softmax", opt_level=1)
def _scalar(operation: Operation) -> Kernel:
    *outer, classes = operation.out.shape
    rows = int(np.prod(outer))
    in_dtype, dtype = operation.args[0].dtype, operation.out.dtype
    low, high = arithmetic.quantized_range(dtype)
    table = arithmetic.softmax_exp_table(operation.attrs["in_scale"], operation.attrs["beta"])

    def doubling_high_mul(a, b):
        return T.cast((T.cast(a, "int64") * T.cast(b, "int64") + T.int64(1 << 30)) >> T.int64(31),
                      "int32")  # fmt: skip

    def saturating_double(x, bits):
        limit = (1 << (31 - bits)) - 1
        return T.if_then_else(
            x > limit,
            arithmetic.INT32_MAX,
            T.if_then_else(x < -limit - 1, arithmetic.INT32_MIN, x << bits),
        )

    # exp(-d) in Q0.31 from a table; the sum in Q12.19; its reciprocal by three Newton steps in
    # Q2.29 (gemmlowp one_over_one_plus_x_for_x_in_0_1; tflite internal/reference/softmax.h).
    @T.prim_func(private=True)
    def softmax(
        x: T.Buffer((rows, classes), in_dtype),
        table: T.Buffer((256,), "int32"),
        y: T.Buffer((rows, classes), dtype),
    ):
        for row in range(rows):
            largest: T.int32 = T.cast(x[row, 0], "int32")
            for i in range(classes):
                largest = T.max(largest, T.cast(x[row, i], "int32"))
            total: T.int32 = 0
            for i in range(classes):
                total += ((table[largest - T.cast(x[row, i], "int32")] >> 11) + 1) >> 1
            headroom: T.int32 = 0
            while (total << headroom) > 0:
                headroom += 1
            fraction: T.let = T.cast(
                (T.cast(total, "int64") << T.cast(headroom, "int64")) - T.int64(1 << 31), "int32"
            )
            half: T.let = T.cast(
                (T.cast(fraction, "int64") + T.int64(1 << 31)) >> T.int64(1), "int32"
            )
            reciprocal: T.int32 = doubling_high_mul(half, -1010580540) + 1515870810
            for _ in range(3):
                error: T.let = (1 << 29) - doubling_high_mul(half, reciprocal)
                step: T.let = doubling_high_mul(reciprocal, error)
                reciprocal += saturating_double(step, 2)
            reciprocal = saturating_double(reciprocal, 1)
            bits: T.let = 12 - headroom + 31 - 8
            for i in range(classes):
                product: T.let = doubling_high_mul(
                    table[largest - T.cast(x[row, i], "int32")], reciprocal
                )
                shifted: T.let = ((product >> (bits - 1)) + 1) >> 1
                y[row, i] = T.cast(T.min(shifted + low, high), dtype)

    return Kernel(softmax, (0, table), inplace={0: 0})
