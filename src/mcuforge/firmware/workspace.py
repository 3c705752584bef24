"""Zephyr trees: where one is, which version, and how to get one."""

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mcuforge import files
from mcuforge.boards import Board
from mcuforge.errors import ConfigError, ToolError
from mcuforge.firmware import commands
from mcuforge.firmware import project as projects

_HINT = (
    "set ZEPHYR_BASE, or zephyr_base in the configuration, to the directory zephyr of a west "
    "workspace; `snakemake zephyr_workspace` makes one, docs/boards.md says more"
)
# The modules of Zephyr that every Cortex-M needs.
_MODULES = ("cmsis", "cmsis_6")


@dataclass(frozen=True)
class Workspace:
    """A Zephyr tree inside a west workspace.

    Attributes:
        base: the tree, what ZEPHYR_BASE names.
        version: as in ``4.2.99``.
        commit: 12 hex digits, with ``-dirty`` if files differ from it; empty without git.
    """

    base: Path
    version: str
    commit: str

    def __str__(self) -> str:
        return f"zephyr {self.version} {self.commit}".rstrip()

    def target(self, board: Board) -> str:
        """What this tree calls a board: before the release that renamed it, it has an old name."""
        renamed = {_release(key): name for key, name in board.zephyr_board_before.items()}
        later = [release for release in renamed if _release(self.version) < release]
        return renamed[min(later)] if later else board.zephyr_board


def _release(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def find(base: str | os.PathLike[str] | None = None) -> Workspace:
    """The Zephyr tree at `base`, by default at the environment's ZEPHYR_BASE.

    Raises ConfigError, which says how to get one, if there is none.
    """
    name = base or os.environ.get("ZEPHYR_BASE", "")
    if not name:
        raise ConfigError("this board's firmware needs a Zephyr workspace", _HINT)
    path = Path(name).expanduser().resolve()
    try:
        fields = dict(re.findall(r"(?m)^(\w+) *= *(\d+)", (path / "VERSION").read_text()))
        version = ".".join(fields[key] for key in ("VERSION_MAJOR", "VERSION_MINOR", "PATCHLEVEL"))
    except (OSError, KeyError) as error:
        raise ConfigError(f"{path} is no Zephyr tree", _HINT) from error
    return Workspace(path, version, _commit(path))


def announce(base: str | None, own: Path) -> None:
    """Tell the steps this process is going to start where the Zephyr tree is.

    Args:
        base: the tree, as configured; by default what ZEPHYR_BASE says already.
        own: the workspace `create` makes, taken where nobody says anything.
    """
    tree = own / "zephyr"
    found = base or os.environ.get("ZEPHYR_BASE") or (tree if tree.is_dir() else None)
    if found:
        os.environ["ZEPHYR_BASE"] = os.fspath(Path(found).resolve())


def create(directory: Path, modules: Iterable[str], log: Path | None = None) -> None:
    """Get the pinned Zephyr with only the modules asked for, or bring it up to date. Needs network.

    Args:
        directory: becomes the west workspace; the tree is ``zephyr`` in it. While it is incomplete,
            its name ends in ``.part``: what fails leaves no workspace, and is continued next time.
        modules: names of Zephyr's manifest; CMSIS is always there.
        log: receives what west prints.

    Raises ToolError if west is missing or fails.
    """
    program = west()
    part = directory.with_name(f"{directory.name}.part")
    if (directory / ".west").is_dir():
        directory.rename(part)
    manifest = part / "manifest" / "west.yml"
    template = projects.environment().get_template("zephyr/west.yml.j2")
    files.write(manifest, template.render(modules=sorted({*_MODULES, *modules})))
    if not (part / ".west").is_dir():
        commands.run(
            [program, "init", "--local", os.fspath(manifest.parent)], log, task="west init"
        )
    update = [program, "update", "--narrow", "--fetch-opt=--depth=1"]
    commands.run(update, log, directory=part, task="west update")
    for empty in (directory / manifest.parent.name, directory):  # Snakemake makes them
        if empty.is_dir():
            empty.rmdir()
    part.rename(directory)


@functools.cache
def _commit(path: Path) -> str:
    command = ["git", "-C", os.fspath(path), "describe", "--always", "--abbrev=12", "--dirty"]
    try:
        done = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, timeout=120, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def west() -> str:
    """The program west, that of this Python environment first."""
    path = shutil.which("west", path=os.fspath(Path(sys.executable).parent)) or shutil.which("west")
    if path is None:
        raise ToolError("west not found", "`make zephyr` installs what Zephyr needs of Python")
    return path
