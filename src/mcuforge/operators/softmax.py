"""SOFTMAX over the last axis, 8 bits in and out."""

import math

import numpy as np
from tvm import relax, tirx
from tvm.script import tirx as T

from mcuforge.exact import arithmetic
from mcuforge.tir.integer_op import integer_op
from mcuforge.tir.qdq import Region
from mcuforge.tir.registry import Kernel, Operation, kernel, restores

# Below opt_level 4, at most so many exponentials are computed rather than looked up in a table of
# 1 KB. On an emulated Cortex-M7 (gcc 12 and clang 19, -O3) 12 outputs take 1,490 and 1,487
# instructions so and 477 and 476 with the table, 64 outputs 7,534 and 7,253 and 2,332 and 1,992.
_FEW = 32
_QUARTER = 1 << 24

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
    """Exponentials of a few inputs are computed, which takes a quarter of a table's flash."""
    multiplier, _ = arithmetic.softmax_exponent(
        operation.attrs["in_scale"], operation.attrs["beta"]
    )
    few = math.prod(operation.out.shape) <= _FEW and multiplier.shift >= 0
    return _softmax(operation, computed=few)


@kernel("softmax", opt_level=4)
def _table(operation: Operation) -> Kernel:
    return _softmax(operation, computed=False)


def _doubling_high_mul(a: tirx.Expr, b: tirx.Expr | int) -> tirx.Expr:
    """Gemmlowp's SaturatingRoundingDoublingHighMul, but for its single saturating case."""
    product = T.cast(a, "int64") * T.cast(b, "int64")
    return T.cast((product + T.int64(1 << 30)) >> T.int64(31), "int32")


def _saturating_shift(x: tirx.Expr, bits: int) -> tirx.Expr:
    """x * 2^bits, saturated to int32: gemmlowp's SaturatingRoundingMultiplyByPOT."""
    limit = (1 << (31 - bits)) - 1
    below = T.if_then_else(x < -limit - 1, arithmetic.INT32_MIN, x << bits)
    return T.if_then_else(x > limit, arithmetic.INT32_MAX, below)


@T.inline
def _exponential(exps, i, difference, multiplier, factors):
    """exps[i] = exp(-difference): gemmlowp's exp_on_negative_values.

    A polynomial for what is below a quarter (1 << 24 in Q5.26), and a factor for each bit above.
    """
    scaled: T.let = _doubling_high_mul(-(difference << multiplier.shift), multiplier.mantissa)
    remainder: T.let = (scaled & (_QUARTER - 1)) - _QUARTER
    z: T.let = (remainder << 5) + (1 << 28)
    z2: T.let = _doubling_high_mul(z, z)
    z3: T.let = _doubling_high_mul(z2, z)
    z4: T.let = (_doubling_high_mul(z2, z2) + 2) >> 2
    cubic: T.let = _doubling_high_mul(z4 + z3, 715827883)
    series: T.let = z + ((cubic + z2 + 1) >> 1)
    power: T.int32 = 1895147668 + _doubling_high_mul(1895147668, series)
    for bit in range(len(arithmetic.EXP_FACTORS)):
        if (((remainder - scaled) >> (bit + 24)) & 1) != 0:
            power = _doubling_high_mul(power, factors[bit])
    exps[i] = T.if_then_else(scaled == 0, arithmetic.INT32_MAX, power)


def _softmax(operation: Operation, computed: bool) -> Kernel:
    """exp(-d) in Q0.31 for the distance d of each input from the largest, divided by their sum.

    The exponentials are looked up, or computed by ``_exponential``. The sum is in Q12.19, its
    reciprocal in Q2.29 (tflite internal/reference/softmax.h; gemmlowp
    one_over_one_plus_x_for_x_in_0_1).
    """
    *outer, classes = operation.out.shape
    rows = math.prod(outer)
    in_dtype, dtype = operation.args[0].dtype, operation.out.dtype
    low, high = arithmetic.quantized_range(dtype)
    scaling = operation.attrs["in_scale"], operation.attrs["beta"]
    multiplier, radius = arithmetic.softmax_exponent(*scaling)
    if computed:
        constants = np.array(arithmetic.EXP_FACTORS, np.int32)
    else:
        constants = arithmetic.softmax_exp_table(*scaling)

    @T.prim_func(private=True)
    def softmax(
        x: T.Buffer((rows, classes), in_dtype),
        exponentials: T.Buffer((len(constants),), "int32"),
        y: T.Buffer((rows, classes), dtype),
    ):
        if computed:
            exps = T.alloc_buffer((classes,), "int32", scope="local")
        for row in range(rows):
            largest: T.int32 = T.cast(x[row, 0], "int32")
            for i in range(classes):
                largest = T.max(largest, T.cast(x[row, i], "int32"))
            if computed:
                for i in range(classes):
                    difference: T.let = largest - T.cast(x[row, i], "int32")
                    exps[i] = 0
                    if difference <= radius:
                        _exponential(exps, i, difference, multiplier, exponentials)
            total: T.int32 = 0
            for i in range(classes):
                if computed:
                    term: T.let = exps[i]
                else:
                    term: T.let = exponentials[largest - T.cast(x[row, i], "int32")]
                total += ((term >> 11) + 1) >> 1
            headroom: T.int32 = 0
            while (total << headroom) > 0:
                headroom += 1
            # 1 / (1 + x) for the x in Q0.31 with total << headroom = 1 + x, by three Newton steps.
            scaled = T.meta_var(T.cast(total, "int64") << T.cast(headroom, "int64"))
            fraction: T.let = T.cast(scaled - T.int64(1 << 31), "int32")
            whole = T.meta_var(T.cast(fraction, "int64") + T.int64(1 << 31))
            half: T.let = T.cast(whole >> T.int64(1), "int32")
            reciprocal: T.int32 = _doubling_high_mul(half, -1010580540) + 1515870810
            for _ in range(3):
                error: T.let = (1 << 29) - _doubling_high_mul(half, reciprocal)
                step: T.let = _doubling_high_mul(reciprocal, error)
                reciprocal += _saturating_shift(step, 2)
            reciprocal = _saturating_shift(reciprocal, 1)
            bits: T.let = 12 - headroom + 31 - 8
            for i in range(classes):
                if computed:
                    value: T.let = exps[i]
                else:
                    value: T.let = exponentials[largest - T.cast(x[row, i], "int32")]
                product: T.let = _doubling_high_mul(value, reciprocal)
                shifted: T.let = ((product >> (bits - 1)) + 1) >> 1
                y[row, i] = T.cast(T.min(shifted + low, high), dtype)

    return Kernel(softmax, (0, constants), inplace={0: 0})
