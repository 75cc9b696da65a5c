"""Arena planning: offsets for blocks that live over intervals of steps: best-fit reuse of freed space, or largest first.

It knows steps and sizes only. Besides offsets it says, for every block, the last step that used the memory before: a
launch that writes the block has to wait for that step.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass

__all__ = ["ALIGNMENT", "LARGE", "ArenaPlan", "Block", "by_size", "by_time", "plan_arena"]

ALIGNMENT = 64
LARGE, MOST = 16 << 20, 4000  # arenas of so many bytes, and of no more blocks, are planned in two ways


@dataclass(frozen=True, slots=True)
class Block:
    """``nbytes`` needed from step ``first`` to step ``last``, both included."""

    nbytes: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class ArenaPlan:
    """``offsets[i]`` of block i; ``waits[i]`` the last step that used its memory before (-1: none); the arena's size."""

    offsets: list[int]
    waits: list[int]
    nbytes: int


def plan_arena(blocks: list[Block]) -> ArenaPlan:
    """Place every block; blocks whose intervals meet never overlap."""
    plan = by_time(blocks)
    if plan.nbytes < LARGE or len(blocks) > MOST:
        return plan
    other = by_size(blocks)
    return other if other.nbytes < plan.nbytes else plan


def by_size(blocks: list[Block]) -> ArenaPlan:
    """The largest first, each at the lowest offset where no block that is there at the same time lies."""
    offsets = [0] * len(blocks)
    placed: list[tuple[int, int, int, int]] = []  # offset, end, first and last step, by offset
    size = 0
    for i in sorted(range(len(blocks)), key=lambda i: -blocks[i].nbytes):
        block, need, at = blocks[i], _rounded(blocks[i].nbytes), 0
        for offset, end, first, last in placed:
            if first <= block.last and block.first <= last:
                if offset - at >= need:
                    break
                if end > at:
                    at = end
        offsets[i], size = at, max(size, at + need)
        insort(placed, (at, at + need, block.first, block.last))
    waits = []
    for i, block in enumerate(blocks):
        start, end = offsets[i], offsets[i] + _rounded(block.nbytes)
        waits.append(
            max((t for a, b, _, t in placed if a < end and start < b and t < block.first), default=-1)
        )
    return ArenaPlan(offsets, waits, size)


def by_time(blocks: list[Block]) -> ArenaPlan:
    """In the order of their first steps, each into the smallest free piece that holds it."""
    offsets, waits = [0] * len(blocks), [-1] * len(blocks)
    free: list[tuple[int, int, int]] = []  # (offset, size, last step that used it), by offset
    size = 0
    starts = sorted(range(len(blocks)), key=lambda i: (blocks[i].first, -blocks[i].nbytes))
    ends = sorted(range(len(blocks)), key=lambda i: blocks[i].last)
    done = 0
    for i in starts:
        block = blocks[i]
        while done < len(ends) and blocks[ends[done]].last < block.first:
            gone = ends[done]
            _release(free, offsets[gone], _rounded(blocks[gone].nbytes), blocks[gone].last)
            done += 1
        need = _rounded(block.nbytes)
        fits = [k for k, (_, room, _) in enumerate(free) if room >= need]
        if fits:
            k = min(fits, key=lambda k: free[k][1])
            offset, room, used = free[k]
            offsets[i], waits[i] = offset, used
            if room > need:
                free[k] = (offset + need, room - need, used)
            else:
                del free[k]
        elif free and free[-1][0] + free[-1][1] == size:  # the last free piece grows to fit
            offset, _, used = free.pop()
            offsets[i], waits[i], size = offset, used, offset + need
        else:
            offsets[i], size = size, size + need
    return ArenaPlan(offsets, waits, size)


def _rounded(nbytes: int) -> int:
    return max(-(-nbytes // ALIGNMENT), 1) * ALIGNMENT


def _release(free: list[tuple[int, int, int]], offset: int, size: int, last: int) -> None:
    """Give a piece back, merged with its neighbours."""
    k = 0
    while k < len(free) and free[k][0] < offset:
        k += 1
    free.insert(k, (offset, size, last))
    if k + 1 < len(free) and free[k][0] + free[k][1] == free[k + 1][0]:
        a, b = free[k], free[k + 1]
        free[k : k + 2] = [(a[0], a[1] + b[1], max(a[2], b[2]))]
    if k > 0 and free[k - 1][0] + free[k - 1][1] == free[k][0]:
        a, b = free[k - 1], free[k]
        free[k - 1 : k + 1] = [(a[0], a[1] + b[1], max(a[2], b[2]))]
