"""Making tensors: from data, from a number, from indices.

``tensor`` copies, ``asarray`` copies only when it must, ``from_numpy`` and ``from_dlpack`` share memory. Constants and
ranges are graph nodes: they take no memory until somebody reads them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.core.integers import plain
from tilewright.core.size import Size
from tilewright.functions.arguments import (
    TensorLike,
    as_tensor,
    cast,
    check_device,
    concrete,
    dtype_of,
    filled,
    from_constant,
    is_scalar,
    is_symbolic,
    number_value,
    shape_of,
    whole,
)
from tilewright.functions.elementwise import add, equal, floor, greater_equal, less_equal, multiply, where
from tilewright.functions.movement import broadcast_arrays, broadcast_to, expand_dims, reshape
from tilewright.graph.ir import make
from tilewright.runtime.buffers import Buffer
from tilewright.runtime.dlpack import import_capsule
from tilewright.tensor import (
    ArgumentError,
    DTypeError,
    ShapeError,
    Tensor,
    from_buffer,
    from_value,
    realize_tensors,
    to_array,
)

__all__ = [
    "arange", "asarray", "empty", "empty_like", "eye", "from_dlpack", "from_numpy", "full", "full_like", "iota", "linspace",
    "meshgrid", "one_hot", "ones", "ones_like", "realize", "tensor", "tril", "triu", "zeros", "zeros_like",
]  # fmt: skip


def tensor(data: TensorLike, dtype: Any = None, requires_grad: bool = False, *, device: Any = None) -> Tensor:
    """A tensor with a copy of ``data``: numbers, nested sequences, a NumPy array or a tensor.

    Python floats become float32, integers int64, bools bool; arrays keep their type. Raises ``DTypeError`` for what is not
    numbers and ``ShapeError`` for sequences of different lengths.

    >>> tensor([[1, 2], [3, 4]]).dtype
    int64
    """
    if device is not None:
        check_device(device, "tensor")
    return Tensor(data, None if dtype is None else dtype_of(dtype, "tensor"), requires_grad)


def asarray(obj: TensorLike, dtype: Any = None, copy: bool | None = None, *, device: Any = None) -> Tensor:
    """``obj`` as a tensor: itself when it is one, else over a read-only NumPy array's memory or a copy of the elements.

    Tensors are computed when they are read, so an array that may still be written to is copied: a buffer that is filled again
    for every batch must not change results that are pending. ``copy=False`` shares its memory all the same (``from_numpy``
    does, too) and raises ``ArgumentError`` where that is not possible; ``copy=True`` always copies.
    """
    if device is not None:
        check_device(device, "asarray")
    kind = None if dtype is None else dtype_of(dtype, "asarray")
    if isinstance(obj, Tensor):
        if kind is not None and kind is not obj.dtype:
            if copy is False:
                raise ArgumentError(f"asarray: a conversion from {obj.dtype} to {kind} needs a copy")
            return cast(obj, kind)
        return Tensor(obj) if copy else obj
    if (
        isinstance(obj, np.ndarray)
        and not copy
        and (copy is False or not obj.flags.writeable)
        and obj.flags.c_contiguous
        and (kind is None or kind.numpy == obj.dtype)
    ):
        return from_numpy(obj)
    if copy is False:
        raise ArgumentError(f"asarray: {type(obj).__name__} cannot be shared without a copy")
    return Tensor(obj, kind)


def from_numpy(array: np.ndarray[Any, Any]) -> Tensor:
    """A tensor over the memory of a NumPy array, without a copy when it is C-contiguous.

    Writing to the array afterwards changes what the tensor reads: do it only when no pending result depends on it.
    """
    if not isinstance(array, np.ndarray):
        raise DTypeError(f"from_numpy: a NumPy array is needed, got {type(array).__name__}; use `tensor`")
    array = to_array(array, None)
    return from_buffer(Buffer.from_numpy(array), dt.from_numpy(array.dtype), array.shape)


def from_dlpack(x: Any, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor over the memory of another library's array, without a copy when it is contiguous."""
    if not hasattr(x, "__dlpack__"):
        raise DTypeError(f"from_dlpack: {type(x).__name__} does not offer the DLPack protocol")
    try:
        buffer, shape, strides = import_capsule(x.__dlpack__())
    except BufferError as error:
        raise ArgumentError(f"from_dlpack: {error}") from None
    dense, step = True, 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        dense = dense and (size <= 1 or stride == step)
        step *= size
    if not dense and 0 not in shape:
        if copy is False:
            raise ArgumentError(
                f"from_dlpack: strides {strides} of shape {shape} are not contiguous; a copy is needed"
            )
        flat = buffer.to_numpy()
        view = np.lib.stride_tricks.as_strided(flat, shape, tuple(s * flat.itemsize for s in strides))
        buffer = Buffer.from_numpy(view, copy=True)
    elif copy:
        buffer = buffer.copy()
    return from_buffer(buffer, dt.from_numpy(buffer.dtype), shape)


def realize(*tensors: Any) -> Any:
    """Compute tensors now, together in one program, without copying them out. Gives back its arguments.

    Nested lists, tuples and dicts of tensors are followed.
    """
    realize_tensors(list(_tensors_in(tensors)))
    return tensors[0] if len(tensors) == 1 else tensors


def _tensors_in(item: Any) -> Iterator[Tensor]:
    # not a closure of `realize`: one that calls itself is a cycle, and would keep the tensors until it is collected
    if isinstance(item, Tensor):
        yield item
    elif isinstance(item, (list, tuple)):
        for each in item:
            yield from _tensors_in(each)
    elif isinstance(item, dict):
        yield from _tensors_in(list(item.values()))


# ---- constants ----------------------------------------------------------------------------------------------------


def _made(value: Any, requires_grad: bool) -> Tensor:
    out = from_value(value)
    if requires_grad:
        out.requires_grad = True
    return out


def full(
    shape: Any, fill_value: Any, dtype: Any = None, requires_grad: bool = False, *, device: Any = None
) -> Tensor:
    """A tensor of one repeated number, or of a tensor's elements broadcast to the shape."""
    if device is not None:
        check_device(device, "full")
    sizes = shape_of(shape, "full")
    if not is_scalar(fill_value):
        value = as_tensor(fill_value, "full", "fill_value")
        return broadcast_to(value if dtype is None else cast(value, dtype_of(dtype, "full")), sizes)
    kind = dt.of_scalar(fill_value) if dtype is None else dtype_of(dtype, "full")
    out = from_constant(fill_value, kind, sizes, "full")
    if requires_grad:
        out.requires_grad = True
    return out


def zeros(*shape: Any, dtype: Any = dt.float32, requires_grad: bool = False, device: Any = None) -> Tensor:
    """A tensor of zeros: ``zeros(2, 3)`` or ``zeros((2, 3))``."""
    if device is not None:
        check_device(device, "zeros")
    return _made(filled(0, dtype_of(dtype, "zeros"), _sizes(shape, "zeros")), requires_grad)


def ones(*shape: Any, dtype: Any = dt.float32, requires_grad: bool = False, device: Any = None) -> Tensor:
    """A tensor of ones: ``ones(2, 3)`` or ``ones((2, 3))``."""
    if device is not None:
        check_device(device, "ones")
    return _made(filled(1, dtype_of(dtype, "ones"), _sizes(shape, "ones")), requires_grad)


def empty(*shape: Any, dtype: Any = dt.float32, requires_grad: bool = False, device: Any = None) -> Tensor:
    """A tensor whose elements do not matter; they are zeros."""
    if device is not None:
        check_device(device, "empty")
    return _made(filled(0, dtype_of(dtype, "empty"), _sizes(shape, "empty")), requires_grad)


def _sizes(shape: tuple[Any, ...], function: str) -> tuple[int, ...]:
    return shape_of(shape[0] if len(shape) == 1 else shape, function)


def _like(x: TensorLike, number: Any, dtype: Any, function: str) -> Tensor:
    x = as_tensor(x, function)
    return from_constant(number, x.dtype if dtype is None else dtype_of(dtype, function), x.shape, function)


def zeros_like(x: TensorLike, dtype: Any = None, *, device: Any = None) -> Tensor:
    """Zeros in the shape and type of x."""
    if device is not None:
        check_device(device, "zeros_like")
    return _like(x, 0, dtype, "zeros_like")


def ones_like(x: TensorLike, dtype: Any = None, *, device: Any = None) -> Tensor:
    """Ones in the shape and type of x."""
    if device is not None:
        check_device(device, "ones_like")
    return _like(x, 1, dtype, "ones_like")


def empty_like(x: TensorLike, dtype: Any = None, *, device: Any = None) -> Tensor:
    """A tensor in the shape and type of x whose elements do not matter; they are zeros."""
    if device is not None:
        check_device(device, "empty_like")
    return _like(x, 0, dtype, "empty_like")


def full_like(x: TensorLike, fill_value: Any, dtype: Any = None, *, device: Any = None) -> Tensor:
    """One number (or a tensor's elements, broadcast) in the shape and type of x."""
    if device is not None:
        check_device(device, "full_like")
    if is_scalar(fill_value):
        return _like(x, fill_value, dtype, "full_like")
    x = as_tensor(x, "full_like")
    return full(x.shape, fill_value, x.dtype if dtype is None else dtype)


# ---- from indices -------------------------------------------------------------------------------------------------


def iota(shape: tuple[int, ...], axis: int = 0, dtype: DType = dt.int64) -> Tensor:
    """Each element is its index along ``axis``; an integer type."""
    return from_value(make("iota", (), shape=shape, axis=axis, dtype=dtype))


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None, *, device: Any = None) -> Tensor:
    """Numbers from ``start`` (0 when only one is given) up to, not including, ``stop``.

    >>> arange(2, 8, 2).tolist()
    [2, 4, 6]
    """
    if device is not None:
        check_device(device, "arange")
    if stop is None:
        start, stop = 0, start
    if step == 0:
        raise ArgumentError("arange: `step` is not 0")
    integral = all(isinstance(v, (int, np.integer, Size)) for v in (start, stop, step))
    if not integral and not math.isfinite((stop - start) / step):
        raise ArgumentError(f"arange: from {start} to {stop} by {step} there is no finite number of steps")
    kind = dtype_of(dtype, "arange") if dtype is not None else dt.int64 if integral else dt.float32
    count: Any = -((start - stop) // step) if integral else math.ceil((stop - start) / step)
    count = 0 if count <= 0 else count if isinstance(count, Size) else int(count)
    if not kind.is_integer and not integral:
        wide = iota((count,))
        out = add(multiply(cast(wide, dt.float64), float(step)), float(start))
        return cast(out, kind)
    if kind.is_integer and integral and count and not any(map(is_symbolic, (start, stop, step))):
        for end in (start, start + (count - 1) * step):
            number_value(int(end), kind, (), "arange")  # refuses what the type cannot hold
    out = iota((count,), 0, kind if kind.is_integer else dt.int64)
    if step != 1:
        out = multiply(out, int(step))
    if start != 0:
        out = add(out, start if isinstance(start, Size) else int(start))
    return cast(out, kind)


def linspace(
    start: float,
    stop: float,
    num: int = 50,
    endpoint: bool = True,
    retstep: bool = False,
    dtype: Any = None,
    *,
    device: Any = None,
) -> Any:
    """``num`` numbers at equal distances from ``start`` to ``stop``, which is the last one when ``endpoint``.

    ``retstep`` gives the distance of neighbours too, as a Python number. The type is float32 unless given.

    >>> linspace(0, 1, 3).tolist()
    [0.0, 0.5, 1.0]
    """
    if device is not None:
        check_device(device, "linspace")
    if is_symbolic(num):
        num = int(num)  # is refused: the distance of neighbours is a number
    num = plain(num)
    if isinstance(num, bool) or not isinstance(num, int) or num < 0:
        raise ArgumentError(f"linspace: `num` is a non-negative integer, got {num!r}")
    kind = dt.float32 if dtype is None else dtype_of(dtype, "linspace")
    steps = num - 1 if endpoint else num
    step = (stop - start) / steps if steps > 0 else math.nan
    index = cast(iota((num,)), dt.float64)
    out = add(multiply(index, step if steps > 0 else 0.0), float(start))
    if endpoint and steps > 0:  # the last number is exactly `stop`
        out = where(equal(iota((num,)), steps), float(stop), out)
    if kind.is_integer:
        out = floor(out)  # as NumPy: -0.5 belongs to -1, not to 0
    return (cast(out, kind), step) if retstep else cast(out, kind)


def eye(
    n_rows: int, n_cols: int | None = None, k: int = 0, dtype: Any = dt.float32, *, device: Any = None
) -> Tensor:
    """Ones on the k-th diagonal, zeros elsewhere: [n_rows, n_cols]."""
    if device is not None:
        check_device(device, "eye")
    shape = shape_of((n_rows, n_rows if n_cols is None else n_cols), "eye")
    k = whole(k, "eye", "k")
    k = min(max(k, -shape[0]), shape[1])  # further away there is no diagonal either
    return cast(equal(add(iota(shape, 0), k), iota(shape, 1)), dtype_of(dtype, "eye"))


def _triangle(x: TensorLike, k: int, function: str, keep: Any) -> Tensor:
    x = as_tensor(x, function)
    if x.ndim < 2:
        raise ShapeError(f"{function}: needs at least 2 axes, got shape {x.shape}")
    shape = x.shape[-2:]
    k = whole(k, function, "k")
    k = min(max(k, -shape[0]), shape[1])  # further away there is no diagonal either
    mask = keep(iota(shape, 1), add(iota(shape, 0), k) if k else iota(shape, 0))
    return where(mask, x, False if x.dtype.is_bool else 0)


def tril(x: TensorLike, k: int = 0) -> Tensor:
    """The last two axes with zeros above the k-th diagonal."""
    return _triangle(x, k, "tril", less_equal)


def triu(x: TensorLike, k: int = 0) -> Tensor:
    """The last two axes with zeros below the k-th diagonal."""
    return _triangle(x, k, "triu", greater_equal)


def meshgrid(*arrays: TensorLike, indexing: str = "xy", sparse: bool = False) -> list[Tensor]:
    """Coordinates of a grid from its axes: with ``"ij"`` axis i of every result runs over arrays[i]; ``"xy"`` swaps the
    first two. ``sparse`` results have size 1 along the other axes, and broadcast against each other."""
    if indexing not in ("xy", "ij"):
        raise ArgumentError(f"meshgrid: `indexing` is 'xy' or 'ij', got {indexing!r}")
    vectors = [as_tensor(a, "meshgrid") for a in arrays]
    if any(v.ndim > 1 for v in vectors):
        raise ShapeError("meshgrid: takes tensors of rank 1")
    order = list(range(len(vectors)))
    if indexing == "xy" and len(order) > 1:
        order[0], order[1] = 1, 0
    rank = len(vectors)
    placed = [
        reshape(v, tuple(v.size if j == order[i] else 1 for j in range(rank))) for i, v in enumerate(vectors)
    ]
    return broadcast_arrays(*placed) if placed and not sparse else placed


def one_hot(x: TensorLike, num_classes: int = -1, dtype: Any = dt.float32) -> Tensor:
    """A last axis of size ``num_classes`` with 1 at the element's value and 0 elsewhere (everywhere for other values).

    Without ``num_classes`` it is the largest value and 1 more; x is read for it, so ``tw.jit`` needs the number.

    >>> one_hot(Tensor([0, 2]), 3, dtype="int64").tolist()
    [[1, 0, 0], [0, 0, 1]]
    """
    x = as_tensor(x, "one_hot")
    if not x.dtype.is_integer:
        raise DTypeError(f"one_hot: classes are integers, got {x.dtype}")
    if num_classes == -1:
        found = concrete(x, "one_hot", "num_classes")
        num_classes = int(found.max()) + 1 if found.size else 0
    num_classes = plain(num_classes)
    if not is_symbolic(num_classes) and (
        isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 0
    ):
        raise ArgumentError(f"one_hot: `num_classes` is a non-negative integer, got {num_classes!r}")
    shape = (*x.shape, num_classes)
    classes = iota(shape, x.ndim, dt.int64)
    hit = equal(expand_dims(cast(x, dt.int64), x.ndim), classes)
    return cast(hit, dtype_of(dtype, "one_hot"))
