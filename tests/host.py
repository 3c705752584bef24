"""Runs compiled models on the machine the tests run on: MLF to shared library to arrays."""

import ctypes
import subprocess
from pathlib import Path

import numpy as np

from mcuforge import mlf

# The generated code is held to these warnings, as errors.
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wpedantic", "-Werror")


class HostModel:
    """A model compiled for the host.

    Args:
        archive: path of its MLF tar.
        directory: where to unpack and build.
        flags: further compiler flags.
        compiler: the C compiler.
    """

    def __init__(
        self,
        archive: Path,
        directory: Path,
        flags: tuple[str, ...] = ("-O1",),
        compiler: str = "gcc",
    ) -> None:
        read = mlf.read(archive)
        self.info = read.info
        read.extract(directory)
        library = directory / "model.so"
        model = directory / "codegen/host"
        command = [compiler, "-std=c99", *WARNINGS, *flags, "-shared", "-fPIC", "-o", str(library)]
        command += [f"-I{model / 'include'}"]
        command += sorted(map(str, [*model.glob("src/*.c"), *model.glob("lib/*.o")]))
        done = subprocess.run([*command, "-lm"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        self._run = getattr(ctypes.CDLL(str(library)), self.info.entry)

    def run(self, rows: np.ndarray) -> np.ndarray:
        """Raw bytes in (n, input_bytes), raw bytes out (n, output_bytes), inputs concatenated."""
        results = []
        for row in rows:
            split = np.cumsum([port.bytes for port in self.info.inputs])[:-1]
            inputs = [_aligned(part) for part in np.split(row, split)]
            outputs = [_aligned(np.zeros(p.bytes, np.uint8)) for p in self.info.outputs]
            assert self._run(_pointers(inputs), _pointers(outputs)) == 0
            results.append(np.concatenate(outputs))
        return np.stack(results)


def _aligned(data: np.ndarray) -> np.ndarray:
    buffer = np.zeros(data.size + 16, np.uint8)
    start = -buffer.ctypes.data % 16
    view = buffer[start : start + data.size]
    view[:] = data
    return view


def _pointers(arrays: list[np.ndarray]) -> ctypes.Array:
    return (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))
