"""3x3 convolutions on ARMv7E-M with 4/9 of the multiplications, at opt_level 4.

See ``isa.armv7em_winograd``. Weights take 3.6 times their size in flash, so this is for layers
whose weights are used often, which have few of them. Three tiles of 2x2 outputs are transformed,
multiplied with all output channels, and transformed back, in a scratch of a few kilobytes.
"""

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from mcuforge.isa import armv7em as isa
from mcuforge.isa import armv7em_winograd as winograd
from mcuforge.kernels.dsp.requantize import high_word
from mcuforge.tir import inplace
from mcuforge.tir.registry import Kernel, Operation, kernel
from mcuforge.tir.requantize import clamp

# Below, expanding the weights costs too much flash for the time it saves.
_LEAST_PIXELS = 256


@kernel("conv2d", opt_level=4, needs={"dsp"}, unless={"helium"})
def _winograd(operation: Operation) -> Kernel | None:
    attrs = operation.attrs
    x, weight = operation.args[:2]
    batch, height, width, channels = x.shape
    _, out_h, out_w, outputs = operation.out.shape
    if (
        {x.dtype, weight.dtype, operation.out.dtype} != {"int8"}
        or weight.shape[1:3] != (3, 3)
        or attrs["weight_zero_point"] != 0
        or (attrs["groups"], batch) != (1, 1)
        or tuple(attrs["strides"]) != (1, 1)
        or tuple(attrs["dilation"]) != (1, 1)
        or channels % 4
        or outputs % 2
        or out_h % 2
        or out_w % 2
        or out_h * out_w < _LEAST_PIXELS
    ):
        return None
    words, unit = winograd.transform_weights(weight.value)
    exact = high_word(operation, weight.value, unit)
    if exact is None:
        return None
    for o in np.flatnonzero(exact.constants):
        words[o // 2, ..., o % 2] = 0
    top, left = attrs["padding"][:2]
    zero = attrs["input_zero_point"]
    sums = weight.value.sum(axis=(1, 2, 3), dtype=np.int64)
    sums = operation.args[2].value.astype(np.int64) - zero * sums
    biases = exact.bias + np.where(exact.constants, 0, sums) * exact.unit
    biases = biases.astype(np.uint32).view(np.int32)
    per_channel = np.concatenate([biases[:, None], exact.per_channel()], axis=1).reshape(-1)
    pair_words, pair_constants = words[0].size, 2 * per_channel.size // outputs

    tiles_x = out_w // 2
    tiles = out_h // 2 * tiles_x
    groups = inplace.group_starts(tiles, winograd.TILES)
    transform = winograd.transform_inputs(channels)
    multiply = winograd.multiply_tiles(channels)
    finish = winograd.transform_outputs(outputs, out_w * outputs, exact.shift, exact.signed)
    x_size, y_size = height * width * channels, out_h * out_w * outputs
    row = width * channels
    with IRBuilder() as ib, T.prim_func(private=True):
        source = T.arg("x", T.buffer((x_size,), "int8"))
        weights = T.arg("weights", T.buffer((words.size,), "int32"))
        constants = T.arg("constants", T.buffer((per_channel.size,), "int32"))
        y = T.arg("y", T.buffer((y_size,), "int8"))
        wide = _buffer("wide", 8 * channels * winograd.TILES, "int32")
        total = _buffer("sums", 16 * 2 * winograd.TILES, "int32")
        places = _buffer("places", winograd.TILES, "int32")
        patch = _buffer("patch", 16 * channels, "int8")
        with T.serial(0, len(groups)) as group:
            first = group * winograd.TILES
            if tiles % winograd.TILES:
                first = T.min(first, tiles - winograd.TILES)
            first = _bound("first", first)
            with T.serial(0, winograd.TILES) as place:
                tile_y = _bound("tile_y", T.floordiv(first + place, tiles_x) * 2)
                tile_x = _bound("tile_x", T.floormod(first + place, tiles_x) * 2)
                T.buffer_store(places, (tile_y * out_w + tile_x) * outputs, [place])
                above, before = _bound("above", tile_y - top), _bound("before", tile_x - left)
                whole = tirx.all(above >= 0, above <= height - 4, before >= 0, before <= width - 4)
                target = T.address_of(wide[place])
                with T.If(whole):
                    with T.Then():
                        start = T.address_of(source[above * row + before * channels])
                        T.evaluate(transform(start, target, row))
                    with T.Else():
                        loops = (T.serial(0, 4) for _ in range(2))
                        with next(loops) as i, next(loops) as j:
                            pixel = T.address_of(patch[(i * 4 + j) * channels])
                            py, px = above + i, before + j
                            inside = tirx.all(py >= 0, py < height, px >= 0, px < width)
                            with T.If(inside):
                                with T.Then():
                                    start = T.address_of(source[py * row + px * channels])
                                    T.evaluate(isa.copy_bytes(start, pixel, channels))
                                with T.Else():
                                    pairs = channels // 2
                                    both = (zero & 0xFF) * 0x101
                                    T.evaluate(isa.fill_halfwords(pixel, pairs // 2, both))
                        T.evaluate(transform(T.address_of(patch[0]), target, 4 * channels))
            with T.serial(0, outputs // 2) as pair:
                T.evaluate(
                    multiply(
                        T.address_of(wide[0]),
                        T.address_of(weights[pair * pair_words]),
                        T.address_of(total[0]),
                    )
                )
                T.evaluate(
                    finish(
                        T.address_of(total[0]),
                        T.address_of(constants[pair * pair_constants]),
                        T.address_of(y[pair * 2]),
                        T.address_of(places[0]),
                        exact.constant,
                    )
                )
        if exact.clamp is not None:
            with T.serial(0, y_size) as i:
                T.buffer_store(y, clamp(y[i], *(T.int8(v) for v in exact.clamp)), [i])
    return Kernel(
        ib.get(),
        (0, words.reshape(-1), per_channel),
        macs=out_h * out_w * weight.value.size,
        inplace={0: _distance(operation, groups, tiles_x)},
    )


def _buffer(name: str, size: int, dtype: str) -> tirx.Var:
    buffer = T.alloc_buffer((size,), dtype)
    IRBuilder.name(name, buffer)
    return buffer


def _bound(name: str, value: tirx.Expr) -> tirx.Var:
    var = T.Bind(value)
    IRBuilder.name(name, var)
    return var


def _distance(operation: Operation, groups: list[int], tiles_x: int) -> int:
    """How far below its input the result may start: tiles read and write two rows at a time."""
    _, _, width, channels = operation.args[0].shape
    _, _, out_w, outputs = operation.out.shape
    top, left = operation.attrs["padding"][:2]
    tiles = np.array(groups)[:, None] + np.arange(winograd.TILES)
    y, x = tiles // tiles_x * 2, tiles % tiles_x * 2
    reads = (np.maximum(y - top, 0) * width + np.maximum(x - left, 0)) * channels
    writes = ((y + 1) * out_w + x + 2) * outputs
    return inplace.distance(reads.min(axis=1), writes.max(axis=1))
