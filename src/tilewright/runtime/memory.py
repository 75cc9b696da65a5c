"""Aligned memory from the system: what buffers, arenas and tables are made of. No types, no reuse."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from typing import Any

import numpy as np

from tilewright.runtime.statistics import stats

__all__ = ["ALIGNMENT", "Memory"]

ALIGNMENT = 64  # a cache line, and the widest vector
_HUGE_PAGE = 2 << 20
_HUGE_FROM = 4 << 20  # from here on a few huge pages save more than their rounding wastes


class Memory:
    """`nbytes` (at least 64) of writable memory at `address`, aligned to 64 bytes; freed with the object.

    From 4 MiB on it is aligned to 2 MiB and offered to the system for huge pages. Contents are undefined
    unless `zero`. Raises MemoryError when the system has no more.
    """

    __slots__ = ("__weakref__", "_keep", "address", "nbytes")

    def __init__(self, nbytes: int, zero: bool = False) -> None:
        if nbytes < 0:
            raise ValueError(f"a negative number of bytes: {nbytes}")
        self.nbytes = max(nbytes, ALIGNMENT)
        self._keep: Any
        if self.nbytes >= _HUGE_FROM:
            self.address = self._map_pages()
        else:
            make = np.zeros if zero else np.empty
            self._keep = make(self.nbytes + ALIGNMENT, np.uint8)
            start = self._keep.__array_interface__["data"][0]
            self.address = start + (-start) % ALIGNMENT
        stats.buffers_allocated += 1
        stats.bytes_allocated += self.nbytes

    def _map_pages(self) -> int:
        size = -(-self.nbytes // _HUGE_PAGE) * _HUGE_PAGE
        try:
            # private: pages shared with forked children would be theirs too, and are hardly ever huge
            pages = mmap.mmap(-1, size + _HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            shown = f"{self.nbytes / 2**30:,.1f} GiB" if self.nbytes >= 1 << 30 else f"{self.nbytes:,} bytes"
            raise MemoryError(f"the system refused {shown}: {error.strerror}") from None
        start = int(np.frombuffer(pages, np.uint8).__array_interface__["data"][0])
        aligned = start + (-start) % _HUGE_PAGE
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with contextlib.suppress(OSError):  # the system is built without huge pages
                # whole ones only: the rest would make a last huge page that is mostly not used
                pages.madvise(mmap.MADV_HUGEPAGE, aligned - start, self.nbytes // _HUGE_PAGE * _HUGE_PAGE)
        self._keep = pages
        return aligned

    def words(self, offset: int, count: int) -> ctypes.Array[ctypes.c_uint64]:
        """A writable view of `count` 64-bit words from byte `offset`; valid while this object lives."""
        if offset < 0 or offset + 8 * count > self.nbytes:
            raise IndexError(f"words [{offset}, {offset + 8 * count}) lie outside of {self.nbytes} bytes")
        return (ctypes.c_uint64 * count).from_address(self.address + offset)
