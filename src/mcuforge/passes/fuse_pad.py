"""A PAD in front of a convolution becomes the convolution's padding."""

import tvm
from tvm import relax

from mcuforge.passes.rewrite import Lookup, rewrite_main
from mcuforge.tir.registry import INTEGER_OP_PREFIX, attributes

_CONVOLUTIONS = (INTEGER_OP_PREFIX + "conv2d", INTEGER_OP_PREFIX + "depthwise_conv2d")


@tvm.transform.module_pass(opt_level=2, name="FusePad")
class FusePad:
    """Let convolutions pad for themselves, without a padded copy of the input.

    Exact where the pad value is the convolution's input zero point: padded positions then
    contribute nothing, as positions outside the input do.
    """

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        return rewrite_main(mod, _fuse)


def _fuse(_builder: relax.BlockBuilder, value: relax.Expr, lookup: Lookup) -> relax.Expr:
    if getattr(getattr(value, "op", None), "name", "") not in _CONVOLUTIONS:
        return value
    pad = lookup(value.args[0])
    if getattr(getattr(pad, "op", None), "name", "") != "relax.nn.pad":
        return value
    attrs = attributes(value)
    widths = [int(width) for width in pad.attrs.pad_width]
    batch, (top, bottom, left, right), channel = widths[:2], widths[2:6], widths[6:]
    if (
        any(batch + channel)
        or str(pad.attrs.pad_mode) != "constant"
        or float(pad.attrs.pad_value) != attrs["input_zero_point"]
    ):
        return value
    outside = (top, left, bottom, right)
    attrs["padding"] = [own + more for own, more in zip(attrs["padding"], outside, strict=True)]
    return relax.Call(
        value.op, [pad.args[0], *value.args[1:]], tvm.ir.make_node("ir.DictAttrs", **attrs)
    )
