"""The records a measurement leaves: what a firmware needs, and what it did."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Self

from mcuforge import files, schema
from mcuforge.errors import ConfigError

SCHEMA_VERSION = 1
# MLPerf Tiny's modes, as far as they can be measured, and our own.
MODES = ("setup", "performance", "accuracy", "profile")
NO_ENERGY = (
    "energy takes a power monitor (LPM01A, JS220), an interface board on the device's serial port "
    "and time pin, and MLCommons' own runner; see docs/protocol.md"
)


class _Record:
    """JSON that fits a schema, in both directions; written completely or not at all."""

    SCHEMA: ClassVar[str]

    def to_json(self) -> str:
        """The record as JSON text; ConfigError if it does not fit its schema."""
        document = {"schema": SCHEMA_VERSION, **asdict(self)}  # type: ignore[call-overload]
        document = json.loads(json.dumps(document, allow_nan=False))
        schema.check(document, self.SCHEMA, f"{type(self).__name__} record")
        return json.dumps(document, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str = "record") -> Self:
        """Read what ``to_json`` wrote; ConfigError naming `source` if it is anything else."""
        try:
            document: Any = json.loads(text)
        except ValueError as error:
            raise ConfigError(
                f"{source} is not JSON: {error}", "delete it and run again"
            ) from error
        schema.check(document, cls.SCHEMA, source)
        names = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        return cls(**{key: value for key, value in document.items() if key in names})

    def write(self, path: Path) -> None:
        """Write the record to `path` atomically."""
        files.write(path, self.to_json())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a record file; ConfigError if it is missing or does not fit its schema."""
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read {path}: {error}") from error
        return cls.from_json(text, str(path))


@dataclass(frozen=True)
class Size(_Record):
    """What a firmware needs of its board's memories; all in bytes. See size.schema.yaml."""

    SCHEMA: ClassVar[str] = "size"

    model: str
    board: str
    toolchain: str
    toolchain_version: str
    opt_level: int
    build_id: str
    flash_bytes: int
    ram_bytes: int
    code_bytes: int
    weights_bytes: int
    workspace_bytes: int
    stack_reserved_bytes: int
    stack_bound_bytes: int | None
    sections: dict[str, int]
    fits: bool
    missing: dict[str, int]


@dataclass(frozen=True)
class Measurement(_Record):
    """One measurement of one firmware on one board. See measurement.schema.yaml."""

    SCHEMA: ClassVar[str] = "measurement"

    status: str
    model: str
    board: str
    platform: str
    core: str
    toolchain: str
    toolchain_version: str
    opt_level: int
    mode: str
    timebase: str
    clock_hz: int
    macs: int
    macs_executed: int
    flash_bytes: int
    code_bytes: int
    weights_bytes: int
    ram_bytes: int
    workspace_bytes: int
    missing: dict[str, int]
    build_id: str
    versions: dict[str, str]
    started: str
    duration_s: float
    executor: str = "aot"
    board_instance: str | None = None
    instructions: int | None = None
    latency_us: float | None = None
    inferences_per_second: float | None = None
    laps: list[dict[str, Any]] = field(default_factory=list)
    operators: list[int] = field(default_factory=list)
    inputs_sha256: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    exact: bool | None = None
    max_abs_error: float | None = None
    accuracy: float | None = None
    dataset_sha256: str | None = None
    predictions: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    quality_target: float | None = None
    valid: bool | None = None
    stack_bytes: int | None = None
