"""Parameters of the Winograd recipe, and whether it takes less time than the direct sum."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from tilewright.recipes.machine import Machine

__all__ = ["GAIN", "Blocking", "Summing", "choose_blocking", "choose_summing"]

MOST_TILES = 96  # of a block
COLUMN_COST = 104.0  # vector instructions to transform a vector's worth of tiles of one channel
RESULT_COST = 70.0  # and of results of one filter
GAIN = 1.2  # by how much the estimate has to be better than the direct sum
# rows of a register tile by its vectors, with 16 registers and with 32
_MOST_ROWS = ({1: 10, 2: 6, 3: 4}, {1: 16, 2: 12, 3: 8, 4: 6})


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
    most = _MOST_ROWS[registers >= 32]
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


# ---- filter gradients ----

MOST_SUMMED = 128  # tiles of a block
LEAST_SUMMED = 24  # the same, if there are so many
IMAGE_COST = 44.0  # cycles to transform a tile of a vector of channels
GRADIENT_COST = 26.0  # and of a vector of filters
TURN_COST = 0.4  # to copy an element so that lanes run along channels, or filters
ADD_COST = 3.0  # to begin a register of sums and to add it to those of the blocks before
FINISH_COST = 2.0  # for each element of a task's sums
PIECE_COST = 0.4  # to store and add up one element of a piece's partial result
TASK_COST = 3000.0  # to begin a task
L2_SHARE = 0.75  # of L2 that a task's sums and a block's tiles may fill
SHARES = 1.04  # of loads, and of loops, beside the multiplications


@dataclass(frozen=True, slots=True)
class Summing:
    """How the gradient of filters is summed. A part is ``rows`` x ``across`` tiles of an image; ``together`` parts make a block,
    ``blocks`` of them a piece. A task computes ``filters`` x ``channels`` of a piece, by register tiles of ``mr`` x ``nr``."""

    rows: int
    across: int
    together: int
    blocks: int
    filters: int
    channels: int
    mr: int
    nr: int

    @property
    def tiles(self) -> int:
        """Of a block."""
        return self.together * self.rows * self.across


def choose_summing(
    machine: Machine, images: int, channels: int, filters: int, high: int, wide: int
) -> tuple[float, Summing] | None:
    """The fewest cycles that the gradient of filters over ``high`` x ``wide`` results takes, and how it is summed then; None for
    few channels or filters."""
    lanes = machine.vector_bytes // 4
    if channels < 8 or filters < 8:
        return None
    down, tiles_wide = -(-high // 2), -(-wide // 2)
    best: tuple[float, Summing] | None = None
    for across in _divisors(tiles_wide, MOST_SUMMED):
        for rows in _divisors(down, MOST_SUMMED // across):
            parts = images * (tiles_wide // across) * (down // rows)
            # only whole images are summed together
            most = MOST_SUMMED // (rows * across) if rows * across == down * tiles_wide else 1
            for together in _divisors(parts, most):
                if rows * across * together < min(LEAST_SUMMED, images * down * tiles_wide):
                    continue
                for some_filters in _parts(filters, 8):
                    for some in _parts(channels, lanes):
                        shape = rows, across, together, some_filters, some
                        found = _summing(machine, lanes, parts, filters, channels, shape)
                        if found is not None and (best is None or found[0] < best[0]):
                            best = found
    return best


@cache
def _sum_tile(vectors: int, filters: int, wide: bool, slower: float) -> tuple[int, int, float]:
    """Filters and vectors of a register tile that covers a task's sums with the fewest cycles for each tile of the image, and the
    cycles of a step."""
    best = float("inf"), 1, 1, 1.0
    for nr, most in _MOST_ROWS[wide].items():
        for mr in range(1, min(most, filters) + 1 if vectors % nr == 0 else 0):
            step = max(mr * nr * slower, 1.01 * (mr + nr), 10.0) / 2.0 * SHARES
            best = min(best, (-(-filters // mr) * (vectors // nr) * step, -mr, nr, step))
    return -best[1], best[2], best[3]


def _divisors(n: int, most: int) -> list[int]:
    return [d for d in range(1, min(n, most) + 1) if n % d == 0]


def _parts(n: int, unit: int) -> list[int]:
    """Sizes of equal parts of a range, multiples of a unit if there is more than one."""
    counts = dict.fromkeys(-(-n // most) for most in (128, 96, 64, 48, 32))
    return list(dict.fromkeys(min(-(-n // (count * unit)) * unit, n) for count in (1, *counts)))


def _summing(
    machine: Machine,
    lanes: int,
    parts: int,
    filters: int,
    channels: int,
    shape: tuple[int, int, int, int, int],
) -> tuple[float, Summing] | None:
    """The cycles for parts and blocks of a shape, with the best register tile and number of pieces."""
    rows, across, together, some_filters, some = shape
    tiles = together * rows * across
    vectors = -(-some // lanes)
    high, wide = 2 * rows + 2, 2 * across + 2
    sums = some_filters * vectors * lanes
    held = 16 * (tiles * (vectors * lanes + some_filters) + sums) + high * wide * (some + some_filters)
    if 4 * held > L2_SHARE * machine.l2:
        return None
    slower = 2.0 / machine.fmas
    mr, nr, step = _sum_tile(vectors, some_filters, machine.registers >= 32, slower)
    count = -(-some_filters // mr) * (vectors // nr)
    products = count * (tiles * step + ADD_COST * mr * nr)
    # whole vectors of a row are turned, however little of the last one there is
    row, inner = (-(-n // lanes) * lanes for n in (wide, wide - 2))
    copied = together * (high * row * some + (high - 2) * inner * some_filters) * TURN_COST
    transforms = tiles * (vectors * IMAGE_COST + -(-some_filters // lanes) * GRADIENT_COST)
    block = 16 * products + (copied + transforms) * slower
    finish = TASK_COST + sums * FINISH_COST * slower
    blocks = parts // together
    wholes = -(-filters // some_filters) * -(-channels // some)
    best: tuple[float, int] | None = None
    for pieces in _divisors(blocks, 4 * machine.threads):
        rounds = -(-wholes * pieces // machine.threads)
        cost = rounds * (blocks // pieces * block + finish)
        cost += PIECE_COST * pieces * filters * channels * 9
        if best is None or cost < best[0]:
            best = cost, blocks // pieces
    assert best is not None
    return best[0], Summing(rows, across, together, best[1], some_filters, some, mr, nr)
