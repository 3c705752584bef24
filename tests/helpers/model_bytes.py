"""What a model's own constants take, to compare with what its compiled form takes."""

import tflite


def weights_bytes(model: bytes) -> int:
    """Bytes of the int8 weights and int32 biases of a model, each tensor once.

    Scales are not counted, though the file has one for each channel: what requantization needs is
    part of the tenth that constants may take above the weights. Neither are tables.
    """
    parsed = tflite.Model.GetRootAs(model, 0)
    graph = parsed.Subgraphs(0)
    tensors = set()
    for index in range(graph.OperatorsLength()):
        operator = graph.Operators(index)
        if parsed.OperatorCodes(operator.OpcodeIndex()).BuiltinCode() in (
            tflite.BuiltinOperator.CONV_2D,
            tflite.BuiltinOperator.DEPTHWISE_CONV_2D,
            tflite.BuiltinOperator.FULLY_CONNECTED,
        ):
            tensors |= set(operator.InputsAsNumpy()[1:].tolist()) - {-1}
    return sum(parsed.Buffers(graph.Tensors(t).Buffer()).DataLength() for t in tensors)
