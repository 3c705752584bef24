"""Firmware: from a compiled model to an ELF file for a board, and what it needs of its memories."""

import shutil
import tempfile
from pathlib import Path

from mcuforge import files
from mcuforge.boards import Board
from mcuforge.errors import ConfigError
from mcuforge.firmware import baremetal, stack, toolchains, zephyr
from mcuforge.firmware import project as projects
from mcuforge.firmware.project import (
    BENCHMARKS,
    KINDS,
    Project,
    Samples,
    read_samples,
    sources,
)
from mcuforge.firmware.toolchains import version as toolchain_version
from mcuforge.results.columns import Size

__all__ = [
    "BENCHMARKS",
    "KINDS",
    "Samples",
    "build",
    "generate",
    "read_samples",
    "sources",
    "toolchain_version",
]


def build(
    mlf: Path,
    board: Board,
    toolchain: str,
    elf: Path,
    size: Path,
    *,
    benchmark: str = "",
    profile: bool = False,
    project: Path | None = None,
    log: Path | None = None,
) -> Size:
    """Build the firmware that runs one compiled model on one board.

    Args:
        mlf: the compiled model, a Model Library Format tar.
        toolchain: ``gcc``, ``clang`` or ``tvm-llvm`` (the model's code is TVM's object file).
        elf, size: written atomically, `size` last. The same inputs give the same bytes.
        benchmark: the MLPerf Tiny model (``kws01``, ...) the firmware says it runs; empty if none.
        profile: also report the time of each operator.
        project: where to leave the project, an empty or absent directory; by default it is
            temporary.
        log: what the tools print is appended to it.

    Raises ConfigError if board and toolchain do not go together, ModelError for a bad archive and
    ToolError if a program is missing or fails. A firmware too large for its board is no error: it
    is linked as if it fitted, and `size` says what is missing.
    """
    board.target(toolchain)
    if log:
        log.parent.mkdir(parents=True, exist_ok=True)
    if project is None:
        with tempfile.TemporaryDirectory(prefix="mcuforge-") as directory:
            root = Path(directory).resolve()
            return _build(mlf, board, toolchain, elf, size, benchmark, profile, root, log)
    root = _empty(project)
    return _build(mlf, board, toolchain, elf, size, benchmark, profile, root, log)


def generate(
    mlf: Path,
    directory: Path,
    board: Board | None,
    toolchain: str = "gcc",
    *,
    kind: str = "mlperftiny",
    samples: Samples | None = None,
    benchmark: str = "",
) -> Project:
    """Write a project to keep: of the board's platform, or for every board Zephyr knows.

    Args:
        mlf: the compiled model, a Model Library Format tar.
        directory: empty or absent.
        board: None for a Zephyr application.
        toolchain: what a bare-metal project is set up for.
        kind: one of `KINDS`: the benchmark's firmware, or one that runs samples by itself.
        samples: for the latter; by default a few of seeded random numbers.
        benchmark: the MLPerf Tiny model (``kws01``, ...) it says it runs; empty if none.

    Raises ConfigError, ModelError and ToolError as `build` does.
    """
    if board is None or board.platform == "zephyr":
        stack_bytes = (board or Board).stack_bytes
        return zephyr.generate(
            mlf,
            _empty(directory),
            kind=kind,
            samples=samples,
            benchmark=benchmark,
            vendor=(board or Board).vendor,
            stack_bytes=stack_bytes,
        )
    board.target(toolchain)
    tools = toolchains.toolchain(toolchain, board.core)
    root = _empty(directory)
    return projects.generate(
        mlf,
        board,
        tools,
        root,
        kind=kind,
        samples=samples,
        benchmark=benchmark,
        vendor=board.vendor,
        baud=board.baud,
    )


def _empty(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise ConfigError(f"{directory} is not empty", "name a directory that does not exist yet")
    return directory.resolve()


def _build(
    mlf: Path,
    board: Board,
    toolchain: str,
    elf: Path,
    size: Path,
    benchmark: str,
    profile: bool,
    root: Path,
    log: Path | None,
) -> Size:
    platform = {"baremetal": baremetal, "zephyr": zephyr}[board.platform]
    built = platform.build(mlf, board, toolchain, root, benchmark, board.vendor, profile, log)
    info, used = built.project.info, built.usage
    record = Size(
        model=built.project.model,
        board=board.name,
        toolchain=toolchain,
        toolchain_version=built.toolchain_version,
        opt_level=info.opt_level,
        build_id=built.project.build_id,
        flash_bytes=used.flash_bytes,
        ram_bytes=used.ram_bytes,
        code_bytes=used.code_bytes,
        weights_bytes=used.weights_bytes,
        workspace_bytes=used.workspace_bytes or info.workspace_bytes,
        stack_reserved_bytes=board.stack_bytes,
        stack_bound_bytes=stack.bound(built.elf, info.entry),
        sections=used.sections,
        fits=used.fits,
        missing_flash_bytes=used.missing_flash,
        missing_ram_bytes=used.missing_ram,
    )
    with files.atomic(elf) as temporary:
        shutil.copyfile(built.elf, temporary)
    record.write(size)
    return record
