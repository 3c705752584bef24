"""Pooling and means on ARMv7E-M, four channels at a time.

SXTAB16 adds two bytes of a word to two int16 sums; SSUB8 and SEL take the larger of each two bytes.
"""

from collections.abc import Callable

import numpy as np
from tvm import ir, tirx
from tvm.tirx.script import builder as T

from mcuforge.isa import armv7em as isa
from mcuforge.operators.mean import division
from mcuforge.tir import inplace
from mcuforge.tir.function import Function, Variable, address
from mcuforge.tir.registry import Kernel, Operation, kernel
from mcuforge.tir.requantize import clamp, requantize

_LANES = 4
# So many int8 are summed without leaving int16.
_MOST = 256
_UNROLLED = 16
# Fewer inputs an output are summed as fast one by one: where windows are whole, and with padding.
_LEAST, _LEAST_PADDED = 6, 9


@kernel("pool2d", opt_level=3, needs={"dsp"}, unless={"helium"})
def _pool2d(operation: Operation) -> Kernel | None:
    attrs = operation.attrs
    batch, height, width, channels = operation.args[0].shape
    _, out_h, out_w, _ = operation.out.shape
    pool, average = attrs["pool_size"], attrs["kind"] == "average"
    taps = min(pool[0], height) * min(pool[1], width)
    least = _LEAST_PADDED if any(attrs["padding"]) else _LEAST
    # Of a single one the maximum is a copy.
    if not _suits(operation, channels) or (not least <= taps <= _MOST if average else taps == 1):
        return None
    limits = attrs["clamp_min"], attrs["clamp_max"]
    f = Function("average_pool2d" if average else "max_pool2d")
    x = f.param("x", batch * height * width * channels)
    y = f.param("y", batch * out_h * out_w * channels)
    with f.loop("b", batch) as b, f.loop("oy", out_h) as oy, f.loop("ox", out_w) as ox:
        top, rows = _inside(f, oy, 0, attrs, height)
        left, columns = _inside(f, ox, 1, attrs, width)
        count = rows * columns
        if isinstance(count, int) and columns == width:
            # Rows without a gap are one.
            rows, columns = 1, count
        source = f.let("source", ((b * height + top) * width + left) * channels)
        target = f.let("target", ((b * out_h + oy) * out_w + ox) * channels)
        window = rows, columns, width * channels, channels
        if average:
            count = f.let("count", count) if isinstance(count, ir.Expr) else T.int32(count)
            half = f.let("half", T.floordiv(count, T.int32(2)))
        with f.loop("part", channels // _LANES) as part:
            start, to = f.let("start", source + part * _LANES), f.let("to", target + part * _LANES)
            if average:
                for lane, total in enumerate(_sums(f, x, start, *window)):
                    # Halves away from zero: C's division truncates.
                    away = T.if_then_else(total > 0, total + half, total - half)
                    mean = T.truncdiv(away, count)
                    # It is between inputs, but clang does not see that.
                    if limits != (-128, 127):
                        mean = clamp(mean, *map(T.int32, limits))
                    T.buffer_store(y, T.cast(mean, "int8"), [to + lane])
            else:
                f.do(isa.str_(address(y, to), _largest(f, x, start, *window, limits)))
    distance = inplace.by_element(operation.geometry, _LANES)
    return Kernel(f.done(), (0,), inplace={0: distance})


@kernel("mean", opt_level=3, needs={"dsp"}, unless={"helium"})
def _mean(operation: Operation) -> Kernel | None:
    attrs, shape = operation.attrs, operation.args[0].shape
    axes = attrs["axes"]
    first, end = axes[0], axes[-1] + 1
    outer, count, channels = (
        int(np.prod(part)) for part in (shape[:first], shape[first:end], shape[end:])
    )
    adjacent = len(axes) == end - first
    if not (_suits(operation, channels) and adjacent and _LEAST <= count <= _MOST):
        return None
    multiplier, addend, shift, negative = division(operation, count)
    f = Function("mean")
    x, y = f.param("x", outer * count * channels), f.param("y", outer * channels)
    with f.loop("o", outer) as o, f.loop("part", channels // _LANES) as part:
        start = f.let("start", o * (count * channels) + part * _LANES)
        to = f.let("to", o * channels + part * _LANES)
        for lane, total in enumerate(_sums(f, x, start, 1, count, 0, channels)):
            acc = f.let("acc", total - attrs["in_zero_point"] * count)
            result = requantize(acc, T.int64(multiplier), T.int64(addend), T.int32(shift), negative)
            limits = T.int32(attrs["clamp_min"]), T.int32(attrs["clamp_max"])
            result = clamp(result + attrs["zero_point"], *limits)
            T.buffer_store(y, T.cast(result, "int8"), [to + lane])
    return Kernel(f.done(), (0,), inplace={0: 0})


def _suits(operation: Operation, channels: int) -> bool:
    dtypes = {operation.args[0].dtype, operation.out.dtype}
    return dtypes == {"int8"} and channels % _LANES == 0


def _inside(
    f: Function, output: ir.Expr, axis: int, attrs: dict, extent: int
) -> tuple[ir.Expr, ir.Expr | int]:
    """Where an output's window starts and how long it is, without padding."""
    pool, before, after = (
        attrs["pool_size"][axis], attrs["padding"][axis], attrs["padding"][axis + 2]
    )  # fmt: skip
    start = output * attrs["strides"][axis] - before
    if not before and not after:
        return start, pool
    first = f.let("first", T.max(start, T.int32(0)))
    return first, f.let("size", T.min(start + pool, T.int32(extent)) - first)


def _each_word(
    f: Function, x: tirx.Var, start: ir.Expr, rows: ir.Expr | int, columns: ir.Expr | int,
    pitch: int, step: int, visit: Callable[[ir.Expr], None],
) -> None:  # fmt: skip
    """Four channels of each pixel in a window: rows ``pitch`` bytes apart, pixels ``step``."""
    unroll = 1
    if isinstance(columns, int):
        unroll = max(d for d in range(1, _UNROLLED + 1) if columns % d == 0)
        columns //= unroll
    with f.loop("ky", rows) as ky:
        row = f.let("row", start + ky * pitch)
        with f.loop("kx", columns) as kx:
            pixel = f.let("pixel", row + kx * (unroll * step))
            for index in range(unroll):
                visit(f.let("word", isa.ldr(address(x, pixel + index * step))))


def _sums(f: Function, x: tirx.Var, start: ir.Expr, *window: ir.Expr | int) -> list[ir.Expr]:
    """Over a window, of each of four channels; int32."""
    even, odd = (f.variable(name, T.int32(0)) for name in ("even", "odd"))

    def add(word: ir.Expr) -> None:
        even.set(isa.sxtab16(0)(even.value, word))
        odd.set(isa.sxtab16(8)(odd.value, word))

    _each_word(f, x, start, *window, add)

    def halves(sums: Variable) -> tuple[ir.Expr, ir.Expr]:
        return T.cast(T.cast(sums.value, "int16"), "int32"), sums.value >> 16

    totals = (half for pair in zip(halves(even), halves(odd), strict=True) for half in pair)
    return [f.let("total", total) for total in totals]


def _largest(
    f: Function, x: tirx.Var, start: ir.Expr, rows: ir.Expr | int, columns: ir.Expr | int,
    pitch: int, step: int, limits: tuple[int, int],
) -> ir.Expr:  # fmt: skip
    """Over a window, of each of four channels, clamped; a word."""
    largest = f.variable("largest", _repeated(-128))

    def take(word: ir.Expr) -> None:
        largest.set(isa.smax8(largest.value, word))

    _each_word(f, x, start, rows, columns, pitch, step, take)
    low, high = limits
    if low > -128:
        take(_repeated(low))
    if high < 127:
        # The complement reverses the order.
        complement = isa.smax8(T.bitwise_not(largest.value), _repeated(~high))
        return T.bitwise_not(f.let("clamped", complement))
    return largest.value


def _repeated(value: int) -> ir.Expr:
    return T.int32(int(np.array([value] * 4, np.int8).view("<i4")[0]))
