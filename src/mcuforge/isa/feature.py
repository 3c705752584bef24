"""What C code knows of a core's instruction set features: one entry each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Feature:
    """A feature as C code sees it; the names are those of ``target.FEATURES``, and ``scalar`` for
    what needs none.

    Attributes:
        macro: the compiler defines it where the feature is there.
        header: declares the feature's intrinsics and vector types; empty if there are none.
        vectors: dtypes of the vector types, which are defined in portable code in this order.
        gcc: options of ``#pragma GCC optimize`` without which GCC makes slow code of it.
    """

    macro: str
    header: str = ""
    vectors: tuple[str, ...] = ()
    gcc: tuple[str, ...] = ()


FEATURES = {
    "scalar": Feature("__GNUC__"),
    "dsp": Feature("__ARM_FEATURE_DSP"),
    "helium": Feature(
        "__ARM_FEATURE_MVE",
        "arm_mve.h",
        ("int8x16", "int16x8", "int32x4", "uint8x16", "uint16x8", "uint32x4"),
        # GCC 12 moves every address out of the loops, then spills it: a quarter more instructions.
        ("no-schedule-insns", "no-move-loop-invariants"),
    ),
}
