"""Attention as plain operations: what ``attention`` and ``attention_grad`` stand for.

The decomposition holds the T x S matrix of scores, which the operations themselves never do. Derivatives that have no
recipe of their own are taken through it.
"""

from __future__ import annotations

from tilewright.core import dtype as dt
from tilewright.graph.build import (
    add,
    broadcast,
    compare,
    div,
    dot,
    expand,
    mul,
    permute,
    reduce_sum,
    sub,
    unary,
    where,
)
from tilewright.graph.ir import Value, make

__all__ = ["attention", "decompose_attention"]


def attention(
    query: Value, key: Value, value: Value, scale: float, causal: bool, result: str = "mix"
) -> Value:
    """``softmax(query key^T * scale) value`` (``mix``) of [.., T, D] and twice [.., S, D], or the logarithm of the softmax's
    denominators, [.., T] (``lse``)."""
    return make("attention", (query, key, value), scale=scale, causal=causal, result=result)


def decompose_attention(v: Value) -> Value:
    """An ``attention`` or ``attention_grad`` as contractions and elementwise operations."""
    scores = _scores(v)
    if v.op == "attention":
        top = make("stop_gradient", (make("reduce_max", (scores,), axes=(scores.type.rank - 1,)),))
        weights = unary("exp", sub(scores, _column(top, scores)))
        total = reduce_sum(weights, (scores.type.rank - 1,))
        if v["result"] == "lse":
            return add(top, unary("log", total))
        return _matmul(div(weights, _column(total, scores)), v.inputs[2])
    query, key, value, g, lse, delta = v.inputs
    weights = unary("exp", sub(scores, _column(lse, scores)))
    if v["wrt"] == "v":
        return _matmul(_turned(weights), g)
    change = mul(mul(weights, sub(_matmul(g, _turned(value)), _column(delta, scores))), v["scale"])
    return _matmul(change, key) if v["wrt"] == "q" else _matmul(_turned(change), query)


def _scores(v: Value) -> Value:
    """``query key^T * scale`` with minus infinity where the key comes after the query."""
    query, key = v.inputs[:2]
    scores = mul(_matmul(query, _turned(key)), v["scale"])
    if not v["causal"]:
        return scores
    shape = scores.shape[-2:]
    row, column = (make("iota", shape=shape, axis=axis, dtype=dt.int32) for axis in (0, 1))
    seen = broadcast(compare("le", column, row), scores.shape)
    return where(seen, scores, float("-inf"))


def _matmul(a: Value, b: Value) -> Value:
    batch = range(a.type.rank - 2)
    return dot(a, b, ((a.type.rank - 1,), (b.type.rank - 2,)), (batch, batch))


def _turned(x: Value) -> Value:
    rank = x.type.rank
    return permute(x, (*range(rank - 2), rank - 1, rank - 2))


def _column(x: Value, like: Value) -> Value:
    """One number per row, repeated along the row."""
    return expand(x, (like.type.rank - 1,), like.shape)
