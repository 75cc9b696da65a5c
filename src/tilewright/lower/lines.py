"""Runs of a large result that begin in the middle of a cache line.

Stores past the caches are for whole lines, which only aligned vectors fill. So the vector loop over such a run is cut where the
first line begins: what lies before is stored plainly, and so is the end, as the two runs that share a line may be written by
different threads.
"""

from __future__ import annotations

from tilewright.kernel.ir import Expr, Loop, imod, index
from tilewright.lower.affine import Affine

__all__ = ["LINE", "LONG_RUN", "cut_at_line", "first_line"]

LINE = 64  # bytes of a cache line
LONG_RUN = 64 * LINE  # bytes: of shorter runs the ends are too large a part


def first_line(position: Affine, along: Expr, itemsize: int) -> Expr | None:
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
