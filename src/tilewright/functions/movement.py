"""Functions that rearrange elements without arithmetic: reshape, transpose, broadcast, join, split, repeat.

They become index rewrites: most cost nothing, because the operation that reads their result reads the original instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tilewright.core import dtype as dt
from tilewright.core.integers import plain
from tilewright.functions.arguments import (
    Axes,
    TensorLike,
    as_tensor,
    axes_of,
    axis_of,
    broadcast_to_shape,
    cast,
    common_shape,
    concrete,
    extent,
    pair,
    shape_of,
    tensors_of,
)
from tilewright.functions.elementwise import minimum, subtract
from tilewright.tensor import ArgumentError, AxisError, DTypeError, ShapeError, Tensor, apply
from tilewright.tensor.composite import composite

__all__ = [
    "broadcast_arrays", "broadcast_to", "concat", "expand_dims", "flatten", "flip", "matrix_transpose", "moveaxis",
    "permute_dims", "repeat", "reshape", "roll", "split", "squeeze", "stack", "swapaxes", "tile", "unflatten", "unstack",
]  # fmt: skip


@composite
def reshape(x: TensorLike, *shape: Any) -> Tensor:
    """The same elements in row-major order under another shape; one size may be -1.

    >>> reshape(Tensor([1, 2, 3, 4]), (2, -1)).shape
    (2, 2)
    """
    x = as_tensor(x, "reshape")
    wanted = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    try:
        sizes = [extent(d) for d in wanted]
    except TypeError:
        raise DTypeError(
            f"reshape: `shape` is an integer or a sequence of integers, got {wanted!r}"
        ) from None
    if sizes.count(-1) == 1:
        known = math.prod(d for d in sizes if d != -1)
        if known <= 0 or x.size % known:
            raise ShapeError(
                f"reshape: {x.size} elements of shape {x.shape} do not divide into shape {tuple(sizes)}"
            )
        sizes[sizes.index(-1)] = x.size // known
    if any(d < 0 for d in sizes):
        raise ShapeError(f"reshape: shape {tuple(wanted)} has a negative size; only one may be -1")
    if math.prod(sizes) != x.size:
        raise ShapeError(
            f"reshape: a tensor of shape {x.shape} has {x.size} elements, shape {tuple(sizes)} has {math.prod(sizes)}"
        )
    return x.clone() if tuple(sizes) == x.shape else apply("reshape", x, shape=tuple(sizes))


@composite
def flatten(x: TensorLike, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Axes ``start_dim`` to ``end_dim`` (inclusive) joined into one.

    >>> flatten(Tensor([[[1], [2]]]), 1).shape
    (1, 2)
    """
    x = as_tensor(x, "flatten")
    if x.ndim == 0:
        return reshape(x, (1,))
    first, last = (
        axis_of(start_dim, x.ndim, "flatten", "start_dim"),
        axis_of(end_dim, x.ndim, "flatten", "end_dim"),
    )
    if first > last:
        raise AxisError(f"flatten: `start_dim` {start_dim} comes after `end_dim` {end_dim}")
    return reshape(x, (*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :]))


def unflatten(x: TensorLike, axis: int, sizes: Sequence[int]) -> Tensor:
    """Axis ``axis`` split into several of the given sizes (one may be -1)."""
    x = as_tensor(x, "unflatten")
    at = axis_of(axis, x.ndim, "unflatten")
    sizes = list(sizes)
    if sizes.count(-1) == 1:
        known = math.prod(d for d in sizes if d != -1)
        if known > 0 and x.shape[at] % known == 0:
            sizes[sizes.index(-1)] = x.shape[at] // known
    if math.prod(sizes) != x.shape[at]:
        raise ShapeError(f"unflatten: axis {axis} of shape {x.shape} does not divide into {tuple(sizes)}")
    return reshape(x, (*x.shape[:at], *sizes, *x.shape[at + 1 :]))


@composite
def permute_dims(x: TensorLike, *axes: Any) -> Tensor:
    """Axes in another order: axis i of the result is axis ``axes[i]`` of x.

    >>> permute_dims(Tensor([[1, 2, 3]]), (1, 0)).shape
    (3, 1)
    """
    x = as_tensor(x, "permute_dims")
    order = axes[0] if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes
    found = tuple(axis_of(a, x.ndim, "permute_dims", "axes") for a in order)
    if sorted(found) != list(range(x.ndim)):
        raise AxisError(
            f"permute_dims: `axes` {tuple(order)} is not an order of the {x.ndim} axes of shape {x.shape}"
        )
    return x.clone() if found == tuple(range(x.ndim)) else apply("permute", x, axes=found)


@composite
def swapaxes(x: TensorLike, axis1: int, axis2: int) -> Tensor:
    """Two axes exchanged."""
    x = as_tensor(x, "swapaxes")
    order = list(range(x.ndim))
    a, b = axis_of(axis1, x.ndim, "swapaxes", "axis1"), axis_of(axis2, x.ndim, "swapaxes", "axis2")
    order[a], order[b] = order[b], order[a]
    return permute_dims(x, order)


@composite
def matrix_transpose(x: TensorLike) -> Tensor:
    """The last two axes exchanged."""
    x = as_tensor(x, "matrix_transpose")
    if x.ndim < 2:
        raise ShapeError(f"matrix_transpose: needs at least 2 axes, got shape {x.shape}")
    return swapaxes(x, -1, -2)


@composite
def moveaxis(x: TensorLike, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """Axes moved from ``source`` to ``destination``; the others keep their order."""
    x = as_tensor(x, "moveaxis")
    sources = [axis_of(a, x.ndim, "moveaxis", "source") for a in _as_list(source)]
    targets = [axis_of(a, x.ndim, "moveaxis", "destination") for a in _as_list(destination)]
    if len(sources) != len(targets) or len(set(sources)) != len(sources) or len(set(targets)) != len(targets):
        raise AxisError("moveaxis: `source` and `destination` name as many axes, each once")
    order = [a for a in range(x.ndim) if a not in sources]
    for target, origin in sorted(zip(targets, sources, strict=True)):
        order.insert(target, origin)
    return permute_dims(x, order)


def _as_list(x: int | Sequence[int]) -> list[int]:
    return list(x) if isinstance(x, (tuple, list)) else [x]  # type: ignore[list-item]


@composite
def broadcast_to(x: TensorLike, shape: Any) -> Tensor:
    """x repeated along new leading axes and along axes of size 1 to fill ``shape``."""
    x = as_tensor(x, "broadcast_to")
    wanted = shape_of(shape, "broadcast_to")
    if len(wanted) < x.ndim or common_shape("broadcast_to", [x.shape, wanted]) != wanted:
        raise ShapeError(f"broadcast_to: a tensor of shape {x.shape} does not broadcast to {wanted}")
    return x.clone() if x.shape == wanted else apply("broadcast", x, shape=wanted)


def broadcast_arrays(*arrays: TensorLike) -> list[Tensor]:
    """All tensors repeated to their common shape."""
    tensors = [as_tensor(a, "broadcast_arrays") for a in arrays]
    shape = common_shape("broadcast_arrays", [t.shape for t in tensors])
    return [broadcast_to_shape(t, shape) for t in tensors]


@composite
def expand_dims(x: TensorLike, axis: int | Sequence[int] = 0) -> Tensor:
    """New axes of size 1 at the positions ``axis`` of the result."""
    x = as_tensor(x, "expand_dims")
    positions = _as_list(axis)
    rank = x.ndim + len(positions)
    found = {axis_of(a, rank, "expand_dims") for a in positions}
    if len(found) != len(positions):
        raise AxisError(f"expand_dims: `axis` {tuple(positions)} names an axis twice")
    sizes = iter(x.shape)
    return reshape(x, tuple(1 if i in found else next(sizes) for i in range(rank)))


@composite
def squeeze(x: TensorLike, axis: Axes = None) -> Tensor:
    """Without axes of size 1: all of them, or those named. Raises ``ShapeError`` when a named one is not of size 1."""
    x = as_tensor(x, "squeeze")
    if axis is None:
        return reshape(x, tuple(d for d in x.shape if d != 1))
    axes = axes_of(axis, x.ndim, "squeeze")
    for a in axes:
        if x.shape[a] != 1:
            raise ShapeError(f"squeeze: axis {a} of shape {x.shape} has size {x.shape[a]}, not 1")
    return reshape(x, tuple(d for i, d in enumerate(x.shape) if i not in axes))


def concat(arrays: Sequence[TensorLike], axis: int | None = 0) -> Tensor:
    """Tensors joined along an existing axis; None joins them flattened.

    >>> concat([Tensor([1, 2]), Tensor([3])]).tolist()
    [1, 2, 3]
    """
    return _concat(axis, *tensors_of(arrays, "concat", "arrays"))


@composite
def _concat(axis: int | None, *tensors: Tensor) -> Tensor:
    if axis is None:
        tensors, axis = tuple(reshape(t, (t.size,)) for t in tensors), 0
    dtype = dt.promote(*(t.dtype for t in tensors))
    first = tensors[0]
    if first.ndim == 0:
        raise ShapeError("concat: tensors of rank 0 have no axis to join along; use `stack`")
    at = axis_of(axis, first.ndim, "concat")
    for i, t in enumerate(tensors):
        if t.ndim != first.ndim or any(
            a != b for j, (a, b) in enumerate(zip(t.shape, first.shape, strict=False)) if j != at
        ):
            raise ShapeError(
                f"concat: `arrays[{i}]` of shape {t.shape} does not fit `arrays[0]` of shape {first.shape};"
                f" all sizes except axis {at} must be equal"
            )
    return (
        cast(first, dtype)
        if len(tensors) == 1
        else apply("concat", *(cast(t, dtype) for t in tensors), axis=at)
    )


def stack(arrays: Sequence[TensorLike], axis: int = 0) -> Tensor:
    """Tensors of one shape joined along a new axis."""
    return _stack(axis, *tensors_of(arrays, "stack", "arrays"))


@composite
def _stack(axis: int, *tensors: Tensor) -> Tensor:
    for i, t in enumerate(tensors):
        if t.shape != tensors[0].shape:
            raise ShapeError(
                f"stack: `arrays[{i}]` has shape {t.shape}, `arrays[0]` has shape {tensors[0].shape}"
            )
    at = axis_of(axis, tensors[0].ndim + 1, "stack")
    return concat([expand_dims(t, at) for t in tensors], at)


def unstack(x: TensorLike, axis: int = 0) -> tuple[Tensor, ...]:
    """The sub-tensors along ``axis``, which disappears."""
    x = as_tensor(x, "unstack")
    at = axis_of(axis, x.ndim, "unstack")
    lead = (slice(None),) * at
    return tuple(x[(*lead, i)] for i in range(x.shape[at]))


def split(x: TensorLike, size: int | Sequence[int], axis: int = 0) -> tuple[Tensor, ...]:
    """Consecutive pieces along ``axis``: each of ``size`` (the last may be smaller), or of the sizes given."""
    x = as_tensor(x, "split")
    at = axis_of(axis, x.ndim, "split")
    length = x.shape[at]
    if isinstance(size, (tuple, list)):
        sizes = [int(s) for s in size]
        if sum(sizes) != length:
            raise ShapeError(
                f"split: sizes {tuple(sizes)} do not add up to {length}, the size of axis {axis}"
            )
    else:
        size = plain(size)
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ArgumentError(f"split: `size` is a positive integer or a sequence of sizes, got {size!r}")
        sizes = [min(size, length - i) for i in range(0, length, size)]
    lead, pieces, start = (slice(None),) * at, [], 0
    for s in sizes:
        pieces.append(x[(*lead, slice(start, start + s))])
        start += s
    return tuple(pieces)


@composite
def flip(x: TensorLike, axis: Axes = None) -> Tensor:
    """Elements in reverse order along the given axes (all by default)."""
    x = as_tensor(x, "flip")
    axes = axes_of(axis, x.ndim, "flip")
    return apply("flip", x, axes=axes) if axes else x.clone()


@composite
def roll(x: TensorLike, shift: int | Sequence[int], axis: Axes = None) -> Tensor:
    """Elements moved on by ``shift`` along axes; those that leave at the end come in at the start."""
    x = out = as_tensor(x, "roll")
    if axis is None:
        if not isinstance(plain(shift), int):
            raise ArgumentError("roll: several shifts need as many axes in `axis`")
        return reshape(roll(reshape(x, (x.size,)), shift, 0), x.shape)
    axes = [axis_of(a, x.ndim, "roll") for a in _as_list(axis)]
    shifts = pair(shift, len(axes), "roll", "shift")
    for a, s in zip(axes, shifts, strict=True):
        size = x.shape[a]
        if size and s % size:
            cut = size - s % size
            lead = (slice(None),) * a
            out = concat([out[(*lead, slice(cut, None))], out[(*lead, slice(None, cut))]], a)
    return out


def tile(x: TensorLike, repetitions: int | Sequence[int]) -> Tensor:
    """x laid side by side ``repetitions[i]`` times along axis i."""
    x = as_tensor(x, "tile")
    times = shape_of(repetitions, "tile", "repetitions")
    rank = max(x.ndim, len(times))
    shape = (1,) * (rank - x.ndim) + x.shape
    times = (1,) * (rank - len(times)) + times
    apart = reshape(x, tuple(d for s in shape for d in (1, s)))
    wide = broadcast_to(apart, tuple(d for t, s in zip(times, shape, strict=True) for d in (t, s)))
    return reshape(wide, tuple(t * s for t, s in zip(times, shape, strict=True)))


def repeat(
    x: TensorLike,
    repeats: int | Sequence[int] | Tensor,
    axis: int | None = None,
    total_repeat_length: int | None = None,
) -> Tensor:
    """Each element repeated ``repeats`` times along ``axis`` (in the flattened tensor by default).

    The size of the result depends on the elements of ``repeats``, so these are read. With ``total_repeat_length`` it is that:
    what is too much is left out and the last element fills what is missing; nothing is read, which ``tw.jit`` needs.

    >>> repeat(Tensor([1, 2, 3]), [2, 0, 1]).tolist()
    [1, 1, 3]
    """
    source = as_tensor(x, "repeat")
    if axis is None:
        source, axis = reshape(source, (source.size,)), 0
    x = source
    at = axis_of(axis, x.ndim, "repeat")
    repeats = plain(repeats)
    if isinstance(repeats, int):
        if repeats < 0:
            raise ArgumentError(f"repeat: `repeats` is not negative, got {repeats}")
        wide = broadcast_to(expand_dims(x, at + 1), (*x.shape[: at + 1], repeats, *x.shape[at + 1 :]))
        return reshape(wide, (*x.shape[:at], x.shape[at] * repeats, *x.shape[at + 1 :]))
    if total_repeat_length is not None:
        return _repeated_to(source, repeats, at, total_repeat_length)
    counts = (
        concrete(repeats, "repeat", "total_repeat_length")
        if isinstance(repeats, Tensor)
        else np.asarray(repeats)
    )
    # the result's shape depends on these numbers, so a tensor was read here
    if (
        counts.ndim != 1
        or len(counts) not in (1, x.shape[at])
        or counts.dtype.kind not in "iu"
        or (counts < 0).any()
    ):
        raise ArgumentError(
            f"repeat: `repeats` is one count or {x.shape[at]} of them, got shape {counts.shape}"
        )
    where = np.repeat(np.arange(x.shape[at]), counts)
    return source[(*(slice(None),) * at, where)]


def _repeated_to(x: Tensor, repeats: Any, axis: int, length: int) -> Tensor:
    size = x.shape[axis]
    counts = broadcast_to_shape(cast(as_tensor(repeats, "repeat", "repeats"), dt.int64), (size,))
    if not size or not length:
        return x[(*(slice(None),) * axis, slice(0, 0))]
    starts = subtract(apply("cumsum", counts, axis=0, reverse=False), counts)
    ones = broadcast_to_shape(Tensor(1), (size,))
    zeros = broadcast_to_shape(Tensor(0), (length + 1,))
    # how many elements begin up to a place, less 1, is the number of the one that stands there
    begun = apply("scatter", zeros, ones, minimum(starts, length), axes=(0,), mode="add")
    place = subtract(apply("cumsum", begun, axis=0, reverse=False)[:length], 1)
    return x[(*(slice(None),) * axis, place)]
