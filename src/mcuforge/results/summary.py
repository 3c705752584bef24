"""The summary: one row a cell, from its measurements."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from mcuforge import files, mlf
from mcuforge.boards.inventory import TOOLCHAIN_CODEGEN
from mcuforge.errors import McuforgeError
from mcuforge.results.records import Measurement

CELL = ["model", "board", "toolchain", "opt_level"]
COLUMNS = [
    "model",
    "board",
    "platform",
    "core",
    "toolchain",
    "opt_level",
    "executor",
    "timebase",
    "instructions",
    "latency_us",
    "inferences_per_second",
    "macs",
    "macs_executed",
    "per_mac",
    "flash_bytes",
    "code_bytes",
    "weights_bytes",
    "model_weights_bytes",
    "ram_bytes",
    "workspace_bytes",
    "workspace_lower_bound_bytes",
    "stack_bytes",
    "exact",
    "max_abs_error",
    "accuracy",
    "quality_target",
    "valid",
    "status",
    "missing_flash_bytes",
    "missing_ram_bytes",
    "tvm_version",
    "toolchain_version",
    "emulator_version",
    "build_id",
]
_INTEGERS = [c for c in COLUMNS if c.endswith("_bytes") or c in ("instructions", "macs_executed")]
_FLAGS = ["exact", "valid"]
# Whose timing a row shows when a cell was measured in several modes.
_MODES = ("performance", "setup", "accuracy", "profile")


def collect(measurements: Iterable[Path], archives: Iterable[Path]) -> pd.DataFrame:
    """The rows of the given measurements, in their order, one a cell.

    Args:
        measurements: records; those of one cell in several modes become one row, the accuracy
            from accuracy mode, the timing from performance mode if there is one.
        archives: the compiled models they ran, for facts the records leave out.

    Returns:
        a frame with `COLUMNS`; what was not measured is missing.
    """
    infos = {}
    for path in archives:
        info = mlf.read(path).info
        infos[path.parts[-3], info.core, info.codegen, info.opt_level] = info
    cells: dict[tuple, dict[str, Measurement]] = {}
    for path in measurements:
        record = Measurement.read(path)
        key = record.model, record.board, record.toolchain, record.opt_level
        cells.setdefault(key, {})[record.mode] = record
    rows = []
    for modes in cells.values():
        record = next(modes[mode] for mode in _MODES if mode in modes)
        codegen = TOOLCHAIN_CODEGEN[record.toolchain]
        info = infos[record.model, record.core, codegen, record.opt_level]
        rows.append(_row(record, modes.get("accuracy"), info))
    return _typed(pd.DataFrame(rows, columns=COLUMNS))


def _row(record: Measurement, accuracy: Measurement | None, info: mlf.Info) -> dict:
    row = {column: getattr(record, column, None) for column in COLUMNS}
    row |= {column: getattr(accuracy, column, None) for column in ("accuracy", "valid")}
    work = record.instructions
    if record.timebase == "hardware" and record.latency_us is not None:
        work = record.latency_us * record.clock_hz / 1e6  # cycles
    return row | {
        "instructions": None if record.instructions is None else round(record.instructions),
        "per_mac": work / record.macs if work and record.macs else None,
        "workspace_lower_bound_bytes": info.workspace_lower_bound_bytes,
        "model_weights_bytes": info.model_weights_bytes,
        "missing_flash_bytes": record.missing["flash"],
        "missing_ram_bytes": record.missing["ram"],
        "tvm_version": record.versions["tvm"],
        "emulator_version": f"qemu {qemu}" if (qemu := record.versions.get("qemu")) else None,
    }


def _typed(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.astype(dict.fromkeys(_INTEGERS, "Int64") | dict.fromkeys(_FLAGS, "boolean"))


def read(path: Path) -> pd.DataFrame:
    """The rows of a summary file."""
    try:
        return _typed(pd.read_csv(path))
    except (ValueError, KeyError) as error:
        raise McuforgeError(
            f"{path} is not a summary: {error}", "delete it and run again"
        ) from error


def sound(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows worth comparing: they ran, answered right, and are not below a quality target."""
    return rows[(rows["status"] == "ok") & rows["valid"].fillna(True)]


def best(rows: pd.DataFrame) -> pd.DataFrame:
    """The row with the fewest instructions of each model on each emulated board.

    Of those worth comparing, and compiled by mcuforge: level 0 is plain TVM.
    """
    usable = sound(rows)
    usable = usable[usable["instructions"].notna() & (usable["opt_level"] > 0)]
    return usable.loc[usable.groupby(["board", "model"], sort=False)["instructions"].idxmin()]


def cells(rows: pd.DataFrame) -> list[str]:
    """The cells of rows, as in the paths of their artifacts: ``kws/mps2_an500/gcc/O3``."""
    return [f"{r.model}/{r.board}/{r.toolchain}/O{r.opt_level}" for r in rows.itertuples()]


def write(rows: pd.DataFrame, path: Path) -> None:
    """Write as CSV, atomically: true/false in lower case, missing values empty, no index."""
    words = {
        column: rows[column].astype("object").map({True: "true", False: "false"})
        for column in rows.select_dtypes("boolean").columns
    }
    rows = rows.assign(**words)
    files.write(path, rows.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
