"""What the operation ``host_call`` may call: algorithms of NumPy (LAPACK, pocketfft, sorting) by name, on one page.

Each function takes arrays and static arguments and gives one array. Leading axes are a stack of independent problems, so
a new first axis on every operand gives a new first axis on the result (``searchsorted`` is the exception). Where an
algorithm has several results they are laid end to end along a last axis; ``packed`` says how, and a slice takes one out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tilewright.core.diagnostics import TilewrightError
from tilewright.graph import dense, incomplete

__all__ = ["FUNCTIONS", "UNBATCHED", "HostError", "call"]

Array = np.ndarray[Any, Any]
FUNCTIONS: dict[str, Callable[..., Any]] = {}
UNBATCHED = frozenset({"searchsorted"})  # functions whose operands have no leading axes


class HostError(TilewrightError, ValueError):
    """An algorithm has no result for these elements: a singular matrix, one that is not positive definite."""


def call(function: str, arrays: Sequence[Array], arguments: Sequence[tuple[str, Any]]) -> Array:
    """The array that a function of the table gives. Raises ``HostError`` where the algorithm fails."""
    compute, given = FUNCTIONS[function], dict(arguments)
    try:
        with np.errstate(all="ignore"):
            return np.asarray(compute(*arrays, **given))
    except np.linalg.LinAlgError as error:
        text = str(error)[:1].lower() + str(error)[1:]
        where = "" if function in UNBATCHED else _first_failure(compute, arrays, given)
        advice = next((f"; {hint}" for word, hint in _ADVICE.items() if word in text), "")
        raise HostError(f"{function}: {text}{where}{advice}") from None


_ADVICE = {
    "singular": "`linalg.lstsq` and `linalg.pinv` take such matrices too",
    "positive definite": "a multiple of the identity added to it may help",
}


def _first_failure(compute: Callable[..., Any], arrays: Sequence[Array], given: dict[str, Any]) -> str:
    """Which matrix of a stack has no result."""
    for place in np.ndindex(arrays[0].shape[:-2]):
        try:
            compute(*(x[place] for x in arrays), **given)
        except np.linalg.LinAlgError:
            return f" (matrix {list(place)} of the stack)" if place else ""
    return ""


def packed(parts: Sequence[Array], axes: Sequence[int]) -> Array:
    """Results end to end: the last ``axes[i]`` axes of part i become one, and these are joined."""
    flat = []
    for part, count in zip(parts, axes, strict=True):
        kept = part.ndim - count
        flat.append(part.reshape(*part.shape[:kept], math.prod(part.shape[kept:])))
    return np.concatenate(flat, axis=-1)


def _function(compute: Callable[..., Any]) -> Callable[..., Any]:
    FUNCTIONS[compute.__name__] = compute
    return compute


# ---- linear algebra, over the last two axes ------------------------------------------------------------------------

for _name in ("det", "inv", "solve", "eigvalsh"):
    FUNCTIONS[_name] = getattr(np.linalg, _name)


@_function
def inverse_or_inf(x: Array) -> Array:
    """Inverses, with infinities for singular matrices."""
    try:
        return np.linalg.inv(x)
    except np.linalg.LinAlgError:
        if x.ndim == 2:
            return np.full_like(x, np.inf)
        return np.stack([inverse_or_inf(each) for each in x])


@_function
def cholesky(x: Array) -> Array:
    """The lower factor."""
    return np.linalg.cholesky(x)


@_function
def slogdet(x: Array) -> Array:
    """Sign and logarithm."""
    return np.stack(tuple(np.linalg.slogdet(x)), axis=-1)


@_function
def qr(x: Array, mode: Any) -> Array:
    """Q and R."""
    return packed(tuple(np.linalg.qr(x, mode=mode)), (2, 2))


@_function
def svd(x: Array, full_matrices: bool) -> Array:
    """U, S and Vh."""
    return packed(tuple(np.linalg.svd(x, full_matrices=full_matrices)), (2, 1, 2))


@_function
def svdvals(x: Array) -> Array:
    return np.linalg.svd(x, compute_uv=False)


@_function
def eigh(x: Array) -> Array:
    """Eigenvalues and eigenvectors."""
    return packed(tuple(np.linalg.eigh(x)), (1, 2))


@_function
def eig(x: Array) -> Array:
    """Eigenvalues and eigenvectors, complex."""
    return packed(tuple(np.linalg.eig(x)), (1, 2))


@_function
def lu(x: Array) -> Array:
    """Both factors in one matrix, and the permutation of the rows."""
    factors, order = dense.lu_factor(x)
    return packed((factors, order.astype(x.dtype)), (2, 1))


FUNCTIONS["solve_triangular"] = dense.solve_triangular
FUNCTIONS["matrix_exp"] = dense.matrix_exp


# ---- special functions, elementwise --------------------------------------------------------------------------------

for _name in ("betainc", "gammainc", "gammainc_by_a", "gammaincc"):
    FUNCTIONS[_name] = getattr(incomplete, _name)


# ---- Fourier transforms --------------------------------------------------------------------------------------------


@_function
def fft(x: Array, sizes: tuple[int, ...], axes: tuple[int, ...], norm: Any, inverse: bool) -> Array:
    """Complex transforms over several axes, counted from the end."""
    return (np.fft.ifftn if inverse else np.fft.fftn)(x, s=sizes, axes=axes, norm=norm)


@_function
def rfft(x: Array, n: int, axis: int, norm: Any) -> Array:
    return np.fft.rfft(x, n=n, axis=axis, norm=norm)


@_function
def irfft(x: Array, n: int, axis: int, norm: Any) -> Array:
    return np.fft.irfft(x, n=n, axis=axis, norm=norm)


# ---- integers ------------------------------------------------------------------------------------------------------

for _name in ("gcd", "lcm"):
    FUNCTIONS[_name] = getattr(np, _name)


# ---- order ---------------------------------------------------------------------------------------------------------


@_function
def argsort(x: Array, axis: int, descending: bool) -> Array:
    """Stable, also when descending; NaN is the largest."""
    if not descending:
        return np.argsort(x, axis=axis, kind="stable").astype(np.int64)
    backwards = np.argsort(np.flip(x, axis), axis=axis, kind="stable")
    return np.asarray(x.shape[axis] - 1 - np.flip(backwards, axis), np.int64)


@_function
def searchsorted(line: Array, wanted: Array, side: Any) -> Array:
    return np.asarray(np.searchsorted(line, wanted, side=side), np.int64)


@_function
def lexsort(keys: Array) -> Array:
    """The order of the columns [..., keys, n] by the last key, equal ones by the key before, and so on."""
    return np.asarray(np.lexsort(np.moveaxis(keys, -2, 0), axis=-1), np.int64)
