"""The path of every artifact, once: rules, their input functions and messages go by this table.

A path is a pattern with Snakemake's wildcards. ``Artifact.ARCHIVE.format(model="kws",
target="cortex-m7-c", opt_level=3)`` is ``results/mlf/kws/cortex-m7-c/O3.tar``.
"""

import re
from collections.abc import Callable, Mapping
from enum import StrEnum

_CELL = "{model}/{board}/{toolchain}/O{opt_level}"


class Artifact(StrEnum):
    """What the workflow makes, and where it lies."""

    MODEL = "results/models/{model}.tflite"
    VECTORS = "results/models/{model}.vectors.npz"
    DATA_SET = "results/datasets/{dataset}.zip"
    ARCHIVE = "results/mlf/{model}/{target}/O{opt_level}.tar"
    CHECK = "results/mlf/{model}/{target}/O{opt_level}.check.txt"
    FIRMWARE = f"results/firmware/{_CELL}/firmware.elf"
    SIZE = f"results/firmware/{_CELL}/size.json"
    PROFILE_FIRMWARE = f"results/firmware/{_CELL}/profile.elf"
    PROFILE_SIZE = f"results/firmware/{_CELL}/profile.json"
    MEASUREMENT = f"results/bench/{_CELL}/{{mode}}.json"
    SUMMARY = "results/summary.csv"
    LEVELS_TABLE = "results/tables/levels.csv"
    BOARDS_TABLE = "results/tables/boards.csv"
    CALIBRATION_TABLE = "results/tables/calibration.csv"
    LEVELS_FIGURE = "results/figures/{model}.levels.svg"
    MEMORY_FIGURE = "results/figures/{model}.memory.svg"
    BOARDS_FIGURE = "results/figures/boards.svg"
    PROFILE_TABLE = f"results/profile/{_CELL}.csv"
    PROFILE_FIGURE = f"results/profile/{_CELL}.svg"
    CYCLES_TABLE = f"results/cycles/{_CELL}.csv"
    PERFORMANCE = "docs/performance.md"
    PERFORMANCE_RATIOS = "docs/performance/ratios.svg"
    PERFORMANCE_LEVELS = "docs/performance/levels.svg"
    PERFORMANCE_OPERATORS = "docs/performance/operators.svg"
    ZEPHYR_WORKSPACE = "zephyr-workspace/manifest/west.yml"

    @property
    def log(self) -> str:
        """Where the step that makes it says what it did: the same place below ``results/logs``."""
        stem, _, _ = self.removeprefix("results/").rpartition(".")
        return f"results/logs/{stem}.log"

    @property
    def area(self) -> str:
        """The directory of all artifacts of its kind, as in ``results/bench``."""
        return "/".join(self.split("/")[:2])


def read(path: str) -> list[tuple[Artifact, dict[str, str]]]:
    """The artifacts that a path looks like, each with the values of its wildcards."""
    expressions = [
        (artifact, _expression(artifact, lambda wildcard: f"(?P<{wildcard}>[^/]+)"))
        for artifact in Artifact
    ]
    found = [(artifact, re.fullmatch(expression, path)) for artifact, expression in expressions]
    return [(artifact, match.groupdict()) for artifact, match in found if match]


def impossible(constraints: Mapping[str, str]) -> str:
    """A regular expression for paths that lie where artifacts do, and are none.

    Args:
        constraints: a regular expression for each wildcard.
    """
    valid = [
        _expression(artifact, lambda wildcard: f"({constraints[wildcard]})")
        for artifact in Artifact
    ]
    areas = dict.fromkeys(re.escape(artifact.area) for artifact in Artifact if "{" in artifact)
    return rf"(?!({'|'.join(valid)})$)({'|'.join(areas)})/.+"


def _expression(artifact: Artifact, pattern: Callable[[str], str]) -> str:
    """A regular expression for the paths of an artifact.

    Args:
        pattern: the expression for a wildcard, by its name.
    """
    return re.sub(r"\\{(\w+)\\}", lambda found: pattern(found[1]), re.escape(artifact))
