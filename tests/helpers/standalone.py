"""Runs a standalone firmware under QEMU."""

import subprocess
from pathlib import Path


def output(machine: str, elf: Path) -> list[str]:
    """The lines it prints, up to the one that says it is done."""
    run = ["qemu-system-arm", "-M", machine, "-nodefaults", "-display", "none"]
    run += ["-icount", "shift=0,align=off,sleep=off", "-serial", "stdio", "-kernel", str(elf)]
    printed = []
    with subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as qemu:
        try:
            for line in iter(qemu.stdout.readline, ""):
                printed.append(line.strip())
                if line.startswith("done"):
                    break
        finally:
            qemu.kill()
    return printed
