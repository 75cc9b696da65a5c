"""Buffers: flat typed memory that tensors own, share views of, and hand to programs by address.

Freed memory is kept in a bounded pool by size class, so that a training loop touches the same pages in
every step. A buffer over a NumPy array shares the array's memory. What it does not do: a buffer has no
shape or strides, no device, and no operations.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import mmap
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.core import interpreter
from tilewright.runtime.memory import Memory
from tilewright.runtime.statistics import stats

__all__ = ["CHANGES", "Buffer", "MemoryPool", "PoolBlock", "pool", "size_class", "stamp"]

_SMALLEST = 256
CHANGES = -1
_versions = itertools.count(1)


def size_class(nbytes: int) -> int:
    """`nbytes` rounded up to 256 bytes or to a quarter of a power of two: at most 25 % more than asked."""
    if nbytes <= _SMALLEST:
        return _SMALLEST
    quarter = 1 << max((nbytes - 1).bit_length() - 3, 0)
    return -(-nbytes // quarter) * quarter


def _default_limit() -> int:
    """A quarter of the machine's memory, at most 2 GiB."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        total = 4 << 30
    return min(total // 4, 2 << 30)


class MemoryPool:
    """Freed blocks of memory by size class, at most `limit` bytes of them; any thread may use it.

    >>> pool = MemoryPool(limit=1 << 20)
    >>> block = pool.take(1000); block.nbytes
    1024
    >>> pool.give(block); pool.take(900) is block
    True
    """

    def __init__(self, limit: int | None = None) -> None:
        self.bound = ctypes.c_int64(_default_limit() if limit is None else limit)
        self.held = ctypes.c_int64(0)  # native code adds to it (`pooling`)
        self.free: dict[int, list[Memory]] = {}
        # Reentrant: a destructor that gives memory back may run while the same thread takes some.
        self._lock = threading.RLock()
        self.fronts: list[Callable[[], None]] = []  # empty what keeps memory in front of the pool

    @property
    def limit(self) -> int:
        """Bytes it holds at most."""
        return self.bound.value

    @property
    def held_bytes(self) -> int:
        """Bytes it holds."""
        return self.held.value

    def take(self, nbytes: int) -> Memory:
        """A block of at least `nbytes`, reused or new; contents undefined. Raises MemoryError."""
        return self.take_size(size_class(nbytes))

    def take_size(self, size: int) -> Memory:
        """`take` for what `size_class` gave."""
        with self._lock:
            blocks = self.free.get(size)
            if blocks:
                found = blocks.pop()
                self.held.value -= size
                stats.buffers_reused += 1
                return found
        return self.make(size)

    def make(self, size: int) -> Memory:
        """A new block. Raises MemoryError."""
        try:
            return Memory(size)
        except MemoryError:
            self.clear()
            return Memory(size)

    def give(self, block: Memory) -> None:
        """Keep a block for reuse. A full pool is emptied first: what it holds is not what is in use now."""
        with self._lock:
            if self.held_bytes + block.nbytes > self.limit:
                self.clear()
            if block.nbytes <= self.limit:
                self.held.value += block.nbytes
                self.free.setdefault(block.nbytes, []).append(block)

    def clear(self) -> None:
        """Return everything held to the system."""
        with self._lock:
            self.held.value = 0
            self.free.clear()
        for empty in self.fronts:
            empty()

    def _renew_lock(self) -> None:
        self._lock = threading.RLock()


pool = MemoryPool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pool._renew_lock)


class PoolBlock:
    """Owns one block from the pool; gives it back when nobody refers to the block any more.

    Where there is native code, the destructor is a builtin (`pooling`): nothing interrupts that.
    """

    __slots__ = ("__weakref__", "memory")

    def __init__(self, size: int) -> None:
        self.memory = pool.take_size(size)

    def __del__(self) -> None:
        try:  # noqa: SIM105 - every buffer goes this way, and `suppress` costs as much as the rest
            pool.give(self.memory)
        except (AttributeError, TypeError):  # a failed take, or the interpreter is going
            pass


class _Exporter:
    """What a NumPy view keeps alive: it describes memory by the array interface and refers to its owner."""

    __slots__ = ("__array_interface__", "owner")

    def __init__(self, owner: object, address: int, nbytes: int, readonly: bool) -> None:
        self.owner = owner
        self.__array_interface__ = {  # without "strides": NumPy loses a reference to None when they are that
            "version": 3,
            "data": (address, readonly),
            "shape": (nbytes,),
            "typestr": "|u1",
        }


class Buffer:
    """`count` elements of `dtype` at `address`: our own memory (64-byte aligned) or another's.

    ``version`` is a number that nothing else has while the elements stay as they are (``stamp``); 0 before anybody asked, and
    ``CHANGES`` where others may write to the memory at any time.

    Views share the owner; the memory lives as long as any of them, or any NumPy array made by `to_numpy`.
    Even a buffer without elements has an address that may be read for 64 bytes.

    >>> buffer = Buffer.from_numpy(np.arange(6, dtype=np.float32))
    >>> buffer.view(8, 2).to_numpy((2,))
    array([2., 3.], dtype=float32)
    """

    __slots__ = (
        "__weakref__",
        "_owner",
        "address",
        "count",
        "dtype",
        "nbytes",
        "owned",
        "readonly",
        "version",
    )

    def __init__(
        self,
        owner: object,
        address: int,
        count: int,
        dtype: np.dtype[Any],
        *,
        owned: bool = False,
        readonly: bool = False,
    ) -> None:
        """Wrap memory that `owner` keeps alive. `owned` says that nobody but buffers can reach it."""
        self._owner = owner
        self.address = address
        self.count = count
        self.dtype = dtype
        self.nbytes = count * dtype.itemsize
        self.owned = owned
        self.readonly = readonly
        self.version = 0 if owned or (readonly and _is_constant(owner)) else CHANGES

    @classmethod
    def allocate(cls, count: int, dtype: npt.DTypeLike) -> Buffer:
        """Room for `count` elements, contents undefined. Raises MemoryError; ValueError if `count` < 0."""
        if count < 0:
            raise ValueError(f"a buffer of {count} elements")
        kind = dtype if isinstance(dtype, np.dtype) else np.dtype(dtype)
        return cls.of_size(size_class(count * kind.itemsize), count, kind)

    @classmethod
    def of_size(cls, size: int, count: int, dtype: np.dtype[Any]) -> Buffer:
        """`allocate` where the size class is known."""
        buffer = cls.__new__(cls)
        buffer._owner = block = PoolBlock(size)
        buffer.address = block.memory.address
        buffer.count = count
        buffer.dtype = dtype
        buffer.nbytes = count * dtype.itemsize
        buffer.owned = True
        buffer.readonly = False
        buffer.version = 0
        return buffer

    @classmethod
    def zeros(cls, count: int, dtype: npt.DTypeLike) -> Buffer:
        """`count` elements of zero bits."""
        buffer = cls.allocate(count, dtype)
        buffer.to_numpy().view(np.uint8)[...] = 0
        return buffer

    @classmethod
    def from_numpy(cls, array: npt.NDArray[Any], *, copy: bool = False) -> Buffer:
        """The elements of `array` in C order; shares its memory when that is possible and `copy` is False.

        Sharing takes a C-contiguous, aligned array of native byte order with at least one element. A
        read-only array gives a read-only buffer. Raises TypeError for object and other elements that are
        not plain numbers.
        """
        if array.dtype.hasobject or array.dtype.kind in "SUmM" or array.dtype.names is not None:
            raise TypeError(f"elements of type {array.dtype} are not numbers")
        flags = array.flags
        if not copy and flags.c_contiguous and flags.aligned and array.dtype.isnative and array.size > 0:
            return cls(
                array,
                array.__array_interface__["data"][0],
                array.size,
                array.dtype,
                readonly=not flags.writeable,
            )
        native = array.dtype if array.dtype.isnative else array.dtype.newbyteorder("=")
        buffer = cls.allocate(array.size, native)
        buffer.to_numpy(array.shape)[...] = array
        return buffer

    def view(self, byte_offset: int, count: int, dtype: npt.DTypeLike | None = None) -> Buffer:
        """`count` elements from `byte_offset` on, sharing the memory; of another `dtype` when given.

        Raises ValueError when the range lies outside of this buffer or the address is not aligned for the
        dtype.
        """
        kind = self.dtype if dtype is None else np.dtype(dtype)
        end = byte_offset + count * kind.itemsize
        if byte_offset < 0 or count < 0 or end > self.nbytes:
            raise ValueError(f"bytes [{byte_offset}, {end}) lie outside of a buffer of {self.nbytes} bytes")
        address = self.address + byte_offset
        if address % kind.alignment:
            raise ValueError(f"byte offset {byte_offset} is not aligned for {kind}")
        if count == 0:
            return Buffer.allocate(0, kind)
        return Buffer(self._owner, address, count, kind, owned=self.owned, readonly=self.readonly)

    def to_numpy(self, shape: tuple[int, ...] | None = None, *, readonly: bool = False) -> npt.NDArray[Any]:
        """The elements as an array of `shape` (flat by default) over the same memory, without copying.

        Read-only when asked for or when the buffer is. Raises ValueError when the shape has another element
        count.
        """
        if shape is not None and math.prod(shape) != self.count:
            raise ValueError(f"shape {shape} does not hold {self.count} elements")
        source = _Exporter(self._owner, self.address, self.nbytes, readonly or self.readonly)
        flat = np.asarray(source).view(self.dtype)
        return flat if shape is None else flat.reshape(shape)

    def copy(self) -> Buffer:
        """The same elements in memory of their own."""
        other = Buffer.allocate(self.count, self.dtype)
        other.to_numpy()[...] = self.to_numpy()
        return other

    @property
    def exclusive(self) -> bool:
        """Whether the memory is ours and no other buffer and no NumPy array refers to it.

        A program may then write its result over it. It says nothing about references to this object itself.
        """
        return self.owned and not self.readonly and sys.getrefcount(self._owner) <= _SINGLE_REFERENCE

    def __repr__(self) -> str:
        kind = "owned" if self.owned else "shared"
        return f"Buffer({self.count} x {self.dtype}, {kind}{', read-only' if self.readonly else ''})"


def stamp(buffer: Buffer) -> int:
    """The buffer's version, a new one if it has none yet. Whoever writes to the memory sets it back to 0."""
    if buffer.version == 0:
        buffer.version = next(_versions)
    return buffer.version


def _is_constant(owner: object) -> bool:
    """Whether an array lies in memory that nobody can write: that of bytes, or of a file mapped for reading."""
    while True:  # a read-only view of a bytearray is no constant
        if isinstance(owner, np.ndarray) and owner.base is not None:
            owner = owner.base
        elif isinstance(owner, memoryview):
            owner = owner.obj
        else:
            return isinstance(owner, (bytes, mmap.mmap)) and memoryview(owner).readonly


def _count_single_reference() -> int:
    """What `sys.getrefcount(buffer._owner)` says, in this Python, when only the buffer holds its owner. Less than it ever
    says where that may mean something else: no memory is exclusive then."""
    if interpreter.reason() is not None:
        return -1
    probe = Buffer(object(), 0, 0, np.dtype(np.uint8))
    return sys.getrefcount(probe._owner)


_SINGLE_REFERENCE = _count_single_reference()
