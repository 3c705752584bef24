"""Every pass on the IR itself, the expected module written out."""

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from mcuforge.errors import ModelError
from mcuforge.operators.conv2d import conv2d, depthwise_conv2d
from mcuforge.operators.fully_connected import fully_connected
from mcuforge.operators.pool2d import pool2d
from mcuforge.operators.softmax import softmax
from mcuforge.passes import optimize
from mcuforge.passes.dead_channels import RemoveDeadChannels
from mcuforge.passes.fold_zero_points import FoldZeroPoints
from mcuforge.passes.fuse_pad import FusePad
from mcuforge.passes.restore_integers import RestoreIntegers
from mcuforge.passes.rewrite import bindings
from mcuforge.passes.views import ViewReshapes, view
from mcuforge.target import Target


def const(values, dtype):
    return relax.const(np.array(values, dtype), dtype)


def conv_attrs(**changes):
    attrs = dict(
        strides=[1, 1],
        dilation=[1, 1],
        padding=[0, 0, 0, 0],
        groups=1,
        input_zero_point=-128,
        weight_zero_point=0,
        zero_point=-128,
        clamp_min=-128,
        clamp_max=127,
        rounding="twice",
        dtype="int8",
    )
    return {**attrs, **changes}


def depthwise_attrs(**changes):
    attrs = conv_attrs(**changes)
    del attrs["groups"]
    return attrs


SCALE = 0.25  # exactly representable: products of scales below have no rounding


def test_restore_convolution_with_bias_and_activation():
    weight = np.arange(8, dtype="int8").reshape(1, 1, 2, 4)  # HWIO

    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((1, 2, 2, 2), "int8")) -> R.Tensor((1, 2, 2, 4), "int8"):
            with R.dataflow():
                xf = R.dequantize(x, R.const(0.5, "float32"), R.const(3, "int32"), axis=0)
                wf = R.dequantize(
                    const(weight, "int8"),
                    const([0.5, 0.25, 0.5, 0.5], "float32"),
                    R.const(0, "int32"),
                    axis=3,
                )
                y = R.nn.conv2d(xf, wf, data_layout="NHWC", kernel_layout="HWIO")
                bf = R.dequantize(
                    const([1, 2, 3, 4], "int32"),
                    const([0.25, 0.125, 0.25, 0.25], "float32"),
                    R.const(0, "int32"),
                    axis=0,
                )
                z = R.add(y, bf)
                q = R.quantize(z, R.const(1.0, "float32"), R.const(-5, "int32"), axis=0)
                gv = R.clip(q, -5, 1)
                R.output(gv)
            return gv

    @I.ir_module
    class Expected:
        @R.function
        def main(x: R.Tensor((1, 2, 2, 2), "int8")) -> R.Tensor((1, 2, 2, 4), "int8"):
            with R.dataflow():
                gv = conv2d(
                    x,
                    const(weight.transpose(3, 0, 1, 2), "int8"),
                    const([1, 2, 3, 4], "int32"),
                    const([0.25, 0.125, 0.25, 0.25], "float64"),
                    **conv_attrs(input_zero_point=3, zero_point=-5, clamp_min=-5, clamp_max=1),
                )
                R.output(gv)
            return gv

    check(RestoreIntegers(), Before, Expected)


def test_restore_leaves_float_operators_alone():
    @I.ir_module
    class Float:
        @R.function
        def main(x: R.Tensor((1, 4), "float32")) -> R.Tensor((1, 4), "float32"):
            with R.dataflow():
                gv = R.nn.softmax(R.nn.relu(x))
                R.output(gv)
            return gv

    check(RestoreIntegers(), Float, Float)


def test_restore_softmax_needs_its_fixed_output_scale():
    def module(scale, zero_point):
        @I.ir_module
        class Module:
            @R.function
            def main(x: R.Tensor((1, 4), "int8")) -> R.Tensor((1, 4), "int8"):
                with R.dataflow():
                    xf = R.dequantize(x, R.const(0.5, "float32"), R.const(0, "int32"), axis=0)
                    y = R.nn.softmax(xf, axis=-1)
                    gv = R.quantize(
                        y, R.const(scale, "float32"), R.const(zero_point, "int32"), axis=0
                    )
                    R.output(gv)
                return gv

        return Module

    @I.ir_module
    class Expected:
        @R.function
        def main(x: R.Tensor((1, 4), "int8")) -> R.Tensor((1, 4), "int8"):
            with R.dataflow():
                gv = softmax(x, in_scale=0.5, beta=1.0, dtype="int8")
                R.output(gv)
            return gv

    check(RestoreIntegers(), module(1 / 256, -128), Expected)
    with pytest.raises(ModelError, match=r"nn\.softmax with int8 result"):
        RestoreIntegers()(module(1 / 128, -128))


def test_views_replace_reshapes():
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((1, 2, 2, 2), "int8")) -> R.Tensor((4, 2), "int8"):
            with R.dataflow():
                y = R.reshape(x, R.shape([8]))
                gv = R.reshape(y, R.shape([4, 2]))
                R.output(gv)
            return gv

    @I.ir_module
    class Expected:
        @R.function
        def main(x: R.Tensor((1, 2, 2, 2), "int8")) -> R.Tensor((4, 2), "int8"):
            with R.dataflow():
                y = view(x, shape=[8], dtype="int8")
                gv = view(y, shape=[4, 2], dtype="int8")
                R.output(gv)
            return gv

    check(ViewReshapes(), Before, Expected)


def test_pad_of_the_zero_point_moves_into_the_convolution():
    weight = np.ones((1, 3, 3, 1), "int8")
    constants = (const(weight, "int8"), const([7], "int32"), const([SCALE], "float64"))

    def module(pad_value):
        @I.ir_module
        class Module:
            @R.function
            def main(x: R.Tensor((1, 4, 4, 1), "int8")) -> R.Tensor((1, 5, 6, 1), "int8"):
                with R.dataflow():
                    y = R.nn.pad(x, [0, 0, 1, 2, 3, 1, 0, 0], "constant", pad_value)
                    gv = conv2d(y, *constants, **conv_attrs())
                    R.output(gv)
                return gv

        return Module

    @I.ir_module
    class Expected:
        @R.function
        def main(x: R.Tensor((1, 4, 4, 1), "int8")) -> R.Tensor((1, 5, 6, 1), "int8"):
            with R.dataflow():
                gv = conv2d(x, *constants, **conv_attrs(padding=[1, 3, 2, 1]))
                R.output(gv)
            return gv

    check(FusePad(), module(-128), Expected)
    check(FusePad(), module(0), module(0))


def test_zero_point_folds_only_without_padding():
    weight = np.array([[1, 2, 3], [-1, 0, 4]], "int8").reshape(2, 1, 1, 3)

    def module(bias, **changes):
        @I.ir_module
        class Module:
            @R.function
            def main(x: R.Tensor((1, 2, 2, 3), "int8")):
                with R.dataflow():
                    gv = conv2d(
                        x,
                        const(weight, "int8"),
                        const(bias, "int32"),
                        const([SCALE, SCALE], "float64"),
                        **conv_attrs(**changes),
                    )
                    R.output(gv)
                return gv

        return Module

    before, after = module([10, 20]), module([10 + 128 * 6, 20 + 128 * 3], input_zero_point=0)
    check(FoldZeroPoints(), before, after)
    padded = module([10, 20], padding=[1, 1, 1, 1])
    check(FoldZeroPoints(), padded, padded)


def dead_channel_model(first_weight, first_bias, second_weight, second_bias, padding=0):
    """1x1 convolution, depthwise 1x1 (3x3 where padded), 1x1 convolution."""
    channels = len(first_bias)
    size = 3 if padding else 1
    depthwise = np.full((size, size, channels), 2, "int8")

    @I.ir_module
    class Module:
        @R.function
        def main(x: R.Tensor((1, 4, 4, 2), "int8")) -> R.Tensor((1, 4, 4, 2), "int8"):
            with R.dataflow():
                a = conv2d(
                    x,
                    const(np.array(first_weight).reshape(channels, 1, 1, 2), "int8"),
                    const(first_bias, "int32"),
                    const([SCALE] * channels, "float64"),
                    **conv_attrs(),
                )
                b = depthwise_conv2d(
                    a,
                    const(depthwise, "int8"),
                    const([4] * channels, "int32"),
                    const([SCALE] * channels, "float64"),
                    **depthwise_attrs(padding=[padding] * 4),
                )
                gv = conv2d(
                    b,
                    const(np.array(second_weight).reshape(2, 1, 1, channels), "int8"),
                    const(second_bias, "int32"),
                    const([SCALE, SCALE], "float64"),
                    **conv_attrs(),
                )
                R.output(gv)
            return gv

    return Module


def test_constant_channel_folds_through_depthwise_into_the_next_bias():
    # Channel 1: zero weights, bias 40: 40 / 4 - 128 = -118 everywhere. Depthwise: 2 * 10 + 4 = 24,
    # 24 / 4 - 128 = -122, which adds (-122 + 128) * w to the next accumulators.
    before = dead_channel_model(
        [[1, 2], [0, 0], [3, 4]], [1, 40, 3], [[1, 5, 2], [3, 7, 4]], [100, 200]
    )
    after = dead_channel_model(
        [[1, 2], [3, 4]], [1, 3], [[1, 2], [3, 4]], [100 + 6 * 5, 200 + 6 * 7]
    )
    check(RemoveDeadChannels(), before, after)


def test_constant_channel_stays_where_padding_would_change_it():
    model = dead_channel_model([[1, 2], [0, 0]], [1, 40], [[1, 5], [3, 7]], [100, 200], padding=1)
    check(RemoveDeadChannels(), model, model)


def test_constant_channel_at_the_zero_point_passes_padding():
    # Bias -40 is clamped to the zero point -128, the value of padding.
    before = dead_channel_model([[1, 2], [0, 0]], [1, -40], [[1, 5], [3, 7]], [100, 200], padding=1)
    # Depthwise of nothing but zero points: bias 4, 4 / 4 - 128 = -127, adds 1 * w.
    after = dead_channel_model([[1, 2]], [1], [[1], [3]], [105, 207], padding=1)
    check(RemoveDeadChannels(), before, after)


def test_unread_channel_and_what_computes_it_go():
    before = dead_channel_model([[1, 2], [3, 4]], [1, 2], [[1, 0], [3, 0]], [100, 200], padding=1)
    after = dead_channel_model([[1, 2]], [1], [[1], [3]], [100, 200], padding=1)
    check(RemoveDeadChannels(), before, after)


def test_dead_channel_of_the_result_stays():
    model = dead_channel_model([[1, 2], [3, 4]], [1, 2], [[0, 0], [3, 4]], [100, 200])
    check(RemoveDeadChannels(), model, model)


def test_a_channel_one_consumer_reads_stays_for_the_others():
    """The model returns `a`, dead channel and all: the depthwise convolution gets it too."""

    @I.ir_module
    class Module:
        @R.function
        def main(x: R.Tensor((1, 4, 4, 2), "int8")):
            with R.dataflow():
                a = conv2d(
                    x,
                    const(np.array([[1, 2], [0, 0]]).reshape(2, 1, 1, 2), "int8"),
                    const([1, 40], "int32"),
                    const([SCALE, SCALE], "float64"),
                    **conv_attrs(),
                )
                b = depthwise_conv2d(
                    a,
                    const(np.full((1, 1, 2), 2), "int8"),
                    const([4, 4], "int32"),
                    const([SCALE, SCALE], "float64"),
                    **depthwise_attrs(),
                )
                c = conv2d(
                    b,
                    const(np.array([[1, 5], [3, 7]]).reshape(2, 1, 1, 2), "int8"),
                    const([100, 200], "int32"),
                    const([SCALE, SCALE], "float64"),
                    **conv_attrs(),
                )
                gv = (a, c)
                R.output(gv)
            return gv

    check(RemoveDeadChannels(), Module, Module)


def test_dead_channels_keep_a_reshape_that_mixes_them():
    """Each channel of the image becomes four features, of which one meets a zero weight."""

    def module(weight):
        @I.ir_module
        class Module:
            @R.function
            def main(x: R.Tensor((1, 2, 2, 2), "int8")) -> R.Tensor((1, 1), "int8"):
                with R.dataflow():
                    a = pool2d(
                        x,
                        kind="max",
                        pool_size=[1, 1],
                        strides=[1, 1],
                        padding=[0, 0, 0, 0],
                        clamp_min=-128,
                        clamp_max=127,
                        dtype="int8",
                    )
                    b = R.reshape(a, R.shape([1, 8]))
                    gv = fully_connected(
                        b,
                        const(weight, "int8"),
                        const([3], "int32"),
                        const([SCALE], "float64"),
                        input_zero_point=-128,
                        weight_zero_point=0,
                        zero_point=0,
                        clamp_min=-128,
                        clamp_max=127,
                        rounding="once",
                        dtype="int8",
                    )
                    R.output(gv)
                return gv

        return Module

    model = module([[1, 2, 3, 4, 5, 6, 7, 0]])
    check(RemoveDeadChannels(), model, model)


def test_dead_channels_pass_pooling_and_reshape_to_fully_connected():
    def module(first, bias, weight, last_bias):
        channels = len(bias)

        @I.ir_module
        class Module:
            @R.function
            def main(x: R.Tensor((1, 2, 2, 2), "int8")) -> R.Tensor((1, 2), "int8"):
                with R.dataflow():
                    a = conv2d(
                        x,
                        const(np.array(first).reshape(channels, 1, 1, 2), "int8"),
                        const(bias, "int32"),
                        const([SCALE] * channels, "float64"),
                        **conv_attrs(),
                    )
                    b = pool2d(
                        a,
                        kind="average",
                        pool_size=[2, 2],
                        strides=[2, 2],
                        padding=[0, 0, 0, 0],
                        clamp_min=-128,
                        clamp_max=127,
                        dtype="int8",
                    )
                    c = R.reshape(b, R.shape([1, channels]))
                    gv = fully_connected(
                        c,
                        const(weight, "int8"),
                        const(last_bias, "int32"),
                        const([SCALE, SCALE], "float64"),
                        input_zero_point=-128,
                        weight_zero_point=0,
                        zero_point=0,
                        clamp_min=-128,
                        clamp_max=127,
                        rounding="once",
                        dtype="int8",
                    )
                    R.output(gv)
                return gv

        return Module

    # Channel 0: bias 8 / 4 - 128 = -126, which adds 2 * w.
    before = module([[0, 0], [1, 2]], [8, 1], [[5, 6], [7, 8]], [10, 20])
    after = module([[1, 2]], [1], [[6], [8]], [10 + 2 * 5, 20 + 2 * 7])
    check(RemoveDeadChannels(), before, after)


@pytest.mark.parametrize("level", range(5))
def test_the_pass_context_decides_what_runs(level):
    model = dead_channel_model([[1, 2], [0, 0]], [1, 40], [[1, 5], [3, 7]], [100, 200])
    kernels = optimize(model, Target("cortex-m0"), level)
    text = kernels["main"].script()
    if level == 0:
        assert "mcuforge.conv2d" in text, "an integer graph is not lowered before level 1"
        return
    assert "mcuforge" not in text
    macs = sum(
        int(kernels[binding.value.args[0]].attrs["mcuforge.macs"]) for binding in bindings(kernels)
    )
    # Two convolutions of 4 x 4 pixels and a depthwise one, with two channels or with one.
    assert macs == (16 * (4 + 2 + 4) if level == 1 else 16 * (2 + 1 + 2))


def check(transform, before, expected) -> None:
    after = transform(before)
    tvm.ir.assert_structural_equal(after, expected, map_free_vars=True)
