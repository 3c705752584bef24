"""A QEMU that stands for a physical board: flashed through gdb, spoken to through its port."""

import multiprocessing
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
import yaml

from mcuforge import boards
from mcuforge.boards import Inventory, flashing, locks, qemu
from mcuforge.errors import BoardError
from mcuforge.runner import device as devices

pytestmark = pytest.mark.skipif(
    shutil.which("gdb-multiarch") is None, reason="gdb-multiarch is not installed"
)
BOARDS = Path(__file__).parents[2] / "config" / "boards.yaml"
INVENTORY = boards.load(BOARDS)
FOREVER = 'for (;;) __asm volatile("");'


class StandIn:
    """The machine, and the bench it is on."""

    def __init__(self, directory, name, board="mps2_an500"):
        directory.mkdir(exist_ok=True)
        self.machine = qemu.Qemu(
            INVENTORY.board(board).machine, None, gdb=directory / f"{name}.sock"
        )
        self.machine.start()
        entry = {
            "connected": True,
            "id": name,
            "platform": board,
            "runner": "gdb",
            "runner_params": [str(directory / f"{name}.sock")],
            "serial_pty": self.machine.port,
        }
        path = directory / f"{name}.yaml"
        path.write_text(yaml.safe_dump([entry]))
        self.bench = boards.load(BOARDS, path)
        self.instance = self.bench.instances(board)[0]


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
    accuracy = firmware.measure(inventory=one.bench, mode="accuracy", dataset=data)
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
        patch.setattr("mcuforge.runner._INFER_TIMEOUT_S", 0.5)
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
