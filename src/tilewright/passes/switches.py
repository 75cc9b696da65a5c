"""Switches: those over the same operands become one, which computes only what is asked for.

    before   y = switch(n, x) {y = f(x)} {..};  r = switch(n, x) {y = f(x), r = ..} {..};  only y and r are used
    after    y, r = switch(n, x) {y = f(x), r = ..} {..}

A derivative repeats the switch of the function with more results; merging makes that one switch again. A switch by a
constant is its branch. Results on which all branches agree move out, constants move in, results and operands that
nobody uses are dropped, and the passes run over the branches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tilewright.graph.body import Body, rebuild
from tilewright.graph.ir import Value, make, topological
from tilewright.passes.canonicalise import broadcast_to, scalar_of

__all__ = ["merge_switches"]

Passes = Callable[[Sequence[Value]], list[Value]]
Results = tuple[Value, ...]  # one result as every branch computes it


def merge_switches(outputs: Sequence[Value], passes: Passes) -> list[Value]:
    """The outputs with switches merged, trimmed, and ``passes`` applied to their branches."""
    order = topological(outputs)
    if not any(v.op == "switch" for v in order):
        return list(outputs)
    wanted: dict[object, dict[Results, None]] = {}
    for v in order:
        if v.op == "switch":
            wanted.setdefault(_key(v), {})[_results(v)] = None
    done: dict[Value, Value] = {}
    built: dict[object, dict[Results, Value]] = {}
    for v in order:
        inputs = tuple(done[x] for x in v.inputs)
        if v.op == "switch":
            key = _key(v)
            if key not in built:
                built[key] = _build(v, inputs, list(wanted[key]), passes)
            done[v] = built[key][_results(v)]
        else:
            done[v] = v if inputs == v.inputs else make(v.op, inputs, **dict(v.attrs))
    return [done[v] for v in outputs]


def _key(v: Value) -> object:
    """What switches of one family share."""
    return v.inputs, len(v["branches"])


def _results(v: Value) -> Results:
    return tuple(branch.outputs[v["index"]] for branch in v["branches"])


def _build(
    v: Value, inputs: Sequence[Value], wanted: Sequence[Results], passes: Passes
) -> dict[Results, Value]:
    """The one switch of a family: what became of each result."""
    selector, *operands = inputs
    branches: tuple[Body, ...] = v["branches"]
    leaves = branches[0].leaves()
    given = [_repeated(x, leaf) for x, leaf in zip(operands, leaves, strict=True)]
    own = branches[0].inputs  # those of all branches: numbered leaves of the same types
    real = dict(zip(leaves, operands, strict=True))
    known = scalar_of(selector)
    if known is not None:
        branch = min(max(int(known["value"]), 0), len(branches) - 1)
        found = passes(Body(own, tuple(r[branch] for r in wanted)).apply(given))
        return dict(zip(wanted, rebuild(found, real), strict=True))
    made = [passes(Body(own, tuple(r[b] for r in wanted)).apply(given)) for b in range(len(branches))]
    agreed = {j: made[0][j] for j in range(len(wanted)) if len({outs[j] for outs in made}) == 1}
    out = dict(zip(agreed, rebuild(list(agreed.values()), real), strict=True))
    rest = {r: j for j, r in enumerate(zip(*made, strict=True)) if j not in agreed}
    used = set(topological([x for r in rest for x in r]))
    kept = [leaf for leaf in leaves if leaf in used]
    small = tuple(Body.of(kept, [r[b] for r in rest]) for b in range(len(branches)))
    number = {r: index for index, r in enumerate(rest)}
    for j, r in enumerate(zip(*made, strict=True)):
        if j not in agreed:
            places = [real[leaf] for leaf in kept]
            out[j] = make("switch", (selector, *places), branches=small, index=number[r])
    return {r: out[j] for j, r in enumerate(wanted)}


def _repeated(operand: Value, leaf: Value) -> Value:
    """What stands for an operand in a branch: its constant, when it repeats one."""
    scalar = scalar_of(operand)
    return leaf if scalar is None else broadcast_to(scalar, leaf.shape)
