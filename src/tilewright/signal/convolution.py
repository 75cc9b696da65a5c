"""Convolution and correlation of two tensors of one rank: native, or through Fourier transforms where those are fewer steps."""

from __future__ import annotations

import math

from tilewright.core import dtype as dt
from tilewright.functions.arguments import TensorLike, as_tensor, cast, common_type
from tilewright.functions.elementwise import add, conj, imag, multiply, real, subtract
from tilewright.functions.fft import fftn, ifftn, irfftn, rfftn
from tilewright.functions.movement import flip, reshape
from tilewright.tensor import ArgumentError, DTypeError, ShapeError, Tensor, apply

__all__ = ["convolve", "correlate", "fftconvolve"]

_MODES = ("full", "same", "valid")


def _operands(function: str, in1: TensorLike, in2: TensorLike, mode: str) -> tuple[Tensor, Tensor]:
    a, b = as_tensor(in1, function, "in1"), as_tensor(in2, function, "in2")
    if mode not in _MODES:
        raise ArgumentError(f"{function}: `mode` is one of {', '.join(map(repr, _MODES))}, got {mode!r}")
    if a.ndim != b.ndim or not a.ndim:
        raise ShapeError(f"{function}: shapes {a.shape} and {b.shape} have one rank, of at least 1")
    if 0 in a.shape or 0 in b.shape:
        raise ShapeError(f"{function}: shapes {a.shape} and {b.shape} have no empty axis")
    kind = common_type(function, [a, b])
    if kind.is_bool:
        raise DTypeError(f"{function}: bool tensors have no product; convert them, e.g. `x.astype(tw.int32)`")
    return cast(a, kind), cast(b, kind)


def _direct(a: Tensor, b: Tensor) -> Tensor:
    """The full convolution as one operation of the graph; complex ones as four of their parts."""
    if a.dtype.is_complex:
        ra, ia, rb, ib = real(a), imag(a), real(b), imag(b)
        re = cast(subtract(_direct(ra, rb), _direct(ia, ib)), a.dtype)
        im = cast(add(_direct(ra, ib), _direct(ia, rb)), a.dtype)
        return add(re, multiply(im, 1j))
    n = a.ndim
    kernel = flip(b, tuple(range(n)))
    out = apply(
        "conv", reshape(a, (1, 1, *a.shape)), reshape(kernel, (1, 1, *b.shape)), stride=(1,) * n,
        padding=tuple((k - 1, k - 1) for k in b.shape), lhs_dilation=(1,) * n, rhs_dilation=(1,) * n, groups=1, dtype=a.dtype,
    )  # fmt: skip
    return reshape(out, out.shape[2:])


def _by_transforms(a: Tensor, b: Tensor) -> Tensor:
    """The full convolution as a product of spectra, of sizes that have only small prime factors."""
    sizes = [m + n - 1 for m, n in zip(a.shape, b.shape, strict=True)]
    padded = [_fast_size(n) for n in sizes]
    if a.dtype.is_complex:
        out = ifftn(multiply(fftn(a, s=padded), fftn(b, s=padded)))
    else:
        out = irfftn(multiply(rfftn(a, s=padded), rfftn(b, s=padded)), s=padded)
    return cast(out[tuple(slice(0, n) for n in sizes)], a.dtype)


def _fast_size(n: int) -> int:
    while True:
        rest = n
        for p in (2, 3, 5):
            while rest % p == 0:
                rest //= p
        if rest == 1:
            return n
        n += 1


def _full(a: Tensor, b: Tensor, method: str, function: str) -> Tensor:
    if method not in ("auto", "direct", "fft"):
        raise ArgumentError(f"{function}: `method` is 'auto', 'direct' or 'fft', got {method!r}")
    if method == "fft" and not a.dtype.is_inexact:
        raise DTypeError(f"{function}: `method='fft'` takes floating-point elements, got {a.dtype}")
    if method == "auto":
        products = a.size * b.size
        points = math.prod(m + n - 1 for m, n in zip(a.shape, b.shape, strict=True))
        transforms = 50 * points * max(1.0, math.log2(points))  # host calls cost more than their arithmetic
        method = "fft" if a.dtype.is_inexact and products > max(transforms, 1e6) else "direct"
    return _by_transforms(a, b) if method == "fft" else _direct(a, b)


def _part(full: Tensor, a: tuple[int, ...], b: tuple[int, ...], mode: str, function: str) -> Tensor:
    if mode == "full":
        return full
    if mode == "same":
        return full[tuple(slice((k - 1) // 2, (k - 1) // 2 + n) for n, k in zip(a, b, strict=True))]
    within = all(n >= k for n, k in zip(a, b, strict=True)), all(n <= k for n, k in zip(a, b, strict=True))
    if not any(within):
        raise ShapeError(f"{function}: `mode='valid'`: one of the shapes {a} and {b} lies inside the other")
    return full[tuple(slice(min(n, k) - 1, max(n, k)) for n, k in zip(a, b, strict=True))]


def convolve(in1: TensorLike, in2: TensorLike, mode: str = "full", method: str = "auto") -> Tensor:
    """Convolution over all axes: out[n] is the sum of in1[m] in2[n - m] over m. Operands of one rank, at least 1.

    ``mode``: "full" gives in1.shape + in2.shape - 1, "same" its middle of in1's shape, "valid" only sums without
    padding. ``method``: "direct" (one native convolution; exact for integers), "fft" (rounding relative to the largest
    element), or "auto", by size. Raises ``ShapeError`` and ``ArgumentError`` for operands that do not fit.

    >>> convolve(Tensor([1, 2, 3]), Tensor([0, 1]), mode="same").tolist()
    [0, 1, 2]
    """
    a, b = _operands("convolve", in1, in2, mode)
    return _part(_full(a, b, method, "convolve"), a.shape, b.shape, mode, "convolve")


def correlate(in1: TensorLike, in2: TensorLike, mode: str = "full", method: str = "auto") -> Tensor:
    """Cross-correlation over all axes: in1 convolved with in2 turned round and conjugated; arguments as in ``convolve``.

    >>> correlate(Tensor([1, 2, 3]), Tensor([0, 1])).tolist()
    [1, 2, 3, 0]
    """
    a, b = _operands("correlate", in1, in2, mode)
    turned = flip(b, tuple(range(b.ndim)))
    turned = conj(turned) if b.dtype.is_complex else turned
    return _part(_full(a, turned, method, "correlate"), a.shape, b.shape, mode, "correlate")


def fftconvolve(in1: TensorLike, in2: TensorLike, mode: str = "full") -> Tensor:
    """``convolve`` through Fourier transforms; integers are converted to float32."""
    a, b = _operands("fftconvolve", in1, in2, mode)
    if not a.dtype.is_inexact:
        a, b = cast(a, dt.float32), cast(b, dt.float32)
    return _part(_full(a, b, "fft", "fftconvolve"), a.shape, b.shape, mode, "fftconvolve")
