"""Operators of TFLite that move or choose elements, as operators of Relax on the same elements."""

from collections.abc import Sequence

import numpy as np
import tflite
from tvm import relax
from tvm.relax.frontend.tflite.tflite_frontend import OperatorConverter, TensorWrapper

from mcuforge.errors import ModelError


class MovingConverter(OperatorConverter):
    """TVM's converter, with these operators as LiteRT has them: any rank, type and axis."""

    def _extents(self, tensor: TensorWrapper) -> list[int]:
        return [int(extent) for extent in self.get_tensor_shape(tensor)]

    def _values(self, tensor: TensorWrapper) -> list[int]:
        """The numbers of a constant, such as axes or extents."""
        return [int(value) for value in self.get_tensor_value(tensor).reshape(-1)]

    def _axis(self, tensor: TensorWrapper, rank: int) -> int:
        (axis,) = self._values(tensor)
        return _axis(axis, rank)

    def convert_reshape(self, op):
        source, *target = self.get_input_tensors(op)
        extents = [int(extent) for extent in self.get_tensor_shape(source)]
        if target:
            wanted = self.get_tensor_value(target[0]).reshape(-1).tolist()
        else:
            wanted = options_of(op, tflite.ReshapeOptions).NewShapeAsNumpy()
            wanted = [] if isinstance(wanted, int) else wanted.tolist()
            # What old converters write for a scalar.
            wanted = [] if wanted == [0] else wanted
        if wanted.count(-1) == 1:
            rest = int(np.prod([extent for extent in wanted if extent != -1]))
            wanted[wanted.index(-1)] = int(np.prod(extents)) // max(rest, 1)
        if min(wanted, default=1) < 0 or np.prod(wanted) != np.prod(extents):
            raise ModelError(f"cannot reshape {extents} to {wanted}")
        return relax.op.reshape(self.get_tensor_expr(source), wanted)

    def convert_squeeze(self, op):
        # TVM squeezes nothing where no dimensions are given, TFLite all of extent 1.
        (source,) = self.get_input_tensors(op)
        extents = [int(extent) for extent in self.get_tensor_shape(source)]
        dims = options_of(op, tflite.SqueezeOptions).SqueezeDimsAsNumpy()
        dims = [] if isinstance(dims, int) else [int(d) % max(len(extents), 1) for d in dims]
        dims = dims or [d for d, extent in enumerate(extents) if extent == 1]
        if any(extents[d : d + 1] != [1] for d in dims):
            raise ModelError(f"cannot squeeze dimensions {dims} of {extents}")
        kept = [extent for d, extent in enumerate(extents) if d not in dims]
        return relax.op.reshape(self.get_tensor_expr(source), kept)

    def convert_strided_slice(self, op):
        source, begin, end, strides = self.get_input_tensors(op)
        extents = [int(extent) for extent in self.get_tensor_shape(source)]
        bounds = (self.get_tensor_value(t).reshape(-1).tolist() for t in (begin, end, strides))
        slices, shape = _slices(extents, *bounds, options_of(op, tflite.StridedSliceOptions))
        data = self.get_tensor_expr(source)
        if slices:
            axes, (begin, end, strides) = list(range(len(slices))), zip(*slices, strict=True)
            data = relax.op.strided_slice(data, axes, list(begin), list(end), list(strides))
        return relax.op.reshape(data, shape)

    def convert_split(self, op):
        axis, source = self.get_input_tensors(op)
        count = options_of(op, tflite.SplitOptions).NumSplits()
        extents = self._extents(source)
        along = self._axis(axis, len(extents))
        if extents[along] % max(count, 1):
            raise ModelError(f"cannot split {extents} into {count} along dimension {along}")
        return self._split(op, source, along, [extents[along] // max(count, 1)] * count)

    def convert_split_v(self, op):
        source, sizes, axis = self.get_input_tensors(op)
        extents, sizes = self._extents(source), self._values(sizes)
        along = self._axis(axis, len(extents))
        if options_of(op, tflite.SplitVOptions).NumSplits() != len(sizes):
            raise ModelError(f"num_splits is not the number of sizes, {len(sizes)}")
        if sizes.count(-1) == 1:
            sizes[sizes.index(-1)] = extents[along] - sum(sizes) - 1
        if min(sizes, default=0) < 1 or sum(sizes) != extents[along]:
            raise ModelError(f"cannot split {extents} into {sizes} along dimension {along}")
        return self._split(op, source, along, sizes)

    def _split(self, op, source, axis: int, sizes: list[int]) -> relax.Expr:
        """Parts of the given sizes, one for each result."""
        if len(sizes) != len(self.get_output_tensors(op)):
            raise ModelError(f"{len(sizes)} parts are not one for each result")
        data, ends = self.get_tensor_expr(source), np.cumsum(sizes).tolist()
        return _one_or_all(
            [
                relax.op.strided_slice(data, axes=[axis], begin=[end - size], end=[end])
                for size, end in zip(sizes, ends, strict=True)
            ]
        )

    def convert_unpack(self, op):
        (source,) = self.get_input_tensors(op)
        options = options_of(op, tflite.UnpackOptions)
        extents, count = self._extents(source), len(self.get_output_tensors(op))
        axis = _axis(options.Axis(), len(extents))
        if not options.Num() == extents[axis] == count:
            raise ModelError(f"cannot unpack dimension {axis} of {extents} into {count}")
        data, shape = self.get_tensor_expr(source), extents[:axis] + extents[axis + 1 :]
        parts = (relax.op.strided_slice(data, [axis], [i], [i + 1]) for i in range(count))
        return _one_or_all([relax.op.reshape(part, shape) for part in parts])

    def convert_slice(self, op):
        source, begin, size = self.get_input_tensors(op)
        extents = self._extents(source)
        begin, size = self._values(begin), self._values(size)
        if not len(begin) == len(size) == len(extents):
            raise ModelError(f"begin {begin} and size {size} do not fit {extents}")
        end = [
            extent if length == -1 else first + length
            for first, length, extent in zip(begin, size, extents, strict=True)
        ]
        if any(not 0 <= b < e <= x for b, e, x in zip(begin, end, extents, strict=True)):
            raise ModelError(f"begin {begin} and size {size} take nothing, or more than {extents}")
        data = self.get_tensor_expr(source)
        return relax.op.strided_slice(data, list(range(len(begin))), begin, end) if begin else data

    def convert_expand_dims(self, op):
        source, axis = self.get_input_tensors(op)
        extents = self._extents(source)
        extents.insert(self._axis(axis, len(extents) + 1), 1)
        return relax.op.reshape(self.get_tensor_expr(source), extents)


def _axis(axis: int, rank: int) -> int:
    """An axis counted from the first dimension; one below 0 is counted from behind the last."""
    if not -rank <= axis < rank:
        raise ModelError(f"axis {axis} is none of {rank} dimensions")
    return axis % rank


def _one_or_all(parts: Sequence[relax.Expr]) -> relax.Expr:
    return parts[0] if len(parts) == 1 else relax.Tuple(parts)


def options_of(op: tflite.Operator, kind: type):
    """The builtin options of an operator, as the schema's class for them."""
    options = kind()
    options.Init(op.BuiltinOptions().Bytes, op.BuiltinOptions().Pos)
    return options


def _slices(
    extents: list[int],
    begin: list[int],
    end: list[int],
    strides: list[int],
    options: tflite.StridedSliceOptions,
) -> tuple[list[tuple[int, int, int]], list[int]]:
    """What STRIDED_SLICE takes (StridedSliceStartForAxis, internal/strided_slice_logic.h).

    Returns:
        First, last and step of each dimension as ``relax.strided_slice`` wants them, and the
        result's shape.
    """

    def masked(mask: int, entry: int) -> bool:
        return bool(mask >> entry & 1)

    ellipsis, new_axis = options.EllipsisMask(), options.NewAxisMask() & ~options.EllipsisMask()
    entries = range(len(begin))
    if not len(begin) == len(end) == len(strides) or 0 in strides:
        raise ModelError(f"begin {begin}, end {end} and strides {strides} do not fit")
    slices, shape = [], []
    named = sum(not masked(new_axis | ellipsis, entry) for entry in entries)
    whole = len(extents) - named
    for entry in entries:
        if masked(ellipsis, entry):
            for extent in extents[len(slices) : len(slices) + whole]:
                slices.append((0, extent, 1))
                shape.append(extent)
            continue
        if masked(new_axis, entry):
            shape.append(1)
            continue
        if len(slices) == len(extents):
            raise ModelError(f"begin {begin} has more dimensions than {extents}")
        extent, step = extents[len(slices)], strides[entry]
        if masked(options.ShrinkAxisMask(), entry):
            first = begin[entry] + (extent if begin[entry] < 0 else 0)
            if not 0 <= first < extent:
                raise ModelError(f"begin {begin} is not within {extents}")
            slices.append((first, first + 1, 1))
            continue
        first = None if masked(options.BeginMask(), entry) else begin[entry]
        last = None if masked(options.EndMask(), entry) else end[entry]
        first = slice(first, None, step).indices(extent)[0]
        if last is not None and options.Offset():
            last += first
        count = len(range(first, slice(None, last, step).indices(extent)[1], step))
        if not count:
            raise ModelError(f"begin {begin}, end {end} and strides {strides} take nothing")
        stop = first + count * step
        slices.append((first, stop if stop >= 0 else -extent - 1, step))
        shape.append(count)
    rest = extents[len(slices) :]
    return slices + [(0, extent, 1) for extent in rest], shape + rest
