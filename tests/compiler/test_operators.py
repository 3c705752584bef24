"""Every operator, through the generated C: the same bytes as LiteRT's reference kernels."""

from pathlib import Path

import numpy as np
import pytest
import tvm
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from helpers import batch, strategies
from helpers.tflite_graphs import Graph, Spec, answer
from mcuforge.compiler import compile_model
from mcuforge.errors import ModelError
from mcuforge.passes import pipeline
from mcuforge.passes.rewrite import rewrite_main
from mcuforge.target import Target

OPERATORS = [(op, dtype) for op, (_, dtypes) in strategies.OPERATORS.items() for dtype in dtypes]
DEMANDING = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "NETWORK")
TARGETS = ("host-c", "rv32imc-c", "cortex-m7-c", "cortex-m55-c")
# Reads and writes out of bounds and undefined arithmetic end the program.
SANITIZED = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@pytest.mark.parametrize(("op", "dtype"), OPERATORS)
def test_generated_code_answers_as_litert(op: str, dtype: str, tmp_path: Path) -> None:
    # Hypothesis draws the graphs, and one call of the C compiler serves them all.
    drawn: list[tuple[strategies.Case, str, int]] = []
    strategy, _ = strategies.OPERATORS[op]

    @settings(
        max_examples=24 if op in DEMANDING and dtype != "float32" else 8,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy(dtype), st.sampled_from(TARGETS), st.integers(1, 4))
    def draw(case: strategies.Case, target: str, level: int) -> None:
        drawn.append((case, target, level))

    draw()
    jobs = [batch.Job(case.model, target, level, case.inputs) for case, target, level in drawn]
    results = batch.run(jobs, tmp_path, SANITIZED)
    for index, ((case, target, level), outputs) in enumerate(zip(drawn, results, strict=True)):
        try:
            assert_same(case.op, outputs, answer(case.model, case.inputs))
        except AssertionError as error:
            error.add_note(f"m{index}.tflite for {target} at opt_level {level}: {case}")
            raise


def assert_same(op: str, results: list[np.ndarray], expected: list[np.ndarray]) -> None:
    """Byte-equal; results of float arithmetic to within rounding of the largest of them."""
    for result, want in zip(results, expected, strict=True):
        if result.dtype == np.float32 and op != "DEQUANTIZE":
            largest = max(1.0, np.abs(want).max())
            np.testing.assert_allclose(result, want, rtol=1e-5, atol=2e-5 * largest)
        else:
            np.testing.assert_array_equal(result, want, strict=True)


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_an_unsupported_operator_is_named(dtype: str, tmp_path: Path) -> None:
    graph = Graph()
    scale = 0.1 if dtype == "int8" else None
    x = graph.input(Spec((1, 4), dtype, scale))
    y = graph.op("RELU", [x], Spec((1, 4), dtype, scale))
    z = graph.op("COS", [y], Spec((1, 4), dtype, scale))
    path = tmp_path / "model.tflite"
    path.write_bytes(graph.build(z))
    with pytest.raises(ModelError, match=r"COS \(operator 1, output tensor 'cos_2'\)"):
        compile_model(path, "model", Target.parse("host-c"), 1, tmp_path / "model.tar")


@pytest.mark.parametrize(
    "error", [MemoryError("no"), NotImplementedError(), RecursionError("deep")]
)
def test_an_error_behind_the_import_names_its_operator(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    def fail(builder, value, lookup):
        if getattr(getattr(value, "op", None), "name", "") == "relax.nn.softmax":
            raise error
        return value

    @tvm.transform.module_pass(opt_level=0, name="Failing")
    class Failing:
        def transform_module(self, mod, _ctx):
            return rewrite_main(mod, fail)

    monkeypatch.setattr(pipeline, "RestoreIntegers", Failing)
    graph = Graph()
    x = graph.input(Spec((1, 4), "int8", 0.1, 3))
    y = graph.op("RELU", [x], Spec((1, 4), "int8", 0.1, 3))
    z = graph.op("SOFTMAX", [y], Spec((1, 4), "int8", 1 / 256, -128), beta=1.0)
    path = tmp_path / "model.tflite"
    path.write_bytes(graph.build(z))
    with pytest.raises(
        ModelError, match=r"^operator SOFTMAX .operator 1, output tensor 'softmax_2'. can"
    ):
        compile_model(path, "model", Target.parse("host-c"), 1, tmp_path / "model.tar")
    assert capfd.readouterr().err == ""


def test_a_model_without_names_compiles(tmp_path: Path) -> None:
    graph = Graph(named=False)
    spec = Spec((1, 4), "int8", 0.5, 3)
    x = graph.input(spec)
    model = graph.build(graph.op("ADD", [x, graph.op("RELU", [x], spec)], spec))
    inputs = [np.array([[-128, -1, 5, 127]], np.int8)]
    (results,) = batch.run([batch.Job(model, "host-c", 2, inputs)], tmp_path, SANITIZED)
    assert_same("ADD", results, answer(model, inputs))


def test_each_channel_rounds_halves_as_its_scale_needs(tmp_path: Path) -> None:
    # Of the real factors 1.1, 0.25, 0.125 and 0.5 the first is not rounded a second time.
    graph = Graph()
    x = graph.input(Spec((1, 16, 16, 1), "int8", 0.5, 0))
    scales = [2.2, 0.5, 0.25, 1.0]
    weight = graph.constant(np.int8([1, 1, 3, -1]).reshape(4, 1, 1, 1), scales, [0] * 4, 0)
    bias = graph.constant(np.zeros(4, np.int32), [0.5 * s for s in scales], [0] * 4)
    y = graph.op(
        "CONV_2D", [x, weight, bias], Spec((1, 16, 16, 4), "int8", 1.0, 0), padding="SAME",
        stride_h=1, stride_w=1, fused_activation_function="NONE",
    )  # fmt: skip
    model = graph.build(y)
    values = np.arange(-128, 128, dtype=np.int8).reshape(1, 16, 16, 1)
    jobs = [
        batch.Job(model, target, level, [values])
        for target in ("cortex-m7-c", "cortex-m55-c")
        for level in (1, 2, 3, 4)
    ]
    for (result,) in batch.run(jobs, tmp_path, ("-O1", "-fsanitize=address,undefined")):
        np.testing.assert_array_equal(result, answer(model, [values])[0])


@pytest.mark.parametrize("fill", [2**63 - 1, 2**53 + 1, -(2**53) - 1])
def test_padding_with_what_would_be_rounded_is_refused(fill: int, tmp_path: Path) -> None:
    graph = Graph()
    x, value = graph.input(Spec((1, 4), "int64")), graph.constant(np.int64([fill]))
    widths = graph.constant(np.int32([[0, 0], [1, 1]]))
    path = tmp_path / "model.tflite"
    path.write_bytes(graph.build(graph.op("PADV2", [x, widths, value], Spec((1, 6), "int64"))))
    with pytest.raises(ModelError, match=f"operator PADV2 .*cannot pad with {fill}"):
        compile_model(path, "model", Target.parse("host-c"), 1, tmp_path / "model.tar")


def test_a_single_negative_scale_names_a_dimension(tmp_path: Path) -> None:
    # A depthwise convolution of one channel: quantized per channel, with one scale.
    graph = Graph()
    x = graph.input(Spec((1, 2, 2, 1), "int8", 0.5, 0))
    weights = np.int8([3, -1, 5, 127]).reshape(1, 2, 2, 1)
    weight = graph.constant(weights, [-0.25], [0], 3)
    bias = graph.constant(np.int32([40]), [-0.125], [0])
    options = {"padding": "VALID", "stride_h": 1, "stride_w": 1, "depth_multiplier": 1}
    y = graph.op(
        "DEPTHWISE_CONV_2D", [x, weight, bias], Spec((1, 1, 1, 1), "int8", 16, 3), **options
    )
    model = graph.build(y)
    values = np.int8([100, -7, 33, -128]).reshape(1, 2, 2, 1)
    (results,) = batch.run([batch.Job(model, "cortex-m7-c", 4, [values])], tmp_path, SANITIZED)
    assert_same("DEPTHWISE_CONV_2D", results, answer(model, [values]))
