"""The body of a loop or branch: a small graph that is a static argument of an operation.

A ``Body`` is canonical: its inputs are leaves numbered by position and it has no marks, so that bodies that compute
the same are equal, and values that differ in nothing else are one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tilewright.graph.ir import TensorType, Value, input_value, make, topological

__all__ = ["Body", "besides", "bodies", "rebuild"]


@dataclass(frozen=True)
class Body:
    """The computation of ``outputs`` from ``inputs``, which are ``input_value(..., id=0)``, ``id=1``, ...

    >>> from tilewright.core import dtype as dt
    >>> x = input_value(dt.float32, (2,))
    >>> Body.of([x], [make("exp", (x,))]).types
    (float32[2],)
    """

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]

    @classmethod
    def of(cls, inputs: Sequence[Value], outputs: Sequence[Value]) -> Body:
        """The body that computes ``outputs`` from ``inputs``: leaves, or interior values that are given.

        Raises ``ValueError`` when the outputs depend on another leaf.
        """
        leaves = tuple(input_value(v.dtype, v.shape, id=n) for n, v in enumerate(inputs))
        given = dict(zip(inputs, leaves, strict=True))
        for value in topological(outputs, stop=given.__contains__):
            if value.op == "input" and value not in given:
                raise ValueError(f"the outputs depend on {value!r}, which is not among the body's inputs")
        return cls(leaves, tuple(_unmarked(outputs, given)))

    def __repr__(self) -> str:
        count = len(topological(self.outputs, stop=set(self.inputs).__contains__))
        return f"Body({len(self.inputs)} inputs, {count} values, {len(self.outputs)} outputs)"

    @property
    def types(self) -> tuple[TensorType, ...]:
        """The types of the outputs."""
        return tuple(v.type for v in self.outputs)

    def apply(self, operands: Sequence[Value]) -> list[Value]:
        """The outputs for operands of the inputs' types."""
        return rebuild(self.outputs, dict(zip(self.inputs, operands, strict=True)))

    def leaves(self) -> list[Value]:
        """Fresh leaves of the inputs' types."""
        return [input_value(v.dtype, v.shape) for v in self.inputs]


def besides(outputs: Sequence[Value], inputs: Iterable[Value]) -> list[Value]:
    """The leaves that ``outputs`` read and that are not among ``inputs``, nor below one of them: what a derivative rule of the
    user's own reads from outside, or makes of numbers."""
    own = set(inputs)
    order = topological(outputs, stop=own.__contains__)
    return [v for v in order if v.op == "input" and v not in own]


def bodies(value: Value) -> tuple[Body, ...]:
    """The bodies among the static arguments of a loop or switch; other operations have none."""
    found: list[Body] = []
    for _, item in value.attrs:
        found += [b for b in (item if isinstance(item, tuple) else (item,)) if isinstance(b, Body)]
    return tuple(found)


def rebuild(outputs: Sequence[Value], replacements: Mapping[Value, Value]) -> list[Value]:
    """``outputs`` with some values replaced by others of the same type, wherever they are used.

    Marks get the numbers 0, 1, ... in the order of their first use.
    """
    new: dict[Value, Value] = {}
    marks: dict[int, int] = {}
    for value in topological(outputs, stop=replacements.__contains__):
        if value in replacements:
            new[value] = replacements[value]
        elif not value.inputs:
            new[value] = value
        else:
            attrs = dict(value.attrs)
            if value.op == "mark":
                attrs["id"] = marks.setdefault(attrs["id"], len(marks))
            new[value] = make(value.op, [new[v] for v in value.inputs], **attrs)
    return [new[v] for v in outputs]


def _unmarked(outputs: Sequence[Value], replacements: Mapping[Value, Value]) -> list[Value]:
    new: dict[Value, Value] = {}
    for value in topological(outputs, stop=replacements.__contains__):
        if value in replacements:
            new[value] = replacements[value]
        elif value.op == "mark":
            new[value] = new[value.inputs[0]]
        elif not value.inputs:
            new[value] = value
        else:
            new[value] = make(value.op, [new[v] for v in value.inputs], **dict(value.attrs))
    return [new[v] for v in outputs]
