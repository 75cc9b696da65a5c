"""Conversion to and from the storage types, as expressions of basic operations: the same on every target.

An 8-bit float is taken apart as the upper bits of a float16, which holds all of them exactly. It is made by rounding the
bits of a wider float: adding half a step, and a bit more where the last kept digit is odd, carries into the exponent
where it has to. Below the least normal number the addition of a large power of two does the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.kernel.ir import Expr, bitcast, cast, const, op
from tilewright.kernel.math_float import Format, format_of

__all__ = ["converted"]


@dataclass(frozen=True)
class _Small:
    """An 8-bit float: digits after the point, exponent bias, the bits of NaN, and what too large numbers become."""

    mantissa: int
    bias: int
    nan: int
    overflow: int

    @property
    def limit(self) -> int:
        """The first bits that are no finite number: those of infinity, or of the only NaN."""
        return self.overflow


_FLOATS = {dt.float8_e4m3fn: _Small(3, 7, 0x7F, 0x7F), dt.float8_e5m2: _Small(2, 15, 0x7E, 0x7C)}


def converted(x: Expr, to: DType) -> Expr:
    """``x`` in another type; with the meaning of ``core.scalar.cast_numpy``, also for storage types."""
    if x.dtype is to:
        return x
    if x.dtype.is_storage:
        return converted(_decoded(x, to), to)
    if to in _FLOATS:
        return _small_float(x, to)
    if to.is_storage:
        return _nibble(x, to)
    return cast(x, to)


def _byte(value: int) -> Expr:
    return const(value, dt.uint8)


def _decoded(x: Expr, to: DType) -> Expr:
    """The number as float32, or as an integer of 8 bits."""
    bits = bitcast(x, dt.uint8)
    if x.dtype is dt.uint4:
        return op("bitand", bits, _byte(15))
    if x.dtype is dt.int4:
        return op("shr", bitcast(op("shl", bits, _byte(4)), dt.int8), const(4, dt.int8))
    wide = cast(bits, dt.uint16)
    if x.dtype is dt.float8_e5m2:
        return cast(bitcast(op("shl", wide, const(8, dt.uint16)), dt.float16), dt.float32)
    # e4m3fn has one exponent bit less than float16, whose bias is larger by 8, and another NaN
    magnitude = op("bitand", wide, const(0x7F, dt.uint16))
    sign = op("shl", op("bitand", wide, const(0x80, dt.uint16)), const(8, dt.uint16))
    scaled = bitcast(op("bitor", sign, op("shl", magnitude, const(7, dt.uint16))), dt.float16)
    value = op("mul", cast(scaled, dt.float32), const(256.0, dt.float32))
    is_nan = op("eq", magnitude, const(0x7F, dt.uint16))
    return op("where", is_nan, const(float("nan"), dt.float32), value)


def _small_float(x: Expr, to: DType) -> Expr:
    small = _FLOATS[to]
    if x.dtype is not dt.float64:
        x = cast(x, dt.float32)
    f = format_of(x.dtype)
    word = f.unsigned
    bits = bitcast(x, word)
    magnitude = op("bitand", bits, const((1 << f.bits - 1) - 1, word))
    sign = op("bitand", cast(op("shr", bits, const(f.bits - 8, word)), dt.uint8), _byte(0x80))
    coded = op("where", op("lt", magnitude, const(_bits_of(f, 2.0 ** (1 - small.bias)), word)), _tiny(f, small, magnitude),
               _rounded(f, small, magnitude))  # fmt: skip
    coded = op("minimum", coded, const(small.limit, word))
    infinity = const(((1 << f.bits - 1 - f.mantissa) - 1) << f.mantissa, word)
    coded = op("where", op("gt", magnitude, infinity), const(small.nan, word), coded)
    return bitcast(op("bitor", cast(coded, dt.uint8), sign), to)


def _bits_of(f: Format, value: float) -> int:
    """The bits of a power of two."""
    return f.bits_of(value)


def _rounded(f: Format, small: _Small, magnitude: Expr) -> Expr:
    """The code of a number that is at least the least normal one."""
    word, drop = f.unsigned, f.mantissa - small.mantissa
    odd = op("bitand", op("shr", magnitude, const(drop, word)), const(1, word))
    raised = op("add", op("add", magnitude, const((1 << drop - 1) - 1, word)), odd)
    return op(
        "sub", op("shr", raised, const(drop, word)), const((f.bias - small.bias) << small.mantissa, word)
    )


def _tiny(f: Format, small: _Small, magnitude: Expr) -> Expr:
    """The code of a number below that: how many times it holds the smallest one."""
    step = 1 - small.bias - small.mantissa
    magic = 2.0 ** (f.mantissa + step)
    total = op("add", bitcast(magnitude, f.dtype), const(magic, f.dtype))
    return op("sub", bitcast(total, f.unsigned), const(_bits_of(f, magic), f.unsigned))


def _nibble(x: Expr, to: DType) -> Expr:
    if x.dtype.is_float:  # saturates, as in wider integers
        low, high = (-8, 7) if to is dt.int4 else (0, 15)
        whole = cast(x, dt.int32)
        whole = op("minimum", op("maximum", whole, const(low, dt.int32)), const(high, dt.int32))
        byte = cast(whole, dt.uint8)
    else:
        byte = cast(x, dt.uint8)
    return bitcast(op("bitand", byte, _byte(15)), to)
