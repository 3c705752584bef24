"""The files of a data set become inputs, a model's answers become predictions and scores."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mcuforge import mlf
from mcuforge.errors import ConfigError
from mcuforge.models.datasets import DataSet
from mcuforge.runner.dataset import (
    anomaly_score,
    area_under_curve,
    dequantize,
    items,
    quantize,
)

INT8 = mlf.Port("x", "x", (1, 4), "int8", 4, scale=0.5, zero_point=-3)
FLOAT = mlf.Port("x", "x", (1, 4), "float32", 16)


def write(directory: Path, labels: str, **files: bytes) -> DataSet:
    (directory / "y_labels.csv").write_text(labels)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return DataSet(directory)


def test_kws_inputs_are_taken_as_they_are(tmp_path):
    data = write(tmp_path, "a,12,7\nb,12,0\n", a=b"abcd", b=b"efgh")
    assert [(i.file, i.label, i.inputs) for i in items(data, "kws01", INT8)] == [
        ("a", 7, (b"abcd",)),
        ("b", 0, (b"efgh",)),
    ]


def test_pixels_become_int8_by_subtracting_128(tmp_path):
    data = write(tmp_path, "a,2,1\n", a=bytes([0, 1, 128, 255]))
    (item,) = items(data, "ic01", INT8)
    assert np.frombuffer(item.inputs[0], np.int8).tolist() == [-128, -127, 0, 127]
    (item,) = items(data, "ic01", dataclasses.replace(INT8, dtype="uint8"))
    assert item.inputs == (bytes([0, 1, 128, 255]),)


@pytest.mark.parametrize("tensor", [INT8, FLOAT])
def test_anomaly_features_are_cut_into_sliding_windows(tmp_path, tensor):
    features = np.arange(8, dtype="<f4") + 0.2
    (item,) = items(write(tmp_path, "a,2,1,16,8\n", a=features.tobytes()), "ad01", tensor)
    assert [w.tolist() for w in item.features] == [features[i : i + 4].tolist() for i in (0, 2, 4)]
    windows = [dequantize(raw, tensor) for raw in item.inputs]
    assert np.allclose(windows, item.features, atol=0.25 if tensor is INT8 else 0)


def test_the_score_compares_with_the_features_not_with_the_quantized_input():
    """As the reference does: mean over windows of the mean squared error."""
    windows = [np.float32([1.2, 0]), np.float32([0, 0])]
    answers = [np.float32([1.0, 0]), np.float32([2, 0])]
    assert anomaly_score(windows, answers) == pytest.approx((0.02 + 2) / 2)


def test_quantizing_rounds_half_away_from_zero_and_saturates():
    tensor = mlf.Port("x", "x", (1, 6), "int8", 6, scale=0.5, zero_point=1)
    features = np.array([0.25, -0.25, 0.2, 100, -100, 0], np.float32)
    assert np.frombuffer(quantize(features, tensor), np.int8).tolist() == [2, 0, 1, 127, -128, 1]


def test_a_data_set_of_another_model_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="a has 3 bytes, the model's input 4"):
        list(items(write(tmp_path, "a,12,7\n", a=b"abc"), "kws01", INT8))


def test_windows_that_do_not_fit_the_model_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="do not go with"):
        list(items(write(tmp_path, "a,2,1,64,4\n", a=bytes(64)), "ad01", INT8))


def test_features_that_are_no_numbers_are_refused(tmp_path):
    data = write(tmp_path, "a,2,1,16,4\n", a=np.float32([1, 2, 3, 4, np.nan]).tobytes())
    with pytest.raises(ConfigError, match="a feature is no number"):
        list(items(data, "ad01", INT8))


def test_area_under_curve():
    labels, scores = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])
    assert area_under_curve(labels, scores) == 0.75
    assert area_under_curve(labels, np.ones(4)) == 0.5
    with pytest.raises(ConfigError, match="no AUC"):
        area_under_curve(np.ones(3), np.ones(3))
