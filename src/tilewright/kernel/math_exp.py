"""exp, exp2, expm1, sinh, cosh, tanh, sigmoid and erf as expressions of fma, integer shifts and selections.

All follow one scheme: ``x = n ln 2 + r`` with the nearest integer n, a polynomial for ``e^r`` or ``e^r - 1``,
and 2^n put together in the exponent bits. Adding 1.5 * 2^mantissa + bias to x / ln 2 rounds it and leaves n +
bias in the low bits of the sum, ready to be shifted into an exponent field: neither a rounding nor a
conversion instruction is needed.
"""

from __future__ import annotations

from tilewright.kernel.ir import Expr, fma, op
from tilewright.kernel.math_coefficients import ERF, EXP, EXP2, EXPM1, SINH, TANH
from tilewright.kernel.math_constants import LN2, LOG2_E, TWO_OVER_SQRT_PI
from tilewright.kernel.math_float import Format, at_least, at_most, polynomial, split_constant, where

__all__ = ["cosh", "erf", "exp", "exp2", "expm1", "sigmoid", "sinh", "tanh"]


def _reduce(f: Format, x: Expr, offset: int) -> tuple[Expr, Expr, Expr]:
    """The integer n nearest to x / ln 2: (its bits plus ``offset``, n as a float, x - n ln 2)."""
    magic = f.const(f.magic + offset)
    shifted = fma(x, f.const(float(LOG2_E)), magic)
    n = shifted - magic
    high, low = split_constant(f, LN2)
    r = fma(n, f.const(-low), fma(n, f.const(-high), x))
    return f.to_int(shifted), n, r


def _near(f: Format, r: Expr) -> Expr:
    """e^r - 1 for |r| <= ln 2 / 2; the sign of a zero is lost."""
    return fma(r * r, polynomial(f, EXPM1[f.bits], r), r)


def exp(f: Format, x: Expr) -> Expr:
    """e^x, right down to the subnormal numbers.

    The result is p(r) 2^(n - m) 2^m with m half of n: two multiplications by a normal power of two, of which only the
    second rounds, where one 2^n would leave the exponent range before the result does.
    """
    low, high = (-104.0, 89.0) if f.bits == 32 else (-746.0, 710.0)  # beyond, the result is 0 or infinite
    n_bits, _, r = _reduce(f, at_least(at_most(x, f.const(high)), f.const(low)), 2 * f.bias)
    first, second = _halves(f, n_bits)
    # the power of two may be multiplied in where 1 is added: that rounds to the same bits
    return fma(fma(r * r, polynomial(f, EXP[f.bits], r), r), first, first) * second


def _halves(f: Format, n_bits: Expr) -> tuple[Expr, Expr]:
    """Two powers of two with the product 2^n, where the low bits of ``n_bits`` are n + twice the bias. To halve n takes integer
    operations, which a core begins beside the multiplications that a longer interval for r would take."""
    half = f.shift_right(n_bits, 1)
    return f.exponent_field(n_bits - half), f.exponent_field(half)


def exp2(f: Format, x: Expr) -> Expr:
    low, high = (-152.0, 129.0) if f.bits == 32 else (-1078.0, 1025.0)
    x = at_least(at_most(x, f.const(high)), f.const(low))
    magic = f.const(f.magic + 2 * f.bias)
    shifted = x + magic
    r = x - (shifted - magic)  # exact
    first, second = _halves(f, f.to_int(shifted))
    return fma(r, polynomial(f, EXP2[f.bits], r), f.const(1.0)) * first * second


def expm1(f: Format, x: Expr) -> Expr:
    """2^n (e^r - 1) + (2^n - 1), halved on the way so that 2^n stays finite as long as the result does."""
    low, high = (-26.0, 89.0) if f.bits == 32 else (-60.0, 710.0)
    n_bits, n, r = _reduce(f, at_least(at_most(x, f.const(high)), f.const(low)), f.bias - 1)
    tail = r * r * polynomial(f, EXPM1[f.bits], r)
    near = r + tail
    half = f.exponent_field(n_bits)  # 2^(n - 1)
    # Not half * near + ...: for n = 1 the result may be smaller than near, whose rounding would show.
    far = fma(half, tail, fma(half, r, half - f.const(0.5)))
    # For n = 0 the sum would lose the last bit of a subnormal number.
    return op("copysign", where(op("eq", n, f.const(0.0)), near, far + far), x)


def _expm1_inside(f: Format, x: Expr) -> Expr:
    """e^x - 1 for x far from overflow, within about one unit; the sign of a zero is lost."""
    n_bits, _, r = _reduce(f, x, f.bias)
    scale = f.exponent_field(n_bits)
    return fma(scale, _near(f, r), scale - f.const(1.0))


def tanh(f: Format, x: Expr) -> Expr:
    """x + x^3 p(x^2) below 0.26; above, e / (e + 2) with e = e^2|x| - 1."""
    a = at_most(op("abs", x), f.const(9.2 if f.bits == 32 else 19.5))  # tanh rounds to 1 there
    z = a * a
    near = fma(a * z, polynomial(f, TANH[f.bits], z), a)
    magic = f.const(f.magic + f.bias)
    shifted = fma(a, f.const(2 * float(LOG2_E)), magic)
    r = fma(shifted - magic, f.const(-float(LN2)), a + a)
    scale = f.exponent_field(f.to_int(shifted))
    e = fma(scale, _near(f, r), scale - f.const(1.0))
    far = op("div", e, e + f.const(2.0))
    return op("copysign", where(op("lt", a, f.const(0.26)), near, far), x)


def sigmoid(f: Format, x: Expr) -> Expr:
    """1 / (1 + e^-x), both terms 2^shift times smaller than they are: a large sum is finite as long as the result is not 0.
    With e^-x = 2^n + 2^n near, what 1 + 2^n loses is added to the smaller part."""
    shift, low, high = (24, -104.0, 60.0) if f.bits == 32 else (53, -746.0, 500.0)  # beyond, it is 0 or 1
    x = at_least(at_most(x, f.const(high)), f.const(low))
    n_bits, _, r = _reduce(f, op("neg", x), f.bias - shift)
    scale, one = f.exponent_field(n_bits), f.const(2.0**-shift)
    most = scale + one
    rest = fma(scale, _near(f, r), one - (most - scale))
    return op("div", one, most + rest)


def _quarter_exp(f: Format, a: Expr) -> Expr:
    """e^a / 4 for a >= 0, well within one unit; it is finite where sinh and cosh are."""
    n_bits, _, r = _reduce(f, at_most(a, f.const(89.5 if f.bits == 32 else 710.5)), f.bias - 2)
    scale = f.exponent_field(n_bits)
    return fma(scale, _near(f, r), scale)


def sinh(f: Format, x: Expr) -> Expr:
    """x + x^3 p(x^2) below 1; above, (e^|x| - e^-|x|) / 2."""
    a = op("abs", x)
    z = a * a
    near = fma(a * z, polynomial(f, SINH[f.bits], z), a)
    quarter = _quarter_exp(f, a)
    far = quarter - op("div", f.const(0.0625), quarter)
    return op("copysign", where(op("lt", a, f.const(1.0)), near, far + far), x)


def cosh(f: Format, x: Expr) -> Expr:
    quarter = _quarter_exp(f, op("abs", x))
    total = quarter + op("div", f.const(0.0625), quarter)
    return total + total


def erf(f: Format, x: Expr) -> Expr:
    """1 - e^-g with g = -log(1 - erf|x|) = |x| q(|x|), a smooth function with a polynomial for the whole
    range.

    Computed as -(e^-g - 1), so that the result is good relative to itself near 0 too.
    """
    a = at_most(op("abs", x), f.const(4.0 if f.bits == 32 else 6.0))  # erf rounds to 1 there
    high, low = split_constant(f, TWO_OVER_SQRT_PI)
    g = fma(a, f.const(high), a * polynomial(f, (low, *ERF[f.bits]), a))
    magic = f.const(f.magic + f.bias)
    shifted = fma(g, f.const(-float(LOG2_E)), magic)
    r = fma(shifted - magic, f.const(-float(LN2)), op("neg", g))
    scale = f.exponent_field(f.to_int(shifted))
    return op("copysign", fma(scale, _near(f, r), scale - f.const(1.0)), x)
