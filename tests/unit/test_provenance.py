"""Whatever decides an artifact's bytes is in the fingerprint of the step that makes it."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import tiny
from mcuforge import provenance

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "mcuforge"
FILES = {
    path.relative_to(SOURCE).as_posix()
    for path in SOURCE.rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
}


def only_a_title(path: Path) -> bool:
    """Whether a module has nothing but its docstring."""
    return all(isinstance(statement, ast.Expr) for statement in ast.parse(path.read_bytes()).body)


# What no artifact's bytes depend on, whatever imports it: it reports, refuses, plans the grid, or
# handles files and processes. All that a plan passes to a step is a parameter of its rule.
DECIDES_NOTHING = {
    *("artifacts.py", "cli.py", "errors.py", "experiment.py", "jobs.py", "provenance.py"),
    *("files.py", "schema.py", "models/fetch.py", "models/registry.py"),
    *(name for name in FILES if name.endswith("__init__.py") and only_a_title(SOURCE / name)),
    *(name for name in FILES if name.startswith(("schemas/", "registries/"))),
    "__init__.py",
}
# What a step imports and another one answers for: it decides an input of the step.
COMPILES = ("exact/", "formats/", "mlf/", "operators/", "target.py", "tir/")
ELSEWHERE = {
    "check_model": (*COMPILES, "models/vectors.py"),
    "build_firmware": (
        *COMPILES,
        "boards/",  # a board's facts are a parameter
        "models/vectors.py",  # samples of standalone projects, which the workflow does not build
    ),
    "measure": ("mlf/", "target.py", "toolchains.py"),  # both are the firmware's
    "make_vectors": (
        "exact/",
        "operators/",
        "target.py",
        "tir/",
    ),  # for the import of models, not done here
    "operator_cycles": ("boards/", "mlf/", "results/"),
    "operator_profile": ("boards/", "mlf/", "results/"),
    "summary": ("boards/", "mlf/", "results/records.py"),
    "tables": ("boards/", "mlf/", "results/"),
    "calibration": ("boards/", "mlf/", "results/"),
    "model_figures": ("boards/", "mlf/", "results/"),
    "board_figure": ("boards/", "mlf/", "results/"),
    "performance": ("boards/", "mlf/", "target.py"),
}
STEPS = {path.stem for path in (ROOT / "scripts").glob("*.py")}
# Makes what is outside the workflow: Zephyr's sources, at a commit of its manifest.
UNTRACKED = {"zephyr_workspace"}


def covered(step: str) -> set[str]:
    """The files in a step's fingerprint, relative to the package."""
    found = set()
    for path in provenance.paths(step):
        assert path.exists(), f"{step}: {path} is not there"
        below = path.rglob("*") if path.is_dir() else [path]
        found |= {file.relative_to(SOURCE).as_posix() for file in below}
    return found & FILES


def imported(path: Path) -> Iterator[str]:
    """Modules of mcuforge that a file imports, anywhere in it, relative to the package."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            for end in range(2, len(parts) + 1) if parts[0] == "mcuforge" else ():
                stem = "/".join(parts[1:end])
                yield from {f"{stem}.py", f"{stem}/__init__.py"} & FILES


def reachable(script: Path) -> set[str]:
    """All modules a script can come to run, but not through those that decide nothing."""
    found: set[str] = set()
    todo = list(imported(script))
    while todo:
        name = todo.pop()
        if name not in found | DECIDES_NOTHING:
            found.add(name)
            todo += imported(SOURCE / name)
            if name in ("operators/__init__.py", "kernels/__init__.py"):  # import what is in them
                room = name.removesuffix("__init__.py")
                todo += (file for file in FILES if file.startswith(room) and file.endswith(".py"))
    return found


def test_every_step_has_a_fingerprint() -> None:
    assert set(provenance.DECIDES) == STEPS - UNTRACKED
    rules = "".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    for step in STEPS - UNTRACKED:
        assert f'provenance.step("{step}")' in rules


@pytest.mark.parametrize("step", sorted(STEPS - UNTRACKED))
def test_a_step_answers_for_all_it_runs(step: str) -> None:
    needed = reachable(ROOT / "scripts" / f"{step}.py")
    elsewhere = ELSEWHERE.get(step, ())
    missing = {name for name in needed - covered(step) if not name.startswith(elsewhere)}
    assert not missing, f"does it decide what {step} makes? then it belongs to provenance.DECIDES"


def test_every_file_of_the_package_is_in_a_fingerprint_or_decides_nothing() -> None:
    answered = set().union(*(covered(step) for step in provenance.DECIDES))
    assert FILES - answered - DECIDES_NOTHING == set()


_COMPILE = """
import sys
from pathlib import Path
from mcuforge.compiler import compile_model
from mcuforge.target import Target
compile_model(Path("tiny.tflite"), "tiny", Target.parse(sys.argv[1]), 4, Path("tiny.tar"))
print(*(m.__file__ for name, m in sys.modules.items() if name.split(".")[0] == "mcuforge"))
"""


@pytest.mark.parametrize("target", ["cortex-m7-c", "cortex-m55-llvm"])
def test_the_compiler_answers_for_every_module_that_compiling_loads(
    target: str, tmp_path: Path
) -> None:
    (tmp_path / "tiny.tflite").write_bytes(tiny.model())
    done = subprocess.run(
        [sys.executable, "-c", _COMPILE, target],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        check=True,
        capture_output=True,
        text=True,
    )
    loaded = {Path(file).relative_to(SOURCE).as_posix() for file in done.stdout.split()}
    assert "kernels/dsp/conv2d.py" in loaded
    assert loaded - covered("compile_model") <= {"__init__.py", "errors.py", "provenance.py"}
    assert loaded <= reachable(ROOT / "scripts" / "compile_model.py") | DECIDES_NOTHING


def test_digests_follow_content_and_names_only(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    file = tmp_path / "src" / "a.py"
    file.write_text("1")
    first = provenance.digest([tmp_path / "src"])
    file.touch()
    (tmp_path / "src" / "__pycache__").mkdir()
    (tmp_path / "src" / "__pycache__" / "a.pyc").write_text("x")
    assert provenance.digest([tmp_path / "src"]) == first
    file.write_text("2")
    assert provenance.digest([tmp_path / "src"]) != first
    file.write_text("1")
    file.rename(tmp_path / "src" / "b.py")
    assert provenance.digest([tmp_path / "src"]) != first
