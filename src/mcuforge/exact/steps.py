"""Requantizations of TFLite as functions, and where they step.

A requantization maps the accumulator of a layer to its 8-bit output. It never falls, so it is known
once it is known where it *steps*: for each output the first accumulator that reaches it. Example:
TFLite rounds ``acc * 0.25`` twice, and clamped to [-1, 1] that has two steps, to 0 at the
accumulator -1 and to 1 at 1. Any other formula that makes these two steps at the same accumulators
is the same function, whatever its constants are. Modules of kernels therefore ask here for the
steps, and ``exact.search`` for constants of the formula their core is fast at.
"""

from dataclasses import dataclass

import numpy as np

from mcuforge.errors import ModelError
from mcuforge.exact import arithmetic


@dataclass(frozen=True)
class RoundedTwice:
    """Requantization with gemmlowp's two roundings, as all operators but FULLY_CONNECTED do it.

    Calling it maps accumulators int64 (c, n) to outputs int64 (c, n), without the zero point.

    Attributes:
        mantissa: (c, 1) int64, of ``arithmetic.Multiplier``.
        shift: (c, 1) int64, of ``arithmetic.Multiplier``.
    """

    mantissa: np.ndarray
    shift: np.ndarray

    @classmethod
    def by(cls, *multipliers: arithmetic.Multiplier) -> "RoundedTwice":
        """One multiplier for each channel."""
        pairs = np.array(multipliers, np.int64).reshape(-1, 2)
        return cls(pairs[:, :1], pairs[:, 1:])

    @property
    def scale(self) -> np.ndarray:
        """(c,) float64, the real factors."""
        return (self.mantissa * 2.0 ** (self.shift - 31))[:, 0]

    def __call__(self, acc: np.ndarray) -> np.ndarray:
        return arithmetic.multiply_by_quantized_multiplier(acc, self.mantissa, self.shift)


@dataclass(frozen=True)
class RoundedOnce:
    """Requantization with one rounding of a float64 product, as FULLY_CONNECTED does it.

    Attributes:
        scale: (c,) float64, the real factors.
    """

    scale: np.ndarray

    def __call__(self, acc: np.ndarray) -> np.ndarray:
        return arithmetic.fully_connected_round(acc, self.scale[:, np.newaxis])


@dataclass(frozen=True)
class Average:
    """Division of a sum by ``count``, halves away from zero, as AVERAGE_POOL_2D does it.

    internal/reference/integer_ops/pooling.h.
    """

    count: int

    @property
    def scale(self) -> np.ndarray:
        """(1,) float64, the real factor."""
        return np.array([1 / self.count])

    def __call__(self, total: np.ndarray) -> np.ndarray:
        return np.sign(total) * ((np.abs(total) + self.count // 2) // self.count)


Requantization = RoundedTwice | RoundedOnce | Average


@dataclass(frozen=True)
class Steps:
    """Where each of c channels reaches each of s outputs.

    Outputs that are always reached, or never, are replaced by the nearest ones that say as much:
    if the lowest accumulator gives 5, "at least 5 there" says all that "at least 3 there" says.

    Attributes:
        values: (c, s) int64, the outputs.
        first: (c, s) int64, the first accumulator that reaches each; ``lowest`` if all do,
            ``highest + 1`` if none does.
        lowest: (c, 1) int64, the smallest accumulator that occurs.
        highest: (c, 1) int64, the largest accumulator that occurs.
        start: (c, 1) int64, the output at ``lowest``.
    """

    values: np.ndarray
    first: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    start: np.ndarray

    @property
    def reached(self) -> np.ndarray:
        """(c, s) bool: some accumulator reaches the output. ``first`` must do so."""
        return self.first <= self.highest

    @property
    def missed(self) -> np.ndarray:
        """(c, s) bool: some accumulator does not reach the output. ``first - 1`` must not."""
        return self.first > self.lowest

    @property
    def constant(self) -> np.ndarray:
        """(c,) bool: the output is the same for all accumulators."""
        return ~(self.reached & self.missed).any(axis=1)

    def select(self, channels: np.ndarray) -> "Steps":
        """Some of the channels, given as numbers or as a mask."""
        return Steps(*(array[channels] for array in self._arrays()))

    def moved(self, accumulators: np.ndarray, outputs: int) -> "Steps":
        """The same steps, where accumulators (c, 1) and outputs are larger by int64 numbers."""
        values, first, lowest, highest, start = self._arrays()
        return Steps(
            values + outputs, first + accumulators, lowest + accumulators, highest + accumulators,
            start + outputs,
        )  # fmt: skip

    def _arrays(self) -> tuple[np.ndarray, ...]:
        return self.values, self.first, self.lowest, self.highest, self.start


def find(
    requantization: Requantization,
    limits: tuple[int, int],
    lowest: np.ndarray | int,
    highest: np.ndarray | int,
) -> Steps:
    """The steps of a requantization, by bisection.

    Args:
        requantization: of c channels.
        limits: the outputs are clamped to these, before the zero point is added.
        lowest: the smallest accumulator, int64 (c, 1) or one number for all channels.
        highest: the largest accumulator, likewise.

    Raises:
        ModelError: TFLite's own arithmetic overflows, and its results do not grow with the
            accumulator: scales that are so far apart do not belong to a model.
    """
    largest = np.maximum(np.abs(lowest), np.abs(highest))
    # With a zero point of up to 255.
    overflows = largest * requantization.scale[:, np.newaxis] > arithmetic.INT32_MAX - 255
    if isinstance(requantization, RoundedTwice):
        overflows |= largest > arithmetic.INT32_MAX >> np.maximum(requantization.shift, 0)
    if np.any(overflows):
        raise ModelError(f"results overflow at the scales {requantization.scale.tolist()}")
    low, high = limits
    steps = np.arange(low + 1, high + 1, dtype=np.int64)
    channels = len(requantization.scale)
    lowest, highest = (np.broadcast_to(np.int64(end), (channels, 1)) for end in (lowest, highest))
    below = np.broadcast_to(lowest - 1, (channels, len(steps)))
    first = np.broadcast_to(highest + 1, (channels, len(steps)))
    while np.any(first - below > 1):
        middle = (below + first) >> 1
        over = requantization(middle) >= steps
        first, below = np.where(over, middle, first), np.where(over, below, middle)
    # Where the search ended early it has also tried the accumulator before the lowest.
    first = np.maximum(first, lowest)
    start = low + (first <= lowest).sum(axis=1, keepdims=True)
    end = low + (first <= highest).sum(axis=1, keepdims=True)
    return Steps(np.clip(steps, start, end + 1), first, lowest, highest, start)
