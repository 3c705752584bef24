"""Models the compiler's tests share: each is compiled once for a target and level."""

import io
from pathlib import Path

import numpy as np
import pytest

from helpers.fixtures import Compile, Expect, Find
from mcuforge.compiler import compile_model
from mcuforge.errors import ModelError
from mcuforge.formats.tflite.describe import describe
from mcuforge.formats.tflite.oracle import evaluate
from mcuforge.models import fetch, registry, vectors
from mcuforge.target import Target

ROOT = Path(__file__).parents[2]
SHARED_MODELS = ROOT.parent / "shared" / "data" / "models"


@pytest.fixture(scope="session")
def find_model(tmp_path_factory: pytest.TempPathFactory) -> Find:
    """Path of a model: one of the optional ``../shared`` folder, or one of the registry."""
    found: dict[str, Path | str] = {}

    def find(name: str) -> Path:
        if name not in found:
            found[name] = _locate(name, tmp_path_factory)
        if isinstance(found[name], str):
            pytest.skip(found[name])
        return found[name]

    return find


def _locate(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path | str:
    shared = SHARED_MODELS / f"{name}.tflite"
    if shared.is_file():
        return shared
    models = registry.load(ROOT / "config" / "models.yaml")
    if name not in models:
        return f"{shared} is not there"
    path = tmp_path_factory.mktemp("models") / f"{name}.tflite"
    try:
        fetch.fetch(models[name], path, root=ROOT, progress=io.StringIO())
    except ModelError as error:
        return error.message
    return path


@pytest.fixture(scope="session")
def compiled(find_model: Find, tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """Path of the archive of a model, given its name, a target's name and an opt_level."""
    directory = tmp_path_factory.mktemp("compiled")

    def compile_once(name: str, target: str, opt_level: int) -> Path:
        model = find_model(name)
        path = directory / f"{name}-{target}-O{opt_level}.tar"
        if not path.exists():
            compile_model(model, name, Target.parse(target), opt_level, path)
        return path

    return compile_once


@pytest.fixture(scope="session")
def expected(find_model: Find) -> Expect:
    """50 random and five corner inputs of a model, and what LiteRT answers: raw bytes."""
    known: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def expect(name: str) -> tuple[np.ndarray, np.ndarray]:
        if name not in known:
            content = find_model(name).read_bytes()
            description = describe(content, name)
            random, corners = (
                vectors.random_inputs(description, 50),
                vectors.corner_inputs(description),
            )
            inputs = np.concatenate([corners, random])
            known[name] = inputs, evaluate(content, inputs)
        return known[name]

    return expect
