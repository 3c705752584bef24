"""The ahead-of-time executor: one C function that calls a model's kernels in order."""

from typing import Any

from mcuforge.codegen import c
from mcuforge.codegen.lower import LoweredKernel
from mcuforge.codegen.memory import ALIGNMENT, MemoryPlan
from mcuforge.codegen.program import Program, Step, Tensor
from mcuforge.executors.header import notice
from mcuforge.executors.ports import Interface, Port
from mcuforge.executors.weights import declaration
from mcuforge.isa.instruction import INSTRUCTIONS

_OPERATOR_HOOKS = """\
/* With TVMGEN_PROFILE the caller is told when each operator starts and ends. Without,
   they only stay apart: tensors of different types share memory one after the other. */
#ifdef TVMGEN_PROFILE
void tvmgen_operator_begin(uint32_t index);
void tvmgen_operator_end(uint32_t index);
#else
#define tvmgen_operator_begin(index) ((void)0)
#define tvmgen_operator_end(index) __asm volatile("" ::: "memory")
#endif
"""
_WORKSPACE_ATTRIBUTE = """\
/* Define it to a section attribute to place the workspace. */
#ifndef TVMGEN_WORKSPACE_ATTR
#define TVMGEN_WORKSPACE_ATTR
#endif
"""


def run_source(
    interface: Interface,
    program: Program,
    kernels: dict[str, LoweredKernel],
    plan: MemoryPlan,
    inline_kernels: bool,
) -> str:
    """The file with the kernels and the function that calls them.

    Args:
        interface: the model's names.
        program: what to call.
        kernels: the functions to call.
        plan: where temporaries live.
        inline_kernels: write the kernels as static C functions; otherwise declare them, for linking
            with an object that holds them.
    """
    instructions = c.used_instructions(kernels)
    if not inline_kernels:
        # The object calls these; the others are in it.
        instructions = [i for i in instructions if INSTRUCTIONS[i].llvm is None]
    if inline_kernels:
        functions = _definitions(interface, kernels, instructions)
    else:
        functions = _declarations(interface, kernels, instructions)
    math = inline_kernels and c.uses_math("\n".join(functions))
    return "\n".join(
        [
            notice(interface),
            *_includes(interface, instructions, math),
            _WORKSPACE_ATTRIBUTE,
            _OPERATOR_HOOKS,
            *_memory(interface, program, plan),
            *functions,
            *_run_function(interface, program, plan),
        ]
    )


def _includes(interface: Interface, instructions: list[str], math: bool) -> list[str]:
    features = {INSTRUCTIONS[i].feature for i in instructions}
    lines = [
        "#include <stdbool.h>",
        "#include <stddef.h>",
        "#include <stdint.h>",
        "#include <string.h>",
    ]
    if math:
        lines.append("#include <math.h>")
    for feature in sorted(features):
        lines += c.feature_header(feature)
    return [*lines, "", f'#include "{interface.symbol}.h"', ""]


def _memory(interface: Interface, program: Program, plan: MemoryPlan) -> list[str]:
    """The constants, which another file defines, and the workspace."""
    lines = [f"extern {declaration(interface, tensor)};" for tensor in program.constants]
    if plan.bytes:
        lines += [
            "",
            f"TVMGEN_WORKSPACE_ATTR __attribute__((aligned({ALIGNMENT})))",
            f"static uint8_t workspace[{interface.macro}_WORKSPACE_SIZE];",
        ]
    return [*lines, ""]


def _definitions(
    interface: Interface, kernels: dict[str, LoweredKernel], instructions: list[str]
) -> list[str]:
    """The kernels in C, behind what they use."""
    bodies = [c.kernel_source(f"{interface.symbol}_{k}", kernel) for k, kernel in kernels.items()]
    return [c.MIN_MAX, c.KERNEL, *map(c.instruction_source, instructions), "\n".join(bodies)]


def _declarations(
    interface: Interface, kernels: dict[str, LoweredKernel], instructions: list[str]
) -> list[str]:
    """The kernels of an object file, behind the instructions that it calls."""
    symbol = interface.symbol
    return [
        *([c.MIN_MAX] if instructions else []),
        *(c.instruction_source(i, f"{symbol}_{i}") for i in instructions),
        *(c.kernel_prototype(f"{symbol}_{k}", kernel) for k, kernel in kernels.items()),
    ]


def _run_function(interface: Interface, program: Program, plan: MemoryPlan) -> list[str]:
    """The function that runs the model, and if ports are in the workspace, the one that tells."""
    symbol = interface.symbol
    places = {
        **{port.variable: f"inputs->{port.c_name}" for port in interface.inputs},
        **{port.variable: f"outputs->{port.c_name}" for port in interface.outputs},
    }
    lines = []
    if any(port.variable in plan.offsets for port in interface.ports):
        lines += [f"uint8_t *{symbol}_workspace(void) {{", "    return workspace;", "}", ""]
    lines.append(
        f"int32_t {symbol}_run(struct {symbol}_inputs *inputs, struct {symbol}_outputs *outputs) {{"
    )
    if not any(tensor.kind == "input" for step in program.steps for tensor in step.args):
        lines.append("    (void)inputs; /* No output depends on them. */")
    for port in interface.inputs:
        lines += _copy_outside("inputs", port, plan)
    for index, step in enumerate(program.steps):
        lines.append(f"    tvmgen_operator_begin({index}u); /* {step.op} */")
        lines.append(f"    {_call(symbol, step, plan, places)}")
        lines.append(f"    tvmgen_operator_end({index}u);")
    for port in interface.outputs:
        lines += _copy_outside("outputs", port, plan)
    return [*lines, "    return 0;", "}", ""]


def _copy_outside(struct: str, port: Port, plan: MemoryPlan) -> list[str]:
    """Copy a port between the workspace, if it lives there, and where the caller keeps it."""
    if port.variable not in plan.offsets:
        return []
    outside, place = f"{struct}->{port.c_name}", f"workspace + {plan.offsets[port.variable]}"
    copy = f"{place}, {outside}" if struct == "inputs" else f"{outside}, {place}"
    return [
        f"    if ({struct} && {outside} && (const uint8_t *){outside} != {place}) {{",
        f"        memcpy({copy}, {port.tensor.bytes});",
        "    }",
    ]


def _call(symbol: str, step: Step, plan: MemoryPlan, places: dict[str, str]) -> str:
    def place(tensor: Tensor, position: int) -> str:
        if tensor.kind == "constant":
            return f"{symbol}_{tensor.name}"
        if tensor.name in plan.offsets:
            const = "const " if position < len(step.args) - 1 else ""
            return f"({const}{c.c_type(tensor.dtype)} *)(workspace + {plan.offsets[tensor.name]})"
        return places[tensor.name]

    if not step.kernel:
        source, result = (place(t, i) for i, t in enumerate(step.args))
        return f"memcpy({result}, {source}, {step.result.bytes});"
    args = [place(tensor, i) for i, tensor in enumerate((*step.args, *step.scratch))]
    return f"{symbol}_{step.kernel}({', '.join(args)});"


def configuration(symbol: str, program: Program, plan: MemoryPlan) -> dict[str, Any]:
    """What the run function does, for machines to read: tensors and calls in order.

    Tensors have a kind (``input``, ``output``, ``constant``, ``temporary``) and those in the
    workspace their offset; calls name their arguments in the kernel's order, and of a call without
    symbol the first is copied to the second.
    """
    tensors = {}
    for step in program.steps:
        for tensor in (*step.args, *step.scratch):
            tensors[tensor.name] = {
                "kind": tensor.kind,
                "shape": list(tensor.shape),
                "dtype": tensor.dtype,
                "bytes": tensor.bytes,
                "workspace_offset": plan.offsets.get(tensor.name),
            }
    return {
        "entry": f"{symbol}_run",
        "workspace_bytes": plan.bytes,
        "tensors": tensors,
        "calls": [
            {
                "symbol": f"{symbol}_{step.kernel}" if step.kernel else None,
                "op": step.op,
                "args": [tensor.name for tensor in (*step.args, *step.scratch)],
                "macs": step.macs or 0,
            }
            for step in program.steps
        ],
    }
