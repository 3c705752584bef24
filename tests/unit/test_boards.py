"""Board types, the hardware map, and who may use a board."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import yaml

from mcuforge import boards
from mcuforge.boards import Instance, locks
from mcuforge.errors import BoardError, ConfigError

CONFIG = Path(__file__).parents[2] / "config"


def write(tmp_path, name, document):
    path = tmp_path / name
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture
def types():
    return yaml.safe_load((CONFIG / "boards.yaml").read_text())


def test_the_registry_has_the_boards_with_their_facts():
    inventory = boards.load(CONFIG / "boards.yaml", CONFIG / "hardware-map.yaml")
    facts = {n: (b.core, b.platform, b.emulated) for n, b in inventory.types.items()}
    assert (
        facts.items()
        >= {
            "mps2_an386": ("cortex-m4", "baremetal", True),
            "mps2_an500": ("cortex-m7", "baremetal", True),
            "mps3_an547": ("cortex-m55", "baremetal", True),
            "qemu_virt_rv32": ("rv32imc", "baremetal", True),
            "nucleo_h743zi": ("cortex-m7", "zephyr", False),
            "ek_ra8m1": ("cortex-m85", "zephyr", False),
        }.items()
    )
    assert inventory.board("nucleo_h743zi").usb == ("0483:374e",)
    assert inventory.board("ek_ra8m1").usb == ("1366:1024",)
    assert inventory.board("mps3_an547").memory("weights").size == 2 << 20
    assert inventory.board("mps3_an547").flash_bytes == (512 << 10) + (2 << 20)


def test_target_follows_from_core_and_toolchain():
    board = boards.load(CONFIG / "boards.yaml").board("mps3_an547")
    assert board.target("gcc") == board.target("clang") == "cortex-m55-c"
    assert board.target("tvm-llvm") == "cortex-m55-llvm"
    with pytest.raises(ConfigError, match=r"toolchain 'icc' .*valid toolchains: gcc, clang"):
        board.target("icc")


def test_an_unknown_board_is_answered_with_the_valid_names():
    with pytest.raises(ConfigError, match=r"unknown board 'nucelo'.*mps2_an386, .*mps2_an500"):
        boards.load(CONFIG / "boards.yaml").board("nucelo")


def change(path, value):
    def apply(types):
        entry = types["mps2_an500"]
        for key in path[:-1]:
            entry = entry[key]
        if value is None:
            del entry[path[-1]]
        else:
            entry[path[-1]] = value

    return apply


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        (change(["core"], "m7"), r"mps2_an500\.core: 'm7' .*GCC's -mcpu"),
        (change(["clock_hz"], None), r"mps2_an500: 'clock_hz' is a required property"),
        (change(["clock"], 1), r"'clock' was unexpected"),
        (change(["baud"], 10), r"baud: 10 is less than the minimum of 300"),
        (change(["vendor"], 'x"'), r"vendor: .*letters, digits"),
        (change(["platform"], "mbed"), r"platform: 'mbed' is not one of"),
        (change(["baremetal"], None), r"'baremetal' is a required property"),
        (change(["baremetal", "port"], "uno"), r"port: 'uno' is not one of"),
        (change(["emulator"], None), r"'runners' is a required property"),
        (change(["toolchains"], ["icc"]), r"mps2_an500\.toolchains: unknown toolchain 'icc'"),
        (change(["runners"], ["dfu"]), r"mps2_an500\.runners: unknown runner 'dfu'"),
        (change(["flash_args"], {"dfu": "x"}), r"flash_args: unknown runner 'dfu'"),
        (change(["memories", 0, "size"], "4G"), r"memories\[0\]\.size: .*suffix K or M"),
        (change(["memories", 0, "holds"], ["vectors", "code"]), r"'weights' is held by no memory"),
        (
            change(["memories", 1, "holds"], ["code", "data", "workspace", "stack"]),
            "'code' is held by SSRAM1 and SSRAM23",
        ),
        (change(["memories", 1, "origin"], 0x1000), "SSRAM1 and SSRAM23 overlap"),
        (change(["memories", 1, "name"], "SSRAM1"), "two memories have the same name"),
    ],
)
def test_a_wrong_entry_is_named_with_its_place(tmp_path, types, breakage, message):
    breakage(types)
    with pytest.raises(ConfigError, match=message) as error:
        boards.load(write(tmp_path, "boards.yaml", types))
    assert "\n" not in str(error.value)


def entry(**values):
    return {"connected": True, "id": "0123", "platform": "nucleo_h743zi", **values}


def test_hardware_map_in_twisters_format(tmp_path):
    path = write(
        tmp_path,
        "map.yaml",
        [
            entry(serial="/dev/ttyACM0", runner="pyocd", product="STLink", baud=9600, notes="left"),
            entry(id=7, serial="/dev/ttyACM1", probe_id="abc", fixtures=["gpio"]),
            entry(id="gone", connected=False),
        ],
    )
    found = boards.load(CONFIG / "boards.yaml", path).instances("nucleo_h743zi")
    assert found == (
        Instance(
            "0123",
            "nucleo_h743zi",
            "/dev/ttyACM0",
            9600,
            "pyocd",
            probe_id="0123",
            product="STLink",
        ),
        Instance(
            "7",
            "nucleo_h743zi",
            "/dev/ttyACM1",
            115200,
            "openocd",
            probe_id="abc",
            fixtures=("gpio",),
        ),
    )


def test_a_board_has_the_baud_rate_of_its_type_unless_it_says_otherwise(tmp_path, types):
    types["nucleo_h743zi"] |= {"baud": 9600, "vendor": "ST"}
    registry = write(tmp_path, "boards.yaml", types)
    entries = [entry(serial="/dev/x"), entry(id="b", serial="/dev/y", baud=921600)]
    inventory = boards.load(registry, write(tmp_path, "map.yaml", entries))
    assert [i.baud for i in inventory.instances("nucleo_h743zi")] == [9600, 921600]
    assert inventory.board("nucleo_h743zi").vendor == "ST"
    assert inventory.board("ek_ra8m1").vendor == "mcuforge"


def test_a_map_of_twisters_own_is_understood(tmp_path):
    """What its schema allows, though not all of it means something here."""
    theirs = {
        "available": True,
        "connected": True,
        "id": "0667",
        "notes": "left",
        "platform": "nucleo_h743zi/stm32h743xx",
        "probe_id": "0667",
        "product": "STLINK-V3",
        "runner": "openocd",
        "runner_params": ["--verbose"],
        "serial": "/dev/ttyACM0",
        "baud": 115200,
        "pre_script": "power-on.sh",
        "fixtures": ["gpio_loopback"],
        "flash_timeout": 60,
        "flash_with_test": True,
        "flash_before": False,
        "script_param": {"pre_script_timeout": 5},
    }
    inventory = boards.load(CONFIG / "boards.yaml", write(tmp_path, "map.yaml", [theirs]))
    (instance,) = inventory.instances("nucleo_h743zi")
    assert (instance.flash_timeout_s, instance.runner_params) == (60, ("--verbose",))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([entry()], "without a serial port"),
        ([entry(platform="nucleo", serial="/dev/x")], "unknown platform 'nucleo'"),
        ([entry(serial="/dev/x")] * 2, "'0123' is listed twice"),
        ([entry(serial="/dev/x", runner="dfu")], "unknown runner 'dfu'.*valid runners: openocd"),
        ([entry(serial="/dev/x", port="y")], "'port' was unexpected"),
        ({"0123": {}}, "is not of type 'array'"),
    ],
)
def test_a_wrong_map_is_refused(tmp_path, entries, message):
    with pytest.raises(ConfigError, match=message):
        boards.load(CONFIG / "boards.yaml", write(tmp_path, "map.yaml", entries))


def test_an_emulated_type_needs_no_entry_but_may_have_one(tmp_path):
    (implicit,) = boards.load(CONFIG / "boards.yaml").instances("mps2_an500")
    assert implicit.started_by_us
    path = write(tmp_path, "map.yaml", [entry(platform="mps2_an500", serial="/dev/pts/9")])
    (listed,) = boards.load(CONFIG / "boards.yaml", path).instances("mps2_an500")
    assert listed.serial == "/dev/pts/9" and not listed.started_by_us


@pytest.fixture
def pool(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "directory", lambda: tmp_path)
    return [Instance(id=name, board="nucleo_h743zi", serial="/dev/x") for name in ("a/1", "b 2")]


def test_a_pool_gives_each_board_once(pool):
    with locks.acquire(pool, 1) as first, locks.acquire(pool, 1) as second:
        assert [first.id, second.id] == ["a/1", "b 2"]
        told = []
        with (
            pytest.raises(BoardError, match=r"no board became free in 0 s: .*a/1 is held by"),
            locks.acquire(pool, 0.0, told.append),
        ):
            pass
        assert f"process {os.getpid()}" in locks.holder(first)
    assert locks.holder(pool[0]) == ""
    with locks.acquire(pool, 0.0) as again:
        assert again.id == "a/1"


def _hold(pool, directory, ready):
    locks.directory = lambda: directory
    with locks.acquire(pool, 1):
        ready.set()
        time.sleep(60)


def test_a_killed_holder_leaves_no_lock(pool, tmp_path):
    ready = multiprocessing.Event()
    process = multiprocessing.Process(target=_hold, args=(pool[:1], tmp_path, ready))
    process.start()
    try:
        assert ready.wait(10)
        assert f"process {process.pid}" in locks.holder(pool[0])
        waiting = []
        with pytest.raises(BoardError), locks.acquire(pool[:1], 0.3, waiting.append):
            pass
        assert len(waiting) == 1 and str(process.pid) in waiting[0]
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    with locks.acquire(pool[:1], 1) as instance:
        assert instance.id == "a/1"


def test_an_error_inside_releases_the_lock(pool):
    with pytest.raises(RuntimeError), locks.acquire(pool[:1], 1):
        raise RuntimeError
    assert locks.holder(pool[0]) == ""


def test_emulators_are_not_locked(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "directory", lambda: tmp_path / "absent")
    mine = [Instance(id="qemu", board="mps2_an500")]
    with locks.acquire(mine, 0.0) as one, locks.acquire(mine, 0.0) as other:
        assert one is other


def test_a_lock_is_no_way_to_other_files(pool, tmp_path):
    (tmp_path / "precious").write_text("content")
    (tmp_path / "mcuforge-a_1.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(BoardError, match=r"cannot open the lock .*mcuforge-a_1\.lock"):
        locks.acquire(pool[:1], 1).__enter__()
    assert (tmp_path / "precious").read_text() == "content"


def test_all_users_find_the_same_locks(monkeypatch):
    here = locks.directory()
    monkeypatch.setenv("TMPDIR", "/somewhere/else")
    assert locks.directory() == here and here.is_absolute()
