"""Boards, emulators and runners fail: a clear error, nothing left behind, the next run works."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest
import serial

from mcuforge.boards import qemu
from mcuforge.errors import BoardError, ToolError
from mcuforge.results.columns import Size
from mcuforge.runner import device as devices
from mcuforge.runner.device import Device, State

BOARDS = Path(__file__).parents[2] / "config" / "boards.yaml"
FOREVER = 'for (;;) __asm volatile("");'


def qemus(process=None):
    found = []
    for child in (process or psutil.Process()).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # compilers come and go
            if "qemu" in child.name():
                found.append(child)
    return found


def within(seconds, condition):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_states(built):
    device = built().device()
    assert device.state is State.UNKNOWN
    with device:
        assert device.state is State.READY
        assert device.profile.name == "mcuforge" and device.profile.input_bytes == 16
    assert device.state is State.UNKNOWN


def test_a_stale_image_is_never_measured(built, tmp_path):
    firmware = built()
    size = {**vars(Size.read(firmware.size)), "build_id": "0" * 16}
    Size(**size).write(tmp_path / "size.json")
    with pytest.raises(BoardError, match=r"runs build [0-9a-f]{16} instead of 0{16}"):
        firmware.measure(size=tmp_path / "size.json")


def test_qemu_dies_mid_run(built):
    firmware = built(body=FOREVER)

    def kill():
        assert within(30, qemus)
        time.sleep(0.5)
        qemus()[0].kill()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(BoardError, match=r"(lost|write to) .*port|lost the serial port"):
            firmware.measure()
    finally:
        killer.join()
    assert built().measure().exact


def test_a_missing_qemu_is_named_with_its_package(built, monkeypatch):
    firmware = built()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ToolError, match="Debian package qemu-system-arm"):
        firmware.measure()


def test_an_image_that_is_none_is_an_error(built, tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "_BOOT_TIMEOUT_S", 0.5)
    (tmp_path / "firmware.elf").write_bytes(b"")
    with pytest.raises(BoardError):
        built().measure(elf=tmp_path / "firmware.elf")


@pytest.mark.parametrize(
    "before",
    [
        b"db load 16%db 0001",  # in the middle of a command
        b"infer 2000 0%",  # still working
        b"help%help%help%name%",  # answers nobody read
        bytes(range(256)) * 8,  # noise
        b"x" * 50_000,  # a flood
        b"b64 AAA",
    ],
)
def test_a_board_that_is_doing_something_else(built, before):
    firmware = built()
    with (
        qemu.Qemu(firmware.board, firmware.elf) as machine,
        serial.Serial(machine.port, 115200, timeout=5) as port,
    ):
        machine.start()
        port.read_until(b"m-ready")
        port.write(before)
        client = devices.Client(port, "board")
        client.synchronize(30)
        assert client.profile().model == "tiny"
        client.load(bytes(16))
        assert client.infer(1, 0, 10).count == 1


def test_a_board_that_resets_during_a_run(built):
    firmware = built(body="if (inputs->input_1[0]) " + FOREVER)
    with (
        qemu.Qemu(firmware.board, firmware.elf) as machine,
        serial.Serial(machine.port, 115200, timeout=0.1) as port,
    ):
        machine.start()
        client = devices.Client(port, "board")
        client.synchronize(10)
        client.load(bytes([1] * 16))
        threading.Timer(0.3, machine.reset).start()
        with pytest.raises(BoardError, match="restarted"):
            client.infer(1, 0, 30)
        client.synchronize(10)
        client.load(bytes(16))
        assert client.infer(1, 0, 10).count == 1


def test_nobody_listening_at_boot_loses_nothing(built):
    """The port is open before the machine runs: the banner is complete."""
    firmware = built()
    for _ in range(5):
        with (
            qemu.Qemu(firmware.board, firmware.elf) as machine,
            serial.Serial(machine.port, 115200, timeout=10) as port,
        ):
            machine.start()
            assert port.read_until(b"m-ready\r\n").startswith(b"m-timestamp-mode-performance\r\n")


RUNNER = """
    import sys
    from pathlib import Path
    from mcuforge import boards
    from mcuforge.boards import qemu
    board = boards.load(Path(sys.argv[1])).board("mps2_an500")
    machine = qemu.Qemu(board, Path(sys.argv[2]))
    print(machine.pid, flush=True)
    machine.start()
    sys.stdin.read()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_runner_leaves_no_qemu(built, how):
    firmware = built()
    command = [sys.executable, "-c", textwrap.dedent(RUNNER), str(BOARDS)]
    environment = {**os.environ, "PYTHONPATH": str(Path(qemu.__file__).parents[2])}
    with subprocess.Popen(
        [*command, str(firmware.elf)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    ) as process:
        pid = int(process.stdout.readline())
        assert psutil.pid_exists(pid)
        process.send_signal(how)
        process.wait(30)
    assert within(10, lambda: not psutil.pid_exists(pid))


def test_many_emulators_run_side_by_side(built):
    firmware = built()
    with firmware.device() as one, firmware.device() as other:
        one.client.load(bytes([1] * 16))
        other.client.load(bytes([2] * 16))
        assert one.client.infer(1, 0, 10).output != other.client.infer(1, 0, 10).output
        assert len(qemus()) == 2


def test_an_error_while_it_is_used_ends_the_emulator(built):
    device: Device
    with pytest.raises(KeyError), built().device() as device:
        raise KeyError
    assert device.state is State.UNKNOWN and not qemus()
