"""Tensors made from indices: logarithmic ranges, diagonals, triangles and the index tensors that NumPy makes for them.

Constants of the graph where possible: they take no memory until they are read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tilewright.core import dtype as dt
from tilewright.functions.arguments import (
    TensorLike,
    as_tensor,
    axis_of,
    broadcast_to_shape,
    cast,
    dtype_of,
    shape_of,
    whole,
)
from tilewright.functions.creation import arange, asarray, eye, from_numpy, iota, linspace, meshgrid
from tilewright.functions.differences import cumulative_prod
from tilewright.functions.elementwise import add, equal, exp, less_equal, multiply, pow, where
from tilewright.functions.indexing import nonzero
from tilewright.functions.movement import concat, expand_dims, flip, moveaxis, reshape, stack
from tilewright.tensor import ArgumentError, ShapeError, Tensor, apply

__all__ = [
    "diag",
    "diag_embed",
    "diag_indices",
    "diag_indices_from",
    "diagflat",
    "fill_diagonal",
    "frombuffer",
    "fromfunction",
    "fromiter",
    "geomspace",
    "identity",
    "indices",
    "ix_",
    "logspace",
    "mgrid",
    "ogrid",
    "tri",
    "tril_indices",
    "tril_indices_from",
    "triu_indices",
    "triu_indices_from",
    "vander",
]  # fmt: skip


# ---- ranges --------------------------------------------------------------------------------------------------------


def logspace(
    start: float, stop: float, num: int = 50, endpoint: bool = True, base: float = 10.0, dtype: Any = None
) -> Tensor:
    """``num`` numbers from base**start to base**stop whose logarithms have equal distances.

    >>> logspace(0, 2, 3).tolist()
    [1.0, 10.0, 100.0]
    """
    kind = dt.float32 if dtype is None else dtype_of(dtype, "logspace")
    return cast(pow(float(base), linspace(start, stop, num, endpoint, dtype=dt.float64)), kind)


def geomspace(start: float, stop: float, num: int = 50, endpoint: bool = True, dtype: Any = None) -> Tensor:
    """``num`` numbers from ``start`` to ``stop``, each the same multiple of the one before. Neither is 0, both have one sign.

    >>> geomspace(1, 8, 4).tolist()
    [1.0, 2.0, 4.0, 8.0]
    """
    if not start or not stop or (start < 0) != (stop < 0):
        raise ArgumentError(
            f"geomspace: `start` and `stop` have one sign and are not 0, got {start} and {stop}"
        )
    kind = dt.float32 if dtype is None else dtype_of(dtype, "geomspace")
    exponents = linspace(math.log(abs(start)), math.log(abs(stop)), num, endpoint, dtype=dt.float64)
    out = multiply(exp(exponents), math.copysign(1.0, start))
    place = iota((num,))
    out = where(equal(place, 0), float(start), out)
    if endpoint and num > 1:
        out = where(equal(place, num - 1), float(stop), out)
    return cast(out, kind)


def identity(n: int, dtype: Any = dt.float32) -> Tensor:
    """The unit matrix [n, n]."""
    return eye(n, dtype=dtype)


def tri(n: int, m: int | None = None, k: int = 0, dtype: Any = dt.float32) -> Tensor:
    """Ones on and below the k-th diagonal, zeros above: [n, m].

    >>> tri(2, 3, dtype="int64").tolist()
    [[1, 0, 0], [1, 1, 0]]
    """
    shape, k = shape_of((n, n if m is None else m), "tri"), whole(k, "tri", "k")
    k = min(max(k, -shape[0]), shape[1])
    return cast(less_equal(iota(shape, 1), add(iota(shape, 0), k)), dtype_of(dtype, "tri"))


def vander(x: TensorLike, N: int | None = None, increasing: bool = False) -> Tensor:
    """The powers of a vector's elements as columns, the highest first unless ``increasing``: [size, N].

    >>> vander(Tensor([2, 3]), 3).tolist()
    [[4, 2, 1], [9, 3, 1]]
    """
    x = as_tensor(x, "vander")
    if x.ndim != 1:
        raise ShapeError(f"vander: `x` is a vector, got shape {x.shape}")
    count = x.size if N is None else whole(N, "vander", "N", 0)
    kind = dt.promote(x.dtype, dt.int64) if not x.dtype.is_inexact else x.dtype
    x = cast(x, kind)
    if not count:
        return broadcast_to_shape(Tensor(0, kind), (x.size, 0))
    ones = broadcast_to_shape(Tensor(1, kind), (x.size, 1))
    if count == 1:
        return ones
    repeated = broadcast_to_shape(expand_dims(x, 1), (x.size, count - 1))
    powers = concat([ones, cast(cumulative_prod(repeated, 1), kind)], 1)
    return powers if increasing else flip(powers, 1)


# ---- diagonals -----------------------------------------------------------------------------------------------------


def diag_embed(x: TensorLike, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """The last axis of x laid on the diagonal of two new axes ``dim1`` and ``dim2``, zeros elsewhere.

    >>> diag_embed(Tensor([[1, 2]])).tolist()
    [[[1, 0], [0, 2]]]
    """
    x = as_tensor(x, "diag_embed")
    if not x.ndim:
        raise ShapeError("diag_embed: needs at least 1 axis, got a tensor of rank 0")
    offset = whole(offset, "diag_embed", "offset")
    n = x.shape[-1]
    side = n + abs(offset)
    # n + side + 1 apart in the flattened matrix lie the elements of a diagonal
    lead = x.shape[:-1]
    square = apply(
        "pad",
        reshape(x, (*lead, n, 1)),
        Tensor(0, x.dtype),
        low=(0,) * (len(lead) + 1) + (0,),
        high=(0,) * (len(lead) + 1) + (side,),
        interior=(0,) * (len(lead) + 2),
    )  # [.., n, side + 1], whose rows read one after the other are a matrix with rows of `side`
    flat = reshape(square, (*lead, n * (side + 1)))
    shift = offset if offset >= 0 else -offset * side
    total = side * side
    zeros = (0,) * len(lead)
    flat = apply(
        "pad", flat, Tensor(0, x.dtype), low=(*zeros, shift), high=(*zeros, total), interior=(*zeros, 0)
    )
    out = reshape(flat[..., :total], (*lead, side, side))
    rank = out.ndim
    to = (axis_of(dim1, rank, "diag_embed", "dim1"), axis_of(dim2, rank, "diag_embed", "dim2"))
    return out if to == (rank - 2, rank - 1) else moveaxis(out, (-2, -1), to)


def diag(v: TensorLike, k: int = 0) -> Tensor:
    """A vector on the k-th diagonal of a matrix of zeros, or the k-th diagonal of a matrix.

    >>> diag(Tensor([1, 2])).tolist()
    [[1, 0], [0, 2]]
    >>> diag(Tensor([[1, 2], [3, 4]])).tolist()
    [1, 4]
    """
    x, k = as_tensor(v, "diag", "v"), whole(k, "diag", "k")
    if x.ndim == 1:
        return diag_embed(x, k)
    if x.ndim != 2:
        raise ShapeError(f"diag: `v` is a vector or a matrix, got shape {x.shape}")
    rows, columns = x.shape
    first = max(-k, 0)
    count = max(0, min(rows - first, columns - max(k, 0)))
    places = np.arange(count) + first
    return x[places, places + k] if count else reshape(x, (x.size,))[:0]


def diagflat(v: TensorLike, k: int = 0) -> Tensor:
    """The flattened ``v`` on the k-th diagonal of a matrix of zeros."""
    v = as_tensor(v, "diagflat", "v")
    return diag_embed(reshape(v, (v.size,)), k)


def fill_diagonal(x: TensorLike, value: TensorLike, wrap: bool = False) -> Tensor:
    """x with its main diagonal (equal indices on every axis) replaced by ``value``, which repeats along it.

    A new tensor is given: NumPy writes into x instead. ``wrap`` starts anew below the square part of a tall matrix.

    >>> fill_diagonal(Tensor([[1, 2], [3, 4]]), 0).tolist()
    [[0, 2], [3, 0]]
    """
    x = as_tensor(x, "fill_diagonal")
    if x.ndim < 2:
        raise ShapeError(f"fill_diagonal: needs at least 2 axes, got shape {x.shape}")
    if x.ndim == 2:
        step, end = x.shape[1] + 1, x.size if wrap else min(x.size, x.shape[1] * x.shape[1])
    elif len(set(x.shape)) == 1:
        step, end = 1 + sum(math.prod(x.shape[i + 1 :]) for i in range(x.ndim - 1)), x.size
    else:
        raise ShapeError(f"fill_diagonal: all axes have one size when there are more than 2, got {x.shape}")
    places = np.arange(0, end, step)
    value = cast(as_tensor(value, "fill_diagonal", "value", x.dtype), x.dtype)
    if value.ndim:
        flat = reshape(value, (value.size,))
        value = flat[np.arange(len(places)) % max(flat.size, 1)]
    return reshape(reshape(x, (x.size,)).at[places].set(value), x.shape)


def diag_indices(n: int, ndim: int = 2) -> tuple[Tensor, ...]:
    """Indices of the main diagonal of a tensor with ``ndim`` axes of size n."""
    return (arange(whole(n, "diag_indices", "n", 0)),) * whole(ndim, "diag_indices", "ndim", 0)


def diag_indices_from(arr: TensorLike) -> tuple[Tensor, ...]:
    """Indices of the main diagonal of a tensor whose axes have one size."""
    arr = as_tensor(arr, "diag_indices_from", "arr")
    if arr.ndim < 2 or len(set(arr.shape)) != 1:
        raise ShapeError(f"diag_indices_from: takes at least 2 axes of one size, got shape {arr.shape}")
    return diag_indices(arr.shape[0], arr.ndim)


# ---- triangles -----------------------------------------------------------------------------------------------------


def _triangle(n: int, k: int, m: int | None, upper: bool) -> tuple[Tensor, ...]:
    function = "triu_indices" if upper else "tril_indices"
    n, k = whole(n, function, "n", 0), whole(k, function, "k")
    m = None if m is None else whole(m, function, "m", 0)
    mask = np.tri(n, n if m is None else m, k - 1 if upper else k, dtype=np.bool_)
    return tuple(Tensor(i.astype(np.int64)) for i in np.nonzero(~mask if upper else mask))


def tril_indices(n: int, k: int = 0, m: int | None = None) -> tuple[Tensor, ...]:
    """Rows and columns (int64) of the elements of an [n, m] matrix on and below the k-th diagonal.

    >>> [i.tolist() for i in tril_indices(2)]
    [[0, 1, 1], [0, 0, 1]]
    """
    return _triangle(n, k, m, False)


def triu_indices(n: int, k: int = 0, m: int | None = None) -> tuple[Tensor, ...]:
    """Rows and columns (int64) of the elements of an [n, m] matrix on and above the k-th diagonal."""
    return _triangle(n, k, m, True)


def _matrix_shape(arr: TensorLike, function: str) -> tuple[int, int]:
    shape = as_tensor(arr, function, "arr").shape
    if len(shape) != 2:
        raise ShapeError(f"{function}: takes a matrix, got shape {shape}")
    return shape[0], shape[1]


def tril_indices_from(arr: TensorLike, k: int = 0) -> tuple[Tensor, ...]:
    """``tril_indices`` for the shape of a matrix."""
    rows, columns = _matrix_shape(arr, "tril_indices_from")
    return tril_indices(rows, k, columns)


def triu_indices_from(arr: TensorLike, k: int = 0) -> tuple[Tensor, ...]:
    """``triu_indices`` for the shape of a matrix."""
    rows, columns = _matrix_shape(arr, "triu_indices_from")
    return triu_indices(rows, k, columns)


# ---- grids ---------------------------------------------------------------------------------------------------------


def indices(dimensions: Any, dtype: Any = dt.int64, sparse: bool = False) -> Any:
    """The indices of every place of a tensor of a shape: [axes, *dimensions], or one broadcastable tensor for each axis.

    >>> indices((2, 2)).tolist()
    [[[0, 0], [1, 1]], [[0, 1], [0, 1]]]
    """
    shape, kind = shape_of(dimensions, "indices", "dimensions"), dtype_of(dtype, "indices")
    if sparse:
        line = [tuple(d if a == i else 1 for a, d in enumerate(shape)) for i in range(len(shape))]
        return tuple(cast(iota(s, i), kind) for i, s in enumerate(line))
    if not shape:
        return broadcast_to_shape(Tensor(0, kind), (0,))
    return stack([cast(iota(shape, a), kind) for a in range(len(shape))])


def fromfunction(function: Callable[..., Any], shape: Any, dtype: Any = dt.float32) -> Any:
    """What ``function`` gives for the index tensors of a shape, one for each axis.

    >>> fromfunction(lambda i, j: i + j, (2, 2)).tolist()
    [[0.0, 1.0], [1.0, 2.0]]
    """
    sizes = shape_of(shape, "fromfunction")
    return function(*(cast(iota(sizes, a), dtype_of(dtype, "fromfunction")) for a in range(len(sizes))))


class _Grid:
    """``mgrid[0:3, 0:1:5j]``: coordinates of a grid from slices; a step of ``nj`` means n points, the last included."""

    def __init__(self, sparse: bool) -> None:
        self._sparse = sparse

    def __getitem__(self, key: Any) -> Any:
        keys = key if isinstance(key, tuple) else (key,)
        lines = [_line(k) for k in keys]
        if not isinstance(key, tuple):
            return lines[0]
        kind = dt.promote(*(x.dtype for x in lines))
        grid = meshgrid(*(cast(x, kind) for x in lines), indexing="ij", sparse=self._sparse)
        return tuple(grid) if self._sparse else stack(grid)


def _line(key: Any) -> Tensor:
    if not isinstance(key, slice) or key.stop is None:
        raise ArgumentError(f"mgrid: takes slices with an end, got {key!r}")
    start, step = key.start or 0, 1 if key.step is None else key.step
    if isinstance(step, complex):
        line: Tensor = linspace(start, key.stop, int(abs(step)))
        return line
    return arange(start, key.stop, step)


mgrid, ogrid = _Grid(False), _Grid(True)


def ix_(*args: TensorLike) -> tuple[Tensor, ...]:
    """Index tensors that broadcast against each other: ``x[ix_(rows, columns)]`` is the sub-matrix of rows and columns.

    >>> Tensor([[1, 2, 3], [4, 5, 6]])[ix_([0, 1], [0, 2])].tolist()
    [[1, 3], [4, 6]]
    """
    out = []
    for n, arg in enumerate(args):
        line = as_tensor(arg, "ix_", f"args[{n}]")
        if line.ndim != 1:
            raise ShapeError(f"ix_: takes vectors, got shape {line.shape}")
        line = nonzero(line)[0] if line.dtype.is_bool else line
        out.append(reshape(line, tuple(line.size if a == n else 1 for a in range(len(args)))))
    return tuple(out)


# ---- from other objects --------------------------------------------------------------------------------------------


def frombuffer(buffer: Any, dtype: Any = dt.float32, count: int = -1, offset: int = 0) -> Tensor:
    """A vector with a copy of the elements in an object that offers its memory (``bytes``, ``memoryview``, ...).

    ``offset`` is in bytes; ``count`` -1 takes everything. Raises ``ArgumentError`` where the bytes do not divide into elements.
    The bytes are only read as numbers: nothing in them is executed.
    """
    kind = dtype_of(dtype, "frombuffer")
    view = memoryview(buffer).cast("B")
    if not 0 <= offset <= len(view):
        raise ArgumentError(f"frombuffer: `offset` {offset} does not lie in a buffer of {len(view)} bytes")
    left = len(view) - offset
    if count < 0 and left % kind.itemsize:
        raise ArgumentError(
            f"frombuffer: {left} bytes do not divide into elements of {kind.itemsize} bytes ({kind})"
        )
    number = left // kind.itemsize if count < 0 else count
    if number * kind.itemsize > left:
        raise ArgumentError(
            f"frombuffer: {number} elements of {kind} take {number * kind.itemsize} bytes, the buffer has {left}"
        )
    raw = np.frombuffer(view, np.uint8, number * kind.itemsize, offset).copy()
    if kind.is_bool:
        return from_numpy(raw != 0)
    return from_numpy(raw.view(kind.numpy))


def fromiter(iter: Any, dtype: Any, count: int = -1) -> Tensor:
    """A vector of the numbers that an iterable gives, at most ``count`` of them."""
    kind = dtype_of(dtype, "fromiter")
    numbers: Iterator[Any] = iter.__iter__()
    items = list(numbers) if count < 0 else [x for _, x in zip(range(count), numbers, strict=False)]
    if len(items) < count:
        raise ArgumentError(f"fromiter: {count} elements are asked for, the iterable gave {len(items)}")
    return asarray(items, dtype=kind)
