"""Summary, tables and figures from records."""

import dataclasses
import re
from pathlib import Path
from typing import get_type_hints
from xml.etree import ElementTree

import pandas as pd
import pytest

from mcuforge import mlf
from mcuforge.errors import McuforgeError
from mcuforge.results import figures, operator_cycles, summary, tables
from mcuforge.results.columns import Causes, Measurement

CORES = {"mps2_an500": "cortex-m7", "mps3_an547": "cortex-m55", "ek_ra8m1": "cortex-m85"}
MACS = 1_000_000


def record(board: str = "mps2_an500", opt_level: int = 1, **changes) -> Measurement:
    hardware = board == "ek_ra8m1"
    instructions = 4_000_000 // opt_level
    measured = Measurement(
        status="ok",
        model="kws",
        board=board,
        platform="baremetal",
        core=CORES[board],
        toolchain="gcc",
        toolchain_version="gcc 12.2.1",
        opt_level=opt_level,
        mode="performance",
        timebase="hardware" if hardware else "instructions",
        clock_hz=480_000_000 if hardware else 25_000_000,
        macs=MACS,
        macs_executed=MACS,
        flash_bytes=80_000 + 1000 * opt_level,
        code_bytes=12_000,
        weights_bytes=50_000,
        ram_bytes=30_000,
        workspace_bytes=20_000,
        missing_flash_bytes=0,
        missing_ram_bytes=0,
        build_id="0123456789abcdef",
        executor="aot",
        model_weights_bytes=40_000,
        workspace_lower_bound_bytes=18_000,
        tvm_version="0.27.0.post1",
        mcuforge_version="0.1.0",
        emulator_version=None if hardware else "qemu 7.2.22",
        per_mac=instructions / MACS,
        started="2026-01-01T00:00:00Z",
        duration_s=1.0,
        board_instance="one",
        instructions=None if hardware else instructions,
        latency_us=instructions / (480 if hardware else 1000),
        inferences_per_second=(480e6 if hardware else 1e9) / instructions,
        exact=True,
        max_abs_error=0.0,
        stack_bytes=600,
    )
    return dataclasses.replace(measured, **changes)


def unfit(**where) -> Measurement:
    nothing = ("instructions", "latency_us", "inferences_per_second", "exact", "max_abs_error")
    return record(
        **where,
        **dict.fromkeys((*nothing, "per_mac", "stack_bytes", "board_instance")),
        status="does_not_fit",
        missing_flash_bytes=1234,
    )


def collect(records: list[Measurement], directory: Path) -> pd.DataFrame:
    """Through the files that the workflow passes."""
    paths = []
    for number, measured in enumerate(records):
        paths.append(directory / "bench" / str(number) / "performance.json")
        measured.write(paths[-1])
    rows = summary.collect(paths)
    summary.write(rows, directory / "summary.csv")
    return summary.read(directory / "summary.csv")


def test_a_row_has_the_columns_people_compare(tmp_path: Path) -> None:
    rows = collect([record(opt_level=2)], tmp_path)
    text = (tmp_path / "summary.csv").read_text()
    assert text.splitlines()[0] == ",".join(summary.COLUMNS)
    row = rows.iloc[0]
    assert row["instructions"] == 2_000_000
    assert row["per_mac"] == 2.0
    assert row["workspace_lower_bound_bytes"] == 18_000
    assert row["status"] == "ok"
    assert (row["tvm_version"], row["toolchain_version"]) == ("0.27.0.post1", "gcc 12.2.1")
    assert (row["model_weights_bytes"], row["emulator_version"]) == (40_000, "qemu 7.2.22")
    assert ",true," in text


def test_hardware_has_cycles_per_mac_and_no_instructions(tmp_path: Path) -> None:
    row = collect([record("ek_ra8m1")], tmp_path).iloc[0]
    assert row["timebase"] == "hardware"
    assert pd.isna(row["instructions"])
    assert row["per_mac"] == pytest.approx(4.0)


def predicted(**where) -> Measurement:
    """A record of mode cycles."""
    measured = ("instructions", "latency_us", "inferences_per_second", "per_mac", "stack_bytes")
    causes = dict.fromkeys(get_type_hints(Causes), 0) | {"cycles": 3_000_000}
    prediction = {
        "cycles_modelled": 3_000_000, "latency_modelled_us": 6250.0, "cycles_error_percent": 8.0,
        "cycles_model": "cortex-m7/1", "cycles_memory": "none", "causes": causes,
    }  # fmt: skip
    return record(**where, **dict.fromkeys(measured), mode="cycles", timebase="model", **prediction)


def test_modelled_cycles_join_the_row_of_their_cell(tmp_path: Path) -> None:
    rows = collect([predicted(), record()], tmp_path)
    (row,) = rows.to_dict("records")
    assert (row["timebase"], row["instructions"]) == ("instructions", 4_000_000)
    assert (row["cycles_modelled"], row["cycles_model"]) == (3_000_000, "cortex-m7/1")
    assert row["latency_modelled_us"] == 6250.0
    assert pd.isna(collect([record()], tmp_path).iloc[0]["cycles_modelled"])


def test_what_is_only_modelled_is_in_no_column_of_measurements(tmp_path: Path) -> None:
    rows = collect([predicted(opt_level=1), predicted(opt_level=2)], tmp_path)
    assert set(rows["timebase"]) == {"model"}
    assert rows[["instructions", "latency_us", "per_mac"]].isna().all(axis=None)
    assert tables.boards(rows).empty
    assert tables.levels(rows).empty
    assert summary.best(rows).empty
    figures.levels(rows, tmp_path / "levels.svg")
    figures.boards(rows, tmp_path / "boards.svg")
    assert "modelled cycles, millions" in (tmp_path / "levels.svg").read_text()


def test_a_prediction_stands_beside_what_hardware_measured(tmp_path: Path) -> None:
    """3 million cycles at 480 MHz are 6250 us; 4 million were measured, then 2.9."""
    board = {"board": "ek_ra8m1"}
    records = [record(**board), predicted(**board), record(), predicted()]
    records += [record(**board, opt_level=2, latency_us=6041.667), predicted(**board, opt_level=2)]
    records += [record(**board, opt_level=3)]
    rows = tables.calibration(collect(records, tmp_path))
    assert rows["opt_level"].tolist() == [1, 2]
    assert rows["error_percent"].tolist() == [-25.0, 3.45]
    assert rows["as_expected"].tolist() == [False, True]
    assert tables.calibration(collect([record()], tmp_path / "none")).empty


def test_operators_have_their_modelled_cycles_by_cause() -> None:
    operator = mlf.Operator("f", "conv2d", (1, 8, 8, 4), macs=1_000_000, macs_nominal=2_000_000)
    causes = dict.fromkeys(get_type_hints(Causes), 0) | {"cycles": 1_500_000, "data_misses": 9}
    rows = operator_cycles.table(predicted(operator_causes=[causes]), [operator])
    (row,) = rows.to_dict("records")
    assert (row["operator"], row["shape"], row["share"], row["per_mac"]) == (
        "conv2d", "1x8x8x4", 0.5, 1.5,
    )  # fmt: skip
    assert (row["cycles_modelled"], row["data_misses"]) == (1_500_000, 9)
    assert row["cycles_model"] == "cortex-m7/1"
    assert operator_cycles.table(unfit(mode="cycles"), [operator]).empty


def test_a_cell_that_does_not_fit_is_a_row_with_what_is_missing(tmp_path: Path) -> None:
    rows = collect([record(opt_level=1), unfit(opt_level=2)], tmp_path)
    row = rows.iloc[1]
    assert (row["status"], row["missing_flash_bytes"]) == ("does_not_fit", 1234)
    assert row[["instructions", "per_mac", "exact", "stack_bytes"]].isna().all()


def test_accuracy_joins_the_row_of_its_cell(tmp_path: Path) -> None:
    accuracy = record(mode="accuracy", accuracy=0.85, quality_target=0.9, valid=False)
    rows = collect([accuracy, record(quality_target=0.9)], tmp_path)
    assert len(rows) == 1
    assert rows.iloc[0]["accuracy"] == 0.85
    assert not rows.iloc[0]["valid"]
    assert rows.iloc[0]["instructions"] == 4_000_000


def test_a_damaged_summary_is_named(tmp_path: Path) -> None:
    (tmp_path / "summary.csv").write_text("model,board\nx,y\n")
    with pytest.raises(McuforgeError, match=r"summary\.csv is not a summary"):
        summary.read(tmp_path / "summary.csv")


GRID = [record(board, level) for board in CORES for level in (1, 2, 4)]


def test_levels_table_has_speed_and_change_in_percent(tmp_path: Path) -> None:
    table = tables.levels(collect(GRID, tmp_path)).set_index("board")
    assert list(table.columns) == [
        "model", "toolchain", "timebase",
        "O1", "O2", "O2_change_percent", "O4", "O4_change_percent",
    ]  # fmt: skip
    assert table.loc["mps2_an500", "O1"] == 250.0
    assert table.loc["mps2_an500", "O4"] == 1000.0
    assert table.loc["mps2_an500", ["O2_change_percent", "O4_change_percent"]].tolist() == [
        100,
        100,
    ]


def test_boards_table_keeps_emulated_and_measured_time_apart(tmp_path: Path) -> None:
    slower = record(
        "mps2_an500", 4, toolchain="clang", instructions=2e6, inferences_per_second=500.0
    )
    table = tables.boards(collect([*GRID, slower], tmp_path)).set_index("timebase")
    assert table.loc["instructions", "mps2_an500"] == 1000.0
    assert table.loc["instructions", "mps2_an500_with"] == "gcc O4"
    assert pd.isna(table.loc["instructions", "ek_ra8m1"])
    assert table.loc["hardware", "ek_ra8m1"] == 480.0
    assert pd.isna(table.loc["hardware", "mps2_an500"])


def test_wrong_answers_are_never_the_best(tmp_path: Path) -> None:
    wrong = record("mps2_an500", 3, status="mismatch", exact=False, inferences_per_second=9999.0)
    table = tables.boards(collect([*GRID, wrong], tmp_path)).set_index("timebase")
    assert table.loc["instructions", "mps2_an500_with"] == "gcc O4"


def draw(rows: pd.DataFrame, directory: Path) -> dict[str, str]:
    directory.mkdir()
    for draw_one in (figures.levels, figures.memory, figures.boards):
        draw_one(rows, directory / f"{draw_one.__name__}.svg")
    return {path.stem: path.read_text() for path in directory.iterdir()}


def words(svg: str) -> list[str]:
    """The texts of a figure: matplotlib leaves each in a comment beside its outlines."""
    ElementTree.fromstring(svg)
    return re.findall(r"<!-- (.*?) -->", svg)


def test_figures_are_reproducible_and_say_what_they_show(tmp_path: Path) -> None:
    rows = collect([*GRID, unfit(board="mps2_an500", opt_level=3)], tmp_path)
    drawn = draw(rows, tmp_path / "first")
    assert draw(rows, tmp_path / "second") == drawn
    assert {"instructions, millions", "time, ms", "O1", "opt_level", "does not fit"} <= set(
        words(drawn["levels"])
    )
    assert {"flash, KiB", "RAM, KiB", "weights", "workspace"} <= set(words(drawn["memory"]))
    assert {"instructions per MAC", "cycles per MAC", "ek_ra8m1"} <= set(words(drawn["boards"]))


def test_figures_of_a_grid_where_nothing_runs(tmp_path: Path) -> None:
    drawn = draw(collect([unfit(opt_level=1)], tmp_path), tmp_path / "out")
    assert "does not fit" in words(drawn["levels"])
    assert tables.boards(summary.read(tmp_path / "summary.csv")).empty
