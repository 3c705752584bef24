"""RESIZE_NEAREST_NEIGHBOR: pixels that are copied."""

import math

from tvm import relax

from mcuforge.exact import arithmetic
from mcuforge.operators.move import Dim, Piece, moved


def resize_nearest(
    x: relax.Expr,
    shape: tuple[int, ...],
    size: tuple[int, int],
    align_corners: bool,
    half_pixel_centers: bool,
    dtype: str,
) -> relax.Call:
    """RESIZE_NEAREST_NEIGHBOR of x (n, h, w, c), of ``shape``, to (n, *size, c)."""
    n, height, width, channels = shape
    rows, columns = (
        arithmetic.nearest_indices(extent, wanted, align_corners, half_pixel_centers)
        for extent, wanted in zip((height, width), size, strict=True)
    )
    out_height, out_width = size
    box = (
        Dim(n, math.prod(shape[1:]), out_height * out_width * channels),
        Dim(out_height, tuple((rows * (width * channels)).tolist()), out_width * channels),
        Dim(out_width, tuple((columns * channels).tolist()), channels),
        Dim(channels, 1, 1),
    )
    return moved([x], [Piece(0, 0, 0, box)], (n, *size, channels), dtype)
