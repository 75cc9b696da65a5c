"""DLPack: exchange of array memory with other libraries, without copying, in both directions.

Written against the DLPack 1 ABI with ctypes, because NumPy neither exports nor imports bfloat16. CPU memory
only; capsules of the unversioned kind ("dltensor") are made, both kinds are read. It knows buffers, not
tensors.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
from typing import Any

import ml_dtypes
import numpy as np

from tilewright.runtime.buffers import CHANGES, Buffer

__all__ = ["CPU_DEVICE", "export_capsule", "import_capsule"]

CPU_DEVICE = (1, 0)  # kDLCPU, device 0
_BFLOAT = 4
_CODES = {"i": 0, "u": 1, "f": 2, "c": 5, "b": 6}
_KINDS = {code: kind for kind, code in _CODES.items()}
_READ_ONLY = 1


class _Device(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("id", ctypes.c_int32))


class _DataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


class _ManagedVersioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


_api = ctypes.pythonapi
_new_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", _api)
)
_capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", _api)
)
_capsule_is = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_capsule_rename = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_SetName", _api)
)
# The same two functions for a capsule that is being destroyed: as an address, without touching its
# reference count.
_dying_is = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_dying_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", _api)
)

# Capsule names are kept by address, so these objects live as long as the module.
_NAME, _USED = b"dltensor", b"used_dltensor"
_NAME_VERSIONED, _USED_VERSIONED = b"dltensor_versioned", b"used_dltensor_versioned"

_exports: dict[int, tuple[_Managed, Any, Buffer]] = {}  # by the address that the consumer gives back


def _delete_export(address: int) -> None:
    _exports.pop(address, None)


def _delete_capsule(capsule: int) -> None:
    if _dying_is(capsule, _NAME):  # nobody took the tensor over
        _delete_export(_dying_pointer(capsule, _NAME) or 0)


_delete_export_callback = _Deleter(_delete_export)
_delete_capsule_callback = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(_delete_capsule)


def export_capsule(buffer: Buffer, shape: tuple[int, ...]) -> object:
    """A "dltensor" capsule over `buffer` seen as a C-contiguous array of `shape`; the memory lives until it
    is released.

    Raises BufferError for a read-only buffer, which this kind of capsule cannot express, and for an element
    type that DLPack does not name.
    """
    if buffer.readonly:
        raise BufferError("read-only memory cannot be exported through DLPack; export a copy")
    if math.prod(shape) != buffer.count:
        raise ValueError(f"shape {shape} does not hold {buffer.count} elements")
    ndim = len(shape)
    extents = (ctypes.c_int64 * (2 * ndim))(*shape, *_contiguous_strides(shape))
    managed = _Managed()
    tensor = managed.tensor
    tensor.data = buffer.address
    tensor.device = _Device(*CPU_DEVICE)
    tensor.ndim = ndim
    tensor.dtype = _describe(buffer.dtype)
    start = ctypes.addressof(extents)
    tensor.shape = ctypes.cast(start, ctypes.POINTER(ctypes.c_int64))
    tensor.strides = ctypes.cast(start + 8 * ndim, ctypes.POINTER(ctypes.c_int64))
    managed.deleter = ctypes.cast(_delete_export_callback, ctypes.c_void_p)
    address = ctypes.addressof(managed)
    # A view of its own: as long as the consumer has the memory, the buffer it came from is not exclusive.
    buffer.version = CHANGES
    held = Buffer(buffer._owner, buffer.address, buffer.count, buffer.dtype, owned=buffer.owned)
    _exports[address] = (managed, extents, held)
    return _new_capsule(address, _NAME, ctypes.cast(_delete_capsule_callback, ctypes.c_void_p))


def import_capsule(capsule: object) -> tuple[Buffer, tuple[int, ...], tuple[int, ...]]:
    """Take over a DLPack capsule: (buffer, shape, strides in elements), sharing the exporter's memory.

    The buffer covers the whole strided extent, so a C-contiguous source has the strides of its shape.
    Raises BufferError for memory that is not the CPU's, for element types NumPy and ml_dtypes do not have,
    for negative strides, and for a capsule that was used before.
    """
    if _capsule_is(capsule, _NAME_VERSIONED):
        address = _capsule_pointer(capsule, _NAME_VERSIONED)
        versioned = _ManagedVersioned.from_address(address)
        if versioned.major != 1:
            raise BufferError(f"DLPack version {versioned.major} is not known here; 1 is")
        managed: _Managed | _ManagedVersioned = versioned
        readonly = bool(versioned.flags & _READ_ONLY)
        used = _USED_VERSIONED
    elif _capsule_is(capsule, _NAME):
        address = _capsule_pointer(capsule, _NAME)
        managed, readonly, used = _Managed.from_address(address), False, _USED
    else:
        raise BufferError("not an unused DLPack capsule")
    tensor = managed.tensor
    if tensor.device.type != CPU_DEVICE[0]:
        raise BufferError(
            f"the memory is on device type {tensor.device.type}, not the CPU; move it there first"
        )
    dtype = _element_type(tensor.dtype)
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    strides = tuple(tensor.strides[axis] for axis in range(tensor.ndim)) if tensor.strides else None
    strides = strides or _contiguous_strides(shape)
    if any(stride < 0 for stride in strides):
        raise BufferError("negative strides cannot be imported; export a contiguous copy")
    _capsule_rename(capsule, used)
    owner = _Import(address, managed.deleter)
    if 0 in shape:
        return Buffer.allocate(0, dtype), shape, strides
    count = 1 + sum((extent - 1) * stride for extent, stride in zip(shape, strides, strict=True))
    data = (tensor.data or 0) + tensor.byte_offset
    if data % dtype.alignment:
        raise BufferError("the memory is not aligned for its element type; export a copy")
    return Buffer(owner, data, count, dtype, readonly=readonly), shape, strides


class _Import:
    """Keeps an imported tensor alive and releases it when the last buffer over it goes."""

    __slots__ = ("__weakref__", "_address", "_deleter")

    def __init__(self, address: int, deleter: int | None) -> None:
        self._address = address
        self._deleter = deleter

    def __del__(self) -> None:
        if self._deleter:
            ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(self._deleter)(self._address)


def _contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides in elements of a C-contiguous array of `shape`."""
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    return tuple(strides)


def _describe(dtype: np.dtype[Any]) -> _DataType:
    if dtype == np.dtype(ml_dtypes.bfloat16):
        return _DataType(_BFLOAT, 16, 1)
    if dtype.kind not in _CODES:
        raise BufferError(f"DLPack has no name for elements of type {dtype}")
    return _DataType(_CODES[dtype.kind], 8 * dtype.itemsize, 1)


def _element_type(described: _DataType) -> np.dtype[Any]:
    code, bits, lanes = described.code, described.bits, described.lanes
    if lanes == 1 and (code, bits) == (_BFLOAT, 16):
        brain: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return brain
    if lanes == 1 and code in _KINDS and bits % 8 == 0:
        with contextlib.suppress(TypeError):
            named: np.dtype[Any] = np.dtype(f"{_KINDS[code]}{bits // 8}")
            return named
    raise BufferError(f"elements of DLPack type code {code}, {bits} bits, {lanes} lanes are not supported")
