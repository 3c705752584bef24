"""Modelled cycles of one inference of a firmware."""

from dataclasses import dataclass
from pathlib import Path

from elftools.elf.elffile import ELFFile

from mcuforge import mlf
from mcuforge.boards import Board
from mcuforge.cycles import cores
from mcuforge.cycles.cores import Core
from mcuforge.cycles.program import Call, Image
from mcuforge.cycles.simulator import Costs, simulate, total
from mcuforge.errors import ConfigError

_GLUE = "model_glue_"
"""What the names of the structures begin with that firmware gives the model: pointers to ports."""


@dataclass(frozen=True)
class Prediction:
    """An inference as the model of a core sees it.

    Attributes:
        core: the model.
        operators: costs of each, in the order they run.
        whole: of the inference, with what is between operators.
        outputs: bytes of all outputs, one after the other.
    """

    core: Core
    operators: tuple[Costs, ...]
    whole: Costs
    outputs: bytes

    @property
    def error_percent(self) -> float | None:
        """The largest error to be expected of the whole, in percent; None if it is not known."""
        whole = self.whole
        return self.core.error(whole.multiples / whole.cycles, whole.floats / whole.instructions)


def predict(elf: Path, info: mlf.Info, board: Board, inputs: bytes) -> Prediction:
    """Predict the cycles of an inference from the firmware that is flashed on a board.

    The model is executed at the addresses it has there, with the board's memory as its ``timing``
    describes it. It is the second inference of the same input that counts: caches and predictors
    know the program.

    Args:
        elf: the firmware, built for the board.
        info: of the compiled model in it.
        inputs: raw bytes of all input tensors, one after another.

    Raises ConfigError if the core or the board's memory is not described, and as `simulate` does.
    """
    core = cores.core(board.core)
    if board.timing is None:
        raise ConfigError(
            f"{board.name} does not say what its memory costs", "add the key timing to boards.yaml"
        )
    with elf.open("rb") as stream:
        image = Image(ELFFile(stream))
    entry = image.address(info.entry)
    structures = image.address(f"{_GLUE}inputs"), image.address(f"{_GLUE}outputs")
    written, position = [], 0
    for port, address in zip(
        info.inputs, image.words(structures[0], len(info.inputs)), strict=True
    ):
        written.append((address, inputs[position : position + port.bytes]))
        position += port.bytes
    places = zip(image.words(structures[1], len(info.outputs)), info.outputs, strict=True)
    call = Call(entry, structures, tuple(written), tuple((a, port.bytes) for a, port in places))
    kernels = [
        0 if operator.symbol == "memcpy" else image.address(operator.symbol)
        for operator in info.operators
    ]
    simulated = simulate(elf, call, core, board.timing, kernels)
    return Prediction(core, simulated.costs[1:], total(simulated.costs), simulated.output)
