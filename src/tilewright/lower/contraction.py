"""Contractions: matmul in every transposition, batched, einsum, and convolution, as one loop nest over ``read``.

Every range of the problem is a batch, M, N or K range by which operand depends on it. ``read`` evaluates the operands, so
transposition, padding, windows, casts and elementwise prologues happen where the operand is read; where reading it each time
would be slow it is packed once per task into scratch. The epilogue (whatever elementwise work the group holds) runs on
the finished register tile, or on a scratch block when it is long.

    for task in lo..hi:                            # outer ranges, block of M, block of N
        pack B[k, n] into scratch                  # only when it is not plainly contiguous along n
        for tile of n, tile of m:
            acc[mr, nr] = 0
            for k: acc[i, j] += A[m + i, k] * B[k, n + j*lanes ..]
            store epilogue(acc)

Where the machine multiplies and adds up several small elements at once, k runs over words of them (``words.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tilewright.core import dtype as dt
from tilewright.core.shape import product, static
from tilewright.graph.ir import Value
from tilewright.kernel.ir import (
    HI,
    LO,
    Expr,
    Let,
    Loop,
    Reg,
    Set,
    Stmt,
    Store,
    across,
    const,
    fma,
    idiv,
    imod,
    index,
    load,
    op,
    reg,
    var,
)  # fmt: skip
from tilewright.lower.affine import Affine, Space, mentions
from tilewright.lower.calls import Builder, Call, Temporary, take_checks
from tilewright.lower.groups import Group
from tilewright.lower.problem import (
    Analysis,
    At,
    Side,
    conv_problem,
    dot_problem,
    epilogue,
    epilogue_cost,
    renamed,
)  # fmt: skip
from tilewright.lower.read import Reader, Unsupported
from tilewright.lower.words import Words, packed_words, words_of
from tilewright.recipes.contraction import Tiling, choose_tiling, inner_wins
from tilewright.recipes.machine import Machine

__all__ = ["lower_contraction"]

LONG_EPILOGUE = (
    24  # cheap operations per element beyond which the epilogue is not unrolled over the register tile
)
LONG_K = 1024
MAX_PARTIAL = 1 << 24  # bytes that partial results of a split contraction may take
MAX_PACK = 1 << 26  # bytes of scratch one packed block may take
_SUMMED = 4  # vectors of columns added up at once

KLoops = tuple[At, list[tuple[str, int]], Affine]  # indices of the k ranges, their loops, the flat k


def _stopped(body: Sequence[Stmt], names: set[str], stop: Expr) -> tuple[Stmt, ...]:
    """Statements with the loops over ``names`` ending at ``stop``."""
    out: list[Stmt] = []
    for s in body:
        if isinstance(s, Loop):
            end = stop if s.var in names else s.stop
            s = Loop(s.var, s.start, end, _stopped(s.body, names, stop), s.kind, s.lanes)
        out.append(s)
    return tuple(out)


class _Emitter:
    """Builds the kernels of one contraction."""

    def __init__(self, group: Group, stored: Callable[[Value], bool], machine: Machine) -> None:
        self.group, self.stored, self.machine = group, stored, machine
        anchor = group.anchor
        self.words = self.packing(anchor)
        if self.words is not None:
            problem = dot_problem(anchor, self.words.total)
        else:
            problem = dot_problem(anchor) if anchor.op == "dot" else conv_problem(anchor)
        if product(problem.n) == 1 and product(problem.m) > 1:
            problem = problem.swapped()
        self.problem = problem
        self.analysis = Analysis(group, problem, stored)
        self.m, self.n = self.analysis.m, self.analysis.n
        self.step = self.words.size if self.words else 1  # elements of k in one round of the innermost loop
        self.stored_kind = dt.uint32 if self.words else problem.kind
        self.all_k = (*problem.k[:-1], -(-problem.k[-1] // self.step)) if problem.k else ()
        self.k = product(self.all_k)
        self.pieces = 1
        self.partial: Temporary | None = None
        self.outer = (*problem.batch, *self.m.outer, *self.n.outer)
        self.choose()

    def packing(self, anchor: Value) -> Words | None:
        """How elements are packed in words, where that is possible and k long enough."""
        words = words_of(anchor, self.machine)
        if words is None:
            return None
        sizes = static(tuple(anchor.inputs[0].shape[a] for a in anchor["lhs_contract"]))
        # only a task that reaches to the end of k can tell that the last word is not whole
        if sizes[-1] < words.size or (sizes[-1] % words.size and product(sizes) > words.size * LONG_K):
            return None
        return words

    def choose(self) -> None:
        """How the operands are read, and the tiling."""
        look, p = self.analysis, self.problem
        self.split_k()
        whole = self.step == 1 or p.k[-1] % self.step == 0
        if self.words is None:
            self.direct_a = look.direct("a")
            contiguous_k = look.streams("a", "k") and look.streams("b", "k")
        else:
            self.direct_a = whole and look.words("a", self.step)
            contiguous_k = self.direct_a and look.words("b", self.step)
        self.direct_b = self.words is None and look.direct("b", "free")
        tail = self.all_k[-1] if p.k else 1
        lanes = max(1, self.machine.vector_bytes // p.kind.itemsize)
        fills = -(-tail // lanes) * lanes <= 1.35 * tail
        self.inner = (
            contiguous_k
            and fills
            and (p.kind.is_float or self.words is not None)
            and (not self.direct_b or self.n.size <= lanes // 4)
            and inner_wins(self.machine, p.kind.itemsize, self.m.size, self.k)
        )
        single = self.m.size <= 8  # nothing would read a packed element twice
        # long rows far apart fill neither the caches' sets nor the address translation well
        far = self.m.size >= 96 and self.k * self.n.size * p.kind.itemsize > 2 * self.machine.l2
        self.pack_b = (
            not self.inner
            and (far or not self.direct_b)
            and not (single and whole and look.streams("b", "free"))
        )
        # columns of A that lie together are copied together; other strides are walked as they are
        plain_a = self.direct_a and (not look.direct("a", "free") or self.k <= 32 or self.words is not None)
        # rows a multiple of the page size apart fall into one set of L1
        crowded = self.k * p.kind.itemsize % 4096 == 0
        self.pack_a = not self.inner and not plain_a
        unit = (
            product(self.n.inner[1:])
            if self.pack_b and len(self.n.inner) > 1 and not look.streams("b", "free")
            else 1
        )
        self.unit = unit
        self.tiling: Tiling = choose_tiling(
            self.machine, p.kind.itemsize, product(self.outer), self.m.size, self.n.size, self.k, inner=self.inner,
            packs_a=self.pack_a,
            packs_b=self.pack_b,
            few_rows=crowded and not self.pack_a, unit=unit,
        )  # fmt: skip
        if self.pack_b and self.tiling.nc * self.k * p.kind.itemsize > MAX_PACK:
            raise Unsupported("a contraction whose packed block does not fit in scratch")
        self.long = epilogue_cost(self.group) > LONG_EPILOGUE and self.pieces == 1

    def split_k(self) -> None:
        """Cut a long K into pieces that caches hold and cores share; their partial results are summed afterwards."""
        first = self.all_k[0] if self.all_k else 1
        room = max(1, MAX_PARTIAL // (self.group.anchor.type.size * self.problem.kind.itemsize))
        extent = first
        if self.k > LONG_K:
            fitting = [d for d in range(2, min(first, room) + 1) if first % d == 0]
            short = [d for d in fitting if self.k // d <= LONG_K]
            self.pieces = min(short) if short else max(fitting, default=1)
            extent = first // self.pieces
            if self.k // self.pieces > 2 * LONG_K:  # no divisor will do: the last piece is shorter
                extent = -(-first // min(-(-self.k // LONG_K), room, first))
                self.pieces = -(-first // extent)
        self.uneven = first % extent != 0
        self.k = self.k // first * extent if first else 0
        self.local_k = (extent, *self.all_k[1:]) if self.all_k else ()
        if self.pieces > 1:
            self.partial = Temporary(self.problem.kind, self.pieces * self.group.anchor.type.size)

    def shortened(self, body: Sequence[Stmt]) -> tuple[Stmt, ...]:
        """The loops over the outermost k range, stopped where the problem ends."""
        if not self.uneven:
            return tuple(body)
        size = self.local_k[0]
        rest = op("sub", const(self.all_k[0]), (self.piece * size).expr())
        return _stopped(body, {"k0", "p0"}, op("minimum", const(size), rest))

    def calls(self) -> list[Call]:
        p = self.problem
        label = f"{self.group.anchor.op} {list(p.batch)} {list(p.m)}x{list(p.n)}x{list(p.k)} {self.tiling}"
        if self.words is not None:
            label += f" {self.words.dots}"
        flops = 2 * self.group.anchor.type.size * product(p.k)
        calls = [self.main_call(label, flops)]
        if self.partial is not None:
            calls.append(self.sum_call(label))
        return calls

    def sum_call(self, label: str) -> Call:
        """Add the pieces' partial results, always in the same order, and run the epilogue."""
        assert self.partial is not None
        self.start()
        shape, kind = static(self.group.anchor.shape), self.problem.kind
        size = product(shape)
        flat = self.space.loop("e", size)
        at = self.space.unravel(flat, shape)
        source = self.builder.buffer(self.partial, "r")
        number = self.space.loop("s", self.pieces)
        term = load(source, (number * size + flat).expr(), kind)
        body: list[Stmt] = [
            Reg("sum", kind, const(0, kind)),
            *self.loop_variable("s", self.pieces, [Set("sum", op("add", reg("sum", kind), term))]),
            *epilogue(self.group, self.reader, tuple(at), reg("sum", kind), self.builder),
        ]
        kind_lanes = ("vector", self.tiling.lanes) if size > 1 else ("serial", 0)
        loop = Loop("e", LO, HI, tuple(body), *kind_lanes)
        return self.builder.call((loop,), size, 1 << 14, f"sum of pieces: {label}")

    def start(self) -> None:
        self.builder = Builder()
        self.space = Space()
        self.reader = Reader(self.space, lambda v: self.builder.buffer(v, "r") if self.stored(v) else None)

    def main_call(self, label: str, flops: int) -> Call:
        self.start()
        t, p = self.tiling, self.problem
        blocks_m, blocks_n = -(-self.m.size // t.mc), -(-self.n.size // t.nc)
        extents = (self.pieces, *self.outer, blocks_m, blocks_n)
        grid = product(extents)
        digits, at = self.decode(extents, grid)
        self.piece = at[0]
        batch, mo, no = self.cut(at[1:])
        m_block = self.block(at[-2], t.mc, self.m.size)
        n_block = self.block(at[-1], t.nc, self.n.size)
        task: list[Stmt] = []
        if self.pack_b:
            task += self.packed_b(batch, no, n_block)
        if self.pack_a:
            task += self.packed_a(batch, mo, m_block)
        if self.long:
            self.block_area = self.builder.area(p.kind, t.mc * t.nc)
        task += (
            self.inner_tiles(batch, mo, no, m_block, n_block)
            if self.inner
            else self.column_tiles(batch, mo, no, m_block, n_block)
        )
        if self.long:
            task += self.long_epilogue(batch, mo, no, m_block, n_block)
        body = (Loop("g", LO, HI, (*digits, *self.shortened(task))),)
        return self.builder.call(body, grid, 1, label, flops)

    def decode(self, extents: Sequence[int], grid: int) -> tuple[list[Stmt], At]:
        """The task number as an index over outer ranges and blocks."""
        flat, digits, at = var("g"), list[Stmt](), list[Affine]()
        stride = grid
        for position, extent in enumerate(extents):
            stride //= extent
            if extent == 1:
                at.append(Affine.of(0))
                continue
            digit = idiv(flat, stride)
            first = all(e == 1 for e in extents[:position])
            digits.append(Let(f"t{position}", digit if first else imod(digit, extent)))
            at.append(self.space.loop(f"t{position}", extent))
        return digits, at

    def cut(self, at: At) -> tuple[At, At, At]:
        b, mo = len(self.problem.batch), len(self.m.outer)
        return at[:b], at[b : b + mo], at[b + mo : -2]

    def block(self, number: Affine, size: int, total: int) -> Affine:
        """Where a block starts; the last one ends with the range and may overlap the one before."""
        if size >= total:
            return Affine.of(0)
        start = number * size
        if total % size == 0:
            return start
        return self.space.atom(op("minimum", start.expr(), const(total - size)), 0, total - size)

    def tiles(self, name: str, size: int, total: int) -> tuple[Affine, int]:
        """The start of a tile within a block and how many tiles there are."""
        count = -(-total // size)
        number = self.space.loop(name, count)
        return self.block(number, size, total), count

    def full(self, side: Side, outer: At, flat: Affine) -> At:
        return [*outer, *(self.space.unravel(flat, side.inner) if side.inner else [])]

    def k_loops(self, prefix: str = "k", extents: Sequence[int] | None = None) -> KLoops:
        """Indices of the k ranges (of a word's first element), their loops, and the flat k within the task's piece."""
        extents = self.local_k if extents is None else extents
        at = [self.space.loop(f"{prefix}{i}", e) for i, e in enumerate(extents)]
        loops = [(f"{prefix}{i}", e) for i, e in enumerate(extents) if e != 1]
        flat = self.space.linear(at, self.local_k)
        if self.pieces > 1:
            at[0] = at[0] + self.piece * self.local_k[0]
        if self.words is not None:
            at[-1] = at[-1] * self.step
        return at, loops, flat

    def packing_loops(self) -> list[tuple[KLoops, int]]:
        """The loops over k that pack: all of it, or its whole words and then the last one, with how many elements a round has."""
        count, rest = divmod(self.problem.k[-1], self.step) if self.words else (0, 0)
        if not rest:
            return [(self.k_loops("p"), self.step)]
        at, loops, flat = self.k_loops("p", (*self.local_k[:-1], 1))
        last = ([*at[:-1], at[-1] + count * self.step], loops, flat + count)
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
        self, name: str, extent: int, body: Sequence[Stmt], kind: str = "serial", lanes: int = 0
    ) -> list[Stmt]:
        """A loop, or its body alone where the variable is the constant 0."""
        if extent == 1 and kind == "serial":
            return list(body)
        return [Loop(name, index(0), index(extent), tuple(body), kind, lanes)]

    # ---- packing ----

    @property
    def pitch(self) -> int:
        """Elements between packed rows: whole vectors, an odd number of them so that rows spread over cache sets."""
        vectors = -(-self.tiling.nc // self.tiling.lanes) + 1
        return (vectors | 1) * self.tiling.lanes

    def packed_b(self, batch: At, no: At, n_block: Affine) -> list[Stmt]:
        """Scratch ``[k][pitch]`` of this task's columns of B."""
        self.area_b = self.builder.area(self.stored_kind, self.k * self.pitch)
        out: list[Stmt] = []
        for loops, count in self.packing_loops():
            out += self.copied_b(batch, no, n_block, loops, count)
        return out + self.packed_column_sums()

    def copied_b(self, batch: At, no: At, n_block: Affine, k_loops: KLoops, count: int) -> list[Stmt]:
        t, (k, loops, flat_k), inner = self.tiling, k_loops, self.n.inner
        if self.unit > 1:
            # whole rows of the trailing ranges: their indices stay plain variables
            rows = self.space.loop("q0", t.nc // self.unit)
            first, _ = (
                self.space.divmod(n_block, self.unit)
                if not n_block.terms
                else (self._block_rows(n_block), None)
            )
            rest = [self.space.loop(f"q{i + 1}", e) for i, e in enumerate(inner[1:])]
            at = [*no, first + rows, *rest]
            within_block = self.space.linear([rows, *rest], [t.nc // self.unit, *inner[1:]])
            lines = [("q0", t.nc // self.unit), *((f"q{i + 1}", e) for i, e in enumerate(inner[1:]))]
            value = self.read("b", batch, at, k, count)
            return self.copy_loops(value, self.area_b, flat_k * self.pitch + within_block, loops, lines)
        column = self.space.loop("q", t.nc)
        at = self.full(self.n, no, n_block + column)
        value = self.read("b", batch, at, k, count)
        return self.copy_loops(value, self.area_b, flat_k * self.pitch + column, loops, [("q", t.nc)])

    def _block_rows(self, n_block: Affine) -> Affine:
        """The first row of a block whose start is a multiple of the row length."""
        quotient, rest = self.space.divmod(n_block, self.unit)
        if rest != Affine.of(0):  # min(number * size, total - size): both are multiples of the row length
            quotient = self.space.atom(idiv(n_block.expr(), self.unit), 0, self.n.size // self.unit)
        return quotient

    def packed_a(self, batch: At, mo: At, m_block: Affine) -> list[Stmt]:
        """Scratch ``[tile][k][mr]`` of this task's rows of A."""
        t = self.tiling
        start, tiles = self.tiles("pt", t.mr, t.mc)
        self.area_a = self.builder.area(self.stored_kind, tiles * self.k * t.mr)
        row = self.space.loop("r", t.mr)
        at = self.full(self.m, mo, m_block + start + row)
        number = self.space.loop("pt", tiles)
        out: list[Stmt] = []
        for (k, loops, flat_k), count in self.packing_loops():
            value = self.read("a", batch, at, k, count)
            position = (number * self.k + flat_k) * t.mr + row
            out += self.copy_loops(value, self.area_a, position, [("pt", tiles), *loops], [("r", t.mr)])
        return out

    def packed_column_sums(self) -> list[Stmt]:
        """Scratch ``[nc]`` of what the sums of packed columns have to be put right by."""
        words, t = self.words, self.tiling
        if words is None or not words.correction:
            return []
        kind, self.area_sums = words.total, self.builder.area(words.total, t.nc)
        width = min(_SUMMED * t.lanes, t.nc)
        start, tiles = self.tiles("ct", width, t.nc)
        k, full = self.space.loop("k", self.k), width // t.lanes
        step: list[Stmt] = []
        done: list[Stmt] = []
        for first, count, lanes in ((0, full, t.lanes), (full, 1, width - full * t.lanes)):
            if not count or not lanes:
                continue
            lane, vector = self.space.loop("c", lanes), self.space.loop("j", count) + first
            column = start + lane + vector * t.lanes
            word = load(self.area_b, (k * self.pitch + column).expr(), dt.uint32)
            at = (vector.expr(),)
            total = reg("columns", kind, *at)
            put = Store(self.area_sums, column.expr(), op("mul", total, const(words.correction, kind)))
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
        outer: list[tuple[str, int]],
        lines: list[tuple[str, int]],
    ) -> list[Stmt]:
        """Loops that copy into scratch; the vector loop is the one along which the source is contiguous."""
        t = self.tiling
        body: list[Stmt] = [*take_checks(self.reader), Store(area, position.expr(), value)]
        ranges = [(n, e) for n, e in (*outer, *lines) if e != 1]
        if not ranges:
            return body
        vector = ranges[-1]
        positions = [a.position for a in self.reader.accesses]
        self.reader.accesses.clear()

        def score(item: tuple[str, int]) -> float:
            atom = var(item[0])
            cost = 0.0
            for a in positions:
                if any(x.op != "var" and mentions(x, {atom}) for x in a.terms):
                    cost += 12
                else:
                    cost += {0: 0.5, 1: 1.0}.get(a.coefficient(atom), 8.0)
            cost += {0: 0.5, 1: 1.0}.get(position.coefficient(atom), 6.0)
            blocks = -(-item[1] // t.lanes)
            return cost * blocks * t.lanes / item[1]

        vector = min(reversed(ranges), key=score)
        ranges.remove(vector)
        if abs(position.coefficient(var(vector[0]))) != 1 and ranges and not self.uneven:
            return self.transposing_loops(body, vector, ranges)
        body = [Loop(vector[0], index(0), index(vector[1]), tuple(body), "vector", t.lanes)]
        for name, extent in reversed(ranges):
            body = self.loop_variable(name, extent, body)
        return body

    def transposing_loops(
        self, body: list[Stmt], vector: tuple[str, int], ranges: list[tuple[str, int]]
    ) -> list[Stmt]:
        """A copy whose vectors go to places far apart: one vector's worth of lines stays in L1 while the other ranges run."""
        (name, extent), lanes = vector, self.tiling.lanes
        out: list[Stmt] = []
        for blocks, start, active in (
            (extent // lanes, 0, lanes),
            (1, extent - extent % lanes, extent % lanes),
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

    # ---- tiles with lanes along n ----

    def column_tiles(self, batch: At, mo: At, no: At, m_block: Affine, n_block: Affine) -> list[Stmt]:
        t, p = self.tiling, self.problem
        width = min(t.nr * t.lanes, t.nc)
        m_start, m_count = self.tiles("mt", t.mr, t.mc)
        n_start, n_count = self.tiles("nt", width, t.nc)
        k, loops, flat_k = self.k_loops()
        number = self.space.loop("mt", m_count)
        acc = "acc"
        tile: list[Stmt] = [Reg(acc, p.kind, const(0, p.kind), (t.mr, t.nr), t.lanes)]
        row, at_row = self.space.loop("i", t.mr), index(0) if t.mr == 1 else var("i")
        if self.pack_a:
            a = load(self.area_a, ((number * self.k + flat_k) * t.mr + row).expr(), self.stored_kind)
        else:
            a = self.read("a", batch, self.full(self.m, mo, m_block + m_start + row), k)
        step: list[Stmt] = take_checks(self.reader)
        done: list[Stmt] = []
        summed = self.words is not None and self.words.correction != 0 and not self.pack_b
        if summed:
            tile.append(Reg("columns", p.kind, const(0, p.kind), (t.nr,), t.lanes))
        # full vectors share one lane loop, row by row, so that each broadcast of A is used at once and needs no register
        full = width // t.lanes
        for first, count, lanes in ((0, full, t.lanes), (full, t.nr - full, width - full * t.lanes)):
            if not count:
                continue
            name = "v" if lanes == t.lanes else "w"
            lane, vector = self.space.loop(name, lanes), self.space.loop("j", count)
            column = n_start + lane + (vector + first) * t.lanes
            if self.pack_b:
                b = load(self.area_b, (flat_k * self.pitch + column).expr(), self.stored_kind)
            else:
                b = self.read("b", batch, self.full(self.n, no, n_block + column), k)
            checks = take_checks(self.reader)
            at = (at_row, (vector + first).expr())
            update = Set(acc, self.multiply(a, b, reg(acc, p.kind, *at)), at)
            body = self.unrolled("i", t.mr, self.unrolled("j", count, [*checks, update]))
            if summed:
                body += self.unrolled("j", count, [self.summed_column(b, at[1:])])
            step.append(Loop(name, index(0), index(lanes), tuple(body), "vector", t.lanes))
            value = self.corrected(reg(acc, p.kind, *at), column, at[1:])
            stores = self.finish(batch, mo, no, m_block, n_block, m_start + row, column, value)
            done += self.unrolled(
                "j", count, [Loop(name, index(0), index(lanes), tuple(stores), "vector", t.lanes)]
            )
        for loop_name, extent in reversed(loops):
            step = self.loop_variable(loop_name, extent, step)
        tile += [*step, *self.unrolled("i", t.mr, done)]
        return self.loop_variable("nt", n_count, self.loop_variable("mt", m_count, tile))

    def unrolled(self, name: str, extent: int, body: Sequence[Stmt]) -> list[Stmt]:
        return self.loop_variable(name, extent, body, "unroll") if extent > 1 else list(body)

    def multiply(self, a: Expr, b: Expr, c: Expr) -> Expr:
        if self.words is not None:
            return self.words.multiply(a, b, c)
        return fma(a, b, c) if c.dtype.is_float else op("add", op("mul", a, b), c)

    def summed_column(self, b: Expr, at: tuple[Expr, ...]) -> Stmt:
        """Add a word of B to its column's sum."""
        assert self.words is not None
        return Set("columns", self.words.column(b, reg("columns", self.words.total, *at)), at)

    def corrected(self, value: Expr, column: Affine, at: tuple[Expr, ...]) -> Expr:
        """A finished sum put right by its column's: packed columns have theirs in scratch, others in registers."""
        words = self.words
        if words is None or not words.correction:
            return value
        if self.pack_b:
            return op("add", value, load(self.area_sums, column.expr(), words.total))
        factor = const(words.correction, words.total)
        return op("add", value, op("mul", reg("columns", words.total, *at), factor))

    def finish(
        self, batch: At, mo: At, no: At, m_block: Affine, n_block: Affine, m: Affine, n: Affine, value: Expr
    ) -> list[Stmt]:
        """Hand one finished element on: to the block's scratch area when the epilogue is long, else through it to memory."""
        if self.long:
            return [Store(self.block_area, (m * self.tiling.nc + n).expr(), value)]
        at = self.problem.out(batch, self.full(self.m, mo, m_block + m), self.full(self.n, no, n_block + n))
        if self.partial is not None:
            position = (
                self.space.linear(at, static(self.group.anchor.shape))
                + self.piece * self.group.anchor.type.size
            )
            return [Store(self.builder.buffer(self.partial, "w"), position.expr(), value)]
        return epilogue(self.group, self.reader, at, value, self.builder)

    def long_epilogue(self, batch: At, mo: At, no: At, m_block: Affine, n_block: Affine) -> list[Stmt]:
        t, p = self.tiling, self.problem
        m, n = self.space.loop("em", t.mc), self.space.loop("en", t.nc)
        value = load(self.block_area, (m * t.nc + n).expr(), p.kind)
        at = p.out(batch, self.full(self.m, mo, m_block + m), self.full(self.n, no, n_block + n))
        body = epilogue(self.group, self.reader, at, value, self.builder)
        lanes = t.lanes
        vector = [Loop("en", index(0), index(t.nc), tuple(body), "vector", lanes)]
        return self.loop_variable("em", t.mc, vector)

    # ---- tiles with lanes along k ----

    def inner_tiles(self, batch: At, mo: At, no: At, m_block: Affine, n_block: Affine) -> list[Stmt]:
        t, p = self.tiling, self.problem
        m_start, m_count = self.tiles("mt", t.mr, t.mc)
        n_start, n_count = self.tiles("nt", t.nr, t.nc)
        k, loops, _ = self.k_loops()
        acc = "acc"
        tile: list[Stmt] = [Reg(acc, p.kind, const(0, p.kind), (t.mr, t.nr), t.lanes)]
        row, column = self.space.loop("i", t.mr), self.space.loop("j", t.nr)
        a = self.read("a", batch, self.full(self.m, mo, m_block + m_start + row), k)
        b = self.read("b", batch, self.full(self.n, no, n_block + n_start + column), k)
        at = (row.expr(), column.expr())
        update: list[Stmt] = [
            *take_checks(self.reader),
            Set(acc, self.multiply(a, b, reg(acc, p.kind, *at)), at),
        ]
        step = self.unrolled("i", t.mr, self.unrolled("j", t.nr, update))
        words = self.words
        if words is not None and words.correction:
            tile.append(Reg("columns", p.kind, const(0, p.kind), (t.nr,), t.lanes))
            step += self.unrolled("j", t.nr, [self.summed_column(b, at[1:])])
        last = loops[-1]
        step = [Loop(last[0], index(0), index(last[1]), tuple(step), "vector", t.lanes)]
        for name, extent in reversed(loops[:-1]):
            step = self.loop_variable(name, extent, step)
        total = across("add", reg(acc, p.kind, *at))
        if words is not None and words.correction:
            column_total = across("add", reg("columns", p.kind, *at[1:]))
            total = op("add", total, op("mul", column_total, const(words.correction, p.kind)))
        done = self.finish(batch, mo, no, m_block, n_block, m_start + row, n_start + column, var("c", p.kind))
        tile += [*step, *self.unrolled("i", t.mr, self.unrolled("j", t.nr, [Let("c", total), *done]))]
        return self.loop_variable("nt", n_count, self.loop_variable("mt", m_count, tile))


def lower_contraction(group: Group, stored: Callable[[Value], bool], machine: Machine) -> list[Call]:
    """The kernel calls of a contraction group."""
    if group.anchor.dtype.is_complex:
        raise Unsupported("complex elements")
    if all(v.type.size == 0 for v in group.outputs):
        return []
    return _Emitter(group, stored, machine).calls()
