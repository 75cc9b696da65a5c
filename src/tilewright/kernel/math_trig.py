"""sin, cos, tan and their inverses.

The argument is reduced to [-pi/4, pi/4] by the method of Payne and Hanek for every argument alike: the bits
of 2/pi that matter for the exponent of x are selected (there is no table), multiplied exactly, and whole
turns fall off the top. It costs more than subtracting multiples of pi/2, but it is right up to the largest
number, and where-selecting between the two would cost the sum of both.
"""

from __future__ import annotations

import math

from tilewright.core import dtype as dt
from tilewright.kernel.ir import Expr, cast, const, fma, op
from tilewright.kernel.math_coefficients import ASIN, ATAN, COS, SIN, TAN
from tilewright.kernel.math_constants import PI, TWO_OVER_PI_BITS
from tilewright.kernel.math_float import Format, horner, split_constant, where

__all__ = ["acos", "asin", "atan", "atan2", "cos", "sin", "tan"]


def _word(position: int) -> Expr:
    """64 bits of 2/pi that end ``position`` bits after the point."""
    return const(
        TWO_OVER_PI_BITS[0] >> (TWO_OVER_PI_BITS[1] - position) & (2**64 - 1) if position > 0 else 0,
        dt.uint64,
    )


def _reduce_32(f: Format, x: Expr) -> tuple[Expr, Expr, Expr]:
    """(quadrant, r, s): |x| = quadrant pi/2 + r + s for float32; s is what is lost by rounding r.

    The quadrant is an int32 of which the two low bits count.

    With |x| = M 2^(E - 150), M < 2^24, the 96 bits of 2^(E - 150) 2/pi from the weight 2 down to 2^-94 are
    selected by E; their product with M modulo 4 is kept as a 64-bit fixed-point number with 62 bits after the
    point. The nearest float32 to a multiple of pi/2 leaves about 2^-30, so that 2^-70 of error is far below
    half a unit.
    """
    if f.bits != 32:
        raise NotImplementedError("sin, cos and tan of float64")
    i = op("bitand", f.to_int(x), f.integer(0x7FFFFFFF))
    wide = cast(
        cast(op("bitor", op("bitand", i, f.integer(0x7FFFFF)), f.integer(0x800000)), dt.uint32), dt.uint64
    )
    exponent = cast(cast(f.shift_right(i, 23), dt.uint32), dt.uint64)

    def number(value: int) -> Expr:
        return const(value, dt.uint64)

    middle, large = op("ge", exponent, number(128)), op("ge", exponent, number(192))
    words = [_word(64 * j - 88) for j in range(1, 6)]
    first, second, third = (
        where(large, words[j + 2], where(middle, words[j + 1], words[j])) for j in range(3)
    )
    shift = op("bitand", exponent, number(63))
    back = number(64) - shift
    high = op("bitor", op("shl", first, shift), op("shr", second, back))
    low = op("shr", op("bitor", op("shl", second, shift), op("shr", third, back)), number(32))
    product = wide * high + op("shr", wide * low, number(32))
    quadrant = op("shr", product + number(2**61), number(62))
    fraction = cast(product - op("shl", quadrant, number(62)), dt.int64)
    angle = cast(fraction, dt.float64) * const(math.pi / 2 * 2.0**-62, dt.float64)
    r = cast(angle, dt.float32)
    s = cast(angle - cast(r, dt.float64), dt.float32)
    small = op("lt", i, f.integer(f.bits_of(0.5)))
    quadrant32 = cast(quadrant, dt.int32)
    zero = f.const(0.0)
    return where(small, f.integer(0), quadrant32), where(small, f.to_float(i), r), where(small, zero, s)


def _sine(f: Format, r: Expr, z: Expr) -> Expr:
    return fma(r * z, horner(f, SIN[f.bits], z), r)


def _cosine(f: Format, z: Expr) -> Expr:
    return fma(z, fma(z, horner(f, COS[f.bits], z), f.const(-0.5)), f.const(1.0))


def _sine_of_quadrant(f: Format, quadrant: Expr, r: Expr, sign: Expr, x: Expr) -> Expr:
    """sin(quadrant pi/2 + r) with its sign bit flipped by ``sign``; NaN where x is infinite or NaN."""
    z = r * r
    odd = op("ne", op("bitand", quadrant, f.integer(1)), f.integer(0))
    value = where(odd, _cosine(f, z), _sine(f, r, z))
    flip = op(
        "bitxor", op("bitand", f.shift_left(quadrant, f.bits - 2), f.integer(-(2 ** (f.bits - 1)))), sign
    )
    value = f.to_float(op("bitxor", f.to_int(value), flip))
    return where(op("lt", op("abs", x), f.const(math.inf)), value, f.const(math.nan))


def _sign(f: Format, x: Expr) -> Expr:
    return op("bitand", f.to_int(x), f.integer(-(2 ** (f.bits - 1))))


def sin(f: Format, x: Expr) -> Expr:
    quadrant, r, _ = _reduce_32(f, x)
    return _sine_of_quadrant(f, quadrant, r, _sign(f, x), x)


def cos(f: Format, x: Expr) -> Expr:
    quadrant, r, _ = _reduce_32(f, x)
    return _sine_of_quadrant(f, quadrant + f.integer(1), r, f.integer(0), x)


def tan(f: Format, x: Expr) -> Expr:
    quadrant, r, s = _reduce_32(f, x)
    z = r * r
    t = r + fma(r * z, horner(f, TAN[f.bits], z), fma(s, z, s))
    odd = op("ne", op("bitand", quadrant, f.integer(1)), f.integer(0))
    value = op("div", where(odd, f.const(-1.0), t), where(odd, t, f.const(1.0)))
    value = f.to_float(op("bitxor", f.to_int(value), _sign(f, x)))
    return where(op("lt", op("abs", x), f.const(math.inf)), value, f.const(math.nan))


def _arcsine_parts(f: Format, x: Expr) -> tuple[Expr, Expr]:
    """(|x| is large, asin of the small one of |x| and sqrt((1 - |x|) / 2)).

    asin|x| = pi/2 - 2 asin sqrt((1 - |x|) / 2). The border is 0.6 and not 1/2, because just above 1/2 the
    subtraction would double the error of what is subtracted.
    """
    a = op("abs", x)
    large = op("gt", a, f.const(0.6))
    z = where(large, fma(a, f.const(-0.5), f.const(0.5)), a * a)
    s = where(large, op("sqrt", z), a)
    return large, fma(s * z, horner(f, ASIN[f.bits], z), s)


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
