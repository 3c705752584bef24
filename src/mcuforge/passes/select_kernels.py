"""Integer operators to TIR: each operator is replaced by a call of one of its kernels."""

import numpy as np
import tvm
from tvm import relax

import mcuforge.kernels  # noqa: F401  # declares the fast kernels
from mcuforge.passes.rewrite import Lookup, rewrite_main
from mcuforge.tir.registry import (
    INTEGER_OP_PREFIX,
    KERNELS,
    Operand,
    Operation,
    attributes,
    constant_value,
)

# TVM's fusion leaves kernels with this pattern (kOpaque, relax/op_attr_types.h) alone.
_OPAQUE = 8


def select_kernels(level: int, features: frozenset[str]) -> tvm.transform.Pass:
    """A pass that lowers the operators with a kernel declared for this opt_level.

    Args:
        level: the opt_level of the pass and of the kernels it selects.
        features: instruction set features of the target.
    """

    def lower(builder: relax.BlockBuilder, value: relax.Expr, lookup: Lookup) -> relax.Expr:
        if not isinstance(value, relax.Call) or not getattr(value.op, "name", "").startswith(
            INTEGER_OP_PREFIX
        ):
            return value
        operation = describe(value, lookup)
        kernel = KERNELS.select(operation, level, features)
        if kernel is None:
            return value
        func = kernel.func.with_attrs(
            {
                "tirx.noalias": True,
                "mcuforge.op": operation.name,
                "mcuforge.macs": kernel.macs,
                "op_pattern": _OPAQUE,
                "mcuforge.inplace": {
                    str(position): kernel.inplace[arg]
                    for position, arg in enumerate(kernel.args)
                    if isinstance(arg, int) and arg in kernel.inplace
                },
            }
        )
        args = [
            relax.const(arg, str(arg.dtype)) if isinstance(arg, np.ndarray) else value.args[arg]
            for arg in kernel.args
        ]
        symbol = builder.add_func(func, operation.name)
        out = relax.TensorType(operation.out.shape, operation.out.dtype)
        return relax.call_tir(symbol, args, out)

    @tvm.transform.module_pass(opt_level=level, name=f"SelectKernels{level}")
    def run(mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        return rewrite_main(mod, lower)

    return run


def describe(call: relax.Call, lookup: Lookup) -> Operation:
    """An integer operator call as kernel builders see it."""
    operands = []
    for arg in call.args:
        operands.append(_operand(arg.ty, constant_value(lookup(arg))))
    # The call was rebuilt with new operands: infer its type again.
    normalized = relax.BlockBuilder().normalize(call)
    return Operation(
        name=call.op.name.removeprefix(INTEGER_OP_PREFIX),
        args=tuple(operands),
        attrs=attributes(call),
        out=_operand(normalized.ty, None),
    )


def _operand(ty: relax.TensorType, value: np.ndarray | None) -> Operand:
    return Operand(tuple(int(d) for d in ty.shape), str(ty.dtype), value)
