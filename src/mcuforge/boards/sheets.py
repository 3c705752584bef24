"""Reads the board types (boards.yaml) and the boards on this bench (hardware-map.yaml)."""

import itertools
from pathlib import Path
from typing import Any

from mcuforge import schema
from mcuforge.boards.flashing import RUNNERS
from mcuforge.boards.inventory import (
    FLASH_ROLES,
    RAM_ROLES,
    Board,
    Cache,
    Instance,
    Inventory,
    Memory,
    TimedMemory,
    Timing,
)
from mcuforge.errors import ConfigError, known
from mcuforge.toolchains import TOOLCHAINS


def load(boards: Path, hardware_map: Path | None = None) -> Inventory:
    """Read the board types and, if given, the boards on this bench.

    Raises ConfigError with file, place and remedy when something does not fit.
    """
    types = {
        name: _board(name, entry, str(boards))
        for name, entry in schema.read_yaml(boards, "boards").items()
    }
    bench: list[Instance] = []
    for entry in schema.read_yaml(hardware_map, "hardware-map") if hardware_map else []:
        instance = _instance(entry, types, str(hardware_map))
        if any(other.id == instance.id for other in bench):
            raise ConfigError(f"{hardware_map}: board id '{instance.id}' is listed twice")
        bench.append(instance)
    return Inventory(types, tuple(bench))


def _board(name: str, entry: dict[str, Any], source: str) -> Board:
    place = f"{source}: {name}"
    memories = tuple(
        Memory(m["name"], m["origin"], _bytes(m["size"]), tuple(m["holds"]))
        for m in entry["memories"]
    )
    for role in (*FLASH_ROLES, *RAM_ROLES):
        holders = [memory.name for memory in memories if role in memory.holds]
        if len(holders) != 1:
            raise ConfigError(
                f"{place}.memories: '{role}' is held by {' and '.join(holders) or 'no memory'}",
                "each of vectors, code, weights, data, workspace, stack belongs in one memory",
            )
    if len({memory.name for memory in memories}) < len(memories):
        raise ConfigError(f"{place}.memories: two memories have the same name")
    by_origin = sorted(memories, key=lambda memory: memory.origin)
    for low, high in itertools.pairwise(by_origin):
        if low.origin + low.size > high.origin:
            raise ConfigError(f"{place}.memories: {low.name} and {high.name} overlap")
    for memory in memories:
        if set(memory.holds) & set(FLASH_ROLES) and set(memory.holds) & set(RAM_ROLES):
            raise ConfigError(
                f"{place}.memories: {memory.name} holds both flash and RAM contents",
                "divide it into two entries",
            )
    for key in ("toolchains", "zephyr_variants"):
        for toolchain in entry.get(key, ()):
            known("toolchain", toolchain, TOOLCHAINS, f"{place}.{key}")
    for key in ("runners", "flash_args"):
        for runner in entry.get(key, ()):
            known("runner", runner, RUNNERS, f"{place}.{key}")
    return Board(
        name=name,
        core=entry["core"],
        platform=entry["platform"],
        clock_hz=entry["clock_hz"],
        memories=memories,
        toolchains=tuple(entry["toolchains"]),
        stack_bytes=entry.get("stack_bytes", Board.stack_bytes),
        baud=entry.get("baud", Board.baud),
        vendor=entry.get("vendor", Board.vendor),
        baremetal=entry.get("baremetal", {}),
        machine=entry.get("emulator", {}).get("machine", ""),
        runners=tuple(entry.get("runners", ())),
        flash_origin=entry.get("flash_origin", 0),
        flash_args=entry.get("flash_args", {}),
        zephyr_board=entry.get("zephyr_board", ""),
        zephyr_board_before=entry.get("zephyr_board_before", {}),
        zephyr_variants=entry.get("zephyr_variants", {}),
        zephyr_fragments=tuple(entry.get("zephyr_fragments", ())),
        zephyr_modules=tuple(entry.get("zephyr_modules", ())),
        timing=_timing(entry["timing"], entry["clock_hz"]) if "timing" in entry else None,
        usb=tuple(entry.get("usb", ())),
    )


def _timing(entry: dict[str, Any], clock_hz: int) -> Timing:
    caches = {
        key: Cache(_bytes(entry[key]["size"]), entry[key]["ways"])
        for key in ("data_cache", "instruction_cache")
        if key in entry
    }
    memories = tuple(
        TimedMemory(m["name"], m["origin"], _bytes(m["size"]), m["line_cycles"])
        for m in entry.get("memories", ())
    )
    return Timing(entry["source"], entry.get("clock_hz", clock_hz), memories=memories, **caches)


def _instance(entry: dict[str, Any], types: dict[str, Board], source: str) -> Instance:
    place = f"{source}: board '{entry['id']}'"
    names = {b.zephyr_board: b for b in types.values() if b.zephyr_board} | types
    if entry["platform"] not in names:
        raise ConfigError(
            f"{place}: unknown platform '{entry['platform']}'", f"valid: {', '.join(types)}"
        )
    board = names[entry["platform"]]
    serial = entry.get("serial_pty") or entry.get("serial") or ""
    if not serial and (entry["connected"] and not board.emulated):
        raise ConfigError(f"{place}: connected, but without a serial port", "set the key serial")
    runner = entry.get("runner", board.runners[0] if board.runners else "")
    if runner:
        known("runner", runner, RUNNERS, place)
    return Instance(
        id=str(entry["id"]),
        board=board.name,
        serial=serial,
        baud=entry.get("baud", board.baud),
        runner=runner,
        runner_params=tuple(entry.get("runner_params", ())),
        flash_timeout_s=entry.get("flash_timeout", Instance.flash_timeout_s),
        probe_id=str(entry.get("probe_id") or entry["id"]),
        product=entry.get("product", ""),
        connected=entry["connected"],
        fixtures=tuple(entry.get("fixtures", ())),
    )


def _bytes(size: int | str) -> int:
    if isinstance(size, int):
        return size
    return int(size[:-1]) * {"K": 1 << 10, "M": 1 << 20}[size[-1]]
