"""Chains of layers with random weights, whose output scales fit what they compute."""

import numpy as np

from helpers.tflite_graphs import Graph, Spec, Tensor


class Layers:
    """A chain under construction; every method appends a layer and returns the chain.

    Args:
        shape: of the input, (1, h, w, c) int8.
        seed: of weights, biases and scales.
    """

    def __init__(self, shape: tuple[int, ...], seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.graph = Graph()
        self.first_shape = self.shape = shape
        self.spec = Spec(shape, "int8", 0.02, -128)
        self.tensor = self.graph.input(self.spec)

    def weights(self, shape: tuple[int, ...], axis: int, fan_in: int) -> tuple[Tensor, Tensor]:
        values = self.random.integers(-127, 128, shape, dtype=np.int8)
        channels = shape[axis]
        scales = self.random.uniform(0.5, 2, channels) / (73 * np.sqrt(fan_in))
        weight = self.graph.constant(values, scales, [0] * channels, axis)
        bias = self.random.integers(-2000, 2000, channels, dtype=np.int32)
        own = [float(self.spec.scale * s) for s in scales]
        return weight, self.graph.constant(bias, own, [0] * channels)

    def out(self, shape: tuple[int, ...], relu: bool) -> Spec:
        zero = -128 if relu else int(self.random.integers(-20, 20))
        self.shape = shape
        self.spec = Spec(
            shape, "int8", self.spec.scale * float(self.random.uniform(0.7, 1.4)), zero
        )
        return self.spec

    def window(self, name: str, kernel, strides, padding: str, outputs: int, relu: bool) -> None:
        n, *size, channels = self.shape
        out = [
            -(-size[i] // strides[i])
            if padding == "SAME"
            else (size[i] - kernel[i]) // strides[i] + 1
            for i in range(2)
        ]
        if name == "CONV_2D":
            shape, axis, fan_in = (outputs, *kernel, channels), 0, kernel[0] * kernel[1] * channels
            options = {}
        else:
            shape, axis, fan_in = (1, *kernel, channels), 3, kernel[0] * kernel[1]
            outputs, options = channels, {"depth_multiplier": 1}
        weight, bias = self.weights(shape, axis, fan_in)
        self.tensor = self.graph.op(
            name, [self.tensor, weight, bias], self.out((n, *out, outputs), relu),
            padding=padding, stride_h=strides[0], stride_w=strides[1],
            fused_activation_function="RELU" if relu else "NONE", **options,
        )  # fmt: skip

    def conv(self, kernel, outputs, strides=(1, 1), padding="SAME", relu=True) -> "Layers":
        self.window("CONV_2D", kernel, strides, padding, outputs, relu)
        return self

    def depthwise(self, kernel, strides=(1, 1), padding="SAME", relu=True) -> "Layers":
        self.window("DEPTHWISE_CONV_2D", kernel, strides, padding, 0, relu)
        return self

    def pool(self, name, window, strides=(1, 1), padding="SAME", fused="NONE") -> "Layers":
        n, *size, channels = self.shape
        extra = window if padding == "VALID" else (1, 1)
        out = [-(-(e - k + 1) // s) for e, k, s in zip(size, extra, strides, strict=True)]
        self.shape = (n, *out, channels)
        self.spec = Spec(self.shape, "int8", self.spec.scale, self.spec.zero_point)
        self.tensor = self.graph.op(
            name, [self.tensor], self.spec, padding=padding, filter_height=window[0],
            filter_width=window[1], stride_h=strides[0], stride_w=strides[1],
            fused_activation_function=fused,
        )  # fmt: skip
        return self

    def mean(self) -> "Layers":
        """Over height and width, which stay as ones."""
        n, _, _, channels = self.shape
        axes = self.graph.constant(np.int32([1, 2]))
        result = self.out((n, 1, 1, channels), False)
        self.tensor = self.graph.op("MEAN", [self.tensor, axes], result, keep_dims=True)
        return self

    def add_itself(self) -> "Layers":
        spec = self.spec
        self.tensor = self.graph.op("ADD", [self.tensor, self.tensor], self.out(spec.shape, True))
        return self

    def dense(self, outputs: int) -> "Layers":
        size = int(np.prod(self.shape))
        flat = Spec((1, size), "int8", self.spec.scale, self.spec.zero_point)
        shape = self.graph.constant(np.int32([1, size]))
        self.tensor = self.graph.op("RESHAPE", [self.tensor, shape], flat)
        values = self.random.integers(-127, 128, (outputs, size), dtype=np.int8)
        scale = 1 / (73 * np.sqrt(size))
        weight = self.graph.constant(values, scale)
        bias = self.graph.constant(np.zeros(outputs, np.int32), self.spec.scale * scale)
        self.tensor = self.graph.op(
            "FULLY_CONNECTED", [self.tensor, weight, bias], self.out((1, outputs), False)
        )
        return self

    def model(self) -> bytes:
        return self.graph.build(self.tensor)
