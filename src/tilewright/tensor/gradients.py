"""``backward`` and ``grad``: from a tensor to the leaves below it, through the graph's own derivative rules.

Gradients are values of the graph like any other: nothing is computed here, and a gradient can be differentiated again.
The derivative rules themselves are in ``tilewright.autodiff``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tilewright.autodiff.vjp import vjp
from tilewright.graph.build import zeros_like
from tilewright.graph.ir import Value, constant, make
from tilewright.tensor import hooks, lazy, replay
from tilewright.tensor.deferred import expand
from tilewright.tensor.errors import GradientError, ShapeError
from tilewright.tensor.execute import Packed
from tilewright.tensor.modes import modes, set_grad_enabled

if TYPE_CHECKING:
    from tilewright.tensor.handle import Tensor

__all__ = ["backward", "differentiable", "gradients", "history", "marked", "reaching"]


def history(outputs: Sequence[Value]) -> list[Value]:
    """The values a derivative can flow through, from ``outputs`` down to leaves of gradients; operands come first."""
    order: list[Value] = []
    seen: set[Value] = set()
    stack = list(outputs)
    roles = lazy.role_of
    while stack:
        value = stack[-1]
        if value in seen:
            stack.pop()
            continue
        waiting: list[Value] = []
        if (
            value.inputs
            and value.op != "stop_gradient"
            and not (value.op == "mark" and roles(value) is not None)
        ):
            waiting = [i for i in value.inputs if i not in seen and i.type.dtype.is_inexact]
        if waiting:
            stack.extend(waiting)
            continue
        stack.pop()
        seen.add(value)
        order.append(value)
    return order


def _outline(
    output: Value, packed: dict[Value, Packed]
) -> tuple[list[Value], list[tuple[Value, Tensor]]] | None:
    """``history`` and ``_leaves`` of one value, where packed values on the way stay what they are and are noted. None where
    the graph has to be written out: with rules or hooks of the user's in it, or graphs of compiled calls."""
    order: list[Value] = []
    leaves: list[tuple[Value, Tensor]] = []
    seen: set[Value] = set()
    stack: list[Value | None] = [output]
    begun: list[Value] = []
    while stack:
        value = stack.pop()
        if value is None:  # all operands of the last one begun are in the order
            value = begun.pop()
            seen.add(value)
            order.append(value)
            continue
        if value in seen:
            continue
        whole = value.packed
        role = None
        if whole is not None:
            packed[value] = whole
            inputs = whole[1]
            waiting = [i for n in whole[0].flows if (i := inputs[n]) not in seen]
        else:
            op = value.op
            if op == "custom":
                return None
            if op in ("input", "mark"):
                role = lazy.role_of(value)
            ends = op == "stop_gradient" or role is not None
            waiting = [] if ends else [i for i in value.inputs if i not in seen and i.type.dtype.is_inexact]
        if waiting:
            begun.append(value)
            stack.append(None)
            stack.extend(waiting)
            continue
        seen.add(value)
        order.append(value)
        if role is not None:
            if isinstance(role, lazy.Deferred):
                return None
            if isinstance(role, str):
                raise _freed()
            if role._requires_grad:
                leaves.append((value, role))
    return None if hooks.inserted(order) else (order, leaves)


def _written_out(outputs: Sequence[Tensor]) -> list[Value]:
    """The history of tensors, after the graphs of compiled calls in it are put in place of their results, and hooks in
    place of tensors that were used before they got them."""
    values = [t._value for t in outputs]
    order = history(values)
    changed = expand(values, order, hooks.inserted(order))
    if not changed:
        return order
    for tensor in outputs:
        tensor._value = changed.get(tensor._value, tensor._value)
    for value in order:
        if value in changed:
            for tensor in lazy.handles_of(value):
                tensor._value = changed[value]
                lazy.name_interior(changed[value], tensor)
    return history([t._value for t in outputs])


def _leaves(order: Sequence[Value]) -> list[tuple[Value, Tensor]]:
    """The values of ``order`` at which gradients arrive, with their tensors."""
    found: list[tuple[Value, Tensor]] = []
    for value in order:
        if value.op in ("input", "mark"):
            role = lazy.role_of(value)
            if isinstance(role, str):
                raise _freed()
            if role is not None and not isinstance(role, lazy.Deferred) and role._requires_grad:
                found.append((value, role))
    return found


def _freed() -> GradientError:
    return GradientError(
        "backward: part of the graph was freed by an earlier backward(); call that one with"
        " `retain_graph=True`, or compute the result again"
    )


def _seeds(outputs: Sequence[Tensor], given: Sequence[Tensor | None], what: str) -> list[Value]:
    seeds = []
    for output, gradient in zip(outputs, given, strict=True):
        kind = output._value.type
        if gradient is None:
            if output.size != 1:
                raise GradientError(
                    f"{what}: the tensor of shape {output.shape} is not a scalar; reduce it first, e.g. `.sum()` or"
                    f" `.mean()`, or pass a gradient of that shape"
                )
            one = constant(1, kind.dtype)
            seeds.append(make("broadcast", (one,), shape=kind.shape) if kind.shape else one)
            continue
        lazy.check_usable(gradient)
        value = gradient._value
        if kind.shape != value.type.shape:
            raise ShapeError(
                f"{what}: `gradient` has the shape {output.shape} of the tensor, got {gradient.shape}"
            )
        if value.type.dtype is not kind.dtype:
            value = make("cast", (value,), dtype=kind.dtype)
        seeds.append(value if modes.grad and gradient._requires_grad else make("stop_gradient", (value,)))
    return seeds


def backward(tensor: Tensor, gradient: Tensor | None, retain_graph: bool, create_graph: bool) -> None:
    """See ``Tensor.backward``."""
    if not tensor._requires_grad:
        raise GradientError(
            "backward: nothing below this tensor requires gradients; set `requires_grad=True` on a tensor it is made of"
            " (and do not compute it under `no_grad`)"
        )
    lazy.check_usable(tensor)
    if not (retain_graph or create_graph) and modes.trace is None and _repeated(tensor, gradient):
        return
    seed = _seeds((tensor,), (gradient,), "backward")
    order = _written_out((tensor,))
    leaves = _leaves(order)
    if modes.trace is None:
        # Leaves still pending were updated by the previous step of a training loop: computing them first makes each step
        # one program of one structure, whether or not the loop reads its loss.
        lazy.realize_tensors([t for v, t in leaves if v.buffer is None], subgraph_only=True)
    retained = hooks.retained(order)
    targets = leaves + retained
    found: Sequence[Value | None] | None = None
    operands: tuple[Tensor, ...] = (tensor,)
    nodes = 1
    if modes.trace is None and not (retained or retain_graph or create_graph):
        given = seed[0] if gradient is not None else None
        found = replay.run(tensor, given, order, [v for v, _ in leaves])
    if found is None:
        # Hooks see gradients also where no leaf is left that wants one.
        variables = [*(v for v, _ in targets), *hooks.variables(order)]
        with set_grad_enabled(create_graph):  # for hooks, which compute with gradients
            found = _with_zeros(vjp([tensor._value], seed, variables), variables, order)[: len(targets)]
        operands = (tensor,) if gradient is None else (tensor, gradient)
        nodes = max(1, 2 * len(order) // max(1, len(targets)))
    _deliver(targets, found, operands, nodes, create_graph)
    if not retain_graph:
        _free(order)


def _repeated(tensor: Tensor, gradient: Tensor | None) -> bool:
    """``backward`` by a program of the graph's structure, without looking into packed values. False: nothing has changed."""
    given: Value | None = None
    if gradient is not None or tensor._value.type.shape:
        (seed,) = _seeds((tensor,), (gradient,), "backward")  # or an error
        given = None if gradient is None else seed
    packed: dict[Value, Packed] = {}
    outline = _outline(tensor._value, packed)
    if outline is None:
        return False
    order, leaves = outline
    lazy.realize_tensors([t for v, t in leaves if v.buffer is None], subgraph_only=True)
    found = replay.run(tensor, given, order, [v for v, _ in leaves], packed)
    if found is None:
        return False
    fresh = {id(t) for _, t in leaves if t._grad is None and t._hooks is None}
    if len(fresh) == len(leaves):  # each of them once, and nothing to add to
        for (_, target), gradient_there in zip(leaves, found, strict=True):
            target._grad = tensor._computed(gradient_there)
    else:
        _deliver(leaves, found, (tensor,), 1, create_graph=False)
    _free(order)
    return True


def _deliver(
    targets: Sequence[tuple[Value, Tensor]],
    found: Sequence[Value | None],
    operands: tuple[Tensor, ...],
    nodes: int,
    create_graph: bool,
) -> None:
    """Put gradients where they belong, through the hooks of leaves."""
    totals: dict[int, tuple[Tensor, Value]] = {}
    for (_, target), value in zip(targets, found, strict=True):
        if value is not None:
            before = totals.get(id(target))
            totals[id(target)] = target, value if before is None else make("add", (before[1], value))
    with set_grad_enabled(create_graph):
        for target, value in totals.values():
            if target._hooks is not None:
                value = hooks.called(target._hooks.gradient, value, operands[0]._wrapped)
            _accumulate(target, value, operands, nodes, create_graph)
        for target, _ in totals.values():
            if target._hooks is not None:
                for hook in tuple(target._hooks.accumulated.values()):
                    hook(target)


def gradients(
    outputs: Sequence[Tensor],
    weights: Sequence[Tensor | None],
    inputs: Sequence[Tensor | Sequence[Value]],
    what: str,
    free: bool = False,
) -> list[Value | None]:
    """The gradient of the outputs with respect to each input, as values. An input is a tensor or the values of one."""
    for tensor in outputs:
        lazy.check_usable(tensor)
    seeds = _seeds(outputs, weights, what)
    order = _written_out(outputs)
    leaves = _leaves(order)
    targets: list[tuple[int, Value]] = []
    for i, given in enumerate(inputs):
        if isinstance(given, Sequence):
            targets += [(i, v) for v in given]
        else:
            lazy.check_usable(given)
            own = [v for v, t in leaves if t is given] if given._leaf else []
            targets += [(i, v) for v in (own or [hooks.variable(given._value)])]
    found = vjp([t._value for t in outputs], seeds, [v for _, v in targets])
    found = _with_zeros(found, [v for _, v in targets], order)
    sums: list[Value | None] = [None] * len(inputs)
    for (i, _), value in zip(targets, found, strict=True):
        before = sums[i]
        sums[i] = value if before is None else before if value is None else make("add", (before, value))
    for i, (given, total) in enumerate(zip(inputs, sums, strict=True)):
        if total is not None and not isinstance(given, Sequence) and given._hooks is not None:
            sums[i] = hooks.called(given._hooks.gradient, total, given._wrapped)
    if free:
        _free(order)
    return sums


def _with_zeros(
    found: Sequence[Value | None], variables: Sequence[Value], order: Sequence[Value]
) -> list[Value | None]:
    """The gradients, zero where the outputs depend on a variable by operations without slope only (``floor``, ``sign``,
    ``x ** 0``). None stays where they do not depend on it at all."""
    below = set(order)
    return [zeros_like(v) if g is None and v in below else g for g, v in zip(found, variables, strict=True)]


def marked(tensor: Tensor) -> Tensor:
    """The tensor under a mark of its own: a variable that a derivative is taken with respect to."""
    lazy.check_usable(tensor)
    value = tensor._value
    if tensor._requires_grad and not modes.grad:
        value = make("stop_gradient", (value,))
    value = make("mark", (value,), id=next(lazy.marks))
    return tensor._like(value, True, (tensor,))


def differentiable(value: Value) -> bool:
    """Whether a gradient of ``value`` could arrive at a live leaf: there is one below whose graph was not freed."""
    for below in history((value,)):
        if below.op in ("input", "mark"):
            role = lazy.role_of(below)
            if role is not None and not isinstance(role, str):
                return True
    return False


def reaching(values: Sequence[Value], marks: Sequence[Tensor]) -> set[Value]:
    """Which of the values below and among ``values`` may be differentiated outside: those that depend on a leaf, or on a
    variable not among ``marks``."""
    own = {m._value for m in marks}
    found: set[Value] = set()
    for v in history(values):
        if v.op == "stop_gradient":
            continue
        leaf = v.op in ("input", "mark") and lazy.role_of(v) is not None
        if (
            leaf
            or (v.op == "mark" and v not in own and lazy.handles_of(v))
            or any(i in found for i in v.inputs)
        ):
            found.add(v)
    return found


def _accumulate(
    target: Tensor, value: Value, operands: Sequence[Tensor], nodes: int, create_graph: bool
) -> None:
    if modes.trace is not None:
        modes.trace.note_grad(target)
    before = target._grad
    if before is not None:
        lazy.check_usable(before)
        operands = (*operands, before)
        value = make("add", (before._value, value))
    if not create_graph and value.op != "input":
        value = make("stop_gradient", (value,))
    target._grad = operands[0]._like(value, create_graph, operands, nodes)


def _free(order: Sequence[Value]) -> None:
    """Let the tensors along a differentiated graph go of their history, so that holding one does not hold the graph."""
    for value in order:
        if not value.names:
            continue
        for tensor in lazy.handles_of(value):
            if tensor._leaf:
                continue
            if value.buffer is not None:
                tensor._value = freed = lazy.leaf_of(value.buffer, value.type)
                tensor._group = None
                tensor._chain = 0
            else:
                tensor._value = freed = make("mark", (make("stop_gradient", (value,)),), id=next(lazy.marks))
            lazy.register_role(freed, None)
