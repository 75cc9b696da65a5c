"""Parameters of the Winograd recipe, and whether it takes less time than the direct sum."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.recipes.machine import Machine

__all__ = ["Blocking", "choose_blocking"]

MOST_TILES = 96  # of a block
COLUMN_COST = 104.0  # vector instructions to transform a vector's worth of tiles of one channel
RESULT_COST = 70.0  # and of results of one filter
GAIN = 1.2  # by how much the estimate has to be better than the direct sum


@dataclass(frozen=True, slots=True)
class Blocking:
    """``rows`` x ``across`` tiles and ``filters`` at a time make a block; ``mr`` filters x ``nr`` vectors a register tile."""

    rows: int
    across: int
    filters: int
    mr: int
    nr: int


def _register_tile(vectors: int, count: int, registers: int) -> tuple[int, int]:
    """Filters and vectors of a register tile: ``nr`` divides the vectors of a block, ``mr`` the filters if that costs little."""
    wide = registers >= 32
    most = {1: 16, 2: 12, 3: 8, 4: 6} if wide else {1: 10, 2: 6, 3: 4}
    nr = max(n for n in most if vectors % n == 0)
    top = min(most[nr], count)
    return min(range(max(top * 2 // 3, 1), top + 1), key=lambda mr: (-(-count // mr) * (mr + 1.5), -mr)), nr


def choose_blocking(machine: Machine, channels: int, shape: tuple[int, ...]) -> Blocking | None:
    """The blocking for results of a shape, or None where the direct sum is about as fast."""
    images, count, high, wide = shape
    lanes = machine.vector_bytes // 4
    down, tiles_wide = -(-high // 2), -(-wide // 2)
    if channels < 8 or count < 8:
        return None
    room = machine.l2 // 2 // (16 * 4 * channels)  # tiles whose transformed channels stay in half of L2
    most = min(MOST_TILES, room)
    if most < lanes:
        return None
    across = tiles_wide if tiles_wide <= most else -(-tiles_wide // -(-tiles_wide // (most // lanes * lanes)))
    segments = -(-tiles_wide // across)
    rows_in_all = images * down * segments

    def cost(rows: int) -> float:
        tiles = rows * across
        vectors = -(-tiles // lanes)
        mr, nr = _register_tile(vectors, count, machine.registers)
        panels = -(-count // mr)
        products = 16 * panels * vectors * channels * (mr * nr + 1.0) / nr * 1.05
        # columns are transformed along rows: what a row does not fill of a vector is lost
        filled = 2 * across / (-(-2 * across // lanes) * lanes)
        transforms = channels * vectors * COLUMN_COST * (0.5 + 0.5 / filled) + count * vectors * RESULT_COST
        blocks = -(-rows_in_all // rows)
        if blocks >= machine.threads:
            return -(-blocks // machine.threads) * (products + transforms)
        return blocks * (products / machine.threads + transforms)

    candidates = range(1, min(most // across, rows_in_all) + 1)
    if not candidates:
        return None
    rows = min(candidates, key=cost)
    outputs = images * high * wide
    direct = 9.0 * channels * count * outputs / lanes / machine.threads * 1.08
    if cost(rows) * GAIN > direct:
        return None
    mr, nr = _register_tile(-(-rows * across // lanes), count, machine.registers)
    panels = -(-count // mr)
    size = max(1, min(panels, 32 // mr))
    parts = -(-panels // size)
    return Blocking(rows, across, -(-panels // parts) * mr, mr, nr)
