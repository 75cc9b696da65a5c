"""Columns of B that are copied in turn: while a tile of columns multiplies, those of the next one are copied beside it.

A copy that transposes waits for loads and shuffles, multiplications wait for neither; a square of it after some steps of k takes
hardly more time than these steps. Two panels of columns are enough: the one that is read and the one that is written.
"""

from __future__ import annotations

from math import gcd

from tilewright.core.shape import Extent, is_static
from tilewright.kernel.ir import If, Stmt, const, op
from tilewright.lower.affine import Affine
from tilewright.lower.asking import Asking
from tilewright.lower.problem import At
from tilewright.recipes.contraction import L3_SHARE, PAGE, Situation

__all__ = ["Turning"]

LEAST_K = 512  # from which on a tile's columns outgrow L1, where copying all of them first costs most
LEAST_STEPS = 8  # of k that a square is copied beside
SPREAD = 256  # bytes: lines of which no larger power of two divides the distance lie in different sets


class Turning(Asking):
    """The next tile's columns in the steps of k."""

    situation: Situation

    def may_turn(self) -> bool:
        """Whether columns of B can be copied square by square while others are multiplied, and caches keep what both read: the
        lines of a square lie in different sets, and come from a cache."""
        p, machine = self.problem, self.machine
        if (
            self.words is not None
            or self.k < LEAST_K
            or self.uneven
            or not is_static((*self.local_k, self.m.size, self.n.size))
        ):
            return False
        if sum(e != 1 for e in self.local_k) != 1 or not self.analysis.direct("b"):
            return False
        if self.n.most * self.k * p.kind.itemsize > L3_SHARE * machine.l3:
            return False
        positions, _, flat, k, _ = self.analysis.operand("b")
        along = [i for i, e in zip(k, p.k, strict=True) if e != 1]
        steps = [positions[0].coefficient(*at.terms) for at in (flat, *along) if at.terms]
        return 1 in steps and all(step == 1 or gcd(step * p.kind.itemsize, PAGE) <= SPREAD for step in steps)

    def takes_turns(self) -> bool:
        """Whether each tile copies a part of the columns that the next one reads."""
        t = self.tiling
        if not (self.situation.turns and self.pack_b and t.variant == "columns" and self.in_panels):
            return False
        if self.strip < t.mc or t.nc <= self.width or self.width % t.lanes or self.k < t.lanes:
            return False
        return self.squares(-(-t.mc // t.mr)) * LEAST_STEPS <= self.k

    def squares(self, tiles: int) -> int:
        """Squares that a tile copies, of so many tiles of rows."""
        lanes = self.tiling.lanes
        return -(-(-(-self.k // lanes) * (self.width // lanes)) // tiles)

    def square(self, number: Affine, along: Affine) -> tuple[At, Affine]:
        """The k of a panel's square, so far along from its first one, and its first column."""
        lanes = self.tiling.lanes
        k, column = self.space.divmod(number, self.width // lanes)
        start = self.block(k, lanes, self.k, lanes) + along
        return [start if e != 1 else Affine.of(0) for e in self.local_k], column * lanes

    def square_of_next(
        self, at: tuple[At, At, Affine], tile: tuple[Affine, Affine], counts: tuple[int, int], piece: Affine
    ) -> list[Stmt]:
        """The copy of a square, number ``piece`` of those of a tile (number of its rows and of its columns, of as many as
        ``counts``)."""
        lanes, (batch, no, n_block), following = self.tiling.lanes, at, tile[1] + 1
        all, each = -(-self.k // lanes) * (self.width // lanes), self.squares(counts[0])
        number = tile[0] * each + piece
        local, column = self.square(number, self.space.loop("p", lanes))
        loops: list[tuple[str, Extent]] = [("p", lanes)]
        k_loops = self.in_piece(local), loops, local
        copied = self.panel_of_b(batch, no, n_block, following, (column, lanes), k_loops)
        more = op("lt", tile[1].expr(), const(counts[1] - 1))
        body: tuple[Stmt, ...] = (If(more, tuple(copied)),)
        if each * counts[0] > all:
            body = (If(op("lt", number.expr(), const(all)), body),)
        return list(body)
