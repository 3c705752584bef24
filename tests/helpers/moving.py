"""Strategies of operators that move or choose elements."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st

from helpers.drawer import Case, Drawer, drawing, like
from helpers.tflite_graphs import Tensor

MOVED_TYPES = ("int8", "uint8", "float32", "int16", "int32", "int64", "bool")


def numbers(drawer: Drawer, values) -> Tensor:
    """A constant of axes or extents, of either type."""
    return drawer.graph.constant(np.array(values, drawer.choice("int32", "int32", "int64")))


def signed(drawer: Drawer, axis: int, rank: int) -> int:
    """An axis, counted from either end."""
    return drawer.choice(axis, axis - rank)


@drawing
def unpack(drawer: Drawer) -> Case:
    shape = drawer.shape(drawer.integer(1, 5), 4)
    axis = drawer.integer(0, len(shape) - 1)
    x, count = drawer.spec(shape), shape[axis]
    y = like(x, shape[:axis] + shape[axis + 1 :])
    axis = signed(drawer, axis, len(shape))
    parts = drawer.graph.op("UNPACK", [drawer.input(x)], *[y] * count, num=count, axis=axis)
    return drawer.case("UNPACK", *(parts if count > 1 else [parts]))


@drawing
def split_v(drawer: Drawer) -> Case:
    """Sizes of parts, of which one may be left to be found."""
    shape = drawer.shape(drawer.integer(1, 5), 4)
    axis, sizes = drawer.integer(0, len(shape) - 1), list(drawer.shape(drawer.integer(1, 4), 3))
    x = drawer.spec((*shape[:axis], sum(sizes), *shape[axis + 1 :]))
    parts = [like(x, (*shape[:axis], size, *shape[axis + 1 :])) for size in sizes]
    if drawer.choice(True, False):
        sizes[drawer.integer(0, len(sizes) - 1)] = -1
    position = drawer.indices(signed(drawer, axis, len(shape)))
    tensors = [drawer.input(x), numbers(drawer, sizes), position]
    results = drawer.graph.op("SPLIT_V", tensors, *parts, num_splits=len(sizes))
    return drawer.case("SPLIT_V", *(results if len(sizes) > 1 else [results]))


@drawing
def slice_(drawer: Drawer) -> Case:
    x = drawer.spec(drawer.shape(drawer.integer(1, 5), 5))
    begin = [drawer.integer(0, extent - 1) for extent in x.shape]
    size = [drawer.integer(1, extent - b) for extent, b in zip(x.shape, begin, strict=True)]
    y = like(x, tuple(size))
    for axis, extent in enumerate(x.shape):
        if begin[axis] + size[axis] == extent and drawer.choice(True, False):
            size[axis] = -1
    dtype = drawer.choice("int32", "int64")
    bounds = [drawer.graph.constant(np.array(values, dtype)) for values in (begin, size)]
    return drawer.case("SLICE", drawer.graph.op("SLICE", [drawer.input(x), *bounds], y))


@drawing
def expand_dims(drawer: Drawer) -> Case:
    x = drawer.spec(drawer.shape(drawer.integer(0, 4), 4))
    axis = drawer.integer(0, len(x.shape))
    y = like(x, (*x.shape[:axis], 1, *x.shape[axis:]))
    position = numbers(drawer, signed(drawer, axis, len(x.shape) + 1))
    result = drawer.graph.op("EXPAND_DIMS", [drawer.input(x), position], y)
    return drawer.case("EXPAND_DIMS", result)


OPERATORS: dict[str, tuple[Callable[[str], st.SearchStrategy[Case]], tuple[str, ...]]] = {
    "EXPAND_DIMS": (expand_dims, MOVED_TYPES),
    "SLICE": (slice_, MOVED_TYPES),
    "SPLIT_V": (split_v, MOVED_TYPES[:-1]),
    "UNPACK": (unpack, tuple(dtype for dtype in MOVED_TYPES if dtype != "int64")),
}
"""As ``strategies.OPERATORS``."""
