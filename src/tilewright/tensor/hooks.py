"""Hooks: functions of the user's that see the gradient of a tensor when ``backward`` computes it, and may replace it.

A hook on an interior tensor becomes part of the graph: a call with a derivative rule of its own, whose result is its
operand. So it is met wherever a derivative flows, also in ``jit``, loops and derivatives of derivatives, and it lives as
long as the graph does. Tensors recorded alike are one value of the graph; the call tells the hooked one apart for all
that is computed from it afterwards. What was computed from it before is rebuilt over the call by ``inserted``.
A leaf keeps its hooks itself.
"""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Callable, Sequence
from sys import getrefcount
from types import TracebackType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from tilewright.core import interpreter
from tilewright.graph.ir import Value, make
from tilewright.tensor import lazy
from tilewright.tensor.errors import GradientError, ShapeError
from tilewright.tensor.modes import modes

if TYPE_CHECKING:
    from tilewright.tensor.handle import Tensor

__all__ = [
    "Hook",
    "HookHandle",
    "Hooked",
    "LeafHooks",
    "called",
    "inserted",
    "retained",
    "variable",
    "variables",
    "watched",
]

Hook = Callable[[Any], Any]
_numbers = itertools.count()


class HookHandle:
    """What registering a hook gives: ``remove()`` takes the hook away; as a context manager, at the end of the block."""

    def __init__(self, table: dict[int, Any], hook: Any, on_remove: Callable[[], None] | None = None) -> None:
        self._table, self._key, self._on_remove = table, next(_numbers), on_remove
        table[self._key] = hook

    def remove(self) -> None:
        """Take the hook away. It is no error to do so again."""
        if self._table.pop(self._key, None) is not None and self._on_remove is not None:
            self._on_remove()

    def __enter__(self) -> HookHandle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


class LeafHooks:
    """The hooks of a leaf: on the gradient of a backward pass, and on the leaf after its ``.grad`` was changed."""

    __slots__ = ("accumulated", "gradient")

    def __init__(self) -> None:
        self.gradient: dict[int, Hook] = {}
        self.accumulated: dict[int, Hook] = {}


class Hooked:
    """The rule of a call around an interior tensor: cotangents pass through its hooks, tangents as they are."""

    reads_graph = False

    def __init__(self, tensor: Tensor, wrap: Callable[[Value, bool], Tensor]) -> None:
        self.hooks: dict[int, Hook] = {}
        self.owner = weakref.ref(tensor)
        self.retains = False
        self.wrap = wrap
        self.mark = next(lazy.marks)

    def __repr__(self) -> str:
        return "hook"

    def around(self, value: Value) -> Value:
        """The call around a value; the mark inside is the variable that gradients after the hooks belong to."""
        inner = make("mark", (value,), id=self.mark)
        inner.buffer = value.buffer
        call = make("custom", (inner, inner), rule=self, outputs=1, index=0)
        call.buffer = value.buffer
        return call

    def vjp(
        self, outputs: Sequence[Value], operands: Sequence[Value], cotangents: Sequence[Value]
    ) -> Sequence[Value | None]:
        return [called(self.hooks, cotangents[0], self.wrap)]

    def jvp(
        self, outputs: Sequence[Value], operands: Sequence[Value], tangents: Sequence[Value | None]
    ) -> Sequence[Value | None]:
        return tangents


def called(hooks: dict[int, Hook], gradient: Value, wrap: Callable[[Value, bool], Tensor]) -> Value:
    """A gradient after hooks, in the order of their registration. Raises where one returns something else."""
    for hook in tuple(hooks.values()):
        given = wrap(gradient, modes.grad)
        result = hook(given)
        if result is None:
            continue
        name = getattr(hook, "__name__", "hook")
        if not isinstance(result, type(given)):
            raise GradientError(
                f"register_hook: `{name}` returns a gradient (a tensor) or None, got {type(result).__name__}"
            )
        if result.shape != given.shape or result.dtype is not given.dtype:
            raise ShapeError(
                f"register_hook: `{name}` returns a gradient of another type: {result._value.type} instead of"
                f" {gradient.type}"
            )
        lazy.check_usable(result)
        gradient = result._value
        if result._requires_grad and not modes.grad:
            gradient = make("stop_gradient", (gradient,))
    return gradient


# ---- interior tensors ------------------------------------------------------------------------------------------

# Rules of tensors that were used before they were hooked; their calls are put in when a derivative is taken.
_late: WeakKeyDictionary[Value, list[Hooked]] = WeakKeyDictionary()


class _Holder:
    __slots__ = ("item",)

    def __init__(self) -> None:
        self.item = object()


def _references(item: object) -> int:
    return getrefcount(item)


def _count_unheld() -> int:
    """What ``_references`` says of an object beyond those that hold it."""
    holder = _Holder()
    return _references(holder.item) - 1


_UNHELD = _count_unheld()


def _is_used(tensor: Tensor) -> bool:
    """Whether something was computed from an interior tensor: more than its handles refer to its value. Where counts of
    references are not known to say it, the objects are looked through for a tuple of operands that it is in."""
    if interpreter.reason() is not None:
        return any(isinstance(holder, tuple) for holder in gc.get_referrers(tensor._value))
    holders = len(lazy.handles_of(tensor._value))
    return _references(tensor._value) - _UNHELD > holders


def watched(tensor: Tensor, wrap: Callable[[Value, bool], Tensor]) -> Hooked:
    """The rule of an interior tensor; makes one, and the call around its value, when there is none."""
    lazy.check_usable(tensor)
    candidates = list(_late.get(tensor._value, ()))
    if tensor._value.op == "custom" and isinstance(tensor._value["rule"], Hooked):
        candidates.append(tensor._value["rule"])
    for rule in candidates:
        if rule.owner() is tensor:
            return rule
    candidates.clear()
    rule = Hooked(tensor, wrap)
    if _is_used(tensor):
        _late.setdefault(tensor._value, []).append(rule)
    else:
        tensor._value = rule.around(tensor._value)
        lazy.name_interior(tensor._value, tensor)
    return rule


def inserted(order: Sequence[Value]) -> dict[Value, Value]:
    """The values of a history that were hooked after they were used, with the calls that go in their place."""
    found: dict[Value, Value] = {}
    if _late:
        for value in order:
            for rule in _late.get(value, ()):
                if rule.hooks or rule.retains:
                    found[value] = rule.around(found.get(value, value))
    return found


def variable(value: Value) -> Value:
    """The value whose gradient is that of a tensor: inside the call of one with hooks, so that they have been at work."""
    if value.op == "custom" and isinstance(value["rule"], Hooked):
        return value.inputs[1]
    return value


def variables(order: Sequence[Value]) -> list[Value]:
    """The variables of all tensors with hooks in a history."""
    rules = [(v, v["rule"]) for v in order if v.op == "custom"]
    return [v.inputs[1] for v, rule in rules if isinstance(rule, Hooked) and rule.hooks]


def retained(order: Sequence[Value]) -> list[tuple[Value, Tensor]]:
    """The interior tensors of a history that want to keep their gradient, with their variables."""
    found = []
    for value in order:
        if value.op == "custom":
            rule = value["rule"]
            if isinstance(rule, Hooked) and rule.retains and (tensor := rule.owner()) is not None:
                found.append((value.inputs[1], tensor))
    return found
