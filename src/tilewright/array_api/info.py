"""What the library offers, as the array API standard asks: ``xp.__array_namespace_info__().dtypes()``."""

from __future__ import annotations

from typing import Any

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.functions.arguments import check_device
from tilewright.functions.types import isdtype

__all__ = ["Info", "__array_namespace_info__"]

_STANDARD = tuple(d for d in dt.ALL if d not in (dt.float16, dt.bfloat16))


class Info:
    """Capabilities, devices and element types of the namespace."""

    def capabilities(self) -> dict[str, Any]:
        """Masks may index, results may depend on elements (they are computed first), and any rank is possible."""
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": None}

    def default_device(self) -> str:
        """The device on which tensors are made."""
        return "cpu"

    def default_dtypes(self, *, device: Any = None) -> dict[str, DType]:
        """The types that Python numbers take when nothing else is said."""
        check_device(device, "default_dtypes")
        return {
            "real floating": dt.float32,
            "complex floating": dt.complex64,
            "integral": dt.int64,
            "indexing": dt.int64,
        }

    def dtypes(self, *, device: Any = None, kind: str | tuple[str, ...] | None = None) -> dict[str, DType]:
        """The standard's element types by name, all of them or those of a kind (see ``isdtype``).

        >>> sorted(Info().dtypes(kind="real floating"))
        ['float32', 'float64']
        """
        check_device(device, "dtypes")
        return {d.name: d for d in _STANDARD if kind is None or isdtype(d, kind)}

    def devices(self) -> list[str]:
        """All devices."""
        return ["cpu"]


def __array_namespace_info__() -> Info:
    """What the namespace offers."""
    return Info()
