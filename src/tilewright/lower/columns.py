"""Reductions over rows that a row group computes on the way: the sums over a batch beside a layer norm's gradient.

Their terms are at hand while a row is worked on. So they are added to a row of partial results in scratch, one for every column,
and what the terms follow from is neither stored nor read once more. The rows are cut into blocks, which the reduction keeps; a
block's rows are taken in order, and its results are stored at its end.

    for block:  results = 0;  for row of block: statistics, elements, results += terms;  store results
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tilewright.core.shape import Shape, is_static, product
from tilewright.graph.ir import Value
from tilewright.kernel.ir import Let, Stmt, Store, cast, load, op, var
from tilewright.lower.affine import Affine, Space, mentions
from tilewright.lower.calls import Builder, take_checks
from tilewright.lower.read import COMBINE, Index, Reader, computed_in, identity

__all__ = ["Columns", "operand_index", "result_index", "rows_reduced"]

BLOCKS = 16  # of rows: with fewer, too few threads would share the rows
ROWS = 8  # in a block: with fewer, partial results are no small part of what is stored
COLUMNS = 64  # with fewer, a row has no vectors to speak of
BYTES = 1 << 16  # of partial results: they stay in the caches while rows pass


def operand_index(space: Space, loops: Index, dims: Shape, v: Value) -> Index:
    """The index at which loops over ``dims`` meet the operand of ``v``, whose elements lie in the same order."""
    shape = v.inputs[0].shape
    return loops if shape == dims else tuple(space.unravel(space.linear(loops, dims), shape))


def result_index(v: Value, at: Index) -> Index:
    """The index of the result to which the operand's element ``at`` counts."""
    return tuple(i for k, i in enumerate(at) if k not in v["axes"])


def rows_reduced(space: Space, loops: Index, dims: Shape, reduced: frozenset[int], v: Value) -> Index | None:
    """The digits of the row's number over which ``v`` reduces, where it has one result for each element of a row and blocks of
    rows enough; None where not. ``loops`` run over ``dims``, those of ``reduced`` along a row."""
    shape = v.inputs[0].shape
    if not is_static((*shape, *dims)) or product(shape) != product(dims) or v.op == "fold":
        return None
    columns = product([n for k, n in enumerate(dims) if k in reduced])
    rows = product([shape[a] for a in v["axes"]])
    blocks = product(v.shape) // max(columns, 1)
    if columns < COLUMNS or rows < ROWS or blocks < BLOCKS:
        return None
    along = {a for k in reduced for a in loops[k].terms}
    over = tuple(i for k, i in enumerate(operand_index(space, loops, dims, v)) if k in v["axes"] and i.terms)
    if any(mentions(atom, along) for i in over for atom in i.terms):
        return None
    return over


class Columns:
    """The reductions over rows of one kernel, with their partial results in scratch, as a row lies in memory."""

    def __init__(self, values: Sequence[Value], depth: int, builder: Builder, reader: Reader) -> None:
        self.values, self.depth = values, depth  # the phase that has all terms
        self.builder, self.reader = builder, reader
        self.areas: dict[Value, str] = {}

    def starts(self, place: Affine, size: int) -> list[Stmt]:
        """What every column begins with, at ``place`` of the ``size`` of a row."""
        self.areas = {v: self.builder.area(computed_in(v), size) for v in self.values}
        return [
            Store(area, place.expr(), identity(COMBINE[v.op], computed_in(v)))
            for v, area in self.areas.items()
        ]

    def adds(self, place: Affine, index: Callable[[Value], Index]) -> tuple[list[Stmt], list[Stmt]]:
        """A row's terms, and how they are added; ``index`` gives the place in a reduction's operand."""
        terms: list[Stmt] = []
        adds: list[Stmt] = []
        for number, (v, area) in enumerate(self.areas.items()):
            kind, name = computed_in(v), f"term{number}"
            term = cast(self.reader.read(v.inputs[0], index(v)), kind)
            terms += [*take_checks(self.reader), Let(name, term)]
            total = op(COMBINE[v.op], load(area, place.expr(), kind), var(name, kind))
            adds.append(Store(area, place.expr(), total))
        return terms, adds

    def ends(self, place: Affine, position: Callable[[Value], Affine]) -> list[Stmt]:
        """A block's results, each stored at its position."""
        return [
            Store(
                self.builder.buffer(v, "w"),
                position(v).expr(),
                cast(load(area, place.expr(), computed_in(v)), v.dtype),
            )
            for v, area in self.areas.items()
        ]
