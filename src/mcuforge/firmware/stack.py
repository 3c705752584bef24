"""Worst-case stack of a function, read from the machine code: compilers, libraries and assembly
alike."""

import bisect
import collections
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mcuforge import toolchains
from mcuforge.errors import ToolError
from mcuforge.target import Target

# By register what wrote it in the function: mnemonics and operands, in order.
Written = dict[str, list[tuple[str, str]]]

_HEADER = re.compile(r"([0-9a-f]+) <(.+)>:")
_LINE = re.compile(r"\s*([0-9a-f]+):\t(\S+)(?:\t(.*))?")
_TARGET = re.compile(r"([0-9a-f]+) <")
_REGISTERS = re.compile(r"([a-z]+)(\d+)")
_BRANCHES = re.compile(r"(bl?|b(eq|ne|cs|cc|mi|pl|vs|vc|hi|ls|ge|lt|gt|le))|blx")


class _Unknown(Exception):
    """The stack pointer moves by an amount, or to a place, that the code does not say."""


@dataclass(frozen=True)
class _Machine:
    """What an instruction of an architecture does, from its mnemonic and operands.

    Attributes:
        lowered: bytes by which it lowers the stack pointer, given what wrote the registers.
        called: where it may go, other than to the next one and back to the caller.
    """

    lowered: Callable[[str, str, Written], int]
    called: Callable[[str, str], set[int]]


def bound(elf: Path, entry: str, core: str) -> int | None:
    """Bytes of stack that `entry` and everything it calls can use at most.

    Each function counts with all instructions that lower the stack pointer; what saves registers in
    two alternative branches counts twice. None if it cannot be known: a call through a pointer,
    recursion, or a frame of variable size.
    """
    prefix = Target(core).family.prefix
    machine, program = _MACHINES[prefix], toolchains.find(f"{prefix}-objdump")
    command = [program, "--disassemble", "--no-show-raw-insn", str(elf)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise ToolError(f"{program} failed: {done.stderr.strip()[:200]}")

    frames: dict[int, int] = {}
    calls: dict[int, set[int]] = {}
    unknown: set[int] = set()
    start, first = None, None
    for line in done.stdout.splitlines():
        if header := _HEADER.fullmatch(line):
            start = int(header[1], 16)
            first = start if header[2] == entry else first
            frames[start], calls[start] = 0, set()
            written: Written = collections.defaultdict(list)
        elif start is not None and (match := _LINE.match(line)):
            mnemonic, operands = match[2].split(".")[0], match[3] or ""
            try:
                frames[start] += machine.lowered(mnemonic, operands, written)
                calls[start] |= machine.called(mnemonic, operands)
            except _Unknown:
                unknown.add(start)
            written[operands.split(",")[0]].append((mnemonic, operands))
    if first is None:
        return None

    starts = sorted(frames)
    depths: dict[int, int | None] = {}

    def depth(function: int, above: frozenset[int]) -> int | None:
        if function in above or function in unknown:
            return None
        if function not in depths:
            owners = {starts[bisect.bisect_right(starts, a) - 1] for a in calls[function]}
            below = [depth(owner, above | {function}) for owner in owners - {function}]
            # A branch into the same function is a loop. Only one to its start may be a call.
            recursive = function in calls[function]
            known = [size for size in below if size is not None]
            bounded = not recursive and len(known) == len(below)
            depths[function] = frames[function] + max(known, default=0) if bounded else None
        return depths[function]

    return depth(first, frozenset())


def _arm_lowered(mnemonic: str, operands: str, written: Written) -> int:
    if mnemonic in ("push", "vpush") or (
        mnemonic in ("stmdb", "vstmdb", "fstmdbx") and operands.startswith("sp!")
    ):
        return _saved(operands[operands.index("{") :])
    if mnemonic in ("sub", "subw") and operands.startswith("sp,"):
        amount = re.fullmatch(r"sp, (?:sp, )?#(\d+)(\s.*)?", operands)
        if not amount:
            raise _Unknown
        return int(amount[1])
    if mnemonic.startswith("mov") and operands.startswith("sp,"):
        # Back to a frame pointer, or down to an aligned address whose low bits were cleared.
        before, how = (written[operands[4:].strip()] or [("", "")])[-1]
        aligned = re.fullmatch(r"\w+, #0, #(\d+)", how)
        if before == "bfc" and aligned:
            return (1 << int(aligned[1])) - 4
        if before not in ("mov", "add", "sub", "subw", "addw") or not re.search(
            r"(^|, )(sp|r7|fp)(, #\d+)?(\s.*)?$", how
        ):
            raise _Unknown
        return 0
    if moved := re.search(r"\[sp, #-(\d+)\]!", operands):
        return int(moved[1])
    return 0


def _saved(registers: str) -> int:
    """Size of a register list such as ``{r4, r5-r7, lr}`` or ``{d8-d15}``."""
    total = 0
    for part in registers.strip("{} \t").split("}")[0].split(","):
        ends = [_REGISTERS.search(end) for end in part.split("-")]
        size = 8 if part.strip().startswith("d") else 4
        if len(ends) == 2 and ends[0] and ends[1]:
            total += size * (int(ends[1][2]) - int(ends[0][2]) + 1)
        else:
            total += size
    return total


def _arm_called(mnemonic: str, operands: str) -> set[int]:
    if _BRANCHES.fullmatch(mnemonic) and (target := _TARGET.match(operands)):
        return {int(target[1], 16)}
    if (
        mnemonic.startswith("blx")
        or (mnemonic.startswith("bx") and operands.strip() != "lr")
        or (mnemonic == "mov" and operands.startswith("pc,") and operands.strip() != "pc, lr")
        or (mnemonic == "ldr" and operands.startswith("pc,") and "[sp]" not in operands)
    ):
        raise _Unknown
    return set()


def _riscv_lowered(mnemonic: str, operands: str, written: Written) -> int:
    # objdump calls instructions with a constant as it calls those without: add for addi.
    operation = mnemonic.removesuffix("i")
    if operation not in ("add", "sub", "and", "mv", "l") or not operands.startswith("sp,"):
        return 0
    if re.fullmatch(r"sp,s0(,-?\d+)?", operands):
        return 0  # back to where the frame pointer says
    amount = operands.removeprefix("sp,sp,")
    if operation in ("add", "and") and re.fullmatch(r"-?\d+", amount):
        return max(0, -int(amount))  # and clears low bits: down to an aligned address
    size = _riscv_loaded(written[amount])
    if operation not in ("add", "sub") or size is None:
        raise _Unknown
    return max(0, -size if operation == "add" else size)


def _riscv_loaded(history: list[tuple[str, str]]) -> int | None:
    """The constant in a register: ``li``, or ``lui`` perhaps followed by ``add``."""
    mnemonic, operands = history[-1] if history else ("", "")
    register, last = operands.split(",")[0], operands.split(",")[-1]
    if mnemonic == "li":
        return int(last)
    if mnemonic == "lui":  # 20 bits with a sign
        return ((int(last, 16) ^ 1 << 19) - (1 << 19)) << 12
    if mnemonic in ("add", "addi") and re.fullmatch(rf"{register},{register},-?\d+", operands):
        upper = _riscv_loaded(history[:-1])
        return None if upper is None else upper + int(last)
    return None


def _riscv_called(mnemonic: str, operands: str) -> set[int]:
    if not re.fullmatch(r"j(al)?r?|b(eq|ne|lt|ge|gt|le)u?z?", mnemonic):
        return set()
    if target := re.search(r"\b([0-9a-f]+) <", operands):
        return {int(target[1], 16)}
    raise _Unknown


_MACHINES = {
    "arm-none-eabi": _Machine(_arm_lowered, _arm_called),
    "riscv64-unknown-elf": _Machine(_riscv_lowered, _riscv_called),
}
