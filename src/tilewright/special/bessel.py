"""Modified Bessel functions of the first kind, of order 0 and 1, and those scaled by exp(-|x|).

Chebyshev series below and above |x| = 8, in x and in 1 / x; native.
"""

from __future__ import annotations

from typing import Any

from tilewright.functions.arguments import TensorLike
from tilewright.functions.custom import custom_jvp
from tilewright.functions.elementwise import abs, exp, isinf, sign, sqrt, where
from tilewright.special.arguments import chebyshev, rounded
from tilewright.special.coefficients import I0_LARGE, I0_SMALL, I1_LARGE, I1_SMALL
from tilewright.tensor import Tensor

__all__ = ["i0", "i0e", "i1", "i1e"]


def _parts(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    size = abs(x)
    below = size <= 8
    return below, where(below, size, 8.0), where(below, 8.0, size)


def _i0e_value(x: Tensor) -> Tensor:
    below, small, large = _parts(x)
    tail = chebyshev(16 / large - 1, I0_LARGE) / sqrt(large)
    return where(below, chebyshev(small * 0.25 - 1, I0_SMALL), tail)


def _i1e_value(x: Tensor) -> Tensor:
    below, small, large = _parts(x)
    tail = chebyshev(16 / large - 1, I1_LARGE) / sqrt(large)
    return where(below, x * chebyshev(small * 0.25 - 1, I1_SMALL), where(x < 0, -tail, tail))


def _grown(x: Tensor, scaled: Tensor) -> Tensor:
    """times exp(|x|), in two halves: the first alone would overflow before the product does."""
    half = exp(abs(x) * 0.5)
    return where(isinf(x), x * x * where(scaled < 0, -1.0, 1.0), half * scaled * half)


@custom_jvp
def _i0e(x: Tensor) -> Tensor:
    return _i0e_value(x)


@_i0e.defjvp
def _i0e_slope(primals: Any, tangents: Any) -> tuple[Tensor, Tensor]:
    x = primals[0]
    out = _i0e(x)
    return out, tangents[0] * (_i1e(x) - sign(x) * out)


@custom_jvp
def _i1e(x: Tensor) -> Tensor:
    return _i1e_value(x)


@_i1e.defjvp
def _i1e_slope(primals: Any, tangents: Any) -> tuple[Tensor, Tensor]:
    x = primals[0]
    out = _i1e(x)
    return out, tangents[0] * (_i0e(x) - _over_x(out, x) - sign(x) * out)


def _over_x(value: Tensor, x: Tensor) -> Tensor:
    """I1(x) / x times the scale of ``value``, which is 1/2 at 0."""
    return where(x == 0, 0.5, value / where(x == 0, 1.0, x))


@custom_jvp
def _i0(x: Tensor) -> Tensor:
    return _grown(x, _i0e_value(x))


@_i0.defjvp
def _i0_slope(primals: Any, tangents: Any) -> tuple[Tensor, Tensor]:
    return _i0(primals[0]), tangents[0] * _i1(primals[0])


@custom_jvp
def _i1(x: Tensor) -> Tensor:
    return _grown(x, _i1e_value(x))


@_i1.defjvp
def _i1_slope(primals: Any, tangents: Any) -> tuple[Tensor, Tensor]:
    x = primals[0]
    out = _i1(x)
    return out, tangents[0] * (_i0(x) - _over_x(out, x))


def i0(x: TensorLike) -> Tensor:
    """The modified Bessel function I0(x), elementwise.

    >>> i0(Tensor(0.0)).item()
    1.0
    """
    return rounded("i0", ("x",), (x,), _i0)


def i0e(x: TensorLike) -> Tensor:
    """exp(-|x|) I0(x), elementwise."""
    return rounded("i0e", ("x",), (x,), _i0e)


def i1(x: TensorLike) -> Tensor:
    """The modified Bessel function I1(x), elementwise."""
    return rounded("i1", ("x",), (x,), _i1)


def i1e(x: TensorLike) -> Tensor:
    """exp(-|x|) I1(x), elementwise."""
    return rounded("i1e", ("x",), (x,), _i1e)
