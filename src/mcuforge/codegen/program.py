"""A lowered model as a list of kernel calls over named tensors."""

from dataclasses import dataclass, field, replace

import numpy as np
import tvm
from tvm import ir, relax

from mcuforge.codegen.lower import LoweredKernel
from mcuforge.errors import ModelError
from mcuforge.passes.rewrite import bindings
from mcuforge.tir.integer_op import constant_value


@dataclass(frozen=True)
class Tensor:
    """A buffer the program reads or writes.

    Attributes:
        name: unique, a C identifier.
        shape: in elements.
        dtype: TVM dtype string.
        kind: ``input``, ``output``, ``constant`` or ``temporary``.
        value: of a constant.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    kind: str
    value: np.ndarray | None = field(default=None, compare=False)

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Step:
    """One kernel call.

    Attributes:
        kernel: name of the PrimFunc; empty for a plain copy of args[0] to args[1].
        op: operator name for reports.
        args: tensors in the kernel's parameter order, the result last.
        scratch: temporaries only this call uses, behind the result in the parameter order.
        macs: multiply-accumulates executed; None where the kernel does not say.
        products: what they multiply, as in ``mlf.Operator``.
        inplace: for an argument index, how far below that argument the result may start, in bytes.
    """

    kernel: str
    op: str
    args: tuple[Tensor, ...]
    scratch: tuple[Tensor, ...] = ()
    macs: int | None = 0
    products: str | None = None
    inplace: dict[int, int] = field(default_factory=dict)

    @property
    def result(self) -> Tensor:
        return self.args[-1]


@dataclass(frozen=True)
class Program:
    """Inputs, outputs and steps of a model, in execution order."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    steps: tuple[Step, ...]


def extract(mod: tvm.IRModule, kernels: dict[str, LoweredKernel]) -> Program:
    """Read the steps off an optimized module.

    Args:
        mod: the module ``passes.optimize`` returns.
        kernels: its kernels, lowered.

    Raises:
        ModelError: an operator was not lowered; names it.
    """
    main = mod["main"]
    tensors: dict[relax.Var, Tensor] = {}
    constants: dict[tuple[str, bytes], Tensor] = {}
    steps: list[Step] = []
    for index, param in enumerate(main.params):
        tensors[param] = _tensor(f"input{index}", param.ty, "input")

    def operand(expr: ir.Expr) -> Tensor:
        value = constant_value(expr)
        if value is None:
            return tensors[expr]
        key = (str(value.dtype), value.tobytes())
        if key not in constants:
            name = f"constant{len(constants)}"
            constants[key] = Tensor(name, value.shape, str(value.dtype), "constant", value)
        return constants[key]

    def result(var: relax.Var) -> Tensor:
        return _tensor(f"tensor{len(tensors)}", var.ty, "temporary")

    for binding in bindings(mod):
        var, value = binding.var, binding.value
        if isinstance(value, relax.Var):
            tensors[var] = tensors[value]
        elif constant_value(value) is not None:
            tensors[var] = operand(value)
        elif isinstance(value, relax.Tuple):
            continue
        elif isinstance(value, relax.Call) and value.op.name == "mcuforge.view":
            tensors[var] = operand(value.args[0])
        elif isinstance(value, relax.Call) and value.op.name == "relax.call_tir":
            kernel, fields = value.args[0].name_hint, value.args[1].fields
            attrs = mod[value.args[0]].attrs
            tensors[var] = result(var)
            index = len(steps)
            steps.append(
                Step(
                    kernel=kernel,
                    op=str(attrs["mcuforge.op"]) if "mcuforge.op" in attrs else kernel,
                    args=(*(operand(arg) for arg in fields), tensors[var]),
                    scratch=tuple(
                        Tensor(f"scratch{index}_{i}", shape, dtype, "temporary")
                        for i, (shape, dtype) in enumerate(kernels[kernel].scratch)
                    ),
                    macs=int(attrs["mcuforge.macs"]) if "mcuforge.macs" in attrs else None,
                    products=str(attrs.get("mcuforge.products", "")) or None,
                    inplace={int(k): int(v) for k, v in attrs["mcuforge.inplace"].items()}
                    if "mcuforge.inplace" in attrs
                    else {},
                )
            )
        else:
            name = value.op.name if isinstance(value, relax.Call) else type(value).__name__
            raise ModelError(f"operator {name} (tensor '{var.name}') cannot be compiled")
    returned = [operand(expr) for expr in _returned(main)]
    inputs = tuple(tensors[param] for param in main.params)
    return _bind_outputs(inputs, returned, tuple(constants.values()), steps)


def _returned(main: relax.Function) -> list[relax.Expr]:
    """The variables ``main`` returns, through the tuple of a model with several outputs."""
    result = main.body.body
    values = {b.var: b.value for block in main.body.blocks for b in block.bindings}
    while isinstance(result, relax.Var) and isinstance(values.get(result), relax.Var | relax.Tuple):
        result = values[result]
    return list(result.fields) if isinstance(result, relax.Tuple) else [result]


def _bind_outputs(
    inputs: tuple[Tensor, ...],
    returned: list[Tensor],
    constants: tuple[Tensor, ...],
    steps: list[Step],
) -> Program:
    """Let the step that computes an output write it where the caller wants it."""
    renamed: dict[str, Tensor] = {}
    outputs = []
    for index, source in enumerate(returned):
        output = Tensor(f"output{index}", source.shape, source.dtype, "output")
        outputs.append(output)
        if source.kind == "temporary" and source.name not in renamed:
            renamed[source.name] = output
        else:
            steps.append(Step("", "copy", (renamed.get(source.name, source), output)))
    bound = [
        replace(step, args=tuple(renamed.get(arg.name, arg) for arg in step.args)) for step in steps
    ]
    return Program(inputs, tuple(outputs), constants, tuple(bound))


def _tensor(name: str, ty: relax.TensorType, kind: str) -> Tensor:
    return Tensor(name, tuple(int(d) for d in ty.shape), str(ty.dtype), kind)
