"""How far below an operand a kernel's result may start when both share memory.

A kernel that reads its operand roughly front to back and writes its result front to back can
write over the part of the operand it has finished with. The distance says how far ahead of the
writes the reads must stay: if the result starts at least that many bytes below the operand's first
byte, no write reaches a byte that is still to be read. Any larger distance is safe as well.
"""

from collections.abc import Sequence

import numpy as np

from mcuforge.tir.registry import Operation

_NEVER = np.iinfo(np.int64).max


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
    bounds = np.append(still_read, _NEVER)[np.maximum(following, 0)]
    needed = np.maximum.accumulate(written)[bounds != _NEVER] - bounds[bounds != _NEVER]
    return max(0, int(needed.max(initial=0)))


def first_pixels(operation: Operation, window: tuple[int, int]) -> np.ndarray:
    """The first input pixel under the window of each output pixel.

    Args:
        operation: a convolution or pooling over (n, h, w, c) with ``strides``, ``padding`` and
            perhaps ``dilation``.
        window: height and width of the window.

    Returns:
        int64 (n, out_h, out_w): index of the pixel in (n, h, w); the largest int64 where the whole
        window lies in the padding.
    """
    n, *size, _ = operation.args[0].shape
    _, *out_size, _ = operation.out.shape
    attrs = operation.attrs
    firsts = []
    for i in range(2):
        dilation = attrs.get("dilation", (1, 1))[i]
        start = np.arange(out_size[i], dtype=np.int64) * attrs["strides"][i] - attrs["padding"][i]
        skipped = np.maximum(-(start // dilation), 0)
        first = start + skipped * dilation
        firsts.append(np.where((skipped < window[i]) & (first < size[i]), first, -1))
    rows, columns = firsts[0][:, np.newaxis], firsts[1]
    images = np.arange(n, dtype=np.int64)[:, np.newaxis, np.newaxis] * size[0] * size[1]
    return np.where((rows >= 0) & (columns >= 0), images + rows * size[1] + columns, _NEVER)


def by_element(operation: Operation, window: tuple[int, int], groups: int, count: int = 1) -> int:
    """Distance for a kernel that computes one output element, or a few, after the other.

    Args:
        operation: a convolution or pooling of 8-bit tensors.
        window: height and width of the window.
        groups: of channels; an output channel reads only the input channels of its group. As many
            as input channels for depthwise convolutions and poolings.
        count: neighbouring output channels computed at a time, of which there is a multiple; all
            that they read is read before the first is written.
    """
    channels, outputs = operation.args[0].shape[3], operation.out.shape[3]
    pixels = first_pixels(operation, window)[..., np.newaxis]
    first_channel = np.arange(0, outputs, count) // (outputs // groups) * (channels // groups)
    first_read = np.where(pixels == _NEVER, _NEVER, pixels * channels + first_channel)
    return distance(first_read.reshape(-1), np.arange(1, first_read.size + 1) * count)


def by_pixels(
    operation: Operation,
    window: tuple[int, int],
    starts: Sequence[int],
    count: int,
    reads_first: bool = True,
) -> int:
    """Distance for a kernel that computes groups of pixels, with all their channels.

    Args:
        operation: a convolution or pooling of 8-bit tensors.
        window: height and width of the window.
        starts: first output pixel of each group, in the order they are computed. Groups may
            overlap: ``group_starts`` gives them where the last one is moved back.
        count: consecutive pixels in a group.
        reads_first: whether the windows of all pixels in a group are read before the first result
            of the group is written.
    """
    channels, outputs = operation.args[0].shape[3], operation.out.shape[3]
    pixels = first_pixels(operation, window).reshape(-1)
    begins = np.asarray(starts, np.int64)
    firsts = pixels[begins[:, np.newaxis] + np.arange(count)].min(axis=1)
    first_read = np.where(firsts == _NEVER, _NEVER, firsts * channels)
    return distance(first_read, (begins + count) * outputs, together=0 if reads_first else 1)


def group_starts(pixels: int, count: int) -> list[int]:
    """First pixels of groups of ``count`` that cover ``pixels``, the last one ending with them."""
    return [min(start, pixels - count) for start in range(0, pixels, count)]
