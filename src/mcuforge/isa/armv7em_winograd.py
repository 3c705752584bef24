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

from mcuforge.isa import Instruction, instruction
from mcuforge.isa import armv7em_definitions as definitions
from mcuforge.isa.armv7em import (
    FEATURE,
    OPAQUE,
    assembly,
    join,
    requantize_assembly,
)

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
    return instruction(
        name=f"transform_inputs_{channels}",
        feature=FEATURE,
        result="void",
        params=(("x", "handle"), ("wide", "handle"), ("pitch", "int32")),
        definition=definitions.transform_inputs(channels, TILES),
        c=f"""\
const uint8_t *in = x;
uint32_t *out = wide;
{OPAQUE}
for (int c = 0; c < {channels}; c += 4) {{
#pragma GCC unroll 2
{half}
    in += 4;
}}""",
        llvm=None,
        header="",
        writes=("wide",),
        shared=True,
    )


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
    return instruction(
        name=f"multiply_tiles_{channels}",
        feature=FEATURE,
        result="void",
        params=(("wide", "handle"), ("weights", "handle"), ("sums", "handle")),
        definition=definitions.multiply_tiles(channels, TILES),
        c='register const void *r0 __asm("r0") = wide;\n'
        'register const void *r1 __asm("r1") = weights;\n'
        'register void *r2 __asm("r2") = sums;\n'
        + assembly(lines, '"+r"(r0), "+r"(r1), "+r"(r2)', '"r3", "r12", "cc", "memory"'),
        llvm=None,
        header="",
        writes=("sums",),
        shared=True,
    )


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
    return instruction(
        name=join(
            "transform_outputs", f"o{step}", f"p{pitch}", f"s{shift}", "signed" if signed else ""
        ),
        feature=FEATURE,
        result="void",
        params=(
            ("sums", "handle"), ("stream", "handle"), ("y", "handle"), ("places", "handle"),
            ("c", "int32"),
        ),
        definition=definitions.transform_outputs(TILES, step, pitch, shift, signed),
        c=f"""\
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
        llvm=None,
        header="",
        writes=("y",),
        shared=True,
    )  # fmt: skip
