"""The fixed-point arithmetic of TFLite: constants and tables that kernels are compiled with.

Everything here follows LiteRT's reference kernels bit by bit. Files named in the docstrings are
relative to `tflite/kernels/` of https://github.com/google-ai-edge/LiteRT; `gemmlowp` is
`fixedpoint/fixedpoint.h` of https://github.com/google/gemmlowp.

Scales are the float32 values of the model, zero points integers. Where TFLite computes in float32,
so does this module: the order and the width of every operation are part of the definition.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from mcuforge.errors import ModelError

Activation = Literal["NONE", "RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1"]

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


class Multiplier(NamedTuple):
    """A positive real number as TFLite keeps it: mantissa * 2^(shift - 31).

    Attributes:
        mantissa: int32 in [2^30, 2^31), or 0.
        shift: binary exponent; positive shifts left.
    """

    mantissa: int
    shift: int


def quantized_range(dtype: str) -> tuple[int, int]:
    """Smallest and largest value of an integer type, such as "int8"."""
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def round_half_away(values: np.ndarray | np.floating | float) -> np.ndarray:
    """C's `round` (internal/cppmath.h, TfLiteRound): to nearest, halves away from zero."""
    whole = np.trunc(values)
    return whole + np.copysign(np.abs(values - whole) >= 0.5, values)


def quantize_multiplier(real: float) -> Multiplier:
    """A real factor as mantissa and shift (QuantizeMultiplier, internal/quantization_util.cc).

    Raises:
        ModelError: the factor is 2^30 or more, for which a shift of an int32 is not defined.
    """
    if abs(real) >= 2.0**30:
        raise ModelError(f"a scale is {abs(real):g} times another")
    if real == 0:
        return Multiplier(0, 0)
    fraction, shift = math.frexp(float(real))
    mantissa = int(round_half_away(fraction * 2.0**31))
    if mantissa == 2**31:
        mantissa, shift = 2**30, shift + 1
    return Multiplier(mantissa, shift) if shift >= -31 else Multiplier(0, 0)


def multiply_by_quantized_multiplier(
    values: np.ndarray | int, mantissa: np.ndarray | int, shift: np.ndarray | int
) -> np.ndarray:
    """values * mantissa * 2^(shift - 31), rounded twice (internal/common.cc).

    First to 31 fractional bits, halves up (gemmlowp's SaturatingRoundingDoublingHighMul), then by
    the right shift, halves away from zero (RoundingDivideByPOT).

    Args:
        values: int32 values; a left shift that overflows int32 wraps.
        mantissa: of `Multiplier`, broadcast against `values`.
        shift: of `Multiplier`, broadcast against `values`.

    Returns:
        int64 array holding int32 values.
    """
    shift = np.asarray(shift)
    shifted = (np.asarray(values, np.int64) << np.maximum(shift, 0)).astype(np.int32)
    high = (shifted.astype(np.int64) * mantissa + (1 << 30)) >> 31
    return rounding_divide_by_power_of_two(high, np.maximum(-shift, 0))


def rounding_divide_by_power_of_two(
    values: np.ndarray | int, exponent: np.ndarray | int
) -> np.ndarray:
    """values / 2^exponent, halves away from zero (RoundingDivideByPOT, gemmlowp)."""
    values = np.asarray(values, np.int64)
    exponent = np.asarray(exponent, np.int64)
    mask = (np.int64(1) << exponent) - 1
    return (values >> exponent) + ((values & mask) > (mask >> 1) + (values < 0))


def activation_range(
    activation: Activation, scale: float, zero_point: int, dtype: str
) -> tuple[int, int]:
    """Clamping range of a fused activation (CalculateActivationRangeQuantized, kernel_util.cc).

    Args:
        activation: name of the fused activation.
        scale: of the output.
        zero_point: of the output.
        dtype: of the output.

    Returns:
        Smallest and largest quantized output.

    Raises:
        ModelError: the activation is not one TFLite's quantized kernels fuse.
    """

    def quantize(value: float) -> int:
        return zero_point + int(round_half_away(np.float32(value) / np.float32(scale)))

    low, high = quantized_range(dtype)
    match activation:
        case "NONE":
            return low, high
        case "RELU":
            return max(low, quantize(0)), high
        case "RELU6":
            return max(low, quantize(0)), min(high, quantize(6))
        case "RELU_N1_TO_1":
            return max(low, quantize(-1)), min(high, quantize(1))
        case "RELU_0_TO_1":
            return max(low, quantize(0)), min(high, quantize(1))
    raise ModelError(f"no quantized form of the fused activation {activation}")


def convolution_scales(
    input_scale: float, weight_scales: Sequence[float], output_scale: float, dtype: str
) -> np.ndarray:
    """Real factors of CONV_2D and DEPTHWISE_CONV_2D, one per weight scale, float64.

    PopulateConvolutionQuantizationParams, kernel_util.cc. uint8 convolutions, per tensor only,
    multiply the two scales in float32.
    """
    if dtype == "uint8":
        products = np.float64(np.float32(input_scale) * np.asarray(weight_scales, np.float32))
    else:
        products = _double(input_scale) * _double(weight_scales)
    return np.atleast_1d(products / _double(output_scale))


def fully_connected_scales(
    input_scale: float, weight_scales: Sequence[float], output_scale: float
) -> np.ndarray:
    """Real factors from accumulator to output of FULLY_CONNECTED, one per weight scale, float64.

    The reference kernels keep this factor as a double and round once: see `fully_connected_round`
    (internal/reference/fully_connected.h and integer_ops/fully_connected.h).
    """
    return np.atleast_1d(_double(input_scale) * _double(weight_scales) / _double(output_scale))


def fully_connected_round(accumulators: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Accumulators of FULLY_CONNECTED scaled to the output: float64 product, halves away."""
    return round_half_away(np.float64(accumulators) * scales).astype(np.int64)


class AddParameters(NamedTuple):
    """Constants of quantized ADD and SUB; all multipliers are applied with double rounding.

    Each input, less its zero point, is shifted left by `left_shift` and scaled by its multiplier;
    the sum or difference is scaled by `output`.
    """

    left_shift: int
    input1: Multiplier
    input2: Multiplier
    output: Multiplier


def add_parameters(scale1: float, scale2: float, output_scale: float) -> AddParameters:
    """Constants of ADD and SUB on 8-bit tensors (Prepare, add.cc and sub.cc).

    Twice the larger input scale and the output divisor are float32 products, the quotients too.
    """
    first, second, output = np.float32(scale1), np.float32(scale2), np.float32(output_scale)
    left_shift = 20
    twice = float(np.float32(2) * max(first, second))
    return AddParameters(
        left_shift,
        quantize_multiplier(float(first) / twice),
        quantize_multiplier(float(second) / twice),
        quantize_multiplier(twice / float(np.float32(1 << left_shift) * output)),
    )


def multiply_multiplier(scale1: float, scale2: float, output_scale: float) -> Multiplier:
    """Multiplier of quantized MUL, a float32 expression (Prepare, mul.cc)."""
    product = np.float32(scale1) * np.float32(scale2)
    return quantize_multiplier(float(product / np.float32(output_scale)))


def prelu_multipliers(
    input_scale: float, alpha_scale: float, output_scale: float
) -> tuple[Multiplier, Multiplier]:
    """Multipliers of PRELU, float32 expressions (PreluPrepare, activations.cc).

    Returns:
        Of an input that is not negative, and of the product of a negative one with alpha.
    """
    x, y = np.float32(input_scale), np.float32(output_scale)
    return (
        quantize_multiplier(float(x / y)),
        quantize_multiplier(float(x * np.float32(alpha_scale) / y)),
    )


def mean_multiplier(input_scale: float, output_scale: float, count: int) -> Multiplier:
    """Multiplier of quantized MEAN over `count` elements, the division folded in.

    PrepareMeanOrSum, reduce.cc, and QuantizedMeanOrSum, internal/reference/reduce.h.
    """
    mantissa, shift = quantize_multiplier(_double(input_scale) / _double(output_scale))
    extra = min(count.bit_length() - 1, 32, 31 + shift)
    return Multiplier((mantissa << extra) // count, shift - extra)


def requantize_multiplier(input_scale: float, output_scale: float) -> Multiplier:
    """Multiplier of QUANTIZE from one integer type to another (Prepare, quantize.cc)."""
    return quantize_multiplier(_double(input_scale) / _double(output_scale))


SOFTMAX_INTEGER_BITS = 12
"""Integer bits of the sum of exponentials of SOFTMAX, an int32 in Q12.19."""


_EXP_INTEGER_BITS = 5
EXP_FACTORS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)
"""exp(-1/4), exp(-1/2), ... exp(-16) in Q0.31, as gemmlowp has them."""


def softmax_exponent(input_scale: float, beta: float) -> tuple[Multiplier, int]:
    """How SOFTMAX scales a difference of 8-bit inputs to a negative exponent, an int32 in Q5.26.

    PreprocessSoftmaxScaling and CalculateInputRadius, internal/quantization_util.cc.

    Returns:
        The multiplier, and the largest difference whose exponential is not taken as 0.
    """
    fractional_bits = 31 - _EXP_INTEGER_BITS
    real = _double(beta) * _double(input_scale) * (1 << fractional_bits)
    multiplier = quantize_multiplier(min(real, 2.0**31 - 1))
    largest = ((1 << _EXP_INTEGER_BITS) - 1) * 2.0**fractional_bits
    return multiplier, math.floor(largest / 2.0**multiplier.shift)


def softmax_exp_table(input_scale: float, beta: float) -> np.ndarray:
    """exp(-difference * scale * beta) of 8-bit SOFTMAX, for each difference from the largest input.

    internal/reference/softmax.h; exp_on_negative_values, gemmlowp.

    Args:
        input_scale: of the input.
        beta: of the operator.

    Returns:
        int32 [256] in Q0.31, indexed by max(inputs) - input. Differences too large to matter are
        0, and so contribute nothing to the sum and quantize to the smallest output.
    """
    multiplier, radius = softmax_exponent(input_scale, beta)
    differences = -np.arange(256)
    differences[differences < -radius] = 0
    scaled = multiply_by_quantized_multiplier(differences, *multiplier)
    table = _exp_on_negative_values(scaled, _EXP_INTEGER_BITS)
    table[np.arange(256) > radius] = 0
    return table.astype(np.int32)


def softmax_reciprocal(total: int) -> tuple[int, int]:
    """Reciprocal of the sum of exponentials (GetReciprocal, internal/common.h; gemmlowp).

    Args:
        total: positive int32 in Q12.19.

    Returns:
        The reciprocal as int32 in Q0.31, and the number of bits of `total` above one: the real
        reciprocal is the first, times 2^-bits.
    """
    headroom = 32 - int(total).bit_length()
    fraction = (int(total) << headroom) - 2**31  # x of 1 + x, in Q0.31
    half_denominator = (fraction + INT32_MAX + 1) // 2  # never negative: rounds half up
    # Newton-Raphson in Q2.29 from the usual first guess 48/17 - 32/17 * d.
    x = 1515870810 + _doubling_high_multiply(half_denominator, -1010580540)
    for _ in range(3):
        error = (1 << 29) - _doubling_high_multiply(half_denominator, x)
        x += _saturating_shift_left(_doubling_high_multiply(x, error), 2)
    return int(_saturating_shift_left(x, 1)), SOFTMAX_INTEGER_BITS - headroom


def _doubling_high_multiply(a: np.ndarray | int, b: np.ndarray | int) -> np.ndarray | int:
    """(a * b + 2^30) >> 31 for int32 a and b: SaturatingRoundingDoublingHighMul of gemmlowp."""
    return (a * b + (1 << 30)) >> 31


def _saturating_shift_left(values: np.ndarray | int, exponent: int) -> np.ndarray:
    return np.clip(values << exponent, INT32_MIN, INT32_MAX)


def _exp_on_negative_values(values: np.ndarray, integer_bits: int) -> np.ndarray:
    """exp of non-positive int64 values in Q(integer_bits), in Q0.31; exp(0) is 2^31 - 1."""
    fractional_bits = 31 - integer_bits
    quarter = 1 << (fractional_bits - 2)
    remainder = (values & (quarter - 1)) - quarter  # in [-1/4, 0)
    # Taylor series around -1/8, in Q0.31.
    x = (remainder << integer_bits) + (1 << 28)
    x2 = _doubling_high_multiply(x, x)
    x3 = _doubling_high_multiply(x2, x)
    x4 = rounding_divide_by_power_of_two(_doubling_high_multiply(x2, x2), 2)
    cubic = _doubling_high_multiply(x4 + x3, 715827883)  # 1/3
    tail = rounding_divide_by_power_of_two(cubic + x2, 1)
    result = 1895147668 + _doubling_high_multiply(1895147668, x + tail)  # exp(-1/8)
    # Multiply by exp(-2^k) for each bit of the whole quarters.
    for bit, factor in zip(range(-2, integer_bits), EXP_FACTORS, strict=True):
        chosen = (remainder - values) & (1 << (fractional_bits + bit))
        result = np.where(chosen, _doubling_high_multiply(result, factor), result)
    return np.where(values == 0, INT32_MAX, result)


def _double(scale: float | Sequence[float]) -> np.ndarray:
    """Float32 scales of the model, widened as a C cast to double does."""
    return np.asarray(np.asarray(scale, np.float32), np.float64)


def unary_table(
    op: str,
    input_scale: float,
    input_zero_point: int,
    output_scale: float,
    output_zero_point: int,
    dtype: str,
    alpha: float = 0.0,
) -> np.ndarray:
    """Output of an element-wise 8-bit operator for every input.

    Args:
        op: ABS, TANH, LOGISTIC, EXP, LOG, RSQRT, RELU, RELU6, RELU_N1_TO_1, RELU_0_TO_1,
            LEAKY_RELU or HARD_SWISH.
        input_scale: of the input.
        input_zero_point: of the input.
        output_scale: of the output.
        output_zero_point: of the output.
        dtype: "int8" or "uint8", of both.
        alpha: of LEAKY_RELU.

    Returns:
        [256] of type dtype; the output for input q is at index q - smallest q.

    Raises:
        ModelError: TFLite has no such operator or cannot quantize it with these scales.
    """
    low, high = quantized_range(dtype)
    inputs = np.arange(low, high + 1) - input_zero_point
    source, result = np.float32(input_scale), np.float32(output_scale)
    match op:
        case "LOG":
            lowest = float(np.float32(low - output_zero_point) * result)
            outputs = _rounded_function(op, inputs, source, result, lowest)
        case "RSQRT":
            outputs = _inverse_roots(inputs, source, result)
            outputs[inputs <= 0] = high - output_zero_point
        case "TANH" | "LOGISTIC" | "EXP":
            outputs = _rounded_function(op, inputs, source, result)
        case "ABS":  # AbsEvalQuantized, elementwise.cc
            outputs = np.abs(inputs)
            if source != result:
                multiplier = quantize_multiplier(float(source / result))
                outputs = multiply_by_quantized_multiplier(outputs, *multiplier)
        case "RELU" | "RELU6" | "RELU_N1_TO_1" | "RELU_0_TO_1":
            outputs = multiply_by_quantized_multiplier(
                inputs, *quantize_multiplier(float(source / result))
            )
            low, high = activation_range(op, output_scale, output_zero_point, dtype)
        case "LEAKY_RELU":
            outputs = _leaky_relu(inputs, source, result, np.float32(alpha))
        case "HARD_SWISH":
            outputs = _hard_swish(inputs, source, result)
        case _:
            raise ModelError(f"no table for the operator {op}")
    return np.clip(outputs + output_zero_point, low, high).astype(dtype)


def comparison_table(scale: float, zero_point: int, dtype: str) -> np.ndarray:
    """What values of 8 bits are compared as (ComparisonWithScaling, reference/comparisons.h).

    Args:
        scale: below 1.
        zero_point: of the values.
        dtype: "int8" or "uint8".

    Returns:
        int32 [256], multiples of 1/256; for the value q at index q - smallest q.
    """
    low, high = quantized_range(dtype)
    shifted = (np.arange(low, high + 1) - zero_point) << 8
    multiplier = quantize_multiplier(float(np.float32(scale)))
    return multiply_by_quantized_multiplier(shifted, *multiplier).astype(np.int32)


def concatenation_table(
    input_scale: float, input_zero_point: int, output_scale: float, output_zero_point: int
) -> np.ndarray:
    """Output of uint8 CONCATENATION for every value of one of its inputs, uint8 [256].

    ConcatenationWithScaling, internal/reference/concatenation.h: float32 throughout. int8 inputs
    must have the quantization of the output, and are copied.
    """
    values = np.arange(256)
    if (np.float32(input_scale), input_zero_point) == (np.float32(output_scale), output_zero_point):
        return values.astype(np.uint8)
    scale = np.float32(input_scale) * (np.float32(1) / np.float32(output_scale))
    bias = np.float32(-input_zero_point) * scale
    outputs = round_half_away(values.astype(np.float32) * scale + bias) + output_zero_point
    return np.clip(outputs, 0, 255).astype(np.uint8)


def same_padding(extent: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Padding before and after one dimension under SAME (ComputePaddingWithOffset, padding.h)."""
    total = max((-(-extent // stride) - 1) * stride + (kernel - 1) * dilation + 1 - extent, 0)
    return total // 2, total - total // 2


def nearest_indices(
    extent: int, output_extent: int, align_corners: bool, half_pixel_centers: bool
) -> np.ndarray:
    """Input index of each output index of RESIZE_NEAREST_NEIGHBOR along one dimension.

    GetNearestNeighbor, internal/reference/resize_nearest_neighbor.h: float32 throughout.
    """
    if align_corners and output_extent > 1:
        scale = np.float32(extent - 1) / np.float32(output_extent - 1)
    else:
        scale = np.float32(extent) / np.float32(output_extent)
    offset = np.float32(0.5 if half_pixel_centers else 0)
    positions = (np.arange(output_extent, dtype=np.float32) + offset) * scale
    indices = round_half_away(positions) if align_corners else np.floor(positions)
    return np.clip(indices, 0, extent - 1).astype(np.int32)


def _rounded_function(
    op: str,
    inputs: np.ndarray,
    input_scale: np.float32,
    output_scale: np.float32,
    lowest: float = 0.0,
) -> np.ndarray:
    """LUTPopulateInt8, internal/common.h: float32 throughout.

    LOG of what is not positive is `lowest` (LogLUTPrepare, elementwise.cc).

    Raises:
        ModelError: results are beyond int32, to which LiteRT converts them.
    """
    reals = input_scale * inputs.astype(np.float32)
    match op:
        case "TANH":
            reals = _libm("tanhf", reals)
        case "EXP":
            reals = _libm("expf", reals)
        case "LOG":
            logarithms = _libm("logf", np.where(reals > 0, reals, np.float32(1)))
            reals = np.where(reals > 0, logarithms, np.float32(lowest))
        case _:
            reals = np.float32(1) / (np.float32(1) + _libm("expf", -reals))
    outputs = round_half_away(reals * (np.float32(1) / output_scale))
    if np.abs(outputs).max() >= 2.0**30:
        raise ModelError(f"results of {op} overflow at the scales {input_scale}, {output_scale}")
    return outputs.astype(np.int64)


def _inverse_roots(
    inputs: np.ndarray, input_scale: np.float32, output_scale: np.float32
) -> np.ndarray:
    """RsqrtEvalQuantizedInt8, elementwise.cc; inputs that are not positive give anything."""
    real = 1.0 / float(np.sqrt(input_scale) * output_scale)
    mantissa, shift = quantize_multiplier(real)
    roots = [_inverse_root(max(int(value), 1)) for value in inputs]
    # 20 fractional bits between the two multiplications.
    data = [
        int(multiply_by_quantized_multiplier(1, root.mantissa, root.shift + 20)) for root in roots
    ]
    return multiply_by_quantized_multiplier(np.array(data), mantissa, shift - 20)


def _inverse_root(value: int) -> Multiplier:
    """1 / sqrt(value) of a positive int32 below 2^29.

    GetInvSqrtQuantizedMultiplierExp, internal/common.h, with its reverse_shift of -1: five steps of
    Newton-Raphson from 1, in Q3.28.
    """
    if value <= 1:
        return Multiplier(INT32_MAX, 0)
    pairs = (32 - value.bit_length() - 1) // 2 - 1
    shift = 11 - pairs
    halved = (value << 2 * pairs) >> 1
    half = int(rounding_divide_by_power_of_two(halved, 1))
    x = 1 << 28
    for _ in range(5):
        square = _doubling_high_multiply(x, x)
        cube = int(_saturating_shift_left(_doubling_high_multiply(square, x), 6))
        difference = _doubling_high_multiply(3 << 27, x) - _doubling_high_multiply(half, cube)
        x = int(_saturating_shift_left(difference, 3))
    x = int(_doubling_high_multiply(x, 1518500250))  # 1 / sqrt(2)
    if shift < 0:
        x, shift = x << -shift, 0
    return Multiplier(x, -shift)


def _libm(name: str, values: np.ndarray) -> np.ndarray:
    """A float32 function of the C library, the one LiteRT calls: last bits are the library's."""
    function = getattr(ctypes.CDLL(None), name)
    function.argtypes, function.restype = [ctypes.c_float], ctypes.c_float
    return np.array([function(value) for value in values], np.float32)


def _leaky_relu(
    inputs: np.ndarray, input_scale: np.float32, output_scale: np.float32, alpha: np.float32
) -> np.ndarray:
    """internal/reference/leaky_relu.h; the real factors are float32 (activations.cc)."""
    slope = float(input_scale * alpha / output_scale)
    scaled = multiply_by_quantized_multiplier(inputs, *quantize_multiplier(abs(slope)))
    return np.where(
        inputs >= 0,
        multiply_by_quantized_multiplier(
            inputs, *quantize_multiplier(float(input_scale / output_scale))
        ),
        -scaled if slope < 0 else scaled,
    )


def _hard_swish(
    inputs: np.ndarray, input_scale: np.float32, output_scale: np.float32
) -> np.ndarray:
    """internal/reference/hard_swish.h: 16-bit fixed point; the real factors are float32."""

    def factor(real: np.float32) -> Multiplier:  # DownScaleInt32ToInt16Multiplier
        mantissa, shift = quantize_multiplier(float(real))
        return Multiplier(min((mantissa + (1 << 15)) >> 16, 2**15 - 1), shift)

    def saturate(values: np.ndarray) -> np.ndarray:
        return np.clip(values, -(2**15), 2**15 - 1)

    fine_scale = np.float32(1 / 128) * input_scale
    output, output_shift = factor(fine_scale / output_scale)
    relu, relu_shift = factor(fine_scale / (np.float32(3) / np.float32(32768)))
    if output_shift > 0:
        raise ModelError("HARD_SWISH needs an output scale of at least 1/128 of its input's")
    fine = inputs.astype(np.int64) << 7
    scaled = (fine * output + (1 << 14)) >> 15
    gate = saturate(fine << (relu_shift - 1)) if relu_shift > 0 else fine
    gate = (gate * relu + (1 << 14)) >> 15
    if relu_shift > 0:
        gate = saturate(gate << 1)
    gate = (rounding_divide_by_power_of_two(gate, max(-relu_shift, 0)) + (1 << 15)) >> 1
    product = np.trunc(gate * scaled / 2.0**15).astype(np.int64)
    return rounding_divide_by_power_of_two(product, -output_shift)
