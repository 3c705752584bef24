"""Depthwise convolutions with Helium: several outputs from one vector of input.

For each channel the input plane is copied, padded, to a small buffer. A gather load then takes a
patch of it, up to sixteen bytes, and each output under the patch is one dot product with the
channel's weights, shifted to the output's place in the patch. Windows of more than sixteen taps and
dilated ones take an output at a time, large ones in several parts.
"""

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
from tvm import ir, tirx
from tvm.tirx.script import builder as T

from mcuforge.isa import helium as mve
from mcuforge.kernels.helium.common import (
    LANES,
    LEAST_MACS,
    by_width,
    is_int8,
    requantization,
    scalars,
)
from mcuforge.tir.function import Function, address, lesser
from mcuforge.tir.registry import SAME_PLACE, Kernel, Operation, kernel

# Offsets of a gather load are bytes.
_REACH = 256
# Most bytes by which a channel's weights are padded to a vector at opt_level 3.
_MOST_PADDING = 6
# Most patches an output is summed from: their weights stay in registers.
_MOST_PARTS = 4
# Instructions per group of outputs beside loads and dot products.
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


def tiling(
    out: tuple[int, int], taps: tuple[int, int], stride: tuple[int, int], dilated: bool
) -> Tiling | None:
    """The tiling with the fewest instructions, or None if taps do not fit a few vectors."""
    best, least = None, math.inf
    rows = min(LANES // taps[1], taps[0])
    if not rows or -(-taps[0] // rows) > _MOST_PARTS:
        return None
    parts = tuple(min(row, taps[0] - rows) for row in range(0, taps[0], rows))
    tiles = ((2, 2), (1, 4), (4, 1), (1, 3), (3, 1), (1, 2), (2, 1), (1, 1))
    for tile in tiles[-1:] if dilated or len(parts) > 1 else tiles:
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
    attrs = operation.attrs
    batch, height, width, channels = operation.args[0].shape
    _, out_h, out_w, outputs = operation.out.shape
    if not is_int8(operation) or batch != 1:
        return None
    weight, bias, scale = (operand.value for operand in operation.args[1:])
    taps = weight.shape[:2]
    stride, (top, left, _, _) = tuple(attrs["strides"]), attrs["padding"]
    by_channel = np.ascontiguousarray(weight.transpose(2, 0, 1))
    exact = requantization(operation, by_channel, bias, scale)
    dilation = tuple(attrs["dilation"])
    tiles = tiling((out_h, out_w), taps, stride, dilation != (1, 1))
    few = out_h * out_w * weight.size < LEAST_MACS
    if exact is None or tiles is None or few:
        return None
    plane = Plane(
        height, width, channels, top, left,
        rows=(out_h - 1) * stride[0] + (taps[0] - 1) * dilation[0] + 1,
        columns=(out_w - 1) * stride[1] + (taps[1] - 1) * dilation[1] + 1,
        zero_point=attrs["input_zero_point"],
    )  # fmt: skip
    between = dilation[0] * plane.pitch
    lanes = [y * between + x * dilation[1] for y, x in np.ndindex(tiles.patch)]
    if max(lanes) >= _REACH:
        return None

    # Weights at their place in the patch of the tile's first output. Other outputs' weights are the
    # same bytes read from a lower address: what is before them is zero. Of patches that overlap,
    # the later one counts.
    count, parts = taps[0] * taps[1], len(tiles.parts)
    compact = parts == 1 and LANES - count > most_padding
    packed = np.zeros((outputs * parts + 1, LANES), np.int8)
    for part, row in enumerate(tiles.parts):
        end = tiles.parts[part + 1] if part + 1 < parts else taps[0]
        places = [y * tiles.patch[1] + x for y, x in np.ndindex(end - row, taps[1])]
        packed[part + 1 :: parts, places] = by_channel[:, row:end].reshape(outputs, -1)
    if compact:
        packed = by_channel.reshape(-1)
    shifts = {
        (i, j): i * stride[0] * tiles.patch[1] + j * stride[1] for i, j in np.ndindex(tiles.tile)
    }
    # Where a channel's weights are scattered to their places, if they are stored without gaps.
    spread, furthest = plane.size, max(shifts.values())
    plane.size += LANES + (furthest if compact else 0)
    words, bytes_ = by_width(exact.columns)
    patch_offsets = np.array((lanes + [0] * LANES)[:LANES], np.uint8)
    contiguous = lanes == list(range(len(lanes)))
    members = list(np.ndindex(tiles.group))
    # A group of fewer than four outputs computes its last one more than once.
    members += [members[-1]] * (4 - len(members))

    f = Function("depthwise_conv2d")
    x = f.param("x", height * width * channels)
    w = f.param("weight", packed.size)
    args: list[int | np.ndarray] = [0, packed]
    if compact:
        place_at = f.param("places", LANES, "uint8")
        args.append(np.array((places + [0] * LANES)[:LANES], np.uint8))
    columns = []
    for values in (words, bytes_):
        if values.size:
            columns.append(f.param("params", values.size, str(values.dtype)))
            args.append(values.reshape(-1))
    if not contiguous:
        patch_at = f.param("patch_offset", LANES, "uint8")
        args.append(patch_offsets)
    positions = None
    if plane.positions is not None:
        positions = f.param("positions", plane.positions.size, "uint8")
        args.append(plane.positions)
    y = f.param("y", out_h * out_w * outputs)
    padded = f.scratch("plane", -(-plane.size // LANES) * LANES)
    plane.clear(f, padded)
    gather = None if contiguous else f.let("gather", mve.vldrb_u8(address(patch_at, 0)))
    targets = (T.uint32((y * out_w + x) * outputs) for y, x in members)
    scatter = f.let("scatter", mve.vmov_u32(*targets))
    for at in sorted({spread, spread + furthest} if compact else ()):
        f.do(mve.vstrb_s8(address(padded, at), mve.vdup_s8(T.int8(0))))
    multiple = outputs // channels
    with f.loop("c", channels) as c:
        plane.fill(f, x, padded, c, positions)
        with f.loop("m", multiple) as m:
            o = f.let("o", c * multiple + m)
            source, first = w, (o * parts + 1) * LANES
            if compact:
                source, first = padded, T.int32(spread + furthest)
                taken = mve.vldrbt_s8(address(w, o * count), T.int32(count))
                to = mve.vldrb_u8(address(place_at, 0))
                f.do(mve.vstrbt_scatter_s8(address(padded, first), to, taken, T.int32(count)))
            first = f.let("first", first)
            vectors = [
                {
                    key: f.let("w", mve.vldrb_s8(address(source, first + part * LANES - shift)))
                    for key, shift in shifts.items()
                }
                for part in range(parts)
            ]
            constants = scalars(f, columns, (words, bytes_), o)
            groups = [-(-e // g) for e, g in zip((out_h, out_w), tiles.group, strict=True)]
            with f.loop("gy", groups[0]) as gy:
                oy = _start(f, "oy", gy, tiles.group[0], out_h)
                with f.loop("gx", groups[1]) as gx:
                    ox = _start(f, "ox", gx, tiles.group[1], out_w)
                    base = f.let("base", oy * (stride[0] * plane.pitch) + ox * stride[1])
                    acc = {}
                    for (ty, tx), part in product(tiles.tiles, range(parts)):
                        row = ty * stride[0] * plane.pitch + tiles.parts[part] * between
                        here = base + (row + tx * stride[1])
                        if contiguous:
                            patch = mve.vldrb_s8(address(padded, here))
                        else:
                            patch = mve.vldrb_gather_s8(address(padded, here), gather)
                        patch = f.let("patch", patch)
                        for (i, j), vector in vectors[part].items():
                            total = acc.get((ty + i, tx + j))
                            acc[ty + i, tx + j] = f.let(
                                "acc",
                                mve.vmladav_s8(patch, vector)
                                if total is None
                                else mve.vmladava_s8(total, patch, vector),
                            )
                    value = f.let("sum", mve.vmov_s32(*(acc[member] for member in members)))
                    out = (oy * out_w + ox) * outputs + o
                    result = mve.vqmovn_s32(exact.unsaturated(value, *constants))
                    f.do(mve.vstrb_scatter_s32(address(y, out), scatter, result))
    # A channel is read entirely before it is written.
    inplace = {0: SAME_PLACE} if operation.args[0].shape == operation.out.shape else {}
    macs = out_h * out_w * weight.size
    return Kernel(f.done(), tuple(args), macs=macs, inplace=inplace)


def _start(f: Function, name: str, index: ir.Expr, group: int, extent: int) -> ir.Expr:
    """First output of a group; the last group may overlap the one before."""
    start = index * group
    return f.let(name, lesser(start, extent - group) if extent % group else start)


class Plane:
    """One channel of the input with its padding."""

    def __init__(
        self, height: int, width: int, channels: int, top: int, left: int, rows: int, columns: int,
        zero_point: int,
    ) -> None:  # fmt: skip
        self._zero_point, self._channels = zero_point, channels
        self.pitch = columns
        self.size = rows * columns
        self._first = top * columns + left
        # Rows and columns that no output needs are left out.
        self._height, self._source_pitch = min(height, rows - top), width
        self._width = min(width, columns - left)
        if self._width == width == columns:
            self._width = self._source_pitch = self._width * self._height
            self._height = 1
        # Narrow planes are copied eight elements at a time, across rows, to these positions.
        self.positions = None
        # The positions repeat with the rows that make whole eights, if there are so many.
        self._period = math.lcm(self._width, 8) // self._width
        self._period = self._period if self._period <= self._height else self._height
        count = self._period * self._width
        if self._width == width and width < 12 and width != 8 and self.size <= _REACH and count > 8:
            rows_, columns_ = np.divmod(np.arange(count), width)
            places = rows_ * self.pitch + columns_ + self._first
            starts = [*range(0, count - 7, 8)]
            if count % 8:
                starts.append(count - 8)
            self._starts = starts
            self.positions = np.concatenate([places[i : i + 8] for i in starts]).astype(np.uint8)

    def clear(self, f: Function, plane: tirx.Var) -> None:
        """Fills the plane with the value of padding."""
        zero = f.let("zero", mve.vdup_s8(T.int8(self._zero_point)))
        with f.loop("i", -(-self.size // LANES)) as i:
            f.do(mve.vstrb_s8(address(plane, i * LANES), zero))

    def fill(
        self,
        f: Function,
        x: tirx.Var,
        plane: tirx.Var,
        channel: ir.Expr,
        positions: tirx.Var | None,
    ) -> None:
        """Copies a channel."""
        width = self._width
        if positions is not None:
            index = mve.vmultiples_u16(T.int32(self._channels))
            with f.loop("rows", -(-self._height // self._period)) as group:
                row = _start(f, "row", group, self._period, self._height)
                base = f.let("base", row * (width * self._channels) + channel)
                target = f.let("target", row * self.pitch)
                for i, start in enumerate(self._starts):
                    source = address(x, base + start * self._channels)
                    to = mve.vldrb_u16(address(positions, i * 8))
                    taken = mve.vldrb_gather_s16(source, index)
                    f.do(mve.vstrb_scatter_s16(address(plane, target), to, taken))
            return
        with f.loop("row", self._height) as row:
            source = f.let("source", row * (self._source_pitch * self._channels) + channel)
            target = f.let("target", row * self.pitch + self._first)
            if width < 4 or 7 * self._channels > 65535:
                with f.loop("i", width) as i:
                    T.buffer_store(plane, x[source + i * self._channels], [target + i])
                return
            if width < 8:
                lanes, load, store = 4, mve.vldrb_gather_s32, mve.vstrb_s32
                index = mve.vmultiples_u32(T.int32(self._channels))
            else:
                lanes, load, store = 8, mve.vldrb_gather_s16, mve.vstrb_s16
                index = mve.vmultiples_u16(T.int32(self._channels))

            def move(at):
                taken = load(address(x, source + at * self._channels), index)
                f.do(store(address(plane, target + at), taken))

            with f.loop("piece", width // lanes) as piece:
                move(piece * lanes)
            if width % lanes:
                move(T.int32(width - lanes))
