"""Moving elements: what pieces are made of, and blocks that move runs of bytes."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers.instructions import ROUNDS, Trial, by_definition, by_portable_c, differing_on_core
from mcuforge.isa.dsp.move import Rows, copy_rows, fill_rows
from mcuforge.operators.move import Dim, Piece, Runs, run, runs

RANDOM = np.random.default_rng(5)
# Runs of one and of many words, with and without a rest, adjacent and apart; twice; at places that
# are multiples of four, and others.
ROWS = [
    Rows(4, 4, 4, 0, 1),
    Rows(5, 5, 12, 0, 2),
    Rows(15, 15, 32, 0, 4),
    Rows(16, 16, 32, 0, 2),
    Rows(32, 64, 32, 0, 1),
    Rows(32, 32, 64, 32, 2),
    Rows(7, 0, 16, 8, 1),
    Rows(47, 48, 52, 0, 1),
    Rows(128, 128, 128, 0, 1),
    Rows(131, 0, 140, 0, 1),
    Rows(203, 300, 204, 0, 1),
]
_CORES = {False: ("cortex-m7", "mps2-an500"), True: ("cortex-m55", "mps3-an547")}


def trial(rows: Rows, kind: str) -> Trial:
    count = 2 * rows.unroll
    # Of one byte more than whole words: each round begins at another alignment.
    size = (
        -(-((count - 1) * max(rows.source, rows.result) + 2 * rows.length + rows.again) // 4)
    ) * 4 + 1
    memory = RANDOM.integers(-128, 128, (ROUNDS, size)).astype(np.int8)
    counts = np.full((ROUNDS, 1), count, np.int32)
    if kind == "copy":
        x = RANDOM.integers(-128, 128, (ROUNDS, size)).astype(np.int8)
        return Trial(copy_rows(rows), [memory, x, counts])
    value = RANDOM.integers(-(2**31), 2**31, (ROUNDS, 1)).astype(np.int32)
    if rows.length % 4:  # The last word reaches back over the one before.
        value = np.repeat(value.view(np.int8)[:, :1], 4, axis=1).copy().view(np.int32)
    return Trial(fill_rows(rows), [memory, value, counts])


def trials(vectors: bool) -> list[Trial]:
    wanted = [rows for rows in ROWS if not vectors or rows.length >= 16]
    wanted = [rows._replace(vectors=vectors) for rows in wanted]
    single = [rows._replace(source=0) for rows in wanted if not rows.again]
    return [trial(rows, "copy") for rows in wanted] + [
        trial(rows, "fill") for rows in dict.fromkeys(single)
    ]


@pytest.mark.parametrize("vectors", [False, True])
def test_portable_c_moves_as_defined(vectors: bool, tmp_path: Path) -> None:
    given = trials(vectors)
    for one, result in zip(given, by_portable_c(given, tmp_path), strict=True):
        np.testing.assert_array_equal(result, by_definition(one), err_msg=one.entry.name)


@pytest.mark.parametrize("vectors", [False, True])
@pytest.mark.parametrize("toolchain", ["gcc", "clang"])
def test_the_core_moves_as_defined(vectors: bool, toolchain: str, tmp_path: Path) -> None:
    for program in ("qemu-system-arm", "clang-19", "arm-none-eabi-gcc", "ld.lld-19"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    given = trials(vectors)
    wanted = [by_definition(one) for one in given]
    wanted[3] = wanted[3] ^ 1
    core, machine = _CORES[vectors]
    differing = differing_on_core(given, wanted, core, machine, toolchain, tmp_path)
    assert differing == [given[3].entry.name], "all but the one that was made wrong"


def test_dimensions_that_are_one_are_merged() -> None:
    box = (Dim(16, 272, 512), Dim(16, 17, 32), Dim(1, 5, 5), Dim(17, 1, 1))
    piece = Piece(1, 0, 15, box).normal()
    assert piece == Piece(1, 0, 15, (Dim(256, 17, 32), Dim(17, 1, 1)))
    assert run(piece) == Runs(1, 0, 0, 1, 0, 17, 1)
    assert runs(piece) == Runs(256, 17, 32, 1, 0, 17, 2)


@pytest.mark.parametrize(
    ("table", "start", "dims"),
    [
        ((4, 4, 5, 5, 6, 6), 4, (Dim(3, 1, 2), Dim(2, 0, 1))),
        ((3, 5, 7), 3, (Dim(3, 2, 1),)),
        ((2, 2), 2, (Dim(2, 0, 1),)),
        ((9,), 9, ()),
        ((0, 1, 1, 3), 0, (Dim(4, (0, 1, 1, 3), 1),)),
    ],
)
def test_tables_become_steps_where_they_can(
    table: tuple[int, ...], start: int, dims: tuple[Dim, ...]
) -> None:
    assert Piece(0, 0, 0, (Dim(len(table), table, 1),)).normal() == Piece(0, start, 0, dims)


def test_what_is_written_twice_is_read_once() -> None:
    piece = Piece(0, 0, 0, (Dim(8, 256, 1024), Dim(8, 32, 64), Dim(2, 0, 32), Dim(32, 1, 1)))
    assert runs(piece) == Runs(8, 32, 64, 2, 32, 32, 3)
    assert run(Piece(0, 0, 0, (Dim(8, 2, 1),))) is None
