"""A plain numpy interpreter of TFLite models: slow, and meant to be read.

It states what mcuforge believes LiteRT's reference kernels do. `tests/unit/test_arithmetic.py`
compares the two, so that a kernel which disagrees with LiteRT can be held against a few lines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mcuforge.exact import arithmetic, bilinear


class Value(NamedTuple):
    """A tensor: values, type, shape, float32 scales [channels] and integer zero points."""

    data: np.ndarray | None
    dtype: str
    shape: tuple[int, ...]
    scales: np.ndarray
    zero_points: np.ndarray

    @property
    def scale(self) -> float:
        return self.scales[0]

    @property
    def zero_point(self) -> int:
        return int(self.zero_points[0]) if len(self.zero_points) else 0

    @property
    def centered(self) -> np.ndarray:
        """Values less their zero point, int64."""
        return self.data.astype(np.int64) - self.zero_point


class Call(NamedTuple):
    """One operator: its name, input values, outputs without data, and options."""

    name: str
    inputs: list[Value | None]
    outputs: list[Value]
    options: object

    def activate(self, values: np.ndarray) -> np.ndarray:
        """Fused activation of integers without zero point, and the cast to the output's type."""
        output = self.outputs[0]
        names = {0: "NONE", 1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6"}
        fused = names[getattr(self.options, "fusedActivationFunction", 0)]
        if output.dtype == "float32":
            low, high = {
                "NONE": (-np.inf, np.inf),
                "RELU": (0, np.inf),
                "RELU6": (0, 6),
                "RELU_N1_TO_1": (-1, 1),
            }[fused]
            return np.clip(values, low, high).astype(np.float32)
        limits = arithmetic.activation_range(fused, output.scale, output.zero_point, output.dtype)
        return np.clip(values + output.zero_point, *limits).astype(output.dtype)


def run(model: bytes, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs of the first subgraph of `model`."""
    model = schema.ModelT.InitFromPackedBuf(model)
    graph = model.subgraphs[0]
    names = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    dtypes = {value: name.lower() for name, value in vars(schema.TensorType).items()}
    values = []
    for tensor in graph.tensors:
        shape = tuple(map(int, tensor.shape)) if tensor.shape is not None else ()
        quantization = tensor.quantization
        scaled = quantization is not None and quantization.scale is not None
        dtype = dtypes[tensor.type]
        data = model.buffers[tensor.buffer].data
        if data is not None:
            data = np.frombuffer(bytes(data), dtype).reshape(shape)
        values.append(
            Value(
                data,
                dtype,
                shape,
                np.float32(quantization.scale if scaled else []),
                np.int64(quantization.zeroPoint if scaled else []),
            )
        )
    for index, data in zip(graph.inputs, inputs, strict=True):
        values[index] = values[index]._replace(data=data)
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        name = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        call = Call(
            name,
            [None if index < 0 else values[index] for index in operator.inputs],
            [values[index] for index in operator.outputs],
            operator.builtinOptions,
        )
        results = OPERATORS[name](call)
        results = results if isinstance(results, list) else [results]
        for index, result in zip(operator.outputs, results, strict=True):
            values[index] = values[index]._replace(data=np.asarray(result))
    return [values[index].data for index in graph.outputs]


def windows(
    call: Call, data: np.ndarray, kernel: tuple[int, int], fill: float
) -> Callable[[int, int], np.ndarray]:
    """NHWC input of a sliding window operator.

    Returns a function of the position (ky, kx) in the window giving the elements there for all
    output positions, [N, OH, OW, C]; `fill` outside of the image.
    """
    o, out = call.options, call.outputs[0].shape
    dilation = (getattr(o, "dilationHFactor", 1), getattr(o, "dilationWFactor", 1))
    stride = (o.strideH, o.strideW)
    start = (0, 0)
    if o.padding == schema.Padding.SAME:
        start = [
            arithmetic.same_padding(data.shape[1 + i], kernel[i], stride[i], dilation[i])[0]
            for i in range(2)
        ]
    reach = [out[1 + i] * stride[i] + kernel[i] * dilation[i] for i in range(2)]
    padded = np.full((data.shape[0], *reach, data.shape[3]), fill, data.dtype)
    rows, columns = (min(data.shape[1 + i], reach[i] - start[i]) for i in range(2))
    padded[:, start[0] : start[0] + rows, start[1] : start[1] + columns] = data[:, :rows, :columns]
    return lambda ky, kx: padded[
        :,
        ky * dilation[0] : ky * dilation[0] + (out[1] - 1) * stride[0] + 1 : stride[0],
        kx * dilation[1] : kx * dilation[1] + (out[2] - 1) * stride[1] + 1 : stride[1],
    ]


def convolution(call: Call) -> np.ndarray:
    x, w, *bias = call.inputs
    output = call.outputs[0]
    quantized = x.dtype != "float32"
    data = x.centered if quantized else np.float64(x.data)
    weights = np.float64(w.data)
    if quantized:
        weights = w.data.astype(np.int64) - (w.zero_point if w.dtype == "uint8" else 0)
    at = windows(call, data, w.shape[1:3], 0)
    accumulators = np.zeros(output.shape, data.dtype)
    for ky in range(w.shape[1]):
        for kx in range(w.shape[2]):
            if call.name == "CONV_2D":
                groups = x.shape[3] // w.shape[3]
                taps = np.split(weights[:, ky, kx, :], groups)
                parts = np.split(at(ky, kx), groups, axis=3)
                accumulators += np.concatenate(
                    [part @ tap.T for part, tap in zip(parts, taps, strict=True)], axis=3
                )
            else:
                multiplier = w.shape[3] // x.shape[3]
                accumulators += np.repeat(at(ky, kx), multiplier, axis=3) * weights[0, ky, kx]
    if bias and bias[0] is not None:
        accumulators += bias[0].data
    if not quantized:
        return call.activate(accumulators)
    scales = arithmetic.convolution_scales(x.scale, w.scales, output.scale, x.dtype)
    mantissas, shifts = np.transpose([arithmetic.quantize_multiplier(real) for real in scales])
    return call.activate(
        arithmetic.multiply_by_quantized_multiplier(accumulators, mantissas, shifts)
    )


def transpose_conv(call: Call) -> np.ndarray:
    """Scatters each pixel of the input, as the reference kernel does."""
    _, w, x, *bias = call.inputs
    output, o = call.outputs[0], call.options
    quantized = x.dtype != "float32"
    data = x.centered if quantized else np.float64(x.data)
    weights = np.float64(w.data)
    if quantized:
        weights = w.data.astype(np.int64) - (w.zero_point if w.dtype == "uint8" else 0)
    size, kernel, strides = output.shape[1:3], w.shape[1:3], (o.strideH, o.strideW)
    same = o.padding == schema.Padding.SAME
    start = [
        arithmetic.same_padding(size[i], kernel[i], strides[i])[0] if same else 0 for i in range(2)
    ]
    accumulators = np.zeros(output.shape, data.dtype)
    for iy, ix, ky, kx in np.ndindex(*x.shape[1:3], *kernel):
        oy, ox = iy * strides[0] + ky - start[0], ix * strides[1] + kx - start[1]
        if 0 <= oy < size[0] and 0 <= ox < size[1]:
            accumulators[:, oy, ox] += data[:, iy, ix] @ weights[:, ky, kx].T
    if bias and bias[0] is not None:
        accumulators += bias[0].data
    if not quantized:
        return call.activate(accumulators)
    scales = arithmetic.convolution_scales(x.scale, w.scales, output.scale, x.dtype)
    mantissas, shifts = np.transpose([arithmetic.quantize_multiplier(real) for real in scales])
    return call.activate(
        arithmetic.multiply_by_quantized_multiplier(accumulators, mantissas, shifts)
    )


def fully_connected(call: Call) -> np.ndarray:
    x, w, *bias = call.inputs
    output = call.outputs[0]
    quantized = x.dtype != "float32"
    if quantized:
        per_tensor = len(w.scales) == 1
        weights = w.data.astype(np.int64) - (w.zero_point if per_tensor else 0)
        accumulators = x.centered.reshape(-1, w.shape[1]) @ weights.T
    else:
        accumulators = np.float64(x.data).reshape(-1, w.shape[1]) @ np.float64(w.data).T
    if bias and bias[0] is not None:
        accumulators += bias[0].data
    if quantized:
        scales = arithmetic.fully_connected_scales(x.scale, w.scales, output.scale)
        accumulators = arithmetic.fully_connected_round(accumulators, scales)
    return call.activate(accumulators).reshape(output.shape)


def add_or_sub(call: Call) -> np.ndarray:
    a, b = call.inputs
    sign = -1 if call.name == "SUB" else 1
    if a.dtype == "float32":
        return call.activate(a.data + sign * b.data)
    p = arithmetic.add_parameters(a.scale, b.scale, call.outputs[0].scale)
    scale = arithmetic.multiply_by_quantized_multiplier
    total = scale(a.centered << p.left_shift, *p.input1) + sign * scale(
        b.centered << p.left_shift, *p.input2
    )
    return call.activate(scale(total, *p.output))


def mul(call: Call) -> np.ndarray:
    a, b = call.inputs
    if a.dtype == "float32":
        return call.activate(a.data * b.data)
    multiplier = arithmetic.multiply_multiplier(a.scale, b.scale, call.outputs[0].scale)
    return call.activate(
        arithmetic.multiply_by_quantized_multiplier(a.centered * b.centered, *multiplier)
    )


def pool(call: Call) -> np.ndarray:
    x, output = call.inputs[0], call.outputs[0]
    kernel = (call.options.filterHeight, call.options.filterWidth)
    positions = [(ky, kx) for ky in range(kernel[0]) for kx in range(kernel[1])]
    if call.name == "MAX_POOL_2D":
        wide = x.data.astype(np.float32 if x.dtype == "float32" else np.int64)
        at = windows(call, wide, kernel, -np.inf if x.dtype == "float32" else -(2**31))
        result = np.max([at(*position) for position in positions], axis=0)
    else:
        wide = x.data.astype(np.float64 if x.dtype == "float32" else np.int64)
        at = windows(call, wide, kernel, 0)
        total = sum(at(*position) for position in positions)
        at = windows(call, np.ones_like(wide), kernel, 0)
        count = sum(at(*position) for position in positions)
        if x.dtype == "float32":
            result = total / count
        else:  # C division: truncating
            result = np.where(
                total > 0, (total + count // 2) // count, -((count // 2 - total) // count)
            )
    return call.activate(result - output.zero_point)


def mean(call: Call) -> np.ndarray:
    x, axes = call.inputs
    output = call.outputs[0]
    axes = tuple({int(axis) % len(x.shape) for axis in np.atleast_1d(axes.data)})
    if x.dtype == "float32":
        return np.mean(np.float64(x.data), axes).astype(np.float32).reshape(output.shape)
    count = math.prod(int(x.shape[axis]) for axis in axes)
    multiplier = arithmetic.mean_multiplier(x.scale, output.scale, count)
    total = x.centered.sum(axes).reshape(output.shape)
    return call.activate(arithmetic.multiply_by_quantized_multiplier(total, *multiplier))


def softmax(call: Call) -> np.ndarray:
    x, output = call.inputs[0], call.outputs[0]
    if x.dtype == "float32":
        shifted = np.float64(x.data) - x.data.max(-1, keepdims=True)
        powers = np.exp(shifted * call.options.beta)
        return (powers / powers.sum(-1, keepdims=True)).astype(np.float32)
    table = arithmetic.softmax_exp_table(x.scale, call.options.beta).astype(np.int64)
    low, high = arithmetic.quantized_range(output.dtype)
    result = np.empty(x.shape, output.dtype)
    divide = arithmetic.rounding_divide_by_power_of_two
    for row in np.ndindex(x.shape[:-1]):
        values = x.data[row].astype(np.int64)
        powers = table[values.max() - values]
        total = int(divide(powers, arithmetic.SOFTMAX_INTEGER_BITS).sum())
        reciprocal, bits = arithmetic.softmax_reciprocal(total)
        quotients = divide((powers * reciprocal + (1 << 30)) >> 31, bits + 31 - 8)
        result[row] = np.clip(quotients + low, low, high)
    return result


def unary(call: Call) -> np.ndarray:
    x, output = call.inputs[0], call.outputs[0]
    alpha = getattr(call.options, "alpha", 0.0)
    if x.dtype == "float32":
        reals = np.float64(x.data)
        if call.name in ("LOG", "RSQRT"):
            reals = np.where(reals < 0, np.nan, reals)
        return {
            "ABS": lambda: np.abs(reals),
            "TANH": lambda: np.tanh(reals),
            "LOGISTIC": lambda: 1 / (1 + np.exp(-reals)),
            "EXP": lambda: np.exp(reals),
            "LOG": lambda: np.log(reals),
            "RSQRT": lambda: 1 / np.sqrt(reals),
            "RELU_0_TO_1": lambda: np.clip(reals, 0, 1),
            "RELU": lambda: np.maximum(reals, 0),
            "RELU6": lambda: np.clip(reals, 0, 6),
            "RELU_N1_TO_1": lambda: np.clip(reals, -1, 1),
            "LEAKY_RELU": lambda: np.where(reals > 0, reals, reals * alpha),
            "HARD_SWISH": lambda: reals * np.clip(reals + 3, 0, 6) / 6,
        }[call.name]().astype(np.float32)
    table = arithmetic.unary_table(
        call.name, x.scale, x.zero_point, output.scale, output.zero_point, x.dtype, alpha
    )
    return table[x.data.astype(np.int64) - arithmetic.quantized_range(x.dtype)[0]]


def quantize(call: Call) -> np.ndarray:
    x, output = call.inputs[0], call.outputs[0]
    low, high = arithmetic.quantized_range(output.dtype)
    if x.dtype == "float32":
        values = arithmetic.round_half_away(x.data / np.float32(output.scale))
        return np.clip(values + output.zero_point, low, high).astype(output.dtype)
    multiplier = arithmetic.requantize_multiplier(x.scale, output.scale)
    values = arithmetic.multiply_by_quantized_multiplier(x.centered, *multiplier)
    return np.clip(values + output.zero_point, low, high).astype(output.dtype)


def dequantize(call: Call) -> np.ndarray:
    x = call.inputs[0]
    return (np.float64(x.scale) * x.centered).astype(np.float32)


def pad(call: Call) -> np.ndarray:
    x, amounts, *constant = call.inputs
    fill = constant[0].data.item() if constant else call.outputs[0].zero_point
    return np.pad(x.data, amounts.data, constant_values=fill)


def concatenation(call: Call) -> np.ndarray:
    output = call.outputs[0]
    parts = [value.data for value in call.inputs]
    if output.dtype == "uint8":
        parts = [
            arithmetic.concatenation_table(
                value.scale, value.zero_point, output.scale, output.zero_point
            )[value.data]
            for value in call.inputs
        ]
    return np.concatenate(parts, axis=call.options.axis)


def strided_slice(call: Call) -> np.ndarray:
    x, begin, end, strides = call.inputs
    o = call.options
    slices = []
    for entry, step in enumerate(strides.data):
        first = None if o.beginMask >> entry & 1 else int(begin.data[entry])
        last = None if o.endMask >> entry & 1 else int(end.data[entry])
        if o.shrinkAxisMask >> entry & 1:
            slices.append(first or 0)
        else:
            slices.append(slice(first, last, int(step)))
    return x.data[tuple(slices)]


def resize_nearest(call: Call) -> np.ndarray:
    x, size = call.inputs
    o = call.options
    rows, columns = (
        arithmetic.nearest_indices(
            x.shape[1 + i], int(size.data[i]), o.alignCorners, o.halfPixelCenters
        )
        for i in range(2)
    )
    return x.data[:, rows][:, :, columns]


def slice_(call: Call) -> np.ndarray:
    x, begin, size = call.inputs
    bounds = zip(begin.data, size.data, strict=True)
    return x.data[tuple(slice(b, None if s == -1 else b + s) for b, s in bounds)]


def split_v(call: Call) -> list[np.ndarray]:
    x, _, axis = call.inputs
    along = int(axis.data.item())
    ends = np.cumsum([output.shape[along] for output in call.outputs])
    return np.split(x.data, ends[:-1], along)


def unpack(call: Call) -> list[np.ndarray]:
    return list(np.moveaxis(call.inputs[0].data, call.options.axis, 0))


def resize_bilinear(call: Call) -> np.ndarray:
    x, size = call.inputs
    o, real = call.options, x.dtype == "float32"
    one = 1.0 if real else 1024
    data = x.data.astype(np.float64 if real else np.int64)
    for axis in (1, 2):
        indices, weight = bilinear.positions(
            x.shape[axis], int(size.data[axis - 1]), o.alignCorners, o.halfPixelCenters, x.dtype
        )
        weight = weight.reshape(-1, *[1] * (3 - axis))
        below, above = (data.take(index, axis) for index in indices.T)
        data = below * (one - weight) + above * weight
    if real:
        return data.astype(np.float32)
    return (np.sign(data) * ((np.abs(data) + (1 << 19)) >> 20)).astype(x.dtype)


def prelu(call: Call) -> np.ndarray:
    x, alpha = call.inputs
    if x.dtype == "float32":
        return np.where(x.data < 0, x.data * alpha.data, x.data)
    kept, scaled = arithmetic.prelu_multipliers(x.scale, alpha.scale, call.outputs[0].scale)
    scale = arithmetic.multiply_by_quantized_multiplier
    negative = scale(x.centered * alpha.centered, *scaled)
    return call.activate(np.where(x.centered < 0, negative, scale(x.centered, *kept)))


def gather(call: Call) -> np.ndarray:
    x, positions = call.inputs
    axis, batch = call.options.axis, call.options.batchDims
    axis %= len(x.shape)
    result = np.empty(call.outputs[0].shape, x.dtype)
    for index in np.ndindex(positions.shape[:batch]):
        result[index] = np.take(x.data[index], positions.data[index], axis - batch)
    return result


def blocks(call: Call) -> np.ndarray:
    """Images, and images of blocks whose pixels lie along the channels."""
    x, output, size = call.inputs[0], call.outputs[0], call.options.blockSize
    space = output.shape if call.name == "DEPTH_TO_SPACE" else x.shape
    n, height, width, channels = space
    if call.name == "DEPTH_TO_SPACE":
        apart = x.data.reshape(n, height // size, width // size, size, size, channels)
    else:
        apart = x.data.reshape(n, height // size, size, width // size, size, channels)
    return apart.swapaxes(2, 3).reshape(output.shape)


def batches(call: Call) -> np.ndarray:
    """Every pixel of a block belongs to an image of its own."""
    x, sizes, widths = (value.data for value in call.inputs)
    output = call.outputs[0]
    n, joins = min(len(x), output.shape[0]), call.name == "BATCH_TO_SPACE_ND"
    result = np.full(output.shape, output.zero_point, x.dtype)
    wide, narrow = (result, x) if joins else (x, result)
    for image in range(len(narrow)):
        offset = np.unravel_index(image // n, sizes)
        for place in np.ndindex(narrow.shape[1:-1]):
            at = place * sizes + offset - widths[:, 0]
            if np.all(at >= 0) and np.all(at < wide.shape[1:-1]):
                there, here = (image % n, *at), (image, *place)
                if joins:
                    result[there] = x[here]
                else:
                    result[here] = x[there]
    return result


def mirror_pad(call: Call) -> np.ndarray:
    x, widths = call.inputs
    mode = ("reflect", "symmetric")[call.options.mode]
    return np.pad(x.data, widths.data, mode)


def compare(call: Call) -> np.ndarray:
    """Values of 8 bits as multiples of 1/256, rounded."""
    sides = []
    for value in call.inputs:
        sides.append(value.data)
        if value.dtype in ("int8", "uint8"):
            multiplier = arithmetic.quantize_multiplier(float(value.scale))
            shifted = value.centered << 8
            sides[-1] = arithmetic.multiply_by_quantized_multiplier(shifted, *multiplier)
    return {
        "EQUAL": np.equal,
        "GREATER": np.greater,
        "GREATER_EQUAL": np.greater_equal,
        "LESS": np.less,
        "LESS_EQUAL": np.less_equal,
        "LOGICAL_AND": np.logical_and,
        "LOGICAL_OR": np.logical_or,
        "NOT_EQUAL": np.not_equal,
    }[call.name](*sides)


def cast(call: Call) -> np.ndarray:
    x, dtype = call.inputs[0], call.outputs[0].dtype
    if x.dtype != "float32" or dtype in ("float32", "bool"):
        return x.data.astype(dtype)
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    whole = [min(max(int(real), low), high) for real in x.data.reshape(-1)]
    return np.array(whole, dtype).reshape(x.shape)


def select(call: Call) -> np.ndarray:
    condition, a, b = (value.data for value in call.inputs)
    if call.name == "SELECT" and condition.ndim < a.ndim:
        condition = condition.reshape(*condition.shape, *[1] * (a.ndim - condition.ndim))
    return np.where(condition, a, b)


def split(call: Call) -> list[np.ndarray]:
    axis, x = call.inputs
    return np.split(x.data, len(call.outputs), int(axis.data.item()))


OPERATORS: dict[str, Callable[[Call], np.ndarray | list[np.ndarray]]] = {
    "ABS": unary,
    "ADD": add_or_sub,
    "AVERAGE_POOL_2D": pool,
    "BATCH_TO_SPACE_ND": batches,
    "BROADCAST_TO": lambda call: np.broadcast_to(call.inputs[0].data, call.outputs[0].shape),
    "CAST": cast,
    "CONCATENATION": concatenation,
    "CONV_2D": convolution,
    "DEPTHWISE_CONV_2D": convolution,
    "DEPTH_TO_SPACE": blocks,
    "DEQUANTIZE": dequantize,
    "EQUAL": compare,
    "EXPAND_DIMS": lambda call: call.inputs[0].data.reshape(call.outputs[0].shape),
    "FILL": lambda call: np.broadcast_to(call.inputs[1].data, call.outputs[0].shape),
    "FLOOR": lambda call: np.floor(call.inputs[0].data),
    "FULLY_CONNECTED": fully_connected,
    "GATHER": gather,
    "EXP": unary,
    "GREATER": compare,
    "GREATER_EQUAL": compare,
    "HARD_SWISH": unary,
    "LEAKY_RELU": unary,
    "LESS": compare,
    "LESS_EQUAL": compare,
    "LOG": unary,
    "LOGICAL_AND": compare,
    "LOGICAL_NOT": lambda call: ~call.inputs[0].data,
    "LOGICAL_OR": compare,
    "LOGISTIC": unary,
    "MAXIMUM": lambda call: np.maximum(call.inputs[0].data, call.inputs[1].data),
    "MAX_POOL_2D": pool,
    "MEAN": mean,
    "MINIMUM": lambda call: np.minimum(call.inputs[0].data, call.inputs[1].data),
    "MIRROR_PAD": mirror_pad,
    "MUL": mul,
    "NEG": lambda call: (-np.atleast_1d(call.inputs[0].data)).reshape(call.outputs[0].shape),
    "NOT_EQUAL": compare,
    "PACK": lambda call: np.stack([value.data for value in call.inputs], call.options.axis),
    "PAD": pad,
    "PADV2": pad,
    "PRELU": prelu,
    "QUANTIZE": quantize,
    "RELU": unary,
    "RELU6": unary,
    "RELU_0_TO_1": unary,
    "RELU_N1_TO_1": unary,
    "RESHAPE": lambda call: call.inputs[0].data.reshape(call.outputs[0].shape),
    "RESIZE_BILINEAR": resize_bilinear,
    "RESIZE_NEAREST_NEIGHBOR": resize_nearest,
    "SELECT": select,
    "SELECT_V2": select,
    "SHAPE": lambda call: np.int32(call.inputs[0].shape),
    "SLICE": slice_,
    "RSQRT": unary,
    "SOFTMAX": softmax,
    "SPACE_TO_BATCH_ND": batches,
    "SPACE_TO_DEPTH": blocks,
    "SPLIT": split,
    "SPLIT_V": split_v,
    "SQUEEZE": lambda call: call.inputs[0].data.reshape(call.outputs[0].shape),
    "STRIDED_SLICE": strided_slice,
    "SUB": add_or_sub,
    "TANH": unary,
    "TILE": lambda call: np.tile(call.inputs[0].data, call.inputs[1].data),
    "TRANSPOSE_CONV": transpose_conv,
    "TRANSPOSE": lambda call: np.transpose(call.inputs[0].data, call.inputs[1].data),
    "UNPACK": unpack,
}
