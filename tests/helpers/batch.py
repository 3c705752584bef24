"""Compiles many small models, builds them into one program for this machine, and runs it."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.host import WARNINGS
from mcuforge import mlf
from mcuforge.compiler import compile_model
from mcuforge.target import Target

_MAIN = """\
#include <stdio.h>
#include <stdlib.h>
{includes}

static void *buffer(size_t size, int filled) {{
    void *data = malloc(size);
    if (!data || (filled && fread(data, 1, size, stdin) != size)) {{
        abort();
    }}
    return data;
}}

int main(void) {{
{calls}
    return 0;
}}
"""
_CALL = """\
    {{
        struct {symbol}_inputs inputs = {{{inputs}}};
        struct {symbol}_outputs outputs = {{{outputs}}};
        if ({symbol}_run(&inputs, &outputs)) {{
            return 1;
        }}
{writes}
    }}
"""


@dataclass(frozen=True)
class Job:
    """A model, how to compile it, and its inputs."""

    model: bytes
    target: str
    opt_level: int
    inputs: Sequence[np.ndarray]


def compile_job(job: Job, directory: Path, name: str) -> Path:
    """The archive of a job's model, which is named `name`; both are written to `directory`."""
    model, archive = directory / f"{name}.tflite", directory / f"{name}.tar"
    model.write_bytes(job.model)
    try:
        compile_model(model, name, Target.parse(job.target), job.opt_level, archive)
    except Exception as error:
        error.add_note(f"{model} for {job.target}, opt_level {job.opt_level}")
        raise
    return archive


def run(jobs: Sequence[Job], directory: Path, flags: Sequence[str]) -> list[list[np.ndarray]]:
    """The outputs of each job's model, computed by the generated C under `flags`.

    Raises:
        McuforgeError: a model does not compile.
        AssertionError: gcc warns, or the program fails; says what gcc or the program says.
    """
    includes, calls, ports, given = [], [], [], []
    for index, job in enumerate(jobs):
        read = mlf.read(compile_job(job, directory, f"m{index}"))
        read.extract(directory)
        symbol = read.info.entry.removesuffix("_run")
        outputs = read.info.outputs
        includes.append(f'#include "{read.info.header}"')
        calls.append(
            _CALL.format(
                symbol=symbol,
                inputs=", ".join(f"buffer({port.bytes}, 1)" for port in read.info.inputs),
                outputs=", ".join(f"buffer({port.bytes}, 0)" for port in outputs),
                writes="\n".join(
                    f"        fwrite(outputs.{port.c_name}, 1, {port.bytes}, stdout);"
                    for port in outputs
                ),
            )
        )
        ports.append(outputs)
        given += [np.ascontiguousarray(values).tobytes() for values in job.inputs]
    main = directory / "main.c"
    main.write_text(_MAIN.format(includes="\n".join(includes), calls="".join(calls)))
    generated = sorted((directory / "codegen/host/src").glob("*.c"))
    program = directory / "program"
    include = f"-I{directory / 'codegen/host/include'}"
    sources = [str(path) for path in (main, *generated)]
    _succeed(["gcc", "-std=c11", *WARNINGS, *flags, include, *sources, "-o", str(program), "-lm"])
    answer = _succeed([str(program)], b"".join(given))
    results = []
    for outputs in ports:
        results.append([])
        for port in outputs:
            raw, answer = answer[: port.bytes], answer[port.bytes :]
            results[-1].append(np.frombuffer(raw, port.dtype).reshape(port.shape))
    return results


def _succeed(command: Sequence[str], data: bytes = b"") -> bytes:
    # The program leaves its buffers to the operating system.
    environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run(command, input=data, capture_output=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[:4000]
    return done.stdout
