"""Derivatives and batches of ``switch``: each rule is a switch again, over what the transform makes of every branch.

Only the branch that is taken is computed, in a derivative too. Reverse mode and forward mode read the results of the
branches' contractions, reductions and loops, which the forward switch then gives as results of its own; what lies
between is computed anew. Branches keep different values: those of one type share a result, and a branch that has
fewer of them gives zeros. The forward switch stays one: a pass merges it with the one that was there.

    forward   y = f_n(x)         reverse   dx = pull f_n at x of dy         tangent   ty = push f_n at x along tx

This file knows the transforms of one branch only as functions that it is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tilewright.autodiff.scan import KEPT, Batch, Dependent, Pull, Push
from tilewright.graph.body import Body, besides
from tilewright.graph.build import broadcast, compare, reshape, where, zeros_like
from tilewright.graph.ir import TensorType, Value, input_value, make, topological

__all__ = ["batched", "pulled", "pushed", "switch"]


def switch(selector: Value, operands: Sequence[Value], branches: Sequence[Body]) -> list[Value]:
    """The results of the branch that ``selector`` (int32, rank 0) names, of the first or last one if there is none."""
    return [
        make("switch", (selector, *operands), branches=tuple(branches), index=index)
        for index in range(len(branches[0].outputs))
    ]


def pulled(
    v: Value, cotangents: Mapping[int, Value], needed: Sequence[bool], pull: Pull, dependent: Dependent
) -> list[Value | None]:
    """The cotangents of the operands of a switch (of those that are ``needed``), from those of its results by index."""
    leaves, results = _apart(v)
    wanted = [x for x, n in zip(leaves, needed[1:], strict=True) if n and x.dtype.is_inexact]
    seeds = [input_value(g.dtype, g.shape) for g in cotangents.values()]
    found = [pull([outs[j] for j in cotangents], seeds, wanted) for outs in results]
    moved = [k for k in range(len(wanted)) if any(g[k] is not None for g in found)]
    gives = [[_or_zeros(g[k], wanted[k]) for k in moved] for g in found]
    outs = _derived(v, leaves, results, gives, seeds, list(cotangents.values()))
    by_leaf = {wanted[k]: out for k, out in zip(moved, outs, strict=True)}
    return [None, *(by_leaf.get(leaf) for leaf in leaves)]


def pushed(v: Value, tangents: Sequence[Value | None], push: Push, dependent: Dependent) -> dict[int, Value]:
    """The tangents of the results of a switch by index, from those of its operands."""
    leaves, results = _apart(v)
    moving = [(x, t) for x, t in zip(leaves, tangents[1:], strict=True) if t is not None]
    along = [input_value(t.dtype, t.shape) for _, t in moving]
    found = [push(outs, [x for x, _ in moving], along) for outs in results]
    moved = [j for j in range(len(results[0])) if any(t[j] is not None for t in found)]
    gives = [[_or_zeros(t[j], outs[j]) for j in moved] for t, outs in zip(found, results, strict=True)]
    outs = _derived(v, leaves, results, gives, along, [t for _, t in moving])
    return dict(zip(moved, outs, strict=True))


def batched(v: Value, operands: Sequence[tuple[Value, bool]], size: int, batch: Batch) -> Value:
    """The result ``v`` of a switch for ``size`` examples at once, with the examples' axis first.

    Examples that take branches of their own need all branches, of which each then selects its result.
    """
    (selector, each), *rest = operands
    leaves, results = _apart(v)
    every = {
        leaf: input_value(leaf.dtype, (size, *leaf.shape))
        for leaf, (_, mapped) in zip(leaves, rest, strict=True)
        if mapped
    }
    given = [x for x, _ in rest]
    inputs = [every.get(leaf, leaf) for leaf in leaves]
    if each:
        ones = [outs[v["index"]] for outs in results]
        alls = batch(ones, every, size)
        spread = [all or _spread(one, size) for one, all in zip(ones, alls, strict=True)]
        found = Body.of(inputs, spread).apply(given)
        out = found[0]
        for k, branch in enumerate(found[1:], 1):
            takes = reshape(compare("ge", selector, k), (size, *[1] * v.type.rank))
            out = where(broadcast(takes, out.shape), branch, out)
        return out
    found_of = [batch(outs, every, size) for outs in results]
    differs = [any(found[j] is not None for found in found_of) for j in range(len(results[0]))]
    bodies = [
        Body.of(
            inputs, [_of_all(one, all, d, size) for one, all, d in zip(outs, found, differs, strict=True)]
        )
        for outs, found in zip(results, found_of, strict=True)
    ]
    out = switch(selector, given, bodies)[v["index"]]
    return out if differs[v["index"]] else _spread(out, size)


def _of_all(one: Value, all: Value | None, differs: bool, size: int) -> Value:
    return one if not differs else all or _spread(one, size)


def _apart(v: Value) -> tuple[list[Value], list[list[Value]]]:
    """Fresh leaves for the operands, and the results of every branch over them."""
    branches: tuple[Body, ...] = v["branches"]
    leaves = branches[0].leaves()
    return leaves, [branch.apply(leaves) for branch in branches]


def _derived(
    v: Value,
    leaves: Sequence[Value],
    results: Sequence[Sequence[Value]],
    gives: Sequence[Sequence[Value]],
    more: Sequence[Value],
    given: Sequence[Value],
) -> list[Value]:
    """The switch of branches that give ``gives``, read from the leaves, the kept values of the forward switch, and
    ``more`` leaves that stand for ``given``."""
    if not gives[0]:
        return []
    saved = [_saved(outs, gave, leaves) for outs, gave in zip(results, gives, strict=True)]
    kinds = _shared([[y.type for y in ys] for ys in saved])
    known = [*leaves, *more, *(y for ys in saved for y in ys)]
    outside = besides([y for gave in gives for y in gave], known)
    forward, backward = [], []
    for outs, gave, ys in zip(results, gives, saved, strict=True):
        by_kind: dict[TensorType, list[Value]] = {}
        for y in ys:
            by_kind.setdefault(y.type, []).append(y)
        taken = [by_kind[kind].pop(0) if by_kind.get(kind) else None for kind in kinds]
        blank = [input_value(kind.dtype, kind.shape) for kind in kinds]
        keeps = [zeros_like(b) if y is None else y for y, b in zip(taken, blank, strict=True)]
        forward.append(Body.of(leaves, [*outs, *keeps]))
        slots = [y or b for y, b in zip(taken, blank, strict=True)]
        backward.append(Body.of([*leaves, *slots, *more, *outside], gave))
    selector, *operands = v.inputs
    kept = switch(selector, operands, forward)[len(results[0]) :]
    return switch(selector, [*operands, *kept, *given, *outside], backward)


def _saved(outputs: Sequence[Value], gives: Sequence[Value], leaves: Sequence[Value]) -> list[Value]:
    """What a branch's derivative reads of its forward computation that is costly enough to keep."""
    depends = set(leaves)
    for y in topological(outputs):
        if any(x in depends for x in y.inputs):
            depends.add(y)
    kept = {y for y in depends if y.op in KEPT}
    return [y for y in topological(gives, stop=kept.__contains__) if y in kept]


def _shared(kinds: Sequence[Sequence[TensorType]]) -> list[TensorType]:
    """As many of each type as the branch that has most of it needs."""
    most: dict[TensorType, int] = {}
    for own in kinds:
        for kind in own:
            most[kind] = max(most.get(kind, 0), own.count(kind))
    return [kind for kind, count in most.items() for _ in range(count)]


def _or_zeros(x: Value | None, like: Value) -> Value:
    return zeros_like(like) if x is None else x


def _spread(v: Value, size: int) -> Value:
    return broadcast(v, (size, *v.shape))
