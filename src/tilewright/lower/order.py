"""The order in which values are visited to form groups: operands first, and short reductions of what is there anyway before all
else.

A group reads older groups only. How many labels of a batch count is a sum over labels that the rows of a loss's gradient read;
were it visited after the loss, the gradient could not join the rows that the loss passes over.
"""

from __future__ import annotations

from collections.abc import Iterable

from tilewright.core.scalar import SCALAR_OPS
from tilewright.core.shape import is_static
from tilewright.graph.ir import Value, topological
from tilewright.lower.read import COMBINE, REWRITES

__all__ = ["visiting_order"]

SHORT = 1 << 14  # elements of a reduction that takes about as long as starting it
SHORTER = 8  # times, than the longest reduction


def visiting_order(outputs: Iterable[Value]) -> list[Value]:
    """All values that the outputs depend on."""
    order = topological(outputs)
    reductions = [v for v in order if v.op in COMBINE and is_static(v.inputs[0].shape)]
    most = min(max((v.inputs[0].type.size for v in reductions), default=0) // SHORTER, SHORT)
    short = [v for v in reductions if v.inputs[0].type.size <= most]
    plain = _plain(order, most) if short else set()
    first = sorted((v for v in short if v.inputs[0] in plain), key=lambda v: v.inputs[0].type.size)
    if not first:
        return order
    front = topological(first)
    ahead = set(front)
    return [*front, *(v for v in order if v not in ahead)]


def _plain(order: list[Value], most: int) -> set[Value]:
    """The values that are computed element by element from inputs and constants, of no more elements than ``most``."""
    found = set[Value]()
    for v in order:
        through = v.op in SCALAR_OPS or v.op in REWRITES or v.op in ("cast", "bitcast")
        leaf = v.op in ("input", "constant", "iota")
        if (leaf or through) and is_static(v.shape) and v.type.size <= most and found.issuperset(v.inputs):
            found.add(v)
    return found
