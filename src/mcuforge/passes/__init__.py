"""Passes: from IRModule to IRModule, one file each; `optimize` runs them in order."""

from mcuforge.passes.pipeline import MAX_OPT_LEVEL, optimize

__all__ = ["MAX_OPT_LEVEL", "optimize"]
