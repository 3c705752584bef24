"""The operators of a .tflite file, each as a model of its own."""

from __future__ import annotations

from collections.abc import Iterator

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from mcuforge.formats.tflite.describe import describe


def operators(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Each operator that has an operand which is no constant: its place, and a model of it alone.

    Args:
        content: a .tflite file that `describe` accepts.
    """
    model = schema.ModelT.InitFromPackedBuf(content)
    (graph, *_), buffers = model.subgraphs, model.buffers
    model.subgraphs, model.signatureDefs = [graph], None
    for operator, node in zip(describe(content, "").operators, graph.operators, strict=True):
        indices = {int(index) for index in node.inputs if index >= 0}
        used = {graph.tensors[index].buffer for index in indices}
        constant = {i for i in indices if _holds_data(buffers[graph.tensors[i].buffer])}
        if indices == constant:
            continue
        graph.operators = [node]
        graph.inputs, graph.outputs = sorted(indices - constant), node.outputs
        model.buffers = [b if i in used else schema.BufferT() for i, b in enumerate(buffers)]
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        yield operator.where, bytes(builder.Output())


def _holds_data(buffer: schema.BufferT) -> bool:
    return buffer.data is not None and len(buffer.data) > 0
