"""Convolutions with Helium: dot products of sixteen bytes, two pixels times two channels a pass.

A row of the result is computed from its columns. A column holds, for one column of the input, the
input's rows under the window, one after the other: of a 3x3 window over 8 channels 24 bytes. The
operands of a pixel are then contiguous (72 bytes), the next pixel's start one column later, and
each input byte is copied once for each row of the window, not once for each tap. Windows of one
pixel without padding read the input itself.
"""

import math
from dataclasses import dataclass

import numpy as np
from tvm import ir, tirx
from tvm.tirx.script import builder as T

from mcuforge.isa import helium
from mcuforge.kernels.helium.common import (
    LANES,
    LEAST_MACS,
    Biased,
    HighLine,
    by_width,
    exact_requantization,
    is_int8,
    multiply_add,
    scalars,
)
from mcuforge.tir import inplace
from mcuforge.tir.function import Function, address, lesser
from mcuforge.tir.geometry import Geometry
from mcuforge.tir.registry import Kernel, Operation, kernel

# Measured thresholds: instructions an inference, emulated Cortex-M55, gcc 12 and clang 19, -O3.
#
# Most vectors of weights per channel that stay in registers for two channels: of the eight vector
# registers six hold weights. A pointwise convolution of 12x12x48 to 32 channels, three vectors,
# takes 41,489 and 36,271 so, 49,996 and 41,577 with pairs of pixels. One of 64 channels, four
# vectors, 61,825 and 50,241 so, 59,643 and 52,160 with pairs.
_HELD = 3
# Most vectors of operands that stay in registers for all channels, with pairs of pixels. That
# convolution of 64 channels takes 65,402 and 53,385 with none, 58,489 and 53,385 with three, 59,643
# and 52,160 with four, 62,956 and 52,160 with six.
_HELD_OPERANDS = 4
# Longest dot product, in vectors, that is written without a loop. 3x3 over 8x8x16 to 32 channels,
# nine vectors, take 50,389 and 44,960 so, 54,749 and 54,967 with a loop; over 8x8x32, eighteen
# vectors, 101,149 and 101,766 so, 95,917 and 93,532 with a loop.
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
            return helium.vldrbt_s8(at, T.int32(self.tail))
        return helium.vldrw_s8(at) if self.aligned else helium.vldrb_s8(at)


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
    g = operation.geometry
    if not is_int8(operation) or g.groups != 1 or g.dilated or g.batch != 1:
        return None
    weight, bias, scale = (operand.value for operand in operation.args[1:])
    exact = exact_requantization(operation, weight, bias, scale)
    if g.columns.size == g.columns.window == 1 and not g.columns.padded:
        # A column of pixels is computed as a row.
        g, weight = g.transposed(), weight.transpose(0, 2, 1, 3)
    g = g.flattened() if g.pointwise else g
    macs = g.pixels * weight.size
    if exact is None or g.outputs < 2 or g.columns.out < 2 or macs < LEAST_MACS:
        return None
    matrix = weight.transpose(0, 2, 1, 3).reshape(g.outputs, -1)
    plan = _plan(g, matrix, exact, operation.attrs["input_zero_point"])
    columns, block = plan.columns, plan.block

    f = Function("conv2d")
    x = f.param("x", math.prod(g.shape))
    block.declare_weights(f)
    if columns is not None:
        columns.declare(f)
    block.declare_requantization(f)
    y = f.param("y", g.pixels * g.outputs)
    source = x if columns is None else columns.begin(f, x)
    patches = f.scratch("patches", g.pixels * plan.between) if plan.patches else None
    block.begin(f, source if patches is None else patches, y)
    with f.loop("oy", g.rows.out) as oy:
        if columns is not None:
            columns.fill(oy)
        if patches is not None:
            _copy_patches(f, source, patches, plan, oy * g.columns.out)
        else:
            row, out_row = oy * plan.row, oy * (g.columns.out * g.outputs)
            block.write(f.let("row", row), f.let("out_row", out_row), g.columns.out)
    if patches is not None:
        block.write(T.int32(0), T.int32(0), g.pixels)
    distance = _distance(operation.geometry, plan)
    return Kernel(f.done(), (0, *f.constants), inplace={0: distance})


@dataclass(frozen=True)
class _Plan:
    """How a convolution is computed.

    Attributes:
        g: its geometry, perhaps with a column of pixels as a row or all pixels as one row.
        columns: what the operands are read from; None if they are read from the input itself.
        patches: whether the operands of all pixels are copied side by side first.
        pixel: bytes from the operands of one pixel to those of the next one, in what is read.
        row: bytes from one row to the next one, in what is read.
        between: bytes from one pixel to the next one as the block sees it.
        block: computes rows of pixels.
    """

    g: Geometry
    columns: "Columns | None"
    patches: bool
    pixel: int
    row: int
    between: int
    block: "PixelPairs | PixelQuads"


def _plan(g: Geometry, matrix: np.ndarray, exact: Biased | HighLine, zero_point: int) -> _Plan:
    """The plan with the fewest instructions for weights (o, depth)."""
    vectors = -(-matrix.shape[1] // LANES)
    if g.taps == 1 and not g.padded:
        columns, pixel = None, g.columns.stride * g.channels
        row = g.rows.stride * g.columns.size * g.channels
    else:
        columns = Columns(g, zero_point)
        pixel, row = g.columns.stride * columns.bytes, 0
    # Narrow rows leave no room for four pixels at a time. Then the operands of all pixels are
    # copied side by side, if they are no larger than the result.
    patches = (
        columns is not None
        and not PixelQuads.cheaper(vectors, g.columns.out)
        and PixelQuads.cheaper(vectors, g.pixels)
        and vectors * LANES <= g.outputs
    )
    between = vectors * LANES if patches else pixel
    aligned = patches or (columns is not None and pixel % 4 == 0)
    product = dot(matrix, exclusive=columns is None, aligned=aligned)
    quads = patches or PixelQuads.cheaper(vectors, g.columns.out)
    block = (PixelQuads if quads else PixelPairs)(product, exact, between)
    return _Plan(g, columns, patches, pixel, row, between, block)


def _copy_patches(
    f: Function, columns: tirx.Var, patches: tirx.Var, plan: _Plan, first: ir.Expr
) -> None:
    """Copies the operands of a row of pixels side by side; ``first`` is the first one's number."""
    with f.loop("ox", plan.g.columns.out) as ox:
        start = f.let("start", ox * plan.pixel)
        to = f.let("to", (first + ox) * plan.between)
        for at in range(0, plan.between, LANES):
            operand = helium.vldrb_s8(address(columns, start + at))
            f.do(helium.vstrb_s8(address(patches, to + at), operand))


def _distance(original: Geometry, plan: _Plan) -> int:
    """How far below its input the result may start; ``original`` is the operator's geometry."""
    if plan.patches:
        return 0
    # Operands that were copied are read before results are written. Of x itself, a pair of pixels,
    # or with quads a row, is read anew for every two channels.
    direct, quads = plan.columns is None, isinstance(plan.block, PixelQuads)
    width = plan.g.columns.out
    count = 2 if direct and not quads else width
    starts = [
        row * width + start
        for row in range(plan.g.rows.out)
        for start in inplace.group_starts(width, count)
    ]
    return inplace.by_pixels(original, starts, count, reads_first=not direct)


def _channel_pairs(outputs: int) -> np.ndarray:
    """Channels (pairs, 2); of an odd number the first two pairs share one: 0 1, 1 2, 3 4."""
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

    def __init__(self, product: Dot, exact: Biased | HighLine, pixel: int) -> None:
        """See PixelPairs."""
        self._dot, self._exact, self._pixel = product, exact, pixel
        self._outputs = len(product.weights)
        # Two pixels of eight bytes come in one vector, for either a weight vector of its own.
        self._shared = 2 if product.tail == pixel == LANES // 2 else 1
        self._weights = np.concatenate(
            [np.roll(product.weights, i * product.tail, axis=2) for i in range(self._shared)], 1
        )
        # Of each vector only what counts is stored, if that is at its beginning or all of it.
        self._used = [
            int(np.flatnonzero(vector.any(axis=0)).max(initial=0)) + 1
            for vector in self._weights.swapaxes(0, 1)
        ]

    def declare_weights(self, f: Function) -> None:
        """See PixelPairs."""
        kept = [self._weights[:, i, :used] for i, used in enumerate(self._used)]
        rows = np.concatenate(kept, axis=1)
        self._w = f.constant("weight", rows[_channel_pairs(self._outputs)].reshape(-1))

    def declare_requantization(self, f: Function) -> None:
        """See PixelPairs."""
        channels = _channel_pairs(self._outputs)
        self._groups = by_width(self._exact.columns)
        self._params = [
            f.constant("params", group[channels].reshape(-1))
            for group in self._groups
            if group.size
        ]

    def begin(self, f: Function, x: tirx.Var, y: tirx.Var) -> None:
        """See PixelPairs."""
        self._f, self._x, self._y = f, x, y
        # Results go to two channels of the pixels 0, 2, 1 and 3: halfwords, the lower pixel first.
        pixels = [T.uint32(i * self._outputs * 0x10001 + 0x10000) for i in (0, 2, 1, 3)]
        self._places = f.let("offsets", helium.vmov_u16(*pixels))

    def write(self, row: ir.Expr, out: ir.Expr, pixels: int) -> None:
        """See PixelPairs."""
        f = self._f
        with f.loop("channels", -(-self._outputs // 2)) as pair:
            first = pair * (2 * sum(self._used))
            weights = [self._load_weights(first + c * sum(self._used)) for c in range(2)]
            columns = [scalars(f, self._params, self._groups, pair * 2 + c) for c in range(2)]
            target = f.let("target", out + _first_channel(pair, self._outputs))
            with f.loop("quad", pixels // 4) as quad:
                self._four(quad * 4, row, target, weights, columns)
            if pixels % 4:
                # The last four pixels, some of them again.
                self._four(T.int32(pixels - 4), row, target, weights, columns)

    def _load_weights(self, row: ir.Expr) -> list[ir.Expr]:
        """The vectors of a channel whose weights start at ``row``."""
        vectors = []
        for index, used in enumerate(self._used):
            at = address(self._w, row + sum(self._used[:index]))
            vector = helium.vldrb_s8(at) if used == LANES else helium.vldrbt_s8(at, T.int32(used))
            vectors.append(self._f.let("w", vector))
        return vectors

    def _four(
        self,
        ox: ir.Expr,
        row: ir.Expr,
        target: ir.Expr,
        weights: list[list[ir.Expr]],
        columns: list[list[ir.Expr]],
    ) -> None:
        """Both channels of four pixels."""
        f = self._f
        sums = [[], []]
        base = f.let("x_at", row + ox * self._pixel)
        for i in range(4):
            for c, acc in enumerate(self._pixel_sums(base, i, weights)):
                sums[c].append(acc)
        results = []
        for acc, own in zip(sums, columns, strict=True):
            value = f.let("sum", helium.vmov_s32(acc[0], acc[2], acc[1], acc[3]))
            results.append(self._exact.unsaturated(value, *own))
        at = address(self._y, target + ox * self._outputs)
        f.do(helium.vstrb_scatter_s16(at, self._places, helium.vqmovn_pair_s32(*results)))

    def _pixel_sums(self, base: ir.Expr, index: int, weights: list[list[ir.Expr]]) -> list[ir.Expr]:
        """Accumulators of both channels for one pixel."""
        f = self._f
        if self._shared > 1:
            if index % self._shared == 0:
                at = address(self._x, base + index * self._pixel)
                self._loaded = f.let("x", helium.vldrb_s8(at))
            return [f.let("acc", helium.vmladav_s8(self._loaded, c[index % 2])) for c in weights]
        acc = [None, None]
        for i in range(len(self._dot.starts)):
            value = f.let("x", self._dot.load(self._x, base + index * self._pixel, i))
            acc = [
                f.let("acc", multiply_add(a, value, c[i]))
                for a, c in zip(acc, weights, strict=True)
            ]
        return acc


class PixelPairs:
    """Rows of pixels, two at a time, for two channels."""

    def __init__(self, product: Dot, exact: Biased | HighLine, pixel: int) -> None:
        """Chooses how long dot products are cut into loops.

        Args:
            product: the dot product of one output.
            exact: to int8.
            pixel: bytes from a pixel's operands to the next one's.
        """
        self._dot, self._exact, self._pixel = product, exact, pixel
        self._outputs = len(product.weights)
        starts = product.starts
        whole = len(starts) if starts[-1] == LANES * (len(starts) - 1) else len(starts) - 1
        self._group = max(g for g in range(1, _UNROLLED + 1) if whole % g == 0)
        if self._group < 4:
            self._group = 8
        self._groups = whole // self._group if len(starts) > _UNROLLED else 0

    def declare_weights(self, f: Function) -> None:
        """Declares the constants that come before those of ``Columns``."""
        channels = _channel_pairs(self._outputs)
        pairs = len(channels)
        # Behind the weights of two channels come their constants: one pointer walks over all.
        stream = self._dot.weights[channels].transpose(0, 2, 1, 3).reshape(pairs, -1)
        tail = np.stack([v[channels] for v in self._exact.columns], 1)
        tail = tail.astype("<i4").reshape(pairs, -1).view(np.int8)
        stream = np.concatenate([stream, tail], 1)
        self._pairs, self._stride = stream.shape
        self._w = f.constant("weight", stream.reshape(-1))
        # In memory: a loop whose count they know is unrolled by compilers, into more addresses than
        # there are registers.
        count = np.array([self._groups], np.int32)
        self._count = f.constant("count", count) if self._groups else None

    def declare_requantization(self, f: Function) -> None:
        """Declares the constants that come behind those of ``Columns``: here none."""

    def begin(self, f: Function, x: tirx.Var, y: tirx.Var) -> None:
        """Writes what comes before all rows.

        Args:
            f: the function that is written.
            x: holds the operands.
            y: the result.
        """
        self._f, self._x, self._y = f, x, y
        # Results go to channels 0 and 1 of a pixel, and of the next one.
        lanes = (0, 1, self._outputs, self._outputs + 1)
        self._places = f.let("offsets", helium.vmov_u32(*(T.uint32(lane) for lane in lanes)))

    def write(self, row: ir.Expr, out: ir.Expr, pixels: int) -> None:
        """All channels of a row of pixels.

        Args:
            row: where the operands of the first pixel start.
            out: where its results start.
            pixels: their number.
        """
        f = self._f
        with f.loop("pair", -(-pixels // 2)) as index:
            # Of an odd number the last pair computes a pixel of the one before again.
            first = index * 2
            ox = f.let("ox", lesser(first, pixels - 2) if pixels % 2 else first)
            base = f.let("base", row + ox * self._pixel)
            target = f.let("target", out + ox * self._outputs)
            self._channels(base, target)

    def _channels(self, base: ir.Expr, out: ir.Expr) -> None:
        """All channels of two pixels."""
        f, count = self._f, len(self._dot.starts)
        # Operands that all channels share stay in registers, as many as there is room for.
        order = [(pixel, i) for pixel in range(2) for i in range(count)]
        self._held = {
            (pixel, i): f.let("held", self._dot.load(self._x, base + pixel * self._pixel, i))
            for pixel, i in order[:_HELD_OPERANDS]
            if count <= _UNROLLED
        }
        with f.loop("channels", self._pairs) as pair:
            first = f.let("weights", pair * self._stride)
            if count <= _UNROLLED:
                acc = [None] * 4
                for i in range(count):
                    acc = self._multiply(acc, base, i, first)
            else:
                acc = self._loop(base, first)
            value = f.let("acc", helium.vmov_s32(*acc))
            # c0 c1 of the first pixel, c0 c1 of the second.
            tail = first + 2 * count * LANES
            columns = [
                f.let("param", helium.vldrd_s32(address(self._w, tail + i * 8)))
                for i in range(len(self._exact.columns))
            ]
            result = helium.vqmovn_s32(self._exact.unsaturated(value, *columns))
            at = address(self._y, out + _first_channel(pair, self._outputs))
            f.do(helium.vstrb_scatter_s32(at, self._places, result))

    def _multiply(
        self, acc: list[ir.Expr | None], base: ir.Expr, index: int, first: ir.Expr
    ) -> list[ir.Expr]:
        """Adds the products of one vector to the accumulators (c0, c1 of one pixel, the other)."""
        f = self._f
        a, b = (
            self._held[i, index]
            if (i, index) in self._held
            else f.let("ab"[i], self._dot.load(self._x, base + i * self._pixel, index))
            for i in range(2)
        )
        u = f.let("u", helium.vldrw_s8(address(self._w, first + 2 * LANES * index)))
        v = f.let("v", helium.vldrw_s8(address(self._w, first + 2 * LANES * index + LANES)))
        operands = [(a, u), (a, v), (b, u), (b, v)]
        return [f.let("acc", multiply_add(s, *o)) for s, o in zip(acc, operands, strict=True)]

    def _loop(self, base: ir.Expr, first: ir.Expr) -> list[ir.Expr]:
        """A long dot product: a loop over groups of vectors, and the rest."""
        f = self._f
        acc = [f.variable(f"acc{i}", T.int32(0)) for i in range(4)]
        with f.loop("group", self._count[0]) as index:
            values = [a.value for a in acc]
            x_at = f.let("x_at", base + index * (self._group * LANES))
            w_at = f.let("w_at", first + index * (self._group * 2 * LANES))
            for i in range(self._group):
                values = self._multiply(values, x_at, i, w_at)
            for a, value in zip(acc, values, strict=True):
                a.set(value)
        values = [a.value for a in acc]
        for i in range(self._groups * self._group, len(self._dot.starts)):
            values = self._multiply(values, base, i, first)
        return values


class Columns:
    """The input columns under one row of the result, each as the window's rows of it."""

    def __init__(self, g: Geometry, zero_point: int) -> None:
        """Chooses how rows of the input are copied; padding holds ``zero_point``."""
        self._g, self._zero_point = g, zero_point
        self.bytes = g.rows.window * g.channels
        """Bytes of a column."""
        self._copied = min(g.columns.size, g.columns.span - g.columns.before)
        # Behind the last column: what the last vector of the last pixel reads, but does not use.
        self._size = -(-(g.columns.span * self.bytes + LANES) // LANES) * LANES
        # Rows of few channels are scattered sixteen bytes at a time, in a pattern that repeats: of
        # 3 channels and a 2-row window bytes go to 0 1 2, 6 7 8, 12 13 14 and so on.
        self._period = math.lcm(g.channels, LANES) // LANES
        position = np.arange(self._period * LANES)
        position = position // g.channels * self.bytes + position % g.channels
        fits = g.channels < LANES and g.channels not in (4, 8) and position.max() < 256
        self._positions = position.astype(np.uint8) if fits else None

    def declare(self, f: Function) -> None:
        """Declares the constants."""
        positions = self._positions
        self._pattern = None if positions is None else f.constant("pattern", positions)

    def begin(self, f: Function, x: tirx.Var) -> tirx.Var:
        """Allocates the columns and fills them with the value of padding; returns them."""
        self._f, self._x = f, x
        self._columns = f.scratch("columns", self._size)
        zero = f.let("zero", helium.vdup_s8(T.int8(self._zero_point)))
        with f.loop("i", self._size // LANES) as i:
            f.do(helium.vstrb_s8(address(self._columns, i * LANES), zero))
        return self._columns

    def fill(self, oy: ir.Expr) -> None:
        """Copies the input rows under a row of the result; below the image there is padding."""
        f, g = self._f, self._g
        with f.loop("ky", g.rows.window) as ky:
            iy = f.let("iy", oy * g.rows.stride + ky - g.rows.before)
            to = f.let("to", ky * g.channels + g.columns.before * self.bytes)
            inside = tirx.And(iy >= 0, iy < g.rows.size)
            with f.when(inside):
                start = f.let("start", iy * (g.columns.size * g.channels))
                if self._pattern is not None:
                    self._scatter(start, to)
                else:
                    self._copy(start, to)
            with (
                f.when(iy >= g.rows.size),
                f.loop("ix", self._copied) as ix,
                f.loop("c", g.channels) as c,
            ):
                f.store(self._columns, to + ix * self.bytes + c, T.int8(self._zero_point))

    def _copy(self, start: ir.Expr, to: ir.Expr) -> None:
        """A row, pixel by pixel."""
        f, channels = self._f, self._g.channels
        with f.loop("ix", self._copied) as ix:
            source = f.let("source", start + ix * channels)
            target = f.let("target", to + ix * self.bytes)
            done = 0
            for lanes, load, store in (
                (16, helium.vldrb_s8, helium.vstrb_s8),
                (8, helium.vldrb_s16, helium.vstrb_s16),
                (4, helium.vldrb_s32, helium.vstrb_s32),
            ):
                while channels - done >= lanes:
                    piece = load(address(self._x, source + done))
                    f.do(store(address(self._columns, target + done), piece))
                    done += lanes
            for c in range(done, channels):
                f.store(self._columns, target + c, self._x[source + c])

    def _scatter(self, start: ir.Expr, to: ir.Expr) -> None:
        """A row, sixteen bytes at a time."""
        channels = self._g.channels
        total, span = self._copied * channels, self._period * LANES
        step = span // channels * self.bytes
        if total >= span:
            with self._f.loop("group", total // span) as group:
                for i in range(self._period):
                    self._piece(start + group * span, to + group * step, i, LANES)
        done = total // span * span
        for i in range(self._period):
            count = min(total - done - i * LANES, LANES)
            if count > 0:
                self._piece(start + done, to + done // channels * self.bytes, i, count)

    def _piece(self, start: ir.Expr, to: ir.Expr, index: int, count: int) -> None:
        """Piece number ``index`` of a period, or its first ``count`` bytes."""
        f = self._f
        offset = helium.vldrb_u8(address(self._pattern, index * LANES))
        at, target = address(self._x, start + index * LANES), address(self._columns, to)
        if count == LANES:
            f.do(helium.vstrb_scatter_s8(target, offset, helium.vldrb_s8(at)))
        else:
            value = helium.vldrbt_s8(at, T.int32(count))
            f.do(helium.vstrbt_scatter_s8(target, offset, value, T.int32(count)))
