"""Operators that only change how a tensor is read become views: no code, no memory."""

import tvm
from tvm import relax

from mcuforge.passes.rewrite import Lookup, rewrite_main
from mcuforge.tir.integer_op import integer_op, op_name

view = integer_op("view", lambda _shapes, attrs: (attrs["shape"], attrs["dtype"]))
"""``view(x, shape, dtype)``: the same bytes, another shape."""

_VIEWS = ("relax.reshape", "relax.squeeze", "relax.expand_dims", "relax.flatten")


@tvm.transform.module_pass(opt_level=2, name="ViewReshapes")
class ViewReshapes:
    """Replace reshapes, which never move data, by views."""

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        return rewrite_main(mod, _view)


def _view(builder: relax.BlockBuilder, value: relax.Expr, _lookup: Lookup) -> relax.Expr:
    if op_name(value) not in _VIEWS:
        return value
    ty = builder.normalize(value).ty
    return view(value.args[0], shape=[int(size) for size in ty.shape], dtype=str(ty.dtype))
