"""Numbers made of random bits, and what all distributions share: their arguments.

Computation is in float32 for the half types and float32, and in float64 for float64; results are rounded once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.functions.arguments import (
    as_tensor,
    broadcast_to_shape,
    cast,
    check_device,
    common_shape,
    dtype_of,
    is_scalar,
    shape_of,
)
from tilewright.functions.elementwise import add, bitwise_right_shift, less, minimum, multiply, where
from tilewright.functions.types import bitcast
from tilewright.random.keys import Generator, key_of, words
from tilewright.tensor import ArgumentError, DTypeError, ShapeError, Tensor

__all__ = ["Draw", "open_unit", "rand", "uniform", "unit"]

Parameter = Any  # a number, an array or a tensor

_PRECISION = {
    dt.bfloat16: 8,
    dt.float16: 11,
    dt.float32: 24,
}  # bits of a fraction that are never rounded up to 1


def unit(key: Tensor, shape: tuple[int, ...], kind: DType, word: int = 0) -> Tensor:
    """Uniform in [0, 1): multiples of 2^-24 in float32 (2^-11, 2^-8 where ``kind`` is narrower), of 2^-53 in float64.

    float64 uses both words, the others ``word``.
    """
    if kind is dt.float64:  # two parts that int32 holds: its conversion is one instruction everywhere
        high = bitcast(bitwise_right_shift(words(key, shape, 0), 5), dt.int32)
        low = bitcast(bitwise_right_shift(words(key, shape, 1), 6), dt.int32)
        return multiply(add(multiply(cast(high, dt.float64), 2.0**26), cast(low, dt.float64)), 2.0**-53)
    count = _PRECISION[kind]
    top = bitcast(bitwise_right_shift(words(key, shape, word), 32 - count), dt.int32)
    return multiply(cast(top, dt.float32), 2.0**-count)


def open_unit(key: Tensor, shape: tuple[int, ...], kind: DType, word: int = 0) -> Tensor:
    """Uniform in (0, 1), for logarithms: float32 has 32 bits near 0, down to 2^-33, and is below 1; float64 has 52 bits."""
    if kind is dt.float64:
        high = bitcast(bitwise_right_shift(words(key, shape, 0), 6), dt.int32)
        low = bitcast(bitwise_right_shift(words(key, shape, 1), 6), dt.int32)
        whole = add(multiply(cast(high, dt.float64), 2.0**26), cast(low, dt.float64))
        return multiply(add(whole, 0.5), 2.0**-52)
    number = cast(words(key, shape, word), dt.float32)
    return minimum(multiply(add(number, 0.5), 2.0**-32), 1 - 2.0**-24)


class Draw:
    """The arguments of one call: the type asked for (``kind``), the one to compute in (``wide``), shape, parameters and key.

    ``parameters`` may be numbers or tensors; they broadcast together, and to ``shape`` where that is given. Without
    ``dtype`` the result has the parameters' floating type, or float32.
    """

    def __init__(
        self,
        function: str,
        parameters: dict[str, Parameter],
        shape: Any,
        dtype: Any,
        generator: Generator | None,
        key: Tensor | None,
        *,
        wide: DType | None = None,
    ) -> None:
        self.function = function
        given = {n: p if is_scalar(p) else as_tensor(p, function, n) for n, p in parameters.items()}
        tensors = [p for p in given.values() if isinstance(p, Tensor)]
        self.kind = float_type(dtype, function, tensors)
        self.wide = wide or (dt.float64 if self.kind is dt.float64 else dt.float32)
        self.shape = result_shape(function, {n: p for n, p in given.items() if isinstance(p, Tensor)}, shape)
        self.parameters = [cast(p, self.wide) if isinstance(p, Tensor) else p for p in given.values()]
        self.key = key_of(key, generator, function)

    def unit(self, word: int = 0) -> Tensor:
        """Uniform in [0, 1) in the type of computation."""
        return unit(self.key, self.shape, self.wide, word)

    def open_unit(self, word: int = 0) -> Tensor:
        """Uniform in (0, 1) in the type of computation."""
        return open_unit(self.key, self.shape, self.wide, word)

    def placed(self, x: Tensor, location: Parameter, scale: Parameter) -> Tensor:
        """location + scale * x in the type asked for."""
        if not (is_scalar(scale) and scale == 1):
            x = multiply(x, scale)
        if not (is_scalar(location) and location == 0):
            x = add(x, location)
        return cast(x, self.kind)


def float_type(dtype: Any, function: str, parameters: list[Tensor]) -> DType:
    """The floating type of a result."""
    if dtype is None:
        inexact = [p.dtype for p in parameters if p.dtype.is_inexact]
        kind = dt.promote(*inexact) if inexact else dt.float32
    else:
        kind = dtype_of(dtype, function)
    if not kind.is_float:
        raise DTypeError(f"{function}: numbers of a floating type are drawn, got {kind}")
    return kind


def result_shape(function: str, parameters: dict[str, Tensor], shape: Any) -> tuple[int, ...]:
    """The shape asked for, or that of the parameters together."""
    own = common_shape(function, [p.shape for p in parameters.values()]) if parameters else ()
    if shape is None:
        return own
    wanted = shape_of(shape, function)
    if parameters and (
        len(own) > len(wanted) or any(a not in (1, b) for a, b in zip(own[::-1], wanted[::-1], strict=False))
    ):
        names = ", ".join(f"`{n}` {p.shape}" for n, p in parameters.items())
        raise ShapeError(
            f"{function}: the shape {wanted} does not hold the parameters ({names}), which are broadcast to it"
        )
    return wanted


def positive(function: str, name: str, x: Parameter, zero: bool = False) -> None:
    """Refuse a number that is not positive. Tensors are not read: their bad elements give NaN."""
    if is_scalar(x) and not (x > 0 or (zero and x == 0)):
        raise ArgumentError(f"{function}: `{name}` is {'not negative' if zero else 'positive'}, got {x!r}")


def uniform(
    low: Parameter = 0.0,
    high: Parameter = 1.0,
    shape: Any = None,
    dtype: Any = None,
    generator: Generator | None = None,
    *,
    key: Tensor | None = None,
    device: Any = None,
) -> Tensor:
    """Numbers uniform in [low, high): never ``high``, in no type. Numbers or tensors bound them.

    >>> uniform(-1.0, 1.0, (2, 3)).shape
    (2, 3)
    """
    check_device(device, "uniform")
    if is_scalar(low) and is_scalar(high) and not low <= high:
        raise ArgumentError(f"uniform: `low` is at most `high`, got {low!r} and {high!r}")
    draw = Draw("uniform", {"low": low, "high": high}, shape, dtype, generator, key)
    kind, (low, high) = draw.kind, draw.parameters
    share = unit(draw.key, draw.shape, kind)
    if is_scalar(low) and is_scalar(high):
        if (low, high) == (0, 1):
            return cast(share, kind)
        out = cast(add(multiply(share, float(high) - float(low)), low), kind)
        return minimum(out, _below(low, high, kind))  # where rounding reached the bound
    out = cast(add(multiply(share, high - low), low), kind)
    bound, start = (
        broadcast_to_shape(cast(as_tensor(x, "uniform", dtype=draw.wide), kind), draw.shape)
        for x in (high, low)
    )
    return where(less(out, bound), out, start)


def _below(low: float, high: float, kind: DType) -> float:
    """The largest number of a type below ``high`` that is not below ``low``."""
    bound = np.asarray(high, kind.numpy)
    if float(bound) >= high:
        bound = np.nextafter(bound, np.asarray(-np.inf, kind.numpy))
    return float(max(bound, np.asarray(low, kind.numpy)))


def _sizes(shape: tuple[Any, ...], function: str) -> tuple[int, ...]:
    return shape_of(shape[0] if len(shape) == 1 else shape, function)


def rand(
    *shape: Any,
    dtype: Any = dt.float32,
    generator: Generator | None = None,
    key: Tensor | None = None,
    device: Any = None,
) -> Tensor:
    """Numbers uniform in [0, 1): ``rand(2, 3)`` or ``rand((2, 3))``."""
    check_device(device, "rand")
    return uniform(0.0, 1.0, _sizes(shape, "rand"), dtype, generator, key=key)
