"""Kernels for tests of code generators: TVMScript in, what the generators are given out."""

import tvm
from tvm import tirx

from mcuforge.codegen.lower import LoweredKernel, lower_kernels


def lowered(func: tirx.PrimFunc) -> LoweredKernel:
    """A kernel as one of mcuforge's own is lowered."""
    func = func.with_attrs({"mcuforge.op": "test", "tirx.noalias": True})
    return lower_kernels(tvm.IRModule({"kernel": func}))["kernel"]
