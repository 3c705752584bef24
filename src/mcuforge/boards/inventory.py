"""Board types and the boards on this bench."""

from dataclasses import dataclass, field

from mcuforge import toolchains
from mcuforge.errors import ConfigError, known
from mcuforge.target import Target

# What may lie in a memory. On every board each lies in exactly one memory.
FLASH_ROLES = ("vectors", "code", "weights")
RAM_ROLES = ("data", "workspace", "stack")


@dataclass(frozen=True)
class Memory:
    """A memory of a board: `size` bytes from `origin`, and the roles of what it holds."""

    name: str
    origin: int
    size: int
    holds: tuple[str, ...]


@dataclass(frozen=True)
class Cache:
    """A cache of `size` bytes with lines of 32 bytes and `ways` of each set."""

    size: int
    ways: int


@dataclass(frozen=True)
class TimedMemory:
    """A memory of which filling a cache's line takes `line_cycles` of the core."""

    name: str
    origin: int
    size: int
    line_cycles: int


@dataclass(frozen=True)
class Timing:
    """What memory costs the core, for modelled cycles.

    Attributes:
        source: what it describes, and where the numbers are from.
        clock_hz: the core's clock for which it holds.
        data_cache, instruction_cache: None if there is none.
        memories: what is in none of them costs nothing and is not cached, as tightly coupled
            memory.
    """

    source: str
    clock_hz: int
    data_cache: Cache | None = None
    instruction_cache: Cache | None = None
    memories: tuple[TimedMemory, ...] = ()


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
        baremetal: ``port``, a directory of device/baremetal, and what that needs: ``uart_base``,
            ``uart_rx_irq``, ``tick_hz``.
        machine: QEMU's machine that stands for the board; empty for hardware.
        runners: programs that can flash the board, the default first; empty when emulated.
        flash_origin, flash_args: what those programs are told.
        zephyr_board: Zephyr's board target, as in ``mps2/an500``.
        zephyr_board_before: what it was called before a release, as in ``{"4.0": "mps3/an547"}``.
        zephyr_variants: Zephyr's name of toolchains, where it is not the usual one.
        zephyr_fragments: files of device/zephyr/fragments that go into the build.
        zephyr_modules: modules of Zephyr's manifest the board needs, besides CMSIS.
        timing: what memory costs; None if it is not known, and cycles are not modelled.
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
    baremetal: dict[str, int | str] = field(default_factory=dict)
    machine: str = ""
    runners: tuple[str, ...] = ()
    flash_origin: int = 0
    flash_args: dict[str, str] = field(default_factory=dict)
    zephyr_board: str = ""
    zephyr_board_before: dict[str, str] = field(default_factory=dict)
    zephyr_variants: dict[str, str] = field(default_factory=dict)
    zephyr_fragments: tuple[str, ...] = ()
    zephyr_modules: tuple[str, ...] = ()
    timing: Timing | None = None
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
        return Target(self.core, toolchains.entry(toolchain).codegen).name


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
        return self.types[known("board", name, self.types)]

    def instances(self, name: str) -> tuple[Instance, ...]:
        """The connected boards of the type `name`; one implicit QEMU if it is emulated.

        Boards in the hardware map come first choice: listing a QEMU there says that it is to be
        used instead of starting one.
        """
        listed = tuple(i for i in self.bench if i.board == name and i.connected)
        if not listed and self.board(name).emulated:
            return (Instance(id=f"qemu-{self.board(name).machine}", board=name),)
        return listed
