"""Map and row groups as loop nests: elementwise work and reductions over rows, with the row kept in cache.

Dims of the group are outer (P) or reduced (R). They are split where an access needs a digit of one (a reshape inside the
group) and merged where every access runs through two as if they were one. One dim becomes the vector loop, the one along
which most accesses are contiguous: a reduced dim (rows: partial results per lane, combined at the row's end) or an outer
dim (columns: every lane reduces for itself). A row is passed over once per phase: phase d holds what depends on d
reductions before it (softmax: max; exp and sum; divide).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tilewright.core.dtype import DType
from tilewright.core.shape import Extent, product, total, upper
from tilewright.graph.ir import Value
from tilewright.kernel.ir import (
    HI,
    LO,
    Expr,
    Let,
    Loop,
    Reg,
    Set,
    Stmt,
    Store,
    across,
    cast,
    const,
    idiv,
    imod,
    index,
    load,
    op,
    reg,
    var,
)  # fmt: skip
from tilewright.lower.affine import Affine, Space, mentions
from tilewright.lower.calls import Builder, Call, take_checks
from tilewright.lower.extents import extent
from tilewright.lower.groups import Group, operation_cost, own_cost
from tilewright.lower.read import COMBINE, Access, Index, Reader, accumulator, identity, reduction_terms

__all__ = ["lower_loops"]

CHUNK_COST = (
    1 << 17
)  # cheap element operations that make a piece of work worth handing to another core (a few µs)
CACHE_COST = 8  # an element costlier than this is kept in scratch when a later phase needs it again
WIDE_COLUMNS = 8
REPEATS = (2, 4, 8)  # neighbours that read one element, or one of so many, within a vector
SERIAL_COST = 48  # from three functions like tanh on, one after the other
ROW_BYTES = 1 << 14  # of sums over columns kept in scratch: they stay in the first-level cache
MAX_ROW = 1 << 16  # elements of a row that may be kept in scratch


@dataclass(slots=True)
class _Dim:
    name: str
    extent: Extent
    reduced: bool
    at: Affine = field(default_factory=lambda: Affine.of(0))


@dataclass(slots=True)
class _View:
    """What an origin function looks at: it gives the group's own index from a nest's dims."""

    space: Space
    dims: list[_Dim]


class _Nest:
    """One choice of loops for a group: its dims, and every member's index over them."""

    def __init__(self, group: Group, dims: list[_Dim], origin: Callable[[_View], list[Affine]]) -> None:
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
        return tuple(self.move(i) for i in self.group.members[member])

    def outer(self) -> Index:
        return tuple(f for k, f in enumerate(self.full) if k not in self.group.reduced)

    def inner(self) -> Index:
        return tuple(f for k, f in enumerate(self.full) if k in self.group.reduced)

    def split(self, k: int, size: int) -> _Nest:
        """Dim ``k`` cut into an outer and an inner one of ``size``."""
        old = self.dims[k]
        parts = [
            _Dim(old.name + "o", old.extent // size, old.reduced),
            _Dim(old.name + "i", size, old.reduced),
        ]
        before = self.origin

        def origin(nest: _View) -> list[Affine]:
            merged = nest.dims[k].at * size + nest.dims[k + 1].at
            return before(
                _View(
                    nest.space,
                    [*nest.dims[:k], _Dim(old.name, old.extent, old.reduced, merged), *nest.dims[k + 2 :]],
                )
            )

        dims = [_Dim(d.name, d.extent, d.reduced) for d in self.dims]
        return _Nest(self.group, [*dims[:k], *parts, *dims[k + 1 :]], origin)

    def merge(self, k: int, m: int) -> _Nest:
        """Dims ``k`` and ``m`` (inner) run as one; the merged dim stands in ``m``'s place."""
        a, b = self.dims[k], self.dims[m]
        before = self.origin

        def origin(nest: _View) -> list[Affine]:
            place = m - 1
            assert isinstance(b.extent, int)
            high, low = nest.space.divmod(nest.dims[place].at, b.extent)
            views = [*nest.dims]
            views[place] = _Dim(b.name, b.extent, b.reduced, low)
            views.insert(k, _Dim(a.name, a.extent, a.reduced, high))
            return before(_View(nest.space, views))

        dims = [_Dim(d.name, d.extent, d.reduced) for d in self.dims]
        dims[m] = _Dim(b.name, a.extent * b.extent, b.reduced)
        del dims[k]
        return _Nest(self.group, dims, origin)


def _accesses(group: Group, nest: _Nest, stored: Callable[[Value], bool]) -> list[Access]:
    """Every load and store of the group over this nest."""
    reader = Reader(nest.space, lambda v: "x" if stored(v) else None)
    bind_members(group, nest, reader)
    for v in group.reductions:
        reduction_terms(reader, v, nest.outer(), nest.inner(), None)
    for v in group.members:
        if v not in group.reductions:
            reader.bound.pop(v, None)
    reader.forget()
    for v in group.outputs:
        at = nest.index(v)
        if v not in group.reductions:
            reader.read(v, at)
        reader.accesses.append(Access(v, nest.space.linear(at, v.shape)))
    return reader.accesses


def bind_members(group: Group, nest: _Nest, reader: Reader) -> None:
    """During analysis a reduction's result costs no access."""
    for v in group.reductions:
        reader.bound[v] = lambda at, v=v: const(0, v.dtype)  # type: ignore[misc]


def _choose_nest(
    group: Group, stored: Callable[[Value], bool], width: int
) -> tuple[_Nest, list[Access], int | None]:
    """The loops of a group, its accesses, and the number of the vector loop. Where accesses need digits of the last dim, it is
    cut, or stays whole for vectors that repeat elements: whichever costs less. ``width``: bytes of a vector."""
    best: tuple[_Nest, list[Access], int | None] | None = None
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


def _nest_of(group: Group, stored: Callable[[Value], bool], whole: bool) -> tuple[_Nest, list[Access], bool]:
    """Dims cut where an access needs a digit, and merged where all accesses allow it. ``whole``: the last dim is not cut for
    small digits; whether that made a difference is the last result."""
    dims = [_Dim(f"i{k}", n, k in group.reduced) for k, n in enumerate(group.dims)]
    nest = _Nest(group, dims, lambda n: [d.at for d in n.dims])
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
    named = [_Dim(f"i{k}", d.extent, d.reduced) for k, d in enumerate(nest.dims)]
    if [d.name for d in named] == [d.name for d in nest.dims]:
        return nest, accesses, kept
    nest = _Nest(group, named, nest.origin)
    return nest, _accesses(group, nest, stored), kept


def _find_split(nest: _Nest, accesses: list[Access], whole: bool) -> tuple[int, int] | None:
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


def _find_merge(nest: _Nest, accesses: list[Access]) -> tuple[int, int] | None:
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


def _mergeable(a: Affine, outer: _Dim, inner: _Dim) -> bool:
    if not isinstance(inner.extent, int):
        return False
    if outer.extent == 1 or inner.extent == 1:
        return True
    (x,), (y,) = outer.at.terms, inner.at.terms
    if a.coefficient(x) != a.coefficient(y) * inner.extent:
        return False
    return not any(atom.op != "var" and mentions(atom, {x, y}) for atom in a.terms)


def _vector_dim(nest: _Nest, accesses: list[Access], width: int) -> tuple[int | None, float]:
    """The dim whose vector loop makes memory accesses cheapest, and what it costs per element of work."""
    best, choice = float("inf"), None
    for k, dim in enumerate(nest.dims):
        if dim.extent == 1:
            continue
        (atom,) = dim.at.terms
        cost = 1.0
        for access in accesses:
            c = access.position.coefficient(atom)
            inside = [a for a in access.position.terms if a.op != "var" and mentions(a, {atom})]
            if inside:
                near = all(_repeats(a, atom, access.position.coefficient(a)) for a in inside) and c in (0, 1)
                cost += 2.5 if near else 10
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


def work_of(stmts: list[Stmt], atom: Expr) -> int:
    """A rough count of cheap instructions for one element of a loop over ``atom``: what is the same in every iteration is
    computed before the loop, and what is in several expressions once."""
    moves: dict[Expr, bool] = {}
    stack = [s.value for s in stmts if isinstance(s, (Let, Set, Store))]
    while stack:
        e = stack[-1]
        missing = [a for a in e.args if a not in moves]
        if e in moves or not missing:
            stack.pop()
            moves[e] = e is atom or e.op == "reg" or any(moves[a] for a in e.args)
        stack.extend(missing)
    return sum(operation_cost(e.op) for e, moving in moves.items() if moving and e.args and e.dtype.is_float)


def stride_cost(c: int) -> float:
    """What an access costs per vector when neighbouring lanes are ``c`` elements apart: one load, a few, or one per lane."""
    c = abs(c)
    if c <= 1:
        return 1.0 if c else 0.6
    return 1.5 + 0.5 * c if c <= 4 else 6.0 if c <= 16 else 12.0


def _depths(group: Group, inside: set[Value]) -> dict[Value, int]:
    """How many reductions of the group lie, one after another, before each value it computes."""
    depth: dict[Value, int] = {}
    reductions = set(group.reductions)

    def visit(root: Value) -> int:
        stack = [root]
        while stack:
            v = stack[-1]
            if v in depth:
                stack.pop()
                continue
            missing = [x for x in v.inputs if x not in depth] if v in inside or v is root else []
            if missing:
                stack.extend(missing)
                continue
            stack.pop()
            if v not in inside and v is not root:
                depth[v] = 0
            else:
                depth[v] = max((depth[x] for x in v.inputs), default=0) + (1 if v in reductions else 0)
        return depth[root]

    for v in group.members:
        visit(v)
    return depth


def _inside(group: Group, stored: Callable[[Value], bool]) -> set[Value]:
    """Members and the floating values between them: what lies above a member and below another, without a store between."""
    touches: dict[Value, bool] = {}
    for member in group.members:
        stack = [member]
        while stack:
            x = stack[-1]
            below = () if stored(x) else x.inputs
            missing = [y for y in below if y not in touches]
            if x in touches or not missing:
                touches.setdefault(x, x in group.members or any(touches[y] for y in below))
                stack.pop()
            else:
                stack.extend(missing)
    return {x for x, inside in touches.items() if inside}


def _is_serial(group: Group, stored: Callable[[Value], bool]) -> bool:
    """Whether the longest chain of operations that wait for each other is so long that the next vectors' instructions do not
    come into the processor's view before it ends: then several vectors have to go through it side by side."""
    heights: dict[Value, int] = {}
    stack = list(group.members)
    while stack:
        v = stack[-1]
        below = () if stored(v) else v.inputs
        missing = [x for x in below if x not in heights]
        stack.extend(missing)
        if not missing:
            heights[stack.pop()] = own_cost(v) * bool(below) + max((heights[x] for x in below), default=0)
    return max(heights.values(), default=0) >= SERIAL_COST


class _Emitter:
    """Builds the statements of one group over its chosen nest."""

    def __init__(self, group: Group, stored: Callable[[Value], bool], width: int) -> None:
        self.group = group
        self.nest, self.accesses, choice = _choose_nest(group, stored, width)
        self.builder = Builder()
        self.named = 0
        self.final: set[Value] = set()  # outputs written after the last read of what the group reads
        self.reader = Reader(self.nest.space, lambda v: self.builder.buffer(v, "r") if stored(v) else None)
        inside = _inside(group, stored)
        self.depth = _depths(group, inside)
        itemsize = max([a.value.dtype.itemsize for a in self.accesses] or [4])
        self.vector = None if choice is None else self.nest.dims[choice]
        if self.vector is not None:  # what is the same in all lanes takes no vector
            (atom,) = self.vector.at.terms
            moving = [a.value.dtype.itemsize for a in self.accesses if mentions_loop(a.position, atom)]
            itemsize = max(moving or [itemsize])
        self.outer = [d for d in self.nest.dims if not d.reduced and d is not self.vector and d.extent != 1]
        self.inner = [d for d in self.nest.dims if d.reduced and d is not self.vector and d.extent != 1]
        self.by_rows = self.vector is not None and self.vector.reduced
        self.cost = sum(max(own_cost(v), 1) for v in inside) + 2 * len(self.accesses)
        self.register = max(1, width // itemsize)  # lanes of one
        self.serial = not group.reductions and _is_serial(group, stored)
        self.lanes = self.choose_lanes(self.cost)

    def choose_lanes(self, cost: int, reduces: bool | None = None) -> int:
        """Lanes of a vector loop whose body does this much for an element: one register's or several times that many."""
        if self.vector is None:
            return 1
        lanes, most = self.register, upper(self.vector.extent)
        while lanes > 4 and lanes >= 2 * most:
            lanes //= 2  # a short range fills a shorter vector
        # independent accumulators hide the latency of an addition; long expressions fill the pipeline by themselves
        reduces = bool(self.group.reductions) if reduces is None else reduces
        wide = 4 if reduces and cost <= 12 else 2 if cost <= 40 else 1
        if self.serial:
            wide = 4
        if reduces and not self.by_rows and cost <= 8:
            wide = WIDE_COLUMNS  # each row of a strip of columns is a run of its own in memory
        least = -(-most // lanes) * lanes  # what is computed, the last vector's idle lanes included
        while wide > 1 and 4 * (-(-most // (lanes * wide)) * lanes * wide) > 5 * least:
            wide //= 2
        return lanes * wide

    def phase_lanes(self, inside: list[Stmt], reduces: bool) -> int:
        """Lanes of one pass over a row."""
        assert self.vector is not None
        (atom,) = self.vector.at.terms
        return self.choose_lanes(work_of(inside, atom), reduces)

    # ---- statements ----

    def phases(self) -> list[Stmt]:
        """The work for one row (or, by columns, for one lane)."""
        group, nest, reader = self.group, self.nest, self.reader
        last = max((self.depth[v] for v in group.members), default=0)
        rows = {v for v in group.members if self.is_row_value(v)}
        cached = self.cached_values(rows, last)
        body: list[Stmt] = []
        for d in range(last + 1):
            reductions = [v for v in group.reductions if self.depth[v] == d + 1]
            stores = [v for v in group.outputs if v not in rows and self.depth[v] == d]
            keeps = [v for v in cached if self.depth[v] == d]
            inside: list[Stmt] = []
            kept: dict[Value, Callable[[Index], Expr]] = {}
            for v in keeps:
                inside += self.keep(v, kept)
            inside += self.store(stores)
            regs: list[tuple[str, DType, Expr]] = []
            for number, v in enumerate(reductions):
                name = f"acc{d}_{number}"
                kind = accumulator(v.dtype) if COMBINE[v.op] in ("add", "mul") else v.dtype
                regs.append((name, kind, identity(COMBINE[v.op], kind)))
                term = reduction_terms(reader, v, nest.outer(), nest.inner(), None)
                inside += take_checks(reader)
                inside.append(Set(name, op(COMBINE[v.op], reg(name, kind), term)))
            lanes = self.phase_lanes(inside, bool(reductions)) if self.by_rows else 0
            body += [Reg(name, kind, start, (), lanes) for name, kind, start in regs]
            if inside:
                body += self.reduced_loops(inside, lanes)
            for number, v in enumerate(reductions):
                kind = accumulator(v.dtype) if COMBINE[v.op] in ("add", "mul") else v.dtype
                result: Expr = reg(f"acc{d}_{number}", kind)
                if self.by_rows:
                    result = across(COMBINE[v.op], result)
                body.append(Let(f"r{d}_{number}", cast(result, v.dtype)))
                name = f"r{d}_{number}"
                reader.bound[v] = lambda at, name=name, v=v: var(name, v.dtype)  # type: ignore[misc]
            reader.bound.update(kept)  # this phase went on with the values themselves; later ones load them
            reader.forget()
        body += self.store([v for v in group.outputs if v in rows])
        self.final = {v for v in group.outputs if v in rows or self.depth[v] == last}
        return body

    def adds_rows(self) -> bool:
        """Whether sums over columns are kept in scratch, a whole row of them, to which one row is added after the other: memory
        is read in order then, where strips of columns would read a small piece of each row, on a page of its own."""
        if self.vector is None or self.by_rows or not self.outer or len(self.inner) != 1:
            return False
        group, columns = self.group, self.vector.extent
        if not isinstance(columns, int):
            return False
        nbytes = columns * sum(self.kind_of(v).itemsize for v in group.reductions)
        single = all(self.depth[v] == 1 for v in group.reductions) and all(
            map(self.is_row_value, group.outputs)
        )
        return single and columns > self.lanes and nbytes <= ROW_BYTES

    def kind_of(self, v: Value) -> DType:
        """The type a reduction is computed in."""
        return accumulator(v.dtype) if COMBINE[v.op] in ("add", "mul") else v.dtype

    def added_rows(self) -> tuple[Stmt, ...] | None:
        """The work for one item of the grid where ``adds_rows``."""
        assert self.vector is not None
        group, nest, reader, rows = self.group, self.nest, self.reader, self.inner[0]
        column = var(self.vector.name)
        lanes = 2 * self.register
        starts: list[Stmt] = []
        adds: list[Stmt] = []
        ends: list[Stmt] = []
        for number, v in enumerate(group.reductions):
            kind, combine = self.kind_of(v), COMBINE[v.op]
            term = reduction_terms(reader, v, nest.outer(), nest.inner(), None)
            if take_checks(reader):
                return None
            name = self.builder.area(kind, upper(self.vector.extent))
            starts.append(Store(name, column, identity(combine, kind)))
            adds.append(Store(name, column, op(combine, load(name, column, kind), term)))
            ends.append(Let(f"r0_{number}", cast(load(name, column, kind), v.dtype)))
        for number, v in enumerate(group.reductions):
            reader.bound[v] = lambda at, name=f"r0_{number}", v=v: var(name, v.dtype)  # type: ignore[misc]
        reader.forget()
        ends += self.store(list(group.outputs))
        self.final = set(group.outputs)

        def across_columns(body: list[Stmt]) -> Loop:
            assert self.vector is not None
            return Loop(self.vector.name, index(0), extent(self.vector.extent), tuple(body), "vector", lanes)

        adding = Loop(rows.name, index(0), extent(rows.extent), (across_columns(adds),))
        return across_columns(starts), adding, across_columns(ends)

    def is_row_value(self, v: Value) -> bool:
        """Whether a member has one element per row: no reduced loop occurs in its index."""
        if not self.group.reduced:
            return False
        if v in self.group.reductions:
            return True
        reduced = [a for k, i in enumerate(self.group.loops) if k in self.group.reduced for a in i.terms]
        if reduced:
            return not any(i.coefficient(a) for i in self.group.members[v] for a in reduced)
        return len(v.shape) == len(self.group.dims) - len(self.group.reduced) and v.shape != self.group.dims

    def cached_values(self, rows: set[Value], last: int) -> list[Value]:
        """Costly row-wide values that a later phase reads again: kept in scratch while the row is worked on."""
        extent = product([d.extent for d in self.nest.dims if d.reduced])
        if not self.by_rows or last == 0 or extent > MAX_ROW:
            return []
        out = []
        for v in self.group.members:
            if v in rows or own_cost(v) < CACHE_COST:
                continue
            readers = [u for u in self.group.members if v in u.inputs]
            if any(self.depth[u] - (u in self.group.reductions) > self.depth[v] for u in readers):
                out.append(v)
        return out

    def keep(self, v: Value, kept: dict[Value, Callable[[Index], Expr]]) -> list[Stmt]:
        """Store a value of the row in scratch."""
        dims = [d for d in self.nest.dims if d.reduced]
        position = self.nest.space.linear([d.at for d in dims], [d.extent for d in dims]).expr()
        name = self.builder.area(v.dtype, product([d.extent for d in dims]))
        value = self.reader.read(v, self.nest.index(v))
        kept[v] = lambda at: load(name, position, v.dtype)
        return [*take_checks(self.reader), Store(name, position, value)]

    def store(self, values: list[Value]) -> list[Stmt]:
        """Stores of values at one place of the loops. All are computed before the first is written: an output may lie where
        one of the operands does."""
        named: list[Stmt] = []
        stores: list[Stmt] = []
        for v in values:
            at = self.nest.index(v)
            value = self.reader.read(v, at)
            named += take_checks(self.reader)
            position = self.nest.space.linear(at, v.shape).expr()
            if len(values) > 1:
                self.named += 1
                name = f"o{self.named}"
                named.append(Let(name, value))
                value = var(name, v.dtype)
            stores.append(Store(self.builder.buffer(v, "w"), position, value))
        return [*named, *stores]

    def reduced_loops(self, inside: list[Stmt], lanes: int) -> list[Stmt]:
        body = tuple(inside)
        if self.by_rows:
            assert self.vector is not None
            body = (Loop(self.vector.name, index(0), extent(self.vector.extent), body, "vector", lanes),)
        for dim in reversed(self.inner):
            body = (Loop(dim.name, index(0), extent(dim.extent), body),)
        return list(body)

    # ---- the whole kernel ----

    def call(self, label: str) -> Call:
        per_item = self.cost * product([d.extent for d in self.nest.dims])
        if self.adds_rows():
            added = self.added_rows()
            if added is not None:
                return self.over_grid(added, per_item, label)
        body = tuple(self.phases())
        if self.vector is not None and not self.by_rows:
            if not self.outer:
                # one long dim: the grid is its elements, and the kernel does not depend on how many there are
                body = (Loop(self.vector.name, LO, HI, body, "vector", self.lanes),)
                per_item = max(1, per_item // max(upper(self.vector.extent), 1))
                chunk = -(-CHUNK_COST // per_item // self.lanes) * self.lanes
                return self.finish(body, self.vector.extent, max(chunk, self.lanes), label)
            body = (Loop(self.vector.name, index(0), extent(self.vector.extent), body, "vector", self.lanes),)
        return self.over_grid(body, per_item, label)

    def over_grid(self, body: tuple[Stmt, ...], work: int, label: str) -> Call:
        """The grid runs over as many leading outer dims as it takes to share the work out."""
        grid_dims, rest = self.shared_dims(work)
        for dim in reversed(rest):
            body = (Loop(dim.name, index(0), extent(dim.extent), body),)
        grid = total(d.extent for d in grid_dims)
        if len(grid_dims) == 1:
            body = (Loop(grid_dims[0].name, LO, HI, body),)
        else:
            flat = var("g")
            digits: list[Stmt] = []
            for position, dim in enumerate(grid_dims):
                digit = idiv(flat, product(d.extent for d in grid_dims[position + 1 :]))
                digits.append(Let(dim.name, digit if position == 0 else imod(digit, upper(dim.extent))))
            body = (Loop("g", LO, HI, (*digits, *body)),)
        chunk = max(1, CHUNK_COST * upper(grid) // max(work, 1))
        return self.finish(body, grid, chunk, label)

    def shared_dims(self, work: int) -> tuple[list[_Dim], list[_Dim]]:
        """The outer dims that the grid runs over, outermost first, and those that are loops inside a piece of work.

        A symbolic dim leads the grid: finding the others' digits takes divisions, by constants only.
        """
        symbolic = [d for d in self.outer if not isinstance(d.extent, int)]
        grid_dims, rest = [d for d in self.outer if d not in symbolic[:1]], list[_Dim]()
        rest, grid_dims = symbolic[1:], [*symbolic[:1], *(d for d in grid_dims if d not in symbolic)]
        inside = product(d.extent for d in rest)
        work //= max(product(d.extent for d in self.outer), 1)
        while len(grid_dims) > 1:
            tasks = product(d.extent for d in grid_dims[:-1])
            # where the outer range may be short at run time, a piece of work is no longer than it has to be
            if tasks < 64 or (symbolic and work * inside * upper(grid_dims[-1].extent) > CHUNK_COST):
                break
            inside *= upper(grid_dims[-1].extent)
            rest.insert(0, grid_dims.pop())
        return grid_dims, rest

    def finish(self, body: tuple[Stmt, ...], grid: Extent, chunk: int, label: str) -> Call:
        call = self.builder.call(body, grid, chunk, label)
        call.inplace = self.inplace_pairs(call)
        return call

    def inplace_pairs(self, call: Call) -> list[tuple[int, int]]:
        """(output, input) arguments whose every access is at the same element: they may share memory."""
        positions: dict[Value, set[Affine]] = {}
        for a in self.accesses:
            positions.setdefault(a.value, set()).add(a.position)
        pairs = []
        for o, out in enumerate(call.args):
            if out.access != "w" or out.place not in self.final or not isinstance(out.place, Value):
                continue
            for i, arg in enumerate(call.args):
                if arg.access != "r" or not isinstance(arg.place, Value) or arg.place.type != out.place.type:
                    continue
                if positions[arg.place] == positions[out.place] and len(positions[out.place]) == 1:
                    pairs.append((o, i))
        return pairs


def lower_loops(group: Group, stored: Callable[[Value], bool], width: int) -> list[Call]:
    """The kernel call of a map or row group. ``width``: bytes of a vector register."""
    if all(v.type.size == 0 for v in group.outputs):
        return []
    ops = ", ".join(dict.fromkeys(v.op for v in group.members))
    label = f"{group.kind} {ops} {list(group.dims)}"
    return [_Emitter(group, stored, width).call(label)]
