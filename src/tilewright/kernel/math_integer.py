"""Operations made of exact arithmetic: the remainder and the floored quotient of floats, powers of integers,
random bits.

Nothing here is approximated: every result is the one that unlimited precision, rounded as NumPy rounds it,
would give.
"""

from __future__ import annotations

from tilewright.core import dtype as dt
from tilewright.kernel.ir import Expr, const, fma, op
from tilewright.kernel.math_float import Format, where

__all__ = ["floordiv", "integer_pow", "mod", "threefry2x32"]


def _normalize(f: Format, a: Expr) -> tuple[Expr, Expr]:
    """(m, e) with a = m 2^e and 1 <= m < 2, for finite a > 0, subnormal or not; e is an integer of the float's width."""
    steps = f.mantissa + 1
    tiny = op("lt", a, f.const(f.least_normal))
    i = f.to_int(where(tiny, a * f.const(2.0**steps), a))
    e = f.shift_right(i, f.mantissa) - where(tiny, f.integer(f.bias + steps), f.integer(f.bias))
    field = op("bitand", i, f.integer(2**f.mantissa - 1))
    return f.to_float(op("bitor", field, f.integer(f.bits_of(1.0)))), e


def _fmod(f: Format, x: Expr, y: Expr) -> Expr:
    """x - y trunc(x / y) without rounding; NaN if x is infinite, y is 0 or one is NaN.

    With |x| = a 2^(e + d) and |y| = b 2^e the remainder is (a 2^d mod b) 2^e. Two to the power ``chunk`` is
    multiplied in at a time, as often as d asks for, and the nearest multiple of b subtracted by an fma, which
    is exact: the quotient is off by less than 3/4, so what is left is below 3/4 b and a multiple of the last
    place of b.
    """
    chunk = f.mantissa - 2
    ax, ay = op("abs", x), op("abs", y)
    a, ea = _normalize(f, ax)
    b, eb = _normalize(f, ay)
    distance = f.small_int(ea - eb)
    rounds = op("floor", (distance + f.const(0.5)) * f.const(1.0 / chunk))
    inverse = op("div", f.const(1.0), b)

    def reduce(r: Expr) -> Expr:
        return fma(op("neg", op("round", r * inverse)), b, r)

    first = fma(rounds, f.const(-chunk), distance)  # 0 <= first < chunk where d >= 0
    r = reduce(a * f.exponent_field(f.to_int(first + f.const(f.magic + f.bias))))
    largest = 2 * f.bias + f.mantissa - 1  # of d, from the largest number to the smallest
    for k in range(largest // chunk):
        r = reduce(where(op("gt", rounds, f.const(k)), r * f.const(2.0**chunk), r))
    r = where(op("lt", r, f.const(0.0)), r + b, r)
    half = f.shift_right(eb, 1)  # 2^e may be subnormal, its two halves are not
    bias = f.integer(f.bias)
    r = r * f.exponent_field(half + bias) * f.exponent_field(eb - half + bias)
    result = op("copysign", where(op("lt", ax, ay), ax, r), x)
    valid = op("bitand", op("lt", ax, f.const(float("inf"))), op("gt", ay, f.const(0.0)))
    return where(valid, result, f.const(float("nan")))


def _signs_differ(f: Format, x: Expr, y: Expr) -> Expr:
    zero = f.const(0.0)
    return op("bitand", op("ne", x, zero), op("ne", op("lt", x, zero), op("lt", y, zero)))


def mod(f: Format, x: Expr, y: Expr) -> Expr:
    """The remainder with the sign of y, a zero too."""
    remainder = _fmod(f, x, y)
    zero = op("eq", remainder, f.const(0.0))
    moved = where(_signs_differ(f, remainder, y), remainder + y, remainder)
    return where(zero, op("copysign", f.const(0.0), y), moved)


def floordiv(f: Format, x: Expr, y: Expr) -> Expr:
    """The floor of the quotient, consistent with `mod`; by zero, the quotient itself."""
    remainder = _fmod(f, x, y)
    quotient = op("div", x - remainder, y)
    quotient = where(_signs_differ(f, remainder, y), quotient - f.const(1.0), quotient)
    floor = op("floor", quotient)
    snapped = where(op("gt", quotient - floor, f.const(0.5)), floor + f.const(1.0), floor)
    direct = op("div", x, y)
    zero = f.const(0.0)
    result = where(op("eq", quotient, zero), op("copysign", zero, direct), snapped)
    return where(op("eq", y, zero), direct, result)


def integer_pow(base: Expr, exponent: Expr) -> Expr:
    """base ** exponent modulo 2^bits by repeated squaring; a negative exponent truncates 1 / base**-exponent."""
    dtype = base.dtype
    one, zero = const(1, dtype), const(0, dtype)
    if exponent.op == "const" and exponent.attr >= 0:
        return _constant_pow(base, int(exponent.attr))
    result, power = one, base
    for k in range(dtype.bits - (dtype.kind == "i")):
        bit = op("ne", op("bitand", exponent, const(1 << k, dtype)), zero)
        result = where(bit, result * power, result)
        power = power * power
    if dtype.kind == "u":
        return result
    minus = const(-1, dtype)
    alternating = where(op("eq", op("bitand", exponent, one), zero), one, minus)
    below = where(op("eq", base, one), one, where(op("eq", base, minus), alternating, zero))
    return where(op("lt", exponent, zero), below, result)


def _constant_pow(base: Expr, exponent: int) -> Expr:
    """base ** exponent for a known exponent >= 0, modulo 2^bits for integers."""
    result: Expr | None = None
    power = base
    while exponent:
        if exponent & 1:
            result = power if result is None else result * power
        exponent >>= 1
        if exponent:
            power = power * power
    return const(1, base.dtype) if result is None else result


_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
_KEY_PARITY = 0x1BD11BDA


def threefry2x32(k0: Expr, k1: Expr, c0: Expr, c1: Expr) -> tuple[Expr, Expr]:
    """64 random bits for a key and a counter: the Threefry-2x32 block function with 20 rounds.

    All four are uint32, and so are the two results. The generator is counter-based: equal keys and counters
    give equal bits on every target, however the work is divided. J. Salmon et al., "Parallel random numbers:
    as easy as 1, 2, 3", SC 2011.
    """
    keys = (k0, k1, op("bitxor", op("bitxor", k0, k1), const(_KEY_PARITY, dt.uint32)))
    x0, x1 = c0 + k0, c1 + k1
    for group in range(5):
        for rotation in _ROTATIONS[4 * (group % 2) : 4 * (group % 2) + 4]:
            x0 = x0 + x1
            left = op("shl", x1, const(rotation, dt.uint32))
            right = op("shr", x1, const(32 - rotation, dt.uint32))
            x1 = op("bitxor", op("bitor", left, right), x0)
        x0 = x0 + keys[(group + 1) % 3]
        x1 = x1 + keys[(group + 2) % 3] + const(group + 1, dt.uint32)
    return x0, x1
