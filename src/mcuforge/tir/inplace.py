"""How far below an operand a kernel's result may start when both share memory.

A kernel that reads its operand roughly front to back and writes its result front to back can
write over the part of the operand it has finished with. The distance says how far ahead of the
writes the reads must stay: if the result starts at least that many bytes below the operand's first
byte, no write reaches a byte that is still to be read. Any larger distance is safe as well.
"""

from collections.abc import Sequence

import numpy as np

from mcuforge.tir.geometry import NOWHERE, Geometry


def distance(first_read: np.ndarray, written: np.ndarray, together: int = 0) -> int:
    """The smallest safe distance of a kernel that works in steps.

    Args:
        first_read: for each step the lowest byte of the operand it reads; the largest int64 where
            it reads none.
        written: for each step the end of the result's bytes written up to and including it.
        together: how many consecutive steps run interleaved, so that each may still read after any
            of the others has written; 0 if every step reads everything before it writes.

    Returns:
        Bytes, at least 0.
    """
    steps = len(written)
    still_read = np.minimum.accumulate(first_read[::-1])[::-1]
    following = np.arange(1, steps + 1) - together
    bounds = np.append(still_read, NOWHERE)[np.maximum(following, 0)]
    needed = np.maximum.accumulate(written)[bounds != NOWHERE] - bounds[bounds != NOWHERE]
    return max(0, int(needed.max(initial=0)))


def by_element(geometry: Geometry, count: int = 1) -> int:
    """Distance for a kernel that computes one output element, or a few, after the other.

    Args:
        geometry: of a convolution or pooling of 8-bit tensors.
        count: neighbouring output channels computed at a time, of which there is a multiple; all
            that they read is read before the first is written.
    """
    g = geometry
    pixels = g.first_pixels()[..., np.newaxis]
    first_channel = np.arange(0, g.outputs, count) // (g.outputs // g.groups)
    first_channel = first_channel * (g.channels // g.groups)
    first_read = np.where(pixels == NOWHERE, NOWHERE, pixels * g.channels + first_channel)
    return distance(first_read.reshape(-1), np.arange(1, first_read.size + 1) * count)


def by_pixels(
    geometry: Geometry, starts: Sequence[int], count: int, reads_first: bool = True
) -> int:
    """Distance for a kernel that computes groups of pixels, with all their channels.

    Args:
        geometry: of a convolution or pooling of 8-bit tensors.
        starts: first output pixel of each group, in the order they are computed. Groups may
            overlap: ``group_starts`` gives them where the last one is moved back.
        count: consecutive pixels in a group.
        reads_first: whether the windows of all pixels in a group are read before the first result
            of the group is written.
    """
    pixels = geometry.first_pixels().reshape(-1)
    begins = np.asarray(starts, np.int64)
    firsts = pixels[begins[:, np.newaxis] + np.arange(count)].min(axis=1)
    first_read = np.where(firsts == NOWHERE, NOWHERE, firsts * geometry.channels)
    written = (begins + count) * geometry.outputs
    return distance(first_read, written, together=0 if reads_first else 1)


def group_starts(pixels: int, count: int) -> list[int]:
    """First pixels of groups of ``count`` that cover ``pixels``, the last one ending with them."""
    return [min(start, pixels - count) for start in range(0, pixels, count)]
