"""``tw.jit``: a Python function over tensors, traced once per kind of arguments and run as one compiled program.

Tracing runs the function with stand-ins for its tensors. Tensors it reads without receiving them (parameters) are captured
by handle: each call binds the memory they have then. Tensors it assigns (parameters, optimizer state, batch statistics,
random state) are written back after the run, over their own memory when nobody else holds it. A later call with arguments
of the same structure, shapes, types and static values costs a few microseconds of Python and one native call.

Results that require gradients when the call ends can be differentiated later: they remember the call, and its graph is
written out when a derivative is asked for. Where a graph would have to cross the call in other ways (an argument that was
computed from tensors with gradients, a tensor written with a history) the function runs as ordinary lazy code instead, so
that no gradient is ever lost.

While a function is traced its captured tensors stand for placeholders: other threads must not use them meanwhile.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from sys import getrefcount
from typing import Any, Generic, ParamSpec, TypeVar, overload

import numpy as np

from tilewright import compiler
from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.core.settings import settings
from tilewright.core.size import SymbolicSizeError
from tilewright.core.trees import Structure, flatten, unflatten
from tilewright.graph.ir import TensorType, Value, constant, input_value, topological
from tilewright.graph.sizes import is_symbolic, resolve, size_leaf
from tilewright.runtime.buffers import Buffer
from tilewright.tensor import DTypeError, Tensor, execute, lazy, modes
from tilewright.tensor.gradients import differentiable
from tilewright.tensor.handle import from_buffer, from_leaf, from_value
from tilewright.tensor.lazy import leaf_of
from tilewright.tensor.sizes import DynamicSizes
from tilewright.tensor.trace import Captured, Trace

__all__ = ["Jitted", "jit"]

P = ParamSpec("P")
R = TypeVar("R")
VARIANTS_PER_KEY = 8  # traces kept that differ in watched attributes or captured types only
VARIANT_LIMIT = 64  # traces kept per function; the least recently used goes first


class _Holder:
    __slots__ = ("item",)
    item: object


def _count_sole() -> int:
    """What ``getrefcount`` says of an object held by one attribute and one local variable, in this Python version."""
    holder = _Holder()
    holder.item = object()
    item = holder.item
    return getrefcount(item)


_SOLE = _count_sole()


class _Variant:
    """One trace, compiled: where its inputs come from and where its results go."""

    def __init__(self) -> None:
        self.inline = False
        # Results that may be differentiated later: output position -> traced value. Their history needs to know what
        # every placeholder stood for.
        self.recorded: dict[int, Value] = {}
        self.placeholders: list[
            tuple[Value, int, Any]
        ] = []  # placeholder, kind and source of what it stands for
        self.written = False  # whether tensors from outside are written
        self.program: execute.Program | None = None
        # inputs in order: (captured tensor | its owner | argument position | fixed buffer), as parallel plain tuples
        self.binds: list[
            tuple[int, Any, TensorType, int]
        ] = []  # (kind, source, type, write it is donated to or -1)
        self.guards: list[tuple[Any, str, Any]] = []
        self.grad_guards: list[tuple[Tensor, bool]] = []
        self.handles: set[int] = set()  # identities of captured tensors
        self.structure: Structure = Structure("leaf")
        self.results: list[tuple[int, Any]] = []  # (kind, output position | argument position | object)
        self.captured_types: list[tuple[Tensor, TensorType, bool]] = []
        self.gradient_types: list[tuple[Tensor, TensorType]] = []
        self.writes: list[tuple[Tensor, int]] = []  # captured tensor, output position
        self.other_writes: list[tuple[int, Any, int]] = []  # (kind of source, source, output position)
        self.keep: list[Tensor] = []  # arguments told apart by identity
        self.grads: list[tuple[Tensor, int]] = []  # tensor, output position or -1 for None
        self.types: list[TensorType] = []  # of the program's outputs by position
        self.symbolic = False  # whether some of them have symbolic sizes
        self._bound: tuple[dict[str, int], list[TensorType]] | None = (
            None  # the last numbers, and the types then
        )

    def types_for(self, numbers: dict[str, int]) -> list[TensorType]:
        """The types of the outputs where symbolic sizes have these numbers."""
        if not self.symbolic:
            return self.types
        bound = self._bound
        if bound is None or bound[0] != numbers:
            bound = numbers, [TensorType(t.dtype, resolve(t.shape, numbers)) for t in self.types]
            self._bound = bound  # in one piece: other threads may call at other sizes
        return bound[1]

    def fits(self) -> bool:
        """Whether what the trace depended on besides its arguments is as it was."""
        for owner, attribute, value in self.guards:
            if getattr(owner, attribute) != value:
                return False
        for tensor, absent in self.grad_guards:
            if (tensor._grad is None) is not absent:
                return False
        for tensor, type, required_grad in self.captured_types:
            if tensor._requires_grad is not required_grad:  # frozen or thawed since
                return False
            if tensor._value.type is not type and tensor._value.type != type:
                return False
        return all(t._grad is not None and t._grad._value.type == type for t, type in self.gradient_types)


class _Direct:
    """A variant without anything but arguments and results: tensors in, one tensor out. Its calls need no key."""

    __slots__ = ("binds", "modes", "program", "result", "type", "types")

    def __init__(self, variant: _Variant, types: tuple[TensorType, ...], given: tuple[Any, ...]) -> None:
        assert variant.program is not None
        self.program = variant.program.executable
        self.types = types
        self.modes = given
        # the argument, or fixed memory, of each input
        self.binds = [(k if kind == _ARGUMENT else -1, k) for kind, k, _, _ in variant.binds]
        self.result = variant.program.results[variant.results[0][1]]
        self.type = variant.types[variant.results[0][1]]

    @staticmethod
    def fits(variant: _Variant) -> bool:
        """Whether a variant is of this kind."""
        program = variant.program
        return (
            not (variant.inline or variant.recorded or variant.written or variant.keep or variant.symbolic)
            and not (variant.guards or variant.grad_guards or variant.captured_types or variant.grads)
            and program is not None
            and program.executable is not None
            and not program.executable.sizes
            and all(kind in (_ARGUMENT, _FIXED) for kind, _, _, _ in variant.binds)
            and variant.structure.kind == "leaf"
            and variant.results[0][0] == _OUTPUT
            and program.results[variant.results[0][1]] < 0
        )


_CAPTURED, _GRADIENT, _ARGUMENT, _FIXED, _SIZE = range(5)  # kinds of inputs
_OUTPUT, _RETURNED_ARGUMENT, _OBJECT = range(3)  # kinds of results


class Jitted(Generic[P, R]):
    """A function compiled by ``tw.jit``. Call it like the function; ``explain`` shows what it became."""

    def __init__(self, function: Callable[P, R], keep_grads: bool = False, dynamic: Any = None) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._keep_grads = keep_grads
        self._variants: OrderedDict[Any, list[_Variant]] = OrderedDict()
        self._name = getattr(function, "__qualname__", repr(function)).replace("<locals>.", "")
        self.traces = 0  # how many times the function was traced
        self._direct: _Direct | None = None  # of the last call, when it was of that kind
        self._sizes = None if dynamic is None else DynamicSizes(function, dynamic, self._name)
        # Kinds of arguments whose sizes have to be known, and why: a code and a sentence
        self.specialised: dict[Any, tuple[str, str]] = {}

    def __repr__(self) -> str:
        return f"<tw.jit of {self._name}>"

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if modes.trace is not None:  # inside another jitted function: part of its program
            return self._function(*args, **kwargs)
        direct = self._direct
        if (
            direct is not None
            and not kwargs
            and direct.modes == (modes.grad, modes.products, settings.deterministic)
        ):
            buffers = _direct_buffers(args, direct.types)
            if buffers is not None:
                return _run_directly(direct, buffers)  # type: ignore[return-value]
        leaves, structure = _flat(args, kwargs)
        variant, dynamic, numbers = self._select(leaves, structure)
        if variant is None or variant.inline or (variant.written and _aliased(variant, dynamic)):
            return self._function(*args, **kwargs)
        if self._sizes is None and structure == len(args) == len(dynamic) and _Direct.fits(variant):
            types = tuple(arg._value.type for arg in args if isinstance(arg, Tensor))
            if len(types) == len(args):
                self._direct = _Direct(variant, types, (modes.grad, modes.products, settings.deterministic))
        return self._run(variant, dynamic, numbers)  # type: ignore[no-any-return]

    def _select(
        self, leaves: Sequence[Any], structure: Any
    ) -> tuple[_Variant | None, list[Any], dict[str, int]]:
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
    ) -> _Variant:
        for variant in self._variants.get(key, ()):
            if variant.fits():
                return variant
        return self._trace(key, leaves, structure, dynamic, shapes)

    def _key(
        self, leaves: Sequence[Any], structure: Any, shapes: Sequence[Any] | None = None
    ) -> tuple[Any, list[Any]]:
        """What selects a trace, and the tensors and arrays among the leaves. No key: gradients flow in from outside.

        ``shapes`` are those with symbolic sizes, None for a leaf without any."""
        key: list[Any] = [structure, modes.grad, modes.products, settings.deterministic]
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
            bad = next(leaf for leaf in leaves if not _hashable(leaf))
            raise DTypeError(
                f"jit: an argument of type {bad.__class__.__name__} is neither a tensor nor a hashable Python value;"
                " pass tensors, NumPy arrays, numbers, strings, or tuples, lists and dicts of them"
            ) from None
        return selector, dynamic

    # ---- tracing ----------------------------------------------------------------------------------------------

    def _trace(
        self, key: Any, leaves: Sequence[Any], structure: Any, dynamic: Sequence[Any], shapes: Any = None
    ) -> _Variant:
        self.traces += 1
        trace = Trace(self._name)
        modes.trace = trace
        grad, products = modes.grad, modes.products
        try:
            arguments, placeholders = _stand_ins(leaves, dynamic, shapes)
            args, kwargs = _nested(structure, arguments)
            result = self._function(*args, **kwargs)
            variant = _Compiler(self, trace, leaves, arguments, placeholders).compile(result)
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

    def _run(self, variant: _Variant, dynamic: Sequence[Any], numbers: dict[str, int]) -> Any:
        program = variant.program
        assert program is not None
        bound = _standing_for(variant, dynamic, numbers) if variant.recorded else None
        buffers: list[Buffer] = []
        arrays = False
        for kind, source, _, donated in variant.binds:
            if kind == _CAPTURED:
                tensor = source
            elif kind == _ARGUMENT:
                tensor = dynamic[source]
                if not isinstance(tensor, Tensor):
                    buffers.append(Buffer.from_numpy(np.asarray(tensor)))
                    arrays = True
                    continue
            elif kind == _GRADIENT:
                tensor = source._grad
            elif kind == _SIZE:
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
            buffers.append(buffer)
        for size in program.sizes if numbers else ():
            buffers.append(_number(numbers[size]))
        computed = program.executable.run(buffers, numbers) if program.executable is not None else []
        outputs = [buffers[r] if r >= 0 else computed[~r] for r in program.results]
        if arrays:  # the caller may write an array again, so no result shares its memory
            outputs = [o if o.owned else o.copy() for o in outputs]
        del buffers, computed
        return self._deliver(variant, outputs, dynamic, bound, numbers)

    def _deliver(
        self,
        variant: _Variant,
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
            written = dynamic[source] if kind == _ARGUMENT else source._grad
            if isinstance(written, Tensor):
                _rebind(written, outputs[position], types[position])
        for tensor, position in variant.grads:
            if position < 0:
                tensor._grad = None
            else:
                tensor._grad = from_buffer(outputs[position], types[position].dtype, types[position].shape)  # type: ignore[arg-type]
        leaves: list[Any] = []
        for kind, item in variant.results:
            if kind == _OUTPUT:
                type = types[item]
                if bound is not None and item in variant.recorded:
                    leaves.append(_recorded(outputs[item], type, variant.recorded[item], bound, numbers))
                    continue
                leaves.append(from_leaf(leaf_of(outputs[item], type)))
            elif kind == _RETURNED_ARGUMENT:
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
        leaves, structure = _flat(args, kwargs)
        variant, _, _ = self._select(leaves, structure)
        return (
            None
            if variant is None or variant.inline or variant.program is None
            else variant.program.executable
        )

    def explain(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Every stage of the program that a call with these arguments runs, as text. Traces, but does not run."""
        leaves, structure = _flat(args, kwargs)
        variant, _, numbers = self._select(leaves, structure)
        if variant is None or variant.inline:
            return f"`{self._name}` runs as ordinary lazy code here: its results require gradients outside of it."
        if variant.program is None or variant.program.executable is None:
            return f"`{self._name}` computes nothing: every result is an argument or a constant."
        return self._about_sizes(leaves, structure, numbers) + str(variant.program.executable.explain())

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


def _direct_buffers(args: tuple[Any, ...], types: tuple[TensorType, ...]) -> list[Buffer] | None:
    """The memory of arguments that are plain tensors of the given types; None when they are not."""
    if len(args) != len(types):
        return None
    buffers = []
    for arg, type in zip(args, types, strict=True):
        if arg.__class__ is not Tensor or arg._requires_grad or arg._trace is not None:
            return None
        value = arg._value
        own = value.type
        if own is not type and (own.dtype is not type.dtype or own.shape != type.shape):
            return None
        buffers.append(value.buffer or arg._buffer())
    return buffers


def _run_directly(direct: _Direct, given: list[Buffer]) -> Tensor:
    program = direct.program
    assert program is not None
    buffers = [given[position] if position >= 0 else fixed for position, fixed in direct.binds]
    output = program.run(buffers)[~direct.result]
    return from_leaf(leaf_of(output, direct.type))


@functools.lru_cache(maxsize=1024)
def _number(size: int) -> Buffer:
    """The memory that holds a symbolic size's number."""
    return Buffer.from_numpy(np.asarray(size, np.int64))


_PLAIN = frozenset((Tensor, np.ndarray, int, float, bool, str))


def _flat(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Sequence[Any], Any]:
    """The leaves of the arguments and their structure. Without containers that is the arguments and their number."""
    if not kwargs:
        for arg in args:
            if arg.__class__ not in _PLAIN:
                break
        else:
            return args, len(args)
    return flatten((args, kwargs))


def _nested(structure: Any, leaves: Sequence[Any]) -> tuple[Sequence[Any], dict[str, Any]]:
    """The inverse of ``_flat``."""
    if isinstance(structure, int):
        return leaves, {}
    args, kwargs = unflatten(structure, leaves)
    return args, kwargs


def _hashable(item: Any) -> bool:
    try:
        hash(item)
    except TypeError:
        return False
    return True


def _stand_ins(
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


def _aliased(variant: _Variant, dynamic: Sequence[Any]) -> bool:
    """Whether an argument is also another argument or a captured tensor, so that a write would be seen through both."""
    seen: set[int] = set()
    for leaf in dynamic:
        if id(leaf) in variant.handles or id(leaf) in seen:
            return True
        seen.add(id(leaf))
    return False


def _standing_for(variant: _Variant, dynamic: Sequence[Any], numbers: dict[str, int]) -> dict[Value, Value]:
    """The leaf that each placeholder of a trace stands for in a call, before anything is written back."""
    bound: dict[Value, Value] = {}
    for placeholder, kind, source in variant.placeholders:
        if kind == _SIZE:
            bound[placeholder] = constant(numbers[source], dt.int64)
            continue
        tensor = source if kind == _CAPTURED else source._grad if kind == _GRADIENT else dynamic[source]
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


class _Compiler:
    """From a finished trace to a variant: which values to compute, what to bind, what to write back."""

    def __init__(
        self,
        jitted: Jitted[Any, Any],
        trace: Trace,
        leaves: Sequence[Any],
        arguments: Sequence[Any],
        placeholders: Sequence[Value],
    ) -> None:
        self.jitted = jitted
        self.trace = trace
        self.leaves = [leaf for a, leaf in zip(arguments, leaves, strict=True) if a is leaf]
        self.placeholders = placeholders
        dynamic = [(a, leaf) for a, leaf in zip(arguments, leaves, strict=True) if a is not leaf]
        self.arguments: dict[int, int] = {id(a): i for i, (a, _) in enumerate(dynamic)}
        self.stand_ins: list[Tensor] = [a for a, _ in dynamic]
        self.writable = [
            isinstance(leaf, Tensor) for _, leaf in dynamic
        ]  # an array is the caller's: only read
        self.values: list[Value] = []
        self.variant = _Variant()

    def output(self, value: Value) -> int:
        """The position of a value among the program's outputs."""
        if value in self.values:
            return self.values.index(value)
        self.values.append(value)
        return len(self.values) - 1

    def compile(self, result: Any) -> _Variant:
        variant, trace = self.variant, self.trace
        self._results(result)
        self._writes()
        self._gradients()
        if trace.history_outside:
            variant.inline = True
        variant.guards = list(trace.watched)
        variant.keep = [leaf for leaf in self.leaves if isinstance(leaf, Tensor)]
        if variant.inline:
            return variant
        by_placeholder: dict[Value, tuple[int, Any]] = {
            p: (_ARGUMENT, i) for i, p in enumerate(self.placeholders)
        }
        for entry in trace.captured.values():
            by_placeholder[entry.placeholder] = self._source(entry)
            if entry.owner is None:
                variant.handles.add(id(entry.tensor))
        if self.jitted._sizes is not None:
            for size in self.jitted._sizes.sizes.values():
                by_placeholder[size_leaf(size)] = (_SIZE, size.name)
        if (
            variant.recorded
            and self.jitted._sizes is not None
            and any(v.op == "custom" for v in topological(self.values))
        ):  # a rule of the user's may hold shapes
            raise compiler.NeedsNumbers(
                "rule", "a result that is differentiated later has a derivative of its own"
            )
        if variant.recorded:
            variant.placeholders = [(p, *source) for p, source in by_placeholder.items()]
        planned = execute.plan(self.values, eager=False, bound=by_placeholder)
        donated = self._donations(planned)
        variant.program = execute.program(planned, donated)
        for position, leaf in enumerate(planned.leaves):
            kind, source = by_placeholder.get(leaf, (_FIXED, leaf.buffer))
            variant.binds.append((kind, source, leaf.type, donated.get(position, -1)))
        variant.types = [v.type for v in self.values]
        variant.symbolic = any(is_symbolic(t.shape) for t in variant.types)
        variant.captured_types = [
            (e.tensor, e.placeholder.type, e.required_grad)
            for e in trace.captured.values()
            if e.owner is None
        ]
        variant.gradient_types = [(s, t) for kind, s, t, _ in variant.binds if kind == _GRADIENT]
        variant.written = bool(variant.writes or variant.other_writes)
        return variant

    def _source(self, entry: Captured) -> tuple[int, Any]:
        return (_CAPTURED, entry.tensor) if entry.owner is None else (_GRADIENT, entry.owner)

    def _results(self, result: Any) -> None:
        leaves, self.variant.structure = flatten(result)
        for leaf in leaves:
            if (
                not isinstance(leaf, Tensor)
                or leaf._trace is not self.trace
                or id(leaf) in self.trace.captured
            ):
                self.variant.results.append((_OBJECT, leaf))
            elif id(leaf) in self.arguments and self._is_given_back(self.arguments[id(leaf)]):
                self.variant.results.append((_RETURNED_ARGUMENT, self.arguments[id(leaf)]))
            else:
                position = self.output(leaf._value)
                if leaf._requires_grad and differentiable(leaf._value):
                    self.variant.recorded[position] = leaf._value
                self.variant.results.append((_OUTPUT, position))

    def _is_given_back(self, index: int) -> bool:
        """Whether a returned argument is the caller's own object: a tensor, or an array that was not written."""
        return self.writable[index] or self.stand_ins[index]._value is self.placeholders[index]

    def _writes(self) -> None:
        for entry in self.trace.captured.values():
            tensor = entry.tensor
            if tensor._value is entry.placeholder:
                continue
            if tensor._requires_grad and not tensor._leaf and differentiable(tensor._value):
                self.variant.inline = True
            position = self.output(tensor._value)
            if entry.owner is None:
                self.variant.writes.append((tensor, position))
            else:
                self.variant.other_writes.append((_GRADIENT, entry.owner, position))
        for index, (stand_in, placeholder) in enumerate(zip(self.stand_ins, self.placeholders, strict=True)):
            if self.writable[index] and stand_in._value is not placeholder:
                if stand_in._requires_grad and differentiable(stand_in._value):
                    self.variant.inline = True
                self.variant.other_writes.append((_ARGUMENT, index, self.output(stand_in._value)))

    def _gradients(self) -> None:
        for tensor, before in self.trace.grads.values():
            if tensor._trace is self.trace and id(tensor) not in self.trace.captured:
                continue  # made by the trace itself
            self.variant.grad_guards.append((tensor, before is None))
            now = tensor._grad
            if now is before:
                continue
            if now is None or not self.jitted._keep_grads:
                self.variant.grads.append((tensor, -1))
            else:
                lazy.check_usable(now)
                if now._requires_grad and differentiable(now._value):
                    self.variant.inline = True
                self.variant.grads.append((tensor, self.output(now._value)))

    def _donations(self, planned: execute.Plan) -> dict[int, int]:
        """Written tensors whose old elements are an input and not a result: leaf position -> output position."""
        position = {leaf: i for i, leaf in enumerate(planned.leaves)}
        passed = {planned.leaf_of[n] for n in planned.outputs if n in planned.leaf_of}
        old = {id(e.tensor): e.placeholder for e in self.trace.captured.values()}
        donated: dict[int, int] = {}
        written = [(old[id(t)], output) for t, output in self.variant.writes]
        written += [
            (self.placeholders[i], output)
            for kind, i, output in self.variant.other_writes
            if kind == _ARGUMENT
        ]
        for placeholder, output in written:
            leaf = position.get(placeholder)
            if leaf is not None and leaf not in passed and planned.outputs[output] not in planned.leaf_of:
                donated[leaf] = output
        taken: dict[int, int] = {}
        return {
            leaf: out for leaf, out in donated.items() if taken.setdefault(planned.outputs[out], leaf) == leaf
        }


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
    if function is None:
        return lambda f: Jitted(f, keep_grads, dynamic)
    return Jitted(function, keep_grads, dynamic)
