"""What a firmware needs of its board's memories, read from the ELF file."""

from dataclasses import dataclass
from pathlib import Path

from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile

from mcuforge.boards import Board

# Sections of the linker script and the role of the memory each lies in.
_ROLES = {
    ".vectors": "vectors",
    ".weights": "weights",
    ".model_text": "code",
    ".model_rodata": "code",
    ".text": "code",
    ".rodata": "code",
    ".stack": "stack",
    ".data": "data",
    ".bss": "data",
    ".workspace": "workspace",
}
_MODEL_SECTIONS = (".model_text", ".model_rodata")


@dataclass(frozen=True)
class Usage:
    """Bytes used, and bytes missing where the board's memories are too small."""

    sections: dict[str, int]
    flash_bytes: int
    ram_bytes: int
    code_bytes: int
    weights_bytes: int
    workspace_bytes: int
    missing_flash: int
    missing_ram: int

    @property
    def fits(self) -> bool:
        """Whether the firmware can run on its board."""
        return not (self.missing_flash or self.missing_ram)


def usage(elf: Path, board: Board, weights_bytes: int) -> Usage:
    """Measure a bare-metal firmware.

    Args:
        weights_bytes: what the compiler says the weights take; used if they are not in a section
            of their own, as in TVM's object files.

    `code_bytes` is text and constants of the generated code and of the library functions it calls,
    without weights. Initialised data counts as flash and as RAM, the stack as RAM.
    """
    with elf.open("rb") as stream:
        found = [
            (s.name, s["sh_addr"], s["sh_size"], s["sh_type"] != "SHT_NOBITS")
            for s in ELFFile(stream).iter_sections()
            if s["sh_flags"] & SH_FLAGS.SHF_ALLOC and s["sh_size"]
        ]
    sections = {name: size for name, _, size, _ in found}
    ends: dict[str, int] = {}
    for name, address, size, _ in found:
        memory = board.memory(_ROLES.get(name, "code"))
        ends[memory.name] = max(ends.get(memory.name, 0), address + size - memory.origin)
    # .data is loaded from flash, behind the code
    ends[board.memory("code").name] = ends.get(board.memory("code").name, 0) + sections.get(
        ".data", 0
    )

    def missing(roles: tuple[str, ...]) -> int:
        memories = {m.name: m for m in map(board.memory, roles)}.values()
        return sum(max(0, ends.get(m.name, 0) - m.size) for m in memories)

    weights = sections.get(".weights", 0)
    model = sum(sections.get(name, 0) for name in _MODEL_SECTIONS)
    return Usage(
        sections=sections,
        flash_bytes=sum(size for name, _, size, _ in found if _ROLES.get(name, "code") in _FLASH)
        + sections.get(".data", 0),
        ram_bytes=sum(size for name, _, size, _ in found if _ROLES.get(name, "code") not in _FLASH),
        code_bytes=model if weights else max(0, model - weights_bytes),
        weights_bytes=weights or weights_bytes,
        workspace_bytes=sections.get(".workspace", 0),
        missing_flash=missing(_FLASH),
        missing_ram=missing(("data", "workspace", "stack")),
    )


_FLASH = ("vectors", "code", "weights")
