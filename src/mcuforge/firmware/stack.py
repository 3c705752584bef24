"""Worst-case stack of a function: frames from -fstack-usage, calls from the relocations."""

import re
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import SymbolTableSection

# Frames of library functions generated code may call, which come without stack usage: what
# newlib's and libgcc's code for ARMv7-M and ARMv8.1-M pushes, rounded up.
_LIBRARY = {
    "memcpy": 32,
    "memmove": 32,
    "memset": 32,
    "__aeabi_memcpy": 40,
    "__aeabi_memcpy4": 40,
    "__aeabi_memcpy8": 40,
    "__aeabi_memmove": 40,
    "__aeabi_memset": 40,
    "__aeabi_memclr": 40,
    "__aeabi_memclr4": 40,
    "__aeabi_memclr8": 40,
}


def bound(objects: list[Path], entry: str) -> int | None:
    """Bytes of stack `entry` and everything it calls can use at most.

    Args:
        objects: object files compiled with ``-ffunction-sections -fstack-usage``; ``x.c.o`` has its
            stack usage beside it in ``x.c.su`` (GCC) or ``x.su`` (clang).

    None if that cannot be known: a dynamic frame, recursion, or code without stack usage. A
    function whose address is taken counts as called by whoever takes it.
    """
    frames: dict[str, int] = {}
    calls: dict[str, set[str]] = {}
    for index, path in enumerate(objects):
        usage = _stack_usage(path)
        if usage is None:
            return None
        _read_calls(path, f"{index}:", usage, frames, calls)

    known: dict[str, int | None] = {}

    def depth(function: str, above: frozenset[str]) -> int | None:
        if function in above:
            return None
        if function not in known:
            if function in frames:
                below = [depth(f, above | {function}) for f in sorted(calls.get(function, ()))]
                known[function] = (
                    None if None in below else frames[function] + max(below, default=0)
                )
            else:
                known[function] = _LIBRARY.get(function)
        return known[function]

    return depth(entry, frozenset())


def _stack_usage(path: Path) -> dict[str, int] | None:
    for candidate in (path.with_suffix(".su"), path.with_suffix("").with_suffix(".su")):
        if candidate.is_file():
            usage = {}
            for line in candidate.read_text().splitlines():
                match = re.fullmatch(r".*:([^:\t]+)\t(\d+)\t(\S+)", line)
                if not match or match[3] not in ("static", "dynamic,bounded"):
                    return None
                usage[match[1]] = int(match[2])
            return usage
    return None


def _read_calls(
    path: Path,
    local: str,
    usage: dict[str, int],
    frames: dict[str, int],
    calls: dict[str, set[str]],
) -> None:
    """Add the functions of one object file; static ones are prefixed with `local`."""
    with path.open("rb") as stream:
        elf = ELFFile(stream)
        symbols = [
            (s.name, s.entry)
            for table in elf.iter_sections()
            if isinstance(table, SymbolTableSection)
            for s in table.iter_symbols()
        ]

        def key(index: int) -> str:
            name, entry = symbols[index]
            kind, bind = entry["st_info"]["type"], entry["st_info"]["bind"]
            if kind == "STT_SECTION":  # a static function's section stands for it
                name = elf.get_section(entry["st_shndx"]).name.removeprefix(".text.")
            return f"{local}{name}" if bind == "STB_LOCAL" else name

        functions: dict[int, list[str]] = {}
        for index, (name, entry) in enumerate(symbols):
            if entry["st_info"]["type"] == "STT_FUNC" and entry["st_shndx"] != "SHN_UNDEF":
                functions.setdefault(entry["st_shndx"], []).append(key(index))
                frames[key(index)] = usage.get(name, 0)
        for section in elf.iter_sections():
            if not isinstance(section, RelocationSection):
                continue
            callers = functions.get(section["sh_info"], [])
            for relocation in section.iter_relocations() if callers else ():
                index = relocation["r_info_sym"]
                entry = symbols[index][1]
                defined = entry["st_shndx"] != "SHN_UNDEF"
                if defined and entry["st_shndx"] not in functions:
                    continue  # data
                for caller in callers:
                    if key(index) != caller or not defined:
                        calls.setdefault(caller, set()).add(key(index))
