"""Blocks that copy or fill runs of bytes: eight words at a time where pointers are aligned.

LDM and STM move up to eight words but need addresses that are multiples of four. What users pass
may lie anywhere, so each block looks, and otherwise moves single words, which may lie anywhere.
With Helium it moves vectors, which may lie anywhere too.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

from tvm import tirx
from tvm.script import tirx as T

from mcuforge.isa.dsp.block import FEATURE, M, N, assembly, block, join
from mcuforge.isa.instruction import Instruction

_REGISTERS = [f"r{i}" for i in range(4, 12)]
FARTHEST = 4095
"""The largest step: what an ADD takes as an immediate value."""
WIDEST = 128
"""Longer runs are moved in a loop, and once only."""
VECTOR = 16
"""Bytes of a vector."""


class Rows(NamedTuple):
    """Runs that are moved, one after the other; all in bytes, all at least 0.

    Attributes:
        length: of a run, at least four.
        source: from the start of a run to that of the next.
        result: the same in the result.
        again: from where a run is written to where it is written a second time; 0: it is not.
        unroll: runs in a turn of the loop.
        vectors: whether the core has Helium; then runs are at least VECTOR long.
    """

    length: int
    source: int
    result: int
    again: int
    unroll: int
    vectors: bool = False

    @property
    def name(self) -> str:
        """For names of blocks."""
        return join(*self[:5], "vectors" if self.vectors else "")


@cache
def copy_rows(rows: Rows) -> Instruction:
    """Block ``copy_rows(y, x, count)``: int8 runs from x to y, which do not overlap.

    Example: a run of 17 bytes at unaligned places is five words, the last one at byte 13.

    Args:
        rows: how the runs lie; ``count`` is a multiple of its ``unroll``.
    """
    length, source, result, again, *_ = rows
    copies = 2 if again else 1

    @T.prim_func(s_tir=True, private=True)
    def definition(
        y: T.Buffer((M,), "int8", offset_factor=1),
        x: T.Buffer((N,), "int8", offset_factor=1),
        count: T.Buffer((1,), "int32", offset_factor=1),
    ):
        with T.sblock("root"):
            T.reads(x[0:N], count[0])
            T.writes(y[0:M])
            for row in range(count[0]):
                for copy, i in T.grid(copies, length):
                    y[row * result + copy * again + i] = x[row * source + i]

    return _declared("copy", rows, "y x", "count", definition)


@cache
def fill_rows(rows: Rows) -> Instruction:
    """Block ``fill_rows(y, value, count)``: the bytes of a word, over and over, in each run.

    Args:
        rows: how the runs lie, as for ``copy_rows``; nothing is written again.
    """
    length, _, result, *_ = rows

    @T.prim_func(s_tir=True, private=True)
    def definition(
        y: T.Buffer((M,), "int8", offset_factor=1),
        value: T.Buffer((1,), "int32", offset_factor=1),
        count: T.Buffer((1,), "int32", offset_factor=1),
    ):
        with T.sblock("root"):
            T.reads(value[0], count[0])
            T.writes(y[0:M])
            for row in range(count[0]):
                for i in range(length):
                    y[row * result + i] = T.cast(value[0] >> (i % 4 * 8), "int8")

    return _declared("fill", rows, "y", "value count", definition)


def _declared(
    kind: str, rows: Rows, pointers: str, numbers: str, definition: tirx.PrimFunc
) -> Instruction:
    lines, vectors = _block(rows, kind == "copy"), [f"q{i}" for i in range(4)] * rows.vectors
    c = assembly(pointers, numbers, "y", lines, vectors)
    feature = "helium" if rows.vectors else FEATURE
    return block(join(kind, rows.name), pointers, numbers, "y", definition, c, feature=feature)


def _block(rows: Rows, loads: bool) -> list[str]:
    """Assembly: y is in r0, x or the value in r1, the number of rows in r2."""
    if rows.vectors:
        value = [] if loads else [f"vdup.32 q{i}, r1" for i in range(4)]
        return [*value, "2:", *_turn(rows, loads, _anywhere), "bne 2b"]
    used = _REGISTERS[: min(8, max(4, -(-rows.length // 4)))]
    saved = f"{{{', '.join(used)}}}"
    lines = [f"push {saved}"]
    if not loads:
        lines += [f"mov {register}, r1" for register in used]
    steps = (rows.source if loads else 0) | rows.result | rows.again
    if steps % 4 == 0:
        lines += ["orr r12, r0, r1" if loads else "mov r12, r0", "tst r12, #3", "bne 2f"]
        lines += ["1:", *_turn(rows, loads, _aligned), "bne 1b", "b 3f"]
    return [*lines, "2:", *_turn(rows, loads, _anywhere), "bne 2b", "3:", f"pop {saved}"]


def _turn(rows: Rows, loads: bool, row: Callable[[Rows, bool], list[str]]) -> list[str]:
    return [*(row(rows, loads) * rows.unroll), f"subs r2, r2, #{rows.unroll}"]


def _aligned(rows: Rows, loads: bool) -> list[str]:
    """One run with LDM and STM, whose last bytes are not a whole word."""
    targets = ["r0", "r3"] if rows.again else ["r0"]
    lines = [f"addw r3, r0, #{rows.again}"] if rows.again else []

    def moved(registers: list[str]) -> list[str]:
        some = f"{{{', '.join(registers)}}}"
        if len(registers) == 1:
            load, stores = "ldr r4, [r1], #4", [f"str r4, [{t}], #4" for t in targets]
        else:
            load, stores = f"ldmia r1!, {some}", [f"stmia {t}!, {some}" for t in targets]
        return [load, *stores] if loads else stores

    words, rest = divmod(rows.length, 4)
    whole, words = divmod(words, 8)
    if rows.length > WIDEST:
        lines += [f"movw r12, #{whole}", "4:", *moved(_REGISTERS), "subs r12, r12, #1", "bne 4b"]
    else:
        lines += moved(_REGISTERS) * whole
    if words:
        lines += moved(_REGISTERS[:words])
    for size, letter in ((2, "h"), (1, "b")):
        if rest & size:
            lines += [f"ldr{letter} r4, [r1], #{size}"] if loads else []
            lines += [f"str{letter} r4, [{t}], #{size}" for t in targets]
    moves = [("r0", rows.result)] + ([("r1", rows.source)] if loads else [])
    for register, step in moves:
        lines += _advance(register, step - rows.length)
    return lines


def _anywhere(rows: Rows, loads: bool) -> list[str]:
    """One run by words or vectors, the last of which may overlap the one before."""
    unit = VECTOR if rows.vectors else 4
    lines = [f"addw r3, r0, #{rows.again}"] if rows.again else []
    whole, length = 0, rows.length
    if length > WIDEST:
        # As far as all immediate offsets reach.
        whole, length = divmod(length, 4 * unit)
        steps = (4 * unit if loads else 0), 4 * unit
        chunk = _units(rows, range(0, 4 * unit, unit), steps, loads)
        lines += [f"movw r12, #{whole}", "5:", *chunk, "subs r12, r12, #1", "bne 5b"]
    done = whole * 4 * unit
    steps = (rows.source - done if loads else 0), rows.result - done
    offsets = list(range(0, length - unit + 1, unit))
    if length % unit:
        # Behind whole chunks, a short rest reaches back into them.
        offsets.append(length - unit)
    return lines + _units(rows, offsets, steps, loads)


def _units(rows: Rows, offsets: Sequence[int], steps: tuple[int, int], loads: bool) -> list[str]:
    """Words or vectors at these offsets, after which x and y advance by ``steps``."""
    load, store, registers, reach = "ldr", "str", _REGISTERS, 255
    if rows.vectors:
        load, store, registers, reach = "vldrb.8", "vstrb.8", [f"q{i}" for i in range(4)], 127
    source, result = (step if 0 < step <= reach and 0 in offsets else 0 for step in steps)
    # The one at the start comes last: its load and store can advance the pointers.
    order = sorted(offsets, key=lambda offset: offset == 0)
    lines = []
    for first in range(0, len(order), 4):
        group = list(zip(registers, order[first : first + 4], strict=False))
        if loads:
            lines += [_access(load, r, "r1", o, source) for r, o in group]
        if rows.again:
            lines += [_access(store, r, "r3", o, 0) for r, o in group]
        lines += [_access(store, r, "r0", o, result) for r, o in group]
    lines += [] if source else _advance("r1", steps[0])
    return lines + ([] if result else _advance("r0", steps[1]))


def _access(name: str, register: str, pointer: str, offset: int, step: int) -> str:
    """A load or store; the one at offset 0 advances the pointer by ``step``."""
    if step and not offset:
        return f"{name} {register}, [{pointer}], #{step}"
    return f"{name} {register}, [{pointer}, #{offset}]"


def _advance(register: str, step: int) -> list[str]:
    if not step:
        return []
    return [f"{'addw' if step > 0 else 'subw'} {register}, {register}, #{abs(step)}"]
