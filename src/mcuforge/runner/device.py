"""One board in use: brought from `unknown` to `ready`, and back to `unknown` whatever happens."""

import contextlib
import enum
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import serial

from mcuforge.boards import flashing, qemu
from mcuforge.boards.inventory import Board, Instance
from mcuforge.errors import BoardError
from mcuforge.runner.protocol import Client, Profile

_BOOT_TIMEOUT_S = 30.0
_READ_TIMEOUT_S = 0.1
_WRITE_TIMEOUT_S = 20.0


class State(enum.Enum):
    """What is known of a board."""

    UNKNOWN = "unknown"
    FLASHED = "flashed"
    BOOTED = "booted"
    READY = "ready"


class Device:
    """A board that runs a given firmware.

    Entering it flashes, boots and identifies; leaving it, in whatever way, closes the port, ends
    the emulator and forgets what was known. To be entered while the instance's lock is held.

    Args:
        build_id: what the firmware must report; anything else is a BoardError.
        shift: wanted of the emulator, see `qemu.Qemu`.

    Attributes:
        shift: what it is; 0 where the emulator was there already, and on hardware.
        state: how far it got.
        client: the protocol, once `ready`.
        profile: what the firmware says of itself, once `ready`.
    """

    def __init__(
        self, board: Board, instance: Instance, elf: Path, build_id: str, shift: int = 0
    ) -> None:
        self._board = board
        self._instance = instance
        self._elf = elf
        self._build_id = build_id
        self.shift = shift if instance.started_by_us else 0
        self._resources = contextlib.ExitStack()
        self.state = State.UNKNOWN
        self.client: Client
        self.profile: Profile

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def _close(self) -> None:
        self.state = State.UNKNOWN
        self._resources.close()

    def _start(self) -> None:
        machine = None
        if self._instance.started_by_us:
            emulator = qemu.Qemu(self._board, self._elf, shift=self.shift)
            machine = self._resources.enter_context(emulator)
            port_name = machine.port
        else:
            flashing.flash(self._board, self._instance, self._elf)
            port_name = self._instance.serial
        self.state = State.FLASHED
        port = self._resources.enter_context(_open(port_name, self._instance))
        if machine:
            machine.start()
        self.client = Client(port, f"{self._board.name} ({self._instance.id})")
        self.client.synchronize(_BOOT_TIMEOUT_S)
        self.state = State.BOOTED
        self.profile = self.client.profile()
        if self.profile.build_id != self._build_id:
            raise BoardError(
                f"{self._board.name} ({self._instance.id}) runs build {self.profile.build_id} "
                f"instead of {self._build_id}",
                "flashing did not take effect, or this is another board",
            )
        self.state = State.READY


def _open(name: str, instance: Instance) -> serial.Serial:
    """Open a serial port; a board that was just reset may need a moment to show it again."""
    deadline = time.monotonic() + 5.0
    while True:
        try:
            return serial.Serial(
                name,
                instance.baud,
                timeout=_READ_TIMEOUT_S,
                write_timeout=_WRITE_TIMEOUT_S,
                exclusive=True,
            )
        except serial.SerialException as error:
            if time.monotonic() > deadline:
                raise BoardError(
                    f"cannot open {name} of {instance.board} ({instance.id}): {error}",
                    "check the key serial in the hardware map, cables and permissions",
                ) from error
            time.sleep(0.2)
