"""The graph verifier: infers every value's type again and says what is wrong where.

``make`` checks a value when it is built; the verifier holds passes to the same rules afterwards, and catches
values that were built around ``make``.
"""

from __future__ import annotations

from collections.abc import Iterable

from tilewright.core.diagnostics import TilewrightError
from tilewright.graph.body import bodies
from tilewright.graph.ir import OPS, Value, constant, make, topological
from tilewright.graph.text import format_value

__all__ = ["GraphError", "problems", "verify"]


class GraphError(TilewrightError):
    """A graph breaks a rule of the IR: a mistake in the code that built it, not in the user's program."""


def verify(outputs: Iterable[Value], inputs: Iterable[Value] | None = None, after: str = "") -> None:
    """Raise ``GraphError`` with every problem of the graph; ``after`` names the pass that has just run.

    With ``inputs``, the outputs may depend on no other leaves.
    """
    found = problems(outputs, inputs)
    if found:
        title = f"the graph is not well formed{f' after {after}' if after else ''}:"
        raise GraphError("\n".join([title, *(f"- {p}" for p in found)]))


def problems(outputs: Iterable[Value], inputs: Iterable[Value] | None = None) -> list[str]:
    """Every broken rule as one line: what is wrong, and the value as it prints."""
    given = None if inputs is None else set(inputs)
    label: dict[Value, str] = {}
    found = []
    for value in topological(outputs, stop=(given or set()).__contains__):
        label[value] = str(len(label))
        if given is not None and value in given:
            continue
        wrong = _problem(value)
        if wrong is None and value.op == "input" and given is not None:
            wrong = "this leaf is not among the graph's inputs"
        if wrong is not None:
            found.append(f"{wrong}, at {_line(value, label)}")
    return found


def _problem(value: Value) -> str | None:
    row = OPS.get(value.op)
    if row is None:
        return f"there is no operation {value.op!r}"
    attrs = dict(value.attrs)
    if tuple(attrs) != row.attrs:
        return f"the static arguments are {tuple(attrs)} and not {row.attrs}"
    if row.arity is not None and len(value.inputs) != row.arity:
        return f"there are {len(value.inputs)} operands and not {row.arity}"
    try:
        inferred = row.infer(tuple(v.type for v in value.inputs), attrs)
    except (TypeError, ValueError) as error:
        return str(error)
    for body in bodies(value):
        inside = problems(body.outputs, body.inputs)
        if inside:
            return f"in the body: {inside[0]}"
    if inferred != value.type:
        return f"the type is {value.type} and should be {inferred}"
    if value.op == "input":
        return None
    same = constant(**attrs) if value.op == "constant" else make(value.op, value.inputs, **attrs)
    return None if same is value else "the value was built around make() and has a twin"


def _line(value: Value, label: dict[Value, str]) -> str:
    try:
        return format_value(value, label)
    except (TypeError, ValueError, KeyError):
        return repr(value)
