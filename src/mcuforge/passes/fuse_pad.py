"""A PAD in front of an operator that pads becomes the operator's padding."""

import tvm
from tvm import relax

from mcuforge.passes.rewrite import Lookup, rewrite_main
from mcuforge.tir.integer_op import attributes, changed, op_name, traits


@tvm.transform.module_pass(opt_level=2, name="FusePad")
class FusePad:
    """Let operators pad for themselves, without a padded copy of the input.

    Exact where the pad value is what the operator takes to lie outside of its input.
    """

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        return rewrite_main(mod, _fuse)


def _fuse(_builder: relax.BlockBuilder, value: relax.Expr, lookup: Lookup) -> relax.Expr:
    outside = traits(value).outside
    if outside is None:
        return value
    pad, attrs = lookup(value.args[0]), attributes(value)
    if op_name(pad) != "relax.nn.pad":
        return value
    widths = [int(width) for width in pad.attrs.pad_width]
    batch, (top, bottom, left, right), channel = widths[:2], widths[2:6], widths[6:]
    if (
        any(batch + channel)
        or str(pad.attrs.pad_mode) != "constant"
        or float(pad.attrs.pad_value) != outside(attrs)
    ):
        return value
    more = (top, left, bottom, right)
    padding = [own + extra for own, extra in zip(attrs["padding"], more, strict=True)]
    return changed(value, {0: pad.args[0]}, padding=padding)
