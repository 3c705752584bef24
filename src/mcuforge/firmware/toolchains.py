"""The toolchains: where they are, which version, and what they are told for a core."""

import functools
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from mcuforge.errors import ConfigError, ToolError

TOOLCHAINS = ("gcc", "clang", "tvm-llvm")
_PACKAGES = {
    "arm-none-eabi-gcc": "gcc-arm-none-eabi",
    "arm-none-eabi-objdump": "binutils-arm-none-eabi",
    "clang-19": "clang-19",
    "ld.lld-19": "lld-19",
    "llvm-ar-19": "llvm-19",
    "cmake": "cmake",
    "ninja": "ninja-build",
}
# GCC 12 has no multilib named after cores newer than itself; their libraries are those of a core
# with the same instruction set.
_LIBRARY_CORE = {"cortex-m85": "cortex-m55"}


@dataclass(frozen=True)
class Toolchain:
    """What CMake needs to know; all paths absolute."""

    name: str
    version: str
    compiler: str
    archiver: str
    ranlib: str
    flags: tuple[str, ...]
    link_flags: tuple[str, ...]
    libraries: tuple[str, ...]


def find(program: str) -> str:
    """Path of a program; ToolError naming its Debian package if it is missing."""
    path = shutil.which(program)
    if path is None:
        package = _PACKAGES.get(program, program)
        raise ToolError(f"{program} not found", f"install the Debian package {package}")
    return path


def version(name: str) -> str:
    """Version of a toolchain, as in ``gcc 12.2.1``; ToolError if it is missing."""
    if name == "gcc":
        return f"gcc {_output([find('arm-none-eabi-gcc'), '-dumpfullversion'])}"
    if name in ("clang", "tvm-llvm"):
        return f"clang {_output([find('clang-19'), '-dumpversion'])}"
    raise ConfigError(f"unknown toolchain '{name}'", f"valid toolchains: {', '.join(TOOLCHAINS)}")


def toolchain(name: str, core: str) -> Toolchain:
    """The toolchain `name` set up for `core` (GCC's ``-mcpu`` syntax).

    Raises ToolError if a program is missing or does not know the core.
    """
    found = version(name)
    core_flags = _core_flags(core)
    if name == "gcc":
        compiler = find("arm-none-eabi-gcc")
        if not _accepts(compiler, core_flags):
            raise ToolError(
                f"{found} cannot compile for {core}",
                "gcc >= 13 or toolchain clang is needed"
                if core.startswith("cortex-m85")
                else "use toolchain clang",
            )
        return Toolchain(
            name,
            found,
            compiler,
            find("arm-none-eabi-ar"),
            find("arm-none-eabi-ranlib"),
            core_flags,
            (),
            ("m", "c", "gcc"),
        )
    compiler = find("clang-19")
    find("ld.lld-19")
    target = ("--target=arm-none-eabi", *core_flags)
    if not _accepts(compiler, target):
        raise ToolError(
            f"{found} cannot compile for {core}", "check the core's name and extensions"
        )
    include, libraries = _newlib(core)
    return Toolchain(
        name,
        found,
        compiler,
        find("llvm-ar-19"),
        find("llvm-ranlib-19"),
        (*target, "-isystem", include),
        ("-fuse-ld=lld",),
        libraries,
    )


def knows(name: str, core: str) -> bool:
    """Whether the installed toolchain `name` compiles for `core`; one that is missing might."""
    compiler = shutil.which("arm-none-eabi-gcc")
    return name != "gcc" or compiler is None or _accepts(compiler, _core_flags(core))


def _core_flags(core: str) -> tuple[str, ...]:
    return (f"-mcpu={core}", "-mthumb", f"-mfloat-abi={_float_abi(core)}")


def _float_abi(core: str) -> str:
    base = core.split("+")[0]
    soft = base in ("cortex-m0", "cortex-m0plus", "cortex-m1", "cortex-m3", "cortex-m23")
    return "soft" if soft or "+nofp" in core else "hard"


def _newlib(core: str) -> tuple[str, tuple[str, ...]]:
    """newlib's headers, and the paths of libm, libc and libgcc for a core."""
    gcc = find("arm-none-eabi-gcc")
    base = core.split("+")[0]
    known = core.replace(base, _LIBRARY_CORE.get(base, base))
    flags = [f"-mcpu={known}", "-mthumb", f"-mfloat-abi={_float_abi(core)}"]

    def locate(name: str) -> str:
        path = Path(_output([gcc, *flags, f"-print-file-name={name}"]))
        if not path.is_absolute():
            raise ToolError(
                f"newlib's {name} for {core} not found",
                "install the Debian package libnewlib-arm-none-eabi",
            )
        return os.path.normpath(path)

    libraries = tuple(locate(name) for name in ("libm.a", "libc.a", "libgcc.a"))
    # The headers are beside the directory of the libraries, above those of the multilibs.
    lib = Path(libraries[0])
    for parent in lib.parents:
        if (parent / "include" / "math.h").is_file():
            return str((parent / "include").resolve()), libraries
    raise ToolError(
        f"newlib's headers not found near {lib}",
        "install the Debian package libnewlib-arm-none-eabi",
    )


@functools.cache
def _accepts(compiler: str, flags: tuple[str, ...]) -> bool:
    command = [compiler, *flags, "-x", "c", "-E", "/dev/null", "-o", "/dev/null"]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0


@functools.cache
def _run(command: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no output"])[-1]
        raise ToolError(f"{command[0]} failed: {last}") from error
    return done.stdout.strip()


def _output(command: list[str]) -> str:
    text = _run(tuple(command))
    return re.sub(r"\s+", " ", text)
