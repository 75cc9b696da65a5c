"""The normal distribution's quantile function, also between bounds that lie far out. Everything is float64."""

from __future__ import annotations

import math

from tilewright.functions.elementwise import (
    add,
    divide,
    erf,
    exp,
    log,
    maximum,
    minimum,
    multiply,
    negative,
    sqrt,
    where,
)
from tilewright.tensor import Tensor

__all__ = ["normal_between", "normal_quantile"]

# M. Wichura, "Algorithm AS 241: The percentage points of the normal distribution", Applied Statistics 37 (1988):
# quotients of polynomials, lowest coefficient first, for the middle, the shoulders and the tails.
_MIDDLE = (
    (3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
     4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3),
    (1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
     2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3),
)  # fmt: skip
_SHOULDER = (
    (1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
     1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
     1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9),
)  # fmt: skip
_TAIL = (
    (6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
     2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7),
    (1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
     7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15),
)  # fmt: skip
_FAR = 5.0  # bounds beyond this on one side: the distribution function has lost too many digits
_FRACTIONS = 24  # steps of the continued fraction of Mills' ratio: 1e-14 from 5 on


def _polynomial(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    out = multiply(x, coefficients[-1])
    for c in coefficients[-2:0:-1]:
        out = multiply(add(out, c), x)
    return add(out, coefficients[0])


def _quotient(x: Tensor, both: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
    return divide(_polynomial(x, both[0]), _polynomial(x, both[1]))


def normal_quantile(p: Tensor) -> Tensor:
    """The number below which a standard normal number lies with probability ``p``, to 1e-15 of itself."""
    q = add(p, -0.5)
    middle = multiply(q, _quotient(add(negative(q * q), 0.180625), _MIDDLE))
    r = sqrt(negative(log(minimum(p, 1.0 - p))))
    side = where(r <= 5.0, _quotient(add(r, -1.6), _SHOULDER), _quotient(add(r, -5.0), _TAIL))
    return where((q <= 0.425) & (q >= -0.425), middle, where(q < 0, negative(side), side))


def normal_between(low: Tensor, high: Tensor, u: Tensor) -> Tensor:
    """The quantile at ``u`` in (0, 1) of the standard normal distribution between two bounds.

    Where both bounds are on the right the distribution is mirrored, so that probabilities are small numbers rather than
    numbers near 1; where they are beyond ``_FAR`` logarithms of probabilities are used.
    """
    mirrored = low > 0
    a, b = where(mirrored, negative(high), low), where(mirrored, negative(low), high)
    share = where(mirrored, 1.0 - u, u)
    first, last = _probability(a), _probability(b)
    far = b < -_FAR
    inner = where(far, 0.5, first + share * (last - first))  # a harmless number where it is not used
    near = normal_quantile(minimum(maximum(inner, 1e-300), 1 - 2.0**-53))
    away = negative(_tail(where(far, negative(b), 2 * _FAR), where(far, negative(a), 3 * _FAR), 1.0 - share))
    x = where(far, away, near)
    return where(mirrored, negative(x), x)


def _probability(x: Tensor) -> Tensor:
    """Of a standard normal number to lie below ``x`` (absolute error 1e-16)."""
    return multiply(add(erf(multiply(x, math.sqrt(0.5))), 1.0), 0.5)


def _mills(x: Tensor) -> Tensor:
    """(1 - Phi(x)) / phi(x) for x of at least 5, by Laplace's continued fraction 1/(x + 1/(x + 2/(x + 3/(x + ...))))."""
    below = x
    for k in range(_FRACTIONS, 0, -1):
        below = add(x, divide(float(k), below))
    return divide(1.0, below)


def _tail(low: Tensor, high: Tensor, u: Tensor) -> Tensor:
    """x between ``low`` >= 5 and ``high`` with P(X > x) = (1 - u) P(X > low) + u P(X > high), for X standard normal.

    Newton's method on log P(X > x) = log mills(x) - x^2 / 2, from the solution for a ratio that does not change.
    """
    start = _mills(low)
    # P(X > high) / P(X > low); where `high` is infinite both differences are, and the ratio is 0
    finite = minimum(high, 40 + low)
    ratio = divide(_mills(finite), start) * exp(multiply((low - finite) * (low + finite), 0.5))
    wanted = log(1.0 - u * (1.0 - ratio))  # log of P(X > x) / P(X > low)
    x = sqrt(low * low - 2.0 * wanted)
    for _ in range(4):
        reached = log(divide(_mills(x), start)) + multiply((low - x) * (low + x), 0.5)
        x = x + (reached - wanted) * _mills(x)
    return x
