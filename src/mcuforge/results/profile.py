"""The profile of a cell: what each operator of a compiled model costs."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mcuforge import mlf
from mcuforge.errors import McuforgeError
from mcuforge.results.columns import Measurement, Operator
from mcuforge.results.records import columns, gather, pandas_types

COLUMNS = list(columns(Operator))


def table(
    record: Measurement, whole: Measurement, operators: Sequence[mlf.Operator]
) -> pd.DataFrame:
    """One row an operator, in the order they run.

    Args:
        record: of mode ``profile``.
        whole: of mode ``performance``, of the same cell.
        operators: of the compiled model.

    Returns:
        a frame with `COLUMNS`: `shape` of the result; `macs` as the model states them, missing
        where an operator of the model has no counterpart; `count` in instructions, or cycles on
        hardware; `share` of all operators; `per_mac` for each of `macs_executed`; `inference`, the
        count of a whole inference without profiling. No rows if the firmware does not fit.
    """
    total = sum(record.operators)
    inference = whole.instructions
    if whole.latency_us is not None and whole.timebase == "hardware":
        inference = round(whole.latency_us * whole.clock_hz / 1e6)
    rows = [
        gather(Operator, archive=operator)
        | {
            "index": index,
            "shape": "x".join(map(str, operator.shape)),
            "timebase": record.timebase,
            "count": count,
            "share": count / total if total else None,
            "per_mac": count / operator.macs if operator.macs else None,
            "inference": inference,
        }
        for index, (operator, count) in enumerate(
            zip(operators, record.operators, strict=bool(record.operators))
        )
    ]
    return pd.DataFrame(rows, columns=COLUMNS).astype(pandas_types(Operator))


def read(path: Path) -> pd.DataFrame:
    """The rows of a profile's file."""
    try:
        return pd.read_csv(path).astype(pandas_types(Operator))
    except (ValueError, KeyError) as error:
        raise McuforgeError(
            f"{path} is not a profile: {error}", "delete it and run again"
        ) from error
