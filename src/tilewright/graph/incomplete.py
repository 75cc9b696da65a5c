"""Incomplete gamma and beta functions on the host: SciPy's, and derivatives of P(a, x) with respect to a by its series."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["betainc", "gammainc", "gammainc_by_a", "gammaincc"]

Array = np.ndarray[Any, Any]


def gammainc(a: Array, x: Array) -> Array:
    from scipy import special

    return np.asarray(special.gammainc(a, x))


def gammaincc(a: Array, x: Array) -> Array:
    from scipy import special

    return np.asarray(special.gammaincc(a, x))


def betainc(a: Array, b: Array, x: Array) -> Array:
    from scipy import special

    return np.asarray(special.betainc(a, b, x))


def gammainc_by_a(a: Array, x: Array, order: int) -> Array:
    """The first or second derivative of P(a, x) with respect to a.

    P is the sum of t[n] = x^(a + n) e^-x / gamma(a + n + 1) (DLMF 8.7.1), and d log t[n] / da = log x - digamma(a + n + 1).
    All t are positive and add up to at most 1, so the error is small beside 1; terms are added until they no longer count.
    """
    from scipy import special

    inside = (x > 0) & (a > 0) & np.isfinite(x) & np.isfinite(a)
    a, z = np.where(inside, a, 1.0), np.where(inside, x, 1.0)
    line = np.log(z)
    log_term = a * line - z - special.gammaln(a + 1)
    slope, bend = line - special.digamma(a + 1), special.polygamma(1, a + 1)
    total = np.zeros_like(z)
    place = a + 1
    for _ in range(1_000_000):
        term = np.exp(log_term)
        total += term * (slope if order == 1 else slope * slope - bend)
        if np.all((z < 0.5 * place) & (term < 1e-20)):
            break
        log_term, slope, bend = log_term + line - np.log(place), slope - 1 / place, bend - 1 / (place * place)
        place = place + 1
    return np.where(inside, total, np.where((a > 0) & (x >= 0), 0.0, np.nan))
