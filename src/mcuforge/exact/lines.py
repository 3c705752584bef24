"""Requantization as a line: one multiplication, one addition and one shift in 64 bits.

    (acc * multiplier + addend) >> shift

That rounds once. Where TFLite rounds twice and outputs of both signs are in range, halves go away
from zero, which no such line does on both sides; then 2^31 is taken off for negative accumulators:
exactly what the second rounding of gemmlowp does, since shifts are 31 and more bits.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mcuforge.errors import ModelError
from mcuforge.exact import search
from mcuforge.exact.steps import Requantization, RoundedTwice, Steps, find

Halves = Literal["up", "away", "mixed"]
AWAY = -(1 << 31)
"""What is added to negative accumulators where halves are rounded away from zero."""

# Of these the threshold of a step fits 62 bits.
_LARGEST_SHIFT = 60


@dataclass(frozen=True)
class Lines:
    """One line for each of o channels.

    Attributes:
        multiplier: (o,) int32, or int64 where 31 bits are not enough to be exact.
        addend: (o,) int64; the output's zero point is not part of it.
        shift: (o,) int32.
        halves: ``up``: the formula of the module. ``away``: less 2^31 where the accumulator is
            negative. ``mixed``: that in channels with a shift of more than 31 bits.
    """

    multiplier: np.ndarray
    addend: np.ndarray
    shift: np.ndarray
    halves: Halves

    def __call__(self, acc: np.ndarray) -> np.ndarray:
        """Outputs int64 (o, n) of accumulators int64 (o, n), neither clamped nor moved."""
        multiplier, addend, shift = (
            array.astype(np.int64)[:, np.newaxis]
            for array in (self.multiplier, self.addend, self.shift)
        )
        away = acc < 0
        if self.halves != "away":
            away = away & (shift > 31) & (self.halves == "mixed")
        return (acc * multiplier + addend + np.where(away, AWAY, 0)) >> shift

    def single(self) -> tuple[int, int, int, Halves]:
        """The constants of the only channel."""
        (multiplier,), (addend,), (shift,) = self.multiplier, self.addend, self.shift
        return int(multiplier), int(addend), int(shift), self.halves


def lines(requantization: Requantization, limits: tuple[int, int], bound: int) -> Lines:
    """Lines that equal a requantization on every accumulator.

    Args:
        requantization: see ``steps.find``; the scales are positive.
        limits: smallest and largest output, before the zero point is added.
        bound: largest magnitude of an accumulator, below 2^31; nothing overflows int64 on it.

    Raises:
        ModelError: none exist. That cannot happen to two roundings, except where TFLite itself
            overflows, and was never seen of one rounding.
    """
    steps = find(requantization, limits, -bound, bound)
    exact = _search(steps, requantization.scale, bound, 31)
    if exact is None and isinstance(requantization, RoundedTwice):
        exact = _as_rounded(requantization, bound)
    elif exact is None:
        exact = _search(steps, requantization.scale, bound, 62 - bound.bit_length())
    if exact is None:
        raise ModelError(
            "no integer requantization is exact for all the scales "
            f"{requantization.scale.min():g} to {requantization.scale.max():g}"
        )
    return exact


def _search(steps: Steps, scale: np.ndarray, bound: int, bits: int) -> Lines | None:
    """Lines with multipliers of so many bits that round halves up."""
    # Channels without a step: |acc| < 2^39.
    multiplier, shift = np.ones(len(scale), np.int64), np.full(len(scale), 40)
    addend = (2 * steps.start[:, 0] + 1) << 39
    live = np.flatnonzero(~steps.constant)
    steps, scale = steps.select(live), scale[live]
    shift[live] = np.clip(bits - np.frexp(scale)[1], 1, _LARGEST_SHIFT)
    thresholds = steps.values << shift[live, np.newaxis]
    reached, missed = steps.reached, steps.missed

    def room(m: np.ndarray, which: np.ndarray) -> search.Room:
        at, below = steps.first[which], steps.first[which] - 1
        m = m[:, np.newaxis]
        lower = np.where(reached[which], thresholds[which] - at * m, -search.FAR)
        upper = np.where(missed[which], thresholds[which] - below * m - 1, search.FAR)
        return search.room(lower, upper, at, below)

    # A slope just above the real one takes halves away from zero.
    start = np.floor(np.ldexp(scale, shift[live])).astype(np.int64) + 1
    solved = search.multipliers(start, (1 << bits) - 1, room)
    if solved is None:
        return None
    multiplier[live], (least, most, _) = solved
    addend[live] = np.clip(np.int64(1) << (shift[live] - 1), least, most)
    if np.abs(addend).max(initial=0) >= 1 << 62:  # and bound * multiplier < 2^62
        return None
    return Lines(_narrow(multiplier), addend, shift.astype(np.int32), "up")


def _as_rounded(requantization: RoundedTwice, bound: int) -> Lines | None:
    """Two roundings as gemmlowp writes them down, exact for every accumulator.

    With ``high = (acc * mantissa + 2^30) >> 31`` RoundingDivideByPOT by 2^e is
    ``(high + 2^(e - 1) - (high < 0)) >> e``, and two shifts in a row are one. Where acc < 0 but
    high = 0 both give 0.
    """
    mantissa, exponent = requantization.mantissa[:, 0], requantization.shift[:, 0]
    right = np.maximum(-exponent, 0)
    multiplier = mantissa << np.maximum(exponent, 0)
    addend = (1 << 30) + np.where(right > 0, np.int64(1) << (30 + right), 0)
    if int(multiplier.max()) * bound >= 1 << 62:
        return None
    halves: Halves = "away" if (right > 0).all() else "mixed" if (right > 0).any() else "up"
    return Lines(_narrow(multiplier), addend, (31 + right).astype(np.int32), halves)


def _narrow(multiplier: np.ndarray) -> np.ndarray:
    return multiplier.astype(np.int32) if multiplier.max() < 1 << 31 else multiplier
