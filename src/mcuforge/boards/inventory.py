"""Board types (boards.yaml) and the boards on this bench (hardware-map.yaml)."""

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcuforge import schema
from mcuforge.errors import ConfigError

# What may lie in a memory. Every board has each of them in exactly one of its memories.
FLASH_ROLES = ("vectors", "code", "weights")
RAM_ROLES = ("data", "workspace", "stack")
# What each toolchain makes the firmware from: C source or TVM's object file.
TOOLCHAIN_CODEGEN = {"gcc": "c", "clang": "c", "tvm-llvm": "llvm"}


@dataclass(frozen=True)
class Memory:
    """A memory of a board: `size` bytes from `origin`, and the roles of what it holds."""

    name: str
    origin: int
    size: int
    holds: tuple[str, ...]


@dataclass(frozen=True)
class Board:
    """A board type.

    Attributes:
        name: key in boards.yaml, the value of the `board` wildcard.
        core: in GCC's ``-mcpu`` syntax.
        platform: ``baremetal`` or ``zephyr``.
        clock_hz: the core's clock.
        memories: in the order of boards.yaml.
        stack_bytes: RAM reserved for the stack.
        baud: of the serial port; MLPerf Tiny's is 115200, in energy mode 9600.
        vendor: what its firmware answers to the command ``name``.
        toolchains: those that can build for the board.
        baremetal: ``uart_base``, ``uart_rx_irq``, ``tick_hz`` of the bare-metal port.
        machine: QEMU's machine that stands for the board; empty for hardware.
        runners: programs that can flash the board, the default first; empty when emulated.
        flash_origin, flash_args: what those programs are told.
        zephyr_board: Zephyr's board target, as in ``mps2/an500``.
        zephyr_board_before: what it was called before a release, as in ``{"4.0": "mps3/an547"}``.
        zephyr_variants: Zephyr's name of toolchains, where it is not the usual one.
        zephyr_fragments: files of device/zephyr/fragments that go into the build.
        zephyr_modules: modules of Zephyr's manifest the board needs, besides CMSIS.
        usb: ids (``vendor:product``, four hex digits each) of the probe on the board.
    """

    name: str
    core: str
    platform: str
    clock_hz: int
    memories: tuple[Memory, ...]
    toolchains: tuple[str, ...]
    stack_bytes: int = 8192
    baud: int = 115200
    vendor: str = "mcuforge"
    baremetal: dict[str, int] = field(default_factory=dict)
    machine: str = ""
    runners: tuple[str, ...] = ()
    flash_origin: int = 0
    flash_args: dict[str, str] = field(default_factory=dict)
    zephyr_board: str = ""
    zephyr_board_before: dict[str, str] = field(default_factory=dict)
    zephyr_variants: dict[str, str] = field(default_factory=dict)
    zephyr_fragments: tuple[str, ...] = ()
    zephyr_modules: tuple[str, ...] = ()
    usb: tuple[str, ...] = ()

    @property
    def emulated(self) -> bool:
        """Whether QEMU stands for the board, and results are instruction counts."""
        return bool(self.machine)

    def memory(self, role: str) -> Memory:
        """The memory that holds `role`."""
        return next(memory for memory in self.memories if role in memory.holds)

    @property
    def flash_bytes(self) -> int:
        """Size of the memories that hold vectors, code and weights."""
        return sum({m.name: m.size for m in map(self.memory, FLASH_ROLES)}.values())

    @property
    def ram_bytes(self) -> int:
        """Size of the memories that hold data, workspace and stack."""
        return sum({m.name: m.size for m in map(self.memory, RAM_ROLES)}.values())

    def target(self, toolchain: str) -> str:
        """Name of the compilation target for this board and toolchain, as in ``cortex-m7-c``.

        Raises ConfigError if the toolchain cannot build for this board.
        """
        if toolchain not in self.toolchains:
            raise ConfigError(
                f"toolchain '{toolchain}' cannot build for {self.name}",
                f"valid toolchains: {', '.join(self.toolchains)}",
            )
        return f"{self.core}-{TOOLCHAIN_CODEGEN[toolchain]}"


@dataclass(frozen=True)
class Instance:
    """One board on the bench, an entry of the hardware map.

    Attributes:
        id: unique; names the board in records and its lock file.
        board: name of its type.
        serial: the serial port's device; empty for QEMU started by mcuforge.
        baud: of the serial port.
        runner: the program that flashes it; empty for QEMU started by mcuforge.
        runner_params: more arguments for that program.
        flash_timeout_s: how long it may take.
        probe_id: serial number of its probe.
    """

    id: str
    board: str
    serial: str = ""
    baud: int = Board.baud
    runner: str = ""
    runner_params: tuple[str, ...] = ()
    flash_timeout_s: float = 180.0
    probe_id: str = ""
    product: str = ""
    connected: bool = True
    fixtures: tuple[str, ...] = ()

    @property
    def started_by_us(self) -> bool:
        """Whether this is a QEMU that mcuforge starts: there are as many as are asked for."""
        return not self.serial


@dataclass(frozen=True)
class Inventory:
    """The board types and the boards there are."""

    types: dict[str, Board]
    bench: tuple[Instance, ...] = ()

    def board(self, name: str) -> Board:
        """The type called `name`; ConfigError with the valid names if there is none."""
        try:
            return self.types[name]
        except KeyError:
            raise ConfigError(
                f"unknown board '{name}'", f"valid boards: {', '.join(self.types)}"
            ) from None

    def instances(self, name: str) -> tuple[Instance, ...]:
        """The connected boards of the type `name`; one implicit QEMU if it is emulated.

        Boards in the hardware map come first choice: listing a QEMU there says that it is to be
        used instead of starting one.
        """
        listed = tuple(i for i in self.bench if i.board == name and i.connected)
        if not listed and self.board(name).emulated:
            return (Instance(id=f"qemu-{self.board(name).machine}", board=name),)
        return listed


def load(boards: Path, hardware_map: Path | None = None) -> Inventory:
    """Read the board types and, if given, the boards on this bench.

    Raises ConfigError with file, place and remedy when something does not fit.
    """
    types = {
        name: _board(name, entry, str(boards))
        for name, entry in schema.read_yaml(boards, "boards").items()
    }
    bench: list[Instance] = []
    for entry in schema.read_yaml(hardware_map, "hardware-map") if hardware_map else []:
        instance = _instance(entry, types, str(hardware_map))
        if any(other.id == instance.id for other in bench):
            raise ConfigError(f"{hardware_map}: board id '{instance.id}' is listed twice")
        bench.append(instance)
    return Inventory(types, tuple(bench))


def _board(name: str, entry: dict[str, Any], source: str) -> Board:
    place = f"{source}: {name}"
    memories = tuple(
        Memory(m["name"], m["origin"], _bytes(m["size"]), tuple(m["holds"]))
        for m in entry["memories"]
    )
    for role in (*FLASH_ROLES, *RAM_ROLES):
        holders = [memory.name for memory in memories if role in memory.holds]
        if len(holders) != 1:
            raise ConfigError(
                f"{place}.memories: '{role}' is held by {' and '.join(holders) or 'no memory'}",
                "each of vectors, code, weights, data, workspace, stack belongs in one memory",
            )
    if len({memory.name for memory in memories}) < len(memories):
        raise ConfigError(f"{place}.memories: two memories have the same name")
    by_origin = sorted(memories, key=lambda memory: memory.origin)
    for low, high in itertools.pairwise(by_origin):
        if low.origin + low.size > high.origin:
            raise ConfigError(f"{place}.memories: {low.name} and {high.name} overlap")
    for memory in memories:
        if set(memory.holds) & set(FLASH_ROLES) and set(memory.holds) & set(RAM_ROLES):
            raise ConfigError(
                f"{place}.memories: {memory.name} holds both flash and RAM contents",
                "divide it into two entries",
            )
    flash_args = entry.get("flash_args", {})
    return Board(
        name=name,
        core=entry["core"],
        platform=entry["platform"],
        clock_hz=entry["clock_hz"],
        memories=memories,
        toolchains=tuple(entry["toolchains"]),
        stack_bytes=entry.get("stack_bytes", Board.stack_bytes),
        baud=entry.get("baud", Board.baud),
        vendor=entry.get("vendor", Board.vendor),
        baremetal=entry.get("baremetal", {}),
        machine=entry.get("emulator", {}).get("machine", ""),
        runners=tuple(entry.get("runners", ())),
        flash_origin=entry.get("flash_origin", 0),
        flash_args=flash_args,
        zephyr_board=entry.get("zephyr_board", ""),
        zephyr_board_before=entry.get("zephyr_board_before", {}),
        zephyr_variants=entry.get("zephyr_variants", {}),
        zephyr_fragments=tuple(entry.get("zephyr_fragments", ())),
        zephyr_modules=tuple(entry.get("zephyr_modules", ())),
        usb=tuple(entry.get("usb", ())),
    )


def _instance(entry: dict[str, Any], types: dict[str, Board], source: str) -> Instance:
    place = f"{source}: board '{entry['id']}'"
    names = {b.zephyr_board: b for b in types.values() if b.zephyr_board} | types
    if entry["platform"] not in names:
        raise ConfigError(
            f"{place}: unknown platform '{entry['platform']}'", f"valid: {', '.join(types)}"
        )
    board = names[entry["platform"]]
    serial = entry.get("serial_pty") or entry.get("serial") or ""
    if not serial and (entry["connected"] and not board.emulated):
        raise ConfigError(f"{place}: connected, but without a serial port", "set the key serial")
    runner = entry.get("runner", board.runners[0] if board.runners else "")
    return Instance(
        id=str(entry["id"]),
        board=board.name,
        serial=serial,
        baud=entry.get("baud", board.baud),
        runner=runner,
        runner_params=tuple(entry.get("runner_params", ())),
        flash_timeout_s=entry.get("flash_timeout", Instance.flash_timeout_s),
        probe_id=str(entry.get("probe_id") or entry["id"]),
        product=entry.get("product", ""),
        connected=entry["connected"],
        fixtures=tuple(entry.get("fixtures", ())),
    )


def _bytes(size: int | str) -> int:
    if isinstance(size, int):
        return size
    return int(size[:-1]) * {"K": 1 << 10, "M": 1 << 20}[size[-1]]
