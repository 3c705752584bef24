"""Addition with the DSP extension: two multiply-adds and a saturation an output.

TFLite scales both operands and their sum with three rounding multiplications. As a function of two
int8 it has 65536 values, and for most scales there is an affine sum ``(a x + b y + c) >> shift``
that equals all of them. It is searched for, and checked on every pair, at compile time.
"""

import numpy as np
from tvm.script import tirx as T

from mcuforge.isa.dsp import words
from mcuforge.operators.add import affine
from mcuforge.tir.registry import Kernel, Operation, kernel

# Outputs in a turn of the loop. On an emulated Cortex-M7 (gcc 12 and clang 19, -O3) 4,096 outputs
# take 32,789 and 36,886 instructions with 1, 30,744 and 28,696 with 2, 30,739 and 26,648 with 4,
# 29,204 and 25,624 with 8.
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
    exact = affine(operation)
    if exact is None:
        return None
    a, b, c, shift = exact
    saturate = words.ssat8(shift)
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
