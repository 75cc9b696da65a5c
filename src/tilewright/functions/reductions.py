"""Reductions of the array API standard: sums, products, extremes, means, variances, searches and running sums.

``axis`` is None (all axes), an axis or several; ``keepdims`` leaves reduced axes with size 1. Integers and bools are summed
in int64 (uint64 for unsigned ones); means and variances of integers are float32.
"""

from __future__ import annotations

import math
from typing import Any

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.functions.arguments import (
    Axes,
    TensorLike,
    as_tensor,
    axes_of,
    axis_of,
    cast,
    count_of,
    dtype_of,
    float_tensor,
)
from tilewright.functions.elementwise import (
    divide,
    equal,
    maximum,
    multiply,
    not_equal,
    sqrt,
    subtract,
    where,
)
from tilewright.tensor import DTypeError, ShapeError, Tensor, apply
from tilewright.tensor.composite import composite

__all__ = [
    "all",
    "any",
    "argmax",
    "argmin",
    "count_nonzero",
    "cumsum",
    "cumulative_sum",
    "max",
    "mean",
    "min",
    "prod",
    "std",
    "sum",
    "var",
]  # fmt: skip


def _reduce(op: str, x: Tensor, axes: tuple[int, ...], keepdims: bool) -> Tensor:
    out = apply(op, x, axes=axes) if axes else x
    if keepdims and axes:
        out = apply("reshape", out, shape=tuple(1 if i in axes else d for i, d in enumerate(x.shape)))
    return out


def _sum_type(dtype: DType) -> DType:
    if dtype.kind == "u":
        return dt.uint64
    return dt.int64 if dtype.kind in "bi" else dtype


@composite
def sum(x: TensorLike, axis: Axes = None, dtype: object = None, keepdims: bool = False) -> Tensor:
    """Sum over ``axis``. Half types accumulate in float32.

    >>> sum(Tensor([[1, 2], [3, 4]]), axis=0).tolist()
    [4, 6]
    """
    x = as_tensor(x, "sum")
    x = cast(x, _sum_type(x.dtype) if dtype is None else dtype_of(dtype, "sum"))
    return _reduce("reduce_sum", x, axes_of(axis, x.ndim, "sum"), keepdims)


@composite
def prod(x: TensorLike, axis: Axes = None, dtype: object = None, keepdims: bool = False) -> Tensor:
    """Product over ``axis``."""
    x = as_tensor(x, "prod")
    x = cast(x, _sum_type(x.dtype) if dtype is None else dtype_of(dtype, "prod"))
    return _reduce("reduce_prod", x, axes_of(axis, x.ndim, "prod"), keepdims)


def _extreme(name: str, x: TensorLike, axis: Axes, keepdims: bool) -> Tensor:
    x = as_tensor(x, name)
    axes = axes_of(axis, x.ndim, name)
    for a in axes:
        if x.shape[a] == 0:
            raise ShapeError(
                f"{name}: axis {a} of a tensor of shape {x.shape} is empty and has no {name}imum"
            )
    try:
        return _reduce(f"reduce_{name}", x, axes, keepdims)
    except TypeError as error:
        raise DTypeError(f"{name}: {error}") from None


@composite
def max(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Largest element over ``axis``; NaN if one is NaN. Raises ``ShapeError`` over an empty axis."""
    return _extreme("max", x, axis, keepdims)


@composite
def min(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Smallest element over ``axis``; NaN if one is NaN. Raises ``ShapeError`` over an empty axis."""
    return _extreme("min", x, axis, keepdims)


def _count(x: Tensor, axes: tuple[int, ...]) -> Any:
    """Elements over ``axes``; a symbolic size where one of them is."""
    return math.prod(x.shape[a] for a in axes)


def _divide_by_count(total: Tensor, x: Tensor, axes: tuple[int, ...], correction: float = 0.0) -> Tensor:
    """The total divided by the number of elements over ``axes``, less a correction."""
    count = _count(x, axes)
    if isinstance(count, int):
        rest = count - correction
        return divide(total, float(rest) if rest > 0 else 0.0)
    number = count_of([x.shape[a] for a in axes], total.dtype)
    return divide(total, maximum(subtract(number, correction), 0.0) if correction else number)


@composite
def mean(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Arithmetic mean over ``axis``; NaN over nothing. Half types are summed and divided in float32."""
    x = float_tensor(x, "mean")
    axes = axes_of(axis, x.ndim, "mean")
    total = _reduce("reduce_sum", wide(x), axes, keepdims)
    count = _count(x, axes)
    if isinstance(count, int) and count and _exact(count):
        return cast(multiply(total, 1.0 / count), x.dtype)
    return cast(_divide_by_count(total, x, axes), x.dtype)


def wide(x: Tensor) -> Tensor:
    """``x`` in a type whose sums do not overflow where their mean does not."""
    return cast(x, dt.float32) if x.dtype.bits < 32 else x


def _exact(count: int) -> bool:
    """Whether dividing by ``count`` is multiplying by its inverse, bit for bit."""
    return count & (count - 1) == 0


@composite
def var(x: TensorLike, axis: Axes = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """Variance over ``axis``: the sum of squared distances from the mean, divided by N - correction. Real, also of complex
    numbers.

    >>> var(Tensor([1.0, 2.0, 3.0, 4.0])).item()
    1.25
    """
    given = float_tensor(x, "var")
    x = wide(given)
    axes = axes_of(axis, x.ndim, "var")
    distance = subtract(x, mean(x, axes, keepdims=True)) if axes else subtract(x, x)
    if x.dtype.is_complex:
        from_mean = apply("abs", distance)
        squared = multiply(from_mean, from_mean)
    else:
        squared = multiply(distance, distance)
    total = _reduce("reduce_sum", squared, axes, keepdims)
    spread = _divide_by_count(total, x, axes, correction)
    return spread if x.dtype.is_complex else cast(spread, given.dtype)


@composite
def std(x: TensorLike, axis: Axes = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """Standard deviation over ``axis``: the square root of ``var``. Where all elements are equal, its gradient is 0."""
    x = float_tensor(x, "std")
    spread = root(var(wide(x), axis, correction, keepdims))
    return spread if x.dtype.is_complex else cast(spread, x.dtype)


def root(x: Tensor) -> Tensor:
    """The square root with slope 0 at 0: of a sum of squares, whose own slope there is 0."""
    none = equal(x, 0)
    return where(none, 0, sqrt(where(none, 1, x)))


def _bools(x: TensorLike, name: str) -> Tensor:
    x = as_tensor(x, name)
    return x if x.dtype.is_bool else not_equal(x, 0)


@composite
def any(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Whether one element over ``axis`` is true (not 0)."""
    x = _bools(x, "any")
    return _logical("reduce_max", x, axes_of(axis, x.ndim, "any"), keepdims)


@composite
def all(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Whether every element over ``axis`` is true (not 0)."""
    x = _bools(x, "all")
    return _logical("reduce_min", x, axes_of(axis, x.ndim, "all"), keepdims)


def _logical(op: str, x: Tensor, axes: tuple[int, ...], keepdims: bool) -> Tensor:
    if math.prod(x.shape[a] for a in axes) == 0 and axes:  # over nothing: count what speaks for or against
        counted = cast(x if op == "reduce_max" else apply("invert", x), dt.int64)
        found = not_equal(_reduce("reduce_sum", counted, axes, keepdims), 0)
        return found if op == "reduce_max" else apply("invert", found)
    return _reduce(op, x, axes, keepdims)


@composite
def count_nonzero(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """How many elements over ``axis`` are not 0, as int64."""
    return sum(_bools(x, "count_nonzero"), axis, keepdims=keepdims)


def _arg(name: str, x: TensorLike, axis: int | None, keepdims: bool) -> Tensor:
    x = as_tensor(x, name)
    shape = x.shape
    if axis is None:
        flat = apply("reshape", x, shape=(x.size,))
        at, reduced = 0, (1,) * len(shape)
    else:
        flat, at = x, axis_of(axis, x.ndim, name)
        reduced = tuple(1 if i == at else d for i, d in enumerate(shape))
    if flat.shape[at] == 0:
        raise ShapeError(f"{name}: a tensor of shape {shape} has no elements along the axis")
    try:
        out = apply(name, flat, axis=at)
    except TypeError as error:
        raise DTypeError(f"{name}: {error}") from None
    return apply("reshape", out, shape=reduced) if keepdims else out


@composite
def argmax(x: TensorLike, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Index (int64) of the first largest element along ``axis``, or in the flattened tensor."""
    return _arg("argmax", x, axis, keepdims)


@composite
def argmin(x: TensorLike, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Index (int64) of the first smallest element along ``axis``, or in the flattened tensor."""
    return _arg("argmin", x, axis, keepdims)


@composite
def cumulative_sum(
    x: TensorLike, axis: int | None = None, dtype: object = None, include_initial: bool = False
) -> Tensor:
    """Running sum along ``axis`` (which may be left out at rank 1); ``include_initial`` puts a 0 in front.

    >>> cumulative_sum(Tensor([1, 2, 3])).tolist()
    [1, 3, 6]
    """
    x = as_tensor(x, "cumulative_sum")
    if axis is None and x.ndim != 1:
        raise ShapeError(f"cumulative_sum: `axis` is needed for a tensor of rank {x.ndim}")
    at = axis_of(0 if axis is None else axis, x.ndim, "cumulative_sum")
    x = cast(x, _sum_type(x.dtype) if dtype is None else dtype_of(dtype, "cumulative_sum"))
    out = apply("cumsum", x, axis=at, reverse=False)
    if include_initial:
        front = tuple(1 if i == at else 0 for i in range(x.ndim))
        zero = Tensor(0, x.dtype)
        out = apply("pad", out, zero, low=front, high=(0,) * x.ndim, interior=(0,) * x.ndim)
    return out


@composite
def cumsum(x: TensorLike, axis: int | None = None, dtype: object = None) -> Tensor:
    """Running sum along ``axis``, or of the flattened tensor when None.

    >>> cumsum(Tensor([[1, 2], [3, 4]])).tolist()
    [1, 3, 6, 10]
    """
    x = as_tensor(x, "cumsum")
    if axis is None and x.ndim != 1:
        x = apply("reshape", x, shape=(x.size,))
    return cumulative_sum(x, axis, dtype)
