"""From an optimized module to files: C source (or an object file) with a static memory plan."""

from dataclasses import dataclass

import tvm

from mcuforge.codegen import executor
from mcuforge.codegen.lower import lower_kernels
from mcuforge.codegen.memory import MemoryPlan, plan_memory
from mcuforge.codegen.program import Program, extract
from mcuforge.models.describe import Description
from mcuforge.target import Target


@dataclass(frozen=True)
class Generated:
    """A compiled model.

    Attributes:
        sources: C files by name.
        headers: public header by name.
        objects: object files by name; only with codegen ``llvm``.
        program: the kernel calls the sources make.
        plan: where their temporaries live.
    """

    sources: dict[str, str]
    headers: dict[str, str]
    objects: dict[str, bytes]
    program: Program
    plan: MemoryPlan


def generate(
    mod: tvm.IRModule, description: Description, target: Target, share_memory: bool
) -> Generated:
    """Generate code for a module ``passes.optimize`` returned.

    Args:
        mod: the module.
        description: names, shapes and quantization of the model's inputs and outputs.
        target: decides between C and an object file.
        share_memory: let tensors share the workspace (see ``memory.plan_memory``).
    """
    kernels = lower_kernels(mod)
    program = extract(mod, kernels)
    plan = plan_memory(program, share_memory)
    name = description.name
    inputs, outputs = executor.ports(description.inputs), executor.ports(description.outputs)
    symbol = executor.prefix(name)
    used = {step.kernel for step in program.steps}
    overlapping = {step.kernel for step in program.steps if plan.overlaps(step)}
    kernels = {
        kernel: lowered.may_alias() if kernel in overlapping else lowered
        for kernel, lowered in kernels.items()
        if kernel in used
    }
    objects = {}
    if target.codegen == "llvm":
        from mcuforge.codegen.llvm import kernels_object

        objects[f"{symbol}_kernels.o"] = kernels_object(symbol, kernels, target)
    return Generated(
        sources={
            f"{symbol}.c": executor.run_source(
                name, program, kernels, plan, inputs, outputs, target.codegen == "c"
            ),
            f"{symbol}_weights.c": executor.weights(name, program),
        },
        headers={f"{symbol}.h": executor.header(name, inputs, outputs, plan)},
        objects=objects,
        program=program,
        plan=plan,
    )
