"""A model in the one form that the importer reads: what may be said in several ways is said in one.

Operators of constants are computed, options left out have their defaults, names are unique, weight
scales are positive, every bias has its scale. What the model computes stays the same to the bit.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mcuforge.errors import ModelError
from mcuforge.exact import arithmetic
from mcuforge.formats.tflite import oracle, supported
from mcuforge.formats.tflite.graph import DTYPES, Graph, Node

_WEIGHTED = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}
"""Dimension of the output channels in the weights of each operator that has weights."""


def normalize(data: bytes) -> Graph:
    """Read a model, check that it is supported, and bring it into the importer's form.

    Args:
        data: the ``.tflite`` file, already checked to be one (``formats.tflite.describe``).

    Raises:
        ModelError: an operator is not supported; names it, its index and its output tensor.
    """
    graph = Graph(data)
    _fold_constants(graph)
    supported.check(graph)
    _name(graph)
    for index in range(len(graph.tensors)):
        _quantize_alike(graph, index)
    for node in graph.nodes:
        _complete(graph, node)
    for node in graph.nodes:
        if node.name in _WEIGHTED and graph.tensor(node.operator.inputs[0]).scales.size:
            _make_scales_positive(graph, node)
            _scale_bias(graph, node)
    return graph


def _fold_constants(graph: Graph) -> None:
    """Compute SHAPE and what depends on constants alone, the latter with LiteRT itself."""
    known = {i for i in range(len(graph.tensors)) if graph.tensor(i).value is not None}
    constant, kept = [], []
    for node in graph.nodes:
        operands = [index for index in node.operator.inputs if index >= 0]
        if node.name == "SHAPE" and _fold_shape(graph, node):
            known.update(node.operator.outputs)
            continue
        if node.name in supported.SUPPORTED and operands and known.issuperset(operands):
            constant.append(node)
            known.update(node.operator.outputs)
        else:
            kept.append(node)
    graph.nodes = kept
    used = {*graph.outputs, *(index for node in kept for index in node.operator.inputs)}
    results = [i for node in constant for i in node.operator.outputs if i in used]
    if results:
        for index, value in zip(results, _computed(graph, constant, results), strict=True):
            graph.set_value(index, value)


def _fold_shape(graph: Graph, node: Node) -> bool:
    """Make the result of SHAPE a constant; False where the operator is not as LiteRT wants it."""
    operator = node.operator
    if len(operator.inputs) != 1 or len(operator.outputs) != 1 or operator.inputs[0] < 0:
        return False
    shape, result = graph.tensor(operator.inputs[0]).shape, graph.tensor(operator.outputs[0])
    stated = DTYPES.get(getattr(operator.builtinOptions, "outType", -1))
    if result.shape != (len(shape),) or stated != result.dtype or stated not in ("int32", "int64"):
        return False
    graph.set_value(operator.outputs[0], np.array(shape, stated))
    return True


def _computed(graph: Graph, nodes: list[Node], results: list[int]) -> list[np.ndarray]:
    """What LiteRT computes for some operators, all of whose operands are constants."""
    part = Graph(graph.pack())
    part.nodes, part.inputs, part.outputs = nodes, [], results
    sizes = [graph.tensor(index).bytes for index in results]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "constants.tflite")
        path.write_bytes(part.pack())
        try:
            (answer,) = oracle.answers(path, np.zeros((1, 0), np.uint8))
        except ModelError as error:
            reason = error.message.rpartition(": ")[2]
            raise ModelError(f"{graph.where(nodes[0])} of constants fails: {reason}") from error
    if answer.size != sum(sizes):
        raise ModelError(f"{graph.where(nodes[0])} of constants does not have the shape stated")
    return np.split(answer, np.cumsum(sizes)[:-1])


def _name(graph: Graph) -> None:
    """Name every tensor differently: TVM's importer tells tensors by name."""
    names = [tensor.name for tensor in graph.tensors]
    if all(names) and len(set(names)) == len(names):
        return
    for index, tensor in enumerate(graph.tensors):
        tensor.name = f"t{index}_{(tensor.name or b'').decode(errors='replace')}"


def _quantize_alike(graph: Graph, index: int) -> None:
    """Quantization only of integers, of one scale without dimension, with a zero point for each.

    A scalar has a shape of no extents.
    """
    if graph.tensors[index].shape is None:
        graph.tensors[index].shape = np.zeros(0, np.int32)
    tensor = graph.tensor(index)
    if tensor.scales.size and tensor.dtype in ("int8", "uint8", "int16", "int32"):
        zero_points = tensor.zero_points if tensor.zero_points.size else np.zeros(1, np.int64)
        zero_points = np.broadcast_to(zero_points, tensor.scales.shape)
        axis = tensor.axis if tensor.scales.size > 1 and len(tensor.shape) > 1 else 0
        graph.set_quantization(index, tensor.scales, zero_points, axis)
    else:
        graph.tensors[index].quantization = None


def _complete(graph: Graph, node: Node) -> None:
    """The operator's code in the field TVM reads; its options, where they are left out."""
    code = graph.model.operatorCodes[node.operator.opcodeIndex]
    code.builtinCode = max(code.builtinCode, code.deprecatedBuiltinCode)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    kind = supported.SUPPORTED[node.name].kind
    if kind and node.operator.builtinOptions is None:
        node.operator.builtinOptionsType = getattr(schema.BuiltinOptions, f"{kind}Options")
        node.operator.builtinOptions = getattr(schema, f"{kind}OptionsT")()
    if node.name == "DEPTHWISE_CONV_2D":  # LiteRT takes it from the shapes
        x, weights = (graph.tensor(index) for index in node.operator.inputs[:2])
        node.operator.builtinOptions.depthMultiplier = weights.shape[3] // x.shape[3]


def _make_scales_positive(graph: Graph, node: Node) -> None:
    """Negate weights and bias of the channels with a negative scale.

    TFLite scales an accumulator by its product with the mantissa of the scale, whose sign it keeps
    (SaturatingRoundingDoublingHighMul, gemmlowp), so that both signs may change. A constant that
    other operators use too is copied.
    """
    weights = graph.tensor(node.operator.inputs[1])
    axis = _WEIGHTED[node.name]
    negative = np.broadcast_to(weights.scales < 0, weights.shape[axis])
    if not negative.any():
        return
    x, result = graph.tensor(node.operator.inputs[0]), graph.tensor(node.operator.outputs[0])
    for scale in weights.scales[weights.scales < 0]:
        real = np.float64(x.scales[0]) * np.float64(scale) / np.float64(result.scales[0])
        mantissa, shift = arithmetic.quantize_multiplier(-real)
        if arithmetic.quantize_multiplier(real) != (-mantissa, shift):
            raise ModelError(f"{graph.where(node)} has the weight scale {scale:g}")
    values = np.moveaxis(weights.constant.astype(np.int64), axis, 0)
    values[negative] *= -1
    if values.max() > 127:
        raise ModelError(f"{graph.where(node)} has weights of -128 with a negative scale")
    _replace_operand(graph, node, 1, np.moveaxis(values, 0, axis), np.abs(weights.scales), axis)
    if len(node.operator.inputs) > 2 and node.operator.inputs[2] >= 0:
        bias = graph.tensor(node.operator.inputs[2])
        values = np.where(negative, -bias.constant.astype(np.int64), bias.constant)
        if values.max() > arithmetic.INT32_MAX:
            raise ModelError(f"{graph.where(node)} has a bias of -2^31 with a negative scale")
        _replace_operand(graph, node, 2, values, np.abs(bias.scales), 0)


def _scale_bias(graph: Graph, node: Node) -> None:
    """Give a bias without scale that of the accumulators."""
    if len(node.operator.inputs) > 2 and node.operator.inputs[2] >= 0:
        x, weights, bias = (graph.tensor(index) for index in node.operator.inputs)
        if bias.scales.size not in (1, weights.scales.size):
            _replace_operand(graph, node, 2, bias.constant, x.scales * weights.scales, 0)


def _replace_operand(
    graph: Graph, node: Node, place: int, value: np.ndarray, scales: np.ndarray, axis: int
) -> None:
    """Make operand `place` a new constant like the one it was, with zero point 0."""
    old = node.operator.inputs[place]
    node.operator.inputs[place] = index = graph.copy_tensor(old)
    graph.set_value(index, value.astype(graph.tensor(old).dtype))
    graph.set_quantization(index, scales, np.zeros(scales.shape, np.int64), axis)
    _quantize_alike(graph, index)  # a single scale has no dimension
