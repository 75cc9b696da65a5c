"""A sum of multiples becomes multiples of sums, where that saves a pass over memory.

The gradient of a norm with respect to its mean is a sum of two terms: an incoming gradient and the distance from the mean, each
times what follows from the variance. So it has to wait for the variance, though the sums of both can be found with it. Where
the gradient's sum is wanted anyway, as a batch norm's is for its bias, the multiples of sums take its place:

    before   s = reduce_sum(g * broadcast(a) + (x - mean) * broadcast(b))
    after    s = reduce_sum(g) * a + reduce_sum(x - mean) * b

The other terms are distances from a mean over the same axes, whose sum is next to nothing: in general, terms that cancel one by
one would be added up apart. In float32 and wider.
"""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.core.shape import is_static, product
from tilewright.graph.distances import total_of
from tilewright.graph.ir import Value, make, topological
from tilewright.passes.canonicalise import broadcast_to

__all__ = ["split_linear_sums"]


def split_linear_sums(outputs: Sequence[Value]) -> list[Value]:
    """The outputs with such sums taken apart."""
    order = topological(outputs)
    sums = [v for v in order if v.op == "reduce_sum"]
    done: dict[Value, Value] = {}
    for v in order:
        inputs = tuple(done[x] for x in v.inputs)
        new = v if inputs == v.inputs else make(v.op, inputs, **dict(v.attrs))
        if v.op == "reduce_sum" and v.dtype.is_float and v.dtype.bits >= 32 and is_static(v.inputs[0].shape):
            wanted = {done[u.inputs[0]] for u in sums if u["axes"] == v["axes"] and u.inputs[0] in done}
            new = _split(new, wanted)
        done[v] = new
    return [done[v] for v in outputs]


def _split(v: Value, wanted: set[Value]) -> Value:
    """The sum, taken apart if all its terms are ``wanted`` sums or distances."""
    parts = _Parts(v)
    total = parts.sum_of(v.inputs[0])
    distances = [x for x in parts.terms if is_distance(x, v["axes"])]
    if v.inputs[0] in parts.terms or len(distances) != 1 or len(parts.terms) == 1:
        return v
    return total if all(x in wanted for x in parts.terms if x not in distances) else v


class _Parts:
    """The sum of a value over a reduction's axes, as multiples of sums of its ``terms``."""

    def __init__(self, v: Value) -> None:
        self.v, self.axes = v, v["axes"]
        self.terms: dict[Value, Value] = {}  # with the sum of each

    def sum_of(self, x: Value) -> Value:
        if x.op == "neg":
            return make("neg", [self.sum_of(x.inputs[0])])
        if x.op in ("add", "sub") and not is_distance(x, self.axes):
            return make(x.op, [self.sum_of(y) for y in x.inputs])
        if x.op == "mul":
            for y, factor in (x.inputs, x.inputs[::-1]):
                same = self.same_in_row(factor)
                if same is not None:
                    return make("mul", [self.sum_of(y), same])
        if x not in self.terms:
            self.terms[x] = make("reduce_sum", [x], axes=self.axes)
        return self.terms[x]

    def same_in_row(self, x: Value) -> Value | None:
        """What a value repeats along the axes of the sum, in the sum's shape; None if it does not."""
        if x.op != "broadcast" or x.inputs[0].op == "constant":
            return None
        y = x.inputs[0]
        lead = len(x.shape) - len(y.shape)
        kept = [k for k in range(len(x.shape)) if k not in self.axes]
        if any(k >= lead and y.shape[k - lead] != 1 for k in self.axes):
            return None
        shape = tuple(1 if k < lead else y.shape[k - lead] for k in kept)
        if product(y.shape) != product(shape):
            return None
        y = y if y.shape == shape else make("reshape", [y], shape=shape)
        return broadcast_to(y, self.v.shape)


def is_distance(x: Value, axes: tuple[int, ...]) -> bool:
    """Whether a value is an element less a mean over these axes."""
    total = total_of(x)
    return total is not None and total["axes"] == axes
