"""Instructions: what they are defined to compute, on this machine and on a core with Helium."""

import ctypes
import shutil
from pathlib import Path

import numpy as np
import pytest
import tvm
import tvm_ffi
from instructions import (
    Trial,
    by_definition,
    by_portable_c,
    differing_on_core,
    portable_library,
    trial,
)
from tvm import s_tir, tirx
from tvm.script import tirx as T

from mcuforge.codegen import c
from mcuforge.codegen.lower import lower_kernels
from mcuforge.isa import C_PREFIX, INSTRUCTIONS, Instruction, armv7em, armv7em_winograd, lanes
from mcuforge.isa import helium as mve

# Those with immediate operands, and blocks for certain shapes, exist once they are asked for.
mve.vshl_n_s32(3), mve.vshr_n_s32(7)
armv7em.dot(2, 3, 1, 12, True), armv7em.depthwise((3, 5), (1, 5), (1, 1), 16, 3, 12, True, True)
armv7em_winograd.transform_inputs(8), armv7em_winograd.multiply_tiles(8)
armv7em_winograd.transform_outputs(2, 12, 10, True)
HELIUM = sorted(name for name, entry in INSTRUCTIONS.items() if entry.feature == "helium")


def prepared(entry: Instruction) -> Trial:
    """Operands within what kernels use."""

    def limits(name: str, info: np.iinfo) -> tuple[int, int]:
        if "shl_" in entry.name and name == entry.params[-1][0]:
            return -31, 31
        if entry.name.startswith(("vldrbt", "vstrbt")) and name == "n":
            return 0, 17
        if "multiples" in entry.name:
            return 0, 8191
        return info.min, info.max

    # Of what is narrowed, only the lowest bytes are stored.
    return trial(entry, limits, 0xFF if "vqmovn" in entry.name else -1)


@pytest.fixture(scope="module")
def trials() -> list[Trial]:
    return [prepared(INSTRUCTIONS[name]) for name in HELIUM]


@pytest.fixture(scope="module")
def defined(trials: list[Trial]) -> list[np.ndarray]:
    return [by_definition(given) for given in trials]


def test_portable_c_computes_the_definitions(trials, defined, tmp_path: Path) -> None:
    results = by_portable_c(trials, tmp_path)
    for given, result, want in zip(trials, results, defined, strict=True):
        np.testing.assert_array_equal(result, want, err_msg=given.entry.name)


@pytest.mark.parametrize("toolchain", ["gcc", "clang", "tvm-llvm"])
def test_the_core_computes_the_definitions(toolchain: str, trials, defined, tmp_path: Path) -> None:
    for program in ("qemu-system-arm", "clang-19", "arm-none-eabi-gcc", "ld.lld-19"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    differing = differing_on_core(trials, defined, "cortex-m55", "mps3-an547", toolchain, tmp_path)
    assert differing == []


def test_a_wrong_definition_is_noticed(trials, defined, tmp_path: Path) -> None:
    if shutil.which("qemu-system-arm") is None or shutil.which("clang-19") is None:
        pytest.skip("qemu-system-arm or clang-19 is not installed")
    wrong = [
        want ^ (given.entry.name == "vadd_s16") for given, want in zip(trials, defined, strict=True)
    ]
    differing = differing_on_core(trials, wrong, "cortex-m55", "mps3-an547", "clang", tmp_path)
    assert differing == ["vadd_s16"]


@pytest.mark.parametrize("name", sorted(INSTRUCTIONS))
def test_every_instruction_is_a_tensor_intrinsic(name: str) -> None:
    entry = INSTRUCTIONS[name]
    intrinsic = s_tir.TensorIntrin.get(name)
    described, calling = intrinsic.desc, intrinsic.impl
    # A buffer for each operand, and one for a result that is not left in the first operand.
    accumulates = entry.result != "void" and len(described.params) == len(entry.params)
    assert len(described.params) == len(entry.params) + (entry.result != "void" and not accumulates)
    for buffer, (_, dtype) in zip(described.params, entry.params, strict=False):
        if dtype != "handle":
            assert (str(buffer.dtype), int(buffer.shape[0])) == lanes(dtype)
    for one, other in zip(described.params, calling.params, strict=True):
        assert one.dtype == other.dtype
        assert list(map(str, one.shape)) == list(map(str, other.shape))
    assert regions(described) == regions(calling)
    assert C_PREFIX + name in external_calls(calling)
    assert external_calls(described) == []


def regions(func: tirx.PrimFunc) -> list[list[str]]:
    """What a function says it reads and writes."""
    block = func.body.block
    return [[str(region) for region in kind] for kind in (block.reads, block.writes)]


def external_calls(func: tirx.PrimFunc) -> list[str]:
    found = []

    def visit(call: tvm.ir.Call) -> None:
        if call.op.name == "tirx.call_extern":
            found.append(str(call.args[0].value))

    tvm_ffi.structural_walk(func.body, (tvm.ir.Call, visit))
    return found


@T.prim_func(s_tir=True)
def matrix_times_vector(
    x: T.Buffer((48,), "int8"), w: T.Buffer((5, 48), "int8"), y: T.Buffer((5,), "int32")
):
    for o, k in T.grid(5, 48):
        with T.sblock("dot"):
            vo, vk = T.axis.remap("SR", [o, k])
            with T.init():
                y[vo] = 0
            y[vo] = y[vo] + T.cast(x[vk], "int32") * T.cast(w[vo, vk], "int32")


def test_a_schedule_replaces_loops_by_an_instruction(tmp_path: Path) -> None:
    # Later versions crash where TVM 0.27 copies functions: an old .venv says so here.
    assert tvm_ffi.__version__.startswith("0.1.14"), "envs/setup.sh installs the locked versions"
    schedule = s_tir.Schedule(matrix_times_vector)
    block = schedule.get_sblock("dot")
    _, k = schedule.get_loops(block)
    outer, inner = schedule.split(k, [None, 16])
    schedule.decompose_reduction(block, outer)
    schedule.tensorize(inner, "vmladava_s8")
    kernel = lower_kernels(tvm.IRModule({"multiply": schedule.mod["main"]}))["multiply"]
    assert c.used_instructions({"multiply": kernel}) == ["vldrb_s8", "vmladava_s8"]
    library = portable_library({"multiply": kernel}, tmp_path)
    random = np.random.default_rng(0)
    x, w = (random.integers(-128, 128, shape).astype(np.int8) for shape in (48, (5, 48)))
    y = np.zeros(5, np.int32)
    library.multiply(*(ctypes.c_void_p(values.ctypes.data) for values in (x, w, y)))
    np.testing.assert_array_equal(y, w.astype(np.int32) @ x)
