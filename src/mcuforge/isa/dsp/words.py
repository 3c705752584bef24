"""Single instructions on words, for additions and pooling: SSAT, SXTAB16, SSUB8 and SEL, loads."""

from functools import cache

from tvm import ir
from tvm.tirx.script import builder as T

from mcuforge.isa.dsp.block import FEATURE
from mcuforge.isa.instruction import Instruction, define, instruction


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
)
"""The larger of each two bytes of four: SSUB8 and SEL."""
