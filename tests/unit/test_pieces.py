"""The pieces in which a launch is handed out: as long as asked for, and equally much for every thread."""

import itertools
import math

import pytest

from tilewright.core import dtype as dt
from tilewright.core.size import Size
from tilewright.graph import build
from tilewright.graph.ir import input_value
from tilewright.lower.groups import form_groups
from tilewright.lower.lowering import lower_groups
from tilewright.lower.pieces import even_chunk
from tilewright.recipes.machine import Machine


def share(grid: int, chunk: int, threads: int) -> int:
    """Items of the first thread, which has the most pieces, all of them whole."""
    pieces = math.ceil(grid / chunk)
    return min(grid, chunk * math.ceil(pieces / threads))


@pytest.mark.parametrize("threads", [2, 3, 4, 8])
@pytest.mark.parametrize("unit", [1, 4])
def test_no_thread_has_more_to_do_than_with_pieces_of_the_least_length(threads: int, unit: int) -> None:
    for grid, least in itertools.product(range(1, 130), range(1, 130)):
        chunk, plain = even_chunk(grid, least, threads, unit), -(-least // unit) * unit
        assert chunk % unit == 0
        if grid <= plain:
            assert chunk == plain  # one piece
            continue
        assert share(grid, chunk, threads) <= share(grid, plain, threads)
        assert 2 * chunk >= least  # of two pieces, the second one may be short


def test_pieces_of_one_thread_and_of_unknown_ranges_have_the_least_length() -> None:
    assert even_chunk(1000, 300, 1) == 300
    assert even_chunk(Size("n", 1, 1000), 300, 4, 16) == 304


@pytest.mark.parametrize("threads", [2, 3, 4])
@pytest.mark.parametrize("rows", [125, 128, 1024])
def test_maps_and_rows_have_even_pieces(threads: int, rows: int) -> None:
    x = input_value(dt.float32, (rows, 1024))
    total = build.broadcast(build.reshape(build.reduce_sum(x, (1,)), (rows, 1)), (rows, 1024))
    machine = Machine(vector_bytes=64, registers=32, l1=48 << 10, l2=1 << 20, threads=threads)
    for y in (build.add(x, x), build.sub(x, total)):
        (step,) = lower_groups(form_groups([y]), machine)
        (call,) = step.calls
        assert isinstance(call.grid, int)
        assert call.chunk < call.grid
        even = call.grid / threads
        assert share(call.grid, call.chunk, threads) <= max(even + 16 * threads, 1.01 * even)
