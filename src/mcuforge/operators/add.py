"""ADD and SUB of two 8-bit tensors, with NumPy broadcasting."""

import numpy as np
from tvm import relax
from tvm.script import tirx as T

from mcuforge.exact import arithmetic, search
from mcuforge.exact.lines import Lines
from mcuforge.tir.channels import Channelwise
from mcuforge.tir.indexing import broadcast_strides, offset
from mcuforge.tir.integer_op import Traits, integer_op
from mcuforge.tir.qdq import Region
from mcuforge.tir.registry import Kernel, Operation, kernel, restores
from mcuforge.tir.requantize import clamp, exact_line, requantize

add = integer_op(
    "add",
    lambda shapes, attrs: (np.broadcast_shapes(*shapes), attrs["dtype"]),
    Traits(channels=Channelwise(operands=2)),
)
"""``add(a, b, **attrs)``: exact ADD; SUB where ``subtract`` is set.

Attrs: a_scale, a_zero_point, b_scale, b_zero_point, scale, zero_point, subtract, clamp_min,
clamp_max, dtype.
"""


@restores("relax.add", "relax.subtract")
def _restore(region: Region) -> relax.Call | None:
    a, b = (region.operand(arg) for arg in region.call.args)
    if a is None or b is None:
        return None
    low, high = region.clamp
    return add(
        a.expr,
        b.expr,
        a_scale=float(a.scale),
        a_zero_point=a.zero_point,
        b_scale=float(b.scale),
        b_zero_point=b.zero_point,
        scale=region.scale,
        zero_point=region.zero_point,
        subtract=region.call.op.name == "relax.subtract",
        clamp_min=low,
        clamp_max=high,
        dtype=region.dtype,
    )


@kernel("add", opt_level=1)
def _scalar(operation: Operation) -> Kernel:
    attrs = operation.attrs
    dtype, (a_dtype, b_dtype) = operation.out.dtype, (o.dtype for o in operation.args)
    low, high, zero_point = attrs["clamp_min"], attrs["clamp_max"], attrs["zero_point"]
    a_terms, b_terms, output = add_terms(operation)
    a_lowest, b_lowest = (arithmetic.quantized_range(d)[0] for d in (a_dtype, b_dtype))
    multiplier, addend, shift, halves = output.single()
    shape, (a_shape, b_shape) = operation.out.shape, (o.shape for o in operation.args)
    a_steps, b_steps = (broadcast_strides(s, shape) for s in (a_shape, b_shape))
    size, a_size, b_size = (int(np.prod(s)) for s in (shape, a_shape, b_shape))

    @T.prim_func(private=True)
    def add(
        a: T.Buffer((a_size,), a_dtype),
        b: T.Buffer((b_size,), b_dtype),
        a_terms: T.Buffer((256,), "int32"),
        b_terms: T.Buffer((256,), "int32"),
        y: T.Buffer((size,), dtype),
    ):
        for i in range(size):
            total: T.let = (
                a_terms[T.cast(a[offset(i, shape, a_steps)], "int32") - a_lowest]
                + b_terms[T.cast(b[offset(i, shape, b_steps)], "int32") - b_lowest]
            )
            result: T.let = requantize(total, multiplier, T.int64(addend), shift, halves)
            y[i] = T.cast(clamp(result + zero_point, low, high), dtype)

    inplace = {i: 0 for i, o in enumerate(operation.args) if o.shape == shape}
    return Kernel(add, (0, 1, a_terms, b_terms), inplace=inplace)


def add_terms(operation: Operation) -> tuple[np.ndarray, np.ndarray, Lines]:
    """What each value of either operand contributes to the sum, and the sum's requantization.

    Returns:
        Two int32 tables (256,) over the operand's values in increasing order (the second negated
        for SUB), and the exact multiply-add from their sum to the output.
    """
    attrs = operation.attrs
    parameters = arithmetic.add_parameters(attrs["a_scale"], attrs["b_scale"], attrs["scale"])
    tables = []
    for operand, name, multiplier in zip(
        operation.args, "ab", (parameters.input1, parameters.input2), strict=True
    ):
        low, high = arithmetic.quantized_range(operand.dtype)
        values = np.arange(low, high + 1, dtype=np.int64) - attrs[f"{name}_zero_point"]
        shifted = values << parameters.left_shift
        tables.append(arithmetic.multiply_by_quantized_multiplier(shifted, *multiplier))
    if attrs["subtract"]:
        tables[1] = -tables[1]
    a_terms, b_terms = (np.asarray(table, np.int32) for table in tables)
    bound = int(np.abs(a_terms).max()) + int(np.abs(b_terms).max())
    line = exact_line(operation, parameters.output, bound)
    return a_terms, b_terms, line


def affine(operation: Operation) -> search.Affine | None:
    """An affine sum of two int8 operands that is exact for all their pairs, or None."""
    attrs = operation.attrs
    a_terms, b_terms, line = add_terms(operation)
    totals = a_terms.astype(np.int64)[:, np.newaxis] + b_terms
    expected = line(totals.reshape(1, -1)).reshape(256, 256) + attrs["zero_point"]
    slopes = attrs["a_scale"] / attrs["scale"], attrs["b_scale"] / attrs["scale"]
    if attrs["subtract"]:
        slopes = slopes[0], -slopes[1]
    return search.affine(np.clip(expected, -128, 127), slopes)
