"""Draws the pieces of small TFLite graphs, and inputs for them.

Shapes, options and scales are drawn by hypothesis, so failures shrink; tensor values come from a
drawn seed and a drawn kind (anything, only extremes, near the zero point, constant).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st

from helpers.tflite_graphs import Graph, Spec, Tensor

INTEGER_TYPES = ("int8", "uint8")
QUANTIZED_TYPES = (*INTEGER_TYPES, "int16")


@dataclass(frozen=True)
class Case:
    """A model and inputs for it; shown as the text of the graph."""

    op: str
    model: bytes = field(repr=False)
    inputs: tuple[np.ndarray, ...]
    graph: Graph


class Drawer:
    """Draws the pieces of a graph; keeps the graph and its inputs."""

    def __init__(self, draw: Callable, dtype: str) -> None:
        self.draw = draw
        self.dtype = dtype
        self.graph = Graph()
        self.inputs: list[np.ndarray] = []
        self.random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def integer(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def choice(self, *options):
        return self.draw(st.sampled_from(options))

    def shape(self, rank: int, largest: int = 5) -> tuple[int, ...]:
        return tuple(self.integer(1, largest) for _ in range(rank))

    def channels(self) -> int:
        """Few channels, or about as many as fill a vector register or two."""
        return self.draw(st.one_of(st.integers(1, 6), st.sampled_from([8, 16, 17, 32])))

    def scale(self, low: float = 2**-9, high: float = 2.0) -> float:
        """A float32 scale: any, or one that makes exact halves likely."""
        if self.choice(True, False):
            return float(np.float32(self.draw(st.floats(low, high, width=32))))
        exponents = np.log2([low, high])
        exponent = self.integer(int(np.ceil(exponents[0])), int(np.floor(exponents[1])))
        return float(np.float32(2.0**exponent * self.choice(1, 0.75, 1.25)))

    def near(self, target: float) -> float:
        """A float32 scale between a quarter and four times `target`, or exactly that.

        Kept where TFLite's own arithmetic does not overflow, however many operators in a row.
        """
        factor = self.choice(1.0, 0.25, 0.5, 2.0, 4.0, 0.0)
        target *= factor or self.draw(st.floats(0.25, 4.0))
        return float(np.clip(np.float32(target), np.float32(2**-14), np.float32(2**12)))

    def zero_point(self) -> int:
        if self.dtype == "int16":
            return 0
        low, high = np.iinfo(self.dtype).min, np.iinfo(self.dtype).max
        return self.choice(low, high, 0) if self.choice(True, False) else self.integer(low, high)

    def spec(self, shape: tuple[int, ...], scale: float | None = None) -> Spec:
        """Activations of this graph's type; the scale is drawn if not given."""
        if self.dtype not in QUANTIZED_TYPES:
            return Spec(shape, self.dtype)
        scale = self.scale() if scale is None else scale
        return Spec(shape, self.dtype, scale, self.zero_point())

    def values(self, shape: tuple[int, ...], dtype: str | None = None, zero: int = 0) -> np.ndarray:
        dtype = dtype or self.dtype
        if dtype == "float32":
            return self.random.standard_normal(shape).astype(np.float32)
        if dtype == "bool":
            return self.random.integers(0, 2, shape).astype(bool)
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        match self.choice("any", "any", "extremes", "near", "constant"):
            case "any":
                values = self.random.integers(low, high, shape, dtype, endpoint=True)
            case "extremes":
                values = self.random.choice([low, high], shape)
            case "near":
                values = zero + self.random.integers(-4, 5, shape)
            case "constant":
                values = np.full(shape, self.integer(low, high))
        return np.clip(values, low, high).astype(dtype)

    def input(self, spec: Spec) -> Tensor:
        values = self.values(spec.shape, spec.dtype, int(spec.zero_point))
        if spec.dtype == "float32":
            values *= self.choice(1, 4)
        self.inputs.append(values)
        return self.graph.input(spec)

    def constant(self, spec: Spec) -> Tensor:
        values = self.values(spec.shape, spec.dtype, int(np.max(spec.zero_point)))
        return self.graph.constant(values, spec.scale, spec.zero_point, spec.axis)

    def indices(self, values) -> Tensor:
        return self.graph.constant(np.int32(values))

    def case(self, op: str, *outputs: Tensor) -> Case:
        return Case(op, self.graph.build(*outputs), tuple(self.inputs), self.graph)


def drawing(function: Callable[[Drawer], Case]) -> Callable[[str], st.SearchStrategy[Case]]:
    """Makes a function that draws with a Drawer a function from the data type to a strategy."""

    def strategy(dtype: str) -> st.SearchStrategy[Case]:
        return st.composite(lambda draw: function(Drawer(draw, dtype)))()

    return strategy


def like(spec: Spec, shape: tuple[int, ...]) -> Spec:
    return Spec(shape, spec.dtype, spec.scale, spec.zero_point)
