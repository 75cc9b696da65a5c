"""Files that are whole or absent: write beside the target, then rename.

What it does not do: it keeps no file open, takes no lock, and knows nothing of what the bytes mean.
"""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import json
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tilewright.core.diagnostics import TilewrightError

__all__ = [
    "FileFormatError", "FileWriteError", "MissingFileError", "check_writable", "open_atomic", "unreadable", "write_atomic",
    "write_json_atomic",
]  # fmt: skip


class FileWriteError(TilewrightError):
    """A file could not be written. The file that was there before, if any, is untouched."""


class FileFormatError(TilewrightError):
    """The bytes of a file are not what its format says, or the format cannot hold what was to be written."""


class MissingFileError(FileFormatError, FileNotFoundError):
    """A file that was to be read is not there."""


def unreadable(path: str, error: Exception) -> FileFormatError:
    """The error for a file that could not be opened, which is also a `FileNotFoundError` where there is none."""
    reason = getattr(error, "strerror", None) or error
    kind = MissingFileError if isinstance(error, FileNotFoundError) else FileFormatError
    return kind(f"cannot read {path}: {reason}")


_calls = itertools.count()


def write_atomic(path: str | os.PathLike[str], chunks: Iterable[bytes | memoryview]) -> int:
    """Write `chunks` one after the other as the file `path` and return its size in bytes.

    Missing parent directories are made. A reader sees the old file or the new one, never a part: the bytes go
    to a temporary file in the same directory, reach the disk, and take the name in one step. Raises
    `FileWriteError` with the reason (no space, no permission, ...) after removing the temporary file and the
    directories made for it.

    >>> import tempfile
    >>> write_atomic(tempfile.mkdtemp() + "/numbers.txt", [b"1 2 ", b"3"])
    5
    """
    written = 0
    with open_atomic(path) as file:
        for chunk in chunks:
            view = memoryview(chunk).cast("B") if chunk else memoryview(b"")
            while view:
                count = file.write(view)
                view = view[count:]
                written += count
    return written


@contextlib.contextmanager
def open_atomic(path: str | os.PathLike[str]) -> Iterator[io.FileIO]:
    """A file to write and seek in that takes the name `path` when the block ends; see `write_atomic`.

    Nothing is left when the block raises: no file, no new directory. What it raises passes through, an
    `OSError` as `FileWriteError`.
    """
    target = Path(path)
    made: list[Path] = []
    temporary: Path | None = None
    try:
        if target.is_symlink():
            target = target.resolve()  # the file behind a link is replaced, the link stays
        # one name a call: threads of one process may write the same path
        temporary = target.with_name(f".{target.name[:190]}.{os.getpid()}.{next(_calls)}.partial")
        if target.is_dir():
            raise IsADirectoryError(None, "a directory has this name")
        _make_parents(target, made)
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666)
        with _Unbuffered(handle, "r+") as file:
            yield file
            os.fsync(file.fileno())
        _keep_mode(target, temporary)
        os.replace(temporary, target)
    except BaseException as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()
        _remove_empty(made)
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            raise FileWriteError(f"cannot write {target}: {reason}{_advice(error, target)}") from error
        raise


class _Unbuffered(io.FileIO):
    """A file of which each piece is written, or fails to be, at once."""

    def write(self, data: Any) -> int:
        return os.write(self.fileno(), data)


def _make_parents(target: Path, made: list[Path]) -> None:
    """Make the missing directories above `target`, and note them in `made`."""
    missing = []
    for parent in target.parents:
        if parent.exists():
            break
        missing.append(parent)
    for parent in reversed(missing):
        with contextlib.suppress(FileExistsError):  # somebody else was as quick: then it is theirs
            parent.mkdir()
            made.append(parent)
    target.parent.mkdir(parents=True, exist_ok=True)  # says so when a file is in the way


def _remove_empty(made: list[Path]) -> None:
    for parent in reversed(made):
        with contextlib.suppress(OSError):  # not empty: somebody else uses it
            parent.rmdir()


def _keep_mode(old: Path, new: Path) -> None:
    """Replacing a file keeps the permissions it had."""
    with contextlib.suppress(OSError):
        os.chmod(new, stat.S_IMODE(old.stat().st_mode))


def _advice(error: OSError, target: Path) -> str:
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return f"; free some space in {target.parent} or choose another directory. Nothing is left behind"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return "; choose a directory you may write to"
        case errno.ENOTDIR | errno.EEXIST:
            return "; a file stands where a directory is needed"
        case _:
            return ""


def write_json_atomic(path: str | os.PathLike[str], value: Any) -> int:
    """Write `value` as indented JSON with a final newline, as `write_atomic` does. NaN and infinities are
    refused.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    return write_atomic(path, [text.encode(), b"\n"])


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise `FileWriteError` when `path` could not be written, before the work whose result it is to hold.

    It tries a small file there, and removes it and the directories made for it again.
    """
    target = Path(path)
    if target.is_dir():
        raise FileWriteError(f"cannot write {target}: a directory has this name")
    probe = target.with_name(f".{target.name[:200]}.{os.getpid()}.probe")
    missing = [parent for parent in target.parents if not parent.exists()]
    try:
        write_atomic(probe, [b"tilewright"])
    except FileWriteError as error:  # what is told is about the file that was asked for
        raise FileWriteError(str(error).replace(str(probe), str(target), 1)) from error
    with contextlib.suppress(OSError):
        probe.unlink()
    _remove_empty(missing[::-1])
