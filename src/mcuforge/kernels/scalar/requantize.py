"""Requantization for cores that multiply 32 by 32 bits and keep the upper word.

The formula is the high word of ``kernels.requantize``. Its sums are a power of two times TFLite's,
256 if they fit, and a bias is added to them: accumulators start with the upper bits of the bias,
and the lower ones are added at the end. A bias of 1000 is 3 to start with and 232 at the end, since
``(acc + 3) * 256 + 232 = acc * 256 + 1000``. Layers for which it has no constants take the long
line of ``exact.lines``, whose sums need 64 bits.
"""

from dataclasses import dataclass

import numpy as np
from tvm import ir, tirx
from tvm.tirx.script import builder as T

from mcuforge.exact.lines import Halves
from mcuforge.kernels.requantize import HighWord, high_word
from mcuforge.tir.function import Function, Variable
from mcuforge.tir.registry import Operation
from mcuforge.tir.requantize import accumulator_bound, clamp, exact_lines, requantize

BETTER = frozenset({"dsp", "helium"})
"""Features with which a core has better kernels than those of this folder."""
IN_ORDER = ("no-schedule-insns",)
"""GCC otherwise moves the loads of a block to its beginning, and has no registers left for them."""

# A definition: int32 ends below it.
_LIMIT = 1 << 31
# How many times TFLite's the sums are, the most precise first. Sums of 24 bits fit 32 bits 256
# times, sums of 27 bits 32 times; others take the long line. Instructions an inference, emulated
# Cortex-M3, gcc 12 and clang 19, -O3: a pointwise convolution of 25x5x64 to 64 channels takes
# 1,241,204 and 1,440,116, without the first unit 1,325,876 and 1,481,738; a dense layer of 2048 to
# 16 takes 90,403 and 81,162, without the second 90,536 and 82,469.
_UNITS = (1 << 8, 1 << 5)


@dataclass(frozen=True)
class Requantizer:
    """From accumulators to outputs, and what accumulators start with.

    Attributes:
        starts: (o,) int32, bias and input zero point.
        columns: arrays (o,) that the formula reads, in its order.
        exact: shift, c and whether a q is needed; or how halves round on the long line.
        zero_point: of the output, added at the end.
        clamp: limits of the output.
        constants: (o,) bool, channels whose weights are to be taken as zero.
    """

    starts: np.ndarray
    columns: tuple[np.ndarray, ...]
    exact: HighWord | Halves
    zero_point: int
    clamp: tuple[int, int]
    constants: np.ndarray

    def parameters(self, f: Function) -> list[tirx.Var]:
        """Declares the arrays; the first one holds the starts."""
        names = ("start", "multiplier", "low", "more")
        arrays = (self.starts, *self.columns)
        return [f.constant(name, array) for name, array in zip(names, arrays, strict=False)]

    def output(
        self, f: Function, parameters: list[tirx.Var], acc: Variable, channel: ir.Expr
    ) -> ir.Expr:
        """The output int8 of an accumulator."""
        loaded = [array[channel] for array in parameters[1:]]
        if isinstance(self.exact, HighWord):
            total = f.let("total", acc.value * self.exact.unit + T.cast(loaded[1], "int32"))
            if self.exact.signed:
                nonnegative = T.bitwise_not(T.shift_right(total, T.int32(31)))
                total = f.let("total", total + T.bitwise_and(nonnegative, loaded[2]))
            product = T.cast(total, "int64") * T.cast(loaded[0], "int64")
            high = T.cast(T.shift_right(product, T.int64(32)), "int32")
            if self.exact.constant:
                high = high + self.exact.constant
            value = T.shift_right(high, T.int32(self.exact.shift))
        else:
            value = requantize(acc.value, *loaded, self.exact) + self.zero_point
        value = f.let("value", value)
        return T.cast(clamp(value, *self.clamp), "int8")


def requantizer(operation: Operation, weight: np.ndarray) -> Requantizer | None:
    """The requantization of an int8 layer; None where accumulators need more than 32 bits.

    Args:
        operation: operands x, weight, bias, scale.
        weight: its weights (o, ...), symmetric, whatever the order behind o.
    """
    attrs = operation.attrs
    bias, scale = operation.args[2].value.astype(np.int64), operation.args[3].value
    sums = weight.reshape(len(weight), -1).astype(np.int64)
    starts = bias - attrs["input_zero_point"] * sums.sum(axis=1)
    limits = attrs["clamp_min"], attrs["clamp_max"]
    for unit in _UNITS:
        exact = high_word(operation, weight, unit)
        if exact is not None:
            biases = exact.bias + np.where(exact.constants, 0, starts) * unit
            multiplier, *positive = exact.per_channel().T.copy()
            columns = (multiplier, (biases % unit).astype(np.uint8), *positive)
            first = (biases // unit).astype(np.int32)
            return Requantizer(first, columns, exact, 0, limits, exact.constants)
    bound = accumulator_bound(operation, weight, bias)
    if bound + 255 * np.abs(sums).sum(axis=1).max() >= _LIMIT:
        return None
    line = exact_lines(operation, scale, bound)
    return Requantizer(
        starts.astype(np.int32), (line.multiplier, line.addend, line.shift), line.halves,
        attrs["zero_point"], limits, np.zeros(len(weight), bool),
    )  # fmt: skip
