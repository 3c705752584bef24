"""Input zero points move into the bias, where nothing is padded."""

import numpy as np
import tvm
from tvm import relax

from mcuforge.passes.rewrite import Lookup, rewrite_main
from mcuforge.tir.channels import WeightedSum
from mcuforge.tir.integer_op import changed, operation, traits


@tvm.transform.module_pass(opt_level=2, name="FoldZeroPoints")
class FoldZeroPoints:
    """``sum((x - z) * w) + b`` becomes ``sum(x * w) + (b - z * sum(w))``.

    Padded positions contribute nothing, so this holds at every output position only without
    padding.
    """

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        return rewrite_main(mod, _fold)


def _fold(_builder: relax.BlockBuilder, value: relax.Expr, lookup: Lookup) -> relax.Expr:
    flow = traits(value).channels
    if not isinstance(flow, WeightedSum):
        return value
    summed = operation(value, lookup)
    zero_point, bias = summed.attrs["input_zero_point"], summed.args[2].value
    if bias is None or zero_point == 0 or any(summed.attrs.get("padding", ())):
        return value
    folded = bias.astype(np.int64) - zero_point * flow.weights(summed).sum(axis=(1, 2))
    if np.abs(folded).max() > np.iinfo(np.int32).max:
        return value
    return changed(value, {2: relax.const(folded.astype("int32"))}, input_zero_point=0)
