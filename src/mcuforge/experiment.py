"""The experiment that ``config/config.yaml`` describes: which cells, and what each depends on."""

import dataclasses
import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mcuforge import artifacts, boards, schema, toolchains
from mcuforge.artifacts import Artifact
from mcuforge.cycles import cores
from mcuforge.errors import ConfigError, ModelError, known
from mcuforge.models import datasets, registry
from mcuforge.models.registry import DataSetEntry
from mcuforge.results.columns import MODES, NO_ENERGY
from mcuforge.target import Target
from mcuforge.toolchains import TOOLCHAINS

OPT_LEVELS = (0, 1, 2, 3, 4)
# Keys of a board that its firmware does not depend on: how it is flashed, and where it runs.
_NOT_BUILT_IN = (
    "toolchains",
    "runners",
    "flash_origin",
    "flash_args",
    "usb",
    "machine",
    "zephyr_modules",
    "timing",
)
_RUN_FACTS = ("machine", "clock_hz", "timing")


@dataclass(frozen=True)
class Cell:
    """One row of the summary."""

    model: str
    board: str
    toolchain: str
    opt_level: int

    def __str__(self) -> str:
        return f"{self.model}/{self.board}/{self.toolchain}/O{self.opt_level}"


class Experiment:
    """The validated configuration, with its registries.

    Args:
        config: content of the configuration file, overlays applied.
        root: what the paths in it are relative to.

    Raises:
        ConfigError: something does not fit, on one line.
    """

    def __init__(self, config: dict[str, Any], root: Path = Path()) -> None:
        config = _numbers(config)
        if "energy" in (config.get("modes") or ()):
            raise ConfigError("configuration: mode 'energy' cannot be measured", NO_ENERGY)
        schema.check(config, "config", "configuration")
        self.config = config
        paths = {key: root / path for key, path in config["registries"].items()}
        self.models = registry.load(paths["models"])
        self.inventory = boards.load(paths["boards"], paths.get("hardware_map"))
        self._root = root
        for name in config["models"]:
            known("model", name, self.models, "configuration")
        for name in config["toolchains"]:
            known("toolchain", name, TOOLCHAINS, "configuration")
        for name in config["modes"]:
            known("mode", name, MODES, "configuration")
        for name in config["boards"]:
            board = known("board", name, self.inventory.types, "configuration")
            if not set(self.inventory.board(board).toolchains) & set(config["toolchains"]):
                raise ConfigError(
                    f"configuration: no toolchain of {config['toolchains']} builds for {board}",
                    f"add one of {', '.join(self.inventory.board(board).toolchains)}",
                )

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell of the grid; toolchains that do not know a board's core are left out.

        Also where only the installed version does not: `notes` says so.
        """
        grid = itertools.product(
            self.config["models"],
            self.config["boards"],
            self.config["toolchains"],
            self.config["opt_levels"],
        )
        types = self.inventory.types
        return tuple(
            Cell(*cell)
            for cell in grid
            if cell[2] in types[cell[1]].toolchains and cell[1:3] not in self._unknown_cores
        )

    @cached_property
    def _unknown_cores(self) -> tuple[tuple[str, str], ...]:
        """Board and toolchain where the installed one is too old, and there is another."""
        found: list[tuple[str, str]] = []
        for name in self.config["boards"]:
            board = self.inventory.types[name]
            used = [t for t in self.config["toolchains"] if t in board.toolchains]
            able = [
                t for t in used if t in board.zephyr_variants or toolchains.knows(t, board.core)
            ]
            found += [(name, t) for t in used if able and t not in able]
        return tuple(found)

    @cached_property
    def results(self) -> tuple[tuple[Cell, str], ...]:
        """Every measurement of the grid: a cell and a mode.

        Accuracy is measured where the model's data set is there, cycles are modelled where core and
        memory are described; `notes` says what is left out.
        """
        left_out = {
            "accuracy": lambda cell: not self._has_data_set(cell.model),
            "cycles": lambda cell: cell.board in self._unmodelled,
        }
        return tuple(
            (cell, mode)
            for cell in self.cells
            for mode in self.config["modes"]
            if mode not in left_out or not left_out[mode](cell)
        )

    @cached_property
    def _unmodelled(self) -> list[str]:
        """Boards of the grid whose core or memory has no description for modelled cycles."""
        types = {name: self.inventory.types[name] for name in self.config["boards"]}
        return [
            name
            for name, board in types.items()
            if board.timing is None or Target(board.core).core not in cores.CORES
        ]

    @property
    def notes(self) -> list[str]:
        """What the configuration asks for and does not get."""
        notes = [
            f"the installed {name} cannot compile for {self.inventory.board(board).core}: {board} "
            "goes without"
            for board, name in self._unknown_cores
        ]
        if "cycles" in self.config["modes"]:
            notes += [
                f"cycles of {name} are not modelled: its core or its memory is not described"
                for name in self._unmodelled
            ]
        if "accuracy" not in self.config["modes"]:
            return notes
        for model in self.config["models"]:
            data_set = self.models[model].dataset
            if data_set is None:
                notes.append(f"{model} has no data set: its accuracy is not measured")
            elif not self._has_data_set(model):
                notes.append(
                    f"no data set {data_set.name} here: the accuracy of {model} is not measured "
                    f"({_how_to_get(data_set)})"
                )
        return notes

    @property
    def datasets(self) -> dict[str, DataSetEntry]:
        """Data sets of the registered models, by name."""
        return {m.dataset.name: m.dataset for m in self.models.values() if m.dataset}

    def data_set_file(self, model: str) -> str:
        """The artifact with the data set of `model`; ConfigError if it has none."""
        data_set = self.models[model].dataset
        if data_set is None:
            raise ConfigError(
                f"{model} has no data set, its accuracy cannot be measured",
                "name one with its key dataset in the model registry",
            )
        return Artifact.DATA_SET.format(dataset=data_set.name)

    def data_set_content(self, name: str) -> str:
        """What decides the bytes of a data set: its sha256, or that of what is found here."""
        entry = self.datasets[name]
        if entry.sha256:
            return entry.sha256
        place = datasets.local(entry, self._root)
        try:
            return datasets.DataSet(place).sha256() if place else ""
        except ModelError as error:
            return str(error)  # fetching it says so, if it comes to that

    def _has_data_set(self, model: str) -> bool:
        """Whether the data set of `model` is on this machine: grids download none."""
        entry = self.models[model].dataset
        return entry is not None and (
            datasets.local(entry, self._root) is not None
            or (self._root / self.data_set_file(model)).is_file()
        )

    def target(self, board: str, toolchain: str) -> str:
        """The compilation target of a board built with a toolchain."""
        return self.inventory.board(board).target(toolchain)

    @cached_property
    def targets(self) -> tuple[str, ...]:
        """Every compilation target of the known boards."""
        types = self.inventory.types.values()
        return tuple(dict.fromkeys(b.target(t) for b in types for t in b.toolchains))

    @property
    def physical_boards(self) -> tuple[str, ...]:
        """Board types that are hardware."""
        return tuple(n for n, board in self.inventory.types.items() if not board.emulated)

    @property
    def zephyr_modules(self) -> tuple[str, ...]:
        """Modules of Zephyr the known boards need."""
        modules = itertools.chain(*(b.zephyr_modules for b in self.inventory.types.values()))
        return tuple(dict.fromkeys(modules))

    def build_facts(self, board: str) -> dict[str, Any]:
        """What of a board decides the bytes of its firmware."""
        facts = dataclasses.asdict(self.inventory.board(board))
        return {key: value for key, value in facts.items() if key not in _NOT_BUILT_IN}

    def run_facts(self, board: str) -> dict[str, Any]:
        """What of a board decides a measurement, its firmware given."""
        facts = dataclasses.asdict(self.inventory.board(board))
        return {key: facts[key] for key in _RUN_FACTS}

    @cached_property
    def names(self) -> dict[str, tuple[str, ...]]:
        """What each wildcard of a path may be: whatever is registered, nothing else."""
        return {
            "model": tuple(self.models),
            "board": tuple(self.inventory.types),
            "target": self.targets,
            "toolchain": tuple(TOOLCHAINS),
            "opt_level": tuple(map(str, OPT_LEVELS)),
            "mode": MODES,
            "dataset": tuple(self.datasets),
        }

    def constraints(self) -> dict[str, str]:
        """Regular expressions for the wildcards of paths, and for paths that cannot be."""
        constraints = {wildcard: _either(names) for wildcard, names in self.names.items()}
        return constraints | {"impossible": artifacts.impossible(constraints)}

    def explain(self, path: str) -> ConfigError:
        """What is wrong with an impossible path, and what would be right."""
        for _, wildcards in artifacts.read(path):
            for kind, name in wildcards.items():
                if name not in self.names[kind]:
                    valid = f"valid {kind}s: {', '.join(self.names[kind])}"
                    if (kind, name) == ("mode", "energy"):
                        valid += "; " + NO_ENERGY
                    return ConfigError(f"{path}: unknown {kind} '{name}'", valid)
        similar = next(artifact for artifact in Artifact if path.startswith(f"{artifact.area}/"))
        return ConfigError(f"{path} is nothing mcuforge makes", f"as in {similar}")


def _either(names: Iterable[str]) -> str:
    return "|".join(map(re.escape, names)) or "(?!)"


def _how_to_get(entry: DataSetEntry) -> str:
    mine = f"put it into {entry.name} of the directory {datasets.DIRECTORIES} names"
    if any(source.kind == "url" for source in entry.sources):
        path = Artifact.DATA_SET.format(dataset=entry.name)
        return f"`snakemake --cores 1 {path}` gets it, or {mine}"
    return mine


def _numbers(value: Any) -> Any:
    """The value with texts of digits as numbers: Snakemake's ``--config`` makes texts of them."""
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return int(value) if isinstance(value, str) and value.isdecimal() else value
