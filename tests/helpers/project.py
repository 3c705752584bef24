"""A working copy of the repository with a grid of two small models, and Snakemake in it."""

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PARTS = ("config", "envs", "profiles", "scripts", "src", "workflow")
GRID = {
    "models": ["tiny", "other"],
    "boards": ["mps2_an500", "mps3_an547"],
    "opt_levels": [1, 3],
    "toolchains": ["gcc"],
    "modes": ["performance"],
}


@dataclass(frozen=True)
class Project:
    """A working copy that tests may change, and Snakemake in it."""

    path: Path

    def command(self, *arguments: str, cores: int = 2) -> list[str]:
        return [sys.executable, "-m", "snakemake", "--cores", str(cores), *arguments]

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"PYTHONPATH": str(self.path / "src")}

    def snakemake(self, *arguments: str, timeout: int = 300, **environment: str):
        """Run Snakemake in the project; its output, both streams, is in `stdout`."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.path,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )

    def run(self, *arguments: str, **options) -> str:
        """As `snakemake`, which must succeed."""
        done = self.snakemake(*arguments, **options)
        assert done.returncode == 0, done.stdout[-5000:]
        return done.stdout

    def plan(self, *arguments: str) -> dict[str, int]:
        """How many jobs of each rule a run would execute."""
        output = self.run("-n", *arguments)
        if "Nothing to be done" in output:
            return {}
        table = output.split("Job stats:")[-1].strip().split("\n\n")[0]
        rows = [line.split() for line in table.splitlines()[2:]]
        return {rule: int(count) for rule, count in rows if rule != "total"}

    def edit(self, file: str, old: str = "", new: str = "\n") -> None:
        """Replace `old` in a file, or append `new`."""
        path = self.path / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1) if old else text + new)

    def configure(self, **changes) -> None:
        path = self.path / "config" / "config.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))

    def register(self, name: str, content: bytes, sha256: str = "") -> None:
        """Add a model to the registry, as a file beside it."""
        (self.path / f"{name}.tflite").write_bytes(content)
        path = self.path / "config" / "models.yaml"
        document = yaml.safe_load(path.read_text())
        document["models"][name] = {
            "title": f"The model {name}",
            "task": "test",
            "sha256": sha256 or hashlib.sha256(content).hexdigest(),
            "sources": [{"path": f"{name}.tflite"}],
        }
        path.write_text(yaml.safe_dump(document, sort_keys=False))

    def copy(self, path: Path) -> "Project":
        shutil.copytree(self.path, path, symlinks=True)
        return Project(path)
