"""An object file from lowered TIR, through TVM's own LLVM: no C compiler involved."""

import re
import tempfile
from pathlib import Path

import tvm
import tvm_ffi
from tvm import ir, tirx
from tvm.script import tirx as T
from tvm.target.codegen import llvm_lookup_intrinsic_id

from mcuforge.codegen.c import MATH
from mcuforge.codegen.lower import LoweredKernel
from mcuforge.errors import ConfigError, ModelError
from mcuforge.isa.instruction import C_PREFIX, INSTRUCTIONS
from mcuforge.target import CORES, Target

_OPTIMIZATION = 3
# What TVM adds to every module beside the functions it is given: conversions of float16, and
# debug information without a source to point at.
_FLOAT16_HELPERS = re.compile(r"^define weak .*? @__\w+hf\w*\(.*?^}\n", re.M | re.S)
_DEBUG_RECORDS = re.compile(r"^ +#dbg_\w+\(.*\)\n", re.M)
_DEBUG_ATTACHMENTS = re.compile(r",? !dbg !\d+")
_DEBUG_UNITS = re.compile(r"^!llvm\.dbg\.cu = .*\n", re.M)
_DEFINITION = re.compile(r"^(define .*) \{$", re.M)


def kernels_object(symbol: str, kernels: dict[str, LoweredKernel], target: Target) -> bytes:
    """Compile kernels to one relocatable ELF object.

    Its functions ``{symbol}_{kernel}`` follow the core's C ABI and take the kernel's pointers in
    order. Apart from them it holds nothing. It may call memory functions, the compiler's integer
    helpers, for float operators libm, and ``{symbol}_{instruction}`` for instructions LLVM has no
    intrinsic for, which the executor writes as C. The same input gives the same bytes.

    Args:
        symbol: prefix of the functions.
        kernels: the kernels by name, as ``lower_kernels`` returns them.
        target: the core.

    Raises:
        ModelError: a kernel holds TIR that has no LLVM.
    """
    llvm_target = tvm.target.Target(target_options(target))
    functions = {}
    for name, kernel in kernels.items():
        func = tirx.PrimFunc(
            kernel.func.params, _legal(kernel.func.body, symbol), attrs=kernel.func.attrs
        )
        functions[name] = func.with_attrs(
            {"global_symbol": f"{symbol}_{name}", "target": llvm_target}
        )
    try:
        built = tvm.get_global_func("target.build.llvm")(tvm.IRModule(functions), llvm_target)
    except tvm.error.InternalError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ModelError(f"{symbol}: TVM has no LLVM for a kernel: {reason}") from error
    with tempfile.TemporaryDirectory() as directory:
        text, output = Path(directory, "kernels.ll"), Path(directory, "kernels.o")
        text.write_text(_without_additions(built.inspect_source("ll")))
        tvm.get_global_func("ffi.Module.load_from_file.ll")(str(text), "ll").write_to_file(
            str(output), "o"
        )
        return output.read_bytes()


def target_options(target: Target) -> dict[str, object]:
    """The options of TVM's ``llvm`` target for a core.

    Raises:
        ConfigError: the target is not one for codegen ``llvm``.
    """
    if target.codegen != "llvm":
        raise ConfigError(f"target {target.name} has no LLVM options")
    # TVM assumes 128 bit vectors on every Arm core; saying so silences its warning.
    options: dict[str, object] = {
        "kind": "llvm",
        "opt-level": _OPTIMIZATION,
        "vector-width": 128,
    }
    if target.core == "host":
        return options
    abi = target.family.abi
    return {
        **options,
        "mtriple": target.triple,
        "mcpu": CORES[target.core].llvm or target.core,
        "mattr": list(target.attributes),
        "mfloat-abi": target.float_abi,
        **({"mabi": abi} if abi else {}),
    }


def _legal(body: tirx.Stmt, symbol: str) -> tirx.Stmt:
    """A kernel's body in the TIR that LLVM code is generated from.

    TVM's own lowering of these nodes goes through its simplifier, whose arithmetic on shifts is not
    exact; here each means what it means in the C that ``codegen.c`` writes.
    """

    def call(expr: ir.Call) -> ir.Expr:
        name = getattr(expr.op, "name", "")
        if name in ("tirx.call_extern", "tirx.call_pure_extern"):
            function = str(expr.args[0].value)
            if function.startswith(C_PREFIX):
                instruction = INSTRUCTIONS[function.removeprefix(C_PREFIX)]
                if instruction.llvm is not None:
                    return instruction.llvm(*expr.args[1:])
                exported = f"{symbol}_{instruction.name}"
                return T.call_extern(instruction.result, exported, *expr.args[1:])
            if function == "memcpy":
                # Small copies become loads and stores.
                number = llvm_lookup_intrinsic_id("llvm.memcpy")
                return T.call_llvm_intrin("void", T.uint32(number), *expr.args[1:], T.bool(False))
        elif name == "tirx.likely":
            return expr.args[0]
        elif name == "tirx.rsqrt":
            return T.float32(1) / T.call_pure_extern("float32", "sqrtf", *expr.args)
        elif name.removeprefix("tirx.") in MATH and str(expr.ty.dtype) == "float32":
            return T.call_pure_extern("float32", MATH[name.removeprefix("tirx.")], *expr.args)
        return expr

    return tvm_ffi.structural_map(
        body,
        [
            (ir.Call, call),
            # Indices are never negative.
            (tirx.FloorDiv, lambda expr: tirx.Div(expr.a, expr.b)),
            (tirx.FloorMod, lambda expr: tirx.Mod(expr.a, expr.b)),
        ],
    )


def _without_additions(text: str) -> str:
    """LLVM assembly of a module without what TVM adds for its own runtime."""
    for pattern in (_FLOAT16_HELPERS, _DEBUG_RECORDS, _DEBUG_UNITS, _DEBUG_ATTACHMENTS):
        text = pattern.sub("", text)
    # What is called is C: nothing throws, and no unwinder needs to be linked.
    return _DEFINITION.sub(r"\1 nounwind {", text)
