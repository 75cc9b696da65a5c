"""The kernel IR: loops over ranges, loads, stores, and scalar expressions that vector loops run on many lanes at once.

A kernel is a function of flat typed buffers and of the part ``[lo, hi)`` of a launch's grid that a thread has claimed.
Its body is a tuple of statements; expressions are pure, interned scalar DAGs with the scalar vocabulary of ``core``.

Meaning (the interpreter in ``interpret.py`` is the definition):

``Loop``    ``serial``: var runs start, start + 1 ... stop - 1 in order. ``unroll``: the same with constant bounds, expanded.
            ``vector``: the range is cut into blocks of ``lanes`` consecutive values that run together, the last one
            possibly partial (its missing lanes do nothing). Iterations of a vector loop are independent of each other.
            Vector loops do not nest. A serial loop inside a vector loop has bounds that are the same for every lane.
``Reg``     a mutable register, or a tile of them (``shape``). ``lanes`` > 0: one register for every lane position
            (position = (var - start) % lanes); it is declared outside vector loops and, inside one of the same lane
            count, names the current lane's element. ``lanes`` = 0: declared inside a vector loop it is private to the
            iteration; declared outside, a vector loop may read but not set it.
``across``  the expression ``across(op, reg)`` combines all lane positions of a register with a scalar operation.
``Store``   writes one element; with a mask, only where the mask is true. ``load`` with a mask reads nothing where the
            mask is false and gives its third operand there.
``dotacc``  ``dotacc(c, a, b)`` adds to c the products of the elements that lie packed in the words a and b, first in the
            lowest bits: two bfloat16 in a uint32 for a float32 c, four bytes for an int32 c (which wraps). In float32, the
            product of the second elements is added first, then that of the first, each sum rounded once; a target may take
            subnormal operands and results as zeros, as the instruction does.
``Prefetch`` asks for an element's line before it is read; in a vector loop for the lines of all lanes' elements, where these lie
            side by side. It has no other effect, and the elements may lie outside the buffer.
``Let``     names a value; the name is a variable from there to the end of the enclosing body.
``Check``   where the condition is false, the run reports error ``code`` after it ends; execution goes on.
``If``      on a condition that is the same for every lane.
Variables: loop variables and ``lo``/``hi`` are int64. Indices are in elements of the buffer, not bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.core.scalar import SCALAR_OPS, result_dtype

__all__ = [
    "DOTS", "HI", "LO", "Buf", "Check", "Expr", "If", "Kernel", "Let", "Loop", "Prefetch", "Reg", "Scratch", "Set", "Stmt",
    "Store", "across", "bitcast", "cast", "const", "dotacc", "fma", "idiv", "imod", "index", "load", "op", "rarely",
    "reg", "substitute", "var", "walk",
]  # fmt: skip


class Expr:
    """A pure scalar expression: ``op`` over ``args``. ``attr`` is a constant's value, a name, or an operation's argument.

    Ops: ``const`` (attr value), ``var`` (attr name), ``load`` (attr buffer; index[, mask, other]), ``reg`` (attr register;
    constant-or-unrolled tile indices), ``across`` (attr scalar op; reg), ``cast``, ``bitcast``, ``fma`` (a*b+c rounded once),
    ``dotacc`` (attr the packed element types of a and b, as in ``uint8.int8``; c, a, b),
    ``rarely`` (``where`` whose condition is almost never true: its second operand is computed only where some lane wants it),
    ``idiv``/``imod`` (int64, operands known to be non-negative and divisor positive), and every scalar op of ``core.scalar``.
    """

    __slots__ = ("__weakref__", "args", "attr", "dtype", "op")

    op: str
    args: tuple[Expr, ...]
    dtype: DType
    attr: Any

    def __repr__(self) -> str:
        return f"<{self.op} {self.attr if self.attr is not None else ''} : {self.dtype}>"

    def __add__(self, other: Expr | int) -> Expr:
        return op("add", self, index(other))

    def __mul__(self, other: Expr | int) -> Expr:
        return op("mul", self, index(other))

    def __sub__(self, other: Expr | int) -> Expr:
        return op("sub", self, index(other))


_interned: WeakValueDictionary[Any, Expr] = WeakValueDictionary()


def _make(name: str, args: tuple[Expr, ...], dtype: DType, attr: Any = None, key: Any = None) -> Expr:
    full = (name, args, dtype, attr if key is None else key)
    found = _interned.get(full)
    if found is not None:
        return found
    expr = Expr.__new__(Expr)
    expr.op, expr.args, expr.dtype, expr.attr = name, args, dtype, attr
    return _interned.setdefault(full, expr)


def const(value: bool | int | float, dtype: DType = dt.int64) -> Expr:
    """A constant; keyed by its exact bits."""
    value = bool(value) if dtype.is_bool else int(value) if dtype.is_integer else float(value)
    return _make("const", (), dtype, value, repr(value))


def index(value: Expr | int) -> Expr:
    """An int64 index expression from an expression or an integer."""
    return value if isinstance(value, Expr) else const(value)


def var(name: str, dtype: DType = dt.int64) -> Expr:
    """A loop variable (int64) or a name bound by ``Let``."""
    return _make("var", (), dtype, name)


LO = var("lo")
HI = var("hi")


def load(
    buffer: str, at: Expr | int, dtype: DType, mask: Expr | None = None, other: Expr | None = None
) -> Expr:
    """An element of a buffer or scratch area of type ``dtype``; where ``mask`` is false, ``other`` and no access."""
    if mask is None:
        return _make("load", (index(at),), dtype, buffer)
    assert other is not None
    return _make("load", (index(at), mask, other), dtype, buffer)


def reg(name: str, dtype: DType, *at: Expr | int) -> Expr:
    """The current value of a register (of the tile's element ``at``)."""
    return _make("reg", tuple(index(i) for i in at), dtype, name)


def across(combine: str, register: Expr) -> Expr:
    """All lane positions of a register combined with the scalar operation ``combine`` (in a fixed order)."""
    return _make("across", (register,), register.dtype, combine)


def cast(x: Expr, dtype: DType) -> Expr:
    """Convert with the meaning of ``core.scalar.cast_numpy``."""
    if x.dtype is dtype:
        return x
    if x.op == "const" and dtype.is_float and not (x.dtype.is_float and x.dtype.bits == 64):
        return const(float(x.attr), dtype)
    return _make("cast", (x,), dtype)


def bitcast(x: Expr, dtype: DType) -> Expr:
    """The same bits as another type of the same width."""
    return x if x.dtype is dtype else _make("bitcast", (x,), dtype)


def fma(a: Expr, b: Expr, c: Expr) -> Expr:
    """a*b + c with one rounding (floats)."""
    assert a.dtype is b.dtype is c.dtype and a.dtype.is_float, "fma takes three operands of one float type"
    return _make("fma", (a, b, c), a.dtype)


def rarely(condition: Expr, then: Expr, otherwise: Expr) -> Expr:
    """``where`` for a condition that is almost never true."""
    assert condition.dtype.is_bool and then.dtype is otherwise.dtype, (
        "rarely takes a bool and two operands of one type"
    )
    return _make("rarely", (condition, then, otherwise), then.dtype)


# What a ``dotacc`` multiplies: the packed elements' types of its two words, and the type of the sum.
DOTS = {
    "bfloat16.bfloat16": (dt.bfloat16, dt.bfloat16, dt.float32),
    "int8.int8": (dt.int8, dt.int8, dt.int32),
    "uint8.int8": (dt.uint8, dt.int8, dt.int32),
    "uint8.uint8": (dt.uint8, dt.uint8, dt.int32),
}


def dotacc(elements: str, c: Expr, a: Expr, b: Expr) -> Expr:
    """c + the sum of products of the elements packed in the uint32 words a and b; ``elements`` is a key of ``DOTS``."""
    assert c.dtype is DOTS[elements][2], f"dotacc.{elements} sums {DOTS[elements][2]}, not {c.dtype}"
    assert a.dtype is b.dtype is dt.uint32, "dotacc takes words of uint32"
    return _make("dotacc", (c, a, b), c.dtype, elements)


def idiv(a: Expr, b: int) -> Expr:
    """a // b for int64 a >= 0 and a constant b > 0."""
    if b == 1:
        return a
    if a.op == "const":
        return const(a.attr // b)
    return _make("idiv", (a, const(b)), dt.int64)


def imod(a: Expr, b: int) -> Expr:
    """a % b for int64 a >= 0 and a constant b > 0."""
    if b == 1:
        return const(0)
    if a.op == "const":
        return const(a.attr % b)
    return _make("imod", (a, const(b)), dt.int64)


def op(name: str, *args: Expr) -> Expr:
    """A scalar operation of the shared vocabulary; int64 index arithmetic folds constants as it is built."""
    dtype = result_dtype(SCALAR_OPS[name], tuple(a.dtype for a in args))
    if dtype is dt.int64 and name in ("add", "sub", "mul"):
        a, b = args
        if a.op == "const" and b.op == "const":
            return const({"add": a.attr + b.attr, "sub": a.attr - b.attr, "mul": a.attr * b.attr}[name])
        if name == "mul":
            for x, y in ((a, b), (b, a)):
                if x.op == "const" and x.attr in (0, 1):
                    return y if x.attr else x
        if b.op == "const" and b.attr == 0:
            return a
        if name == "add" and a.op == "const" and a.attr == 0:
            return b
    return _make(name, args, dtype)


# ---- statements ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Loop:
    """``for var in start..stop`` of kind ``serial``, ``vector`` (``lanes`` at once) or ``unroll``."""

    var: str
    start: Expr
    stop: Expr
    body: tuple[Stmt, ...]
    kind: str = "serial"
    lanes: int = 0


@dataclass(frozen=True, slots=True)
class Store:
    """Write ``value`` to ``buffer[index]``, where ``mask`` is true if there is one."""

    buffer: str
    index: Expr
    value: Expr
    mask: Expr | None = None


@dataclass(frozen=True, slots=True)
class Prefetch:
    """Bring the line of ``buffer[index]`` to a core's first or second ``cache``."""

    buffer: str
    index: Expr
    cache: int = 2


@dataclass(frozen=True, slots=True)
class Let:
    """Name a value."""

    name: str
    value: Expr


@dataclass(frozen=True, slots=True)
class Reg:
    """Declare a register (tile) with an initial value for each element."""

    name: str
    dtype: DType
    init: Expr
    shape: tuple[int, ...] = ()
    lanes: int = 0


@dataclass(frozen=True, slots=True)
class Set:
    """Give a register (the tile's element ``at``) a new value."""

    name: str
    value: Expr
    at: tuple[Expr, ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """Report error ``code`` after the run if ``condition`` is ever false."""

    condition: Expr
    code: int


@dataclass(frozen=True, slots=True)
class If:
    """Run ``then`` or ``orelse``."""

    condition: Expr
    then: tuple[Stmt, ...]
    orelse: tuple[Stmt, ...] = ()


Stmt = Loop | Store | Prefetch | Let | Reg | Set | Check | If


@dataclass(frozen=True, slots=True)
class Buf:
    """A kernel argument: flat memory of ``dtype``. ``access``: ``r``, ``w`` or ``rw``. ``stream``: what is written will have left
    the caches before it is read again, so stores may go past them."""

    name: str
    dtype: DType
    access: str
    stream: bool = False


@dataclass(frozen=True, slots=True)
class Scratch:
    """Per-thread memory of ``size`` elements, undefined at entry."""

    name: str
    dtype: DType
    size: int


@dataclass(frozen=True, slots=True)
class Kernel:
    """A native function of its buffers and the claimed part ``lo``..``hi`` of the grid."""

    buffers: tuple[Buf, ...]
    body: tuple[Stmt, ...]
    scratch: tuple[Scratch, ...] = ()
    name: str = field(default="kernel")


def walk(body: Sequence[Stmt]) -> Iterator[Stmt]:
    """Every statement of a body, outer before inner."""
    for stmt in body:
        yield stmt
        if isinstance(stmt, Loop):
            yield from walk(stmt.body)
        elif isinstance(stmt, If):
            yield from walk(stmt.then)
            yield from walk(stmt.orelse)


def substitute(expr: Expr, names: dict[Expr, Expr]) -> Expr:
    """``expr`` with sub-expressions replaced; shared parts are rebuilt once."""
    memo: dict[Expr, Expr] = dict(names)

    def visit(e: Expr) -> Expr:
        found = memo.get(e)
        if found is None:
            args = tuple(visit(a) for a in e.args)
            found = e if args == e.args else rebuild(e, args)
            memo[e] = found
        return found

    return visit(expr)


def rebuild(e: Expr, args: tuple[Expr, ...]) -> Expr:
    """The expression ``e`` with other operands."""
    if e.op in SCALAR_OPS:
        return op(e.op, *args)
    if e.op == "idiv":
        return idiv(args[0], args[1].attr)
    if e.op == "imod":
        return imod(args[0], args[1].attr)
    return _make(e.op, args, e.dtype, e.attr)
