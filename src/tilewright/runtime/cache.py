"""A directory of object code keyed by content hash: atomic writes, checksums, a size bound, never in the way.

An entry is `MAGIC | blake2b-256 of the payload | payload`. A damaged or truncated entry is removed and
reported as absent, so its kernel is compiled again. A directory that cannot be used is said aloud once and
then does without. Entries are read as bytes and handed to the linker; nothing is unpickled or executed on
the way.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from hashlib import blake2b
from pathlib import Path

from tilewright.core.settings import settings
from tilewright.core.warn import warn
from tilewright.runtime.statistics import stats

__all__ = ["DiskCache", "TilewrightCacheWarning"]

MAGIC = b"TWOBJ\x00\x01\n"
_DIGEST_BYTES = 32
_TEMPORARY = ".tmp-"
_STALE_SECONDS = 3600.0  # a temporary file this old was left by a process that died


class TilewrightCacheWarning(UserWarning):
    """The kernel cache's directory cannot be used; kernels are compiled again in every process."""


def _checksum(payload: bytes) -> bytes:
    return blake2b(payload, digest_size=_DIGEST_BYTES).digest()


class DiskCache:
    """Byte strings by hexadecimal key in `directory`: at most `max_bytes`, least recently used out first.

    With `directory=None` or `max_bytes=0` the cache is off and stays silent. Several processes may share a
    directory: entries appear by `os.replace`, and two writers of one key write the same bytes.

    >>> import tempfile, pathlib
    >>> cache = DiskCache(pathlib.Path(tempfile.mkdtemp()), 1 << 20)
    >>> cache.put("00ff", b"object code"); cache.get("00ff")
    b'object code'
    """

    def __init__(self, directory: Path | None, max_bytes: int) -> None:
        self.directory = directory if max_bytes > 0 else None
        self.max_bytes = max_bytes
        self._warned = False
        self._unchecked = max_bytes  # bytes written since the size was last looked at; the first write looks

    @classmethod
    def from_settings(cls) -> DiskCache:
        """The cache at `TW_CACHE_DIR`, bounded by `TW_CACHE_SIZE`."""
        return cls(settings.cache_dir, settings.cache_size)

    def path(self, key: str) -> Path | None:
        """Where `key`'s entry is or would be; None when the cache is off."""
        return None if self.directory is None else self.directory / "objects" / key[:2] / f"{key[2:]}.o"

    def get(self, key: str) -> bytes | None:
        """The payload stored under `key`, or None when there is none that is whole."""
        path = self.path(key)
        if path is None:
            return None
        try:
            entry = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            stats.cache_misses += 1
            return None
        except OSError as error:
            self._warn("read", error)
            return None
        start = len(MAGIC) + _DIGEST_BYTES
        payload = entry[start:]
        if not entry.startswith(MAGIC) or entry[len(MAGIC) : start] != _checksum(payload):
            stats.cache_rejected += 1
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # the time of last use orders eviction
        stats.cache_hits += 1
        stats.cache_bytes_read += len(entry)
        return payload

    def put(self, key: str, payload: bytes) -> None:
        """Store `payload`; a failure to write warns once per cache and is otherwise harmless."""
        path = self.path(key)
        if path is None:
            return
        entry = MAGIC + _checksum(payload) + payload
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write(path, entry)
            stats.cache_bytes_written += len(entry)
            self._unchecked += len(entry)
            if self._unchecked >= self.max_bytes // 16:
                self._unchecked = 0
                self.evict()
        except OSError as error:
            self._warn("written", error)

    def _write(self, path: Path, entry: bytes) -> None:
        handle, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(entry)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    def entries(self) -> list[tuple[float, int, Path]]:
        """(time of last use, bytes, path) of every entry, oldest first.

        Temporary files of writers that died are removed on the way.
        """
        if self.directory is None:
            return []
        found: list[tuple[float, int, Path]] = []
        now = time.time()
        for path in (self.directory / "objects").glob("*/*"):
            try:
                status = path.stat()
                if path.name.startswith(_TEMPORARY):
                    if now - status.st_mtime > _STALE_SECONDS:
                        path.unlink()
                elif path.suffix == ".o":
                    found.append((status.st_mtime, status.st_size, path))
            except OSError:  # another process evicted it
                continue
        return sorted(found)

    def evict(self) -> int:
        """When the bound is exceeded, remove the least recently used entries down to three quarters of it.

        Returns the bytes removed.
        """
        entries = self.entries()
        total = sum(size for _, size, _ in entries)
        if total <= self.max_bytes:
            return 0
        removed = 0
        for _, size, path in entries:
            if total - removed <= self.max_bytes * 3 // 4:
                break
            with contextlib.suppress(OSError):
                path.unlink()
                removed += size
        return removed

    def _warn(self, verb: str, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            warn(
                f"the kernel cache {self.directory} cannot be {verb} ({error.strerror or error}); "
                "kernels are compiled again in every process. Point TW_CACHE_DIR at a writable directory, or "
                "set it to nothing to do without.",
                TilewrightCacheWarning,
            )
