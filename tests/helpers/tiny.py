"""A model small enough to go through the whole pipeline within seconds."""

import numpy as np

from helpers.tflite_graphs import Graph, Spec


def model(seed: int = 0, float_io: bool = False) -> bytes:
    """A convolution and a fully connected layer on an 8x8 image: 64 * 4 * 9 + 3 * 256 MACs."""
    random = np.random.default_rng(seed)
    graph = Graph()
    if float_io:
        stimulus = graph.input(Spec((1, 8, 8, 1), "float32"))
        image = graph.op("QUANTIZE", [stimulus], Spec((1, 8, 8, 1), "int8", 0.5, -3))
    else:
        image = graph.input(Spec((1, 8, 8, 1), "int8", 0.5, -3))
    kernel = graph.constant(random.integers(-127, 128, (4, 3, 3, 1), dtype=np.int8), 0.01)
    bias = graph.constant(random.integers(-500, 500, 4, dtype=np.int32), 0.005)
    features = graph.op(
        "CONV_2D",
        [image, kernel, bias],
        Spec((1, 8, 8, 4), "int8", 0.4, 5),
        padding="SAME",
        stride_w=1,
        stride_h=1,
    )
    flat = graph.op(
        "RESHAPE", [features, graph.constant(np.int32([1, 256]))], Spec((1, 256), "int8", 0.4, 5)
    )
    weights = graph.constant(random.integers(-127, 128, (3, 256), dtype=np.int8), 0.01)
    offsets = graph.constant(random.integers(-500, 500, 3, dtype=np.int32), 0.004)
    scores = graph.op("FULLY_CONNECTED", [flat, weights, offsets], Spec((1, 3), "int8", 4.0, 1))
    return graph.build(scores)


MACS = 64 * 4 * 9 + 3 * 256
