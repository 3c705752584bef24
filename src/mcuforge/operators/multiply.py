"""MUL of two 8-bit tensors, with NumPy broadcasting."""

import numpy as np
from tvm import relax
from tvm.script import tirx as T

from mcuforge.exact import arithmetic
from mcuforge.tir.indexing import broadcast_strides, offset
from mcuforge.tir.integer_op import integer_op
from mcuforge.tir.qdq import Region
from mcuforge.tir.registry import Kernel, Operation, kernel, restores
from mcuforge.tir.requantize import clamp, exact_line, requantize

multiply = integer_op(
    "multiply", lambda shapes, attrs: (np.broadcast_shapes(*shapes), attrs["dtype"])
)
"""``multiply(a, b, **attrs)``: exact MUL.

Attrs: a_scale, a_zero_point, b_scale, b_zero_point, scale, zero_point, clamp_min, clamp_max, dtype.
"""


@restores("relax.multiply")
def _restore(region: Region) -> relax.Call | None:
    a, b = (region.operand(arg) for arg in region.call.args)
    if a is None or b is None:
        return None
    low, high = region.clamp
    return multiply(
        a.expr,
        b.expr,
        a_scale=float(a.scale),
        a_zero_point=a.zero_point,
        b_scale=float(b.scale),
        b_zero_point=b.zero_point,
        scale=region.scale,
        zero_point=region.zero_point,
        clamp_min=low,
        clamp_max=high,
        dtype=region.dtype,
    )


@kernel("multiply", opt_level=1)
def _scalar(operation: Operation) -> Kernel:
    attrs, shape, dtype = operation.attrs, operation.out.shape, operation.out.dtype
    low, high, zero_point = attrs["clamp_min"], attrs["clamp_max"], attrs["zero_point"]
    a_zero, b_zero = attrs["a_zero_point"], attrs["b_zero_point"]
    (a_dtype, b_dtype), (a_shape, b_shape) = zip(
        *((o.dtype, o.shape) for o in operation.args), strict=True
    )
    a_steps, b_steps = (broadcast_strides(s, shape) for s in (a_shape, b_shape))
    size, a_size, b_size = (int(np.prod(s)) for s in (shape, a_shape, b_shape))
    factor = arithmetic.multiply_multiplier(attrs["a_scale"], attrs["b_scale"], attrs["scale"])
    multiplier, addend, shift, halves = exact_line(operation, factor, 255 * 255).single()

    @T.prim_func(private=True)
    def multiply(
        a: T.Buffer((a_size,), a_dtype),
        b: T.Buffer((b_size,), b_dtype),
        y: T.Buffer((size,), dtype),
    ):
        for i in range(size):
            product: T.let = (T.cast(a[offset(i, shape, a_steps)], "int32") - a_zero) * (
                T.cast(b[offset(i, shape, b_steps)], "int32") - b_zero
            )
            result: T.let = requantize(product, multiplier, T.int64(addend), shift, halves)
            y[i] = T.cast(clamp(result + zero_point, low, high), dtype)

    inplace = {i: 0 for i, o in enumerate(operation.args) if o.shape == shape}
    return Kernel(multiply, (0, 1), inplace=inplace)
