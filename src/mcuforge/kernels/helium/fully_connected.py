"""Matrix times vector with Helium: four output channels a pass."""

import math

import numpy as np
from tvm import ir, tirx
from tvm.tirx.script import builder as T

from mcuforge.isa import helium
from mcuforge.kernels.helium.common import (
    LANES,
    LEAST_MACS,
    Biased,
    HighLine,
    exact_requantization,
    is_int8,
    multiply_add,
)
from mcuforge.kernels.helium.conv2d import Dot, dot
from mcuforge.tir.function import Function, address, lesser
from mcuforge.tir.registry import Kernel, Operation, kernel

# Measured thresholds: instructions an inference, emulated Cortex-M55, gcc 12 and clang 19, -O3.
#
# Longest dot product, in vectors, that is written without a loop. A dense layer of 160 to 64, ten
# vectors, takes 1,838 and 2,194 so, 1,964 and 2,162 with a loop; of 256 to 64, sixteen vectors,
# 3,249 and 4,650 so, 3,027 and 2,967 with a loop.
_UNROLLED = 10
# Vectors in the loop's body. 640 to 128 take 15,575 and 13,178 with 2, 13,910 and 13,024 with 4,
# 13,303 and 14,505 with 8.
_GROUP = 4
# Most turns of that loop that compilers would unroll, whose number is therefore read from memory.
# 200 to 128, three turns, take 4,953 and 4,997 so, 5,117 and 6,621 with a known number; 640 to 128,
# ten turns, 14,103 and 12,996 so, 13,910 and 13,024 with a known number.
_HIDDEN = 8


@kernel("fully_connected", opt_level=3, needs={"helium"})
def _fully_connected(operation: Operation) -> Kernel | None:
    rows = math.prod(operation.args[0].shape[:-1])
    return matrix_vector(operation, operation.args[1].value, rows, "fully_connected")


@kernel("conv2d", opt_level=3, needs={"helium"}, rank=1)
def _single_pixel(operation: Operation) -> Kernel | None:
    """A convolution whose window covers the whole image: one pixel of the result."""
    g, weight = operation.geometry, operation.args[1].value
    if operation.args[0].shape[1:] != weight.shape[1:] or g.padded or g.groups != 1:
        return None
    return matrix_vector(operation, weight.reshape(len(weight), -1), g.batch, "conv2d")


def matrix_vector(operation: Operation, weight: np.ndarray, rows: int, name: str) -> Kernel | None:
    """Every row of the input times a matrix (o, i)."""
    if not is_int8(operation) or rows * weight.size < LEAST_MACS:
        return None
    bias, scale = operation.args[2].value, operation.args[3].value
    exact = exact_requantization(operation, weight, bias, scale)
    if exact is None:
        return None
    outputs, inputs = weight.shape
    f = Function(name)
    x = f.param("x", rows * inputs)
    dots = _Dots(f, x, dot(weight, exclusive=True), inputs, exact)
    y = f.param("y", rows * outputs)
    dots.begin()
    with f.loop("row", rows) as row, f.loop("channels", dots.passes) as index:
        first = f.let("weights", index * dots.stride)
        acc = dots.sums(row * inputs, first)
        result = helium.vqmovn_s32(dots.requantized(acc, first))
        out = row * outputs
        if outputs < 4:
            places = helium.vmov_u32(*(T.uint32(min(i, outputs - 1)) for i in range(4)))
            f.do(helium.vstrb_scatter_s32(address(y, out), places, result))
        else:
            channel = lesser(index * 4, outputs - 4) if outputs % 4 else index * 4
            f.do(helium.vstrb_s32(address(y, out + channel), result))
    return Kernel(f.done(), (0, *f.constants))


class _Dots:
    """Dot products of a row of x with the weights of four output channels, and their result.

    The last four channels may overlap the four before: of ten channels those are 6 to 9. Fewer than
    four channels are one pass, in which the last one fills the lanes that are left.
    """

    def __init__(
        self, f: Function, x: tirx.Var, product: Dot, inputs: int, exact: Biased | HighLine
    ) -> None:
        """Declares the constants."""
        self._f, self._x, self._dot, self._exact = f, x, product, exact
        self._count, outputs = len(product.starts), len(product.weights)
        # A channel's constants are the same for all channels, or behind the weights of each four.
        self._shared = [len(set(column)) == 1 for column in exact.columns]
        self.passes = -(-outputs // 4)
        self._lanes = min(outputs, 4)
        stream = self._stream(outputs)
        self.stride = stream.shape[1]
        """Bytes from the weights of four channels to those of the next four."""
        self._w = f.constant("weight", stream.reshape(-1))
        self._looped = 0
        if self._count > _UNROLLED:
            self._looped = (self._count if inputs % LANES == 0 else self._count - 1) // _GROUP
        # In memory: immediate values would be built anew in every pass, and compilers unroll a
        # short loop whose count they know into more addresses than there are registers.
        common = [c[0] for c, same in zip(exact.columns, self._shared, strict=True) if same]
        common += [self._looped] if self._looped else []
        self._params = f.constant("params", np.array(common, np.int32)) if common else None

    def _stream(self, outputs: int) -> np.ndarray:
        """(passes, bytes): the weights of four channels, vector by vector, and their constants."""
        firsts = np.minimum(np.arange(self.passes) * 4, max(outputs - 4, 0))[:, np.newaxis]
        channels = firsts + np.minimum(np.arange(4), self._lanes - 1)
        weights = self._dot.weights[channels[:, : self._lanes]]
        weights = weights.transpose(0, 2, 1, 3).reshape(self.passes, -1)
        own = [c for c, same in zip(self._exact.columns, self._shared, strict=True) if not same]
        tail = np.stack([v[channels] for v in own], 1) if own else np.empty((self.passes, 0, 4))
        tail = tail.astype("<i4").reshape(self.passes, -1)
        return np.concatenate([weights, tail.view(np.int8)], 1)

    def begin(self) -> None:
        """Loads the constants that are the same for all channels."""
        common = range(sum(self._shared))
        self._scalars = [self._f.let("param", self._params[i]) for i in common]

    def sums(self, row: ir.Expr, first: ir.Expr) -> list[ir.Expr]:
        """Accumulators of four channels whose weights start at ``first``; x starts at ``row``."""
        f, looped = self._f, self._looped
        acc = [None] * self._lanes
        if looped:
            sums = [f.variable(f"acc{i}", T.int32(0)) for i in range(self._lanes)]
            extent = self._params[len(self._scalars)] if looped <= _HIDDEN else looped
            with f.loop("group", extent) as group:
                acc = [s.value for s in sums]
                x_at = f.let("x_at", row + group * (_GROUP * LANES))
                w_at = f.let("w_at", first + group * (_GROUP * self._lanes * LANES))
                for i in range(_GROUP):
                    acc = self._multiply(acc, x_at, w_at, i)
                for s, value in zip(sums, acc, strict=True):
                    s.set(value)
            acc = [s.value for s in sums]
        for i in range(looped * _GROUP, self._count):
            acc = self._multiply(acc, row, first, i)
        return acc

    def requantized(self, acc: list[ir.Expr], first: ir.Expr) -> ir.Expr:
        """The results of four channels as int32 lanes, to be saturated."""
        f, own = self._f, sum(not same for same in self._shared)
        value = f.let("acc", helium.vmov_s32(*(acc[min(i, self._lanes - 1)] for i in range(4))))
        tail = self._count * self._lanes
        vectors = iter(
            helium.vldrw_s32(address(self._w, first + (tail + i) * LANES)) for i in range(own)
        )
        rest = iter(self._scalars)
        columns = [next(rest if same else vectors) for same in self._shared]
        return self._exact.unsaturated(value, *columns)

    def _multiply(
        self, acc: list[ir.Expr | None], x_at: ir.Expr, w_at: ir.Expr, index: int
    ) -> list[ir.Expr]:
        """Adds the products of one vector of the row."""
        f, lanes = self._f, self._lanes
        a = f.let("a", self._dot.load(self._x, x_at, index))
        vectors = [
            helium.vldrw_s8(address(self._w, w_at + (index * lanes + i) * LANES))
            for i in range(lanes)
        ]
        return [f.let("acc", multiply_add(s, a, v)) for s, v in zip(acc, vectors, strict=True)]
