"""Convolutions and fully connected layers with the DSP extension.

All of them are matrix products. The inputs of three pixels of the result are widened to int16 and
interleaved in a scratch of a few hundred bytes. Then a block of ``isa.dsp.dot`` computes all output
channels of the three pixels, two channels at a time. A layer with fewer than three pixels takes one
pixel and four output channels at a time. If pixels remain at the end, the last group starts earlier
and computes some pixels a second time: of 125 pixels the last group is 122, 123 and 124.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tvm import ir, tirx
from tvm.tirx.script import builder as T

from mcuforge.isa.dsp import dot, widen
from mcuforge.isa.instruction import Instruction
from mcuforge.kernels.dsp.common import clamp_results
from mcuforge.kernels.requantize import HighWord, LongProduct, high_word, is_int8, long_product
from mcuforge.tir import inplace
from mcuforge.tir.function import Function, address, lesser
from mcuforge.tir.geometry import Geometry
from mcuforge.tir.registry import Kernel, Operation, kernel

Exact = HighWord | LongProduct

# Measured thresholds: instructions an inference, emulated Cortex-M7, gcc 12 and clang 19, -O3.
#
# Instructions of a step, with three pixels and with one, and of a turn of the loop around the
# steps. They are no measurement but counted in the assembly of ``isa.dsp.dot``: the loop is a load
# of the end, a comparison and a branch.
_STEP_COST = {3: 17, 1: 27}
_LOOP_COST = 3
# Most steps in a turn, by opt_level, then by pixels. A pointwise convolution of 25x5x64 to 64
# channels takes 432,579 and 431,652 with 4 steps, 424,515 and 423,588 with 8, 420,484 and 419,556
# with 16. A dense layer of 640 to 128 takes 74,954 and 74,838 with 2, 73,034 and 72,918 with 4,
# 72,074 and 71,958 with 8. Each time the gain halves and the loop's flash doubles.
_UNROLL = {3: {3: 8, 1: 4}, 4: {3: 12, 1: 8}}
# With fewer weights it depends on the layer whether gathering the inputs of a pixel costs more than
# the blocks save. From 2x2x2 to 2 channels with a 2x2 window, 16 weights, take 395 and 422 with the
# blocks, 410 and 361 without; 8x8x3 to 2 channels with that window, 24 weights, 5,700 and 6,115,
# without 8,702 and 9,411.
_LEAST_WEIGHTS = 24
# The same where nothing is gathered, with three pixels and with one. Three pixels of one channel to
# one take 95 and 103 with the blocks, 84 and 87 without; 8x8x3 to 2 channels, 6 weights, 2,749 and
# 2,658, without 3,799 and 3,644. A dense layer of 11 to 1 takes 97 and 92, without 78 and 77; one
# of 6 to 2 takes 86 and 85, without 101 and 112.
_LEAST_MATRIX = {3: 6, 1: 12}
# Inputs up to this size are copied with a border of zero points, and no border cases are left. 4x10
# windows over 49x10x1 to 64 channels, 696 bytes, take 294,489 and 294,568, without a copy 301,175
# and 295,711; 3x3 over 32x32x3 to 16, 3,468 bytes, 511,676 and 512,820, without 523,173 and
# 529,271. The copy is part of the workspace, and two percent do not justify a larger one.
_PADDED_BYTES = 4096


@kernel("fully_connected", opt_level=3, needs={"dsp"}, unless={"helium"})
def _fully_connected(operation: Operation) -> Kernel | None:
    return _matrix(operation, 3)


@kernel("fully_connected", opt_level=4, needs={"dsp"}, unless={"helium"})
def _fully_connected_expanded(operation: Operation) -> Kernel | None:
    return _matrix(operation, 4)


@kernel("conv2d", opt_level=3, needs={"dsp"}, unless={"helium"})
def _conv2d(operation: Operation) -> Kernel | None:
    g = operation.geometry
    if g.groups != 1:
        return None
    if g.pointwise:
        return _matrix(operation, 3)
    weight = operation.args[1].value
    if not _suits(operation) or g.batch != 1 or weight.size < _LEAST_WEIGHTS:
        return None
    exact = high_word(operation, weight) or long_product(operation, weight)
    if exact is None:
        return None
    bordered = g.padded and g.channels % 4 != 0 and _bytes(g.with_border()) <= _PADDED_BYTES
    zero_point = operation.attrs["input_zero_point"]

    def source(f: Function, x: tirx.Var, wide: tirx.Var) -> _Window:
        read = g.with_border() if bordered else g
        # Rows of the window that are whole words are widened where they are.
        whole = g.columns.window * g.channels % 4 == 0
        in_place = g.channels % 4 == 0 or (whole and g.columns.dilation == 1 and not read.padded)
        return (_Rows if in_place else _Patch)(f, x, wide, g, zero_point, bordered)

    return _kernel(operation, 3, exact, g.pixels, source, reads_all=bordered)


def _matrix(operation: Operation, level: int) -> Kernel | None:
    """A layer whose pixels are rows of x: fully connected, or a pointwise convolution."""
    if not _suits(operation):
        return None
    weight = operation.args[1].value
    outputs, inputs = len(weight), weight[0].size
    pixels = math.prod(operation.out.shape) // outputs
    expanded = _expands(pixels, level)
    if weight.size < _LEAST_MATRIX[_together(pixels)]:
        return None
    exact = high_word(operation, weight)
    if exact is None:
        # There are so many inputs that the sums need more bits.
        exact = (
            high_word(operation, weight, 1 << 5) if expanded else long_product(operation, weight)
        )
    if exact is None:
        return None

    def source(f: Function, x: tirx.Var, wide: tirx.Var) -> _Adjacent:
        return _Adjacent(f, x, wide, inputs, _together(pixels), expanded)

    return _kernel(operation, level, exact, pixels, source)


def _suits(operation: Operation) -> bool:
    """Whether the blocks can compute an operator: int8 throughout, weights from -127."""
    return is_int8(operation) and int(operation.args[1].value.min(initial=0)) >= -127


def _together(pixels: int) -> int:
    """How many of a layer's pixels are computed together."""
    return 3 if pixels >= 3 else 1


def _expands(pixels: int, level: int) -> bool:
    """Whether weights are stored as int16: used once, their unpacking is a quarter of the work."""
    return level >= 4 and pixels < 3


def _bytes(g: Geometry) -> int:
    return math.prod(g.shape[1:])


def _kernel(
    operation: Operation,
    level: int,
    exact: Exact,
    pixels: int,
    source: Callable[[Function, tirx.Var, tirx.Var], "_Adjacent | _Window"],
    reads_all: bool = False,
) -> Kernel:
    """The kernel: for every three pixels their inputs are widened and the blocks called.

    Args:
        pixels: of the result.
        source: widens inputs; called with the function, x, and the buffer of widened inputs.
        reads_all: whether all of x is read before the first result is written.
    """
    weight, bias = operation.args[1].value, operation.args[2].value.astype(np.int64)
    rows = weight.reshape(len(weight), -1)
    sums = rows.sum(axis=1, dtype=np.int64)
    dots = _dots(rows, exact, bias - operation.attrs["input_zero_point"] * sums, pixels, level)
    f = Function(operation.name)
    x = f.param("x", math.prod(operation.args[0].shape))
    stream = f.param("stream", len(dots.stream), "int32")
    y = f.param("y", pixels * len(rows))
    wide = f.scratch("wide", dots.words, "int32")
    inputs = source(f, x, wide)
    together = _together(pixels)
    with f.repeat(-(-pixels // together)) as group:
        start = group * together
        first = f.let("first", lesser(start, pixels - together) if pixels % together else start)
        inputs.widen(first)
        dots.call(f, wide, stream, y, first * len(rows))
    clamp_results(f, y, operation, exact.clamp)
    kept = {}
    if reads_all or pixels == together:
        kept = {0: 0}
    elif operation.name == "conv2d":
        starts = inplace.group_starts(pixels, together)
        kept = {0: inplace.by_pixels(operation.geometry, starts, together)}
    return Kernel(f.done(), (0, dots.stream), inplace=kept)


@dataclass(frozen=True)
class _Dots:
    """The blocks that compute the output channels of a group of pixels.

    Attributes:
        words: int32 of widened input.
        stream: constants of all blocks.
        calls: block, its start in the stream, its first output channel.
    """

    words: int
    stream: np.ndarray
    calls: tuple[tuple[Instruction, int, int], ...]

    def call(
        self, f: Function, wide: tirx.Var, stream: tirx.Var, y: tirx.Var, first: ir.Expr
    ) -> None:
        """Calls the blocks; ``first`` is the element of y of the first pixel's channel 0."""
        for block, start, channel in self.calls:
            f.do(block(address(wide, 0), address(stream, start), address(y, first + channel)))


def _dots(rows: np.ndarray, exact: Exact, bias: np.ndarray, pixels: int, level: int) -> _Dots:
    """Blocks for weights (o, k) in the order in which the inputs are widened.

    Of five output channels and three pixels, two blocks compute: one channels 0 to 3, two at a
    time, and one channel 4.

    Args:
        rows: int8 weights.
        exact: their requantization.
        bias: (o,) int64, in units of the accumulator: the operator's and the input's zero point.
        pixels: how many there are in the layer.
        level: opt_level, decides how much is unrolled.
    """
    outputs, together = len(rows), _together(pixels)
    quads_per_step = 1 if together == 3 else 2
    steps, unroll = _steps(-(-rows.shape[1] // (4 * quads_per_step)), together, level)
    quads = steps * quads_per_step
    padded = np.zeros((outputs, 4 * quads), np.int64)
    padded[:, : rows.shape[1]] = rows
    padded[exact.constants] = 0
    expanded = _expands(pixels, level)
    if expanded:
        words = dot.expand_weights(padded, exact.unit)
    else:
        words = dot.pack_weights(padded)[..., np.newaxis]
        # The inputs at odd places are 127 too small.
        bias = bias + 127 * padded[:, 1::2].sum(axis=1)
    biases = exact.bias + np.where(exact.constants, 0, bias) * exact.unit
    biases = biases.astype(np.uint32).view(np.int32)
    per_channel = exact.per_channel()

    widest = 2 if together == 3 else 4
    sizes = [widest] * (outputs // widest) + ([outputs % widest] if outputs % widest else [])
    calls, stream, channel = [], [], 0
    for size in sorted(set(sizes), reverse=True):
        groups = []
        start, first = sum(map(len, stream)), channel
        for _ in range(sizes.count(size)):
            part = slice(channel, channel + size)
            # By input channel, first and second word, output channel.
            weights = words[part].transpose(1, 2, 0).reshape(-1)
            groups += [biases[part], weights, per_channel[part].reshape(-1)]
            channel += size
        body = np.concatenate(groups)
        header = [4 * len(body), 2 * together * quads, exact.constant, outputs]
        stream += [np.array(header, np.int32), body]
        long = isinstance(exact, LongProduct)
        block = dot.dot(size, together, unroll, exact.shift, exact.signed, expanded, long)
        calls.append((block, start, first))
    return _Dots(2 * together * quads, np.concatenate(stream), tuple(calls))


def _steps(needed: int, together: int, level: int) -> tuple[int, int]:
    """Steps of the inner loop, some perhaps with zero weights, and how many are unrolled.

    Nine steps at level 3 are three turns of three; the tenth step that two turns of five would
    take costs more than a turn.
    """
    limit = _UNROLL[min(level, 4)][together]
    choices = []
    for unroll in range(1, limit + 1):
        steps = -(-needed // unroll) * unroll
        cost = steps * _STEP_COST[together] + steps // unroll * _LOOP_COST
        choices.append((cost, -unroll, steps))
    _, unroll, steps = min(choices)
    return steps, -unroll


class _Adjacent:
    """Widens pixels that are rows of x, in the order of the weights."""

    def __init__(
        self, f: Function, x: tirx.Var, wide: tirx.Var, inputs: int, together: int, expanded: bool
    ) -> None:
        self._f, self._x, self._wide = f, x, wide
        self._inputs, self._together, self._expanded = inputs, together, expanded

    def widen(self, first: ir.Expr) -> None:
        """The inputs of a group of pixels."""
        f, x, inputs, wide = self._f, self._x, self._inputs, address(self._wide, 0)
        if self._together == 3:
            f.do(widen.widen_pixels(inputs)(address(x, first * inputs), wide))
            return
        with f.repeat(1) as place:
            source = address(x, (first + place) * inputs)
            if self._expanded:
                f.do(widen.widen_pairs(source, wide, inputs))
            else:
                f.do(widen.widen(1)(source, address(self._wide, place), inputs))


class _Window:
    """Widens what lies under the window of a convolution; the subclasses know how."""

    def __init__(
        self, f: Function, x: tirx.Var, wide: tirx.Var, g: Geometry, zero_point: int, bordered: bool
    ) -> None:
        """Writes what comes before all pixels.

        Args:
            f: the function that is written.
            x, wide: its input, and the buffer of widened inputs.
            g: the convolution.
            zero_point: of the input, which is what padding holds.
            bordered: whether x is copied with a border of padding first.
        """
        self._f, self._x, self._wide = f, x, wide
        self._zero_point, self._together = zero_point, _together(g.pixels)
        self._g = g.with_border() if bordered else g
        # The copy comes first, behind it what the subclass needs.
        self._own = _bytes(self._g) if bordered else 0
        size = self._own + self._scratch_bytes()
        self._scratch = f.scratch("patch", size) if size else None
        if bordered:
            self._copy_with_border(g)
            self._x = self._scratch

    def widen(self, first: ir.Expr) -> None:
        """The inputs of a group of pixels."""
        with self._f.repeat(self._together) as place:
            pixel = first + place
            y = T.floordiv(pixel, self._g.columns.out) * self._g.rows.stride
            x = T.floormod(pixel, self._g.columns.out) * self._g.columns.stride
            above, before = self._g.rows.before, self._g.columns.before
            top = self._f.let("top", y - above if above else y)
            left = self._f.let("left", x - before if before else x)
            self._widen_pixel(top, left, place)

    def _scratch_bytes(self) -> int:
        """What the subclass needs of scratch."""
        return 0

    def _widen_pixel(self, top: ir.Expr, left: ir.Expr, place: ir.Expr) -> None:
        """The inputs under a window whose first tap is at (top, left)."""
        raise NotImplementedError

    def _copy_with_border(self, g: Geometry) -> None:
        f, copy, row = self._f, self._scratch, g.columns.size * g.channels
        with f.repeat(self._own) as i:
            f.store(copy, i, T.int8(self._zero_point))
        with f.repeat(g.rows.size) as y:
            start = ((y + g.rows.before) * self._g.columns.size + g.columns.before) * g.channels
            f.do(widen.copy_bytes(address(self._x, y * row), address(copy, start), row))

    def _widen(self, offset: ir.Expr, word: ir.Expr, count: int) -> None:
        block = widen.widen(self._together)
        self._f.do(block(address(self._x, offset), address(self._wide, word), count))


class _Rows(_Window):
    """Widens the rows of the window straight from the input; outside of it is the zero point."""

    def _widen_pixel(self, top: ir.Expr, left: ir.Expr, place: ir.Expr) -> None:
        f, g = self._f, self._g
        row = g.columns.window * g.channels
        with f.repeat(g.rows.window) as ky:
            y = top + ky * g.rows.dilation
            word = ky * self._words(row)
            if not g.padded:
                self._row(y, left, word, place)
                return
            with f.branch(tirx.all(y >= 0, y < g.rows.size)) as (then, otherwise):
                with then():
                    self._row(y, left, word, place)
                with otherwise():
                    self._padding(word + place, row)

    def _row(self, y: ir.Expr, left: ir.Expr, word: ir.Expr, place: ir.Expr) -> None:
        """A row of the window, at ``word`` of the widened inputs."""
        f, columns = self._f, self._g.columns
        if columns.dilation != 1 and columns.window > 1:
            self._taps(y, left, word, place)
        elif not self._g.padded:
            self._whole(y, left, word + place)
        else:
            whole = tirx.all(left >= 0, left <= columns.size - columns.window)
            with f.branch(whole) as (then, otherwise):
                with then():
                    self._whole(y, left, word + place)
                with otherwise():
                    self._taps(y, left, word, place)

    def _whole(self, y: ir.Expr, left: ir.Expr, word: ir.Expr) -> None:
        g = self._g
        self._widen((y * g.columns.size + left) * g.channels, word, g.columns.window * g.channels)

    def _taps(self, y: ir.Expr, left: ir.Expr, word: ir.Expr, place: ir.Expr) -> None:
        """A row of the window, one tap after the other."""
        f, g, columns = self._f, self._g, self._g.columns
        base = (y * columns.size + left) * g.channels
        with f.repeat(columns.window) as kx:
            word = word + kx * self._words(g.channels) + place
            inside = left + kx * columns.dilation
            offset = base + kx * columns.dilation * g.channels
            if not g.padded:
                self._widen(offset, word, g.channels)
                return
            within = tirx.all(inside >= 0, inside < columns.size)
            with f.branch(within) as (then, otherwise):
                with then():
                    self._widen(offset, word, g.channels)
                with otherwise():
                    self._padding(word, g.channels)

    def _padding(self, word: ir.Expr, count: int) -> None:
        block = widen.widen_value(self._together)
        self._f.do(block(address(self._wide, word), count // 4, self._zero_point))

    def _words(self, count: int) -> int:
        """Words that ``count`` inputs of all pixels of a group take."""
        return count // 4 * 2 * self._together


class _Patch(_Window):
    """Gathers a pixel's inputs as bytes first: rows of few channels are short and not aligned."""

    def _scratch_bytes(self) -> int:
        # The widening reads whole words; weights of what is behind the inputs are zero.
        return -(-self._g.taps * self._g.channels // 4) * 4

    def _widen_pixel(self, top: ir.Expr, left: ir.Expr, place: ir.Expr) -> None:
        f, g = self._f, self._g
        if g.padded:
            bottom, right = (axis.size - axis.reach + 1 for axis in (g.rows, g.columns))
            within = tirx.all(top >= 0, top < bottom, left >= 0, left < right)
            with f.branch(within) as (then, otherwise):
                with then():
                    self._inside(top, left)
                with otherwise():
                    self._tap_by_tap(top, left)
        else:
            self._inside(top, left)
        patch, target = address(self._scratch, self._own), address(self._wide, place)
        f.do(widen.widen(self._together)(patch, target, self._scratch_bytes()))

    def _inside(self, top: ir.Expr, left: ir.Expr) -> None:
        """Copies a window that lies inside the input, row by row."""
        g, columns = self._g, self._g.columns
        if columns.dilation != 1:
            self._tap_by_tap(top, left)
            return
        row = columns.window * g.channels
        for ky in range(g.rows.window):
            start = ((top + ky * g.rows.dilation) * columns.size + left) * g.channels
            target = address(self._scratch, self._own + ky * row)
            self._f.do(widen.copy_bytes(address(self._x, start), target, row))

    def _tap_by_tap(self, top: ir.Expr, left: ir.Expr) -> None:
        f, g, rows, columns = self._f, self._g, self._g.rows, self._g.columns
        row = columns.window * g.channels
        with (
            f.repeat(rows.window) as ky,
            f.repeat(columns.window) as kx,
            f.repeat(g.channels) as c,
        ):
            y, x = top + ky * rows.dilation, left + kx * columns.dilation
            value = self._x[(y * columns.size + x) * g.channels + c]
            if g.padded:
                within = tirx.all(y >= 0, y < rows.size, x >= 0, x < columns.size)
                value = T.if_then_else(within, value, T.int8(self._zero_point))
            f.store(self._scratch, self._own + ky * row + kx * g.channels + c, value)
