"""Jitted functions: a Python function over tensors, traced once per kind of arguments and run as one compiled program.

Tracing runs the function with stand-ins for its tensors. Tensors it reads without receiving them (parameters) are captured
by handle: each call binds the memory they have then. Tensors it assigns (parameters, optimizer state, batch statistics,
random state) are written back after the run, over their own memory when nobody else holds it. A later call with arguments
of the same structure, shapes, types and static values costs a few microseconds of Python and one native call.

Results that require gradients when the call ends can be differentiated later: they remember the call, and its graph is
written out when a derivative is asked for. Where a graph would have to cross the call in other ways (an argument that was
computed from tensors with gradients, a tensor written with a history) the function runs as ordinary lazy code instead, so
that no gradient is ever lost.

While a function is traced the tensors it reads hold values of the trace. Calls of jitted functions from other threads wait
until it ends (`_Turns`); that other code must not use these tensors meanwhile is a limit (docs/reliability.md). Calls that
Python code runs take turns as well, since what they read, compute and write back is one change of the tensors' state.
"""

from __future__ import annotations

import copy
import functools
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from sys import getrefcount
from typing import Any, Generic, ParamSpec, TypeVar, overload

import numpy as np

from tilewright import compiler
from tilewright.core import assumptions, interpreter
from tilewright.core import dtype as dt
from tilewright.core.settings import settings
from tilewright.core.size import SymbolicSizeError
from tilewright.core.trees import unflatten
from tilewright.graph.ir import TensorType, Value, constant
from tilewright.jit.arguments import aliased, flat, hashable, nested, stand_ins
from tilewright.jit.compile import TraceCompiler
from tilewright.jit.plan import NO_PLAN, install, make_plan
from tilewright.jit.variant import (
    ARGUMENT,
    CAPTURED,
    GRADIENT,
    OUTPUT,
    RETURNED_ARGUMENT,
    RETURNED_GRADIENT,
    SIZE,
    Variant,
)
from tilewright.runtime import builtin
from tilewright.runtime.buffers import Buffer
from tilewright.runtime.team import state
from tilewright.tensor import DTypeError, Tensor, lazy, modes
from tilewright.tensor.handle import from_buffer, from_leaf, from_value
from tilewright.tensor.lazy import leaf_of
from tilewright.tensor.sizes import DynamicSizes
from tilewright.tensor.trace import Trace

__all__ = ["Jitted", "jit"]

P = ParamSpec("P")
R = TypeVar("R")
VARIANTS_PER_KEY = 8  # traces kept that differ in watched attributes or captured types only
VARIANT_LIMIT = 64  # traces kept per function; the least recently used goes first


class _Holder:
    __slots__ = ("item",)
    item: object


def _count_sole() -> int:
    """What ``getrefcount`` says of an object held by one attribute and one local variable, in this Python version. Less than
    it ever says where that may mean something else: every object may be somebody else's then."""
    if interpreter.reason() is not None:
        return -1
    holder = _Holder()
    holder.item = object()
    item = holder.item
    return getrefcount(item)


_SOLE = _count_sole()


class _Turns:
    """Who traces, or runs a call in Python code: one thread at a time."""

    def __init__(self) -> None:
        self.lock = threading.RLock()

    def settle(self) -> None:
        """Send calls without Python code this way too, and wait for one that runs: from here on nobody else binds tensors."""
        assumptions.changed()
        with state.lock:
            pass

    def renew(self) -> None:
        """A forked child has one thread, which holds nothing."""
        self.lock = threading.RLock()


_turns = _Turns()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_turns.renew)


class Jitted(Generic[P, R]):
    """A function compiled by ``tw.jit``. Call it like the function; ``explain`` shows what it became."""

    __slots__ = ("__dict__", "__weakref__", "_plan")

    def __init__(self, function: Callable[P, R], keep_grads: bool = False, dynamic: Any = None) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._keep_grads, self._dynamic = keep_grads, dynamic
        self._variants: OrderedDict[Any, list[Variant]] = OrderedDict()
        self._name = (getattr(function, "__qualname__", "") or repr(function)).replace("<locals>.", "")
        self.traces = 0  # how many times the function was traced
        self._plan = NO_PLAN  # of the last call, when it was of a kind that has one
        self._sizes = None if dynamic is None else DynamicSizes(function, dynamic, self._name)
        # Kinds of arguments whose sizes have to be known, and why: a code and a sentence
        self.specialised: dict[Any, tuple[str, str]] = {}

    def __repr__(self) -> str:
        return f"<tw.jit of {self._name}>"

    def __copy__(self) -> Jitted[P, R]:
        """The function, jitted anew: what was compiled belongs to the tensors that this one has captured."""
        return type(self)(self._function, self._keep_grads, self._dynamic)

    def __deepcopy__(self, memo: dict[int, Any]) -> Jitted[P, R]:
        """As ``copy``; a method's object is copied with it."""
        copied = type(self)(copy.deepcopy(self._function, memo), self._keep_grads, self._dynamic)
        memo[id(self)] = copied
        return copied

    def __reduce__(self) -> str:
        """By name, as Python's own functions: another process has its own, and compiles it there."""
        return str(self.__dict__.get("__qualname__", self._name))

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function's program for arguments of this kind."""
        if modes.trace is not None:  # inside another jitted function: part of its program
            return self._function(*args, **kwargs)
        with _turns.lock:
            leaves, structure = flat(args, kwargs)
            variant, dynamic, numbers = self._select(leaves, structure)
            if not (variant is None or variant.inline or (variant.written and aliased(variant, dynamic))):
                result = self._run(variant, dynamic, numbers)
                if self._sizes is None:
                    self._plan_for(variant, (*args, *kwargs.values()), tuple(kwargs), leaves)
                return result  # type: ignore[no-any-return]
        return self._function(*args, **kwargs)

    _call = __call__  # which becomes a builtin that calls this one where a plan does not fit

    def _plan_for(
        self, variant: Variant, args: Sequence[Any], names: tuple[str, ...], leaves: Sequence[Any]
    ) -> None:
        """Let the next call of this kind run without Python code, if it can."""
        if variant.plan is None:
            plain = len(args) == len(leaves) and all(a is b for a, b in zip(args, leaves, strict=True))
            install(Jitted)
            variant.plan = (make_plan(variant, args, names, _rebind) if plain else None) or NO_PLAN
        variant.plan.arm()
        self._plan = variant.plan

    def _select(
        self, leaves: Sequence[Any], structure: Any
    ) -> tuple[Variant | None, list[Any], dict[str, int]]:
        """The trace for a call, made now if there is none, the tensors and arrays among the leaves, and the numbers of its
        symbolic sizes. No trace: gradients flow in from outside."""
        if self._sizes is not None:
            shapes, numbers = self._sizes(leaves, structure)
            key, dynamic = self._key(leaves, structure, shapes)
            if key is not None and key not in self.specialised:
                if any(
                    shape is not None and isinstance(leaf, Tensor) and leaf._requires_grad and modes.grad
                    for leaf, shape in zip(leaves, shapes, strict=True)
                ):
                    self.specialised[key] = (
                        "gradient-argument",
                        "an argument of symbolic size requires gradients",
                    )
                else:
                    try:
                        return self._fitting(key, leaves, structure, dynamic, shapes), dynamic, numbers
                    except compiler.NeedsNumbers as error:
                        self.specialised[key] = (error.code, str(error))
                    except SymbolicSizeError as error:
                        if not error.inside:
                            raise
                        self.specialised[key] = ("trace", str(error).split("; one program", 1)[0])
        key, dynamic = self._key(leaves, structure)
        return None if key is None else self._fitting(key, leaves, structure, dynamic), dynamic, {}

    def _fitting(
        self, key: Any, leaves: Sequence[Any], structure: Any, dynamic: Sequence[Any], shapes: Any = None
    ) -> Variant:
        for variant in self._variants.get(key, ()):
            if variant.fits():
                return variant
        return self._trace(key, leaves, structure, dynamic, shapes)

    def _key(
        self, leaves: Sequence[Any], structure: Any, shapes: Sequence[Any] | None = None
    ) -> tuple[Any, list[Any]]:
        """What selects a trace, and the tensors and arrays among the leaves. No key: gradients flow in from outside.

        ``shapes`` are those with symbolic sizes, None for a leaf without any."""
        key: list[Any] = [structure, modes.grad, modes.products, settings.compilation]
        dynamic: list[Any] = []
        for position, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor):
                if leaf._trace is not None:
                    lazy.check_usable(leaf)
                if leaf._requires_grad and modes.grad:
                    if not leaf._leaf:
                        return None, []
                    # A leaf of gradients is told apart by identity, like a captured parameter; its trace keeps it alive.
                    key.append(id(leaf))
                    continue
                type = leaf._value.type
                key.append(type.dtype)
                key.append(type.shape if shapes is None else shapes[position] or type.shape)
                dynamic.append(leaf)
            elif isinstance(leaf, (np.ndarray, np.generic)):
                key.append(leaf.dtype)
                key.append(leaf.shape if shapes is None else shapes[position] or leaf.shape)
                dynamic.append(leaf)
            else:
                key.append(leaf.__class__)
                key.append(repr(leaf) if isinstance(leaf, (float, complex)) else leaf)
        selector = tuple(key)
        try:
            hash(selector)
        except TypeError:
            bad = next(leaf for leaf in leaves if not hashable(leaf))
            raise DTypeError(
                f"jit: an argument of type {bad.__class__.__name__} is neither a tensor nor a hashable Python value;"
                " pass tensors, NumPy arrays, numbers, strings, or tuples, lists and dicts of them"
            ) from None
        return selector, dynamic

    # ---- tracing ----------------------------------------------------------------------------------------------

    def _trace(
        self, key: Any, leaves: Sequence[Any], structure: Any, dynamic: Sequence[Any], shapes: Any = None
    ) -> Variant:
        with _turns.lock:
            _turns.settle()
            return self._traced(key, leaves, structure, dynamic, shapes)

    def _traced(
        self, key: Any, leaves: Sequence[Any], structure: Any, dynamic: Sequence[Any], shapes: Any
    ) -> Variant:
        self.traces += 1
        trace = Trace(self._name)
        modes.trace = trace
        grad, products = modes.grad, modes.products
        try:
            arguments, placeholders = stand_ins(leaves, dynamic, shapes)
            args, kwargs = nested(structure, arguments)
            result = self._function(*args, **kwargs)
            recorded = TraceCompiler(self._keep_grads, self._sizes, trace, leaves, arguments, placeholders)
            variant = recorded.compile(result)
        finally:
            modes.trace = None
            modes.grad, modes.products = grad, products
            trace.close()
        known = self._variants.setdefault(key, [])
        known.insert(0, variant)
        del known[VARIANTS_PER_KEY:]
        self._variants.move_to_end(key)
        while len(self._variants) > VARIANT_LIMIT:
            self._variants.popitem(last=False)
        return variant

    # ---- running ----------------------------------------------------------------------------------------------

    def _run(self, variant: Variant, dynamic: Sequence[Any], numbers: dict[str, int]) -> Any:
        program = variant.program
        assert program is not None
        bound = _standing_for(variant, dynamic, numbers) if variant.recorded else None
        buffers: list[Buffer] = []
        written: list[Buffer] = []
        arrays = False
        for kind, source, _, donated in variant.binds:
            if kind == CAPTURED:
                tensor = source
            elif kind == ARGUMENT:
                tensor = dynamic[source]
                if not isinstance(tensor, Tensor):
                    buffers.append(Buffer.from_numpy(np.asarray(tensor)))
                    arrays = True
                    continue
            elif kind == GRADIENT:
                tensor = source._grad
            elif kind == SIZE:
                buffers.append(_number(numbers[source]))
                continue
            else:
                buffers.append(source)
                continue
            value = tensor._value
            buffer = value.buffer
            if buffer is None:
                tensor._buffer()
                value = tensor._value
                buffer = value.buffer
            # The program may write over a donated input. Not when somebody else still reads the old elements: a pending
            # graph or another tensor (more references than the handle's and ours), or a NumPy view of the memory.
            if donated >= 0 and (
                getrefcount(value) > _SOLE or getrefcount(buffer) > _SOLE or not buffer.exclusive
            ):
                buffer = buffer.copy()
            if donated >= 0:
                buffer.version = 0  # the program may write over it
                written.append(buffer)
            buffers.append(buffer)
        for size in program.sizes if numbers else ():
            buffers.append(_number(numbers[size]))
        run = compiler.Run()

        def delivered() -> Any:
            for buffer in written:
                buffer.version = 0  # other threads may have read the old elements since
            outputs = [buffers[r] if r >= 0 else run.computed[~r] for r in program.results]
            if arrays:  # the caller may write an array again, so no result shares its memory
                outputs = [o if o.owned else o.copy() for o in outputs]
            return self._deliver(variant, outputs, dynamic, bound, numbers)

        try:
            if program.executable is None:
                run.codes.append(0)  # nothing is computed
            else:
                program.executable.run(buffers, numbers, variant.prepared(buffers), run)
            return delivered()
        except BaseException:
            # The handler of a signal (Ctrl-C) raises wherever Python code runs. What a complete run has written over is
            # there: all that the call changes goes with it.
            if run.complete:
                delivered()
            raise

    def _deliver(
        self,
        variant: Variant,
        outputs: list[Buffer],
        dynamic: Sequence[Any],
        bound: dict[Value, Value] | None,
        numbers: dict[str, int],
    ) -> Any:
        types = variant.types_for(numbers)
        for tensor, position in variant.writes:
            value = tensor._value
            if value.op == "input" and getrefcount(value) <= _SOLE:
                value.buffer = outputs[position]  # nobody else refers to the leaf: bind it to its new memory
            else:
                _rebind(tensor, outputs[position], types[position])
        for kind, source, position in variant.other_writes:
            written = dynamic[source] if kind == ARGUMENT else source._grad
            if isinstance(written, Tensor):
                _rebind(written, outputs[position], types[position])
        gradients = {id(item): item._grad for kind, item in variant.results if kind == RETURNED_GRADIENT}
        for tensor, position in variant.grads:
            if position < 0:
                tensor._grad = None
            else:
                tensor._grad = from_buffer(outputs[position], types[position].dtype, types[position].shape)  # type: ignore[arg-type]
        leaves: list[Any] = []
        for kind, item in variant.results:
            if kind == OUTPUT:
                type = types[item]
                if bound is not None and item in variant.recorded:
                    leaves.append(_recorded(outputs[item], type, variant.recorded[item], bound, numbers))
                    continue
                leaves.append(from_leaf(leaf_of(outputs[item], type)))
            elif kind == RETURNED_GRADIENT:
                leaves.append(gradients[id(item)])
            elif kind == RETURNED_ARGUMENT:
                leaf = dynamic[item]
                leaves.append(leaf if isinstance(leaf, Tensor) else Tensor(leaf))
            else:
                leaves.append(item)
        if variant.structure.kind == "leaf":
            return leaves[0]
        return unflatten(variant.structure, leaves)

    def executable(self, *args: P.args, **kwargs: P.kwargs) -> compiler.Executable | None:
        """The compiled program that a call with these arguments runs. Traces, but does not run.

        None when the call runs as ordinary lazy code, or computes nothing.
        """
        leaves, structure = flat(args, kwargs)
        variant, _, _ = self._select(leaves, structure)
        return (
            None
            if variant is None or variant.inline or variant.program is None
            else variant.program.executable
        )

    def explain(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Every stage of the program that a call with these arguments runs, as text. Traces, but does not run."""
        leaves, structure = flat(args, kwargs)
        variant, _, numbers = self._select(leaves, structure)
        if variant is None or variant.inline:
            return f"`{self._name}` runs as ordinary lazy code here: its results require gradients outside of it."
        if variant.program is None or variant.program.executable is None:
            return f"`{self._name}` computes nothing: every result is an argument or a constant."
        stages = self._about_sizes(leaves, structure, numbers) + str(variant.program.executable.explain())
        slow = builtin.unavailable()
        return (
            stages
            if slow is None
            else f"{stages}\n\n== calls ==\nevery call runs Python code, because {slow}"
        )

    def _about_sizes(self, leaves: Sequence[Any], structure: Any, numbers: dict[str, int]) -> str:
        """Whether one program serves the range of every symbolic size, and if not, why."""
        if self._sizes is None:
            return ""
        lines = ["== sizes =="]
        if numbers:
            lines += [
                f"{n}: {s.low} to {s.high}, one program"
                for n, s in sorted(self._sizes.sizes.items())
                if n in numbers
            ]
        else:
            shapes, numbers = self._sizes(leaves, structure)
            code, text = self.specialised[self._key(leaves, structure, shapes)[0]]
            sizes = ", ".join(f"{n} = {number}" for n, number in numbers.items())
            lines.append(f"compiled for {sizes} alone [{code}]: {text}")
        return "\n".join(lines) + "\n\n"


@functools.lru_cache(maxsize=1024)
def _number(size: int) -> Buffer:
    """The memory that holds a symbolic size's number."""
    return Buffer.from_numpy(np.asarray(size, np.int64))


def _standing_for(variant: Variant, dynamic: Sequence[Any], numbers: dict[str, int]) -> dict[Value, Value]:
    """The leaf that each placeholder of a trace stands for in a call, before anything is written back."""
    bound: dict[Value, Value] = {}
    for placeholder, kind, source in variant.placeholders:
        if kind == SIZE:
            bound[placeholder] = constant(numbers[source], dt.int64)
            continue
        tensor = source if kind == CAPTURED else source._grad if kind == GRADIENT else dynamic[source]
        if not isinstance(tensor, Tensor):
            tensor = Tensor(tensor)
        tensor._buffer()
        bound[placeholder] = tensor._value
    return bound


def _recorded(
    buffer: Buffer, type: TensorType, value: Value, bound: dict[Value, Value], numbers: dict[str, int]
) -> Tensor:
    """A result that can be differentiated: its graph is written out when it is."""
    fresh = leaf_of(buffer, type)
    lazy.register_role(fresh, lazy.Deferred(value, bound, numbers))
    return from_value(fresh, (), True)


def _rebind(tensor: Tensor, buffer: Buffer, type: TensorType) -> None:
    """Bind a tensor to a fresh leaf over new memory; who refers to the old leaf keeps the old elements."""
    fresh = leaf_of(buffer, type)
    if tensor._leaf:
        lazy.register_role(fresh, tensor)
    tensor._value = fresh


@overload
def jit(function: Callable[P, R], *, keep_grads: bool = False, dynamic: Any = None) -> Jitted[P, R]: ...
@overload
def jit(
    function: None = None, *, keep_grads: bool = False, dynamic: Any = None
) -> Callable[[Callable[P, R]], Jitted[P, R]]: ...
def jit(function: Callable[P, R] | None = None, *, keep_grads: bool = False, dynamic: Any = None) -> Any:
    """Compile a function over tensors as one program. Use it as ``@tw.jit`` or ``@tw.jit(keep_grads=True)``.

    Arguments are tensors, NumPy arrays (bound anew at each call) and other Python values (constants of the trace), also
    nested in tuples, lists, dicts, named tuples and dataclasses. The function is traced once for each combination of
    structure, shapes, types and constants. Reading a tensor's elements inside raises ``TracedValueError``. Gradients that
    the function leaves in ``.grad`` are dropped (None afterwards) unless ``keep_grads``.

    ``dynamic`` names axes whose size may change from call to call within a range: one program then serves them all. It maps an
    argument (by name, position, or path such as ``"batch.images"``) to ``{axis: size}`` or a tuple with a size or None for
    each axis. While the function is traced, ``x.shape`` holds the size itself, for shapes and for arithmetic with tensors.
    Raises ``ShapeError`` for a size outside its range, ``SymbolicSizeError`` where Python code asks for the number. Where a
    program cannot do without it, each size is compiled for itself, and ``explain`` says why.

    >>> from tilewright import Dim
    >>> @jit(dynamic={"x": {0: Dim("batch", 1, 64)}})
    ... def centred(x):
    ...     return x - x.mean(0)
    >>> [centred(Tensor(x)).tolist() for x in ([1.0], [1.0, 3.0])], centred.traces
    ([[0.0], [-1.0, 1.0]], 1)

    >>> @jit
    ... def double(x):
    ...     return x + x
    >>> double(Tensor([1.0, 2.0])).tolist()
    [2.0, 4.0]
    """
    if function is not None and not callable(function):
        raise DTypeError(f"jit: a function is compiled, got {type(function).__name__}")
    if function is None:
        return lambda f: Jitted(f, keep_grads, dynamic)
    return Jitted(function, keep_grads, dynamic)
