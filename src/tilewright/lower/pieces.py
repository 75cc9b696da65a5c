"""How long the pieces are in which a launch is handed out to threads."""

from __future__ import annotations

from tilewright.core.shape import Extent

__all__ = ["even_chunk"]


def even_chunk(grid: Extent, least: int, threads: int, unit: int = 1) -> int:
    """Items of a piece of work: a multiple of ``unit``, about ``least`` or more, and so that threads with equally many pieces
    have equally much to do, as far as that goes. Of lengths that share the work out equally well, the shortest."""
    chunk = -(-least // unit) * unit
    if not isinstance(grid, int) or grid <= chunk or threads == 1:
        return chunk
    pieces = -(-grid // least)
    if pieces < threads:
        return -(-grid // (pieces * unit)) * unit
    most = grid
    for count in range(threads, pieces + 1, threads):
        length = -(-grid // (count * unit)) * unit
        share = length * -(-grid // (length * threads))
        if share <= most:
            most, chunk = share, length
    return chunk
