"""sin, cos, tan and their inverses.

The argument is reduced to [-pi/4, pi/4] by the method of Payne and Hanek: the bits of 2/pi that matter for the
exponent of x are selected (there is no table), multiplied exactly, and whole turns fall off the top. That is right
up to the largest number. float32 arguments below NEAR have multiples of pi/2 subtracted, in three parts, instead:
a vector with a larger one among its lanes, which is rare, takes the other way as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise

from tilewright.core import dtype as dt
from tilewright.kernel.ir import Expr, bitcast, cast, const, fma, op, rarely
from tilewright.kernel.math_coefficients import ASIN, ATAN, COS, SIN, TAN
from tilewright.kernel.math_constants import PI, TWO_OVER_PI_BITS
from tilewright.kernel.math_float import F32, F64, Format, horner, polynomial, split_constant, where

__all__ = ["acos", "asin", "atan", "atan2", "cos", "sin", "tan"]


NEAR = 2.0**13  # below, n pi/2 is near enough to the argument for their difference to be exact


def _half_pi(f: Format, count: int) -> tuple[float, ...]:
    """pi/2 as a sum of floats."""
    parts, rest = [], PI / 2
    for _ in range(count):
        parts.append(f.round(float(rest)))
        rest -= Fraction(parts[-1])
    return tuple(parts)


HALF_PI = {32: _half_pi(F32, 3)}


def _number(value: int) -> Expr:
    return const(value, dt.uint64)


def _word(position: int) -> int:
    """The 64 bits of 2/pi that end ``position`` bits after the point."""
    bits, count = TWO_OVER_PI_BITS
    return bits >> (count - position) & (2**64 - 1) if position > 0 else 0


def _window(words: Sequence[Expr], shift: Expr) -> list[Expr]:
    """Successive words moved left by ``shift`` < 64 bits, the bits of each next word following; one word fewer."""
    back = _number(64) - shift
    return [
        op("bitor", op("shl", word, shift), op("shr", following, back)) for word, following in pairwise(words)
    ]


def _fraction_of_turn(product: Expr) -> tuple[Expr, Expr]:
    """A fixed-point number modulo 4 with 62 bits after the point -> (nearest integer, signed rest in the same scale)."""
    quadrant = op("shr", product + _number(2**61), _number(62))
    return quadrant, product - op("shl", quadrant, _number(62))


def _reduce_32(x: Expr) -> tuple[Expr, Expr, Expr]:
    """(quadrant, r, s): |x| = quadrant pi/2 + r + s for float32, where |x| >= 1/2.

    With |x| = M 2^(E - 150), M < 2^24, the 96 bits of 2^(E - 150) 2/pi from the weight 2 down to 2^-94 are
    selected by E; their product with M modulo 4 is kept as a 64-bit fixed-point number. The nearest float32
    to a multiple of pi/2 leaves about 2^-30, so that 2^-70 of error is far below half a unit.
    """
    f = F32
    i = op("bitand", f.to_int(x), f.integer(0x7FFFFFFF))
    mantissa = op("bitor", op("bitand", i, f.integer(0x7FFFFF)), f.integer(0x800000))
    mantissa, exponent = (cast(cast(v, dt.uint32), dt.uint64) for v in (mantissa, f.shift_right(i, 23)))
    words = [_number(_word(64 * j - 88)) for j in range(1, 6)]
    middle, large = op("ge", exponent, _number(128)), op("ge", exponent, _number(192))
    chosen = [where(large, words[j + 2], where(middle, words[j + 1], words[j])) for j in range(3)]
    high, low = _window(chosen, op("bitand", exponent, _number(63)))
    product = mantissa * high + op("shr", mantissa * op("shr", low, _number(32)), _number(32))
    quadrant, rest = _fraction_of_turn(product)
    angle = cast(cast(rest, dt.int64), dt.float64) * const(float(PI) / 2 * 2.0**-62, dt.float64)
    r = cast(angle, f.dtype)
    return cast(quadrant, dt.int32), r, cast(angle - cast(r, dt.float64), f.dtype)


def _multiply_53x64(m: Expr, b: Expr) -> tuple[Expr, Expr]:
    """The product of m < 2^53 and a 64-bit number as (high, low) 64-bit words, by halves."""
    half, mask = _number(32), _number(2**32 - 1)
    m1, m0 = op("shr", m, half), op("bitand", m, mask)
    b1, b0 = op("shr", b, half), op("bitand", b, mask)
    low = m0 * b0
    cross = m1 * b0 + op("shr", low, half)  # below 2^54
    other = m0 * b1 + op("bitand", cross, mask)
    high = m1 * b1 + op("shr", cross, half) + op("shr", other, half)
    return high, op("bitor", op("shl", other, half), op("bitand", low, mask))


def _reduce_64(x: Expr) -> tuple[Expr, Expr, Expr]:
    """(quadrant, r, s): |x| = quadrant pi/2 + r + s for float64, where |x| >= 1/2.

    As for float32, with M < 2^53 and 192 selected bits: a fixed-point number with 126 bits after the point is
    kept. The nearest float64 to a multiple of pi/2 leaves about 2^-61.
    """
    f = F64
    i = bitcast(op("abs", x), dt.uint64)
    mantissa = op("bitor", op("bitand", i, _number(2**52 - 1)), _number(2**52))
    exponent = op("shr", i, _number(52)) - _number(f.bias - 1)  # 0 for 1/2 <= |x| < 1
    words = [_number(_word(64 * j + 9)) for j in range(20)]
    farthest = words[16:]
    # words[exponent / 64 :][:4], one bit of the exponent at a time; 16 only comes alone.
    for step, count in ((8, 11), (4, 7), (2, 5), (1, 4)):
        bit = op("ne", op("bitand", exponent, _number(64 * step)), _number(0))
        words = [where(bit, words[k + step], words[k]) for k in range(count)]
    beyond = op("ge", exponent, _number(64 * 16))
    words = [where(beyond, far, word) for far, word in zip(farthest, words, strict=True)]
    a, b, c = _window(words, op("bitand", exponent, _number(63)))
    b_high, b_low = _multiply_53x64(mantissa, b)
    c_high, _ = _multiply_53x64(mantissa, c)
    low = b_low + c_high
    carry = where(op("lt", low, b_low), _number(1), _number(0))
    quadrant, rest = _fraction_of_turn(mantissa * a + b_high + carry)
    r, s = _pair_of_fixed_point(cast(rest, dt.int64), low)
    return cast(quadrant, dt.int64), r, s


def _pair_of_fixed_point(high: Expr, low: Expr) -> tuple[Expr, Expr]:
    """(high 2^-62 + low 2^-126) pi/2 as an unevaluated sum of two float64; high is signed."""
    f = F64
    mask, half = _number(2**32 - 1), _number(32)

    def small(i: Expr, scale: float) -> Expr:
        """An unsigned 32-bit number times a power of two, through the mantissa of 2^52."""
        placed = bitcast(op("bitor", i, _number(f.bits_of(2.0**52))), f.dtype)
        return (placed - f.const(2.0**52)) * f.const(scale)

    top = f.small_int(f.shift_right(high, 32)) * f.const(2.0**-30)
    next_bits = small(op("bitand", cast(high, dt.uint64), mask), 2.0**-62)
    tail = small(op("shr", low, half), 2.0**-94) + small(op("bitand", low, mask), 2.0**-126)
    first = top + next_bits
    second = ((top - first) + next_bits) + tail
    t = first + second
    t_rest = (first - t) + second
    turn, turn_rest = (f.const(v) for v in split_constant(f, PI / 2))
    r = t * turn
    r_rest = fma(t, turn, op("neg", r)) + fma(t, turn_rest, t_rest * turn)
    s = r + r_rest
    return s, (r - s) + r_rest


def _reduce(f: Format, x: Expr) -> tuple[Expr, Expr, Expr]:
    """(quadrant, r, s): |x| = quadrant pi/2 + r + s, |r| <= pi/4; of the quadrant the two low bits count."""
    quadrant, r, s = _reduce_32(x) if f.bits == 32 else _reduce_64(x)
    a = op("abs", x)
    small = op("lt", a, f.const(0.5))
    return where(small, f.integer(0), quadrant), where(small, a, r), where(small, f.const(0.0), s)


def _nearest_quadrant(f: Format, x: Expr) -> tuple[Expr, Expr]:
    """The multiple of pi/2 nearest to x, 0 <= x < NEAR, in the low bits of an integer and as a float."""
    magic = f.const(f.magic)
    shifted = fma(x, f.const(2 / math.pi), magic)
    return f.to_int(shifted), shifted - magic


def _subtract_quadrants(f: Format, n: Expr, x: Expr) -> Expr:
    """x - n pi/2 rounded once, for 0 <= x < NEAR; the first difference is exact."""
    for part in HALF_PI[f.bits]:
        x = fma(n, f.const(-part), x)
    return x


def _subtract_quadrants_twice(f: Format, n: Expr, x: Expr) -> tuple[Expr, Expr]:
    """x - n pi/2 as an unevaluated sum of two floats, likewise."""
    first, second, third = (f.const(part) for part in HALF_PI[f.bits])
    t = fma(op("neg", n), first, x)
    product = n * second
    rest = fma(n, third, fma(n, second, op("neg", product)))
    r = t - product
    return r, ((t - r) - product) - rest


def _sine_of_quadrant(
    f: Format, quadrant: Expr, r: Expr, s: Expr | None = None, sign: Expr | None = None
) -> Expr:
    """sin(quadrant pi/2 + r + s), times the sign of ``sign``."""
    z = r * r
    tail, inner = polynomial(f, SIN[f.bits], z), fma(z, polynomial(f, COS[f.bits], z), f.const(-0.5))
    one = f.const(1.0)
    if s is None:
        sine, cosine = fma(r * z, tail, r), fma(z, inner, one)
    else:
        sine, cosine = r + fma(r * z, tail, s), fma(r, fma(r, inner, op("neg", s)), one)
    value = where(op("ne", op("bitand", quadrant, f.integer(1)), f.integer(0)), cosine, sine)
    flip = f.shift_left(quadrant, f.bits - 2)
    if sign is not None:
        flip = op("bitxor", flip, f.to_int(sign))
    return f.to_float(op("bitxor", f.to_int(value), op("bitand", flip, _sign_bit(f))))


def _sign_bit(f: Format) -> Expr:
    return f.integer(-(2 ** (f.bits - 1)))


def _sign(f: Format, x: Expr) -> Expr:
    return op("bitand", f.to_int(x), _sign_bit(f))


def _if_finite(f: Format, x: Expr, value: Expr) -> Expr:
    return where(op("lt", op("abs", x), f.const(math.inf)), value, f.const(math.nan))


def _near_or_far(
    f: Format, x: Expr, near: Callable[[Format, Expr], Expr], far: Callable[[Format, Expr], Expr]
) -> Expr:
    """``far`` serves every argument; where all lanes are below NEAR, ``near`` alone is computed."""
    if f.bits != 32:
        return far(f, x)
    return rarely(op("ge", op("abs", x), f.const(NEAR)), far(f, x), near(f, x))


def sin(f: Format, x: Expr) -> Expr:
    return _near_or_far(f, x, _near_sin, _far_sin)


def _near_sin(f: Format, x: Expr) -> Expr:
    a = op("abs", x)
    quadrant, n = _nearest_quadrant(f, a)
    return _sine_of_quadrant(f, quadrant, _subtract_quadrants(f, n, a), sign=x)


def _far_sin(f: Format, x: Expr) -> Expr:
    return _if_finite(f, x, _sine_of_quadrant(f, *_reduce(f, x), sign=x))


def cos(f: Format, x: Expr) -> Expr:
    return _near_or_far(f, x, _near_cos, _far_cos)


def _near_cos(f: Format, x: Expr) -> Expr:
    a = op("abs", x)
    quadrant, n = _nearest_quadrant(f, a)
    return _sine_of_quadrant(f, quadrant + f.integer(1), _subtract_quadrants(f, n, a))


def _far_cos(f: Format, x: Expr) -> Expr:
    quadrant, r, s = _reduce(f, x)
    return _if_finite(f, x, _sine_of_quadrant(f, quadrant + f.integer(1), r, s))


def tan(f: Format, x: Expr) -> Expr:
    return _near_or_far(f, x, _near_tan, _far_tan)


def _near_tan(f: Format, x: Expr) -> Expr:
    a = op("abs", x)
    quadrant, n = _nearest_quadrant(f, a)
    return _tangent_of_quadrant(f, x, quadrant, *_subtract_quadrants_twice(f, n, a))


def _far_tan(f: Format, x: Expr) -> Expr:
    return _if_finite(f, x, _tangent_of_quadrant(f, x, *_reduce(f, x)))


def _tangent_of_quadrant(f: Format, x: Expr, quadrant: Expr, r: Expr, s: Expr) -> Expr:
    """tan(quadrant pi/2 + r + s) with the sign of x: tan r in even quadrants, -1 / tan r in odd ones, corrected for
    the rounding of tan r."""
    z = r * r
    tail = fma(r * z, polynomial(f, TAN[f.bits], z), fma(s, z, s))
    t = r + tail
    odd = op("ne", op("bitand", quadrant, f.integer(1)), f.integer(0))
    quotient = op("div", where(odd, f.const(-1.0), t), where(odd, t, f.const(1.0)))
    rest = where(odd, (r - t) + tail, f.const(0.0))
    value = fma(rest * quotient, quotient, quotient)
    return f.to_float(op("bitxor", f.to_int(value), _sign(f, x)))


def _arcsine_parts(f: Format, x: Expr) -> tuple[Expr, Expr]:
    """(|x| is large, asin of the small one of |x| and sqrt((1 - |x|) / 2)).

    asin|x| = pi/2 - 2 asin sqrt((1 - |x|) / 2). The border is 0.6 and not 1/2, because just above 1/2 the
    subtraction would double the error of what is subtracted.
    """
    a = op("abs", x)
    large = op("gt", a, f.const(0.6))
    z = where(large, fma(a, f.const(-0.5), f.const(0.5)), a * a)
    s = where(large, op("sqrt", z), a)
    return large, fma(s * z, polynomial(f, ASIN[f.bits], z), s)


def asin(f: Format, x: Expr) -> Expr:
    large, p = _arcsine_parts(f, x)
    high, low = split_constant(f, PI / 2)
    folded = f.const(high) - fma(p, f.const(2.0), f.const(-low))
    return op("copysign", where(large, folded, p), x)


def acos(f: Format, x: Expr) -> Expr:
    large, p = _arcsine_parts(f, x)
    negative = op("lt", x, f.const(0.0))
    signed = f.to_float(op("bitxor", f.to_int(p), _sign(f, x)))
    high, low = split_constant(f, PI / 2)
    near = f.const(high) - (signed - f.const(low))
    double = p + p
    far = where(negative, f.const(2 * high) - (double - f.const(2 * low)), double)
    return where(large, far, near)


# atan takes `horner`: its coefficients alternate in sign, and near 1 the halves of `polynomial` would cancel.


def atan(f: Format, x: Expr) -> Expr:
    """atan|x|, or pi/2 + atan(-1/|x|) above 1."""
    a = op("abs", x)
    large = op("gt", a, f.const(1.0))
    t = op("div", where(large, f.const(-1.0), a), where(large, a, f.const(1.0)))
    z = t * t
    high, low = split_constant(f, PI / 2)
    zero = f.const(0.0)
    tail = fma(t * z, horner(f, ATAN[f.bits], z), where(large, f.const(low), zero))
    return op("copysign", where(large, f.const(high), zero) + (t + tail), x)


def atan2(f: Format, y: Expr, x: Expr) -> Expr:
    """The angle of the point (x, y): atan(smaller / larger) placed in its octant; edges as in IEEE 754."""
    ax, ay = op("abs", x), op("abs", y)
    steep = op("gt", ay, ax)
    larger, smaller = where(steep, ay, ax), where(steep, ax, ay)
    zero, one = f.const(0.0), f.const(1.0)
    # 0/0 counts as 0 and inf/inf as 1; NaN in either operand stays, for it makes the sum below NaN.
    both_infinite = op("eq", smaller, f.const(math.inf))
    t = op(
        "div",
        where(both_infinite, one, smaller),
        where(both_infinite, one, where(op("eq", larger, zero), one, larger)),
    )
    z = t * t
    leftward = op("lt", f.to_int(x), f.integer(0))
    flip = op("ne", steep, leftward)
    sign = where(flip, f.integer(-(2 ** (f.bits - 1))), f.integer(0))
    high, low = split_constant(f, PI / 2)
    base = where(steep, f.const(high), where(leftward, f.const(2 * high), zero))
    rest = where(steep, f.const(low), where(leftward, f.const(2 * low), zero))
    turned = f.to_float(op("bitxor", f.to_int(t), sign))
    tail = fma(turned * z, horner(f, ATAN[f.bits], z), rest)
    result = op("copysign", base + (turned + tail), y)
    return where(op("bitor", op("ne", x, x), op("ne", y, y)), f.const(math.nan), result)
