"""Operations with a recipe of their own: cumsum, scatter and concat.

Each fuses with what it reads, through ``read``, and stands alone towards its readers.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

from tilewright.core.shape import Extent, Shape, product, static, total, upper
from tilewright.graph.ir import Value
from tilewright.kernel.ir import (
    HI,
    LO,
    Expr,
    Loop,
    Reg,
    Set,
    Stmt,
    Store,
    cast,
    const,
    index,
    load,
    op,
    reg,
)  # fmt: skip
from tilewright.lower.affine import Affine, Space
from tilewright.lower.calls import Builder, Call, take_checks
from tilewright.lower.extents import digits, extent
from tilewright.lower.groups import Group
from tilewright.lower.problem import plain_in
from tilewright.lower.read import Reader, accumulator, index_atom

__all__ = ["lower_single"]

CHUNK_ELEMENTS = 1 << 15


class _Single:
    """Shared ground: a reader, the output, and loops over everything but one axis."""

    def __init__(self, group: Group, stored: Callable[[Value], bool], lanes: int) -> None:
        self.value = group.anchor
        self.stored, self.lanes = stored, lanes
        self.builder, self.space = Builder(), Space()
        self.reader = Reader(self.space, lambda v: self.builder.buffer(v, "r") if stored(v) else None)

    def outer(
        self, sizes: Shape, vector_last: bool
    ) -> tuple[list[Affine], Callable[[list[Stmt]], tuple[Stmt, ...]], Extent]:
        """Loops over ``sizes``: the grid runs over all of them or, with ``vector_last``, all but a vector loop over the last."""
        at = [self.space.loop(f"i{k}", n) for k, n in enumerate(sizes)]
        count = len(sizes) - 1 if vector_last else len(sizes)
        names = [f"i{k}" for k in range(count)]

        def wrap(body: list[Stmt]) -> tuple[Stmt, ...]:
            inner = tuple(body)
            if vector_last:
                inner = (Loop(f"i{count}", index(0), extent(sizes[-1]), inner, "vector", self.lanes),)
                if sizes[-1] == 1:
                    inner = tuple(body)
            return (Loop("g", LO, HI, (*digits(names, sizes[:count]), *inner)),)

        return at, wrap, total(sizes[:count])

    def finish(self, body: tuple[Stmt, ...], grid: Extent, work: int) -> Call:
        chunk = max(1, CHUNK_ELEMENTS * upper(grid) // max(work, 1))
        return self.builder.call(body, grid, chunk, f"{self.value.op} {list(self.value.inputs[0].shape)}")


def _cumsum(s: _Single) -> list[Call]:
    """A running sum along one axis; other axes run in parallel, the last one across lanes."""
    v = s.value
    x, axis = v.inputs[0], v["axis"]
    shape = x.shape
    rest = tuple(n for k, n in enumerate(shape) if k != axis)
    by_lanes = axis != len(shape) - 1 and bool(rest) and upper(rest[-1]) > 1
    at, wrap, grid = s.outer(rest, by_lanes)
    step = s.space.loop("k", shape[axis])
    along = step * -1 + (static(shape[axis : axis + 1])[0] - 1) if v["reverse"] else step
    full = (*at[:axis], along, *at[axis:])
    kind = accumulator(v.dtype)
    total = reg("total", kind)
    term = cast(s.reader.read(x, full), kind)
    loop: list[Stmt] = [
        *take_checks(s.reader),
        Set("total", op("add", total, term)),
        Store(s.builder.buffer(v, "w"), s.space.linear(full, shape).expr(), cast(total, v.dtype)),
    ]
    run: list[Stmt] = (
        [Loop("k", index(0), extent(shape[axis]), tuple(loop))] if upper(shape[axis]) > 1 else loop
    )
    return [s.finish(wrap([Reg("total", kind, const(0, kind)), *run]), grid, product(shape))]


_SCATTER = {"add": "add", "max": "maximum", "min": "minimum"}


def _scatter(group: Group, stored: Callable[[Value], bool], lanes: int) -> list[Call]:
    """Copy the operand, then apply the updates in order. Threads share out the axes that are not indexed, so that two updates
    of one element always meet on one thread, in order: results do not depend on the thread count."""
    v = group.anchor
    x, updates, *indices = v.inputs
    copy = _Single(group, stored, lanes)
    shape = x.shape
    most = product(shape)
    element = copy.space.loop("i", total(shape))
    value = copy.reader.read(x, tuple(copy.space.unravel(element, shape)))
    body = [*take_checks(copy.reader), Store(copy.builder.buffer(v, "w"), element.expr(), value)]
    loop = Loop("i", LO, HI, tuple(body), "vector", lanes)
    calls = [
        copy.builder.call(
            (loop,) if most > 1 else tuple(body), total(shape), CHUNK_ELEMENTS, f"scatter: copy {list(shape)}"
        )
    ]
    count = product(indices[0].shape)
    if not count or not most:
        return calls

    s = _Single(group, stored, lanes)
    axes = v["axes"]
    rest = [n for k, n in enumerate(shape) if k not in axes]
    at = [s.space.loop(f"r{k}", n) for k, n in enumerate(rest)]
    where = [s.space.loop(f"j{k}", n) for k, n in enumerate(indices[0].shape)]
    chosen = {
        a: index_atom(s.reader, i, tuple(where), static(shape[a : a + 1])[0], None)
        for a, i in zip(axes, indices, strict=True)
    }
    good: Expr | None = None
    for condition, _ in s.reader.checks:
        good = condition if good is None else op("bitand", good, condition)
    free = iter(at)
    target = s.space.linear(
        [chosen[a] if a in chosen else next(free) for a in range(len(shape))], shape
    ).expr()
    update = s.reader.read(updates, (*where, *at))
    name = s.builder.buffer(v, "rw")
    if v["mode"] == "set":
        result = update
    else:
        kind = accumulator(v.dtype)
        from_memory = load(name, target, v.dtype)
        result = cast(op(_SCATTER[v["mode"]], cast(from_memory, kind), cast(update, kind)), v.dtype)
    inner: list[Stmt] = [*take_checks(s.reader), Store(name, target, result, good)]
    grid: Extent = 1
    if rest and upper(rest[-1]) > 1:
        # lanes and threads run over the last axis that is not indexed
        last = len(rest) - 1
        inner = [Loop(f"r{last}", LO, HI, tuple(inner), "vector", lanes)]
        for k in reversed(range(last)):
            inner = [Loop(f"r{k}", index(0), extent(rest[k]), tuple(inner))] if rest[k] != 1 else inner
        grid = rest[-1]
    else:
        for k in reversed(range(len(rest))):
            inner = [Loop(f"r{k}", index(0), extent(rest[k]), tuple(inner))] if rest[k] != 1 else inner
    for k, n in reversed(list(enumerate(indices[0].shape))):
        inner = [Loop(f"j{k}", index(0), extent(n), tuple(inner))] if n != 1 else inner
    if grid == 1:
        inner = [Loop("g", LO, HI, tuple(inner))]
    most = upper(grid)
    chunk = max(lanes, -(-most // 8 // lanes) * lanes) if count * product(rest) > CHUNK_ELEMENTS else most
    calls.append(s.builder.call(tuple(inner), grid, chunk, f"scatter: {v['mode']} {list(updates.shape)}"))
    calls[-1].checked = s.reader.checked
    return calls


def _concat(group: Group, stored: Callable[[Value], bool], lanes: int) -> list[Call]:
    """Every operand is written to its place, in one pass over the rows: the axes before the one that the operands share."""
    v = group.anchor
    axis, rows = v["axis"], total(v.shape[: v["axis"]])
    parts = [x for x in v.inputs if product(x.shape[axis:]) and upper(rows)]
    s = _Single(group, stored, lanes)
    calls: list[Call] = []
    body: list[Stmt] = []
    start = work = 0
    for n, (shape, same) in enumerate(groupby(parts, lambda x: x.shape[axis:])):
        tail, xs = product(shape), list(same)
        if rows == 1:
            for x in xs:
                s = _Single(group, stored, lanes)
                stores = _part(s, x, Affine.of(0), (Affine.of(0), s.space.loop("c", tail)), 0, start)
                kind = ("vector", lanes) if tail > 1 else ("serial", 0)
                loop = Loop("c", LO, HI, tuple(stores), *kind)
                calls.append(s.builder.call((loop,), tail, CHUNK_ELEMENTS, f"concat {list(x.shape)}"))
                start += tail
            continue
        # operands of one shape share loops, and what they read in common
        cut = len(shape) - 1 if upper(shape[-1]) >= lanes and any(_scattered(s, x) for x in xs) else 0
        outer, inner = product(shape[:cut]), product(shape[cut:])
        at = s.space.loop(f"d{n}", outer), s.space.loop(f"c{n}", inner)
        stores = []
        for x in xs:
            stores += _part(s, x, s.space.loop("g", rows), at, cut, start)
            start += tail
        if inner > 1:
            stores = [Loop(f"c{n}", index(0), index(inner), tuple(stores), "vector", lanes)]
        body += [Loop(f"d{n}", index(0), index(outer), tuple(stores))] if outer > 1 else stores
        work += tail * len(s.reader.accesses)
        s.reader.accesses.clear()
    if body:
        calls.append(s.finish((Loop("g", LO, HI, tuple(body)),), rows, upper(rows) * work))
    return calls


def _part(s: _Single, x: Value, row: Affine, at: tuple[Affine, Affine], cut: int, start: int) -> list[Stmt]:
    """Store an operand's element at a row and at a place among its trailing axes: those before number ``cut``, and the rest."""
    axis, (far, near) = s.value["axis"], at
    sizes, width = x.shape[axis:], product(static(s.value.shape[axis:]))
    before = s.space.unravel(row, x.shape[:axis]) if axis else []
    middle = s.space.unravel(far, sizes[:cut]) if cut else []
    value = s.reader.read(x, (*before, *middle, *s.space.unravel(near, sizes[cut:])))
    position = row * width + far * product(sizes[cut:]) + near + start
    return [*take_checks(s.reader), Store(s.builder.buffer(s.value, "w"), position.expr(), value)]


def _scattered(s: _Single, x: Value) -> bool:
    """Whether what an operand reads along its trailing axes, run as one, lies in several places."""
    axis = s.value["axis"]
    space = Space()
    reader = Reader(space, lambda v: "b" if s.stored(v) else None)
    before = [space.loop(f"i{k}", n) for k, n in enumerate(x.shape[:axis])]
    column = space.loop("c", product(x.shape[axis:]))
    reader.read(x, (*before, *space.unravel(column, x.shape[axis:])))
    return not all(plain_in(a.position, column) for a in reader.accesses)


def lower_single(group: Group, stored: Callable[[Value], bool], width: int) -> list[Call]:
    """The kernel calls of one operation. ``width``: bytes of a vector register."""
    v = group.anchor
    lanes = max(
        1, width // v.inputs[-1].dtype.itemsize if v.op == "concat" else width // max(v.dtype.itemsize, 4)
    )
    if v.type.size == 0:
        return []
    if v.op == "cumsum":
        return _cumsum(_Single(group, stored, lanes))
    if v.op == "scatter":
        return _scatter(group, stored, lanes)
    return _concat(group, stored, lanes)
