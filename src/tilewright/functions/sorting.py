"""Order and sets: sort, argsort, searchsorted, and the distinct elements of a tensor.

The order itself is found by NumPy on the host. ``sort`` picks the elements in that order by a ``gather``, so it stays
differentiable: the gradient goes back to where each element came from. Both are lazy and run inside ``tw.jit``. The sets'
sizes depend on the elements, so sets are computed when they are asked for, and not inside ``tw.jit``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tilewright.core import dtype as dt
from tilewright.functions.arguments import TensorLike, as_tensor, axis_of, cast, common_type
from tilewright.functions.host import host_call, refuse_gradients
from tilewright.functions.indexing import take, take_along_axis
from tilewright.tensor import ArgumentError, DTypeError, ShapeError, Tensor

__all__ = [
    "UniqueAll", "UniqueCounts", "UniqueInverse", "argsort", "searchsorted", "sort", "unique_all", "unique_counts",
    "unique_inverse", "unique_values",
]  # fmt: skip


def argsort(x: TensorLike, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The int64 indices that sort x along ``axis``, in the shape of x. NaN comes last, first when descending.

    Equal elements keep their order, also when descending; ``stable=False`` allows any order, and gives this one.
    Raises ``AxisError`` for an axis that x lacks and ``DTypeError`` for complex elements, which have no order.

    >>> argsort(Tensor([3, 1, 2])).tolist()
    [1, 2, 0]
    """
    x = as_tensor(x, "argsort")
    at = _sortable(x, axis, "argsort")
    return host_call("argsort", (x,), dt.int64, x.shape, axis=at - x.ndim, descending=bool(descending))


def _sortable(x: Tensor, axis: int, function: str) -> int:
    if x.dtype.is_complex:
        raise DTypeError(f"{function}: {x.dtype} elements have no order")
    return axis_of(axis, x.ndim, function)


def sort(x: TensorLike, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The elements of x in ascending (or descending) order along ``axis``; NaN comes last, first when descending.

    >>> sort(Tensor([3, 1, 2]), descending=True).tolist()
    [3, 2, 1]
    """
    x = as_tensor(x, "sort")
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


# ---- sets ---------------------------------------------------------------------------------------------------------


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


def unique_all(x: TensorLike) -> UniqueAll:
    """The distinct elements of the flattened x in ascending order, with indices (int64) of all kinds.

    Every NaN is distinct from every other; 0.0 and -0.0 are equal. ``inverse_indices`` has the shape of x, so that
    ``values[inverse_indices]`` is x. Computes x, since the number of results depends on it.

    >>> unique_all(Tensor([2, 1, 2])).counts.tolist()
    [1, 2]
    """
    x = as_tensor(x, "unique_all")
    refuse_gradients("unique_all", x)
    array = x.numpy()
    flat = array.astype(np.float32) if x.dtype.is_float and x.dtype.bits == 16 else array
    values, first, inverse, counts = np.unique(
        flat.reshape(-1), return_index=True, return_inverse=True, return_counts=True, equal_nan=False
    )
    indices = (first, inverse.reshape(array.shape), counts)
    return UniqueAll(Tensor(values.astype(x.dtype.numpy)), *(Tensor(i.astype(np.int64)) for i in indices))


def unique_counts(x: TensorLike) -> UniqueCounts:
    """The distinct elements of x in ascending order and how often (int64) each occurs; see ``unique_all``."""
    values, _, _, counts = unique_all(x)
    return UniqueCounts(values, counts)


def unique_inverse(x: TensorLike) -> UniqueInverse:
    """The distinct elements of x and, in the shape of x, which of them each element is; see ``unique_all``."""
    values, _, inverse, _ = unique_all(x)
    return UniqueInverse(values, inverse)


def unique_values(x: TensorLike) -> Tensor:
    """The distinct elements of the flattened x in ascending order; see ``unique_all``.

    >>> unique_values(Tensor([2, 1, 2])).tolist()
    [1, 2]
    """
    return unique_all(x).values
