"""Builds and generates firmware, whatever the platform of its board."""

import shutil
import tempfile
from pathlib import Path

from mcuforge import files, toolchains
from mcuforge.boards import Board
from mcuforge.errors import ConfigError
from mcuforge.firmware import baremetal, stack, zephyr
from mcuforge.firmware import project as projects
from mcuforge.firmware.project import Order, Project, Purpose
from mcuforge.results.columns import Size

_PLATFORMS = {"baremetal": baremetal, "zephyr": zephyr}


def build(order: Order, elf: Path, size: Path, project: Path | None = None) -> Size:
    """Build the firmware that runs one compiled model on one board.

    Args:
        elf, size: written atomically, `size` last. The same order gives the same bytes.
        project: where to leave the project, an empty or absent directory; by default it is
            temporary.

    Raises ConfigError if board and toolchain do not go together, ModelError for a bad archive and
    ToolError if a program is missing or fails. A firmware too large for its board is no error: it
    is linked as if it fitted, and `size` says what is missing.
    """
    order.board.target(order.toolchain)
    if order.log:
        order.log.parent.mkdir(parents=True, exist_ok=True)
    if project is None:
        with tempfile.TemporaryDirectory(prefix="mcuforge-") as directory:
            return _build(order, elf, size, Path(directory).resolve())
    return _build(order, elf, size, _empty(project))


def generate(
    archive: Path, directory: Path, board: Board | None, toolchain: str, purpose: Purpose
) -> Project:
    """Write a project to keep: of the board's platform, or for every board Zephyr knows.

    Args:
        archive: the compiled model, a Model Library Format tar.
        directory: empty or absent.
        board: None for a Zephyr application.
        toolchain: what a bare-metal project is set up for.

    Raises ConfigError, ModelError and ToolError as `build` does.
    """
    if board is None or board.platform == "zephyr":
        facts = board or Board
        return zephyr.generate(
            archive,
            _empty(directory),
            purpose,
            vendor=facts.vendor,
            stack_bytes=facts.stack_bytes,
        )
    board.target(toolchain)
    tools = toolchains.toolchain(toolchain, board.core)
    return projects.generate(archive, board, tools, _empty(directory), purpose)


def _empty(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise ConfigError(f"{directory} is not empty", "name a directory that does not exist yet")
    return directory.resolve()


def _build(order: Order, elf: Path, size: Path, root: Path) -> Size:
    board = order.board
    built = _PLATFORMS[board.platform].build(order, root)
    info, used = built.project.info, built.usage
    record = Size(
        model=built.project.model,
        board=board.name,
        toolchain=order.toolchain,
        toolchain_version=built.toolchain_version,
        opt_level=info.opt_level,
        build_id=built.project.build_id,
        flash_bytes=used.flash_bytes,
        ram_bytes=used.ram_bytes,
        code_bytes=used.code_bytes,
        weights_bytes=used.weights_bytes,
        workspace_bytes=used.workspace_bytes or info.workspace_bytes,
        stack_reserved_bytes=board.stack_bytes,
        stack_bound_bytes=stack.bound(built.elf, info.entry, board.core),
        sections=used.sections,
        fits=used.fits,
        missing_flash_bytes=used.missing_flash,
        missing_ram_bytes=used.missing_ram,
    )
    with files.atomic(elf) as temporary:
        shutil.copyfile(built.elf, temporary)
    record.write(size)
    return record
