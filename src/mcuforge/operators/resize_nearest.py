"""RESIZE_NEAREST_NEIGHBOR, which moves elements without looking at them: any type."""

from tvm.script import tirx as T

from mcuforge.exact import arithmetic
from mcuforge.tir.integer_op import integer_op
from mcuforge.tir.registry import Kernel, Operation, kernel

resize_nearest = integer_op(
    "resize_nearest",
    lambda shapes, attrs: ([shapes[0][0], *attrs["size"], shapes[0][3]], attrs["dtype"]),
)
"""``resize_nearest(x, size, align_corners, half_pixel_centers, dtype)`` of x (n, h, w, c)."""


# An operator of the model itself at every level: it only copies.
@kernel("resize_nearest", opt_level=0)
def _resize_nearest(operation: Operation) -> Kernel:
    attrs, (n, height, width, channels) = operation.attrs, operation.args[0].shape
    dtype, (out_h, out_w) = operation.out.dtype, attrs["size"]
    rule = attrs["align_corners"], attrs["half_pixel_centers"]
    rows = arithmetic.nearest_indices(height, out_h, *rule)
    columns = arithmetic.nearest_indices(width, out_w, *rule)

    @T.prim_func(private=True)
    def resize_nearest(
        x: T.Buffer((n, height, width, channels), dtype),
        rows: T.Buffer((out_h,), "int32"),
        columns: T.Buffer((out_w,), "int32"),
        y: T.Buffer((n, out_h, out_w, channels), dtype),
    ):
        for b, oy, ox, c in T.grid(n, out_h, out_w, channels):
            y[b, oy, ox, c] = x[b, rows[oy], columns[ox], c]

    return Kernel(resize_nearest, (0, rows, columns))
