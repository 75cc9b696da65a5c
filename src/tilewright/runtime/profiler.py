"""Timings of launches: collected inside `with profile() as timings:`, printed to stderr from TW_DEBUG=1 on.

Times are nanoseconds of one monotonic clock. Reading it costs about 50 ns a chunk, only while profiling.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tilewright.core import assumptions

__all__ = ["LaunchTiming", "RunTiming", "profile"]


@dataclass(frozen=True, slots=True)
class LaunchTiming:
    """One step of one run: from the first chunk's start to the last chunk's end. A launch inside a loop counts once, for all
    iterations, whose number is ``repeats``.

    busy_ns    time inside the kernel, summed over threads
    chunks     chunks run by each thread
    host       True for a Python step
    """

    name: str
    start_ns: int
    end_ns: int
    busy_ns: int
    chunks: tuple[int, ...]
    flops: int = 0
    nbytes: int = 0
    host: bool = False
    repeats: int = 1

    @property
    def ns(self) -> int:
        """Wall time of the step; of a launch that was repeated, between other launches, its time by the thread."""
        if self.repeats > 1:
            return self.busy_ns // max(1, sum(count > 0 for count in self.chunks))
        return self.end_ns - self.start_ns


@dataclass(frozen=True, slots=True)
class RunTiming:
    """One run of a program: its wall time, driver included, and its steps in order."""

    program: str
    start_ns: int
    end_ns: int
    steps: tuple[LaunchTiming, ...]

    @property
    def ns(self) -> int:
        """Wall time of the run as its caller sees it."""
        return self.end_ns - self.start_ns

    def table(self, debug: int = 1) -> str:
        """One line a step: microseconds, share, chunks by thread; from level 2 on GFLOP/s and GB/s."""
        total = max(self.ns, 1)
        lines = [f"{self.program}: {self.ns / 1e3:.1f} us, {len(self.steps)} steps"]
        for step in self.steps:
            line = f"  {step.ns / 1e3:10.1f} us {100 * step.ns / total:5.1f}%  {step.name}"
            line += "  host" if step.host else f"  chunks {'+'.join(map(str, step.chunks))}"
            if debug >= 2 and step.ns > 0 and (step.flops or step.nbytes):
                line += f"  {step.flops / step.ns:.1f} GFLOP/s {step.nbytes / step.ns:.1f} GB/s"
            lines.append(line)
        return "\n".join(lines)


_collectors: list[list[RunTiming]] = []


def active() -> bool:
    """Whether some `profile()` block is open."""
    return bool(_collectors)


def now() -> int:
    """Nanoseconds of the clock that native code reads too."""
    return time.monotonic_ns()


def record(run: RunTiming, debug: int) -> None:
    """Hand a finished run to the open blocks, and print it from debug level 1 on."""
    for collector in _collectors:
        collector.append(run)
    if debug >= 1:
        print(run.table(debug), file=sys.stderr)


@contextmanager
def profile() -> Iterator[list[RunTiming]]:
    """Collect a `RunTiming` of every program run inside the block.

    with profile() as runs:
        step(x, y)
    print(runs[0].table())
    """
    runs: list[RunTiming] = []
    _collectors.append(runs)
    assumptions.changed()
    try:
        yield runs
    finally:
        _collectors[:] = [other for other in _collectors if other is not runs]
        assumptions.changed()
