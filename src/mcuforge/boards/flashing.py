"""Puts firmware on a board through its probe, with whichever program the hardware map names."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from mcuforge.boards import children
from mcuforge.boards.inventory import Board, Instance
from mcuforge.errors import BoardError, ConfigError, ToolError

_LAST_LINES = 3
# The program of each runner, and where it comes from.
PROGRAMS = {
    "openocd": ("openocd", "install the Debian package openocd"),
    "stm32cubeprogrammer": (
        "STM32_Programmer_CLI",
        "get STM32CubeProgrammer from https://www.st.com/stm32cubeprog and put it on PATH",
    ),
    "jlink": ("JLinkExe", "get the J-Link software from https://www.segger.com/downloads/jlink"),
    "pyocd": ("pyocd", "pip install pyocd"),
    "gdb": ("gdb-multiarch", "install the Debian package gdb-multiarch"),
    "west": ("west", "pip install west"),
}
# What these programs read as syntax must not come from a file name or a serial number.
_PLAIN_ID = re.compile(r"[A-Za-z0-9:._-]{1,80}")
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/+,=@%:._ -]{1,4000}")


def command(board: Board, instance: Instance, elf: Path, directory: Path) -> list[str]:
    """The command line that flashes `elf` and starts it, without the program's path.

    Args:
        directory: where scripts for the program may be written.

    One probe among several is chosen by its serial number. Raises ConfigError if the runner is
    unknown or boards.yaml lacks what it has to be told about the board.
    """
    runner, probe, image = instance.runner, instance.probe_id, str(elf.resolve())
    extra = list(instance.runner_params)
    if not _PLAIN_PATH.fullmatch(image):
        raise ConfigError(f"flash tools cannot be given the path {image!r}", "use a plainer path")
    if probe and not _PLAIN_ID.fullmatch(probe):
        raise ConfigError(f"'{probe}' is no serial number of a probe", "check the hardware map")
    if runner == "openocd":
        select = ["-c", f"adapter serial {probe}"] if probe else []
        configuration = ["-f", _told(board, "openocd"), *select, *extra]
        return ["openocd", *configuration, "-c", f"program {{{image}}} verify reset exit"]
    if runner == "stm32cubeprogrammer":
        select = [f"sn={probe}"] if probe else []
        connect = ["-c", "port=SWD", *select, "mode=UR", "reset=HWrst"]
        return ["STM32_Programmer_CLI", *connect, *extra, "-w", image, "-v", "-rst"]
    if runner == "jlink":
        script = directory / "flash.jlink"
        script.write_text(f'r\nh\nloadfile "{image}"\nr\ng\nexit\n')
        select = ["-USB", probe] if probe else []
        device = ["-Device", _told(board, "jlink"), "-If", "SWD", "-Speed", "4000"]
        options = ["-AutoConnect", "1", "-ExitOnError", "1", "-NoGui", "1", *extra]
        return ["JLinkExe", *select, *device, *options, "-CommandFile", str(script)]
    if runner == "pyocd":
        select = ["--uid", probe] if probe else []
        return ["pyocd", "flash", "--target", _told(board, "pyocd"), *select, *extra, image]
    if runner == "gdb":
        if len(extra) != 1:
            raise ConfigError(
                f"board {instance.id}: the runner gdb needs one runner_params, the gdb server",
                "as in runner_params: [localhost:3333], or the path of a socket",
            )
        reset = "system_reset" if board.emulated else "reset"
        script = directory / "flash.gdb"
        script.write_text(
            "set confirm off\nset pagination off\nset remotetimeout 20\n"
            f"target remote {extra[0]}\nload\nmonitor {reset}\ndetach\nquit\n"
        )
        return ["gdb-multiarch", "--nx", "--batch", "--command", str(script), image]
    if runner == "west":
        select = ["--dev-id", probe] if probe else []
        return ["west", "flash", "--skip-rebuild", *extra, "--elf-file", image, *select]
    raise ConfigError(
        f"board {instance.id}: unknown runner '{runner}'", f"valid: {', '.join(PROGRAMS)}"
    )


def flash(board: Board, instance: Instance, elf: Path) -> None:
    """Flash `elf` and start it.

    Raises ToolError if the program is missing, BoardError if it fails or takes too long.
    """
    with tempfile.TemporaryDirectory(prefix="mcuforge-") as directory:
        program, *arguments = command(board, instance, elf, Path(directory))
        # Of PATH, or of this Python environment, which need not be activated.
        path = shutil.which(program) or shutil.which(program, path=Path(sys.executable).parent)
        if path is None:
            raise ToolError(f"{program} not found", PROGRAMS[instance.runner][1])
        name = f"{board.name} ({instance.id}): {program}"
        _run([path, *arguments], name, instance.flash_timeout_s)


def _run(arguments: list[str], name: str, timeout_s: float) -> None:
    # Its own process group, so that a tool that hangs ends with the servers it started.
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
    # gdb's exit code is 0 whatever its script ran into.
    failed = [line for line in output.splitlines() if _GDB_ERROR.search(line)]
    if process.returncode or ("gdb" in Path(arguments[0]).name and failed):
        lines = failed or output.strip().splitlines() or ["it printed nothing"]
        raise BoardError(f"{name} failed: " + " | ".join(lines[-_LAST_LINES:])[:400])


_GDB_ERROR = re.compile(
    r"flash\.gdb:\d+: Error|Load failed|Connection (refused|timed out)|No such file", re.IGNORECASE
)


def _told(board: Board, runner: str) -> str:
    try:
        return board.flash_args[runner]
    except KeyError:
        raise ConfigError(
            f"boards.yaml: {board.name} has no flash_args.{runner}",
            "name the tool's configuration or device there",
        ) from None
