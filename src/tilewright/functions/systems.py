"""Systems of linear equations with square matrices, general or triangular, with derivatives of any order.

Computed on the host: general ones by LAPACK, triangular ones by blocks (``graph/dense.py``).
"""

from __future__ import annotations

import functools

from tilewright.functions.arguments import TensorLike
from tilewright.functions.creation import tril, triu
from tilewright.functions.custom import custom_vjp
from tilewright.functions.elementwise import negative
from tilewright.functions.host import host_call
from tilewright.functions.linalg import matmul
from tilewright.functions.matrices import adjoint, equations, matrices
from tilewright.functions.movement import matrix_transpose
from tilewright.tensor import ArgumentError, ShapeError, Tensor

__all__ = ["general", "solve", "solve_triangular", "triangular"]


@custom_vjp
def general(a: Tensor, b: Tensor) -> Tensor:
    return host_call("solve", (a, b), a.dtype, b.shape)


def _general_backward(saved: tuple[Tensor, Tensor], g: Tensor) -> tuple[Tensor, Tensor]:
    a, b = saved
    right = general(adjoint(a), g)
    return negative(matmul(right, adjoint(general(a, b)))), right


general.defvjp(lambda a, b: (general(a.detach(), b.detach()), (a, b)), _general_backward)


@functools.partial(custom_vjp, nondiff_argnums=(2, 3))
def triangular(a: Tensor, b: Tensor, upper: bool, unit: bool) -> Tensor:
    """The X with T @ X = b for a triangle T of a; one type, one stack of matrices."""
    return host_call("solve_triangular", (a, b), a.dtype, b.shape, upper=upper, unit=unit)


def _backward(upper: bool, unit: bool, saved: tuple[Tensor, Tensor], g: Tensor) -> tuple[Tensor, Tensor]:
    a, b = saved
    right = triangular(adjoint(a), g, not upper, unit)
    of_a = negative(matmul(right, adjoint(triangular(a, b, upper, unit))))
    return (triu(of_a, int(unit)) if upper else tril(of_a, -int(unit))), right


triangular.defvjp(
    lambda a, b, upper, unit: (triangular(a.detach(), b.detach(), upper, unit), (a, b)), _backward
)


def solve(x1: TensorLike, x2: TensorLike) -> Tensor:
    """The X with x1 @ X = x2: x1 [..., N, N] with x2 [N] or [..., N, K]; leading axes broadcast.

    Raises ``ShapeError`` for shapes that do not fit and, when the result is read, ``HostError`` for a singular matrix.

    >>> solve(Tensor([[2.0, 0.0], [0.0, 4.0]]), Tensor([2.0, 4.0])).tolist()
    [1.0, 1.0]
    """
    return equations("solve", matrices(x1, "solve", True, "x1"), x2, general)


def solve_triangular(
    x1: TensorLike,
    x2: TensorLike,
    *,
    upper: bool | None = None,
    left: bool = True,
    unitriangular: bool = False,
    lower: bool | None = None,
) -> Tensor:
    """The X with T @ X = x2 (X @ T = x2 unless ``left``), where T is the ``upper`` or lower triangle of x1 [..., N, N].

    Say which triangle with ``upper`` (PyTorch) or with ``lower`` (SciPy, JAX), one of them.

    x2 is [N] or [..., N, K] ([..., K, N] unless ``left``); leading axes broadcast. What x1 holds outside the triangle is
    not read; with ``unitriangular`` neither is the diagonal, which counts as 1. Raises ``ShapeError`` for shapes that do
    not fit and, when the result is read, ``HostError`` where a number on the diagonal is 0.

    >>> solve_triangular(Tensor([[2.0, 0.0], [1.0, 1.0]]), Tensor([2.0, 3.0]), upper=False).tolist()
    [1.0, 2.0]
    """
    if (upper is None) == (lower is None):
        raise ArgumentError("solve_triangular: give one of `upper` and `lower`: the triangle of `x1` to read")
    upper = not lower if upper is None else upper
    a = matrices(x1, "solve_triangular", True, "x1")
    if left:
        return equations("solve_triangular", a, x2, lambda m, b: triangular(m, b, upper, unitriangular))
    b = matrices(x2, "solve_triangular", name="x2")
    if b.shape[-1] != a.shape[-1]:
        raise ShapeError(
            f"solve_triangular: shapes {a.shape} and {b.shape}: without `left`, `x2` has as many columns as `x1`"
        )
    turned = matrix_transpose(a), matrix_transpose(b)
    out = equations("solve_triangular", *turned, lambda m, c: triangular(m, c, not upper, unitriangular))
    return matrix_transpose(out)
