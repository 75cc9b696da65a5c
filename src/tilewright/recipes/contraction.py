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

from dataclasses import dataclass

from tilewright.recipes.machine import Machine

__all__ = ["Tiling", "choose_tiling", "inner_wins"]


@dataclass(frozen=True, slots=True)
class Tiling:
    """``lanes``: elements of a vector; ``mr`` x ``nr`` the register tile in rows and vectors (``inner``: rows and columns);
    ``mc`` x ``nc`` the block of a task."""

    variant: str
    lanes: int
    mr: int
    nr: int
    mc: int
    nc: int

    def __str__(self) -> str:
        return f"{self.variant} {self.mr}x{self.nr}x{self.lanes} block {self.mc}x{self.nc}"


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


PACK_CYCLES = 2.5  # to transpose one element into a packed block
ACROSS_CYCLES = 6.0  # to sum one register across its lanes and store the element


def inner_wins(machine: Machine, itemsize: int, m: int, k: int) -> bool:
    """Whether lanes along k (a sum across lanes per result) cost less than packing B (per element), rows fitting in L1."""
    return m * ACROSS_CYCLES < k * PACK_CYCLES and 10 * k * itemsize <= machine.l1


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
) -> Tiling:
    """The tiling for ``outer`` contractions of ``m x n x k``.

    ``packs_a``, ``packs_b``: the operand is copied first, B as ``packed_k`` rows; ``few_rows``: rows of A compete for one
    cache set; ``unit``: blocks of n are multiples of it (1: free).
    """
    lanes = max(1, machine.vector_bytes // itemsize)
    wide = machine.registers >= 32
    if inner:
        mr, nr = (_rows(m, 6), _rows(n, 4)) if wide else (_rows(m, 3), _rows(n, 4))
        mc, nc = m, n
        unit_m, unit_n = mr, unit if unit > 1 else nr
    else:
        vectors = -(-n // lanes)
        nr = 1 if vectors == 1 else 3 if wide and (vectors == 3 or few_rows) else 2
        if m <= 4:  # enough independent sums to hide the latency of a multiplication
            nr = min(vectors, 8 // m if wide else 4 // m)
        most = {1: 20, 2: 13, 3: 8}.get(nr, 4) if wide else {1: 10, 2: 6, 3: 4}.get(nr, 4)
        mr = _rows(m, most)
        unit_m, unit_n = mr, max(unit, 1) if unit > 1 else nr * lanes
        mc, nc = m, n
        if packs_b:
            nc = _balanced(machine.l2 // 2 // (itemsize * max(packed_k, 1)), unit_n, n)
        if (packs_a or not packs_b) and mc * k * itemsize > machine.l2 // 2:
            mc = _balanced(machine.l2 // 2 // (k * itemsize), mr, m)
    flops = 2.0 * outer * m * n * k
    want = 1 if flops < 2e5 else machine.threads if flops < 2e6 else 4 * machine.threads
    if machine.threads == 1:
        want = 1
    while outer * -(-m // mc) * -(-n // nc) < want:
        tiles_m, tiles_n = -(-mc // unit_m), -(-nc // unit_n)
        if tiles_n > 1 and (packs_b or tiles_n >= tiles_m):
            nc = _rounded(-(-tiles_n // 2) * unit_n, unit_n, n)
        elif tiles_m > 1:
            mc = _rounded(-(-tiles_m // 2) * unit_m, unit_m, m)
        else:
            break
    # a block narrowed for more tasks may hold less than the tile was meant to have
    nr = min(nr, nc if inner else -(-nc // lanes))
    return Tiling("inner" if inner else "columns", lanes, mr, nr, mc, nc)
