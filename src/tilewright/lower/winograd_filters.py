"""Gradients of 3x3 filters by Winograd's minimal filtering F(3x3, 2x2): 16 multiplications for nine sums of four instead of 36.

A tile of 4x4 inputs and the 2x2 gradients of its results give their share of 3x3 filters:

    dw = A' [ sum over tiles of (B' d B) * (G g G') ] A

For each of the 16 elements of a transformed tile the sum over tiles is a matrix product of filters and channels. Lanes run
along channels, and along filters: images and gradients are turned when they are copied, and transformed without shuffles.

    for task in lo..hi:                                          # a piece of the tiles, some filters, some channels
        m[16][filters][channels] = 0
        for a block of tiles at a time:
            for each part of an image:
                x[rows][columns][channels], g[rows][columns][filters] = copies
                u[16][tiles][channels], v[16][tiles][filters] = transforms
            for each of 16: m += v' @ u                          # register tiles of mr x nr vectors
        partial[piece] = A' m A
    sum of pieces, through the epilogue to memory

Sums of four inputs are rounded before they are multiplied. Where a result is not finite, because an operand is not or a sum has
overflowed, the task's part is computed again by the direct sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tilewright.core import dtype as dt
from tilewright.core.shape import is_static, product, static
from tilewright.graph.ir import Value
from tilewright.kernel.ir import (
    HI,
    LO,
    Expr,
    If,
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
from tilewright.lower.affine import Affine
from tilewright.lower.calls import Call, Temporary, take_checks
from tilewright.lower.contraction import Contraction
from tilewright.lower.extents import digits
from tilewright.lower.groups import Group
from tilewright.lower.read import conjunction, within
from tilewright.lower.tile_nest import TileNest
from tilewright.lower.winograd import columns_of_tile
from tilewright.recipes.machine import Machine
from tilewright.recipes.winograd import GAIN, Summing, choose_summing

__all__ = ["FilterGradient", "filter_gradient", "lower_winograd_filters"]

PLACES = 16  # elements of a transformed tile
TAPS = 9


def _gradient(g: Sequence[Expr]) -> list[Expr]:
    """G of two elements."""
    half = const(0.5, g[0].dtype)
    return [g[0], op("mul", op("add", g[0], g[1]), half), op("mul", op("sub", g[0], g[1]), half), g[1]]


def _taps(m: Sequence[Expr]) -> list[Expr]:
    """A' of four elements."""
    both = op("add", m[1], m[2])
    return [op("add", m[0], both), op("sub", m[1], m[2]), op("sub", both, m[3])]


@dataclass(frozen=True, slots=True)
class FilterGradient:
    """What a filter's gradient is made of: ``gradients`` of results, [n, 1, f, y, x], and the ``image`` with its padding,
    [n, c, y, x]."""

    gradients: Value
    image: Value


def filter_gradient(v: Value) -> FilterGradient | None:
    """A dot of results' gradients with an image's 3x3 windows, over images and places; None for another."""
    if v.op != "dot" or not is_static(v.shape) or v.type.size == 0 or v.type.rank != 5 or v.shape[0] != 1:
        return None
    g, windows = v.inputs
    axes = ((0, 3, 4), (1,))
    if (v["lhs_contract"], v["lhs_batch"]) != axes or (v["rhs_contract"], v["rhs_batch"]) != axes:
        return None
    if windows.op != "reshape" or windows.inputs[0].op != "window" or g.type.rank != 5:
        return None
    window = windows.inputs[0]
    (image,) = window.inputs
    if not is_static((*window.shape, *g.shape)):
        return None
    n, c, *rest = static(window.shape)
    ones = (*window["stride"], *window["dilation"])
    if window["axes"] != (2, 3) or window["size"] != (3, 3) or any(s != 1 for s in ones):
        return None
    if static(windows.shape) != (n, 1, c, *rest):
        return None
    if not all(x.dtype is dt.float32 for x in (v, g, image)):
        return None
    return FilterGradient(g, image)


class WinogradFilters(TileNest):
    """Builds the kernels of one filter's gradient."""

    def __init__(
        self, contraction: Contraction, operands: FilterGradient, machine: Machine, summing: Summing
    ) -> None:
        self.contraction, self.stored, self.machine = contraction, contraction.stored, machine
        self.image, self.gradients = operands.image, operands.gradients
        self.summing = t = summing
        self.kind = dt.float32
        self.lanes = machine.vector_bytes // self.kind.itemsize
        self.images, _, self.count, self.high, self.wide = static(self.gradients.shape)
        self.channels = static(self.image.shape)[1]
        self.segments = -(-self.wide // 2) // t.across
        self.steps = -(-self.high // 2) // t.rows
        self.pieces = self.images * self.segments * self.steps // (t.together * t.blocks)
        self.partial = Temporary(self.kind, self.pieces * self.count * self.channels * TAPS)
        # lanes of vectors that are not full, and rows of tiles that are not, hold anything
        self.wide_c = -(-t.channels // self.lanes) * self.lanes
        self.wide_f = max(-(-t.filters // self.lanes) * self.lanes, -(-t.filters // t.mr) * t.mr)

    def calls(self) -> list[Call]:
        t = self.summing
        label = (
            f"winograd filters [{self.count}]x[{self.channels}, 3, 3]x[{self.images}, {self.high}, {self.wide}]"
            f" {t.mr}x{t.nr}x{self.lanes} block {t.filters}x{t.channels}x{t.tiles}"
        )
        flops = 2 * self.count * self.channels * TAPS * self.images * self.high * self.wide
        return [self.main_call(label, flops), self.contraction.sum_of(self.partial, self.pieces, label)]

    def main_call(self, label: str, flops: int) -> Call:
        self.start()
        t = self.summing
        grid = [self.pieces, -(-self.count // t.filters), -(-self.channels // t.channels)]
        self.piece, f, c = (self.space.loop(f"t{i}", e) for i, e in enumerate(grid))
        self.first_f = self.block(f, t.filters, self.count)
        self.first_c = self.block(c, t.channels, self.channels)
        self.rows, self.columns = 2 * t.rows + 2, 2 * t.across + 2
        area = self.builder.area
        self.x = area(self.kind, self.rows * self.columns * self.wide_c)
        self.g = area(self.kind, 4 * t.rows * t.across * self.wide_f)
        # 16 elements of a tile are stored at a time: a line more keeps them out of one set of the cache
        self.pitch_u, self.pitch_v = (t.tiles * wide + 5 * self.lanes for wide in (self.wide_c, self.wide_f))
        self.u, self.v = area(self.kind, PLACES * self.pitch_u), area(self.kind, PLACES * self.pitch_v)
        self.sums = self.wide_f * self.wide_c
        self.m = area(self.kind, PLACES * self.sums)
        e = var("e")
        zeros = self.along("e", PLACES * self.sums, [Store(self.m, e, const(0, self.kind))])
        number, part = self.space.loop("b", t.blocks), self.space.loop("i", t.together)
        line, step = self.space.divmod((self.piece * t.blocks + number) * t.together + part, self.steps)
        image, segment = self.space.divmod(line, self.segments)
        at = image, step * (2 * t.rows), segment * (2 * t.across)
        inside = [*self.copied_image(*at), *self.copied_gradients(*at), *self.transforms(part)]
        block = [*self.loop("i", t.together, inside), *self.products()]
        task = [zeros, *self.loop("b", t.blocks, block), *self.finished()]
        loops = Loop("g", LO, HI, (*digits(["t0", "t1", "t2"], grid), *task))
        return self.builder.call((loops,), product(grid), 1, label, flops)

    # ---- copies with lanes along channels and filters ----

    def turned(
        self,
        sizes: tuple[int, int, int],
        area: str,
        pitch: int,
        element: Callable[[Affine, Affine, Affine], Expr],
    ) -> list[Stmt]:
        """Copy elements (lane, row, column) so that lanes lie together: squares, which the emitter transposes in registers."""
        lanes, rows, columns = sizes
        row = self.space.loop("r", rows)
        out: list[Stmt] = []
        for column, active, column_blocks in self.vectors_of("e", columns):
            for lane, count, lane_blocks in self.vectors_of("l", lanes):
                value = element(lane, row, column)
                place = (row * columns + column) * pitch + lane
                body = [*take_checks(self.reader), Store(area, place.expr(), value)]
                square = self.loop("l", count, [self.along("e", active, body)], "unroll")
                out += self.loop("lb", lane_blocks, self.loop("eb", column_blocks, square))
        return self.loop("r", rows, out)

    def copied_image(self, image: Affine, y: Affine, x: Affine) -> list[Stmt]:
        """x[row][column][channel] of a part."""

        def element(c: Affine, row: Affine, column: Affine) -> Expr:
            return self.image_at(image, self.first_c + c, y + row, x + column)

        sizes = self.summing.channels, self.rows, self.columns
        return self.turned(sizes, self.x, self.wide_c, element)

    def copied_gradients(self, image: Affine, y: Affine, x: Affine) -> list[Stmt]:
        """g[row][column][filter] of a part."""

        def element(f: Affine, row: Affine, column: Affine) -> Expr:
            return self.gradient_at(image, self.first_f + f, y + row, x + column)

        sizes = self.summing.filters, self.rows - 2, self.columns - 2
        return self.turned(sizes, self.g, self.wide_f, element)

    def image_at(self, image: Affine, c: Affine, y: Affine, x: Affine) -> Expr:
        return self.masked(self.image, (image, c, y, x), y, x)

    def gradient_at(self, image: Affine, f: Affine, y: Affine, x: Affine) -> Expr:
        return self.masked(self.gradients, (image, Affine.of(0), f, y, x), y, x)

    def masked(self, value: Value, at: tuple[Affine, ...], y: Affine, x: Affine) -> Expr:
        """An element, 0 outside."""
        high, wide = static(value.shape)[-2:]
        mask = conjunction(within(self.space, y, high), within(self.space, x, wide))
        element = self.reader.read(value, at, mask)
        if mask is None or (element.op == "load" and len(element.args) == 3 and element.args[1] is mask):
            return element
        return op("where", mask, element, const(0, element.dtype))

    # ---- tiles ----

    def transforms(self, part: Affine) -> list[Stmt]:
        """u[place][tile][channel] and v[place][tile][filter] of a part."""
        t = self.summing
        r, tile = self.space.loop("r", t.rows), self.space.loop("n", t.across)
        number = (part * t.rows + r) * t.across + tile

        def transformed(
            size: int, columns: int, source: str, target: str, pitch: int, lanes: tuple[int, int],
            transform: Callable[[Sequence[Expr]], list[Expr]],
        ) -> Loop:  # fmt: skip
            wide, count = lanes
            lane = self.space.loop("c", count)
            lets: list[Stmt] = []

            def kept(name: str, value: Expr) -> Expr:
                lets.append(Let(name, value))
                return var(name, self.kind)

            d = [
                [
                    kept(
                        f"d{i}.{j}",
                        load(
                            source, (((r * 2 + i) * columns + tile * 2 + j) * wide + lane).expr(), self.kind
                        ),
                    )
                    for j in range(size)
                ]
                for i in range(size)
            ]
            h = [transform([d[i][j] for i in range(size)]) for j in range(size)]
            h = [[kept(f"h{i}.{j}", h[j][i]) for j in range(size)] for i in range(4)]
            stores = [
                Store(target, (number * wide + lane + (4 * i + j) * pitch).expr(), value)
                for i in range(4)
                for j, value in enumerate(transform(h[i]))
            ]
            return self.along("c", count, [*lets, *stores])

        image = transformed(
            4, self.columns, self.x, self.u, self.pitch_u, (self.wide_c, t.channels), columns_of_tile
        )
        gradients = transformed(
            2, self.columns - 2, self.g, self.v, self.pitch_v, (self.wide_f, t.filters), _gradient
        )
        return self.loop("r", t.rows, self.loop("n", t.across, [image, gradients]))

    def products(self) -> list[Stmt]:
        """m[place][filter][channel], with a block's tiles added."""
        t, lanes, kind = self.summing, self.lanes, self.kind
        q, n = (
            self.space.loop("q", -(-t.filters // t.mr)),
            self.space.loop("n", self.wide_c // (t.nr * lanes)),
        )
        s, tile = self.space.loop("s", PLACES), self.space.loop("k", t.tiles)
        i, j, lane = var("i"), var("j"), var("c")
        filter, channel = (q * t.mr).expr() + i, (n * (t.nr * lanes)).expr() + j * lanes + lane
        a = load(self.v, (s * self.pitch_v + tile * self.wide_f).expr() + filter, kind)
        b = load(self.u, (s * self.pitch_u + tile * self.wide_c).expr() + channel, kind)
        acc = reg("acc", kind, i, j)
        step = [Set("acc", self.machine.accumulate(a, b, acc), (i, j))]
        place = (s * self.sums).expr() + filter * self.wide_c + channel
        added = Store(self.m, place, op("add", load(self.m, place, kind), acc))
        body = [
            Reg("acc", kind, const(0, kind), (t.mr, t.nr), lanes),
            *self.loop("k", t.tiles, [self.along("c", lanes, self.unrolled(step))]),
            *self.unrolled([self.along("c", lanes, [added])]),
        ]
        body = self.loop("q", -(-t.filters // t.mr), body)
        return self.loop("s", PLACES, self.loop("n", self.wide_c // (t.nr * lanes), body))

    def unrolled(self, body: Sequence[Stmt]) -> list[Stmt]:
        inner = Loop("j", index(0), index(self.summing.nr), tuple(body), "unroll")
        return [Loop("i", index(0), index(self.summing.mr), (inner,), "unroll")]

    # ---- results ----

    def finished(self) -> list[Stmt]:
        """The task's part of the piece's partial result; where an element is not finite, all by the direct sum."""
        t, kind = self.summing, self.kind
        f, c = self.space.loop("f", t.filters), self.space.loop("c", t.channels)
        turned = self.builder.area(kind, TAPS * self.wide_c)
        at = f * self.wide_c + c
        m = [load(self.m, (at + s * self.sums).expr(), kind) for s in range(PLACES)]
        columns = [_taps([m[4 * i + j] for i in range(4)]) for j in range(4)]
        results = [w for i in range(3) for w in _taps([column[i] for column in columns])]
        body: list[Stmt] = [Let(f"w{k}", value) for k, value in enumerate(results)]
        zero = const(0, kind)
        odd = zero
        for k in range(TAPS):  # 0 times what is not finite is NaN, and stays it
            value = var(f"w{k}", kind)
            body.append(Store(turned, (c + k * self.wide_c).expr(), value))
            odd = self.machine.accumulate(value, zero, odd)
        body.append(Set("odd", op("add", reg("odd", kind), odd)))
        rows: list[Stmt] = [self.along("c", t.channels, body)]
        tap = self.space.loop("k", TAPS)
        for lane, count, blocks in self.vectors_of("e", t.channels):
            value = load(turned, (tap * self.wide_c + lane).expr(), kind)
            square = self.loop("k", TAPS, [self.along("e", count, [self.put(f, lane, tap, value)])], "unroll")
            rows += self.loop("eb", blocks, square)
        finite = op("eq", across("add", reg("odd", kind)), zero)
        direct = self.direct()
        return [
            Reg("odd", kind, zero, (), self.lanes),
            *self.loop("f", t.filters, rows),
            If(finite, (), tuple(direct)),
        ]

    def put(self, f: Affine, c: Affine, tap: Affine, value: Expr) -> Store:
        row = (self.piece * self.count + self.first_f + f) * self.channels + self.first_c + c
        return Store(self.builder.buffer(self.partial, "w"), (row * TAPS + tap).expr(), value)

    def direct(self) -> list[Stmt]:
        """The same by its definition: what is not finite reaches those results only that it belongs to."""
        t, kind = self.summing, self.kind
        f, c = self.space.loop("f", t.filters), self.space.loop("c", t.channels)
        i, j = self.space.loop("i", 3), self.space.loop("j", 3)
        count = self.images * self.segments * self.steps // self.pieces
        line, step = self.space.divmod(self.piece * count + self.space.loop("b", count), self.steps)
        image, segment = self.space.divmod(line, self.segments)
        y = step * (2 * t.rows) + self.space.loop("r", 2 * t.rows)
        x = segment * (2 * t.across) + self.space.loop("e", 2 * t.across)
        a = self.gradient_at(image, self.first_f + f, y, x)
        b = self.image_at(image, self.first_c + c, y + i, x + j)
        # an image goes on beyond the last row of an odd result, whose gradient is none there: not zero times what is not finite
        high, wide = static(self.gradients.shape)[-2:]
        inside = conjunction(within(self.space, y, high), within(self.space, x, wide))
        if inside is not None:
            b = op("where", inside, b, const(0, kind))
        total = reg("total", kind)
        body: list[Stmt] = [*take_checks(self.reader), Set("total", self.machine.accumulate(a, b, total))]
        row = self.loop("r", 2 * t.rows, [self.along("e", 2 * t.across, body)])
        element = [
            Reg("total", kind, const(0, kind), (), self.lanes),
            *self.loop("b", count, row),
            self.put(f, c, i * 3 + j, across("add", total)),
        ]
        for name, size in (("j", 3), ("i", 3), ("c", t.channels), ("f", t.filters)):
            element = self.loop(name, size, element)
        return element


def lower_winograd_filters(
    group: Group,
    stored: Callable[[Value], bool],
    machine: Machine,
    settled: Callable[[Value], bool] | None = None,
) -> list[Call] | None:
    """The calls of a 3x3 filter's gradient that takes less time this way; None for another contraction."""
    operands = filter_gradient(group.anchor)
    if operands is None:
        return None
    images, _, count, high, wide = static(operands.gradients.shape)
    found = choose_summing(machine, images, static(operands.image.shape)[1], count, high, wide)
    if found is None:
        return None
    contraction = Contraction(group, stored, machine, settled=settled)
    if found[0] * GAIN > contraction.cycles():
        return None
    return WinogradFilters(contraction, operands, machine, found[1]).calls()
