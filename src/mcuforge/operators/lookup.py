"""Element-wise functions of one 8-bit tensor, as tables over its 256 values.

ABS, TANH, LOGISTIC, EXP, LOG, RSQRT, RELU and its like, LEAKY_RELU, HARD_SWISH.
"""

import numpy as np
from tvm import relax

from mcuforge.exact import arithmetic
from mcuforge.operators.quantize import table_kernel
from mcuforge.tir.integer_op import integer_op
from mcuforge.tir.qdq import Quantized, Region
from mcuforge.tir.registry import Kernel, Operation, kernel, restores

lookup = integer_op("lookup", lambda shapes, attrs: (shapes[0], attrs["dtype"]))
"""``lookup(x, table, function, dtype)``: table (256,) over the values of x in increasing order.

Attrs: function names what the table computes; dtype is the table's.
"""

_CLAMPS = {
    (0.0, np.inf): "RELU",
    (0.0, 6.0): "RELU6",
    (-1.0, 1.0): "RELU_N1_TO_1",
    (0.0, 1.0): "RELU_0_TO_1",
}
_FUNCTIONS = {
    "relax.abs": "ABS",
    "relax.tanh": "TANH",
    "relax.sigmoid": "LOGISTIC",
    "relax.exp": "EXP",
    "relax.log": "LOG",
    "relax.rsqrt": "RSQRT",
    "relax.nn.leakyrelu": "LEAKY_RELU",
}


@restores(*_FUNCTIONS)
def _restore_function(region: Region) -> relax.Expr | None:
    name = region.call.op.name
    alpha = float(region.call.attrs.alpha) if name == "relax.nn.leakyrelu" else 0.0
    x = region.operand(region.call.args[0])
    return None if x is None else _table(region, x, _FUNCTIONS[name], alpha)


@restores("relax.dequantize")
def _restore_clamp(region: Region) -> relax.Expr | None:
    """RELU and its like standing alone: nothing between dequantize and the activation."""
    x = region.operand(region.call)
    function = _CLAMPS.get((region.low, region.high))
    return None if x is None or function is None else _table(region, x, function)


@restores("relax.divide")
def _restore_hard_swish(region: Region) -> relax.Expr | None:
    """x * clip(x + 3, 0, 6) / 6."""
    product, six = (region.lookup(arg) for arg in region.call.args)
    if not _calls(product, "relax.multiply") or not _is(region, six, 6.0):
        return None
    clip = region.lookup(product.args[1])
    if not _calls(clip, "relax.clip") or [float(a.value) for a in clip.args[1:]] != [0.0, 6.0]:
        return None
    shifted = region.lookup(clip.args[0])
    if not _calls(shifted, "relax.add") or not _is(region, shifted.args[1], 3.0):
        return None
    x = region.operand(product.args[0])
    if x is None or region.lookup(shifted.args[0]) is not region.lookup(product.args[0]):
        return None
    return _table(region, x, "HARD_SWISH")


def _calls(expr: relax.Expr, op: str) -> bool:
    return isinstance(expr, relax.Call) and expr.op.name == op


def _is(region: Region, expr: relax.Expr, value: float) -> bool:
    constant = region.constant(expr)
    return constant is not None and constant.size == 1 and constant.item() == value


def _table(region: Region, x: Quantized, function: str, alpha: float = 0.0) -> relax.Expr:
    quantization = (float(x.scale), x.zero_point, region.scale, region.zero_point)
    return look_up(
        x, arithmetic.unary_table(function, *quantization, region.dtype, alpha), function
    )


def look_up(x: Quantized, table: np.ndarray, function: str) -> relax.Expr:
    """``lookup``, or its result where x is constant."""
    if x.value is None:
        return lookup(x.expr, relax.const(table), function=function, dtype=str(table.dtype))
    return relax.const(table[x.value.astype(np.int64) - arithmetic.quantized_range(x.dtype)[0]])


@kernel("lookup", opt_level=1)
def _lookup(operation: Operation) -> Kernel:
    return table_kernel(operation, operation.args[1].value)
