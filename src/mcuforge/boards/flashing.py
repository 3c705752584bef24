"""Puts firmware on a board through its probe, with whichever program the hardware map names."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mcuforge.boards import children
from mcuforge.boards.inventory import Board, Instance
from mcuforge.errors import BoardError, ConfigError, ToolError, known

_LAST_LINES = 3
# What these programs read as syntax must not come from a file name or a serial number.
_PLAIN_ID = re.compile(r"[A-Za-z0-9:._-]{1,80}")
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/+,=@%:._ -]{1,4000}")
# gdb exits with 0 even when a command of its script fails.
_GDB_ERROR = re.compile(
    r"flash\.gdb:\d+: Error|Load failed|Connection (refused|timed out)|No such file", re.IGNORECASE
)


@dataclass(frozen=True)
class Flash:
    """One firmware to be put on one board.

    Attributes:
        image: path of the ELF file.
        probe: serial number of the board's probe; empty if it is the only one.
        extra: more arguments for the program.
        told: what the program has to know of the board, its entry in ``flash_args``.
        reset: gdb's monitor command that resets the board.
        directory: where scripts for the program may be written.
    """

    image: str
    probe: str
    extra: tuple[str, ...]
    told: str
    reset: str
    directory: Path

    def script(self, name: str, *lines: str) -> str:
        """Write a script for the program; its path."""
        path = self.directory / name
        path.write_text("".join(f"{line}\n" for line in lines))
        return str(path)


@dataclass(frozen=True)
class Runner:
    """A program that flashes boards.

    Attributes:
        program: its name on PATH.
        source: where to get it.
        arguments: how it is called to flash a firmware and start it.
        told: what it has to know of a board, for messages; empty if nothing.
        server: it talks to a server, whose address is its one entry in ``runner_params``.
        failure: a line of its output that means it failed, whatever its exit code.
    """

    program: str
    source: str
    arguments: Callable[[Flash], list[str]]
    told: str = ""
    server: bool = False
    failure: re.Pattern[str] | None = None


def _openocd(flash: Flash) -> list[str]:
    select = ["-c", f"adapter serial {flash.probe}"] if flash.probe else []
    program = f"program {{{flash.image}}} verify reset exit"
    return ["-f", flash.told, *select, *flash.extra, "-c", program]


def _stm32cubeprogrammer(flash: Flash) -> list[str]:
    select = [f"sn={flash.probe}"] if flash.probe else []
    connect = ["-c", "port=SWD", *select, "mode=UR", "reset=HWrst"]
    return [*connect, *flash.extra, "-w", flash.image, "-v", "-rst"]


def _jlink(flash: Flash) -> list[str]:
    script = flash.script("flash.jlink", "r", "h", f'loadfile "{flash.image}"', "r", "g", "exit")
    select = ["-USB", flash.probe] if flash.probe else []
    device = ["-Device", flash.told, "-If", "SWD", "-Speed", "4000"]
    options = ["-AutoConnect", "1", "-ExitOnError", "1", "-NoGui", "1", *flash.extra]
    return [*select, *device, *options, "-CommandFile", script]


def _pyocd(flash: Flash) -> list[str]:
    select = ["--uid", flash.probe] if flash.probe else []
    return ["flash", "--target", flash.told, *select, *flash.extra, flash.image]


def _gdb(flash: Flash) -> list[str]:
    script = flash.script(
        "flash.gdb",
        "set confirm off",
        "set pagination off",
        "set remotetimeout 20",
        f"target remote {flash.extra[0]}",
        "load",
        f"monitor {flash.reset}",
        "detach",
        "quit",
    )
    return ["--nx", "--batch", "--command", script, flash.image]


def _west(flash: Flash) -> list[str]:
    select = ["--dev-id", flash.probe] if flash.probe else []
    return ["flash", "--skip-rebuild", *flash.extra, "--elf-file", flash.image, *select]


RUNNERS = {
    "openocd": Runner(
        "openocd",
        "install the Debian package openocd",
        _openocd,
        told="openocd's configuration file, as in board/st_nucleo_h743zi.cfg",
    ),
    "stm32cubeprogrammer": Runner(
        "STM32_Programmer_CLI",
        "get STM32CubeProgrammer from https://www.st.com/stm32cubeprog and put it on PATH",
        _stm32cubeprogrammer,
    ),
    "jlink": Runner(
        "JLinkExe",
        "get the J-Link software from https://www.segger.com/downloads/jlink",
        _jlink,
        told="J-Link's device name, as in R7FA8M1AH",
    ),
    "pyocd": Runner(
        "pyocd", "pip install pyocd", _pyocd, told="pyocd's target type, as in stm32h743zitx"
    ),
    "gdb": Runner(
        "gdb-multiarch",
        "install the Debian package gdb-multiarch",
        _gdb,
        server=True,
        failure=_GDB_ERROR,
    ),
    "west": Runner("west", "pip install west", _west),
}
"""Every runner, by the name boards.yaml and the hardware map know: a new one is an entry here."""


def command(board: Board, instance: Instance, elf: Path, directory: Path) -> list[str]:
    """The command line that flashes `elf` and starts it, without the program's path.

    Args:
        directory: where scripts for the program may be written.

    One probe among several is chosen by its serial number. Raises ConfigError if the runner is
    unknown or boards.yaml lacks what it has to be told about the board.
    """
    name, probe, image = instance.runner, instance.probe_id, str(elf.resolve())
    runner = RUNNERS[known("runner", name, RUNNERS, f"board {instance.id}")]
    if not _PLAIN_PATH.fullmatch(image):
        raise ConfigError(f"flash tools cannot be given the path {image!r}", "use a plainer path")
    if probe and not _PLAIN_ID.fullmatch(probe):
        raise ConfigError(f"'{probe}' is no serial number of a probe", "check the hardware map")
    if runner.told and name not in board.flash_args:
        raise ConfigError(f"boards.yaml: {board.name} has no flash_args.{name}", runner.told)
    if runner.server and len(instance.runner_params) != 1:
        raise ConfigError(
            f"board {instance.id}: the runner {name} needs one runner_params, the {name} server",
            "as in runner_params: [localhost:3333], or the path of a socket",
        )
    flash = Flash(
        image=image,
        probe=probe,
        extra=instance.runner_params,
        told=board.flash_args.get(name, ""),
        reset="system_reset" if board.emulated else "reset",
        directory=directory,
    )
    return [runner.program, *runner.arguments(flash)]


def flash(board: Board, instance: Instance, elf: Path) -> None:
    """Flash `elf` and start it.

    Raises ToolError if the program is missing, BoardError if it fails or takes too long.
    """
    with tempfile.TemporaryDirectory(prefix="mcuforge-") as directory:
        program, *arguments = command(board, instance, elf, Path(directory))
        runner = RUNNERS[instance.runner]
        # The program may be on PATH, or in this Python environment, which need not be activated.
        path = shutil.which(program) or shutil.which(program, path=Path(sys.executable).parent)
        if path is None:
            raise ToolError(f"{program} not found", runner.source)
        name = f"{board.name} ({instance.id}): {program}"
        _run([path, *arguments], name, instance.flash_timeout_s, runner.failure)


def _run(
    arguments: list[str], name: str, timeout_s: float, failure: re.Pattern[str] | None
) -> None:
    # The tool gets a process group: when it hangs, the servers it started end with it.
    process = subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        preexec_fn=children.die_with_parent(),
    )
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise BoardError(f"{name} did not finish in {timeout_s:.0f} s") from None
        raise
    failed = [line for line in output.splitlines() if failure and failure.search(line)]
    if process.returncode or failed:
        lines = failed or output.strip().splitlines() or ["it printed nothing"]
        raise BoardError(f"{name} failed: " + " | ".join(lines[-_LAST_LINES:])[:400])
