"""Requantization in three instructions an output on ARMv7E-M: SMMLA, SSAT, STRB.

The accumulators of the blocks in ``isa.dsp`` are ``unit`` times TFLite's, most often 2^8 times, and
we may put any bias into them. An output is

    ssat8((((unit * acc + bias) * m >> 32) + c) >> shift)

with an m and a bias for each channel, and one c and one shift for all. Such a *high word* is exact
if each of its steps is at the accumulator where TFLite has it (see ``exact.steps``). For a
multiplier m each step bounds the bias, and ``exact.search`` finds an m that leaves room for one.

Where TFLite rounds twice and outputs of both signs are in range, halves round away from zero, and
no single high word has all the steps: below zero they lie 2^31 / mantissa, that is one to two,
accumulators further up. Then a second constant q is added to accumulators that are not negative.
"""

from dataclasses import dataclass

import numpy as np

from mcuforge.exact import arithmetic, search
from mcuforge.exact.steps import Steps, find
from mcuforge.isa.dsp.block import SCALE_BITS
from mcuforge.tir.registry import Operation
from mcuforge.tir.requantize import accumulator_bound, exact_lines, limits, requantization

# A definition: int32 ends below it.
_LIMIT = 1 << 31
# With these, constants of a channel fit into fewer words: see ``isa.dsp.depthwise.pack_plane``.
_COMPACT_BIAS, _COMPACT_MULTIPLE = 1 << 26, 4
# Values of q: below 2^20 biases stay far from overflow.
_LARGEST_Q = (1 << 20) - 1
# Outputs of the high word have 9 bits: shifted by 32 and this, they fit 63 bits in the search.
_LARGEST_SHIFT = 22


def is_int8(operation: Operation) -> bool:
    """Whether input, weights and result are int8, and the weights known and symmetric."""
    x, weight = operation.args[:2]
    return (
        x.dtype == weight.dtype == operation.out.dtype == "int8"
        and weight.value is not None
        and operation.attrs["weight_zero_point"] == 0
    )


@dataclass(frozen=True)
class HighWord:
    """Constants of the formula above.

    Attributes:
        unit: how many times TFLite's the accumulators are.
        bias: (o,) int64, to be added to ``unit`` times the accumulator.
        multiplier: (o,) int64 in (0, 2^31).
        positive: (o,) int64, q; all zero unless ``signed``.
        shift: 1 to 31, of all channels.
        constant: c.
        signed: q is needed.
        constants: (o,) bool, channels whose output does not depend on the input: exact only if
            their weights are taken as zero.
        clamp: the outputs have to be clamped to (low, high) afterwards, or None.
    """

    unit: int
    bias: np.ndarray
    multiplier: np.ndarray
    positive: np.ndarray
    shift: int
    constant: int
    signed: bool
    constants: np.ndarray
    clamp: tuple[int, int] | None

    def per_channel(self) -> np.ndarray:
        """What the blocks take behind the weights: (o, 1) m, or (o, 2) m and q; int32."""
        columns = [self.multiplier, self.positive] if self.signed else [self.multiplier]
        return np.stack(columns, axis=1).astype(np.int32)


@dataclass(frozen=True)
class LongProduct:
    """Requantization by one long multiplication, exact whatever the accumulators.

    Attributes as in HighWord, of which this can take the place; the accumulators are TFLite's.
    """

    multiplier: np.ndarray
    addend: np.ndarray
    shifts: np.ndarray
    signed: bool
    clamp: tuple[int, int] | None
    unit: int = 1
    shift: int = 0
    constant: int = 0

    @property
    def bias(self) -> np.ndarray:
        """Nothing: all is in the addend."""
        return np.zeros(len(self.addend), np.int64)

    @property
    def constants(self) -> np.ndarray:
        """None: it does not matter."""
        return np.zeros(len(self.addend), bool)

    def per_channel(self) -> np.ndarray:
        """(o, 4) int32: m, the lower and the upper word of the addend, shift of the upper word."""
        addend = self.addend.astype("<i8").view("<i4").reshape(-1, 2)
        columns = [self.multiplier[:, None], addend, self.shifts[:, None]]
        return np.concatenate(columns, axis=1).astype(np.int32)


def long_product(operation: Operation, weight: np.ndarray) -> LongProduct | None:
    """The constants of ``requantization`` as the blocks take them; None where they cannot."""
    attrs = operation.attrs
    bias, scale = operation.args[2].value.astype(np.int64), operation.args[3].value
    bound = accumulator_bound(operation, weight, bias)
    largest = np.abs(weight.reshape(len(weight), -1).astype(np.int64)).sum(axis=1).max()
    if bound + 255 * largest >= _LIMIT:
        return None
    exact = exact_lines(operation, scale, bound)
    addend = exact.addend + (np.int64(attrs["zero_point"]) << exact.shift.astype(np.int64))
    shifts = exact.shift - 32
    fits = (shifts >= 0).all() and (shifts < 32).all() and exact.multiplier.dtype == np.int32
    # Far from 63 bits, zero point and all.
    small = (np.abs(addend) + bound * exact.multiplier.astype(np.int64) < 1 << 62).all()
    if not (fits and small):
        return None
    clamp = attrs["clamp_min"], attrs["clamp_max"]
    return LongProduct(
        exact.multiplier, addend, shifts, exact.halves == "away",
        None if clamp == (-128, 127) else clamp,
    )  # fmt: skip


def high_word(
    operation: Operation,
    weight: np.ndarray,
    unit: int = 1 << SCALE_BITS,
    compact: bool = False,
) -> HighWord | None:
    """Solve for the constants of a convolution or fully connected operator.

    Args:
        operation: operands x, weight, bias, scale; int8 throughout.
        weight: its weights (o, ...), whatever the order behind o.
        unit: accumulators are so many times TFLite's.
        compact: biases of 27 bits and multipliers that are multiples of 4; if signed, q less
            ``unit`` in [0, 255].

    Returns:
        None where the accumulators need more than 32 bits or no exact constants were found.
    """
    attrs = operation.attrs
    zero, clamp = attrs["zero_point"], (attrs["clamp_min"], attrs["clamp_max"])
    bias, scale = operation.args[2].value.astype(np.int64), operation.args[3].value
    low, high = _accumulator_ranges(attrs["input_zero_point"], weight, bias)
    if ((high - low) * unit >= 2 * _LIMIT).any():
        return None
    halves = exact_lines(operation, scale, accumulator_bound(operation, weight, bias)).halves
    signed, rounded = halves != "up", requantization(operation, scale)
    steps = find(rounded, limits(operation), low, high)
    live = np.flatnonzero(~steps.constant)
    if compact and signed and len(live) < len(scale):
        return None  # q of the others is 0
    sign = find(rounded, (-1, 0), low, high).select(live) if signed else None
    offsets = bias - attrs["input_zero_point"] * _sums(weight)
    stored = offsets[live, np.newaxis] if compact else None
    largest = max((arithmetic.quantize_multiplier(scale[o]).shift for o in live), default=-6)
    # m = mantissa * 2^(shift + 1 + exponent) / unit has to stay below 2^31.
    most = unit.bit_length() - 2 - largest
    # Multiples of four first: layers with the same shift share their code.
    for shift in sorted(
        range(max(most - 4, 1), min(most, _LARGEST_SHIFT) + 1), key=lambda s: (s % 4 != 0, -s)
    ):
        # Without c an instruction operand is free; with it the accumulators are smaller.
        for c in (zero,) if signed else (0, zero):
            solved = _solve(steps.select(live), sign, scale[live], zero - c, shift, unit, stored)
            if solved is not None:
                return _assemble(solved, steps, live, zero, c, shift, signed, clamp, unit, compact)
    return None


def _assemble(
    solved: np.ndarray, steps: Steps, live: np.ndarray, zero: int, c: int, shift: int, signed: bool,
    clamp: tuple[int, int], unit: int, compact: bool,
) -> HighWord | None:  # fmt: skip
    # Channels that are constant have m = 2^30: the high word is a quarter of the accumulator.
    bias = ((steps.start[:, 0] + zero - c) << shift) << 2
    multiplier, positive = np.full(len(bias), 1 << 30, np.int64), np.zeros(len(bias), np.int64)
    limit = _COMPACT_BIAS if compact else _LIMIT
    if np.any(steps.constant & ((bias < -limit) | (bias >= limit))):
        return None
    bias[live], multiplier[live], positive[live] = solved
    after = None if clamp == (-128, 127) else clamp
    return HighWord(
        unit, bias, multiplier, positive, shift, c << shift, signed, steps.constant, after
    )


def _sums(weight: np.ndarray) -> np.ndarray:
    return weight.reshape(len(weight), -1).sum(axis=1, dtype=np.int64)


def _accumulator_ranges(
    zero_point: int, weight: np.ndarray, bias: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest accumulator (o, 1) of each channel over all int8 inputs."""
    up, down = 127 - zero_point, -128 - zero_point
    positive, negative = _sums(weight.clip(min=0)), _sums(weight.clip(max=0))
    low, high = positive * down + negative * up, positive * up + negative * down
    return (bias + low)[:, np.newaxis], (bias + high)[:, np.newaxis]


@dataclass(frozen=True)
class _Bounds:
    """Bounds for the bias: ``unit`` times an accumulator, plus the bias, reaches an output or not.

    With total the sum of the two, ``total * m >> bits`` is at least n if and only if total is at
    least ``ceil(n * 2^bits / m)``. Bounds that do not depend on m have n = 0.

    Attributes:
        n: (o, s) int64, outputs of the high word, without c.
        x: (o, s) int64, ``unit`` times the accumulators.
    """

    n: np.ndarray
    x: np.ndarray

    @classmethod
    def where(cls, mask: np.ndarray, n: np.ndarray, x: np.ndarray, far: int) -> "_Bounds":
        """Some of them; the others bound nothing."""
        return cls(np.where(mask, n, 0), np.where(mask, x, far))

    def __add__(self, other: "_Bounds") -> "_Bounds":
        return _Bounds(np.hstack([self.n, other.n]), np.hstack([self.x, other.x]))

    def moved(self, by: int) -> "_Bounds":
        return _Bounds(self.n, self.x + by)

    def least(self, m: np.ndarray, which: np.ndarray, bits: int) -> np.ndarray:
        """The smallest bias (w, s) with which the outputs are reached, for some of the channels."""
        return -(-(self.n[which] << bits) // m[:, np.newaxis]) - self.x[which]


def _solve(
    steps: Steps, sign: Steps | None, scale: np.ndarray, base: int, shift: int, unit: int,
    stored: np.ndarray | None,
) -> np.ndarray | None:  # fmt: skip
    """Bias, m and q, (3, o) int64, with which the high words have all steps; None if none have.

    Args:
        steps: of channels that are not constant.
        sign: their step to 0, without zero point, if rounding depends on the sign; or else None.
        scale: (o,) their real factors.
        base: what the high word is, without c, where the output without zero point is 0.
        shift, unit: as in HighWord.
        stored: (o, 1), what is added to the bias before it is stored in few bits, or None.
    """
    signed, bits, multiple, q = sign is not None, 32 + shift, 1, (0, _LARGEST_Q)
    least, most = -_LIMIT - unit * steps.lowest, _LIMIT - 1 - unit * steps.highest
    if stored is not None:
        least = np.maximum(least, -_COMPACT_BIAS - unit * stored)
        most = np.minimum(most, _COMPACT_BIAS - 1 - unit * stored)
        multiple, q = _COMPACT_MULTIPLE, (unit, unit + 255)
    n, at, before = steps.values + base, unit * steps.first, unit * (steps.first - 1)
    # Sums that are negative are on one line, the others, to which q is added, on another.
    below = n <= 0 if signed else np.full(n.shape, True)
    none, far = np.zeros_like(steps.lowest), search.FAR >> 1
    lower = _Bounds.where(steps.reached & below, n, at, far) + _Bounds(none, -least)
    upper = _Bounds.where(steps.missed & below, n, before, -far) + _Bounds(none, -most - 1)
    if signed:
        above_lower = _Bounds.where(steps.reached & ~below, n, at, far)
        above_upper = _Bounds.where(steps.missed & ~below, n, before, -far)
        above_upper += _Bounds(none, -most - 1)
        # A sum is negative exactly where the output is: the step to 0 is on the line below.
        lower += _Bounds.where(sign.reached, none, unit * sign.first, far)
        upper += _Bounds.where(sign.missed, none, unit * (sign.first - 1), -far)
        lower, upper = lower + above_lower.moved(q[1]), upper + above_upper.moved(q[0])

    def between(lower: _Bounds, upper: _Bounds, m: np.ndarray, which: np.ndarray) -> search.Room:
        least, most = lower.least(m, which, bits), upper.least(m, which, bits) - 1
        return search.room(least, most, lower.n[which], upper.n[which])

    def room(factor: np.ndarray, which: np.ndarray) -> search.Room:
        bias = between(lower, upper, factor * multiple, which)
        if not signed:
            return bias
        above = between(above_lower, above_upper, factor * multiple, which)
        return search.Room(*np.where(above.least > above.most, above, bias))

    real = np.rint(np.ldexp(scale, bits) / unit).astype(np.int64)
    solved = search.multipliers(real // multiple, (_LIMIT - 1) // multiple, room)
    if solved is None:
        return None
    m, bias = solved[0] * multiple, (solved[1].least + solved[1].most) // 2
    if not signed:
        return np.stack([bias, m, np.zeros_like(m)])
    above = between(above_lower, above_upper, m, np.arange(len(m)))
    least, most = np.maximum(above.least, bias + q[0]), np.minimum(above.most, bias + q[1])
    return np.stack([bias, m, (least + most) // 2 - bias])
