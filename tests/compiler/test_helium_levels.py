"""Levels on Helium: none is slower than the one below, and flash is spent as each may."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helpers.counter import instructions
from helpers.layers import Layers
from helpers.model_bytes import weights_bytes
from mcuforge import mlf
from mcuforge.compiler import compile_model
from mcuforge.target import Target

MODELS = ("kws_ref_model", "vww_96_int8", "pretrainedResnet_quant", "ad01_int8", "str_ww_ref_model")


@pytest.mark.parametrize(("level", "most"), [(3, 1.1), (4, 2.1)])
@pytest.mark.parametrize("core", ["cortex-m55", "cortex-m85"])
@pytest.mark.parametrize("model", MODELS)
def test_constants_take_little_more_flash_than_the_weights(
    model: str,
    core: str,
    level: int,
    most: float,
    compiled: Callable[[str, str, int], Path],
    find_model: Callable[[str], Path],
) -> None:
    info = mlf.read(compiled(model, f"{core}-c", level)).info
    assert info.weights_bytes <= most * weights_bytes(find_model(model).read_bytes())


@pytest.mark.parametrize("seed", range(12))
def test_no_level_is_slower_than_the_one_below(seed: int, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)

    def between(low: int, high: int) -> int:
        return int(random.integers(low, high + 1))

    shape = (1, between(1, 9), between(1, 9), int(random.choice([1, 2, 3, 4, 7, 8, 16])))
    layers = Layers(shape, seed)
    window = (between(1, 4), between(1, 4)) if seed % 2 else (3, 3)
    strides = (between(1, 2),) * 2
    match seed % 6:
        case 0 | 1:
            layers.conv(window, between(1, 16), strides, relu=bool(seed % 4))
        case 2 | 3:
            layers.depthwise(window, strides, relu=bool(seed % 4))
        case 4:
            layers.conv((1, 1), between(1, 16)).add_itself()
        case 5:
            layers.dense(between(1, 16))
    (tmp_path / "model.tflite").write_bytes(layers.model())
    stimulus = random.integers(-128, 128, shape).astype(np.int8)
    counts = []
    for level in (2, 3, 4):
        archive, build = tmp_path / f"{level}.tar", tmp_path / str(level)
        build.mkdir()
        compile_model(tmp_path / "model.tflite", "layer", Target("cortex-m55"), level, archive)
        counts.append(instructions(archive, stimulus, build, "clang"))
    assert counts[1] <= counts[0]
    assert counts[2] <= counts[1]
