"""Integer operators to TIR: each operator is replaced by a call of one of its kernels."""

import numpy as np
import tvm
from tvm import relax

import mcuforge.kernels  # noqa: F401  # declares the fast kernels
from mcuforge.passes.rewrite import Lookup, rewrite_main
from mcuforge.tir.channels import WeightedSum
from mcuforge.tir.integer_op import INTEGER_OP_PREFIX, op_name, operation, traits
from mcuforge.tir.registry import KERNELS

# TVM's fusion leaves kernels with this pattern (kOpaque, relax/op_attr_types.h) alone.
_OPAQUE = 8


def select_kernels(level: int, features: frozenset[str]) -> tvm.transform.Pass:
    """A pass that lowers the operators with a kernel declared for this opt_level.

    Args:
        level: the opt_level of the pass and of the kernels it selects.
        features: instruction set features of the target.
    """

    def lower(builder: relax.BlockBuilder, value: relax.Expr, lookup: Lookup) -> relax.Expr:
        if not op_name(value).startswith(INTEGER_OP_PREFIX):
            return value
        selected = operation(value, lookup)
        kernel = KERNELS.select(selected, level, features)
        if kernel is None:
            return value
        known = traits(value)
        products = known.channels.products if isinstance(known.channels, WeightedSum) else ""
        func = kernel.func.with_attrs(
            {
                "tirx.noalias": True,
                "mcuforge.op": selected.name,
                "mcuforge.macs": known.macs(selected) if known.macs else 0,
                "mcuforge.products": products,
                "op_pattern": _OPAQUE,
                "mcuforge.inplace": {
                    str(position): kernel.inplace[arg]
                    for position, arg in enumerate(kernel.args)
                    if isinstance(arg, int) and arg in kernel.inplace
                },
            }
        )
        if kernel.gcc:
            func = func.with_attr("mcuforge.gcc", list(kernel.gcc))
        args = [
            relax.const(arg, str(arg.dtype)) if isinstance(arg, np.ndarray) else value.args[arg]
            for arg in kernel.args
        ]
        symbol = builder.add_func(func, selected.name)
        out = relax.TensorType(selected.out.shape, selected.out.dtype)
        return relax.call_tir(symbol, args, out)

    @tvm.transform.module_pass(opt_level=level, name=f"SelectKernels{level}")
    def run(mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        return rewrite_main(mod, lower)

    return run
