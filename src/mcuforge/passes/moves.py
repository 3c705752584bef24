"""Operators that only move elements become ``move``: pieces of the result, copied or filled."""

import math
from collections.abc import Sequence

import tvm
from tvm import relax

from mcuforge.operators.move import FILL, Dim, Piece, moved
from mcuforge.passes.rewrite import Lookup, rewrite_main
from mcuforge.tir.integer_op import op_name

Shape = Sequence[int]


@tvm.transform.module_pass(opt_level=2, name="MovePieces")
class MovePieces:
    """Replace what TVM would compute element by element by copies of adjacent elements."""

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        return rewrite_main(mod, _move)


def _move(builder: relax.BlockBuilder, value: relax.Expr, lookup: Lookup) -> relax.Expr:
    pieces_of = _PIECES.get(op_name(value))
    # What is known now is computed now, by FoldConstant.
    if pieces_of is None or _known(value, lookup):
        return value
    ty = builder.normalize(value).ty
    shape = [int(size) for size in ty.shape]
    operands = value.args[:1]
    if isinstance(lookup(operands[0]), relax.Tuple):
        operands = lookup(operands[0]).fields
    shapes: list[Shape] = [[int(size) for size in operand.ty.shape] for operand in operands]
    pieces = pieces_of(value, shapes, shape)
    if pieces is None:
        return value
    fill = float(value.attrs.pad_value) if op_name(value) == "relax.nn.pad" else 0.0
    return moved(operands, pieces, shape, str(ty.dtype), fill)


def _known(expr: relax.Expr, lookup: Lookup) -> bool:
    """Whether an expression consists of constants."""
    value = lookup(expr)
    if isinstance(value, relax.Tuple):
        return all(_known(field, lookup) for field in value.fields)
    if isinstance(value, relax.Call):
        return all(_known(arg, lookup) for arg in value.args)
    return not isinstance(value, relax.Var)


def _steps(shape: Shape) -> list[int]:
    """Of a row-major tensor along each dimension."""
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]


def _concatenated(call: relax.Call, shapes: list[Shape], result: Shape) -> list[Piece]:
    axis = call.attrs.axis
    axis = 0 if axis is None else int(axis) % len(result)
    steps, start, pieces = _steps(result), 0, []
    for operand, shape in enumerate(shapes):
        box = tuple(map(Dim, shape, _steps(shape), steps))
        pieces.append(Piece(operand, 0, start, box))
        start += shape[axis] * steps[axis]
    return pieces


def _padded(call: relax.Call, shapes: list[Shape], result: Shape) -> list[Piece] | None:
    (shape,) = shapes
    widths = [int(width) for width in call.attrs.pad_width]
    if str(call.attrs.pad_mode) != "constant" or min(widths, default=0) < 0:
        return None
    steps, before = _steps(result), widths[::2]
    inside = sum(b * step for b, step in zip(before, steps, strict=True))
    pieces = [Piece(0, 0, inside, tuple(map(Dim, shape, _steps(shape), steps)))]
    start = 0
    for axis, (extent, step) in enumerate(zip(shape, steps, strict=True)):
        # Inside along the axes before this one, everywhere along those behind.
        outer = tuple(Dim(shape[i], steps[i], steps[i]) for i in range(axis))
        for first, count in ((0, before[axis]), (before[axis] + extent, widths[2 * axis + 1])):
            box = (*outer, Dim(count * step, 1, 1))
            pieces.append(Piece(FILL, start + first * step, start + first * step, box))
        start += before[axis] * step
    return pieces


def _sliced(call: relax.Call, shapes: list[Shape], result: Shape) -> list[Piece] | None:
    (shape,) = shapes
    numbers = [[int(n.value) for n in part.fields] for part in call.args[1:]]
    axes, begins, _, *strides = numbers
    sources, start = _steps(shape), 0
    for number, axis in enumerate(axes):
        stride = strides[0][number] if strides else 1
        begin = begins[number]
        begin = begin + shape[axis] if begin < 0 else begin
        start += min(max(begin, 0), shape[axis] - (stride < 0)) * sources[axis]
        sources[axis] *= stride
    return [Piece(0, start, 0, tuple(map(Dim, result, sources, _steps(result))))]


def _transposed(call: relax.Call, shapes: list[Shape], result: Shape) -> list[Piece]:
    (shape,) = shapes
    axes = call.attrs.axes
    axes = range(len(shape))[::-1] if axes is None else [int(a) % len(shape) for a in axes]
    steps = _steps(shape)
    box = tuple(map(Dim, result, [steps[a] for a in axes], _steps(result)))
    return [Piece(0, 0, 0, box)]


# By Relax's operator: its pieces, given the call and the shapes of operands and result; None where
# it is more than a move.
_PIECES = {
    "relax.concat": _concatenated,
    "relax.nn.pad": _padded,
    "relax.strided_slice": _sliced,
    "relax.permute_dims": _transposed,
}
