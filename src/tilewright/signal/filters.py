"""Filters: rational transfer functions along an axis, finite responses from windows, Gaussian and median smoothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tilewright.core import dtype as dt
from tilewright.functions.arguments import (
    TensorLike,
    axis_of,
    broadcast_to_shape,
    cast,
    common_type,
    dtype_of,
    float_tensor,
    pair,
)
from tilewright.functions.control import scan
from tilewright.functions.elementwise import add, multiply
from tilewright.functions.movement import concat, expand_dims, moveaxis, reshape, stack
from tilewright.functions.padding import pad
from tilewright.functions.sorting import sort
from tilewright.signal.windows import get_window
from tilewright.tensor import ArgumentError, ShapeError, Tensor, apply

__all__ = ["firwin", "gaussian_filter", "gaussian_filter1d", "lfilter", "medfilt"]


def lfilter(
    b: TensorLike, a: TensorLike, x: TensorLike, axis: int = -1, zi: TensorLike | None = None
) -> Tensor | tuple[Tensor, Tensor]:
    """The filter with transfer function (b[0] + b[1] z^-1 + ...) / (a[0] + a[1] z^-1 + ...) along ``axis``.

    a[0] y[n] = b[0] x[n] + ... - a[1] y[n-1] - ..., in transposed direct form II, as one native loop. ``zi`` is the state
    before: x's shape with max(len(a), len(b)) - 1 along ``axis``; with it the result is (y, state after). b, a, x and zi
    have derivatives. Raises ``ShapeError`` where b or a is not a vector, or zi does not fit.

    >>> lfilter([1.0], [1.0, -0.5], Tensor([1.0, 0.0, 0.0])).tolist()
    [1.0, 0.5, 0.25]
    """
    given = [float_tensor(v, "lfilter", n) for v, n in ((b, "b"), (a, "a"), (x, "x"))]
    for name, v in zip("ba", given, strict=False):
        if v.ndim != 1 or not v.size:
            raise ShapeError(f"lfilter: `{name}` is a vector of at least one element, got shape {v.shape}")
    kind = common_type("lfilter", given)
    above, below, signal = (cast(v, kind) for v in given)
    at = axis_of(axis, signal.ndim, "lfilter")
    steps = moveaxis(signal, at, 0)
    order = max(above.size, below.size) - 1
    above = pad(above, [(0, order + 1 - above.size)]) / below[0]
    below = pad(below, [(0, order + 1 - below.size)]) / below[0]
    if zi is None:
        state = broadcast_to_shape(Tensor(np.zeros((), kind.numpy)), (order, *steps.shape[1:]))
    else:
        state = moveaxis(cast(float_tensor(zi, "lfilter", "zi"), kind), at, 0)
        if state.shape != (order, *steps.shape[1:]):
            wanted = tuple(order if i == at else d for i, d in enumerate(signal.shape))
            raise ShapeError(f"lfilter: `zi` has shape {wanted}, got {float_tensor(zi, 'lfilter').shape}")
    if order == 0:
        out = multiply(signal, above[0])
        return out if zi is None else (out, moveaxis(state, 0, at))
    shape = (order, *(1,) * (steps.ndim - 1))
    forward, back = reshape(above[1:], shape), reshape(below[1:], shape)
    first = above[0]

    def step(z: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        y = first * value + z[0]
        later = concat([z[1:], expand_dims(value * 0.0, 0)], axis=0)
        return later + forward * value - back * y, y

    last, filtered = scan(step, state, steps)
    out = moveaxis(filtered, 0, at)
    return out if zi is None else (out, moveaxis(last, 0, at))


def firwin(
    numtaps: int, cutoff: float, window: Any = "hamming", pass_zero: bool = True, scale: bool = True, fs: float = 2.0,
    dtype: Any = dt.float32,
) -> Tensor:  # fmt: skip
    """A linear-phase filter of ``numtaps`` weights that passes below ``cutoff`` (above, unless ``pass_zero``).

    ``cutoff`` is in the units of the sampling rate ``fs``, between 0 and fs / 2; with ``scale`` the gain in the middle of the
    pass band's end is 1. A filter that passes high frequencies has an odd number of weights. Use it with ``convolve``.

    >>> round(firwin(5, 0.5).sum().item(), 5)
    1.0
    """
    if not 0 < cutoff < fs / 2:
        raise ArgumentError(f"firwin: `cutoff` lies between 0 and fs / 2 = {fs / 2}, got {cutoff}")
    if not pass_zero and numtaps % 2 == 0:
        raise ArgumentError(f"firwin: a filter that passes fs / 2 has an odd `numtaps`, got {numtaps}")
    edge = 2 * cutoff / fs
    place = np.arange(numtaps) - (numtaps - 1) / 2
    ideal = edge * np.sinc(edge * place)
    if not pass_zero:
        ideal = np.sinc(place) - ideal
    taps = get_window(window, numtaps, fftbins=False, dtype=dt.float64) * Tensor(ideal)
    if scale:
        taps = taps / (taps * Tensor(np.ones(numtaps) if pass_zero else np.cos(np.pi * place))).sum()
    return cast(taps, dtype_of(dtype, "firwin"))


def _along(x: Tensor, kernel: Tensor, axis: int) -> Tensor:
    """Sums of products of a symmetric kernel with its neighbourhood along an axis that is padded already."""
    last = moveaxis(x, axis, -1)
    lead = last.shape[:-1]
    flat = reshape(last, (math.prod(lead), 1, last.shape[-1]))
    out = apply(
        "conv", flat, reshape(kernel, (1, 1, kernel.size)), stride=(1,), padding=((0, 0),), lhs_dilation=(1,),
        rhs_dilation=(1,), groups=1, dtype=x.dtype,
    )  # fmt: skip
    return moveaxis(reshape(out, (*lead, out.shape[-1])), -1, axis)


_PADDING = {
    "reflect": "symmetric",
    "mirror": "reflect",
    "nearest": "edge",
    "constant": "constant",
    "wrap": "wrap",
}


def gaussian_filter1d(
    x: TensorLike,
    sigma: float,
    axis: int = -1,
    mode: str = "reflect",
    cval: float = 0.0,
    truncate: float = 4.0,
) -> Tensor:
    """x smoothed along ``axis`` by a Gaussian of standard deviation ``sigma`` (in elements), cut at ``truncate`` sigma.

    ``mode`` says what lies beyond the ends, as in SciPy: "reflect" (the elements mirrored, the outermost repeated), "mirror"
    (not repeated), "nearest", "wrap", or "constant" with ``cval``.

    >>> gaussian_filter1d(Tensor([2.0, 2.0, 2.0]), 1.0).tolist()
    [2.0, 2.0, 2.0]
    """
    x = float_tensor(x, "gaussian_filter1d")
    at = axis_of(axis, x.ndim, "gaussian_filter1d")
    if mode not in _PADDING:
        raise ArgumentError(
            f"gaussian_filter1d: `mode` is one of {', '.join(map(repr, _PADDING))}, got {mode!r}"
        )
    if sigma < 0:
        raise ArgumentError(f"gaussian_filter1d: `sigma` is not negative, got {sigma}")
    radius = int(truncate * sigma + 0.5)
    if not radius or not x.size:
        copy: Tensor = x.clone()
        return copy
    place = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (place / sigma) ** 2)
    kernel = Tensor((weights / weights.sum()).astype(dt.float32.numpy if x.dtype.bits == 16 else _real(x)))
    widths = [(radius, radius) if i == at else (0, 0) for i in range(x.ndim)]
    around = pad(x, widths, mode=_PADDING[mode], constant_values=cval)
    if x.dtype.is_complex:
        out = _along(around.real, kernel, at), _along(around.imag, kernel, at)
        return add(cast(out[0], x.dtype), multiply(cast(out[1], x.dtype), 1j))
    return cast(_along(cast(around, kernel.dtype), kernel, at), x.dtype)


def _real(x: Tensor) -> Any:
    return np.float64 if x.dtype in (dt.float64, dt.complex128) else np.float32


def gaussian_filter(
    x: TensorLike,
    sigma: float | Sequence[float],
    mode: str = "reflect",
    cval: float = 0.0,
    truncate: float = 4.0,
) -> Tensor:
    """``gaussian_filter1d`` along every axis, with one ``sigma`` for all or one for each."""
    out = float_tensor(x, "gaussian_filter")
    each: tuple[Any, ...] = tuple(sigma) if isinstance(sigma, (tuple, list)) else (sigma,) * out.ndim
    if len(each) != out.ndim:
        raise ArgumentError(f"gaussian_filter: `sigma` is a number or {out.ndim} of them, got {sigma!r}")
    for axis, s in enumerate(each):
        out = gaussian_filter1d(out, s, axis, mode, cval, truncate)
    return out


def medfilt(x: TensorLike, kernel_size: int | Sequence[int] = 3) -> Tensor:
    """The median of every element's neighbourhood, of odd ``kernel_size`` (one for all axes, or one for each); zeros beyond.

    >>> medfilt(Tensor([1.0, 9.0, 2.0, 3.0])).tolist()
    [1.0, 2.0, 3.0, 2.0]
    """
    x = float_tensor(x, "medfilt")
    sizes = pair(kernel_size, x.ndim, "medfilt", "kernel_size")
    if any(k < 1 or k % 2 == 0 for k in sizes):
        raise ArgumentError(f"medfilt: `kernel_size` is odd and at least 1, got {kernel_size!r}")
    around = pad(x, [(k // 2, k // 2) for k in sizes])
    places = np.ndindex(*sizes)
    views = [around[tuple(slice(i, i + n) for i, n in zip(p, x.shape, strict=True))] for p in places]
    out: Tensor = sort(stack(views, axis=-1), axis=-1)[..., math.prod(sizes) // 2]
    return out
