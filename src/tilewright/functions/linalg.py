"""Products of matrices and tensors: everything here becomes the one general contraction of the graph, ``dot``.

Transpositions are axis numbers of that operation, never copies. ``einsum`` has its own file.
"""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.functions.arguments import (
    TensorLike,
    as_tensor,
    axis_of,
    broadcast_to_shape,
    cast,
    common_shape,
    dtype_of,
    whole,
)
from tilewright.functions.elementwise import add, conj
from tilewright.functions.movement import reshape
from tilewright.tensor import DTypeError, ShapeError, Tensor, apply
from tilewright.tensor.composite import composite
from tilewright.tensor.modes import modes

__all__ = ["contract", "dot", "linear", "matmul", "outer", "tensordot", "vecdot"]


def contract(
    x1: Tensor,
    x2: Tensor,
    contracted: tuple[Sequence[int], Sequence[int]],
    batch: tuple[Sequence[int], Sequence[int]] = ((), ()),
    function: str = "matmul",
    dtype: object = None,
) -> Tensor:
    """Sum of products over the contracted axes; the result's axes are batch, free axes of x1, free axes of x2."""
    operands = _product_type(x1.dtype, x2.dtype, function)
    result = operands if dtype is None else _result_type(dtype_of(dtype, function), operands, function)
    rounded = modes.products if modes.products is not None and operands is dt.float32 else operands
    return apply(
        "dot", cast(x1, rounded), cast(x2, rounded), lhs_contract=tuple(contracted[0]), rhs_contract=tuple(contracted[1]),
        lhs_batch=tuple(batch[0]), rhs_batch=tuple(batch[1]), dtype=result,
    )  # fmt: skip


def _product_type(a: DType, b: DType, function: str) -> DType:
    dtype = dt.promote(a, b)
    if dtype.is_bool:
        raise DTypeError(f"{function}: bool tensors have no product; convert them, e.g. `x.astype(tw.int32)`")
    return dtype


def _result_type(dtype: DType, operands: DType, function: str) -> DType:
    same = dtype.kind == operands.kind or (dtype.is_integer and operands.is_integer)
    if not same or dtype.bits < operands.bits:
        raise DTypeError(
            f"{function}: `dtype` is a type of the operands' kind and at least as wide; products of {operands} do not"
            f" add up to {dtype}"
        )
    return dtype


@composite
def matmul(x1: TensorLike, x2: TensorLike, *, dtype: object = None) -> Tensor:
    """Matrix product of the last two axes; leading axes broadcast. A rank-1 operand is a row (left) or a column (right).

    [..., M, K] @ [..., K, N] -> [..., M, N]. ``dtype`` is the type of the sums and of the result, at least as wide as the
    operands': int8 products add up in int32, bfloat16 products come out in float32, without copies of the operands in that type.
    Raises ``ShapeError`` when the K differ and ``DTypeError`` for a type that does not fit.

    >>> matmul(Tensor([[1, 2], [3, 4]]), Tensor([1, 1])).tolist()
    [3, 7]
    >>> x = Tensor([[100, 100]]).astype(dt.int8)
    >>> matmul(x, x.mT, dtype=dt.int32).tolist()
    [[20000]]
    """
    a, b = as_tensor(x1, "matmul", "x1"), as_tensor(x2, "matmul", "x2")
    if not a.ndim or not b.ndim:
        raise ShapeError(
            f"matmul: shapes {a.shape} and {b.shape}: a tensor of rank 0 has no matrix product; use `*`"
        )
    inner = -2 if b.ndim > 1 else -1
    if a.shape[-1] != b.shape[inner]:
        raise ShapeError(_mismatch(a, b, inner))
    if b.ndim <= 2 or a.ndim == 1:  # no batch axes shared: one contraction
        return contract(a, b, ((a.ndim - 1,), (b.ndim + inner,)), dtype=dtype)
    lead = common_shape("matmul", [a.shape[:-2], b.shape[:-2]])
    a = broadcast_to_shape(a, (*lead, *a.shape[-2:]))
    b = broadcast_to_shape(b, (*lead, *b.shape[-2:]))
    n = len(lead)
    return contract(a, b, ((n + 1,), (n,)), (range(n), range(n)), dtype=dtype)


def _mismatch(a: Tensor, b: Tensor, inner: int) -> str:
    text = (
        f"matmul: shapes {a.shape} and {b.shape} do not multiply: axis -1 of x1 has size {a.shape[-1]},"
        f" axis {inner} of x2 has size {b.shape[inner]}"
    )
    if b.ndim > 1 and a.shape[-1] == b.shape[-1]:
        return text + "; did you mean `x1 @ x2.mT`?"
    if a.ndim > 1 and a.shape[-2] == b.shape[inner]:
        return text + "; did you mean `x1.mT @ x2`?"
    return text + "; they must be equal"


@composite
def linear(x: TensorLike, weight: TensorLike, bias: TensorLike | None = None) -> Tensor:
    """x @ weight.T + bias: [..., in] with weight [out, in] and bias [out] -> [..., out].

    >>> linear(Tensor([[1.0, 2.0]]), Tensor([[1.0, 1.0], [0.0, 2.0]]), Tensor([0.5, 0.0])).tolist()
    [[3.5, 4.0]]
    """
    x, weight = as_tensor(x, "linear"), as_tensor(weight, "linear", "weight")
    if weight.ndim != 2:
        raise ShapeError(f"linear: `weight` has shape [out, in], got {weight.shape}")
    if not x.ndim or x.shape[-1] != weight.shape[1]:
        raise ShapeError(
            f"linear: `x` of shape {x.shape} does not fit `weight` of shape {weight.shape}: the last axis of x"
            f" has {x.shape[-1] if x.ndim else 'no'} features, the weight takes {weight.shape[1]}"
        )
    out = contract(x, weight, ((x.ndim - 1,), (1,)), function="linear")
    if bias is None:
        return out
    bias = as_tensor(bias, "linear", "bias")
    if bias.shape != (weight.shape[0],):
        raise ShapeError(
            f"linear: `bias` has shape ({weight.shape[0]},) to fit `weight` of shape {weight.shape}, got {bias.shape}"
        )
    return add(out, bias)


def tensordot(x1: TensorLike, x2: TensorLike, axes: int | tuple[Sequence[int], Sequence[int]] = 2) -> Tensor:
    """Contraction over the last ``axes`` axes of x1 with the first of x2, or over the pairs of axes given."""
    a, b = as_tensor(x1, "tensordot", "x1"), as_tensor(x2, "tensordot", "x2")
    if not isinstance(axes, (tuple, list)):
        axes = whole(axes, "tensordot", "axes")
        if not 0 <= axes <= min(a.ndim, b.ndim):
            raise ShapeError(f"tensordot: `axes` {axes} is more than shapes {a.shape} and {b.shape} have")
        left, right = tuple(range(a.ndim - axes, a.ndim)), tuple(range(axes))
    else:
        left = tuple(axis_of(i, a.ndim, "tensordot", "axes[0]") for i in _listed(axes[0]))
        right = tuple(axis_of(i, b.ndim, "tensordot", "axes[1]") for i in _listed(axes[1]))
    if len(left) != len(right) or any(a.shape[i] != b.shape[j] for i, j in zip(left, right, strict=False)):
        raise ShapeError(
            f"tensordot: axes {left} of shape {a.shape} and {right} of shape {b.shape} differ in size or number"
        )
    return contract(a, b, (left, right), function="tensordot")


def _listed(x: int | Sequence[int]) -> Sequence[int]:
    return x if isinstance(x, Sequence) else (x,)


@composite
def vecdot(x1: TensorLike, x2: TensorLike, axis: int = -1) -> Tensor:
    """Inner products along ``axis`` (x1 conjugated); the other axes broadcast."""
    a, b = as_tensor(x1, "vecdot", "x1"), as_tensor(x2, "vecdot", "x2")
    rank = max(a.ndim, b.ndim)
    if not a.ndim or not b.ndim:
        raise ShapeError("vecdot: a tensor of rank 0 has no axis to sum over")
    if a.shape[axis] != b.shape[axis]:
        raise ShapeError(f"vecdot: axis {axis} has size {a.shape[axis]} in x1 and {b.shape[axis]} in x2")
    shape = common_shape("vecdot", [a.shape, b.shape])
    a, b = broadcast_to_shape(conj(a), shape), broadcast_to_shape(b, shape)
    at = axis_of(axis, rank, "vecdot")
    others = [i for i in range(rank) if i != at]
    return contract(a, b, ((at,), (at,)), (others, others), "vecdot")


def dot(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Inner product of two vectors (rank 1)."""
    a, b = as_tensor(x1, "dot", "x1"), as_tensor(x2, "dot", "x2")
    if a.ndim != 1 or a.shape != b.shape:
        raise ShapeError(
            f"dot: takes two vectors of one length, got shapes {a.shape} and {b.shape}; see `matmul`"
        )
    return contract(a, b, ((0,), (0,)), function="dot")


def outer(x1: TensorLike, x2: TensorLike) -> Tensor:
    """All products of two vectors: [M], [N] -> [M, N]."""
    a, b = as_tensor(x1, "outer", "x1"), as_tensor(x2, "outer", "x2")
    return reshape(a, (a.size, 1)) * reshape(b, (1, b.size))
