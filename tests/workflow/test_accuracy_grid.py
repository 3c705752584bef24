"""Accuracy in the grid: measured where a data set is at hand, and what it does to the summary."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from helpers import tiny
from helpers.project import Project
from mcuforge.formats.tflite import oracle
from mcuforge.models.datasets import DataSet

COUNT, RIGHT = 12, 9
GRID = {"boards": ["mps2_an500"], "opt_levels": [3], "modes": ["performance", "accuracy"]}


def data_set(path: Path) -> list[int]:
    """Write a data set for the tiny model, `RIGHT` labels of which it gets right; its answers."""
    inputs = np.random.default_rng(2).integers(0, 256, (COUNT, 64), dtype=np.uint8)
    answers = oracle.evaluate(tiny.model(), inputs).view(np.int8).argmax(axis=1).tolist()
    path.mkdir(parents=True)
    lines = []
    for index, (row, answer) in enumerate(zip(inputs, answers, strict=True)):
        (path / f"{index}.bin").write_bytes(row.tobytes())
        lines.append(f"{index}.bin,3,{answer if index < RIGHT else (answer + 1) % 3}\n")
    (path / "y_labels.csv").write_text("".join(lines))
    return answers


def register(project: Project, **entry) -> None:
    """Give the tiny model a data set called `mine`, and the target of nine tenths."""
    path = project.path / "config" / "models.yaml"
    document = yaml.safe_load(path.read_text())
    document["datasets"]["mine"] = {"title": "Mine", **entry}
    document["models"]["tiny"] |= {"dataset": "mine", "quality_target": 0.9}
    path.write_text(yaml.safe_dump(document, sort_keys=False))


def rows(project: Project) -> dict[str, dict[str, str]]:
    with (project.path / "results" / "summary.csv").open() as file:
        return {row["model"]: row for row in csv.DictReader(file)}


@pytest.fixture
def project(finished: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """With everything compiled and built, and nothing measured."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MCUFORGE_DATASETS", raising=False)
    finished.configure(**GRID)
    shutil.rmtree(finished.path / "results" / "bench")
    return finished


def test_a_result_below_the_target_is_not_valid(project: Project) -> None:
    answers = data_set(project.path / "sets" / "mine")
    sha256 = DataSet(project.path / "sets" / "mine").sha256()
    register(project, sha256=sha256, sources=[{"path": "sets/mine"}])
    said = project.run()
    assert "other has no data set: its accuracy is not measured" in said
    tiny_row, other_row = rows(project)["tiny"], rows(project)["other"]
    assert (tiny_row["accuracy"], tiny_row["quality_target"]) == ("0.75", "0.9")
    assert (tiny_row["valid"], tiny_row["status"], tiny_row["exact"]) == ("false", "ok", "true")
    assert (other_row["accuracy"], other_row["valid"], other_row["exact"]) == ("", "", "true")
    cell = project.path / "results" / "bench" / "tiny" / "mps2_an500" / "gcc" / "O3"
    record = json.loads((cell / "accuracy.json").read_text())
    assert record["predictions"] == answers
    assert record["dataset_sha256"] == sha256
    assert json.loads((cell / "performance.json").read_text())["accuracy"] is None
    assert project.plan() == {}


def test_a_grid_without_its_data_set_runs_and_takes_it_up_when_it_comes(project: Project) -> None:
    register(project)
    project.configure(models=["tiny"])
    said = project.run()
    assert "no data set mine here: the accuracy of tiny is not measured" in said
    assert rows(project)["tiny"]["accuracy"] == ""
    data_set(project.path / "sets" / "mine")
    said = project.run(MCUFORGE_DATASETS="sets")
    assert "is not measured" not in said
    assert rows(project)["tiny"]["accuracy"] == "0.75"


def test_a_data_set_with_other_content_stops_its_cells_only(project: Project) -> None:
    data_set(project.path / "sets" / "mine")
    register(project, sha256="0" * 64, sources=[{"path": "sets/mine"}])
    done = project.snakemake()
    assert done.returncode != 0
    assert f"path: sets/mine: wrong sha256, expected {'0' * 64}, found" in done.stdout
    bench = project.path / "results" / "bench"
    assert (bench / "tiny/mps2_an500/gcc/O3/performance.json").is_file()
    assert (bench / "other/mps2_an500/gcc/O3/performance.json").is_file()
    assert not (bench / "tiny/mps2_an500/gcc/O3/accuracy.json").exists()
    assert not list((project.path / "results").rglob("*.zip"))


def test_a_cell_without_a_data_set_cannot_be_asked_for(project: Project) -> None:
    done = project.snakemake("-n", "results/bench/other/mps2_an500/gcc/O3/accuracy.json")
    assert done.returncode != 0
    assert "other has no data set, its accuracy cannot be measured" in done.stdout
