"""What the nests of attention share: sizes, loops over heads, panels and blocks, copies into scratch, register tiles.

The nests themselves, forward and backward, are in ``attention.py``. T queries, S keys, D features; rows in scratch are whole
vectors long and zero beyond the features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from tilewright.core.shape import Extent, is_static, lower_bound, product, static, total, upper
from tilewright.graph.ir import Value
from tilewright.kernel.ir import (
    Expr,
    If,
    Let,
    Loop,
    Prefetch,
    Reg,
    Set,
    Stmt,
    Store,
    const,
    idiv,
    imod,
    index,
    load,
    op,
    reg,
    var,
)  # fmt: skip
from tilewright.lower.affine import Affine, Space
from tilewright.lower.calls import Builder, take_checks
from tilewright.lower.extents import digits
from tilewright.lower.groups import Group
from tilewright.lower.read import Reader
from tilewright.recipes.attention import choose_attention_tiling
from tilewright.recipes.machine import Machine

__all__ = ["K0", "KEND", "PANEL", "Q0", "QEND", "TILES", "WHOLE", "AttentionNest", "block_count", "least"]

Q0, QEND = var("q0"), var("qend")  # the block of queries
K0, KEND = var("k0"), var("kend")  # the block of keys
PANEL = var("p")  # number of the panel in the block of queries
TILES, WHOLE = var("tiles"), var("whole")  # tiles of keys that the panel meets, and those that it sees whole

LINE = 64  # bytes

Element = Callable[[Expr, Expr], Expr]  # (row or step, column or step) -> value


def least(a: Expr, b: Expr | int) -> Expr:
    return op("minimum", a, index(b))


def most(a: Expr, b: Expr | int) -> Expr:
    return op("maximum", a, index(b))


def block_count(n: Expr, size: int) -> Expr:
    """How many blocks of ``size`` hold ``n`` elements."""
    return idiv(n + (size - 1), size)


def lane_blocks(count: int, lanes: int) -> Iterator[tuple[int, int, int]]:
    """Blocks of a range of lanes, whole ones and a last one: their size, where the first begins, how many there are."""
    rest = count % lanes
    if count >= lanes:
        yield lanes, 0, count // lanes
    if rest:
        yield rest, count - rest, 1


class AttentionNest:
    """What the forward and the backward nest share: sizes, tiling, copies into scratch, register tiles."""

    def __init__(self, group: Group, stored: Callable[[Value], bool], machine: Machine) -> None:
        anchor = group.anchor
        self.query, self.key, self.value = anchor.inputs[:3]
        self.operands = anchor.inputs
        self.machine = machine
        self.results: dict[str, Value] = {
            v["result" if v.op == "attention" else "wrt"]: v for v in group.outputs
        }
        self.scale, self.causal = float(anchor["scale"]), bool(anchor["causal"])
        self.heads = self.query.shape[:-2]
        self.t, self.d = static(self.query.shape[-2:])
        (self.s,) = static(self.key.shape[-2:-1])
        self.kind = anchor.dtype
        self.tiling = choose_attention_tiling(
            machine, self.kind.itemsize, product(map(lower_bound, self.heads)), self.t, self.s, self.d
        )
        lanes = self.tiling.lanes
        self.row = -(-self.d // lanes) * lanes  # elements of a row in scratch, whole vectors
        # all keys in one block: what a panel of queries sums over keys is finished at once
        self.single = 0 < self.s <= self.tiling.block
        self.next: Sequence[Affine] | None = None  # head, whose rows are asked for
        self.tiles = 0  # register tiles so far: each has a name of its own
        self.builder, self.space = Builder(), Space()
        self.reader = Reader(self.space, lambda v: self.builder.buffer(v, "r") if stored(v) else None)
        self.label = f"{anchor.op} {list(self.heads)} {self.t}x{self.s}x{self.d}{' causal' * self.causal} {self.tiling}"

    def number(self, x: float) -> Expr:
        return const(x, self.kind)

    def area(self, size: int) -> str:
        return self.builder.area(self.kind, size)

    def at(self, area: str, where: Expr | int) -> Expr:
        return load(area, where, self.kind)

    # ---- loops ----

    def vector(self, start: Expr | int, stop: Expr | int, body: Sequence[Stmt], name: str = "v") -> Stmt:
        return Loop(name, index(start), index(stop), tuple(body), "vector", self.tiling.lanes)

    def unrolled(self, name: str, count: int, body: Sequence[Stmt]) -> list[Stmt]:
        return [Loop(name, index(0), index(count), tuple(body), "unroll")]

    def along_panel(self, body: Sequence[Stmt], first: int = 0) -> list[Stmt]:
        """The body for every query of a panel, from vector ``first`` on: vector ``j``, and the query's place ``panel_lane``."""
        lanes = self.vector(0, self.tiling.lanes, body)
        return [Loop("j", index(first), index(self.tiling.vectors), (lanes,), "unroll")]

    @property
    def panel_lane(self) -> Expr:
        return var("j") * self.tiling.lanes + var("v")

    def decode(self, blocks: int) -> tuple[list[Stmt], list[Affine], Affine, Extent]:
        """The task number as the head's index and the number of a block (or piece) of queries; the grid."""
        extents = (*self.heads, blocks)
        names = [f"h{k}" for k in range(len(extents))]
        at = [self.space.loop(n, e) for n, e in zip(names, extents, strict=True)]
        return digits(names, extents), at[:-1], at[-1], total(extents)

    # ---- copies into scratch ----

    def copy_rows(
        self,
        x: Value,
        head: Sequence[Affine],
        first: Expr,
        stop: Expr,
        area: str,
        size: int,
        scale: float = 1.0,
    ) -> list[Stmt]:
        """Rows ``first`` .. ``stop`` of [.., N, D] as ``area[row][self.row]``; zero up to a multiple of ``size`` rows."""
        position, feature = self.space.loop("n", static(x.shape[-2:-1])[0]), self.space.loop("c", self.d)
        value = self.scaled(self.reader.read(x, (*head, position, feature)), scale)
        here = (position.expr() - first) * self.row
        copied = [*take_checks(self.reader), Store(area, here + feature.expr(), value)]
        rest = [Store(area, var("n") * self.row + var("c"), self.number(0))]
        count = stop - first
        out: list[Stmt] = [
            self.over_positions(
                first, stop, static(x.shape[-2:-1])[0], [self.vector(0, self.d, copied, "c")]
            ),
            Loop("n", count, block_count(count, size) * size, (self.vector(0, self.d, rest, "c"),)),
        ]
        return out

    def over_positions(self, first: Expr, stop: Expr, extent: int, body: Sequence[Stmt]) -> Stmt:
        """A loop over positions ``n``; a single position is the constant 0 of the index algebra."""
        return Loop("n" if extent > 1 else "n1", first, stop, tuple(body))

    def scaled(self, value: Expr, scale: float) -> Expr:
        return value if scale == 1.0 else op("mul", value, self.number(scale))

    def clear_padding(self, areas: Sequence[tuple[str, int]]) -> list[Stmt]:
        """Zero the columns that fill rows up to whole vectors, once: copies do not touch them."""
        if self.row == self.d:
            return []
        return [
            Loop("n", index(0), index(rows), (
                self.vector(self.d, self.row, [Store(area, var("n") * self.row + var("c"), self.number(0))], "c"),
            ))
            for area, rows in areas
        ]  # fmt: skip

    def turn(self, turned: str, element: Element) -> list[Stmt]:
        """``element(query, feature)`` as ``turned[panel][feature][query of the panel]``, in squares that the emitter transposes
        in registers."""
        t, out = self.tiling, list[Stmt]()
        for active, first, blocks in lane_blocks(self.d, t.lanes):
            feature = var("f") * t.lanes + first + var("c")
            row = var("j") * t.lanes + var("n")
            value = element(PANEL * t.panel + row, feature)
            checks = take_checks(self.reader)
            store = Store(turned, (PANEL * self.row + feature) * t.panel + row, value)
            square = self.unrolled("n", t.lanes, [self.vector(0, active, [*checks, store], "c")])
            across = Loop("f", index(0), index(blocks), tuple(square))
            out.append(Loop("j", index(0), index(t.vectors), (across,)))
        return [Loop("p", index(0), self.panels, tuple(out))]

    def copy_numbers(
        self, x: Value, head: Sequence[Affine], first: Expr, stop: Expr, area: str, rest: float
    ) -> list[Stmt]:
        """One number per query, ``rest`` beyond ``stop``."""
        position = self.space.loop("n", self.t)
        value = self.reader.read(x, (*head, position))
        copied: list[Stmt] = [*take_checks(self.reader), Store(area, position.expr() - first, value)]
        return [
            self.vector(first, stop, copied, "n" if self.t > 1 else "n1"),
            self.vector(stop - first, self.tiling.queries, [Store(area, var("v"), self.number(rest))]),
        ]

    def fill(self, area: str, size: int, value: Expr) -> Stmt:
        return self.vector(0, size, [Store(area, var("v"), value)])

    # ---- register tiles ----

    def tile(
        self,
        rows: int,
        vectors: int,
        a: Element,
        b: Element,
        steps: Expr | int,
        finish: Callable[[Expr, Expr, Expr], list[Stmt]],
        start: Element | None = None,
        before: Expr | int = 0,
        asks: Sequence[Stmt] = (),
    ) -> list[Stmt]:
        """``c[i, column] = start(i, column) + sum over s of a(i, s) b(s, column)``, then ``finish(i, column, c)``.

        ``s`` runs from ``before`` to ``steps``. Broadcasts of ``a`` meet vectors of ``b``; ``column`` runs over ``vectors``.
        """
        i = var("i") if rows > 1 else index(0)
        j = var("j") if vectors > 1 else index(0)
        column = j * self.tiling.lanes + var("v")
        name = f"c{self.tiles}"
        self.tiles += 1
        here = reg(name, self.kind, i, j)

        def each(body: Sequence[Stmt]) -> Stmt:
            inner = self.unrolled("j", vectors, body) if vectors > 1 else list(body)
            inner = self.unrolled("i", rows, inner) if rows > 1 else inner
            return self.vector(0, self.tiling.lanes, inner)

        out: list[Stmt] = [Reg(name, self.kind, self.number(0), (rows, vectors), self.tiling.lanes)]
        if start is not None:
            out.append(each([Set(name, start(i, column), (i, j))]))
        step = Set(name, self.machine.accumulate(a(i, var("s")), b(var("s"), column), here), (i, j))
        out.append(Loop("s", index(before), index(steps), (*asks, each([step]))))
        out.append(each(finish(i, column, here)))
        return out

    def row_tiles(self, tile: Callable[[int, Expr], list[Stmt]]) -> list[Stmt]:
        """``tile(vectors, first column)`` over a row of features."""
        total, width = self.row // self.tiling.lanes, self.tiling.width
        out: list[Stmt] = []
        if total >= width:
            whole = tile(width, var("f") * (width * self.tiling.lanes))
            out.append(Loop("f", index(0), index(total // width), tuple(whole)))
        if total % width:
            out += tile(total % width, index(total // width * width * self.tiling.lanes))
        return out

    # ---- sums over keys ----

    def finishes(self, name: str) -> bool:
        """Whether tiles of sums over keys of result ``name`` go from registers to memory."""
        whole = self.t % self.tiling.rows == 0 and self.row == self.d
        return self.single and whole and name in self.results

    def query_tiles(self, tile: Callable[[int, Expr], list[Stmt]]) -> Stmt:
        """Tiles of the panel's queries, number ``qt``; those without any are left out where tiles are whole."""
        t = self.tiling
        count = index(t.panel // t.rows)
        if self.t % t.panel and self.t % t.rows == 0:
            count = idiv(least(QEND - self.first_query, t.panel), t.rows)
        return Loop("qt", index(0), count, tuple(self.row_tiles(tile)))

    def sums_in_memory(
        self, name: str, head: Sequence[Affine], left: str, right: str, finish: Callable[[Expr, Expr], Expr]
    ) -> Callable[[int, Expr], list[Stmt]]:
        """``result[query, feature] = finish(query, sum over keys of left[key, query] right[key, feature])`` in memory."""
        t, query = self.tiling, var("qt") * self.tiling.rows

        def done(i: Expr, c: Expr, x: Expr) -> list[Stmt]:
            at = self.space.atom(self.first_query + query + i, 0, self.t - 1)
            return [self.result(name, head, (at, self.space.atom(c, 0, self.d - 1)), finish(query + i, x))]

        return lambda vectors, first: self.tile(
            t.rows, vectors,
            lambda i, s: self.at(left, self.score_at(s, query + i)),
            lambda s, c: self.at(right, s * self.row + first + c),
            self.keys_of(query, t.rows),
            lambda i, c, x: done(i, first + c, x),
        )  # fmt: skip

    def score_at(self, key: Expr, column: Expr) -> Expr:
        """The place of a key's score with a query of the panel."""
        return key * self.tiling.panel + column

    # ---- scores ----

    def score_tiles(
        self,
        keys: str,
        queries: str,
        first: Expr | int,
        stop: Expr | int,
        finish: Callable[[Expr, Expr, Expr, Expr], list[Stmt]],
        past: int = 0,
        asked: Sequence[Value] = (),
    ) -> Stmt:
        """Products of key rows with a turned panel, tiles ``first`` .. ``stop``, without the panel's first ``past`` vectors.

        ``finish`` gets the key's place in the block, the vector's and the query's in the panel, and the sum."""
        size, width, lanes = self.tiling.keys, self.tiling.panel, self.tiling.lanes
        vectors = self.tiling.vectors - past

        def a(i: Expr, s: Expr) -> Expr:
            return self.at(keys, (var("kt") * size + i) * self.row + s)

        def b(s: Expr, column: Expr) -> Expr:
            return self.at(queries, (PANEL * self.row + s) * width + past * lanes + column)

        def done(i: Expr, column: Expr, x: Expr) -> list[Stmt]:
            vector = var("j") + past if vectors > 1 else index(past)
            return finish(var("kt") * size + i, vector, column + past * lanes, x)

        body = self.tile(size, vectors, a, b, self.d, done, asks=self.asks(asked))
        return Loop("kt", index(first), index(stop), tuple(body))

    def masked_tiles(
        self,
        keys: str,
        queries: str,
        finish: Callable[[Expr, Expr, Expr, Expr], list[Stmt]],
        asked: Sequence[Value] = (),
    ) -> list[Stmt]:
        """Tiles of which the panel does not see all; vectors of queries that all come before a tile's keys are left out."""
        bounds = [WHOLE, *self.seen()]
        return [
            self.score_tiles(keys, queries, first, stop, finish, past, asked)
            for past, (first, stop) in enumerate(pairwise(bounds))
        ]

    def next_head(self) -> list[Stmt]:
        """Where the next task's head is, while a task asks for what that one will copy: rows of heads lie apart, each a line or
        a few, which no processor finds by itself."""
        tasks = product(map(upper, self.heads))
        moved = sum(v.type.nbytes for v in self.operands)
        single = self.single and 0 < self.t <= self.tiling.queries and is_static(self.heads)
        if not single or tasks == 1 or moved <= self.machine.l2 // 2:
            return []
        self.next = self.space.unravel(self.space.atom(var("next"), 0, tasks - 1), self.heads)
        return [Let("next", least(var("g") + 1, tasks - 1))]

    def asks(self, values: Sequence[Value]) -> list[Stmt]:
        """Prefetches of rows of the next head, in step ``s`` of tile ``kt`` of scores: all lines of a row in some steps."""
        out: list[Stmt] = []
        if self.next is None:
            return out
        for v in values:
            (extent,) = static(v.shape[-2:-1])
            lanes = LINE // v.dtype.itemsize
            row = least(var("kt") * self.tiling.keys + idiv(var("s") * self.tiling.keys, self.d), extent - 1)
            line = least(imod(var("s"), -(-self.d // lanes)) * lanes, self.d - 1)
            at = (self.space.atom(row, 0, extent - 1), self.space.atom(line, 0, self.d - 1))
            before, checks = len(self.reader.accesses), list(self.reader.checks)
            self.reader.read(v, (*self.next, *at))
            found = self.reader.accesses[before:]
            del self.reader.accesses[before:]
            self.reader.checks[:] = checks
            out += [Prefetch(self.builder.buffer(a.value, "r"), a.position.expr()) for a in found]
        return out

    def seen(self) -> list[Expr]:
        """How many tiles of keys the panel's first vectors see some of, those of each number of vectors; causality alone tells
        them apart."""
        return [*(var(f"seen{j}") for j in range(self.tiling.vectors - 1) if self.causal), TILES]

    def key_rows(self, body: Sequence[Stmt]) -> list[Stmt]:
        """The body for every key row ``kr`` and every query that may see some key of the row's tile."""
        bounds = [index(0), *self.seen()]
        size = self.tiling.keys
        return [
            Loop("kr", first * size, stop * size, tuple(self.along_panel(body, past)))
            for past, (first, stop) in enumerate(pairwise(bounds))
        ]

    def keys_of(self, query: Expr, rows: int) -> Expr:
        """How many keys of the block ``rows`` queries from ``query`` of the panel on meet: with causality those before them."""
        met = TILES * self.tiling.keys
        if not self.causal:
            return met
        return op("minimum", met, most(self.first_query + query + rows - K0, 0))

    def masked(self, key: Expr, query: Expr, score: Expr) -> Expr:
        """A score, or minus infinity where the key is none or comes after the query."""
        inside = op("lt", key, index(self.s)) if self.s % self.tiling.keys else None
        earlier = op("le", key, query) if self.causal else None
        for seen in (inside, earlier):
            if seen is not None:
                score = op("where", seen, score, self.number(float("-inf")))
        return score

    @property
    def first_query(self) -> Expr:
        return Q0 + PANEL * self.tiling.panel

    def key_tiles(self) -> list[Stmt]:
        """How many tiles of the block of keys the panel meets, and how many it sees whole."""
        size, first = self.tiling.keys, self.first_query

        def before(queries: int) -> Expr:
            """Keys of the block that the last one of the panel's first queries sees."""
            return most((least(KEND, first + queries) if self.causal else KEND) - K0, 0)

        tiles = [block_count(before((j + 1) * self.tiling.lanes), size) for j in range(self.tiling.vectors)]
        return [
            *(Let(f"seen{j}", count) for j, count in enumerate(tiles[:-1]) if self.causal),
            Let("tiles", tiles[-1]),
            Let("whole", idiv(before(1), size)),
        ]

    def blocks_of_keys(
        self,
        head: Sequence[Affine],
        keys: str,
        values: str,
        panel: Sequence[Stmt],
        after: Sequence[Stmt] = (),
    ) -> list[Stmt]:
        """Every block of keys, copied once, with every panel of the block of queries that sees some of it; then ``after``."""
        t = self.tiling
        last = least(QEND, self.s) if self.causal else index(self.s)
        met = (If(op("lt", K0, self.first_query + t.panel), tuple(panel)),) if self.causal else tuple(panel)
        body: list[Stmt] = [
            Let("k0", var("kb") * t.block),
            Let("kend", least(K0 + t.block, last)),
            *self.copy_rows(self.key, head, K0, KEND, keys, t.keys),
            *self.copy_rows(self.value, head, K0, KEND, values, t.keys),
            Loop("p", index(0), self.panels, met),
            *after,
        ]
        return [Loop("kb", index(0), block_count(last, t.block), tuple(body))]

    def block_of_queries(self, number: Expr) -> list[Stmt]:
        return [
            Let("q0", number * self.tiling.queries),
            Let("qend", least(Q0 + self.tiling.queries, self.t)),
        ]

    @property
    def panels(self) -> Expr:
        """Panels of the block of queries."""
        return block_count(QEND - Q0, self.tiling.panel)

    def result(self, name: str, head: Sequence[Affine], at: Sequence[Affine], value: Expr) -> Store:
        """A store to one of the group's results."""
        v = self.results[name]
        position = self.space.linear((*head, *at), v.shape)
        return Store(self.builder.buffer(v, "w"), position.expr(), value)

    def write_rows(self, name: str, head: Sequence[Affine], value: Element) -> list[Stmt]:
        """A result's rows for the block of queries, where there is such a result: ``value(place in the block, feature)``."""
        if name not in self.results:
            return []
        position, feature = self.space.loop("n", self.t), self.space.loop("c", self.d)
        store = self.result(name, head, (position, feature), value(position.expr() - Q0, feature.expr()))
        return [self.over_positions(Q0, QEND, self.t, [self.vector(0, self.d, [store], "c")])]
