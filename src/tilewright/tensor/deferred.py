"""Histories that are written out only when they are differentiated.

A compiled call computes its results without a graph. Where a result may be differentiated later, its leaf gets a
``Deferred`` role: the traced graph it came from, and what that graph's placeholders stood for in the call. ``expand``
puts such graphs in place of their leaves when a derivative is asked for; values keep the memory they were computed in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tilewright.graph.ir import Value, make, topological
from tilewright.graph.sizes import is_symbolic, resolve
from tilewright.tensor import lazy

__all__ = ["expand", "substitute"]


def substitute(
    outputs: Iterable[Value], replaced: Mapping[Value, Value], numbers: Mapping[str, int] | None = None
) -> dict[Value, Value]:
    """Every value below ``outputs`` that changes when some are replaced and symbolic sizes get numbers, with what it becomes.

    A value and what it becomes hold the same elements, so memory in which one was computed serves the other.
    """
    changed: dict[Value, Value] = dict(replaced)
    for value in topological(outputs):
        sized = numbers and any(is_symbolic(item) for _, item in value.attrs)
        if value in changed or not (sized or any(i in changed for i in value.inputs)):
            continue
        attrs = {name: resolve(item, numbers) if sized and numbers else item for name, item in value.attrs}
        new = make(value.op, [changed.get(i, i) for i in value.inputs], **attrs)
        if new.buffer is None:
            new.buffer = value.buffer
        changed[value] = new
    return changed


def expand(outputs: list[Value], order: list[Value], inserted: Mapping[Value, Value]) -> dict[Value, Value]:
    """What the values in ``order`` (a history of ``outputs``) become with deferred graphs written out; often nothing.

    ``inserted`` says what else is put in place of some of them.
    """
    found: dict[Value, Value] = {}
    for value in order:
        if value.op == "input":
            role = lazy.role_of(value)
            if isinstance(role, lazy.Deferred):
                graph = substitute([role.value], role.bound, role.numbers)[role.value]
                if graph.buffer is None and graph.op != "input":
                    graph.buffer = value.buffer
                found[value] = graph
    for value, call in inserted.items():
        found[value] = call if value not in found else substitute([call], {value: found[value]})[call]
    return substitute(outputs, found) if found else {}
