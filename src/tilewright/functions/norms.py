"""Norms of vectors and matrices, and condition numbers. All native but those that need singular values or an inverse."""

from __future__ import annotations

import math
from typing import Any

from tilewright.core import dtype as dt
from tilewright.functions.arguments import Axes, TensorLike, axes_of, cast, float_tensor
from tilewright.functions.decompositions import svdvals
from tilewright.functions.elementwise import (
    abs,
    add,
    divide,
    imag,
    isnan,
    logical_and,
    logical_not,
    multiply,
    not_equal,
    pow,
    real,
    square,
    where,
)  # fmt: skip
from tilewright.functions.matrices import is_half, matrices, widened
from tilewright.functions.movement import expand_dims, moveaxis, reshape
from tilewright.functions.reductions import any as any_over
from tilewright.functions.reductions import max as max_over
from tilewright.functions.reductions import min as min_over
from tilewright.functions.reductions import root
from tilewright.functions.reductions import sum as sum_over
from tilewright.functions.solving import inverse_or_inf
from tilewright.tensor import ArgumentError, Tensor

__all__ = ["cond", "matrix_norm", "norm", "vector_norm"]


def vector_norm(x: TensorLike, axis: Axes = None, keepdims: bool = False, ord: float = 2) -> Tensor:
    """Norms of vectors along ``axis`` (of all elements when None); real.

    ``ord`` p gives (sum |x|^p)^(1/p), inf the largest and -inf the smallest |x|, 0 the number of elements that are not 0.

    >>> vector_norm(Tensor([3.0, 4.0])).item()
    5.0
    """
    x = float_tensor(x, "vector_norm")
    axes = axes_of(axis, x.ndim, "vector_norm")
    if is_half(x.dtype):  # squares may not fit where the norm does
        return cast(vector_norm(cast(x, dt.float32), axes, keepdims, ord), x.dtype)
    size = abs(x)
    if ord == math.inf:
        if any(x.shape[a] == 0 for a in axes):  # over nothing: the smallest size there is
            return sum_over(size, axes, keepdims=keepdims)
        return max_over(size, axes, keepdims) if axes else size
    if ord == -math.inf:
        return min_over(size, axes, keepdims) if axes else size
    if ord == 0:
        return sum_over(cast(not_equal(size, 0), size.dtype), axes, keepdims=keepdims)
    if ord == 1:
        return sum_over(size, axes, keepdims=keepdims)
    if ord == 2:
        return _euclidean(x, axes, keepdims)
    return pow(sum_over(pow(size, float(ord)), axes, keepdims=keepdims), 1.0 / ord)


def _euclidean(x: Tensor, axes: tuple[int, ...], keepdims: bool) -> Tensor:
    """The root of a sum of squares, whose derivative at 0, where it has none, is given as 0."""
    squares = add(square(real(x)), square(imag(x))) if x.dtype.is_complex else square(x)
    return root(sum_over(squares, axes, keepdims=keepdims))


def matrix_norm(x: TensorLike, keepdims: bool = False, ord: float | str = "fro") -> Tensor:
    """Norms of the matrices in the last two axes: [..., M, N] -> [...]; real.

    ``ord``: "fro" the root of the sum of squares, "nuc" the sum of the singular values, 1 and -1 the largest and smallest
    column sum of |x|, inf and -inf row sum, 2 and -2 the largest and smallest singular value.
    """
    x = matrices(x, "matrix_norm")
    if is_half(x.dtype):
        return cast(matrix_norm(cast(x, dt.float32), keepdims, ord), x.dtype)
    if ord == "fro":
        return _euclidean(x, (x.ndim - 2, x.ndim - 1), keepdims)
    if ord in (1, -1, math.inf, -math.inf):
        summed = -2 if ord in (1, -1) else -1
        sums = sum_over(abs(x), summed, keepdims=True)
        out = (max_over if ord > 0 else min_over)(sums, -3 - summed, keepdims=True)
    elif ord in (2, -2, "nuc"):
        values = expand_dims(svdvals(x), -1)
        over: Any = {2: max_over, -2: min_over, "nuc": sum_over}[ord]
        out = over(values, -2, keepdims=True)
    else:
        raise ArgumentError(f"matrix_norm: `ord` is 'fro', 'nuc', 1, -1, 2, -2, inf or -inf, got {ord!r}")
    return out if keepdims else reshape(out, x.shape[:-2])


def norm(x: TensorLike, ord: float | str | None = None, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """NumPy's ``norm``: of vectors along one ``axis``, of matrices over two, of all elements without both; real.

    Without ``ord``: the root of the sum of squares over ``axis``. With it and no axis, x is a vector or a matrix.
    See ``vector_norm`` and ``matrix_norm`` for what ``ord`` can be.

    >>> norm(Tensor([[3.0, 4.0]])).item(), norm(Tensor([[3.0, -4.0]]), ord=1, axis=1).tolist()
    (5.0, [7.0])
    """
    x = float_tensor(x, "norm")
    if axis is None and ord is not None and x.ndim not in (1, 2):
        raise ArgumentError(
            f"norm: `ord` of shape {x.shape} needs an `axis`: one of vectors, or two of matrices"
        )
    listed = tuple(axis) if isinstance(axis, (tuple, list)) else axis
    if ord is None:
        return vector_norm(x, listed, keepdims)
    order = tuple(range(x.ndim)) if listed is None else listed if isinstance(listed, tuple) else (listed,)
    axes_of(order, x.ndim, "norm")
    if len(order) == 1:
        if isinstance(ord, str):
            raise ArgumentError(f"norm: `ord` of vectors is a number, got {ord!r}")
        return vector_norm(x, order, keepdims, ord)
    if len(order) != 2:
        raise ArgumentError(f"norm: `ord` needs an `axis` of one or two, got {order}")
    out = matrix_norm(moveaxis(x, order, (-2, -1)), keepdims, ord)
    return moveaxis(out, (-2, -1), order) if keepdims else out


def cond(x: TensorLike, p: float | str | None = None) -> Tensor:
    """Condition numbers: how much relative errors can grow in solving with x; [..., M, N] -> [...], real.

    ``p`` None or 2: the largest singular value over the smallest (-2: the reverse), for any shape. Other orders of
    ``matrix_norm``: norm(x) * norm(inv(x)), for square x. Singular matrices give infinity.

    >>> cond(Tensor([[2.0, 0.0], [0.0, 1.0]])).item()
    2.0
    """
    if p is None or p in (2, -2, "nuc"):
        x = matrices(x, "cond")
        if 0 in x.shape[-2:]:
            raise ArgumentError(
                f"cond: a matrix without elements has no condition number, got shape {x.shape}"
            )
        values = svdvals(x)
        first, last = values[..., 0], values[..., -1]
        if p == "nuc":
            out = multiply(sum_over(values, -1), sum_over(divide(1, values), -1))
        else:
            out = divide(last, first) if p == -2 else divide(first, last)
    else:
        x = matrices(x, "cond", True)
        out = multiply(matrix_norm(x, ord=p), matrix_norm(widened(inverse_or_inf, x), ord=p))
    unknown = any_over(isnan(x), axis=(-2, -1))  # infinity where the matrix itself is not in doubt
    return where(logical_and(isnan(out), logical_not(unknown)), math.inf, out)
