"""Runs instructions of ``isa`` in each of their forms, on the same operands.

A form is the definition, compiled by TVM for this machine; the portable C here; the C of gcc and of
clang and TVM's LLVM on an emulated core. Instructions are called on the memory of their operands.
"""

import ctypes
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tvm
from tvm import s_tir, tirx
from tvm.tirx.script import builder as T

from mcuforge import toolchains
from mcuforge.codegen import c, llvm
from mcuforge.codegen.lower import LoweredKernel, lower_definition
from mcuforge.isa import helium
from mcuforge.isa.feature import FEATURES
from mcuforge.isa.instruction import INSTRUCTIONS, Instruction
from mcuforge.target import Target

ROUNDS = 32
# Elements behind a pointer if the definition takes any number.
MEMORY = 64
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wpedantic", "-Werror")
_PROGRAM = """\
{headers}
#include <stddef.h>
#include <stdint.h>
#include <string.h>
{min_max}
{functions}
{data}
extern char stack_top[];
void reset(void);
__attribute__((section(".vectors"), used)) static void *const vectors[2] = {{stack_top, reset}};
static void semihost(int operation, const void *argument) {{
    register int r0 __asm("r0") = operation;
    register const void *r1 __asm("r1") = argument;
    __asm volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}}
__attribute__((noinline)) static void run(void) {{
    semihost(4, "ran\\n");
{calls}
}}
void reset(void) {{
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20;
    __asm volatile("dsb\\n\\tisb");
    run();
    semihost(0x18, (const void *)0x20026);
    for (;;) {{
    }}
}}
"""
_CALL = """\
    for (int i = 0; i < {rounds}; ++i) {{
        {symbol}({arguments});
    }}
    for (int i = 0; i < {size}; ++i) {{
        if (({symbol}_{written}[i] ^ {symbol}_want[i]) & {mask}) {{
            semihost(4, "{symbol}\\n");
            break;
        }}
    }}
"""


# What moves whole vectors; kernels need only some of these.
_MOVES = {
    "int8x16": (helium.vldrb_s8, helium.vstrb_s8),
    "int16x8": (
        helium.load("vldrh_s16", "int16x8", "int16", "vldrhq_s16"),
        helium.store("vstrh_s16", "int16x8", "vstrhq_s16", "int16"),
    ),
    "int32x4": (
        helium.vldrw_s32,
        helium.store("vstrw_s32", "int32x4", "vstrwq_s32", "int32"),
    ),
    "uint8x16": (
        helium.vldrb_u8,
        helium.store("vstrb_u8", "uint8x16", "vstrbq_u8", "uint8"),
    ),
    "uint16x8": (
        helium.load("vldrh_u16", "uint16x8", "uint16", "vldrhq_u16"),
        helium.store("vstrh_u16", "uint16x8", "vstrhq_u16", "uint16"),
    ),
    "uint32x4": (
        helium.load("vldrw_u32", "uint32x4", "uint32", "vldrwq_u32"),
        helium.store("vstrw_u32", "uint32x4", "vstrwq_u32", "uint32"),
    ),
}


def _call(entry: Instruction) -> tirx.PrimFunc:
    """A function that calls an instruction on the buffers of its definition."""
    root = entry.definition.body.block
    buffers = entry.definition.params
    arguments = []
    for (_, kind), buffer in zip(entry.params, buffers, strict=False):
        pointer = T.address_of(buffer[0])
        if kind == "handle":
            arguments.append(pointer)
        else:
            arguments.append(_MOVES[kind][0](pointer) if kind in _MOVES else buffer[0])
    value = entry(*arguments)
    target = buffers[-1] if len(buffers) > len(entry.params) else buffers[0]
    if entry.result in _MOVES:
        call = tirx.Evaluate(_MOVES[entry.result][1](T.address_of(target[0]), value))
    elif entry.result == "void":
        call = tirx.Evaluate(value)
    else:
        call = tirx.BufferStore(target, value, [0])
    block = s_tir.SBlock([], root.reads, root.writes, "root", call)
    return tirx.PrimFunc(
        buffers, s_tir.SBlockRealize([], True, block), attrs=entry.definition.attrs
    )


@dataclass(frozen=True)
class Trial:
    """An instruction with its operands, (ROUNDS, n) for each buffer of its definition.

    Attributes:
        mask: bits of the result's elements that are defined.
    """

    entry: Instruction
    operands: list[np.ndarray]
    mask: int = -1

    @property
    def written(self) -> int:
        """Which buffer is written."""
        (region,) = self.entry.definition.body.block.writes
        params = self.entry.definition.params
        return next(i for i, param in enumerate(params) if param.same_as(region.source))

    @property
    def kernel(self) -> LoweredKernel:
        """The call of the instruction."""
        return lower_definition(_call(self.entry))


def trial(
    entry: Instruction,
    limits: Callable[[str, np.iinfo], tuple[int, int]] | None = None,
    mask: int = -1,
) -> Trial:
    """Random and extreme operands.

    Args:
        entry: the instruction.
        limits: smallest and largest value of an operand, given its name and its type's range.
        mask: see Trial.
    """
    random = np.random.default_rng(sum(map(ord, entry.name)))
    operands = []
    for buffer in entry.definition.params:
        (size,) = buffer.shape
        count = int(size) if isinstance(size, tvm.tirx.IntImm) else MEMORY
        dtype = np.dtype(str(buffer.dtype))
        info = np.iinfo(dtype)
        low, high = limits(buffer.name, info) if limits else (info.min, info.max)
        drawn = random.integers(low, high + 1, (ROUNDS, count))
        extreme = random.choice([low, high, (low + high) // 2], drawn.shape)
        values = np.where(random.random(drawn.shape) < 0.3, extreme, drawn)
        if buffer.name == "offset":  # each place is taken once
            values = np.stack([random.permutation(MEMORY)[:count] for _ in range(ROUNDS)])
        operands.append(values.astype(dtype))
    return Trial(entry, operands, mask)


def by_definition(given: Trial) -> np.ndarray:
    """What the definition writes, on this machine."""
    func = given.entry.definition.with_attr("global_symbol", "apply")
    module = tvm.compile(tvm.IRModule({"apply": func}), target="llvm")
    result = []
    for row in range(ROUNDS):
        buffers = [tvm.runtime.tensor(operand[row]) for operand in given.operands]
        module["apply"](*buffers)
        result.append(buffers[given.written].numpy())
    return np.stack(result)


def portable_library(kernels: Mapping[str, LoweredKernel], directory: Path) -> ctypes.CDLL:
    """Kernels in portable C as functions of these names, compiled without a warning."""
    lines = ["#include <stddef.h>", "#include <stdint.h>", "#include <string.h>", c.MIN_MAX]
    lines.append(c.KERNEL)
    names = c.used_instructions(kernels)
    for feature in sorted({INSTRUCTIONS[name].feature for name in names}):
        lines += c.portable_types(feature)
    lines += [c.instruction_source(name) for name in names]
    for name, kernel in kernels.items():
        lines += [c.kernel_prototype(name, kernel)]
        lines += [c.kernel_source(name, kernel).removeprefix("static ")]
    (directory / "i.c").write_text("\n".join(lines))
    command = ["gcc", "-std=c99", *WARNINGS, "-O1", "-shared", "-fPIC", "-fno-builtin"]
    command += [str(directory / "i.c"), "-o", str(directory / "i.so")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(directory / "i.so"))


def by_portable_c(trials: Sequence[Trial], directory: Path) -> list[np.ndarray]:
    """What the portable C writes, on this machine."""
    library = portable_library({given.entry.name: given.kernel for given in trials}, directory)
    results = []
    for given in trials:
        buffers = [operand.copy() for operand in given.operands]
        for row in range(ROUNDS):
            getattr(library, given.entry.name)(
                *(ctypes.c_void_p(buffer[row].ctypes.data) for buffer in buffers)
            )
        results.append(buffers[given.written])
    return results


def differing_on_core(
    trials: Sequence[Trial],
    wanted: Sequence[np.ndarray],
    core: str,
    machine: str,
    toolchain: str,
    directory: Path,
) -> list[str]:
    """Names of the instructions that do not write what is wanted on an emulated core.

    Args:
        trials: what to run.
        wanted: what each writes by its definition.
        core: as in a target's name.
        machine: QEMU's, with code at 0 and data at 0x20000000: half a megabyte of both on
            mps3-an547, four on the others.
        toolchain: ``gcc``, ``clang`` or ``tvm-llvm``.
        directory: where to build.
    """
    kernels = {given.entry.name: given.kernel for given in trials}
    functions, objects = [], []
    names = c.used_instructions(kernels)
    prefix = ""
    if toolchain == "tvm-llvm":
        prefix = "t_"
        content = llvm.kernels_object("t", kernels, Target(core, "llvm"))
        (directory / "k.o").write_bytes(content)
        objects = [str(directory / "k.o")]
        exported = [name for name in names if INSTRUCTIONS[name].llvm is None]
        functions += [c.instruction_source(name, f"t_{name}") for name in exported]
        functions += [c.kernel_prototype(f"t_{name}", k) for name, k in kernels.items()]
    else:
        functions += [c.KERNEL, *map(c.instruction_source, names)]
        functions += [c.kernel_source(name, kernel) for name, kernel in kernels.items()]
    data, calls = [], []
    for given, want in zip(trials, wanted, strict=True):
        symbol = prefix + given.entry.name
        arguments = []
        for index, operand in enumerate(given.operands):
            data.append(_array(f"{symbol}_{index}", operand, "static"))
            arguments.append(f"{symbol}_{index} + i * {operand.shape[1]}")
        data.append(_array(f"{symbol}_want", want, "static const"))
        call = _CALL.format(
            rounds=ROUNDS, symbol=symbol, arguments=", ".join(arguments), size=want.size,
            written=given.written, mask=given.mask,
        )  # fmt: skip
        calls.append(call)
    headers = {FEATURES[INSTRUCTIONS[name].feature].header for name in names} - {""}
    text = _PROGRAM.format(
        headers="\n".join(f"#include <{header}>" for header in sorted(headers)), min_max=c.MIN_MAX,
        functions="\n".join(functions), data="\n".join(data), calls="".join(calls),
    )  # fmt: skip
    (directory / "main.c").write_text(text)
    (directory / "link.ld").write_text(
        "ENTRY(reset)\nSECTIONS {\n"
        "  .vectors 0x0 : { KEEP(*(.vectors)) }\n  .text 0x400 : { *(.text*) *(.rodata*) }\n"
        "  .ARM.exidx : { *(.ARM.exidx*) }\n  .data 0x20004000 : { *(.data*) }\n"
        "  .bss (NOLOAD) : { *(.bss*) *(COMMON) }\n  stack_top = 0x20004000;\n}\n"
    )
    tools = toolchains.toolchain(toolchain, core)
    build = [tools.compiler, *tools.flags, *tools.link_flags, "-std=gnu11", "-O2"]
    build += [str(directory / "main.c"), *objects, "-nostdlib", "-static"]
    build += [f"-T{directory / 'link.ld'}", "-o", str(directory / "i.elf")]
    build += [lib if "/" in lib else f"-l{lib}" for lib in tools.libraries]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run = ["qemu-system-arm", "-M", machine, "-nodefaults", "-display", "none", "-nic", "none"]
    run += ["-semihosting-config", "enable=on,target=native", "-kernel", str(directory / "i.elf")]
    done = subprocess.run(
        run, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=True
    )
    lines = (done.stderr + done.stdout).splitlines()
    start = lines.index("ran")
    return lines[start + 1 :]


def _array(name: str, values: np.ndarray, storage: str) -> str:
    numbers = ", ".join(c.integer_literal(int(v), str(values.dtype))[0] for v in values.reshape(-1))
    dtype = c.c_type(str(values.dtype))
    return f"{storage} _Alignas(16) {dtype} {name}[{values.size}] = {{{numbers}}};"
