"""Counts the instructions a compiled model executes on an emulated core."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mcuforge import mlf, toolchains

# QEMU's machine; instructions in a tick of its SysTick, at a nanosecond of virtual time each; where
# data lies.
_MACHINES = {
    "cortex-m7": ("mps2-an500", 40.0, 0x20000000),
    "cortex-m55": ("mps3-an547", 31.25, 0x21000000),
    "cortex-m85": ("mps3-an547", 31.25, 0x21000000),
}
_RUNS = 40
_PROGRAM = """\
#include <stdint.h>
#include "{header}"

extern char stack_top[];
void reset(void);
__attribute__((section(".vectors"), used)) static void *const vectors[16] = {{stack_top, reset}};
static volatile uint32_t *const systick = (volatile uint32_t *)0xE000E010;
static _Alignas(16) int8_t input[{input_bytes}] = {{{values}}};
static _Alignas(16) int8_t output[{output_bytes}];

static void semihost(int operation, const void *arguments) {{
    register int r0 __asm("r0") = operation;
    register const void *r1 __asm("r1") = arguments;
    __asm volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}}

void reset(void) {{
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20; /* FPU and Helium */
    __asm volatile("dsb\\n\\tisb");
    struct {symbol}_inputs in = {{(void *)input}};
    struct {symbol}_outputs out = {{(void *)output}};
    systick[1] = 0xffffff;
    systick[2] = 0;
    systick[0] = 5;
    {symbol}_run(&in, &out);
    const uint32_t start = systick[2];
    for (int i = 0; i < {runs}; ++i) {{
        {symbol}_run(&in, &out);
    }}
    uint32_t ticks = (start - systick[2]) & 0xffffff;
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
_SCRIPT = """\
ENTRY(reset)
SECTIONS
{{
    .text 0x0 : {{ KEEP(*(.vectors)) *(.text*) *(.rodata*) }}
    .ARM.exidx : {{ *(.ARM.exidx*) }}
    .data {data:#x} : {{ *(.data*) }}
    .bss (NOLOAD) : {{ *(.bss*) *(COMMON) }}
    stack_top = {data:#x} + 0x3ffff0;
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
    for program in ("qemu-system-arm", "arm-none-eabi-gcc", "clang-19", "ld.lld-19"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    read = mlf.read(archive)
    read.extract(directory)
    info = read.info
    (directory / "main.c").write_text(
        _PROGRAM.format(
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
    machine, per_tick, data = _MACHINES[info.core]
    (directory / "link.ld").write_text(_SCRIPT.format(data=data))
    build = [tools.compiler, *tools.flags, *tools.link_flags, "-O3", "-std=gnu11", "-nostdlib"]
    build += [f"-I{host / 'include'}", str(directory / "main.c"), *map(str, host.glob("src/*.c"))]
    build += ["-static", f"-T{directory / 'link.ld'}", "-o", str(directory / "model.elf")]
    build += [lib if "/" in lib else f"-l{lib}" for lib in tools.libraries]
    subprocess.run(build, check=True, capture_output=True)
    run = ["qemu-system-arm", "-M", machine, "-nodefaults", "-display", "none", "-nic", "none"]
    run += ["-icount", "shift=0,align=off,sleep=off", "-kernel", "model.elf"]
    run += ["-semihosting-config", "enable=on,target=native"]
    done = subprocess.run(
        run, cwd=directory, check=True, capture_output=True, timeout=120, stdin=subprocess.DEVNULL
    )
    # Semihosting writes to standard error without a console; warnings come first.
    return int(int((done.stderr + done.stdout).split()[-1]) * per_tick / _RUNS)
