"""What single layers take beside CMSIS-NN's kernels, in instructions."""

import csv
from pathlib import Path

import numpy as np
import pytest

from helpers.counter import instructions
from mcuforge import mlf
from mcuforge.compiler import compile_model
from mcuforge.target import Target

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
REFERENCE = DATA / "reference" / "cmsis_nn_layers_qemu.csv"
LARGEST_RATIO = 0.8
LEVEL = 3
# Layers that only move elements; of each core the column of the reference.
LAYERS = ("concat_16x16_15_17", "concat_16x16_16_16", "pad_16x16_32", "resnn_8x8_32")
COLUMNS = {"cortex-m7": "cmsis_nn_m7", "cortex-m55": "cmsis_nn_m55"}


@pytest.mark.skipif(not REFERENCE.is_file(), reason=f"no {REFERENCE.relative_to(ROOT.parent)}")
@pytest.mark.parametrize("core", COLUMNS)
def test_fewer_instructions_than_cmsis_nn(core: str, tmp_path: Path) -> None:
    with REFERENCE.open() as file:
        reference = {row["layer"]: row for row in csv.DictReader(file)}
    ratios = {}
    for layer in LAYERS:
        archive, directory = tmp_path / f"{layer}.tar", tmp_path / layer
        directory.mkdir()
        compile_model(DATA / "layers" / f"{layer}.tflite", "layer", Target(core), LEVEL, archive)
        size = mlf.read(archive).info.input_bytes
        stimulus = np.random.default_rng(1).integers(-128, 128, size).astype(np.int8)
        count = instructions(archive, stimulus, directory)
        ratios[layer] = count / int(reference[layer][COLUMNS[core]])
    assert max(ratios.values()) <= LARGEST_RATIO, ratios
