"""Derivatives as functions: ``grad`` and ``value_and_grad`` of a function.

An argument that is differentiated enters the function under a mark of its own, so that nested derivatives do not confuse
each other's variables.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from tilewright.core.trees import flatten, unflatten
from tilewright.functions.creation import zeros_like
from tilewright.graph.ir import Value, make
from tilewright.tensor import DTypeError, GradientError, Tensor, enable_grad, from_value, modes
from tilewright.tensor.gradients import gradients, marked, reaches_leaf

__all__ = ["grad", "value_and_grad"]


def _differentiable(leaf: Any, function: str) -> Tensor:
    if isinstance(leaf, Tensor) and leaf.dtype.is_inexact:
        return leaf
    if isinstance(leaf, float):
        return Tensor(leaf)
    got = f"a tensor of {leaf.dtype}" if isinstance(leaf, Tensor) else type(leaf).__name__
    raise DTypeError(
        f"{function}: only floating-point tensors can be differentiated, got {got}; see `argnums`"
    )


def value_and_grad(
    function: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., tuple[Any, Any]]:
    """A function that gives ``(value, gradients)`` of a scalar function with respect to the arguments ``argnums``.

    An argument may be a tree of tensors (lists, dicts, ...); its gradient has the same structure. With ``has_aux`` the
    function returns ``(scalar, anything)`` and the value is that pair. Gradients can be differentiated again.

    >>> value_and_grad(lambda x: (x ** 2).sum())(Tensor([1.0, 2.0]))[1].tolist()
    [2.0, 4.0]
    """
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    @functools.wraps(function)
    def differentiated(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        name = getattr(function, "__name__", "function")
        call = list(args)
        marks: list[Tensor] = []
        structures = []
        for number in numbers:
            if not -len(args) <= number < len(args):
                raise GradientError(
                    f"grad: `argnums` {number}: `{name}` was called with {len(args)} positional arguments"
                )
            leaves, structure = flatten(args[number])
            own = [marked(_differentiable(leaf, "grad")) for leaf in leaves]
            marks += own
            structures.append((structure, len(own)))
            call[number] = unflatten(structure, own)
        with enable_grad():
            result = function(*call, **kwargs)
            value = result[0] if has_aux else result
            if not isinstance(value, Tensor) or value.size != 1:
                shown = (
                    f"a tensor of shape {value.shape}" if isinstance(value, Tensor) else type(value).__name__
                )
                raise GradientError(
                    f"grad: `{name}` must return a scalar tensor, got {shown}; reduce it, e.g. with `.sum()`"
                )
            found = gradients([value], [None], [[m._value] for m in marks], "grad")
        tensors = [
            _result(g, m, [value, m]) if g is not None else zeros_like(m)
            for g, m in zip(found, marks, strict=True)
        ]
        trees, start = [], 0
        for structure, count in structures:
            trees.append(unflatten(structure, tensors[start : start + count]))
            start += count
        outer = modes.grad and reaches_leaf(value._value, marks)
        closed = from_value(
            value._value if outer else make("stop_gradient", (value._value,)), (value,), outer
        )
        return (
            (closed, *result[1:]) if has_aux else closed,
            trees[0] if isinstance(argnums, int) else tuple(trees),
        )

    return differentiated


def _result(value: Value, mark: Tensor, operands: Sequence[Tensor]) -> Tensor:
    """A gradient as a tensor: with its history when something outside of this derivative may be differentiated."""
    recorded = modes.grad and reaches_leaf(value, (mark,))
    return from_value(value if recorded else make("stop_gradient", (value,)), operands, recorded)


def grad(
    function: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """The gradient of a scalar function with respect to the arguments ``argnums``, as a function.

    With ``has_aux`` the function returns ``(scalar, anything)`` and the result is ``(gradients, anything)``.

    >>> grad(grad(lambda x: x ** 3))(Tensor(2.0)).item()
    12.0
    """
    both = value_and_grad(function, argnums, has_aux)

    @functools.wraps(function)
    def differentiated(*args: Any, **kwargs: Any) -> Any:
        value, gradient = both(*args, **kwargs)
        return (gradient, *value[1:]) if has_aux else gradient

    return differentiated
