"""The search for constants that make a core's formula equal to TFLite's, step by step.

Every fast formula for a requantization has a multiplier m and something that is added, the offset.
For one m each step (see ``exact.steps``) is a bound for the offset: its first accumulator must
reach the output, which is a bound from below, and the accumulator before it must not, which is one
from above. What lies between the largest lower and the smallest upper bound is the *room*. The
constants are exact if and only if there is room.

If there is none, the two bounds that cross say where to look: they belong to two steps, and turning
the line around moves those apart on one side only. So m is found by bisection. For a formula that
rounds once, no m is missed: its room is a concave function of m. The room of formulas that round an
intermediate product differs from such a function by that rounding, so that bisection may end beside
an m with room; then its neighbours are tried. What is found is exact for all of them, since the
bounds are those of the formula itself.

These formulas are searched for, each where its instructions are:

- a *line*, ``(acc * m + addend) >> shift`` in 64 bits: ``exact.lines``;
- a *high line*, ``(high(acc * m) + addend) >> shift``: ``kernels.helium.common``;
- a *high word*, ``(((acc + bias) * m >> 32) + c) >> shift``: ``kernels.requantize``;
- an *affine* sum of two operands, ``(a x + b y + c) >> shift``, below.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

FAR = 1 << 62
"""A bound this far off bounds nothing."""

# Of the convolutions of nine MLPerf Tiny models one needs them: it has room 14 multipliers away.
_NEIGHBOURS = 200


class Room(NamedTuple):
    """What is left for the offset of each channel, for one multiplier each.

    Attributes:
        least: (c,) int64, the largest bound from below.
        most: (c,) int64, the smallest bound from above.
        direction: (c,) int64: positive if a larger multiplier moves these two apart, negative if a
            smaller one does, 0 if neither.
    """

    least: np.ndarray
    most: np.ndarray
    direction: np.ndarray


def room(
    lower: np.ndarray, upper: np.ndarray, fall_lower: np.ndarray, fall_upper: np.ndarray
) -> Room:
    """The room between bounds.

    Args:
        lower: (c, s) int64, bounds from below.
        upper: (c, t) int64, bounds from above.
        fall_lower: (c, s) int64; bounds fall in this order as the multiplier grows. For
            ``acc * m + addend`` that is acc: the larger it is, the faster the bound falls.
        fall_upper: (c, t) int64, likewise.
    """
    channels = np.arange(len(lower))
    i, j = lower.argmax(axis=1), upper.argmin(axis=1)
    direction = fall_lower[channels, i] - fall_upper[channels, j]
    return Room(lower[channels, i], upper[channels, j], direction)


def multipliers(
    start: np.ndarray,
    largest: int,
    room_of: Callable[[np.ndarray, np.ndarray], Room],
) -> tuple[np.ndarray, Room] | None:
    """A multiplier that leaves room, for every channel.

    Args:
        start: (c,) int64, tried first.
        largest: multipliers are from 1 to this.
        room_of: the room of multipliers (n,), given with the numbers (n,) of their channels.

    Returns:
        The multipliers (c,) int64 and their room; None if some channel has none.
    """
    low, high = np.ones(len(start), np.int64), np.full(len(start), largest, np.int64)
    m = np.clip(start, low, high)
    found = Room(*np.zeros((3, len(start)), np.int64))
    pending = np.arange(len(start))
    while len(pending):
        rooms = room_of(m[pending], pending)
        for result, values in zip(found, rooms, strict=True):
            result[pending] = values
        pending = pending[rooms.least > rooms.most]
        direction = found.direction[pending]
        low[pending] = np.where(direction > 0, m[pending] + 1, low[pending])
        high[pending] = np.where(direction < 0, m[pending] - 1, high[pending])
        ended = (direction == 0) | (low[pending] > high[pending])
        for channel in pending[ended]:
            near = m[channel] + np.arange(-_NEIGHBOURS, _NEIGHBOURS + 1)
            near = near[(near > 0) & (near <= largest)]
            rooms = room_of(near, np.full(len(near), channel))
            best = (rooms.most - rooms.least).argmax()
            if rooms.least[best] > rooms.most[best]:
                return None
            m[channel] = near[best]
        going = pending[~ended]
        m[going] = (low[going] + high[going]) >> 1
    return m, found


class Affine(NamedTuple):
    """Constants of a function of two int8: clamp((a x + b y + c) >> shift) to int8."""

    a: int
    b: int
    c: int
    shift: int


_LARGEST_SHIFT = 24
# Of 300 random pairs of scales 295 took one turn, all of them five at most.
_TURNS = 100


def affine(expected: np.ndarray, slopes: tuple[float, float]) -> Affine | None:
    """An affine sum that equals a function of two int8, proven on all their pairs.

    The sum does not exceed 32 bits, in whatever order its three terms are added. Of the shifts that
    allow this the largest is taken: doubling all constants shows that it is as good as any other.

    Args:
        expected: (256, 256) integers in [-128, 127]: the function of x and y, from -128 on.
        slopes: roughly what the function gains as x and as y grow by one.

    Returns:
        The constants, or None if none were found: for some slopes there are none.
    """
    expected = np.asarray(expected, np.int64)
    for shift in range(_LARGEST_SHIFT, 0, -1):
        scaled = np.ldexp(slopes, shift)
        if np.abs(scaled).sum() * 128 >= 1 << 31:
            continue
        solved = _affine(expected, scaled, shift)
        if solved is None or 128 * (abs(solved.a) + abs(solved.b)) + abs(solved.c) < 1 << 31:
            return solved
    return None


def _affine(expected: np.ndarray, slopes: np.ndarray, shift: int) -> Affine | None:
    """Constants for one shift; ``slopes`` are scaled by it.

    For one pair (a, b) there is room for c as in the module. If there is none, (a, b) goes to the
    nearest pair where the two bounds that cross no longer do (Motzkin and Schoenberg's relaxation).
    """
    values = np.arange(-128, 128, dtype=np.int64)
    lower = np.where(expected > -128, expected << shift, -FAR)
    upper = np.where(expected < 127, ((expected + 1) << shift) - 1, FAR)
    for _ in range(_TURNS):
        a, b = np.rint(slopes).astype(np.int64)
        products = a * values[:, np.newaxis] + b * values
        least, most = lower - products, upper - products
        i, j = (np.array(np.unravel_index(k, least.shape)) for k in (least.argmax(), most.argmin()))
        missing = int(least[*i]) - int(most[*j])
        if missing <= 0:
            return Affine(int(a), int(b), (int(least[*i]) + int(most[*j])) // 2, shift)
        if np.array_equal(i, j):
            return None
        slopes = slopes + (i - j) * (missing + 1) / ((i - j) ** 2).sum()
    return None
