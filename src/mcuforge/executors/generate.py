"""From an optimized module to files: C source (or an object file) with a static memory plan."""

from dataclasses import dataclass

import tvm

from mcuforge.codegen.llvm import kernels_object
from mcuforge.codegen.lower import lower_kernels
from mcuforge.codegen.memory import MemoryPlan, plan_memory, reorder
from mcuforge.codegen.program import Program, extract
from mcuforge.errors import located
from mcuforge.executors import aot
from mcuforge.executors.header import header
from mcuforge.executors.ports import Interface, interface
from mcuforge.executors.weights import weights
from mcuforge.formats.description import Description
from mcuforge.target import Target


@dataclass(frozen=True)
class Generated:
    """A compiled model.

    Attributes:
        sources: C files by name.
        headers: public header by name.
        objects: object files by name; only with codegen ``llvm``.
        interface: its names in C.
        program: the kernel calls the sources make.
        plan: where their temporaries live.
    """

    sources: dict[str, str]
    headers: dict[str, str]
    objects: dict[str, bytes]
    interface: Interface
    program: Program
    plan: MemoryPlan


@located("")
def generate(
    mod: tvm.IRModule,
    description: Description,
    target: Target,
    share_memory: bool,
    io_in_workspace: bool = False,
) -> Generated:
    """Generate code for a module ``passes.optimize`` returned.

    Args:
        mod: the module.
        description: names, shapes and quantization of the model's inputs and outputs.
        target: decides between C and an object file.
        share_memory: order steps for little memory, and let tensors share it (see
            ``memory.plan_memory``).
        io_in_workspace: place the model's inputs and outputs in the workspace.

    Raises:
        ModelError: a kernel cannot be generated; names its operator where that is known.
    """
    kernels = lower_kernels(mod)
    program = extract(mod, kernels)
    if share_memory:
        program = reorder(program, io_in_workspace)
    plan = plan_memory(program, share_memory, io_in_workspace)
    names = interface(description)
    symbol = names.symbol
    used = {step.kernel for step in program.steps}
    kernels = {kernel: lowered for kernel, lowered in kernels.items() if kernel in used}
    for step in program.steps:
        if step.kernel:
            kernels[step.kernel] = kernels[step.kernel].may_alias(plan.overlapping(step))
    objects = {}
    if target.codegen == "llvm":
        objects[f"{symbol}_kernels.o"] = kernels_object(symbol, kernels, target)
    return Generated(
        sources={
            f"{symbol}.c": aot.run_source(names, program, kernels, plan, target.codegen == "c"),
            f"{symbol}_weights.c": weights(names, program),
        },
        headers={f"{symbol}.h": header(names, plan)},
        objects=objects,
        interface=names,
        program=program,
        plan=plan,
    )
