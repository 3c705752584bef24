"""What the Helium kernels share: requantizing four lanes at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from tvm import ir, tirx
from tvm.tirx.script import builder as T

from mcuforge.exact import arithmetic, search
from mcuforge.exact.steps import Requantization, Steps, find
from mcuforge.isa import helium
from mcuforge.tir.function import Function
from mcuforge.tir.registry import Operation
from mcuforge.tir.requantize import accumulator_bound, limits, requantization

LANES = 16
"""int8 lanes of a vector."""

LEAST_MACS = 64
"""Layers with fewer multiply-accumulates are left to scalar loops.

On an emulated Cortex-M55 (gcc 12 and clang 19, -O3) a dense layer of 16 to 4, 64 of them, takes 35
and 36 instructions with vectors, 325 and 88 as scalar loops; a depthwise 3x3 over 2x2x2, 72 of
them, 120 and 157 with vectors, 485 and 205 as scalar loops.
"""


@dataclass(frozen=True)
class RoundedShift:
    """From four int32 accumulators to int8, for every channel, by TFLite's own two steps.

    y = saturate(rounding_shift(high(acc * multiplier) + correction, shift) + zero_point), where
    high is VQRDMULH or, unless ``rounding``, VQDMULH, and the correction is -1 for negative
    accumulators if ``negative``.

    Attributes:
        multiplier: (o,) int32.
        shift: (o,) int32, at most 0: the right shift, negated.
        rounding: which high multiply.
        negative: whether negative accumulators are corrected.
        zero_point: of the output.
        low, high: clamping range of the output.
    """

    multiplier: np.ndarray
    shift: np.ndarray
    rounding: bool
    negative: bool
    zero_point: int
    low: int
    high: int

    def vector(self, acc: ir.Expr, multiplier: ir.Expr, shift: ir.Expr) -> ir.Expr:
        """Four bytes, each lowest in its lane; operands are vectors or scalars for all lanes."""
        return helium.vqmovn_s32(self._unsaturated(acc, multiplier, shift))

    def _unsaturated(self, acc: ir.Expr, multiplier: ir.Expr, shift: ir.Expr) -> ir.Expr:
        high = self._high(acc, multiplier)
        if self.negative:
            high = helium.vadd_s32(high, helium.vsign_s32(acc))
        shifted = (helium.vrshl_s32 if _is_vector(shift) else helium.vrshl_n_s32)(high, shift)
        value = shifted
        if self.zero_point:
            value = helium.vadd_n_s32(shifted, T.int32(self.zero_point))
        return _clamped(value, self.low, self.high)

    def _high(self, acc: ir.Expr, multiplier: ir.Expr) -> ir.Expr:
        if _is_vector(multiplier):
            return (helium.vqrdmulh_s32 if self.rounding else helium.vqdmulh_s32)(acc, multiplier)
        return (helium.vqrdmulh_n_s32 if self.rounding else helium.vqdmulh_n_s32)(acc, multiplier)


def _clamped(value: ir.Expr, low: int, high: int) -> ir.Expr:
    """What is left of the clamp by saturation to int8."""
    if low > -128:
        value = helium.vmax_s32(value, helium.vdup_s32(T.int32(low)))
    if high < 127:
        value = helium.vmin_s32(value, helium.vdup_s32(T.int32(high)))
    return value


class Biased:
    """A ``RoundedShift`` of accumulators without bias: two words and a byte a channel."""

    def __init__(self, exact: RoundedShift, bias: np.ndarray) -> None:
        self._exact = exact
        self.columns = (bias, exact.multiplier, exact.shift.astype(np.int8))

    def unsaturated(self, acc: ir.Expr, *columns: ir.Expr) -> ir.Expr:
        """Four int32 that become the result when saturated to int8.

        Args:
            acc: four accumulators.
            columns: the channels' values of ``columns``, as vectors or scalars for all lanes.
        """
        bias, *rest = columns
        add = helium.vadd_s32 if _is_vector(bias) else helium.vadd_n_s32
        return self._exact._unsaturated(add(acc, bias), *rest)


class HighLine:
    """y = saturate((VQRDMULH(acc * 2^scaling, multiplier) + addend) >> shift): two words a channel.

    Bias, rounding and zero point are all in the addend, and the shift is that of all channels,
    which accumulators as large as 32 bits allow.
    """

    def __init__(
        self, columns: tuple[np.ndarray, np.ndarray], scaling: int, shift: int,
        limits: tuple[int, int],
    ) -> None:  # fmt: skip
        self.columns = columns
        self._scaling, self._shift, self._limits = scaling, shift, limits

    def unsaturated(self, acc: ir.Expr, multiplier: ir.Expr, addend: ir.Expr) -> ir.Expr:
        """See Biased."""
        if self._scaling:
            acc = helium.vshl_n_s32(self._scaling)(acc)
        high = helium.vqrdmulh_s32 if _is_vector(multiplier) else helium.vqrdmulh_n_s32
        add = helium.vadd_s32 if _is_vector(addend) else helium.vadd_n_s32
        value = add(high(acc, multiplier), addend)
        return _clamped(helium.vshr_n_s32(self._shift)(value), *self._limits)


def by_width(columns: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Columns of constants as (o, n) int32 and (o, n) int8, for ``scalars``."""
    groups = [[c for c in columns if c.dtype == dtype] for dtype in (np.int32, np.int8)]
    empty = np.empty((len(columns[0]), 0), np.int8)
    words, bytes_ = (np.stack(group, 1) if group else empty for group in groups)
    return words, bytes_


def scalars(
    f: Function, params: list[tirx.Var], groups: tuple[np.ndarray, ...], channel: ir.Expr
) -> list[ir.Expr]:
    """The constants of a channel, from the parameters that hold what ``by_width`` returned."""
    shapes = [group.shape[1] for group in groups if group.size]
    return [
        f.let("param", T.cast(p[channel * count + i], "int32"))
        for p, count in zip(params, shapes, strict=True)
        for i in range(count)
    ]


def multiply_add(acc: ir.Expr | None, a: ir.Expr, b: ir.Expr) -> ir.Expr:
    """An accumulator and the dot product of two vectors; None: there is no accumulator yet."""
    return helium.vmladav_s8(a, b) if acc is None else helium.vmladava_s8(acc, a, b)


def _high_line(steps: Steps, scale: np.ndarray, limits: tuple[int, int]) -> HighLine | None:
    """A HighLine with all steps where they should be.

    Args:
        steps: outputs include the zero point, accumulators no bias.
        scale: (o,) real factors.
        limits: of the output.
    """
    reach = np.maximum(np.abs(steps.lowest), np.abs(steps.highest))
    live = np.flatnonzero(~steps.constant)
    scaling = min(31 - int(reach.max()).bit_length(), 14)
    if scaling < 0 or not len(live):
        return None
    # Multipliers are scale * 2^(31 + shift - scaling), below 2^31.
    shift = min(scaling - 1 - int(np.floor(np.log2(scale[live].max()))), 22)
    if shift < 1:
        return None
    # Channels whose output is constant multiply by zero.
    multiplier, addend = np.zeros(len(scale), np.int64), steps.start[:, 0] << shift
    steps = steps.select(live)

    def high(acc: np.ndarray, m: np.ndarray) -> np.ndarray:
        return ((acc << scaling) * m[:, np.newaxis] + (1 << 30)) >> 31

    def room(m: np.ndarray, which: np.ndarray) -> search.Room:
        some = steps.select(which)
        at, before, thresholds = some.first, some.first - 1, some.values << shift
        lower = np.where(some.reached, thresholds - high(at, m), -search.FAR)
        upper = np.where(some.missed, thresholds - 1 - high(before, m), search.FAR)
        return search.room(lower, upper, at, before)

    real = np.round(np.ldexp(scale[live], 31 + shift - scaling)).astype(np.int64)
    solved = search.multipliers(real, arithmetic.INT32_MAX, room)
    if solved is None:
        return None
    multiplier[live], (least, most, _) = solved
    addend[live] = (least + most) // 2
    largest = ((reach[:, 0] << scaling) * multiplier >> 31) + 1 + np.abs(addend)
    if largest.max() > arithmetic.INT32_MAX:
        return None
    columns = multiplier.astype(np.int32), addend.astype(np.int32)
    return HighLine(columns, scaling, shift, limits)


def _is_vector(value: ir.Expr) -> bool:
    return "x" in str(value.ty.dtype)


def exact_requantization(
    operation: Operation, weight: np.ndarray, bias: np.ndarray, scale: np.ndarray
) -> Biased | HighLine | None:
    """Constants with which a layer's requantization equals TFLite's, checked on all steps.

    Gemmlowp's SaturatingRoundingDoublingHighMul is VQRDMULH: both are floor(ab / 2^31 + 1/2), since
    truncating (ab + 1 - 2^30) / 2^31 for ab < 0 is that floor. RoundingDivideByPOT rounds halves
    away from zero, VRSHL up: they differ on negative halves only, where the correction helps, and
    not at all where negative values are clamped. Rounding once, floor(floor(v) / 2^e + 1/2) is
    floor(v / 2^e + 1/2): VQDMULH then VRSHL. None of this is relied on: a requantization is
    monotone with at most 255 steps, and the candidate must make every one where TFLite does.

    Args:
        operation: with ``rounding``, ``zero_point``, ``clamp_min``, ``clamp_max``.
        weight: (o, ...) int8.
        bias: (o,) int32.
        scale: (o,) float64, real factor from accumulator to output.

    Returns:
        The constants for sums of products of the input as it is, or None where there are none.
    """
    attrs = operation.attrs
    folded = folded_bias(operation, weight, bias)
    bound = accumulator_bound(operation, weight, bias)
    if folded is None or not np.all((scale > 0) & (scale < 1)):
        return None
    rounded = requantization(operation, scale)
    zero_point, clamp = attrs["zero_point"], (attrs["clamp_min"], attrs["clamp_max"])
    if bound <= arithmetic.INT32_MAX:
        reach = 128 * np.abs(weight.astype(np.int64)).reshape(len(weight), -1).sum(axis=1) + 1
        middle, reach = folded.astype(np.int64)[:, np.newaxis], reach[:, np.newaxis]
        lowest, highest = np.maximum(middle - reach, -bound), np.minimum(middle + reach, bound)
        steps = find(rounded, limits(operation), lowest, highest).moved(-middle, zero_point)
        line = _high_line(steps, scale, clamp)
        if line is not None:
            return line
    multipliers = [arithmetic.quantize_multiplier(real) for real in scale]
    exact = rounded_shift(rounded, multipliers, zero_point, clamp, bound)
    return None if exact is None else Biased(exact, folded)


def rounded_shift(
    requantization: Requantization,
    multipliers: Sequence[arithmetic.Multiplier],
    zero_point: int,
    limits: tuple[int, int],
    bound: int,
) -> RoundedShift | None:
    """Constants with which a ``RoundedShift`` equals a requantization of c channels.

    Args:
        requantization: see ``steps.find``; without the zero point.
        multipliers: roughly its factors.
        zero_point: of the output.
        limits: smallest and largest output.
        bound: largest magnitude of an accumulator.

    Returns:
        The constants, or None where there are none, and where every output is the same, which
        needs no multiplication at all.
    """
    mantissa, exponent = np.array(multipliers, np.int64).T[..., np.newaxis]
    if bound > arithmetic.INT32_MAX or exponent.max() > 0:
        return None
    low, high = limits
    steps = find(requantization, (low - zero_point, high - zero_point), -bound, bound)
    if steps.constant.all():
        return None
    for rounding in (True, False):
        for negative in (False, True):
            if negative and exponent.max() == 0:
                continue
            multiplier = _exact_mantissa(
                mantissa,
                lambda acc, m, r=rounding, n=negative: _evaluate(acc, m, exponent, r, n),
                steps,
            )
            if multiplier is not None:
                return RoundedShift(
                    multiplier[:, 0].astype(np.int32), exponent[:, 0].astype(np.int32),
                    rounding, negative, zero_point, *limits,
                )  # fmt: skip
    return None


def _evaluate(
    acc: np.ndarray, multiplier: np.ndarray, shift: np.ndarray, rounding: bool, negative: bool
) -> np.ndarray:
    """What the instructions compute, before the zero point."""
    high = (acc * multiplier + (int(rounding) << 30)) >> 31
    high = high - (negative & (acc < 0))
    return (high + ((np.int64(1) << -shift) >> 1)) >> -shift


def _exact_mantissa(
    mantissa: np.ndarray, evaluate: Callable[[np.ndarray, np.ndarray], np.ndarray], steps: Steps
) -> np.ndarray | None:
    """A multiplier near the mantissa that makes every channel reach its steps where it should."""
    exact = np.zeros_like(mantissa, bool)
    multiplier = mantissa.copy()
    for offset in (0, 1, -1, 2, -2):
        candidate = np.clip(mantissa + offset, 0, arithmetic.INT32_MAX)
        good = (evaluate(steps.first, candidate) >= steps.values) | ~steps.reached
        good &= (evaluate(steps.first - 1, candidate) < steps.values) | ~steps.missed
        good = good.all(axis=1, keepdims=True)
        multiplier = np.where(good & ~exact, candidate, multiplier)
        exact |= good
    return multiplier if exact.all() else None


def is_int8(operation: Operation) -> bool:
    """Whether input, weights and output are int8 with symmetric weights, and there is one image."""
    x, weight = operation.args[:2]
    return (
        x.dtype == weight.dtype == operation.out.dtype == "int8"
        and operation.attrs["weight_zero_point"] == 0
    )


def folded_bias(operation: Operation, weight: np.ndarray, bias: np.ndarray) -> np.ndarray | None:
    """Bias less what the input's zero point adds to each accumulator; weight (o, ...).

    Returns:
        (o,) int32, or None if it does not fit.
    """
    sums = weight.astype(np.int64).reshape(len(weight), -1).sum(axis=1)
    folded = bias.astype(np.int64) - operation.attrs["input_zero_point"] * sums
    return folded.astype(np.int32) if np.abs(folded).max() <= arithmetic.INT32_MAX else None
