"""Sums of distances from a mean, block by block, for rows that the second-level cache does not hold.

A variance passes over its row after the mean is known, and so do a gradient's sums with the same distances. Where rows are
long, that reads memory once more. So each block of a row, which the first-level cache holds, is taken about its own mean, and
the blocks are put together about that of the row (Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for
computing sample variances", 1979):

    sum (x - m)^2   =  sum over blocks of  sum (x - b)^2 + (b - m) * (2 * sum (x - b) + n * (b - m))
    sum g * (x - m) =  sum over blocks of  sum g * (x - b) + (b - m) * sum g

with ``b`` a block's mean, as it was rounded, and ``n`` its elements. Nothing large is subtracted: distances stay distances.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tilewright.graph.distances import total_of
from tilewright.graph.ir import Value
from tilewright.kernel.ir import (
    Expr,
    Let,
    Loop,
    Reg,
    Set,
    Stmt,
    Store,
    across,
    const,
    index,
    load,
    op,
    reg,
    var,
)
from tilewright.lower.calls import Builder, take_checks
from tilewright.lower.groups import Group
from tilewright.lower.nest import Dim
from tilewright.lower.read import Index, Reader
from tilewright.recipes.machine import Machine

__all__ = ["CentredBlocks", "CentredSums", "block_length", "centred_sums"]


@dataclass(frozen=True, slots=True)
class CentredSums:
    """Sums over rows with ``distance``, an element less the mean that follows from its row's ``total``. ``factors`` has for each
    sum what the distance is multiplied by, which may be itself or nothing."""

    total: Value
    distance: Value
    factors: dict[Value, Value | None]

    @property
    def multiplied(self) -> list[Value]:
        """What does not follow from the distance."""
        return [f for f in self.factors.values() if f is not None and f is not self.distance]

    @property
    def plain(self) -> list[Value]:
        """What is summed in each block to put sums together: the elements themselves, and the factors."""
        return list(dict.fromkeys([self.total.inputs[0], *self.multiplied]))


def centred_sums(group: Group, depth: Mapping[Value, int]) -> CentredSums | None:
    """The reductions of the second phase, if all of them are such sums about one mean."""
    found: CentredSums | None = None
    for v in group.reductions:
        if depth[v] != 2:
            continue
        one = _centred(v, group, depth)
        if one is None or (found is not None and one.distance is not found.distance):
            return None
        found = (
            one if found is None else CentredSums(found.total, found.distance, found.factors | one.factors)
        )
    return found


def _centred(v: Value, group: Group, depth: Mapping[Value, int]) -> CentredSums | None:
    x = v.inputs[0]
    if v.op != "reduce_sum" or not v.dtype.is_float or v.dtype.bits < 32:
        return None
    for distance, factor in ((x, None), *((x.inputs, x.inputs[::-1]) if x.op == "mul" else ())):
        total = total_of(distance)
        if total not in group.reductions or group.members.get(distance) != group.loops:
            continue
        if total is None or total.dtype is not v.dtype or total["axes"] != v["axes"]:
            continue
        if factor is None or factor is distance or depth.get(factor) == 0:
            return CentredSums(total, distance, {v: factor})
    return None


def block_length(nbytes: int, steps: int, machine: Machine) -> int:
    """How many of a row's ``steps``, each with ``nbytes`` of all that is read, are a block: half of the first-level cache, or one
    step if that is longer. 0 where the second-level cache holds the row, or where it would not hold a block."""
    if nbytes * steps <= machine.l2 // 2 or nbytes > machine.l2 // 4:
        return 0
    return max(n for n in range(1, steps) if steps % n == 0 and (n == 1 or n * nbytes <= machine.l1 // 2))


class CentredBlocks:
    """The two phases of a row's sums, block by block along ``dim``: ``length`` steps of it, each with ``inside`` elements. ``at``
    is the index at which the distance is computed."""

    def __init__(
        self,
        sums: CentredSums,
        dim: Dim,
        length: int,
        inside: int,
        at: Index,
        builder: Builder,
        reader: Reader,
    ) -> None:
        assert isinstance(dim.extent, int)
        self.sums, self.dim, self.length, self.count, self.at = sums, dim, length, dim.extent // length, at
        self.size = length * inside
        self.kind, self.reader = sums.total.dtype, reader
        self.plain = {v: builder.area(self.kind, self.count) for v in sums.plain}
        terms = dict.fromkeys([*(v.inputs[0] for v in sums.factors), sums.distance])
        self.centred = {x: builder.area(self.kind, self.count) for x in terms}
        self.means = builder.area(self.kind, self.count)

    def passes(self, others: list[Stmt], asks: list[Stmt], along: Callable[[list[Stmt]], Loop]) -> list[Stmt]:
        """Both passes over each block, with vector loops ``along``. ``others``: what else the first computes, ``asks``: what the
        second asks for."""
        reader, sums, part = self.reader, self.sums, var("part")
        elements = sums.total.inputs[0]
        first = [self.adding(f"plain{n}", reader.read(v, self.at)) for n, v in enumerate(self.plain)]
        body = self.over_block("plain", list(self.plain), along([*take_checks(reader), *first, *others]))
        body += [Store(area, part, self.across(f"plain{n}")) for n, area in enumerate(self.plain.values())]
        share = const(1.0 / self.size, self.kind)
        body.append(Let("block", op("mul", load(self.plain[elements], part, self.kind), share)))
        reader.bound[sums.distance] = lambda at: op("sub", reader.read(elements, at), var("block", self.kind))
        reader.forget()
        second = [self.adding(f"centred{n}", reader.read(v, self.at)) for n, v in enumerate(self.centred)]
        body += self.over_block("centred", list(self.centred), along([*asks, *take_checks(reader), *second]))
        body += [
            Store(area, part, self.across(f"centred{n}")) for n, area in enumerate(self.centred.values())
        ]
        body.append(Store(self.means, part, var("block", self.kind)))
        del reader.bound[sums.distance]
        reader.forget()
        return [Loop("part", index(0), index(self.count), tuple(body))]

    def plain_totals(self, group: Group) -> list[Value]:
        """The group's sums of what is summed in each block anyway."""
        axes = self.sums.total["axes"]
        return [
            v
            for v in group.reductions
            if v.op == "reduce_sum"
            and v.inputs[0] in self.plain
            and v["axes"] == axes
            and v.dtype is self.kind
        ]

    def together(self, v: Value, name: str) -> list[Stmt]:
        """A sum of the whole row in register ``name``, where the row's ``mean`` is known if it is one of distances."""
        part = var("part")
        if v not in self.sums.factors:
            term = load(self.plain[v.inputs[0]], part, self.kind)
        else:
            factor = self.sums.factors[v]
            shift = op("sub", load(self.means, part, self.kind), var("mean", self.kind))
            number = const(float(self.size), self.kind)
            if factor is None:
                times = number
            elif factor is self.sums.distance:
                rest = load(self.centred[self.sums.distance], part, self.kind)
                times = op("add", op("add", rest, rest), op("mul", number, shift))
            else:
                times = load(self.plain[factor], part, self.kind)
            term = op("add", load(self.centred[v.inputs[0]], part, self.kind), op("mul", shift, times))
        add = self.adding(name, term)
        return [Reg(name, self.kind, const(0, self.kind)), Loop("part", index(0), index(self.count), (add,))]

    def mean(self) -> Stmt:
        """The mean of the whole row, when its total is known."""
        return Let("mean", self.reader.read(self.sums.distance.inputs[1], self.at))

    def adding(self, name: str, term: Expr) -> Stmt:
        return Set(name, op("add", reg(name, self.kind), term))

    def across(self, name: str) -> Expr:
        return across("add", reg(name, self.kind))

    def over_block(self, name: str, values: Sequence[Value], body: Loop) -> list[Stmt]:
        """A pass over a block, with a register for each of ``values``."""
        regs = [Reg(f"{name}{n}", self.kind, const(0, self.kind), (), body.lanes) for n in range(len(values))]
        start = var("part") * self.length
        return [*regs, Loop(self.dim.name, start, start + self.length, (body,))]
