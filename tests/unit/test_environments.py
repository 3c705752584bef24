"""The files that say what is installed agree with each other."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "envs" / "requirements.lock").read_text()


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def names(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w-]+", requirement)[0] for requirement in requirements}


def test_every_dependency_is_locked_with_hashes() -> None:
    locked = set(re.findall(r"^([\w-]+)==", LOCK, re.MULTILINE))
    wanted = names(project()["dependencies"])
    for extra in project()["optional-dependencies"].values():
        wanted |= names(extra)
    assert wanted <= locked
    assert LOCK.count("--hash=sha256:") > len(locked)


def test_the_lock_names_no_registry() -> None:
    assert "://" not in LOCK
    assert "--index" not in LOCK


def test_the_conda_environment_has_the_locked_versions() -> None:
    environment = yaml.safe_load((ROOT / "envs" / "environment.yaml").read_text())
    (pins,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    workflow = names(project()["optional-dependencies"]["workflow"])
    # Snakemake itself loads these two, in the environment it runs in.
    workflow -= {"pygments", "snakemake-executor-plugin-slurm"}
    assert names(pins) == names(project()["dependencies"]) | workflow
    for pin in pins:
        assert re.search(rf"^{re.escape(pin)}( ;.*)? \\$", LOCK, re.MULTILINE), pin
