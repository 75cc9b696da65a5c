"""Linear algebra over the last two axes: solving, decompositions, norms, and what follows from them.

Decompositions and solvers are LAPACK's through NumPy on the host, as one operation of the graph: lazy, and usable in
``tw.jit``. Derivatives, of any order, stand around it as rules that compute the decomposition again; ``qr`` has none yet
and says so. Norms, diagonals, traces, cross products, powers and products are native.
Products of matrices are in ``linalg``. Shapes: [..., M, N], leading axes are a stack of independent matrices.
Integers are converted to float32; half types are computed in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.functions.arguments import (
    Axes,
    TensorLike,
    as_tensor,
    axes_of,
    axis_of,
    broadcast_to_shape,
    cast,
    common_shape,
    common_type,
    dtype_of,
    float_tensor,
)
from tilewright.functions.creation import eye, tril
from tilewright.functions.custom import custom_vjp
from tilewright.functions.elementwise import (
    abs,
    add,
    conj,
    divide,
    greater,
    multiply,
    negative,
    not_equal,
    pow,
    real,
    subtract,
    where,
)  # fmt: skip
from tilewright.functions.host import host_call, refuse_gradients
from tilewright.functions.linalg import matmul
from tilewright.functions.movement import expand_dims, matrix_transpose, reshape, roll
from tilewright.functions.reductions import max as max_over
from tilewright.functions.reductions import min as min_over
from tilewright.functions.reductions import root
from tilewright.functions.reductions import sum as sum_over
from tilewright.tensor import ArgumentError, DTypeError, ShapeError, Tensor, apply

__all__ = [
    "EighResult", "QRResult", "SVDResult", "SlogdetResult", "cholesky", "cross", "det", "diagonal", "eigh", "eigvalsh",
    "inv", "matrix_norm", "matrix_power", "matrix_rank", "pinv", "qr", "slogdet", "solve", "svd", "svdvals", "trace",
    "vector_norm",
]  # fmt: skip


class EighResult(NamedTuple):
    """Eigenvalues in ascending order, real [..., N], and eigenvectors in the columns of [..., N, N]."""

    eigenvalues: Tensor
    eigenvectors: Tensor


class QRResult(NamedTuple):
    """Q with orthonormal columns and R upper triangular, with Q @ R the matrix."""

    Q: Tensor
    R: Tensor


class SlogdetResult(NamedTuple):
    """Sign (or phase) of the determinant and the logarithm of its absolute value."""

    sign: Tensor
    logabsdet: Tensor


class SVDResult(NamedTuple):
    """U, the singular values S in descending order (real), and Vh, with (U * S) @ Vh the matrix."""

    U: Tensor
    S: Tensor
    Vh: Tensor


def _matrices(x: TensorLike, function: str, square: bool = False, name: str = "x") -> Tensor:
    out = float_tensor(x, function, name)
    if out.ndim < 2:
        raise ShapeError(f"{function}: `{name}` is a matrix or a stack of them, got shape {out.shape}")
    if square and out.shape[-1] != out.shape[-2]:
        raise ShapeError(
            f"{function}: `{name}` has square matrices in its last two axes, got shape {out.shape}"
        )
    return out


# ---- solving, on the host: A^H is the conjugate transpose, g a cotangent -----------------------------------------


def _adjoint(x: Tensor) -> Tensor:
    out = matrix_transpose(x)
    return apply("conj", out) if x.dtype.is_complex else out


def _real_type(dtype: DType) -> DType:
    return {dt.complex64: dt.float32, dt.complex128: dt.float64}.get(dtype, dtype)


def _scaled(matrices: Tensor, factors: Tensor) -> Tensor:
    """Every matrix of a stack times its own factor."""
    return multiply(matrices, expand_dims(factors, (-2, -1)))


@custom_vjp
def _inv(x: Tensor) -> Tensor:
    return host_call("inv", (x,), x.dtype, x.shape)


def _inv_backward(x: Tensor, g: Tensor) -> tuple[Tensor]:
    adjoint = _adjoint(_inv(x))
    return (negative(matmul(matmul(adjoint, g), adjoint)),)


_inv.defvjp(lambda x: (_inv(x.detach()), x), _inv_backward)


@custom_vjp
def _solve(a: Tensor, b: Tensor) -> Tensor:
    return host_call("solve", (a, b), a.dtype, b.shape)


def _solve_backward(saved: tuple[Tensor, Tensor], g: Tensor) -> tuple[Tensor, Tensor]:
    a, b = saved
    right = _solve(_adjoint(a), g)
    return negative(matmul(right, _adjoint(_solve(a, b)))), right


_solve.defvjp(lambda a, b: (_solve(a.detach(), b.detach()), (a, b)), _solve_backward)


@custom_vjp
def _det(x: Tensor) -> Tensor:
    return host_call("det", (x,), x.dtype, x.shape[:-2])


def _det_backward(x: Tensor, g: Tensor) -> tuple[Tensor]:
    return (_scaled(_adjoint(_inv(x)), multiply(g, conj(_det(x)))),)


_det.defvjp(lambda x: (_det(x.detach()), x), _det_backward)


@custom_vjp
def _logabsdet(x: Tensor) -> Tensor:
    both = host_call("slogdet", (x,), x.dtype, (*x.shape[:-2], 2))
    return real(both[..., 1])


def _logabsdet_backward(x: Tensor, g: Tensor) -> tuple[Tensor]:
    return (_scaled(_adjoint(_inv(x)), g),)


_logabsdet.defvjp(lambda x: (_logabsdet(x.detach()), x), _logabsdet_backward)


@custom_vjp
def _cholesky(x: Tensor) -> Tensor:
    return host_call("cholesky", (x,), x.dtype, x.shape)


def _cholesky_backward(x: Tensor, g: Tensor) -> tuple[Tensor]:
    """Murray, 2016: L^-H phi(L^H g) L^-1 made Hermitian, where phi takes the lower triangle and half the diagonal."""
    lower = _cholesky(x)
    product = tril(matmul(_adjoint(lower), g))
    halved = subtract(product, multiply(product, multiply(eye(x.shape[-1], dtype=x.dtype), 0.5)))
    adjoint = _adjoint(lower)
    left = _solve(adjoint, halved)
    both = _adjoint(_solve(adjoint, _adjoint(left)))
    return (multiply(add(both, _adjoint(both)), 0.5),)


_cholesky.defvjp(lambda x: (_cholesky(x.detach()), x), _cholesky_backward)


@custom_vjp
def _eigh(x: Tensor) -> tuple[Tensor, Tensor]:
    n = x.shape[-1]
    both = host_call("eigh", (x,), x.dtype, (*x.shape[:-2], n + n * n))
    return real(both[..., :n]), reshape(both[..., n:], x.shape)


def _eigh_backward(x: Tensor, cotangents: tuple[Tensor, Tensor]) -> tuple[Tensor]:
    """V (diag(gw) + F * (V^H gV)) V^H with F[i, j] = 1 / (w[j] - w[i]) off the diagonal; 0 between equal eigenvalues,
    whose vectors have no derivative of their own."""
    of_values, of_vectors = cotangents
    values, vectors = _eigh(x)
    gaps = subtract(expand_dims(values, -2), expand_dims(values, -1))
    apart = not_equal(gaps, 0)
    factors = where(apart, divide(1, where(apart, gaps, 1)), 0)
    identity = eye(x.shape[-1], dtype=values.dtype)
    inner = multiply(matmul(_adjoint(vectors), of_vectors), factors)
    inner = add(inner, multiply(identity, expand_dims(of_values, -1)))
    outer = matmul(matmul(vectors, inner), _adjoint(vectors))
    return (multiply(add(outer, _adjoint(outer)), 0.5),)


_eigh.defvjp(lambda x: (_eigh(x.detach()), x), _eigh_backward)


def inv(x: TensorLike) -> Tensor:
    """Inverses of square matrices [..., N, N]. To solve equations, ``solve`` is better.

    Raises ``ShapeError`` when x is not square and, when the result is read, ``HostError`` when it is singular.
    """
    return _typed(_inv, _matrices(x, "inv", True))


def _typed(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``function`` with half types in float32 inside, so that its backward pass is too."""
    half = x.dtype.is_float and x.dtype.bits == 16
    return cast(function(cast(x, dt.float32)), x.dtype) if half else function(x)


def solve(x1: TensorLike, x2: TensorLike) -> Tensor:
    """The X with x1 @ X = x2: x1 [..., N, N] with x2 [N] or [..., N, K]; leading axes broadcast.

    Raises ``ShapeError`` for shapes that do not fit and, when the result is read, ``HostError`` for a singular matrix.

    >>> solve(Tensor([[2.0, 0.0], [0.0, 4.0]]), Tensor([2.0, 4.0])).tolist()
    [1.0, 1.0]
    """
    a, b = _matrices(x1, "solve", True, "x1"), float_tensor(x2, "solve", "x2")
    rows = b.shape[-2 if b.ndim > 1 else -1] if b.ndim else -1
    if rows != a.shape[-1]:
        raise ShapeError(f"solve: shapes {a.shape} and {b.shape}: `x2` has as many rows as `x1`")
    kind = common_type("solve", [a, b])
    wide = dt.float32 if kind.is_float and kind.bits == 16 else kind
    column = b if b.ndim > 1 else reshape(b, (b.size, 1))
    lead = common_shape("solve", [a.shape[:-2], column.shape[:-2]])
    left = broadcast_to_shape(cast(a, wide), (*lead, *a.shape[-2:]))
    right = broadcast_to_shape(cast(column, wide), (*lead, *column.shape[-2:]))
    out = cast(_solve(left, right), kind)
    return out if b.ndim > 1 else reshape(out, out.shape[:-1])


def det(x: TensorLike) -> Tensor:
    """Determinants of square matrices: [..., N, N] -> [...]."""
    return _typed(_det, _matrices(x, "det", True))


def slogdet(x: TensorLike) -> SlogdetResult:
    """Sign and logarithm of the absolute value of determinants, which do not overflow: [..., N, N] -> two of [...].

    The sign has no derivative: for complex matrices a ``GradientError`` says so.
    """
    x = _matrices(x, "slogdet", True)
    if x.dtype.is_complex:
        refuse_gradients("slogdet", x)
    if x.dtype.is_float and x.dtype.bits == 16:
        sign, log = slogdet(cast(x, dt.float32))
        return SlogdetResult(cast(sign, x.dtype), cast(log, x.dtype))
    both = host_call("slogdet", (x,), x.dtype, (*x.shape[:-2], 2))
    return SlogdetResult(both[..., 0], _logabsdet(x))


# ---- decompositions, on the host ----------------------------------------------------------------------------------


def cholesky(x: TensorLike, upper: bool = False) -> Tensor:
    """The lower triangular L with L @ L^H = x (with ``upper``, U with U^H @ U = x) for positive definite x [..., N, N].

    Raises ``ShapeError`` when x is not square and, when the result is read, ``HostError`` when it is not positive
    definite. Only the lower triangle (with ``upper`` the upper one) is read.

    >>> cholesky(Tensor([[4.0, 0.0], [0.0, 9.0]])).tolist()
    [[2.0, 0.0], [0.0, 3.0]]
    """
    x = _matrices(x, "cholesky", True)
    return _adjoint(_typed(_cholesky, _adjoint(x))) if upper else _typed(_cholesky, x)


def _cut(packed: Tensor, shapes: Sequence[tuple[int, ...]], axes: Sequence[int]) -> list[Tensor]:
    """Results that lie end to end along the last axis, each in its own shape, of which the last ``axes[i]`` were joined."""
    out, start = [], 0
    for shape, count in zip(shapes, axes, strict=True):
        size = math.prod(shape[len(shape) - count :])
        out.append(reshape(packed[..., start : start + size], shape))
        start += size
    return out


def qr(x: TensorLike, mode: str = "reduced") -> QRResult:
    """Q with orthonormal columns and upper triangular R: [..., M, N] -> [..., M, K], [..., K, N] with K = min(M, N).

    ``mode="complete"`` gives all M columns of Q. It has no derivative yet: a ``GradientError`` says so.
    """
    if mode not in ("reduced", "complete"):
        raise ArgumentError(f"qr: `mode` is 'reduced' or 'complete', got {mode!r}")
    x = _matrices(x, "qr")
    refuse_gradients("qr", x)
    *lead, m, n = x.shape
    k = min(m, n) if mode == "reduced" else m
    both = host_call("qr", (x,), x.dtype, (*lead, m * k + k * n), mode=mode)
    q, r = _cut(both, [(*lead, m, k), (*lead, k, n)], (2, 2))
    return QRResult(q, r)


def _singular(x: Tensor, full: bool) -> tuple[Tensor, Tensor, Tensor]:
    *lead, m, n = x.shape
    k = min(m, n)
    rows, columns = (m, n) if full else (k, k)
    packed = host_call("svd", (x,), x.dtype, (*lead, m * rows + k + columns * n), full_matrices=full)
    u, s, vh = _cut(packed, [(*lead, m, rows), (*lead, k), (*lead, columns, n)], (2, 1, 2))
    return u, real(s), vh


@custom_vjp
def _svd(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _singular(x, False)


def _svd_backward(x: Tensor, cotangents: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor]:
    """With P = U^H gU, Q = V^H gV and E[i, j] = s[j]^2 - s[i]^2, the part in the spaces of U and V is

        U (((P - P^H) / E) S + S ((Q - Q^H) / E) + diag(gS + diag(P - P^H) / 2S)) V^H

    where 1 / E is 0 on the diagonal and between equal values; besides it, what gU and gV have outside these spaces.
    """
    of_u, of_s, of_vh = cotangents
    u, s, vh = _svd(x)
    v, of_v = _adjoint(vh), _adjoint(of_vh)
    row, column = expand_dims(s, -2), expand_dims(s, -1)
    gaps = subtract(multiply(row, row), multiply(column, column))
    apart = not_equal(gaps, 0)
    factors = where(apart, divide(1, where(apart, gaps, 1)), 0)
    turned_u, turned_v = matmul(_adjoint(u), of_u), matmul(vh, of_v)
    skew_u, skew_v = subtract(turned_u, _adjoint(turned_u)), subtract(turned_v, _adjoint(turned_v))
    inner = add(multiply(multiply(skew_u, factors), row), multiply(multiply(skew_v, factors), column))
    ends = cast(of_s, x.dtype)
    if x.dtype.is_complex:
        ends = add(ends, divide(diagonal(skew_u), multiply(s, 2)))
    inner = add(inner, multiply(eye(s.shape[-1], dtype=x.dtype), expand_dims(ends, -1)))
    out = matmul(matmul(u, inner), vh)
    if x.shape[-2] > s.shape[-1]:
        outside = subtract(of_u, matmul(u, turned_u))
        out = add(out, matmul(divide(outside, row), vh))
    if x.shape[-1] > s.shape[-1]:
        outside = subtract(of_v, matmul(v, turned_v))
        out = add(out, matmul(u, _adjoint(divide(outside, row))))
    return (out,)


_svd.defvjp(lambda x: (_svd(x.detach()), x), _svd_backward)


def svd(x: TensorLike, full_matrices: bool = True) -> SVDResult:
    """Singular value decomposition x = (U * S) @ Vh: [..., M, N] -> U [..., M, M], S [..., K], Vh [..., N, N].

    Without ``full_matrices`` U is [..., M, K] and Vh [..., K, N], with K = min(M, N). The vectors beyond K have no
    derivative: with ``full_matrices`` a ``GradientError`` says so unless M = N. Nor have those of equal singular values,
    and theirs counts as 0.
    """
    x = _matrices(x, "svd")
    if x.dtype.is_float and x.dtype.bits == 16:
        return SVDResult(*(cast(part, x.dtype) for part in svd(cast(x, dt.float32), full_matrices)))
    if full_matrices and x.shape[-1] != x.shape[-2]:
        refuse_gradients("svd with `full_matrices`", x)
        return SVDResult(*_singular(x, True))
    return SVDResult(*_svd(x))


@custom_vjp
def _svdvals(x: Tensor) -> Tensor:
    *lead, m, n = x.shape
    return host_call("svdvals", (x,), _real_type(x.dtype), (*lead, min(m, n)))


def _svdvals_backward(x: Tensor, g: Tensor) -> tuple[Tensor]:
    u, _, vh = _svd(x)
    return (matmul(multiply(u, expand_dims(g, -2)), vh),)


_svdvals.defvjp(lambda x: (_svdvals(x.detach()), x), _svdvals_backward)


def svdvals(x: TensorLike) -> Tensor:
    """Singular values in descending order: [..., M, N] -> [..., min(M, N)], real."""
    return _typed(_svdvals, _matrices(x, "svdvals"))


def eigh(x: TensorLike) -> EighResult:
    """Eigenvalues (ascending) and eigenvectors (columns) of symmetric or Hermitian matrices [..., N, N].

    Only the lower triangle is read. Vectors of equal eigenvalues have no derivative; theirs counts as 0.

    >>> eigh(Tensor([[2.0, 0.0], [0.0, 1.0]])).eigenvalues.tolist()
    [1.0, 2.0]
    """
    x = _matrices(x, "eigh", True)
    if x.dtype.is_float and x.dtype.bits == 16:
        values, vectors = _eigh(cast(x, dt.float32))
        return EighResult(cast(values, x.dtype), cast(vectors, x.dtype))
    return EighResult(*_eigh(x))


def eigvalsh(x: TensorLike) -> Tensor:
    """Eigenvalues in ascending order of symmetric or Hermitian matrices: [..., N, N] -> [..., N]."""
    return eigh(x).eigenvalues


# ---- from singular values -----------------------------------------------------------------------------------------


def _cutoff(rtol: TensorLike | None, shape: tuple[int, ...], dtype: DType, function: str) -> Any:
    """The relative size below which a singular value counts as 0: [..., 1] or a number."""
    if rtol is None:
        single = dtype in (dt.complex64, dt.float32) or dtype.bits == 16
        return float(max(shape[-2:], default=0) * np.finfo(np.float32 if single else np.float64).eps)
    return rtol if isinstance(rtol, (int, float)) else expand_dims(as_tensor(rtol, function, "rtol"), -1)


def matrix_rank(x: TensorLike, rtol: TensorLike | None = None) -> Tensor:
    """How many singular values are larger than ``rtol`` times the largest: [..., M, N] -> int64 [...].

    ``rtol`` (a number or [...]) is max(M, N) times the step of the type from 1 when left out.
    """
    x = _matrices(x, "matrix_rank")
    if 0 in x.shape[-2:]:
        return Tensor(np.zeros(x.shape[:-2], np.int64))
    values = svdvals(x)
    limit = multiply(max_over(values, axis=-1, keepdims=True), _cutoff(rtol, x.shape, x.dtype, "matrix_rank"))
    return sum_over(cast(greater(values, limit), dt.int64), axis=-1)


def pinv(x: TensorLike, rtol: TensorLike | None = None) -> Tensor:
    """Moore-Penrose pseudo-inverse: [..., M, N] -> [..., N, M]; singular values up to ``rtol`` times the largest are 0."""
    x = _matrices(x, "pinv")
    if 0 in x.shape:
        return Tensor(np.zeros((*x.shape[:-2], x.shape[-1], x.shape[-2]), x.dtype.numpy))
    u, s, vh = svd(x, full_matrices=False)
    limit = multiply(max_over(s, axis=-1, keepdims=True), _cutoff(rtol, x.shape, x.dtype, "pinv"))
    large = greater(s, limit)
    inverse = where(large, divide(1, where(large, s, 1)), 0)
    columns = multiply(_adjoint(vh), expand_dims(inverse, -2))
    return cast(matmul(columns, _adjoint(u)), x.dtype)


# ---- native -------------------------------------------------------------------------------------------------------


def matrix_power(x: TensorLike, n: int) -> Tensor:
    """Square matrices multiplied ``n`` times, by repeated squaring; the inverse for negative n, the identity for 0."""
    x = as_tensor(x, "matrix_power")
    if not isinstance(n, int):
        raise DTypeError(f"matrix_power: `n` is an integer, got {type(n).__name__}")
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise ShapeError(f"matrix_power: `x` has square matrices in its last two axes, got shape {x.shape}")
    if n == 0:
        return broadcast_to_shape(eye(x.shape[-1], dtype=x.dtype), x.shape)
    base, n = (inv(x), -n) if n < 0 else (x, n)
    result: Tensor | None = None
    while n:
        if n & 1:
            result = base if result is None else matmul(result, base)
        n >>= 1
        if n:
            base = matmul(base, base)
    assert result is not None
    return result.clone() if result is x else result


def diagonal(x: TensorLike, offset: int = 0) -> Tensor:
    """The diagonals ``offset`` above the main one of the last two axes: [..., M, N] -> [..., K].

    >>> diagonal(Tensor([[1, 2], [3, 4]])).tolist()
    [1, 4]
    """
    x = as_tensor(x, "diagonal")
    if x.ndim < 2:
        raise ShapeError(f"diagonal: `x` is a matrix or a stack of them, got shape {x.shape}")
    *lead, rows, columns = x.shape
    first = offset if offset >= 0 else -offset * columns
    count = max(0, min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns))
    flat = reshape(x, (*lead, rows * columns))
    start = (*(0 for _ in lead), first if count else 0)
    stop = (*lead, first + (count - 1) * (columns + 1) + 1 if count else 0)
    return apply("slice", flat, start=start, stop=stop, step=(*(1 for _ in lead), columns + 1))


def trace(x: TensorLike, offset: int = 0, dtype: Any = None) -> Tensor:
    """The sums of the diagonals of the last two axes: [..., M, N] -> [...]. Integers are summed in 64 bits."""
    return sum_over(diagonal(x, offset), axis=-1, dtype=None if dtype is None else dtype_of(dtype, "trace"))


def cross(x1: TensorLike, x2: TensorLike, axis: int = -1) -> Tensor:
    """Cross products of vectors with 3 components along ``axis`` (counted from the end when negative); others broadcast.

    >>> cross(Tensor([1, 0, 0]), Tensor([0, 1, 0])).tolist()
    [0, 0, 1]
    """
    a, b = as_tensor(x1, "cross", "x1"), as_tensor(x2, "cross", "x2")
    left, right = axis_of(axis, a.ndim, "cross"), axis_of(axis, b.ndim, "cross")
    if a.shape[left] != 3 or b.shape[right] != 3:
        raise ShapeError(f"cross: shapes {a.shape} and {b.shape}: axis {axis} of both has size 3")
    shape = common_shape("cross", [a.shape, b.shape])
    a, b = broadcast_to_shape(a, shape), broadcast_to_shape(b, shape)
    at = axis_of(axis, len(shape), "cross")
    ahead, behind = -1, -2  # component i takes i + 1 and i + 2
    first = multiply(roll(a, ahead, at), roll(b, behind, at))
    return subtract(first, multiply(roll(a, behind, at), roll(b, ahead, at)))


# ---- norms --------------------------------------------------------------------------------------------------------


def vector_norm(x: TensorLike, axis: Axes = None, keepdims: bool = False, ord: float = 2) -> Tensor:
    """Norms of vectors along ``axis`` (of all elements when None); real.

    ``ord`` p gives (sum |x|^p)^(1/p), inf the largest and -inf the smallest |x|, 0 the number of elements that are not 0.

    >>> vector_norm(Tensor([3.0, 4.0])).item()
    5.0
    """
    x = float_tensor(x, "vector_norm")
    axes = axes_of(axis, x.ndim, "vector_norm")
    size = abs(x)
    if ord == math.inf:
        if any(x.shape[a] == 0 for a in axes):  # over nothing: the smallest size there is
            return sum_over(size, axes, keepdims=keepdims)
        return max_over(size, axes, keepdims) if axes else size
    if ord == -math.inf:
        return min_over(size, axes, keepdims) if axes else size
    if ord == 0:
        return sum_over(cast(not_equal(size, 0), size.dtype), axes, keepdims=keepdims)
    if ord == 1:
        return sum_over(size, axes, keepdims=keepdims)
    if ord == 2:
        return _euclidean(size, axes, keepdims)
    return pow(sum_over(pow(size, float(ord)), axes, keepdims=keepdims), 1.0 / ord)


def _euclidean(size: Tensor, axes: tuple[int, ...], keepdims: bool) -> Tensor:
    return root(sum_over(multiply(size, size), axes, keepdims=keepdims))


def matrix_norm(x: TensorLike, keepdims: bool = False, ord: float | str = "fro") -> Tensor:
    """Norms of the matrices in the last two axes: [..., M, N] -> [...]; real.

    ``ord``: "fro" the root of the sum of squares, "nuc" the sum of the singular values, 1 and -1 the largest and smallest
    column sum of |x|, inf and -inf row sum, 2 and -2 the largest and smallest singular value.
    """
    x = _matrices(x, "matrix_norm")
    if ord == "fro":
        return _euclidean(abs(x), (x.ndim - 2, x.ndim - 1), keepdims)
    if ord in (1, -1, math.inf, -math.inf):
        summed = -2 if ord in (1, -1) else -1
        sums = sum_over(abs(x), summed, keepdims=True)
        out = (max_over if ord > 0 else min_over)(sums, -3 - summed, keepdims=True)
    elif ord in (2, -2, "nuc"):
        values = expand_dims(svdvals(x), -1)
        over: Any = {2: max_over, -2: min_over, "nuc": sum_over}[ord]
        out = over(values, -2, keepdims=True)
    else:
        raise ArgumentError(f"matrix_norm: `ord` is 'fro', 'nuc', 1, -1, 2, -2, inf or -inf, got {ord!r}")
    return out if keepdims else reshape(out, x.shape[:-2])
