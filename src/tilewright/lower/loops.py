"""Map and row groups as loop nests: elementwise work and reductions over rows, with the row kept in cache.

`nest.py` has the dims: outer (P) and reduced (R) ones, and one along which vectors run, a reduced dim (rows: partial results
per lane, combined at the row's end) or an outer dim (columns: every lane reduces for itself, or rows are added to a row of sums
in scratch). A row is passed over once per phase: phase d holds what depends on d reductions before it (softmax: max; exp and
sum; divide).
"""

from __future__ import annotations

from collections.abc import Callable

from tilewright.core.dtype import DType
from tilewright.core.shape import Extent, is_static, lower_bound, product, upper
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
from tilewright.lower.column_extremes import ROWS_AHEAD, column_extremes
from tilewright.lower.column_loops import ColumnLoops
from tilewright.lower.column_sums import added_rows
from tilewright.lower.columns import Columns
from tilewright.lower.extents import extent
from tilewright.lower.extremes import VECTORS, FirstExtreme, pairs_of
from tilewright.lower.groups import Group, own_cost
from tilewright.lower.lines import cut_at_line, in_whole_lines, where_lines_begin
from tilewright.lower.nest import Dim, choose_nest, mentions_loop, written
from tilewright.lower.pieces import over_grid, piece_of, worth_of
from tilewright.lower.read import COMBINE, Index, Reader, computed_in, identity, reduction_terms
from tilewright.lower.row_values import is_row_value, read_again, read_by_elements, row_cost
from tilewright.lower.together import RowsTogether, rows_together
from tilewright.lower.work import computes_function, depths, inside_of, side_by_side, work_of
from tilewright.recipes.machine import Machine

__all__ = ["lower_loops"]

WIDE_COLUMNS = 8
LONG_ROW = 256  # elements: an extreme's value and place are kept side by side from here on
BUSY = 4  # operations for each of several operands: less is no reason to ask for them
CHEAP_COST, WIDE_COST = 12, 40  # operations for an element: up to these, four or two vectors go side by side
STORE_COST = 2  # operations that a store counts as
ROW_COST = 3  # cheap operations of a function of a row's result that is computed for several rows at once
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
        single = {v for v in group.members if v not in group.reductions and is_row_value(group, v)}
        self.cost = sum(max(own_cost(v), 1) for v in inside - single) + 2 * len(self.accesses)
        self.register = max(1, width // itemsize)  # lanes of one
        # the beginning of such a result is gone from the caches by the time its end is written
        large = [v for v in group.outputs if v.type.nbytes >= machine.l3]
        self.begin: Expr | None = None
        if self.vector is not None:
            vector, nest = self.vector, self.nest
            self.begin = where_lines_begin(large, vector, nest)
            cut = self.begin is not None
            self.builder.streamed.update(v for v in large if cut or in_whole_lines(v, vector, nest))
        self.together = self.choose_together(machine)
        self.side_by_side = 0 if group.reductions else side_by_side(group, stored, machine)
        self.lanes = self.choose_lanes(self.cost)
        self.machine = machine

    def in_block(self, dim: Dim) -> bool:
        """Whether the reductions over rows run over an outer dim."""
        (atom,) = dim.at.terms
        return not any(mentions_loop(i, atom) for i in self.nest.index(self.group.columns[0]))

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
        rows = {v for v in group.members if is_row_value(group, v)}
        cached = self.kept_values(rows, last)
        self.firsts = self.long_extremes()
        self.shared = read_by_elements(group, rows, set(self.firsts.values()), self.stored)
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
                kind = computed_in(v)
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
                kind = computed_in(v)
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
            kind, combine, acc = computed_in(v), COMBINE[v.op], f"acc0_{number}"
            term = reduction_terms(reader, v, nest.outer(), nest.inner(), None)
            body.append(Reg(acc, kind, identity(combine, kind), (), lanes))
            inside += [*take_checks(reader), Set(acc, combined(combine, reg(acc, kind), term))]

        def along(stmts: list[Stmt]) -> Loop:
            return Loop(name, index(0), most, tuple(stmts), "vector", lanes)

        # while a block passes again, the next one is on its way
        step = Walk(blocks.dim, upper(blocks.dim.extent), blocks.length)
        body += blocks.passes(inside, self.requests([step], blocks.size, cache=1), along)
        for number, v in enumerate(others):
            total = across(COMBINE[v.op], reg(f"acc0_{number}", computed_in(v)))
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
        return {v: first for v, first in pairs_of(self.group.reductions).items() if v.dtype.is_float}

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
            read = self.depth[v] == depth and v in self.shared
            if read and row_cost(self.group, v, self.stored) >= ROW_COST:
                value = self.reader.read(v, self.nest.index(v))
                stmts += take_checks(self.reader)
                stmts.append(self.name_row_value(v, "", value))
        self.reader.forget()
        return self.each_row(stmts, along=True)

    def kept_values(self, rows: set[Value], last: int) -> list[Value]:
        """Costly row-wide values that are kept in scratch while the row is worked on."""
        long = product([d.extent for d in self.nest.dims if d.reduced]) > MAX_ROW
        return [] if not self.by_rows or last == 0 or long else read_again(self.group, rows, self.depth)

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
        loops = self.column_loops()
        if loops is not None:
            added = added_rows(loops, self.depth, self.lanes)
            found = (added, list[Dim]()) if added is not None else column_extremes(loops)
            if found is not None:
                body, strips = found
                self.outer += strips
                self.final = set(self.group.outputs)
                return self.over_grid(body, per_item, label)
        if self.columns is not None:
            return self.over_grid(self.blocks(self.columns), per_item, label)
        body = tuple(self.phases())
        if self.vector is not None and not self.by_rows:
            if not self.outer:
                # one long dim: the grid is its elements, and the kernel does not depend on how many there are
                body = (Loop(self.vector.name, LO, HI, body, "vector", self.lanes),)
                per_item = max(1, per_item // max(upper(self.vector.extent), 1))
                grid = self.vector.extent
                chunk = piece_of(grid, worth_of(per_item, self.threads), self.threads, self.lanes)
                return self.finish(body, grid, chunk, label)
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

    def column_loops(self) -> ColumnLoops | None:
        """What reductions over one loop are built from where vectors run along columns."""
        if self.vector is None or self.by_rows or len(self.inner) != 1:
            return None
        return ColumnLoops(
            self.group, self.nest, self.outer, self.inner[0], self.vector, self.builder, self.reader,
            self.machine, self.register, self.cost, self.ask_by_rows, self.store,
        )  # fmt: skip

    def over_grid(self, body: tuple[Stmt, ...], work: int, label: str) -> Call:
        """The call that does this for every item of the outer dims."""
        if self.together is not None and self.columns is None:
            self.outer[-1] = self.together.blocks()
        return self.finish(*over_grid(body, self.outer, work, self.threads), label)

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
