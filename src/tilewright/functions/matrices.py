"""What functions of matrices share: reading operands, adjoints, results that a host call packs together.

Shapes: [..., M, N], leading axes are a stack of independent matrices. Integers are converted to float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.functions.arguments import (
    TensorLike,
    broadcast_to_shape,
    cast,
    common_shape,
    common_type,
    float_tensor,
)
from tilewright.functions.elementwise import multiply
from tilewright.functions.movement import expand_dims, matrix_transpose, reshape
from tilewright.tensor import ShapeError, Tensor, apply

__all__ = ["adjoint", "cut", "equations", "is_half", "matrices", "real_type", "scaled", "widened"]


def matrices(x: TensorLike, function: str, square: bool = False, name: str = "x") -> Tensor:
    """A floating-point operand that is a matrix or a stack of them."""
    out = float_tensor(x, function, name)
    if out.ndim < 2:
        raise ShapeError(f"{function}: `{name}` is a matrix or a stack of them, got shape {out.shape}")
    if square and out.shape[-1] != out.shape[-2]:
        raise ShapeError(
            f"{function}: `{name}` has square matrices in its last two axes, got shape {out.shape}"
        )
    return out


def adjoint(x: Tensor) -> Tensor:
    """The conjugate transpose."""
    out = matrix_transpose(x)
    return apply("conj", out) if x.dtype.is_complex else out


def real_type(dtype: DType) -> DType:
    """The type of the absolute values of elements of ``dtype``."""
    return {dt.complex64: dt.float32, dt.complex128: dt.float64}.get(dtype, dtype)


def is_half(dtype: DType) -> bool:
    return dtype.is_float and dtype.bits == 16


def scaled(stack: Tensor, factors: Tensor) -> Tensor:
    """Every matrix of a stack times its own factor."""
    return multiply(stack, expand_dims(factors, (-2, -1)))


def widened(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``function`` with half types in float32 inside, so that its backward pass is too."""
    return cast(function(cast(x, dt.float32)), x.dtype) if is_half(x.dtype) else function(x)


def cut(packed: Tensor, shapes: Sequence[tuple[int, ...]], axes: Sequence[int]) -> list[Tensor]:
    """Results that lie end to end along the last axis, each in its own shape, of which the last ``axes[i]`` were joined."""
    out, start = [], 0
    for shape, count in zip(shapes, axes, strict=True):
        size = math.prod(shape[len(shape) - count :])
        out.append(reshape(packed[..., start : start + size], shape))
        start += size
    return out


def equations(function: str, a: Tensor, x2: TensorLike, solver: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """``solver(A, B)`` for matrices ``a`` [..., M, N] and right sides x2 [M] or [..., M, K]; leading axes broadcast."""
    b = float_tensor(x2, function, "x2")
    rows = b.shape[-2 if b.ndim > 1 else -1] if b.ndim else -1
    if rows != a.shape[-2]:
        raise ShapeError(f"{function}: shapes {a.shape} and {b.shape}: `x2` has as many rows as `x1`")
    kind = common_type(function, [a, b])
    wide = dt.float32 if is_half(kind) else kind
    column = b if b.ndim > 1 else reshape(b, (b.size, 1))
    lead = common_shape(function, [a.shape[:-2], column.shape[:-2]])
    left = broadcast_to_shape(cast(a, wide), (*lead, *a.shape[-2:]))
    right = broadcast_to_shape(cast(column, wide), (*lead, *column.shape[-2:]))
    out = cast(solver(left, right), kind)
    return out if b.ndim > 1 else reshape(out, out.shape[:-1])
