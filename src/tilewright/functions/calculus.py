"""Functions sampled on a grid: interpolation, derivatives, integrals, phases, and polynomials.

All native compositions; polynomials are vectors of coefficients with the highest power first, as in NumPy's ``poly1d``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tilewright.core import dtype as dt
from tilewright.core.integers import plain
from tilewright.functions.arguments import (
    TensorLike,
    as_tensor,
    axes_of,
    axis_of,
    cast,
    float_tensor,
    is_scalar,
    whole,
)
from tilewright.functions.creation import arange
from tilewright.functions.differences import diff
from tilewright.functions.elementwise import (
    abs,
    add,
    bitwise_and,
    clip,
    divide,
    equal,
    greater,
    less,
    multiply,
    remainder,
    sqrt,
    square,
    subtract,
    where,
)
from tilewright.functions.grids import vander
from tilewright.functions.indexing import take
from tilewright.functions.linalg import matmul
from tilewright.functions.movement import concat, expand_dims, reshape
from tilewright.functions.reductions import cumulative_sum, sum
from tilewright.functions.solving import pinv
from tilewright.functions.sorting import argsort, searchsorted
from tilewright.functions.types import finfo
from tilewright.tensor import ArgumentError, DTypeError, ShapeError, Tensor, apply

__all__ = [
    "cumulative_trapezoid", "ediff1d", "gradient", "interp", "polyadd", "polyder", "polyfit", "polyint", "polymul", "polysub",
    "polyval", "trapezoid", "unwrap",
]  # fmt: skip


# ---- interpolation -------------------------------------------------------------------------------------------------


def interp(
    x: TensorLike,
    xp: TensorLike,
    fp: TensorLike,
    left: Any = None,
    right: Any = None,
    period: float | None = None,
) -> Tensor:
    """The line through the points (xp, fp), with xp ascending, at x: in the shape of x.

    Below the first point it is ``left`` (fp[0] by default), above the last one ``right`` (fp[-1]); with ``period`` the points
    repeat. Derivatives reach x, xp and fp.

    >>> interp(Tensor([1.5, 9.0]), [1.0, 2.0], [10.0, 20.0]).tolist()
    [15.0, 20.0]
    """
    at, points, values = (
        float_tensor(x, "interp"),
        float_tensor(xp, "interp", "xp"),
        float_tensor(fp, "interp", "fp"),
    )
    if points.ndim != 1 or values.shape != points.shape or not points.size:
        raise ShapeError(
            f"interp: `xp` and `fp` are vectors of one size, at least 1; got shapes {points.shape} and {values.shape}"
        )
    kind = dt.promote(at.dtype, points.dtype)
    at, points = cast(at, kind), cast(points, kind)
    values = cast(values, dt.promote(values.dtype, kind))
    if period is not None:
        if not period:
            raise ArgumentError("interp: `period` is not 0")
        at, points = remainder(at, math.fabs(period)), remainder(points, math.fabs(period))
        order = argsort(points)
        points, values = take(points, order, 0), take(values, order, 0)
        points = concat([points[-1:] - math.fabs(period), points, points[:1] + math.fabs(period)])
        values = concat([values[-1:], values, values[:1]])
    n = points.size
    if n == 1:
        middle = add(multiply(at, 0.0), values[0])
    else:
        low = clip(subtract(searchsorted(points, at, side="right"), 1), 0, n - 2)
        x0, x1 = take(points, low, 0), take(points, add(low, 1), 0)
        y0, y1 = take(values, low, 0), take(values, add(low, 1), 0)
        gap = subtract(x1, x0)
        flat = equal(gap, 0)
        slope = divide(subtract(y1, y0), cast(where(flat, 1, gap), values.dtype))
        middle = add(y0, multiply(slope, cast(subtract(at, x0), values.dtype)))
        middle = where(equal(at, x1), y1, middle)
    if period is not None:
        return middle
    below = values[0] if left is None else left
    above = values[-1] if right is None else right
    out = where(less(at, points[0]), below, where(greater(at, points[-1]), above, middle))
    return where(equal(at, at), out, cast(at, values.dtype))


def unwrap(
    p: TensorLike, discont: float | None = None, axis: int = -1, period: float = 2 * math.pi
) -> Tensor:
    """p with multiples of ``period`` added so that neighbours along ``axis`` differ by half a period at most.

    Only jumps larger than ``discont`` (half a period by default) are taken out. Integers stay integers when the period is one.

    >>> unwrap(Tensor([0, 3, 5]), period=4).tolist()
    [0, -1, 1]
    """
    x = as_tensor(p, "unwrap", "p")
    period = plain(period)
    if not (x.dtype.is_integer and isinstance(period, int)):
        x = float_tensor(x, "unwrap", "p")
    if x.dtype.is_complex:
        raise DTypeError("unwrap: complex numbers have no order; unwrap their `angle`")
    at = axis_of(axis, x.ndim, "unwrap")
    if x.shape[at] < 2:
        return x.clone()
    if x.dtype.is_integer:
        half, odd = divmod(int(period), 2)
        high: float = half
        ambiguous = not odd
    else:
        high, ambiguous = period / 2, True
    low = high - period if x.dtype.is_float else -half
    limit = high if discont is None else max(discont, high)
    step = diff(x, axis=at)
    wrapped = add(remainder(subtract(step, low), period), low)
    if ambiguous:
        wrapped = where(bitwise_and(equal(wrapped, low), greater(step, 0)), high, wrapped)
    correction = where(less(abs(step), limit), 0, subtract(wrapped, step))
    front = tuple(1 if a == at else 0 for a in range(x.ndim))
    none = (0,) * x.ndim
    moved = apply(
        "pad",
        cumulative_sum(correction, at, x.dtype),
        Tensor(0, x.dtype),
        low=front,
        high=none,
        interior=none,
    )
    return add(x, moved)


# ---- differences and integrals -------------------------------------------------------------------------------------


def ediff1d(x: TensorLike, to_end: TensorLike | None = None, to_begin: TensorLike | None = None) -> Tensor:
    """Differences of neighbours of the flattened x, between ``to_begin`` and ``to_end``.

    >>> ediff1d(Tensor([1, 4, 9]), to_begin=0).tolist()
    [0, 3, 5]
    """
    x = as_tensor(x, "ediff1d")
    line = reshape(x, (x.size,))
    parts = [diff(line) if line.size else line]
    for given, name in ((to_begin, "to_begin"), (to_end, "to_end")):
        if given is not None:
            end = as_tensor(given, "ediff1d", name, x.dtype)
            flat = cast(reshape(end, (end.size,)), x.dtype)
            parts.insert(0 if name == "to_begin" else len(parts), flat)
    return concat(parts) if len(parts) > 1 else parts[0]


def gradient(f: TensorLike, *varargs: Any, axis: Any = None, edge_order: int = 1) -> Any:
    """Derivatives of samples f by central differences, one-sided at the ends; one tensor for each axis (a tuple of several).

    ``varargs``: one distance for all axes, or for each axis a distance or the coordinates of the samples. ``edge_order`` 2 uses
    three samples at the ends. Each axis has at least ``edge_order`` + 1 samples.

    >>> gradient(Tensor([1.0, 4.0, 9.0])).tolist()
    [3.0, 4.0, 5.0]
    """
    x = float_tensor(f, "gradient", "f")
    axes = axes_of(axis, x.ndim, "gradient") if not isinstance(axis, (tuple, list)) else tuple(
        axis_of(a, x.ndim, "gradient") for a in axis
    )  # fmt: skip
    if edge_order not in (1, 2):
        raise ArgumentError(f"gradient: `edge_order` is 1 or 2, got {edge_order}")
    distances = list(varargs) or [1.0]
    if len(distances) == 1 and is_scalar(distances[0]):
        distances *= len(axes)
    if len(distances) != len(axes):
        raise ArgumentError(f"gradient: {len(varargs)} distances for {len(axes)} axes")
    out = tuple(_slope(x, a, h, edge_order) for a, h in zip(axes, distances, strict=True))
    return out[0] if len(out) == 1 else out


def _slope(x: Tensor, axis: int, spacing: Any, edge_order: int) -> Tensor:
    n = x.shape[axis]
    if n < edge_order + 1:
        raise ShapeError(f"gradient: axis {axis} of shape {x.shape} needs at least {edge_order + 1} samples")

    def part(start: int, stop: int | None) -> Tensor:
        return x[(*(slice(None),) * axis, slice(start, stop))]

    h = as_tensor(spacing, "gradient", "varargs", None if not is_scalar(spacing) else x.dtype)
    if h.ndim:
        if h.shape != (n,):
            raise ShapeError(f"gradient: coordinates of shape {h.shape} for axis {axis} of size {n}")
        steps = reshape(diff(cast(h, x.dtype)), tuple(n - 1 if a == axis else 1 for a in range(x.ndim)))
        lead = (slice(None),) * axis
        before, after = steps[(*lead, slice(None, -1))], steps[(*lead, slice(1, None))]
        first, last = steps[(*lead, slice(0, 1))], steps[(*lead, slice(n - 2, n - 1))]
        low = divide(_negated(after), multiply(before, add(before, after)))
        mid = divide(subtract(after, before), multiply(before, after))
        high = divide(before, multiply(after, add(before, after)))
        inner = add(
            add(multiply(low, part(0, n - 2)), multiply(mid, part(1, n - 1))), multiply(high, part(2, None))
        )
    else:
        h = cast(h, x.dtype)
        first = last = h
        inner = divide(subtract(part(2, None), part(0, n - 2)), multiply(h, 2))
    if edge_order == 1:
        begin = divide(subtract(part(1, 2), part(0, 1)), first)
        end = divide(subtract(part(n - 1, None), part(n - 2, n - 1)), last)
    else:
        begin, end = _second_order(part, n, steps if h.ndim else None, axis, first)
    return concat([begin, inner, end] if n > 2 else [begin, end], axis)


def _negated(x: Tensor) -> Tensor:
    return multiply(x, -1)


def _second_order(part: Any, n: int, steps: Tensor | None, axis: int, h: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives at both ends from three samples each."""
    lead = (slice(None),) * axis

    def at(i: int) -> Tensor:
        return h if steps is None else steps[(*lead, slice(i, i + 1))]

    a, b = at(0), at(1)
    begin = add(
        add(
            multiply(divide(_negated(add(multiply(a, 2), b)), multiply(a, add(a, b))), part(0, 1)),
            multiply(divide(add(a, b), multiply(a, b)), part(1, 2)),
        ),
        multiply(divide(_negated(a), multiply(b, add(a, b))), part(2, 3)),
    )
    a, b = at(n - 3), at(n - 2)
    end = add(
        add(
            multiply(divide(b, multiply(a, add(a, b))), part(n - 3, n - 2)),
            multiply(divide(_negated(add(a, b)), multiply(a, b)), part(n - 2, n - 1)),
        ),
        multiply(divide(add(multiply(b, 2), a), multiply(b, add(a, b))), part(n - 1, None)),
    )
    return begin, end


def _panels(y: TensorLike, x: TensorLike | None, dx: float, axis: int, function: str) -> tuple[Tensor, int]:
    """The areas between neighbouring samples."""
    y = float_tensor(y, function, "y")
    at = axis_of(axis, y.ndim, function)
    lead = (slice(None),) * at
    middle = multiply(add(y[(*lead, slice(1, None))], y[(*lead, slice(None, -1))]), 0.5)
    if x is None:
        return multiply(middle, dx), at
    points = as_tensor(x, function)
    if points.ndim == 1:
        if points.size != y.shape[at]:
            raise ShapeError(f"{function}: {points.size} coordinates for {y.shape[at]} samples")
        width = reshape(diff(points), tuple(points.size - 1 if a == at else 1 for a in range(y.ndim)))
    else:
        width = diff(points, axis=axis)
    return multiply(middle, width), at


def trapezoid(y: TensorLike, x: TensorLike | None = None, dx: float = 1.0, axis: int = -1) -> Tensor:
    """The integral along ``axis`` of samples y at x, or at distances ``dx``, by the trapezoidal rule.

    >>> trapezoid(Tensor([1.0, 2.0, 3.0])).item()
    4.0
    """
    areas, at = _panels(y, x, dx, axis, "trapezoid")
    return sum(areas, at)


def cumulative_trapezoid(
    y: TensorLike, x: TensorLike | None = None, dx: float = 1.0, axis: int = -1
) -> Tensor:
    """The running integral along ``axis`` by the trapezoidal rule: one element less than y."""
    areas, at = _panels(y, x, dx, axis, "cumulative_trapezoid")
    return cumulative_sum(areas, at)


# ---- polynomials ---------------------------------------------------------------------------------------------------


def _coefficients(p: TensorLike, function: str, name: str = "p") -> Tensor:
    found = as_tensor(p, function, name)
    if found.ndim > 1:
        raise ShapeError(f"{function}: `{name}` is a vector of coefficients, got shape {found.shape}")
    return reshape(found, (found.size,))


def polyval(p: TensorLike, x: TensorLike) -> Tensor:
    """The polynomial with coefficients p, the highest power first, at x, by Horner's rule.

    >>> polyval([3, 2, 1], Tensor([10])).tolist()
    [321]
    """
    p, at = _coefficients(p, "polyval"), as_tensor(x, "polyval")
    kind = dt.promote(p.dtype, at.dtype)
    at = cast(at, kind)
    out = multiply(at, 0)
    for i in range(p.size):
        out = add(multiply(out, at), cast(p[i], kind))
    return out


def polyfit(
    x: TensorLike, y: TensorLike, deg: int, rcond: float | None = None, w: TensorLike | None = None
) -> Tensor:
    """Coefficients, the highest power first, of the polynomial of degree ``deg`` nearest to the points (x, y) in least squares.

    y is [n], or [n, k] for k polynomials at once; ``w`` weighs the distances. Computed through the singular values of the matrix
    of scaled powers; those below ``rcond`` times the largest count as 0.

    >>> polyfit([0.0, 1.0, 2.0], [1.0, 3.0, 5.0], 1).round(4).tolist()
    [2.0, 1.0]
    """
    at, values = float_tensor(x, "polyfit"), float_tensor(y, "polyfit", "y")
    if at.ndim != 1 or values.ndim not in (1, 2) or values.shape[0] != at.size or not at.size:
        raise ShapeError(
            f"polyfit: `x` is [n] and `y` [n] or [n, k], n > 0; got {at.shape} and {values.shape}"
        )
    deg = whole(deg, "polyfit", "deg", 0)
    kind = dt.promote(at.dtype, values.dtype)
    powers, values = vander(cast(at, kind), deg + 1), cast(values, kind)
    if w is not None:
        weight = cast(float_tensor(w, "polyfit", "w"), kind)
        powers = multiply(powers, expand_dims(weight, 1))
        values = multiply(values, weight if values.ndim == 1 else expand_dims(weight, 1))
    scale = sqrt(sum(square(powers), 0))
    scale = where(equal(scale, 0), 1, scale)
    limit = at.size * finfo(kind).eps if rcond is None else rcond
    out = matmul(pinv(divide(powers, scale), rtol=limit), values)
    return divide(out, scale if values.ndim == 1 else expand_dims(scale, 1))


def _lengthened(p: Tensor, size: int) -> Tensor:
    return concat([Tensor(np.zeros(size - p.size, p.dtype.numpy)), p]) if p.size < size else p


def polyadd(a1: TensorLike, a2: TensorLike) -> Tensor:
    """The sum of two polynomials.

    >>> polyadd([1, 2], [9, 5, 4]).tolist()
    [9, 6, 6]
    """
    a, b = _coefficients(a1, "polyadd", "a1"), _coefficients(a2, "polyadd", "a2")
    size = max(a.size, b.size)
    return add(_lengthened(a, size), _lengthened(b, size))


def polysub(a1: TensorLike, a2: TensorLike) -> Tensor:
    """The difference of two polynomials."""
    a, b = _coefficients(a1, "polysub", "a1"), _coefficients(a2, "polysub", "a2")
    size = max(a.size, b.size)
    return subtract(_lengthened(a, size), _lengthened(b, size))


def polymul(a1: TensorLike, a2: TensorLike) -> Tensor:
    """The product of two polynomials.

    >>> polymul([1, 2], [1, -2]).tolist()
    [1, 0, -4]
    """
    a, b = _coefficients(a1, "polymul", "a1"), _coefficients(a2, "polymul", "a2")
    if not a.size or not b.size:
        raise ArgumentError("polymul: a polynomial has at least one coefficient")
    kind, width = dt.promote(a.dtype, b.dtype), a.size + b.size - 1
    products = multiply(expand_dims(cast(a, kind), 1), expand_dims(cast(b, kind), 0))
    # each row one place further to the right than the row above
    wide = apply("pad", products, Tensor(0, kind), low=(0, 0), high=(0, a.size), interior=(0, 0))
    skewed = reshape(reshape(wide, (wide.size,))[: a.size * width], (a.size, width))
    return cast(sum(skewed, 0), kind)


def polyder(p: TensorLike, m: int = 1) -> Tensor:
    """The coefficients of the m-th derivative.

    >>> polyder([1, 1, 1]).tolist()
    [2, 1]
    """
    out, m = _coefficients(p, "polyder"), whole(m, "polyder", "m", 0)
    if not out.dtype.is_inexact:
        out = cast(out, dt.promote(out.dtype, dt.int64))
    for _ in range(m):
        out = multiply(out[:-1], cast(arange(out.size - 1, 0, -1), out.dtype)) if out.size > 1 else out[:0]
    return out


def polyint(p: TensorLike, m: int = 1, k: Any = 0) -> Tensor:
    """The coefficients of the m-th integral; ``k`` are the constants of integration, one for all or one for each integral.

    >>> polyint(Tensor([2.0, 1.0])).tolist()
    [1.0, 1.0, 0.0]
    """
    out, m = float_tensor(_coefficients(p, "polyint"), "polyint"), whole(m, "polyint", "m", 0)
    constants = [k] * m if is_scalar(k) else list(k)
    if len(constants) < m:
        raise ArgumentError(f"polyint: {m} integrals need as many constants, got {k!r}")
    for constant in constants[:m]:
        powers = cast(arange(out.size, 0, -1), out.dtype)
        out = concat(
            [divide(out, powers), cast(reshape(as_tensor(constant, "polyint", "k"), (1,)), out.dtype)]
        )
    return out
