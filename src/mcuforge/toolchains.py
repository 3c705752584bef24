"""The toolchains: what each is, where it is, which version, and what it is told for a core."""

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from mcuforge.errors import ToolError, known
from mcuforge.target import CORES, Target

# The Debian package of each program that is not called like its package.
_PACKAGES = {
    "arm-none-eabi-gcc": "gcc-arm-none-eabi",
    "arm-none-eabi-objdump": "binutils-arm-none-eabi",
    "ld.lld-19": "lld-19",
    "llvm-ar-19": "llvm-19",
    "ninja": "ninja-build",
    "cc": "gcc",
    "qemu-arm": "qemu-user",
    "qemu-system-riscv32": "qemu-system-misc",
    "riscv64-unknown-elf-gcc": "gcc-riscv64-unknown-elf",
    "riscv64-unknown-elf-objdump": "binutils-riscv64-unknown-elf",
}


@dataclass(frozen=True)
class Toolchain:
    """One toolchain. ``{prefix}`` in the names of programs and ``{clang}`` in flags are `Family`'s.

    Attributes:
        codegen: what it makes the model from, C source (``c``) or TVM's object file (``llvm``).
        zephyr: what Zephyr calls it, where a board does not say otherwise.
        title: what its versions begin with.
        version: the option that makes the compiler print its version.
        compiler, archiver, ranlib: programs.
        linker: a program the compiler starts, if it is in another package than the compiler.
        flags, link_flags: what the compiler is told besides what the core needs.
        libraries: flags for the headers of the C library, and the libraries themselves.
    """

    codegen: str
    zephyr: str
    title: str
    version: str
    compiler: str
    archiver: str
    ranlib: str
    linker: str
    flags: tuple[str, ...]
    link_flags: tuple[str, ...]
    libraries: Callable[[Target], tuple[tuple[str, ...], tuple[str, ...]]]


@dataclass(frozen=True)
class Tools:
    """A toolchain set up for a core, what CMake needs to know of it; all paths absolute."""

    name: str
    version: str
    compiler: str
    archiver: str
    ranlib: str
    flags: tuple[str, ...]
    link_flags: tuple[str, ...]
    libraries: tuple[str, ...]


def entry(name: str) -> Toolchain:
    """The toolchain called `name`; ConfigError with the valid names if there is none."""
    return TOOLCHAINS[known("toolchain", name, TOOLCHAINS)]


def version(name: str, core: str) -> str:
    """Version of a toolchain for a core, as in ``gcc 12.2.1``; ToolError if it is missing."""
    kind = entry(name)
    return f"{kind.title} {_output([find(_compiler(kind, Target(core))), kind.version])}"


def knows(name: str, core: str) -> bool:
    """Whether the installed toolchain `name` compiles for `core`; one that is missing might."""
    kind, target = entry(name), Target(core)
    compiler = shutil.which(_compiler(kind, target))
    return compiler is None or _accepts(compiler, _flags(kind, target))


def toolchain(name: str, core: str) -> Tools:
    """The toolchain `name` set up for `core` (GCC's ``-mcpu`` syntax).

    Raises ToolError if a program is missing or does not know the core.
    """
    kind, target, found = entry(name), Target(core), version(name, core)
    prefix, needed = target.family.prefix, CORES[target.core].gcc
    compiler, flags = find(_compiler(kind, target)), _flags(kind, target)
    if kind.linker:
        find(kind.linker)
    if not _accepts(compiler, flags):
        raise ToolError(
            f"{found} cannot compile for {core}",
            f"gcc >= {needed} or toolchain clang is needed"
            if needed and kind is _GCC
            else "check the core's name and extensions, or use another toolchain",
        )
    headers, libraries = kind.libraries(target)
    return Tools(
        name=name,
        version=found,
        compiler=compiler,
        archiver=find(kind.archiver.format(prefix=prefix)),
        ranlib=find(kind.ranlib.format(prefix=prefix)),
        flags=(*flags, *headers),
        link_flags=kind.link_flags,
        libraries=libraries,
    )


def find(program: str) -> str:
    """Path of a program; ToolError naming its Debian package if it is missing."""
    path = shutil.which(program)
    if path is None:
        package = _PACKAGES.get(program, program)
        raise ToolError(f"{program} not found", f"install the Debian package {package}")
    return path


def _compiler(kind: Toolchain, target: Target) -> str:
    return kind.compiler.format(prefix=target.family.prefix)


def _flags(kind: Toolchain, target: Target) -> tuple[str, ...]:
    return (*(flag.format(clang=target.family.clang) for flag in kind.flags), *target.flags)


def _own_libraries(target: Target) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """GCC finds its libraries and their headers itself, where they are its own."""
    return _gcc_libraries(target) if target.family.library else ((), ("m", "c", "gcc"))


def _gcc_libraries(target: Target) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The flags for the C library's headers, and the paths of libm, libc and GCC's libgcc."""
    family, gcc = target.family, [find(f"{target.family.prefix}-gcc"), *target.library.flags]
    package = f"{'picolibc' if family.library else 'libnewlib'}-{family.prefix}"

    def locate(name: str) -> str:
        path = Path(_output([*gcc, f"-print-file-name={name}"]))
        if not path.is_absolute():
            # It lies apart from GCC's own, in directories with the same names.
            path = Path(family.library, "lib", _output([*gcc, "-print-multi-directory"]), name)
        if not path.is_file():
            raise ToolError(
                f"the C library's {name} for {target.mcpu} not found",
                f"install the Debian package {package}",
            )
        return os.path.normpath(path)

    # picolibc's mathematics is in its libc; its libm is empty.
    names = ("libc.a", "libgcc.a") if family.library else ("libm.a", "libc.a", "libgcc.a")
    libraries = tuple(map(locate, names))
    # The headers are beside the directory of the libraries, above those of the multilibs.
    lib = Path(libraries[0])
    for parent in lib.parents:
        if (parent / "include" / "math.h").is_file():
            return ("-isystem", str((parent / "include").resolve())), libraries
    raise ToolError(
        f"the C library's headers not found near {lib}",
        f"install the Debian package {package}",
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


_GCC = Toolchain(
    codegen="c",
    zephyr="gnuarmemb",
    title="gcc",
    version="-dumpfullversion",
    compiler="{prefix}-gcc",
    archiver="{prefix}-ar",
    ranlib="{prefix}-ranlib",
    linker="",
    flags=(),
    link_flags=(),
    libraries=_own_libraries,
)
_CLANG = Toolchain(
    codegen="c",
    zephyr="llvm",
    title="clang",
    version="-dumpversion",
    compiler="clang-19",
    archiver="llvm-ar-19",
    ranlib="llvm-ranlib-19",
    linker="ld.lld-19",
    flags=("--target={clang}",),
    link_flags=("-fuse-ld=lld",),
    libraries=_gcc_libraries,
)
TOOLCHAINS = {"gcc": _GCC, "clang": _CLANG, "tvm-llvm": replace(_CLANG, codegen="llvm")}
"""Every toolchain, by name: a new one is an entry here."""
