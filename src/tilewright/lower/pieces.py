"""How a launch is shared out: the loops that its grid runs over, and how long the pieces are that threads take."""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.core.shape import Extent, product, total, upper
from tilewright.kernel.ir import HI, LO, Let, Loop, Stmt, idiv, imod, index, var
from tilewright.lower.extents import extent
from tilewright.lower.nest import Dim

__all__ = ["CHUNK_COST", "even_chunk", "over_grid", "piece_of", "worth_of"]

CHUNK_COST = (
    1 << 17
)  # cheap element operations that make a piece of work worth handing to another core (a few µs)
ALONE = 32  # times as much for one thread, which only begins the next piece itself
PIECES = 64  # of a long launch for each thread: enough to share it evenly, and each long beside its start


def over_grid(
    body: tuple[Stmt, ...], outer: Sequence[Dim], work: int, threads: int
) -> tuple[tuple[Stmt, ...], Extent, int]:
    """A kernel's statements, its grid and the length of a piece, where ``body`` is done for every item of the ``outer`` dims and
    all of that is ``work``. The grid runs over as many leading dims as it takes to share the work out."""
    grid_dims, rest = _shared_dims(outer, work)
    for dim in reversed(rest):
        body = (Loop(dim.name, index(0), extent(dim.extent), body),)
    grid = total(d.extent for d in grid_dims)
    if len(grid_dims) == 1:
        body = (Loop(grid_dims[0].name, LO, HI, body),)
    else:
        flat = var("g")
        digits: list[Stmt] = []
        for position, dim in enumerate(grid_dims):
            digit = idiv(flat, product(d.extent for d in grid_dims[position + 1 :]))
            digits.append(Let(dim.name, digit if position == 0 else imod(digit, upper(dim.extent))))
        body = (Loop("g", LO, HI, (*digits, *body)),)
    return body, grid, piece_of(grid, _least_cost(threads) * upper(grid) // max(work, 1), threads)


def piece_of(grid: Extent, worth: int, threads: int, unit: int = 1) -> int:
    """Items of a piece of work, a multiple of ``unit``: so many that they are ``worth`` handing out, or more where a launch is
    long, which then has no more pieces than it needs."""
    least = grid // (PIECES * threads) if isinstance(grid, int) else 0
    return even_chunk(grid, max(1, worth, least), threads, unit)


def worth_of(cost: int, threads: int) -> int:
    """Items worth handing out, each of this cost."""
    return _least_cost(threads) // cost


def _least_cost(threads: int) -> int:
    """Of a piece of work."""
    return CHUNK_COST * (ALONE if threads == 1 else 1)


def _shared_dims(outer: Sequence[Dim], work: int) -> tuple[list[Dim], list[Dim]]:
    """The outer dims that the grid runs over, outermost first, and those that are loops inside a piece of work.

    A symbolic dim leads the grid: finding the others' digits takes divisions, by constants only.
    """
    symbolic = [d for d in outer if not isinstance(d.extent, int)]
    grid_dims, rest = [*symbolic[:1], *(d for d in outer if d not in symbolic)], symbolic[1:]
    inside = product(d.extent for d in rest)
    work //= max(product(d.extent for d in outer), 1)
    while len(grid_dims) > 1:
        tasks = product(d.extent for d in grid_dims[:-1])
        # where the outer range may be short at run time, a piece of work is no longer than it has to be
        if tasks < 64 or (symbolic and work * inside * upper(grid_dims[-1].extent) > CHUNK_COST):
            break
        inside *= upper(grid_dims[-1].extent)
        rest.insert(0, grid_dims.pop())
    return grid_dims, rest


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
