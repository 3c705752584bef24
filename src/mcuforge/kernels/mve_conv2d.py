"""Convolutions with Helium: dot products of sixteen bytes, two pixels times two channels a pass.

An output row is computed from its columns: for each input column under the row, the kernel's rows
of it, one after the other. A pixel's operands are then contiguous bytes, and neighbours share them,
so that each input byte is copied once per kernel row, not once per tap. 1x1 kernels read the input
itself.
"""

import math
from dataclasses import dataclass

import numpy as np
from tvm import ir, tirx
from tvm.tirx.script import builder as T

from mcuforge.kernels.isa import mve
from mcuforge.kernels.mve_common import (
    LANES,
    Function,
    Requantization,
    address,
    folded_bias,
    is_int8,
    lesser,
    requantization,
)
from mcuforge.kernels.registry import Kernel, Operation, kernel
from mcuforge.kernels.requantize import accumulator_bound

# Longest dot product, in vectors, that is written without a loop.
_UNROLLED = 18


@dataclass(frozen=True)
class Dot:
    """How a dot product over contiguous bytes is cut into vectors.

    Attributes:
        starts: byte offset of each vector.
        weights: (o, vectors, 16) int8, zero in lanes that do not count.
        tail: bytes of the only vector, if more must not be read; else 0.
    """

    starts: tuple[int, ...]
    weights: np.ndarray
    tail: int = 0

    def load(self, x: tirx.Var, base: ir.Expr, index: int) -> ir.Expr:
        """The operand of vector number ``index``."""
        at = address(x, base + self.starts[index])
        return mve.vldrbt_s8(at, T.int32(self.tail)) if self.tail else mve.vldrb_s8(at)


def dot(weight: np.ndarray, exclusive: bool) -> Dot:
    """Cuts the rows of a matrix (o, depth).

    Args:
        weight: int8.
        exclusive: whether bytes behind the operands must not be read. The last vector then ends
            with the operands, and its lanes that an earlier vector has seen count for nothing.
    """
    outputs, depth = weight.shape
    count = -(-depth // LANES)
    starts = [LANES * i for i in range(count)]
    packed = np.zeros((outputs, count, LANES), np.int8)
    if exclusive and count > 1:
        starts[-1] = depth - LANES
    for i, start in enumerate(starts):
        fresh = LANES * i - start
        values = weight[:, LANES * i : start + LANES]
        packed[:, i, fresh : fresh + values.shape[1]] = values
    return Dot(tuple(starts), packed, depth if exclusive and depth < LANES else 0)


@kernel("conv2d", opt_level=3, needs={"mve"})
def _conv2d(operation: Operation) -> Kernel | None:
    attrs = operation.attrs
    batch, height, width, channels = operation.args[0].shape
    _, out_h, out_w, outputs = operation.out.shape
    if not is_int8(operation) or attrs["groups"] != 1 or tuple(attrs["dilation"]) != (1, 1):
        return None
    weight, bias, scale = (operand.value for operand in operation.args[1:])
    _, kernel_h, kernel_w, _ = weight.shape
    (sy, sx), padding = attrs["strides"], attrs["padding"]
    folded = folded_bias(operation, weight, bias)
    exact = requantization(operation, scale, accumulator_bound(operation, weight, bias))
    direct = kernel_h == kernel_w == 1 and not any(padding)
    if direct and sy == sx == 1:
        height, width, out_h, out_w = 1, height * width, 1, out_h * out_w
    if exact is None or folded is None or batch != 1 or outputs < 2 or out_w < 2:
        return None

    f = Function("conv2d")
    x = f.param("x", height * width * channels)
    matrix = weight.transpose(0, 2, 1, 3).reshape(outputs, -1)
    args: list[int | np.ndarray] = [0]
    if direct:
        columns, pixel, row = None, sx * channels, sy * width * channels
    else:
        columns = Columns(
            height, width, channels, kernel_h, sy, padding[0], padding[1],
            (out_w - 1) * sx + kernel_w, attrs["input_zero_point"],
        )  # fmt: skip
        pixel, row = sx * columns.bytes, 0
    block = PixelPairs(dot(matrix, direct), folded, exact, pixel)
    args += [block.stream, block.params, block.offsets]
    w = f.param("weight", block.stream.size)
    params = f.param("params", block.params.size, "int32")
    offsets = f.param("offset", block.offsets.size, "uint32")
    if columns is not None and columns.pattern is not None:
        pattern = f.param("pattern", columns.pattern.size, "uint8")
        args.append(columns.pattern)
    else:
        pattern = None
    y = f.param("y", out_h * out_w * outputs)
    source = x
    if columns is not None:
        source = f.scratch("columns", columns.size)
        columns.clear(f, source)
    offset = f.let("offsets", mve.vldrw_u32(address(offsets, 0)))
    with f.loop("oy", out_h) as oy:
        if columns is not None:
            columns.fill(f, x, source, oy, pattern)
        with f.loop("pair", -(-out_w // 2)) as pair:
            # With an odd number of pixels the last pair computes one of them again.
            ox = f.let("ox", lesser(pair * 2, out_w - 2) if out_w % 2 else pair * 2)
            base = f.let("base", oy * row + ox * pixel)
            out = f.let("out", (oy * out_w + ox) * outputs)
            block.write(f, source, base, w, params, offset, y, out)
    return Kernel(f.done(), tuple(args), macs=out_h * out_w * weight.size)


class PixelPairs:
    """All output channels of two pixels."""

    def __init__(self, product: Dot, bias: np.ndarray, exact: Requantization, pixel: int) -> None:
        """Args: bias: (o,) folded; pixel: bytes from the first to the second pixel."""
        self._dot, self._exact, self._pixel = product, exact, pixel
        self._outputs = len(bias)
        # With an odd number of channels the first two pairs share one.
        self._pairs = -(-self._outputs // 2)
        channels = np.array([self._first(i) for i in range(self._pairs)])[:, np.newaxis]
        channels = np.maximum(channels, 0) + np.arange(2)
        lanes = np.tile(channels, (1, 2))  # c0 c1 of the first pixel, c0 c1 of the second
        self.stream = np.ascontiguousarray(product.weights[channels].transpose(0, 2, 1, 3)).reshape(
            -1
        )
        self.params = np.stack([bias[lanes], exact.multiplier[lanes], exact.shift[lanes]], 1)
        self.params = self.params.reshape(-1)
        self.offsets = np.array([0, 1, self._outputs, self._outputs + 1], np.uint32)

    def _first(self, pair):
        return pair * 2 - self._outputs % 2

    def write(
        self,
        f: Function,
        x: tirx.Var,
        base: ir.Expr,
        w: tirx.Var,
        params: tirx.Var,
        offsets: ir.Expr,
        y: tirx.Var,
        out: ir.Expr,
    ) -> None:
        count = len(self._dot.starts)
        with f.loop("channels", self._pairs) as pair:
            first = f.let("weights", pair * (2 * count * LANES))
            if count <= _UNROLLED:
                acc = [None] * 4
                for i in range(count):
                    acc = self._multiply(f, acc, x, base, i, w, first)
            else:
                acc = self._loop(f, x, base, w, first)
            value = f.let("acc", mve.vmov_s32(*acc))
            three = [
                f.let(name, mve.vldrw_s32(address(params, pair * 12 + 4 * i)))
                for i, name in enumerate(("bias", "multiplier", "shift"))
            ]
            value = f.let("sum", mve.vadd_s32(value, three[0]))
            result = self._exact.vector(value, *three[1:])
            channel = self._first(pair)
            if self._outputs % 2:
                channel = T.max(channel, T.int32(0))
            f.do(mve.vstrb_scatter_s32(address(y, out + channel), offsets, result))

    def _multiply(self, f, acc, x, base, index, w, first):
        """Adds the products of one vector to the accumulators (c0, c1 of one pixel, the other)."""
        a = f.let("a", self._dot.load(x, base, index))
        b = f.let("b", self._dot.load(x, base + self._pixel, index))
        u = f.let("u", mve.vldrb_s8(address(w, first + 2 * LANES * index)))
        v = f.let("v", mve.vldrb_s8(address(w, first + 2 * LANES * index + LANES)))
        operands = [(a, u), (a, v), (b, u), (b, v)]
        return [
            f.let("acc", mve.vmladav_s8(*o) if s is None else mve.vmladava_s8(s, *o))
            for s, o in zip(acc, operands, strict=True)
        ]

    def _loop(self, f, x, base, w, first):
        """A long dot product: a loop over groups of vectors, and the rest."""
        starts = self._dot.starts
        regular = len(starts) if starts[-1] == LANES * (len(starts) - 1) else len(starts) - 1
        group = max(g for g in range(1, _UNROLLED + 1) if regular % g == 0)
        if group < 4:
            group = 8
        acc = [f.variable(f"acc{i}", T.int32(0)) for i in range(4)]
        with f.loop("group", regular // group) as index:
            values = [a.value for a in acc]
            x_at = f.let("x_at", base + index * (group * LANES))
            w_at = f.let("w_at", first + index * (group * 2 * LANES))
            for i in range(group):
                values = self._multiply(f, values, x, x_at, i, w, w_at)
            for a, value in zip(acc, values, strict=True):
                a.set(value)
        values = [a.value for a in acc]
        for i in range(regular // group * group, len(starts)):
            values = self._multiply(f, values, x, base, i, w, first)
        return values


class Columns:
    """The input columns under one output row, each as the kernel's rows of it."""

    def __init__(
        self, height: int, width: int, channels: int, kernel_h: int, stride: int, top: int,
        left: int, count: int, zero_point: int,
    ) -> None:  # fmt: skip
        self._height, self._width, self._channels = height, width, channels
        self._kernel_h, self._stride, self._top, self._left = kernel_h, stride, top, left
        self._zero_point = zero_point
        self.bytes = kernel_h * channels
        """Bytes of a column."""
        self._copied = min(width, count - left)
        # Behind the last column: what the last vector of the last pixel reads, but does not use.
        self.size = -(-(count * self.bytes + LANES) // LANES) * LANES
        # Rows of few channels are scattered sixteen bytes at a time, in a pattern that repeats.
        self._period = math.lcm(channels, LANES) // LANES
        position = np.arange(self._period * LANES)
        position = position // channels * self.bytes + position % channels
        fits = channels < LANES and channels not in (4, 8) and position.max() < 256
        self.pattern = position.astype(np.uint8) if fits else None

    def clear(self, f: Function, columns: tirx.Var) -> None:
        """Fills the columns with the value of padding."""
        zero = f.let("zero", mve.vdup_s8(T.int8(self._zero_point)))
        with f.loop("i", self.size // LANES) as i:
            f.do(mve.vstrb_s8(address(columns, i * LANES), zero))

    def fill(
        self, f: Function, x: tirx.Var, columns: tirx.Var, oy: ir.Expr, pattern: tirx.Var | None
    ) -> None:
        """Copies the input rows under an output row; rows below the image become padding."""
        with f.loop("ky", self._kernel_h) as ky:
            iy = f.let("iy", oy * self._stride + ky - self._top)
            to = f.let("to", ky * self._channels + self._left * self.bytes)
            inside = tirx.And(iy >= 0, iy < self._height)
            with f.when(inside):
                start = f.let("start", iy * (self._width * self._channels))
                if pattern is not None:
                    self._scatter(f, x, start, columns, to, pattern)
                else:
                    self._copy(f, x, start, columns, to)
            with f.when(iy >= self._height):
                with f.loop("ix", self._copied) as ix, f.loop("c", self._channels) as c:
                    T.buffer_store(columns, T.int8(self._zero_point), [to + ix * self.bytes + c])

    def _copy(self, f, x, start, columns, to):
        channels = self._channels
        with f.loop("ix", self._copied) as ix:
            source = f.let("source", start + ix * channels)
            target = f.let("target", to + ix * self.bytes)
            done = 0
            for lanes, load, store in (
                (16, mve.vldrb_s8, mve.vstrb_s8),
                (8, mve.vldrb_s16, mve.vstrb_s16),
                (4, mve.vldrb_s32, mve.vstrb_s32),
            ):
                while channels - done >= lanes:
                    f.do(store(address(columns, target + done), load(address(x, source + done))))
                    done += lanes
            for c in range(done, channels):
                T.buffer_store(columns, x[source + c], [target + c])

    def _scatter(self, f, x, start, columns, to, pattern):
        """Sixteen bytes at a time."""
        total = self._copied * self._channels
        span = self._period * LANES
        step = span // self._channels * self.bytes
        if total >= span:
            with f.loop("group", total // span) as group:
                for i in range(self._period):
                    self._piece(
                        f, x, start + group * span, columns, to + group * step, pattern, i, LANES
                    )
        done = total // span * span
        for i in range(self._period):
            count = min(total - done - i * LANES, LANES)
            if count > 0:
                self._piece(
                    f, x, start + done, columns, to + done // self._channels * self.bytes,
                    pattern, i, count,
                )  # fmt: skip

    def _piece(self, f, x, start, columns, to, pattern, index, count):
        offset = mve.vldrb_u8(address(pattern, index * LANES))
        at, target = address(x, start + index * LANES), address(columns, to)
        if count == LANES:
            f.do(mve.vstrb_scatter_s8(target, offset, mve.vldrb_s8(at)))
        else:
            value = mve.vldrbt_s8(at, T.int32(count))
            f.do(mve.vstrbt_scatter_s8(target, offset, value, T.int32(count)))
