"""Object files from TVM's LLVM: what is in them, that they link, and what they compute."""

import io
import subprocess
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile
from tvm.script import tirx as T

from helpers import tiny
from helpers.emulator import EmulatedModel
from helpers.fixtures import Compile, Expect
from helpers.host import HostModel
from helpers.lowered import lowered
from mcuforge import mlf, toolchains
from mcuforge.codegen import c, llvm
from mcuforge.codegen.lower import LoweredKernel
from mcuforge.compiler import compile_model
from mcuforge.errors import ConfigError, ModelError
from mcuforge.isa.instruction import INSTRUCTIONS
from mcuforge.target import Target

CORES = ("cortex-m4", "cortex-m7", "cortex-m55", "cortex-m55+nomve", "cortex-m85")
# What an object may ask of the libraries every toolchain has.
RUNTIME = {"memcpy", "memset", "memmove"}
MODELS = (
    "kws_ref_model",
    "vww_96_int8",
    "pretrainedResnet_quant",
    "ad01_int8",
    "str_ww_ref_model",
)


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], mlf.Archive]:
    """A small model, compiled for every core at levels without and with its instructions."""
    directory = tmp_path_factory.mktemp("objects")
    (directory / "tiny.tflite").write_bytes(tiny.model())
    archives = {}
    for core in CORES:
        for level in (1, 3):
            path = directory / f"{core}-{level}.tar"
            target = Target(core, "llvm")
            compile_model(directory / "tiny.tflite", "tiny", target, level, path)
            archives[core, level] = mlf.read(path)
    return archives


def _elf(archive: mlf.Archive) -> ELFFile:
    return ELFFile(io.BytesIO(archive.members["codegen/host/lib/tvmgen_tiny_kernels.o"]))


def _symbols(elf: ELFFile) -> tuple[set[str], set[str]]:
    """Defined and undefined global symbols."""
    defined, undefined = set(), set()
    for symbol in elf.get_section_by_name(".symtab").iter_symbols():
        if symbol["st_info"]["bind"] != "STB_LOCAL":
            (undefined if symbol["st_shndx"] == "SHN_UNDEF" else defined).add(symbol.name)
    return defined, undefined


@pytest.mark.parametrize("level", [1, 3])
@pytest.mark.parametrize("core", CORES)
def test_an_object_holds_the_kernels_and_nothing_else(objects, core: str, level: int) -> None:
    archive = objects[core, level]
    elf = _elf(archive)
    assert (elf["e_machine"], elf["e_type"], elf.elfclass) == ("EM_ARM", "ET_REL", 32)
    defined, undefined = _symbols(elf)
    operators = {entry.symbol for entry in archive.info.operators} - {"memcpy"}
    assert defined == operators
    shared = {f"tvmgen_tiny_{name}" for name, entry in INSTRUCTIONS.items() if not entry.llvm}
    assert undefined <= RUNTIME | shared
    source = archive.members["codegen/host/src/tvmgen_tiny.c"].decode()
    for name in undefined - RUNTIME:
        assert f"{name}(" in source
    for section in elf.iter_sections():
        assert not section.name.startswith((".debug", ".init_array", ".ctors", ".data", ".bss"))
        if section["sh_type"] == "SHT_REL":  # nothing goes through a global offset table
            kinds = {relocation["r_info_type"] for relocation in section.iter_relocations()}
            assert kinds <= {10, 30, 42}  # R_ARM_THM_CALL, _THM_JUMP24, _PREL31


@pytest.mark.parametrize("core", CORES)
def test_an_object_says_what_it_was_made_for(objects, core: str) -> None:
    section = _elf(objects[core, 3]).get_section_by_name(".ARM.attributes")
    attributes = {
        attribute.tag: attribute.value
        for subsection in section.iter_subsections()
        for part in subsection.iter_subsubsections()
        for attribute in part.iter_attributes()
    }
    assert attributes["TAG_CPU_NAME"] == core.split("+")[0]
    assert attributes["TAG_ABI_VFP_ARGS"] == 1  # hard float
    assert ("TAG_MVE_ARCH" in attributes) == (core in ("cortex-m55", "cortex-m85"))


@pytest.mark.parametrize("core", ["cortex-m55", "cortex-m85"])
def test_helium_is_used_where_the_core_has_it(compiled: Compile, core: str) -> None:
    def vectors(target: str) -> int:
        archive = mlf.read(compiled("kws_ref_model", target, 3))
        (code,) = (m for n, m in archive.members.items() if n.endswith(".o"))
        # vldrb, vldrw, vstrb... of Helium: 0xec/0xed.. in the first halfword, 0x1e/0x1f in the
        # second (Armv8-M ARM, C2.4.384 and following); scalar code has next to none.
        text = np.frombuffer(ELFFile(io.BytesIO(code)).get_section_by_name(".text").data(), "<u2")
        return int(((text[:-1] & 0xFE00 == 0xEC00) & (text[1:] & 0x1E00 == 0x1E00)).sum())

    assert vectors(f"{core}-llvm") > 20 > 2 * vectors(f"{core}+nomve-llvm")


@pytest.mark.parametrize("linker", ["lld", "bfd"])
@pytest.mark.parametrize("core", CORES)
def test_linkers_take_the_object_beside_compiled_c(
    objects, core: str, linker: str, tmp_path: Path
) -> None:
    try:
        tools = toolchains.toolchain("tvm-llvm", core)
    except ConfigError as error:
        pytest.skip(str(error))
    objects[core, 3].extract(tmp_path)
    (tmp_path / "main.c").write_text(
        '#include "tvmgen_tiny.h"\nint main(void) { return (int)tvmgen_tiny_run(0, 0); }\n'
    )
    model = tmp_path / "codegen/host"
    compile_c = [tools.compiler, *tools.flags, "-O1", f"-I{model / 'include'}", "-c"]
    relocatable = [str(path) for path in sorted(model.glob("lib/*.o"))]
    for source in (tmp_path / "main.c", *sorted(model.glob("src/*.c"))):
        output = str(source.with_suffix(".obj"))
        done = subprocess.run([*compile_c, str(source), "-o", output], capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        relocatable.append(output)
    program = {"lld": toolchains.find("ld.lld-19"), "bfd": toolchains.find("arm-none-eabi-ld")}
    flags = ["-static", "-e", "main", "-Ttext=0x8000"]
    libraries = [str(library) for library in tools.libraries]
    done = subprocess.run(
        [program[linker], *flags, *relocatable, *libraries, "-o", str(tmp_path / "out.elf")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    # GNU ld complains about enumerations in newlib beside clang's objects, but not about ours.
    assert "tvmgen_tiny_kernels" not in done.stderr


# A level without and one with the core's instructions; a Cortex-M85 runs one model of each kind.
CELLS = [("cortex-m4-llvm", 4), ("cortex-m7-llvm", 1), ("cortex-m55-llvm", 3)]
JOBS = [(model, *cell) for model in MODELS for cell in CELLS]
JOBS += [(model, "cortex-m85-llvm", 3) for model in ("kws_ref_model", "ad01_int8")]


@pytest.mark.parametrize(("model", "target", "opt_level"), JOBS)
def test_every_byte_is_as_litert_says(
    model: str, target: str, opt_level: int, compiled: Compile, expected: Expect, tmp_path: Path
) -> None:
    inputs, outputs = expected(model)
    emulated = EmulatedModel(compiled(model, target, opt_level), tmp_path, "tvm-llvm")
    np.testing.assert_array_equal(emulated.run(inputs[:13]), outputs[:13])


@pytest.mark.parametrize("model", ["str_ww_ref_model", "ad01_int8"])
def test_the_machine_this_runs_on_is_a_target_too(
    model: str, compiled: Compile, expected: Expect, tmp_path: Path
) -> None:
    inputs, outputs = expected(model)
    host = HostModel(compiled(model, "host-llvm", 2), tmp_path)
    np.testing.assert_array_equal(host.run(inputs), outputs)


def test_float_models_agree(compiled: Compile, expected: Expect, tmp_path: Path) -> None:
    inputs, outputs = expected("ad01_fp32")
    emulated = EmulatedModel(compiled("ad01_fp32", "cortex-m7-llvm", 2), tmp_path, "tvm-llvm")
    wanted, given = outputs[:5].view(np.float32), emulated.run(inputs[:5]).view(np.float32)
    np.testing.assert_allclose(given, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


def test_options_follow_the_core() -> None:
    options = llvm.target_options(Target.parse("cortex-m55+nomve+nofp-llvm"))
    assert options["mtriple"] == "thumbv8.1m.main-none-eabi"
    assert options["mcpu"] == "cortex-m55"
    assert options["mattr"] == ["-mve", "-fpregs"]
    assert options["mfloat-abi"] == "soft"
    assert llvm.target_options(Target.parse("cortex-m7-llvm"))["mfloat-abi"] == "hard"
    with pytest.raises(ConfigError, match="cortex-m7-c"):
        llvm.target_options(Target.parse("cortex-m7-c"))


def _unary(dtype: str, compute) -> LoweredKernel:
    """y[i] = compute(x[i]) for 16 elements."""

    @T.prim_func(private=True)
    def unary(x: T.Buffer((16,), dtype), y: T.Buffer((16,), dtype)):
        for i in range(16):
            y[i] = compute(x[i])

    return lowered(unary)


def test_what_llvm_cannot_do_is_an_error_that_names_the_model() -> None:
    kernel = _unary("float32", T.erf)
    with pytest.raises(ModelError, match="tvmgen_m"):
        llvm.kernels_object("tvmgen_m", {"erf": kernel}, Target.parse("cortex-m7-llvm"))


@pytest.mark.parametrize(
    ("name", "compute", "calls"),
    [
        ("exp", T.exp, {"expf"}),
        ("tanh", T.tanh, {"tanhf"}),
        ("rsqrt", T.rsqrt, set()),
        ("sqrt", T.sqrt, set()),
    ],
)
def test_math_comes_from_libm_or_the_fpu(name: str, compute, calls: set[str]) -> None:
    content = llvm.kernels_object(
        "m", {name: _unary("float32", compute)}, Target.parse("cortex-m7-llvm")
    )
    _, undefined = _symbols(ELFFile(io.BytesIO(content)))
    assert calls <= undefined <= calls | {"sqrtf"}
    assert name in c.MATH


def test_the_same_kernels_give_the_same_bytes() -> None:
    target = Target.parse("cortex-m55-llvm")
    first, second = (
        llvm.kernels_object("m", {"k": _unary("int32", lambda v: v * v + 1)}, target)
        for _ in range(2)
    )
    assert first == second
