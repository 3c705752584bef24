"""Matrix times vector with Helium: four output channels a pass."""

import numpy as np
from tvm.tirx.script import builder as T

from mcuforge.isa import helium as mve
from mcuforge.kernels.helium.common import LANES, LEAST_MACS, exact_requantization, is_int8
from mcuforge.kernels.helium.conv2d import dot
from mcuforge.tir.function import Function, address, lesser
from mcuforge.tir.registry import Kernel, Operation, kernel

# Longest dot product, in vectors, that is written without a loop; else vectors in the loop's body.
_UNROLLED, _GROUP = 10, 4
# Most iterations of that loop that compilers would unroll.
_HIDDEN = 8


@kernel("fully_connected", opt_level=3, needs={"helium"})
def _fully_connected(operation: Operation) -> Kernel | None:
    rows = int(np.prod(operation.args[0].shape[:-1]))
    return matrix_vector(operation, operation.args[1].value, rows, "fully_connected")


@kernel("conv2d", opt_level=3, needs={"helium"}, rank=1)
def _single_pixel(operation: Operation) -> Kernel | None:
    """A convolution whose kernel covers the whole image: one output pixel."""
    attrs, weight = operation.attrs, operation.args[1].value
    if (
        operation.args[0].shape[1:] != weight.shape[1:]
        or any(attrs["padding"])
        or attrs["groups"] != 1
    ):
        return None
    return matrix_vector(
        operation, weight.reshape(len(weight), -1), operation.args[0].shape[0], "conv2d"
    )


def matrix_vector(operation: Operation, weight: np.ndarray, rows: int, name: str) -> Kernel | None:
    """Every row of the input times a matrix (o, i)."""
    if not is_int8(operation):
        return None
    bias, scale = operation.args[2].value, operation.args[3].value
    outputs, inputs = weight.shape
    exact = exact_requantization(operation, weight, bias, scale)
    if exact is None or rows * weight.size < LEAST_MACS:
        return None
    product = dot(weight, exclusive=True)
    count = len(product.starts)
    # The last four channels may overlap the four before; below four the last lane is repeated.
    passes, lanes = -(-outputs // 4), min(outputs, 4)
    firsts = np.minimum(np.arange(passes) * 4, max(outputs - 4, 0))[:, np.newaxis]
    channels = firsts + np.minimum(np.arange(4), lanes - 1)
    weights = product.weights[channels[:, :lanes]]
    stream = weights.transpose(0, 2, 1, 3).reshape(passes, -1)
    # Behind the weights of four channels come their constants, so that one pointer walks over all.
    shared = [len(set(column)) == 1 for column in exact.columns]
    own = [c for c, same in zip(exact.columns, shared, strict=True) if not same]
    tail = [v[channels] for v in own]
    tail = np.stack(tail, 1) if own else np.empty((passes, 0, 4))
    tail = tail.astype("<i4").reshape(passes, -1)
    stream = np.concatenate([stream, tail.view(np.int8)], 1)
    stride = stream.shape[1]

    f = Function(name)
    x = f.param("x", rows * inputs)
    w = f.param("weight", stream.size)
    args: list[int | np.ndarray] = [0, stream.reshape(-1)]
    looped = (count if inputs % LANES == 0 else count - 1) // _GROUP if count > _UNROLLED else 0
    # In memory: immediate values would be built anew in every pass, and compilers unroll a short
    # loop whose count they know into more addresses than there are registers.
    common = [c[0] for c, same in zip(exact.columns, shared, strict=True) if same]
    common += [looped] if looped else []
    if common:
        args.append(np.array(common, np.int32))
        p = f.param("params", len(common), "int32")
    y = f.param("y", rows * outputs)

    def multiply(acc, x_at, w_at, index):
        a = f.let("a", product.load(x, x_at, index))
        vectors = [
            mve.vldrw_s8(address(w, w_at + (index * lanes + i) * LANES)) for i in range(lanes)
        ]
        return [
            f.let("acc", mve.vmladav_s8(a, v) if s is None else mve.vmladava_s8(s, a, v))
            for s, v in zip(acc, vectors, strict=True)
        ]

    scalars = [f.let("param", p[i]) for i in range(sum(shared))]
    with f.loop("row", rows) as row, f.loop("channels", passes) as index:
        first = f.let("weights", index * stride)
        x_row = row * inputs
        acc = [None] * lanes
        if looped:
            sums = [f.variable(f"acc{i}", T.int32(0)) for i in range(lanes)]
            with f.loop("group", p[len(scalars)] if looped <= _HIDDEN else looped) as group:
                acc = [s.value for s in sums]
                x_at = f.let("x_at", x_row + group * (_GROUP * LANES))
                w_at = f.let("w_at", first + group * (_GROUP * lanes * LANES))
                for i in range(_GROUP):
                    acc = multiply(acc, x_at, w_at, i)
                for s, value in zip(sums, acc, strict=True):
                    s.set(value)
            acc = [s.value for s in sums]
        for i in range(looped * _GROUP, count):
            acc = multiply(acc, x_row, first, i)
        value = f.let("acc", mve.vmov_s32(*(acc[min(i, lanes - 1)] for i in range(4))))
        vectors = iter(
            mve.vldrw_s32(address(w, first + (count * lanes + i) * LANES)) for i in range(len(own))
        )
        rest = iter(scalars)
        columns = [next(rest if same else vectors) for same in shared]
        result = mve.vqmovn_s32(exact.unsaturated(value, *columns))
        out = row * outputs
        if outputs < 4:
            places = mve.vmov_u32(*(T.uint32(min(i, lanes - 1)) for i in range(4)))
            f.do(mve.vstrb_scatter_s32(address(y, out), places, result))
        else:
            channel = lesser(index * 4, outputs - 4) if outputs % 4 else index * 4
            f.do(mve.vstrb_s32(address(y, out + channel), result))
    return Kernel(f.done(), tuple(args), macs=rows * weight.size)
