"""Reading models: the right facts from good files, one-line errors from bad ones."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from tflite_graphs import Graph, Spec

from mcuforge.errors import ModelError
from mcuforge.formats.tflite import oracle
from mcuforge.formats.tflite.describe import describe
from mcuforge.models import vectors

MODELS = Path(__file__).parents[3] / "shared" / "data" / "models"
TINY = tiny.model()


def test_description_has_shapes_quantization_and_macs(tmp_path: Path) -> None:
    description = describe(TINY, "tiny", "test")
    (image,), (scores,) = description.inputs, description.outputs
    assert (image.shape, image.dtype, image.scale, image.zero_point) == (
        (1, 8, 8, 1),
        "int8",
        0.5,
        -3,
    )
    assert scores.bytes == 3
    assert scores.scale == 4.0
    assert [op.op for op in description.operators] == ["CONV_2D", "RESHAPE", "FULLY_CONNECTED"]
    assert description.weights_bytes == 4 * 9 + 3 * 256 + 4 * (4 + 3) + 8
    assert [op.macs for op in description.operators] == [64 * 4 * 9, 0, 3 * 256]
    assert description.macs == tiny.MACS
    description.write(tmp_path / "tiny.json")
    document = json.loads((tmp_path / "tiny.json").read_text())
    assert document["macs"] == tiny.MACS
    assert document["inputs"][0]["shape"] == [1, 8, 8, 1]


def test_float_input_knows_the_range_its_quantization_keeps() -> None:
    (image,) = describe(tiny.model(float_io=True), "tiny").inputs
    assert image.dtype == "float32"
    assert image.range == pytest.approx(((-128 + 3) * 0.5, (127 + 3) * 0.5))


def test_depthwise_macs_count_one_filter_a_channel() -> None:
    graph = Graph()
    image = graph.input(Spec((1, 4, 4, 6), "int8", 0.5, 0))
    kernel = graph.constant(np.ones((1, 3, 3, 6), np.int8), 0.01)
    out = graph.op(
        "DEPTHWISE_CONV_2D",
        [image, kernel, None],
        Spec((1, 4, 4, 6), "int8", 0.5, 0),
        padding="SAME",
        stride_w=1,
        stride_h=1,
        depth_multiplier=1,
    )
    assert describe(graph.build(out), "x").macs == 4 * 4 * 6 * 9


@pytest.mark.skipif(not MODELS.is_dir(), reason="no ../shared/data/models")
@pytest.mark.parametrize(
    ("file", "macs"),
    [
        ("kws_ref_model", 2_656_768),
        ("vww_96_int8", 7_489_664),
        ("pretrainedResnet_quant", 12_501_632),
        ("ad01_int8", 264_192),
        ("str_ww_ref_model", 826_368),
    ],
)
def test_macs_of_the_mlperf_tiny_models(file: str, macs: int) -> None:
    assert describe((MODELS / f"{file}.tflite").read_bytes(), file).macs == macs


def test_an_empty_file_is_refused() -> None:
    with pytest.raises(ModelError, match="'x' is empty"):
        describe(b"", "x")


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=2000), st.booleans())
def test_random_bytes_are_refused_on_one_line(content: bytes, identified: bool) -> None:
    if identified:
        content = content[:4].ljust(4, b"\0") + b"TFL3" + content[4:]
    with pytest.raises(ModelError) as caught:
        describe(content, "x")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [1, 8, 40, 100, len(TINY) // 2, len(TINY) * 3 // 4, len(TINY) - 8])
def test_a_truncated_model_is_refused(kept: int) -> None:
    with pytest.raises(ModelError, match=r"damaged|TFL3"):
        describe(TINY[:kept], "x")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(TINY) - 1), st.integers(0, 255)), max_size=20))
def test_damage_gives_a_description_or_a_model_error(damage: list[tuple[int, int]]) -> None:
    content = bytearray(TINY)
    for position, value in damage:
        content[position] = value
    try:
        describe(bytes(content), "x")
    except ModelError as error:
        assert "\n" not in str(error)


def test_oracle_matches_litert_in_this_process(tmp_path: Path) -> None:
    path = tmp_path / "tiny.tflite"
    path.write_bytes(TINY)
    inputs = vectors.random_inputs(describe(TINY, "tiny"), 3)
    assert np.array_equal(oracle.answers(path, inputs), oracle.evaluate(TINY, inputs))


def test_oracle_survives_a_model_the_interpreter_refuses(tmp_path: Path) -> None:
    path = tmp_path / "broken.tflite"
    path.write_bytes(TINY[: len(TINY) // 2])
    with pytest.raises(ModelError, match="LiteRT") as caught:
        oracle.answers(path, np.zeros((1, 64), np.uint8))
    assert "\n" not in str(caught.value)


def test_vectors_are_reproducible_and_answered_by_the_oracle(tmp_path: Path) -> None:
    model = tmp_path / "tiny.tflite"
    model.write_bytes(TINY)
    description = describe(TINY, "tiny")
    vectors.write(description, model, tmp_path / "a.npz")
    vectors.write(description, model, tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz") as arrays:
        assert arrays["inputs"].shape == (5, 64)
        assert arrays["outputs"].shape == (5, 3)
        assert len(np.unique(arrays["inputs"], axis=0)) == 5
        assert np.array_equal(arrays["outputs"], oracle.evaluate(TINY, arrays["inputs"]))
        corners = arrays["corner_inputs"].view(np.int8)
        assert np.array_equal(corners[:3], np.repeat([[-128], [127], [-3]], 64, axis=1))
        assert np.array_equal(corners[3], [-128, 127] * 32)
        assert np.array_equal(corners[4], [-3] * 32 + [127] + [-3] * 31)
        assert np.array_equal(
            arrays["corner_outputs"], oracle.evaluate(TINY, arrays["corner_inputs"])
        )


def test_float_stimuli_stay_in_the_range_of_the_model() -> None:
    description = describe(tiny.model(float_io=True), "tiny")
    values = vectors.random_inputs(description, 20).view(np.float32)
    low, high = description.inputs[0].range
    assert low <= values.min() < values.max() <= high
    assert values.max() - values.min() > 0.9 * (high - low)
