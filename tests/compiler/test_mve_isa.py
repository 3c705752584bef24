"""Helium instructions: what they are defined to compute, on this machine and on the core."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from mcuforge.codegen import c, llvm
from mcuforge.codegen.lower import lower_kernels
from mcuforge.kernels.isa import INSTRUCTIONS, Instruction, mve
from mcuforge.target import Target

ROUNDS = 64
ARITHMETIC = sorted(
    i.name for i in INSTRUCTIONS.values() if i.feature == "mve" and i.semantics is not None
)
NARROWING = {mve.vqmovn_s32.name, mve.vqmovn_pair_s32.name}
WORD = "int32"
SCRIPT = """\
ENTRY(reset)
SECTIONS {
  .vectors 0x0 : { KEEP(*(.vectors)) }
  .text 0x400 : { *(.text*) *(.rodata*) }
  .ARM.exidx : { *(.ARM.exidx*) }
  .data 0x21000000 : { *(.data*) }
  .bss (NOLOAD) : { *(.bss*) *(COMMON) }
  stack_top = 0x21100000;
}
"""
PROGRAM = """\
#include <arm_mve.h>
#include <stdint.h>
{functions}
{data}
extern char stack_top[];
void reset(void);
__attribute__((section(".vectors"), used)) static void *const vectors[2] = {{stack_top, reset}};
static void leave(uint32_t reason) {{
    register uint32_t r0 __asm("r0") = 0x18;
    register uint32_t r1 __asm("r1") = reason;
    __asm volatile("bkpt 0xab" : : "r"(r0), "r"(r1) : "memory");
    for (;;) {{
    }}
}}
void reset(void) {{
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20;
    __asm volatile("dsb\\n\\tisb");
    {call}
    for (unsigned i = 0; i < sizeof want / sizeof want[0]; ++i) {{
        if ((got[i] ^ want[i]) & {mask}) {{
            leave(0x20023u); /* ADP_Stopped_RunTimeErrorUnknown: exit status 1 */
        }}
    }}
    leave(0x20026u);
}}
"""


def lanes(dtype: str) -> tuple[str, int]:
    element, _, count = dtype.partition("x")
    return element, int(count or 1)


def function(entry: Instruction, apply) -> tirx.PrimFunc:
    """Applies an instruction ROUNDS times: operands and results in flat buffers."""
    with IRBuilder() as builder, T.prim_func(private=True):
        T.func_name("apply")
        buffers = []
        for name, dtype in (*entry.params, ("y", entry.result)):
            element, count = lanes(dtype)
            buffers.append(T.arg(name, T.buffer((ROUNDS * count,), element)))
        with T.serial(0, ROUNDS) as index:
            operands = [
                buffer[index] if lanes(dtype)[1] == 1 else vector(buffer, index, lanes(dtype)[1])
                for buffer, (_, dtype) in zip(buffers, entry.params, strict=False)
            ]
            result, count = apply(*operands), lanes(entry.result)[1]
            if count == 1:
                T.buffer_store(buffers[-1], result, [index])
            else:
                T.buffer_store(buffers[-1], result, [T.Ramp(index * count, T.int32(1), count)])
    return builder.get()


def vector(buffer, index, count):
    return buffer[T.Ramp(index * count, T.int32(1), count)]


def operands(entry: Instruction) -> list[np.ndarray]:
    """Random and extreme operands within what kernels use."""
    random = np.random.default_rng(sum(map(ord, entry.name)))
    shifts = "shl" in entry.name
    values = []
    for position, (_, dtype) in enumerate(entry.params):
        element, count = lanes(dtype)
        info = np.iinfo(element)
        low, high = info.min, info.max
        if shifts and position == 1:
            low, high = -31, 31
        elif "rdmlash" in entry.name:  # the sum stays within 32 bits
            low, high = [(-(2**29), 2**29), (0, 2**31 - 1), (-(2**30), 2**30)][position]
        elif "mulh" in entry.name and position == 1:  # not INT32_MIN squared
            low = 1
        size = ROUNDS * count
        drawn = random.integers(low, high + 1, size)
        extreme = random.choice([low, high, (low + high) // 2], size)
        values.append(np.where(random.random(size) < 0.3, extreme, drawn).astype(element))
    return values


def by_definition(entry: Instruction, given: list[np.ndarray]) -> np.ndarray:
    """The TIR definition, run on this machine."""
    func = function(entry, entry.semantics).with_attr("global_symbol", "apply")
    module = tvm.compile(tvm.IRModule({"apply": func}), target="llvm")
    element, count = lanes(entry.result)
    result = tvm.runtime.tensor(np.zeros(ROUNDS * count, element))
    module["apply"](*(tvm.runtime.tensor(v) for v in given), result)
    return result.numpy()


def lowered(entry: Instruction):
    func = function(entry, entry).with_attr("mcuforge.op", "apply").with_attr("tirx.noalias", True)
    return lower_kernels(tvm.IRModule({"apply": func}))["apply"]


@pytest.mark.parametrize("name", ARITHMETIC)
def test_portable_c_computes_the_definition(name: str, tmp_path: Path) -> None:
    entry = INSTRUCTIONS[name]
    given = operands(entry)
    source = "\n".join(["#include <stdint.h>", *c.portable_types("mve"), *wrapper(entry)])
    (tmp_path / "i.c").write_text(source)
    library = tmp_path / "i.so"
    subprocess.run(
        ["gcc", "-std=c99", "-O1", "-shared", "-fPIC", str(tmp_path / "i.c"), "-o", str(library)],
        check=True,
    )
    element, count = lanes(entry.result)
    result = np.zeros(ROUNDS * count, element)
    pointers = [ctypes.c_void_p(v.ctypes.data) for v in (*given, result)]
    ctypes.CDLL(str(library)).apply(*pointers)
    np.testing.assert_array_equal(result, by_definition(entry, given))


def wrapper(entry: Instruction) -> list[str]:
    """C: the instruction, and a function that applies it to arrays."""
    lines = [c.instruction_source(entry.name)]
    params, loads, arguments = [], [], []
    for name, dtype in (*entry.params, ("y", entry.result)):
        element, count = lanes(dtype)
        const = "" if name == "y" else "const "
        params.append(f"{const}{c.c_type(element)} *{name}_")
        if name != "y":
            loads.append(f"{c.c_type(dtype)} {name};")
            loads.append(f"__builtin_memcpy(&{name}, {name}_ + i * {count}, sizeof {name});")
            arguments.append(name)
    count = lanes(entry.result)[1]
    call = f"mcuforge_{entry.name}({', '.join(arguments)})"
    return [
        *lines,
        f"void apply({', '.join(params)}) {{",
        f"for (int i = 0; i < {ROUNDS}; ++i) {{",
        *loads,
        f"{c.c_type(entry.result)} y = {call};",
        f"__builtin_memcpy(y_ + i * {count}, &y, sizeof y);",
        "}}",
    ]


@pytest.mark.parametrize("name", ARITHMETIC)
@pytest.mark.parametrize("toolchain", ["gcc", "clang", "llvm"])
def test_the_core_computes_the_definition(name: str, toolchain: str, tmp_path: Path) -> None:
    for program in ("qemu-system-arm", "clang-19", "arm-none-eabi-gcc", "ld.lld-19"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    entry = INSTRUCTIONS[name]
    given = operands(entry)
    want = by_definition(entry, given)
    names = [n for n, _ in entry.params]
    data = [_array(n, v, "static const") for n, v in zip(names, given, strict=True)] + [
        _array("want", want, "static const"),
        _array("got", np.zeros_like(want), "static"),
    ]
    call = f"apply({', '.join([*names, 'got'])});"
    objects = []
    if toolchain == "llvm":
        (tmp_path / "k.o").write_bytes(
            llvm.kernels_object("t", {"apply": lowered(entry)}, Target.parse("cortex-m55-llvm"))
        )
        objects = [str(tmp_path / "k.o")]
        functions = c.kernel_prototype("t_apply", lowered(entry))
        call = "t_" + call
    else:
        functions = "\n".join(wrapper(entry))
    mask = "0xff" if name in NARROWING else "0xffffffff"
    text = PROGRAM.format(functions=functions, data="\n".join(data), call=call, mask=mask)
    (tmp_path / "main.c").write_text(text)
    (tmp_path / "link.ld").write_text(SCRIPT)
    compiler = {
        "gcc": ["arm-none-eabi-gcc", "-mcpu=cortex-m55"],
        "clang": ["clang-19", "--target=thumbv8.1m.main-none-eabihf", "-mcpu=cortex-m55"],
    }["gcc" if toolchain == "gcc" else "clang"]
    subprocess.run(
        [
            *compiler, "-mfloat-abi=hard", "-O2", "-ffreestanding", "-c",
            str(tmp_path / "main.c"), "-o", str(tmp_path / "main.o"),
        ],
        check=True,
    )  # fmt: skip
    elf = str(tmp_path / "i.elf")
    link = ["ld.lld-19", "-T", str(tmp_path / "link.ld"), str(tmp_path / "main.o"), *objects]
    libgcc = subprocess.run(
        ["arm-none-eabi-gcc", "-mcpu=cortex-m55", "-mfloat-abi=hard", "-print-libgcc-file-name"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    subprocess.run([*link, libgcc, "-o", elf], check=True)
    done = subprocess.run(
        [
            "qemu-system-arm", "-M", "mps3-an547", "-nodefaults", "-display", "none",
            "-semihosting-config", "enable=on,target=native", "-kernel", elf,
        ],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, f"{name} differs on the core"


def _array(name: str, values: np.ndarray, storage: str) -> str:
    numbers = ", ".join(c.integer_literal(int(v), str(values.dtype))[0] for v in values)
    return (
        f"{storage} __attribute__((aligned(16))) {c.c_type(str(values.dtype))}"
        f" {name}[{len(values)}] = {{{numbers}}};"
    )
