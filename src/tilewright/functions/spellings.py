"""Other libraries' spellings of arguments, in one place: PyTorch's ``dim`` and ``keepdim``, NumPy's ``ddof`` and ``reps``.

``spelled`` puts a translation of keyword arguments in front of a function; calls without such keywords are passed on as they
are. The name ``dim`` also asks for PyTorch's result where that is a pair: ``max``, ``min``, ``sort`` and ``median`` then give
(values, indices). Everything else means the same under either name.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, MutableMapping
from typing import Any

from tilewright.functions.arguments import TensorLike, as_tensor, axis_of
from tilewright.functions.elementwise import isnan, where
from tilewright.functions.indexing import take_along_axis
from tilewright.functions.movement import squeeze
from tilewright.functions.reductions import any as any_of
from tilewright.functions.reductions import argmax, argmin
from tilewright.functions.sorting import ValuesIndices, argsort, kthvalue
from tilewright.tensor import ArgumentError, Tensor

__all__ = ["spell_all", "spelled"]

SPELLINGS = {
    "dim": "axis",
    "dims": "axis",
    "keepdim": "keepdims",
    "ddof": "correction",
    "unbiased": "correction",
    "reps": "repetitions",
    "shifts": "shift",
    "a_min": "min",
    "a_max": "max",
    "dim0": "axis1",
    "dim1": "axis2",
}


def _pick(
    x: TensorLike, axis: int, keepdims: bool, find: Callable[..., Tensor], function: str
) -> ValuesIndices:
    x = as_tensor(x, function)
    at = axis_of(axis, x.ndim, function, "dim")
    indices = find(x, at, True)
    values = take_along_axis(x, indices, at)
    return (
        ValuesIndices(values, indices)
        if keepdims
        else ValuesIndices(squeeze(values, at), squeeze(indices, at))
    )


def _max(x: TensorLike, axis: int, keepdims: bool = False) -> ValuesIndices:
    return _pick(x, axis, keepdims, argmax, "max")


def _min(x: TensorLike, axis: int, keepdims: bool = False) -> ValuesIndices:
    return _pick(x, axis, keepdims, argmin, "min")


def _sort(x: TensorLike, axis: int = -1, descending: bool = False, stable: bool = True) -> ValuesIndices:
    x = as_tensor(x, "sort")
    order = argsort(x, axis, descending, stable)
    return ValuesIndices(take_along_axis(x, order, axis) if x.size else x.clone(), order)


def _median(x: TensorLike, axis: int, keepdims: bool = False) -> ValuesIndices:
    """The lower one of two middle elements, and NaN where there is one."""
    x = as_tensor(x, "median")
    at = axis_of(axis, x.ndim, "median", "dim")
    found = kthvalue(x, (x.shape[at] + 1) // 2, at, True)
    if x.dtype.is_float:
        broken = any_of(isnan(x), at, True)
        first = argmax(x, at, True)  # the first NaN is the largest
        place = where(broken, first, found.indices)
        found = ValuesIndices(take_along_axis(x, place, at), place)
    return found if keepdims else ValuesIndices(squeeze(found.values, at), squeeze(found.indices, at))


_PAIRS: dict[str, Callable[..., ValuesIndices]] = {"max": _max, "min": _min, "sort": _sort, "median": _median}


_UNSAID = {
    "out": "a result is a new tensor: write `y[...] = ...`",
    "dtype": "convert the operand: `x.astype(dtype)`",
}
"""Taken when None: ``numpy.mean(x)`` calls ``x.mean(axis=None, dtype=None, out=None)``. Otherwise, what to do instead."""


def spelled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with the other spellings of its keyword arguments; itself when it has none of these arguments."""
    names = inspect.signature(function).parameters
    table = {other: own for other, own in SPELLINGS.items() if own in names and other not in names}
    if not table:
        return function
    table.update({name: "" for name in _UNSAID if name not in names})
    paired = _PAIRS.get(function.__name__)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not kwargs or table.keys().isdisjoint(kwargs):
            return function(*args, **kwargs)
        chosen = paired if paired is not None and "dim" in kwargs else function
        return chosen(*args, **_translated(function.__name__, kwargs, table))

    return call


def _translated(function: str, given: dict[str, Any], table: dict[str, str]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in given.items():
        own = table.get(name, name)
        if not own:
            if value is not None:
                raise ArgumentError(f"{function}: there is no `{name}`; {_UNSAID[name]}")
            continue
        if own in out:
            raise ArgumentError(f"{function}: `{own}` is given twice, the second time as `{name}`")
        out[own] = float(bool(value)) if name == "unbiased" else value
    return out


def spell_all(names: MutableMapping[str, Any], keep: Any = ()) -> None:
    """Put ``spelled`` functions in place of the functions of a namespace that take ``axis``, ``keepdims`` and their like."""
    for name, value in list(names.items()):
        if not name.startswith("_") and inspect.isfunction(value) and name not in keep:
            names[name] = spelled(value)
