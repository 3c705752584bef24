"""What the blocks of ``isa.armv7em`` and ``isa.armv7em_winograd`` compute, as schedulable TIR.

Memory that a block takes as words is declared by what the words hold: widened inputs are int16, two
to a word, the first in the lower half.
"""

from tvm import ir, tirx
from tvm.script import tirx as T

_N, _M, _K = (tirx.Var(name, "int32") for name in "nmk")


def widen(pixels: int) -> tirx.PrimFunc:
    """``widen(x, wide, count)``."""

    @T.prim_func(s_tir=True, private=True)
    def definition(
        x: T.Buffer((_N,), "int8", offset_factor=1),
        wide: T.Buffer((_M,), "int16", offset_factor=1),
        count: T.Buffer((1,), "int32", offset_factor=1),
    ):
        with T.sblock("root"):
            T.reads(x[0:_N], count[0])
            T.writes(wide[0:_M])
            # Whole words: behind the last input are zeros.
            for pair in range((count[0] + 3) // 4 * 2):
                odd: T.let = _or_zero(x, 2 * pair + 1, count[0]) - 127
                place: T.let = pair // 2 * (4 * pixels) + pair % 2
                wide[place] = T.cast(odd, "int16")
                wide[place + 2 * pixels] = T.cast(
                    _or_zero(x, 2 * pair, count[0]) * 256 - odd, "int16"
                )

    return definition


def widen_pixels(count: int) -> tirx.PrimFunc:
    """``widen_pixels(x, wide)``."""

    @T.prim_func(s_tir=True, private=True)
    def definition(
        x: T.Buffer((3 * count,), "int8", offset_factor=1),
        wide: T.Buffer((_M,), "int16", offset_factor=1),
    ):
        with T.sblock("root"):
            T.reads(x[0 : 3 * count])
            T.writes(wide[0:_M])
            for pixel, pair in T.grid(3, (count + 3) // 4 * 2):
                end: T.let = (pixel + 1) * count
                first: T.let = pixel * count + 2 * pair
                odd: T.let = _or_zero(x, first + 1, end) - 127
                place: T.let = pair // 2 * 12 + pixel * 2 + pair % 2
                wide[place] = T.cast(odd, "int16")
                wide[place + 6] = T.cast(_or_zero(x, first, end) * 256 - odd, "int16")

    return definition


def widen_pairs() -> tirx.PrimFunc:
    """``widen_pairs(x, wide, count)``."""

    @T.prim_func(s_tir=True, private=True)
    def definition(
        x: T.Buffer((_N,), "int8", offset_factor=1),
        wide: T.Buffer((_M,), "int16", offset_factor=1),
        count: T.Buffer((1,), "int32", offset_factor=1),
    ):
        with T.sblock("root"):
            T.reads(x[0:_N], count[0])
            T.writes(wide[0:_M])
            for quad, i in T.grid((count[0] + 3) // 4, 4):
                value: T.let = _or_zero(x, quad * 4 + i, count[0])
                wide[quad * 4 + i % 2 * 2 + i // 2] = T.cast(value, "int16")

    return definition


def widen_value(pixels: int) -> tirx.PrimFunc:
    """``widen_value(wide, quads, value)``."""

    @T.prim_func(s_tir=True, private=True)
    def definition(
        wide: T.Buffer((_M,), "int16", offset_factor=1),
        quads: T.Buffer((1,), "int32", offset_factor=1),
        value: T.Buffer((1,), "int32", offset_factor=1),
    ):
        with T.sblock("root"):
            T.reads(quads[0], value[0])
            T.writes(wide[0:_M])
            for quad, half in T.grid(quads[0], 2):
                place: T.let = quad * (4 * pixels) + half
                wide[place] = T.cast(value[0] - 127, "int16")
                wide[place + 2 * pixels] = T.cast(value[0] * 255 + 127, "int16")

    return definition


def fill_halfwords() -> tirx.PrimFunc:
    """``fill_halfwords(y, pairs, value)``."""

    @T.prim_func(s_tir=True, private=True)
    def definition(
        y: T.Buffer((_M,), "int16", offset_factor=1),
        pairs: T.Buffer((1,), "int32", offset_factor=1),
        value: T.Buffer((1,), "int32", offset_factor=1),
    ):
        with T.sblock("root"):
            T.reads(pairs[0], value[0])
            T.writes(y[0:_M])
            for i in range(pairs[0] * 2):
                y[i] = T.cast(value[0], "int16")

    return definition


def copy_bytes() -> tirx.PrimFunc:
    """``copy_bytes(x, y, count)``."""

    @T.prim_func(s_tir=True, private=True)
    def definition(
        x: T.Buffer((_N,), "int8", offset_factor=1),
        y: T.Buffer((_M,), "int8", offset_factor=1),
        count: T.Buffer((1,), "int32", offset_factor=1),
    ):
        with T.sblock("root"):
            T.reads(x[0:_N], count[0])
            T.writes(y[0:_M])
            for i in range(count[0]):
                y[i] = x[i]

    return definition


def plane(height: int, width: int, step: int, pitch: int) -> tirx.PrimFunc:
    """``plane(x, y)``."""

    @T.prim_func(s_tir=True, private=True)
    def definition(
        x: T.Buffer((_N,), "int8", offset_factor=1), y: T.Buffer((_M,), "int16", offset_factor=1)
    ):
        with T.sblock("root"):
            T.reads(x[0:_N])
            T.writes(y[0:_M])
            for row, i in T.grid(height, width):
                y[row * pitch + i] = T.cast(x[(row * width + i) * step], "int16")

    return definition


def dot(
    channels: int, pixels: int, shift: int, signed: bool, expanded: bool, long: bool
) -> tirx.PrimFunc:
    """``dot(x, stream, y)``."""
    words = 2 if expanded else 1
    constants = 4 if long else 2 if signed else 1

    @T.prim_func(s_tir=True, private=True)
    def definition(
        x: T.Buffer((_N,), "int16", offset_factor=1),
        stream: T.Buffer((_K,), "int32", offset_factor=1),
        y: T.Buffer((_M,), "int8", offset_factor=1),
    ):
        with T.sblock("root"):
            T.reads(x[0:_N], stream[0:_K])
            T.writes(y[0:_M])
            steps: T.let = stream[1] // (2 * pixels)
            size: T.let = (steps * words + constants + 1) * channels
            for group, i, p in T.grid(stream[0] // (size * 4), channels, pixels):
                first: T.let = group * size + 4
                acc: T.uint32 = T.cast(stream[first + i], "uint32")
                for step, half in T.grid(steps, words):
                    word: T.let = stream[first + ((step * words + half) + 1) * channels + i]
                    upper: T.let = word >> 16
                    if expanded:
                        pair: T.let = step * 4 + half * 2
                        product: T.let = _int16(word) * _int(x[pair]) + upper * _int(x[pair + 1])
                        acc += T.cast(product, "uint32")
                    else:
                        b: T.let = step * (4 * pixels) + p * 2
                        a: T.let = b + 2 * pixels
                        sum: T.let = (
                            _int16(word) * _int(x[b])
                            + upper * _int(x[b + 1])
                            + _int8(word) * _int(x[a])
                            + _int8(upper) * _int(x[a + 1])
                        )
                        acc += T.cast(sum >> (8 if long else 0), "uint32")
                place: T.let = first + (steps * words + 1) * channels + i * constants
                total: T.let = T.cast(acc, "int32")
                m: T.let = stream[place]
                if long:
                    addend: T.let = (T.cast(stream[place + 2], "int64") << T.int64(32)) | T.cast(
                        T.cast(stream[place + 1], "uint32"), "int64"
                    )
                    scaled: T.let = T.cast(total, "int64") * T.cast(m, "int64") + addend
                    half_away: T.let = T.if_then_else(
                        total < 0 if signed else False, T.int64(1 << 31), T.int64(0)
                    )
                    high: T.let = T.cast((scaled - half_away) >> T.int64(32), "int32")
                    y[group * channels + i + p * stream[3]] = _saturated(high >> stream[place + 3])
                else:
                    q: T.let = stream[place + constants - 1] if signed else 0
                    y[group * channels + i + p * stream[3]] = _requantized(
                        total, m, q, stream[2], shift
                    )

    return definition


def depthwise(
    out_shape: tuple[int, int], kernel: tuple[int, int], strides: tuple[int, int], pitch: int,
    step: int, shift: int, signed: bool, compact: bool,
) -> tirx.PrimFunc:  # fmt: skip
    """``depthwise(x, stream, y, c)`` and ``depthwise_3x3``, with streams of ``pack_plane``."""
    (height, width), (taps_y, taps_x), (sy, sx) = out_shape, kernel, strides
    slots = -(-taps_x // 2) * 2
    packed_m = compact and not signed and taps_y >= 3 and taps_x % 2 == 1
    packed_q = compact and signed
    taps = 1 if packed_m else 3 if signed and not packed_q else 2

    def tap(stream: tirx.Var, slot: ir.Expr | int) -> ir.Expr:
        """The byte of a place in the pairs of taps, in the order they have before packing."""
        byte = slot % 2 * 2 + 1 - slot // 2 % 2
        return _int8(stream[taps + slot // 4] >> (byte * 8))

    def small(stream: tirx.Var, row: int) -> ir.Expr:
        """A constant behind a row's taps, or behind all of them."""
        slot = row * slots + taps_x if taps_x % 2 else taps_y * slots
        return tap(stream, slot) & 0xFF

    def bias_of(stream: tirx.Var) -> ir.Expr:
        return stream[0] >> 5 if packed_m else stream[0]

    def m_of(stream: tirx.Var) -> ir.Expr:
        if not packed_m:
            return stream[1]
        upper = small(stream, 0) | (small(stream, 1) << 8) | (small(stream, 2) << 16)
        return (upper << 7) | ((stream[0] & 31) << 2)

    def q_of(stream: tirx.Var) -> ir.Expr:
        if not signed:
            return tirx.IntImm("int32", 0)
        return small(stream, 0) + 256 if packed_q else stream[2]

    @T.prim_func(s_tir=True, private=True)
    def definition(
        x: T.Buffer((_N,), "int16", offset_factor=1),
        stream: T.Buffer((_K,), "int32", offset_factor=1),
        y: T.Buffer((_M,), "int8", offset_factor=1),
        c: T.Buffer((1,), "int32", offset_factor=1),
    ):
        with T.sblock("root"):
            T.reads(x[0:_N], stream[0:_K], c[0])
            T.writes(y[0:_M])
            m: T.let = m_of(stream)
            q: T.let = q_of(stream)
            for oy, ox in T.grid(height, width):
                acc: T.int32 = bias_of(stream)
                for ky, k in T.grid(taps_y, taps_x):
                    value: T.let = _int(x[(oy * sy + ky) * pitch + ox * sx + k])
                    acc += value * tap(stream, ky * slots + k) * 256
                y[(oy * width + ox) * step] = _requantized(acc, m, q, c[0], shift)

    return definition


def transform_inputs(channels: int, tiles: int) -> tirx.PrimFunc:
    """``transform_inputs(x, wide, pitch)``: B' d B."""

    @T.prim_func(s_tir=True, private=True)
    def definition(
        x: T.Buffer((_N,), "int8", offset_factor=1),
        wide: T.Buffer((_M,), "int16", offset_factor=1),
        pitch: T.Buffer((1,), "int32", offset_factor=1),
    ):
        with T.sblock("root"):
            T.reads(x[0:_N], pitch[0])
            T.writes(wide[0:_M])
            half = T.sblock_alloc_buffer((16,), "int32", scope="local")
            for c in range(channels):
                for j in range(4):
                    first: T.let = channels * j + c
                    d0: T.let = _int(x[first])
                    d1: T.let = _int(x[pitch[0] + first])
                    d2: T.let = _int(x[2 * pitch[0] + first])
                    d3: T.let = _int(x[3 * pitch[0] + first])
                    half[j] = d0 - d2
                    half[4 + j] = d1 + d2
                    half[8 + j] = d2 - d1
                    half[12 + j] = d1 - d3
                for i in range(4):
                    # A word holds channels 0 and 2, or 1 and 3, of four.
                    pair: T.let = i * 2 * channels + c // 4 * 2 + c % 2
                    place: T.let = pair * (2 * tiles) + c % 4 // 2
                    step: T.let = channels * tiles
                    wide[place] = T.cast(half[4 * i] - half[4 * i + 2], "int16")
                    wide[place + step] = T.cast(half[4 * i + 1] + half[4 * i + 2], "int16")
                    wide[place + 2 * step] = T.cast(half[4 * i + 2] - half[4 * i + 1], "int16")
                    wide[place + 3 * step] = T.cast(half[4 * i + 1] - half[4 * i + 3], "int16")

    return definition


def multiply_tiles(channels: int, tiles: int) -> tirx.PrimFunc:
    """``multiply_tiles(wide, weights, sums)``."""
    pairs = channels // 2

    @T.prim_func(s_tir=True, private=True)
    def definition(
        wide: T.Buffer((32 * pairs * tiles,), "int16", offset_factor=1),
        weights: T.Buffer((64 * pairs,), "int16", offset_factor=1),
        sums: T.Buffer((32 * tiles,), "int32", offset_factor=1),
    ):
        with T.sblock("root"):
            T.reads(wide[0 : 32 * pairs * tiles], weights[0 : 64 * pairs])
            T.writes(sums[0 : 32 * tiles])
            for place, o, tile in T.grid(16, 2, tiles):
                acc: T.uint32 = T.uint32(0)
                for k, half in T.grid(pairs, 2):
                    pair: T.let = place * pairs + k
                    product: T.let = _int(weights[(pair * 2 + o) * 2 + half]) * _int(
                        wide[(pair * tiles + tile) * 2 + half]
                    )
                    acc += T.cast(product, "uint32")
                sums[(place * 2 + o) * tiles + tile] = T.cast(acc, "int32")

    return definition


def transform_outputs(tiles: int, step: int, pitch: int, shift: int, signed: bool) -> tirx.PrimFunc:
    """``transform_outputs(sums, stream, y, places, c)``: A' sums A, requantized."""
    row, constants = 2 * tiles, 3 if signed else 2

    @T.prim_func(s_tir=True, private=True)
    def definition(
        sums: T.Buffer((16 * row,), "int32", offset_factor=1),
        stream: T.Buffer((2 * constants,), "int32", offset_factor=1),
        y: T.Buffer((_M,), "int8", offset_factor=1),
        places: T.Buffer((tiles,), "int32", offset_factor=1),
        c: T.Buffer((1,), "int32", offset_factor=1),
    ):
        with T.sblock("root"):
            T.reads(sums[0 : 16 * row], stream[0 : 2 * constants], places[0:tiles], c[0])
            T.writes(y[0:_M])
            half = T.sblock_alloc_buffer((8,), "uint32", scope="local")
            for o, tile in T.grid(2, tiles):
                m: T.let = stream[o * constants + 1]
                q: T.let = stream[o * constants + 2] if signed else 0
                for j in range(4):
                    first: T.let = row * j + o * tiles + tile
                    s1: T.let = T.cast(sums[4 * row + first], "uint32")
                    s2: T.let = T.cast(sums[8 * row + first], "uint32")
                    half[j] = T.cast(sums[first], "uint32") + s1 + s2
                    half[4 + j] = s1 - s2 - T.cast(sums[12 * row + first], "uint32")
                for i in range(2):
                    # One that is in the sums of both outputs.
                    middle: T.let = half[4 * i + 1] + T.cast(stream[o * constants], "uint32")
                    left: T.let = T.cast(half[4 * i] + middle + half[4 * i + 2], "int32")
                    right: T.let = T.cast(middle - half[4 * i + 2] - half[4 * i + 3], "int32")
                    place: T.let = places[tile] + o + i * pitch
                    y[place] = _requantized(left, m, q, c[0], shift)
                    y[place + step] = _requantized(right, m, q, c[0], shift)

    return definition


def _or_zero(x: tirx.Var, index: ir.Expr, end: ir.Expr) -> ir.Expr:
    return T.if_then_else(index < end, T.cast(x[index], "int32"), 0)


def _int(value: ir.Expr) -> ir.Expr:
    return T.cast(value, "int32")


def _int8(word: ir.Expr) -> ir.Expr:
    """The lowest byte."""
    return T.cast(T.cast(word, "int8"), "int32")


def _int16(word: ir.Expr) -> ir.Expr:
    """The lower half."""
    return T.cast(T.cast(word, "int16"), "int32")


def _saturated(value: ir.Expr) -> ir.Expr:
    return T.cast(T.max(T.min(value, 127), -128), "int8")


def _requantized(acc: ir.Expr, m: ir.Expr, q: ir.Expr, c: ir.Expr, shift: int) -> ir.Expr:
    """Requantization as the module describes it; ``acc`` and the others are variables."""
    moved = T.if_then_else(acc < 0, acc, acc + q)
    high = (T.cast(moved, "int64") * T.cast(m, "int64")) >> T.int64(32)
    return _saturated((T.cast(high, "int32") + c) >> shift)
