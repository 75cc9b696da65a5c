"""Convolutions with 3x3 filters by Winograd's minimal filtering F(2x2, 3x3): 16 multiplications for four results instead of 36.

A tile of 4x4 inputs gives 2x2 results (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016):

    Y = A' [ sum over channels of (G g G') * (B' d B) ] A

For each of the 16 elements of a transformed tile the sum over channels is a matrix product of filters and tiles. A task takes
a block of tiles through all three steps, so that nothing but its results leaves the caches:

    transform the filters: u[filters / mr][16][channels][mr]                     # a call of its own: once, when settled
    for task in lo..hi:                                                          # some rows of tiles
        for c: columns, then rows of the tiles: v[16][channels][tiles]
        for some filters at a time:
            for each of 16: m[16][filters][tiles] = u @ v                        # register tiles of mr x nr vectors
            for f: y[4][tiles] from m; each row of results through the epilogue to memory

Sums of four inputs are rounded before they are multiplied. Where a result is not finite, because an operand is not or a sum has
overflowed, the part is computed again by the direct sum: an infinity would make NaN of all results of the tiles that hold it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tilewright.core import dtype as dt
from tilewright.core.shape import is_static, static
from tilewright.graph.ir import Value
from tilewright.kernel.ir import (
    HI,
    LO,
    Expr,
    If,
    Loop,
    Reg,
    Set,
    Stmt,
    Store,
    across,
    const,
    idiv,
    imod,
    index,
    load,
    op,
    reg,
    var,
)
from tilewright.lower.affine import Affine
from tilewright.lower.calls import Call, Temporary, take_checks
from tilewright.lower.extents import digits
from tilewright.lower.groups import Group
from tilewright.lower.problem import epilogue
from tilewright.lower.read import conjunction, within
from tilewright.lower.tile_nest import TileNest
from tilewright.recipes.machine import Machine
from tilewright.recipes.winograd import Blocking, choose_blocking

__all__ = ["columns_of_tile", "lower_winograd"]

PLACES = 16  # elements of a transformed tile


def columns_of_tile(d: Sequence[Expr]) -> list[Expr]:
    """B' of four elements."""
    return [op("sub", d[0], d[2]), op("add", d[1], d[2]), op("sub", d[2], d[1]), op("sub", d[1], d[3])]


def _filter(g: Sequence[Expr]) -> list[Expr]:
    """G of three elements."""
    half = const(0.5, g[0].dtype)
    outer, inner = op("mul", op("add", g[0], g[2]), half), op("mul", g[1], half)
    return [g[0], op("add", outer, inner), op("sub", outer, inner), g[2]]


def _results(m: Sequence[Expr]) -> list[Expr]:
    """A' of four elements."""
    return [op("add", op("add", m[0], m[1]), m[2]), op("sub", op("sub", m[1], m[2]), m[3])]


class Winograd(TileNest):
    """Builds the two kernels of one convolution."""

    def __init__(
        self, group: Group, stored: Callable[[Value], bool], machine: Machine, blocking: Blocking
    ) -> None:
        self.group, self.stored, self.blocking = group, stored, blocking
        self.anchor = group.anchor
        self.image, self.filters = self.anchor.inputs
        self.images, self.channels, self.height, self.width = static(self.image.shape)
        self.count, self.high, self.wide = static(self.anchor.shape)[1:]
        self.up, self.left = (low for low, _ in self.anchor["padding"])
        self.kind = dt.float32
        self.lanes = machine.vector_bytes // self.kind.itemsize
        self.machine = machine
        t = blocking
        self.tiles_down = -(-self.high // 2)
        self.tiles_wide = -(-self.wide // 2)
        self.segments = -(-self.tiles_wide // t.across)  # of a row of tiles
        self.rows = self.images * self.tiles_down * self.segments
        self.panels = -(-self.count // t.mr)
        size = self.panels * PLACES * self.channels * t.mr
        self.transformed = Temporary(self.kind, size)

    def calls(self) -> list[Call]:
        return [self.filter_call(), self.main_call()]

    # ---- filters ----

    def filter_call(self) -> Call:
        """u[panel][place][channel][mr]; the last panel ends with the filters."""
        self.start()
        t = self.blocking
        panel, c = self.space.loop("t0", self.panels), self.space.loop("c", self.channels)
        r = self.space.loop("r", t.mr)
        f = self.block(panel, t.mr, self.count) + r
        g = [
            [self.reader.read(self.filters, (f, c, Affine.of(y), Affine.of(x))) for x in range(3)]
            for y in range(3)
        ]
        body: list[Stmt] = list(take_checks(self.reader))
        columns = [_filter([g[y][x] for y in range(3)]) for x in range(3)]
        target = self.builder.buffer(self.transformed, "w")
        for i in range(4):
            for j, value in enumerate(_filter([columns[x][i] for x in range(3)])):
                place = ((panel * PLACES + (4 * i + j)) * self.channels + c) * t.mr + r
                body.append(Store(target, place.expr(), value))
        inner = self.loop("c", self.channels, [self.along("r", t.mr, body)])
        loops = Loop("g", LO, HI, (*digits(["t0"], [self.panels]), *inner))
        return self.builder.call((loops,), self.panels, 1, f"transform {self.count}x{self.channels} filters")

    # ---- a task ----

    def main_call(self) -> Call:
        self.start()
        t = self.blocking
        blocks = -(-self.rows // t.rows)
        first = self.block(self.space.loop("t0", blocks), t.rows, self.rows)
        row = self.space.loop("r", t.rows)
        line, segment = self.space.divmod(first + row, self.segments)
        self.at = self.space.divmod(line, self.tiles_down)  # image and row of tiles
        self.first_tile = self.block(segment, t.across, self.tiles_wide)
        self.pitch = -(-t.rows * t.across // self.lanes) * self.lanes
        self.v = self.builder.area(self.kind, PLACES * self.channels * self.pitch)
        self.m = self.builder.area(self.kind, PLACES * t.filters * self.pitch)
        self.y = self.builder.area(self.kind, 4 * t.filters * self.pitch)
        size = t.filters // t.mr  # panels of a part of the filters
        parts = -(-self.panels // size)
        alone = blocks < self.machine.threads  # parts are tasks of their own
        start = self.block(self.space.loop("t1" if alone else "p", parts), size, self.panels)
        done = [*self.products(start), *self.finished(start)]
        task = self.transformed_tiles() + (done if alone else self.loop("p", parts, done))
        extents = [blocks, parts if alone else 1]
        loops = Loop("g", LO, HI, (*digits(["t0", "t1"], extents), *task))
        label = (
            f"winograd [{self.count}]x[{self.images}, {self.high}, {self.wide}]x[{self.channels}, 3, 3]"
            f" {t.mr}x{t.nr}x{self.lanes} block {t.filters}x{t.rows * t.across}"
        )
        flops = 18 * self.channels * self.anchor.type.size  # of the direct sum
        return self.builder.call((loops,), blocks * extents[1], 1, label, flops)

    def element(self, c: Affine, y: Affine, x: Affine) -> Expr:
        """An element of the image of the task's row, 0 outside."""
        mask = conjunction(within(self.space, y, self.height), within(self.space, x, self.width))
        value = self.reader.read(self.image, (self.at[0], c, y, x), mask)
        if mask is not None and not (value.op == "load" and len(value.args) == 3 and value.args[1] is mask):
            value = op("where", mask, value, const(0, value.dtype))
        return value

    def transformed_tiles(self) -> list[Stmt]:
        """v[place][channel][tile]. Columns are transformed along the image's rows, twice: from the first and from the third
        element of every tile on, so that the rows of tiles then follow each other without gaps."""
        t = self.blocking
        c, r, e = (
            self.space.loop("c", self.channels),
            self.space.loop("r", t.rows),
            self.space.loop("e", 2 * t.across),
        )
        tiles = t.rows * t.across
        columns = self.builder.area(self.kind, 8 * 2 * self.pitch)
        body: list[Stmt] = []
        for shift in range(2):
            x = self.first_tile * 2 + e + (2 * shift - self.left)
            d = [self.element(c, self.at[1] * 2 + (k - self.up), x) for k in range(4)]
            body += take_checks(self.reader)
            for k, value in enumerate(columns_of_tile(d)):
                place = r * (2 * t.across) + e + (shift * 4 + k) * 2 * self.pitch
                body.append(Store(columns, place.expr(), value))
        down = self.loop("r", t.rows, [self.along("e", 2 * t.across, body)])
        tile, i = var("n"), var("i")
        h = [
            load(columns, (i + const(4 * (j // 2))) * (2 * self.pitch) + tile * 2 + (j % 2), self.kind)
            for j in range(4)
        ]
        stores = [
            Store(self.v, ((i * 4 + j) * self.channels + c.expr()) * self.pitch + tile, value)
            for j, value in enumerate(columns_of_tile(h))
        ]
        rows = [Loop("i", index(0), index(4), (self.along("n", tiles, stores),), "unroll")]
        return self.loop("c", self.channels, [*down, *rows])

    def products(self, start: Affine) -> list[Stmt]:
        """m[place][filter of the part][tile]."""
        t, lanes = self.blocking, self.lanes
        q, s = self.space.loop("q", t.filters // t.mr), var("s")  # panel of the part; place
        n = self.space.loop("n", self.pitch // (t.nr * lanes)) * (t.nr * lanes)
        i, j, v, c = var("i"), var("j"), var("v"), self.space.loop("c", self.channels).expr()
        u = self.builder.buffer(self.transformed, "r")
        a = load(u, ((((start + q) * PLACES).expr() + s) * self.channels + c) * t.mr + i, self.kind)
        b = load(self.v, (s * self.channels + c) * self.pitch + n.expr() + j * lanes + v, self.kind)
        update = Set("acc", self.machine.accumulate(a, b, reg("acc", self.kind, i, j)), (i, j))
        tile = self.unrolled([update])
        step = self.loop("c", self.channels, [self.along("v", lanes, tile)])
        place = (s * t.filters + (q * t.mr).expr() + i) * self.pitch + n.expr() + j * lanes + v
        put = [self.along("v", lanes, [Store(self.m, place, reg("acc", self.kind, i, j))])]
        body = [Reg("acc", self.kind, const(0, self.kind), (t.mr, t.nr), lanes), *step, *self.unrolled(put)]
        columns = self.loop("n", self.pitch // (t.nr * lanes), body)
        return [Loop("s", index(0), index(PLACES), tuple(self.loop("q", t.filters // t.mr, columns)))]

    def unrolled(self, body: Sequence[Stmt]) -> list[Stmt]:
        t = self.blocking
        inner = Loop("j", index(0), index(t.nr), tuple(body), "unroll")
        return [Loop("i", index(0), index(t.mr), (inner,), "unroll")]

    def finished(self, start: Affine) -> list[Stmt]:
        """The results of a part's filters, through the epilogue to memory; where one is not finite, all by the direct sum."""
        t = self.blocking
        o, n = var("o"), var("n")  # filter of the part; tile
        m = [load(self.m, (o + const(s * t.filters)) * self.pitch + n, self.kind) for s in range(PLACES)]
        columns = [_results([m[4 * i + j] for i in range(4)]) for j in range(4)]
        results = [x for y in range(2) for x in _results([column[y] for column in columns])]
        body: list[Stmt] = [
            Store(self.y, (o * 4 + k) * self.pitch + n, value) for k, value in enumerate(results)
        ]
        zero = const(0, self.kind)
        odd = zero
        for value in results:  # 0 times what is not finite is NaN, and stays it
            odd = self.machine.accumulate(value, zero, odd)
        body.append(Set("odd", op("add", reg("odd", self.kind), odd)))
        back = Loop("o", index(0), index(t.filters), (self.along("n", t.rows * t.across, body),))
        finite = op("eq", across("add", reg("odd", self.kind)), zero)
        through, direct = (self.rows_of_results(start, read) for read in (self.result, self.direct))
        return [Reg("odd", self.kind, zero, (), self.lanes), back, If(finite, tuple(through), tuple(direct))]

    def rows_of_results(self, start: Affine, read: Callable[..., tuple[list[Stmt], Expr]]) -> list[Stmt]:
        """Every row of a part's results, with lanes along the row."""
        t = self.blocking
        o, y, x = self.space.loop("o", t.filters), self.space.loop("y", 2), self.space.loop("x", 2 * t.across)
        panel, within_panel = self.space.divmod(o, t.mr)
        at = (
            self.at[0],
            self.filter_at(start, panel) + within_panel,
            self.at[1] * 2 + y,
            self.first_tile * 2 + x,
        )
        before, value = read(o, y, at)
        body = [*before, *epilogue(self.group, self.reader, at, value, self.builder)]
        wide, high = const(2 * t.across), const(2)
        if self.wide % 2:
            wide = op("minimum", wide, op("sub", const(self.wide), (self.first_tile * 2).expr()))
        if self.high % 2:
            high = op("minimum", high, op("sub", const(self.high), (self.at[1] * 2).expr()))
        row = Loop("x", index(0), wide, tuple(body), "vector", self.lanes)
        line = self.loop("r", t.rows, [Loop("y", index(0), high, (row,))])
        return [Loop("o", index(0), index(t.filters), tuple(line))]

    def result(self, o: Affine, y: Affine, at: Sequence[Affine]) -> tuple[list[Stmt], Expr]:
        """An element of the tiles' results: even columns are the first of their tile, odd ones the second."""
        t = self.blocking
        tile = (self.space.loop("r", t.rows) * t.across).expr() + idiv(var("x"), 2)
        here = ((o * 4 + y * 2) * self.pitch).expr() + tile
        even, odd = (load(self.y, here + const(k * self.pitch), self.kind) for k in range(2))
        return [], op("where", op("eq", imod(var("x"), 2), const(0)), even, odd)

    def direct(self, o: Affine, y: Affine, at: Sequence[Affine]) -> tuple[list[Stmt], Expr]:
        """The same by its definition: an infinity reaches those results only that it belongs to."""
        _, f, row, column = at
        c, total = self.space.loop("c", self.channels), reg("total", self.kind)
        terms: list[Stmt] = []
        for i in range(3):
            for j in range(3):
                a = self.element(c, row + (i - self.up), column + (j - self.left))
                b = self.reader.read(self.filters, (f, c, Affine.of(i), Affine.of(j)))
                terms += [*take_checks(self.reader), Set("total", self.machine.accumulate(a, b, total))]
        zero = Reg("total", self.kind, const(0, self.kind))
        return [zero, *self.loop("c", self.channels, terms)], total

    def filter_at(self, start: Affine, panel: Affine) -> Affine:
        """The first filter of a panel."""
        return self.block(start + panel, self.blocking.mr, self.count)


def lower_winograd(group: Group, stored: Callable[[Value], bool], machine: Machine) -> list[Call] | None:
    """The calls of a convolution that takes less time this way; None for another."""
    v = group.anchor
    if v.op != "conv" or not is_static(v.shape) or len(v.shape) != 4 or v.type.size == 0:
        return None
    image, filters = v.inputs
    if not (v.dtype is image.dtype is filters.dtype is dt.float32) or v["groups"] != 1:
        return None
    ones = (*v["stride"], *v["lhs_dilation"], *v["rhs_dilation"])
    if static(filters.shape)[2:] != (3, 3) or any(n != 1 for n in ones):
        return None
    blocking = choose_blocking(machine, static(image.shape)[1], static(v.shape))
    return None if blocking is None else Winograd(group, stored, machine, blocking).calls()
