"""Which functions a program's functions call, as its disassembly shows."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

_FUNCTION = re.compile(r"^[0-9a-f]+ <([^>]+)>:$")
_CALL = re.compile(r"\s(?:call|blx?|b|b\.w|b\.n|jmp)\s+[0-9a-f]+ <([^>+]+)>")


def calls(program: Path, objdump: str) -> dict[str, list[str]]:
    """For each function of an executable or library, whom it calls, in order.

    Args:
        program: with its symbols.
        objdump: the disassembler for its machine.
    """
    if shutil.which(objdump) is None:
        pytest.skip(f"{objdump} is not installed")
    text = subprocess.run(
        [objdump, "-d", "--no-show-raw-insn", str(program)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found: dict[str, list[str]] = {}
    called: list[str] = []
    for line in text.splitlines():
        if function := _FUNCTION.match(line):
            called = found.setdefault(function[1], [])
        elif call := _CALL.search(line):
            called.append(call[1])
    return found
