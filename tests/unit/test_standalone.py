"""docs/standalone.md, followed to the letter."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

from helpers.host import WARNINGS
from mcuforge import mlf
from mcuforge.formats.tflite.oracle import evaluate

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "standalone.md"
MODEL = ROOT.parent / "shared" / "data" / "models" / "kws_ref_model.tflite"


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT.read_text(), re.M | re.S)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """An empty directory after everything the document says, and what each command printed."""
    if not MODEL.is_file():
        pytest.skip(f"{MODEL} is not there")
    for program in ("arm-none-eabi-gcc", "gcc"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    directory = tmp_path_factory.mktemp("project")
    shutil.copyfile(MODEL, directory / "kws.tflite")
    (source,) = _blocks("c")
    (directory / "main.c").write_text(source)
    printed = {}
    for block in _blocks("sh"):
        for line in block.splitlines():
            printed[line] = _run(shlex.split(line), directory)
    return directory, printed


def _run(command: list[str], directory: Path) -> str:
    environment = dict(os.environ)
    if command[0] == "mcuforge":
        command = [sys.executable, "-c", "import mcuforge.cli as c; c.main()", *command[1:]]
        environment["PYTHONPATH"] = str(ROOT / "src")
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_the_program_answers_as_litert_does(project: tuple[Path, dict[str, str]]) -> None:
    _, printed = project
    answer = evaluate(MODEL.read_bytes(), np.zeros((1, 490), np.uint8)).view(np.int8)[0]
    assert [int(line) for line in printed["./kws"].split()] == answer.tolist()


def test_main_is_short() -> None:
    (source,) = _blocks("c")
    body = source[source.index("int main") :].splitlines()
    assert len(body) <= 10


def test_the_files_of_the_document_are_those_of_the_archive(
    project: tuple[Path, dict[str, str]],
) -> None:
    directory, _ = project
    archive = mlf.read(directory / "kws.tar")
    named = set(re.findall(r"^\| `([^`]+)` \|", DOCUMENT.read_text(), re.M))
    assert named == {"metadata.json", *archive.members}
    for name in archive.members:
        assert (directory / name).exists() == name.startswith("codegen/")


def test_attributes_place_weights_and_workspace(project: tuple[Path, dict[str, str]]) -> None:
    directory, printed = project
    sizes = {}
    for name in ("tvmgen_kws.o", "tvmgen_kws_weights.o"):
        with (directory / name).open("rb") as file:
            for section in ELFFile(file).iter_sections():
                sizes.setdefault(section.name, []).append(
                    (section["sh_size"], section["sh_type"], section["sh_flags"])
                )
    info = mlf.read(directory / "kws.tar").info
    ((weights, kind, flags),) = sizes[".rodata.weights"]
    assert info.weights_bytes <= weights < info.weights_bytes + 16 * 100
    assert (kind, flags & 1) == ("SHT_PROGBITS", 0)  # in the image, not writable
    ((workspace, kind, _),) = sizes[".bss.dtcm"]
    assert (workspace, kind) == (info.workspace_bytes, "SHT_NOBITS")
    assert all(size == 0 for size, _, _ in sizes[".data"] + sizes[".bss"])
    listing = next(text for line, text in printed.items() if "objdump" in line)
    assert ".rodata.weights" in listing and ".bss.dtcm" in listing


def test_the_flags_stated_are_those_tests_hold_code_to(
    project: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    assert f"`{' '.join(WARNINGS)}`" in DOCUMENT.read_text()
    directory, _ = project
    model = directory / "codegen/host"
    command = ["arm-none-eabi-gcc", "-mcpu=cortex-m7", "-mfloat-abi=hard", "-std=c99", "-O3"]
    command += [*WARNINGS, "-DTVMGEN_PROFILE", f"-I{model / 'include'}", "-c"]
    _run([*command, *sorted(map(str, model.glob("src/*.c")))], tmp_path)
    called = (tmp_path / "tvmgen_kws.o").read_bytes()
    assert b"tvmgen_operator_begin" in called and b"tvmgen_operator_end" in called


def test_what_the_model_uses_of_the_c_library(project: tuple[Path, dict[str, str]]) -> None:
    directory, _ = project
    undefined, defined = set(), set()
    for name in ("tvmgen_kws.o", "tvmgen_kws_weights.o"):
        with (directory / name).open("rb") as file:
            for symbol in ELFFile(file).get_section_by_name(".symtab").iter_symbols():
                if symbol["st_info"]["bind"] == "STB_GLOBAL":
                    target = undefined if symbol["st_shndx"] == "SHN_UNDEF" else defined
                    target.add(symbol.name)
    assert undefined - defined <= {"memcpy", "memset", "memmove"}
    # Nothing global but the model's own: several models live in one program.
    assert all(name.startswith("tvmgen_kws") for name in defined)


def test_an_object_file_instead_of_c(project: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    directory, _ = project
    shutil.copyfile(directory / "kws.tflite", tmp_path / "kws.tflite")
    _run(["mcuforge", "compile", "kws.tflite", "--target", "cortex-m7-llvm"], tmp_path)
    named = re.search(r"`(codegen/host/lib/[^`]+)`", DOCUMENT.read_text())[1]
    assert named in mlf.read(tmp_path / "kws.tar").members
