"""Functions of one 8-bit tensor with Helium: sixteen table entries gathered at a time."""

import numpy as np
from tvm.tirx.script import builder as T

from mcuforge.isa import helium
from mcuforge.kernels.helium.common import LANES
from mcuforge.operators.quantize import requantization_table
from mcuforge.tir.function import Function, address
from mcuforge.tir.registry import Kernel, Operation, kernel


@kernel("lookup", opt_level=3, needs={"helium"})
def _lookup(operation: Operation) -> Kernel | None:
    return _gathered(operation, operation.args[1].value)


@kernel("requantize", opt_level=3, needs={"helium"})
def _requantize(operation: Operation) -> Kernel | None:
    if not {operation.args[0].dtype, operation.out.dtype} <= {"int8", "uint8"}:
        return None
    return _gathered(operation, requantization_table(operation))


def _gathered(operation: Operation, table: np.ndarray) -> Kernel | None:
    size = int(np.prod(operation.out.shape))
    in_dtype, dtype = operation.args[0].dtype, operation.out.dtype
    if size < LANES:
        return None
    if in_dtype == "int8":
        # By the byte as it is: 0..127, then -128..-1.
        table = np.roll(table, 128)
    f = Function("lookup")
    x = f.param("x", size, in_dtype)
    entries = f.param("table", len(table), dtype)
    y = f.param("y", size, dtype)
    with f.loop("i", size // LANES) as i:
        values = helium.vldrb_u8(address(x, i * LANES))
        found = helium.vldrb_gather_s8(address(entries, 0), values)
        f.do(helium.vstrb_s8(address(y, i * LANES), found))
    done = size // LANES * LANES
    if done < size:
        with f.loop("i", size - done) as i:
            byte = T.bitwise_and(T.cast(x[done + i], "int32"), 255)
            f.store(y, done + i, entries[byte])
    return Kernel(f.done(), (0, table), inplace={0: 0})
