"""Depthwise convolutions for cores without SIMD, one channel at a time.

A channel's plane is copied out of the image, with a border of zero points. Then no sum checks
bounds, a channel's weights and requantization stay in registers over the whole plane, and the
result may overwrite the input: when a channel is written it has been read. Neighbouring outputs are
computed together and share the inputs they load: two outputs of a 3 x 3 window take 12 of 18.
"""

import math
from dataclasses import dataclass

import numpy as np
from tvm import ir, tirx
from tvm.tirx.script import builder as T

from mcuforge.kernels.requantize import is_int8
from mcuforge.kernels.scalar.requantize import BETTER, IN_ORDER, Requantizer, requantizer
from mcuforge.tir.function import Function, Variable, lesser
from mcuforge.tir.geometry import Geometry
from mcuforge.tir.registry import SAME_PLACE, Kernel, Operation, kernel

# Measured thresholds: instructions an inference, gcc 12 and clang 19, -O3, on an emulated
# Cortex-M3, which has 13 registers, and RV32IMC, which has 31.
#
# Outputs computed together at most: their sums, and for 3 x 3 the weights, fit the registers. 3x3
# over 16x16x16 takes 165,447 and 139,503 on the Cortex-M3 with 1, 139,673 and 125,407 with 2. Over
# 25x5x64 it is the other way round: 282,100 and 280,666, 375,441 and 311,065. That layer takes
# 355,692 and 419,212 on RV32IMC with 4, 314,918 and 336,724 with 5.
_FEW, _MANY = 2, 5
# Windows of more taps are a loop over their rows. The value is an estimate: 5x5 over 16x16x8 takes
# 159,994 and 131,560 on the Cortex-M3 unrolled, 159,969 and 131,431 with the loop; on RV32IMC
# 184,341 and 228,225, with the loop 178,913 and 175,043. 6x6 takes 267,399 and 332,006 there, with
# the loop 239,000 and 234,991.
_UNROLLED_TAPS = 25
# With fewer taps inside the image, of a channel and of all, planes are not copied. With 9 of a
# channel it depends on the layer. 3x3 over 3x3x8 without padding takes 463 and 367 on the Cortex-M3
# with planes, 448 and 498 without; 2x2 over 2x2x16 with padding 1,468 and 1,196, without 2,702 and
# 2,940. With 12, 2x2 over 2x4x16 without padding takes 1,323 and 982, without planes 2,033 and
# 2,151. The other value is a cautious estimate: 3x3 over 2x2x4, 64 taps in all, takes 1,081 and
# 881, with planes 643 and 564.
_LEAST_TAPS, _LEAST_TAPS_IN_ALL = 12, 96


@kernel("depthwise_conv2d", opt_level=3, unless=BETTER | {"registers"})
def _depthwise_conv2d(operation: Operation) -> Kernel | None:
    return _depthwise(operation, _FEW)


@kernel("depthwise_conv2d", opt_level=3, needs={"registers"}, unless=BETTER)
def _depthwise_conv2d_many(operation: Operation) -> Kernel | None:
    return _depthwise(operation, _MANY)


def _depthwise(operation: Operation, most: int) -> Kernel | None:
    g = operation.geometry
    if not (is_int8(operation) and _suits(g)):
        return None
    by_channel = np.moveaxis(operation.args[1].value, -1, 0)
    exact = requantizer(operation, by_channel)
    if exact is None:
        return None
    taps = np.where(exact.constants[:, np.newaxis, np.newaxis], 0, by_channel)
    f = Function("depthwise_conv2d")
    x = f.param("x", math.prod(g.shape))
    weights = f.constant("weight", taps.reshape(-1).astype(np.int8))
    parameters = exact.parameters(f)
    y = f.param("y", math.prod(g.out_shape))
    channel = _Channel(f, g, exact, parameters, weights, most)
    channel.write(x, y, operation.attrs["input_zero_point"])
    return Kernel(f.done(), (0, *f.constants), {0: SAME_PLACE}, IN_ORDER)


def _suits(g: Geometry) -> bool:
    """Whether each channel is a plane, and copying it pays."""
    inside = g.rows.taps_inside() * g.columns.taps_inside()
    return (
        g.batch == 1
        and g.outputs == g.channels
        and not g.dilated
        and inside >= _LEAST_TAPS
        and inside * g.channels >= _LEAST_TAPS_IN_ALL
    )


@dataclass(frozen=True)
class _Channel:
    """The loop over channels, which is being written.

    Attributes:
        most: outputs computed together at most.
    """

    f: Function
    g: Geometry
    exact: Requantizer
    parameters: list[tirx.Var]
    weights: tirx.Var
    most: int

    @property
    def _extent(self) -> tuple[int, int]:
        """Rows and columns of a plane with its border."""
        rows, columns = self.g.rows, self.g.columns
        return max(rows.span, rows.size + rows.before), max(
            columns.span, columns.size + columns.before
        )

    def write(self, x: tirx.Var, y: tirx.Var, zero_point: int) -> None:
        """All channels: copies a plane and computes its outputs."""
        f, g = self.f, self.g
        rows, pitch = self._extent
        plane = f.scratch("plane", rows * pitch)
        if rows * pitch > g.rows.size * g.columns.size:
            with f.loop("i", rows * pitch) as i:
                f.store(plane, i, T.int8(zero_point))
        begin = g.rows.before * pitch + g.columns.before
        with f.loop("c", g.channels) as c:
            with f.loop("row", g.rows.size) as row, f.loop("column", g.columns.size) as column:
                value = x[(row * g.columns.size + column) * g.channels + c]
                f.store(plane, begin + row * pitch + column, value)
            self._outputs(plane, pitch, y, c)

    def _outputs(self, plane: tirx.Var, pitch: int, y: tirx.Var, c: ir.Expr) -> None:
        """The outputs of a channel, some neighbours at a time."""
        f, g = self.f, self.g
        unrolled = g.taps <= _UNROLLED_TAPS
        down, together = self._neighbours(unrolled)
        along, across = (g.rows, g.columns) if down else (g.columns, g.rows)

        def weight(tap: ir.Expr | int) -> ir.Expr:
            return f.let("w", T.cast(self.weights[c * g.taps + tap], "int32"))

        kept = [weight(tap) for tap in range(g.taps)] if unrolled else []
        groups = -(-along.out // together)
        with f.loop("across", across.out) as position, f.loop("group", groups) as group:
            start = group * together
            first = lesser(start, along.out - together) if along.out % together else start
            row, column = (first, position) if down else (position, first)
            base = f.let("base", row * (g.rows.stride * pitch) + column * g.columns.stride)
            sums = [f.variable(f"sum{p}", self.parameters[0][c]) for p in range(together)]
            if unrolled:
                step = (g.rows.stride, 0) if down else (0, g.columns.stride)
                window = np.array(kept, object).reshape(g.rows.window, g.columns.window)
                self._products(sums, step, plane, base, pitch, window)
            else:
                with f.loop("ky", g.rows.window) as ky:
                    own = [weight(ky * g.columns.window + kx) for kx in range(g.columns.window)]
                    window = np.array([own], object)
                    here = f.let("here", base + ky * pitch)
                    self._products(sums, (0, g.columns.stride), plane, here, pitch, window)
            pixel = f.let("pixel", (row * g.columns.out + column) * g.channels + c)
            step = g.channels * (g.columns.out if down else 1)
            for p, total in enumerate(sums):
                f.store(y, pixel + p * step, self.exact.output(f, self.parameters, total, c))

    def _products(
        self, sums: list[Variable], step: tuple[int, int], plane: tirx.Var, base: ir.Expr,
        pitch: int, window: np.ndarray,
    ) -> None:  # fmt: skip
        """Adds the products of windows; each input is loaded once for all of them.

        Args:
            step: rows and columns from one window to the next.
            base: the first tap of the first window in the plane.
            window: (rows, columns) of weights.
        """
        height, width = window.shape
        last = len(sums) - 1
        for row in range(last * step[0] + height):
            for column in range(last * step[1] + width):
                taps = [
                    (total, row - p * step[0], column - p * step[1])
                    for p, total in enumerate(sums)
                    if 0 <= row - p * step[0] < height and 0 <= column - p * step[1] < width
                ]
                if taps:
                    value = self.f.let("x", T.cast(plane[base + (row * pitch + column)], "int32"))
                for total, ky, kx in taps:
                    total.set(total.value + value * window[ky, kx])

    def _neighbours(self, unrolled: bool) -> tuple[bool, int]:
        """Whether outputs of a column are computed together and not of a row, and how many."""

        def cost(choice: tuple[bool, int]) -> int:
            down, together = choice
            along, across = (g.rows, g.columns) if down else (g.columns, g.rows)
            beside = g.columns.window if down else g.rows.window
            loaded = min((together - 1) * along.stride + along.window, together * along.window)
            group = loaded * beside + together * (2 * g.taps + 12) + 8
            return across.out * -(-along.out // together) * group

        g = self.g
        return min(
            (
                (down, together)
                for down in ((False, True) if unrolled else (False,))
                for together in range(1, min((g.rows if down else g.columns).out, self.most) + 1)
            ),
            key=cost,
        )
