"""``pad`` with NumPy's modes: elements added around a tensor, one axis after the other.

Constants are one operation. Modes that repeat elements pick them by indices that are known while tracing; the others add
numbers computed from the elements of the axis.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tilewright.functions.arguments import TensorLike, as_tensor, axis_of, broadcast_to_shape, cast, is_scalar
from tilewright.functions.creation import iota
from tilewright.functions.elementwise import add, divide, multiply, round, subtract
from tilewright.functions.indexing import take
from tilewright.functions.movement import concat, flip
from tilewright.functions.reductions import max, mean, min
from tilewright.functions.statistics import median
from tilewright.tensor import ArgumentError, ShapeError, Tensor, apply

__all__ = ["pad"]

_PICKED = ("edge", "reflect", "symmetric", "wrap")
_STATISTICS: dict[str, Callable[..., Tensor]] = {
    "maximum": max,
    "mean": mean,
    "median": median,
    "minimum": min,
}
_MODES = ("constant", "empty", "linear_ramp", *_PICKED, *_STATISTICS)


def pad(
    x: TensorLike,
    pad_width: Any,
    mode: str = "constant",
    constant_values: Any = 0,
    end_values: Any = 0,
    stat_length: Any = None,
    reflect_type: str = "even",
) -> Tensor:
    """x with elements added around it.

    ``pad_width`` is one (low, high) pair for each axis, one pair for all, one number, or a dict from axes to these. The other
    arguments of a mode take the same forms:

    - ``constant``: ``constant_values``; ``empty``: zeros.
    - ``edge``: the outermost element. ``wrap``: the elements from the other side.
    - ``reflect``, ``symmetric``: the elements mirrored at the outermost one, which is not (is) repeated; with
      ``reflect_type="odd"`` twice the outermost element minus these.
    - ``linear_ramp``: even steps to ``end_values``.
    - ``maximum``, ``mean``, ``median``, ``minimum``: of the outermost ``stat_length`` elements, or of all.

    Raises ``ArgumentError`` for another mode and ``ShapeError`` where a mode needs elements and the axis has none.

    >>> pad(Tensor([1, 2]), (1, 0)).tolist()
    [0, 1, 2]
    >>> pad(Tensor([1, 2, 3]), 2, mode="reflect").tolist()
    [3, 2, 1, 2, 3, 2, 1]
    """
    out = as_tensor(x, "pad")
    if mode not in _MODES:
        raise ArgumentError(f"pad: `mode` is one of {', '.join(map(repr, _MODES))}, got {mode!r}")
    widths = _widths(pad_width, out.ndim)
    if mode in ("constant", "empty") and is_scalar(constant_values):
        return _constant(out, widths, 0 if mode == "empty" else constant_values)
    fill = _sides(constant_values if mode != "linear_ramp" else end_values, out.ndim, "constant_values")
    lengths = _sides(stat_length, out.ndim, "stat_length")
    for axis, (low, high) in enumerate(widths):
        if not low and not high:
            continue
        if mode == "constant":
            out = _joined(out, axis, low, high, *(_filled(v, out, axis) for v in fill[axis]))
        elif not out.shape[axis]:
            raise ShapeError(f"pad: axis {axis} of shape {out.shape} has no elements for mode {mode!r}")
        elif mode == "linear_ramp":
            out = _ramp(out, axis, low, high, fill[axis])
        elif mode in _STATISTICS:
            out = _statistic(out, axis, low, high, mode, lengths[axis])
        else:
            out = _picked(out, axis, low, high, mode, reflect_type)
    return out


def _widths(pad_width: Any, rank: int) -> list[tuple[int, int]]:
    if isinstance(pad_width, dict):
        given = {axis_of(a, rank, "pad", "pad_width"): w for a, w in pad_width.items()}
        pad_width = [np.broadcast_to(np.asarray(given.get(a, 0)), (2,)) for a in range(rank)]
    try:
        widths = np.broadcast_to(np.asarray(pad_width), (rank, 2))
    except ValueError:
        widths = np.full((1, 1), -1)
    if (widths.dtype.kind not in "iu" and widths.size) or (widths < 0).any():
        raise ArgumentError(
            f"pad: `pad_width` holds non-negative integers: one, (low, high), or such a pair for each of {rank} axes,"
            f" got {pad_width!r}"
        )
    return [(int(low), int(high)) for low, high in widths]


def _sides(values: Any, rank: int, name: str) -> list[tuple[Any, Any]]:
    """A value for both sides of every axis from one, a pair, or a pair for each axis. Tensors count as one value."""
    if values is None or is_scalar(values) or isinstance(values, Tensor):
        return [(values, values)] * rank
    items = np.empty((), object) if values is None else np.asarray(values, dtype=object)
    try:
        pairs = np.broadcast_to(items, (rank, 2))
    except ValueError:
        raise ArgumentError(
            f"pad: `{name}` is one value, a pair, or a pair for each of {rank} axes, got {values!r}"
        ) from None
    return [(a, b) for a, b in pairs]


def _constant(x: Tensor, widths: list[tuple[int, int]], value: Any) -> Tensor:
    if not any(low or high for low, high in widths):
        return x.clone()
    low, high = (tuple(w[i] for w in widths) for i in range(2))
    return apply("pad", x, Tensor(value, x.dtype), low=low, high=high, interior=(0,) * x.ndim)


def _filled(value: Any, x: Tensor, axis: int) -> Tensor:
    return cast(as_tensor(value, "pad", "constant_values", x.dtype), x.dtype)


def _joined(x: Tensor, axis: int, low: int, high: int, before: Tensor, after: Tensor) -> Tensor:
    """x between two tensors that broadcast to the elements to add."""
    parts = [x]
    for width, value, front in ((low, before, True), (high, after, False)):
        if width:
            shape = (*x.shape[:axis], width, *x.shape[axis + 1 :])
            parts.insert(0 if front else len(parts), broadcast_to_shape(cast(value, x.dtype), shape))
    return concat(parts, axis)


def _part(x: Tensor, axis: int, start: int, stop: int) -> Tensor:
    return x[(*(slice(None),) * axis, slice(start, stop))]


def _ramp(x: Tensor, axis: int, low: int, high: int, ends: tuple[Any, Any]) -> Tensor:
    size = x.shape[axis]

    def steps(width: int, edge: Tensor, end: Any, front: bool) -> Tensor:
        end = as_tensor(end, "pad", "end_values")
        shape = tuple(max_width if a == axis else 1 for a, max_width in enumerate([width] * x.ndim))
        count = iota(shape, axis)
        away = subtract(width, count) if front else add(count, 1)
        kind = x.dtype if x.dtype.is_inexact else Tensor(1.0, "float64").dtype
        start, share = cast(edge, kind), divide(cast(away, kind), float(width) or 1.0)
        ramp = add(start, multiply(share, subtract(cast(end, kind), start)))
        return _floored(ramp) if x.dtype.is_integer else ramp

    return _joined(
        x, axis, low, high, steps(low, _part(x, axis, 0, 1), ends[0], True),
        steps(high, _part(x, axis, size - 1, size), ends[1], False),
    )  # fmt: skip


def _floored(ramp: Tensor) -> Tensor:
    """Steps of a ramp between integers, rounded down as NumPy does: rounding errors must not push 3 below 3 before that."""
    near = round(ramp)
    return apply(
        "where", apply("lt", apply("abs", subtract(ramp, near)), _small(ramp)), near, apply("floor", ramp)
    )


def _small(x: Tensor) -> Tensor:
    return broadcast_to_shape(Tensor(1e-9, x.dtype), x.shape)


def _statistic(x: Tensor, axis: int, low: int, high: int, mode: str, lengths: tuple[Any, Any]) -> Tensor:
    size = x.shape[axis]
    found = []
    for length, front in zip(lengths, (True, False), strict=True):
        count = size if length is None else int(length)
        if count < 1:
            raise ArgumentError(f"pad: `stat_length` is positive, got {length}")
        count = count if count < size else size
        part = _part(x, axis, 0, count) if front else _part(x, axis, size - count, size)
        value = _STATISTICS[mode](part, axis=axis, keepdims=True)
        found.append(round(value) if value.dtype.is_float and not x.dtype.is_inexact else value)
    return _joined(x, axis, low, high, *found)


def _picked(x: Tensor, axis: int, low: int, high: int, mode: str, reflect_type: str) -> Tensor:
    size = x.shape[axis]
    if reflect_type not in ("even", "odd"):
        raise ArgumentError(f"pad: `reflect_type` is 'even' or 'odd', got {reflect_type!r}")
    if reflect_type == "odd" and mode in ("reflect", "symmetric") and size > 1:
        return _odd(x, axis, low, high, mode)
    return take(x, np.pad(np.arange(size), (low, high), mode=mode), axis)  # type: ignore[call-overload]


def _odd(x: Tensor, axis: int, low: int, high: int, mode: str) -> Tensor:
    """Mirrored through the outermost elements, again and again as long as elements are missing."""
    skip = 1 if mode == "reflect" else 0
    while low or high:
        size = x.shape[axis]
        first, last = _part(x, axis, 0, 1), _part(x, axis, size - 1, size)
        parts = [x]
        left, right = (width if width < size - skip else size - skip for width in (low, high))
        if left:
            mirrored = flip(_part(x, axis, skip, skip + left), axis)
            parts.insert(0, subtract(multiply(first, 2), mirrored))
        if right:
            mirrored = flip(_part(x, axis, size - skip - right, size - skip), axis)
            parts.append(subtract(multiply(last, 2), mirrored))
        x, low, high = concat(parts, axis), low - left, high - right
    return x
