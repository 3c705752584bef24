"""Moving elements with Helium: sixteen bytes at a time, at any address."""

from mcuforge.kernels.dsp.move import by_blocks
from mcuforge.tir.registry import Kernel, Operation, kernel


@kernel("move", opt_level=3, needs={"helium"})
def _move(operation: Operation) -> Kernel:
    return by_blocks(operation, vectors=True)
