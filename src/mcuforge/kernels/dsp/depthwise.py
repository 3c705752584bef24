"""Depthwise convolutions with the DSP extension, one channel at a time.

A channel's plane is copied out of the image into int16 rows with a border of zero points, about two
instructions an element. That gives SMLAD its pairs, leaves no border cases, keeps a channel's
weights and requantization in registers over the whole plane, and lets the result overwrite the
input: when a channel is written it has been read.
"""

import math
from dataclasses import replace

import numpy as np

from mcuforge.isa.dsp import depthwise, widen
from mcuforge.isa.instruction import Instruction
from mcuforge.kernels.dsp.common import clamp_results
from mcuforge.kernels.requantize import HighWord, high_word, is_int8
from mcuforge.tir.function import Function, address
from mcuforge.tir.geometry import Geometry
from mcuforge.tir.registry import SAME_PLACE, Kernel, Operand, Operation, kernel

# Measured thresholds: instructions an inference, emulated Cortex-M7, gcc 12 and clang 19, -O3.
#
# Most outputs in a turn of the block's loop, by opt_level: 3x3 over 24x24x8 take 68,869 and 69,188
# with 2, 66,565 and 66,884 with 4, 65,797 and 66,116 with 8.
_UNROLL = {3: 4, 4: 8}
# LDRD reaches 1020 bytes from its base register, STRB 4095: two rows of int16, two outputs.
_LONGEST_PITCH, _LONGEST_STEP = 240, 2047
# With fewer taps inside the image, of a channel and of all, copying planes does not pay for every
# layer. 3x3 over 1x1x8, one tap a channel, take 537 and 593 with planes, 224 and 243 without; over
# 2x2x2, 32 taps in all, 229 and 270 with planes, 527 and 315 without.
_LEAST_TAPS, _LEAST_TAPS_IN_ALL = 4, 32


@kernel("depthwise_conv2d", opt_level=3, needs={"dsp"}, unless={"helium"})
def _depthwise_conv2d(operation: Operation) -> Kernel | None:
    return _depthwise(operation, 3)


@kernel("conv2d", opt_level=3, needs={"dsp"}, unless={"helium"}, rank=1)
def _one_channel(operation: Operation) -> Kernel | None:
    """From one channel to one: the same as depthwise."""
    weight = operation.args[1]
    if weight.value is None or weight.shape[0] != 1 or weight.shape[3] != 1:
        return None
    value = weight.value.transpose(1, 2, 3, 0)[..., 0]
    args = (operation.args[0], Operand(value.shape, weight.dtype, value), *operation.args[2:])
    return _depthwise(replace(operation, args=args), 3)


@kernel("depthwise_conv2d", opt_level=4, needs={"dsp"}, unless={"helium"})
def _unrolled(operation: Operation) -> Kernel | None:
    return _depthwise(operation, 4)


def _depthwise(operation: Operation, level: int) -> Kernel | None:
    g = operation.geometry
    if not (is_int8(operation) and _suits(g)):
        return None
    weight = operation.args[1].value
    by_channel = np.moveaxis(weight, -1, 0)
    exact = high_word(operation, by_channel, compact=True)
    compact = exact is not None
    if not compact:
        exact = high_word(operation, by_channel)
    if exact is None:
        return None
    taps = np.where(exact.constants, 0, weight).transpose(2, 0, 1)
    if g.columns.size == g.columns.window == 1 and g.columns.before == 0:
        # A column of pixels is computed as a row.
        g, taps = g.transposed(), taps.transpose(0, 2, 1)
    stream = depthwise.pack_plane(_constants(operation, exact), taps.astype(np.int8), compact)
    rows, pitch = _plane(g)
    block = _block(g, pitch, exact, compact, _UNROLL[level])
    copy = depthwise.plane(g.rows.size, g.columns.size, g.channels, pitch)
    # SMLAD reads pairs: the last one may reach behind the plane.
    size, start = rows * pitch + 2, g.rows.before * pitch + g.columns.before

    f = Function("depthwise_conv2d")
    x = f.param("x", math.prod(g.shape))
    streams = f.param("stream", stream.size, "int32")
    y = f.param("y", math.prod(g.out_shape))
    plane = f.scratch("plane", size, "int16")
    if size > g.rows.size * g.columns.size + 2:
        zero_point = operation.attrs["input_zero_point"]
        f.do(widen.fill_halfwords(address(plane, 0), size // 2, zero_point))
    with f.repeat(g.channels) as c:
        f.do(copy(address(x, c), address(plane, start)))
        own = address(streams, c * stream.shape[1])
        f.do(block(address(plane, 0), own, address(y, c), exact.constant))
    clamp_results(f, y, operation, exact.clamp)
    return Kernel(f.done(), (0, stream.reshape(-1)), inplace={0: SAME_PLACE})


def _suits(g: Geometry) -> bool:
    """Whether each channel is a plane that the blocks can compute, and copying it pays."""
    inside = g.rows.taps_inside() * g.columns.taps_inside()
    return (
        g.batch == 1
        and g.outputs == g.channels <= _LONGEST_STEP
        and not g.dilated
        and inside >= _LEAST_TAPS
        and inside * g.channels >= _LEAST_TAPS_IN_ALL
    )


def _plane(g: Geometry) -> tuple[int, int]:
    """Rows of a channel's plane with its border, and elements from one row to the next, even."""
    rows = max(g.rows.span, g.rows.size + g.rows.before)
    columns = max(g.columns.span, g.columns.size + g.columns.before)
    return rows, -(-columns // 2) * 2


def _block(g: Geometry, pitch: int, exact: HighWord, compact: bool, unroll: int) -> Instruction:
    """What computes a channel from its plane."""
    rows, columns = g.rows, g.columns
    square = rows.window == columns.window == 3 and rows.stride == columns.stride in (1, 2)
    if square and pitch <= _LONGEST_PITCH:
        added = exact.constant != 0
        return depthwise.depthwise_3x3(
            rows.out, columns.out, columns.stride, pitch, g.channels, exact.shift, exact.signed,
            added, unroll, compact,
        )  # fmt: skip
    return depthwise.depthwise(
        (rows.out, columns.out), (rows.window, columns.window), (rows.stride, columns.stride),
        pitch, g.channels, exact.shift, exact.signed, compact,
    )  # fmt: skip


def _constants(operation: Operation, exact: HighWord) -> np.ndarray:
    """Bias and requantization of each channel, as ``isa.dsp.depthwise.pack_plane`` takes them."""
    weight, bias = (operand.value for operand in operation.args[1:3])
    zero = operation.attrs["input_zero_point"]
    sums = bias.astype(np.int64) - zero * weight.sum(axis=(0, 1), dtype=int)
    biases = exact.bias + np.where(exact.constants, 0, sums) * exact.unit
    return np.concatenate([biases[:, None], exact.per_channel()], axis=1)
