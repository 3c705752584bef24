"""Runs of the workflow and their steps: locks, logs, reports of failures, and a common end."""

import contextlib
import fcntl
import io
import os
import select
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from mcuforge.errors import McuforgeError, one_line

RUN_PID = "MCUFORGE_RUN_PID"  # environment variable with the process id of the workflow
_TAIL = 12  # lines
_TAIL_BYTES = 4096
_GRACE_S = 5


def announce() -> None:
    """Tell the steps this process is going to start what they need to know of it.

    That is where the library is (steps may run in another Python environment, or on another
    machine), and which process they must not outlive.
    """
    source = str(Path(__file__).parents[1])
    inherited = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = f"{source}{os.pathsep}{inherited}" if inherited else source
    os.environ[RUN_PID] = str(os.getpid())


def forget_dead_runs(directory: Path) -> TextIO:
    """Remove the locks of a Snakemake that was killed, unless another one is alive here.

    Every living run holds a shared lock of the operating system on the file ``alive``. That lock
    goes with the process, which Snakemake's own, files in ``locks``, do not.

    Args:
        directory: Snakemake's, usually ``.snakemake``; made if need be.

    Returns:
        the file that holds the lock; the run counts as alive until it is closed.
    """
    directory.mkdir(exist_ok=True)
    alive = (directory / "alive").open("a")
    try:
        fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(directory / "locks", ignore_errors=True)
    except BlockingIOError:
        pass  # another run is alive, and the locks may be its own
    fcntl.flock(alive, fcntl.LOCK_SH)
    return alive


@contextlib.contextmanager
def job(log: str) -> Iterator[TextIO]:
    """Run a workflow step: all it prints goes to `log`.

    Yields the terminal, for progress. If the step fails, the terminal gets the reason on one
    line, the last lines of the log and its path, and the process exits with status 1.
    If the workflow dies, even by SIGKILL, the step does too.
    """
    _die_with_workflow()
    terminal = os.fdopen(os.dup(2), "w", buffering=1)
    path = Path(log)
    reason = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        with path.open("a", buffering=1) as file:  # tools append to it as well
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            if isinstance(sys.stdout, io.TextIOWrapper):
                sys.stdout.reconfigure(line_buffering=True)  # in order with what tools print
            try:
                yield terminal
            except Exception as error:
                reason = one_line(error)
                if not isinstance(error, McuforgeError):
                    traceback.print_exc(file=file)
                raise
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
    except Exception as error:
        print(f"mcuforge: error: {reason or one_line(error)}", file=terminal)
        with contextlib.suppress(OSError):
            for line in _last_lines(path):
                print(f"    {line}", file=terminal)
        print(f"    (log: {path})", file=terminal, flush=True)
        os._exit(1)  # not sys.exit: at exit Python flushes streams, which a full disk refuses


def _last_lines(path: Path) -> list[str]:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        return file.read(_TAIL_BYTES).decode(errors="replace").splitlines()[-_TAIL:]


def _die_with_workflow() -> None:
    """End this process when the process the workflow named in the environment ends."""
    try:
        workflow = os.pidfd_open(int(os.environ[RUN_PID]))
    except (KeyError, ValueError):
        return  # not started by a workflow
    except ProcessLookupError:
        os._exit(1)
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_watch, args=(workflow,), daemon=True).start()


def _stop(*_: object) -> None:
    raise SystemExit(1)


def _watch(workflow: int) -> None:
    select.select([workflow], [], [])
    os.kill(os.getpid(), signal.SIGTERM)  # lets the work clean up after itself
    time.sleep(_GRACE_S)
    os._exit(1)
