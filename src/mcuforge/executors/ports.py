"""How C names a compiled model, its inputs and its outputs."""

import re
from dataclasses import dataclass

from mcuforge.codegen import names
from mcuforge.errors import ConfigError
from mcuforge.formats.description import Description, Tensor

# Firmware reports the name in lines of limited length.
_LONGEST_NAME = 40
_NAME = re.compile(rf"[A-Za-z][A-Za-z0-9_]{{0,{_LONGEST_NAME - 1}}}")


def check_name(name: str) -> None:
    """Raise ConfigError unless `name` can name a model in symbols, files and firmware."""
    if _NAME.fullmatch(name):
        return
    proposal = names.identifier(name, "model", set())[:_LONGEST_NAME]
    raise ConfigError(
        f"{name[: _LONGEST_NAME + 1]!a} cannot name a model: names are letters, digits and "
        f"underscores, up to {_LONGEST_NAME}, and begin with a letter",
        f"choose one, as with --name {proposal}",
    )


@dataclass(frozen=True)
class Port:
    """An input or output of the model as the C interface names it.

    Attributes:
        c_name: its member of the C structs; unique among inputs and outputs, in lower case.
        variable: its tensor in the program.
        tensor: the model's description of it.
    """

    c_name: str
    variable: str
    tensor: Tensor


@dataclass(frozen=True)
class Interface:
    """The names of a compiled model's C interface.

    Attributes:
        name: the model.
        inputs, outputs: in the model's order.
    """

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    @property
    def ports(self) -> tuple[Port, ...]:
        """Inputs, then outputs."""
        return self.inputs + self.outputs

    @property
    def symbol(self) -> str:
        """Prefix of the model's files and symbols, as microTVM's: ``tvmgen_kws``."""
        return f"tvmgen_{self.name}"

    @property
    def macro(self) -> str:
        """Prefix of the model's macros: ``TVMGEN_KWS``.

        Names that differ in case alone have different ones, so that a program can hold both: KWS
        becomes ``TVMGEN_kws``, and a name of both cases stays as it is.
        """
        mixed = not (self.name.islower() or self.name.isupper())
        return f"TVMGEN_{self.name if mixed else self.name.swapcase()}"


def interface(description: Description) -> Interface:
    """The C interface of a model, whose name ``check_name`` accepts."""
    # Macros are named after ports, so an input and an output need different names too.
    taken: set[str] = set()

    def ports(kind: str, tensors: tuple[Tensor, ...]) -> tuple[Port, ...]:
        return tuple(
            Port(names.identifier(tensor.name.lower(), kind, taken), f"{kind}{index}", tensor)
            for index, tensor in enumerate(tensors)
        )

    return Interface(
        description.name, ports("input", description.inputs), ports("output", description.outputs)
    )
