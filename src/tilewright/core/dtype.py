"""Data types: the closed set of element types, their NumPy counterparts and promotion.

Promotion follows the Python array API standard (2024.12): within a kind the wider type wins, signed with unsigned
gives the next wider signed type, and integers never promote to floats by themselves. A Python scalar adopts the type
of the array it meets unless its kind is higher. Mixing kinds (int64 array with float32 array) is left undefined by the
standard; here, as in PyTorch and JAX, the floating type wins.

The storage types (8-bit floats and 4-bit integers) keep numbers and convert to and from every other type; nothing is
computed in them, and they promote to nothing. All take a byte an element in memory; a 4-bit integer lies in the low half of
its byte, whose high half is written as 0 and not read.
"""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np

__all__ = [
    "ALL",
    "BY_NAME",
    "STORAGE",
    "DType",
    "bfloat16",
    "bool_",
    "complex64",
    "complex128",
    "float8_e4m3fn",
    "float8_e5m2",
    "float16",
    "float32",
    "float64",
    "from_numpy",
    "int4",
    "int8",
    "int16",
    "int32",
    "int64",
    "of_scalar",
    "only_stored",
    "promote",
    "uint4",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
]  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class DType:
    """One element type. ``kind`` is one of ``b i u f c q`` (bool, signed, unsigned, float, complex, storage); ``bits`` its
    width in memory."""

    name: str
    kind: str
    bits: int
    numpy: np.dtype[np.generic]

    @property
    def itemsize(self) -> int:
        """Bytes of one element in memory."""
        return self.numpy.itemsize

    @property
    def is_float(self) -> bool:
        return self.kind == "f"

    @property
    def is_integer(self) -> bool:
        return self.kind in "iu"

    @property
    def is_bool(self) -> bool:
        return self.kind == "b"

    @property
    def is_complex(self) -> bool:
        return self.kind == "c"

    @property
    def is_storage(self) -> bool:
        """Whether it only keeps numbers: 8-bit floats and 4-bit integers."""
        return self.kind == "q"

    @property
    def is_inexact(self) -> bool:
        """Whether derivatives exist: real or complex floating point."""
        return self.kind in "fc"

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> str | tuple[object, ...]:
        return (_by_name, (self.name,))


def _by_name(name: str) -> DType:
    return BY_NAME[name]


bool_ = DType("bool", "b", 8, np.dtype(np.bool_))
int8 = DType("int8", "i", 8, np.dtype(np.int8))
int16 = DType("int16", "i", 16, np.dtype(np.int16))
int32 = DType("int32", "i", 32, np.dtype(np.int32))
int64 = DType("int64", "i", 64, np.dtype(np.int64))
uint8 = DType("uint8", "u", 8, np.dtype(np.uint8))
uint16 = DType("uint16", "u", 16, np.dtype(np.uint16))
uint32 = DType("uint32", "u", 32, np.dtype(np.uint32))
uint64 = DType("uint64", "u", 64, np.dtype(np.uint64))
float16 = DType("float16", "f", 16, np.dtype(np.float16))
bfloat16 = DType("bfloat16", "f", 16, np.dtype(ml_dtypes.bfloat16))
float32 = DType("float32", "f", 32, np.dtype(np.float32))
float64 = DType("float64", "f", 64, np.dtype(np.float64))
complex64 = DType("complex64", "c", 64, np.dtype(np.complex64))
complex128 = DType("complex128", "c", 128, np.dtype(np.complex128))
float8_e4m3fn = DType("float8_e4m3fn", "q", 8, np.dtype(ml_dtypes.float8_e4m3fn))
float8_e5m2 = DType("float8_e5m2", "q", 8, np.dtype(ml_dtypes.float8_e5m2))
int4 = DType("int4", "q", 8, np.dtype(ml_dtypes.int4))
uint4 = DType("uint4", "q", 8, np.dtype(ml_dtypes.uint4))

# The types that are computed in, and those that only keep numbers.
ALL: tuple[DType, ...] = (
    bool_, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float16, bfloat16, float32, float64, complex64,
    complex128,
)  # fmt: skip
STORAGE: tuple[DType, ...] = (float8_e4m3fn, float8_e5m2, int4, uint4)
BY_NAME: dict[str, DType] = {d.name: d for d in (*ALL, *STORAGE)}
_BY_NUMPY: dict[np.dtype[np.generic], DType] = {d.numpy: d for d in (*ALL, *STORAGE)}
_SIGNED = {8: int8, 16: int16, 32: int32, 64: int64}


def from_numpy(dtype: object) -> DType:
    """The data type of a NumPy dtype, a DType, a name or a Python scalar type; ``TypeError`` when there is none."""
    if isinstance(dtype, DType):
        return dtype
    if isinstance(dtype, str) and dtype in BY_NAME:
        return BY_NAME[dtype]
    found = _BY_NUMPY.get(dtype) if isinstance(dtype, np.dtype) else None
    if found is not None:
        return found
    try:
        found = _BY_NUMPY.get(np.dtype(dtype).newbyteorder("="))  # type: ignore[call-overload]
    except TypeError:
        found = None
    if found is None:
        raise TypeError(f"no tilewright data type for {dtype!r}; the types are {', '.join(BY_NAME)}")
    return found


def of_scalar(value: object, beside: DType | None = None) -> DType:
    """The type a Python scalar takes, alone (bool, int64, float32, complex64) or beside an array of type ``beside``."""
    if isinstance(value, np.generic) and not isinstance(value, (bool, int, float, complex)):
        return from_numpy(value.dtype)
    if isinstance(value, bool):
        return bool_ if beside is None else beside
    if isinstance(value, int):
        if beside is None:
            return int64
        return int64 if beside.is_bool else beside
    if isinstance(value, float):
        if beside is None or not beside.is_inexact:
            return float32
        return beside
    if isinstance(value, complex):
        if beside is None:
            return complex64
        return beside if beside.is_complex else complex128 if beside is float64 else complex64
    raise TypeError(f"expected a number, got {type(value).__name__}")


def _promote(a: DType, b: DType) -> DType:
    if a is b:
        return a
    order = "buifc"
    low, high = sorted((a, b), key=lambda d: (order.index(d.kind), d.bits))
    if low.kind == "b":
        return high
    if low.kind == high.kind:
        if low.bits == high.bits:  # float16 with bfloat16: the smallest type that holds both
            return float32
        return high
    if {low.kind, high.kind} == {"u", "i"}:
        unsigned, signed = (low, high) if low.kind == "u" else (high, low)
        if signed.bits > unsigned.bits:
            return signed
        # uint64 with a signed integer has no common integer type; the standard leaves it undefined.
        return _SIGNED.get(unsigned.bits * 2, float64)
    if high.kind == "f":
        return high
    return complex128 if low is float64 or high is complex128 else complex64


_TABLE: dict[tuple[DType, DType], DType] = {(a, b): _promote(a, b) for a in ALL for b in ALL}
_TABLE |= {(a, a): a for a in STORAGE}


def only_stored(dtype: DType) -> str:
    """What to say to somebody who computes with a storage type."""
    return f"{dtype} only stores numbers; convert before computing, as in `x.astype('float32')`"


def promote(first: DType, *others: DType) -> DType:
    """The common type of several arrays."""
    for other in others:
        if first is not other and (first.is_storage or other.is_storage):
            raise TypeError(only_stored(first if first.is_storage else other))
        first = _TABLE[first, other]
    return first
