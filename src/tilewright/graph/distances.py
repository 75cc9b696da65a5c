"""Distances from a mean: elements less the mean over some axes, as norms and variances have them."""

from __future__ import annotations

from tilewright.core.shape import is_static, product, static
from tilewright.graph.ir import Value

__all__ = ["total_of"]

CLOSE = 1e-6  # a factor is one over a number of elements, but for rounding


def total_of(v: Value) -> Value | None:
    """The sum over rows from which the mean follows, where ``v`` is a row's elements less their mean; None for anything else."""
    if v.op != "sub" or not is_static(v.shape):
        return None
    x, mean = v.inputs[0], _repeated(v.inputs[1])
    if mean.op != "mul":
        return None
    for total, factor in (mean.inputs, mean.inputs[::-1]):
        total, factor = _repeated(total), _repeated(factor)
        if total.op != "reduce_sum" or total.inputs[0] is not x or factor.op != "constant":
            continue
        count = product([static(x.shape)[a] for a in total["axes"]])
        if abs(factor["value"] * count - 1) < CLOSE:
            return total
    return None


def _repeated(v: Value) -> Value:
    """What a value repeats."""
    while v.op in ("broadcast", "reshape"):
        v = v.inputs[0]
    return v
