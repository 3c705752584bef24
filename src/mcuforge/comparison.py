"""How far the outputs of a compiled model are from the oracle's."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mcuforge import mlf

# Of the largest magnitude the oracle answers: operators sum floats in another order.
RELATIVE_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Comparison:
    """The outputs of several inferences beside the oracle's.

    Attributes:
        max_abs_error: the largest difference, in the tensors' own units (steps for integers); None
            where one side is not a number and the other is.
        wrong: elements that are not right: integers that differ, and floats that differ by more
            than `RELATIVE_TOLERANCE` of the largest expected magnitude of their tensor.
        total: elements compared.
        first: the first wrong element, for people; empty if all are right.
    """

    max_abs_error: float | None
    wrong: int
    total: int
    first: str


def compare(
    outputs: Sequence[bytes], expected: Sequence[bytes], ports: Sequence[mlf.Port]
) -> Comparison:
    """Compare outputs with the oracle's.

    Args:
        outputs, expected: for each inference the raw bytes of all outputs in order.
        ports: the outputs.
    """
    worst, wrong, total, first = 0.0, 0, 0, ""
    for row, port, got, want in _tensors(outputs, expected, ports):
        same = (got == want) | ((got != got) & (want != want))
        difference = np.where(same, 0.0, _distance(got, want))
        bad = ~same if got.dtype.kind != "f" else ~(difference <= _tolerance(want))
        worst = max(worst, float(difference.max(initial=0.0)))
        wrong, total = wrong + int(bad.sum()), total + bad.size
        if bad.any() and not first:
            at = int(bad.argmax())
            first = f"output '{port.name}' of input {row} has {got[at]} at {at}, not {want[at]}"
    return Comparison(worst if np.isfinite(worst) else None, wrong, total, first)


def _tensors(
    outputs: Sequence[bytes], expected: Sequence[bytes], ports: Sequence[mlf.Port]
) -> Iterator[tuple[int, mlf.Port, np.ndarray, np.ndarray]]:
    for row, (got, want) in enumerate(zip(outputs, expected, strict=True)):
        offset = 0
        for port in ports:
            part = slice(offset, offset + port.bytes)
            offset += port.bytes
            ours, theirs = (np.frombuffer(raw[part], port.dtype) for raw in (got, want))
            yield row, port, ours, theirs


def _distance(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """Absolute differences, float64; infinite where one side is infinite or no number."""
    with np.errstate(invalid="ignore"):
        distance = np.abs(got.astype(np.float64) - want.astype(np.float64))
    return np.where(np.isnan(distance), np.inf, distance)


def _tolerance(want: np.ndarray) -> float:
    finite = np.abs(want[np.isfinite(want)].astype(np.float64))
    return RELATIVE_TOLERANCE * float(finite.max(initial=0.0))
