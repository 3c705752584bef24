"""Modelled cycles: of blocks whose cycles are known, and of a firmware as it would be flashed."""

import dataclasses
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

from helpers import tiny
from mcuforge import boards, mlf
from mcuforge.boards import Board
from mcuforge.boards.inventory import Cache, Inventory, TimedMemory, Timing
from mcuforge.compiler import compile_model
from mcuforge.cycles import cores
from mcuforge.cycles.predict import predict
from mcuforge.cycles.program import Call, Image
from mcuforge.cycles.simulator import Costs, simulate, total
from mcuforge.errors import ConfigError, ModelError
from mcuforge.firmware.builder import build
from mcuforge.firmware.project import Order, Purpose
from mcuforge.formats.tflite import describe
from mcuforge.models import vectors
from mcuforge.results.columns import Measurement
from mcuforge.runner.session import Firmware, Plan, measure
from mcuforge.target import Target

INVENTORY = boards.load(Path(__file__).parents[2] / "config" / "boards.yaml")
FREE = Timing("no wait states", 1_000_000)
REPEATS = (64, 192)
ADDRESS = ("movw r0, #:lower16:data", "movt r0, #:upper16:data")
CODE, DATA = 0x08000000, 0x20000000
MULTIPLY = [f"smlad r{acc}, r11, r{x}, r{acc}" for x in (4, 5) for acc in (2, 3, 7, 8, 9, 10)]
# 24 multiply-accumulates: two channels of three pixels, four inputs each.
LDM_STEP = [
    "ldmia r0!, {r4, r5, r6}",
    "ldrd r11, r12, [r1], #8",
    *MULTIPLY[:6],
    "ldmia r0!, {r4, r5, r6}",
    *("sxtb16 r11, r11", "sxtb16 r12, r12"),
    *MULTIPLY[:6],
]
# The same with single loads between the multiplications.
DUAL_STEP = """\
    ldr r6, [r0, #8]
    smlad r2, r11, r4, r2
    smlad r3, r12, r4, r3
    ldr r4, [r0, #12]
    smlad r7, r11, r5, r7
    smlad r8, r12, r5, r8
    ldr r5, [r0, #16]
    smlad r9, r11, r6, r9
    sxtb16 lr, r11
    smlad r10, r12, r6, r10
    sxtb16 r12, r12
    smlad r2, lr, r4, r2
    ldr r6, [r0, #20]
    smlad r3, r12, r4, r3
    ldr r11, [r1, #8]!
    smlad r7, lr, r5, r7
    ldr r4, [r0, #24]!
    smlad r8, r12, r5, r8
    ldr r5, [r0, #4]
    smlad r10, r12, r6, r10
    ldr r12, [r1, #4]
    smlad r9, lr, r6, r9""".splitlines()
# Cycles of a repetition, on cortex-m7 and on cortex-m4.
BLOCKS: dict[str, tuple[list[str], int | float, int | float]] = {
    "independent_additions": (["add.w r2, r2, #1", "add.w r3, r3, #1"], 1, 2),
    "dependent_additions": (["add.w r2, r2, #1", "add.w r2, r2, #1"], 2, 2),
    "multiply_accumulates": (["smlad r2, r4, r5, r2", "smlad r2, r4, r5, r2"], 2, 2),
    "dependent_factors": (["smlad r2, r2, r4, r5"], 2, 1),
    "loads_of_two_banks": (["ldr r2, [r0]", "ldr r3, [r0, #4]"], 1, 2),
    "loads_of_one_bank": (["ldr r2, [r0]", "ldr r3, [r0, #8]"], 2, 2),
    "load_beside_multiplication": (["ldr r2, [r0]", "smlad r3, r4, r5, r3"], 1, 3),
    "addresses_from_memory": (["ldr r6, [r6]"], 2, 1),
    "load_not_aligned": (["ldr r2, [r0, #1]", "nop.w"], 5, 4),
    "four_registers": (["ldmia r0, {r2, r3, r4, r5}"], 2, 5),
    "five_registers": (["ldmia r0, {r2, r3, r4, r5, r7}"], 3, 6),
    "extensions": (["sxtb16 r2, r4", "sxtb16 r3, r5"], 2, 2),
    "jump": (["b.w . + 4"], 1, 1),
    "dot_ldm": (LDM_STEP, 19, 25),
    "dot_dual": (DUAL_STEP, 12, 30),
}


def assemble(source: str, directory: Path) -> Path:
    """A program of Thumb code at CODE and data at DATA."""
    if shutil.which("arm-none-eabi-gcc") is None or shutil.which("qemu-arm") is None:
        pytest.skip("arm-none-eabi-gcc or qemu-arm is not installed")
    text, elf = directory / "block.s", directory / "block.elf"
    head = ".syntax unified\n.thumb\n.cpu cortex-m7\n.fpu fpv5-sp-d16\n.text\n"
    text.write_text(
        f"{head}{source}\n.data\n.global data\ndata: .word data, 0, 0, 0\n.space 32768\n"
    )
    link = [f"-Wl,-Ttext={CODE:#x},-Tdata={DATA:#x},--entry=run", "-Wl,-z,max-page-size=4096"]
    command = ["arm-none-eabi-gcc", "-mcpu=cortex-m7", "-mthumb", "-nostdlib", *link]
    done = subprocess.run([*command, str(text), "-o", str(elf)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return elf


def function(name: str, lines: list[str]) -> str:
    body = "\n".join(lines)
    return f".balign 8\n.type {name}, %function\n{name}:\n{body}\n.size {name}, . - {name}\n"


def image(elf: Path) -> Image:
    with elf.open("rb") as stream:
        return Image(ELFFile(stream))


def costs(
    elf: Path, core: str, timing: Timing = FREE, kernels: tuple[str, ...] = ()
) -> list[Costs]:
    """Of what belongs to no kernel, and of each kernel."""
    memory = image(elf)
    call = Call(memory.address("run"))
    addresses = [memory.address(name) for name in kernels]
    return list(simulate(elf, call, cores.core(core), timing, addresses).costs)


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, ...]]:
    """A program that calls each block, repeated in a row, and their names."""
    names, parts = [], []
    for name, (lines, _, _) in BLOCKS.items():
        for repeats in REPEATS:
            setup = ["push {r4-r11, lr}", *ADDRESS, "mov r1, r0", "mov r6, r0"]
            body = [f".rept {repeats}", *lines, ".endr", "pop {r4-r11, pc}"]
            parts.append(function(f"{name}_{repeats}", setup + body))
            names.append(f"{name}_{repeats}")
    calls = [f"bl {name}" for name in names]
    run = function("run", ["push {r4, lr}", *calls, "movs r0, #0", "pop {r4, pc}"])
    elf = assemble(run + "".join(parts), tmp_path_factory.mktemp("blocks"))
    return elf, tuple(names)


@pytest.mark.parametrize(("core", "column"), [("cortex-m7", 1), ("cortex-m4", 2)])
def test_blocks_take_the_cycles_that_are_known(blocks, core: str, column: int) -> None:
    elf, names = blocks
    few, many = REPEATS
    found = dict(zip(names, costs(elf, core, FREE, names)[1:], strict=True))
    cycles = {
        name: (found[f"{name}_{many}"].cycles - found[f"{name}_{few}"].cycles) / (many - few)
        for name in BLOCKS
    }
    known = {name: block[column] for name, block in BLOCKS.items()}
    assert cycles == pytest.approx(known, abs=0.02)


def test_a_mispredicted_branch_costs_eight_cycles(tmp_path: Path) -> None:
    """The branch is taken always, or every other time, which two bits do not learn."""

    def program(mask: int) -> list[str]:
        head = ["mov.w r2, #1024", "movs r3, #0", "1:", f"tst r2, #{mask}", "beq.w 2f"]
        tail = ["nop.w", "2:", "subs r2, r2, #1", "bne 1b", "movs r0, #0", "bx lr"]
        return head + tail

    found = []
    for mask in (2048, 1):
        (tmp_path / str(mask)).mkdir()
        elf = assemble(function("run", program(mask)), tmp_path / str(mask))
        found.append(costs(elf, "cortex-m7")[0])
    always, alternating = found
    assert always.branches < 40
    assert alternating.branches == pytest.approx(1024 * 8, abs=40)


def test_lines_cost_what_their_memory_says(tmp_path: Path) -> None:
    """Reading 8 KB fits a cache of 16 KB, not one of 4 KB: each of 256 lines is read anew."""
    read = [*ADDRESS, "mov.w r2, #256", "1:", "ldr r3, [r0], #32", "subs r2, r2, #1"]
    elf = assemble(function("run", [*read, "bne 1b", "movs r0, #0", "bx lr"]), tmp_path)
    memory = (TimedMemory("RAM", DATA, 0x10000, 7),)
    small = Timing("small", 1_000_000, Cache(4096, 4), None, memory)
    found = costs(elf, "cortex-m7", small)[0]
    assert found.data_misses == 256 * 7
    assert found.cycles == costs(elf, "cortex-m7")[0].cycles + 256 * 7
    large = dataclasses.replace(small, data_cache=Cache(16384, 4))
    assert costs(elf, "cortex-m7", large)[0].data_misses == 0
    tightly = dataclasses.replace(small, memories=(TimedMemory("RAM", DATA + 0x10000, 4096, 7),))
    assert costs(elf, "cortex-m7", tightly)[0].data_misses == 0
    code = (TimedMemory("flash", CODE, 0x10000, 9),)
    straight = assemble(function("run", ["nop.w"] * 2048 + ["movs r0, #0", "bx lr"]), tmp_path)
    flash = Timing("flash", 1_000_000, None, Cache(4096, 2), code)
    assert costs(straight, "cortex-m7", flash)[0].instruction_misses == pytest.approx(2304, abs=18)


def bare_metal(name: str) -> Board:
    """The board; of Zephyr's, its memories with a port to link: no emulator has memory there."""
    board = INVENTORY.board(name)
    if board.platform == "baremetal":
        return board
    port = INVENTORY.board("mps2_an500")
    return dataclasses.replace(port, memories=board.memories, timing=board.timing)


@pytest.mark.parametrize(
    ("board", "toolchain", "level"),
    [
        ("mps2_an500", "gcc", 4),
        ("mps2_an386", "clang", 3),
        ("mps2_an500", "tvm-llvm", 3),
        ("nucleo_h743zi", "gcc", 3),
    ],
)
def test_a_firmware_is_predicted_as_it_is_flashed(
    board: str, toolchain: str, level: int, tmp_path: Path
) -> None:
    kind = bare_metal(board)
    model, archive = tmp_path / "tiny.tflite", tmp_path / "tiny.tar"
    model.write_bytes(tiny.model())
    compile_model(model, "tiny", Target.parse(kind.target(toolchain)), level, archive)
    vectors.write(describe.describe(model.read_bytes(), "tiny"), model, tmp_path / "v.npz")
    elf = tmp_path / "firmware.elf"
    build(Order(archive, kind, toolchain, Purpose()), elf, tmp_path / "size.json")
    info = mlf.read(archive).info
    with np.load(tmp_path / "v.npz") as arrays:
        stimulus, expected = arrays["inputs"][0].tobytes(), arrays["outputs"][0].tobytes()
    first, second = (predict(elf, info, kind, stimulus) for _ in range(2))
    assert first == second
    firmware = Firmware(elf, tmp_path / "size.json", info, tmp_path / "v.npz")
    without_boards = Inventory({kind.name: dataclasses.replace(kind, machine="")})
    record = measure(firmware, Plan("cycles"), without_boards)
    record.write(tmp_path / "cycles.json")
    assert Measurement.read(tmp_path / "cycles.json") == record
    assert (record.timebase, record.status, record.exact) == ("model", "ok", True)
    assert (record.latency_us, record.instructions, record.per_mac) == (None, None, None)
    assert record.cycles_modelled == first.whole.cycles == record.causes["cycles"]
    assert record.latency_modelled_us * kind.timing.clock_hz == pytest.approx(
        record.cycles_modelled * 1e6
    )
    assert [causes["cycles"] for causes in record.operator_causes] == [
        costs.cycles for costs in first.operators
    ]
    assert first.outputs == expected
    assert len(first.operators) == len(info.operators)
    assert all(operator.cycles > 0 for operator in first.operators)
    inside = total(first.operators)
    assert 0 < first.whole.cycles - inside.cycles < 400
    assert first.whole.instructions / 2 < first.whole.cycles < 2 * first.whole.instructions


def test_what_cannot_be_predicted_is_refused(tmp_path: Path) -> None:
    unknown = dataclasses.replace(INVENTORY.board("mps2_an500"), timing=None)
    with pytest.raises(ConfigError, match="mps2_an500 does not say what its memory costs"):
        predict(tmp_path / "none.elf", None, unknown, b"")
    with pytest.raises(ConfigError, match=r"unknown core 'cortex-m55'.*cortex-m7, cortex-m4"):
        cores.core("cortex-m55")
    elf = assemble(function("run", ["movs r0, #3", "bx lr"]), tmp_path)
    with pytest.raises(ModelError, match="status 3"):
        costs(elf, "cortex-m7")
    elf = assemble(function("run", [".inst.w 0xfac0f080", "movs r0, #0", "bx lr"]), tmp_path)
    with pytest.raises(ModelError, match=r"does not know is at 0x08000000"):
        costs(elf, "cortex-m7")
    with pytest.raises(ModelError, match="no symbol 'absent'"):
        image(elf).address("absent")
