"""The kernels for ARMv7E-M: requantization, portable C on this machine, assembly on QEMU."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import batch
from helpers.counter import instructions
from helpers.emulator import EmulatedModel
from helpers.fixtures import Compile, Find
from helpers.host import HostModel
from helpers.layers import Layers
from helpers.model_bytes import weights_bytes
from helpers.tflite_graphs import Graph, Spec, answer
from mcuforge import mlf
from mcuforge.compiler import compile_model
from mcuforge.exact import arithmetic
from mcuforge.formats.tflite.oracle import evaluate
from mcuforge.isa.dsp import dot
from mcuforge.kernels import requantize as kernels_requantize
from mcuforge.kernels.requantize import HighWord, high_word
from mcuforge.target import Target
from mcuforge.tir.registry import Operand, Operation

SANITIZED = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def operation(weight, bias, scale, x_zero, zero, rounding, low=-128, high=127) -> Operation:
    return Operation(
        name="conv2d",
        args=(
            Operand((1, 1, 1, weight.shape[-1]), "int8"),
            Operand(weight.shape, "int8", weight),
            Operand(bias.shape, "int32", bias),
            Operand(scale.shape, "float64", scale),
        ),
        attrs={
            "input_zero_point": x_zero, "weight_zero_point": 0, "zero_point": zero,
            "clamp_min": low, "clamp_max": high, "rounding": rounding,
        },
        out=Operand((1, 1, 1, len(weight)), "int8"),
    )  # fmt: skip


def outputs(exact: HighWord, channel: int, acc: np.ndarray) -> np.ndarray:
    """The blocks' arithmetic, in 32 bits as on the core."""
    acc = np.where(exact.constants[channel], 0, acc)
    scaled = acc * exact.unit + exact.bias[channel]
    assert np.abs(scaled).max() < 1 << 31
    scaled = np.where(scaled >= 0, scaled + exact.positive[channel], scaled)
    assert np.abs(scaled).max() < 1 << 31
    high = ((scaled * exact.multiplier[channel]) >> 32) + exact.constant
    assert np.abs(high).max() < 1 << 31
    result = np.clip(high >> exact.shift, -128, 127)
    return result if exact.clamp is None else np.clip(result, *exact.clamp)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    x_zero=st.integers(-128, 127),
    zero=st.sampled_from([-128, -128, 127, 0, 4, -17]),
    fan_in=st.integers(1, 80),
    spread=st.floats(0.05, 8),
    rounding=st.sampled_from(["once", "twice"]),
)
def test_requantization_is_exact_on_every_accumulator(
    seed, x_zero, zero, fan_in, spread, rounding
) -> None:
    random = np.random.default_rng(seed)
    weight = random.integers(-127, 128, (3, fan_in), dtype=np.int8)
    bias = random.integers(-3000, 3000, 3, dtype=np.int32)
    scale = spread * random.uniform(0.5, 2, 3) / (np.sqrt(fan_in) * 73)
    exact = high_word(operation(weight, bias, scale, x_zero, zero, rounding), weight)
    if exact is None:
        return  # the level below computes it
    reach = np.abs(weight.astype(int)).sum(axis=1) * 255
    for channel in range(3):
        w = weight[channel].astype(int)
        low = bias[channel] + (np.where(w > 0, -128 - x_zero, 127 - x_zero) * w).sum()
        acc = np.arange(low, low + reach[channel] + 1)
        if rounding == "twice":
            multiplier = arithmetic.quantize_multiplier(scale[channel])
            want = arithmetic.multiply_by_quantized_multiplier(acc, *multiplier)
        else:
            want = arithmetic.fully_connected_round(acc, scale[channel])
        want = np.clip(want + zero, -128, 127)
        np.testing.assert_array_equal(outputs(exact, channel, acc), want)


def test_a_requantization_is_found_for_ordinary_layers() -> None:
    random = np.random.default_rng(1)
    for zero, rounding in ((-128, "twice"), (5, "twice"), (5, "once")):
        weight = random.integers(-127, 128, (64, 64), dtype=np.int8)
        scale = random.uniform(0.3, 3, 64) / (8 * 73)
        bias = random.integers(-3000, 3000, 64, dtype=np.int32)
        exact = high_word(operation(weight, bias, scale, -128, zero, rounding), weight)
        assert exact is not None
        assert exact.signed == (zero == 5 and rounding == "twice")


def test_packed_weights_hold_what_the_blocks_take_out() -> None:
    weights = np.random.default_rng(0).integers(-127, 128, (5, 16))
    words = dot.pack_weights(weights).view(np.uint32)
    halves = np.stack([words & 0xFFFF, words >> 16], axis=-1).astype(np.uint16).view(np.int16)
    first = (halves & 0xFF).astype(np.uint8).view(np.int8).astype(int)
    second = (halves - first) >> 8
    quads = weights.reshape(5, 4, 4)
    np.testing.assert_array_equal(first, quads[..., 0::2])
    np.testing.assert_array_equal(second, quads[..., 1::2])
    with pytest.raises(ValueError, match="halfwords"):
        dot.pack_weights(np.array([[-1, -128, 0, 0]]))


SHAPES = {
    "pointwise": lambda: Layers((1, 5, 3, 16), 1).conv((1, 1), 7).conv((1, 1), 6, relu=False),
    "pointwise, few pixels": lambda: Layers((1, 2, 1, 10), 2).conv((1, 1), 11, relu=False),
    "pointwise, strided": lambda: Layers((1, 5, 6, 8), 3).conv((1, 1), 9, (2, 2)),
    "rows": lambda: Layers((1, 6, 5, 4), 4).conv((3, 3), 5).conv((3, 3), 4, (2, 2), relu=False),
    "rows, no padding": lambda: Layers((1, 7, 6, 8), 5).conv((3, 2), 6, padding="VALID"),
    "tiles": lambda: tiles(),
    "tiles, no padding": lambda: Layers((1, 20, 18, 4), 16).conv((3, 3), 2, padding="VALID"),
    "bytes": lambda: Layers((1, 9, 8, 3), 6).conv((3, 3), 8, (2, 2)).conv((5, 3), 3),
    "bytes, large": lambda: Layers((1, 40, 40, 3), 7).conv((3, 3), 4),
    "one channel": lambda: Layers((1, 20, 10, 1), 8).conv((10, 4), 8, (2, 2)),
    "depthwise": lambda: Layers((1, 7, 8, 5), 9).depthwise((3, 3)).depthwise((3, 3), relu=False),
    "depthwise, strided": lambda: Layers((1, 9, 12, 6), 10).depthwise((3, 3), (2, 2)),
    "depthwise, wide": lambda: Layers((1, 3, 27, 3), 1).depthwise((3, 3)).depthwise((3, 3), (2, 2)),
    "depthwise, any": lambda: Layers((1, 9, 8, 4), 12).depthwise((2, 5)).depthwise((4, 3), (2, 1)),
    "depthwise, odd": lambda: Layers((1, 7, 8, 3), 18).depthwise((5, 5)).depthwise((3, 1)),
    "depthwise, signed": lambda: odd(),
    "depthwise, column": lambda: Layers((1, 17, 1, 6), 13).depthwise((10, 1), padding="VALID"),
    "add": lambda: Layers((1, 3, 5, 4), 14).add_itself(),
    "many inputs": lambda: Layers((1, 4, 3, 260), 22).conv((3, 3), 5, relu=False).conv((4, 3), 3),
    "many inputs, dense": lambda: Layers((1, 1, 1, 5003), 23).dense(6),
    "pools": lambda: pools(),
    "pools, batch": lambda: Layers((2, 5, 4, 8), 26).pool("AVERAGE_POOL_2D", (3, 3)).mean(),
    "pool, whole": lambda: (
        Layers((1, 16, 16, 4), 27).pool("AVERAGE_POOL_2D", (16, 16), padding="VALID")
    ),
    "pool, one column": lambda: Layers((1, 7, 1, 8), 28).pool("AVERAGE_POOL_2D", (5, 3), (3, 3)),
    "mean": lambda: Layers((1, 16, 16, 4), 29).mean(),
    "dense": lambda: Layers((1, 1, 1, 37), 15).dense(10).dense(3),
}  # fmt: skip


def odd() -> Layers:
    """Where q finds room in a row, and where behind the taps."""
    layers = Layers((1, 6, 9, 3), 19).depthwise((1, 5), relu=False).depthwise((3, 4), relu=False)
    return layers.depthwise((4, 4), (1, 2), relu=False)


def tiles() -> Layers:
    """Large enough for Winograd's form."""
    return Layers((1, 16, 18, 4), 17).conv((3, 3), 8).conv((3, 3), 4, relu=False)


def pools() -> Layers:
    """Of both kinds, with and without padding, and a mean."""
    layers = Layers((1, 13, 12, 8), 25).pool("MAX_POOL_2D", (3, 2), fused="RELU6")
    layers = layers.conv((1, 1), 12, relu=False).pool("AVERAGE_POOL_2D", (4, 3))
    layers = layers.pool("MAX_POOL_2D", (2, 2), (2, 1), "VALID", fused="RELU")
    return layers.pool("AVERAGE_POOL_2D", (2, 3), padding="VALID").mean()


def stimuli(shape: tuple[int, ...]) -> list[np.ndarray]:
    random = np.random.default_rng(3)
    values = [random.integers(-128, 128, shape), random.choice([-128, 127], shape)]
    return [v.astype(np.int8) for v in [*values, np.full(shape, -128), np.full(shape, 127)]]


@pytest.mark.parametrize("compact", [True, False])
def test_layers_answer_as_litert(
    compact: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, shapes = [], list(SHAPES.values())
    if not compact:
        forbid_compact_constants(monkeypatch)
        shapes = [make for name, make in SHAPES.items() if name.startswith("depthwise")]
    for make in shapes:
        layers = make()
        model = layers.model()
        for level in (3, 4):
            jobs += [
                batch.Job(model, "cortex-m7-c", level, [x]) for x in stimuli(layers.first_shape)[:2]
            ]
    results = batch.run(jobs, tmp_path, SANITIZED)
    for job, result in zip(jobs, results, strict=True):
        np.testing.assert_array_equal(result[0], answer(job.model, job.inputs)[0])


def forbid_compact_constants(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where biases are large."""
    monkeypatch.setattr(kernels_requantize, "_COMPACT_BIAS", 1)


def everything() -> Layers:
    """A chain through every block."""
    layers = Layers((1, 14, 13, 3), 20).conv((3, 3), 8).conv((3, 3), 9, relu=False)
    layers = layers.depthwise((3, 3)).conv((1, 1), 7).depthwise((3, 3), (2, 2), relu=False)
    layers = layers.conv((1, 1), 12, relu=False).add_itself().depthwise((2, 5)).conv((1, 1), 5)
    return layers.depthwise((3, 2), relu=False).conv((7, 7), 6, padding="VALID").dense(13)


def planes() -> Layers:
    """Depthwise layers, for constants in their long form."""
    layers = Layers((1, 12, 9, 5), 21).depthwise((3, 3)).depthwise((3, 3), relu=False)
    return layers.depthwise((2, 5)).depthwise((3, 2), (2, 2), relu=False)


def many_inputs() -> Layers:
    layers = Layers((1, 4, 3, 260), 24).conv((3, 3), 3, relu=False).conv((1, 1), 700)
    return layers.conv((2, 2), 3, (2, 2)).conv((1, 1), 2001).conv((2, 2), 5, padding="VALID")


CHAINS = {
    (everything, 3): ("dot_2x3", "dot_1x3", "dot_4x1", "dot_1x1", "depthwise_3x3", "ssat8"),
    (everything, 4): ("dot_2x3", "dot_expanded_4x1", "dot_expanded_1x1", "depthwise_3x3"),
    (tiles, 4): ("transform_inputs", "multiply_tiles", "transform_outputs"),
    (many_inputs, 3): ("dot_long_2x3", "dot_long_1x3", "dot_long_4x1", "dot_long_1x1"),
    (planes, 3): ("depthwise_3x3", "depthwise"),
    (pools, 3): ("ldr", "str", "smax8", "sxtab16", "sxtab16_ror8"),
}


@pytest.mark.parametrize(("make", "level"), CHAINS)
@pytest.mark.parametrize(
    ("core", "toolchain"), [("cortex-m4", "gcc"), ("cortex-m7", "gcc"), ("cortex-m7", "clang")]
)
def test_assembly_answers_as_litert(
    core: str,
    toolchain: str,
    make,
    level: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if make is planes:
        forbid_compact_constants(monkeypatch)
    layers = make()
    inputs = stimuli(layers.first_shape)
    model = layers.model()
    source = tmp_path / "model.tflite"
    source.write_bytes(model)
    compile_model(source, "chain", Target(core), level, tmp_path / "model.tar")
    emulated = EmulatedModel(tmp_path / "model.tar", tmp_path / "build", toolchain, ("-O3",))
    code = (tmp_path / "build/codegen/host/src/tvmgen_chain.c").read_text()
    for block in CHAINS[make, level]:
        assert re.search(rf"mcuforge_{block}[_(]", code)
    assert ("_wide(" in code) == (make is planes)
    results = emulated.run(np.stack([x.reshape(-1) for x in inputs]).view(np.uint8))
    wanted = np.stack([answer(model, [x])[0].reshape(-1) for x in inputs])
    np.testing.assert_array_equal(results.view(np.int8), wanted)


MODELS = ("kws_ref_model", "vww_96_int8", "pretrainedResnet_quant", "ad01_int8", "str_ww_ref_model")


@pytest.mark.parametrize(("level", "most"), [(3, 1.1), (4, 2.1)])
@pytest.mark.parametrize("model", MODELS)
def test_constants_take_little_more_flash_than_the_weights(
    model: str, level: int, most: float, compiled: Compile, find_model: Find
) -> None:
    info = mlf.read(compiled(model, "cortex-m7-c", level)).info
    assert info.weights_bytes <= most * weights_bytes(find_model(model).read_bytes())


@pytest.mark.parametrize("classes", [2, 5, 40])
def test_softmax_is_exact_for_every_difference(classes: int, tmp_path: Path) -> None:
    """Exponentials of few outputs are computed, of many come from a table."""
    values = np.random.default_rng(classes).integers(-128, 128, (256, classes)).astype(np.int8)
    values[:, 0], values[:, -1] = 127, np.arange(-128, 128)
    for index, scale in enumerate((0.004, 0.0625, 0.17, 1.7)):
        graph = Graph()
        x = graph.input(Spec((1, classes), "int8", scale, 3))
        spec = Spec((1, classes), "int8", 1 / 256, -128)
        model = graph.build(graph.op("SOFTMAX", [x], spec, beta=1.0))
        source, archive = tmp_path / f"{index}.tflite", tmp_path / f"{index}.tar"
        source.write_bytes(model)
        compile_model(source, "softmax", Target("cortex-m7"), 3, archive)
        assert (mlf.read(archive).info.weights_bytes == 1024) == (classes == 40)
        build = tmp_path / str(index)
        build.mkdir()
        rows = values.view(np.uint8)
        given = HostModel(archive, build).run(rows)
        np.testing.assert_array_equal(given, evaluate(model, rows))


@pytest.mark.parametrize("seed", range(18))
def test_no_level_is_slower_than_the_one_below(seed: int, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)

    def between(low: int, high: int) -> int:
        return int(random.integers(low, high + 1))

    shape = (1, between(1, 9), between(1, 9), int(random.choice([1, 2, 3, 4, 7, 8, 16])))
    layers = Layers(shape, seed)
    window = (between(1, 4), between(1, 4)) if seed % 2 else (3, 3)
    strides = (between(1, 2),) * 2
    match seed if seed > 11 else seed % 6:
        case 12:  # more inputs than 24 bits are enough for
            layers = Layers((1, 3, 3, between(300, 500)), seed).conv((3, 3), between(2, 9))
            shape = layers.first_shape
        case 13:
            layers = Layers((1, between(2000, 5000)), seed).dense(between(2, 9))
            shape = layers.first_shape
        case 14 | 15 | 16 as kind:
            layers = Layers((1, between(1, 9), between(1, 9), 4 * between(1, 5)), seed)
            shape = layers.first_shape
            name = "MAX_POOL_2D" if kind == 14 else "AVERAGE_POOL_2D"
            layers.pool(name, (between(1, 4), between(1, 4)), strides)
        case 17:
            layers = Layers((1, between(1, 9), between(1, 9), 4 * between(1, 5)), seed).mean()
            shape = layers.first_shape
        case 0 | 1:
            layers.conv(window, between(1, 16), strides, relu=bool(seed % 4))
        case 2 | 3:
            layers.depthwise(window, strides, relu=bool(seed % 4))
        case 4:
            layers.conv((1, 1), between(1, 16)).add_itself()
        case 5:
            layers.dense(between(1, 16))
    (tmp_path / "model.tflite").write_bytes(layers.model())
    counts = []
    for level in (2, 3, 4):
        archive, build = tmp_path / f"{level}.tar", tmp_path / str(level)
        build.mkdir()
        compile_model(tmp_path / "model.tflite", "layer", Target("cortex-m7"), level, archive)
        counts.append(instructions(archive, stimuli(shape)[0], build))
    assert counts[1] <= counts[0]
    assert counts[2] <= counts[1]
