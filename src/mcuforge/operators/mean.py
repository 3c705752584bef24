"""MEAN over any dimensions of an 8-bit tensor."""

import numpy as np
from tvm import relax
from tvm.script import tirx as T

from mcuforge.exact import arithmetic
from mcuforge.exact.lines import Lines
from mcuforge.tir.indexing import offset, strides
from mcuforge.tir.integer_op import integer_op
from mcuforge.tir.qdq import Region
from mcuforge.tir.registry import Kernel, Operation, kernel, restores
from mcuforge.tir.requantize import clamp, exact_line, requantize


def _infer(shapes, attrs):
    axes = attrs["axes"]
    kept = [1 if axis in axes else size for axis, size in enumerate(shapes[0])]
    if not attrs["keepdims"]:
        kept = [size for axis, size in enumerate(shapes[0]) if axis not in axes]
    return kept, attrs["dtype"]


mean = integer_op("mean", _infer)
"""``mean(x, **attrs)``: exact MEAN.

Attrs: axes (increasing, not negative), keepdims, in_scale, in_zero_point, scale, zero_point,
clamp_min, clamp_max, dtype.
"""


@restores("relax.mean")
def _restore(region: Region) -> relax.Call | None:
    x = region.operand(region.call.args[0])
    if x is None:
        return None
    rank, axes = len(x.shape), region.call.attrs.axis
    low, high = region.clamp
    return mean(
        x.expr,
        axes=sorted({int(a) % rank for a in axes} if axes is not None else range(rank)),
        keepdims=bool(region.call.attrs.keepdims),
        in_scale=float(x.scale),
        in_zero_point=x.zero_point,
        scale=region.scale,
        zero_point=region.zero_point,
        clamp_min=low,
        clamp_max=high,
        dtype=region.dtype,
    )


def division(operation: Operation, count: int) -> Lines:
    """From a sum of ``count`` inputs, without their zero points, to the mean at its scale."""
    attrs = operation.attrs
    factor = arithmetic.mean_multiplier(attrs["in_scale"], attrs["scale"], count)
    return exact_line(operation, factor, 255 * count)


@kernel("mean", opt_level=1)
def _scalar(operation: Operation) -> Kernel:
    attrs, shape = operation.attrs, operation.args[0].shape
    axes, in_zero, zero_point = attrs["axes"], attrs["in_zero_point"], attrs["zero_point"]
    low, high = attrs["clamp_min"], attrs["clamp_max"]
    in_dtype, dtype = operation.args[0].dtype, operation.out.dtype
    steps = strides(shape)
    inner = [(shape[a], steps[a]) for a in axes]
    outer = [(shape[a], steps[a]) for a in range(len(shape)) if a not in axes]
    count, size = (int(np.prod([s for s, _ in dims])) for dims in (inner, outer))
    elements = size * count
    multiplier, addend, shift, halves = division(operation, count).single()

    def position(number, dims):
        return offset(number, [size for size, _ in dims], [step for _, step in dims])

    @T.prim_func(private=True)
    def mean(x: T.Buffer((elements,), in_dtype), y: T.Buffer((size,), dtype)):
        for o in range(size):
            total: T.int32 = -in_zero * count
            for i in range(count):
                total += T.cast(x[position(o, outer) + position(i, inner)], "int32")
            result: T.let = requantize(total, multiplier, T.int64(addend), shift, halves)
            y[o] = T.cast(clamp(result + zero_point, low, high), dtype)

    return Kernel(mean, (0,))
