"""Tables in the style of the 2025 study: levels with their change, boards side by side."""

import pandas as pd

from mcuforge.results import summary

_SPEED = "inferences_per_second"
_CALIBRATED = [
    *summary.CELL, "build_id", "cycles_model", "cycles_memory", "latency_us", "latency_modelled_us",
    "cycles_error_percent",
]  # fmt: skip
_KEYS = ["model", "board", "toolchain", "timebase"]


def levels(rows: pd.DataFrame) -> pd.DataFrame:
    """Inferences a second at each level, and the change to the previous level in percent.

    One row for each model, board and toolchain; columns ``O1``, ``O2``, ``O2_change_percent``...
    Of an emulated board a second is 10^9 instructions, as `timebase` says.
    """
    speed = rows[rows[_SPEED].notna()].pivot(index=_KEYS, columns="opt_level", values=_SPEED)
    speed = speed.reindex(pd.MultiIndex.from_frame(rows[_KEYS].drop_duplicates()))
    speed = speed.loc[speed.notna().any(axis=1)]
    change = (speed.pct_change(axis="columns", fill_method=None) * 100).round(1) + 0.0  # no -0
    table = pd.DataFrame(index=speed.index)
    for position, level in enumerate(speed.columns):
        table[f"O{level}"] = speed[level]
        if position:
            table[f"O{level}_change_percent"] = change[level]
    return table.reset_index()


def boards(rows: pd.DataFrame) -> pd.DataFrame:
    """The best of each board side by side, in inferences a second; wrong answers do not count.

    One row for each model and timebase, so that emulated and measured time do not mix; for each
    board its speed and the toolchain and level that reach it.
    """
    right = summary.sound(rows)
    right = right[right[_SPEED].notna()]
    best = right.loc[right.groupby(["model", "board", "timebase"], sort=False)[_SPEED].idxmax()]
    table = best[["model", "timebase"]].drop_duplicates().reset_index(drop=True)
    for board in best["board"].unique():
        of_board = best[best["board"] == board]
        label = of_board["toolchain"] + " O" + of_board["opt_level"].astype(str)
        columns = of_board[["model", "timebase"]].assign(
            **{board: of_board[_SPEED], f"{board}_with": label}
        )
        table = table.merge(columns, on=["model", "timebase"], how="left")
    return table


def calibration(rows: pd.DataFrame) -> pd.DataFrame:
    """Modelled time beside measured time, of the cells of hardware that have both.

    `error_percent` is what the model says too much; `as_expected`, whether the error is within the
    one that the model states, missing where it states none.
    """
    both = rows[(rows["timebase"] == "hardware") & rows["latency_modelled_us"].notna()]
    both = both[both["latency_us"].notna()]
    error = (both["latency_modelled_us"] / both["latency_us"] - 1) * 100
    stated = both["cycles_error_percent"]
    expected = (error.abs() <= stated).astype("boolean").mask(stated.isna())
    return both[_CALIBRATED].assign(error_percent=error.round(2), as_expected=expected)
