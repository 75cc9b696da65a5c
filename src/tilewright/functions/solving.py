"""Inverses and determinants, equations from factors and in the least-squares sense, ranks.

LAPACK computes them through NumPy on the host, as one operation of the graph: lazy, and usable in ``tw.jit``. Derivatives,
of any order, stand around it as rules of the same operations. Shapes: [..., M, N], leading axes are a stack of independent
matrices. Integers are converted to float32; half types are computed in float32.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.functions.arguments import (
    TensorLike,
    as_tensor,
    broadcast_to_shape,
    cast,
    float_tensor,
)
from tilewright.functions.custom import custom_vjp
from tilewright.functions.decompositions import LUFactors, svd, svdvals
from tilewright.functions.elementwise import (
    abs,
    add,
    conj,
    divide,
    greater,
    imag,
    multiply,
    negative,
    real,
    square,
    subtract,
    where,
)  # fmt: skip
from tilewright.functions.host import host_call
from tilewright.functions.indexing import take_along_axis
from tilewright.functions.linalg import matmul
from tilewright.functions.matrices import adjoint, equations, is_half, matrices, real_type, scaled, widened
from tilewright.functions.movement import expand_dims, matrix_transpose
from tilewright.functions.reductions import max as max_over
from tilewright.functions.reductions import sum as sum_over
from tilewright.functions.sorting import argsort
from tilewright.functions.systems import triangular
from tilewright.tensor import ArgumentError, Tensor

__all__ = [
    "LstsqResult", "SlogdetResult", "cholesky_solve", "det", "inv", "inverse_or_inf", "lstsq", "lu_solve", "matrix_rank",
    "pinv", "slogdet",
]  # fmt: skip


class LstsqResult(NamedTuple):
    """The solution [..., N, K], sums of squared residuals [..., K], ranks int64 [...] and singular values [..., min(M, N)].

    As in NumPy, there are residuals ([..., K], else [..., 0]) only of more rows than columns; for matrices that do
    not have full rank they are those of the solution all the same.
    """

    solution: Tensor
    residuals: Tensor
    rank: Tensor
    singular_values: Tensor


class SlogdetResult(NamedTuple):
    """Sign (or phase) of the determinant and the logarithm of its absolute value."""

    sign: Tensor
    logabsdet: Tensor


# ---- rules: A^H is the conjugate transpose, g a cotangent ----------------------------------------------------------


@custom_vjp
def _inv(x: Tensor) -> Tensor:
    return host_call("inv", (x,), x.dtype, x.shape)


@custom_vjp
def inverse_or_inf(x: Tensor) -> Tensor:
    """The inverse, and infinities for a singular matrix."""
    return host_call("inverse_or_inf", (x,), x.dtype, x.shape)


def _inv_backward(x: Tensor, g: Tensor) -> tuple[Tensor]:
    turned = adjoint(_inv(x))
    return (negative(matmul(matmul(turned, g), turned)),)


_inv.defvjp(lambda x: (_inv(x.detach()), x), _inv_backward)
inverse_or_inf.defvjp(lambda x: (inverse_or_inf(x.detach()), x), _inv_backward)


@custom_vjp
def _det(x: Tensor) -> Tensor:
    return host_call("det", (x,), x.dtype, x.shape[:-2])


def _det_backward(x: Tensor, g: Tensor) -> tuple[Tensor]:
    return (scaled(adjoint(_inv(x)), multiply(g, conj(_det(x)))),)


_det.defvjp(lambda x: (_det(x.detach()), x), _det_backward)


@custom_vjp
def _slogdet(x: Tensor) -> tuple[Tensor, Tensor]:
    both = host_call("slogdet", (x,), x.dtype, (*x.shape[:-2], 2))
    return both[..., 0], real(both[..., 1])


def _slogdet_backward(x: Tensor, cotangents: tuple[Tensor, Tensor]) -> tuple[Tensor]:
    """With t = tr(A^-1 dA): d log|det A| = Re t, and d sign = sign i Im t, which is 0 for real matrices."""
    of_sign, factor = cotangents
    if x.dtype.is_complex:
        turned = imag(multiply(conj(of_sign), _slogdet(x)[0]))
        factor = subtract(factor, multiply(cast(turned, x.dtype), 1j))
    return (scaled(adjoint(_inv(x)), factor),)


_slogdet.defvjp(lambda x: (_slogdet(x.detach()), x), _slogdet_backward)


# ---- square ----------------------------------------------------------------------------------------------------------


def inv(x: TensorLike) -> Tensor:
    """Inverses of square matrices [..., N, N]. To solve equations, ``solve`` is better.

    Raises ``ShapeError`` when x is not square and, when the result is read, ``HostError`` when it is singular.
    """
    return widened(_inv, matrices(x, "inv", True))


def det(x: TensorLike) -> Tensor:
    """Determinants of square matrices: [..., N, N] -> [...].

    The derivative uses the inverse: where the matrix is singular, reading it raises ``HostError``.

    >>> round(det(Tensor([[1.0, 2.0], [3.0, 4.0]])).item(), 3)
    -2.0
    """
    return widened(_det, matrices(x, "det", True))


def slogdet(x: TensorLike) -> SlogdetResult:
    """Sign and logarithm of the absolute value of determinants, which do not overflow: [..., N, N] -> two of [...].

    The sign of a complex determinant is its phase, a number of absolute value 1. A singular matrix gives 0 and -inf.

    >>> slogdet(Tensor([[-2.0, 0.0], [0.0, 1.0]])).sign.item()
    -1.0
    """
    x = matrices(x, "slogdet", True)
    if is_half(x.dtype):
        sign, log = slogdet(cast(x, dt.float32))
        return SlogdetResult(cast(sign, x.dtype), cast(log, x.dtype))
    return SlogdetResult(*_slogdet(x))


# ---- from factors ----------------------------------------------------------------------------------------------------


def cholesky_solve(x1: TensorLike, x2: TensorLike, upper: bool = False) -> Tensor:
    """The X with A @ X = x2, where x1 is the factor ``cholesky(A, upper)`` [..., N, N]; x2 [N] or [..., N, K].

    >>> cholesky_solve(Tensor([[2.0, 0.0], [0.0, 1.0]]), Tensor([4.0, 3.0])).tolist()
    [1.0, 3.0]
    """
    factor = matrices(x1, "cholesky_solve", True, "x1")

    def solved(a: Tensor, b: Tensor) -> Tensor:
        first, last = (adjoint(a), a) if upper else (a, adjoint(a))
        out: Tensor = triangular(last, triangular(first, b, False, False), True, False)
        return out

    return equations("cholesky_solve", factor, x2, solved)


def lu_solve(factors: LUFactors, x2: TensorLike, trans: int = 0) -> Tensor:
    """The X with A @ X = x2, where ``factors`` is ``lu_factor(A)``; x2 [N] or [..., N, K].

    ``trans`` 1 solves with the transpose of A, 2 with the conjugate transpose. Raises ``HostError``, when the result is
    read, for a singular matrix.

    >>> from tilewright.functions.decompositions import lu_factor
    >>> lu_solve(lu_factor(Tensor([[0.0, 2.0], [4.0, 0.0]])), Tensor([2.0, 4.0])).tolist()
    [1.0, 1.0]
    """
    if trans not in (0, 1, 2):
        raise ArgumentError(f"lu_solve: `trans` is 0, 1 or 2, got {trans!r}")
    both, order = matrices(factors[0], "lu_solve", True, "factors[0]"), as_tensor(factors[1], "lu_solve")

    def solved(a: Tensor, b: Tensor) -> Tensor:
        if trans == 0:
            out: Tensor = triangular(a, triangular(a, _rows(b, order), False, True), True, False)
            return out
        turned = adjoint(a) if trans == 2 else matrix_transpose(a)
        sorted_rows = triangular(turned, triangular(turned, b, False, False), True, True)
        return _rows(sorted_rows, argsort(order, axis=-1))

    return equations("lu_solve", both, x2, solved)


def _rows(x: Tensor, order: Tensor) -> Tensor:
    """The rows of every matrix in its order [..., M]."""
    return take_along_axis(x, broadcast_to_shape(expand_dims(order, -1), x.shape), axis=-2)


# ---- least squares, by singular values --------------------------------------------------------------------------------


def _cutoff(rtol: TensorLike | None, shape: tuple[int, ...], dtype: DType, function: str) -> Any:
    """The relative size below which a singular value counts as 0: [..., 1] or a number."""
    if rtol is None:
        single = dtype in (dt.complex64, dt.float32) or dtype.bits == 16
        return float(max(shape[-2:], default=0) * np.finfo(np.float32 if single else np.float64).eps)
    return rtol if isinstance(rtol, (int, float)) else expand_dims(as_tensor(rtol, function, "rtol"), -1)


def _large(s: Tensor, cutoff: Any) -> Tensor:
    return greater(s, multiply(max_over(s, axis=-1, keepdims=True), cutoff))


def matrix_rank(x: TensorLike, rtol: TensorLike | None = None) -> Tensor:
    """How many singular values are larger than ``rtol`` times the largest: [..., M, N] -> int64 [...].

    ``rtol`` (a number or [...]) is max(M, N) times the step of the type from 1 when left out.

    >>> matrix_rank(Tensor([[1.0, 1.0], [1.0, 1.0]])).item()
    1
    """
    x = matrices(x, "matrix_rank")
    if 0 in x.shape[-2:]:
        return Tensor(np.zeros(x.shape[:-2], np.int64))
    large = _large(svdvals(x), _cutoff(rtol, x.shape, x.dtype, "matrix_rank"))
    return sum_over(cast(large, dt.int64), axis=-1)


def _inverses(s: Tensor, cutoff: Any) -> Tensor:
    """1 / s, and 0 for values that count as 0."""
    large = _large(s, cutoff)
    return where(large, divide(1, where(large, s, 1)), 0)


@custom_vjp
def _pinv(x: Tensor, cutoff: Any) -> Tensor:
    u, s, vh = svd(x, full_matrices=False)
    columns = multiply(adjoint(vh), expand_dims(_inverses(s, cutoff), -2))
    return cast(matmul(columns, adjoint(u)), x.dtype)


def _pinv_backward(saved: tuple[Tensor, Any], g: Tensor) -> tuple[Tensor, None]:
    """Golub & Pereyra, 1973: dP = -P dA P + P P^H dA^H (I - A P) + (I - P A) dA^H P^H P, at constant rank."""
    x, cutoff = saved
    p = _pinv(x, cutoff)
    ph, gh = adjoint(p), adjoint(g)
    outside = subtract(gh, matmul(x, matmul(p, gh)))  # (I - A P) g^H
    beside = subtract(gh, matmul(matmul(gh, p), x))  # g^H (I - P A)
    first = matmul(matmul(ph, g), ph)
    return (subtract(add(matmul(matmul(outside, p), ph), matmul(matmul(ph, p), beside)), first), None)


_pinv.defvjp(lambda x, cutoff: (_pinv(x.detach(), cutoff), (x, cutoff)), _pinv_backward)


def pinv(x: TensorLike, rtol: TensorLike | None = None) -> Tensor:
    """Moore-Penrose pseudo-inverse: [..., M, N] -> [..., N, M]; singular values up to ``rtol`` times the largest are 0.

    Its derivative is that at constant rank. ``rtol`` as in ``matrix_rank``.

    >>> pinv(Tensor([[2.0], [0.0]])).tolist()
    [[0.5, 0.0]]
    """
    x = matrices(x, "pinv")
    if 0 in x.shape:
        return Tensor(np.zeros((*x.shape[:-2], x.shape[-1], x.shape[-2]), x.dtype.numpy))
    cutoff = _cutoff(rtol, x.shape, x.dtype, "pinv")

    def computed(m: Tensor) -> Tensor:
        found: Tensor = _pinv(m, cutoff)
        return found

    return widened(computed, x)


@custom_vjp
def _least(a: Tensor, b: Tensor, cutoff: Any) -> Tensor:
    u, s, vh = svd(a, full_matrices=False)
    turned = multiply(matmul(adjoint(u), b), expand_dims(_inverses(s, cutoff), -1))
    return cast(matmul(adjoint(vh), turned), b.dtype)


def _least_backward(saved: tuple[Tensor, Tensor, Any], g: Tensor) -> tuple[Tensor, Tensor, None]:
    """From the rule of ``pinv`` P, with X = P B and the residual R = B - A X:

    gB = P^H g;  gA = -P^H g X^H + R (P P^H g)^H + P^H X (g - P A g)^H
    """
    a, b, cutoff = saved
    p, x = _pinv(a, cutoff), _least(a, b, cutoff)
    ph = adjoint(p)
    of_b = matmul(ph, g)
    residual = subtract(b, matmul(a, x))
    outside = subtract(g, matmul(p, matmul(a, g)))
    of_a = subtract(matmul(residual, adjoint(matmul(p, of_b))), matmul(of_b, adjoint(x)))
    return add(of_a, matmul(matmul(ph, x), adjoint(outside))), of_b, None


_least.defvjp(lambda a, b, cutoff: (_least(a.detach(), b.detach(), cutoff), (a, b, cutoff)), _least_backward)


def lstsq(x1: TensorLike, x2: TensorLike, rcond: TensorLike | None = None) -> LstsqResult:
    """The shortest X for which |x1 @ X - x2| is smallest: x1 [..., M, N] with x2 [M] or [..., M, K]; leading axes broadcast.

    Singular values up to ``rcond`` times the largest count as 0 (default: max(M, N) times the step of the type from 1).
    Solution, residuals and singular values have derivatives, those of the solution at constant rank. Raises ``ShapeError``
    for shapes that do not fit.

    >>> lstsq(Tensor([[1.0], [1.0]]), Tensor([1.0, 3.0])).solution.tolist()
    [2.0]
    """
    a = matrices(x1, "lstsq", name="x1")
    cutoff = _cutoff(rcond, a.shape, a.dtype, "lstsq")

    def solver(m: Tensor, b: Tensor) -> Tensor:
        if 0 in m.shape[-2:]:
            return broadcast_to_shape(
                Tensor(np.zeros((), b.dtype.numpy)), (*b.shape[:-2], m.shape[-1], b.shape[-1])
            )
        found: Tensor = _least(m, b, cutoff)
        return found

    solution = equations("lstsq", a, x2, solver)
    b = float_tensor(x2, "lstsq", "x2")
    return LstsqResult(solution, _residuals(a, b, solution), matrix_rank(a, rcond), svdvals(a))


def _residuals(a: Tensor, b: Tensor, solution: Tensor) -> Tensor:
    vector = b.ndim == 1
    x = expand_dims(solution, -1) if vector else solution
    if a.shape[-2] <= a.shape[-1]:
        return Tensor(np.zeros((*x.shape[:-2], 0), real_type(x.dtype).numpy))
    rest = abs(subtract(expand_dims(b, -1) if vector else b, matmul(a, x)))
    return sum_over(square(rest), axis=-2)
