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

from helpers import machines
from mcuforge import mlf, toolchains

_PROGRAM = """\
#include <stddef.h>
#include <stdint.h>
{headers}

{start}
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
{enable}
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
        archives = [mlf.read(path) for path in (archive, *further)]
        for read in archives:
            read.extract(directory)
        self.infos = [read.info for read in archives]
        self.info = self.infos[0]
        self.program = directory / "model.elf"
        self._directory = directory
        self._core = core or self.info.core
        for program in machines.programs(self._core):
            if shutil.which(program) is None:
                pytest.skip(f"{program} is not installed")
        architecture = machines.machine(self._core).architecture
        (directory / "main.c").write_text(_program(self.infos, architecture))
        (directory / "link.ld").write_text(machines.link_script(self._core))
        tools = toolchains.toolchain(toolchain, self._core)
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
        command = machines.emulator(self._core)
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


def _program(infos: list[mlf.Info], architecture: machines.Architecture) -> str:
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
        start=architecture.start,
        enable=architecture.enable,
        headers="\n".join(f'#include "{info.header}"' for info in infos),
        buffers="\n".join(buffers),
        input_bytes=start["inputs"],
        output_bytes=start["outputs"],
        runs="".join(runs),
    )
