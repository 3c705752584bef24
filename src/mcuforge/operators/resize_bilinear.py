"""RESIZE_BILINEAR of float32 and int8 images: weighted sums of four pixels."""

from tvm.script import tirx as T

from mcuforge.exact import bilinear
from mcuforge.tir.channels import Channelwise
from mcuforge.tir.integer_op import Traits, integer_op
from mcuforge.tir.registry import Kernel, Operation, kernel

resize_bilinear = integer_op(
    "resize_bilinear",
    lambda shapes, attrs: ([shapes[0][0], *attrs["size"], shapes[0][3]], attrs["dtype"]),
    Traits(channels=Channelwise()),
)
"""``resize_bilinear(x, size, align_corners, half_pixel_centers, dtype)`` of x (n, h, w, c)."""


# An operator of the model itself at every level: integers are interpolated whatever their scale.
@kernel("resize_bilinear", opt_level=0)
def _scalar(operation: Operation) -> Kernel:
    attrs, (n, height, width, channels) = operation.attrs, operation.args[0].shape
    dtype, (out_h, out_w) = operation.out.dtype, attrs["size"]
    rule = attrs["align_corners"], attrs["half_pixel_centers"], dtype
    rows, downs = bilinear.positions(height, out_h, *rule)
    columns, alongs = bilinear.positions(width, out_w, *rule)
    real = dtype == "float32"
    wide = "float32" if real else "int32"
    one = T.float32(1) if real else T.int32(1024)

    def rounded(total):
        """Twenty fractional bits of an integer, halves away from zero."""
        if real:
            return total
        return T.cast((total + (1 << 19) - T.cast(total < 0, "int32")) >> 20, dtype)

    @T.prim_func(private=True)
    def resize_bilinear(
        x: T.Buffer((n, height, width, channels), dtype),
        rows: T.Buffer((out_h, 2), "int32"),
        downs: T.Buffer((out_h,), wide),
        columns: T.Buffer((out_w, 2), "int32"),
        alongs: T.Buffer((out_w,), wide),
        y: T.Buffer((n, out_h, out_w, channels), dtype),
    ):
        for b, oy, ox in T.grid(n, out_h, out_w):
            above: T.let = rows[oy, 0]
            below: T.let = rows[oy, 1]
            left: T.let = columns[ox, 0]
            right: T.let = columns[ox, 1]
            # Four weights of at most 1.5 * 1.5, so that a sum of int8 is below 2^30.
            upper_left: T.let = (one - downs[oy]) * (one - alongs[ox])
            lower_left: T.let = downs[oy] * (one - alongs[ox])
            upper_right: T.let = (one - downs[oy]) * alongs[ox]
            lower_right: T.let = downs[oy] * alongs[ox]
            for c in range(channels):
                total: T.let = (
                    T.cast(x[b, above, left, c], wide) * upper_left
                    + T.cast(x[b, below, left, c], wide) * lower_left
                    + T.cast(x[b, above, right, c], wide) * upper_right
                    + T.cast(x[b, below, right, c], wide) * lower_right
                )
                y[b, oy, ox, c] = rounded(total)

    return Kernel(resize_bilinear, (0, rows, downs, columns, alongs))
