"""Comparison of arrays by units in the last place, and one way to run a compiled graph on arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from tilewright import compiler
from tilewright.core.shape import static
from tilewright.graph.ir import Value
from tilewright.runtime.buffers import Buffer

Array = np.ndarray[Any, Any]


def run_compiled(inputs: Sequence[Value], outputs: Sequence[Value], arrays: Sequence[Array]) -> list[Array]:
    """The outputs' arrays, computed by the compiler."""
    executable = compiler.compile(inputs, outputs)
    # Copies: results must not depend on the caller's memory, and its arrays must stay as they are.
    results = executable.run([Buffer.from_numpy(a, copy=True) for a in arrays])
    return [b.to_numpy(static(v.shape)).copy() for b, v in zip(results, outputs, strict=True)]


def ulp(x: Array) -> Array:
    """The distance from |x| to the next number of its type, in float64; the smallest one at zero."""
    info = ml_dtypes.finfo(x.dtype)
    exponent = np.frexp(np.abs(np.where(np.isfinite(x), x, 0).astype(np.float64)))[1] - 1
    return np.ldexp(1.0, np.maximum(exponent, info.minexp) - info.nmant)


def mismatch(
    actual: Array, expected: Array, ulps: float = 0.0, slack: Array | float = 0.0, signed_zero: bool = False
) -> str | None:
    """What differs, or None. ``slack`` is an absolute tolerance beside ``ulps`` (of |z| when complex)."""
    if actual.dtype != expected.dtype or actual.shape != expected.shape:
        return f"{actual.dtype}{list(actual.shape)} instead of {expected.dtype}{list(expected.shape)}"
    with np.errstate(all="ignore"):
        good = _agree(actual, expected, ulps, slack, signed_zero)
    if np.all(good):
        return None
    at = tuple(int(i) for i in np.argwhere(~good)[0]) if expected.ndim else ()
    count = int(np.sum(~good))
    return (
        f"{count} of {good.size} elements differ; at {list(at)}: {actual[at]!r} instead of {expected[at]!r}"
    )


def _agree(actual: Array, expected: Array, ulps: float, slack: Array | float, signed_zero: bool) -> Array:
    if expected.dtype.kind in "biu":
        return np.asarray(actual == expected)
    if expected.dtype.kind == "c":
        part = expected.real.dtype
        size = np.abs(expected).astype(part)
        near = np.abs(actual - expected) <= ulps * ulp(size) + slack
        same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
        return np.asarray(same | (near & np.isfinite(expected)))
    a, e = actual.astype(np.float64), expected.astype(np.float64)
    same = (a == e) | (np.isnan(a) & np.isnan(e))
    if signed_zero:
        same &= (np.signbit(a) == np.signbit(e)) | np.isnan(e)
    near = np.isfinite(a) & np.isfinite(e) & (np.abs(a - e) <= ulps * ulp(expected) + slack)
    # One unit beyond the largest number is infinity: a result that rounds to either is near the other.
    limit = float(ml_dtypes.finfo(expected.dtype).max)
    edge = (np.sign(a) == np.sign(e)) & (np.minimum(np.abs(a), np.abs(e)) >= limit * (1 - 1e-2)) & (ulps > 0)
    return np.asarray(same | (near if ulps > 0 or np.any(np.asarray(slack) > 0) else False) | edge)
