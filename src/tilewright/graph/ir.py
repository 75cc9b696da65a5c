"""Values: the nodes of the graph IR.

A ``Value`` is one typed tensor operation applied to other values. Values are immutable and interned: building
the same operation twice gives the same object, so structural equality is identity and common subexpressions
never exist twice. ``make`` is the only constructor; it infers and checks the result's type with the op
table's rule.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet, ref

import numpy as np

from tilewright.core import shape as shapes
from tilewright.core.dtype import DType, only_stored
from tilewright.core.shape import Shape

__all__ = [
    "OPS",
    "Op",
    "TensorType",
    "Value",
    "build",
    "constant",
    "forget_history",
    "fresh_leaf",
    "input_value",
    "is_kept",
    "keep_history",
    "make",
    "packed_value",
    "topological",
    "write_out",
]


@dataclass(frozen=True, slots=True)
class TensorType:
    """Element type and shape of a value."""

    dtype: DType
    shape: Shape

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements (the upper bound where sizes are symbolic)."""
        return shapes.product(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor stored contiguously."""
        return self.size * self.dtype.itemsize

    def __repr__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


class Value:
    """One node. ``op`` names a row of the op table; ``attrs`` are its static arguments in the table's order.

    ``buffer``, ``role`` and ``names`` are not part of the value's meaning: the tensor layer keeps there the memory in
    which an already computed value lies, so that later graphs start from it, and which tensors it stands for.

    A *packed* value stands for all that a template makes of its operands (``packed``: the two). It has a type; ``op``,
    ``inputs`` and ``attrs`` are there as soon as somebody asks for one of them, and it is packed no more. Who can take it as
    one step reads ``packed`` once, since another thread may ask at any time.
    """

    __slots__ = ("__weakref__", "attrs", "buffer", "inputs", "names", "op", "packed", "role", "type")

    op: str
    inputs: tuple[Value, ...]
    attrs: tuple[tuple[str, Any], ...]
    type: TensorType
    buffer: Any
    role: Any
    names: Any
    packed: tuple[Any, tuple[Value, ...]] | None

    def __getattr__(self, name: str) -> Any:
        """What a packed value does not have yet: it is written out."""
        if name not in ("op", "inputs", "attrs"):
            raise AttributeError(f"a value has no attribute {name!r}")
        packed = self.packed
        if packed is not None:
            packed[0].write_out(self, packed[1])
        return object.__getattribute__(self, name)

    @property
    def shape(self) -> Shape:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    def __getitem__(self, name: str) -> Any:
        """A static argument by name."""
        for key, value in self.attrs:
            if key == name:
                return value
        raise KeyError(f"{self.op} has no attribute {name!r}")

    def __repr__(self) -> str:
        attrs = "".join(f" {k}={v}" for k, v in self.attrs)
        return f"<{self.op}({', '.join(str(i.type) for i in self.inputs)}){attrs}: {self.type}>"


@dataclass(frozen=True, slots=True)
class Op:
    """A row of the op table: operand count (``None``: any), static arguments by name, and the type rule."""

    name: str
    arity: int | None
    attrs: tuple[str, ...]
    infer: Callable[[tuple[TensorType, ...], dict[str, Any]], TensorType]
    doc: str


OPS: dict[str, Op] = {}  # filled by graph/ops.py, which the package imports


class _Entry(ref[Value]):
    """A weak reference to an interned value, which takes itself out of the table when the value dies."""

    __slots__ = ("key",)

    key: Any


# What a WeakValueDictionary does, without its Python code on the way to a value that is there.
_interned: dict[Any, _Entry] = {}
leaf_ids = itertools.count()  # of inputs


def _drop(entry: _Entry) -> None:
    if _interned.get(entry.key) is entry:
        del _interned[entry.key]


def _intern(
    key: Any, op: str, inputs: tuple[Value, ...], attrs: tuple[tuple[str, Any], ...], type: TensorType
) -> Value:
    value = Value.__new__(Value)
    value.op = op
    value.inputs = inputs
    value.attrs = attrs
    value.type = type
    value.buffer = value.role = value.names = value.packed = None
    return _enter(key, value)


def _enter(key: Any, value: Value) -> Value:
    """Put a value into the table of interned ones. What is there under its key is given back."""
    entry = _Entry(value, _drop)
    entry.key = key
    while True:
        # setdefault keeps identity unique when two threads build the same value at once
        found = _interned.setdefault(key, entry)
        if found is entry:
            return value
        known = found()
        if known is not None:
            return known
        _drop(found)  # it died, and its own call is still to come


def _lookup(key: Any) -> Value | None:
    entry = _interned.get(key)
    return None if entry is None else entry()


def make(op: str, inputs: Sequence[Value] = (), **attrs: Any) -> Value:
    """The value of ``op`` applied to ``inputs`` with static arguments ``attrs`` (hashable, in table order).

    Raises ``TypeError`` or ``ValueError`` naming the operation and the types when the operands do not fit.
    Constants and inputs have constructors of their own.
    """
    inputs = tuple(inputs)
    pairs = tuple(attrs.items())
    key = (op, inputs, pairs)
    entry = _interned.get(key)
    found = None if entry is None else entry()
    if found is not None:
        return found
    return _intern(key, op, inputs, pairs, _infer(op, inputs, attrs))


def build(op: str, inputs: tuple[Value, ...], attrs: tuple[tuple[str, Any], ...], type: TensorType) -> Value:
    """``make`` where the result's type is known and right, as when a graph is built a second time."""
    key = (op, inputs, attrs)
    entry = _interned.get(key)
    found = None if entry is None else entry()
    return _intern(key, op, inputs, attrs, type) if found is None else found


# What takes storage types: operations that move elements, convert them, or hand them on.
_MOVE_STORED = frozenset({
    "cast", "bitcast", "stop_gradient", "mark", "barrier", "custom", "scan", "while_loop", "switch", "reshape", "permute",
    "broadcast", "slice", "pad", "flip", "concat", "window", "gather", "where",
})  # fmt: skip


def _infer(op: str, inputs: tuple[Value, ...], attrs: dict[str, Any]) -> TensorType:
    row = OPS.get(op)
    if row is None:
        raise ValueError(f"unknown graph operation {op!r}")
    if op in ("constant", "input"):  # a plain key would take 1, 1.0 and True for one another
        raise ValueError(f"build a {op} with {'constant' if op == 'constant' else 'input_value'}()")
    if tuple(attrs) != row.attrs:
        raise TypeError(f"{op} takes the attributes {row.attrs}, got {tuple(attrs)}")
    if row.arity is not None and len(inputs) != row.arity:
        raise TypeError(f"{op} takes {row.arity} operands, got {len(inputs)}")
    types = tuple(v.type for v in inputs)
    if op not in _MOVE_STORED:
        for t in types:
            if t.dtype.is_storage:
                raise TypeError(f"{op}: {only_stored(t.dtype)}")
    return row.infer(types, attrs)


def constant(value: bool | int | float | complex, dtype: DType) -> Value:
    """A rank-0 constant, rounded to ``dtype``.

    Keyed by its exact bits: 0.0 and -0.0 differ, NaN equals itself. Raises ``OverflowError`` for an integer
    outside the type's range and ``TypeError`` for a fraction or a complex number where the type has none.
    """
    raw = ("constant", repr(value), dtype)
    found = _lookup(raw)
    if found is None:
        exact = _rounded(value, dtype)
        key = ("constant", repr(exact), dtype)
        attrs = (("value", exact), ("dtype", dtype))
        found = _intern(key, "constant", (), attrs, TensorType(dtype, ()))
        if key != raw:  # a second way to the same value
            entry = _interned[raw] = _Entry(found, _drop)
            entry.key = raw
        _recent.append(found)
    return found


_recent: deque[Value] = deque(
    maxlen=256
)  # constants, which are asked for again and again, and then need not be made


def _rounded(value: bool | int | float | complex, dtype: DType) -> bool | int | float | complex:
    """The Python number that an element of ``dtype`` holds for ``value``."""
    if dtype.is_bool:
        return bool(value)
    if not dtype.is_complex and isinstance(value, complex):
        raise TypeError(f"the complex number {value} is not a {dtype}")
    if dtype.is_integer:
        whole = int(value)  # type: ignore[arg-type]
        low = -(1 << dtype.bits - 1) if dtype.kind == "i" else 0
        if whole != value:
            raise TypeError(f"{value} is not a whole number, as {dtype} needs")
        if not low <= whole < low + (1 << dtype.bits):
            raise OverflowError(f"{value} is outside the range of {dtype}")
        return whole
    with np.errstate(over="ignore"):
        exact: float | complex = dtype.numpy.type(
            complex(value) if dtype.is_complex else float(value)  # type: ignore[arg-type]
        ).item()
    return exact


def input_value(dtype: DType, shape: Iterable[Any], id: int | None = None) -> Value:
    """A leaf: a tensor given from outside. Without ``id`` it is different from every other leaf."""
    type = TensorType(dtype, tuple(shape))
    if id is None:
        return fresh_leaf(type)
    # Numbered leaves of canonical graphs are shared.
    key = ("input", id, type)
    found = _lookup(key)
    if found is not None:
        return found
    return _intern(key, "input", (), (("id", id), ("dtype", dtype), ("shape", type.shape)), type)


def fresh_leaf(type: TensorType) -> Value:
    """A leaf different from every other. It needs no place in the table: nobody can ask for it."""
    value = Value.__new__(Value)
    value.op = "input"
    value.inputs = ()
    value.attrs = (("id", next(leaf_ids)), ("dtype", type.dtype), ("shape", type.shape))
    value.type = type
    value.buffer = value.role = value.names = value.packed = None
    return value


def packed_value(template: Any, operands: tuple[Value, ...], type: TensorType) -> Value:
    """What ``template`` makes of ``operands``, as one value. It is different from every other, also from one built alike."""
    value = Value.__new__(Value)
    value.type = type
    value.buffer = value.role = value.names = None
    value.packed = template, operands
    return value


def write_out(value: Value, op: str, inputs: tuple[Value, ...], attrs: tuple[tuple[str, Any], ...]) -> None:
    """Let a packed value be an ordinary one. It is interned unless one like it is."""
    value.attrs = attrs
    value.inputs = inputs
    value.op = op
    value.packed = None
    _enter((op, inputs, attrs), value)


def forget_history(value: Value) -> None:
    """Let a computed value (its elements lie in ``buffer``) go of the graph below it, so that a loop does not keep the graphs
    of all its rounds. Only for values through which nothing will be differentiated. Values that ``keep_history`` named
    stay as they are."""
    if value.packed is not None:  # it is in no table: a leaf from now on
        type = value.type
        value.op = "input"
        value.inputs = ()
        value.attrs = (("id", next(leaf_ids)), ("dtype", type.dtype), ("shape", type.shape))
        value.packed = None
    elif value.inputs and value not in _kept:
        key = (value.op, value.inputs, value.attrs)
        if _lookup(key) is value:
            del _interned[key]
        value.inputs = ()


_kept: WeakSet[Value] = WeakSet()


def keep_history(outputs: Iterable[Value]) -> None:
    """Keep the graph of every value below ``outputs`` that depends on no leaf, such as a repeated constant.

    A compiled program's own leaves make its values its own; these alone are, interned, the same objects in a user's graph,
    where they may be computed and forgotten while the program still describes its work by them.
    """
    given: set[Value] = set()
    for value in topological(outputs):
        if value.op == "input" or not given.isdisjoint(value.inputs):
            given.add(value)
        elif value.inputs:
            _kept.add(value)


def is_kept(value: Value) -> bool:
    """Whether ``keep_history`` named the value."""
    return value in _kept


def topological(outputs: Iterable[Value], stop: Any = None) -> list[Value]:
    """All values the outputs depend on, operands first. Operands of ``stop(value)`` are not followed."""
    order: list[Value] = []
    seen: set[Value] = set()
    stack: list[tuple[Value, int]] = []
    for output in outputs:
        if output in seen:
            continue
        seen.add(output)
        stack.append((output, 0))
        while stack:
            value, index = stack.pop()
            inputs = value.inputs if stop is None or not stop(value) else ()
            while index < len(inputs) and inputs[index] in seen:
                index += 1
            if index < len(inputs):
                stack.append((value, index + 1))
                seen.add(inputs[index])
                stack.append((inputs[index], 0))
            else:
                order.append(value)
    return order
