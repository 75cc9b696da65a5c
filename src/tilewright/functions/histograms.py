"""Counting: ``bincount`` and histograms in one or more dimensions.

An element's bin is found by a search among the edges, and counts are added by one ``scatter``; derivatives reach the weights.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tilewright.core import dtype as dt
from tilewright.functions.arguments import (
    TensorLike,
    as_tensor,
    broadcast_to_shape,
    cast,
    concrete,
    float_tensor,
    is_scalar,
    whole,
)
from tilewright.functions.creation import iota
from tilewright.functions.differences import diff
from tilewright.functions.elementwise import (
    add,
    bitwise_and,
    clip,
    divide,
    equal,
    greater_equal,
    less,
    less_equal,
    multiply,
    subtract,
    where,
)
from tilewright.functions.movement import flatten, reshape, unstack
from tilewright.functions.reductions import max, min, sum
from tilewright.functions.sorting import searchsorted
from tilewright.tensor import ArgumentError, DTypeError, ShapeError, Tensor, apply

__all__ = ["bincount", "histogram", "histogram2d", "histogram_bin_edges", "histogramdd"]


def bincount(
    x: TensorLike, weights: TensorLike | None = None, minlength: int = 0, length: int | None = None
) -> Tensor:
    """How often each of 0, 1, 2, ... occurs in a vector of non-negative integers, int64; the sum of ``weights`` when given.

    There are max(x) + 1 counts, at least ``minlength``; x is read for that, and for negative numbers. With ``length`` there are
    so many, and what lies outside is not counted: then nothing is read, which ``tw.jit`` and ``tw.vmap`` need.

    >>> bincount(Tensor([1, 3, 1])).tolist()
    [0, 2, 0, 1]
    """
    x = as_tensor(x, "bincount")
    if x.ndim != 1:
        raise ShapeError(f"bincount: `x` is a vector, got shape {x.shape}")
    if not (x.dtype.is_integer or x.dtype.is_bool):
        raise DTypeError(f"bincount: `x` holds integers, got {x.dtype}; convert it with `.astype`")
    minlength = whole(minlength, "bincount", "minlength", 0)
    if length is not None:
        length = whole(length, "bincount", "length", 0)
    else:
        found = concrete(x, "bincount", "length")
        if found.size and int(found.min()) < 0:
            raise ArgumentError(
                f"bincount: `x` holds {int(found.min())}; only non-negative integers are counted"
            )
        length = builtins.max(minlength, int(found.max()) + 1 if found.size else 0)
    place = cast(x, dt.int64)
    inside = bitwise_and(greater_equal(place, 0), less(place, length))
    if weights is None:
        added: Tensor = broadcast_to_shape(Tensor(1), x.shape)
    else:
        added = float_tensor(weights, "bincount", "weights")
        if added.shape != x.shape:
            raise ShapeError(f"bincount: `weights` of shape {added.shape} have not the shape {x.shape} of x")
    return _counted(where(inside, place, length), added, length)


def _counted(place: Tensor, added: Tensor, length: int) -> Tensor:
    """Sums by place; place ``length`` is for what is not counted."""
    zeros = broadcast_to_shape(Tensor(0, added.dtype), (length + 1,))
    if not place.size:
        return zeros[:length]
    return apply("scatter", zeros, added, place, axes=(0,), mode="add")[:length]


def _ends(x: Tensor, range: Any, function: str) -> tuple[Tensor, Tensor]:
    """Where equal bins begin and end: ``range``, or the smallest and largest element; half a unit around when they are one."""
    if range is not None:
        low, high = float(range[0]), float(range[1])
        if not (math.isfinite(low) and math.isfinite(high)) or low > high:
            raise ArgumentError(
                f"{function}: `range` is (low, high), finite and in this order, got {range!r}"
            )
        first, last = Tensor(low, dt.float64), Tensor(high, dt.float64)
    elif not x.size:
        first, last = Tensor(0.0, dt.float64), Tensor(1.0, dt.float64)
    else:
        first, last = cast(min(x), dt.float64), cast(max(x), dt.float64)
    same = equal(first, last)
    return where(same, subtract(first, 0.5), first), where(same, add(last, 0.5), last)


def histogram_bin_edges(
    x: TensorLike, bins: Any = 10, range: Any = None, weights: TensorLike | None = None
) -> Tensor:
    """The edges of the bins of ``histogram``: bins + 1 numbers at equal distances, or the edges that ``bins`` gives.

    A name (``"auto"``, ``"fd"``, ``"sturges"``, ... of NumPy's rules) reads x, since the number of bins depends on it.

    >>> histogram_bin_edges(Tensor([0.0, 4.0]), 2).tolist()
    [0.0, 2.0, 4.0]
    """
    x = flatten(as_tensor(x, "histogram_bin_edges"))
    if isinstance(bins, str):
        found = concrete(x, "histogram_bin_edges", "bins")
        edges = np.histogram_bin_edges(found.astype(np.float64), bins, range)
        return Tensor(edges.astype(_edge_type(x).numpy))
    if isinstance(bins, (int, np.integer)):
        bins = whole(bins, "histogram", "bins", 1)
        first, last = _ends(x, range, "histogram")
        step = divide(subtract(last, first), float(bins))
        place = iota((bins + 1,))
        line = add(first, multiply(cast(place, dt.float64), step))
        return cast(where(equal(place, bins), last, line), _edge_type(x))
    edges_given = as_tensor(bins, "histogram", "bins")
    if edges_given.ndim != 1 or edges_given.size < 2:
        raise ShapeError(
            f"histogram: `bins` is a number or a vector of 2 edges or more, got shape {edges_given.shape}"
        )
    if not isinstance(bins, Tensor):  # elements of tensors are not read
        given = edges_given.numpy()
        if not (given[1:] >= given[:-1]).all():
            raise ArgumentError("histogram: the edges in `bins` are in ascending order, without NaN")
    return edges_given


def _edge_type(x: Tensor) -> dt.DType:
    return (
        x.dtype if x.dtype.is_float and x.dtype.bits > 16 else dt.float32 if x.dtype.is_float else dt.float64
    )


def _bin(x: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    """The bin of each element, and whether it lies in one; the last bin includes its end."""
    kind = dt.promote(x.dtype, edges.dtype)
    kind = dt.int8 if kind.is_bool else kind
    x, edges = cast(x, kind), cast(edges, kind)
    last = edges[-1]
    inside = bitwise_and(greater_equal(x, edges[0]), less_equal(x, last))
    place = subtract(searchsorted(edges, x, side="right"), 1)
    return clip(place, 0, edges.size - 2), inside


def _weights(weights: TensorLike | None, count: int, function: str) -> Tensor:
    if weights is None:
        return broadcast_to_shape(Tensor(1), (count,))
    found = flatten(float_tensor(weights, function, "weights"))
    if found.size != count:
        raise ShapeError(f"{function}: {found.size} weights for {count} elements")
    return found


def histogram(
    x: TensorLike, bins: Any = 10, range: Any = None, density: bool = False, weights: TensorLike | None = None
) -> tuple[Tensor, Tensor]:
    """How many elements fall into each bin (int64; sums of ``weights`` when given), and the edges of the bins.

    ``bins``: a number of equal bins in ``range`` (all of x when None), edges in ascending order, or the name of a rule (see
    ``histogram_bin_edges``). A bin includes its lower edge, the last one both. ``density`` divides so that the integral is 1.

    >>> histogram(Tensor([1.0, 2.0, 1.0, 3.0]), bins=[1.0, 2.0, 3.0])[0].tolist()
    [2, 2]
    """
    x = flatten(as_tensor(x, "histogram"))
    edges = histogram_bin_edges(x, bins, range)
    length = edges.size - 1
    place, inside = _bin(x, edges)
    counts = _counted(where(inside, place, length), _weights(weights, x.size, "histogram"), length)
    if density:
        counts = divide(divide(cast(counts, _edge_type(x)), diff(cast(edges, _edge_type(x)))), sum(counts))
    return counts, edges


def histogramdd(
    sample: TensorLike,
    bins: Any = 10,
    range: Any = None,
    density: bool = False,
    weights: TensorLike | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """A histogram of points [count, D] over D axes (floating numbers, as NumPy's), and the edges along each of them.

    ``bins``: one number for all axes, or a number or edges for each; ``range``: (low, high) for each axis.

    >>> histogramdd(Tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 0.9]]), 2)[0].tolist()
    [[1.0, 0.0], [0.0, 2.0]]
    """
    if isinstance(sample, (tuple, list)) and sample and isinstance(sample[0], Tensor) and sample[0].ndim == 1:
        columns = [as_tensor(s, "histogramdd", "sample") for s in sample]
    else:
        points = as_tensor(sample, "histogramdd", "sample")
        points = reshape(points, (points.size, 1)) if points.ndim == 1 else points
        if points.ndim != 2:
            raise ShapeError(f"histogramdd: `sample` is [count, D], got shape {points.shape}")
        columns = list(unstack(points, 1))
    if not columns:
        raise ShapeError("histogramdd: points have at least 1 coordinate, got none")
    count, rank = columns[0].size, len(columns)
    each: Sequence[Any] = [bins] * rank if is_scalar(bins) else bins
    if len(each) != rank:
        raise ShapeError(f"histogramdd: `bins` for {len(each)} axes, `sample` has {rank}")
    ranges = [None] * rank if range is None else list(range)
    edges = [histogram_bin_edges(c, b, r) for c, b, r in zip(columns, each, ranges, strict=True)]
    flat, within = Tensor(0), Tensor(True)
    shape = tuple(e.size - 1 for e in edges)
    for column, edge in zip(columns, edges, strict=True):
        place, inside = _bin(column, edge)
        flat, within = add(multiply(flat, edge.size - 1), place), bitwise_and(within, inside)
    length = math.prod(shape)
    found = reshape(
        _counted(where(within, flat, length), _weights(weights, count, "histogramdd"), length), shape
    )
    if density:
        kind = _edge_type(columns[0])
        out = divide(cast(found, kind), sum(found))
        for a, edge in enumerate(edges):
            width = diff(cast(edge, kind))
            out = divide(out, reshape(width, tuple(width.size if a == b else 1 for b, _ in enumerate(shape))))
        return out, edges
    return cast(found, _edge_type(columns[0])) if weights is None else found, edges


def histogram2d(
    x: TensorLike,
    y: TensorLike,
    bins: Any = 10,
    range: Any = None,
    density: bool = False,
    weights: TensorLike | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """A histogram of points with coordinates x and y, and the edges along both.

    ``bins``: a number or edges for both axes, or a pair of these.
    """
    a, b = flatten(as_tensor(x, "histogram2d")), flatten(as_tensor(y, "histogram2d", "y"))
    if a.size != b.size:
        raise ShapeError(f"histogram2d: {a.size} and {b.size} coordinates")
    if not is_scalar(bins) and len(bins) not in (1, 2):
        bins = [bins, bins]
    found, edges = histogramdd([a, b], bins, range, density, weights)
    return found, edges[0], edges[1]
