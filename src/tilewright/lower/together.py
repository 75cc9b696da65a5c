"""Several rows that go through each phase of a row group together.

A row's result takes a chain of instructions to find: its lanes combined one after another, then perhaps a logarithm or a
quotient. The next phase of that row waits for it, and where rows are short the processor's view ends before the next row's
work. So a block of rows goes through one phase, then through the next, with the results of all in scratch; functions of
results take vectors along the rows.

    for block:  for row: maximum;  for row: exponentials, sum;  for rows at once: 1 / sum;  for row: products
"""

from __future__ import annotations

from tilewright.graph.ir import Value
from tilewright.kernel.ir import Expr, Let, Loop, Stmt, Store, index, load, op, var
from tilewright.lower.calls import Builder
from tilewright.lower.nest import Dim
from tilewright.lower.read import Reader
from tilewright.recipes.machine import Machine

__all__ = ["RowsTogether", "rows_together"]

MOST = 2  # rows for each lane of a register
LEAST = 4  # rows: fewer are not worth the scratch
BLOCKS = 2  # for each thread


def rows_together(rows: int, nbytes: int, lanes: int, machine: Machine) -> int:
    """How many rows of ``nbytes`` go together: as many as stay in the first-level cache from one phase to the next; 1 where rows
    are long, or too few to share out."""
    count = MOST * lanes
    while count * nbytes > machine.l1 * 3 // 4 or rows < count * BLOCKS * machine.threads:
        count //= 2
        if count < LEAST:
            return 1
    return count


class RowsTogether:
    """``count`` rows along ``dim``, a group's innermost outer dim, whose variable every statement for one row may use."""

    def __init__(self, count: int, dim: Dim, lanes: int, builder: Builder, reader: Reader) -> None:
        assert isinstance(dim.extent, int)
        self.count, self.dim, self.extent, self.lanes = count, dim, dim.extent, min(lanes, count)
        self.builder, self.reader = builder, reader

    def blocks(self) -> Dim:
        """What the grid runs over instead of the rows."""
        return Dim("block", -(-self.extent // self.count), False)

    def each(self, row: list[Stmt], along: bool = False) -> list[Stmt]:
        """What is done for one row, for all of a block; with ``along``, vectors run along the rows."""
        if not row:
            return row
        first = var("block") * self.count
        rows = index(self.count)
        if self.extent % self.count:
            rows = op("minimum", rows, index(self.extent) - first)
        body = (Let(self.dim.name, first + var("row")), *row)
        if along:
            return [Loop("row", index(0), rows, body, "vector", self.lanes)]
        return [Loop("row", index(0), rows, body)]

    def name(self, v: Value, value: Expr) -> Stmt:
        """Keep a row's value; whoever reads ``v`` from here on finds it."""
        area = self.builder.area(v.dtype, self.count)
        self.reader.bound[v] = lambda at: load(area, var("row"), v.dtype)
        return Store(area, var("row"), value)

    def place(self, position: Expr, size: int) -> Expr:
        """Where an element of a row lies in scratch that holds ``size`` elements of every row."""
        return position + var("row") * size
