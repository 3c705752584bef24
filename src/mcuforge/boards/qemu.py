"""A QEMU machine with its UART on a pseudo-terminal; it never outlives who started it."""

import contextlib
import json
import os
import queue
import re
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Self

from mcuforge import toolchains
from mcuforge.boards import children
from mcuforge.boards.inventory import Board
from mcuforge.errors import BoardError, ToolError
from mcuforge.target import Target

# Virtual time: one instruction is one nanosecond, whatever the host does.
ICOUNT = "shift={shift},align=off,sleep=off"
INSTRUCTIONS_PER_SECOND = 1_000_000_000
# An instruction of 2^6 nanoseconds is longer than a tick of any board's timer. So each one counts.
FINE_SHIFT = 6
_START_TIMEOUT_S = 30.0
_MAX_MESSAGE = 1 << 16


def version(core: str) -> str:
    """Version of the QEMU that runs a core, as in ``7.2.22``; ToolError if it is missing."""
    program, *_ = _emulator(core)
    done = subprocess.run(
        [program, "--version"], capture_output=True, text=True, timeout=60, check=False
    )
    match = re.search(r"version (\d+\.\d+\.\d+)", done.stdout)
    if not match:
        raise ToolError(f"{program} --version says nothing useful: {done.stderr.strip()[:200]}")
    return match[1]


def _emulator(core: str) -> list[str]:
    """The program that runs a core, and what it is told for it."""
    program, *options = Target(core).emulator
    return [toolchains.find(program), *options]


class Qemu:
    """One running machine.

    It is created before its devices are (``-preconfig``): the port can be opened before the
    firmware says its first word, and nothing of that is lost. Must be used and closed by the thread
    that created it, whose end is QEMU's end.

    Args:
        board: the type of board the machine stands for.
        elf: the firmware in its memory; None for a board that is still to be flashed.
        gdb: path of a socket where QEMU serves gdb, through which it can be flashed. The machine
            then stands still until gdb lets it go.
        shift: an instruction takes 2^shift nanoseconds of virtual time.

    Attributes:
        port: the pseudo-terminal of the UART, for ``serial.Serial``.
    """

    def __init__(
        self, board: Board, elf: Path | None, gdb: Path | None = None, shift: int = 0
    ) -> None:
        command = [*_emulator(board.core), "-M", board.machine, "-nodefaults", "-display", "none"]
        command += ["-icount", ICOUNT.format(shift=shift), "-preconfig"]
        if elf:
            command += ["-kernel", os.fspath(elf)]
        if gdb:
            command += ["-S", "-gdb", f"unix:{gdb},server=on,wait=off"]
        # A multiplexer with one user buffers 32 bytes. Without it each byte costs two changes of
        # thread. It gets no escape character, so that no byte is a command to it.
        command += ["-chardev", "pty,id=uart0,mux=on", "-serial", "chardev:uart0", "-echr", "256"]
        command += [
            "-chardev",
            "stdio,id=monitor,signal=off",
            "-mon",
            "chardev=monitor,mode=control",
        ]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            preexec_fn=children.die_with_parent(),
        )
        self._messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self._wait("QMP")
            self._execute("qmp_capabilities")
            devices = self._execute("query-chardev")
            self.port = next(
                d["filename"].removeprefix("pty:") for d in devices if d["label"] == "uart0-base"
            )
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """Let the machine run; to be called once the port is open."""
        self._execute("x-exit-preconfig")

    def reset(self) -> None:
        """Press the machine's reset button."""
        self._execute("system_reset")

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the machine still runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the machine. Idempotent."""
        with contextlib.suppress(OSError):
            self._process.kill()
        self._process.wait()
        if self._process.stdin:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        with stream:
            while line := stream.readline(_MAX_MESSAGE):
                with contextlib.suppress(ValueError):  # it also says where the terminal is
                    self._messages.put(json.loads(line))
        self._messages.put(None)

    def _wait(self, key: str) -> Any:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                message = self._messages.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise BoardError(
                    f"QEMU did not answer its monitor within {_START_TIMEOUT_S:.0f} s"
                ) from None
            if message is None:
                self._process.wait()
                raise BoardError(f"QEMU ended with exit code {self._process.returncode}")
            if "error" in message:
                raise BoardError(f"QEMU refused: {message['error'].get('desc', message['error'])}")
            if key in message:
                return message[key]

    def _execute(self, command: str) -> Any:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"execute": command}).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise BoardError("QEMU ended unexpectedly") from error
        return self._wait("return")
