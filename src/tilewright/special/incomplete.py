"""Incomplete gamma and beta functions: SciPy computes them on the host (``pip install "tilewright[scipy]"``).

Derivatives with respect to x are the densities, in closed form. Those of the gamma functions with respect to a come from
their series (``graph/incomplete.py``) up to the second; those of ``betainc`` with respect to a and b are not there, and a
``GradientError`` says so.
"""

from __future__ import annotations

import importlib.util
import math
from typing import Any

from tilewright.core import dtype as dt
from tilewright.core.diagnostics import TilewrightError
from tilewright.functions.arguments import TensorLike
from tilewright.functions.custom import custom_jvp
from tilewright.functions.elementwise import exp, isinf, log, log1p, where
from tilewright.functions.host import host_call, refuse_gradients
from tilewright.special.arguments import rounded
from tilewright.special.gamma import _betaln, _digamma, _gammaln
from tilewright.tensor import Tensor

__all__ = ["betainc", "gammainc", "gammaincc"]


class MissingPackageError(TilewrightError, ImportError):
    """A function needs a package that is not installed."""


def _need_scipy(function: str) -> None:
    if importlib.util.find_spec("scipy") is None:
        raise MissingPackageError(f'{function}: needs SciPy: `pip install "tilewright[scipy]"`')


def _density(a: Tensor, x: Tensor) -> Tensor:
    """x^(a - 1) e^-x / gamma(a), the derivative of the lower function with respect to x."""
    inside = (x > 0) & ~isinf(x)
    z = where(inside, x, 1.0)
    at_zero = where(a < 1, math.inf, where(a == 1, 1.0, 0.0))
    return where(inside, exp((a - 1) * log(z) - z - _gammaln(a)), where(x == 0, at_zero, 0.0))


@custom_jvp
def _lower(a: Tensor, x: Tensor) -> Tensor:
    return host_call("gammainc", (a, x), dt.float64, x.shape)


@custom_jvp
def _upper(a: Tensor, x: Tensor) -> Tensor:
    return host_call("gammaincc", (a, x), dt.float64, x.shape)


@custom_jvp
def _by_a(a: Tensor, x: Tensor) -> Tensor:
    return host_call("gammainc_by_a", (a, x), dt.float64, x.shape, order=1)


def _moved(a: Tensor, x: Tensor, da: Tensor | None, dx: Tensor | None) -> Tensor:
    total = x * 0.0 if dx is None else dx * _density(a, x)
    return total if da is None else total + da * _by_a(a, x)


@_lower.defjvp
def _lower_slope(primals: Any, tangents: Any) -> tuple[Tensor, Tensor]:
    return _lower(*primals), _moved(*primals, *tangents)


@_upper.defjvp
def _upper_slope(primals: Any, tangents: Any) -> tuple[Tensor, Tensor]:
    return _upper(*primals), -_moved(*primals, *tangents)


@_by_a.defjvp
def _by_a_slope(primals: Any, tangents: Any) -> tuple[Tensor, Tensor]:
    a, x = primals
    da, dx = tangents
    again = host_call("gammainc_by_a", (a.detach(), x.detach()), dt.float64, x.shape, order=2)
    inside = (x > 0) & ~isinf(x)
    by_x = where(inside, _density(a, x) * (log(where(inside, x, 1.0)) - _digamma(a)), 0.0)
    return _by_a(a, x), dx * by_x + da * again


@custom_jvp
def _beta_lower(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return host_call("betainc", (a, b, x), dt.float64, x.shape)


@_beta_lower.defjvp
def _beta_slope(primals: Any, tangents: Any) -> tuple[Tensor, Tensor]:
    x, a, b = primals
    inside = (x > 0) & (x < 1)
    z = where(inside, x, 0.5)
    density = exp((a - 1) * log(z) + (b - 1) * log1p(-z) - _betaln(a, b))
    return _beta_lower(x, a, b), tangents[0] * where(inside, density, 0.0)


def gammainc(a: TensorLike, x: TensorLike) -> Tensor:
    """The regularised lower incomplete gamma function P(a, x), elementwise, for a >= 0 and x >= 0.

    Raises ``MissingPackageError`` (an ``ImportError``) without SciPy.

    >>> round(gammainc(Tensor(1.0), Tensor(1.0)).item(), 6)       # 1 - exp(-1)
    0.632121
    """
    _need_scipy("gammainc")
    return rounded("gammainc", ("a", "x"), (a, x), _lower)


def gammaincc(a: TensorLike, x: TensorLike) -> Tensor:
    """The regularised upper incomplete gamma function Q(a, x) = 1 - P(a, x), elementwise, precise where it is small."""
    _need_scipy("gammaincc")
    return rounded("gammaincc", ("a", "x"), (a, x), _upper)


def betainc(a: TensorLike, b: TensorLike, x: TensorLike) -> Tensor:
    """The regularised incomplete beta function I_x(a, b), elementwise, for a, b > 0 and x in [0, 1].

    It has a derivative with respect to x. Raises ``GradientError`` where one with respect to a or b is asked for.

    >>> betainc(1.0, 1.0, Tensor(0.25)).item()
    0.25
    """
    _need_scipy("betainc")
    refuse_gradients("betainc with respect to `a` or `b`", *(v for v in (a, b) if isinstance(v, Tensor)))
    return rounded(
        "betainc", ("a", "b", "x"), (a, b, x), lambda a, b, x: _beta_lower(x, a.detach(), b.detach())
    )
