"""Model formats: what a file holds, its import as Relax, and its oracle."""

from mcuforge.formats.format import Format, of, read

__all__ = ["Format", "of", "read"]
