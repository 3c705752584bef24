"""What the rest of the pipeline knows of a model, whatever its format."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tensor:
    """An input or output of a model.

    Attributes:
        name: as in the model.
        shape: static, batch included.
        dtype: numpy's name of the element type.
        scale, zero_point: real value = scale * (q - zero_point); None for unquantized tensors.
        bytes: size of the tensor.
        range: for a float input that is quantized first thing, the real values its
            quantization can tell apart; else None.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None
    zero_point: int | None
    bytes: int
    range: tuple[float, float] | None = None


@dataclass(frozen=True)
class Operator:
    """One node: its index, TFLite's operator name, its first output's name, its MACs."""

    index: int
    op: str
    output: str
    macs: int

    @property
    def where(self) -> str:
        """Where it is, as every message about it begins."""
        return f"operator {self.op} (operator {self.index}, output tensor '{self.output}')"


@dataclass(frozen=True)
class Description:
    """The facts of one model that the rest of the pipeline uses.

    `macs` counts one inference: convolutions (depthwise, transposed) and fully connected layers,
    as if no operand were padding and no weight zero. `weights_bytes` is the size of all constants.
    """

    name: str
    sha256: str
    bytes: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    macs: int
    weights_bytes: int

    @property
    def input_bytes(self) -> int:
        """Bytes of all inputs of one inference."""
        return sum(tensor.bytes for tensor in self.inputs)

    @property
    def output_bytes(self) -> int:
        """Bytes of all outputs of one inference."""
        return sum(tensor.bytes for tensor in self.outputs)
