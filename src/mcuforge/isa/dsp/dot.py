"""Dot products: the inner loops of convolutions and dense layers on the DSP extension.

Compilers schedule such loops with fourteen registers only by spilling, at about a third more
instructions, and gcc and clang differ; as assembly a block costs what is written here.

**Two weights in a halfword.** SMLAD multiplies pairs of halfwords. A word with the int8 weights
w0..w3 of four input channels holds the halfwords ``w0 + 256 w1`` and ``w2 + 256 w3`` (see
``pack_weights``), and SXTB16 of it w0 and w2. With each input pair (x0, x1) kept as two halfwords
b = x1 - 127 and a = 256 x0 - b (see ``isa.dsp.widen``), both within int16 for every int8 x0 and x1,

    (w0 + 256 w1) b + w0 a = 256 (w0 x0 + w1 (x1 - 127)),

so that four multiply-accumulates take two SMLAD and half an unpacking, from weights that are
stored as bytes. Accumulators are 256 times the sum, and the 127s are constants for the bias.
Intermediate overflow is harmless: the arithmetic is modulo 2^32, only the sum has to fit 24 bits.
Where there are too many inputs for that, as many as fit are summed at a time, and accumulators are
the sum of those sums, without the factor (blocks called ``long``).

Example: weights (1, 2) and inputs (3, 4) have b = -123 and a = 768 + 123 = 891, and
513 * -123 + 1 * 891 = -62208 = 256 * (1 * 3 + 2 * (4 - 127)).

**Requantization.** ``ssat8((smmul(acc, m) + c) >> s)``, or SMMLA with c, where m, c, s and the bias
inside acc are solved for at compile time (see ``kernels.requantize``). Where the rounding
depends on the sign, ``acc += acc >= 0 ? q : 0`` goes first (BIC and ADD). Without the factor of 256
constants that good are rare; there it is one long multiplication, as at the levels below.
"""

from functools import cache

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from mcuforge.isa.dsp.block import (
    SCALE_BITS,
    K,
    M,
    N,
    assembly,
    block,
    int32,
    join,
    low_byte,
    low_half,
    requantize_assembly,
    requantized,
    saturated,
)
from mcuforge.isa.instruction import Instruction


def pack_weights(weights: np.ndarray) -> np.ndarray:
    """int8 weights (..., 4 k) as words (..., k) int32: halfwords w0 + 256 w1 and w2 + 256 w3.

    The second byte of a halfword is therefore one less than its weight where the first is negative.

    Example: 1, 2, 3, 4 are 0x0201 and 0x0403, the word 0x04030201. -1, 2, 3, 4 are
    -1 + 512 = 0x01ff and 0x0403, the word 0x040301ff.

    Raises:
        ValueError: a weight of -128 follows a negative one; the sum does not fit a halfword.
    """
    quads = weights.astype(np.int64).reshape(*weights.shape[:-1], -1, 4)
    halves = quads[..., 0::2] + 256 * quads[..., 1::2]
    if halves.size and halves.min() < -(2**15):
        raise ValueError("weights do not fit pairwise in halfwords")
    words = (halves[..., 0] & 0xFFFF) | ((halves[..., 1] & 0xFFFF) << 16)
    return words.astype(np.uint32).view(np.int32)


def expand_weights(weights: np.ndarray, unit: int) -> np.ndarray:
    """int8 weights (..., 4 k) as int32 (..., k, 2): halfwords w0 and w2, w1 and w3, times unit.

    Accumulators are then ``unit`` times the sum, at most 2^8.

    Example: 1, 2, 3, 4 with unit 2 are the words 0x00060002 and 0x00080004.
    """
    quads = weights.astype(np.int64).reshape(*weights.shape[:-1], -1, 2, 2) * unit
    words = (quads[..., 0, :] & 0xFFFF) | ((quads[..., 1, :] & 0xFFFF) << 16)
    return words.astype(np.uint32).view(np.int32)


# So many inputs fit 24 bits whatever the weights: 127 * 255 * 256 < 2^23.
_SUMMED = 256

DOT_SHAPES = ((2, 3), (1, 3), (4, 1), (3, 1), (2, 1), (1, 1))
"""(channels, pixels) for which there is a dot block."""


def _definition(
    channels: int, pixels: int, shift: int, signed: bool, expanded: bool, long: bool
) -> tirx.PrimFunc:
    """What ``dot`` computes."""
    words = 2 if expanded else 1
    constants = 4 if long else 2 if signed else 1

    @T.prim_func(s_tir=True, private=True)
    def definition(
        x: T.Buffer((N,), "int16", offset_factor=1),
        stream: T.Buffer((K,), "int32", offset_factor=1),
        y: T.Buffer((M,), "int8", offset_factor=1),
    ):
        with T.sblock("root"):
            T.reads(x[0:N], stream[0:K])
            T.writes(y[0:M])
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
                        product: T.let = low_half(word) * int32(x[pair]) + upper * int32(
                            x[pair + 1]
                        )
                        acc += T.cast(product, "uint32")
                    else:
                        b: T.let = step * (4 * pixels) + p * 2
                        a: T.let = b + 2 * pixels
                        sum: T.let = (
                            low_half(word) * int32(x[b])
                            + upper * int32(x[b + 1])
                            + low_byte(word) * int32(x[a])
                            + low_byte(upper) * int32(x[a + 1])
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
                    y[group * channels + i + p * stream[3]] = saturated(high >> stream[place + 3])
                else:
                    q: T.let = stream[place + constants - 1] if signed else 0
                    y[group * channels + i + p * stream[3]] = requantized(
                        total, m, q, stream[2], shift
                    )

    return definition


@cache
def dot(
    channels: int, pixels: int, unroll: int, shift: int, signed: bool, expanded: bool = False,
    long: bool = False,
) -> Instruction:  # fmt: skip
    """Block ``dot(x, stream, y)``: all output channels of one or three pixels.

    x: the pixels' inputs as ``widen`` writes them. y: int8 outputs, channels adjacent. stream:
    int32 words: bytes behind the header; words of x; c; bytes from one pixel of y to the next;
    then for each group of ``channels`` output channels: their biases (2^8 times, everything
    folded in), for each four input channels a word of weights per output channel, and m or the
    pair (m, q) per output channel; for long accumulators m, the two words of an addend, and by how
    much to shift the upper word of the result.

    Args:
        channels: output channels in a group.
        pixels: 3, or 1.
        unroll: steps the inner loop is unrolled; divides their number. A step takes 4 input
            channels for three pixels, 8 for one.
        shift: of the requantization.
        signed: its rounding depends on the sign.
        expanded: x is as ``widen_pairs`` writes it, and each four input channels have two words per
            output channel, as ``expand_weights`` returns them; only for one pixel.
        long: accumulators are the sum itself; biases likewise, and c and shift are not used.
    """
    if (channels, pixels) not in DOT_SHAPES or (expanded and pixels != 1):
        raise ValueError(f"no dot block for {channels} channels by {pixels} pixels")
    if pixels == 3:
        lines = _dot3(channels, unroll, shift, signed, long)
    else:
        lines = _dot1(channels, unroll, shift, signed, expanded, long)
    name = join(
        "dot_expanded" if expanded else "dot_long" if long else "dot", f"{channels}x{pixels}",
        f"u{unroll}", "" if long else f"s{shift}", "signed" if signed else "",
    )  # fmt: skip
    operands = ("x stream y", "", "y")
    definition = _definition(channels, pixels, shift, signed, expanded, long)
    return block(name, *operands, definition, assembly(*operands, lines))


def _long_requantize(
    acc: str, m: str, low: str, high: str, shift: str, scratch: str, signed: bool
) -> list[str]:
    """Assembly for one output: ssat8((acc * m + high:low - (acc < 0) 2^31) >> 32 >> shift)."""
    lines = [f"smlal {low}, {high}, {acc}, {m}"]
    if signed:
        lines += [f"asr {scratch}, {acc}, #31", f"adds {low}, {low}, {scratch}, lsl #31"]
        lines += [f"adc {high}, {high}, {scratch}"]
    return [*lines, f"asr {high}, {high}, {shift}", f"ssat {acc}, #8, {high}"]


def _in_parts(steps: list[str], accs: list[str], unroll: int, pixels: int) -> list[str]:
    """The inner loop over some inputs at a time; ``steps`` is a turn of it.

    Their sums go from ``accs`` to totals on the stack, which are in ``accs`` at the end. Stack: 20
    totals, 44 end of the part of x.
    """
    # A step takes 4 inputs of three pixels, 8 of one; both are 6 or 4 words of x.
    per_step, step_bytes = (4, 24) if pixels == 3 else (8, 16)
    part = max(_SUMMED // per_step // unroll, 1) * unroll * step_bytes
    totals = [4 * i + 20 for i in range(len(accs))]
    lines = ["4:", f"add r4, r0, #{part}", "ldr r5, [sp, #4]", "cmp r4, r5", "it hi"]
    lines += ["movhi r4, r5", "str r4, [sp, #44]", *(f"mov {acc}, #0" for acc in accs)]
    lines += ["2:", *steps, "ldr r4, [sp, #44]", "cmp r0, r4", "bne 2b"]
    for acc, place in zip(accs, totals, strict=True):
        lines += [f"ldr r4, [sp, #{place}]", f"add {acc}, r4, {acc}, asr #{SCALE_BITS}"]
        lines.append(f"str {acc}, [sp, #{place}]")
    return [*lines, "ldr r4, [sp, #4]", "cmp r0, r4", "bne 4b"]


def _dot3(channels: int, unroll: int, shift: int, signed: bool, long: bool) -> list[str]:
    """Three pixels: r0 x, r1 stream, lr y, weights r11 r12, inputs r4-r6, accumulators below."""
    accs = [["r2", "r7", "r9"], ["r3", "r8", "r10"]][:channels]
    weights = ["r11", "r12"][:channels]
    load = "ldrd r11, r12, [r1], #8" if channels == 2 else "ldr r11, [r1], #4"
    frame = 48 if long else 20

    def step(first: bool) -> list[str]:
        lines = ["ldmia r0!, {r4, r5, r6}", load]
        # The first step reads the bias from the first pixel's accumulator, written last.
        for pixel, x in ((2, "r6"), (1, "r5"), (0, "r4")):
            for acc, w in zip(accs, weights, strict=True):
                lines.append(f"smlad {acc[pixel]}, {w}, {x}, {acc[0 if first else pixel]}")
        lines += ["ldmia r0!, {r4, r5, r6}", *(f"sxtb16 {w}, {w}" for w in weights)]
        for pixel, x in enumerate(("r4", "r5", "r6")):
            for acc, w in zip(accs, weights, strict=True):
                lines.append(f"smlad {acc[pixel]}, {w}, {x}, {acc[pixel]}")
        return lines

    # Stack: 0 end of stream, 4 end of x, 8 c, 12 pitch, 16 x.
    lines = ["push {r4-r11, lr}", f"sub sp, sp, #{frame}", "mov lr, r2"]
    lines += ["ldmia r1!, {r4, r5, r6, r7}", "add r4, r4, r1", "add r5, r0, r5, lsl #2"]
    lines += ["str r0, [sp, #16]", "stmia sp, {r4-r7}", "1:"]
    lines.append("ldrd r2, r3, [r1], #8" if channels == 2 else "ldr r2, [r1], #4")
    if long:
        flat = [acc for row in accs for acc in row]
        for index in range(len(flat)):
            lines.append(f"str {accs[index // 3][0]}, [sp, #{20 + 4 * index}]")
        steps = [line for _ in range(unroll) for line in step(False)]
        lines += _in_parts(steps, flat, unroll, 3)
    else:
        for index in range(unroll):
            lines += step(index == 0)
        lines += ["ldr r4, [sp, #4]", "cmp r0, r4", "beq 3f", "2:"]
        for _ in range(unroll):
            lines += step(False)
        lines += ["ldr r4, [sp, #4]", "cmp r0, r4", "bne 2b", "3:"]
    if long:
        lines.append("ldr r0, [sp, #12]")
        for acc in accs:
            lines += ["ldr r11, [r1]", "ldr r12, [r1, #12]"]
            for pixel, place in ((2, "[lr, r0, lsl #1]"), (1, "[lr, r0]"), (0, "[lr], #1")):
                lines.append("ldrd r4, r5, [r1, #4]")
                lines += _long_requantize(acc[pixel], "r11", "r4", "r5", "r12", "r6", signed)
                lines.append(f"strb {acc[pixel]}, {place}")
            lines.append("adds r1, r1, #16")
        lines.append("ldr r0, [sp, #16]")
    else:
        lines += ["ldr r0, [sp, #16]", "ldrd r4, r5, [sp, #8]"]
    if not signed and not long:
        lines.append(load)
    for acc, m in zip(accs, weights, strict=True):
        if long:
            break
        if signed:
            m = "r11"
            lines.append("ldrd r11, r12, [r1], #8")
        for pixel, place in ((2, "[lr, r5, lsl #1]"), (1, "[lr, r5]"), (0, "[lr], #1")):
            lines += requantize_assembly(acc[pixel], m, "r12", "r4", "r6", shift, signed)
            lines.append(f"strb {acc[pixel]}, {place}")
    lines += ["ldr r6, [sp]", "cmp r1, r6", "bne 1b", f"add sp, sp, #{frame}", "pop {r4-r11, lr}"]
    return lines


def _dot1(
    channels: int, unroll: int, shift: int, signed: bool, expanded: bool, long: bool
) -> list[str]:
    """One pixel: r0 x, r1 stream, inputs r4-r7, weights r8-r11, accumulators r2 r3 r12 lr."""
    accs = ["r2", "r3", "r12", "lr"][:channels]
    weights = ["r8", "r9", "r10", "r11"][:channels]

    def load(registers: list[str]) -> str:
        if len(registers) == 1:
            return f"ldr {registers[0]}, [r1], #4"
        return f"ldmia r1!, {{{', '.join(registers)}}}"

    def step() -> list[str]:
        lines = ["ldmia r0!, {r4, r5, r6, r7}"]
        for b, a in (("r4", "r5"), ("r6", "r7")):
            lines.append(load(weights))
            lines += [f"smlad {c}, {w}, {b}, {c}" for c, w in zip(accs, weights, strict=True)]
            if expanded:
                lines.append(load(weights))
            else:
                lines += [f"sxtb16 {w}, {w}" for w in weights]
            lines += [f"smlad {c}, {w}, {a}, {c}" for c, w in zip(accs, weights, strict=True)]
        return lines

    frame = 48 if long else 20
    # Stack: 0 end of stream, 4 end of x, 8 c, 12 x, 16 y.
    lines = ["push {r4-r11, lr}", f"sub sp, sp, #{frame}", "ldmia r1!, {r4, r5, r6, r7}"]
    lines += ["mov r7, r0", "add r4, r4, r1", "add r5, r0, r5, lsl #2", "str r2, [sp, #16]"]
    lines += ["stmia sp, {r4-r7}", "1:", load(accs)]
    steps = [line for _ in range(unroll) for line in step()]
    if long:
        lines += [f"str {acc}, [sp, #{20 + 4 * i}]" for i, acc in enumerate(accs)]
        lines += _in_parts(steps, accs, unroll, 1)
    else:
        lines += ["2:", *steps, "ldr r4, [sp, #4]", "cmp r0, r4", "bne 2b"]
    lines += ["ldrd r4, r0, [sp, #8]", "ldr r5, [sp, #16]"]
    if not signed and not long:
        lines.append(load(weights))
    for index, (acc, m) in enumerate(zip(accs, weights, strict=True)):
        if long:
            lines.append("ldmia r1!, {r8, r9, r10, r11}")
            lines += _long_requantize(acc, "r8", "r9", "r10", "r11", "r6", signed)
        else:
            if signed:
                m = "r8"
                lines.append("ldrd r8, r9, [r1], #8")
            lines += requantize_assembly(acc, m, "r9", "r4", "r6", shift, signed)
        lines.append(f"strb {acc}, [r5, #{index}]")
    lines += [f"adds r5, r5, #{channels}", "str r5, [sp, #16]", "ldr r6, [sp]", "cmp r1, r6"]
    lines += ["bne 1b", f"add sp, sp, #{frame}", "pop {r4-r11, lr}"]
    return lines
