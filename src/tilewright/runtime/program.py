"""Programs: tables of kernel launches over one arena, run on all threads by one native call.

A program is built from a plain description (`steps.py`) that names kernels by address and memory by slot and byte
offset. Runs of launches between other steps become *native parts*; a program without host steps is exactly one native
call, its loops and choices included. What it does not do: it plans no memory and knows no shapes, dtypes or IR.

    program = Program(
        [
            Launch(matmul, [Segment(args=[(1, 0), (2, 0), (0, 0)], grid=64, chunk=4)]),
            Launch(relu, [Segment(args=[(0, 0), (3, 0)], grid=4096, chunk=1024)], wait_for=0),
        ],
        slots=4, arena_bytes=1 << 20,
    )
    program.run([x_address, w_address, y_address])          # slots 1, 2, 3; slot 0 is the arena
"""

from __future__ import annotations

import ctypes
import math
import os
import struct
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.core import assumptions
from tilewright.core.settings import settings
from tilewright.runtime import interruption, offsets, profiler
from tilewright.runtime.entering import ENTRY
from tilewright.runtime.interruption import INTERRUPTED
from tilewright.runtime.memory import Memory
from tilewright.runtime.statistics import stats
from tilewright.runtime.steps import (
    ArrayRef,
    Choice,
    HostStep,
    Launch,
    Loop,
    check_steps,
    host_name,
    launch_name,
)
from tilewright.runtime.team import Team, default_threads, state

__all__ = ["KernelCheckError", "Program"]

_WORD = 0xFFFFFFFFFFFFFFFF  # negative numbers in a table of unsigned words

# Makes the exception for a failed check from the four status words (the code first).
Check = Callable[[tuple[int, int, int, int]], BaseException]
Pointers = Sequence[int] | npt.NDArray[np.uint64]
Grids = Sequence[Sequence[int]]  # for each step, those of its segments


class KernelCheckError(RuntimeError):
    """A kernel reported a check code that the program's `checks` table does not explain."""


@dataclass(slots=True)
class _Part:
    """The native tables of consecutive launches; `memory` begins with the header that `offsets` lays out."""

    launches: list[Launch]
    first_step: int
    memory: Memory
    address: int
    chunks: list[int]
    stride: int
    tables: list[Any] = field(default_factory=list)
    call: Callable[[int], int] | None = None
    entry: str = "run_serial"  # the driver's function behind `call`
    records: int = 0  # where the launch records begin in `memory`
    pieces: list[int] = field(default_factory=list)  # where each launch's segments begin

    def width(self) -> int:
        """How many chunks can be in flight at once: those of launches that do not wait for each other."""
        widest = 0
        for last, launch in enumerate(self.launches):
            first = max(launch.wait_for - self.first_step, -1) + 1
            widest = max(widest, sum(self.chunks[first : last + 1]))
        return widest

    def store(self, offset: int, value: int) -> None:
        self.memory.words(offset, 1)[0] = value & _WORD


@dataclass(slots=True)
class _Nest:
    """The native tables of a loop or choice. `table` holds the pointers inside, `bindings` the slots and swaps; `bodies`
    are the stages of the loop's body, or of each branch."""

    step: Loop | Choice
    bodies: list[list[_Part | _Nest]]
    outer: int
    table: Memory
    bindings: Memory
    sequences: list[Memory] = field(default_factory=list)  # of its bodies
    addresses: Memory | None = None  # of the sequences
    alone: Memory | None = None  # a sequence of this only
    call: Callable[[int], int] | None = None

    @property
    def address(self) -> int:
        assert self.alone is not None
        return self.alone.address

    def parts(self) -> list[_Part]:
        stages = [s for body in self.bodies for s in body]
        return [p for s in stages for p in ([s] if isinstance(s, _Part) else s.parts())]

    def forget(self) -> None:
        """Drop the sequences, which name functions of the team they were made for."""
        self.sequences = []
        for body in self.bodies:
            for stage in body:
                if isinstance(stage, _Nest):
                    stage.forget()

    def launches(self) -> int:
        """How many launches run: at most, for a choice; in one iteration, where nobody knows how many there are."""
        inside = max(
            sum(len(s.launches) if isinstance(s, _Part) else s.launches() for s in body)
            for body in self.bodies
        )
        return inside * (self.step.count if isinstance(self.step, Loop) and self.step.condition < 0 else 1)


def _call(codes: list[int], function: Callable[..., int], *arguments: Any) -> None:
    """Append what a native function returns, in one step of Python: a signal's handler may raise before it, or behind it."""
    codes.extend(map(function, *zip(arguments)))


def _call_freely(codes: list[int], function: Callable[..., int], *arguments: Any) -> None:
    """`_call` of what runs without the GIL: fast calls of other threads stay out meanwhile. A signal's handler may raise before
    the end, or behind it, and not on the way."""
    assumptions.words[assumptions.RUNNING] += 1
    try:
        _call(codes, function, *arguments)
    finally:
        assumptions.words[assumptions.RUNNING] -= 1


_Native = _Part | _Nest

# What a profiled run leaves behind: a host step's timing, or a native part with its filled profile table.
_Record = profiler.LaunchTiming | tuple[_Part, Memory]


class Program:
    """A schedule bound to its arena; `run` executes it on given pointers.

    steps          launches, loops, choices and host steps, in order
    slots          size of the pointer table, arena included: `run` takes `slots - 1` pointers
    arena_bytes    size of slot 0, aligned to 64 bytes. Its contents last for one run only: programs without
                   host steps share one arena, as they run one at a time
    scratch_bytes  scratch memory per thread that the kernels may use, 64-byte aligned
    checks         exception factory by check code (status word 0); words 1 to 3 are details
    serial         run everything on the calling thread: for programs too small to share
    lazy           so short that sleeping threads are only woken when its runs have shown that this pays
    kernels        addresses of kernels that launches name

    Raises ValueError for an inconsistent description. Several threads may call `run`; runs take place one
    at a time.
    """

    def __init__(
        self,
        steps: Sequence[Launch | Loop | Choice | HostStep],
        *,
        slots: int,
        arena_bytes: int = 0,
        scratch_bytes: int = 0,
        checks: Mapping[int, Check] | None = None,
        serial: bool = False,
        lazy: bool = False,
        kernels: Mapping[str, int] | None = None,
        name: str = "program",
    ) -> None:
        self.name = name
        self.slots = slots
        self.arena_bytes = arena_bytes
        self.scratch_bytes = scratch_bytes
        self.checks: Mapping[int, Check] = {} if checks is None else checks
        self.serial = serial
        self.lazy = lazy
        self.kernels = dict(kernels or {})
        self.steps = tuple(steps)
        check_steps(self.steps, slots, self.kernels)
        self._arena: Memory | None = None  # a private one, for programs with host steps
        self._table = Memory(8 * (slots + 1), zero=True)
        self._bound = self._table.words(0, slots + 1)
        self._pack = struct.Struct(f"{slots - 1}Q").pack_into
        self._team: Team | None = None
        self._generation = -1  # of `state`, when the program was made ready; -1 never matches
        self._stages: list[_Native | HostStep] = []
        self._status = Memory(offsets.LINE, zero=True)  # of every part: a run stops at the first that reports
        self._whole: Memory | None = (
            None  # the sequence of all stages, when there are several and all are native
        )
        self._only: Callable[[int], int] | None = None  # the native call of a program without host steps
        self.entry, self.entered = 0, 0  # the same as addresses: the driver's function and what it runs
        self.launch_count = 0
        self._enter: Callable[[int, Pointers], int] | None = None  # binds and runs what `_entry_record` says
        self._entry_record = Memory(8 * len(ENTRY), zero=True)
        self._grids: Grids | None = None  # those in the tables, when a run has given some
        self._turn = threading.RLock()  # whole runs of a program with host steps
        self._running = False
        _live_programs.add(self)

    def run(self, pointers: Pointers, grids: Grids | None = None, codes: list[int] | None = None) -> None:
        """Execute every step with `pointers` in slots 1, 2, …; returns when all are complete.

        `pointers` holds `slots - 1` addresses: a sequence of ints or a uint64 array. The memory behind them
        must stay alive during the call. `grids` gives the segments of every step other grids than the steps
        name; a program that takes them consists of launches only. Raises what `checks` makes of a non-zero
        status, ValueError for a wrong number of pointers, KeyboardInterrupt where a loop that `stops` was stopped.

        A signal's handler may raise right behind the native call. `codes` then tells whether the run had
        ended: its last native call appends what it returned, 0 when all is complete.
        """
        if codes is None:
            codes = []
        if profiler.active() or settings.debug:
            with state.lock if grids is not None else nullcontext():
                if grids is not None and grids is not self._grids:
                    self._resize(grids)
                self._run_profiled(pointers, codes)
            return
        lock = state.lock
        with lock:
            if grids is not None and grids is not self._grids:
                self._resize(grids)
            if self._generation != state.generation:
                self._attach()
            if self._only is not None:
                if self._enter is not None:
                    _call(codes, self._enter, self._entry_record.address, pointers)
                if not codes or codes[0] == -1:
                    codes.clear()
                    self._enter_slowly(pointers, codes)
                if codes[0]:
                    self._raise_check(codes[0])
                return
        self._run_stages(pointers, codes)

    def _enter_slowly(self, pointers: Pointers, codes: list[int]) -> None:
        """Bind and call through Python: without builtins of JIT code, or for pointers that are no list of plain integers."""
        assert self._only is not None
        self._bind(pointers)
        _call_freely(codes, self._only, self.entered)
        stats.native_calls += 1
        stats.launches += self.launch_count

    def is_ready(self) -> bool:
        """Whether a native call of `entry` with `entered` is all of a run, for the threads there are now."""
        return self._only is not None and self._generation == state.generation

    @property
    def slots_address(self) -> int:
        """Where the pointer table lies that a native call reads."""
        return self._table.address

    def _bind(self, pointers: Pointers) -> None:
        try:
            self._pack(self._bound, 8, *pointers)
        except struct.error:
            self._explain_binding(pointers)

    def _explain_binding(self, pointers: Pointers) -> None:
        given = len(pointers)
        if given != self.slots - 1:
            raise ValueError(f"{self.name} takes {self.slots - 1} pointers, not {given}") from None
        raise ValueError(
            f"{self.name}: pointers are unsigned 64-bit addresses, not {list(pointers)!r}"
        ) from None

    def _run_stages(self, pointers: Pointers, codes: list[int], records: list[_Record] | None = None) -> None:
        """A run stage by stage: host steps in between, the team's lock free while they run."""
        with self._turn:
            if self._running:
                raise RuntimeError(f"{self.name} was run again from inside one of its own host steps")
            self._running = True
            try:
                bind = True
                for index in range(len(self._stages)):
                    stage = self._stages[index]
                    if isinstance(stage, HostStep):
                        if bind:
                            self._bind(pointers)
                            bind = False
                        self._run_host(stage, records)
                    else:
                        with state.lock:
                            if self._generation != state.generation:
                                self._attach()
                                bound = self._stages[index]
                                assert not isinstance(bound, HostStep)
                                stage = bound
                            if bind:
                                self._bind(pointers)
                                bind = False
                            last = index + 1 == len(self._stages)
                            self._run_part(stage, codes if last else [], records)
            finally:
                self._running = False

    def _run_part(self, stage: _Native, codes: list[int], records: list[_Record] | None) -> None:
        assert stage.call is not None
        parts = [stage] if isinstance(stage, _Part) else stage.parts()
        tables = []
        for part in parts if records is not None else ():
            table = Memory(8 * offsets.PROFILE_WORDS * part.stride * max(len(part.launches), 1), zero=True)
            part.store(offsets.PROFILE, table.address)
            tables.append((part, table))
        try:
            _call_freely(codes, stage.call, stage.address)
        finally:
            for part, _ in tables:
                part.store(offsets.PROFILE, 0)
        if records is not None:
            records.extend(tables)
        stats.native_calls += 1
        stats.launches += len(stage.launches) if isinstance(stage, _Part) else stage.launches()
        if codes[0]:
            self._raise_check(codes[0])

    def _run_host(self, step: HostStep, records: list[_Record] | None) -> None:
        arrays = [self._array(ref) for ref in step.arrays]
        started = profiler.now()
        step.function(*arrays)
        stats.host_calls += 1
        if records is not None:
            ended = profiler.now()
            records.append(
                profiler.LaunchTiming(host_name(step), started, ended, ended - started, (1,), 0, 0, True)
            )

    def _array(self, ref: ArrayRef) -> npt.NDArray[Any]:
        nbytes = math.prod(ref.shape) * ref.dtype.itemsize
        memory = (ctypes.c_uint8 * nbytes).from_address(self._bound[ref.slot] + ref.byte_offset)
        flat: npt.NDArray[Any] = np.ctypeslib.as_array(memory)
        return flat.view(ref.dtype).reshape(ref.shape)

    def _raise_check(self, code: int) -> None:
        if code == INTERRUPTED:
            self.fail((code, 0, 0, 0))
        status = (ctypes.c_int32 * 4).from_address(self._status.address)
        self.fail((status[0], status[1], status[2], status[3]))

    def fail(self, words: tuple[int, int, int, int]) -> None:
        """Raise what the words of a status mean, of which the first is not 0."""
        if words[0] == INTERRUPTED:
            raise KeyboardInterrupt
        make = self.checks.get(words[0])
        if make is None:
            raise KernelCheckError(
                f"{self.name}: a kernel reported check code {words[0]}, details {words[1:]}"
            )
        raise make(words)

    # Profiling

    def _run_profiled(self, pointers: Pointers, codes: list[int]) -> None:
        records: list[_Record] = []
        with state.lock:
            if self._generation != state.generation:
                self._attach()
        started = profiler.now()
        with (
            nullcontext() if self._arena is not None else state.lock
        ):  # the shared arena is for one run at a time
            self._run_stages(pointers, codes, records)
        ended = profiler.now()
        timings: list[profiler.LaunchTiming] = []
        for record in records:
            if isinstance(record, profiler.LaunchTiming):
                timings.append(record)
            else:
                timings.extend(_read_timings(*record))
        profiler.record(profiler.RunTiming(self.name, started, ended, tuple(timings)), settings.debug)

    # Tables

    def _attach(self) -> None:
        """Make the program ready for the current team: tables, arena, scratch, workers. Holds the lock."""
        state.reap()
        team = state.team()
        shares = not any(isinstance(step, HostStep) for step in self.steps)
        if not shares and self._arena is None:
            self._arena = Memory(self.arena_bytes)
        self._bound[0] = (self._arena or state.shared_arena(self.arena_bytes)).address
        if not self._stages or any(part.stride < team.size for part in self._parts()):
            self._release()
            most = max(team.size, default_threads())
            self._stages = self._build_stages(self.steps, self._table.address, most)
        team.reserve_scratch(max(self.scratch_bytes, 64))
        parallel = False
        for part in self._parts():
            parallel |= self._attach_part(part, team)
        if parallel:
            team.start()
        native = [stage for stage in self._stages if not isinstance(stage, HostStep)]
        for stage in native:
            if isinstance(stage, _Nest):
                stage.forget()
                stage.alone = self._sequence([stage], team)
                stage.call = team.driver.sequence
        self._team = team  # keeps the control block that the headers point to
        self._generation = state.generation
        self.launch_count = sum(
            len(stage.launches) if isinstance(stage, _Part) else stage.launches() for stage in native
        )
        self._only, self.entry, self.entered = None, 0, 0
        if len(native) == len(self._stages) == 1:
            stage = native[0]
            self.entry = team.driver.addresses[stage.entry if isinstance(stage, _Part) else "sequence"]
            self._only, self.entered = stage.call, stage.address
        elif native and len(native) == len(self._stages):
            self._whole = self._sequence(native, team)
            self.entry = team.driver.addresses["sequence"]
            self._only, self.entered = team.driver.sequence, self._whole.address
        self._enter = team.driver.enter
        record = {
            "slots": self._table.address,
            "count": self.slots - 1,
            "entry": self.entry,
            "entered": self.entered,
            "launches": self.launch_count,
            "assumed": assumptions.address(),
            "counters": stats.address(),
        }
        self._entry_record.words(0, len(ENTRY))[:] = [record[name] for name in ENTRY]

    def _resize(self, grids: Grids) -> None:
        """Give the segments other grids. Holds the lock; no run is active, and a worker that comes late from an earlier run must
        not find tables in change: where one still looks at them, new ones are made."""
        if not all(isinstance(step, Launch) for step in self.steps):
            raise ValueError(f"{self.name}: only a program of launches alone takes grids")
        if not self.steps:  # every result is an operand
            self._grids = grids
            return
        if self._generation == state.generation and self._team is not None:
            (part,) = self._parts()
            if part.entry == "run_serial" or self._team.is_free(part.address):
                _write_grids(part, grids)
                self._attach_part(part, self._team)
                self._only, self.entry = part.call, self._team.driver.addresses[part.entry]
                self._entry_record.words(8 * ENTRY.index("entry"), 1)[0] = self.entry
                self._grids = grids
                return
        steps = []
        for step, sizes in zip(self.steps, grids, strict=True):
            assert isinstance(step, Launch)
            segments = [replace(s, grid=n) for s, n in zip(step.segments, sizes, strict=True)]
            steps.append(replace(step, segments=segments))
        self.steps = tuple(steps)
        check_steps(self.steps, self.slots, self.kernels)
        self._release()
        self._generation = -1
        self._grids = grids

    def _parts(self) -> list[_Part]:
        """The native parts, those inside loops included."""
        return [
            part
            for stage in self._stages
            if not isinstance(stage, HostStep)
            for part in ([stage] if isinstance(stage, _Part) else stage.parts())
        ]

    def _sequence(self, stages: Sequence[_Native], team: Team) -> Memory:
        """The native table of stages that run one after the other."""
        words: list[int] = [len(stages), 0]
        for stage in stages:
            if isinstance(stage, _Part):
                words += [team.driver.addresses[stage.entry], stage.address] + [0] * (
                    offsets.RECORD_WORDS - 2
                )
                continue
            words += self._record(stage, team)
        memory = Memory(8 * len(words))
        words[1] = memory.address + 16
        memory.words(0, len(words))[:] = [*words]
        return memory

    def _record(self, nest: _Nest, team: Team) -> list[int]:
        """The record of a loop or choice in a sequence."""
        if not nest.sequences:
            nest.sequences = [self._sequence(stages, team) for stages in nest.bodies]
            nest.addresses = Memory(8 * len(nest.sequences))
            nest.addresses.words(0, len(nest.sequences))[:] = [m.address for m in nest.sequences]
        step, bindings = nest.step, nest.bindings.address
        inside = [len(step.slots), bindings, nest.outer, nest.table.address]
        if isinstance(step, Loop):
            rows = [len(step.swaps), bindings + 24 * len(step.slots)]
            asked = interruption.block(team.driver.addresses["clock"]) if step.stops else 0
            return [
                0,
                asked,
                nest.sequences[0].address,
                step.count,
                *inside,
                *rows,
                step.condition & _WORD,
                0,
            ]
        assert nest.addresses is not None
        return [0, 0, nest.addresses.address, 0, *inside, 0, 0, step.selector, len(nest.sequences)]

    def _attach_part(self, part: _Part, team: Team) -> bool:
        """Point a part at the team; returns whether it needs workers."""
        width = part.width()
        shared = not self.serial and team.size > 1 and width > 1
        part.store(offsets.PART_TEAM, team.address)
        part.store(offsets.THREADS, team.size)
        part.store(offsets.WAKE_LIMIT, min(team.size, width) - 1)
        part.store(offsets.LAZY, int(self.lazy))
        part.entry = "run" if shared else "run_serial"
        part.call = team.driver.run if shared else team.driver.run_serial
        return shared

    def _build_stages(
        self, steps: Sequence[Launch | Loop | Choice | HostStep], slots_at: int, stride: int
    ) -> list[_Native | HostStep]:
        """Stages over the pointer table at `slots_at`, for up to `stride` threads."""
        stages: list[_Native | HostStep] = []
        launches: list[Launch] = []
        for index, step in enumerate((*steps, None)):
            if isinstance(step, Launch):
                launches.append(step)
                continue
            if launches:
                stages.append(self._build_part(launches, index - len(launches), slots_at, stride))
                launches = []
            if isinstance(step, (Loop, Choice)):
                stages.append(self._build_nest(step, slots_at, stride))
            elif step is not None:
                stages.append(step)
        return stages

    def _build_nest(self, step: Loop | Choice, slots_at: int, stride: int) -> _Nest:
        table = Memory(8 * len(step.slots), zero=True)
        if isinstance(step, Loop):
            rows, inside = [*step.slots, *step.swaps], [step.steps]
        else:
            rows, inside = [(slot, offset, 0) for slot, offset in step.slots], list(step.branches)
        words = [number & _WORD for row in rows for number in row]
        bindings = Memory(8 * len(words))
        bindings.words(0, len(words))[:] = [*words]
        bodies = []
        for steps in inside:
            stages = self._build_stages(steps, table.address, stride)
            bodies.append([stage for stage in stages if not isinstance(stage, HostStep)])
        return _Nest(step, bodies, slots_at, table, bindings)

    def _build_part(self, launches: list[Launch], first_step: int, slots_at: int, stride: int) -> _Part:
        """Lay out one part's tables in one block: header, launches, states, segments, arguments."""
        segments = [list(launch.segments) for launch in launches]
        chunks = [sum(-(-piece.grid // piece.chunk) for piece in pieces) for pieces in segments]
        args = [arg for pieces in segments for piece in pieces for arg in piece.args]
        layout = _Layout()
        header = layout.add(offsets.PART_BYTES)
        records = layout.add(offsets.LAUNCH_BYTES * len(launches))
        states = layout.add(offsets.LINE * (1 + stride) * len(launches))
        pieces_at = layout.add(offsets.SEGMENT_BYTES * sum(len(pieces) + 1 for pieces in segments))
        which, starts, resolved = (layout.add(8 * len(args)) for _ in range(3))
        memory = Memory(layout.size, zero=True)
        base = memory.address
        part = _Part(launches, first_step, memory, base, chunks, stride, records=records)
        for at, value in (
            (offsets.LAUNCH_COUNT, len(launches)),
            (offsets.LAUNCHES, base + records),
            (offsets.SLOTS, slots_at),
            (offsets.ARG_COUNT, len(args)),
            (offsets.ARG_SLOTS, base + which),
            (offsets.ARG_OFFSETS, base + starts),
            (offsets.ARGS, base + resolved),
            (offsets.STATUS, self._status.address),
            (offsets.STRIDE, stride),
        ):
            part.store(header + at, value)
        memory.words(which, len(args))[:] = [slot for slot, _ in args]
        memory.words(starts, len(args))[:] = [offset for _, offset in args]
        arg_at = base + resolved
        for number, (launch, pieces) in enumerate(zip(launches, segments, strict=True)):
            record = memory.words(records + offsets.LAUNCH_BYTES * number, 5)
            wait = max(launch.wait_for - first_step, -1) & _WORD
            state_at = base + states + offsets.LINE * (1 + stride) * number
            record[:] = [self._kernel(launch), chunks[number], base + pieces_at, wait, state_at]
            first = 0
            part.pieces.append(pieces_at)
            for piece in pieces:
                memory.words(pieces_at, 4)[:] = [first, piece.grid, piece.chunk, arg_at]
                pieces_at += offsets.SEGMENT_BYTES
                arg_at += 8 * len(piece.args)
                first += -(-piece.grid // piece.chunk)
            memory.words(pieces_at, 4)[:] = [first, 0, 1, arg_at]
            pieces_at += offsets.SEGMENT_BYTES
        return part

    def _kernel(self, launch: Launch) -> int:
        return launch.kernel if isinstance(launch.kernel, int) else self.kernels[launch.kernel]

    def _release(self) -> None:
        for part in self._parts():
            state.bury(part.address, part.memory)
        self._stages = []

    def __del__(self) -> None:
        if getattr(self, "_stages", None):
            self._release()


class _Layout:
    """Offsets of consecutive tables in one block, each on its own cache line."""

    def __init__(self) -> None:
        self.size = 0

    def add(self, nbytes: int) -> int:
        start = self.size
        self.size += -(-nbytes // offsets.LINE) * offsets.LINE
        return start


def _write_grids(part: _Part, grids: Grids) -> None:
    """Other grids in a part's tables: the chunks of its launches and where each segment's begin."""
    words = part.memory.words(0, part.memory.nbytes // 8)
    launch_words, segment_words = offsets.LAUNCH_BYTES // 8, offsets.SEGMENT_BYTES // 8
    record = part.records // 8 + 1
    for number, (launch, sizes) in enumerate(zip(part.launches, grids, strict=True)):
        at, first = part.pieces[number] // 8, 0
        for piece, grid in zip(launch.segments, sizes, strict=True):
            words[at], words[at + 1] = first, grid
            first += -(-grid // piece.chunk)
            at += segment_words
        words[at] = first
        words[record] = part.chunks[number] = first
        record += launch_words


def _read_timings(part: _Part, table: Memory) -> list[profiler.LaunchTiming]:
    rows = table.words(0, offsets.PROFILE_WORDS * part.stride * len(part.launches))
    data = np.array(rows, np.int64).reshape(len(part.launches), part.stride, offsets.PROFILE_WORDS)
    found = []
    for launch, threads, once in zip(part.launches, data, part.chunks, strict=True):
        took_part = threads[threads[:, 3] > 0]
        start, end = (int(took_part[:, 0].min()), int(took_part[:, 1].max())) if len(took_part) else (0, 0)
        chunks = tuple(int(count) for count in threads[:, 3])
        busy = int(threads[:, 2].sum())
        repeats = sum(chunks) // max(once, 1)
        work = launch.flops * repeats, launch.nbytes * repeats
        found.append(
            profiler.LaunchTiming(launch_name(launch), start, end, busy, chunks, *work, repeats=repeats)
        )
    return found


_live_programs: weakref.WeakSet[Program] = weakref.WeakSet()


def _renew_turns() -> None:
    """A forked child has one thread: no other thread will finish a run it was in."""
    for program in _live_programs:
        program._turn = threading.RLock()
        program._running = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_turns)
