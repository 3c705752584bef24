"""Firmware built with a Zephyr tree; without one these tests are skipped.

ZEPHYR_BASE=~/zephyrproject/zephyr pytest tests/zephyr
"""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from mcuforge import boards, mlf
from mcuforge.boards import Board
from mcuforge.firmware import builder
from mcuforge.firmware.project import Order, Purpose
from mcuforge.results.columns import Measurement, Size
from mcuforge.runner.session import Firmware, Plan, measure

INVENTORY = boards.load(Path(__file__).parents[2] / "config" / "boards.yaml")


@pytest.fixture(autouse=True, scope="session")
def needs_zephyr():
    """Skips everything without a tree."""
    if not os.environ.get("ZEPHYR_BASE"):
        pytest.skip("ZEPHYR_BASE is not set: no Zephyr tree to build with")
    beside = os.fspath(Path(sys.executable).parent)
    if not (shutil.which("west", path=beside) or shutil.which("west")):
        pytest.skip("west is not installed; `make zephyr` does that")


@dataclass(frozen=True)
class Built:
    """A firmware and what is needed to run it."""

    board: Board
    elf: Path
    size_json: Path
    project: Path
    info: mlf.Info

    @property
    def size(self) -> Size:
        return Size.read(self.size_json)

    def measure(self, vectors: Path, *plan: str, **options: Path) -> Measurement:
        """Options are those of `Plan`."""
        firmware = Firmware(self.elf, self.size_json, self.info, vectors)
        return measure(firmware, Plan(*plan, **options), INVENTORY)


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """Builds an archive for a board, once: ``built(archive, "ek_ra8m1", "clang")``."""
    done = {}

    def build(archive: Path, board: str | Board, toolchain: str, benchmark: str = "") -> Built:
        board = INVENTORY.board(board) if isinstance(board, str) else board
        key = (archive, repr(board), toolchain, benchmark)
        if key not in done:
            directory = tmp_path_factory.mktemp("zephyr")
            elf, size, project = (directory / name for name in ("f.elf", "size.json", "project"))
            order = Order(archive, board, toolchain, Purpose(benchmark=benchmark))
            builder.build(order, elf, size, project)
            done[key] = Built(board, elf, size, project, mlf.read(archive).info)
        return done[key]

    return build
