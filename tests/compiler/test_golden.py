"""The C of one model for each feature, kept in tests/golden: a change of it is seen in review.

``make golden`` writes the files again. The difference that git shows then is part of the change.
"""

import difflib
import os
import re
import tarfile
import zlib
from pathlib import Path

import pytest

from helpers.layers import Layers
from mcuforge.compiler import compile_model
from mcuforge.target import Target

GOLDEN = Path(__file__).parents[1] / "golden"
# Scalar kernels are different at each level. Of the levels 3 and 4 of a feature, which share most
# kernels, the one with more of its own is enough. LLVM's archive has the run function in C.
FILES = {
    "scalar_O0.c": ("host-c", 0),
    "scalar_O1.c": ("host-c", 1),
    "scalar_O2.c": ("host-c", 2),
    "scalar_O3.c": ("cortex-m3-c", 3),
    "registers_O3.c": ("rv32imc-c", 3),
    "dsp_O4.c": ("cortex-m7-c", 4),
    "helium_O4.c": ("cortex-m55-c", 4),
    "helium_O4_llvm.c": ("cortex-m55-llvm", 4),
}
_VALUES = re.compile(r" = \{\n([^}]*)\};")


def generated(model: bytes, target: str, opt_level: int, directory: Path) -> str:
    """The header and the C files of a model one after the other, without values of constants."""
    path, archive = directory / "golden.tflite", directory / "golden.tar"
    path.write_bytes(model)
    compile_model(path, "golden", Target.parse(target), opt_level, archive)
    text = ""
    with tarfile.open(archive) as tar:
        for member in sorted(tar.getmembers(), key=lambda member: member.name):
            if member.isfile() and member.name.endswith((".h", ".c")):
                content = tar.extractfile(member).read().decode()
                text += f"/* {member.name} */\n" + _VALUES.sub(_elided, content) + "\n"
    return text


def _elided(values: re.Match[str]) -> str:
    return f" = {{ /* CRC-32 {zlib.crc32(values[1].encode()):08x} */ }};"


@pytest.fixture(scope="module")
def model() -> bytes:
    """A convolution, a depthwise one and a fully connected layer, each with a kernel of its own."""
    return Layers((1, 6, 6, 4), seed=1).conv((3, 3), 8).depthwise((3, 3)).dense(4).model()


@pytest.mark.parametrize("name", FILES)
def test_generated_code_is_the_one_reviewed(name: str, model: bytes, tmp_path: Path) -> None:
    text = generated(model, *FILES[name], tmp_path)
    if os.environ.get("MCUFORGE_GOLDEN") == "write":
        (GOLDEN / name).write_text(text)
        pytest.skip(f"tests/golden/{name} is written, not compared")
    expected = (GOLDEN / name).read_text()
    difference = difflib.unified_diff(expected.splitlines(), text.splitlines(), name, "now", n=1)
    assert text == expected, "\n".join(
        ["`make golden` writes it again, if the change is meant:", *list(difference)[:60]]
    )


def test_every_golden_file_is_compared() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == set(FILES)
