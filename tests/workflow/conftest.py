"""The project that workflow tests use: set up once, finished once, copied for each test."""

import shutil
from pathlib import Path

import pytest

from helpers import tiny
from helpers.project import GRID, PARTS, ROOT, Project


@pytest.fixture(scope="session")
def fresh_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    path = tmp_path_factory.mktemp("fresh") / "project"
    path.mkdir()
    shutil.copy(ROOT / "Snakefile", path)
    for part in PARTS:
        shutil.copytree(ROOT / part, path / part, ignore=shutil.ignore_patterns("__pycache__"))
    project = Project(path)
    project.register("tiny", tiny.model())
    project.register("other", tiny.model(seed=1, float_io=True))
    project.configure(**GRID)
    return project


@pytest.fixture(scope="session")
def finished_project(fresh_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = fresh_project.copy(tmp_path_factory.mktemp("finished") / "project")
    project.run()
    return project


@pytest.fixture
def fresh(fresh_project: Project, tmp_path: Path) -> Project:
    """A project in which nothing has run yet."""
    return fresh_project.copy(tmp_path / "project")


@pytest.fixture
def finished(finished_project: Project, tmp_path: Path) -> Project:
    """A project whose whole grid has run."""
    return finished_project.copy(tmp_path / "project")
