"""MAXIMUM and MINIMUM of quantized tensors: Relax's own operators on the integers."""

from tvm import relax

from mcuforge.tir.qdq import Region
from mcuforge.tir.registry import restores


@restores("relax.maximum", "relax.minimum", any_type=True)
def _restore(region: Region) -> relax.Call | None:
    """TFLite compares the integers: all three tensors have one quantization."""
    a, b = (region.operand(arg) for arg in region.call.args)
    if a is None or b is None:
        return None
    choose = relax.op.maximum if region.call.op.name == "relax.maximum" else relax.op.minimum
    return choose(a.expr, b.expr)
