"""Composite functions: recorded once per kind of arguments, then one step of Python however many operations they are.

``composite`` is for functions of the library that compute one tensor from tensors and plain values and do nothing else. What
a call records depends on the operands' types, on what requires gradients and on the modes; for these a template is kept.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ParamSpec

from tilewright.graph.ir import Value, input_value
from tilewright.graph.template import Template
from tilewright.tensor import execute, lazy
from tilewright.tensor.handle import Tensor, from_value
from tilewright.tensor.modes import modes
from tilewright.tensor.trace import Trace

__all__ = ["composite"]

P = ParamSpec("P")
CACHE_LIMIT = 256  # templates kept per function; the oldest go first
_EXACT = frozenset((int, bool, str, type(None)))


class _Recipe:
    """The template of one kind of arguments, and whether its result requires gradients."""

    __slots__ = ("requires_grad", "template")

    def __init__(self, template: Template, requires_grad: bool) -> None:
        self.template = template
        self.requires_grad = requires_grad


def composite(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Keep what ``function`` records as templates. It must be pure: the same graph for arguments of the same kind."""
    recipes: OrderedDict[tuple[Any, ...], _Recipe | None] = OrderedDict()

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        if modes.trace is not None:
            return function(*args, **kwargs)
        key: list[Any] = [modes.grad, modes.products]
        operands: list[Tensor] = []
        for arg in args:
            if not _describe(arg, key, operands):
                return function(*args, **kwargs)
        for name, arg in kwargs.items():
            key.append(name)
            if not _describe(arg, key, operands):
                return function(*args, **kwargs)
        kind = tuple(key)
        try:
            recipe = recipes[kind]
        except KeyError:
            recipe = recipes[kind] = _record(function, args, kwargs)
            while len(recipes) > CACHE_LIMIT:
                recipes.popitem(last=False)
        if recipe is None:
            return function(*args, **kwargs)
        template = recipe.template
        value = template.pack(tuple([t._value for t in operands]))
        return from_value(value, operands, recipe.requires_grad, len(template.rows), template)

    return call


def _describe(arg: Any, key: list[Any], operands: list[Tensor]) -> bool:
    """Add to the key what matters of an argument; False when that cannot be told."""
    kind = arg.__class__
    if isinstance(arg, Tensor):
        if arg._trace is not None:
            lazy.check_usable(arg)
        key.append(arg._value.type)
        key.append(arg._requires_grad)
        operands.append(arg)
    elif kind in _EXACT:
        key.append(kind)
        key.append(arg)
    elif kind is float:
        key.append(repr(arg))  # 0.0 and -0.0 are equal, NaN is not equal to itself
    elif kind is tuple and all(i.__class__ is int for i in arg):
        key.append(arg)
    else:
        return False
    return True


def _record(function: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Recipe | None:
    """Run the function with stand-ins. None when it fails, touches other tensors, or writes or gives back an argument."""
    trace = Trace(getattr(function, "__name__", "a function"))
    stand_ins: list[Tensor] = []
    inputs: list[Value] = []

    def stand_in(arg: Any) -> Any:
        if not isinstance(arg, Tensor):
            return arg
        value = input_value(arg.dtype, arg.shape)
        inputs.append(value)
        stand_ins.append(from_value(value, (), arg._requires_grad))
        return stand_ins[-1]

    modes.trace = trace
    try:
        given = [stand_in(arg) for arg in args]
        result = function(*given, **{name: stand_in(arg) for name, arg in kwargs.items()})
    except Exception:  # the call itself will say what is wrong
        return None
    finally:
        modes.trace = None
        trace.close()
    if trace.captured or trace.grads or trace.watched or result.__class__ is not Tensor:
        return None
    if any(t._value is not value for t, value in zip(stand_ins, inputs, strict=True)):  # written in place
        return None
    template = Template(inputs, result._value, execute.is_varying)
    if not template.rows or any(v.op == "input" and v.buffer is None for v in template.start):
        return None
    return _Recipe(template, result._requires_grad)
