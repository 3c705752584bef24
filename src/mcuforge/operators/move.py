"""Operators that move elements without looking at them: any type.

A result is put together of *pieces*. A piece copies elements of one operand, or fills with a value,
over a box of up to any number of dimensions. Along each dimension the place in the result advances
by a step, and the place in the operand by a step, or as a table says. Of a concatenation of two
images (16, 16, 15) and (16, 16, 17) along the channels, the second piece is

    Piece(1, source=0, result=15, box=(Dim(16, 272, 512), Dim(16, 17, 32), Dim(17, 1, 1)))

and ``normal`` makes (Dim(256, 17, 32), Dim(17, 1, 1)) of its box: 256 runs of 17 elements.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
from tvm import ir, relax, tirx

from mcuforge.tir.function import Function, address, copy_bytes
from mcuforge.tir.integer_op import integer_op
from mcuforge.tir.registry import Kernel, Operation, kernel

FILL = -1
"""The operand of a piece that is filled."""


@dataclass(frozen=True)
class Dim:
    """A dimension of a piece's box.

    Attributes:
        extent: number of positions.
        source: step in the operand, or where in the operand each position is.
        result: step in the result.
    """

    extent: int
    source: int | tuple[int, ...]
    result: int


@dataclass(frozen=True)
class Piece:
    """A part of a result: see the module.

    Attributes:
        operand: which operand is copied, or FILL.
        source: first element in the operand.
        result: first element in the result.
        box: dimensions, the innermost last.
    """

    operand: int
    source: int
    result: int
    box: tuple[Dim, ...]

    def normal(self) -> "Piece":
        """The same piece with the fewest dimensions, and tables only where they are needed."""
        source, box = self.source, []
        for dim in self.box:
            start, parts = _factors(dim)
            source += start
            for part in parts:
                if part.extent > 1 or isinstance(part.source, tuple):
                    _append(box, part)
        return Piece(self.operand, source, self.result, tuple(box))


def _append(box: list[Dim], dim: Dim) -> None:
    """Adds an inner dimension, to the last one where the two are one."""
    if box and not (isinstance(box[-1].source, tuple) or isinstance(dim.source, tuple)):
        outer = box[-1]
        steps = dim.extent * dim.source, dim.extent * dim.result
        if (outer.source, outer.result) == steps:
            box[-1] = Dim(outer.extent * dim.extent, dim.source, dim.result)
            return
    box.append(dim)


def _factors(dim: Dim) -> tuple[int, list[Dim]]:
    """A dimension without its table, where that is possible: a start in the operand, and steps.

    The table 4 4 5 5 6 6 starts at 4, and is three steps of 1, each of them two steps of 0.
    """
    if not isinstance(dim.source, tuple):
        return 0, [dim]
    table = np.array(dim.source)
    for inner in (n for n in range(dim.extent, 0, -1) if dim.extent % n == 0):
        grid = table.reshape(-1, inner)
        sums = grid[:, :1] + grid[:1] - table[0]
        steps = [np.unique(np.diff(part)) for part in (grid[:, 0], grid[0])]
        if np.array_equal(grid, sums) and all(step.size < 2 for step in steps):
            outer, step = (int(step.sum()) for step in steps)
            parts = [
                Dim(dim.extent // inner, outer, dim.result * inner),
                Dim(inner, step, dim.result),
            ]
            return int(table[0]), parts
    return 0, [dim]


move = integer_op("move", lambda _shapes, attrs: (attrs["shape"], attrs["dtype"]))
"""``move(*operands, **attrs)``: a result made of pieces.

Attrs: pieces (operand, source, result, box of (extent, source, result); as in ``Piece``), value
(what is filled with), shape, dtype.
"""


def moved(
    operands: Sequence[relax.Expr],
    pieces: Sequence[Piece],
    shape: Sequence[int],
    dtype: str,
    value: float = 0,
) -> relax.Call:
    """The call of ``move`` for pieces."""
    whole = [piece.normal() for piece in pieces if all(dim.extent for dim in piece.box)]
    plain = [
        [p.operand, p.source, p.result, [[d.extent, d.source, d.result] for d in p.box]]
        for p in whole
    ]
    return move(*operands, pieces=plain, value=value, shape=[int(s) for s in shape], dtype=dtype)


def pieces(operation: Operation) -> list[Piece]:
    """The pieces of a ``move``."""
    return [
        Piece(operand, source, result, tuple(Dim(*dim) for dim in box))
        for operand, source, result, box in operation.attrs["pieces"]
    ]


@dataclass(frozen=True)
class Runs:
    """What is innermost in a piece: runs of adjacent elements.

    Attributes:
        count: number of runs.
        source: elements from a run to the next in the operand.
        result: the same in the result.
        times: how often each run is written.
        again: elements from where a run is written to where it is written again.
        length: elements of a run.
        dims: how many of the piece's dimensions all of this takes.
    """

    count: int
    source: int
    result: int
    times: int
    again: int
    length: int
    dims: int


class Moves:
    """A kernel of a ``move`` under construction."""

    def __init__(self, operation: Operation) -> None:
        """Declares the parameters."""
        self.function = f = Function("move")
        self.dtype = operation.out.dtype
        self.itemsize = np.dtype(self.dtype).itemsize
        value = np.dtype(self.dtype).type(operation.attrs["value"])
        self.value = tirx.const(value.item(), self.dtype)
        self.pattern = value.tobytes()
        self.pieces = pieces(operation)
        self.operands = [
            f.param("x", math.prod(operand.shape), operand.dtype) for operand in operation.args
        ]
        self._tables = {
            dim: f.constant("places", np.array(dim.source, np.int32))
            for dim in dict.fromkeys(d for p in self.pieces for d in p.box)
            if isinstance(dim.source, tuple)
        }
        self.result = f.param("y", math.prod(operation.out.shape), self.dtype)

    def done(self) -> Kernel:
        """The finished kernel."""
        func = self.function.done()
        return Kernel(func, (*range(len(self.operands)), *self.function.constants))

    @contextmanager
    def places(self, piece: Piece, inner: int) -> Iterator[tuple[ir.Expr | int, ir.Expr | int]]:
        """Loops over all but the ``inner`` innermost dimensions; gives the places in x and y."""
        source, result = piece.source, piece.result
        with ExitStack() as loops:
            for dim in piece.box[: len(piece.box) - inner]:
                i = loops.enter_context(self.function.loop("i", dim.extent))
                table = self._tables.get(dim)
                source = source + (i * dim.source if table is None else table[i])
                result = result + i * dim.result
            yield source, result

    def elements(self, piece: Piece) -> None:
        """Moves a piece element by element."""
        with self.places(piece, 0) as (source, result):
            value = self.value
            if piece.operand != FILL:
                value = self.operands[piece.operand][source]
            self.function.store(self.result, result, value)


def run(piece: Piece) -> Runs | None:
    """One run of a piece; None: neighbours in its result are none in the operand."""
    last = piece.box[-1] if piece.box else Dim(1, 0, 0)
    if (last.source, last.result) == (1, 1):
        return Runs(1, 0, 0, 1, 0, last.extent, 1)
    return None if piece.box and piece.operand != FILL else Runs(1, 0, 0, 1, 0, 1, 0)


def runs(piece: Piece) -> Runs | None:
    """All that is innermost in a piece; None as for ``run``."""
    one = run(piece)
    if one is None:
        return None
    box = list(piece.box[: len(piece.box) - one.dims])
    times = box.pop() if box and box[-1].source == 0 else Dim(1, 0, 0)
    rows = box.pop() if box and not isinstance(box[-1].source, tuple) else Dim(1, 0, 0)
    dims = len(piece.box) - len(box)
    return Runs(rows.extent, rows.source, rows.result, times.extent, times.result, one.length, dims)


# An operator of the model itself at every level: it only copies.
@kernel("move", opt_level=0)
def _move(operation: Operation) -> Kernel:
    moves = Moves(operation)
    for piece in moves.pieces:
        copy(moves, piece)
    return moves.done()


def copy(moves: Moves, piece: Piece) -> None:
    """Moves a piece with C's ``memcpy`` where that takes less than a loop over its elements."""
    f = moves.function
    found = run(piece)
    if piece.operand == FILL or found is None or found.length == 1:
        moves.elements(piece)
        return
    with moves.places(piece, found.dims) as (source, result):
        to, at = address(moves.result, result), address(moves.operands[piece.operand], source)
        f.do(copy_bytes(to, at, found.length * moves.itemsize))
