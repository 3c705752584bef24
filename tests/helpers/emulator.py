"""Runs compiled models on an emulated core, with a dozen lines of C around them.

It owes nothing to the device code: the program reads its inputs from a file and writes its outputs
to one, through semihosting.
"""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mcuforge import mlf, toolchains

# Machine and origins of vectors, code and data, by core.
_MACHINES = {
    "cortex-m4": ("mps2-an386", 0x0, 0x400, 0x20000000),
    "cortex-m7": ("mps2-an500", 0x0, 0x400, 0x20000000),
    "cortex-m85": ("mps3-an547", 0x0, 0x01000000, 0x21000000),
    "cortex-m55": ("mps3-an547", 0x0, 0x01000000, 0x21000000),
}
_PROGRAM = """\
#include <stddef.h>
#include <stdint.h>
{headers}

extern char stack_top[];
void reset(void);
__attribute__((section(".vectors"), used)) static void *const vectors[16] = {{stack_top, reset}};

static int semihost(int operation, const void *arguments) {{
    register int r0 __asm("r0") = operation;
    register const void *r1 __asm("r1") = arguments;
    __asm volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}}
static int open_file(const char *name, int mode, int length) {{
    const void *arguments[3] = {{name, (const void *)mode, (const void *)length}};
    return semihost(1, arguments);
}}
static int transfer(int operation, int file, void *data, int size) {{
    const void *arguments[3] = {{(const void *)file, data, (const void *)size}};
    return semihost(operation, arguments); /* bytes not transferred */
}}
void *memcpy(void *, const void *, size_t);
void *memset(void *, int, size_t);

{buffers}
static uint8_t row_in[{input_bytes}], row_out[{output_bytes}];

void reset(void) {{
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20; /* FPU and Helium */
    __asm volatile("dsb\\n\\tisb");
    const int source = open_file("inputs.bin", 1, 10), sink = open_file("outputs.bin", 5, 11);
    while (transfer(6, source, row_in, sizeof row_in) == 0) {{
{runs}
        transfer(5, sink, row_out, sizeof row_out);
    }}
    semihost(0x18, (const void *)0x20026); /* ADP_Stopped_ApplicationExit */
    for (;;) {{
    }}
}}
"""
_RUN = """\
        {{
            {load}
            struct {symbol}_inputs in = {{{inputs}}};
            struct {symbol}_outputs out = {{{outputs}}};
            if ({symbol}_run(&in, &out) != 0) {{
                break;
            }}
            {store}
        }}
"""
_SCRIPT = """\
ENTRY(reset)
SECTIONS
{{
    .vectors {vectors:#x} : {{ KEEP(*(.vectors)) }}
    .text {code:#x} : {{ *(.text*) *(.rodata*) }}
    .ARM.exidx : {{ *(.ARM.exidx*) }}
    .data {data:#x} : {{ *(.data*) }}
    .bss (NOLOAD) : {{ *(.bss*) *(COMMON) }}
    stack_top = {data:#x} + 0x3ffff0;
}}
"""


class EmulatedModel:
    """Models compiled for a core that QEMU emulates, with the interface of ``host.HostModel``.

    Args:
        archive: path of a model's MLF tar.
        directory: where to unpack and build.
        toolchain: ``gcc``, ``clang`` or ``tvm-llvm``.
        flags: how C files are compiled.
        core: what to compile for and run on; if empty, the core the model is compiled for.
        further: archives of more models, as for ``host.HostModel``.
    """

    def __init__(
        self,
        archive: Path,
        directory: Path,
        toolchain: str = "clang",
        flags: tuple[str, ...] = ("-O2",),
        core: str = "",
        further: Sequence[Path] = (),
    ) -> None:
        for program in ("qemu-system-arm", "clang-19", "ld.lld-19", "arm-none-eabi-gcc"):
            if shutil.which(program) is None:
                pytest.skip(f"{program} is not installed")
        archives = [mlf.read(path) for path in (archive, *further)]
        for read in archives:
            read.extract(directory)
        self.infos = [read.info for read in archives]
        self.info = self.infos[0]
        self.program = directory / "model.elf"
        self._directory = directory
        core = core or self.info.core
        self._machine, vectors, code, data = _MACHINES[core.split("+")[0]]
        (directory / "main.c").write_text(_program(self.infos))
        (directory / "link.ld").write_text(_SCRIPT.format(vectors=vectors, code=code, data=data))
        tools = toolchains.toolchain(toolchain, core)
        model = directory / "codegen/host"
        build = [tools.compiler, *tools.flags, *tools.link_flags, *flags, "-std=gnu11"]
        build += ["-ffp-contract=off", f"-I{model / 'include'}", str(directory / "main.c")]
        build += sorted(map(str, [*model.glob("src/*.c"), *model.glob("lib/*.o")]))
        build += ["-nostdlib", "-static", f"-T{directory / 'link.ld'}", *_libraries(tools)]
        done = subprocess.run([*build, "-o", str(self.program)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def run(self, rows: np.ndarray) -> np.ndarray:
        """Raw bytes in (n, input_bytes), raw bytes out (n, output_bytes), inputs concatenated."""
        (self._directory / "inputs.bin").write_bytes(rows.tobytes())
        command = ["qemu-system-arm", "-M", self._machine, "-nodefaults", "-display", "none"]
        command += ["-semihosting-config", "enable=on,target=native", "-kernel", "model.elf"]
        done = subprocess.run(
            command,
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        raw = (self._directory / "outputs.bin").read_bytes()
        return np.frombuffer(raw, np.uint8).reshape(len(rows), -1)


def _libraries(tools: toolchains.Toolchain) -> list[str]:
    return [lib if "/" in lib else f"-l{lib}" for lib in tools.libraries]


def _program(infos: list[mlf.Info]) -> str:
    buffers, runs = [], []
    start = {"inputs": 0, "outputs": 0}
    for number, info in enumerate(infos):
        moves, names = {"inputs": [], "outputs": []}, {"inputs": [], "outputs": []}
        for kind, copy in (
            ("inputs", "memcpy({name}, row_in + {offset}, {bytes});"),
            ("outputs", "memcpy(row_out + {offset}, {name}, {bytes});"),
        ):
            for index, port in enumerate(getattr(info, kind)):
                name = f"{kind}_{number}_{index}"
                buffers.append(f"static _Alignas(16) uint8_t {name}[{port.bytes}];")
                moves[kind].append(copy.format(name=name, offset=start[kind], bytes=port.bytes))
                names[kind].append(f"(void *){name}")
                start[kind] += port.bytes
        runs.append(
            _RUN.format(
                symbol=info.entry.removesuffix("_run"),
                load="\n            ".join(moves["inputs"]),
                store="\n            ".join(moves["outputs"]),
                inputs=", ".join(names["inputs"]),
                outputs=", ".join(names["outputs"]),
            )
        )
    return _PROGRAM.format(
        headers="\n".join(f'#include "{info.header}"' for info in infos),
        buffers="\n".join(buffers),
        input_bytes=start["inputs"],
        output_bytes=start["outputs"],
        runs="".join(runs),
    )
