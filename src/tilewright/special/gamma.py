"""The gamma function and its relatives: logarithm, derivatives, beta, factorials, binomials, Hurwitz zeta.

All native. Arguments near 1 and 2 go through a Chebyshev series of log gamma around 2 (its zeros keep their relative
precision), others are brought there by the recurrence gamma(x + 1) = x gamma(x), large ones have Stirling's series, and
negative ones the reflection formula (DLMF 5.5.3). Errors that were measured stand in docs/special.md.
"""

from __future__ import annotations

import math
from typing import Any

from tilewright.core import dtype as dt
from tilewright.core.integers import plain
from tilewright.functions.arguments import TensorLike, cast
from tilewright.functions.custom import custom_jvp
from tilewright.functions.elementwise import abs, clip, exp, floor, isinf, isnan, log, log1p, pow, sin, where
from tilewright.special.arguments import chebyshev, horner, reals, rounded
from tilewright.special.coefficients import (
    DIGAMMA,
    DIGAMMA_TAIL,
    EULER_MACLAURIN,
    GAMMA_TAIL,
    LGAMMA,
    ROOT_HIGH,
    ROOT_LOW,
    STIRLING,
)
from tilewright.tensor import ArgumentError, Tensor

__all__ = [
    "beta", "betaln", "comb", "digamma", "factorial", "gamma", "gammaln", "gammasgn", "lgamma", "multigammaln", "perm", "poch",
    "polygamma", "psi", "rgamma", "zeta",
]  # fmt: skip

_FACTORS = 30  # of a binomial coefficient that is multiplied out
_LARGE = 8.5  # from here on Stirling's series is precise


def _lowered(x: Tensor) -> tuple[Tensor, Tensor]:
    """For x in [0, 8.5): y in [1/2, 5/2) and a product p of differences with gamma(x) = p gamma(y); x < 1/2 is raised."""
    small = x < 0.5
    product = where(small, 1 / where(small, x, 1), 1)
    y = where(small, x + 1, x)
    for _ in range(6):
        high = y >= 2.5
        y = where(high, y - 1, y)
        product = where(high, product * y, product)
    return y, product


def _near_two(y: Tensor) -> tuple[Tensor, Tensor]:
    """log gamma(y) for y in [1/2, 5/2) as log1p(a) + b, so that both zeros come out precisely."""
    low = y < 1.5
    z = where(low, y - 1, y - 2)
    return where(low, z, 0), z * chebyshev(z * 2, LGAMMA)


def _sine(x: Tensor) -> Tensor:
    """sin(pi x), precise also near whole numbers."""
    whole = floor(x + 0.5)
    value = sin((x - whole) * math.pi)
    odd = whole - 2 * floor(whole * 0.5)
    return where(odd == 1, -value, value)


def _is_pole(x: Tensor) -> Tensor:
    return (x <= 0) & (x == floor(x))


@custom_jvp
def _gammaln(x: Tensor) -> Tensor:
    size = where(x < 0, -x, x)
    inside = size < _LARGE
    y, product = _lowered(where(inside, size, 2.0))
    shift, smooth = _near_two(y)
    below = log(product) - log1p(shift) + smooth
    big = where(inside, _LARGE, size)
    inverse = 1 / big
    tail = horner(inverse * inverse, STIRLING) * inverse
    above = (big - 0.5) * (log(big) - 1) + (tail + (0.5 * math.log(2 * math.pi) - 0.5))
    positive = where(inside, below, above)
    positive = where(isinf(x), math.inf, positive)
    negative = math.log(math.pi) - log(abs(x * _sine(x))) - positive
    return where(_is_pole(x), math.inf, where(x < 0, where(isinf(x), math.inf, negative), positive))


@_gammaln.defjvp
def _gammaln_slope(primals: Any, tangents: Any) -> tuple[Tensor, Tensor]:
    return _gammaln(primals[0]), tangents[0] * _digamma(primals[0])


@custom_jvp
def _gamma(x: Tensor) -> Tensor:
    size = where(x < 0, -x, x)
    inside = size < _LARGE
    y, product = _lowered(where(inside, size, 2.0))
    shift, smooth = _near_two(y)
    below = product * exp(smooth) / (1 + shift)
    big = clip(where(inside, _LARGE, size), None, 200.0)
    half = pow(big, 0.5 * big - 0.25)  # the square would overflow before gamma does
    above = half * exp(-big) * half * (math.sqrt(2 * math.pi) * horner(1 / big, GAMMA_TAIL))
    positive = where(inside, below, above)
    negative = -math.pi / (x * _sine(x) * positive)
    signed_infinity = where(x == 0, 1 / x, math.nan)
    out = where(_is_pole(x), signed_infinity, where(x < 0, negative, positive))
    return where(isinf(x), where(x > 0, math.inf, math.nan), where(isnan(x), x, out))


@_gamma.defjvp
def _gamma_slope(primals: Any, tangents: Any) -> tuple[Tensor, Tensor]:
    out = _gamma(primals[0])
    return out, tangents[0] * (out * _digamma(primals[0]))


@custom_jvp
def _digamma(x: Tensor) -> Tensor:
    """Chebyshev on [1, 2] with its zero taken out, recurrence below 10, DLMF 5.11.2 above, reflection for x < 0."""
    negative = x < 0
    size = where(negative, 1 - x, x)
    inside = size < 10
    small = inside & (size < 1)
    y = where(inside, size, 1.5)
    added = where(small, -1 / where(small, y, 1), 0)
    y = where(small, y + 1, y)
    for _ in range(8):
        high = y > 2
        y = where(high, y - 1, y)
        added = where(high, added + 1 / y, added)
    below = ((y - ROOT_HIGH) - ROOT_LOW) * chebyshev(y * 2 - 3, DIGAMMA) + added
    big = where(inside, 10.0, size)
    square = 1 / (big * big)
    above = log(big) - (0.5 / big + square * horner(square, DIGAMMA_TAIL))
    out = where(inside, below, above)
    apart = x - floor(x + 0.5)
    whole = apart == 0
    cotangent = sin((0.5 - abs(apart)) * math.pi) / where(whole, 1, sin(apart * math.pi))
    out = where(negative, out - math.pi * cotangent, out)
    pole = where(x == 0, -1 / x, math.nan)
    return where(_is_pole(x), pole, where(isinf(x), where(x > 0, math.inf, math.nan), out))


@_digamma.defjvp
def _digamma_slope(primals: Any, tangents: Any) -> tuple[Tensor, Tensor]:
    return _digamma(primals[0]), tangents[0] * _polygamma(primals[0], 1)


def _polygamma(x: Tensor, n: int) -> Tensor:
    return _digamma(x) if n == 0 else _higher(x, n)


def _higher_value(x: Tensor, n: int) -> Tensor:
    """(-1)^(n + 1) n! zeta(n + 1, x) (DLMF 25.11.12); for x < 1/2 by reflection (DLMF 5.15.6)."""
    mirrored = x < 0.5
    sign = (-1.0) ** (n + 1)
    size = where(mirrored, 1 - x, x)
    out = sign * math.factorial(n) * _hurwitz(float(n + 1), where(isinf(size), 1e300, size))
    apart = x - floor(x + 0.5)
    whole = apart == 0
    sine = where(whole, 1, sin(apart * math.pi))
    cotangent = sin((0.5 - abs(apart)) * math.pi) / sine
    # psi_n(1 - x) (-1)^n - psi_n(x) = pi d^n/dx^n cot(pi x)
    turned = (-1.0) ** n * out - math.pi ** (n + 1) * horner(cotangent, _cotangent_derivative(n))
    pole = math.inf if n % 2 else math.nan
    return where(mirrored, where(whole, pole, turned), out)


def _cotangent_derivative(n: int) -> list[float]:
    """The coefficients of p with d^n/du^n cot(u) = p(cot(u)): the derivative of c is -(1 + c^2)."""
    p = [0, 1]
    for _ in range(n):
        slope = [k * c for k, c in enumerate(p)][1:]
        p = [0] * (len(slope) + 2)
        for k, c in enumerate(slope):
            p[k] -= c
            p[k + 2] -= c
    return [float(c) for c in p]


@custom_jvp
def _higher_rule(x: Tensor, n: Any) -> Tensor:
    return _higher_value(x, n)


def _higher(x: Tensor, n: int) -> Tensor:
    out: Tensor = _higher_rule(x, n)
    return out


@_higher_rule.defjvp
def _higher_slope(primals: Any, tangents: Any) -> tuple[Tensor, Tensor]:
    x, n = primals
    return _higher(x, n), tangents[0] * _higher(x, n + 1)


def _hurwitz(s: Tensor | float, q: Tensor) -> Tensor:
    """Euler and Maclaurin's sum after ten terms (DLMF 25.11.5), for s > 1 and q > 0."""
    total = pow(q, -s)
    for k in range(1, 10):
        total = total + pow(q + float(k), -s)
    a = q + 10.0
    power = pow(a, -s)
    total = total + power * (a / (s - 1) + 0.5)
    factor, inverse = s * power / a, 1 / (a * a)
    for k, c in enumerate(EULER_MACLAURIN):
        total = total + factor * c
        factor = factor * ((s + float(2 * k + 1)) * (s + float(2 * k + 2))) * inverse
    return total


def _zeta(s: Tensor, q: Tensor) -> Tensor:
    inside = (s > 1) & (q > 0)
    out = _hurwitz(where(inside, clip(s, None, 1e4), 2.0), where(inside, q, 1.0))
    limits = where((s == 1) | ((q <= 0) & (q == floor(q)) & (s > 1)), math.inf, math.nan)
    return where(inside, where(isinf(q), 0.0, out), where(isnan(s) | isnan(q), s + q, limits))


# ---- what users call -------------------------------------------------------------------------------------------------


def gamma(x: TensorLike) -> Tensor:
    """The gamma function, elementwise. +-0 gives +-inf, negative whole numbers and -inf NaN.

    >>> gamma(Tensor([5.0, 0.5])).tolist()
    [24.0, 1.7724539041519165]
    """
    return rounded("gamma", ("x",), (x,), _gamma)


def gammaln(x: TensorLike) -> Tensor:
    """log |gamma(x)|, elementwise; its poles give inf.

    >>> gammaln(Tensor([1.0, 3.0])).tolist()
    [0.0, 0.6931471824645996]
    """
    return rounded("gammaln", ("x",), (x,), _gammaln)


lgamma = gammaln


def gammasgn(x: TensorLike) -> Tensor:
    """The sign of gamma(x): 1 or -1, NaN at negative whole numbers."""

    def sign(x: Tensor) -> Tensor:
        whole = floor(x)
        odd = whole - 2 * floor(whole * 0.5) == 1
        lower = where((x == whole) | isnan(x), where(isnan(x), x, math.nan), where(odd, -1.0, 1.0))
        return where(x > 0, 1.0, where(x == 0, where(1 / x > 0, 1.0, -1.0), lower))

    return rounded("gammasgn", ("x",), (x,), sign)


def rgamma(x: TensorLike) -> Tensor:
    """1 / gamma(x), elementwise; 0 at the poles."""
    return rounded(
        "rgamma", ("x",), (x,), lambda x: where(_is_pole(x), 0.0, 1 / _gamma(where(_is_pole(x), 1.0, x)))
    )


def digamma(x: TensorLike) -> Tensor:
    """The derivative of log gamma(x), elementwise.

    >>> digamma(Tensor(1.0)).item()
    -0.5772156715393066
    """
    return rounded("digamma", ("x",), (x,), _digamma)


psi = digamma


def polygamma(n: int, x: TensorLike) -> Tensor:
    """Derivative number n of ``digamma``, elementwise; n is a Python integer from 0 on.

    >>> polygamma(1, Tensor(1.0)).item()
    1.6449340581893921
    """
    n = plain(n)
    if isinstance(n, bool) or not isinstance(n, int) or not 0 <= n <= 100:
        raise ArgumentError(f"polygamma: `n` is an integer from 0 to 100, got {n!r}")
    return rounded("polygamma", ("x",), (x,), lambda x: _polygamma(x, n))


def zeta(x: TensorLike, q: TensorLike = 1.0) -> Tensor:
    """Hurwitz' zeta function, the sum of (k + q)^-x over k = 0, 1, ...; Riemann's for q = 1. Defined for x > 1, q > 0.

    x = 1 gives inf, what is outside NaN.

    >>> zeta(Tensor(2.0)).item()
    1.6449340581893921
    """
    return rounded("zeta", ("x", "q"), (x, q), _zeta)


def betaln(a: TensorLike, b: TensorLike) -> Tensor:
    """log |B(a, b)| = log |gamma(a) gamma(b) / gamma(a + b)|, elementwise."""
    return rounded("betaln", ("a", "b"), (a, b), _betaln)


def _betaln(a: Tensor, b: Tensor) -> Tensor:
    """For a large b the difference of its two logarithms is taken from Stirling's series, term by term."""
    small, large = where(a < b, a, b), where(a < b, b, a)
    plain = _gammaln(small) + (_gammaln(large) - _gammaln(small + large))
    both = (large > _LARGE) & (small > 0)
    small, large = where(both, small, 1.0), where(both, large, _LARGE)
    total = small + large

    def tail(x: Tensor) -> Tensor:
        return horner(1 / (x * x), STIRLING) / x

    ratio = (0.5 - large) * log1p(small / large) - small * log(total) + small + (tail(large) - tail(total))
    return where(both, _gammaln(small) + ratio, plain)


def beta(a: TensorLike, b: TensorLike) -> Tensor:
    """B(a, b) = gamma(a) gamma(b) / gamma(a + b), elementwise.

    >>> round(beta(Tensor(2.0), 3.0).item(), 6)
    0.083333
    """

    def compute(a: Tensor, b: Tensor) -> Tensor:
        moderate = (abs(a) < 100) & (abs(b) < 60)
        near = where(moderate, a, 1.0), where(moderate, b, 1.0)
        direct = _gamma(near[0]) * _over(near[1], near[0] + near[1])
        signs = cast(gammasgn(a) * gammasgn(b) * gammasgn(a + b), dt.float64)
        return where(moderate, direct, signs * exp(_betaln(a, b)))

    return rounded("beta", ("a", "b"), (a, b), compute)


def _over(x: Tensor, y: Tensor) -> Tensor:
    """gamma(x) / gamma(y), 0 at a pole of the divisor."""
    pole = _is_pole(y)
    return where(pole, 0.0, _gamma(x) / _gamma(where(pole, 1.0, y)))


def multigammaln(a: TensorLike, d: int) -> Tensor:
    """The logarithm of the multivariate gamma function of dimension d, for a > (d - 1) / 2."""
    d = plain(d)
    if isinstance(d, bool) or not isinstance(d, int) or d < 1:
        raise ArgumentError(f"multigammaln: `d` is a positive integer, got {d!r}")

    def compute(a: Tensor) -> Tensor:
        total = _gammaln(a)
        for i in range(1, d):
            total = total + _gammaln(a - 0.5 * i)
        outside = a <= 0.5 * (d - 1)
        return where(outside, math.nan, total + 0.25 * d * (d - 1) * math.log(math.pi))

    return rounded("multigammaln", ("a",), (a,), compute)


def poch(z: TensorLike, m: TensorLike) -> Tensor:
    """Rising factorial gamma(z + m) / gamma(z), for z > 0 and z + m > 0."""

    def compute(z: Tensor, m: Tensor) -> Tensor:
        inside = (z > 0) & (z + m > 0)
        small = inside & (abs(z) < 80) & (abs(m) < 80)
        direct = _over(where(small, z + m, 1.0), where(small, z, 1.0))
        far = inside & ~small
        z, m = where(far, z, 1.0), where(far, m, 1.0)
        return where(small, direct, where(inside, exp(_gammaln(z + m) - _gammaln(z)), math.nan))

    return rounded("poch", ("z", "m"), (z, m), compute)


def factorial(n: TensorLike) -> Tensor:
    """n! = gamma(n + 1), elementwise, also between whole numbers; 0 for negative n. Exact in float64 up to 22!.

    >>> factorial(Tensor([0.0, 3.0])).tolist()
    [1.0, 6.0]
    """

    def compute(n: Tensor) -> Tensor:
        valid = n >= 0
        whole = valid & (n == floor(n)) & (n <= 22)
        product = n * 0 + 1.0
        for k in range(2, 23):
            product = where(whole & (n >= k), product * float(k), product)
        general = _gamma(where(valid, n + 1, 1.0))
        exact = general + where(whole, product - where(whole, general, 0.0), 0.0).detach()
        return where(isnan(n), n, where(valid, exact, 0.0))

    return rounded("factorial", ("n",), (n,), compute)


def comb(N: TensorLike, k: TensorLike) -> Tensor:
    """Binomial coefficients: how many sets of k among N things, elementwise; 0 where k < 0, N < 0 or k > N.

    Both may lie between whole numbers; whole results are exact while they are below 2^53 / N.

    >>> comb(Tensor([5.0, 10.0]), 2.0).tolist()
    [10.0, 45.0]
    """

    def compute(N: Tensor, k: Tensor) -> Tensor:
        valid = (k >= 0) & (N >= 0) & (k <= N)
        N, k = where(valid, N, 2.0), where(valid, k, 1.0)
        found = exp(-_betaln(N - k + 1, k + 1) - log1p(N))
        fewer = where(k + k > N, N - k, k)
        whole = (floor(N) == N) & (k == floor(k)) & (fewer <= _FACTORS)
        product = N * 0 + 1.0
        for i in range(1, _FACTORS + 1):  # every partial product is a binomial coefficient, a whole number
            product = where(fewer >= i, product * (N - fewer + float(i)) / float(i), product)
        return where(valid, found + where(whole, product - where(whole, found, 0.0), 0.0).detach(), 0.0)

    tensors, kind = reals("comb", (N, k), ("N", "k"))
    unknown = isnan(tensors[0]) | isnan(tensors[1])
    return cast(where(unknown, math.nan, compute(*tensors)), kind)


def perm(N: TensorLike, k: TensorLike) -> Tensor:
    """How many ordered selections of k among N things: N! / (N - k)!, elementwise; 0 where k < 0, N < 0 or k > N."""

    def compute(N: Tensor, k: Tensor) -> Tensor:
        valid = (k >= 0) & (N >= 0) & (k <= N)
        N, k = where(valid, N, 2.0), where(valid, k, 1.0)
        small = N < 160
        direct = _over(where(small, N, 1.0) + 1, where(small, N - k, 0.0) + 1)
        far = exp(_gammaln(N + 1) - _gammaln(N - k + 1))
        return where(valid, where(small, direct, far), 0.0)

    return rounded("perm", ("N", "k"), (N, k), compute)
