"""Zephyr cells in the workflow: explained without a tree, rebuilt when it changes."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from helpers.project import Project

CELL = "results/firmware/tiny/zephyr_mps2_an500/gcc/O1/firmware.elf"
# Puts an object file where Zephyr's build would put the firmware.
WEST = """\
#!/bin/sh
mkdir -p build/zephyr
echo "CMAKE_OBJCOPY:FILEPATH=$(command -v arm-none-eabi-objcopy)" > build/CMakeCache.txt
echo "void _start(void) {}" | arm-none-eabi-gcc -mcpu=cortex-m7 -nostdlib -x c - \\
    -o build/zephyr/zephyr.elf
"""


def test_the_default_grid_and_plans_need_no_tree(fresh: Project) -> None:
    assert "=zephyr_" not in fresh.run("-n", ZEPHYR_BASE="")
    assert "build_firmware" in fresh.run("-n", CELL, ZEPHYR_BASE="")


def test_a_cell_without_a_tree_says_how_to_get_one(fresh: Project) -> None:
    done = fresh.snakemake(CELL, ZEPHYR_BASE="")
    assert done.returncode != 0
    (line,) = dict.fromkeys(li for li in done.stdout.splitlines() if "mcuforge: error:" in li)
    assert "needs a Zephyr workspace" in line and "snakemake zephyr_workspace" in line


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    base = tmp_path / "workspace" / "zephyr"
    base.mkdir(parents=True)
    (base / "VERSION").write_text("VERSION_MAJOR = 4\nVERSION_MINOR = 2\nPATCHLEVEL = 0\n")
    return base


def test_firmware_is_built_again_when_the_tree_changes(
    fresh: Project, tree: Path, tmp_path: Path
) -> None:
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed")
    # Before the Python environment's own west, if it has one.
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "west").write_text(WEST)
    (programs / "west").chmod(0o755)
    fresh.edit("src/mcuforge/firmware/workspace.py", "Path(sys.executable).parent", f'"{programs}"')
    fresh.run(CELL, "--config", f"zephyr_base={tree}")
    assert (fresh.path / CELL).stat().st_size > 0

    def plan() -> dict[str, int]:
        return fresh.plan(CELL, "--config", f"zephyr_base={tree}")

    assert plan() == {}
    git = ["git", "-C", os.fspath(tree), "-c", "user.name=n", "-c", "user.email=e@example.com"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "1"]):
        subprocess.run([*git, *command], check=True)
    assert plan() == {"build_firmware": 1}
