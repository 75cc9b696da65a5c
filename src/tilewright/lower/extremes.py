"""The first largest or smallest element of a long row in one pass, its value and its place.

Elements go by in blocks of a few vectors. Every lane keeps the greatest of its elements and the block where that was, so that
most of the work is one maximum an element; then the place is looked up in the first block that has the row's greatest value. A
comparison with NaN is false, so NaN is passed over. The sum of all elements tells whether there was any: it is NaN then (and
seldom else: infinities of both signs), and only such a row is passed over again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from tilewright.core.dtype import DType
from tilewright.graph.extremes import first_of
from tilewright.graph.ir import Value
from tilewright.kernel.ir import (
    Expr,
    If,
    Let,
    Loop,
    Prefetch,
    Reg,
    Set,
    Stmt,
    across,
    cast,
    const,
    idiv,
    index,
    op,
    reg,
    substitute,
    var,
)  # fmt: skip
from tilewright.lower.read import identity

__all__ = ["VECTORS", "FirstExtreme", "comparison", "pairs_of"]

VECTORS = 4  # of a block


def pairs_of(reductions: Sequence[Value]) -> dict[Value, Value]:
    """The maxima and minima whose first place is one of the reductions too, with that."""
    pairs = ((v, first_of(v, reductions)) for v in reductions)
    return {v: first for v, first in pairs if first is not None}


def comparison(largest: bool) -> tuple[str, str]:
    """The operation that keeps the better of two elements, and the one that tells whether the first is better."""
    return ("maximum", "gt") if largest else ("minimum", "lt")


class FirstExtreme:
    """Statements for one row, over elements ``x`` along ``place`` from 0 to ``size``, at least a block's; ``number`` tells their
    names apart, ``lanes`` are a register's."""

    def __init__(
        self, number: str, x: Expr, place: Expr, size: Expr, largest: bool, kind: DType, lanes: int
    ) -> None:
        self.x, self.place, self.size, self.kind, self.lanes = x, place, size, kind, lanes
        self.combine, self.better = comparison(largest)
        self.names = [f"{n}{number}" for n in ("best", "at", "sum", "nan", "block", "found")]
        self.beyond = identity("minimum", kind)

    def passes(self, asks: list[Stmt]) -> list[Stmt]:
        """The pass over the row; ``asks`` are requests for what is read later, in terms of the place."""
        best, at, total, _, block, _ = self.names
        x, kind, lanes = self.x, self.kind, self.lanes
        width = VECTORS * lanes
        start, most = var(block) * width, self.size - width
        whole = self.size.op == "const" and self.size.attr % width == 0
        base = f"{block}.at"
        places = [var(base) + n * lanes + self.place for n in range(VECTORS)]
        elements = [substitute(x, {self.place: p}) for p in places]
        requests = [
            Prefetch(s.buffer, substitute(s.index, {self.place: p}), s.cache)
            for p in places
            for s in asks
            if isinstance(s, Prefetch)
        ]
        greatest = reduce(self._better, elements)
        wins = op(self.better, greatest, reg(best, x.dtype))
        added = reduce(lambda a, b: op("add", a, b), elements)
        step: list[Stmt] = [
            *requests,
            Set(at, op("where", wins, cast(var(base), kind), reg(at, kind))),
            Set(best, op("where", wins, greatest, reg(best, x.dtype))),
            Set(total, op("add", reg(total, x.dtype), added)),
        ]
        # the last block lies over the one before it where it would end behind the row: no element is met twice as a new best
        body = (
            Let(base, start if whole else op("minimum", start, most)),
            self._lanes(step, index(lanes), lanes),
        )
        return [
            Reg(best, x.dtype, identity(self.combine, x.dtype), (), lanes),
            Reg(at, kind, const(0, kind), (), lanes),
            Reg(total, x.dtype, const(0, x.dtype), (), lanes),
            Loop(block, index(0), idiv(self.size + (width - 1), width), body),
        ]

    def finish(self) -> tuple[list[Stmt], Expr, Expr]:
        """The row's value and place, after all elements."""
        best, at, total, _, block, found = self.names
        x, kind, lanes = self.x, self.kind, self.lanes
        width = VECTORS * lanes
        top, first, doubt = f"{best}.row", f"{at}.row", f"{total}.row"
        base = f"{block}.first"
        has_best = op("eq", reg(best, x.dtype), reg(top, x.dtype))
        here = substitute(x, {self.place: cast(var(base, kind), index(0).dtype) + self.place})
        same = op("eq", here, reg(top, x.dtype))
        rest: list[Stmt] = [
            Reg(top, x.dtype, across(self.combine, reg(best, x.dtype))),
            self._lanes([Set(at, op("where", has_best, reg(at, kind), self.beyond))], index(lanes), lanes),
            Let(base, across("minimum", reg(at, kind))),
            Reg(found, kind, self.beyond, (), width),
            self._lanes(
                [Set(found, op("where", same, cast(self.place, kind), self.beyond))], index(width), width
            ),
            Reg(first, kind, op("add", var(base, kind), across("minimum", reg(found, kind)))),
            Let(doubt, across("add", reg(total, x.dtype))),
            If(op("ne", var(doubt, x.dtype), var(doubt, x.dtype)), tuple(self._again(top, first))),
        ]
        return rest, reg(top, x.dtype), reg(first, kind)

    def _again(self, top: str, first: str) -> list[Stmt]:
        """The value and place of the first NaN, if there is one."""
        nan, x, kind, width = self.names[3], self.x, self.kind, VECTORS * self.lanes
        found = var(f"{nan}.row", kind)
        any_nan = op("lt", found, self.beyond)
        earlier = op("minimum", reg(nan, kind), cast(self.place, kind))
        step: list[Stmt] = [Set(nan, op("where", op("ne", x, x), earlier, reg(nan, kind)))]
        return [
            Reg(nan, kind, self.beyond, (), width),
            self._lanes(step, self.size, width),
            Let(found.attr, across("minimum", reg(nan, kind))),
            Set(first, op("where", any_nan, found, reg(first, kind))),
            Set(top, op("where", any_nan, const(float("nan"), x.dtype), reg(top, x.dtype))),
        ]

    def _better(self, a: Expr, b: Expr) -> Expr:
        return op("where", op(self.better, b, a), b, a)

    def _lanes(self, body: list[Stmt], size: Expr, lanes: int) -> Stmt:
        assert self.place.op == "var"
        return Loop(self.place.attr, index(0), size, tuple(body), "vector", lanes)
