"""The arithmetic kernels are compiled with, against its definition and against LiteRT."""

import math
from fractions import Fraction

import numpy as np
import pytest
import reference
import strategies
from hypothesis import given, settings
from hypothesis import strategies as st
from tflite_graphs import answer

from mcuforge.errors import ModelError
from mcuforge.exact import arithmetic

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


@st.composite
def requantizations(draw):
    """Rounding as convolutions do or as FULLY_CONNECTED does, for a few channels."""
    factors = np.array(draw(st.lists(scales, min_size=1, max_size=4)))
    if draw(st.booleans()):
        pairs = np.array([arithmetic.quantize_multiplier(real) for real in factors])

        def rounded(accumulators: np.ndarray) -> np.ndarray:
            return arithmetic.multiply_by_quantized_multiplier(
                accumulators, pairs[:, :1], pairs[:, 1:]
            )
    else:

        def rounded(accumulators: np.ndarray) -> np.ndarray:
            return arithmetic.fully_connected_round(accumulators, factors[:, np.newaxis])

    low = draw(st.integers(-255, 255))
    return factors, rounded, low, draw(st.integers(low, min(low + 255, 255)))


@settings(deadline=None)
@given(requantizations(), st.sampled_from([1000, 2**16, 2**22]), st.integers(0, 2**32 - 1))
def test_one_multiply_add_equals_every_requantization(requantization, bound, seed) -> None:
    factors, rounded, low, high = requantization
    lines = arithmetic.linear_requantization(rounded, factors, low, high, bound)
    random = np.random.default_rng(seed)
    near = np.arange(low - 2, high + 3) / factors[:, np.newaxis]
    near = np.concatenate([near - 0.5 / factors[:, np.newaxis], near], axis=1)
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
    expected = np.clip(rounded(accumulators), low, high)
    for line, row, want in zip(lines, accumulators, expected, strict=True):
        product = row * line.multiplier + line.addend + np.where(row < 0, line.negative, 0)
        np.testing.assert_array_equal(np.clip(product >> line.shift, low, high), want)
        assert line.negative == lines[0].negative


def test_a_requantization_that_is_no_line_is_refused() -> None:
    with pytest.raises(ModelError, match="no integer requantization is exact"):
        arithmetic.linear_requantization(lambda acc: np.floor(acc**3 / 50), [1.0], -100, 100, 1000)


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
