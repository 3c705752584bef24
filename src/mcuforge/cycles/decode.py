"""What a pipeline has to know of each instruction of an ELF: class, operands, where they are due.

An operand is due in a stage, and a result is there for a stage, counted in cycles of issue:

- ``early``: shifters, and the address of a memory access;
- ``late``: the second arithmetic unit, where most arithmetic may happen;
- ``multiply``: a factor;
- ``accumulate``: what products are added to;
- ``store``: data on their way to memory.

As in ``smlad r0, r1, r2, r0``: r1 and r2 are due in ``multiply``, r0 in ``accumulate``, so that
chains of multiply-accumulates issue every cycle.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import capstone
from capstone import arm
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile

# Numbers of these are what the simulator's instruction.h says.
CLASSES = (
    "alu", "multiply", "dsp", "load", "store", "multiple", "branch", "it", "float", "divide",
    "nop", "move_half",
)  # fmt: skip
STAGES = ("early", "late", "multiply", "accumulate", "store")
BRANCHES = ("none", "direct", "conditional", "call", "indirect", "indirect_call", "return")
FLAGS, GREATER_EQUAL = 16, 17  # registers beyond r0 to r15; s0 to s31 are 32 to 63
FLOATS = 32
MOST_OPERANDS = 20
NO_REGISTER = 255
_RECORD = struct.Struct(f"=I12B{MOST_OPERANDS}s{MOST_OPERANDS}s{MOST_OPERANDS}s")

_SP, _LR, _PC = 13, 14, 15


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MULTIPLY = _words(
    "mul mla mls smull umull smlal umlal umaal smlad smladx smuad smuadx smusd smusdx smlsd "
    "smlsdx smlald smlaldx smlsld smlsldx smmul smmulr smmla smmlar smmls smmlsr smulbb smulbt "
    "smultb smultt smulwb smulwt smlabb smlabt smlatb smlatt smlawb smlawt smlalbb smlalbt "
    "smlaltb smlaltt"
)
# Products of 64 bits, of which the second group adds to what is in its destinations.
_LONG = frozenset({"smull", "umull"})
_LONG_ACCUMULATE = _words(
    "smlal umlal umaal smlald smlaldx smlsld smlsldx smlalbb smlalbt smlaltb smlaltt"
)
# DSP operations behind a shifter: an operand that is rotated is due early.
_EXTEND = frozenset({"sxtb", "sxth", "uxtb", "uxth", "sxtb16", "uxtb16"})
_DSP_SHIFTED = _EXTEND | _words(
    "sxtab sxtah uxtab uxtah sxtab16 uxtab16 pkhbt pkhtb bfi bfc ssat usat ssat16 usat16"
)
_DSP = _words(
    "sadd16 ssub16 uadd16 usub16 sadd8 ssub8 uadd8 usub8 qadd qsub qadd16 qsub16 qadd8 qsub8 "
    "qdadd qdsub shadd16 shadd8 shsub16 shsub8 uhadd16 uhadd8 uqadd8 uqsub8 sel clz usad8 usada8 "
    "sasx ssax qasx qsax"
)
_SETS_GREATER_EQUAL = _words("sadd16 ssub16 uadd16 usub16 sadd8 ssub8 uadd8 usub8 sasx ssax")
_FIELDS = frozenset({"ubfx", "sbfx", "rev", "rev16", "revsh", "rbit"})
_SHIFTS = frozenset({"lsl", "lsr", "asr", "ror"})
# What the early arithmetic unit can do, too.
_EARLY = frozenset({"add", "sub", "mov", "movw", "movt", "mvn", "addw", "subw", "adr"})
_COMPARES = frozenset({"cmp", "cmn", "tst", "teq"})
_UNARY = frozenset({"mov", "mvn", "rsb", "movw", "clz", "adr"}) | _DSP_SHIFTED | _FIELDS
_KEEPS_BITS = frozenset({"movt", "bfi", "bfc"})
_PLAIN_IMMEDIATES = frozenset({"movw", "movt", "mov", "addw", "subw"})
_LOADS = {
    "ldr": 4, "ldrb": 1, "ldrh": 2, "ldrsb": 1, "ldrsh": 2, "vldr": 4,
}  # fmt: skip
_STORES = {"str": 4, "strb": 1, "strh": 2, "vstr": 4}
_PAIRS = frozenset({"ldrd", "strd"})
_STACK = frozenset({"push", "pop", "vpush", "vpop"})
_LOADS_MULTIPLE = frozenset({"ldrd", "ldm", "ldmdb", "pop", "vldmia", "vldmdb", "vpop"})
_MULTIPLE = _PAIRS | _STACK | _LOADS_MULTIPLE | frozenset({"stm", "stmdb", "vstmia", "vstmdb"})
_BRANCHES = {
    "b": "direct", "bl": "call", "cbz": "conditional", "cbnz": "conditional", "bx": "indirect",
    "blx": "indirect_call", "tbb": "indirect", "tbh": "indirect",
}  # fmt: skip


@dataclass
class Instruction:
    """An instruction as the simulator sees it.

    Attributes:
        address, size: in bytes.
        kind: one of CLASSES.
        shifter: 1 if it uses the shifter that only one of two paired instructions has, 2 for a
            plain shift, which has one in each slot.
        early: when its result can be there one cycle earlier: 0 never, 1 if its operands are early
            and it is the older of two, 2 if they are and the older one does not shift, 3 always.
        count: registers a multiple load or store moves.
        width: of a single load or store, bytes.
        stores: whether it writes memory.
        branch: one of BRANCHES.
        writeback: the base register it updates.
        sources: registers with the stage they are due in.
        destinations: in the order they arrive.
    """

    address: int
    size: int
    kind: str = "alu"
    shifter: int = 0
    early: int = 0
    count: int = 1
    width: int = 0
    stores: bool = False
    branch: str = "none"
    writeback: int = NO_REGISTER
    sources: list[tuple[int, str]] = field(default_factory=list)
    destinations: list[int] = field(default_factory=list)

    def read(self, register: int, stage: str) -> None:
        """Note a source. The program counter is always there."""
        if register not in (_PC, NO_REGISTER):
            self.sources.append((register, stage))

    def write(self, register: int) -> None:
        """Note a destination. The program counter's is the branch."""
        if register not in (_PC, NO_REGISTER):
            self.destinations.append(register)

    def pack(self) -> bytes:
        """The record of instruction.h, in this machine's byte order."""
        return _RECORD.pack(
            self.address,
            self.size,
            CLASSES.index(self.kind),
            self.shifter,
            self.early,
            self.count,
            self.width,
            self.stores,
            BRANCHES.index(self.branch),
            self.writeback,
            len(self.sources),
            len(self.destinations),
            0,
            bytes(register for register, _ in self.sources),
            bytes(STAGES.index(stage) for _, stage in self.sources),
            bytes(self.destinations),
        )


def instructions(elf: ELFFile) -> Iterator[Instruction]:
    """All instructions of an ELF of an ARMv7E-M core, in order of their addresses.

    What is no instruction the disassembler knows is left out, as is what mapping symbols ($d) call
    data.
    """
    disassembler = capstone.Cs(
        capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS
    )
    disassembler.detail = True
    found: dict[int, Instruction] = {}
    for address, code in _code(elf):
        position = 0
        while position < len(code):
            for raw in disassembler.disasm(code[position:], address + position):
                found[raw.address] = describe(raw)
                position = raw.address + raw.size - address
            position += 2  # past what it does not know, or the end
    return (found[address] for address in sorted(found))


def _code(elf: ELFFile) -> Iterator[tuple[int, bytes]]:
    """Ranges of Thumb code: address and bytes."""
    table = elf.get_section_by_name(".symtab")
    marks = sorted(
        (symbol["st_shndx"], symbol["st_value"], symbol.name[:2])
        for symbol in (table.iter_symbols() if table else ())
        if symbol.name[:2] in ("$t", "$d") and symbol.name[2:3] in ("", ".")
    )
    for index, section in enumerate(elf.iter_sections()):
        if not section["sh_flags"] & SH_FLAGS.SHF_EXECINSTR or section["sh_type"] == "SHT_NOBITS":
            continue
        begin, data = section["sh_addr"], section.data()
        inside = [(begin, "$t"), *(mark[1:] for mark in marks if mark[0] == index)]
        ends = [address for address, _ in inside[1:]] + [begin + len(data)]
        for (address, kind), end in zip(inside, ends, strict=True):
            if kind == "$t" and end > address:
                yield address, data[address - begin : end - begin]


def describe(raw: Any) -> Instruction:
    """What a pipeline has to know of a capstone instruction."""
    # The disassembler's name is without condition and width, but that of MOVW is mov.
    name = "movw" if raw.mnemonic.startswith("movw") else raw.insn_name()
    instruction = Instruction(raw.address, raw.size)
    if name == "it":
        instruction.kind = "it"
    elif name in ("nop", "pld"):
        instruction.kind = "nop"
    elif name in _BRANCHES:
        _branch(instruction, name, raw)
    elif name in _MULTIPLY:
        _multiply(instruction, name, raw)
    elif name in _LOADS or name in _STORES:
        _single(instruction, name, raw)
    elif name in _MULTIPLE:
        _multiple(instruction, name, raw)
    elif name in ("sdiv", "udiv"):
        instruction.kind = "divide"
        instruction.write(_register(raw, raw.operands[0].reg))
        for operand in raw.operands[-2:]:
            instruction.read(_register(raw, operand.reg), "late")
    elif raw.mnemonic.startswith("v"):
        _float(instruction, raw)
    elif name in _SHIFTS or name in _DSP or name in _DSP_SHIFTED or name in _FIELDS:
        _shift_or_dsp(instruction, name, raw)
    else:
        _alu(instruction, name, raw)
    if raw.update_flags or name in _COMPARES:
        instruction.write(FLAGS)
    if name not in ("b", "it") and raw.cc not in (arm.ARM_CC_INVALID, arm.ARM_CC_AL):
        instruction.read(FLAGS, "late")
    if name in _SETS_GREATER_EQUAL:
        instruction.write(GREATER_EQUAL)
    if name == "sel":
        instruction.read(GREATER_EQUAL, "late")
    return instruction


def _register(raw: Any, number: int) -> int:
    """Our number of capstone's register; of a double, that of its lower half."""
    name = raw.reg_name(number) or ""
    special = {"sb": 9, "sl": 10, "fp": 11, "ip": 12, "sp": _SP, "lr": _LR, "pc": _PC}
    if name in special:
        return special[name]
    if not name[1:].isdigit():
        return NO_REGISTER
    scale = {"r": (0, 1), "s": (FLOATS, 1), "d": (FLOATS, 2)}.get(name[0])
    return scale[0] + scale[1] * int(name[1:]) if scale else NO_REGISTER


def _branch(instruction: Instruction, name: str, raw: Any) -> None:
    instruction.kind, instruction.branch = "branch", _BRANCHES[name]
    first = raw.operands[0]
    if name == "b" and raw.cc not in (arm.ARM_CC_INVALID, arm.ARM_CC_AL):
        instruction.branch = "conditional"
    if name in ("cbz", "cbnz", "bx", "blx") and first.type == arm.ARM_OP_REG:
        instruction.read(_register(raw, first.reg), "late")
    if name == "bx" and _register(raw, first.reg) == _LR:
        instruction.branch = "return"
    if name in ("bl", "blx"):
        instruction.write(_LR)
    if name in ("tbb", "tbh"):
        instruction.read(_register(raw, first.mem.base), "early")
        instruction.read(_register(raw, first.mem.index), "early")


def _multiply(instruction: Instruction, name: str, raw: Any) -> None:
    instruction.kind = "multiply"
    registers = [_register(raw, operand.reg) for operand in raw.operands]
    if name in _LONG or name in _LONG_ACCUMULATE:
        results, factors, sums = registers[:2], registers[2:4], registers[:2]
        sums = sums if name in _LONG_ACCUMULATE else []
    else:
        results = registers[:1]
        rest = registers[1:] if len(registers) > 2 else registers
        factors, sums = rest[:2], rest[2:]
    for register in results:
        instruction.write(register)
    for register in sums:
        instruction.read(register, "accumulate")
    for register in factors:
        instruction.read(register, "multiply")


def _single(instruction: Instruction, name: str, raw: Any) -> None:
    data, place = raw.operands[0], raw.operands[1].mem
    register = _register(raw, data.reg)
    instruction.width = _LOADS.get(name) or _STORES[name]
    if raw.reg_name(data.reg).startswith("d"):
        instruction.width = 8
    if name in _STORES:
        instruction.kind, instruction.stores = "store", True
        instruction.read(register, "store")
    else:
        instruction.kind = "load"
        instruction.write(register)
    _address(instruction, raw, place)
    if register == _PC:
        instruction.kind = "branch"
        instruction.branch = "return" if _register(raw, place.base) == _SP else "indirect"


def _address(instruction: Instruction, raw: Any, place: Any) -> None:
    base = _register(raw, place.base)
    instruction.read(base, "early")
    if place.index:
        instruction.read(_register(raw, place.index), "early")
    if raw.writeback:
        instruction.writeback = base


def _multiple(instruction: Instruction, name: str, raw: Any) -> None:
    instruction.kind, instruction.stores = "multiple", name not in _LOADS_MULTIPLE
    if name in _PAIRS:
        moved = raw.operands[:2]
        _address(instruction, raw, raw.operands[2].mem)
    else:
        moved = raw.operands if name in _STACK else raw.operands[1:]
        base = _SP if name in _STACK else _register(raw, raw.operands[0].reg)
        instruction.read(base, "early")
        if raw.writeback or name in _STACK:
            instruction.writeback = base
    doubles = raw.reg_name(moved[0].reg).startswith("d")
    instruction.count = len(moved) * (2 if doubles else 1)
    for operand in moved:
        register = _register(raw, operand.reg)
        if instruction.stores:
            instruction.read(register, "store")
        elif register == _PC:
            instruction.branch = "return"
        else:
            instruction.write(register)


def _float(instruction: Instruction, raw: Any) -> None:
    instruction.kind = "float"
    read, written = raw.regs_access()
    for number in read:
        instruction.read(_register(raw, number), "late")
    for number in written:
        instruction.write(_register(raw, number))


def _inputs(name: str, raw: Any) -> list[Any]:
    """The operands an arithmetic instruction reads: ``add r0, r1`` adds to r0."""
    operands = list(raw.operands)
    both = len(operands) == 2 and name not in _UNARY
    return operands if name in _COMPARES or name in _KEEPS_BITS or both else operands[1:]


def _shifted(operand: Any) -> bool:
    return (
        operand.type == arm.ARM_OP_REG
        and operand.shift.type != arm.ARM_SFT_INVALID
        and operand.shift.value != 0
    )


def _shift_or_dsp(instruction: Instruction, name: str, raw: Any) -> None:
    instruction.write(_register(raw, raw.operands[0].reg))
    inputs = _inputs(name, raw)
    registers = [operand for operand in inputs if operand.type == arm.ARM_OP_REG]
    stages = ["late"] * len(registers)
    if name in _SHIFTS:
        instruction.shifter = instruction.early = 2
    elif name in _FIELDS:
        instruction.kind, instruction.shifter, instruction.early = "dsp", 1, 3
        stages = ["early"] * len(registers)
    elif name in _DSP_SHIFTED:
        instruction.kind, instruction.shifter = "dsp", 1
        saturates = name in ("ssat", "usat") and not any(map(_shifted, inputs))
        if name not in _EXTEND and not saturates and stages:
            stages[-1] = "early"
        if name == "pkhtb":
            stages = ["early"] * len(registers)
    else:
        instruction.kind = "dsp"
    for operand, stage in zip(registers, stages, strict=True):
        instruction.read(_register(raw, operand.reg), stage)


def _alu(instruction: Instruction, name: str, raw: Any) -> None:
    inputs = _inputs(name, raw)
    if name not in _COMPARES and raw.operands and raw.operands[0].type == arm.ARM_OP_REG:
        instruction.write(_register(raw, raw.operands[0].reg))
    shifts = any(map(_shifted, inputs))
    if name == "mov" and shifts:
        instruction.shifter = instruction.early = 2
        shifts = False
        stages = ["late"] * len(inputs)
    else:
        stages = ["early" if _shifted(operand) else "late" for operand in inputs]
        if shifts or _expands_immediate(name, raw, inputs):
            instruction.shifter = 1
        if name in _EARLY and not shifts:
            instruction.early = 1
        if name in ("movw", "movt"):
            instruction.kind = "move_half"
        if name in ("adc", "sbc"):
            instruction.read(FLAGS, "late")
    for operand, stage in zip(inputs, stages, strict=True):
        if operand.type == arm.ARM_OP_REG:
            instruction.read(_register(raw, operand.reg), stage)


def _expands_immediate(name: str, raw: Any, inputs: list[Any]) -> bool:
    """Whether an immediate is a byte at any place, which takes the shifter: 0x3fc00.

    A byte in its place, repeated (0x00ab00ab, 0xab00ab00, 0xabababab), or twelve plain bits of an
    addition do not.
    """
    immediates = [operand.imm for operand in inputs if operand.type == arm.ARM_OP_IMM]
    if not immediates or name in _PLAIN_IMMEDIATES or raw.size != 4:
        return False
    value = immediates[-1] & 0xFFFFFFFF
    low, high = value & 255, value >> 8 & 255
    plain = (low, low * 0x00010001, high * 0x01000100, low * 0x01010101)
    return value not in plain and not (name in ("add", "sub") and value < 4096)
