"""The first largest or smallest element of a row, as reductions: what ``argmax`` and ``argmin`` become.

``first_extreme`` builds them, ``first_of`` finds them again in a graph, so that a recipe may compute both in one pass, and
``first_extreme_of_parts`` puts them together from those of parts of the row.
"""

from __future__ import annotations

from collections.abc import Iterable

from tilewright.core.dtype import DType, float32, int32, int64
from tilewright.core.shape import upper
from tilewright.graph.ir import Value, constant, make

__all__ = ["first_extreme", "first_extreme_of_parts", "first_of"]


def first_extreme(x: Value, axis: int, largest: bool) -> tuple[Value, Value]:
    """The maximum (or minimum) along an axis, and the first index at which x is that, or NaN if there is one.

    One comparison finds both: x is not at most t, the number just below the maximum. Where that is NaN, t is infinity, which
    only NaN is not at most; where it is -infinity, t is NaN, and the first element wins, since all are equal.
    """
    if x.dtype.is_float and x.dtype.bits == 16:
        x = make("cast", [x], dtype=float32)
    best = _best(x, axis, largest)
    kind = int32 if upper(x.shape[axis]) < 1 << 31 else int64
    place = make("iota", [], shape=x.shape, axis=axis, dtype=kind)
    return best, _first_place(x, best, place, axis, largest)


def first_extreme_of_parts(
    parts: Value, firsts: Value, size: int, axis: int, kind: DType, largest: bool
) -> tuple[Value, Value]:
    """The same of a row that was cut into parts of ``size`` elements along an axis, from every part's value and place in it."""
    best = _best(parts, axis, largest)
    start = make("iota", [], shape=parts.shape, axis=axis, dtype=kind)
    start = make("mul", [start, _broadcast(constant(size, kind), start)])
    firsts = firsts if firsts.dtype is kind else make("cast", [firsts], dtype=kind)
    return best, _first_place(parts, best, make("add", [start, firsts]), axis, largest)


def _best(x: Value, axis: int, largest: bool) -> Value:
    return make("reduce_max" if largest else "reduce_min", [x], axes=(axis,))


def _first_place(x: Value, best: Value, place: Value, axis: int, largest: bool) -> Value:
    """The least of the places of those elements along an axis that are its best, or NaN if one is."""
    kept = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
    kind = place.dtype

    def along(row: Value) -> Value:
        return _broadcast(make("reshape", [row], shape=kept), x)

    beyond = _broadcast(constant((1 << (kind.bits - 1)) - 1, kind), x)
    if x.dtype.is_float:
        loses = make("le" if largest else "ge", [x, along(_beside(best, largest))])
        found = make("where", [loses, beyond, place])
    else:
        found = make("where", [make("eq", [x, along(best)]), place, beyond])
    return make("reduce_min", [found], axes=(axis,))


def first_of(best: Value, reductions: Iterable[Value]) -> Value | None:
    """Among reductions the one that gives the place of ``best``, a maximum or minimum along one axis."""
    if best.op not in ("reduce_max", "reduce_min") or len(best["axes"]) != 1:
        return None
    x = best.inputs[0]
    if x.dtype.is_float and x.dtype.bits == 16:
        return None
    _, first = first_extreme(x, best["axes"][0], best.op == "reduce_max")
    return first if first in reductions else None


def _broadcast(x: Value, like: Value) -> Value:
    return x if x.shape == like.shape else make("broadcast", [x], shape=like.shape)


def _beside(x: Value, below: bool) -> Value:
    """The next number below (or above) each of x, beyond an infinity NaN; instead of NaN the infinity on the other side."""
    kind = int32 if x.dtype.bits == 32 else int64
    bits = make("bitcast", [x], dtype=kind)

    def number(n: int) -> Value:
        return _broadcast(constant(n, kind), x)

    def real(n: float) -> Value:
        return _broadcast(constant(n, x.dtype), x)

    away, towards = ("lt", "gt") if below else ("gt", "lt")  # from 0: sizes, and so bits, grow or fall
    grows, falls = (make("cast", [make(c, [x, real(0.0)])], dtype=kind) for c in (away, towards))
    tiny = number((-(1 << (kind.bits - 1)) if below else 0) + 1)
    moved = make(
        "where", [make("eq", [x, real(0.0)]), tiny, make("add", [bits, make("sub", [grows, falls])])]
    )
    infinity = real(float("inf") if below else float("-inf"))
    return make("where", [make("ne", [x, x]), infinity, make("bitcast", [moved], dtype=x.dtype)])
