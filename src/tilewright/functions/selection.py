"""Choosing elements: by masks, by conditions, by index tensors along an axis; NumPy's, JAX's and PyTorch's names for it.

Functions that NumPy defines as writing into an array (``put``, ``put_along_axis``, ``place``, ``putmask``) give a new tensor
here. Functions whose result has as many elements as a mask is true read the mask; with ``size=`` the result has that length
and they work in ``tw.jit`` and ``tw.vmap``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tilewright.core import dtype as dt
from tilewright.functions.arguments import (
    TensorLike,
    as_tensor,
    axis_of,
    broadcast_to_shape,
    cast,
    common_shape,
    common_type,
    concrete,
    is_scalar,
    pair,
    shape_of,
)
from tilewright.functions.creation import iota
from tilewright.functions.elementwise import (
    add,
    clip,
    divide,
    floor_divide,
    greater_equal,
    less,
    minimum,
    multiply,
    not_equal,
    remainder,
    subtract,
    where,
)
from tilewright.functions.indexing import getitem, nonzero, places_of, take, take_along_axis
from tilewright.functions.movement import broadcast_arrays, broadcast_to, flatten, reshape, stack
from tilewright.tensor import ArgumentError, DTypeError, IndexingError, ShapeError, Tensor, apply, modes

__all__ = [
    "argwhere", "choose", "compress", "extract", "flatnonzero", "gather", "index_add", "index_copy", "index_fill",
    "index_select", "masked_fill", "masked_select", "piecewise", "place", "places_of", "put", "put_along_axis", "putmask",
    "ravel_multi_index", "scatter", "scatter_add", "scatter_reduce", "select", "sliding_window_view", "unravel_index",
]  # fmt: skip


def _mask(x: TensorLike, function: str, name: str) -> Tensor:
    x = as_tensor(x, function, name)
    return x if x.dtype.is_bool else not_equal(x, 0)


# ---- masks ---------------------------------------------------------------------------------------------------------


def flatnonzero(x: TensorLike, size: int | None = None, fill_value: int = 0) -> Tensor:
    """Indices (int64) of the elements of the flattened x that are not 0; ``size`` and ``fill_value`` as for ``nonzero``.

    >>> flatnonzero(Tensor([0, 5, 0, 2])).tolist()
    [1, 3]
    """
    return nonzero(flatten(as_tensor(x, "flatnonzero")), size, fill_value)[0]


def argwhere(x: TensorLike, size: int | None = None, fill_value: int = 0) -> Tensor:
    """Indices of the elements that are not 0, one row for each: [count, axes], int64; ``size`` as for ``nonzero``.

    >>> argwhere(Tensor([[0, 1], [1, 0]])).tolist()
    [[0, 1], [1, 0]]
    """
    x = as_tensor(x, "argwhere")
    if not x.ndim:
        count = int(np.count_nonzero(concrete(x, "argwhere", "size"))) if size is None else size
        return broadcast_to_shape(Tensor(0), (count, 0))
    return stack(list(nonzero(x, size, fill_value)), -1)


def compress(
    condition: TensorLike,
    x: TensorLike,
    axis: int | None = None,
    size: int | None = None,
    fill_value: Any = 0,
) -> Tensor:
    """The slices of x along ``axis`` (elements of the flattened x when None) where the vector ``condition`` is true.

    ``condition`` may be shorter than the axis. With ``size`` so many slices, missing ones filled with ``fill_value``.

    >>> compress([True, False, True], Tensor([1, 2, 3])).tolist()
    [1, 3]
    """
    return _compressed("compress", condition, x, axis, size, fill_value)


def _compressed(
    function: str, condition: TensorLike, x: TensorLike, axis: int | None, size: int | None, fill_value: Any
) -> Tensor:
    source, mask = as_tensor(x, function), _mask(condition, function, "condition")
    if mask.ndim != 1:
        raise ShapeError(f"{function}: `condition` is a vector, got shape {mask.shape}")
    if axis is None:
        source, axis = flatten(source), 0
    at = axis_of(axis, source.ndim, function)
    length = source.shape[at]
    if mask.size > length:
        mask = _inside(mask, length, at, function)
    given = size
    if size is None:
        size = int(np.count_nonzero(concrete(mask, function, "size")))
    places = places_of(mask, size, length)
    if not length:
        return source
    out = take(source, minimum(places, length - 1), at)
    if given is None:
        return out
    missing = reshape(greater_equal(places, length), (size,) + (1,) * (source.ndim - at - 1))
    return where(
        missing, cast(as_tensor(fill_value, function, "fill_value", source.dtype), source.dtype), out
    )


def _inside(mask: Tensor, size: int, axis: int, function: str) -> Tensor:
    if bool(concrete(mask[size:], function, "size").any()):
        raise IndexingError(
            f"{function}: `condition` of size {mask.size} is true beyond axis {axis} of size {size}"
        )
    return mask[:size]


def extract(condition: TensorLike, x: TensorLike, size: int | None = None, fill_value: Any = 0) -> Tensor:
    """The elements of the flattened x where the flattened ``condition`` is true; ``size`` as for ``compress``.

    >>> extract(Tensor([[True, False], [True, True]]), Tensor([[1, 2], [3, 4]])).tolist()
    [1, 3, 4]
    """
    mask = flatten(_mask(condition, "extract", "condition"))
    return _compressed("extract", mask, flatten(as_tensor(x, "extract")), 0, size, fill_value)


def masked_select(x: TensorLike, mask: TensorLike, size: int | None = None, fill_value: Any = 0) -> Tensor:
    """The elements of x where ``mask`` is true (both broadcast together), as a vector; ``size`` as for ``compress``."""
    x, mask = broadcast_arrays(as_tensor(x, "masked_select"), as_tensor(mask, "masked_select", "mask"))
    return _compressed("masked_select", flatten(mask), flatten(x), 0, size, fill_value)


def masked_fill(x: TensorLike, mask: TensorLike, value: TensorLike) -> Tensor:
    """x with ``value`` where ``mask`` is true, in the type of x.

    >>> masked_fill(Tensor([1, 2, 3]), Tensor([True, False, True]), 0).tolist()
    [0, 2, 0]
    """
    x = as_tensor(x, "masked_fill")
    new = value if is_scalar(value) else cast(as_tensor(value, "masked_fill", "value", x.dtype), x.dtype)
    if is_scalar(value) and isinstance(value, float) and not x.dtype.is_inexact:
        raise DTypeError(f"masked_fill: the number {value!r} does not fit a tensor of {x.dtype}")
    return cast(where(mask, new, x), x.dtype)


def place(x: TensorLike, mask: TensorLike, vals: TensorLike) -> Tensor:
    """x with the elements where ``mask`` is true replaced by those of ``vals`` in turn, repeated as needed.

    >>> place(Tensor([1, 2, 3]), Tensor([True, False, True]), [8, 9]).tolist()
    [8, 2, 9]
    """
    x, chosen = as_tensor(x, "place"), _mask(mask, "place", "mask")
    if chosen.size != x.size:
        raise ShapeError(
            f"place: `mask` of shape {chosen.shape} has not as many elements as x of shape {x.shape}"
        )
    new = flatten(cast(as_tensor(vals, "place", "vals", x.dtype), x.dtype))
    if not new.size:
        raise ArgumentError("place: `vals` is empty")
    rank = _rank(flatten(chosen))
    return where(reshape(chosen, x.shape), reshape(take(new, remainder(rank, new.size), 0), x.shape), x)


def _rank(mask: Tensor) -> Tensor:
    """How many elements are true before each one."""
    return subtract(apply("cumsum", cast(mask, dt.int64), axis=0, reverse=False), cast(mask, dt.int64))


def putmask(x: TensorLike, mask: TensorLike, values: TensorLike) -> Tensor:
    """x with the elements where ``mask`` is true replaced by those at the same places of ``values``, repeated as needed."""
    x, chosen = as_tensor(x, "putmask"), _mask(mask, "putmask", "mask")
    if chosen.shape != x.shape:
        raise ShapeError(f"putmask: `mask` of shape {chosen.shape} has not the shape {x.shape} of x")
    new = flatten(cast(as_tensor(values, "putmask", "values", x.dtype), x.dtype))
    if not new.size:
        raise ArgumentError("putmask: `values` is empty")
    repeated = take(new, np.arange(x.size) % new.size, 0)
    return where(chosen, reshape(repeated, x.shape), x)


# ---- conditions ----------------------------------------------------------------------------------------------------


def select(
    condlist: Sequence[TensorLike], choicelist: Sequence[TensorLike], default: TensorLike = 0
) -> Tensor:
    """For each element the choice of the first condition that is true, ``default`` where none is.

    >>> x = Tensor([1, 5, 9])
    >>> select([x < 3, x > 6], [x, 10 * x], -1).tolist()
    [1, -1, 90]
    """
    if len(condlist) != len(choicelist) or not condlist:
        raise ArgumentError(
            f"select: needs as many choices as conditions, and one at least; got {len(choicelist)} and {len(condlist)}"
        )
    out: TensorLike = default
    for condition, choice in zip(reversed(condlist), reversed(choicelist), strict=True):
        out = where(condition, choice, out)
    return as_tensor(out, "select")


def piecewise(
    x: TensorLike,
    condlist: Sequence[TensorLike],
    funclist: Sequence[Callable[..., Any] | float],
    *args: Any,
    **kw: Any,
) -> Tensor:
    """For each element of x the function of the last condition that is true, in the type of x.

    One function more than conditions stands for all other elements, else these are 0. Functions are computed everywhere and
    chosen from: a value that is not chosen does no harm, but in a derivative an infinity may.

    >>> piecewise(Tensor([-2.0, 3.0]), [Tensor([True, False])], [0.0, lambda v: v * v]).tolist()
    [0.0, 9.0]
    """
    x = as_tensor(x, "piecewise")
    conditions = (
        [_mask(c, "piecewise", "condlist") for c in condlist]
        if not isinstance(condlist, Tensor)
        else [condlist]
    )
    functions = list(funclist)
    if len(functions) not in (len(conditions), len(conditions) + 1):
        raise ArgumentError(
            f"piecewise: {len(conditions)} conditions need {len(conditions)} functions or one more, got {len(functions)}"
        )
    default = functions.pop() if len(functions) > len(conditions) else 0
    out = broadcast_to_shape(_called(default, x, args, kw), x.shape)
    for condition, function in zip(conditions, functions, strict=True):
        out = where(condition, _called(function, x, args, kw), out)
    return out


def _called(function: Any, x: Tensor, args: Any, kw: Any) -> Tensor:
    value = function(x, *args, **kw) if callable(function) else function
    return cast(as_tensor(value, "piecewise", "funclist", x.dtype), x.dtype)


def choose(a: TensorLike, choices: Sequence[TensorLike], mode: str = "raise") -> Tensor:
    """For each element of ``a`` the element of the choice with that number, all broadcast together.

    ``mode``: numbers out of range are errors (``"raise"``), limited (``"clip"``) or taken modulo (``"wrap"``).

    >>> choose(Tensor([1, 0]), [[10, 20], [30, 40]]).tolist()
    [30, 20]
    """
    number = as_tensor(a, "choose", "a")
    tensors = [as_tensor(c, "choose", "choices") for c in choices]
    if not tensors or not (number.dtype.is_integer or number.dtype.is_bool):
        raise ArgumentError(f"choose: needs choices, and integers to choose with; got {number.dtype}")
    shape = common_shape("choose", [number.shape, *(t.shape for t in tensors)])
    kind = common_type("choose", tensors)
    table = stack([broadcast_to_shape(cast(t, kind), shape) for t in tensors])
    number = broadcast_to_shape(_limited(cast(number, dt.int64), len(tensors), mode, "choose"), shape)
    if mode == "raise" and _known(number):
        _check_range(number, len(tensors), "choose", "a", negative=False)
    return take_along_axis(table, reshape(number, (1, *shape)), 0)[0]


def _limited(index: Tensor, size: int, mode: str, function: str) -> Tensor:
    if mode == "clip":
        return clip(index, 0, size - 1)
    if mode == "wrap":
        return remainder(index, size)
    if mode != "raise":
        raise ArgumentError(f"{function}: `mode` is 'raise', 'clip' or 'wrap', got {mode!r}")
    return index


def _known(x: Tensor) -> bool:
    """Whether x can be read now: no trace runs."""
    return modes.trace is None


def _check_range(index: Tensor, size: int, function: str, name: str, negative: bool = True) -> None:
    found = index.numpy()
    bad = found[(found >= size) | (found < (-size if negative else 0))]
    if bad.size:
        raise IndexingError(f"{function}: `{name}` holds {bad[0]}, which is out of range for size {size}")


# ---- along an axis -------------------------------------------------------------------------------------------------


def index_select(x: TensorLike, axis: int, index: TensorLike) -> Tensor:
    """The slices of x along ``axis`` at the integers of the vector ``index``; PyTorch's ``take``.

    >>> index_select(Tensor([[1, 2, 3]]), 1, [2, 0]).tolist()
    [[3, 1]]
    """
    line = as_tensor(index, "index_select", "index")
    if line.ndim > 1:
        raise ShapeError(f"index_select: `index` is a vector, got shape {line.shape}")
    return take(x, reshape(line, (line.size,)), axis)


def _along(x: Tensor, axis: int, index: TensorLike, function: str) -> tuple[int, Tensor]:
    at, places = axis_of(axis, x.ndim, function), as_tensor(index, function, "index")
    if not places.dtype.is_integer or places.ndim != x.ndim:
        raise ShapeError(
            f"{function}: `index` holds integers and has rank {x.ndim}, got {places.dtype} of shape {places.shape}"
        )
    for a, (n, d) in enumerate(zip(places.shape, x.shape, strict=True)):
        if a != at and n > d:
            raise ShapeError(
                f"{function}: `index` has size {n} on axis {a}, where x of shape {x.shape} has {d}"
            )
    return at, places


def gather(x: TensorLike, axis: int, index: TensorLike) -> Tensor:
    """PyTorch's ``gather``: out[i, j] = x[index[i, j], j] for axis 0, in the shape of ``index``.

    On the other axes ``index`` may be shorter than x. ``take_along_axis`` broadcasts instead.

    >>> gather(Tensor([[1, 2], [3, 4]]), 1, Tensor([[1], [0]])).tolist()
    [[2], [3]]
    """
    x = as_tensor(x, "gather")
    at, places = _along(x, axis, index, "gather")
    part = tuple(slice(None) if a == at else slice(0, n) for a, n in enumerate(places.shape))
    return take_along_axis(getitem(x, part), places, at)


def _scattered(
    function: str, x: TensorLike, axis: int, index: TensorLike, src: TensorLike, mode: str
) -> Tensor:
    x = as_tensor(x, function)
    at, places = _along(x, axis, index, function)
    values = src if is_scalar(src) else as_tensor(src, function, "src")
    if isinstance(values, Tensor) and values.ndim:
        if values.ndim != x.ndim or any(v < n for v, n in zip(values.shape, places.shape, strict=True)):
            raise ShapeError(
                f"{function}: `src` of shape {values.shape} does not cover the `index` of shape {places.shape}"
            )
        values = getitem(values, tuple(slice(0, n) for n in places.shape))
    return put_along(x, places, values, at, mode, function)


def put_along(x: Tensor, index: Tensor, values: TensorLike, axis: int, mode: str, function: str) -> Tensor:
    """x with values set (added, ...) where ``index`` says along an axis; ``values`` broadcast to it."""
    new = broadcast_to_shape(cast(as_tensor(values, function, "values", x.dtype), x.dtype), index.shape)
    if not index.size:
        return x.clone()
    size = x.shape[axis]
    line = cast(index, dt.int64)
    if index.dtype.kind == "i":
        line = where(less(line, 0), add(line, size), line)
    places = [line if a == axis else iota(index.shape, a) for a in range(x.ndim)]
    return apply("scatter", x, new, *places, axes=tuple(range(x.ndim)), mode=mode)


def scatter(x: TensorLike, axis: int, index: TensorLike, src: TensorLike) -> Tensor:
    """PyTorch's ``scatter``: a copy of x with out[index[i, j], j] = src[i, j] for axis 0.

    Where places repeat, the last value stays. Shapes as for ``gather``; ``src`` may be one number.

    >>> scatter(Tensor([0, 0, 0]), 0, Tensor([2, 0]), Tensor([7, 8])).tolist()
    [8, 0, 7]
    """
    return _scattered("scatter", x, axis, index, src, "set")


def scatter_add(x: TensorLike, axis: int, index: TensorLike, src: TensorLike) -> Tensor:
    """A copy of x with src[i, j] added to out[index[i, j], j] for axis 0; repeated places add up.

    >>> scatter_add(Tensor([1, 1]), 0, Tensor([0, 0]), Tensor([5, 6])).tolist()
    [12, 1]
    """
    return _scattered("scatter_add", x, axis, index, src, "add")


_REDUCE = {"sum": "add", "amax": "max", "amin": "min"}


def scatter_reduce(
    x: TensorLike, axis: int, index: TensorLike, src: TensorLike, reduce: str, include_self: bool = True
) -> Tensor:
    """A copy of x combined at out[index[i, j], j] with src[i, j]: ``reduce`` is ``"sum"``, ``"amax"``, ``"amin"`` or ``"mean"``.

    Without ``include_self`` the elements of x count only where nothing is put.
    """
    x = as_tensor(x, "scatter_reduce")
    if reduce not in (*_REDUCE, "mean"):
        raise ArgumentError(f"scatter_reduce: `reduce` is 'sum', 'amax', 'amin' or 'mean', got {reduce!r}")
    mode = _REDUCE.get(reduce, "add")
    base = x
    counts = _scattered("scatter_reduce", broadcast_to_shape(Tensor(0), x.shape), axis, index, 1, "add")
    if not include_self:
        info = np.finfo if x.dtype.is_float else np.iinfo
        neutral = 0 if mode == "add" else getattr(info(x.dtype.numpy), "min" if mode == "max" else "max")
        if x.dtype.is_float and mode != "add":
            neutral = -math.inf if mode == "max" else math.inf
        base = where(
            not_equal(counts, 0), neutral if not isinstance(neutral, np.generic) else neutral.item(), x
        )
    out = _scattered("scatter_reduce", base, axis, index, src, mode)
    if reduce != "mean":
        return out
    number = add(counts, 1) if include_self else clip(counts, 1, None)
    return (
        divide(out, cast(number, x.dtype)) if x.dtype.is_inexact else floor_divide(out, cast(number, x.dtype))
    )


def _indexed(function: str, x: TensorLike, axis: int, index: TensorLike) -> tuple[Tensor, tuple[Any, ...]]:
    x = as_tensor(x, function)
    at = axis_of(axis, x.ndim, function)
    line = as_tensor(index, function, "index")
    if line.ndim > 1 or not line.dtype.is_integer:
        raise ShapeError(
            f"{function}: `index` is a vector of integers, got {line.dtype} of shape {line.shape}"
        )
    return x, (*(slice(None),) * at, reshape(line, (line.size,)))


def index_add(x: TensorLike, axis: int, index: TensorLike, source: TensorLike, alpha: float = 1) -> Tensor:
    """A copy of x with the slices of alpha * ``source`` added at ``index`` along ``axis``; repeated indices add up.

    >>> index_add(Tensor([1, 1, 1]), 0, [0, 0, 2], Tensor([1, 2, 3])).tolist()
    [4, 1, 4]
    """
    x, places = _indexed("index_add", x, axis, index)
    added: Tensor = x.at[places].add(source if alpha == 1 else multiply(source, alpha))
    return added


def index_copy(x: TensorLike, axis: int, index: TensorLike, source: TensorLike) -> Tensor:
    """A copy of x with the slices at ``index`` along ``axis`` replaced by those of ``source``."""
    x, places = _indexed("index_copy", x, axis, index)
    copied: Tensor = x.at[places].set(source)
    return copied


def index_fill(x: TensorLike, axis: int, index: TensorLike, value: TensorLike) -> Tensor:
    """A copy of x with the slices at ``index`` along ``axis`` filled with ``value``."""
    x, places = _indexed("index_fill", x, axis, index)
    filled: Tensor = x.at[places].set(value)
    return filled


def put_along_axis(x: TensorLike, indices: TensorLike, values: TensorLike, axis: int | None = -1) -> Tensor:
    """A copy of x with out[i, indices[i, j]] = values[i, j] for the last axis; the counterpart of ``take_along_axis``.

    >>> put_along_axis(Tensor([[1, 2], [3, 4]]), Tensor([[0], [1]]), 9).tolist()
    [[9, 2], [3, 9]]
    """
    x, index = as_tensor(x, "put_along_axis"), as_tensor(indices, "put_along_axis", "indices")
    if axis is None:
        return reshape(put_along_axis(flatten(x), index, values, 0), x.shape)
    at = axis_of(axis, x.ndim, "put_along_axis")
    if not index.dtype.is_integer or index.ndim != x.ndim:
        raise ShapeError(
            f"put_along_axis: `indices` are integers of rank {x.ndim}, got {index.dtype} of shape {index.shape}"
        )
    shape = tuple(index.shape[a] if a == at else d for a, d in enumerate(x.shape))
    return put_along(x, broadcast_to(index, shape), values, at, "set", "put_along_axis")


def put(x: TensorLike, ind: TensorLike, v: TensorLike, mode: str = "raise") -> Tensor:
    """A copy of x with the elements at ``ind`` of the flattened x replaced by those of ``v``, repeated as needed.

    >>> put(Tensor([[1, 2], [3, 4]]), [0, -1], 9).tolist()
    [[9, 2], [3, 9]]
    """
    x, index = as_tensor(x, "put"), flatten(as_tensor(ind, "put", "ind"))
    new = flatten(cast(as_tensor(v, "put", "v", x.dtype), x.dtype))
    index = _limited(cast(index, dt.int64), x.size, mode, "put")
    new = take(new, np.arange(index.size) % max(new.size, 1), 0)
    changed: Tensor = flatten(x).at[index].set(new)
    return reshape(changed, x.shape)


# ---- numbers of places ---------------------------------------------------------------------------------------------


def ravel_multi_index(
    multi_index: Sequence[TensorLike], dims: Any, mode: Any = "raise", order: str = "C"
) -> Tensor:
    """The places in the flattened tensor of shape ``dims`` of indices, one integer tensor for each axis.

    ``mode`` says what happens out of range: ``"raise"`` (checked where the indices can be read: not in ``tw.jit``), ``"wrap"`` or
    ``"clip"``, one for all axes or one for each.

    >>> ravel_multi_index(([0, 1], [2, 0]), (2, 3)).tolist()
    [2, 3]
    """
    shape = shape_of(dims, "ravel_multi_index", "dims")
    if len(multi_index) != len(shape):
        raise ShapeError(f"ravel_multi_index: {len(multi_index)} index tensors for {len(shape)} axes")
    how = (mode,) * len(shape) if isinstance(mode, str) else tuple(mode)
    place: Tensor = Tensor(0)
    axes = range(len(shape)) if order == "C" else range(len(shape) - 1, -1, -1)
    for a in axes:
        index = cast(as_tensor(multi_index[a], "ravel_multi_index", f"multi_index[{a}]"), dt.int64)
        index = _limited(index, shape[a], how[a], "ravel_multi_index")
        if how[a] == "raise" and _known(index):
            _check_range(index, shape[a], "ravel_multi_index", f"multi_index[{a}]", negative=False)
        place = add(multiply(place, shape[a]), index)
    return place


def unravel_index(indices: TensorLike, shape: Any, order: str = "C") -> tuple[Tensor, ...]:
    """The indices on each axis (int64) of places in the flattened tensor of a shape. Checked where they can be read.

    >>> [i.tolist() for i in unravel_index(Tensor([2, 3]), (2, 3))]
    [[0, 1], [2, 0]]
    """
    sizes = shape_of(shape, "unravel_index")
    place = as_tensor(indices, "unravel_index", "indices")
    if not place.dtype.is_integer:
        raise DTypeError(f"unravel_index: `indices` are integers, got {place.dtype}")
    place = cast(place, dt.int64)
    if _known(place):
        _check_range(place, math.prod(sizes), "unravel_index", "indices", negative=False)
    out: list[Tensor] = []
    for size in reversed(sizes) if order == "C" else sizes:
        out.append(remainder(place, size))
        place = floor_divide(place, size)
    return tuple(reversed(out)) if order == "C" else tuple(out)


# ---- windows -------------------------------------------------------------------------------------------------------


def sliding_window_view(x: TensorLike, window_shape: Any, axis: Any = None) -> Tensor:
    """Every window of a shape as new last axes: out[..., i, ..., k] = x[..., i + k, ...]. No memory is taken for it.

    >>> sliding_window_view(Tensor([1, 2, 3]), 2).tolist()
    [[1, 2], [2, 3]]
    """
    x = as_tensor(x, "sliding_window_view")
    sizes = shape_of(window_shape, "sliding_window_view", "window_shape")
    axes = (
        tuple(range(x.ndim))
        if axis is None
        else tuple(
            axis_of(a, x.ndim, "sliding_window_view")
            for a in (axis if isinstance(axis, (tuple, list)) else [axis])
        )
    )
    if len(axes) != len(sizes) or len(set(axes)) != len(axes):
        raise ShapeError(
            f"sliding_window_view: {len(sizes)} window sizes for {len(axes)} axes, each named once"
        )
    return windows(x, axes, sizes, (1,) * len(axes), "sliding_window_view")


def windows(
    x: Tensor, axes: tuple[int, ...], sizes: tuple[int, ...], steps: tuple[int, ...], function: str
) -> Tensor:
    """Windows of sizes at steps along axes, as new last axes."""
    for a, size in zip(axes, sizes, strict=True):
        if not 1 <= size <= x.shape[a]:
            raise ShapeError(f"{function}: a window of {size} does not lie in axis {a} of size {x.shape[a]}")
    return apply("window", x, axes=axes, size=sizes, stride=steps, dilation=(1,) * len(axes))


def unfold_axis(x: TensorLike, axis: int, size: int, step: int = 1) -> Tensor:
    """Windows of ``size`` elements along ``axis``, ``step`` apart, as a new last axis: PyTorch's ``Tensor.unfold``."""
    x = as_tensor(x, "unfold")
    at = axis_of(axis, x.ndim, "unfold")
    (step,) = pair(step, 1, "unfold", "step")
    if step < 1:
        raise ArgumentError(f"unfold: `step` is positive, got {step}")
    return windows(x, (at,), (int(size),), (step,), "unfold")
