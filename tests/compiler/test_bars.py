"""What mcuforge holds itself to on MLPerf Tiny's models, beside TFLM with CMSIS-NN's kernels.

A bare-metal firmware a model, as the workflow builds it. Cores with the same instructions as
another one run one model.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mcuforge import boards, mlf
from mcuforge.firmware.builder import build
from mcuforge.firmware.project import Order
from mcuforge.results import performance, references
from mcuforge.runner.session import Firmware, Plan, measure

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT.parent / "shared" / "data" / "reference" / "tflm_cmsis_nn_qemu.csv"
MODELS = {
    "kws": "kws_ref_model",
    "vww": "vww_96_int8",
    "ic": "pretrainedResnet_quant",
    "ad": "ad01_int8",
    "sww": "str_ww_ref_model",
}
TOOLCHAIN, LEVEL = "clang", 3


@pytest.mark.skipif(not REFERENCE.is_file(), reason=f"no {REFERENCE.relative_to(ROOT.parent)}")
@pytest.mark.parametrize(
    ("board_name", "models"),
    [
        ("mps2_an500", tuple(MODELS)),
        ("mps3_an547", tuple(MODELS)),
        ("mps2_an386", ("ad",)),
        ("mps3_an547_m85", ("ad",)),
    ],
)
def test_fewer_instructions_code_and_memory(
    board_name: str, models: tuple[str, ...], compiled: Callable, expected: Callable, tmp_path: Path
) -> None:
    reference = references.read(REFERENCE)
    inventory = boards.load(ROOT / "config" / "boards.yaml")
    board = inventory.board(board_name)
    ratios = {}
    for model in models:
        archive = compiled(MODELS[model], board.target(TOOLCHAIN), LEVEL)
        elf, size, vectors = (tmp_path / f"{model}{end}" for end in (".elf", ".json", ".npz"))
        build(Order(archive, board, TOOLCHAIN), elf, size)
        inputs, outputs = expected(MODELS[model])
        np.savez(vectors, inputs=inputs, outputs=outputs)
        record = measure(
            Firmware(elf, size, mlf.read(archive).info, vectors), Plan("performance"), inventory
        )
        assert record.exact, model
        other = reference.loc[(board.core, model)]
        ratios[model] = record.instructions / other["instructions"]
        assert record.code_bytes <= performance.CODE_BYTES, model
        assert record.workspace_bytes <= other["arena_bytes"], model
    assert max(ratios.values()) <= performance.RATIO_EACH, ratios
    assert performance.mean(ratios.values()) <= performance.RATIO_MEAN or len(models) == 1, ratios
