"""Batching: one graph for many examples, the rule of every operation, and the transform over a graph.

``RULES`` maps an operation to its rule ``rule(value, operands, size) -> result``. ``value`` is the operation on one
example; ``operands`` holds, for each of its operands, a pair of the value to use and whether it is *mapped*: then
it has a new first axis of ``size`` examples, else it is the same for all. At least one is mapped, and the result is
the operation's, mapped. Rules stay one operation on larger operands: a contraction gains a batch or a free axis, a
convolution's examples become images, filters or groups, an index becomes a pair of indices.

Letters: B examples, ``x`` operands, N images, C channels, O filters, G groups.

This file knows nothing of tensors or traces, nor of derivatives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tilewright.autodiff import scan, switch
from tilewright.core import dtype as dt
from tilewright.core.scalar import SCALAR_OPS
from tilewright.core.shape import Shape, product, static
from tilewright.graph.build import broadcast, full, pad, permute, reduce_sum, reshape, where
from tilewright.graph.host import UNBATCHED
from tilewright.graph.ir import OPS, Value, constant, input_value, make, topological

__all__ = ["NOT_MAPPED", "RULES", "BatchedRule", "batch", "spread_over"]

Operands = Sequence[tuple[Value, bool]]
Rule = Callable[[Value, Operands, int], Value]

RULES: dict[str, Rule] = {}
NOT_MAPPED: dict[str, str] = dict.fromkeys(("input", "constant", "iota"), "a leaf has no operands")


def batch(outputs: Sequence[Value], examples: Mapping[Value, Value], size: int) -> list[Value | None]:
    """The outputs for ``size`` examples at once, each with a new first axis (``None``: the same for all examples).

    ``examples`` maps the values that differ between examples (leaves or interior values, with the type of one
    example) to values with all examples along a new first axis.

    >>> x, xs = input_value(dt.float32, (3,)), input_value(dt.float32, (8, 3))
    >>> (ys,) = batch([make("reduce_sum", (x,), axes=(0,))], {x: xs}, 8)
    >>> ys.type
    float32[8]
    """
    for example, mapped in examples.items():
        if mapped.type.dtype is not example.dtype or mapped.shape != (size, *example.shape):
            raise ValueError(f"{size} examples of {example.type} are not a {mapped.type}")
    mapped_of: dict[Value, Value] = dict(examples)
    for value in topological(outputs, stop=examples.__contains__):
        if value in mapped_of or not any(v in mapped_of for v in value.inputs):
            continue
        operands = [(mapped_of.get(v, v), v in mapped_of) for v in value.inputs]
        mapped_of[value] = RULES[value.op](value, operands, size)
    return [mapped_of.get(v) for v in outputs]


def spread_over(x: Value, size: int) -> Value:
    """The same value for every one of ``size`` examples."""
    return broadcast(x, (size, *x.shape))


def _mapped(operand: tuple[Value, bool], size: int) -> Value:
    x, mapped = operand
    return x if mapped else spread_over(x, size)


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        for name in names:
            RULES[name] = rule
        return rule

    return register


# ---- one place (or head) at a time: nothing changes but the shape ------------------------------------------------------------


@_rule(*SCALAR_OPS, "cast", "bitcast", "stop_gradient", "attention", "attention_grad")
def _elementwise(y: Value, operands: Operands, size: int) -> Value:
    return make(y.op, [_mapped(x, size) for x in operands], **dict(y.attrs))


@_rule("mark")
def _mark(y: Value, operands: Operands, size: int) -> Value:
    return operands[0][0]  # a mark names one variable; the variable of all examples is another one


@_rule("barrier")
def _barrier(y: Value, operands: Operands, size: int) -> Value:
    return make("barrier", (_mapped(operands[0], size), *(x for x, _ in operands[1:])))


# ---- movement and reductions: axes move up by one ------------------------------------------------------------------


def _up(axes: Sequence[int]) -> tuple[int, ...]:
    return tuple(a + 1 for a in axes)


@_rule(
    "flip", "window", "fold", "reduce_sum", "reduce_prod", "reduce_max", "reduce_min", "argmax", "argmin", "cumsum"
)  # fmt: skip
def _axes_up(y: Value, operands: Operands, size: int) -> Value:
    attrs: dict[str, Any] = dict(y.attrs)
    if "axes" in attrs:
        attrs["axes"] = _up(attrs["axes"])
    else:
        attrs["axis"] += 1
    return make(y.op, (operands[0][0],), **attrs)


@_rule("reshape")
def _reshape(y: Value, operands: Operands, size: int) -> Value:
    return reshape(operands[0][0], (size, *y.shape))


@_rule("permute")
def _permute(y: Value, operands: Operands, size: int) -> Value:
    return permute(operands[0][0], (0, *_up(y["axes"])))


@_rule("broadcast")
def _broadcast(y: Value, operands: Operands, size: int) -> Value:
    x = operands[0][0]
    lead = y.type.rank - (x.type.rank - 1)
    return broadcast(reshape(x, (size, *[1] * lead, *x.shape[1:])), (size, *y.shape))


@_rule("slice")
def _slice(y: Value, operands: Operands, size: int) -> Value:
    return make(
        "slice", (operands[0][0],), start=(0, *y["start"]), stop=(size, *y["stop"]), step=(1, *y["step"])
    )


@_rule("pad")
def _pad(y: Value, operands: Operands, size: int) -> Value:
    (x, fill), (low, high, interior) = operands, (y["low"], y["high"], y["interior"])
    widths = ((0, *low), (0, *high), (0, *interior))
    if not fill[1]:
        return pad(x[0], *widths, fill[0])
    # Every example has a filling of its own: it goes where a mask is padded.
    wide = pad(_mapped(x, size), *widths)
    inside = full(False, dt.bool_, y.inputs[0].shape)
    around = pad(inside, low, high, interior, constant(True, dt.bool_))
    own = reshape(fill[0], (size, *[1] * y.type.rank))
    return where(around, broadcast(own, wide.shape), wide)


@_rule("concat")
def _concat(y: Value, operands: Operands, size: int) -> Value:
    return make("concat", [_mapped(x, size) for x in operands], axis=y["axis"] + 1)


# ---- indexed access ----------------------------------------------------------------------------------------------


def _example_numbers(size: int, places: Shape) -> Value:
    """The number of the example at every place: an index of its own axis."""
    return make("iota", shape=(size, *places), axis=0, dtype=dt.int64)


def _pairs(indices: Operands, size: int) -> list[Value]:
    """Indices with the example's number in front, for an operand whose first axis is the examples'."""
    every = [_mapped(i, size) for i in indices]
    return [_example_numbers(size, every[0].shape[1:]), *every]


@_rule("gather")
def _gather(y: Value, operands: Operands, size: int) -> Value:
    (x, mapped), *indices = operands
    if not any(m for _, m in indices):  # out [places..., B, rest...]
        out = make("gather", (x, *(i for i, _ in indices)), axes=_up(y["axes"]))
        return _to_front(out, indices[0][0].type.rank)
    if not mapped:
        return make("gather", (x, *(_mapped(i, size) for i in indices)), axes=y["axes"])
    return make("gather", (x, *_pairs(indices, size)), axes=(0, *_up(y["axes"])))


@_rule("scatter")
def _scatter(y: Value, operands: Operands, size: int) -> Value:
    x, updates, *indices = operands
    into, values = _mapped(x, size), _mapped(updates, size)
    if any(m for _, m in indices):
        operands_ = (into, values, *_pairs(indices, size))
        return make("scatter", operands_, axes=(0, *_up(y["axes"])), mode=y["mode"])
    places = indices[0][0].type.rank  # the updates of an operand [B, ...]: [places..., B, rest...]
    order = (*range(1, places + 1), 0, *range(places + 1, values.type.rank))
    operands_ = (into, permute(values, order), *(i for i, _ in indices))
    return make("scatter", operands_, axes=_up(y["axes"]), mode=y["mode"])


def _to_front(x: Value, axis: int) -> Value:
    return permute(x, (axis, *(a for a in range(x.type.rank) if a != axis)))


# ---- contractions ------------------------------------------------------------------------------------------------


@_rule("dot")
def _dot(y: Value, operands: Operands, size: int) -> Value:
    """Two mapped operands share a batch axis; a single one has the examples as a free axis, which moves to the front."""
    (lhs, left), (rhs, right) = operands
    attrs: dict[str, Any] = dict(y.attrs)
    if left:
        attrs.update(lhs_contract=_up(y["lhs_contract"]), lhs_batch=_up(y["lhs_batch"]))
    if right:
        attrs.update(rhs_contract=_up(y["rhs_contract"]), rhs_batch=_up(y["rhs_batch"]))
    if left and right:
        attrs.update(lhs_batch=(0, *attrs["lhs_batch"]), rhs_batch=(0, *attrs["rhs_batch"]))
        return make("dot", (lhs, rhs), **attrs)
    out = make("dot", (lhs, rhs), **attrs)
    batch, contract = len(y["lhs_batch"]), len(y["lhs_contract"])
    return _to_front(out, batch if left else batch + lhs.type.rank - batch - contract)


@_rule("conv")
def _conv(y: Value, operands: Operands, size: int) -> Value:
    (image, left), (kernel, right) = operands
    attrs: dict[str, Any] = dict(y.attrs)
    groups: int = y["groups"]
    if not right:  # [B, N, C, s...] are B * N images
        images = image.shape[1]
        out = make("conv", (_merged(image, 0), kernel), **attrs)
        return reshape(out, (size, images, *out.shape[1:]))
    if left:  # every example is groups of its own: [N, B * C, s...] with [B * O, C / G, k...]
        channels = _merged(permute(image, (1, 0, *range(2, image.type.rank))), 1)
        out = make("conv", (channels, _merged(kernel, 0)), **{**attrs, "groups": groups * size})
        out = reshape(out, (out.shape[0], size, *y.shape[1:]))
    else:  # the same images under B * O filters; those of one group stay together: [G, B, O / G, ...]
        (filters,) = static(y.inputs[1].shape[:1])
        split = reshape(kernel, (size, groups, filters // groups, *kernel.shape[2:]))
        split = permute(split, (1, 0, *range(2, split.type.rank)))
        out = make("conv", (image, reshape(split, (size * filters, *kernel.shape[2:]))), **attrs)
        out = reshape(out, (out.shape[0], groups, size, filters // groups, *out.shape[2:]))
        out = permute(out, (0, 2, 1, *range(3, out.type.rank)))
        out = reshape(out, (out.shape[0], size, *y.shape[1:]))
    return permute(out, (1, 0, *range(2, out.type.rank)))


def _merged(x: Value, axis: int) -> Value:
    """Axes ``axis`` and ``axis + 1`` as one."""
    return reshape(x, (*x.shape[:axis], product(static(x.shape[axis : axis + 2])), *x.shape[axis + 2 :]))


# ---- random bits -------------------------------------------------------------------------------------------------


@_rule("random_bits")
def _random_bits(y: Value, operands: Operands, size: int) -> Value:
    """Every example has a key of its own, and gets the bits it would get alone."""
    return make("random_bits", [_mapped(x, size) for x in operands], **dict(y.attrs))


# ---- calls with rules of their own -----------------------------------------------------------------------------


class BatchedRule:
    """The derivative rule of a call on many examples: the rule of one, batched.

    ``mapped`` says which of the call's operands differ between examples; the others collect the sum of the
    examples' cotangents.
    """

    reads_graph = False

    def __init__(
        self,
        rule: Any,
        outputs: Sequence[Value],
        operands: Sequence[Value],
        mapped: Sequence[bool],
        size: int,
    ) -> None:
        self.rule = rule
        self.outputs = tuple(v.type for v in outputs)
        self.operands = tuple(v.type for v in operands)
        self.mapped = tuple(mapped)
        self.size = size
        self._key = (rule, self.outputs, self.operands, self.mapped, size)

    def __repr__(self) -> str:
        return f"{self.rule}*{self.size}"

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BatchedRule) and self._key == other._key

    def _one(
        self, values: Sequence[Value], types: Sequence[Any], mapped: Sequence[bool]
    ) -> tuple[list[Value], dict[Value, Value]]:
        """Stand-ins for one example, and what they stand for."""
        ones, examples = [], {}
        for value, type, different in zip(values, types, mapped, strict=True):
            one = input_value(type.dtype, type.shape) if different else value
            if different:
                examples[one] = value
            ones.append(one)
        return ones, examples

    def vjp(
        self, outputs: Sequence[Value], operands: Sequence[Value], cotangents: Sequence[Value]
    ) -> list[Value | None]:
        results, examples = self._one(outputs, self.outputs, [True] * len(outputs))
        given, more = self._one(operands, self.operands, self.mapped)
        seeds, last = self._one(cotangents, self.outputs, [True] * len(outputs))
        found = self.rule.vjp(results, given, seeds)
        mapped = iter(batch([v for v in found if v is not None], {**examples, **more, **last}, self.size))
        out: list[Value | None] = []
        for one, different in zip(found, self.mapped, strict=True):
            if one is None:
                out.append(None)
                continue
            every = next(mapped)
            every = spread_over(one, self.size) if every is None else every
            out.append(every if different else reduce_sum(every, (0,)))
        return out

    def jvp(
        self, outputs: Sequence[Value], operands: Sequence[Value], tangents: Sequence[Value | None]
    ) -> list[Value | None]:
        results, examples = self._one(outputs, self.outputs, [True] * len(outputs))
        given, more = self._one(operands, self.operands, self.mapped)
        moves: list[Value | None] = []
        for type, different, tangent in zip(self.operands, self.mapped, tangents, strict=True):
            if tangent is None or not different:
                moves.append(tangent)
            else:
                moves.append(input_value(type.dtype, type.shape))
                examples[moves[-1]] = tangent  # type: ignore[index]
        found = self.rule.jvp(results, given, moves)
        mapped = iter(batch([v for v in found if v is not None], {**examples, **more}, self.size))
        out: list[Value | None] = []
        for one in found:
            every = None if one is None else next(mapped)
            out.append(spread_over(one, self.size) if one is not None and every is None else every)
        return out


@_rule("host_call")
def _host_call(y: Value, operands: Operands, size: int) -> Value:
    """Leading axes are a stack of problems, so the examples are one more such axis; where there are none, one by one."""
    attrs = dict(y.attrs)
    every = [_mapped(x, size) for x in operands]
    if y["function"] not in UNBATCHED:
        return make("host_call", every, **{**attrs, "shape": (size, *y.shape)})
    ones = []
    for n in range(size):
        parts = [reshape(_example(x, n), x.shape[1:]) for x in every]
        ones.append(reshape(make("host_call", parts, **attrs), (1, *y.shape)))
    return make("concat", ones, axis=0)


def _example(x: Value, n: int) -> Value:
    rest = x.shape[1:]
    return make("slice", (x,), start=(n, *(0 for _ in rest)), stop=(n + 1, *rest), step=(1,) * len(x.shape))


@_rule("scan", "while_loop")
def _loop(y: Value, operands: Operands, size: int) -> Value:
    return scan.batched(y, operands, size, batch)


@_rule("switch")
def _switch(y: Value, operands: Operands, size: int) -> Value:
    return switch.batched(y, operands, size, batch)


@_rule("custom")
def _custom(y: Value, operands: Operands, size: int) -> Value:
    count: int = y["outputs"]
    rule = y["rule"]
    if not rule.reads_graph:
        rule = BatchedRule(rule, y.inputs[:count], y.inputs[count:], [m for _, m in operands[count:]], size)
    outputs = [_mapped(x, size) for x in operands[:count]]
    inputs = [x for x, _ in operands[count:]]
    return make("custom", (*outputs, *inputs), rule=rule, outputs=count, index=y["index"])


assert set(RULES) | set(NOT_MAPPED) <= set(OPS)
