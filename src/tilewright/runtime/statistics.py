"""Counters of what the runtime did: native calls, compiled kernels, cache traffic, memory.

Counters only grow (until `reset`), are cheap enough to keep always on, and are plain ints updated under the
GIL; they are for tests, `tw doctor` and curiosity, not for exact accounting across threads.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

__all__ = ["Statistics", "stats"]


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

    native_calls: int = 0
    host_calls: int = 0
    launches: int = 0
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
    buffers_reused: int = 0

    def snapshot(self) -> dict[str, float]:
        """A copy of every counter, by name."""
        return asdict(self)

    def since(self, before: dict[str, float]) -> dict[str, float]:
        """What each counter gained since `before`, an earlier `snapshot()`."""
        return {name: value - before.get(name, 0) for name, value in self.snapshot().items()}

    def reset(self) -> None:
        """Set every counter to zero."""
        for row in fields(self):
            setattr(self, row.name, row.default)


stats = Statistics()
