"""Symbolic sizes in graphs: their values as tensors, and graphs in which they have numbers.

The number of a named size is an ordinary leaf, ``int64[]``, the same one wherever the size is used; ``size_value`` builds
expressions over such leaves. Whoever runs a graph binds them (``size_leaf``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.core.shape import Extent
from tilewright.core.size import Atom, Monomial, Size, bind
from tilewright.graph.body import Body
from tilewright.graph.ir import Value, constant, input_value, make

__all__ = ["is_symbolic", "resolve", "size_leaf", "size_value", "sizes_of"]

_leaves: dict[Size, Value] = {}


def size_leaf(size: Size) -> Value:
    """The leaf that holds a named size's number."""
    found = _leaves.get(size)
    if found is None:
        found = _leaves.setdefault(size, input_value(dt.int64, ()))
    return found


def size_value(size: Extent, dtype: DType = dt.int64) -> Value:
    """A size as a rank-0 value: what a number of elements is where it is computed with."""
    if not isinstance(size, Size):
        return constant(size, dtype)
    value = _polynomial(size.terms)
    return value if dtype is dt.int64 else make("cast", (value,), dtype=dtype)


def _polynomial(terms: Mapping[Monomial, int]) -> Value:
    total: Value | None = None
    for monomial, factor in terms.items():
        term: Value | None = None
        for atom in monomial:
            value = _atom(atom)
            term = value if term is None else make("mul", (term, value))
        number = constant(factor, dt.int64)
        term = number if term is None else term if factor == 1 else make("mul", (term, number))
        total = term if total is None else make("add", (total, term))
    return constant(0, dt.int64) if total is None else total


def _atom(atom: Atom) -> Value:
    if len(atom) == 3:
        return size_leaf(Size(*atom))
    return make("floordiv", (_polynomial(dict(atom[0])), constant(atom[1], dt.int64)))


def is_symbolic(item: Any) -> bool:
    """Whether a static argument holds a symbolic size."""
    if isinstance(item, tuple):
        return any(map(is_symbolic, item))
    return isinstance(item, Size)


def resolve(item: Any, numbers: Mapping[str, int]) -> Any:
    """A static argument with numbers in place of its symbolic sizes."""
    if isinstance(item, tuple):
        return tuple(resolve(i, numbers) for i in item)
    return bind(item, numbers) if isinstance(item, Size) else item


def sizes_of(values: Iterable[Value]) -> dict[str, Size]:
    """The named sizes in the types and static arguments of some values."""
    found: dict[str, Size] = {}

    def look(item: Any) -> None:
        if isinstance(item, Size):
            found.update(item.names())
        elif isinstance(item, tuple):
            for each in item:
                look(each)
        elif isinstance(item, Body):
            found.update(sizes_of(item.inputs))

    for value in values:
        look(value.shape)
        for _, item in value.attrs:
            look(item)
    return found
