"""Fingerprints of the sources and packages a result depends on: the workflow's rerun triggers."""

import hashlib
import importlib.metadata
from collections.abc import Iterable
from pathlib import Path

_PACKAGE = Path(__file__).parent
_ROOT = _PACKAGE.parents[1]

# For each step, by the name of its script, what of mcuforge decides the bytes it makes: modules,
# rooms and files, relative to the package. What only decides an input of the step is not here: the
# input changes, and that is enough. Nor is what reports and refuses, as errors and schemas do. A
# test compares this with what the scripts import.
DECIDES: dict[str, tuple[str, ...]] = {
    "fetch_model": (),  # the checksum does
    "fetch_data_set": ("models/datasets",),
    "make_vectors": ("formats", "models/vectors"),
    "compile_model": (
        "compiler",
        "codegen",
        "exact",
        "executors",
        "files",
        "formats",
        "isa",
        "kernels",
        "mlf",
        "operators",
        "passes",
        "schema",
        "schemas/mlf.schema.yaml",
        "target",
        "tir",
    ),
    "check_model": ("check", "comparison"),
    "build_firmware": (
        "device",
        "firmware",
        "results/columns",
        "results/records",
        "target",
        "toolchains",
    ),
    "measure": (
        "boards",
        "comparison",
        "cycles",
        "models/datasets",
        "results/columns",
        "results/records",
        "runner",
    ),
    "operator_cycles": ("results/columns", "results/operator_cycles"),
    "operator_profile": ("results/columns", "results/figures", "results/profile"),
    "summary": ("results/columns", "results/records", "results/summary"),
    "tables": ("results/tables",),
    "calibration": ("results/tables",),
    "model_figures": ("results/figures",),
    "board_figure": ("results/figures",),
    "performance": ("results",),
}
# The Python packages that decide it too.
_PACKAGES = {"compile_model": ("apache-tvm",), "make_vectors": ("ai-edge-litert",)}


def digest(paths: Iterable[Path]) -> str:
    """16 hex digits that change when a file, or a file in a directory, of `paths` changes.

    Contents and names relative to the given path count; times, and caches of the Python
    interpreter, do not. A path that does not exist counts as empty.
    """
    total = hashlib.sha256()
    for path in paths:
        below = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in below:
            if file.is_file() and "__pycache__" not in file.parts:
                total.update(f"{path.name}/{file.relative_to(path)}\0".encode())
                total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()[:16]


def paths(step: str) -> list[Path]:
    """The modules, rooms and files of mcuforge that decide what a step makes."""
    found = (_PACKAGE / name for name in DECIDES[step])
    return [path if path.exists() else path.with_suffix(".py") for path in found]


def step(name: str) -> str:
    """What decides the bytes a workflow step makes, apart from its inputs and parameters."""
    return f"{digest([_ROOT / 'scripts' / f'{name}.py'])} {_sources(name)}"


def compiler() -> str:
    """What decides the bytes of an MLF archive, apart from model, target and level."""
    return _sources("compile_model")


def _sources(name: str) -> str:
    versions = (f"{p} {importlib.metadata.version(p)}" for p in _PACKAGES.get(name, ()))
    return " ".join([digest(paths(name)), *versions])
