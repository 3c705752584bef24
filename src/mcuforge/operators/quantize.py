"""QUANTIZE and DEQUANTIZE, the borders between real and integer tensors."""

import numpy as np
from tvm.script import tirx as T

from mcuforge.exact import arithmetic
from mcuforge.tir.channels import Channelwise
from mcuforge.tir.integer_op import Traits, integer_op
from mcuforge.tir.registry import Kernel, Operation, kernel
from mcuforge.tir.requantize import clamp

quantize = integer_op("quantize", lambda shapes, attrs: (shapes[0], attrs["dtype"]))
"""``quantize(x, scale, zero_point, dtype)``: float32 to 8 or 16 bits, halves away from zero."""

dequantize = integer_op("dequantize", lambda shapes, _attrs: (shapes[0], "float32"))
"""``dequantize(x, scale, zero_point)``: 8 or 16 bits to float32."""

requantize = integer_op(
    "requantize",
    lambda shapes, attrs: (shapes[0], attrs["dtype"]),
    Traits(channels=Channelwise()),
)
"""``requantize(x, in_scale, in_zero_point, scale, zero_point, dtype)``: integers to integers."""


# These three are operators of the model itself, present at every level, level 0 included.
@kernel("quantize", opt_level=0)
def _quantize(operation: Operation) -> Kernel:
    size = int(np.prod(operation.out.shape))
    dtype = operation.out.dtype
    scale, zero_point = operation.attrs["scale"], operation.attrs["zero_point"]
    low, high = arithmetic.quantized_range(dtype)
    # Farther from zero the result saturates anyway; the bound keeps the conversion defined.
    bound = float(2 * (high - low + 1))

    @T.prim_func(private=True)
    def quantize(x: T.Buffer((size,), "float32"), y: T.Buffer((size,), dtype)):
        for i in range(size):
            real: T.let = T.min(T.max(x[i] / T.float32(scale), T.float32(-bound)), T.float32(bound))
            whole: T.let = T.cast(real, "int32")
            rest: T.let = real - T.cast(whole, "float32")
            rounded: T.let = (
                whole
                + T.cast(rest >= T.float32(0.5), "int32")
                - T.cast(rest <= T.float32(-0.5), "int32")
            )
            y[i] = T.cast(clamp(rounded + zero_point, low, high), dtype)

    return Kernel(quantize, (0,), inplace={0: 0})


@kernel("dequantize", opt_level=0)
def _dequantize(operation: Operation) -> Kernel:
    size = int(np.prod(operation.out.shape))
    dtype = operation.args[0].dtype
    scale, zero_point = operation.attrs["scale"], operation.attrs["zero_point"]

    @T.prim_func(private=True)
    def dequantize(x: T.Buffer((size,), dtype), y: T.Buffer((size,), "float32")):
        for i in range(size):
            y[i] = T.cast(T.cast(x[i], "int32") - zero_point, "float32") * T.float32(scale)

    return Kernel(dequantize, (0,))


@kernel("requantize", opt_level=0)
def _requantize(operation: Operation) -> Kernel:
    if operation.args[0].dtype in ("int8", "uint8"):
        return table_kernel(operation, requantization_table(operation))
    attrs, in_dtype, dtype = operation.attrs, operation.args[0].dtype, operation.out.dtype
    size = int(np.prod(operation.out.shape))
    mantissa, shift = arithmetic.requantize_multiplier(attrs["in_scale"], attrs["scale"])
    left, right = max(shift, 0), max(-shift, 0)
    half_up = (1 << right) >> 1
    half_down = max(half_up - 1, 0)
    in_zero_point, zero_point = attrs["in_zero_point"], attrs["zero_point"]
    low, high = arithmetic.quantized_range(dtype)

    # internal/reference/requantize.h; MultiplyByQuantizedMultiplier, internal/common.cc: an int32
    # that is shifted left wraps, then the product is rounded twice.
    @T.prim_func(private=True)
    def requantize(x: T.Buffer((size,), in_dtype), y: T.Buffer((size,), dtype)):
        for i in range(size):
            shifted: T.let = T.cast(
                (T.cast(x[i], "int64") - T.int64(in_zero_point)) << T.int64(left), "int32"
            )
            product: T.let = T.cast(shifted, "int64") * T.int64(mantissa) + T.int64(1 << 30)
            doubled: T.let = product >> T.int64(31)
            # Halves away from zero.
            half: T.let = T.if_then_else(doubled < T.int64(0), T.int64(half_down), T.int64(half_up))
            result: T.let = ((doubled + half) >> T.int64(right)) + T.int64(zero_point)
            y[i] = T.cast(T.min(T.max(result, T.int64(low)), T.int64(high)), dtype)

    return Kernel(requantize, (0,))


def requantization_table(operation: Operation) -> np.ndarray:
    """(256,) results of QUANTIZE from 8 to 8 bits for the inputs in increasing order."""
    attrs = operation.attrs
    in_dtype, dtype = operation.args[0].dtype, operation.out.dtype
    mantissa, shift = arithmetic.requantize_multiplier(attrs["in_scale"], attrs["scale"])
    low, high = arithmetic.quantized_range(in_dtype)
    inputs = np.arange(low, high + 1) - attrs["in_zero_point"]
    outputs = arithmetic.multiply_by_quantized_multiplier(inputs, mantissa, shift)
    table = np.clip(outputs + attrs["zero_point"], *arithmetic.quantized_range(dtype))
    return table.astype(dtype)


def table_kernel(operation: Operation, table: np.ndarray) -> Kernel:
    """A function of one 8-bit tensor, looked up.

    Args:
        operation: one operand, int8 or uint8.
        table: (256,) results for the inputs in increasing order.
    """
    size = int(np.prod(operation.out.shape))
    in_dtype, dtype = operation.args[0].dtype, operation.out.dtype
    lowest, _ = arithmetic.quantized_range(in_dtype)

    @T.prim_func(private=True)
    def lookup(
        x: T.Buffer((size,), in_dtype),
        table: T.Buffer((256,), dtype),
        y: T.Buffer((size,), dtype),
    ):
        for i in range(size):
            y[i] = table[T.cast(x[i], "int32") - lowest]

    return Kernel(lookup, (0, table), inplace={0: 0})
