"""From accumulator to 8-bit output in kernels: the lines of ``exact.lines`` as TIR."""

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from mcuforge.exact import arithmetic
from mcuforge.exact.lines import AWAY, Halves, Lines, lines
from mcuforge.exact.steps import Requantization, RoundedOnce, RoundedTwice
from mcuforge.tir.registry import Operation


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


def requantization(operation: Operation, scale: np.ndarray) -> Requantization:
    """TFLite's requantization of an operator's accumulators.

    Args:
        operation: with ``rounding`` among its attributes: ``twice`` for convolutions, ``once`` for
            FULLY_CONNECTED.
        scale: (o,) float64, real factor from accumulator to output.
    """
    if operation.attrs["rounding"] == "twice":
        return RoundedTwice.by(*(arithmetic.quantize_multiplier(real) for real in scale))
    return RoundedOnce(scale)


def limits(operation: Operation) -> tuple[int, int]:
    """Smallest and largest output of an operator, less its zero point."""
    attrs = operation.attrs
    zero_point = attrs["zero_point"]
    return attrs["clamp_min"] - zero_point, attrs["clamp_max"] - zero_point


def exact_lines(operation: Operation, scale: np.ndarray, bound: int) -> Lines:
    """The lines that equal TFLite's requantization of an operator's accumulators.

    Args:
        operation: as for ``requantization``, with ``zero_point``, ``clamp_min`` and ``clamp_max``.
        scale: (o,) float64, real factor from accumulator to output.
        bound: largest magnitude of an accumulator.

    Raises:
        ModelError: no exact line exists.
    """
    bound = min(bound, arithmetic.INT32_MAX)
    return lines(requantization(operation, scale), limits(operation), bound)


def exact_line(operation: Operation, multiplier: arithmetic.Multiplier, bound: int) -> Lines:
    """``exact_lines`` for one gemmlowp multiplier instead of one scale per channel."""
    bound = min(bound, arithmetic.INT32_MAX)
    return lines(RoundedTwice.by(multiplier), limits(operation), bound)


def requantize(
    acc: tirx.Expr, multiplier: tirx.Expr, addend: tirx.Expr, shift: tirx.Expr, halves: Halves
) -> tirx.Expr:
    """The formula of ``Lines`` as TIR, int32; ``acc`` may appear twice: a variable."""
    total = T.cast(acc, "int64") * T.cast(multiplier, "int64") + addend
    if halves != "up":
        negative = acc < 0 if halves == "away" else tirx.And(acc < 0, shift > 31)
        total += T.if_then_else(negative, T.int64(AWAY), T.int64(0))
    return T.cast(total >> T.cast(shift, "int64"), "int32")


def clamp(value: tirx.Expr, low: int, high: int) -> tirx.Expr:
    """``value`` limited to [low, high]."""
    return T.min(T.max(value, low), high)
