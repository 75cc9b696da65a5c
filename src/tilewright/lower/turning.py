"""Columns of B that are copied in turn: while a tile of columns multiplies, those of the next one are copied beside it.

A copy that transposes waits for loads and shuffles, multiplications wait for neither; a square of it after some steps of k takes
hardly more time than these steps. Two panels of columns are enough: the one that is read and the one that is written.
"""

from __future__ import annotations

from tilewright.core.shape import is_static
from tilewright.kernel.ir import If, Loop, Stmt, const, index, op
from tilewright.lower.affine import Affine
from tilewright.lower.asking import Asking
from tilewright.lower.problem import At
from tilewright.recipes.contraction import Situation

__all__ = ["Turning"]

LEAST_STEPS = 8  # of k that a square is copied beside
SOON = 2  # squares from now that are asked for


class Turning(Asking):
    """The next tile's columns in the steps of k."""

    situation: Situation

    def takes_turns(self) -> bool:
        """Whether each tile copies a part of the columns that the next one reads."""
        t, s = self.tiling, self.situation
        if not self.pack_b or s.settled or s.once or self.words is not None or t.variant != "columns":
            return False
        one = is_static(self.local_k) and sum(e != 1 for e in self.local_k) == 1 and not self.uneven
        if not (one and self.in_panels and self.strip == t.mc and isinstance(self.m.size, int)):
            return False
        whole = t.nc > self.width and self.width % t.lanes == 0 and self.k >= t.lanes
        return whole and self.squares(-(-t.mc // t.mr)) * LEAST_STEPS <= self.k

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
        ``counts``), and requests for the lines of one that follows."""
        lanes, (batch, no, n_block), following = self.tiling.lanes, at, tile[1] + 1
        all, each = -(-self.k // lanes) * (self.width // lanes), self.squares(counts[0])
        number = tile[0] * each + piece
        local, column = self.square(number, self.space.loop("p", lanes))
        k_loops = self.in_piece(local), [("p", lanes)], local
        copied = self.panel_of_b(batch, no, n_block, following, (column, lanes), k_loops)
        more = op("lt", tile[1].expr(), const(counts[1] - 1))
        body: tuple[Stmt, ...] = (If(more, tuple(copied)),)
        if each * counts[0] > all:
            body = (If(op("lt", number.expr(), const(all)), body),)
        out = list(body)
        if not self.far_b:
            return out
        line, zero = self.space.loop("line", lanes), Affine.of(0)
        along_k = self.analysis.streams("b", "k")
        panel, number = self.space.divmod(following * (each * counts[0]) + number + SOON, each * counts[0])
        local, column = self.square(number, zero if along_k else line)
        start = self.block(panel, self.width, self.tiling.nc, self.width)
        column = n_block + start + column + (line if along_k else zero)
        asks = self.asked(batch, self.full(self.n, no, column), self.in_piece(local))
        return [*out, Loop("line", index(0), index(lanes), tuple(asks), "unroll")]
