"""Runs the programs that build firmware."""

import itertools
import subprocess
from pathlib import Path

from mcuforge.errors import ToolError

_TIMEOUT_S = 1800
_LAST_LINES = 12
# Errors that follow once a memory is too small.
_CONSEQUENCES = ("command failed with exit code", "ld returned", "overflowed")
# West ends with these lines, whatever the build said before.
_REPEATED = "FATAL ERROR: command exited"


class TooLargeError(ToolError):
    """The linker ran out of a memory; all else went well."""


def run(
    command: list[str],
    log: Path | None = None,
    *,
    environment: dict[str, str] | None = None,
    directory: Path | None = None,
    task: str = "firmware build",
) -> None:
    """Run one program to its end.

    Args:
        log: what it prints is appended to it.
        environment: its whole environment; by default this process's.
        directory: where it runs; by default here.
        task: what an error says has failed.

    Raises TooLargeError if a linker says that a memory is too small, ToolError for anything else.
    """
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
            env=environment,
            cwd=directory,
        )
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{command[0]} took longer than {_TIMEOUT_S} s") from error
    if log:
        with log.open("a") as stream:
            stream.write(done.stdout)
    if done.returncode == 0:
        return
    lines = done.stdout.strip().splitlines() or ["it printed nothing"]
    errors = [line for line in lines if "error: " in line.lower() and _REPEATED not in line]
    # GNU ld: "region `X' overflowed by N bytes"; lld: "will not fit in region 'X': overflowed ..."
    if any("overflowed by" in line for line in lines) and not any(
        ": error: " in line for line in errors if not any(c in line for c in _CONSEQUENCES)
    ):
        raise TooLargeError("firmware does not fit")
    raise ToolError(
        f"{task} failed: {(errors or _cmake_error(lines) or lines[-1:])[0].strip()}",
        f"see {log}" if log else " | ".join(lines[-_LAST_LINES:]),
    )


def _cmake_error(lines: list[str]) -> list[str]:
    """The first paragraph of the first error CMake reports, as one line, if there is one."""
    rest = itertools.dropwhile(lambda line: not line.startswith("CMake Error"), lines)
    next(rest, None)
    told = itertools.dropwhile(lambda line: not line, map(str.strip, rest))
    paragraph = " ".join(itertools.takewhile(bool, told))
    return [paragraph] if paragraph else []
