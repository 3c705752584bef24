"""Inputs as the dot blocks take them: int8 widened to pairs of int16, and other moves of bytes.

See ``isa.dsp.dot`` for why inputs are widened as they are. Memory that a block takes as words is
declared by what the words hold: widened inputs are int16, two to a word, the first in the lower
half.
"""

from functools import cache

from tvm import ir, tirx
from tvm.script import tirx as T

from mcuforge.isa.dsp.block import OPAQUE, M, N, block
from mcuforge.isa.instruction import Instruction


def _or_zero(x: tirx.Var, index: ir.Expr, end: ir.Expr) -> ir.Expr:
    return T.if_then_else(index < end, T.cast(x[index], "int32"), 0)


def _indent(text: str, depth: int) -> str:
    return text.replace("\n", "\n" + "    " * depth)


@cache
def widen(pixels: int) -> Instruction:
    """Block ``widen(x, wide, count)``: int8 inputs as the dot blocks take them.

    x: ``count`` int8, any alignment; the last four are filled up with zeros. wide: int32 words;
    this pixel's are 2 * pixels apart for each four inputs, first the pair of b, ``pixels`` words
    further the pair of a.

    Example: the inputs 1, 2, 3, 4 become b = (2 - 127, 4 - 127) = (-125, -123), and
    a = (256 * 1 - b, 256 * 3 - b) = (381, 891). Of one pixel these are two words in a row; of three
    pixels the words are b of the first, the second and the third pixel, then a of each.

    Args:
        pixels: how many pixels the dot block takes.
    """

    @T.prim_func(s_tir=True, private=True)
    def definition(
        x: T.Buffer((N,), "int8", offset_factor=1),
        wide: T.Buffer((M,), "int16", offset_factor=1),
        count: T.Buffer((1,), "int32", offset_factor=1),
    ):
        with T.sblock("root"):
            T.reads(x[0:N], count[0])
            T.writes(wide[0:M])
            # Whole words: behind the last input are zeros.
            for pair in range((count[0] + 3) // 4 * 2):
                odd: T.let = _or_zero(x, 2 * pair + 1, count[0]) - 127
                place: T.let = pair // 2 * (4 * pixels) + pair % 2
                wide[place] = T.cast(odd, "int16")
                wide[place + 2 * pixels] = T.cast(
                    _or_zero(x, 2 * pair, count[0]) * 256 - odd, "int16"
                )

    return block(
        f"widen_{pixels}", "x wide", "count", "wide", definition,
        f"""\
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
    )  # fmt: skip


@cache
def widen_pixels(count: int) -> Instruction:
    """Block ``widen_pixels(x, wide)``: ``widen`` for three adjacent pixels of ``count`` inputs.

    x: int8 (3, count). wide: as of three ``widen``, for blocks of three pixels.
    """
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

    @T.prim_func(s_tir=True, private=True)
    def definition(
        x: T.Buffer((3 * count,), "int8", offset_factor=1),
        wide: T.Buffer((M,), "int16", offset_factor=1),
    ):
        with T.sblock("root"):
            T.reads(x[0 : 3 * count])
            T.writes(wide[0:M])
            for pixel, pair in T.grid(3, (count + 3) // 4 * 2):
                end: T.let = (pixel + 1) * count
                first: T.let = pixel * count + 2 * pair
                odd: T.let = _or_zero(x, first + 1, end) - 127
                place: T.let = pair // 2 * 12 + pixel * 2 + pair % 2
                wide[place] = T.cast(odd, "int16")
                wide[place + 6] = T.cast(_or_zero(x, first, end) * 256 - odd, "int16")

    return block(
        f"widen_pixels_{count}", "x wide", "", "wide", definition,
        f"""\
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
    )  # fmt: skip


@cache
def widen_value(pixels: int) -> Instruction:
    """Block ``widen_value(wide, quads, value)``: as ``widen`` of 4 * quads times one value.

    That is what padding takes: the input's zero point.
    """
    text = f"""\
uint32_t *out = wide;
const uint32_t b = (uint32_t)(value - 127) & 0xffffu;
const uint32_t a = (256u * (uint32_t)value - b) & 0xffffu;
for (int32_t i = 0; i < quads; ++i) {{
    out[{2 * pixels} * i] = b | (b << 16);
    out[{2 * pixels} * i + {pixels}] = a | (a << 16);
}}"""

    @T.prim_func(s_tir=True, private=True)
    def definition(
        wide: T.Buffer((M,), "int16", offset_factor=1),
        quads: T.Buffer((1,), "int32", offset_factor=1),
        value: T.Buffer((1,), "int32", offset_factor=1),
    ):
        with T.sblock("root"):
            T.reads(quads[0], value[0])
            T.writes(wide[0:M])
            for quad, half in T.grid(quads[0], 2):
                place: T.let = quad * (4 * pixels) + half
                wide[place] = T.cast(value[0] - 127, "int16")
                wide[place + 2 * pixels] = T.cast(value[0] * 255 + 127, "int16")

    return block(
        f"widen_value_{pixels}", "wide", "quads value", "wide", definition, text
    )  # fmt: skip


@T.prim_func(s_tir=True, private=True)
def _widen_pairs(
    x: T.Buffer((N,), "int8", offset_factor=1),
    wide: T.Buffer((M,), "int16", offset_factor=1),
    count: T.Buffer((1,), "int32", offset_factor=1),
):
    with T.sblock("root"):
        T.reads(x[0:N], count[0])
        T.writes(wide[0:M])
        for quad, i in T.grid((count[0] + 3) // 4, 4):
            value: T.let = _or_zero(x, quad * 4 + i, count[0])
            wide[quad * 4 + i % 2 * 2 + i // 2] = T.cast(value, "int16")


widen_pairs = block(
    "widen_pairs", "x wide", "count", "wide", _widen_pairs,
        f"""\
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
    )  # fmt: skip
"""int8 x as words of two int16 each, for each four inputs x0 and x2, x1 and x3.

Example: 1, 2, 3, 4 become the words (1, 3) and (2, 4); SMLAD takes them with weights that
``dot.expand_weights`` laid out likewise.
"""


@T.prim_func(s_tir=True, private=True)
def _fill_halfwords(
    y: T.Buffer((M,), "int16", offset_factor=1),
    pairs: T.Buffer((1,), "int32", offset_factor=1),
    value: T.Buffer((1,), "int32", offset_factor=1),
):
    with T.sblock("root"):
        T.reads(pairs[0], value[0])
        T.writes(y[0:M])
        for i in range(pairs[0] * 2):
            y[i] = T.cast(value[0], "int16")


fill_halfwords = block(
    "fill_halfwords", "y", "pairs value", "y", _fill_halfwords,
        """\
uint32_t *out = y;
const uint32_t pair = ((uint32_t)value & 0xffffu) * 0x10001u;
#pragma GCC unroll 4
for (int32_t i = 0; i < pairs; ++i) {
    out[i] = pair;
}""",
    )  # fmt: skip
"""int16 ``value`` to 2 * pairs places from y, aligned to words."""


@T.prim_func(s_tir=True, private=True)
def _copy_bytes(
    x: T.Buffer((N,), "int8", offset_factor=1),
    y: T.Buffer((M,), "int8", offset_factor=1),
    count: T.Buffer((1,), "int32", offset_factor=1),
):
    with T.sblock("root"):
        T.reads(x[0:N], count[0])
        T.writes(y[0:M])
        for i in range(count[0]):
            y[i] = x[i]


copy_bytes = block(
    "copy_bytes", "x y", "count", "y", _copy_bytes,
        "memcpy(y, x, (size_t)count);", shared=False,
    )  # fmt: skip
"""``count`` bytes from x to y; with a constant count a handful of word moves."""
