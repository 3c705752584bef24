"""Reading models: the right facts from good files, one-line errors from bad ones."""

import copy
import struct
from collections.abc import Callable
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
import tflite
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import tiny
from helpers.tflite_graphs import Graph, Spec
from mcuforge.errors import ModelError
from mcuforge.formats.tflite import graph as importer_graph
from mcuforge.formats.tflite import oracle
from mcuforge.formats.tflite.describe import describe
from mcuforge.models import vectors

CASES = Path(__file__).parents[3] / "shared" / "data" / "cases"
MODELS = Path(__file__).parents[3] / "shared" / "data" / "models"
TINY = tiny.model()


def test_description_has_shapes_quantization_and_macs() -> None:
    description = describe(TINY, "tiny")
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


@pytest.mark.parametrize("left_out", [None, 1, 2])
def test_transposed_macs_count_the_kernel_for_each_input(left_out: int | None) -> None:
    graph = Graph()
    image = graph.input(Spec((1, 4, 5, 6), "int8", 0.5, 0))
    shape = graph.constant(np.array([1, 8, 10, 7], np.int32))
    operands = [shape, graph.constant(np.ones((7, 3, 2, 6), np.int8), 0.01), image]
    if left_out:
        operands[left_out] = None
    model = graph.build(graph.op("TRANSPOSE_CONV", operands, Spec((1, 8, 10, 7), "int8", 0.5, 0)))
    if left_out:
        with pytest.raises(ModelError, match=r"TRANSPOSE_CONV .* lacks an input"):
            describe(model, "x")
    else:
        assert describe(model, "x").macs == 4 * 5 * 6 * (7 * 3 * 2)


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


@pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/data/cases")
@pytest.mark.parametrize("path", sorted(CASES.glob("*.tflite")), ids=lambda path: path.stem)
def test_valid_files_are_described(path: Path) -> None:
    if path.stem == "multi_signature_model":
        with pytest.raises(ModelError, match="'add', 'mul', 'sub' are 3 models in one file"):
            describe(path.read_bytes(), path.stem)
    else:
        description = describe(path.read_bytes(), path.stem)
        assert description.inputs and description.outputs


def changed(change: Callable[[schema.ModelT], None], model: bytes = TINY) -> bytes:
    """The model after a change of its parsed form."""
    parsed = schema.ModelT.InitFromPackedBuf(model)
    change(parsed)
    builder = flatbuffers.Builder(1024)
    builder.Finish(parsed.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_an_operator_code_is_the_larger_of_its_two_fields() -> None:
    def swap(model: schema.ModelT) -> None:
        for code in model.operatorCodes:
            code.builtinCode, code.deprecatedBuiltinCode = code.deprecatedBuiltinCode, 0

    operators = describe(changed(swap), "x").operators
    assert [op.op for op in operators] == ["CONV_2D", "RESHAPE", "FULLY_CONNECTED"]


def moved_out() -> bytes:
    """The tiny model with its constants behind the flatbuffer."""
    outside = bytearray()

    def move_out(model: schema.ModelT) -> None:
        for buffer in model.buffers:
            if buffer.data is not None:
                buffer.offset, buffer.size = (1 << 13) + len(outside), len(buffer.data)
                outside.extend(bytes(buffer.data).ljust(-(-buffer.size // 16) * 16, b"\0"))
                buffer.data = None

    return changed(move_out).ljust(1 << 13, b"\0") + outside


def test_constants_behind_the_flatbuffer_count_as_weights() -> None:
    assert describe(moved_out(), "x").weights_bytes == describe(TINY, "x").weights_bytes
    with pytest.raises(ModelError, match="a constant ends behind the file"):
        describe(moved_out()[: 1 << 13], "x")


def test_constants_behind_the_flatbuffer_are_read_and_written_inside(tmp_path: Path) -> None:
    inside = tmp_path / "inside.tflite"
    inside.write_bytes(importer_graph.Graph(moved_out()).pack())
    stimuli = vectors.random_inputs(describe(TINY, "tiny"), 3)
    assert np.array_equal(oracle.answers(inside, stimuli), oracle.evaluate(TINY, stimuli))
    outside = tmp_path / "outside.tflite"
    outside.write_bytes(moved_out())
    assert np.array_equal(oracle.answers(outside, stimuli), oracle.evaluate(TINY, stimuli))


def test_signatures_of_one_subgraph_are_one_model() -> None:
    def sign(*subgraphs: int) -> bytes:
        def change(model: schema.ModelT) -> None:
            model.subgraphs *= len(set(subgraphs))
            model.signatureDefs = []
            for index in subgraphs:
                signature = schema.SignatureDefT()
                signature.signatureKey, signature.subgraphIndex = f"s{index}", index
                model.signatureDefs.append(signature)

        return changed(change)

    assert describe(sign(0, 0), "x").operators == describe(TINY, "x").operators
    with pytest.raises(ModelError, match="its signatures 's0', 's1' are 2 models"):
        describe(sign(0, 1), "x")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ([1, -8, 8, 1], "impossible shape"),
        ([1 << 16, 1 << 16], "at most 8 dimensions and 16,777,216 elements"),
        ([1] * 9, "at most 8 dimensions"),
    ],
)
def test_a_tensor_beyond_all_microcontrollers_is_refused(shape: list[int], message: str) -> None:
    def enlarge(model: schema.ModelT) -> None:
        model.subgraphs[0].tensors[0].shape = shape

    with pytest.raises(ModelError, match=f"tensor 'input_0' .*{message}"):
        describe(changed(enlarge), "x")


def test_a_model_beyond_all_microcontrollers_is_refused() -> None:
    def many(model: schema.ModelT) -> None:
        model.subgraphs[0].operators *= 2000

    def large(model: schema.ModelT) -> None:
        (graph,) = model.subgraphs
        tensor = copy.copy(graph.tensors[0])
        tensor.shape = [1 << 24]
        graph.tensors += [tensor] * 17

    def slow(model: schema.ModelT) -> None:
        (graph,) = model.subgraphs
        graph.tensors[graph.outputs[0]].shape = [1 << 12, 1 << 12]
        graph.operators *= 100

    for change, message in (
        (many, "6,000 operators"),
        (large, "its activations take .* bytes"),
        (slow, "it takes .* multiply-accumulates"),
    ):
        with pytest.raises(ModelError, match=message):
            describe(changed(change), "x")


def test_a_tensor_has_one_value() -> None:
    def twice(model: schema.ModelT) -> None:
        model.subgraphs[0].inputs = [0, 0]

    def constant(model: schema.ModelT) -> None:
        model.subgraphs[0].inputs = [0, model.subgraphs[0].operators[0].inputs[1]]

    def overwritten(model: schema.ModelT) -> None:
        model.subgraphs[0].operators.append(model.subgraphs[0].operators[0])

    def overwritten_input(model: schema.ModelT) -> None:
        model.subgraphs[0].operators[0].outputs = [0]

    for change, message in (
        (twice, "input 'input_0' is a constant, or comes twice"),
        (constant, "input 'constant_1' is a constant, or comes twice"),
        (overwritten, r"operator CONV_2D \(operator 3, .*\) overwrites a tensor"),
        (overwritten_input, r"operator CONV_2D \(operator 0, .*\) overwrites a tensor"),
    ):
        with pytest.raises(ModelError, match=message):
            describe(changed(change), "x")


def test_lists_that_lie_over_one_another_end() -> None:
    """Hundreds of operators that are all the same one, of a thousand operands."""

    def multiply(model: schema.ModelT) -> None:
        (graph,) = model.subgraphs
        graph.operators[0].inputs = [0] * 1000
        graph.operators = [graph.operators[0], *[graph.operators[1]] * 900]

    content = bytearray(changed(multiply))
    graph = tflite.Model.GetRootAsModel(content, 0).Subgraphs(0)
    start = graph._tab.Vector(graph._tab.Offset(10))  # of the operators
    for index in range(graph.OperatorsLength()):
        place = start + 4 * index
        struct.pack_into("<I", content, place, graph.Operators(0)._tab.Pos - place)
    with pytest.raises(ModelError, match="more elements than the file has bytes"):
        describe(bytes(content), "x")


def test_oracle_matches_litert_in_this_process(tmp_path: Path) -> None:
    path = tmp_path / "tiny.tflite"
    path.write_bytes(TINY)
    inputs = vectors.random_inputs(describe(TINY, "tiny"), 3)
    assert np.array_equal(oracle.answers(path, inputs), oracle.evaluate(TINY, inputs))


@pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/data/cases")
def test_oracle_takes_biases_whose_quantized_dimension_is_the_weights() -> None:
    path = CASES / "person_detect.tflite"
    inputs = vectors.random_inputs(describe(path.read_bytes(), "x"), 1)
    assert oracle.answers(path, inputs).view(np.int8).tolist() == [[114, -114]]


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
