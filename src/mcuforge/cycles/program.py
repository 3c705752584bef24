"""A firmware's model as a program of QEMU's user mode emulation.

The program is the firmware's memory, byte for byte at the same addresses, and a few instructions of
our own that call the model and print what it leaves behind. So a model is executed as it is flashed
on a board that no emulator knows.
"""

import struct
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import Symbol

from mcuforge.errors import ModelError

_PAGE = 0x1000
_STACK_BYTES = 0x10000
# Where our instructions may be, if the firmware leaves it free.
_FIRST_FREE = 0x00100000
# Symbols at the end of the stack the model runs on, of the bare-metal port and of Zephyr.
_STACK_TOP, _ZEPHYR_STACK = "__stack_top", "z_main_stack"
# Calls the entry as often as the table behind says, prints the ranges of memory listed there and
# exits with 0; with what the entry returned if that is something else. The table has the stack's
# end, both arguments, the entry, how often, then address and size of each range, and two zeros.
_STUB = """\
    adr    r4, table
    ldm.w  r4!, {r0, r5, r6, r9, r10}
    mov    sp, r0
again:
    mov    r0, r5
    mov    r1, r6
    blx    r9
    cbnz   r0, finish
    subs.w r10, r10, #1
    bne    again
more:
    ldm    r4!, {r1, r2}
    cbz    r2, finish
    movs   r0, #1
    movs   r7, #4
    svc    #0
    movs   r0, #0
    b      more
finish:
    movs   r7, #1
    svc    #0
table:
"""
_STUB_CODE = bytes.fromhex(
    "09a4b4e86106854628463146c84748b9baf1010af8d106cc22b10120042700df0020f8e7012700df"
)
_RETURN = 14  # offset of what follows the call
_IDENT = bytes([0x7F, *b"ELF", 1, 1, 1]).ljust(16, b"\0")  # 32 bits, little endian
_EABI_5 = 0x05000000


@dataclass(frozen=True)
class Call:
    """A function of a firmware and how it is called.

    Attributes:
        entry: its address.
        arguments: the first two.
        inputs: bytes that are put at addresses before the first call.
        outputs: address and size of what is read after the last one.
        times: how often it is called. All but the last fill caches and predictors.
    """

    entry: int
    arguments: tuple[int, int] = (0, 0)
    inputs: tuple[tuple[int, bytes], ...] = ()
    outputs: tuple[tuple[int, int], ...] = ()
    times: int = 2


class Image:
    """The memory of a firmware once it has started: all that its sections hold, zeros elsewhere."""

    def __init__(self, elf: ELFFile) -> None:
        self._pages: dict[int, bytearray] = {}
        table = elf.get_section_by_name(".symtab")
        self._symbols: dict[str, Symbol] = {
            symbol.name: symbol
            for symbol in (table.iter_symbols() if table else ())
            if symbol["st_shndx"] != "SHN_UNDEF"
        }
        for section in elf.iter_sections():
            if section["sh_flags"] & SH_FLAGS.SHF_ALLOC and section["sh_size"]:
                stored = section["sh_type"] != "SHT_NOBITS"
                data = section.data() if stored else bytes(section["sh_size"])
                self.write(section["sh_addr"], data)

    def address(self, name: str) -> int:
        """The address of a function or an object; ModelError if there is none of this name."""
        symbol = self._symbol(name)
        thumb = symbol["st_info"]["type"] == "STT_FUNC"
        return int(symbol["st_value"]) - thumb

    def size(self, address: int) -> int:
        """The size of the function at an address, in bytes; 0 if there is none."""
        sizes = (
            int(symbol["st_size"])
            for symbol in self._symbols.values()
            if symbol["st_info"]["type"] == "STT_FUNC" and symbol["st_value"] == address + 1
        )
        return max(sizes, default=0)

    def _symbol(self, name: str) -> Symbol:
        if name not in self._symbols:
            raise ModelError(f"the firmware has no symbol '{name}'", "it must not be stripped")
        return self._symbols[name]

    def words(self, address: int, number: int) -> tuple[int, ...]:
        """Words of 32 bits from an address on."""
        return tuple(
            int.from_bytes(self._pages[a - a % _PAGE][a % _PAGE : a % _PAGE + 4], "little")
            for a in range(address, address + 4 * number, 4)
        )

    def write(self, address: int, data: bytes) -> None:
        """Put bytes into memory, which grows by pages."""
        position = 0
        while position < len(data):
            page, offset = divmod(address + position, _PAGE)
            part = data[position : position + _PAGE - offset]
            content = self._pages.setdefault(page * _PAGE, bytearray(_PAGE))
            content[offset : offset + len(part)] = part
            position += len(part)

    @property
    def _stack_top(self) -> int:
        if _STACK_TOP in self._symbols:
            return self.address(_STACK_TOP)
        if _ZEPHYR_STACK in self._symbols:
            stack = self._symbol(_ZEPHYR_STACK)
            return int(stack["st_value"] + stack["st_size"]) & ~7
        return 0

    def program(self, call: Call, path: Path) -> int:
        """Write the program that makes a call; returns where it goes on after each."""
        for address, data in call.inputs:
            self.write(address, data)
        needed = range(0, _PAGE + _STACK_BYTES, _PAGE)
        place = next(
            p for p in count(_FIRST_FREE, _PAGE) if not any(p + n in self._pages for n in needed)
        )
        self.write(place, bytes(needed.stop))
        ranges = [word for output in call.outputs for word in output]
        stack = self._stack_top or place + needed.stop
        table = [stack, *call.arguments, call.entry | 1, call.times, *ranges, 0, 0]
        self.write(place, _STUB_CODE + struct.pack(f"<{len(table)}I", *table))
        path.write_bytes(self._file(place | 1))
        path.chmod(0o755)  # the emulator asks for it
        return place + _RETURN

    def _file(self, entry: int) -> bytes:
        """The program's ELF file: a segment for each run of pages, all readable and writable."""
        runs: list[tuple[int, bytearray]] = []
        for address in sorted(self._pages):
            if runs and runs[-1][0] + len(runs[-1][1]) == address:
                runs[-1][1].extend(self._pages[address])
            else:
                runs.append((address, bytearray(self._pages[address])))
        header = struct.pack(
            "<16sHHIIIIIHHHHHH", _IDENT, 2, 40, 1, entry, 52, 0, _EABI_5, 52, 32, len(runs), 0, 0, 0
        )
        offset, headers = -(-(52 + 32 * len(runs)) // _PAGE) * _PAGE, b""
        for address, content in runs:
            size = len(content)
            headers += struct.pack("<8I", 1, offset, address, address, size, size, 7, _PAGE)
            offset += size
        start = (header + headers).ljust(-(-(52 + len(headers)) // _PAGE) * _PAGE, b"\0")
        return start + b"".join(bytes(content) for _, content in runs)
