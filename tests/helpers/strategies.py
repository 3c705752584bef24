"""Hypothesis strategies that draw small TFLite graphs of one operator, and inputs for them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st

from helpers import choosing, moving
from helpers.drawer import INTEGER_TYPES, QUANTIZED_TYPES, Case, Drawer, drawing, like
from helpers.moving import MOVED_TYPES
from helpers.tflite_graphs import Spec, Tensor
from mcuforge.exact.arithmetic import same_padding

ACTIVATIONS = ("NONE", "RELU", "RELU6", "RELU_N1_TO_1")


def sliding(drawer: Drawer, dilated: bool) -> tuple[tuple[int, ...], tuple[int, int], dict]:
    """Image shape NHWC, kernel and options of a sliding window operator that fits."""
    kernel = (drawer.integer(1, 4), drawer.integer(1, 4))
    stride = (drawer.integer(1, 3), drawer.integer(1, 3))
    dilation = (drawer.integer(1, 2), drawer.integer(1, 2)) if dilated else (1, 1)
    if max(stride) > 1 and drawer.choice(True, False):
        dilation = (1, 1)
    padding = drawer.choice("SAME", "VALID")
    reach = [(kernel[i] - 1) * dilation[i] + 1 for i in range(2)]
    least = [1, 1] if padding == "SAME" else reach
    image = [drawer.integer(low, low + 5) for low in least]
    options = {"padding": padding, "stride_h": stride[0], "stride_w": stride[1]}
    if dilated:
        options |= {"dilation_h_factor": dilation[0], "dilation_w_factor": dilation[1]}
    output = [
        -(-image[i] // stride[i]) if padding == "SAME" else (image[i] - reach[i]) // stride[i] + 1
        for i in range(2)
    ]
    for i in range(2):  # every window of a pool must see the image
        assert same_padding(image[i], kernel[i], stride[i], dilation[i])[0] < max(reach[i], 1)
    shape = (drawer.integer(1, 2), *image, drawer.channels())
    return shape, kernel, options | {"output": output}


def weights(drawer: Drawer, shape: tuple[int, ...], axis: int, offset: bool = False) -> Tensor:
    """Constant weights, now and then with some output channels (along `axis`) all zero.

    float32, uint8 per tensor, int8 per tensor (with a zero point if `offset`) or per channel, then
    now and then with scales that are negative, zero or next to nothing.
    """
    if drawer.dtype == "float32":
        spec = Spec(shape, "float32")
    elif drawer.dtype == "uint8":
        spec = Spec(shape, "uint8", drawer.scale(2**-10, 0.25), drawer.zero_point())
    elif drawer.choice(True, False):
        zero = drawer.zero_point() if offset else 0
        spec = Spec(shape, "int8", drawer.scale(2**-10, 0.25), zero)
    else:
        base = drawer.scale(2**-10, 0.25)
        scales = np.float32(base * 2 ** drawer.random.uniform(-4, 4, shape[axis]))
        if drawer.choice(False, False, True):
            scales *= drawer.random.choice(np.float32([1, -1, 0, 1e-38]), shape[axis])
        spec = Spec(shape, "int8", scales.tolist(), axis=axis)
    values = drawer.values(shape, spec.dtype, int(np.max(spec.zero_point)))
    if np.min(spec.scale or 0) < 0:  # refused otherwise
        values = np.maximum(values, -127)
    if drawer.dtype == "float32":  # sums about as large as their terms: little cancels
        values /= np.sqrt(np.float32(values.size / shape[axis]))
    if drawer.choice(False, False, True):
        dead = drawer.random.integers(0, 2, shape[axis]).astype(bool)
        np.moveaxis(values, axis, 0)[dead] = np.max(spec.zero_point)
    return drawer.graph.constant(values, spec.scale, spec.zero_point, spec.axis)


def bias(drawer: Drawer, channels: int, x: Spec, w: Spec, size: int) -> Tensor | None:
    """int32 or float32 bias, sometimes left out; `size` is the number of products summed."""
    if drawer.dtype == "float32":
        values = drawer.values((channels,))
        return drawer.graph.constant(values)
    limit = 128 * 128 * size
    values = drawer.random.integers(-limit, limit + 1, channels).astype(np.int32)
    if drawer.choice(True, False):
        values //= 64
    scales = np.float32(x.scale) * np.float32(w.scale)
    return drawer.graph.constant(values, scales)


def accumulated(drawer: Drawer, shape: tuple[int, ...], x: Spec, w: Spec, size: int) -> Spec:
    """Output of a sum of `size` products: neither always saturated nor always zero."""
    if drawer.dtype == "float32":
        return Spec(shape, "float32")
    step = float(np.float32(x.scale)) * float(np.max(np.abs(np.float32(w.scale))))
    return drawer.spec(shape, drawer.near(step * 64 * size**0.5))


@drawing
def conv_2d(drawer: Drawer) -> Case:
    shape, kernel, options = sliding(drawer, dilated=True)
    output = options.pop("output")
    groups = drawer.choice(1, 1, 1, 2)
    shape = (*shape[:3], shape[3] * groups)
    channels = drawer.channels() * groups
    x = drawer.spec(shape)
    w = weights(drawer, (channels, *kernel, shape[3] // groups), 0)
    size = kernel[0] * kernel[1] * shape[3] // groups
    tensors = [drawer.input(x), w, bias(drawer, channels, x, w.spec, size)]
    y = accumulated(drawer, (shape[0], *output, channels), x, w.spec, size)
    fused = drawer.choice(*ACTIVATIONS)
    result = drawer.graph.op("CONV_2D", tensors, y, fused_activation_function=fused, **options)
    return drawer.case("CONV_2D", result)


@drawing
def transpose_conv(drawer: Drawer) -> Case:
    """From what a convolution makes of an image back to the image."""
    image, kernel, options = sliding(drawer, dilated=False)
    channels, output = image[3], options.pop("output")
    shape = (image[0], *output, drawer.integer(1, 6))
    x = drawer.spec(shape)
    w = weights(drawer, (channels, *kernel, shape[3]), 0)
    if np.min(w.spec.scale or 0) < 0:  # refused otherwise
        scales = np.abs(np.float32(w.spec.scale)).tolist()
        values = drawer.values(w.spec.shape, "int8")
        w = drawer.graph.constant(values, scales, w.spec.zero_point, w.spec.axis)
    taps = kernel[0] * kernel[1] * shape[3]
    tensors = [drawer.indices(image), w, drawer.input(x)]
    if drawer.choice(True, True, False):
        tensors.append(bias(drawer, channels, x, w.spec, taps))
    result = drawer.graph.op(
        "TRANSPOSE_CONV",
        tensors,
        accumulated(drawer, image, x, w.spec, taps),
        fused_activation_function=drawer.choice(*ACTIVATIONS),
        **options,
    )
    return drawer.case("TRANSPOSE_CONV", result)


@drawing
def depthwise_conv_2d(drawer: Drawer) -> Case:
    shape, kernel, options = sliding(drawer, dilated=True)
    output = options.pop("output")
    multiplier = drawer.integer(1, 3)
    channels = shape[3] * multiplier
    x = drawer.spec(shape)
    w = weights(drawer, (1, *kernel, channels), 3)
    size = kernel[0] * kernel[1]
    tensors = [drawer.input(x), w, bias(drawer, channels, x, w.spec, size)]
    y = accumulated(drawer, (shape[0], *output, channels), x, w.spec, size)
    fused = drawer.choice(*ACTIVATIONS)
    result = drawer.graph.op(
        "DEPTHWISE_CONV_2D",
        tensors,
        y,
        fused_activation_function=fused,
        depth_multiplier=multiplier,
        **options,
    )
    return drawer.case("DEPTHWISE_CONV_2D", result)


@drawing
def fully_connected(drawer: Drawer) -> Case:
    """The input is a matrix, a stack of rows whose shape is kept, or an image taken as one row."""
    rows, channels = drawer.integer(1, 3), drawer.channels()
    match drawer.choice("matrix", "stack", "image"):
        case "matrix":
            shape, lead = (rows, drawer.integer(1, 70)), (rows,)
        case "stack":
            shape, lead = (rows, 2, drawer.integer(1, 70)), (rows, 2)
        case "image":
            shape, lead = (1, *drawer.shape(2, 4), drawer.channels()), (1,)
    depth = int(np.prod(shape[len(lead) :]))
    x = drawer.spec(shape)
    w = weights(drawer, (channels, depth), 0, offset=True)
    tensors = [drawer.input(x), w, bias(drawer, channels, x, w.spec, depth)]
    if drawer.choice(False, False, True):
        tensors[2] = None
    y = accumulated(drawer, (*lead, channels), x, w.spec, depth)
    fused = drawer.choice(*ACTIVATIONS)
    options = {"fused_activation_function": fused, "keep_num_dims": len(lead) > 1}
    return drawer.case("FULLY_CONNECTED", drawer.graph.op("FULLY_CONNECTED", tensors, y, **options))


def binary_inputs(drawer: Drawer, specs: tuple[Spec, Spec]) -> list[Tensor]:
    """Two inputs, or an input and a constant in either place."""
    constant = drawer.choice(None, None, 0, 1)
    return [
        drawer.constant(spec) if i == constant else drawer.input(spec)
        for i, spec in enumerate(specs)
    ]


def broadcast_shapes(drawer: Drawer) -> tuple[tuple[int, ...], ...]:
    """Two shapes that broadcast, and the shape they broadcast to."""
    whole = drawer.shape(drawer.integer(0, 5), 4)
    if drawer.choice(True, False):
        return whole, whole, whole
    other = tuple(drawer.choice(1, extent) for extent in whole)
    other = other[drawer.integer(0, len(other)) :]
    shapes = (whole, other) if drawer.choice(True, False) else (other, whole)
    return *shapes, whole


def element_wise(op: str) -> Callable[[str], st.SearchStrategy[Case]]:
    @drawing
    def strategy(drawer: Drawer) -> Case:
        *shapes, result_shape = broadcast_shapes(drawer)
        a, b = (drawer.spec(shape) for shape in shapes)
        if drawer.dtype == "float32":
            y = drawer.spec(result_shape)
        elif op == "MUL":
            y = drawer.spec(result_shape, drawer.near(a.scale * b.scale * 64))
        else:
            y = drawer.spec(result_shape, drawer.near(max(a.scale, b.scale)))
        fused = drawer.choice(*ACTIVATIONS)
        result = drawer.graph.op(
            op, binary_inputs(drawer, (a, b)), y, fused_activation_function=fused
        )
        return drawer.case(op, result)

    return strategy


def selecting(op: str) -> Callable[[str], st.SearchStrategy[Case]]:
    @drawing
    def strategy(drawer: Drawer) -> Case:
        *shapes, result_shape = broadcast_shapes(drawer)
        y = drawer.spec(result_shape)
        a, b = (Spec(shape, y.dtype, y.scale, y.zero_point) for shape in shapes)
        return drawer.case(op, drawer.graph.op(op, binary_inputs(drawer, (a, b)), y))

    return strategy


def pooling(op: str) -> Callable[[str], st.SearchStrategy[Case]]:
    @drawing
    def strategy(drawer: Drawer) -> Case:
        shape, kernel, options = sliding(drawer, dilated=False)
        output = options.pop("output")
        x = drawer.spec(shape)
        y = Spec((shape[0], *output, shape[3]), x.dtype, x.scale, x.zero_point)
        fused = drawer.choice(*ACTIVATIONS)
        result = drawer.graph.op(
            op,
            [drawer.input(x)],
            y,
            filter_height=kernel[0],
            filter_width=kernel[1],
            fused_activation_function=fused,
            **options,
        )
        return drawer.case(op, result)

    return strategy


@drawing
def mean(drawer: Drawer) -> Case:
    x = drawer.spec(drawer.shape(drawer.integer(1, 5), 5))
    rank = len(x.shape)
    axes = drawer.draw(st.lists(st.integers(0, rank - 1), min_size=1, unique=True))
    keep = drawer.choice(True, False)
    shape = tuple(
        1 if axis in axes else extent
        for axis, extent in enumerate(x.shape)
        if keep or axis not in axes
    )
    y = drawer.spec(shape, None if drawer.dtype == "float32" else drawer.near(x.scale))
    axes = [drawer.choice(axis, axis - rank) for axis in axes]
    result = drawer.graph.op("MEAN", [drawer.input(x), drawer.indices(axes)], y, keep_dims=keep)
    return drawer.case("MEAN", result)


@drawing
def softmax(drawer: Drawer) -> Case:
    x = drawer.spec((*drawer.shape(drawer.integer(0, 4), 3), drawer.integer(1, 20)))
    beta = drawer.choice(1.0, 1.0, 0.5, 2.0)
    zero = {"int8": -128, "uint8": 0, "float32": 0}[drawer.dtype]
    scale = None if drawer.dtype == "float32" else 1 / 256
    y = Spec(x.shape, drawer.dtype, scale, zero)
    return drawer.case("SOFTMAX", drawer.graph.op("SOFTMAX", [drawer.input(x)], y, beta=beta))


def unary(op: str) -> Callable[[str], st.SearchStrategy[Case]]:
    @drawing
    def strategy(drawer: Drawer) -> Case:
        shape = (1, 256) if drawer.choice(True, False) else drawer.shape(drawer.integer(0, 5), 4)
        x = drawer.spec(shape)
        options = {}
        match op:
            case _ if drawer.dtype == "float32":
                y = drawer.spec(shape)
            case "LOGISTIC":  # the reference kernel insists on the scale
                y = Spec(shape, drawer.dtype, 1 / 256, drawer.zero_point())
            case "EXP":  # about as large as its results
                x = Spec(shape, drawer.dtype, drawer.scale(2**-9, 2**-5), x.zero_point)
                y = drawer.spec(shape, drawer.near(np.exp(128 * x.scale) / 128))
            case "LOG":
                y = drawer.spec(shape, drawer.near(1 / 32))
            case "RSQRT":  # LiteRT refuses negative inputs
                x = Spec(shape, drawer.dtype, x.scale, -128)
                y = drawer.spec(shape, drawer.near(x.scale**-0.5 / 256))
            case "TANH":
                y = drawer.spec(shape, drawer.near(1 / 128))
            case "HARD_SWISH":  # at least 1/128 of the input scale
                y = drawer.spec(shape, drawer.near(x.scale))
            case _:
                y = drawer.spec(shape, drawer.near(x.scale))
        if op == "LEAKY_RELU":
            options["alpha"] = float(np.float32(drawer.draw(st.floats(-1.0, 1.5))))
        tensor = drawer.input(x)
        if shape == (1, 256) and drawer.dtype != "float32":
            low = np.iinfo(drawer.dtype).min
            drawer.inputs[0] = np.arange(low, low + 256).astype(drawer.dtype).reshape(shape)
        return drawer.case(op, drawer.graph.op(op, [tensor], y, **options))

    return strategy


@drawing
def pad(drawer: Drawer) -> Case:
    x = drawer.spec(drawer.shape(drawer.integer(1, 5), 3))
    amounts = [(drawer.integer(0, 2), drawer.integer(0, 2)) for _ in x.shape]
    shape = tuple(extent + sum(pair) for extent, pair in zip(x.shape, amounts, strict=True))
    y = Spec(shape, x.dtype, x.scale, x.zero_point)
    tensors = [drawer.input(x), drawer.indices(amounts)]
    if drawer.choice(True, False):
        return drawer.case("PAD", drawer.graph.op("PAD", tensors, y))
    values = drawer.values((1,))
    if values.dtype == np.int64:  # others are refused
        values = values >> 11 << 1
    fill = drawer.graph.constant(values, x.scale, x.zero_point)
    return drawer.case("PADV2", drawer.graph.op("PADV2", [*tensors, fill], y))


@drawing
def concatenation(drawer: Drawer) -> Case:
    shape = drawer.shape(drawer.integer(1, 5), 4)
    axis = drawer.integer(0, len(shape) - 1)
    y = drawer.spec(shape)
    extents = [drawer.integer(1, 4) for _ in range(drawer.integer(1, 4))]
    tensors = []
    for extent in extents:
        scale, zero = y.scale, y.zero_point
        if drawer.dtype == "uint8" and drawer.choice(True, False):
            scale, zero = drawer.near(y.scale), drawer.zero_point()
        part = Spec((*shape[:axis], extent, *shape[axis + 1 :]), y.dtype, scale, zero)
        constant = bool(tensors) and drawer.choice(False, False, True)
        tensors.append(drawer.constant(part) if constant else drawer.input(part))
    shape = (*shape[:axis], sum(extents), *shape[axis + 1 :])
    y = Spec(shape, y.dtype, y.scale, y.zero_point)
    axis = drawer.choice(axis, axis - len(shape))
    return drawer.case("CONCATENATION", drawer.graph.op("CONCATENATION", tensors, y, axis=axis))


@drawing
def pack(drawer: Drawer) -> Case:
    shape = drawer.shape(drawer.integer(0, 4), 4)
    axis, count = drawer.integer(0, len(shape)), drawer.integer(1, 4)
    x = drawer.spec(shape)
    tensors = [drawer.input(x)]
    for _ in range(count - 1):
        tensors.append(drawer.choice(drawer.constant, drawer.input)(x))
    y = like(x, (*shape[:axis], count, *shape[axis:]))
    axis = drawer.choice(axis, axis - len(shape) - 1)
    result = drawer.graph.op("PACK", tensors, y, values_count=count, axis=axis)
    return drawer.case("PACK", result)


@drawing
def reshape(drawer: Drawer) -> Case:
    x = drawer.spec(drawer.shape(drawer.integer(0, 5), 4))
    count = int(np.prod(x.shape))
    rows = drawer.draw(st.sampled_from([d for d in range(1, count + 1) if count % d == 0]))
    y = like(x, (rows, count // rows))
    target = drawer.choice([rows, -1], [rows, count // rows])
    result = drawer.graph.op(
        "RESHAPE", [drawer.input(x), drawer.indices(target)], y, new_shape=list(target)
    )
    return drawer.case("RESHAPE", result)


@drawing
def squeeze(drawer: Drawer) -> Case:
    x = drawer.spec(tuple(drawer.choice(1, extent) for extent in (*drawer.shape(3), 2)))
    ones = [axis for axis, extent in enumerate(x.shape) if extent == 1]
    y = like(x, tuple(extent for extent in x.shape if extent != 1))
    dims = drawer.choice(ones, [])
    return drawer.case(
        "SQUEEZE", drawer.graph.op("SQUEEZE", [drawer.input(x)], y, squeeze_dims=dims)
    )


@drawing
def transpose(drawer: Drawer) -> Case:
    x = drawer.spec(drawer.shape(drawer.integer(1, 5), 4))
    order = drawer.draw(st.permutations(range(len(x.shape))))
    y = like(x, tuple(x.shape[axis] for axis in order))
    result = drawer.graph.op("TRANSPOSE", [drawer.input(x), drawer.indices(order)], y)
    return drawer.case("TRANSPOSE", result)


@drawing
def strided_slice(drawer: Drawer) -> Case:
    """Slices of all dimensions, or of the first few."""
    x = drawer.spec(drawer.shape(drawer.integer(1, 5), 5))
    begin, end, strides, shape = [], [], [], []
    masks = {"begin_mask": 0, "end_mask": 0, "shrink_axis_mask": 0}
    sliced = drawer.choice(len(x.shape), drawer.integer(1, len(x.shape)))
    for axis, extent in enumerate(x.shape[:sliced]):
        step = drawer.choice(1, 1, 2, 3, -1)
        first, last = sorted((drawer.integer(0, extent - 1), drawer.integer(0, extent - 1)))
        chosen = np.arange(extent)[first : last + 1 : abs(step)]
        if drawer.choice(False, False, False, True):
            masks["shrink_axis_mask"] |= 1 << axis
            begin.append(drawer.choice(first, first - extent))
            end.append(begin[-1] + 1 if begin[-1] != -1 else extent)
            strides.append(1)
            continue
        if step > 0:
            begin.append(drawer.choice(first, first - extent))
            end.append(last + 1)
        else:  # from last down to first
            chosen = np.arange(extent)[last : (first - 1 if first else None) : -1]
            begin.append(last)
            end.append(first - 1 if first else -extent - 1)
        if chosen[0] == (0 if step > 0 else extent - 1) and drawer.choice(True, False):
            masks["begin_mask"] |= 1 << axis
        if step > 0 and last == extent - 1 and drawer.choice(True, False):
            masks["end_mask"] |= 1 << axis
        strides.append(step)
        shape.append(len(chosen))
    tensors = [drawer.input(x), *map(drawer.indices, (begin, end, strides))]
    y = like(x, (*shape, *x.shape[sliced:]))
    return drawer.case("STRIDED_SLICE", drawer.graph.op("STRIDED_SLICE", tensors, y, **masks))


@drawing
def split(drawer: Drawer) -> Case:
    shape = drawer.shape(drawer.integer(1, 5), 4)
    axis, parts = drawer.integer(0, len(shape) - 1), drawer.integer(1, 4)
    x = drawer.spec((*shape[:axis], shape[axis] * parts, *shape[axis + 1 :]))
    position = drawer.indices(drawer.choice(axis, axis - len(shape)))
    results = drawer.graph.op(
        "SPLIT", [position, drawer.input(x)], *[like(x, shape)] * parts, num_splits=parts
    )
    return drawer.case("SPLIT", *(results if parts > 1 else [results]))


@drawing
def quantize(drawer: Drawer) -> Case:
    """From the type to one that TFLite quantizes it to."""
    shape = drawer.shape(drawer.integer(0, 5), 4)
    source = drawer.spec(shape)
    results = {
        "int16": ("int8", "int16", "int32"),
        "int32": ("int8", "int16"),
    }.get(source.dtype, QUANTIZED_TYPES)
    if source.dtype == "int32":
        source = Spec(shape, "int32", drawer.scale(2**-24, 2**-8))
    drawer.dtype = drawer.choice(*results)
    if drawer.dtype == "int32":
        y = Spec(shape, "int32", drawer.near(source.scale))
    elif source.dtype == "float32":
        y = drawer.spec(shape)
    else:
        y = drawer.spec(shape, drawer.choice(source.scale, drawer.near(source.scale)))
    tensor = drawer.input(source)
    if source.dtype == "float32" and drawer.choice(True, False):  # exact halves
        steps = drawer.random.integers(-300, 300, shape) / 2
        drawer.inputs[0] = (steps * np.float32(y.scale)).astype(np.float32)
    return drawer.case("QUANTIZE", drawer.graph.op("QUANTIZE", [tensor], y))


@drawing
def dequantize(drawer: Drawer) -> Case:
    x = drawer.spec(drawer.shape(drawer.integer(0, 5), 4))
    y = Spec(x.shape, "float32")
    return drawer.case("DEQUANTIZE", drawer.graph.op("DEQUANTIZE", [drawer.input(x)], y))


def resizing(op: str) -> Callable[[str], st.SearchStrategy[Case]]:
    @drawing
    def strategy(drawer: Drawer) -> Case:
        x = drawer.spec(drawer.shape(4, 6))
        size = drawer.shape(2, 9)
        y = like(x, (x.shape[0], *size, x.shape[3]))
        options = drawer.choice((False, False), (True, False), (False, True))
        result = drawer.graph.op(
            op,
            [drawer.input(x), drawer.indices(size)],
            y,
            align_corners=options[0],
            half_pixel_centers=options[1],
        )
        return drawer.case(op, result)

    return strategy


@drawing
def prelu(drawer: Drawer) -> Case:
    """Alpha is a constant or an input, broadcast to the input's shape."""
    shape = drawer.shape(drawer.integer(1, 4), 4)
    slopes = tuple(drawer.choice(1, extent) for extent in shape)[drawer.integer(0, len(shape)) :]
    x, alpha = drawer.spec(shape), drawer.spec(slopes)
    real = drawer.dtype == "float32"
    y = drawer.spec(shape, None if real else drawer.near(x.scale * max(1, alpha.scale)))
    tensors = [drawer.input(x), drawer.choice(drawer.constant, drawer.input)(alpha)]
    return drawer.case("PRELU", drawer.graph.op("PRELU", tensors, y))


@drawing
def shape_arithmetic(drawer: Drawer) -> Case:
    """RESHAPE to (batch, -1) as converters write it: SHAPE, STRIDED_SLICE, PACK, RESHAPE."""
    x = drawer.spec(drawer.shape(4))
    source = drawer.input(x)
    graph = drawer.graph
    shape = graph.op("SHAPE", [source], Spec((4,), "int32"), out_type="INT32")
    bounds = [drawer.indices(value) for value in ([0], [1], [1])]
    batch = graph.op("STRIDED_SLICE", [shape, *bounds], Spec((), "int32"), shrink_axis_mask=1)
    rest = int(np.prod(x.shape[1:]))
    parts = [batch, drawer.indices(rest)]
    target = graph.op("PACK", parts, Spec((2,), "int32"), values_count=2, axis=0)
    y = like(x, (x.shape[0], rest))
    return drawer.case("SHAPE", graph.op("RESHAPE", [source, target], y))


def convolved(drawer: Drawer, x: Tensor) -> Tensor:
    """A convolution or depthwise convolution of an image, often one that keeps its shape."""
    rows, height, width, channels = x.spec.shape
    kernel = drawer.choice((1, 1), (3, 3), (3, 2))
    stride = drawer.choice(1, 1, 2)
    padding = "SAME"
    if height >= kernel[0] and width >= kernel[1]:
        padding = drawer.choice("SAME", "VALID")
    image = [-(-size // stride) for size in (height, width)]
    if padding == "VALID":
        image = [(size - k) // stride + 1 for size, k in zip((height, width), kernel, strict=True)]
    options = {"padding": padding, "stride_h": stride, "stride_w": stride}
    if drawer.choice(True, False):
        outputs, size = drawer.choice(channels, drawer.channels()), channels
        op, w = "CONV_2D", weights(drawer, (outputs, *kernel, channels), 0)
    else:
        outputs, size = channels, 1
        op, w = "DEPTHWISE_CONV_2D", weights(drawer, (1, *kernel, outputs), 3)
        options["depth_multiplier"] = 1
    size *= kernel[0] * kernel[1]
    y = accumulated(drawer, (rows, *image, outputs), x.spec, w.spec, size)
    tensors = [x, w, bias(drawer, outputs, x.spec, w.spec, size)]
    fused = drawer.choice("NONE", "RELU", "RELU6")
    return drawer.graph.op(op, tensors, y, fused_activation_function=fused, **options)


def transformed(drawer: Drawer, x: Tensor, others: list[Tensor]) -> Tensor:
    """An operator other than a convolution on an image, perhaps with one of the other images."""
    graph, shape = drawer.graph, x.spec.shape
    alike = [other for other in others if other.spec.shape == shape]
    beside = [other for other in others if other.spec.shape[:3] == shape[:3]]
    match drawer.choice("ADD", "MUL", "MAXIMUM", "CONCATENATION", "POOL", "PAD", "RELU", "SPLIT"):
        case "ADD" | "MUL" as op:
            other = drawer.choice(*alike)
            y = drawer.spec(shape)
            if drawer.dtype != "float32":
                scales = x.spec.scale, other.spec.scale
                target = max(scales) if op == "ADD" else scales[0] * scales[1] * 64
                y = drawer.spec(shape, drawer.near(target))
            return graph.op(op, [x, other], y)
        case "MAXIMUM":
            other = drawer.constant(like(x.spec, (1, shape[3])))
            return graph.op("MAXIMUM", [x, other], x.spec)
        case "CONCATENATION":
            other = drawer.choice(*beside)
            if drawer.dtype == "int8":  # copies integers: they must mean the same
                other = graph.op("QUANTIZE", [other], like(x.spec, other.spec.shape))
            y = like(x.spec, (*shape[:3], shape[3] + other.spec.shape[3]))
            return graph.op("CONCATENATION", [x, other], y, axis=3)
        case "POOL":
            op = drawer.choice("MAX_POOL_2D", "AVERAGE_POOL_2D")
            y = like(x.spec, (shape[0], -(-shape[1] // 2), -(-shape[2] // 2), shape[3]))
            options = {"filter_height": 2, "filter_width": 2, "stride_h": 2, "stride_w": 2}
            return graph.op(op, [x], y, padding="SAME", **options)
        case "PAD":
            y = like(x.spec, (shape[0], shape[1] + 1, shape[2] + 2, shape[3]))
            return graph.op("PAD", [x, drawer.indices([[0, 0], [0, 1], [1, 1], [0, 0]])], y)
        case "RELU":
            scale = None if drawer.dtype == "float32" else drawer.near(x.spec.scale)
            return graph.op("RELU", [x], drawer.spec(shape, scale))
        case "SPLIT":
            if shape[3] % 2:
                return convolved(drawer, x)
            y = like(x.spec, (*shape[:3], shape[3] // 2))
            return graph.op("SPLIT", [drawer.indices(3), x], y, y, num_splits=2)[1]


@drawing
def network(drawer: Drawer) -> Case:
    """Several operators in a row and beside each other, with a classifier or without.

    What single operators cannot show: fusion, dead channels, views, tensors that share memory.
    """
    graph = drawer.graph
    shape = (1, drawer.integer(3, 8), drawer.integer(3, 8), drawer.channels())
    images = [drawer.input(drawer.spec(shape))]
    for _ in range(drawer.integer(1, 5)):
        x = drawer.choice(images[-1], images[-1], drawer.choice(*images))
        if drawer.choice(True, False):
            images.append(convolved(drawer, x))
        else:
            images.append(transformed(drawer, x, images))
    x = convolved(drawer, images[-1])
    outputs = [x]
    if drawer.choice(True, False):
        depth, classes = int(np.prod(x.spec.shape)), drawer.integer(2, 5)
        flat = graph.op("RESHAPE", [x, drawer.indices([1, depth])], like(x.spec, (1, depth)))
        w = weights(drawer, (classes, depth), 0)
        tensors = [flat, w, bias(drawer, classes, x.spec, w.spec, depth)]
        y = accumulated(drawer, (1, classes), x.spec, w.spec, depth)
        outputs = [graph.op("FULLY_CONNECTED", tensors, y)]
    if drawer.choice(False, False, True):
        outputs.append(drawer.choice(*images[1:]))
    return drawer.case("NETWORK", *outputs)


ALL_TYPES = (*INTEGER_TYPES, "float32")
OPERATORS: dict[str, tuple[Callable[[str], st.SearchStrategy[Case]], tuple[str, ...]]] = {
    "ABS": (unary("ABS"), ("int8", "float32")),
    "ADD": (element_wise("ADD"), ALL_TYPES),
    "AVERAGE_POOL_2D": (pooling("AVERAGE_POOL_2D"), ALL_TYPES),
    "CONCATENATION": (concatenation, MOVED_TYPES),
    "CONV_2D": (conv_2d, ALL_TYPES),
    "DEPTHWISE_CONV_2D": (depthwise_conv_2d, ALL_TYPES),
    "DEQUANTIZE": (dequantize, QUANTIZED_TYPES),
    "FULLY_CONNECTED": (fully_connected, ALL_TYPES),
    "EXP": (unary("EXP"), ("int8", "float32")),
    "HARD_SWISH": (unary("HARD_SWISH"), ALL_TYPES),
    "LEAKY_RELU": (unary("LEAKY_RELU"), ALL_TYPES),
    "LOG": (unary("LOG"), ("int8", "float32")),
    "LOGISTIC": (unary("LOGISTIC"), ALL_TYPES),
    "MAXIMUM": (selecting("MAXIMUM"), (*ALL_TYPES, "int16")),
    "MAX_POOL_2D": (pooling("MAX_POOL_2D"), ALL_TYPES),
    "MEAN": (mean, ALL_TYPES),
    "MINIMUM": (selecting("MINIMUM"), (*ALL_TYPES, "int16")),
    "MUL": (element_wise("MUL"), ALL_TYPES),
    "NETWORK": (network, ALL_TYPES),
    "PACK": (pack, MOVED_TYPES[:-1]),
    "PAD": (pad, MOVED_TYPES),
    "PRELU": (prelu, ALL_TYPES),
    "QUANTIZE": (quantize, (*ALL_TYPES, "int16", "int32")),
    "RELU": (unary("RELU"), ALL_TYPES),
    "RELU6": (unary("RELU6"), ALL_TYPES),
    "RELU_0_TO_1": (unary("RELU_0_TO_1"), ALL_TYPES),
    "RELU_N1_TO_1": (unary("RELU_N1_TO_1"), ALL_TYPES),
    "RESHAPE": (reshape, MOVED_TYPES),
    "RESIZE_BILINEAR": (resizing("RESIZE_BILINEAR"), ("int8", "float32")),
    "RESIZE_NEAREST_NEIGHBOR": (resizing("RESIZE_NEAREST_NEIGHBOR"), (*ALL_TYPES, "int16")),
    "SHAPE": (shape_arithmetic, ALL_TYPES),
    "RSQRT": (unary("RSQRT"), ("int8", "float32")),
    "SOFTMAX": (softmax, ALL_TYPES),
    "SPLIT": (split, MOVED_TYPES[:-1]),
    "SQUEEZE": (squeeze, MOVED_TYPES),
    "STRIDED_SLICE": (strided_slice, MOVED_TYPES),
    "SUB": (element_wise("SUB"), ALL_TYPES),
    "TANH": (unary("TANH"), ALL_TYPES),
    "TRANSPOSE": (transpose, MOVED_TYPES),
    "TRANSPOSE_CONV": (transpose_conv, ALL_TYPES),
    **choosing.OPERATORS,
    **moving.OPERATORS,
}
"""Strategy of each operator, as a function of the data type, and the data types it has.

NETWORK is none of TFLite's operators but several of them in one graph.
"""
