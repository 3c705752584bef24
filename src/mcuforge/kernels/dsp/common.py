"""What the kernels for the DSP extension share."""

import math

from tvm import tirx
from tvm.tirx.script import builder as T

from mcuforge.tir.function import Function
from mcuforge.tir.registry import Operation
from mcuforge.tir.requantize import clamp


def clamp_results(
    f: Function, y: tirx.Var, operation: Operation, limits: tuple[int, int] | None
) -> None:
    """Clamps the finished result to what is narrower than int8; None: nothing is."""
    if limits is None:
        return
    with f.repeat(math.prod(operation.out.shape)) as i:
        f.store(y, i, clamp(y[i], *(T.int8(limit) for limit in limits)))
