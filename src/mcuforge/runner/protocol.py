"""Host side of the MLPerf Tiny serial protocol; see docs/protocol.md.

Whatever the board sends is handled in bounded memory and time.
"""

import base64
import re
import secrets
import time
from dataclasses import dataclass
from typing import Protocol

from mcuforge.errors import BoardError

TERMINATOR = "%"
READY = "m-ready"
REPLY_TIMEOUT_S = 5.0
# A board that never stops talking still meets the deadline: a reply is bounded as a whole.
_MAX_LINES = 4096
_MAX_REPLY_BYTES = 4 << 20
_FIRST_PAUSE_S = 0.5
_LOAD_BYTES = 3072  # a command; the firmware decodes them as they come


class Port(Protocol):
    """The part of ``serial.Serial`` that is used."""

    @property
    def in_waiting(self) -> int: ...
    def read(self, size: int) -> bytes: ...
    def write(self, data: bytes) -> int | None: ...


@dataclass(frozen=True)
class Profile:
    """What the firmware says of itself."""

    name: str
    model: str
    build_id: str
    tick_hz: int
    input_bytes: int
    output_bytes: int


@dataclass(frozen=True)
class Inference:
    """What one ``infer`` reports: ticks of `count` inferences, stack in bytes, the raw output.

    A firmware built to profile also reports the ticks of each operator.
    """

    count: int
    ticks: int
    ticks_min: int
    ticks_max: int
    stack_bytes: int
    output: bytes
    operators: tuple[int, ...] = ()


class Lines:
    """Cuts a stream of bytes into lines, and gives up when there is too much of it."""

    def __init__(self, max_line: int) -> None:
        self._max_line = max_line
        self._partial = bytearray()
        self._total = 0

    def feed(self, data: bytes) -> list[str]:
        """The lines that `data` completes, without line ends; not ASCII becomes U+FFFD.

        Raises BoardError for a line longer than `max_line` bytes or more than 4 MiB in all.
        """
        self._total += len(data)
        if self._total > _MAX_REPLY_BYTES:
            raise BoardError("the board floods its serial port", "reset the board")
        self._partial += data
        *complete, rest = self._partial.split(b"\n")
        if any(len(line) > self._max_line for line in (*complete, rest)):
            raise BoardError(f"the board sent a line of more than {self._max_line} bytes")
        self._partial = rest
        return [line.decode("ascii", "replace").strip("\r\0") for line in complete]


class Client:
    """Talks to one board.

    Args:
        port: open; its ``read`` must return within a fraction of a second.
        name: of the board, for messages.
    """

    def __init__(self, port: Port, name: str) -> None:
        self._port = port
        self._name = name
        self._max_line = 4096

    def synchronize(self, timeout_s: float) -> None:
        """Bring the board to where it waits for a command, whatever it was doing.

        Ends the command it may be in the middle of, and then sends one it cannot know: its answer
        echoes a word nobody sent before, so everything up to it is old. A booting board may lose
        what it is sent, so this is repeated, with a new word each time; the last one counts.
        """
        deadline = time.monotonic() + timeout_s
        lines = Lines(max_line=1 << 20)
        word, again, pause, echoed = "", 0.0, _FIRST_PAUSE_S, False
        while True:
            if not echoed and time.monotonic() >= again:
                word = f"sync-{secrets.token_hex(4)}"
                self._write(f"{TERMINATOR}{word}{TERMINATOR}")
                again, pause = time.monotonic() + pause, pause * 2
            for line in self._read(lines, deadline, f"did not become ready in {timeout_s:.0f} s"):
                if word in line:
                    echoed = True
                elif echoed and line == READY:
                    return

    def command(self, command: str, timeout_s: float = REPLY_TIMEOUT_S) -> list[str]:
        """Send a command; the lines of its reply without the final ``m-ready``.

        Raises BoardError if the board reports an error, or its reply is not complete in time.
        """
        shown = command if len(command) < 40 else command[:37] + "..."
        self._write(command + TERMINATOR)
        deadline = time.monotonic() + timeout_s
        lines, reply = Lines(self._max_line), list[str]()
        while True:
            late = f"did not complete its reply to '{shown}' in {timeout_s:.0f} s"
            for line in self._read(lines, deadline, late):
                if line == READY:
                    return reply
                if line.startswith("e-"):
                    raise BoardError(f"{self._name} answers '{shown}' with {line[:200]}")
                if line == "m-init-done":
                    raise BoardError(f"{self._name} restarted while it should answer '{shown}'")
                reply.append(line)
                if len(reply) > _MAX_LINES:
                    raise BoardError(f"{self._name} does not end its reply to '{shown}'")

    def profile(self) -> Profile:
        """Ask the firmware what it is."""
        name = _field(self.command("name"), r"m-name-dut-\[([^]]*)\]")
        lines = self.command("profile")
        profile = Profile(
            name=name,
            model=_field(lines, r"m-model-\[([^]]*)\]"),
            build_id=_field(lines, r"m-mcuforge-build-\[([0-9a-f]{16})\]"),
            tick_hz=int(_field(lines, r"m-mcuforge-tick-hz-\[(\d{1,10})\]")),
            input_bytes=int(_field(lines, r"m-mcuforge-input-bytes-\[(\d{1,10})\]")),
            output_bytes=int(_field(lines, r"m-mcuforge-output-bytes-\[(\d{1,10})\]")),
        )
        # the longest line there is: results, at most 20 characters for each byte of output
        self._max_line = 4096 + 20 * min(profile.output_bytes, 1 << 16)
        return profile

    def load(self, data: bytes) -> None:
        """Load the bytes of the model's input tensors."""
        self.command(f"db load {len(data)} raw")
        reply: list[str] = []
        for start in range(0, len(data), _LOAD_BYTES):
            chunk = data[start : start + _LOAD_BYTES]
            text = base64.b64encode(chunk).decode()
            # at 9600 baud a character takes 1 ms
            reply = self.command(f"b64 {text}", REPLY_TIMEOUT_S + 0.002 * len(text))
        if "m-load-done" not in reply:
            raise BoardError(f"{self._name} did not take {len(data)} bytes of input")

    def infer(self, count: int, warmup: int, timeout_s: float) -> Inference:
        """Run inferences on what was loaded."""
        result = parse_inference(self.command(f"infer {count} {warmup}", timeout_s))
        if result.count != count:
            raise BoardError(f"{self._name} ran {result.count} inferences instead of {count}")
        return result

    def _write(self, text: str) -> None:
        try:
            self._port.write(text.encode("ascii"))
        except OSError as error:  # serial.SerialException is one
            raise BoardError(f"cannot write to {self._name}: {error}") from error

    def _read(self, lines: Lines, deadline: float, late: str) -> list[str]:
        if time.monotonic() > deadline:
            raise BoardError(f"{self._name} {late}", "is it the right port and baud rate?")
        try:
            return lines.feed(self._port.read(min(max(1, self._port.in_waiting), 1 << 16)))
        except OSError as error:
            raise BoardError(f"lost the serial port of {self._name}: {error}") from error


def parse_inference(lines: list[str]) -> Inference:
    """Read the reply to ``infer``; BoardError if something is missing or malformed."""
    ticks = _field(lines, r"m-mcuforge-ticks-\[(\d{1,10}(?:,\d{1,20}){3})\]")
    count, total, least, most = map(int, ticks.split(","))
    output = _field(lines, r"m-mcuforge-output-\[((?:[0-9a-f]{2})*)\]")
    stack = _field(lines, r"m-mcuforge-stack-\[(\d{1,10})\]")
    if not (least <= most and least * count <= total <= most * count):
        raise BoardError(f"the board's ticks contradict each other: {ticks}")
    pattern = re.compile(r"m-mcuforge-operator-\[(\d{1,10}),(\d{1,20})\]", re.ASCII)
    operators = [found.groups() for line in lines if (found := pattern.fullmatch(line))]
    if [int(index) for index, _ in operators] != list(range(len(operators))):
        raise BoardError("the board's operators are not in order")
    return Inference(
        count,
        total,
        least,
        most,
        int(stack),
        bytes.fromhex(output),
        tuple(int(ticks) for _, ticks in operators),
    )


def _field(lines: list[str], pattern: str) -> str:
    found = [match[1] for line in lines if (match := re.fullmatch(pattern, line, re.ASCII))]
    if len(found) != 1:
        wanted = pattern.split(r"\[")[0]
        raise BoardError(
            f"the board's reply has {len(found)} lines '{wanted}' instead of one: "
            + " | ".join(lines)[:200]
        )
    return found[0]
