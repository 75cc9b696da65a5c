"""Sums over columns, a whole row of them in scratch, to which one row is added after the other.

Memory is read in order then, where strips of columns would read a small piece of each row, on a page of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

from tilewright.core.shape import upper
from tilewright.graph.ir import Value
from tilewright.kernel.ir import Let, Loop, Stmt, Store, cast, index, load, op, substitute, var
from tilewright.lower.calls import take_checks
from tilewright.lower.column_loops import ROW_BYTES, ColumnLoops
from tilewright.lower.extents import extent
from tilewright.lower.lines import LINE
from tilewright.lower.read import COMBINE, computed_in, identity

__all__ = ["added_rows"]

ROWS_ADDED = 4  # to a row of sums in one pass


def added_rows(loops: ColumnLoops, depth: Mapping[Value, int], lanes: int) -> tuple[Stmt, ...] | None:
    """The work for one item of the grid; None where there is no grid, where a strip of ``lanes`` columns is all, or where the row
    of sums is too long to stay in the first-level cache.

    Where two multiplications begin in a cycle, the stores of the sums are what limits it, and several rows are added in one
    pass, in order, two lines of each at a time; but what comes from memory, and is more than added, row by row, so that it can
    be asked for some rows ahead."""
    return _added(loops) if _fits(loops, depth, lanes) else None


def _fits(loops: ColumnLoops, depth: Mapping[Value, int], lanes: int) -> bool:
    group, columns = loops.group, loops.columns.extent
    if not loops.outer or not isinstance(columns, int):
        return False
    nbytes = columns * sum(computed_in(v).itemsize for v in group.reductions)
    single = all(depth[v] == 1 for v in group.reductions) and loops.ends_in_columns()
    return single and columns > lanes and nbytes <= ROW_BYTES


def _added(loops: ColumnLoops) -> tuple[Stmt, ...] | None:
    group, reader, rows, machine = loops.group, loops.reader, loops.rows, loops.machine
    column, size = var(loops.columns.name), loops.columns.extent
    lanes = 2 * loops.register * (max(1, LINE // machine.vector_bytes) if machine.fmas > 1 else 1)
    starts: list[Stmt] = []
    adds: list[Stmt] = []
    together: list[Stmt] = []
    plain = True
    ends: list[Stmt] = []
    for number, v in enumerate(group.reductions):
        kind, combine = computed_in(v), COMBINE[v.op]
        term = loops.term(v)
        if take_checks(reader):
            return None
        plain = plain and number == 0 and combine == "add" and term.op == "load"
        name = loops.builder.area(kind, upper(size))
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
    ends += loops.store(list(group.outputs))

    def across_columns(body: list[Stmt]) -> Loop:
        return Loop(column.attr, index(0), extent(size), tuple(body), "vector", lanes)

    asks = [] if plain else loops.asks(upper(size))
    asks = asks if len(asks) == 1 else []  # streams side by side keep memory busy by themselves
    several = machine.fmas > 1 and not asks
    passes = rows.extent // ROWS_ADDED if several and isinstance(rows.extent, int) else 0
    adding: list[Stmt] = []
    if passes:
        adding.append(Loop("several", index(0), index(passes), (across_columns(together),)))
    if not isinstance(rows.extent, int) or passes * ROWS_ADDED < rows.extent:
        first = index(passes * ROWS_ADDED)
        adding.append(Loop(rows.name, first, extent(rows.extent), (across_columns([*asks, *adds]),)))
    return across_columns(starts), *adding, across_columns(ends)
