"""The constants of a compiled model as C arrays, in flash."""

import numpy as np

from mcuforge.codegen import c
from mcuforge.codegen.memory import ALIGNMENT
from mcuforge.codegen.program import Program, Tensor
from mcuforge.executors.header import notice
from mcuforge.executors.ports import Interface


def weights(interface: Interface, program: Program) -> str:
    """The file that defines the constants."""
    lines = [
        notice(interface),
        *(["#include <stdbool.h>"] if any(t.dtype == "bool" for t in program.constants) else []),
        "#include <stdint.h>",
        "",
        "/* Define it to a section attribute to place the weights. */",
        "#ifndef TVMGEN_WEIGHTS_ATTR",
        "#define TVMGEN_WEIGHTS_ATTR",
        "#endif",
        "",
    ]
    for tensor in program.constants:
        assert tensor.value is not None
        # -Wmissing-declarations: each definition is preceded by its declaration.
        lines.append(f"extern {declaration(interface, tensor)};")
        lines.append(
            f"TVMGEN_WEIGHTS_ATTR __attribute__((aligned({ALIGNMENT})))\n"
            f"{declaration(interface, tensor)} = {{"
        )
        lines += _values(tensor.value)
        lines += ["};", ""]
    return "\n".join(lines)


def declaration(interface: Interface, tensor: Tensor) -> str:
    """A constant's type and name: ``const int8_t tvmgen_kws_constant0[64]``."""
    size = max(int(np.prod(tensor.shape, dtype=np.int64)), 1)
    return f"const {c.c_type(tensor.dtype)} {interface.symbol}_{tensor.name}[{size}]"


def _values(data: np.ndarray, width: int = 96) -> list[str]:
    dtype = str(data.dtype)
    flat = data.reshape(-1).tolist()
    if dtype.startswith("float"):
        texts = [c.float_literal(value, dtype)[0] for value in flat]
    else:
        texts = [c.integer_literal(value, dtype)[0] for value in flat]
    lines, line = [], "   "
    for text in texts:
        if len(line) + len(text) + 2 > width:
            lines.append(line)
            line = "   "
        line += f" {text},"
    return [*lines, line]
