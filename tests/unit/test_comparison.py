"""Outputs are compared with the oracle's, each tensor in its own type and units."""

import numpy as np
import pytest

from mcuforge import mlf
from mcuforge.comparison import compare


def port(name: str, dtype: str, elements: int) -> mlf.Port:
    return mlf.Port(name, name, (elements,), dtype, elements * np.dtype(dtype).itemsize)


@pytest.mark.parametrize(
    ("dtype", "got", "want", "error", "wrong"),
    [
        ("int8", [1, -128], [1, -128], 0.0, 0),
        ("int8", [1, -128], [1, 127], 255.0, 1),
        ("uint8", [0], [255], 255.0, 1),
        ("int64", [2**62 + 1], [2**62], 0.0, 1),
        ("bool", [True, False], [True, True], 1.0, 1),
        ("float32", [1.0, 100.0], [1.0005, 100.0], pytest.approx(5e-4, 1e-3), 0),
        ("float32", [1.0, 100.0], [1.0, 100.1], pytest.approx(0.1, 1e-3), 1),
        ("float32", [0.0], [1e-30], pytest.approx(1e-30), 1),
        ("float32", [np.nan, 1.0], [1.0, 1.0], None, 1),
        ("float32", [1.0], [np.inf], None, 1),
        ("float32", [np.inf, np.nan], [np.inf, np.nan], 0.0, 0),
    ],
)
def test_each_type_has_its_own_measure(dtype, got, want, error, wrong) -> None:
    raw = [np.array(values, dtype).tobytes() for values in (got, want)]
    result = compare(raw[:1], raw[1:], [port("y", dtype, len(got))])
    assert (result.max_abs_error, result.wrong, result.total) == (error, wrong, len(got))
    assert bool(result.first) == bool(wrong)


def test_the_first_wrong_element_is_named() -> None:
    ports = [port("a", "int8", 2), port("b", "float32", 1)]
    right = np.int8([1, 2]).tobytes() + np.float32([0.5]).tobytes()
    wrong = np.int8([1, 4]).tobytes() + np.float32([0.5]).tobytes()
    worse = np.int8([1, 2]).tobytes() + np.float32([0.75]).tobytes()
    result = compare([right, wrong, worse], [right] * 3, ports)
    assert (result.max_abs_error, result.wrong, result.total) == (2.0, 2, 9)
    assert result.first == "output 'a' of input 1 has 4 at 1, not 2"
    assert compare([worse], [right], ports).first == "output 'b' of input 0 has 0.75 at 0, not 0.5"
