"""The loops of map and row groups: which dims there are, how they are cut and merged, and along which one vectors run.

Dims of a group are outer or reduced. They are split where an access needs a digit of one (a reshape inside the group) and merged
where every access runs through two as if they were one. One dim becomes the vector loop, the one along which most accesses are
contiguous.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tilewright.core.shape import Extent, upper
from tilewright.graph.ir import Value
from tilewright.kernel.ir import Expr, const
from tilewright.lower.affine import Affine, Space, mentions
from tilewright.lower.columns import operand_index, result_index
from tilewright.lower.groups import Group
from tilewright.lower.read import Access, Index, Reader, reduction_terms

__all__ = ["Dim", "Nest", "choose_nest", "mentions_loop", "written"]

REPEATS = (2, 4, 8)  # neighbours that read one element, or one of so many, within a vector


@dataclass(slots=True)
class Dim:
    name: str
    extent: Extent
    reduced: bool
    at: Affine = field(default_factory=lambda: Affine.of(0))


@dataclass(slots=True)
class _View:
    """What an origin function looks at: it gives the group's own index from a nest's dims."""

    space: Space
    dims: list[Dim]


class Nest:
    """One choice of loops for a group: its dims, and every member's index over them."""

    def __init__(self, group: Group, dims: list[Dim], origin: Callable[[_View], list[Affine]]) -> None:
        self.group = group
        self.space = Space()
        self.dims = dims
        for dim in dims:
            dim.at = self.space.loop(dim.name, dim.extent)
        self.origin = origin
        self.full = origin(_View(self.space, dims))  # index over the group's own dims
        atoms = [a for loop in group.loops for a in loop.terms]
        values = [f for f, loop in zip(self.full, group.loops, strict=True) if loop.terms]
        self.mapping = dict(zip(atoms, values, strict=True))

    def move(self, i: Affine) -> Affine:
        """An index over the group's loops as one over this nest's."""
        total = Affine.of(i.constant)
        for atom, c in i.terms.items():
            total = total + self.mapping[atom] * c
        return self.space.recombine(total)

    def index(self, member: Value) -> Index:
        if member in self.group.columns:
            return result_index(member, self.operand_index(member))
        return tuple(self.move(i) for i in self.group.members[member])

    def operand_index(self, v: Value) -> Index:
        """Where the operand of one of the group's columns is read."""
        return operand_index(self.space, tuple(self.full), self.group.dims, v)

    def outer(self) -> Index:
        return tuple(f for k, f in enumerate(self.full) if k not in self.group.reduced)

    def inner(self) -> Index:
        return tuple(f for k, f in enumerate(self.full) if k in self.group.reduced)

    def split(self, k: int, size: int) -> Nest:
        """Dim ``k`` cut into an outer and an inner one of ``size``."""
        old = self.dims[k]
        parts = [
            Dim(old.name + "o", old.extent // size, old.reduced),
            Dim(old.name + "i", size, old.reduced),
        ]
        before = self.origin

        def origin(nest: _View) -> list[Affine]:
            merged = nest.dims[k].at * size + nest.dims[k + 1].at
            return before(
                _View(
                    nest.space,
                    [*nest.dims[:k], Dim(old.name, old.extent, old.reduced, merged), *nest.dims[k + 2 :]],
                )
            )

        dims = [Dim(d.name, d.extent, d.reduced) for d in self.dims]
        return Nest(self.group, [*dims[:k], *parts, *dims[k + 1 :]], origin)

    def merge(self, k: int, m: int) -> Nest:
        """Dims ``k`` and ``m`` (inner) run as one; the merged dim stands in ``m``'s place."""
        a, b = self.dims[k], self.dims[m]
        before = self.origin

        def origin(nest: _View) -> list[Affine]:
            place = m - 1
            assert isinstance(b.extent, int)
            high, low = nest.space.divmod(nest.dims[place].at, b.extent)
            views = [*nest.dims]
            views[place] = Dim(b.name, b.extent, b.reduced, low)
            views.insert(k, Dim(a.name, a.extent, a.reduced, high))
            return before(_View(nest.space, views))

        dims = [Dim(d.name, d.extent, d.reduced) for d in self.dims]
        dims[m] = Dim(b.name, a.extent * b.extent, b.reduced)
        del dims[k]
        return Nest(self.group, dims, origin)


def _accesses(group: Group, nest: Nest, stored: Callable[[Value], bool]) -> list[Access]:
    """Every load and store of the group over this nest."""
    reader = Reader(nest.space, lambda v: "x" if stored(v) else None)
    bind_members(group, nest, reader)
    for v in group.reductions:
        reduction_terms(reader, v, nest.outer(), nest.inner(), None)
    for v in group.columns:
        reader.read(v.inputs[0], nest.operand_index(v))
    for v in group.members:
        if v not in group.reductions:
            reader.bound.pop(v, None)
    reader.forget()
    for v in group.outputs:
        for x, position in written(v, nest):
            if v not in group.reductions and v not in group.columns:
                reader.read(x, nest.index(v))
            reader.accesses.append(Access(v, position))
    return reader.accesses


def written(v: Value, nest: Nest) -> list[tuple[Value, Affine]]:
    """What is stored for an output in one round of the loops, and where: itself, or each part of a concat."""
    at = nest.index(v)
    if v.op != "concat":
        return [(v, nest.space.linear(at, v.shape))]
    axis, start, found = v["axis"], 0, list[tuple[Value, Affine]]()
    for x in v.inputs:
        found.append((x, nest.space.linear([*at[:axis], at[axis] + start, *at[axis + 1 :]], v.shape)))
        start += upper(x.shape[axis])
    return found


def bind_members(group: Group, nest: Nest, reader: Reader) -> None:
    """During analysis a reduction's result costs no access."""
    for v in group.reductions:
        reader.bound[v] = lambda at, v=v: const(0, v.dtype)  # type: ignore[misc]


def choose_nest(
    group: Group, stored: Callable[[Value], bool], width: int
) -> tuple[Nest, list[Access], int | None]:
    """The loops of a group, its accesses, and the number of the vector loop. Where accesses need digits of the last dim, it is
    cut, or stays whole for vectors that repeat elements: whichever costs less. ``width``: bytes of a vector."""
    best: tuple[Nest, list[Access], int | None] | None = None
    least = float("inf")
    for whole in (False, True):
        nest, accesses, kept = _nest_of(group, stored, whole)
        if whole and not kept:
            continue
        itemsize = max([a.value.dtype.itemsize for a in accesses] or [4])
        choice, cost = _vector_dim(nest, accesses, max(1, width // itemsize))
        if best is None or cost < least:
            best, least = (nest, accesses, choice), cost
    assert best is not None
    return best


def _nest_of(group: Group, stored: Callable[[Value], bool], whole: bool) -> tuple[Nest, list[Access], bool]:
    """Dims cut where an access needs a digit, and merged where all accesses allow it. ``whole``: the last dim is not cut for
    small digits; whether that made a difference is the last result."""
    dims = [Dim(f"i{k}", n, k in group.reduced) for k, n in enumerate(group.dims)]
    nest = Nest(group, dims, lambda n: [d.at for d in n.dims])
    accesses = _accesses(group, nest, stored)
    kept = False
    for _ in range(6):
        cut = _find_split(nest, accesses, whole)
        kept = kept or (whole and cut != _find_split(nest, accesses, False))
        if cut is None:
            break
        nest = nest.split(*cut)
        accesses = _accesses(group, nest, stored)
    while True:
        pair = _find_merge(nest, accesses)
        if pair is None:
            break
        nest = nest.merge(*pair)
        accesses = _accesses(group, nest, stored)
    # canonical names: a matrix that runs as one dim and a vector have the same kernel
    named = [Dim(f"i{k}", d.extent, d.reduced) for k, d in enumerate(nest.dims)]
    if [d.name for d in named] == [d.name for d in nest.dims]:
        return nest, accesses, kept
    nest = Nest(group, named, nest.origin)
    return nest, _accesses(group, nest, stored), kept


def _find_split(nest: Nest, accesses: list[Access], whole: bool) -> tuple[int, int] | None:
    """A dim of which some access needs a digit, and the digit's base; with ``whole``, not the last dim for a digit that
    vectors hold a whole number of."""
    for access in accesses:
        for atom in access.position.terms:
            if atom.op not in ("idiv", "imod"):
                continue
            operand, base = atom.args[0], atom.args[1].attr
            for k, dim in enumerate(nest.dims):
                if dim.at.terms == {operand: 1} and 1 < base < upper(dim.extent) and dim.extent % base == 0:
                    if whole and k == len(nest.dims) - 1 and base in REPEATS:
                        continue
                    return k, base
    return None


def _find_merge(nest: Nest, accesses: list[Access]) -> tuple[int, int] | None:
    """Two neighbouring dims of one kind that every access runs through with matching strides."""
    last: dict[bool, int] = {}
    for m, dim in enumerate(nest.dims):
        if dim.reduced in last:
            k = last[dim.reduced]
            if all(_mergeable(a.position, nest.dims[k], dim) for a in accesses):
                return k, m
        last[dim.reduced] = m
    return None


def mentions_loop(position: Affine, atom: Expr) -> bool:
    """Whether an access moves with a loop."""
    return bool(position.coefficient(atom)) or any(
        a.op != "var" and mentions(a, {atom}) for a in position.terms
    )


def _mergeable(a: Affine, outer: Dim, inner: Dim) -> bool:
    if not isinstance(inner.extent, int):
        return False
    if outer.extent == 1 or inner.extent == 1:
        return True
    (x,), (y,) = outer.at.terms, inner.at.terms
    if a.coefficient(x) != a.coefficient(y) * inner.extent:
        return False
    return not any(atom.op != "var" and mentions(atom, {x, y}) for atom in a.terms)


def _vector_dim(nest: Nest, accesses: list[Access], width: int) -> tuple[int | None, float]:
    """The dim whose vector loop makes memory accesses cheapest, and what it costs per element of work."""
    best, choice = float("inf"), None
    for k, dim in enumerate(nest.dims):
        if dim.extent == 1 or (nest.group.columns and not dim.reduced):
            continue
        (atom,) = dim.at.terms
        cost = 1.0
        for access in accesses:
            c = access.position.coefficient(atom)
            inside = [a for a in access.position.terms if a.op != "var" and mentions(a, {atom})]
            if inside:
                near = all(_repeats(a, atom, access.position.coefficient(a)) for a in inside) and c in (0, 1)
                cost += 2.0 if near else 10  # a load and a shuffle
            else:
                store = access.value in nest.group.outputs and abs(c) > 1
                cost += max(stride_cost(c), 6.0 if store else 0.0)  # stores have no shuffles
        most = upper(dim.extent)
        cost *= -(-most // width) * width / max(most, 1)
        if dim.reduced:
            cost += 24.0 / max(most, 1) * len(nest.group.reductions)
        cost -= k * 1e-3
        if cost < best:
            best, choice = cost, k
    return choice, best


def _repeats(digit: Expr, dim: Expr, stride: int) -> bool:
    """Whether lanes along ``dim`` find what lies at this digit of it, ``stride`` apart, close together."""
    if digit.op not in ("idiv", "imod"):
        return False
    at, base = digit.args[0], digit.args[1].attr
    return at is dim and base in REPEATS and abs(stride) <= (2 * base if digit.op == "idiv" else 4)


def stride_cost(c: int) -> float:
    """What an access costs per vector when neighbouring lanes are ``c`` elements apart: one load, a few, or one per lane."""
    c = abs(c)
    if c <= 1:
        return 1.0 if c else 0.6
    return 1.5 + 0.5 * c if c <= 4 else 6.0 if c <= 16 else 12.0
