"""MLPerf Tiny's models on Zephyr: exact, as fast as on bare metal; linked for the real boards."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from mcuforge import boards, mlf
from mcuforge.compiler import compile_model
from mcuforge.errors import ToolError
from mcuforge.firmware.builder import build
from mcuforge.firmware.project import Order, Purpose
from mcuforge.formats.tflite.describe import describe
from mcuforge.models import vectors
from mcuforge.target import Target

DATA = Path(__file__).parents[3] / "shared" / "data"
INVENTORY = boards.load(Path(__file__).parents[2] / "config" / "boards.yaml")
MODELS = {
    "kws01": "kws_ref_model.tflite",
    "ad01": "ad01_int8.tflite",
    "sww01": "str_ww_ref_model.tflite",
    "ic01": "pretrainedResnet_quant.tflite",
    "vww01": "vww_96_int8.tflite",
}
BARE_METAL = {"zephyr_mps2_an500": "mps2_an500", "zephyr_mps3_an547": "mps3_an547"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Compiled model and vectors, made once: ``model("kws01", "cortex-m7-c")``."""
    if not (DATA / "models").is_dir():
        pytest.skip("no models in ../shared/data")
    directory = tmp_path_factory.mktemp("models")

    def get(benchmark, target):
        source = DATA / "models" / MODELS[benchmark]
        stimuli, archive = directory / f"{benchmark}.npz", directory / f"{benchmark}.{target}.tar"
        if not stimuli.exists():
            vectors.write(describe(source.read_bytes(), benchmark), source, stimuli)
        if not archive.exists():
            compile_model(source, benchmark, Target.parse(target), 3, archive)
        return archive, stimuli

    return get


def data_set(directory, benchmark, info):
    """A few labelled files in MLPerf Tiny's format: the real data set's, or random ones."""
    real = DATA / "datasets" / benchmark
    if real.is_dir():
        rows = (real / "y_labels.csv").read_text().splitlines()[:20]
        for row in rows:
            shutil.copy(real / row.split(",")[0], directory)
    else:
        random = np.random.default_rng(1)
        size = info.input_bytes
        rows = []
        for index in range(6):
            content = random.integers(0, 256, size, np.uint8).tobytes()
            row = f"{index}.bin,2,{index % 2}"
            if benchmark == "ad01":
                content = random.normal(-20, 10, size + 256).astype("<f4").tobytes()
                row += f",{4 * size},512"
            (directory / f"{index}.bin").write_bytes(content)
            rows.append(row)
    (directory / "y_labels.csv").write_text("\n".join(rows) + "\n")
    return directory


@pytest.mark.parametrize("toolchain", ["gcc", "clang"])
@pytest.mark.parametrize("board", BARE_METAL)
@pytest.mark.parametrize("benchmark", MODELS)
def test_as_on_bare_metal(built, model, tmp_path, benchmark, board, toolchain):
    archive, stimuli = model(benchmark, INVENTORY.board(board).target(toolchain))
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    data_set(dataset, benchmark, mlf.read(archive).info)
    zephyr = built(archive, board, toolchain, benchmark)
    bare = dataclasses.replace(
        zephyr,
        board=INVENTORY.board(BARE_METAL[board]),
        elf=tmp_path / "bare.elf",
        size_json=tmp_path / "bare.json",
    )
    order = Order(archive, bare.board, toolchain, Purpose(benchmark=benchmark))
    build(order, bare.elf, bare.size_json)
    performance, reference = (f.measure(stimuli) for f in (zephyr, bare))
    assert performance.status == "ok" and performance.exact
    assert performance.instructions == pytest.approx(reference.instructions, rel=0.03)
    # An interrupt of the timer may have put its frame on the stack meanwhile; what calls the model
    # aligns the stack as it pleases.
    assert -16 <= performance.stack_bytes - reference.stack_bytes <= 128
    accuracy, reference = (f.measure(stimuli, "accuracy", data_set=dataset) for f in (zephyr, bare))
    assert (accuracy.accuracy, accuracy.predictions) == (reference.accuracy, reference.predictions)


@pytest.mark.parametrize("toolchain", ["gcc", "clang"])
@pytest.mark.parametrize("board", ["nucleo_h743zi", "ek_ra8m1"])
@pytest.mark.parametrize("benchmark", MODELS)
def test_links_and_fits(built, model, benchmark, board, toolchain):
    archive, _ = model(benchmark, INVENTORY.board(board).target(toolchain))
    try:
        size = built(archive, board, toolchain, benchmark).size
    except ToolError as error:
        if "gcc >= 13" in str(error):
            pytest.skip(str(error))
        raise
    assert size.fits
    assert size.weights_bytes + size.code_bytes < size.flash_bytes < 2 << 20
    assert size.workspace_bytes < size.ram_bytes < 512 << 10
