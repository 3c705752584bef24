"""Operators of TFLite that compare, choose and convert elements, as operators of Relax."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tflite
from tvm import relax

from mcuforge.errors import ModelError
from mcuforge.exact import arithmetic
from mcuforge.formats.tflite.moving import MovingConverter

_COMPARISONS = {
    "EQUAL": relax.op.equal,
    "GREATER": relax.op.greater,
    "GREATER_EQUAL": relax.op.greater_equal,
    "LESS": relax.op.less,
    "LESS_EQUAL": relax.op.less_equal,
    "NOT_EQUAL": relax.op.not_equal,
}


class ChoosingConverter(MovingConverter):
    """TVM's converter, with these operators as LiteRT has them."""

    def __init__(self, model: Any, subgraph: Any, exp_tab: Any, bb: Any) -> None:
        super().__init__(model, subgraph, exp_tab, bb)
        for name, compare in _COMPARISONS.items():
            self.convert_map[name] = functools.partial(self._compare, compare=compare)
        self.convert_map["NEG"] = self._negate
        self.convert_map["SELECT_V2"] = self._select

    def _compare(self, op: tflite.Operator, compare: Callable[..., relax.Expr]) -> relax.Expr:
        """A comparison; of 8 bits what both stand for, in steps that scales do not depend on."""
        sides = []
        for tensor in self.get_input_tensors(op):
            data = self.get_tensor_expr(tensor)
            dtype = self.get_tensor_type_str(tensor.tensor.Type())
            if dtype in ("int8", "uint8"):
                quantization = tensor.tensor.Quantization()
                scale, zero_point = quantization.Scale(0), quantization.ZeroPoint(0)
                table = arithmetic.comparison_table(scale, zero_point, dtype)
                low, _ = arithmetic.quantized_range(dtype)
                place = relax.op.subtract(relax.op.astype(data, "int32"), relax.const(low, "int32"))
                data = relax.op.take(relax.const(table), place, 0, mode="fast")
            sides.append(data)
        return compare(*sides)

    def _negate(self, op: tflite.Operator) -> relax.Expr:
        # The reference kernel does not look at scales.
        return relax.op.negative(self.get_tensor_expr(self.get_input_tensors(op)[0]))

    def _select(self, op: tflite.Operator) -> relax.Expr:
        return relax.op.where(*map(self.get_tensor_expr, self.get_input_tensors(op)))

    def convert_select(self, op: tflite.Operator) -> relax.Expr:
        # The condition chooses elements, or the first dimension's parts.
        condition, a, b = self.get_input_tensors(op)
        extents, shape = self._extents(condition), self._extents(a)
        if self._extents(b) != shape or extents not in (shape, shape[:1], []):
            raise ModelError(f"cannot choose from {shape} and {self._extents(b)} with {extents}")
        if extents != shape:
            extents = extents + [1] * (len(shape) - len(extents))
        chosen = relax.op.reshape(self.get_tensor_expr(condition), extents)
        return relax.op.where(chosen, self.get_tensor_expr(a), self.get_tensor_expr(b))

    def convert_cast(self, op: tflite.Operator) -> relax.Expr:
        """Integers lose their high bits; what a float32 exceeds becomes the nearest integer."""
        (source,), (result,) = self.get_input_tensors(op), self.get_output_tensors(op)
        data = self.get_tensor_expr(source)
        given, wanted = (self.get_tensor_type_str(t.tensor.Type()) for t in (source, result))
        if given == wanted:
            return relax.op.reshape(data, self._extents(source))
        if wanted == "bool":
            return relax.op.not_equal(data, relax.const(0, given))
        if given != "float32" or wanted == "float32":
            return relax.op.astype(data, wanted)
        low, high = np.iinfo(wanted).min, np.iinfo(wanted).max
        inside = relax.op.less(data, relax.const(np.float32(high + 1)))
        integers = relax.op.astype(relax.op.maximum(data, relax.const(np.float32(low))), wanted)
        # Not a number becomes the largest integer.
        return relax.op.where(inside, integers, relax.const(high, wanted))
