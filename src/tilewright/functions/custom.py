"""Functions with derivatives of the user's own, and functions whose interior is computed anew in the backward pass.

A call becomes one node of the graph that holds its results, its operands and its rule (``autodiff.custom``). The
rules here run the user's Python functions on tensors over graph values, whichever transform asks for them.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from tilewright.autodiff import custom
from tilewright.autodiff.vjp import vjp as pull_back
from tilewright.core.trees import Structure, flatten, unflatten
from tilewright.functions.arguments import as_tensor
from tilewright.graph.build import zeros_like
from tilewright.graph.ir import Value, make
from tilewright.tensor import (
    GradientError,
    ShapeError,
    Tensor,
    enable_grad,
    from_value,
    lazy,
    modes,
    operand_value,
)
from tilewright.tensor.standins import StandIns

__all__ = ["checkpoint", "checkpoint_policies", "custom_jvp", "custom_vjp"]


# ---- what both kinds of rule share -----------------------------------------------------------------------------


def _variable(value: Value) -> Tensor:
    """A tensor over a value, with a mark: derivatives taken inside a rule know that others may be taken outside."""
    if not value.dtype.is_inexact:
        return from_value(value)
    return from_value(make("mark", (value,), id=next(lazy.marks)), (), True)


def _values_like(
    tree: Any, structure: Structure, likes: Sequence[Value | None], what: str, name: str
) -> list[Value | None]:
    """The leaves of a tree that a rule returned, as values of the types of ``likes``; None stands for zeros."""
    leaves: list[Any] = []
    _match(tree, structure, leaves, what, name)
    out: list[Value | None] = []
    for leaf, like in zip(leaves, likes, strict=True):
        if leaf is None or like is None:
            out.append(None)
            continue
        value = operand_value(as_tensor(leaf, what, name))
        if value.shape != like.shape:
            raise ShapeError(
                f"{what}: {name} of a tensor of shape {like.shape} has its shape, got {value.shape}"
            )
        out.append(value if value.dtype is like.dtype else make("cast", (value,), dtype=like.dtype))
    return out


def _match(tree: Any, structure: Structure, leaves: list[Any], what: str, name: str) -> None:
    if structure.kind == "leaf":
        leaves.append(tree)
    elif tree is None:
        leaves.extend([None] * _count(structure))
    else:
        parts = list(tree.values()) if isinstance(tree, dict) else [
            getattr(tree, k) for k in structure.keys
        ] if structure.keys else list(tree)  # fmt: skip
        if len(parts) != len(structure.children):
            raise GradientError(
                f"{what}: {name} has {len(parts)} parts where {len(structure.children)} are needed"
            )
        for part, child in zip(parts, structure.children, strict=True):
            _match(part, child, leaves, what, name)


def _count(structure: Structure) -> int:
    return 1 if structure.kind == "leaf" else sum(map(_count, structure.children))


class _Arguments:
    """A call's arguments apart: tensors with derivatives (``operands``), and the rest, by position in the tree."""

    def __init__(self, args: Sequence[Any], static: Sequence[int], what: str) -> None:
        for number in static:
            if not 0 <= number < len(args):
                raise GradientError(f"{what}: `nondiff_argnums` {number} is not one of {len(args)} arguments")
        self.fixed = tuple(args[n] for n in static)
        leaves, self.structure = flatten(tuple(a for n, a in enumerate(args) if n not in static))
        self.leaves = leaves
        self.places = [n for n, x in enumerate(leaves) if isinstance(x, Tensor) and x.dtype.is_inexact]
        self.operands: list[Tensor] = [leaves[n] for n in self.places]

    def recorded(self) -> bool:
        return modes.grad and any(t._requires_grad for t in self.operands)

    def likes(self, operands: Sequence[Value]) -> list[Value | None]:
        """The operands by leaf, None at the others."""
        out: list[Value | None] = [None] * len(self.leaves)
        for place, value in zip(self.places, operands, strict=True):
            out[place] = value
        return out

    def tree(self, operands: Sequence[Value]) -> Any:
        leaves = list(self.leaves)
        for place, value in zip(self.places, operands, strict=True):
            leaves[place] = _variable(value)
        return unflatten(self.structure, leaves)


def _bound(fun: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """All arguments by position."""
    if not kwargs:
        return args
    bound = inspect.signature(fun).bind(*args, **kwargs)
    bound.apply_defaults()
    if bound.kwargs:
        raise GradientError(
            f"`{fun.__name__}` has keyword-only arguments; a derivative rule takes them by position"
        )
    return bound.args


def _results(tree: Any, what: str) -> tuple[list[Tensor], Structure]:
    leaves, structure = flatten(tree)
    return [as_tensor(leaf, what, "result") for leaf in leaves], structure


def _made(rule: Any, outs: Sequence[Tensor], operands: Sequence[Tensor], structure: Structure) -> Any:
    """The results of a call under its rule."""
    results = custom.call(rule, [operand_value(o) for o in outs], [operand_value(t) for t in operands])
    near = (*outs, *operands)
    return unflatten(structure, [from_value(v, near, v.dtype.is_inexact) for v in results])


# ---- reverse mode --------------------------------------------------------------------------------------------------


class custom_vjp:
    """A function with a rule of its own for reverse mode. Use it as a decorator, then call ``defvjp(fwd, bwd)``.

    ``fwd`` takes the function's arguments and returns ``(result, residuals)``; ``bwd`` takes the residuals and the
    cotangent of the result, and returns a tuple with the cotangent of every argument (None: zero). Arguments in
    ``nondiff_argnums`` are passed to ``bwd`` in front. Forward mode transposes ``bwd``, which then has to be linear in
    the cotangent. Derivatives with respect to what the function reads besides its arguments are not taken.

    >>> @custom_vjp
    ... def clipped(x):
    ...     return x
    >>> clipped.defvjp(lambda x: (x, None), lambda _, g: (g.clip(-1.0, 1.0),))
    >>> from tilewright.functions.transforms import grad
    >>> grad(lambda x: (clipped(x) * 5.0))(Tensor(2.0)).item()
    1.0
    """

    def __init__(self, fun: Callable[..., Any], nondiff_argnums: Sequence[int] = ()) -> None:
        functools.update_wrapper(self, fun)
        self.fun = fun
        self.nondiff_argnums = tuple(nondiff_argnums)
        self.fwd: Callable[..., Any] | None = None
        self.bwd: Callable[..., Any] | None = None
        self.name = getattr(fun, "__name__", "function")

    def defvjp(self, fwd: Callable[..., Any], bwd: Callable[..., Any]) -> None:
        """Set the rule's forward and backward functions."""
        self.fwd, self.bwd = fwd, bwd

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.fwd is None or self.bwd is None:
            raise GradientError(f"custom_vjp: `{self.name}` has no rule; call `{self.name}.defvjp(fwd, bwd)`")
        args = _bound(self.fun, args, kwargs)
        arguments = _Arguments(args, self.nondiff_argnums, "custom_vjp")
        if not arguments.recorded():
            return self.fun(*args)
        if self in _running.get():  # `fwd` calls the function that it is the rule of
            outs, structure = _results(self.fun(*args), "custom_vjp")
            late = _LateVjpRule(self, arguments, structure)
            return _made(late, outs, arguments.operands, structure)
        outs, structure, residuals, residual_structure = self._forward(args)
        rule = _VjpRule(self.name, self.bwd, arguments, structure, residuals, residual_structure)
        saved = [r for r in residuals if isinstance(r, Tensor)]
        return _made(rule, outs, [*arguments.operands, *saved], structure)

    def _forward(self, args: Sequence[Any]) -> tuple[list[Tensor], Structure, list[Any], Structure]:
        """The results and the residuals of ``fwd``, each as leaves and structure."""
        assert self.fwd is not None
        token = _running.set(_running.get() | {self})
        try:
            pair = self.fwd(*args)
        finally:
            _running.reset(token)
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise GradientError(f"custom_vjp: `fwd` of `{self.name}` returns a pair (result, residuals)")
        return *_results(pair[0], "custom_vjp"), *flatten(pair[1])


_running: contextvars.ContextVar[frozenset[custom_vjp]] = contextvars.ContextVar("fwd", default=frozenset())
"""The functions whose ``fwd`` is running."""


class _VjpRule:
    """The rule of one call of a ``custom_vjp`` function. Operands: the call's, then the tensors among the residuals."""

    reads_graph = False

    def __init__(self, name: str, bwd: Callable[..., Any], arguments: _Arguments, results: Structure,
                 residuals: Sequence[Any], residual_structure: Structure) -> None:  # fmt: skip
        self.name = name
        self.bwd = bwd
        self.arguments = arguments
        self.results = results
        self.residuals = list(residuals)
        self.residual_structure = residual_structure

    def __repr__(self) -> str:
        return self.name

    def vjp(
        self, outputs: Sequence[Value], operands: Sequence[Value], cotangents: Sequence[Value]
    ) -> list[Value | None]:
        count = len(self.arguments.places)
        what = f"custom_vjp: `bwd` of `{self.name}`"
        with StandIns(self.name), enable_grad():
            saved = iter(operands[count:])
            kept = [_variable(next(saved)) if isinstance(r, Tensor) else r for r in self.residuals]
            seeds = [_variable(g) for g in cotangents]
            found = self.bwd(
                *self.arguments.fixed,
                unflatten(self.residual_structure, kept),
                unflatten(self.results, seeds),
            )
            if not isinstance(found, tuple):
                raise GradientError(
                    f"{what} returns a tuple with one entry per argument, got {type(found).__name__}"
                )
            likes = self.arguments.likes(operands[:count])
            values = _values_like(found, self.arguments.structure, likes, what, "the cotangent")
        return [*(values[n] for n in self.arguments.places), *[None] * (len(operands) - count)]

    def jvp(
        self, outputs: Sequence[Value], operands: Sequence[Value], tangents: Sequence[Value | None]
    ) -> list[Value | None]:
        return _transposed(self, outputs, operands, tangents)


class _LateVjpRule:
    """The rule of a call inside the function's own ``fwd``, which runs again when a derivative of that call is due.

    To run it at the call would never end. Operands: the call's.
    """

    reads_graph = False

    def __init__(self, function: custom_vjp, arguments: _Arguments, results: Structure) -> None:
        self.function = function
        self.arguments = arguments
        self.results = results

    def __repr__(self) -> str:
        return self.function.name

    def vjp(
        self, outputs: Sequence[Value], operands: Sequence[Value], cotangents: Sequence[Value]
    ) -> list[Value | None]:
        function, arguments = self.function, self.arguments
        assert function.bwd is not None
        with StandIns(function.name), enable_grad():
            variables = list(arguments.tree(operands))
            for place in sorted(function.nondiff_argnums):
                variables.insert(place, arguments.fixed[function.nondiff_argnums.index(place)])
            _, structure, residuals, residual_structure = function._forward(variables)
            saved = [operand_value(r) for r in residuals if isinstance(r, Tensor)]
        rule = _VjpRule(function.name, function.bwd, arguments, structure, residuals, residual_structure)
        return rule.vjp(outputs, [*operands, *saved], cotangents)[: len(operands)]

    def jvp(
        self, outputs: Sequence[Value], operands: Sequence[Value], tangents: Sequence[Value | None]
    ) -> list[Value | None]:
        return _transposed(self, outputs, operands, tangents)


def _transposed(
    rule: _VjpRule | _LateVjpRule,
    outputs: Sequence[Value],
    operands: Sequence[Value],
    tangents: Sequence[Value | None],
) -> list[Value | None]:
    seeds = [make("mark", (zeros_like(v),), id=next(lazy.marks)) for v in outputs]
    return custom.transposed(lambda g: rule.vjp(outputs, operands, g), seeds, tangents)


# ---- forward mode --------------------------------------------------------------------------------------------------


class custom_jvp:
    """A function with a rule of its own for forward mode. Use it as a decorator, then ``@f.defjvp`` on the rule.

    The rule takes ``(primals, tangents)``, two tuples with one entry per argument, and returns the result and its tangent.
    It has to be linear in the tangents; reverse mode transposes it. Arguments in ``nondiff_argnums`` are passed to the
    rule in front. The tangent of an argument without derivative (an integer) is None.

    >>> @custom_jvp
    ... def f(x):
    ...     return x * x
    >>> @f.defjvp
    ... def f_jvp(primals, tangents):
    ...     (x,), (t,) = primals, tangents
    ...     return f(x), 3.0 * x * t
    >>> from tilewright.functions.transforms import grad
    >>> grad(f)(Tensor(2.0)).item()
    6.0
    """

    def __init__(self, fun: Callable[..., Any], nondiff_argnums: Sequence[int] = ()) -> None:
        functools.update_wrapper(self, fun)
        self.fun = fun
        self.nondiff_argnums = tuple(nondiff_argnums)
        self.rule: Callable[..., Any] | None = None
        self.name = getattr(fun, "__name__", "function")

    def defjvp(self, jvp: Callable[..., Any]) -> Callable[..., Any]:
        """Set the rule; returns it, so that it works as a decorator."""
        self.rule = jvp
        return jvp

    def defjvps(self, *jvps: Callable[..., Any] | None) -> None:
        """Set the rule argument by argument: ``jvps[i](tangent, result, *primals)``; the tangents add up."""

        def rule(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
            result = self(*primals)
            parts = [
                f(t, result, *primals)
                for f, t in zip(jvps, tangents, strict=True)
                if f is not None and t is not None
            ]
            return result, sum(parts[1:], parts[0])

        self.rule = rule

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.rule is None:
            raise GradientError(
                f"custom_jvp: `{self.name}` has no rule; decorate one with `@{self.name}.defjvp`"
            )
        args = _bound(self.fun, args, kwargs)
        arguments = _Arguments(args, self.nondiff_argnums, "custom_jvp")
        if not arguments.recorded():
            return self.fun(*args)
        outs, structure = _results(self.fun(*args), "custom_jvp")
        return _made(
            _JvpRule(self.name, self.rule, arguments, structure), outs, arguments.operands, structure
        )


class _JvpRule:
    """The rule of one call of a ``custom_jvp`` function."""

    reads_graph = False

    def __init__(
        self, name: str, rule: Callable[..., Any], arguments: _Arguments, results: Structure
    ) -> None:
        self.name = name
        self.rule = rule
        self.arguments = arguments
        self.results = results

    def __repr__(self) -> str:
        return self.name

    def jvp(
        self, outputs: Sequence[Value], operands: Sequence[Value], tangents: Sequence[Value | None]
    ) -> list[Value | None]:
        what = f"custom_jvp: the rule of `{self.name}`"
        arguments = self.arguments
        moves: list[Any] = [None] * len(arguments.leaves)
        with StandIns(self.name), enable_grad():
            for place, value, tangent in zip(arguments.places, operands, tangents, strict=True):
                moves[place] = _variable(zeros_like(value) if tangent is None else tangent)
            primals = arguments.tree(operands)
            found = self.rule(*arguments.fixed, primals, unflatten(arguments.structure, moves))
            if not isinstance(found, tuple) or len(found) != 2:
                raise GradientError(f"{what} returns a pair (result, tangent)")
            return _values_like(found[1], self.results, list(outputs), what, "the tangent")

    def vjp(
        self, outputs: Sequence[Value], operands: Sequence[Value], cotangents: Sequence[Value]
    ) -> list[Value | None]:
        moves = [make("mark", (zeros_like(v),), id=next(lazy.marks)) for v in operands]
        found = self.jvp(outputs, operands, moves)
        pairs = [(v, g) for v, g in zip(found, cotangents, strict=True) if v is not None]
        return pull_back([v for v, _ in pairs], [g for _, g in pairs], moves)


# ---- recomputation -------------------------------------------------------------------------------------------------


class checkpoint_policies:
    """Which values inside a checkpointed function are kept for the backward pass, by the operation that makes them."""

    @staticmethod
    def nothing_saveable(value: Value) -> bool:
        """Everything is computed anew."""
        return False

    @staticmethod
    def everything_saveable(value: Value) -> bool:
        """Everything is kept."""
        return True

    @staticmethod
    def dots_saveable(value: Value) -> bool:
        """Matrix products and convolutions are kept, the rest is computed anew."""
        return value.op in ("dot", "conv")

    @staticmethod
    def dots_with_no_batch_dims_saveable(value: Value) -> bool:
        """Products with weights are kept; batched ones, as in attention, are computed anew."""
        return value.op == "dot" and not value["lhs_batch"]


def checkpoint(
    fun: Callable[..., Any], *, policy: Callable[[Value], bool] | None = None
) -> Callable[..., Any]:
    """The function, whose intermediate values are not kept for the backward pass but computed anew in it.

    Saves memory for time: of a chain of checkpointed layers only the values between them are kept. ``policy`` says of
    a value inside whether it is kept all the same: one of ``checkpoint_policies``, or a function of the graph's value.

    >>> from tilewright.functions.transforms import grad
    >>> grad(checkpoint(lambda x: (x * x * x).sum()))(Tensor([2.0])).tolist()
    [12.0]
    """

    @functools.wraps(fun)
    def recomputed(*args: Any, **kwargs: Any) -> Any:
        result = fun(*args, **kwargs)
        outs, structure = flatten(result)
        given = [x for x in flatten((args, kwargs))[0] if isinstance(x, Tensor) and x.dtype.is_inexact]
        tensors = [x for x in outs if isinstance(x, Tensor)]
        if not modes.grad or not any(t._requires_grad for t in tensors):
            return result
        operands = [operand_value(t) for t in given]
        values = iter(custom.checkpoint([operand_value(t) for t in tensors], operands, policy))
        leaves: list[Any] = []
        for out in outs:
            if isinstance(out, Tensor):
                leaves.append(from_value(next(values), (out, *given), out._requires_grad))
            else:
                leaves.append(out)
        return unflatten(structure, leaves)

    return recomputed
