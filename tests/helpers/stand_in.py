"""A QEMU that stands for a physical board, and a serial cable that can be tampered with."""

import contextlib
import os
import pty
import select
import threading
import tty
from collections.abc import Callable
from pathlib import Path

import yaml

from mcuforge import boards
from mcuforge.boards import qemu

BOARDS = Path(__file__).parents[2] / "config" / "boards.yaml"


class StandIn:
    """A machine without firmware, with a gdb server to flash it, and the bench it is on.

    Attributes:
        machine: to reset or end.
        entry: its entry in a hardware map.
        bench: an inventory of it alone.
        instance: it, as the bench has it.
    """

    def __init__(self, directory: Path, name: str, board: str = "mps2_an500") -> None:
        directory.mkdir(exist_ok=True)
        types = boards.load(BOARDS)
        socket = directory / f"{name}.sock"
        self.machine = qemu.Qemu(types.board(board), None, gdb=socket)
        self.machine.start()
        self.entry = {
            "connected": True,
            "id": name,
            "platform": board,
            "runner": "gdb",
            "runner_params": [str(socket)],
            "serial_pty": self.machine.port,
        }
        self._map = directory / f"{name}.yaml"
        self._load()

    def _load(self) -> None:
        self._map.write_text(yaml.safe_dump([self.entry]))
        self.bench = boards.load(BOARDS, self._map)
        (self.instance,) = self.bench.bench

    def wire(self) -> "Cable":
        """Put a cable between the board and its port, the old one taken away."""
        cable = Cable(self.machine.port)
        self.entry["serial_pty"] = cable.port
        self._load()
        return cable


class Cable(threading.Thread):
    """Carries bytes between a board and a pseudo-terminal of its own.

    Attributes:
        port: what the host opens.
        tamper: what becomes of the board's bytes on their way to the host.
    """

    def __init__(self, board: str) -> None:
        super().__init__(daemon=True)
        self._board = os.open(board, os.O_RDWR | os.O_NOCTTY)
        self._host, self._slave = pty.openpty()
        for terminal in (self._board, self._slave):
            tty.setraw(terminal)
        os.set_blocking(self._host, False)
        self.port = os.ttyname(self._slave)
        self.tamper: Callable[[bytes], bytes] = lambda data: data
        self._cut = threading.Event()
        self.start()

    def cut(self) -> None:
        """Pull the cable: the host's port vanishes."""
        self._cut.set()
        if threading.current_thread() is not self:
            self.join()

    def run(self) -> None:
        pending = b""
        while not self._cut.is_set():
            writing = [self._host] if pending else []
            readable, writable, _ = select.select([self._board, self._host], writing, [], 0.05)
            try:
                if self._board in readable:
                    pending += self.tamper(os.read(self._board, 4096))
                if self._host in readable:
                    os.write(self._board, os.read(self._host, 4096))
                if writable and pending and not self._cut.is_set():
                    pending = pending[os.write(self._host, pending) :]
            except OSError:
                break
        for descriptor in (self._board, self._host, self._slave):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def after(marker: bytes, change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """For `Cable.tamper`: applies `change` to everything from `marker` on."""
    seen = bytearray()

    def tamper(data: bytes) -> bytes:
        before = seen.find(marker) >= 0
        seen.extend(data)
        if before:
            return change(data)
        start = seen.find(marker)
        if start < 0:
            return data
        split = max(0, len(data) - (len(seen) - start))
        return data[:split] + change(data[split:])

    return tamper
