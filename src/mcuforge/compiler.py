"""A model in, Model Library Format out."""

import functools
import importlib.metadata
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tvm

from mcuforge import formats, mlf, passes, provenance
from mcuforge.codegen import llvm
from mcuforge.codegen.memory import MemoryPlan
from mcuforge.codegen.program import Program
from mcuforge.errors import OPERATOR, ConfigError, ModelError
from mcuforge.executors import aot
from mcuforge.executors.generate import Generated, generate
from mcuforge.executors.ports import Port, check_name
from mcuforge.formats.description import Description
from mcuforge.target import Target

# Level 1 gives every tensor a place of its own. Level 0 is what plain TVM gives, whose own pipeline
# (StaticPlanBlockMemory) shares memory too.
_UNSHARED_LEVEL = 1
# The terms of what an archive holds, for whoever unpacks it.
_LICENSE = Path(__file__).parent / "mlf" / "LICENSE.md"


def compile_model(
    model: Path,
    name: str,
    target: Target,
    opt_level: int,
    output: Path,
    *,
    io_in_workspace: bool = False,
) -> None:
    """Compile a model and write it as a Model Library Format archive.

    Args:
        model: its file, of a format of ``formats``.
        name: the model's name, used in symbols and file names.
        target: core and codegen.
        opt_level: 0 to 4, as in TVM's PassContext.
        output: the ``.tar`` to write; written completely or not at all.
        io_in_workspace: plan the model's inputs and outputs as part of the workspace, where they
            may share memory with everything else; the header tells where they are. Otherwise the
            caller owns their buffers.

    Raises:
        ModelError: the file is no valid model, or it has an operator that is not supported.
        ConfigError: the opt_level is out of range, or the name is none a model can have.
    """
    check_name(name)
    if not 0 <= opt_level <= passes.MAX_OPT_LEVEL:
        raise ConfigError(f"opt_level {opt_level} is not in 0..{passes.MAX_OPT_LEVEL}")
    source, content = formats.of(model), formats.read(model)
    description = source.describe(content, name)
    build = functools.partial(_build, target, opt_level, io_in_workspace)
    imported = source.to_relax(content)
    try:
        module, generated = build(imported, description)
    except ModelError as error:
        raise _located(error, source, content, name, build) from error
    symbol = generated.interface.symbol
    members = {
        **{f"codegen/host/src/{k}": v.encode() for k, v in generated.sources.items()},
        **{f"codegen/host/include/{k}": v.encode() for k, v in generated.headers.items()},
        **{f"codegen/host/lib/{k}": v for k, v in generated.objects.items()},
        f"parameters/{name}.params": _parameters(generated.program),
        f"executor-config/aot/{name}.json": _json(
            aot.configuration(symbol, generated.program, generated.plan)
        ),
        "LICENSE.md": _LICENSE.read_bytes(),
        "src/relax.txt": module.script(show_meta=False).encode(),
    }
    info = _info(description, target, opt_level, generated)
    functions = _functions(generated.program, symbol)
    mlf.write(output, mlf.metadata(name, info, _target(target), functions), members)


def _build(
    target: Target,
    opt_level: int,
    io_in_workspace: bool,
    imported: tvm.IRModule,
    description: Description,
) -> tuple[tvm.IRModule, Generated]:
    module = passes.optimize(imported, target, opt_level)
    shared = opt_level != _UNSHARED_LEVEL
    return module, generate(module, description, target, shared, io_in_workspace)


def _located(
    error: ModelError,
    source: formats.Format,
    content: bytes,
    name: str,
    build: Callable[[tvm.IRModule, Description], object],
) -> ModelError:
    """The error with the operator that it comes from, where that can be known.

    Passes and code generation see what became of operators, not the model's own. The one that fails
    in the same way when it is compiled by itself is the one.
    """

    def what(error: ModelError) -> str:
        # The numbers in it are those of TVM's variables.
        return re.sub(r"\d+", "", error.message)

    if error.message.startswith(OPERATOR):
        return error
    for where, alone in source.operators(content):
        try:
            build(source.to_relax(alone), source.describe(alone, name))
        except ModelError as failure:
            if what(failure) == what(error):
                message = f"{where}: {error.message}".replace(": the model cannot", " cannot")
                return ModelError(message, error.hint)
    return error


def _parameters(program: Program) -> bytes:
    """The constants by name, as TVM stores them; the code holds the same."""
    return bytes(
        tvm.runtime.save_param_dict(
            {tensor.name: tvm.runtime.tensor(tensor.value) for tensor in program.constants}
        )
    )


def _json(document: Any) -> bytes:
    return (json.dumps(document, indent=1) + "\n").encode()


def _target(target: Target) -> str:
    """The target as TVM writes it."""
    if target.codegen == "llvm":
        return json.dumps(llvm.target_options(target))
    return json.dumps({"kind": "c", "keys": ["arm_cpu", "cpu"], "mcpu": target.mcpu})


def _info(
    description: Description, target: Target, opt_level: int, generated: Generated
) -> mlf.Info:
    program, plan = generated.program, generated.plan
    interface, symbol = generated.interface, generated.interface.symbol
    return mlf.Info(
        compiler_version=provenance.compiler(),
        tvm_version=importlib.metadata.version("apache-tvm"),
        model_sha256=description.sha256,
        opt_level=opt_level,
        core=target.mcpu,
        codegen=target.codegen,
        executor="aot",
        entry=f"{symbol}_run",
        header=f"{symbol}.h",
        inputs=_ports(interface.inputs, plan),
        outputs=_ports(interface.outputs, plan),
        io_in_workspace=any(t.name in plan.offsets for t in (*program.inputs, *program.outputs)),
        workspace_bytes=plan.bytes,
        workspace_lower_bound_bytes=plan.lower_bound,
        weights_bytes=sum(tensor.bytes for tensor in program.constants),
        model_weights_bytes=description.weights_bytes,
        macs_nominal=description.macs,
        macs_executed=_macs_executed(program, description.macs),
        operators=tuple(
            mlf.Operator(
                symbol=f"{symbol}_{step.kernel}" if step.kernel else "memcpy",
                op=step.op,
                shape=step.result.shape,
                macs=step.macs or 0,
                macs_nominal=nominal,
                products=step.products,
            )
            for step, nominal in zip(
                program.steps, _macs_nominal(program, description), strict=True
            )
        ),
    )


def _ports(ports: tuple[Port, ...], plan: MemoryPlan) -> tuple[mlf.Port, ...]:
    return tuple(
        mlf.Port(
            name=port.tensor.name,
            c_name=port.c_name,
            shape=port.tensor.shape,
            dtype=port.tensor.dtype,
            bytes=port.tensor.bytes,
            scale=port.tensor.scale,
            zero_point=port.tensor.zero_point,
            workspace_offset=plan.offsets.get(port.variable),
        )
        for port in ports
    )


def _functions(program: Program, symbol: str) -> dict[str, dict[str, int]]:
    """For each kernel the bytes it works on: the most of its calls, by TVM's names of the sums."""
    functions: dict[str, dict[str, int]] = {}
    for step in program.steps:
        if not step.kernel:
            continue
        tensors = {
            "workspace_size_bytes": step.scratch,
            "constants_size_bytes": [t for t in step.args if t.kind == "constant"],
            "io_size_bytes": [t for t in step.args if t.kind != "constant"],
        }
        sizes = functions.setdefault(f"{symbol}_{step.kernel}", dict.fromkeys(tensors, 0))
        for key, group in tensors.items():
            sizes[key] = max(sizes[key], sum(tensor.bytes for tensor in group))
    return functions


def _macs_nominal(program: Program, description: Description) -> list[int | None]:
    """Multiply-accumulates the model states for each step, None where that cannot be told.

    Passes keep the order of operators, so the n-th with weights comes from the model's n-th: unless
    one of them was removed as a whole, or is TVM's own and does not say what it executes.
    """
    stated = [operator.macs for operator in description.operators if operator.macs]
    executed = [step.macs for step in program.steps if step.macs]
    if len(stated) != len(executed) or any(map(int.__lt__, stated, executed)):
        return [step.macs and None for step in program.steps]
    following = iter(stated)
    return [next(following) if step.macs else step.macs for step in program.steps]


def _macs_executed(program: Program, nominal: int) -> int:
    """Multiply-accumulates one inference executes.

    TVM's own kernels, those of float operators, do not say; nothing is removed from models that
    have them.
    """
    counts = [step.macs for step in program.steps if step.macs is not None]
    return nominal if len(counts) < len(program.steps) else sum(counts)
