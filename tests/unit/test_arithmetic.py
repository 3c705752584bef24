"""The arithmetic kernels are compiled with, against its definition and against LiteRT."""

import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helpers import reference, strategies
from helpers.tflite_graphs import answer
from mcuforge.errors import ModelError
from mcuforge.exact import arithmetic, search
from mcuforge.exact.lines import lines
from mcuforge.exact.steps import RoundedOnce, RoundedTwice, find

OPERATORS = [(op, dtype) for op, (_, dtypes) in strategies.OPERATORS.items() for dtype in dtypes]


def assert_same(op: str, results: list[np.ndarray], expected: list[np.ndarray]) -> None:
    """Byte-equal, or within 1e-5 of the largest magnitude where results are sums of floats."""
    for result, want in zip(results, expected, strict=True):
        assert result.shape == want.shape
        assert result.dtype == want.dtype
        if result.dtype == np.float32 and op != "DEQUANTIZE":
            largest = max(1.0, np.abs(want).max())
            np.testing.assert_allclose(result, want, rtol=1e-5, atol=2e-5 * largest)
        else:
            np.testing.assert_array_equal(result, want)


@pytest.mark.parametrize(("op", "dtype"), OPERATORS)
def test_reference_interpreter_answers_as_litert(op: str, dtype: str) -> None:
    strategy, _ = strategies.OPERATORS[op]

    @settings(max_examples=40, deadline=None)
    @given(strategy(dtype))
    def check(case: strategies.Case) -> None:
        results = reference.run(case.model, case.inputs)
        assert_same(case.op, results, answer(case.model, case.inputs))

    check()


def half_away(value: Fraction) -> int:
    return int(math.copysign(math.floor(abs(value) + Fraction(1, 2)), value))


@given(st.floats(2.0**-40, 2.0**20))
def test_quantized_multiplier_is_the_nearest_of_31_bits(real: float) -> None:
    mantissa, shift = arithmetic.quantize_multiplier(real)
    if real < 2.0**-32:
        assert (mantissa, shift) == (0, 0)
    else:
        assert 2**30 <= mantissa < 2**31
        error = abs(Fraction(mantissa) * Fraction(2) ** (shift - 31) - Fraction(real))
        assert error <= Fraction(2) ** (shift - 32)


@given(st.integers(-(2**24), 2**24), st.integers(2**30, 2**31 - 1), st.integers(-20, 6))
def test_multiplication_rounds_to_31_bits_and_then_to_integers(
    value: int, mantissa: int, shift: int
) -> None:
    high = math.floor(Fraction(value * 2 ** max(shift, 0) * mantissa, 2**31) + Fraction(1, 2))
    expected = half_away(Fraction(high, 2 ** max(-shift, 0)))
    assert arithmetic.multiply_by_quantized_multiplier(value, mantissa, shift) == expected


@pytest.mark.parametrize(
    ("value", "rounded"), [(0.5, 1), (-0.5, -1), (1.5, 2), (-2.5, -3), (0.49999999999999994, 0)]
)
def test_halves_are_rounded_away_from_zero(value: float, rounded: int) -> None:
    assert arithmetic.round_half_away(value) == rounded


scales = st.one_of(
    st.floats(2.0**-16, 4.0),
    st.builds(lambda odd, power: odd * 2.0**power, st.integers(1, 63), st.integers(-20, -4)),
)


def twice(factors: list[float]) -> RoundedTwice:
    return RoundedTwice.by(*(arithmetic.quantize_multiplier(real) for real in factors))


@st.composite
def requantizations(draw):
    """Rounding as convolutions do, or MEAN, or FULLY_CONNECTED, for a few channels."""
    factors = np.array(draw(st.lists(scales, min_size=1, max_size=4)))
    kind = draw(st.sampled_from(["twice", "mean", "once"]))
    if kind == "twice":
        rounded = twice(factors)
    elif kind == "mean":
        counts = st.integers(1, 3000)
        rounded = RoundedTwice.by(
            *(arithmetic.mean_multiplier(real, 1.0, draw(counts)) for real in factors)
        )
    else:
        rounded = RoundedOnce(factors)
    low = draw(st.integers(-255, 255))
    return rounded, (low, draw(st.integers(low, min(low + 255, 255))))


@settings(deadline=None)
@given(requantizations(), st.sampled_from([1000, 2**16, 2**22]), st.integers(0, 2**32 - 1))
@example((twice([1.1, 0.25]), (-6, 6)), 1000, 0)  # only one of them needs halves away from zero
@example((twice([0.25, 0.125]), (-6, 6)), 1000, 0)
@example((twice([0.5, 0.5]), (-128, 127)), 1000, 0)
@example((RoundedOnce(np.array([1.5, 0.001])), (-128, 127)), 2**22, 0)
@example((RoundedOnce(np.array([0.21540206271759857])), (-217, 0)), 1000, 0)
def test_one_line_equals_every_requantization(requantization, bound, seed) -> None:
    rounded, limits = requantization
    exact = lines(rounded, limits, bound)
    random = np.random.default_rng(seed)
    factors = rounded.scale[:, np.newaxis]
    near = np.arange(limits[0] - 2, limits[1] + 3) / factors
    near = np.concatenate([near - 0.5 / factors, near], axis=1)
    accumulators = np.concatenate(
        [
            np.floor(near),
            np.ceil(near),
            random.integers(-bound, bound + 1, (len(factors), 200)),
            np.broadcast_to([-bound, -1, 0, 1, bound], (len(factors), 5)),
        ],
        axis=1,
    )
    accumulators = np.clip(accumulators, -bound, bound).astype(np.int64)
    expected = np.clip(rounded(accumulators), *limits)
    np.testing.assert_array_equal(np.clip(exact(accumulators), *limits), expected)
    shifted = [int(m) * bound + abs(int(a)) for m, a in zip(exact.multiplier, exact.addend,
                                                            strict=True)]  # fmt: skip
    assert max(shifted) + 2**31 < 2**63


def test_channels_round_halves_as_each_of_them_needs() -> None:
    assert lines(twice([1.1, 0.25]), (-6, 6), 1000).halves == "mixed"
    assert lines(twice([0.25, 0.125]), (-6, 6), 1000).halves == "away"
    assert lines(twice([1.1, 0.25]), (0, 6), 1000).halves == "up"


def test_a_requantization_that_is_no_line_is_refused() -> None:
    class Cubic(RoundedOnce):
        def __call__(self, acc: np.ndarray) -> np.ndarray:
            return np.floor(acc**3 / 50)

    with pytest.raises(ModelError, match="no integer requantization is exact"):
        lines(Cubic(np.ones(1)), (-100, 100), 1000)


def test_steps_are_where_the_output_changes() -> None:
    found = find(twice([0.25]), (-1, 1), -1000, 1000)
    np.testing.assert_array_equal(found.first, [[-1, 1]])
    # Of two outputs that are always reached the larger is said twice; one is never reached.
    found = find(twice([0.25]), (-3, 2), -2, 4)
    np.testing.assert_array_equal(found.first, [[-2, -2, -1, 1, 5]])
    np.testing.assert_array_equal(found.values, [[-1, -1, 0, 1, 2]])
    np.testing.assert_array_equal(found.start, [[-1]])
    assert find(twice([0.25]), (0, 0), -2, 4).constant.all()


def test_an_affine_sum_equals_a_function_of_two_operands() -> None:
    values = np.arange(-128, 128)
    expected = np.clip(np.floor(0.7 * values[:, np.newaxis] - 0.31 * values + 4.803), -128, 127)
    a, b, c, shift = search.affine(expected, (0.69, -0.3))
    sums = a * values[:, np.newaxis] + b * values + c
    np.testing.assert_array_equal(np.clip(sums >> shift, -128, 127), expected)
    assert 128 * (abs(a) + abs(b)) + abs(c) < 2**31
    expected[100, 100] += 1
    assert search.affine(expected, (0.7, -0.31)) is None


def test_exact_arithmetic_needs_no_tvm() -> None:
    code = "import sys, pkgutil, importlib, mcuforge.exact as exact\n"
    code += "for module in pkgutil.iter_modules(exact.__path__, 'mcuforge.exact.'):\n"
    code += "    importlib.import_module(module.name)\n"
    code += "assert 'mcuforge.exact.lines' in sys.modules and 'tvm' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@given(st.floats(2.0**-20, 8.0))
def test_softmax_exponentials_are_close_to_the_real_ones(scale: float) -> None:
    table = arithmetic.softmax_exp_table(scale, 1.0)
    exact = np.exp(-np.arange(256) * float(np.float32(scale)))
    np.testing.assert_allclose(table / 2.0**31, exact, atol=1e-6)


@given(st.integers(2**19, 2**31 - 1))
def test_softmax_reciprocal_is_close_to_the_real_one(total: int) -> None:
    reciprocal, bits = arithmetic.softmax_reciprocal(total)
    assert reciprocal * 2.0**-31 * 2.0**-bits == pytest.approx(2.0**19 / total, rel=1e-7)


@pytest.mark.parametrize(
    ("extent", "kernel", "stride", "dilation", "padding"),
    [
        (8, 3, 1, 1, (1, 1)),
        (8, 3, 2, 1, (0, 1)),
        (7, 3, 2, 1, (1, 1)),
        (8, 3, 1, 2, (2, 2)),
        (5, 1, 2, 1, (0, 0)),
        (1, 4, 1, 1, (1, 2)),
    ],
)
def test_same_padding(extent, kernel, stride, dilation, padding) -> None:
    assert arithmetic.same_padding(extent, kernel, stride, dilation) == padding


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ModelError, match="SIGN_BIT"):
        arithmetic.activation_range("SIGN_BIT", 1.0, 0, "int8")
    with pytest.raises(ModelError, match="COS"):
        arithmetic.unary_table("COS", 1.0, 0, 1.0, 0, "int8")
