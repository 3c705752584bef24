"""Where RESIZE_BILINEAR looks: two pixels along each dimension, and their weights."""

import numpy as np

from mcuforge.errors import ModelError


def positions(
    extent: int, output_extent: int, align_corners: bool, half_pixel_centers: bool, dtype: str
) -> tuple[np.ndarray, np.ndarray]:
    """Between which inputs each output of RESIZE_BILINEAR lies along one dimension.

    ResizeBilinear and ResizeBilinearInteger, internal/reference/resize_bilinear.h: positions are
    float32, or have 10 fractional bits. Example: from 2 to 4 pixels the integer positions are 0,
    512, 1024 and 1536; the second output lies between inputs 0 and 1, with the weight 512.

    Args:
        extent: of the input.
        output_extent: of the result.
        align_corners: of the operator.
        half_pixel_centers: of the operator.
        dtype: of the pixels, "float32" or "int8".

    Returns:
        int32 (output_extent, 2): the indices below and above. And (output_extent,), the weight of
        the latter: float32, or int32 in 1/1024. The weight of the former is 1 less that.

    Raises:
        ModelError: the rounded positions leave the input.
    """
    steps, extents = output_extent, extent
    if align_corners and output_extent > 1:
        steps, extents = output_extent - 1, extent - 1
    positions: np.ndarray
    one = 1 if dtype == "float32" else 1024
    if dtype == "float32":
        half = np.float32(0.5)
        positions = np.arange(output_extent, dtype=np.float32)
        real = np.float32(extents) / np.float32(steps)
        positions = (positions + half) * real - half if half_pixel_centers else positions * real
    else:
        scale = (1024 * extents + steps // 2) // steps
        positions = np.arange(output_extent, dtype=np.int64) * scale
        positions += scale // 2 - 512 if half_pixel_centers else 0
    lower, upper = positions // one, -(-positions // one)
    lower, upper = np.maximum(lower, 0), np.clip(upper, 0, extent - 1)
    if lower.max() >= extent:
        raise ModelError(f"the positions of {output_extent} outputs leave {extent} inputs")
    weight = positions - one * lower
    indices = np.stack([lower, upper], axis=1).astype(np.int32)
    return indices, weight.astype("float32" if dtype == "float32" else "int32")
