"""ARMv8.1-M Helium (MVE), integer: what mcuforge's vector kernels are made of.

Names follow Arm's mnemonics; ``_n`` takes a scalar operand. Reference: Arm v8-M Architecture
Reference Manual (DDI 0553), C2, and the Helium section of the Arm C Language Extensions.
"""

from collections.abc import Callable, Sequence
from functools import cache

from tvm import ir
from tvm.target.codegen import llvm_lookup_intrinsic_id
from tvm.tirx.script import builder as T

from mcuforge.isa.instruction import Instruction, define, instruction, lanes

S8, S16, S32 = "int8x16", "int16x8", "int32x4"
U8, U16, U32 = "uint8x16", "uint16x8", "uint32x4"
_POINTER = ("p", "handle")
_COUNT = ("n", "int32")


def _mve(
    name: str,
    result: str,
    params: Sequence[tuple[str, str]],
    lane: Callable[..., None],
    c: str,
    llvm: Callable[..., ir.Expr],
    *,
    extent: int = 0,
    memory: tuple[str, int | None] | None = None,
    writes: str = "result",
    reduces: bool = False,
) -> Instruction:
    """Declare an instruction by what it does to each lane: see ``instruction.define``.

    Args:
        extent: number of lanes; by default the result's.
        memory: what the pointer operand ``p`` points to.
        writes, reduces: as for ``define``; without result ``p`` is written.
    """
    params = tuple(params)
    if result == "void":
        writes = "p"
    extent = extent or lanes(result)[1]
    definition = define(params, result, extent, lane, {"p": memory}, writes, reduces)
    return instruction(
        name=name,
        feature="helium",
        result=result,
        params=params,
        definition=definition,
        c=c,
        llvm=llvm,
        writes=(writes,) if result == "void" else (),
    )


def _stores(value: Callable[..., ir.Expr]) -> Callable[..., None]:
    """What a lane does: the result's lane is a function of the operands' lanes."""

    def lane(i: ir.Expr, *buffers) -> None:
        *operands, result = buffers
        T.buffer_store(result, value(*(_lane(b, i) for b in operands)), [i])

    return lane


def _lane(buffer, i: ir.Expr) -> ir.Expr:
    return buffer[i] if int(buffer.shape[0]) > 1 else buffer[0]


def _llvm(result: str, name: str, *args: ir.Expr) -> ir.Expr:
    """A call of an LLVM intrinsic by its name without the ``llvm.`` prefix."""
    return T.call_llvm_pure_intrin(
        result, T.uint32(llvm_lookup_intrinsic_id(f"llvm.{name}")), *args
    )


def _effect(name: str, *args: ir.Expr) -> ir.Expr:
    """The same for an intrinsic that writes memory."""
    return T.call_llvm_intrin("void", T.uint32(llvm_lookup_intrinsic_id(f"llvm.{name}")), *args)


def _all(lanes: int) -> ir.Expr:
    return T.Broadcast(T.bool(True), lanes)


# Loads and stores. Addresses need the alignment of the element in memory only.


def load(name: str, dtype: str, memory: str, c: str) -> Instruction:
    """Declare a load: of ``dtype`` from elements ``memory``, with the ACLE's intrinsic ``c``."""
    element, count = lanes(dtype)
    narrow = f"{memory}x{count}"

    def llvm(p: ir.Expr) -> ir.Expr:
        loaded = _llvm(narrow, "masked.load", p, _all(count), T.Broadcast(T.cast(0, memory), count))
        return loaded if narrow == dtype else T.cast(loaded, dtype)

    return _mve(
        name,
        dtype,
        [_POINTER],
        _stores(lambda value: T.cast(value, element)),
        f"{c}((const {memory}_t *)p)",
        llvm,
        memory=(memory, count),
    )


vldrb_s8 = load("vldrb_s8", S8, "int8", "vldrbq_s8")
vldrb_u8 = load("vldrb_u8", U8, "uint8", "vldrbq_u8")
vldrb_s16 = load("vldrb_s16", S16, "int8", "vldrbq_s16")
vldrb_s32 = load("vldrb_s32", S32, "int8", "vldrbq_s32")
vldrb_u16 = load("vldrb_u16", U16, "uint8", "vldrbq_u16")
vldrw_s32 = load("vldrw_s32", S32, "int32", "vldrwq_s32")

vldrd_s32 = _mve(
    "vldrd_s32",
    S32,
    [_POINTER],
    lambda i, p, result: T.buffer_store(result, p[i % 2], [i]),
    "vreinterpretq_s32_s64(vldrdq_gather_offset_s64((const int64_t *)p, ((uint64x2_t){0, 0})))",
    lambda p: T.reinterpret(
        S32,
        _llvm(
            "int64x2", "arm.mve.vldr.gather.offset", p, T.Broadcast(T.int64(0), 2),
            T.int32(64), T.int32(0), T.int32(0),
        ),
    ),
    memory=("int32", 2),
)  # fmt: skip
"""Two int32 from a multiple of eight, twice."""

vldrw_s8 = _mve(
    "vldrw_s8",
    S8,
    [_POINTER],
    _stores(lambda value: value),
    "vreinterpretq_s8_s32(vldrwq_s32((const int32_t *)p))",
    vldrb_s8.llvm,
    memory=("int8", 16),
)
"""Sixteen bytes from a multiple of four, where an immediate offset reaches four times as far."""

vldrbt_s8 = _mve(
    "vldrbt_s8",
    S8,
    [_POINTER, _COUNT],
    lambda i, p, n, result: T.buffer_store(result, T.if_then_else(i < n[0], p[i], T.int8(0)), [i]),
    "vldrbq_z_s8((const int8_t *)p, vctp8q((uint32_t)n))",
    lambda p, n: _llvm(
        S8, "masked.load", p, _llvm("boolx16", "arm.mve.vctp8", n), T.Broadcast(T.int8(0), 16)
    ),
    memory=("int8", 16),
)
"""The first n bytes; the other lanes are zero and their memory is not read."""


def _gather(name: str, dtype: str, offsets: str, c: str) -> Instruction:
    element, _ = lanes(dtype)
    return _mve(
        name,
        dtype,
        [_POINTER, ("offset", offsets)],
        lambda i, p, offset, result: T.buffer_store(
            result, T.cast(p[T.cast(offset[i], "int32")], element), [i]
        ),
        f"{c}((const int8_t *)p, offset)",
        lambda p, offset: _llvm(
            dtype, "arm.mve.vldr.gather.offset", p, offset, T.int32(8), T.int32(0), T.int32(0)
        ),
        memory=("int8", None),
    )


vldrb_gather_s8 = _gather("vldrb_gather_s8", S8, U8, "vldrbq_gather_offset_s8")
vldrb_gather_s16 = _gather("vldrb_gather_s16", S16, U16, "vldrbq_gather_offset_s16")
vldrb_gather_s32 = _gather("vldrb_gather_s32", S32, U32, "vldrbq_gather_offset_s32")


def store(name: str, dtype: str, c: str, memory: str = "int8") -> Instruction:
    """Declare a store: of ``dtype`` to elements ``memory``, with the ACLE's intrinsic ``c``."""
    _, count = lanes(dtype)
    narrow = f"{memory}x{count}"
    return _mve(
        name,
        "void",
        [_POINTER, ("v", dtype)],
        lambda i, p, v: T.buffer_store(p, T.cast(v[i], memory), [i]),
        f"{c}(({memory}_t *)p, v);",
        lambda p, v: _effect(
            "masked.store", v if dtype == narrow else T.cast(v, narrow), p, _all(count)
        ),
        extent=count,
        memory=(memory, count),
    )


vstrb_s8 = store("vstrb_s8", S8, "vstrbq_s8")
vstrb_s16 = store("vstrb_s16", S16, "vstrbq_s16")
vstrb_s32 = store("vstrb_s32", S32, "vstrbq_s32")


def _scatter(name: str, dtype: str, offsets: str, c: str) -> Instruction:
    return _mve(
        name,
        "void",
        [_POINTER, ("offset", offsets), ("v", dtype)],
        lambda i, p, offset, v: T.buffer_store(
            p, T.cast(v[i], "int8"), [T.cast(offset[i], "int32")]
        ),
        f"{c}((int8_t *)p, offset, v);",
        lambda p, offset, v: _effect(
            "arm.mve.vstr.scatter.offset", p, offset, v, T.int32(8), T.int32(0)
        ),
        extent=lanes(dtype)[1],
        memory=("int8", None),
    )


vstrb_scatter_s8 = _scatter("vstrb_scatter_s8", S8, U8, "vstrbq_scatter_offset_s8")
vstrb_scatter_s16 = _scatter("vstrb_scatter_s16", S16, U16, "vstrbq_scatter_offset_s16")
vstrb_scatter_s32 = _scatter("vstrb_scatter_s32", S32, U32, "vstrbq_scatter_offset_s32")


def _store_first(i: ir.Expr, p, offset, v, n) -> None:
    with T.If(i < n[0]), T.Then():
        T.buffer_store(p, v[i], [T.cast(offset[i], "int32")])


vstrbt_scatter_s8 = _mve(
    "vstrbt_scatter_s8",
    "void",
    [_POINTER, ("offset", U8), ("v", S8), _COUNT],
    _store_first,
    "vstrbq_scatter_offset_p_s8((int8_t *)p, offset, v, vctp8q((uint32_t)n));",
    lambda p, offset, v, n: _effect(
        "arm.mve.vstr.scatter.offset.predicated",
        p,
        offset,
        v,
        T.int32(8),
        T.int32(0),
        _llvm("boolx16", "arm.mve.vctp8", n),
    ),
    extent=16,
    memory=("int8", None),
)
"""Scatters the first n lanes only."""


def _store_begin(i: ir.Expr, p, v, n) -> None:
    with T.If(i < n[0]), T.Then():
        T.buffer_store(p, v[i], [i])


vstrbt_s8 = _mve(
    "vstrbt_s8",
    "void",
    [_POINTER, ("v", S8), _COUNT],
    _store_begin,
    "vstrbq_p_s8((int8_t *)p, v, vctp8q((uint32_t)n));",
    lambda p, v, n: _effect("masked.store", v, p, _llvm("boolx16", "arm.mve.vctp8", n)),
    extent=16,
    memory=("int8", 16),
)
"""Stores the first n lanes only."""


# Dot products of sixteen int8.


def _product(a: ir.Expr, b: ir.Expr) -> ir.Expr:
    return T.cast(a, "int32") * T.cast(b, "int32")


def _first_product(i: ir.Expr, a, b, result) -> None:
    with T.init():
        T.buffer_store(result, T.int32(0), [0])
    T.buffer_store(result, result[0] + _product(a[i], b[i]), [0])


vmladav_s8 = _mve(
    "vmladav_s8",
    "int32",
    [("a", S8), ("b", S8)],
    _first_product,
    "vmladavq_s8(a, b)",
    lambda a, b: _llvm("int32", "arm.mve.vmldava", *[T.int32(0)] * 4, a, b),
    extent=16,
    reduces=True,
)
vmladava_s8 = _mve(
    "vmladava_s8",
    "int32",
    [("sum", "int32"), ("a", S8), ("b", S8)],
    lambda i, total, a, b: T.buffer_store(total, total[0] + _product(a[i], b[i]), [0]),
    "vmladavaq_s8(sum, a, b)",
    lambda acc, a, b: _llvm("int32", "arm.mve.vmldava", *[T.int32(0)] * 3, acc, a, b),
    extent=16,
    writes="sum",
    reduces=True,
)


# Vectors from scalars.


def _collect(_, a, b, c, d, result) -> None:
    for lane, scalar in enumerate((a, b, c, d)):
        T.buffer_store(result, scalar[0], [lane])


# GCC has no pattern for the move of two registers into two lanes; Clang selects it by itself.
vmov_s32 = _mve(
    "vmov_s32",
    S32,
    [("a", "int32"), ("b", "int32"), ("c", "int32"), ("d", "int32")],
    _collect,
    """#if defined(__clang__)
return (int32x4_t){a, b, c, d};
#else
int32x4_t v;
__asm__("vmov %q0[2], %q0[0], %1, %2\\n\\tvmov %q0[3], %q0[1], %3, %4"
        : "=&w"(v)
        : "r"(a), "r"(c), "r"(b), "r"(d));
return v;
#endif""",
    lambda a, b, c, d: T.Shuffle([a, b, c, d], [0, 1, 2, 3]),
    extent=1,
)


def _dup(dtype: str) -> Instruction:
    element, count = lanes(dtype)
    suffix = f"s{element.removeprefix('int')}"
    return _mve(
        f"vdup_{suffix}",
        dtype,
        [("n", element)],
        _stores(lambda n: n),
        f"vdupq_n_{suffix}(n)",
        lambda n: T.Broadcast(n, count),
    )


vdup_s8, vdup_s32 = _dup(S8), _dup(S32)


def _multiples(name: str, dtype: str, c: str) -> Instruction:
    element, count = lanes(dtype)
    return _mve(
        name,
        dtype,
        [_COUNT],
        lambda i, n, result: T.buffer_store(result, T.cast(i * n[0], element), [i]),
        c,
        lambda n: (
            T.Ramp(T.cast(0, element), T.cast(1, element), count)
            * T.Broadcast(T.cast(n, element), count)
        ),
    )


vmultiples_u16 = _multiples("vmultiples_u16", U16, "vmulq_n_u16(vidupq_n_u16(0, 1), (uint16_t)n)")
"""0, n, 2n...: VIDUP, then VMUL."""
vmultiples_u32 = _multiples("vmultiples_u32", U32, "vmulq_n_u32(vidupq_n_u32(0, 1), (uint32_t)n)")


def _halves(_, a, b, c, d, result) -> None:
    for lane, word in enumerate((a, b, c, d)):
        T.buffer_store(result, T.cast(word[0], "uint16"), [2 * lane])
        T.buffer_store(result, T.cast(word[0] >> T.uint32(16), "uint16"), [2 * lane + 1])


def _from_words(name: str, dtype: str, lane: Callable[..., None]) -> Instruction:
    """Four words of constants, which take less than the same vector in memory."""
    return _mve(
        name,
        dtype,
        [(word, "uint32") for word in "abcd"],
        lane,
        f"{dtype}_t v = ({dtype}_t)(uint32x4_t){{a, b, c, d}};\n"
        '__asm("" : "+w"(v)); /* kept, not loaded anew for every use */\n'
        "return v;",
        lambda *words: T.reinterpret(dtype, T.Shuffle(list(words), [0, 1, 2, 3])),
        extent=1,
    )


vmov_u32 = _from_words("vmov_u32", U32, _collect)
vmov_u16 = _from_words("vmov_u16", U16, _halves)
"""The halves of four words, the lower first."""


# Arithmetic on four int32.


def _vector(value: ir.Expr) -> ir.Expr:
    """A scalar operand as a vector."""
    return value if str(value.ty.dtype) == S32 else T.Broadcast(value, 4)


def _lanewise(
    name: str,
    params: str,
    value: Callable[..., ir.Expr],
    c: str,
    llvm: Callable[..., ir.Expr] | None = None,
) -> Instruction:
    """Params: ``a b`` are vectors, ``n`` is a scalar; value: of one lane."""
    types = [(p, "int32" if p == "n" else S32) for p in params.split()]
    return _mve(name, S32, types, _stores(value), c, llvm or value)


def _modulo(value: Callable[..., ir.Expr]) -> Callable[..., ir.Expr]:
    """Arithmetic modulo 2^32."""
    return lambda *operands: T.cast(value(*(T.cast(o, "uint32") for o in operands)), "int32")


def _high(a: ir.Expr, b: ir.Expr, rounding: bool) -> ir.Expr:
    """The high word of the doubled product."""
    product = T.cast(a, "int64") * T.cast(b, "int64")
    if rounding:
        product = product + T.int64(1 << 30)
    return T.min(product >> T.int64(31), T.int64(2**31 - 1))


def _shifted(a: ir.Expr, n: ir.Expr, rounding: int) -> ir.Expr:
    """a * 2^n, for n from -32 to 31, halves up if rounding."""
    wide, left, right = T.cast(a, "int64"), T.cast(n, "int64"), T.cast(-n, "int64")
    half = T.int64(1) << (right - T.int64(1)) if rounding else None
    shifted = (wide if half is None else wide + half) >> right
    return T.cast(T.if_then_else(n < 0, shifted, wide << left), "int32")


vadd_s32 = _lanewise(
    "vadd_s32", "a b", _modulo(lambda a, b: a + b), "vaddq_s32(a, b)", lambda a, b: a + b
)
vadd_n_s32 = _lanewise(
    "vadd_n_s32",
    "a n",
    _modulo(lambda a, n: a + n),
    "vaddq_n_s32(a, n)",
    lambda a, n: a + _vector(n),
)
vmul_n_s32 = _lanewise(
    "vmul_n_s32",
    "a n",
    _modulo(lambda a, n: a * n),
    "vmulq_n_s32(a, n)",
    lambda a, n: a * _vector(n),
)
vmla_n_s32 = _lanewise(
    "vmla_n_s32",
    "a b n",
    _modulo(lambda a, b, n: a + b * n),
    "vmlaq_n_s32(a, b, n)",
    lambda a, b, n: a + b * _vector(n),
)


def _high_multiply(rounding: bool, scalar: bool) -> Instruction:
    intrinsic, suffix = "vqrdmulh" if rounding else "vqdmulh", "_n_s32" if scalar else "_s32"
    operands = "a n" if scalar else "a b"
    return _lanewise(
        intrinsic + suffix,
        operands,
        lambda a, b: T.cast(_high(a, b, rounding), "int32"),
        f"{intrinsic}q{suffix}({operands.replace(' ', ', ')})",
        lambda a, b: _llvm(S32, f"arm.mve.{intrinsic}", a, _vector(b)),
    )


vqrdmulh_s32, vqrdmulh_n_s32 = _high_multiply(True, False), _high_multiply(True, True)
"""SaturatingRoundingDoublingHighMul of gemmlowp, on four lanes."""
vqdmulh_s32, vqdmulh_n_s32 = _high_multiply(False, False), _high_multiply(False, True)
"""The same without rounding."""
vrshl_s32 = _lanewise(
    "vrshl_s32",
    "a b",
    lambda a, b: _shifted(a, b, 1),
    "vrshlq_s32(a, b)",
    lambda a, b: _llvm(S32, "arm.mve.vshl.vector", a, b, T.int32(0), T.int32(1), T.int32(0)),
)
"""Shifts left, or right where the shift is negative, rounding halves up."""
vrshl_n_s32 = _lanewise(
    "vrshl_n_s32",
    "a n",
    lambda a, n: _shifted(a, n, 1),
    "vrshlq_n_s32(a, n)",
    lambda a, n: _llvm(S32, "arm.mve.vshl.scalar", a, n, T.int32(0), T.int32(1), T.int32(0)),
)
vshl_r_s32 = _lanewise(
    "vshl_r_s32",
    "a n",
    lambda a, n: _shifted(a, n, 0),
    "vshlq_r_s32(a, n)",
    lambda a, n: _llvm(S32, "arm.mve.vshl.scalar", a, n, T.int32(0), T.int32(0), T.int32(0)),
)
vsign_s32 = _lanewise(
    "vsign_s32",
    "a",
    lambda a: a >> T.int32(31),
    "vshrq_n_s32(a, 31)",
    lambda a: a >> T.Broadcast(T.int32(31), 4),
)


@cache
def vshl_n_s32(count: int) -> Instruction:
    """``vshl_n_s32(a)``: a * 2^count, modulo 2^32; 0 to 31."""
    return _lanewise(
        f"vshl{count}_s32",
        "a",
        lambda a: a << T.int32(count),
        f"vshlq_n_s32(a, {count})",
        lambda a: a << T.Broadcast(T.int32(count), 4),
    )


@cache
def vshr_n_s32(count: int) -> Instruction:
    """``vshr_n_s32(a)``: a shifted right arithmetically; 1 to 31."""
    return _lanewise(
        f"vshr{count}_s32",
        "a",
        lambda a: a >> T.int32(count),
        f"vshrq_n_s32(a, {count})",
        lambda a: a >> T.Broadcast(T.int32(count), 4),
    )


vmin_s32 = _lanewise("vmin_s32", "a b", T.min, "vminq_s32(a, b)")
vmax_s32 = _lanewise("vmax_s32", "a b", T.max, "vmaxq_s32(a, b)")


def _bytewise(name: str, value: Callable[..., ir.Expr], c: str) -> Instruction:
    return _mve(name, S8, [("a", S8), ("b", S8)], _stores(value), c, value)


vmin_s8 = _bytewise("vmin_s8", T.min, "vminq_s8(a, b)")
vmax_s8 = _bytewise("vmax_s8", T.max, "vmaxq_s8(a, b)")


def _saturated(a: ir.Expr) -> ir.Expr:
    return T.max(T.min(a, T.int32(127)), T.int32(-128))


def _narrowed(a: ir.Expr) -> ir.Expr:
    # The lanes nobody looks at are those of zero vectors.
    shorts = _llvm(
        S16, "arm.mve.vqmovn", T.Broadcast(T.int16(0), 8), a, T.int32(0), T.int32(0), T.int32(0)
    )
    return T.reinterpret(
        S32,
        _llvm(
            S8, "arm.mve.vqmovn", T.Broadcast(T.int8(0), 16), shorts,
            T.int32(0), T.int32(0), T.int32(0),
        ),
    )  # fmt: skip


vqmovn_s32 = _lanewise(
    "vqmovn_s32",
    "a",
    _saturated,
    "vreinterpretq_s32_s8(vqmovnbq_s16(vuninitializedq_s8(),"
    " vqmovnbq_s32(vuninitializedq_s16(), a)))",
    _narrowed,
)
"""Saturates to int8. Only the lowest byte of each lane is defined: store it with ``vstrb``."""


def _narrowed_pair(a: ir.Expr, b: ir.Expr) -> ir.Expr:
    zero, one = T.int32(0), T.int32(1)
    bottom = _llvm(S16, "arm.mve.vqmovn", T.Broadcast(T.int16(0), 8), a, zero, zero, zero)
    shorts = _llvm(S16, "arm.mve.vqmovn", bottom, b, zero, zero, one)
    bytes_ = _llvm(S8, "arm.mve.vqmovn", T.Broadcast(T.int8(0), 16), shorts, zero, zero, zero)
    return T.reinterpret(S16, bytes_)


def _interleave(i: ir.Expr, a, b, result) -> None:
    for half, vector in enumerate((a, b)):
        T.buffer_store(result, T.cast(_saturated(vector[i]), "int16"), [i * 2 + half])


vqmovn_pair_s32 = _mve(
    "vqmovn_pair_s32",
    S16,
    [("a", S32), ("b", S32)],
    _interleave,
    "vreinterpretq_s16_s8(vqmovnbq_s16(vuninitializedq_s8(),"
    " vqmovntq_s32(vqmovnbq_s32(vuninitializedq_s16(), a), b)))",
    _narrowed_pair,
    extent=4,
)
"""Saturates two vectors to int8 and interleaves them. Only low bytes are defined."""
