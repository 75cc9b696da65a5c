"""Sets: the distinct elements of a tensor, and unions, intersections and differences of two.

Elements are sorted (by NumPy on the host), and everything else is native: an element is new when it differs from the one
before it. How many there are depends on the elements, so they are computed when a function is called; with ``size=`` the
result has that length (elements that are too many are left out, missing ones are ``fill_value``), and the function works in
``tw.jit``, ``tw.vmap`` and gives gradients.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tilewright.core import dtype as dt
from tilewright.functions.arguments import (
    TensorLike,
    as_tensor,
    axis_of,
    broadcast_to_shape,
    cast,
    concrete,
)
from tilewright.functions.creation import iota
from tilewright.functions.elementwise import (
    bitwise_and,
    equal,
    greater_equal,
    isnan,
    less,
    logical_not,
    minimum,
    not_equal,
    subtract,
    where,
)
from tilewright.functions.host import host_call
from tilewright.functions.indexing import take
from tilewright.functions.movement import concat, flatten, moveaxis, reshape
from tilewright.functions.reductions import any as any_of
from tilewright.functions.reductions import cumulative_sum
from tilewright.functions.reductions import sum as total
from tilewright.functions.selection import places_of
from tilewright.functions.sorting import argsort, searchsorted
from tilewright.tensor import DTypeError, ShapeError, Tensor, apply

__all__ = [
    "UniqueAll", "UniqueCounts", "UniqueInverse", "in1d", "intersect1d", "isin", "setdiff1d", "setxor1d", "union1d", "unique",
    "unique_all", "unique_consecutive", "unique_counts", "unique_inverse", "unique_values",
]  # fmt: skip


class UniqueAll(NamedTuple):
    """Distinct elements, where each occurs first, which of them each element of x is, and how often they occur."""

    values: Tensor
    indices: Tensor
    inverse_indices: Tensor
    counts: Tensor


class UniqueCounts(NamedTuple):
    """Distinct elements and how often they occur."""

    values: Tensor
    counts: Tensor


class UniqueInverse(NamedTuple):
    """Distinct elements, and which of them each element of x is."""

    values: Tensor
    inverse_indices: Tensor


class _Distinct(NamedTuple):
    """Sorted slices [n, ...], their order, which are the first of their kind, and where the kinds begin."""

    ordered: Tensor
    order: Tensor
    starts: Tensor
    places: Tensor  # [count] of the first ones among the sorted
    kinds: Tensor  # how many kinds there are, which may be less than there are places


def _differ(x: Tensor, equal_nan: bool) -> Tensor:
    """Which slices of a sorted x [n, ...] differ from the one before; the first does."""
    later, earlier = x[1:], x[:-1]
    new = not_equal(later, earlier)
    if equal_nan and x.dtype.is_inexact:
        new = bitwise_and(new, logical_not(bitwise_and(isnan(later), isnan(earlier))))
    if new.ndim > 1:
        new = any_of(new, axis=tuple(range(1, new.ndim)))
    return concat([Tensor(np.ones(1, np.bool_)), new], 0)


def _distinct(x: Tensor, function: str, size: int | None, equal_nan: bool) -> _Distinct:
    n = x.shape[0]
    if x.ndim == 1:
        order = _order(x)
    else:
        columns = moveaxis(reshape(x, (n, x.size // n if n else 0)), 0, 1)
        if not columns.shape[0]:  # slices without elements are all equal
            order = iota((n,))
        else:
            order = host_call("lexsort", (columns[::-1],), dt.int64, (n,))
    ordered = take(x, order, 0)
    starts = _differ(ordered, equal_nan) if n else Tensor(np.zeros(0, np.bool_))
    if size is None:
        size = int(np.count_nonzero(concrete(starts, function, "size")))
    return _Distinct(ordered, order, starts, places_of(starts, size, n), total(starts))


def _order(x: Tensor) -> Tensor:
    if x.dtype.is_complex:
        return host_call("lexsort", (_parts(x),), dt.int64, x.shape)
    return argsort(x)


def _parts(x: Tensor) -> Tensor:
    """Imaginary and real parts as two keys: complex numbers are sorted by the real part first, as NumPy does."""
    return concat([reshape(apply("imag", x), (1, x.size)), reshape(apply("real", x), (1, x.size))], 0)


def unique(
    x: TensorLike,
    return_index: bool = False,
    return_inverse: bool = False,
    return_counts: bool = False,
    axis: int | None = None,
    equal_nan: bool = True,
    size: int | None = None,
    fill_value: Any = None,
) -> Any:
    """The distinct elements of x in ascending order, or the distinct slices along ``axis``.

    On request also, in this order: where each occurs first (``return_index``), which of them each element of x is
    (``return_inverse``, in the shape of x, or [n] with an axis), and how often each occurs (``return_counts``), all int64.
    NaN is one element when ``equal_nan``. With ``size`` the result has that many elements: what is missing is ``fill_value``
    (the smallest element by default) with count 0; x is then not read, which ``tw.jit`` needs.

    >>> [r.tolist() for r in unique(Tensor([2, 1, 2]), return_inverse=True, return_counts=True)]
    [[1, 2], [1, 0, 1], [1, 2]]
    """
    x = as_tensor(x, "unique")
    shape = x.shape
    lines = flatten(x) if axis is None else moveaxis(x, axis_of(axis, x.ndim, "unique"), 0)
    found = _distinct(lines, "unique", size, equal_nan)
    n, size = lines.shape[0], found.places.shape[0]
    missing = greater_equal(iota((size,)), found.kinds)
    values = take(found.ordered, minimum(found.places, max(n - 1, 0)), 0) if n else lines[:0]
    if not n and size:
        raise ShapeError("unique: a tensor without elements has no element to fill `size` with")
    if fill_value is not None and size:
        mask = reshape(missing, (size,) + (1,) * (values.ndim - 1))
        values = where(
            mask, cast(as_tensor(fill_value, "unique", "fill_value", values.dtype), values.dtype), values
        )
    elif size:
        mask = reshape(missing, (size,) + (1,) * (values.ndim - 1))
        values = where(mask, values[:1], values)
    out = [values if axis is None else moveaxis(values, 0, axis)]
    if return_index:
        out.append(
            take(found.order, where(missing, 0, minimum(found.places, max(n - 1, 0))), 0) if n else iota((0,))
        )
    if return_inverse:
        rank = subtract(cumulative_sum(found.starts), 1)
        inverse = apply("scatter", Tensor(np.zeros(n, np.int64)), minimum(rank, max(size - 1, 0)), found.order, axes=(0,),
                        mode="set") if n else iota((0,))  # fmt: skip
        out.append(reshape(inverse, shape) if axis is None else inverse)
    if return_counts:
        ends = concat([found.places[1:], Tensor(np.full(1, n, np.int64))], 0) if size else found.places
        ends = where(less(ends, n), ends, n)
        out.append(where(missing, 0, subtract(ends, found.places)))
    return out[0] if len(out) == 1 else tuple(out)


def unique_consecutive(x: TensorLike, return_inverse: bool = False, return_counts: bool = False) -> Any:
    """The elements of the flattened x that differ from the one before them; inverse and counts as ``unique`` gives them.

    >>> unique_consecutive(Tensor([1, 1, 2, 1])).tolist()
    [1, 2, 1]
    """
    x = as_tensor(x, "unique_consecutive")
    flat = flatten(x)
    starts = _differ(flat, False) if flat.size else Tensor(np.zeros(0, np.bool_))
    size = int(np.count_nonzero(concrete(starts, "unique_consecutive", "size")))
    places = places_of(starts, size, flat.size)
    out = [take(flat, places, 0)]
    if return_inverse:
        out.append(reshape(subtract(cumulative_sum(starts), 1), x.shape))
    if return_counts:
        out.append(
            subtract(concat([places[1:], Tensor(np.full(min(size, 1), flat.size, np.int64))], 0), places)
        )
    return out[0] if len(out) == 1 else tuple(out)


def unique_all(x: TensorLike) -> UniqueAll:
    """The distinct elements of the flattened x in ascending order, with indices (int64) of all kinds.

    Every NaN is distinct from every other; 0.0 and -0.0 are equal. ``inverse_indices`` has the shape of x, so that
    ``values[inverse_indices]`` is x. Computes x, since the number of results depends on it.

    >>> unique_all(Tensor([2, 1, 2])).counts.tolist()
    [1, 2]
    """
    return UniqueAll(*unique(x, True, True, True, equal_nan=False))


def unique_counts(x: TensorLike) -> UniqueCounts:
    """The distinct elements of x in ascending order and how often (int64) each occurs; see ``unique_all``."""
    return UniqueCounts(*unique(x, return_counts=True, equal_nan=False))


def unique_inverse(x: TensorLike) -> UniqueInverse:
    """The distinct elements of x and, in the shape of x, which of them each element is; see ``unique_all``."""
    return UniqueInverse(*unique(x, return_inverse=True, equal_nan=False))


def unique_values(x: TensorLike) -> Tensor:
    """The distinct elements of the flattened x in ascending order; see ``unique_all``.

    >>> unique_values(Tensor([2, 1, 2])).tolist()
    [1, 2]
    """
    found: Tensor = unique(x, equal_nan=False)
    return found


# ---- two sets ------------------------------------------------------------------------------------------------------


def _two(function: str, a: TensorLike, b: TensorLike) -> tuple[Tensor, Tensor]:
    x, y = flatten(as_tensor(a, function, "ar1")), flatten(as_tensor(b, function, "ar2"))
    kind = dt.promote(x.dtype, y.dtype)
    return cast(x, kind), cast(y, kind)


def isin(
    element: TensorLike, test_elements: TensorLike, assume_unique: bool = False, invert: bool = False
) -> Tensor:
    """Whether each element occurs in ``test_elements`` (does not, when ``invert``), in the shape of ``element``.

    ``assume_unique`` is accepted and changes nothing.

    >>> isin(Tensor([1, 2, 3]), Tensor([3, 1])).tolist()
    [True, False, True]
    """
    x = as_tensor(element, "isin", "element")
    a, b = _two("isin", x, test_elements)
    if a.dtype.is_complex:
        raise DTypeError("isin: complex elements have no order; compare real and imaginary parts")
    if not b.size:
        hit = broadcast_to_shape(Tensor(False), a.shape)
    else:
        if a.dtype.is_bool:
            a, b = cast(a, dt.int8), cast(b, dt.int8)
        line = take(b, argsort(b), 0)
        hit = equal(take(line, minimum(searchsorted(line, a), b.size - 1), 0), a)
    return reshape(logical_not(hit) if invert else hit, x.shape)


def in1d(ar1: TensorLike, ar2: TensorLike, assume_unique: bool = False, invert: bool = False) -> Tensor:
    """``isin`` of the flattened ``ar1``."""
    return flatten(isin(ar1, ar2, assume_unique, invert))


def union1d(ar1: TensorLike, ar2: TensorLike, size: int | None = None, fill_value: Any = None) -> Tensor:
    """The distinct elements of both, in ascending order; ``size`` and ``fill_value`` as for ``unique``.

    >>> union1d(Tensor([3, 1]), Tensor([2, 1])).tolist()
    [1, 2, 3]
    """
    found: Tensor = unique(concat(list(_two("union1d", ar1, ar2)), 0), size=size, fill_value=fill_value)
    return found


def _chosen(
    values: Tensor, keep: Tensor, function: str, size: int | None, fill_value: Any
) -> tuple[Tensor, Tensor]:
    """The elements that are kept, and their places; the places end with the size of ``values`` when there are too few."""
    if size is None:
        size = int(np.count_nonzero(concrete(keep, function, "size")))
    n = values.shape[0]
    places = places_of(keep, size, n)
    if not n:
        return values[:0], places
    out = take(values, minimum(places, n - 1), 0)
    missing = greater_equal(iota((size,)), total(keep))
    fill = 0 if fill_value is None else fill_value
    return where(missing, cast(as_tensor(fill, function, "fill_value", out.dtype), out.dtype), out), places


def intersect1d(
    ar1: TensorLike,
    ar2: TensorLike,
    assume_unique: bool = False,
    return_indices: bool = False,
    size: int | None = None,
    fill_value: Any = None,
) -> Any:
    """The distinct elements that occur in both, in ascending order; on request where they occur first in each.

    With ``size`` what is missing is ``fill_value`` (0).

    >>> intersect1d(Tensor([1, 2, 3]), Tensor([3, 1, 1])).tolist()
    [1, 3]
    """
    a, b = _two("intersect1d", ar1, ar2)
    values, first, both = _within("intersect1d", a, b, size, False)
    out, places = _chosen(values, both, "intersect1d", size, fill_value)
    if not return_indices:
        return out
    order = argsort(b)
    second = (
        take(order, minimum(searchsorted(take(b, order, 0), out), b.size - 1), 0) if b.size else first[:0]
    )
    return out, take(first, minimum(places, values.size - 1), 0) if values.size else first[:0], second


def _within(
    function: str, a: Tensor, b: Tensor, size: int | None, invert: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The distinct elements of a, where they occur first, and whether they (do not) occur in b."""
    if size is None:
        concrete(a, function, "size")
        values, first = unique(a, return_index=True)
        return values, first, isin(values, b, invert=invert)
    values, first, counts = unique(a, return_index=True, return_counts=True, size=a.size)
    return values, first, bitwise_and(isin(values, b, invert=invert), not_equal(counts, 0))


def setdiff1d(
    ar1: TensorLike,
    ar2: TensorLike,
    assume_unique: bool = False,
    size: int | None = None,
    fill_value: Any = None,
) -> Tensor:
    """The distinct elements of ``ar1`` that do not occur in ``ar2``, in ascending order.

    >>> setdiff1d(Tensor([3, 1, 2]), Tensor([1])).tolist()
    [2, 3]
    """
    a, b = _two("setdiff1d", ar1, ar2)
    values, _, rest = _within("setdiff1d", a, b, size, True)
    return _chosen(values, rest, "setdiff1d", size, fill_value)[0]


def setxor1d(
    ar1: TensorLike,
    ar2: TensorLike,
    assume_unique: bool = False,
    size: int | None = None,
    fill_value: Any = None,
) -> Tensor:
    """The distinct elements that occur in exactly one of the two, in ascending order. A NaN equals no other, so each has its own.

    >>> setxor1d(Tensor([1, 2]), Tensor([2, 3])).tolist()
    [1, 3]
    """
    a, b = _two("setxor1d", ar1, ar2)
    first, _, only_first = _within("setxor1d", a, b, size, True)
    second, _, only_second = _within("setxor1d", b, a, size, True)
    values, once = concat([first, second], 0), concat([only_first, only_second], 0)
    order = argsort(values)
    return _chosen(take(values, order, 0), take(once, order, 0), "setxor1d", size, fill_value)[0]
