"""A run that is killed leaves nothing running and nothing half-made; the next one completes it."""

import fcntl
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from helpers.project import Project
from mcuforge import jobs


def descendants(run: int) -> dict[int, str]:
    """Processes that the run started, alive, whoever their parent is now: by their environment."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes().split(b"\0")
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if f"{jobs.RUN_PID}={run}".encode() in environment and command:
            found[int(process.name)] = command
    return found


def artifacts(project: Project) -> dict[str, bytes]:
    """What a run makes, less records of when it was made."""
    results = project.path / "results"
    kinds = ("*.csv", "*.svg", "*.tar", "*.elf", "*.tflite")
    return {str(p.relative_to(results)): p.read_bytes() for k in kinds for p in results.rglob(k)}


def files_in_the_making(project: Project) -> list[Path]:
    return [p for p in (project.path / "results").rglob(".*") if p.is_file()]


def wait_until(condition, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


STEPS = {
    "mlf/tiny/cortex-m7-c": "compile_model",
    "firmware/tiny/mps2_an500": "build_firmware",
    "bench/tiny/mps2_an500": "measure",
}
SMALL = ("--config", "models=[tiny]", "boards=[mps2_an500]")


@pytest.mark.parametrize(
    ("step", "number"),
    [
        ("compile_model", signal.SIGKILL),
        ("build_firmware", signal.SIGKILL),
        ("measure", signal.SIGKILL),
        ("measure", signal.SIGINT),
        ("compile_model", signal.SIGTERM),
    ],
)
def test_a_killed_run_is_completed_by_the_next(
    finished: Project, step: str, number: signal.Signals
) -> None:
    finished.run(*SMALL)
    expected = artifacts(finished)
    for directory in list(STEPS)[list(STEPS.values()).index(step) :]:
        shutil.rmtree(finished.path / "results" / directory)
    (finished.path / "results" / "summary.csv").unlink()
    with subprocess.Popen(
        finished.command(*SMALL),
        cwd=finished.path,
        env=finished.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as run:
        wait_until(lambda: any(step in c for c in descendants(run.pid).values()), 120)
        time.sleep(0.7)  # into the work
        os.kill(run.pid, number)
        run.wait(timeout=120)
    wait_until(lambda: not descendants(run.pid), 30)
    finished.run(*SMALL)
    assert artifacts(finished) == expected
    assert finished.plan(*SMALL) == {}
    assert not files_in_the_making(finished)


def test_two_runs_at_once_do_not_forget_each_other(fresh: Project) -> None:
    """The lock of a living run is respected: only those of dead ones are removed."""
    (fresh.path / ".snakemake" / "locks").mkdir(parents=True)
    stale = fresh.path / ".snakemake" / "locks" / "0.output.lock"
    target = "results/models/tiny.vectors.npz"
    stale.write_text(f"{target}\n")
    fresh.run(target)
    stale.parent.mkdir(exist_ok=True)
    stale.write_text("results/models/other.vectors.npz\n")
    with (fresh.path / ".snakemake" / "alive").open("a") as alive:
        fcntl.flock(alive, fcntl.LOCK_SH)
        done = fresh.snakemake("results/models/other.vectors.npz")
    assert done.returncode != 0
    assert "lock" in done.stdout
