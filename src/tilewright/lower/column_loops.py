"""What a group that reduces over rows is built from where vectors run along its columns: every lane has results of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tilewright.graph.ir import Value
from tilewright.kernel.ir import Expr, Stmt
from tilewright.lower.calls import Builder
from tilewright.lower.groups import Group
from tilewright.lower.nest import Dim, Nest
from tilewright.lower.read import Reader, reduction_terms
from tilewright.lower.row_values import is_row_value
from tilewright.recipes.machine import Machine

__all__ = ["ROW_BYTES", "ColumnLoops"]

ROW_BYTES = 1 << 14  # of columns' results kept in scratch: they stay in the first-level cache


@dataclass(frozen=True, slots=True)
class ColumnLoops:
    """For every item of ``outer``, reductions over ``rows`` of each of ``columns``."""

    group: Group
    nest: Nest
    outer: Sequence[Dim]
    rows: Dim
    columns: Dim
    builder: Builder
    reader: Reader
    machine: Machine
    register: int  # lanes of one
    cost: int  # of an element
    asks: Callable[[int], list[Stmt]]  # for what is read some rows later, of rows of so many columns
    store: Callable[[list[Value]], list[Stmt]]  # results, for one column

    def term(self, v: Value) -> Expr:
        """What an element adds to a reduction."""
        return reduction_terms(self.reader, v, self.nest.outer(), self.nest.inner(), None)

    def ends_in_columns(self) -> bool:
        """Whether all that is stored has one element for each column."""
        return all(is_row_value(self.group, v) for v in self.group.outputs)
