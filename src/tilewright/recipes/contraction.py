"""Parameters of the contraction recipe and the cost model that chooses them.

A contraction multiplies panels ``A[m, k]`` and ``B[k, n]``. A register tile of ``mr`` rows by ``nr`` vectors stays in registers
while k runs (Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008); blocks of ``mc x nc`` are the
tasks that threads claim. Sizes that do not divide are covered by tiles that overlap: they compute some elements twice,
with the same result.

``columns``  lanes run along n: one broadcast of A meets a vector of B.
``inner``    lanes run along k: vectors of A and B meet, and each result is summed across lanes at the end. For operands that
             both lie contiguous along k, where packing would cost more than the sums.
``rows``     one row of A: its sums stay in L1 while ``nr`` whole rows of B at a time pass by, as memory is read fastest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import gcd

from tilewright.recipes.machine import Machine

__all__ = ["L3_SHARE", "MAX_PACK", "PAGE", "Situation", "Tiling", "choose", "cycles", "neighbours"]

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

    ``a``, ``b``: how the operand can be read: ``plain`` (in place, as it is), ``along`` (in place, contiguous along n), ``rows``
    (in place, each row contiguous along k, wherever it begins), or ``computed``. ``inner``: lanes may run along k. ``whole``: an
    operand need not be packed to fill up its last word. ``unit``: blocks of n are multiples of it where B is packed
    (``inner_unit``: with lanes along k). ``packed_k``: the rows that a packed B has, where windows overlap and B must be packed,
    else 0; ``packed_inner``: B must be packed with lanes along k. ``tail``: the range of k along which lanes run. ``long``: much
    follows each sum. ``itemsize``: bytes of an accumulator. ``least_m``, ``least_n``: the smallest that m and n are at run time,
    where known no better (0: they are what they are). ``settled``: B is the same in every run, so that packing it costs nothing.
    ``apart``: pieces of A's rows along k that lie multiples of a page apart, and so in the same sets of L1. ``pieces``: how many
    times k long the whole sum is. ``once``: B lies so badly that it is laid out once for all tasks. ``turns``: packed
    columns may be copied while others are multiplied.
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
    settled: bool = False
    apart: int = 1
    pieces: int = 1
    once: bool = False
    turns: bool = False

    def is_exact(self, t: Tiling) -> bool:
        """Whether no tiles overlap, so that the epilogue of every element runs once."""
        if self.least_m or self.least_n:
            return False
        width = min(t.nr * (1 if t.variant == "inner" else t.lanes), t.nc)
        return not (self.m % t.mc or self.n % t.nc or t.mc % t.mr or t.nc % width)

    def key(self, machine: Machine) -> str:
        """A text that is equal for problems that take the same choice on the same target."""
        flags = "".join(
            f" {word}"
            for word in ("inner", "whole", "long", "packed_inner", "settled", "once", "turns")
            if getattr(self, word)
        )
        flags += f" apart {self.apart}" if self.apart > 1 else ""
        flags += f" pieces {self.pieces}" if self.pieces > 1 else ""
        return (
            f"{self.element} {self.outer}x{self.m}x{self.n}x{self.k} tail {self.tail} a {self.a} b {self.b} rows {self.packed_k}"
            f" unit {self.unit},{self.inner_unit}{flags} threads {machine.threads}"
        )

    def one_row(self, machine: Machine) -> bool:
        """Whether one row meets a matrix that is read in place, a single range of k at a time, from beyond L2."""
        words = "." in self.element
        far = self.k * self.n * self.itemsize > machine.l2
        return (
            self.m == 1
            and self.b == "plain"
            and not (words or self.least_n)
            and self.tail % self.k == 0
            and far
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
        if t.pack_b and not self.settled and t.nc * self.k * self.itemsize > MAX_PACK:
            return False
        if inner:
            return (
                self.inner
                and (t.pack_a or self.a not in ("computed", "rows"))
                and t.pack_b == self.packed_inner
                and t.nr <= t.nc
            )
        if t.variant == "rows":
            return self.one_row(machine) and t.mr == 1 and not (t.pack_a or t.pack_b)
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
        found.append(_chosen(machine, s, inner=inner, pack_a=s.a in ("computed", "rows"), pack_b=pack_b))
    fitting = [_narrowed(f) for f in found]
    return [f for f in dict.fromkeys(fitting) if f != tiling and s.allows(f, machine)]


def _narrowed(t: Tiling) -> Tiling:
    """Registers of a tile that its block has no columns for are left out."""
    per = 1 if t.variant == "inner" else t.lanes
    return replace(t, mr=min(t.mr, t.mc), nr=min(t.nr, -(-t.nc // per)))


def _rounded(size: int, unit: int, total: int) -> int:
    return min(-(-size // unit) * unit, total)


# Cycles of a core that begins two vector multiplications in each; one that begins fewer takes so much longer.
PACK_CYCLES = 0.3  # to transpose one element into a packed block
SCATTER_CYCLES = 2.0  # the same, one element at a time
ACROSS_CYCLES = 3.0  # to sum one register across its lanes and store the element
TILE_CYCLES = 40.0  # a tile takes beside that: its sums across lanes wait for each other (of any core)
COPY_CYCLES = 0.3  # to copy one that lies among its neighbours
TURNED = 0.4  # of the time for a copy that is left where it runs beside products
WORD_CYCLES = 0.9  # to put four bytes of neighbouring rows together
LOAD_CYCLES = 0.3  # for each vector in a step of k that comes from L2, beside enough arithmetic
BUSY_CYCLES = 1.2  # for such a vector where one comes in each cycle, which is more than L2 delivers; with fewer, so much less
LINE_CYCLES = 0.1  # in place of these for a vector of a packed panel, whose lines follow each other, where few come in a cycle
TALL = 0.01  # of a step more for each row beyond eight that such vectors meet
SUMS = 10.0  # that have to be under way for two multiplications in each cycle
LOADS = 1.01  # of two loads in a cycle: some cross a line
STORE_CYCLES = 1.75  # to begin, finish and store one register of a tile
SUM_CYCLES = 0.013  # for each element of a row of bytes: its column's sum, and flipping it, lanes along k
# Cycles of any core.
FAR_BYTES = 8.0  # that arrive in a cycle from beyond L2
PAGE = 4096  # bytes
L2_SHARE = 1.15  # of L2 that blocks may fill: tiles wait for few of the lines that are left out
L1_SHARE = 0.93  # of L1 that operands may fill: sums, results and the stack are there as well
ASKED = (
    0.25  # of the time for them that is left at least where tiles ask for the lines of B before they are read
)
L3_SHARE = 0.5  # of L3, which others use as well: a larger operand comes from memory, which nothing but asking for it hides
STREAMS = 4  # rows that have to be read at once for memory to deliver what it can
ROWS = 8  # of B that pass by the sums of one row of A together
REREAD = 0.25  # of such a read's time where rows follow each other: arithmetic hides the rest
PIECE_CYCLES = 0.4  # to store and add up one element of a piece's partial result
START_CYCLES = 600.0  # to claim a task and begin it
SHARE_CYCLES = 2000.0  # for other threads to notice tasks, to fetch what they read, and to be waited for
DELAY = 0.25  # tasks for which a run waits because threads do not keep step
SHARED_ROWS = 4  # of A from which on a settled B is laid out: fewer read it in place at the speed of memory
# Rows of a register tile by its vectors, with 32 registers and with 16.
_MOST = {1: 20, 2: 13, 3: 8, 4: 6, 5: 5, 6: 4}
_MOST_FEW = {1: 10, 2: 6, 3: 4}


def _sizes(total: int, limit: int, unit: int) -> list[int]:
    """Sizes of equal blocks, multiples of a unit, of which few or many cover ``total``: at most ``limit``, at least a unit."""
    least = 1 if limit >= total else -(-total // (max(limit // unit, 1) * unit))
    counts = sorted({least + i for i in range(4)} | {least << i for i in range(1, 12)})
    return list(dict.fromkeys(_rounded(-(-total // c), unit, total) for c in counts))


@dataclass(frozen=True, slots=True)
class _Work:
    """One way to compute ``outer`` contractions of ``m x n x k``.

    ``inner``: lanes run along k; ``packs_a``, ``packs_b``: the operand is copied first, B as ``packed_k`` rows, at ``a_cycles``
    and ``b_cycles`` an element; ``stride``: bytes between rows of A that are read in place (0: they are not); ``unit``: blocks of
    n are multiples of it (1: free); ``words``: a step multiplies words of several elements; ``apart``: as in ``Situation``;
    ``turns``: as in ``Situation``; ``sums``: columns of B are summed as well, to put right unsigned products of signed bytes.
    Tiles have no more rows than ``least_m``, blocks no more columns than ``least_n``.
    """

    itemsize: int
    outer: int
    m: int
    n: int
    k: int
    least_m: int
    least_n: int
    inner: bool
    packs_a: bool
    packs_b: bool
    packed_k: int
    stride: int
    unit: int
    words: bool = False
    sums: bool = False
    apart: int = 1
    a_cycles: float = PACK_CYCLES
    b_cycles: float = PACK_CYCLES
    settled: bool = False
    pieces: int = 1
    long: bool = False
    turns: bool = False

    @property
    def panels(self) -> bool:
        """Whether columns lie in place, or so that each tile finds its own together: it asks for those of the next one."""
        return not self.inner and self.packed_k == self.k and self.unit == 1

    def tiles(self, machine: Machine, lanes: int) -> Iterator[tuple[int, int]]:
        """Register tiles worth a thought: for each width, the tallest and some with fewer rows."""
        m, wide = self.least_m, machine.registers >= 32
        if self.inner:
            room = 25 if wide else 9
            for nr in range(min(4 if m == 1 else 8, self.least_n), 0, -1):
                tallest = min(room // nr, m, 8)
                yield from ((mr, nr) for mr in range(tallest, max(tallest - 3, 0), -1))
            return
        vectors, fitting = -(-self.n // lanes), self.rows_side_by_side(machine)
        if m <= 4:  # enough independent sums to hide the latency of a multiplication
            most = (24, 8, 5, 4)[m - 1] if wide else 4 // m  # one row reads B once: long pieces of its rows
            yield m, -(-vectors // -(-vectors // most))
            return
        for nr, most in (_MOST if wide else _MOST_FEW).items():
            if nr > vectors or (nr > 4 and nr != vectors):
                continue
            # few rows use what is read of B seldom: longer pieces of its rows make up for that
            if fitting <= 8 and nr <= 2 < vectors:
                continue
            tallest = min(most, m, fitting)
            yield from ((mr, nr) for mr in range(tallest, max(tallest - 5, 0), -1))
            if tallest > 12:
                yield 8, nr

    def rows_side_by_side(self, machine: Machine) -> int:
        """Rows of A that a tile reads without pushing their lines out of L1: those a multiple of a page apart share a set."""
        if not self.stride:
            return self.m
        sets = PAGE // gcd(self.stride, PAGE)
        return max(2 * sets * (machine.l1 // PAGE) // 3, 1)

    def time(self, mr: int, nr: int, lanes: int, machine: Machine) -> float:
        """Cycles for one register tile: in a step it waits for multiplications, for loads, or for the sums of the last step."""
        slower = 2.0 / machine.fmas
        # an element of A that is spread while it is loaded takes half the time of a vector
        loads = LOADS * (mr + nr) * (slower if self.inner or self.words else 1.0)
        step = max(mr * nr * slower, loads, SUMS) / 2.0
        far = self.from_l2(mr, nr, lanes, machine)
        if self.packs_b and self.panels and slower == 1.0 and 2 * far <= step:
            step = step * (1.0 + TALL * max(mr - 8, 0) * (far > 0)) + far * LINE_CYCLES
        else:
            # a core that multiplies once in a cycle has as many steps under way, and so twice the time for each
            step += far * max(LOAD_CYCLES, BUSY_CYCLES / slower * min(far / step, 1.0))
        if self.inner:
            summed = (ACROSS_CYCLES * mr + SUM_CYCLES * self.k * self.sums) * nr
            # tiles of one row are so short that the processor has the next ones in view
            return TILE_CYCLES * (mr > 1) + step * -(-self.k // lanes) + summed * slower
        return step * self.k + STORE_CYCLES * mr * nr * slower

    def from_l2(self, mr: int, nr: int, lanes: int, machine: Machine) -> int:
        """Vectors of a step that do not come from L1, where one side stays from one tile to the next if both sides fit."""
        rows = mr + nr * (1 if self.inner else lanes)
        fits = rows * self.k * self.itemsize <= L1_SHARE * machine.l1
        if self.inner:
            piece = self.k // self.apart * self.itemsize  # of a row of A
            ways = self.apart * -(-mr * piece // PAGE)
            fits &= self.packs_a or self.apart == 1 or 3 * ways <= 2 * (machine.l1 // PAGE)
            return nr if fits else mr + nr
        # columns that lie in place are a line of each row: rows a multiple of a page apart share a set
        sets = 1 if self.packs_b else PAGE // gcd(self.n * self.itemsize, PAGE)
        fits &= self.packs_b or self.k <= 2 * sets * (machine.l1 // PAGE)
        return 0 if fits else nr

    def limits(self, machine: Machine) -> tuple[int, int]:
        """The largest blocks: what is read again and again fits in half of L2."""
        room = machine.l2 // 2
        along_n = room // (self.itemsize * max(self.packed_k if self.packs_b else self.k, 1))
        if self.inner:
            return self.m, along_n if self.m > 8 or self.packs_b else self.n
        along_m = room // (self.itemsize * max(self.k, 1))
        # tiles ask for panels that are laid out already: a block of them may lie in memory
        here = self.packs_b and not (self.settled and self.panels) and not self.turns
        limit_m, limit_n = (
            along_m if self.packs_a or not self.packs_b else self.m,
            along_n if here else self.n,
        )
        return limit_m, limit_n

    def cheapest(self, machine: Machine) -> tuple[float, Tiling]:
        """The register tile and blocks that take the least time on all threads, and that time in cycles."""
        lanes = max(1, machine.vector_bytes // self.itemsize)
        width = 1 if self.inner else lanes  # columns of a register
        far_a, far_b = (size * self.k * self.itemsize > machine.l2 // 2 for size in (self.m, self.n))
        (limit_m, limit_n), slower = self.limits(machine), 2.0 / machine.fmas
        copied_a = self.a_cycles * slower * self.packs_a
        tiles = list(self.tiles(machine, lanes))
        best, choice = float("inf"), (1, 1, self.m, self.n)
        line = self.k * self.itemsize / FAR_BYTES  # the time that a row or a column takes to arrive
        remote_a, remote_b = (
            size * self.k * self.pieces * self.itemsize > L3_SHARE * machine.l3 for size in (self.m, self.n)
        )
        for nr in dict.fromkeys(nr for _, nr in tiles):
            times = [(mr, self.time(mr, nr, lanes, machine)) for mr, other in tiles if other == nr]
            # for each size of a block of rows, what a tile's width of it takes, and the tile's rows
            heights = [
                (mc, *min((-(-mc // mr) * time, -mr) for mr, time in times if mr <= mc))
                for mc in _sizes(self.m, limit_m, 1)
                if mc >= times[-1][0]
            ]
            for nc in _sizes(self.n, limit_n, self.unit if self.unit > 1 else nr * width):
                columns = -(-nc // (nr * width))
                copied_b = nc * max(self.packed_k, 1) * self.b_cycles * slower * self.packs_b
                if self.turns:  # all but the first tile's columns
                    copied_b *= TURNED + (1.0 - TURNED) / columns
                for mc, time, mr in heights:
                    work = columns * time + copied_b + mc * self.k * copied_a
                    # every tile's width of columns reads the block's rows again, from beyond L2 where they do not fit
                    copied = nc * self.packed_k * (self.packs_b and not self.settled)
                    outside = (mc * self.k + copied) * self.itemsize > L2_SHARE * machine.l2
                    reads = (1.0 if remote_a else ASKED) + REREAD * (columns - 1) * outside
                    fetched_b = nc * far_b * line
                    if self.inner and remote_b:
                        fetched_b *= max(STREAMS / nr, 1.0)
                    elif self.panels or not remote_b:
                        # hidden by what is computed until the lines are wanted: with lanes along k that is one pass of rows
                        meanwhile = columns * time / (-(-mc // -mr) if self.inner else 1)
                        fetched_b = max(ASKED * fetched_b, fetched_b - meanwhile)
                    fetched = mc * far_a * line * reads + fetched_b
                    if self.long:  # sums that do not stay in L2 until what follows reads them
                        fetched += 2 * max(mc * nc * self.itemsize - machine.l2, 0) / FAR_BYTES
                    tasks = self.outer * -(-self.m // mc) * -(-self.n // nc)
                    cost = tasks * (START_CYCLES + work + fetched)
                    if machine.threads > 1 < tasks:
                        # the last round is waited for, and a thread that was held up for part of a task
                        cost = SHARE_CYCLES + cost / tasks * (-(-tasks // machine.threads) + DELAY)
                    if cost < best:
                        best, choice = cost, (-mr, nr, mc, nc)
        return best, self.tiling(lanes, width, *choice)

    def tiling(self, lanes: int, width: int, mr: int, nr: int, mc: int, nc: int) -> Tiling:
        least, unit = self.least_n, self.unit
        if nc > least:  # every block of a range that may be short is whole
            nc = least // unit * unit if unit > 1 and least >= unit else least
        # a narrow block may hold less than the tile was meant to have
        nr = min(nr, -(-nc // width))
        variant = "inner" if self.inner else "columns"
        return Tiling(variant, lanes, mr, nr, mc, nc, self.packs_a, self.packs_b)


def choose(machine: Machine, s: Situation) -> Tiling:
    """The cost model's choice."""
    return _estimate(machine, s)[1]


def cycles(machine: Machine, s: Situation, pieces: int) -> float:
    """What all pieces of a contraction take with the cost model's choice, and adding up their partial results."""
    summed = PIECE_CYCLES * pieces * s.outer * s.m * s.n if pieces > 1 else 0.0
    return _estimate(machine, s)[0] * pieces + summed


def _estimate(machine: Machine, s: Situation) -> tuple[float, Tiling]:
    """The cycles that the cost model expects of its choice, and the choice."""
    lanes = max(1, machine.vector_bytes // s.itemsize)
    # nothing would read a packed element twice
    single = s.m <= 8 and s.whole and s.b in ("plain", "along")
    # long rows far apart fill neither the caches' sets nor the address translation well
    far = s.m >= 96 and s.k * s.n * s.itemsize > 2 * machine.l2
    laid_out = s.once or (s.settled and s.m >= SHARED_ROWS and not s.least_m)
    pack_b = s.packed_k > 0 or laid_out or ((far or s.b != "plain") and not single)
    # rows of A that lie together are copied or, where the next k is no page further on, read in place
    ways = [s.a == "computed"] if s.a != "along" else [False] if s.k <= 32 else [True]
    if s.a == "rows" or (s.a == "along" and s.m * s.itemsize < PAGE):
        ways = [False, True]
    if s.a == "plain" and s.m > 8 and s.k * s.itemsize % PAGE == 0:  # few rows fit L1 together where they lie
        ways = [False, True]
    columns = [_work(s, inner=False, pack_a=pack_a, pack_b=pack_b) for pack_a in ways]
    short = s.n <= lanes // 4
    if s.one_row(machine) and s.n >= ROWS * lanes:
        room = min(
            machine.l1 // 2 // s.itemsize, -(-s.n // (1 if machine.threads == 1 else 2 * machine.threads))
        )
        # the one way to read such a matrix: nothing is weighed against it
        return 0.0, Tiling("rows", lanes, 1, ROWS, 1, _sizes(s.n, room, ROWS * lanes)[0])
    found = [work.cheapest(machine) for work in columns]
    if s.inner and (s.b != "plain" or short) and -(-s.tail // lanes) * lanes <= 1.35 * s.tail:
        copies = (True,) if s.a in ("computed", "rows") else (False, True) if s.apart > 1 else (False,)
        lanes_along_k = [_work(s, inner=True, pack_a=c, pack_b=s.packed_inner) for c in copies]
        inner = min((work.cheapest(machine) for work in lanes_along_k), key=lambda f: f[0])
        if short and 0 < s.least_m < s.m:
            return inner
        found.append(inner)
    return min(found, key=lambda f: f[0])


def _chosen(machine: Machine, s: Situation, *, inner: bool, pack_a: bool, pack_b: bool) -> Tiling:
    """The cost model's choice among tilings that pack so and have their lanes along k or not."""
    return _work(s, inner=inner, pack_a=pack_a, pack_b=pack_b).cheapest(machine)[1]


def _work(s: Situation, *, inner: bool, pack_a: bool, pack_b: bool) -> _Work:
    stride = s.k * s.itemsize if s.a != "along" and not pack_a else 0
    if s.a == "rows" and not pack_a:
        stride = PAGE  # the rows of an axis that was moved are likely to share sets
    # windows are read element by element along n; words of bytes are put together
    if s.b != "computed":
        b_cycles = WORD_CYCLES if "int8" in s.element else COPY_CYCLES
    else:
        b_cycles = SCATTER_CYCLES if s.packed_inner and not inner else PACK_CYCLES
    if s.settled or s.once:
        b_cycles = 0.0
    return _Work(
        s.itemsize, s.outer, s.m, s.n, s.k, s.least_m or s.m, s.least_n or s.n, inner, pack_a, pack_b,
        packed_k=s.k if inner else s.packed_k or s.k, stride=stride,
        unit=s.inner_unit if inner else s.unit if pack_b else 1,
        words="." in s.element, sums=s.element == "uint8.int8", apart=s.apart,
        a_cycles=COPY_CYCLES if s.a == "along" else PACK_CYCLES, b_cycles=b_cycles, settled=s.settled or s.once,
        pieces=s.pieces, long=s.long, turns=s.turns and pack_b and not inner,
    )  # fmt: skip
