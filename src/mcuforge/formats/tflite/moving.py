"""Operators of TFLite that move or choose elements, as operators of Relax on the same elements."""

import math
from collections.abc import Sequence
from typing import Any

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

    def convert_reshape(self, op: tflite.Operator) -> relax.Expr:
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

    def convert_pad(self, op: tflite.Operator) -> relax.Expr:
        # Relax holds the value as a float64, which not every int64 is.
        for fill in self.get_input_tensors(op)[2:]:
            for value in self.get_tensor_value(fill).reshape(-1).tolist():
                if isinstance(value, int) and int(float(value)) != value:
                    raise ModelError(f"cannot pad with {value}, which no float64 is")
        return super().convert_pad(op)

    def convert_squeeze(self, op: tflite.Operator) -> relax.Expr:
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

    def convert_strided_slice(self, op: tflite.Operator) -> relax.Expr:
        source, begin, end, strides = self.get_input_tensors(op)
        extents = [int(extent) for extent in self.get_tensor_shape(source)]
        options = options_of(op, tflite.StridedSliceOptions)
        slices, shape = _slices(
            extents, self._values(begin), self._values(end), self._values(strides), options
        )
        data = self.get_tensor_expr(source)
        if slices:
            axes, (begin, end, strides) = list(range(len(slices))), zip(*slices, strict=True)
            data = relax.op.strided_slice(data, axes, list(begin), list(end), list(strides))
        return relax.op.reshape(data, shape)

    def convert_split(self, op: tflite.Operator) -> relax.Expr:
        axis, source = self.get_input_tensors(op)
        count = options_of(op, tflite.SplitOptions).NumSplits()
        extents = self._extents(source)
        along = self._axis(axis, len(extents))
        if extents[along] % max(count, 1):
            raise ModelError(f"cannot split {extents} into {count} along dimension {along}")
        return self._split(op, source, along, [extents[along] // max(count, 1)] * count)

    def convert_split_v(self, op: tflite.Operator) -> relax.Expr:
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

    def _split(
        self, op: tflite.Operator, source: TensorWrapper, axis: int, sizes: list[int]
    ) -> relax.Expr:
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

    def convert_unpack(self, op: tflite.Operator) -> relax.Expr:
        (source,) = self.get_input_tensors(op)
        options = options_of(op, tflite.UnpackOptions)
        extents, count = self._extents(source), len(self.get_output_tensors(op))
        axis = _axis(options.Axis(), len(extents))
        if not options.Num() == extents[axis] == count:
            raise ModelError(f"cannot unpack dimension {axis} of {extents} into {count}")
        data, shape = self.get_tensor_expr(source), extents[:axis] + extents[axis + 1 :]
        parts = (relax.op.strided_slice(data, [axis], [i], [i + 1]) for i in range(count))
        return _one_or_all([relax.op.reshape(part, shape) for part in parts])

    def convert_slice(self, op: tflite.Operator) -> relax.Expr:
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

    def convert_expand_dims(self, op: tflite.Operator) -> relax.Expr:
        source, axis = self.get_input_tensors(op)
        extents = self._extents(source)
        extents.insert(self._axis(axis, len(extents) + 1), 1)
        return relax.op.reshape(self.get_tensor_expr(source), extents)

    def convert_gather(self, op: tflite.Operator) -> relax.Expr:
        source, positions = self.get_input_tensors(op)
        options = options_of(op, tflite.GatherOptions)
        extents, chosen = self._extents(source), self.get_tensor_value(positions)
        axis = _axis(options.Axis(), len(extents))
        batch = options.BatchDims() + (chosen.ndim if options.BatchDims() < 0 else 0)
        lead = list(chosen.shape[:batch])
        if not 0 <= batch <= min(axis, chosen.ndim) or lead != extents[:batch]:
            raise ModelError(f"batch_dims {options.BatchDims()} do not fit {extents}")
        if chosen.size == 0 or chosen.min() < 0 or chosen.max() >= extents[axis]:
            raise ModelError(f"positions are none, or not within dimension {axis} of {extents}")
        data = self.get_tensor_expr(source)
        shape = extents[:axis] + list(chosen.shape[batch:]) + extents[axis + 1 :]
        rows = chosen.reshape(-1).astype(np.int32)
        if batch:  # of all rows, where each batch has its own
            outer = [math.prod(extents[:batch]), math.prod(extents[batch:axis]), 1]
            first = np.arange(outer[0] * outer[1]).reshape(outer) * extents[axis]
            rows = (first + rows.reshape(outer[0], 1, -1)).reshape(-1).astype(np.int32)
            data = relax.op.reshape(data, [first.size * extents[axis], *extents[axis + 1 :]])
            axis = 0
        return relax.op.reshape(relax.op.take(data, relax.const(rows), axis, mode="fast"), shape)

    def convert_broadcast_to(self, op: tflite.Operator) -> relax.Expr:
        source, shape = self.get_input_tensors(op)
        return relax.op.broadcast_to(self.get_tensor_expr(source), self._values(shape))

    def convert_fill(self, op: tflite.Operator) -> relax.Expr:
        shape, value = self.get_input_tensors(op)
        return relax.op.broadcast_to(self.get_tensor_expr(value), self._values(shape))

    def convert_tile(self, op: tflite.Operator) -> relax.Expr:
        source, times = self.get_input_tensors(op)
        extents, times = self._extents(source), self._values(times)
        if len(times) != len(extents) or min(times, default=1) < 1:
            raise ModelError(f"cannot repeat {extents} {times} times")
        data = relax.op.reshape(
            self.get_tensor_expr(source), [part for extent in extents for part in (1, extent)]
        )
        pairs = zip(times, extents, strict=True)
        wide = relax.op.broadcast_to(data, [part for pair in pairs for part in pair])
        return relax.op.reshape(wide, [t * x for t, x in zip(times, extents, strict=True)])

    def convert_space_to_depth(self, op: tflite.Operator) -> relax.Expr:
        (source,) = self.get_input_tensors(op)
        block = options_of(op, tflite.SpaceToDepthOptions).BlockSize()
        n, height, width, channels = extents = self._extents(source)
        if block < 1 or height % block or width % block:
            raise ModelError(f"cannot take {extents} for blocks of {block} by {block}")
        height, width = height // block, width // block
        parts = [n, height, block, width, block, channels]
        shape = [n, height, width, block * block * channels]
        return _rearranged(self.get_tensor_expr(source), parts, [0, 1, 3, 2, 4, 5], shape)

    def convert_depth_to_space(self, op: tflite.Operator) -> relax.Expr:
        (source,) = self.get_input_tensors(op)
        block = options_of(op, tflite.DepthToSpaceOptions).BlockSize()
        n, height, width, channels = extents = self._extents(source)
        if block < 1 or channels % block**2:
            raise ModelError(f"cannot make blocks of {block} by {block} of {extents}")
        channels //= block**2
        parts = [n, height, width, block, block, channels]
        shape = [n, height * block, width * block, channels]
        return _rearranged(self.get_tensor_expr(source), parts, [0, 1, 3, 2, 4, 5], shape)

    def convert_space_to_batch_nd(self, op: tflite.Operator) -> relax.Expr:
        source, blocks, pads = self.get_input_tensors(op)
        (result,) = self.get_output_tensors(op)
        extents, blocks, widths = self._extents(source), self._values(blocks), self._values(pads)
        count = len(blocks)
        if count != len(extents) - 2 or len(widths) != 2 * count or min(widths) < 0:
            raise ModelError(f"blocks {blocks} and paddings {widths} do not fit {extents}")
        sums = zip(extents[1:], widths[::2], widths[1::2], strict=False)
        padded = [extent + before + after for extent, before, after in sums]
        if min(blocks) < 1 or any(x % b for x, b in zip(padded, blocks, strict=True)):
            raise ModelError(f"cannot divide {padded} into blocks of {blocks}")
        data = self.get_tensor_expr(source)
        if any(widths):
            zero = result.tensor.Quantization().ZeroPoint(0) if result.qnn_params else 0
            data = relax.op.nn.pad(data, [0, 0, *widths, 0, 0], "constant", float(zero))
        pairs = [(x // b, b) for x, b in zip(padded, blocks, strict=True)]
        parts = [extents[0], *(part for pair in pairs for part in pair), extents[-1]]
        spatial = range(1, 2 * count, 2)
        order = [*(d + 1 for d in spatial), 0, *spatial, 2 * count + 1]
        shape = [extents[0] * math.prod(blocks), *(size for size, _ in pairs), extents[-1]]
        return _rearranged(data, parts, order, shape)

    def convert_batch_to_space_nd(self, op: tflite.Operator) -> relax.Expr:
        source, blocks, crops = self.get_input_tensors(op)
        extents, blocks, widths = self._extents(source), self._values(blocks), self._values(crops)
        count = len(blocks)
        if count != len(extents) - 2 or len(widths) != 2 * count or min(widths) < 0:
            raise ModelError(f"blocks {blocks} and crops {widths} do not fit {extents}")
        if min(blocks) < 1 or extents[0] % math.prod(blocks):
            raise ModelError(f"cannot make blocks of {blocks} of {extents[0]} images")
        batch = extents[0] // math.prod(blocks)
        order = [count, *(d for i in range(count) for d in (count + 1 + i, i)), 2 * count + 1]
        whole = [x * b for x, b in zip(extents[1:-1], blocks, strict=True)]
        parts = [*blocks, batch, *extents[1:]]
        data = self.get_tensor_expr(source)
        data = _rearranged(data, parts, order, [batch, *whole, extents[-1]])
        end = [size - after for size, after in zip(whole, widths[1::2], strict=True)]
        if any(b >= e for b, e in zip(widths[::2], end, strict=True)):
            raise ModelError(f"crops {widths} leave nothing of {whole}")
        return relax.op.strided_slice(data, list(range(1, count + 1)), widths[::2], end)

    def convert_mirror_pad(self, op: tflite.Operator) -> relax.Expr:
        source, pads = self.get_input_tensors(op)
        extents, widths = self._extents(source), self._values(pads)
        reflect = options_of(op, tflite.MirrorPadOptions).Mode() == tflite.MirrorPadMode.REFLECT
        if len(widths) != 2 * len(extents):
            raise ModelError(f"paddings {widths} do not fit {extents}")
        data = self.get_tensor_expr(source)
        for axis, extent in enumerate(extents):
            pair = widths[2 * axis : 2 * axis + 2]
            if min(pair) < 0 or max(pair) > extent - reflect:
                raise ModelError(f"paddings {pair} do not mirror dimension {axis} of {extents}")
            if any(pair):
                places = np.arange(extent, dtype=np.int32)
                places = np.pad(places, pair, mode="reflect" if reflect else "symmetric")
                data = relax.op.take(data, relax.const(places), axis, mode="fast")
        return data


def _rearranged(
    data: relax.Expr, parts: list[int], order: list[int], shape: list[int]
) -> relax.Expr:
    """Data (`parts`) with its dimensions in another order, taken for data (`shape`)."""
    moved = relax.op.permute_dims(relax.op.reshape(data, parts), order)
    return relax.op.reshape(moved, shape)


def _axis(axis: int, rank: int) -> int:
    """An axis counted from the first dimension; one below 0 is counted from behind the last."""
    if not -rank <= axis < rank:
        raise ModelError(f"axis {axis} is none of {rank} dimensions")
    return axis % rank


def _one_or_all(parts: Sequence[relax.Expr]) -> relax.Expr:
    return parts[0] if len(parts) == 1 else relax.Tuple(parts)


def options_of(op: tflite.Operator, kind: type) -> Any:
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
    slices: list[tuple[int, int, int]] = []
    shape: list[int] = []
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
        start = None if masked(options.BeginMask(), entry) else begin[entry]
        last = None if masked(options.EndMask(), entry) else end[entry]
        first = slice(start, None, step).indices(extent)[0]
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
