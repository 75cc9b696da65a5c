"""Shapes: tuples of ``Dim``, a non-negative integer or a bounded symbolic size.

Nothing here assumes that a size is an integer; code that does asks ``static(shape)`` first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Dim", "Shape", "Size", "broadcast_shapes", "dim_equal", "is_static", "product", "static", "upper"]


@dataclass(frozen=True, slots=True)
class Size:
    """A symbolic size with inclusive bounds. Two sizes are the same size when their names are."""

    name: str
    low: int
    high: int

    def __repr__(self) -> str:
        return f"{self.name}:{self.low}..{self.high}"


Dim = int | Size
Shape = tuple[Dim, ...]


def is_static(shape: Iterable[Dim]) -> bool:
    """Whether every size is a known integer."""
    return all(isinstance(d, int) for d in shape)


def static(shape: Iterable[Dim]) -> tuple[int, ...]:
    """The shape as integers; ``ValueError`` when a size is symbolic."""
    out = []
    for dim in shape:
        if not isinstance(dim, int):
            raise ValueError(f"size {dim!r} is symbolic where a known size is needed")
        out.append(dim)
    return tuple(out)


def upper(dim: Dim) -> int:
    """The largest value a size can take."""
    return dim if isinstance(dim, int) else dim.high


def dim_equal(a: Dim, b: Dim) -> bool:
    """Whether two sizes are known to be the same."""
    return a == b


def product(shape: Iterable[Dim]) -> int:
    """Number of elements (the upper bound where sizes are symbolic)."""
    total = 1
    for dim in shape:
        total *= upper(dim)
    return total


def broadcast_shapes(shapes: Sequence[Shape]) -> Shape:
    """NumPy's broadcasting of several shapes; ``ValueError`` names the shapes that do not fit."""
    rank = max((len(s) for s in shapes), default=0)
    out: list[Dim] = []
    for axis in range(-rank, 0):
        dim: Dim = 1
        for shape in shapes:
            if len(shape) < -axis or shape[axis] == 1:
                continue
            if dim != 1 and not dim_equal(dim, shape[axis]):
                raise ValueError(
                    "shapes " + " and ".join(str(s) for s in shapes) + " do not broadcast together"
                )
            dim = shape[axis]
        out.append(dim)
    return tuple(out)
