"""Per-thread modes: whether operations record derivatives, in which type products are computed, and which function is being
traced.

This file knows nothing of tensors; they ask it.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from tilewright.core.dtype import DType
    from tilewright.tensor.trace import Trace

__all__ = [
    "Restoring",
    "autocast",
    "enable_grad",
    "is_grad_enabled",
    "modes",
    "no_grad",
    "set_grad_enabled",
    "suspend_trace",
]

P = ParamSpec("P")
R = TypeVar("R")


class Modes(threading.local):
    """What holds for the running thread. ``grad``: derivatives are recorded. ``products``: the type to which float32 operands of
    contractions and convolutions are rounded, if any. ``trace``: the trace in progress. ``examples``: for each ``vmap`` around
    the running code, outermost first, the tensor that numbers its examples; None where drawing random numbers is an error."""

    grad: bool = True
    products: DType | None = None
    trace: Trace | None = None
    examples: tuple[Any, ...] = ()


modes = Modes()


def is_grad_enabled() -> bool:
    """Whether operations on tensors that require gradients are recorded for ``backward``."""
    return modes.grad


class Restoring:
    """A block that changes a mode: ``__enter__`` keeps the old one in ``_before``. Where there is native code, ``__exit__`` is a
    builtin (``leaving``), which nothing interrupts before the mode is what it was."""

    __slots__ = ()

    _mode = ""
    _before: list[Any]
    _left: Callable[..., None] | None = None  # what else is to be done, with the arguments of ``__exit__``

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        setattr(modes, self._mode, self._before.pop())
        if self._left is not None:
            self._left(kind, error, trace)


class set_grad_enabled(Restoring):
    """Turn the recording of derivatives on or off, in a ``with`` block or for a decorated function.

    >>> with set_grad_enabled(False):
    ...     is_grad_enabled()
    False
    """

    __slots__ = ("_before", "mode")

    _mode = "grad"

    def __init__(self, mode: bool) -> None:
        self.mode = bool(mode)
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(modes.grad)
        modes.grad = self.mode

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        mode = self.mode

        @functools.wraps(function)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
            with set_grad_enabled(mode):
                return function(*args, **kwargs)

        return wrapped


class no_grad(set_grad_enabled):
    """Operations inside record no derivatives: for evaluation and for updates of parameters.

    Use it as ``with no_grad():`` or as a decorator ``@no_grad()``.
    """

    __slots__ = ()

    def __init__(self) -> None:
        self.mode = False  # what the constructor above would do, which costs as much as a small call
        self._before = []


class enable_grad(set_grad_enabled):
    """Operations inside record derivatives, also within ``no_grad``."""

    def __init__(self) -> None:
        super().__init__(True)


class autocast(Restoring):
    """Round float32 operands of contractions and convolutions to ``dtype`` (bfloat16 or float16); sums and results stay float32.

    >>> import tilewright as tw
    >>> with autocast(tw.bfloat16):
    ...     (tw.ones((1, 1)) @ tw.asarray([[1.001]])).item()
    1.0
    """

    _mode = "products"

    def __init__(self, dtype: DType | None) -> None:
        if dtype is not None and not (dtype.is_float and dtype.bits == 16):
            raise TypeError(f"autocast: the type of products is bfloat16, float16 or None, got {dtype}")
        self.dtype = dtype
        self._before: list[DType | None] = []

    def __enter__(self) -> None:
        self._before.append(modes.products)
        modes.products = self.dtype


class suspend_trace(Restoring):
    """Operations inside run outside the trace in progress, as ordinary lazy tensors.

    For state that a jitted function creates on its first run and keeps (an optimizer's moments): such a tensor must not
    belong to the trace. Inside the block, shapes and types of traced tensors can be read, their elements cannot.
    """

    _mode = "trace"

    def __init__(self) -> None:
        self._before: list[Any] = []

    def __enter__(self) -> None:
        self._before.append(modes.trace)
        modes.trace = None
