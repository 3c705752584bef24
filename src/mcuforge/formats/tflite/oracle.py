"""What a model must answer: LiteRT's reference kernels, run in a process of their own.

A model can be broken in ways that crash the interpreter; only the helper process dies then.
"""

import signal
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tflite

from mcuforge.errors import ModelError

_TIMEOUT_S = 600
# Place of the field in the vtable of QuantizationParameters, as the schema's compiler numbers it.
_QUANTIZED_DIMENSION = 16


def answers(model: Path, inputs: np.ndarray) -> np.ndarray:
    """The outputs of LiteRT with BUILTIN_REF kernels.

    Args:
        model: a .tflite file that `describe` has accepted.
        inputs: uint8 [n, input_bytes], each row the raw bytes of all inputs in order.

    Returns:
        uint8 [n, output_bytes], each row the raw bytes of all outputs in order.

    Raises:
        ModelError: the interpreter refuses the model, crashes or hangs.
    """
    with tempfile.TemporaryDirectory() as directory:
        stimuli, replies = Path(directory, "inputs.npy"), Path(directory, "outputs.npy")
        np.save(stimuli, inputs)
        command = [sys.executable, "-m", "mcuforge.formats.tflite.oracle", model, stimuli, replies]
        try:
            done = subprocess.run(
                list(map(str, command)),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired as error:
            raise ModelError(f"LiteRT needs more than {_TIMEOUT_S} s for {model}") from error
        if done.returncode < 0:
            died = signal.Signals(-done.returncode).name
            raise ModelError(f"LiteRT crashes on {model} ({died}); the file is damaged")
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ModelError(f"LiteRT refuses {model}: {reason}")
        return np.load(replies, allow_pickle=False)


def evaluate(model: bytes, inputs: np.ndarray) -> np.ndarray:
    """As `answers`, in this process: fast, for models known to be sound."""
    model = _with_dimensions_in_range(model)
    from ai_edge_litert.interpreter import Interpreter, OpResolverType  # only needed here

    interpreter = Interpreter(
        model_content=model,
        num_threads=1,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
    )
    interpreter.allocate_tensors()
    wanted, given = interpreter.get_input_details(), interpreter.get_output_details()
    sizes = [int(np.prod(d["shape"])) * np.dtype(d["dtype"]).itemsize for d in wanted]
    rows = []
    for row in inputs:
        for detail, raw in zip(wanted, np.split(row, np.cumsum(sizes))[:-1], strict=True):
            interpreter.set_tensor(
                detail["index"], raw.view(detail["dtype"]).reshape(detail["shape"])
            )
        interpreter.invoke()
        outputs = [np.ascontiguousarray(interpreter.get_tensor(d["index"])) for d in given]
        rows.append(np.concatenate([output.reshape(-1).view(np.uint8) for output in outputs]))
    return np.stack(rows)


def _with_dimensions_in_range(model: bytes) -> bytes:
    """The model with quantized dimensions that LiteRT accepts.

    Where a tensor has one scale, or one dimension, nothing depends on ``quantized_dimension``, and
    older converters wrote the dimension of the weights into 1-D biases. LiteRT refuses such a file
    (``ParseQuantization`` in tflite/core/interpreter_builder.cc), TFLM runs it. It becomes 0 there.
    """
    patched = bytearray(model)
    graph = tflite.Model.GetRootAsModel(model, 0).Subgraphs(0)
    for tensor in map(graph.Tensors, range(graph.TensorsLength())):
        quantization, rank = tensor.Quantization(), tensor.ShapeLength()
        if quantization is None or quantization.QuantizedDimension() in range(rank):
            continue
        at = quantization._tab.Offset(_QUANTIZED_DIMENSION)
        if at and (rank <= 1 or quantization.ScaleLength() == 1):
            struct.pack_into("<i", patched, quantization._tab.Pos + at, 0)
    return bytes(patched)


if __name__ == "__main__":
    path, stimuli, replies = map(Path, sys.argv[1:])
    np.save(replies, evaluate(path.read_bytes(), np.load(stimuli, allow_pickle=False)))
