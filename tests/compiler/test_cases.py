"""Small files from elsewhere that once went wrong: each is exact, or refused in so many words."""

from pathlib import Path

import numpy as np
import pytest

from helpers.host import HostModel
from mcuforge.compiler import compile_model
from mcuforge.errors import ModelError
from mcuforge.formats.tflite.describe import describe
from mcuforge.formats.tflite.oracle import evaluate
from mcuforge.models import vectors
from mcuforge.target import Target

CASES = Path(__file__).parents[3] / "shared" / "data" / "cases"
EXACT = ""
EXPECTED = {
    "batch_matmul": "operator BATCH_MATMUL (operator 0, output tensor 'model/tf.linalg.matmul/",
    "broadcast_to": EXACT,
    "cnn_2l_model_quantized": EXACT,
    "concat-int8-scales": "operator CONCATENATION (operator 0, output tensor 'concatenation_2') "
    "has tensors 'input_0' and 'concatenation_2' of differing quantization",
    "constant-operands.constant_output": EXACT,
    "constant-operands.fc_weights_via_transpose": EXACT,
    "constant-operands.fully_connected": EXACT,
    "constant-operands.pad": EXACT,
    "constant-operands.relu": EXACT,
    "constant-operands.slice": EXACT,
    "constant-operands.transpose": EXACT,
    "constant_output_tensor": EXACT,
    "conv1": "has types int16 int8 int64 -> int16, supported:",
    "conv1x1_4_2_negative_scale": EXACT,
    "custom": "operator CUSTOM Complex (operator 0, output tensor 'model/tf_op_layer_Complex/",
    "depth-multiplier-0": EXACT,
    "depthwise3x3_negative_scale": EXACT,
    "dynamic-range-fully-connected": EXACT,
    "fc-dynamic-weights": "operator FULLY_CONNECTED (operator 0, output tensor 'fully_connected_2')"
    " needs a constant as operand 1, tensor 'input_1'",
    "fc16x4_bias_1e9": "no integer requantization is exact for all the scales",
    "gather": EXACT,
    "gcc12-drops-kernel-calls": EXACT,
    "int16x8": "operator FULLY_CONNECTED (operator 0, output tensor 'fully_connected_3') has types",
    "leaky_relu18": "has types int16 -> int16, supported:",
    "long-output-name": EXACT,
    "lstm_int8": "operator UNIDIRECTIONAL_SEQUENCE_LSTM (operator 0, output tensor 'tfl.unidir",
    "micro_kws_m_quantized": EXACT,
    "model_with_add2": "operator CUSTOM Add2 (operator 0, output tensor 'Identity') is not support",
    "mul_builtin_code_only": EXACT,
    "mul_quant": "operator MUL (operator 0, output tensor 'StatefulPartitionedCall:0') has types",
    "multi_signature_model": "signatures",
    "partly_quantized_mnist": EXACT,
    "per-channel-dequantize": EXACT,
    "person_detect": EXACT,
    "port-names.comment_end": EXACT,
    "port-names.same_c_name": EXACT,
    "port-names.same_name": EXACT,
    "prelu": EXACT,
    "quantize0": EXACT,
    "reshape_with_empty_shape": EXACT,
    "resize_bilinear": EXACT,
    "rsqrt": EXACT,
    "simple_composite": "operator STABLEHLO_COMPOSITE (operator 0, output tensor '",
    "simple_squeeze": "operator SQUEEZE (operator 0, output tensor 'tfl.squeeze'): cannot squeeze",
    "slice": EXACT,
    "strided-slice-offset": EXACT,
    "sub2": "has types int16 int16 -> int16, supported:",
    "test_add_0": "operator ADD (operator 0, output tensor 'PartitionedCall:0') has types int16",
    "test_concatenate_0": EXACT,
    "test_conv2d_0": "has types int16 int8 int32 -> int16, supported:",
    "test_slice_10": EXACT,
    "test_tanh_0": "operator TANH (operator 0, output tensor 'StatefulPartitionedCall:0') has type",
    "transpose_conv": EXACT,
    "unpack": EXACT,
    "vad_streaming": "operator CALL_ONCE (operator 0, no output) is not supported",
    "vww_layer15": EXACT,
}
"""For each file, EXACT or words of the refusal."""


@pytest.mark.skipif(not CASES.is_dir(), reason=f"{CASES} is not there")
def test_every_case_is_listed() -> None:
    assert {path.stem for path in CASES.glob("*.tflite")} == set(EXPECTED)


@pytest.mark.parametrize(("target", "level"), [("host-c", 1), ("cortex-m55-c", 4)])
@pytest.mark.parametrize("name", EXPECTED)
def test_case_is_exact_or_refused(name: str, target: str, level: int, tmp_path: Path) -> None:
    path = CASES / f"{name}.tflite"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    archive = tmp_path / "model.tar"
    if EXPECTED[name] != EXACT:
        with pytest.raises(ModelError) as caught:
            compile_model(path, "model", Target.parse(target), level, archive)
        assert EXPECTED[name] in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not archive.exists()
        return
    compile_model(path, "model", Target.parse(target), level, archive)
    content = path.read_bytes()
    description = describe(content, "model")
    inputs = np.concatenate(
        [vectors.random_inputs(description, 30), vectors.corner_inputs(description)]
    )
    results, expected = HostModel(archive, tmp_path).run(inputs), evaluate(content, inputs)
    if all(tensor.dtype == "float32" for tensor in description.outputs):
        results, expected = results.view(np.float32), expected.view(np.float32)
        largest = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(results, expected, rtol=1e-5, atol=1e-5 * largest)
    else:
        np.testing.assert_array_equal(results, expected)
