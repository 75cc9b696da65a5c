"""Values: the nodes of the graph IR.

A ``Value`` is one typed tensor operation applied to other values. Values are immutable and interned: building the same
operation twice gives the same object, so structural equality is identity and common subexpressions never exist twice.
``make`` is the only constructor; it infers and checks the result's type with the op table's rule.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from tilewright.core import shape as shapes
from tilewright.core.dtype import DType
from tilewright.core.shape import Shape

__all__ = ["OPS", "Op", "TensorType", "Value", "constant", "input_value", "make", "topological"]


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

    ``buffer`` is not part of the value's meaning: the tensor layer keeps there the memory in which an already computed
    value lies, so that later graphs start from it.
    """

    __slots__ = ("__weakref__", "attrs", "buffer", "inputs", "op", "type")

    op: str
    inputs: tuple[Value, ...]
    attrs: tuple[tuple[str, Any], ...]
    type: TensorType
    buffer: Any

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
    """A row of the op table: operand count (``None``: any), names of the static arguments, and the type rule."""

    name: str
    arity: int | None
    attrs: tuple[str, ...]
    infer: Callable[[tuple[TensorType, ...], dict[str, Any]], TensorType]
    doc: str


OPS: dict[str, Op] = {}  # filled by graph/ops.py, which the package imports

_interned: WeakValueDictionary[Any, Value] = WeakValueDictionary()
_ids = itertools.count()


def _intern(key: Any, op: str, inputs: tuple[Value, ...], attrs: tuple[tuple[str, Any], ...], type: TensorType) -> Value:
    value = Value.__new__(Value)
    value.op = op
    value.inputs = inputs
    value.attrs = attrs
    value.type = type
    value.buffer = None
    # setdefault keeps identity unique when two threads build the same value at once
    return _interned.setdefault(key, value)


def make(op: str, inputs: Sequence[Value] = (), **attrs: Any) -> Value:
    """The value of ``op`` applied to ``inputs`` with static arguments ``attrs`` (hashable; in the op table's order).

    Raises ``TypeError`` or ``ValueError`` naming the operation and the types when the operands do not fit.
    """
    inputs = tuple(inputs)
    pairs = tuple(attrs.items())
    key = (op, inputs, pairs)
    found = _interned.get(key)
    if found is not None:
        return found
    return _intern(key, op, inputs, pairs, _infer(op, inputs, attrs))


def _infer(op: str, inputs: tuple[Value, ...], attrs: dict[str, Any]) -> TensorType:
    row = OPS.get(op)
    if row is None:
        raise ValueError(f"unknown graph operation {op!r}")
    if tuple(attrs) != row.attrs:
        raise TypeError(f"{op} takes the attributes {row.attrs}, got {tuple(attrs)}")
    if row.arity is not None and len(inputs) != row.arity:
        raise TypeError(f"{op} takes {row.arity} operands, got {len(inputs)}")
    return row.infer(tuple(v.type for v in inputs), attrs)


def constant(value: bool | int | float | complex, dtype: DType) -> Value:
    """A rank-0 constant. Keyed by its exact bits: 0.0 and -0.0 differ, NaN equals itself."""
    if dtype.is_bool:
        value = bool(value)
    elif dtype.is_integer:
        value = int(value)  # type: ignore[arg-type]
    elif dtype.is_float:
        value = float(value)  # type: ignore[arg-type]
    else:
        value = complex(value)
    key = ("constant", repr(value), dtype)
    found = _interned.get(key)
    if found is not None:
        return found
    return _intern(key, "constant", (), (("value", value), ("dtype", dtype)), TensorType(dtype, ()))


def input_value(dtype: DType, shape: Iterable[Any], id: int | None = None) -> Value:
    """A leaf that stands for a tensor given from outside. Without ``id`` it is different from every other leaf."""
    number = next(_ids) if id is None else id
    type = TensorType(dtype, tuple(shape))
    key = ("input", number, type)
    # Numbered leaves of canonical graphs are shared; fresh ones live apart from them.
    if id is None:
        key = ("input", "fresh", number, type)  # type: ignore[assignment]
    found = _interned.get(key)
    if found is not None:
        return found
    return _intern(key, "input", (), (("id", number), ("dtype", dtype), ("shape", type.shape)), type)


def topological(outputs: Iterable[Value], stop: Any = None) -> list[Value]:
    """All values the outputs depend on, operands first. ``stop(value)`` true: its operands are not followed."""
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
