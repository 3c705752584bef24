"""The table of what is supported, as `docs/operators.md` shows it.

python -m mcuforge.formats.tflite.document > docs/operators.md
"""

import mcuforge.kernels
import mcuforge.operators  # noqa: F401  # declares the kernels of level 1, mcuforge.kernels the fast
from mcuforge.formats.tflite.supported import SUPPORTED, Support, snake
from mcuforge.isa.feature import FEATURES
from mcuforge.target import CORES
from mcuforge.tir.registry import KERNELS

_HEAD = """\
# Operators of TensorFlow Lite

`python -m mcuforge.formats.tflite.document` writes this file from the table that a model is checked
against when it is imported. A model with anything else is refused, with one line that names the
operator, its place in the file and its output tensor.

Quantized operators give the bytes of LiteRT's reference kernels at every opt_level from 1;
operators of float32 agree with them within 1e-5. Operators all of whose operands are constants, and
SHAPE, are computed when the model is imported, whatever their types.

In the types, `?` marks an operand that may be left out and `...` one that comes once or more often.
Options that are not named must have their defaults. int32 beside other types is a bias, an axis, a
shape or the like.

Under kernels are the opt_levels at which kernels for integers are declared: for every core, and
for cores with a feature; scalar is for those without. A layer gets that of the highest level up to
its own that suits its shape and scales.

{features}

Where nothing is said of kernels, and where weights are of float32, TVM's own do the work on every
core.
"""


def document() -> str:
    """`docs/operators.md`, a section per operator."""
    sections = [_section(name, support) for name, support in sorted(SUPPORTED.items())]
    features = [f"- {feature}: {', '.join(_cores(feature))}" for feature in FEATURES]
    return "\n".join([_HEAD.format(features="\n".join(features)), *sections])


def _cores(feature: str) -> list[str]:
    """The cores whose best kernels are those for a feature: Helium comes before DSP."""
    if feature == "scalar":
        return [name for name, core in CORES.items() if not core.features & set(FEATURES)]
    better = {f for d in KERNELS.declarations if feature in d.needs for f in d.unless}
    return [name for name, c in CORES.items() if feature in c.features and not better & c.features]


def _kernels(integer: str) -> str:
    """The levels of an operator's kernels, as in ``every core 1; dsp 3, 4``."""
    levels: dict[str, set[int]] = {}
    for declared in KERNELS.declarations:
        if declared.op == integer:
            where = ", ".join(sorted(declared.needs & set(FEATURES)))
            where = where or ("scalar" if declared.unless else "every core")
            levels.setdefault(where, set()).add(declared.opt_level)
    return "; ".join(
        f"{where} {', '.join(map(str, sorted(levels[where])))}"
        for where in ("every core", *FEATURES)
        if where in levels
    )


def _section(name: str, support: Support) -> str:
    low, high = support.ranks
    options = [
        snake(option) + (f" ({', '.join(map(str, values))})" if values else "")
        for option, values in sorted(support.options.items())
    ]
    lines = [
        f"## {name}\n",
        f"- types: {'; '.join(f'`{signature}`' for signature in support.types)}",
        f"- dimensions: {low if low == high else f'{low} to {high}'}",
        f"- quantization: {support.rule.text}",
    ]
    if options:
        lines.append(f"- options: {', '.join(options)}")
    if support.constant:
        places = ", ".join(map(str, support.constant))
        lines.append(f"- operands that must be constants, counted from 0: {places}")
    lines += [f"- kernels of `{name}`: {_kernels(name)}" for name in support.integer]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(document(), end="")
