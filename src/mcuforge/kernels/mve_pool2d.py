"""Average pooling with Helium: four channels at a time."""

import numpy as np
from tvm.tirx.script import builder as T

from mcuforge.kernels import arithmetic
from mcuforge.kernels.isa import mve
from mcuforge.kernels.mve_common import Function, address, solve
from mcuforge.kernels.registry import Kernel, Operation, kernel

_LANES = 4
# Widest window whose rows are summed without loops.
_UNROLLED = 12
# Compilers do as well on smaller windows.
_LEAST_COUNT = 32


@kernel("pool2d", opt_level=3, needs={"mve"})
def _average(operation: Operation) -> Kernel | None:
    attrs = operation.attrs
    batch, height, width, channels = operation.args[0].shape
    _, out_h, out_w, _ = operation.out.shape
    (pool_h, pool_w), (sy, sx) = attrs["pool_size"], attrs["strides"]
    count = pool_h * pool_w
    if (
        attrs["kind"] != "average"
        or operation.args[0].dtype != "int8"
        or any(attrs["padding"])
        or batch != 1
        or channels % _LANES
        or count < _LEAST_COUNT
    ):
        return None

    def rounded(total: np.ndarray) -> np.ndarray:
        # Halves away from zero.
        return np.sign(total) * ((np.abs(total) + count // 2) // count)

    multiplier = np.array([arithmetic.quantize_multiplier(1 / count)], np.int64)
    limits = (attrs["clamp_min"], attrs["clamp_max"])
    exact = solve(rounded, multiplier[:, :1], multiplier[:, 1:], 0, limits, 128 * count)
    if exact is None:
        return None

    f = Function("average_pool2d")
    x = f.param("x", height * width * channels)
    y = f.param("y", out_h * out_w * channels)
    scalars = [T.int32(int(v[0])) for v in (exact.multiplier, exact.shift)]
    with (
        f.loop("oy", out_h) as oy,
        f.loop("ox", out_w) as ox,
        f.loop("part", channels // _LANES) as part,
    ):
        first = f.let("first", part * _LANES)
        base = f.let("base", (oy * (sy * width) + ox * sx) * channels + first)
        total = f.variable("total", mve.vldrb_s32(address(x, base)))
        # The first pixel starts the sum; its row has one less to add.
        for rows, columns, at in (
            (1, pool_w - 1, channels),
            (pool_h - 1, pool_w, width * channels),
        ):
            if not rows * columns:
                continue
            with f.loop("ky", rows) as ky:
                row = f.let("row", base + at + ky * (width * channels))
                pixels = range(columns) if columns <= _UNROLLED else [None]
                for pixel in pixels:
                    with f.loop("kx", 1 if pixel is not None else columns) as kx:
                        here = row + (kx if pixel is None else pixel) * channels
                        total.set(mve.vadd_s32(total.value, mve.vldrb_s32(address(x, here))))
        result = exact.vector(total.value, *scalars)
        f.do(mve.vstrb_s32(address(y, (oy * out_w + ox) * channels + first), result))
    return Kernel(f.done(), (0,))
