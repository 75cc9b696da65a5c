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
    """Rows of a register tile with lanes along k: few leftover rows first, then many rows."""
    best, choice = float("inf"), 1
    for mr in range(1, min(m, most) + 1):
        # a tile of r rows takes about r + 2 loads' worth of time per k
        cost = -(-m // mr) * (mr + 2.0)
        if cost <= best:
            best, choice = cost, mr
    return choice


def _rounded(size: int, unit: int, total: int) -> int:
    return min(-(-size // unit) * unit, total)


# Cycles of a core that begins two vector multiplications in each; one that begins fewer takes so much longer.
PACK_CYCLES = 0.7  # to transpose one element into a packed block
ACROSS_CYCLES = 3.0  # to sum one register across its lanes and store the element
COPY_CYCLES = 0.3  # to copy one that lies among its neighbours
LOAD_CYCLES = 0.3  # for each vector of B in a step of k, which comes from L2
STORE_CYCLES = 1.75  # to begin, finish and store one register of a tile
SUM_CYCLES = 0.013  # for each element of a row of bytes: its column's sum, and flipping it, lanes along k
# Cycles of any core.
FAR_BYTES = 8.0  # that arrive in a cycle from beyond L2
PAGE = 4096  # bytes
START_CYCLES = 600.0  # to claim a task and begin it
DELAY = 0.25  # tasks for which a run waits because threads do not keep step
# Rows of a register tile by its vectors, with 32 registers and with 16.
_MOST = {1: 20, 2: 13, 3: 8, 4: 6, 5: 5, 6: 4}
_MOST_FEW = {1: 10, 2: 6, 3: 4}


def _sizes(total: int, limit: int, unit: int) -> list[int]:
    """Sizes of equal blocks, multiples of a unit, of which few or many cover ``total``: at most ``limit``, at least a unit."""
    most = max(limit // unit, 1) * unit
    least = -(-total // most) if most < total else 1
    counts = sorted({least + i for i in range(4)} | {least << i for i in range(1, 12)})
    return list(dict.fromkeys(_rounded(-(-total // c), unit, total) for c in counts))


def inner_wins(machine: Machine, itemsize: int, m: int, k: int, sums: bool = False) -> bool:
    """Whether lanes along k (a sum across lanes per result) cost less than packing B (per element), rows fitting in L1. ``sums``:
    columns are summed as well, to put right unsigned products of signed bytes."""
    across = ACROSS_CYCLES + (SUM_CYCLES * k if sums else 0.0)
    return m * across < k * PACK_CYCLES


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
    width = 1 if inner else lanes  # columns of a register
    limit_m, limit_n = m, n
    if inner:
        tiles = [(min(_rows(m, 6 if machine.registers >= 32 else 3), least_m), min(_rows(n, 4), least_n))]
        if m > tiles[0][0] and n * k * itemsize > machine.l2 // 2:  # every tile of rows reads the block of B again
            limit_n = machine.l2 // 2 // (k * itemsize)
    else:
        tiles = _column_tiles(machine, least_m, -(-n // lanes), few_rows)
        if packs_b:
            limit_n = machine.l2 // 2 // (itemsize * max(packed_k, 1))
        if packs_a or not packs_b:
            limit_m = machine.l2 // 2 // (k * itemsize)
    far_a, far_b = (size * k * itemsize > machine.l2 // 2 for size in (m, n))
    slower = 2.0 / machine.fmas
    per_store = ACROSS_CYCLES if inner else STORE_CYCLES

    def tile_time(mr: int, nr: int) -> float:
        """A sum takes some cycles to be ready for the next, hence at least 8 of them."""
        step = max(mr * nr, mr + nr, 8) / 2.0 + LOAD_CYCLES * nr
        return step * k / (lanes if inner else 1) + per_store * mr * nr

    best, choice = float("inf"), None
    for nr in dict.fromkeys(nr for _, nr in tiles):
        times = [(mr, tile_time(mr, nr)) for mr, other in tiles if other == nr]
        # for each size of a block of rows, what one tile's width of it takes, and the tile's rows
        heights = [
            (mc, *min((-(-mc // mr) * time, mr) for mr, time in times if mr <= mc))
            for mc in _sizes(m, limit_m, 1)
            if mc >= times[-1][0]
        ]
        for nc in _sizes(n, limit_n, unit if unit > 1 else nr * width):
            copied_b = nc * max(packed_k, 1) * pack_b_cycles * packs_b
            for mc, time, mr in heights:
                work = -(-nc // (nr * width)) * time + copied_b + mc * k * pack_a_cycles * packs_a
                fetched = (mc * far_a + nc * far_b) * k * itemsize / FAR_BYTES
                tasks = outer * -(-m // mc) * -(-n // nc)
                # The last round is waited for; a thread that was held up makes the others wait for part of a task.
                rounds = tasks if machine.threads == 1 else -(-tasks // machine.threads) + DELAY
                cost = rounds * (START_CYCLES + work * slower + fetched)
                if cost < best:
                    best, choice = cost, (mr, nr, mc, nc)
    assert choice is not None
    mr, nr, mc, nc = choice
    if nc > least_n:  # every block of a range that may be short is whole
        nc = least_n // unit * unit if unit > 1 and least_n >= unit else least_n
    # a narrow block may hold less than the tile was meant to have
    nr = min(nr, -(-nc // width))
    return Tiling("inner" if inner else "columns", lanes, mr, nr, mc, nc, packs_a, packs_b)


def _column_tiles(machine: Machine, m: int, vectors: int, few_rows: bool) -> list[tuple[int, int]]:
    """Register tiles worth a thought for ``m`` rows of that many vectors: for each width, the tallest and some with fewer rows."""
    wide = machine.registers >= 32
    if m <= 4:  # enough independent sums to hide the latency of a multiplication
        most = (24, 8, 5, 4)[m - 1] if wide else 4 // m  # one row reads B once: long pieces of its rows
        return [(m, -(-vectors // -(-vectors // most)))]
    found: list[tuple[int, int]] = []
    for nr, most in (_MOST if wide else _MOST_FEW).items():
        # few rows use what is read of B seldom: longer pieces of its rows make up for that
        if nr > vectors or (nr == 1 < vectors) or (nr > 4 and nr != vectors) or (few_rows and nr == 2 < vectors):
            continue
        tallest = min(most, m, 8 if few_rows else m)
        found += [(mr, nr) for mr in range(tallest, max(tallest - 5, 0), -1)]
    return found


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
    # rows of A that lie together are read in place where the next k is no page further on
    plain_a = s.a == "plain" or (s.a == "along" and (s.k <= 32 or s.m * s.itemsize < PAGE))
    return _chosen(machine, s, inner=False, pack_a=not plain_a, pack_b=pack_b)


def _chosen(machine: Machine, s: Situation, *, inner: bool, pack_a: bool, pack_b: bool) -> Tiling:
    # rows a multiple of the page size apart fall into one set of L1
    crowded = s.a != "along" and s.k * s.itemsize % PAGE == 0
    return choose_tiling(
        machine, s.itemsize, s.outer, s.m, s.n, s.k, inner=inner, packs_a=pack_a, packs_b=pack_b,
        packed_k=s.k if inner else s.packed_k or s.k, few_rows=crowded and not pack_a,
        unit=s.inner_unit if inner else s.unit if pack_b else 1, least_m=s.least_m, least_n=s.least_n,
        pack_a_cycles=COPY_CYCLES if s.a == "along" else PACK_CYCLES,
        pack_b_cycles=PACK_CYCLES if s.b == "computed" else COPY_CYCLES,
    )  # fmt: skip
