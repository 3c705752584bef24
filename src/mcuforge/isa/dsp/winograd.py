"""Blocks for 3x3 convolutions by Winograd's minimal filtering F(2x2, 3x3), exact in integers.

Four outputs y take 36 multiplications directly, 16 in this form (Lavin & Gray, "Fast Algorithms for
Convolutional Neural Networks", 2015):

    y = A' ((G g G') * (B' d B)) A

with d the 4x4 inputs, g the 3x3 weights and * elementwise. B and A hold only 0 and +-1, G halves;
with G doubled everything is an integer and the result 4 y, which the requantization undoes. Inputs
become at most 4 * 128 and weights at most 9 * 127, so both fit int16 and SMLAD sums two input
channels at a time. Weights are multiplied with what fits int16 besides: the finer accumulators are,
the easier it is to find an exact requantization.
"""

from functools import cache

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from mcuforge.isa.dsp.block import (
    OPAQUE,
    M,
    N,
    assembly,
    block,
    int32,
    join,
    requantize_assembly,
    requantized,
)
from mcuforge.isa.instruction import Instruction

_G = np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]])
_LARGEST_UNIT = 256
TILES = 3
"""Tiles (of 2x2 outputs) taken at a time."""


def transform_weights(weights: np.ndarray) -> tuple[np.ndarray, int]:
    """Weights (o, 3, 3, c) int8, o even and c a multiple of 4, as words (o / 2, 16, c / 2, 2).

    Returns:
        int32 words, and how many times TFLite's the accumulators will be. The words are ordered by
        pair of output channels, place in the tile, pair of input channels (0 and 2, 1 and 3 of
        each four), and output channel of the pair.

    Example: weights that are all 1 have 2 * 2 * 1 = 4 in the corners of G g G', 6 on the edges and
    9 in the middle; these take a factor of 64, so that accumulators are 4 * 64 = 256 times
    TFLite's.
    """
    outputs, _, _, channels = weights.shape
    tiles = np.einsum("ik,oklc,jl->oijc", _G, weights.astype(np.int64), _G)
    factor = min(32767 // max(int(np.abs(tiles).max()), 1), _LARGEST_UNIT // 4)
    tiles *= factor
    # (o / 2, 2, 16, c / 4, 2 halves, 2 pairs)
    tiles = tiles.reshape(outputs // 2, 2, 16, channels // 4, 2, 2) & 0xFFFF
    words = tiles[..., 0, :] | (tiles[..., 1, :] << 16)
    words = words.reshape(outputs // 2, 2, 16, channels // 2).transpose(0, 2, 3, 1)
    return words.astype(np.uint32).view(np.int32), 4 * factor


def _transform_inputs(channels: int) -> tirx.PrimFunc:
    """What ``transform_inputs`` computes."""

    @T.prim_func(s_tir=True, private=True)
    def definition(
        x: T.Buffer((N,), "int8", offset_factor=1),
        wide: T.Buffer((M,), "int16", offset_factor=1),
        pitch: T.Buffer((1,), "int32", offset_factor=1),
    ):
        with T.sblock("root"):
            T.reads(x[0:N], pitch[0])
            T.writes(wide[0:M])
            half = T.sblock_alloc_buffer((16,), "int32", scope="local")
            for c in range(channels):
                for j in range(4):
                    first: T.let = channels * j + c
                    d0: T.let = int32(x[first])
                    d1: T.let = int32(x[pitch[0] + first])
                    d2: T.let = int32(x[2 * pitch[0] + first])
                    d3: T.let = int32(x[3 * pitch[0] + first])
                    half[j] = d0 - d2
                    half[4 + j] = d1 + d2
                    half[8 + j] = d2 - d1
                    half[12 + j] = d1 - d3
                for i in range(4):
                    # A word holds channels 0 and 2, or 1 and 3, of four.
                    pair: T.let = i * 2 * channels + c // 4 * 2 + c % 2
                    place: T.let = pair * (2 * TILES) + c % 4 // 2
                    step: T.let = channels * TILES
                    wide[place] = T.cast(half[4 * i] - half[4 * i + 2], "int16")
                    wide[place + step] = T.cast(half[4 * i + 1] + half[4 * i + 2], "int16")
                    wide[place + 2 * step] = T.cast(half[4 * i + 2] - half[4 * i + 1], "int16")
                    wide[place + 3 * step] = T.cast(half[4 * i + 1] - half[4 * i + 3], "int16")

    return definition


@cache
def transform_inputs(channels: int) -> Instruction:
    """Block ``transform_inputs(x, wide, pitch)``: B' d B of one tile, all channels.

    x: int8, the tile's first pixel; pixels are ``channels`` apart, rows ``pitch`` bytes. wide:
    int32 words (16, channels / 2, TILES), from this tile's place.
    """
    stride, place = TILES, channels // 2 * TILES
    half = f"""\
    for (int half = 0; half < 2; ++half) {{
        uint32_t t[16];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {{
            uint32_t d0, d1, d2, d3;
            memcpy(&d0, in + {channels} * i, 4);
            memcpy(&d1, in + pitch + {channels} * i, 4);
            memcpy(&d2, in + 2 * pitch + {channels} * i, 4);
            memcpy(&d3, in + 3 * pitch + {channels} * i, 4);
            if (half == 0) {{
                __asm("sxtb16 %0, %0" : "+r"(d0));
                __asm("sxtb16 %0, %0" : "+r"(d1));
                __asm("sxtb16 %0, %0" : "+r"(d2));
                __asm("sxtb16 %0, %0" : "+r"(d3));
            }} else {{
                __asm("sxtb16 %0, %0, ror #8" : "+r"(d0));
                __asm("sxtb16 %0, %0, ror #8" : "+r"(d1));
                __asm("sxtb16 %0, %0, ror #8" : "+r"(d2));
                __asm("sxtb16 %0, %0, ror #8" : "+r"(d3));
            }}
            __asm("ssub16 %0, %1, %2" : "=r"(t[i]) : "r"(d0), "r"(d2));
            __asm("sadd16 %0, %1, %2" : "=r"(t[4 + i]) : "r"(d1), "r"(d2));
            __asm("ssub16 %0, %1, %2" : "=r"(t[8 + i]) : "r"(d2), "r"(d1));
            __asm("ssub16 %0, %1, %2" : "=r"(t[12 + i]) : "r"(d1), "r"(d3));
        }}
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {{
            const uint32_t *const s = t + 4 * i;
            uint32_t v0, v1, v2, v3;
            __asm("ssub16 %0, %1, %2" : "=r"(v0) : "r"(s[0]), "r"(s[2]));
            __asm("sadd16 %0, %1, %2" : "=r"(v1) : "r"(s[1]), "r"(s[2]));
            __asm("ssub16 %0, %1, %2" : "=r"(v2) : "r"(s[2]), "r"(s[1]));
            __asm("ssub16 %0, %1, %2" : "=r"(v3) : "r"(s[1]), "r"(s[3]));
            out[{place} * (4 * i)] = v0;
            out[{place} * (4 * i + 1)] = v1;
            out[{place} * (4 * i + 2)] = v2;
            out[{place} * (4 * i + 3)] = v3;
        }}
        out += {stride};
    }}"""

    return block(
        f"transform_inputs_{channels}", "x wide", "pitch", "wide", _transform_inputs(channels),
        f"""\
const uint8_t *in = x;
uint32_t *out = wide;
{OPAQUE}
for (int c = 0; c < {channels}; c += 4) {{
#pragma GCC unroll 2
{half}
    in += 4;
}}""",
    )  # fmt: skip


def _multiply_tiles(channels: int) -> tirx.PrimFunc:
    """What ``multiply_tiles`` computes."""
    steps = channels // 2

    @T.prim_func(s_tir=True, private=True)
    def definition(
        wide: T.Buffer((32 * steps * TILES,), "int16", offset_factor=1),
        weights: T.Buffer((64 * steps,), "int16", offset_factor=1),
        sums: T.Buffer((32 * TILES,), "int32", offset_factor=1),
    ):
        with T.sblock("root"):
            T.reads(wide[0 : 32 * steps * TILES], weights[0 : 64 * steps])
            T.writes(sums[0 : 32 * TILES])
            for place, o, tile in T.grid(16, 2, TILES):
                acc: T.uint32 = T.uint32(0)
                for k, half in T.grid(steps, 2):
                    pair: T.let = place * steps + k
                    product: T.let = int32(weights[(pair * 2 + o) * 2 + half]) * int32(
                        wide[(pair * TILES + tile) * 2 + half]
                    )
                    acc += T.cast(product, "uint32")
                sums[(place * 2 + o) * TILES + tile] = T.cast(acc, "int32")

    return definition


@cache
def multiply_tiles(channels: int) -> Instruction:
    """Block ``multiply_tiles(wide, weights, sums)``: two output channels of TILES tiles.

    wide: as ``transform_inputs`` leaves it. weights: (16, channels / 2, 2) words. sums: int32
    (16, 2, TILES), over the input channels.
    """
    steps = channels // 2
    accs = (("r7", "r8", "r9"), ("r10", "r12", "lr"))
    unroll = max(d for d in range(1, 33) if steps % d == 0)

    def step(first: bool) -> list[str]:
        lines = ["ldmia r0!, {r4, r5, r6}", "ldrd r3, r11, [r1], #8"]
        for w, row in zip(("r3", "r11"), accs, strict=True):
            for x, acc in zip(("r4", "r5", "r6"), row, strict=True):
                lines.append(f"smuad {acc}, {w}, {x}" if first else f"smlad {acc}, {w}, {x}, {acc}")
        return lines

    # Stack: 0 end of wide, 4 turns left of the inner loop.
    loops = steps // unroll
    size = 16 * channels // 2 * TILES * 4
    lines = ["push {r4-r11, lr}", f"movw r3, #{size & 0xFFFF}"]
    lines += [f"movt r3, #{size >> 16}"] if size >> 16 else []
    lines += ["add r3, r3, r0", "push {r3, r4}", "1:"]
    for index in range(unroll):
        lines += step(index == 0)
    if loops > 1:
        lines += [f"movs r3, #{loops - 1}", "str r3, [sp, #4]", "2:"]
        for _ in range(unroll):
            lines += step(False)
        lines += ["ldr r3, [sp, #4]", "subs r3, r3, #1", "str r3, [sp, #4]", "bne 2b"]
    lines += ["stmia r2!, {r7, r8, r9, r10, r12, lr}", "ldr r3, [sp]", "cmp r0, r3", "bne 1b"]
    lines += ["add sp, sp, #8", "pop {r4-r11, lr}"]
    operands = ("wide weights sums", "", "sums")
    definition = _multiply_tiles(channels)
    return block(f"multiply_tiles_{channels}", *operands, definition, assembly(*operands, lines))


def _transform_outputs(step: int, pitch: int, shift: int, signed: bool) -> tirx.PrimFunc:
    """What ``transform_outputs`` computes."""
    row, constants = 2 * TILES, 3 if signed else 2

    @T.prim_func(s_tir=True, private=True)
    def definition(
        sums: T.Buffer((16 * row,), "int32", offset_factor=1),
        stream: T.Buffer((2 * constants,), "int32", offset_factor=1),
        y: T.Buffer((M,), "int8", offset_factor=1),
        places: T.Buffer((TILES,), "int32", offset_factor=1),
        c: T.Buffer((1,), "int32", offset_factor=1),
    ):
        with T.sblock("root"):
            T.reads(sums[0 : 16 * row], stream[0 : 2 * constants], places[0:TILES], c[0])
            T.writes(y[0:M])
            half = T.sblock_alloc_buffer((8,), "uint32", scope="local")
            for o, tile in T.grid(2, TILES):
                m: T.let = stream[o * constants + 1]
                q: T.let = stream[o * constants + 2] if signed else 0
                for j in range(4):
                    first: T.let = row * j + o * TILES + tile
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
                    y[place] = requantized(left, m, q, c[0], shift)
                    y[place + step] = requantized(right, m, q, c[0], shift)

    return definition


@cache
def transform_outputs(step: int, pitch: int, shift: int, signed: bool) -> Instruction:
    """Block ``transform_outputs(sums, stream, y, places, c)``: A' sums A, requantized.

    sums: of ``multiply_tiles``. stream: bias, m, and q if signed, for each of the two output
    channels. y: int8, the pair's place in the first pixel. places: int32, for each tile the offset
    of its first pixel in y.

    Args:
        step, pitch: bytes in y from pixel to pixel and from row to row.
        shift, signed: of the requantization.
    """
    lines = requantize_assembly("%0", "%2", "%3", "%4", "%1", shift, signed)
    requantize = "\n                ".join(f'"{line}\\n"' for line in lines)
    q = "*w++" if signed else "0"
    row = 2 * TILES

    name = join(
        "transform_outputs", f"o{step}", f"p{pitch}", f"s{shift}", "signed" if signed else ""
    )
    return block(
        name, "sums stream y places", "c", "y", _transform_outputs(step, pitch, shift, signed),
        f"""\
const int32_t *w = stream, *offset = places;
const uint32_t *in = sums;
int8_t *out = y;
{OPAQUE}
for (int o = 0; o < 2; ++o) {{
    const uint32_t bias = (uint32_t)*w++;
    const int32_t m = *w++;
    const int32_t q = {q};
#pragma GCC unroll 1
    for (int t = 0; t < {TILES}; ++t) {{
        const uint32_t *const s = in + {TILES} * o + t;
        int8_t *const place = out + offset[t] + o;
        uint32_t a[4], b[4], results[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {{
            const uint32_t middle = s[{row} * (4 + i)], lower = s[{row} * (8 + i)];
            a[i] = s[{row} * i] + middle + lower;
            b[i] = middle - lower - s[{row} * (12 + i)];
        }}
        /* In the sums of all four outputs. */
        a[1] += bias;
        b[1] += bias;
        results[0] = a[0] + a[1] + a[2];
        results[1] = a[1] - a[2] - a[3];
        results[2] = b[0] + b[1] + b[2];
        results[3] = b[1] - b[2] - b[3];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {{
            int32_t acc = (int32_t)results[i], scratch;
            __asm({requantize}
                : "+r"(acc), "=&r"(scratch) : "r"(m), "r"(q), "r"(c));
            place[(i & 1) * {step} + (i >> 1) * {pitch}] = (int8_t)acc;
        }}
    }}
}}""",
    )  # fmt: skip
