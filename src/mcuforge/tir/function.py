"""Kernels written statement by statement, where TVMScript would need one text for all shapes."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import ir, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

Frame = Callable[[], AbstractContextManager[Any]]
"""Opens a part of a function that is under construction."""


class Function:
    """Writes a PrimFunc statement by statement, so that Python loops unroll and specialize it."""

    def __init__(self, name: str) -> None:
        self._builder = IRBuilder()
        self._builder.__enter__()
        self._frame = T.prim_func(private=True)
        self._frame.__enter__()
        T.func_name(name)
        self.constants: list[np.ndarray] = []
        """Values of the parameters that ``constant`` declared, in their order."""

    def param(self, name: str, size: int, dtype: str = "int8") -> tirx.Var:
        """A parameter: a flat buffer."""
        return T.arg(name, T.buffer((size,), dtype))

    def constant(self, name: str, value: np.ndarray) -> tirx.Var:
        """A parameter that always takes this value: a flat buffer."""
        self.constants.append(value)
        return self.param(name, value.size, str(value.dtype))

    def scratch(self, name: str, size: int, dtype: str = "int8") -> tirx.Var:
        """A flat buffer in the workspace."""
        return self._named(name, T.alloc_buffer((size,), dtype))

    @contextmanager
    def loop(self, name: str, extent: int | ir.Expr) -> Iterator[ir.Expr]:
        """A loop from 0 to extent; a single iteration is written without one."""
        if isinstance(extent, int) and extent == 1:
            yield T.int32(0)
            return
        with T.serial(0, extent) as index:
            yield self._named(name, index)

    @contextmanager
    def repeat(self, extent: int) -> Iterator[ir.Expr]:
        """A loop around blocks, of a single iteration too; its index has no name of its own."""
        with T.serial(0, extent) as index:
            yield index

    @contextmanager
    def when(self, condition: ir.Expr) -> Iterator[None]:
        """What is written inside runs if the condition holds."""
        with T.If(condition), T.Then():
            yield

    @contextmanager
    def branch(self, condition: ir.Expr) -> Iterator[tuple[Frame, Frame]]:
        """Two frames, to be entered one after the other: what runs if it holds, and what else.

        ``with f.branch(c) as (then, otherwise)``, and inside ``with then(): ...`` and
        ``with otherwise(): ...``.
        """
        with T.If(condition):
            yield T.Then, T.Else

    def let(self, name: str, value: ir.Expr) -> ir.Expr:
        """Names a value."""
        return self._named(name, T.Bind(value))

    def variable(self, name: str, value: ir.Expr) -> "Variable":
        """A local scalar or vector that can be assigned."""
        buffer = self._named(name, T.alloc_buffer((1,), str(value.ty.dtype), scope="local"))
        T.buffer_store(buffer, value, [0])
        return Variable(buffer)

    def store(self, buffer: tirx.Var, at: ir.Expr | int, value: ir.Expr) -> None:
        """Writes an element of a flat buffer."""
        T.buffer_store(buffer, value, [at])

    def do(self, call: ir.Expr) -> None:
        """A call for its effect."""
        T.evaluate(call)

    def done(self) -> tirx.PrimFunc:
        """The finished function."""
        self._frame.__exit__(None, None, None)
        self._builder.__exit__(None, None, None)
        return self._builder.get()

    def _named(self, name: str, value: Any) -> Any:
        IRBuilder.name(name, value)
        return value


@dataclass(frozen=True)
class Variable:
    """A local of ``Function.variable``."""

    buffer: tirx.Var

    @property
    def value(self) -> ir.Expr:
        return self.buffer[0]

    def set(self, value: ir.Expr) -> None:
        T.buffer_store(self.buffer, value, [0])


def address(buffer: tirx.Var, index: ir.Expr | int) -> ir.Expr:
    """Pointer to an element."""
    return T.address_of(buffer[index])


def copy_bytes(to: ir.Expr, source: ir.Expr, count: int) -> ir.Expr:
    """C's ``memcpy``: between two pointers, which may not overlap."""
    return T.call_extern("void", "memcpy", to, source, T.int32(count))


def lesser(a: ir.Expr, b: int) -> ir.Expr:
    return T.min(a, T.int32(b))
