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


@drawing
def gather(drawer: Drawer) -> Case:
    """Constant positions of any rank, the same for all or of each batch."""
    shape = drawer.shape(drawer.integer(1, 4), 4)
    axis = drawer.integer(0, len(shape) - 1)
    batch = drawer.choice(0, 0, drawer.integer(0, axis))
    x, chosen = drawer.spec(shape), (*shape[:batch], *drawer.shape(drawer.integer(0, 2), 4))
    y = like(x, (*shape[:axis], *chosen[batch:], *shape[axis + 1 :]))
    dtype = drawer.choice("int32", "int64", "int16")
    positions = drawer.graph.constant(drawer.random.integers(0, shape[axis], chosen).astype(dtype))
    axis, tensors = signed(drawer, axis, len(shape)), [drawer.input(x), positions]
    result = drawer.graph.op("GATHER", tensors, y, axis=axis, batch_dims=batch)
    return drawer.case("GATHER", result)


@drawing
def broadcast_to(drawer: Drawer) -> Case:
    shape = drawer.shape(drawer.integer(0, 5), 4)
    narrow = [drawer.choice(1, extent) for extent in shape]
    x = drawer.spec(tuple(narrow[drawer.integer(0, len(shape)) :]))
    tensors = [drawer.input(x), numbers(drawer, shape)]
    return drawer.case("BROADCAST_TO", drawer.graph.op("BROADCAST_TO", tensors, like(x, shape)))


@drawing
def fill(drawer: Drawer) -> Case:
    x, shape = drawer.spec(()), drawer.shape(drawer.integer(0, 5), 4)
    tensors = [numbers(drawer, shape), drawer.input(x)]
    return drawer.case("FILL", drawer.graph.op("FILL", tensors, like(x, shape)))


@drawing
def tile(drawer: Drawer) -> Case:
    x = drawer.spec(drawer.shape(drawer.integer(0, 4), 4))
    times = drawer.shape(len(x.shape), 3)
    y = like(x, tuple(a * b for a, b in zip(x.shape, times, strict=True)))
    return drawer.case(
        "TILE", drawer.graph.op("TILE", [drawer.input(x), numbers(drawer, times)], y)
    )


def blocks(op: str) -> Callable[[str], st.SearchStrategy[Case]]:
    """SPACE_TO_DEPTH or DEPTH_TO_SPACE."""

    @drawing
    def strategy(drawer: Drawer) -> Case:
        (n, height, width, channels), block = drawer.shape(4, 3), drawer.integer(1, 3)
        space = n, height * block, width * block, channels
        depth = n, height, width, channels * block * block
        source, result = (space, depth) if op == "SPACE_TO_DEPTH" else (depth, space)
        x = drawer.spec(source)
        y = like(x, result)
        return drawer.case(op, drawer.graph.op(op, [drawer.input(x)], y, block_size=block))

    return strategy


def batches(op: str) -> Callable[[str], st.SearchStrategy[Case]]:
    """SPACE_TO_BATCH_ND or BATCH_TO_SPACE_ND of images or rows."""

    @drawing
    def strategy(drawer: Drawer) -> Case:
        count = drawer.integer(1, 2)
        n, channels = drawer.integer(1, 2), drawer.integer(1, 4)
        sizes, block = drawer.shape(count, 3), drawer.shape(count, 3)
        whole = [size * b for size, b in zip(sizes, block, strict=True)]
        before = [drawer.integer(0, size - 1) for size in whole]
        after = [drawer.integer(0, size - 1 - b) for size, b in zip(whole, before, strict=True)]
        inner = (w - b - a for w, b, a in zip(whole, before, after, strict=True))
        space = n, *inner, channels
        batch = n * int(np.prod(block)), *sizes, channels
        source, result = (space, batch) if op == "SPACE_TO_BATCH_ND" else (batch, space)
        x = drawer.spec(source)
        widths = list(zip(before, after, strict=True))
        tensors = [drawer.input(x), drawer.indices(block), drawer.indices(widths)]
        return drawer.case(op, drawer.graph.op(op, tensors, like(x, result)))

    return strategy


@drawing
def mirror_pad(drawer: Drawer) -> Case:
    x = drawer.spec(drawer.shape(drawer.integer(1, 4), 4))
    mode = drawer.choice("REFLECT", "SYMMETRIC")
    most = [extent - (mode == "REFLECT") for extent in x.shape]
    widths = [(drawer.integer(0, size), drawer.integer(0, size)) for size in most]
    y = like(x, tuple(extent + sum(pair) for extent, pair in zip(x.shape, widths, strict=True)))
    tensors = [drawer.input(x), numbers(drawer, widths)]
    return drawer.case("MIRROR_PAD", drawer.graph.op("MIRROR_PAD", tensors, y, mode=mode))


BLOCK_TYPES = ("int8", "uint8", "float32", "int32", "int64")
OPERATORS: dict[str, tuple[Callable[[str], st.SearchStrategy[Case]], tuple[str, ...]]] = {
    "BATCH_TO_SPACE_ND": (batches("BATCH_TO_SPACE_ND"), MOVED_TYPES),
    "BROADCAST_TO": (broadcast_to, MOVED_TYPES),
    "DEPTH_TO_SPACE": (blocks("DEPTH_TO_SPACE"), BLOCK_TYPES),
    "EXPAND_DIMS": (expand_dims, MOVED_TYPES),
    "FILL": (fill, MOVED_TYPES),
    "GATHER": (gather, MOVED_TYPES),
    "MIRROR_PAD": (mirror_pad, MOVED_TYPES),
    "SLICE": (slice_, MOVED_TYPES),
    "SPACE_TO_BATCH_ND": (batches("SPACE_TO_BATCH_ND"), MOVED_TYPES),
    "SPACE_TO_DEPTH": (blocks("SPACE_TO_DEPTH"), BLOCK_TYPES),
    "SPLIT_V": (split_v, MOVED_TYPES[:-1]),
    "TILE": (tile, MOVED_TYPES),
    "UNPACK": (unpack, tuple(dtype for dtype in MOVED_TYPES if dtype != "int64")),
}
"""As ``strategies.OPERATORS``."""
