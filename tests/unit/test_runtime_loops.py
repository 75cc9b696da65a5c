"""Loops and choices of a program: pointers that move and trade places, conditions, nesting,
errors inside, on any number of threads."""

from __future__ import annotations

import signal
import sys
import sysconfig
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from platform_needs import needs_builtins
from runtime_kernels import kernel

from tilewright.core import interpreter
from tilewright.runtime import builtin
from tilewright.runtime.profiler import profile
from tilewright.runtime.program import KernelCheckError, Program
from tilewright.runtime.statistics import stats
from tilewright.runtime.steps import ArrayRef, Choice, HostStep, Launch, Loop, Segment
from tilewright.runtime.team import set_num_threads

Array = npt.NDArray[np.int64]


@pytest.fixture(params=[1, 2, 4], autouse=True)
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    set_num_threads(request.param)
    yield request.param
    set_num_threads(None)


def launch(name: str, a: int, b: int, grid: int, chunk: int, wait_for: int = -1) -> Launch:
    return Launch(kernel(name), [Segment([(a, 0), (b, 0)], grid, chunk)], wait_for, name)


def addresses(*arrays: npt.NDArray[Any]) -> list[int]:
    return [array.ctypes.data for array in arrays]


def test_pointers_move_forwards_and_backwards() -> None:
    rows, width = 50, 64
    x, y = np.arange(rows * width), np.zeros(rows * width, np.int64)
    slots = [(0, 0, 0), (1, 0, 8 * width), (2, 8 * width * (rows - 1), -8 * width)]
    body = [launch("increment", 1, 0, width, 10), launch("increment", 0, 2, width, 64, 0)]
    program = Program([Loop(body, rows, slots)], slots=3, arena_bytes=8 * width)
    for _ in range(20):
        y[:] = 0
        before = stats.native_calls
        program.run(addresses(x, y))
        assert stats.native_calls == before + 1
        np.testing.assert_array_equal(y.reshape(rows, width), x.reshape(rows, width)[::-1] + 2)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 1000])
def test_places_are_traded_after_every_iteration(count: int) -> None:
    x, y = np.arange(256), np.zeros(256, np.int64)
    body = [launch("increment", 1, 2, 256, 32)]
    program = Program([Loop(body, count, [(0, 0, 0), (1, 0, 0), (2, 0, 0)], [(1, 2, 2048)])], slots=3)
    program.run(addresses(x, y))
    last, other = (y, x) if count % 2 else (x, y)
    np.testing.assert_array_equal(last, np.arange(256) + count)
    if count:
        np.testing.assert_array_equal(other, np.arange(256) + count - 1)


@pytest.mark.parametrize("rounds", [0, 1, 2, 7, 200])
def test_a_condition_ends_a_loop_and_the_result_comes_home(rounds: int) -> None:
    x, y = np.arange(256) - rounds, np.zeros(256, np.int64)  # until x[0] is zero
    body = [launch("increment", 1, 2, 256, 32)]
    loop = Loop(body, 0, [(0, 0, 0), (1, 0, 0), (2, 0, 0)], [(1, 2, 8 * 256)], condition=1)
    program = Program([loop], slots=3)
    program.run(addresses(x, y))
    np.testing.assert_array_equal(x, np.arange(256))
    # The loop ends within another one, again and again.
    z, w = np.arange(-4, 4).repeat(8), np.zeros(8, np.int64)
    inner = Loop(
        [launch("increment", 1, 2, 8, 2)], 0, [(0, 0, 0), (1, 0, 0), (2, 0, 0)], [(1, 2, 64)], condition=1
    )
    program = Program([Loop([inner], 5, [(0, 0, 0), (1, 0, 64), (2, 0, 0)])], slots=3)
    program.run(addresses(z, w))
    np.testing.assert_array_equal(z, np.asarray([0, 0, 0, 0, 0, 1, 2, 3]).repeat(8))


@pytest.mark.parametrize("number", [-(2**31), -1, 0, 1, 2, 3, 2**31 - 1])
def test_a_choice_runs_one_branch(number: int) -> None:
    x, selector = np.zeros((3, 64), np.int64), np.asarray([number], np.int32)
    deep = Loop([launch("count", 1, 1, 64, 8)], 7, [(0, 0, 0), (1, 0, 0)])
    branches = [
        [launch("count", 1, 1, 64, 8)],
        [launch("count", 2, 2, 64, 64), launch("count", 2, 2, 64, 8, 0)],
        [Loop([launch("count", 1, 1, 64, 64)], 5, [(0, 0, 0), (3, 0, 0)]),
         Choice([[deep], []], [(0, 0), (3, 0), (4, 0)], 2)],
    ]  # fmt: skip
    choice = Choice(branches, [(0, 0), (1, 0), (1, 8 * 64), (1, 8 * 128), (2, 0)], 4)
    program = Program([launch("count", 1, 1, 192, 16), choice, launch("count", 1, 1, 192, 16)], slots=3)
    want = np.full((3, 64), 2)
    taken = min(max(number, 0), 2)
    want[taken] += (1, 2, 5)[taken]
    for run in range(1, 4):
        before = stats.native_calls
        program.run(addresses(x, selector))
        assert stats.native_calls == before + 1
        np.testing.assert_array_equal(x, run * want)
    with profile() as runs:
        program.run(addresses(x, selector))
    assert sum(sum(t.chunks) for t in runs[-1].steps) == 24 + (8, 9, 5)[taken]


def test_loops_nest_between_launches() -> None:
    x = np.zeros(40, np.int64)
    inner = Loop([launch("count", 1, 1, 4, 1)], 5, [(0, 0, 0), (1, 0, 8)])
    outer = Loop([inner, launch("count", 1, 1, 1, 1), inner], 3, [(0, 0, 0), (1, 0, 8 * 10)])
    program = Program([launch("count", 1, 1, 40, 7), outer, launch("count", 1, 1, 40, 7)], slots=2)
    one = np.zeros(40, np.int64)
    for row in range(3):
        for at in range(5):
            one[10 * row + at : 10 * row + at + 4] += 2
        one[10 * row] += 1
    for run in range(1, 200):
        program.run(addresses(x))
        if run % 50 == 1:
            np.testing.assert_array_equal(x, run * (one + 2))


def test_a_report_ends_the_loop_and_the_program() -> None:
    x, bad = np.zeros(8, np.int64), np.zeros((10, 8), np.int64)
    bad[4, 6] = 9
    body = [launch("count", 1, 1, 8, 8), launch("check", 2, 2, 8, 8, 0), launch("count", 1, 1, 8, 8, 1)]
    loop = Loop(body, 10, [(0, 0, 0), (1, 0, 0), (2, 0, 64)])
    program = Program([loop, launch("count", 1, 1, 8, 8, 0)], slots=3)
    for run in range(1, 3):
        with pytest.raises(KernelCheckError, match="check code 9"):
            program.run(addresses(x, bad))
        np.testing.assert_array_equal(x, 9 * run)
    bad[4, 6] = 0
    program.run(addresses(x, bad))
    np.testing.assert_array_equal(x, 18 + 21)


def test_host_steps_and_timings_stand_beside_loops() -> None:
    x = np.zeros(64, np.int64)

    def double(array: Array) -> None:
        array *= 2

    loop = Loop([launch("count", 1, 1, 64, 8)], 10, [(0, 0, 0), (1, 0, 0)])
    host = HostStep(double, [ArrayRef(1, 0, (64,), np.dtype(np.int64))])
    program = Program([loop, host, loop], slots=2)
    program.run(addresses(x))
    np.testing.assert_array_equal(x, 30)
    with profile() as runs:
        Program([launch("count", 1, 1, 64, 8), loop], slots=2).run(addresses(x))
    assert [sum(t.chunks) for t in runs[-1].steps] == [8, 80]
    once, often = runs[-1].steps
    assert (once.repeats, often.repeats) == (1, 10)
    assert once.ns == once.end_ns - once.start_ns
    assert often.ns <= often.busy_ns <= sum(c > 0 for c in often.chunks) * (often.end_ns - often.start_ns)


def test_inconsistent_loops_are_refused() -> None:
    body = [launch("count", 1, 1, 8, 8)]
    for loop in (
        Loop(body, -1, [(0, 0, 0), (1, 0, 0)]),
        Loop(body, 1, [(0, 0, 0)]),
        Loop(body, 1, [(0, 0, 0), (5, 0, 0)]),
        Loop(body, 1, [(0, 0, 0), (1, 0, 0)], [(1, 2, 8)]),
    ):
        with pytest.raises(ValueError):
            Program([loop], slots=2)
    for step in (
        Loop(body, 1, [(0, 0, 0), (1, 0, 0)], condition=2),
        Choice([], [(0, 0), (1, 0)], 1),
        Choice([body], [(0, 0), (1, 0)], 2),
        Choice([body], [(0, 0), (7, 0)], 1),
        Choice([body, [HostStep(print, [])]], [(0, 0), (1, 0)], 1),  # type: ignore[list-item]
    ):
        with pytest.raises(ValueError):
            Program([step], slots=2)


def test_thousands_of_short_iterations_run_every_chunk_once() -> None:
    x = np.zeros(16, np.int64)
    loop = Loop(
        [launch("count", 1, 1, 16, 2), launch("count", 1, 1, 16, 16, 0)], 5000, [(0, 0, 0), (1, 0, 0)]
    )
    program = Program([loop], slots=2)
    program.run(addresses(x))
    program.run(addresses(x))
    np.testing.assert_array_equal(x, 20000)


def test_builtins_are_there_where_they_should_be() -> None:
    """Otherwise every test of `needs_builtins` would be skipped without a word."""
    supported = (
        sys.platform == "linux"
        and sys.implementation.name == "cpython"
        and sys.maxsize > 2**32
        and not sysconfig.get_config_var("Py_GIL_DISABLED")
        and sys.version_info[:2] in interpreter.KNOWN
    )
    assert builtin.available() == supported


@needs_builtins
@pytest.mark.usefixtures("ctrl_c_raises")
def test_loops_that_stop_are_stopped_between_two_iterations() -> None:
    """Also the inner one of two; a loop that does not stop takes no notice. Left alone they take minutes."""
    x = np.zeros(256, np.int64)
    body = [launch("increment", 1, 1, 256, 32)]
    inner = Loop(body, 10**9, [(0, 0, 0), (1, 0, 0)], stops=True)
    outer = Loop([inner], 2, [(0, 0, 0), (1, 0, 0)])
    for loop in (inner, outer):
        timer = threading.Timer(0.1, signal.raise_signal, (signal.SIGINT,))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            Program([loop, *body], slots=2).run(addresses(x))
        timer.join()
        assert x[0] > 0 and np.all(x == x[0])
    program = Program([Loop(body, 1000, [(0, 0, 0), (1, 0, 0)])], slots=2)
    program.run(addresses(x))
