"""Compute the polynomial coefficients of `tilewright.kernel.math_coefficients`.

Every polynomial is a minimax fit of ours: the Remez exchange algorithm finds the polynomial whose largest
weighted error is least; then the coefficients are rounded to the format they are used in, the most important
one first, and the others are fitted anew around it, so that the rounding of one is made good by the rest.

    python tools/fit_math.py            print the table (two minutes)
    python tools/fit_math.py --write    replace the coefficient module
    python tools/fit_math.py --check    fail if the coefficient module differs from what is computed
    python tools/fit_math.py --only exp compute and print the rows whose name starts with `exp`

Needs mpmath and the package itself. This file knows which function is fitted where; how the polynomials are used is in
`kernel/math_*.py`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mpmath import lu_solve, matrix, mp, mpf

from tilewright.core.files import write_atomic

mp.dps = 60

Function = Callable[[mpf], mpf]
MODULE = Path(__file__).resolve().parent.parent / "src" / "tilewright" / "kernel" / "math_coefficients.py"
GRID = 600  # Chebyshev-distributed points on which the error is measured
GREEDY = 5  # coefficients that are rounded one at a time; the rest are too small for their rounding to matter


@dataclass(frozen=True)
class Fit:
    """Fit ``value(t)`` on [low, high] by a polynomial of ``degree`` with relative importance ``weight(t)``.

    ``fixed`` are low coefficients that are given and left out of the rounding; ``bits`` is the float format.
    """

    name: str
    bits: int
    degree: int
    value: Function
    weight: Function
    low: mpf
    high: mpf
    fixed: tuple[mpf, ...] = ()


def to_format(value: mpf, bits: int) -> mpf:
    """The nearest float32 or float64."""
    return mpf(float(np.float32(float(value)))) if bits == 32 else mpf(float(value))


def horner(coefficients: Sequence[mpf], t: mpf) -> mpf:
    """The polynomial with the constant term first, at ``t``."""
    total = mpf(0)
    for c in reversed(coefficients):
        total = total * t + c
    return total


def extrema(error: Sequence[mpf], wanted: int) -> list[int]:
    """Indices of ``wanted`` extrema of alternating sign, the largest ones; fewer if there are not enough."""
    found: list[int] = []
    start = 0
    while start < len(error):
        stop = start
        while stop < len(error) and (error[stop] > 0) == (error[start] > 0):
            stop += 1
        found.append(max(range(start, stop), key=lambda k: abs(error[k])))
        start = stop
    while len(found) > wanted:
        if len(found) == wanted + 1:
            found.pop(0 if abs(error[found[0]]) < abs(error[found[-1]]) else -1)
        else:
            k = min(range(len(found) - 1), key=lambda k: max(abs(error[found[k]]), abs(error[found[k + 1]])))
            del found[k : k + 2]
    return found


def remez(value: Function, weight: Function, low: mpf, high: mpf, lowest: int, degree: int) -> list[mpf]:
    """The minimax coefficients of t^lowest ... t^degree.

    The error is t^lowest (P(t) - value/t^lowest); its factor is taken into the weight, so that P is an
    ordinary polynomial and the alternation theorem holds on intervals around zero too.
    """
    count = degree - lowest + 1
    points = [low + (high - low) * (1 - mp.cos(mp.pi * (k + mpf(1) / 2) / GRID)) / 2 for k in range(GRID)]
    target = [value(t) / t**lowest for t in points]
    scale = [abs(weight(t) * t**lowest) for t in points]
    powers = [[t**k for k in range(count)] for t in points]
    reference = [round((GRID - 1) * k / count) for k in range(count + 1)]
    best, least = [mpf(0)] * count, mp.inf
    for _ in range(60):
        system, right = matrix(count + 1, count + 1), matrix(count + 1, 1)
        for row, i in enumerate(reference):
            for k in range(count):
                system[row, k] = powers[i][k] * scale[i]
            system[row, count] = (-1) ** row
            right[row] = target[i] * scale[i]
        solution = lu_solve(system, right)
        coefficients = [solution[k] for k in range(count)]
        error = [
            scale[i] * (sum(c * p for c, p in zip(coefficients, powers[i], strict=True)) - target[i])
            for i in range(GRID)
        ]
        worst = max(map(abs, error))
        if worst < least:
            best, least = coefficients, worst
        found = extrema(error, count + 1)
        if len(found) < count + 1 or worst <= abs(solution[count]) * mpf("1.001"):
            break
        reference = found
    return best


def solve(fit: Fit) -> tuple[list[float], float]:
    """The rounded coefficients (without the fixed ones) and log2 of the largest weighted error they leave."""
    low, high = mpf(fit.low), mpf(fit.high)
    done = [mpf(c) for c in fit.fixed]

    def rest(t: mpf) -> mpf:
        return fit.value(t) - horner(done, t)

    while len(done) <= fit.degree:
        best = remez(rest, fit.weight, low, high, len(done), fit.degree)
        if len(done) - len(fit.fixed) < GREEDY:
            done.append(to_format(best[0], fit.bits))
        else:
            done.extend(to_format(c, fit.bits) for c in best)
    points = (low + (high - low) * (mpf(k) + mpf(1) / 3) / 1000 for k in range(1000))
    worst = max(abs(fit.weight(t) * (horner(done, t) - fit.value(t))) for t in points)
    return [float(c) for c in done[len(fit.fixed) :]], float(mp.log(worst, 2))


# ---- what is fitted ----------------------------------------------------------------------------------------

LN2 = mp.log(2)
SLACK = mpf("1.0001")  # the reduced argument may leave its interval by a rounding error


def relative(value: Function) -> Function:
    """The weight that makes the error relative to the fitted function itself."""
    return lambda t: 1 / value(t)


def odd(function: Function) -> tuple[Function, Function]:
    """(f(x) - x) / x^3 over z = x^2, and the weight that makes the error of x + x^3 p(z) relative to f."""
    return (
        lambda z: (function(mp.sqrt(z)) - mp.sqrt(z)) / mp.sqrt(z) ** 3,
        lambda z: mp.sqrt(z) ** 3 / function(mp.sqrt(z)),
    )


def cosine_tail(z: mpf) -> mpf:
    """(cos x - 1 + x^2/2) / x^4 as a function of z = x^2."""
    return (mp.cos(mp.sqrt(z)) - 1 + z / 2) / z**2


def log_ratio(base: mpf) -> Function:
    """log(1 + f) / f in a base."""
    return lambda f: mp.log(1 + f) / f / mp.log(base)


def atanh_tail(z: mpf) -> mpf:
    """(atanh(s) / s - 1 - z/3) / z^2 * 2 log2(e) as a function of z = s^2."""
    s = mp.sqrt(z)
    return 2 * (mp.atanh(s) / s - 1 - z / 3) / z**2 / LN2


def atanh_rest(z: mpf) -> mpf:
    """(atanh(s) / s - 1) / z * 2 log2(e) as a function of z = s^2."""
    s = mp.sqrt(z)
    return 2 * (mp.atanh(s) / s - 1) / z / LN2


def exp2_tail(t: mpf) -> mpf:
    """(2^t - 1 - t ln 2) / t^2."""
    return (mpf(2) ** t - 1 - t * LN2) / t**2


def erf_exponent(x: mpf) -> mpf:
    """-log(1 - erf x) / x."""
    return -mp.log(mp.erfc(x)) / x


def erf_weight(x: mpf) -> mpf:
    """How a change of `erf_exponent` moves erf, relative to erf."""
    return x * mp.erfc(x) / mp.erf(x)


def rows() -> list[Fit]:
    """Every polynomial of the package."""
    out: list[Fit] = []
    mantissa = (mp.sqrt(mpf(1) / 2) - 1) * SLACK, (mp.sqrt(2) - 1) * SLACK
    quarter = (mp.pi / 4 * SLACK) ** 2

    def add(
        name: str, bits: int, degree: int, value: Function, weight: Function, low: mpf, high: mpf, *fixed: mpf
    ) -> None:
        out.append(Fit(name, bits, degree, value, weight, low, high, fixed))

    def exp2(t: mpf) -> mpf:
        return mpf(2) ** t

    def expm1_ratio(t: mpf) -> mpf:
        return mp.expm1(t) / t

    for bits, degree in ((32, 6), (64, 12)):
        add("EXP", bits, degree, mp.exp, relative(mp.exp), -LN2 / 2 * SLACK, LN2 / 2 * SLACK, mpf(1), mpf(1))
        add("EXP2", bits, degree, exp2, relative(exp2), -SLACK / 2, SLACK / 2, mpf(1))
    for bits, degree in ((32, 5), (64, 11)):
        add(
            "EXPM1",
            bits,
            degree,
            expm1_ratio,
            relative(expm1_ratio),
            -LN2 / 2 * SLACK,
            LN2 / 2 * SLACK,
            mpf(1),
        )
    for bits, degree in ((32, 9), (64, 20)):
        for name, base, fixed in (
            ("LOG", mp.e, (mpf(1), mpf(-1) / 2)),
            ("LOG2", mpf(2), (1 / LN2,)),
            ("LOG10", mpf(10), (1 / mp.log(10),)),
        ):
            ratio = log_ratio(base)
            add(name, bits, degree, ratio, relative(ratio), *mantissa, *fixed)
    for bits, sine, cosine, tangent, arcsine, arctangent, sinh, tanh in (
        (32, 2, 2, 5, 5, 8, 3, 2),
        (64, 5, 5, 13, 13, 19, 7, 6),
    ):
        add("SIN", bits, sine, *odd(mp.sin), mpf(0), quarter)
        add("COS", bits, cosine, cosine_tail, lambda z: z**2 / mp.cos(mp.sqrt(z)), mpf(0), quarter)
        add("TAN", bits, tangent, *odd(mp.tan), mpf(0), quarter)
        add("ASIN", bits, arcsine, *odd(mp.asin), mpf(0), mpf("0.3601"))
        add("ATAN", bits, arctangent, *odd(mp.atan), mpf(0), mpf(1))
        add("TANH", bits, tanh, *odd(mp.tanh), mpf(0), mpf("0.0677"))
        add("SINH", bits, sinh, *odd(mp.sinh), mpf(0), mpf(1))
    add("ERF", 64, 24, erf_exponent, erf_weight, mpf(0), mpf(6), 2 / mp.sqrt(mp.pi))
    add("POW_EXP2", 64, 10, exp2_tail, lambda t: t**2, -SLACK / 2, SLACK / 2)
    add(
        "POW_LOG2",
        64,
        9,
        atanh_tail,
        lambda z: z**2,
        mpf(0),
        ((mp.sqrt(2) - 1) / (mp.sqrt(2) + 1) * SLACK) ** 2,
    )
    add("POW_LOG2", 32, 2, atanh_rest, lambda z: z, mpf(0), mpf("0.00893"))  # z <= 0.00892
    add("POW_EXP2", 32, 4, exp2_tail, lambda t: t**2, -SLACK / 2, SLACK / 2)
    add("ERF", 32, 8, erf_exponent, erf_weight, mpf(0), mpf("3.95"), 2 / mp.sqrt(mp.pi))
    return out


HEADER = '''"""Polynomial coefficients of the mathematical functions; written by `tools/fit_math.py`, not by hand.

A row is name -> format width in bits -> coefficients, the constant term (after the ones the code adds itself) first.
The comment gives log2 of the largest error that the rounded polynomial leaves, relative to the function.
"""

'''


def natural(name: str) -> list[str | int]:
    """A sort key that has LOG2 before LOG10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def render(found: Sequence[tuple[Fit, list[float], float]]) -> str:
    """The text of the coefficient module."""
    names = list(dict.fromkeys(fit.name for fit, _, _ in found))
    lines = [HEADER.rstrip("\n"), "", "__all__ = ["]
    lines += [f'    "{name}",' for name in sorted(names, key=natural)] + ["]", ""]
    for name in names:
        lines.append(f"{name}: dict[int, tuple[float, ...]] = {{")
        for fit, coefficients, error in found:
            if fit.name == name:
                lines.append(f"    {fit.bits}: (  # 2^{error:.1f}")
                lines += [f"        {c!r}," for c in coefficients] + ["    ),"]
        lines += ["}", ""]
    return "\n".join(lines)


def main() -> int:
    """Run the tool; 1 when `--check` finds a difference."""
    parser = argparse.ArgumentParser(description="compute the polynomials of the mathematical functions")
    parser.add_argument("--write", action="store_true", help="replace the coefficient module")
    parser.add_argument("--check", action="store_true", help="fail if the coefficient module would change")
    parser.add_argument("--only", default="", help="only rows whose name starts with this")
    options = parser.parse_args()
    wanted = [fit for fit in rows() if fit.name.lower().startswith(options.only.lower())]
    found = []
    for fit in wanted:
        coefficients, error = solve(fit)
        found.append((fit, coefficients, error))
        print(
            f"{fit.name} float{fit.bits}: degree {fit.degree}, error 2^{error:.1f}",
            file=sys.stderr,
            flush=True,
        )
    text = render(found)
    if options.write and not options.only:
        write_atomic(MODULE, [text.encode()])
    elif options.check:
        if MODULE.read_text() != text:
            print(f"{MODULE} differs from what this tool computes", file=sys.stderr)
            return 1
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
