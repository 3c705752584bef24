"""The Zephyr port, with a model of a few lines: exact, timed, and faults are reported."""

import dataclasses
import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

from helpers import fake_mlf, standalone
from helpers.layers import Layers
from mcuforge import boards
from mcuforge.boards import flashing
from mcuforge.compiler import compile_model
from mcuforge.errors import BoardError, ToolError
from mcuforge.firmware import builder, commands, workspace, zephyr
from mcuforge.firmware.project import Order, Purpose, read_samples
from mcuforge.runner.device import Device
from mcuforge.target import Target

INVENTORY = boards.load(Path(__file__).parents[2] / "config" / "boards.yaml")
EMULATED = ("zephyr_mps2_an500", "zephyr_mps3_an547")
LOOP = "for (volatile int i = 0; i < 100000; i++) {}"


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return fake_mlf.write(tmp_path_factory.mktemp("mlf") / "model.tar")


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    return fake_mlf.write_vectors(tmp_path_factory.mktemp("vectors") / "vectors.npz")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A data set of random inputs, labelled with what the model answers."""
    directory = tmp_path_factory.mktemp("dataset")
    inputs = np.random.default_rng(5).integers(-128, 128, (6, 16), dtype=np.int8)
    lines = []
    for index, (row, answer) in enumerate(zip(inputs, fake_mlf.run(inputs), strict=True)):
        (directory / f"{index}.bin").write_bytes(row.tobytes())
        lines.append(f"{index}.bin,4,{int(np.argmax(answer))}\n")
    (directory / "y_labels.csv").write_text("".join(lines))
    return directory


@pytest.mark.parametrize("toolchain", ["gcc", "clang"])
@pytest.mark.parametrize("board", EMULATED)
def test_runs_exactly_in_every_mode(built, archive, vectors, labelled, board, toolchain):
    firmware = built(archive, board, toolchain)
    for mode in ("setup", "performance"):
        measurement = firmware.measure(vectors, mode)
        assert measurement.status == "ok" and measurement.exact
        assert 0 < measurement.instructions < 10_000
        assert 0 < measurement.stack_bytes < 1000
    measurement = firmware.measure(vectors, "accuracy", data_set=labelled)
    assert measurement.accuracy == 1.0


@pytest.mark.parametrize("board", EMULATED)
def test_times_are_right_and_repeat(built, tmp_path, vectors, board):
    """A loop of a known number of instructions takes that many nanoseconds under QEMU."""
    cell = built(fake_mlf.write(tmp_path / "model.tar", body=LOOP), board, "gcc")
    measurement = cell.measure(vectors)
    ticks = [lap["ticks"] for lap in measurement.laps]
    assert max(ticks) - min(ticks) <= 1
    assert 100_000 * 3 < measurement.instructions < 100_000 * 8


def device(cell):
    (instance,) = INVENTORY.instances(cell.board.name)
    return Device(cell.board, instance, cell.elf, cell.size.build_id)


@pytest.mark.parametrize("board", EMULATED)
def test_a_fault_is_reported_and_the_next_command_works(built, tmp_path, board):
    body = '__asm volatile("udf #0");'
    cell = built(fake_mlf.write(tmp_path / "model.tar", body=body), board, "gcc")
    with device(cell) as board_in_use:
        client = board_in_use.client
        client.load(bytes(16))
        with pytest.raises(BoardError, match=r"Fault \d+: pc=0x[0-9a-f]{8}"):
            client.infer(1, 0, 60.0)
        client.synchronize(30.0)
        assert client.profile().build_id == cell.size.build_id


def test_a_stack_overflow_is_reported(built, tmp_path):
    body = "volatile char hole[20000]; for (int i = 0; i < 20000; i++) { hole[i] = 1; }"
    cell = built(fake_mlf.write(tmp_path / "model.tar", body=body), "zephyr_mps3_an547", "gcc")
    with device(cell) as board_in_use:
        board_in_use.client.load(bytes(16))
        with pytest.raises(BoardError, match=r"Fault|Stack overflow"):
            board_in_use.client.infer(1, 0, 60.0)


def test_the_same_inputs_give_the_same_bytes(built, archive, tmp_path):
    first = built(archive, "zephyr_mps2_an500", "gcc")
    elf, size = tmp_path / "f.elf", tmp_path / "size.json"
    builder.build(Order(archive, first.board, "gcc"), elf, size)
    assert elf.read_bytes() == first.elf.read_bytes()
    assert size.read_bytes() == first.size_json.read_bytes()


def settings(cell):
    """Kconfig's symbols of a build that are set."""
    lines = (cell.project / "build" / "zephyr" / ".config").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line.startswith("CONFIG_"))


def flags_of(cell, name):
    """The compiler's command line for one source file."""
    commands = json.loads((cell.project / "build" / "compile_commands.json").read_text())
    (entry,) = (entry for entry in commands if entry["file"].endswith(name))
    return entry["command"].split()


# What docs/boards.md says is on by default.
COMMON = ("FPU", "FPU_SHARING", "ICACHE", "DCACHE", "CACHE_MANAGEMENT", "CORTEX_M_DWT")
ON = {
    ("nucleo_h743zi", "gcc"): (*COMMON, "MPU_STACK_GUARD", "SIZE_OPTIMIZATIONS"),
    ("nucleo_h743zi", "clang"): (*COMMON, "MPU_STACK_GUARD", "SIZE_OPTIMIZATIONS_AGGRESSIVE"),
    ("ek_ra8m1", "clang"): (*COMMON, "ARMV8_1_M_MVEI", "ARMV8_1_M_MVEF", "BUILTIN_STACK_GUARD"),
}


@pytest.mark.parametrize(("board", "toolchain"), ON)
def test_nothing_is_left_slow(built, archive, board, toolchain):
    cell = built(archive, board, toolchain)
    config = settings(cell)
    assert {name: config.get(f"CONFIG_{name}") for name in ON[board, toolchain]} == dict.fromkeys(
        ON[board, toolchain], "y"
    )
    assert int(config["CONFIG_SYS_CLOCK_HW_CYCLES_PER_SEC"]) == cell.board.clock_hz == 480_000_000
    flags = flags_of(cell, "tvmgen_tiny.c")
    assert [flag for flag in flags if flag.startswith("-O")][-1] == "-O3"
    assert [flag for flag in flags if flag.startswith("-mcpu=")][-1] == f"-mcpu={cell.board.core}"
    assert "-O3" not in flags_of(cell, "kernel/timer.c")
    # The firmware may fill the whole flash, not one partition.
    flash, kilobytes = cell.board.memory("code"), int(config["CONFIG_FLASH_SIZE"])
    assert kilobytes << 10 == flash.size
    assert config["CONFIG_FLASH_LOAD_OFFSET"] in ("0", "0x0")
    script = (cell.project / "build" / "zephyr" / "linker.cmd").read_text()
    region = rf"FLASH \(rx\) : ORIGIN = \({flash.origin:#x} \+ 0x0\), "
    assert re.search(rf"{region}LENGTH = \({kilobytes} \* 1024 - 0x0 - 0x0\)", script)


def test_helium_is_used(built, tmp_path):
    """The kernels' object has dot products of Helium: the compiler is told of the true core."""
    (tmp_path / "m.tflite").write_bytes(Layers((1, 8, 8, 16), 0).conv((1, 1), 16).model())
    compile_model(tmp_path / "m.tflite", "layer", Target("cortex-m85"), 3, tmp_path / "m.tar")
    cell = built(tmp_path / "m.tar", "ek_ra8m1", "clang")
    (model,) = (cell.project / "build").rglob("tvmgen_layer.c.obj")
    dump = subprocess.run(
        ["llvm-objdump-19", "-d", str(model)], check=True, capture_output=True, text=True
    ).stdout
    assert re.search(r"\tvmlava?\.s8", dump)


def test_without_the_sdk_the_error_says_so(archive, tmp_path, monkeypatch):
    monkeypatch.delenv("ZEPHYR_SDK_INSTALL_DIR", raising=False)
    board = dataclasses.replace(INVENTORY.board(EMULATED[0]), zephyr_variants={"gcc": "zephyr"})
    try:
        builder.build(Order(archive, board, "gcc"), tmp_path / "f.elf", tmp_path / "s.json")
    except ToolError as error:
        assert str(error).startswith("Zephyr's SDK not found (install it")
    else:
        assert "of Zephyr SDK" in (tmp_path / "s.json").read_text()


def test_placement_in_tightly_coupled_memories(built, archive):
    board = dataclasses.replace(
        INVENTORY.board("nucleo_h743zi"),
        zephyr_fragments=("weights-dtcm.conf", "workspace-dtcm.conf", "kernels-itcm.conf"),
    )
    with built(archive, board, "gcc").elf.open("rb") as stream:
        symbols = ELFFile(stream).get_section_by_name(".symtab")
        address = {symbol.name: symbol["st_value"] for symbol in symbols.iter_symbols()}
    assert 0 < address["tvmgen_tiny_run"] < 64 << 10
    assert 0x20000000 <= address["workspace"] < 0x20020000
    assert 0x08000000 <= address["application_run"] < 0x08200000


def test_what_does_not_fit_says_by_how_much(built, tmp_path):
    archive = fake_mlf.write(tmp_path / "model.tar", workspace=600_000)
    size = built(archive, "zephyr_mps3_an547", "gcc").size
    assert not size.fits and size.missing_flash_bytes == 0
    assert 600_000 - (512 << 10) < size.missing_ram_bytes < 200_000


# RAM elsewhere, so that the data TCM is free for what is asked for.
DTCM_FREE = """
/ {
	chosen {
		zephyr,sram = &isram;
		zephyr,dtcm = &dtcm;
	};
};
"""


@pytest.mark.parametrize(
    ("board", "options"),
    [
        ("zephyr_mps2_an500", []),
        ("zephyr_mps3_an547", ["weights-dtcm.conf", "workspace-dtcm.conf"]),
    ],
)
def test_a_standalone_application_builds_by_hand(archive, vectors, tmp_path, board, options):
    board, project = INVENTORY.board(board), tmp_path / "app"
    target = workspace.find().target(board)
    samples = read_samples(vectors)
    purpose = Purpose("standalone", samples)
    builder.generate(archive, tmp_path / "made", None, "gcc", purpose)
    (tmp_path / "made").rename(project)
    settings = zephyr.toolchain_settings(board, "gcc")
    arguments = []
    if options:
        (project / "boards" / f"{target.replace('/', '_')}.overlay").write_text(DTCM_FREE)
        arguments = ["--", "-DEXTRA_CONF_FILE=" + ";".join(f"fragments/{o}" for o in options)]
    commands.run(
        [workspace.west(), "build", "--board", target, *arguments],
        environment=os.environ | settings,
        directory=project,
    )
    printed = standalone.output(board.machine, project / "build" / "zephyr" / "zephyr.elf")
    assert sum("exact, outputs" in line for line in printed) == 3, printed


FLASH = {
    "nucleo_h743zi": {
        "openocd": ("openocd", "board/st_nucleo_h743zi.cfg|openocd.cfg"),
        "stm32cubeprogrammer": ("STM32_Programmer_CLI", "port=swd"),
        "jlink": ("JLinkExe", "STM32H743ZI"),
        "pyocd": ("pyocd", "stm32h743zitx"),
    },
    "ek_ra8m1": {"jlink": ("JLinkExe", "R7FA8M1AH"), "pyocd": ("pyocd", "R7FA8M1AH")},
}


@pytest.mark.parametrize(
    ("board", "toolchain", "runner_name"),
    [
        ("nucleo_h743zi", "gcc", "openocd"),
        ("nucleo_h743zi", "gcc", "stm32cubeprogrammer"),
        ("nucleo_h743zi", "gcc", "jlink"),
        ("nucleo_h743zi", "gcc", "pyocd"),
        ("ek_ra8m1", "clang", "jlink"),
        ("ek_ra8m1", "clang", "pyocd"),
    ],
)
def test_west_flash(built, archive, tmp_path, monkeypatch, board, toolchain, runner_name):
    """`west flash` of what was built, with programs that only write down how they were called."""
    cell = built(archive, board, toolchain)
    program, told = FLASH[board][runner_name]
    programs, calls = tmp_path / "bin", tmp_path / "calls"
    programs.mkdir()
    stub = programs / program
    stub.write_text(
        f'#!/bin/sh\necho "$0 $*" >> {calls}\n'
        "for last; do :; done\n"
        f'for word; do case "$word" in *.jlink) cat "$word" >> {calls};; esac; done\n'
    )
    stub.chmod(0o755)
    if runner_name == "jlink":  # west asks the library beside the program for its version
        library = ["gcc", "-shared", "-x", "c", "-", "-o", str(programs / "libjlinkarm.so")]
        source = "int JLINKARM_GetDLLVersion(void) { return 79600; }"
        subprocess.run(library, input=source, text=True, check=True)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    parameters = ("--build-dir", str(cell.project / "build"), "--runner", runner_name)
    instance = boards.Instance(
        id="1",
        board=board,
        serial="/dev/null",
        runner="west",
        runner_params=parameters,
    )
    flashing.flash(cell.board, instance, cell.elf)
    called = Path(calls).read_text()
    assert any(word in called for word in told.split("|")), called
    assert program in called
