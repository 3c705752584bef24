"""The package by itself: built, installed elsewhere, and used from an empty directory."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import mcuforge
from helpers import tiny

ROOT = Path(__file__).parents[2]


def succeed(command: list[str | Path], directory: Path) -> str:
    """What the command prints, run where nothing of the repository is in reach."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy: setuptools leaves what it built before in the tree, and finds it."""
    copy = tmp_path_factory.mktemp("source")
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, copy)
    for folder in ("config", "src"):
        clean = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / folder, copy / folder, symlinks=True, ignore=clean)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    succeed([*pip, "--wheel-dir", copy / "dist", copy], copy)
    (built,) = (copy / "dist").iterdir()
    return built


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``mcuforge`` in a virtual environment, which finds dependencies where this Python does."""
    environment = tmp_path_factory.mktemp("environment")
    succeed([sys.executable, "-m", "venv", "--without-pip", environment], environment)
    pip = [sys.executable, "-m", "pip", "--python", environment / "bin" / "python"]
    succeed([*pip, "install", "--quiet", "--no-deps", "--no-index", wheel], environment)
    (packages,) = environment.glob("lib/python*/site-packages")
    here = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (packages / "dependencies.pth").write_text("\n".join(here))
    return environment / "bin" / "mcuforge"


def test_every_file_of_the_library_is_in_the_wheel(wheel: Path) -> None:
    source = ROOT / "src"
    files = {p for p in (source / "mcuforge").rglob("*") if p.is_file()}
    wanted = {str(p.relative_to(source)) for p in files if "__pycache__" not in p.parts}
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
        boards = archive.read("mcuforge/registries/boards.yaml")
    assert found == wanted
    assert boards == (ROOT / "config" / "boards.yaml").read_bytes()


def test_every_command_works_from_an_empty_directory(program: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.tflite").write_bytes(tiny.model())

    def run(*arguments: str) -> str:
        return succeed([program, *arguments], tmp_path)

    assert run("--version") == f"mcuforge {mcuforge.__version__}\n"
    assert "silabs_kws" in run("models")
    assert "mps2_an500" in run("boards")
    assert f"{tiny.MACS:,} multiply-accumulates" in run("describe", "tiny.tflite")
    run("compile", "tiny.tflite")
    run("project", "tiny.tar", "metal", "--platform", "baremetal", "--samples", "tiny.tflite")
    run("project", "tiny.tar", "zephyr", "--type", "mlperftiny")
    assert (tmp_path / "metal" / "device" / "baremetal" / "startup.c").is_file()
    assert (tmp_path / "zephyr" / "src" / "mlperftiny.c").is_file()
    where = [program.with_name("python"), "-c", "import mcuforge; print(mcuforge.__file__)"]
    assert str(program.parents[1]) in succeed(where, tmp_path)


def test_registries_of_the_working_directory_come_first(program: Path, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    entry = f"title: Mine\n    task: test\n    sha256: {'a' * 64}\n    sources: [{{path: mine}}]"
    (tmp_path / "config" / "models.yaml").write_text(f"models:\n  mine:\n    {entry}\n")
    assert succeed([program, "models"], tmp_path).split() == ["mine", "Mine"]
    assert "mps2_an500" in succeed([program, "boards"], tmp_path)
