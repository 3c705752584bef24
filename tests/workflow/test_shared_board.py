"""Boards of a bench, shared by jobs and by runs; stand-ins are flashed through gdb."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from helpers.project import Project
from helpers.stand_in import StandIn

pytestmark = pytest.mark.skipif(
    shutil.which("gdb-multiarch") is None, reason="gdb-multiarch is not installed"
)
CELLS = [f"results/bench/tiny/mps2_an500/gcc/O{level}/performance.json" for level in (1, 3)]
ARGUMENTS = ("--forcerun", "measure", "--", *CELLS)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Callable[..., list[StandIn]]]:
    """Puts stand-ins on the bench of projects."""
    made: list[StandIn] = []

    def attach(count: int, *projects: Project) -> list[StandIn]:
        names = [f"stand-in-{os.getpid()}-{len(made) + i}" for i in range(count)]
        made.extend(StandIn(tmp_path / "stand-ins", name) for name in names)
        for project in projects:
            path = project.path / "config" / "hardware-map.yaml"
            path.write_text(yaml.safe_dump([one.entry for one in made]))
        return made

    yield attach
    for one in made:
        one.machine.close()


def records(project: Project) -> list[dict]:
    return [json.loads((project.path / cell).read_text()) for cell in CELLS]


def test_two_runs_share_one_board(finished: Project, tmp_path: Path, bench) -> None:
    other = finished.copy(tmp_path / "other")
    before = records(finished)
    (board,) = bench(1, finished, other)
    runs = [
        subprocess.Popen(
            project.command(*ARGUMENTS),
            cwd=project.path,
            env=project.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for project in (finished, other)
    ]
    said = [run.communicate(timeout=240)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    assert any(f"waiting for a board: mps2_an500 {board.instance.id} is held by" in s for s in said)
    for project in (finished, other):
        for record, was in zip(records(project), before, strict=True):
            assert record["board_instance"] == board.instance.id
            assert record["exact"] and record["build_id"] == was["build_id"]
            assert record["instructions"] == was["instructions"]


def test_a_pool_works_in_parallel_and_a_dead_board_stops_its_job_only(
    finished: Project, bench
) -> None:
    one, two = bench(2, finished)
    finished.run(*ARGUMENTS)
    assert {r["board_instance"] for r in records(finished)} == {one.instance.id, two.instance.id}

    one.machine.close()
    two.machine.close()
    for cell in CELLS:
        (finished.path / cell).unlink()
    emulated = "results/bench/tiny/mps3_an547/gcc/O1/performance.json"
    done = finished.snakemake("--retries", "0", *ARGUMENTS, emulated)
    assert done.returncode != 0
    assert f"mcuforge: error: mps2_an500 ({one.instance.id}): gdb-multiarch failed" in done.stdout
    assert (finished.path / emulated).is_file()
    assert not [p for p in (finished.path / "results/bench/tiny/mps2_an500").rglob("*.*")]
    bench(1, finished)
    path = finished.path / "config" / "hardware-map.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text())[2:]))
    finished.run("--", *CELLS)
    assert all(r["exact"] for r in records(finished))
