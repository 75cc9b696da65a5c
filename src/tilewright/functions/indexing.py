"""Reading and writing parts of a tensor: ``x[...]``, ``x[...] = v``, ``x.at[...]``, ``take``, ``nonzero`` and relatives.

Indices follow NumPy: integers, slices with any step, ``None``, ``...``, integer arrays and boolean masks in any mixture.
Reading with slices and integers is a movement (for a tensor already in memory a view of a contiguous region, which compiles
nothing); reading with integer arrays is one ``gather``. Reading with a mask has a shape that depends on the mask's elements,
so the mask is computed first. Writing makes a new value: with slices a masked choice, with arrays one ``scatter``.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tilewright.core import dtype as dt
from tilewright.core.size import Size
from tilewright.functions.arguments import (
    TensorLike,
    as_tensor,
    axis_of,
    broadcast_to_shape,
    cast,
    common_shape,
    concrete,
)
from tilewright.functions.creation import iota
from tilewright.functions.elementwise import (
    add,
    clip,
    divide,
    floor_divide,
    greater_equal,
    less,
    less_equal,
    logical_and,
    maximum,
    minimum,
    multiply,
    negative,
    not_equal,
    pow,
    remainder,
    subtract,
    where,
)
from tilewright.functions.movement import broadcast_to, flip, moveaxis, reshape
from tilewright.runtime.buffers import Buffer
from tilewright.tensor import (
    ArgumentError,
    DTypeError,
    IndexingError,
    ShapeError,
    Tensor,
    TracedValueError,
    apply,
    from_buffer,
    modes,
)
from tilewright.tensor.composite import composite

__all__ = ["At", "getitem", "nonzero", "places_of", "setitem", "take", "take_along_axis"]

_FULL = slice(None)
_BASIC = {int, slice, type(None), type(...)}


def _items(x: Tensor, index: Any) -> list[Any]:
    """The index as a list that names every axis once: integers, slices, None and integer arrays. Masks become arrays."""
    raw = list(index) if isinstance(index, tuple) else [index]
    out: list[Any] = []
    used, ellipsis = 0, None
    for position, item in enumerate(raw):
        if item is None:
            out.append(item)
        elif item is Ellipsis:
            if ellipsis is not None:
                raise IndexingError("index: `...` may stand only once")
            ellipsis = len(out)
        elif isinstance(item, slice):
            out.append(item)
            used += 1
        else:
            # behind an ellipsis, axes are counted from the end
            axis = used if ellipsis is None else x.ndim - sum(map(_axes_taken, raw[position:]))
            parts = _array_item(item, x, max(axis, 0))
            out.extend(parts)
            used += len(parts)
    if used > x.ndim:
        raise IndexingError(f"index: {used} indices for a tensor of rank {x.ndim} and shape {x.shape}")
    at = len(out) if ellipsis is None else ellipsis
    out[at:at] = [_FULL] * (x.ndim - used)
    return out


def _axes_taken(item: Any) -> int:
    """How many axes an item of an index stands for."""
    if item is None or item is Ellipsis:
        return 0
    if isinstance(item, (list, tuple)):
        item = np.asarray(item)
    mask = isinstance(item, (Tensor, np.ndarray)) and item.dtype.kind == "b"
    return item.ndim if mask else 1


def _array_item(item: Any, x: Tensor, axis: int) -> list[Any]:
    if isinstance(item, (bool, np.bool_)):
        raise IndexingError(
            "index: a single bool is not an index; use a mask tensor, or `x[None]` for a new axis"
        )
    if not isinstance(item, (Tensor, np.ndarray, list, tuple)):
        try:
            return [operator.index(item)]
        except TypeError:
            raise IndexingError(
                f"index: {type(item).__name__} is not an index; use integers, slices, None, `...`, integer tensors or masks"
            ) from None
    if not isinstance(item, Tensor):
        item = np.asarray([np.asarray(i) for i in item]) if isinstance(item, (list, tuple)) else item
        if item.size == 0 and item.dtype.kind == "f":
            item = item.astype(np.int64)
    kind = item.dtype.kind
    if kind == "b":
        axes = x.shape[axis : axis + item.ndim]
        # a mask without elements selects nothing from axes of any size
        if item.ndim != len(axes) or any(k not in (n, 0) for k, n in zip(item.shape, axes, strict=True)):
            raise IndexingError(
                f"index: a mask of shape {item.shape} does not fit axes {axis} to {axis + item.ndim - 1} of shape {x.shape}"
            )
        return list(np.nonzero(_read_mask(item)))
    if kind not in "iu":
        raise IndexingError(
            f"index: an index tensor has integers or bools, got {item.dtype}; convert it with `.astype`"
        )
    return [item]


def _read_mask(mask: Any) -> Any:
    if isinstance(mask, Tensor) and modes.trace is not None and mask._value.buffer is None:
        raise TracedValueError(
            "index: the shape of x[mask] depends on the elements of the mask, which are not known while `tw.jit` or a"
            " transform traces the function; use `tw.where(mask, x, 0)`, or `x[tw.nonzero(mask, size=n)]` for n elements"
        )
    return np.asarray(mask)


@dataclass
class _Plan:
    """A basic index taken apart: slice with positive steps, then flip, then reshape."""

    start: list[int] = field(default_factory=list)
    stop: list[int] = field(default_factory=list)
    step: list[int] = field(default_factory=list)
    flips: list[int] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)  # axes indexed by an integer
    shape: list[int] = field(default_factory=list)  # of the result


def _basic(items: Sequence[Any], shape: tuple[int, ...]) -> _Plan:
    plan = _Plan()
    axis = 0
    for item in items:
        if item is None:
            plan.shape.append(1)
            continue
        size: Any = shape[axis]
        if isinstance(item, slice):
            if isinstance(size, Size):
                start, stop, step = _symbolic_slice(item, size)
                plan.start.append(start)
                plan.stop.append(stop)
                plan.step.append(step)
                plan.shape.append(stop if (start, step) == (0, 1) else -(-(stop - start) // step))
                axis += 1
                continue
            try:
                first, last, step = item.indices(size)
            except TypeError:
                raise IndexingError(f"index: the bounds of {item} are not integers") from None
            except ValueError:
                raise IndexingError("index: the step of a slice is not 0") from None
            count = len(range(first, last, step))
            low = 0 if not count else first if step > 0 else first + (count - 1) * step
            plan.start.append(low)
            plan.stop.append(low + (count - 1) * abs(step) + 1 if count else low)
            plan.step.append(abs(step) if count > 1 else 1)
            if step < 0 and count > 1:
                plan.flips.append(axis)
            plan.shape.append(count)
        else:
            if not -size <= item < size:
                raise IndexingError(
                    f"index: {item} is out of range for axis {axis} of size {size} (shape {shape})"
                )
            at = item if item >= 0 else size + item
            plan.start.append(at)
            plan.stop.append(at + 1)
            plan.step.append(1)
            plan.dropped.append(axis)
        axis += 1
    return plan


def _symbolic_slice(item: slice, size: Any) -> tuple[int, Any, int]:
    """Start, stop and positive step of a slice of an axis whose size is symbolic; other slices need its number."""
    start, stop, step = (default if v is None else v for v, default in zip(
        (item.start, item.stop, item.step), (0, size, 1), strict=True
    ))  # fmt: skip
    if not isinstance(start, int) or not isinstance(step, int) or start < 0 or step < 1 or start > size:
        operator.index(size)
    if stop < 0:
        stop = size + stop
    return start, size if stop >= size else stop if stop >= start else start, step


def getitem(x: Tensor, index: Any) -> Tensor:
    """``x[index]``, see the file's head. Raises ``IndexingError`` for what is out of range or not an index."""
    if index.__class__ is int or index.__class__ is slice:
        rows = _rows(x, index)
        if rows is not None:
            return rows
    elif index is None or (index.__class__ is tuple and not {*map(type, index)} - _BASIC):
        part = _part(x, (None,) if index is None else index) if _lies_in_memory(x) else None
        if part is not None:
            return part
    if isinstance(index, (Tensor, np.ndarray)) and not index.ndim and index.dtype.kind == "b":
        # a mask without axes takes all of x or nothing, along a new axis
        return getitem(reshape(x, (1, *x.shape)), slice(None, int(_read_mask(index))))
    items = _items(x, index)
    if any(isinstance(i, (Tensor, np.ndarray)) for i in items):
        return _advanced(x, items)
    if _lies_in_memory(x):
        _basic(items, x.shape)  # raises where an index is out of range
        part = _part(x, tuple(items))
        if part is not None:
            return part
    return _move(x, tuple(items))


def _lies_in_memory(x: Tensor) -> bool:
    """Whether parts of x are taken from its memory: it is computed, and nobody records what is done with it."""
    if x._value.buffer is None or modes.trace is not None or (x._requires_grad and modes.grad):
        return False
    if x._trace is not None:
        x.numpy()  # raises the error for leaked tensors
    return True


def _rows(x: Tensor, index: Any) -> Tensor | None:
    """Places side by side along the first axis of a tensor that lies in memory, or one of them: a view. None where that is not
    all there is to it."""
    value = x._value
    shape = value.type.shape
    if not shape or not _lies_in_memory(x):
        return None
    size, rest = shape[0], shape[1:]
    count = math.prod(rest)
    if index.__class__ is int:
        if not -size <= index < size:
            return None
        at = index if index >= 0 else size + index
    else:
        try:
            at, last, step = index.indices(size)
        except (TypeError, ValueError):
            return None
        if step != 1 or last <= at:
            return None
        count *= last - at
        rest = (last - at, *rest)
    if not count:
        return None
    buffer = value.buffer
    row = buffer.nbytes // size
    return from_buffer(buffer.view(at * row, count), value.type.dtype, rest)  # type: ignore[arg-type]


@composite
def _move(x: Tensor, items: tuple[Any, ...]) -> Tensor:
    plan = _basic(items, x.shape)
    out = x
    if any(plan.start) or tuple(plan.stop) != x.shape or any(s != 1 for s in plan.step):
        out = apply("slice", out, start=tuple(plan.start), stop=tuple(plan.stop), step=tuple(plan.step))
    if plan.flips:
        out = flip(out, plan.flips)
    return reshape(out, tuple(plan.shape))


def _part(x: Tensor, index: tuple[Any, ...]) -> Tensor | None:
    """Part of a tensor that lies in memory, by integers, slices, None and ``...``: a view where the part is contiguous, else a
    copy. Nothing is compiled. None where NumPy does not take the index."""
    value = x._value
    try:
        part = x.numpy()[index if ... in index else (*index, ...)]  # never a number
    except (IndexError, TypeError, ValueError):
        return None
    if x._value is not value:  # another thread has written x
        return None
    buffer: Buffer = value.buffer
    if part.flags.c_contiguous and part.size:
        offset = part.__array_interface__["data"][0] - buffer.address
        return from_buffer(buffer.view(offset, part.size), x.dtype, part.shape)
    return from_buffer(Buffer.from_numpy(part, copy=True), x.dtype, part.shape)


def _prepared(index: Any, size: int, axis: int) -> Tensor:
    """An index array as a tensor of non-negative int64 (or its own type when that cannot be negative)."""
    if isinstance(index, Tensor):
        if index.dtype.kind == "u":
            return index if index.dtype.bits < 64 else cast(index, dt.int64)
        return (
            _from_the_front(index, size)
            if _fits(size, index)
            else _prepared(cast(index, dt.int64), size, axis)
        )
    array = np.asarray(index)
    if array.size:
        low, high = int(array.min()), int(array.max())
        if low < -size or high >= size:
            bad = low if low < -size else high
            raise IndexingError(f"index: {bad} is out of range for axis {axis} of size {size}")
    return Tensor(np.where(array < 0, array + size, array).astype(np.int64))


@composite
def _from_the_front(index: Tensor, size: int) -> Tensor:
    return where(less(index, 0), add(index, size), index)


def _fits(size: int, index: Tensor) -> bool:
    return size <= np.iinfo(index.dtype.name).max


def _arranged(x: Tensor, items: list[Any]) -> tuple[Tensor, list[Tensor], tuple[int, ...], int]:
    """Apply slices and new axes; give (tensor, index tensors of one shape, their axes, where the result's index axes go)."""
    basic: list[Any] = [_FULL if i is not None and not isinstance(i, slice) else i for i in items]
    moved = x if all(i == _FULL for i in basic) else getitem(x, tuple(basic))
    arrays = [(n, i) for n, i in enumerate(items) if i is not None and not isinstance(i, slice)]
    axes = tuple(n for n, _ in arrays)  # None and slices keep one axis each, so positions are axes
    source_axis = {n: sum(1 for j in items[:n] if j is not None) for n in axes}
    indices = [
        _prepared(np.asarray(i) if isinstance(i, int) else i, x.shape[source_axis[n]], source_axis[n])
        for n, i in arrays
    ]
    if len(indices) > 1:
        try:
            shape = common_shape("index", [i.shape for i in indices])
        except ShapeError:
            shown = " and ".join(str(i.shape) for i in indices)
            raise IndexingError(f"index: index tensors of shapes {shown} do not broadcast together") from None
        kind = dt.promote(*(i.dtype for i in indices))
        indices = [broadcast_to_shape(cast(i, kind if kind.is_integer else dt.int64), shape) for i in indices]
    together = axes == tuple(range(axes[0], axes[0] + len(axes)))
    return moved, indices, axes, axes[0] if together else 0


def _advanced(x: Tensor, items: list[Any]) -> Tensor:
    moved, indices, axes, place = _arranged(x, items)
    return _gathered(axes, place, moved, *indices)


@composite
def _gathered(axes: tuple[int, ...], place: int, moved: Tensor, *indices: Tensor) -> Tensor:
    out = apply("gather", moved, *indices, axes=axes)
    rank = indices[0].ndim
    if place and rank:
        out = moveaxis(out, list(range(rank)), list(range(place, place + rank)))
    return out


# ---- writing ------------------------------------------------------------------------------------------------------

_COMBINE = {"add": add, "max": maximum, "min": minimum}


def updated(x: Tensor, index: Any, value: TensorLike, mode: str) -> Tensor:
    """x with ``value`` set (or added, ...) at ``index``, as a new tensor."""
    function = f"x.at[...].{mode}" if mode != "set" else "x[...] = value"
    value = cast(as_tensor(value, function, "value", x.dtype), x.dtype)
    if (
        isinstance(index, (Tensor, np.ndarray))
        and index.dtype.kind == "b"
        and index.shape == x.shape[: index.ndim]
    ):
        masked = _write_masked(x, as_tensor(index, function, "index"), value, mode)
        if masked is not None:
            return masked
        if not index.ndim:  # all of x or nothing, along a new axis
            count = int(np.asarray(index))
            given = _fit(value, (count, *x.shape), function)
            return updated(x, ..., reshape(given, x.shape), mode) if count else x
    items = _items(x, index)
    if any(isinstance(i, (Tensor, np.ndarray)) for i in items):
        return _write_scattered(x, items, value, mode, function)
    return _write_region(x, tuple(items), value, mode, function)


def _fit(value: Tensor, shape: tuple[int, ...], function: str) -> Tensor:
    while value.ndim > len(shape) and value.shape[0] == 1:
        value = reshape(value, value.shape[1:])
    try:
        return broadcast_to(value, shape)
    except ShapeError:
        raise ShapeError(
            f"{function}: a value of shape {value.shape} does not fit the indexed part of shape {shape}"
        ) from None


def _write_masked(x: Tensor, mask: Tensor, value: Tensor, mode: str) -> Tensor | None:
    """A value that does not depend on how many elements the mask selects is a choice by the mask."""
    rest = x.shape[mask.ndim :]
    if value.ndim > len(rest) + 1 or (value.ndim == len(rest) + 1 and value.shape[0] != 1):
        return None
    value = _fit(value, rest, "x[mask] = value")
    new = broadcast_to(value, x.shape)
    mask = broadcast_to(reshape(mask, mask.shape + (1,) * len(rest)), x.shape)
    return where(mask, new if mode == "set" else _COMBINE[mode](x, new), x)


@composite
def _write_region(x: Tensor, items: tuple[Any, ...], value: Tensor, mode: str, function: str) -> Tensor:
    """Slices and integers: the value laid out over x's shape, chosen where a padded mask of ones says so."""
    plan = _basic(items, x.shape)
    value = _fit(value, tuple(plan.shape), function)
    counts = tuple(-(-(b - a) // s) for a, b, s in zip(plan.start, plan.stop, plan.step, strict=True))
    value = reshape(value, counts)
    if plan.flips:
        value = flip(value, plan.flips)
    if counts == x.shape:
        return value if mode == "set" else _COMBINE[mode](x, value)
    if 0 in counts:
        return x
    low = tuple(plan.start)
    interior = tuple(s - 1 for s in plan.step)
    high = tuple(
        d - a - (c - 1) * s - 1 for d, a, c, s in zip(x.shape, plan.start, counts, plan.step, strict=True)
    )
    laid = apply("pad", value, Tensor(0, x.dtype), low=low, high=high, interior=interior)
    if mode == "add" and not x.dtype.is_bool:
        return add(x, laid)
    ones = broadcast_to(Tensor(True), counts)
    mask = apply("pad", ones, Tensor(False), low=low, high=high, interior=interior)
    return where(mask, laid if mode == "set" else _COMBINE[mode](x, laid), x)


def _write_scattered(x: Tensor, items: list[Any], value: Tensor, mode: str, function: str) -> Tensor:
    simple = all(not isinstance(i, slice) or i == _FULL for i in items) and not any(i is None for i in items)
    if simple:
        _, indices, axes, place = _arranged(x, items)
        index_shape, rest = indices[0].shape, tuple(d for a, d in enumerate(x.shape) if a not in axes)
        rank = len(index_shape)
        value = _fit(value, (*rest[:place], *index_shape, *rest[place:]), function)
        if place and rank:
            value = moveaxis(value, list(range(place, place + rank)), list(range(rank)))
        return apply("scatter", x, value, *indices, axes=axes, mode=mode)
    # slices beside arrays: look the places up in a table of positions, and write into the flattened tensor
    places = getitem(reshape(iota((x.size,)), x.shape), tuple(items))
    value = _fit(value, places.shape, function)
    flat = apply("scatter", reshape(x, (x.size,)), value, places, axes=(0,), mode=mode)
    return reshape(flat, x.shape)


def setitem(x: Tensor, index: Any, value: TensorLike) -> None:
    """``x[index] = value`` on the handle: other tensors that shared its elements keep the old ones."""
    new = updated(x, index, value, "set")
    x._rebind(new, "x[...] = value")


class At:
    """``x.at[index]``: functional writing. ``.set(v)``, ``.add(v)``, ``.max(v)``, ``.min(v)``, ... give a new tensor."""

    __slots__ = ("_index", "_tensor")

    def __init__(self, tensor: Tensor, index: Any = ...) -> None:
        self._tensor = tensor
        self._index = index

    def __getitem__(self, index: Any) -> At:
        return At(self._tensor, index)

    def get(self) -> Tensor:
        """The indexed part."""
        return getitem(self._tensor, self._index)

    def set(self, value: TensorLike) -> Tensor:
        """A tensor with the part replaced; where an index repeats, the last value stays."""
        return updated(self._tensor, self._index, value, "set")

    def add(self, value: TensorLike) -> Tensor:
        """A tensor with ``value`` added to the part; repeated indices add up."""
        return updated(self._tensor, self._index, value, "add")

    def subtract(self, value: TensorLike) -> Tensor:
        """A tensor with ``value`` subtracted from the part; repeated indices add up."""
        return updated(self._tensor, self._index, negative(as_tensor(value, "x.at[...].subtract")), "add")

    def multiply(self, value: TensorLike) -> Tensor:
        """A tensor with the part multiplied by ``value``; where an index repeats, one of the products stays."""
        return self.apply(lambda part: multiply(part, value))

    def divide(self, value: TensorLike) -> Tensor:
        """A tensor with the part divided by ``value``; where an index repeats, one of the quotients stays."""
        return self.apply(lambda part: divide(part, value))

    def power(self, value: TensorLike) -> Tensor:
        """A tensor with the part to the power ``value``; where an index repeats, one of the powers stays."""
        return self.apply(lambda part: pow(part, value))

    def apply(self, function: Callable[[Tensor], TensorLike]) -> Tensor:
        """A tensor with the part replaced by what ``function`` gives for it, in the tensor's type."""
        x, index = self._tensor, self._index
        if (
            isinstance(index, Tensor)
            and index.dtype.is_bool
            and index.ndim
            and index.shape == x.shape[: index.ndim]
        ):
            mask = broadcast_to(reshape(index, index.shape + (1,) * (x.ndim - index.ndim)), x.shape)
            return where(mask, cast(as_tensor(function(x), "x.at[...].apply"), x.dtype), x)
        return self.set(function(self.get()))

    def max(self, value: TensorLike) -> Tensor:
        """A tensor with the larger of the part and ``value``."""
        return updated(self._tensor, self._index, value, "max")

    def min(self, value: TensorLike) -> Tensor:
        """A tensor with the smaller of the part and ``value``."""
        return updated(self._tensor, self._index, value, "min")


# ---- functions ----------------------------------------------------------------------------------------------------


def take(x: TensorLike, indices: TensorLike, axis: int | None = None, mode: str = "raise") -> Tensor:
    """Elements of x along ``axis`` (of the flattened x when None) at integer ``indices`` of any shape.

    ``mode``: indices out of range are errors (``"raise"``), limited (``"clip"``, where negative ones are 0) or taken modulo
    the size (``"wrap"``).
    """
    x = as_tensor(x, "take")
    if axis is None:
        x, axis = reshape(x, (x.size,)), 0
    at = axis_of(axis, x.ndim, "take")
    index = indices if isinstance(indices, (Tensor, np.ndarray)) else np.asarray(indices)
    if not index.size and not isinstance(index, Tensor):
        index = index.astype(np.int64)  # an empty list has no type of its own
    if index.dtype.kind not in "iu":
        raise DTypeError(f"take: `indices` are integers, got {index.dtype}")
    if mode not in ("raise", "clip", "wrap"):
        raise ArgumentError(f"take: `mode` is 'raise', 'clip' or 'wrap', got {mode!r}")
    if mode != "raise":
        wide, size = cast(as_tensor(index, "take"), dt.int64), x.shape[at]
        index = clip(wide, 0, size - 1) if mode == "clip" else remainder(wide, size)
    return getitem(x, (*(_FULL,) * at, index))


def take_along_axis(x: TensorLike, indices: TensorLike, axis: int = -1) -> Tensor:
    """Elements picked along ``axis`` separately for every position of the other axes: out[i, j] = x[i, indices[i, j]]."""
    x, index = as_tensor(x, "take_along_axis"), as_tensor(indices, "take_along_axis", "indices")
    at = axis_of(axis, x.ndim, "take_along_axis")
    if not index.dtype.is_integer or index.ndim != x.ndim:
        raise ShapeError(
            f"take_along_axis: `indices` are integers of rank {x.ndim}, got {index.dtype} of shape {index.shape}"
        )
    shape = common_shape("take_along_axis", [_without(index.shape, at), _without(x.shape, at)])
    full = (*shape[:at], index.shape[at], *shape[at:])
    index = broadcast_to_shape(cast(_prepared(index, x.shape[at], at), dt.int64), full)
    source = broadcast_to_shape(x, (*shape[:at], x.shape[at], *shape[at:]))
    places = [index if a == at else iota(full, a) for a in range(x.ndim)]
    return apply("gather", source, *places, axes=tuple(range(x.ndim)))


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def nonzero(x: TensorLike, size: int | None = None, fill_value: int = 0) -> tuple[Tensor, ...]:
    """Indices of the elements that are not 0, one int64 tensor per axis.

    Their number depends on x, so x is computed. With ``size`` the results have that length: indices that are too many are left
    out, missing ones are ``fill_value``; nothing is read then, which ``tw.jit`` and ``tw.vmap`` need.

    >>> [i.tolist() for i in nonzero(Tensor([[0, 1], [1, 0]]))]
    [[0, 1], [1, 0]]
    """
    x = as_tensor(x, "nonzero")
    if not x.ndim:
        raise ShapeError("nonzero: a tensor of rank 0 has no axes to index")
    if size is None:
        return tuple(Tensor(i.astype(np.int64)) for i in np.nonzero(concrete(x, "nonzero", "size")))
    mask = reshape(x if x.dtype.is_bool else not_equal(x, 0), (x.size,))
    places = places_of(mask, size, x.size)
    missing, out = greater_equal(places, x.size), []
    for d in reversed(x.shape):
        out.append(where(missing, fill_value, remainder(places, max(d, 1))))
        places = floor_divide(places, max(d, 1))
    return tuple(reversed(out))


def places_of(mask: Tensor, size: int, end: int) -> Tensor:
    """Where a mask of rank 1 is true, int64[size]: the first ``size`` places, ``end`` for those that are missing."""
    if not isinstance(size, (int, np.integer)) or isinstance(size, bool) or size < 0:
        raise ArgumentError(f"`size` is a non-negative integer, got {size!r}")
    n = mask.shape[0]
    if not n or not size:
        return broadcast_to(Tensor(end), (size,))
    rank = apply("cumsum", cast(mask, dt.int64), axis=0, reverse=False)  # from 1 on
    slot = where(logical_and(mask, less_equal(rank, size)), subtract(rank, 1), size)
    out = apply("scatter", broadcast_to(Tensor(end), (size + 1,)), iota((n,)), slot, axes=(0,), mode="set")
    return out[:size]
