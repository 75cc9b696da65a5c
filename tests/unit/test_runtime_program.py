"""Programs on the thread team: every item runs exactly once, in the order asked for, whatever threads do."""

import ctypes
import gc
import os
import platform
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from runtime_kernels import kernel
from runtime_programs import Array, N, addresses, launch, wait_for_sleep, zeros

from tilewright.core.settings import settings
from tilewright.runtime import offsets
from tilewright.runtime import team as team_module
from tilewright.runtime.profiler import profile
from tilewright.runtime.program import KernelCheckError, Program
from tilewright.runtime.statistics import stats
from tilewright.runtime.steps import ArrayRef, HostStep, Launch, Segment
from tilewright.runtime.target import available_cpus
from tilewright.runtime.team import Team, get_num_threads, set_num_threads, state

RUNS = 5000


@pytest.fixture(autouse=True)
def restore_threads() -> Iterator[None]:
    yield
    set_num_threads(None)


@pytest.fixture(params=[1, 2, 4])
def threads(request: pytest.FixtureRequest) -> int:
    """Thread counts: alone, a pair, and more than small machines have cores."""
    count: int = request.param
    set_num_threads(count)
    return count


def test_results_pass_from_launch_to_launch_through_the_arena(threads: int) -> None:
    x, y = np.arange(N), zeros()
    steps = [launch("increment", 1, 0), *(launch("increment", 0, 0, wait_for=i) for i in range(8))]
    program = Program([*steps, launch("increment", 0, 2, wait_for=8)], slots=3, arena_bytes=8 * N)
    for _ in range(50):
        y[:] = 0
        program.run(addresses(x, y))
        np.testing.assert_array_equal(y, x + 10)


@pytest.mark.parametrize("chunk", [1, 7, 100, N, 5000])
def test_dependent_launches_see_everything_before_them(threads: int, chunk: int) -> None:
    # Each launch reads what the launch before wrote in other chunks: a claim too early gives a wrong number.
    depth = 40
    first, second = (np.concatenate([np.arange(N), [N]]) for _ in range(2))
    steps = [launch("reverse", 1 + i % 2, 2 - i % 2, chunk=chunk, wait_for=i - 1) for i in range(depth)]
    program = Program(steps, slots=3)
    start = np.arange(N)
    for run in range(100 if chunk > 1 else 20):
        first[:N] = start + run
        program.run(addresses(first, second))
        np.testing.assert_array_equal(first[:N], start + run + depth)


def test_every_item_runs_exactly_once_in_thousands_of_runs(threads: int) -> None:
    # Runs much shorter than a time slice: with more threads than cores, late workers often meet later runs.
    counts = [zeros(64) for _ in range(4)]
    steps = [launch("count", 1 + i, 1 + i, 64, chunk, i - 1) for i, chunk in enumerate([1, 64, 5, 16])]
    program = Program(steps, slots=5)
    pointers = addresses(*counts)
    for _ in range(RUNS):
        program.run(pointers)
    for array in counts:
        np.testing.assert_array_equal(array, RUNS)


def test_alternating_programs_do_not_disturb_each_other(threads: int) -> None:
    counts = [zeros(32) for _ in range(3)]
    programs = [
        Program([launch("count", 1, 1, 32, 1 + i, j - 1) for j in range(2 + i)], slots=2) for i in range(3)
    ]
    for _ in range(1500):
        for program, array in zip(programs, counts, strict=True):
            program.run(addresses(array))
    for i, array in enumerate(counts):
        np.testing.assert_array_equal(array, 1500 * (2 + i))


def test_programs_come_and_go_while_workers_are_late(threads: int) -> None:
    array = zeros(32)
    for _ in range(400):
        Program([launch("count", 1, 1, 32, 1)], slots=2).run(addresses(array))
    np.testing.assert_array_equal(array, 400)
    gc.collect()
    with state.lock:
        state.reap()
    assert len(state.graveyard) <= threads


def test_segments_run_one_kernel_over_several_places(threads: int) -> None:
    sizes = [5, 0, 1, 100, 33, 64]
    x = np.arange(sum(sizes))
    y = zeros(sum(sizes))
    starts = np.cumsum([0, *sizes])[:-1]
    segments = [
        Segment([(1, 8 * int(at)), (2, 8 * int(at))], size, 10)
        for at, size in zip(starts, sizes, strict=True)
    ]
    program = Program([Launch(kernel("increment"), segments)], slots=3)
    for _ in range(50):
        y[:] = 0
        program.run(addresses(x, y))
        np.testing.assert_array_equal(y, x + 1)


def test_each_call_gets_one_chunk_that_starts_at_a_multiple_of_it(threads: int) -> None:
    lengths, lows = zeros(), zeros()
    Program([launch("ranges", 1, 2, chunk=100)], slots=3).run(addresses(lengths, lows))
    np.testing.assert_array_equal(lows, np.arange(N) // 100 * 100)
    np.testing.assert_array_equal(lengths, np.minimum(100, N - lows))


def test_independent_launches_may_overlap_and_a_later_one_waits_for_both(threads: int) -> None:
    x, a, b, sums = np.arange(N), zeros(), zeros(), zeros(16)
    steps = [
        launch("increment", 1, 2),
        launch("increment", 1, 3),
        launch("total", 2, 4, 8, 1, wait_for=0),
        Launch(kernel("total"), [Segment([(3, 0), (4, 64)], 8, 1)], wait_for=1),
    ]
    program = Program(steps, slots=5)
    for _ in range(200):
        a[:], b[:], sums[:] = 0, 0, 0
        program.run(addresses(x, a, b, sums))
        np.testing.assert_array_equal(sums, (x + 1).sum())


def test_a_late_or_slow_thread_loses_its_chunks_to_the_others() -> None:
    set_num_threads(2)
    counts, rounds = zeros(8), np.full(8, 2000, np.int64)
    rounds[0] = 4_000_000  # the first chunk keeps one thread busy; the other takes all the rest
    program = Program([launch("work", 1, 2, 8, 1)], slots=3)
    program.run(addresses(counts, rounds))
    for _ in range(3):
        counts[:] = 0
        with profile() as runs:
            program.run(addresses(counts, rounds))
        np.testing.assert_array_equal(counts, 1)
    chunks = runs[0].steps[0].chunks
    assert sum(chunks) == 8


def test_a_busy_competitor_process_does_not_stall_runs() -> None:
    set_num_threads(2)
    competitor = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        test_every_item_runs_exactly_once_in_thousands_of_runs(2)
    finally:
        competitor.kill()
        competitor.wait()


def test_programs_share_an_arena_that_grows(threads: int) -> None:
    x, y = np.arange(4 * N), zeros(4 * N)

    def make(size: int) -> Program:
        steps = [launch("increment", 1, 0, size), launch("increment", 0, 2, size, wait_for=0)]
        return Program(steps, slots=3, arena_bytes=8 * size)

    small = make(N)
    for size in (2 * N, 4 * N):
        small.run(addresses(x, y))
        make(size).run(addresses(x, y))
        np.testing.assert_array_equal(y[:size], x[:size] + 2)
    y[:] = 0
    small.run(addresses(x, y))
    np.testing.assert_array_equal(y[:N], x[:N] + 2)


def test_running_out_of_memory_for_an_arena_leaves_other_programs_usable() -> None:
    x, y = np.arange(N), zeros()
    steps = [launch("increment", 1, 0), launch("increment", 0, 2, wait_for=0)]
    program = Program(steps, slots=3, arena_bytes=8 * N)
    program.run(addresses(x, y))
    with pytest.raises(MemoryError):
        Program(steps, slots=3, arena_bytes=1 << 60).run(addresses(x, y))
    y[:] = 0
    program.run(addresses(x, y))
    np.testing.assert_array_equal(y, x + 2)


def test_scratch_belongs_to_one_thread_and_grows_on_demand(threads: int) -> None:
    x, y = np.arange(N), zeros()
    Program([launch("increment", 1, 2)], slots=3).run(addresses(x, y))
    program = Program([launch("through_scratch", 1, 2, chunk=8)], slots=3, scratch_bytes=8192)
    for _ in range(100):
        y[:] = -1
        program.run(addresses(x, y))
        np.testing.assert_array_equal(y, x)


def test_a_check_raises_what_its_table_says(threads: int) -> None:
    x = zeros()
    x[700] = 3
    program = Program(
        [launch("check", 1, 1), launch("increment", 1, 2, wait_for=0)],
        slots=3,
        checks={3: lambda words: IndexError(f"index {words[1]}, details {words[2:]}")},
        name="gather",
    )
    y = zeros()
    for _ in range(20):
        with pytest.raises(IndexError, match=r"index 700, details \(5, 6\)"):
            program.run(addresses(x, y))
    x[700] = 4
    with pytest.raises(KernelCheckError, match="gather: a kernel reported check code 4"):
        program.run(addresses(x, y))
    x[700] = 0
    program.run(addresses(x, y))  # the status is cleared with every run
    np.testing.assert_array_equal(y, 1)


def test_pointers_come_as_a_sequence_or_an_array_and_are_counted() -> None:
    x, y = np.arange(N), zeros()
    program = Program([launch("increment", 1, 2)], slots=3, name="step")
    program.run(np.array(addresses(x, y), np.uint64))
    np.testing.assert_array_equal(y, x + 1)
    for wrong in ([], addresses(x), addresses(x, y, y)):
        with pytest.raises(ValueError, match=f"step takes 2 pointers, not {len(wrong)}"):
            program.run(wrong)
    with pytest.raises(ValueError, match="unsigned 64-bit"):
        program.run([-1, 0])


def test_empty_programs_and_empty_launches_do_nothing(threads: int) -> None:
    Program([], slots=1).run([])
    x = zeros()
    program = Program(
        [launch("count", 1, 1, 0, 1), Launch(kernel("count"), []), launch("count", 1, 1, N, 8, 1)], slots=2
    )
    program.run(addresses(x))
    np.testing.assert_array_equal(x, 1)
    Program([launch("count", 1, 1, 0, 1)], slots=2).run(addresses(x))
    np.testing.assert_array_equal(x, 1)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Launch(1, [], wait_for=0), "waits for step 0, which is not before it"),
        (Launch("gemm", []), "no kernel of this name"),
        (Launch(1, [Segment([], -1, 1)]), "grid -1 and chunk 1"),
        (Launch(1, [Segment([], 1, 0)]), "grid 1 and chunk 0"),
        (Launch(1, [Segment([], 1 << 30, 1)]), "chunks; at most"),
        (Launch(1, [Segment([(2, 0)], 1, 1)]), "slot 2, byte 0 is outside of 2 slots"),
    ],
)
def test_an_inconsistent_description_is_refused(step: Launch, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Program([step], slots=2)


def test_kernels_may_be_named() -> None:
    x = zeros()
    launch_by_name = Launch("counter", [Segment([(1, 0), (1, 0)], N, 64)])
    Program([launch_by_name], slots=2, kernels={"counter": kernel("count")}).run(addresses(x))
    np.testing.assert_array_equal(x, 1)


def test_host_steps_run_between_native_parts(threads: int) -> None:
    seen: list[int] = []

    def double(array: Array, other: Array) -> None:
        seen.append(int(array[3]))
        other[...] = 2 * array

    refs = [ArrayRef(0, 0, (32, 32), np.dtype(np.int64)), ArrayRef(2, 0, (32, 32), np.dtype(np.int64))]
    program = Program(
        [
            launch("increment", 1, 0),
            HostStep(lambda array, other: double(array.ravel(), other.ravel()), refs, "double"),
            launch("increment", 2, 2, wait_for=1),
        ],
        slots=3,
        arena_bytes=8 * N,
    )
    x, y = np.arange(N), zeros()
    before = stats.snapshot()
    for _ in range(10):
        y[:] = 0
        program.run(addresses(x, y))
        np.testing.assert_array_equal(y, 2 * (x + 1) + 1)
    gained = stats.since(before)
    assert seen == [4] * 10
    assert (gained["native_calls"], gained["host_calls"], gained["launches"]) == (20, 10, 20)


def test_an_exception_in_a_host_step_passes_through_and_leaves_the_program_usable() -> None:
    fail = True

    def step(array: Array) -> None:
        if fail:
            raise ArithmeticError("no")

    x = zeros()
    program = Program([HostStep(step, [ArrayRef(1, 0, (N,), x.dtype)]), launch("count", 1, 1)], slots=2)
    with pytest.raises(ArithmeticError, match="no"):
        program.run(addresses(x))
    fail = False
    program.run(addresses(x))
    np.testing.assert_array_equal(x, 1)


def test_a_host_step_may_run_other_programs_but_not_its_own() -> None:
    x = zeros()
    other = Program([launch("count", 1, 1)], slots=2)
    program = Program(
        [HostStep(lambda array: other.run([array.ctypes.data]), [ArrayRef(1, 0, (N,), x.dtype)])], slots=2
    )
    program.run(addresses(x))
    np.testing.assert_array_equal(x, 1)
    own = Program([HostStep(lambda: own.run([]), [])], slots=1, name="own")
    with pytest.raises(RuntimeError, match="own was run again from inside one of its own host steps"):
        own.run([])


def test_a_program_without_host_steps_is_one_native_call(threads: int) -> None:
    x, y = zeros(), zeros()
    program = Program([launch("increment", 1, 2, wait_for=i - 1) for i in range(12)], slots=3)
    before = stats.snapshot()
    program.run(addresses(x, y))
    gained = stats.since(before)
    assert gained["native_calls"] == 1
    assert gained["launches"] == 12


def test_launches_that_wait_for_each_other_with_one_chunk_each_wake_nobody() -> None:
    set_num_threads(4)
    x = zeros()
    Program([launch("count", 1, 1, chunk=N, wait_for=i - 1) for i in range(6)], slots=2).run(addresses(x))
    np.testing.assert_array_equal(x, 6)
    with state.lock:
        assert state.current is not None
        assert not state.current.threads


def test_several_python_threads_take_turns(threads: int) -> None:
    shared = zeros(64)
    program = Program([launch("count", 1, 1, 64, 3, i - 1) for i in range(3)], slots=2)
    own = [zeros(64) for _ in range(4)]
    failures: list[BaseException] = []

    def work(array: Array) -> None:
        try:
            private = Program([launch("count", 1, 1, 64, 3)], slots=2)
            for _ in range(300):
                program.run(addresses(shared))
                private.run(addresses(array))
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(array,)) for array in own]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures
    np.testing.assert_array_equal(shared, 3 * 4 * 300)
    np.testing.assert_array_equal(own, 300)


def test_the_number_of_threads_changes_between_runs() -> None:
    x = zeros()
    program = Program([launch("count", 1, 1, chunk=10, wait_for=i - 1) for i in range(4)], slots=2)
    counts = [1, 3, 2, 6, 1, 4]
    for count in counts:
        set_num_threads(count)
        assert get_num_threads() == count
        for _ in range(20):
            program.run(addresses(x))
    np.testing.assert_array_equal(x, 4 * 20 * len(counts))
    with pytest.raises(ValueError, match="not 0"):
        set_num_threads(0)


def test_the_environment_bounds_the_number_of_threads() -> None:
    with settings.override(threads=1):
        set_num_threads(None)
        assert get_num_threads() == 1
    with settings.override(threads=9999):  # an upper bound: more than there are CPUs changes nothing
        set_num_threads(None)
        assert get_num_threads() == min(available_cpus(), 1023)
    assert get_num_threads() >= 1


def test_a_serial_program_wakes_nobody() -> None:
    set_num_threads(4)
    x = zeros()
    program = Program(
        [launch("count", 1, 1, chunk=1, wait_for=i - 1) for i in range(3)], slots=2, serial=True
    )
    program.run(addresses(x))
    np.testing.assert_array_equal(x, 3)
    with state.lock:
        assert state.current is not None
        assert not state.current.threads


def test_without_more_system_threads_the_others_do_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def refuse_the_second(thread: threading.Thread) -> None:
        if thread.name == "tilewright-worker-2":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_the_second)
    set_num_threads(4)
    x = zeros()
    program = Program([launch("count", 1, 1, chunk=8, wait_for=i - 1) for i in range(3)], slots=2)
    for _ in range(50):
        program.run(addresses(x))
    np.testing.assert_array_equal(x, 150)
    with state.lock:
        assert state.current is not None
        assert len(state.current.threads) == 1


def test_idle_workers_sleep_and_wake_again() -> None:
    set_num_threads(3)
    x = zeros(64)
    program = Program([launch("count", 1, 1, 64, 1)], slots=2)
    program.run(addresses(x))
    team = state.current
    assert team is not None
    for run in range(5):
        deadline = time.monotonic() + 5
        while team.sleepers < 2:
            assert time.monotonic() < deadline, "idle workers do not sleep"
            time.sleep(0.001)
        program.run(addresses(x))
        np.testing.assert_array_equal(x, run + 2)


@pytest.mark.skipif(
    platform.machine() != "x86_64" or sys.platform != "linux",
    reason="it makes a system call by its number on x86-64 Linux",
)
def test_workers_ask_for_short_slices() -> None:
    set_num_threads(2)
    Program([launch("count", 1, 1, 64, 1)], slots=2).run(addresses(zeros(64)))
    team = state.current
    assert team is not None
    worker = team.threads[0].native_id
    assert worker is not None
    syscall = ctypes.CDLL(None).syscall

    def slice_of(thread: int) -> tuple[int, int]:
        """Its nice value, and its slice in nanoseconds: 0 where the system has no such thing."""
        attributes = ctypes.create_string_buffer(48)
        assert syscall(315, thread, attributes, 48, 0) == 0  # sched_getattr
        nice, _, runtime = struct.unpack_from("iIQ", attributes, 16)
        return nice, runtime

    nice, usual = slice_of(0)
    deadline = time.monotonic() + 5
    while usual and slice_of(worker) != (nice, 100_000):
        assert time.monotonic() < deadline and usual > 100_000
        time.sleep(0.001)


def test_runs_right_after_each_other_wake_the_workers() -> None:
    set_num_threads(2)
    x = zeros(64)
    lazy = Program([launch("count", 1, 1, 64, 1)], slots=2, lazy=True)
    lazy.run(addresses(x))
    team = state.current
    assert team is not None
    wait_for_sleep(team)
    ctypes.c_int64.from_address(team.address + offsets.TEAM_SPIN_NS).value = 10**12  # no pause is long
    ctypes.c_int64.from_address(team.address + offsets.TEAM_WAKE_NS).value = 1
    ctypes.c_int64.from_address(team.address + offsets.TEAM_BACKOFF).value = 0
    credit = ctypes.c_int64.from_address(team.address + offsets.TEAM_CREDIT)
    credit.value = 1  # with what the run above took alone, more than twice the wake-up
    lazy.run(addresses(x))
    assert credit.value == 0  # spent
    assert ctypes.c_int64.from_address(team.address + offsets.TEAM_BACKOFF).value == 1
    np.testing.assert_array_equal(x, 2)


def test_the_portable_way_to_sleep_works_too() -> None:
    with state.lock:
        state.replace(Team(3, portable=True))
    x = zeros(64)
    program = Program([launch("count", 1, 1, 64, 1, i - 1) for i in range(3)], slots=2)
    for _ in range(20):
        for _ in range(20):
            program.run(addresses(x))
        time.sleep(0.001)
    np.testing.assert_array_equal(x, 3 * 400)
    with state.lock:
        team = state.current
        assert team is not None
        state.replace(None)
    assert not any(thread.is_alive() for thread in team.threads)


def test_memory_of_a_part_stays_until_no_worker_looks_at_it() -> None:
    set_num_threads(2)
    x = zeros()
    program = Program([launch("count", 1, 1)], slots=2)
    program.run(addresses(x))
    with state.lock:
        team = state.current
        assert team is not None
        part = program._stages[0].address  # type: ignore[union-attr]
        hazard = ctypes.c_uint64.from_address(team.address + team_module.offsets.TEAM_BYTES)
        hazard.value = part  # as if thread 0 were looking at it
        del program
        gc.collect()
        state.reap()
        assert part in [address for address, _ in state.graveyard]
        hazard.value = 0
        deadline = time.monotonic() + 5
        while state.graveyard and time.monotonic() < deadline:
            state.reap()
        assert not state.graveyard


def test_profiling_gives_nanoseconds_for_every_step(threads: int) -> None:
    x, y = np.arange(N), zeros()
    steps: list[Launch | HostStep] = [
        Launch(kernel("increment"), [Segment([(1, 0), (2, 0)], N, 64)], -1, "first", flops=N, nbytes=16 * N),
        HostStep(lambda array: time.sleep(0.002), [ArrayRef(2, 0, (N,), y.dtype)], "pause"),
        launch("increment", 2, 2, wait_for=1),
    ]
    program = Program(steps, slots=3, name="step")
    with profile() as runs:
        program.run(addresses(x, y))
        program.run(addresses(x, y))
    program.run(addresses(x, y))
    assert len(runs) == 2
    run = runs[1]
    assert [step.name for step in run.steps] == ["first", "pause", "increment"]
    assert run.steps[1].ns >= 2_000_000
    assert sum(run.steps[0].chunks) == N // 64
    assert 0 < run.steps[0].busy_ns <= threads * run.steps[0].ns
    assert run.start_ns <= run.steps[0].start_ns < run.steps[0].end_ns <= run.steps[1].start_ns
    assert run.steps[2].end_ns <= run.end_ns
    assert "GFLOP/s" in run.table(debug=2)


def test_debug_level_one_prints_launches_and_times(capsys: pytest.CaptureFixture[str]) -> None:
    x = zeros()
    program = Program([launch("count", 1, 1)], slots=2, name="small")
    with settings.override(debug=1):
        program.run(addresses(x))
    printed = capsys.readouterr().err
    assert printed.startswith("small: ")
    assert "count" in printed


_FORK_SCRIPT = """
import os, sys, threading, warnings
import numpy as np
sys.path.insert(0, {here!r})
from runtime_kernels import kernel
from tilewright.runtime.program import Program
from tilewright.runtime.steps import Launch, Segment
from tilewright.runtime.team import set_num_threads, state
warnings.simplefilter("ignore", DeprecationWarning)
set_num_threads(3)
x = np.zeros(64, np.int64)
segments = [Segment([(1, 0), (1, 0)], 64, 1)]
program = Program([Launch(kernel("count"), segments, i - 1) for i in range(3)], slots=2)
stop = threading.Event()
def keep_running():
    y = np.zeros(64, np.int64)
    other = Program([Launch(kernel("count"), [Segment([(1, 0), (1, 0)], 64, 1)])], slots=2)
    while not stop.is_set():
        other.run([y.ctypes.data])
        program.run([y.ctypes.data])
runner = threading.Thread(target=keep_running)
runner.start()
for attempt in range(8):
    child = os.fork()
    if child == 0:
        assert state.current is None
        for _ in range(50):
            program.run([x.ctypes.data])
        fresh = Program([Launch(kernel("count"), [Segment([(1, 0), (1, 0)], 64, 1)])], slots=2)
        fresh.run([x.ctypes.data])
        os._exit(0 if (x == 151).all() and len(state.current.threads) == 2 else 1)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
runner.join()
program.run([x.ctypes.data])
assert (x == 3).all()
print("done")
"""


def _python(script: str, timeout: float = 30, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment},
        check=False,
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_starts_its_own_team_while_the_parent_keeps_running() -> None:
    done = _python(_FORK_SCRIPT.format(here=str(Path(__file__).parent)))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "done"


_EXIT_SCRIPT = """
import sys
import numpy as np
sys.path.insert(0, {here!r})
from runtime_kernels import kernel
from tilewright.runtime.program import Program
from tilewright.runtime.steps import Launch, Segment
from tilewright.runtime.team import set_num_threads
set_num_threads(4)
x = np.zeros(64, np.int64)
program = Program([Launch(kernel("count"), [Segment([(1, 0), (1, 0)], 64, 1)])], slots=2)
def run():
    program.run([x.ctypes.data])
    print(x[0], flush=True)
run()
{then}
"""


@pytest.mark.parametrize(
    ("then", "code", "printed"),
    [
        ("", 0, "1"),
        ("import atexit; atexit.register(run)", 0, "1 2"),
        ("import time; time.sleep(0.05); raise SystemExit(3)", 3, "1"),
        ("import threading; threading.Thread(target=run).start()", 0, "1 2"),
    ],
)
def test_the_interpreter_exits_promptly(then: str, code: int, printed: str) -> None:
    started = time.monotonic()
    done = _python(_EXIT_SCRIPT.format(here=str(Path(__file__).parent), then=then))
    assert done.returncode == code, done.stderr
    assert done.stdout.split() == printed.split()
    assert done.stderr == ""
    assert time.monotonic() - started < 10
