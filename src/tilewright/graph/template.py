"""Templates: a piece of graph recorded once and built again over other operands.

The result is what recording it anew would give, node by node, without the work of finding out which nodes and of which
types. It holds for operands of the types it was recorded for; that is for the caller to see to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tilewright.graph.ir import TensorType, Value, build, topological
from tilewright.graph.ops import ANCHORS

__all__ = ["Template"]

_ANCHORS = frozenset(ANCHORS)


class Template:
    """How ``output`` is made of ``inputs``, which are leaves.

    ``chain`` is the longest run of elementwise operations that ends at the output; ``open`` says whether it begins at an
    input.
    """

    __slots__ = ("chain", "open", "output", "rows", "start")

    def __init__(self, inputs: Sequence[Value], output: Value) -> None:
        numbers = {value: n for n, value in enumerate(inputs)}
        order = topological([output], stop=numbers.__contains__)
        # Leaves of its own, such as constants, are the same in every graph; they follow the operands.
        self.start = tuple(v for v in order if v not in numbers and not v.inputs)
        for value in self.start:
            numbers[value] = len(numbers)
        self.rows: list[tuple[str, tuple[int, ...], tuple[tuple[str, Any], ...], TensorType]] = []
        runs: dict[Value, tuple[int, bool]] = dict.fromkeys(inputs, (0, True))
        for value in order:
            if value in numbers:
                continue
            self.rows.append((value.op, tuple(numbers[i] for i in value.inputs), value.attrs, value.type))
            numbers[value] = len(numbers)
            below = [runs.get(i, (0, False)) for i in value.inputs]
            runs[value] = (
                (0, False)
                if value.op in _ANCHORS
                else (1 + max(length for length, _ in below), any(begins for _, begins in below))
            )
        self.output = numbers[output]
        self.chain, self.open = runs.get(output, (0, True))

    def build(self, operands: Sequence[Value]) -> Value:
        """The output over other operands."""
        values = [*operands, *self.start]
        for op, inputs, attrs, type in self.rows:
            values.append(build(op, tuple([values[i] for i in inputs]), attrs, type))
        return values[self.output]
