"""The rest of NumPy's elementwise functions: remainders, exponents and mantissas, angles, comparisons within a tolerance.

Each is a short expression of the functions in ``elementwise.py``, so it is native, differentiable and works in ``tw.jit``
and ``tw.vmap``; only ``gcd`` and ``lcm``, whose number of steps depends on the elements, are computed by NumPy on the host.
Functions that the array API standard has are in ``elementwise.py``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tilewright.core import dtype as dt
from tilewright.functions.arguments import (
    TensorLike,
    as_tensor,
    cast,
    common_type,
    float_tensor,
    inexact,
    operands_of,
    together,
)
from tilewright.functions.differences import nextafter
from tilewright.functions.elementwise import (
    abs,
    add,
    atan2,
    bitwise_and,
    bitwise_or,
    bitwise_right_shift,
    clip,
    copysign,
    divide,
    equal,
    exp2,
    floor_divide,
    greater,
    imag,
    isfinite,
    isinf,
    isnan,
    less,
    less_equal,
    log1p,
    logical_and,
    multiply,
    negative,
    not_equal,
    pow,
    real,
    remainder,
    signbit,
    sin,
    sqrt,
    subtract,
    trunc,
    where,
)
from tilewright.functions.host import host_call
from tilewright.functions.reductions import all as all_of
from tilewright.functions.types import finfo
from tilewright.tensor import DTypeError, Tensor, apply

__all__ = [
    "addcdiv", "addcmul", "allclose", "angle", "array_equal", "array_equiv", "bitwise_count", "cbrt", "deg2rad", "divmod",
    "fabs", "float_power", "fmax", "fmin", "fmod", "frac", "frexp", "gcd", "heaviside", "isclose", "iscomplex", "isneginf",
    "isposinf", "isreal", "lcm", "ldexp", "lerp", "logaddexp2", "modf", "nan_to_num", "rad2deg", "real_if_close", "sinc",
    "spacing",
]  # fmt: skip


def _pair(function: str, x1: TensorLike, x2: TensorLike) -> tuple[Tensor, Tensor]:
    """Two operands converted to one type (Python numbers take the tensor's) and broadcast together."""
    items = operands_of(function, (x1, x2))
    kind = common_type(function, items)
    a, b = together(function, *(cast(as_tensor(x, function, dtype=kind), kind) for x in items))
    return a, b


def _real_pair(function: str, x1: TensorLike, x2: TensorLike) -> tuple[Tensor, Tensor]:
    a, b = _pair(function, x1, x2)
    if a.dtype.is_complex:
        raise DTypeError(f"{function}: takes real numbers, got {a.dtype}")
    return a, b


def _real(function: str, x: TensorLike) -> Tensor:
    tensor = float_tensor(x, function)
    if tensor.dtype.is_complex:
        raise DTypeError(f"{function}: takes real numbers, got {tensor.dtype}")
    return tensor


# ---- quotients and remainders --------------------------------------------------------------------------------------


def fmod(x1: TensorLike, x2: TensorLike) -> Tensor:
    """x1 - trunc(x1 / x2) * x2: the remainder with the sign of x1, as C's ``fmod``; 0 for integers by 0.

    >>> fmod(Tensor([-7, 7]), 3).tolist()
    [-1, 1]
    """
    a, b = _real_pair("fmod", x1, x2)
    if a.dtype.is_float:  # exact: of positive numbers both remainders are the same
        return copysign(remainder(abs(a), abs(b)), a)
    below = remainder(a, b)
    other_side = logical_and(not_equal(below, 0), not_equal(less(a, 0), less(below, 0)))
    return where(other_side, subtract(below, b), below)


def divmod(x1: TensorLike, x2: TensorLike) -> tuple[Tensor, Tensor]:
    """``(x1 // x2, x1 % x2)``.

    >>> [x.tolist() for x in divmod(Tensor([7, -7]), 2)]
    [[3, -4], [1, 1]]
    """
    return floor_divide(x1, x2), remainder(x1, x2)


def modf(x: TensorLike) -> tuple[Tensor, Tensor]:
    """Fraction and integral part of x, both with the sign of x.

    >>> [x.tolist() for x in modf(Tensor([-1.5, 2.25]))]
    [[-0.5, 0.25], [-1.0, 2.0]]
    """
    x = _real("modf", x)
    whole = trunc(x)
    return copysign(where(isinf(x), 0, subtract(x, whole)), x), whole


def frac(x: TensorLike) -> Tensor:
    """x - trunc(x), the part behind the point with the sign of x."""
    return modf(x)[0]


def _divisor(function: str, x1: TensorLike, x2: TensorLike) -> Tensor:
    a, b = _pair(function, x1, x2)
    if not a.dtype.is_integer:
        raise DTypeError(f"{function}: takes integers, got {a.dtype}")
    return host_call(function, (a, b), a.dtype, a.shape)


def gcd(x1: TensorLike, x2: TensorLike) -> Tensor:
    """The greatest common divisor of |x1| and |x2|, elementwise, of integers; gcd(0, 0) is 0.

    >>> gcd(Tensor([12, -8]), 20).tolist()
    [4, 4]
    """
    return _divisor("gcd", x1, x2)


def lcm(x1: TensorLike, x2: TensorLike) -> Tensor:
    """The least common multiple of |x1| and |x2|, elementwise, of integers; 0 when one is 0.

    >>> lcm(Tensor([4, 6]), 10).tolist()
    [20, 30]
    """
    return _divisor("lcm", x1, x2)


# ---- exponents and mantissas ---------------------------------------------------------------------------------------

_LAYOUT = {32: (dt.int32, 23, 127), 64: (dt.int64, 52, 1023)}  # bits -> integer type, mantissa bits, bias


def _power_of_two(exponent: Tensor, like: Tensor) -> Tensor:
    """2 to an integer power that is a normal number of the type of ``like``, exactly."""
    bits, mantissa, bias = _LAYOUT[like.dtype.bits]
    return apply("bitcast", multiply(add(cast(exponent, bits), bias), 1 << mantissa), dtype=like.dtype)


def frexp(x: TensorLike) -> tuple[Tensor, Tensor]:
    """Mantissa in [0.5, 1) with the sign of x, and exponent (int32), so that x = mantissa * 2**exponent.

    0, infinities and NaN are their own mantissa, with exponent 0.

    >>> [x.tolist() for x in frexp(Tensor([8.0, -0.75]))]
    [[0.5, -0.75], [4, 0]]
    """
    given = _real("frexp", x)
    x = cast(given, dt.float32) if given.dtype.bits == 16 else given
    bits, mantissa, bias = _LAYOUT[x.dtype.bits]
    lift = mantissa + 2  # denormals become normal
    tiny = less(abs(x), finfo(x.dtype).smallest_normal)
    normal = where(tiny, multiply(x, 2.0**lift), x)
    field = bitwise_and(
        bitwise_right_shift(apply("bitcast", normal.detach(), dtype=bits), mantissa), 2 * bias + 1
    )
    plain = logical_and(isfinite(x), not_equal(x, 0))
    shift = where(plain, subtract(field, bias - 1), 0)
    exponent = where(logical_and(plain, tiny), subtract(shift, lift), shift)
    half = floor_divide(shift, 2)  # 2**1024 is no number, so the power is taken in two factors
    down = multiply(
        multiply(normal, _power_of_two(negative(half), x)), _power_of_two(subtract(half, shift), x)
    )
    return cast(where(plain, down, x), given.dtype), cast(exponent, dt.int32)


def ldexp(x1: TensorLike, x2: TensorLike) -> Tensor:
    """x1 * 2**x2 for integer x2, rounded once.

    >>> ldexp(Tensor([0.5, 3.0]), Tensor([4, -1])).tolist()
    [8.0, 1.5]
    """
    given, power = float_tensor(x1, "ldexp", "x1"), as_tensor(x2, "ldexp", "x2")
    if not power.dtype.is_integer or given.dtype.is_complex:
        raise DTypeError(f"ldexp: `x1` is real and `x2` holds integers, got {given.dtype} and {power.dtype}")
    x = cast(given, dt.float32) if given.dtype.bits == 16 else given
    _, mantissa, bias = _LAYOUT[x.dtype.bits]
    power = clip(cast(power, dt.int64), -4 * bias, 4 * bias)  # beyond it everything overflows or vanishes
    parts, exponent = frexp(x)
    total = add(cast(exponent, dt.int64), power)
    total = clip(total, -bias - mantissa - 4, bias + 4)  # below it is zero, above it infinity
    near = clip(total, 4 - bias, bias - 4)
    parts = multiply(parts, _power_of_two(near, x))  # exact, so that only the next rounds
    return cast(multiply(parts, _power_of_two(subtract(total, near), x)), given.dtype)


def spacing(x: TensorLike) -> Tensor:
    """Distance from x to the next number away from zero, with the sign of x; NaN for infinities. It has no derivative."""
    x = _real("spacing", x).detach()
    distance = subtract(nextafter(abs(x), math.inf), abs(x))
    return where(less(x, 0), negative(distance), distance)


def float_power(x1: TensorLike, x2: TensorLike) -> Tensor:
    """x1 to the power x2 in float64 (complex128 for complex operands), also of integers."""
    a, b = _pair("float_power", x1, x2)
    kind = dt.complex128 if a.dtype.is_complex else dt.float64
    return pow(cast(a, kind), cast(b, kind))


def cbrt(x: TensorLike) -> Tensor:
    """The real cube root, elementwise, of negative numbers too.

    >>> cbrt(Tensor([-8.0, 27.0])).tolist()
    [-2.0, 3.0]
    """
    x = _real("cbrt", x)
    wide = cast(x, dt.float32) if x.dtype.bits == 16 else x
    usual = logical_and(isfinite(wide), not_equal(wide, 0))
    size = where(usual, abs(wide), 1)
    root = pow(size, 1 / 3)  # close; one step of Newton's method makes the last bits right
    root = subtract(root, divide(subtract(root, divide(size, multiply(root, root))), 3))
    zero = equal(wide, 0)
    steep = sqrt(where(zero, wide, 1))  # 0 for 0, with an infinite slope as the cube root has
    rest = where(zero, steep, wide.detach())
    return cast(where(usual, copysign(root, wide), rest), x.dtype)


def bitwise_count(x: TensorLike) -> Tensor:
    """How many bits of |x| are 1, as uint8; of integers.

    Adjacent sums of 1, 2, 4, then all bytes at once (Knuth, The Art of Computer Programming, 7.1.3).

    >>> bitwise_count(Tensor([0, 7, -8])).tolist()
    [0, 3, 1]
    """
    x = as_tensor(x, "bitwise_count")
    if not x.dtype.is_integer:
        raise DTypeError(f"bitwise_count: takes integers, got {x.dtype}")
    size = abs(cast(x, dt.int64)) if x.dtype.kind == "i" else x
    bits = cast(apply("bitcast", size, dtype=dt.uint64) if size.dtype is dt.int64 else size, dt.uint64)
    bits = subtract(bits, bitwise_and(bitwise_right_shift(bits, 1), 0x5555555555555555))
    bits = add(
        bitwise_and(bits, 0x3333333333333333), bitwise_and(bitwise_right_shift(bits, 2), 0x3333333333333333)
    )
    bits = bitwise_and(add(bits, bitwise_right_shift(bits, 4)), 0x0F0F0F0F0F0F0F0F)
    return cast(bitwise_right_shift(multiply(bits, 0x0101010101010101), 56), dt.uint8)


# ---- extremes and mixtures -----------------------------------------------------------------------------------------


def _without_nan(function: str, x1: TensorLike, x2: TensorLike, better: Any) -> Tensor:
    a, b = _real_pair(function, x1, x2)
    return where(bitwise_or(better(b, a), isnan(a)), b, a)


def fmax(x1: TensorLike, x2: TensorLike) -> Tensor:
    """The larger of x1 and x2, elementwise; where one is NaN, the other.

    >>> fmax(Tensor([1.0, float("nan")]), Tensor([0.0, 2.0])).tolist()
    [1.0, 2.0]
    """
    return _without_nan("fmax", x1, x2, greater)


def fmin(x1: TensorLike, x2: TensorLike) -> Tensor:
    """The smaller of x1 and x2, elementwise; where one is NaN, the other."""
    return _without_nan("fmin", x1, x2, less)


def lerp(input: TensorLike, end: TensorLike, weight: TensorLike) -> Tensor:
    """input + weight * (end - input), elementwise.

    >>> lerp(Tensor([0.0, 10.0]), Tensor([4.0, 20.0]), 0.5).tolist()
    [2.0, 15.0]
    """
    start = float_tensor(input, "lerp", "input")
    return add(start, multiply(weight, subtract(end, start)))


def addcmul(input: TensorLike, tensor1: TensorLike, tensor2: TensorLike, value: float = 1) -> Tensor:
    """input + value * tensor1 * tensor2, elementwise."""
    product = multiply(tensor1, tensor2)
    return add(input, product if value == 1 else multiply(value, product))


def addcdiv(input: TensorLike, tensor1: TensorLike, tensor2: TensorLike, value: float = 1) -> Tensor:
    """input + value * tensor1 / tensor2, elementwise."""
    quotient = divide(tensor1, tensor2)
    return add(input, quotient if value == 1 else multiply(value, quotient))


def heaviside(x1: TensorLike, x2: TensorLike) -> Tensor:
    """0 where x1 < 0, x2 where x1 = 0, 1 where x1 > 0; NaN where x1 is NaN.

    >>> heaviside(Tensor([-1.0, 0.0, 3.0]), 0.5).tolist()
    [0.0, 0.5, 1.0]
    """
    a, b = _real_pair("heaviside", x1, x2)
    kind = inexact(a.dtype)
    a, b = cast(a, kind), cast(b, kind)
    step = where(less(a, 0), 0, where(equal(a, 0), b, 1))
    return where(isnan(a), a.detach(), step)


def logaddexp2(x1: TensorLike, x2: TensorLike) -> Tensor:
    """log2(2**x1 + 2**x2) without overflow.

    >>> logaddexp2(Tensor([1.0]), 1.0).tolist()
    [2.0]
    """
    a, b = _real_pair("logaddexp2", x1, x2)
    kind = inexact(a.dtype)
    a, b = cast(a, kind), cast(b, kind)
    same = logical_and(isinf(a), equal(a, b))  # equal infinities are at distance 0
    distance = subtract(where(same, 0, a), where(same, 0, b))
    low = less_equal(a, b)
    rest = log1p(exp2(where(low, distance, negative(distance))))
    return add(where(low, b, a), multiply(rest, 1 / math.log(2)))


# ---- angles --------------------------------------------------------------------------------------------------------


def deg2rad(x: TensorLike) -> Tensor:
    """Degrees to radians."""
    return multiply(_real("deg2rad", x), math.pi / 180)


def rad2deg(x: TensorLike) -> Tensor:
    """Radians to degrees."""
    return multiply(_real("rad2deg", x), 180 / math.pi)


def angle(z: TensorLike, deg: bool = False) -> Tensor:
    """The angle of a complex number in radians (degrees when ``deg``), in (-pi, pi]; 0 or pi for real numbers.

    >>> angle(Tensor([1j, -2.0]), deg=True).tolist()
    [90.0, 180.0]
    """
    z = float_tensor(z, "angle")
    if z.dtype.is_complex:
        found = atan2(imag(z), real(z))
    else:
        found = where(isnan(z), z, where(signbit(z), Tensor(math.pi, z.dtype), 0)).detach()
    return rad2deg(found) if deg else found


def sinc(x: TensorLike) -> Tensor:
    """sin(pi x) / (pi x), and 1 at 0. Near 0 its power series, so that derivatives of any order are right there.

    >>> sinc(Tensor([0.0, 0.5])).tolist()
    [1.0, 0.6366197466850281]
    """
    z = multiply(float_tensor(x, "sinc"), math.pi)
    near = less(abs(z), 0.5)
    squared = multiply(where(near, z, 0), where(near, z, 0))
    series = Tensor(1.0, z.dtype)
    for k in range(8, 0, -1):  # 1 - z^2/(2*3) (1 - z^2/(4*5) (...))
        series = subtract(1, multiply(multiply(squared, 1 / (2 * k * (2 * k + 1))), series))
    away = where(near, 1, z)
    return where(near, series, divide(sin(away), away))


# ---- what an element is --------------------------------------------------------------------------------------------


def isposinf(x: TensorLike) -> Tensor:
    """Whether each element is positive infinity."""
    x = _real("isposinf", x)
    return equal(x, math.inf)


def isneginf(x: TensorLike) -> Tensor:
    """Whether each element is negative infinity."""
    x = _real("isneginf", x)
    return equal(x, -math.inf)


def iscomplex(x: TensorLike) -> Tensor:
    """Whether the imaginary part of each element is not 0."""
    x = as_tensor(x, "iscomplex")
    return not_equal(imag(x), 0) if x.dtype.is_complex else Tensor(np.zeros(x.shape, np.bool_))


def isreal(x: TensorLike) -> Tensor:
    """Whether the imaginary part of each element is 0."""
    return ~iscomplex(x)


def real_if_close(x: TensorLike, tol: float = 100) -> Tensor:
    """The real part of x if every imaginary part is below ``tol`` steps of the type at 1, else x. Reads x when complex."""
    z = as_tensor(x, "real_if_close")
    if not z.dtype.is_complex:
        return z
    limit = tol * finfo(z.dtype).eps if tol > 1 else tol
    return real(z) if bool(all_of(less(abs(imag(z)), limit))) else z


def fabs(x: TensorLike) -> Tensor:
    """|x| as a floating number; real x only."""
    return abs(_real("fabs", x))


def nan_to_num(
    x: TensorLike, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None
) -> Tensor:
    """x with NaN replaced by ``nan`` and infinities by the numbers given (the type's largest and smallest by default).

    >>> nan_to_num(Tensor([float("nan"), 1.0]), nan=-1.0).tolist()
    [-1.0, 1.0]
    """
    out = as_tensor(x, "nan_to_num")
    if out.dtype.is_complex:
        parts = (nan_to_num(part, nan, posinf, neginf) for part in (real(out), imag(out)))
        return apply("complex", *parts)
    if not out.dtype.is_float:
        return out.clone()
    limits = finfo(out.dtype)
    out = where(equal(out, math.inf), limits.max if posinf is None else posinf, out)
    out = where(equal(out, -math.inf), limits.min if neginf is None else neginf, out)
    return where(isnan(out), nan, out)


def isclose(
    a: TensorLike, b: TensorLike, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Tensor:
    """Whether |a - b| <= atol + rtol * |b|, elementwise; equal infinities are close, NaN are when ``equal_nan``."""
    x, y = _pair("isclose", a, b)
    if not x.dtype.is_inexact:
        x, y = cast(x, dt.float64), cast(y, dt.float64)
    elif x.dtype.bits == 16:
        x, y = cast(x, dt.float32), cast(y, dt.float32)
    near = less_equal(abs(subtract(x, y)), add(multiply(abs(y), rtol), atol))
    near = bitwise_or(bitwise_and(near, isfinite(y)), equal(x, y))
    return bitwise_or(near, bitwise_and(isnan(x), isnan(y))) if equal_nan else near


def allclose(
    a: TensorLike, b: TensorLike, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Tensor:
    """Whether all elements of two tensors are close (``isclose``), as one bool."""
    return all_of(isclose(a, b, rtol, atol, equal_nan))


def array_equal(a1: TensorLike, a2: TensorLike, equal_nan: bool = False) -> Tensor:
    """Whether two tensors have one shape and equal elements, as one bool."""
    a, b = as_tensor(a1, "array_equal", "a1"), as_tensor(a2, "array_equal", "a2")
    if a.shape != b.shape:
        return Tensor(False)
    same = equal(a, b)
    return all_of(bitwise_or(same, bitwise_and(isnan(a), isnan(b))) if equal_nan else same)


def array_equiv(a1: TensorLike, a2: TensorLike) -> Tensor:
    """Whether two tensors broadcast to one shape and are equal there, as one bool."""
    a, b = as_tensor(a1, "array_equiv", "a1"), as_tensor(a2, "array_equiv", "a2")
    try:
        np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        return Tensor(False)
    return all_of(equal(a, b))
