"""Counters of what the runtime did: native calls, compiled kernels, cache traffic, memory.

Counters only grow (until `reset`), are cheap enough to keep always on, and are plain ints updated under the
GIL; they are for tests, `tw doctor` and curiosity, not for exact accounting across threads.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field, fields

__all__ = ["WORDS", "Statistics", "stats"]

WORDS = ("native_calls", "launches", "buffers_reused")  # counters that native code counts too, as words


class _Word:
    """A counter in `Statistics.words`."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __get__(self, instance: Statistics, owner: type) -> int:
        return instance.words[self.number]

    def __set__(self, instance: Statistics, value: int) -> None:
        instance.words[self.number] = value


def _words() -> ctypes.Array[ctypes.c_uint64]:
    return (ctypes.c_uint64 * len(WORDS))()


@dataclass(slots=True)
class Statistics:
    """The counters. `stats` is the process's instance.

    native_calls      programs' native parts entered (one per jitted step without host steps)
    host_calls        Python callables run as steps of a program
    launches          kernel launches walked by those native calls
    kernels_compiled  kernels that went through LLVM in this process
    compile_seconds   summed over threads
    memory_hits       kernels found already loaded
    cache_hits        kernels loaded from the disk cache
    cache_misses      kernels looked for on disk and not found
    cache_rejected    disk entries found damaged and rebuilt
    cache_bytes_read, cache_bytes_written   object code moved from and to disk
    buffers_allocated, bytes_allocated      memory asked from the system for buffers and arenas
    buffers_reused    allocations served from the pool
    """

    host_calls: int = 0
    kernels_compiled: int = 0
    compile_seconds: float = 0.0
    memory_hits: int = 0
    cache_hits: int = 0
    cache_misses: int = 0
    cache_rejected: int = 0
    cache_bytes_read: int = 0
    cache_bytes_written: int = 0
    buffers_allocated: int = 0
    bytes_allocated: int = 0
    words: ctypes.Array[ctypes.c_uint64] = field(default_factory=_words, repr=False)

    native_calls = _Word(0)
    launches = _Word(1)
    buffers_reused = _Word(2)

    def address(self) -> int:
        """Where the words lie, for native code."""
        return ctypes.addressof(self.words)

    def snapshot(self) -> dict[str, float]:
        """A copy of every counter, by name."""
        names = [row.name for row in fields(self) if row.name != "words"]
        return {name: getattr(self, name) for name in (*names, *WORDS)}

    def since(self, before: dict[str, float]) -> dict[str, float]:
        """What each counter gained since `before`, an earlier `snapshot()`."""
        return {name: value - before.get(name, 0) for name, value in self.snapshot().items()}

    def reset(self) -> None:
        """Set every counter to zero."""
        for name in self.snapshot():
            setattr(self, name, 0)


stats = Statistics()
