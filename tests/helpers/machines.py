"""The machines QEMU emulates, as programs without an operating system see them."""

from dataclasses import dataclass

from mcuforge.target import Target


@dataclass(frozen=True)
class Architecture:
    """What such programs need in C.

    Attributes:
        start: definitions, with ``reset`` still to be defined: where the core starts, and
            ``semihost``, which returns what the host answers.
        enable: statements without which the core lacks instructions.
        clock: ``clock_start()`` and ``clock_ticks()``, which counts ticks, 32 bits that wrap.
    """

    start: str
    enable: str
    clock: str


@dataclass(frozen=True)
class Machine:
    """A machine: its name, its architecture, where things lie, and instructions in a tick."""

    name: str
    architecture: Architecture
    vectors: int
    code: int
    data: int
    per_tick: float


_CORTEX_M = Architecture(
    start="""\
extern char stack_top[];
void reset(void);
__attribute__((section(".vectors"), used)) static void *const vectors[16] = {stack_top, reset};

static int semihost(int operation, const void *arguments) {
    register int r0 __asm("r0") = operation;
    register const void *r1 __asm("r1") = arguments;
    __asm volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}
""",
    enable="""\
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20; /* FPU and Helium */
    __asm volatile("dsb\\n\\tisb");
""",
    clock="""\
static volatile uint32_t *const systick = (volatile uint32_t *)0xE000E010;
static void clock_start(void) {
    systick[1] = 0xffffff;
    systick[2] = 0;
    systick[0] = 5;
}
static uint32_t clock_ticks(void) { return -systick[2] << 8; } /* of 24 bits, so that it wraps */
""",
)
_RISCV = Architecture(
    start="""\
void reset(void);
__attribute__((naked, section(".vectors"), used)) static void entry(void) {
    __asm volatile("la sp, stack_top\\n\\ttail reset");
}

/* The host recognises three instructions that lie in one page. */
__attribute__((naked, noinline, aligned(16))) static int semihost(int operation, const void *data) {
    __asm volatile(".option push\\n\\t.option norvc\\n\\t"
                   "slli x0, x0, 0x1f\\n\\tebreak\\n\\tsrai x0, x0, 7\\n\\t.option pop\\n\\tret");
}
""",
    enable="",
    clock="""\
static void clock_start(void) {}
static uint32_t clock_ticks(void) {
    uint32_t ticks;
    __asm volatile(".option push\\n\\t.option arch, +zicsr\\n\\tcsrr %0, minstret\\n\\t"
                   ".option pop" : "=r"(ticks) : : "memory");
    return ticks;
}
""",
)
_AN385 = Machine("mps2-an385", _CORTEX_M, 0x0, 0x400, 0x20000000, 40 / 256)
_VIRT = Machine("virt", _RISCV, 0x80000000, 0x80000400, 0x80800000, 1)
_AN547 = Machine("mps3-an547", _CORTEX_M, 0x0, 0x01000000, 0x21000000, 31.25 / 256)
_MACHINES = {
    "cortex-m3": _AN385,
    "cortex-m4": Machine("mps2-an386", _CORTEX_M, 0x0, 0x400, 0x20000000, 40 / 256),
    "cortex-m7": Machine("mps2-an500", _CORTEX_M, 0x0, 0x400, 0x20000000, 40 / 256),
    "cortex-m55": _AN547,
    "cortex-m85": _AN547,
    "rv32imc": _VIRT,
    "rv32imac_zba_zbb": _VIRT,
}
_SCRIPT = """\
ENTRY(reset)
SECTIONS
{{
    .vectors {vectors:#x} : {{ KEEP(*(.vectors)) }}
    .text {code:#x} : {{ *(.text*) *(.rodata*) *(.srodata*) }}
    .ARM.exidx : {{ *(.ARM.exidx*) }}
    .data {data:#x} : {{ *(.data*) *(.sdata*) }}
    .bss (NOLOAD) : {{ *(.bss*) *(.sbss*) *(COMMON) }}
    stack_top = {data:#x} + 0x3ffff0;
}}
"""


def machine(core: str) -> Machine:
    """The machine for a core, in GCC's syntax."""
    return _MACHINES[Target(core).core]


def link_script(core: str) -> str:
    """A linker script for programs on the core's machine."""
    found = machine(core)
    return _SCRIPT.format(vectors=found.vectors, code=found.code, data=found.data)


def emulator(core: str) -> list[str]:
    """The command that runs ``model.elf`` on a core, with a host for its semihosting."""
    command = [*Target(core).emulator, "-M", machine(core).name, "-nodefaults", "-nic", "none"]
    command += ["-display", "none", "-semihosting-config", "enable=on,target=native"]
    return [*command, "-kernel", "model.elf"]


def programs(core: str) -> list[str]:
    """The programs that building for and running on a core takes."""
    target = Target(core)
    return [target.emulator[0], f"{target.family.prefix}-gcc", "clang-19", "ld.lld-19"]
