"""Command lines of the flash tools, as recorded, and what happens when a tool fails."""

import dataclasses
import os
import shutil
import stat
from pathlib import Path

import pytest

from mcuforge import boards
from mcuforge.boards import Instance, flashing
from mcuforge.errors import BoardError, ConfigError, ToolError

TYPES = boards.load(Path(__file__).parents[2] / "config" / "boards.yaml").types
NUCLEO, EK = TYPES["nucleo_h743zi"], TYPES["ek_ra8m1"]


def instance(runner, board=NUCLEO, probe="0667FF", *params):
    return Instance("b", board.name, "/dev/x", 115200, runner, params, probe_id=probe)


def line(board, which, tmp_path, elf="/work dir/fw.elf"):
    return flashing.command(board, which, Path(elf), tmp_path)


def test_openocd(tmp_path):
    assert line(NUCLEO, instance("openocd"), tmp_path) == [
        "openocd",
        *("-f", "board/st_nucleo_h743zi.cfg"),
        *("-c", "adapter serial 0667FF"),
        *("-c", "program {/work dir/fw.elf} verify reset exit"),
    ]


def test_stm32cubeprogrammer(tmp_path):
    assert line(NUCLEO, instance("stm32cubeprogrammer"), tmp_path) == [
        "STM32_Programmer_CLI",
        *("-c", "port=SWD", "sn=0667FF", "mode=UR", "reset=HWrst"),
        *("-w", "/work dir/fw.elf", "-v", "-rst"),
    ]


def test_jlink(tmp_path):
    assert line(EK, instance("jlink", EK, "1087000000"), tmp_path) == [
        "JLinkExe",
        *("-USB", "1087000000"),
        *("-Device", "R7FA8M1AH", "-If", "SWD", "-Speed", "4000"),
        *("-AutoConnect", "1", "-ExitOnError", "1", "-NoGui", "1"),
        *("-CommandFile", str(tmp_path / "flash.jlink")),
    ]
    script = (tmp_path / "flash.jlink").read_text()
    assert script == 'r\nh\nloadfile "/work dir/fw.elf"\nr\ng\nexit\n'


def test_pyocd(tmp_path):
    assert line(NUCLEO, instance("pyocd", NUCLEO, "0667FF", "--frequency", "1M"), tmp_path) == [
        *("pyocd", "flash", "--target", "stm32h743zitx", "--uid", "0667FF"),
        *("--frequency", "1M", "/work dir/fw.elf"),
    ]


@pytest.mark.parametrize(
    ("board", "reset"), [(NUCLEO, "reset"), (TYPES["mps2_an500"], "system_reset")]
)
def test_gdb(tmp_path, board, reset):
    assert line(board, instance("gdb", board, "", "localhost:3333"), tmp_path) == [
        *("gdb-multiarch", "--nx", "--batch"),
        *("--command", str(tmp_path / "flash.gdb"), "/work dir/fw.elf"),
    ]
    script = (tmp_path / "flash.gdb").read_text().splitlines()
    assert script[-5:] == [
        "target remote localhost:3333",
        "load",
        f"monitor {reset}",
        "detach",
        "quit",
    ]


def test_west(tmp_path):
    which = instance("west", NUCLEO, "0667FF", "--build-dir", "build")
    assert line(NUCLEO, which, tmp_path) == [
        *("west", "flash", "--skip-rebuild", "--build-dir", "build"),
        *("--elf-file", "/work dir/fw.elf", "--dev-id", "0667FF"),
    ]


@pytest.mark.parametrize("runner", ["openocd", "stm32cubeprogrammer", "jlink", "pyocd", "west"])
def test_a_single_probe_needs_no_serial_number(tmp_path, runner):
    arguments = line(NUCLEO, instance(runner, NUCLEO, ""), tmp_path)
    assert not {"-USB", "--uid", "--dev-id"} & set(arguments)
    assert not any("sn=" in a or "serial" in a for a in arguments)


@pytest.mark.parametrize("probe", ["a; exec rm", "a b", "$x", "[exit]", "x" * 100])
def test_a_serial_number_cannot_be_a_script(tmp_path, probe):
    with pytest.raises(ConfigError, match="no serial number of a probe"):
        line(NUCLEO, instance("openocd", NUCLEO, probe), tmp_path)


@pytest.mark.parametrize("elf", ["/tmp/a}; exit", '/tmp/a"b', "/tmp/a\nb", "/tmp/$x"])
def test_a_path_cannot_be_a_script(tmp_path, elf):
    with pytest.raises(ConfigError, match="cannot be given the path"):
        line(NUCLEO, instance("openocd"), tmp_path, elf)


def test_what_a_tool_must_be_told_has_to_be_there(tmp_path):
    with pytest.raises(ConfigError, match=r"ek_ra8m1 has no flash_args\.openocd"):
        line(EK, instance("openocd", EK), tmp_path)
    with pytest.raises(ConfigError, match="needs one runner_params"):
        line(NUCLEO, instance("gdb"), tmp_path)
    with pytest.raises(ConfigError, match="unknown runner ''"):
        line(NUCLEO, instance(""), tmp_path)


@pytest.mark.parametrize("runner", sorted(flashing.RUNNERS))
def test_a_missing_tool_says_where_to_get_it(tmp_path, monkeypatch, runner):
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    entry = flashing.RUNNERS[runner]
    params = ("x",) if entry.server else ()
    board = dataclasses.replace(NUCLEO, flash_args=dict.fromkeys(flashing.RUNNERS, "told"))
    with pytest.raises(ToolError) as error:
        flashing.flash(board, instance(runner, NUCLEO, "1", *params), tmp_path / "fw.elf")
    assert str(error.value) == f"{entry.program} not found ({entry.source})"


def tool(tmp_path, monkeypatch, script):
    path = tmp_path / "openocd"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


def test_a_tool_that_fails_is_quoted(tmp_path, monkeypatch):
    tool(tmp_path, monkeypatch, "echo one; echo 'Error: no device found' >&2; exit 1")
    with pytest.raises(BoardError, match=r"nucleo_h743zi \(b\): openocd failed: .*no device"):
        flashing.flash(NUCLEO, instance("openocd"), tmp_path / "fw.elf")


def test_a_tool_that_hangs_is_ended_with_its_children(tmp_path, monkeypatch):
    tool(tmp_path, monkeypatch, f"sleep 300 & echo $! > {tmp_path}/pid; wait")
    impatient = dataclasses.replace(instance("openocd"), flash_timeout_s=1)
    with pytest.raises(BoardError, match="openocd did not finish in 1 s"):
        flashing.flash(NUCLEO, impatient, tmp_path / "fw.elf")
    state = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_a_tool_that_succeeds(tmp_path, monkeypatch):
    tool(tmp_path, monkeypatch, f'printf "%s\\n" "$@" > {tmp_path}/arguments')
    flashing.flash(NUCLEO, instance("openocd"), tmp_path / "fw.elf")
    expected = line(NUCLEO, instance("openocd"), tmp_path, tmp_path / "fw.elf")[1:]
    assert (tmp_path / "arguments").read_text().splitlines() == expected


def test_every_runner_a_board_lists_can_flash_it(tmp_path):
    for board in TYPES.values():
        for runner in board.runners:
            params = ("localhost:1",) if runner == "gdb" else ()
            which = dataclasses.replace(instance(runner, board), runner_params=params)
            assert line(board, which, tmp_path)
