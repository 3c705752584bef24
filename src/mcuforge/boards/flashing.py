"""Puts a firmware on a board that is not a QEMU of our own."""

from pathlib import Path

from mcuforge.boards.inventory import Board, Instance
from mcuforge.errors import BoardError


def flash(board: Board, instance: Instance, elf: Path) -> None:
    """Flash `elf` and start it."""
    raise BoardError(
        f"{board.name} ({instance.id}): flashing with {instance.runner or 'no runner'} "
        "is not supported yet"
    )
