"""Runs of a large result that begin in the middle of a cache line.

Stores past the caches are for whole lines, which only aligned vectors fill. So the vector loop over such a run is cut where the
first line begins: what lies before is stored plainly, and so is the end, as the two runs that share a line may be written by
different threads.
"""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.core.shape import is_static, upper
from tilewright.graph.ir import Value
from tilewright.kernel.ir import Expr, Loop, imod, index
from tilewright.lower.affine import Affine
from tilewright.lower.nest import Dim, Nest, written

__all__ = ["LINE", "cut_at_line", "in_whole_lines", "where_lines_begin"]

LINE = 64  # bytes of a cache line
LONG_RUN = 64 * LINE  # bytes: of shorter runs the ends are too large a part


def in_whole_lines(v: Value, vector: Dim, nest: Nest) -> bool:
    """Whether every run of a result that the vector loop writes is whole cache lines: a part of one stored past the caches
    would be sent to memory by itself."""
    if not is_static(v.shape) or v.op == "concat":
        return False
    rows = [d for d in nest.dims if d is not vector and d.extent != 1]
    return not rows or upper(vector.extent) * v.dtype.itemsize % LINE == 0


def where_lines_begin(large: Sequence[Value], vector: Dim, nest: Nest) -> Expr | None:
    """Where the first whole line begins in every run that the vector loop writes of large results, if they are long and not
    whole lines."""
    if any(in_whole_lines(v, vector, nest) for v in large):
        return None
    (along,), found = vector.at.terms, set[Expr | None]()
    for v in large:
        short = upper(vector.extent) * v.dtype.itemsize < LONG_RUN
        if short or not is_static(v.shape) or v.op == "concat":
            return None
        ((_, position),) = written(v, nest)
        found.add(_first_line(position, along, v.dtype.itemsize))
    return found.pop() if len(found) == 1 else None


def _first_line(position: Affine, along: Expr, itemsize: int) -> Expr | None:
    """The value of the loop variable ``along`` at which the first line of a run of elements begins, in memory that begins with
    a line; None where that cannot be said."""
    rest = position - Affine({along: 1})
    plain = all(atom.op == "var" and c > 0 for atom, c in rest.terms.items()) and rest.constant >= 0
    if position.coefficient(along) != 1 or not plain:
        return None
    count = LINE // itemsize
    return imod(index(count) - imod(rest.expr(), count), count)


def cut_at_line(loop: Loop, first: Expr, lanes: int) -> list[Loop]:
    """A vector loop from 0 on as two, the first of less than a line; ``lanes`` are a register's."""
    head = Loop(loop.var, loop.start, first, loop.body, loop.kind, lanes)
    return [head, Loop(loop.var, first, loop.stop, loop.body, loop.kind, loop.lanes)]
