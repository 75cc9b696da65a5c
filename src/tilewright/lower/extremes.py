"""The first largest or smallest element of a long row in one pass, its value and its place.

Every lane keeps the greatest of its elements and where that was; a comparison with NaN is false, so NaN is passed over. The
sum of all elements tells whether there was any: it is NaN then (and seldom else: infinities of both signs), and only such
a row is passed over again.
"""

from __future__ import annotations

from tilewright.core.dtype import DType
from tilewright.kernel.ir import Expr, If, Let, Loop, Reg, Set, Stmt, across, cast, const, index, op, reg, var
from tilewright.lower.read import identity

__all__ = ["FirstExtreme"]


class FirstExtreme:
    """Statements for one row, over elements ``x`` along ``place`` from 0 to ``size``; ``number`` tells their names apart."""

    def __init__(self, number: str, x: Expr, place: Expr, size: Expr, largest: bool, kind: DType) -> None:
        self.x, self.place, self.size, self.kind = x, place, size, kind
        self.combine, self.better = ("maximum", "gt") if largest else ("minimum", "lt")
        self.names = [f"{n}{number}" for n in ("best", "at", "sum", "nan")]

    def registers(self, lanes: int) -> list[Stmt]:
        best, at, total, _ = self.names
        return [
            Reg(best, self.x.dtype, identity(self.combine, self.x.dtype), (), lanes),
            Reg(at, self.kind, const(0, self.kind), (), lanes),
            Reg(total, self.x.dtype, const(0, self.x.dtype), (), lanes),
        ]

    def step(self) -> list[Stmt]:
        """What is done with one element."""
        best, at, total, _ = self.names
        x = self.x
        wins = op(self.better, x, reg(best, x.dtype))
        return [
            Set(at, op("where", wins, cast(self.place, self.kind), reg(at, self.kind))),
            Set(best, op("where", wins, x, reg(best, x.dtype))),
            Set(total, op("add", reg(total, x.dtype), x)),
        ]

    def finish(self, lanes: int) -> tuple[list[Stmt], Expr, Expr]:
        """The row's value and place, after all elements: the first place of the lanes that have the greatest value."""
        best, at, total, nan = self.names
        x, kind = self.x, self.kind
        top, first = f"{best}.row", f"{at}.row"
        beyond, found = identity("minimum", kind), var(f"{nan}.row", kind)
        has_best = op("eq", reg(best, x.dtype), reg(top, x.dtype))
        any_nan = op("lt", found, beyond)
        again: list[Stmt] = [
            Reg(nan, kind, beyond, (), lanes),
            self._pass(
                Set(
                    nan,
                    op(
                        "where",
                        op("ne", x, x),
                        op("minimum", reg(nan, kind), cast(self.place, kind)),
                        reg(nan, kind),
                    ),
                ),
                self.size,
                lanes,
            ),
            Let(found.attr, across("minimum", reg(nan, kind))),
            Set(first, op("where", any_nan, found, reg(first, kind))),
            Set(top, op("where", any_nan, const(float("nan"), x.dtype), reg(top, x.dtype))),
        ]
        doubt = f"{total}.row"
        rest: list[Stmt] = [
            Reg(top, x.dtype, across(self.combine, reg(best, x.dtype))),
            self._pass(Set(at, op("where", has_best, reg(at, kind), beyond)), index(lanes), lanes),
            Reg(first, kind, across("minimum", reg(at, kind))),
            Let(doubt, across("add", reg(total, x.dtype))),
            If(op("ne", var(doubt, x.dtype), var(doubt, x.dtype)), tuple(again)),
        ]
        return rest, reg(top, x.dtype), reg(first, kind)

    def _pass(self, body: Stmt, size: Expr, lanes: int) -> Stmt:
        assert self.place.op == "var"
        return Loop(self.place.attr, index(0), size, (body,), "vector", lanes)
