"""The safetensors format: named tensors in one file, read through a memory map.

    8 bytes   little-endian length N of the header
    N bytes   JSON: {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]},
              "__metadata__": {"key": "value"}}
    the rest  the tensors' bytes, row-major, little-endian; offsets count from here; no gaps, no overlaps

The format has no 4-bit integers. A tensor of them is kept as U8 of one axis, two elements a byte, the first in the low half,
and ``__metadata__`` says so: {"tilewright.packed": "{\"name\": [\"int4\", [2, 3]]}"}.

A file from elsewhere is untrusted: every length, type, shape and offset is checked before a byte is used, and
nothing in it is executed. What it does not do: sharded checkpoints with an index file.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import ml_dtypes
import numpy as np

from tilewright.core.diagnostics import printable
from tilewright.core.files import FileFormatError, write_atomic
from tilewright.functions.creation import from_numpy
from tilewright.tensor import Tensor

__all__ = ["SafetensorsError", "SafetensorsFile", "load", "load_file", "load_tensors", "save", "save_file"]

Array = np.ndarray[Any, np.dtype[Any]]

MAX_HEADER_BYTES = 100_000_000  # the format's own bound
MAX_RANK = 64
_ALIGNMENT = 8  # of the first tensor's byte, so that mapped arrays are aligned

_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
    "C64": np.dtype(np.complex64),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


_PACKED = "tilewright.packed"  # the metadata key that names tensors of 4-bit integers
_NIBBLES = {"int4": np.dtype(ml_dtypes.int4), "uint4": np.dtype(ml_dtypes.uint4)}


class SafetensorsError(FileFormatError):
    """The bytes are not a sound safetensors file, or the tensors cannot be stored as one."""


@dataclass(frozen=True)
class SafetensorsFile:
    """An opened file: `tensors` by name (read-only arrays over the file's pages) and its string `metadata`."""

    tensors: dict[str, Array]
    metadata: dict[str, str] = field(default_factory=dict)


# ---- reading -----------------------------------------------------------------------------------------------


def load_file(path: str | os.PathLike[str]) -> SafetensorsFile:
    """Map the file `path` into memory and check it; tensors are read from disk when they are touched.

    The arrays are read-only. Raises `SafetensorsError` for a file that cannot be opened or is not sound.

    >>> import tempfile, numpy as np
    >>> name = tempfile.mkdtemp() + "/a.safetensors"
    >>> save_file({"w": np.zeros((2, 3), np.float32)}, name)
    >>> load_file(name).tensors["w"].shape
    (2, 3)
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < 8:
                raise SafetensorsError(
                    f"{path}: not a safetensors file: {size} bytes are too few for its header"
                )
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise SafetensorsError(f"cannot read {path}: {error.strerror or error}") from error
    return _parse(memoryview(mapped), str(path))


def load_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of the file `path` by name, over its mapped pages: what `tw.load` and `load_state_dict`
    work with.

    Raises `SafetensorsError` for a file that is not sound.
    """
    return {name: from_numpy(array) for name, array in load_file(path).tensors.items()}


def load(data: bytes) -> SafetensorsFile:
    """The tensors in the bytes of a safetensors file; the arrays are read-only views of them."""
    return _parse(memoryview(data), "these bytes")


def _parse(data: memoryview, source: str) -> SafetensorsFile:
    if len(data) < 8:
        raise SafetensorsError(
            f"{source}: not a safetensors file: {len(data)} bytes are too few for its header"
        )
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER_BYTES or length > len(data) - 8:
        raise SafetensorsError(
            f"{source}: not a safetensors file, or cut short: "
            f"its header would take {length} bytes of {len(data) - 8}"
        )
    header = _header(bytes(data[8 : 8 + length]), source)
    metadata = _metadata(header.pop("__metadata__", {}), source)
    body = data[8 + length :]
    places = [(*_entry(name, entry, source), name) for name, entry in header.items()]
    _check_layout([(begin, end, name) for begin, end, _, _, name in places], len(body), source)
    tensors = {name: _view(body, begin, dtype, shape) for begin, _, dtype, shape, name in places}
    packed = _packed_table(metadata.pop(_PACKED, "{}"), source)
    for name, (kind, shape) in packed.items():
        tensors[name] = _unpacked(
            tensors.get(name), _NIBBLES[kind], shape, f"{source}: tensor {printable(name[:80])!r}"
        )
    return SafetensorsFile({name: tensors[name] for name in header}, metadata)


def _packed_table(text: str, source: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Which tensors hold two 4-bit integers a byte: name -> (type, shape)."""
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, entry in _header(text.encode(), source).items():
        if not (
            isinstance(entry, list)
            and len(entry) == 2
            and entry[0] in ("int4", "uint4")
            and _are_sizes(entry[1])
        ):
            raise SafetensorsError(
                f"{source}: {_PACKED} of tensor {printable(name[:80])!r} is not a type and a shape"
            )
        found[name] = entry[0], tuple(entry[1])
    return found


def _unpacked(data: Array | None, kind: np.dtype[Any], shape: tuple[int, ...], source: str) -> Array:
    count = math.prod(shape)
    if data is None or data.dtype != np.uint8 or data.shape != (-(-count // 2),) or len(shape) > MAX_RANK:
        raise SafetensorsError(
            f"{source}: {count} packed {kind} elements are not what the file holds under this name"
        )
    bytes_ = np.stack([data & 15, data >> 4], axis=1).reshape(-1)[:count].view(kind).reshape(shape)
    bytes_.flags.writeable = False
    return bytes_


def _packed(array: Array) -> Array:
    """Two elements a byte, the first in the low half."""
    bits = np.ascontiguousarray(array).reshape(-1).view(np.uint8) & 15
    if bits.size % 2:
        bits = np.append(bits, np.uint8(0))
    return np.asarray(bits[::2] | bits[1::2] << 4, np.uint8)


def _header(text: bytes, source: str) -> dict[str, Any]:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(items)
        if len(table) != len(items):
            raise ValueError("a name occurs twice")
        return table

    def refuse(word: str) -> Any:
        raise ValueError(f"{word} is not JSON")

    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=pairs, parse_constant=refuse)
    except (ValueError, RecursionError) as error:  # includes UnicodeDecodeError and JSONDecodeError
        raise SafetensorsError(f"{source}: the safetensors header is damaged: {error}") from None
    if not isinstance(header, dict):
        raise SafetensorsError(f"{source}: the safetensors header is not a JSON object")
    return header


def _metadata(table: Any, source: str) -> dict[str, str]:
    if not isinstance(table, dict) or not all(isinstance(v, str) for v in table.values()):
        raise SafetensorsError(f"{source}: __metadata__ is not a table of strings")
    return table


def _entry(name: str, entry: Any, source: str) -> tuple[int, int, np.dtype[Any], tuple[int, ...]]:
    """(begin, end, dtype, shape) of one tensor, checked against each other."""

    def wrong(what: str) -> SafetensorsError:
        return SafetensorsError(f"{source}: tensor {printable(name[:80])!r}: {what}")

    if not isinstance(entry, dict):
        raise wrong("its description is not a JSON object")
    dtype = _DTYPES.get(entry["dtype"]) if isinstance(entry.get("dtype"), str) else None
    if dtype is None:
        raise wrong(f"unknown dtype {str(entry.get('dtype'))[:40]!r}; known: {', '.join(_DTYPES)}")
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if not _are_sizes(shape) or len(shape) > MAX_RANK:
        raise wrong(f"its shape is not a list of at most {MAX_RANK} sizes")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise wrong("its data_offsets are not two positions")
    begin, end = offsets
    need = math.prod(shape) * dtype.itemsize
    if end - begin != need:
        raise wrong(
            f"shape {shape} of {entry['dtype']} takes {need} bytes, data_offsets {offsets} give {end - begin}"
        )
    if math.prod(max(size, 1) for size in shape) * dtype.itemsize >= 2**63:  # arrays without elements, too
        raise wrong(f"a tensor of shape {shape} has sizes that no machine can address")
    return begin, end, dtype, tuple(shape)


def _are_sizes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(v) is int and 0 <= v < 2**63 for v in value)


def _check_layout(places: list[tuple[int, int, str]], size: int, source: str) -> None:
    """Tensors follow one another without gap or overlap and end where the file ends."""
    position = 0
    for begin, end, name in sorted(places):
        if begin != position:
            what = "overlaps the one before it" if begin < position else "leaves a gap before it"
            where = f"(byte {begin}, expected {position})"
            raise SafetensorsError(f"{source}: tensor {printable(name[:80])!r} {what} {where}")
        position = end
    if position != size:
        what = "cut short" if position > size else "followed by bytes that belong to no tensor"
        raise SafetensorsError(f"{source}: {what}: the tensors take {position} bytes, the file holds {size}")


def _view(body: memoryview, begin: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    count = math.prod(shape)
    if count == 0:
        array = np.empty(shape, dtype)
    else:
        array = np.frombuffer(body, np.uint8, count * dtype.itemsize, begin).view(dtype).reshape(shape)
        if sys.byteorder == "big":
            array = array.byteswap()
        if not array.flags.aligned:
            array = array.copy()
    array.flags.writeable = False
    return array


# ---- writing -----------------------------------------------------------------------------------------------


def save_file(
    tensors: Mapping[str, Any], path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named tensors (NumPy arrays, or objects with `numpy()`) and string metadata as the file `path`,
    atomically.

    Raises `SafetensorsError` for what the format cannot hold and `FileWriteError` when the disk refuses; in
    either case no part of a file is left behind.
    """
    header, arrays = _layout(tensors, metadata)
    write_atomic(path, [header, *(_bytes(a).data for a in arrays)])


def save(tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a safetensors file that holds `tensors`."""
    header, arrays = _layout(tensors, metadata)
    return b"".join([header, *(_bytes(a).tobytes() for a in arrays)])


def _layout(tensors: Mapping[str, Any], metadata: Mapping[str, str] | None) -> tuple[bytes, list[Array]]:
    """The length and header, and the arrays in file order: widest elements first, so that each is aligned."""
    if not isinstance(tensors, Mapping):
        raise SafetensorsError(
            f"a file holds named tensors: pass a mapping such as {{'x': tensor}} or module.state_dict(), got"
            f" {type(tensors).__name__}"
        )
    arrays = {name: _as_array(name, tensor) for name, tensor in tensors.items()}
    table = {n: [str(a.dtype), list(a.shape)] for n, a in arrays.items() if a.dtype in _NIBBLES.values()}
    if table:
        metadata = {**(metadata or {}), _PACKED: json.dumps(table)}
        arrays = {name: _packed(a) if name in table else a for name, a in arrays.items()}
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    header: dict[str, Any] = {}
    if metadata:
        header["__metadata__"] = _metadata(dict(metadata), "metadata to be written")
    position = 0
    for name in order:
        array = arrays[name]
        end = position + array.nbytes
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    if len(text) > MAX_HEADER_BYTES:
        raise SafetensorsError(
            f"the header of {len(arrays)} tensors takes {len(text)} bytes; the format allows 100 MB"
        )
    return len(text).to_bytes(8, "little") + text, [arrays[name] for name in order]


def _as_array(name: str, tensor: Any) -> Array:
    if not isinstance(name, str) or name == "__metadata__":
        raise SafetensorsError(f"{name!r} cannot be the name of a tensor")
    if isinstance(tensor, Mapping | list | tuple):
        raise SafetensorsError(
            f"tensor {name!r}: a file holds one flat mapping of names to tensors, got a {type(tensor).__name__}; give its"
            " tensors names of their own, such as 'optimizer.0.exp_avg'"
        )
    array = np.asarray(tensor.numpy() if hasattr(tensor, "numpy") else tensor)
    if array.dtype in _NIBBLES.values():
        return array
    if array.dtype.newbyteorder("=") not in _NAMES:
        raise SafetensorsError(f"tensor {name!r}: safetensors has no type for {array.dtype} elements")
    return np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape)


def _bytes(array: Array) -> Array:
    flat = array.reshape(-1)
    return (flat.byteswap() if sys.byteorder == "big" else flat).view(np.uint8)
