"""Discrete Fourier transforms, computed by NumPy's pocketfft on the host; shifts and sample frequencies are native.

X[k] = sum over j of x[j] exp(-2 pi i j k / n), with the factor 1 ("backward"), 1/sqrt(n) ("ortho") or 1/n ("forward");
the inverse has the factor that makes the two cancel. float32 and half types give complex64, float64 gives complex128.
The transforms have no derivative yet and compute their operand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tilewright.core import dtype as dt
from tilewright.functions.arguments import Axes, TensorLike, axes_of, axis_of, cast, dtype_of, float_tensor
from tilewright.functions.creation import iota
from tilewright.functions.elementwise import divide, subtract, where
from tilewright.functions.host import host_call
from tilewright.functions.movement import roll
from tilewright.tensor import ArgumentError, DTypeError, ShapeError, Tensor

__all__ = [
    "fft", "fft2", "fftfreq", "fftn", "fftshift", "hfft", "ifft", "ifft2", "ifftn", "ifftshift", "ihfft", "irfft", "irfft2",
    "irfftn", "rfft", "rfft2", "rfftfreq", "rfftn",
]  # fmt: skip

_NORMS = ("backward", "ortho", "forward")
_REAL_INPUT = ("rfft", "rfftn", "ihfft")


def _operand(x: TensorLike, function: str, norm: str) -> Tensor:
    x = float_tensor(x, function)
    if norm not in _NORMS:
        raise ArgumentError(f"{function}: `norm` is one of {', '.join(map(repr, _NORMS))}, got {norm!r}")
    if function in _REAL_INPUT and x.dtype.is_complex:
        raise DTypeError(
            f"{function}: takes real elements, got {x.dtype}; use `{'ifft' if function == 'ihfft' else function[1:]}`"
        )
    return cast(x, dt.float32) if x.dtype.bits == 16 else x


def _along(function: str, x: TensorLike, n: int | None, axis: int, norm: str) -> Tensor:
    x = _operand(x, function, norm)
    at = axis_of(axis, x.ndim, function)
    halved = function in ("irfft", "hfft")
    points = (2 * (x.shape[at] - 1) if halved else x.shape[at]) if n is None else n
    if points < 1:
        raise ArgumentError(f"{function}: a transform has at least 1 point, got {points}")
    transform: Callable[..., Any] = getattr(np.fft, function)
    return host_call(function, lambda a: transform(a, n=n, axis=at, norm=norm), x)[0]


def _over(function: str, x: TensorLike, s: Sequence[int] | None, axes: Axes, norm: str) -> Tensor:
    x = _operand(x, function, norm)
    if axes is None:
        chosen = tuple(range(x.ndim) if s is None else range(x.ndim - len(s), x.ndim))
    else:
        listed = tuple(axes) if isinstance(axes, (tuple, list)) else (axes,)
        axes_of(listed, x.ndim, function, "axes")  # raises for an axis that does not exist or repeats
        chosen = tuple(axis_of(a, x.ndim, function, "axes") for a in listed)
    if s is not None and len(s) != len(chosen):
        raise ShapeError(f"{function}: `s` has {len(s)} sizes for {len(chosen)} axes")
    if not chosen:
        raise ArgumentError(f"{function}: needs at least one axis")
    sizes = (
        [x.shape[a] for a in chosen]
        if s is None
        else [x.shape[a] if n == -1 else n for a, n in zip(chosen, s, strict=True)]
    )
    if s is None and function == "irfftn":
        sizes[-1] = 2 * (sizes[-1] - 1)
    if min(sizes) < 1:
        raise ArgumentError(
            f"{function}: a transform has at least 1 point along every axis, got {tuple(sizes)}"
        )
    transform: Callable[..., Any] = getattr(np.fft, function)
    return host_call(function, lambda a: transform(a, s=sizes, axes=chosen, norm=norm), x)[0]


def fft(x: TensorLike, n: int | None = None, axis: int = -1, norm: str = "backward") -> Tensor:
    """Discrete Fourier transform along ``axis``, cut or filled with zeros to ``n`` points; complex.

    Raises ``AxisError`` for an axis that x lacks and ``ArgumentError`` for an unknown ``norm`` or no points.

    >>> fft(Tensor([1.0, 0.0, 0.0])).tolist()
    [(1+0j), (1+0j), (1+0j)]
    """
    return _along("fft", x, n, axis, norm)


def ifft(x: TensorLike, n: int | None = None, axis: int = -1, norm: str = "backward") -> Tensor:
    """Inverse of ``fft``; complex."""
    return _along("ifft", x, n, axis, norm)


def rfft(x: TensorLike, n: int | None = None, axis: int = -1, norm: str = "backward") -> Tensor:
    """The first n // 2 + 1 frequencies of a real x, which say all: complex [..., n // 2 + 1, ...]."""
    return _along("rfft", x, n, axis, norm)


def irfft(x: TensorLike, n: int | None = None, axis: int = -1, norm: str = "backward") -> Tensor:
    """Inverse of ``rfft``: n real points, by default 2 * (size - 1), since n itself cannot be told from the operand."""
    return _along("irfft", x, n, axis, norm)


def hfft(x: TensorLike, n: int | None = None, axis: int = -1, norm: str = "backward") -> Tensor:
    """Transform of a signal with Hermitian symmetry, given by its first half: n real frequencies."""
    return _along("hfft", x, n, axis, norm)


def ihfft(x: TensorLike, n: int | None = None, axis: int = -1, norm: str = "backward") -> Tensor:
    """Inverse of ``hfft``: complex [..., n // 2 + 1, ...] from n real frequencies."""
    return _along("ihfft", x, n, axis, norm)


def fftn(x: TensorLike, s: Sequence[int] | None = None, axes: Axes = None, norm: str = "backward") -> Tensor:
    """``fft`` along several axes (all by default, the last ``len(s)`` when only ``s`` is given)."""
    return _over("fftn", x, s, axes, norm)


def ifftn(x: TensorLike, s: Sequence[int] | None = None, axes: Axes = None, norm: str = "backward") -> Tensor:
    """Inverse of ``fftn``."""
    return _over("ifftn", x, s, axes, norm)


def rfftn(x: TensorLike, s: Sequence[int] | None = None, axes: Axes = None, norm: str = "backward") -> Tensor:
    """``rfft`` along the last of the axes and ``fft`` along the others."""
    return _over("rfftn", x, s, axes, norm)


def irfftn(
    x: TensorLike, s: Sequence[int] | None = None, axes: Axes = None, norm: str = "backward"
) -> Tensor:
    """Inverse of ``rfftn``; real."""
    return _over("irfftn", x, s, axes, norm)


def fft2(
    x: TensorLike, s: Sequence[int] | None = None, axes: Axes = (-2, -1), norm: str = "backward"
) -> Tensor:
    """``fftn`` over the last two axes."""
    return _over("fftn", x, s, axes, norm)


def ifft2(
    x: TensorLike, s: Sequence[int] | None = None, axes: Axes = (-2, -1), norm: str = "backward"
) -> Tensor:
    """``ifftn`` over the last two axes."""
    return _over("ifftn", x, s, axes, norm)


def rfft2(
    x: TensorLike, s: Sequence[int] | None = None, axes: Axes = (-2, -1), norm: str = "backward"
) -> Tensor:
    """``rfftn`` over the last two axes."""
    return _over("rfftn", x, s, axes, norm)


def irfft2(
    x: TensorLike, s: Sequence[int] | None = None, axes: Axes = (-2, -1), norm: str = "backward"
) -> Tensor:
    """``irfftn`` over the last two axes."""
    return _over("irfftn", x, s, axes, norm)


# ---- frequencies --------------------------------------------------------------------------------------------------


def fftfreq(n: int, d: float = 1.0, dtype: Any = dt.float32) -> Tensor:
    """The frequencies of ``fft`` for samples ``d`` apart, in cycles per unit of d: [n], zero first, then the positive ones.

    >>> fftfreq(4).tolist()
    [0.0, 0.25, -0.5, -0.25]
    """
    kind = _frequencies(n, d, dtype, "fftfreq")
    index = iota((n,))
    centred = where(index < (n + 1) // 2, index, subtract(index, n))
    return cast(divide(cast(centred, dt.float64), n * d), kind)


def rfftfreq(n: int, d: float = 1.0, dtype: Any = dt.float32) -> Tensor:
    """The frequencies of ``rfft`` for samples ``d`` apart: [n // 2 + 1]."""
    kind = _frequencies(n, d, dtype, "rfftfreq")
    return cast(divide(cast(iota((n // 2 + 1,)), dt.float64), n * d), kind)


def _frequencies(n: int, d: float, dtype: Any, function: str) -> dt.DType:
    if not isinstance(n, int) or n < 1:
        raise ArgumentError(f"{function}: `n` is a positive integer, got {n!r}")
    if d == 0:
        raise ArgumentError(f"{function}: samples are not 0 apart (`d`)")
    kind = dtype_of(dt.float32 if dtype is None else dtype, function)
    if not kind.is_float:
        raise DTypeError(f"{function}: frequencies are of a real floating type, got {kind}")
    return kind


def fftshift(x: TensorLike, axes: Axes = None) -> Tensor:
    """Frequency zero moved from the front to the middle along ``axes`` (all by default)."""
    return _shifted(x, axes, "fftshift", 1)


def ifftshift(x: TensorLike, axes: Axes = None) -> Tensor:
    """Inverse of ``fftshift``."""
    return _shifted(x, axes, "ifftshift", -1)


def _shifted(x: TensorLike, axes: Axes, function: str, sign: int) -> Tensor:
    x = x if isinstance(x, Tensor) else float_tensor(x, function)
    chosen = axes_of(axes, x.ndim, function, "axes")
    return roll(x, [sign * (x.shape[a] // 2) for a in chosen], chosen) if chosen else x.clone()
