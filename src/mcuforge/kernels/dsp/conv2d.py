"""Convolutions and fully connected layers on ARMv7E-M.

All are matrix products: the inputs of three output pixels at a time are gathered, widened and
interleaved in a scratch of a few hundred bytes, then a block of ``isa.armv7em`` runs over all
output channels, two at a time. A layer with fewer than three pixels takes them one by one, four
output channels at a time. Pixels that remain at the end are computed together with their
predecessors again, so there is one block for them all.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tvm import ir, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from mcuforge.isa import Instruction
from mcuforge.isa import armv7em as isa
from mcuforge.kernels.dsp.requantize import HighWord, LongProduct, high_word, long_product
from mcuforge.tir import inplace
from mcuforge.tir.registry import Kernel, Operation, kernel
from mcuforge.tir.requantize import clamp

Exact = HighWord | LongProduct

# Instructions a step of a dot block takes and those of a turn of its loop, to choose the unrolling.
_STEP_COST = {3: 17, 1: 27}
_LOOP_COST = 3
_UNROLL = {3: {3: 8, 1: 4}, 4: {3: 12, 1: 8}}
# With fewer weights, gathering the inputs of a pixel costs more than multiplying them.
_LEAST_WEIGHTS = 24
_LEAST_MATRIX = {3: 6, 1: 12}
# Inputs up to this size are copied with a border of zero points: no border cases are left.
_PADDED_BYTES = 4096


@dataclass(frozen=True)
class _Dots:
    """How the output channels of a group of pixels are computed.

    Attributes:
        pixels: taken at a time, 3 or 1.
        words: int32 of widened input.
        stream: constants of all blocks.
        calls: block, its start in the stream, its first output channel.
    """

    pixels: int
    words: int
    stream: np.ndarray
    calls: tuple[tuple[Instruction, int, int], ...]

    def emit(self, wide: tirx.Var, stream: tirx.Var, y: tirx.Var, first: ir.Expr) -> None:
        """Call the blocks; ``first`` is the element of y of the first pixel's channel 0."""
        for block, start, channel in self.calls:
            T.evaluate(
                block(
                    T.address_of(wide[0]),
                    T.address_of(stream[start]),
                    T.address_of(y[first + channel]),
                )
            )


def _dots(rows: np.ndarray, exact: Exact, bias: np.ndarray, pixels: int, level: int) -> _Dots:
    """Blocks for weights (o, k), k a multiple of 4, in the order the inputs are widened in.

    Args:
        rows: int8 weights.
        exact: their requantization.
        bias: (o,) int64, in units of the accumulator: the operator's and the input's zero point.
        pixels: how many there are in the layer.
        level: opt_level, decides how much is unrolled.
    """
    outputs = len(rows)
    together = 3 if pixels >= 3 else 1
    quads_per_step = 1 if together == 3 else 2
    steps, unroll = _steps(-(-rows.shape[1] // (4 * quads_per_step)), together, level)
    quads = steps * quads_per_step
    padded = np.zeros((outputs, 4 * quads), np.int64)
    padded[:, : rows.shape[1]] = rows
    padded[exact.constants] = 0
    expanded = _expands(pixels, level)
    if expanded:
        words = isa.expand_weights(padded, exact.unit)
    else:
        words = isa.pack_weights(padded)[..., np.newaxis]
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
        block = isa.dot(size, together, unroll, exact.shift, exact.signed, expanded, long)
        calls.append((block, start, first))
    return _Dots(together, 2 * together * quads, np.concatenate(stream), tuple(calls))


def _expands(pixels: int, level: int) -> bool:
    """Whether weights are stored as int16: used once, their unpacking is a quarter of the work."""
    return level >= 4 and pixels < 3


def _steps(needed: int, pixels: int, level: int) -> tuple[int, int]:
    """Steps of the inner loop, some perhaps with zero weights, and how many are unrolled."""
    limit = _UNROLL[min(level, 4)][pixels]
    choices = []
    for unroll in range(1, limit + 1):
        steps = -(-needed // unroll) * unroll
        choices.append((steps * _STEP_COST[pixels] + steps // unroll * _LOOP_COST, -unroll, steps))
    _, unroll, steps = min(choices)
    return steps, -unroll


@dataclass(frozen=True)
class _Layer:
    """A convolution as the emitters below take it; padding top and left, ``x`` perhaps a copy."""

    shape: tuple[int, int, int]
    out: tuple[int, int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int, int, int]
    zero_point: int

    @property
    def pixels(self) -> int:
        return self.out[0] * self.out[1]


def _build(
    operation: Operation, level: int, rows: np.ndarray, layer: _Layer,
    widen: Callable[[tirx.Var, tirx.Var, tirx.Var, ir.Expr, int], None], exact: Exact,
    scratch: int = 0, prepare: Callable[[tirx.Var, tirx.Var], None] | None = None,
    adjacent: bool = False,
) -> Kernel:  # fmt: skip
    """The kernel: for every three pixels widen their inputs and call the blocks.

    Args:
        rows: weights (o, k) in the order of the widened inputs.
        widen: emits code that widens one pixel: (x, wide, scratch, pixel, place among three).
        scratch: int8 elements of extra scratch.
        prepare: emits code that runs first: (x, scratch).
        adjacent: the pixels' inputs follow each other in x, in the order of the weights.
    """
    x_zero = operation.attrs["input_zero_point"]
    weight, bias = operation.args[1].value, operation.args[2].value.astype(np.int64)
    sums = weight.reshape(len(rows), -1).sum(axis=1, dtype=np.int64)
    dots = _dots(rows, exact, bias - x_zero * sums, layer.pixels, level)
    outputs, size = len(rows), layer.pixels * len(rows)
    pixels = dots.pixels
    with IRBuilder() as ib, T.prim_func(private=True):
        x = T.arg("x", T.buffer((int(np.prod(operation.args[0].shape)),), "int8"))
        stream = T.arg("stream", T.buffer((len(dots.stream),), "int32"))
        y = T.arg("y", T.buffer((size,), "int8"))
        wide = T.alloc_buffer((dots.words,), "int32")
        IRBuilder.name("wide", wide)
        extra = wide
        if scratch:
            extra = T.alloc_buffer((scratch,), "int8")
            IRBuilder.name("patch", extra)
        if prepare is not None:
            prepare(x, extra)
        with T.serial(0, -(-layer.pixels // pixels)) as group:
            start = group * pixels
            if layer.pixels % pixels:
                start = T.min(start, layer.pixels - pixels)
            first = _bound("first", start)
            if adjacent and pixels == 3:
                three = isa.widen_pixels(rows.shape[1])
                source = T.address_of(x[first * rows.shape[1]])
                T.evaluate(three(source, T.address_of(wide[0])))
            else:
                with T.serial(0, pixels) as place:
                    widen(x, wide, extra, first + place, place)
            dots.emit(wide, stream, y, first * outputs)
        if exact.clamp is not None:
            with T.serial(0, size) as i:
                T.buffer_store(y, clamp(y[i], *(T.int8(v) for v in exact.clamp)), [i])
    macs = layer.pixels * weight.size
    if prepare is not None or layer.pixels == pixels:
        distance = 0  # all is read before the first write
    elif operation.name == "conv2d":
        starts = inplace.group_starts(layer.pixels, pixels)
        distance = inplace.by_pixels(operation.geometry, starts, pixels)
    else:
        return Kernel(ib.get(), (0, dots.stream), macs=macs)
    return Kernel(ib.get(), (0, dots.stream), macs=macs, inplace={0: distance})


def _bound(name: str, value: ir.Expr) -> tirx.Var:
    """A named constant local."""
    var = T.Bind(value)
    IRBuilder.name(name, var)
    return var


def _widen(x: tirx.Var, offset: ir.Expr, wide: tirx.Var, word: ir.Expr, pixels: int, count: int):
    T.evaluate(isa.widen(pixels)(T.address_of(x[offset]), T.address_of(wide[word]), count))


@kernel("fully_connected", opt_level=3, needs={"dsp"}, unless={"helium"})
def _fully_connected(operation: Operation) -> Kernel | None:
    return _matrix(operation, 3)


def _suits(operation: Operation) -> bool:
    """Whether the blocks can compute an operator: int8 throughout, symmetric weights."""
    x, weight = operation.args[:2]
    return (
        x.dtype == weight.dtype == operation.out.dtype == "int8"
        and weight.value is not None
        and operation.attrs["weight_zero_point"] == 0
        and int(weight.value.min(initial=0)) >= -127
    )


def _matrix(operation: Operation, level: int) -> Kernel | None:
    """A layer whose pixels are rows of x."""
    if not _suits(operation):
        return None
    weight = operation.args[1].value
    rows = weight.reshape(len(weight), -1)
    inputs = rows.shape[1]
    pixels = int(np.prod(operation.out.shape)) // len(rows)
    together = 3 if pixels >= 3 else 1
    expanded = _expands(pixels, level)
    if weight.size < _LEAST_MATRIX[together]:
        return None
    exact = high_word(operation, weight)
    if exact is None:
        # So many inputs that the sums need more bits.
        exact = (
            high_word(operation, weight, 1 << 5) if expanded else long_product(operation, weight)
        )
    if exact is None:
        return None
    layer = _Layer((1, pixels, inputs), (1, pixels, len(rows)), (1, 1), (1, 1), (1, 1), (0,) * 4, 0)

    def widen(x, wide, _scratch, pixel, place):
        if expanded:
            address = T.address_of(x[pixel * inputs])
            T.evaluate(isa.widen_pairs(address, T.address_of(wide[0]), inputs))
        else:
            _widen(x, pixel * inputs, wide, place, together, inputs)

    return _build(operation, level, rows, layer, widen, exact, adjacent=True)


@kernel("fully_connected", opt_level=4, needs={"dsp"}, unless={"helium"})
def _fully_connected_expanded(operation: Operation) -> Kernel | None:
    return _matrix(operation, 4)


@kernel("conv2d", opt_level=3, needs={"dsp"}, unless={"helium"})
def _conv2d(operation: Operation) -> Kernel | None:
    return _convolution(operation, 3)


def _convolution(operation: Operation, level: int) -> Kernel | None:
    attrs = operation.attrs
    if not _suits(operation) or attrs["groups"] != 1:
        return None
    weight = operation.args[1].value
    batch, height, width, channels = operation.args[0].shape
    _, out_h, out_w, outputs = operation.out.shape
    strides, padding, dilation = (tuple(attrs[k]) for k in ("strides", "padding", "dilation"))
    kernel_shape = weight.shape[1:3]
    if kernel_shape == (1, 1) and strides == (1, 1) and not any(padding):
        return _matrix(operation, level)
    if batch != 1 or weight.size < _LEAST_WEIGHTS:
        return None
    exact = high_word(operation, weight) or long_product(operation, weight)
    if exact is None:
        return None
    layer = _Layer(
        (height, width, channels), (out_h, out_w, outputs), kernel_shape, strides, dilation,
        padding, attrs["input_zero_point"],
    )  # fmt: skip
    row = kernel_shape[1] * channels
    (top, left, bottom, right) = padding
    border = (height + top + bottom) * (width + left + right) * channels
    scratch, prepare = 0, None
    if any(padding) and channels % 4 and border <= _PADDED_BYTES:
        layer, prepare = _padded(layer)
        scratch = border
    if channels % 4 == 0 or (row % 4 == 0 and dilation[1] == 1 and not any(layer.padding)):
        widen = _widen_rows(layer, from_scratch=prepare is not None)
        rows = weight.reshape(outputs, -1)
    else:
        place = scratch
        scratch += -(-(weight[0].size) // 4) * 4
        widen = _widen_patch(layer, place, from_scratch=prepare is not None)
        rows = weight.reshape(outputs, -1)
    return _build(operation, level, rows, layer, widen, exact, scratch, prepare)


def _padded(layer: _Layer) -> tuple[_Layer, Callable[[tirx.Var, tirx.Var], None]]:
    """The layer on a copy of its input that has a border."""
    (height, width, channels), (top, left, bottom, right) = layer.shape, layer.padding
    full_h, full_w = height + top + bottom, width + left + right
    row = width * channels

    def prepare(x: tirx.Var, copy: tirx.Var) -> None:
        with T.serial(0, full_h * full_w * channels) as i:
            T.buffer_store(copy, T.int8(layer.zero_point), [i])
        with T.serial(0, height) as y:
            start = ((y + top) * full_w + left) * channels
            T.evaluate(isa.copy_bytes(T.address_of(x[y * row]), T.address_of(copy[start]), row))

    padded = _Layer(
        (full_h, full_w, channels), layer.out, layer.kernel, layer.strides, layer.dilation,
        (0,) * 4, layer.zero_point,
    )  # fmt: skip
    return padded, prepare


def _origin(layer: _Layer, pixel: ir.Expr) -> tuple[tirx.Var, tirx.Var]:
    """Row and column of the input under the kernel's first tap."""
    (sy, sx), (top, left, _, _), out_w = layer.strides, layer.padding, layer.out[1]
    y = T.floordiv(pixel, out_w) * sy
    x = T.floormod(pixel, out_w) * sx
    return _bound("top", y - top if top else y), _bound("left", x - left if left else x)


def _widen_rows(layer: _Layer, from_scratch: bool):
    """Widen kernel rows straight from the input; outside it is the zero point."""
    (height, width, channels), (taps_y, taps_x) = layer.shape, layer.kernel
    (dy, dx), padded = layer.dilation, any(layer.padding)
    pixels = 3 if layer.pixels >= 3 else 1
    row = taps_x * channels

    def words(count):
        return count // 4 * 2 * pixels

    def widen(x, wide, scratch, pixel, place):
        source = scratch if from_scratch else x
        top, left = _origin(layer, pixel)

        def taps(y, ky):
            base = (y * width + left) * channels
            with T.serial(0, taps_x) as kx:
                word = ky * words(row) + kx * words(channels) + place
                inside = left + kx * dx
                if not padded:
                    _widen(source, base + kx * dx * channels, wide, word, pixels, channels)
                    return
                with T.If(tirx.all(inside >= 0, inside < width)):
                    with T.Then():
                        _widen(source, base + kx * dx * channels, wide, word, pixels, channels)
                    with T.Else():
                        value(word, channels)

        def whole(y, ky):
            word = ky * words(row) + place
            _widen(source, (y * width + left) * channels, wide, word, pixels, row)

        def value(word, count):
            block = isa.widen_value(pixels)
            T.evaluate(block(T.address_of(wide[word]), count // 4, layer.zero_point))

        def inside_columns(y, ky):
            if dx != 1 and taps_x > 1:
                taps(y, ky)
            elif not padded:
                whole(y, ky)
            else:
                with T.If(tirx.all(left >= 0, left <= width - taps_x)):
                    with T.Then():
                        whole(y, ky)
                    with T.Else():
                        taps(y, ky)

        with T.serial(0, taps_y) as ky:
            y = top + ky * dy
            if not padded:
                inside_columns(y, ky)
            else:
                with T.If(tirx.all(y >= 0, y < height)):
                    with T.Then():
                        inside_columns(y, ky)
                    with T.Else():
                        value(ky * words(row) + place, row)

    return widen


def _widen_patch(layer: _Layer, place_in_scratch: int, from_scratch: bool):
    """Gather a pixel's inputs as bytes first: few channels make short, unaligned rows."""
    (height, width, channels), (taps_y, taps_x) = layer.shape, layer.kernel
    (dy, dx), padded = layer.dilation, any(layer.padding)
    pixels = 3 if layer.pixels >= 3 else 1
    row = taps_x * channels

    def widen(x, wide, scratch, pixel, place):
        source = scratch if from_scratch else x
        top, left = _origin(layer, pixel)
        base = place_in_scratch

        def inside():
            if dx != 1:
                scattered()
                return
            for ky in range(taps_y):
                start = ((top + ky * dy) * width + left) * channels
                target = T.address_of(scratch[base + ky * row])
                T.evaluate(isa.copy_bytes(T.address_of(source[start]), target, row))

        def scattered():
            loops = (T.serial(0, extent) for extent in (taps_y, taps_x, channels))
            with next(loops) as ky, next(loops) as kx, next(loops) as c:
                y, column = top + ky * dy, left + kx * dx
                value = source[(y * width + column) * channels + c]
                if padded:
                    within = tirx.all(y >= 0, y < height, column >= 0, column < width)
                    value = T.if_then_else(within, value, T.int8(layer.zero_point))
                T.buffer_store(scratch, value, [base + ky * row + kx * channels + c])

        if padded:
            bottom, right = height - (taps_y - 1) * dy, width - (taps_x - 1) * dx
            within = tirx.all(top >= 0, top < bottom, left >= 0, left < right)
            with T.If(within):
                with T.Then():
                    inside()
                with T.Else():
                    scattered()
        else:
            inside()
        patch, target = T.address_of(scratch[base]), T.address_of(wide[place])
        # Whole words; behind the last input weights are zero.
        T.evaluate(isa.widen(pixels)(patch, target, -(-taps_y * row // 4) * 4))

    return widen
