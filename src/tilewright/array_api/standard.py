"""Functions whose own form is more generous than the standard's: there ``reshape(x, 2, 3)`` and ``squeeze(x)`` work too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tilewright.functions import movement, types
from tilewright.functions.arguments import TensorLike, check_device
from tilewright.tensor import Tensor

__all__ = ["astype", "permute_dims", "reshape"]


def astype(x: TensorLike, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Tensor:
    """x in another element type; see ``tilewright.astype``."""
    check_device(device, "astype")
    return types.astype(x, dtype, copy)


def permute_dims(x: TensorLike, /, axes: Sequence[int]) -> Tensor:
    """Axes in another order: axis i of the result is axis ``axes[i]`` of x."""
    return movement.permute_dims(x, tuple(axes))


def reshape(x: TensorLike, /, shape: int | Sequence[int], *, copy: bool | None = None) -> Tensor:
    """The same elements in row-major order under another shape; one size may be -1.

    ``copy`` is accepted for the standard's sake: tensors are immutable, so sharing cannot be told from copying.
    """
    return movement.reshape(x, tuple(shape) if isinstance(shape, (tuple, list)) else (shape,))
