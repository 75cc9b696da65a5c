"""Parameters of the contraction recipe and the cost model that chooses them.

A contraction multiplies panels ``A[m, k]`` and ``B[k, n]``. A register tile of ``mr`` rows by ``nr`` vectors stays in registers
while k runs (Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008); blocks of ``mc x nc`` are the
tasks that threads claim. Sizes that do not divide are covered by tiles that overlap: they compute some elements twice,
with the same result.

``columns``  lanes run along n: one broadcast of A meets a vector of B.
``inner``    lanes run along k: vectors of A and B meet, and each result is summed across lanes at the end. For operands that
             both lie contiguous along k, where packing would cost more than the sums.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

from tilewright.recipes.machine import Machine

__all__ = ["MAX_PACK", "Situation", "Tiling", "choose", "choose_tiling", "inner_wins", "neighbours"]

MAX_PACK = 1 << 26  # bytes of scratch one packed block may take


@dataclass(frozen=True, slots=True)
class Tiling:
    """``lanes``: elements of a vector; ``mr`` x ``nr`` the register tile in rows and vectors (``inner``: rows and columns);
    ``mc`` x ``nc`` the block of a task; ``pack_a``, ``pack_b``: whether a task copies its part of an operand first."""

    variant: str
    lanes: int
    mr: int
    nr: int
    mc: int
    nc: int
    pack_a: bool = False
    pack_b: bool = False

    def __str__(self) -> str:
        return f"{self.variant} {self.mr}x{self.nr}x{self.lanes} block {self.mc}x{self.nc}"


@dataclass(frozen=True, slots=True)
class Situation:
    """What the choice depends on: ``outer`` contractions ``m`` x ``n`` x ``k`` of ``element`` (k in words where elements are
    packed), of which a task computes a block.

    ``a``, ``b``: how the operand can be read: ``plain`` (in place, as it is), ``along`` (in place, contiguous along n), or
    ``computed``. ``inner``: lanes may run along k. ``whole``: an operand need not be packed to fill up its last word. ``unit``:
    blocks of n are multiples of it where B is packed (``inner_unit``: with lanes along k). ``packed_k``: the rows that a packed B
    has, where windows overlap and B must be packed, else 0; ``packed_inner``: B must be packed with lanes along k. ``tail``: the
    range of k along which lanes run. ``long``: the epilogue runs on the block. ``itemsize``: bytes of an accumulator.
    ``least_m``, ``least_n``: the smallest that m and n are at run time, where known no better (0: they are what they are).
    ``replaced``: bytes of operands that results may be written over, if tiles do not overlap.
    """

    element: str
    itemsize: int
    outer: int
    m: int
    n: int
    k: int
    a: str
    b: str
    inner: bool
    whole: bool
    unit: int
    inner_unit: int
    packed_k: int
    packed_inner: bool
    tail: int
    long: bool
    least_m: int = 0
    least_n: int = 0
    replaced: int = 0

    def is_exact(self, t: Tiling) -> bool:
        """Whether no tiles overlap, so that the epilogue of every element runs once."""
        if self.least_m or self.least_n:
            return False
        rows, columns = (
            (t.mc, t.nc) if self.long else (t.mr, min(t.nr * (1 if t.variant == "inner" else t.lanes), t.nc))
        )
        return not (self.m % t.mc or self.n % t.nc or t.mc % rows or t.nc % columns)

    def key(self, machine: Machine) -> str:
        """A text that is equal for problems that take the same choice on the same target."""
        flags = "".join(
            f" {word}" for word in ("inner", "whole", "long", "packed_inner") if getattr(self, word)
        )
        return (
            f"{self.element} {self.outer}x{self.m}x{self.n}x{self.k} tail {self.tail} a {self.a} b {self.b} rows {self.packed_k}"
            f" unit {self.unit},{self.inner_unit}{flags} threads {machine.threads}"
        )

    def allows(self, tiling: Tiling, machine: Machine) -> bool:
        """Whether a tiling, wherever it comes from, is one that the recipe can build for this problem."""
        lanes = max(1, machine.vector_bytes // self.itemsize)
        t = tiling
        inner = t.variant == "inner"
        unit = self.inner_unit if inner else self.unit if t.pack_b else 1
        if t.lanes != lanes or t.mr * t.nr > 2 * machine.registers:
            return False
        if not (1 <= t.mr <= t.mc <= self.m and t.nr >= 1 and 1 <= t.nc <= self.n and t.nc % unit == 0):
            return False
        if t.pack_b and t.nc * self.k * self.itemsize > MAX_PACK:
            return False
        if inner:
            return (
                self.inner
                and t.pack_a == (self.a == "computed")
                and t.pack_b == self.packed_inner
                and t.nr <= t.nc
            )
        if t.variant != "columns" or (t.nr - 1) * lanes >= t.nc or (self.packed_k > 0 and not t.pack_b):
            return False
        return self.whole or (t.pack_a and t.pack_b)


def neighbours(tiling: Tiling, s: Situation, machine: Machine) -> list[Tiling]:
    """Other tilings worth measuring beside this one: one parameter changed at a time, or the other variant."""
    t, lanes = tiling, tiling.lanes
    found: list[Tiling] = []
    if t.variant == "columns":
        tiles = {
            1: (8, 12, 16, 20, 24),
            2: (4, 6, 8, 10, 12, 13, 14),
            3: (4, 6, 8, 9),
            4: (2, 4, 6),
            6: (4, 3, 2),
            8: (1, 2, 3),
        }
        for nr, rows in tiles.items():
            for mr in rows:
                if mr * nr < machine.registers:
                    found.append(replace(t, mr=min(mr, t.mc), nr=min(nr, -(-t.nc // lanes))))
        found += [replace(t, pack_a=not t.pack_a), replace(t, pack_b=not t.pack_b)]
        found += [replace(t, pack_a=not t.pack_a, pack_b=not t.pack_b)]
        step_n = s.unit if s.unit > 1 else t.nr * lanes
    else:
        found += [
            replace(t, mr=min(mr, t.mc), nr=min(nr, t.nc))
            for mr, nr in ((6, 4), (4, 6), (4, 4), (8, 3), (3, 8), (2, 4))
        ]
        step_n = s.inner_unit if s.inner_unit > 1 else t.nr
    for factor in (0.25, 0.5, 2, 4):
        nc = _rounded(max(int(t.nc * factor), step_n), step_n, s.n)
        mc = _rounded(max(int(t.mc * factor), t.mr), t.mr, s.m)
        other = _rounded(max(int(t.nc / factor), step_n), step_n, s.n)
        found += [replace(t, nc=nc), replace(t, mc=mc), replace(t, mc=mc, nc=other)]
    if s.inner:
        inner = t.variant == "columns"
        pack_b = s.packed_inner if inner else True
        found.append(_chosen(machine, s, inner=inner, pack_a=s.a == "computed", pack_b=pack_b))
    fitting = [_narrowed(f) for f in found]
    return [f for f in dict.fromkeys(fitting) if f != tiling and s.allows(f, machine)]


def _narrowed(t: Tiling) -> Tiling:
    """Registers of a tile that its block has no columns for are left out."""
    per = 1 if t.variant == "inner" else t.lanes
    return replace(t, mr=min(t.mr, t.mc), nr=min(t.nr, -(-t.nc // per)))


def _rows(m: int, most: int) -> int:
    """Rows of the register tile: few leftover rows first, then many rows."""
    best, choice = float("inf"), 1
    for mr in range(1, min(m, most) + 1):
        tiles = -(-m // mr)
        # a tile of r rows takes about r + 2 loads' worth of time per k
        cost = tiles * (mr + 2.0)
        if cost <= best:
            best, choice = cost, mr
    return choice


def _rounded(size: int, unit: int, total: int) -> int:
    return min(-(-size // unit) * unit, total)


def _balanced(limit: int, unit: int, total: int) -> int:
    """A block of at most ``limit`` (at least a ``unit``) in as few equal blocks as cover ``total``: little overlap at the end."""
    most = max(limit // unit, 1) * unit
    return _rounded(-(-total // -(-total // most)), unit, total) if most < total else total


PACK_CYCLES = 0.7  # to transpose one element into a packed block
ACROSS_CYCLES = 3.0  # to sum one register across its lanes and store the element
COPY_CYCLES = 0.3  # to copy one that lies among its neighbours
FAR_BYTES = 8.0  # that arrive in a cycle from beyond L2
START_CYCLES = 600.0  # to claim a task and begin it
DELAY = 0.25  # tasks for which a run waits because threads do not keep step
SUM_CYCLES = 0.013  # for each element of a row of bytes: its column's sum, and flipping it, lanes along k


def _halves(size: int, unit: int, total: int) -> list[int]:
    """A block's size, its half, quarter and so on down to a unit."""
    sizes = [size]
    while (tiles := -(-sizes[-1] // unit)) > 1 and len(sizes) < 12:
        sizes.append(_rounded(-(-tiles // 2) * unit, unit, total))
    return sizes


def inner_wins(machine: Machine, itemsize: int, m: int, k: int, sums: bool = False) -> bool:
    """Whether lanes along k (a sum across lanes per result) cost less than packing B (per element), rows fitting in L1. ``sums``:
    columns are summed as well, to put right unsigned products of signed bytes."""
    across = ACROSS_CYCLES + (SUM_CYCLES * k if sums else 0.0)
    return m * across < k * PACK_CYCLES and 10 * k * itemsize <= machine.l1


def choose_tiling(
    machine: Machine,
    itemsize: int,
    outer: int,
    m: int,
    n: int,
    k: int,
    *,
    inner: bool,
    packs_a: bool,
    packs_b: bool,
    packed_k: int,
    few_rows: bool,
    unit: int,
    least_m: int = 0,
    least_n: int = 0,
    pack_a_cycles: float = PACK_CYCLES,
    pack_b_cycles: float = PACK_CYCLES,
) -> Tiling:
    """The tiling for ``outer`` contractions of ``m x n x k``.

    ``packs_a``, ``packs_b``: the operand is copied first, B as ``packed_k`` rows; ``few_rows``: rows of A compete for one
    cache set; ``unit``: blocks of n are multiples of it (1: free). Tiles have no more rows than ``least_m``, blocks no more
    columns than ``least_n`` (0: m and n). ``pack_a_cycles``, ``pack_b_cycles``: what copying an element costs. Blocks fit in
    half of L2; among those, the split that takes the least time on all threads.
    """
    least_m, least_n = least_m or m, least_n or n
    lanes = max(1, machine.vector_bytes // itemsize)
    wide = machine.registers >= 32
    if inner:
        mr, nr = min(_rows(m, 6 if wide else 3), least_m), min(_rows(n, 4), least_n)
        mc, nc = m, n
        unit_m, unit_n = mr, unit if unit > 1 else nr
        if m > mr and nc * k * itemsize > machine.l2 // 2:  # every tile of rows reads the block of B again
            nc = _balanced(machine.l2 // 2 // (k * itemsize), unit_n, n)
    else:
        vectors = -(-n // lanes)
        nr = 1 if vectors == 1 else 3 if wide and (vectors == 3 or few_rows) else 2
        if m <= 4:  # enough independent sums to hide the latency of a multiplication
            most = (24, 8, 5, 4)[m - 1] if wide else 4 // m  # one row reads B once: long pieces of its rows
            nr = -(-vectors // -(-vectors // most))
        most = {1: 20, 2: 13, 3: 8}.get(nr, 4) if wide else {1: 10, 2: 6, 3: 4}.get(nr, 4)
        mr = min(_rows(m, most), least_m)
        unit_m, unit_n = mr, max(unit, 1) if unit > 1 else nr * lanes
        mc, nc = m, n
        if packs_b:
            nc = _balanced(machine.l2 // 2 // (itemsize * max(packed_k, 1)), unit_n, n)
        if (packs_a or not packs_b) and mc * k * itemsize > machine.l2 // 2:
            mc = _balanced(machine.l2 // 2 // (k * itemsize), mr, m)
    far_a, far_b = (size * k * itemsize > machine.l2 // 2 for size in (m, n))

    def cost(block: tuple[int, int]) -> float:
        rows, columns = block
        tile_n = nr if inner else nr * lanes
        work = -(-rows // mr) * mr * -(-columns // tile_n) * tile_n * k
        copied = columns * max(packed_k, 1) * pack_b_cycles * packs_b + rows * k * pack_a_cycles * packs_a
        fetched = (rows * far_a + columns * far_b) * k * itemsize / FAR_BYTES
        task = START_CYCLES + work / (2 * lanes) + copied + fetched
        tasks = outer * -(-m // rows) * -(-n // columns)
        if machine.threads == 1:
            return tasks * task
        # The last round is waited for; a thread that was held up makes the others wait for part of a task.
        return (-(-tasks // machine.threads) + DELAY) * task

    mc, nc = min(product(_halves(mc, unit_m, m), _halves(nc, unit_n, n)), key=cost)
    if nc > least_n:  # every block of a range that may be short is whole
        nc = least_n // unit_n * unit_n if least_n >= unit_n else least_n
    # a block narrowed for more tasks may hold less than the tile was meant to have
    nr = min(nr, nc if inner else -(-nc // lanes))
    return Tiling("inner" if inner else "columns", lanes, mr, nr, mc, nc, packs_a, packs_b)


def choose(machine: Machine, s: Situation) -> Tiling:
    """The cost model's choice."""
    lanes = max(1, machine.vector_bytes // s.itemsize)
    inner = (
        s.inner
        and -(-s.tail // lanes) * lanes <= 1.35 * s.tail
        and (s.b != "plain" or s.n <= lanes // 4)
        and (
            inner_wins(machine, s.itemsize, s.m, s.k, s.element == "uint8.int8")
            or (0 < s.least_m < s.m and s.n <= lanes // 4)
        )
    )
    if inner:
        return _chosen(machine, s, inner=True, pack_a=s.a == "computed", pack_b=s.packed_inner)
    # nothing would read a packed element twice
    single = s.m <= 8 and s.whole and s.b in ("plain", "along")
    # long rows far apart fill neither the caches' sets nor the address translation well
    far = s.m >= 96 and s.k * s.n * s.itemsize > 2 * machine.l2
    pack_b = s.packed_k > 0 or ((far or s.b != "plain") and not single)
    # columns of A that lie together are copied together; other strides are walked as they are
    plain_a = s.a == "plain" or (s.a == "along" and s.k <= 32)
    chosen = _chosen(machine, s, inner=False, pack_a=not plain_a, pack_b=pack_b)
    return _made_exact(chosen, s) if s.replaced > 4 * machine.l2 and s.unit == 1 else chosen


def _made_exact(t: Tiling, s: Situation) -> Tiling:
    """A tiling close by whose tiles do not overlap, if there is one: results that lie over operands are neither fetched before
    they are written nor kept twice."""
    if s.is_exact(t):
        return t
    width = t.nr * t.lanes
    rows = max(r for r in range(1, t.mr + 1) if s.m % r == 0)
    if s.n % width or 8 * rows < 7 * t.mr:
        return t
    mc, nc = _near(t.mc, rows, s.m), _near(t.nc, width, s.n)
    if not all(2 * size <= 3 * new <= 4.5 * size for size, new in ((t.mc, mc), (t.nc, nc))):
        return t
    return replace(t, mr=rows, mc=mc, nc=nc)


def _near(size: int, unit: int, total: int) -> int:
    """The multiple of ``unit`` nearest to ``size`` that divides ``total``, a multiple itself."""
    fitting = [d for d in range(unit, total + 1, unit) if total % d == 0]
    return min(fitting, key=lambda d: max(d / size, size / d))


def _chosen(machine: Machine, s: Situation, *, inner: bool, pack_a: bool, pack_b: bool) -> Tiling:
    # rows a multiple of the page size apart fall into one set of L1
    crowded = s.k * s.itemsize % 4096 == 0
    return choose_tiling(
        machine, s.itemsize, s.outer, s.m, s.n, s.k, inner=inner, packs_a=pack_a, packs_b=pack_b,
        packed_k=s.k if inner else s.packed_k or s.k, few_rows=crowded and not pack_a,
        unit=s.inner_unit if inner else s.unit if pack_b else 1, least_m=s.least_m, least_n=s.least_n,
        pack_a_cycles=COPY_CYCLES if s.a == "along" else PACK_CYCLES,
        pack_b_cycles=PACK_CYCLES if s.b == "computed" else COPY_CYCLES,
    )  # fmt: skip
