"""Element types as data: conversion, promotion and what a type can hold, under the array API's names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.functions.arguments import TensorLike, as_tensor, cast, common_type, dtype_of, is_scalar
from tilewright.tensor import ArgumentError, DTypeError, Tensor, apply

__all__ = ["astype", "bitcast", "can_cast", "finfo", "iinfo", "isdtype", "result_type", "to"]

_KINDS = {
    "bool": "b",
    "signed integer": "i",
    "unsigned integer": "u",
    "integral": "iu",
    "real floating": "f",
    "complex floating": "c",
    "numeric": "iufc",
}


def astype(x: TensorLike, dtype: Any, copy: bool = True) -> Tensor:
    """x in another element type. Floats saturate into integers, NaN becomes 0, and to bool means ``x != 0``.

    ``copy`` is accepted for the standard's sake: tensors are immutable, so sharing cannot be told from copying.
    """
    source, kind = as_tensor(x, "astype"), dtype_of(dtype, "astype")
    return source.clone() if source.dtype is kind else cast(source, kind)


def to(x: TensorLike, *targets: Any, dtype: Any = None, device: Any = None, copy: bool = True) -> Tensor:
    """x in another element type, like ``astype``; or on the device "cpu", the only one, where it is already.

    ``targets`` are what PyTorch takes there: a type, the device, both, or a tensor whose type is meant.

    >>> to(Tensor([1.5]), "cpu", "int64").tolist()
    [1]
    """
    source = as_tensor(x, "to")
    for target in targets:
        if isinstance(target, Tensor):
            dtype = target.dtype
        elif str(target) == "cpu" or (isinstance(target, str) and target not in dt.BY_NAME):
            device = target
        elif not isinstance(target, bool):  # PyTorch's `non_blocking` and `copy`
            dtype = target
    if device is not None and str(device) != "cpu":
        raise ArgumentError(
            f"to: no device or data type is called {str(device)!r}; the device is 'cpu': there is no GPU support"
        )
    return source if dtype is None else astype(source, dtype, copy)


def bitcast(x: TensorLike, dtype: Any) -> Tensor:
    """The bits of x read as another type of the same width."""
    try:
        return apply("bitcast", as_tensor(x, "bitcast"), dtype=dtype_of(dtype, "bitcast"))
    except TypeError as error:
        raise DTypeError(str(error)) from None


def isdtype(dtype: Any, kind: Any) -> bool:
    """Whether a type is of a kind: a type, a kind's name ("bool", "integral", "real floating", ...), or a tuple of them."""
    found = dtype_of(dtype, "isdtype")
    if isinstance(kind, tuple):
        return any(isdtype(found, k) for k in kind)
    if isinstance(kind, str) and kind in _KINDS:
        return found.kind in _KINDS[kind]
    if isinstance(kind, str) and kind not in dt.BY_NAME:
        raise ArgumentError(
            f"isdtype: `kind` is a type or one of {', '.join(map(repr, _KINDS))}, got {kind!r}"
        )
    return found is dtype_of(kind, "isdtype")


def result_type(*arrays_and_dtypes: Any) -> DType:
    """The element type of an operation on these tensors, types and Python numbers together."""
    items: list[Any] = []
    for x in arrays_and_dtypes:
        if isinstance(x, Tensor) or is_scalar(x):
            items.append(x)
        elif isinstance(x, (np.ndarray, np.generic)):
            items.append(Tensor(np.zeros((), x.dtype)))
        else:
            items.append(Tensor(np.zeros((), dtype_of(x, "result_type").numpy)))
    return common_type("result_type", items)


def can_cast(from_: Any, to: Any) -> bool:
    """Whether promotion alone leads from a type (or a tensor's type) to ``to``."""
    source = from_.dtype if isinstance(from_, Tensor) else dtype_of(from_, "can_cast")
    target = dtype_of(to, "can_cast")
    return dt.promote(source, target) is target


@dataclass(frozen=True)
class FloatInfo:
    """What a floating type can hold. ``eps``: the step from 1 to the next larger number."""

    dtype: DType
    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float


@dataclass(frozen=True)
class IntegerInfo:
    """What an integer type can hold."""

    dtype: DType
    bits: int
    max: int
    min: int


def finfo(type: Any) -> FloatInfo:
    """Limits of a floating type (for a complex type, of its parts)."""
    kind = type.dtype if isinstance(type, Tensor) else dtype_of(type, "finfo")
    if kind.is_complex:
        kind = dt.float64 if kind is dt.complex128 else dt.float32
    if not kind.is_float:
        raise DTypeError(f"finfo: {kind} is not a floating type; see `iinfo`")
    info: Any = ml_dtypes.finfo(kind.numpy)  # type: ignore[no-untyped-call]
    return FloatInfo(
        kind, kind.bits, float(info.eps), float(info.max), float(info.min), float(info.smallest_normal)
    )


def iinfo(type: Any) -> IntegerInfo:
    """Limits of an integer type."""
    kind = type.dtype if isinstance(type, Tensor) else dtype_of(type, "iinfo")
    if not kind.is_integer:
        raise DTypeError(f"iinfo: {kind} is not an integer type; see `finfo`")
    info = np.iinfo(kind.name)
    return IntegerInfo(kind, kind.bits, int(info.max), int(info.min))
