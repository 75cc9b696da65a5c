"""The arguments of a jitted call: their leaves, and what stands for them in a trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.core.trees import flatten, unflatten
from tilewright.graph.ir import Value, input_value
from tilewright.jit.variant import Variant
from tilewright.tensor import DTypeError, Tensor
from tilewright.tensor.handle import from_value

__all__ = ["aliased", "flat", "hashable", "nested", "stand_ins"]

_PLAIN = frozenset((Tensor, np.ndarray, int, float, bool, str))


def flat(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Sequence[Any], Any]:
    """The leaves of the arguments and their structure. Without containers that is the arguments and their number."""
    if not kwargs:
        for arg in args:
            if arg.__class__ not in _PLAIN:
                break
        else:
            return args, len(args)
    return flatten((args, kwargs))


def nested(structure: Any, leaves: Sequence[Any]) -> tuple[Sequence[Any], dict[str, Any]]:
    """The inverse of ``flat``."""
    if isinstance(structure, int):
        return leaves, {}
    args, kwargs = unflatten(structure, leaves)
    return args, kwargs


def hashable(item: Any) -> bool:
    try:
        hash(item)
    except TypeError:
        return False
    return True


def stand_ins(
    leaves: Sequence[Any], dynamic: Sequence[Any], shapes: Sequence[Any] | None
) -> tuple[list[Any], list[Value]]:
    """The arguments with tensors and arrays replaced by traced tensors, and their placeholders in order. ``shapes``: those with
    symbolic sizes, None for a leaf without any."""
    positions = {id(leaf): None for leaf in dynamic}
    arguments: list[Any] = []
    placeholders: list[Value] = []
    for position, leaf in enumerate(leaves):
        if id(leaf) not in positions:
            arguments.append(leaf)
            continue
        shape = leaf.shape if shapes is None else shapes[position] or leaf.shape
        value = input_value(leaf.dtype if isinstance(leaf, Tensor) else _dtype_of_array(leaf), shape)
        placeholders.append(value)
        arguments.append(from_value(value))
    return arguments, placeholders


def _dtype_of_array(array: Any) -> DType:
    try:
        return dt.from_numpy(array.dtype)
    except TypeError as error:
        raise DTypeError(f"jit: an array argument: {error}") from None


def aliased(variant: Variant, dynamic: Sequence[Any]) -> bool:
    """Whether an argument is also another argument or a captured tensor, so that a write would be seen through both; or
    a gradient that the function uses is one of these or another's gradient."""
    seen: set[int] = set()
    for leaf in dynamic:
        if id(leaf) in variant.handles or id(leaf) in seen:
            return True
        seen.add(id(leaf))
    for tensor, _, _ in variant.gradient_types:
        gradient = id(tensor._grad)
        if gradient in variant.handles or gradient in seen:
            return True
        seen.add(gradient)
    return False
