"""Functions that NumPy computes on the host: the way from tensors to arrays and back, in one place.

The operands are computed first, because NumPy needs their elements; inside ``tw.jit`` there are none yet, and the error
of reading a traced tensor says so. Results have no history: a floating result of an operand that records derivatives
would lose its gradient silently, so that is an error that names the way out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tilewright.core import dtype as dt
from tilewright.tensor import ArgumentError, GradientError, Tensor, modes

__all__ = ["host_call"]

Array = np.ndarray[Any, Any]


def host_call(function: str, compute: Callable[..., Any], *operands: Tensor) -> tuple[Tensor, ...]:
    """The arrays that ``compute`` gives for the operands' arrays, as tensors; half types are computed in float32.

    ``compute`` returns one array or a tuple of them. Floating results take the operand's type again when it was a half
    type. Raises ``GradientError`` when a derivative would be lost, ``TracedValueError`` inside ``tw.jit``, and
    ``ArgumentError`` where the algorithm fails (a singular matrix).
    """
    if modes.grad and any(x.requires_grad for x in operands):
        raise GradientError(
            f"{function}: has no derivative; call it on `x.detach()`, or under `with tw.no_grad():`"
        )
    half = next((x.dtype for x in operands if x.dtype.is_float and x.dtype.bits == 16), None)
    arrays = [_wide(x.numpy()) for x in operands]
    try:
        with np.errstate(all="ignore"):
            found = compute(*arrays)
    except np.linalg.LinAlgError as error:
        raise ArgumentError(f"{function}: {str(error).lower()}") from None
    results = found if isinstance(found, tuple) else (found,)
    return tuple(Tensor(_narrow(np.asarray(r), half)) for r in results)


def _wide(array: Array) -> Array:
    """Half types in float32: NumPy's algorithms do not know them."""
    return array.astype(np.float32) if dt.from_numpy(array.dtype).is_float and array.itemsize == 2 else array


def _narrow(array: Array, half: dt.DType | None) -> Array:
    return array.astype(half.numpy) if half is not None and array.dtype == np.float32 else array
