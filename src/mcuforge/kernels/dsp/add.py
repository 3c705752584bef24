"""Addition on ARMv7E-M: two multiply-adds and a saturation an output.

TFLite scales both operands and their sum with three rounding multiplications. As a function of two
int8 it has 65536 values, and for most scales there is a plane ``(a x + b y + c) >> shift`` that
equals all of them. It is searched for, and checked on every pair of inputs, at compile time.
"""

import numpy as np
from tvm.script import tirx as T

from mcuforge.isa import armv7em as isa
from mcuforge.operators.add import add_terms
from mcuforge.tir.registry import Kernel, Operation, kernel

_TRIES = 300
_UNROLL = 4


@kernel("add", opt_level=3, needs={"dsp"}, unless={"helium"})
def _add(operation: Operation) -> Kernel | None:
    first, second = operation.args
    attrs = operation.attrs
    if (
        first.shape != second.shape
        or {first.dtype, second.dtype, operation.out.dtype} != {"int8"}
        or (attrs["clamp_min"], attrs["clamp_max"]) != (-128, 127)
    ):
        return None
    plane = _plane(operation)
    if plane is None:
        return None
    a, b, c, shift = plane
    saturate = isa.ssat8(shift)
    size = int(np.prod(operation.out.shape))
    unroll = _UNROLL if size % _UNROLL == 0 else 1

    @T.prim_func(private=True)
    def add(
        x: T.Buffer((size,), "int8"), y: T.Buffer((size,), "int8"), z: T.Buffer((size,), "int8")
    ):
        for i in range(size // unroll):
            for j in T.unroll(unroll):
                z[i * unroll + j] = T.cast(
                    saturate(
                        T.cast(x[i * unroll + j], "int32") * a
                        + (T.cast(y[i * unroll + j], "int32") * b + c)
                    ),
                    "int8",
                )

    return Kernel(add, (0, 1), inplace={0: 0, 1: 0})


def _plane(operation: Operation) -> tuple[int, int, int, int] | None:
    """a, b, c and shift, or None if no plane was found that is exact."""
    attrs = operation.attrs
    x_terms, y_terms, line = add_terms(operation)
    total = x_terms.astype(np.int64)[:, None] + y_terms.astype(np.int64)
    exact = total * line.multiplier + line.addend + np.where(total < 0, line.negative, 0)
    exact = np.clip((exact >> line.shift) + attrs["zero_point"], -128, 127)
    values = np.arange(-128, 128, dtype=np.int64)
    slopes = np.array([attrs["a_scale"], attrs["b_scale"]]) / attrs["scale"]
    if attrs["subtract"]:
        slopes[1] = -slopes[1]
    random = np.random.default_rng(0)
    for shift in range(24, 15, -1):
        rounded = np.rint(np.ldexp(slopes, shift)).astype(np.int64)
        if np.abs(rounded).sum() * 128 >= 1 << 31:
            continue
        for attempt in range(_TRIES):
            a, b = rounded + (random.integers(-64, 65, 2) if attempt else 0)
            products = a * values[:, None] + b * values
            reached = np.where(exact > -128, (exact << shift) - products, -(1 << 40)).max()
            missed = np.where(exact < 127, ((exact + 1) << shift) - products, 1 << 40).min()
            if reached >= missed:
                continue
            c = int(min(max((reached + missed) // 2, -(1 << 31)), (1 << 31) - 1))
            largest = max(abs(int(products.min()) + c), abs(int(products.max()) + c), abs(c))
            # The inner sum must not overflow either.
            if reached <= c < missed and largest + abs(int(b)) * 128 < 1 << 31:
                return int(a), int(b), c, shift
    return None
