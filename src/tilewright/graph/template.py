"""Templates: a piece of graph recorded once and built again over other operands.

The result is what recording it anew would give, node by node, without the work of finding out which nodes and of which
types. It holds for operands of the types it was recorded for; that is for the caller to see to.

``pack`` gives the result as one value that is written out when somebody looks into it. Most of an eager step never does:
what is computed is known by the templates and how they hang together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakValueDictionary

from tilewright.graph.ir import TensorType, Value, build, packed_value, topological, write_out
from tilewright.graph.ops import ANCHORS

__all__ = ["Kind", "Template"]

_ANCHORS = frozenset(ANCHORS)
# What has a rule of the user's, and what stands for a variable of one derivative, is seen in the graph.
_SEEN = frozenset(("custom", "mark"))


class Kind:
    """What a template makes of any operands of its types: equal templates have the same one."""

    __slots__ = ("__weakref__", "fixed", "rows")

    def __init__(self, rows: tuple[Any, ...], fixed: tuple[Value, ...]) -> None:
        self.rows = rows
        self.fixed = fixed

    def build(self, operands: Sequence[Value]) -> Value:
        """The result over other operands."""
        values = [*operands, *self.fixed]
        for op, inputs, attrs, type in self.rows:
            values.append(build(op, tuple([values[i] for i in inputs]), attrs, type))
        return values[-1]


_kinds: WeakValueDictionary[Any, Kind] = WeakValueDictionary()


class Template:
    """How ``output`` is made of ``inputs``, which are leaves.

    ``chain`` is the longest run of elementwise operations that ends at the output; ``open`` says whether it begins at an
    input, ``anchor`` whether the output is of an operation that ends such runs. Constants that ``varies`` picks are operands
    like the inputs, so that templates that differ in them are of one kind. Operands stand in the order in which the graph
    first reads them: numbered over packed values, it has the leaves in the order that it has written out.
    """

    __slots__ = (
        "anchor", "chain", "flows", "kind", "open", "packs", "picks", "rows", "start", "type", "varying",
    )  # fmt: skip

    def __init__(
        self, inputs: Sequence[Value], output: Value, varies: Callable[[Value], bool] = lambda _: False
    ) -> None:
        given = {value: n for n, value in enumerate(inputs)}
        order = topological([output], stop=given.__contains__)
        # Leaves of its own, such as constants, are the same in every graph.
        self.start = tuple(v for v in order if v not in given and not v.inputs)
        self.varying = tuple(v for v in self.start if v.op == "input" or varies(v))
        for value in self.varying:
            given[value] = len(given)
        operands = [v for v in order if v in given]
        picks = tuple(given[v] for v in operands)
        self.picks = None if picks == tuple(range(len(inputs))) else picks
        fixed = tuple(v for v in self.start if v not in given)
        numbers = {value: n for n, value in enumerate((*operands, *fixed))}
        rows: list[tuple[str, tuple[int, ...], tuple[tuple[str, Any], ...], TensorType]] = []
        runs: dict[Value, tuple[int, bool]] = dict.fromkeys(inputs, (0, True))
        for value in order:
            if value in numbers:
                continue
            rows.append((value.op, tuple(numbers[i] for i in value.inputs), value.attrs, value.type))
            numbers[value] = len(numbers)
            below = [runs.get(i, (0, False)) for i in value.inputs]
            runs[value] = (
                (0, False)
                if value.op in _ANCHORS
                else (1 + max(length for length, _ in below), any(begins for _, begins in below))
            )
        self.rows = tuple(rows)
        self.chain, self.open = runs.get(output, (0, True))
        self.anchor = output.op in _ANCHORS
        self.type = output.type
        self.flows = _flows(output, operands)
        self.packs = bool(rows) and not any(op in _SEEN for op, _, _, _ in rows)
        key = (self.rows, fixed, len(operands))
        kind = _kinds.get(key)
        self.kind = _kinds.setdefault(key, Kind(self.rows, fixed)) if kind is None else kind

    def pack(self, operands: tuple[Value, ...]) -> Value:
        """The output over other operands, as one value where it can be."""
        if self.picks is not None:
            given = (*operands, *self.varying)
            operands = tuple([given[n] for n in self.picks])
        return packed_value(self, operands, self.type) if self.packs else self.kind.build(operands)

    def write_out(self, value: Value, operands: tuple[Value, ...]) -> None:
        """Make an ordinary value of a packed one, over the values that its operations make on the way."""
        values = [*operands, *self.kind.fixed]
        for op, inputs, attrs, type in self.rows[:-1]:
            values.append(build(op, tuple([values[i] for i in inputs]), attrs, type))
        op, inputs, attrs, _ = self.rows[-1]
        write_out(value, op, tuple([values[i] for i in inputs]), attrs)


def _flows(output: Value, operands: Sequence[Value]) -> tuple[int, ...]:
    """Which operands a derivative of the output can flow to."""
    seen: set[Value] = set()
    stack = [output]
    while stack:
        value = stack.pop()
        if value not in seen:
            seen.add(value)
            if value.op != "stop_gradient":
                stack.extend(i for i in value.inputs if i.type.dtype.is_inexact)
    return tuple(n for n, value in enumerate(operands) if value in seen)
