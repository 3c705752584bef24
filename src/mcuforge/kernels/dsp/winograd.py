"""3x3 convolutions with the DSP extension and 4/9 of the multiplications, at opt_level 4.

See ``isa.dsp.winograd``. Weights take 3.6 times their size in flash, so this is for layers
whose weights are used often, which have few of them. Three tiles of 2x2 outputs are transformed,
multiplied with all output channels, and transformed back, in a scratch of a few kilobytes.
"""

import math
from dataclasses import dataclass

import numpy as np
from tvm import ir, tirx
from tvm.tirx.script import builder as T

from mcuforge.isa.dsp import widen, winograd
from mcuforge.kernels.dsp.common import clamp_results
from mcuforge.kernels.requantize import HighWord, high_word, is_int8
from mcuforge.tir import inplace
from mcuforge.tir.function import Function, address, lesser
from mcuforge.tir.geometry import Geometry
from mcuforge.tir.registry import Kernel, Operation, kernel

# Below, expanding the weights costs too much flash for the time it saves. On an emulated Cortex-M7
# (gcc 12 and clang 19, -O3), 16 to 16 channels on 256 pixels take 341,209 and 343,789 instructions,
# and 545,260 and 562,148 in the blocks of level 3: 200,000 saved for 6 KB of weights. On 64 pixels
# the same 6 KB save 44,000, with 94,887 and 95,357 instead of 138,988 and 144,628.
_LEAST_PIXELS = 256


@kernel("conv2d", opt_level=4, needs={"dsp"}, unless={"helium"})
def _winograd(operation: Operation) -> Kernel | None:
    g = operation.geometry
    if not (is_int8(operation) and _suits(g)):
        return None
    weight = operation.args[1].value
    words, unit = winograd.transform_weights(weight)
    exact = high_word(operation, weight, unit)
    if exact is None:
        return None
    for o in np.flatnonzero(exact.constants):
        words[o // 2, ..., o % 2] = 0
    constants = _constants(operation, exact)
    groups = inplace.group_starts(g.pixels // 4, winograd.TILES)

    f = Function("conv2d")
    x = f.param("x", math.prod(g.shape))
    weights = f.param("weights", words.size, "int32")
    stream = f.param("constants", constants.size, "int32")
    y = f.param("y", math.prod(g.out_shape))
    tiles = _Tiles(
        g=g,
        zero_point=operation.attrs["input_zero_point"],
        wide=f.scratch("wide", 8 * g.channels * winograd.TILES, "int32"),
        sums=f.scratch("sums", 16 * 2 * winograd.TILES, "int32"),
        places=f.scratch("places", winograd.TILES, "int32"),
        patch=f.scratch("patch", 16 * g.channels),
    )
    with f.repeat(len(groups)) as group:
        first = group * winograd.TILES
        if g.pixels // 4 % winograd.TILES:
            first = lesser(first, g.pixels // 4 - winograd.TILES)
        tiles.transform(f, x, f.let("first", first))
        tiles.multiply(f, weights, stream, y, exact)
    clamp_results(f, y, operation, exact.clamp)
    return Kernel(
        f.done(),
        (0, words.reshape(-1), constants.reshape(-1)),
        inplace={0: _distance(g, groups)},
    )


def _suits(g: Geometry) -> bool:
    """Whether tiles cover the result, blocks its channels, and expanding weights pays."""
    return (
        g.rows.window == g.columns.window == 3
        and g.rows.stride == g.columns.stride == 1
        and not g.dilated
        and (g.groups, g.batch) == (1, 1)
        and g.channels % 4 == 0
        and g.outputs % 2 == g.rows.out % 2 == g.columns.out % 2 == 0
        and g.pixels >= _LEAST_PIXELS
    )


def _constants(operation: Operation, exact: HighWord) -> np.ndarray:
    """Bias and requantization of each output channel, as the blocks take them; (o, n) int32."""
    weight, bias = (operand.value for operand in operation.args[1:3])
    zero = operation.attrs["input_zero_point"]
    sums = bias.astype(np.int64) - zero * weight.sum(axis=(1, 2, 3), dtype=np.int64)
    biases = exact.bias + np.where(exact.constants, 0, sums) * exact.unit
    biases = biases.astype(np.uint32).view(np.int32)
    return np.concatenate([biases[:, None], exact.per_channel()], axis=1)


@dataclass(frozen=True)
class _Tiles:
    """A few tiles of 2x2 outputs that are computed together, each from 4x4 inputs.

    Attributes:
        g: the convolution.
        zero_point: of the input, which is what padding holds.
        wide: transformed inputs of all tiles, int32.
        sums: products summed over channels, of two output channels, int32.
        places: element of y of each tile's first output.
        patch: inputs of a tile that reaches into the padding.
    """

    g: Geometry
    zero_point: int
    wide: tirx.Var
    sums: tirx.Var
    places: tirx.Var
    patch: tirx.Var

    def transform(self, f: Function, x: tirx.Var, first: ir.Expr) -> None:
        """Transforms the inputs of the tiles from number ``first`` on."""
        g = self.g
        row, tiles_x = g.columns.size * g.channels, g.columns.out // 2
        block = winograd.transform_inputs(g.channels)
        with f.repeat(winograd.TILES) as place:
            tile_y = f.let("tile_y", T.floordiv(first + place, tiles_x) * 2)
            tile_x = f.let("tile_x", T.floormod(first + place, tiles_x) * 2)
            f.store(self.places, place, (tile_y * g.columns.out + tile_x) * g.outputs)
            above = f.let("above", tile_y - g.rows.before)
            before = f.let("before", tile_x - g.columns.before)
            bottom, right = g.rows.size - 4, g.columns.size - 4
            whole = tirx.all(above >= 0, above <= bottom, before >= 0, before <= right)
            target = address(self.wide, place)
            with f.branch(whole) as (then, otherwise):
                with then():
                    start = address(x, above * row + before * g.channels)
                    f.do(block(start, target, row))
                with otherwise():
                    self._copy_patch(f, x, above, before)
                    f.do(block(address(self.patch, 0), target, 4 * g.channels))

    def _copy_patch(self, f: Function, x: tirx.Var, above: ir.Expr, before: ir.Expr) -> None:
        """Copies 4x4 inputs of which some lie in the padding."""
        g = self.g
        row, both = g.columns.size * g.channels, (self.zero_point & 0xFF) * 0x101
        with f.repeat(4) as i, f.repeat(4) as j:
            pixel = address(self.patch, (i * 4 + j) * g.channels)
            py, px = above + i, before + j
            inside = tirx.all(py >= 0, py < g.rows.size, px >= 0, px < g.columns.size)
            with f.branch(inside) as (then, otherwise):
                with then():
                    start = address(x, py * row + px * g.channels)
                    f.do(widen.copy_bytes(start, pixel, g.channels))
                with otherwise():
                    f.do(widen.fill_halfwords(pixel, g.channels // 4, both))

    def multiply(
        self, f: Function, weights: tirx.Var, constants: tirx.Var, y: tirx.Var, exact: HighWord
    ) -> None:
        """Computes all output channels of the transformed tiles, two at a time."""
        g = self.g
        multiply = winograd.multiply_tiles(g.channels)
        pitch = g.columns.out * g.outputs
        finish = winograd.transform_outputs(g.outputs, pitch, exact.shift, exact.signed)
        pair_weights, pair_constants = (
            2 * int(buffer.shape[0]) // g.outputs for buffer in (weights, constants)
        )
        wide, sums, places = (address(b, 0) for b in (self.wide, self.sums, self.places))
        with f.repeat(g.outputs // 2) as pair:
            f.do(multiply(wide, address(weights, pair * pair_weights), sums))
            own = address(constants, pair * pair_constants)
            f.do(finish(sums, own, address(y, pair * 2), places, exact.constant))


def _distance(g: Geometry, groups: list[int]) -> int:
    """How far below its input the result may start: tiles read and write two rows at a time."""
    tiles = np.array(groups)[:, None] + np.arange(winograd.TILES)
    tiles_x = g.columns.out // 2
    y, x = tiles // tiles_x * 2, tiles % tiles_x * 2
    top, left = np.maximum(y - g.rows.before, 0), np.maximum(x - g.columns.before, 0)
    reads = (top * g.columns.size + left) * g.channels
    writes = ((y + 1) * g.columns.out + x + 2) * g.outputs
    return inplace.distance(reads.min(axis=1), writes.max(axis=1))
