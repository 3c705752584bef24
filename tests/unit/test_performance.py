"""docs/performance.md: every number in it is from a record, a reference or the limit."""

import dataclasses
from pathlib import Path

import pandas as pd
import pytest
from test_results import collect, record, words

from mcuforge import mlf
from mcuforge.errors import ConfigError
from mcuforge.results import limits, performance, profile, references, summary

OPERATORS = [
    mlf.Operator("f", "conv2d", (1, 8, 8, 4), 900_000, 1_000_000, "dense"),
    mlf.Operator("f", "softmax", (1, 4), macs=0, macs_nominal=0),
    mlf.Operator("f", "fully_connected", (1, 40), 4000, 4000, "dense"),
]
REFERENCE = """\
runtime,cpu,qemu_machine,compiler,model,instructions,model_bytes,code_bytes,arena_bytes
TFLM+CMSIS-NN,cortex-m7,mps2-an500,gcc-12 -O3,kws,5000000,53936,61328,22820
TFLM+CMSIS-NN,cortex-m7,mps2-an500,gcc-12 -O2,kws,4000000,53936,53112,22820
TFLM reference,cortex-m7,mps2-an500,gcc-12 -O3,kws,1000,53936,48168,22772
"""


@pytest.fixture
def reference(tmp_path: Path) -> pd.DataFrame:
    (tmp_path / "reference.csv").write_text(REFERENCE)
    return references.read(tmp_path / "reference.csv")


def rows(tmp_path: Path) -> pd.DataFrame:
    """Two boards and hardware at levels 1, 3 and 4; level 4 is fast, but wrong on one."""
    grid = [
        record(board, level)
        for board in ("mps2_an500", "mps3_an547", "ek_ra8m1")
        for level in (1, 3, 4)
    ]
    grid[2] = dataclasses.replace(grid[2], status="mismatch", exact=False)
    return collect(grid, tmp_path)


def write(rows: pd.DataFrame, reference: pd.DataFrame | None, directory: Path) -> str:
    best = summary.best(rows)
    profiles = {}
    for cell, row in zip(summary.cells(best), best.itertuples(), strict=True):
        whole = record(row.board, row.opt_level)
        profiled = dataclasses.replace(whole, mode="profile", operators=[900_000, 1000, 9000])
        profiles[cell] = profile.table(profiled, whole, OPERATORS)
    pictures = {name: directory / "docs" / f"{name}.svg" for name in ("ratios", "levels", "kinds")}
    performance.write(rows, profiles, reference, directory / "docs" / "performance.md", pictures)
    return (directory / "docs" / "performance.md").read_text()


def lines(text: str, *parts: str) -> list[str]:
    return [line for line in text.splitlines() if all(part in line for part in parts)]


def test_the_best_cell_is_exact_emulated_and_of_the_compiler(tmp_path: Path) -> None:
    best = summary.best(rows(tmp_path))
    assert summary.cells(best) == ["kws/mps2_an500/gcc/O3", "kws/mps3_an547/gcc/O4"]


def test_the_document_compares_with_the_better_compiler(tmp_path: Path, reference) -> None:
    text = write(rows(tmp_path), reference, tmp_path)
    (found,) = lines(text, "| mps2_an500 | kws | 1,000,000 |")
    assert "| 4,000,000 | gcc-12 -O2 | 1,333,333 | gcc O3 | 0.333 |" in found
    assert lines(text, "cortex-m7", "mps2_an500", "| 0.333 | **0.333** |")
    assert lines(text, "mps3_an547", "1,000,000 | gcc O4 |  |"), "no reference for this core"
    assert lines(text, "1,000,000 (mismatch)")
    assert "ek_ra8m1" not in text
    assert "instructions, emulated" in text and "qemu 7.2.22" in text and "0.27.0.post1" in text
    assert "](ratios.svg)" in text and "{{" not in text and "nan" not in text.lower().split()
    assert {"reference = 1", "kws"} <= {
        part for word in words((tmp_path / "docs" / "ratios.svg").read_text())
        for part in (word, word.removeprefix("instructions, "))
    }  # fmt: skip


def test_without_a_reference_its_columns_are_empty(tmp_path: Path) -> None:
    text = write(rows(tmp_path), None, tmp_path)
    assert "the\nconfiguration named no `reference`" in text
    assert lines(text, "| mps2_an500 | kws |", "|  |  | 1,333,333 | gcc O3 |  |")
    assert "CMSIS" not in text


def test_what_holds_a_model_back_is_the_operator_farthest_from_its_limit(
    tmp_path: Path, reference
) -> None:
    text = write(rows(tmp_path), reference, tmp_path)
    # 17/24 and 21/32 an executed MAC, and three a result.
    limit = round(900_000 * 17 / 24 + 256 * 3 + 4000 * 21 / 32 + 40 * 3)
    (found,) = lines(text, "| mps2_an500 | kws |", f"| {limit:,} |")
    # 900,000 counted are 261,732 above, 9,000 are 6,255 above, 1,000 have no limit.
    assert "| conv2d 97.3% | 0 conv2d 1x8x8x4 97.3% |" in found
    assert lines(text, "| 0 | conv2d | 1x8x8x4 | 1,000,000 | 900,000 | 900,000 |")


def test_limits_follow_the_instructions_of_the_core() -> None:
    assert limits.instructions("cortex-m4", "dense", (1, 5, 5, 8), 2400) == 1700 + 600
    assert limits.instructions("cortex-m55", "dense", (1, 8), 1600) == 200 + 12
    nine_taps = limits.instructions("cortex-m85", "depthwise", (1, 4, 4, 4), 9 * 64)
    assert nine_taps == pytest.approx(64 * (1.25 + 1.5))
    assert limits.instructions("cortex-m55+nomve", "dense", (1, 1, 1, 1), 32) == 21 + 3
    for core, products, macs in (
        ("cortex-m0", "dense", 9), ("z80", "dense", 9),
        ("cortex-m7", "dense", 0), ("cortex-m7", None, 9),
    ):  # fmt: skip
        assert limits.instructions(core, products, (1, 1), macs) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [("a,b\n1,2\n", "cannot be read"), (REFERENCE.replace("+CMSIS-NN", ""), "no rows")],
)
def test_a_wrong_reference_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "reference.csv").write_text(content)
    with pytest.raises(ConfigError, match=rf"reference\.csv.*{message}"):
        references.read(tmp_path / "reference.csv")
