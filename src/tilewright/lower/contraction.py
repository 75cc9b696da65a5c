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
from dataclasses import replace
from functools import partial

from tilewright.core import dtype as dt
from tilewright.core.shape import Extent, Shape, Size, is_static, lower_bound, product, static, total, upper
from tilewright.core.size import narrowed
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
    index,
    load,
    op,
    reg,
    var,
)  # fmt: skip
from tilewright.lower.affine import Affine, Space
from tilewright.lower.beside import Work, steps_beside
from tilewright.lower.calls import Builder, Call, Temporary, inplace_pairs, take_checks
from tilewright.lower.extents import digits, extent
from tilewright.lower.groups import Group
from tilewright.lower.halo import Halo, find_halo
from tilewright.lower.packing import LaidOut
from tilewright.lower.problem import (
    Analysis,
    At,
    Side,
    epilogue,
    epilogue_cost,
    replaceable,
)  # fmt: skip
from tilewright.lower.read import Reader, Unsupported
from tilewright.lower.trailing import CHEAP, Trailing, Where
from tilewright.lower.versions import LONG_K, Ranges, contraction_problem, versions
from tilewright.lower.words import Words, words_of
from tilewright.lower.work import side_by_side
from tilewright.recipes.contraction import MAX_PACK, PAGE, Situation, Tiling, choose, cycles
from tilewright.recipes.machine import Machine

__all__ = ["Contraction", "lower_contraction"]

LONG_EPILOGUE = (
    16  # cheap operations per element beyond which the epilogue is not unrolled over the register tile
)
SHORT_EPILOGUE = 4  # the same where there are no lanes along n
LONG_ROWS = 16  # elements along k from which on rows that begin anywhere may be read in place
MANY_ROWS = 128  # of A from which on a B that lies badly is laid out once for all tasks
MAX_PARTIAL = 1 << 24  # bytes that partial results of a split contraction may take
MIN_REUSE = 3  # multiplications an element of overlapping windows, times taps along its axis, that make a copy worthwhile
SUM_CHUNK = 1 << 14  # elements of a sum of pieces that a thread adds at once
STRIP_ROWS = 48  # of sums at least that a long epilogue works on at once, where its lines are asked for
NEAR = 4  # elements this far apart are read as vectors and shuffled


def _stopped(body: Sequence[Stmt], names: set[str], stop: Expr) -> tuple[Stmt, ...]:
    """Statements with the loops over ``names`` ending at ``stop``."""
    out: list[Stmt] = []
    for s in body:
        if isinstance(s, Loop):
            end = stop if s.var in names else s.stop
            s = Loop(s.var, s.start, end, _stopped(s.body, names, stop), s.kind, s.lanes)
        out.append(s)
    return tuple(out)


class Contraction(Trailing):
    """Builds the kernels of one contraction, with the parameters given, tuned, or chosen by the cost model.

    Any ``tiling`` that ``situation.allows`` gives the same result, but for the rounding of sums.
    """

    def __init__(
        self,
        group: Group,
        stored: Callable[[Value], bool],
        machine: Machine,
        tiling: Tiling | None = None,
        ranges: Ranges | None = None,
        settled: Callable[[Value], bool] | None = None,
    ) -> None:
        self.group, self.stored, self.machine, self.settled = group, stored, machine, settled
        anchor = group.anchor
        self.words = self.packing(anchor)
        problem = contraction_problem(anchor, self.words.total if self.words is not None else None)
        self.when: list[tuple[Size, int, int]] = []
        if ranges:
            sizes = {
                n: s for e in (*problem.m, *problem.k) if isinstance(e, Size) for n, s in e.names().items()
            }
            self.when = [(sizes[n], *bounds) for n, bounds in ranges.items()]
            m, n, k = (tuple(narrowed(e, ranges) for e in side) for side in (problem.m, problem.n, problem.k))
            problem = replace(problem, m=m, n=n, k=k)
        self.problem = problem
        self.analysis = Analysis(group, problem, stored)
        self.m, self.n = self.analysis.m, self.analysis.n
        self.step = self.words.size if self.words else 1  # elements of k in one round of the innermost loop
        self.stored_kind = dt.uint32 if self.words else problem.kind
        self.all_k = (*problem.k[:-1], -(-problem.k[-1] // self.step)) if problem.k else ()
        self.k: int
        self.pieces: Extent
        self.partial: Temporary | None
        self.replaced = replaceable(group, stored)
        self.situation = self.looked()
        self.note = ""
        self.take(tiling or self.chosen())

    def packing(self, anchor: Value) -> Words | None:
        """How elements are packed in words, where that is possible and k long enough."""
        words = words_of(anchor, self.machine)
        if words is None:
            return None
        extents = tuple(anchor.inputs[0].shape[a] for a in anchor["lhs_contract"])
        if not is_static(extents):
            return None
        sizes = static(extents)
        # only a task that reaches to the end of k can tell that the last word is not whole
        if sizes[-1] < words.size or (sizes[-1] % words.size and product(sizes) > words.size * LONG_K):
            return None
        return words

    def look(self, most: int) -> Situation:
        """How the operands can be read, and the sizes: what the choice of parameters depends on. ``most``: how long pieces of one
        range of K may be along which both operands lie, so that lanes may run along it."""
        look, p, words = self.analysis, self.problem, self.words
        whole = words is None or upper(p.k[-1]) % self.step == 0
        if words is None:
            plain_a, plain_b = look.direct("a"), look.direct("b", "free")
            contiguous_k = look.streams("a", "k") and look.streams("b", "k")
        else:
            plain_a, plain_b = whole and look.words("a", self.step), False
            contiguous_k = plain_a and look.words("b", self.step)
        # lanes along k take their sums across at the end of a piece
        self.split_k(most if contiguous_k and len(self.all_k) == 1 else LONG_K)
        along_a = words is None and plain_a and look.direct("a", "free")
        long_rows = words is None and is_static(p.k) and upper((1, *p.k)[-1]) >= LONG_ROWS
        rows_a = long_rows and look.in_rows("a")
        along_b = look.streams("b", "free")
        n = self.halo_n = None if plain_b else self.overlap_along_n()
        k = self.halo_k = None if plain_b else self.overlap_along_k()
        self.outer = (*p.batch, *self.m.outer, *self.n.outer)
        flat = len(self.n.inner) > 1 and (n is not None or not along_b)
        settled = self.settled is not None and look.made_of("b", self.settled)
        once = self.strewn(plain_b)
        return Situation(
            element=words.dots if words is not None else str(p.kind),
            itemsize=p.kind.itemsize,
            outer=product(self.outer),
            m=self.m.most,
            n=self.n.most,
            k=self.k,
            a="along" if along_a else "plain" if plain_a else "rows" if rows_a else "computed",
            b="plain" if plain_b else "along" if along_b else "computed",
            inner=(contiguous_k or k is not None)
            and (p.kind.is_float or words is not None)
            and product(self.local_k[-1:]) > 1,
            whole=whole,
            # columns that only whole blocks hold: those of one place, or all taps of a channel
            unit=product(self.n.inner[1:]) if flat else 1,
            inner_unit=product(self.n.extents[k.tap :]) if k else 1,
            packed_k=self.k // n.taps * n.phases if n else 0,
            packed_inner=k is not None,
            tail=product(self.local_k[k.place :]) if k else upper(self.all_k[-1]) if p.k else 1,
            long=epilogue_cost(self.group, self.stored) > LONG_EPILOGUE and upper(self.pieces) == 1,
            least_m=0 if isinstance(self.m.size, int) else self.m.size.low,
            least_n=0 if isinstance(self.n.size, int) else self.n.size.low,
            settled=settled,
            apart=self.apart(k.place if k else len(self.local_k) - 1) if plain_a and words is None else 1,
            pieces=upper(self.pieces),
            once=once,
            # columns that a call of its own lays out are all there before any tile multiplies
            turns=n is None and k is None and not settled and not once and self.may_turn(),
        )

    def strewn(self, plain: bool) -> bool:
        """Whether a step of k leads to another page of B, and to the same set of the caches, while many rows of A read it."""
        step = self.analysis.k_step("b") * self.problem.kind.itemsize if plain else 0
        static = is_static((*self.problem.k, self.m.size, self.n.size))
        return step > 0 and step % PAGE == 0 and static and self.m.most >= MANY_ROWS

    def apart(self, flat: int) -> int:
        """Into how many pieces the k ranges before number ``flat`` cut a row of A, if these lie multiples of a page apart."""
        before = self.local_k[: max(flat, 0)]
        positions, _, _, k, _ = self.analysis.operand("a")
        steps = [abs(positions[0].coefficient(*at.terms)) for at in k[: len(before)] if at.terms]
        far = all(step * self.problem.kind.itemsize % PAGE == 0 for step in steps)
        return product(before) if far and positions else 1

    def looked(self) -> Situation:
        """What the choice of parameters depends on, with the better of two lengths of pieces where lanes may run along k.

        A core that multiplies twice in a cycle waits for rows along k that do not stay in L1; another has time to read them
        again, and would lose it in sums across lanes and partial results.
        """
        longer = self.look(2 * LONG_K)
        single = len(self.all_k) == 1 and isinstance(self.all_k[0], int)
        if self.machine.fmas <= 1 or not (longer.inner and single and self.k > LONG_K):
            return longer
        before = cycles(self.machine, longer, upper(self.pieces))
        shorter = self.look(LONG_K)
        if cycles(self.machine, shorter, upper(self.pieces)) < before:
            return shorter
        return self.look(2 * LONG_K)

    def cycles(self) -> float:
        """What the cost model expects of its choice, all pieces together."""
        return cycles(self.machine, self.situation, upper(self.pieces))

    def chosen(self) -> Tiling:
        """The tuned parameters for this problem, or the cost model's."""
        static = not (self.when or self.situation.least_m or self.situation.least_n)
        found = static and self.machine.tuned and self.machine.tuned.find(self.situation, self.machine)
        if not found:
            return choose(self.machine, self.situation)
        self.note = found.reason
        return found.tiling

    def take(self, tiling: Tiling) -> None:
        """Build with these parameters."""
        s = self.situation
        if tiling.pack_b and not s.settled and tiling.nc * self.k * s.itemsize > MAX_PACK:
            raise Unsupported("a contraction whose packed block does not fit in scratch")
        self.tiling, self.inner = tiling, tiling.variant == "inner"
        # with lanes along k results come one by one; the block has lanes for what follows
        most = SHORT_EPILOGUE if self.inner and self.n.most > 1 else LONG_EPILOGUE
        # what it may write over an operand, each element must pass once: in tiles that overlap it does not
        replaces = sum(v.type.nbytes for v in self.replaced) > self.machine.l2 and not s.is_exact(tiling)
        long = epilogue_cost(self.group, self.stored) > most or (replaces and not self.when)
        self.long = (long and upper(self.pieces) == 1) or tiling.variant == "rows"
        self.trailing = self.trails()
        self.far = self.met_by_epilogue()
        self.strip = self.rows_of_strip()
        self.halo = self.halo_k if self.inner else self.halo_n
        self.pack_a, self.pack_b = tiling.pack_a, tiling.pack_b
        self.unit = s.inner_unit if self.inner else s.unit if self.pack_b else 1
        self.turns = self.takes_turns()
        self.laid_out = None
        if self.pack_b and (s.settled or s.once):
            self.laid_out = LaidOut(product(self.columns()))

    def rows_of_strip(self) -> int:
        """How many rows of a block a long epilogue follows at once: fewer than all where tiles ask for the lines that it reads
        and writes, so that these are still in L2 when it runs."""
        t = self.tiling
        tiles, rest = divmod(t.mc, t.mr)
        cut = not rest and isinstance(self.m.size, int) and self.m.size % t.mc == 0
        # every strip reads all of the block's columns
        cut = cut and self.k * t.nc * self.stored_kind.itemsize <= self.machine.l2
        if self.trailing or t.variant != "columns" or not (self.long and self.far and cut):
            return t.mc
        row = t.nc * self.problem.kind.itemsize * (1 + len(self.far))
        most = max(STRIP_ROWS, self.machine.l2 // 2 // row) // t.mr
        return t.mr * max((d for d in range(1, tiles + 1) if tiles % d == 0 and d <= most), default=1)

    def overlap_along_n(self) -> Halo | None:
        """Windows whose places are a range that runs flat along n; those before it become tasks."""
        if self.words is not None:
            return None
        halo = find_halo(self.analysis, "n")
        if halo is None or halo.place < self.n.cut or (halo.tap == 0 and upper(self.pieces) > 1):
            return None
        lanes = self.machine.vector_bytes // self.problem.kind.itemsize
        narrow = halo.place > self.n.cut and product(self.n.extents[halo.place :]) < 8 * lanes
        if narrow or self.m.most * halo.taps < MIN_REUSE:
            return None
        self.n = self.analysis.n = Side(self.n.extents, halo.place)
        return halo

    def overlap_along_k(self) -> Halo | None:
        """Windows whose places are a range of K from which on A runs flat, and whose taps run flat along n."""
        if self.words is not None or not self.analysis.streams("b", "k", NEAR):
            return None
        halo = find_halo(self.analysis, "k")
        if halo is None or halo.tap < self.n.cut or (halo.place == 0 and self.uneven):
            return None
        return halo if self.analysis.runs_flat("a", halo.place) else None

    def split_k(self, most: int) -> None:
        """Cut a K longer than ``most`` into pieces that caches hold and cores share; partial results are summed afterwards."""
        self.k, self.pieces, self.partial = product(self.all_k), 1, None
        first = self.all_k[0] if self.all_k else 1
        room = max(1, MAX_PARTIAL // (self.group.anchor.type.size * self.problem.kind.itemsize))
        if isinstance(first, Size):
            self.split_symbolic_k(first, room)
            return
        extent = first
        if self.k > most:
            fitting = [d for d in range(2, min(first, room) + 1) if first % d == 0]
            short = [d for d in fitting if self.k // d <= most]
            self.pieces = min(short) if short else max(fitting, default=1)
            extent = first // self.pieces
            if self.k // self.pieces > 2 * most:  # no divisor will do: the last piece is shorter
                extent = -(-first // min(-(-self.k // most), room, first))
                self.pieces = -(-first // extent)
        self.uneven = first % extent != 0
        self.k = self.k // first * extent if first else 0
        self.local_k = (extent, *self.all_k[1:]) if self.all_k else ()
        if self.pieces > 1:
            self.partial = Temporary(self.problem.kind, self.pieces * self.group.anchor.type.size)

    def split_symbolic_k(self, first: Size, room: int) -> None:
        """Pieces of a fixed length, as many as the run-time K has."""
        rest = max(product(self.all_k[1:]), 1)
        self.uneven, self.local_k = False, self.all_k
        length = max(LONG_K // rest, -(-first.high // room), 1)
        if self.k <= LONG_K or length >= first.high:
            return
        self.pieces, self.uneven = -(-first // length), True
        self.k = length * rest
        self.local_k = (length, *self.all_k[1:])
        self.partial = Temporary(self.problem.kind, -(-first.high // length) * self.group.anchor.type.size)

    def shortened(self, body: Sequence[Stmt]) -> tuple[Stmt, ...]:
        """The loops over the outermost k range, stopped where the problem ends."""
        if not self.uneven:
            return tuple(body)
        size = upper(self.local_k[0])
        rest = op("sub", extent(self.all_k[0]), (self.piece * size).expr())
        return _stopped(body, {"k0", "p0"}, op("minimum", const(size), rest))

    def columns(self) -> Shape:
        """The ranges over which blocks of B differ: of pieces of k, batches, outer ranges of n, and blocks of the inner ones."""
        blocks = -(-upper(self.n.size) // self.tiling.nc)
        return (upper(self.pieces), *static(self.problem.batch), *static(self.n.outer), blocks)

    def calls(self) -> list[Call]:
        """The calls, with the one that lays out B where that is settled."""
        return [*self.layout_calls(), *self.product_calls()]

    def layout_calls(self) -> list[Call]:
        """Copy all of a settled B in the order in which tiles read it."""
        if self.laid_out is None:
            return []
        self.start()
        extents = self.columns()
        names = [f"t{position}" for position in range(len(extents))]
        at = [self.space.loop(n, e) for n, e in zip(names, extents, strict=True)]
        self.piece, b = at[0], 1 + len(self.problem.batch)
        self.laid_out.number = self.space.linear(at, extents)
        n_block = self.block(at[-1], self.tiling.nc, self.n.size, self.tiling.nc)
        task = self.packed_b(at[1:b], at[b:-1], n_block)
        body = (Loop("g", LO, HI, (*digits(names, extents), *self.shortened(task))),)
        label = f"lay out {self.problem.kind} {list(self.problem.n)}x{list(self.problem.k)}"
        return [self.builder.call(body, product(extents), 1, label)]

    def product_calls(self) -> list[Call]:
        """The calls that compute from operands where they lie."""
        p = self.problem
        label = f"{self.group.anchor.op} {list(p.batch)} {list(p.m)}x{list(p.n)}x{list(p.k)} {self.tiling}"
        if self.words is not None:
            label += f" {self.words.dots}"
        flops = 2 * self.group.anchor.type.size * product(p.k)
        calls = [self.main_call(label, flops)]
        if self.partial is not None:
            calls.append(self.sum_call(label))
        for call in calls:
            call.when = self.when
        return calls

    def sum_call(self, label: str) -> Call:
        assert self.partial is not None
        return self.sum_of(self.partial, self.pieces, label)

    def sum_of(self, partial: Temporary, pieces: Extent, label: str) -> Call:
        """Add the pieces' partial results, always in the same order, and run the epilogue."""
        self.start()
        shape, kind = self.group.anchor.shape, self.problem.kind
        size = product(shape)
        lanes = max(1, self.machine.vector_bytes // kind.itemsize)
        # rows, so that what the epilogue reads by an outer axis is one element for all lanes
        run = self.run_of(shape)
        element = self.space.loop("e", run)
        flat = element if run == total(shape) else self.space.loop("r", -(-size // run)) * run + element
        at = self.space.unravel(flat, shape)
        source = self.builder.buffer(partial, "r")
        number = self.space.loop("s", pieces)
        term = load(source, (number * size + flat).expr(), kind)
        body: list[Stmt] = [
            Reg("sum", kind, const(0, kind)),
            *self.loop_variable("s", pieces, [Set("sum", op("add", reg("sum", kind), term))]),
            *epilogue(self.group, self.reader, tuple(at), reg("sum", kind), self.builder),
        ]
        name = f"sum of pieces: {label}"
        if run == total(shape):
            kind_lanes = ("vector", lanes) if size > 1 else ("serial", 0)
            loop = Loop("e", LO, HI, tuple(body), *kind_lanes)
            return self.replacing(self.builder.call((loop,), total(shape), SUM_CHUNK, name))
        loop = Loop("r", LO, HI, (Loop("e", index(0), index(upper(run)), tuple(body), "vector", lanes),))
        rows = max(1, SUM_CHUNK // upper(run))
        return self.replacing(self.builder.call((loop,), size // upper(run), rows, name))

    def run_of(self, shape: Shape) -> Extent:
        """The elements that a loop over a sum of pieces runs over at once: the last axes, together at least a few vectors."""
        if not is_static(shape):
            return total(shape)
        sizes = static(shape)
        lanes = max(1, self.machine.vector_bytes // self.problem.kind.itemsize)
        return next(
            (n for n in (product(sizes[k:]) for k in reversed(range(len(sizes)))) if n >= 8 * lanes),
            product(sizes),
        )

    def replacing(self, call: Call) -> Call:
        """The call of an epilogue that runs once for each element, with the operands that results may be written over."""
        values = {*self.replaced, *self.group.outputs}
        positions: dict[Value, set[Affine]] = {}
        for a in self.reader.accesses:
            if a.value in values:
                positions.setdefault(a.value, set()).add(a.position)
        call.inplace = inplace_pairs(call, positions)
        return call

    def start(self) -> None:
        self.builder = Builder()
        self.fixed = {}
        self.space = Space()
        self.reader = Reader(self.space, lambda v: self.builder.buffer(v, "r") if self.stored(v) else None)

    def main_call(self, label: str, flops: int) -> Call:
        self.start()
        t, p = self.tiling, self.problem
        blocks_m: Extent = 1 if t.mc >= self.m.most else -(-self.m.size // t.mc)
        blocks_n: Extent = 1 if t.nc >= self.n.most else -(-self.n.size // t.nc)
        extents = (self.pieces, *self.outer, blocks_m, blocks_n)
        names = [f"t{position}" for position in range(len(extents))]
        at = [self.space.loop(n, e) for n, e in zip(names, extents, strict=True)]
        # of the larger operand one block after the other is read; those of the smaller one come again from nearby
        order = [*range(len(extents))]
        # what a task copies of B is asked for by the one before it that multiplies other columns
        self.next_n: Affine | None = Affine.of(1)
        if self.n.most > self.m.most and is_static((self.m.size, self.n.size)):
            order[-2:] = order[:-3:-1]
            self.next_n = self.space.divmod(at[-2] + 1, upper(blocks_m))[0]
        elif not isinstance(blocks_m, int):
            self.next_n = None
        lets = digits([names[i] for i in order], tuple(extents[i] for i in order))
        self.piece = at[0]
        batch, mo, no = self.cut(at[1:])
        self.height = t.mc
        if lower_bound(self.m.size) < t.mc:  # a block of a range that may be shorter holds what there is
            rows = extent(self.m.size)
            lets.append(Let("rows", rows if t.mc >= self.m.most else op("minimum", const(t.mc), rows)))
            self.height = var("rows")
        m_block = self.block(at[-2], t.mc, self.m.size, self.height)
        n_block = self.block(at[-1], t.nc, self.n.size, t.nc)
        task: list[Stmt] = []
        if self.laid_out is not None:
            self.laid_out.number = self.space.linear([self.piece, *batch, *no, at[-1]], self.columns())
            self.find_b()
        elif self.pack_b:
            task += self.packed_b(batch, no, n_block)
        if self.pack_a:
            task += self.packed_a(batch, mo, m_block)
        if self.long:
            sums = t.mr * self.width if self.trailing else self.strip * t.nc
            self.block_area = self.builder.area(p.kind, sums)
        strips = t.mc // self.strip
        self.strip_start = self.space.loop("strip", strips) * self.strip
        tiles = {"inner": self.inner_tiles, "columns": self.column_tiles, "rows": self.row_sums}[t.variant]
        self.where = Where(batch, mo, no, (at[-2], m_block), (at[-1], n_block))
        block = tiles(batch, mo, no, m_block, n_block)
        if self.trailing:
            block = [*self.fixed_values(), *block]
        elif self.long:
            block += self.long_epilogue(batch, mo, no, (at[-2], m_block), (at[-1], n_block))
        task += self.loop_variable("strip", strips, block)
        body = (Loop("g", LO, HI, (*lets, *self.shortened(task))),)
        call = self.builder.call(body, total(extents), 1, label, flops)
        # a long epilogue leaves out what blocks share
        once = self.partial is None and not self.when and (self.long or self.situation.is_exact(t))
        return self.replacing(call) if once else call

    def cut(self, at: At) -> tuple[At, At, At]:
        b, mo = len(self.problem.batch), len(self.m.outer)
        return at[:b], at[b : b + mo], at[b + mo : -2]

    # ---- tiles with lanes along n ----

    def column_tiles(self, batch: At, mo: At, no: At, m_block: Affine, n_block: Affine) -> list[Stmt]:
        t, p = self.tiling, self.problem
        width = self.width
        m_start, number, m_count = self.strip_tiles() if self.strip < t.mc else self.row_tiles("mt")
        n_start, n_number, n_count = self.tiles("nt", width, t.nc)
        k, loops, local = self.k_loops()
        tile: list[Stmt] = []
        row, at_row = self.space.loop("i", t.mr), index(0) if t.mr == 1 else var("i")
        if self.pack_a:
            a = load(
                self.area_a, ((number * self.k + self.flat_k(local)) * t.mr + row).expr(), self.stored_kind
            )
        else:
            a = self.read("a", batch, self.full(self.m, mo, m_block + m_start + row), k)
        step: list[Stmt] = take_checks(self.reader)
        step += self.ahead(batch, no, n_block, (n_start, n_number), (number, m_count), local)
        done: list[Stmt] = []
        summed = self.words is not None and self.words.correction != 0 and not self.pack_b
        # full vectors share one lane loop, row by row, so that each broadcast of A is used at once and needs no register
        full = width // t.lanes
        for first, count, lanes in ((0, full, t.lanes), (full, t.nr - full, width - full * t.lanes)):
            if not count:
                continue
            # a partial vector has registers of its own: nobody looks at the rest of their lanes
            name, acc, sums = ("v", "acc", "columns") if lanes == t.lanes else ("w", "rest", "column")
            tile.append(Reg(acc, p.kind, const(0, p.kind), (t.mr, count), t.lanes))
            if summed:
                tile.append(Reg(sums, p.kind, const(0, p.kind), (count,), t.lanes))
            lane, vector = self.space.loop(name, lanes), self.space.loop("j", count)
            within = lane + (vector + first) * t.lanes
            column = n_start + within
            if self.pack_b:
                place = self.packed_column(local, (n_start, n_number), within)
                b = load(self.area_b, place.expr(), self.stored_kind)
            else:
                b = self.read("b", batch, self.full(self.n, no, n_block + column), k)
            checks = take_checks(self.reader)
            at = (at_row, vector.expr())
            update = Set(acc, self.multiply(a, b, reg(acc, p.kind, *at)), at)
            body = self.unrolled("i", t.mr, self.unrolled("j", count, [*checks, update]))
            if summed:
                body += self.unrolled("j", count, [self.summed_column(b, at[1:], sums)])
            step.append(Loop(name, index(0), index(lanes), tuple(body), "vector", t.lanes))
            value = self.corrected(reg(acc, p.kind, *at), column, reg(sums, p.kind, *at[1:]))
            if self.trailing:
                place = row * t.nr * t.lanes + within
                stores: list[Stmt] = [Store(self.block_area, place.expr(), value)]
            else:
                stores = self.finish(batch, mo, no, m_block, n_block, m_start + row, column, value)
            done += self.unrolled(
                "j", count, [Loop(name, index(0), index(lanes), tuple(stores), "vector", t.lanes)]
            )
        if self.trailing or self.turns:
            assert isinstance(m_count, int)
            counts, works, ((name, _),) = (m_count, n_count), list[Work](), loops
            if self.trailing:
                works.append(self.lines_of_tile_before(self.where, (number, n_number), counts))
            if self.turns:
                copy = partial(self.square_of_next, (batch, no, n_block), (number, n_number), counts)
                works.append((self.squares(m_count), copy))
            tile += steps_beside(self.space, name, self.k, step, works)
            tile += self.unrolled("i", t.mr, done)
            nest = self.loop_variable("nt", n_count, self.loop_variable("mt", m_count, tile))
            return [*nest, *(self.last_epilogue(self.where, counts) if self.trailing else [])]
        asks = list[Stmt]()
        if len(loops) == 1 and self.partial is None:
            asks = self.ahead_of_epilogue(batch, mo, no, m_block + m_start, n_block + n_start, local)
        lines = t.mr * -(-width // t.lanes)
        if asks and lines < self.k:
            # each line is asked for once, in the first steps
            ((name, length),) = loops
            step = [
                Loop(name, index(0), index(lines), (*asks, *step)),
                Loop(name, index(lines), extent(length), tuple(step)),
            ]
        else:
            step = [*asks, *step]
            for name, length in reversed(loops):
                step = self.loop_variable(name, length, step)
        tile += [*step, *self.unrolled("i", t.mr, done)]
        return self.loop_variable("nt", n_count, self.loop_variable("mt", m_count, tile))

    def strip_tiles(self) -> tuple[Affine, Affine, int]:
        """The start and number within the block of a tile of the strip's rows, and how many the strip has."""
        t = self.tiling
        count = self.strip // t.mr
        inside = self.space.loop("mt", count)
        first = self.space.loop("strip", t.mc // self.strip) * count
        return self.strip_start + inside * t.mr, first + inside, count

    def multiply(self, a: Expr, b: Expr, c: Expr) -> Expr:
        if self.words is not None:
            return self.words.multiply(a, b, c)
        return self.machine.accumulate(a, b, c)

    def corrected(self, value: Expr, column: Affine, total: Expr) -> Expr:
        """A finished sum put right by its column's: packed columns have theirs in scratch, others in registers."""
        words = self.words
        if words is None or not words.correction:
            return value
        if self.pack_b:
            return op("add", value, load(self.area_sums, (self.base_sums + column).expr(), words.total))
        factor = const(words.correction, words.total)
        return op("add", value, op("mul", total, factor))

    def finish(
        self, batch: At, mo: At, no: At, m_block: Affine, n_block: Affine, m: Affine, n: Affine, value: Expr
    ) -> list[Stmt]:
        """Hand one finished element on: to scratch for the block's sums when the epilogue is long, else through it to memory."""
        if self.long:
            return [Store(self.block_area, ((m - self.strip_start) * self.tiling.nc + n).expr(), value)]
        return self.put(
            batch, [self.full(self.m, mo, m_block + m), self.full(self.n, no, n_block + n)], value
        )

    def put(self, batch: At, free: list[At], value: Expr) -> list[Stmt]:
        """Store one element of the result, or of a piece's part of it."""
        at = self.problem.out(batch, *free)
        if self.partial is not None:
            position = (
                self.space.linear(at, self.group.anchor.shape) + self.piece * self.group.anchor.type.size
            )
            return [Store(self.builder.buffer(self.partial, "w"), position.expr(), value)]
        return epilogue(self.group, self.reader, at, value, self.builder)

    def long_epilogue(
        self, batch: At, mo: At, no: At, rows: tuple[Affine, Affine], columns: tuple[Affine, Affine]
    ) -> list[Stmt]:
        """The epilogue over a strip of a block, given by number and start, without what the block shares with the one before it:
        an update of memory in place must happen once."""
        t = self.tiling
        m, n = self.space.loop("em", self.strip), self.space.loop("en", t.nc)
        value = load(self.block_area, (m * t.nc + n).expr(), self.problem.kind)
        row = rows[1] + self.strip_start + m
        body = self.put(batch, [self.full(self.m, mo, row), self.full(self.n, no, columns[1] + n)], value)
        first_m, first_n = self.shared(*rows, t.mc, self.m.size), self.shared(*columns, t.nc, self.n.size)
        body = [Loop("en", first_n, index(t.nc), tuple(body), "vector", self.epilogue_lanes())]
        if t.mc > 1:
            height = self.height if isinstance(self.height, Expr) else index(self.strip)
            body = [Loop("em", first_m, height, tuple(body))]
        return body

    def epilogue_lanes(self) -> int:
        """Lanes of a long epilogue, whose chains of operations wait for each other as those of a map do."""
        anchor, t = self.group.anchor, self.tiling
        wide = side_by_side(self.group, lambda v: v is anchor or self.stored(v), self.machine)
        wide = wide or (2 if epilogue_cost(self.group, self.stored) <= CHEAP else 1)
        least = -(-t.nc // t.lanes) * t.lanes
        while wide > 1 and 4 * (-(-t.nc // (t.lanes * wide)) * t.lanes * wide) > 5 * least:
            wide //= 2  # idle lanes are computed too
        return t.lanes * wide

    def shared(self, number: Affine, start: Affine, size: int, range: Extent) -> Expr:
        """How many rows or columns at its beginning a block shares with the one before it."""
        if size >= upper(range) or (isinstance(range, int) and range % size == 0):
            return index(0)
        return (number * size - start).expr()

    # ---- one row, its sums in scratch ----

    def row_sums(self, batch: At, mo: At, no: At, m_block: Affine, n_block: Affine) -> list[Stmt]:
        """Several rows of B at a time pass by the block of sums, so that memory is read along whole rows."""
        t, p = self.tiling, self.problem
        column = self.space.loop("n", t.nc)
        area, place = self.block_area, column.expr()
        (length,) = (upper(e) for e in self.local_k)
        rounds, rest = divmod(length, t.nr)
        out: list[Stmt] = []

        def passed(first: Affine, count: int, sums: Expr) -> Loop:
            for r in range(count):
                k = self.in_piece([first + r])
                a = self.read("a", batch, self.full(self.m, mo, m_block), k)
                b = self.read("b", batch, self.full(self.n, no, n_block + column), k)
                sums = self.multiply(a, b, sums)
            body = (*take_checks(self.reader), Store(area, place, sums))
            return Loop("n", index(0), index(t.nc), body, "vector", t.lanes)

        # the rows that make no whole round begin the sums
        out.append(passed(Affine.of(0), rest, const(0, p.kind)))
        number = self.space.loop("kr", rounds)
        step = passed(number * t.nr + rest, t.nr, load(area, place, p.kind))
        return out + self.loop_variable("kr", rounds, [step])

    # ---- tiles with lanes along k ----

    def inner_tiles(self, batch: At, mo: At, no: At, m_block: Affine, n_block: Affine) -> list[Stmt]:
        t, p = self.tiling, self.problem
        m_start, _, m_count = self.row_tiles("mt")
        n_start, _, n_count = self.tiles("nt", t.nr, t.nc)
        k, loops, local = self.k_loops(flat_from=self.k_flat)
        acc = "acc"
        tile: list[Stmt] = [Reg(acc, p.kind, const(0, p.kind), (t.mr, t.nr), t.lanes)]
        row, column = self.space.loop("i", t.mr), self.space.loop("j", t.nr)
        if self.pack_a:
            position = (m_start + row) * self.k_line + self.flat_loops(local)
            a = load(self.area_a, position.expr(), self.stored_kind)
        else:
            a = self.read("a", batch, self.full(self.m, mo, m_block + m_start + row), k)
        if self.halo is not None:
            position = self.overlapping_column(self.halo, n_start + column, local)
            b = load(self.area_b, position.expr(), self.stored_kind)
        else:
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
        step = [Loop(last[0], index(0), extent(last[1]), tuple(step), "vector", t.lanes)]
        for name, length in reversed(loops[:-1]):
            step = self.loop_variable(name, length, step)
        summed = across("add", reg(acc, p.kind, *at))
        if words is not None and words.correction:
            column_total = across("add", reg("columns", p.kind, *at[1:]))
            summed = op("add", summed, op("mul", column_total, const(words.correction, p.kind)))
        done = self.finish(batch, mo, no, m_block, n_block, m_start + row, n_start + column, var("c", p.kind))
        tile += [*step, *self.unrolled("i", t.mr, self.unrolled("j", t.nr, [Let("c", summed), *done]))]
        # the taller side of the tile stays in L1 while the other streams by
        return self.loop_variable("mt", m_count, self.loop_variable("nt", n_count, tile))


def lower_contraction(
    group: Group,
    stored: Callable[[Value], bool],
    machine: Machine,
    settled: Callable[[Value], bool] | None = None,
) -> list[Call]:
    """The kernel calls of a contraction group. ``settled``: which values stay the same from run to run, where that is known."""
    if group.anchor.dtype.is_complex:
        raise Unsupported("complex elements")
    if all(v.type.size == 0 for v in group.outputs):
        return []
    calls: list[Call] = []
    for ranges in versions(contraction_problem(group.anchor)):
        contraction = Contraction(group, stored, machine, ranges=ranges, settled=settled)
        group.reason = contraction.note
        if machine.watch is not None and is_static(
            (*group.anchor.inputs[0].shape, *group.anchor.inputs[1].shape)
        ):
            machine.watch(contraction)
        calls += contraction.calls()
    return calls
