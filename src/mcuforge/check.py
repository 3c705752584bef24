"""Runs a compiled model on this machine and compares its outputs with the oracle's.

The C of an archive is portable: for instructions that this machine lacks it has the same arithmetic
in plain C. The program is a process of its own, so a crash of generated code ends only that.
"""

import shutil
import signal
import subprocess
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from mcuforge import formats, mlf
from mcuforge.comparison import RELATIVE_TOLERANCE, compare
from mcuforge.errors import ConfigError, ModelError, ToolError
from mcuforge.models import vectors

_RANDOM_INPUTS = 20
# What a C compiler is called on every POSIX system.
_COMPILER = "cc"
_FLAGS = ("-std=c99", "-O1", "-w", "-ffp-contract=off")
# MLPerf Tiny's models take 3 s together.
_BUILD_TIMEOUT_S = 600
_RUN_TIMEOUT_S = 600
# What plain TVM gives: float arithmetic where the model has integers, so it differs by design.
_INEXACT_LEVEL = 0

# Reads the inputs of an inference from standard input, and writes its outputs, until there are no
# more.
_MAIN = """\
#include <stdint.h>
#include <stdio.h>
#include "{header}"

{buffers}

int main(void) {{
    struct {symbol}_inputs inputs = {{{inputs}}};
    struct {symbol}_outputs outputs = {{{outputs}}};
    while ({reads}) {{
        if ({symbol}_run(&inputs, &outputs) != 0 || !({writes})) {{
            return 1;
        }}
    }}
    return 0;
}}
"""


def check_model(path: Path, model: Path) -> str:
    """`check` an archive with random inputs and `vectors.corner_inputs` of its model's file."""
    description = formats.of(model).describe(formats.read(model), mlf.read(path).name)
    inputs = np.concatenate(
        [
            vectors.corner_inputs(description),
            vectors.random_inputs(description, _RANDOM_INPUTS),
        ]
    )
    return check(path, inputs, formats.of(model).answers(model, inputs))


def check_vectors(path: Path, stimuli: Path) -> str:
    """`check` an archive with the inputs of its model's ``.vectors.npz``, random and corners."""
    try:
        with np.load(stimuli, allow_pickle=False) as arrays:
            inputs = np.concatenate([arrays["inputs"], arrays["corner_inputs"]])
            expected = np.concatenate([arrays["outputs"], arrays["corner_outputs"]])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ConfigError(f"cannot read vectors from {stimuli}: {error}") from error
    return check(path, inputs, expected)


def check(path: Path, inputs: np.ndarray, expected: np.ndarray) -> str:
    """Compare what a compiled model answers with what the oracle does.

    Integers must be equal, floats within 1e-5 of the largest. At opt_level 0 outputs may differ,
    which the result says; the code must run there too.

    Args:
        path: the archive; its codegen is ``c``.
        inputs: uint8 [n, input_bytes], each row the raw bytes of all inputs in order.
        expected: uint8 [n, output_bytes], the oracle's outputs.

    Returns:
        what was checked, in one line.

    Raises:
        ModelError: an output differs, or the code cannot be built or run.
        ToolError: there is no C compiler.
    """
    archive = mlf.read(path)
    info = archive.info
    if info.codegen != "c":
        raise ModelError(
            f"{path} holds an object file, which runs on Arm only",
            f"check the target {info.core}-c, which has the same kernels",
        )
    for name, rows, size in (
        ("inputs", inputs, info.input_bytes),
        ("outputs", expected, info.output_bytes),
    ):
        if rows.ndim != 2 or rows.dtype != np.uint8 or rows.shape[1] != size:
            raise ModelError(f"{path} has {size} bytes of {name}, the vectors another model's")
    with tempfile.TemporaryDirectory(prefix="mcuforge-") as directory:
        program = _build(archive, Path(directory))
        outputs = _run(program, archive, inputs)
    result = compare(outputs, [row.tobytes() for row in expected], info.outputs)
    if not result.wrong:
        floats = any(np.dtype(port.dtype).kind == "f" for port in info.outputs)
        within = f" (floats within {RELATIVE_TOLERANCE:g})" if floats else ""
        return f"checked: {len(inputs)} inputs, all outputs equal LiteRT's{within}"
    share = f"{result.wrong} of {result.total} values differ from LiteRT's"
    if info.opt_level == _INEXACT_LEVEL and result.max_abs_error is not None:
        return (
            f"checked: {len(inputs)} inputs; {share}, by up to {result.max_abs_error:g}: "
            f"opt_level {_INEXACT_LEVEL} computes integers as floats"
        )
    raise ModelError(
        f"{_code(archive)} is wrong: {result.first}; {share}",
        "report it with the model; a lower opt_level may be right",
    )


def _code(archive: mlf.Archive) -> str:
    return f"code of '{archive.name}' for {archive.info.core} at opt_level {archive.info.opt_level}"


def _build(archive: mlf.Archive, directory: Path) -> Path:
    compiler = shutil.which(_COMPILER)
    if compiler is None:
        raise ToolError(
            "there is no C compiler to check the model with", "install the Debian package gcc"
        )
    archive.extract(directory)
    main, program, model = directory / "main.c", directory / "program", directory / "codegen/host"
    main.write_text(_main(archive.info))
    sources = sorted(map(str, model.glob("src/*.c")))
    command = [compiler, *_FLAGS, f"-I{model / 'include'}", str(main), *sources]
    try:
        done = subprocess.run(
            [*command, "-o", str(program), "-lm"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_BUILD_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"{_code(archive)} takes {compiler} over {_BUILD_TIMEOUT_S} s") from error
    if done.returncode:
        lines = done.stderr.splitlines() or ["no reason given"]
        reason = next((line for line in lines if "error: " in line), lines[-1])
        raise ModelError(f"{_code(archive)} cannot be built for this machine: {reason}")
    return program


def _run(program: Path, archive: mlf.Archive, inputs: np.ndarray) -> list[bytes]:
    try:
        done = subprocess.run(
            [str(program)],
            input=inputs.tobytes(),
            capture_output=True,
            timeout=_RUN_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"{_code(archive)} runs for over {_RUN_TIMEOUT_S} s") from error
    if done.returncode:
        died = done.returncode < 0
        how = signal.Signals(-done.returncode).name if died else f"status {done.returncode}"
        raise ModelError(f"{_code(archive)} ends with {how} on this machine")
    size = archive.info.output_bytes
    return [done.stdout[start : start + size] for start in range(0, len(done.stdout), size)]


def _main(info: mlf.Info) -> str:
    buffers: list[str] = []

    def declare(ports: tuple[mlf.Port, ...], kind: str) -> list[str]:
        names = [f"{kind}_{index}" for index in range(len(ports))]
        for name, port in zip(names, ports, strict=True):
            buffers.append(f"static uint8_t {name}[{port.bytes}] __attribute__((aligned(16)));")
        return names

    def move(function: str, names: list[str], stream: str) -> str:
        return " && ".join(f"{function}({name}, sizeof {name}, 1, {stream}) == 1" for name in names)

    inputs, outputs = declare(info.inputs, "input"), declare(info.outputs, "output")
    return _MAIN.format(
        header=info.header,
        symbol=info.entry.removesuffix("_run"),
        buffers="\n".join(buffers),
        inputs=", ".join(f"(void *){name}" for name in inputs),
        outputs=", ".join(f"(void *){name}" for name in outputs),
        reads=move("fread", inputs, "stdin"),
        writes=move("fwrite", outputs, "stdout"),
    )
