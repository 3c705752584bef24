"""Boards: what types there are, which ones are on the bench, and how to bring one to `ready`."""

from mcuforge.boards.inventory import Board, Instance, Inventory, Memory
from mcuforge.boards.sheets import load

__all__ = ["Board", "Instance", "Inventory", "Memory", "load"]
