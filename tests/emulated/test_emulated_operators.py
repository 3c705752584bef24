"""A sample of the operators on each emulated core: the same bytes as LiteRT there too."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from helpers import strategies
from helpers.emulator import EmulatedModel
from helpers.tflite_graphs import answer
from mcuforge.compiler import compile_model
from mcuforge.target import Target

# Each core with the instructions of its own, and each way from TIR to machine code.
BUILDS = [
    ("cortex-m4-c", "gcc"),
    ("cortex-m7-c", "clang"),
    ("cortex-m55-c", "clang"),
    ("cortex-m85-llvm", "tvm-llvm"),
    ("rv32imc-c", "gcc"),
    ("rv32imac_zba_zbb-llvm", "tvm-llvm"),
]
LEVEL = 3


@pytest.mark.parametrize("op", strategies.OPERATORS)
@pytest.mark.parametrize(("target", "toolchain"), BUILDS)
def test_operator_answers_as_litert(op: str, target: str, toolchain: str, tmp_path: Path) -> None:
    case = draw(op)
    model, archive = tmp_path / "model.tflite", tmp_path / "model.tar"
    model.write_bytes(case.model)
    compile_model(model, "model", Target.parse(target), LEVEL, archive)
    row = np.concatenate([np.frombuffer(values.tobytes(), np.uint8) for values in case.inputs])
    got = EmulatedModel(archive, tmp_path, toolchain).run(row[np.newaxis])
    expected = b"".join(values.tobytes() for values in answer(case.model, case.inputs))
    assert got.tobytes() == expected, case


def draw(op: str) -> strategies.Case:
    """A case, of int8 if it can be; hypothesis begins with the smallest: not the first it finds."""
    drawn: list[strategies.Case] = []
    strategy, dtypes = strategies.OPERATORS[op]

    @settings(
        max_examples=4,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy("int8" if "int8" in dtypes else dtypes[0]))
    def collect(case: strategies.Case) -> None:
        drawn.append(case)

    collect()
    return drawn[-1]
