"""What the simulator of cycles is given: described instructions, and our own few."""

import re
from pathlib import Path

import capstone
import pytest
import yaml

from mcuforge import boards
from mcuforge.boards.inventory import Cache, TimedMemory
from mcuforge.cycles import cores, decode, program
from mcuforge.errors import ConfigError

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "src" / "mcuforge" / "cycles" / "plugin"
THUMB = capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS


def described(code: str) -> decode.Instruction:
    disassembler = capstone.Cs(*THUMB)
    disassembler.detail = True
    *_, last = disassembler.disasm(bytes.fromhex(code), 0x100)
    return decode.describe(last)


@pytest.mark.parametrize(
    ("code", "kind", "sources", "destinations", "facts"),
    [
        # smlad r0, r1, r2, r0
        ("21fb0200", "multiply", [(0, "accumulate"), (1, "multiply"), (2, "multiply")], [0], {}),
        # smlal r0, r1, r2, r3: adds to both halves
        (
            "c2fb0301",
            "multiply",
            [(0, "accumulate"), (1, "accumulate"), (2, "multiply"), (3, "multiply")],
            [0, 1],
            {},
        ),
        # ldr r4, [r0], #24
        ("50f8184b", "load", [(0, "early")], [4], {"width": 4, "writeback": 0}),
        # ldrsb r4, [r0, r1]
        ("4456", "load", [(0, "early"), (1, "early")], [4], {"width": 1}),
        # strb r4, [r0]
        ("0470", "store", [(4, "store"), (0, "early")], [], {"width": 1, "stores": True}),
        # ldm r0!, {r4, r5, r6}
        ("b0e87000", "multiple", [(0, "early")], [4, 5, 6], {"count": 3, "writeback": 0}),
        # ldrd r11, r12, [r1], #8
        ("f1e802bc", "multiple", [(1, "early")], [11, 12], {"count": 2, "writeback": 1}),
        # pop {r4, pc}
        ("10bd", "multiple", [(13, "early")], [4], {"branch": "return", "count": 2}),
        # sxtb16 r2, r11 behind its shifter
        ("2ffa8bf2", "dsp", [(11, "late")], [2], {"shifter": 1}),
        # ssat r2, #8, r2, asr #5: a shifted operand is due early
        ("22f34712", "dsp", [(2, "early")], [2], {"shifter": 1}),
        # add.w r0, r1, r2, lsl #2
        ("01eb8200", "alu", [(1, "late"), (2, "early")], [0], {"shifter": 1, "early": 0}),
        # add.w r0, r1, #2
        ("01f10200", "alu", [(1, "late")], [0], {"shifter": 0, "early": 1}),
        # add.w r0, r0, #0x3fc00: a byte at another place
        ("00f57f30", "alu", [(0, "late")], [0], {"shifter": 1}),
        # movt r0, #8192 keeps what movw wrote
        ("c2f20000", "move_half", [(0, "late")], [0], {}),
        # cmp r0, #1
        ("0128", "alu", [(0, "late")], [decode.FLAGS], {}),
        # it ne; addne r0, #1 sets no flags, and waits for them
        ("18bf0130", "alu", [(decode.FLAGS, "late"), (0, "late")], [0], {}),
        # vldr d0, [r0]
        ("90ed000b", "load", [(0, "early")], [decode.FLOATS], {"width": 8}),
    ],
)
def test_an_instruction_is_described(code, kind, sources, destinations, facts) -> None:
    found = described(code)
    assert found.kind == kind
    assert sorted(found.sources) == sorted(sources)
    assert sorted(found.destinations) == sorted(destinations)
    assert {name: getattr(found, name) for name in facts} == facts


@pytest.mark.parametrize(
    ("code", "branch"),
    [
        ("7047", "return"),  # bx lr
        ("0ce0", "direct"),  # b
        ("0cd1", "conditional"),  # bne
        ("08b1", "conditional"),  # cbz
        ("00f000f8", "call"),  # bl
        ("c847", "indirect_call"),  # blx r9
        ("dfe800f0", "indirect"),  # tbb
    ],
)
def test_branches_are_told_apart(code: str, branch: str) -> None:
    assert described(code).branch == branch


def test_names_have_the_numbers_of_the_simulator() -> None:
    header = (PLUGIN / "model.h").read_text()
    for name, ours in (("class", decode.CLASSES), ("stage", decode.STAGES), ("branch", None)):
        (members,) = re.findall(rf"enum {name} {{([^}}]*)}}", header)
        theirs = [word.lower().removeprefix("stage_") for word in re.findall(r"\w+", members)]
        if ours is None:
            theirs[0], ours = "none", decode.BRANCHES
        assert theirs[: len(ours)] == list(ours)
    fields = set(re.findall(r"^    int64_t (\w+);", header, re.MULTILINE))
    assert fields == {name for core in cores.CORES.values() for name in core.pipeline}
    assert int(re.findall(r"#define MOST_OPERANDS (\d+)", header)[0]) == decode.MOST_OPERANDS


def test_our_instructions_are_what_their_listing_says() -> None:
    def words(text: str) -> list[str]:
        return text.replace(",", " ").replace("sb", "r9").replace("sl", "r10").split()

    listing = [line for line in program._STUB.splitlines() if line.startswith(" ")]
    found = list(capstone.Cs(*THUMB).disasm(program._STUB_CODE, 0))
    for line, instruction in zip(listing, found, strict=True):
        wanted = words(line)
        if instruction.mnemonic.startswith(("b", "cb", "adr")) and wanted[0] != "blx":
            wanted = wanted[:-1]  # a label
        assert words(f"{instruction.mnemonic} {instruction.op_str}")[: len(wanted)] == wanted
    (call,) = (i.address + i.size for i in found if i.mnemonic == "blx")
    assert call == program._RETURN


def test_a_core_says_how_far_it_is_trusted() -> None:
    m7 = cores.core("cortex-m7+nofp")
    errors = m7.error(0.01, 0.0), m7.error(0.2, 0.0), m7.error(0.01, 0.1)
    assert (m7.model, *errors) == ("cortex-m7/1", 5.0, 8.0, None)


def test_the_memory_of_a_board(tmp_path: Path) -> None:
    path = ROOT / "config" / "boards.yaml"
    timing = boards.load(path).board("nucleo_h743zi").timing
    assert (timing.clock_hz, timing.data_cache) == (480_000_000, Cache(16 << 10, 4))
    assert timing.memories[0] == TimedMemory("flash", 0x08000000, 2 << 20, 20)
    assert boards.load(path).board("mps2_an500").timing.clock_hz == 280_000_000
    document = yaml.safe_load(path.read_text())
    document["nucleo_h743zi"]["timing"]["data_cache"]["ways"] = 0
    wrong = tmp_path / "boards.yaml"
    wrong.write_text(yaml.safe_dump(document))
    with pytest.raises(ConfigError, match=r"nucleo_h743zi.timing.data_cache.ways"):
        boards.load(wrong)
