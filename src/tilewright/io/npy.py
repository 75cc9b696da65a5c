"""NumPy's .npy format: one array with a short header of text, read through a memory map.

    6 bytes        \\x93NUMPY
    2 bytes        version: 1.0, 2.0 or 3.0
    2 or 4 bytes   little-endian length N of the header (4 from version 2.0 on)
    N bytes        {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }, spaces, a newline
    the rest       the elements

The header is Python in NumPy's own reader; here it is matched, never evaluated. What it does not do: object arrays, which
are pickles, structured arrays, strings, and several arrays in one file.
"""

from __future__ import annotations

import math
import mmap
import os
import re
import sys
from typing import Any

import numpy as np

from tilewright.core.diagnostics import printable
from tilewright.core.files import FileFormatError, unreadable, write_atomic
from tilewright.functions.creation import from_numpy
from tilewright.tensor import Tensor

__all__ = ["encoded", "header_of", "load_npy", "mapped", "save_npy"]

Array = np.ndarray[Any, np.dtype[Any]]

MAGIC = b"\x93NUMPY"
MAX_HEADER = 1 << 16
MAX_RANK = 64
_SIZES = {"b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8), "c": (8, 16)}
_FIELD = re.compile(
    r"\s*'(?P<key>descr|fortran_order|shape)'\s*:\s*"
    r"(?P<value>'[^'\\]{1,40}'|True|False|\(\s*(?:\d{1,20}L?\s*(?:,\s*\d{1,20}L?\s*)*,?\s*)?\)|[^,\[]{1,40})\s*(?P<end>,\s*\}|,|\})"
)


def load_npy(path: str | os.PathLike[str]) -> Tensor:
    """The array of a .npy file as a tensor over the file's pages, which are read from disk when they are touched.

    Fortran order and foreign byte order are rearranged in memory. Raises ``FileFormatError`` for a file that cannot be
    opened or is not sound.
    """
    data = mapped(path)
    source = printable(str(path))
    dtype, shape, fortran, start = header_of(data, source)
    return from_numpy(array_of(data[start:], dtype, shape, fortran, source))


def mapped(path: str | os.PathLike[str]) -> memoryview:
    """The bytes of a file through a read-only memory map."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return memoryview(b"")  # an empty file cannot be mapped
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        raise unreadable(printable(str(path)), error) from None


def header_of(data: bytes | memoryview, source: str) -> tuple[np.dtype[Any], tuple[int, ...], bool, int]:
    """(dtype, shape, whether in Fortran order, where the elements start), checked; ``data`` begins with the header."""
    if bytes(data[:6]) != MAGIC:
        raise FileFormatError(f"{source}: not an .npy file: it does not begin with \\x93NUMPY")
    if len(data) < 10:
        raise FileFormatError(f"{source}: cut short: {len(data)} bytes are too few for a header")
    version = (data[6], data[7])
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise FileFormatError(
            f"{source}: .npy version {version[0]}.{version[1]} is not known; 1.0, 2.0 and 3.0 are"
        )
    start = 10 if version == (1, 0) else 12
    length = int.from_bytes(data[8:start], "little")
    if length > MAX_HEADER:
        raise FileFormatError(
            f"{source}: its header would take {length} bytes; at most {MAX_HEADER} are read"
        )
    if len(data) < start + length:
        raise FileFormatError(
            f"{source}: cut short: its header takes {length} bytes, {max(len(data) - start, 0)} are there"
        )
    fields = _fields(bytes(data[start : start + length]), source)
    dtype = _dtype(fields["descr"], source)
    if fields["fortran_order"] not in ("True", "False"):
        raise FileFormatError(f"{source}: the header is damaged: 'fortran_order' is neither True nor False")
    return dtype, _shape(fields["shape"], dtype, source), fields["fortran_order"] == "True", start + length


def _fields(header: bytes, source: str) -> dict[str, str]:
    """The three fields of the header as text."""
    damaged = f"{source}: the header is damaged"
    try:
        text = header.decode("ascii").strip()
    except UnicodeDecodeError:
        raise FileFormatError(f"{damaged}: it is not ASCII text") from None
    if not text.startswith("{"):
        raise FileFormatError(f"{damaged}: it does not begin with '{{'")
    fields: dict[str, str] = {}
    place, end = 1, ""
    while not end.endswith("}"):
        found = _FIELD.match(text, place)
        if re.match(r"\s*'descr'\s*:\s*\[", text[place : place + 40]):
            raise FileFormatError(f"{source}: structured arrays have named fields, which tensors do not have")
        if found is None or found["key"] in fields:
            raise FileFormatError(f"{damaged} at {printable(text[place : place + 40])!r}")
        fields[found["key"]] = found["value"]
        place, end = found.end(), found["end"]
    if len(fields) != 3 or text[place:].strip():
        raise FileFormatError(
            f"{damaged}: it has 'descr', 'fortran_order' and 'shape', once each, and nothing else"
        )
    return fields


def _dtype(text: str, source: str) -> np.dtype[Any]:
    descr = text[1:-1] if text.startswith("'") else ""
    kind, size = descr[1:2], descr[2:]
    if kind == "O":
        raise FileFormatError(
            f"{source}: object arrays are pickled Python objects, which are never loaded: they can run any program"
        )
    if kind == "V":
        raise FileFormatError(
            f"{source}: elements {descr!r} have no meaning: NumPy writes bfloat16 and float8 this way, without saying which;"
            " keep them in .safetensors files, or store a type of NumPy's own"
        )
    if descr[:1] in "<>|=" and size.isdecimal() and len(size) < 4 and int(size) in _SIZES.get(kind, ()):
        return np.dtype(descr)
    raise FileFormatError(f"{source}: tensors have no elements of type {printable(text[:40])}")


def _shape(text: str, dtype: np.dtype[Any], source: str) -> tuple[int, ...]:
    if not text.startswith("("):
        raise FileFormatError(f"{source}: the header is damaged: 'shape' is no tuple of sizes")
    shape = tuple(int(n) for n in re.findall(r"\d+", text))
    if len(shape) > MAX_RANK:
        raise FileFormatError(f"{source}: a shape of {len(shape)} axes; arrays have at most {MAX_RANK}")
    if math.prod(max(n, 1) for n in shape) * dtype.itemsize >= 2**63:  # arrays without elements, too
        raise FileFormatError(f"{source}: the shape {shape} has sizes that no machine can address")
    return shape


def array_of(
    data: memoryview, dtype: np.dtype[Any], shape: tuple[int, ...], fortran: bool, source: str
) -> Array:
    """The elements in ``data``: over its memory where their order and alignment allow."""
    need = math.prod(shape) * dtype.itemsize
    if need != len(data):
        what = "cut short" if need > len(data) else "followed by bytes that belong to nothing"
        raise FileFormatError(
            f"{source}: {what}: shape {shape} of {dtype} takes {need} bytes, {len(data)} follow the header"
        )
    if not need:
        return np.empty(shape, dtype.newbyteorder("="))
    array = np.frombuffer(data, dtype)
    if dtype.kind == "b" and array.view(np.uint8).max() > 1:
        raise FileFormatError(f"{source}: bool elements are 0 or 1, this file has others")
    array = array.reshape(shape[::-1]).T if fortran else array.reshape(shape)
    native = array.dtype.newbyteorder("=")
    if array.dtype != native or not array.flags.aligned or not array.flags.c_contiguous:
        array = np.array(array, native, order="C", copy=True)
    array.flags.writeable = False
    return array


def save_npy(data: Any, path: str | os.PathLike[str]) -> None:
    """Write a tensor or an array as a .npy file, the same bytes as ``numpy.save``.

    bfloat16 and the storage types raise ``FileFormatError``: NumPy has no name for them.
    """
    write_atomic(path, encoded(data, printable(str(path))))


def encoded(data: Any, source: str) -> list[bytes | memoryview]:
    """A .npy file of an array, in pieces."""
    array = plain_array(data, source)
    shape = f"({array.shape[0]},)" if array.ndim == 1 else str(array.shape)
    text = f"{{'descr': '{array.dtype.str}', 'fortran_order': False, 'shape': {shape}, }}"
    padding = -(len(MAGIC) + 4 + len(text) + 1) % 64
    header = (text + " " * padding + "\n").encode()
    lead = MAGIC + b"\x01\x00" + len(header).to_bytes(2, "little") + header
    return [lead, array.reshape(-1).view(np.uint8).data] if array.size else [lead]


def plain_array(data: Any, source: str) -> Array:
    """A contiguous array of a type that NumPy has a name for."""
    if isinstance(data, dict):
        raise FileFormatError(
            f"{source}: this format holds one array, not a mapping; use .npz or .safetensors"
        )
    array = np.asarray(data.numpy() if isinstance(data, Tensor) else data)
    kind = array.dtype.newbyteorder("=")
    if kind.isbuiltin == 2:  # from ml_dtypes
        raise FileFormatError(
            f"{source}: NumPy's files have no name for {kind}; use .safetensors, or convert with `x.astype('float32')`"
        )
    if kind.itemsize not in _SIZES.get(kind.kind, ()):
        raise FileFormatError(f"{source}: tensors have no {array.dtype} elements, and neither has this file")
    little = array.dtype.newbyteorder("<") if sys.byteorder == "big" else array.dtype.newbyteorder("=")
    return np.ascontiguousarray(array, little).reshape(array.shape)
