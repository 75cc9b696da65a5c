"""Discrete Fourier transforms, computed by NumPy's pocketfft on the host; shifts and sample frequencies are native.

X[k] = sum over j of x[j] exp(-2 pi i j k / n), with the factor 1 ("backward"), 1/sqrt(n) ("ortho") or 1/n ("forward");
the inverse has the factor that makes the two cancel. float32 and half types give complex64, float64 gives complex128.
The transforms are lazy, differentiable to any order, and usable in ``tw.jit``.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from tilewright.core import dtype as dt
from tilewright.functions.arguments import (
    Axes,
    TensorLike,
    axes_of,
    axis_of,
    cast,
    dtype_of,
    float_tensor,
    whole,
)
from tilewright.functions.creation import iota
from tilewright.functions.custom import custom_vjp
from tilewright.functions.elementwise import bitwise_or, conj, divide, equal, multiply, real, subtract, where
from tilewright.functions.host import host_call
from tilewright.functions.movement import roll
from tilewright.functions.padding import pad
from tilewright.tensor import ArgumentError, DTypeError, ShapeError, Tensor

__all__ = [
    "fft", "fft2", "fftfreq", "fftn", "fftshift", "hfft", "ifft", "ifft2", "ifftn", "ifftshift", "ihfft", "irfft", "irfft2",
    "irfftn", "rfft", "rfft2", "rfftfreq", "rfftn", "sized",
]  # fmt: skip

_SWAPPED = {"backward": "forward", "forward": "backward", "ortho": "ortho"}


def _operand(x: TensorLike, function: str, norm: str) -> Tensor:
    out = float_tensor(x, function)
    if norm not in _SWAPPED:
        raise ArgumentError(f"{function}: `norm` is one of {', '.join(map(repr, _SWAPPED))}, got {norm!r}")
    if function in ("rfft", "rfftn", "ihfft") and out.dtype.is_complex:
        other = "ifft" if function == "ihfft" else function[1:]
        raise DTypeError(f"{function}: takes real elements, got {out.dtype}; use `{other}`")
    return cast(out, dt.float32) if out.dtype.bits == 16 else out


def _complex_of(dtype: dt.DType) -> dt.DType:
    return dt.complex128 if dtype in (dt.float64, dt.complex128) else dt.complex64


def _real_of(dtype: dt.DType) -> dt.DType:
    return dt.float64 if dtype in (dt.float64, dt.complex128) else dt.float32


def sized(x: Tensor, sizes: tuple[int, ...], axes: tuple[int, ...]) -> Tensor:
    """x cut or filled with zeros at the end, to the given sizes along axes."""
    shape = list(x.shape)
    for a, n in zip(axes, sizes, strict=True):
        shape[a] = n
    if tuple(shape) == x.shape:
        return x
    kept = x[tuple(slice(0, min(n, d)) for n, d in zip(shape, x.shape, strict=True))]
    return pad(kept, [(0, n - d) for n, d in zip(shape, kept.shape, strict=True)])


# The three transforms that all others are made of. Their operands have the transforms' sizes, so they are linear maps with
# the adjoints below: that of a transform is the inverse one with the other norm.


@functools.partial(custom_vjp, nondiff_argnums=(1, 2, 3))
def _complex(x: Tensor, axes: tuple[int, ...], norm: str, inverse: bool) -> Tensor:
    sizes, ends = tuple(x.shape[a] for a in axes), tuple(a - x.ndim for a in axes)
    return host_call("fft", (x,), x.dtype, x.shape, sizes=sizes, axes=ends, norm=norm, inverse=inverse)


_complex.defvjp(
    lambda x, axes, norm, inverse: (_complex(x.detach(), axes, norm, inverse), None),
    lambda axes, norm, inverse, _, g: (_complex(g, axes, _SWAPPED[norm], not inverse),),
)


@functools.partial(custom_vjp, nondiff_argnums=(1, 2))
def _halved(x: Tensor, axis: int, norm: str) -> Tensor:
    n = x.shape[axis]
    shape = tuple(n // 2 + 1 if a == axis else d for a, d in enumerate(x.shape))
    return host_call("rfft", (x,), _complex_of(x.dtype), shape, n=n, axis=axis - x.ndim, norm=norm)


def _halved_backward(axis: int, norm: str, n: int, g: Tensor) -> tuple[Tensor]:
    return (real(_complex(sized(g, (n,), (axis,)), (axis,), _SWAPPED[norm], True)),)


_halved.defvjp(lambda x, axis, norm: (_halved(x.detach(), axis, norm), x.shape[axis]), _halved_backward)


@functools.partial(custom_vjp, nondiff_argnums=(1, 2, 3))
def _doubled(x: Tensor, n: int, axis: int, norm: str) -> Tensor:
    shape = tuple(n if a == axis else d for a, d in enumerate(x.shape))
    return host_call("irfft", (x,), _real_of(x.dtype), shape, n=n, axis=axis - x.ndim, norm=norm)


def _doubled_backward(n: int, axis: int, norm: str, _: Any, g: Tensor) -> tuple[Tensor]:
    """Every frequency stands for itself and its conjugate, except 0 and, for even n, the last."""
    spectrum = _halved(g, axis, _SWAPPED[norm])
    place = iota(spectrum.shape, axis)
    single = equal(place, 0) if n % 2 else bitwise_or(equal(place, 0), equal(place, n // 2))
    return (where(single, spectrum, multiply(spectrum, 2)),)


_doubled.defvjp(lambda x, n, axis, norm: (_doubled(x.detach(), n, axis, norm), None), _doubled_backward)


def _points(function: str, *sizes: int) -> None:
    if min(sizes) < 1:
        raise ArgumentError(f"{function}: a transform has at least 1 point along every axis, got {sizes}")


def _along(function: str, x: TensorLike, n: int | None, axis: int, norm: str) -> Tensor:
    out = _operand(x, function, norm)
    at = axis_of(axis, out.ndim, function)
    doubled = function in ("irfft", "hfft")
    points = (
        whole(n, function, "n") if n is not None else 2 * (out.shape[at] - 1) if doubled else out.shape[at]
    )
    _points(function, points)
    if function in ("rfft", "ihfft"):
        spectrum: Tensor = _halved(
            sized(out, (points,), (at,)), at, _SWAPPED[norm] if function == "ihfft" else norm
        )
        return conj(spectrum) if function == "ihfft" else spectrum
    out = cast(out, _complex_of(out.dtype))
    if doubled:
        half = sized(conj(out) if function == "hfft" else out, (points // 2 + 1,), (at,))
        signal: Tensor = _doubled(half, points, at, _SWAPPED[norm] if function == "hfft" else norm)
        return signal
    transformed: Tensor = _complex(sized(out, (points,), (at,)), (at,), norm, function == "ifft")
    return transformed


def _over(function: str, x: TensorLike, s: Sequence[int] | None, axes: Axes, norm: str) -> Tensor:
    out = _operand(x, function, norm)
    if s is not None:
        s = [whole(n, function, "s") for n in s]
        if len(s) > out.ndim:
            raise ShapeError(f"{function}: `s` {tuple(s)} names more axes than shape {out.shape} has")
    if axes is None:
        chosen = tuple(range(out.ndim) if s is None else range(out.ndim - len(s), out.ndim))
    else:
        listed = tuple(axes) if isinstance(axes, (tuple, list)) else (axes,)
        chosen = tuple(axis_of(a, out.ndim, function, "axes") for a in listed)
        axes_of(chosen, out.ndim, function, "axes")  # raises where one repeats
    if not chosen or (s is not None and len(s) != len(chosen)):
        raise ShapeError(f"{function}: `s` {s} and `axes` {axes} name as many axes, at least one")
    sizes = [out.shape[a] for a in chosen]
    if function == "irfftn":
        sizes[-1] = 2 * (sizes[-1] - 1)
    if s is not None:
        sizes = [d if n == -1 else n for d, n in zip(sizes, s, strict=True)]
    _points(function, *sizes)
    if function in ("fftn", "ifftn"):
        out = sized(cast(out, _complex_of(out.dtype)), tuple(sizes), chosen)
        transformed: Tensor = _complex(out, chosen, norm, function == "ifftn")
        return transformed
    first, last = chosen[:-1], chosen[-1]
    if function == "rfftn":
        spectrum: Tensor = _halved(sized(out, tuple(sizes), chosen), last, norm)
        if first:
            spectrum = _complex(spectrum, first, norm, False)
        return spectrum
    half = sized(cast(out, _complex_of(out.dtype)), (*sizes[:-1], sizes[-1] // 2 + 1), chosen)
    half = _complex(half, first, norm, True) if first else half
    signal: Tensor = _doubled(half, sizes[-1], last, norm)
    return signal


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
    n = whole(n, function, "n", 1)
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
