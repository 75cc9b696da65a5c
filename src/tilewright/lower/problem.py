"""What a contraction is: its batch, M, N and K ranges, its operands' elements, its epilogue, and how operands can be read.

Ranges are classed by which operand depends on them. ``Analysis`` finds out which trailing ranges may run as one flat range, and
whether an operand is a plain load, contiguous along which range; ``contraction.py`` builds the loops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tilewright.core.dtype import DType
from tilewright.core.shape import Extent, Shape, product, static, total
from tilewright.graph.ir import Value, topological
from tilewright.kernel.ir import Check, Expr, Let, Stmt, Store, cast, const, op, substitute, var
from tilewright.lower.affine import Affine, Space, mentions
from tilewright.lower.calls import Builder, take_checks
from tilewright.lower.groups import Group, own_cost
from tilewright.lower.read import Access, Index, Reader, accumulator, conjunction, within

__all__ = [
    "Analysis", "At", "Problem", "Side", "conv_problem", "dot_problem", "epilogue", "epilogue_cost", "renamed", "replaceable",
]  # fmt: skip

At = list[Affine]
Read = Callable[[Reader, At, At, At], Expr]


@dataclass(slots=True)
class Problem:
    """Extents of the batch, M, N and K ranges, the operands' elements, and the output's index."""

    batch: Shape
    m: Shape
    n: Shape
    k: Shape
    a: Read  # (reader, batch, m, k)
    b: Read  # (reader, batch, n, k)
    out: Callable[[At, At, At], Index]  # (batch, m, n)
    kind: DType = field(kw_only=True)  # of the accumulator

    def swapped(self) -> Problem:
        return Problem(
            self.batch,
            self.n,
            self.m,
            self.k,
            self.b,
            self.a,
            lambda b, m, n: self.out(b, n, m),
            kind=self.kind,
        )

    def squeezed(self) -> Problem:
        """Without k ranges of a single element."""
        kept = [i for i, e in enumerate(self.k) if e != 1]

        def without(read: Read) -> Read:
            def all_ranges(r: Reader, batch: At, free: At, k: At) -> Expr:
                at = [Affine.of(0)] * len(self.k)
                for i, value in zip(kept, k, strict=True):
                    at[i] = value
                return read(r, batch, free, at)

            return all_ranges

        if len(kept) == len(self.k):
            return self
        k = tuple(self.k[i] for i in kept)
        return Problem(
            self.batch, self.m, self.n, k, without(self.a), without(self.b), self.out, kind=self.kind
        )


def dot_problem(v: Value, total: DType | None = None) -> Problem:
    """The problem of a ``dot``. ``total``: the type of its sums, when operands are to be read as they are and not as that."""
    lhs, rhs = v.inputs
    lc, rc, lb, rb = (v[name] for name in ("lhs_contract", "rhs_contract", "lhs_batch", "rhs_batch"))
    lf = [a for a in range(len(lhs.shape)) if a not in lc and a not in lb]
    rf = [a for a in range(len(rhs.shape)) if a not in rc and a not in rb]
    kind = total or accumulator(v.dtype)

    def operand(x: Value, batch: Sequence[int], free: Sequence[int], contract: Sequence[int]) -> Read:
        def read(r: Reader, bi: At, fi: At, ki: At) -> Expr:
            at: list[Affine] = [Affine.of(0)] * len(x.shape)
            for axes, values in ((batch, bi), (free, fi), (contract, ki)):
                for axis, value in zip(axes, values, strict=True):
                    at[axis] = value
            element = r.read(x, tuple(at))
            return cast(element, kind) if total is None else element

        return read

    sizes = lhs.shape
    return Problem(
        tuple(sizes[a] for a in lb), tuple(sizes[a] for a in lf), tuple(rhs.shape[a] for a in rf),
        tuple(sizes[a] for a in lc), operand(lhs, lb, lf, lc), operand(rhs, rb, rf, rc),
        lambda b, m, n: (*b, *m, *n), kind=kind,
    )  # fmt: skip


def conv_problem(v: Value) -> Problem:
    """M: filters of a group; N: images and output positions; K: channels of a group and kernel positions."""
    x, w = v.inputs
    groups: int = v["groups"]
    xs, ws, os = x.shape, static(w.shape), v.shape
    filters, channels = ws[0] // groups, ws[1]
    kind = accumulator(v.dtype)

    def read_w(r: Reader, b: At, m: At, k: At) -> Expr:
        filter = m[0] + b[0] * filters if groups > 1 else m[0]
        return cast(r.read(w, (filter, *k)), kind)

    def read_x(r: Reader, b: At, n: At, k: At) -> Expr:
        channel = k[0] + b[0] * channels if groups > 1 else k[0]
        at: list[Affine] = [n[0], channel]
        conditions: list[Expr | None] = []
        for axis, (o, tap) in enumerate(zip(n[1:], k[1:], strict=True)):
            moved = o * v["stride"][axis] + tap * v["rhs_dilation"][axis] - v["padding"][axis][0]
            spread = v["lhs_dilation"][axis]
            if spread > 1:
                if r.space.range(moved)[0] < 0:
                    conditions.append(op("ge", moved.expr(), const(0)))
                moved, rest = r.space.divmod(moved, spread)
                if rest != Affine.of(0):
                    conditions.append(op("eq", rest.expr(), const(0)))
            conditions.append(within(r.space, moved, xs[2 + axis]))
            at.append(moved)
        mask = conjunction(*conditions)
        value = r.read(x, tuple(at), mask)
        if mask is not None and not (value.op == "load" and len(value.args) == 3 and value.args[1] is mask):
            value = op("where", mask, value, const(0, value.dtype))
        return cast(value, kind)

    def out(b: At, m: At, n: At) -> Index:
        filter = m[0] + b[0] * filters if groups > 1 else m[0]
        return (n[0], filter, *n[1:])

    batch = (groups,) if groups > 1 else ()
    return Problem(batch, (filters,), (os[0], *os[2:]), (channels, *ws[2:]), read_w, read_x, out, kind=kind)


@dataclass(slots=True)
class Side:
    """The free ranges of one operand: ``outer`` ones are tasks, ``inner`` ones run as one flat range of ``size``."""

    extents: Shape
    cut: int

    @property
    def outer(self) -> Shape:
        return self.extents[: self.cut]

    @property
    def inner(self) -> Shape:
        return self.extents[self.cut :]

    @property
    def size(self) -> Extent:
        return total(self.inner)

    @property
    def most(self) -> int:
        """The largest number ``size`` can be."""
        return product(self.inner)


class Analysis:
    """Which ranges may run flat, and how each operand is best read."""

    def __init__(self, group: Group, problem: Problem, stored: Callable[[Value], bool]) -> None:
        self.group, self.problem, self.stored = group, problem, stored
        self.m = self.flat_side("m")
        self.n = self.flat_side("n")

    def reader(self, space: Space) -> Reader:
        return Reader(space, lambda v: "x" if self.stored(v) else None)

    def spread(self, space: Space, side: Side, prefix: str) -> tuple[At, Affine]:
        """Fresh variables for a side: all its indices, and the flat inner one."""
        flat = space.loop(prefix, side.size)
        outer = [space.loop(f"{prefix}o{i}", e) for i, e in enumerate(side.outer)]
        return [*outer, *(space.unravel(flat, side.inner) if side.inner else [])], flat

    def flat_side(self, which: str) -> Side:
        """The longest run of trailing ranges over which the outputs are plainly addressed."""
        p = self.problem
        extents = p.m if which == "m" else p.n
        for cut in range(len(extents) + 1):
            side = Side(extents, cut)
            if cut == len(extents):
                return side
            space = Space()
            reader = self.reader(space)
            m = self.spread(space, side if which == "m" else Side(p.m, len(p.m)), "m")
            n = self.spread(space, side if which == "n" else Side(p.n, len(p.n)), "n")
            batch = [space.loop(f"z{i}", e) for i, e in enumerate(p.batch)]
            flat = m[1] if which == "m" else n[1]
            epilogue(self.group, reader, p.out(batch, m[0], n[0]), const(0, p.kind), None)
            reader.checks.clear()
            if all(plain_in(a.position, flat) for a in reader.accesses):
                return side
        raise AssertionError("unreachable")

    def operand(self, which: str) -> tuple[list[Affine], Expr, Affine, list[Affine], Space]:
        """Positions an operand reads over flat free and separate k ranges."""
        p = self.problem
        space = Space()
        reader = self.reader(space)
        side = self.m if which == "a" else self.n
        at, flat = self.spread(space, side, "f")
        k = [space.loop(f"k{i}", e) for i, e in enumerate(p.k)]
        batch = [space.loop(f"z{i}", e) for i, e in enumerate(p.batch)]
        expr = (p.a if which == "a" else p.b)(reader, batch, at, k)
        return [a.position for a in reader.accesses], expr, flat, k, space

    def direct(self, which: str, contiguous: str = "") -> bool:
        """Whether an operand is a plain load, affine in every range, and contiguous along ``free`` or ``k`` if asked."""
        positions, expr, flat, k, space = self.operand(which)
        if (
            expr.op != "load"
            or len(expr.args) != 1
            or len(positions) != 1
            or not space.is_plain(positions[0])
        ):
            return False
        if contiguous == "free":
            return not flat.terms or positions[0].coefficient(next(iter(flat.terms))) == 1
        if contiguous == "k":
            return not k or not k[-1].terms or positions[0].coefficient(next(iter(k[-1].terms))) == 1
        return True

    def in_rows(self, which: str) -> bool:
        """Whether an operand is a plain load and its rows, wherever they begin, are contiguous along the last k and affine along
        the others."""
        positions, expr, _, k, _ = self.operand(which)
        if expr.op != "load" or len(expr.args) != 1 or len(positions) != 1 or not k or not k[-1].terms:
            return False
        atoms = {atom for at in k for atom in at.terms}
        if any(atom.op != "var" and mentions(atom, atoms) for atom in positions[0].terms):
            return False
        return positions[0].coefficient(*k[-1].terms) == 1

    def k_step(self, which: str) -> int:
        """How far apart an operand's elements along the last of several k ranges are; 0 where that is no plain question."""
        if not self.direct(which) or len(self.problem.k) < 2:
            return 0
        positions, _, _, k, _ = self.operand(which)
        return abs(positions[0].coefficient(*k[-1].terms)) if k[-1].terms else 0

    def made_of(self, which: str, settled: Callable[[Value], bool]) -> bool:
        """Whether all that an operand is computed from is settled."""
        space = Space()
        reader = self.reader(space)
        at, _ = self.spread(space, self.m if which == "a" else self.n, "f")
        k = [space.loop(f"k{i}", e) for i, e in enumerate(self.problem.k)]
        batch = [space.loop(f"z{i}", e) for i, e in enumerate(self.problem.batch)]
        (self.problem.a if which == "a" else self.problem.b)(reader, batch, at, k)
        return not reader.checks and all(settled(a.value) for a in reader.accesses)

    def words(self, which: str, size: int) -> bool:
        """Whether an operand's memory can be read as words of ``size`` elements that follow each other along the last k."""
        p = self.problem
        space = Space()
        reader = self.reader(space)
        side = self.m if which == "a" else self.n
        at, _ = self.spread(space, side, "f")
        *k, last = [space.loop(f"k{i}", e // size if i == len(p.k) - 1 else e) for i, e in enumerate(p.k)]
        batch = [space.loop(f"z{i}", e) for i, e in enumerate(p.batch)]
        for j in range(size):
            expr = (p.a if which == "a" else p.b)(reader, batch, at, [*k, last * size + j])
            if expr.op != "load" or len(expr.args) != 1 or len(reader.accesses) != j + 1:
                return False
        first = reader.accesses[0].position
        return (
            space.is_plain(first)
            and first.constant % size == 0
            and not any(c % size for c in first.terms.values())
            and all(a.position == first + j for j, a in enumerate(reader.accesses))
        )

    def streams(self, which: str, along: str, most: int = 1) -> bool:
        """Whether every access of an operand is contiguous or constant along ``free`` or the last k range (masks allowed), or
        its elements at ``most`` so far apart."""
        positions, _, flat, k, _ = self.operand(which)
        line = flat if along == "free" else (k[-1] if k else Affine.of(0))
        if not line.terms:
            return False
        (atom,) = line.terms
        return all(0 <= p.coefficient(atom) <= most and plain_in(p, line) for p in positions)

    def runs_flat(self, which: str, first: int) -> bool:
        """Whether an operand is contiguous along the k ranges from number ``first`` on, run as one."""
        p = self.problem
        space = Space()
        reader = self.reader(space)
        at, _ = self.spread(space, self.m if which == "a" else self.n, "f")
        flat = space.loop("k", product(p.k[first:]))
        k = [space.loop(f"k{i}", e) for i, e in enumerate(p.k[:first])]
        batch = [space.loop(f"z{i}", e) for i, e in enumerate(p.batch)]
        (p.a if which == "a" else p.b)(reader, batch, at, [*k, *space.unravel(flat, p.k[first:])])
        return all(
            a.position.coefficient(*flat.terms) in (0, 1) and plain_in(a.position, flat)
            for a in reader.accesses
        )


def plain_in(a: Affine, flat: Affine) -> bool:
    names = set(flat.terms)
    return not any(atom.op != "var" and mentions(atom, names) for atom in a.terms)


def epilogue(group: Group, reader: Reader, at: Index, value: Expr, builder: Builder | None) -> list[Stmt]:
    """Stores of the group's outputs for the contraction's element ``at``, whose value is ``value``."""
    anchor = group.anchor
    mapping = {
        next(iter(loop.terms)): i for loop, i in zip(group.members[anchor], at, strict=True) if loop.terms
    }
    reader.bound[anchor] = lambda _: cast(value, anchor.dtype)
    reader.forget()
    out: list[Stmt] = []
    stores: list[Stmt] = []  # after all results: one may lie where an operand of another does
    for v in group.outputs:
        moved = tuple(_move(i, mapping, reader.space) for i in group.members[v])
        result = reader.read(v, moved)
        position = reader.space.linear(moved, v.shape)
        reader.accesses.append(Access(v, position))
        if builder is not None:
            out += take_checks(reader)
            if len(group.outputs) > 1:
                name = f"out{len(stores)}"
                out.append(Let(name, result))
                result = var(name, v.dtype)
            stores.append(Store(builder.buffer(v, "w"), position.expr(), result))
    return out + stores


def replaceable(group: Group, stored: Callable[[Value], bool]) -> set[Value]:
    """Stored values of an output's type that the epilogue reads and the contraction does not: results may lie over them."""
    types = {v.type for v in group.outputs}
    beside = topological(group.outputs, lambda v: v is group.anchor or stored(v))
    found = {v for v in beside if v is not group.anchor and v.type in types and stored(v)}
    return found.difference(topological(group.anchor.inputs, stored)) if found else found


def _move(i: Affine, mapping: dict[Expr, Affine], space: Space) -> Affine:
    total = Affine.of(i.constant)
    for atom, c in i.terms.items():
        total = total + mapping[atom] * c
    return space.recombine(total)


def renamed(s: Stmt, names: dict[Expr, Expr]) -> Stmt:
    """A store or check with variables replaced."""
    if isinstance(s, Store):
        assert s.mask is None
        return Store(s.buffer, substitute(s.index, names), substitute(s.value, names))
    assert isinstance(s, Check)
    return Check(substitute(s.condition, names), s.code)


def epilogue_cost(group: Group, stored: Callable[[Value], bool]) -> int:
    """Cheap operations per element of the epilogue."""
    inside = topological(group.outputs, lambda v: v is group.anchor or stored(v))
    return sum(own_cost(v) for v in inside if v is not group.anchor and not stored(v))
