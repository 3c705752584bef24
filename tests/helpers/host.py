"""Runs compiled models on the machine the tests run on: MLF to shared library to arrays."""

import ctypes
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mcuforge import mlf

# The generated code is held to these warnings, as errors.
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wpedantic", "-Werror")


class HostModel:
    """Models compiled for the host, in one library.

    Args:
        archive: path of a model's MLF tar.
        directory: where to unpack and build.
        flags: further compiler flags.
        compiler: the C compiler.
        further: archives of more models, with names of their own; inputs and outputs of a run are
            those of all models in order.
    """

    def __init__(
        self,
        archive: Path,
        directory: Path,
        flags: tuple[str, ...] = ("-O1",),
        compiler: str = "gcc",
        further: Sequence[Path] = (),
    ) -> None:
        archives = [mlf.read(path) for path in (archive, *further)]
        for read in archives:
            read.extract(directory)
        self.infos = [read.info for read in archives]
        self.info = self.infos[0]
        self.program = directory / "model.so"
        model = directory / "codegen/host"
        command = [compiler, "-std=c99", *WARNINGS, *flags, "-shared", "-fPIC"]
        command += [f"-I{model / 'include'}", "-o", str(self.program)]
        command += sorted(map(str, [*model.glob("src/*.c"), *model.glob("lib/*.o")]))
        done = subprocess.run([*command, "-lm"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        library = ctypes.CDLL(str(self.program))
        self._entries = [getattr(library, info.entry) for info in self.infos]

    def run(self, rows: np.ndarray) -> np.ndarray:
        """Raw bytes in (n, input_bytes), raw bytes out (n, output_bytes), inputs concatenated."""
        ends = np.cumsum([port.bytes for info in self.infos for port in info.inputs])
        results = []
        for row in rows:
            parts = iter(np.split(row, ends[:-1]))
            written: list[np.ndarray] = []
            for info, entry in zip(self.infos, self._entries, strict=True):
                inputs = [_aligned(next(parts)) for _ in info.inputs]
                outputs = [_aligned(np.zeros(port.bytes, np.uint8)) for port in info.outputs]
                assert entry(_pointers(inputs), _pointers(outputs)) == 0
                written += outputs
            results.append(np.concatenate(written))
        return np.stack(results)


def _aligned(data: np.ndarray) -> np.ndarray:
    buffer = np.zeros(data.size + 16, np.uint8)
    start = -buffer.ctypes.data % 16
    view = buffer[start : start + data.size]
    view[:] = data
    return view


def _pointers(arrays: list[np.ndarray]) -> ctypes.Array:
    return (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))
