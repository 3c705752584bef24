"""Instructions: what they are defined to compute, on this machine and on a core with Helium."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers.instructions import (
    Trial,
    by_definition,
    by_portable_c,
    differing_on_core,
    trial,
)
from mcuforge.isa import helium
from mcuforge.isa.instruction import INSTRUCTIONS, Instruction

# Those with immediate operands exist once they are asked for.
helium.vshl_n_s32(3), helium.vshr_n_s32(7)
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
        want ^ (given.entry.name == "vadd_s32") for given, want in zip(trials, defined, strict=True)
    ]
    differing = differing_on_core(trials, wrong, "cortex-m55", "mps3-an547", "clang", tmp_path)
    assert differing == ["vadd_s32"]
