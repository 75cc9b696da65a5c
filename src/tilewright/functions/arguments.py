"""Reading the arguments that many functions share: tensors, numbers, axes, shapes and types.

Every error names the function, the argument and what would be right.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tilewright.core import dtype as dt
from tilewright.core.diagnostics import suggest
from tilewright.core.dtype import DType
from tilewright.core.shape import broadcast_shapes
from tilewright.graph.ir import Value, constant, make
from tilewright.tensor import (
    ArgumentError,
    AxisError,
    DTypeError,
    ShapeError,
    Tensor,
    apply,
    from_value,
    modes,
)

__all__ = [
    "Axes", "TensorLike", "as_tensor", "axes_of", "axis_of", "broadcast_to_shape", "cast", "common_type", "dtype_of",
    "filled", "float_tensor", "inexact", "is_scalar", "pair", "shape_of", "spread",
]  # fmt: skip

TensorLike = Any  # a Tensor, a NumPy array, a number, or nested sequences of numbers
Axes = int | Sequence[int] | None
_NUMBERS = (bool, int, float, complex)


def is_scalar(x: Any) -> bool:
    """Whether ``x`` is a Python number, which takes the type of the tensor beside it. So does ``np.float64``, which is one
    too: what ``np.mean`` gives must not turn a float32 model into float64."""
    return isinstance(x, _NUMBERS)


def as_tensor(x: TensorLike, function: str, name: str = "x", dtype: DType | None = None) -> Tensor:
    """``x`` itself when it is a tensor, else a new tensor with its elements."""
    if isinstance(x, Tensor):
        return x
    if x is None or isinstance(x, (str, bytes, dict, set)):
        raise DTypeError(f"{function}: `{name}` is a tensor, an array or a number, got {type(x).__name__}")
    return Tensor(x, dtype)


def dtype_of(dtype: Any, function: str) -> DType:
    """A data type from a DType, a NumPy type, a name or ``float``/``int``/``bool``/``complex``."""
    if isinstance(dtype, DType):
        return dtype
    plain = {bool: dt.bool_, int: dt.int64, float: dt.float32, complex: dt.complex64}
    if isinstance(dtype, type) and dtype in plain:
        return plain[dtype]
    try:
        return dt.from_numpy(dtype)
    except TypeError as error:
        near = suggest(dtype, dt.BY_NAME) if isinstance(dtype, str) else None
        hint = f"; did you mean {near!r}?" if near else ""
        raise DTypeError(f"{function}: {error}{hint}") from None


def axis_of(axis: Any, rank: int, function: str, name: str = "axis") -> int:
    """A non-negative axis below ``rank``."""
    try:
        index = operator.index(axis)
    except TypeError:
        raise DTypeError(f"{function}: `{name}` is an integer, got {type(axis).__name__}") from None
    if not rank:
        raise AxisError(f"{function}: `{name}` {index}: a tensor of rank 0 has no axes")
    if not -rank <= index < rank:
        raise AxisError(
            f"{function}: `{name}` {index} is out of range for a tensor of rank {rank};"
            f" its axes are {-rank} to {rank - 1}"
        )
    return index % rank


def axes_of(axes: Axes, rank: int, function: str, name: str = "axis") -> tuple[int, ...]:
    """Sorted non-negative axes; None means all of them."""
    if axes is None:
        return tuple(range(rank))
    if not isinstance(axes, (tuple, list)):
        return (axis_of(axes, rank, function, name),)
    found = [axis_of(a, rank, function, name) for a in axes]
    if len(set(found)) != len(found):
        raise AxisError(f"{function}: `{name}` {tuple(axes)} names an axis twice")
    return tuple(sorted(found))


def shape_of(shape: Any, function: str, name: str = "shape") -> tuple[int, ...]:
    """A shape from an integer or a sequence of integers."""
    items = shape if isinstance(shape, (tuple, list)) else (shape,)
    try:
        out = tuple(operator.index(d) for d in items)
    except TypeError:
        raise DTypeError(
            f"{function}: `{name}` is an integer or a sequence of integers, got {shape!r}"
        ) from None
    if any(d < 0 for d in out):
        raise ShapeError(f"{function}: `{name}` {out} has a negative size")
    return out


def pair(x: Any, count: int, function: str, name: str) -> tuple[int, ...]:
    """``count`` integers: one number for all, or one for each."""
    items = tuple(x) if isinstance(x, (tuple, list)) else (x,) * count
    if len(items) != count or not all(isinstance(i, (int, np.integer)) for i in items):
        raise ArgumentError(f"{function}: `{name}` is one integer or {count} of them, got {x!r}")
    return tuple(int(i) for i in items)


def cast(x: Tensor, dtype: DType) -> Tensor:
    """``x`` in another element type."""
    return x if x.dtype is dtype else apply("cast", x, dtype=dtype)


def inexact(dtype: DType) -> DType:
    """The type in which ``exp`` or a mean of elements of ``dtype`` is computed: integers and bool go to float32."""
    return dtype if dtype.is_inexact else dt.float32


def float_tensor(x: TensorLike, function: str, name: str = "x") -> Tensor:
    """``x`` as a tensor of a floating or complex type."""
    x = as_tensor(x, function, name)
    return cast(x, inexact(x.dtype))


def broadcast_to_shape(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """``x`` repeated to ``shape``, which its own shape is known to fit."""
    return x if x.shape == shape else apply("broadcast", x, shape=shape)


def filled(number: Any, dtype: DType, shape: tuple[int, ...]) -> Value:
    """A graph constant of one number repeated to a shape."""
    value = constant(number, dtype)
    return make("broadcast", (value,), shape=shape) if shape else value


def common_type(function: str, items: Sequence[Any]) -> DType:
    """The element type of several operands together: arrays promote, Python numbers adopt."""
    arrays = [x.dtype for x in items if isinstance(x, Tensor)]
    found = dt.promote(*arrays) if arrays else None
    for x in items:
        if not isinstance(x, Tensor):
            alone = dt.of_scalar(x, found)
            found = alone if found is None else dt.promote(found, alone)
    if found is None:
        raise DTypeError(f"{function}: needs at least one operand")
    return found


def spread(
    function: str, items: Sequence[Any], dtype: DType | None = None, names: Sequence[str] = ("x1", "x2")
) -> list[Tensor]:
    """Operands as tensors of one type and one shape. Numbers become constants; ``dtype`` overrides promotion."""
    items = [x if isinstance(x, Tensor) or is_scalar(x) else as_tensor(x, function, names[min(i, len(names) - 1)])
             for i, x in enumerate(items)]  # fmt: skip
    dtype = dtype or common_type(function, items)
    first = items[0]
    shape = first.shape if isinstance(first, Tensor) else ()
    if any((x.shape if isinstance(x, Tensor) else ()) != shape for x in items):
        shape = common_shape(function, [x.shape for x in items if isinstance(x, Tensor)])
    return [
        broadcast_to_shape(cast(x, dtype), shape)
        if isinstance(x, Tensor)
        else from_constant(x, dtype, shape, function)
        for x in items
    ]


def common_shape(function: str, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape several shapes broadcast to."""
    try:
        return broadcast_shapes(shapes)  # type: ignore[return-value]
    except ValueError:
        shown = " and ".join(map(str, shapes))
        raise ShapeError(
            f"{function}: shapes {shown} do not broadcast; from the last axis on, sizes must be equal or 1"
            " (insert axes with `expand_dims` or `x[:, None]`)"
        ) from None


def from_constant(number: Any, dtype: DType, shape: tuple[int, ...], function: str) -> Tensor:
    """A tensor of one repeated Python number."""
    if dtype.kind in "biu" and isinstance(number, (float, complex)) and not isinstance(number, bool):
        raise DTypeError(f"{function}: the number {number!r} does not fit a tensor of {dtype}")
    if dtype.is_integer and isinstance(number, int):
        info = np.iinfo(dtype.name)
        if not info.min <= number <= info.max:
            raise ArgumentError(
                f"{function}: {number} is outside the range of {dtype} ({info.min} to {info.max})"
            )
    return from_value(filled(number, dtype, shape))


def tensors_of(items: Iterable[Any], function: str, name: str) -> list[Tensor]:
    """A non-empty sequence of tensors."""
    if isinstance(items, Tensor):
        items = list(items)
    out = [as_tensor(x, function, f"{name}[{i}]") for i, x in enumerate(items)]
    if not out:
        raise ArgumentError(f"{function}: `{name}` needs at least one tensor")
    return out


def tracing() -> bool:
    """Whether a jitted function is being traced."""
    return modes.trace is not None
