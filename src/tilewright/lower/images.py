"""Convolutions of many small images: lanes run along images, so that a tap outside the image is left out, not multiplied.

Where lanes run along the places of a result, zeros around an image are multiplied like its elements, and rows that are no
whole vectors leave lanes empty: the gradient of a 5x5 filter over 10x10 results multiplies twice what there is. With a
vector's worth of images side by side every result has taps of its own:

    lay out the filters: u[filters / mr][taps][channels][mr]             # a call of its own: once, when settled
    for task in lo..hi:                                                  # a block of images
        copy the block's images: v[places][channels][images]
        for some filters:
            for each place of the result:
                acc[mr, images] = 0
                for each run of taps inside the image: acc += u @ v      # along the last axis it lies as it is multiplied
                r[mr][place][images] = acc
            for f: r through the epilogue to memory, lanes along places again
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tilewright.core import dtype as dt
from tilewright.core.shape import is_static, product, static
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
    const,
    index,
    load,
    op,
    reg,
    var,
)
from tilewright.lower.affine import Affine, mentions
from tilewright.lower.calls import Call, Temporary, take_checks
from tilewright.lower.contraction import Contraction
from tilewright.lower.extents import digits
from tilewright.lower.groups import Group
from tilewright.lower.problem import At, epilogue, epilogue_cost
from tilewright.lower.tile_nest import TileNest
from tilewright.recipes.images import GAIN, Convolution, Panels, choose_panels
from tilewright.recipes.machine import Machine

__all__ = ["ImageLanes", "convolution_of_images", "lower_images"]

SHORT_EPILOGUE = (
    4  # cheap operations per element up to which the epilogue is written out for a square of results
)


class ImageLanes(TileNest):
    """Builds the two kernels of one convolution."""

    def __init__(
        self,
        group: Group,
        stored: Callable[[Value], bool],
        machine: Machine,
        sizes: Convolution,
        panels: Panels,
    ) -> None:
        self.group, self.stored, self.machine, self.sizes = group, stored, machine, sizes
        self.image, self.filters = group.anchor.inputs
        self.kind = group.anchor.dtype
        self.vectors, self.mr = panels.vectors, panels.mr
        self.lanes = machine.vector_bytes // self.kind.itemsize
        self.width = self.vectors * self.lanes
        self.panels = -(-sizes.filters // self.mr)
        self.laid_out = Temporary(self.kind, self.panels * sizes.taps * sizes.channels * self.mr)

    def calls(self) -> list[Call]:
        return [self.filter_call(), self.main_call()]

    # ---- filters ----

    def filter_call(self) -> Call:
        """u[panel][taps][channel][mr]; the last panel ends with the filters."""
        self.start()
        s = self.sizes
        taps = [taps for _, taps, *_ in s.axes]
        panel, c = self.space.loop("t0", self.panels), self.space.loop("c", s.channels)
        tap, r = self.space.loop("t1", s.taps), self.space.loop("r", self.mr)
        f = self.block(panel, self.mr, s.filters) + r
        value = self.reader.read(self.filters, (f, c, *self.space.unravel(tap, taps)))
        place = ((panel * s.taps + tap) * s.channels + c) * self.mr + r
        target = self.builder.buffer(self.laid_out, "w")
        body = [*take_checks(self.reader), Store(target, place.expr(), value)]
        inner = self.loop("c", s.channels, [self.along("r", self.mr, body)])
        grid = [self.panels, s.taps]
        loops = Loop("g", LO, HI, (*digits(["t0", "t1"], grid), *inner))
        label = f"lay out {self.kind} [{s.filters}]x{[s.channels, *taps]}"
        return self.builder.call((loops,), product(grid), max(1, 4096 // (s.channels * self.mr)), label)

    # ---- a task ----

    def main_call(self) -> Call:
        self.start()
        s = self.sizes
        blocks = -(-s.images // self.width)
        self.first = self.block(self.space.loop("t0", blocks), self.width, s.images)
        self.v = self.builder.area(self.kind, s.places * s.channels * self.width)
        self.r = self.builder.area(self.kind, s.results * self.mr * self.width)
        panel = self.space.loop("p", self.panels)
        task = [
            *self.copied_images(),
            *self.loop("p", self.panels, [*self.products(panel), *self.finished(panel)]),
        ]
        results = [results for _, _, results, *_ in s.axes]
        label = (
            f"conv [{s.filters}]x{[s.images, *results]}x{list(static(self.filters.shape)[1:])}"
            f" images {self.mr}x{self.vectors}x{self.lanes}"
        )
        flops = 2 * s.channels * s.taps * self.group.anchor.type.size
        body = (Loop("g", LO, HI, (*digits(["t0"], [blocks]), *task)),)
        return self.builder.call(body, blocks, 1, label, flops)

    def copied_images(self) -> list[Stmt]:
        """v[place][channel][image], a square of vectors at a time, which the emitter transposes in registers."""
        s, lanes = self.sizes, self.lanes
        c, image = self.space.loop("c", s.channels), self.image_of_block()
        out: list[Stmt] = []
        for here, active, blocks in self.vectors_of("e", s.places):
            at = self.space.unravel(here, [size for size, *_ in s.axes])
            value = self.reader.read(self.image, (self.first + image, c, *at))
            place = (here * s.channels + c) * self.width + image
            body = [*take_checks(self.reader), Store(self.v, place.expr(), value)]
            square = self.loop("i", lanes, [self.along("e", active, body)], "unroll")
            nest = self.loop("c", s.channels, self.loop("j", self.vectors, square))
            out += self.loop("eb", blocks, nest)
        return out

    def inside(self, axis: int) -> tuple[list[Stmt], Expr, Expr, Expr]:
        """Of the taps that a place meets along an axis, those inside the image: statements that find them, where the first one
        lies, its number, and how many there are."""
        size, taps, results, stride, before = self.sizes.axes[axis]
        at = self.space.loop(f"o{axis}", results) * stride - before
        low, high = self.space.range(at)
        first, skipped, count = at.expr(), const(0), const(taps)
        lets: list[Stmt] = []
        if low < 0:
            lets.append(Let(f"f{axis}", op("maximum", first, const(0))))
            skipped = op("sub", var(f"f{axis}"), first)
        if high + taps > size:
            count = op("minimum", count, op("sub", const(size), first))
        if lets or high + taps > size:
            lets.append(Let(f"n{axis}", op("maximum", op("sub", count, skipped), const(0))))
            count = var(f"n{axis}")
        return lets, var(f"f{axis}") if low < 0 else first, skipped, count

    def products(self, panel: Affine) -> list[Stmt]:
        """r[filter of the panel][place][image]."""
        s, lanes, kind = self.sizes, self.lanes, self.kind
        i, j, lane, last = var("i"), var("j"), var("v"), len(s.axes) - 1
        body: list[Stmt] = []
        counts: list[Expr] = []
        from_u, from_v = panel.expr(), const(0)
        for d, (size, taps, *_) in enumerate(s.axes):
            lets, first, skipped, count = self.inside(d)
            body += lets
            counts.append(count)
            tap = var(f"k{d}") if d < last else const(0)
            from_u = from_u * taps + (skipped + tap)
            from_v = from_v * size + (first + tap)
        run = var(f"k{last}")  # along the last axis taps and channels lie as they are multiplied
        u = load(self.builder.buffer(self.laid_out, "r"), (from_u * s.channels + run) * self.mr + i, kind)
        v = load(self.v, (from_v * s.channels + run) * self.width + j * lanes + lane, kind)
        acc = reg("acc", kind, i, j)
        update = Set("acc", self.machine.accumulate(u, v, acc), (i, j))
        step: list[Stmt] = [self.along("v", lanes, self.tile([update]))]
        counts[last] = counts[last] * s.channels
        for d in reversed(range(len(counts))):
            step = [Loop(f"k{d}", index(0), counts[d], tuple(step))]
        results = [results for _, _, results, *_ in s.axes]
        flat = self.space.linear([self.space.loop(f"o{d}", e) for d, e in enumerate(results)], results)
        place = (i * s.results + flat.expr()) * self.width + j * lanes + lane
        put = self.tile([self.along("v", lanes, [Store(self.r, place, acc)])])
        body += [Reg("acc", kind, const(0, kind), (self.mr, self.vectors), lanes), *step, *put]
        for d, e in reversed(list(enumerate(results))):
            body = self.loop(f"o{d}", e, body)
        return body

    def tile(self, body: Sequence[Stmt]) -> list[Stmt]:
        inner = Loop("j", index(0), index(self.vectors), tuple(body), "unroll")
        return [Loop("i", index(0), index(self.mr), (inner,), "unroll")]

    def finished(self, panel: Affine) -> list[Stmt]:
        """A panel's results through the epilogue to memory: vectors of images, turned while they are stored, if the epilogue is
        short and reads nothing that differs between images."""
        o, image = self.space.loop("o", self.mr), self.first + self.image_of_block()
        f = self.block(panel, self.mr, self.sizes.filters) + o
        if epilogue_cost(self.group, self.stored) > SHORT_EPILOGUE:
            return self.finished_apart(o, f)
        out: list[Stmt] = []
        for here, active, blocks in self.vectors_of("e", self.sizes.results):
            self.reader.accesses.clear()
            body = self.put(f, image, here, self.result(o, here))
            read = [a.position for a in self.reader.accesses if a.value not in self.group.outputs]
            if len(body) > 1 or any(mentions(x, {var("i")}) for p in read for x in p.terms):
                return self.finished_apart(o, f)
            out += self.turned(body, active, blocks)
        return self.loop("o", self.mr, out)

    def finished_apart(self, o: Affine, f: Affine) -> list[Stmt]:
        """The same for any epilogue: a filter's results are turned in scratch first, and lanes run along places for all of it."""
        s = self.sizes
        pitch = (-(-s.results // self.lanes) | 1) * self.lanes
        turned = self.builder.area(self.kind, pitch * self.width)
        out: list[Stmt] = []
        for here, active, blocks in self.vectors_of("e", s.results):
            place = self.image_of_block() * pitch + here
            out += self.turned([Store(turned, place.expr(), self.result(o, here))], active, blocks)
        image, place = self.space.loop("m", self.width), self.space.loop("q", s.results)
        value = load(turned, (image * pitch + place).expr(), self.kind)
        body = [self.along("q", s.results, self.put(f, self.first + image, place, value))]
        return self.loop("o", self.mr, [*out, *self.loop("m", self.width, body)])

    def image_of_block(self) -> Affine:
        return self.space.loop("j", self.vectors) * self.lanes + self.space.loop("i", self.lanes)

    def result(self, o: Affine, place: Affine) -> Expr:
        position = (o * self.sizes.results + place) * self.width + self.image_of_block()
        return load(self.r, position.expr(), self.kind)

    def turned(self, body: Sequence[Stmt], active: int, blocks: int) -> list[Stmt]:
        """Loops over places and images that store squares of vectors along places."""
        square = self.loop("e", active, [self.along("i", self.lanes, body)], "unroll")
        return self.loop("eb", blocks, self.loop("j", self.vectors, square))

    def put(self, f: Affine, image: Affine, place: Affine, value: Expr) -> list[Stmt]:
        at: At = self.space.unravel(place, [results for _, _, results, *_ in self.sizes.axes])
        return epilogue(self.group, self.reader, (image, f, *at), value, self.builder)


def convolution_of_images(anchor: Value) -> Convolution | None:
    """The sizes of a convolution that the recipe can build; None for another value."""
    v = anchor
    if v.op != "conv" or not is_static(v.shape) or len(v.shape) < 3 or v.type.size == 0 or v["groups"] != 1:
        return None
    image, filters = v.inputs
    if not is_static((*image.shape, *filters.shape)):
        return None
    if not (v.dtype is image.dtype is filters.dtype) or v.dtype not in (dt.float32, dt.float64):
        return None
    if max(*v["lhs_dilation"], *v["rhs_dilation"]) > 1 or 0 in (*image.shape, *filters.shape):
        return None
    (images, channels, *sizes), (_, count, *results) = static(image.shape), static(v.shape)
    before = [low for low, _ in v["padding"]]
    axes = tuple(zip(sizes, static(filters.shape)[2:], results, v["stride"], before, strict=True))
    return Convolution(v.dtype.itemsize, images, channels, count, axes)


def lower_images(
    group: Group,
    stored: Callable[[Value], bool],
    machine: Machine,
    settled: Callable[[Value], bool] | None = None,
) -> list[Call] | None:
    """The calls of a convolution that takes less time this way than with lanes along places; None for another."""
    sizes = convolution_of_images(group.anchor)
    if sizes is None:
        return None
    found = choose_panels(machine, sizes)
    if found is None:
        return None
    other = Contraction(group, stored, machine, settled=settled)
    if found[0] * GAIN > other.cycles():
        return None
    return ImageLanes(group, stored, machine, sizes, found[1]).calls()
