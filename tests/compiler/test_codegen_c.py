"""The C emitter: what each TIR construct becomes, and that it computes what TIR means."""

import ctypes
import functools
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tvm import ir, tirx
from tvm.script import tirx as T

from helpers.host import WARNINGS
from helpers.lowered import lowered
from mcuforge.codegen import c
from mcuforge.codegen.lower import LoweredKernel
from mcuforge.errors import ModelError

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
_HEADERS = ("math.h", "stdbool.h", "stdint.h", "string.h")
_HEAD = "".join(f"#include <{name}>\n" for name in _HEADERS) + c.MIN_MAX + c.KERNEL


def _elementwise(
    compute: Callable, dtypes: tuple[str, ...], result: str, size: int
) -> LoweredKernel:
    """y[i] = compute(a[i]) or compute(a[i], b[i])."""
    a_dtype, b_dtype = dtypes[0], dtypes[-1]
    if len(dtypes) == 1:

        @T.prim_func(private=True)
        def unary(a: T.Buffer((size,), a_dtype), y: T.Buffer((size,), result)):
            for i in range(size):
                y[i] = compute(a[i])

        return lowered(unary)

    @T.prim_func(private=True)
    def binary(
        a: T.Buffer((size,), a_dtype), b: T.Buffer((size,), b_dtype), y: T.Buffer((size,), result)
    ):
        for i in range(size):
            y[i] = compute(a[i], b[i])

    return lowered(binary)


def _build(directory: Path, kernels: dict[str, LoweredKernel], *flags: str) -> ctypes.CDLL:
    """Kernels as functions of a library, held to the warnings of all generated code."""
    text = _HEAD
    for name, kernel in kernels.items():
        text += c.kernel_source(name, kernel).removeprefix("static ")
        prototype = c.kernel_prototype(name, kernel)
        text = text.replace(f"void {name}(", f"{prototype}void {name}(", 1)
    (directory / "kernels.c").write_text(text)
    command = ["gcc", "-std=c99", *WARNINGS, *flags, "-shared", "-fPIC", "-o"]
    command += [str(directory / "kernels.so"), str(directory / "kernels.c"), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(directory / "kernels.so"))


def _call(library: ctypes.CDLL, name: str, *arrays: np.ndarray) -> None:
    getattr(library, name)(*(ctypes.c_void_p(array.ctypes.data) for array in arrays))


def _wrap(values: np.ndarray, dtype: str) -> np.ndarray:
    return np.asarray(values).astype(dtype)


_EDGES = {
    "int8": [-128, -127, -2, -1, 0, 1, 2, 63, 126, 127],
    "uint8": [0, 1, 2, 3, 64, 127, 128, 200, 254, 255],
    "int16": [-32768, -32767, -257, -1, 0, 1, 255, 256, 32766, 32767],
    "uint16": [0, 1, 2, 255, 256, 32767, 32768, 46341, 65534, 65535],
    "int32": [INT32_MIN, INT32_MIN + 1, -65537, -1, 0, 1, 255, 65536, INT32_MAX - 1, INT32_MAX],
    "uint32": [0, 1, 2, 255, 65536, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 2, 2**32 - 1],
    "int64": [INT64_MIN, INT64_MIN + 1, -(2**40), -1, 0, 1, 2**31, 2**40, INT64_MAX - 1, INT64_MAX],
    "float32": [-1e30, -2.5, -1.0, -0.0, 0.0, 1e-30, 0.5, 1.0, 2.5, 1e30],
}
# name: TIR, what it means, dtypes of the operands, dtype of the result, (C it contains or None).
CONSTRUCTS = {
    # 8 and 16 bit arithmetic wraps as TIR's does, although C computes in int.
    "add8": (lambda a, b: a + b, np.add, ("int8", "int8"), "int8", "(int8_t)(a[i] + b[i])"),
    "sub_u8": (lambda a, b: a - b, np.subtract, ("uint8", "uint8"), "uint8", "(uint8_t)(a[i] - b"),
    "mul_u16": (
        lambda a, b: a * b,
        np.multiply,
        ("uint16", "uint16"),
        "uint16",
        "(uint16_t)((uint32_t)a[i] * b[i])",
    ),
    "mul16": (lambda a, b: a * b, np.multiply, ("int16", "int16"), "int16", "(int16_t)(a[i] * b"),
    "add_u32": (lambda a, b: a + b, np.add, ("uint32", "uint32"), "uint32", "y[i] = a[i] + b[i];"),
    "sub_u32": (lambda a, b: a - b, np.subtract, ("uint32", "uint32"), "uint32", None),
    # Shifts: arithmetic to the right, into the sign bit to the left, by 32 and more in 64 bits.
    "shr": (lambda a: a >> 3, lambda a: a >> 3, ("int32",), "int32", "a[i] >> 3"),
    "shr_u32": (lambda a: a >> T.uint32(3), lambda a: a >> 3, ("uint32",), "uint32", "a[i] >> 3u"),
    "shr64": (
        lambda a: a >> T.int64(37),
        lambda a: a >> 37,
        ("int64",),
        "int64",
        "a[i] >> INT64_C(37)",
    ),
    "shl": (
        lambda a: a << 5,
        lambda a: _wrap(a.astype("int64") << 5, "int32"),
        ("int32",),
        "int32",
        "(int32_t)((uint32_t)a[i] << 5)",
    ),
    "shl64": (
        lambda a: a << T.int64(40),
        lambda a: (a.astype("uint64") << np.uint64(40)).astype("int64"),
        ("int64",),
        "int64",
        "(int64_t)((uint64_t)a[i] << INT64_C(40))",
    ),
    "shl8": (
        lambda a: T.cast(a, "int32") << 24,
        lambda a: _wrap(a.astype("int64") << 24, "int32"),
        ("int8",),
        "int32",
        "((uint32_t)(int32_t)a[i] << 24)",
    ),
    # Bitwise.
    "and": (lambda a, b: a & b, np.bitwise_and, ("int32", "int32"), "int32", "a[i] & b[i]"),
    "or": (lambda a, b: a | b, np.bitwise_or, ("int32", "int32"), "int32", "a[i] | b[i]"),
    "xor": (lambda a, b: a ^ b, np.bitwise_xor, ("int32", "int32"), "int32", "a[i] ^ b[i]"),
    "not": (lambda a: ~a, np.invert, ("int32",), "int32", "~a[i]"),
    "not8": (lambda a: ~a, np.invert, ("uint8",), "uint8", "(uint8_t)(~a[i])"),
    "mixed": (
        lambda a, b: (a & 255) | (b << 8) ^ (a >> 4),
        lambda a, b: (a & 255) | _wrap(b.astype("int64") << 8, "int32") ^ (a >> 4),
        ("int32", "int32"),
        "int32",
        "(a[i] & 255) | ",
    ),
    # Comparison, choice, logic.
    "min": (lambda a, b: T.min(a, b), np.minimum, ("int32", "int32"), "int32", "MCUFORGE_MIN("),
    "max": (lambda a, b: T.max(a, b), np.maximum, ("int64", "int64"), "int64", "MCUFORGE_MAX("),
    "clamp": (
        lambda a: T.cast(T.max(T.min(a, 127), -128), "int8"),
        lambda a: np.clip(a, -128, 127).astype("int8"),
        ("int32",),
        "int8",
        "(int8_t)MCUFORGE_MAX(MCUFORGE_MIN(a[i], 127), -128)",
    ),
    "less": (lambda a, b: a < b, np.less, ("int32", "int32"), "bool", "a[i] < b[i]"),
    "unsigned_less": (lambda a, b: a < b, np.less, ("uint32", "uint32"), "bool", None),
    "choice": (
        lambda a, b: T.if_then_else(a >= b, T.if_then_else(a == b, 7, 8), T.Select(b != 0, 9, 10)),
        lambda a, b: np.where(a >= b, np.where(a == b, 7, 8), np.where(b != 0, 9, 10)),
        ("int32", "int32"),
        "int32",
        "? (a[i] == b[i] ? 7 : 8) : (",
    ),
    "logic": (
        lambda a, b: T.And(T.Or(a < 0, b < 0), T.Not(T.And(a < 0, b < 0))),
        lambda a, b: (a < 0) ^ (b < 0),
        ("int32", "int32"),
        "bool",
        "(a[i] < 0 || b[i] < 0) && !(a[i] < 0 && b[i] < 0)",
    ),
    "bool_sum": (
        lambda a: T.cast(a >= 0, "int32") - T.cast(a <= -2, "int32"),
        lambda a: (a >= 0).astype("int32") - (a <= -2),
        ("int32",),
        "int32",
        "(int32_t)(a[i] >= 0) - (int32_t)(a[i] <= -2)",
    ),
    # Conversions.
    "narrow": (lambda a: T.cast(a, "int8"), lambda a: _wrap(a, "int8"), ("int32",), "int8", None),
    "widen": (lambda a: T.cast(a, "int64"), lambda a: _wrap(a, "int64"), ("int32",), "int64", None),
    "reinterpret": (
        lambda a: T.cast(T.cast(a, "uint8"), "int32"),
        lambda a: _wrap(_wrap(a, "uint8"), "int32"),
        ("int8",),
        "int32",
        "(int32_t)(uint8_t)a[i]",
    ),
    "high_word": (
        lambda a, b: T.cast(
            (T.cast(a, "int64") * T.cast(b, "int64") + T.int64(1 << 30)) >> 31, "int32"
        ),
        lambda a, b: _wrap((a.astype("int64") * b.astype("int64") + (1 << 30)) >> 31, "int32"),
        ("int32", "int32"),
        "int32",
        None,
    ),
    "truncate": (
        lambda a: T.cast(T.max(T.min(a, T.float32(1e6)), T.float32(-1e6)), "int32"),
        lambda a: np.clip(a, -1e6, 1e6).astype("int32"),
        ("float32",),
        "int32",
        "1e+06f",
    ),
    # Constants.
    "minimum": (lambda a: T.max(a, INT32_MIN), lambda a: a, ("int32",), "int32", "INT32_MIN"),
    "minimum64": (
        lambda a: T.max(a, T.int64(INT64_MIN)),
        lambda a: a,
        ("int64",),
        "int64",
        "(-INT64_C(9223372036854775807) - 1)",
    ),
    "minus_negative": (
        lambda a: T.cast(a, "int32") - T.int32(-5) * T.cast(a, "int32"),
        lambda a: a.astype("int32") * 6,
        ("int8",),
        "int32",
        None,
    ),
    "unsigned_constant": (
        lambda a: a ^ T.uint32(0xFFFFFFFF),
        lambda a: ~a,
        ("uint32",),
        "uint32",
        "4294967295u",
    ),
    "table": (
        lambda a: T.cast(a, "int32") + 128,
        lambda a: a.astype("int32") + 128,
        ("int8",),
        "int32",
        "(int32_t)a[i] + 128",
    ),
    # Floating point.
    "scale": (
        lambda a: T.cast(T.cast(a, "int32") + 3, "float32") * T.float32(0.1),
        lambda a: (a.astype("int32") + 3).astype("float32") * np.float32(0.1),
        ("int8",),
        "float32",
        "* 0.1f",
    ),
    "divide": (
        lambda a, b: a / (b + T.float32(3)),
        lambda a, b: a / (b + np.float32(3)),
        ("float32", "float32"),
        "float32",
        "a[i] / (b[i] + 3.0f)",
    ),
    "tiny_constant": (
        lambda a: a + T.float32(-1.17549435e-38),
        lambda a: a + np.float32(-1.17549435e-38),
        ("float32",),
        "float32",
        "-1.1754944e-38f",
    ),
    "sqrt": (lambda a: T.sqrt(a * a), lambda a: np.sqrt(a * a), ("float32",), "float32", "sqrtf("),
    "exp": (lambda a: T.exp(T.min(a, T.float32(0))), None, ("float32",), "float32", "expf("),
    "round": (T.nearbyint, np.rint, ("float32",), "float32", "nearbyintf(a[i])"),
}  # fmt: skip


@pytest.fixture(scope="module", params=["-O0", "-O2"])
def constructs(request, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return _build(tmp_path_factory.mktemp("constructs"), _construct_kernels(), request.param)


def _operands(dtypes: tuple[str, ...]) -> list[np.ndarray]:
    """Every edge value of the first type against every one of the second."""
    grids = np.meshgrid(*(np.array(_EDGES[dtype], dtype) for dtype in dtypes), indexing="ij")
    return [np.ascontiguousarray(grid.reshape(-1)) for grid in grids]


@functools.cache
def _construct_kernels() -> dict[str, LoweredKernel]:
    return {
        f"k_{name}": _elementwise(compute, dtypes, result, 10 ** len(dtypes))
        for name, (compute, _, dtypes, result, _) in CONSTRUCTS.items()
    }


@pytest.mark.parametrize("name", CONSTRUCTS)
def test_a_construct_computes_what_it_means(name: str, constructs: ctypes.CDLL) -> None:
    _, meaning, dtypes, result, _ = CONSTRUCTS[name]
    operands = _operands(dtypes)
    given = np.zeros(len(operands[0]), result)
    _call(constructs, f"k_{name}", *operands, given)
    if meaning is None:
        np.testing.assert_allclose(given, np.exp(np.minimum(operands[0], 0)), rtol=1e-6)
    else:
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(given, meaning(*operands).astype(result))


@pytest.mark.parametrize("name", [n for n, entry in CONSTRUCTS.items() if entry[-1]])
def test_a_construct_reads_as_expected(name: str) -> None:
    compute, _, dtypes, result, text = CONSTRUCTS[name]
    assert text in c.kernel_source("k", _elementwise(compute, dtypes, result, 10))


def _tree(rng: random.Random, depth: int) -> tuple[Callable, Callable, int]:
    """A random expression of a and b: as TIR, as Python, and a bound of its magnitude."""
    if depth == 0:
        kind = rng.randrange(3)
        if kind == 2:
            value = rng.choice([-128, -7, -1, 0, 1, 3, 100, 127])
            return lambda a, b: T.int32(value), lambda a, b: value, 128
        return (lambda a, b: (a, b)[kind]), (lambda a, b: (a, b)[kind]), 128
    operator = rng.choice(
        ["+", "-", "*", "&", "|", "^", ">>", "<<", "min", "max", "?", "~", "cast"]
    )
    (x, px, bx), (y, py, by) = (_tree(rng, rng.randrange(depth)) for _ in range(2))
    shift = rng.randrange(1, 6)
    wide = 2 * max(bx, by, 1)
    simple = {
        "+": (lambda a, b: a + b, bx + by),
        "-": (lambda a, b: a - b, bx + by),
        "*": (lambda a, b: a * b, bx * by),
        "&": (lambda a, b: a & b, wide),
        "|": (lambda a, b: a | b, wide),
        "^": (lambda a, b: a ^ b, wide),
    }
    if operator in simple:
        apply, bound = simple[operator]
        tir, python = (
            (lambda a, b: apply(x(a, b), y(a, b))),
            (lambda a, b: apply(px(a, b), py(a, b))),
        )
    elif operator == ">>":
        tir, python, bound = (lambda a, b: x(a, b) >> shift), (lambda a, b: px(a, b) >> shift), bx
    elif operator == "<<":
        tir, python = (lambda a, b: x(a, b) << shift), (lambda a, b: px(a, b) << shift)
        bound = bx << shift
    elif operator == "~":
        tir, python, bound = (lambda a, b: ~x(a, b)), (lambda a, b: ~px(a, b)), bx + 1
    elif operator == "cast":
        tir = lambda a, b: T.cast(T.cast(x(a, b), "int8"), "int32")  # noqa: E731
        python, bound = (lambda a, b: (px(a, b) + 128) % 256 - 128), 128
    elif operator == "?":
        tir = lambda a, b: T.if_then_else(x(a, b) < y(a, b), y(a, b), x(a, b))  # noqa: E731
        python = lambda a, b: py(a, b) if px(a, b) < py(a, b) else px(a, b)  # noqa: E731
        bound = max(bx, by)
    else:
        tir_apply, apply = (T.min, min) if operator == "min" else (T.max, max)
        tir = lambda a, b: tir_apply(x(a, b), y(a, b))  # noqa: E731
        python = lambda a, b: apply(px(a, b), py(a, b))  # noqa: E731
        bound = max(bx, by)
    if bound < 2**30:
        return tir, python, bound
    return _tree(rng, depth - 1)


def test_nested_expressions_keep_their_structure(tmp_path: Path) -> None:
    rng = random.Random(7)
    trees = [_tree(rng, 6) for _ in range(60)]
    values = np.array([-128, -127, -5, -1, 0, 1, 2, 64, 126, 127], "int32")
    a, b = (np.ascontiguousarray(g.reshape(-1)) for g in np.meshgrid(values, values))
    kernels = {
        f"tree{i}": _elementwise(tir, ("int32", "int32"), "int32", a.size)
        for i, (tir, _, _) in enumerate(trees)
    }
    trap = ("-fsanitize=undefined", "-fsanitize-undefined-trap-on-error")
    library = _build(tmp_path, kernels, "-O0", "-Wno-unused-parameter", *trap)
    for i, (_, python, _) in enumerate(trees):
        given = np.zeros(a.size, "int32")
        _call(library, f"tree{i}", a, b, given)
        assert given.tolist() == [python(int(x), int(y)) for x, y in zip(a, b, strict=True)], (
            c.kernel_source(f"tree{i}", kernels[f"tree{i}"])
        )


@T.prim_func(private=True)
def _statements(
    x: T.Buffer((4, 6), "int8"), table: T.Buffer((8,), "int32"), y: T.Buffer((4,), "int32")
):
    """Loops, scalars, local and workspace memory, conditions, while, let."""
    row = T.alloc_buffer((6,), "int16")
    small = T.alloc_buffer((2,), "int32", scope="local")
    for i in range(4):
        for j in range(6):
            row[j] = T.cast(x[i, j], "int16")
        small[0] = 0
        small[1] = 1
        for j in range(2, 6):
            if row[j] > T.int16(0):
                small[0] = small[0] + T.cast(row[j], "int32")
            else:
                small[1] = small[1] * 2
        total: T.int32 = small[0]
        total += small[1]
        steps: T.int32 = 0
        while total > 10:
            total = total // 2
            steps += 1
        last: T.let = table[steps % 8]
        for k in T.unroll(2):
            total += last + k
        y[i] = total


def _statements_meaning(x: np.ndarray, table: np.ndarray) -> list[int]:
    results = []
    for row in x.astype(int):
        positive = [v for v in row[2:] if v > 0]
        total, steps = sum(positive) + 2 ** (4 - len(positive)), 0
        while total > 10:
            total, steps = total // 2, steps + 1
        results.append(total + 2 * table[steps % 8] + 1)
    return results


def test_statements(tmp_path: Path) -> None:
    kernel = lowered(_statements)
    assert kernel.scratch == (((6,), "int16"),)
    library = _build(tmp_path, {"statements": kernel}, "-O1")
    rng = np.random.default_rng(1)
    table = rng.integers(-100, 100, 8, dtype=np.int32)
    for _ in range(20):
        x = rng.integers(-128, 128, (4, 6), dtype=np.int8)
        y, workspace = np.zeros(4, np.int32), np.zeros(6, np.int16)
        _call(library, "statements", x, table, y, workspace)
        assert y.tolist() == _statements_meaning(x, table)


def test_statements_read_as_expected() -> None:
    text = c.kernel_source("statements", lowered(_statements))
    head = "static TVMGEN_KERNEL void statements("
    head += "const int8_t *restrict x, const int32_t *restrict table, "
    assert text.startswith(f"{head}int32_t *restrict y, int16_t *restrict row_workspace) {{\n")
    for part in (
        "    int32_t small[2];\n",
        "for (int32_t i = 0; i < 4; ++i) {",
        "int32_t total = small[0];",
        "total += small[1];",
        "while (total > 10) {",
        "const int32_t last = table[",
        "} else {",
    ):
        assert part in text
    assert text.count("for (") == 3  # one is unrolled


def test_aliased_parameters_are_not_restrict() -> None:
    kernel = lowered(_statements).may_alias(frozenset({0, 2}))
    prototype = c.kernel_prototype("f", kernel)
    assert prototype == (
        "void f(const int8_t *x, const int32_t *restrict table, int32_t *y, "
        "int16_t *restrict row_workspace);\n"
    )


def test_a_parameter_that_is_not_needed_is_no_warning(tmp_path: Path) -> None:
    @T.prim_func(private=True)
    def constant(x: T.Buffer((4,), "int8"), y: T.Buffer((4,), "int8")):
        for i in range(4):
            y[i] = T.int8(7)

    library = _build(tmp_path, {"constant": lowered(constant)})
    y = np.zeros(4, np.int8)
    _call(library, "constant", np.zeros(4, np.int8), y)
    assert y.tolist() == [7] * 4


def test_names_are_unique_and_no_keywords() -> None:
    @T.prim_func(private=True)
    def twice(x: T.Buffer((4,), "int32"), y: T.Buffer((4,), "int32")):
        for i in range(4):
            y[i] = x[i]
        for i in range(4):
            y[i] = y[i] + 1

    assert "for (int32_t i_1 = 0; i_1 < 4; ++i_1)" in c.kernel_source("f", lowered(twice))

    pointers = [
        tirx.Var(name, ir.PointerType(ir.PrimType("int8")))
        for name in ("int", "register", "workspace", "0", "é", "a.b", "a b")
    ]
    func = tirx.PrimFunc(pointers, tirx.Evaluate(T.int32(0)))
    prototype = c.kernel_prototype("f", LoweredKernel(func, ()))
    names = [part.split("*restrict ")[1] for part in prototype.rstrip(");\n").split(", ")]
    assert names == ["v_int", "v_register", "v_workspace", "v_0", "v", "a_b", "a_b_1"]


@pytest.mark.parametrize(
    ("value", "dtype", "text"),
    [
        (0, "int32", "0"),
        (-1, "int8", "-1"),
        (INT32_MIN, "int32", "INT32_MIN"),
        (2**32 - 1, "uint32", "4294967295u"),
        (-5, "int64", "INT64_C(-5)"),
        (INT64_MIN, "int64", "(-INT64_C(9223372036854775807) - 1)"),
        (2**64 - 1, "uint64", "UINT64_C(18446744073709551615)"),
        (1, "bool", "true"),
    ],
)
def test_integer_literals(value: int, dtype: str, text: str) -> None:
    assert c.integer_literal(value, dtype)[0] == text


def test_float_literals_read_back_the_same() -> None:
    rng = np.random.default_rng(3)
    values = rng.integers(0, 2**32, 2000, dtype=np.uint32).view(np.float32)
    for value in [*values[np.isfinite(values)], np.float32(0), np.float32(1), np.float32(1e10)]:
        text, _ = c.float_literal(float(value), "float32")
        assert text.endswith("f") and ("." in text or "e" in text)
        assert np.float32(text.removesuffix("f")) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_floats_without_a_literal_are_an_error(value: float) -> None:
    with pytest.raises(ModelError, match="float constant"):
        c.float_literal(value, "float32")


def test_what_c_cannot_do_is_an_error_that_names_kernel_and_node() -> None:
    kernel = _elementwise(T.erf, ("float32",), "float32", 4)
    with pytest.raises(ModelError, match=r"tvmgen_m_k.*erf"):
        c.kernel_source("tvmgen_m_k", kernel)


def test_the_text_depends_on_the_kernel_only() -> None:
    first, second = (c.kernel_source("f", lowered(_statements)) for _ in range(2))
    assert first == second


def test_only_float_code_includes_math() -> None:
    assert c.uses_math("y[i] = expf(x[i]);")
    assert c.uses_math("y[i] = 1.0f / sqrtf(x[i]);")
    assert not c.uses_math("y[i] = table[x[i]];")
