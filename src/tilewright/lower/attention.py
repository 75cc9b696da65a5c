"""Attention and its derivatives without the matrix of scores: blocks of keys pass by panels of queries.

The softmax is kept as a running maximum, a running sum of exponentials and an unfinished mix of values that are rescaled when
the maximum grows (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018; Dao et al., "FlashAttention",
2022). The backward pass computes the weights again from the rows' log-sum-exp, block by block (Dao, "FlashAttention-2", 2023).
Blocks in which causality leaves nothing are skipped, tile by tile.

    for head, block of queries:                     # one task
        pack Q^T * scale
        for block of keys:
            copy K, V
            for panel of queries:
                S[key, query] = K Q^T               # lanes along queries: maxima and sums are plain vectors
                m' = max(m, max S); P = exp(S - m'); l = l exp(m - m') + sum P
                O[query, feature] = O exp(m - m') + P^T V
        store O / l, m + log l

T queries, S keys, D features. Operands are read through ``read`` where they are copied, so they may lie anyhow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tilewright.core.shape import product
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
    idiv,
    index,
    load,
    op,
    reg,
    var,
)
from tilewright.lower.affine import Affine
from tilewright.lower.attention_nest import (
    K0,
    KEND,
    PANEL,
    Q0,
    QEND,
    TILES,
    WHOLE,
    AttentionNest,
    least,
    most,
)
from tilewright.lower.calls import Builder, Call, Temporary
from tilewright.lower.groups import Group
from tilewright.recipes.machine import Machine

__all__ = ["lower_attention"]

SUM_CHUNK = 1 << 14  # elements of a partial sum that a thread adds at once

Finish = Callable[
    [Expr, Expr, Expr, Expr], list[Stmt]
]  # (key in the block, vector and query in the panel, sum) -> what is done with it


class _Forward(AttentionNest):
    """The mix of values and the log-sum-exp of every query."""

    def __init__(self, group: Group, stored: Callable[[Value], bool], machine: Machine) -> None:
        super().__init__(group, stored, machine)
        t = self.tiling
        self.direct = self.finishes("mix")
        self.turned, self.mix = self.area(t.queries * self.row), self.area(t.queries * self.row)
        self.keys, self.values = self.area(t.block * self.row), self.area(t.block * self.row)
        self.scores, self.decays = self.area(t.block * t.panel), self.area(t.panel)
        self.tops, self.totals = self.area(t.queries), self.area(t.queries)
        self.place = PANEL * t.panel + self.panel_lane  # of the lane's query in the block

    def calls(self) -> list[Call]:
        t = self.tiling
        digits, head, number, grid = self.decode(-(-self.t // t.queries))
        task: list[Stmt] = [
            *self.next_head(),
            *self.block_of_queries(number.expr()),
            *self.clear_padding([(self.values, t.block)]),
            *self.turned_queries(head),
        ]
        if not self.single:
            task += [
                self.fill(self.tops, t.queries, self.number(float("-inf"))),
                self.fill(self.totals, t.queries, self.number(0)),
                self.fill(self.mix, t.queries * self.row, self.number(0)),
            ]
        task += self.blocks_of_keys(head, self.keys, self.values, self.panel(head))
        if "lse" in self.results:
            position = self.space.loop("n", self.t)
            here = position.expr() - Q0
            done = op("add", self.at(self.tops, here), op("log", self.at(self.totals, here)))
            store = self.result("lse", head, (position,), done)
            task.append(self.vector(Q0, QEND, [store], "n" if self.t > 1 else "n1"))
        if not self.direct and "mix" in self.results:
            task.append(self.fill(self.totals, t.queries, self.inverse(self.at(self.totals, var("v")))))
            task += self.write_rows(
                "mix",
                head,
                lambda n, c: op("mul", self.at(self.mix, n * self.row + c), self.at(self.totals, n)),
            )
        flops = 4 * product(self.heads) * self.t * self.s * self.d // (2 if self.causal else 1)
        return [self.builder.call((Loop("g", LO, HI, (*digits, *task)),), grid, 1, self.label, flops)]

    def inverse(self, total: Expr) -> Expr:
        """What a query's mix is multiplied by at the end, instead of a division of each feature. Totals are at least 1."""
        return op("div", self.number(1), total)

    def turned_queries(self, head: Sequence[Affine]) -> list[Stmt]:
        """The block of queries times the scale, turned."""
        t = self.tiling
        if self.t % t.panel:
            # the place of the mix is free until its sums begin
            copied = self.copy_rows(self.query, head, Q0, QEND, self.mix, t.panel, self.scale)
            return [*copied, *self.turn(self.turned, lambda n, c: self.at(self.mix, n * self.row + c))]

        def element(n: Expr, c: Expr) -> Expr:
            at = self.space.atom(Q0 + n, 0, self.t - 1), self.space.atom(c, 0, self.d - 1)
            return self.scaled(self.reader.read(self.query, (*head, *at)), self.scale)

        return self.turn(self.turned, element)

    def panel(self, head: Sequence[Affine]) -> list[Stmt]:
        """One panel of queries meets one block of keys."""
        t = self.tiling
        shape = (t.vectors,)
        out: list[Stmt] = [
            *self.key_tiles(),
            Reg("top", self.kind, self.number(float("-inf")), shape, t.lanes),
        ]
        if not self.single:
            out += self.along_panel([Set("top", self.at(self.tops, self.place), (var("j"),))])
        out += [
            self.score_tiles(self.keys, self.turned, 0, WHOLE, self.score(False), 0, self.operands),
            *self.masked_tiles(self.keys, self.turned, self.score(True), self.operands),
        ]
        if not self.single:
            out += self.along_panel(self.rescale())
        out += [
            Reg("total", self.kind, self.number(0), shape, t.lanes),
            *self.key_rows(self.weigh()),
            *self.along_panel(self.finished() if self.single else [self.add_total()]),
        ]
        return [*out, self.query_tiles(self.finished_tile(head) if self.direct else self.mix_tile)]

    def score(self, masked: bool) -> Finish:
        """Store a score and keep the largest. A NaN is not larger: it becomes a NaN weight all the same."""

        def finish(key: Expr, vector: Expr, column: Expr, x: Expr) -> list[Stmt]:
            if masked:
                x = self.masked(K0 + key, self.first_query + column, x)
            best = reg("top", self.kind, vector)
            larger = op("where", op("gt", x, best), x, best)
            return [Store(self.scores, key * self.tiling.panel + column, x), Set("top", larger, (vector,))]

        return finish

    def rescale(self) -> list[Stmt]:
        """What is summed so far is relative to the old maximum: the factor to the new one."""
        top = reg("top", self.kind, var("j"))
        return [
            Let("decay", op("exp", op("sub", self.at(self.tops, self.place), top))),
            Store(self.tops, self.place, top),
            Store(self.decays, self.panel_lane, var("decay", self.kind)),
        ]

    def weigh(self) -> list[Stmt]:
        here = var("kr") * self.tiling.panel + self.panel_lane
        top, total = reg("top", self.kind, var("j")), reg("total", self.kind, var("j"))
        weight = var("weight", self.kind)
        return [
            Let("weight", op("exp", op("sub", self.at(self.scores, here), top))),
            Store(self.scores, here, weight),
            Set("total", op("add", total, weight), (var("j"),)),
        ]

    def add_total(self) -> Stmt:
        before, decay = self.at(self.totals, self.place), self.at(self.decays, self.panel_lane)
        return Store(
            self.totals, self.place, self.machine.accumulate(before, decay, reg("total", self.kind, var("j")))
        )

    def finished(self) -> list[Stmt]:
        """The statistics of queries that have met all keys."""
        top, total = reg("top", self.kind, var("j")), reg("total", self.kind, var("j"))
        out: list[Stmt] = []
        if "lse" in self.results:
            out.append(Store(self.tops, self.place, top))
        if "lse" in self.results or not self.direct:
            out.append(Store(self.totals, self.place, total))
        if self.direct:
            out.append(Store(self.decays, self.panel_lane, self.inverse(total)))
        return out

    def finished_tile(self, head: Sequence[Affine]) -> Callable[[int, Expr], list[Stmt]]:
        """``mix[query, feature] = sum over keys of weight[key, query] value[key, feature] / total[query]`` in memory."""
        return self.sums_in_memory(
            "mix", head, self.scores, self.values, lambda query, x: op("mul", x, self.at(self.decays, query))
        )

    def mix_tile(self, vectors: int, first: Expr) -> list[Stmt]:
        """``mix[query, feature] = mix * decay[query] + sum over keys of weight[key, query] value[key, feature]``."""
        t = self.tiling
        query = var("qt") * t.rows

        def mixed(i: Expr, c: Expr) -> Expr:
            return (PANEL * t.panel + query + i) * self.row + first + c

        return self.tile(
            t.rows, vectors,
            lambda i, s: self.at(self.scores, s * t.panel + query + i),
            lambda s, c: self.at(self.values, s * self.row + first + c),
            self.keys_of(var("qt") * t.rows, t.rows),
            lambda i, c, x: [Store(self.mix, mixed(i, c), x)],
            None
            if self.single
            else lambda i, c: op("mul", self.at(self.mix, mixed(i, c)), self.at(self.decays, query + i)),
        )  # fmt: skip


class _Backward(AttentionNest):
    """The gradients of query, key and value, as many as are asked for.

        for head, piece of the queries:                 # one task
            dK = dV = 0
            for block of queries:
                copy Q * scale, G and their transposes, lse, delta; dQ = 0
                for block of keys, panel of queries:
                    S = K Q^T; Z = V G^T                # lanes along queries
                    P = exp(S - lse); Z = P (Z - delta)
                    dQ += Z^T K; dV += P G; dK += Z Q   # lanes along features
                store dQ * scale

    A task holds all keys of a head, so that sums over queries need no atomic additions and have one order.
    """

    def __init__(self, group: Group, stored: Callable[[Value], bool], machine: Machine) -> None:
        super().__init__(group, stored, machine)
        t = self.tiling
        self.g, self.lse, self.delta = self.operands[3:]
        self.turned, self.rows = self.area(t.queries * self.row), self.area(t.queries * self.row)
        self.g_turned, self.g_rows = self.area(t.queries * self.row), self.area(t.queries * self.row)
        self.keys, self.values = self.area(t.block * self.row), self.area(t.block * self.row)
        # small scores of all queries are kept until every sum over queries is taken at once
        scores = 2 * t.block * t.queries * self.kind.itemsize
        self.whole = self.single and 0 < self.t <= t.queries and scores <= machine.l2 // 4
        self.width = t.queries if self.whole else t.panel
        self.first_column = PANEL * t.panel if self.whole else index(0)
        self.direct = self.finishes("q")
        self.scores, self.changes = self.area(t.block * self.width), self.area(t.block * self.width)
        self.dq, self.lses, self.deltas = (
            self.area(t.queries * self.row),
            self.area(t.queries),
            self.area(t.queries),
        )
        blocks = -(-self.t // t.queries)
        self.per_piece = max(1, -(-blocks // t.pieces))
        self.pieces = max(1, -(-blocks // self.per_piece))
        # sums over queries: straight into the results, or a partial sum for every piece of the queries
        self.sums: dict[str, Value | Temporary] = {
            name: v if self.pieces == 1 else Temporary(self.kind, self.pieces * v.type.size)
            for name, v in self.results.items()
            if name != "q"
        }

    def calls(self) -> list[Call]:
        t = self.tiling
        digits, head, piece, grid = self.decode(self.pieces)
        none = Affine.of(0)
        self.corner = self.space.linear((*head, none, none), self.key.shape) + piece * self.key.type.size
        task = self.next_head() if self.pieces == 1 else []
        task += self.clear_padding([(self.keys, t.block), (self.rows, t.queries), (self.g_rows, t.queries)])
        # sums taken at once need no beginning, but for keys that no query sees
        met = (min(self.t, self.s) if self.causal else self.s) if self.whole else 0
        for place in self.sums.values() if met < self.s else ():
            target = self.builder.buffer(place, "rw")
            cleared = Store(target, self.corner.expr() + var("e"), self.number(0))
            task.append(self.vector(met * self.d, self.s * self.d, [cleared], "e"))
        start, blocks = piece.expr() * self.per_piece, -(-self.t // t.queries)
        stop = least(start + self.per_piece, blocks)
        task.append(Loop("qb", start, stop, tuple(self.block(head))))
        flops = 10 * product(self.heads) * self.t * self.s * self.d // (2 if self.causal else 1)
        calls = [self.builder.call((Loop("g", LO, HI, (*digits, *task)),), grid, 1, self.label, flops)]
        if self.pieces > 1:
            calls += [self.sum_pieces(place, self.results[name]) for name, place in self.sums.items()]
        return calls

    def block(self, head: Sequence[Affine]) -> list[Stmt]:
        """One block of queries meets all keys. Beyond the last query weights are exp(0 - inf) = 0."""
        t = self.tiling
        return [
            *self.block_of_queries(var("qb")),
            *self.copy_rows(self.query, head, Q0, QEND, self.rows, t.panel, self.scale),
            *self.turn(self.turned, lambda n, c: self.at(self.rows, n * self.row + c)),
            *self.copy_rows(self.g, head, Q0, QEND, self.g_rows, t.panel),
            *self.turn(self.g_turned, lambda n, c: self.at(self.g_rows, n * self.row + c)),
            *self.copy_numbers(self.lse, head, Q0, QEND, self.lses, float("inf")),
            *self.copy_numbers(self.delta, head, Q0, QEND, self.deltas, 0.0),
            *(() if self.direct else [self.fill(self.dq, t.queries * self.row, self.number(0))]),
            *self.blocks_of_keys(
                head, self.keys, self.values, self.panel(head), self.key_sums() if self.whole else ()
            ),
            *self.rest_of_queries(head),
        ]

    def rest_of_queries(self, head: Sequence[Affine]) -> list[Stmt]:
        """Queries' gradients that were summed in scratch."""
        if self.direct:
            return []
        return self.write_rows(
            "q", head, lambda n, c: self.scaled(self.at(self.dq, n * self.row + c), self.scale)
        )

    @property
    def wants_changes(self) -> bool:
        return "q" in self.results or "k" in self.results

    def panel(self, head: Sequence[Affine]) -> list[Stmt]:
        """One panel of queries meets one block of keys."""
        out: list[Stmt] = [
            *self.key_tiles(),
            self.score_tiles(self.keys, self.turned, 0, WHOLE, self.score(False), 0, self.operands[:2]),
            *self.masked_tiles(self.keys, self.turned, self.score(True), self.operands[:2]),
        ]
        if self.wants_changes:
            change, asked = self.change(), (self.value, self.g)
            out.append(self.score_tiles(self.values, self.g_turned, 0, WHOLE, change, 0, asked))
            out += self.masked_tiles(self.values, self.g_turned, change, asked)
        out += self.key_rows(self.weigh())
        if "q" in self.results:
            out.append(self.query_tiles(self.finished_tile(head) if self.direct else self.query_tile))
        return out if self.whole else [*out, *self.key_sums()]

    def finished_tile(self, head: Sequence[Affine]) -> Callable[[int, Expr], list[Stmt]]:
        """The queries' gradients in memory."""
        return self.sums_in_memory(
            "q", head, self.changes, self.keys, lambda query, x: self.scaled(x, self.scale)
        )

    def key_sums(self) -> list[Stmt]:
        """Sums over the panel's queries, or over all of them, for each key they meet."""
        out: list[Stmt] = []
        if "v" in self.results:
            out += self.over_queries("v", self.scores, self.g_rows)
        if "k" in self.results:
            out += self.over_queries("k", self.changes, self.rows)
        return out

    def score(self, masked: bool) -> Finish:
        def finish(key: Expr, vector: Expr, column: Expr, x: Expr) -> list[Stmt]:
            if masked:
                x = self.masked(K0 + key, self.first_query + column, x)
            return [Store(self.scores, self.score_at(key, column), x)]

        return finish

    def score_at(self, key: Expr, column: Expr) -> Expr:
        """The place of a key's score with a query of the panel."""
        return key * self.width + self.first_column + column

    def change(self) -> Finish:
        """Store a product of a value with a cotangent."""
        return lambda key, vector, column, x: [Store(self.changes, self.score_at(key, column), x)]

    def weigh(self) -> list[Stmt]:
        """Scores become weights, and products with the cotangent become changes of scores."""
        t = self.tiling
        here, place = self.score_at(var("kr"), self.panel_lane), PANEL * t.panel + self.panel_lane
        weight = var("weight", self.kind)
        out: list[Stmt] = [
            Let("weight", op("exp", op("sub", self.at(self.scores, here), self.at(self.lses, place)))),
            Store(self.scores, here, weight),
        ]
        if self.wants_changes:
            moved = op("sub", self.at(self.changes, here), self.at(self.deltas, place))
            out.append(Store(self.changes, here, op("mul", weight, moved)))
        return out

    def query_tile(self, vectors: int, first: Expr) -> list[Stmt]:
        """``dq[query, feature] += sum over keys of change[key, query] key[key, feature]``."""
        t = self.tiling
        query = var("qt") * t.rows

        def summed(i: Expr, c: Expr) -> Expr:
            return (PANEL * t.panel + query + i) * self.row + first + c

        return self.tile(
            t.rows, vectors,
            lambda i, s: self.at(self.changes, self.score_at(s, query + i)),
            lambda s, c: self.at(self.keys, s * self.row + first + c),
            self.keys_of(var("qt") * t.rows, t.rows),
            lambda i, c, x: [Store(self.dq, summed(i, c), x)],
            lambda i, c: self.at(self.dq, summed(i, c)),
        )  # fmt: skip

    def over_queries(self, name: str, left: str, right: str) -> list[Stmt]:
        """``sum[key, feature] += sum over the panel's queries of left[key, query] right[query, feature]``.

        Keys that do not fill a tile are done one by one: nothing is stored beyond the last key.
        """
        rows = self.tiling.key_rows
        count = KEND - K0
        if not self.whole:
            count = least(TILES * self.tiling.keys, count)
        whole = idiv(count, rows)
        tiles = self.row_tiles(lambda vectors, first: self.key_tile(name, left, right, rows, vectors, first))
        out: list[Stmt] = [Loop("rt", index(0), whole, tuple(tiles))]
        if rows > 1:
            tiles = self.row_tiles(lambda vectors, first: self.key_tile(name, left, right, 1, vectors, first))
            out.append(Loop("rt", whole * rows, count, tuple(tiles)))
        return out

    def key_tile(self, name: str, left: str, right: str, rows: int, vectors: int, first: Expr) -> list[Stmt]:
        target, key = self.builder.buffer(self.sums[name], "rw"), var("rt") * rows
        # queries of the panel, or of the whole block
        start = index(0) if self.whole else PANEL * self.tiling.panel
        count = self.panels * self.tiling.panel if self.whole else index(self.tiling.panel)

        def summed(i: Expr, c: Expr) -> Expr:
            return self.corner.expr() + (K0 + key + i) * self.d + first + c

        def real(c: Expr) -> Expr | None:
            return None if self.row == self.d else op("lt", first + c, index(self.d))

        return self.tile(
            rows, vectors,
            lambda i, s: self.at(left, (key + i) * self.width + s),
            lambda s, c: self.at(right, (start + s) * self.row + first + c),
            count,
            lambda i, c, x: [Store(target, summed(i, c), x, real(c))],
            None
            if self.whole
            else lambda i, c: load(target, summed(i, c), self.kind, real(c), self.number(0)),
            most(K0 + key - Q0 - start, 0) if self.causal else 0,
        )  # fmt: skip

    def sum_pieces(self, source: Value | Temporary, target: Value) -> Call:
        """Add the pieces' partial sums, always in the same order."""
        builder, size = Builder(), target.type.size
        term = load(builder.buffer(source, "r"), var("s") * size + var("e"), self.kind)
        total = reg("total", self.kind)
        body: list[Stmt] = [
            Reg("total", self.kind, self.number(0)),
            Loop("s", index(0), index(self.pieces), (Set("total", op("add", total, term)),)),
            Store(builder.buffer(target, "w"), var("e"), total),
        ]
        loop = Loop("e", LO, HI, tuple(body), "vector", self.tiling.lanes)
        return builder.call((loop,), size, SUM_CHUNK, f"sum of pieces: {self.label}")


def lower_attention(group: Group, stored: Callable[[Value], bool], machine: Machine) -> list[Call]:
    """The kernel calls of an attention group, forward or backward."""
    if all(v.type.size == 0 for v in group.outputs):
        return []
    nest = _Forward if group.anchor.op == "attention" else _Backward
    return nest(group, stored, machine).calls()
