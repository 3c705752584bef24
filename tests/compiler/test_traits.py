"""What an operator declares is all that passes know of it: operators that no pass has heard of."""

import numpy as np
import pytest
from test_passes import SCALE, check, const, conv_attrs
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from mcuforge.operators.add import add
from mcuforge.operators.conv2d import conv2d
from mcuforge.passes.dead_channels import RemoveDeadChannels
from mcuforge.passes.fold_zero_points import FoldZeroPoints
from mcuforge.passes.fuse_pad import FusePad
from mcuforge.passes.rewrite import bindings
from mcuforge.passes.select_kernels import select_kernels
from mcuforge.tir.channels import Channelwise, WeightedSum
from mcuforge.tir.integer_op import Traits, integer_op, macs_of_weights
from mcuforge.tir.registry import KERNELS, Declaration, Kernel


def same_type(shapes, _attrs):
    return shapes[0], "int8"


def dense_type(shapes, attrs):
    """That of a 1x1 convolution."""
    (n, height, width, _), (outputs, _) = shapes[:2]
    top, left, bottom, right = attrs.get("padding", (0, 0, 0, 0))
    return [n, height + top + bottom, width + left + right, outputs], "int8"


undeclared = integer_op("test_undeclared", same_type)
"""It might mix channels, as SOFTMAX does."""
negated = integer_op("test_negated", same_type, Traits(Channelwise(lambda _operation, x: -x)))
opaque = integer_op("test_opaque", same_type, Traits(Channelwise()))
dense = integer_op(
    "test_dense",
    dense_type,
    Traits(WeightedSum(), outside=lambda attrs: attrs["outside"], macs=macs_of_weights),
)


def weights(values, bias):
    """Constants of a 1x1 convolution."""
    values = np.array(values, "int8")
    outputs, inputs = values.shape
    return (
        const(values.reshape(outputs, 1, 1, inputs), "int8"),
        const(bias, "int32"),
        const([SCALE] * outputs, "float64"),
    )


def between(operator, first, second):
    """1x1 convolution, the operator, 1x1 convolution."""

    @I.ir_module
    class Module:
        @R.function
        def main(x: R.Tensor((1, 4, 4, 2), "int8")):
            with R.dataflow():
                a = conv2d(x, *weights(*first), **conv_attrs())
                b = operator(a)
                gv = conv2d(b, *weights(*second), **conv_attrs())
                R.output(gv)
            return gv

    return Module


# Channel 1 is the constant 40 / 4 - 128 = -118, channel 2 is read by nobody.
FIRST = [[1, 2], [0, 0], [3, 4]], [1, 40, 3]
SECOND = [[1, 5, 0], [3, 7, 0]], [100, 200]


def test_channels_of_an_operator_that_declares_nothing_stay() -> None:
    model = between(undeclared, FIRST, SECOND)
    for transform in (RemoveDeadChannels(), FusePad()):
        check(transform, model, model)


def test_channels_of_a_declared_operator_go_and_its_constants_fold() -> None:
    # 118 is 246 above the next zero point.
    after = [[1], [3]], [100 + 246 * 5, 200 + 246 * 7]
    check(
        RemoveDeadChannels(),
        between(negated, FIRST, SECOND),
        between(negated, ([[1, 2]], [1]), after),
    )


def test_a_constant_whose_fate_is_not_declared_stays() -> None:
    check(
        RemoveDeadChannels(),
        between(opaque, FIRST, SECOND),
        between(opaque, ([[1, 2], [0, 0]], [1, 40]), ([[1, 5], [3, 7]], [100, 200])),
    )


def test_broadcast_operands_keep_their_channels() -> None:
    attrs = dict(a_scale=1.0, a_zero_point=0, b_scale=1.0, b_zero_point=0, scale=1.0, zero_point=0)
    attrs |= dict(subtract=False, clamp_min=-128, clamp_max=127, dtype="int8")
    for other in (const(np.ones((1, 1, 1, 3)), "int8"), const(np.ones((1, 1, 1, 1)), "int8")):
        model = between(lambda x, other=other: add(x, other, **attrs), FIRST, SECOND)
        check(RemoveDeadChannels(), model, model)


def test_a_tuple_keeps_the_channels_of_what_it_is_made_of() -> None:
    @I.ir_module
    class Module:
        @R.function
        def main(x: R.Tensor((1, 4, 4, 2), "int8")):
            with R.dataflow():
                a = conv2d(x, *weights(*FIRST), **conv_attrs())
                halves = R.split(a, 2, axis=2)
                b = halves[0]
                c = R.concat((b, b), axis=3)
                gv = conv2d(c, *weights([[1, 0, 0, 1, 0, 0]], [1]), **conv_attrs())
                R.output(gv)
            return gv

    check(RemoveDeadChannels(), Module, Module)


@pytest.mark.parametrize("padding", [0, 1])
def test_constant_inputs_of_a_dense_sum_make_its_result_constant(padding: int) -> None:
    """Padding contributes nothing, so a border of the result would differ."""

    def chain(first, second, third):
        @I.ir_module
        class Module:
            @R.function
            def main(x: R.Tensor((1, 4, 4, 2), "int8")):
                with R.dataflow():
                    a = conv2d(x, *weights(*first), **conv_attrs())
                    b = conv2d(a, *weights(*second), **conv_attrs(padding=[padding] * 4))
                    gv = conv2d(b, *weights(*third), **conv_attrs())
                    R.output(gv)
                return gv

        return Module

    # -118 is 10 above the zero point: channel 1 of b is (10 * 2 + 4) / 4 - 128 = -122 everywhere.
    before = chain(
        ([[1, 2], [0, 0]], [1, 40]), ([[1, 0], [0, 2]], [5, 4]), ([[1, 3], [1, 5]], [100, 200])
    )
    after = chain(([[1, 2]], [1]), ([[1]], [5]), ([[1], [1]], [100 + 6 * 3, 200 + 6 * 5]))
    check(RemoveDeadChannels(), before, before if padding else after)


def test_groups_of_a_convolution_go_as_a_whole() -> None:
    """Four groups of two inputs and one output: one is constant, one unread, one read in part."""

    def module(first, grouped, groups, last):
        @I.ir_module
        class Module:
            @R.function
            def main(x: R.Tensor((1, 4, 4, 2), "int8")):
                with R.dataflow():
                    a = conv2d(x, *weights(*first), **conv_attrs())
                    b = conv2d(a, *weights(*grouped), **conv_attrs(groups=groups))
                    gv = conv2d(b, *weights(*last), **conv_attrs())
                    R.output(gv)
                return gv

        return Module

    before = module(
        ([[0, 0], [0, 0], [1, 2], [3, 4], [5, 6], [0, 0], [7, 8], [9, 1]], [40] * 8),
        ([[1, 2], [3, 4], [5, 6], [7, 8]], [2, 4, 6, 8]),
        4,
        ([[3, 0, 1, 2], [5, 0, 3, 4]], [100, 200]),
    )
    # Two inputs of 10 above the zero point: (10 * 1 + 10 * 2 + 2) / 4 = 8 above the next one.
    after = module(
        ([[5, 6], [0, 0], [7, 8], [9, 1]], [40] * 4),
        ([[5, 6], [7, 8]], [6, 8]),
        2,
        ([[1, 2], [3, 4]], [100 + 8 * 3, 200 + 8 * 5]),
    )
    check(RemoveDeadChannels(), before, after)


# Of height: 1 above, 2 below; of width: 3 left, 4 right.
PAD = [0, 0, 1, 2, 3, 4, 0, 0]


def dense_model(bias, pad_value=None, **attrs):
    """The declared sum, perhaps behind a PAD."""
    attrs = {"input_zero_point": 0, "weight_zero_point": 1, "outside": 7} | attrs
    operands = const([[1, 2]], "int8"), const([bias], "int32"), const([SCALE], "float64")
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 3, 3, 2), "int8"))
    with builder.function("main", [x]):
        with builder.dataflow():
            image = x
            if pad_value is not None:
                image = builder.emit(relax.op.nn.pad(x, PAD, "constant", pad_value))
            y = builder.emit_output(dense(image, *operands, **attrs))
        builder.emit_func_output(y)
    return builder.get()


def test_the_zero_point_of_a_declared_sum_folds() -> None:
    # The weights without their zero point are 0 and 1.
    before = dense_model(10, input_zero_point=-128, padding=[0] * 4)
    check(FoldZeroPoints(), before, dense_model(10 + 128, padding=[0] * 4))
    padded = dense_model(10, input_zero_point=-128, padding=[0, 0, 0, 1])
    check(FoldZeroPoints(), padded, padded)


def test_a_declared_operator_absorbs_what_it_takes_to_lie_outside() -> None:
    before = dense_model(10, pad_value=7, padding=[0, 0, 0, 5])
    check(FusePad(), before, dense_model(10, padding=[1, 3, 2, 4 + 5]))
    other = dense_model(10, pad_value=0, padding=[0, 0, 0, 5])
    check(FusePad(), other, other)


@T.prim_func(private=True)
def nothing(x: T.Buffer((18,), "int8"), y: T.Buffer((9,), "int8")):
    for i in range(9):
        y[i] = x[i]


def test_multiply_accumulates_are_counted_as_declared(monkeypatch) -> None:
    none = frozenset()
    kernel = Declaration("test_dense", 1, none, none, 0, lambda _operation: Kernel(nothing, (0,)))
    monkeypatch.setattr(KERNELS, "declarations", [kernel])
    lowered = select_kernels(1, none)(dense_model(10))
    (call,) = bindings(lowered)
    attrs = lowered[call.value.args[0]].attrs
    assert (int(attrs["mcuforge.macs"]), str(attrs["mcuforge.products"])) == (9 * 2, "dense")
