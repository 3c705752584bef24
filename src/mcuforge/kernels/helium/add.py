"""ADD and SUB with Helium: one multiply-add of each operand, proven on all pairs of values."""

from itertools import product
from typing import NamedTuple

import numpy as np
from tvm.tirx.script import builder as T

from mcuforge.isa import helium as mve
from mcuforge.operators.add import add_terms
from mcuforge.tir.function import Function, address
from mcuforge.tir.registry import Kernel, Operation, kernel

_LANES = 4


class Affine(NamedTuple):
    """y = saturate((a * a_factor + b * b_factor + addend) >> shift)."""

    a_factor: int
    b_factor: int
    addend: int
    shift: int


@kernel("add", opt_level=3, needs={"helium"})
def _add(operation: Operation) -> Kernel | None:
    a, b = operation.args
    size = int(np.prod(operation.out.shape))
    if (
        not (a.dtype == b.dtype == operation.out.dtype == "int8")
        or not (a.shape == b.shape == operation.out.shape)
        or size < 2 * _LANES
    ):
        return None
    affine = _affine(operation)
    if affine is None:
        return None
    f = Function("add")
    x1, x2 = f.param("a", size), f.param("b", size)
    y = f.param("y", size)

    def four(at):
        left, right = mve.vldrb_s32(address(x1, at)), mve.vldrb_s32(address(x2, at))
        total = mve.vmul_n_s32(left, T.int32(affine.a_factor))
        total = mve.vmla_n_s32(total, right, T.int32(affine.b_factor))
        total = mve.vadd_n_s32(total, T.int32(affine.addend))
        total = mve.vshl_r_s32(total, T.int32(-affine.shift))
        f.do(mve.vstrb_s32(address(y, at), mve.vqmovn_s32(total)))

    with f.loop("i", size // _LANES) as i:
        four(i * _LANES)
    for rest in range(size // _LANES * _LANES, size):
        # Fewer than four are left: one at a time.
        total = T.cast(x1[rest], "int32") * affine.a_factor
        total = total + T.cast(x2[rest], "int32") * affine.b_factor + affine.addend
        clamped = T.max(T.min(total >> affine.shift, T.int32(127)), T.int32(-128))
        T.buffer_store(y, T.cast(clamped, "int8"), [rest])
    return Kernel(f.done(), (0, 1), inplace={0: 0, 1: 0})


def _affine(operation: Operation) -> Affine | None:
    """Constants that give TFLite's result for all 65536 pairs of operands, or None."""
    attrs = operation.attrs
    a_terms, b_terms, line = add_terms(operation)
    totals = a_terms.astype(np.int64)[:, np.newaxis] + b_terms
    scaled = totals * line.multiplier + line.addend + np.where(totals < 0, line.negative, 0)
    expected = (scaled >> line.shift) + attrs["zero_point"]
    low, high = attrs["clamp_min"], attrs["clamp_max"]
    expected = np.clip(expected, low, high)
    if low > -128 or high < 127:
        return None
    values = np.arange(-128, 128, dtype=np.int64)
    slope = line.multiplier / 2.0**line.shift
    factors = [(int(t[-1]) - int(t[0])) / 255 * slope for t in (a_terms, b_terms)]
    # Largest shift with which nothing overflows 32 bits.
    largest = 128 * (abs(factors[0]) + abs(factors[1])) + abs(float(expected.mean())) + 512
    shift = 31 - int(np.ceil(np.log2(largest)))
    inner, upper = expected > low, expected < high
    for da, db in sorted(product(range(-4, 5), repeat=2), key=lambda d: abs(d[0]) + abs(d[1])):
        a_factor = round(factors[0] * 2**shift) + da
        b_factor = round(factors[1] * 2**shift) + db
        partial = a_factor * values[:, np.newaxis] + b_factor * values
        least = ((expected << shift) - partial)[inner].max(initial=-(2**31))
        most = (((expected + 1) << shift) - partial)[upper].min(initial=2**31) - 1
        addend = (int(least) + int(most)) // 2
        fits = np.abs(partial).max() + abs(addend) < 2**31
        if least <= most and fits:
            return Affine(a_factor, b_factor, addend, shift)
    return None
