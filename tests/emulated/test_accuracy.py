"""Accuracy on the board is LiteRT's on the same files, prediction by prediction."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from mcuforge import boards, mlf
from mcuforge.compiler import compile_model
from mcuforge.firmware.builder import build
from mcuforge.firmware.project import Order, Purpose
from mcuforge.formats.tflite import oracle
from mcuforge.formats.tflite.describe import describe
from mcuforge.models import vectors
from mcuforge.models.datasets import DataSet
from mcuforge.runner import session
from mcuforge.runner.dataset import anomaly_score, dequantize, items
from mcuforge.runner.session import Firmware, Plan
from mcuforge.target import Target

DATA = Path(__file__).parents[3] / "shared" / "data"
pytestmark = [
    pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data"),
    pytest.mark.skipif(
        shutil.which("qemu-system-arm") is None or shutil.which("arm-none-eabi-gcc") is None,
        reason="no QEMU or no compiler",
    ),
]
INVENTORY = boards.load(Path(__file__).parents[2] / "config" / "boards.yaml")
BOARD = INVENTORY.board("mps2_an500")
# The model, its benchmark, and how many files are enough for a test.
CLASSIFIERS = [("kws_ref_model", "kws01", 100), ("pretrainedResnet_quant", "ic01", 20)]


def measure(model: str, benchmark: str, data: Path, directory: Path, **options):
    """A measurement in accuracy mode, and what the compiler says of the model."""
    tflite = DATA / "models" / f"{model}.tflite"
    archive, elf, size = (directory / name for name in ("m.tar", "firmware.elf", "size.json"))
    compile_model(tflite, benchmark, Target.parse(BOARD.target("gcc")), 3, archive)
    build(Order(archive, BOARD, "gcc", Purpose(benchmark=benchmark)), elf, size)
    vectors.write(describe(tflite.read_bytes(), benchmark), tflite, directory / "vectors.npz")
    info = mlf.read(archive).info
    record = session.measure(
        Firmware(elf, size, info, directory / "vectors.npz"),
        Plan("accuracy", data_set=data, **options),
        INVENTORY,
    )
    return record, info


def litert(model: str, inputs: list[bytes]) -> np.ndarray:
    rows = np.stack([np.frombuffer(raw, np.uint8) for raw in inputs])
    return oracle.evaluate((DATA / "models" / f"{model}.tflite").read_bytes(), rows)


def subset(name: str, count: int, directory: Path) -> Path:
    """The first files of a data set."""
    lines = (DATA / "datasets" / name / "y_labels.csv").read_text().splitlines()[:count]
    directory.mkdir()
    for line in lines:
        file = line.split(",")[0]
        shutil.copyfile(DATA / "datasets" / name / file, directory / file)
    (directory / "y_labels.csv").write_text("\n".join(lines))
    return directory


@pytest.mark.parametrize(("model", "benchmark", "count"), CLASSIFIERS)
def test_predictions_are_those_of_litert(
    model: str, benchmark: str, count: int, tmp_path: Path
) -> None:
    data = subset(benchmark, count, tmp_path / "data")
    record, info = measure(model, benchmark, data, tmp_path, quality_target=0.85)
    expected = list(items(DataSet(data), benchmark, info.inputs[0]))
    answers = litert(model, [item.inputs[0] for item in expected]).view(np.int8)
    assert record.predictions == answers.argmax(axis=1).tolist()
    right = sum(p == i.label for p, i in zip(record.predictions, expected, strict=True))
    assert record.accuracy == right / count > 0.8
    assert record.valid is (record.accuracy >= 0.85)
    assert record.dataset_sha256 == DataSet(data).sha256()
    assert len(record.inputs_sha256) == count
    record.to_json()


@pytest.mark.parametrize("model", ["ad01_int8", "ad01_fp32"])
def test_the_area_under_the_curve_is_that_of_litert(model: str, tmp_path: Path) -> None:
    """Synthetic spectrograms, longer than the model's input: scored by sliding windows."""
    random = np.random.default_rng(3)
    data = tmp_path / "data"
    data.mkdir()
    files, lines = [], []
    for index in range(8):
        label = index % 2
        # louder where it is anomalous, with an overlap of both kinds
        features = random.normal(-20, 4 + 2 * label + index / 3, 640 + 128 * index).astype("<f4")
        (data / f"{index}.bin").write_bytes(features.tobytes())
        lines.append(f"{index}.bin,2,{label},2560,512")
        files.append((label, features))
    (data / "y_labels.csv").write_text("\n".join(lines))
    record, info = measure(model, "ad01", data, tmp_path, quality_target=0.85)

    scores = []
    for _, features in files:
        windows = [features[i : i + 640] for i in range(0, len(features) - 639, 128)]
        rows, tensor = np.stack(windows), info.inputs[0]
        if tensor.dtype == "int8":
            scaled = np.round(rows / np.float32(tensor.scale)) + tensor.zero_point
            rows = np.clip(scaled, -128, 127).astype(np.int8)
        raw = litert(model, [row.tobytes() for row in rows])
        answers = [dequantize(row.tobytes(), info.outputs[0]) for row in raw]
        scores.append(anomaly_score(windows, answers))
    assert record.scores == pytest.approx(scores, rel=1e-5)
    pairs = [
        (scores[a] > scores[n]) + 0.5 * (scores[a] == scores[n])
        for a, (anomalous, _) in enumerate(files)
        for n, (normal, _) in enumerate(files)
        if anomalous and not normal
    ]
    assert record.accuracy == np.mean(pairs)
    assert 0.5 < record.accuracy < 1 and record.valid is (record.accuracy >= 0.85)
    assert len(record.inputs_sha256) == sum(1 + index for index in range(8))
    assert record.predictions == []
