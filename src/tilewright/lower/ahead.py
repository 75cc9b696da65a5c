"""Operands that come from memory are asked for before they are read.

The processor's own requests stop where a page of 4 KiB ends, and the work of a few vectors fills its view where a loop computes,
so that it waits for memory and computes by turns. So a loop asks for what it reads some way ahead; where rows are passed over
several times, for the next ones, in the pass that computes most.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tilewright.core.shape import is_static
from tilewright.graph.ir import Value
from tilewright.lower.affine import Affine
from tilewright.lower.nest import Dim
from tilewright.lower.read import Access
from tilewright.recipes.machine import Machine

__all__ = ["AHEAD", "Ahead", "Walk", "asked_ahead"]

AHEAD = 8192  # bytes of all operands: two pages
LONG = 4 * AHEAD  # a loop over fewer reads mostly what was asked for in the one around it
MOST = 3  # operands that are asked for: more keep memory busy by themselves


@dataclass(frozen=True, slots=True)
class Walk:
    """A loop that is met again and again: how many values its variable takes, and by how many it goes on at once."""

    dim: Dim
    count: int
    step: int = 1


@dataclass(frozen=True, slots=True)
class Ahead:
    """An operand's position in what is read later, and the cache that has room for it until then."""

    value: Value
    position: Affine
    cache: int


def asked_ahead(
    accesses: Sequence[Access],
    results: Iterable[Value],
    vector: Dim,
    walks: Sequence[Walk],
    unit: int,
    machine: Machine,
    ahead: int = AHEAD,
) -> list[Ahead]:
    """What a vector loop along ``vector`` asks for: of operands that are too large for the caches and that lie side by side along
    it. ``walks`` are the loops in the order in which what they read follows in time, the innermost first; of the first,
    one iteration reads ``unit`` elements of an operand. ``ahead``: bytes of all operands."""
    (along,) = vector.at.terms
    own, found = set(results), dict[Value, Affine]()
    for a in accesses:
        value = a.value
        if value in own or value in found or not is_static(value.shape) or value.type.nbytes < machine.l3:
            continue
        if a.position.coefficient(along) == 1 and all(atom.op == "var" for atom in a.position.terms):
            found[value] = a.position
    if not 0 < len(found) <= MOST:
        return []
    asked: list[Ahead] = []
    for value, position in found.items():
        distance = _distance(position, walks, unit * value.dtype.itemsize, ahead // len(found))
        if distance is not None:
            shift, nbytes = distance
            asked.append(Ahead(value, position + shift, 1 if nbytes <= ahead else 2))
    return asked


def _distance(position: Affine, walks: Sequence[Walk], nbytes: int, ahead: int) -> tuple[int, int] | None:
    """How many elements further an operand is read about ``ahead`` bytes of it later, and how many bytes are read until then;
    ``nbytes`` are read in an iteration of the first loop."""
    for walk in walks:
        (atom,) = walk.dim.at.terms
        stride = position.coefficient(atom)
        if not stride:
            continue
        whole = nbytes * (walk.count // walk.step)
        if whole >= LONG:
            steps = -(-ahead // nbytes)
            return steps * walk.step * stride, steps * nbytes
        nbytes = whole
    return None
