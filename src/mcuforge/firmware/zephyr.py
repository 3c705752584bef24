"""Firmware as a Zephyr application: the project, its build by west, and its size."""

import os
import re
import shutil
from pathlib import Path

from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile

from mcuforge import toolchains
from mcuforge.boards import Board, Memory
from mcuforge.errors import ConfigError, ToolError
from mcuforge.firmware import commands, workspace
from mcuforge.firmware import project as projects
from mcuforge.firmware.project import DEVICE, Built, Order, Project, Purpose
from mcuforge.firmware.size import Usage

_SDK_HINT = (
    "install it as Zephyr's documentation says, set ZEPHYR_SDK_INSTALL_DIR if it is in none of the "
    "usual places; without zephyr_variants in boards.yaml gcc-arm-none-eabi does as well"
)
# Kilobytes of memory for linking a firmware that does not fit. So it is known what is missing.
_ENLARGED_KB = 256 << 10
# Where RAM starts in the memory map of every Cortex-M; ITCM and flash lie below.
_RAM = 0x20000000


def generate(
    archive_path: Path,
    directory: Path,
    purpose: Purpose,
    *,
    vendor: str = Board.vendor,
    stack_bytes: int = Board.stack_bytes,
    tools: tuple[str, ...] = (),
) -> Project:
    """Write a Zephyr application for any board into the empty `directory`.

    Args:
        archive_path: the MLF tar.
        vendor: what it answers to the command ``name``.
        stack_bytes: of the thread that runs the model.
        tools: versions of what will build it, part of the build id.

    Raises ConfigError for a name that cannot stand in C source, ModelError for a bad archive.
    """
    archive, values = projects.model_values(archive_path, purpose, vendor)
    source = directory / "src"
    source.mkdir()
    for part in ("runtime", purpose.kind, "zephyr"):
        for file in sorted((DEVICE / part).glob("*.[ch]")):
            shutil.copyfile(file, source / file.name)
    mathematics = any(b"#include <math.h>" in archive.members[name] for name in archive.members)
    if mathematics:
        shutil.copyfile(DEVICE / "baremetal" / "cmsdk" / "libc.c", source / "libc.c")
    for file in (DEVICE / "zephyr").glob("Kconfig*"):
        shutil.copyfile(file, directory / file.name)
    for part in ("boards", "fragments"):
        shutil.copytree(DEVICE / "zephyr" / part, directory / part)
    copied = [p for p in directory.rglob("*") if p.is_file()]
    archive.extract(directory / "model")
    glue = projects.glue(purpose.kind)
    names = {path.name for path in source.glob("*.c")} - {"libc.c"}
    names |= {name for name in glue if name.endswith(".c")}
    values |= {
        "stack_bytes": stack_bytes,
        "mathematics": mathematics,
        "model_sources": projects.model_sources(directory),
        "harness_sources": sorted(f"src/{name}" for name in names),
    }
    rendered = {
        "CMakeLists.txt": "zephyr/CMakeLists.txt.j2",
        "prj.conf": "zephyr/prj.conf.j2",
        "README.md": "zephyr/README.md.j2",
        "LICENSE.md": "LICENSE.md.j2",
        **{f"src/{name}": template for name, template in glue.items()},
    }
    build_id = projects.write(directory, rendered, values, archive_path, copied, *tools)
    return Project(directory, build_id, values["info"], archive.name)


def variant(board: Board, toolchain: str) -> str:
    """Zephyr's name of the toolchain that builds for a board: gnuarmemb, zephyr or llvm."""
    return board.zephyr_variants.get(toolchain, toolchains.entry(toolchain).zephyr)


def version(board: Board, toolchain: str, base: str | os.PathLike[str] | None = None) -> str:
    """Everything outside the project that decides its firmware: a rerun trigger.

    Without a workspace, what is wrong with it: the build says so, if it comes to that.
    """
    try:
        name = variant(board, toolchain)
        return f"{workspace.find(base)}, {_sdk() if name == 'zephyr' else name}"
    except ConfigError as error:
        return str(error)


def toolchain_settings(board: Board, toolchain: str) -> dict[str, str]:
    """CMake's settings of a toolchain; ToolError if it is missing or does not know the core."""
    name = variant(board, toolchain)
    settings = {"ZEPHYR_TOOLCHAIN_VARIANT": name}
    if name == "zephyr":
        return settings  # found by its own CMake package, or ZEPHYR_SDK_INSTALL_DIR
    found = toolchains.toolchain(toolchain, board.core)
    # Programs on PATH are links. Zephyr wants the directory they lead to, and names without suffix.
    if name == "llvm":
        home = Path(found.compiler).resolve().parents[1]
        return settings | {"LLVM_TOOLCHAIN_PATH": os.fspath(home)}
    return settings | {"GNUARMEMB_TOOLCHAIN_PATH": os.fspath(Path(found.compiler).parents[1])}


def build_command(
    project: Path, board: Board, target: str, toolchain: str, *, enlarged: bool
) -> list[str]:
    """The command line of west that builds a generated project into ``build``.

    Args:
        target: what the tree calls the board.
        enlarged: link as if flash and RAM were large enough for everything.
    """
    fragments = [os.fspath(project / "fragments" / name) for name in board.zephyr_fragments]
    conf = [name for name in fragments if name.endswith(".conf")]
    overlays = [name for name in fragments if name.endswith(".overlay")]
    settings = toolchain_settings(board, toolchain)
    if conf:
        settings["EXTRA_CONF_FILE"] = ";".join(conf)
    if overlays:
        settings["EXTRA_DTC_OVERLAY_FILE"] = ";".join(overlays)
    if enlarged:
        settings["CONFIG_FLASH_SIZE"] = settings["CONFIG_SRAM_SIZE"] = str(_ENLARGED_KB)
    command = [workspace.west(), "build", "--board", target]
    command += ["--build-dir", os.fspath(project / "build"), "--pristine", "auto"]
    command += [os.fspath(project), "--", "-GNinja"]
    return command + [f"-D{name}={value}" for name, value in settings.items()]


def build(order: Order, root: Path) -> Built:
    """Generate the application in the empty directory `root` and build it there."""
    board, log, found = order.board, order.log, workspace.find()
    target = found.target(board)
    tools = toolchain_version(board, order.toolchain)
    generated = generate(
        order.archive,
        root,
        order.purpose,
        vendor=board.vendor,
        stack_bytes=board.stack_bytes,
        tools=(tools, str(found), target, *board.zephyr_fragments),
    )

    # Zephyr finds files in boards/ by the board's name. It may refuse those of an unknown name.
    for path in sorted((root / "boards").glob(f"{_file_name(board.zephyr_board)}.*")):
        path.rename(path.with_name(_file_name(target) + path.suffix))

    def west_build(*, enlarged: bool) -> None:
        command = build_command(root, board, target, order.toolchain, enlarged=enlarged)
        environment = {**os.environ, "ZEPHYR_BASE": os.fspath(found.base)}
        commands.run(command, log, environment=environment, directory=root)

    enlarged = False
    try:
        west_build(enlarged=False)
    except commands.TooLargeError:
        enlarged = True
        shutil.rmtree(root / "build")
        west_build(enlarged=True)
    except ToolError as error:
        if '"Zephyr-sdk"' in str(error):
            raise ToolError("Zephyr's SDK not found", _SDK_HINT) from error
        raise
    elf = root / "build" / "firmware.elf"
    _strip(root / "build", elf, log)
    used = usage(root / "build", board, generated.info.weights_bytes, enlarged=enlarged)
    return Built(generated, elf, used, tools)


def _file_name(target: str) -> str:
    return target.replace("/", "_")


def toolchain_version(board: Board, toolchain: str) -> str:
    """As in ``gcc 12.2.1`` or ``gcc of Zephyr SDK 0.17.4``."""
    if variant(board, toolchain) == "zephyr":
        return f"{toolchain} of {_sdk()}"
    return toolchains.version(toolchain, board.core)


def _sdk() -> str:
    """As in ``Zephyr SDK 0.17.4``; without a number where ZEPHYR_SDK_INSTALL_DIR does not lead."""
    path = Path(os.environ.get("ZEPHYR_SDK_INSTALL_DIR", ""), "sdk_version")
    return f"Zephyr SDK {path.read_text().strip()}" if path.is_file() else "Zephyr SDK"


def _strip(build: Path, output: Path, log: Path | None) -> None:
    """Copy the firmware without debug sections, which hold paths of the build."""
    match = re.search(r"(?m)^CMAKE_OBJCOPY:\w+=(.+)$", (build / "CMakeCache.txt").read_text())
    if not match:
        raise ToolError(f"Zephyr found no objcopy for {build}", "install the toolchain's binutils")
    elf = build / "zephyr" / "zephyr.elf"
    commands.run([match[1], "--strip-debug", os.fspath(elf), os.fspath(output)], log)


def usage(build: Path, board: Board, weights_bytes: int, *, enlarged: bool) -> Usage:
    """Measure a Zephyr firmware.

    Flash is everything that is loaded, with the initial values of data in RAM; RAM is everything
    that lies there, tightly coupled memories included. Code is that of the model's objects, before
    the linker drops what nobody calls.

    Args:
        weights_bytes: what the compiler says the weights take.
        enlarged: it was linked with more memory than there is.
    """
    flash, ram = board.memory("code"), board.memory("data")

    def lies_in(memory: Memory, address: int) -> bool:
        size = _ENLARGED_KB << 10 if enlarged else memory.size
        return memory.origin <= address < memory.origin + size

    sections: dict[str, int] = {}
    flash_bytes = ram_bytes = flash_end = ram_end = 0
    with (build / "zephyr" / "zephyr.elf").open("rb") as stream:
        for section in ELFFile(stream).iter_sections():
            flags, size, address = section["sh_flags"], section["sh_size"], section["sh_addr"]
            if not flags & SH_FLAGS.SHF_ALLOC or not size:
                continue
            sections[section.name] = size
            if section["sh_type"] != "SHT_NOBITS":
                flash_bytes += size
            if lies_in(flash, address):
                flash_end = max(flash_end, address + size - flash.origin)
            elif address >= _RAM or flags & (SH_FLAGS.SHF_WRITE | SH_FLAGS.SHF_EXECINSTR):
                ram_bytes += size
            if lies_in(ram, address):
                ram_end = max(ram_end, address + size - ram.origin)
    code = sum(_code_bytes(path) for path in _objects(build))
    return Usage(
        sections=sections,
        flash_bytes=flash_bytes,
        ram_bytes=ram_bytes,
        code_bytes=max(0, code - weights_bytes),
        weights_bytes=weights_bytes,
        workspace_bytes=0,
        missing_flash=max(0, flash_end - flash.size, flash_bytes - flash.size),
        missing_ram=max(0, ram_end - ram.size),
    )


def _objects(build: Path) -> list[Path]:
    compiled = sorted((build / "CMakeFiles" / "model.dir").rglob("*.obj"))
    return compiled + sorted((build.parent / "model" / "codegen" / "host" / "lib").rglob("*.o"))


def _code_bytes(path: Path) -> int:
    """Bytes of instructions and constants, weights included, in one object file."""
    with path.open("rb") as stream:
        return sum(
            section["sh_size"]
            for section in ELFFile(stream).iter_sections()
            if section["sh_flags"] & SH_FLAGS.SHF_ALLOC
            and not section["sh_flags"] & SH_FLAGS.SHF_WRITE
            and section["sh_type"] == "SHT_PROGBITS"
            and not section.name.startswith((".ARM.", ".debug"))
        )
