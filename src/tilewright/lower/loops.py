"""Map and row groups as loop nests: elementwise work and reductions over rows, with the row kept in cache.

`nest.py` has the dims: outer (P) and reduced (R) ones, and one along which vectors run, a reduced dim (rows: partial results
per lane, combined at the row's end) or an outer dim (columns: every lane reduces for itself, or rows are added to a row of sums
in scratch). A row is passed over once per phase: phase d holds what depends on d reductions before it (softmax: max; exp and
sum; divide).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tilewright.core.dtype import DType
from tilewright.core.shape import Extent, is_static, lower_bound, product, total, upper
from tilewright.graph.extremes import first_of
from tilewright.graph.ir import Value
from tilewright.kernel.ir import (
    HI,
    LO,
    Expr,
    Let,
    Loop,
    Prefetch,
    Reg,
    Set,
    Stmt,
    Store,
    across,
    cast,
    idiv,
    imod,
    index,
    load,
    op,
    reg,
    substitute,
    var,
)  # fmt: skip
from tilewright.lower.affine import Affine, mentions
from tilewright.lower.ahead import AHEAD, Walk, asked_ahead
from tilewright.lower.calls import Builder, Call, inplace_pairs, take_checks
from tilewright.lower.centred import CentredBlocks, block_length, centred_sums
from tilewright.lower.column_extremes import ROWS_AHEAD, ColumnExtreme, passes_over
from tilewright.lower.columns import Columns
from tilewright.lower.extents import extent
from tilewright.lower.extremes import VECTORS, FirstExtreme
from tilewright.lower.groups import Group, own_cost
from tilewright.lower.lines import LINE, LONG_RUN, cut_at_line, first_line
from tilewright.lower.nest import Dim, choose_nest, mentions_loop, written
from tilewright.lower.pieces import even_chunk
from tilewright.lower.read import COMBINE, Index, Reader, accumulator, identity, reduction_terms
from tilewright.lower.together import RowsTogether, rows_together
from tilewright.lower.work import computes_function, depths, inside_of, side_by_side, work_of
from tilewright.recipes.machine import Machine

__all__ = ["lower_loops"]

CHUNK_COST = (
    1 << 17
)  # cheap element operations that make a piece of work worth handing to another core (a few µs)
ALONE = 32  # times as much for one thread, which only begins the next piece itself
PIECES = 64  # of a long launch for each thread: enough to share it evenly, and each long beside its start
CACHE_COST = 8  # an element costlier than this is kept in scratch when a later phase needs it again
WIDE_COLUMNS = 8
TASKS = 4  # for each of several threads that are shared out as strips of columns
ROWS_ADDED = 4  # to a row of sums in one pass
LONG_ROW = 256  # elements: an extreme's value and place are kept side by side from here on
BUSY = 4  # operations for each of several operands: less is no reason to ask for them
CHEAP_COST, WIDE_COST = 12, 40  # operations for an element: up to these, four or two vectors go side by side
STORE_COST = 2  # operations that a store counts as
ROW_COST = 3  # cheap operations of a function of a row's result that is computed for several rows at once
ROW_BYTES = 1 << 14  # of sums over columns kept in scratch: they stay in the first-level cache
MAX_ROW = 1 << 16  # elements of a row that may be kept in scratch


def combined(combine: str, total: Expr, term: Expr) -> Expr:
    """A reduction's next value. Where a term stands for nothing, smaller or larger ones leave the value as it is: one masked
    instruction where there are masks."""
    if combine in ("minimum", "maximum") and term.op == "where":
        condition, one, other = term.args
        if other is identity(combine, term.dtype):
            return op("where", condition, op(combine, total, one), total)
        if one is identity(combine, term.dtype):
            return op("where", condition, total, op(combine, total, other))
    return op(combine, total, term)


class _Emitter:
    """Builds the statements of one group over its chosen nest."""

    def __init__(self, group: Group, stored: Callable[[Value], bool], machine: Machine) -> None:
        self.stored = stored
        self.group, self.threads, width = group, machine.threads, machine.vector_bytes
        self.fmas, self.width, self.registers = machine.fmas, width, machine.registers
        self.nest, self.accesses, choice = choose_nest(group, stored, width)
        self.builder = Builder()
        self.named = 0
        self.final: set[Value] = set()  # outputs written after the last read of what the group reads
        self.reader = Reader(self.nest.space, lambda v: self.builder.buffer(v, "r") if stored(v) else None)
        inside = inside_of(group, stored)
        self.depth = depths(group, inside)
        itemsize = max([a.value.dtype.itemsize for a in self.accesses] or [4])
        self.vector = None if choice is None else self.nest.dims[choice]
        if self.vector is not None:  # what is the same in all lanes takes no vector
            (atom,) = self.vector.at.terms
            moving = [a.value.dtype.itemsize for a in self.accesses if mentions_loop(a.position, atom)]
            itemsize = max(moving or [itemsize])
        self.outer = [d for d in self.nest.dims if not d.reduced and d is not self.vector and d.extent != 1]
        self.turns = False  # each pass over a row begins where the one before ended
        self.back = False  # as the last one did, which ran back
        self.returns = False  # the first of them finds all of the row in the second-level cache
        self.columns: Columns | None = None
        if group.columns:  # the rows of a block lie inside
            self.columns = Columns(
                group.columns, max(self.depth[v] for v in group.columns), self.builder, self.reader
            )
            self.outer.sort(key=self.in_block)
        self.inner = [d for d in self.nest.dims if d.reduced and d is not self.vector and d.extent != 1]
        self.by_rows = self.vector is not None and self.vector.reduced
        single = {v for v in group.members if v not in group.reductions and self.is_row_value(v)}
        self.cost = sum(max(own_cost(v), 1) for v in inside - single) + 2 * len(self.accesses)
        self.register = max(1, width // itemsize)  # lanes of one
        # the beginning of such a result is gone from the caches by the time its end is written
        large = [v for v in group.outputs if v.type.nbytes >= machine.l3]
        self.begin = self.first_line(large)
        self.builder.streamed.update(v for v in large if self.begin is not None or self.in_whole_lines(v))
        self.together = self.choose_together(machine)
        self.side_by_side = 0 if group.reductions else side_by_side(group, stored, machine)
        self.lanes = self.choose_lanes(self.cost)
        self.machine = machine

    def in_block(self, dim: Dim) -> bool:
        """Whether the reductions over rows run over an outer dim."""
        (atom,) = dim.at.terms
        return not any(mentions_loop(i, atom) for i in self.nest.index(self.group.columns[0]))

    def in_whole_lines(self, v: Value) -> bool:
        """Whether every run of a result that the vector loop writes is whole cache lines: a part of one stored past the caches
        would be sent to memory by itself."""
        if self.vector is None or not is_static(v.shape) or v.op == "concat":
            return False
        rows = [d for d in self.nest.dims if d is not self.vector and d.extent != 1]
        return not rows or upper(self.vector.extent) * v.dtype.itemsize % LINE == 0

    def first_line(self, large: list[Value]) -> Expr | None:
        """Where the first whole line begins in every run that the vector loop writes of large results, if they are long and not
        whole lines."""
        if self.vector is None or not large or any(map(self.in_whole_lines, large)):
            return None
        (along,), found = self.vector.at.terms, set[Expr | None]()
        for v in large:
            short = upper(self.vector.extent) * v.dtype.itemsize < LONG_RUN
            if short or not is_static(v.shape) or v.op == "concat":
                return None
            ((_, position),) = written(v, self.nest)
            found.add(first_line(position, along, v.dtype.itemsize))
        return found.pop() if len(found) == 1 else None

    def over_vectors(self, body: tuple[Stmt, ...], lanes: int) -> tuple[Stmt, ...]:
        """The vector loop over all there is."""
        assert self.vector is not None
        loop = Loop(self.vector.name, index(0), extent(self.vector.extent), body, "vector", lanes)
        if self.begin is None or any(isinstance(s, Set) for s in body):
            return (loop,)  # a register's lanes count from the beginning
        streamed = {self.builder.buffer(v, "w") for v in self.builder.streamed if isinstance(v, Value)}
        if not any(isinstance(s, Store) and s.buffer in streamed for s in body):
            return (loop,)
        return tuple(cut_at_line(loop, self.begin, self.register))

    def choose_lanes(self, cost: int, reduces: bool | None = None) -> int:
        """Lanes of a vector loop whose body does this much for an element: one register's or several times that many."""
        if self.vector is None:
            return 1
        lanes, most = self.register, upper(self.vector.extent)
        while lanes > 4 and lanes >= 2 * most:
            lanes //= 2  # a short range fills a shorter vector
        # independent accumulators hide the latency of an addition; long expressions fill the pipeline by themselves
        reduces = bool(self.group.reductions) if reduces is None else reduces
        wide = 4 if reduces and cost <= CHEAP_COST else 2 if cost <= WIDE_COST else 1
        wide = self.side_by_side or wide
        if reduces and not self.by_rows and cost <= 8:
            wide = WIDE_COLUMNS  # each row of a strip of columns is a run of its own in memory
        least = -(-most // lanes) * lanes  # what is computed, the last vector's idle lanes included
        while wide > 1 and 4 * (-(-most // (lanes * wide)) * lanes * wide) > 5 * least:
            wide //= 2
        return lanes * wide

    def phase_lanes(self, inside: list[Stmt], reduces: bool) -> int:
        """Lanes of one pass over a row."""
        assert self.vector is not None
        (atom,) = self.vector.at.terms
        cost = work_of(inside, atom)
        # where much begins in a cycle and constants leave room for them, more vectors take a function's chain at once
        wide = reduces and self.fmas > 1 and self.registers >= 32 and computes_function(inside)
        return self.choose_lanes(min(cost, CHEAP_COST) if wide and cost <= WIDE_COST else cost, reduces)

    # ---- statements ----

    def phases(self) -> list[Stmt]:
        """The work for one row (or, by columns, for one lane)."""
        group, nest, reader = self.group, self.nest, self.reader
        last = max((self.depth[v] for v in group.members), default=0)
        rows = {v for v in group.members if self.is_row_value(v)}
        cached = self.cached_values(rows, last)
        self.firsts = self.long_extremes()
        self.shared = self.read_by_elements(rows)
        passes = self.passes(rows)
        blocks = self.choose_blocks(rows, cached)
        body = [] if blocks is None else self.block_phases(blocks)
        start = 0 if blocks is None else 2
        busiest = max((d for d in passes if d >= start), key=lambda d: (passes[d], d), default=0)
        for d in range(start, last + 1):
            reductions = [v for v in group.reductions if self.depth[v] == d + 1 and v not in reader.bound]
            stores = [v for v in self.elements(rows) if self.depth[v] == d]
            keeps = [v for v in cached if self.depth[v] == d]
            inside: list[Stmt] = []
            kept: dict[Value, Callable[[Index], Expr]] = {}
            for v in keeps:
                inside += self.keep(v, kept)
            if self.columns is not None and self.columns.depth == d:
                inside += self.store(stores, self.columns.adds(self.place_in_row(), nest.operand_index))
            else:
                inside += self.store(stores)
            regs: list[tuple[str, DType, Expr]] = []
            picks: dict[int, Expr] = {}
            extremes: dict[Value, FirstExtreme] = {}
            for number, v in enumerate(reductions):
                name = f"acc{d}_{number}"
                kind = accumulator(v.dtype) if COMBINE[v.op] in ("add", "mul") else v.dtype
                term = reduction_terms(reader, v, nest.outer(), nest.inner(), None)
                if v in self.firsts and not reader.checks:
                    extremes[v] = self.first_extreme(v, f"{d}_{number}", term)
                    continue
                pick = self.picked(term, identity(COMBINE[v.op], kind))
                if pick is not None:
                    picks[number] = pick
                    continue
                regs.append((name, kind, identity(COMBINE[v.op], kind)))
                inside += take_checks(reader)
                inside.append(Set(name, combined(COMBINE[v.op], reg(name, kind), term)))
            lanes = self.phase_lanes(inside, bool(reductions)) if self.by_rows else 0
            asks: list[Stmt] = []
            if d == busiest and d in passes and not self.returns:
                asks = self.ask_ahead(len(passes) > 1, passes[d])
            if inside:
                inside, asks = [*asks, *inside], []
            row: list[Stmt] = [Reg(name, kind, start, (), lanes) for name, kind, start in regs]
            if inside:
                row += self.reduced_loops(inside, lanes)
            for one in extremes.values():
                row += one.passes(asks)
                asks = []
            for number, v in enumerate(reductions):
                if v in extremes or number in picks:
                    continue
                kind = accumulator(v.dtype) if COMBINE[v.op] in ("add", "mul") else v.dtype
                result: Expr = reg(f"acc{d}_{number}", kind)
                if self.by_rows:
                    result = across(COMBINE[v.op], result)
                row.append(self.name_row_value(v, f"r{d}_{number}", cast(result, v.dtype)))
            for number, v in enumerate(reductions):
                if v in extremes:
                    rest, top, first = extremes[v].finish()
                    row += [*rest, self.name_row_value(v, f"r{d}_{number}", top)]
                    row.append(self.name_row_value(self.firsts[v], f"r{d}_{number}f", first))
            body += self.each_row(row)
            chosen: list[Stmt] = []
            for number, pick in picks.items():
                v = reductions[number]
                chosen.append(self.name_row_value(v, f"r{d}_{number}", cast(pick, v.dtype)))
            body += self.each_row(chosen, along=True)
            reader.bound.update(kept)  # this phase went on with the values themselves; later ones load them
            reader.forget()
            body += self.row_values(d + 1)
        body += self.each_row(self.store([v for v in group.outputs if v in rows]), along=True)
        self.final = {v for v in group.outputs if v in rows or self.depth[v] == last} - set(group.columns)
        return body

    def elements(self, rows: set[Value]) -> list[Value]:
        """The outputs that are written for every element of a row."""
        return [v for v in self.group.outputs if v not in rows and v not in self.group.columns]

    # ---- long rows ----

    def choose_blocks(self, rows: set[Value], cached: list[Value]) -> CentredBlocks | None:
        """Blocks of a row that pass through the first two phases at once, where the row is long and the second phase is sums of
        distances from a mean that the first gives (`centred.py`)."""
        group, depth = self.group, self.depth
        if not self.by_rows or len(self.inner) != 1 or self.together is not None or self.vector is None:
            return None
        sums = centred_sums(group, depth)
        stores = any(depth[v] < 2 for v in (*self.elements(rows), *cached))
        if sums is None or stores or any(depth[v] < 3 for v in self.firsts):
            return None
        outer, along = self.inner[0], self.vector.extent
        if (self.columns and self.columns.depth < 2) or not is_static((outer.extent, along)):
            return None
        (atom,) = self.vector.at.terms
        moving = {a.value for a in self.accesses if mentions_loop(a.position, atom)} - set(group.outputs)
        nbytes = upper(along) * sum(v.dtype.itemsize for v in moving)
        length = block_length(nbytes, upper(outer.extent), self.machine)
        if length == 0:
            return None
        self.turns, self.returns = True, nbytes * upper(outer.extent) <= self.machine.l2
        at = self.nest.index(sums.distance)
        return CentredBlocks(sums, outer, length, upper(along), at, self.builder, self.reader)

    def block_phases(self, blocks: CentredBlocks) -> list[Stmt]:
        """The first two phases, with reductions of the first that need no mean."""
        group, nest, reader, vector = self.group, self.nest, self.reader, self.vector
        assert vector is not None
        name, most = vector.name, extent(vector.extent)
        plain, centred = blocks.plain_totals(group), list(blocks.sums.factors)
        others = [v for v in group.reductions if self.depth[v] == 1 and v not in plain]
        body: list[Stmt] = []
        inside: list[Stmt] = []
        lanes = self.choose_lanes(CHEAP_COST, True)
        for number, v in enumerate(others):
            kind, combine, acc = self.kind_of(v), COMBINE[v.op], f"acc0_{number}"
            term = reduction_terms(reader, v, nest.outer(), nest.inner(), None)
            body.append(Reg(acc, kind, identity(combine, kind), (), lanes))
            inside += [*take_checks(reader), Set(acc, combined(combine, reg(acc, kind), term))]

        def along(stmts: list[Stmt]) -> Loop:
            return Loop(name, index(0), most, tuple(stmts), "vector", lanes)

        # while a block passes again, the next one is on its way
        step = Walk(blocks.dim, upper(blocks.dim.extent), blocks.length)
        body += blocks.passes(inside, self.requests([step], blocks.size, cache=1), along)
        for number, v in enumerate(others):
            total = across(COMBINE[v.op], reg(f"acc0_{number}", self.kind_of(v)))
            body.append(self.name_row_value(v, f"r0_{number}", cast(total, v.dtype)))
        for phase, values in enumerate((plain, centred)):
            body += [blocks.mean()] if phase == 1 else []
            for number, v in enumerate(values):
                body += blocks.together(v, f"sum{phase}_{number}")
                body.append(
                    self.name_row_value(v, f"t{phase}_{number}", reg(f"sum{phase}_{number}", v.dtype))
                )
            reader.forget()
        return body

    def picked(self, term: Expr, start: Expr) -> Expr | None:
        """The result of a reduction in which one element at most counts, that at a place known before the loop (a class's
        logit): no loop is needed. None for any other."""
        dims = [d for d in self.nest.dims if d.reduced and d.extent != 1]
        chooses = term.op == "where" and term.args[0].op == "eq" and term.args[2] is start
        if len(dims) != 1 or not chooses or self.reader.checks or lower_bound(dims[0].extent) < 1:
            return None
        place, size = var(dims[0].name), extent(dims[0].extent)
        at, wanted = term.args[0].args if term.args[0].args[0] is place else term.args[0].args[::-1]
        if at is not place or mentions(wanted, {place}):
            return None
        inside = op("bitand", op("ge", wanted, index(0)), op("lt", wanted, size))
        nearest = op("maximum", op("minimum", wanted, size - 1), index(0))
        return op("where", inside, substitute(term.args[1], {place: nearest}), start)

    def long_extremes(self) -> dict[Value, Value]:
        """The maxima and minima whose first place is wanted too and that are found with it, in one pass: along long rows."""
        if not self.by_rows or self.inner or self.vector is None or upper(self.vector.extent) < LONG_ROW:
            return {}
        if lower_bound(self.vector.extent) < VECTORS * self.register:
            return {}
        return {v: first for v, first in self.pairs().items() if v.dtype.is_float}

    def pairs(self) -> dict[Value, Value]:
        """The maxima and minima whose first place is a reduction of the group too, with that."""
        pairs = ((v, first_of(v, self.group.reductions)) for v in self.group.reductions)
        return {v: first for v, first in pairs if first is not None}

    def first_extreme(self, v: Value, number: str, x: Expr) -> FirstExtreme:
        """The pass over a row for a maximum or minimum and its place."""
        assert self.vector is not None
        place, kind = var(self.vector.name), self.firsts[v].dtype
        size, largest = extent(self.vector.extent), v.op == "reduce_max"
        return FirstExtreme(number, x, place, size, largest, kind, self.register)

    # ---- operands from memory ----

    def passes(self, rows: set[Value]) -> dict[int, int]:
        """The phases that pass over elements, and how much each computes for one: that which computes most waits least for memory
        by itself."""
        found = {self.depth[v] - 1 for v in self.group.reductions if v not in self.firsts.values()}
        stored = [self.depth[v] for v in self.elements(rows)]
        found |= {self.columns.depth} if self.columns is not None else set()
        work = dict.fromkeys(found, 0) | {d: STORE_COST * stored.count(d) for d in stored}
        for v, depth in self.depth.items():
            if v not in rows and depth in work:
                work[depth] += own_cost(v)
        return work

    def ask_ahead(self, several: bool, work: int) -> list[Stmt]:
        """Requests for what is read later, in the vector loop of a pass, one of several, that does this much for an element."""
        if self.vector is None or not all(isinstance(d.extent, int) for d in self.nest.dims):
            return []
        along = Walk(self.vector, upper(self.vector.extent))
        inner, outer = ([Walk(d, upper(d.extent)) for d in reversed(ds)] for ds in (self.inner, self.outer))
        unit = 1
        if not self.by_rows:
            walks = [*inner, along, *outer]
            unit = self.lanes if inner else 1
        elif not several:
            walks = [along, *inner, *outer]
        else:  # every phase passes over the same row, or rows
            unit = product(d.extent for d in self.nest.dims if d.reduced)
            walks = outer
            if self.together is not None:
                unit *= self.together.count
                walks[0] = Walk(walks[0].dim, walks[0].count, self.together.count)
        wanted = self.requests(walks, unit)
        if len(wanted) > 1 and work < BUSY * len(wanted):
            return []  # streams side by side keep memory busy by themselves
        return wanted

    def requests(
        self, walks: list[Walk], unit: int, cache: int | None = None, ahead: int = AHEAD
    ) -> list[Stmt]:
        """Requests for what follows in these loops (`ahead.py`)."""
        assert self.vector is not None
        wanted = asked_ahead(self.accesses, self.group.outputs, self.vector, walks, unit, self.machine, ahead)
        return [
            Prefetch(self.builder.buffer(a.value, "r"), a.position.expr(), cache or a.cache) for a in wanted
        ]

    def ask_by_rows(self, width: int) -> list[Stmt]:
        """Requests for what is read some rows later, where rows of so many columns are met one after the other."""
        assert self.vector is not None
        dims = [*self.outer, *self.inner]
        if not all(isinstance(d.extent, int) for d in dims):
            return []
        walks = [Walk(self.vector, width), *(Walk(d, upper(d.extent)) for d in reversed(dims))]
        return self.requests(walks, 1, ahead=ROWS_AHEAD)

    # ---- several rows together ----

    def choose_together(self, machine: Machine) -> RowsTogether | None:
        """The rows that go through each phase together, if several do."""
        if not self.by_rows or not self.outer or not isinstance(self.outer[-1].extent, int):
            return None
        assert self.vector is not None
        (along,), (across_rows,) = self.vector.at.terms, self.outer[-1].at.terms
        moving = {
            a.value
            for a in self.accesses
            if mentions_loop(a.position, along) and mentions_loop(a.position, across_rows)
        }
        inside = product([d.extent for d in self.nest.dims if d.reduced])
        nbytes = inside * sum(v.dtype.itemsize for v in moving)
        count = rows_together(self.outer[-1].extent, nbytes, self.register, machine)
        if count == 1:
            return None
        return RowsTogether(count, self.outer[-1], self.register, self.builder, self.reader)

    def each_row(self, row: list[Stmt], along: bool = False) -> list[Stmt]:
        """What is done for one row, for all that go together."""
        return row if self.together is None else self.together.each(row, along)

    def name_row_value(self, v: Value, name: str, value: Expr) -> Stmt:
        """Let what is read of ``v`` from here on be this value, found for one row."""
        if self.together is not None:
            return self.together.name(v, value)
        self.reader.bound[v] = lambda at: var(name, v.dtype)
        return Let(name, value)

    def row_values(self, depth: int) -> list[Stmt]:
        """Functions of the rows' results that elements of the rows read: computed once for all rows that go together."""
        if self.together is None:
            return []
        stmts: list[Stmt] = []
        for v in self.group.members:
            if self.depth[v] == depth and v in self.shared and self.row_cost(v) >= ROW_COST:
                value = self.reader.read(v, self.nest.index(v))
                stmts += take_checks(self.reader)
                stmts.append(self.name_row_value(v, "", value))
        self.reader.forget()
        return self.each_row(stmts, along=True)

    def read_by_elements(self, rows: set[Value]) -> set[Value]:
        """The members with one element per row that others, of a whole row each, read."""
        found, seen = set[Value](), set[Value]()
        wanted = {*self.group.outputs, *self.group.reductions} - set(self.firsts.values())
        stack = [x for u in wanted if u not in rows or u in self.group.reductions for x in u.inputs]
        while stack:
            x = stack.pop()
            if x in seen:
                continue
            seen.add(x)
            if x in rows:
                found.add(x)
            elif not self.stored(x):
                stack.extend(x.inputs)
        return found - set(self.group.reductions)

    def row_cost(self, v: Value) -> int:
        """The operations between the reductions' results and a function of them."""
        cost, stack, seen = 0, [v], set[Value]()
        while stack:
            x = stack.pop()
            if x not in seen and x not in self.group.reductions and not self.stored(x):
                seen.add(x)
                cost += own_cost(x) if x.inputs else 0
                stack.extend(x.inputs)
        return cost

    def adds_rows(self) -> bool:
        """Whether sums over columns are kept in scratch, a whole row of them, to which one row is added after the other: memory
        is read in order then, where strips of columns would read a small piece of each row, on a page of its own."""
        if self.vector is None or self.by_rows or not self.outer or len(self.inner) != 1:
            return False
        group, columns = self.group, self.vector.extent
        if not isinstance(columns, int):
            return False
        nbytes = columns * sum(self.kind_of(v).itemsize for v in group.reductions)
        single = all(self.depth[v] == 1 for v in group.reductions) and all(
            map(self.is_row_value, group.outputs)
        )
        return single and columns > self.lanes and nbytes <= ROW_BYTES

    def kind_of(self, v: Value) -> DType:
        """The type a reduction is computed in."""
        return accumulator(v.dtype) if COMBINE[v.op] in ("add", "mul") else v.dtype

    def added_rows(self) -> tuple[Stmt, ...] | None:
        """The work for one item of the grid where ``adds_rows``. Where two multiplications begin in a cycle, the stores of the
        sums are what limits it, and several rows are added in one pass, in order, two lines of each at a time; but what comes
        from memory, and is more than added, row by row, so that it can be asked for some rows ahead."""
        assert self.vector is not None
        group, nest, reader, rows = self.group, self.nest, self.reader, self.inner[0]
        column = var(self.vector.name)
        lanes = 2 * self.register * (max(1, LINE // self.width) if self.fmas > 1 else 1)
        starts: list[Stmt] = []
        adds: list[Stmt] = []
        together: list[Stmt] = []
        plain = True
        ends: list[Stmt] = []
        for number, v in enumerate(group.reductions):
            kind, combine = self.kind_of(v), COMBINE[v.op]
            term = reduction_terms(reader, v, nest.outer(), nest.inner(), None)
            if take_checks(reader):
                return None
            plain = plain and number == 0 and combine == "add" and term.op == "load"
            name = self.builder.area(kind, upper(self.vector.extent))
            starts.append(Store(name, column, identity(combine, kind)))
            total = load(name, column, kind)
            adds.append(Store(name, column, op(combine, total, term)))
            for k in range(ROWS_ADDED):
                at = var("several") * ROWS_ADDED + k
                total = op(combine, total, substitute(term, {var(rows.name): at}))
            together.append(Store(name, column, total))
            ends.append(Let(f"r0_{number}", cast(load(name, column, kind), v.dtype)))
        for number, v in enumerate(group.reductions):
            reader.bound[v] = lambda at, name=f"r0_{number}", v=v: var(name, v.dtype)  # type: ignore[misc]
        reader.forget()
        ends += self.store(list(group.outputs))
        self.final = set(group.outputs)

        def across_columns(body: list[Stmt]) -> Loop:
            assert self.vector is not None
            return Loop(self.vector.name, index(0), extent(self.vector.extent), tuple(body), "vector", lanes)

        asks = [] if plain else self.ask_by_rows(upper(self.vector.extent))
        asks = asks if len(asks) == 1 else []  # streams side by side keep memory busy by themselves
        several = self.fmas > 1 and not asks
        passes = rows.extent // ROWS_ADDED if several and isinstance(rows.extent, int) else 0
        adding: list[Stmt] = []
        if passes:
            adding.append(Loop("several", index(0), index(passes), (across_columns(together),)))
        if not isinstance(rows.extent, int) or passes * ROWS_ADDED < rows.extent:
            first = index(passes * ROWS_ADDED)
            adding.append(Loop(rows.name, first, extent(rows.extent), (across_columns([*asks, *adds]),)))
        return across_columns(starts), *adding, across_columns(ends)

    def column_extremes(self) -> tuple[Stmt, ...] | None:
        """The work for one item of the grid of a group that looks for columns' extremes and their first places, and computes
        nothing else but functions of these; None for any other."""
        if self.vector is None or self.by_rows or len(self.inner) != 1:
            return None
        group, columns, rows = self.group, self.vector.extent, self.inner[0].extent
        pairs = self.pairs()
        if not isinstance(columns, int) or not isinstance(rows, int) or any(v.dtype.is_bool for v in pairs):
            return None
        alone = {*pairs, *pairs.values()} == set(group.reductions) and all(
            map(self.is_row_value, group.outputs)
        )
        if not pairs or not alone or self.reader.checks:
            return None
        kept = sum(v.dtype.itemsize + f.dtype.itemsize for v, f in pairs.items())
        lanes = 2 * self.width // max(w.dtype.itemsize for pair in pairs.items() for w in pair)
        # as many strips as keep what is kept in the first-level cache, and as give every thread some
        items = product([d.extent for d in self.outer])
        tasks = min(
            self.cost * items * rows * columns // CHUNK_COST, TASKS * self.threads if self.threads > 1 else 1
        )
        strips = max(-(-columns * kept // ROW_BYTES), min(-(-tasks // items), columns // (2 * lanes)), 1)
        width = -(-columns // strips // lanes) * lanes
        strips = -(-columns // width)
        strip = Dim("strip", strips, False)
        column = var("column")
        first = var(strip.name) * width if strips > 1 else index(0)
        stop = op("minimum", index(width), index(columns) - first) if columns % width else index(width)

        def across_columns(body: list[Stmt]) -> Stmt:
            assert self.vector is not None
            body = [Let(self.vector.name, first + column), *body]
            return Loop(column.attr, index(0), stop, tuple(body), "vector", lanes)

        extremes = []
        for v, place in pairs.items():
            x = reduction_terms(self.reader, v, self.nest.outer(), self.nest.inner(), None)
            if self.reader.checks:
                return None
            area = partial(self.builder.area, size=width)
            one = ColumnExtreme(x, var(self.inner[0].name), column, v.op == "reduce_max", place.dtype, area)
            extremes.append(one)
        body = passes_over(extremes, rows, across_columns, lanes, self.ask_by_rows(width))
        for (v, place), one in zip(pairs.items(), extremes, strict=True):
            self.reader.bound[v] = lambda at, one=one: one.best()  # type: ignore[misc]
            self.reader.bound[place] = lambda at, one=one: one.place()  # type: ignore[misc]
        self.reader.forget()
        body.append(across_columns(self.store(list(group.outputs))))
        self.final = set(group.outputs)
        if strips > 1:
            self.outer.append(strip)
        return tuple(body)

    def is_row_value(self, v: Value) -> bool:
        """Whether a member has one element per row: no reduced loop occurs in its index."""
        if not self.group.reduced:
            return False
        if v in self.group.reductions or v in self.group.columns:
            return v in self.group.reductions
        reduced = [a for k, i in enumerate(self.group.loops) if k in self.group.reduced for a in i.terms]
        if reduced:
            return not any(i.coefficient(a) for i in self.group.members[v] for a in reduced)
        return len(v.shape) == len(self.group.dims) - len(self.group.reduced) and v.shape != self.group.dims

    def cached_values(self, rows: set[Value], last: int) -> list[Value]:
        """Costly row-wide values that a later phase reads again: kept in scratch while the row is worked on."""
        extent = product([d.extent for d in self.nest.dims if d.reduced])
        if not self.by_rows or last == 0 or extent > MAX_ROW:
            return []
        out = []
        for v in self.group.members:
            if v in rows or own_cost(v) < CACHE_COST:
                continue
            readers = [u for u in self.group.members if v in u.inputs]
            if any(self.depth[u] - (u in self.group.reductions) > self.depth[v] for u in readers):
                out.append(v)
        return out

    def keep(self, v: Value, kept: dict[Value, Callable[[Index], Expr]]) -> list[Stmt]:
        """Store a value of the row in scratch."""
        position, size = self.place_in_row().expr(), self.row_size()
        name = self.builder.area(v.dtype, size * (self.together.count if self.together else 1))
        if self.together is not None:
            position = self.together.place(position, size)
        value = self.reader.read(v, self.nest.index(v))
        kept[v] = lambda at: load(name, position, v.dtype)
        return [*take_checks(self.reader), Store(name, position, value)]

    def place_in_row(self) -> Affine:
        """An element's number in its row."""
        dims = [d for d in self.nest.dims if d.reduced]
        return self.nest.space.linear([d.at for d in dims], [d.extent for d in dims])

    def row_size(self) -> int:
        return product([d.extent for d in self.nest.dims if d.reduced])

    def store(self, values: list[Value], adds: tuple[list[Stmt], list[Stmt]] | None = None) -> list[Stmt]:
        """Stores of values at one place of the loops, and what is added to columns there. All are computed before the first is
        written: an output may lie where one of the operands does."""
        named: list[Stmt] = []
        stores: list[Stmt] = []
        places = [(v, x, position) for v in values for x, position in written(v, self.nest)]
        for v, x, position in places:
            value = self.reader.read(x, self.nest.index(v))
            named += take_checks(self.reader)
            if len(places) > 1 or adds:
                self.named += 1
                name = f"o{self.named}"
                named.append(Let(name, value))
                value = var(name, v.dtype)
            stores.append(Store(self.builder.buffer(v, "w"), position.expr(), value))
        terms, added = adds or ([], [])
        return [*terms, *named, *added, *stores]

    def reduced_loops(self, inside: list[Stmt], lanes: int) -> list[Stmt]:
        body = tuple(inside)
        if self.by_rows:
            body = self.over_vectors(body, lanes)
        for dim in reversed(self.inner):
            self.back = self.turns and not self.back
            if self.back:
                body = (Let(dim.name, extent(dim.extent) - 1 - var("back")), *body)
            body = (Loop("back" if self.back else dim.name, index(0), extent(dim.extent), body),)
        return list(body)

    # ---- the whole kernel ----

    def call(self, label: str) -> Call:
        per_item = self.cost * product([d.extent for d in self.nest.dims])
        if self.adds_rows():
            added = self.added_rows()
            if added is not None:
                return self.over_grid(added, per_item, label)
        found = self.column_extremes()
        if found is not None:
            return self.over_grid(found, per_item, label)
        if self.columns is not None:
            return self.over_grid(self.blocks(self.columns), per_item, label)
        body = tuple(self.phases())
        if self.vector is not None and not self.by_rows:
            if not self.outer:
                # one long dim: the grid is its elements, and the kernel does not depend on how many there are
                body = (Loop(self.vector.name, LO, HI, body, "vector", self.lanes),)
                per_item = max(1, per_item // max(upper(self.vector.extent), 1))
                chunk = max(self.least_cost // per_item, self.least_chunk(self.vector.extent))
                chunk = even_chunk(self.vector.extent, max(chunk, 1), self.threads, self.lanes)
                return self.finish(body, self.vector.extent, chunk, label)
            body = self.over_vectors(body, self.lanes)
        return self.over_grid(body, per_item, label)

    def blocks(self, columns: Columns) -> tuple[Stmt, ...]:
        """The work for one block of rows, over which ``columns`` reduce. The grid then runs over the blocks."""
        nest, place = self.nest, self.place_in_row()
        starts = columns.starts(place, self.row_size())
        body = tuple(self.phases())
        self.outer, rows = (
            [d for d in self.outer if not self.in_block(d)],
            [d for d in self.outer if self.in_block(d)],
        )
        if self.together is not None:
            rows[-1] = self.together.blocks()
        for dim in reversed(rows):
            body = (Loop(dim.name, index(0), extent(dim.extent), body),)
        ends = columns.ends(place, lambda v: nest.space.linear(nest.index(v), v.shape))
        lanes = self.choose_lanes(0, False)
        return *self.reduced_loops(starts, lanes), *body, *self.reduced_loops(ends, lanes)

    def over_grid(self, body: tuple[Stmt, ...], work: int, label: str) -> Call:
        """The grid runs over as many leading outer dims as it takes to share the work out."""
        if self.together is not None and self.columns is None:
            self.outer[-1] = self.together.blocks()
        grid_dims, rest = self.shared_dims(work)
        for dim in reversed(rest):
            body = (Loop(dim.name, index(0), extent(dim.extent), body),)
        grid = total(d.extent for d in grid_dims)
        if len(grid_dims) == 1:
            body = (Loop(grid_dims[0].name, LO, HI, body),)
        else:
            flat = var("g")
            digits: list[Stmt] = []
            for position, dim in enumerate(grid_dims):
                digit = idiv(flat, product(d.extent for d in grid_dims[position + 1 :]))
                digits.append(Let(dim.name, digit if position == 0 else imod(digit, upper(dim.extent))))
            body = (Loop("g", LO, HI, (*digits, *body)),)
        chunk = max(1, self.least_cost * upper(grid) // max(work, 1), self.least_chunk(grid))
        return self.finish(body, grid, even_chunk(grid, chunk, self.threads), label)

    @property
    def least_cost(self) -> int:
        """Of a piece of work."""
        return CHUNK_COST * (ALONE if self.threads == 1 else 1)

    def least_chunk(self, grid: Extent) -> int:
        """Items of a piece of work that is one of a long launch's many."""
        return grid // (PIECES * self.threads) if isinstance(grid, int) else 0

    def shared_dims(self, work: int) -> tuple[list[Dim], list[Dim]]:
        """The outer dims that the grid runs over, outermost first, and those that are loops inside a piece of work.

        A symbolic dim leads the grid: finding the others' digits takes divisions, by constants only.
        """
        symbolic = [d for d in self.outer if not isinstance(d.extent, int)]
        grid_dims, rest = [d for d in self.outer if d not in symbolic[:1]], list[Dim]()
        rest, grid_dims = symbolic[1:], [*symbolic[:1], *(d for d in grid_dims if d not in symbolic)]
        inside = product(d.extent for d in rest)
        work //= max(product(d.extent for d in self.outer), 1)
        while len(grid_dims) > 1:
            tasks = product(d.extent for d in grid_dims[:-1])
            # where the outer range may be short at run time, a piece of work is no longer than it has to be
            if tasks < 64 or (symbolic and work * inside * upper(grid_dims[-1].extent) > CHUNK_COST):
                break
            inside *= upper(grid_dims[-1].extent)
            rest.insert(0, grid_dims.pop())
        return grid_dims, rest

    def finish(self, body: tuple[Stmt, ...], grid: Extent, chunk: int, label: str) -> Call:
        call = self.builder.call(body, grid, chunk, label)
        call.checked = self.reader.checked
        early = {v for v in self.group.outputs if v not in self.final}
        positions: dict[Value, set[Affine]] = {}
        for a in self.accesses:
            if a.value not in early:
                positions.setdefault(a.value, set()).add(a.position)
        call.inplace = inplace_pairs(call, {v: at for v, at in positions.items() if len(at) == 1})
        return call


def lower_loops(group: Group, stored: Callable[[Value], bool], machine: Machine) -> list[Call]:
    """The kernel call of a map or row group."""
    if all(v.type.size == 0 for v in group.outputs):
        return []
    ops = ", ".join(dict.fromkeys(v.op for v in group.members))
    label = f"{group.kind} {ops} {list(group.dims)}"
    return [_Emitter(group, stored, machine).call(label)]
