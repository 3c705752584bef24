"""A model in, Model Library Format out."""

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import tvm

from mcuforge import codegen, formats, mlf, passes, provenance
from mcuforge.codegen import llvm
from mcuforge.codegen.program import Program
from mcuforge.errors import ConfigError
from mcuforge.executors import aot as executor
from mcuforge.formats.description import Description
from mcuforge.target import Target

# DLPack's device type of a CPU.
_DL_CPU = 1
# Level 1 gives every tensor a place of its own. Level 0 is what plain TVM gives, whose own pipeline
# (StaticPlanBlockMemory) shares memory too.
_UNSHARED_LEVEL = 1


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
        ConfigError: the opt_level is out of range.
    """
    if not 0 <= opt_level <= passes.MAX_OPT_LEVEL:
        raise ConfigError(f"opt_level {opt_level} is not in 0..{passes.MAX_OPT_LEVEL}")
    source, content = formats.of(model), formats.read(model)
    description = source.describe(content, name, "")
    module = passes.optimize(source.to_relax(content), target, opt_level)
    generated = codegen.generate(
        module, description, target, opt_level != _UNSHARED_LEVEL, io_in_workspace
    )
    members = {
        **{f"codegen/host/src/{k}": v.encode() for k, v in generated.sources.items()},
        **{f"codegen/host/include/{k}": v.encode() for k, v in generated.headers.items()},
        **{f"codegen/host/lib/{k}": v for k, v in generated.objects.items()},
        f"parameters/{name}.params": _parameters(generated.program),
        f"executor-config/aot/{name}.json": _json(
            executor.configuration(name, generated.program, generated.plan)
        ),
        "src/relax.txt": module.script(show_meta=False).encode(),
    }
    mlf.write(output, _metadata(description, target, opt_level, generated), members)


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


def _metadata(
    description: Description, target: Target, opt_level: int, generated: codegen.Generated
) -> dict[str, Any]:
    program, plan = generated.program, generated.plan
    symbol = executor.prefix(description.name)

    def port_info(port: executor.Port) -> dict[str, Any]:
        tensor, place = port.tensor, plan.offsets.get(port.variable)
        return {
            "name": tensor.name,
            "c_name": port.c_name,
            "shape": list(tensor.shape),
            "dtype": tensor.dtype,
            "scale": tensor.scale,
            "zero_point": tensor.zero_point,
            "bytes": tensor.bytes,
            **({} if place is None else {"workspace_offset": place}),
        }

    inputs, outputs = (
        [port_info(port) for port in executor.ports(tensors, kind)]
        for tensors, kind in ((description.inputs, "input"), (description.outputs, "output"))
    )
    io_in_workspace = any("workspace_offset" in port for port in (*inputs, *outputs))
    weights_bytes = sum(tensor.bytes for tensor in program.constants)
    # Of the caller's buffers.
    io_bytes = 0 if io_in_workspace else description.input_bytes + description.output_bytes
    info = {
        "compiler_version": provenance.compiler(),
        "tvm_version": importlib.metadata.version("apache-tvm"),
        "model_sha256": description.sha256,
        "opt_level": opt_level,
        "core": target.mcpu,
        "codegen": target.codegen,
        "executor": "aot",
        "entry": f"{symbol}_run",
        "header": f"{symbol}.h",
        "inputs": inputs,
        "outputs": outputs,
        "io_in_workspace": io_in_workspace,
        "workspace_bytes": plan.bytes,
        "workspace_lower_bound_bytes": plan.lower_bound,
        "weights_bytes": weights_bytes,
        "model_weights_bytes": description.weights_bytes,
        "macs_nominal": description.macs,
        "macs_executed": _macs_executed(program, description.macs),
        "operators": [
            {
                "symbol": f"{symbol}_{s.kernel}" if s.kernel else "memcpy",
                "op": s.op,
                "shape": list(s.result.shape),
                "macs": s.macs or 0,
                "macs_nominal": nominal,
            }
            for s, nominal in zip(program.steps, _macs_nominal(program, description), strict=True)
        ],
    }
    functions: dict[str, dict[str, int]] = {}
    for step in program.steps:
        if step.kernel:
            function = functions.setdefault(
                f"{symbol}_{step.kernel}",
                {"workspace_size_bytes": 0, "constants_size_bytes": 0, "io_size_bytes": 0},
            )
            # The most it needs in any of its calls.
            for key, tensors in (
                ("workspace_size_bytes", step.scratch),
                ("constants_size_bytes", [t for t in step.args if t.kind == "constant"]),
                ("io_size_bytes", [t for t in step.args if t.kind != "constant"]),
            ):
                function[key] = max(function[key], sum(tensor.bytes for tensor in tensors))
    main = {
        "device": _DL_CPU,
        "workspace_size_bytes": plan.bytes,
        "constants_size_bytes": weights_bytes,
        "io_size_bytes": io_bytes,
        "inputs": {p["c_name"]: {"dtype": p["dtype"], "size": p["bytes"]} for p in inputs},
        "outputs": {p["c_name"]: {"dtype": p["dtype"], "size": p["bytes"]} for p in outputs},
    }
    module = {
        "model_name": description.name,
        "export_datetime": mlf.EPOCH,
        "executors": ["aot"],
        "style": "full-model",
        "target": [_target(target)],
        "external_dependencies": [],
        "memory": {
            "functions": {
                "main": [main],
                "operator_functions": [
                    {"function_name": name, "workspace": [{"device": _DL_CPU, **sizes}]}
                    for name, sizes in functions.items()
                ],
            }
        },
        "mcuforge": info,
    }
    return {"version": mlf.FORMAT_VERSION, "modules": {description.name: module}}


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
    counts = [step.macs for step in program.steps]
    return nominal if None in counts else sum(counts)
