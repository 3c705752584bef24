"""FULLY_CONNECTED."""

import numpy as np
from tvm import relax
from tvm.script import tirx as T

from mcuforge.exact import arithmetic
from mcuforge.tir.channels import WeightedSum
from mcuforge.tir.integer_op import Traits, integer_op, macs_of_weights
from mcuforge.tir.qdq import Region
from mcuforge.tir.registry import Kernel, Operation, kernel, restores
from mcuforge.tir.requantize import accumulator_bound, clamp, exact_lines, requantize

fully_connected = integer_op(
    "fully_connected",
    lambda shapes, attrs: ([*shapes[0][:-1], shapes[1][0]], attrs["dtype"]),
    Traits(channels=WeightedSum(), macs=macs_of_weights),
)
"""``fully_connected(x, weight, bias, scale, **attrs)``: exact FULLY_CONNECTED.

Args: x (..., i) int8/uint8; weight (o, i); bias (o,) int32; scale (o,) float64.
Attrs: input_zero_point, weight_zero_point, zero_point, clamp_min, clamp_max, rounding, dtype.
"""


@restores("relax.matmul", takes_bias=True)
def _restore(region: Region) -> relax.Call | None:
    x, weight = (region.operand(arg) for arg in region.call.args)
    if x is None or weight is None or weight.value is None or weight.value.ndim != 2:
        return None
    outputs = weight.value.shape[1]
    bias = np.zeros(outputs, "int32") if region.bias is None else region.bias.value
    scale = arithmetic.fully_connected_scales(x.scale, weight.scale, region.scale)
    low, high = region.clamp
    return fully_connected(
        x.expr,
        relax.const(np.ascontiguousarray(weight.value.T)),
        relax.const(bias.astype("int32")),
        relax.const(np.broadcast_to(scale, outputs).copy(), "float64"),
        input_zero_point=x.zero_point,
        weight_zero_point=weight.zero_point,
        zero_point=region.zero_point,
        clamp_min=low,
        clamp_max=high,
        rounding="once",
        dtype=region.dtype,
    )


@kernel("fully_connected", opt_level=1)
def _scalar(operation: Operation) -> Kernel:
    attrs = operation.attrs
    outputs, inputs = operation.args[1].shape
    rows = int(np.prod(operation.args[0].shape[:-1]))
    x_zero, w_zero, y_zero = (
        attrs[k] for k in ("input_zero_point", "weight_zero_point", "zero_point")
    )
    low, high, dtype = attrs["clamp_min"], attrs["clamp_max"], operation.out.dtype
    x_dtype, w_dtype = operation.args[0].dtype, operation.args[1].dtype
    weight, bias, scale = (operand.value for operand in operation.args[1:])
    exact = exact_lines(operation, scale, accumulator_bound(operation, weight, bias))
    m_dtype = str(exact.multiplier.dtype)

    @T.prim_func(private=True)
    def fully_connected(
        x: T.Buffer((rows, inputs), x_dtype),
        weight: T.Buffer((outputs, inputs), w_dtype),
        bias: T.Buffer((outputs,), "int32"),
        multiplier: T.Buffer((outputs,), m_dtype),
        addend: T.Buffer((outputs,), "int64"),
        shift: T.Buffer((outputs,), "int32"),
        y: T.Buffer((rows, outputs), dtype),
    ):
        for row, o in T.grid(rows, outputs):
            acc: T.int32 = bias[o]
            for i in range(inputs):
                acc += (T.cast(x[row, i], "int32") - x_zero) * (
                    T.cast(weight[o, i], "int32") - w_zero
                )
            result: T.let = requantize(acc, multiplier[o], addend[o], shift[o], exact.halves)
            y[row, o] = T.cast(clamp(result + y_zero, low, high), dtype)

    args = (0, 1, 2, exact.multiplier, exact.addend, exact.shift)
    return Kernel(fully_connected, args)
