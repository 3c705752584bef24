"""PRELU of 8-bit tensors: negative inputs times alpha, with NumPy broadcasting."""

import numpy as np
from tvm.script import tirx as T

from mcuforge.exact import arithmetic
from mcuforge.tir.channels import Channelwise
from mcuforge.tir.indexing import broadcast_strides, offset
from mcuforge.tir.integer_op import Traits, integer_op
from mcuforge.tir.registry import Kernel, Operation, kernel
from mcuforge.tir.requantize import clamp, exact_line, requantize

prelu = integer_op(
    "prelu",
    lambda shapes, attrs: (np.broadcast_shapes(*shapes), attrs["dtype"]),
    Traits(channels=Channelwise(operands=2)),
)
"""``prelu(x, alpha, **attrs)``: exact PRELU.

Attrs: in_scale, in_zero_point, alpha_scale, alpha_zero_point, scale, zero_point, clamp_min,
clamp_max, dtype.
"""


# An operator of the model itself at every level: the import knows its integers.
@kernel("prelu", opt_level=0)
def _scalar(operation: Operation) -> Kernel:
    attrs, shape, dtype = operation.attrs, operation.out.shape, operation.out.dtype
    low, high, zero_point = attrs["clamp_min"], attrs["clamp_max"], attrs["zero_point"]
    x_zero, alpha_zero = attrs["in_zero_point"], attrs["alpha_zero_point"]
    x_shape, alpha_shape = (operand.shape for operand in operation.args)
    x_steps, alpha_steps = (broadcast_strides(s, shape) for s in (x_shape, alpha_shape))
    size, x_size, alpha_size = (int(np.prod(s)) for s in (shape, x_shape, alpha_shape))
    scales = (attrs[name] for name in ("in_scale", "alpha_scale", "scale"))
    kept, scaled = arithmetic.prelu_multipliers(*scales)
    multiplier, addend, shift, halves = exact_line(operation, kept, 255).single()
    multiplier_2, addend_2, shift_2, halves_2 = exact_line(operation, scaled, 255 * 255).single()

    @T.prim_func(private=True)
    def prelu(
        x: T.Buffer((x_size,), dtype),
        alpha: T.Buffer((alpha_size,), dtype),
        y: T.Buffer((size,), dtype),
    ):
        for i in range(size):
            value: T.int32 = T.cast(x[offset(i, shape, x_steps)], "int32") - x_zero
            if value >= 0:
                value = requantize(value, multiplier, T.int64(addend), shift, halves)
            else:
                value = value * (T.cast(alpha[offset(i, shape, alpha_steps)], "int32") - alpha_zero)
                value = requantize(value, multiplier_2, T.int64(addend_2), shift_2, halves_2)
            y[i] = T.cast(clamp(value + zero_point, low, high), dtype)

    inplace = {i: 0 for i, o in enumerate(operation.args) if o.shape == shape}
    return Kernel(prelu, (0, 1), inplace=inplace)
