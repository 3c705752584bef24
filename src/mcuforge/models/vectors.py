"""Seeded stimuli and the oracle's answers to them, ``{model}.vectors.npz``."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from mcuforge import files, formats
from mcuforge.formats.description import Description, Tensor

COUNT = 5  # as many as MLPerf Tiny's performance mode takes
_SEED = 20250101


def write(description: Description, model: Path, output: Path) -> None:
    """Write the vectors of a model, reproducibly.

    Arrays, all uint8: ``inputs`` [5, input_bytes] random, ``outputs`` [5, output_bytes] what
    the oracle answers; ``corner_inputs`` and ``corner_outputs`` [5, ...] the same for
    `corner_inputs`.
    """
    inputs, corners = random_inputs(description, COUNT), corner_inputs(description)
    outputs = formats.of(model).answers(model, np.concatenate([inputs, corners]))
    with files.atomic(output) as temporary, temporary.open("wb") as out:
        np.savez(
            out,
            inputs=inputs,
            outputs=outputs[: len(inputs)],
            corner_inputs=corners,
            corner_outputs=outputs[len(inputs) :],
        )


def random_inputs(description: Description, count: int, seed: int = _SEED) -> np.ndarray:
    """uint8 [count, input_bytes]: integers over their whole range, floats over the range the
    model quantizes (or -1 to 1). The same for the same model and seed."""
    random = np.random.default_rng([seed, int(description.sha256[:8], 16)])
    return np.stack([_row(description, lambda t: _random(t, random)) for _ in range(count)])


def corner_inputs(description: Description) -> np.ndarray:
    """uint8 [5, input_bytes]: what makes sums largest, and what isolates one element.

    All elements lowest; all highest; all zero (their zero point); lowest and highest in turn; all
    zero but one in the middle, which is highest.
    """

    def turns(tensor: Tensor) -> np.ndarray:
        return np.resize(np.array(_limits(tensor), tensor.dtype), tensor.shape)

    def zero(tensor: Tensor) -> np.ndarray:
        return np.full(tensor.shape, tensor.zero_point or 0, tensor.dtype)

    def single(tensor: Tensor) -> np.ndarray:
        values = zero(tensor)
        values.flat[values.size // 2] = _limits(tensor)[1]
        return values

    corners = (
        lambda t: np.full(t.shape, _limits(t)[0], t.dtype),
        lambda t: np.full(t.shape, _limits(t)[1], t.dtype),
        zero,
        turns,
        single,
    )
    return np.stack([_row(description, corner) for corner in corners])


def _row(description: Description, values: Callable[[Tensor], np.ndarray]) -> np.ndarray:
    return np.concatenate([values(t).reshape(-1).view(np.uint8) for t in description.inputs])


def _limits(tensor: Tensor) -> tuple[float, float]:
    if tensor.dtype == "bool":
        return 0, 1
    if np.issubdtype(tensor.dtype, np.floating):
        return tensor.range or (-1.0, 1.0)
    if tensor.dtype in ("int32", "int64"):  # indices and counts, rarely data
        return 0, 127
    limits = np.iinfo(tensor.dtype)
    return limits.min, limits.max


def _random(tensor: Tensor, random: np.random.Generator) -> np.ndarray:
    low, high = _limits(tensor)
    if np.issubdtype(tensor.dtype, np.floating):
        return random.uniform(low, high, tensor.shape).astype(tensor.dtype)
    drawn = random.integers(int(low), int(high), tensor.shape, dtype=np.int64, endpoint=True)
    return drawn.astype(tensor.dtype)
