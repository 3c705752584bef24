"""Target names, and what they say about a core."""

import shutil
import subprocess

import pytest

from mcuforge.errors import ConfigError
from mcuforge.target import Target


@pytest.mark.parametrize(
    ("name", "mcpu", "codegen", "core"),
    [
        ("cortex-m7-c", "cortex-m7", "c", "cortex-m7"),
        ("cortex-m55-llvm", "cortex-m55", "llvm", "cortex-m55"),
        ("cortex-m55+nomve-c", "cortex-m55+nomve", "c", "cortex-m55"),
        ("cortex-m85+nomve.fp+nodsp-llvm", "cortex-m85+nomve.fp+nodsp", "llvm", "cortex-m85"),
        ("cortex-m0plus-c", "cortex-m0plus", "c", "cortex-m0plus"),
        ("rv32imac_zba_zbb-llvm", "rv32imac_zba_zbb", "llvm", "rv32imac_zba_zbb"),
        ("host-c", "host", "c", "host"),
    ],
)
def test_a_name_is_read_and_written(name: str, mcpu: str, codegen: str, core: str) -> None:
    target = Target.parse(name)
    assert (target.mcpu, target.codegen, target.core) == (mcpu, codegen, core)
    assert target.name == name
    assert target == Target(mcpu, codegen)
    assert hash(target) == hash(Target(mcpu, codegen))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "not a target"),
        ("cortex-m7", "not a target"),
        ("cortex-m7-", "not a target"),
        ("CORTEX-M7-C", "not a target"),
        ("cortex-m7-c\n", "not a target"),
        ("cortex-m7 -fplugin=x-c", "not a target"),
        ("cortex-m99-c", "cortex-m99"),
        ("cortex-m7-rust", "rust"),
        ("cortex-m55+nosuch-c", r"\+nosuch"),
        ("cortex-m55+-c", r"'\+'"),
        ("rv32imc+nodsp-c", r"\+nodsp' of core 'rv32imc'"),
        ("-c", "not a target"),
    ],
)
def test_what_is_no_target_is_named(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        Target.parse(name)
    assert "\n" not in caught.value.message.replace(name, "")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("mcpu", "features"),
    [
        ("cortex-m0plus", set()),
        ("cortex-m3", set()),
        ("cortex-m4", {"dsp", "fp"}),
        ("cortex-m33+nodsp", {"fp"}),
        ("cortex-m55", {"dsp", "fp", "helium"}),
        ("cortex-m55+nomve", {"dsp", "fp"}),
        ("cortex-m55+nodsp", {"fp"}),  # Helium needs the DSP extension
        ("cortex-m55+nofp", {"dsp"}),
        ("cortex-m55+nomve.fp", {"dsp", "fp", "helium"}),  # integer Helium stays
        ("host", set()),
    ],
)
def test_features_follow_core_and_extensions(mcpu: str, features: set[str]) -> None:
    assert Target(mcpu).features == features


@pytest.mark.parametrize(
    ("mcpu", "triple"),
    [
        ("cortex-m0", "thumbv6m-none-eabi"),
        ("cortex-m3", "thumbv7m-none-eabi"),
        ("cortex-m7", "thumbv7em-none-eabihf"),
        ("cortex-m7+nofp", "thumbv7em-none-eabi"),
        ("cortex-m33", "thumbv8m.main-none-eabihf"),
        ("cortex-m85", "thumbv8.1m.main-none-eabihf"),
        ("rv32imc", "riscv32-unknown-elf"),
    ],
)
def test_triples_are_llvms(mcpu: str, triple: str) -> None:
    assert Target(mcpu).triple == triple


_MACROS = {"dsp": "__ARM_FEATURE_DSP", "helium": "__ARM_FEATURE_MVE", "fp": "__ARM_FP"}


@pytest.mark.skipif(not shutil.which("clang-19"), reason="no clang-19")
@pytest.mark.parametrize(
    "mcpu",
    [
        "cortex-m0",
        "cortex-m3",
        "cortex-m4",
        "cortex-m7+nofp",
        "cortex-m33",
        "cortex-m33+nodsp",
        "cortex-m55",
        "cortex-m55+nomve",
        "cortex-m55+nodsp",
        "cortex-m55+nofp",
        "cortex-m85",
        "cortex-m85+nomve.fp",
    ],
)
def test_a_compiler_sees_the_same_features(mcpu: str) -> None:
    features = Target(mcpu).features
    abi = "hard" if "fp" in features else "soft"
    command = ["clang-19", "--target=arm-none-eabi", "-mthumb", f"-mcpu={mcpu}"]
    command += [f"-mfloat-abi={abi}", "-dM", "-E", "-x", "c", "/dev/null"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    defined = {line.split()[1] for line in done.stdout.splitlines()}
    for feature, macro in _MACROS.items():
        assert (macro in defined) == (feature in features), feature
