"""Order: sort, argsort, the largest and the k-th elements, and places in sorted lines.

The order itself is found by NumPy on the host. What is sorted is picked in that order by a ``gather``, so it stays
differentiable: the gradient goes back to where each element came from. All of it is lazy and runs inside ``tw.jit``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tilewright.core import dtype as dt
from tilewright.functions.arguments import TensorLike, as_tensor, axis_of, cast, common_type, whole
from tilewright.functions.elementwise import greater_equal, subtract, where
from tilewright.functions.host import host_call
from tilewright.functions.indexing import take, take_along_axis
from tilewright.functions.movement import moveaxis, reshape, squeeze, stack
from tilewright.tensor import ArgumentError, DTypeError, ShapeError, Tensor

__all__ = [
    "ValuesIndices", "argpartition", "argsort", "digitize", "kthvalue", "lexsort", "msort", "partition", "searchsorted",
    "sort", "topk",
]  # fmt: skip


class ValuesIndices(NamedTuple):
    """Elements and where they stand along the axis they were taken from."""

    values: Tensor
    indices: Tensor


def argsort(x: TensorLike, axis: int | None = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The int64 indices that sort x along ``axis`` (the flattened x when None), in the shape of x.

    NaN comes last, first when descending.

    Equal elements keep their order, also when descending; ``stable=False`` allows any order, and gives this one.
    Raises ``AxisError`` for an axis that x lacks and ``DTypeError`` for complex elements, which have no order.

    >>> argsort(Tensor([3, 1, 2])).tolist()
    [1, 2, 0]
    """
    x = as_tensor(x, "argsort")
    if axis is None:
        x, axis = reshape(x, (x.size,)), 0
    at = _sortable(x, axis, "argsort")
    return host_call("argsort", (x,), dt.int64, x.shape, axis=at - x.ndim, descending=bool(descending))


def _sortable(x: Tensor, axis: int, function: str) -> int:
    if x.dtype.is_complex:
        raise DTypeError(f"{function}: {x.dtype} elements have no order")
    return axis_of(axis, x.ndim, function)


def sort(x: TensorLike, axis: int | None = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The elements of x in ascending (or descending) order along ``axis`` (of the flattened x when None).

    NaN comes last, first when descending.

    >>> sort(Tensor([3, 1, 2]), descending=True).tolist()
    [3, 2, 1]
    """
    x = as_tensor(x, "sort")
    if axis is None:
        x, axis = reshape(x, (x.size,)), 0
    at = _sortable(x, axis, "sort")
    return take_along_axis(x, argsort(x, at, descending, stable), at) if x.size else x.clone()


def searchsorted(
    x1: TensorLike, x2: TensorLike, side: str = "left", sorter: TensorLike | None = None
) -> Tensor:
    """Where each element of x2 would go into the ascending vector x1 to keep it sorted: int64, in the shape of x2.

    ``side="left"`` goes before equal elements, ``"right"`` behind them. ``sorter`` gives the indices that sort x1.
    Raises ``ShapeError`` unless x1 has rank 1.

    >>> searchsorted(Tensor([1, 3, 5]), Tensor([3, 4])).tolist()
    [1, 2]
    """
    a, b = as_tensor(x1, "searchsorted", "x1"), as_tensor(x2, "searchsorted", "x2")
    if a.ndim != 1:
        raise ShapeError(f"searchsorted: `x1` is a vector, got shape {a.shape}")
    if side not in ("left", "right"):
        raise ArgumentError(f"searchsorted: `side` is 'left' or 'right', got {side!r}")
    if sorter is not None:
        a = take(a, sorter)
    kind = common_type("searchsorted", [a, b])
    return host_call("searchsorted", (cast(a, kind), cast(b, kind)), dt.int64, b.shape, side=side)


def digitize(x: TensorLike, bins: TensorLike, right: bool = False) -> Tensor:
    """Which bin each element of x falls into (int64): i where bins[i - 1] <= x < bins[i], and < x <= when ``right``.

    ``bins`` is a vector in ascending or descending order; below all of it is 0, above is its size.

    >>> digitize(Tensor([0.5, 2.0, 9.0]), Tensor([1.0, 2.0, 3.0])).tolist()
    [0, 2, 3]
    """
    x, edges = as_tensor(x, "digitize"), as_tensor(bins, "digitize", "bins")
    if edges.ndim != 1:
        raise ShapeError(f"digitize: `bins` is a vector, got shape {edges.shape}")
    up = searchsorted(edges, x, side="left" if right else "right")
    if edges.size < 2:
        return up
    backwards = searchsorted(edges[::-1], x, side="left" if right else "right")
    return where(greater_equal(edges[-1], edges[0]), up, subtract(edges.size, backwards))


# ---- parts of the order --------------------------------------------------------------------------------------------


def msort(x: TensorLike) -> Tensor:
    """x sorted along axis 0."""
    return sort(x, 0)


def argpartition(x: TensorLike, kth: int | Sequence[int], axis: int | None = -1) -> Tensor:
    """Indices that put the element number ``kth`` of the order in its place, smaller ones before and larger ones behind."""
    _check_kth(as_tensor(x, "argpartition"), kth, axis, "argpartition")
    return argsort(x, axis)


def partition(x: TensorLike, kth: int | Sequence[int], axis: int | None = -1) -> Tensor:
    """The elements with number ``kth`` of the order in its place, smaller ones before it and larger ones behind.

    The rest has any order in NumPy; here everything is sorted.
    """
    _check_kth(as_tensor(x, "partition"), kth, axis, "partition")
    return sort(x, axis)


def _check_kth(x: Tensor, kth: int | Sequence[int], axis: int | None, function: str) -> None:
    size = x.size if axis is None else x.shape[axis_of(axis, x.ndim, function)]
    for k in kth if isinstance(kth, (tuple, list)) else [kth]:
        if not -size <= whole(k, function, "kth") < size:
            raise ArgumentError(f"{function}: `kth` {k} is out of range for an axis of size {size}")


def lexsort(keys: Sequence[TensorLike], axis: int = -1) -> Tensor:
    """Indices (int64) that sort by the last key, equal elements by the key before it, and so on; stable.

    >>> lexsort(([3, 1, 2], [0, 1, 0])).tolist()
    [2, 0, 1]
    """
    parts = list(keys) if not isinstance(keys, Tensor) else [keys[i] for i in range(len(keys))]
    if not parts:
        raise ArgumentError("lexsort: needs at least one key")
    tensors = [as_tensor(k, "lexsort", f"keys[{i}]") for i, k in enumerate(parts)]
    kind = common_type("lexsort", tensors)
    if any(t.dtype.is_complex for t in tensors):
        raise DTypeError("lexsort: complex keys have no order")
    at = axis_of(axis, tensors[0].ndim, "lexsort")
    lines = [moveaxis(cast(t, kind), at, -1) for t in tensors]
    out = host_call("lexsort", (stack(lines, -2),), dt.int64, lines[0].shape)
    return moveaxis(out, -1, at)


def topk(x: TensorLike, k: int, axis: int = -1, largest: bool = True, sorted: bool = True) -> ValuesIndices:
    """The ``k`` largest (or smallest) elements along ``axis`` in order, and their indices (int64).

    NaN counts as the largest. ``sorted=False`` allows any order, and gives this one.

    >>> topk(Tensor([1, 4, 3]), 2).values.tolist()
    [4, 3]
    """
    x = as_tensor(x, "topk")
    at = _sortable(x, axis, "topk")
    k = whole(k, "topk", "k")
    if not 0 <= k <= x.shape[at]:
        raise ArgumentError(f"topk: `k` {k} is not between 0 and {x.shape[at]}, the size of axis {at}")
    order = argsort(x, at, descending=largest)[(*(slice(None),) * at, slice(0, k))]
    return ValuesIndices(
        take_along_axis(x, order, at) if order.size else x[(*(slice(None),) * at, slice(0, k))], order
    )


def kthvalue(x: TensorLike, k: int, axis: int = -1, keepdims: bool = False) -> ValuesIndices:
    """The k-th smallest element along ``axis``, counted from 1, and its index (int64). NaN counts as the largest.

    >>> kthvalue(Tensor([5, 1, 3]), 2).values.item()
    3
    """
    x = as_tensor(x, "kthvalue")
    at = _sortable(x, axis, "kthvalue")
    k = whole(k, "kthvalue", "k")
    if not 1 <= k <= x.shape[at]:
        raise ArgumentError(f"kthvalue: `k` {k} is not between 1 and {x.shape[at]}, the size of axis {at}")
    order = argsort(x, at)[(*(slice(None),) * at, slice(k - 1, k))]
    values = take_along_axis(x, order, at)
    return (
        ValuesIndices(values, order) if keepdims else ValuesIndices(squeeze(values, at), squeeze(order, at))
    )
