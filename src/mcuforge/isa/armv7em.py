"""ARMv7E-M: the DSP extension of Cortex-M4, M7 and M33.

Most entries here are not single instructions but blocks of them: the inner loops of convolutions.
Compilers schedule such loops with fourteen registers only by spilling, at about a third more
instructions, and gcc and clang differ; as assembly a block costs what is written here.

The arithmetic of the blocks:

**Two weights in a halfword.** SMLAD multiplies pairs of halfwords. A word with the int8 weights
w0..w3 of four input channels holds the halfwords ``w0 + 256 w1`` and ``w2 + 256 w3`` (see
``pack_weights``), and SXTB16 of it w0 and w2. With each input pair (x0, x1) kept as two halfwords
b = x1 - 127 and a = 256 x0 - b, both within int16 for every int8 x0 and x1,

    (w0 + 256 w1) b + w0 a = 256 (w0 x0 + w1 (x1 - 127)),

so that four multiply-accumulates take two SMLAD and half an unpacking, from weights that are
stored as bytes. Accumulators are 256 times the sum, and the 127s are constants for the bias.
Intermediate overflow is harmless: the arithmetic is modulo 2^32, only the sum has to fit 24 bits.
Where there are too many inputs for that, as many as fit are summed at a time, and accumulators are
the sum of those sums, without the factor.

**Requantization.** ``ssat8((smmul(acc, m) + c) >> s)``, or SMMLA with c, where m, c, s and the bias
inside acc are solved for at compile time (see ``kernels.dsp.requantize``). Where the rounding
depends on the sign, ``acc += acc >= 0 ? q : 0`` goes first (BIC and ADD). Without the factor of 256
constants that good are rare; there it is one long multiplication, as at the levels below.
"""

from functools import cache

import numpy as np
from tvm import ir
from tvm.tirx.script import builder as T

from mcuforge.isa import Instruction, define, instruction
from mcuforge.isa import armv7em_definitions as definitions

FEATURE = "dsp"
SCALE_BITS = 8
"""Accumulators of the dot blocks are 2^SCALE_BITS times the sum of products."""

_SCRATCH = ("r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11")


def pack_weights(weights: np.ndarray) -> np.ndarray:
    """int8 weights (..., 4 k) as words (..., k) int32: halfwords w0 + 256 w1 and w2 + 256 w3.

    The second byte of a halfword is therefore one less than its weight where the first is negative.

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
    """
    quads = weights.astype(np.int64).reshape(*weights.shape[:-1], -1, 2, 2) * unit
    words = (quads[..., 0, :] & 0xFFFF) | ((quads[..., 1, :] & 0xFFFF) << 16)
    return words.astype(np.uint32).view(np.int32)


# GCC 12 clones functions for constant addresses; when it then expresses one address by another
# (it does where one pointer advances twice as fast), it loses sight of the stores and drops calls.
OPAQUE = '__asm("" : "+r"(in), "+r"(out));'


def join(*parts: object) -> str:
    return "_".join(str(part) for part in parts if part != "")


def assembly(lines: list[str], operands: str, clobbers: str) -> str:
    """An asm statement over fixed registers; ``operands`` are its in- and outputs."""
    text = "\n".join(f'    "{line}\\n"' for line in lines)
    return f"__asm volatile(\n{text}\n    : {operands}\n    :\n    : {clobbers});"


def requantize_assembly(
    acc: str, m: str, q: str, c: str, scratch: str, shift: int, signed: bool
) -> list:
    """Assembly for one output; ``c`` empty means 0."""
    lines = []
    if signed:
        lines += [f"bic {scratch}, {q}, {acc}, asr #31", f"add {acc}, {acc}, {scratch}"]
    high = f"smmla {acc}, {acc}, {m}, {c}" if c else f"smmul {acc}, {acc}, {m}"
    return [*lines, high, f"ssat {acc}, #8, {acc}, asr #{shift}"]


def _indent(text: str, depth: int) -> str:
    return text.replace("\n", "\n" + "    " * depth)


# So many inputs fit 24 bits whatever the weights: 127 * 255 * 256 < 2^23.
_SUMMED = 256

DOT_SHAPES = ((2, 3), (1, 3), (4, 1), (3, 1), (2, 1), (1, 1))
"""(channels, pixels) for which there is a dot block."""


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
    return instruction(
        name=name,
        feature=FEATURE,
        result="void",
        params=(("x", "handle"), ("stream", "handle"), ("y", "handle")),
        definition=definitions.dot(channels, pixels, shift, signed, expanded, long),
        c='register const void *r0 __asm("r0") = x;\n'
        'register const void *r1 __asm("r1") = stream;\n'
        'register void *r2 __asm("r2") = y;\n'
        + assembly(lines, '"+r"(r0), "+r"(r1), "+r"(r2)', '"r3", "r12", "cc", "memory"'),
        llvm=None,
        header="",
        writes=("y",),
        shared=True,
    )


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


@cache
def widen(pixels: int) -> Instruction:
    """Block ``widen(x, wide, count)``: int8 inputs as the dot blocks take them.

    x: ``count`` int8, any alignment; the last four are filled up with zeros. wide: int32 words;
    this pixel's are 2 * pixels apart for each four inputs, first the pair of b, ``pixels`` words
    further the pair of a (see the module).

    Args:
        pixels: how many pixels the dot block takes.
    """
    return instruction(
        name=f"widen_{pixels}",
        feature=FEATURE,
        result="void",
        params=(("x", "handle"), ("wide", "handle"), ("count", "int32")),
        definition=definitions.widen(pixels),
        c=f"""\
const uint8_t *in = x;
uint32_t *out = wide;
const int32_t quads = count / 4, rest = count % 4;
uint32_t minus_127 = 0xff81ff81u, high_bytes = 0xff00ff00u;
{OPAQUE}
/* Kept in registers: as constants they would be built again for every use. */
__asm("" : "+r"(minus_127), "+r"(high_bytes));
#pragma GCC unroll 4
for (int32_t i = 0; i < quads; ++i) {{
    uint32_t word, b, a;
    memcpy(&word, in + 4 * i, 4);
    __asm("sxtab16 %0, %1, %2, ror #8" : "=r"(b) : "r"(minus_127), "r"(word));
    a = high_bytes & (word << 8);
    __asm("ssub16 %0, %1, %2" : "=r"(a) : "r"(a), "r"(b));
    out[{2 * pixels} * i] = b;
    out[{2 * pixels} * i + {pixels}] = a;
}}
if (rest != 0) {{
    uint32_t word = 0, b, a;
    for (int32_t i = 0; i < rest; ++i) {{
        word |= (uint32_t)in[4 * quads + i] << (8 * i);
    }}
    __asm("sxtab16 %0, %1, %2, ror #8" : "=r"(b) : "r"(minus_127), "r"(word));
    a = high_bytes & (word << 8);
    __asm("ssub16 %0, %1, %2" : "=r"(a) : "r"(a), "r"(b));
    out[{2 * pixels} * quads] = b;
    out[{2 * pixels} * quads + {pixels}] = a;
}}""",
        llvm=None,
        header="",
        writes=("wide",),
        shared=True,
    )


@cache
def widen_pixels(count: int) -> Instruction:
    """Block ``widen_pixels(x, wide)``: ``widen`` for three adjacent pixels of ``count`` inputs."""
    quads, rest = divmod(count, 4)
    step = """\
__asm("sxtab16 %0, %1, %2, ror #8" : "=r"(b) : "r"(minus_127), "r"(word));
a = high_bytes & (word << 8);
__asm("ssub16 %0, %1, %2" : "=r"(a) : "r"(a), "r"(b));
out[{place}] = b;
out[{place} + 3] = a;"""
    body = f"""\
#pragma GCC unroll 4
    for (int i = 0; i < {quads}; ++i) {{
        uint32_t word, b, a;
        memcpy(&word, in, 4);
        in += 4;
        {_indent(step.format(place="6 * i"), 2)}
    }}"""
    if rest:
        body += f"""
    uint32_t word = in[0], b, a;
    for (int i = 1; i < {rest}; ++i) {{
        word |= (uint32_t)in[i] << (8 * i);
    }}
    in += {rest};
    {_indent(step.format(place=6 * quads), 1)}"""
    return instruction(
        name=f"widen_pixels_{count}",
        feature=FEATURE,
        result="void",
        params=(("x", "handle"), ("wide", "handle")),
        definition=definitions.widen_pixels(count),
        c=f"""\
const uint8_t *in = x;
uint32_t *out = wide;
uint32_t minus_127 = 0xff81ff81u, high_bytes = 0xff00ff00u;
{OPAQUE}
__asm("" : "+r"(minus_127), "+r"(high_bytes));
#pragma GCC unroll 1
for (int pixel = 0; pixel < 3; ++pixel) {{
{body}
    ++out;
}}""",
        llvm=None,
        header="",
        writes=("wide",),
        shared=True,
    )


widen_pairs = instruction(
    name="widen_pairs",
    feature=FEATURE,
    result="void",
    params=(("x", "handle"), ("wide", "handle"), ("count", "int32")),
    definition=definitions.widen_pairs(),
    c=f"""\
const uint8_t *in = x;
uint32_t *out = wide;
{OPAQUE}
#pragma GCC unroll 4
for (int32_t i = 0; i < count / 4; ++i) {{
    uint32_t word, even, odd;
    memcpy(&word, in + 4 * i, 4);
    __asm("sxtb16 %0, %1" : "=r"(even) : "r"(word));
    __asm("sxtb16 %0, %1, ror #8" : "=r"(odd) : "r"(word));
    out[2 * i] = even;
    out[2 * i + 1] = odd;
}}
if (count % 4 != 0) {{
    int16_t *last = (int16_t *)wide + count / 4 * 4;
    for (int32_t i = 0; i < 4; ++i) {{
        const int32_t place = count / 4 * 4 + i;
        last[(i & 1) * 2 + (i >> 1)] = place < count ? (int8_t)in[place] : 0;
    }}
}}""",
    llvm=None,
    header="",
    writes=("wide",),
    shared=True,
)
"""int8 x as words of two int16 each, for each four inputs x0 and x2, x1 and x3."""


@cache
def widen_value(pixels: int) -> Instruction:
    """Block ``widen_value(wide, quads, value)``: as ``widen`` of 4 * quads times one value."""
    text = f"""\
uint32_t *out = wide;
const uint32_t b = (uint32_t)(value - 127) & 0xffffu;
const uint32_t a = (256u * (uint32_t)value - b) & 0xffffu;
for (int32_t i = 0; i < quads; ++i) {{
    out[{2 * pixels} * i] = b | (b << 16);
    out[{2 * pixels} * i + {pixels}] = a | (a << 16);
}}"""
    return instruction(
        name=f"widen_value_{pixels}",
        feature=FEATURE,
        result="void",
        params=(("wide", "handle"), ("quads", "int32"), ("value", "int32")),
        definition=definitions.widen_value(pixels),
        c=text,
        llvm=None,
        header="",
        writes=("wide",),
        shared=True,
    )


fill_halfwords = instruction(
    name="fill_halfwords",
    feature=FEATURE,
    result="void",
    params=(("y", "handle"), ("pairs", "int32"), ("value", "int32")),
    definition=definitions.fill_halfwords(),
    c="""\
uint32_t *out = y;
const uint32_t pair = ((uint32_t)value & 0xffffu) * 0x10001u;
#pragma GCC unroll 4
for (int32_t i = 0; i < pairs; ++i) {
    out[i] = pair;
}""",
    llvm=None,
    header="",
    writes=("y",),
    shared=True,
)
"""int16 ``value`` to 2 * pairs places from y, aligned to words."""

copy_bytes = instruction(
    name="copy_bytes",
    feature=FEATURE,
    result="void",
    params=(("x", "handle"), ("y", "handle"), ("count", "int32")),
    definition=definitions.copy_bytes(),
    c="memcpy(y, x, (size_t)count);",
    llvm=None,
    header="",
    writes=("y",),
)
"""``count`` bytes from x to y; with a constant count a handful of word moves."""


def packs_multiplier(kernel: tuple[int, int], signed: bool) -> bool:
    """Whether ``pack_plane`` finds room for m in the compact stream of a kernel (rows, columns)."""
    return not signed and kernel[0] >= 3 and kernel[1] % 2 == 1


def pack_plane(constants: np.ndarray, taps: np.ndarray, compact: bool) -> np.ndarray:
    """The streams of the depthwise blocks, (channels, words) int32.

    A stream is bias, m, and q if signed, and the int8 taps in pairs, each row filled up to an even
    number. A word holds two pairs, one in its bytes 1 and 3, the next in 0 and 2, so that masked
    with 0xff00ff00, before and after a shift left by 8, it gives pairs of halfwords that are 2^8
    times the taps.

    Requantization takes nearly as much flash as the taps. Where the numbers allow it (``compact``,
    see ``high_word``) its constants go where rows were filled up: q - 2^8, behind the taps if
    no row was; or else the 24 upper bits of m / 4, if there are three such rows, whose 5 lower ones
    are below a bias shifted by as many.

    Args:
        constants: (channels, 2 or 3) int64 bias, m and q.
        taps: (channels, rows, columns) int8.
        compact: see above.
    """
    channels, rows, columns = taps.shape
    signed = constants.shape[1] == 3
    pairs = np.pad(taps.astype(np.int64), ((0, 0), (0, 0), (0, columns % 2)))
    small = np.zeros((channels, 0), np.int64)
    words = constants
    if compact and signed:
        words, small = constants[:, :2], constants[:, 2:] - 256
    elif compact and packs_multiplier((rows, columns), signed):
        m = constants[:, 1:] >> 2
        words, small = constants[:, :1] << 5 | m & 31, m >> np.array([5, 13, 21])
    if columns % 2:
        pairs[:, : small.shape[1], columns] = small
        small = small[:, :0]
    tail = np.concatenate([pairs.reshape(channels, -1), small], axis=1)
    tail = np.pad(tail, ((0, 0), (0, -tail.shape[1] % 4))).reshape(channels, -1, 4)
    tail = np.ascontiguousarray(tail[..., [2, 0, 3, 1]] & 0xFF, np.uint8).reshape(channels, -1)
    return np.concatenate([words.astype(np.uint32).view(np.int32), tail.view("<i4")], axis=1)


def _unpack_plane(kernel: tuple[int, int], signed: bool, compact: bool) -> str:
    """C of the constants of a stream: bias, m, q, and a pair of halfwords for each two taps."""
    rows, columns = kernel
    pairs = -(-columns // 2)
    packed_m, packed_q = compact and packs_multiplier(kernel, signed), compact and signed
    words = -(-(2 * rows * pairs + (packed_q and columns % 2 == 0)) // 4)
    spare = [f"taps[{pairs * (i + 1) - 1}]" for i in range(3 if packed_m else packed_q)]
    lines = ["const int32_t *w = stream;"]
    if packed_m:
        lines += ["const uint32_t packed = (uint32_t)*w++;"]
        lines += ["const int32_t bias = (int32_t)packed >> 5;"]
    else:
        lines += ["const int32_t bias = *w++, m = *w++;"]
        lines += ["const int32_t q = *w++;"] if signed and not packed_q else []
    lines += [
        f"uint32_t taps[{2 * words}];",
        f"for (int i = 0; i < {words}; ++i) {{",
        "    const uint32_t word = (uint32_t)w[i];",
        "    taps[2 * i] = word & 0xff00ff00u;",
        "    taps[2 * i + 1] = word << 8 & 0xff00ff00u;",
        "}",
    ]
    if packed_m:
        upper = f"{spare[0]} >> 24 | {spare[1]} >> 24 << 8 | {spare[2]} >> 24 << 16"
        lines += [f"const int32_t m = (int32_t)(({upper}) << 7 | (packed & 31u) << 2);"]
    if packed_q and columns % 2 == 0:
        lines += [f"const int32_t q = 256 + (int32_t)(taps[{rows * pairs}] >> 8 & 0xffu);"]
    elif packed_q:
        lines += [f"const int32_t q = 256 + (int32_t)({spare[0]} >> 24);"]
    if columns % 2:
        lines += [f"{pair} &= 0xffffu;" for pair in spare]
    return "\n".join(lines)


_PLANE_PARAMS = (("x", "handle"), ("stream", "handle"), ("y", "handle"), ("c", "int32"))


@cache
def depthwise_3x3(
    height: int, width: int, stride: int, pitch: int, step: int, shift: int, signed: bool,
    constant: bool, unroll: int, compact: bool,
) -> Instruction:  # fmt: skip
    """Block ``depthwise_3x3(x, stream, y, c)``: one channel, 3x3, stride 1 or 2.

    x: int16 plane, aligned to words, padded so that every tap is inside. stream: of one channel,
    see ``pack_plane``. y: int8 outputs ``step`` bytes apart.

    Two neighbouring outputs take the pairs (x0, x1) and (x2, x3) of each row, one LDRD:
    SMLAD (x0, x1) (w0, w1) + SMLABT x2 w2, and SMLATB x1 w0 + SMLAD (x2, x3) (w1, w2).

    Args:
        height, width: of the output.
        stride: in both directions.
        pitch: elements from row to row of x, even, below 252.
        step: bytes from output to output, below 2048.
        shift: of the requantization.
        signed: its rounding depends on the sign.
        constant: c is not 0.
        unroll: at most so many pairs of outputs are unrolled.
        compact: form of the stream.
    """
    name = join(
        "depthwise_3x3", f"{height}x{width}", f"t{stride}", f"p{pitch}", f"o{step}", f"u{unroll}",
        f"s{shift}", "signed" if signed else "c" if constant else "", "" if compact else "wide",
    )  # fmt: skip
    lines = _depthwise_3x3(
        height, width, stride, 2 * pitch, step, shift, signed, constant, unroll, compact
    )
    return instruction(
        name=name,
        feature=FEATURE,
        result="void",
        params=_PLANE_PARAMS,
        definition=definitions.depthwise(
            (height, width), (3, 3), (stride, stride), pitch, step, shift, signed, compact
        ),
        c='register const void *r0 __asm("r0") = x;\n'
        'register const void *r1 __asm("r1") = stream;\n'
        'register void *r2 __asm("r2") = y;\n'
        'register int32_t r3 __asm("r3") = c;\n'
        + assembly(lines, '"+r"(r0), "+r"(r1), "+r"(r2), "+r"(r3)', '"r12", "cc", "memory"'),
        llvm=None,
        header="",
        writes=("y",),
        shared=True,
    )


def _depthwise_3x3(
    height: int, width: int, stride: int, pitch: int, step: int, shift: int, signed: bool,
    constant: bool, unroll: int, compact: bool,
) -> list[str]:  # fmt: skip
    """r0 x, r1 y, r2 bias, r3 m, r4-r9 the rows' taps (w0, w1) and (w1, w2), r10 r11 inputs,
    r12 lr accumulators. ``pitch`` in bytes."""
    taps = (("r4", "r5"), ("r6", "r7"), ("r8", "r9"))
    group = 2 if stride == 1 else 1
    groups, rest = divmod(width, group)
    limit = unroll * 2 // group
    per_loop = max(d for d in range(1, limit + 1) if groups % d == 0) if groups else 0
    loops = groups // per_loop if groups else 0
    row_bytes = 4 * per_loop * loops

    # Stack: 0 end of row, 4 end of plane, 8 q, 12 c.
    lines = ["push {r4-r11, lr}", "mov r12, r2", "push {r3}"]
    if compact and not signed:
        lines += ["ldm r1, {r2, r4, r6, r8}", "uxtb r3, r4, ror #16", "uxtb r10, r6, ror #16"]
        lines += ["uxtb r11, r8, ror #16", "orr r3, r3, r10, lsl #8", "orr r3, r3, r11, lsl #16"]
        lines += ["lsl r3, r3, #7", "bfi r3, r2, #2, #5", "asr r2, r2, #5"]
    else:
        lines.append("ldm r1!, {r2, r10, r11}" if signed and not compact else "ldm r1!, {r2, r10}")
        lines += ["ldm r1, {r4, r6, r8}", "mov r3, r10"]
        if signed and compact:
            lines += ["uxtb r11, r4, ror #16", "add r11, r11, #256"]
    lines += ["push {r11}", "mov r1, r12"]
    for first, second in taps:
        lines += [f"lsl {second}, {first}, #24", f"and {first}, {first}, #0xff00ff00"]
        lines.append(f"orr {second}, {second}, {first}, lsr #16")
    plane = pitch * stride * height
    lines += [f"movw r10, #{plane & 0xFFFF}"]
    if plane >> 16:
        lines.append(f"movt r10, #{plane >> 16}")
    lines += ["add r10, r10, r0", f"addw r11, r0, #{row_bytes}", "push {r10}", "push {r11}"]

    def store(acc: str, offset: int, after: int) -> list[str]:
        code, c = [], ""
        if signed:
            code.append("ldrd r10, r11, [sp, #8]")
            c = "r11"
        elif constant:
            code.append("ldr r10, [sp, #12]")
            c = "r10"
        code += requantize_assembly(acc, "r3", "r10", c, "r10", shift, signed)
        place = f"[r1], #{after}" if after else f"[r1, #{offset}]"
        return [*code, f"strb {acc}, {place}"]

    def advance(outputs: list[str]) -> list[str]:
        if step < 256:
            return [line for acc in outputs for line in store(acc, 0, step)]
        code = [line for i, acc in enumerate(outputs) for line in store(acc, i * step, 0)]
        return [*code, f"addw r1, r1, #{len(outputs) * step}"]

    def pair(column: int) -> list[str]:
        code = []
        for row, (w01, w12) in enumerate(taps):
            a, b = ("r2", "r2") if row == 0 else ("r12", "lr")
            code += [
                f"ldrd r10, r11, [r0, #{row * pitch + column}]",
                f"smlad r12, r10, {w01}, {a}",
                f"smlatb lr, r10, {w01}, {b}",
                f"smlabt r12, r11, {w12}, r12",
                f"smlad lr, r11, {w12}, lr",
            ]
        return code + advance(["r12", "lr"])

    def single(column: int) -> list[str]:
        code = []
        for row, (w01, w12) in enumerate(taps):
            code += [
                f"ldrd r10, r11, [r0, #{row * pitch + column}]",
                f"smlad r12, r10, {w01}, {'r2' if row == 0 else 'r12'}",
                f"smlabt r12, r11, {w12}, r12",
            ]
        return code + advance(["r12"])

    output = pair if stride == 1 else single
    lines += ["1:"]
    if loops > 1:
        lines.append("2:")
    for index in range(per_loop):
        lines += output(4 * index)
    if loops > 1:
        lines += [f"adds r0, r0, #{4 * per_loop}", "ldr r10, [sp]", "cmp r0, r10", "bne 2b"]
    done = row_bytes if loops > 1 else 0
    if rest:
        lines += single(row_bytes - done)
    row_step = pitch * stride
    if row_step != done:
        lines.append(f"{'addw' if row_step > done else 'subw'} r0, r0, #{abs(row_step - done)}")
    if loops > 1:
        lines += [f"addw r10, r10, #{row_step}", "str r10, [sp]"]
        if rest:  # r10 was used for the last output
            lines[-2:] = ["ldr r10, [sp]", f"addw r10, r10, #{row_step}", "str r10, [sp]"]
    return [*lines, "ldr r11, [sp, #4]", "cmp r0, r11", "bne 1b", "add sp, sp, #16",
            "pop {r4-r11, lr}"]  # fmt: skip


@cache
def depthwise(
    out_shape: tuple[int, int], kernel: tuple[int, int], strides: tuple[int, int], pitch: int,
    step: int, shift: int, signed: bool, compact: bool,
) -> Instruction:  # fmt: skip
    """Block ``depthwise(x, stream, y, c)``: one channel, any kernel and strides.

    As ``depthwise_3x3``; x has one more element than its taps reach.
    """
    (height, width), (taps_y, taps_x), (sy, sx) = out_shape, kernel, strides
    pairs = -(-taps_x // 2)
    # With more taps than that, unrolled code runs out of registers.
    unroll = "#pragma GCC unroll 4\n" if taps_y * pairs <= 3 else ""
    name = join(
        "depthwise", f"{taps_y}x{taps_x}", f"{height}x{width}", f"t{sy}x{sx}", f"p{pitch}",
        f"o{step}", f"s{shift}", "signed" if signed else "", "" if compact else "wide",
    )  # fmt: skip
    sign = "acc += acc < 0 ? 0 : q;\n        " if signed else ""
    return instruction(
        name=name,
        feature=FEATURE,
        result="void",
        params=_PLANE_PARAMS,
        definition=definitions.depthwise(
            out_shape, kernel, strides, pitch, step, shift, signed, compact
        ),
        c=f"""\
{_unpack_plane(kernel, signed, compact)}
const int16_t *in = x;
int8_t *out = y;
{OPAQUE}
for (int oy = 0; oy < {height}; ++oy) {{
{unroll}    for (int ox = 0; ox < {width}; ++ox) {{
        int32_t acc = bias;
#pragma GCC unroll 16
        for (int ky = 0; ky < {taps_y}; ++ky) {{
#pragma GCC unroll 16
            for (int k = 0; k < {pairs}; ++k) {{
                const uint32_t pair = taps[ky * {pairs} + k];
                uint32_t xs;
                memcpy(&xs, in + ky * {pitch} + 2 * k, 4);
                __asm("smlad %0, %1, %2, %0" : "+r"(acc) : "r"(xs), "r"(pair));
            }}
        }}
        in += {sx};
        {sign}__asm("smmla %0, %0, %1, %2" : "+r"(acc) : "r"(m), "r"(c));
        __asm("ssat %0, #8, %0, asr #{shift}" : "+r"(acc));
        *out = (int8_t)acc;
        out += {step};
    }}
    in += {sy * pitch - width * sx};
}}""",
        llvm=None,
        header="",
        writes=("y",),
        shared=True,
    )


@cache
def plane(height: int, width: int, step: int, pitch: int) -> Instruction:
    """Block ``plane(x, y)``: one channel of an int8 image (height, width, step) as int16 rows.

    Args:
        height, width: of the image.
        step: its channels.
        pitch: elements from row to row of y.
    """
    loops = """\
{outer}for (int row = 0; row < {height}; ++row) {{{pragma}
    for (int i = 0; i < {width}; ++i) {{
        out[i] = *in;
        in += {step};
    }}
    out += {pitch};
}}"""
    values = {"height": height, "width": width, "step": step, "pitch": pitch}
    pointers = "const int8_t *in = x;\nint16_t *out = y;\n"
    unrolled = loops.format(
        outer="#pragma GCC unroll 1\n", pragma="\n#pragma GCC unroll 8", **values
    )
    return instruction(
        name=join("plane", f"{height}x{width}", f"o{step}", f"p{pitch}"),
        feature=FEATURE,
        result="void",
        params=(("x", "handle"), ("y", "handle")),
        definition=definitions.plane(height, width, step, pitch),
        c=f"{pointers}{OPAQUE}\n{unrolled}",
        llvm=None,
        header="",
        writes=("y",),
        shared=True,
    )


@cache
def ssat8(shift: int) -> Instruction:
    """``ssat8(x)``: x shifted right by ``shift`` (1 to 31), then saturated to int8; SSAT."""
    return instruction(
        name=f"ssat8_asr{shift}",
        feature=FEATURE,
        result="int32",
        params=(("x", "int32"),),
        definition=define(
            [("x", "int32")],
            "int32",
            1,
            lambda i, x, result: T.buffer_store(
                result, T.max(T.min(x[0] >> T.int32(shift), T.int32(127)), T.int32(-128)), [i]
            ),
        ),
        c=f"""\
int32_t result;
__asm("ssat %0, #8, %1, asr #{shift}" : "=r"(result) : "r"(x));
return result;""",
        llvm=lambda x: T.call_llvm_pure_intrin("int32", "llvm.arm.ssat", x >> shift, T.int32(8)),
        header="",
    )


def _byte(word: ir.Expr, index: int) -> ir.Expr:
    """A signed byte of a word, as int32."""
    return T.cast(T.cast(word >> (8 * index), "int8"), "int32")


def _word(parts: list[ir.Expr]) -> ir.Expr:
    """A word of two halfwords or four bytes, given as int32, the first the lowest."""
    bits = 32 // len(parts)
    word = parts[-1] << (bits * (len(parts) - 1))
    for index, part in enumerate(parts[:-1]):
        word = word | ((part & ((1 << bits) - 1)) << (bits * index))
    return word


def _all_bytes() -> ir.Expr:
    return T.Broadcast(T.bool(True), 4)


ldr = instruction(
    name="ldr",
    feature=FEATURE,
    result="int32",
    params=(("p", "handle"),),
    definition=define(
        [("p", "handle")],
        "int32",
        1,
        lambda i, p, result: T.buffer_store(
            result, _word([T.cast(p[lane], "int32") for lane in range(4)]), [i]
        ),
        {"p": ("int8", 4)},
    ),
    c="int32_t result;\nmemcpy(&result, p, 4);\nreturn result;",
    llvm=lambda p: T.reinterpret(
        "int32",
        T.call_llvm_pure_intrin(
            "int8x4", "llvm.masked.load", p, _all_bytes(), T.Broadcast(T.int8(0), 4)
        ),
    ),
    header="",
)
"""Four int8 as a word; any alignment."""

str_ = instruction(
    name="str",
    feature=FEATURE,
    result="void",
    params=(("p", "handle"), ("x", "int32")),
    definition=define(
        [("p", "handle"), ("x", "int32")],
        "void",
        4,
        lambda i, p, x: T.buffer_store(p, T.cast(x[0] >> (i * 8), "int8"), [i]),
        {"p": ("int8", 4)},
        writes="p",
    ),
    c="memcpy(p, &x, 4);",
    llvm=lambda p, x: T.call_llvm_intrin(
        "void", "llvm.masked.store", T.reinterpret("int8x4", x), p, _all_bytes()
    ),
    header="",
    writes=("p",),
)
"""A word as four int8; any alignment."""


@cache
def sxtab16(rotation: int) -> Instruction:
    """``sxtab16(sums, x)``: two int16 sums, plus bytes 0 and 2 of x; 1 and 3 if rotated by 8."""
    first = rotation // 8
    return instruction(
        name=f"sxtab16_ror{rotation}" if rotation else "sxtab16",
        feature=FEATURE,
        result="int32",
        params=(("sums", "int32"), ("x", "int32")),
        definition=define(
            [("sums", "int32"), ("x", "int32")],
            "int32",
            1,
            lambda i, sums, x, result: T.buffer_store(
                result,
                _word([sums[0] + _byte(x[0], first), (sums[0] >> 16) + _byte(x[0], first + 2)]),
                [i],
            ),
        ),
        c=f"""\
int32_t result;
__asm("sxtab16 %0, %1, %2{f", ror #{rotation}" if rotation else ""}"
    : "=r"(result) : "r"(sums), "r"(x));
return result;""",
        llvm=lambda sums, x: T.call_llvm_pure_intrin(
            "int32", "llvm.arm.sxtab16", sums, _rotated(x, rotation) if rotation else x
        ),
        header="",
    )


def _rotated(word: ir.Expr, bits: int) -> ir.Expr:
    unsigned = T.cast(word, "uint32")
    return T.cast((unsigned >> T.uint32(bits)) | (unsigned << T.uint32(32 - bits)), "int32")


smax8 = instruction(
    name="smax8",
    feature=FEATURE,
    result="int32",
    params=(("a", "int32"), ("b", "int32")),
    definition=define(
        [("a", "int32"), ("b", "int32")],
        "int32",
        1,
        lambda i, a, b, result: T.buffer_store(
            result,
            _word([T.max(_byte(a[0], lane), _byte(b[0], lane)) for lane in range(4)]),
            [i],
        ),
    ),
    c="""\
int32_t result;
__asm("ssub8 %0, %1, %2\\n"
    "sel %0, %1, %2" : "=&r"(result) : "r"(a), "r"(b) : "cc");
return result;""",
    # SSUB8 leaves in the GE flags what SEL takes; as an operand it comes first.
    llvm=lambda a, b: T.call_llvm_intrin(
        "int32",
        "llvm.arm.sel",
        a | (T.call_llvm_intrin("int32", "llvm.arm.ssub8", a, b) & T.int32(0)),
        b,
    ),
    header="",
)
"""The larger of each two bytes of four: SSUB8 and SEL."""
