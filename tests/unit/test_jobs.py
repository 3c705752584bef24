"""Workflow steps: their log, how failures are told, and that they do not outlive the workflow."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from mcuforge import jobs

STEP = """
import os, sys, time
from mcuforge.errors import ModelError
from mcuforge.jobs import job
with job("step.log") as terminal:
    print("from python")
    os.system("echo from a tool")
    {body}
"""


def run(body: str, tmp_path: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", STEP.format(body=body)]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)


def test_all_output_goes_to_the_log_but_what_is_for_the_terminal(tmp_path: Path) -> None:
    done = run("print('progress', file=terminal)", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "progress\n")
    assert (tmp_path / "step.log").read_text() == "from python\nfrom a tool\n"


def test_a_failure_is_one_line_the_end_of_the_log_and_its_path(tmp_path: Path) -> None:
    done = run(r"print('last words'); raise ModelError('it is\nbroken', 'mend it')", tmp_path)
    assert done.returncode == 1
    first, *rest = done.stderr.splitlines()
    assert first == r"mcuforge: error: it is\nbroken (mend it)"
    assert "    last words" in rest
    assert rest[-1] == "    (log: step.log)"


def test_an_unexpected_failure_leaves_a_traceback_in_the_log(tmp_path: Path) -> None:
    done = run("{}['key']", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("mcuforge: error: KeyError: 'key'\n")
    assert "Traceback" in (tmp_path / "step.log").read_text()


def test_a_full_disk_is_said_on_one_line(tmp_path: Path) -> None:
    done = run("open('/dev/full', 'wb', buffering=0).write(b'x')", tmp_path)
    assert done.returncode == 1
    assert "error: the disk is full" in done.stderr.splitlines()[0]


def test_a_log_on_a_full_disk_does_not_hide_the_reason(tmp_path: Path) -> None:
    (tmp_path / "step.log").symlink_to("/dev/full")
    done = run("raise ModelError('the model is broken')", tmp_path)
    assert done.returncode == 1
    assert "the disk is full" in done.stderr.splitlines()[0]


def test_locks_of_a_killed_run_go_and_those_of_a_living_one_stay(tmp_path: Path) -> None:
    run = "from mcuforge import jobs; from pathlib import Path; jobs.forget_dead_runs(Path('s'))"
    snakemakes = tmp_path / "s" / "locks" / "0.output.lock"
    with jobs.forget_dead_runs(tmp_path / "s"):
        snakemakes.parent.mkdir()
        snakemakes.touch()
        subprocess.run([sys.executable, "-c", run], cwd=tmp_path, check=True, timeout=60)
        assert snakemakes.exists()
    subprocess.run([sys.executable, "-c", run], cwd=tmp_path, check=True, timeout=60)
    assert not snakemakes.exists()


def test_a_step_dies_with_the_workflow_and_cleans_up(tmp_path: Path) -> None:
    body = "\n    try: print('up', file=terminal); time.sleep(60)\n    finally: open('gone', 'w')"
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as workflow:
        environment = os.environ | {jobs.RUN_PID: str(workflow.pid)}
        step = subprocess.Popen(
            [sys.executable, "-c", STEP.format(body=body)],
            cwd=tmp_path,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        with step:
            assert step.stderr.readline() == "up\n"
            workflow.send_signal(signal.SIGKILL)
            begin = time.monotonic()
            assert step.wait(timeout=30) == 1
            assert time.monotonic() - begin < 5
    assert (tmp_path / "gone").exists()
