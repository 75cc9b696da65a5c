"""Composite functions: recorded once per kind of arguments, then one step of Python however many operations they are.

``composite`` is for functions of the library that compute one tensor from tensors and plain values and do nothing else. What
a call records depends on the operands' types, on what requires gradients and on the modes; for these a template is kept.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ParamSpec

from tilewright.core.dtype import DType
from tilewright.graph.ir import Value, input_value
from tilewright.graph.template import Template
from tilewright.runtime import builtin
from tilewright.runtime.team import state
from tilewright.tensor import execute, lazy, packing
from tilewright.tensor.handle import Tensor, from_value
from tilewright.tensor.modes import modes
from tilewright.tensor.trace import Trace

__all__ = ["composite"]

P = ParamSpec("P")
CACHE_LIMIT = 256  # templates kept per function; the oldest go first
_INTEGERS = {int}
_EXACT: frozenset[type] = frozenset((int, bool, str, type(None), type(...), DType))


class _Recipe:
    """The template of one kind of arguments, and whether its result requires gradients."""

    __slots__ = ("nodes", "requires_grad", "template")

    def __init__(self, template: Template | None, requires_grad: bool) -> None:
        self.template = template  # None: the result has the elements of the first operand
        self.requires_grad = requires_grad
        self.nodes = 1 if template is None else len(template.rows)


def composite(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Keep what ``function`` records as templates. It must be pure: the same graph for arguments of the same kind."""
    recipes: OrderedDict[tuple[Any, ...], _Recipe | None] = OrderedDict()
    # Kinds seen once: a number that is another in every step is not recorded each time.
    once: OrderedDict[tuple[Any, ...], None] = OrderedDict()

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        items: tuple[Any, ...] = args
        names = None
        if kwargs:
            names = tuple(kwargs)
            items = (*args, *kwargs.values())
        if _known:
            made = _known[0](recipes, names, items)
            if made is not None:
                return made
        if modes.trace is not None:
            return function(*args, **kwargs)
        if state.current is not None:  # a program ran, so native code is loaded anyway
            _install()
        key: list[Any] = [modes.grad, modes.products]
        operands: list[Tensor] = []
        if names is not None:
            key.append(names)
        for arg in items:
            if isinstance(arg, Tensor):
                if arg._trace is not None:
                    lazy.check_usable(arg)
                type = arg._value.type
                key += (type.dtype, type.shape, arg._requires_grad)
                operands.append(arg)
            elif not _describe(arg, key):
                return function(*args, **kwargs)
        kind = tuple(key)
        recipe = recipes.get(kind)
        if recipe is None:
            if kind not in recipes:
                if kind in once or not any(i.__class__ is float and execute.varies(i) for i in items):
                    recipe = recipes[kind] = _record(function, args, kwargs)
                    _limit(recipes)
                else:
                    once[kind] = None
                    _limit(once)
            if recipe is None:
                return function(*args, **kwargs)
        template = recipe.template
        if template is None:
            return from_value(operands[0]._value, operands, recipe.requires_grad)
        value = template.pack(tuple([t._value for t in operands]))
        return from_value(value, operands, recipe.requires_grad, recipe.nodes, template)

    return call


_known: list[packing.Known] = []  # the same in native code, once there is some


@builtin.once
def _install() -> None:
    known = packing.function(_Recipe, _EXACT)
    if known is not None:
        _known.append(known)


def _limit(table: OrderedDict[tuple[Any, ...], Any]) -> None:
    while len(table) > CACHE_LIMIT:
        table.popitem(last=False)


def _describe(arg: Any, key: list[Any]) -> bool:
    """Add to the key what matters of an argument that is no tensor; False when that cannot be told."""
    kind = arg.__class__
    if kind in _EXACT:
        key += (kind, arg)
    elif kind is float:
        key.append(repr(arg))  # 0.0 and -0.0 are equal, NaN is not equal to itself
    elif kind is tuple:
        if {*map(type, arg)} == _INTEGERS:  # most are
            key += (int, arg)
            return True
        key += (tuple, len(arg))
        return all(_describe(item, key) for item in arg)
    elif kind is slice:
        key.append(slice)
        return all(_describe(item, key) for item in (arg.start, arg.stop, arg.step))
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
    if inputs and result._value is inputs[0] and result is not stand_ins[0]:
        return _Recipe(None, result._requires_grad)
    template = Template(inputs, result._value, execute.is_varying)
    if not template.rows or any(v.op == "input" and v.buffer is None for v in template.start):
        return None
    return _Recipe(template, result._requires_grad)
