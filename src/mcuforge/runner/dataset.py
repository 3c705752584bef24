"""What the files of a data set mean to a model, and how its answers are scored.

kws01 has the model's int8 input, ic01 and vww01 uint8 pixels, ad01 float32 features that are scored
window by window.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mcuforge import mlf
from mcuforge.errors import ConfigError
from mcuforge.models.datasets import DataSet, Row

# Data sets of uint8 pixels; models with an int8 input take a pixel minus 128.
_IMAGES = ("ic01", "vww01")
ANOMALY = "ad01"


@dataclass(frozen=True)
class Item:
    """One labelled file: the inputs made from it.

    Attributes:
        inputs: each the raw bytes of the model's input.
        features: for ad01, what each input stands for: float32, before it was quantized.
    """

    file: str
    label: int
    inputs: tuple[bytes, ...]
    features: tuple[np.ndarray, ...] = ()


def items(data: DataSet, benchmark: str, tensor: mlf.Port) -> Iterator[Item]:
    """The files of a data set, one after another, as inputs of a model.

    Args:
        benchmark: MLPerf Tiny's name of the model, which says what the files hold.
        tensor: the model's input as the compiler describes it (dtype, bytes, scale, zero_point).

    Raises ConfigError if they do not go together, ModelError for a damaged data set.
    """
    for row in data.rows:
        content = data.read(row.file)
        if benchmark == ANOMALY:
            features = tuple(_windows(row, content, tensor))
            inputs = tuple(quantize(window, tensor) for window in features)
            yield Item(row.file, row.label, inputs, features)
        else:
            yield Item(row.file, row.label, (_input(row, content, benchmark, tensor),))


def _input(row: Row, content: bytes, benchmark: str, tensor: mlf.Port) -> bytes:
    if len(content) != tensor.bytes:
        raise ConfigError(
            f"{row.file} has {len(content)} bytes, the model's input {tensor.bytes}",
            "is it the data set of this model?",
        )
    if benchmark in _IMAGES and tensor.dtype == "int8":
        return (np.frombuffer(content, np.uint8) ^ 0x80).tobytes()
    return content


def _windows(row: Row, content: bytes, tensor: mlf.Port) -> Iterator[np.ndarray]:
    wanted = 4 * tensor.bytes // np.dtype(tensor.dtype).itemsize
    size = row.window or wanted
    stride = row.stride or size
    if size != wanted or stride < 4 or len(content) < size:
        raise ConfigError(
            f"{row.file}: windows of {size} bytes every {stride} do not go with its {len(content)} "
            f"bytes and a model with {wanted // 4} inputs"
        )
    for start in range(0, len(content) - size + 1, stride):
        window = np.frombuffer(content[start : start + size], "<f4")
        if not np.isfinite(window).all():
            raise ConfigError(f"{row.file}: a feature is no number", "it must hold float32")
        yield window


def quantize(features: np.ndarray, tensor: mlf.Port) -> bytes:
    """float32 features as the bytes of an input tensor, rounded half away from zero (as TFLM)."""
    if tensor.dtype == "float32":
        return features.astype("<f4").tobytes()
    scaled = features / np.float32(tensor.scale)
    rounded = np.trunc(scaled + np.copysign(np.float32(0.5), scaled)) + tensor.zero_point
    limits = np.iinfo(tensor.dtype)
    return np.clip(rounded, limits.min, limits.max).astype(tensor.dtype).tobytes()


def dequantize(raw: bytes, tensor: mlf.Port) -> np.ndarray:
    """The real values (float32) behind the bytes of a tensor."""
    values = np.frombuffer(raw, tensor.dtype)
    if tensor.scale is None or tensor.zero_point is None:
        return values
    return (values.astype(np.float32) - tensor.zero_point) * np.float32(tensor.scale)


def anomaly_score(windows: Sequence[np.ndarray], answers: Sequence[np.ndarray]) -> float:
    """How badly a model reconstructs a file: the mean of its windows' mean squared errors.

    Args:
        windows: what went in, float32, before it was quantized.
        answers: what came out, as real numbers.
    """
    errors = [
        np.mean((answer - window) ** 2) for window, answer in zip(windows, answers, strict=True)
    ]
    return float(np.mean(errors))


def area_under_curve(labels: np.ndarray, scores: np.ndarray) -> float:
    """ROC AUC: the probability that a positive (label > 0) scores higher than a negative.

    The Mann-Whitney statistic; ties count one half. Raises ConfigError if one class is missing.
    """
    positive, negative = scores[labels > 0], scores[labels == 0]
    if not len(positive) or not len(negative):
        raise ConfigError("the data set has only normal, or only anomalous, files: no AUC")
    above = (positive[:, None] > negative[None, :]).sum()
    ties = (positive[:, None] == negative[None, :]).sum()
    return float((above + 0.5 * ties) / (len(positive) * len(negative)))
