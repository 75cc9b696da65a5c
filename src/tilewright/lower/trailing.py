"""Long epilogues that trail: while a register tile multiplies, the one before it is finished.

A long epilogue has chains of operations that wait for each other and for memory, of which a core has hardly any in view while
it multiplies. A vector of it after every few steps of k runs beside the multiplications of these steps: they need other units.

    for tile of n, tile of m:
        for vector of the tile before:
            a few steps of k
            store epilogue(its sums, from scratch); ask for the lines of the same vector of this tile
        scratch = acc
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from tilewright.core.shape import is_static, product, upper
from tilewright.kernel.ir import (
    Expr,
    Let,
    Loop,
    Stmt,
    Store,
    const,
    index,
    load,
    op,
    substitute,
    var,
)  # fmt: skip
from tilewright.lower.affine import Affine
from tilewright.lower.beside import Work
from tilewright.lower.problem import At, epilogue_cost
from tilewright.lower.read import Index
from tilewright.lower.turning import Turning

__all__ = ["Trailing"]

CHEAP = 40  # operations of a long epilogue up to which vectors of it go side by side, or beside products
LEAST_STEPS = 4  # of k that a vector of the epilogue runs beside
SPARE = 4  # registers beside a tile's sums that steps of k and a trailing epilogue share


@dataclass(frozen=True, slots=True)
class Where:
    """A task's block: outer indices, and the number and start of its rows and of its columns."""

    batch: At
    mo: At
    no: At
    rows: tuple[Affine, Affine]
    columns: tuple[Affine, Affine]


class Trailing(Turning, ABC):
    """The epilogue of the tile before in the steps of k."""

    block_area: str  # the sums of one tile
    fixed: dict[Expr, str]  # names of what epilogues read at one place

    @abstractmethod
    def put(self, batch: At, free: list[At], value: Expr) -> list[Stmt]:
        """Store one element of the result."""

    def trails(self) -> bool:
        """Whether the long epilogue of a tile runs in the next tile's steps of k."""
        t, m, n = self.tiling, self.m.size, self.n.size
        if not (self.long and t.variant == "columns" and isinstance(m, int) and isinstance(n, int)):
            return False
        if not is_static(self.local_k) or sum(e != 1 for e in self.local_k) != 1:
            return False
        # what tiles and blocks share are whole vectors
        if n % t.lanes or t.nc % t.lanes or t.nc < t.nr * t.lanes:
            return False
        lines = t.mr * t.nr
        if lines + SPARE > self.machine.registers or lines < 2 or self.k < LEAST_STEPS * lines:
            return False
        return epilogue_cost(self.group, self.stored) <= CHEAP

    def lines_of_tile_before(self, at: Where, tile: tuple[Affine, Affine], counts: tuple[int, int]) -> Work:
        """The epilogue of the tile before one (number of its rows and of its columns, of as many as ``counts``), a vector at a
        time, and requests for lines that this tile's epilogue will meet."""
        number = tile[1] * counts[0] + tile[0]
        before = self.space.atom(op("maximum", (number - 1).expr(), const(0)), 0, product(counts) - 1)
        columns, rows = self.space.divmod(before, counts[0])
        if counts[0] == 1:
            rows = Affine.of(0)

        def line(piece: Affine) -> list[Stmt]:
            return [
                *self.line_of_epilogue(at, (rows, columns), piece, number.expr()),
                *self.lines_met(self.place(at, tile, piece)),
            ]

        return self.tiling.mr * self.tiling.nr, line

    def last_epilogue(self, at: Where, counts: tuple[int, int]) -> list[Stmt]:
        """The epilogue of the last tile, which no other follows."""
        lines = self.tiling.mr * self.tiling.nr
        last = Affine.of(counts[0] - 1), Affine.of(counts[1] - 1)
        body = self.line_of_epilogue(at, last, self.space.loop("piece", lines), const(1))
        return [Loop("piece", index(0), index(lines), tuple(body))]

    def place(self, at: Where, tile: tuple[Affine, Affine], piece: Affine) -> Index:
        """Where in the result a tile's vector number ``piece`` begins."""
        t = self.tiling
        row, vector = self.space.divmod(piece, t.nr)
        rows = at.rows[1] + self.block(tile[0], t.mr, t.mc, t.mr) + row
        columns = at.columns[1] + self.block(tile[1], self.width, t.nc, self.width) + vector * t.lanes
        return self.problem.out(at.batch, self.full(self.m, at.mo, rows), self.full(self.n, at.no, columns))

    def line_of_epilogue(
        self, at: Where, tile: tuple[Affine, Affine], piece: Affine, due: Expr
    ) -> list[Stmt]:
        """The epilogue of one vector of a tile, if ``due`` is not 0 (it is before a block's first tile), and unless the tile or
        its block shares the vector with the one before it: an update of memory in place must happen once."""
        t = self.tiling
        row, vector = self.space.divmod(piece, t.nr)
        lane = self.space.loop("e", t.lanes)
        value = load(self.block_area, (piece * t.lanes + lane).expr(), self.problem.kind)
        # a loop of no or one round: unlike a branch, it leaves to the loops around it what does not vary
        for (number, start), size, whole, most, within, tall in (
            (at.rows, t.mr, t.mc, upper(self.m.size), row, tile[0]),
            (at.columns, self.width, t.nc, upper(self.n.size), vector * t.lanes, tile[1]),
        ):
            first = self.block(tall, size, whole, size)
            if whole % size:
                due = op("minimum", due, (first + within - tall * size + 1).expr())
            if most % whole:
                due = op("minimum", due, (start + first + within - number * whole + 1).expr())
        rows = at.rows[1] + self.block(tile[0], t.mr, t.mc, t.mr) + row
        columns = at.columns[1] + self.block(tile[1], self.width, t.nc, self.width) + vector * t.lanes + lane
        body = self.put(at.batch, [self.full(self.m, at.mo, rows), self.full(self.n, at.no, columns)], value)
        body = [self.with_constants(s) for s in body]
        body = [Loop("e", index(0), index(t.lanes), tuple(body), "vector", t.lanes)]
        if due.op == "const":
            return body if due.attr else []
        return [Loop("due", index(0), op("minimum", due, const(1)), tuple(body))]

    def with_constants(self, s: Stmt) -> Stmt:
        """A statement with names for what it reads at one place, which is read before the loops."""
        if isinstance(s, Let):
            return Let(s.name, self.named(s.value))
        if isinstance(s, Store):
            return Store(s.buffer, s.index, self.named(s.value), s.mask)
        return s

    def named(self, value: Expr) -> Expr:
        """An expression with names for loads from fixed places."""
        stack, found, seen = [value], dict[Expr, Expr](), set[Expr]()
        while stack:
            e = stack.pop()
            if e in seen:
                continue
            seen.add(e)
            stack += e.args
            if e.op == "load" and len(e.args) == 1 and e.args[0].op == "const":
                found[e] = var(self.fixed.setdefault(e, f"fixed{len(self.fixed)}"), e.dtype)
        return substitute(value, found) if found else value

    def fixed_values(self) -> list[Stmt]:
        """The names of what epilogues read at one place."""
        return [Let(name, value) for value, name in self.fixed.items()]
