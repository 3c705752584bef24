"""Archives whose code was changed after they were compiled."""

import re
from collections.abc import Callable
from pathlib import Path

from mcuforge import mlf


def change(archive: Path, file: str, edit: Callable[[bytes], bytes], output: Path) -> Path:
    """Write the archive to `output` with the member whose name ends with `file` edited."""
    read = mlf.read(archive)
    (name,) = (name for name in read.members if name.endswith(file))
    content = edit(read.members[name])
    assert content != read.members[name]
    mlf.write(output, read.metadata, read.members | {name: content})
    return output


def negate_last_constant(archive: Path, output: Path) -> Path:
    """Change the sign of the last constant: of the model ``tiny``, the multiplier of an output."""

    def edit(source: bytes) -> bytes:
        head, value, tail = re.fullmatch(rb"(.*?)(-?\d+)(,\D*)", source, re.DOTALL).groups()
        return head + str(-int(value)).encode() + tail

    return change(archive, "_weights.c", edit, output)
