"""A QEMU that stands for a physical board: flashed through gdb, spoken to through its port."""

import concurrent.futures
import dataclasses
import errno
import multiprocessing
import os
import random
import resource
import shutil
import signal
import statistics
import threading
import time

import pytest
import serial

from helpers.stand_in import StandIn, after
from mcuforge.boards import Inventory, flashing, locks
from mcuforge.errors import BoardError
from mcuforge.runner import device as devices

pytestmark = pytest.mark.skipif(
    shutil.which("gdb-multiarch") is None, reason="gdb-multiarch is not installed"
)
FOREVER = 'for (;;) __asm volatile("");'


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "directory", lambda: tmp_path)
    made = []

    def make(name="one", board="mps2_an500"):
        made.append(StandIn(tmp_path / "stand-in", name, board))
        return made[-1]

    yield make
    for one in made:
        one.machine.close()


@pytest.mark.parametrize("board", ["mps2_an386", "mps3_an547"])
def test_every_mode_and_a_change_of_firmware(built, stand_in, board, tmp_path):
    one = stand_in(board=board)
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.bin").write_bytes(bytes(16))
    (data / "y_labels.csv").write_text("a.bin,4,0\n")
    for toolchain in ("gcc", "clang"):
        firmware = built(board, toolchain)
        record = firmware.measure(inventory=one.bench)
        assert (record.status, record.exact, record.board_instance) == ("ok", True, "one")
        assert record.instructions == firmware.measure().instructions
    assert firmware.measure(inventory=one.bench, mode="setup").exact
    accuracy = firmware.measure(inventory=one.bench, mode="accuracy", data_set=data)
    assert accuracy.accuracy == 1.0
    assert locks.holder(one.instance) == ""


def test_flashing_that_had_no_effect_is_noticed(built, stand_in, monkeypatch):
    one = stand_in()
    built().measure(inventory=one.bench)
    monkeypatch.setattr(flashing, "flash", lambda *_: None)
    with pytest.raises(BoardError, match=r"instead of .*flashing did not take effect"):
        built(toolchain="clang").measure(inventory=one.bench)


def test_a_probe_that_is_gone_is_an_error_and_the_lock_is_free(built, stand_in, tmp_path):
    one = stand_in()
    (tmp_path / "stand-in" / "one.sock").unlink()
    with pytest.raises(BoardError, match=r"mps2_an500 \(one\): gdb-multiarch failed"):
        built().measure(inventory=one.bench)
    assert locks.holder(one.instance) == ""


def test_a_board_that_vanishes_mid_inference_can_come_back(built, stand_in):
    one = stand_in()
    threading.Timer(3, one.machine.close).start()
    with pytest.raises(BoardError, match=r"lost the serial port|cannot write|gdb-multiarch failed"):
        built(body=FOREVER).measure(inventory=one.bench)
    assert locks.holder(one.instance) == ""
    with pytest.raises(BoardError):
        built().measure(inventory=one.bench)
    assert built().measure(inventory=stand_in("two").bench).exact


def test_a_board_that_hangs_is_flashed_and_used_again(built, stand_in, monkeypatch):
    one = stand_in()
    with monkeypatch.context() as patch, pytest.raises(BoardError, match="did not complete"):
        patch.setattr("mcuforge.runner.session._INFER_TIMEOUT_S", 0.5)
        built(body=FOREVER).measure(inventory=one.bench)
    assert built().measure(inventory=one.bench).exact


def _measure(firmware, bench, directory, results):
    locks.directory = lambda: directory
    results.put(firmware.measure(inventory=bench).status)


def test_two_runners_share_one_board(built, stand_in, tmp_path):
    one, firmware = stand_in(), built()
    results = multiprocessing.Queue()
    runners = [
        multiprocessing.Process(target=_measure, args=(firmware, one.bench, tmp_path, results))
        for _ in range(2)
    ]
    for runner in runners:
        runner.start()
    assert [results.get(timeout=60) for _ in runners] == ["ok", "ok"]
    for runner in runners:
        runner.join()


def test_a_pool_is_used_in_parallel_and_the_record_names_the_board(built, stand_in):
    one, two = stand_in("one"), stand_in("two")
    pool = Inventory(one.bench.types, one.bench.bench + two.bench.bench)
    with locks.acquire([one.instance], 1):
        assert built().measure(inventory=pool).board_instance == "two"
    assert built().measure(inventory=pool).board_instance == "one"


def test_a_killed_runner_leaves_the_board_to_the_next(built, stand_in, tmp_path):
    one = stand_in()
    process = multiprocessing.Process(
        target=_measure,
        args=(built(body=FOREVER), one.bench, tmp_path, multiprocessing.Queue()),
    )
    process.start()
    deadline = time.monotonic() + 30
    while not locks.holder(one.instance) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert locks.holder(one.instance) == ""
    assert built().measure(inventory=one.bench).exact


def test_a_port_that_never_answers(built, stand_in, monkeypatch):
    one = stand_in()
    monkeypatch.setattr(flashing, "flash", lambda *_: None)  # nothing runs
    monkeypatch.setattr(devices, "_BOOT_TIMEOUT_S", 0.5)
    with pytest.raises(BoardError, match=r"mps2_an500 \(one\) did not become ready"):
        built().measure(inventory=one.bench)


def silence(_: bytes) -> bytes:
    return b""


def noise(data: bytes) -> bytes:
    return random.Random(1).randbytes(3 * len(data))


def halves(data: bytes) -> bytes:
    """Each line without its second half."""
    lines = data.split(b"\r\n")
    return b"\r\n".join(line[: len(line) // 2] for line in lines)


def flood(_: bytes) -> bytes:
    return b"m-lap-us-1\r\n" * 600_000


def other_build(data: bytes) -> bytes:
    return b"m-mcuforge-build-[" + b"0" * 16 + data[34:]


MID_RUN = b"m-infer-start"
# What the cable or the board does, and what is said about it.
FAULTS = {
    "vanishes": (lambda cable, _: after(MID_RUN, lambda d: cable.cut() or b""), "lost the serial"),
    "never answers": (lambda *_: silence, r"\(one\) did not become ready in 1 s"),
    "falls silent": (lambda *_: after(MID_RUN, silence), "did not complete its reply to 'infer 1"),
    "garbage": (lambda *_: after(MID_RUN, noise), "did not complete|a line of more than"),
    "cut lines": (lambda *_: after(MID_RUN, halves), "did not complete|has 0 lines"),
    "flood": (lambda *_: after(MID_RUN, flood), "does not end its reply|floods"),
    "other build": (lambda *_: after(b"m-mcuforge-build-[", other_build), "runs build 0{16} inst"),
    "reset": (lambda _, board: after(MID_RUN, lambda d: board.machine.reset() or d), "restarted"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_and_the_next_run_works(built, stand_in, fault, monkeypatch):
    """Nothing has to be cleaned by hand, and the board beside it does not notice."""
    one, two = stand_in("one"), stand_in("two")
    tamper, message = FAULTS[fault]
    cable = one.wire()
    cable.tamper = tamper(cable, one)
    spin = "for (volatile int i = 0; i < 3000000; i++) {}" if fault == "reset" else ""
    other = built(toolchain="clang")
    with monkeypatch.context() as patch, concurrent.futures.ThreadPoolExecutor(1) as pool:
        patch.setattr(devices, "_BOOT_TIMEOUT_S", 1.0 if fault == "never answers" else 30.0)
        patch.setattr("mcuforge.runner.session._INFER_TIMEOUT_S", 4.0)
        beside = pool.submit(other.measure, inventory=two.bench)
        with pytest.raises(BoardError, match=message) as error:
            built(body=spin).measure(inventory=one.bench)
        assert "\n" not in str(error.value)
        patch.undo()
        assert beside.result(timeout=60).exact
    assert locks.holder(one.instance) == ""
    cable.cut()
    one.wire()
    assert built().measure(inventory=one.bench).exact


def fake_gdb(directory, monkeypatch, script):
    tool = directory / "gdb-multiarch"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("sleep 600", r"\(one\): gdb-multiarch did not finish in 1 s"),
        ("echo 'no probe'; exit 3", r"\(one\): gdb-multiarch failed: no probe"),
    ],
)
def test_a_flash_tool_that_does_not_flash(built, stand_in, tmp_path, monkeypatch, script, message):
    one = stand_in()
    with monkeypatch.context() as patch:
        fake_gdb(tmp_path, patch, script)
        impatient = dataclasses.replace(one.instance, flash_timeout_s=1)
        with pytest.raises(BoardError, match=message):
            built().measure(inventory=Inventory(one.bench.types, (impatient,)))
    assert locks.holder(one.instance) == ""
    assert built().measure(inventory=one.bench).exact


def _measure_on_a_full_disk(firmware, bench, directory, results):
    locks.directory = lambda: directory
    record = firmware.measure(inventory=bench)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    try:
        record.write(directory / "results" / "record.json")
    except OSError as error:
        results.put((error.errno, locks.holder(bench.bench[0])))


def test_a_full_disk_costs_the_record_and_nothing_else(built, stand_in, tmp_path):
    """The record of before is still there, whole."""
    one, results = stand_in(), multiprocessing.Queue()
    path = tmp_path / "results" / "record.json"
    before = built().measure(inventory=one.bench)
    before.write(path)
    process = multiprocessing.Process(
        target=_measure_on_a_full_disk, args=(built(), one.bench, tmp_path, results)
    )
    process.start()
    assert results.get(timeout=60) == (errno.EFBIG, "")
    process.join()
    assert [p.name for p in path.parent.iterdir()] == ["record.json"]
    assert type(before).read(path) == before
    built().measure(inventory=one.bench).write(path)


def test_a_board_that_prints_garbage_first(built, stand_in):
    one = stand_in()
    cable = one.wire()
    first = iter([noise(bytes(700)) + b"m-ready\r\nm-ready\r\ne-[old]\r\nm-mcuforge-ti"])
    cable.tamper = lambda data: next(first, b"") + data
    assert built().measure(inventory=one.bench).exact


@pytest.mark.parametrize("before", [b"", b"db load 16 raw%b64 AAAA", b"infer 300 0%", b"help%" * 9])
def test_a_board_that_already_runs_and_is_not_reset(built, stand_in, monkeypatch, before):
    """Some probes flash without a reset: the board goes on with whatever it was doing."""
    one = stand_in()
    assert built().measure(inventory=one.bench).exact
    with serial.Serial(one.instance.serial, 115200, timeout=1) as port:
        port.write(before)
    monkeypatch.setattr(flashing, "flash", lambda *_: None)
    assert built().measure(inventory=one.bench).exact


def test_on_hardware_every_input_runs_ten_times_and_ten_seconds(built, stand_in, monkeypatch):
    """MLPerf Tiny's minimum; here of a hundredth of a second by the board's own clock."""
    one, firmware = stand_in(), built()
    flash = flashing.flash
    monkeypatch.setattr(flashing, "flash", lambda _, *rest: flash(firmware.board, *rest))
    hardware = dataclasses.replace(firmware.board, machine="")
    bench = Inventory({hardware.name: hardware}, one.bench.bench)
    for seconds in (0.01, 1e-9):
        monkeypatch.setattr("mcuforge.runner.session._HARDWARE_SECONDS", seconds)
        record = firmware.measure(inventory=bench)
        assert (record.timebase, record.instructions, record.exact) == ("hardware", None, True)
        assert len(record.laps) == 5 and record.emulator_version is None
        for lap in record.laps:
            assert lap["iterations"] >= 10
            assert lap["iterations"] * lap["latency_us"] >= 0.9e6 * seconds
    assert {lap["iterations"] for lap in record.laps} == {10}
    assert record.latency_us == statistics.median(lap["latency_us"] for lap in record.laps)
    assert record.inferences_per_second == pytest.approx(1e6 / record.latency_us)
