"""C99 from lowered TIR: freestanding, deterministic, meant to be read."""

import re
from collections.abc import Iterator

import numpy as np
import tvm_ffi
from tvm import ir, tirx

from mcuforge.codegen import names
from mcuforge.codegen.lower import LoweredKernel, lower_definition
from mcuforge.errors import ModelError
from mcuforge.isa.feature import FEATURES
from mcuforge.isa.instruction import C_PREFIX, INSTRUCTIONS, Instruction, lanes

_BINARY = {
    tirx.Add: ("+", 12),
    tirx.Sub: ("-", 12),
    tirx.Mul: ("*", 13),
    tirx.Div: ("/", 13),
    tirx.Mod: ("%", 13),
    tirx.LT: ("<", 10),
    tirx.LE: ("<=", 10),
    tirx.GT: (">", 10),
    tirx.GE: (">=", 10),
    tirx.EQ: ("==", 9),
    tirx.NE: ("!=", 9),
    tirx.And: ("&&", 5),
    tirx.Or: ("||", 4),
    tirx.RShift: (">>", 11),
    tirx.BitwiseAnd: ("&", 8),
    tirx.BitwiseXor: ("^", 7),
    tirx.BitwiseOr: ("|", 6),
}
_OBSCURE = {tirx.RShift, tirx.BitwiseAnd, tirx.BitwiseXor, tirx.BitwiseOr}
# libm functions float operators need; integer models call none.
MATH = {
    "exp": "expf",
    "tanh": "tanhf",
    "sqrt": "sqrtf",
    "rsqrt": "1.0f / sqrtf",
    "log": "logf",
    "pow": "powf",
    "floor": "floorf",
    "ceil": "ceilf",
    "round": "nearbyintf",
    "nearbyint": "nearbyintf",
    "trunc": "truncf",
    "fabs": "fabsf",
}
_ATOM, _UNARY, _TERNARY = 16, 14, 3
_EXTERN_CALLS = ("tirx.call_extern", "tirx.call_pure_extern")

MIN_MAX = """\
#define MCUFORGE_MIN(a, b) ((a) < (b) ? (a) : (b))
#define MCUFORGE_MAX(a, b) ((a) > (b) ? (a) : (b))
"""
# What stands before every kernel.
KERNEL = """\
/* A caller of a kernel may rely on its prototype alone. GCC 12 clones a kernel for the constant
   addresses of its tensors, can then lose sight of its stores, and drops the call. Inlined into
   the run function, inner loops would lack registers. */
#ifdef __has_attribute
#if __has_attribute(noipa)
#define TVMGEN_KERNEL __attribute__((noipa))
#elif __has_attribute(noclone)
#define TVMGEN_KERNEL __attribute__((noinline, noclone))
#endif
#endif
#ifndef TVMGEN_KERNEL
#define TVMGEN_KERNEL __attribute__((noinline))
#endif
"""


def c_type(dtype: str) -> str:
    """The C type of a TVM dtype: ``int8`` is ``int8_t``, ``int8x16`` is ``int8x16_t``."""
    special = {"float32": "float", "float64": "double", "bool": "bool", "void": "void"}
    return special.get(dtype, f"{dtype}_t")


def kernel_source(name: str, kernel: LoweredKernel) -> str:
    """The C function of a kernel; raises ModelError for TIR it has no C for."""
    return _Function(name, kernel).source()


def kernel_prototype(name: str, kernel: LoweredKernel) -> str:
    """The declaration of a kernel that an object file defines."""
    return _Function(name, kernel).prototype()


def used_instructions(kernels: dict[str, LoweredKernel]) -> list[str]:
    """Names of the instructions (``isa``) the kernels call, sorted."""
    found = set()

    def visit(call: ir.Call) -> None:
        if getattr(call.op, "name", "") in _EXTERN_CALLS:
            name = str(call.args[0].value)
            if name.startswith(C_PREFIX):
                found.add(name.removeprefix(C_PREFIX))

    for kernel in kernels.values():
        tvm_ffi.structural_walk(kernel.func.body, (ir.Call, visit))
    return sorted(found)


def uses_math(source: str) -> bool:
    """Whether C source calls libm."""
    return any(f"{name.split()[-1]}(" in source for name in MATH.values())


def feature_header(name: str) -> list[str]:
    """C lines that make a feature's intrinsics known, or else the types portable code needs."""
    feature = FEATURES[name]
    if not feature.header:
        return []
    lines = [f"#if defined({feature.macro})"]
    if feature.gcc:
        options = ", ".join(f'"{option}"' for option in feature.gcc)
        lines += ["#if defined(__GNUC__) && !defined(__clang__)"]
        lines += [f"#pragma GCC optimize({options})", "#endif"]
    return [*lines, f"#include <{feature.header}>", "#else", *portable_types(name), "#endif"]


def portable_types(name: str) -> list[str]:
    """C definitions of a feature's vector types."""
    lines = []
    for dtype in FEATURES[name].vectors:
        element, count = lanes(dtype)
        size = np.dtype(element).itemsize * count
        attribute = f"__attribute__((vector_size({size})))"
        lines.append(f"typedef {c_type(element)} {c_type(dtype)} {attribute};")
    return lines


def instruction_source(name: str, exported: str = "") -> str:
    """The C function of an instruction, with its portable form, which may need MIN_MAX.

    Args:
        name: the instruction.
        exported: make it an external function of this name, for an object file to call.
    """
    entry = INSTRUCTIONS[name]

    def declaration(param: str, dtype: str) -> str:
        if dtype != "handle":
            return f"{c_type(dtype)} {param}"
        return f"void *{param}" if param in entry.writes else f"const void *{param}"

    params = ", ".join(declaration(*param) for param in entry.params)
    macro = FEATURES[entry.feature].macro

    def body(text: str) -> str:
        if "return" in text or entry.result == "void":
            return "\n".join(f"    {line}" for line in text.strip().splitlines())
        return f"    return {text.strip()};"

    function = f"{exported or C_PREFIX + name}({params})"
    if exported:
        head = f"{c_type(entry.result)} {function};\n{c_type(entry.result)} {function}"
    else:
        linkage = "static __attribute__((noinline))" if entry.shared else "static inline"
        head = f"{linkage} {c_type(entry.result)} {function}"
    portable = _portable(entry)
    return (
        f"{head} {{\n#if defined({macro})\n{body(entry.c)}\n#else\n{body(portable)}\n#endif\n}}\n"
    )


def _portable(entry: Instruction) -> str:
    """Plain C of an instruction, from its definition."""
    return _Function(entry.name, lower_definition(entry.definition)).portable(entry)


class _Function:
    """Writes one function."""

    def __init__(self, name: str, kernel: LoweredKernel) -> None:
        self._name = name
        self._kernel = kernel
        self._names: dict[tirx.Var, str] = {}
        self._taken = set(MATH.values())
        self._scalars: set[tirx.Var] = set()
        self._values: set[tirx.Var] = set()
        self._aliases: dict[tirx.Var, tuple[str, str | None]] = {}

    def source(self) -> str:
        signature = self._signature()
        body = "\n".join(self._statement(self._kernel.func.body, 1))
        # TVM simplifies to nothing what, say, always ends at a clamp.
        for name in (self._names[param] for param in reversed(self._kernel.func.params)):
            if not re.search(rf"\b{name}\b", body):
                body = f"    (void){name};\n{body}"
        return f"{self._gcc_options()}static TVMGEN_KERNEL {signature} {{\n{body}\n}}\n"

    def _gcc_options(self) -> str:
        """Lines that tell GCC what the kernel's attribute ``mcuforge.gcc`` says."""
        attrs = self._kernel.func.attrs
        if not attrs or "mcuforge.gcc" not in attrs:
            return ""
        options = ", ".join(f'"{option}"' for option in attrs["mcuforge.gcc"])
        attribute = f"__attribute__((optimize({options})))"
        return f"#if defined(__GNUC__) && !defined(__clang__)\n{attribute}\n#endif\n"

    def portable(self, entry: Instruction) -> str:
        """The statements of an instruction's C function."""
        func = self._kernel.func
        self._taken.update(param for param, _ in entry.params)
        lines = []
        operands = [*entry.params, ("result", entry.result)][: len(func.params)]
        for (param, dtype), var in zip(operands, func.params, strict=True):
            if dtype == "handle":
                const = "" if param in entry.writes else "const "
                pointer = f"{const}{c_type(str(var.ty.element_type.dtype))} *"
                lines.append(f"{pointer}const {self._declare(var)} = {param};")
                continue
            self._names[var] = param
            if lanes(dtype)[1] == 1:
                self._values.add(var)
        if len(func.params) > len(entry.params):
            start = " = 0" if lanes(entry.result)[1] == 1 else ""
            lines.append(f"{c_type(entry.result)} result{start};")
        lines += self._statement(func.body, 0)
        if entry.result != "void":
            lines.append(f"return {operands[-1 if operands[-1][0] == 'result' else 0][0]};")
        return "\n".join(lines)

    def prototype(self) -> str:
        return f"{self._signature()};\n"

    def _signature(self) -> str:
        func = self._kernel.func
        written = _written(func)
        params = []
        for position, param in enumerate(func.params):
            restrict = "" if position in self._kernel.aliased else "restrict "
            qualifier = "" if param in written else "const "
            dtype = str(param.ty.element_type.dtype)
            params.append(f"{qualifier}{c_type(dtype)} *{restrict}{self._declare(param)}")
        return f"void {self._name}({', '.join(params)})"

    def _declare(self, var: tirx.Var) -> str:
        self._names[var] = names.identifier(var.name, "v", self._taken)
        return self._names[var]

    def _statement(self, stmt: tirx.Stmt, depth: int) -> Iterator[str]:
        pad = "    " * depth
        match stmt:
            case tirx.SeqStmt():
                yield from self._sequence(list(stmt.seq), depth)
            case tirx.DeclBuffer():
                # A flat view of a pointer: the pointer itself.
                self._names[stmt.buffer] = self._expr(stmt.data, _ATOM)
                if stmt.data in self._values:
                    self._scalars.add(stmt.buffer)
            case tirx.AllocBuffer():
                (size,) = (int(d) for d in stmt.buffer.shape)
                name = self._declare(stmt.buffer)
                if size == 1:
                    self._scalars.add(stmt.buffer)
                extent = "" if size == 1 else f"[{size}]"
                yield f"{pad}{c_type(str(stmt.buffer.dtype))} {name}{extent};"
            case tirx.Bind():
                value, dtype = self._expr(stmt.value, 0), c_type(_dtype(stmt.value))
                yield f"{pad}const {dtype} {self._declare(stmt.var)} = {value};"
            case tirx.BufferStore():
                target = self._element(stmt.buffer, stmt.indices)
                value = stmt.value
                increment = self._increment(stmt)
                if increment is not None:
                    yield f"{pad}{target} += {self._expr(increment, 0)};"
                else:
                    yield f"{pad}{target} = {self._expr(value, 0)};"
            case tirx.For():
                yield from self._for(stmt, depth)
            case tirx.While():
                yield f"{pad}while ({self._expr(stmt.condition, 0)}) {{"
                yield from self._statement(stmt.body, depth + 1)
                yield f"{pad}}}"
            case tirx.IfThenElse():
                yield f"{pad}if ({self._expr(stmt.condition, 0)}) {{"
                yield from self._statement(stmt.then_case, depth + 1)
                if stmt.else_case is not None:
                    yield f"{pad}}} else {{"
                    yield from self._statement(stmt.else_case, depth + 1)
                yield f"{pad}}}"
            case tirx.Evaluate():
                if not isinstance(stmt.value, tirx.IntImm):
                    yield f"{pad}{self._expr(stmt.value, 0)};"
            case tirx.AttrStmt():
                yield from self._statement(stmt.body, depth)
            case tirx.Break():
                yield f"{pad}break;"
            case tirx.Continue():
                yield f"{pad}continue;"
            case _:
                raise ModelError(f"kernel {self._name}: no C for TIR {type(stmt).__name__}")

    def _sequence(self, stmts: list[tirx.Stmt], depth: int) -> Iterator[str]:
        while stmts:
            stmt = stmts.pop(0)
            if isinstance(stmt, tirx.AllocBuffer) and stmts and _initialises(stmts[0], stmt.buffer):
                # A scalar and its first value: one definition.
                value = self._expr(stmts.pop(0).value, 0)
                self._scalars.add(stmt.buffer)
                dtype = c_type(str(stmt.buffer.dtype))
                yield f"{'    ' * depth}{dtype} {self._declare(stmt.buffer)} = {value};"
            else:
                yield from self._statement(stmt, depth)

    def _for(self, loop: tirx.For, depth: int) -> Iterator[str]:
        pad = "    " * depth
        dtype = c_type(_dtype(loop.loop_var))
        low = self._expr(loop.min, 0)
        var = self._declare(loop.loop_var)
        high = self._expr(loop.min + loop.extent, 10)
        step = f"++{var}"
        if loop.step is not None and not _is_one(loop.step):
            step = f"{var} += {self._expr(loop.step, 0)}"
        if _calls_block(loop.body):
            # clang would repeat the calls, arguments and all, for every turn.
            yield f"{pad}#pragma GCC unroll 1"
        yield f"{pad}for ({dtype} {var} = {low}; {var} < {high}; {step}) {{"
        yield from self._statement(loop.body, depth + 1)
        yield f"{pad}}}"

    def _increment(self, store: tirx.BufferStore) -> ir.Expr | None:
        """``b`` where a scalar ``a`` is assigned ``a + b``."""
        value = store.value
        if (
            store.buffer in self._scalars
            and isinstance(value, tirx.Add)
            and isinstance(value.a, ir.TensorLoad)
            and value.a.source.same_as(store.buffer)
            and _dtype(value) in ("int32", "int64", "float32")
        ):
            return value.b
        return None

    def _element(self, buffer: tirx.Var, indices: list[ir.Expr]) -> str:
        if buffer in self._scalars:
            return self._names[buffer]
        (index,) = indices
        return f"{self._names[buffer]}[{self._expr(index, 0)}]"

    def _expr(self, expr: ir.Expr, precedence: int) -> str:
        text, own = self._render(expr)
        return f"({text})" if own < precedence else text

    def _render(self, expr: ir.Expr) -> tuple[str, int]:
        """C text of an expression and how tightly its outermost operator binds."""
        kind = type(expr)
        if kind in _BINARY:
            operator, level = _BINARY[kind]
            # Operands of shifts and bitwise operators are parenthesized: nobody knows those levels.
            operand = _UNARY if kind in _OBSCURE else level
            left, right = self._expr(expr.a, operand), self._expr(expr.b, max(operand, level + 1))
            if kind is tirx.Mul and _dtype(expr) == "uint16":
                # Promoted to int, the product could overflow.
                left = f"(uint32_t){self._expr(expr.a, _UNARY)}"
            return self._narrowed(f"{left} {operator} {right}", level, expr)
        match expr:
            case tirx.Var():
                return self._names[expr], _ATOM
            case tirx.IntImm():
                return integer_literal(int(expr.value), _dtype(expr))
            case tirx.FloatImm():
                return float_literal(float(expr.value), _dtype(expr))
            case tirx.Cast():
                if _dtype(expr) == _dtype(expr.value):
                    return self._render(expr.value)
                return f"({c_type(_dtype(expr))}){self._expr(expr.value, _UNARY)}", _UNARY
            case ir.TensorLoad():
                return self._element(expr.source, expr.indices), _ATOM
            case tirx.Min() | tirx.Max():
                name = "MCUFORGE_MIN" if isinstance(expr, tirx.Min) else "MCUFORGE_MAX"
                text = f"{name}({self._expr(expr.a, 0)}, {self._expr(expr.b, 0)})"
                return self._narrowed(text, _ATOM, expr)
            case tirx.FloorDiv() | tirx.FloorMod():
                # Indices are never negative: C's truncating operators are the same.
                operator = "/" if isinstance(expr, tirx.FloorDiv) else "%"
                return f"{self._expr(expr.a, 13)} {operator} {self._expr(expr.b, 14)}", 13
            case tirx.LShift():
                # Through unsigned: shifting into the sign bit is defined there.
                dtype = _dtype(expr)
                unsigned = c_type("u" + dtype.removeprefix("u"))
                left, right = self._expr(expr.a, _UNARY), self._expr(expr.b, _UNARY)
                return f"({c_type(dtype)})(({unsigned}){left} << {right})", _UNARY
            case tirx.BitwiseNot():
                return self._narrowed(f"~{self._expr(expr.a, _UNARY)}", _UNARY, expr)
            case tirx.Not():
                return f"!{self._expr(expr.a, _UNARY)}", _UNARY
            case tirx.Select():
                return self._choice(expr.condition, expr.true_value, expr.false_value)
            case ir.Call():
                return self._call(expr)
        raise ModelError(f"kernel {self._name}: no C for TIR {kind.__name__}")

    def _narrowed(self, text: str, level: int, expr: ir.Expr) -> tuple[str, int]:
        """C computes 8 and 16 bit arithmetic in int: cast back."""
        dtype = _dtype(expr)
        if dtype in ("int8", "uint8", "int16", "uint16"):
            return f"({c_type(dtype)})({text})", _UNARY
        return text, level

    def _choice(self, condition: ir.Expr, yes: ir.Expr, no: ir.Expr) -> tuple[str, int]:
        parts = (self._expr(part, _TERNARY + 1) for part in (condition, yes, no))
        return "{} ? {} : {}".format(*parts), _TERNARY

    def _call(self, call: ir.Call) -> tuple[str, int]:
        name = call.op.name
        if name == "prim.if_then_else":
            return self._choice(*call.args)
        if name in _EXTERN_CALLS:
            args = ", ".join(self._expr(arg, 0) for arg in call.args[1:])
            return f"{call.args[0].value}({args})", _ATOM
        if name == "tirx.address_of":
            load = call.args[0]
            return f"&{self._element(load.source, load.indices)}", _UNARY
        if name == "tirx.likely":
            return self._render(call.args[0])
        function = MATH.get(name.removeprefix("tirx."))
        if function is not None and _dtype(call) == "float32":
            args = ", ".join(self._expr(arg, 0) for arg in call.args)
            text = f"{function}({args})"
            return (text, 13) if " " in function else (text, _ATOM)
        raise ModelError(f"kernel {self._name}: no C for TIR call {name}")


def _dtype(expr: ir.Expr) -> str:
    return str(expr.ty.dtype)


def _initialises(stmt: tirx.Stmt, buffer: tirx.Var) -> bool:
    return (
        isinstance(stmt, tirx.BufferStore)
        and stmt.buffer.same_as(buffer)
        and [int(d) for d in buffer.shape] == [1]
    )


def _calls_block(stmt: tirx.Stmt) -> bool:
    """Whether a statement calls an instruction that is a function of its own."""
    found = []

    def visit(call: ir.Call) -> None:
        if getattr(call.op, "name", "") in _EXTERN_CALLS:
            entry = INSTRUCTIONS.get(str(call.args[0].value).removeprefix(C_PREFIX))
            found.append(entry is not None and entry.shared)

    tvm_ffi.structural_walk(stmt, (ir.Call, visit))
    return any(found)


def _is_one(expr: ir.Expr) -> bool:
    return isinstance(expr, tirx.IntImm) and int(expr.value) == 1


def _written(func: tirx.PrimFunc) -> set[tirx.Var]:
    """The pointer parameters a function may write through."""
    pointers: dict[tirx.Var, tirx.Var] = {}
    written: set[tirx.Var] = set()

    def declare(stmt: tirx.DeclBuffer) -> None:
        if isinstance(stmt.data, tirx.Var):
            pointers[stmt.buffer] = stmt.data

    def store(stmt: tirx.BufferStore) -> None:
        written.add(pointers.get(stmt.buffer, stmt.buffer))

    def evaluate(stmt: tirx.Evaluate) -> None:
        # A call for its effect (a vector store) writes through the pointers it declares, or may
        # through any it is given.
        def address(load: ir.TensorLoad) -> None:
            written.add(pointers.get(load.source, load.source))

        for argument in _written_arguments(stmt.value):
            tvm_ffi.structural_walk(argument, (ir.TensorLoad, address))

    tvm_ffi.structural_walk(func.body, (tirx.DeclBuffer, declare))
    tvm_ffi.structural_walk(func.body, [(tirx.BufferStore, store), (tirx.Evaluate, evaluate)])
    return written


def _written_arguments(value: ir.Expr) -> list[ir.Expr]:
    """The operands of a call through which memory may be written."""
    if not isinstance(value, ir.Call):
        return [value]
    name = str(value.args[0].value) if getattr(value.op, "name", "") in _EXTERN_CALLS else ""
    if name == "memcpy":
        return [value.args[1]]
    entry = INSTRUCTIONS.get(name.removeprefix(C_PREFIX)) if name.startswith(C_PREFIX) else None
    if entry is None or not entry.writes:
        return [value]
    pairs = zip(entry.params, value.args[1:], strict=True)
    return [argument for (param, _), argument in pairs if param in entry.writes]


def integer_literal(value: int, dtype: str) -> tuple[str, int]:
    """An integer constant of a TVM dtype in C, and how tightly it binds."""
    if dtype == "bool":
        return ("true" if value else "false"), _ATOM
    if dtype == "int64":
        text = "(-INT64_C(9223372036854775807) - 1)" if value == -(2**63) else f"INT64_C({value})"
        return text, _ATOM
    if dtype == "uint64":
        return f"UINT64_C({value})", _ATOM
    if dtype == "uint32":
        return f"{value}u", _ATOM
    if value == -(2**31):
        return "INT32_MIN", _ATOM
    return str(value), _ATOM if value >= 0 else _UNARY


def float_literal(value: float, dtype: str) -> tuple[str, int]:
    """A float constant in C, and how tightly it binds; shortest text that reads back the same."""
    if value != value or value in (float("inf"), float("-inf")):
        raise ModelError(f"no C for the float constant {value}")
    suffix = "f" if dtype == "float32" else ""
    text = str(np.dtype(dtype).type(value))
    return f"{text}{suffix}", _ATOM if value >= 0 else _UNARY
