"""What the mathematical functions are written with: float formats, constants of one format, selections and
bit tricks.

Nothing here approximates anything. Comparisons are arranged so that NaN takes the path its comment says and
so that `where(a < b, a, b)` is one minimum instruction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.kernel.ir import Expr, bitcast, cast, const, fma, op

__all__ = [
    "F32", "F64", "Format", "at_least", "at_most", "format_of", "horner", "polynomial", "split_constant",
    "where",
]  # fmt: skip

LONG_POLYNOMIAL = 8  # coefficients


@dataclass(frozen=True)
class Format:
    """A binary float format: its type, the integers of its width, and the numbers describing its layout."""

    dtype: DType
    signed: DType
    unsigned: DType
    mantissa: int
    bias: int

    @property
    def bits(self) -> int:
        return self.dtype.bits

    @property
    def magic(self) -> float:
        """1.5 * 2^mantissa: adding it to a small float rounds to an integer and puts that in the low bits."""
        return 1.5 * 2.0**self.mantissa

    @property
    def least_normal(self) -> float:
        return 2.0 ** (1 - self.bias)

    def round(self, value: float) -> float:
        """The nearest number of the format."""
        return float(np.float32(value)) if self.bits == 32 else float(value)

    def const(self, value: float) -> Expr:
        return const(self.round(value), self.dtype)

    def integer(self, value: int) -> Expr:
        return const(value, self.signed)

    def to_int(self, x: Expr) -> Expr:
        """The bits as a signed integer."""
        return bitcast(x, self.signed)

    def to_float(self, i: Expr) -> Expr:
        """The float with these bits."""
        return bitcast(i, self.dtype)

    def bits_of(self, value: float) -> int:
        """The bits of a constant as a Python integer."""
        raw = np.float32(value).view(np.int32) if self.bits == 32 else np.float64(value).view(np.int64)
        return int(raw)

    def small_int(self, i: Expr) -> Expr:
        """A signed integer of small magnitude as a float, exactly.

        float32 converts; for float64, whose conversion needs AVX-512, the integer is put in the mantissa of
        `magic`.
        """
        if self.bits == 32:
            return cast(i, self.dtype)
        return self.to_float(i + self.integer(self.bits_of(self.magic))) - self.const(self.magic)

    def shift_left(self, i: Expr, count: int) -> Expr:
        return op("shl", i, const(count, i.dtype))

    def shift_right(self, i: Expr, count: int) -> Expr:
        return op("shr", i, const(count, i.dtype))

    def exponent_field(self, i: Expr) -> Expr:
        """The float whose exponent field is the low bits of ``i``: 2^(i - bias)."""
        return self.to_float(self.shift_left(i, self.mantissa))


F32 = Format(dt.float32, dt.int32, dt.uint32, 23, 127)
F64 = Format(dt.float64, dt.int64, dt.uint64, 52, 1023)


def format_of(dtype: DType) -> Format:
    """The format that a float type is computed in."""
    return F64 if dtype is dt.float64 else F32


def where(condition: Expr, then: Expr, otherwise: Expr) -> Expr:
    return op("where", condition, then, otherwise)


def at_most(x: Expr, limit: Expr) -> Expr:
    """The smaller one; NaN stays NaN."""
    return where(op("lt", limit, x), limit, x)


def at_least(x: Expr, limit: Expr) -> Expr:
    """The larger one; NaN stays NaN."""
    return where(op("lt", x, limit), limit, x)


def horner(format: Format, coefficients: Sequence[float], t: Expr) -> Expr:
    """The polynomial with these coefficients, constant term first, one fma a degree."""
    total = format.const(coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = fma(total, t, format.const(c))
    return total


def polynomial(format: Format, coefficients: Sequence[float], t: Expr) -> Expr:
    """As `horner`, but a long one is split into its even and its odd part, two chains that run side by side.

    Two units of rounding error may become three where the parts nearly cancel: for parts of a result that are
    small beside it.
    """
    if len(coefficients) <= LONG_POLYNOMIAL:
        return horner(format, coefficients, t)
    even, odd = (horner(format, coefficients[k::2], t * t) for k in (0, 1))
    return fma(odd, t, even)


def split_constant(format: Format, value: Fraction) -> tuple[float, float]:
    """``value`` as the nearest float and the nearest float to what that leaves."""
    high = format.round(float(value))
    return high, format.round(float(value - Fraction(high)))
