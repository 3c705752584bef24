"""The core a model is compiled for, and the form the generated code takes."""

import re
from dataclasses import dataclass

from mcuforge.errors import ConfigError

CODEGENS = ("c", "llvm")

# Per core: LLVM triple and the instruction set features kernels may rely on.
#   dsp  ARMv7E-M / ARMv8-M DSP extension (SMLAD, SXTB16, SSAT...)
#   helium  ARMv8.1-M Helium, integer (GCC's and LLVM's extension is called mve)
#   fp   single precision floating point unit
_ARMV6M, _ARMV7M, _ARMV7EM = "thumbv6m", "thumbv7m", "thumbv7em"
_ARMV8M, _ARMV81M = "thumbv8m.main", "thumbv8.1m.main"
_CORES: dict[str, tuple[str, frozenset[str]]] = {
    "cortex-m0": (_ARMV6M, frozenset()),
    "cortex-m0plus": (_ARMV6M, frozenset()),
    "cortex-m3": (_ARMV7M, frozenset()),
    "cortex-m4": (_ARMV7EM, frozenset({"dsp", "fp"})),
    "cortex-m7": (_ARMV7EM, frozenset({"dsp", "fp"})),
    "cortex-m33": (_ARMV8M, frozenset({"dsp", "fp"})),
    "cortex-m55": (_ARMV81M, frozenset({"dsp", "fp", "helium"})),
    "cortex-m85": (_ARMV81M, frozenset({"dsp", "fp", "helium"})),
    # The machine the compiler runs on: portable C, for tests and for trying a model out.
    "host": ("", frozenset()),
}
FEATURES = frozenset().union(*(features for _, features in _CORES.values()))
"""Every instruction set feature that some core has."""

# What GCC's -mcpu extensions take away.
_EXTENSIONS = {
    "nodsp": {"dsp", "helium"},
    "nomve": {"helium"},
    "nofp": {"fp", "helium"},
    "nomve.fp": set(),
}


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
        if core not in _CORES:
            raise ConfigError(f"unknown core '{core}'", f"known cores: {', '.join(_CORES)}")
        for extension in extensions:
            if extension not in _EXTENSIONS:
                raise ConfigError(
                    f"unknown extension '+{extension}' of core '{core}'",
                    f"known extensions: {', '.join('+' + e for e in _EXTENSIONS)}",
                )
        if self.codegen not in CODEGENS:
            raise ConfigError(
                f"unknown codegen '{self.codegen}'", f"known codegens: {', '.join(CODEGENS)}"
            )

    @classmethod
    def parse(cls, name: str) -> "Target":
        """Read a target name such as ``cortex-m7-c``; raises ConfigError if it is none."""
        match = re.fullmatch(r"([a-z0-9+.-]+)-([a-z]+)", name)
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
        return _CORES[self.core][1].difference(*(_EXTENSIONS[e] for e in self.extensions))

    @property
    def triple(self) -> str:
        """LLVM target triple, hard float where the core has an FPU."""
        environment = "eabihf" if "fp" in self.features else "eabi"
        return f"{_CORES[self.core][0]}-none-{environment}"
