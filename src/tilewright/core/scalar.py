"""The scalar vocabulary: every elementwise operation, once, for the graph and for kernels.

A row says how many operands an operation has, which kinds of element it takes, what type it gives and what it means in
NumPy. Adding an elementwise operation starts with a row here; completeness tests name the tables that miss it.

Meaning at the edges (the NumPy functions below and compiled code agree on these):
integer division and remainder by zero give 0; division rounds towards minus infinity and the remainder takes the
divisor's sign; shifts by the width or more give 0 (or the sign); ``maximum``/``minimum`` propagate NaN; a cast of a
float outside an integer's range saturates and NaN becomes 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType

__all__ = ["SCALAR_OPS", "ScalarOp", "cast_numpy", "result_dtype"]


@dataclass(frozen=True, slots=True)
class ScalarOp:
    """One elementwise operation. ``kinds``: element kinds its operands may have; ``result``: ``same``, ``bool``, ``real``."""

    name: str
    arity: int
    kinds: str
    result: str
    numpy: Callable[..., Any]
    text: str = ""


def _wide(x: Any) -> Any:
    """Half types are computed in float32 and rounded once, as compiled code does."""
    return (
        np.asarray(x, np.float32)
        if dt.from_numpy(np.asarray(x).dtype).bits == 16 and np.asarray(x).dtype.kind in "fV"
        else x
    )


def _elementwise(function: Callable[..., Any]) -> Callable[..., Any]:
    def apply(*args: Any) -> Any:
        kind = np.asarray(args[-1]).dtype
        with np.errstate(all="ignore"):
            out = function(*[_wide(a) for a in args])
            return np.asarray(out).astype(kind) if np.asarray(out).dtype != kind else out

    return apply


def _predicate(function: Callable[..., Any]) -> Callable[..., Any]:
    def apply(*args: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(*[_wide(a) for a in args])

    return apply


def _abs(x: Any) -> Any:
    with np.errstate(all="ignore"):
        return np.abs(x)  # exact in every type, so half types need no detour


def _erf(x: Any) -> Any:
    x = np.asarray(x)
    flat = [math.erf(v) for v in x.astype(np.float64).ravel().tolist()]
    return np.array(flat, dtype=np.float64).reshape(x.shape).astype(x.dtype)


def _sigmoid(x: Any) -> Any:
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, np.ones_like(small)) / (1 + small)


def _expm1(x: Any) -> Any:
    """exp(x) - 1; for complex x from real functions, precise near 0 and defined at every infinity as C's ``cexp`` is."""
    x = np.asarray(x)
    if x.dtype.kind != "c":
        return np.expm1(x)
    re, im = x.real, x.imag
    half, grown = np.sin(im / 2), np.exp(re)
    out = _complex(np.expm1(re) * np.cos(im) - 2 * half * half + 0, np.where(im == 0, im, grown * np.sin(im)))
    unbounded = ~np.isfinite(im)  # the angle is not known: the end of the ray is, when it is 0 or infinity
    out[unbounded & (re == -np.inf)] = -1
    out[unbounded & (re == np.inf)] = complex(np.inf, np.nan)
    out.real[(im == 0) & np.isinf(re)] = np.expm1(re[(im == 0) & np.isinf(re)])
    return out


def _tanh(x: Any) -> Any:
    """tanh; for complex x the imaginary part at real infinities is +0 above the real axis, as the array API standard says."""
    out = np.tanh(x)
    if np.asarray(x).dtype.kind == "c":
        out = np.asarray(out)
        end = np.isinf(x.real) & np.isfinite(x.imag)
        out.imag[end] = np.copysign(0.0, x.imag[end])
    return out


def _floordiv(a: Any, b: Any) -> Any:
    return np.floor_divide(a, b)


def _mod(a: Any, b: Any) -> Any:
    return np.remainder(a, b)


def _shl(a: Any, b: Any) -> Any:
    width = np.asarray(a).dtype.itemsize * 8
    return np.where((b >= 0) & (b < width), np.left_shift(a, np.clip(b, 0, width - 1)), 0)


def _shr(a: Any, b: Any) -> Any:
    width = np.asarray(a).dtype.itemsize * 8
    return (
        np.right_shift(a, np.where((b >= 0) & (b < width), b, width - 1))
        if np.asarray(a).dtype.kind == "i"
        else np.where((b >= 0) & (b < width), np.right_shift(a, np.clip(b, 0, width - 1)), 0)
    )


def _pow(a: Any, b: Any) -> Any:
    if (
        np.asarray(a).dtype.kind in "iu"
    ):  # a negative exponent truncates towards zero, as integer division would
        base, exponent = np.asarray(a), np.asarray(b)
        positive = np.power(base, np.maximum(exponent, 0))
        odd = np.where(exponent % 2 == 0, 1, base)
        return np.where(exponent >= 0, positive, np.where(base == 1, 1, np.where(base == -1, odd, 0)))
    return np.power(a, b)


def cast_numpy(x: Any, to: DType) -> Any:
    """Convert with this project's meaning: floats saturate into integers and NaN becomes 0; to bool is ``x != 0``."""
    x = np.asarray(x)
    source = dt.from_numpy(x.dtype)
    with np.errstate(all="ignore"):
        if to.is_bool:
            return x != 0
        if source.is_complex and not to.is_complex:
            x = x.real
            source = dt.from_numpy(x.dtype)
        if source.is_storage:
            return cast_numpy(x.astype(np.int8 if source in (dt.int4, dt.uint4) else np.float32), to)  # exact
        if to.is_storage:
            return _stored(x, source, to)
        if source.is_float and to.is_integer:
            info = np.iinfo(to.name)
            wide = np.asarray(x, np.float64)
            low, high = wide <= float(info.min), wide >= float(info.max)
            inside = np.where(np.isnan(wide) | low | high, 0, wide).astype(to.numpy)
            out = np.where(low, info.min, np.where(high, info.max, inside)).astype(to.numpy)
            return np.where(np.isnan(wide), np.zeros((), to.numpy), out)
        return x.astype(to.numpy)


def _stored(x: Any, source: DType, to: DType) -> Any:
    """In a storage type. 8-bit floats round to nearest, ties to even; too large is NaN in e4m3fn and infinite in e5m2."""
    if to not in (dt.int4, dt.uint4):
        wide = (
            _to_odd(x) if source is dt.float64 else x.astype(np.float32)
        )  # integers that this rounds are too large anyway
        return wide.astype(to.numpy)
    low, high = (-8, 7) if to is dt.int4 else (0, 15)
    if source.is_float:  # saturates, as in wider integers; other integers keep their low bits
        x = cast_numpy(x, dt.int32).clip(low, high)
    whole = x.astype(np.int8) if source.is_bool else x
    return np.asarray(whole & whole.dtype.type(15)).astype(np.uint8).view(to.numpy)


def _to_odd(x: Any) -> Any:
    """float64 as float32, cut towards zero with an odd last bit where that loses something: a second rounding is then right."""
    near = x.astype(np.float32)
    bits = np.atleast_1d(near).view(np.uint32)
    lost = np.isfinite(x) & (near.astype(np.float64) != x)
    away = lost & (np.abs(near.astype(np.float64)) > np.abs(x))
    return (
        np.where(lost, (bits - np.atleast_1d(away)) | 1, bits)
        .astype(np.uint32)
        .view(np.float32)
        .reshape(x.shape)
    )


_F = "fc"
_ROWS: tuple[ScalarOp, ...] = (
    # one operand
    ScalarOp("neg", 1, "iufc", "same", _elementwise(np.negative)),
    ScalarOp("abs", 1, "iufc", "real", _abs),
    ScalarOp("sign", 1, "iuf", "same", _elementwise(np.sign)),
    ScalarOp("invert", 1, "biu", "same", np.invert),
    ScalarOp("exp", 1, _F, "same", _elementwise(np.exp)),
    ScalarOp("exp2", 1, "f", "same", _elementwise(np.exp2)),
    ScalarOp("expm1", 1, _F, "same", _elementwise(_expm1)),
    ScalarOp("log", 1, _F, "same", _elementwise(np.log)),
    ScalarOp("log2", 1, "f", "same", _elementwise(np.log2)),
    ScalarOp("log10", 1, "f", "same", _elementwise(np.log10)),
    ScalarOp("log1p", 1, _F, "same", _elementwise(np.log1p)),
    ScalarOp("sqrt", 1, _F, "same", _elementwise(np.sqrt)),
    ScalarOp("rsqrt", 1, "f", "same", _elementwise(lambda x: 1 / np.sqrt(x))),
    ScalarOp("sin", 1, _F, "same", _elementwise(np.sin)),
    ScalarOp("cos", 1, _F, "same", _elementwise(np.cos)),
    ScalarOp("tan", 1, _F, "same", _elementwise(np.tan)),
    ScalarOp("asin", 1, _F, "same", _elementwise(np.arcsin)),
    ScalarOp("acos", 1, _F, "same", _elementwise(np.arccos)),
    ScalarOp("atan", 1, _F, "same", _elementwise(np.arctan)),
    ScalarOp("sinh", 1, _F, "same", _elementwise(np.sinh)),
    ScalarOp("cosh", 1, _F, "same", _elementwise(np.cosh)),
    ScalarOp("tanh", 1, _F, "same", _elementwise(_tanh)),
    ScalarOp("asinh", 1, _F, "same", _elementwise(np.arcsinh)),
    ScalarOp("acosh", 1, _F, "same", _elementwise(np.arccosh)),
    ScalarOp("atanh", 1, _F, "same", _elementwise(np.arctanh)),
    ScalarOp("erf", 1, "f", "same", _elementwise(_erf)),
    ScalarOp("sigmoid", 1, "f", "same", _elementwise(_sigmoid), "1 / (1 + exp(-x))"),
    ScalarOp("floor", 1, "f", "same", _elementwise(np.floor)),
    ScalarOp("ceil", 1, "f", "same", _elementwise(np.ceil)),
    ScalarOp("round", 1, "f", "same", _elementwise(np.rint), "to nearest, ties to even"),
    ScalarOp("trunc", 1, "f", "same", _elementwise(np.trunc)),
    ScalarOp("real", 1, "c", "real", lambda x: np.real(x)),
    ScalarOp("imag", 1, "c", "real", lambda x: np.imag(x)),
    ScalarOp("conj", 1, "c", "same", np.conj),
    # two operands of one type
    ScalarOp("add", 2, "iufc", "same", _elementwise(np.add)),
    ScalarOp("sub", 2, "iufc", "same", _elementwise(np.subtract)),
    ScalarOp("mul", 2, "iufc", "same", _elementwise(np.multiply)),
    ScalarOp("div", 2, _F, "same", _elementwise(np.divide)),
    ScalarOp("floordiv", 2, "iuf", "same", _elementwise(_floordiv)),
    ScalarOp("mod", 2, "iuf", "same", _elementwise(_mod)),
    ScalarOp("pow", 2, "iufc", "same", _elementwise(_pow)),
    ScalarOp("atan2", 2, "f", "same", _elementwise(np.arctan2)),
    ScalarOp("maximum", 2, "biuf", "same", _elementwise(np.maximum)),
    ScalarOp("minimum", 2, "biuf", "same", _elementwise(np.minimum)),
    ScalarOp("copysign", 2, "f", "same", _elementwise(np.copysign)),
    ScalarOp("bitand", 2, "biu", "same", np.bitwise_and),
    ScalarOp("bitor", 2, "biu", "same", np.bitwise_or),
    ScalarOp("bitxor", 2, "biu", "same", np.bitwise_xor),
    ScalarOp("shl", 2, "iu", "same", _elementwise(_shl)),
    ScalarOp("shr", 2, "iu", "same", _elementwise(_shr), "arithmetic for signed, logical for unsigned types"),
    ScalarOp("eq", 2, "biufc", "bool", _predicate(np.equal)),
    ScalarOp("ne", 2, "biufc", "bool", _predicate(np.not_equal)),
    ScalarOp("lt", 2, "biuf", "bool", _predicate(np.less)),
    ScalarOp("le", 2, "biuf", "bool", _predicate(np.less_equal)),
    ScalarOp("gt", 2, "biuf", "bool", _predicate(np.greater)),
    ScalarOp("ge", 2, "biuf", "bool", _predicate(np.greater_equal)),
    ScalarOp("complex", 2, "f", "complex", lambda re, im: _complex(re, im), "real and imaginary part"),
    # three operands
    ScalarOp("where", 3, "biufcq", "same", lambda c, a, b: np.where(c, a, b), "the first operand is bool"),
)


def _complex(re: Any, im: Any) -> Any:
    re = np.asarray(re)
    out = np.empty(
        np.broadcast_shapes(re.shape, np.shape(im)), np.complex128 if re.dtype == np.float64 else np.complex64
    )
    out.real, out.imag = re, im
    return out


SCALAR_OPS: dict[str, ScalarOp] = {row.name: row for row in _ROWS}


def result_dtype(row: ScalarOp, operands: tuple[DType, ...]) -> DType:
    """The element type of the result; ``TypeError`` when the operands' types are not what the row takes."""
    data = operands[1:] if row.name == "where" else operands
    if len(operands) != row.arity:
        raise TypeError(f"{row.name} takes {row.arity} operands, got {len(operands)}")
    if row.name == "where" and not operands[0].is_bool:
        raise TypeError(f"where takes a bool condition, got {operands[0]}")
    for d in data:
        if d is not data[0]:
            raise TypeError(f"{row.name} takes operands of one type, got {' and '.join(map(str, data))}")
        if d.kind not in row.kinds:
            if d.is_storage:
                raise TypeError(f"{row.name}: {dt.only_stored(d)}")
            names = {"b": "bool", "i": "signed", "u": "unsigned", "f": "float", "c": "complex"}
            raise TypeError(
                f"{row.name} is not defined for {d}; it takes {', '.join(names[k] for k in row.kinds)} elements"
            )
    if row.result == "bool":
        return dt.bool_
    if row.result == "complex":
        if data[0].bits < 32:
            raise TypeError(f"complex takes float32 or float64 parts, got {data[0]}")
        return dt.complex128 if data[0] is dt.float64 else dt.complex64
    if row.result == "real" and data[0].is_complex:
        return dt.float64 if data[0] is dt.complex128 else dt.float32
    return data[0]
