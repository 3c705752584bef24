"""Firmware: from a compiled model to an ELF file for a board, and what it needs of its memories."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from mcuforge import files
from mcuforge.boards import Board
from mcuforge.errors import ConfigError, ToolError
from mcuforge.firmware import project as projects
from mcuforge.firmware import size as sizes
from mcuforge.firmware import stack, toolchains
from mcuforge.firmware.project import BENCHMARKS, sources
from mcuforge.firmware.toolchains import version as toolchain_version
from mcuforge.results.records import Size

__all__ = ["BENCHMARKS", "build", "sources", "toolchain_version"]

_BUILD_TIMEOUT_S = 900
_LAST_LINES = 12


def build(
    mlf: Path,
    board: Board,
    toolchain: str,
    elf: Path,
    size: Path,
    *,
    benchmark: str = "",
    vendor: str = "mcuforge",
    project: Path | None = None,
    log: Path | None = None,
) -> Size:
    """Build the firmware that runs one compiled model on one board.

    Args:
        mlf: the compiled model, a Model Library Format tar.
        toolchain: ``gcc``, ``clang`` or ``tvm-llvm`` (the model's code is TVM's object file).
        elf, size: written atomically, `size` last. The same inputs give the same bytes.
        benchmark: the MLPerf Tiny model (``kws01``, ...) the firmware says it runs; empty if none.
        vendor: what the firmware answers to ``name``.
        project: where to leave the CMake project, an empty or absent directory; by default it is
            temporary.
        log: what the tools print is appended to it.

    Raises ConfigError if board and toolchain do not go together, ModelError for a bad archive and
    ToolError if a program is missing or fails. A firmware too large for its board is no error: it
    is linked as if it fitted, and `size` says what is missing.
    """
    board.target(toolchain)
    if board.platform != "baremetal":
        raise ConfigError(
            f"firmware for {board.name} needs the platform {board.platform}, which mcuforge cannot "
            "build yet",
            "choose one of the emulated boards",
        )
    cmake, ninja = toolchains.find("cmake"), toolchains.find("ninja")
    tools = toolchains.toolchain(toolchain, board.core)
    if project is not None:
        project.mkdir(parents=True, exist_ok=True)
        if any(project.iterdir()):
            raise ConfigError(f"{project} is not empty", "name a directory that does not exist yet")
        return _build(mlf, board, tools, elf, size, benchmark, vendor, project, cmake, ninja, log)
    with tempfile.TemporaryDirectory(prefix="mcuforge-") as directory:
        root = Path(directory).resolve()
        return _build(mlf, board, tools, elf, size, benchmark, vendor, root, cmake, ninja, log)


def _build(
    mlf: Path,
    board: Board,
    tools: toolchains.Toolchain,
    elf: Path,
    size: Path,
    benchmark: str,
    vendor: str,
    root: Path,
    cmake: str,
    ninja: str,
    log: Path | None,
) -> Size:
    generated = projects.generate(mlf, board, tools, root, benchmark=benchmark, vendor=vendor)
    info, build_root = generated.info, root / "build"
    if log:
        log.parent.mkdir(parents=True, exist_ok=True)
    configure = [cmake, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}", "-S", str(root)]
    configure += ["-B", str(build_root), f"-DCMAKE_TOOLCHAIN_FILE={root / 'toolchain.cmake'}"]
    _run(configure, log)
    make = [cmake, "--build", str(build_root), "--parallel", str(os.cpu_count() or 1)]
    try:
        _run(make, log)
    except _TooLarge:
        projects.enlarge(generated, board)
        _run(make, log)

    built = build_root / "firmware.elf"
    used = sizes.usage(built, board, info["weights_bytes"])
    record = Size(
        model=generated.model,
        board=board.name,
        toolchain=tools.name,
        toolchain_version=tools.version,
        opt_level=info["opt_level"],
        build_id=generated.build_id,
        flash_bytes=used.flash_bytes,
        ram_bytes=used.ram_bytes,
        code_bytes=used.code_bytes,
        weights_bytes=used.weights_bytes,
        workspace_bytes=used.workspace_bytes or info["workspace_bytes"],
        stack_reserved_bytes=board.stack_bytes,
        stack_bound_bytes=stack.bound(built, info["entry"]),
        sections=used.sections,
        fits=used.fits,
        missing={"flash": used.missing_flash, "ram": used.missing_ram},
    )
    with files.atomic(elf) as temporary:
        shutil.copyfile(built, temporary)
    record.write(size)
    return record


class _TooLarge(ToolError):
    """The linker ran out of memory region; all else went well."""


def _run(command: list[str], log: Path | None) -> None:
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_BUILD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{command[0]} took longer than {_BUILD_TIMEOUT_S} s") from error
    if log:
        with log.open("a") as stream:
            stream.write(done.stdout)
    if done.returncode == 0:
        return
    lines = done.stdout.strip().splitlines() or ["it printed nothing"]
    # GNU ld: "region `X' overflowed by N bytes"; lld: "will not fit in region 'X': overflowed ..."
    if any("overflowed by" in line for line in lines) and not any(
        ": error: " in li
        for li in lines
        if "overflowed" not in li and "linker command failed" not in li
    ):
        raise _TooLarge("firmware does not fit")
    cause = next((line for line in lines if "error:" in line.lower()), lines[-1])
    raise ToolError(
        f"firmware build failed: {cause.strip()}",
        f"see {log}" if log else " | ".join(lines[-_LAST_LINES:]),
    )
