"""Elementwise functions of the array API standard: arithmetic, comparison, logic, bits, rounding, exponentials.

Operands broadcast and promote; Python numbers take the type of the tensor beside them. Each function is one operation of
the scalar vocabulary or a short expression of several.
"""

from __future__ import annotations

import builtins
import math
import operator
from collections.abc import Callable

import numpy as np

from tilewright.core.dtype import DType, bool_
from tilewright.functions.arguments import (
    TensorLike,
    as_tensor,
    cast,
    common_type,
    float_tensor,
    from_constant,
    inexact,
    is_scalar,
    operands_of,
    pointwise,
    together,
    whole,
)
from tilewright.functions.types import finfo
from tilewright.tensor import ArgumentError, DTypeError, Tensor, apply
from tilewright.tensor.composite import composite

__all__ = [
    "abs",
    "acos",
    "acosh",
    "add",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "bitwise_and",
    "bitwise_invert",
    "bitwise_left_shift",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "ceil",
    "clip",
    "conj",
    "copysign",
    "cos",
    "cosh",
    "divide",
    "equal",
    "erf",
    "exp",
    "exp2",
    "expm1",
    "floor",
    "floor_divide",
    "greater",
    "greater_equal",
    "hypot",
    "imag",
    "isfinite",
    "isinf",
    "isnan",
    "less",
    "less_equal",
    "log",
    "log1p",
    "log2",
    "log10",
    "logaddexp",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "not_equal",
    "positive",
    "pow",
    "real",
    "reciprocal",
    "remainder",
    "round",
    "rsqrt",
    "sigmoid",
    "sign",
    "signbit",
    "sin",
    "sinh",
    "sqrt",
    "square",
    "subtract",
    "tan",
    "tanh",
    "trunc",
    "where",
]  # fmt: skip


def _typed(function: str, op: str, tensors: list[Tensor]) -> Tensor:
    try:
        return apply(op, *tensors)
    except TypeError as error:
        raise DTypeError(f"{function}: {error}") from None


def _unary(function: str, op: str, doc: str) -> Callable[[TensorLike], Tensor]:
    def apply_to(x: TensorLike) -> Tensor:
        return _typed(function, op, [as_tensor(x, function)])

    return _named(apply_to, function, doc)


def _floating(function: str, op: str, doc: str) -> Callable[[TensorLike], Tensor]:
    """A function whose result is floating: integers and bool are converted to float32 first."""

    def apply_to(x: TensorLike) -> Tensor:
        return _typed(function, op, [float_tensor(x, function)])

    return _named(apply_to, function, doc)


def _binary(
    function: str, op: str, doc: str, of_bool: str | None = None
) -> Callable[[TensorLike, TensorLike], Tensor]:
    """``of_bool``: the operation that stands for it between bools (a sum of bools is their `or`)."""

    def apply_to(x1: TensorLike, x2: TensorLike) -> Tensor:
        if (
            isinstance(x1, Tensor)
            and isinstance(x2, Tensor)
            and x1._value.type == x2._value.type
            and not x1.dtype.is_bool
        ):
            return _typed(function, op, [x1, x2])
        items = operands_of(function, (x1, x2))
        dtype = common_type(function, items)
        return pointwise(function, of_bool if of_bool and dtype.is_bool else op, items, dtype)

    return _named(apply_to, function, doc)


def _named(function: Callable[..., Tensor], name: str, doc: str) -> Callable[..., Tensor]:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return composite(function)


negative = _unary("negative", "neg", "-x, elementwise.")
abs = _unary("abs", "abs", "|x|, elementwise; real for complex x.")
_sign_of = _unary("sign", "sign", "-1, 0 or 1, elementwise; NaN stays NaN.")
bitwise_invert = _unary("bitwise_invert", "invert", "~x, elementwise, of integers or bool.")

exp = _floating("exp", "exp", "e to the power x, elementwise.")
exp2 = _floating("exp2", "exp2", "2 to the power x, elementwise.")
expm1 = _floating("expm1", "expm1", "exp(x) - 1 without loss of precision near 0.")
log = _floating("log", "log", "Natural logarithm, elementwise.")
_log2 = _floating("log2", "log2", "Logarithm to base 2, elementwise.")
_log10 = _floating("log10", "log10", "Logarithm to base 10, elementwise.")
log1p = _floating("log1p", "log1p", "log(1 + x) without loss of precision near 0.")
sqrt = _floating("sqrt", "sqrt", "Square root, elementwise; NaN for negative x.")
rsqrt = _floating("rsqrt", "rsqrt", "1 / sqrt(x), elementwise.")
sin = _floating("sin", "sin", "Sine, elementwise; x in radians.")
cos = _floating("cos", "cos", "Cosine, elementwise; x in radians.")
tan = _floating("tan", "tan", "Tangent, elementwise; x in radians.")
asin = _floating("asin", "asin", "Inverse sine in radians, elementwise.")
acos = _floating("acos", "acos", "Inverse cosine in radians, elementwise.")
atan = _floating("atan", "atan", "Inverse tangent in radians, elementwise.")
sinh = _floating("sinh", "sinh", "Hyperbolic sine, elementwise.")
cosh = _floating("cosh", "cosh", "Hyperbolic cosine, elementwise.")
tanh = _floating("tanh", "tanh", "Hyperbolic tangent, elementwise.")
asinh = _floating("asinh", "asinh", "Inverse hyperbolic sine, elementwise.")
acosh = _floating("acosh", "acosh", "Inverse hyperbolic cosine, elementwise.")
atanh = _floating("atanh", "atanh", "Inverse hyperbolic tangent, elementwise.")
erf = _floating("erf", "erf", "Error function, elementwise.")
sigmoid = _floating("sigmoid", "sigmoid", "1 / (1 + exp(-x)), elementwise, without overflow.")

add = _binary("add", "add", "x1 + x2, elementwise; `or` for bools.", "bitor")
subtract = _binary("subtract", "sub", "x1 - x2, elementwise.")
multiply = _binary("multiply", "mul", "x1 * x2, elementwise; `and` for bools.", "bitand")
_floor_quotient = _binary("floor_divide", "floordiv", "")
remainder = _binary(
    "remainder", "mod", "x1 - floor(x1 / x2) * x2: the remainder with the sign of x2; 0 for integers by 0."
)
maximum = _binary("maximum", "maximum", "The larger of x1 and x2, elementwise; NaN if either is.")
minimum = _binary("minimum", "minimum", "The smaller of x1 and x2, elementwise; NaN if either is.")
bitwise_and = _binary("bitwise_and", "bitand", "x1 & x2, elementwise, of integers or bools.")
bitwise_or = _binary("bitwise_or", "bitor", "x1 | x2, elementwise, of integers or bools.")
bitwise_xor = _binary("bitwise_xor", "bitxor", "x1 ^ x2, elementwise, of integers or bools.")
bitwise_left_shift = _binary(
    "bitwise_left_shift", "shl", "x1 << x2, elementwise; 0 when x2 is the width or more."
)
bitwise_right_shift = _binary(
    "bitwise_right_shift", "shr", "x1 >> x2, elementwise; the sign is repeated for signed types."
)


def _comparison(
    function: str, op: str, of_numbers: Callable[[int, int], bool], doc: str
) -> Callable[[TensorLike, TensorLike], Tensor]:
    """A Python integer outside the range of an integer tensor's type is beyond all of its elements, as in NumPy."""
    within = _binary(function, op, doc)

    def apply_to(x1: TensorLike, x2: TensorLike) -> Tensor:
        if isinstance(x1, np.ndarray):
            x1 = as_tensor(x1, function, "x1")
        if isinstance(x2, np.ndarray):
            x2 = as_tensor(x2, function, "x2")
        if isinstance(x1, Tensor) and _beyond(x2, x1.dtype):
            return from_constant(of_numbers(0, x2), bool_, x1.shape, function)
        if isinstance(x2, Tensor) and _beyond(x1, x2.dtype):
            return from_constant(of_numbers(x1, 0), bool_, x2.shape, function)
        return within(x1, x2)

    return _named(apply_to, function, doc)


def _beyond(number: TensorLike, dtype: DType) -> bool:
    """Whether it is a Python integer that an integer type cannot hold."""
    if type(number) is not int or not dtype.is_integer:
        return False
    info = np.iinfo(dtype.name)
    return not info.min <= number <= info.max


equal = _comparison("equal", "eq", operator.eq, "x1 == x2, elementwise, as bool.")
not_equal = _comparison("not_equal", "ne", operator.ne, "x1 != x2, elementwise, as bool.")
less = _comparison("less", "lt", operator.lt, "x1 < x2, elementwise, as bool.")
less_equal = _comparison("less_equal", "le", operator.le, "x1 <= x2, elementwise, as bool.")
greater = _comparison("greater", "gt", operator.gt, "x1 > x2, elementwise, as bool.")
greater_equal = _comparison("greater_equal", "ge", operator.ge, "x1 >= x2, elementwise, as bool.")


def _float_binary(function: str, op: str, doc: str) -> Callable[[TensorLike, TensorLike], Tensor]:
    def apply_to(x1: TensorLike, x2: TensorLike) -> Tensor:
        items = operands_of(function, (x1, x2))
        return pointwise(function, op, items, inexact(common_type(function, items)))

    return _named(apply_to, function, doc)


divide = _float_binary("divide", "div", "x1 / x2, elementwise; integers are converted to float32.")
atan2 = _float_binary("atan2", "atan2", "Angle of the point (x2, x1) in radians, in (-pi, pi].")
copysign = _float_binary("copysign", "copysign", "x1 with the sign of x2, elementwise.")


@composite
def sign(x: TensorLike) -> Tensor:
    """-1, 0 or 1, elementwise; NaN stays NaN. For complex x, x / |x|, and 0 for 0."""
    x = as_tensor(x, "sign")
    if not x.dtype.is_complex:
        return _sign_of(x)
    size = abs(x)
    zero = equal(size, 0)
    return where(zero, 0, divide(x, where(zero, 1, size)))


@composite
def log2(x: TensorLike) -> Tensor:
    """Logarithm to base 2, elementwise."""
    x = as_tensor(x, "log2")
    return _over(log(x), math.log(2)) if x.dtype.is_complex else _log2(x)


@composite
def log10(x: TensorLike) -> Tensor:
    """Logarithm to base 10, elementwise."""
    x = as_tensor(x, "log10")
    return _over(log(x), math.log(10)) if x.dtype.is_complex else _log10(x)


def _over(x: Tensor, number: float) -> Tensor:
    """Both parts of a complex x divided by a real number: complex division would make NaN of some infinities."""
    return apply("complex", divide(real(x), number), divide(imag(x), number))


@composite
def floor_divide(x1: TensorLike, x2: TensorLike) -> Tensor:
    """x1 / x2 rounded towards minus infinity; 0 for integers divided by 0.

    An infinite operand gives the rounded quotient: inf // 2 is inf, and 1 // -inf is -0, as the array API standard says.

    >>> floor_divide(Tensor([7, -7]), 2).tolist()
    [3, -4]
    """
    out = _floor_quotient(x1, x2)
    if not out.dtype.is_float:
        return out
    a, b = (x if is_scalar(x) else as_tensor(x, "floor_divide") for x in (x1, x2))
    infinite = bitwise_or(isinf(a), isinf(b))  # a number is a constant here, and folds away
    return where(infinite, floor(divide(a, b)), out)


def positive(x: TensorLike) -> Tensor:
    """The elements of x."""
    return as_tensor(x, "positive").clone()


@composite
def square(x: TensorLike) -> Tensor:
    """x * x, elementwise."""
    x = as_tensor(x, "square")
    return multiply(x, x)


@composite
def reciprocal(x: TensorLike) -> Tensor:
    """1 / x, elementwise."""
    return divide(1, float_tensor(x, "reciprocal"))


def _power(x: Tensor, n: int) -> Tensor:
    """x to a small positive power by repeated squaring."""
    result: Tensor | None = None
    while n:
        if n & 1:
            result = x if result is None else multiply(result, x)
        n >>= 1
        if n:
            x = multiply(x, x)
    assert result is not None
    return result


@composite
def pow(x1: TensorLike, x2: TensorLike) -> Tensor:
    """x1 to the power x2, elementwise. Small integer powers are multiplications, 0.5 is a square root.

    >>> pow(Tensor([1.0, 2.0, 3.0]), 2).tolist()
    [1.0, 4.0, 9.0]

    Raises ``ArgumentError`` for integers to a negative number; negative elements of an integer x2 give 0 where |x1| > 1.
    """
    if (
        isinstance(x1, Tensor)
        and is_scalar(x2)
        and not isinstance(x2, (bool, complex))
        and not x1.dtype.is_bool
    ):
        if x1.dtype.is_integer and isinstance(x2, int) and x2 < 0:
            raise ArgumentError(
                f"pow: integers to the power {x2} are no integers; make the base floating, for example"
                f" `x.astype('float32') ** {x2}`"
            )
        if x1.dtype.is_inexact or isinstance(x2, int):
            if 1 <= x2 <= 8 and x2 == int(x2):
                return _power(x1, int(x2))
            if x1.dtype.is_float and x2 in (-1, -2, -3):
                return divide(1, _power(x1, -int(x2)))
        if x1.dtype.is_float and x2 in (0.5, -0.5):
            return sqrt(x1) if x2 > 0 else rsqrt(x1)
    return _power_of(x1, x2)


_power_of = _binary("pow", "pow", "x1 ** x2, elementwise.")


@composite
def hypot(x1: TensorLike, x2: TensorLike) -> Tensor:
    """sqrt(x1^2 + x2^2) without overflow in between."""
    a, b = together("hypot", float_tensor(x1, "hypot", "x1"), float_tensor(x2, "hypot", "x2"))
    a, b = abs(a), abs(b)
    high, low = maximum(a, b), minimum(a, b)
    ratio = where(equal(high, 0), 0, divide(low, where(equal(high, 0), 1, high)))
    infinite = bitwise_or(isinf(a), isinf(b))  # whatever the other is, NaN too
    return where(infinite, math.inf, multiply(high, sqrt(add(1, multiply(ratio, ratio)))))


@composite
def logaddexp(x1: TensorLike, x2: TensorLike) -> Tensor:
    """log(exp(x1) + exp(x2)) without overflow."""
    a, b = together("logaddexp", float_tensor(x1, "logaddexp", "x1"), float_tensor(x2, "logaddexp", "x2"))
    same = logical_and(isinf(a), equal(a, b))  # equal infinities are at distance 0
    distance = subtract(where(same, 0, a), where(same, 0, b))
    # Selections, not maximum and abs: where both are equal, their derivatives are of one side, as a smooth function needs.
    low = less_equal(a, b)
    return add(where(low, b, a), log1p(exp(where(low, distance, negative(distance)))))


@composite
def where(condition: TensorLike, x1: TensorLike = None, x2: TensorLike = None) -> Tensor:
    """x1 where ``condition`` is true, else x2. All three broadcast.

    >>> x = Tensor([-1.0, 2.0])
    >>> where(x > 0, x, 0).tolist()
    [0.0, 2.0]
    """
    if x1 is None or x2 is None:
        raise DTypeError(
            "where: takes a condition and two choices; `tw.nonzero(condition)` gives the indices of what is true"
        )
    condition = as_tensor(condition, "where", "condition")
    if not condition.dtype.is_bool:
        raise DTypeError(
            f"where: `condition` is a bool tensor, got {condition.dtype}; compare it, e.g. `condition != 0`"
        )
    items = operands_of("where", (x1, x2))
    return pointwise("where", "where", items, common_type("where", items), condition)


@composite
def clip(x: TensorLike, min: TensorLike | None = None, max: TensorLike | None = None) -> Tensor:
    """x limited to [min, max]; None leaves a side open. The type of x stays.

    The slope is 1 within and on the bounds, and 0 outside, where it goes to the bound. Where min > max the result is max.

    >>> clip(Tensor([-2.0, 0.5, 7.0]), 0, 1).tolist()
    [0.0, 0.5, 1.0]
    """
    out = as_tensor(x, "clip")
    for bound, name, beyond, extremum in ((min, "min", less, maximum), (max, "max", greater, minimum)):
        if bound is None:
            continue
        limit = bound if is_scalar(bound) else cast(as_tensor(bound, "clip", name), out.dtype)
        if not out.dtype.is_inexact:
            out = extremum(out, limit)
            continue
        outside = beyond(
            out, limit
        )  # of an extremum, x and the bound would share the slope where they are equal
        if isinstance(limit, Tensor) or limit != limit:
            outside = logical_or(outside, not_equal(limit, limit))  # NaN is passed on
        out = where(outside, limit, out)
    return out


def _rounding(function: str, op: str, doc: str) -> Callable[[TensorLike], Tensor]:
    def apply_to(x: TensorLike) -> Tensor:
        x = as_tensor(x, function)
        return x if x.dtype.is_integer else _typed(function, op, [x])  # integers are round already

    return _named(apply_to, function, doc)


floor = _rounding("floor", "floor", "The largest integer not above x, in the type of x.")
ceil = _rounding("ceil", "ceil", "The smallest integer not below x, in the type of x.")
trunc = _rounding("trunc", "trunc", "x without its fraction, in the type of x.")
_rint = _rounding("round", "round", "x rounded to the nearest integer, ties to even.")


@composite
def round(x: TensorLike, decimals: int = 0) -> Tensor:
    """x rounded to ``decimals`` places, ties to even, in the type of x; complex numbers by their parts."""
    x = as_tensor(x, "round")
    if x.dtype.is_complex:
        return apply("complex", round(real(x), decimals), round(imag(x), decimals))
    decimals = whole(decimals, "round", "decimals")
    if decimals == 0 or (x.dtype.is_integer and decimals > 0):
        return _rint(x)
    if x.dtype.is_integer:
        return _rounded_integer(x, 10**-decimals)
    if x.dtype.is_bool:
        return _rint(x)  # says that there is none
    scale = 10.0 ** builtins.min(builtins.abs(decimals), 308)
    if decimals < 0:
        if scale > 2 * finfo(x.dtype).max:  # nothing reaches half of one
            return where(isfinite(x), copysign(0.0, x), x)
        return multiply(_rint(divide(x, scale)), scale)
    larger = multiply(x, scale)
    return where(isfinite(larger), divide(_rint(larger), scale), x)  # so large a number has no such decimals


def _rounded_integer(x: Tensor, unit: int) -> Tensor:
    """Integers rounded to multiples of ``unit``, a power of 10, ties to even multiples."""
    if unit > np.iinfo(x.dtype.name).max:
        return multiply(x, 0)
    count = floor_divide(x, unit)
    rest = subtract(x, multiply(count, unit))
    missing = subtract(unit, rest)
    up = bitwise_or(greater(rest, missing), bitwise_and(equal(rest, missing), equal(remainder(count, 2), 1)))
    return multiply(add(count, cast(up, x.dtype)), unit)


@composite
def isnan(x: TensorLike) -> Tensor:
    """Whether each element is NaN."""
    x = as_tensor(x, "isnan")
    return not_equal(x, x)


@composite
def isinf(x: TensorLike) -> Tensor:
    """Whether each element is infinite."""
    x = as_tensor(x, "isinf")
    if not x.dtype.is_inexact:
        return not_equal(x, x)
    if x.dtype.is_complex:
        return bitwise_or(isinf(real(x)), isinf(imag(x)))
    return equal(abs(x), math.inf)


@composite
def isfinite(x: TensorLike) -> Tensor:
    """Whether each element is neither infinite nor NaN."""
    x = as_tensor(x, "isfinite")
    if not x.dtype.is_inexact:
        return equal(x, x)
    if x.dtype.is_complex:
        return bitwise_and(isfinite(real(x)), isfinite(imag(x)))
    return less(abs(x), math.inf)


@composite
def signbit(x: TensorLike) -> Tensor:
    """Whether each element's sign bit is set, also for -0.0."""
    x = float_tensor(x, "signbit")
    return less(copysign(1, x), 0)


def _as_bool(x: TensorLike, function: str, name: str) -> Tensor:
    x = as_tensor(x, function, name)
    return x if x.dtype.is_bool else not_equal(x, 0)


@composite
def logical_and(x1: TensorLike, x2: TensorLike) -> Tensor:
    """x1 and x2, elementwise; numbers count as true when they are not 0."""
    return bitwise_and(_as_bool(x1, "logical_and", "x1"), _as_bool(x2, "logical_and", "x2"))


@composite
def logical_or(x1: TensorLike, x2: TensorLike) -> Tensor:
    """x1 or x2, elementwise."""
    return bitwise_or(_as_bool(x1, "logical_or", "x1"), _as_bool(x2, "logical_or", "x2"))


@composite
def logical_xor(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Exactly one of x1 and x2, elementwise."""
    return bitwise_xor(_as_bool(x1, "logical_xor", "x1"), _as_bool(x2, "logical_xor", "x2"))


@composite
def logical_not(x: TensorLike) -> Tensor:
    """not x, elementwise."""
    return bitwise_invert(_as_bool(x, "logical_not", "x"))


@composite
def real(x: TensorLike) -> Tensor:
    """Real part; x itself when it is real."""
    x = as_tensor(x, "real")
    return apply("real", x) if x.dtype.is_complex else x


@composite
def imag(x: TensorLike) -> Tensor:
    """Imaginary part; zeros of its type for a real tensor."""
    x = as_tensor(x, "imag")
    return apply("imag", x) if x.dtype.is_complex else from_constant(0, x.dtype, x.shape, "imag")


@composite
def conj(x: TensorLike) -> Tensor:
    """Complex conjugate; x itself when it is real."""
    x = as_tensor(x, "conj")
    return apply("conj", x) if x.dtype.is_complex else x
