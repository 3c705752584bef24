"""Depthwise convolutions with Helium: several outputs from one vector of input.

For each channel the input plane is copied, padded, to a small buffer. A gather load then takes a
patch of it, up to sixteen bytes, and each output under the patch is one dot product with the
channel's weights, shifted to the output's place in the patch. Windows of more than sixteen taps and
dilated ones take an output at a time, large ones in several parts.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product

import numpy as np
from tvm import ir, tirx
from tvm.tirx.script import builder as T

from mcuforge.isa import helium
from mcuforge.kernels.helium.common import (
    LANES,
    LEAST_MACS,
    by_width,
    exact_requantization,
    is_int8,
    multiply_add,
    scalars,
)
from mcuforge.tir.function import Function, address, lesser
from mcuforge.tir.geometry import Geometry
from mcuforge.tir.registry import SAME_PLACE, Kernel, Operation, kernel

# Offsets of a gather load are bytes.
_REACH = 256
# Most bytes by which a channel's weights are padded to a vector at opt_level 3: what a model's
# constants may take above its weights is a tenth. Padding them at opt_level 4 takes 72,588 and
# 55,244 instructions for 3x3 over 25x5x64 on an emulated Cortex-M55 (gcc 12 and clang 19, -O3),
# scattering them 72,156 and 55,965.
_MOST_PADDING = 6
# Most patches an output is summed from: their weights stay in registers. 8x8 over 16x16x8, four
# patches, take 34,882 and 32,046 instructions there, scalar loops 1,217,978 and 761,882.
_MOST_PARTS = 4
# An estimate of a group's instructions beside loads and dot products: those that put the sums into
# a vector, requantize and store it, and those of the loop. 5x3 over 16x16x8 takes 13,716 and
# 13,446 instructions there with 5, 11 and 22, and 35,072 and 26,468 with 0. The estimate is not the
# best for every layer: 3x3 over 25x5x64 takes 72,156 and 55,965 with 11, 57,683 and 55,056 with 22.
_GROUP_COST = 11


@dataclass(frozen=True)
class Tiling:
    """Which outputs are computed together.

    Attributes:
        patch: height and width of the input under a tile.
        tile: outputs (rows, columns) from one patch.
        group: outputs (rows, columns) requantized together, at most four; a multiple of the tile.
        parts: first row of taps in each of the patches that an output is summed from.
    """

    patch: tuple[int, int]
    tile: tuple[int, int]
    group: tuple[int, int]
    parts: tuple[int, ...] = (0,)

    @property
    def tiles(self) -> list[tuple[int, int]]:
        """First output of each tile in a group."""
        (gh, gw), (th, tw) = self.group, self.tile
        return list(product(range(0, gh, th), range(0, gw, tw)))

    @property
    def members(self) -> list[tuple[int, int]]:
        """The four outputs of a group; of fewer the last one is computed more than once."""
        members = list(np.ndindex(self.group))
        return members + [members[-1]] * (4 - len(members))


def tiling(g: Geometry) -> Tiling | None:
    """The tiling with the fewest instructions, or None if taps do not fit a few vectors."""
    best, least = None, math.inf
    out, taps = (g.rows.out, g.columns.out), (g.rows.window, g.columns.window)
    stride = (g.rows.stride, g.columns.stride)
    rows = min(LANES // taps[1], taps[0])
    if not rows or -(-taps[0] // rows) > _MOST_PARTS:
        return None
    parts = tuple(min(row, taps[0] - rows) for row in range(0, taps[0], rows))
    tiles = ((2, 2), (1, 4), (4, 1), (1, 3), (3, 1), (1, 2), (2, 1), (1, 1))
    for tile in tiles[-1:] if g.dilated or len(parts) > 1 else tiles:
        taken = (rows, taps[1])
        patch = tuple((t - 1) * s + k for t, s, k in zip(tile, stride, taken, strict=True))
        if patch[0] * patch[1] > LANES:
            continue
        for group in product(range(tile[0], 5, tile[0]), range(tile[1], 5, tile[1])):
            if group[0] * group[1] > 4 or group[0] > out[0] or group[1] > out[1]:
                continue
            candidate = Tiling(patch, tile, group, parts)
            groups = -(-out[0] // group[0]) * -(-out[1] // group[1])
            loads = 2 * len(candidate.tiles) + group[0] * group[1]
            cost = groups * (_GROUP_COST + len(parts) * loads)
            if cost < least:
                best, least = candidate, cost
    return best


@kernel("depthwise_conv2d", opt_level=3, needs={"helium"})
def _compact(operation: Operation) -> Kernel | None:
    return _depthwise(operation, _MOST_PADDING)


@kernel("depthwise_conv2d", opt_level=4, needs={"helium"})
def _padded(operation: Operation) -> Kernel | None:
    return _depthwise(operation, LANES)


def _depthwise(operation: Operation, most_padding: int) -> Kernel | None:
    """With weights padded to a vector if that takes no more than so many bytes a channel."""
    g = operation.geometry
    if not is_int8(operation) or g.batch != 1:
        return None
    weight, bias, scale = (operand.value for operand in operation.args[1:])
    tiles, macs = tiling(g), g.pixels * weight.size
    if tiles is None or macs < LEAST_MACS:
        return None
    by_channel = np.ascontiguousarray(weight.transpose(2, 0, 1))
    exact = exact_requantization(operation, by_channel, bias, scale)
    plane = Plane(g, operation.attrs["input_zero_point"])
    patches = _Patches(g, tiles, plane.pitch)
    if exact is None or patches.reach > _REACH:
        return None
    weights = _Weights(g, tiles, by_channel, most_padding)
    groups = by_width(exact.columns)

    f = Function("depthwise_conv2d")
    x = f.param("x", math.prod(g.shape))
    weights.declare(f)
    params = [f.constant("params", group.reshape(-1)) for group in groups if group.size]
    patches.declare(f)
    plane.declare(f)
    y = f.param("y", math.prod(g.out_shape))
    source = plane.begin(f, x, weights.scratch)
    patches.begin(f, source)
    places = _places(f, g, tiles)
    weights.begin(f, source, plane.size)
    multiple = g.outputs // g.channels
    with f.loop("c", g.channels) as c:
        plane.fill(c)
        with f.loop("m", multiple) as m:
            o = f.let("o", c * multiple + m)
            vectors = weights.load(o)
            constants = scalars(f, params, groups, o)
            with _groups(f, g, tiles) as (oy, ox):
                value = f.let("sum", helium.vmov_s32(*patches.sums(oy, ox, vectors)))
                out = (oy * g.columns.out + ox) * g.outputs + o
                result = helium.vqmovn_s32(exact.unsaturated(value, *constants))
                f.do(helium.vstrb_scatter_s32(address(y, out), places, result))
    # A channel is read entirely before it is written.
    inplace = {0: SAME_PLACE} if g.shape == g.out_shape else {}
    return Kernel(f.done(), (0, *f.constants), inplace=inplace)


@contextmanager
def _groups(f: Function, g: Geometry, tiles: Tiling) -> Iterator[tuple[ir.Expr, ir.Expr]]:
    """Loops over groups of outputs; (oy, ox) is the first output of one."""
    height, width = tiles.group
    with f.loop("gy", -(-g.rows.out // height)) as gy:
        oy = _start(f, "oy", gy, height, g.rows.out)
        with f.loop("gx", -(-g.columns.out // width)) as gx:
            yield oy, _start(f, "ox", gx, width, g.columns.out)


def _start(f: Function, name: str, index: ir.Expr, group: int, extent: int) -> ir.Expr:
    """First output of a group; the last group may overlap the one before."""
    start = index * group
    return f.let(name, lesser(start, extent - group) if extent % group else start)


def _places(f: Function, g: Geometry, tiles: Tiling) -> ir.Expr:
    """Where the outputs of a group go, from the first one on."""
    targets = (T.uint32((y * g.columns.out + x) * g.outputs) for y, x in tiles.members)
    return f.let("scatter", helium.vmov_u32(*targets))


class _Weights:
    """A channel's weights at their places in a patch, for each output of a tile.

    The first output's weights lie at the beginning of a vector: those of a 3x3 window in a patch of
    3x4 inputs as ``w0 w1 w2 0 w3 w4 w5 0 w6 w7 w8 0``. Another output's are the same bytes read
    from a lower address, since what is before them is zero: the next output's from one byte below.
    """

    def __init__(
        self, g: Geometry, tiles: Tiling, by_channel: np.ndarray, most_padding: int
    ) -> None:
        """Packs the weights.

        Args:
            g: the convolution.
            tiles: which outputs are computed together.
            by_channel: (o, kh, kw) int8.
            most_padding: bytes a channel's weights may be padded by. If they need more, they are
                stored without gaps and scattered to their places for every channel.
        """
        self._taps, self._parts = g.taps, len(tiles.parts)
        self._compact = self._parts == 1 and LANES - g.taps > most_padding
        width = tiles.patch[1]
        self._shifts = {
            (i, j): i * g.rows.stride * width + j * g.columns.stride
            for i, j in np.ndindex(tiles.tile)
        }
        self._furthest = max(self._shifts.values())
        self.scratch = LANES + (self._furthest if self._compact else 0)
        """Bytes needed behind the plane."""
        packed = np.zeros((g.outputs * self._parts + 1, LANES), np.int8)
        ends = [*tiles.parts[1:], g.rows.window]
        for part, (row, end) in enumerate(zip(tiles.parts, ends, strict=True)):
            # Of patches that overlap, the later one counts.
            places = [y * width + x for y, x in np.ndindex(end - row, g.columns.window)]
            packed[part + 1 :: self._parts, places] = by_channel[:, row:end].reshape(g.outputs, -1)
        self._packed = by_channel.reshape(-1) if self._compact else packed
        self._places = np.array((places + [0] * LANES)[:LANES], np.uint8)

    def declare(self, f: Function) -> None:
        """Declares the constants."""
        self._w = f.constant("weight", self._packed)
        if self._compact:
            self._place_at = f.constant("places", self._places)

    def begin(self, f: Function, plane: tirx.Var, behind: int) -> None:
        """Clears the bytes around scattered weights, which are ``behind`` the plane."""
        self._f, self._plane, self._first = f, plane, T.int32(behind + self._furthest)
        for at in sorted({behind, behind + self._furthest} if self._compact else ()):
            f.do(helium.vstrb_s8(address(plane, at), helium.vdup_s8(T.int8(0))))

    def load(self, o: ir.Expr) -> list[dict[tuple[int, int], ir.Expr]]:
        """An output channel's vectors: for each part, for each output of a tile."""
        f = self._f
        source, first = self._w, (o * self._parts + 1) * LANES
        if self._compact:
            source, first = self._plane, self._first
            count = T.int32(self._taps)
            taken = helium.vldrbt_s8(address(self._w, o * self._taps), count)
            to = helium.vldrb_u8(address(self._place_at, 0))
            f.do(helium.vstrbt_scatter_s8(address(source, first), to, taken, count))
        first = f.let("first", first)
        return [
            {
                output: f.let("w", helium.vldrb_s8(address(source, first + part * LANES - shift)))
                for output, shift in self._shifts.items()
            }
            for part in range(self._parts)
        ]


class _Patches:
    """The inputs under a tile, taken from the plane as one vector."""

    def __init__(self, g: Geometry, tiles: Tiling, pitch: int) -> None:
        """The plane's rows are ``pitch`` bytes apart."""
        self._g, self._tiles, self._pitch = g, tiles, pitch
        self._between = g.rows.dilation * pitch
        lanes = [y * self._between + x * g.columns.dilation for y, x in np.ndindex(tiles.patch)]
        self.reach = max(lanes) + 1
        """Bytes of the plane from the first to the last one of a patch."""
        self._contiguous = lanes == list(range(len(lanes)))
        self._lanes = (lanes + [0] * LANES)[:LANES]

    def declare(self, f: Function) -> None:
        """Declares the constants."""
        if not self._contiguous:
            self._offsets = f.constant("patch_offset", np.array(self._lanes, np.uint8))

    def begin(self, f: Function, plane: tirx.Var) -> None:
        """Loads what all patches need."""
        self._f, self._plane = f, plane
        if not self._contiguous:
            self._gather = f.let("gather", helium.vldrb_u8(address(self._offsets, 0)))

    def sums(
        self, oy: ir.Expr, ox: ir.Expr, vectors: list[dict[tuple[int, int], ir.Expr]]
    ) -> list[ir.Expr]:
        """Four accumulators: those of the group that starts at output (oy, ox)."""
        f, rows, columns, tiles = self._f, self._g.rows, self._g.columns, self._tiles
        base = f.let("base", oy * (rows.stride * self._pitch) + ox * columns.stride)
        acc = {}
        for (ty, tx), part in product(tiles.tiles, range(len(tiles.parts))):
            row = ty * rows.stride * self._pitch + tiles.parts[part] * self._between
            patch = f.let("patch", self._load(base + (row + tx * columns.stride)))
            for (i, j), vector in vectors[part].items():
                output = ty + i, tx + j
                acc[output] = f.let("acc", multiply_add(acc.get(output), patch, vector))
        return [acc[member] for member in tiles.members]

    def _load(self, at: ir.Expr) -> ir.Expr:
        if self._contiguous:
            return helium.vldrb_s8(address(self._plane, at))
        return helium.vldrb_gather_s8(address(self._plane, at), self._gather)


class Plane:
    """One channel of the input with its padding."""

    def __init__(self, g: Geometry, zero_point: int) -> None:
        """Chooses how a channel is copied; padding holds ``zero_point``."""
        self._zero_point, self._channels = zero_point, g.channels
        rows, columns = g.rows.span, g.columns.span
        self.pitch = columns
        """Bytes from one row to the next one."""
        self.size = rows * columns
        """Bytes."""
        self._first = g.rows.before * columns + g.columns.before
        # Rows and columns that no output needs are left out.
        self._height, self._source_pitch = min(g.rows.size, rows - g.rows.before), g.columns.size
        self._width = min(g.columns.size, columns - g.columns.before)
        whole = self._width == g.columns.size
        if whole and self._width == columns:
            # Rows without padding between them are one.
            self._width = self._source_pitch = self._width * self._height
            self._height = 1
        # The positions repeat with the rows that make whole eights, if there are so many.
        self._period = math.lcm(self._width, 8) // self._width
        self._period = self._period if self._period <= self._height else self._height
        count = self._period * self._width
        narrow = self._width == g.columns.size < 12 and self._width != 8
        self._positions = None
        if narrow and self.size <= _REACH and count > 8:
            self._positions = self._scattered(count)

    def _scattered(self, count: int) -> np.ndarray:
        """Positions of ``count`` elements, in eights of which the last may overlap the one before.

        Narrow planes are copied eight elements at a time, across rows, to these positions: of
        rows of 5 in a plane of 7 with a border of 1, elements go to 8 to 12, 15 to 19 and so on.
        """
        rows, columns = np.divmod(np.arange(count), self._width)
        places = rows * self.pitch + columns + self._first
        self._starts = [*range(0, count - 7, 8)] + ([count - 8] if count % 8 else [])
        return np.concatenate([places[i : i + 8] for i in self._starts]).astype(np.uint8)

    def declare(self, f: Function) -> None:
        """Declares the constants."""
        if self._positions is not None:
            self._position_at = f.constant("positions", self._positions)

    def begin(self, f: Function, x: tirx.Var, behind: int) -> tirx.Var:
        """Allocates the plane and ``behind`` more bytes, and fills them as if all were padding."""
        self._f, self._x = f, x
        vectors = -(-(self.size + behind) // LANES)
        self._plane = f.scratch("plane", vectors * LANES)
        zero = f.let("zero", helium.vdup_s8(T.int8(self._zero_point)))
        with f.loop("i", vectors) as i:
            f.do(helium.vstrb_s8(address(self._plane, i * LANES), zero))
        return self._plane

    def fill(self, channel: ir.Expr) -> None:
        """Copies a channel."""
        if self._positions is not None:
            self._fill_across_rows(channel)
            return
        f, width = self._f, self._width
        with f.loop("row", self._height) as row:
            source = f.let("source", row * (self._source_pitch * self._channels) + channel)
            target = f.let("target", row * self.pitch + self._first)
            # Offsets of a gather load are halfwords.
            if width < 4 or 7 * self._channels > 65535:
                with f.loop("i", width) as i:
                    f.store(self._plane, target + i, self._x[source + i * self._channels])
            elif width < 8:
                index = helium.vmultiples_u32(T.int32(self._channels))
                load, store = helium.vldrb_gather_s32, helium.vstrb_s32
                self._copy_row(source, target, 4, lambda at: load(at, index), store)
            else:
                index = helium.vmultiples_u16(T.int32(self._channels))
                load, store = helium.vldrb_gather_s16, helium.vstrb_s16
                self._copy_row(source, target, 8, lambda at: load(at, index), store)

    def _copy_row(
        self,
        source: ir.Expr,
        target: ir.Expr,
        lanes: int,
        load: Callable[[ir.Expr], ir.Expr],
        store: Callable[[ir.Expr, ir.Expr], ir.Expr],
    ) -> None:
        """A row in pieces of so many lanes; the last piece may overlap the one before."""

        def move(at: ir.Expr) -> None:
            taken = load(address(self._x, source + at * self._channels))
            self._f.do(store(address(self._plane, target + at), taken))

        with self._f.loop("piece", self._width // lanes) as piece:
            move(piece * lanes)
        if self._width % lanes:
            move(T.int32(self._width - lanes))

    def _fill_across_rows(self, channel: ir.Expr) -> None:
        f, channels = self._f, self._channels
        index = helium.vmultiples_u16(T.int32(channels))
        with f.loop("rows", -(-self._height // self._period)) as group:
            row = _start(f, "row", group, self._period, self._height)
            base = f.let("base", row * (self._width * channels) + channel)
            target = f.let("target", row * self.pitch)
            for i, start in enumerate(self._starts):
                source = address(self._x, base + start * channels)
                to = helium.vldrb_u16(address(self._position_at, i * 8))
                taken = helium.vldrb_gather_s16(source, index)
                f.do(helium.vstrb_scatter_s16(address(self._plane, target), to, taken))
