"""The error function, its complement and inverses, and the normal distribution's: ``ndtr``, ``log_ndtr``, ``ndtri``.

The complement is exp(-x^2) times a function that varies slowly, a Chebyshev series in (x - 3.75) / (x + 3.75) (after
Shepherd & Laframboise, 1981), with the square taken apart so that the exponential keeps its digits. Inverses start from
Abramowitz & Stegun 26.2.23 and go on with Halley's iteration. ``erf`` is an operation of the graph.
"""

from __future__ import annotations

import math
from typing import Any

from tilewright.functions.arguments import TensorLike
from tilewright.functions.custom import custom_jvp
from tilewright.functions.elementwise import abs, clip, erf, exp, log, log1p, minimum, sqrt, where
from tilewright.special.arguments import chebyshev, rounded
from tilewright.special.coefficients import ERFCX
from tilewright.tensor import Tensor

__all__ = ["erf", "erfc", "erfcinv", "erfcx", "erfinv", "log_ndtr", "ndtr", "ndtri"]

_ROOT_2 = math.sqrt(2)
_SLOPE = 2 / math.sqrt(math.pi)


def _gaussian(x: Tensor, scale: float) -> Tensor:
    """exp(-scale x^2) with the square as a sum of two numbers: x = high + low, high with 26 bits."""
    far = abs(x) > 1e3
    bounded = where(far, 0.0, x)
    split = bounded * 134217729.0
    high = split - (split - bounded)
    low = bounded - high
    return where(far, 0.0, exp(high * high * -scale) * exp(low * (bounded + high) * -scale))


def _smooth(x: Tensor) -> Tensor:
    """exp(x^2) erfc(x) for x >= 0."""
    far = x > 1e8
    bounded = where(far, 1.0, x)
    near = chebyshev((bounded - 3.75) / (bounded + 3.75), ERFCX) / (1 + 2 * bounded)
    return where(far, (0.5 * _SLOPE) / x, near)


@custom_jvp
def _erfc(x: Tensor) -> Tensor:
    tail = _gaussian(x, 1.0) * _smooth(abs(x))
    return where(x > 0.5, tail, where(x < -0.5, 2 - tail, 1 - erf(x)))


@_erfc.defjvp
def _erfc_slope(primals: Any, tangents: Any) -> tuple[Tensor, Tensor]:
    return _erfc(primals[0]), tangents[0] * (-_SLOPE * _gaussian(primals[0], 1.0))


@custom_jvp
def _erfcx(x: Tensor) -> Tensor:
    negative = x < 0
    bounded = where(negative, clip(x, -27.0, None), 0.0)
    left = 2 / _gaussian(bounded, 1.0) - _smooth(-bounded)
    return where(negative, where(x < -26.7, math.inf, left), _smooth(where(negative, 0.0, x)))


@_erfcx.defjvp
def _erfcx_slope(primals: Any, tangents: Any) -> tuple[Tensor, Tensor]:
    """2 x erfcx(x) - 2 / sqrt(pi); for large x the two cancel, and -1 / (sqrt(pi) x^2) (1 - 3 / 2x^2 + ...) is used."""
    x = primals[0]
    out = _erfcx(x)
    large = x > 100.0
    u = 1 / where(large, x * x, 1.0)
    far = -0.5 * _SLOPE * u * (1 - 1.5 * u * (1 - 2.5 * u * (1 - 3.5 * u)))
    return out, tangents[0] * where(large, far, 2 * where(large, 0.0, x) * out - _SLOPE)


def _start(p: Tensor) -> Tensor:
    """-ndtri(p) for p in (0, 1/2], to 4.5e-4: Abramowitz & Stegun 26.2.23."""
    t = sqrt(-2 * log(p))
    above = (0.010328 * t + 0.802853) * t + 2.515517
    below = ((0.001308 * t + 0.189269) * t + 1.432788) * t + 1
    return t - above / below


def _halley(y: Tensor, excess: Tensor) -> Tensor:
    """One step for erf(y) - a = 0, where ``excess`` is that divided by the slope."""
    return y - excess / (1 + y * excess)


@custom_jvp
def _erfinv(x: Tensor) -> Tensor:
    size = abs(x)
    inside = size < 1
    a = where(inside, size, 0.0)
    rest = 1 - a
    y = _start(rest * 0.5) / _ROOT_2
    central = a < 0.5
    for _ in range(3):
        distance = where(central, erf(y) - a, rest - _erfc(y))
        y = _halley(y, distance / (_SLOPE * _gaussian(y, 1.0)))
    y = where(a == 0, x, where(x < 0, -y, y))
    return where(inside, y, where(x == 1, math.inf, where(x == -1, -math.inf, math.nan)))


@_erfinv.defjvp
def _erfinv_slope(primals: Any, tangents: Any) -> tuple[Tensor, Tensor]:
    y = _erfinv(primals[0])
    return y, tangents[0] / (_SLOPE * _gaussian(y, 1.0))


@custom_jvp
def _ndtr(x: Tensor) -> Tensor:
    tail = 0.5 * _gaussian(x, 0.5) * _smooth(abs(x) * (1 / _ROOT_2))
    return where(x < -0.5, tail, where(x > 0.5, 1 - tail, 0.5 + 0.5 * erf(x * (1 / _ROOT_2))))


def _density(x: Tensor) -> Tensor:
    return _gaussian(x, 0.5) * (1 / math.sqrt(2 * math.pi))


@_ndtr.defjvp
def _ndtr_slope(primals: Any, tangents: Any) -> tuple[Tensor, Tensor]:
    return _ndtr(primals[0]), tangents[0] * _density(primals[0])


@custom_jvp
def _log_ndtr(x: Tensor) -> Tensor:
    left = x < -1
    z = where(left, x, -1.0)
    tail = log(_smooth(z * (-1 / _ROOT_2)) * 0.5) - 0.5 * z * z
    return where(left, tail, log1p(-_ndtr(where(left, 1.0, -x))))


@_log_ndtr.defjvp
def _log_ndtr_slope(primals: Any, tangents: Any) -> tuple[Tensor, Tensor]:
    """density / ndtr, which is sqrt(2 / pi) / erfcx(-x / sqrt 2)."""
    x = primals[0]
    return _log_ndtr(x), tangents[0] * (math.sqrt(2 / math.pi) / _erfcx(x * (-1 / _ROOT_2)))


@custom_jvp
def _ndtri(p: Tensor) -> Tensor:
    inside = (p > 0) & (p < 1)
    p = where(inside, p, where((p == 0) | (p == 1), 0.5 + (p - 0.5) * math.inf, math.nan))
    safe = where(inside, p, 0.5)
    central = (safe > 0.25) & (safe < 0.75)
    middle = _ROOT_2 * _erfinv(where(central, safe * 2 - 1, 0.0))
    q = minimum(where(central, 0.25, safe), 1 - where(central, 0.25, safe))
    x = _start(q)
    for _ in range(3):  # ndtr(-x) = q: the excess over the density, by Mills' ratio
        ratio = math.sqrt(math.pi / 2) * _smooth(x * (1 / _ROOT_2))
        excess = ratio * (1 - q / _ndtr(-x))
        x = x + excess / (1 - 0.5 * x * excess)
    out = where(central, middle, where(safe < 0.5, -x, x))
    return where(inside, out, p)


@_ndtri.defjvp
def _ndtri_slope(primals: Any, tangents: Any) -> tuple[Tensor, Tensor]:
    x = _ndtri(primals[0])
    return x, tangents[0] / _density(x)


# ---- what users call -------------------------------------------------------------------------------------------------


def erfc(x: TensorLike) -> Tensor:
    """1 - erf(x), elementwise, with full relative precision where it is small.

    >>> erfc(Tensor([0.0, 10.0]).astype("float64")).tolist()[1] < 1e-40
    True
    """
    return rounded("erfc", ("x",), (x,), _erfc)


def erfcx(x: TensorLike) -> Tensor:
    """exp(x^2) erfc(x), elementwise: the complement without its exponential decay."""
    return rounded("erfcx", ("x",), (x,), _erfcx)


def erfinv(x: TensorLike) -> Tensor:
    """The y with erf(y) = x, elementwise; +-1 give +-inf, what is outside NaN.

    >>> round(erfinv(Tensor(0.5)).item(), 6)
    0.476936
    """
    return rounded("erfinv", ("x",), (x,), _erfinv)


def erfcinv(x: TensorLike) -> Tensor:
    """The y with erfc(y) = x for x in [0, 2], elementwise."""
    return rounded("erfcinv", ("x",), (x,), lambda x: _ndtri(x * 0.5) * (-1 / _ROOT_2))


def ndtr(x: TensorLike) -> Tensor:
    """The standard normal distribution function: the probability to be below x, elementwise.

    >>> ndtr(Tensor(0.0)).item()
    0.5
    """
    return rounded("ndtr", ("x",), (x,), _ndtr)


def log_ndtr(x: TensorLike) -> Tensor:
    """log ndtr(x), elementwise, also where ndtr(x) underflows.

    >>> round(log_ndtr(Tensor(-100.0)).item(), 2)
    -5005.52
    """
    return rounded("log_ndtr", ("x",), (x,), _log_ndtr)


def ndtri(p: TensorLike) -> Tensor:
    """The quantile of the standard normal distribution: the x with ndtr(x) = p, elementwise.

    >>> round(ndtri(Tensor(0.975)).item(), 5)
    1.95996
    """
    return rounded("ndtri", ("p",), (p,), _ndtri)
