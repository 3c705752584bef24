"""Kernels for Helium: the same bytes as LiteRT for shapes that take each of their paths."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import batch, emulator, strategies
from helpers.strategies import ACTIVATIONS, Case, Drawer, drawing
from helpers.tflite_graphs import Spec, answer
from mcuforge.compiler import compile_model
from mcuforge.exact.arithmetic import same_padding
from mcuforge.target import Target
from mcuforge.tir import registry
from mcuforge.tir.registry import Operand, Operation

CHANNELS = (1, 2, 3, 4, 5, 7, 8, 12, 15, 16, 17, 24, 30, 32, 33, 40, 48, 57, 64, 72)
KERNELS = (
    (1, 1),
    (1, 1),
    (3, 3),
    (3, 3),
    (1, 3),
    (3, 1),
    (5, 1),
    (2, 2),
    (5, 5),
    (7, 7),
    (10, 4),
    (15, 1),
)
SANITIZED = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def window(drawer: Drawer) -> tuple[tuple[int, int], tuple[int, int], list[int], dict]:
    """Kernel, image, output and options."""
    kernel = drawer.choice(*KERNELS)
    stride = drawer.choice((1, 1), (1, 1), (2, 2), (1, 2), (2, 1))
    padding = drawer.choice("SAME", "VALID")
    image, output = [], []
    for i in range(2):
        size = drawer.integer(1, 14) + (kernel[i] - 1 if padding == "VALID" else 0)
        image.append(size)
        total = sum(same_padding(size, kernel[i], stride[i])) if padding == "SAME" else 0
        output.append((size + total - kernel[i]) // stride[i] + 1)
    options = {"padding": padding, "stride_h": stride[0], "stride_w": stride[1]}
    return kernel, tuple(image), output, options


def weight_spec(drawer: Drawer, shape: tuple[int, ...], axis: int) -> Spec:
    """int8, one scale for all or one for each output channel."""
    base = drawer.scale(2**-10, 0.25)
    if drawer.choice(True, False):
        return Spec(shape, "int8", base)
    scales = np.float32(base * 2 ** drawer.random.uniform(-4, 4, shape[axis]))
    return Spec(shape, "int8", scales.tolist(), axis=axis)


@drawing
def convolution(drawer: Drawer) -> Case:
    kernel, image, output, options = window(drawer)
    inputs, outputs = drawer.choice(*CHANNELS), drawer.choice(*CHANNELS[:14])
    x = drawer.spec((1, *image, inputs))
    w = weight_spec(drawer, (outputs, *kernel, inputs), 0)
    size = kernel[0] * kernel[1] * inputs
    tensors = [
        drawer.input(x),
        drawer.constant(w),
        strategies.bias(drawer, outputs, x, w, size),
    ]
    y = strategies.accumulated(drawer, (1, *output, outputs), x, w, size)
    fused = drawer.choice(*ACTIVATIONS)
    result = drawer.graph.op("CONV_2D", tensors, y, fused_activation_function=fused, **options)
    return drawer.case("CONV_2D", result)


@drawing
def depthwise(drawer: Drawer) -> Case:
    kernel, image, output, options = window(drawer)
    multiplier = drawer.choice(1, 1, 1, 2)
    inputs = drawer.choice(*CHANNELS[1:14])
    dilation = drawer.choice(1, 1, 1, 2) if options["padding"] == "SAME" else 1
    if options["stride_h"] == options["stride_w"] == 1:
        options |= {"dilation_h_factor": dilation, "dilation_w_factor": drawer.choice(1, dilation)}
    outputs = inputs * multiplier
    x = drawer.spec((1, *image, inputs))
    w = weight_spec(drawer, (1, *kernel, outputs), 3)
    size = kernel[0] * kernel[1]
    tensors = [
        drawer.input(x),
        drawer.constant(w),
        strategies.bias(drawer, outputs, x, w, size),
    ]
    y = strategies.accumulated(drawer, (1, *output, outputs), x, w, size)
    fused = drawer.choice(*ACTIVATIONS)
    options |= {"depth_multiplier": multiplier, "fused_activation_function": fused}
    return drawer.case(
        "DEPTHWISE_CONV_2D", drawer.graph.op("DEPTHWISE_CONV_2D", tensors, y, **options)
    )


@drawing
def fully_connected(drawer: Drawer) -> Case:
    rows, inputs = drawer.choice(1, 1, 3), drawer.integer(1, 300)
    outputs = drawer.integer(1, 20)
    x = drawer.spec((rows, inputs))
    w = weight_spec(drawer, (outputs, inputs), 0)
    tensors = [
        drawer.input(x),
        drawer.constant(w),
        strategies.bias(drawer, outputs, x, w, inputs),
    ]
    y = strategies.accumulated(drawer, (rows, outputs), x, w, inputs)
    fused = drawer.choice(*ACTIVATIONS)
    result = drawer.graph.op("FULLY_CONNECTED", tensors, y, fused_activation_function=fused)
    return drawer.case("FULLY_CONNECTED", result)


@drawing
def addition(drawer: Drawer) -> Case:
    shape = (1, drawer.integer(1, 5), drawer.integer(1, 5), drawer.choice(*CHANNELS))
    a = drawer.spec(shape)
    b = drawer.spec(shape, drawer.near(a.scale))
    tensors = [drawer.input(a), drawer.input(b)]
    y = drawer.spec(shape, drawer.near(a.scale))
    fused = drawer.choice(*ACTIVATIONS)
    result = drawer.graph.op("ADD", tensors, y, fused_activation_function=fused)
    return drawer.case("ADD", result)


@drawing
def average_pool(drawer: Drawer) -> Case:
    height, width = drawer.integer(1, 9), drawer.integer(1, 9)
    pool = drawer.choice((height, width), (min(height, 2), min(width, 3)))
    channels = drawer.choice(*CHANNELS)
    x = drawer.spec((1, height, width, channels))
    stride = drawer.integer(1, 3)
    output = [(e - p) // stride + 1 for e, p in zip((height, width), pool, strict=True)]
    y = strategies.like(x, (1, *output, channels))
    result = drawer.graph.op(
        "AVERAGE_POOL_2D", [drawer.input(x)], y, filter_height=pool[0], filter_width=pool[1],
        stride_h=stride, stride_w=stride, padding="VALID",
    )  # fmt: skip
    return drawer.case("AVERAGE_POOL_2D", result)


@drawing
def max_pool(drawer: Drawer) -> Case:
    height, width = drawer.integer(1, 9), drawer.integer(1, 9)
    pool = drawer.choice((2, 2), (3, 3), (1, 4), (3, 2))
    stride, padding = drawer.integer(1, 3), drawer.choice("SAME", "VALID")
    size = [
        e + (p - 1 if padding == "VALID" else 0) for e, p in zip((height, width), pool, strict=True)
    ]
    output = [
        (e - p) // stride + 1 if padding == "VALID" else -(-e // stride)
        for e, p in zip(size, pool, strict=True)
    ]
    channels = drawer.choice(*CHANNELS)
    x = drawer.spec((1, *size, channels))
    y = strategies.like(x, (1, *output, channels))
    fused = drawer.choice(*ACTIVATIONS)
    result = drawer.graph.op(
        "MAX_POOL_2D", [drawer.input(x)], y, filter_height=pool[0], filter_width=pool[1],
        stride_h=stride, stride_w=stride, padding=padding, fused_activation_function=fused,
    )  # fmt: skip
    return drawer.case("MAX_POOL_2D", result)


FAMILIES = {
    "conv2d": convolution,
    "depthwise": depthwise,
    "fully_connected": fully_connected,
    "add": addition,
    "pool2d": average_pool,
    "max_pool2d": max_pool,
    "lookup": strategies.unary("HARD_SWISH"),
    "requantize": strategies.quantize,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_kernels_answer_as_litert(family: str, tmp_path_factory) -> None:
    @settings(max_examples=1, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(FAMILIES[family]("int8"), min_size=12, max_size=12))
    def check(cases: list[Case]) -> None:
        jobs = [batch.Job(case.model, "cortex-m55-c", 3, case.inputs) for case in cases]
        results = batch.run(jobs, tmp_path_factory.mktemp(family), SANITIZED)
        for case, outputs in zip(cases, results, strict=True):
            for result, want in zip(outputs, answer(case.model, case.inputs), strict=True):
                np.testing.assert_array_equal(result, want, strict=True)

    check()


@pytest.mark.parametrize("toolchain", ["gcc", "clang", "tvm-llvm"])
@pytest.mark.parametrize("family", FAMILIES)
def test_kernels_answer_as_litert_on_the_core(
    family: str, toolchain: str, tmp_path_factory
) -> None:
    codegen = "llvm" if toolchain == "tvm-llvm" else "c"

    @settings(max_examples=2, deadline=None, suppress_health_check=list(HealthCheck))
    @given(FAMILIES[family]("int8"))
    def check(case: Case) -> None:
        directory = tmp_path_factory.mktemp(family)
        (directory / "m.tflite").write_bytes(case.model)
        target = Target.parse(f"cortex-m55-{codegen}")
        compile_model(directory / "m.tflite", "m", target, 3, directory / "m.tar")
        model = emulator.EmulatedModel(directory / "m.tar", directory / "build", toolchain)
        row = np.concatenate([values.reshape(-1).view(np.uint8) for values in case.inputs])
        (want,) = answer(case.model, case.inputs)
        result = model.run(row[np.newaxis])[0].view(want.dtype)
        np.testing.assert_array_equal(result, want.reshape(-1))

    check()


# Shapes of MLPerf Tiny's models: they must not fall back to scalar loops.
@pytest.mark.parametrize(
    ("op", "image", "weight", "stride", "padding"),
    [
        ("conv2d", (49, 10, 1), (64, 10, 4, 1), 2, (4, 1, 5, 1)),
        ("conv2d", (96, 96, 3), (8, 3, 3, 3), 2, (0, 0, 1, 1)),
        ("conv2d", (48, 48, 8), (16, 1, 1, 8), 1, (0, 0, 0, 0)),
        ("conv2d", (6, 6, 57), (30, 1, 1, 57), 1, (0, 0, 0, 0)),
        ("conv2d", (8, 8, 64), (64, 3, 3, 64), 1, (1, 1, 1, 1)),
        ("conv2d", (1, 1, 128), (32, 1, 1, 128), 1, (0, 0, 0, 0)),
        ("depthwise_conv2d", (25, 5, 64), (3, 3, 64), 1, (1, 1, 1, 1)),
        ("depthwise_conv2d", (48, 48, 16), (3, 3, 16), 2, (0, 0, 1, 1)),
        ("depthwise_conv2d", (24, 1, 128), (10, 1, 128), 1, (0, 0, 0, 0)),
    ],
)
def test_reference_shapes_have_a_kernel(op, image, weight, stride, padding) -> None:
    random = np.random.default_rng(1)
    top, left, bottom, right = padding
    taps = weight[1:3] if op == "conv2d" else weight[:2]
    outputs = weight[0] if op == "conv2d" else weight[2]
    out = [
        (image[i] + extra - taps[i]) // stride + 1
        for i, extra in enumerate((top + bottom, left + right))
    ]
    values = random.integers(-127, 128, weight).astype(np.int8)
    operation = Operation(
        name=op,
        args=(
            Operand((1, *image), "int8"),
            Operand(weight, "int8", values),
            Operand((outputs,), "int32", np.zeros(outputs, np.int32)),
            Operand((outputs,), "float64", random.uniform(1e-3, 1e-2, outputs)),
        ),
        attrs={
            "strides": (stride, stride), "dilation": (1, 1), "padding": padding, "groups": 1,
            "input_zero_point": -128, "weight_zero_point": 0, "zero_point": -128,
            "clamp_min": -128, "clamp_max": 127, "rounding": "twice", "dtype": "int8",
        },
        out=Operand((1, *out, outputs), "int8"),
    )  # fmt: skip
    assert registry.KERNELS.select(operation, 3, {"dsp", "helium"}) is not None
