"""Discrete cosine and sine transforms, types 1 to 4, made of the Fourier transforms in ``fft`` and differentiable like them.

With N points, j and k from 0, and the sums over j (Rao & Yip, Discrete Cosine Transform, 1990):

    dct 1   x[0] + (-1)^k x[N-1] + 2 sum x[j] cos(pi j k / (N-1)), j = 1 ... N-2
    dct 2   2 sum x[j] cos(pi (2j+1) k / 2N)
    dct 3   x[0] + 2 sum x[j] cos(pi j (2k+1) / 2N), j = 1 ... N-1
    dct 4   2 sum x[j] cos(pi (2j+1) (2k+1) / 4N)
    dst 1   2 sum x[j] sin(pi (j+1) (k+1) / (N+1))
    dst 2   2 sum x[j] sin(pi (2j+1) (k+1) / 2N)
    dst 3   (-1)^k x[N-1] + 2 sum x[j] sin(pi (j+1) (2k+1) / 2N), j = 0 ... N-2
    dst 4   2 sum x[j] sin(pi (2j+1) (2k+1) / 4N)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tilewright.core import dtype as dt
from tilewright.functions.arguments import Axes, TensorLike, axes_of, axis_of, cast, float_tensor
from tilewright.functions.elementwise import add, imag, multiply, negative, real
from tilewright.functions.fft import fft, irfft, rfft, sized
from tilewright.functions.movement import concat, flip, moveaxis
from tilewright.tensor import ArgumentError, ShapeError, Tensor

__all__ = ["dct", "dctn", "dst", "dstn", "idct", "idctn", "idst", "idstn"]

_NORMS = ("backward", "ortho", "forward")
_INVERSE = {1: 1, 2: 3, 3: 2, 4: 4}


def _turn(x: Tensor, angle: np.ndarray[Any, Any]) -> Tensor:
    """x times exp(-i angle), of the complex type of x."""
    kind = np.complex128 if x.dtype in (dt.float64, dt.complex128) else np.complex64
    return multiply(x, Tensor(np.exp(-1j * angle).astype(kind)))


def _alternating(x: Tensor) -> Tensor:
    signs = 1.0 - 2.0 * (np.arange(x.shape[-1]) % 2)
    return multiply(x, Tensor(signs.astype(x.dtype.numpy)))


def _cosine(x: Tensor, type: int) -> Tensor:
    """The transform along the last axis, without factors."""
    n = x.shape[-1]
    k = np.arange(n)
    if type == 1:
        return real(rfft(concat([x, flip(x[..., 1:-1], -1)], axis=-1)))
    if type == 2:
        both = rfft(concat([x, flip(x, -1)], axis=-1))[..., :n]
        return real(_turn(both, np.pi * k / (2 * n)))
    if type == 3:
        return multiply(irfft(_turn(x, -np.pi * k / (2 * n)), n=2 * n)[..., :n], 2 * n)
    spectrum = fft(_turn(x, np.pi * k / (2 * n)), n=2 * n)[..., :n]
    return multiply(real(_turn(spectrum, np.pi * (2 * k + 1) / (4 * n))), 2)


def _sine(x: Tensor, type: int) -> Tensor:
    n = x.shape[-1]
    if type == 1:
        nothing = multiply(x[..., :1], 0)
        whole = concat([nothing, x, nothing, negative(flip(x, -1))], axis=-1)
        return negative(imag(rfft(whole)[..., 1 : n + 1]))
    if type == 2:
        return flip(_cosine(_alternating(x), 2), -1)
    return _alternating(_cosine(flip(x, -1), type))


def _ends(x: Tensor, cosine: bool, type: int, factor: float) -> Tensor:
    """x with the elements multiplied that orthogonal transforms weigh apart from the others."""
    weights = np.ones(x.shape[-1])
    if cosine:
        weights[0] = factor
    if type == 1 or not cosine:
        weights[-1] = factor
    return multiply(x, Tensor(weights.astype(x.dtype.numpy)))


def _transform(
    function: str, x: TensorLike, type: int, n: int | None, axis: int, norm: str | None, inverse: bool
) -> Tensor:
    norm = "backward" if norm is None else norm
    if isinstance(type, bool) or type not in _INVERSE:
        raise ArgumentError(f"{function}: `type` is 1, 2, 3 or 4, got {type!r}")
    if norm not in _NORMS:
        raise ArgumentError(f"{function}: `norm` is one of {', '.join(map(repr, _NORMS))}, got {norm!r}")
    x = float_tensor(x, function)
    if x.dtype.is_complex:
        parts = [_transform(function, part, type, n, axis, norm, inverse) for part in (real(x), imag(x))]
        return add(parts[0], multiply(cast(parts[1], x.dtype), 1j))
    wide = cast(x, dt.float32) if x.dtype.bits == 16 else x
    at = axis_of(axis, x.ndim, function)
    points = x.shape[at] if n is None else n
    cosine = "dct" in function
    if points < (2 if cosine and type == 1 else 1):
        raise ArgumentError(f"{function}: type {type} has more points along axis {axis} than {points}")
    out = moveaxis(sized(wide, (points,), (at,)), at, -1)
    kind = _INVERSE[type] if inverse else type
    period = 2 * (points + (0 if type != 1 else -1 if cosine else 1))
    ortho = norm == "ortho"
    if ortho and (kind == 3 or (kind == 1 and cosine)):
        out = _ends(out, cosine, kind, math.sqrt(2))
    out = (_cosine if cosine else _sine)(out, kind)
    if ortho and (kind == 2 or (kind == 1 and cosine)):
        out = _ends(out, cosine, kind, math.sqrt(0.5))
    if ortho:
        out = multiply(out, 1 / math.sqrt(period))
    elif (norm == "forward") != inverse:
        out = multiply(out, 1 / period)
    return moveaxis(cast(out, x.dtype), -1, at)


def _over(
    function: str, x: TensorLike, type: int, s: Sequence[int] | None, axes: Axes, norm: str | None, inverse: bool
) -> Tensor:  # fmt: skip
    out = float_tensor(x, function)
    if axes is None:
        listed = tuple(range(out.ndim) if s is None else range(out.ndim - len(s), out.ndim))
    else:
        listed = (
            tuple(axes) if isinstance(axes, (tuple, list)) else (axis_of(axes, out.ndim, function, "axes"),)
        )
    axes_of(listed, out.ndim, function, "axes")
    if s is not None and len(s) != len(listed):
        raise ShapeError(f"{function}: `s` {tuple(s)} and `axes` {listed} name as many axes")
    for i, axis in enumerate(listed):
        out = _transform(function, out, type, None if s is None else s[i], axis, norm, inverse)
    return out


def dct(
    x: TensorLike, type: int = 2, n: int | None = None, axis: int = -1, norm: str | None = None
) -> Tensor:
    """Discrete cosine transform along ``axis``, cut or filled with zeros to ``n`` points; real for real x.

    ``norm``: "backward" (or None) as in the formulas at the top of this file, "forward" divided by the period 2N (type 1:
    2(N - 1)), "ortho" by its root and with the ends weighed so that the transform is orthogonal. Raises ``ArgumentError``
    for an unknown ``type`` or ``norm`` and for too few points.

    >>> dct(Tensor([1.0, 1.0]), norm="ortho").tolist()
    [1.4142135381698608, 0.0]
    """
    return _transform("dct", x, type, n, axis, norm, False)


def idct(
    x: TensorLike, type: int = 2, n: int | None = None, axis: int = -1, norm: str | None = None
) -> Tensor:
    """The inverse of ``dct`` of the same ``type`` and ``norm``."""
    return _transform("idct", x, type, n, axis, norm, True)


def dst(
    x: TensorLike, type: int = 2, n: int | None = None, axis: int = -1, norm: str | None = None
) -> Tensor:
    """Discrete sine transform along ``axis``; arguments as in ``dct`` (the period of type 1 is 2(N + 1))."""
    return _transform("dst", x, type, n, axis, norm, False)


def idst(
    x: TensorLike, type: int = 2, n: int | None = None, axis: int = -1, norm: str | None = None
) -> Tensor:
    """The inverse of ``dst`` of the same ``type`` and ``norm``."""
    return _transform("idst", x, type, n, axis, norm, True)


def dctn(
    x: TensorLike, type: int = 2, s: Sequence[int] | None = None, axes: Axes = None, norm: str | None = None
) -> Tensor:
    """``dct`` along several axes (all by default, the last ``len(s)`` when only ``s`` is given)."""
    return _over("dctn", x, type, s, axes, norm, False)


def idctn(
    x: TensorLike, type: int = 2, s: Sequence[int] | None = None, axes: Axes = None, norm: str | None = None
) -> Tensor:
    """Inverse of ``dctn``."""
    return _over("idctn", x, type, s, axes, norm, True)


def dstn(
    x: TensorLike, type: int = 2, s: Sequence[int] | None = None, axes: Axes = None, norm: str | None = None
) -> Tensor:
    """``dst`` along several axes (all by default, the last ``len(s)`` when only ``s`` is given)."""
    return _over("dstn", x, type, s, axes, norm, False)


def idstn(
    x: TensorLike, type: int = 2, s: Sequence[int] | None = None, axes: Axes = None, norm: str | None = None
) -> Tensor:
    """Inverse of ``dstn``."""
    return _over("idstn", x, type, s, axes, norm, True)
