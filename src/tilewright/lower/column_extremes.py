"""The first largest or smallest element of every column in one pass, its value and its place.

The columns of a strip keep their greatest elements and the places of these in scratch, and rows go by in order: memory is read
as it lies, from beyond the caches one row at a time, so that all of it can be asked for some rows ahead. A comparison with NaN is
false, so NaN is passed over. The sum of all elements tells whether there is one: it is NaN then (and seldom else: infinities of
both signs), and only such a strip is passed over again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tilewright.core.dtype import DType
from tilewright.core.shape import product
from tilewright.kernel.ir import (
    Expr,
    If,
    Let,
    Loop,
    Reg,
    Set,
    Stmt,
    Store,
    across,
    cast,
    const,
    index,
    load,
    op,
    reg,
    substitute,
    var,
)  # fmt: skip
from tilewright.lower.column_loops import ROW_BYTES, ColumnLoops
from tilewright.lower.extremes import comparison, pairs_of
from tilewright.lower.nest import Dim
from tilewright.lower.pieces import CHUNK_COST
from tilewright.lower.read import identity

__all__ = ["ROWS_AHEAD", "column_extremes"]

ROWS = 8  # that a strip takes in one pass: what is kept is loaded and stored once for all of them
TASKS = 4  # for each of several threads that are shared out as strips of columns
ROWS_AHEAD = 1 << 14  # bytes that are asked for before they are read
Area = Callable[[DType], str]
Columns = Callable[[list[Stmt]], Stmt]


def column_extremes(loops: ColumnLoops) -> tuple[tuple[Stmt, ...], list[Dim]] | None:
    """The work for one item of the grid of a group that looks for columns' extremes and their first places, and computes nothing
    else but functions of these, and the strips that the grid then runs over too, innermost; None for any other group."""
    group, reader, columns, rows = loops.group, loops.reader, loops.columns.extent, loops.rows.extent
    pairs = pairs_of(group.reductions)
    if not isinstance(columns, int) or not isinstance(rows, int) or any(v.dtype.is_bool for v in pairs):
        return None
    alone = {*pairs, *pairs.values()} == set(group.reductions) and loops.ends_in_columns()
    if not pairs or not alone or reader.checks:
        return None
    kept = sum(v.dtype.itemsize + f.dtype.itemsize for v, f in pairs.items())
    lanes = 2 * loops.machine.vector_bytes // max(w.dtype.itemsize for pair in pairs.items() for w in pair)
    # as many strips as keep what is kept in the first-level cache, and as give every thread some
    threads = loops.machine.threads
    items = product([d.extent for d in loops.outer])
    tasks = min(loops.cost * items * rows * columns // CHUNK_COST, TASKS * threads if threads > 1 else 1)
    strips = max(-(-columns * kept // ROW_BYTES), min(-(-tasks // items), columns // (2 * lanes)), 1)
    width = -(-columns // strips // lanes) * lanes
    strips = -(-columns // width)
    strip = Dim("strip", strips, False)
    column = var("column")
    first = var(strip.name) * width if strips > 1 else index(0)
    stop = op("minimum", index(width), index(columns) - first) if columns % width else index(width)

    def across_columns(body: list[Stmt]) -> Stmt:
        body = [Let(loops.columns.name, first + column), *body]
        return Loop(column.attr, index(0), stop, tuple(body), "vector", lanes)

    extremes = []
    for v, place in pairs.items():
        x = loops.term(v)
        if reader.checks:
            return None
        area = partial(loops.builder.area, size=width)
        one = ColumnExtreme(x, var(loops.rows.name), column, v.op == "reduce_max", place.dtype, area)
        extremes.append(one)
    body = passes_over(extremes, rows, across_columns, lanes, loops.asks(width))
    for (v, place), one in zip(pairs.items(), extremes, strict=True):
        reader.bound[v] = lambda at, one=one: one.best()  # type: ignore[misc]
        reader.bound[place] = lambda at, one=one: one.place()  # type: ignore[misc]
    reader.forget()
    body.append(across_columns(loops.store(list(group.outputs))))
    return tuple(body), [strip] if strips > 1 else []


class ColumnExtreme:
    """What is done for one column, at place ``at`` of its strip. ``x`` is its element in row ``row``; ``area`` gives scratch for
    one number of every column."""

    def __init__(self, x: Expr, row: Expr, at: Expr, largest: bool, kind: DType, area: Area) -> None:
        self.x, self.row, self.at, self.kind = x, row, at, kind
        self.combine, self.better = comparison(largest)
        self.names = area(x.dtype), area(kind)
        self.sum = f"{self.names[0]}.sum"

    def best(self) -> Expr:
        return load(self.names[0], self.at, self.x.dtype)

    def place(self) -> Expr:
        return load(self.names[1], self.at, self.kind)

    def keep(self, best: Expr, place: Expr) -> list[Stmt]:
        """Stores of what may be computed from what was kept."""
        named = [(area, f"{area}.next", v) for area, v in zip(self.names, (best, place), strict=True)]
        lets: list[Stmt] = [Let(name, value) for _, name, value in named]
        return [*lets, *(Store(area, self.at, var(name, value.dtype)) for area, name, value in named)]

    def start(self) -> list[Stmt]:
        return self.keep(identity(self.combine, self.x.dtype), const(0, self.kind))

    def step(self, rows: list[Expr]) -> list[Stmt]:
        """These rows, in order."""
        best, place = self.best(), self.place()
        elements = [substitute(self.x, {self.row: row}) for row in rows]
        for row, x in zip(rows, elements, strict=True):
            wins = op(self.better, x, best)
            best, place = op("where", wins, x, best), op("where", wins, cast(row, self.kind), place)
        stmts = self.keep(best, place)
        if self.x.dtype.is_float:
            stmts.append(Set(self.sum, op("add", reg(self.sum, self.x.dtype), _tree(elements))))
        return stmts

    def again(self) -> tuple[list[Stmt], list[Stmt], list[Stmt]]:
        """What puts a column's first NaN, if there is one, in the place of its best: before all rows, in each, and after them.
        The place p is kept as -1 - p as long as no NaN is found."""
        x, place = self.x, self.place()
        other = op("sub", const(-1, self.kind), place)
        none = op("lt", place, const(0, self.kind))
        finds = op("bitand", op("ne", x, x), none)
        best = op("where", none, self.best(), const(float("nan"), x.dtype))
        return (
            [Store(self.names[1], self.at, other)],
            [Store(self.names[1], self.at, op("where", finds, cast(self.row, self.kind), place))],
            self.keep(best, op("where", none, other, place)),
        )


def passes_over(
    extremes: list[ColumnExtreme], rows: int, columns: Columns, lanes: int, asks: list[Stmt]
) -> list[Stmt]:
    """The passes over a strip; ``columns`` makes a loop over its columns, ``lanes`` at once. ``asks`` are requests for what is
    read some rows after the present one."""
    (row,) = {e.row for e in extremes}
    assert row.op == "var"

    def each(rows: list[Expr]) -> Stmt:
        return columns([*asks, *(s for e in extremes for s in e.step(rows))])

    body: list[Stmt] = [columns([s for e in extremes for s in e.start()])]
    floats = [e for e in extremes if e.x.dtype.is_float]
    body += [Reg(e.sum, e.x.dtype, const(0, e.x.dtype), (), lanes) for e in floats]
    passes = 0 if asks else rows // ROWS
    if passes:
        several = var("several") * ROWS
        body.append(Loop("several", index(0), index(passes), (each([several + k for k in range(ROWS)]),)))
    if rows > passes * ROWS:
        body.append(Loop(row.attr, index(passes * ROWS), index(rows), (each([row]),)))
    for e in floats:
        doubt = var(f"{e.sum}.all", e.x.dtype)
        before, inside, after = map(columns, e.again())
        loop = Loop(row.attr, index(0), index(rows), (inside,))
        body.append(Let(doubt.attr, across("add", reg(e.sum, e.x.dtype))))
        body.append(If(op("ne", doubt, doubt), (before, loop, after)))
    return body


def _tree(terms: list[Expr]) -> Expr:
    """Their sum, neighbours first."""
    while len(terms) > 1:
        pairs = [op("add", a, b) for a, b in zip(terms[::2], terms[1::2], strict=False)]
        terms = [*pairs, *terms[2 * len(pairs) :]]
    return terms[0]
