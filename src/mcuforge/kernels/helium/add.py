"""ADD and SUB with Helium: one multiply-add of each operand, proven on all pairs of values."""

import numpy as np
from tvm.tirx.script import builder as T

from mcuforge.isa import helium
from mcuforge.operators.add import affine
from mcuforge.tir.function import Function, address
from mcuforge.tir.registry import Kernel, Operation, kernel

# int32 lanes of a vector. Sums of fewer than two vectors are left to scalar loops. On an emulated
# Cortex-M55 (gcc 12 and clang 19, -O3) a pointwise convolution and a sum of eight take 95 and 82
# instructions with vectors, 228 and 175 with the sum in a scalar loop.
_LANES = 4


@kernel("add", opt_level=3, needs={"helium"})
def _add(operation: Operation) -> Kernel | None:
    a, b = operation.args
    size = int(np.prod(operation.out.shape))
    if (
        not (a.dtype == b.dtype == operation.out.dtype == "int8")
        or not (a.shape == b.shape == operation.out.shape)
        or (operation.attrs["clamp_min"], operation.attrs["clamp_max"]) != (-128, 127)
        or size < 2 * _LANES
    ):
        return None
    exact = affine(operation)
    if exact is None:
        return None
    f = Function("add")
    x1, x2 = f.param("a", size), f.param("b", size)
    y = f.param("y", size)

    def four(at):
        left, right = helium.vldrb_s32(address(x1, at)), helium.vldrb_s32(address(x2, at))
        total = helium.vmul_n_s32(left, T.int32(exact.a))
        total = helium.vmla_n_s32(total, right, T.int32(exact.b))
        total = helium.vadd_n_s32(total, T.int32(exact.c))
        total = helium.vshl_r_s32(total, T.int32(-exact.shift))
        f.do(helium.vstrb_s32(address(y, at), helium.vqmovn_s32(total)))

    with f.loop("i", size // _LANES) as i:
        four(i * _LANES)
    for rest in range(size // _LANES * _LANES, size):
        # Fewer than four are left: one at a time.
        total = T.cast(x1[rest], "int32") * exact.a
        total = total + T.cast(x2[rest], "int32") * exact.b + exact.c
        clamped = T.max(T.min(total >> exact.shift, T.int32(127)), T.int32(-128))
        f.store(y, rest, T.cast(clamped, "int8"))
    return Kernel(f.done(), (0, 1), inplace={0: 0, 1: 0})
