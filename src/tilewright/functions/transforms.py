"""Derivatives as functions: gradients, products with Jacobians in both modes, Jacobians and Hessians.

What is differentiated enters the function under marks of its own, so that nested derivatives do not confuse each
other's variables. Everything is recorded as graph values: derivatives of derivatives, ``vmap`` and ``jit`` compose
in any order. Arguments and results may be trees (lists, tuples, dicts, ... of tensors).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from tilewright.autodiff.batching import batch, spread_over
from tilewright.autodiff.custom import substitute
from tilewright.autodiff.jvp import jvp as push_forward
from tilewright.autodiff.vjp import vjp as pull_back
from tilewright.core import dtype as dt
from tilewright.core.integers import integer
from tilewright.core.trees import Structure, flatten, map_leaves, unflatten
from tilewright.functions.arguments import as_tensor
from tilewright.functions.creation import zeros_like
from tilewright.graph import build
from tilewright.graph.ir import Value, input_value, make, topological
from tilewright.tensor import (
    ArgumentError,
    DTypeError,
    GradientError,
    ShapeError,
    Tensor,
    enable_grad,
    from_value,
    modes,
    operand_value,
)
from tilewright.tensor.gradients import gradients, marked, reaching

__all__ = [
    "grad", "hessian", "hvp", "jacfwd", "jacrev", "jvp", "linearize", "stop_gradient", "value_and_grad", "vjp",
]  # fmt: skip


# ---- what the transforms share ---------------------------------------------------------------------------------


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", "function")


def _differentiable(leaf: Any, function: str) -> Tensor:
    if isinstance(leaf, (float, np.ndarray, np.generic)):
        leaf = Tensor(leaf)
    if isinstance(leaf, Tensor) and leaf.dtype.is_inexact:
        return leaf
    got = f"a tensor of {leaf.dtype}" if isinstance(leaf, Tensor) else type(leaf).__name__
    raise DTypeError(
        f"{function}: only floating-point tensors can be differentiated, got {got}; see `argnums`"
    )


class _Marked:
    """Arguments under marks: ``tree`` is what the function gets, ``marks`` the variables in it, in order.

    Leaves that have no derivative (integers, strings, ...) are passed on; their place in ``places`` is -1.
    """

    def __init__(self, tree: Any, function: str, strict: bool) -> None:
        leaves, self.structure = flatten(tree)
        self.marks: list[Tensor] = []
        self.places: list[int] = []
        given: list[Any] = []
        for leaf in leaves:
            if isinstance(leaf, (np.ndarray, np.generic)):
                leaf = Tensor(leaf)
            inexact = isinstance(leaf, float) or (isinstance(leaf, Tensor) and leaf.dtype.is_inexact)
            if not (strict or inexact):
                self.places.append(-1)
                given.append(leaf)
                continue
            self.places.append(len(self.marks))
            self.marks.append(marked(_differentiable(leaf, function)))
            given.append(self.marks[-1])
        self.tree = unflatten(self.structure, given)

    def values(self) -> list[Value]:
        return [m._value for m in self.marks]

    def tree_of(self, items: Sequence[Any]) -> Any:
        """One item per mark as a tree like the arguments, with None where there is no mark."""
        return unflatten(self.structure, [items[p] if p >= 0 else None for p in self.places])

    def movements(self, tree: Any, function: str, name: str) -> list[Tensor]:
        """A tree of tangents like the arguments, as one tensor per mark."""
        leaves = _leaves_like(tree, self.structure, function, name)
        chosen = [leaf for leaf, place in zip(leaves, self.places, strict=True) if place >= 0]
        return [_of_type(t, m, function, name) for t, m in zip(chosen, self.marks, strict=True)]


def _leaves_like(tree: Any, structure: Structure, function: str, name: str) -> list[Any]:
    """The leaves of a tree of this structure, where None may stand for any part without derivatives."""
    if structure.kind == "leaf":
        return [tree]
    if tree is None:
        return [None] * _count(structure)
    kind = Structure if structure.kind is type(None) else structure.kind
    sequence = kind in (tuple, list) and isinstance(tree, (tuple, list))
    if not (sequence or isinstance(tree, kind)):
        raise ArgumentError(
            f"{function}: `{name}` has the structure of its counterpart; got {type(tree).__name__}"
        )
    parts = list(tree) if sequence else [_part(tree, key) for key in structure.keys]
    if len(parts) != len(structure.children):
        raise ArgumentError(f"{function}: `{name}` has {len(parts)} parts for {len(structure.children)}")
    pairs = zip(parts, structure.children, strict=True)
    return [leaf for part, child in pairs for leaf in _leaves_like(part, child, function, name)]


def _part(tree: Any, key: Any) -> Any:
    return tree[key] if isinstance(tree, dict) else getattr(tree, key)


def _count(structure: Structure) -> int:
    return 1 if structure.kind == "leaf" else sum(map(_count, structure.children))


def _of_type(x: Any, like: Tensor, function: str, name: str) -> Tensor:
    """A tangent or cotangent as a tensor of the type of ``like``; None is zero."""
    if x is None:
        return zeros_like(like)
    given = as_tensor(x, function, name)
    if given.shape != like.shape:
        raise ShapeError(
            f"{function}: `{name}` for a tensor of shape {like.shape} has its shape, got {given.shape}"
        )
    if given.dtype is not like.dtype:
        raise DTypeError(f"{function}: `{name}` for a tensor of {like.dtype} has its type, got {given.dtype}")
    return given


def _closed(
    values: Sequence[Value | None],
    marks: Sequence[Tensor],
    operands: Sequence[Tensor],
    likes: Sequence[Tensor] = (),
) -> list[Tensor]:
    """Results as tensors: with their history only when something outside of this derivative may want it.

    Where there is no value, zeros like those of ``likes``.
    """
    wanted = reaching([v for v in values if v is not None], marks) if modes.grad else set()
    near = tuple(operands)
    out = []
    for n, v in enumerate(values):
        if v is None:
            out.append(zeros_like(likes[n]))
            continue
        recorded = v in wanted and v.dtype.is_inexact
        out.append(from_value(v if recorded else make("stop_gradient", (v,)), near, recorded, 2))
    return out


def _called(function: Callable[..., Any], args: Sequence[Any], has_aux: bool, what: str) -> tuple[Any, Any]:
    """The function's result and its auxiliary data, computed with derivatives recorded."""
    with enable_grad():
        result = function(*args)
    if not has_aux:
        return result, None
    if not isinstance(result, tuple) or len(result) != 2:
        raise GradientError(
            f"{what}: with `has_aux`, `{_name(function)}` returns a pair (result, auxiliary data)"
        )
    return result


def _outputs(result: Any, function: Callable[..., Any], what: str) -> tuple[list[Tensor], Structure]:
    """The tensors of a function's result."""
    leaves, structure = flatten(result)
    for leaf in leaves:
        if not isinstance(leaf, Tensor | int | float | complex):
            raise DTypeError(
                f"{what}: `{_name(function)}` returns tensors, got {type(leaf).__name__} among them"
            )
    return [as_tensor(leaf, what) for leaf in leaves], structure


def _closed_aux(aux: Any, marks: Sequence[Tensor]) -> Any:
    def closed(x: Any) -> Any:
        return (
            _closed([operand_value(x)], marks, (x,))[0] if isinstance(x, Tensor) and x._requires_grad else x
        )

    return map_leaves(closed, aux)


# ---- gradients ---------------------------------------------------------------------------------------------------


def value_and_grad(
    function: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., tuple[Any, Any]]:
    """A function that gives ``(value, gradients)`` of a scalar function with respect to the arguments ``argnums``.

    An argument may be a tree of tensors (lists, dicts, ...); its gradient has the same structure. With ``has_aux`` the
    function returns ``(scalar, anything)`` and the value is that pair. Gradients can be differentiated again.

    >>> value_and_grad(lambda x: (x ** 2).sum())(Tensor([1.0, 2.0]))[1].tolist()
    [2.0, 4.0]
    """
    single, numbers = argument_numbers(argnums, "grad")

    @functools.wraps(function)
    def differentiated(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        name = _name(function)
        call = list(args)
        parts = []
        for number in numbers:
            if not -len(args) <= number < len(args):
                raise GradientError(
                    f"grad: `argnums` {number}: `{name}` was called with {len(args)} positional arguments"
                )
            part = _Marked(args[number], "grad", strict=True)
            parts.append(part)
            call[number] = part.tree
        marks = [m for part in parts for m in part.marks]
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
        *closed, primal = _closed([*found, value._value], marks, (value, *marks), [*marks, value])
        tensors = iter(closed)
        trees = [part.tree_of([next(tensors) for _ in part.marks]) for part in parts]
        return (
            (primal, *result[1:]) if has_aux else primal,
            trees[0] if single else tuple(trees),
        )

    return differentiated


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


def stop_gradient(x: Any) -> Any:
    """The same tensors (a tree of them) as constants for derivatives of every mode and order.

    >>> grad(lambda x: x * stop_gradient(x))(Tensor(3.0)).item()
    3.0
    """

    def stopped(leaf: Any) -> Any:
        return leaf.detach() if isinstance(leaf, Tensor) else leaf

    return map_leaves(stopped, x)


# ---- products with the Jacobian ------------------------------------------------------------------------------------


def jvp(
    fun: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any], has_aux: bool = False
) -> tuple[Any, ...]:
    """``(fun(*primals), J @ tangents)``: the result and how it moves when the arguments move (forward mode).

    ``primals`` and ``tangents`` are sequences with one entry per argument, of one structure, type and shape; None is
    a zero tangent, and the tangent of what has no derivative (integers). With ``has_aux`` the function returns
    ``(result, anything)`` and ``anything`` is the third result.

    >>> y, dy = jvp(lambda x: x ** 3, (Tensor(2.0),), (Tensor(1.0),))
    >>> y.item(), dy.item()
    (8.0, 12.0)
    """
    args, moves = _sequence(primals, "jvp", "primals"), _sequence(tangents, "jvp", "tangents")
    if len(args) != len(moves):
        raise ArgumentError(f"jvp: {len(args)} `primals` need as many `tangents`, got {len(moves)}")
    part = _Marked(tuple(args), "jvp", strict=False)
    given = part.movements(tuple(moves), "jvp", "tangents")
    result, aux = _called(fun, part.tree, has_aux, "jvp")
    outs, structure = _outputs(result, fun, "jvp")
    values = [operand_value(o) for o in outs]
    with enable_grad():
        found = push_forward(values, part.values(), [operand_value(t) for t in given])
    moved = _closed(found, part.marks, (*outs, *given), outs)
    primal = unflatten(structure, _closed(values, part.marks, outs))
    both = (primal, unflatten(structure, moved))
    return (*both, _closed_aux(aux, part.marks)) if has_aux else both


def _sequence(items: Any, function: str, name: str) -> list[Any]:
    if not isinstance(items, (tuple, list)):
        raise DTypeError(
            f"{function}: `{name}` is a tuple or list with one entry per argument, got {type(items).__name__}"
        )
    return list(items)


class _LinearMap:
    """Values that are linear in placeholders, to be given later; all else they need is computed once, and kept."""

    def __init__(self, outputs: Sequence[Value | None], placeholders: Sequence[Value], marks: Sequence[Tensor],
                 operands: Sequence[Tensor]) -> None:  # fmt: skip
        self.outputs = list(outputs)
        self.placeholders = list(placeholders)
        self.marks = list(marks)
        known = _residuals([v for v in outputs if v is not None], placeholders)
        self.residuals = list(zip(known, _closed(known, marks, operands), strict=True))

    def __call__(self, given: Sequence[Tensor], likes: Sequence[Tensor]) -> list[Tensor]:
        """The outputs as tensors; where there is none, zeros like those of ``likes``."""
        with enable_grad():
            replacements = {v: operand_value(t) for v, t in self.residuals}
            replacements.update(zip(self.placeholders, map(operand_value, given), strict=True))
        values = iter(substitute([v for v in self.outputs if v is not None], replacements))
        found = [None if v is None else next(values) for v in self.outputs]
        return _closed(found, self.marks, (*given, *(t for _, t in self.residuals)), likes)


def _residuals(outputs: Sequence[Value], placeholders: Sequence[Value]) -> list[Value]:
    """The values without placeholders that values with placeholders read. What is made of constants alone is not kept."""
    moving = set(placeholders)
    numbers: set[Value] = set()
    found: dict[Value, None] = {}
    for value in topological(outputs):
        if value in moving:
            continue
        if any(v in moving for v in value.inputs):
            moving.add(value)
            found.update((v, None) for v in value.inputs if v not in moving and v not in numbers)
        elif value.op != "input" and all(v in numbers for v in value.inputs):
            numbers.add(value)
    return list(found)


def vjp(fun: Callable[..., Any], *primals: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """``(fun(*primals), vjp_fun)``: ``vjp_fun(cotangent)`` is the tuple of cotangents of the arguments (reverse mode).

    The cotangent has the structure, types and shapes of the result (None: zero). ``vjp_fun`` may be called many times;
    what it needs of the forward computation is kept. With ``has_aux`` the function returns ``(result, anything)``
    and ``anything`` is the third result. The cotangent of an argument without derivative (integers) is None.

    >>> y, pull = vjp(lambda a, b: a * b, Tensor(2.0), Tensor(3.0))
    >>> [g.item() for g in pull(Tensor(1.0))]
    [3.0, 2.0]
    """
    part = _Marked(primals, "vjp", strict=False)
    result, aux = _called(fun, part.tree, has_aux, "vjp")
    outs, structure = _outputs(result, fun, "vjp")
    values = [operand_value(o) for o in outs]
    inexact = [o for o in outs if o.dtype.is_inexact]
    seeds = [input_value(o.dtype, o.shape) for o in inexact]
    with enable_grad():
        found = pull_back([v for v in values if v.dtype.is_inexact], seeds, part.values())
    linear = _LinearMap(found, seeds, part.marks, outs)

    def vjp_fun(cotangent: Any) -> tuple[Any, ...]:
        leaves = _leaves_like(cotangent, structure, "vjp_fun", "cotangent")
        kept = [leaf for leaf, o in zip(leaves, outs, strict=True) if o.dtype.is_inexact]
        given = [_of_type(leaf, o, "vjp_fun", "cotangent") for leaf, o in zip(kept, inexact, strict=True)]
        out: tuple[Any, ...] = part.tree_of(linear(given, part.marks))
        return out

    primal = unflatten(structure, _closed(values, part.marks, outs))
    return (primal, vjp_fun, _closed_aux(aux, part.marks)) if has_aux else (primal, vjp_fun)


def linearize(fun: Callable[..., Any], *primals: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """``(fun(*primals), jvp_fun)``: ``jvp_fun(*tangents)`` is the product of the Jacobian with them (forward mode).

    Like ``jvp`` for many tangents at one point: what does not depend on the tangents is computed once.

    >>> y, push = linearize(lambda x: x ** 3, Tensor(2.0))
    >>> push(Tensor(1.0)).item(), push(Tensor(2.0)).item()
    (12.0, 24.0)
    """
    part = _Marked(primals, "linearize", strict=False)
    result, aux = _called(fun, part.tree, has_aux, "linearize")
    outs, structure = _outputs(result, fun, "linearize")
    values = [operand_value(o) for o in outs]
    moves = [input_value(m.dtype, m.shape) for m in part.marks]
    with enable_grad():
        found = push_forward(values, part.values(), moves)
    linear = _LinearMap(found, moves, part.marks, outs)

    def jvp_fun(*tangents: Any) -> Any:
        if len(tangents) != len(primals):
            raise ArgumentError(
                f"jvp_fun: {len(primals)} arguments need as many tangents, got {len(tangents)}"
            )
        given = part.movements(tangents, "jvp_fun", "tangents")
        return unflatten(structure, linear(given, outs))

    primal = unflatten(structure, _closed(values, part.marks, outs))
    return (primal, jvp_fun, _closed_aux(aux, part.marks)) if has_aux else (primal, jvp_fun)


def hvp(fun: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, ...]:
    """The product of the Hessian of a scalar function with ``tangents``: one entry per argument.

    Computed forward over reverse, at a few times the cost of the function; the Hessian is never formed.

    >>> (h,) = hvp(lambda x: (x ** 3).sum(), (Tensor([1.0, 2.0]),), (Tensor([1.0, 1.0]),))
    >>> h.tolist()
    [6.0, 12.0]
    """
    numbers = tuple(range(len(_sequence(primals, "hvp", "primals"))))
    moved: tuple[Any, ...] = jvp(grad(fun, numbers), primals, tangents)[1]
    return moved


# ---- Jacobians ---------------------------------------------------------------------------------------------------


def _basis(like: Tensor) -> Value:
    """The unit vectors of a tensor's space: [elements, *shape]."""
    count = like.size
    rows, columns = (make("iota", shape=(count, count), axis=a, dtype=dt.int32) for a in (0, 1))
    return build.reshape(build.cast(build.compare("eq", rows, columns), like.dtype), (count, *like.shape))


def _check_real(tensors: Sequence[Tensor], holomorphic: bool, what: str) -> None:
    for tensor in tensors:
        if not tensor.dtype.is_inexact:
            raise DTypeError(f"{what}: a result of {tensor.dtype} has no derivative")
        if tensor.dtype.is_complex != holomorphic:
            hint = "pass `holomorphic=True`" if tensor.dtype.is_complex else "leave `holomorphic` out"
            raise DTypeError(f"{what}: got a tensor of {tensor.dtype}; {hint}")


def argument_numbers(argnums: Any, what: str) -> tuple[bool, tuple[int, ...]]:
    """Whether one argument is named, and the numbers of all that are."""
    single = not isinstance(argnums, Iterable)
    try:
        return single, tuple(map(integer, (argnums,) if single else argnums))
    except TypeError:
        raise DTypeError(f"{what}: `argnums` is an integer or a sequence of them, got {argnums!r}") from None


class _Jacobian:
    """What both modes share: the marked arguments, the function's results, and the assembly of the blocks."""

    def __init__(self, fun: Callable[..., Any], argnums: int | Sequence[int], has_aux: bool, holomorphic: bool,
                 what: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:  # fmt: skip
        self.single, numbers = argument_numbers(argnums, what)
        for number in numbers:
            if not -len(args) <= number < len(args):
                raise GradientError(
                    f"{what}: `argnums` {number}: `{_name(fun)}` was called with {len(args)} positional arguments"
                )
        self.part = _Marked(tuple(args[n] for n in numbers), what, strict=True)
        call = list(args)
        for number, tree in zip(numbers, self.part.tree, strict=True):
            call[number] = tree
        self.result, self.aux = _called(functools.partial(fun, **kwargs), call, has_aux, what)
        self.outs, self.structure = _outputs(self.result, fun, what)
        _check_real([*self.part.marks, *self.outs], holomorphic, what)
        with enable_grad():
            self.values = [operand_value(o) for o in self.outs]
        self.has_aux = has_aux

    def tree(self, blocks: Sequence[Sequence[Tensor]]) -> Any:
        """Blocks [result][argument] as a tree of results of trees of arguments."""
        rows = [self.part.tree_of(row) for row in blocks]
        jacobian = unflatten(self.structure, [row[0] for row in rows] if self.single else rows)
        return (jacobian, _closed_aux(self.aux, self.part.marks)) if self.has_aux else jacobian


def jacrev(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    holomorphic: bool = False,
) -> Callable[..., Any]:
    """The Jacobian of a function with respect to the arguments ``argnums``, by reverse mode: best for few results.

    Each tensor of the result gives, for each tensor of an argument, a tensor of shape ``result.shape + argument.shape``.
    All rows are computed together. Complex functions of complex arguments need ``holomorphic``.

    >>> jacrev(lambda x: x ** 2)(Tensor([1.0, 2.0])).tolist()
    [[2.0, 0.0], [0.0, 4.0]]
    """

    @functools.wraps(fun)
    def jacobian(*args: Any, **kwargs: Any) -> Any:
        whole = _Jacobian(fun, argnums, has_aux, holomorphic, "jacrev", args, kwargs)
        blocks = []
        for out, value in zip(whole.outs, whole.values, strict=True):
            seed = input_value(out.dtype, out.shape)
            with enable_grad():
                found = pull_back([value], [seed], whole.part.values())
                every = _over_basis(found, seed, out)
            row = []
            for rows, m in zip(every, whole.part.marks, strict=True):
                shape = (*out.shape, *m.shape)
                block = (
                    build.full(0, m.dtype, shape) if rows is None else build.reshape(build.conj(rows), shape)
                )
                row += _closed([block], whole.part.marks, (out,))
            blocks.append(row)
        return whole.tree(blocks)

    return jacobian


def jacfwd(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    holomorphic: bool = False,
) -> Callable[..., Any]:
    """The Jacobian of a function with respect to the arguments ``argnums``, by forward mode: best for few arguments.

    The result is that of ``jacrev``. All columns are computed together.

    >>> jacfwd(lambda x: x ** 2)(Tensor([1.0, 2.0])).tolist()
    [[2.0, 0.0], [0.0, 4.0]]
    """

    @functools.wraps(fun)
    def jacobian(*args: Any, **kwargs: Any) -> Any:
        whole = _Jacobian(fun, argnums, has_aux, holomorphic, "jacfwd", args, kwargs)
        blocks: list[list[Tensor]] = [[] for _ in whole.outs]
        for m in whole.part.marks:
            move = input_value(m.dtype, m.shape)
            with enable_grad():
                found = push_forward(whole.values, [m._value], [move])
                every = _over_basis(found, move, m)
            for row, columns, out in zip(blocks, every, whole.outs, strict=True):
                shape = (*out.shape, *m.shape)
                if columns is None:
                    block = build.full(0, out.dtype, shape)
                else:
                    block = build.reshape(build.permute(columns, (*range(1, columns.type.rank), 0)), shape)
                row += _closed([block], whole.part.marks, (out,))
        return whole.tree(blocks)

    return jacobian


def _over_basis(found: Sequence[Value | None], variable: Value, like: Tensor) -> list[Value | None]:
    """Values linear in ``variable`` for every unit vector, along a new first axis."""
    known = [v for v in found if v is not None]
    every = iter(batch(known, {variable: _basis(like)}, like.size))
    out: list[Value | None] = []
    for value in found:
        mapped = None if value is None else next(every)
        out.append(spread_over(value, like.size) if value is not None and mapped is None else mapped)
    return out


def hessian(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    holomorphic: bool = False,
) -> Callable[..., Any]:
    """The Hessian of a function with respect to the arguments ``argnums``: forward over reverse mode.

    Each tensor of the result gives a tree of trees of tensors of shape
    ``result.shape + argument.shape + argument.shape``.

    >>> hessian(lambda x: (x ** 3).sum())(Tensor([1.0, 2.0])).tolist()
    [[6.0, 0.0], [0.0, 12.0]]
    """
    return jacfwd(jacrev(fun, argnums, has_aux, holomorphic), argnums, has_aux, holomorphic)
