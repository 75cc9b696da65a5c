"""NumPy's .npz format: a zip archive of .npy files, one for each name.

Nothing is unpacked to disk. Members are stored or deflated; their sizes are checked against their headers before
anything is inflated, and what all of them inflate to is bounded.
"""

from __future__ import annotations

import math
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import IO, Any

from tilewright.core.diagnostics import printable
from tilewright.core.files import FileFormatError, open_atomic, unreadable
from tilewright.functions.creation import from_numpy
from tilewright.io.npy import MAX_HEADER, array_of, encoded, header_of
from tilewright.tensor import Tensor

__all__ = ["load_npz", "save_npz"]

MAX_BYTES = 4 << 30  # of elements in one file, unless the caller says otherwise
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the time of every member: equal arrays give equal files
_BROKEN = (
    zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, NotImplementedError,
    RuntimeError, IndexError, OverflowError,
)  # fmt: skip


def load_npz(path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> dict[str, Tensor]:
    """The tensors of a .npz file by name.

    A file whose arrays take more than ``max_bytes`` together is refused before they are inflated. Raises
    ``FileFormatError`` for a file that cannot be opened or is not sound.
    """
    source = printable(str(path))
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            members = _members(archive, os.fstat(file.fileno()).st_size, max_bytes, source)
            return {
                name: _read(archive, info, f"{source}: {printable(name[:80])}")
                for name, info in members.items()
            }
    except FileFormatError:
        raise
    except _BROKEN as error:
        if isinstance(error, OSError) and error.strerror:
            raise unreadable(source, error) from None
        raise FileFormatError(
            f"{source}: not a sound .npz file: {printable(str(error)) or type(error).__name__}"
        ) from None


def _members(
    archive: zipfile.ZipFile, file_bytes: int, max_bytes: int, source: str
) -> dict[str, zipfile.ZipInfo]:
    """What is in the archive by name, as its directory tells, without reading any of it."""
    found: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        shown = printable(info.filename[:80])
        problem = _unsafe(info.filename)
        if not problem and not info.filename.endswith(".npy"):
            problem = "is no .npy file"
        if not problem and info.flag_bits & 1:
            problem = "is encrypted"
        if not problem and info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            problem = "is compressed in a way that NumPy does not write"
        name = info.filename.removesuffix(".npy")
        if not problem and name in found:
            problem = "is there twice"
        if problem:
            raise FileFormatError(f"{source}: the member {shown!r} {problem}")
        found[name] = info
    if sum(info.compress_size for info in found.values()) > file_bytes:
        raise FileFormatError(f"{source}: its members overlap: together they are larger than the file")
    total = sum(info.file_size for info in found.values())
    if total > max_bytes:
        raise FileFormatError(
            f"{source}: its arrays take {total:,} bytes from a file of {file_bytes:,}; at most {max_bytes:,} are read"
            " unless `max_bytes` allows more"
        )
    return found


def _unsafe(name: str) -> str:
    """What is wrong with a name that could be taken for a path, or nothing."""
    if not name or name.startswith("/") or name.endswith("/") or any(c in name for c in "\\:\0"):
        return "has a name that is none of an array"
    return "has a name that leads out of the archive" if ".." in name.split("/") else ""


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, source: str) -> Tensor:
    with archive.open(info) as member:
        lead = _exactly(member, min(info.file_size, 12))
        length = int.from_bytes(lead[8:10] if lead[6:7] == b"\x01" else lead[8:12], "little")
        start = 10 if lead[6:7] == b"\x01" else 12
        if length <= MAX_HEADER:
            lead += _exactly(member, min(max(start + length - len(lead), 0), info.file_size - len(lead)))
        dtype, shape, fortran, start = header_of(lead, source)
        need = math.prod(shape) * dtype.itemsize
        if start + need != info.file_size:
            raise FileFormatError(
                f"{source}: shape {shape} of {dtype} takes {need} bytes, the archive says {info.file_size - start}"
            )
        data = lead[start:] + _exactly(member, need - (len(lead) - start))
        if member.read(1):  # also lets the reader compare the checksum
            raise FileFormatError(f"{source}: followed by bytes that belong to nothing")
    return from_numpy(array_of(memoryview(data), dtype, shape, fortran, source))


def _exactly(member: IO[bytes], count: int) -> bytes:
    data = member.read(count) if count else b""
    if len(data) != count:
        raise EOFError(f"cut short: {count} bytes are needed, {len(data)} are there")
    return data


def save_npz(data: Mapping[str, Any], path: str | os.PathLike[str], compressed: bool = False) -> None:
    """Write named tensors or arrays as a .npz file, which ``numpy.load`` reads; ``compressed`` deflates them."""
    source = printable(str(path))
    if not isinstance(data, Mapping):
        raise FileFormatError(
            f"{source}: this format holds named arrays: pass a mapping such as {{'x': x}}, got {type(data).__name__}"
        )
    pieces: dict[str, list[bytes | memoryview]] = {}
    for name, item in data.items():
        if not isinstance(name, str) or _unsafe(name):
            raise FileFormatError(
                f"{source}: {printable(repr(name)[:80])} cannot be the name of an array in an archive"
            )
        pieces[name] = encoded(item, f"{source}: {printable(name[:80])}")
    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with open_atomic(path) as file, zipfile.ZipFile(file, "w", kind, allowZip64=True) as archive:
        for name, chunks in pieces.items():
            info = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            info.compress_type = kind
            with archive.open(info, "w", force_zip64=True) as member:
                for chunk in chunks:
                    member.write(chunk)
