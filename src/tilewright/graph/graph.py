"""A graph: the inputs and outputs of a computation, with its text, its canonical form and its content hash.

Values are shared between graphs; a ``Graph`` only says where a computation begins and ends. Two computations
that differ in nothing but the identity of their leaves have one canonical form and one content hash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any

from tilewright.graph.body import rebuild
from tilewright.graph.ir import Value, input_value, topological
from tilewright.graph.text import parse_graph, print_graph

__all__ = ["Graph", "rebuild", "signature"]


@dataclass(frozen=True)
class Graph:
    """The computation of ``outputs`` from ``inputs`` (leaves, or interior values that are taken as given).

    >>> from tilewright.core import dtype as dt
    >>> from tilewright.graph.ir import make
    >>> x = input_value(dt.float32, (2,))
    >>> print(Graph.of([make("exp", (x,))]))
    graph(%0: float32[2]) {
        %1 = exp %0 : float32[2]
        return %1
    }
    <BLANKLINE>
    """

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", tuple(self.inputs))
        object.__setattr__(self, "outputs", tuple(self.outputs))
        if len(set(self.inputs)) != len(self.inputs):
            raise ValueError("a graph names each input once")
        given = set(self.inputs)
        for value in self.nodes():
            if value.op == "input" and value not in given:
                raise ValueError(f"the outputs depend on {value!r}, which is not among the graph's inputs")

    @classmethod
    def of(cls, outputs: Iterable[Value], stop: Callable[[Value], bool] | None = None) -> Graph:
        """The graph of ``outputs``. Its inputs: leaves and values at which ``stop`` holds, by first use."""
        outputs = tuple(outputs)
        order = topological(outputs, stop)
        leaves = tuple(v for v in order if v.op == "input" or (stop is not None and stop(v)))
        return cls(leaves, outputs)

    @classmethod
    def parse(cls, text: str, inputs: Sequence[Value] | None = None) -> Graph:
        """The graph that was printed as ``text``; see ``text.parse_graph``."""
        return cls(*map(tuple, parse_graph(text, inputs)))

    def nodes(self) -> list[Value]:
        """The inputs that are used and every computed value, operands first."""
        return topological(self.outputs, stop=set(self.inputs).__contains__)

    @property
    def count(self) -> int:
        """Number of computed values."""
        given = set(self.inputs)
        return sum(v not in given for v in self.nodes())

    def text(self, names: Mapping[Value, str] | None = None) -> str:
        """The graph as text, the inputs with their ``names`` where given."""
        return print_graph(self, names)

    def __str__(self) -> str:
        return self.text()

    @cached_property
    def canonical(self) -> Graph:
        """The same computation over leaves numbered by position; equal graphs share its values."""
        leaves = [input_value(v.dtype, v.shape, id=n) for n, v in enumerate(self.inputs)]
        return Graph(tuple(leaves), tuple(rebuild(self.outputs, dict(zip(self.inputs, leaves, strict=True)))))

    @cached_property
    def content_hash(self) -> str:
        """The sha256 (hexadecimal) of the canonical text."""
        return sha256(self.canonical.text().encode()).hexdigest()


def signature(
    outputs: Sequence[Value], stop: Callable[[Value], bool] | None = None
) -> tuple[tuple[Any, ...], list[Value]]:
    """A hashable key that equal computations share, and their leaves in order of first use.

    Leaves are inputs and the values at which ``stop`` holds. Building the key makes no value: it is the fast
    way to look up a compiled program for a graph that was built anew.
    """
    number: dict[Value, int] = {}
    leaves: list[Value] = []
    marks: dict[int, int] = {}
    key: list[Any] = []
    for value in topological(outputs, stop):
        if value.op == "input" or (stop is not None and stop(value)):
            key.append(value.type)
            leaves.append(value)
        elif value.op == "constant":
            # As numbers, 0.0 equals -0.0 and NaN equals nothing.
            key.append((repr(value["value"]), value.dtype))
        elif value.op == "mark":
            key.append(("mark", number[value.inputs[0]], marks.setdefault(value["id"], len(marks))))
        else:
            key.append((value.op, value.attrs, *[number[v] for v in value.inputs]))
        number[value] = len(number)
    key.append(tuple(number[v] for v in outputs))
    return tuple(key), leaves
