"""Calls with a derivative rule of their own: what such a rule is, and the two that need no user.

The operation ``custom`` holds a call: its first operands are the results, the others what they depend on, and
``rule`` says how cotangents and tangents pass from one to the other. Execution only sees the results. Transforms
rebuild the operands, so a call can be differentiated, batched and substituted like any other value.

``call`` builds one. ``Checkpoint`` computes a part of the graph anew in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from tilewright.autodiff.jvp import jvp
from tilewright.autodiff.vjp import dependent, vjp
from tilewright.graph.ir import Value, make, topological

__all__ = ["Checkpoint", "CustomRule", "Policy", "call", "captures", "checkpoint", "substitute", "transposed"]

Policy = Callable[[Value], bool]  # whether a value inside a checkpoint is kept all the same


class CustomRule(Protocol):
    """How derivatives pass through a call. Two rules are the same when they are equal.

    ``None`` among cotangents or tangents is zero. Values are those of the call the derivative is taken of.
    ``reads_graph`` says that the rule follows the graph from the results to the operands; it then holds for many
    examples as it stands. Other rules are those of one example.
    """

    reads_graph: bool

    def vjp(
        self, outputs: Sequence[Value], operands: Sequence[Value], cotangents: Sequence[Value]
    ) -> Sequence[Value | None]: ...

    def jvp(
        self, outputs: Sequence[Value], operands: Sequence[Value], tangents: Sequence[Value | None]
    ) -> Sequence[Value | None]: ...


def call(rule: CustomRule, outputs: Sequence[Value], operands: Sequence[Value]) -> list[Value]:
    """The results of a call whose derivatives with respect to ``operands`` are given by ``rule``."""
    inputs = (*outputs, *operands)
    return [make("custom", inputs, rule=rule, outputs=len(outputs), index=i) for i in range(len(outputs))]


def substitute(outputs: Sequence[Value], replacements: Mapping[Value, Value]) -> list[Value]:
    """The outputs with some values replaced; what depends on none of them stays as it is."""
    return _rebuilt(outputs, replacements, None)


def _rebuilt(
    outputs: Sequence[Value], replacements: Mapping[Value, Value], policy: Policy | None
) -> list[Value]:
    new: dict[Value, Value] = {}
    for value in topological(outputs, stop=replacements.__contains__):
        if value in replacements:
            new[value] = replacements[value]
        elif all(new[v] is v for v in value.inputs):
            new[value] = value
        else:
            new[value] = make(value.op, [new[v] for v in value.inputs], **dict(value.attrs))
            if policy is not None and policy(value):
                (new[value],) = call(Kept(), (value,), (new[value],))
    return [new[v] for v in outputs]


def captures(outputs: Sequence[Value], operands: Sequence[Value]) -> list[Value]:
    """What the outputs read besides ``operands``: values that depend on none of them, next to values that do."""
    own = set(operands)
    below: set[Value] = set(own)
    found: dict[Value, None] = {}
    order = topological(outputs, stop=own.__contains__)
    for value in order:
        if any(v in below for v in value.inputs):
            below.add(value)
    for value in order:
        if value in below and value not in own:
            for v in value.inputs:
                if v not in below and v.op not in ("constant", "iota") and v.dtype.is_inexact:
                    found[v] = None
    return list(found)


def transposed(
    pull: Callable[[Sequence[Value]], Sequence[Value | None]],
    seeds: Sequence[Value],
    tangents: Sequence[Value | None],
) -> list[Value | None]:
    """The transpose of a linear function from cotangents to cotangents, applied to tangents.

    ``pull`` maps values of the types of ``seeds`` to one value per tangent. ``seeds`` are variables to differentiate
    with respect to; where ``pull`` is not linear, its derivative at ``seeds`` is taken.
    """
    images = pull(seeds)
    pairs = [(v, t) for v, t in zip(images, tangents, strict=True) if v is not None and t is not None]
    return vjp([v for v, _ in pairs], [t for _, t in pairs], seeds)


# ---- recomputation ---------------------------------------------------------------------------------------------


class Kept:
    """The rule of a value that is known already, and whose derivative is that of its operand, its recomputation."""

    reads_graph = True

    def __repr__(self) -> str:
        return "kept"

    def __hash__(self) -> int:
        return hash(Kept)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Kept)

    def vjp(
        self, outputs: Sequence[Value], operands: Sequence[Value], cotangents: Sequence[Value]
    ) -> Sequence[Value | None]:
        return cotangents

    def jvp(
        self, outputs: Sequence[Value], operands: Sequence[Value], tangents: Sequence[Value | None]
    ) -> Sequence[Value | None]:
        return tangents


class Checkpoint:
    """The rule of a call whose interior is not kept: the backward pass computes it anew from the operands.

    A barrier on the cotangents keeps the second computation apart from the first and after it; another keeps what
    comes next waiting until all that needs this computation is done, so that only one is held at a time. ``policy``
    names interior values that are kept all the same.

        before   y = sin(sin(x));  dx = g * cos(sin(x)) * cos(x), where sin(x) was kept
        after    y = sin(sin(x));  x' = barrier(x, g);  dx = g * cos(sin(x')) * cos(x')
    """

    reads_graph = True

    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = policy

    def __repr__(self) -> str:
        return "checkpoint"

    def __hash__(self) -> int:
        return hash((Checkpoint, self.policy))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Checkpoint) and self.policy == other.policy

    def vjp(
        self, outputs: Sequence[Value], operands: Sequence[Value], cotangents: Sequence[Value]
    ) -> list[Value | None]:
        again = [make("barrier", (v, *cotangents)) for v in operands]
        computed = _rebuilt(outputs, dict(zip(operands, again, strict=True)), self.policy)
        found = vjp(computed, cotangents, again)
        ends = [g for v, g in zip(operands, found, strict=True) if g is not None and _is_leaf(v)]
        return [
            g if g is None or not ends or _is_leaf(v) else make("barrier", (g, *ends))
            for v, g in zip(operands, found, strict=True)
        ]

    def jvp(
        self, outputs: Sequence[Value], operands: Sequence[Value], tangents: Sequence[Value | None]
    ) -> list[Value | None]:
        moved = jvp(outputs, operands, tangents)
        given = [v for v in moved if v is not None]
        more = [t for t in tangents if t is not None]
        calls = iter(call(self, given, (*operands, *more)))
        return [None if v is None else next(calls) for v in moved]


def _is_leaf(v: Value) -> bool:
    """Whether a cotangent ends here: a parameter, perhaps under a mark or repeated."""
    while v.op in ("mark", "cast", "broadcast", "reshape", "permute"):
        v = v.inputs[0]
    return not v.inputs


def checkpoint(
    outputs: Sequence[Value], operands: Sequence[Value], policy: Policy | None = None
) -> list[Value]:
    """The outputs, whose interior between them and ``operands`` is computed anew for derivatives.

    What the interior reads besides ``operands`` becomes an operand too, so that derivatives reach it.
    """
    everything = [*dict.fromkeys(operands), *captures(outputs, operands)]
    moving = dependent(outputs, everything)
    chosen = [v for v in outputs if v in moving]
    calls = dict(zip(chosen, call(Checkpoint(policy), chosen, everything), strict=True)) if chosen else {}
    return [calls.get(v, v) for v in outputs]
