"""Shapes: tuples of ``Extent``, a non-negative integer or a symbolic size.

Nothing here assumes that a size is an integer; code that does asks ``static(shape)`` first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tilewright.core.size import Size, SymbolicSizeError

__all__ = [
    "Extent", "Shape", "Size", "broadcast_shapes", "dim_equal", "is_static", "lower_bound", "product", "static", "total", "upper",
]  # fmt: skip

Extent = int | Size
Shape = tuple[Extent, ...]


def is_static(shape: Iterable[Extent]) -> bool:
    """Whether every size is a known integer."""
    return all(isinstance(d, int) for d in shape)


def static(shape: Iterable[Extent]) -> tuple[int, ...]:
    """The shape as integers; ``SymbolicSizeError`` when a size is symbolic."""
    out = []
    for dim in shape:
        if not isinstance(dim, int):
            raise SymbolicSizeError(f"size {dim!r} is symbolic where a known size is needed", True)
        out.append(dim)
    return tuple(out)


def upper(dim: Extent) -> int:
    """The largest value a size can take."""
    return dim if isinstance(dim, int) else dim.high


def lower_bound(dim: Extent) -> int:
    """The smallest value a size can take."""
    return dim if isinstance(dim, int) else dim.low


def dim_equal(a: Extent, b: Extent) -> bool:
    """Whether two sizes are known to be the same."""
    return a == b


def product(shape: Iterable[Extent]) -> int:
    """Number of elements (the upper bound where sizes are symbolic)."""
    count = 1
    for dim in shape:
        count *= upper(dim)
    return count


def total(shape: Iterable[Extent]) -> Extent:
    """Number of elements, an expression where sizes are symbolic."""
    count: Extent = 1
    for dim in shape:
        count = count * dim
    return count


def broadcast_shapes(shapes: Sequence[Shape]) -> Shape:
    """NumPy's broadcasting of several shapes; ``ValueError`` names the shapes that do not fit."""
    rank = max((len(s) for s in shapes), default=0)
    out: list[Extent] = []
    for axis in range(-rank, 0):
        dim: Extent = 1
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
