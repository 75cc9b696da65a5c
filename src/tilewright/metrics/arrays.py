"""What the metrics accept: tensors or anything NumPy reads, as checked arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["Array", "as_array", "same_shape"]

Array = np.ndarray[Any, np.dtype[Any]]


def as_array(values: Any) -> Array:
    """The values as a NumPy array; a tensor is computed and read."""
    array = np.asarray(values.numpy() if hasattr(values, "numpy") else values)
    if array.dtype == object:
        raise TypeError(f"a metric takes arrays of numbers or classes, got {type(values).__name__}")
    return array


def same_shape(name: str, predictions: Any, targets: Any) -> tuple[Array, Array]:
    """Both as arrays of one shape with at least one element; `ValueError` otherwise.

    A trailing axis of size 1 on one side only, as a network with one output has it, is dropped.
    """
    a, b = as_array(predictions), as_array(targets)
    if a.ndim == b.ndim + 1 and a.shape[-1] == 1:
        a = a[..., 0]
    elif b.ndim == a.ndim + 1 and b.shape[-1] == 1:
        b = b[..., 0]
    if a.shape != b.shape:
        raise ValueError(f"{name}: predictions of shape {a.shape} and targets of shape {b.shape} differ")
    if a.size == 0:
        raise ValueError(f"{name}: there are no samples")
    return a, b
