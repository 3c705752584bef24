"""Builds and generates firmware, whatever the platform of its board."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mcuforge import files, toolchains
from mcuforge.boards import Board
from mcuforge.errors import ConfigError
from mcuforge.firmware import baremetal, stack, zephyr
from mcuforge.firmware import project as projects
from mcuforge.firmware.project import Order, Purpose
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
    root = _empty(project)
    root.mkdir(parents=True, exist_ok=True)
    return _build(order, elf, size, root)


def generate(
    archive: Path, directory: Path, board: Board | None, toolchain: str, purpose: Purpose
) -> None:
    """Write a project to keep: of the board's platform, or for every board Zephyr knows.

    Args:
        archive: the compiled model, a Model Library Format tar.
        directory: empty or absent; it is there completely or not at all.
        board: None for a Zephyr application.
        toolchain: what a bare-metal project is set up for.

    Raises ConfigError, ModelError and ToolError as `build` does.
    """
    if board is not None and board.platform != "zephyr":
        board.target(toolchain)
        tools = toolchains.toolchain(toolchain, board.core)
    with _new(directory) as root:
        if board is None or board.platform == "zephyr":
            facts = board or Board
            vendor, stack = facts.vendor, facts.stack_bytes
            zephyr.generate(archive, root, purpose, vendor=vendor, stack_bytes=stack)
        else:
            projects.generate(archive, board, tools, root, purpose)


@contextlib.contextmanager
def _new(directory: Path) -> Iterator[Path]:
    """A directory whose content becomes that of `directory` when the block succeeds, else goes."""
    directory = _empty(directory)
    there = directory.exists()
    directory.parent.mkdir(parents=True, exist_ok=True)
    place = None if there else directory.parent
    with tempfile.TemporaryDirectory(prefix=".mcuforge-", dir=place) as temporary:
        made = Path(temporary, directory.name)
        made.mkdir()
        yield made
        if there:  # it stays itself: a shell may be in it
            shutil.copytree(made, directory, dirs_exist_ok=True)
        else:
            made.replace(directory)


def _empty(directory: Path) -> Path:
    """The absolute path of a directory that is not there or has nothing in it."""
    if directory.exists() and any(directory.iterdir()):
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
