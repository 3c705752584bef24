"""Operators that move elements without looking at them: any type, the same at every level.

RESIZE_NEAREST_NEIGHBOR has a kernel here; CONCATENATION, MAXIMUM and MINIMUM become Relax's own
operators on the integers, as the importer already makes PAD, TRANSPOSE, STRIDED_SLICE and the like.
"""

from tvm import relax
from tvm.script import tirx as T

from mcuforge.exact import arithmetic
from mcuforge.operators.lookup import look_up
from mcuforge.operators.qdq import Region
from mcuforge.tir.registry import Kernel, Operation, integer_op, kernel, restores

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


@restores("relax.concat")
def _restore_concatenation(region: Region) -> relax.Call | None:
    parts = []
    for field in region.lookup(region.call.args[0]).fields:
        part = region.operand(field)
        if part is None:
            return None
        expr = part.expr
        if region.dtype == "uint8":
            quantization = (float(part.scale), part.zero_point, region.scale, region.zero_point)
            if quantization[:2] != quantization[2:]:
                table = arithmetic.concatenation_table(*quantization)
                expr = look_up(part, table, "CONCATENATION")
        parts.append(expr)
    return relax.op.concat(parts, region.call.attrs.axis)


@restores("relax.maximum", "relax.minimum")
def _restore_choice(region: Region) -> relax.Call | None:
    """TFLite compares the integers: all three tensors have one quantization."""
    a, b = (region.operand(arg) for arg in region.call.args)
    if a is None or b is None:
        return None
    choose = relax.op.maximum if region.call.op.name == "relax.maximum" else relax.op.minimum
    return choose(a.expr, b.expr)
