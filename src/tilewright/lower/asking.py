"""What the tiles of a contraction ask for while they multiply: lines of B that come next, and those that the epilogue meets.

Lines that lie in memory arrive while the processor computes, if it asks for them early enough (``Prefetch`` in the kernel IR).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tilewright.graph.ir import Value, topological
from tilewright.kernel.ir import Expr, Prefetch, Stmt, const, op
from tilewright.lower.affine import Affine
from tilewright.lower.groups import Group
from tilewright.lower.packing import Packing
from tilewright.lower.problem import Analysis, At, epilogue
from tilewright.lower.read import Access, Index
from tilewright.recipes.machine import Machine

__all__ = ["Asking"]

MOST_ASKING = 32  # tiles of rows for each vector of columns, up to which they do
ASKING_ROWS = 8  # from which on tiles ask for lines: fewer compute too little while these arrive


class Asking(Packing):
    """Packing, and requests for lines."""

    group: Group
    stored: Callable[[Value], bool]
    machine: Machine
    analysis: Analysis
    pack_b: bool
    next_n: Affine | None  # which block of columns the next task that copies B has
    long: bool
    strip: int  # rows of a block that a long epilogue follows at once
    far: list[Value]  # what the epilogue reads and writes that is not in L2 by then

    @property
    def far_b(self) -> bool:
        """Whether B does not stay in L2."""
        return self.n.most * self.k * self.stored_kind.itemsize > self.machine.l2 // 2

    def ahead(
        self,
        batch: At,
        no: At,
        n_block: Affine,
        columns: tuple[Affine, Affine],
        rows: tuple[Affine, int | Expr],
        local: At,
    ) -> list[Stmt]:
        """Ask for the lines of B that follow: in a step of k, one of those that the next tile of columns reads there, while the
        first tiles of rows run. Where a task copies B, for a part of what the next task will copy."""
        t, start, size = self.tiling, columns[0], self.n.size
        far = self.far_b and t.mc >= ASKING_ROWS
        if not far or self.halo is not None or self.unit > 1 or not local or not isinstance(size, int):
            return []
        if self.turns or (self.pack_b and self.laid_out is None and self.next_n is None):
            return []
        # what follows the last tile is that tile: lines outside of memory take long to be found missing
        ahead = (
            n_block + start + (self.next_n * t.nc if self.pack_b and self.next_n is not None else self.width)
        )
        last = size - self.width
        following = self.space.atom(op("minimum", ahead.expr(), const(last)), 0, last)
        vectors = -(-self.width // t.lanes)
        # tiles after the first ask again, which takes a way to the second cache: of very many, that costs more than waiting once
        if not isinstance(rows[1], int) or rows[1] > MOST_ASKING * vectors:
            return []
        each = -(-vectors // rows[1])
        out: list[Stmt] = []
        for i in range(each):
            number = op("minimum", (rows[0] * each + i).expr(), const(vectors - 1))
            vector = self.space.atom(number, 0, vectors - 1)
            if self.laid_out is not None:
                assert self.laid_out.blocks is not None
                panel = (self.base_b + (columns[1] + 1) * self.panel).expr()
                panel = op("minimum", panel, const(self.laid_out.blocks.size - self.panel))
                step = self.flat_k(local) * self.pitch + vector * t.lanes
                out.append(Prefetch(self.area_b, op("add", panel, step.expr())))
                continue
            column, k = following + vector * t.lanes, local
            if self.pack_b and self.analysis.streams("b", "k"):
                lines = -(-self.k // t.lanes)  # of one column
                row, line = self.space.divmod(vector * self.k + self.flat_k(local), lines)
                column, k = following + row, self.space.unravel(line * t.lanes, self.local_k)
            out += self.asked(batch, self.full(self.n, no, column), self.in_piece(k))
        return out

    def asked(self, batch: At, free: At, k: At) -> list[Stmt]:
        """Prefetches of what an element of B is made of."""
        found = self.accessed(lambda: self.problem.b(self.reader, batch, free, k))
        return [Prefetch(self.builder.buffer(a.value, "r"), a.position.expr()) for a in found]

    def accessed(self, read: Callable[[], object]) -> list[Access]:
        """What ``read`` accesses, which is only looked at."""
        reader = self.reader
        before, checks = len(reader.accesses), list(reader.checks)
        read()
        found = reader.accesses[before:]
        del reader.accesses[before:]
        reader.checks[:] = checks
        return found

    def met_by_epilogue(self) -> list[Value]:
        """What the epilogue reads that is not in L2 by then; also what it writes if it is long, since all stores of a strip
        follow each other then."""
        group = self.group
        least = self.machine.l2 // (1 if self.long else 4)
        inside = topological(group.outputs, lambda v: v is group.anchor or self.stored(v))
        met = [v for v in inside if self.stored(v) or (self.long and v in group.outputs)]
        return [v for v in met if v.type.nbytes >= least]

    def ahead_of_epilogue(
        self, batch: At, mo: At, no: At, first_row: Affine, first_column: Affine, local: At
    ) -> list[Stmt]:
        """Ask for the lines that the epilogue will read and write where a tile is: in a step of k, for those of one of its
        vectors."""
        t, static = self.tiling, isinstance(self.m.size, int) and isinstance(self.n.size, int)
        nbytes = (
            self.strip * t.nc * self.problem.kind.itemsize * (1 + len(self.far))
        )  # of a strip, with its sums
        if not (self.far and local and static) or (self.long and nbytes > self.machine.l2):
            return []
        vectors = -(-self.width // t.lanes)
        lines = t.mr * vectors
        each = -(-lines // self.k)
        out = list[Stmt]()
        for i in range(each):
            number = op("minimum", (self.flat_k(local) * each + i).expr(), const(lines - 1))
            row, vector = self.space.divmod(self.space.atom(number, 0, lines - 1), vectors)
            at = self.problem.out(
                batch,
                self.full(self.m, mo, first_row + row),
                self.full(self.n, no, first_column + vector * t.lanes),
            )
            out += self.lines_met(at)
        return out

    def lines_met(self, at: Index) -> list[Stmt]:
        """Ask for the lines that the epilogue meets from an element of the result on."""
        zero, out = const(0, self.problem.kind), list[Stmt]()
        found = self.accessed(partial(epilogue, self.group, self.reader, at, zero, None))
        places = {(a.value, a.position): None for a in found if a.value in self.far}
        for v, position in places:
            mode = "w" if v in self.group.outputs else "r"
            out.append(Prefetch(self.builder.buffer(v, mode), position.expr()))
        return out
