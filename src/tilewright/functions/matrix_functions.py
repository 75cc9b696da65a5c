"""Functions of square matrices as a whole: powers and the exponential. Shapes: [..., N, N], a stack of matrices."""

from __future__ import annotations

from tilewright.core.integers import plain
from tilewright.functions.arguments import TensorLike, as_tensor, broadcast_to_shape
from tilewright.functions.creation import eye, zeros
from tilewright.functions.custom import custom_vjp
from tilewright.functions.host import host_call
from tilewright.functions.linalg import matmul
from tilewright.functions.matrices import adjoint, matrices, widened
from tilewright.functions.movement import concat
from tilewright.functions.solving import inv
from tilewright.tensor import DTypeError, ShapeError, Tensor

__all__ = ["matrix_exp", "matrix_power"]


def matrix_power(x: TensorLike, n: int) -> Tensor:
    """Square matrices multiplied ``n`` times, by repeated squaring; the inverse for negative n, the identity for 0."""
    x = as_tensor(x, "matrix_power")
    n = plain(n)
    if isinstance(n, bool) or not isinstance(n, int):
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


@custom_vjp
def _matrix_exp(x: Tensor) -> Tensor:
    return host_call("matrix_exp", (x,), x.dtype, x.shape)


def _matrix_exp_backward(x: Tensor, g: Tensor) -> tuple[Tensor]:
    """The derivative at A^H in direction g, which is the corner of exp([[A^H, g], [0, A^H]]) (Najfeld & Havel, 1995)."""
    n = x.shape[-1]
    turned = adjoint(x)
    nothing = broadcast_to_shape(zeros((), dtype=x.dtype), x.shape)
    both = concat([concat([turned, g], axis=-1), concat([nothing, turned], axis=-1)], axis=-2)
    return (_matrix_exp(both)[..., :n, n:],)


_matrix_exp.defvjp(lambda x: (_matrix_exp(x.detach()), x), _matrix_exp_backward)


def matrix_exp(x: TensorLike) -> Tensor:
    """exp(x) = 1 + x + x @ x / 2 + ... of square matrices [..., N, N], by scaling and squaring on the host (Higham, 2005).

    A matrix with an infinity or NaN gives NaN. Raises ``ShapeError`` when x is not square.

    >>> matrix_exp(Tensor([[0.0, 1.0], [0.0, 0.0]])).tolist()
    [[1.0, 1.0], [0.0, 1.0]]
    """
    return widened(_matrix_exp, matrices(x, "matrix_exp", True))
