"""How near a compiled result must come to the expected one, by operation and element type.

Operations that IEEE 754 rounds correctly, and those that only move or choose elements, agree exactly. Others
may be a few units in the last place off, where the expected value is computed in float64 for all narrower
types. Accumulations have an absolute error in proportion to the sum of the magnitudes of what they add.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from conformance.cases import Array, Case
from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.graph.reference import evaluate

# Units in the last place for float32 and float64, and for complex numbers of |z|.
ULPS: dict[str, float] = {
    **dict.fromkeys(("div", "sqrt"), 1),
    **dict.fromkeys(("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "rsqrt", "erf", "sigmoid"), 3),
    **dict.fromkeys(("sin", "cos", "tanh", "atan", "asin", "acos"), 3),
    **dict.fromkeys(("tan", "sinh", "cosh", "asinh", "acosh", "atanh", "atan2"), 4),
    "pow": 4,
}
COMPLEX_ULPS = 16.0  # formulas over parts
ATTENTION = ("attention", "attention_grad")
ACCUMULATING = ("reduce_sum", "cumsum", "fold", "scatter", "dot", "conv")
# The sign of a zero is part of the result.
SIGNED_ZERO = ("neg", "abs", "copysign", "where", "add", "sub", "mul", "real", "imag", "conj", "complex")


def expected(case: Case) -> Array:
    """The reference's result; for float32 in float64, rounded once."""
    leaves, arrays, value = case.build()
    narrow = case.op in ULPS or case.op in (*ACCUMULATING, *ATTENTION, "reduce_prod")
    if narrow and value.dtype is dt.float32 and all(a.dtype.kind != "c" for a in arrays):
        leaves, arrays, value = _widened(case).build()
        with np.errstate(all="ignore"):
            return evaluate([value], dict(zip(leaves, arrays, strict=True)))[0].astype(np.float32)
    return evaluate([value], dict(zip(leaves, arrays, strict=True)))[0]


def _widened(case: Case, magnitude: bool = False) -> Case:
    """The case with its real elements in float64."""

    def widen(a: Array) -> Array:
        if dt.from_numpy(a.dtype).is_float:
            a = a.astype(np.float64)
        return np.asarray(np.abs(a)) if magnitude and a.dtype.kind in "fc" else a

    attrs: dict[str, Any] = dict(case.attrs)
    if "dtype" in attrs and attrs["dtype"].is_inexact:
        attrs["dtype"] = dt.float64
    return Case(case.op, [widen(np.asarray(a)) for a in case.arrays], attrs, case.layout)


def tolerance(case: Case, result: DType) -> dict[str, Any]:
    """Arguments of ``compare.mismatch`` for a case whose result has this type."""
    if not result.is_inexact:
        return {}
    half = result.is_float and result.bits == 16
    if case.op in ACCUMULATING and case.attrs.get("mode", "add") == "add":
        return {"ulps": 1.0, "slack": _slack(case, result)}
    if case.op == "reduce_prod":
        count = max(int(np.prod([case.arrays[0].shape[a] for a in case.attrs["axes"]])), 1)
        eps = float(ml_dtypes.finfo(_accumulator(result)).eps)
        with np.errstate(all="ignore"):
            slack = np.nan_to_num(np.abs(expected(case)).astype(np.float64) * eps * (count + 2), posinf=0)
        return {"ulps": 1.0, "slack": slack}
    if case.op in ATTENTION:
        return {"ulps": 1.0, "slack": _attention_slack(case, result)}
    if case.op == "cast":
        return {"ulps": 1.0} if half else {}  # wide types may round twice on the way
    if case.op in ULPS:
        ulps = COMPLEX_ULPS if any(a.dtype.kind == "c" for a in case.arrays) else ULPS[case.op]
        return {"ulps": 1.0 if half else ulps}
    if any(a.dtype.kind == "c" for a in case.arrays) and case.op in ("mul", "abs"):
        return {"ulps": 4.0}
    if case.op in ("scan", "while_loop") and result.is_complex:
        return {"ulps": COMPLEX_ULPS}
    if case.op == "switch":  # its branches add up three numbers, twice, and multiply the sums
        return {"ulps": 16.0, "slack": 64 * float(ml_dtypes.finfo(_accumulator(result)).eps)}
    return {"signed_zero": case.op in SIGNED_ZERO}


def _accumulator(result: DType) -> Any:
    return np.float32 if result.bits == 16 else result.numpy


def _slack(case: Case, result: DType) -> Array:
    """Unit roundoff x a factor that grows with the number of terms x the sum of their magnitudes."""
    leaves, arrays, value = _widened(case, magnitude=True).build()
    bound = evaluate([value], dict(zip(leaves, arrays, strict=True)))[0]
    terms = max(sum(a.size for a in case.arrays) / max(bound.size, 1), 1)
    eps = float(ml_dtypes.finfo(_accumulator(result)).eps)
    return np.asarray(np.nan_to_num(bound * eps * (4 + 2 * np.sqrt(terms)), nan=0, posinf=0))


def _attention_slack(case: Case, result: DType) -> Array:
    """An error of the scores is a relative error of the weights; the sums over them add their own."""
    query, key, value, *rest = (np.abs(a.astype(np.float64)) for a in case.arrays)
    size = float(np.max(np.matmul(query, np.swapaxes(key, -1, -2)), initial=0)) * case.attrs["scale"]
    if (
        rest
    ):  # weights are of size one, and changes of size g v + delta; a sum has as many terms as there are rows
        terms = max(query.shape[-2], key.shape[-2])
        part = float(np.max(np.matmul(rest[0], np.swapaxes(value, -1, -2)), initial=0)) + 1
        lse, scale = case.arrays[4].astype(np.float64), case.attrs["scale"]
        scores = (
            np.matmul(
                case.arrays[0].astype(np.float64), np.swapaxes(case.arrays[1].astype(np.float64), -1, -2)
            )
            * scale
        )
        largest = float(np.max(np.exp(scores - lse[..., None]), initial=1e-3))
        bound = largest * part * np.sqrt(terms)
    else:
        bound = float(np.max(value, initial=0)) if case.attrs["result"] == "mix" else 1 + size
    eps = float(ml_dtypes.finfo(result.numpy).eps)
    return np.asarray(eps * bound * (8 + size + 2 * np.sqrt(query.shape[-1])))
