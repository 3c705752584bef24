"""The fewest instructions an operator's multiply-accumulates can take with a core's instructions.

docs/performance.md derives the numbers. They count what cannot be avoided when int8 operands are
multiplied as the operator is defined: the multiplications, the loads and unpacking that feed them
from as many registers as there are, and the requantization of each result.
"""

import math

from mcuforge.errors import ConfigError
from mcuforge.target import Target

# Instructions a multiply-accumulate: the multiplications alone; with their operands, where several
# pixels share weights; with them, where each weight is used once. Then instructions a result.
DSP = {"multiply": 1 / 2, "shared": 17 / 24, "once": 21 / 32, "depthwise": 15 / 18, "result": 3}
HELIUM = {"multiply": 1 / 16, "shared": 11 / 96, "once": 2 / 16, "result": 1.5}
# Of a Helium depthwise convolution, for up to sixteen taps: a dot product, a quarter of a load.
_PATCH = 1.25
_LANES = 16


def of_core(core: str) -> dict[str, float] | None:
    """The numbers of a core, in ``-mcpu`` syntax; None for one without such instructions."""
    try:
        features = Target(core).features
    except ConfigError:
        return None
    return HELIUM if "helium" in features else DSP if "dsp" in features else None


def instructions(
    core: str, products: str | None, shape: tuple[int, ...], macs: int
) -> float | None:
    """Instructions `macs` multiply-accumulates of an operator take at least.

    Args:
        core: as for `of_core`.
        products: what they multiply, `dense` or `depthwise`, as in `mlf.Operator`.
        shape: of the result, channels last.
        macs: executed.

    Returns:
        None for an operator that has none or other products, or where the core's are not known.
    """
    costs = of_core(core)
    if costs is None or not macs:
        return None
    results = math.prod(shape)
    if products == "depthwise":
        taps = macs / results
        each = costs.get("depthwise") or _PATCH * math.ceil(taps / _LANES) / taps
    elif products == "dense":
        each = costs["once" if results == shape[-1] else "shared"]
    else:
        return None
    return macs * each + results * costs["result"]
