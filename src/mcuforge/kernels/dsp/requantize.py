"""Requantization in three instructions an output on ARMv7E-M: SMMLA, SSAT, STRB.

The accumulators of the blocks in ``isa.armv7em`` are 2^8 times TFLite's (in others, another
number), with a bias of our own choice in them. An output is ``ssat8((high_word(acc * m) + c) >>
shift)`` with one c and one shift for all channels. TFLite's requantization is a monotone function
with at most 255 steps; this one is exact if each of its steps is at the same accumulator. For a
multiplier m that means one interval
for the bias, so multipliers next to the real factor are tried until an interval is not empty. What
is returned has been checked against every step; nothing is approximate.

Where TFLite rounds twice and outputs of both signs are in range, halves round away from zero, and
no single line has all the steps: below zero they lie 2^31 / mantissa, that is one to two,
accumulators further up. Then a second constant q is added to accumulators that are not negative.
"""

from dataclasses import dataclass

import numpy as np

from mcuforge.exact import arithmetic
from mcuforge.isa.armv7em import SCALE_BITS
from mcuforge.tir.registry import Operation
from mcuforge.tir.requantize import Requantization, accumulator_bound, requantization

_TRIES = 400
_LIMIT = 1 << 31
# With these, constants of a channel fit into fewer words: see ``isa.armv7em.pack_plane``.
_COMPACT_BIAS, _COMPACT_MULTIPLE = 1 << 26, 4


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
    exact = requantization(operation, scale, bound)
    addend = exact.addend + (np.int64(attrs["zero_point"]) << exact.shift.astype(np.int64))
    shifts = exact.shift - 32
    fits = (shifts >= 0).all() and (shifts < 32).all() and exact.multiplier.dtype == np.int32
    # Far from 63 bits, zero point and all.
    small = (np.abs(addend) + bound * exact.multiplier.astype(np.int64) < 1 << 62).all()
    if not (fits and small and exact.negative in (0, -_LIMIT)):
        return None
    clamp = attrs["clamp_min"], attrs["clamp_max"]
    return LongProduct(
        exact.multiplier, addend, shifts, exact.negative != 0,
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
    bias, scale = operation.args[2].value.astype(np.int64), operation.args[3].value
    exact = requantization(operation, scale, accumulator_bound(operation, weight, bias))
    low, high = _accumulator_ranges(attrs["input_zero_point"], weight, bias)
    if ((high - low) * unit >= 2 * _LIMIT).any():
        return None
    # Steps outside [-128, 127] do not exist: a clamp inside comes afterwards.
    zero = attrs["zero_point"]
    clamp = (attrs["clamp_min"], attrs["clamp_max"])
    steps = np.arange(clamp[0] + 1 - zero, clamp[1] + 1 - zero)
    first = _first_accumulators(exact, steps)
    constants = ((first <= low[:, None]) | (first > high[:, None])).all(axis=1)
    live, signed = np.flatnonzero(~constants), exact.negative != 0
    # Of the accumulator where all inputs are 0.
    offsets = bias - attrs["input_zero_point"] * weight.reshape(len(bias), -1).sum(
        axis=1, dtype=int
    )
    largest = max((arithmetic.quantize_multiplier(scale[o]).shift for o in live), default=-6)
    # m = mantissa * 2^(shift + 1 + exponent) / unit has to stay below 2^31.
    most = unit.bit_length() - 2 - largest
    # Multiples of four first: layers with the same shift share their code.
    for shift in sorted(range(max(most - 4, 1), min(most, 22) + 1), key=lambda s: (s % 4 != 0, -s)):
        # Without c an instruction operand is free; with it the accumulators are smaller.
        for constant in (zero << shift,) if signed else (0, zero << shift):
            solved = []
            for o in live:
                base = steps + zero - (constant >> shift)
                channel = _channel(
                    first[o], base, low[o], high[o], scale[o], shift, signed, unit,
                    int(offsets[o]) if compact else None,
                )  # fmt: skip
                if channel is None:
                    break
                solved.append(channel)
            else:
                return _assemble(
                    solved, live, constants, (first <= low[:, None]).sum(axis=1) + clamp[0],
                    shift, constant, signed, clamp, unit, compact,
                )  # fmt: skip
    return None


def _assemble(
    solved: list[tuple[int, int, int]], live: np.ndarray, constants: np.ndarray,
    values: np.ndarray, shift: int, constant: int, signed: bool, clamp: tuple[int, int],
    unit: int, compact: bool,
) -> HighWord | None:  # fmt: skip
    limit = _COMPACT_BIAS if compact else _LIMIT
    if compact and signed and constants.any():
        return None  # their q is 0
    bias, multiplier, positive = (np.zeros(len(constants), np.int64) for _ in range(3))
    for o, channel in zip(live, solved, strict=True):
        bias[o], multiplier[o], positive[o] = channel
    for o in np.flatnonzero(constants):
        # m = 2^30: the high word is a quarter of the accumulator.
        bias[o], multiplier[o] = ((int(values[o]) << shift) - constant) << 2, 1 << 30
        if not -limit <= bias[o] < limit:
            return None
    after = None if clamp == (-128, 127) else clamp
    return HighWord(unit, bias, multiplier, positive, shift, constant, signed, constants, after)


def _accumulator_ranges(
    zero_point: int, weight: np.ndarray, bias: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest accumulator of each channel over all int8 inputs."""
    flat = weight.reshape(len(weight), -1).astype(np.int64)
    up, down = 127 - zero_point, -128 - zero_point
    positive, negative = flat.clip(min=0).sum(axis=1), flat.clip(max=0).sum(axis=1)
    return bias + positive * down + negative * up, bias + positive * up + negative * down


def _first_accumulators(exact: Requantization, steps: np.ndarray) -> np.ndarray:
    """The smallest accumulator whose output (without zero point) reaches each step, (o, steps)."""
    rows = []
    for m, addend, shift in zip(
        exact.multiplier.tolist(), exact.addend.tolist(), exact.shift.tolist(), strict=True
    ):
        row = []
        for step in steps.tolist():
            wanted = (step << shift) - addend
            if m == 0:
                row.append(-(1 << 40) if wanted <= 0 else 1 << 40)
                continue
            below_zero = -((exact.negative - wanted) // m)
            row.append(below_zero if below_zero < 0 else max(-(-wanted // m), 0))
        rows.append(row)
    return np.array(rows, np.int64).reshape(len(rows), len(steps))


def _channel(
    first: np.ndarray, outputs: np.ndarray, low: int, high: int, scale: float, shift: int,
    signed: bool, unit: int, compact: int | None,
) -> tuple[int, int, int] | None:  # fmt: skip
    """Bias, m and q with which ``outputs[k]`` is reached at accumulator ``first[k]``, or None.

    Args:
        compact: None, or what will be added to the bias before it is stored in few bits.
    """
    low, high, bits = int(low) * unit, int(high) * unit, 32 + shift
    steps = [(a * unit, n) for a, n in zip(first.tolist(), outputs.tolist(), strict=True)]
    # Where accumulator plus bias, times m, has reached n << bits, and where not yet.
    reached = [(max(a, low), n) for a, n in steps if a <= high]
    missed = [(min(a - unit, high), n) for a, n in steps if a - unit >= low]
    real = float(np.ldexp(scale, bits)) / unit
    span = max((abs(a) for a, _ in steps if low < a <= high), default=1)
    stride = max(1, int(real / (span * 8 + 1)))
    # Biases that keep the accumulators within 32 bits.
    allowed, q, multiple = (-_LIMIT - low, _LIMIT - 1 - high), (0, (1 << 20) - 1), 1
    if compact is not None:
        least, most = -_COMPACT_BIAS - compact * unit, _COMPACT_BIAS - 1 - compact * unit
        allowed = max(allowed[0], least), min(allowed[1], most)
        q, multiple = (unit, unit + 255), _COMPACT_MULTIPLE
    tried = 0
    for attempt in range(_TRIES):
        m = round(real) + (attempt + 1) // 2 * (stride if attempt & 1 else -stride)
        m -= m % multiple
        if not 0 < m < _LIMIT or m == tried:
            continue
        tried = m
        if signed:
            split = _split(reached, missed, m, bits, allowed, q)
            if split is not None:
                return split[0], m, split[1]
        else:
            bias = _choose(_interval(reached, missed, m, bits), allowed)
            if bias is not None:
                return bias, m, 0
    return None


def _interval(
    reached: list[tuple[int, int]], missed: list[tuple[int, int]], m: int, bits: int
) -> tuple[int, int]:
    least = max((-(-(n << bits) // m) - a for a, n in reached), default=-(1 << 62))
    most = min((-(-(n << bits) // m) - 1 - a for a, n in missed), default=1 << 62)
    return least, most


def _choose(*intervals: tuple[int, int]) -> int | None:
    """A number in the middle of what is in all the intervals."""
    least, most = max(low for low, _ in intervals), min(high for _, high in intervals)
    return (least + most) // 2 if least <= most else None


def _split(
    reached: list[tuple[int, int]], missed: list[tuple[int, int]], m: int, bits: int,
    allowed: tuple[int, int], q: tuple[int, int],
) -> tuple[int, int] | None:  # fmt: skip
    """Bias and q for steps that lie on two lines, one up to the zero point and one above it.

    The accumulator is negative exactly when the output is below the zero point: that is the step
    to 0 of the lower line.
    """
    lower = _interval([r for r in reached if r[1] <= 0], [r for r in missed if r[1] <= 0], m, bits)
    upper = _interval([r for r in reached if r[1] > 0], [r for r in missed if r[1] > 0], m, bits)
    # The bias, such that with some q the bias of the upper line is in its interval.
    below = _choose(lower, allowed, (upper[0] - q[1], upper[1] - q[0]))
    if below is None:
        return None
    above = _choose(upper, allowed, (below + q[0], below + q[1]))
    return None if above is None else (below, above - below)
