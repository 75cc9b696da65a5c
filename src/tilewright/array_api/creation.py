"""Creation functions with the signatures of the array API standard: ``dtype`` and ``device`` by keyword.

There is one device, ``"cpu"``. A ``dtype`` of None means the default: float32 for floating and int64 for integer numbers.
"""

from __future__ import annotations

from typing import Any

from tilewright.core import dtype as dt
from tilewright.functions import creation
from tilewright.functions.arguments import TensorLike, check_device
from tilewright.tensor import Tensor, apply

__all__ = [
    "arange", "asarray", "empty", "empty_like", "eye", "from_dlpack", "full", "full_like", "linspace",
    "ones", "ones_like", "zeros", "zeros_like",
]  # fmt: skip


def arange(
    start: float,
    /,
    stop: float | None = None,
    step: float = 1,
    *,
    dtype: Any = None,
    device: Any = None,
) -> Tensor:
    """Numbers from ``start`` (0 when only one is given) up to, not including, ``stop``.

    >>> arange(2, 8, 2).tolist()
    [2, 4, 6]
    """
    check_device(device, "arange")
    return creation.arange(start, stop, step, dtype)


def asarray(obj: TensorLike, /, *, dtype: Any = None, device: Any = None, copy: bool | None = None) -> Tensor:
    """``obj`` (numbers, nested sequences, an array) as a tensor; copied when it must be, or when ``copy``."""
    check_device(device, "asarray")
    return creation.asarray(obj, dtype, copy)


def from_dlpack(x: Any, /, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor over the memory of another library's array, without a copy when it is contiguous."""
    check_device(device, "from_dlpack")
    return creation.from_dlpack(x, device, copy)


def empty(shape: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor whose elements do not matter."""
    check_device(device, "empty")
    return creation.empty(shape, dtype=_floating(dtype))


def zeros(shape: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor of zeros."""
    check_device(device, "zeros")
    return creation.zeros(shape, dtype=_floating(dtype))


def ones(shape: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor of ones.

    >>> ones((2,), dtype=dt.int8).tolist()
    [1, 1]
    """
    check_device(device, "ones")
    return creation.ones(shape, dtype=_floating(dtype))


def full(shape: Any, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor of one repeated number, by default of the number's own type."""
    check_device(device, "full")
    return creation.full(shape, fill_value, dtype)


def empty_like(x: TensorLike, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor in the shape and type of x whose elements do not matter."""
    check_device(device, "empty_like")
    return creation.empty_like(x, dtype)


def zeros_like(x: TensorLike, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Zeros in the shape and type of x."""
    check_device(device, "zeros_like")
    return creation.zeros_like(x, dtype)


def ones_like(x: TensorLike, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Ones in the shape and type of x."""
    check_device(device, "ones_like")
    return creation.ones_like(x, dtype)


def full_like(x: TensorLike, /, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """One number in the shape and type of x."""
    check_device(device, "full_like")
    return creation.full_like(x, fill_value, dtype)


def eye(
    n_rows: int, n_cols: int | None = None, /, *, k: int = 0, dtype: Any = None, device: Any = None
) -> Tensor:
    """Ones on the k-th diagonal, zeros elsewhere: [n_rows, n_cols]."""
    check_device(device, "eye")
    return creation.eye(n_rows, n_cols, k, _floating(dtype))


def linspace(
    start: complex,
    stop: complex,
    /,
    num: int,
    *,
    dtype: Any = None,
    device: Any = None,
    endpoint: bool = True,
) -> Tensor:
    """``num`` numbers at equal distances from ``start`` to ``stop``, which is the last one when ``endpoint``.

    Complex when a bound is: real and imaginary parts go at equal distances each.
    """
    check_device(device, "linspace")
    bounds: list[Any] = [start, stop]
    if not any(isinstance(b, complex) for b in bounds):
        out: Tensor = creation.linspace(bounds[0], bounds[1], num, endpoint, dtype=dtype)
        return out
    first, last = complex(start), complex(stop)
    kind = dt.complex64 if dtype is None else dtype
    part = dt.float64 if kind is dt.complex128 else dt.float32
    real = creation.linspace(first.real, last.real, num, endpoint, dtype=part)
    imaginary = creation.linspace(first.imag, last.imag, num, endpoint, dtype=part)
    return apply("complex", real, imaginary)


def _floating(dtype: Any) -> Any:
    return dt.float32 if dtype is None else dtype
