"""Pooling with Helium: averages of four channels at a time, maxima of sixteen."""

from tvm import ir
from tvm.tirx.script import builder as T

from mcuforge.exact import arithmetic
from mcuforge.exact.steps import Average
from mcuforge.isa import helium as mve
from mcuforge.kernels.helium.common import LANES, rounded_shift
from mcuforge.tir import inplace
from mcuforge.tir.function import Function, address, lesser
from mcuforge.tir.registry import Kernel, Operation, kernel

_LANES = 4
# Widest window whose rows are summed without loops.
_UNROLLED = 12
# Compilers do as well on smaller windows.
_LEAST_COUNT = 32


@kernel("pool2d", opt_level=3, needs={"helium"})
def _pool2d(operation: Operation) -> Kernel | None:
    return _average(operation) if operation.attrs["kind"] == "average" else _max(operation)


def _average(operation: Operation) -> Kernel | None:
    attrs = operation.attrs
    batch, height, width, channels = operation.args[0].shape
    _, out_h, out_w, _ = operation.out.shape
    (pool_h, pool_w), (sy, sx) = attrs["pool_size"], attrs["strides"]
    count = pool_h * pool_w
    if (
        operation.args[0].dtype != "int8"
        or any(attrs["padding"])
        or batch != 1
        or channels % _LANES
        or count < _LEAST_COUNT
    ):
        return None

    factor = arithmetic.quantize_multiplier(1 / count)
    limits = (attrs["clamp_min"], attrs["clamp_max"])
    exact = rounded_shift(Average(count), [factor], 0, limits, 128 * count)
    if exact is None:
        return None

    f = Function("average_pool2d")
    x = f.param("x", height * width * channels)
    y = f.param("y", out_h * out_w * channels)
    scalars = [T.int32(int(v[0])) for v in (exact.multiplier, exact.shift)]
    with (
        f.loop("oy", out_h) as oy,
        f.loop("ox", out_w) as ox,
        f.loop("part", channels // _LANES) as part,
    ):
        first = f.let("first", part * _LANES)
        base = f.let("base", (oy * (sy * width) + ox * sx) * channels + first)
        total = f.variable("total", mve.vldrb_s32(address(x, base)))
        # The first pixel starts the sum; its row has one less to add.
        for rows, columns, at in (
            (1, pool_w - 1, channels),
            (pool_h - 1, pool_w, width * channels),
        ):
            if not rows * columns:
                continue
            with f.loop("ky", rows) as ky:
                row = f.let("row", base + at + ky * (width * channels))
                pixels = range(columns) if columns <= _UNROLLED else [None]
                for pixel in pixels:
                    with f.loop("kx", 1 if pixel is not None else columns) as kx:
                        here = row + (kx if pixel is None else pixel) * channels
                        total.set(mve.vadd_s32(total.value, mve.vldrb_s32(address(x, here))))
        result = exact.vector(total.value, *scalars)
        f.do(mve.vstrb_s32(address(y, (oy * out_w + ox) * channels + first), result))
    return Kernel(f.done(), (0,), inplace={0: _distance(operation)})


def _max(operation: Operation) -> Kernel | None:
    """Of four or eight channels without padding, compilers make vectors themselves."""
    attrs = operation.attrs
    batch, height, width, channels = operation.args[0].shape
    _, out_h, out_w, _ = operation.out.shape
    pool, strides, padding = attrs["pool_size"], attrs["strides"], attrs["padding"]
    if (
        operation.args[0].dtype != "int8"
        or batch != 1
        or channels < _LANES
        or (channels in (_LANES, 2 * _LANES) and not any(padding))
        or pool[0] * pool[1] > _UNROLLED
    ):
        return None
    limits = attrs["clamp_min"], attrs["clamp_max"]
    f = Function("max_pool2d")
    x = f.param("x", height * width * channels)
    y = f.param("y", out_h * out_w * channels)

    def inside(start: ir.Expr, tap: int, before: int, after: int, extent: int) -> ir.Expr:
        """A position under the window: one in the padding is moved to the next that is not."""
        position = start + (tap - before)
        if tap < before:
            position = T.max(position, T.int32(0))
        return lesser(position, extent - 1) if after else position

    with f.loop("oy", out_h) as oy, f.loop("ox", out_w) as ox:
        rows, columns = (
            [
                f.let("at", inside(o * strides[i], tap, padding[i], padding[i + 2], extent))
                for tap in range(pool[i])
            ]
            for i, (o, extent) in enumerate(((oy, height), (ox, width)))
        )
        pixels = [f.let("from", (iy * width + ix) * channels) for iy in rows for ix in columns]
        to = f.let("to", (oy * out_w + ox) * channels)
        with f.loop("part", -(-channels // LANES)) as part:
            first = T.int32(0)
            if channels > LANES:
                # The last sixteen may overlap the ones before.
                first = part * LANES
                first = lesser(first, channels - LANES) if channels % LANES else first
                first = f.let("first", first)

            def load(pixel: ir.Expr, first: ir.Expr = first) -> ir.Expr:
                at = address(x, pixel + first)
                few = channels < LANES
                return mve.vldrbt_s8(at, T.int32(channels)) if few else mve.vldrb_s8(at)

            largest = load(pixels[0])
            for pixel in pixels[1:]:
                largest = f.let("largest", mve.vmax_s8(largest, load(pixel)))
            if limits[0] > -128:
                largest = mve.vmax_s8(largest, mve.vdup_s8(T.int8(limits[0])))
            if limits[1] < 127:
                largest = mve.vmin_s8(largest, mve.vdup_s8(T.int8(limits[1])))
            at = address(y, to + first)
            if channels < LANES:
                f.do(mve.vstrbt_s8(at, largest, T.int32(channels)))
            else:
                f.do(mve.vstrb_s8(at, largest))
    return Kernel(f.done(), (0,), inplace={0: _distance(operation)})


def _distance(operation: Operation) -> int:
    """Of a pixel, some channels are read after others are written."""
    geometry = operation.geometry
    return inplace.by_pixels(geometry, range(geometry.pixels), 1, reads_first=False)
