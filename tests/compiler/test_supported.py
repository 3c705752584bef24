"""What the table of supported operators promises: exact, or refused with one line."""

from pathlib import Path

import numpy as np
import pytest
import tvm
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from test_operators import SANITIZED, assert_same

from helpers import batch, strategies
from helpers.tflite_graphs import answer
from mcuforge.errors import ModelError
from mcuforge.formats.tflite.document import document
from mcuforge.formats.tflite.graph import DTYPES, Graph
from mcuforge.formats.tflite.importer import from_tflite
from mcuforge.formats.tflite.supported import SUPPORTED
from mcuforge.passes.restore_integers import RestoreIntegers
from mcuforge.passes.rewrite import bindings
from mcuforge.tir.integer_op import INTEGER_OP_PREFIX, op_name

OPERATORS = {op: drawn for op, drawn in strategies.OPERATORS.items() if op in SUPPORTED}
CHOSEN = {"FILL": 1, "SELECT": 1, "SELECT_V2": 1, "SPLIT": 1, "TRANSPOSE_CONV": 1}
"""Place of the operand whose type is drawn, where it is not the first."""
ROOT = Path(__file__).parents[2]


def test_the_table_is_documented() -> None:
    assert (ROOT / "docs/operators.md").read_text() == document()


def test_every_operator_and_type_is_drawn() -> None:
    drawn = {(op, dtype) for op, (_, dtypes) in strategies.OPERATORS.items() for dtype in dtypes}
    drawn |= {("PADV2", dtype) for op, dtype in drawn if op == "PAD"}
    for op, support in SUPPORTED.items():
        place = CHOSEN.get(op, 0)
        for signature in support.types:
            assert (op, signature.split()[place].rstrip(".")) in drawn


@pytest.mark.parametrize("op", [op for op, (_, dtypes) in OPERATORS.items() if "int8" in dtypes])
def test_int8_operators_become_those_the_table_names(op: str) -> None:
    strategy, _ = OPERATORS[op]
    found: set[str] = set()

    @settings(
        max_examples=6,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy("int8"))
    def draw(case: strategies.Case) -> None:
        with tvm.transform.PassContext(opt_level=1):
            module = RestoreIntegers()(from_tflite(case.model))
        found.update(op_name(binding.value) for binding in bindings(module))

    draw()
    integer = {name.removeprefix(INTEGER_OP_PREFIX) for name in found if "mcuforge." in name}
    assert integer <= set(SUPPORTED[op].integer)
    assert bool(integer) == bool(SUPPORTED[op].integer)


class Disturber:
    """Changes a drawn model in one respect: what another converter might write, or nobody."""

    def __init__(self, draw, model: bytes, inputs: list[np.ndarray]) -> None:
        self.draw = draw
        self.graph = Graph(model)
        self.inputs = inputs
        self.node = self.choice(self.graph.nodes)

    def choice(self, options):
        return self.draw(st.sampled_from(list(options)))

    def tensor(self) -> int:
        used = (*self.node.operator.inputs, *self.node.operator.outputs)
        return self.choice([index for index in used if index >= 0])

    def quantization(self) -> None:
        index = self.tensor()
        tensor = self.graph.tensor(index)
        if not tensor.scales.size:
            self.graph.set_quantization(index, np.float32([0.5]), np.int64([0]), 0)
            return
        scales, zero_points = tensor.scales.copy(), tensor.zero_points.copy()
        match self.choice(
            ["twice", "slightly", "sign", "zero", "huge", "nan", "shift", "many", "no"]
        ):
            case "twice":
                scales *= 2
            case "slightly":
                scales *= np.float32(1.0000002)
            case "sign":
                scales *= -1
            case "zero":
                scales *= 0
            case "huge":
                scales *= np.float32(1e30)
            case "nan":
                scales[0] = np.nan
            case "shift":
                zero_points += 1
            case "many":
                scales = np.repeat(scales[:1], max(tensor.shape or (2,)))
                zero_points = np.repeat(zero_points[:1], len(scales))
            case "no":
                self.graph.tensors[index].quantization = None
                return
        axis = self.choice([0, tensor.axis, max(len(tensor.shape) - 1, 0)])
        self.graph.set_quantization(index, scales, zero_points, axis)

    def option(self) -> None:
        options = self.node.operator.builtinOptions
        names = [name for name, value in vars(options or self).items() if isinstance(value, int)]
        if names:
            name = self.choice(names)
            kind = type(getattr(options, name))
            setattr(options, name, kind(self.choice([0, 1, 2, 3, -1, 7])))

    def constant_input(self) -> None:
        place = self.choice(range(len(self.graph.inputs)))
        if len(self.graph.inputs) > 1:
            self.graph.set_value(self.graph.inputs.pop(place), self.inputs.pop(place))

    def variable_constant(self) -> None:
        index = self.tensor()
        value = self.graph.tensor(index).value
        if value is not None and value.size and index not in self.graph.inputs:
            self.graph.tensors[index].buffer = 0
            self.graph.inputs.append(index)
            self.inputs.append(value)

    def type(self) -> None:
        self.graph.tensors[self.tensor()].type = self.choice(DTYPES)

    def shape(self) -> None:
        tensor = self.graph.tensors[self.choice(self.node.operator.outputs)]
        extents = [int(extent) for extent in tensor.shape]
        tensor.shape = self.choice([[1, *extents], extents[1:], [*extents[:-1], 2], extents[::-1]])

    def outputs(self) -> None:
        known = {index for node in self.graph.nodes for index in node.operator.outputs}
        known |= {*self.graph.outputs, *self.graph.inputs, *self.node.operator.inputs} - {-1}
        self.graph.outputs = [self.choice(sorted(known)) for _ in range(self.choice([1, 2, 3]))]

    def twice(self) -> None:
        operator = self.node.operator
        place = self.choice(range(len(operator.inputs)))
        operator.inputs[place] = self.choice(operator.inputs)

    def code(self) -> None:
        code = self.graph.model.operatorCodes[self.node.operator.opcodeIndex]
        code.deprecatedBuiltinCode, code.builtinCode = self.choice(
            [(0, code.builtinCode), (code.builtinCode, 0), (0, 10_000)]
        )


DISTURBANCES = [name for name in vars(Disturber) if name not in ("__init__", "choice", "tensor")]
DISTURBANCES = [name for name in DISTURBANCES if not name.startswith("__")]


@pytest.mark.parametrize("op", strategies.OPERATORS)
def test_disturbed_models_are_exact_or_refused(op: str, tmp_path: Path) -> None:
    drawn: list[batch.Job] = []
    strategy, dtypes = strategies.OPERATORS[op]

    @settings(
        max_examples=12,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data(), st.sampled_from(dtypes), st.sampled_from(["host-c", "cortex-m55-c"]))
    def draw(data, dtype: str, target: str) -> None:
        case = data.draw(strategy(dtype))
        disturber = Disturber(data.draw, case.model, list(case.inputs))
        getattr(disturber, data.draw(st.sampled_from(DISTURBANCES)))()
        level = data.draw(st.sampled_from([1, 2, 4]))
        drawn.append(batch.Job(disturber.graph.pack(), target, level, disturber.inputs))

    draw()
    accepted = [job for job in drawn if _is_accepted(job, tmp_path)]
    results = batch.run(accepted, tmp_path, SANITIZED) if accepted else []
    for job, outputs in zip(accepted, results, strict=True):
        assert_same(op, outputs, answer(job.model, job.inputs))


def _is_accepted(job: batch.Job, directory: Path) -> bool:
    try:
        batch.compile_job(job, directory, "tried")
    except ModelError as error:
        assert "\n" not in str(error)
        return False
    return True
