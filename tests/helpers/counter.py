"""Counts the instructions a compiled model executes on an emulated core."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from helpers import machines
from mcuforge import mlf, toolchains

_RUNS = 40
_PROGRAM = """\
#include <stdint.h>
#include "{header}"

{start}
{clock}
static _Alignas(16) int8_t input[{input_bytes}] = {{{values}}};
static _Alignas(16) int8_t output[{output_bytes}];

void reset(void) {{
{enable}
    struct {symbol}_inputs in = {{(void *)input}};
    struct {symbol}_outputs out = {{(void *)output}};
    clock_start();
    {symbol}_run(&in, &out);
    const uint32_t start = clock_ticks();
    for (int i = 0; i < {runs}; ++i) {{
        {symbol}_run(&in, &out);
    }}
    uint32_t ticks = clock_ticks() - start;
    char text[12], *digit = text + sizeof text - 1;
    *digit = 0;
    do {{
        *--digit = (char)('0' + ticks % 10);
    }} while ((ticks /= 10) != 0);
    semihost(4, digit);
    semihost(0x18, (const void *)0x20026);
    for (;;) {{
    }}
}}
"""


def instructions(
    archive: Path, stimulus: np.ndarray, directory: Path, toolchain: str = "gcc"
) -> int:
    """Instructions per inference at -O3, to within one.

    Args:
        archive: MLF of a model with one input and one output.
        stimulus: its input.
        directory: an empty one to build in.
        toolchain: ``gcc`` or ``clang``.
    """
    read = mlf.read(archive)
    for program in machines.programs(read.info.core):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    read.extract(directory)
    info = read.info
    machine = machines.machine(info.core)
    (directory / "main.c").write_text(
        _PROGRAM.format(
            start=machine.architecture.start,
            enable=machine.architecture.enable,
            clock=machine.architecture.clock,
            header=info.header,
            symbol=info.entry.removesuffix("_run"),
            input_bytes=info.inputs[0].bytes,
            output_bytes=info.outputs[0].bytes,
            values=", ".join(map(str, stimulus.view(np.int8).reshape(-1))),
            runs=_RUNS,
        )
    )
    host = directory / "codegen/host"
    tools = toolchains.toolchain(toolchain, info.core)
    (directory / "link.ld").write_text(machines.link_script(info.core))
    build = [tools.compiler, *tools.flags, *tools.link_flags, "-O3", "-std=gnu11", "-nostdlib"]
    build += [f"-I{host / 'include'}", str(directory / "main.c"), *map(str, host.glob("src/*.c"))]
    build += ["-static", f"-T{directory / 'link.ld'}", "-o", str(directory / "model.elf")]
    build += [lib if "/" in lib else f"-l{lib}" for lib in tools.libraries]
    subprocess.run(build, check=True, capture_output=True)
    run = [*machines.emulator(info.core), "-icount", "shift=0,align=off,sleep=off"]
    done = subprocess.run(
        run, cwd=directory, check=True, capture_output=True, timeout=120, stdin=subprocess.DEVNULL
    )
    # Semihosting writes to standard error without a console; warnings come first.
    return int(int((done.stderr + done.stdout).split()[-1]) * machine.per_tick / _RUNS)
