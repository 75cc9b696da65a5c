"""Reading the arguments that many functions share: tensors, numbers, axes, shapes and types.

Every error names the function, the argument and what would be right.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tilewright.core import dtype as dt
from tilewright.core.diagnostics import suggest
from tilewright.core.dtype import DType
from tilewright.core.integers import integer
from tilewright.core.shape import Extent, broadcast_shapes
from tilewright.core.size import Size
from tilewright.graph.ir import Value, constant, make
from tilewright.graph.sizes import size_value
from tilewright.tensor import (
    ArgumentError,
    AxisError,
    DTypeError,
    ShapeError,
    Tensor,
    TracedValueError,
    apply,
    from_value,
    modes,
    operand_value,
)

__all__ = [
    "Axes", "TensorLike", "as_tensor", "axes_of", "axis_of", "broadcast_to_shape", "cast", "check_device", "common_type",
    "concrete", "count_of", "dtype_of", "extent",
    "filled", "float_tensor", "inexact", "is_scalar", "is_symbolic", "pair", "shape_of", "together", "whole",
]  # fmt: skip

TensorLike = Any  # a Tensor, a NumPy array, a number, or nested sequences of numbers
Axes = int | Sequence[int] | None
_NUMBERS = (bool, int, float, complex)


def is_scalar(x: Any) -> bool:
    """Whether ``x`` is a Python number, which takes the type of the tensor beside it. So does ``np.float64``, which is one
    too: what ``np.mean`` gives must not turn a float32 model into float64."""
    return isinstance(x, (*_NUMBERS, Size))


def as_tensor(x: TensorLike, function: str, name: str = "x", dtype: DType | None = None) -> Tensor:
    """``x`` itself when it is a tensor, else a new tensor with its elements."""
    if isinstance(x, Tensor):
        return x
    if x is None or isinstance(x, (str, bytes, dict, set)):
        raise DTypeError(f"{function}: `{name}` is a tensor, an array or a number, got {type(x).__name__}")
    try:
        return Tensor(x, dtype)
    except ArgumentError as error:  # the message names the function that was called
        raise type(error)(str(error).replace("tensor:", f"{function}: `{name}`:", 1)) from None


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


def check_device(device: Any, function: str) -> None:
    """Raise ``ArgumentError`` unless ``device`` is None or the only device there is."""
    if device is not None and str(device) != "cpu":
        raise ArgumentError(
            f"{function}: `device` is 'cpu' or None, got {str(device)!r}; there is no GPU support, everything runs on the CPU"
        )


def axis_of(axis: Any, rank: int, function: str, name: str = "axis") -> int:
    """A non-negative axis below ``rank``."""
    try:
        index = integer(axis)
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
        out = tuple(extent(d) for d in items)
    except TypeError:
        raise DTypeError(
            f"{function}: `{name}` is an integer or a sequence of integers, got {shape!r}"
        ) from None
    if any(d < 0 for d in out):
        raise ShapeError(f"{function}: `{name}` {out} has a negative size")
    return out


def whole(x: Any, function: str, name: str, least: int | None = None) -> int:
    """An integer argument, Python's or NumPy's, not below ``least``; a symbolic size passes as it is.

    A truth value is none: ``topk(x, True)`` is a mistake, such as a flag in the place of a count.
    """
    try:
        number = extent(x)
    except TypeError:
        raise DTypeError(f"{function}: `{name}` is an integer, got {x!r}") from None
    if least is not None and not is_symbolic(number) and number < least:
        expected = {0: "not negative", 1: "positive"}.get(least, f"at least {least}")
        raise ArgumentError(f"{function}: `{name}` is {expected}, got {number}")
    return number


def extent(size: Any) -> int:
    """An integer, or a symbolic size of a function that is being traced, which goes for one."""
    return size if isinstance(size, Size) else integer(size)  # type: ignore[return-value]


def is_symbolic(size: object) -> bool:
    """Whether a number of elements is a symbolic size of a function that is being traced."""
    return isinstance(size, Size)


def count_of(shape: Sequence[Extent], dtype: DType) -> Any:
    """How many elements a shape has, as an operand of arithmetic in ``dtype``: a number, or a tensor where the shape has
    symbolic sizes."""
    count: Extent = 1
    for d in shape:
        count = count * d
    return from_value(size_value(count, dtype)) if isinstance(count, Size) else count


def pair(x: Any, count: int, function: str, name: str) -> tuple[int, ...]:
    """``count`` integers: one number for all, or one for each."""
    items = tuple(x) if isinstance(x, (tuple, list)) else (x,) * count
    if len(items) != count or not all(isinstance(i, (int, np.integer)) and i is not True for i in items):
        raise ArgumentError(f"{function}: `{name}` is one integer or {count} of them, got {x!r}")
    return tuple(int(i) for i in items)


def cast(x: Tensor, dtype: DType) -> Tensor:
    """``x`` in another element type."""
    return x if x.dtype is dtype else apply("cast", x, dtype=dtype)


def inexact(dtype: DType) -> DType:
    """The type in which ``exp`` or a mean of elements of ``dtype`` is computed: integers and bool go to float32."""
    if dtype.is_storage:
        raise DTypeError(dt.only_stored(dtype))
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
    value = size_value(number, dtype) if isinstance(number, Size) else constant(number, dtype)
    return make("broadcast", (value,), shape=shape) if shape else value


def concrete(x: TensorLike, function: str, argument: str) -> np.ndarray[Any, Any]:
    """The elements of x, on which the shape of a result depends.

    While a function is traced they are not known; the error then names the argument that gives the size instead.
    """
    tensor = as_tensor(x, function)
    if modes.trace is not None and tensor._value.buffer is None:
        raise TracedValueError(
            f"{function}: the shape of the result depends on the elements of x, which are not known while `tw.jit` or a"
            f" transform traces the function; give the size with `{argument}=`, or call {function} outside"
        )
    return tensor.numpy()


def common_type(function: str, items: Sequence[Any]) -> DType:
    """The element type of several operands together: arrays promote, Python numbers adopt."""
    arrays = [x.dtype for x in items if isinstance(x, Tensor)]
    try:
        found = dt.promote(*arrays) if arrays else None
    except TypeError as error:
        raise DTypeError(f"{function}: {error}") from None
    if found is not None and found.is_storage and len(arrays) < len(items):
        raise DTypeError(f"{function}: {dt.only_stored(found)}")
    for x in items:
        if not isinstance(x, Tensor):
            alone = dt.of_scalar(1 if isinstance(x, Size) else x, found)
            found = alone if found is None else dt.promote(found, alone)
    if found is None:
        raise DTypeError(f"{function}: needs at least one operand")
    return found


def operands_of(function: str, items: Sequence[Any], names: Sequence[str] = ("x1", "x2")) -> list[Any]:
    """Operands as tensors, with Python numbers left as they are."""
    return [
        x if isinstance(x, Tensor) or is_scalar(x) else as_tensor(x, function, name)
        for x, name in zip(items, names, strict=True)
    ]


def pointwise(
    function: str, op: str, items: Sequence[Any], dtype: DType, condition: Tensor | None = None
) -> Tensor:
    """The elementwise operation ``op`` of operands converted to ``dtype`` and broadcast together.

    ``items`` are tensors and Python numbers; ``condition`` goes first and keeps its type. Conversions, broadcasts and
    constants are values between the operands and the result: they need no tensors of their own.
    """
    tensors = [x for x in items if isinstance(x, Tensor)]
    if condition is not None:
        tensors.append(condition)
    shape = tensors[0].shape if tensors else ()
    if any(t.shape != shape for t in tensors):
        shape = common_shape(function, [t.shape for t in tensors])
    recorded = False
    values: list[Value] = []
    for item in items if condition is None else (condition, *items):
        if not isinstance(item, Tensor):
            values.append(number_value(item, dtype, shape, function))
            continue
        value = operand_value(item)
        recorded = recorded or item._requires_grad
        if value.type.dtype is not dtype and item is not condition:
            value = make("cast", (value,), dtype=dtype)
        if value.type.shape != shape:
            value = make("broadcast", (value,), shape=shape)
        values.append(value)
    try:
        result = make(op, values)
    except TypeError as error:
        raise DTypeError(f"{function}: {error}") from None
    return from_value(result, tensors, recorded and modes.grad and result.type.dtype.is_inexact)


def together(function: str, *items: Tensor) -> list[Tensor]:
    """Tensors converted to one type and broadcast to one shape."""
    dtype = common_type(function, items)
    shape = common_shape(function, [x.shape for x in items])
    return [broadcast_to_shape(cast(x, dtype), shape) for x in items]


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


def number_value(number: Any, dtype: DType, shape: tuple[int, ...], function: str) -> Value:
    """A graph constant of one Python number repeated to a shape; an error when the type cannot hold it."""
    if isinstance(number, Size):
        value = size_value(number, dtype)
        return make("broadcast", (value,), shape=shape) if shape else value
    if dtype.kind in "biu":
        if isinstance(number, (float, complex)) and not isinstance(number, bool):
            raise DTypeError(f"{function}: the number {number!r} does not fit a tensor of {dtype}")
        if dtype.is_integer and isinstance(number, int):
            info = np.iinfo(dtype.name)
            if not info.min <= number <= info.max:
                raise ArgumentError(
                    f"{function}: {number} is outside the range of {dtype} ({info.min} to {info.max})"
                )
    try:
        return filled(number, dtype, shape)
    except OverflowError:  # Python's integers have no bound, its floats have
        raise ArgumentError(
            f"{function}: an integer of {number.bit_length()} bits is outside the range of {dtype}"
        ) from None


def from_constant(number: Any, dtype: DType, shape: tuple[int, ...], function: str) -> Tensor:
    """A tensor of one repeated Python number."""
    return from_value(number_value(number, dtype, shape, function))


def tensors_of(items: Iterable[Any], function: str, name: str) -> list[Tensor]:
    """A non-empty sequence of tensors."""
    if isinstance(items, Tensor):
        items = list(items)
    out = [
        x if isinstance(x, Tensor) else as_tensor(x, function, f"{name}[{i}]") for i, x in enumerate(items)
    ]
    if not out:
        raise ArgumentError(f"{function}: `{name}` needs at least one tensor")
    return out
