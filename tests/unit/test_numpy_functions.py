"""The functions that a user of NumPy reaches for, against NumPy: one table, in which a row is one expression of both libraries.

Every row is computed eagerly and in `tw.jit`; rows with "g" have their derivatives checked by finite differences, rows with "v"
run under `tw.vmap` against a loop. Rows with "e" read elements for the shape of their result and are not traced.
"""

import doctest
import importlib
import operator
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import tilewright as tw

RNG = np.random.default_rng(3)
X = RNG.standard_normal((3, 4))
Y = RNG.standard_normal((3, 4)) + 0.1
V = RNG.standard_normal(7)
W = RNG.uniform(0.5, 2, 7)
CUBE = RNG.standard_normal((2, 3, 4))
I = RNG.integers(-9, 9, (3, 4))
N = RNG.integers(0, 6, 12)
HOLES = np.where(RNG.uniform(size=(4, 5)) < 0.3, np.nan, RNG.standard_normal((4, 5)))
HOLES[1] = np.nan
TIES = np.array([2.0, 1.0, 2.0, 3.0, 1.0, 2.0])
MASK = X > 0
Z = X + 1j * Y
EMPTY = np.zeros((0, 3))
SORTED = np.array([-1.0, 0.0, 0.5, 2.0])
SPECIAL = np.array([0.0, -0.0, 1.5, -2.5, np.inf, -np.inf, np.nan, 1e-310, 3.0])


@dataclass(frozen=True)
class Row:
    expression: Callable[..., Any]
    inputs: tuple[Any, ...]
    flags: str
    rtol: float


ROWS: dict[str, Row] = {}


def row(
    name: str, expression: Callable[..., Any], *inputs: Any, flags: str = "", rtol: float = 1e-12
) -> None:
    assert name not in ROWS
    ROWS[name] = Row(expression, inputs, flags, rtol)


# ---- creation --------------------------------------------------------------------------------------------------

row("logspace", lambda xp, x: xp.logspace(-1, 2, 7, dtype="float64") * x[0], V)
row("logspace base", lambda xp, x: xp.logspace(0, 3, 4, False, 2.0, dtype="float64") * x[0], V)
row("geomspace", lambda xp, x: xp.geomspace(1, 1000, 4, dtype="float64") * x[0], V)
row("geomspace negative", lambda xp, x: xp.geomspace(-2, -32, 5, endpoint=False, dtype="float64") * x[0], V)
row("linspace step", lambda xp, x: xp.linspace(1, 2, 5, retstep=True, dtype="float64")[0] * x[0], V)
row("tri", lambda xp, x: xp.tri(3, 4, 1, dtype="float64") * x, X)
row("tril_indices", lambda xp, x: x[xp.tril_indices(3, 0, 4)], X, flags="g")
row("triu_indices", lambda xp, x: x[xp.triu_indices_from(x, 1)], X)
row("diag of a vector", lambda xp, x: xp.diag(x, 1), V, flags="gv")
row("diag below", lambda xp, x: xp.diag(x, -2), V, flags="g")
row("diag of a matrix", lambda xp, x: xp.diag(x, 1), X, flags="gv")
row("diag beyond", lambda xp, x: xp.diag(x, 9), X)
row("diagflat", lambda xp, x: xp.diagflat(x, 1), X)
row("diag_indices", lambda xp, x: x[xp.diag_indices(3)], X)
row("indices", lambda xp, x: xp.indices((2, 3)) + x[0, 0], X)
row("indices sparse", lambda xp, x: xp.indices((2, 3), sparse=True)[1] + x[0, 0], X)
row("mgrid", lambda xp, x: xp.mgrid[0:3, 1:2:3j] + x[0, 0], X, rtol=1e-6)
row("ogrid", lambda xp, x: sum(xp.ogrid[0:3, 1:5:2]) + x[0, 0], X)
row("ix_", lambda xp, x: x[xp.ix_([0, 2], [1, 3, 0])], X, flags="g")
row("vander", lambda xp, x: xp.vander(x, 4), V, flags="gv")
row("vander increasing", lambda xp, x: xp.vander(x, increasing=True), I[0])
row("fromfunction", lambda xp, x: xp.fromfunction(lambda i, j: i * 2 + j, (2, 3), dtype="float64") + x[0], V)
row("full of a row", lambda xp, x: xp.full((2, 7), x), V, flags="g")
row("full_like", lambda xp, x: xp.full_like(x, 2.5), X)
row("meshgrid sparse", lambda xp, x, y: list(xp.meshgrid(x, y, sparse=True)), V, W)
row("identity", lambda xp, x: xp.identity(4, dtype="float64") @ x[0], X)

# ---- rearranging ------------------------------------------------------------------------------------------------

for k in (-1, 0, 1, 2, 3):
    row(f"rot90 {k}", lambda xp, x, k=k: xp.rot90(x, k, (0, 2)), CUBE, flags="g" if k == 1 else "")
row("fliplr", lambda xp, x: xp.fliplr(x), X)
row("flipud", lambda xp, x: xp.flipud(x), X)
row("transpose", lambda xp, x: xp.transpose(x, (2, 0, 1)), CUBE, flags="g")
row("rollaxis", lambda xp, x: [xp.rollaxis(x, a, s) for a in (0, 2, -1) for s in (0, 1, 3)], CUBE)
row("ravel", lambda xp, x: xp.ravel(x), CUBE)
row("hstack", lambda xp, x, y: [xp.hstack((x, y)), xp.hstack((x[0], y[1]))], X, Y)
row("vstack", lambda xp, x, y: [xp.vstack((x, y)), xp.vstack((x[0], y[1]))], X, Y)
row("dstack", lambda xp, x, y: [xp.dstack((x, y)), xp.dstack((x[0], y[1]))], X, Y)
row("column_stack", lambda xp, x, y: [xp.column_stack((x, y)), xp.column_stack((x[0], y[1]))], X, Y)
row(
    "atleast",
    lambda xp, x: [f(v) for f in (xp.atleast_1d, xp.atleast_2d, xp.atleast_3d) for v in (x, x[0], x[0, 0])],
    X,
)
row("block", lambda xp, x, y: xp.block([[x, y], [y, x]]), X, Y)
row("block of vectors", lambda xp, x: xp.block([x, x[:2]]), V)
row("array_split", lambda xp, x: list(xp.array_split(x, 3)), V)
row("array_split at", lambda xp, x: list(xp.array_split(x, [1, 2, 9], axis=1)), X)
row("hsplit", lambda xp, x: [*xp.hsplit(x, 2), *xp.hsplit(x[0], [1])], X)
row("vsplit", lambda xp, x: list(xp.vsplit(x, 3)), X)
row("dsplit", lambda xp, x: list(xp.dsplit(x, 2)), CUBE)
row("append", lambda xp, x, y: [xp.append(x, y), xp.append(x, y, axis=0)], X, Y)
for obj in (1, -1, [0, 2], slice(None, None, 2), np.array([True, False, True])):
    row(
        f"delete {obj}",
        lambda xp, x, obj=obj: xp.delete(x, obj, axis=0),
        X,
        flags="g" if isinstance(obj, int) else "",
    )
row("delete flat", lambda xp, x: xp.delete(x, [1, -2]), X)
row("insert", lambda xp, x: xp.insert(x, 1, 7.0, axis=1), X, flags="g")
row("insert a row", lambda xp, x, y: xp.insert(x, 1, y[0], axis=0), X, Y, flags="g")
row("insert columns", lambda xp, x: xp.insert(x, [0, 2, 2], x[:, :3], axis=1), X)
row("insert flat", lambda xp, x: xp.insert(x, [0, -1], [8.0, 9.0]), X)
row("insert at end", lambda xp, x: xp.insert(x, 7, 1.0), V)
row("resize", lambda xp, x: [xp.resize(x, (4, 5)), xp.resize(x, 3), xp.resize(x, (0, 2))], V, flags="g")
row(
    "trim_zeros",
    lambda xp, x: [xp.trim_zeros(x), xp.trim_zeros(x, "f"), xp.trim_zeros(x * 0)],
    np.array([0, 0, 1, 0, 2, 0]),
    flags="e",
)
row("unstack", lambda xp, x: list(xp.unstack(x, axis=1)), X)
row("repeat by tensor", lambda xp, x: xp.repeat(x, xp.asarray([1, 0, 2]), axis=0), X)
row("tile", lambda xp, x: xp.tile(x, reps=(2, 1, 2)), X, flags="g")

# ---- padding ----------------------------------------------------------------------------------------------------

for m in ("edge", "reflect", "symmetric", "wrap", "linear_ramp", "maximum", "mean", "median", "minimum"):
    row(
        f"pad {m}",
        lambda xp, x, m=m: xp.pad(x, ((2, 1), (0, 3)), mode=m),
        X,
        flags="g" if m not in ("maximum", "minimum") else "",
    )
    row(f"pad {m} integers", lambda xp, x, m=m: xp.pad(x, (5, 9), mode=m), np.array([3, 1, 4]))
    row(f"pad {m} one", lambda xp, x, m=m: xp.pad(x, ((0, 0), (3, 2)), mode=m), X[:, :1])
row("pad constants", lambda xp, x: xp.pad(x, 2, constant_values=((1, 2), (3, 4))), X, flags="g")
row("pad dict", lambda xp, x: xp.pad(x, {-1: (1, 2)}, constant_values=7), X)
row("pad ramp to", lambda xp, x: xp.pad(x, (3, 2), mode="linear_ramp", end_values=(5, -4)), V, flags="g")
row("pad mean of", lambda xp, x: xp.pad(x, 2, mode="mean", stat_length=2), X, flags="g")
row("pad odd reflect", lambda xp, x: xp.pad(x, (4, 2), mode="reflect", reflect_type="odd"), V, flags="g")
row("pad odd symmetric", lambda xp, x: xp.pad(x, (3, 7), mode="symmetric", reflect_type="odd"), V)
row("pad nothing", lambda xp, x: xp.pad(x, 0, mode="reflect"), X)
row("pad empty with constants", lambda xp, x: xp.pad(x, 1, constant_values=3), EMPTY)

# ---- choosing ----------------------------------------------------------------------------------------------------

row("nonzero", lambda xp, x: list(xp.nonzero(x)), MASK, flags="e")
row("argwhere", lambda xp, x: [xp.argwhere(x), xp.argwhere(x[0, 0])], MASK, flags="e")
row("flatnonzero", lambda xp, x: xp.flatnonzero(x), I % 2, flags="e")
row(
    "compress",
    lambda xp, x: [xp.compress([True, False, True], x, axis=0), xp.compress([0, 1, 1], x)],
    X,
    flags="eg",
)
row("extract", lambda xp, m, x: xp.extract(m, x), MASK, X, flags="e")
row("select", lambda xp, x: xp.select([x < 0, x > 1], [x * x, -x], 5.0), X, flags="gv")
row(
    "piecewise",
    lambda xp, x: xp.piecewise(x, [x < 0, x > 1], [lambda v: v * v, 2.0, lambda v: -v]),
    X,
    flags="gv",
)
row("piecewise without else", lambda xp, x: xp.piecewise(x, [x < 0], [lambda v: v * v]), X)
row("choose", lambda xp, i, x: xp.choose(i, [x, -x, x * 2]), N.reshape(3, 4) % 3, X)
for m in ("wrap", "clip"):
    row(f"choose {m}", lambda xp, i, x, m=m: xp.choose(i, [x, -x], mode=m), I, X)
    row(f"take {m}", lambda xp, x, i, m=m: xp.take(x, i, axis=1, mode=m), X, I[0])
row("take_along_axis", lambda xp, x, i: xp.take_along_axis(x, i, axis=1), X, np.argsort(X, 1), flags="gv")
row("unravel_index", lambda xp, i: list(xp.unravel_index(i, (3, 4))), N)
row("ravel_multi_index", lambda xp, i: xp.ravel_multi_index((i % 3, i % 4), (3, 4)), N)
row(
    "ravel_multi_index wrap", lambda xp, i: xp.ravel_multi_index((i, i - 7), (3, 4), mode=("clip", "wrap")), N
)
row("sliding windows", lambda xp, x: windows(xp)(x, (2, 3)), X, flags="gv")
row("sliding windows of an axis", lambda xp, x: windows(xp)(x, 2, axis=0), X)
row("digitize", lambda xp, x, b: [xp.digitize(x, b), xp.digitize(x, b, right=True)], V, SORTED)
row(
    "digitize backwards",
    lambda xp, x, b: [xp.digitize(x, b[::-1]), xp.digitize(x, b[::-1], right=True)],
    np.append(V, SORTED),
    SORTED,
)


def windows(xp: Any) -> Any:
    return xp.sliding_window_view if xp is tw else np.lib.stride_tricks.sliding_window_view


# ---- order and sets -----------------------------------------------------------------------------------------------

row("sort flat", lambda xp, x: [xp.sort(x, axis=None), xp.argsort(x, axis=None)], X)
row("sort", lambda xp, x: xp.sort(x, axis=0), X, flags="gv")
row("lexsort", lambda xp, a, b: xp.lexsort((a, b)), N[::-1].copy(), N % 3)
row("lexsort of rows", lambda xp, x: xp.lexsort((x, x % 3), axis=0), I % 4, flags="v")
row("partition", lambda xp, x: xp.partition(x, 3)[3], V)
for axis in (None, 0, 1):
    row(
        f"unique {axis}",
        lambda xp, x, axis=axis: list(xp.unique(x, True, True, True, axis=axis)),
        N.reshape(6, 2) % 3,
        flags="e",
    )
row("unique of NaN", lambda xp, x: xp.unique(x, return_counts=True), HOLES, flags="e")
row("unique of complex", lambda xp, x: xp.unique(x), np.array([1 + 1j, 1 - 1j, 0, 1 + 1j]), flags="e")
row("unique of nothing", lambda xp, x: list(xp.unique(x, True, True, True)), np.zeros(0), flags="e")
row("unique of bools", lambda xp, x: xp.unique(x), MASK, flags="e")
row("union1d", lambda xp, a, b: xp.union1d(a, b), I, N, flags="e")
row("intersect1d", lambda xp, a, b: list(xp.intersect1d(a, b, return_indices=True)), I, N, flags="e")
row("setdiff1d", lambda xp, a, b: xp.setdiff1d(a, b), I, N, flags="e")
row("setxor1d", lambda xp, a, b: xp.setxor1d(a, b), I, N, flags="e")
row("isin", lambda xp, a, b: [xp.isin(a, b), xp.isin(a, b, invert=True), xp.isin(a, b[:0])], I, N, flags="v")
row("isin of floats", lambda xp, a: xp.isin(a, [2.0, np.nan]), TIES)

# ---- counting -----------------------------------------------------------------------------------------------------

row("bincount", lambda xp, x: [xp.bincount(x), xp.bincount(x, minlength=9), xp.bincount(x[:0])], N, flags="e")
row("bincount weights", lambda xp, x, w: xp.bincount(x[:7], w), N, W, flags="e")
row("histogram", lambda xp, x: list(xp.histogram(x, 4)), V)
row("histogram range", lambda xp, x: list(xp.histogram(x, 5, (-1.0, 0.5))), V)
row("histogram edges", lambda xp, x: list(xp.histogram(x, [-1.0, -0.3, 0.2, 0.9])), V)
row("histogram density", lambda xp, x, w: list(xp.histogram(x, 3, density=True, weights=w)), V, W)
row("histogram integers", lambda xp, x: list(xp.histogram(x, 3)), N)
row("histogram constant", lambda xp, x: list(xp.histogram(x, 3)), np.full(4, 2.5))
row("histogram of nothing", lambda xp, x: list(xp.histogram(x, 3)), np.zeros(0))
for rule in ("auto", "fd", "sturges", "sqrt"):
    row(
        f"edges by {rule}", lambda xp, x, rule=rule: xp.histogram_bin_edges(x, rule), np.tile(V, 3), flags="e"
    )
row("histogram2d", lambda xp, x, w: list(xp.histogram2d(x, w, 3)), V, W)
row(
    "histogram2d edges", lambda xp, x, w: list(xp.histogram2d(x, w, [2, [0.5, 1.0, 2.0]], density=True)), V, W
)
row(
    "histogramdd",
    lambda xp, x: flat(xp.histogramdd(x, (2, 3, 2), range=[(-1, 1)] * 3)),
    RNG.standard_normal((20, 3)),
)


def flat(result: Any) -> list[Any]:
    return [result[0], *result[1]]


# ---- calculus -----------------------------------------------------------------------------------------------------

row("interp", lambda xp, x, p, f: xp.interp(x, p, f), V, SORTED, SORTED**2 + 1, flags="g")
row("interp ends", lambda xp, x, p, f: xp.interp(x, p, f, left=-9.0, right=9.0), V * 3, SORTED, SORTED**2)
row("interp at points", lambda xp, p, f: xp.interp(p, p, f), SORTED, SORTED**2)
row("interp period", lambda xp, x, p, f: xp.interp(x, p, f, period=1.7), V * 3, SORTED, SORTED**2)
row("interp of NaN", lambda xp, x, p, f: xp.interp(x, p, f), HOLES, SORTED, SORTED**2)
row("diff", lambda xp, x: [xp.diff(x, 2), xp.diff(x, axis=0), xp.diff(x, prepend=0.0)], X, flags="v")
row("ediff1d", lambda xp, x: [xp.ediff1d(x), xp.ediff1d(x, to_end=[1, 2], to_begin=5)], I)
row("gradient", lambda xp, x: list(xp.gradient(x)), X, flags="g")
row("gradient spacing", lambda xp, x: list(xp.gradient(x, 0.5, 2.0, edge_order=2)), X, flags="g")
row(
    "gradient coordinates",
    lambda xp, x, t: [xp.gradient(x, t), xp.gradient(x, t, edge_order=2)],
    V,
    np.cumsum(W),
    flags="g",
)
row("gradient axis", lambda xp, x: xp.gradient(x, 2.0, axis=-1), CUBE)
row("trapezoid", lambda xp, x: [xp.trapezoid(x), xp.trapezoid(x, dx=0.5, axis=0)], X, flags="g")
row("trapezoid x", lambda xp, y, x: xp.trapezoid(y, x), V, np.cumsum(W), flags="gv")
row("unwrap", lambda xp, x: xp.unwrap(x * 9), V)
row("unwrap axis", lambda xp, x: xp.unwrap(x * 5, discont=4.0, axis=0, period=3.0), X)
row("unwrap integers", lambda xp, x: xp.unwrap(x, period=4), I)
row("polyval", lambda xp, p, x: xp.polyval(p, x), V[:4], X, flags="g")
row("polyfit", lambda xp, x, y: xp.polyfit(x, y, 3), V, W, flags="g", rtol=1e-8)
row("polyfit weights", lambda xp, x, y: xp.polyfit(x, y, 1, w=y), V, W, rtol=1e-8)
row(
    "polynomials",
    lambda xp, a, b: [xp.polyadd(a, b), xp.polysub(b, a), xp.polymul(a, b)],
    V,
    W[:3],
    flags="g",
)
row("polyder", lambda xp, a: [xp.polyder(a), xp.polyder(a, 2), xp.polyder(a, 0)], V)
row("polyint", lambda xp, a: [xp.polyint(a), xp.polyint(a, 2, [1.0, 2.0])], V)

# ---- running --------------------------------------------------------------------------------------------------------

row("cumsum", lambda xp, x: [xp.cumsum(x), xp.cumsum(x, axis=1)], X, flags="v")
row("cumprod", lambda xp, x: [xp.cumprod(x), xp.cumprod(x, axis=0)], X, flags="g")
row("nancumsum", lambda xp, x: [xp.nancumsum(x), xp.nancumsum(x, axis=1)], HOLES)
row("nancumprod", lambda xp, x: [xp.nancumprod(x), xp.nancumprod(x, axis=0)], HOLES)

# ---- statistics -----------------------------------------------------------------------------------------------------

METHODS = (
    "linear", "lower", "higher", "midpoint", "nearest", "inverted_cdf", "averaged_inverted_cdf", "closest_observation",
    "interpolated_inverted_cdf", "hazen", "weibull", "median_unbiased", "normal_unbiased",
)  # fmt: skip
QS = np.array([0.0, 0.1, 0.25, 1 / 3, 0.5, 0.62, 0.9, 1.0])
for m in METHODS:
    row(f"quantile {m}", lambda xp, x, m=m: [xp.quantile(x, QS, axis=a, method=m) for a in (None, 0)], X)
    row(f"nanquantile {m}", lambda xp, x, m=m: xp.nanquantile(x, QS, axis=1, method=m), HOLES)
row("quantile keepdims", lambda xp, x: xp.quantile(x, 0.3, axis=(0, 2), keepdims=True), CUBE, flags="g")
row("percentile", lambda xp, x: xp.percentile(x, [25, 60], axis=1), X, flags="g")
row("quantile of NaN", lambda xp, x: [xp.quantile(x, 0.5, axis=a) for a in (0, 1)], HOLES)
row("nanpercentile", lambda xp, x: xp.nanpercentile(x, 30, axis=0), HOLES)
row(
    "median",
    lambda xp, x: [xp.median(x), xp.median(x, axis=0), xp.median(x, axis=1, keepdims=True)],
    X,
    flags="gv",
)
row("nanmedian", lambda xp, x: [xp.nanmedian(x), xp.nanmedian(x, axis=1), xp.nanmedian(x, axis=0)], HOLES)
row("ptp", lambda xp, x: [xp.ptp(x), xp.ptp(x, axis=1)], I)
row(
    "average",
    lambda xp, x, w: [xp.average(x, weights=abs(w)), xp.average(x, axis=0, weights=abs(w[:, 0]))],
    X,
    Y,
    flags="g",
)
row("average returned", lambda xp, x: list(xp.average(x, axis=1, returned=True)), X)
row(
    "cov",
    lambda xp, x: [xp.cov(x), xp.cov(x, rowvar=False), xp.cov(x[0]), xp.cov(x, bias=True)],
    X,
    flags="g",
)
row(
    "cov weights",
    lambda xp, x, f, a: [xp.cov(x, fweights=f, aweights=a), xp.cov(x, aweights=a, ddof=0)],
    X,
    N[:4] + 1,
    W[:4],
)
row("cov of two", lambda xp, x, y: xp.cov(x[0], y[0], ddof=2), X, Y)
row("cov of complex", lambda xp, z: xp.cov(z), Z)
row("corrcoef", lambda xp, x: [xp.corrcoef(x), xp.corrcoef(x, rowvar=False)], X, flags="g")
for f in ("nansum", "nanprod", "nanmean", "nanvar", "nanstd", "nanmax", "nanmin"):
    row(
        f,
        lambda xp, x, f=f: [
            getattr(xp, f)(x),
            getattr(xp, f)(x, axis=1),
            getattr(xp, f)(x, axis=0, keepdims=True),
        ],
        HOLES,
    )
    row(f"{f} of numbers", lambda xp, x, f=f: getattr(xp, f)(x, axis=0), X, flags="g")
    row(f"{f} of integers", lambda xp, x, f=f: getattr(xp, f)(x, axis=1), I, rtol=1e-6)
row("nanvar of nothing left", lambda xp, x: xp.nanvar(x, axis=0, ddof=3), HOLES)
row("var ddof", lambda xp, x: [xp.var(x, axis=0, ddof=1), xp.std(x, ddof=2)], X)
row("nanargmax", lambda xp, x: [xp.nanargmax(x), xp.nanargmin(x), xp.nanargmax(x, axis=1)], HOLES[[0, 2, 3]])
row("count_nonzero", lambda xp, x: xp.count_nonzero(x, axis=1), I % 2)

# ---- elementwise ------------------------------------------------------------------------------------------------------

UNARY = (
    "absolute", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctanh", "cbrt", "ceil", "conjugate", "cos", "cosh",
    "deg2rad", "degrees", "exp", "exp2", "expm1", "fabs", "fix", "floor", "isfinite", "isinf", "isnan", "isneginf", "isposinf",
    "isreal", "iscomplex", "log", "log10", "log1p", "log2", "logical_not", "nan_to_num", "negative", "positive", "rad2deg",
    "radians", "reciprocal", "rint", "sign", "signbit", "sin", "sinc", "sinh", "spacing", "sqrt", "square", "tan", "tanh",
    "trunc", "around", "angle", "real", "modf", "frexp",
)  # fmt: skip
SMOOTH = ("cbrt", "sinc", "deg2rad", "fabs", "modf", "frexp", "nan_to_num", "arcsinh")
for f in UNARY:
    row(f, lambda xp, x, f=f: plain(getattr(xp, f)(x)), SPECIAL, rtol=1e-15 if f not in ("sinc",) else 1e-12)
    if f in SMOOTH:
        row(f"{f} smooth", lambda xp, x, f=f: plain(getattr(xp, f)(x))[:1], V, flags="gv")
for f in ("angle", "real", "imag", "conjugate", "isreal", "iscomplex", "nan_to_num", "absolute", "sign"):
    row(f"{f} complex", lambda xp, x, f=f: getattr(xp, f)(x), Z)
BINARY = (
    "add", "arctan2", "copysign", "divide", "equal", "float_power", "floor_divide", "fmax", "fmin", "fmod", "greater",
    "greater_equal", "heaviside", "hypot", "isclose", "less", "less_equal", "logaddexp", "logaddexp2", "logical_and",
    "logical_or", "logical_xor", "maximum", "minimum", "mod", "multiply", "nextafter", "not_equal", "power", "remainder",
    "subtract", "true_divide",
)  # fmt: skip
for f in BINARY:
    special = (
        SPECIAL[np.isfinite(SPECIAL)] if f == "floor_divide" else SPECIAL
    )  # inf // 1 is inf, as the array API says
    row(
        f"binary {f}",
        lambda xp, x, y, f=f: getattr(xp, f)(x, y),
        special[:, None],
        np.array([0.0, 2.0, -1.5, np.nan]),
    )
    if f in ("fmod", "fmax", "fmin", "logaddexp2", "float_power", "heaviside", "hypot"):
        row(f"binary {f} smooth", lambda xp, x, y, f=f: getattr(xp, f)(abs(x) + 0.3, y), X, Y, flags="gv")
for f in (
    "gcd",
    "lcm",
    "fmod",
    "bitwise_and",
    "bitwise_or",
    "bitwise_xor",
    "remainder",
    "floor_divide",
    "maximum",
    "fmax",
    "power",
):
    row(
        f"integers {f}",
        lambda xp, x, y, f=f: getattr(xp, f)(x, abs(y)),
        I,
        I[::-1].copy(),
        flags="v" if f in ("gcd", "fmod") else "",
    )
row("divmod", lambda xp, x: list(xp.divmod(x, 4)), I)
row("shifts", lambda xp, x: [xp.left_shift(x, 3), xp.right_shift(x, 1), xp.invert(x), xp.bitwise_not(x)], I)
row("bitwise_count", lambda xp, x: xp.bitwise_count(x), I, flags="v")
row("ldexp", lambda xp, x, n: xp.ldexp(x, n), SPECIAL[:, None], np.array([-1080, -60, 0, 3, 1000]))
row("ldexp smooth", lambda xp, x: xp.ldexp(x, 3), V, flags="g")
row("gcd of numbers", lambda xp, x: xp.gcd(x, 12), I)
row("clip", lambda xp, x: xp.clip(x, a_min=-0.5, a_max=0.5), X)
row(
    "allclose",
    lambda xp, x: [
        xp.allclose(x, x + 1e-9),
        xp.allclose(x, x + 1),
        xp.array_equal(x, x),
        xp.array_equiv(x, x[:1]),
    ],
    X,
)
row(
    "array_equal of NaN",
    lambda xp, x: [xp.array_equal(x, x), xp.array_equal(x, x, equal_nan=True), xp.array_equal(x, x[0])],
    HOLES,
)
row("nan_to_num numbers", lambda xp, x: xp.nan_to_num(x, nan=1.0, posinf=2.0, neginf=-3.0), SPECIAL)
row("real_if_close", lambda xp, z: [xp.real_if_close(z), xp.real_if_close(z.real + 0j)], Z, flags="e")
row("round", lambda xp, x: xp.round(x, 2), X)


def plain(result: Any) -> list[Any]:
    return list(result) if isinstance(result, tuple) else [result]


# ---- the tests ---------------------------------------------------------------------------------------------------------


def leaves(result: Any) -> list[Any]:
    return [leaf for r in result for leaf in leaves(r)] if isinstance(result, (tuple, list)) else [result]


def compare(ours: Any, theirs: Any, rtol: float) -> None:
    found, wanted = leaves(ours), leaves(theirs)
    assert len(found) == len(wanted)
    for got, want in zip(found, wanted, strict=True):
        assert isinstance(got, tw.Tensor)
        want = np.asarray(want)
        assert got.shape == want.shape
        assert got.numpy().dtype.kind == want.dtype.kind or want.dtype.kind in "iu"
        single = got.dtype in (tw.float32, tw.complex64)
        np.testing.assert_allclose(
            got.numpy(), want, rtol=max(rtol, 1e-5) if single else rtol, atol=1e-5 if single else 1e-13
        )


def expected(found: Row) -> Any:
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return found.expression(np, *found.inputs)


@pytest.mark.parametrize("name", ROWS)
def test_values(name: str) -> None:
    found = ROWS[name]
    compare(found.expression(tw, *map(tw.tensor, found.inputs)), expected(found), found.rtol)


@pytest.mark.parametrize("name", [n for n, r in ROWS.items() if "e" not in r.flags])
def test_compiled(name: str) -> None:
    found = ROWS[name]
    step = tw.jit(lambda *x: leaves(found.expression(tw, *x)))
    compare(step(*map(tw.tensor, found.inputs)), expected(found), found.rtol)


@pytest.mark.parametrize("name", [n for n, r in ROWS.items() if "g" in r.flags])
def test_derivatives(name: str) -> None:
    found = ROWS[name]
    fixed = {n: tw.tensor(x) for n, x in enumerate(found.inputs) if x.dtype.kind != "f"}
    free = [tw.tensor(x) for n, x in enumerate(found.inputs) if n not in fixed]

    def smooth(*given: tw.Tensor) -> list[tw.Tensor]:
        rest = iter(given)
        result = leaves(
            found.expression(tw, *(fixed[n] if n in fixed else next(rest) for n in range(len(found.inputs))))
        )
        return [r for r in result if r.dtype.is_float]

    tw.check_grads(smooth, tuple(free), order=1, modes=("rev", "fwd") if "e" not in found.flags else ("rev",))


@pytest.mark.parametrize("name", [n for n, r in ROWS.items() if "v" in r.flags])
def test_batches(name: str) -> None:
    found = ROWS[name]
    batched = [np.stack([x, x[::-1], x * 2 if x.dtype.kind == "f" else x]) for x in found.inputs]
    together = leaves(tw.vmap(lambda *x: tuple(leaves(found.expression(tw, *x))))(*map(tw.tensor, batched)))
    for i in range(3):
        alone = leaves(found.expression(tw, *(tw.tensor(x[i]) for x in batched)))
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_allclose(a[i].numpy(), b.numpy(), rtol=1e-12, atol=1e-12)


def test_searches_among_infinities() -> None:
    """NumPy says of these that its result cannot be trusted."""
    x = tw.tensor([np.nan, np.inf, np.inf])
    assert tw.nanargmax(-x).item() == tw.nanargmin(x).item() == 1
    assert tw.nanargmax(tw.tensor([np.nan, np.nan])).item() == -1


MODULES = (
    "arithmetic", "calculus", "creation", "differences", "grids", "histograms", "indexing", "joining", "padding", "running",
    "selection", "sets", "sorting", "statistics",
)  # fmt: skip


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings(module: str) -> None:
    loaded = importlib.import_module(f"tilewright.functions.{module}")
    assert doctest.testmod(loaded, extraglobs={"Tensor": tw.Tensor}).failed == 0


def test_functions_of_numpy_on_tensors() -> None:
    """NumPy's function objects become functions of tensors, and reductions reach the methods."""
    x, array = tw.tensor([0.5, 2.0]), np.array([1.0, 3.0], np.float32)
    for name in ("sin", "isnan", "absolute", "square", "conjugate", "logical_not", "rint", "invert"):
        given = tw.tensor([1, 2]) if name == "invert" else x
        found = getattr(np, name)(given)
        assert isinstance(found, tw.Tensor), name
        np.testing.assert_allclose(found.numpy(), getattr(np, name)(given.numpy()), rtol=1e-6)
    for name in ("add", "divide", "power", "maximum", "arctan2", "less", "equal", "logical_and", "hypot"):
        for pair in ((x, array), (array, x), (x, 2.0), (x, x)):
            found = getattr(np, name)(*pair)
            assert isinstance(found, tw.Tensor), name
            plain = [p.numpy() if isinstance(p, tw.Tensor) else p for p in pair]
            np.testing.assert_allclose(found.numpy(), getattr(np, name)(*plain), rtol=1e-6)
    for name in ("sum", "mean", "std", "var", "max", "min", "prod", "argmax", "any", "all", "cumsum"):
        found = getattr(np, name)(x)
        assert isinstance(found, tw.Tensor), name
        np.testing.assert_allclose(found.numpy(), getattr(np, name)(x.numpy()), rtol=1e-6)
    assert isinstance(np.float64(2) * x, tw.Tensor) and (np.float64(2) * x).dtype is tw.float32
    slope = tw.jit(tw.grad(lambda x: np.sum(np.sin(x) * array)))(x)
    np.testing.assert_allclose(slope.numpy(), np.cos([0.5, 2.0]) * array, rtol=1e-6)
    total = np.zeros(2, np.float32)
    total += x  # NumPy's own array stays one
    assert type(total) is np.ndarray and total.tolist() == [0.5, 2.0]
    assert np.add.reduce(x) == 2.5
    with pytest.raises(TypeError, match=r"cannot write to a tensor \(`out`\)"):
        np.add(x, x, out=x)
    with pytest.raises(ValueError, match="sum: there is no `out`; a result is a new tensor"):
        tw.sum(x, out=total)
    with pytest.raises(ValueError, match="mean: there is no `dtype`; convert the operand"):
        x.mean(dtype=tw.float64)


def test_python_integers_outside_the_range_of_the_type() -> None:
    """They are beyond all elements in comparisons, from either side and in ``jit``, as in NumPy."""
    for dtype, numbers in (
        ("uint8", (300, -1)),
        ("int8", (128, -129)),
        ("uint64", (-1, 2**64)),
        ("int64", (2**63,)),
    ):
        x = np.array([0, 1, 100], dtype)
        for number in numbers:
            for f in (operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge):
                assert f(tw.asarray(x), number).tolist() == f(x, number).tolist()
                assert f(number, tw.asarray(x)).tolist() == f(number, x).tolist()
                assert tw.jit(lambda x, f=f, n=number: f(x, n))(x).tolist() == f(x, number).tolist()


def test_integers_to_negative_powers_are_an_error() -> None:
    with pytest.raises(
        ValueError, match=r"pow: integers to the power -1 are no integers; make the base floating"
    ):
        tw.arange(1, 4) ** -1
    assert (tw.tensor([2.0]) ** -1).item() == 0.5


def test_python_protocols_of_tensors() -> None:
    assert round(tw.tensor(1.66)).item() == 2.0
    np.testing.assert_allclose(round(tw.tensor(1.66), 1).item(), 1.7, rtol=1e-6)
    assert [x.item() for x in divmod(tw.tensor(-7), 2)] == [-4, 1]
    assert [x.item() for x in divmod(7, tw.tensor(2))] == [3, 1]
    x = tw.tensor([1.0, 2.0])
    y = x.copy()
    y[0] = 5
    assert (x.tolist(), y.tolist()) == ([1.0, 2.0], [5.0, 2.0])
    assert x.imag.tolist() == [0.0, 0.0] and x.imag.dtype is tw.float32
