"""AVERAGE_POOL_2D and MAX_POOL_2D."""

from tvm import relax
from tvm.script import tirx as T

from mcuforge.exact import arithmetic
from mcuforge.tir import inplace
from mcuforge.tir.channels import Channelwise
from mcuforge.tir.geometry import Geometry
from mcuforge.tir.integer_op import Traits, integer_op
from mcuforge.tir.qdq import Region
from mcuforge.tir.registry import Kernel, Operation, kernel, restores
from mcuforge.tir.requantize import clamp


def _infer(shapes, attrs):
    return Geometry.of(shapes, attrs).out_shape, attrs["dtype"]


def _constant(operation: Operation, value: int) -> int:
    """Average and maximum of equals."""
    return min(max(value, operation.attrs["clamp_min"]), operation.attrs["clamp_max"])


pool2d = integer_op("pool2d", _infer, Traits(channels=Channelwise(_constant)))
"""``pool2d(x, **attrs)``: exact AVERAGE_POOL_2D or MAX_POOL_2D of x (n, h, w, c), 8 bits.

Attrs: kind (``average`` or ``max``), pool_size, strides, padding (top, left, bottom, right),
clamp_min, clamp_max, dtype. Padding takes no part: averages divide by the positions inside.
"""


@restores("relax.nn.avg_pool2d", "relax.nn.max_pool2d", on_integers=True)
def _restore(region: Region) -> relax.Call | None:
    attrs = region.call.attrs
    if str(attrs.layout) != "NHWC":
        return None
    # TVM imports quantized pooling on the integers: averages through a cast to int32 and back.
    x = region.lookup(region.call.args[0])
    if isinstance(x, relax.Call) and x.op.name == "relax.astype":
        x = x.args[0]
    else:
        x = region.call.args[0]
    if str(x.ty.dtype) != region.dtype:
        return None
    low, high = arithmetic.quantized_range(region.dtype)
    return pool2d(
        x,
        kind="average" if region.call.op.name == "relax.nn.avg_pool2d" else "max",
        pool_size=[int(s) for s in attrs.pool_size],
        strides=[int(s) for s in attrs.strides],
        padding=[int(p) for p in attrs.padding],
        clamp_min=low,
        clamp_max=high,
        dtype=region.dtype,
    )


@kernel("pool2d", opt_level=1)
def _scalar(operation: Operation) -> Kernel:
    g, attrs = operation.geometry, operation.attrs
    low, high, dtype = attrs["clamp_min"], attrs["clamp_max"], operation.out.dtype
    lowest, _ = arithmetic.quantized_range(dtype)

    @T.prim_func(private=True)
    def average_pool2d(x: T.Buffer(g.shape, dtype), y: T.Buffer(g.out_shape, dtype)):
        for b, oy, ox, c in T.grid(g.batch, g.rows.out, g.columns.out, g.channels):
            total: T.int32 = 0
            count: T.int32 = 0
            for ky, kx in T.grid(g.rows.window, g.columns.window):
                iy: T.let = oy * g.rows.stride + ky - g.rows.before
                ix: T.let = ox * g.columns.stride + kx - g.columns.before
                if iy >= 0 and iy < g.rows.size and ix >= 0 and ix < g.columns.size:
                    total += T.cast(x[b, iy, ix, c], "int32")
                    count += 1
            # Halves away from zero: C's division truncates.
            half: T.let = count // 2
            mean: T.let = T.truncdiv(T.if_then_else(total > 0, total + half, total - half), count)
            y[b, oy, ox, c] = T.cast(clamp(mean, low, high), dtype)

    @T.prim_func(private=True)
    def max_pool2d(x: T.Buffer(g.shape, dtype), y: T.Buffer(g.out_shape, dtype)):
        for b, oy, ox, c in T.grid(g.batch, g.rows.out, g.columns.out, g.channels):
            largest: T.int32 = lowest
            for ky, kx in T.grid(g.rows.window, g.columns.window):
                iy: T.let = oy * g.rows.stride + ky - g.rows.before
                ix: T.let = ox * g.columns.stride + kx - g.columns.before
                if iy >= 0 and iy < g.rows.size and ix >= 0 and ix < g.columns.size:
                    largest = T.max(largest, T.cast(x[b, iy, ix, c], "int32"))
            y[b, oy, ox, c] = T.cast(clamp(largest, low, high), dtype)

    return Kernel(
        average_pool2d if attrs["kind"] == "average" else max_pool2d,
        (0,),
        inplace={0: inplace.by_element(g)},
    )
