"""Modelled cycles of each operator of a cell, by their cause."""

from collections.abc import Sequence
from types import SimpleNamespace

import pandas as pd

from mcuforge import mlf
from mcuforge.results.columns import Measurement, OperatorCycles
from mcuforge.results.records import columns, gather, pandas_types

COLUMNS = list(columns(OperatorCycles))


def table(record: Measurement, operators: Sequence[mlf.Operator]) -> pd.DataFrame:
    """One row an operator, in the order they run.

    Args:
        record: of mode ``cycles``.
        operators: of the compiled model.

    Returns:
        a frame with `COLUMNS`; `share` is of the whole inference, which holds what is between
        operators, too. No rows if the firmware does not fit.
    """
    rows = [
        gather(OperatorCycles, archive=operator, causes=SimpleNamespace(**causes))
        | {
            "index": index,
            "shape": "x".join(map(str, operator.shape)),
            "cycles_model": record.cycles_model,
            "share": causes["cycles"] / record.cycles_modelled if record.cycles_modelled else None,
            "per_mac": causes["cycles"] / operator.macs if operator.macs else None,
        }
        for index, (operator, causes) in enumerate(
            zip(operators, record.operator_causes, strict=bool(record.operator_causes))
        )
    ]
    return pd.DataFrame(rows, columns=COLUMNS).astype(pandas_types(OperatorCycles))
