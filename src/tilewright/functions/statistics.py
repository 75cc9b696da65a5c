"""Statistics: medians, quantiles by all of NumPy's methods, weighted averages, covariances, and the forms that leave out NaN.

Orders come from ``sort``; everything else is native. All of it is lazy, differentiable where a derivative exists, and works
in ``tw.jit`` and ``tw.vmap``. Quantiles of integers are float32, as means are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tilewright.core import dtype as dt
from tilewright.functions.arguments import (
    Axes,
    TensorLike,
    as_tensor,
    axes_of,
    axis_of,
    broadcast_to_shape,
    cast,
    dtype_of,
    float_tensor,
)
from tilewright.functions.creation import iota
from tilewright.functions.differences import cumprod
from tilewright.functions.elementwise import (
    abs,
    add,
    clip,
    conj,
    divide,
    equal,
    floor,
    greater,
    greater_equal,
    isfinite,
    isnan,
    less,
    less_equal,
    logical_not,
    multiply,
    not_equal,
    remainder,
    round,
    sqrt,
    subtract,
    where,
)
from tilewright.functions.indexing import take_along_axis
from tilewright.functions.linalg import matmul
from tilewright.functions.movement import concat, expand_dims, moveaxis, permute_dims, reshape, squeeze
from tilewright.functions.reductions import all as all_of
from tilewright.functions.reductions import (
    argmax,
    argmin,
    cumsum,
    max,
    mean,
    min,
    prod,
    root,
    std,
    sum,
    var,
    wide,
)
from tilewright.functions.running import cummax
from tilewright.functions.sorting import ValuesIndices, argsort, sort
from tilewright.tensor import ArgumentError, DTypeError, ShapeError, Tensor

__all__ = [
    "average", "corrcoef", "cov", "median", "mode", "nanargmax", "nanargmin", "nancumprod", "nancumsum", "nanmax", "nanmean",
    "nanmedian", "nanmin", "nanpercentile", "nanprod", "nanquantile", "nanstd", "nansum", "nanvar", "percentile", "ptp",
    "quantile", "std_mean", "var_mean",
]  # fmt: skip


# ---- order ---------------------------------------------------------------------------------------------------------

# Hyndman and Fan, "Sample Quantiles in Statistical Packages", 1996: methods 4 to 9 read at q * (n + 1 - a - b) + a - 1,
# counted from 0, between two neighbours.
_PLOTTING = {
    "interpolated_inverted_cdf": (0.0, 1.0),
    "hazen": (0.5, 0.5),
    "weibull": (0.0, 0.0),
    "linear": (1.0, 1.0),
    "median_unbiased": (1 / 3, 1 / 3),
    "normal_unbiased": (3 / 8, 3 / 8),
}
_STEPS = ("inverted_cdf", "averaged_inverted_cdf", "closest_observation")
_ROUNDED = ("lower", "higher", "midpoint", "nearest")
METHODS = (*_STEPS, *_PLOTTING, *_ROUNDED)


def _places(q: Tensor, n: Tensor, method: str) -> tuple[Tensor, Tensor]:
    """Where a quantile lies in a sorted line of n elements: the lower neighbour and how far it is to the next, in [0, 1]."""
    last = subtract(n, 1.0)
    if method in _PLOTTING:
        a, b = _PLOTTING[method]
        at = add(multiply(q, add(n, 1.0 - a - b)), a - 1.0)
    elif method in _ROUNDED:
        at = multiply(q, last)
    elif method == "closest_observation":
        at = subtract(multiply(q, n), 1.5)
    else:
        at = subtract(multiply(q, n), 1.0)
    low = floor(at)
    share = subtract(at, low)
    if method == "inverted_cdf":
        share = where(greater(share, 0), 1.0, 0.0)
    elif method == "averaged_inverted_cdf":
        share = where(greater(share, 0), 1.0, 0.5)
    elif (
        method == "closest_observation"
    ):  # between two neighbours at equal distance the one with the even number
        share = where(logical_not(greater(share, 0)) & equal(remainder(low, 2.0), 1.0), 0.0, 1.0)
    elif method == "lower":
        share = multiply(share, 0.0)
    elif method == "higher":
        share = where(greater(share, 0), 1.0, 0.0)
    elif method == "midpoint":
        share = where(greater(share, 0), 0.5, 0.0)
    elif method == "nearest":
        low, share = round(at), multiply(share, 0.0)
    share = where(less(at, 0) if method in _PLOTTING else less(low, 0), 0.0, share)
    low = where(less(low, 0), 0.0, low)
    share = where(greater_equal(low, last), 0.0, share)
    return where(greater(low, last), last, low), share


def _line(x: Tensor, axis: Axes, function: str) -> tuple[Tensor, tuple[int, ...]]:
    """x with the reduced axes joined into a last one, and the shape that ``keepdims`` asks for."""
    axes = axes_of(axis, x.ndim, function)
    kept = [a for a in range(x.ndim) if a not in axes]
    shape = tuple(1 if a in axes else d for a, d in enumerate(x.shape))
    moved = permute_dims(x, (*kept, *axes)) if x.ndim else x
    return reshape(moved, (*(x.shape[a] for a in kept), math.prod(x.shape[a] for a in axes))), shape


def _quantile(
    function: str,
    x: TensorLike,
    q: TensorLike,
    axis: Axes,
    method: str,
    keepdims: bool,
    leave_out: bool,
    scale: float = 1.0,
) -> Tensor:
    x = float_tensor(x, function)
    if x.dtype.is_complex:
        raise DTypeError(f"{function}: {x.dtype} elements have no order")
    if method not in METHODS:
        raise ArgumentError(f"{function}: `method` is one of {', '.join(METHODS)}, got {method!r}")
    wanted = as_tensor(q, function, "q", dt.float64)
    if wanted._value.op == "constant" or wanted._value.buffer is not None:
        found = wanted.numpy()
        if ((found < 0) | (found > scale)).any():
            raise ArgumentError(f"{function}: `q` lies between 0 and {scale:g}, got {q!r}")
    line, kept = _line(x, axis, function)
    n = line.shape[-1]
    if not n:
        raise ShapeError(f"{function}: a tensor of shape {x.shape} has no elements along the axis")
    parts = cast(divide(cast(reshape(wanted, (wanted.size,)), dt.float64), scale), dt.float64)
    ordered = sort(line, -1)  # NaN last
    count = (
        sum(cast(logical_not(isnan(line)), dt.float64), -1, keepdims=True)
        if leave_out
        else Tensor(float(n), "float64")
    )
    low, share = _places(parts, count, method)
    shape = (*line.shape[:-1], wanted.size)
    low = broadcast_to_shape(cast(clip(low, 0.0, float(n - 1)), dt.int64), shape)
    first = take_along_axis(ordered, low, -1)
    second = take_along_axis(ordered, clip(add(low, 1), 0, n - 1), -1)
    part = cast(broadcast_to_shape(share, shape), x.dtype)
    out = where(
        equal(part, 1),
        second,
        where(equal(first, second) | equal(part, 0), first, _between(first, second, part)),
    )
    if not leave_out:
        broken = isnan(ordered[..., n - 1 :])
        out = where(broken, math.nan, out)
    out = reshape(moveaxis(out, -1, 0), (*wanted.shape, *line.shape[:-1]))
    return reshape(out, (*wanted.shape, *kept)) if keepdims else out


def _between(first: Tensor, second: Tensor, part: Tensor) -> Tensor:
    """A number between two, ``part`` of the way from the first to the second, 0 < part < 1.

    Where their distance is no finite number, because one of them is infinite or both are large, it is their weighted mean:
    the median of 1 and infinity is infinite, that of -3e38 and 3e38 is 0.
    """
    way = subtract(second, first)
    mean_of_both = add(multiply(first, subtract(1.0, part)), multiply(second, part))
    return where(isfinite(way), add(first, multiply(part, way)), mean_of_both)


def quantile(
    x: TensorLike, q: TensorLike, axis: Axes = None, method: str = "linear", keepdims: bool = False
) -> Tensor:
    """The q-th quantiles of x over ``axis``, q in [0, 1]: the axes of ``q`` come first in the result. NaN gives NaN.

    ``method`` is one of NumPy's: ``linear``, ``lower``, ``higher``, ``midpoint``, ``nearest``, ``inverted_cdf``,
    ``averaged_inverted_cdf``, ``closest_observation``, ``interpolated_inverted_cdf``, ``hazen``, ``weibull``,
    ``median_unbiased``, ``normal_unbiased``. The derivative goes to the one or two elements that the result is made of.

    >>> quantile(Tensor([1.0, 2.0, 3.0, 4.0]), 0.5).item()
    2.5
    """
    return _quantile("quantile", x, q, axis, method, keepdims, False)


def percentile(
    x: TensorLike, q: TensorLike, axis: Axes = None, method: str = "linear", keepdims: bool = False
) -> Tensor:
    """``quantile`` with q in percent, 0 to 100."""
    return _quantile("percentile", x, q, axis, method, keepdims, False, 100.0)


def median(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The middle element over ``axis``, or the mean of the two in the middle. NaN gives NaN.

    >>> median(Tensor([4.0, 1.0, 3.0])).item()
    3.0
    """
    x = float_tensor(x, "median")
    if not x.size and math.prod(x.shape[a] for a in axes_of(axis, x.ndim, "median")) == 0:
        return mean(x, axis, keepdims=keepdims)
    return _quantile("median", x, 0.5, axis, "linear", keepdims, False)


def nanquantile(
    x: TensorLike, q: TensorLike, axis: Axes = None, method: str = "linear", keepdims: bool = False
) -> Tensor:
    """``quantile`` of the elements that are not NaN; NaN where all are."""
    return _quantile("nanquantile", x, q, axis, method, keepdims, True)


def nanpercentile(
    x: TensorLike, q: TensorLike, axis: Axes = None, method: str = "linear", keepdims: bool = False
) -> Tensor:
    """``percentile`` of the elements that are not NaN; NaN where all are."""
    return _quantile("nanpercentile", x, q, axis, method, keepdims, True, 100.0)


def nanmedian(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """``median`` of the elements that are not NaN; NaN where all are."""
    return _quantile("nanmedian", x, 0.5, axis, "linear", keepdims, True)


def mode(x: TensorLike, axis: int = -1, keepdims: bool = False) -> ValuesIndices:
    """The most frequent element along ``axis`` (the smallest of several), and the last place where it stands.

    >>> mode(Tensor([2, 1, 2, 3])).values.item()
    2
    """
    x = as_tensor(x, "mode")
    at = axis_of(axis, x.ndim, "mode")
    n = x.shape[at]
    if not n:
        raise ShapeError(f"mode: a tensor of shape {x.shape} has no elements along the axis")
    order = argsort(x, at)
    ordered = take_along_axis(x, order, at)
    lead = (slice(None),) * at
    first = ordered[(*lead, slice(0, 1))]
    changed = not_equal(ordered[(*lead, slice(1, None))], ordered[(*lead, slice(None, -1))])
    start = concat([broadcast_to_shape(Tensor(True), first.shape), changed], at)
    place = iota(x.shape, at)
    run = subtract(place, cummax(where(start, place, 0), at).values)
    best = argmax(run, at, keepdims=True)  # the end of the first longest run
    values, indices = take_along_axis(ordered, best, at), take_along_axis(order, best, at)
    return (
        ValuesIndices(values, indices)
        if keepdims
        else ValuesIndices(squeeze(values, at), squeeze(indices, at))
    )


def ptp(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The largest less the smallest element over ``axis``.

    >>> ptp(Tensor([3, 1, 7])).item()
    6
    """
    return subtract(max(x, axis, keepdims), min(x, axis, keepdims))


# ---- averages ------------------------------------------------------------------------------------------------------


def average(
    x: TensorLike,
    axis: Axes = None,
    weights: TensorLike | None = None,
    returned: bool = False,
    keepdims: bool = False,
) -> Any:
    """The mean of x over ``axis``, each element counted by its weight; with ``returned`` also the sum of the weights.

    ``weights`` have the shape of x, or are a vector along one axis.

    >>> average(Tensor([1.0, 4.0]), weights=[2.0, 1.0]).item()
    2.0
    """
    x = float_tensor(x, "average")
    if weights is None:
        out = mean(x, axis, keepdims=keepdims)
        count = x.size // out.size if out.size else 0
        return (out, broadcast_to_shape(Tensor(float(count), x.dtype), out.shape)) if returned else out
    w = as_tensor(weights, "average", "weights")
    if w.shape != x.shape:
        axes = axes_of(axis, x.ndim, "average")
        if axis is None or w.shape != tuple(x.shape[a] for a in axes):
            raise ShapeError(
                f"average: `weights` of shape {w.shape} have neither the shape {x.shape} of x nor that of its `axis`"
            )
        w = reshape(w, tuple(d if a in axes else 1 for a, d in enumerate(x.shape)))
    kind = dt.promote(x.dtype, w.dtype) if w.dtype.is_inexact else x.dtype
    x, w = wide(cast(x, kind)), broadcast_to_shape(wide(cast(w, kind)), x.shape)
    weight = sum(w, axis, keepdims=keepdims)
    out = cast(divide(sum(multiply(x, w), axis, keepdims=keepdims), weight), kind)
    return (out, cast(weight, kind)) if returned else out


def var_mean(
    x: TensorLike, axis: Axes = None, correction: float = 0.0, keepdims: bool = False
) -> tuple[Tensor, Tensor]:
    """Variance and mean over ``axis``."""
    x = float_tensor(x, "var_mean")
    axes = axes_of(axis, x.ndim, "var_mean")
    return var(x, axes, correction, keepdims), mean(x, axes, keepdims)


def std_mean(
    x: TensorLike, axis: Axes = None, correction: float = 0.0, keepdims: bool = False
) -> tuple[Tensor, Tensor]:
    """Standard deviation and mean over ``axis``."""
    x = float_tensor(x, "std_mean")
    axes = axes_of(axis, x.ndim, "std_mean")
    return std(x, axes, correction, keepdims), mean(x, axes, keepdims)


def cov(
    m: TensorLike,
    y: TensorLike | None = None,
    rowvar: bool = True,
    bias: bool = False,
    ddof: int | None = None,
    fweights: TensorLike | None = None,
    aweights: TensorLike | None = None,
) -> Tensor:
    """Covariances of variables: rows of ``m`` (columns unless ``rowvar``), observations on the other axis.

    ``y`` gives more variables. Sums are divided by N - 1, by N when ``bias``, by N - ddof when given. ``fweights`` are how often
    each observation counts, ``aweights`` how much; a single variable gives a number.

    >>> cov(Tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])).tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    x = _all_variables(m, y, rowvar)
    return cast(_cov(wide(x), bias, ddof, fweights, aweights), x.dtype)


def _all_variables(m: TensorLike, y: TensorLike | None, rowvar: bool) -> Tensor:
    x = _variables(m, rowvar, "m")
    return x if y is None else concat([x, _variables(y, rowvar, "y")], 0)


def _cov(
    x: Tensor,
    bias: bool = False,
    ddof: int | None = None,
    fweights: TensorLike | None = None,
    aweights: TensorLike | None = None,
) -> Tensor:
    """``cov`` of variables [variables, observations] in a type whose sums do not overflow where their mean does not."""
    correction = float(ddof if ddof is not None else 0 if bias else 1)
    observations = x.shape[1]
    real = dt.float64 if x.dtype.name in ("float64", "complex128") else dt.float32
    weights: Tensor | None = None
    for given, name in ((fweights, "fweights"), (aweights, "aweights")):
        if given is None:
            continue
        w = cast(as_tensor(given, "cov", name), real)
        if w.shape != (observations,):
            raise ShapeError(f"cov: `{name}` has shape ({observations},), got {w.shape}")
        weights = w if weights is None else multiply(weights, w)
    if weights is None:
        total, factor = Tensor(float(observations), real), Tensor(float(observations) - correction, real)
        middle = mean(x, 1, keepdims=True)
    else:
        total = sum(weights)
        factor = total if not correction else subtract(total, correction)
        if aweights is not None and correction:
            squared = sum(multiply(weights, cast(as_tensor(aweights, "cov"), real)))
            factor = subtract(total, multiply(correction, divide(squared, total)))
        middle = divide(sum(multiply(x, weights), 1, keepdims=True), total)
    away = subtract(x, middle)
    weighted = away if weights is None else multiply(away, weights)
    out = divide(matmul(weighted, conj(permute_dims(away, (1, 0)))), where(greater(factor, 0), factor, 0.0))
    return out[0, 0] if out.shape == (1, 1) else out


def _variables(x: TensorLike, rowvar: bool, name: str) -> Tensor:
    x = float_tensor(x, "cov", name)
    if x.ndim > 2:
        raise ShapeError(f"cov: `{name}` has at most 2 axes, got shape {x.shape}")
    if x.ndim < 2:
        return reshape(x, (1, x.size))
    return x if rowvar else permute_dims(x, (1, 0))


def corrcoef(x: TensorLike, y: TensorLike | None = None, rowvar: bool = True) -> Tensor:
    """Correlations of variables, in [-1, 1]; arguments as for ``cov``.

    >>> corrcoef(Tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])).tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    given = _all_variables(x, y, rowvar)
    return cast(_corrcoef(_cov(wide(given))), given.dtype)


def _corrcoef(c: Tensor) -> Tensor:
    """Correlations from covariances."""
    if not c.ndim:
        return divide(c, c)
    n = c.shape[0]
    spread = sqrt(abs(reshape(c, (n * n,))[:: n + 1]))
    out = divide(divide(c, expand_dims(spread, 1)), expand_dims(spread, 0))
    return out if out.dtype.is_complex else clip(out, -1.0, 1.0)


# ---- without NaN ---------------------------------------------------------------------------------------------------


def _replaced(x: TensorLike, function: str, number: float) -> tuple[Tensor, Tensor | None]:
    """x with ``number`` for NaN, and where it was; None when the type has no NaN."""
    x = as_tensor(x, function)
    if not x.dtype.is_inexact:
        return x, None
    missing = isnan(x)
    return where(missing, number, x), missing


def nansum(x: TensorLike, axis: Axes = None, dtype: object = None, keepdims: bool = False) -> Tensor:
    """Sum over ``axis`` of the elements that are not NaN; 0 where all are.

    >>> nansum(Tensor([1.0, float("nan")])).item()
    1.0
    """
    return sum(_replaced(x, "nansum", 0)[0], axis, dtype, keepdims)


def nanprod(x: TensorLike, axis: Axes = None, dtype: object = None, keepdims: bool = False) -> Tensor:
    """Product over ``axis`` of the elements that are not NaN; 1 where all are."""
    return prod(_replaced(x, "nanprod", 1)[0], axis, dtype, keepdims)


def nancumsum(x: TensorLike, axis: int | None = None, dtype: object = None) -> Tensor:
    """Running sum in which NaN counts as 0."""
    return cumsum(_replaced(x, "nancumsum", 0)[0], axis, dtype)


def nancumprod(x: TensorLike, axis: int | None = None, dtype: object = None) -> Tensor:
    """Running product in which NaN counts as 1."""
    return cumprod(_replaced(x, "nancumprod", 1)[0], axis, dtype)


def nanmean(x: TensorLike, axis: Axes = None, dtype: object = None, keepdims: bool = False) -> Tensor:
    """Mean over ``axis`` of the elements that are not NaN; NaN where all are.

    >>> nanmean(Tensor([1.0, float("nan"), 3.0])).item()
    2.0
    """
    x = (
        float_tensor(x, "nanmean")
        if dtype is None
        else cast(as_tensor(x, "nanmean"), dtype_of(dtype, "nanmean"))
    )
    given, x = x.dtype, wide(x)
    zeroed, missing = _replaced(x, "nanmean", 0)
    return cast(divide(sum(zeroed, axis, keepdims=keepdims), _present(missing, x, axis, keepdims)), given)


def _present(missing: Tensor | None, x: Tensor, axis: Axes, keepdims: bool) -> Tensor:
    """How many elements are not NaN, in a real type of the width of x."""
    kind = x.dtype if x.dtype.is_float else dt.float64 if x.dtype is dt.complex128 else dt.float32
    if missing is None:
        missing = broadcast_to_shape(Tensor(False), x.shape)
    return cast(sum(logical_not(missing), axis, keepdims=keepdims), kind)


def nanvar(x: TensorLike, axis: Axes = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """Variance over ``axis`` of the n elements that are not NaN, divided by n - correction; NaN where that is not positive.

    >>> nanvar(Tensor([1.0, float("nan"), 3.0])).item()
    1.0
    """
    x = float_tensor(x, "nanvar")
    return _as_real(_nanvar(wide(x), axis, correction, keepdims), x)


def _as_real(spread: Tensor, x: Tensor) -> Tensor:
    """A variance in the type of x, or the real one of complex numbers."""
    return spread if x.dtype.is_complex else cast(spread, x.dtype)


def _nanvar(x: Tensor, axis: Axes, correction: float, keepdims: bool) -> Tensor:
    zeroed, missing = _replaced(x, "nanvar", 0)
    count = _present(missing, x, axis, True)
    away = subtract(zeroed, divide(sum(zeroed, axis, keepdims=True), where(equal(count, 0), 1, count)))
    size = where(isnan(x), 0, abs(away))
    degrees = subtract(_present(missing, x, axis, keepdims), correction)
    out = divide(
        sum(multiply(size, size), axis, keepdims=keepdims), where(less_equal(degrees, 0), 1, degrees)
    )
    return where(less_equal(degrees, 0), math.nan, out)


def nanstd(x: TensorLike, axis: Axes = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """Standard deviation over ``axis`` of the elements that are not NaN: the square root of ``nanvar``."""
    x = float_tensor(x, "nanstd")
    return _as_real(root(_nanvar(wide(x), axis, correction, keepdims)), x)


def _nan_extreme(
    function: str, x: TensorLike, axis: Axes, keepdims: bool, find: Callable[..., Tensor], number: float
) -> Tensor:
    filled, missing = _replaced(x, function, number)
    found = find(filled, axis, keepdims)
    return found if missing is None else where(all_of(missing, axis, keepdims), math.nan, found)


def nanmax(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Largest element over ``axis`` that is not NaN; NaN where all are.

    >>> nanmax(Tensor([1.0, float("nan")])).item()
    1.0
    """
    return _nan_extreme("nanmax", x, axis, keepdims, max, -math.inf)


def nanmin(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Smallest element over ``axis`` that is not NaN; NaN where all are."""
    return _nan_extreme("nanmin", x, axis, keepdims, min, math.inf)


def _nan_arg(
    function: str, x: TensorLike, axis: int | None, keepdims: bool, find: Callable[..., Tensor], number: float
) -> Tensor:
    filled, missing = _replaced(x, function, number)
    found = find(filled, axis, keepdims)
    if missing is None:
        return found
    # where only infinities of the wrong sign are left, the first that is no NaN is the one
    at_end = equal(filled, number)
    first = argmin(cast(missing, dt.int8), axis, keepdims)
    found = where(all_of(at_end, axis, keepdims), first, found)
    return where(all_of(missing, axis, keepdims), -1, found)


def nanargmax(x: TensorLike, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Index (int64) of the first largest element that is not NaN; -1 where all are (NumPy raises there).

    >>> nanargmax(Tensor([float("nan"), 1.0, 3.0])).item()
    2
    """
    return _nan_arg("nanargmax", x, axis, keepdims, argmax, -math.inf)


def nanargmin(x: TensorLike, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Index (int64) of the first smallest element that is not NaN; -1 where all are (NumPy raises there)."""
    return _nan_arg("nanargmin", x, axis, keepdims, argmin, math.inf)
