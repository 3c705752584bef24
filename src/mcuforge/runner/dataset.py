"""Data sets in MLPerf Tiny's format: a `y_labels.csv` beside the files it names.

Each line of `y_labels.csv` is `file,classes,label[,bytes_to_send,stride]`. What the files hold
depends on the benchmark: kws01 the model's int8 input, ic01 and vww01 uint8 pixels, ad01 float32
features that are scored window by window.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mcuforge.errors import ConfigError

LABELS = "y_labels.csv"
# Data sets of uint8 pixels; models with an int8 input take a pixel minus 128.
_IMAGES = ("ic01", "vww01")
_ANOMALY = "ad01"
_MAX_FILE = 64 << 20


@dataclass(frozen=True)
class Item:
    """One labelled file: the inputs made from it, each the raw bytes of the model's input."""

    file: str
    label: int
    inputs: tuple[bytes, ...]


@dataclass(frozen=True)
class DataSet:
    """A data set for one model.

    Args:
        directory: holds `y_labels.csv`.
        benchmark: MLPerf Tiny's name of the model, which says what the files hold.
        tensor: the model's input as the compiler describes it (dtype, bytes, scale, zero_point).
    """

    directory: Path
    benchmark: str
    tensor: dict[str, Any]

    @property
    def anomaly(self) -> bool:
        """Whether items are scored by how badly the model reconstructs them."""
        return self.benchmark == _ANOMALY

    def __len__(self) -> int:
        return len(self._rows())

    def __iter__(self) -> Iterator[Item]:
        for row in self._rows():
            path = self.directory / row["file"]
            if path.parent.resolve() != self.directory.resolve():
                raise ConfigError(
                    f"{self.directory / LABELS} names a file elsewhere: {row['file']}"
                )
            try:
                if path.stat().st_size > _MAX_FILE:
                    raise ConfigError(f"{path} is too large for an input")
                content = path.read_bytes()
            except OSError as error:
                raise ConfigError(f"cannot read {path}: {error.strerror}") from error
            yield Item(row["file"], int(row["label"]), tuple(self._inputs(row, content, path)))

    def _rows(self) -> list[dict[str, str]]:
        path = self.directory / LABELS
        names = ["file", "classes", "label", "bytes_to_send", "stride"]
        try:
            with path.open(newline="") as stream:
                rows = [row for row in csv.DictReader(stream, fieldnames=names) if row["file"]]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise ConfigError(f"cannot read {path}: {error}") from error
        for number, row in enumerate(rows, 1):
            if not (row["label"] or "").strip().isdigit():
                raise ConfigError(f"{path}, line {number}: the third column is no class number")
        if not rows:
            raise ConfigError(f"{path} lists no files")
        return rows

    def _inputs(self, row: dict[str, str], content: bytes, path: Path) -> Iterator[bytes]:
        if self.anomaly:
            yield from self._windows(row, content, path)
            return
        if len(content) != self.tensor["bytes"]:
            raise ConfigError(
                f"{path} has {len(content)} bytes, the model's input {self.tensor['bytes']}",
                "is it the data set of this model?",
            )
        if self.benchmark in _IMAGES and self.tensor["dtype"] == "int8":
            content = (np.frombuffer(content, np.uint8) ^ 0x80).tobytes()
        yield content

    def _windows(self, row: dict[str, str], content: bytes, path: Path) -> Iterator[bytes]:
        elements = self.tensor["bytes"] // np.dtype(self.tensor["dtype"]).itemsize
        size = int(row.get("bytes_to_send") or 4 * elements)
        stride = int(row.get("stride") or size)
        if size != 4 * elements or stride < 4 or len(content) < size:
            raise ConfigError(
                f"{path}: windows of {size} bytes every {stride} do not go with its {len(content)} "
                f"bytes and a model with {elements} inputs"
            )
        for start in range(0, len(content) - size + 1, stride):
            features = np.frombuffer(content[start : start + size], "<f4")
            yield quantize(features, self.tensor)


def quantize(features: np.ndarray, tensor: dict[str, Any]) -> bytes:
    """float32 features as the bytes of an input tensor, rounded half away from zero (as TFLM)."""
    if tensor["dtype"] == "float32":
        return features.astype("<f4").tobytes()
    scaled = features / np.float32(tensor["scale"])
    rounded = np.trunc(scaled + np.copysign(np.float32(0.5), scaled)) + tensor["zero_point"]
    limits = np.iinfo(tensor["dtype"])
    return np.clip(rounded, limits.min, limits.max).astype(tensor["dtype"]).tobytes()


def dequantize(raw: bytes, tensor: dict[str, Any]) -> np.ndarray:
    """The real values (float32) behind the bytes of a tensor."""
    values = np.frombuffer(raw, tensor["dtype"])
    if tensor["dtype"] == "float32":
        return values
    return (values.astype(np.float32) - tensor["zero_point"]) * np.float32(tensor["scale"])


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
