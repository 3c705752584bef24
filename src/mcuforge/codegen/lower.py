"""From kernels as written to the flat TIR that C and LLVM code is generated from."""

from dataclasses import dataclass, replace

import tvm
import tvm_ffi
from tvm import ir, s_tir, tirx


@dataclass(frozen=True)
class LoweredKernel:
    """A kernel over plain pointers.

    Attributes:
        func: PrimFunc whose parameters are pointers: operands, result, then scratch buffers.
        scratch: shape and dtype of each buffer it needs from the workspace.
        aliased: positions of the parameters that may overlap one another; what all others point to
            is reached through no other parameter.
    """

    func: tirx.PrimFunc
    scratch: tuple[tuple[tuple[int, ...], str], ...]
    aliased: frozenset[int] = frozenset()

    def may_alias(self, positions: frozenset[int]) -> "LoweredKernel":
        """The same kernel, correct also when the parameters at these positions overlap."""
        if not positions:
            return self
        return replace(
            self,
            func=self.func.with_attr("tirx.noalias", False),
            aliased=self.aliased | positions,
        )


def lower_kernels(mod: tvm.IRModule) -> dict[str, LoweredKernel]:
    """Lower every TIR function of a module to loops over one-dimensional buffers.

    Kernels of mcuforge are not simplified algebraically: their arithmetic is exact as written, and
    C compilers do the rest. Those TVM generates for float operators need its whole pipeline.

    Args:
        mod: the optimized module.

    Returns:
        Kernels by name, sorted.
    """
    own: dict[str, tirx.PrimFunc] = {}
    generated: dict[str, tirx.PrimFunc] = {}
    for var, func in mod.functions.items():
        if isinstance(func, tirx.PrimFunc):
            target = own if func.attrs and "mcuforge.op" in func.attrs else generated
            target[var.name_hint] = func.with_attr("global_symbol", var.name_hint)
    flat = [
        tirx.transform.FlattenBuffer(),
        tirx.transform.VectorizeLoop(False),
        tirx.transform.UnrollLoop(),
        tirx.transform.RemoveNoOp(),
    ]
    blocks = [
        s_tir.transform.LowerInitBlock(),
        s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
        s_tir.transform.ConvertBlocksToOpaque(),
        s_tir.transform.CompactBufferAllocation(),
        s_tir.transform.LowerMatchBuffer(),
        s_tir.transform.LowerOpaqueBlock(),
        tirx.transform.StmtSimplify(),
        tirx.transform.FlattenBuffer(),
        tirx.transform.NarrowDataType(32),
        tirx.transform.VectorizeLoop(False),
        tirx.transform.UnrollLoop(),
        tirx.transform.StmtSimplify(),
        tirx.transform.RemoveNoOp(),
    ]
    lowered = {}
    for functions, passes in ((own, flat), (generated, blocks)):
        if functions:
            result = tvm.transform.Sequential(passes)(tvm.IRModule(functions))
            lowered.update({name: _over_pointers(result[name]) for name in functions})
    return {name: lowered[name] for name in sorted(lowered)}


def lower_definition(definition: tirx.PrimFunc) -> LoweredKernel:
    """Lower an instruction's definition to loops over pointers, its arithmetic exact as written.

    Args:
        definition: of an ``Instruction``; its buffers start where the pointers point.
    """
    blocks = [
        s_tir.transform.LowerInitBlock(),
        s_tir.transform.ConvertBlocksToOpaque(),
        s_tir.transform.LowerOpaqueBlock(),
        tirx.transform.FlattenBuffer(),
        tirx.transform.RemoveNoOp(),
    ]
    func = definition.with_attr("global_symbol", "definition")
    (func,) = tvm.transform.Sequential(blocks)(tvm.IRModule({"f": func})).functions.values()
    offsets = {param.elem_offset for param in func.params}

    def without_offset(index: tirx.Add) -> ir.Expr:
        return index.a if index.b in offsets else index.b if index.a in offsets else index

    def start(index: tirx.Var) -> ir.Expr:
        return tirx.IntImm("int32", 0) if index in offsets else index

    body = tvm_ffi.structural_map(func.body, [(tirx.Add, without_offset)])
    body = tvm_ffi.structural_map(body, [(tirx.Var, start)])
    return _over_pointers(tirx.PrimFunc(func.params, body))


def _over_pointers(func: tirx.PrimFunc) -> LoweredKernel:
    """Pass buffers as pointers, and take workspace buffers from the caller."""
    pointers = {param: _pointer(param.name, str(param.ty.dtype)) for param in func.params}
    scratch: list[tirx.Var] = []
    shapes = []

    def data(call: ir.Call) -> ir.Expr:
        if getattr(call.op, "name", "") == "tirx.buffer_data":
            return pointers.get(call.args[0], call)
        return call

    def from_workspace(alloc: tirx.AllocBuffer) -> tirx.Stmt:
        buffer = alloc.buffer
        if buffer.scope() != "global":
            return alloc
        pointer = _pointer(f"{buffer.name}_workspace", str(buffer.dtype))
        scratch.append(pointer)
        shapes.append((tuple(int(d) for d in buffer.shape), str(buffer.dtype)))
        return tirx.DeclBuffer(buffer, data=pointer)

    body = tvm_ffi.structural_map(func.body, [(ir.Call, data), (tirx.AllocBuffer, from_workspace)])
    params = [*pointers.values(), *scratch]
    return LoweredKernel(tirx.PrimFunc(params, body, attrs=func.attrs), tuple(shapes))


def _pointer(name: str, dtype: str) -> tirx.Var:
    return tirx.Var(name, ir.PointerType(ir.PrimType(dtype)))
