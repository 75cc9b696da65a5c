"""Is this a kernel? Checks what ``ir.py`` promises: names, types, access, and the rules of vector loops and registers.

``verify`` raises ``KernelError`` at the first thing that is wrong and says where and what. It does not check that indices stay
inside their buffers: kernels do not know how large those are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.core.scalar import SCALAR_OPS, result_dtype
from tilewright.kernel.ir import (
    DOTS,
    Buf,
    Check,
    Expr,
    If,
    Kernel,
    Let,
    Loop,
    Prefetch,
    Reg,
    Scratch,
    Set,
    Stmt,
    Store,
)

__all__ = ["KernelError", "verify"]

KEYWORDS = frozenset(
    (
        "check",
        "else",
        "for",
        "if",
        "in",
        "kernel",
        "let",
        "pass",
        "prefetch",
        "reg",
        "scratch",
        "unroll",
        "vector",
    )
)
_NAME = re.compile(r"[A-Za-z_]\w*(?:\.\w+)*")


class KernelError(Exception):
    """A kernel breaks a rule; the message names the kernel, the enclosing loops, the statement and the rule."""


def verify(kernel: Kernel) -> None:
    """Raise ``KernelError`` unless ``kernel`` keeps every rule of the kernel IR.

    >>> verify(Kernel((), (Store("o", index(0), const(1)),)))
    Traceback (most recent call last):
    tilewright.kernel.verify.KernelError: kernel kernel: store to o: there is no buffer or scratch area of this name
    """
    _Verifier(kernel).run()


@dataclass(frozen=True, slots=True)
class _Name:
    """What a variable stands for: its type, whether lanes differ, whether it is the variable of an unrolled loop."""

    dtype: DType
    varies: bool = False
    unrolled: bool = False


@dataclass(frozen=True, slots=True)
class _Register:
    declared: Reg
    inside: bool  # declared inside a vector loop


class _Verifier:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.access = {b.name: (b.dtype, b.access) for b in kernel.buffers}
        self.access |= {s.name: (s.dtype, "rw") for s in kernel.scratch}
        self.names: dict[str, _Name] = {"lo": _Name(dt.int64), "hi": _Name(dt.int64)}
        self.registers: dict[str, _Register] = {}
        self.lanes = 0  # of the vector loop around; 0 outside
        self.alone = False  # in a vector loop of one iteration: no two lanes meet
        self.where: list[str] = [f"kernel {kernel.name}"]
        self.seen: dict[Expr, bool] = {}  # expressions checked in this statement: whether lanes differ

    def fail(self, message: str) -> None:
        raise KernelError(": ".join([*self.where, message]))

    @contextmanager
    def inside(self, place: str) -> Iterator[None]:
        self.where.append(place)
        yield
        self.where.pop()

    def run(self) -> None:
        kernel = self.kernel
        if not _NAME.fullmatch(kernel.name):
            self.fail(f"the name {kernel.name!r} is not an identifier")
        for b in kernel.buffers:
            if b.access not in ("r", "w", "rw"):
                self.fail(f"buffer {b.name}: access must be r, w or rw, not {b.access!r}")
            if b.stream and b.access != "w":
                self.fail(f"buffer {b.name}: stores may pass the caches where a buffer is only written")
        for s in kernel.scratch:
            if s.size < 0:
                self.fail(f"scratch area {s.name}: its size must not be negative, got {s.size}")
        areas: list[Buf | Scratch] = [*kernel.buffers, *kernel.scratch]
        for area in areas:
            if area.dtype.is_complex:
                self.fail(
                    f"buffer {area.name}: kernels have no complex elements; take real and imaginary parts apart"
                )
        names = [a.name for a in areas]
        for name in names:
            self.check_name(name)
            if names.count(name) > 1:
                self.fail(f"two buffers are called {name}")
        self.body(kernel.body)

    def check_name(self, name: str) -> None:
        if not _NAME.fullmatch(name) or name in KEYWORDS or name in dt.BY_NAME:
            self.fail(f"{name!r} cannot be a name")

    def declare(self, name: str) -> None:
        """A name about to be bound must be new: nothing here hides anything else."""
        self.check_name(name)
        if name in self.names or name in self.registers or name in self.access:
            self.fail(f"the name {name} is taken")

    # ---- statements -----------------------------------------------------------------------------------------------

    def body(self, statements: Sequence[Stmt]) -> None:
        names, registers = dict(self.names), dict(self.registers)
        for s in statements:
            self.seen = {}
            match s:
                case Loop():
                    with self.inside(f"for {s.var}"):
                        self.loop(s)
                case If():
                    with self.inside("if"):
                        self.branch(s)
                case Store():
                    with self.inside(f"store to {s.buffer}"):
                        self.store(s)
                case Prefetch():
                    with self.inside(f"prefetch of {s.buffer}"):
                        self.prefetch(s)
                case Let():
                    with self.inside(f"let {s.name}"):
                        self.declare(s.name)
                        self.names[s.name] = _Name(s.value.dtype, self.expression(s.value))
                case Reg():
                    with self.inside(f"reg {s.name}"):
                        self.register(s)
                case Set():
                    with self.inside(f"set {s.name}"):
                        self.set(s)
                case Check():
                    with self.inside(f"check {s.code}"):
                        self.typed(s.condition, dt.bool_, "the condition")
                        if not 0 < s.code < 2**31:
                            self.fail("the code must be a positive 32-bit integer")
                case _:
                    self.fail(f"{s!r} is not a statement")  # type: ignore[unreachable]
        self.names, self.registers = names, registers

    def loop(self, s: Loop) -> None:
        if s.kind not in ("serial", "vector", "unroll"):
            self.fail(f"a loop is serial, vector or unroll, not {s.kind!r}")
        if (s.lanes > 0) != (s.kind == "vector"):
            self.fail("a vector loop has lanes, and only a vector loop")
        if s.kind == "vector" and self.lanes:
            self.fail("vector loops do not nest")
        varies = self.typed(s.start, dt.int64, "the start") | self.typed(s.stop, dt.int64, "the stop")
        if varies:
            self.fail("the bounds must be the same in every lane of the vector loop around")
        if s.kind == "unroll" and not (self.is_static(s.start) and self.is_static(s.stop)):
            self.fail(
                "the bounds of an unrolled loop must be constants or depend on unrolled variables alone"
            )
        self.declare(s.var)
        before = self.lanes, self.alone
        self.lanes = s.lanes or self.lanes
        if s.kind == "vector":
            self.alone = s.start.op == s.stop.op == "const" and s.stop.attr - s.start.attr <= 1
        self.names[s.var] = _Name(dt.int64, s.kind == "vector", s.kind == "unroll")
        self.body(s.body)
        del self.names[s.var]
        self.lanes, self.alone = before

    def branch(self, s: If) -> None:
        if self.typed(s.condition, dt.bool_, "the condition"):
            self.fail(
                "the condition must be the same in every lane; choose values with where, or mask the store"
            )
        self.body(s.then)
        self.body(s.orelse)

    def store(self, s: Store) -> None:
        if s.buffer not in self.access:
            self.fail("there is no buffer or scratch area of this name")
        dtype, access = self.access[s.buffer]
        if "w" not in access:
            self.fail("the buffer is read-only")
        moves = self.typed(s.index, dt.int64, "the index")
        varies = self.typed(s.value, dtype, "the value")
        masked = s.mask is not None and self.typed(s.mask, dt.bool_, "the mask")
        if varies and not moves and not masked and not self.alone:
            self.fail("lanes with different values would store to one element; use a register and across")

    def prefetch(self, s: Prefetch) -> None:
        if s.buffer not in self.access:
            self.fail("there is no buffer or scratch area of this name")
        if s.cache not in (1, 2):
            self.fail(f"a core has caches 1 and 2, got {s.cache}")
        self.typed(s.index, dt.int64, "the index")

    def register(self, s: Reg) -> None:
        if s.dtype.is_complex:
            self.fail("kernels have no complex values")
        if s.lanes < 0 or (s.lanes and self.lanes):
            self.fail("a register with lanes is declared outside vector loops")
        if any(n < 1 for n in s.shape):
            self.fail(f"a register tile has at least one element along each axis, got the shape {s.shape}")
        self.typed(s.init, s.dtype, "the initial value")
        self.declare(s.name)
        self.registers[s.name] = _Register(s, self.lanes > 0)

    def set(self, s: Set) -> None:
        if s.name not in self.registers:
            self.fail("there is no register of this name here")
        register = self.registers[s.name]
        self.element(register.declared, s.at)
        if register.declared.lanes and register.declared.lanes != self.lanes:
            self.fail(
                f"a register of {register.declared.lanes} lanes is set in a vector loop of as many, not of {self.lanes}"
            )
        if self.lanes and not register.declared.lanes and not register.inside:
            self.fail("a register without lanes declared outside the vector loop cannot be set inside")
        self.typed(s.value, register.declared.dtype, "the value")

    def element(self, register: Reg, at: Sequence[Expr]) -> None:
        if len(at) != len(register.shape):
            self.fail(
                f"register {register.name} has the shape {register.shape}, and {len(at)} indices are given"
            )
        for i, size in zip(at, register.shape, strict=True):
            self.typed(i, dt.int64, "a register's index")
            if not self.is_static(i):
                self.fail("a register's indices must be constants or depend on unrolled variables alone")
            if i.op == "const" and not 0 <= i.attr < size:
                self.fail(f"index {i.attr} is outside the shape {register.shape} of register {register.name}")

    # ---- expressions ----------------------------------------------------------------------------------------------

    def is_static(self, e: Expr) -> bool:
        """Whether ``e`` is known when loops are unrolled."""
        if e.op == "const":
            return True
        if e.op == "var":
            return e.attr in self.names and self.names[e.attr].unrolled
        return e.op in ("add", "sub", "mul", "idiv", "imod") and all(self.is_static(a) for a in e.args)

    def typed(self, e: Expr, dtype: DType, what: str) -> bool:
        """Check ``e`` and its type; returns whether lanes differ."""
        varies = self.expression(e)
        if e.dtype is not dtype:
            self.fail(f"{what} must be {dtype}, not {e.dtype}")
        return varies

    def expression(self, e: Expr) -> bool:
        """Check ``e`` and all below; returns whether lanes differ."""
        stack = [e]
        while stack:
            x = stack[-1]
            pending = [a for a in x.args if a not in self.seen and x.op != "across"]
            if pending:
                stack.extend(pending)
                continue
            stack.pop()
            if x not in self.seen:
                self.seen[x] = self.node(x)
        return self.seen[e]

    def node(self, e: Expr) -> bool:
        if e.dtype.is_complex:
            self.fail(f"{e.op}: kernels have no complex values")
        varies = any(self.seen[a] for a in e.args) if e.op != "across" else False
        expected: DType | None = e.dtype
        match e.op:
            case "const":
                pass
            case "var":
                if e.attr not in self.names:
                    self.fail(f"the name {e.attr} is not defined here")
                expected, varies = self.names[e.attr].dtype, self.names[e.attr].varies
            case "load":
                expected = self.load(e)
            case "reg":
                expected, varies = self.read(e)
            case "across":
                expected = self.across(e)
            case "cast":
                pass
            case "bitcast":
                if e.args[0].dtype.bits != e.dtype.bits:
                    self.fail(f"bitcast from {e.args[0].dtype} to {e.dtype}: the widths differ")
            case "fma":
                expected = (
                    e.args[0].dtype if e.dtype.is_float and len({a.dtype for a in e.args}) == 1 else None
                )
            case "dotacc":
                expected = self.dotacc(e)
            case "rarely":
                kinds = [a.dtype for a in e.args]
                expected = kinds[1] if kinds == [dt.bool_, kinds[1], kinds[1]] else None
            case "idiv" | "imod":
                if e.args[1].op != "const" or e.args[1].attr < 1 or e.args[0].dtype is not dt.int64:
                    self.fail(f"{e.op} takes an int64 and a positive constant")
            case _:
                expected = self.scalar(e)
        if expected is not e.dtype:
            self.fail(
                f"{e.op} {e.attr or ''} has the type {expected}, and {e.dtype} is stated".replace("  ", " ")
            )
        return varies

    def scalar(self, e: Expr) -> DType | None:
        row = SCALAR_OPS.get(e.op)
        if row is None:
            self.fail(f"there is no operation {e.op}")
            return None
        try:
            return result_dtype(row, tuple(a.dtype for a in e.args))
        except TypeError as error:
            self.fail(str(error))
            return None

    def dotacc(self, e: Expr) -> DType:
        if e.attr not in DOTS:
            self.fail(f"dotacc multiplies elements of {', '.join(DOTS)}, not of {e.attr}")
        kinds = [a.dtype for a in e.args]
        if kinds != [DOTS[e.attr][2], dt.uint32, dt.uint32]:
            self.fail(f"dotacc.{e.attr} takes {DOTS[e.attr][2]} and two uint32 words, got {kinds}")
        return DOTS[e.attr][2]

    def load(self, e: Expr) -> DType:
        if e.attr not in self.access:
            self.fail(f"load from {e.attr}: there is no buffer or scratch area of this name")
        dtype, access = self.access[e.attr]
        if "r" not in access:
            self.fail(f"load from {e.attr}: the buffer is write-only")
        kinds = [a.dtype for a in e.args]
        if kinds not in ([dt.int64], [dt.int64, dt.bool_, dtype]):
            self.fail(
                f"load from {e.attr} takes an int64 index and maybe a bool mask and a {dtype}, got {kinds}"
            )
        return dtype

    def read(self, e: Expr) -> tuple[DType, bool]:
        if e.attr not in self.registers:
            self.fail(f"there is no register {e.attr} here")
        register = self.registers[e.attr]
        self.element(register.declared, e.args)
        lanes = register.declared.lanes
        if lanes and lanes != self.lanes:
            place = f"a vector loop of {self.lanes}" if self.lanes else "no vector loop"
            self.fail(f"register {e.attr} of {lanes} lanes is read in {place}; combine its lanes with across")
        return register.declared.dtype, bool(lanes) or (register.inside and self.lanes > 0)

    def across(self, e: Expr) -> DType:
        register = e.args[0]
        if (
            register.op != "reg"
            or register.attr not in self.registers
            or not self.registers[register.attr].declared.lanes
        ):
            self.fail("across combines the lanes of a register declared with lanes")
        declared = self.registers[register.attr].declared
        self.element(declared, register.args)
        row = SCALAR_OPS.get(e.attr)
        if row is None or row.arity != 2 or row.result != "same" or declared.dtype.kind not in row.kinds:
            self.fail(f"across cannot combine {declared.dtype} with {e.attr}")
        return declared.dtype
