"""log, log2, log10, log1p, the inverse hyperbolic functions and pow.

The logarithms write x = 2^e (1 + f) with sqrt(1/2) <= 1 + f < sqrt(2), by arithmetic on the bits, and add e
log 2 to a polynomial for log(1 + f).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

from tilewright.kernel.ir import Expr, bitcast, const, fma, op, rarely
from tilewright.kernel.math_coefficients import LOG, LOG2, LOG10, POW_EXP2, POW_LOG2
from tilewright.kernel.math_constants import LN2, LOG2_E, LOG10_2, LOG10_E
from tilewright.kernel.math_float import (
    F32,
    F64,
    Format,
    at_least,
    at_most,
    polynomial,
    split_constant,
    where,
)

__all__ = ["acosh", "asinh", "atanh", "log", "log1p", "log2", "log10", "pow"]


def _split(f: Format, x: Expr) -> tuple[Expr, Expr]:
    """(e, m) with x = 2^e m and sqrt(1/2) <= m < sqrt(2), for normal x > 0; e is an integer."""
    i = f.to_int(x)
    root = f.integer(f.bits_of(math.sqrt(0.5)))
    e = f.shift_right(i - root, f.mantissa)
    return e, f.to_float(i - f.shift_left(e, f.mantissa))


def _split_any(f: Format, x: Expr) -> tuple[Expr, Expr]:
    """(e, f) as floats with x = 2^e (1 + f), for any finite x > 0: subnormal numbers are scaled up first."""
    steps = f.mantissa + 1
    tiny = op("lt", x, f.const(f.least_normal))
    e, m = _split(f, where(tiny, x * f.const(2.0**steps), x))
    exponent = f.small_int(e)
    return where(tiny, exponent - f.const(steps), exponent), m - f.const(1.0)


def _edges(f: Format, x: Expr, result: Expr) -> Expr:
    """The logarithm outside 0 < x < inf: -inf at 0, NaN below, inf at inf, NaN at NaN."""
    positive = op("gt", x, f.const(0.0))
    outside = where(positive, x, where(op("eq", x, f.const(0.0)), f.const(-math.inf), f.const(math.nan)))
    return where(op("bitand", positive, op("lt", x, f.const(math.inf))), result, outside)


def _log1p_near(f: Format, t: Expr) -> Expr:
    """log(1 + t) for sqrt(1/2) <= 1 + t < sqrt(2), good relative to itself."""
    return fma(t * t, polynomial(f, (-0.5, *LOG[f.bits]), t), t)


def _log1p_and_exponent(f: Format, t: Expr, e: Expr, extra: Expr | None = None) -> Expr:
    """log(1 + t) + extra + e ln 2: small terms first, so that only the last two sums round visibly."""
    high, low = split_constant(f, LN2)
    if f.bits == 64:  # float32's ln 2 happens to be good to 29 bits
        extra = e * f.const(low) if extra is None else fma(e, f.const(low), extra)
    if extra is None:
        return fma(e, f.const(high), _log1p_near(f, t))
    tail = fma(t * t, polynomial(f, (-0.5, *LOG[f.bits]), t), extra)
    return fma(e, f.const(high), t + tail)


def log(f: Format, x: Expr) -> Expr:
    e, t = _split_any(f, x)
    return _edges(f, x, _log1p_and_exponent(f, t, e))


def _log_base(f: Format, x: Expr, slope: Fraction, tail: tuple[float, ...], step: Fraction) -> Expr:
    """e step + log(1 + t), the logarithm being t (slope + tail(t) t)."""
    e, t = _split_any(f, x)
    high, low = split_constant(f, slope)
    near = fma(t, f.const(high), t * polynomial(f, (low, *tail), t))
    step_high, step_low = split_constant(f, step)
    if step_low:
        near = fma(e, f.const(step_low), near)
    return _edges(f, x, fma(e, f.const(step_high), near))


def log2(f: Format, x: Expr) -> Expr:
    return _log_base(f, x, LOG2_E, LOG2[f.bits], Fraction(1))


def log10(f: Format, x: Expr) -> Expr:
    return _log_base(f, x, LOG10_E, LOG10[f.bits], LOG10_2)


def log1p(f: Format, x: Expr) -> Expr:
    result = _log1p_sum(f, x, None)
    inside = op("gt", x, f.const(-1.0))
    outside = where(inside, x, where(op("eq", x, f.const(-1.0)), f.const(-math.inf), f.const(math.nan)))
    return where(op("bitand", inside, op("lt", x, f.const(math.inf))), result, outside)


def _log1p_sum(f: Format, x: Expr, rest: Expr | None) -> Expr:
    """log(1 + x + rest) for finite x > -1 and a rest that is small beside x.

    With 1 + x = 2^k (1 + t): t = x 2^-k + (2^-k - 1) needs one rounding and no division. 2^(2-k) stands for
    2^-k, which would be subnormal for the largest x.
    """
    k, _ = _split(f, x + f.const(1.0))
    scale = f.to_float(f.integer(f.bits_of(4.0)) - f.shift_left(k, f.mantissa))
    quarter = f.const(0.25)
    t = where(op("eq", k, f.integer(0)), x, fma(x, scale, scale - f.const(4.0)) * quarter)
    extra = None
    if rest is not None:  # log(1 + t + d) = log(1 + t) + d / (1 + t), of which a few bits are enough
        extra = rest * scale * quarter * polynomial(f, (1.0, -1.0, 0.8), t)
    # The sums lose the sign of -0.
    return op("copysign", _log1p_and_exponent(f, t, f.small_int(k), extra), x)


# ---- inverse hyperbolic functions --------------------------------------------------------------------------
# All are log1p of something whose own rounding error must be carried along to stay within 2 units.


def _log_of_large(f: Format, a: Expr, usual: Expr, tame: Expr) -> Expr:
    """log 2a where a is so large that its square may overflow, else log1p(usual + tame)."""
    large = op("gt", a, f.const(2.0 ** (f.bits - 4)))
    result = _log1p_sum(f, where(large, a, usual), where(large, f.const(0.0), tame))
    result = result + where(large, f.const(float(LN2)), f.const(0.0))
    return where(op("lt", a, f.const(math.inf)), result, a)


def asinh(f: Format, x: Expr) -> Expr:
    """log1p(a + a^2 / (1 + sqrt(1 + a^2))) with a = |x| and the sign of x."""
    a, one = op("abs", x), f.const(1.0)
    square = a * a
    square_rest = fma(a, a, op("neg", square))
    radicand = square + one
    larger, smaller = where(op("gt", a, one), square, one), where(op("gt", a, one), one, square)
    radicand_rest = ((larger - radicand) + smaller) + square_rest
    root = op("sqrt", radicand)
    root_rest = op("div", fma(op("neg", root), root, radicand) + radicand_rest, root + root)
    divisor = root + one
    divisor_rest = ((root - divisor) + one) + root_rest
    quotient = op("div", square, divisor)
    quotient_rest = fma(op("neg", quotient), divisor, square) + square_rest
    quotient_rest = op("div", fma(op("neg", quotient), divisor_rest, quotient_rest), divisor)
    total = a + quotient  # the quotient is the smaller one
    return op("copysign", _log_of_large(f, a, total, ((a - total) + quotient) + quotient_rest), x)


def acosh(f: Format, x: Expr) -> Expr:
    """log1p((x - 1) + sqrt(x^2 - 1)); NaN below 1."""
    one = f.const(1.0)
    square = x * x
    difference = square - one
    rest = ((square - difference) - one) + fma(x, x, op("neg", square))
    radicand = difference + rest
    radicand_rest = (difference - radicand) + rest
    root = op("sqrt", radicand)
    correction = op("div", fma(op("neg", root), root, radicand) + radicand_rest, root + root)
    above = x - one
    total = root + above  # the root is the larger one
    total_rest = ((root - total) + above) + ((x - above) - one) + correction
    result = _log_of_large(f, x, total, where(op("eq", root, f.const(0.0)), f.const(0.0), total_rest))
    return where(op("ge", x, one), result, f.const(math.nan))


def atanh(f: Format, x: Expr) -> Expr:
    """log1p(2a / (1 - a)) / 2 with a = |x| and the sign of x; infinite at 1, NaN beyond."""
    a, one = op("abs", x), f.const(1.0)
    double = a + a
    divisor = one - a
    divisor_rest = (one - divisor) - a
    quotient = op("div", double, divisor)
    rest = fma(op("neg", quotient), divisor, double)
    rest = op("div", fma(op("neg", quotient), divisor_rest, rest), divisor)
    result = _log1p_sum(f, quotient, rest) * f.const(0.5)
    edge = where(op("eq", a, one), f.const(math.inf), f.const(math.nan))
    return op("copysign", where(op("lt", a, one), result, edge), x)


# ---- pow ----------------------------------------------------------------------------------------------
# A relative error d of log2 x moves x^y by up to 1000 d: the logarithm needs ten bits more than the result.


CENTRE = 1.4602689743041992  # the float32 near the square root of 2 whose logarithm is nearest to 16 bits
LOG2_CENTRE = 0.546234130859375  # within 2^-37
BELOW_ONE = 0x255000  # mantissas from 1 - this / 2^24 on, so that a bit tells which are above the square root of CENTRE
USUAL = 126.0  # a smaller exponent of 2 gives a normal number


def _log2_pair_32(a: Expr, exponent: Expr | None = None) -> tuple[Expr, Expr]:
    """log2 of a normal float32 a > 0, plus ``exponent``, as an unevaluated sum of two floats, good to about 33 bits.

    a = 2^e m with m within a quarter of c, which is 1 or CENTRE: log2 m = log2 c + s (c0 + z g(z)) with s = (m - c) / (m
    + c) and z = s^2 < 0.009. Pairs are kept for m + c, s and c0 + z g; g itself may be one float.
    """
    f = F32
    one = f.bits_of(1.0)
    steps = f.to_int(a) - f.integer(one - BELOW_ONE)
    whole = op("bitand", steps, f.integer(-(1 << f.mantissa)))
    m = f.to_float(f.to_int(a) - whole)
    upper = op("ne", op("bitand", steps, f.integer(1 << f.mantissa - 1)), f.integer(0))
    c = where(upper, f.const(CENTRE), f.const(1.0))
    e = f.small_int(f.shift_right(steps, f.mantissa))
    e = e if exponent is None else e + exponent
    e = where(upper, e + f.const(LOG2_CENTRE), e)  # exact
    t, d = m - c, m + c
    d_rest = m - (d - c)
    inverse = op("div", f.const(1.0), d)
    s = t * inverse
    minus = op("neg", s)
    s_rest = fma(minus, d_rest, fma(minus, d, t)) * inverse
    z = s * s
    c0, c0_rest = (f.const(v) for v in split_constant(f, LOG2_E * 2))
    curve = polynomial(f, POW_LOG2[32], z)
    w = fma(z, curve, c0)
    w_rest = fma(z, curve, c0 - w) + c0_rest
    v = s * w
    v_rest = fma(s, w_rest, fma(s_rest, w, fma(s, w, op("neg", v))))
    high = e + v  # e is 0 or the larger one
    return high, ((e - high) + v) + v_rest


def _exp2_split_32(x: Expr, rest: Expr) -> tuple[Expr, Expr]:
    """(n + bias in the low bits of an integer, 2^(x + rest - n) - 1) for the integer n nearest to x.

    What r loses to rounding, beside the last sum's half unit, is too little to make an exact power inexact.
    """
    f = F32
    shifted = x + f.const(f.magic + f.bias)
    whole = x - (shifted - f.const(f.magic + f.bias))  # exact, and 0 or not smaller than rest
    r = whole + rest
    ln2, ln2_rest = (f.const(v) for v in split_constant(f, LN2))
    tail = fma(r, polynomial(f, POW_EXP2[32], r), ln2_rest)
    return f.to_int(shifted), fma(r, ln2, r * tail)


def _pow_32(x: Expr, y: Expr) -> Expr:
    """x^y for float32. Where base or result is no positive normal number, a branch corrects it, from the operands anew: whatever
    else it read would have to be kept in registers up to there."""
    f = F32
    high, low = _log2_pair_32(x)
    product = y * high
    n, near = _exp2_split_32(product, fma(y, low, fma(y, high, op("neg", product))))
    scale = f.exponent_field(n)
    usual = fma(scale, near, scale)
    least, infinity = f.bits_of(f.least_normal), f.bits_of(math.inf)
    base = bitcast(x, f.unsigned) - const(least, f.unsigned)
    outside = op("ge", base, const(infinity - least, f.unsigned))
    unusual = op("bitor", outside, op("invert", op("lt", op("abs", product), f.const(USUAL))))
    return rarely(unusual, _edges_of_pow(f, x, y, _magnitude_32(x, y)), usual)


def _magnitude_32(x: Expr, y: Expr) -> Expr:
    """|x|^y for float32; right at 0 and infinity too, NaN operands aside."""
    f = F32
    a = op("abs", x)
    tiny, steps = op("lt", a, f.const(f.least_normal)), f.mantissa + 1
    scaled = where(tiny, a * f.const(2.0**steps), a)
    logarithm = _log2_pair_32(scaled, where(tiny, f.const(-steps), f.const(0.0)))
    product, rest = _bounded_product(f, a, y, logarithm, 160.0)
    n, near = _exp2_split_32(product, rest)
    value = near + f.const(1.0)
    # no product of numbers that only rounds to 0: subnormal results take processors a hundred cycles
    value = where(op("lt", product, f.const(-151.0)), f.const(0.0), value)
    both = n - f.integer(f.bits_of(f.magic) - f.bias)
    half = f.shift_right(both, 1)
    return value * f.exponent_field(half) * f.exponent_field(both - half)


def _log2_edges(f: Format, a: Expr, logarithm: Expr) -> Expr:
    logarithm = where(op("eq", a, f.const(0.0)), f.const(-math.inf), logarithm)
    return where(op("eq", a, f.const(math.inf)), a, logarithm)


def _bounded_product(
    f: Format, a: Expr, y: Expr, logarithm: tuple[Expr, Expr], most: float
) -> tuple[Expr, Expr]:
    """y log2 a as an unevaluated sum of two floats, at most ``most``; right where a is 0, 1 or infinite, too."""
    limit = f.const(most)
    high, low = _log2_edges(f, a, logarithm[0]), logarithm[1]
    product = y * high
    rest = fma(y, high, op("neg", product)) + y * low
    inside = op("lt", op("abs", product), limit)
    product = at_least(at_most(product, limit), op("neg", limit))
    product = where(op("eq", a, f.const(1.0)), f.const(0.0), product)
    return product, where(inside, rest, f.const(0.0))


def _log2_pair(f: Format, a: Expr) -> tuple[Expr, Expr]:
    """log2 of a finite a > 0 as an unevaluated sum of two floats, good to about 65 bits.

    log2 m = s (c0 + c1 z + z^2 q(z)) with s = (m - 1) / (m + 1), z = s^2 <= 0.03 and c_k = 2 log2(e) / (2k +
    1). Pairs are kept for s, z, c0 and c1; what is left is so small that one float is enough.
    """
    e, t = _split_any(f, a)
    two = f.const(2.0)
    d = t + two
    d_rest = (two - d) + t
    inverse = op("div", f.const(1.0), d)
    s = t * inverse
    s_rest = (fma(op("neg", s), d, t) - s * d_rest) * inverse
    z = s * s
    z_rest = fma(s, s, op("neg", z)) + two * s * s_rest
    (c0, c0_rest), (c1, c1_rest) = (split_constant(f, LOG2_E * 2 / k) for k in (1, 3))
    p = f.const(c1) * z
    p_rest = fma(f.const(c1), z, op("neg", p)) + fma(f.const(c1), z_rest, f.const(c1_rest) * z)
    tail = z * z * polynomial(f, POW_LOG2[64], z)
    q = p + tail
    q_rest = ((p - q) + tail) + p_rest
    w = f.const(c0) + q
    w_rest = ((f.const(c0) - w) + q) + (q_rest + f.const(c0_rest))
    v = s * w
    v_rest = fma(s, w, op("neg", v)) + fma(s, w_rest, s_rest * w)
    high = e + v
    return high, ((e - high) + v) + v_rest


def _magnitude_64(x: Expr, y: Expr) -> Expr:
    """|x|^y for float64; right at 0 and infinity too, NaN operands aside."""
    f = F64
    a = op("abs", x)
    product, rest = _bounded_product(f, a, y, _log2_pair(f, a), 1100.0)
    return _exp2_pair(f, product, rest)


def _exp2_pair(f: Format, x: Expr, rest: Expr) -> Expr:
    """2^(x + rest) for |x| <= 1100, almost always the nearest float: exact powers come out exact."""
    shifted = x + f.const(f.magic)
    whole = x - (shifted - f.const(f.magic))  # exact, and 0 or not smaller than rest
    r = whole + rest
    r_rest = (whole - r) + rest
    ln2, ln2_rest = split_constant(f, LN2)
    p = r * f.const(ln2)
    p_rest = fma(r, f.const(ln2), op("neg", p)) + fma(r, f.const(ln2_rest), r_rest * f.const(ln2))
    one = f.const(1.0)
    sum_ = one + p
    tail = fma(r * r, polynomial(f, POW_EXP2[f.bits], r), p_rest)
    value = sum_ + (((one - sum_) + p) + tail)
    n = f.to_int(shifted) - f.integer(f.bits_of(f.magic))
    half = f.shift_right(n, 1)
    bias = f.integer(f.bias)
    return value * f.exponent_field(half + bias) * f.exponent_field(n - half + bias)


def _integer_exponent(f: Format, y: Expr) -> tuple[Expr, Expr]:
    """(y is an integer, y is an odd integer)."""
    half = y * f.const(0.5)
    whole = op("eq", op("trunc", y), y)
    return whole, op("bitand", whole, op("ne", op("trunc", half), half))


def _edges_of_pow(f: Format, x: Expr, y: Expr, magnitude: Expr) -> Expr:
    """x^y, given |x|^y."""
    whole, odd = _integer_exponent(f, y)
    one, nan = f.const(1.0), f.const(math.nan)
    sign = op("bitand", f.to_int(x), f.integer(-(2 ** (f.bits - 1))))
    result = where(odd, f.to_float(op("bitor", f.to_int(magnitude), sign)), magnitude)
    finite_negative = op("bitand", op("lt", x, f.const(0.0)), op("gt", x, f.const(-math.inf)))
    undefined = op("bitand", finite_negative, op("invert", whole))
    undefined = op("bitor", undefined, op("bitor", op("ne", x, x), op("ne", y, y)))
    result = where(undefined, nan, result)
    return where(op("bitor", op("eq", x, one), op("eq", y, f.const(0.0))), one, result)


def pow(f: Format, x: Expr, y: Expr) -> Expr:
    """x^y as IEEE 754 has it: pow(x, 0) = pow(1, y) = 1 even for NaN; a negative base needs an integer y."""
    if y.op == "const" and y.attr in _EASY_POWERS:
        return _EASY_POWERS[y.attr](f, x)
    return _pow_32(x, y) if f.bits == 32 else _edges_of_pow(f, x, y, _magnitude_64(x, y))


def _square_root(f: Format, x: Expr) -> Expr:
    """x^(1/2), which differs from the square root at -0 and at -inf."""
    root = op("sqrt", x + f.const(0.0))
    return where(op("eq", x, f.const(-math.inf)), f.const(math.inf), root)


def _reciprocal(f: Format, x: Expr) -> Expr:
    return op("div", f.const(1.0), x)


_EASY_POWERS: dict[float, Callable[[Format, Expr], Expr]] = {
    0.0: lambda f, x: f.const(1.0),
    1.0: lambda f, x: x,
    2.0: lambda f, x: x * x,
    3.0: lambda f, x: x * x * x,
    4.0: lambda f, x: x * x * (x * x),
    -1.0: _reciprocal,
    -2.0: lambda f, x: _reciprocal(f, x) * _reciprocal(f, x),
    0.5: _square_root,
}
