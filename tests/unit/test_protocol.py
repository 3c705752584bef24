"""The protocol client against boards that misbehave in every way."""

import contextlib
import itertools
import re
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcuforge.errors import BoardError
from mcuforge.runner import protocol
from mcuforge.runner.protocol import Client, Lines, parse_inference

REPLY = [
    "m-warmup-start-0",
    "m-warmup-done",
    "m-infer-start-2",
    "m-lap-us-10",
    "m-lap-us-20",
    "m-infer-done",
    "m-mcuforge-ticks-[2,30,14,16]",
    "m-mcuforge-stack-[128]",
    "m-mcuforge-output-[00ff7f]",
    "m-results-[0.0,1.0,-0.5]",
]


class Port:
    """Answers each command by what `answer` returns for it, in pieces of `piece` bytes."""

    def __init__(self, answer, piece=7):
        self._answer, self._piece = answer, piece
        self._command = b""
        self._pending = b""
        self.commands = []

    def write(self, data):
        self._command += data
        while b"%" in self._command:
            command, _, self._command = self._command.partition(b"%")
            self.commands.append(command.decode())
            self._pending += self._answer(command.decode())
        return len(data)

    @property
    def in_waiting(self):
        return min(self._piece, len(self._pending))

    def read(self, size):
        if not self._pending:
            time.sleep(0.005)
        data, self._pending = self._pending[:size], self._pending[size:]
        return data


def text(*lines):
    return "".join(f"{line}\r\n" for line in lines).encode()


def client(answer, **kwargs):
    return Client(Port(answer, **kwargs), "board")


def test_a_reply_ends_with_ready_however_it_is_cut():
    for piece in (1, 2, 1000):
        assert client(lambda c: text("one", "two", "m-ready"), piece=piece).command("x") == [
            "one",
            "two",
        ]


def test_infer_returns_ticks_stack_and_output():
    result = client(lambda c: text(*REPLY, "m-ready")).infer(2, 0, 1)
    assert (result.count, result.ticks, result.stack_bytes) == (2, 30, 128)
    assert result.output == bytes([0, 255, 127])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda c: b"", "did not complete its reply to 'infer 2 0'"),
        (lambda c: text(*REPLY), "did not complete"),
        (lambda c: text(*REPLY[:3])[:-1], "did not complete"),
        (lambda c: text("e-[Fault 3: pc=0x0]", "m-ready"), r"answers 'infer 2 0' with e-\[Fault"),
        (lambda c: text("m-init-done", "m-ready"), "restarted"),
        (lambda c: text("m-ready"), "0 lines 'm-mcuforge-ticks-'"),
        (lambda c: text(*REPLY, REPLY[6], "m-ready"), "2 lines 'm-mcuforge-ticks-'"),
        (lambda c: text(*REPLY[:8], "m-mcuforge-output-[0]", "m-ready"), "0 lines .*output"),
        (lambda c: text(*REPLY).replace(b"[2,30", b"[3,45") + text("m-ready"), "ran 3 inferences"),
        (lambda c: text(*REPLY).replace(b"14,16", b"16,14") + text("m-ready"), "contradict"),
        (lambda c: text(*REPLY).replace(b"2,30", b"2,99") + text("m-ready"), "contradict"),
        (lambda c: b"x" * 5000, "a line of more than 4096 bytes"),
        (lambda c: b"x\n" * 5000, "does not end its reply"),
        (lambda c: b"\xff\xfe" * 1000 + b"\r\n" + text("m-ready"), "0 lines"),
    ],
)
def test_what_a_board_must_not_do_is_an_error(answer, message):
    with pytest.raises(BoardError, match=message):
        client(answer, piece=4096).infer(2, 0, 0.2)


def test_a_flood_ends_in_bounded_memory_and_time():
    class Flood(Port):
        in_waiting = 65536

        def read(self, size):
            return b"\n" * size

    with pytest.raises(BoardError, match=r"floods|does not end"):
        Client(Flood(lambda c: b""), "board").command("name", 5)
    with pytest.raises(BoardError, match=r"floods|did not become ready"):
        Client(Flood(lambda c: b""), "board").synchronize(5)


def test_a_reply_of_long_lines_is_too_much_before_there_are_many():
    with pytest.raises(BoardError, match="floods its serial port"):
        client(lambda c: (b"x" * 4000 + b"\n") * 1100, piece=1 << 16).command("name", 20)


def test_synchronizing_discards_everything_said_before():
    before = text("m-lap-us-3", "garbage \xff", "m-ready", "m-ready") + b"half a li"

    def answer(command):
        if not command:
            return before
        if command == "name":
            return text("m-name-dut-[x]", "m-ready")
        return text(f"e-[Unknown command: {command}]", "m-ready")

    board = client(answer)
    board.synchronize(1)
    assert board.command("name") == ["m-name-dut-[x]"]
    words = [c for c in board._port.commands if c.startswith("sync-")]
    assert len(words) == 1 and re.fullmatch("sync-[0-9a-f]{8}", words[0])


def test_a_board_that_loses_bytes_while_it_boots_is_asked_again():
    class Booting(Port):
        writes = 0

        def write(self, data):
            self.writes += 1
            return super().write(data) if self.writes > 1 else len(data)

    port = Booting(lambda c: text(*([f"e-[Unknown command: {c}]"] if c else []), "m-ready"))
    Client(port, "board").synchronize(5)
    assert port.writes == 2 and port._pending == b""


def test_only_the_answer_to_the_last_question_counts(monkeypatch):
    """A board that was busy answers all of them; none may be left for the next command."""
    monkeypatch.setattr(protocol, "_FIRST_PAUSE_S", 0.02)

    class Busy(Port):
        def read(self, size):
            return super().read(size) if len(self.commands) >= 4 else time.sleep(0.01) or b""

    port = Busy(lambda c: text(*([f"e-[Unknown command: {c}]"] if c else []), "m-ready"))
    Client(port, "board").synchronize(5)
    assert port._pending == b""


def test_synchronizing_ends_a_command_that_was_left_unfinished():
    port = Port(lambda c: text(f"e-[Unknown command: {c}]", "m-ready"))
    port.write(b"db 00010")
    Client(port, "board").synchronize(1)
    assert port.commands[0] == "db 00010"
    assert port._pending == b""


def test_loading_is_split_and_must_be_confirmed():
    def answer(command):
        done = command.startswith("b64") and len(command) < 3000
        return text(*(["m-load-done"] if done else []), "m-ready")

    board = client(answer)
    board.load(bytes(4000))
    assert [c.split()[0] for c in board._port.commands] == ["db", "b64", "b64"]
    assert board._port.commands[0] == "db load 4000 raw"
    with pytest.raises(BoardError, match="did not take 8 bytes"):
        client(lambda c: text("m-ready")).load(bytes(8))


def test_loading_an_input_takes_two_commands_and_a_third_more_bytes_than_it_has():
    """What loading costs: under QEMU a character takes some twenty microseconds of a processor."""

    class Counting(Port):
        sent = received = 0

        def write(self, data):
            self.sent += len(data)
            return super().write(data)

        def read(self, size):
            data = super().read(size)
            self.received += len(data)
            return data

    port = Counting(lambda c: text(*(["m-load-done"] if c.startswith("b64") else []), "m-ready"))
    Client(port, "board").load(bytes(490))
    assert len(port.commands) == 2
    assert port.sent < 490 * 4 / 3 + 30
    assert port.received < 40


def test_a_lost_port_is_a_board_error():
    class Gone(Port):
        def read(self, size):
            raise OSError("device reports readiness to read but returned no data")

    with pytest.raises(BoardError, match="lost the serial port of board"):
        Client(Gone(lambda c: b""), "board").command("name")


@given(st.lists(st.binary(max_size=300), max_size=40))
def test_lines_are_those_of_the_whole_stream_however_it_is_cut(pieces):
    whole = b"".join(pieces)
    expected = [line.decode("ascii", "replace").strip("\r\0") for line in whole.split(b"\n")[:-1]]
    lines = Lines(max_line=20_000)
    assert [line for piece in pieces for line in lines.feed(piece)] == expected


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=200),
            st.sampled_from([line.encode() + b"\r\n" for line in [*REPLY, "m-ready", "e-[x]"]]),
        ),
        max_size=30,
    )
)
def test_any_bytes_give_a_result_or_a_board_error(pieces):
    board = client(lambda c: b"".join(pieces), piece=64)
    try:
        result = board.infer(2, 0, 0.02)
    except BoardError as error:
        assert "\n" not in str(error)
    else:
        assert result.count == 2 and len(result.output) == 3


class Babble:
    """Sends pieces over and over, and hears nothing."""

    def __init__(self, pieces):
        self._pieces = itertools.cycle(pieces)
        self.sent = 0

    @property
    def in_waiting(self):
        return 1 << 30

    def write(self, data):
        return len(data)

    def read(self, size):
        piece = next(self._pieces)[:size]
        self.sent += len(piece)
        return piece


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.one_of(
            st.binary(min_size=1, max_size=3000),
            st.sampled_from([b"m-ready\r\n", b"m-name-dut-[x]\r\n", b"m-model-[", b"e-[sync-"]),
            st.builds(lambda b: b * 20_000, st.binary(min_size=1, max_size=3)),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_a_board_that_babbles_for_ever_is_given_up_in_bounded_memory_and_time(pieces):
    port = Babble(pieces)
    board = Client(port, "board")
    tracemalloc.start()
    started = time.monotonic()
    try:
        for talk in (lambda: board.synchronize(0.1), board.profile, lambda: board.load(bytes(9))):
            with contextlib.suppress(BoardError):
                talk()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert port.sent > 0 and peak < 32 << 20
    assert time.monotonic() - started < 30  # 5 s a reply at most


@given(st.lists(st.text(max_size=80), max_size=20))
def test_any_lines_give_a_result_or_a_board_error(lines):
    try:
        parse_inference(lines + REPLY)
    except BoardError as error:
        assert str(error)


def test_the_operators_of_a_profile_are_in_order():
    lines = [f"m-mcuforge-operator-[{i},{100 * i}]" for i in range(3)]
    assert parse_inference(REPLY + lines).operators == (0, 100, 200)
    assert parse_inference(REPLY).operators == ()
    for wrong in (lines[1:], [*lines, lines[0]], lines[::-1]):
        with pytest.raises(BoardError, match="not in order"):
            parse_inference(REPLY + wrong)


def test_profile_reads_what_the_firmware_says():
    def answer(command):
        if command == "name":
            return text("m-name-dut-[mcuforge]", "m-ready")
        return text(
            "m-profile-[ULPMark for tinyML Firmware V0.0.1]",
            "m-model-[kws01]",
            "m-mcuforge-build-[0123456789abcdef]",
            "m-mcuforge-tick-hz-[25000000]",
            "m-mcuforge-input-bytes-[490]",
            "m-mcuforge-output-bytes-[12]",
            "m-ready",
        )

    assert client(answer).profile() == protocol.Profile(
        "mcuforge", "kws01", "0123456789abcdef", 25000000, 490, 12
    )
