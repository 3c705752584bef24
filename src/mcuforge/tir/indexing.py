"""Positions in row-major tensors, for kernels that do not care how many dimensions there are."""

from collections.abc import Sequence

import numpy as np
from tvm import tirx


def strides(shape: Sequence[int]) -> list[int]:
    """Distance between neighbours along each dimension; 0 along dimensions of one element."""
    return [
        0 if size == 1 else int(np.prod(shape[axis + 1 :], dtype=np.int64))
        for axis, size in enumerate(shape)
    ]


def broadcast_strides(shape: Sequence[int], result: Sequence[int]) -> list[int]:
    """Strides of an operand of ``shape`` along the dimensions of the broadcast ``result``."""
    return strides([1] * (len(result) - len(shape)) + list(shape))


def offset(number: tirx.Expr, extents: Sequence[int], steps: Sequence[int]) -> tirx.Expr | int:
    """Where the ``number``-th element of a row-major loop over ``extents`` lies.

    Args:
        number: counts through the loop, the last dimension fastest.
        extents: of the loop.
        steps: stride of the tensor along each dimension of the loop; 0 to broadcast.
    """
    merged: list[tuple[int, int]] = []
    for extent, step in zip(extents, steps, strict=True):
        if extent == 1:
            continue
        if merged and merged[-1][1] == step * extent:
            merged[-1] = (merged[-1][0] * extent, step)
        else:
            merged.append((extent, step))
    position: tirx.Expr | int = 0
    inner = 1
    for outermost, (extent, step) in reversed(list(enumerate(merged))):
        if step:
            coordinate = number if inner == 1 else number // inner
            coordinate = coordinate % extent if outermost else coordinate
            position = position + (coordinate if step == 1 else coordinate * step)
        inner *= extent
    return position
