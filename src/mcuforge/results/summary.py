"""The summary: one row a cell, from its measurements."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from mcuforge import files
from mcuforge.errors import McuforgeError
from mcuforge.results.columns import Measurement, Row
from mcuforge.results.records import columns, pandas_types

CELL = ["model", "board", "toolchain", "opt_level"]
COLUMNS = list(columns(Row))
# Whose timing a row shows when a cell was measured in several modes.
_MODES = ("performance", "setup", "accuracy", "profile", "cycles")
# What other modes add to it.
_ADDED = {
    "accuracy": ("accuracy", "valid"),
    "cycles": [name for name in COLUMNS if "cycles_" in name or "_modelled_" in name],
}


def collect(measurements: Iterable[Path]) -> pd.DataFrame:
    """The rows of the given measurements, in their order, one a cell.

    Args:
        measurements: records; those of one cell in several modes become one row, the accuracy
            from accuracy mode, modelled cycles from cycles mode, the rest from performance mode if
            there is one.

    Returns:
        a frame with `COLUMNS`; what was not measured is missing.
    """
    cells: dict[tuple[object, ...], dict[str, Measurement]] = {}
    for path in measurements:
        record = Measurement.read(path)
        key = tuple(getattr(record, name) for name in CELL)
        cells.setdefault(key, {})[record.mode] = record
    rows = []
    for modes in cells.values():
        record = next(modes[mode] for mode in _MODES if mode in modes)
        row = {name: getattr(record, name) for name in COLUMNS}
        for mode, names in _ADDED.items():
            row |= {name: getattr(modes.get(mode), name, None) for name in names}
        rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS).astype(pandas_types(Row))


def read(path: Path) -> pd.DataFrame:
    """The rows of a summary file."""
    try:
        return pd.read_csv(path).astype(pandas_types(Row))
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
