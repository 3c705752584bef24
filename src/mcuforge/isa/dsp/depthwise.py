"""Depthwise convolutions of one channel at a time on the DSP extension.

A channel is first widened to int16 in a plane of its own (``plane``), with padding; then SMLAD
takes two neighbouring taps of a row at a time. Taps are bytes and are unpacked once a channel.
"""

from functools import cache

import numpy as np
from tvm import ir, tirx
from tvm.script import tirx as T

from mcuforge.isa.dsp.block import (
    OPAQUE,
    K,
    M,
    N,
    assembly,
    block,
    int32,
    join,
    low_byte,
    requantize_assembly,
    requantized,
)
from mcuforge.isa.instruction import Instruction


def packs_multiplier(kernel: tuple[int, int], signed: bool) -> bool:
    """Whether ``pack_plane`` finds room for m in the compact stream of a kernel (rows, columns)."""
    return not signed and kernel[0] >= 3 and kernel[1] % 2 == 1


def pack_plane(constants: np.ndarray, taps: np.ndarray, compact: bool) -> np.ndarray:
    """The streams of the depthwise blocks, (channels, words) int32.

    A stream is bias, m, and q if signed, and the int8 taps in pairs, each row filled up to an even
    number. A word holds two pairs, one in its bytes 1 and 3, the next in 0 and 2, so that masked
    with 0xff00ff00, before and after a shift left by 8, it gives pairs of halfwords that are 2^8
    times the taps.

    Example: a row of the taps 1, 2, 3 is filled up to the pairs (1, 2) and (3, 0), the word
    0x02000103: masked it is (256 * 1, 256 * 2), shifted and masked (256 * 3, 0).

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


def _definition(
    out_shape: tuple[int, int], kernel: tuple[int, int], strides: tuple[int, int], pitch: int,
    step: int, shift: int, signed: bool, compact: bool,
) -> tirx.PrimFunc:  # fmt: skip
    """What ``depthwise`` and ``depthwise_3x3`` compute, with streams of ``pack_plane``."""
    (height, width), (taps_y, taps_x), (sy, sx) = out_shape, kernel, strides
    slots = -(-taps_x // 2) * 2
    packed_m = compact and not signed and taps_y >= 3 and taps_x % 2 == 1
    packed_q = compact and signed
    taps = 1 if packed_m else 3 if signed and not packed_q else 2

    def tap(stream: tirx.Var, slot: ir.Expr | int) -> ir.Expr:
        """The byte of a place in the pairs of taps, in the order they have before packing."""
        byte = slot % 2 * 2 + 1 - slot // 2 % 2
        return low_byte(stream[taps + slot // 4] >> (byte * 8))

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
        x: T.Buffer((N,), "int16", offset_factor=1),
        stream: T.Buffer((K,), "int32", offset_factor=1),
        y: T.Buffer((M,), "int8", offset_factor=1),
        c: T.Buffer((1,), "int32", offset_factor=1),
    ):
        with T.sblock("root"):
            T.reads(x[0:N], stream[0:K], c[0])
            T.writes(y[0:M])
            m: T.let = m_of(stream)
            q: T.let = q_of(stream)
            for oy, ox in T.grid(height, width):
                acc: T.int32 = bias_of(stream)
                for ky, k in T.grid(taps_y, taps_x):
                    value: T.let = int32(x[(oy * sy + ky) * pitch + ox * sx + k])
                    acc += value * tap(stream, ky * slots + k) * 256
                y[(oy * width + ox) * step] = requantized(acc, m, q, c[0], shift)

    return definition


_OPERANDS = ("x stream y", "c", "y")


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
    definition = _definition(
        (height, width), (3, 3), (stride, stride), pitch, step, shift, signed, compact
    )
    return block(name, *_OPERANDS, definition, assembly(*_OPERANDS, lines))


# The rows' taps (w0, w1) and (w1, w2).
_TAPS = (("r4", "r5"), ("r6", "r7"), ("r8", "r9"))


def _depthwise_3x3(
    height: int, width: int, stride: int, pitch: int, step: int, shift: int, signed: bool,
    constant: bool, unroll: int, compact: bool,
) -> list[str]:  # fmt: skip
    """r0 x, r1 y, r2 bias, r3 m, r4-r9 taps, r10 r11 inputs, r12 lr accumulators.

    Stack: 0 end of row, 4 end of plane, 8 q, 12 c. ``pitch`` is in bytes.
    """
    group = 2 if stride == 1 else 1
    groups, rest = divmod(width, group)
    limit = unroll * 2 // group
    per_loop = max(d for d in range(1, limit + 1) if groups % d == 0) if groups else 0
    loops = groups // per_loop if groups else 0
    row_bytes = 4 * per_loop * loops

    lines = _unpack_3x3(signed, compact)
    plane = pitch * stride * height
    lines += [f"movw r10, #{plane & 0xFFFF}"]
    if plane >> 16:
        lines.append(f"movt r10, #{plane >> 16}")
    lines += ["add r10, r10, r0", f"addw r11, r0, #{row_bytes}", "push {r10}", "push {r11}"]

    def output(column: int, accs: list[str]) -> list[str]:
        dots = _pair_3x3 if len(accs) == 2 else _single_3x3
        return dots(column, pitch) + _store_3x3(accs, step, shift, signed, constant)

    lines += ["1:"]
    if loops > 1:
        lines.append("2:")
    for index in range(per_loop):
        lines += output(4 * index, ["r12", "lr"][:group])
    if loops > 1:
        lines += [f"adds r0, r0, #{4 * per_loop}", "ldr r10, [sp]", "cmp r0, r10", "bne 2b"]
    done = row_bytes if loops > 1 else 0
    if rest:
        lines += output(row_bytes - done, ["r12"])
    row_step = pitch * stride
    if row_step != done:
        lines.append(f"{'addw' if row_step > done else 'subw'} r0, r0, #{abs(row_step - done)}")
    if loops > 1:
        # The last output of an odd row has used r10.
        lines += ["ldr r10, [sp]"] if rest else []
        lines += [f"addw r10, r10, #{row_step}", "str r10, [sp]"]
    return [*lines, "ldr r11, [sp, #4]", "cmp r0, r11", "bne 1b", "add sp, sp, #16",
            "pop {r4-r11, lr}"]  # fmt: skip


def _unpack_3x3(signed: bool, compact: bool) -> list[str]:
    """From the stream in r1 to bias, m and taps; leaves q and c on the stack and y in r1."""
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
    for first, second in _TAPS:
        lines += [f"lsl {second}, {first}, #24", f"and {first}, {first}, #0xff00ff00"]
        lines.append(f"orr {second}, {second}, {first}, lsr #16")
    return lines


def _pair_3x3(column: int, pitch: int) -> list[str]:
    """Two neighbouring outputs, in r12 and lr."""
    lines = []
    for row, (w01, w12) in enumerate(_TAPS):
        a, b = ("r2", "r2") if row == 0 else ("r12", "lr")
        lines += [
            f"ldrd r10, r11, [r0, #{row * pitch + column}]",
            f"smlad r12, r10, {w01}, {a}",
            f"smlatb lr, r10, {w01}, {b}",
            f"smlabt r12, r11, {w12}, r12",
            f"smlad lr, r11, {w12}, lr",
        ]
    return lines


def _single_3x3(column: int, pitch: int) -> list[str]:
    """One output, in r12."""
    lines = []
    for row, (w01, w12) in enumerate(_TAPS):
        lines += [
            f"ldrd r10, r11, [r0, #{row * pitch + column}]",
            f"smlad r12, r10, {w01}, {'r2' if row == 0 else 'r12'}",
            f"smlabt r12, r11, {w12}, r12",
        ]
    return lines


def _store_3x3(accs: list[str], step: int, shift: int, signed: bool, constant: bool) -> list[str]:
    """Requantize accumulators and store them ``step`` bytes apart; moves r1 behind them."""
    lines = []
    for index, acc in enumerate(accs):
        c = "r11" if signed else "r10" if constant else ""
        if signed:
            lines.append("ldrd r10, r11, [sp, #8]")
        elif constant:
            lines.append("ldr r10, [sp, #12]")
        lines += requantize_assembly(acc, "r3", "r10", c, "r10", shift, signed)
        # An immediate that changes the address is below 256.
        place = f"[r1], #{step}" if step < 256 else f"[r1, #{index * step}]"
        lines.append(f"strb {acc}, {place}")
    return lines if step < 256 else [*lines, f"addw r1, r1, #{len(accs) * step}"]


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
    definition = _definition(out_shape, kernel, strides, pitch, step, shift, signed, compact)
    return block(
        name, *_OPERANDS, definition,
        f"""\
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
    )  # fmt: skip


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

    @T.prim_func(s_tir=True, private=True)
    def definition(
        x: T.Buffer((N,), "int8", offset_factor=1), y: T.Buffer((M,), "int16", offset_factor=1)
    ):
        with T.sblock("root"):
            T.reads(x[0:N])
            T.writes(y[0:M])
            for row, i in T.grid(height, width):
                y[row * pitch + i] = T.cast(x[(row * width + i) * step], "int16")

    name = join("plane", f"{height}x{width}", f"o{step}", f"p{pitch}")
    return block(name, "x y", "", "y", definition, f"{pointers}{OPAQUE}\n{unrolled}")
