"""What the kernels for the DSP extension share."""

import math

from tvm import tirx
from tvm.tirx.script import builder as T

from mcuforge.tir.function import Function
from mcuforge.tir.registry import Operation
from mcuforge.tir.requantize import clamp


def is_int8(operation: Operation) -> bool:
    """Whether input, weights and result are int8, and the weights known and symmetric."""
    x, weight = operation.args[:2]
    return (
        x.dtype == weight.dtype == operation.out.dtype == "int8"
        and weight.value is not None
        and operation.attrs["weight_zero_point"] == 0
    )


def clamp_results(
    f: Function, y: tirx.Var, operation: Operation, limits: tuple[int, int] | None
) -> None:
    """Clamps the finished result to what is narrower than int8; None: nothing is."""
    if limits is None:
        return
    with f.repeat(math.prod(operation.out.shape)) as i:
        f.store(y, i, clamp(y[i], *(T.int8(limit) for limit in limits)))
