"""Joining, splitting and editing along an axis: NumPy's stacks and splits, ``rot90``, ``delete``, ``insert``, ``resize``.

All are compositions of the movements in ``movement.py`` and of reading at indices that are known while tracing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from tilewright.core import dtype as dt
from tilewright.core.integers import plain
from tilewright.functions.arguments import (
    TensorLike,
    as_tensor,
    axis_of,
    broadcast_to_shape,
    cast,
    common_shape,
    shape_of,
    tensors_of,
    whole,
)
from tilewright.functions.elementwise import not_equal
from tilewright.functions.indexing import take
from tilewright.functions.movement import (
    broadcast_to,
    concat,
    expand_dims,
    flatten,
    flip,
    moveaxis,
    permute_dims,
    reshape,
    swapaxes,
)
from tilewright.tensor import ArgumentError, AxisError, IndexingError, ShapeError, Tensor

__all__ = [
    "append", "array_split", "atleast_1d", "atleast_2d", "atleast_3d", "block", "broadcast_shapes", "chunk",
    "column_stack", "copy", "delete", "dsplit", "dstack", "expand", "fliplr", "flipud", "hsplit", "hstack", "insert",
    "narrow", "ravel", "resize", "rollaxis", "rot90", "transpose", "trim_zeros", "unbind", "vsplit", "vstack",
]  # fmt: skip


# ---- axes ----------------------------------------------------------------------------------------------------------


def _at_least(x: TensorLike, rank: int, function: str) -> Tensor:
    found = as_tensor(x, function)
    if found.ndim >= rank:
        return found
    if rank == 3 and found.ndim:  # NumPy puts a vector on the middle axis and a matrix on the first two
        return reshape(found, (1, found.size, 1) if found.ndim == 1 else (*found.shape, 1))
    return _at_front(found, rank)


def _each(arrays: tuple[TensorLike, ...], rank: int, function: str) -> Any:
    found = tuple(_at_least(a, rank, function) for a in arrays)
    return found[0] if len(found) == 1 else found


def atleast_1d(*arrays: TensorLike) -> Any:
    """Each tensor with at least 1 axis; a tuple when several are given.

    >>> atleast_1d(3).shape
    (1,)
    """
    return _each(arrays, 1, "atleast_1d")


def atleast_2d(*arrays: TensorLike) -> Any:
    """Each tensor with at least 2 axes, new ones in front."""
    return _each(arrays, 2, "atleast_2d")


def atleast_3d(*arrays: TensorLike) -> Any:
    """Each tensor with at least 3 axes: a vector [n] becomes [1, n, 1], a matrix [m, n] becomes [m, n, 1]."""
    return _each(arrays, 3, "atleast_3d")


def transpose(x: TensorLike, axes: Sequence[int] | None = None) -> Tensor:
    """Axes reversed, or in the order ``axes``.

    >>> transpose(Tensor([[1, 2, 3]])).shape
    (3, 1)
    """
    x = as_tensor(x, "transpose")
    return permute_dims(x, tuple(range(x.ndim))[::-1] if axes is None else axes)


def rollaxis(x: TensorLike, axis: int, start: int = 0) -> Tensor:
    """Axis ``axis`` moved in front of axis ``start``; ``moveaxis`` says the same more clearly."""
    x = as_tensor(x, "rollaxis")
    at, start = axis_of(axis, x.ndim, "rollaxis"), whole(start, "rollaxis", "start")
    if not -x.ndim <= start <= x.ndim:
        raise AxisError(f"rollaxis: `start` {start} is out of range for a tensor of rank {x.ndim}")
    to = start + x.ndim if start < 0 else start
    return moveaxis(x, at, to - 1 if at < to else to)


def ravel(x: TensorLike) -> Tensor:
    """All elements in one axis, in row-major order."""
    x = as_tensor(x, "ravel")
    return reshape(x, (x.size,))


def rot90(x: TensorLike, k: int = 1, axes: Sequence[int] = (0, 1)) -> Tensor:
    """x turned ``k`` times by 90 degrees in the plane of two axes, from the first towards the second.

    >>> rot90(Tensor([[1, 2], [3, 4]])).tolist()
    [[2, 4], [1, 3]]
    """
    x = as_tensor(x, "rot90")
    if len(axes) != 2:
        raise ArgumentError(f"rot90: `axes` names two axes, got {tuple(axes)}")
    a, b = (axis_of(axis, x.ndim, "rot90", "axes") for axis in axes)
    if a == b:
        raise AxisError(f"rot90: `axes` {tuple(axes)} names an axis twice")
    turns = whole(k, "rot90", "k") % 4
    if turns == 0:
        return flip(x, ())
    if turns == 2:
        return flip(x, (a, b))
    return swapaxes(flip(x, b), a, b) if turns == 1 else flip(swapaxes(x, a, b), b)


def fliplr(x: TensorLike) -> Tensor:
    """Axis 1 reversed."""
    x = as_tensor(x, "fliplr")
    if x.ndim < 2:
        raise ShapeError(f"fliplr: needs at least 2 axes, got shape {x.shape}")
    return flip(x, 1)


def flipud(x: TensorLike) -> Tensor:
    """Axis 0 reversed."""
    return flip(as_tensor(x, "flipud"), 0)


def expand(x: TensorLike, *sizes: Any) -> Tensor:
    """x repeated along axes of size 1 and new leading axes to the sizes; -1 keeps an axis. PyTorch's ``broadcast_to``.

    >>> expand(Tensor([[1], [2]]), 3, -1, 2).shape
    (3, 2, 2)
    """
    x = as_tensor(x, "expand")
    wanted = list(sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes)
    lead = len(wanted) - x.ndim
    if lead < 0:
        raise ShapeError(f"expand: {len(wanted)} sizes for a tensor of rank {x.ndim} and shape {x.shape}")
    for i, d in enumerate(wanted):
        if d == -1:
            if i < lead:
                raise ShapeError(f"expand: -1 keeps the size of an axis, and new axis {i} has none")
            wanted[i] = x.shape[i - lead]
    return broadcast_to(x, tuple(wanted))


def broadcast_shapes(*shapes: Any) -> tuple[int, ...]:
    """The shape that several shapes broadcast to.

    >>> broadcast_shapes((3, 1), (2,))
    (3, 2)
    """
    return common_shape("broadcast_shapes", [shape_of(s, "broadcast_shapes", "shapes") for s in shapes])


def copy(x: TensorLike) -> Tensor:
    """A tensor with the elements of x; writing to one in place leaves the other."""
    return as_tensor(x, "copy").clone()


# ---- joining -------------------------------------------------------------------------------------------------------


def hstack(tup: Sequence[TensorLike], dtype: Any = None) -> Tensor:
    """Tensors joined along axis 1, vectors along axis 0.

    >>> hstack(([1, 2], [3])).tolist()
    [1, 2, 3]
    """
    parts = [_at_least(t, 1, "hstack") for t in tensors_of(tup, "hstack", "tup")]
    return _typed(concat(parts, 0 if parts[0].ndim == 1 else 1), dtype)


def vstack(tup: Sequence[TensorLike], dtype: Any = None) -> Tensor:
    """Tensors joined along axis 0; vectors are rows.

    >>> vstack(([1, 2], [3, 4])).tolist()
    [[1, 2], [3, 4]]
    """
    return _typed(concat([_at_least(t, 2, "vstack") for t in tensors_of(tup, "vstack", "tup")], 0), dtype)


def dstack(tup: Sequence[TensorLike], dtype: Any = None) -> Tensor:
    """Tensors joined along axis 2, after ``atleast_3d``."""
    return _typed(concat([_at_least(t, 3, "dstack") for t in tensors_of(tup, "dstack", "tup")], 2), dtype)


def column_stack(tup: Sequence[TensorLike]) -> Tensor:
    """Vectors as the columns of a matrix; matrices are joined along axis 1.

    >>> column_stack(([1, 2], [3, 4])).tolist()
    [[1, 3], [2, 4]]
    """
    parts = tensors_of(tup, "column_stack", "tup")
    return concat([reshape(t, (t.size, 1)) if t.ndim < 2 else t for t in parts], 1)


def _typed(x: Tensor, dtype: Any) -> Tensor:
    return x if dtype is None else cast(x, dt.from_numpy(dtype))


def block(arrays: Any) -> Tensor:
    """A tensor put together from nested lists of blocks: the innermost lists are joined along the last axis, those around
    them along the axis before, and so on.

    >>> block([Tensor([1, 2]), Tensor([3])]).tolist()
    [1, 2, 3]
    """
    depth, level = 0, arrays
    while isinstance(level, list):
        if not level:
            raise ArgumentError("block: a list of blocks is not empty")
        depth, level = depth + 1, level[0]
    rank = max(depth, _highest(arrays))

    def joined(item: Any, axis: int) -> Tensor:
        if not isinstance(item, list):
            return _at_front(as_tensor(item, "block", "arrays"), rank)
        return concat([joined(i, axis + 1) for i in item], axis)

    return joined(arrays, rank - depth)


def _highest(item: Any) -> int:
    if isinstance(item, list):
        return max((_highest(i) for i in item), default=0)
    return as_tensor(item, "block", "arrays").ndim


def _at_front(x: Tensor, rank: int) -> Tensor:
    return reshape(x, (1,) * (rank - x.ndim) + x.shape)


def append(arr: TensorLike, values: TensorLike, axis: int | None = None) -> Tensor:
    """``values`` joined to the end of ``arr`` along ``axis``; both flattened when None.

    >>> append([1, 2], 3).tolist()
    [1, 2, 3]
    """
    return concat([as_tensor(arr, "append", "arr"), as_tensor(values, "append", "values")], axis)


# ---- splitting -----------------------------------------------------------------------------------------------------


def array_split(x: TensorLike, indices_or_sections: Any, axis: int = 0) -> tuple[Tensor, ...]:
    """x cut along ``axis`` into so many parts of about equal size (the first ones larger), or at the indices given.

    >>> [p.tolist() for p in array_split(Tensor([1, 2, 3, 4, 5]), 2)]
    [[1, 2, 3], [4, 5]]
    """
    x = as_tensor(x, "array_split")
    at = axis_of(axis, x.ndim, "array_split")
    size = x.shape[at]
    if not isinstance(indices_or_sections, (Sequence, np.ndarray, Tensor)) or isinstance(
        indices_or_sections, str
    ):
        count = whole(indices_or_sections, "array_split", "indices_or_sections", 1)
        each, extra = divmod(size, count)
        cuts = [i * each + min(i, extra) for i in range(1, count)]
    else:
        cuts = [whole(i, "array_split", "indices_or_sections") for i in indices_or_sections]
    lead = (slice(None),) * at
    bounds = [None, *cuts, None]
    return tuple(x[(*lead, slice(a, b))] for a, b in pairwise(bounds))


def _equal_parts(x: TensorLike, indices_or_sections: Any, axis: int, function: str) -> tuple[Tensor, ...]:
    x = as_tensor(x, function)
    if x.ndim <= axis:
        raise ShapeError(f"{function}: needs more than {axis} axes, got shape {x.shape}")
    if isinstance(plain(indices_or_sections), int) and (
        indices_or_sections < 1 or x.shape[axis] % indices_or_sections
    ):
        raise ShapeError(
            f"{function}: axis {axis} of size {x.shape[axis]} does not divide into {indices_or_sections} equal parts;"
            " `array_split` gives parts of different sizes"
        )
    return array_split(x, indices_or_sections, axis)


def hsplit(x: TensorLike, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """x cut along axis 1 (a vector along axis 0) into equal parts or at indices."""
    return _equal_parts(x, indices_or_sections, 0 if as_tensor(x, "hsplit").ndim == 1 else 1, "hsplit")


def vsplit(x: TensorLike, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """x, of at least 2 axes, cut along axis 0 into equal parts or at indices."""
    x = as_tensor(x, "vsplit")
    if x.ndim < 2:
        raise ShapeError(f"vsplit: needs at least 2 axes, got shape {x.shape}")
    return _equal_parts(x, indices_or_sections, 0, "vsplit")


def dsplit(x: TensorLike, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """x, of at least 3 axes, cut along axis 2 into equal parts or at indices."""
    return _equal_parts(x, indices_or_sections, 2, "dsplit")


def chunk(x: TensorLike, chunks: int, axis: int = 0) -> tuple[Tensor, ...]:
    """At most ``chunks`` parts of one size along ``axis``, the last one smaller; PyTorch's counterpart of ``array_split``.

    >>> [p.tolist() for p in chunk(Tensor([1, 2, 3, 4, 5]), 2)]
    [[1, 2, 3], [4, 5]]
    """
    x = as_tensor(x, "chunk")
    at = axis_of(axis, x.ndim, "chunk")
    chunks = whole(chunks, "chunk", "chunks", 1)
    size = max(1, math.ceil(x.shape[at] / chunks))
    lead = (slice(None),) * at
    return tuple(x[(*lead, slice(i, i + size))] for i in range(0, max(x.shape[at], 1), size))


def unbind(x: TensorLike, axis: int = 0) -> tuple[Tensor, ...]:
    """The sub-tensors along ``axis``, which disappears: PyTorch's name of ``unstack``."""
    x = as_tensor(x, "unbind")
    lead = (slice(None),) * axis_of(axis, x.ndim, "unbind")
    return tuple(x[(*lead, i)] for i in range(x.shape[len(lead)]))


def narrow(x: TensorLike, axis: int, start: int, length: int) -> Tensor:
    """``length`` elements along ``axis`` from ``start`` on."""
    source = as_tensor(x, "narrow")
    at = axis_of(axis, source.ndim, "narrow")
    start, length = whole(start, "narrow", "start"), whole(length, "narrow", "length")
    first = start + source.shape[at] if start < 0 else start
    if first < 0 or length < 0 or first + length > source.shape[at]:
        raise IndexingError(
            f"narrow: {length} elements from {start} do not lie in axis {at} of size {source.shape[at]}"
        )
    return source[(*(slice(None),) * at, slice(first, first + length))]


# ---- editing -------------------------------------------------------------------------------------------------------


def _flat(x: Tensor, axis: int | None, function: str) -> tuple[Tensor, int]:
    return (flatten(x), 0) if axis is None else (x, axis_of(axis, x.ndim, function))


def _places(obj: Any, size: int, function: str, end: int) -> np.ndarray[Any, Any]:
    """Non-negative places along an axis from an integer, a slice, a mask or a sequence; ``end`` is the first invalid one."""
    if isinstance(obj, slice):
        return np.arange(size)[obj]
    found = np.asarray(obj)
    if found.dtype == np.bool_:
        if found.shape != (size,):
            raise IndexingError(f"{function}: a mask has shape ({size},), got {found.shape}")
        return np.flatnonzero(found)
    if found.size == 0:
        return np.zeros(0, np.int64)
    if found.dtype.kind not in "iu":
        raise IndexingError(f"{function}: `obj` holds integers, got {found.dtype}")
    for i in found.reshape(-1):
        if not -size <= i < end:
            raise IndexingError(f"{function}: {i} is out of range for an axis of size {size}")
    return np.where(found < 0, found + size, found)


def delete(arr: TensorLike, obj: Any, axis: int | None = None) -> Tensor:
    """``arr`` without the places ``obj`` (an integer, slice, mask or integers) along ``axis``; flattened when None.

    >>> delete(Tensor([1, 2, 3]), 1).tolist()
    [1, 3]
    """
    x, at = _flat(as_tensor(arr, "delete", "arr"), axis, "delete")
    size = x.shape[at]
    gone = _places(obj, size, "delete", size)
    return take(x, np.delete(np.arange(size), gone), at)


def insert(arr: TensorLike, obj: Any, values: TensorLike, axis: int | None = None) -> Tensor:
    """``values`` put in front of the places ``obj`` along ``axis`` (of the flattened tensor when None), in arr's type.

    >>> insert(Tensor([1, 2, 3]), 1, 9).tolist()
    [1, 9, 2, 3]
    """
    x, at = _flat(as_tensor(arr, "insert", "arr"), axis, "insert")
    size = x.shape[at]
    places = _places(obj, size, "insert", size + 1)
    new = cast(as_tensor(values, "insert", "values", x.dtype), x.dtype)
    if not places.ndim or places.size == 1:  # one place takes as many slices as there are values
        place = int(places.reshape(-1)[0])
        if not places.ndim and new.ndim:
            rank = x.ndim
            new = moveaxis(_at_front(new, rank), 0, at) if new.ndim <= rank else new
        elif new.ndim < x.ndim:
            new = _at_front(new, x.ndim)
        count = new.shape[at] if new.ndim == x.ndim else 1
        places = np.full(count, place)
    shape = (*x.shape[:at], len(places), *x.shape[at + 1 :])
    try:
        new = broadcast_to(new, shape)
    except ShapeError:
        raise ShapeError(
            f"insert: values of shape {new.shape} do not fit the places of shape {shape}"
        ) from None
    # number the old elements and the new ones behind them; insert the numbers, and pick
    order = np.insert(np.arange(size), places, size + np.arange(len(places)))
    return take(concat([x, new], at), order, at)


def resize(x: TensorLike, new_shape: Any) -> Tensor:
    """The elements of x under another shape, repeated or cut off as needed.

    >>> resize(Tensor([1, 2, 3]), (2, 2)).tolist()
    [[1, 2], [3, 1]]
    """
    x = as_tensor(x, "resize")
    shape = shape_of(new_shape, "resize", "new_shape")
    size = math.prod(shape)
    if not x.size or not size:
        return broadcast_to_shape(Tensor(0, x.dtype), shape)
    times = -(-size // x.size)
    wide = reshape(broadcast_to(expand_dims(flatten(x), 0), (times, x.size)), (times * x.size,))
    return reshape(wide[:size], shape)


def trim_zeros(filt: TensorLike, trim: str = "fb") -> Tensor:
    """A vector without its zeros in front (``"f"`` in ``trim``) and at the back (``"b"``). Reads the elements.

    >>> trim_zeros(Tensor([0, 1, 0, 2, 0])).tolist()
    [1, 0, 2]
    """
    x = as_tensor(filt, "trim_zeros", "filt")
    if x.ndim != 1:
        raise ShapeError(f"trim_zeros: `filt` is a vector, got shape {x.shape}")
    if not isinstance(trim, str) or not set(trim.lower()) <= {"f", "b"}:
        raise ArgumentError(f"trim_zeros: `trim` consists of 'f' and 'b', got {trim!r}")
    kept = np.flatnonzero(not_equal(x, 0).numpy())
    first, last = (int(kept[0]), int(kept[-1]) + 1) if len(kept) else (x.size, 0)
    if not len(kept):
        return x[:0]
    return x[first if "f" in trim.lower() else 0 : last if "b" in trim.lower() else x.size]
