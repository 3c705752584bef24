"""Convolutions and fully connected layers for cores without SIMD, as blocked matrix products.

A block of P pixels and O output channels keeps its P * O sums in registers. For each input it loads
P values and O weights and needs P * O multiplications: 4 x 4 sums take 8 loads for 16 products,
where one sum at a time takes 32. Weights are stored in the order in which blocks read them: of
eight channels in blocks of four, all inputs of channels 0 to 3 come first, input by input.

Where windows are larger than a pixel, the part of the image under a block's pixels is copied, with
the zero point where it is outside, so that neighbours share what they copy and no sum checks
bounds. Without padding the block reads the image itself. A last block that would be incomplete
starts earlier and computes some outputs again.
"""

import math
from dataclasses import dataclass

import numpy as np
from tvm import ir, tirx
from tvm.tirx.script import builder as T

from mcuforge.isa.opaque import opaque
from mcuforge.kernels.requantize import is_int8
from mcuforge.kernels.scalar.requantize import BETTER, IN_ORDER, Requantizer, requantizer
from mcuforge.tir import inplace
from mcuforge.tir.function import Function, Variable, lesser
from mcuforge.tir.geometry import NOWHERE, Axis, Geometry
from mcuforge.tir.registry import Kernel, Operation, kernel

# Measured thresholds: instructions an inference, gcc 12 and clang 19, -O3, on an emulated
# Cortex-M3, which has 13 registers, and RV32IMC, which has 31.
#
# Sums that fit the registers, beside P inputs, a weight and the addresses. A pointwise convolution
# of 25x5x64 to 64 channels takes 1,424,284 and 1,253,027 on the Cortex-M3 with 4 sums, 1,241,204
# and 1,440,116 with 6, 1,193,695 and 1,613,891 with 8: the compilers disagree, and 6 is between. On
# RV32IMC it takes 1,524,684 and 1,505,803 with 12, 1,502,013 and 1,466,346 with 16, 1,657,698 and
# 1,678,426 with 20.
_FEW, _MANY = 6, 16
# Pixels or channels of a block at most. A dense layer of 640 to 128 takes 298,919 and 299,553 on
# RV32IMC with 4, 273,244 and 274,101 with 8, 263,298 and 261,454 with 16, whose blocks are twice as
# long. On the Cortex-M3 no block has more than 6.
_MOST = 8
# Inputs in a turn of the inner loop. The pointwise convolution takes 1,317,895 and 1,708,874 on the
# Cortex-M3 with 1, 1,241,204 and 1,440,116 with 2, 1,156,532 and 1,440,116 with 4; on RV32IMC
# 1,522,653 and 1,515,564, 1,502,013 and 1,466,346, 1,518,589 and 1,664,490.
_UNROLL = 2


@kernel("conv2d", opt_level=3, unless=BETTER | {"registers"})
def _conv2d(operation: Operation) -> Kernel | None:
    return _convolution(operation, _FEW)


@kernel("conv2d", opt_level=3, needs={"registers"}, unless=BETTER)
def _conv2d_many(operation: Operation) -> Kernel | None:
    return _convolution(operation, _MANY)


@kernel("fully_connected", opt_level=3, unless=BETTER | {"registers"})
def _fully_connected(operation: Operation) -> Kernel | None:
    return _matrix(operation, _FEW)


@kernel("fully_connected", opt_level=3, needs={"registers"}, unless=BETTER)
def _fully_connected_many(operation: Operation) -> Kernel | None:
    return _matrix(operation, _MANY)


def _matrix(operation: Operation, sums: int) -> Kernel | None:
    """A fully connected layer: a pointwise convolution of its rows."""
    outputs, inputs = operation.args[1].shape
    rows = math.prod(operation.out.shape) // outputs
    return _kernel(operation, Geometry(1, Axis(1), Axis(rows), inputs, outputs), sums)


def _convolution(operation: Operation, sums: int) -> Kernel | None:
    g = operation.geometry
    if g.pointwise:
        g = g.flattened()
    if g.groups != 1 or g.batch != 1 or g.dilated:
        return None
    return _kernel(operation, g, sums)


@dataclass(frozen=True)
class _Block:
    """Pixels and output channels computed together.

    Attributes:
        pixels, outputs: how many of each.
        down: whether the pixels are in a column of the image and not in a row.
    """

    pixels: int
    outputs: int
    down: bool

    def cost(self, g: Geometry) -> int:
        """Instructions of a layer, roughly."""
        across, along = (g.columns, g.rows) if self.down else (g.rows, g.columns)
        groups = across.out * -(-along.out // self.pixels)
        inputs = g.taps * g.channels
        made = self.pixels * self.outputs
        block = inputs * (self.pixels + self.outputs + 2 * made + 1) + 12 * made + 20
        gathered = 3 * inputs * self.pixels
        return groups * (-(-g.outputs // self.outputs) * block + gathered)


def _choose(g: Geometry, sums: int) -> _Block:
    """The block with which a layer takes the fewest instructions."""
    blocks = (
        _Block(pixels, outputs, down)
        for down in (False, True)
        for pixels in range(1, min((g.rows if down else g.columns).out, _MOST, sums) + 1)
        for outputs in range(1, min(g.outputs, sums // pixels, _MOST) + 1)
    )
    return min(blocks, key=lambda block: block.cost(g))


def _kernel(operation: Operation, g: Geometry, sums: int) -> Kernel | None:
    if not is_int8(operation):
        return None
    weight = operation.args[1].value
    exact = requantizer(operation, weight)
    if exact is None:
        return None
    block = _choose(g, sums)
    f = Function(operation.name)
    x = f.param("x", math.prod(g.shape))
    weights = f.constant("weight", _packed(weight, exact.constants, block.outputs))
    layer = _Layer(f, g, block, exact, x, weights, exact.parameters(f))
    y = f.param("y", math.prod(g.out_shape))
    layer.write(y, operation.attrs["input_zero_point"])
    kept = {0: layer.distance()} if operation.name == "conv2d" else {}
    return Kernel(f.done(), (0, *f.constants), kept, IN_ORDER)


def _packed(weight: np.ndarray, constants: np.ndarray, together: int) -> np.ndarray:
    """Weights (o, ...) by block, input and channel in the block: flat int8."""
    rows = np.where(constants[:, np.newaxis], 0, weight.reshape(len(weight), -1))
    starts = inplace.group_starts(len(rows), together)
    blocks = [rows[start : start + together].T.reshape(-1) for start in starts]
    return np.concatenate(blocks).astype(np.int8)


@dataclass(frozen=True)
class _Layer:
    """A layer that is being written."""

    f: Function
    g: Geometry
    block: _Block
    exact: Requantizer
    x: tirx.Var
    weights: tirx.Var
    parameters: list[tirx.Var]

    @property
    def along(self) -> Axis:
        """The direction in which a block's pixels lie."""
        return self.g.rows if self.block.down else self.g.columns

    @property
    def _across(self) -> Axis:
        return self.g.columns if self.block.down else self.g.rows

    @property
    def _reach(self) -> tuple[int, int]:
        """Rows and columns of the image under a block."""
        long = (self.block.pixels - 1) * self.along.stride + self.along.window
        if self.block.down:
            return long, self.g.columns.window
        return self.g.rows.window, long

    def write(self, y: tirx.Var, zero_point: int) -> None:
        """Writes the loops over pixels and blocks of channels."""
        f, g, block, along = self.f, self.g, self.block, self.along
        copied = math.prod(self._reach) * g.channels
        patch = f.scratch("patch", copied) if g.padded else None
        groups = -(-along.out // block.pixels)
        with f.loop("across", self._across.out) as across, f.loop("group", groups) as group:
            first = self._start(group, along.out, block.pixels)
            row, column = (first, across) if block.down else (across, first)
            top, left = row * g.rows.stride, column * g.columns.stride
            if patch is None:
                source, pitch = self.x, g.columns.size * g.channels
                base = f.let("base", (top * g.columns.size + left) * g.channels)
            else:
                source, base, pitch = patch, T.int32(0), self._reach[1] * g.channels
                self._copy(patch, top - g.rows.before, left - g.columns.before, zero_point)
            pixel = f.let("pixel", (row * g.columns.out + column) * g.outputs)
            with f.loop("block", -(-g.outputs // block.outputs)) as number:
                self._block(y, source, base, pitch, pixel, number)

    def distance(self) -> int:
        """How far below the input the result must start: see ``tir.inplace``."""
        g, block = self.g, self.block
        pixels = np.arange(g.pixels).reshape(g.rows.out, g.columns.out)
        order = pixels.T if block.down else pixels
        starts = inplace.group_starts(order.shape[1], block.pixels)
        steps = np.concatenate([order[:, s : s + block.pixels] for s in starts], axis=1)
        steps = steps.reshape(-1, block.pixels)
        firsts = g.first_pixels().reshape(-1)[steps].min(axis=1)
        first_read = np.where(firsts == NOWHERE, NOWHERE, firsts * g.channels)
        written = (steps.max(axis=1) + 1) * g.outputs
        return inplace.distance(first_read, written, together=0 if g.padded else 1)

    def _start(self, number: ir.Expr, size: int, together: int) -> ir.Expr:
        """The first of a group; the last group ends with the last element."""
        start = number * together
        return lesser(start, size - together) if size % together else start

    def _copy(self, patch: tirx.Var, top: ir.Expr, left: ir.Expr, zero_point: int) -> None:
        """Copies what lies under a block, the first tap of its first window at (top, left)."""
        f, g = self.f, self.g
        rows, columns = self._reach
        top, left = f.let("top", top), f.let("left", left)
        with f.loop("i", rows) as i:
            target, row = i * (columns * g.channels), f.let("row", top + i)
            source = f.let("source", (row * g.columns.size + left) * g.channels)

            def move(first: ir.Expr | int, count: int) -> None:
                with f.loop("c", count) as c:
                    f.store(patch, target + (first + c), self.x[source + (first + c)])

            inside = tirx.all(row >= 0, row < g.rows.size)
            whole = tirx.all(inside, left >= 0, left <= g.columns.size - columns)
            with f.branch(whole) as (then, otherwise):
                with then():
                    move(0, columns * g.channels)
                with otherwise(), f.loop("j", columns) as j:
                    column = f.let("column", left + j)
                    within = tirx.all(inside, column >= 0, column < g.columns.size)
                    with f.branch(within) as (here, outside):
                        with here():
                            move(j * g.channels, g.channels)
                        with outside(), f.loop("c", g.channels) as c:
                            f.store(patch, target + (j * g.channels + c), T.int8(zero_point))

    def _block(
        self, y: tirx.Var, source: tirx.Var, base: ir.Expr, pitch: int, pixel: ir.Expr,
        number: ir.Expr,
    ) -> None:  # fmt: skip
        """The outputs of a block: pixels from element ``pixel`` of y on, channels by number."""
        f, g, block = self.f, self.g, self.block
        channel = f.let("channel", self._start(number, g.outputs, block.outputs))
        starts = [f.let(f"start{o}", self.parameters[0][channel + o]) for o in range(block.outputs)]
        sums = [
            [f.variable(f"sum{p}_{o}", starts[o]) for o in range(block.outputs)]
            for p in range(block.pixels)
        ]
        run = g.columns.window * g.channels
        if pitch == run or g.rows.window == 1:
            # The window's rows lie one behind the other.
            run, rows = g.rows.window * run, 1
        else:
            rows = g.rows.window
        weights = number * (block.outputs * g.taps * g.channels)
        with f.loop("ky", rows) as ky:
            inputs = f.let("inputs", opaque(base + ky * pitch))
            taken = f.let("taken", opaque(weights + ky * (block.outputs * run)))
            turns = run // _UNROLL
            if turns:
                with f.loop("turn", turns) as turn:
                    for i in range(_UNROLL):
                        k = turn * _UNROLL + i
                        self._products(sums, source, inputs + k, pitch, taken + k * block.outputs)
            for i in range(turns * _UNROLL, run):
                self._products(sums, source, inputs + i, pitch, taken + i * block.outputs)
        step = g.columns.out * g.outputs if block.down else g.outputs
        for o in range(block.outputs):
            for p in range(block.pixels):
                result = self.exact.output(f, self.parameters, sums[p][o], channel + o)
                f.store(y, pixel + p * step + channel + o, result)

    def _products(
        self, sums: list[list[Variable]], source: tirx.Var, at: ir.Expr, pitch: int,
        weights: ir.Expr,
    ) -> None:  # fmt: skip
        """Adds the products of one input of each pixel."""
        f = self.f
        step = self.along.stride * (pitch if self.block.down else self.g.channels)
        values = [
            f.let(f"x{p}", T.cast(source[at + p * step], "int32")) for p in range(self.block.pixels)
        ]
        for o in range(self.block.outputs):
            weight = f.let(f"w{o}", T.cast(self.weights[weights + o], "int32"))
            for p, value in enumerate(values):
                sums[p][o].set(sums[p][o].value + value * weight)
