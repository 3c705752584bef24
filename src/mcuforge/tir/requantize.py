"""From accumulator to 8-bit output: exact, with one multiply-add and one shift."""

from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from mcuforge.exact import arithmetic
from mcuforge.tir.registry import Operation


@dataclass(frozen=True)
class Requantization:
    """The formula of ``arithmetic.Linear`` for each output channel.

    Attributes:
        multiplier: (o,) int32, or int64 where 31 bits are not enough to be exact.
        addend: (o,) int64; the output's zero point is not part of it.
        shift: (o,) int32.
        negative: added where the accumulator is negative, in all channels.
    """

    multiplier: np.ndarray
    addend: np.ndarray
    shift: np.ndarray
    negative: int


def accumulator_bound(operation: Operation, weight: np.ndarray, bias: np.ndarray) -> int:
    """Largest magnitude the accumulators of an operator can reach.

    Args:
        operation: has ``input_zero_point`` and ``weight_zero_point`` among its attributes.
        weight: (o, ...) integers.
        bias: (o,) int32.
    """
    low, high = arithmetic.quantized_range(operation.args[0].dtype)
    zero_point = operation.attrs["input_zero_point"]
    largest_input = max(high - zero_point, zero_point - low)
    weights = np.abs(weight.astype(np.int64) - operation.attrs["weight_zero_point"])
    sums = weights.reshape(len(weight), -1).sum(axis=1) * largest_input
    return int((sums + np.abs(bias.astype(np.int64))).max())


def requantization(operation: Operation, scale: np.ndarray, bound: int) -> Requantization:
    """The multiply-adds that equal TFLite's requantization of an operator's accumulators.

    Args:
        operation: with ``rounding`` (``twice``: gemmlowp's two roundings of a 31-bit mantissa,
            in convolutions; ``once``: one rounding of a double product, as in FULLY_CONNECTED),
            ``zero_point``, ``clamp_min`` and ``clamp_max`` among its attributes.
        scale: (o,) float64, real factor from accumulator to output.
        bound: largest magnitude of an accumulator.

    Raises:
        ModelError: accumulators can exceed 32 bits, or no exact multiply-add exists.
    """
    attrs = operation.attrs
    if attrs["rounding"] == "twice":
        pairs = np.array([arithmetic.quantize_multiplier(s) for s in scale], np.int64)
        mantissa, exponent = pairs[:, :1], pairs[:, 1:]

        def rounded(acc: np.ndarray) -> np.ndarray:
            return arithmetic.multiply_by_quantized_multiplier(acc, mantissa, exponent)
    else:

        def rounded(acc: np.ndarray) -> np.ndarray:
            return arithmetic.fully_connected_round(acc, scale[:, np.newaxis])

    lines = arithmetic.linear_requantization(
        rounded,
        scale,
        attrs["clamp_min"] - attrs["zero_point"],
        attrs["clamp_max"] - attrs["zero_point"],
        min(bound, arithmetic.INT32_MAX),
    )
    multiplier, addend, shift, _ = np.array(lines, np.int64).T
    if multiplier.max() <= arithmetic.INT32_MAX:
        multiplier = multiplier.astype(np.int32)
    return Requantization(multiplier, addend, shift.astype(np.int32), lines[0].negative)


def requantize(
    acc: tirx.Expr, multiplier: tirx.Expr, addend: tirx.Expr, shift: tirx.Expr, negative: int
) -> tirx.Expr:
    """The formula of ``Requantization`` as TIR, int32; ``acc`` may appear twice: a variable."""
    total = T.cast(acc, "int64") * T.cast(multiplier, "int64") + addend
    if negative:
        total += T.if_then_else(acc < 0, T.int64(negative), T.int64(0))
    return T.cast(total >> T.cast(shift, "int64"), "int32")


def clamp(value: tirx.Expr, low: int, high: int) -> tirx.Expr:
    """``value`` limited to [low, high]."""
    return T.min(T.max(value, low), high)


def requantization_line(
    operation: Operation, multiplier: arithmetic.Multiplier, bound: int
) -> arithmetic.Linear:
    """``requantization`` for one gemmlowp multiplier instead of one scale per channel."""
    attrs = operation.attrs
    (line,) = arithmetic.linear_requantization(
        lambda acc: arithmetic.multiply_by_quantized_multiplier(acc, *multiplier),
        [multiplier.mantissa * 2.0 ** (multiplier.shift - 31)],
        attrs["clamp_min"] - attrs["zero_point"],
        attrs["clamp_max"] - attrs["zero_point"],
        min(bound, arithmetic.INT32_MAX),
    )
    return line
