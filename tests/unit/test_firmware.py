"""Firmware builds: reproducible, sized, and with errors a person can act on."""

import dataclasses
import shutil
import tempfile
from pathlib import Path

import pytest

from helpers import fake_mlf
from mcuforge import boards, toolchains
from mcuforge.errors import ConfigError, ModelError, ToolError
from mcuforge.firmware import builder, project, stack
from mcuforge.firmware.project import Order, Purpose
from mcuforge.results.columns import Size

BOARDS = boards.load(Path(__file__).parents[2] / "config" / "boards.yaml")
BOARD = BOARDS.board("mps2_an500")


@pytest.fixture
def archive(tmp_path):
    return fake_mlf.write(tmp_path / "model.tar")


def build(
    tmp_path,
    archive,
    toolchain="gcc",
    board=BOARD,
    name="firmware",
    project=None,
    log=None,
    **purpose,
):
    elf, size = tmp_path / f"{name}.elf", tmp_path / f"{name}.json"
    order = Order(archive, board, toolchain, Purpose(**purpose), log)
    return elf, builder.build(order, elf, size, project)


@pytest.mark.parametrize("toolchain", ["gcc", "clang"])
def test_the_same_inputs_give_the_same_bytes_wherever_they_are(tmp_path, archive, toolchain):
    first, size = build(tmp_path, archive, toolchain)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    copy = Path(shutil.copy(archive, moved))
    second, again = build(moved, copy, toolchain, project=moved / "project")
    assert first.read_bytes() == second.read_bytes()
    assert size == again == Size.read(tmp_path / "firmware.json")
    assert str(tmp_path).encode() not in first.read_bytes()
    assert size.build_id.encode() in first.read_bytes()


def test_the_build_id_changes_with_everything_the_firmware_is_made_from(tmp_path, archive):
    def build_id(source=archive, toolchain="gcc", board=BOARD, **kwargs):
        with tempfile.TemporaryDirectory(dir=tmp_path) as directory:
            tools = toolchains.toolchain(toolchain, board.core)
            made = project.generate(source, board, tools, Path(directory), Purpose(**kwargs))
            return made.build_id

    ids = [
        build_id(),
        build_id(benchmark="kws01"),
        build_id(board=dataclasses.replace(BOARD, stack_bytes=4096)),
        build_id(toolchain="clang"),
        build_id(fake_mlf.write(tmp_path / "b.tar", result="1")),
    ]
    assert len(set(ids)) == len(ids)
    assert build_id() == ids[0]


def test_sizes_add_up(tmp_path, archive):
    _, size = build(tmp_path, fake_mlf.write(tmp_path / "model.tar", workspace=5000))
    ram = {".stack", ".data", ".bss", ".workspace"}
    assert size.fits and size.missing_flash_bytes == size.missing_ram_bytes == 0
    assert size.workspace_bytes == 5000
    assert size.stack_reserved_bytes == size.sections[".stack"] == BOARD.stack_bytes
    assert size.ram_bytes == sum(v for k, v in size.sections.items() if k in ram)
    flash = sum(v for k, v in size.sections.items() if k not in ram)
    assert size.flash_bytes == flash + size.sections[".data"]
    assert 0 < size.code_bytes < size.flash_bytes
    harness = size.ram_bytes - size.workspace_bytes - size.stack_reserved_bytes
    assert harness < 256, "the harness must be small in RAM"


def smaller(**sizes):
    memories = tuple(dataclasses.replace(m, size=sizes.get(m.name, m.size)) for m in BOARD.memories)
    return dataclasses.replace(BOARD, memories=memories)


@pytest.mark.parametrize("toolchain", ["gcc", "clang"])
def test_what_is_too_large_is_linked_and_says_what_is_missing(tmp_path, toolchain):
    archive = fake_mlf.write(tmp_path / "model.tar", workspace=100_000)
    _, fitting = build(tmp_path, archive, toolchain)
    board = smaller(SSRAM1=4096, SSRAM23=65536)
    elf, size = build(tmp_path, archive, toolchain, board=board)
    assert elf.stat().st_size and not size.fits
    assert size.missing_flash_bytes == pytest.approx(fitting.flash_bytes - 4096, abs=64)
    assert size.missing_ram_bytes == pytest.approx(fitting.ram_bytes - 65536, abs=64)
    exact = smaller(SSRAM1=4096 + size.missing_flash_bytes, SSRAM23=65536 + size.missing_ram_bytes)
    assert build(tmp_path, archive, toolchain, board=exact)[1].fits


def test_a_compiler_error_is_reported_with_its_cause(tmp_path):
    archive = fake_mlf.write(tmp_path / "model.tar", body="undeclared = 1;")
    log = tmp_path / "log"
    log.write_text("before\n")
    with pytest.raises(ToolError, match=r"tvmgen_tiny\.c.*'undeclared' undeclared") as error:
        build(tmp_path, archive, log=log)
    assert "\n" not in str(error.value) and str(log) in error.value.hint
    assert log.read_text().startswith("before\n") and "undeclared" in log.read_text()
    assert not (tmp_path / "firmware.elf").exists()


@pytest.mark.parametrize(
    ("missing", "toolchain", "package"),
    [
        ("arm-none-eabi-gcc", "gcc", "gcc-arm-none-eabi"),
        ("clang-19", "clang", "clang-19"),
        ("ld.lld-19", "clang", "lld-19"),
        ("cmake", "gcc", "cmake"),
        ("ninja", "gcc", "ninja-build"),
    ],
)
def test_a_missing_tool_is_named_with_its_package(
    tmp_path, archive, monkeypatch, missing, toolchain, package
):
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == missing else which(name))
    with pytest.raises(ToolError, match=f"{missing} not found.*Debian package {package}\\)$"):
        build(tmp_path, archive, toolchain)


def test_gcc_12_cannot_build_for_cortex_m85(monkeypatch):
    version = toolchains.version("gcc", "cortex-m85")
    if int(version.split()[1].split(".")[0]) >= 13:
        pytest.skip("this gcc knows cortex-m85")
    with pytest.raises(ToolError, match=r"cortex-m85 \(gcc >= 13 or toolchain clang is needed\)"):
        toolchains.toolchain("gcc", "cortex-m85")


def test_clang_builds_for_cortex_m85_and_for_a_core_without_helium(tmp_path, archive):
    for core in ("cortex-m85", "cortex-m55+nomve"):
        _, size = build(tmp_path, archive, "clang", dataclasses.replace(BOARD, core=core))
        assert size.fits


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"toolchain": "icc"}, ConfigError, "'icc' cannot build for mps2_an500"),
        (
            {"board": dataclasses.replace(BOARD, vendor='a"; int x')},
            ConfigError,
            "cannot be reported",
        ),
        ({"benchmark": "kws]01"}, ConfigError, "cannot be reported"),
        (
            {"board": BOARDS.board("nucleo_h743zi")},
            (ConfigError, ToolError),
            "nucleo_h743zi|[Zz]ephyr",
        ),
    ],
)
def test_what_cannot_be_built_is_refused(tmp_path, archive, kwargs, error, message):
    with pytest.raises(error, match=message):
        build(tmp_path, archive, **kwargs)


def test_an_archive_cannot_smuggle_code_through_its_names(tmp_path, monkeypatch):
    path = fake_mlf.write(tmp_path / "model.tar")
    content = path.read_bytes().replace(b'"identity"', b'"i=0,.x=1"')
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"C identifier|c_name"):
        build(tmp_path, path)


def test_the_project_is_left_where_asked_and_never_mixed_with_other_files(tmp_path, archive):
    directory = tmp_path / "project"
    build(tmp_path, archive, project=directory)
    for name in ("CMakeLists.txt", "LICENSE.md", "generated/memory.ld"):
        assert (directory / name).is_file()
    with pytest.raises(ConfigError, match="not empty"):
        build(tmp_path, archive, project=directory)


RECURSIVE = """
    extern int32_t tvmgen_tiny_run(struct tvmgen_tiny_inputs *, struct tvmgen_tiny_outputs *);
    static volatile int depth;
    if (depth++ < 3) {
        int32_t result = tvmgen_tiny_run(inputs, outputs);
        depth--;
        return result;
    }
"""
POINTER = """
    static void *(*volatile copy)(void *, const void *, size_t) = memcpy;
    copy(outputs->identity, inputs->input_1, 4);
"""
VARIABLE = """
    volatile char array[(inputs->input_1[0] & 15) + 1];
    array[0] = 1;
"""


@pytest.mark.parametrize("toolchain", ["gcc", "clang"])
def test_the_stack_bound_counts_arrays(tmp_path, archive, toolchain):
    small = build(tmp_path, archive, toolchain)[1].stack_bound_bytes
    body = 'char array[1000]; __asm volatile("" : : "r"(array) : "memory");'
    large = fake_mlf.write(tmp_path / "large.tar", body=body)
    assert 1000 <= build(tmp_path, large, toolchain)[1].stack_bound_bytes - small < 1100


@pytest.mark.parametrize("body", [RECURSIVE, POINTER, VARIABLE])
@pytest.mark.parametrize("toolchain", ["gcc", "clang"])
def test_a_stack_that_cannot_be_bounded_is_not(tmp_path, body, toolchain):
    archive = fake_mlf.write(tmp_path / "model.tar", body=body)
    elf, size = build(tmp_path, archive, toolchain)
    assert size.stack_bound_bytes is None
    assert stack.bound(elf, "port_ticks_hz", BOARD.core) == 0
