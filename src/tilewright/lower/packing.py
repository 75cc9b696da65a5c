"""Packing: the operands of one contraction task copied into scratch, in the order in which the register tiles read them.

Where lanes run along n, scratch is ``[tile][k][mr]`` for A and ``[tile][k][columns]`` for B, or ``[k][columns]`` where whole rows
of the last ranges are copied; where they run along k it is ``[row][k]``. Windows that overlap are copied once for all taps along
an axis (``halo.py``). Elements are evaluated by ``read``: padding,
casts and elementwise work before a contraction happen here. ``contraction.py`` decides what is packed and multiplies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.core.shape import Extent, Shape, product, total, upper
from tilewright.graph.ir import Value
from tilewright.kernel.ir import (
    Expr,
    Loop,
    Reg,
    Set,
    Stmt,
    Store,
    const,
    idiv,
    imod,
    index,
    load,
    op,
    reg,
    var,
)
from tilewright.lower.affine import Affine, Space, mentions
from tilewright.lower.calls import Builder, Temporary, take_checks
from tilewright.lower.extents import extent
from tilewright.lower.halo import Halo
from tilewright.lower.problem import At, Problem, Side, renamed
from tilewright.lower.read import Reader
from tilewright.lower.words import Words, packed_words
from tilewright.recipes.contraction import Tiling

__all__ = ["Packing"]

Ranges = Sequence[tuple[str, Extent]]  # loops: their variables and extents
KLoops = tuple[At, list[tuple[str, Extent]], At]  # indices of the k ranges, their loops, these loops' indices


def _blocks(total: int, lanes: int) -> Iterator[tuple[int, int, int]]:
    """Blocks of a range, whole ones and a last one: their size, where the first begins, how many there are."""
    rest = total % lanes
    if total >= lanes:
        yield lanes, 0, total // lanes
    if rest:
        yield rest, total - rest, 1


def _replaced(position: Affine, instead: dict[Expr, Affine]) -> Affine:
    """A position with atoms replaced."""
    total = Affine.of(position.constant)
    for atom, factor in position.terms.items():
        total += instead.get(atom, Affine({atom: 1})) * factor
    return total


@dataclass(slots=True)
class LaidOut:
    """A packed operand that is not a task's own: blocks one after the other, of ``count``, and the sums of their columns."""

    count: int
    number: Affine = field(default_factory=lambda: Affine.of(0))  # of the task's block
    blocks: Temporary | None = None
    sums: Temporary | None = None


class Packing:
    """What one contraction copies. ``k``: the size of K in a task, a ``piece`` of ``local_k``; ``unit``: columns that only whole
    blocks hold; ``height``: rows of the task's block; ``halo``: the overlap of B's windows, along n or (``inner``) along k."""

    problem: Problem
    m: Side
    n: Side
    k: int
    local_k: Shape
    pieces: Extent
    height: int | Expr
    piece: Affine
    uneven: bool
    words: Words | None
    step: int
    stored_kind: DType
    inner: bool
    halo: Halo | None
    unit: int
    tiling: Tiling
    builder: Builder
    space: Space
    reader: Reader
    area_a: str
    area_b: str
    area_sums: str
    laid_out: LaidOut | None  # where B lies when it is copied once for all tasks
    base_b: Affine  # where this task's block begins in ``area_b``
    base_sums: Affine
    turns: bool  # whether a tile's columns are copied while the tile before them multiplies, so that two panels are enough

    def block(self, number: Affine, size: int, range: Extent, length: int | Expr) -> Affine:
        """Where a block of ``size`` starts in a range; the last one ends with the range and may overlap the one before.
        ``length``: what the block holds, less than its size in a range that is shorter."""
        most = upper(range)
        if size >= most:
            return Affine.of(0)
        start = number * size
        if isinstance(range, int):
            if range % size == 0:
                return start
            return self.space.atom(op("minimum", start.expr(), const(range - size)), 0, range - size)
        last = op("sub", extent(range), length if isinstance(length, Expr) else const(length))
        return self.space.atom(op("minimum", start.expr(), last), 0, most - 1)

    def tiles(self, name: str, size: int, length: int) -> tuple[Affine, Affine, int]:
        """The start and number of a tile within a block and how many tiles there are."""
        number = self.space.loop(name, -(-length // size))
        return self.block(number, size, length, size), number, -(-length // size)

    def row_tiles(self, name: str) -> tuple[Affine, Affine, int | Expr]:
        """The start and number of a tile of rows within the block, and how many there are."""
        t, height = self.tiling, self.height
        number = self.space.loop(name, -(-t.mc // t.mr))
        if isinstance(height, int) or t.mc <= t.mr:
            return self.block(number, t.mr, t.mc, t.mr), number, -(-t.mc // t.mr)
        start = op("minimum", (number * t.mr).expr(), op("sub", height, const(t.mr)))
        return self.space.atom(start, 0, t.mc - 1), number, idiv(height + (t.mr - 1), t.mr)

    def full(self, side: Side, outer: At, flat: Affine) -> At:
        return [*outer, *(self.space.unravel(flat, side.inner) if side.inner else [])]

    def k_loops(
        self, prefix: str = "k", extents: Shape | None = None, flat_from: int | None = None
    ) -> KLoops:
        """Indices of the k ranges (of a word's first element), their loops, and the loops' indices within the task's piece.
        Ranges from ``flat_from`` on run as one loop."""
        extents = self.local_k if extents is None else tuple(extents)
        cut = len(extents) if flat_from is None else flat_from
        sizes = extents[:cut] if cut == len(extents) else (*extents[:cut], total(extents[cut:]))
        local = [self.space.loop(f"{prefix}{i}", e) for i, e in enumerate(sizes)]
        loops = [(f"{prefix}{i}", e) for i, e in enumerate(sizes) if e != 1]
        at = local if cut == len(extents) else [*local[:cut], *self.space.unravel(local[-1], extents[cut:])]
        return self.in_piece(at), loops, local

    def in_piece(self, local: At) -> At:
        """Indices of the k ranges from those within the task's piece."""
        at = list(local)
        if upper(self.pieces) > 1:
            at[0] = at[0] + self.piece * upper(self.local_k[0])
        if self.words is not None:
            at[-1] = at[-1] * self.step
        return at

    @property
    def k_flat(self) -> int:
        """The k range from which on lanes along k run."""
        return self.halo.place if self.halo else max(len(self.local_k) - 1, 0)

    @property
    def k_line(self) -> int:
        """Elements between packed rows that are contiguous along k: whole vectors, an odd number of them."""
        return (-(-self.k // self.tiling.lanes) | 1) * self.tiling.lanes

    def flat_loops(self, local: At) -> Affine:
        """The flat k of loops that run flat from ``k_flat`` on."""
        first = self.k_flat
        return self.space.linear(local, (*self.local_k[:first], total(self.local_k[first:])))

    def flat_k(self, local: At) -> Affine:
        return self.space.linear(local, self.local_k)

    def b_row(self, k: At) -> Affine:
        """Where the packed columns of B for the k of the task's piece begin."""
        h = self.halo
        if h is None:
            return self.base_b + self.flat_k(k) * self.pitch
        others = [i for i in range(len(k)) if i != h.tap]
        flat = self.space.linear([k[i] for i in others], [self.local_k[i] for i in others])
        return (
            self.base_b + flat * (h.phases * self.line) + h.start(self.space, k[h.tap], self.line, self.row)
        )

    def packing_loops(self) -> list[tuple[KLoops, int]]:
        """The loops over k that pack: all of it, or its whole words and then the last one, with how many elements a round has."""
        count, rest = divmod(upper(self.problem.k[-1]), self.step) if self.words else (0, 0)
        if not rest:
            return [(self.k_loops("p"), self.step)]
        at, loops, local = self.k_loops("p", (*self.local_k[:-1], 1))
        last = ([*at[:-1], at[-1] + count * self.step], loops, [*local[:-1], local[-1] + count])
        return [(self.k_loops("p", (*self.local_k[:-1], count)), self.step), (last, rest)]

    def read(self, which: str, batch: At, free: At, k: At, count: int | None = None) -> Expr:
        """An operand's element, or its word of the ``count`` elements that follow."""
        side = self.problem.a if which == "a" else self.problem.b
        if self.words is None:
            return side(self.reader, batch, free, k)

        def element(j: int) -> Expr:
            return side(self.reader, batch, free, [*k[:-1], k[-1] + j])

        def view(value: Value) -> str:
            return self.builder.buffer(value, "r", view=dt.uint32)

        word = packed_words(self.reader, self.words, element, count or self.step, view)
        return self.words.flipped(word) if which == "a" else word

    def loop_variable(
        self, name: str, count: Extent | Expr, body: Sequence[Stmt], kind: str = "serial", lanes: int = 0
    ) -> list[Stmt]:
        """A loop, or its body alone where the variable is the constant 0."""
        if isinstance(count, int) and count == 1 and kind == "serial":
            return list(body)
        stop = count if isinstance(count, Expr) else extent(count)
        return [Loop(name, index(0), stop, tuple(body), kind, lanes)]

    def unrolled(self, name: str, count: int, body: Sequence[Stmt]) -> list[Stmt]:
        return self.loop_variable(name, count, body, "unroll") if count > 1 else list(body)

    # ---- copies ----

    @property
    def width(self) -> int:
        """Columns of a tile with lanes along n."""
        return min(self.tiling.nr * self.tiling.lanes, self.tiling.nc)

    @property
    def in_panels(self) -> bool:
        """Whether the packed columns of one tile lie together, in the order in which the tile reads them."""
        return self.halo is None and self.unit == 1

    @property
    def pitch(self) -> int:
        """Elements between packed rows: the vectors of a tile, or of the block, and then an odd number so that rows spread over
        cache sets."""
        t = self.tiling
        if self.in_panels:
            return -(-self.width // t.lanes) * t.lanes
        return (-(-t.nc // t.lanes) + 1 | 1) * t.lanes

    @property
    def panel(self) -> int:
        """Elements of one tile's packed columns."""
        return self.k * self.pitch

    def packed_column(self, k: At, tile: tuple[Affine, Affine], column: Affine) -> Affine:
        """Where an element of B lies: a column of a tile, given by its start and number, for the k of the task's piece."""
        start, number = tile
        if self.turns:
            number = self.space.divmod(number, 2)[1]
        return self.b_row(k) + (number * self.panel + column if self.in_panels else start + column)

    def place_b(self, size: int) -> None:
        """Room for a task's block of B: scratch, or its own part of what all tasks share."""
        laid_out, kind = self.laid_out, self.stored_kind
        if laid_out is None:
            self.area_b, self.base_b = self.builder.area(kind, size), Affine.of(0)
            return
        size = -(-size // self.tiling.lanes) * self.tiling.lanes
        if laid_out.blocks is None:
            laid_out.blocks = Temporary(kind, laid_out.count * size)
        self.area_b = self.builder.buffer(laid_out.blocks, "w")
        self.base_b = laid_out.number * size

    def find_b(self) -> None:
        """Where this task's block of B lies that an earlier call has laid out."""
        assert self.laid_out is not None and self.laid_out.blocks is not None
        blocks, sums = self.laid_out.blocks, self.laid_out.sums
        self.area_b = self.builder.buffer(blocks, "r")
        self.base_b = self.laid_out.number * (blocks.size // self.laid_out.count)
        if sums is not None:
            self.area_sums = self.builder.buffer(sums, "r")
            self.base_sums = self.laid_out.number * self.tiling.nc

    def packed_b(self, batch: At, no: At, n_block: Affine) -> list[Stmt]:
        """This task's columns of B in scratch."""
        if self.halo is not None:
            return (self.overlapping_k if self.inner else self.overlapping_n)(self.halo, batch, no, n_block)
        if self.turns:
            self.place_b(2 * self.panel)
            return self.panel_of_b(
                batch, no, n_block, Affine.of(0), (Affine.of(0), self.width), self.k_loops("p")
            )
        self.place_b(self.panel * (-(-self.tiling.nc // self.width) if self.in_panels else 1))
        out: list[Stmt] = []
        for loops, count in self.packing_loops():
            out += self.copied_b(batch, no, n_block, loops, count)
        return out + self.packed_column_sums()

    def copied_b(self, batch: At, no: At, n_block: Affine, k_loops: KLoops, count: int) -> list[Stmt]:
        t, (k, loops, local), inner = self.tiling, k_loops, self.n.inner
        flat_k = self.flat_k(local)
        if self.unit > 1:
            # whole rows of the trailing ranges: their indices stay plain variables
            rows = self.space.loop("q0", t.nc // self.unit)
            first = self._block_rows(n_block)
            rest = [self.space.loop(f"q{i + 1}", e) for i, e in enumerate(inner[1:])]
            at = [*no, first + rows, *rest]
            within_block = self.space.linear([rows, *rest], [t.nc // self.unit, *inner[1:]])
            lines: Ranges = [("q0", t.nc // self.unit), *((f"q{i + 1}", e) for i, e in enumerate(inner[1:]))]
            value = self.read("b", batch, at, k, count)
            position = self.base_b + flat_k * self.pitch + within_block
            return self.copy_loops(value, self.area_b, position, loops, lines)
        start, number, tiles = self.tiles("qt", self.width, t.nc)
        column = self.space.loop("q", self.width)
        at = self.full(self.n, no, n_block + start + column)
        value = self.read("b", batch, at, k, count)
        position = self.packed_column(local, (start, number), column)
        return self.copy_loops(value, self.area_b, position, [*loops, ("qt", tiles)], [("q", self.width)])

    def panel_of_b(
        self, batch: At, no: At, n_block: Affine, number: Affine, part: tuple[Affine, int], k_loops: KLoops
    ) -> list[Stmt]:
        """Some columns (the first one's number and how many) of a tile of B in scratch, for some of k."""
        k, loops, local = k_loops
        start = self.block(number, self.width, self.tiling.nc, self.width)
        column = part[0] + self.space.loop("q", part[1])
        value = self.read("b", batch, self.full(self.n, no, n_block + start + column), k)
        position = self.packed_column(local, (start, number), column)
        return self.copy_loops(value, self.area_b, position, loops, [("q", part[1])])

    @property
    def line(self) -> int:
        """Elements between two copies of an overlapping operand: whole vectors, an odd number of them."""
        assert self.halo is not None
        return ((-(-self.rows * self.row // self.tiling.lanes)) | 1) * self.tiling.lanes

    @property
    def row(self) -> int:
        """Elements of one place: the flat ranges after it."""
        assert self.halo is not None
        return product(self.local_k[self.halo.place + 1 :]) if self.inner else self.unit

    @property
    def rows(self) -> int:
        """Places of a block and those that its taps reach beyond."""
        assert self.halo is not None
        places = upper(self.local_k[self.halo.place]) if self.inner else self.tiling.nc // self.unit
        return places + self.halo.reach

    def overlapping_n(self, h: Halo, batch: At, no: At, n_block: Affine) -> list[Stmt]:
        """Scratch ``[k without taps][phase][place][flat ranges after it]``."""
        others = [i for i in range(len(self.local_k)) if i != h.tap]
        sizes = [self.local_k[i] for i in others]
        self.place_b(product(sizes) * h.phases * self.line)
        local = [self.space.loop(f"p{i}", e) for i, e in enumerate(self.local_k)]
        flat = self.space.linear([local[i] for i in others], sizes)
        local[h.tap] = phase = self.space.loop("ph", h.phases)
        row = self.space.loop("q0", self.rows)
        after = self.n.inner[1:]
        rest = [self.space.loop(f"q{i + 1}", e) for i, e in enumerate(after)]
        at = [*no, self._block_rows(n_block) + row, *rest]
        value = self.problem.b(self.reader, batch, at, self.in_piece(local))
        position = self.base_b + (flat * h.phases + phase) * self.line
        position += self.space.linear([row, *rest], [self.rows, *after])
        outer: Ranges = [*((f"p{i}", self.local_k[i]) for i in others), ("ph", h.phases)]
        lines: Ranges = [("q0", self.rows), *((f"q{i + 1}", e) for i, e in enumerate(after))]
        return self.copy_loops(value, self.area_b, position, outer, lines)

    def overlapping_k(self, h: Halo, batch: At, no: At, n_block: Affine) -> list[Stmt]:
        """Scratch ``[n without taps][k before the places][phase][place][flat ranges after it]``."""
        shape, tap = self.block_shape
        before, after = self.local_k[: h.place], self.local_k[h.place + 1 :]
        others = [e for i, e in enumerate(shape) if i != tap]
        self.place_b(product(others) * product(before) * h.phases * self.line)
        column = [self.space.loop(f"q{i}", e) for i, e in enumerate(shape)]
        column[tap] = phase = self.space.loop("ph", h.phases)
        local = [self.space.loop(f"p{i}", e) for i, e in enumerate(self.local_k)]
        local[h.place] = self.space.loop("u", self.rows)
        ahead = self.n.inner[: h.tap - self.n.cut]
        lead = self.space.unravel(self._block_rows(n_block) + column[0], ahead) if tap else []
        at = [*no, *lead, *column[tap:]]
        value = self.problem.b(self.reader, batch, at, self.in_piece(local))
        copy = self.space.linear([c for i, c in enumerate(column) if i != tap], others)
        copy = self.space.linear([copy, *local[: h.place]], [product(others), *map(upper, before)])
        position = self.base_b + (copy * h.phases + phase) * self.line
        position += self.space.linear(local[h.place :], [self.rows, *after])
        outer: list[tuple[str, Extent]] = [(f"q{i}", e) for i, e in enumerate(shape) if i != tap]
        outer += [*((f"p{i}", e) for i, e in enumerate(before)), ("ph", h.phases)]
        lines: Ranges = [("u", self.rows), *((f"p{h.place + 1 + i}", e) for i, e in enumerate(after))]
        return self.copy_loops(value, self.area_b, position, outer, lines)

    @property
    def block_shape(self) -> tuple[Shape, int]:
        """The extents of a block of columns whose taps overlap, ranges before the taps run as one; and the number of the taps."""
        assert self.halo is not None
        tap = self.halo.tap - self.n.cut
        return ((self.tiling.nc // self.unit, *self.n.inner[tap:]), 1) if tap else (self.n.inner, 0)

    def overlapping_column(self, h: Halo, column: Affine, local: At) -> Affine:
        """The packed position of a column of the block, for k within the piece."""
        shape, tap = self.block_shape
        at = self.space.unravel(column, shape)
        others = [e for i, e in enumerate(shape) if i != tap]
        before = self.local_k[: h.place]
        copy = self.space.linear([c for i, c in enumerate(at) if i != tap], others)
        copy = self.space.linear([copy, *local[:-1]], [product(others), *map(upper, before)])
        start = h.start(self.space, at[tap], self.line, self.row)
        return self.base_b + copy * (h.phases * self.line) + start + local[-1]

    def _block_rows(self, n_block: Affine) -> Affine:
        """The first row of a block whose start is a multiple of the row length."""
        quotient, rest = self.space.divmod(n_block, self.unit)
        if rest != Affine.of(0):  # min(number * size, total - size): both are multiples of the row length
            quotient = self.space.atom(idiv(n_block.expr(), self.unit), 0, self.n.most // self.unit)
        return quotient

    def packed_a(self, batch: At, mo: At, m_block: Affine) -> list[Stmt]:
        """Scratch ``[tile][k][mr]`` of this task's rows of A; with lanes along k ``[row][k]``."""
        t = self.tiling
        if self.inner:
            row = self.space.loop("r", t.mc)
            self.area_a = self.builder.area(self.stored_kind, t.mc * self.k_line)
            k, loops, local = self.k_loops("p", flat_from=self.k_flat)
            value = self.read("a", batch, self.full(self.m, mo, m_block + row), k)
            position = row * self.k_line + self.flat_loops(local)
            if isinstance(self.height, int):
                return self.copy_loops(value, self.area_a, position, [("r", t.mc)], loops)
            return self.loop_variable(
                "r", self.height if t.mc > 1 else 1, self.copy_loops(value, self.area_a, position, [], loops)
            )
        start, number, tiles = self.row_tiles("pt")
        self.area_a = self.builder.area(self.stored_kind, -(-t.mc // t.mr) * self.k * t.mr)
        row = self.space.loop("r", t.mr)
        at = self.full(self.m, mo, m_block + start + row)
        out: list[Stmt] = []
        within = [("pt", tiles)] if isinstance(tiles, int) else []
        for (k, loops, local), count in self.packing_loops():
            value = self.read("a", batch, at, k, count)
            position = (number * self.k + self.flat_k(local)) * t.mr + row
            out += self.copy_loops(value, self.area_a, position, [*within, *loops], [("r", t.mr)])
        return out if within else self.loop_variable("pt", tiles, out)

    def summed_column(self, b: Expr, at: tuple[Expr, ...], sums: str = "columns") -> Stmt:
        """Add a word of B to its column's sum."""
        assert self.words is not None
        return Set(sums, self.words.column(b, reg(sums, self.words.total, *at)), at)

    def packed_column_sums(self) -> list[Stmt]:
        """Scratch ``[nc]`` of what the sums of packed columns have to be put right by."""
        words, t = self.words, self.tiling
        if words is None or not words.correction:
            return []
        kind, laid_out = words.total, self.laid_out
        if laid_out is None:
            self.area_sums, self.base_sums = self.builder.area(kind, t.nc), Affine.of(0)
        else:
            assert laid_out.blocks is not None
            self.builder.buffer(laid_out.blocks, "r")  # the sums are of what lies there by then
            laid_out.sums = Temporary(kind, laid_out.count * t.nc)
            self.area_sums = self.builder.buffer(laid_out.sums, "w")
            self.base_sums = laid_out.number * t.nc
        width = self.width
        start, number, tiles = self.tiles("ct", width, t.nc)
        k, full = self.space.loop("k", self.k), width // t.lanes
        step: list[Stmt] = []
        done: list[Stmt] = []
        for first, count, lanes in ((0, full, t.lanes), (full, 1, width - full * t.lanes)):
            if not count or not lanes:
                continue
            lane, vector = self.space.loop("c", lanes), self.space.loop("j", count) + first
            within = lane + vector * t.lanes
            column = start + within
            place = number * self.panel + within if self.in_panels else column
            word = load(self.area_b, (self.base_b + k * self.pitch + place).expr(), dt.uint32)
            at = (vector.expr(),)
            summed = op("mul", reg("columns", kind, *at), const(words.correction, kind))
            put = Store(self.area_sums, (self.base_sums + column).expr(), summed)
            for out, s in ((step, self.summed_column(word, at)), (done, put)):
                out += self.unrolled("j", count, [Loop("c", index(0), index(lanes), (s,), "vector", t.lanes)])
        tile = [
            Reg("columns", kind, const(0, kind), (-(-width // t.lanes),), t.lanes),
            *self.loop_variable("k", self.k, step),
            *done,
        ]
        return self.loop_variable("ct", tiles, tile)

    def copy_loops(
        self,
        value: Expr,
        area: str,
        position: Affine,
        outer: Ranges,
        lines: Ranges,
    ) -> list[Stmt]:
        """Loops that copy into scratch; the vector loop is the one along which the source is contiguous."""
        t = self.tiling
        body: list[Stmt] = [*take_checks(self.reader), Store(area, position.expr(), value)]
        ranges: list[tuple[str, Extent]] = [(n, e) for n, e in (*outer, *lines) if e != 1]
        if not ranges:
            return body
        positions = [a.position for a in self.reader.accesses]
        self.reader.accesses.clear()
        body, ranges, (position, *positions) = self.in_digits(body, ranges, [position, *positions])
        vector = ranges[-1]

        def score(item: tuple[str, Extent]) -> float:
            atom = var(item[0])
            cost = 0.0
            for a in positions:
                if any(x.op != "var" and mentions(x, {atom}) for x in a.terms):
                    cost += 12
                else:
                    cost += {0: 0.5, 1: 1.0}.get(a.coefficient(atom), 8.0)
            cost += {0: 0.5, 1: 1.0}.get(position.coefficient(atom), 6.0)
            most = upper(item[1])
            return cost * -(-most // t.lanes) * t.lanes / most

        vector = min(reversed(ranges), key=score)
        ranges.remove(vector)
        name, length = vector
        far = abs(position.coefficient(var(name))) != 1
        if far and ranges and not self.uneven and isinstance(length, int):
            line = next((r for r in ranges if position.coefficient(var(r[0])) == 1), None)
            squares = t.lanes > 1 and self.stored_kind.itemsize >= 4 and len(body) == 1
            if line is not None and isinstance(line[1], int) and squares and length > 1:
                ranges.remove(line)
                return self.transposed_squares(body, (name, length), (line[0], line[1]), ranges)
            return self.transposing_loops(body, (name, length), ranges)
        body = [Loop(name, index(0), extent(length), tuple(body), "vector", t.lanes)]
        for name, length in reversed(ranges):
            body = self.loop_variable(name, length, body)
        return body

    def in_digits(
        self, body: list[Stmt], ranges: list[tuple[str, Extent]], positions: list[Affine]
    ) -> tuple[list[Stmt], list[tuple[str, Extent]], list[Affine]]:
        """A copy with loops for the digits of a range, where positions have quotient and remainder of it by one number: what is
        contiguous along the remainder can be read so."""
        out: list[tuple[str, Extent]] = []
        for name, length in ranges:
            atom = var(name)
            digits = {x for p in positions for x in p.terms if x.op in ("idiv", "imod") and x.args[0] is atom}
            sizes = {x.args[1].attr for x in digits}
            size = sizes.pop() if len(sizes) == 1 else 0
            if not size or not isinstance(length, int) or length % size or len(digits) < 2:
                out.append((name, length))
                continue
            high, low = self.space.loop(f"{name}h", length // size), self.space.loop(f"{name}l", size)
            instead = {idiv(atom, size): high, imod(atom, size): low, atom: high * size + low}
            body = [renamed(s, {x: a.expr() for x, a in instead.items()}) for s in body]
            positions = [_replaced(p, instead) for p in positions]
            out += [(n, e) for n, e in ((f"{name}h", length // size), (f"{name}l", size)) if e != 1]
        return body, out, positions

    def transposed_squares(
        self,
        body: list[Stmt],
        vector: tuple[str, int],
        line: tuple[str, int],
        ranges: list[tuple[str, Extent]],
    ) -> list[Stmt]:
        """A copy from lines along ``vector`` to lines along ``line``, a square of vectors at a time, which the emitter transposes
        in registers: to write the elements of a vector to places far apart takes a cycle for each."""
        lanes = self.tiling.lanes
        (along, n), (across, m) = vector, line
        names = f"{along}b", f"{across}b", f"{along}l", f"{across}l"
        out: list[Stmt] = []
        for rows, first_row, row_blocks in _blocks(m, lanes):
            row_block = self.space.loop(names[1], row_blocks)
            there = (row_block * lanes + first_row).expr() + var(names[3])
            for active, first, blocks in _blocks(n, lanes):
                block = self.space.loop(names[0], blocks)
                here = (block * lanes + first).expr() + var(names[2])
                moved = [renamed(s, {var(along): here, var(across): there}) for s in body]
                vectors = [Loop(names[2], index(0), index(active), tuple(moved), "vector", lanes)]
                nest = [Loop(names[3], index(0), index(rows), tuple(vectors), "unroll")]
                out += self.loop_variable(names[1], row_blocks, self.loop_variable(names[0], blocks, nest))
        for name, length in reversed(ranges):
            out = self.loop_variable(name, length, out)
        return out

    def transposing_loops(
        self, body: list[Stmt], vector: tuple[str, int], ranges: list[tuple[str, Extent]]
    ) -> list[Stmt]:
        """A copy whose vectors go to places far apart: one vector's worth of lines stays in L1 while the other ranges run."""
        (name, length), lanes = vector, self.tiling.lanes
        out: list[Stmt] = []
        for blocks, start, active in (
            (length // lanes, 0, lanes),
            (1, length - length % lanes, length % lanes),
        ):
            if not blocks or not active:
                continue
            block = self.space.loop(f"{name}b", blocks)
            here = (block * lanes + start).expr() + var(f"{name}l")
            moved = [renamed(s, {var(name): here}) for s in body]
            nest: list[Stmt] = [Loop(f"{name}l", index(0), index(active), tuple(moved), "vector", lanes)]
            for inner_name, inner_extent in reversed(ranges):
                nest = self.loop_variable(inner_name, inner_extent, nest)
            out += self.loop_variable(f"{name}b", blocks, nest)
        return out
