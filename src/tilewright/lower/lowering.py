"""Every group to kernel calls, by the recipe of its kind; what has none becomes a host call with its reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tilewright.graph.ir import Value
from tilewright.lower.attention import lower_attention
from tilewright.lower.bodies import lower_loop, lower_switch
from tilewright.lower.calls import Call
from tilewright.lower.contraction import lower_contraction
from tilewright.lower.extents import bind_sizes
from tilewright.lower.groups import Group, is_leaf
from tilewright.lower.loops import lower_loops
from tilewright.lower.read import Unsupported
from tilewright.lower.schedule import HostCall, Step
from tilewright.lower.single import lower_single
from tilewright.lower.winograd import lower_winograd
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
            calls = _lower(group, stored, machine, settled)
        except Unsupported as reason:
            group.reason = str(reason)
            steps.append(_host(group, stored, str(reason)))
            continue
        for call in calls:
            bind_sizes(call, sizes or {})
        steps += [Step([call]) for call in calls]
    return steps


def _lower(
    group: Group,
    stored: Callable[[Value], bool],
    machine: Machine,
    settled: Callable[[Value], bool] | None,
) -> list[Call]:
    if group.kind in ("map", "row"):
        return lower_loops(group, stored, machine.vector_bytes)
    if group.kind == "dot":
        calls = lower_winograd(group, stored, machine)
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
