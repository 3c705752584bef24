"""The profile: each operator counted exactly, and their sum is the inference."""

from pathlib import Path

import numpy as np
import pytest

from helpers import tiny
from mcuforge import boards, mlf
from mcuforge.compiler import compile_model
from mcuforge.errors import BoardError
from mcuforge.firmware.builder import build
from mcuforge.firmware.project import Order, Purpose
from mcuforge.formats.tflite import describe
from mcuforge.models import vectors
from mcuforge.results import profile
from mcuforge.runner.session import Firmware, Plan, measure
from mcuforge.target import Target

INVENTORY = boards.load(Path(__file__).parents[2] / "config" / "boards.yaml")
# The fake model's only operator: as many instructions as it says, but for a handful.
OPERATOR = """
#ifdef TVMGEN_PROFILE
    void tvmgen_operator_begin(uint32_t), tvmgen_operator_end(uint32_t);
    uint32_t n = {count} / 2;
    tvmgen_operator_begin(0);
    __asm volatile("1: subs %0, %0, #1\\n\\tbne 1b" : "+r"(n) : : "cc");
    tvmgen_operator_end(0);
#endif
"""


@pytest.mark.parametrize("board", ["mps2_an500", "mps3_an547"])
def test_every_instruction_counts(built, board: str) -> None:
    records = [
        built(board, body=OPERATOR.format(count=n), profile=True).measure(mode="profile")
        for n in (2, 1002)
    ]
    assert all(record.exact and record.mode == "profile" for record in records)
    short, longer = (record.operators[0] for record in records)
    assert short == pytest.approx(2 + 4, abs=4)
    assert longer - short == pytest.approx(1000, abs=1)
    assert [record.instructions for record in records] == pytest.approx([short, longer], abs=1)


def test_a_firmware_that_does_not_profile_says_so(built) -> None:
    with pytest.raises(BoardError, match="timed 0 operators, the model has 1"):
        built().measure(mode="profile")


@pytest.mark.parametrize(
    ("board", "toolchain", "level"),
    [
        ("mps2_an386", "clang", 1),
        ("mps2_an500", "gcc", 3),
        ("mps3_an547", "tvm-llvm", 4),
    ],
)
def test_the_operators_add_up_to_the_inference(
    built, board: str, toolchain: str, level: int, tmp_path: Path
) -> None:
    model, archive = tmp_path / "tiny.tflite", tmp_path / "tiny.tar"
    model.write_bytes(tiny.model())
    kind = INVENTORY.board(board)
    compile_model(model, "tiny", Target.parse(kind.target(toolchain)), level, archive)
    info = mlf.read(archive).info
    vectors.write(describe.describe(model.read_bytes(), "tiny"), model, tmp_path / "v.npz")
    records = {}
    for mode in ("performance", "profile"):
        elf, size = tmp_path / f"{mode}.elf", tmp_path / f"{mode}.json"
        build(Order(archive, kind, toolchain, Purpose(profile=mode == "profile")), elf, size)
        records[mode] = measure(
            Firmware(elf, size, info, tmp_path / "v.npz"), Plan(mode), INVENTORY
        )
        assert records[mode].exact
    rows = profile.table(records["profile"], records["performance"], info.operators)
    assert rows["operator"].tolist() == [
        op for op in ("conv2d", "reshape", "fully_connected") if op in set(rows["operator"])
    ]
    assert rows["macs"].sum() == rows["macs_executed"].sum() == tiny.MACS
    assert (rows["inference"] == records["performance"].instructions).all()
    # The rest of the inference is the run function itself.
    assert rows["count"].sum() == pytest.approx(rows["inference"].iloc[0], rel=0.02)
    assert np.isclose(rows["share"].sum(), 1)
