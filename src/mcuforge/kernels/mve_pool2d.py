"""Average pooling with Helium: eight channels at a time."""

from tvm.tirx.script import builder as T

from mcuforge.kernels.isa import mve
from mcuforge.kernels.mve_common import Function, address
from mcuforge.kernels.registry import Kernel, Operation, kernel

_LANES = 8
# Sums of that many int8 fit int16.
_MOST = 255


@kernel("pool2d", opt_level=3, needs={"mve"})
def _average(operation: Operation) -> Kernel | None:
    attrs = operation.attrs
    batch, height, width, channels = operation.args[0].shape
    _, out_h, out_w, _ = operation.out.shape
    (pool_h, pool_w), (sy, sx) = attrs["pool_size"], attrs["strides"]
    if (
        attrs["kind"] != "average"
        or operation.args[0].dtype != "int8"
        or any(attrs["padding"])
        or batch != 1
        or channels < _LANES
        or pool_h * pool_w > _MOST
        or (attrs["clamp_min"], attrs["clamp_max"]) != (-128, 127)
    ):
        return None
    count = pool_h * pool_w
    f = Function("average_pool2d")
    x = f.param("x", height * width * channels)
    y = f.param("y", out_h * out_w * channels)
    sums = f.scratch("sums", _LANES, "int16")
    passes = -(-channels // _LANES)
    with f.loop("oy", out_h) as oy, f.loop("ox", out_w) as ox, f.loop("part", passes) as part:
        first = part * _LANES
        if channels % _LANES:
            first = T.min(first, T.int32(channels - _LANES))
        first = f.let("first", first)
        base = f.let("base", (oy * (sy * width) + ox * sx) * channels + first)
        total = f.variable("total", mve.vdup_s16(T.int16(0)))
        with f.loop("ky", pool_h) as ky, f.loop("kx", pool_w) as kx:
            at = address(x, base + (ky * width + kx) * channels)
            total.set(mve.vadd_s16(total.value, mve.vldrb_s16(at)))
        f.do(mve.vstrh_s16(address(sums, 0), total.value))
        with f.loop("i", _LANES) as i:
            value = f.let("value", T.cast(sums[i], "int32"))
            half = T.if_then_else(value > 0, T.int32(count // 2), T.int32(-(count // 2)))
            mean = T.truncdiv(value + half, T.int32(count))
            T.buffer_store(y, T.cast(mean, "int8"), [(oy * out_w + ox) * channels + first + i])
    return Kernel(f.done(), (0,))
