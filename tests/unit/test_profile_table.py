"""A profile's table and figure, from records."""

import dataclasses
from pathlib import Path

import pandas as pd
import pytest
from test_results import record, unfit, words

from mcuforge import mlf
from mcuforge.errors import McuforgeError
from mcuforge.results import figures, profile, summary

OPERATORS = [
    mlf.Operator("f", "conv2d", (1, 8, 8, 4), 1000, 2000, "dense"),
    mlf.Operator("f", "softmax", (1, 4), macs=0, macs_nominal=0),
    mlf.Operator("f", "fully_connected", (1, 4), 100, None, "dense"),
]


def profiled(board: str = "mps2_an500") -> pd.DataFrame:
    whole = record(board, 4)
    return profile.table(
        dataclasses.replace(whole, mode="profile", operators=[600, 100, 300]), whole, OPERATORS
    )


def test_a_row_says_what_an_operator_costs() -> None:
    rows = profiled()
    assert list(rows.columns) == profile.COLUMNS
    assert rows["shape"].tolist() == ["1x8x8x4", "1x4", "1x4"]
    assert rows["share"].tolist() == [0.6, 0.1, 0.3]
    assert rows["per_mac"].tolist() == [0.6, pytest.approx(float("nan"), nan_ok=True), 3.0]
    assert rows["macs"].isna().tolist() == [False, False, True]
    assert rows["inference"].tolist() == [1_000_000] * 3


def test_hardware_counts_cycles() -> None:
    rows = profiled("ek_ra8m1")
    assert set(rows["timebase"]) == {"hardware"}
    assert rows["inference"].tolist() == [1_000_000] * 3


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    summary.write(profiled(), tmp_path / "O3.csv")
    pd.testing.assert_frame_equal(profile.read(tmp_path / "O3.csv"), profiled())
    (tmp_path / "O3.csv").write_text("a,b\n1,2\n")
    with pytest.raises(McuforgeError, match=r"O3\.csv is not a profile"):
        profile.read(tmp_path / "O3.csv")


@pytest.mark.parametrize(
    ("rows", "texts"),
    [
        (profiled(), {"0 conv2d 1x8x8x4", "60.0%, 0.6 per MAC", "instructions, thousands"}),
        (profiled("ek_ra8m1"), {"cycles, thousands"}),
        (profile.table(unfit(mode="profile"), unfit(), OPERATORS), {"does not fit"}),
    ],
)
def test_the_figure_says_what_it_shows(rows, texts: set[str], tmp_path: Path) -> None:
    figures.profile(rows, "a cell", tmp_path / "O3.svg")
    assert {"a cell", *texts} <= set(words((tmp_path / "O3.svg").read_text()))
