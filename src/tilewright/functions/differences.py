"""Neighbours in a line and neighbours among the floating-point numbers: running products, differences, ``nextafter``.

All of it is native: lazy, usable in ``tw.jit``, and differentiable where a derivative exists.
"""

from __future__ import annotations

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
    common_type,
    dtype_of,
    inexact,
    operands_of,
    together,
)
from tilewright.functions.control import scan
from tilewright.functions.elementwise import (
    add,
    copysign,
    equal,
    greater,
    multiply,
    not_equal,
    subtract,
    where,
)
from tilewright.functions.movement import concat, moveaxis, reshape
from tilewright.tensor import ArgumentError, DTypeError, ShapeError, Tensor, apply

__all__ = ["cumprod", "cumulative_prod", "diff", "nextafter"]


def cumulative_prod(
    x: TensorLike, axis: int | None = None, dtype: Any = None, include_initial: bool = False
) -> Tensor:
    """Running product along ``axis`` (which may be left out at rank 1); ``include_initial`` puts a 1 in front.

    Integers and bools are multiplied in int64 (uint64 for unsigned ones). Each product is the one before it times the next
    element: products of inner elements may leave the range of the type where these do not.

    >>> cumulative_prod(Tensor([1, 2, 3])).tolist()
    [1, 2, 6]
    """
    x = as_tensor(x, "cumulative_prod")
    if axis is None and x.ndim != 1:
        raise ShapeError(f"cumulative_prod: `axis` is needed for a tensor of rank {x.ndim}")
    at = axis_of(0 if axis is None else axis, x.ndim, "cumulative_prod")
    wide = dt.uint64 if x.dtype.kind == "u" else dt.int64 if x.dtype.kind in "bi" else x.dtype
    x = cast(x, wide if dtype is None else dtype_of(dtype, "cumulative_prod"))
    out = x.clone() if x.shape[at] < 2 else _products(x, at)
    return _in_front(out, at, 1) if include_initial else out


def _products(x: Tensor, axis: int) -> Tensor:
    def step(product: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
        longer = multiply(product, factor)
        return longer, longer

    lines = moveaxis(x, axis, 0)
    out: Tensor = scan(step, lines[0], lines[1:])[1]
    return moveaxis(concat([lines[:1], out], 0), 0, axis)


def cumprod(x: TensorLike, axis: int | None = None, dtype: Any = None) -> Tensor:
    """Running product along ``axis``, or of the flattened tensor when None.

    >>> cumprod(Tensor([[1, 2], [3, 4]])).tolist()
    [1, 2, 6, 24]
    """
    x = as_tensor(x, "cumprod")
    if axis is None and x.ndim != 1:
        x = reshape(x, (x.size,))
    return cumulative_prod(x, axis, dtype)


def _in_front(x: Tensor, axis: int, count: int) -> Tensor:
    """x behind ``count`` ones along an axis."""
    low = tuple(count if a == axis else 0 for a in range(x.ndim))
    zeros = (0,) * x.ndim
    return apply("pad", x, Tensor(1, x.dtype), low=low, high=zeros, interior=zeros)


def diff(
    x: TensorLike,
    n: int = 1,
    axis: int = -1,
    prepend: TensorLike | None = None,
    append: TensorLike | None = None,
) -> Tensor:
    """Differences of neighbours along ``axis``, taken ``n`` times: the axis gets n shorter.

    ``prepend`` and ``append`` are joined to x first. For bools, whether neighbours differ.

    >>> diff(Tensor([1, 4, 9])).tolist()
    [3, 5]
    """
    out = as_tensor(x, "diff")
    at = axis_of(axis, out.ndim, "diff")
    n = plain(n)
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise ArgumentError(f"diff: `n` is a non-negative integer, got {n!r}")
    parts = [
        as_tensor(p, "diff", name)
        for p, name in ((prepend, "prepend"), (out, "x"), (append, "append"))
        if p is not None
    ]
    parts = [_one_slice(p, out, at) if not p.ndim else p for p in parts]
    if n == 0:  # nothing is subtracted, so nothing is joined either
        return out.clone()
    out = concat(parts, at) if len(parts) > 1 else out
    lead = (slice(None),) * at
    for _ in range(n):
        later, earlier = out[(*lead, slice(1, None))], out[(*lead, slice(None, -1))]
        out = not_equal(later, earlier) if out.dtype.is_bool else subtract(later, earlier)
    return out


def _one_slice(number: Tensor, x: Tensor, axis: int) -> Tensor:
    """A number as one more element along an axis of x."""
    return broadcast_to_shape(number, (*x.shape[:axis], 1, *x.shape[axis + 1 :]))


_BITS = {16: dt.int16, 32: dt.int32, 64: dt.int64}


def nextafter(x1: TensorLike, x2: TensorLike) -> Tensor:
    """The next number of the type after x1 in the direction of x2, elementwise; x2 where the two are equal.

    Away from zero the bits of a number, read as an integer, grow by 1. It has no derivative.

    >>> nextafter(Tensor([1.0]), Tensor([2.0])).item() - 1.0
    1.1920928955078125e-07
    """
    items = operands_of("nextafter", (x1, x2))
    kind = inexact(common_type("nextafter", items))
    if not kind.is_float:
        raise DTypeError(f"nextafter: takes real numbers, got {kind}")
    a, b = together("nextafter", *(cast(as_tensor(x, "nextafter", dtype=kind), kind).detach() for x in items))
    bits = _BITS[kind.bits]
    away = equal(greater(b, a), greater(a, 0))  # x2 lies on the side of x1 that points away from zero
    stepped = apply(
        "bitcast",
        add(apply("bitcast", a, dtype=bits), where(away, Tensor(1, bits), Tensor(-1, bits))),
        dtype=kind,
    )
    smallest = apply("bitcast", Tensor(np.ones((), bits.numpy)), dtype=kind)
    out = where(equal(a, 0), copysign(smallest, b), stepped)
    out = where(equal(a, b), b, out)
    unordered = not_equal(a, a) | not_equal(b, b)
    return where(unordered, add(a, b), out)
