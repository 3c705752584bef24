"""envs/setup.sh: says what it cannot do, and does nothing twice."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with its virtual environment, on a machine where all packages are installed."""
    shutil.copytree(ROOT / "envs", tmp_path / "envs")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    files = ["envs/requirements.lock", "pyproject.toml"]
    stamp = subprocess.run(
        ["sha256sum", *files], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    (tmp_path / ".venv" / ".mcuforge-stamp").write_text(stamp.stdout)
    stub(tmp_path, "dpkg-query", 'case "$*" in *absent-*) exit 1 ;; esac; echo installed')
    return tmp_path


def stub(directory: Path, name: str, script: str) -> None:
    """A program that stands for the system's."""
    path = directory / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def run(directory: Path) -> subprocess.CompletedProcess:
    path = f"{directory / 'bin'}:{os.environ['PATH']}"
    command = [str(directory / "envs" / "setup.sh")]
    return subprocess.run(
        command, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=60
    )


def test_a_second_run_does_nothing_and_says_nothing(checkout: Path) -> None:
    stub(checkout, "apt-get", f"touch {checkout / 'called'}")
    done = run(checkout)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (checkout / "called").exists()


def test_without_rights_it_names_the_packages_to_ask_for(checkout: Path) -> None:
    with (checkout / "envs" / "apt.txt").open("a") as packages:
        packages.write("absent-one\nabsent-two\n")
    stub(checkout, "id", "echo 1000")
    stub(checkout, "sudo", "exit 1")
    done = run(checkout)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "mcuforge: no right to install packages; ask for: apt-get install absent-one absent-two"
    ]


def test_with_sudo_it_installs_what_is_missing_and_no_more(checkout: Path) -> None:
    with (checkout / "envs" / "apt.txt").open("a") as packages:
        packages.write("absent-one\n")
    stub(checkout, "id", "echo 1000")
    stub(checkout, "sudo", f'echo "$@" >> {checkout / "called"}')
    assert run(checkout).returncode == 0
    install = (checkout / "called").read_text().splitlines()[-1].split()
    assert install[-1] == "absent-one"
    assert "gcc" not in install
