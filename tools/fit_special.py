"""Write the coefficients of the special functions, from arithmetic with 40 digits.

Run: ``python tools/fit_special.py``. It writes ``src/tilewright/special/coefficients.py``: Chebyshev series of functions that are
smooth on an interval, cut where a term no longer counts in double precision, and the exact numbers of asymptotic series.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mpmath as mp

mp.mp.dps = 40
TARGET = Path(__file__).resolve().parents[1] / "src" / "tilewright" / "special" / "coefficients.py"
Function = Callable[[mp.mpf], mp.mpf]


def chebyshev(f: Function, count: int = 64, limit: float = 1e-18) -> list[float]:
    """Coefficients of f on [-1, 1] from its values at the zeros of T_count; the first is halved already."""
    angles = [mp.pi * (k + mp.mpf(1) / 2) / count for k in range(count)]
    values = [f(mp.cos(a)) for a in angles]
    series = [
        2 / mp.mpf(count) * mp.fsum(v * mp.cos(j * a) for v, a in zip(values, angles, strict=True))
        for j in range(count)
    ]
    series[0] /= 2
    largest = max(abs(c) for c in series)
    while abs(series[-1]) < limit * largest:
        series.pop()
    return [float(c) for c in series]


ROOT = mp.findroot(mp.digamma, 1.46)


def lgamma_at_2(t: mp.mpf) -> mp.mpf:
    z = t / 2
    return mp.loggamma(2 + z) / z if z else 1 - mp.euler


def digamma_of_root(t: mp.mpf) -> mp.mpf:
    x = (t + 3) / 2
    return mp.digamma(x) / (x - ROOT) if abs(x - ROOT) > 1e-15 else mp.polygamma(1, ROOT)


def erfcx(t: mp.mpf) -> mp.mpf:
    x = mp.mpf(15) / 4 * (1 + t) / (1 - t)
    return (1 + 2 * x) * mp.exp(x * x) * mp.erfc(x)


def i_small(n: int) -> Function:
    def f(t: mp.mpf) -> mp.mpf:
        x = 4 * (t + 1)
        return mp.exp(-x) * (mp.besseli(n, x) / (x if n else 1) if x or not n else mp.mpf(1) / 2)

    return f


def i_large(n: int) -> Function:
    def f(t: mp.mpf) -> mp.mpf:
        x = 16 / (t + 1)
        return mp.sqrt(x) * mp.exp(-x) * mp.besseli(n, x)

    return f


SERIES: list[tuple[str, str, list[float]]] = [
    ("LGAMMA", "log gamma(2 + t/2) / (t/2), t in [-1, 1]", chebyshev(lgamma_at_2)),
    ("DIGAMMA", "digamma(x) / (x - root), x = (t + 3)/2", chebyshev(digamma_of_root)),
    ("ERFCX", "(1 + 2x) exp(x^2) erfc(x), x = 3.75 (1 + t)/(1 - t)", chebyshev(erfcx)),
    ("I0_SMALL", "exp(-x) I0(x), x = 4 (t + 1)", chebyshev(i_small(0))),
    ("I1_SMALL", "exp(-x) I1(x) / x, x = 4 (t + 1)", chebyshev(i_small(1))),
    ("I0_LARGE", "sqrt(x) exp(-x) I0(x), x = 16/(t + 1)", chebyshev(i_large(0))),
    ("I1_LARGE", "sqrt(x) exp(-x) I1(x), x = 16/(t + 1)", chebyshev(i_large(1))),
    ("STIRLING", "B[2k] / (2k (2k - 1)), k = 1 ...: DLMF 5.11.1",
     [float(mp.bernoulli(2 * k) / (2 * k * (2 * k - 1))) for k in range(1, 12)]),
    ("DIGAMMA_TAIL", "B[2k] / 2k, k = 1 ...: DLMF 5.11.2", [float(mp.bernoulli(2 * k) / (2 * k)) for k in range(1, 11)]),
    ("EULER_MACLAURIN", "B[2k] / (2k)!, k = 1 ...: DLMF 25.11.5",
     [float(mp.bernoulli(2 * k) / mp.factorial(2 * k)) for k in range(1, 13)]),
]  # fmt: skip
GAMMA_TAIL = mp.taylor(
    lambda u: mp.exp(
        sum(mp.bernoulli(2 * k) / (2 * k * (2 * k - 1)) * u ** (2 * k - 1) for k in range(1, 12))
    ),
    0,
    16,
)
SERIES.append(("GAMMA_TAIL", "gamma(x) / (sqrt(2 pi) x^(x - 1/2) e^-x) in powers of 1/x: DLMF 5.11.3",
               [float(c) for c in GAMMA_TAIL]))  # fmt: skip


def main() -> None:
    lines = [
        '"""Coefficients of the special functions, written by ``tools/fit_special.py``. Chebyshev series start with T_0."""',
        "",
    ]
    high = float(ROOT)
    lines += [
        "# the zero of digamma between 1 and 2, as a sum of two numbers",
        f"ROOT_HIGH = {high!r}",
        f"ROOT_LOW = {float(ROOT - mp.mpf(high))!r}",
    ]
    for name, meaning, numbers in SERIES:
        lines += ["", f"# {meaning}", f"{name} = ("]
        lines += [f"    {c!r}," for c in numbers]
        lines += [")  # fmt: skip"]
    TARGET.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
