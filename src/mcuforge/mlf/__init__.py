"""Model Library Format: a compiled model as one archive, and the facts recorded in it."""

from mcuforge.mlf.archive import Archive, metadata, read, write
from mcuforge.mlf.info import Info, Operator, Port

__all__ = ["Archive", "Info", "Operator", "Port", "metadata", "read", "write"]
