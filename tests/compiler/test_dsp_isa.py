"""Blocks of ARMv7E-M: what they are defined to compute, on this machine and on the cores."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers.instructions import ROUNDS, Trial, by_definition, by_portable_c, differing_on_core
from mcuforge.isa.dsp import depthwise, dot, widen, winograd, words
from mcuforge.isa.instruction import Instruction

RANDOM = np.random.default_rng(11)


def draw(low: int, high: int, *shape: int) -> np.ndarray:
    """ROUNDS arrays of this shape; a third of the values are extreme."""
    size = (ROUNDS, *shape)
    extreme = RANDOM.choice([low, high], size)
    return np.where(RANDOM.random(size) < 0.3, extreme, RANDOM.integers(low, high + 1, size))


def memory(*shape: int) -> np.ndarray:
    return np.zeros((ROUNDS, *shape), np.int64)


def trial(entry: Instruction, *operands: np.ndarray) -> Trial:
    dtypes = [str(buffer.dtype) for buffer in entry.definition.params]
    given = [values.astype(dtype) for values, dtype in zip(operands, dtypes, strict=True)]
    return Trial(entry, given)


def widened(inputs: np.ndarray) -> np.ndarray:
    """(ROUNDS, pixels, k) as the dot blocks take them."""
    quads = inputs.reshape(ROUNDS, inputs.shape[1], -1, 2, 2)
    b = quads[..., 1] - 127
    halves = np.stack([b, 256 * quads[..., 0] - b], axis=3)  # (round, pixel, quad, b or a, half)
    return halves.transpose(0, 2, 3, 1, 4).reshape(ROUNDS, -1)


def dot_trial(channels: int, pixels: int, unroll: int, signed: bool, form: str = "") -> Trial:
    expanded, long = form == "expanded", form == "long"
    entry = dot.dot(channels, pixels, unroll, 12, signed, expanded, long)
    per_step = 4 if pixels == 3 else 8
    steps = unroll * (-(-300 // per_step // unroll) if long else 3)
    groups, inputs = 1 if long else 2, steps * per_step
    outputs = groups * channels
    weights = draw(-127, 127, outputs, inputs)
    x = draw(-128, 127, pixels, inputs)
    if expanded:
        words = dot.expand_weights(weights.reshape(-1, inputs), 256)
        wide = x.reshape(ROUNDS, -1, 2, 2).transpose(0, 1, 3, 2).reshape(ROUNDS, -1)
    else:
        words = dot.pack_weights(weights.reshape(-1, inputs))[..., np.newaxis]
        wide = widened(x)
    words = words.reshape(ROUNDS, groups, channels, -1).transpose(0, 1, 3, 2)
    if not expanded:
        words = words.reshape(ROUNDS, groups, inputs // 4, channels)
    else:
        words = words.reshape(ROUNDS, groups, inputs // 2, channels)
    bias = draw(-(1 << 24), 1 << 24, groups, 1, channels)
    m = draw(1 << 20, (1 << 31) - 1, groups, channels, 1)
    if long:
        addend = [draw(-(1 << 31), (1 << 31) - 1, groups, channels, 1) for _ in range(2)]
        constants = [m, addend[0], addend[1] >> 8, draw(0, 20, groups, channels, 1)]
    else:
        constants = [m, draw(256, 512, groups, channels, 1)][: 2 if signed else 1]
    constants = np.concatenate(constants, axis=3).reshape(ROUNDS, groups, -1)
    body = [bias.reshape(ROUNDS, groups, -1), words.reshape(ROUNDS, groups, -1), constants]
    body = np.concatenate(body, axis=2).reshape(ROUNDS, -1)
    header = [4 * body.shape[1], wide.shape[1] // 2, 0 if long else 3 << 12, outputs]
    stream = np.concatenate([np.tile(header, (ROUNDS, 1)), body], axis=1)
    return trial(entry, wide, stream, memory(outputs * pixels))


def depthwise_trial(
    kernel: tuple[int, int], strides: tuple[int, int], signed: bool, compact: bool
) -> Trial:
    (height, width), pitch, step = (3, 5), 16, 3
    arguments = (12, signed, compact)
    if kernel == (3, 3) and strides[0] == strides[1]:
        constant = not signed and not compact
        entry = depthwise.depthwise_3x3(
            height, width, strides[0], pitch, step, 12, signed, constant, 2, compact
        )
    else:
        constant = True
        entry = depthwise.depthwise((height, width), kernel, strides, pitch, step, *arguments)
    taps = draw(-127, 127, *kernel)
    constants = [draw(-(1 << 25), 1 << 25, 1), draw(1 << 18, (1 << 29) - 1, 1) * 4]
    constants += [draw(256, 511, 1)] if signed else []
    stream = depthwise.pack_plane(np.concatenate(constants, axis=1), taps, compact)
    plane = draw(-128, 127, ((height - 1) * strides[0] + kernel[0]) * pitch + 2)
    c = memory(1) + ((5 << 12) if signed or constant else 0)
    return trial(entry, plane, stream, memory(height * width * step), c)


def tiles() -> list[Trial]:
    """The blocks of Winograd's convolutions; 68 channels take a loop."""
    channels, pitch, halves = 8, 40, 8 * 8 * 2 * winograd.TILES
    given = [
        trial(
            winograd.transform_inputs(channels), draw(-128, 127, 3 * pitch + 4 * channels),
            memory(halves), memory(1) + pitch,
        )
    ]  # fmt: skip
    for channels in (8, 68):
        wide = draw(-512, 512, 16 * channels * winograd.TILES)
        weights = draw(-32767, 32767, 32 * channels)
        given.append(trial(winograd.multiply_tiles(channels), wide, weights, memory(96)))
    for signed in (False, True):
        sums = draw(-(1 << 24), 1 << 24, 16, 2, winograd.TILES).reshape(ROUNDS, -1)
        constants = [draw(-(1 << 24), 1 << 24, 2), draw(1 << 18, 1 << 22, 2), draw(256, 511, 2)]
        stream = np.stack(constants[: 3 if signed else 2], axis=2).reshape(ROUNDS, -1)
        places = np.tile([8, 0, 4], (ROUNDS, 1))
        entry = winograd.transform_outputs(2, 12, 10, signed)
        given.append(trial(entry, sums, stream, memory(24), places, memory(1) + (5 << 10)))
    return given


def word_trials() -> list[Trial]:
    """Instructions on registers."""

    def any_word() -> np.ndarray:
        return draw(-(1 << 31), (1 << 31) - 1, 1)

    def any_bytes() -> np.ndarray:
        return draw(-128, 127, 4)

    return [
        trial(words.ssat8(7), any_word(), memory(1)),
        trial(words.sxtab16(0), any_word(), any_word(), memory(1)),
        trial(words.sxtab16(8), any_word(), any_word(), memory(1)),
        trial(words.smax8, any_word(), any_word(), memory(1)),
        trial(words.ldr, any_bytes(), memory(1)),
        trial(words.str_, memory(4), any_word()),
    ]


def trials() -> list[Trial]:
    given = tiles()
    for pixels in (1, 3):
        count = draw(1, 40, 1)
        given.append(trial(widen.widen(pixels), draw(-128, 127, 48), memory(40 * pixels), count))
        value, quads = draw(-128, 127, 1), draw(1, 9, 1)
        given.append(trial(widen.widen_value(pixels), memory(40 * pixels), quads, value))
    for count in (4, 7, 13):
        given.append(trial(widen.widen_pixels(count), draw(-128, 127, 3 * count), memory(60)))
    given.append(trial(widen.widen_pairs, draw(-128, 127, 48), memory(48), draw(1, 40, 1)))
    given.append(trial(widen.fill_halfwords, memory(64), draw(0, 31, 1), draw(-128, 127, 1)))
    given.append(trial(widen.copy_bytes, draw(-128, 127, 48), memory(48), draw(0, 47, 1)))
    given.append(trial(depthwise.plane(3, 5, 2, 8), draw(-128, 127, 30), memory(24)))
    given += word_trials()
    for signed in (False, True):
        for channels, pixels in dot.DOT_SHAPES:
            given += [dot_trial(channels, pixels, 2, signed)]
        given += [dot_trial(4, 1, 2, signed, "expanded"), dot_trial(1, 1, 3, signed, "expanded")]
        given += [
            dot_trial(channels, pixels, 3, signed, "long") for channels, pixels in ((2, 3), (1, 3))
        ]
        given += [dot_trial(channels, 1, 3, signed, "long") for channels in (4, 1)]
        for compact in (False, True):
            for kernel, strides in (
                ((3, 3), (1, 1)), ((3, 3), (2, 2)), ((3, 3), (2, 1)), ((2, 4), (1, 1)),
                ((1, 5), (1, 2)), ((5, 1), (1, 1)),
            ):  # fmt: skip
                given.append(depthwise_trial(kernel, strides, signed, compact))
    return given


@pytest.fixture(scope="module")
def blocks() -> tuple[list[Trial], list[np.ndarray]]:
    given = trials()
    return given, [by_definition(one) for one in given]


def test_portable_c_computes_the_definitions(blocks, tmp_path: Path) -> None:
    for given, result, want in zip(blocks[0], by_portable_c(blocks[0], tmp_path), blocks[1],
                                   strict=True):  # fmt: skip
        assert len(np.unique(want)) > 1, given.entry.name
        np.testing.assert_array_equal(result, want, err_msg=given.entry.name)


@pytest.mark.parametrize(
    ("core", "toolchain"),
    [("cortex-m7", "gcc"), ("cortex-m7", "clang"), ("cortex-m4", "gcc")],
)
def test_the_core_computes_the_definitions(
    core: str, toolchain: str, blocks, tmp_path: Path
) -> None:
    for program in ("qemu-system-arm", "clang-19", "arm-none-eabi-gcc", "ld.lld-19"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    machine = {"cortex-m7": "mps2-an500", "cortex-m4": "mps2-an386"}[core]
    assert differing_on_core(*blocks, core, machine, toolchain, tmp_path) == []


def test_llvm_computes_the_definitions(blocks, tmp_path: Path) -> None:
    """Of those with a form for LLVM; the others are C functions that objects call."""
    for program in ("qemu-system-arm", "clang-19", "ld.lld-19"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    pairs = [(g, w) for g, w in zip(*blocks, strict=True) if g.entry.llvm is not None]
    given, want = zip(*pairs, strict=True)
    names = ["ssat8_asr7", "sxtab16", "sxtab16_ror8", "smax8", "ldr", "str"]
    assert [one.entry.name for one in given] == names
    assert differing_on_core(given, want, "cortex-m7", "mps2-an500", "tvm-llvm", tmp_path) == []


def test_a_wrong_definition_is_noticed(blocks, tmp_path: Path) -> None:
    if shutil.which("qemu-system-arm") is None or shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("qemu-system-arm or arm-none-eabi-gcc is not installed")
    given, want = blocks[0][:8], [w ^ (i == 3) for i, w in enumerate(blocks[1][:8])]
    differing = differing_on_core(given, want, "cortex-m7", "mps2-an500", "gcc", tmp_path)
    assert differing == [given[3].entry.name]
