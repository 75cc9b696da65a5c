"""The meaning of kernels: a slow interpreter, one element at a time, over NumPy scalars.

``run`` executes a kernel exactly as ``ir.py`` describes it; compiled code is tested against it. Scalar operations are those of
``core.scalar``. Reading or writing outside a buffer is an error here, where compiled code would touch foreign memory. It does no
optimisation and no parallel work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.core.scalar import SCALAR_OPS, cast_numpy
from tilewright.kernel.ir import DOTS, Check, Expr, If, Kernel, Let, Loop, Prefetch, Reg, Set, Stmt, Store

__all__ = ["KernelFault", "dot_accumulated", "fused", "run"]


class KernelFault(Exception):
    """A kernel did what it must not: an access outside a buffer, or a name that is not there."""


def run(kernel: Kernel, buffers: Mapping[str, np.ndarray[Any, Any]], lo: int, hi: int) -> list[int]:
    """Run the part ``lo``..``hi`` of ``kernel`` on flat arrays, in place; returns the codes of failed checks in order.

    ``buffers`` maps each argument's name to a one-dimensional array of its type. Scratch areas are filled with a pattern (NaN,
    or the greatest integer) so that reading them before writing shows.
    """
    return _Machine(kernel, buffers, lo, hi).run()


class _Registers:
    """A register tile: for every element one value, or one for every lane position."""

    def __init__(self, shape: tuple[int, ...], lanes: int, value: Any) -> None:
        size = int(np.prod(shape, dtype=np.int64))
        self.shape, self.lanes = shape, lanes
        self.values = [[value] * max(lanes, 1) for _ in range(size)]

    def element(self, at: Sequence[int]) -> list[Any]:
        """The lane positions of one element."""
        flat = 0
        for i, size in zip(at, self.shape, strict=True):
            if not 0 <= i < size:
                raise KernelFault(f"register index {tuple(at)} outside the tile {self.shape}")
            flat = flat * size + i
        return self.values[flat]


class _Machine:
    def __init__(self, kernel: Kernel, buffers: Mapping[str, np.ndarray[Any, Any]], lo: int, hi: int) -> None:
        self.kernel = kernel
        self.memory: dict[str, np.ndarray[Any, Any]] = {}
        for buf in kernel.buffers:
            array = buffers[buf.name]
            if array.dtype != buf.dtype.numpy or array.ndim != 1:
                raise KernelFault(
                    f"buffer {buf.name} must be a flat array of {buf.dtype}, got {array.dtype} {array.shape}"
                )
            self.memory[buf.name] = array
        for area in kernel.scratch:
            self.memory[area.name] = np.full(area.size, _unwritten(area.dtype), area.dtype.numpy)
        self.names: dict[str, Any] = {"lo": np.int64(lo), "hi": np.int64(hi)}
        self.registers: dict[str, _Registers] = {}
        self.position = 0
        self.failed: list[int] = []

    def run(self) -> list[int]:
        self.body(self.kernel.body)
        return self.failed

    # ---- statements -----------------------------------------------------------------------------------------------

    def body(self, statements: Sequence[Stmt]) -> None:
        names, registers = dict(self.names), dict(self.registers)
        for s in statements:
            self.statement(s)
        self.names, self.registers = names, registers

    def statement(self, s: Stmt) -> None:
        match s:
            case Loop():
                self.loop(s)
            case Let():
                self.names[s.name] = self.value(s.value)
            case Store():
                if s.mask is None or self.value(s.mask):
                    self.memory[s.buffer][self.place(s.buffer, int(self.value(s.index)))] = self.value(
                        s.value
                    )
            case Prefetch():
                pass
            case Reg():
                self.registers[s.name] = _Registers(s.shape, s.lanes, self.value(s.init))
            case Set():
                value = self.value(s.value)
                register = self.registers[s.name]
                register.element([int(self.value(i)) for i in s.at])[
                    self.position if register.lanes else 0
                ] = value
            case Check():
                if not self.value(s.condition):
                    self.failed.append(s.code)
            case If():
                self.body(s.then if self.value(s.condition) else s.orelse)

    def loop(self, s: Loop) -> None:
        start, stop = int(self.value(s.start)), int(self.value(s.stop))
        for i in range(start, stop):
            if s.kind == "vector":
                self.position = (i - start) % s.lanes
            outer = self.names.get(s.var)
            self.names[s.var] = np.int64(i)
            self.body(s.body)
            if outer is None:
                del self.names[s.var]
            else:
                self.names[s.var] = outer
        if s.kind == "vector":
            self.position = 0

    def place(self, buffer: str, i: int) -> int:
        if not 0 <= i < len(self.memory[buffer]):
            raise KernelFault(f"access to element {i} of {buffer}, which has {len(self.memory[buffer])}")
        return i

    # ---- expressions ----------------------------------------------------------------------------------------------

    def value(self, e: Expr) -> Any:
        """The NumPy scalar that ``e`` gives now; shared parts are evaluated once."""
        memo: dict[Expr, Any] = {}
        stack = [e]
        while stack:
            x = stack[-1]
            if x in memo:
                stack.pop()
                continue
            pending = [a for a in x.args if a not in memo] if x.op not in ("across", "load") else []
            if x.op == "load":
                pending = [a for a in x.args[1:] if a not in memo]
                wanted = not pending and (len(x.args) == 1 or bool(memo[x.args[1]]))
                pending += [x.args[0]] if wanted and x.args[0] not in memo else []
            if pending:
                stack.extend(pending)
                continue
            memo[x] = self.apply(x, [memo.get(a) for a in x.args])
            stack.pop()
        return memo[e]

    def apply(self, e: Expr, args: list[Any]) -> Any:
        if e.op == "const":
            return _scalar(e.attr, e.dtype)
        if e.op == "var":
            if e.attr not in self.names:
                raise KernelFault(f"{e.attr} is not defined here")
            return self.names[e.attr]
        if e.op == "load":
            if len(args) > 1 and not args[1]:
                return args[2]
            return self.memory[e.attr][self.place(e.attr, int(args[0]))]
        if e.op == "reg":
            register = self.registers[e.attr]
            return register.element([int(i) for i in args])[self.position if register.lanes else 0]
        if e.op == "across":
            return self.across(e)
        if e.op == "cast":
            return cast_numpy(args[0], e.dtype)[()]
        if e.op == "bitcast":
            return np.asarray(args[0]).view(e.dtype.numpy)[()]
        if e.op == "fma":
            return fused(e.dtype, *args)
        if e.op == "rarely":
            return args[1] if args[0] else args[2]
        if e.op == "dotacc":
            return dot_accumulated(e.attr, *args)
        if e.op in ("idiv", "imod"):
            a, b = int(args[0]), int(args[1])
            return np.int64(a // b if e.op == "idiv" else a % b)
        return _scalar_op(e.op, args, e.dtype)

    def across(self, e: Expr) -> Any:
        """Combine lane positions as a tree: the first half with the second half, an odd last one carried along."""
        register = self.registers[e.args[0].attr]
        values = list(register.element([int(self.value(i)) for i in e.args[0].args]))
        rest = []
        while len(values) > 1:
            half = len(values) // 2
            if len(values) % 2:
                rest.append(values.pop())
            values = [_scalar_op(e.attr, [values[i], values[half + i]], e.dtype) for i in range(half)]
        result = values[0]
        for one in reversed(rest):
            result = _scalar_op(e.attr, [result, one], e.dtype)
        return result


def _unwritten(dtype: DType) -> Any:
    if dtype.is_float:
        return np.nan
    return True if dtype.is_bool else 2 ** (dtype.bits - (dtype.kind == "i")) - 1


def _scalar(value: bool | int | float, dtype: DType) -> Any:
    with np.errstate(all="ignore"):
        if dtype.is_integer:
            return np.asarray(value & (2**dtype.bits - 1), np.uint64).astype(dtype.numpy)[()]
        return np.asarray(value).astype(dtype.numpy)[()]


def _scalar_op(name: str, args: list[Any], dtype: DType) -> Any:
    if dtype is dt.int64 and name in ("add", "sub", "mul"):  # most of what a kernel does is index arithmetic
        a, b = int(args[0]), int(args[1])
        exact = a + b if name == "add" else a - b if name == "sub" else a * b
        return np.int64((exact + 2**63) % 2**64 - 2**63)
    with np.errstate(all="ignore"):
        return np.asarray(SCALAR_OPS[name].numpy(*args)).astype(dtype.numpy, copy=False)[()]


def fused(dtype: DType, a: Any, b: Any, c: Any) -> Any:
    """a*b + c rounded once; half types are computed in float32 and then rounded to the half type."""
    if dtype.bits == 16:
        with np.errstate(all="ignore"):
            return fused(dt.float32, *(np.float32(x) for x in (a, b, c))).astype(dtype.numpy)
    with np.errstate(all="ignore"):
        rough = np.float64(a) * np.float64(b) + np.float64(c)
        if not (np.isfinite(a) and np.isfinite(b) and np.isfinite(c)):
            return rough.astype(dtype.numpy)
        exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
        if exact == 0:
            return rough.astype(dtype.numpy)
        try:
            near = float(exact)
        except OverflowError:
            near = float("inf") if exact > 0 else float("-inf")
        if dtype is dt.float64 or not np.isfinite(near):
            return dtype.numpy.type(near)
        if Fraction(near) != exact and not int(np.float64(near).view(np.int64)) & 1:
            # Rounding to odd: the double's last bit remembers that it is inexact, so that the second rounding is right.
            near = float(np.nextafter(near, np.inf if exact > Fraction(near) else -np.inf))
        return np.float32(near)


def dot_accumulated(elements: str, c: Any, a: Any, b: Any) -> Any:
    """c + products of the elements packed in the words a and b: exact and wrapping for integers, the last first for floats."""
    left, right, total = DOTS[elements]
    xs, ys = (np.asarray(w, np.uint32).reshape(1).view(t.numpy) for w, t in ((a, left), (b, right)))
    if total is dt.int32:
        exact = int(c) + sum(int(x) * int(y) for x, y in zip(xs, ys, strict=True))
        return np.int32((exact + 2**31) % 2**32 - 2**31)
    for x, y in zip(reversed(xs), reversed(ys), strict=True):
        c = fused(dt.float32, np.float32(x), np.float32(y), c)
    return c
