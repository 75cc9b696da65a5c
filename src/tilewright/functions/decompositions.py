"""Decompositions of matrices: Cholesky, QR, LU, singular values, eigenvalues.

LAPACK computes them through NumPy on the host (LU: ``graph/dense.py``), as one operation of the graph: lazy, and usable in
``tw.jit``. Derivatives, of any order, stand around it as rules that compute the decomposition again. Where vectors are not
determined (equal values, the columns beyond the smaller side) they have no derivative, and the docstrings say what is given.
Shapes: [..., M, N], leading axes are a stack of independent matrices. Half types are computed in float32.
"""

from __future__ import annotations

from typing import NamedTuple

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.functions.arguments import TensorLike, broadcast_to_shape, cast
from tilewright.functions.creation import arange, eye, tril, triu
from tilewright.functions.custom import custom_jvp, custom_vjp
from tilewright.functions.elementwise import (
    add,
    conj,
    divide,
    equal,
    multiply,
    not_equal,
    real,
    subtract,
    where,
)
from tilewright.functions.host import host_call, refuse_gradients
from tilewright.functions.indexing import take_along_axis
from tilewright.functions.linalg import matmul
from tilewright.functions.linear_algebra import diagonal
from tilewright.functions.matrices import adjoint, cut, is_half, matrices, real_type, widened
from tilewright.functions.movement import concat, expand_dims, matrix_transpose, reshape
from tilewright.functions.padding import pad
from tilewright.functions.systems import general, triangular
from tilewright.tensor import ArgumentError, Tensor

__all__ = [
    "EigResult", "EighResult", "LUFactors", "LUResult", "QRResult", "SVDResult", "cholesky", "eig", "eigh", "eigvals",
    "eigvalsh", "lu", "lu_factor", "qr", "svd", "svdvals",
]  # fmt: skip


class EigResult(NamedTuple):
    """Eigenvalues, complex [..., N] in no order, and eigenvectors of length 1 in the columns of [..., N, N]."""

    eigenvalues: Tensor
    eigenvectors: Tensor


class EighResult(NamedTuple):
    """Eigenvalues in ascending order, real [..., N], and eigenvectors in the columns of [..., N, N]."""

    eigenvalues: Tensor
    eigenvectors: Tensor


class LUFactors(NamedTuple):
    """L (below the diagonal) and U (on and above it) in one matrix, and the rows' permutation: x[permutation] = L @ U."""

    LU: Tensor
    permutation: Tensor


class LUResult(NamedTuple):
    """The permutation matrix P, L lower triangular with ones on the diagonal, U upper triangular; P @ L @ U the matrix."""

    P: Tensor
    L: Tensor
    U: Tensor


class QRResult(NamedTuple):
    """Q with orthonormal columns and R upper triangular, with Q @ R the matrix."""

    Q: Tensor
    R: Tensor


class SVDResult(NamedTuple):
    """U, the singular values S in descending order (real), and Vh, with (U * S) @ Vh the matrix."""

    U: Tensor
    S: Tensor
    Vh: Tensor


# ---- Cholesky: A^H is the conjugate transpose, g a cotangent --------------------------------------------------------


@custom_vjp
def _cholesky(x: Tensor) -> Tensor:
    return host_call("cholesky", (x,), x.dtype, x.shape)


def _cholesky_backward(x: Tensor, g: Tensor) -> tuple[Tensor]:
    """Murray, 2016: L^-H phi(L^H g) L^-1 made Hermitian, where phi takes the lower triangle and half the diagonal."""
    lower = _cholesky(x)
    product = tril(matmul(adjoint(lower), g))
    halved = subtract(product, multiply(product, multiply(eye(x.shape[-1], dtype=x.dtype), 0.5)))
    left = triangular(adjoint(lower), halved, True, False)
    both = adjoint(triangular(adjoint(lower), adjoint(left), True, False))
    return (multiply(add(both, adjoint(both)), 0.5),)


_cholesky.defvjp(lambda x: (_cholesky(x.detach()), x), _cholesky_backward)


def cholesky(x: TensorLike, upper: bool = False) -> Tensor:
    """The lower triangular L with L @ L^H = x (with ``upper``, U with U^H @ U = x) for positive definite x [..., N, N].

    Raises ``ShapeError`` when x is not square and, when the result is read, ``HostError`` when it is not positive
    definite. Only the lower triangle (with ``upper`` the upper one) is read.

    >>> cholesky(Tensor([[4.0, 0.0], [0.0, 9.0]])).tolist()
    [[2.0, 0.0], [0.0, 3.0]]
    """
    x = matrices(x, "cholesky", True)
    return adjoint(widened(_cholesky, adjoint(x))) if upper else widened(_cholesky, x)


# ---- QR ------------------------------------------------------------------------------------------------------------


def _orthogonal(x: Tensor, complete: bool) -> tuple[Tensor, Tensor]:
    *lead, m, n = x.shape
    k = m if complete else min(m, n)
    mode = "complete" if complete else "reduced"
    both = host_call("qr", (x,), x.dtype, (*lead, m * k + k * n), mode=mode)
    q, r = cut(both, [(*lead, m, k), (*lead, k, n)], (2, 2))
    return q, r


@custom_vjp
def _qr(x: Tensor) -> tuple[Tensor, Tensor]:
    return _orthogonal(x, False)


def _qr_backward(x: Tensor, cotangents: tuple[Tensor, Tensor]) -> tuple[Tensor]:
    """With M = triu(gR R^H - Q^H gQ), for as many rows as columns or more: (gQ + Q (M + M^H - diag(Re M))) R^-H.

    A wider matrix is [X Y] with R = [U V] and Y = Q V: its first columns have that rule with gQ + Y gV^H for gQ.
    """
    of_q, of_r = cotangents
    q, r = _qr(x)
    m, n = x.shape[-2:]
    if n > m:
        of_rest, of_r = of_r[..., m:], of_r[..., :m]
        of_q = add(of_q, matmul(x[..., m:], adjoint(of_rest)))
        r = r[..., :m]
    inner = triu(subtract(matmul(of_r, adjoint(r)), matmul(adjoint(q), of_q)))
    inner = add(inner, adjoint(inner))
    inner = subtract(inner, multiply(multiply(inner, eye(inner.shape[-1], dtype=x.dtype)), 0.5))
    right = add(of_q, matmul(q, inner))
    out = adjoint(triangular(r, adjoint(right), True, False))  # right @ R^-H
    return (concat([out, matmul(q, of_rest)], axis=-1) if n > m else out,)


_qr.defvjp(lambda x: (_qr(x.detach()), x), _qr_backward)


def qr(x: TensorLike, mode: str = "reduced") -> QRResult:
    """Q with orthonormal columns and upper triangular R: [..., M, N] -> [..., M, K], [..., K, N] with K = min(M, N).

    ``mode="complete"`` gives all M columns of Q. Those beyond N are any basis of what is left and have no derivative: a
    ``GradientError`` says so. Nor has a matrix whose first K columns depend on each other: the rule's triangular
    equations raise ``HostError``.

    >>> q, r = qr(Tensor([[3.0, 1.0], [4.0, 2.0]]))
    >>> abs(r[0, 0].item())
    5.0
    """
    if mode not in ("reduced", "complete"):
        raise ArgumentError(f"qr: `mode` is 'reduced' or 'complete', got {mode!r}")
    x = matrices(x, "qr")
    if is_half(x.dtype):
        return QRResult(*(cast(part, x.dtype) for part in qr(cast(x, dt.float32), mode)))
    if mode == "complete" and x.shape[-2] > x.shape[-1]:
        refuse_gradients("qr with `mode='complete'`", x)
        return QRResult(*_orthogonal(x, True))
    return QRResult(*_qr(x))


# ---- LU ------------------------------------------------------------------------------------------------------------


def _packed_lu(x: Tensor) -> tuple[Tensor, Tensor]:
    *lead, m, n = x.shape
    both = host_call("lu", (x,), x.dtype, (*lead, m * n + m))
    factors, order = cut(both, [(*lead, m, n), (*lead, m)], (2, 1))
    return factors, cast(real(order), dt.int64)


@custom_jvp
def _lu(x: Tensor) -> Tensor:
    return _packed_lu(x)[0]


def _rows(x: Tensor, order: Tensor) -> Tensor:
    """The rows of every matrix in an order of its own."""
    return take_along_axis(x, broadcast_to_shape(expand_dims(order, -1), x.shape), axis=-2)


@_lu.defjvp
def _lu_forward(primals: tuple[Tensor], tangents: tuple[Tensor]) -> tuple[Tensor, Tensor]:
    """d(L U) = dL U + L dU, where L^-1 dL is below the diagonal and dU U^-1 is not. Both factors are made square by the
    identity: the rows of L beyond U's columns, and the columns of U beyond L's rows, stand beside an identity."""
    (x,), (t,) = primals, tangents
    m, n = x.shape[-2:]
    k = min(m, n)
    both = _lu(x)
    none = [(0, 0)] * (x.ndim - 2)
    lower = add(pad(tril(both[..., :, :k], -1), [*none, (0, 0), (0, m - k)]), eye(m, dtype=x.dtype))
    corner = pad(eye(n - k, dtype=x.dtype), [(k, 0), (k, 0)])
    upper = add(pad(triu(both[..., :k, :]), [*none, (0, n - k), (0, 0)]), corner)
    inner = triangular(lower, _rows(t, _packed_lu(x.detach())[1]), False, True)
    transposed = triangular(matrix_transpose(upper), matrix_transpose(inner), False, False)
    inner = matrix_transpose(transposed)
    moved = add(matmul(lower, tril(inner, -1)), matmul(triu(inner), upper))
    return both, moved


def lu_factor(x: TensorLike) -> LUFactors:
    """L and U of [..., M, N] in one matrix [..., M, N], and the permutation of the rows [..., M] (int64); see ``lu_solve``.

    Rows are exchanged for the largest pivot. A singular matrix has factors too, with a 0 on the diagonal of U.
    """
    x = matrices(x, "lu_factor")
    wide = cast(x, dt.float32) if is_half(x.dtype) else x
    return LUFactors(cast(_lu(wide), x.dtype), _packed_lu(wide.detach())[1])


def lu(x: TensorLike) -> LUResult:
    """P @ L @ U = x: [..., M, N] -> [..., M, M], [..., M, K], [..., K, N] with K = min(M, N).

    P is a permutation and has no derivative; L and U have one wherever the first K columns of x do not depend on
    each other.

    >>> p, l, u = lu(Tensor([[1.0, 2.0], [4.0, 4.0]]))
    >>> l.tolist(), u.tolist()
    ([[1.0, 0.0], [0.25, 1.0]], [[4.0, 4.0], [0.0, 1.0]])
    """
    x = matrices(x, "lu")
    both, order = lu_factor(x)
    m, n = x.shape[-2:]
    k = min(m, n)
    lower = add(tril(both[..., :, :k], -1), eye(m, k, dtype=x.dtype))
    place = equal(expand_dims(order, -2), expand_dims(arange(m), -1))  # row order[i] of x is row i of L @ U
    return LUResult(cast(place, x.dtype), lower, triu(both[..., :k, :]))


# ---- singular values -----------------------------------------------------------------------------------------------


def _singular(x: Tensor, full: bool) -> tuple[Tensor, Tensor, Tensor]:
    *lead, m, n = x.shape
    k = min(m, n)
    rows, columns = (m, n) if full else (k, k)
    packed = host_call("svd", (x,), x.dtype, (*lead, m * rows + k + columns * n), full_matrices=full)
    u, s, vh = cut(packed, [(*lead, m, rows), (*lead, k), (*lead, columns, n)], (2, 1, 2))
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
    v, of_v = adjoint(vh), adjoint(of_vh)
    row, column = expand_dims(s, -2), expand_dims(s, -1)
    gaps = subtract(multiply(row, row), multiply(column, column))
    apart = not_equal(gaps, 0)
    factors = where(apart, divide(1, where(apart, gaps, 1)), 0)
    turned_u, turned_v = matmul(adjoint(u), of_u), matmul(vh, of_v)
    skew_u, skew_v = subtract(turned_u, adjoint(turned_u)), subtract(turned_v, adjoint(turned_v))
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
        out = add(out, matmul(u, adjoint(divide(outside, row))))
    return (out,)


_svd.defvjp(lambda x: (_svd(x.detach()), x), _svd_backward)


def svd(x: TensorLike, full_matrices: bool = True) -> SVDResult:
    """Singular value decomposition x = (U * S) @ Vh: [..., M, N] -> U [..., M, M], S [..., K], Vh [..., N, N].

    Without ``full_matrices`` U is [..., M, K] and Vh [..., K, N], with K = min(M, N). The vectors beyond K have no
    derivative: with ``full_matrices`` a ``GradientError`` says so unless M = N. Nor have those of equal singular values,
    and theirs counts as 0.
    """
    x = matrices(x, "svd")
    if is_half(x.dtype):
        return SVDResult(*(cast(part, x.dtype) for part in svd(cast(x, dt.float32), full_matrices)))
    if full_matrices and x.shape[-1] != x.shape[-2]:
        refuse_gradients("svd with `full_matrices`", x)
        return SVDResult(*_singular(x, True))
    return SVDResult(*_svd(x))


@custom_vjp
def _svdvals(x: Tensor) -> Tensor:
    *lead, m, n = x.shape
    return host_call("svdvals", (x,), real_type(x.dtype), (*lead, min(m, n)))


def _svdvals_backward(x: Tensor, g: Tensor) -> tuple[Tensor]:
    u, _, vh = _svd(x)
    return (matmul(multiply(u, expand_dims(g, -2)), vh),)


_svdvals.defvjp(lambda x: (_svdvals(x.detach()), x), _svdvals_backward)


def svdvals(x: TensorLike) -> Tensor:
    """Singular values in descending order: [..., M, N] -> [..., min(M, N)], real."""
    return widened(_svdvals, matrices(x, "svdvals"))


# ---- eigenvalues ---------------------------------------------------------------------------------------------------


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
    inner = multiply(matmul(adjoint(vectors), of_vectors), factors)
    inner = add(inner, multiply(identity, expand_dims(of_values, -1)))
    outer = matmul(matmul(vectors, inner), adjoint(vectors))
    return (multiply(add(outer, adjoint(outer)), 0.5),)


_eigh.defvjp(lambda x: (_eigh(x.detach()), x), _eigh_backward)


def eigh(x: TensorLike) -> EighResult:
    """Eigenvalues (ascending) and eigenvectors (columns) of symmetric or Hermitian matrices [..., N, N].

    Only the lower triangle is read. Vectors of equal eigenvalues have no derivative; theirs counts as 0.

    >>> eigh(Tensor([[2.0, 0.0], [0.0, 1.0]])).eigenvalues.tolist()
    [1.0, 2.0]
    """
    x = matrices(x, "eigh", True)
    if is_half(x.dtype):
        values, vectors = _eigh(cast(x, dt.float32))
        return EighResult(cast(values, x.dtype), cast(vectors, x.dtype))
    return EighResult(*_eigh(x))


def eigvalsh(x: TensorLike) -> Tensor:
    """Eigenvalues in ascending order of symmetric or Hermitian matrices: [..., N, N] -> [..., N]."""
    return eigh(x).eigenvalues


@custom_vjp
def _eig(x: Tensor) -> tuple[Tensor, Tensor]:
    n = x.shape[-1]
    both = host_call("eig", (x,), _complex_type(x.dtype), (*x.shape[:-2], n + n * n))
    return both[..., :n], reshape(both[..., n:], x.shape)


def _complex_type(dtype: DType) -> DType:
    return dt.complex128 if dtype in (dt.float64, dt.complex128) else dt.complex64


def _eig_backward(x: Tensor, cotangents: tuple[Tensor, Tensor]) -> tuple[Tensor]:
    """V^-H (diag(gw) + F * (V^H gV - V^H V diag(Re(V^H gV)))) V^H with F[i, j] = 1 / conj(w[j] - w[i]) off the diagonal.

    The subtracted part keeps the vectors at length 1; their phases are taken as they are.
    """
    of_values, of_vectors = cotangents
    values, vectors = _eig(x)
    turned = adjoint(vectors)
    gaps = conj(subtract(expand_dims(values, -2), expand_dims(values, -1)))
    apart = not_equal(gaps, 0)
    factors = where(apart, divide(1, where(apart, gaps, 1)), 0)
    inner = matmul(turned, of_vectors)
    lengths = cast(real(diagonal(inner)), inner.dtype)
    inner = subtract(inner, multiply(matmul(turned, vectors), expand_dims(lengths, -2)))
    identity = eye(x.shape[-1], dtype=values.dtype)
    inner = add(multiply(inner, factors), multiply(identity, expand_dims(of_values, -1)))
    out = general(turned, matmul(inner, turned))
    return (out if x.dtype.is_complex else real(out),)


_eig.defvjp(lambda x: (_eig(x.detach()), x), _eig_backward)


def eig(x: TensorLike) -> EigResult:
    """Eigenvalues and eigenvectors (columns, of length 1) of any square matrices [..., N, N]; always complex.

    x @ V = V * w. Vectors are determined up to a factor of absolute value 1: derivatives are right for what does not
    depend on it, and where the eigenvalues differ; those of vectors of equal eigenvalues count as 0. For a defective
    matrix, which has too few vectors, the derivative's equations are singular: a ``HostError`` or huge numbers.

    >>> w, v = eig(Tensor([[0.0, 1.0], [-1.0, 0.0]]))
    >>> sorted(w.imag.tolist())
    [-1.0, 1.0]
    """
    x = matrices(x, "eig", True)
    return EigResult(*_eig(cast(x, dt.float32) if is_half(x.dtype) else x))


def eigvals(x: TensorLike) -> Tensor:
    """Eigenvalues, in no order, of any square matrices: [..., N, N] -> complex [..., N]. See ``eig`` for derivatives."""
    return eig(x).eigenvalues
