"""Search for the parameters of a program's contractions by measuring on this machine.

The cost model's choice is the start. From the best so far, one parameter at a time is changed (`neighbours` of
`recipes/contraction.py`), and every candidate runs as the real kernel on memory of the real size; a better one becomes the new
start. What wins by enough is stored in the database that later compiles read (`recipes/tuned.py`). Structure is never searched,
and a choice changes nothing but speed and the rounding of sums.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from tilewright.codegen.llvm import scratch_bytes
from tilewright.compiler import Executable, load_kernels
from tilewright.core.diagnostics import TilewrightError
from tilewright.core.settings import settings
from tilewright.core.shape import upper
from tilewright.lower.calls import Call
from tilewright.lower.contraction import Contraction
from tilewright.lower.lowering import lower_groups
from tilewright.lower.read import Unsupported
from tilewright.recipes.contraction import Tiling, neighbours
from tilewright.recipes.tuned import Choice, Choices, database_path, read_choices, write_choices
from tilewright.runtime.buffers import Buffer
from tilewright.runtime.cache import DiskCache
from tilewright.runtime.jit import KernelLibrary
from tilewright.runtime.program import Program
from tilewright.runtime.steps import Launch, Segment
from tilewright.version import __version__

__all__ = ["Tuned", "store", "tune"]

ENOUGH = 1.03  # a choice is kept when it is this many times faster than the model's
BETTER = 1.01  # and looked around from when it is this many times faster than the best before
SAMPLE_SECONDS = 0.004  # at least, of running one candidate
BATCH = 8  # candidates compiled together
Progress = Callable[[float, str], None]  # share of the time that is used, and what is being measured


@dataclass(slots=True)
class Tuned:
    """One problem of a program: how often it occurs, seconds with the model's choice and with the best, how many were tried."""

    key: str
    label: str
    count: int
    model: Tiling
    before: float
    best: Tiling
    after: float
    tried: int = 0

    @property
    def gain(self) -> float:
        """How many times faster the best is than the model's choice."""
        return self.before / self.after

    @property
    def kept(self) -> bool:
        """Whether the gain is more than noise."""
        return self.best != self.model and self.gain >= ENOUGH


class _Runner:
    """A candidate, ready to run on memory of its own."""

    def __init__(self, calls: Sequence[Call], library: KernelLibrary, memory: dict[Any, Buffer]) -> None:
        names, addresses = load_kernels(library, [c.kernel for c in calls])
        slots: dict[Any, int] = {}
        launches = []
        for n, call in enumerate(calls):
            args = []
            for arg in call.args:
                slot = slots.setdefault(arg.place, len(slots) + 1)
                args.append((slot, arg.offset * arg.place.dtype.itemsize))
            address = addresses[names[call.kernel]]
            launches.append(Launch(address, [Segment(args, upper(call.grid), call.chunk)], n - 1))
        scratch = max(scratch_bytes(c.kernel) for c in calls)
        self.program = Program(launches, slots=len(slots) + 1, scratch_bytes=scratch, checks=_Silent())
        self.buffers = [_filled(place, memory) for place in slots]
        self.pointers = [b.address for b in self.buffers]

    def seconds(self, least: float = SAMPLE_SECONDS) -> float:
        """The shortest of several runs."""
        self.program.run(self.pointers)
        times: list[float] = []
        while len(times) < 5 or sum(times) < least:
            began = time.perf_counter()
            self.program.run(self.pointers)
            times.append(time.perf_counter() - began)
        return min(times)


def _repeated(c: Contraction) -> list[Call]:
    """The calls of a contraction that every run makes: a settled operand is laid out once."""
    c.layout_calls()
    return c.product_calls()


class _Silent(dict[int, Any]):
    """Indices are all zero here; nothing can be out of range."""


def _filled(place: Any, memory: dict[Any, Buffer]) -> Buffer:
    """Memory for a place: numbers that are neither zero nor subnormal; integers, which may be indices, zero."""
    size = place.type.size if hasattr(place, "type") else place.size
    shared = memory.get(place)
    if shared is None:
        shared = memory[place] = Buffer.allocate(size, place.dtype.numpy)
        values = np.zeros(size, place.dtype.numpy)
        if place.dtype.is_float:
            values[...] = np.resize(np.linspace(0.5, 1.5, 1021), size)
        shared.to_numpy((size,))[...] = values
    return shared


@dataclass(slots=True)
class _Problem:
    contraction: Contraction
    result: Tuned
    memory: dict[Any, Buffer] = field(default_factory=dict)


class _Search:
    def __init__(self, executable: Executable, seconds: float, progress: Progress | None) -> None:
        self.executable, self.allowed = executable, seconds
        self.progress = progress or (lambda share, text: None)
        self.machine = replace(executable.machine, tuned=None)
        self.loaded = KernelLibrary(executable.linked.target, DiskCache(None, 0))
        self.began = time.perf_counter()

    @property
    def used(self) -> float:
        return time.perf_counter() - self.began

    def run(self) -> list[Tuned]:
        problems = self.problems()
        weights = [p.result.before * p.result.count for p in problems]
        order = sorted(range(len(problems)), key=lambda n: -weights[n])
        for place, n in enumerate(order):
            left = self.allowed - self.used
            if left <= 0:
                break
            share = weights[n] / sum(weights[m] for m in order[place:])
            self.improve(problems[n], self.used + max(left * share, min(left, 0.5)))
        self.progress(1.0, "")
        return [problems[n].result for n in order]

    def problems(self) -> list[_Problem]:
        """Every distinct contraction of the program, measured with the model's choice."""
        seen: dict[str, list[Contraction]] = {}

        def watch(c: Contraction) -> None:
            seen.setdefault(c.situation.key(self.machine), []).append(c)

        lower_groups(self.executable.groups, replace(self.machine, watch=watch))
        out = []
        for key, same in seen.items():
            c = same[0]
            problem = _Problem(c, Tuned(key, "", len(same), c.tiling, 0.0, c.tiling, 0.0))
            self.progress(min(self.used / self.allowed, 1.0), key)
            calls = _repeated(c)
            problem.result.label = calls[0].label
            seconds = _Runner(calls, self.loaded, problem.memory).seconds()
            problem.result.before = problem.result.after = seconds
            problem.memory.clear()
            out.append(problem)
            if self.used > self.allowed:
                break
        return out

    def improve(self, problem: _Problem, until: float) -> None:
        """Look around the best so far until nothing near is better or the time is over."""
        result, c = problem.result, problem.contraction
        tried = {result.model}
        moved = True
        while moved and self.used < until:
            moved = False
            near = [t for t in neighbours(result.best, c.situation, self.machine) if t not in tried]
            for first in range(0, len(near), BATCH):
                if self.used >= until:
                    break
                batch = near[first : first + BATCH]
                tried.update(batch)
                for tiling, seconds in self.measured(problem, batch):
                    result.tried += 1
                    if seconds * BETTER < result.after:
                        result.best, result.after, moved = tiling, seconds, True
                self.progress(min(self.used / self.allowed, 1.0), result.label)
        if result.best != result.model:
            self.confirm(problem)
        problem.memory.clear()

    def measured(self, problem: _Problem, tilings: Sequence[Tiling]) -> list[tuple[Tiling, float]]:
        calls: dict[Tiling, list[Call]] = {}
        for tiling in tilings:
            try:
                calls[tiling] = self.build(problem, tiling)
            except Unsupported:
                continue
        load_kernels(self.loaded, [c.kernel for each in calls.values() for c in each])  # in parallel
        return [(t, _Runner(each, self.loaded, problem.memory).seconds()) for t, each in calls.items()]

    def build(self, problem: _Problem, tiling: Tiling) -> list[Call]:
        c = problem.contraction
        return _repeated(Contraction(c.group, c.stored, self.machine, tiling, settled=c.settled))

    def confirm(self, problem: _Problem) -> None:
        """Measure the best and the model's choice once more, in turn: what ran first may have had a slow moment."""
        result = problem.result
        runners = [
            _Runner(self.build(problem, t), self.loaded, problem.memory) for t in (result.model, result.best)
        ]
        times = [[r.seconds() for r in runners] for _ in range(3)]
        result.before, result.after = (min(t[n] for t in times) for n in (0, 1))


def tune(executable: Executable, seconds: float = 30.0, progress: Progress | None = None) -> list[Tuned]:
    """Search for better parameters of every contraction of a compiled program, for about so many seconds.

    Most time goes to what takes most of the program's. Returns one row for each distinct problem, the heaviest first; nothing is
    stored, see `store`.

    >>> import tilewright as tw
    >>> step = tw.jit(lambda x: x @ x)
    >>> rows = tune(step.executable(tw.ones((64, 64))), seconds=0.1)
    >>> len(rows), rows[0].gain > 0
    (1, True)
    """
    if not isinstance(executable, Executable):
        raise TypeError(
            f"tune: an executable is tuned, got {type(executable).__name__}; of a jitted function `f` that is f.executable(*args)"
        )
    if not seconds > 0:
        raise ValueError(f"tune: seconds must be positive, got {seconds}")
    return _Search(executable, seconds, progress).run()


def store(executable: Executable, rows: Sequence[Tuned]) -> str:
    """Add what was found to the database for the executable's target; returns the file's name.

    A problem for which the model's choice turned out best is taken out of it. Raises `TilewrightError` when there is no cache
    directory, `FileWriteError` when the file cannot be written.
    """
    if settings.cache_dir is None:
        raise TilewrightError("there is no cache directory to store tuned choices in; set TW_CACHE_DIR")
    target = executable.linked.target.key
    path = database_path(settings.cache_dir, target)
    choices = Choices(read_choices(path, target).rows)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    for row in rows:
        choices.rows.pop(row.key, None)
        if row.kept:
            choices.rows[row.key] = Choice(row.best, float(row.gain), today)
    write_choices(path, target, __version__, choices)
    return str(path)
