"""Attached boards become a hardware map, without losing what was written by hand."""

from pathlib import Path
from types import SimpleNamespace

import yaml

from mcuforge import boards, cli
from mcuforge.boards import Instance, detection, locks

BOARDS = Path(__file__).parents[2] / "config" / "boards.yaml"
INVENTORY = boards.load(BOARDS)


def port(device, vid, pid, serial="S1", product="STLINK-V3"):
    return SimpleNamespace(
        device=device, vid=vid, pid=pid, serial_number=serial, product=product, description=""
    )


def test_boards_are_recognised_by_their_probes():
    found = detection.detect(
        INVENTORY,
        [
            port("/dev/ttyACM3", 0x1366, 0x1024, "00108", "J-Link"),
            port("/dev/ttyACM1", 0x0483, 0x374E, "0667", "STLINK-V3"),
            port("/dev/ttyACM2", 0x0483, 0x374E, "0667", "STLINK-V3"),  # its second port
            port("/dev/ttyUSB0", 0x0403, 0x6001, "X"),  # somebody else's
            port("/dev/ttyS0", None, None, None, None),
            port("/dev/ttyACM9", 0x0483, 0x374E, None),
        ],
    )
    assert found == [
        {
            "connected": True,
            "id": "00108",
            "platform": "ek_ra8m1",
            "product": "J-Link",
            "runner": "jlink",
            "serial": "/dev/ttyACM3",
        },
        {
            "connected": True,
            "id": "0667",
            "platform": "nucleo_h743zi",
            "product": "STLINK-V3",
            "runner": "openocd",
            "serial": "/dev/ttyACM1",
        },
    ]


def test_this_machine_can_be_asked():
    assert isinstance(detection.detect(INVENTORY), list)


def test_a_map_is_written_and_can_be_loaded(tmp_path):
    path = tmp_path / "map.yaml"
    detection.update(path, detection.detect(INVENTORY, [port("/dev/ttyACM1", 0x0483, 0x374E)]))
    (instance,) = boards.load(BOARDS, path).instances("nucleo_h743zi")
    assert (instance.id, instance.serial, instance.runner) == ("S1", "/dev/ttyACM1", "openocd")
    assert path.read_text().startswith("# The boards on this bench")


def test_what_was_set_by_hand_is_kept(tmp_path):
    path = tmp_path / "map.yaml"
    kept = {
        "connected": False,
        "id": "S1",
        "platform": "nucleo_h743zi",
        "runner": "pyocd",
        "notes": "the one with the blue cable",
        "serial": None,
    }
    stand_in = {
        "connected": True,
        "id": "stand-in",
        "platform": "mps2_an500",
        "serial_pty": "/dev/pts/7",
        "runner": "gdb",
    }
    gone = {
        "connected": True,
        "id": "S2",
        "platform": "nucleo_h743zi",
        "serial": "/dev/ttyACM5",
    }
    path.write_text(yaml.safe_dump([kept, stand_in, gone]))
    new = port("/dev/ttyACM2", 0x1366, 0x1024, "J1", "J-Link")
    found = detection.detect(INVENTORY, [port("/dev/ttyACM1", 0x0483, 0x374E), new])
    detection.update(path, found)
    first, second, third, fourth = yaml.safe_load(path.read_text())
    assert first == {**kept, "connected": True, "serial": "/dev/ttyACM1", "product": "STLINK-V3"}
    assert second == stand_in
    assert third == {**gone, "connected": False, "serial": None}
    assert fourth["id"] == "J1" and fourth["platform"] == "ek_ra8m1"


def test_a_numeric_serial_number_stays_the_same_board(tmp_path):
    path = tmp_path / "map.yaml"
    path.write_text(
        yaml.safe_dump(
            [{"connected": True, "id": 1087, "platform": "ek_ra8m1", "serial": "/dev/ttyACM0"}]
        )
    )
    found = detection.detect(INVENTORY, [port("/dev/ttyACM4", 0x1366, 0x1024, "1087")])
    assert [e["serial"] for e in detection.update(path, found)] == ["/dev/ttyACM4"]


def test_the_command_lists_types_and_boards_with_their_state(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(locks, "directory", lambda: tmp_path)
    monkeypatch.setattr(
        detection.list_ports, "comports", lambda: [port("/dev/null", 0x483, 0x374E)]
    )
    path = tmp_path / "map.yaml"
    arguments = ["boards", "--boards", str(BOARDS), "--map", str(path)]
    assert cli.main([*arguments, "--detect"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("boards found: 1;")
    assert "    S1 at /dev/null: free" in shown
    assert "    qemu-mps2-an500: free, as many as needed" in shown
    with locks.acquire([Instance("S1", "nucleo_h743zi", "/dev/null")], 1):
        assert cli.main(arguments) == 0
        assert "S1 at /dev/null: in use by " in capsys.readouterr().out


def test_a_map_that_is_named_must_be_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["boards", "--boards", str(BOARDS)]) == 0
    assert cli.main(["boards", "--boards", str(BOARDS), "--map", "typo.yaml"]) == 1
    assert "cannot read typo.yaml: No such file" in capsys.readouterr().err


def test_why_a_board_cannot_be_used():
    gone = Instance("a", "nucleo_h743zi", "/dev/ttyACM77")
    assert detection.availability(gone) == "/dev/ttyACM77 is not there"
    away = Instance("a", "nucleo_h743zi", "", connected=False)
    assert detection.availability(away) == "not connected"
