"""Rewriting ``main``, the one straight-line dataflow function every model is."""

import contextlib
from collections.abc import Callable, Iterator

import tvm
from tvm import relax

Lookup = Callable[[relax.Expr], relax.Expr]


def bindings(mod: tvm.IRModule) -> list[relax.VarBinding]:
    """The bindings of ``main`` in order."""
    return [binding for block in mod["main"].body.blocks for binding in block.bindings]


@contextlib.contextmanager
def closed_on_error(builder: relax.BlockBuilder) -> Iterator[None]:
    """Close the block that TVM leaves open after an error, about which it would warn on stderr."""
    try:
        yield
    except Exception:
        builder._end_block()
        raise


def rewrite_main(
    mod: tvm.IRModule,
    rewrite: Callable[[relax.BlockBuilder, relax.Expr, Lookup], relax.Expr],
) -> tvm.IRModule:
    """Rebuild ``main``, passing the value of each binding through ``rewrite``.

    Args:
        mod: the module; its other functions are kept.
        rewrite: ``(builder, value, lookup) -> value``. Variables in ``value`` already refer to the
            new function; ``lookup`` gives the (new) value a variable is bound to, and any other
            expression unchanged. It may emit further bindings through ``builder``.

    Returns:
        A new module, without bindings that became unused.
    """
    old = mod["main"]
    others = {var: func for var, func in mod.functions.items() if var.name_hint != "main"}
    builder = relax.BlockBuilder(tvm.IRModule(others))
    values: dict[relax.Var, relax.Expr] = {}
    renamed: dict[relax.Var, relax.Expr] = {}

    def lookup(expr: relax.Expr) -> relax.Expr:
        while isinstance(expr, relax.Var) and expr in values:
            expr = values[expr]
        return expr

    def substitute(expr: relax.Expr) -> relax.Expr:
        if isinstance(expr, relax.Var):
            return renamed.get(expr, expr)
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([substitute(field) for field in expr.fields])
        if isinstance(expr, relax.TupleGetItem):
            return relax.TupleGetItem(substitute(expr.tuple_value), expr.index)
        if isinstance(expr, relax.Call):
            args = [substitute(arg) for arg in expr.args]
            return relax.Call(expr.op, args, expr.attrs, expr.ty_args)
        return expr

    params = [relax.Var(param.name, param.ty) for param in old.params]
    renamed.update(zip(old.params, params, strict=True))
    with closed_on_error(builder), builder.function("main", params):
        with builder.dataflow():
            for binding in bindings(mod):
                value = rewrite(builder, substitute(binding.value), lookup)
                if not isinstance(binding.var, relax.DataflowVar):
                    var = builder.emit_output(value, binding.var.name)
                elif isinstance(value, relax.Var):
                    var = value
                else:
                    var = builder.emit(value, binding.var.name)
                renamed[binding.var] = var
                if var is not value:
                    values[var] = value
        builder.emit_func_output(substitute(old.body.body))
    return relax.transform.DeadCodeElimination(["main"])(builder.finalize())
