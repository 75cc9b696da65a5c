"""What stays the same from run to run, or from iteration to iteration, and the steps that compute it: these run once.

Weights that a compiled function only reads, and the constants of a loop, are *settled* inputs. A value is settled when all
that it is made of is, and a step when all that it reads is. Settled steps leave the plan: in front of a loop, or into a
program of their own that runs when the weights have changed. Contractions make use of it: they lay a settled operand out once,
by a call of its own, instead of packing it in every task (``packing.py``).

    loop { pack w; h = tanh(x + h @ w) }    ->    pack w; loop { h = tanh(x + h @ w) }
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from tilewright.graph.ir import Value
from tilewright.lower.calls import Place
from tilewright.lower.groups import NESTS
from tilewright.lower.schedule import Step, has_checks

__all__ = ["hoist", "settled_values"]


def settled_values(inputs: Iterable[Value]) -> Callable[[Value], bool]:
    """Whether a value depends on these inputs and constants only."""
    known = dict.fromkeys(inputs, True)

    def settled(value: Value) -> bool:
        stack = [value]
        while stack:
            v = stack[-1]
            if v in known:
                stack.pop()
                continue
            waiting = [x for x in v.inputs if x not in known]
            if waiting:
                stack.extend(waiting)
                continue
            known[v] = v.op != "input" and v.op not in NESTS and all(known[x] for x in v.inputs)
            stack.pop()
        return known[value]

    return settled


def hoist(
    steps: Sequence[Step], inputs: Iterable[Value], outputs: Sequence[Place]
) -> tuple[list[Step], list[Step], list[Place]]:
    """The steps that settled inputs decide, the rest, and the places that the rest reads of what the former write.

    A step stays when it may fail, when it computes an output, or when a step that stays writes to the same place.
    """
    results, first = set(outputs), list(inputs)
    stays = [
        s.alone or any(map(has_checks, s.kernels())) or not results.isdisjoint(s.writes()) for s in steps
    ]
    changed = True
    while changed:
        changed = False
        touched = {p for s, stay in zip(steps, stays, strict=True) if stay for p in s.writes()}
        known: set[Place] = set(first)
        for n, s in enumerate(steps):
            if stays[n]:
                continue
            writes = set(s.writes())
            if touched.isdisjoint(writes) and known.issuperset(set(s.reads()) - writes):
                known |= writes
            else:
                stays[n] = changed = True
    early = [s for s, stay in zip(steps, stays, strict=True) if not stay]
    rest = [s for s, stay in zip(steps, stays, strict=True) if stay]
    read = {p for s in rest for p in s.reads()}
    return early, rest, [p for p in dict.fromkeys(p for s in early for p in s.writes()) if p in read]
