"""Pooling with Helium: averages of four channels at a time, maxima of sixteen."""

import math

from tvm import ir, tirx
from tvm.tirx.script import builder as T

from mcuforge.exact import arithmetic
from mcuforge.exact.steps import Average
from mcuforge.isa import helium
from mcuforge.kernels.helium.common import LANES, RoundedShift, rounded_shift
from mcuforge.tir import inplace
from mcuforge.tir.function import Function, address, lesser
from mcuforge.tir.geometry import Axis, Geometry
from mcuforge.tir.registry import Kernel, Operation, kernel

_LANES = 4
# Measured thresholds: instructions an inference, emulated Cortex-M55, gcc 12 and clang 19, -O3.
#
# Widest window whose rows are summed without loops. Averages of 4x20x64 take 4,447 and 5,252 with a
# loop, 8,707 and 5,280 without one.
_UNROLLED = 12
# Fewer inputs an output are left to compilers, of which clang makes vectors itself. Averages of
# 4x8x64, 32 inputs, take 3,314 and 2,217 here, 5,077 and 2,125 as compiled.
_LEAST_COUNT = 32


@kernel("pool2d", opt_level=3, needs={"helium"})
def _pool2d(operation: Operation) -> Kernel | None:
    return _average(operation) if operation.attrs["kind"] == "average" else _max(operation)


def _average(operation: Operation) -> Kernel | None:
    g = operation.geometry
    if (
        operation.args[0].dtype != "int8"
        or g.padded
        or g.batch != 1
        or g.channels % _LANES
        or g.taps < _LEAST_COUNT
    ):
        return None
    exact = _division(operation, g.taps)
    if exact is None:
        return None
    f = Function("average_pool2d")
    x, y = f.param("x", math.prod(g.shape)), f.param("y", math.prod(g.out_shape))
    scalars = [T.int32(int(v[0])) for v in (exact.multiplier, exact.shift)]
    with (
        f.loop("oy", g.rows.out) as oy,
        f.loop("ox", g.columns.out) as ox,
        f.loop("part", g.channels // _LANES) as part,
    ):
        first = f.let("first", part * _LANES)
        pixel = oy * (g.rows.stride * g.columns.size) + ox * g.columns.stride
        total = _sum(f, x, g, f.let("base", pixel * g.channels + first))
        result = exact.vector(total, *scalars)
        out = (oy * g.columns.out + ox) * g.channels + first
        f.do(helium.vstrb_s32(address(y, out), result))
    return Kernel(f.done(), (0,), inplace={0: _distance(g)})


def _division(operation: Operation, count: int) -> RoundedShift | None:
    """From a sum of ``count`` inputs to their mean, clamped."""

    factor = arithmetic.quantize_multiplier(1 / count)
    limits = operation.attrs["clamp_min"], operation.attrs["clamp_max"]
    return rounded_shift(Average(count), [factor], 0, limits, 128 * count)


def _sum(f: Function, x: tirx.Var, g: Geometry, base: ir.Expr) -> ir.Expr:
    """Four channels, summed over a window whose first pixel is at ``base``."""
    pool_h, pool_w, pitch = g.rows.window, g.columns.window, g.columns.size * g.channels
    total = f.variable("total", helium.vldrb_s32(address(x, base)))
    # The first pixel starts the sum; its row has one less to add.
    for rows, columns, at in ((1, pool_w - 1, g.channels), (pool_h - 1, pool_w, pitch)):
        if not rows * columns:
            continue
        with f.loop("ky", rows) as ky:
            row = f.let("row", base + at + ky * pitch)
            pixels = range(columns) if columns <= _UNROLLED else [None]
            for pixel in pixels:
                with f.loop("kx", 1 if pixel is not None else columns) as kx:
                    here = row + (kx if pixel is None else pixel) * g.channels
                    total.set(helium.vadd_s32(total.value, helium.vldrb_s32(address(x, here))))
    return total.value


def _max(operation: Operation) -> Kernel | None:
    g = operation.geometry
    # Compilers make vectors of four or eight channels themselves, unless there is padding.
    compiled = g.channels in (_LANES, 2 * _LANES) and not g.padded
    if (
        operation.args[0].dtype != "int8"
        or g.batch != 1
        or g.channels < _LANES
        or compiled
        or g.taps > _UNROLLED
    ):
        return None
    limits = operation.attrs["clamp_min"], operation.attrs["clamp_max"]
    f = Function("max_pool2d")
    x, y = f.param("x", math.prod(g.shape)), f.param("y", math.prod(g.out_shape))
    with f.loop("oy", g.rows.out) as oy, f.loop("ox", g.columns.out) as ox:
        rows, columns = (_positions(f, o, axis) for o, axis in ((oy, g.rows), (ox, g.columns)))
        width, channels = g.columns.size, g.channels
        pixels = [f.let("from", (iy * width + ix) * channels) for iy in rows for ix in columns]
        to = f.let("to", (oy * g.columns.out + ox) * channels)
        with f.loop("part", -(-channels // LANES)) as part:
            first = T.int32(0)
            if channels > LANES:
                # The last sixteen may overlap the ones before.
                first = part * LANES
                first = lesser(first, channels - LANES) if channels % LANES else first
                first = f.let("first", first)
            largest = _largest(f, [address(x, pixel + first) for pixel in pixels], channels, limits)
            at = address(y, to + first)
            if channels < LANES:
                f.do(helium.vstrbt_s8(at, largest, T.int32(channels)))
            else:
                f.do(helium.vstrb_s8(at, largest))
    return Kernel(f.done(), (0,), inplace={0: _distance(g)})


def _positions(f: Function, output: ir.Expr, axis: Axis) -> list[ir.Expr]:
    """Positions under an output's window; those in the padding are moved to the nearest inside."""
    positions = []
    for tap in range(axis.window):
        position = output * axis.stride + (tap - axis.before)
        if tap < axis.before:
            position = T.max(position, T.int32(0))
        if axis.after:
            position = lesser(position, axis.size - 1)
        positions.append(f.let("at", position))
    return positions


def _largest(f: Function, pixels: list[ir.Expr], channels: int, limits: tuple[int, int]) -> ir.Expr:
    """The maximum over pixels of up to sixteen channels, clamped."""

    def load(at: ir.Expr) -> ir.Expr:
        return helium.vldrbt_s8(at, T.int32(channels)) if channels < LANES else helium.vldrb_s8(at)

    largest = load(pixels[0])
    for pixel in pixels[1:]:
        largest = f.let("largest", helium.vmax_s8(largest, load(pixel)))
    if limits[0] > -128:
        largest = helium.vmax_s8(largest, helium.vdup_s8(T.int8(limits[0])))
    if limits[1] < 127:
        largest = helium.vmin_s8(largest, helium.vdup_s8(T.int8(limits[1])))
    return largest


def _distance(g: Geometry) -> int:
    """How far below its input the result may start.

    Some channels of a pixel are read after others of the result's pixel are written.
    """
    return inplace.by_pixels(g, range(g.pixels), 1, reads_first=False)
