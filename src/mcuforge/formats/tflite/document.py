"""The table of what is supported, as `docs/operators.md` shows it.

python -m mcuforge.formats.tflite.document > docs/operators.md
"""

from mcuforge.formats.tflite.supported import SUPPORTED, Support, snake

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
"""


def document() -> str:
    """`docs/operators.md`, a section per operator."""
    sections = [_section(name, support) for name, support in sorted(SUPPORTED.items())]
    return "\n".join([_HEAD, *sections])


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
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(document(), end="")
