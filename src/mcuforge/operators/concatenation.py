"""CONCATENATION of quantized tensors: Relax's own operator on the integers."""

from tvm import relax

from mcuforge.exact import arithmetic
from mcuforge.operators.lookup import look_up
from mcuforge.tir.qdq import Region
from mcuforge.tir.registry import restores


@restores("relax.concat", any_type=True)
def _restore(region: Region) -> relax.Call | None:
    parts = []
    for field in region.lookup(region.call.args[0]).fields:
        part = region.operand(field)
        if part is None:
            return None
        expr = part.expr
        if region.dtype == "uint8":
            quantization = (float(part.scale), part.zero_point, region.scale, region.zero_point)
            if quantization[:2] != quantization[2:]:
                table = arithmetic.concatenation_table(*quantization)
                expr = look_up(part, table, "CONCATENATION")
        parts.append(expr)
    return relax.op.concat(parts, region.call.attrs.axis)
