"""Input zero points move into the bias, where nothing is padded."""

import numpy as np
import tvm
from tvm import relax

from mcuforge.passes.rewrite import Lookup, rewrite_main
from mcuforge.tir.registry import INTEGER_OP_PREFIX, attributes, constant_value

_OPS = tuple(INTEGER_OP_PREFIX + name for name in ("conv2d", "depthwise_conv2d", "fully_connected"))


@tvm.transform.module_pass(opt_level=2, name="FoldZeroPoints")
class FoldZeroPoints:
    """``sum((x - z) * w) + b`` becomes ``sum(x * w) + (b - z * sum(w))``.

    Padded positions contribute nothing, so this holds at every output position only without
    padding.
    """

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        return rewrite_main(mod, _fold)


def _fold(_builder: relax.BlockBuilder, value: relax.Expr, _lookup: Lookup) -> relax.Expr:
    if getattr(getattr(value, "op", None), "name", "") not in _OPS:
        return value
    attrs = attributes(value)
    zero_point = attrs["input_zero_point"]
    if zero_point == 0 or any(attrs.get("padding", (0,))):
        return value
    weight, bias = constant_value(value.args[1]), constant_value(value.args[2])
    outputs_last = value.op.name.endswith("depthwise_conv2d")
    axes = tuple(range(weight.ndim - 1)) if outputs_last else tuple(range(1, weight.ndim))
    sums = (weight.astype(np.int64) - attrs["weight_zero_point"]).sum(axis=axes)
    folded = bias.astype(np.int64) - zero_point * sums
    if np.abs(folded).max() > np.iinfo(np.int32).max:
        return value
    attrs["input_zero_point"] = 0
    args = [value.args[0], value.args[1], relax.const(folded.astype("int32")), value.args[3]]
    return relax.Call(value.op, args, tvm.ir.make_node("ir.DictAttrs", **attrs))
