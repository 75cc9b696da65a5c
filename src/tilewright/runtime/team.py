"""The thread team: workers parked in native code, their control block, and the lock under which runs happen.

`state.team` is the process's team. It starts its workers when a run first needs them, is replaced by
`set_num_threads`, is dropped in a forked child (which starts its own when needed), and is stopped at
interpreter exit.
What it does not do: it knows nothing of launches; `driver` holds the native code and the memory layout.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from tilewright.core import assumptions
from tilewright.core.integers import integer
from tilewright.core.settings import settings
from tilewright.runtime import driver, entering, offsets, pooling
from tilewright.runtime.buffers import pool
from tilewright.runtime.jit import default_library
from tilewright.runtime.memory import Memory
from tilewright.runtime.placement import Masks
from tilewright.runtime.target import available_cpus

__all__ = ["Team", "get_num_threads", "set_num_threads", "state"]

_Worker = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
_Run = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)
_Retire = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
_Park = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int32)
_Clock = ctypes.CFUNCTYPE(ctypes.c_int64)
_Yield = ctypes.CFUNCTYPE(ctypes.c_int32)
_Pauses = ctypes.CFUNCTYPE(None, ctypes.c_int64)


class Driver:
    """The compiled driver's functions, callable from Python (each call releases the GIL)."""

    def __init__(self) -> None:
        library = default_library()
        name = "tilewright_driver"
        source = driver.driver_source(name, library.target.triple)
        table = driver.function_table(library.compile([(name, source, "")])[name])
        self.addresses = table
        self.has_futex = driver.has_futex(library.target.triple)
        self.run = _Run(table["run"])
        self.run_serial = _Run(table["run_serial"])
        self.sequence = _Run(table["sequence"])
        self.enter = entering.function()
        pooling.install()
        self.worker = _Worker(table["worker"])
        self.retire = _Retire(table["retire"])
        self.pause_ns = self._measure_pause(_Pauses(table["pauses"]))

    @staticmethod
    def _measure_pause(pauses: Callable[[int], None], count: int = 2000) -> float:
        """Nanoseconds of one pause instruction, the unit in which idle workers count time."""
        best = float("inf")
        for _ in range(3):
            started = time.perf_counter_ns()
            pauses(count)
            best = min(best, (time.perf_counter_ns() - started) / count)
        return max(best, 0.1)


@lru_cache(maxsize=1)
def load_driver() -> Driver:
    """The process's driver, compiled (or loaded from the cache) at first use."""
    return Driver()


class _Parking:
    """Sleep and wake through a condition variable, where the driver has no futex. Each call takes the GIL."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.sleep_callback = _Park(self._sleep)
        self.wake_callback = _Park(self._wake)

    def _sleep(self, team: int, seen: int) -> None:
        signal = ctypes.c_int32.from_address(team + offsets.TEAM_SIGNAL)
        with self._changed:
            while signal.value == seen:
                self._changed.wait()

    def _wake(self, team: int, count: int) -> None:
        with self._changed:
            self._changed.notify_all()


def _yield_cpu() -> int:
    time.sleep(0)
    return 0


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


class Team:
    """`size` threads: the caller of a run (thread 0) and `size - 1` workers, with their scratch memory.

    All methods are called with `state.lock` held. `portable=True` sleeps through Python instead of a futex.
    """

    def __init__(self, size: int, portable: bool = False) -> None:
        if not 1 <= size < offsets.THREAD_LIMIT:
            raise ValueError(f"a team has 1 to {offsets.THREAD_LIMIT - 1} threads, not {size}")
        self.size = size
        self.driver = load_driver()
        self.threads: list[threading.Thread] = []
        hazards_at = offsets.TEAM_BYTES
        scratch_at = hazards_at + size * offsets.LINE
        tids_at = scratch_at + 8 * size
        self._memory = Memory(tids_at + 4 * size, zero=True)
        self._scratch: list[Memory] = []
        self.scratch_bytes = 0
        self.address = self._memory.address
        self._scratch_table = self._memory.words(scratch_at, size)
        self._store(offsets.TEAM_HAZARDS, self.address + hazards_at)
        self._store(offsets.TEAM_SCRATCH, self.address + scratch_at)
        self._store(offsets.TEAM_TIDS, self.address + tids_at)
        self._store(offsets.TEAM_SIZE, size)
        self._store(offsets.TEAM_CPU, 2**64 - 1)
        if self.driver.has_futex and 1 < size <= available_cpus():
            self._masks = Masks()
            self._store(offsets.TEAM_MASKS, self._masks.memory.address)
            self._store(offsets.TEAM_MASK_COUNT, self._masks.count)
            self._store(offsets.TEAM_MASK_BYTES, self._masks.nbytes)
        self._install_callbacks(portable or not self.driver.has_futex)
        # More threads than CPUs: a worker that spins keeps another from working.
        patience_us = settings.spin_us if size <= available_cpus() else min(settings.spin_us, 5.0)
        spins = int(patience_us * 1000 / self.driver.pause_ns)
        self._store(offsets.TEAM_SPIN_NS, int(patience_us * 1000))
        self._store(offsets.TEAM_WAKE_NS, 5000)  # until it is known
        self._int32(offsets.TEAM_SPINS).value = max(1, min(spins, 2**31 - 1))

    def _store(self, offset: int, value: int) -> None:
        self._memory.words(offset, 1)[0] = value

    def _int32(self, offset: int) -> ctypes.c_int32:
        return ctypes.c_int32.from_address(self.address + offset)

    def _install_callbacks(self, portable: bool) -> None:
        table = self.driver.addresses
        if portable:
            self._parking = _Parking()
            self._store(offsets.TEAM_SLEEP, _address(self._parking.sleep_callback))
            self._store(offsets.TEAM_WAKE, _address(self._parking.wake_callback))
        else:
            self._store(offsets.TEAM_SLEEP, table["futex_sleep"])
            self._store(offsets.TEAM_WAKE, table["futex_wake"])
        if self.driver.has_futex:
            self._store(offsets.TEAM_CLOCK, table["clock"])
        else:
            self._clock = _Clock(time.perf_counter_ns)
            self._store(offsets.TEAM_CLOCK, _address(self._clock))
        try:
            self._store(offsets.TEAM_YIELD, _address(ctypes.CDLL(None).sched_yield))
        except (AttributeError, OSError, TypeError):  # not a POSIX system
            self._yield = _Yield(_yield_cpu)
            self._store(offsets.TEAM_YIELD, _address(self._yield))
        self._wake = _Park(self._memory.words(offsets.TEAM_WAKE, 1)[0])

    def start(self) -> None:
        """Start the workers that are not running yet."""
        while len(self.threads) < self.size - 1:
            number = len(self.threads) + 1
            thread = threading.Thread(
                target=self.driver.worker,
                args=(self.address, number),
                name=f"tilewright-worker-{number}",
                daemon=True,
            )
            # Listed first: were start() interrupted by a signal, a second worker of this number would share its
            # scratch and its hazard line.
            self.threads.append(thread)
            try:
                thread.start()
            except RuntimeError:  # the system has no more threads: the others do this one's share
                self.threads.pop()
                break

    def stop(self, timeout: float = 5.0) -> bool:
        """Ask every worker to return and wait up to `timeout` seconds for each; whether all did."""
        self._int32(offsets.TEAM_STOP).value = 1
        signal = self._int32(offsets.TEAM_SIGNAL)
        signal.value = (signal.value + 1) & 0x7FFFFFFF
        self._wake(self.address, self.size)
        for thread in self.threads:
            if thread.ident is not None:
                thread.join(timeout)
        return not any(thread.is_alive() for thread in self.threads)

    @property
    def sleepers(self) -> int:
        """Workers that sleep right now (for tests and diagnosis)."""
        return self._int32(offsets.TEAM_SLEEPERS).value

    def reserve_scratch(self, nbytes: int) -> None:
        """Give every thread at least `nbytes` of scratch memory; no run is active, so nobody uses the old."""
        if nbytes <= self.scratch_bytes:
            return
        size = -(-nbytes // 4096) * 4096
        scratch = [Memory(size) for _ in range(self.size)]
        for thread, memory in enumerate(scratch):
            self._scratch_table[thread] = memory.address
        self._scratch = scratch  # the old is freed last: a fast call on another thread may come in between
        self.scratch_bytes = size

    def is_free(self, part: int) -> bool:
        """Unpublish the native part at address `part`; True when no worker is looking at it."""
        return bool(self.driver.retire(self.address, part, self.size))


_LARGE = 16 << 20  # an arena of so many bytes does not share the machine with memory that nobody uses


class State:
    """What the process's runs share: the lock, the team, and memory that late workers may still look at."""

    def __init__(self) -> None:
        # Reentrant: a destructor that the garbage collector calls inside the lock may run a program.
        self.lock = threading.RLock()
        self.current: Team | None = None
        self.arena: Memory | None = (
            None  # of all programs that run in one native call: only one runs at a time
        )
        self.generation = 0  # changes when programs have to look at the team and the arena again
        self.wanted: int | None = None  # set_num_threads; None: the environment decides
        self.graveyard: deque[tuple[int, Memory]] = deque()
        self.closing = False  # the interpreter is going: no new threads
        self._unstoppable: list[Team] = []  # teams whose workers did not return: their memory must stay

    def team(self) -> Team:
        """The current team, made now if there is none. Call with the lock held."""
        if self.current is None:
            self.current = Team(1 if self.closing else self.wanted or default_threads())
            self.renew()
        return self.current

    def replace(self, team: Team | None) -> None:
        """Stop the current team and make `team` the current one. Call with the lock held."""
        old, self.current = self.current, team
        self.renew()
        if old is not None and not old.stop():
            self._unstoppable.append(old)

    def renew(self) -> None:
        """Let programs, and fast calls of them, look at the team and the arena again."""
        self.generation += 1
        assumptions.changed()

    def shared_arena(self, nbytes: int) -> Memory:
        """The arena that single-call programs share, grown to at least `nbytes`. Call with the lock held."""
        if self.arena is None or self.arena.nbytes < nbytes:
            self.renew()  # first: should memory run out, nobody may use the old arena either
            self.arena = None
            if nbytes > _LARGE:
                pool.clear()  # of what the work before it left there
            self.arena = Memory(nbytes)
        return self.arena

    def bury(self, part: int, memory: Memory) -> None:
        """Free a native part's memory once no worker looks at it. Needs no lock: destructors call it."""
        self.graveyard.append((part, memory))

    def reap(self) -> None:
        """Free what `bury` collected and nobody uses. Call with the lock held."""
        for _ in range(len(self.graveyard)):
            part, memory = self.graveyard.popleft()
            if self._unstoppable or not (self.current is None or self.current.is_free(part)):
                self.graveyard.append((part, memory))


state = State()


def default_threads() -> int:
    """Threads of a team nobody sized: every CPU this process may use, at most `TW_THREADS`."""
    cpus = available_cpus()
    return max(1, min(cpus, settings.threads or cpus, offsets.THREAD_LIMIT - 1))


def get_num_threads() -> int:
    """How many threads run a program's launches (the calling thread included)."""
    with state.lock:
        return state.current.size if state.current is not None else state.wanted or default_threads()


def set_num_threads(count: int | None) -> None:
    """Run programs on `count` threads from now on, also beyond the CPUs there are; None returns to the
    default.

    Waits for a run in progress. Raises ValueError for a count below 1 or above 1023.
    """
    try:
        number = None if count is None else integer(count)
    except TypeError:
        number = 0
    if number is not None and not 1 <= number < offsets.THREAD_LIMIT:
        raise ValueError(
            f"the number of threads is an integer from 1 to {offsets.THREAD_LIMIT - 1}, not {count!r}"
        )
    with state.lock:
        state.wanted = number
        size = number or default_threads()
        if state.current is not None and state.current.size != size:
            state.replace(None)


def _forget_in_child() -> None:
    """After a fork only the forking thread exists: start over, and let go of locks that others held."""
    state.lock = threading.RLock()
    state.current = None
    assumptions.words[assumptions.RUNNING] = 0
    state.renew()
    state.graveyard.clear()


def _stop_at_exit() -> None:
    """Let the workers return before the interpreter goes, so that nothing runs in memory being torn down."""
    if state.lock.acquire(timeout=5.0):
        state.closing = True
        state.replace(None)
        state.lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
atexit.register(_stop_at_exit)
