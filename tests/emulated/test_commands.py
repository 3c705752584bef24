"""The device side of the MLPerf Tiny protocol, command by command, as EEMBC's firmware answers."""

import numpy as np
import pytest
import serial

from helpers import fake_mlf
from mcuforge.boards import qemu
from mcuforge.errors import BoardError
from mcuforge.results.columns import Size
from mcuforge.runner.protocol import Client


class Raw:
    """A serial connection without a client that interprets."""

    def __init__(self, port):
        self.port = port

    def ask(self, text):
        self.port.write(text.encode("latin-1"))
        return self.until_ready()

    def until_ready(self):
        data = self.port.read_until(b"m-ready\r\n")
        assert data.endswith(b"m-ready\r\n"), data
        return data.decode("latin-1").split("\r\n")[:-2]


@pytest.fixture(scope="module", params=["mps2_an500", "mps3_an547", "qemu_virt_rv32"])
def board(built, request):
    firmware = built(request.param, "clang", benchmark="kws01")
    with (
        qemu.Qemu(firmware.board, firmware.elf) as machine,
        serial.Serial(machine.port, 115200, timeout=20) as port,
    ):
        machine.start()
        raw = Raw(port)
        assert raw.until_ready() == [
            "m-timestamp-mode-performance",
            "m-lap-us-0",
            "m-init-done",
        ]
        raw.build_id = Size.read(firmware.size).build_id
        yield raw


def test_name_profile_and_help(board):
    assert board.ask("name%") == ["m-name-dut-[mcuforge]"]
    assert board.ask("profile%")[:3] == [
        "m-profile-[ULPMark for tinyML Firmware V0.0.1]",
        "m-model-[kws01]",
        f"m-mcuforge-build-[{board.build_id}]",
    ]
    help_text = "\n".join(board.ask("help%"))
    for command in ("help", "name", "timestamp", "profile", "db", "infer", "results"):
        assert command in help_text


def test_timestamps_only_grow(board):
    times = [int(board.ask("timestamp%")[0].removeprefix("m-lap-us-")) for _ in range(3)]
    assert times == sorted(times)


def test_loading_and_printing(board):
    assert board.ask("db load 16%") == ["m-[Expecting 16 bytes]"]
    assert board.ask("db 000102030405060708%") == []
    assert board.ask("db 090A0b0c0D0e0fffff%") == ["m-load-done"]  # the rest is disregarded
    assert board.ask("db print%") == [
        "m-buffer-00-01-02-03-04-05-06-07",
        "m-buffer-08-09-0a-0b-0c-0d-0e-0f",
    ]
    assert board.ask("db print 3 6%") == ["m-buffer-06-07-08"]
    assert board.ask("db print 99 15%") == ["m-buffer-0f"]
    assert board.ask("db print 1 16%") == board.ask("db print 1 99%")


def test_infer_answers_in_eembcs_order(board):
    inputs = np.arange(16, dtype=np.int8)
    board.ask("db load 16%")
    board.ask(f"db {inputs.tobytes().hex()}%")
    lines = board.ask("infer 3 2%")
    kinds = [line.split("[")[0].rstrip("-0123456789") for line in lines]
    assert kinds == [
        "m-warmup-start",
        "m-warmup-done",
        "m-infer-start",
        "m-lap-us",
        "m-lap-us",
        "m-infer-done",
        "m-mcuforge-ticks",
        "m-mcuforge-stack",
        "m-mcuforge-output",
        "m-results",
    ]
    assert (lines[0], lines[2]) == ("m-warmup-start-2", "m-infer-start-3")
    assert lines[6].startswith("m-mcuforge-ticks-[3,")
    output = fake_mlf.run(inputs[None])[0]
    assert lines[8] == f"m-mcuforge-output-[{output.tobytes().hex()}]"
    shown = [float(x) for x in lines[9][len("m-results-[") : -1].split(",")]
    assert shown == [(int(q) + 3) * 0.25 for q in output]
    assert board.ask("results%") == lines[8:]
    assert board.ask("infer%")[0] == "m-warmup-start-10"  # EEMBC's default


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("bogus", "e-[Unknown command: bogus]"),
        ("names", "e-[Unknown command: names]"),
        ("db", "e-[Command 'db' requires a subcommand]"),
        ("db load", "e-[Command 'db load' requires the # of bytes]"),
        ("db load 0", "e-[Command 'db load' must be >0 bytes]"),
        ("db load -5", "e-[Command 'db load' must be >0 bytes]"),
        ("db load x", "e-[Command 'db load' must be >0 bytes]"),
        ("db load 17", "e-[Supplied buffer size 17 exceeds maximum of 16]"),
        ("db load 99999999999", "e-[Supplied buffer size 2000000000 exceeds maximum of 16]"),
        ("db 0", "e-[Insufficent number of hex digits]"),
        ("db 0g", "e-[Invalid hex digit '0g']"),
        ("db loud", "e-[Invalid hex digit 'lo']"),
        ("db 00", "e-[Buffer is full: use 'db load' first]"),
        ("b64 AAA*", "e-[Invalid base64 digit '*']"),
        ("infer 0", "e-[Inference iterations must be >0]"),
        ("infer x", "e-[Inference iterations must be >0]"),
        ("infer 1 -1", "e-[Inference warmup must be >=0]"),
        ("x" * 81, "e-[Command too long]"),
        ("x" * 100_000, "e-[Command too long]"),
    ],
)
def test_error_replies(board, command, answer):
    board.ask("db load 1%")
    board.ask("db 2a%")
    assert board.ask(f"{command}%") == [answer]
    assert board.ask("name%") == ["m-name-dut-[mcuforge]"]


def test_an_odd_digit_and_a_wrong_one_load_nothing_more(board):
    board.ask("db load 4%")
    assert board.ask("db 010%") == ["e-[Insufficent number of hex digits]"]
    assert board.ask("db 0102zz03%") == ["e-[Invalid hex digit 'zz']"]
    assert board.ask("infer 1 0%") == ["e-[Input incomplete: 2 of 4 bytes]"]
    assert board.ask("db 0304%") == ["m-load-done"]
    assert board.ask("db print%") == ["m-buffer-01-02-03-04"]


def test_base64_loads_the_same_bytes_in_any_pieces(board):
    data = bytes(range(240, 256))
    board.ask("db load 16 raw%")
    assert board.ask("b64 8PHy%") == []
    assert board.ask("b64 8/T19vf4+fr7/P3+/w==%") == ["m-load-done"]
    assert board.ask("db print%")[0] == "m-buffer-" + "-".join(f"{b:02x}" for b in data[:8])


def test_spaces_line_ends_and_lone_terminators_do_no_harm(board):
    assert board.ask("%") == []
    assert board.ask("\r\n  name \r\n%") == ["m-name-dut-[mcuforge]"]
    assert board.ask("db  load   2%") == ["m-[Expecting 2 bytes]"]
    assert board.ask("db   0a\r\n0b%") == ["m-load-done"]


def test_any_bytes_leave_the_board_usable(board):
    random = np.random.default_rng(5)
    for _ in range(20):
        noise = random.integers(0, 256, 400, dtype=np.uint8).tobytes()
        board.port.write(noise)
        Client(board.port, "board").synchronize(20)
    assert board.ask("name%") == ["m-name-dut-[mcuforge]"]


def test_images_are_taken_as_pixels_and_given_back_as_pixels(built):
    pixels = bytes([0, 1, 127, 128, 255, *range(11)])
    expected = fake_mlf.run((np.frombuffer(pixels, np.uint8) ^ 0x80).view(np.int8)[None])[0]
    with built(benchmark="vww01").device() as device:
        device.client.command("db load 16")
        device.client.command(f"db {pixels.hex()}")
        assert device.client.infer(1, 0, 20).output == expected.tobytes()
        assert device.client.command("db print 5") == ["m-buffer-00-01-7f-80-ff"]
        device.client.load((np.frombuffer(pixels, np.uint8) ^ 0x80).tobytes())
        assert device.client.infer(1, 0, 20).output == expected.tobytes()


def test_anomaly_detection_takes_features_and_gives_a_score(built):
    """The model has 16 inputs and 4 outputs; the score compares the first ones."""
    features = np.linspace(-20, 40, 16, dtype="<f4")
    quantized = np.clip(
        np.trunc(features / 0.25 + np.copysign(0.5, features)) - 3, -128, 127
    ).astype(np.int8)
    with built(benchmark="ad01").device() as device:
        device.client.command("db load 64")
        data = features.tobytes()
        device.client.command(f"db {data[:31].hex()}")
        device.client.command(f"db {data[31:].hex()}")
        assert device.client.infer(1, 0, 20).output == fake_mlf.run(quantized[None]).tobytes()
        (score,) = (x for x in device.client.command("results") if x.startswith("m-results"))
        assert float(score[len("m-results-[") : -1]) > 0
        with pytest.raises(BoardError, match="exceeds maximum of 64"):
            device.client.command("db load 65")
