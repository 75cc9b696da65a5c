"""What the nests of special convolutions share: loops, blocks and vectors. The nests are in ``winograd.py``,
``winograd_filters.py`` and ``images.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tilewright.graph.ir import Value
from tilewright.kernel.ir import Loop, Stmt, const, index, op
from tilewright.lower.affine import Affine, Space
from tilewright.lower.calls import Builder
from tilewright.lower.read import Reader

__all__ = ["TileNest"]


class TileNest:
    """``stored``: which values have memory; ``lanes``: elements of a vector. ``start`` begins a kernel."""

    stored: Callable[[Value], bool]
    lanes: int
    builder: Builder
    space: Space
    reader: Reader

    def start(self) -> None:
        self.builder, self.space = Builder(), Space()
        self.reader = Reader(self.space, lambda v: self.builder.buffer(v, "r") if self.stored(v) else None)

    def block(self, number: Affine, size: int, total: int) -> Affine:
        """The start of a block of a range; the last one ends with it and may overlap the one before."""
        start = number * size
        if total % size == 0:
            return start
        return self.space.atom(op("minimum", start.expr(), const(total - size)), 0, total - size)

    def loop(self, name: str, count: int, body: Sequence[Stmt], kind: str = "serial") -> list[Stmt]:
        """A loop, or its body alone where the variable is the constant 0."""
        return list(body) if count == 1 else [Loop(name, index(0), index(count), tuple(body), kind)]

    def along(self, name: str, count: int, body: Sequence[Stmt]) -> Loop:
        """A vector loop."""
        return Loop(name, index(0), index(count), tuple(body), "vector", self.lanes)

    def vectors_of(self, name: str, total: int) -> Iterator[tuple[Affine, int, int]]:
        """Vectors of a range, whole ones and a last one: an element's index (loops ``nameb`` and ``name``), how many elements,
        how many vectors. A loop variable means those of the part that was asked for last."""
        lanes, rest = self.lanes, total % self.lanes
        if total >= lanes:
            number = self.space.loop(f"{name}b", total // lanes)
            yield (number * lanes + self.space.loop(name, lanes), lanes, total // lanes)
        if rest:
            yield (self.space.loop(name, rest) + (total - rest), rest, 1)
