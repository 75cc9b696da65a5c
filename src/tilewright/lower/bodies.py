"""Operations over bodies: a plan for each body, and where its slots lie in the plan around it.

    scan(c, h, x) {h', y = f(c, h, x)}    ->    copy h to carry;  loop: plan of f over [c, carry, x slice | carry, y slice]
    while_loop(c, h) {h' = f(c, h)}       ->    copy h to carry;  loop while carry 0: plan of f over [c, carry | carry]
    switch(n, x) {f(x)} {g(x)}            ->    choice by n: plan of f over [x | results], plan of g over the same

Bodies are lowered and scheduled like any other graph. A carry whose values before or after all iterations are results too
lives in one stack of them: an iteration reads it there and writes the new one behind it. Another new carry is written over
the old one where every element is read before; otherwise the two have a buffer each, and these trade places after every
iteration. Where nobody knows how many iterations there are, the driver copies what an odd number of trades has left in the
other buffer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tilewright.core import dtype as dt
from tilewright.core.shape import static
from tilewright.graph.body import Body
from tilewright.graph.ir import Value, make
from tilewright.lower.affine import Space
from tilewright.lower.calls import Arg, Place, Temporary
from tilewright.lower.groups import Group, form_groups, is_leaf, unshaped
from tilewright.lower.loops import lower_loops
from tilewright.lower.read import Unsupported
from tilewright.lower.schedule import LoopCall, LoopSlot, Step, SwitchCall, schedule
from tilewright.lower.settled import hoist, settled_values
from tilewright.recipes.machine import Machine

__all__ = ["lower_loop", "lower_switch"]

Lower = Callable[[Sequence[Group], Machine, None, Callable[[Value], bool] | None], list[Step]]


def lower_loop(group: Group, stored: Callable[[Value], bool], machine: Machine, lower: Lower) -> list[Step]:
    """The steps of a loop; ``lower`` turns the groups of its body into steps. Raises ``Unsupported`` when a part of the body
    has no native lowering."""
    v = group.anchor
    body: Body = v["body"]
    count: int | None = v["length"] if v.op == "scan" else None
    first, past = v["consts"], v["consts"] + v["carries"]
    stacks = {} if count is None else _stacks(group, body, count)
    in_stack = {j for stack in stacks.values() for j in stack.results}
    numbers = [j for j in range(len(body.outputs)) if j not in in_stack]
    distinct = _distinct(body)
    outputs = [distinct[j] for j in numbers]
    donated = {first + k: k for k in range(v["carries"]) if k not in stacks}
    settled = body.inputs[:first]
    steps = _steps(v.op, outputs, machine, lower, settled_values(settled))
    early, steps, kept = hoist(steps, settled, outputs)
    inner = schedule(steps, body.inputs, outputs, donated, kept)

    results: dict[int, Place] = {m["index"]: m for m in group.members}
    for j, one in zip(numbers, outputs, strict=True):  # results that nobody reads have a place all the same
        results.setdefault(j, Temporary(one.dtype, one.type.size * (1 if j < v["carries"] else count or 0)))
    views: dict[Place, tuple[Place, int]] = {
        results[j]: (stack.place, offset)
        for k, stack in stacks.items()
        for j, offset in ((k, stack.last), *stack.results.items())
        if j in results
    }

    before, moved = _before(early, dict(zip(settled, map(unshaped, v.inputs[:first]), strict=True)))
    seconds: dict[int, Place] = {}  # the second buffer of a carry that has two
    slots = [LoopSlot(Temporary(dt.uint8, inner.arena_bytes), "w")]
    slots += [LoopSlot(unshaped(x), "r") for x in v.inputs[:first]]
    for k, init in enumerate(v.inputs[first:past]):
        if k in stacks:
            stack = stacks[k]
            before += _copy(init, stack.place, stored, machine, stack.first // init.dtype.itemsize)
            slots.append(LoopSlot(stack.place, "rw", stack.first, stack.stride))
            continue
        place = results[k]
        if k not in inner.taken:  # the result is the buffer that the last iteration writes
            other: Place = Temporary(init.dtype, init.type.size)
            place, seconds[k] = (other, place) if count is not None and count % 2 else (place, other)
        before += _copy(init, place, stored, machine)
        slots.append(LoopSlot(place, "rw"))
    slots += [
        _slice(unshaped(x), "r", one, v) for x, one in zip(v.inputs[past:], body.inputs[past:], strict=True)
    ]
    slots += [LoopSlot(moved[p], "r") for p in kept]
    swaps = []
    for o in inner.fresh:
        if o in stacks:
            stack = stacks[o]
            slots.append(LoopSlot(stack.place, "w", stack.first + stack.stride, stack.stride))
        elif o < v["carries"]:
            swaps.append((1 + first + o, len(slots), outputs[o].type.nbytes))
            slots.append(LoopSlot(seconds[o], "rw"))
        else:
            slots.append(_slice(results[numbers[o]], "w", outputs[o], v))
    condition = -1 if count is not None else 1 + first
    return [*before, Step([], nest=LoopCall(inner, count, slots, swaps, condition, views))]


@dataclass(frozen=True, slots=True)
class _Stack:
    """Where a carry has all its values: bytes at which the first and the ``last`` one lie, from each to the next, and at which a
    result that stacks some of them begins."""

    place: Temporary
    first: int
    last: int
    stride: int
    results: dict[int, int]


def _stacks(group: Group, body: Body, count: int) -> dict[int, _Stack]:
    """The carries that live in a stack of all their values, by number. Results that need memory of their own do not take part."""
    v = group.anchor
    first, carries = v["consts"], v["carries"]
    fixed = {m["index"] for m in group.members if m in group.results}
    new = [unshaped(o) for o in body.outputs]
    taken, found = set[int](), dict[int, _Stack]()
    for k in range(carries):
        leaf, one = body.inputs[first + k], new[k].type.nbytes
        stride = -one if v["reverse"] else one
        begin = count * one if v["reverse"] else 0
        # the lowest of a stack's slices is that of the first iteration, or in reverse of the last
        low = {leaf: one if v["reverse"] else 0}
        if not is_leaf(new[k]):
            low[new[k]] = 0 if v["reverse"] else one
        chosen = {
            j: low[new[j]] for j in range(carries, len(new)) if new[j] in low and j not in taken | fixed
        }
        if chosen and k not in fixed and one:
            taken |= chosen.keys()
            place = Temporary(leaf.dtype, (count + 1) * leaf.type.size)
            found[k] = _Stack(place, begin, begin + count * stride, stride, chosen)
    return found


def lower_switch(group: Group, machine: Machine, lower: Lower) -> Step:
    """The step of a switch: the plans of its branches have one layout. Raises ``Unsupported`` as ``lower_loop`` does."""
    v = group.anchor
    branches: tuple[Body, ...] = v["branches"]
    plans = []
    for branch in branches:
        outputs = _distinct(branch)
        plans.append(schedule(_steps(v.op, outputs, machine, lower, None), branch.inputs, outputs, {}))
    results: dict[int, Place] = {m["index"]: m for m in group.members}
    slots = [LoopSlot(Temporary(dt.uint8, max(p.arena_bytes for p in plans)), "w")]
    slots += [LoopSlot(unshaped(x), "r") for x in v.inputs[1:]]
    for j, type in enumerate(branches[0].types):  # results that nobody reads have a place all the same
        slots.append(LoopSlot(results.get(j) or Temporary(type.dtype, type.size), "w"))
    slots.append(LoopSlot(unshaped(v.inputs[0]), "r"))
    return Step([], nest=SwitchCall(plans, slots, len(slots) - 1))


def _steps(
    op: str,
    outputs: Sequence[Value],
    machine: Machine,
    lower: Lower,
    settled: Callable[[Value], bool] | None,
) -> list[Step]:
    """The steps of a body."""
    steps = lower(form_groups(outputs), machine, None, settled)
    for step in steps:
        if step.host is not None:
            raise Unsupported(f"in the body of {op}: {step.host.reason}")
    return steps


def _before(early: Sequence[Step], outside: Mapping[Place, Place]) -> tuple[list[Step], dict[Place, Place]]:
    """A body's steps that do not change from iteration to iteration, in the plan around the loop: they read operands of the loop
    and write to places of their own, since another loop may have the same body."""
    moved = dict(outside)
    for step in early:
        for place in step.writes():
            if place not in moved:
                moved[place] = Temporary(
                    place.dtype, place.size if isinstance(place, Temporary) else place.type.size
                )
        for call in step.calls:
            call.args = [Arg(moved[a.place], a.access, a.offset) for a in call.args]
    return list(early), moved


def _distinct(body: Body) -> list[Value]:
    """The body's outputs as values of their own, each of which some step computes."""
    outputs: list[Value] = []
    for number, output in enumerate(body.outputs):
        v = unshaped(output)
        if is_leaf(v) or v in outputs:
            v = make("mark", (v,), id=number)  # a copy
        outputs.append(v)
    return outputs


def _slice(place: Place, access: str, one: Value, v: Value) -> LoopSlot:
    nbytes = one.type.nbytes
    if v["reverse"]:
        return LoopSlot(place, access, nbytes * max(v["length"] - 1, 0), -nbytes)
    return LoopSlot(place, access, 0, nbytes)


def _copy(
    source: Value, target: Place, stored: Callable[[Value], bool], machine: Machine, at: int = 0
) -> list[Step]:
    """Compute ``source``, which is stored or floating, into ``target``, from its element ``at`` on."""
    value = make("mark", (source,), id=0)
    shape = static(value.shape)
    group = Group(-1, "map", value, shape, frozenset(), Space(), ())
    group.loops = tuple(group.space.loop(f"i{k}", n) for k, n in enumerate(shape))
    group.members[value] = group.loops
    group.outputs = [value]
    steps = []
    for call in lower_loops(group, stored, machine):
        call.args = [Arg(target, a.access, at + a.offset) if a.place is value else a for a in call.args]
        steps.append(Step([call]))
    return steps
