"""Fingerprints of the sources and tools a result depends on: the workflow's rerun triggers."""

import hashlib
import importlib.metadata
from collections.abc import Iterable
from pathlib import Path

_PACKAGE = Path(__file__).parent
_ROOT = _PACKAGE.parents[1]


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


def package(*names: str) -> str:
    """`digest` of modules and subpackages of mcuforge, by their path without ``.py``."""
    paths = (_PACKAGE / name for name in names)
    return digest(path if path.is_dir() else path.with_suffix(".py") for path in paths)


def step(name: str, *modules: str) -> str:
    """What decides how a workflow step does its work: its script, and modules of mcuforge."""
    return f"{digest([_ROOT / 'scripts' / f'{name}.py'])} {package(*modules)}"


def compiler() -> str:
    """What decides the bytes of an MLF archive, apart from model, target and level."""
    sources = package(
        "target", "isa", "exact", "tir", "operators", "kernels", "formats", "passes", "codegen",
        "executors", "mlf", "compiler", "files", "schema", "schemas",
    )  # fmt: skip
    return f"{sources} tvm {importlib.metadata.version('apache-tvm')}"


def firmware() -> str:
    """What decides the bytes of a firmware, apart from MLF, board and toolchain."""
    return package("firmware", "device")
