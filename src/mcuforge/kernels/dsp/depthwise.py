"""Depthwise convolutions on ARMv7E-M, one channel at a time.

A channel's plane is copied out of the image into int16 rows with a border of zero points, about two
instructions an element. That gives SMLAD its pairs, leaves no border cases, keeps a channel's
weights and requantization in registers over the whole plane, and lets the result overwrite the
input: when a channel is written it has been read.
"""

from dataclasses import replace

import numpy as np
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from mcuforge.isa import armv7em as isa
from mcuforge.kernels.dsp.requantize import high_word
from mcuforge.tir.registry import SAME_PLACE, Kernel, Operand, Operation, kernel
from mcuforge.tir.requantize import clamp

_UNROLL = {3: 4, 4: 8}
# LDRD reaches 1020 bytes from its base register, STRB 4095.
_LONGEST_PITCH, _LONGEST_STEP = 240, 2047
# With fewer taps inside the image, of a channel and of all, copying planes does not pay.
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
    attrs = operation.attrs
    weight, bias = (operand.value for operand in operation.args[1:3])
    batch, height, width, channels = operation.args[0].shape
    _, out_h, out_w, outputs = operation.out.shape
    types = {operation.args[0].dtype, operation.args[1].dtype, operation.out.dtype}
    if (
        types != {"int8"}
        or attrs["weight_zero_point"] != 0
        or batch != 1
        or outputs != channels
        or tuple(attrs["dilation"]) != (1, 1)
        or channels > _LONGEST_STEP
    ):
        return None
    inside = _taps_inside(operation)
    if inside < _LEAST_TAPS or inside * channels < _LEAST_TAPS_IN_ALL:
        return None
    per_output = np.moveaxis(weight, -1, 0)
    exact = high_word(operation, per_output, compact=True)
    compact = exact is not None
    if not compact:
        exact = high_word(operation, per_output)
    if exact is None:
        return None
    taps = np.where(exact.constants, 0, weight).transpose(2, 0, 1)
    (sy, sx), (top, left, _, _) = attrs["strides"], attrs["padding"]
    if width == 1 and weight.shape[1] == 1 and left == 0:
        # A column: lie it down.
        taps = taps.transpose(0, 2, 1)
        (height, width), (out_h, out_w) = (width, height), (out_w, out_h)
        (sy, sx), (top, left) = (sx, sy), (left, top)
    taps_y, taps_x = taps.shape[1:]
    rows = max((out_h - 1) * sy + taps_y, height + top)
    pitch = -(-max((out_w - 1) * sx + taps_x, width + left) // 2) * 2
    if (taps_y, taps_x) == (3, 3) and sy == sx and sx in (1, 2) and pitch <= _LONGEST_PITCH:
        block = isa.depthwise_3x3(
            out_h, out_w, sx, pitch, channels, exact.shift, exact.signed, exact.constant != 0,
            _UNROLL[level], compact,
        )  # fmt: skip
    else:
        block = isa.depthwise(
            (out_h, out_w), (taps_y, taps_x), (sy, sx), pitch, channels, exact.shift,
            exact.signed, compact,
        )  # fmt: skip
    sums = bias.astype(np.int64) - attrs["input_zero_point"] * weight.sum(axis=(0, 1), dtype=int)
    biases = exact.bias + np.where(exact.constants, 0, sums) * exact.unit
    constants = np.concatenate([biases[:, None], exact.per_channel()], axis=1)
    stream = isa.pack_plane(constants, taps.astype(np.int8), compact)
    copy = isa.plane(height, width, channels, pitch)
    x_size, y_size = height * width * channels, out_h * out_w * channels
    start, size = top * pitch + left, rows * pitch + 2
    with IRBuilder() as ib, T.prim_func(private=True):
        x = T.arg("x", T.buffer((x_size,), "int8"))
        streams = T.arg("stream", T.buffer((stream.size,), "int32"))
        y = T.arg("y", T.buffer((y_size,), "int8"))
        plane = T.alloc_buffer((size,), "int16")
        IRBuilder.name("plane", plane)
        if size > height * width + 2:
            fill = isa.fill_halfwords(T.address_of(plane[0]), size // 2, attrs["input_zero_point"])
            T.evaluate(fill)
        with T.serial(0, channels) as c:
            T.evaluate(copy(T.address_of(x[c]), T.address_of(plane[start])))
            place = T.address_of(streams[c * stream.shape[1]])
            T.evaluate(block(T.address_of(plane[0]), place, T.address_of(y[c]), exact.constant))
        if exact.clamp is not None:
            with T.serial(0, y_size) as i:
                T.buffer_store(y, clamp(y[i], *(T.int8(v) for v in exact.clamp)), [i])
    macs = out_h * out_w * weight.size
    return Kernel(ib.get(), (0, stream.reshape(-1)), macs=macs, inplace={0: SAME_PLACE})


def _taps_inside(operation: Operation) -> int:
    """How many taps of all outputs of a channel lie inside the image."""
    count = 1
    for i in range(2):
        size, out = operation.args[0].shape[1 + i], operation.out.shape[1 + i]
        taps = operation.args[1].shape[i]
        start = np.arange(out) * operation.attrs["strides"][i] - operation.attrs["padding"][i]
        at = start[:, np.newaxis] + np.arange(taps)
        count *= int(((at >= 0) & (at < size)).sum())
    return count
