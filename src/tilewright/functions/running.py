"""Running extremes and log-sums along an axis: ``cummax``, ``cummin``, ``logcumsumexp``.

Each is found in log2(size) elementwise steps, which combine an element with the result that ends twice as far back. Sums are
in ``reductions.py``, products in ``differences.py``, any other function in ``scans.py``.
"""

from __future__ import annotations

from collections.abc import Callable

from tilewright.functions.arguments import TensorLike, as_tensor, axis_of, float_tensor
from tilewright.functions.creation import iota
from tilewright.functions.elementwise import bitwise_or, equal, isnan, logaddexp, maximum, minimum, where
from tilewright.functions.indexing import take_along_axis
from tilewright.functions.movement import concat
from tilewright.functions.sorting import ValuesIndices
from tilewright.tensor import DTypeError, Tensor

__all__ = ["cummax", "cummin", "logcumsumexp"]


def _running(x: Tensor, axis: int, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Running combinations with an associative and commutative function."""
    lead, step = (slice(None),) * axis, 1
    while step < x.shape[axis]:
        both = combine(x[(*lead, slice(step, None))], x[(*lead, slice(None, -step))])
        x = concat([x[(*lead, slice(0, step))], both], axis)
        step *= 2
    return x


def _extreme(function: str, x: TensorLike, axis: int, combine: Callable[..., Tensor]) -> ValuesIndices:
    x = as_tensor(x, function)
    if x.dtype.is_complex:
        raise DTypeError(f"{function}: {x.dtype} elements have no order")
    at = axis_of(axis, x.ndim, function)
    if not x.size:
        return ValuesIndices(x.clone(), iota(x.shape, at))
    plain = x.detach()
    best = _running(plain, at, combine)
    hit = equal(plain, best)
    hit = bitwise_or(hit, isnan(plain)) if x.dtype.is_float else hit
    indices = _running(where(hit, iota(x.shape, at), 0), at, maximum)
    return ValuesIndices(take_along_axis(x, indices, at), indices)


def cummax(x: TensorLike, axis: int = -1) -> ValuesIndices:
    """The largest element so far along ``axis``, and where it stands (the last of equal ones), int64. NaN stays.

    >>> cummax(Tensor([1, 3, 2])).values.tolist()
    [1, 3, 3]
    """
    return _extreme("cummax", x, axis, maximum)


def cummin(x: TensorLike, axis: int = -1) -> ValuesIndices:
    """The smallest element so far along ``axis``, and where it stands (the last of equal ones), int64. NaN stays."""
    return _extreme("cummin", x, axis, minimum)


def logcumsumexp(x: TensorLike, axis: int = -1) -> Tensor:
    """log(cumsum(exp(x))) along ``axis`` without overflow.

    >>> logcumsumexp(Tensor([0.0, 0.0])).tolist()
    [0.0, 0.6931471824645996]
    """
    out = float_tensor(x, "logcumsumexp")
    if out.dtype.is_complex:
        raise DTypeError(f"logcumsumexp: takes real numbers, got {out.dtype}")
    at = axis_of(axis, out.ndim, "logcumsumexp")
    return _running(out, at, logaddexp) if out.size else out.clone()
