"""Mutants of valid models, and a process that compiles them.

    python -m helpers.mutants CORPUS DIRECTORY FIRST LAST

in tests/ compiles the mutants FIRST to LAST (exclusive) of the files in CORPUS and prints, for
each, a line when it starts and one when it ends. A mutant is known by its number alone. A process
that ends without a word was ended by the mutant whose start it printed last.
"""

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

MOST_CPU_S = 60
MOST_BYTES = 2 << 30
TARGETS = ("host-c", "cortex-m4-c", "cortex-m7-c", "cortex-m55-c", "cortex-m55-llvm")
INTERESTING = (
    *(-(2**31), -(2**16), -129, -128, -2, -1, 0, 1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 31, 63, 100),
    *(127, 128, 255, 256, 1000, 4097, 2**15, 2**16, 2**20 + 1, 2**24, 2**31 - 1),
)
SCALES = (0.0, -0.5, 1e-30, 1e-9, 1 / 256, 0.1, 1.0, 3.7, 1e9, 1e30, np.inf, np.nan)
EVERY = 8
"""Of the mutants that compile, one in so many is compared with LiteRT."""


def mutant(corpus: list[bytes], number: int) -> bytes:
    """One mutant: a file of the corpus after one to three changes of its bytes or structure."""
    random = np.random.default_rng(number)
    model = corpus[random.integers(len(corpus))]
    for _ in range(random.integers(1, 4)):
        if random.random() < 0.85:
            # A model whose bytes were changed may not be parsed any more.
            with contextlib.suppress(Exception):
                model = _change_structure(model, random)
        else:
            model = _change_bytes(model, random)
    return model


def _change_bytes(model: bytes, random: np.random.Generator) -> bytes:
    content = bytearray(model)
    place = int(random.integers(8, max(9, len(content) - 4)))
    match random.integers(5):
        case 0:
            content[place] ^= 1 << random.integers(8)
        case 1:
            content[place] = random.integers(256)
        case 2:
            value = np.int32(random.choice(INTERESTING)).tobytes()
            content[place : place + 4] = value
        case 3 if random.random() < 0.2:
            del content[place:]
        case _:
            other = int(random.integers(8, len(content)))
            content[place : place + 16] = content[other : other + 16]
    return bytes(content)


def _change_structure(model: bytes, random: np.random.Generator) -> bytes:
    parsed = schema.ModelT.InitFromPackedBuf(model)
    graph = _one(parsed.subgraphs, random)
    change = _one(
        (_shape, _type, _buffer, _quantization, _operands, _option, _option, _order, _ports), random
    )
    change(parsed, graph, random)
    builder = flatbuffers.Builder(1024)
    builder.Finish(parsed.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _one(items: Any, random: np.random.Generator) -> Any:
    return items[random.integers(len(items))]


def _shape(_: schema.ModelT, graph: schema.SubGraphT, random: np.random.Generator) -> None:
    tensor = _one(graph.tensors, random)
    shape = list(tensor.shape)
    match random.integers(4):
        case 0:
            shape.insert(random.integers(len(shape) + 1), 1)
        case 1:
            del shape[random.integers(len(shape))]
        case 2:
            shape = [shape[i] for i in random.permutation(len(shape))]
        case 3:
            shape[random.integers(len(shape))] = _one(INTERESTING, random)
    tensor.shape = shape


def _type(_: schema.ModelT, graph: schema.SubGraphT, random: np.random.Generator) -> None:
    tensors = graph.tensors if random.random() < 0.3 else [_one(graph.tensors, random)]
    code = int(random.integers(23))
    for tensor in tensors:
        tensor.type = code


def _buffer(model: schema.ModelT, graph: schema.SubGraphT, random: np.random.Generator) -> None:
    tensor = _one(graph.tensors, random)
    data = model.buffers[tensor.buffer].data
    if data is None or random.random() < 0.2:
        tensor.buffer = int(random.integers(len(model.buffers)))
        return
    data = np.array(data)
    match random.integers(4):
        case 0:
            data = data[: random.integers(len(data))]
        case 1:
            data = np.concatenate([data, data])
        case 2 if len(data) % 4 == 0:
            values = data.view(np.int32)
            values[random.integers(len(values))] = _one(INTERESTING, random)
        case _:
            data = random.integers(0, 256, len(data), np.uint8)
    model.buffers[tensor.buffer].data = data


def _quantization(_: schema.ModelT, graph: schema.SubGraphT, random: np.random.Generator) -> None:
    tensor = _one(graph.tensors, random)
    other = _one(graph.tensors, random)
    quantization = tensor.quantization
    if quantization is None or random.random() < 0.2:
        tensor.quantization = other.quantization
        return
    match random.integers(4):
        case 0:
            scales = np.array(quantization.scale)
            scales[random.integers(len(scales))] = _one(SCALES, random)
            quantization.scale = scales
        case 1:
            zero_points = np.array(quantization.zeroPoint)
            zero_points[random.integers(len(zero_points))] = _one(INTERESTING, random)
            quantization.zeroPoint = zero_points
        case 2:
            quantization.quantizedDimension = int(random.integers(-1, 5))
        case 3:
            count = random.integers(0, 5)
            quantization.scale = np.full(count, 0.1, np.float32)
            quantization.zeroPoint = np.zeros(count, np.int64)


def _operands(_: schema.ModelT, graph: schema.SubGraphT, random: np.random.Generator) -> None:
    operator = _one(graph.operators, random)
    field = "inputs" if random.random() < 0.7 else "outputs"
    indices = list(getattr(operator, field))
    match random.integers(4):
        case 0:
            indices[random.integers(len(indices))] = int(random.integers(-1, len(graph.tensors)))
        case 1:
            del indices[random.integers(len(indices))]
        case 2:
            indices.append(int(random.integers(-1, len(graph.tensors))))
        case 3:
            indices.reverse()
    setattr(operator, field, indices)


def _option(_: schema.ModelT, graph: schema.SubGraphT, random: np.random.Generator) -> None:
    operator = _one(graph.operators, random)
    options = operator.builtinOptions
    if random.random() < 0.1:
        operator.builtinOptionsType, operator.builtinOptions = 0, None
        return
    name = _one(sorted(vars(options)), random)
    old = getattr(options, name)
    if isinstance(old, float):
        setattr(options, name, float(_one(SCALES, random)))
    elif isinstance(old, bool):
        setattr(options, name, not old)
    elif isinstance(old, int) and random.random() < 0.5:
        setattr(options, name, int(random.integers(6)))
    elif isinstance(old, int):
        setattr(options, name, _one(INTERESTING, random))


def _order(model: schema.ModelT, graph: schema.SubGraphT, random: np.random.Generator) -> None:
    operator = _one(graph.operators, random)
    match random.integers(4):
        case 0:
            graph.operators.remove(operator)
        case 1:
            graph.operators.append(operator)
        case 2:
            operator.opcodeIndex = int(random.integers(len(model.operatorCodes)))
        case 3:
            code = model.operatorCodes[operator.opcodeIndex]
            code.builtinCode = int(random.integers(210))
            code.deprecatedBuiltinCode = min(code.builtinCode, 127)


def _ports(_: schema.ModelT, graph: schema.SubGraphT, random: np.random.Generator) -> None:
    field = _one(("inputs", "outputs"), random)
    indices = list(getattr(graph, field))
    if random.random() < 0.5:
        indices.append(int(random.integers(len(graph.tensors))))
    else:
        indices[random.integers(len(indices))] = int(random.integers(len(graph.tensors)))
    setattr(graph, field, indices)


def corpus(directory: Path) -> list[bytes]:
    """The files of a directory, in the order of their names."""
    return [path.read_bytes() for path in sorted(directory.glob("*.tflite"))]


def outcomes(models: list[bytes], directory: Path, numbers: range) -> Iterator[tuple[int, str]]:
    """Compile mutants: ``refused: why``, ``compiled``, ``exact``, or what must not happen."""
    from mcuforge.compiler import compile_model
    from mcuforge.errors import McuforgeError
    from mcuforge.target import Target

    path, archive = directory / "mutant.tflite", directory / "mutant.tar"
    for number in numbers:
        print(number, "starts", flush=True)
        random = np.random.default_rng([number, 1])
        target, level = TARGETS[random.integers(len(TARGETS))], int(random.integers(5))
        path.write_bytes(mutant(models, number))
        archive.unlink(missing_ok=True)
        signal.setitimer(signal.ITIMER_PROF, MOST_CPU_S)  # ends the process
        try:
            compile_model(path, "mutant", Target.parse(target), level, archive)
            outcome = "compiled"
        except McuforgeError as error:
            outcome = f"refused: {error}"
        except BaseException as error:
            outcome = f"WRONG: {type(error).__name__}: {str(error).splitlines()[-1:]}"
        signal.setitimer(signal.ITIMER_PROF, 0)
        if outcome == "compiled" and level and target.endswith("-c") and number % EVERY == 0:
            outcome = compared(path, archive, directory / str(number))
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 > MOST_BYTES:
            outcome = "WRONG: more than 2 GB"
        if "\n" in outcome or "Unable to allocate" in outcome or "bad_alloc" in outcome:
            outcome = f"WRONG: {outcome!r}"
        yield number, f"{outcome} [{target} -O{level}]"


def compared(path: Path, archive: Path, directory: Path) -> str:
    """Whether the C of a mutant answers as LiteRT, if LiteRT takes the mutant."""
    from helpers.host import HostModel
    from mcuforge import formats
    from mcuforge.errors import McuforgeError
    from mcuforge.models import vectors

    model = formats.of(path)
    description = model.describe(path.read_bytes(), "mutant")
    inputs = np.concatenate(
        [vectors.random_inputs(description, 2), vectors.corner_inputs(description)]
    )
    try:
        expected = model.answers(path, inputs)
    except McuforgeError as error:
        return f"compiled, but {error}"
    try:
        results = HostModel(archive, directory).run(inputs)
    except Exception as error:
        return f"WRONG: {str(error)[:2000]!r}"
    if np.array_equal(results, expected):
        return "exact"
    if all(tensor.dtype == "float32" for tensor in description.outputs):
        results, expected = results.view(np.float32), expected.view(np.float32)
        largest = np.nanmax(np.abs(np.where(np.isfinite(expected), expected, 0)), initial=1)
        if np.allclose(results, expected, 1e-5, 2e-5 * largest, equal_nan=True):
            return "exact"
    return "WRONG: other numbers than LiteRT"


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(int(os.environ.get("MUTANTS_ALARM", "3600")))
    files, scratch, first, last = sys.argv[1:]
    for mutated, result in outcomes(
        corpus(Path(files)), Path(scratch), range(int(first), int(last))
    ):
        print(mutated, result, flush=True)
        if "more than 2 GB" in result:
            sys.exit(1)
