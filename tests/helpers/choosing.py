"""Strategies of operators that compare, choose and convert elements."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st

from helpers.drawer import Case, Drawer, drawing, like
from helpers.moving import MOVED_TYPES
from helpers.tflite_graphs import Spec


def alike(op: str) -> Callable[[str], st.SearchStrategy[Case]]:
    """An operator of one tensor whose result is like it."""

    @drawing
    def strategy(drawer: Drawer) -> Case:
        x = drawer.spec(drawer.shape(drawer.integer(0, 4), 4))
        return drawer.case(op, drawer.graph.op(op, [drawer.input(x)], x))

    return strategy


def compared(op: str) -> Callable[[str], st.SearchStrategy[Case]]:
    """An operator of two tensors that broadcast, whose result is true or false."""

    @drawing
    def strategy(drawer: Drawer) -> Case:
        shape = drawer.shape(drawer.integer(0, 4), 4)
        other = tuple(drawer.choice(extent, extent, 1) for extent in shape)
        a, b = drawer.spec(shape, drawer.scale(2**-9, 0.9375)), drawer.spec(other)
        if a.scale is not None:
            b = Spec(other, a.dtype, drawer.choice(a.scale, drawer.scale(2**-9, 0.9375)), 0)
        tensors = [drawer.input(a), drawer.choice(drawer.input, drawer.constant)(b)]
        return drawer.case(op, drawer.graph.op(op, tensors, Spec(shape, "bool")))

    return strategy


@drawing
def cast(drawer: Drawer) -> Case:
    x = drawer.spec(drawer.shape(drawer.integer(0, 4), 4))
    tensor = drawer.input(x)
    if drawer.dtype == "float32" and drawer.choice(True, False):
        drawer.inputs[0] = (drawer.inputs[0] * 1e10).astype(np.float32)
    y = Spec(x.shape, drawer.choice(*MOVED_TYPES))
    return drawer.case("CAST", drawer.graph.op("CAST", [tensor], y))


@drawing
def select(drawer: Drawer) -> Case:
    """Of the first dimension's parts, or of elements."""
    x = drawer.spec(drawer.shape(drawer.integer(1, 4), 4))
    condition = Spec(drawer.choice(x.shape, x.shape[:1]), "bool")
    tensors = [drawer.input(condition), drawer.input(x), drawer.input(x)]
    return drawer.case("SELECT", drawer.graph.op("SELECT", tensors, x))


@drawing
def select_v2(drawer: Drawer) -> Case:
    """Three tensors that broadcast."""
    y = drawer.spec(drawer.shape(drawer.integer(0, 4), 4))
    other = tuple(drawer.choice(1, extent) for extent in y.shape)
    shapes = drawer.draw(st.permutations([y.shape, other, drawer.choice(y.shape, ())]))
    specs = [Spec(shapes[0], "bool"), like(y, shapes[1]), like(y, shapes[2])]
    tensors = [drawer.input(spec) for spec in specs]
    return drawer.case("SELECT_V2", drawer.graph.op("SELECT_V2", tensors, y))


COMPARED_TYPES = ("int8", "uint8", "float32", "int32", "int64")
OPERATORS: dict[str, tuple[Callable[[str], st.SearchStrategy[Case]], tuple[str, ...]]] = {
    "CAST": (cast, MOVED_TYPES),
    "EQUAL": (compared("EQUAL"), (*COMPARED_TYPES, "bool")),
    "FLOOR": (alike("FLOOR"), ("float32",)),
    "GREATER": (compared("GREATER"), COMPARED_TYPES),
    "GREATER_EQUAL": (compared("GREATER_EQUAL"), COMPARED_TYPES),
    "LESS": (compared("LESS"), COMPARED_TYPES),
    "LESS_EQUAL": (compared("LESS_EQUAL"), COMPARED_TYPES),
    "LOGICAL_AND": (compared("LOGICAL_AND"), ("bool",)),
    "LOGICAL_NOT": (alike("LOGICAL_NOT"), ("bool",)),
    "LOGICAL_OR": (compared("LOGICAL_OR"), ("bool",)),
    "NEG": (alike("NEG"), ("int8", "float32", "int16")),
    "NOT_EQUAL": (compared("NOT_EQUAL"), (*COMPARED_TYPES, "bool")),
    "SELECT": (select, MOVED_TYPES),
    "SELECT_V2": (select_v2, MOVED_TYPES),
}
"""As ``strategies.OPERATORS``."""
