"""Whole models on this machine: the generated C answers as LiteRT does, byte for byte."""

import itertools
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers.emulator import EmulatedModel
from helpers.fixtures import Compile, Expect
from helpers.host import HostModel
from mcuforge import mlf

REFERENCE = (
    "kws_ref_model",
    "vww_96_int8",
    "pretrainedResnet_quant",
    "ad01_int8",
    "str_ww_ref_model",
)
SILABS = ("silabs_kws", "silabs_vww", "silabs_ic", "silabs_ad")
FLOAT = ("ad01_fp32", "kws_ref_model_float32", "pretrainedResnet", "vww_96_float")
# Levels 1 and 2 are the same for every core; above, kernels differ with its instructions. They run
# here in their portable form.
CELLS = [
    ("cortex-m7-c", 1),
    ("cortex-m7-c", 2),
    ("cortex-m7-c", 3),
    ("cortex-m7-c", 4),
    ("cortex-m55-c", 3),
    ("cortex-m55-c", 4),
]
# TFLM's arena with CMSIS-NN on a Cortex-M7, and code that is not the model.
ARENAS = {
    "kws_ref_model": 22_820,
    "vww_96_int8": 100_708,
    "pretrainedResnet_quant": 54_996,
    "ad01_int8": 2_580,
    "str_ww_ref_model": 16_596,
}


# gcc compiles everything; clang one model of each architecture.
JOBS = [(m, "gcc") for m in (*REFERENCE, *SILABS)] + [(m, "clang-19") for m in REFERENCE]


@pytest.mark.parametrize(("target", "opt_level"), CELLS)
@pytest.mark.parametrize(("model", "compiler"), JOBS)
def test_every_byte_is_as_litert_says(
    model: str,
    target: str,
    opt_level: int,
    compiler: str,
    compiled: Compile,
    expected: Expect,
    tmp_path: Path,
) -> None:
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not installed")
    inputs, outputs = expected(model)
    host = HostModel(compiled(model, target, opt_level), tmp_path, compiler=compiler)
    # The last input runs first and last: nothing stays behind in the workspace.
    answers = host.run(np.concatenate([inputs[-1:], inputs]))
    np.testing.assert_array_equal(answers[1:], outputs)
    np.testing.assert_array_equal(answers[0], answers[-1])


# Every model, level, core and toolchain: 216 builds. MCUFORGE_FULL_GRID=1 runs them all; otherwise
# every eleventh, which meets each model, level, core and toolchain.
GRID = list(
    itertools.product(
        (*REFERENCE, *SILABS),
        (1, 2, 3, 4),
        ("cortex-m4", "cortex-m7", "cortex-m55"),
        ("gcc", "clang"),
    )
)


@pytest.mark.parametrize(
    ("model", "opt_level", "core", "toolchain"),
    GRID if os.environ.get("MCUFORGE_FULL_GRID") else GRID[::11],
)
def test_emulated_cores_say_the_same(
    model: str,
    opt_level: int,
    core: str,
    toolchain: str,
    compiled: Compile,
    expected: Expect,
    tmp_path: Path,
) -> None:
    inputs, outputs = (rows[:13] for rows in expected(model))
    archive = compiled(model, f"{core}-c", opt_level)
    emulated = EmulatedModel(archive, tmp_path, toolchain, ("-O3",))
    np.testing.assert_array_equal(emulated.run(inputs), outputs)


@pytest.mark.parametrize("opt_level", [0, 1, 2])
@pytest.mark.parametrize("model", FLOAT)
def test_float_models_agree(
    model: str, opt_level: int, compiled: Compile, expected: Expect, tmp_path: Path
) -> None:
    inputs, outputs = expected(model)
    host = HostModel(compiled(model, "cortex-m7-c", opt_level), tmp_path)
    wanted, given = outputs[:13].view(np.float32), host.run(inputs[:13]).view(np.float32)
    np.testing.assert_allclose(given, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("model", REFERENCE)
def test_level_0_is_the_float_baseline(
    model: str, compiled: Compile, expected: Expect, tmp_path: Path
) -> None:
    inputs, outputs = expected(model)
    archive = compiled(model, "cortex-m7-c", 0)
    given = HostModel(archive, tmp_path).run(inputs[:13]).view(np.int8)
    wanted = outputs[:13].view(np.int8)
    # Seldom exact, which is why there is a level 1; but the same model.
    assert np.corrcoef(wanted.reshape(-1), given.reshape(-1))[0, 1] > 0.8
    assert b"float" in mlf.read(archive).members[f"codegen/host/src/tvmgen_{model}.c"]


@pytest.mark.parametrize("model", REFERENCE)
def test_memory_and_work_shrink_with_the_level(model: str, compiled: Compile) -> None:
    info = {level: mlf.read(compiled(model, "cortex-m7-c", level)).info for level in (1, 2, 3)}
    assert info[3].workspace_bytes <= ARENAS[model]
    assert info[2].workspace_bytes <= info[1].workspace_bytes
    for level in (1, 2, 3):
        assert info[level].macs_executed <= info[level].macs_nominal
        assert info[level].workspace_bytes >= info[level].workspace_lower_bound_bytes
    if model == "vww_96_int8":  # half of its channels are dead
        assert info[2].macs_executed < 0.55 * info[2].macs_nominal


@pytest.mark.parametrize("model", REFERENCE)
def test_operators_calls_and_work_agree(model: str, compiled: Compile) -> None:
    archive = mlf.read(compiled(model, "cortex-m7-c", 3))
    source = archive.members[f"codegen/host/src/tvmgen_{model}.c"].decode()
    run = source[source.rindex(f"{archive.info.entry}(") :]
    positions = [run.index(f"tvmgen_operator_begin({i}u)") for i in range(run.count("begin("))]
    operators = archive.info.operators
    assert len(positions) == len(operators)
    assert positions == sorted(positions)
    for start, operator in zip(positions, operators, strict=True):
        assert run[start:].split("\n")[1].strip().startswith(f"{operator.symbol}(")
    assert sum(o.macs for o in operators) == archive.info.macs_executed
    config = json.loads(archive.members[f"executor-config/aot/{model}.json"])
    assert [c["symbol"] or "memcpy" for c in config["calls"]] == [o.symbol for o in operators]
