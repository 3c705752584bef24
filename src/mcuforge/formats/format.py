"""One interface to every model format, and the choice between them by a file's suffix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mcuforge.errors import ModelError
from mcuforge.formats.description import Description
from mcuforge.formats.tflite.describe import describe
from mcuforge.formats.tflite.oracle import answers
from mcuforge.formats.tflite.split import operators

if TYPE_CHECKING:
    import tvm

# Eight times the flash of the microcontrollers here; so many weights compile within 2 GB.
_MAX_BYTES = 16 << 20


@dataclass(frozen=True)
class Format:
    """What mcuforge needs of a model format. Every function raises ModelError, of one line.

    Attributes:
        title: the format's name for people.
        describe: ``(content, name)``: what is in a file. The content is not trusted.
        to_relax: ``(content)``: a file that `describe` accepts, as Relax; ``main`` has one
            parameter per input, in the model's order. Quantized operators stand in it as float
            arithmetic between ``dequantize`` and ``quantize``.
        answers: ``(path, inputs)``: what the format's own reference implementation computes.
            Inputs and outputs are uint8 [n, bytes], each row the raw bytes of all tensors in order.
        operators: ``(content)``: the place and a model of each operator by itself, to find the one
            that an error comes from.
    """

    title: str
    describe: Callable[[bytes, str], Description]
    to_relax: Callable[[bytes], tvm.IRModule]
    answers: Callable[[Path, np.ndarray], np.ndarray]
    operators: Callable[[bytes], Iterator[tuple[str, bytes]]]


def of(path: Path) -> Format:
    """The format of the model at `path`, by its suffix; ModelError if there is none."""
    suffix = path.suffix.lower()
    if suffix not in _FORMATS:
        known = ", ".join(f"{suffix} ({format.title})" for suffix, format in _FORMATS.items())
        raise ModelError(f"{path} is no model: unknown suffix '{path.suffix}'", f"known: {known}")
    return _FORMATS[suffix]


def read(path: Path) -> bytes:
    """The content of a model file; ModelError if it cannot be read or is too large."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > _MAX_BYTES:
        raise ModelError(f"{path} is larger than {_MAX_BYTES >> 20} MiB")
    return content


def _tflite_to_relax(content: bytes) -> tvm.IRModule:
    from mcuforge.formats.tflite.importer import from_tflite  # takes a second: it loads TVM

    return from_tflite(content)


_FORMATS = {
    ".tflite": Format("TensorFlow Lite", describe, _tflite_to_relax, answers, operators),
}
