"""What mcuforge records about a compilation, for the rest of the pipeline."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Port:
    """An input or output of a compiled model.

    Attributes:
        name: as in the model.
        c_name: member of the C struct.
        shape: static, batch included.
        dtype: numpy's name of the element type.
        bytes: size of the tensor.
        scale, zero_point: real value = scale * (q - zero_point); None for unquantized tensors.
        workspace_offset: where it lies in the workspace, in bytes; None if the caller owns it.
    """

    name: str
    c_name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    scale: float | None = None
    zero_point: int | None = None
    workspace_offset: int | None = None


@dataclass(frozen=True)
class Operator:
    """One step of an inference.

    Attributes:
        symbol: the C function it calls.
        op: operator name for reports.
        shape: of its result.
        macs: multiply-accumulates executed.
        macs_nominal: as the model states them; None where that cannot be told.
        products: of 8-bit inputs and weights. ``dense``: an input meets the weights of many output
            channels; ``depthwise``: those of its own channel. None: there are no such products.
    """

    symbol: str
    op: str
    shape: tuple[int, ...]
    macs: int
    macs_nominal: int | None
    products: str | None = None


@dataclass(frozen=True)
class Info:
    """The entry ``mcuforge`` of a model in ``metadata.json``, as the schema ``mlf`` describes it.

    Attributes:
        compiler_version: fingerprint of what compiled the model (`provenance.compiler`).
        model_sha256: of the .tflite file; empty if it is not known.
        core: as in GCC's ``-mcpu``.
        entry: C name of the function that runs an inference.
        header: file name of the public C header.
        inputs, outputs: in the model's order.
        io_in_workspace: inputs and outputs are part of the workspace.
        workspace_bytes: of memory planned for temporaries.
        workspace_lower_bound_bytes: no plan of this order of operators can take less.
        weights_bytes: of constants in the code.
        model_weights_bytes: of constants in the model file.
        macs_nominal, macs_executed: multiply-accumulates of one inference, as the model states them
            and as the code executes them.
        operators: in the order they run.
    """

    compiler_version: str
    tvm_version: str
    opt_level: int
    core: str
    codegen: str
    executor: str
    entry: str
    header: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    workspace_bytes: int
    workspace_lower_bound_bytes: int
    weights_bytes: int
    model_weights_bytes: int
    macs_nominal: int
    macs_executed: int
    operators: tuple[Operator, ...]
    model_sha256: str = ""
    io_in_workspace: bool = False

    @property
    def input_bytes(self) -> int:
        """Bytes of all inputs of one inference."""
        return sum(port.bytes for port in self.inputs)

    @property
    def output_bytes(self) -> int:
        """Bytes of all outputs of one inference."""
        return sum(port.bytes for port in self.outputs)

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Self:
        """Read an entry that fits the schema; keys nobody here knows are left out."""
        values = _known(cls, entry)
        for key, kind in (("inputs", Port), ("outputs", Port), ("operators", Operator)):
            values[key] = tuple(
                kind(**_known(kind, {**part, "shape": tuple(part["shape"])})) for part in entry[key]
            )
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """The entry; a port has the key ``workspace_offset`` if it lies in the workspace."""
        entry = dataclasses.asdict(self)
        for port in (*entry["inputs"], *entry["outputs"]):
            if port["workspace_offset"] is None:
                del port["workspace_offset"]
        return entry


def _known(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: value for name, value in values.items() if name in names}
