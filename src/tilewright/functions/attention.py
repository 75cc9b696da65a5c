"""Attention and embeddings: what transformers are made of besides products and norms.

T query positions, S key positions, E features of queries and keys, D of values; leading axes are batch and heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from tilewright.core import dtype as dt
from tilewright.functions.activations import softmax
from tilewright.functions.arguments import (
    TensorLike,
    as_tensor,
    broadcast_to_shape,
    cast,
    common_shape,
    float_tensor,
)
from tilewright.functions.creation import iota
from tilewright.functions.elementwise import add, equal, less_equal, multiply, where
from tilewright.functions.linalg import matmul
from tilewright.functions.movement import matrix_transpose, repeat
from tilewright.tensor import ArgumentError, DTypeError, ShapeError, Tensor, apply
from tilewright.tensor.composite import composite

__all__ = ["embedding", "scaled_dot_product_attention"]

# Up to about these numbers of scores per head the plain operations fuse as well and pack less.
MIN_SCORES = 128 * 128
MIN_CAUSAL_SCORES = 64 * 64


@composite
def scaled_dot_product_attention(
    query: TensorLike,
    key: TensorLike,
    value: TensorLike,
    attn_mask: TensorLike | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    dropout: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """softmax(query @ key.mT * scale + mask) @ value: [..., T, E], [..., S, E], [..., S, D] -> [..., T, D].

    ``scale`` is 1 / sqrt(E) by default. ``attn_mask`` broadcasts to [..., T, S]: bool (true: attend) or added to the
    scores. ``is_causal``: position t attends to positions up to t. ``enable_gqa`` repeats the heads of key and value.
    ``dropout`` is applied to the weights.
    """
    name = "scaled_dot_product_attention"
    q, k, v = (
        float_tensor(query, name, "query"),
        float_tensor(key, name, "key"),
        float_tensor(value, name, "value"),
    )
    if min(q.ndim, k.ndim, v.ndim) < 2:
        raise ShapeError(
            f"{name}: query, key and value have at least 2 axes, got shapes {q.shape}, {k.shape}, {v.shape}"
        )
    if q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ShapeError(
            f"{name}: query {q.shape} and key {k.shape} need the same last size, key and value {v.shape} the"
            " same number of positions (axis -2)"
        )
    if enable_gqa and q.shape[-3] != k.shape[-3]:
        if q.shape[-3] % k.shape[-3]:
            raise ShapeError(
                f"{name}: {q.shape[-3]} query heads are not a multiple of {k.shape[-3]} key heads"
            )
        times = q.shape[-3] // k.shape[-3]
        k, v = repeat(k, times, -3), repeat(v, times, -3)
    factor = 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale
    if attn_mask is None and dropout is None and _is_tiled(q, k, v, is_causal):
        lead = common_shape(name, [x.shape[:-2] for x in (q, k, v)])
        q, k, v = (broadcast_to_shape(x, (*lead, *x.shape[-2:])) for x in (q, k, v))
        return apply("attention", q, k, v, scale=float(factor), causal=is_causal, result="mix")
    scores = multiply(matmul(q, matrix_transpose(k)), factor)
    if is_causal:
        if attn_mask is not None:
            raise ArgumentError(f"{name}: give `attn_mask` or `is_causal`, not both")
        shape = (q.shape[-2], k.shape[-2])
        scores = where(less_equal(iota(shape, 1), iota(shape, 0)), scores, -math.inf)
    if attn_mask is not None:
        mask = as_tensor(attn_mask, name, "attn_mask")
        scores = (
            where(mask, scores, -math.inf) if mask.dtype.is_bool else add(scores, cast(mask, scores.dtype))
        )
    weights = softmax(scores, -1)
    return matmul(weights if dropout is None else dropout(weights), v)


def _is_tiled(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> bool:
    """Whether the operation that never holds the scores takes the operands and is the faster way (measured)."""
    features = q.shape[-1]
    fits = (
        q.dtype is k.dtype is v.dtype and q.dtype in (dt.float32, dt.float64) and k.shape[-2:] == v.shape[-2:]
    )
    if not fits or not 8 <= features <= 256:
        return False
    return q.shape[-2] * k.shape[-2] >= (MIN_CAUSAL_SCORES if causal else MIN_SCORES)


def embedding(input: TensorLike, weight: TensorLike, padding_idx: int | None = None) -> Tensor:
    """Rows of ``weight`` [V, E] at integer ``input`` [...]: [..., E]. The row ``padding_idx`` gets no gradient.

    Row numbers are 0 to V - 1: a negative one does not count from the end. Another one raises ``IndexingError`` at once when it
    is known; one that is computed is found when the result is, also in ``tw.jit``, where nothing outside the table is touched.

    >>> embedding(Tensor([1, 0]), Tensor([[1.0, 2.0], [3.0, 4.0]])).tolist()
    [[3.0, 4.0], [1.0, 2.0]]
    """
    index, table = as_tensor(input, "embedding", "input"), as_tensor(weight, "embedding", "weight")
    if not index.dtype.is_integer:
        raise DTypeError(f"embedding: `input` holds row numbers (integers), got {index.dtype}")
    if table.ndim != 2:
        raise ShapeError(f"embedding: `weight` has shape [rows, features], got {table.shape}")
    if padding_idx is not None:
        if not -table.shape[0] <= padding_idx < table.shape[0]:
            raise ArgumentError(
                f"embedding: `padding_idx` {padding_idx} is not a row of a table of shape {table.shape}"
            )
        row = iota((table.shape[0], 1))
        table = where(equal(row, padding_idx % table.shape[0]), table.detach(), table)
    return apply("gather", table, index, axes=(0,))  # as it is: a negative number is no row
