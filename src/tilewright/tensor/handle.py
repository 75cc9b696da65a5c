"""``Tensor``: a handle on a value of the graph, and the one way operations are applied to tensors.

A tensor is lazy: ``apply`` adds a typed node; reading (``numpy``, ``item``, ``bool``, printing) computes what is needed.
Tensors are immutable in the graph; writing in place (``x[i] = v``, ``x += y``) binds the handle to a new value.

The functions that most methods stand for live in ``tilewright.functions``, which installs them here; their types are
declared in ``signatures``. It does not know how values are computed (``lazy``) nor differentiated (``gradients``).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.core.scalar import cast_numpy
from tilewright.core.shape import total
from tilewright.core.size import Size
from tilewright.graph.ir import Value, constant, make
from tilewright.graph.sizes import size_value
from tilewright.graph.template import Template
from tilewright.runtime.buffers import CHANGES, Buffer
from tilewright.runtime.team import state
from tilewright.tensor import gradients, hooks, lazy, views
from tilewright.tensor.errors import ArgumentError, AxisError, DTypeError, GradientError, ShapeError
from tilewright.tensor.modes import modes, no_grad
from tilewright.tensor.trace import Trace

__all__ = ["Axes", "Scalar", "Tensor", "apply", "from_buffer", "from_value", "operand_value"]

Scalar = bool | int | float | complex
Axes = int | Sequence[int] | None


if TYPE_CHECKING:
    from tilewright.tensor.signatures import Methods
else:
    Methods = object  # the functions that these methods stand for are installed by tilewright.functions


class ElementCount(int):
    """The number of a tensor's elements, which can be called for its shape."""

    shape: tuple[int, ...]

    def __call__(self, dim: int | None = None) -> Any:
        """The shape, or the size of axis ``dim``."""
        if dim is None:
            return self.shape
        if not -len(self.shape) <= dim < len(self.shape):
            raise AxisError(f"size: `dim` {dim} is out of range for a tensor of rank {len(self.shape)}")
        return self.shape[dim]


class Tensor(Methods):
    """An n-dimensional array of one element type, computed when it is read.

    Make one with ``tw.tensor``, ``tw.zeros``, ``tw.from_numpy``, ...; ``Tensor(data)`` is ``tw.tensor(data)``.

    >>> x = Tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad.tolist()
    [[2.0, 4.0], [6.0, 8.0]]
    """

    __slots__ = (
        "__weakref__", "_chain", "_grad", "_group", "_hooks", "_leaf", "_requires_grad", "_trace", "_value",
    )  # fmt: skip
    __array_priority__ = 1000

    _value: Value
    _group: lazy.Group | None
    _trace: Trace | None
    _grad: Tensor | None
    _requires_grad: bool
    _leaf: bool
    _hooks: hooks.LeafHooks | None
    _chain: int  # elementwise operations in a row that are pending below

    def __init__(self, data: Any, dtype: Any = None, requires_grad: bool = False) -> None:
        if isinstance(data, Tensor):
            value = (
                operand_value(data)
                if not data._requires_grad
                else make("stop_gradient", (operand_value(data),))
            )
            source: Tensor | None = data
            if dtype is not None and dt.from_numpy(dtype) is not value.type.dtype:
                value = make("cast", (value,), dtype=dt.from_numpy(dtype))
        else:
            value, source = literal(data, None if dtype is None else dt.from_numpy(dtype)), None
        self._start(value, False, (source,) if source is not None else ())
        if requires_grad:
            self.requires_grad = True

    def _start(
        self,
        value: Value,
        requires_grad: bool,
        operands: Sequence[Tensor],
        nodes: int = 1,
        template: Template | None = None,
    ) -> None:
        self._value = value
        self._grad = None
        self._group = None
        self._requires_grad = requires_grad
        self._leaf = False
        self._hooks = None
        self._chain = 0
        self._trace = modes.trace
        if requires_grad:
            lazy.name_interior(value, self)
        if self._trace is None:
            if value.buffer is None:
                lazy.enroll(self, operands, nodes, template)
            elif not requires_grad and value.op != "input":
                lazy.settle(self)

    # ---- what it is -------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return cast("tuple[int, ...]", self._value.type.shape)

    @property
    def dtype(self) -> DType:
        """Element type."""
        return self._value.type.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self._value.type.shape)

    @property
    def size(self) -> ElementCount:
        """Number of elements, an integer; called, the shape or the size of one axis (PyTorch's ``x.size(0)``)."""
        number = total(self._value.type.shape)
        if not isinstance(number, int):
            return number  # type: ignore[return-value]
        count = ElementCount(number)
        count.shape = self._value.type.shape  # type: ignore[assignment]
        return count

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return self.size * self._value.type.dtype.itemsize

    @property
    def device(self) -> str:
        """Where the elements lie: always ``"cpu"``."""
        return "cpu"

    def to_device(self, device: Any, /, *, stream: Any = None) -> Tensor:
        """The tensor itself: ``"cpu"`` is the only device. Raises ``ArgumentError`` for another."""
        if device != "cpu" or stream is not None:
            raise ArgumentError(f"to_device: the only device is 'cpu', without streams, got {device!r}")
        return self

    @property
    def is_leaf(self) -> bool:
        """Whether it was made by the user and not by a differentiable operation."""
        return self._leaf or not self._requires_grad

    def __len__(self) -> int:
        if not self.shape:
            raise DTypeError("len() of a tensor of rank 0; it has one element, read it with `.item()`")
        return self.shape[0]

    __hash__ = object.__hash__

    # ---- gradients --------------------------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        """Whether ``backward`` gives gradients with respect to this tensor or what it was made from."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, flag: bool) -> None:
        if flag == self._requires_grad:
            return
        if flag:
            if not self.dtype.is_inexact:
                raise DTypeError(
                    f"requires_grad: a tensor of {self.dtype} has no gradient; only floating types have"
                )
            value = operand_value(self)
            self._requires_grad = self._leaf = True
            self._become(value)
        elif not self._leaf:
            raise GradientError("requires_grad: only a leaf can stop requiring gradients; use `x.detach()`")
        else:
            value = make("stop_gradient", (operand_value(self),))
            self._requires_grad = self._leaf = False
            self._become(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set ``requires_grad`` and return the tensor itself."""
        self.requires_grad = requires_grad
        return self

    @property
    def grad(self) -> Tensor | None:
        """The gradient that ``backward`` accumulated here, or None."""
        if modes.trace is not None:
            modes.trace.note_grad(self)
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None and (not isinstance(value, Tensor) or value.shape != self.shape):
            raise ShapeError(
                f"grad: a tensor of shape {self.shape} or None is needed, got {_describe(value)}"
            )
        if modes.trace is not None:
            modes.trace.note_grad(self, replaced=True)
        self._grad = value

    def retain_grad(self) -> None:
        """Let ``backward`` fill ``.grad`` of this interior tensor too. A leaf has one anyway."""
        if not self._requires_grad:
            raise GradientError("retain_grad: the tensor does not require gradients")
        if not self._leaf:
            hooks.watched(self, self._wrapped).retains = True

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> hooks.HookHandle:
        """Call ``hook(gradient)`` with the gradient of this tensor whenever one is computed; ``remove()`` of the result ends
        that.

        What the hook returns, unless None, is used instead: for what lies below an interior tensor, for ``.grad`` of a
        leaf. Hooks run in the order of their registration. Inside ``tw.jit`` a hook runs while the function is traced.

        >>> w = Tensor([1.0, 2.0], requires_grad=True)
        >>> h = w * 3
        >>> handle = h.register_hook(lambda g: g * 10)
        >>> h.sum().backward()
        >>> w.grad.tolist()
        [30.0, 30.0]
        """
        if not self._requires_grad:
            raise GradientError("register_hook: the tensor does not require gradients, so it never gets one")
        if self._leaf:
            return hooks.HookHandle(self._leaf_hooks().gradient, hook)
        return hooks.HookHandle(hooks.watched(self, self._wrapped).hooks, hook)

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> hooks.HookHandle:
        """Call ``hook(tensor)`` after ``backward`` has added to ``.grad`` of this leaf: to update a parameter there and then.

        >>> w = Tensor([1.0], requires_grad=True)
        >>> handle = w.register_post_accumulate_grad_hook(lambda p: print(p.grad.tolist()))
        >>> (w * 2).sum().backward()
        [2.0]
        """
        if not self._leaf:
            raise GradientError(
                "register_post_accumulate_grad_hook: only leaves that require gradients accumulate them; use"
                " `register_hook` for the gradient of another tensor"
            )
        return hooks.HookHandle(self._leaf_hooks().accumulated, hook)

    def _leaf_hooks(self) -> hooks.LeafHooks:
        if self._hooks is None:
            self._hooks = hooks.LeafHooks()
        return self._hooks

    @staticmethod
    def _wrapped(value: Value, requires_grad: bool) -> Tensor:
        """A gradient as a hook sees it."""
        return from_value(value, (), requires_grad)

    @staticmethod
    def _computed(leaf: Value) -> Tensor:
        """A tensor over a fresh leaf, outside of any trace."""
        return from_leaf(leaf)

    def backward(
        self, gradient: Tensor | None = None, retain_graph: bool | None = None, create_graph: bool = False
    ) -> None:
        """Add the gradient of this tensor with respect to every leaf below it to the leaf's ``.grad``.

        ``gradient`` has this tensor's shape and may be left out for one element. The graph is freed afterwards unless
        ``retain_graph``; ``create_graph`` records the computation of the gradients (for gradients of gradients), and
        retains the graph. A leaf that this tensor depends on by operations without slope only gets zeros, one that it
        does not depend on keeps what it has. Raises ``GradientError`` when nothing below requires gradients or the graph
        was freed.

        >>> w = Tensor([1.0, 2.0], requires_grad=True)
        >>> (w ** 2).sum().backward()
        >>> w.grad.tolist()
        [2.0, 4.0]
        """
        gradients.backward(
            self, gradient, create_graph if retain_graph is None else retain_graph, create_graph
        )

    def detach(self) -> Tensor:
        """The same elements without their history."""
        value = self._value
        if value.buffer is not None and self._trace is None and modes.trace is None:
            return from_leaf(lazy.leaf_of(value.buffer, value.type))
        return from_value(make("stop_gradient", (operand_value(self),)), (self,))

    def clone(self) -> Tensor:
        """Another handle on the same elements, with their history: writing to one in place leaves the other."""
        value = operand_value(self)
        return from_value(value, (self,), self._requires_grad and modes.grad)

    @property
    def data(self) -> Tensor:
        """The tensor without its history; assigning to it writes the elements, also of a leaf with gradients."""
        return self.detach()

    @data.setter
    def data(self, value: Any) -> None:
        with no_grad():
            self.assign(value)

    # ---- reading ----------------------------------------------------------------------------------------------

    def realize(self) -> Tensor:
        """Compute the elements now, without copying them out. Returns the tensor itself."""
        if self._value.buffer is None:
            lazy.realize(self)
        return self

    def numpy(self) -> np.ndarray[Any, Any]:
        """The elements as a NumPy array: a read-only view of the tensor's memory, without a copy.

        Tensors share memory with each other, so the view cannot be written; ``np.array(x)`` gives a copy that can.
        """
        array = self._buffer().to_numpy(self.shape, readonly=True)
        if state.current is not None:  # a program ran, so native code is loaded anyway
            views.install(Tensor)
        return array

    def _buffer(self) -> Buffer:
        if self._trace is not modes.trace:
            lazy.check_usable(self)
        buffer = self._value.buffer
        if buffer is None:
            lazy.realize(self)
            buffer = self._value.buffer
        return buffer  # type: ignore[no-any-return]

    def item(self) -> Any:
        """The only element as a Python number. Raises ``ShapeError`` when there is not exactly one."""
        shape = self._value.type.shape
        if shape and self.size != 1:
            raise ShapeError(f"item: the tensor of shape {self.shape} has {self.size} elements, not one")
        element, plain = self.numpy(), _plain_type(self.dtype)
        return (element if element.dtype is plain else element.reshape(()).astype(plain)).item()

    def tolist(self) -> Any:
        """The elements as nested lists of Python numbers."""
        array = self.numpy()
        return array.astype(_plain_type(self.dtype), copy=False).tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        array = self.numpy()
        if dtype is not None and np.dtype(dtype) != array.dtype:
            if copy is False:
                raise ValueError(f"a conversion from {self.dtype} to {np.dtype(dtype)} needs a copy")
            return array.astype(dtype)
        return array.copy() if copy else array

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """Share the elements with another library without a copy (read-only where the protocol can say so)."""
        if self.dtype is dt.bfloat16 or self.dtype.is_storage:
            raise DTypeError(
                f"__dlpack__: {self.dtype} is not exchanged; convert with `x.astype(tw.float32)`"
            )
        if dl_device is not None and tuple(dl_device) != self.__dlpack_device__():
            raise BufferError(f"__dlpack__: tensors lie on device (1, 0), the CPU; {dl_device} is another")
        if copy is not True:
            self._buffer().version = CHANGES  # not every consumer minds that memory is read-only
        if max_version is not None and max_version[0] >= 1:
            return self.numpy().__dlpack__(stream=stream, max_version=max_version, copy=copy)
        # A consumer of the old protocol cannot be told that memory is read-only, so it gets its own copy, unless it asks
        # for the memory itself: then it must not write, as tensors share theirs.
        if copy is False:
            shared = self._buffer().to_numpy(self.shape)
        else:
            shared = np.array(self.numpy())
        return shared.__dlpack__(stream=stream)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return sys.modules["tilewright"].array_api

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ShapeError(
                f"the truth of a tensor of shape {self.shape} is not one value; use `.any()` or `.all()` (or `.size`)"
            )
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __complex__(self) -> complex:
        return complex(self.item())

    def __index__(self) -> int:
        if not self.dtype.is_integer:
            raise DTypeError(f"a tensor of {self.dtype} is not an index; only integers are")
        return int(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    def __iter__(self) -> Iterator[Tensor]:
        if not self.shape:
            raise DTypeError("a tensor of rank 0 cannot be iterated; read it with `.item()`")
        return (self[i] for i in range(self.shape[0]))

    def __repr__(self) -> str:
        tail = ", requires_grad=True" if self._requires_grad else ""
        if self._trace is not None and self._value.buffer is None:
            return f"Tensor(shape={self.shape}, dtype={self.dtype}{tail}, traced)"
        text = np.array2string(self.numpy(), separator=", ", prefix="Tensor(", threshold=1000)
        return f"Tensor({text}, dtype={self.dtype}{tail})"

    def __reduce__(self) -> Any:
        raise TypeError(
            "tensors are not pickled: write them to a file with `tw.save(x, path)`, or `tw.save(model.state_dict(), path)` for a"
            " model; give `x.numpy()` to other processes, and `copy.deepcopy` makes a copy in this one"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copied = type(self).__new__(type(self))
        with no_grad():
            copied._start(make("stop_gradient", (operand_value(self),)), False, (self,))
        if self._requires_grad and self._leaf:
            copied.requires_grad = True
        if hasattr(self, "__dict__"):
            copied.__dict__.update(self.__dict__)
        memo[id(self)] = copied
        return copied

    def __copy__(self) -> Tensor:
        return self.__deepcopy__({})

    # ---- writing ----------------------------------------------------------------------------------------------

    def assign(self, value: Any) -> Tensor:
        """Give this tensor new elements: the handle is bound to ``value``, cast and broadcast to its type and shape.

        Inside ``tw.jit`` the elements are written back after the call. On a leaf that requires gradients it is an error
        outside ``no_grad``. Returns the tensor itself.
        """
        new = value if isinstance(value, Tensor) else Tensor(value)
        if new.dtype is not self.dtype:
            new = apply("cast", new, dtype=self.dtype)
        if new.shape != self.shape:
            try:
                new = apply("broadcast", new, shape=self.shape)
            except ValueError:
                raise ShapeError(
                    f"assign: a value of shape {new.shape} does not fit a tensor of shape {self.shape}"
                ) from None
        return self._rebind(new, "assign")

    def _rebind(self, new: Tensor, what: str) -> Tensor:
        """Bind the handle to the value of ``new``, which has its type and shape."""
        if new is self:
            return self
        if self._trace is not modes.trace:
            lazy.check_usable(self)
        value = operand_value(new)
        if self._leaf:
            if modes.grad:
                raise GradientError(
                    f"{what}: a leaf that requires gradients is not written in place while derivatives are recorded;"
                    " put the line under `with tw.no_grad():`"
                )
            if new._requires_grad:
                value = make("stop_gradient", (value,))
        else:
            self._requires_grad = new._requires_grad and modes.grad
        self._become(value, new)
        return self

    def _become(self, value: Value, source: Tensor | None = None) -> None:
        """Take over a value; a leaf with gradients gets one of its own, so that interning confuses no two leaves."""
        group = source._group if source is not None else self._group
        if self._leaf:
            if value.buffer is not None:
                value = lazy.leaf(value.buffer, value.type.dtype, value.type.shape)  # type: ignore[arg-type]
            else:
                value = make("mark", (value,), id=next(lazy.marks))
            lazy.register_role(value, self)
        elif self._requires_grad:
            lazy.name_interior(value, self)
        self._value = value
        self._group = None
        self._chain = source._chain if source is not None else 0
        if value.buffer is None and modes.trace is None:
            if group is None:
                lazy.enroll(self, ())
            else:
                self._group = lazy.find(group)
                self._group.add(self)

    def _like(self, value: Value, requires_grad: bool, operands: Sequence[Tensor], nodes: int = 1) -> Tensor:
        """A plain tensor over ``value``, pending together with ``operands``."""
        return from_value(value, operands, requires_grad, nodes)


# ---- applying operations ----------------------------------------------------------------------------------------


def operand_value(tensor: Tensor) -> Value:
    """The value an operation reads from a tensor: without its history under ``no_grad``, taken in by a running trace."""
    if tensor._trace is not modes.trace:
        lazy.check_usable(tensor)
    if tensor._requires_grad and not modes.grad:
        return make("stop_gradient", (tensor._value,))
    return tensor._value


def apply(op: str, *operands: Tensor, **attrs: Any) -> Tensor:
    """The graph operation ``op`` applied to tensors whose types already fit.

    The result requires gradients when an operand does, its type has derivatives and derivatives are being recorded.
    """
    recorded = False
    values = []
    for tensor in operands:
        if tensor._trace is not modes.trace:
            lazy.check_usable(tensor)
        value = tensor._value
        if tensor._requires_grad:
            if modes.grad:
                recorded = True
            else:
                value = make("stop_gradient", (value,))
        values.append(value)
    try:
        result = make(op, values, **attrs)
    except TypeError as error:
        for v in values:
            if v.dtype.is_storage:
                raise DTypeError(str(error)) from None
        raise
    return from_value(result, operands, recorded and result.type.dtype.is_inexact)


def from_value(
    value: Value,
    operands: Sequence[Tensor] = (),
    requires_grad: bool = False,
    nodes: int = 1,
    template: Template | None = None,
) -> Tensor:
    """A tensor over a graph value, pending together with the tensors it was made of, possibly by a template."""
    tensor = Tensor.__new__(Tensor)
    tensor._start(value, requires_grad, operands, nodes, template)
    return tensor


def from_leaf(value: Value) -> Tensor:
    """A tensor over a fresh leaf, outside of any trace: what ``from_value`` does, for results of compiled calls."""
    tensor = Tensor.__new__(Tensor)
    tensor._value = value
    tensor._grad = tensor._group = tensor._trace = tensor._hooks = None
    tensor._requires_grad = tensor._leaf = False
    tensor._chain = 0
    return tensor


def from_buffer(buffer: Buffer, dtype: DType, shape: tuple[int, ...]) -> Tensor:
    """A tensor over memory that holds its elements in row-major order."""
    leaf = lazy.leaf(buffer, dtype, shape)
    return from_leaf(leaf) if modes.trace is None else from_value(leaf)


def literal(data: Any, dtype: DType | None) -> Value:
    """A leaf that holds a copy of Python numbers, nested sequences of them or a NumPy array; a symbolic size's number."""
    if isinstance(data, Size):
        return size_value(data, dtype or dt.int64)
    if (
        not (dtype is not None and dtype.is_storage)
        and isinstance(data, (bool, int, float, complex))
        and not isinstance(data, np.generic)
        and not _is_signed_nan(data)
    ):
        try:
            return constant(data, dtype or dt.of_scalar(data))
        except OverflowError:
            raise ArgumentError(_too_large(data, dtype or dt.of_scalar(data))) from None
    array = to_array(data, dtype)
    return lazy.leaf(Buffer.from_numpy(array, copy=True), dt.from_numpy(array.dtype), array.shape)


def _plain_type(dtype: DType) -> np.dtype[Any]:
    """NumPy's own type that holds the elements and gives Python numbers."""
    if dtype in (dt.int4, dt.uint4):
        return np.dtype(np.int8)
    return np.dtype(np.float32) if dtype.is_storage or dtype is dt.bfloat16 else dtype.numpy


def _is_signed_nan(number: Any) -> bool:
    """Whether a number is a NaN with its sign bit set, which constants of the graph do not keep apart from NaN."""
    return isinstance(number, float) and number != number and math.copysign(1, number) < 0


def to_array(data: Any, dtype: DType | None) -> np.ndarray[Any, Any]:
    """A C-contiguous NumPy array of a supported type; Python floats become float32, Python integers int64."""
    if isinstance(data, Tensor):
        array: np.ndarray[Any, Any] = data.numpy()
    elif isinstance(data, (np.ndarray, np.generic)):
        array = np.asarray(data)
    else:
        try:
            array = np.asarray(_plain(data))
        except ValueError:
            raise ShapeError(
                "tensor: the nested sequences have different lengths; a tensor is a full grid, pad the shorter ones"
            ) from None
        if array.dtype == np.float64 and dtype is None and not _has_numpy(data):
            array = array.astype(np.float32)
        elif array.dtype == np.complex128 and dtype is None and not _has_numpy(data):
            array = array.astype(np.complex64)
    if array.dtype == object and (number := _unbounded(data)) is not None:
        if dtype is None or not dtype.is_inexact:
            raise ArgumentError(_too_large(number, dtype or dt.int64))
        try:
            array = np.asarray(_plain(data), np.float64)
        except OverflowError:
            raise ArgumentError(_too_large(number, dtype)) from None
    if array.dtype == object or (array.dtype.kind in "SUVMm" and array.dtype.isbuiltin != 2):
        raise DTypeError(f"tensor: {_describe(data)} does not hold numbers of a supported type")
    if dtype is not None and array.dtype != dtype.numpy:
        if dtype.is_integer and array.dtype.kind in "iu" and array.size and not _is_array(data):
            low, high = _bounds(dtype)  # what a program writes down is meant; elements that are computed wrap
            for extreme in (int(array.min()), int(array.max())):
                if not low <= extreme <= high:
                    raise ArgumentError(_too_large(extreme, dtype))
        array = cast_numpy(array, dtype)
    else:
        array = array.astype(dt.from_numpy(array.dtype).numpy, copy=False)
    return np.ascontiguousarray(array).reshape(array.shape)


def _is_array(data: Any) -> bool:
    return isinstance(data, (Tensor, np.ndarray, np.generic))


def _bounds(dtype: DType) -> tuple[int, int]:
    low = -(1 << dtype.bits - 1) if dtype.kind == "i" else 0
    return low, low + (1 << dtype.bits) - 1


def _too_large(number: int | float | complex, dtype: DType) -> str:
    """What is wrong with a Python number that a type cannot hold."""
    shown = number if not isinstance(number, int) or abs(number) < 10**40 else "an integer of so many digits"
    if not dtype.is_integer:
        return f"tensor: {shown} is outside the range of {dtype}"
    low, high = _bounds(dtype)
    return f"tensor: {shown} is outside the range of {dtype} ({low} to {high})"


def _unbounded(data: Any) -> int | None:
    """An integer in nested sequences that no type holds."""
    if isinstance(data, (list, tuple)):
        return next((found for d in data if (found := _unbounded(d)) is not None), None)
    return data if isinstance(data, int) and not -(1 << 63) <= data < 1 << 64 else None


def _plain(data: Any) -> Any:
    """Nested sequences with tensors replaced by arrays."""
    if isinstance(data, Tensor):
        return data.numpy()
    if isinstance(data, (list, tuple)):
        return [_plain(d) for d in data]
    return data


def _has_numpy(data: Any) -> bool:
    if isinstance(data, (list, tuple)):
        return any(_has_numpy(d) for d in data)
    return isinstance(data, (np.ndarray, np.generic, Tensor)) or not isinstance(
        data, (bool, int, float, complex)
    )


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {value.shape}"
    return f"{type(value).__name__}"
