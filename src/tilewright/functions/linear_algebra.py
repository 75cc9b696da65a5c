"""Diagonals, traces and products of matrices that are more than one contraction; all native.

``linalg`` has the plain products. Shapes: [..., M, N], leading axes are a stack of independent matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tilewright.functions.arguments import (
    TensorLike,
    as_tensor,
    axis_of,
    broadcast_to_shape,
    cast,
    common_shape,
    common_type,
    dtype_of,
    tensors_of,
    whole,
)
from tilewright.functions.creation import arange
from tilewright.functions.elementwise import multiply, subtract
from tilewright.functions.indexing import take
from tilewright.functions.linalg import matmul
from tilewright.functions.movement import concat, expand_dims, flip, reshape, roll
from tilewright.functions.padding import pad
from tilewright.functions.reductions import sum as sum_over
from tilewright.tensor import ArgumentError, ShapeError, Tensor, apply

__all__ = ["block_diag", "cross", "diagonal", "kron", "multi_dot", "toeplitz", "trace"]


def diagonal(x: TensorLike, offset: int = 0) -> Tensor:
    """The diagonals ``offset`` above the main one of the last two axes: [..., M, N] -> [..., K].

    >>> diagonal(Tensor([[1, 2], [3, 4]])).tolist()
    [1, 4]
    """
    x, offset = as_tensor(x, "diagonal"), whole(offset, "diagonal", "offset")
    if x.ndim < 2:
        raise ShapeError(f"diagonal: `x` is a matrix or a stack of them, got shape {x.shape}")
    *lead, rows, columns = x.shape
    first = offset if offset >= 0 else -offset * columns
    count = max(0, min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns))
    flat = reshape(x, (*lead, rows * columns))
    start = (*(0 for _ in lead), first if count else 0)
    stop = (*lead, first + (count - 1) * (columns + 1) + 1 if count else 0)
    return apply("slice", flat, start=start, stop=stop, step=(*(1 for _ in lead), columns + 1))


def trace(x: TensorLike, offset: int = 0, dtype: Any = None) -> Tensor:
    """The sums of the diagonals of the last two axes: [..., M, N] -> [...]. Integers are summed in 64 bits."""
    return sum_over(diagonal(x, offset), axis=-1, dtype=None if dtype is None else dtype_of(dtype, "trace"))


def cross(x1: TensorLike, x2: TensorLike, axis: int = -1) -> Tensor:
    """Cross products of vectors with 3 components along ``axis`` (counted from the end when negative); others broadcast.

    >>> cross(Tensor([1, 0, 0]), Tensor([0, 1, 0])).tolist()
    [0, 0, 1]
    """
    a, b = as_tensor(x1, "cross", "x1"), as_tensor(x2, "cross", "x2")
    left, right = axis_of(axis, a.ndim, "cross"), axis_of(axis, b.ndim, "cross")
    if a.shape[left] != 3 or b.shape[right] != 3:
        raise ShapeError(f"cross: shapes {a.shape} and {b.shape}: axis {axis} of both has size 3")
    shape = common_shape("cross", [a.shape, b.shape])
    a, b = broadcast_to_shape(a, shape), broadcast_to_shape(b, shape)
    at = axis_of(axis, len(shape), "cross")
    ahead, behind = -1, -2  # component i takes i + 1 and i + 2
    first = multiply(roll(a, ahead, at), roll(b, behind, at))
    return subtract(first, multiply(roll(a, behind, at), roll(b, ahead, at)))


def kron(a: TensorLike, b: TensorLike) -> Tensor:
    """Kronecker product: every element of a times the whole of b; axis i of the result has size a.shape[i] * b.shape[i].

    The shorter shape gets axes of size 1 in front.

    >>> kron(Tensor([1, 10]), Tensor([1, 2])).tolist()
    [1, 2, 10, 20]
    """
    a, b = as_tensor(a, "kron", "a"), as_tensor(b, "kron", "b")
    rank = max(a.ndim, b.ndim)
    left = (*(1,) * (rank - a.ndim), *a.shape)
    right = (*(1,) * (rank - b.ndim), *b.shape)
    apart = multiply(
        reshape(a, tuple(d for n in left for d in (n, 1))),
        reshape(b, tuple(d for n in right for d in (1, n))),
    )
    return reshape(apart, tuple(m * n for m, n in zip(left, right, strict=True)))


def block_diag(*arrays: TensorLike) -> Tensor:
    """A matrix with the given ones along its diagonal and zeros elsewhere; vectors count as rows, numbers as 1 x 1.

    >>> block_diag(Tensor([[1, 2]]), Tensor([[3]])).tolist()
    [[1, 2, 0], [0, 0, 3]]
    """
    blocks = tensors_of(arrays, "block_diag", "arrays")
    for i, x in enumerate(blocks):
        if x.ndim > 2:
            raise ShapeError(f"block_diag: `arrays[{i}]` is a matrix, got shape {x.shape}")
    kind = common_type("block_diag", blocks)
    blocks = [cast(reshape(x, (1,) * (2 - x.ndim) + x.shape), kind) for x in blocks]
    columns = sum(x.shape[1] for x in blocks)
    rows, start = [], 0
    for x in blocks:
        rows.append(pad(x, [(0, 0), (start, columns - start - x.shape[1])]))
        start += x.shape[1]
    return concat(rows, axis=0)


def toeplitz(c: TensorLike, r: TensorLike | None = None) -> Tensor:
    """The matrix with constant diagonals whose first column is c [M] and first row r [N] (c itself when left out).

    The corner is ``c[0]``; ``r[0]`` is not read. Without r, the row is c conjugated.

    >>> toeplitz(Tensor([1, 2]), Tensor([0, 3, 4])).tolist()
    [[1, 3, 4], [2, 1, 3]]
    """
    c = as_tensor(c, "toeplitz", "c")
    row = (apply("conj", c) if c.dtype.is_complex else c) if r is None else as_tensor(r, "toeplitz", "r")
    for name, x in (("c", c), ("r", row)):
        if x.ndim != 1:
            raise ShapeError(f"toeplitz: `{name}` is a vector, got shape {x.shape}")
    m, n = c.size, row.size
    if not m or not n:
        return reshape(c[:0], (m, n))
    kind = common_type("toeplitz", [c, row])
    line = concat([flip(cast(c, kind)), cast(row, kind)[1:]])  # element m - 1 + j - i stands at [i, j]
    return take(line, subtract(arange(m - 1, m - 1 + n), expand_dims(arange(m), -1)), axis=None)


def multi_dot(arrays: Sequence[TensorLike]) -> Tensor:
    """The product of two or more matrices in the order that needs the fewest multiplications.

    The first may be a row [N] and the last a column [M]. Found by dynamic programming (Cormen et al., Introduction to
    Algorithms, 15.2).

    >>> multi_dot([Tensor([[1, 2]]), Tensor([[1], [1]]), Tensor([[2, 0]])]).tolist()
    [[6, 0]]
    """
    parts = tensors_of(arrays, "multi_dot", "arrays")
    last = len(parts) - 1
    if last < 1:
        raise ArgumentError(f"multi_dot: `arrays` holds two matrices or more, got {len(parts)}")
    for i, x in enumerate(parts):
        if x.ndim != 2 and not (x.ndim == 1 and i in (0, last)):
            raise ShapeError(
                f"multi_dot: `arrays[{i}]` is a matrix (the ends may be vectors), got shape {x.shape}"
            )
    row, column = parts[0].ndim == 1, parts[last].ndim == 1
    parts[0] = expand_dims(parts[0], 0) if row else parts[0]
    parts[last] = expand_dims(parts[last], 1) if column else parts[last]
    sizes = [parts[0].shape[0], *(x.shape[1] for x in parts)]
    for i in range(last):
        if parts[i].shape[1] != parts[i + 1].shape[0]:
            raise ShapeError(
                f"multi_dot: `arrays[{i}]` of shape {parts[i].shape} and `arrays[{i + 1}]` of shape"
                f" {parts[i + 1].shape} do not multiply"
            )
    out = _product(parts, _chain(sizes), 0, last)
    return reshape(out, out.shape[int(row) : 2 - int(column)])


def _chain(sizes: Sequence[int]) -> dict[tuple[int, int], int]:
    """Where to split the product of matrices i to j, whose shapes are sizes[i] x sizes[i + 1]."""
    count = len(sizes) - 1
    cost = {(i, i): 0 for i in range(count)}
    split: dict[tuple[int, int], int] = {}
    for length in range(2, count + 1):
        for i in range(count - length + 1):
            j = i + length - 1
            choices = [
                (cost[i, k] + cost[k + 1, j] + sizes[i] * sizes[k + 1] * sizes[j + 1], k) for k in range(i, j)
            ]
            cost[i, j], split[i, j] = min(choices)
    return split


def _product(parts: Sequence[Tensor], split: dict[tuple[int, int], int], i: int, j: int) -> Tensor:
    if i == j:
        return parts[i]
    k = split[i, j]
    return matmul(_product(parts, split, i, k), _product(parts, split, k + 1, j))
