"""How special functions read operands and compute: in double precision, rounded once to the operands' type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tilewright.core import dtype as dt
from tilewright.functions.arguments import (
    TensorLike,
    as_tensor,
    broadcast_to_shape,
    cast,
    common_shape,
    common_type,
)
from tilewright.tensor import DTypeError, Tensor

__all__ = ["chebyshev", "horner", "reals", "rounded"]


def reals(function: str, items: Sequence[TensorLike], names: Sequence[str]) -> tuple[list[Tensor], dt.DType]:
    """Real operands as float64 tensors of one shape, and the type of the result: integers give float32."""
    given = [
        x if isinstance(x, (Tensor, bool, int, float)) else as_tensor(x, function, n)
        for x, n in zip(items, names, strict=True)
    ]
    kind = common_type(function, given)
    if kind.is_complex:
        raise DTypeError(f"{function}: takes real elements, got {kind}")
    out = kind if kind.is_float else dt.float32
    tensors = [cast(x if isinstance(x, Tensor) else Tensor(float(x), dt.float64), dt.float64) for x in given]
    shape = common_shape(function, [x.shape for x in tensors])
    return [broadcast_to_shape(x, shape) for x in tensors], out


def rounded(
    function: str, names: Sequence[str], items: Sequence[TensorLike], compute: Callable[..., Any]
) -> Tensor:
    """``compute`` of float64 tensors, in the type of the operands."""
    tensors, kind = reals(function, items, names)
    out: Tensor = compute(*tensors)
    return cast(out, kind)


def horner(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """c[0] + c[1] x + c[2] x^2 + ..."""
    total = x * coefficients[-1] + coefficients[-2]
    for c in reversed(coefficients[:-2]):
        total = total * x + c
    return total


def chebyshev(t: Tensor, coefficients: Sequence[float]) -> Tensor:
    """c[0] + c[1] T_1(t) + ... for t in [-1, 1], by Clenshaw's recurrence."""
    twice = t + t
    later, total = None, twice * 0.0 + coefficients[-1]
    for c in reversed(coefficients[1:-1]):
        later, total = total, twice * total + (c if later is None else c - later)
    return t * total + (coefficients[0] if later is None else coefficients[0] - later)
