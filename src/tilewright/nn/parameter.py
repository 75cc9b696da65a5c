"""`Parameter`: a tensor that a module trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tilewright.core.dtype import DType
from tilewright.core.integers import plain
from tilewright.functions.creation import zeros
from tilewright.tensor import Tensor

__all__ = ["Parameter", "empty_parameter"]


class Parameter(Tensor):
    """A tensor that requires gradients and, assigned to a module's attribute, becomes part of the module.

    It holds its own elements: `data` is copied (lazily), not shared.

    >>> Parameter([1.0, 2.0]).requires_grad
    True
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data, requires_grad=requires_grad)

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


def empty_parameter(shape: Sequence[int], dtype: DType) -> Parameter:
    """A parameter whose elements are still to be chosen; they are 0 until then.

    Raises `ValueError` for a negative size.
    """
    sizes = tuple(map(plain, shape))
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise ValueError(f"a layer's sizes are non-negative integers, got {size!r}")
    return Parameter(zeros(sizes, dtype=dtype))
