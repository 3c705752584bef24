"""Pooling and means with the DSP extension, four channels at a time.

SXTAB16 adds two bytes of a word to two int16 sums; SSUB8 and SEL take the larger of each two bytes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tvm import ir, tirx
from tvm.tirx.script import builder as T

from mcuforge.isa.dsp import words
from mcuforge.operators.mean import division
from mcuforge.tir import inplace
from mcuforge.tir.function import Function, Variable, address
from mcuforge.tir.geometry import Axis
from mcuforge.tir.registry import Kernel, Operation, kernel
from mcuforge.tir.requantize import clamp, requantize

_LANES = 4
# So many int8 are summed without leaving int16: 256 times -128 is -2^15.
_MOST = 256
# Measured thresholds: instructions an inference, emulated Cortex-M7, gcc 12 and clang 19, -O3.
#
# Most pixels of a row that are visited without a loop. Averages of 8x8x64 take 5,739 and 5,874 with
# one pixel in the loop, 4,458 and 4,563 with four, 3,884 and 4,032 without it. Of 25x5x64, 125
# pixels in a row, they take 7,875 and 8,004 with five in the loop, 6,915 and 7,090 with 25.
_UNROLLED = 16
# Fewer inputs an output are summed as fast one by one in some layers: where windows are whole, and
# with padding. The mean of 2x2x8 takes 178 and 207 with words, 157 and 163 one by one. Averages of
# 2x3 over 8x9x16 take 2,490 and 2,898 with words, 5,194 and 4,324 one by one; of 3x3 over 8x8x16
# with padding 24,842 and 27,734 with words, 62,096 and 58,124 one by one.
_LEAST, _LEAST_PADDED = 6, 9


@kernel("pool2d", opt_level=3, needs={"dsp"}, unless={"helium"})
def _pool2d(operation: Operation) -> Kernel | None:
    g, attrs = operation.geometry, operation.attrs
    average = attrs["kind"] == "average"
    taps = min(g.rows.window, g.rows.size) * min(g.columns.window, g.columns.size)
    least = _LEAST_PADDED if g.padded else _LEAST
    # The maximum of a single input is a copy, which compilers write well.
    pays = least <= taps <= _MOST if average else taps > 1
    if not (_suits(operation, g.channels) and pays):
        return None
    limits = attrs["clamp_min"], attrs["clamp_max"]
    f = Function("average_pool2d" if average else "max_pool2d")
    x, y = f.param("x", math.prod(g.shape)), f.param("y", math.prod(g.out_shape))
    with (
        f.loop("b", g.batch) as b,
        f.loop("oy", g.rows.out) as oy,
        f.loop("ox", g.columns.out) as ox,
    ):
        top, rows = _inside(f, oy, g.rows)
        left, columns = _inside(f, ox, g.columns)
        count = rows * columns
        if isinstance(count, int) and columns == g.columns.size:
            # Rows without a gap between them are one row.
            rows, columns = 1, count
        pixel = (b * g.rows.size + top) * g.columns.size + left
        source = f.let("source", pixel * g.channels)
        out = (b * g.rows.out + oy) * g.columns.out + ox
        target = f.let("target", out * g.channels)
        if average:
            count = f.let("count", count) if isinstance(count, ir.Expr) else T.int32(count)
            half = f.let("half", T.floordiv(count, T.int32(2)))
        with f.loop("part", g.channels // _LANES) as part:
            start, to = f.let("start", source + part * _LANES), f.let("to", target + part * _LANES)
            window = _Window(x, start, rows, columns, g.columns.size * g.channels, g.channels)
            if average:
                for lane, total in enumerate(_sums(f, window)):
                    # Halves away from zero: C's division truncates.
                    away = T.if_then_else(total > 0, total + half, total - half)
                    mean = T.truncdiv(away, count)
                    # The mean lies between the inputs, but clang does not see that.
                    if limits != (-128, 127):
                        mean = clamp(mean, *map(T.int32, limits))
                    f.store(y, to + lane, T.cast(mean, "int8"))
            else:
                f.do(words.str_(address(y, to), _largest(f, window, limits)))
    return Kernel(f.done(), (0,), inplace={0: inplace.by_element(g, _LANES)})


@kernel("mean", opt_level=3, needs={"dsp"}, unless={"helium"})
def _mean(operation: Operation) -> Kernel | None:
    attrs, shape = operation.attrs, operation.args[0].shape
    axes = attrs["axes"]
    first, end = axes[0], axes[-1] + 1
    outer, count, channels = (
        math.prod(part) for part in (shape[:first], shape[first:end], shape[end:])
    )
    adjacent = len(axes) == end - first
    if not (_suits(operation, channels) and adjacent and _LEAST <= count <= _MOST):
        return None
    multiplier, addend, shift, halves = division(operation, count).single()
    f = Function("mean")
    x, y = f.param("x", outer * count * channels), f.param("y", outer * channels)
    with f.loop("o", outer) as o, f.loop("part", channels // _LANES) as part:
        start = f.let("start", o * (count * channels) + part * _LANES)
        to = f.let("to", o * channels + part * _LANES)
        window = _Window(x, start, 1, count, 0, channels)
        for lane, total in enumerate(_sums(f, window)):
            acc = f.let("acc", total - attrs["in_zero_point"] * count)
            result = requantize(acc, T.int64(multiplier), T.int64(addend), T.int32(shift), halves)
            limits = T.int32(attrs["clamp_min"]), T.int32(attrs["clamp_max"])
            result = clamp(result + attrs["zero_point"], *limits)
            f.store(y, to + lane, T.cast(result, "int8"))
    return Kernel(f.done(), (0,), inplace={0: 0})


def _suits(operation: Operation, channels: int) -> bool:
    dtypes = {operation.args[0].dtype, operation.out.dtype}
    return dtypes == {"int8"} and channels % _LANES == 0


@dataclass(frozen=True)
class _Window:
    """Where four channels of the pixels under a window are in memory.

    Attributes:
        x: the buffer they are in.
        start: element of the first pixel.
        rows, columns: how many pixels there are.
        pitch: elements from one row to the next one.
        step: elements from one pixel to the next one.
    """

    x: tirx.Var
    start: ir.Expr
    rows: ir.Expr | int
    columns: ir.Expr | int
    pitch: int
    step: int


def _inside(f: Function, output: ir.Expr, axis: Axis) -> tuple[ir.Expr, ir.Expr | int]:
    """Where an output's window starts and how long it is, without padding."""
    start = output * axis.stride - axis.before
    if not axis.padded:
        return start, axis.window
    first = f.let("first", T.max(start, T.int32(0)))
    end = T.min(start + axis.window, T.int32(axis.size))
    return first, f.let("size", end - first)


def _each_word(f: Function, window: _Window, visit: Callable[[ir.Expr], None]) -> None:
    """Visits the four channels of every pixel as a word."""
    columns, unroll = window.columns, 1
    if isinstance(columns, int):
        unroll = max(d for d in range(1, _UNROLLED + 1) if columns % d == 0)
        columns //= unroll
    with f.loop("ky", window.rows) as ky:
        row = f.let("row", window.start + ky * window.pitch)
        with f.loop("kx", columns) as kx:
            pixel = f.let("pixel", row + kx * (unroll * window.step))
            for index in range(unroll):
                word = words.ldr(address(window.x, pixel + index * window.step))
                visit(f.let("word", word))


def _sums(f: Function, window: _Window) -> list[ir.Expr]:
    """The sum of each of four channels; int32.

    SXTAB16 adds bytes 0 and 2 of a word, so one variable sums channels 0 and 2, another 1 and 3.
    """
    even, odd = (f.variable(name, T.int32(0)) for name in ("even", "odd"))

    def add(word: ir.Expr) -> None:
        even.set(words.sxtab16(0)(even.value, word))
        odd.set(words.sxtab16(8)(odd.value, word))

    _each_word(f, window, add)

    def halves(sums: Variable) -> tuple[ir.Expr, ir.Expr]:
        return T.cast(T.cast(sums.value, "int16"), "int32"), sums.value >> 16

    totals = (half for pair in zip(halves(even), halves(odd), strict=True) for half in pair)
    return [f.let("total", total) for total in totals]


def _largest(f: Function, window: _Window, limits: tuple[int, int]) -> ir.Expr:
    """The maximum of each of four channels, clamped, as a word."""
    largest = f.variable("largest", _repeated(-128))

    def take(word: ir.Expr) -> None:
        largest.set(words.smax8(largest.value, word))

    _each_word(f, window, take)
    low, high = limits
    if low > -128:
        take(_repeated(low))
    if high < 127:
        # The complement reverses the order: min(a, b) is ~max(~a, ~b).
        complement = words.smax8(T.bitwise_not(largest.value), _repeated(~high))
        return T.bitwise_not(f.let("clamped", complement))
    return largest.value


def _repeated(value: int) -> ir.Expr:
    """A word of four equal bytes: of -1, 0xFFFFFFFF."""
    return T.int32(int(np.array([value] * 4, np.int8).view("<i4")[0]))
