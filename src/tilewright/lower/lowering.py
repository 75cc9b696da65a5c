"""Every group to kernel calls, by the recipe of its kind; what has none becomes a host call with its reason.

The layers of a model are equal but for the values they name. A group that is equal to an earlier one so gets that one's
calls, with its own values in their places.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tilewright.graph.ir import Value
from tilewright.lower.attention import lower_attention
from tilewright.lower.bodies import lower_loop, lower_switch
from tilewright.lower.calls import Arg, Call, Place, Temporary
from tilewright.lower.contraction import lower_contraction
from tilewright.lower.extents import bind_sizes
from tilewright.lower.groups import Group, is_leaf
from tilewright.lower.images import lower_images
from tilewright.lower.loops import lower_loops
from tilewright.lower.read import Unsupported
from tilewright.lower.schedule import HostCall, LoopCall, Step
from tilewright.lower.single import lower_single
from tilewright.lower.winograd import lower_winograd
from tilewright.lower.winograd_filters import lower_winograd_filters
from tilewright.recipes.machine import Machine

__all__ = ["lower_groups"]


def lower_groups(
    groups: Sequence[Group],
    machine: Machine,
    sizes: Mapping[str, Value] | None = None,
    settled: Callable[[Value], bool] | None = None,
) -> list[Step]:
    """The steps that compute every group, in order. ``sizes``: the leaves that hold the numbers of symbolic sizes; ``settled``:
    which values stay the same from run to run."""
    home = {v: g for g in groups for v in g.outputs}
    steps: list[Step] = []
    known: dict[tuple[Any, ...], _Lowered] = {}
    for group in groups:

        def stored(v: Value, group: Group = group) -> bool:
            return v.op == "input" or (v in home and not is_leaf(v) and home[v] is not group)

        if group.kind == "host":
            steps.append(_host(group, stored, group.reason))
            continue
        try:
            if group.kind == "loop":
                steps += lower_loop(group, stored, machine, lower_groups)
                continue
            if group.kind == "switch":
                steps.append(lower_switch(group, machine, lower_groups))
                continue
            if sizes:
                calls = _lower(group, stored, machine, settled)
            else:
                calls = _lower_once(known, group, stored, machine, settled)
        except Unsupported as reason:
            group.reason = str(reason)
            steps.append(_host(group, stored, str(reason)))
            continue
        if sizes:
            for call in calls:
                bind_sizes(call, sizes)
        steps += [Step([call]) for call in calls]
    views = {v: place for s in steps if isinstance(s.nest, LoopCall) for v, place in s.nest.views.items()}
    if any(v in views for s in steps if s.host is not None for v in s.host.inputs):
        for group in groups:  # NumPy reads values that have memory of their own
            group.results = set(group.members)
        return lower_groups(groups, machine, sizes, settled)
    return _located(steps, views) if views else steps


def _located(steps: list[Step], views: Mapping[Place, tuple[Place, int]]) -> list[Step]:
    """The steps with each result of a loop that lies inside another place read there."""
    for step in steps:
        for call in step.calls:
            call.args = [_inside(a, views) for a in call.args]
        if step.nest is not None:
            step.nest.slots[:] = [
                replace(s, place=views[s.place][0], offset=views[s.place][1] + s.offset)
                if s.place in views
                else s
                for s in step.nest.slots
            ]
    return steps


def _inside(a: Arg, views: Mapping[Place, tuple[Place, int]]) -> Arg:
    if a.place not in views:
        return a
    place, offset = views[a.place]
    return Arg(place, a.access, offset // place.dtype.itemsize + a.offset)


@dataclass(slots=True)
class _Lowered:
    """The calls of a group, its note, and the values by which an equal group's may differ, in the order of its structure."""

    calls: list[Call]
    reason: str
    values: list[Value]

    def of(self, values: Sequence[Value]) -> list[Call]:
        """The same calls over the values of an equal group."""
        places: dict[Place, Place] = dict(zip(self.values, values, strict=True))
        out = []
        for call in self.calls:
            args = []
            for a in call.args:
                if a.place not in places:
                    assert isinstance(a.place, Temporary)
                    places[a.place] = Temporary(a.place.dtype, a.place.size)
                args.append(Arg(places[a.place], a.access, a.offset))
            checked = call.checked
            if checked is not None:
                checked = {(places[v], size): whole for (v, size), whole in checked.items()}  # type: ignore[misc]
            out.append(replace(call, args=args, checked=checked))
        return out


def _lower_once(
    known: dict[tuple[Any, ...], _Lowered],
    group: Group,
    stored: Callable[[Value], bool],
    machine: Machine,
    settled: Callable[[Value], bool] | None,
) -> list[Call]:
    """``_lower``, once for all groups of one structure."""
    if machine.watch is not None:
        return _lower(group, stored, machine, settled)
    key, values = _structure(group, stored, settled)
    found = known.get(key)
    if found is None:
        calls = _lower(group, stored, machine, settled)
        known[key] = _Lowered(calls, group.reason, values)
        return calls
    group.reason = found.reason
    return found.of(values)


def _structure(
    group: Group, stored: Callable[[Value], bool], settled: Callable[[Value], bool] | None
) -> tuple[tuple[Any, ...], list[Value]]:
    """Everything that lowering can tell of a group, stored values by number; and the numbered values."""
    numbers: dict[Value, int] = {}
    rows: list[Any] = []
    stack = [*group.members, *group.reductions, *group.outputs, group.anchor]
    while stack:
        v = stack[-1]
        if v in numbers:
            stack.pop()
            continue
        if stored(v):
            rows.append((v.type, settled is not None and settled(v)))
        elif v.op == "constant":
            rows.append(v)  # 1, 1.0 and True are equal, and 0.0 and -0.0
        else:
            waiting = [x for x in v.inputs if x not in numbers]
            if waiting:
                stack += waiting
                continue
            rows.append((v.op, v.attrs, v.type, *[numbers[x] for x in v.inputs]))
        numbers[v] = len(numbers)
        stack.pop()
    key = (
        group.kind,
        group.dims,
        group.reduced,
        group.loops,
        numbers[group.anchor],
        tuple([(numbers[v], index) for v, index in group.members.items()]),
        tuple([numbers[v] for v in group.reductions]),
        tuple([numbers[v] for v in group.columns]),
        tuple([numbers[v] for v in group.outputs]),
        *rows,
    )
    return key, list(numbers)


def _lower(
    group: Group,
    stored: Callable[[Value], bool],
    machine: Machine,
    settled: Callable[[Value], bool] | None,
) -> list[Call]:
    if group.kind in ("map", "row"):
        return lower_loops(group, stored, machine)
    if group.kind == "dot":
        calls = lower_winograd(group, stored, machine)
        if calls is None:
            calls = lower_winograd_filters(group, stored, machine, settled)
        if calls is None:
            calls = lower_images(group, stored, machine, settled)
        if calls is not None:
            return calls
        return lower_contraction(group, stored, machine, settled)
    if group.kind == "attention":
        return lower_attention(group, stored, machine)
    if group.kind == "single":
        return lower_single(group, stored, machine.vector_bytes)
    raise Unsupported(f"no native lowering for {group.anchor.op}")


def _host(group: Group, stored: Callable[[Value], bool], reason: str) -> Step:
    """Compute a group's outputs with the reference from what is stored."""
    inputs: dict[Value, None] = {}
    seen: set[Value] = set()
    stack = list(group.outputs)
    while stack:
        v = stack.pop()
        if v in seen:
            continue
        seen.add(v)
        if stored(v):
            inputs[v] = None
        elif not is_leaf(v):
            stack.extend(v.inputs)
    return Step([], HostCall(list(inputs), list(group.outputs), reason))
