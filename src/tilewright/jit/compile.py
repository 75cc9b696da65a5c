"""From a finished trace to a variant: which values to compute, what to bind, what to write back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tilewright import compiler
from tilewright.core.trees import flatten
from tilewright.graph.ir import Value, topological
from tilewright.graph.sizes import is_symbolic, size_leaf
from tilewright.jit.variant import (
    ARGUMENT,
    CAPTURED,
    FIXED,
    GRADIENT,
    OBJECT,
    OUTPUT,
    RETURNED_ARGUMENT,
    RETURNED_GRADIENT,
    SIZE,
    Variant,
)
from tilewright.tensor import Tensor, execute, lazy
from tilewright.tensor.gradients import differentiable
from tilewright.tensor.sizes import DynamicSizes
from tilewright.tensor.trace import Captured, Trace

__all__ = ["TraceCompiler"]


class TraceCompiler:
    """From a finished trace to a variant: which values to compute, what to bind, what to write back."""

    def __init__(
        self,
        keep_grads: bool,
        sizes: DynamicSizes | None,
        trace: Trace,
        leaves: Sequence[Any],
        arguments: Sequence[Any],
        placeholders: Sequence[Value],
    ) -> None:
        self.keep_grads = keep_grads
        self.sizes = sizes
        self.trace = trace
        self.leaves = [leaf for a, leaf in zip(arguments, leaves, strict=True) if a is leaf]
        self.placeholders = placeholders
        dynamic = [(a, leaf) for a, leaf in zip(arguments, leaves, strict=True) if a is not leaf]
        self.arguments: dict[int, int] = {id(a): i for i, (a, _) in enumerate(dynamic)}
        self.stand_ins: list[Tensor] = [a for a, _ in dynamic]
        self.writable = [
            isinstance(leaf, Tensor) for _, leaf in dynamic
        ]  # an array is the caller's: only read
        self.values: list[Value] = []
        self.variant = Variant()

    def output(self, value: Value) -> int:
        """The position of a value among the program's outputs."""
        if value in self.values:
            return self.values.index(value)
        self.values.append(value)
        return len(self.values) - 1

    def compile(self, result: Any) -> Variant:
        variant, trace = self.variant, self.trace
        self._results(result)
        self._writes()
        self._gradients()
        if trace.history_outside:
            variant.inline = True
        variant.guards = list(trace.watched)
        variant.keep = [leaf for leaf in self.leaves if isinstance(leaf, Tensor)]
        if variant.inline:
            return variant
        by_placeholder: dict[Value, tuple[int, Any]] = {
            p: (ARGUMENT, i) for i, p in enumerate(self.placeholders)
        }
        for entry in trace.captured.values():
            by_placeholder[entry.placeholder] = self._source(entry)
            if entry.owner is None:
                variant.handles.add(id(entry.tensor))
        if self.sizes is not None:
            for size in self.sizes.sizes.values():
                by_placeholder[size_leaf(size)] = (SIZE, size.name)
        if (
            variant.recorded
            and self.sizes is not None
            and any(v.op == "custom" for v in topological(self.values))
        ):  # a rule of the user's may hold shapes
            raise compiler.NeedsNumbers(
                "rule", "a result that is differentiated later has a derivative of its own"
            )
        if variant.recorded:
            variant.placeholders = [(p, *source) for p, source in by_placeholder.items()]
        planned = execute.plan(self.values, eager=False, bound=by_placeholder)
        donated = self._donations(planned)
        variant.program = execute.program(planned, donated, self._settled(planned, by_placeholder))
        for position, leaf in enumerate(planned.leaves):
            kind, source = by_placeholder.get(leaf, (FIXED, leaf.buffer))
            variant.binds.append((kind, source, leaf.type, donated.get(position, -1)))
        variant.types = [v.type for v in self.values]
        variant.symbolic = any(is_symbolic(t.shape) for t in variant.types)
        variant.captured_types = [
            (e.tensor, e.placeholder.type, e.required_grad)
            for e in trace.captured.values()
            if e.owner is None
        ]
        variant.gradient_types = [
            (e.owner, e.placeholder.type, e.required_grad)
            for e in trace.captured.values()
            if e.owner is not None
        ]
        variant.written = bool(variant.writes or variant.other_writes)
        return variant

    def _settled(self, planned: execute.Plan, by_placeholder: Mapping[Value, tuple[int, Any]]) -> list[int]:
        """Positions of leaves that the function does not write: captured tensors, and values that the trace has fixed. Others may
        write them between calls, so each call compares the versions of their memory (``Variant.prepared``)."""
        written = {id(tensor) for tensor, _ in self.variant.writes}

        def keeps(leaf: Value) -> bool:
            kind, source = by_placeholder.get(leaf, (FIXED, None))
            return kind == FIXED or (kind == CAPTURED and id(source) not in written)

        return [position for position, leaf in enumerate(planned.leaves) if keeps(leaf)]

    def _source(self, entry: Captured) -> tuple[int, Any]:
        return (CAPTURED, entry.tensor) if entry.owner is None else (GRADIENT, entry.owner)

    def _results(self, result: Any) -> None:
        leaves, self.variant.structure = flatten(result)
        for leaf in leaves:
            owner = self.trace.owner(leaf)
            if owner is not None:
                self.variant.results.append((RETURNED_GRADIENT, owner))
            elif (
                not isinstance(leaf, Tensor)
                or leaf._trace is not self.trace
                or id(leaf) in self.trace.captured
            ):
                self.variant.results.append((OBJECT, leaf))
            elif id(leaf) in self.arguments and self._is_given_back(self.arguments[id(leaf)]):
                self.variant.results.append((RETURNED_ARGUMENT, self.arguments[id(leaf)]))
            else:
                position = self.output(leaf._value)
                if leaf._requires_grad and differentiable(leaf._value):
                    self.variant.recorded[position] = leaf._value
                self.variant.results.append((OUTPUT, position))

    def _is_given_back(self, index: int) -> bool:
        """Whether a returned argument is the caller's own object: a tensor, or an array that was not written."""
        return self.writable[index] or self.stand_ins[index]._value is self.placeholders[index]

    def _writes(self) -> None:
        for entry in self.trace.captured.values():
            tensor = entry.tensor
            if tensor._value is entry.placeholder:
                continue
            if tensor._requires_grad and not tensor._leaf and differentiable(tensor._value):
                self.variant.inline = True
            position = self.output(tensor._value)
            if entry.owner is None:
                self.variant.writes.append((tensor, position))
            else:
                self.variant.other_writes.append((GRADIENT, entry.owner, position))
        for index, (stand_in, placeholder) in enumerate(zip(self.stand_ins, self.placeholders, strict=True)):
            if self.writable[index] and stand_in._value is not placeholder:
                if stand_in._requires_grad and differentiable(stand_in._value):
                    self.variant.inline = True
                self.variant.other_writes.append((ARGUMENT, index, self.output(stand_in._value)))

    def _gradients(self) -> None:
        for tensor, before in self.trace.grads.values():
            if tensor._trace is self.trace and id(tensor) not in self.trace.captured:
                continue  # made by the trace itself
            self.variant.grad_guards.append((tensor, before is None))
            now = tensor._grad
            if self.trace.owner(now) is tensor or (now is None and before is None):
                continue
            if now is None or not self.keep_grads:
                self.variant.grads.append((tensor, -1))
            else:
                lazy.check_usable(now)
                if now._requires_grad and differentiable(now._value):
                    self.variant.inline = True
                self.variant.grads.append((tensor, self.output(now._value)))

    def _donations(self, planned: execute.Plan) -> dict[int, int]:
        """Written tensors whose old elements are an input and not a result: leaf position -> output position."""
        position = {leaf: i for i, leaf in enumerate(planned.leaves)}
        passed = {planned.leaf_of[n] for n in planned.outputs if n in planned.leaf_of}
        old = {id(e.tensor): e.placeholder for e in self.trace.captured.values()}
        donated: dict[int, int] = {}
        written = [(old[id(t)], output) for t, output in self.variant.writes]
        written += [
            (self.placeholders[i], output)
            for kind, i, output in self.variant.other_writes
            if kind == ARGUMENT
        ]
        for placeholder, output in written:
            leaf = position.get(placeholder)
            if leaf is not None and leaf not in passed and planned.outputs[output] not in planned.leaf_of:
                donated[leaf] = output
        taken: dict[int, int] = {}
        return {
            leaf: out for leaf, out in donated.items() if taken.setdefault(planned.outputs[out], leaf) == leaf
        }
