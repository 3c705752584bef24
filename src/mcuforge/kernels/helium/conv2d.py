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

from mcuforge.isa import helium as mve
from mcuforge.kernels.helium.common import (
    LANES,
    LEAST_MACS,
    Biased,
    Line,
    by_width,
    is_int8,
    requantization,
    scalars,
)
from mcuforge.tir import inplace
from mcuforge.tir.function import Function, address, lesser
from mcuforge.tir.registry import Kernel, Operation, kernel

# Most vectors of weights per channel that stay in registers for two channels.
_HELD = 3
# Most vectors of operands that stay in registers for all channels.
_HELD_OPERANDS = 4
# Longest dot product, in vectors, that is written without a loop.
_UNROLLED = 10


@dataclass(frozen=True)
class Dot:
    """How a dot product over contiguous bytes is cut into vectors.

    Attributes:
        starts: byte offset of each vector.
        weights: (o, vectors, 16) int8, zero in lanes that do not count.
        tail: bytes of the only vector, if more must not be read; else 0.
        aligned: whether operands start at multiples of four.
    """

    starts: tuple[int, ...]
    weights: np.ndarray
    tail: int = 0
    aligned: bool = False

    def load(self, x: tirx.Var, base: ir.Expr, index: int) -> ir.Expr:
        """The operand of vector number ``index``."""
        at = address(x, base + self.starts[index])
        if self.tail:
            return mve.vldrbt_s8(at, T.int32(self.tail))
        return mve.vldrw_s8(at) if self.aligned else mve.vldrb_s8(at)


def dot(weight: np.ndarray, exclusive: bool, aligned: bool = False) -> Dot:
    """Cuts the rows of a matrix (o, depth).

    Args:
        weight: int8.
        exclusive: whether bytes behind the operands must not be read. The last vector then ends
            with the operands, and lanes it shares with the one before count only there.
        aligned: see Dot.
    """
    outputs, depth = weight.shape
    count = -(-depth // LANES)
    starts = [LANES * i for i in range(count)]
    packed = np.zeros((outputs, count, LANES), np.int8)
    if exclusive and count > 1:
        starts[-1] = depth - LANES
    for i, start in enumerate(starts):
        end = starts[i + 1] if i + 1 < count else depth
        packed[:, i, : end - start] = weight[:, start:end]
    tail = depth if exclusive and depth < LANES else 0
    return Dot(tuple(starts), packed, tail, aligned)


@kernel("conv2d", opt_level=3, needs={"helium"})
def _conv2d(operation: Operation) -> Kernel | None:
    attrs = operation.attrs
    batch, height, width, channels = operation.args[0].shape
    _, out_h, out_w, outputs = operation.out.shape
    if not is_int8(operation) or attrs["groups"] != 1 or tuple(attrs["dilation"]) != (1, 1):
        return None
    weight, bias, scale = (operand.value for operand in operation.args[1:])
    _, kernel_h, kernel_w, _ = weight.shape
    (sy, sx), padding = attrs["strides"], attrs["padding"]
    exact = requantization(operation, weight, bias, scale)
    if width == kernel_w == 1 and not padding[1] and not padding[3]:
        # A column of pixels: lay it down as a row.
        weight, kernel_w, kernel_h = weight.transpose(0, 2, 1, 3), kernel_h, 1
        height, width, out_h, out_w = 1, height, 1, out_h
        sy, sx, padding = 1, sy, (0, padding[0], 0, padding[2])
    direct = kernel_h == kernel_w == 1 and not any(padding)
    if direct and sy == sx == 1:
        height, width, out_h, out_w = 1, height * width, 1, out_h * out_w
    if exact is None or batch != 1 or outputs < 2 or out_w < 2:
        return None
    if out_h * out_w * weight.size < LEAST_MACS:
        return None

    f = Function("conv2d")
    x = f.param("x", height * width * channels)
    args: list[int | np.ndarray] = [0]
    matrix = weight.transpose(0, 2, 1, 3).reshape(outputs, -1)
    if direct:
        columns, pixel, row = None, sx * channels, sy * width * channels
    else:
        columns = Columns(
            height, width, channels, kernel_h, sy, padding[0], padding[1],
            (out_w - 1) * sx + kernel_w, attrs["input_zero_point"],
        )  # fmt: skip
        pixel, row = sx * columns.bytes, 0
    vectors, pixels = -(-matrix.shape[1] // LANES), out_h * out_w
    # Of narrow rows, the operands of all pixels are copied side by side, if they are no larger than
    # the result.
    patches = (
        columns is not None
        and not PixelQuads.cheaper(vectors, out_w)
        and PixelQuads.cheaper(vectors, pixels)
        and vectors * LANES <= outputs
    )
    between = vectors * LANES if patches else pixel
    aligned = patches or (columns is not None and pixel % 4 == 0)
    product = dot(matrix, direct, aligned)
    quads = patches or PixelQuads.cheaper(vectors, out_w)
    block = (PixelQuads if quads else PixelPairs)(product, exact, between)
    parameters = {"weight": block.stream, "count": block.count}
    if columns is not None:
        parameters["pattern"] = columns.pattern
    parameters = {name: value for name, value in parameters.items() if value is not None}
    args += [*parameters.values(), *block.params]
    constants = {
        name: f.param(name, value.size, str(value.dtype)) for name, value in parameters.items()
    }
    constants["params"] = [f.param("params", v.size, str(v.dtype)) for v in block.params]
    y = f.param("y", pixels * outputs)
    source = operands = x
    if columns is not None:
        source = operands = f.scratch("columns", columns.size)
        columns.clear(f, source)
    if patches:
        operands = f.scratch("patches", pixels * between)
    constants["offset"] = f.let("offsets", block.offsets())
    with f.loop("oy", out_h) as oy:
        if columns is not None:
            columns.fill(f, x, source, oy, constants.get("pattern"))
        if patches:
            with f.loop("ox", out_w) as ox:
                start, to = f.let("start", ox * pixel), f.let("to", (oy * out_w + ox) * between)
                for at in range(0, between, LANES):
                    operand = mve.vldrb_s8(address(source, start + at))
                    f.do(mve.vstrb_s8(address(operands, to + at), operand))
        else:
            base, out = f.let("row", oy * row), f.let("out_row", oy * (out_w * outputs))
            block.write(f, operands, base, constants, y, out, out_w)
    if patches:
        block.write(f, operands, T.int32(0), constants, y, T.int32(0), pixels)
    # Operands copied are read before results are written; of x itself, a pair of pixels, or with
    # quads a row, is read anew for every two channels.
    count = 2 if direct and not quads else out_w
    starts = [y * out_w + x for y in range(out_h) for x in inplace.group_starts(out_w, count)]
    distance = 0 if patches else inplace.by_pixels(operation.geometry, starts, count, not direct)
    macs = out_h * out_w * weight.size
    return Kernel(f.done(), tuple(args), macs=macs, inplace={0: distance})


def _pixels(f: Function, name: str, index: ir.Expr, group: int, count: int) -> ir.Expr:
    """First pixel of a group; the last group may compute pixels of the one before again."""
    first = index * group
    return f.let(name, lesser(first, count - group) if count % group else first)


def _channel_pairs(outputs: int) -> np.ndarray:
    """Channels (pairs, 2); with an odd number the first two pairs share one."""
    first = np.maximum(np.arange(-(-outputs // 2)) * 2 - outputs % 2, 0)
    return first[:, np.newaxis] + np.arange(2)


def _first_channel(pair: ir.Expr, outputs: int) -> ir.Expr:
    return T.max(pair * 2 - 1, T.int32(0)) if outputs % 2 else pair * 2


class PixelQuads:
    """Rows of pixels, four at a time, for two channels whose weights stay in registers."""

    @staticmethod
    def cheaper(vectors: int, pixels: int) -> bool:
        """Whether this takes fewer instructions than PixelPairs for a row and two channels."""
        mine = 20 + -(-pixels // 4) * (12 * vectors + 24)
        return vectors <= _HELD and pixels >= 4 and mine < -(-pixels // 2) * (8 * vectors + 15)

    def __init__(self, product: Dot, exact: Biased | Line, pixel: int) -> None:
        """See PixelPairs."""
        self._dot, self._exact, self._pixel = product, exact, pixel
        self._outputs = len(product.weights)
        channels = _channel_pairs(self._outputs)
        # Two pixels of eight bytes come in one vector, for either a weight vector of its own.
        self._shared = 2 if product.tail == pixel == LANES // 2 else 1
        weights = np.concatenate(
            [np.roll(product.weights, i * product.tail, axis=2) for i in range(self._shared)], 1
        )
        self._vectors = weights.shape[1]
        # Of each vector only what counts is stored, if that is at its beginning or all of it.
        self._used = [
            int(np.flatnonzero(weights[:, i].any(axis=0)).max(initial=0)) + 1
            for i in range(self._vectors)
        ]
        kept = [weights[:, i, :used] for i, used in enumerate(self._used)]
        rows = np.concatenate(kept, axis=1)
        self._row = rows.shape[1]
        self.stream = np.ascontiguousarray(rows[channels]).reshape(-1)
        self._groups = by_width(exact.columns)
        self.params = [group[channels].reshape(-1) for group in self._groups if group.size]
        self.count = None

    def offsets(self) -> ir.Expr:
        """Where results go: two channels of the pixels 0, 2, 1, 3."""
        pixels = [T.uint32(i * self._outputs * 0x10001 + 0x10000) for i in (0, 2, 1, 3)]
        return mve.vmov_u16(*pixels)

    def write(
        self,
        f: Function,
        x: tirx.Var,
        row: ir.Expr,
        constants: dict[str, ir.Expr],
        y: tirx.Var,
        out: ir.Expr,
        pixels: int,
    ) -> None:
        """See PixelPairs."""
        w, params, offsets = (constants[name] for name in ("weight", "params", "offset"))
        with f.loop("channels", -(-self._outputs // 2)) as pair:
            first = pair * (2 * self._row)
            weights = [
                [f.let("w", self._weights(w, first + c * self._row, i))
                 for i in range(self._vectors)]
                for c in range(2)
            ]  # fmt: skip
            columns = [scalars(f, params, self._groups, pair * 2 + c) for c in range(2)]
            target = f.let("target", out + _first_channel(pair, self._outputs))

            def four(ox):
                sums = [[], []]
                base = f.let("x_at", row + ox * self._pixel)
                for i in range(4):
                    for c, acc in enumerate(self._pixel_sums(f, x, base, i, weights)):
                        sums[c].append(acc)
                results = []
                for acc, own in zip(sums, columns, strict=True):
                    value = f.let("sum", mve.vmov_s32(acc[0], acc[2], acc[1], acc[3]))
                    results.append(self._exact.unsaturated(value, *own))
                at = address(y, target + ox * self._outputs)
                f.do(mve.vstrb_scatter_s16(at, offsets, mve.vqmovn_pair_s32(*results)))

            with f.loop("quad", pixels // 4) as quad:
                four(quad * 4)
            if pixels % 4:
                # The last four pixels, some of them again.
                four(T.int32(pixels - 4))

    def _weights(self, w, row, index):
        at, used = address(w, row + sum(self._used[:index])), self._used[index]
        return mve.vldrb_s8(at) if used == LANES else mve.vldrbt_s8(at, T.int32(used))

    def _pixel_sums(self, f, x, base, index, weights):
        """Accumulators of both channels for one pixel."""
        if self._shared > 1:
            if index % self._shared == 0:
                at = address(x, base + index * self._pixel)
                self._loaded = f.let("x", mve.vldrb_s8(at))
            return [f.let("acc", mve.vmladav_s8(self._loaded, c[index % 2])) for c in weights]
        acc = [None, None]
        for i in range(len(self._dot.starts)):
            value = f.let("x", self._dot.load(x, base + index * self._pixel, i))
            acc = [
                f.let(
                    "acc",
                    mve.vmladav_s8(value, c[i]) if a is None else mve.vmladava_s8(a, value, c[i]),
                )
                for a, c in zip(acc, weights, strict=True)
            ]
        return acc


class PixelPairs:
    """Rows of pixels, two at a time, for two channels."""

    def __init__(self, product: Dot, exact: Biased | Line, pixel: int) -> None:
        """Prepares weights (``stream``) and ``params``, if any.

        Args:
            product: the dot product of one output.
            exact: to int8.
            pixel: bytes from a pixel's operands to the next one's.
        """
        self._dot, self._exact, self._pixel = product, exact, pixel
        self._outputs = len(product.weights)
        channels = _channel_pairs(self._outputs)
        self._pairs = len(channels)
        # Behind the weights of two channels come their constants: one pointer walks over all.
        stream = product.weights[channels].transpose(0, 2, 1, 3).reshape(self._pairs, -1)
        tail = np.stack([v[channels] for v in exact.columns], 1)
        tail = tail.astype("<i4").reshape(self._pairs, -1).view(np.int8)
        stream = np.concatenate([stream, tail], 1)
        self._stride, self.stream, self.params = stream.shape[1], stream.reshape(-1), []
        starts = product.starts
        whole = len(starts) if starts[-1] == LANES * (len(starts) - 1) else len(starts) - 1
        self._group = max(g for g in range(1, _UNROLLED + 1) if whole % g == 0)
        if self._group < 4:
            self._group = 8
        self._groups = whole // self._group if len(starts) > _UNROLLED else 0
        # In memory: a loop whose count they know is unrolled by compilers, into more addresses than
        # there are registers.
        self.count = np.array([self._groups], np.int32) if self._groups else None

    def write(
        self,
        f: Function,
        x: tirx.Var,
        row: ir.Expr,
        constants: dict[str, ir.Expr],
        y: tirx.Var,
        out: ir.Expr,
        pixels: int,
    ) -> None:
        """All channels of a row of pixels.

        Args:
            f: the function that is written.
            x: holds the operands.
            row: where those of the first pixel start.
            constants: ``weight`` and ``params``: buffers of ``stream`` and ``params``; ``offset``:
                ``offsets()``.
            y: the result.
            out: where the first pixel's starts.
            pixels: their number.
        """
        with f.loop("pair", -(-pixels // 2)) as index:
            ox = _pixels(f, "ox", index, 2, pixels)
            base = f.let("base", row + ox * self._pixel)
            target = f.let("target", out + ox * self._outputs)
            self._channels(f, x, base, constants, y, target)

    def offsets(self) -> ir.Expr:
        """Where results go."""
        lanes = (0, 1, self._outputs, self._outputs + 1)
        return mve.vmov_u32(*(T.uint32(lane) for lane in lanes))

    def _channels(self, f, x, base, constants, y, out):
        w, offsets, groups = (constants.get(name) for name in ("weight", "offset", "count"))
        count = len(self._dot.starts)
        # Operands that all channels share stay in registers, as many as there is room for.
        order = [(pixel, i) for pixel in range(2) for i in range(count)]
        self._held = {
            (pixel, i): f.let("held", self._dot.load(x, base + pixel * self._pixel, i))
            for pixel, i in order[:_HELD_OPERANDS]
            if count <= _UNROLLED
        }
        with f.loop("channels", self._pairs) as pair:
            first = f.let("weights", pair * self._stride)
            if count <= _UNROLLED:
                acc = [None] * 4
                for i in range(count):
                    acc = self._multiply(f, acc, x, base, i, w, first)
            else:
                acc = self._loop(f, x, base, w, first, groups)
            value = f.let("acc", mve.vmov_s32(*acc))
            # c0 c1 of the first pixel, c0 c1 of the second.
            columns = [
                f.let("param", mve.vldrd_s32(address(w, first + 2 * count * LANES + i * 8)))
                for i in range(len(self._exact.columns))
            ]
            result = mve.vqmovn_s32(self._exact.unsaturated(value, *columns))
            channel = _first_channel(pair, self._outputs)
            f.do(mve.vstrb_scatter_s32(address(y, out + channel), offsets, result))

    def _multiply(self, f, acc, x, base, index, w, first):
        """Adds the products of one vector to the accumulators (c0, c1 of one pixel, the other)."""
        a, b = (
            self._held[i, index]
            if (i, index) in self._held
            else f.let("ab"[i], self._dot.load(x, base + i * self._pixel, index))
            for i in range(2)
        )
        u = f.let("u", mve.vldrw_s8(address(w, first + 2 * LANES * index)))
        v = f.let("v", mve.vldrw_s8(address(w, first + 2 * LANES * index + LANES)))
        operands = [(a, u), (a, v), (b, u), (b, v)]
        return [
            f.let("acc", mve.vmladav_s8(*o) if s is None else mve.vmladava_s8(s, *o))
            for s, o in zip(acc, operands, strict=True)
        ]

    def _loop(self, f, x, base, w, first, groups):
        """A long dot product: a loop over groups of vectors, and the rest."""
        acc = [f.variable(f"acc{i}", T.int32(0)) for i in range(4)]
        with f.loop("group", groups[0]) as index:
            values = [a.value for a in acc]
            x_at = f.let("x_at", base + index * (self._group * LANES))
            w_at = f.let("w_at", first + index * (self._group * 2 * LANES))
            for i in range(self._group):
                values = self._multiply(f, values, x, x_at, i, w, w_at)
            for a, value in zip(acc, values, strict=True):
                a.set(value)
        values = [a.value for a in acc]
        for i in range(self._groups * self._group, len(self._dot.starts)):
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
            with (
                f.when(iy >= self._height),
                f.loop("ix", self._copied) as ix,
                f.loop("c", self._channels) as c,
            ):
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
