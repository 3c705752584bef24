"""What others reach: instructions of other runtimes on the same emulated machines, from a CSV file.

Its columns are those of `COLUMNS`, others are ignored: one row a runtime, core, compiler and model.
"""

from pathlib import Path

import pandas as pd

from mcuforge.errors import ConfigError

COLUMNS = ["runtime", "cpu", "compiler", "model", "instructions", "arena_bytes"]
CMSIS_NN = "TFLM+CMSIS-NN"


def read(path: Path, runtime: str = CMSIS_NN) -> pd.DataFrame:
    """One runtime at its best, whatever the compiler.

    Returns:
        a frame indexed by core and model with the columns `compiler`, `instructions` (of one
        inference) and `arena_bytes`.

    Raises:
        ConfigError: the file is no such table, or has nothing of the runtime.
    """
    try:
        rows = pd.read_csv(path)[COLUMNS]
        rows = rows[rows["runtime"] == runtime].dropna(subset=["instructions"])
        rows = rows.astype({"instructions": "int64", "arena_bytes": "Int64"})
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"reference {path} cannot be read: {error}", f"its columns: {', '.join(COLUMNS)}"
        ) from error
    if rows.empty:
        raise ConfigError(f"reference {path} has no rows of the runtime {runtime}")
    best = rows.loc[rows.groupby(["cpu", "model"])["instructions"].idxmin()]
    return best.set_index(["cpu", "model"])[["compiler", "instructions", "arena_bytes"]]
