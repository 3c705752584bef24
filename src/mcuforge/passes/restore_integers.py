"""QDQ to integers: ``quantize(op(dequantize(x)))`` becomes the integer operator TFLite means."""

from dataclasses import replace

import numpy as np
import tvm
from tvm import relax

from mcuforge.errors import ModelError
from mcuforge.passes.rewrite import Lookup, bindings, rewrite_main
from mcuforge.tir.integer_op import INTEGER_OP_PREFIX, attributes, changed, constant_value, op_name
from mcuforge.tir.qdq import Region
from mcuforge.tir.registry import restorer

_EIGHT_BITS = ("int8", "uint8")


@tvm.transform.module_pass(opt_level=1, name="RestoreIntegers")
class RestoreIntegers:
    """Replace every quantized operator of the imported graph by its integer form.

    The float operators in between die; float operators of the model itself stay.
    """

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        restored = rewrite_main(mod, _restore)
        _refuse_leftovers(restored)
        return restored


def _refuse_leftovers(mod: tvm.IRModule) -> None:
    """A quantized operator left in float arithmetic would be inexact without a word."""
    values = {binding.var: binding.value for binding in bindings(mod)}
    for value in values.values():
        if op_name(value) == "relax.quantize":
            name = op_name(values.get(value.args[0])) or "an operator"
            name, dtype = name.removeprefix("relax."), str(value.attrs.out_dtype)
            raise ModelError(
                f"{name} with {dtype} result has no exact integer form here",
                "use int8 or uint8 activations and TFLite's own quantization of this operator",
            )


def _restore(_builder: relax.BlockBuilder, value: relax.Expr, lookup: Lookup) -> relax.Expr:
    if not isinstance(value, relax.Call) or not hasattr(value.op, "name"):
        return value
    restored = _integer_form(value, lookup)
    return value if restored is None else restored


def _integer_form(value: relax.Call, lookup: Lookup) -> relax.Call | None:
    name = value.op.name
    if name == "relax.quantize":
        region = _region(value, lookup)
        declared = restorer(op_name(region.call)) if region else None
        if not region or not declared:
            return None
        exact = declared.any_type or region.dtype in _EIGHT_BITS
        return declared.restore(region) if exact else None
    if name == "relax.clip":
        return _narrow_clamp(value, lookup)
    # An average is taken of int32, and cast back.
    call = lookup(value.args[0]) if name == "relax.astype" else value
    declared = restorer(op_name(call))
    if not declared or not declared.on_integers:
        return None
    dtype = str(value.attrs.dtype if name == "relax.astype" else value.args[0].ty.dtype)
    if dtype not in _EIGHT_BITS:
        return None
    return declared.restore(Region(call, None, -np.inf, np.inf, np.nan, 0, dtype, lookup))


def _region(quantize: relax.Call, lookup: Lookup) -> Region | None:
    """What stands between ``quantize`` and the ``dequantize`` of its operands."""
    data, scale, zero_point = quantize.args
    scale, zero_point = constant_value(lookup(scale)), constant_value(lookup(zero_point))
    if scale is None or zero_point is None:
        return None
    low, high = -np.inf, np.inf
    call = lookup(data)
    while isinstance(call, relax.Call) and call.op.name in (
        "relax.nn.relu",
        "relax.clip",
        "relax.nn.relu6",
    ):
        if call.op.name == "relax.clip":
            low = max(low, float(call.args[1].value))
            high = min(high, float(call.args[2].value))
        else:
            low = max(low, 0.0)
            high = min(high, 6.0) if call.op.name == "relax.nn.relu6" else high
        call = lookup(call.args[0])
    if not isinstance(call, relax.Call):
        return None
    region = Region(
        call=call,
        bias=None,
        low=low,
        high=high,
        scale=float(scale),
        zero_point=int(zero_point),
        dtype=str(quantize.attrs.out_dtype),
        lookup=lookup,
    )
    return _split_bias(region)


def _split_bias(region: Region) -> Region:
    """Take the bias off ``conv + bias`` and their like."""
    if op_name(region.call) != "relax.add":
        return region
    heart = region.lookup(region.call.args[0])
    declared = restorer(op_name(heart))
    bias = region.operand(region.call.args[1], "int32")
    if not declared or not declared.takes_bias or bias is None or bias.value is None:
        return region
    return replace(region, call=heart, bias=bias)


def _narrow_clamp(clip: relax.Call, lookup: Lookup) -> relax.Call | None:
    """A fused activation on the integers narrows the range of the operator before it."""
    call = lookup(clip.args[0])
    if not isinstance(call, relax.Call) or not call.op.name.startswith(INTEGER_OP_PREFIX):
        return None
    attrs = attributes(call)
    if "clamp_min" not in attrs:
        return None
    low, high = (int(arg.value) for arg in clip.args[1:])
    attrs["clamp_min"] = max(attrs["clamp_min"], low)
    attrs["clamp_max"] = min(attrs["clamp_max"], high)
    return changed(call, **attrs)
