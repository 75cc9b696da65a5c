"""Which members of a row group have one element for each row, and who reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set

from tilewright.graph.ir import Value
from tilewright.lower.groups import Group, own_cost

__all__ = ["is_row_value", "read_again", "read_by_elements", "row_cost"]

CACHE_COST = 8  # an element costlier than this is kept in scratch when a later phase needs it again


def is_row_value(group: Group, v: Value) -> bool:
    """Whether a member has one element per row: no reduced loop occurs in its index."""
    if not group.reduced:
        return False
    if v in group.reductions or v in group.columns:
        return v in group.reductions
    reduced = [a for k, i in enumerate(group.loops) if k in group.reduced for a in i.terms]
    if reduced:
        return not any(i.coefficient(a) for i in group.members[v] for a in reduced)
    return len(v.shape) == len(group.dims) - len(group.reduced) and v.shape != group.dims


def read_again(group: Group, rows: Set[Value], depth: Mapping[Value, int]) -> list[Value]:
    """Costly row-wide values that a later phase reads again."""
    out = []
    for v in group.members:
        if v in rows or own_cost(v) < CACHE_COST:
            continue
        readers = [u for u in group.members if v in u.inputs]
        if any(depth[u] - (u in group.reductions) > depth[v] for u in readers):
            out.append(v)
    return out


def read_by_elements(
    group: Group, rows: Set[Value], apart: Set[Value], stored: Callable[[Value], bool]
) -> set[Value]:
    """The members with one element per row that others, of a whole row each, read. Those ``apart`` are found without reading
    anything."""
    found, seen = set[Value](), set[Value]()
    wanted = {*group.outputs, *group.reductions} - apart
    stack = [x for u in wanted if u not in rows or u in group.reductions for x in u.inputs]
    while stack:
        x = stack.pop()
        if x in seen:
            continue
        seen.add(x)
        if x in rows:
            found.add(x)
        elif not stored(x):
            stack.extend(x.inputs)
    return found - set(group.reductions)


def row_cost(group: Group, v: Value, stored: Callable[[Value], bool]) -> int:
    """The operations between the reductions' results and a function of them."""
    cost, stack, seen = 0, [v], set[Value]()
    while stack:
        x = stack.pop()
        if x not in seen and x not in group.reductions and not stored(x):
            seen.add(x)
            cost += own_cost(x) if x.inputs else 0
            stack.extend(x.inputs)
    return cost
