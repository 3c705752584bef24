"""The core a model is compiled for, and the form the generated code takes."""

import re
from dataclasses import dataclass, field

from mcuforge.errors import ConfigError

CODEGENS = ("c", "llvm")


@dataclass(frozen=True)
class Extension:
    """What follows a plus sign in GCC's ``-mcpu``.

    Attributes:
        lacks: the features it takes away, with those that build on them.
        attribute: LLVM's name for it.
    """

    lacks: frozenset[str]
    attribute: str


@dataclass(frozen=True)
class Family:
    """What cores of one instruction set architecture have in common.

    Attributes:
        system: what follows the architecture in LLVM's triple, by float ABI.
        prefix: of the names of GCC's and the binutils' programs.
        clang: clang's ``--target``.
        flags: what GCC and clang are told, with `Target`'s attributes in braces.
        emulator: the program of QEMU that runs these cores, and what it is told besides the
            machine; none for the machine the compiler runs on.
        abi: LLVM's name of the ABI, where the triple does not say it.
        library: the directory of the C library, where GCC has none in a place of its own.
        extensions: what may follow a core.
    """

    system: dict[str, str]
    prefix: str
    clang: str
    flags: tuple[str, ...]
    emulator: tuple[str, ...]
    abi: str = ""
    library: str = ""
    extensions: dict[str, Extension] = field(default_factory=dict)


@dataclass(frozen=True)
class Core:
    """A core, as compilers and the emulator know it.

    Attributes:
        family: its instruction set architecture.
        architecture: of LLVM's triple.
        features: instruction set features kernels may rely on:
            ``dsp``, the DSP extension of ARMv7E-M and ARMv8-M (SMLAD, SXTB16, SSAT...);
            ``helium``, integer Helium of ARMv8.1-M, which GCC and LLVM call mve;
            ``fp``, a floating point unit of single precision;
            ``registers``, 31 general registers where others have 13.
        gcc: the first version of GCC that knows it, where that is newer than Debian 12's.
        library_core: a core of the same instruction set that Debian 12's GCC has libraries for,
            where it has none for this one.
        llvm: LLVM's name, where it is not the core's own.
        attributes: LLVM's names of the extensions that the core has.
        emulated: QEMU's name and properties, where the machine has another core by default.
    """

    family: Family
    architecture: str
    features: frozenset[str] = frozenset()
    gcc: str = ""
    library_core: str = ""
    llvm: str = ""
    attributes: tuple[str, ...] = ()
    emulated: str = ""


_CORTEX_M = Family(
    system={"soft": "none-eabi", "hard": "none-eabihf"},
    prefix="arm-none-eabi",
    clang="arm-none-eabi",
    flags=("-mcpu={mcpu}", "-mthumb", "-mfloat-abi={float_abi}"),
    emulator=("qemu-system-arm",),
    extensions={
        "nodsp": Extension(frozenset({"dsp", "helium"}), "-dsp"),
        "nomve": Extension(frozenset({"helium"}), "-mve"),
        "nomve.fp": Extension(frozenset(), "-mve.fp"),
        "nofp": Extension(frozenset({"fp", "helium"}), "-fpregs"),
    },
)
# The name of a core is its instruction set, as ``-march`` takes it.
_RV32 = Family(
    system={"soft": "unknown-elf"},
    prefix="riscv64-unknown-elf",
    clang="riscv32-unknown-elf",
    flags=("-march={mcpu}", "-mabi=ilp32"),
    emulator=("qemu-system-riscv32", "-bios", "none"),
    abi="ilp32",
    library="/usr/lib/picolibc/riscv64-unknown-elf",
)
_DSP = frozenset({"dsp", "fp"})
_HELIUM = frozenset({"dsp", "fp", "helium"})
_REGISTERS = frozenset({"registers"})
CORES = {
    "cortex-m0": Core(_CORTEX_M, "thumbv6m"),
    "cortex-m0plus": Core(_CORTEX_M, "thumbv6m"),
    "cortex-m3": Core(_CORTEX_M, "thumbv7m"),
    "cortex-m4": Core(_CORTEX_M, "thumbv7em", _DSP),
    "cortex-m7": Core(_CORTEX_M, "thumbv7em", _DSP),
    "cortex-m33": Core(_CORTEX_M, "thumbv8m.main", _DSP),
    "cortex-m55": Core(_CORTEX_M, "thumbv8.1m.main", _HELIUM),
    "cortex-m85": Core(_CORTEX_M, "thumbv8.1m.main", _HELIUM, gcc="13", library_core="cortex-m55"),
    "rv32imc": Core(
        _RV32,
        "riscv32",
        _REGISTERS,
        llvm="generic-rv32",
        attributes=("+m", "+c"),
        emulated="rv32,a=off,f=off,d=off,zba=off,zbb=off,zbc=off,zbs=off",
    ),
    "rv32imac_zba_zbb": Core(
        _RV32,
        "riscv32",
        _REGISTERS,
        library_core="rv32imc",
        llvm="generic-rv32",
        attributes=("+m", "+a", "+c", "+zba", "+zbb"),
        emulated="rv32,f=off,d=off,zbc=off,zbs=off",
    ),
    # The machine the compiler runs on: portable C, for tests and for trying a model out.
    "host": Core(Family({"soft": ""}, prefix="", clang="", flags=(), emulator=()), ""),
}
FEATURES = frozenset().union(*(core.features for core in CORES.values()))
"""Every instruction set feature that some core has."""


@dataclass(frozen=True)
class Target:
    """What one compilation is for.

    Attributes:
        mcpu: the core in GCC's ``-mcpu`` syntax, with extensions: ``cortex-m55+nomve``.
        codegen: ``c`` (C99 source) or ``llvm`` (object file from TVM's LLVM).
    """

    mcpu: str
    codegen: str = "c"

    def __post_init__(self) -> None:
        core, *extensions = self.mcpu.split("+")
        if core not in CORES:
            raise ConfigError(f"unknown core '{core}'", f"known cores: {', '.join(CORES)}")
        valid = CORES[core].family.extensions
        for extension in extensions:
            if extension not in valid:
                raise ConfigError(
                    f"unknown extension '+{extension}' of core '{core}'",
                    f"known extensions: {', '.join('+' + e for e in valid) or 'none'}",
                )
        if self.codegen not in CODEGENS:
            raise ConfigError(
                f"unknown codegen '{self.codegen}'", f"known codegens: {', '.join(CODEGENS)}"
            )

    @classmethod
    def parse(cls, name: str) -> "Target":
        """Read a target name such as ``cortex-m7-c``; raises ConfigError if it is none."""
        match = re.fullmatch(r"([a-z0-9_+.-]+)-([a-z]+)", name)
        if not match:
            raise ConfigError(
                f"'{name}' is not a target", "targets look like cortex-m7-c: core, dash, codegen"
            )
        return cls(match[1], match[2])

    @property
    def name(self) -> str:
        """The name ``parse`` reads, used in artifact paths."""
        return f"{self.mcpu}-{self.codegen}"

    @property
    def core(self) -> str:
        """The core without extensions."""
        return self.mcpu.split("+")[0]

    @property
    def extensions(self) -> tuple[str, ...]:
        """What follows the core, without the plus signs: ``nomve``."""
        return tuple(self.mcpu.split("+")[1:])

    @property
    def features(self) -> frozenset[str]:
        """Instruction set features kernels may rely on."""
        return CORES[self.core].features.difference(
            *(self.family.extensions[name].lacks for name in self.extensions)
        )

    @property
    def attributes(self) -> tuple[str, ...]:
        """LLVM's names of what the core has and lacks: ``-mve``."""
        lacking = (self.family.extensions[name].attribute for name in self.extensions)
        return (*CORES[self.core].attributes, *lacking)

    @property
    def family(self) -> Family:
        """What cores of its architecture have in common."""
        return CORES[self.core].family

    @property
    def float_abi(self) -> str:
        """``hard`` (floats are passed in registers of the floating point unit) or ``soft``."""
        return "hard" if "fp" in self.features else "soft"

    @property
    def triple(self) -> str:
        """LLVM's target triple, as in ``thumbv7em-none-eabihf``."""
        return f"{CORES[self.core].architecture}-{self.family.system[self.float_abi]}"

    @property
    def flags(self) -> tuple[str, ...]:
        """What GCC and clang are told, as in ``-mcpu=cortex-m7 -mthumb -mfloat-abi=hard``."""
        return tuple(
            flag.format(mcpu=self.mcpu, float_abi=self.float_abi) for flag in self.family.flags
        )

    @property
    def emulator(self) -> tuple[str, ...]:
        """QEMU's program for the core, and what it is told besides the machine."""
        emulated = CORES[self.core].emulated
        return (*self.family.emulator, *(("-cpu", emulated) if emulated else ()))

    @property
    def library(self) -> "Target":
        """The target whose libraries it uses."""
        known = CORES[self.core].library_core or self.core
        return Target("+".join((known, *self.extensions)), self.codegen)
