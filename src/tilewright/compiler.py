"""From graph to running program: the whole pipeline on one page.

``compile`` takes the leaves and outputs of a graph and gives an ``Executable``; ``Executable.run`` takes one buffer per
leaf and gives one buffer per output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tilewright.graph import reference
from tilewright.graph.ir import Value
from tilewright.runtime.buffers import Buffer

__all__ = ["Executable", "compile"]


class Executable:
    """A compiled graph. ``run`` is the only thing most callers need."""

    def __init__(self, inputs: Sequence[Value], outputs: Sequence[Value], donated: Mapping[int, int]) -> None:
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.donated = dict(donated)

    def run(self, buffers: Sequence[Buffer]) -> list[Buffer]:
        """Compute every output. ``buffers[i]`` holds ``inputs[i]``; a donated input's memory may become its output's."""
        bound = {v: b.to_numpy() for v, b in zip(self.inputs, buffers, strict=True)}
        return [Buffer.from_numpy(a) for a in reference.evaluate(self.outputs, bound)]


def compile(inputs: Sequence[Value], outputs: Sequence[Value], donated: Mapping[int, int] | None = None) -> Executable:
    """Compile the graph that computes ``outputs`` from the leaves ``inputs``.

    ``donated`` maps an input's position to the output that may take over its memory (same type and shape): parameters
    and optimizer state that a step writes back.
    """
    return Executable(inputs, outputs, donated or {})
