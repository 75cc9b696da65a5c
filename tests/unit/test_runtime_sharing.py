"""Whether a run is shared with the workers: what lazy programs decide, and from what."""

import ctypes
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from runtime_programs import Array, addresses, launch, wait_for_sleep, zeros

from tilewright.runtime import offsets
from tilewright.runtime.program import Program
from tilewright.runtime.team import Team, set_num_threads, state


@pytest.fixture(autouse=True)
def restore_threads() -> Iterator[None]:
    yield
    set_num_threads(None)


def test_a_lazy_program_lets_workers_sleep() -> None:
    set_num_threads(3)
    x = zeros(64)
    lazy = Program([launch("count", 1, 1, 64, 1)], slots=2, lazy=True)
    lazy.run(addresses(x))
    team = state.current
    assert team is not None
    team.start()
    wait_for_sleep(team)
    signal = ctypes.c_int32.from_address(team.address)
    before = signal.value
    for run in range(5):
        lazy.run(addresses(x))
        assert team.sleepers == 2 and signal.value == before
        np.testing.assert_array_equal(x, run + 2)
        time.sleep(0.001)


@dataclass
class Lazy:
    """A lazy program on two threads, whose worker stays awake, and what the driver knows of it."""

    program: Program
    x: Array
    team: Team
    runs: int = 1

    def word(self, at: int, of_team: bool = False) -> ctypes.c_int64:
        (part,) = self.program._parts()
        return ctypes.c_int64.from_address((self.team.address if of_team else part.address) + at)

    def is_shared(self) -> bool:
        """Run once more; whether the run was published."""
        signal = ctypes.c_int32.from_address(self.team.address)
        before = signal.value
        self.program.run(addresses(self.x))
        self.runs += 1
        np.testing.assert_array_equal(self.x, self.runs)
        return signal.value != before


@pytest.fixture
def lazy() -> Iterator[Lazy]:
    set_num_threads(2)
    x = zeros(64)
    program = Program([launch("count", 1, 1, 64, 1)], slots=2, lazy=True)
    program.run(addresses(x))
    team = state.current
    assert team is not None
    ctypes.c_int32.from_address(team.address + offsets.TEAM_SPINS).value = 2**31 - 1  # workers stay awake
    signal = ctypes.c_int32.from_address(team.address)
    team._wake(team.address, 2)
    deadline = time.monotonic() + 5
    while team.sleepers:
        assert time.monotonic() < deadline
        signal.value += 1
        team._wake(team.address, 2)
        time.sleep(0.001)
    yield Lazy(program, x, team)
    with state.lock:
        state.replace(None)


def test_a_lazy_program_takes_the_way_that_took_less(lazy: Lazy) -> None:
    alone, shared, turn = map(lazy.word, (offsets.ALONE_NS, offsets.SHARED_NS, offsets.TURN))
    hour = 3600 * 10**9
    # The other way is tried twice from every power of two on.
    tries = {8, 9, 16, 17, 128, 129, 256, 257}
    for known, usual in (((hour, 1), True), ((1, hour), False)):
        for now in (1, 7, 8, 9, 10, 15, 16, 17, 18, 127, 128, 129, 130, 255, 256, 257, 258, 511):
            alone.value, shared.value = known
            turn.value = now - 1
            assert lazy.is_shared() == (usual != (now in tries)), now
            assert turn.value in (0, now)  # 0 when the run has changed the choice
    turn.value = 511
    lazy.is_shared()
    assert turn.value in (0, 256)
    alone.value = 0  # not known
    assert not lazy.is_shared()


def test_a_lazy_program_knows_the_least_that_a_way_takes(lazy: Lazy) -> None:
    alone, shared, turn = map(lazy.word, (offsets.ALONE_NS, offsets.SHARED_NS, offsets.TURN))
    hour = 3600 * 10**9
    for way, other, is_shared in ((shared, alone, True), (alone, shared, False)):
        other.value, way.value, turn.value = 4 * hour, 2 * hour, 0
        assert lazy.is_shared() == is_shared
        assert 0 < way.value < hour  # the least
        # What takes longer raises it by at most a sixteenth, so that one lost CPU changes no choice.
        way.value, turn.value = 2, 0
        assert lazy.is_shared() == is_shared
        assert way.value == 2  # 2 + 2 / 16
        way.value = 64
        assert lazy.is_shared() == is_shared
        assert 64 <= way.value <= 68


def test_a_choice_that_has_changed_is_soon_tried_again(lazy: Lazy) -> None:
    alone, shared, turn = map(lazy.word, (offsets.ALONE_NS, offsets.SHARED_NS, offsets.TURN))
    for slow, fast, now in ((shared, alone, 255), (alone, shared, 255)):
        slow.value, fast.value, turn.value = 3600 * 10**9, 10**9, now
        assert lazy.is_shared() == (slow is shared)  # a try, which takes less than a second
        assert turn.value == 0


def test_lazy_programs_run_alone_for_some_time_after_a_worker_lost_its_cpu(lazy: Lazy) -> None:
    alone, shared, turn = map(lazy.word, (offsets.ALONE_NS, offsets.SHARED_NS, offsets.TURN))
    resume = lazy.word(offsets.TEAM_RESUME, of_team=True)
    counts, rounds = zeros(2), np.full(2, 4_000_000, np.int64)  # milliseconds: as if one had been waited for
    waits = Program([launch("work", 1, 2, 2, 1)], slots=3, lazy=True)
    waits.run(addresses(counts, rounds))
    assert resume.value == 0  # alone, whatever it takes
    (part,) = waits._parts()
    ctypes.c_int64.from_address(part.address + offsets.ALONE_NS).value = 1000
    ctypes.c_int64.from_address(part.address + offsets.SHARED_NS).value = 10
    began = time.monotonic_ns()
    waits.run(addresses(counts, rounds))
    ended = time.monotonic_ns()
    assert ended < resume.value < ended + 5 * (ended - began)
    alone.value, shared.value, turn.value = 3600 * 10**9, 1, 0
    resume.value = ended + 3600 * 10**9
    assert not lazy.is_shared()
    alone.value, resume.value = 3600 * 10**9, ended
    assert lazy.is_shared()
