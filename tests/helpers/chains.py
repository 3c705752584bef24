"""Models of operators between two others, so that both of a kernel's addresses are constants.

Each model is RELU, the operator, RELU: what the operator reads and writes lies in the workspace,
at places the compiler knows.
"""

from collections.abc import Callable, Sequence

import numpy as np

from helpers.tflite_graphs import Graph, Spec, Tensor

_SCALE, _ZERO = 0.1, 3


def _spec(*shape: int) -> Spec:
    return Spec(shape, "int8", _SCALE, _ZERO)


def _constant(graph: Graph, *shape: int, scale: float = 0.01) -> Tensor:
    values = np.random.default_rng(7).integers(-127, 128, shape)
    return graph.constant(values.astype(np.int8), scale)


def _bias(graph: Graph, channels: int) -> Tensor:
    values = np.random.default_rng(8).integers(-900, 900, channels)
    return graph.constant(values.astype(np.int32), _SCALE * 0.01)


_Apply = Callable[[Graph, list[Tensor]], Tensor | list[Tensor]]


def _op(name: str, result: Spec, *constants: object, **options: object) -> _Apply:
    """An operator on all tensors that there are, and on index constants."""

    def apply(graph: Graph, tensors: list[Tensor]) -> Tensor:
        further = [graph.constant(np.int32(c)) for c in constants]
        return graph.op(name, [*tensors, *further], result, **options)

    return apply


def _layer(name: str, weights: tuple[int, ...], result: Spec, **options: object) -> _Apply:
    """An operator with weights, and a bias for each channel of its result."""

    def apply(graph: Graph, tensors: list[Tensor]) -> Tensor:
        further = [_constant(graph, *weights), _bias(graph, result.shape[-1])]
        return graph.op(name, [*tensors, *further], result, **options)

    return apply


def _conv2d(*weights: int, image: tuple[int, int, int], name: str = "CONV_2D") -> _Apply:
    channels = weights[-1] if name == "DEPTHWISE_CONV_2D" else weights[0]
    options = {"depth_multiplier": 1} if name == "DEPTHWISE_CONV_2D" else {}
    result = _spec(1, *image[:2], channels)
    return _layer(name, weights, result, padding="SAME", stride_w=1, stride_h=1, **options)


def _pool(name: str, result: Spec, height: int, width: int) -> _Apply:
    return _op(
        name, result, padding="VALID", filter_height=height, filter_width=width,
        stride_h=height, stride_w=width,
    )  # fmt: skip


def _split(graph: Graph, tensors: list[Tensor]) -> list[Tensor]:
    axis = graph.constant(np.int32(2))
    return graph.op("SPLIT", [axis, *tensors], _spec(1, 32, 1), _spec(1, 32, 1), num_splits=2)


# By kind: shapes of what the operator reads, and the operator.
_KINDS: dict[str, tuple[list[tuple[int, ...]], _Apply]] = {
    "add": ([(1, 4, 4, 8)] * 2, _op("ADD", _spec(1, 4, 4, 8))),
    "add_row": ([(1, 4, 4, 8), (1, 1, 1, 8)], _op("ADD", _spec(1, 4, 4, 8))),
    "average_pool": ([(1, 8, 8, 4)], _pool("AVERAGE_POOL_2D", _spec(1, 4, 4, 4), 2, 2)),
    "concatenation": ([(1, 32, 1)] * 2, _op("CONCATENATION", _spec(1, 32, 2), axis=2)),
    "concatenation_1d": ([(16,)] * 2, _op("CONCATENATION", _spec(32), axis=0)),
    "concatenation_runs": (
        [(1, 4, 4, 15), (1, 4, 4, 17)],
        _op("CONCATENATION", _spec(1, 4, 4, 32), axis=3),
    ),
    "concatenation_words": (
        [(1, 4, 4, 16), (1, 4, 4, 24)],
        _op("CONCATENATION", _spec(1, 4, 4, 40), axis=3),
    ),
    "conv2d": ([(1, 6, 6, 4)], _conv2d(8, 3, 3, 4, image=(6, 6, 4))),
    "conv2d_1d": ([(1, 1, 16, 4)], _conv2d(8, 1, 3, 4, image=(1, 16, 4))),
    "conv2d_pointwise": ([(1, 4, 4, 16)], _conv2d(16, 1, 1, 16, image=(4, 4, 16))),
    "depthwise_conv2d": (
        [(1, 6, 6, 16)],
        _conv2d(1, 3, 3, 16, image=(6, 6, 16), name="DEPTHWISE_CONV_2D"),
    ),
    "fully_connected": ([(1, 32)], _layer("FULLY_CONNECTED", (8, 32), _spec(1, 8))),
    "lookup": ([(1, 32)], _op("TANH", Spec((1, 32), "int8", 1 / 128, 0))),
    "maximum": ([(1, 32)] * 2, _op("MAXIMUM", _spec(1, 32))),
    "max_pool": ([(1, 8, 8, 1)], _pool("MAX_POOL_2D", _spec(1, 4, 4, 1), 2, 2)),
    "max_pool_1d": ([(1, 1, 32, 4)], _pool("MAX_POOL_2D", _spec(1, 1, 16, 4), 1, 2)),
    "mean": ([(1, 4, 4, 8)], _op("MEAN", _spec(1, 8), [1, 2], keep_dims=False)),
    "mul": ([(1, 32)] * 2, _op("MUL", Spec((1, 32), "int8", 0.5, -4))),
    "pack": ([(16,)] * 2, _op("PACK", _spec(16, 2), axis=1, values_count=2)),
    "pad": ([(1, 4, 4, 4)], _op("PAD", _spec(1, 6, 6, 4), [[0, 0], [1, 1], [1, 1], [0, 0]])),
    "pad_channels": ([(1, 16, 1)], _op("PAD", _spec(1, 16, 2), [[0, 0], [0, 0], [0, 1]])),
    "pad_rows": (
        [(1, 4, 8, 20)],
        _op("PAD", _spec(1, 7, 11, 20), [[0, 0], [1, 2], [2, 1], [0, 0]]),
    ),
    "requantize": ([(1, 32)], _op("QUANTIZE", Spec((1, 32), "int8", 0.05, -9))),
    "resize": (
        [(1, 4, 4, 2)],
        _op("RESIZE_NEAREST_NEIGHBOR", _spec(1, 8, 8, 2), [8, 8]),
    ),
    "resize_pixels": (
        [(1, 4, 4, 24)],
        _op("RESIZE_NEAREST_NEIGHBOR", _spec(1, 8, 8, 24), [8, 8]),
    ),
    "resize_unevenly": (
        [(1, 4, 4, 24)],
        _op("RESIZE_NEAREST_NEIGHBOR", _spec(1, 7, 5, 24), [7, 5]),
    ),
    "softmax": ([(1, 12)], _op("SOFTMAX", Spec((1, 12), "int8", 1 / 256, -128), beta=1.0)),
    "split": ([(1, 32, 2)], _split),
    "strided_slice": ([(1, 32)], _op("STRIDED_SLICE", _spec(1, 16), [0, 0], [1, 32], [1, 2])),
    "strided_slice_1d": ([(32,)], _op("STRIDED_SLICE", _spec(20), [5], [25], [1])),
    "strided_slice_rows": (
        [(1, 8, 64)],
        _op("STRIDED_SLICE", _spec(1, 8, 40), [0, 0, 1], [1, 8, 41], [1, 1, 1]),
    ),
    "sub": ([(1, 32)] * 2, _op("SUB", _spec(1, 32))),
    "transpose": ([(2, 16)], _op("TRANSPOSE", _spec(16, 2), [1, 0])),
    "transpose_rows": ([(3, 5, 20)], _op("TRANSPOSE", _spec(5, 3, 20), [1, 0, 2])),
    "transpose_image": (
        [(1, 4, 4, 3)],
        _op("TRANSPOSE", _spec(1, 3, 4, 4), [0, 3, 1, 2]),
    ),
}
KINDS = tuple(_KINDS)


def model(kind: str) -> bytes:
    """The model of one of KINDS."""
    shapes, apply = _KINDS[kind]
    graph = Graph()
    # Each RELU has another result, so that none is taken for another.
    before = [
        graph.op("RELU", [graph.input(Spec(shape, "int8", 0.09, index))], _spec(*shape))
        for index, shape in enumerate(shapes)
    ]
    results = apply(graph, before)
    results = results if isinstance(results, list) else [results]
    return graph.build(
        *(graph.op("RELU", [r], Spec(r.spec.shape, "int8", 0.2, 1)) for r in results)
    )


def inputs(kind: str, count: int) -> list[list[np.ndarray]]:
    """Inputs of a model for `count` runs."""
    random = np.random.default_rng(9)
    shapes: Sequence[tuple[int, ...]] = _KINDS[kind][0]
    return [
        [random.integers(-128, 128, shape).astype(np.int8) for shape in shapes]
        for _ in range(count)
    ]
