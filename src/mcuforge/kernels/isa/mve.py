"""ARMv8.1-M Helium (MVE), integer: what mcuforge's vector kernels are made of.

Names follow Arm's mnemonics; ``_n`` takes a scalar operand. Reference: Arm v8-M Architecture
Reference Manual (DDI 0553), C2, and the Helium section of the Arm C Language Extensions.
"""

from collections.abc import Callable, Sequence

from tvm import ir
from tvm.script import tirx as T
from tvm.target.codegen import llvm_lookup_intrinsic_id

from mcuforge.kernels.isa import Instruction, instruction

S8, S16, S32 = "int8x16", "int16x8", "int32x4"
U8, U16, U32 = "uint8x16", "uint16x8", "uint32x4"
_POINTER = ("p", "handle")


def _mve(
    name: str,
    result: str,
    params: Sequence[tuple[str, str]],
    c: str,
    portable: str,
    llvm: Callable[..., ir.Expr],
    semantics: Callable[..., ir.Expr] | None = None,
) -> Instruction:
    params = tuple(params)
    writes = ("p",) if result == "void" else ()
    return instruction(
        name=name,
        feature="mve",
        result=result,
        params=params,
        semantics=semantics,
        c=c,
        portable=portable,
        llvm=llvm,
        header="arm_mve.h",
        writes=writes,
    )


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


def _loop(lanes: int, statement: str, result: str = "") -> str:
    """Portable C over the lanes of a vector ``v``."""
    lines = [f"for (int i = 0; i < {lanes}; ++i) {{", f"    {statement}", "}"]
    return "\n".join([f"{result}_t v;", *lines, "return v;"] if result else lines)


# Loads and stores. Addresses need the alignment of the element in memory only.


def _load(name: str, dtype: str, memory: str, c: str) -> Instruction:
    lanes = int(dtype.split("x")[1])
    narrow = f"{memory}x{lanes}"

    def llvm(p: ir.Expr) -> ir.Expr:
        loaded = _llvm(narrow, "masked.load", p, _all(lanes), T.Broadcast(T.Cast(memory, 0), lanes))
        return loaded if narrow == dtype else T.cast(loaded, dtype)

    portable = _loop(lanes, f"v[i] = ((const {memory}_t *)p)[i];", dtype)
    return _mve(name, dtype, [_POINTER], f"{c}((const {memory}_t *)p)", portable, llvm)


vldrb_s8 = _load("vldrb_s8", S8, "int8", "vldrbq_s8")
vldrb_u8 = _load("vldrb_u8", U8, "uint8", "vldrbq_u8")
vldrb_s16 = _load("vldrb_s16", S16, "int8", "vldrbq_s16")
vldrb_s32 = _load("vldrb_s32", S32, "int8", "vldrbq_s32")
vldrb_u16 = _load("vldrb_u16", U16, "uint8", "vldrbq_u16")
vldrh_u16 = _load("vldrh_u16", U16, "uint16", "vldrhq_u16")
vldrw_u32 = _load("vldrw_u32", U32, "uint32", "vldrwq_u32")
vldrw_s32 = _load("vldrw_s32", S32, "int32", "vldrwq_s32")

vldrw_s8 = _mve(
    "vldrw_s8",
    S8,
    [_POINTER],
    "vreinterpretq_s8_s32(vldrwq_s32((const int32_t *)p))",
    _loop(16, "v[i] = ((const int8_t *)p)[i];", S8),
    vldrb_s8.llvm,
)
"""Sixteen bytes from a multiple of four, where an immediate offset reaches four times as far."""

vldrbt_s8 = _mve(
    "vldrbt_s8",
    S8,
    [_POINTER, ("n", "int32")],
    "vldrbq_z_s8((const int8_t *)p, vctp8q((uint32_t)n))",
    _loop(16, "v[i] = (int8_t)(i < n ? ((const int8_t *)p)[i] : 0);", S8),
    lambda p, n: _llvm(
        S8, "masked.load", p, _llvm("boolx16", "arm.mve.vctp8", n), T.Broadcast(T.int8(0), 16)
    ),
)
"""The first n bytes; the other lanes are zero and their memory is not read."""


def _gather(name: str, dtype: str, offsets: str, c: str) -> Instruction:
    lanes = int(dtype.split("x")[1])
    return _mve(
        name,
        dtype,
        [_POINTER, ("offset", offsets)],
        f"{c}((const int8_t *)p, offset)",
        _loop(lanes, "v[i] = ((const int8_t *)p)[offset[i]];", dtype),
        lambda p, offset: _llvm(
            dtype, "arm.mve.vldr.gather.offset", p, offset, T.int32(8), T.int32(0), T.int32(0)
        ),
    )


vldrb_gather_s8 = _gather("vldrb_gather_s8", S8, U8, "vldrbq_gather_offset_s8")
vldrb_gather_s16 = _gather("vldrb_gather_s16", S16, U16, "vldrbq_gather_offset_s16")
vldrb_gather_s32 = _gather("vldrb_gather_s32", S32, U32, "vldrbq_gather_offset_s32")


def _store(name: str, dtype: str, c: str, memory: str = "int8") -> Instruction:
    lanes = int(dtype.split("x")[1])
    narrow = f"{memory}x{lanes}"
    return _mve(
        name,
        "void",
        [_POINTER, ("v", dtype)],
        f"{c}(({memory}_t *)p, v);",
        _loop(lanes, f"(({memory}_t *)p)[i] = ({memory}_t)v[i];"),
        lambda p, v: _effect(
            "masked.store", v if dtype == narrow else T.cast(v, narrow), p, _all(lanes)
        ),
    )


vstrb_s8 = _store("vstrb_s8", S8, "vstrbq_s8")
vstrb_s16 = _store("vstrb_s16", S16, "vstrbq_s16")
vstrb_s32 = _store("vstrb_s32", S32, "vstrbq_s32")
vstrh_s16 = _store("vstrh_s16", S16, "vstrhq_s16", "int16")


def _scatter(name: str, dtype: str, offsets: str, c: str) -> Instruction:
    lanes = int(dtype.split("x")[1])
    return _mve(
        name,
        "void",
        [_POINTER, ("offset", offsets), ("v", dtype)],
        f"{c}((int8_t *)p, offset, v);",
        _loop(lanes, "((int8_t *)p)[offset[i]] = (int8_t)v[i];"),
        lambda p, offset, v: _effect(
            "arm.mve.vstr.scatter.offset", p, offset, v, T.int32(8), T.int32(0)
        ),
    )


vstrb_scatter_s8 = _scatter("vstrb_scatter_s8", S8, U8, "vstrbq_scatter_offset_s8")
vstrb_scatter_s16 = _scatter("vstrb_scatter_s16", S16, U16, "vstrbq_scatter_offset_s16")
vstrb_scatter_s32 = _scatter("vstrb_scatter_s32", S32, U32, "vstrbq_scatter_offset_s32")

vstrbt_scatter_s8 = _mve(
    "vstrbt_scatter_s8",
    "void",
    [_POINTER, ("offset", U8), ("v", S8), ("n", "int32")],
    "vstrbq_scatter_offset_p_s8((int8_t *)p, offset, v, vctp8q((uint32_t)n));",
    "for (int i = 0; i < n; ++i) {\n    ((int8_t *)p)[offset[i]] = v[i];\n}",
    lambda p, offset, v, n: _effect(
        "arm.mve.vstr.scatter.offset.predicated",
        p,
        offset,
        v,
        T.int32(8),
        T.int32(0),
        _llvm("boolx16", "arm.mve.vctp8", n),
    ),
)
"""Scatters the first n lanes only."""


# Dot products of sixteen int8.


def _products(a: ir.Expr, b: ir.Expr) -> ir.Expr:
    terms = [
        T.cast(T.Shuffle([a], [i]), "int32") * T.cast(T.Shuffle([b], [i]), "int32")
        for i in range(16)
    ]
    return sum(terms[1:], terms[0])


vmladav_s8 = _mve(
    "vmladav_s8",
    "int32",
    [("a", S8), ("b", S8)],
    "vmladavq_s8(a, b)",
    "int32_t sum = 0;\n" + _loop(16, "sum += a[i] * b[i];") + "\nreturn sum;",
    lambda a, b: _llvm("int32", "arm.mve.vmldava", *[T.int32(0)] * 4, a, b),
    _products,
)
vmladava_s8 = _mve(
    "vmladava_s8",
    "int32",
    [("sum", "int32"), ("a", S8), ("b", S8)],
    "vmladavaq_s8(sum, a, b)",
    _loop(16, "sum += a[i] * b[i];") + "\nreturn sum;",
    lambda acc, a, b: _llvm("int32", "arm.mve.vmldava", *[T.int32(0)] * 3, acc, a, b),
    lambda acc, a, b: acc + _products(a, b),
)


# Vectors from scalars.

# GCC has no pattern for the move of two registers into two lanes; Clang selects it by itself.
vmov_s32 = _mve(
    "vmov_s32",
    S32,
    [("a", "int32"), ("b", "int32"), ("c", "int32"), ("d", "int32")],
    """#if defined(__clang__)
return (int32x4_t){a, b, c, d};
#else
int32x4_t v;
__asm__("vmov %q0[2], %q0[0], %1, %2\\n\\tvmov %q0[3], %q0[1], %3, %4"
        : "=&w"(v)
        : "r"(a), "r"(c), "r"(b), "r"(d));
return v;
#endif""",
    "return (int32x4_t){a, b, c, d};",
    lambda a, b, c, d: T.Shuffle([a, b, c, d], [0, 1, 2, 3]),
    lambda a, b, c, d: T.Shuffle([a, b, c, d], [0, 1, 2, 3]),
)


def _dup(dtype: str) -> Instruction:
    element, lanes = dtype.split("x")
    suffix = f"s{element.removeprefix('int')}"
    return _mve(
        f"vdup_{suffix}",
        dtype,
        [("n", element)],
        f"vdupq_n_{suffix}(n)",
        _loop(int(lanes), "v[i] = n;", dtype),
        lambda n: T.Broadcast(n, int(lanes)),
        lambda n: T.Broadcast(n, int(lanes)),
    )


vdup_s8, vdup_s16, vdup_s32 = (_dup(dtype) for dtype in (S8, S16, S32))


def _multiples(name: str, dtype: str, c: str) -> Instruction:
    element, lanes = dtype.split("x")
    return _mve(
        name,
        dtype,
        [("n", "int32")],
        c,
        _loop(int(lanes), f"v[i] = ({element}_t)(i * n);", dtype),
        lambda n: (
            T.Ramp(T.Cast(element, 0), T.Cast(element, 1), int(lanes))
            * T.Broadcast(T.cast(n, element), int(lanes))
        ),
        lambda n: (
            T.Ramp(T.Cast(element, 0), T.Cast(element, 1), int(lanes))
            * T.Broadcast(T.cast(n, element), int(lanes))
        ),
    )


vmultiples_u16 = _multiples("vmultiples_u16", U16, "vmulq_n_u16(vidupq_n_u16(0, 1), (uint16_t)n)")
"""0, n, 2n...: VIDUP, then VMUL."""
vmultiples_u32 = _multiples("vmultiples_u32", U32, "vmulq_n_u32(vidupq_n_u32(0, 1), (uint32_t)n)")


# Arithmetic on four int32.


def _vector(value: ir.Expr) -> ir.Expr:
    """A scalar operand as a vector."""
    return value if str(value.ty.dtype) == S32 else T.Broadcast(value, 4)


def _lanewise(
    name: str,
    params: str,
    c: str,
    portable: str,
    llvm: Callable[..., ir.Expr],
    semantics: Callable[..., ir.Expr] | None = None,
) -> Instruction:
    """Params: ``a b`` are vectors, ``n`` is a scalar; portable: the value of one lane."""
    types = [(p, "int32" if p == "n" else S32) for p in params.split()]
    return _mve(name, S32, types, c, _loop(4, f"v[i] = {portable};", S32), llvm, semantics)


def _wide(value: ir.Expr) -> ir.Expr:
    return T.cast(_vector(value), "int64x4")


def _splat(value: int) -> ir.Expr:
    return T.Broadcast(T.int64(value), 4)


def _high(a: ir.Expr, b: ir.Expr, rounding: int) -> ir.Expr:
    """The high word of the doubled product."""
    product = _wide(a) * _wide(b) + _splat(rounding << 30)
    return T.Min(product >> _splat(31), _splat(2**31 - 1))


def _round_shift(a: ir.Expr, n: ir.Expr, rounding: int) -> ir.Expr:
    """a * 2^n, for n from -32 to 31, halves up if rounding."""
    right = T.Max(-_wide(n), _splat(0))
    left = T.Max(_wide(n), _splat(0))
    half = (_splat(rounding) << right) >> _splat(1)
    return T.cast(((_wide(a) + half) >> right) << left, S32)


_SUM = "(int32_t)((uint32_t)a[i] + (uint32_t){})"
_HIGH = "(int32_t)(((int64_t)a[i] * {} + {}) >> 31)"
_SHIFT = "{n} < 0 ? (int32_t)(((int64_t)a[i] + {half}) >> -{n}) : (int32_t)((uint32_t)a[i] << {n})"

vadd_s32 = _lanewise(
    "vadd_s32",
    "a b",
    "vaddq_s32(a, b)",
    _SUM.format("b[i]"),
    lambda a, b: a + b,
    lambda a, b: a + b,
)
vadd_n_s32 = _lanewise(
    "vadd_n_s32",
    "a n",
    "vaddq_n_s32(a, n)",
    _SUM.format("n"),
    lambda a, n: a + _vector(n),
    lambda a, n: a + _vector(n),
)
vmul_n_s32 = _lanewise(
    "vmul_n_s32",
    "a n",
    "vmulq_n_s32(a, n)",
    "(int32_t)((uint32_t)a[i] * (uint32_t)n)",
    lambda a, n: a * _vector(n),
    lambda a, n: a * _vector(n),
)
vmla_n_s32 = _lanewise(
    "vmla_n_s32",
    "a b n",
    "vmlaq_n_s32(a, b, n)",
    _SUM.format("b[i] * (uint32_t)n"),
    lambda a, b, n: a + b * _vector(n),
    lambda a, b, n: a + b * _vector(n),
)
vqrdmulh_s32 = _lanewise(
    "vqrdmulh_s32",
    "a b",
    "vqrdmulhq_s32(a, b)",
    _HIGH.format("b[i]", "(1 << 30)"),
    lambda a, b: _llvm(S32, "arm.mve.vqrdmulh", a, b),
    lambda a, b: T.cast(_high(a, b, 1), S32),
)
"""SaturatingRoundingDoublingHighMul of gemmlowp, on four lanes. The portable form does not
saturate: kernels never multiply -2^31 by itself."""
vqdmulh_s32 = _lanewise(
    "vqdmulh_s32",
    "a b",
    "vqdmulhq_s32(a, b)",
    _HIGH.format("b[i]", "0"),
    lambda a, b: _llvm(S32, "arm.mve.vqdmulh", a, b),
    lambda a, b: T.cast(_high(a, b, 0), S32),
)
vqrdmulh_n_s32 = _lanewise(
    "vqrdmulh_n_s32",
    "a n",
    "vqrdmulhq_n_s32(a, n)",
    _HIGH.format("n", "(1 << 30)"),
    lambda a, n: _llvm(S32, "arm.mve.vqrdmulh", a, _vector(n)),
    lambda a, n: T.cast(_high(a, n, 1), S32),
)
vqdmulh_n_s32 = _lanewise(
    "vqdmulh_n_s32",
    "a n",
    "vqdmulhq_n_s32(a, n)",
    _HIGH.format("n", "0"),
    lambda a, n: _llvm(S32, "arm.mve.vqdmulh", a, _vector(n)),
    lambda a, n: T.cast(_high(a, n, 0), S32),
)
vqrdmlash_n_s32 = _lanewise(
    "vqrdmlash_n_s32",
    "a b n",
    "vqrdmlashq_n_s32(a, b, n)",
    "(int32_t)((((int64_t)a[i] * b[i] + (1 << 30)) >> 31) + n)",
    lambda a, b, n: _llvm(S32, "arm.mve.vqrdmlash", a, b, n),
    lambda a, b, n: T.cast(_high(a, b, 1) + _wide(n), S32),
)
vrshl_s32 = _lanewise(
    "vrshl_s32",
    "a b",
    "vrshlq_s32(a, b)",
    _SHIFT.format(n="b[i]", half="(INT64_C(1) << (-b[i] - 1))"),
    lambda a, b: _llvm(S32, "arm.mve.vshl.vector", a, b, T.int32(0), T.int32(1), T.int32(0)),
    lambda a, b: _round_shift(a, b, 1),
)
"""Shifts left, or right where the shift is negative, rounding halves up."""
vrshl_n_s32 = _lanewise(
    "vrshl_n_s32",
    "a n",
    "vrshlq_n_s32(a, n)",
    _SHIFT.format(n="n", half="(INT64_C(1) << (-n - 1))"),
    lambda a, n: _llvm(S32, "arm.mve.vshl.scalar", a, n, T.int32(0), T.int32(1), T.int32(0)),
    lambda a, n: _round_shift(a, n, 1),
)
vshl_r_s32 = _lanewise(
    "vshl_r_s32",
    "a n",
    "vshlq_r_s32(a, n)",
    _SHIFT.format(n="n", half="0"),
    lambda a, n: _llvm(S32, "arm.mve.vshl.scalar", a, n, T.int32(0), T.int32(0), T.int32(0)),
    lambda a, n: _round_shift(a, n, 0),
)
vsign_s32 = _lanewise(
    "vsign_s32",
    "a",
    "vshrq_n_s32(a, 31)",
    "-(a[i] < 0)",
    lambda a: a >> T.Broadcast(T.int32(31), 4),
    lambda a: a >> T.Broadcast(T.int32(31), 4),
)
vmin_s32 = _lanewise(
    "vmin_s32", "a b", "vminq_s32(a, b)", "a[i] < b[i] ? a[i] : b[i]", T.Min, T.Min
)
vmax_s32 = _lanewise(
    "vmax_s32", "a b", "vmaxq_s32(a, b)", "a[i] > b[i] ? a[i] : b[i]", T.Max, T.Max
)


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
    "vreinterpretq_s32_s8(vqmovnbq_s16(vuninitializedq_s8(),"
    " vqmovnbq_s32(vuninitializedq_s16(), a)))",
    "a[i] < -128 ? -128 : a[i] > 127 ? 127 : a[i]",
    _narrowed,
)
"""Saturates to int8. Only the lowest byte of each lane is defined: store it with ``vstrb``."""


def _narrowed_pair(a: ir.Expr, b: ir.Expr) -> ir.Expr:
    zero, one = T.int32(0), T.int32(1)
    bottom = _llvm(S16, "arm.mve.vqmovn", T.Broadcast(T.int16(0), 8), a, zero, zero, zero)
    shorts = _llvm(S16, "arm.mve.vqmovn", bottom, b, zero, zero, one)
    bytes_ = _llvm(S8, "arm.mve.vqmovn", T.Broadcast(T.int8(0), 16), shorts, zero, zero, zero)
    return T.reinterpret(S16, bytes_)


vqmovn_pair_s32 = _mve(
    "vqmovn_pair_s32",
    S16,
    [("a", S32), ("b", S32)],
    "vreinterpretq_s16_s8(vqmovnbq_s16(vuninitializedq_s8(),"
    " vqmovntq_s32(vqmovnbq_s32(vuninitializedq_s16(), a), b)))",
    """int16x8_t v;
for (int i = 0; i < 4; ++i) {
    v[2 * i] = (int16_t)(a[i] < -128 ? -128 : a[i] > 127 ? 127 : a[i]);
    v[2 * i + 1] = (int16_t)(b[i] < -128 ? -128 : b[i] > 127 ? 127 : b[i]);
}
return v;""",
    _narrowed_pair,
)
"""Saturates two vectors to int8 and interleaves them. Only low bytes are defined."""

vadd_s16 = _mve(
    "vadd_s16",
    S16,
    [("a", S16), ("b", S16)],
    "vaddq_s16(a, b)",
    _loop(8, "v[i] = (int16_t)(a[i] + b[i]);", S16),
    lambda a, b: a + b,
    lambda a, b: a + b,
)
