"""Loops: those over the same operands and carries become one, which computes only what is asked for.

    before   _, y = scan(c, h, x) {h', y = ...};  _, s = scan(c, h, x) {h', s = ...};  only y and s are used
    after    y, s = scan(c, h, x) {h', y, s = ...}

A derivative repeats the loop of the function with more results (the carries before every step); merging makes that one
loop again. Carries that never change become constants of the loop, constants move into the body, results and operands
that nobody uses are dropped, and the passes run over the body. All but the merging is done for ``while_loop`` too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tilewright.graph.body import Body
from tilewright.graph.ir import Value, make, topological
from tilewright.passes.canonicalise import broadcast_to, scalar_of

__all__ = ["merge_scans"]

LOOPS = ("scan", "while_loop")
Passes = Callable[[Sequence[Value]], list[Value]]


@dataclass(eq=False)
class _Family:
    """Loops over the same operands whose carries agree. ``wanted`` are the used results: carry numbers, and values of the
    body that are stacked."""

    carries: set[int] = field(default_factory=set)
    stacked: dict[Value, None] = field(default_factory=dict)
    built: _Built | None = None


@dataclass(eq=False)
class _Built:
    """The one loop of a family: what became of each last carry and each stacked value."""

    carries: dict[int, Value]
    stacked: dict[Value, Value]


def merge_scans(outputs: Sequence[Value], passes: Passes) -> list[Value]:
    """The outputs with loops merged, trimmed, and ``passes`` applied to their bodies."""
    order = topological(outputs)
    if not any(v.op in LOOPS for v in order):
        return list(outputs)
    families: dict[object, _Family] = {}
    for v in order:
        if v.op in LOOPS:
            family = families.setdefault(_key(v), _Family())
            if v["index"] < v["carries"]:
                family.carries.add(v["index"])
            else:
                family.stacked[v["body"].outputs[v["index"]]] = None
    done: dict[Value, Value] = {}
    for v in order:
        inputs = tuple(done[x] for x in v.inputs)
        if v.op in LOOPS:
            family = families[_key(v)]
            if family.built is None:
                family.built = _build(v, inputs, family, passes)
            if v["index"] < v["carries"]:
                done[v] = family.built.carries[v["index"]]
            else:
                done[v] = family.built.stacked[v["body"].outputs[v["index"]]]
        else:
            done[v] = v if inputs == v.inputs else make(v.op, inputs, **dict(v.attrs))
    return [done[v] for v in outputs]


def _key(v: Value) -> object:
    """What loops of one family share."""
    body: Body = v["body"]
    kind = (v["length"], v["reverse"]) if v.op == "scan" else ()
    return (v.op, v.inputs, kind, v["consts"], v["carries"], body.outputs[: v["carries"]])


def _build(v: Value, operands: Sequence[Value], family: _Family, passes: Passes) -> _Built:
    body: Body = v["body"]
    first, past = v["consts"], v["consts"] + v["carries"]
    kept = {k: k in family.carries for k in range(v["carries"])}
    chosen = list(family.stacked)
    leaves = list(body.leaves())
    given = [_repeated(x, leaf) for x, leaf in zip(operands, leaves, strict=True)]
    given[first:past] = leaves[first:past]  # a carry is the constant only at first
    results = passes(Body(body.inputs, (*body.outputs[: v["carries"]], *chosen)).apply(given))
    new, ys = results[: v["carries"]], results[v["carries"] :]
    fixed = {k for k in kept if new[k] is leaves[first + k]}
    wanted = {k for k in kept if kept[k]} - fixed
    if v.op == "while_loop":
        wanted |= {0}  # it says how long the loop runs
        fixed -= {0}
    live = _live(new, ys, wanted, leaves[first:past], fixed)

    used = set(topological([*(new[k] for k in live), *ys]))
    consts = [n for n in range(first) if leaves[n] in used] + [
        first + k for k in fixed if leaves[first + k] in used
    ]
    xs = [n for n in range(past, len(leaves)) if leaves[n] in used]
    places = [*consts, *(first + k for k in live), *xs]
    small = Body.of([leaves[n] for n in places], [*(new[k] for k in live), *ys])

    changed = {"body": small, "consts": len(consts), "carries": len(live)}

    def result(index: int) -> Value:
        attrs = {**dict(v.attrs), **changed, "index": index}
        return make(v.op, [operands[n] for n in places], **attrs)

    carries = {k: operands[first + k] for k in fixed}
    carries.update({k: result(i) for i, k in enumerate(live)})
    return _Built(carries, {y: result(len(live) + i) for i, y in enumerate(chosen)})


def _repeated(operand: Value, leaf: Value) -> Value:
    """What stands for an operand in the body: its constant, when it repeats one."""
    scalar = scalar_of(operand)
    return leaf if scalar is None else broadcast_to(scalar, leaf.shape)


def _live(
    new: Sequence[Value], ys: Sequence[Value], live: set[int], leaves: Sequence[Value], fixed: set[int]
) -> list[int]:
    """The carries that the wanted results depend on, in order."""
    while True:
        used = set(topological([*(new[k] for k in live), *ys]))
        more = {k for k, leaf in enumerate(leaves) if leaf in used} - fixed
        if more <= live:
            return sorted(live)
        live |= more
