"""Variants: what a jitted function keeps of one trace. How a variant comes about is in ``compile``, how it is called in
``jitted``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tilewright.core.trees import Structure
from tilewright.graph.ir import TensorType, Value
from tilewright.graph.sizes import resolve
from tilewright.runtime.buffers import CHANGES, Buffer, stamp
from tilewright.tensor import Tensor, execute

__all__ = [
    "ARGUMENT",
    "CAPTURED",
    "FIXED",
    "GRADIENT",
    "OBJECT",
    "OUTPUT",
    "RETURNED_ARGUMENT",
    "RETURNED_GRADIENT",
    "SIZE",
    "Variant",
]

CAPTURED, GRADIENT, ARGUMENT, FIXED, SIZE = range(5)  # kinds of inputs
OUTPUT, RETURNED_ARGUMENT, OBJECT, RETURNED_GRADIENT = range(4)  # kinds of results


class Variant:
    """One trace, compiled: where its inputs come from and where its results go."""

    def __init__(self) -> None:
        self.inline = False
        # Results that may be differentiated later: output position -> traced value. Their history needs to know what
        # every placeholder stood for.
        self.recorded: dict[int, Value] = {}
        self.placeholders: list[
            tuple[Value, int, Any]
        ] = []  # placeholder, kind and source of what it stands for
        self.written = False  # whether tensors from outside are written
        self.program: execute.Program | None = None
        self.plan: Any = None  # how calls run without Python code (``native``); None: not looked at yet
        # inputs in order: (captured tensor | its owner | argument position | fixed buffer), as parallel plain tuples
        self.binds: list[
            tuple[int, Any, TensorType, int]
        ] = []  # (kind, source, type, write it is donated to or -1)
        self.guards: list[tuple[Any, str, Any]] = []
        self.grad_guards: list[tuple[Tensor, bool]] = []
        self.handles: set[int] = set()  # identities of captured tensors
        self.structure: Structure = Structure("leaf")
        self.results: list[
            tuple[int, Any]
        ] = []  # (kind, output position | argument position | object | owner)
        self.captured_types: list[tuple[Tensor, TensorType, bool]] = []
        self.gradient_types: list[tuple[Tensor, TensorType, bool]] = []  # by owner
        self.writes: list[tuple[Tensor, int]] = []  # captured tensor, output position
        self.other_writes: list[tuple[int, Any, int]] = []  # (kind of source, source, output position)
        self.keep: list[Tensor] = []  # arguments told apart by identity
        self.grads: list[tuple[Tensor, int]] = []  # tensor, output position or -1 for None
        self.types: list[TensorType] = []  # of the program's outputs by position
        self.symbolic = False  # whether some of them have symbolic sizes
        self._bound: tuple[dict[str, int], list[TensorType]] | None = (
            None  # the last numbers, and the types then
        )
        # The last versions of settled inputs, and what was prepared from these
        self._prepared: tuple[list[int], list[Buffer]] | None = None

    def types_for(self, numbers: dict[str, int]) -> list[TensorType]:
        """The types of the outputs where symbolic sizes have these numbers."""
        if not self.symbolic:
            return self.types
        bound = self._bound
        if bound is None or bound[0] != numbers:
            bound = numbers, [TensorType(t.dtype, resolve(t.shape, numbers)) for t in self.types]
            self._bound = bound  # in one piece: other threads may call at other sizes
        return bound[1]

    def prepared(self, buffers: Sequence[Buffer]) -> list[Buffer] | None:
        """What settled inputs alone decide, kept from an earlier call where they have not changed since. None: nothing to
        keep, or an input that others may write at any time."""
        assert self.program is not None
        executable = self.program.executable
        if executable is None or executable.preparation is None:
            return None
        found = self._prepared
        versions = [buffers[i].version for i in executable.settled]
        if found is None or found[0] != versions:
            if CHANGES in versions:
                return None
            versions = [stamp(buffers[i]) for i in executable.settled]
            found = versions, executable.prepare(buffers)
            self._prepared, self.plan = found, None  # in one piece, as above
        return found[1]

    def settled_memory(self) -> list[Buffer]:
        """What ``prepared`` has kept; nothing where there is nothing to keep."""
        return self._prepared[1] if self._prepared is not None else []

    def settled_versions(self) -> list[tuple[int, int]]:
        """Positions of the inputs that it was made from, with their versions then."""
        if self._prepared is None:
            return []
        assert self.program is not None and self.program.executable is not None
        return list(zip(self.program.executable.settled, self._prepared[0], strict=True))

    def fits(self) -> bool:
        """Whether what the trace depended on besides its arguments is as it was."""
        for owner, attribute, value in self.guards:
            if getattr(owner, attribute) != value:
                return False
        for tensor, absent in self.grad_guards:
            if (tensor._grad is None) is not absent:
                return False
        for tensor, type, required_grad in self.captured_types:
            if tensor._requires_grad is not required_grad:  # frozen or thawed since
                return False
            if tensor._value.type is not type and tensor._value.type != type:
                return False
        for tensor, type, required_grad in self.gradient_types:
            gradient = tensor._grad
            if gradient is None or gradient._requires_grad is not required_grad:
                return False
            if gradient._value.type is not type and gradient._value.type != type:
                return False
        return True
