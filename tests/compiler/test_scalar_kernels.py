"""What the kernels for cores without SIMD take: never more than the loops of level 2."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helpers.counter import instructions
from helpers.fixtures import Compile, Expect
from helpers.layers import Layers
from mcuforge.compiler import compile_model
from mcuforge.target import Target

CORES = ["rv32imc", "cortex-m3"]
# Few weights, few pixels, and sizes that are no multiple of a block's.
SMALL: dict[str, Callable[[], Layers]] = {
    "one channel": lambda: Layers((1, 1, 3, 1), 1).conv((1, 1), 1),
    "few channels": lambda: Layers((1, 8, 8, 3), 1).conv((1, 1), 2),
    "few pixels": lambda: Layers((1, 2, 2, 2), 1).conv((2, 2), 2),
    "stride": lambda: Layers((1, 6, 7, 3), 1).conv((3, 3), 5, (2, 2)),
    "dense": lambda: Layers((1, 1, 1, 11), 1).dense(1),
    "depthwise": lambda: Layers((1, 3, 3, 2), 1).depthwise((3, 3)),
}


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("layer", SMALL)
def test_small_layers_are_not_slower(layer: str, core: str, tmp_path: Path) -> None:
    made = SMALL[layer]()
    source = tmp_path / "model.tflite"
    source.write_bytes(made.model())
    stimulus = np.random.default_rng(0).integers(-128, 128, made.first_shape, np.int8)
    counts = []
    for level in (2, 3):
        archive, directory = tmp_path / f"{level}.tar", tmp_path / str(level)
        directory.mkdir()
        compile_model(source, "model", Target(core), level, archive)
        counts.append(instructions(archive, stimulus, directory))
    assert counts[1] <= counts[0]


@pytest.mark.parametrize(
    ("core", "toolchain", "most"),
    [
        ("rv32imc", "gcc", 8_500_000),
        ("rv32imc", "clang", 8_500_000),
        ("cortex-m3", "gcc", 7_500_000),
    ],
)
def test_keyword_spotting(
    core: str, toolchain: str, most: int, compiled: Compile, expected: Expect, tmp_path: Path
) -> None:
    archive = compiled("kws_ref_model", f"{core}-c", 3)
    inputs, _ = expected("kws_ref_model")
    assert instructions(archive, inputs[0], tmp_path, toolchain) <= most
