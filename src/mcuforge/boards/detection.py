"""Finds attached boards by the USB ids of their probes, and keeps the hardware map up to date."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from serial.tools import list_ports

from mcuforge import files, schema
from mcuforge.boards import locks
from mcuforge.boards.inventory import Instance, Inventory

_HEADER = """\
# The boards on this bench, in the format of Zephyr Twister's hardware map; written by
# `mcuforge boards --detect`, which keeps what is added by hand.
"""


def detect(inventory: Inventory, ports: Iterable[Any] | None = None) -> list[dict[str, Any]]:
    """Entries of a hardware map for the boards that are attached, in order of their ids.

    Args:
        ports: what pyserial's ``list_ports.comports()`` gives; by default just that.

    A board with several serial ports is listed with the first; one without a serial number cannot
    be told from its likes and is left out.
    """
    types = {usb: board for board in inventory.types.values() for usb in board.usb}
    found: dict[str, dict[str, Any]] = {}
    for port in sorted(list_ports.comports() if ports is None else ports, key=lambda p: p.device):
        board = types.get(f"{port.vid or 0:04x}:{port.pid or 0:04x}")
        if board is None or not port.serial_number or port.serial_number in found:
            continue
        entry = {
            "connected": True,
            "id": port.serial_number,
            "platform": board.name,
            "product": port.product or port.description or "",
            "runner": board.runners[0],
            "serial": port.device,
        }
        found[port.serial_number] = entry
    return [found[key] for key in sorted(found)]


def availability(instance: Instance) -> str:
    """What can be said of a board without touching it: free, or why it cannot be used now."""
    if not instance.connected:
        return "not connected"
    if instance.started_by_us:
        return "free, as many as needed"
    if user := locks.holder(instance):
        return f"in use by {user}"
    return "free" if Path(instance.serial).exists() else f"{instance.serial} is not there"


def update(path: Path, detected: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Merge detected boards into the map at `path` (which need not exist) and write it.

    Known boards keep all that was set by hand; only their port and whether they are connected
    changes. Boards found by USB before and gone now stay, as not connected. Returns the entries.
    """
    known = schema.read_yaml(path, "hardware-map") if path.exists() else []
    fresh = {entry["id"]: entry for entry in detected}
    entries = []
    for entry in known:
        found = fresh.pop(str(entry["id"]), None)
        if found:
            entry = {**found, **entry, "connected": True, "serial": found["serial"]}
        elif str(entry.get("serial") or "").startswith("/dev/tty"):
            entry = {**entry, "connected": False, "serial": None}
        entries.append(entry)
    entries += fresh.values()
    schema.check(entries, "hardware-map", str(path))
    files.write(path, _HEADER + yaml.safe_dump(entries, sort_keys=False))
    return entries
