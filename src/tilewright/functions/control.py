"""Loops inside the graph: ``scan`` and ``fori_loop``.

The body runs once, with stand-ins for the carry and for one slice; what it recorded becomes the static argument of one
operation, which compiles to a native loop and has derivatives and batches of its own. What the body reads from
outside becomes a constant of the loop, what it assigns outside becomes a carry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tilewright.autodiff.custom import substitute
from tilewright.autodiff.scan import scan as scan_values
from tilewright.core.trees import Structure, flatten, unflatten
from tilewright.functions.arguments import as_tensor, cast
from tilewright.functions.creation import arange
from tilewright.graph.body import Body
from tilewright.graph.ir import Value, topological
from tilewright.tensor import (
    ArgumentError,
    DTypeError,
    ShapeError,
    Tensor,
    from_value,
    lazy,
    modes,
    no_grad,
    operand_value,
)
from tilewright.tensor.iteration import Iteration, Outside

__all__ = ["fori_loop", "scan"]

# What a loop's body does anew in every iteration to a value that is the same in all: it costs nothing there, and its
# result may be much larger than its operand.
_MOVED = ("reshape", "permute", "broadcast", "stop_gradient", "mark")


def scan(
    f: Callable[[Any, Any], Any], init: Any, xs: Any = None, length: int | None = None, reverse: bool = False
) -> tuple[Any, Any]:
    """Run ``carry, y = f(carry, x)`` over the slices of ``xs`` along their first axis, as one native loop.

    ``init`` is the first carry and ``xs`` holds the slices: tensors or trees of them (``xs`` may be None; then
    ``length`` is the number of iterations). The carry keeps its structure, shapes and dtypes. Returns the last carry and
    the ``y`` of all iterations, stacked along a new first axis. With ``reverse`` the last slice comes first, and ``y``
    of iteration i is still at place i.

    ``f`` runs once, with tensors that have no elements yet: it cannot read them as numbers. It may use tensors from
    outside, and draw random numbers, which differ from iteration to iteration. A tensor from outside that it assigns
    holds the last value afterwards. Reverse mode keeps the carries before every iteration and the results of
    contractions and reductions inside; the rest is computed anew.

    >>> total, sums = scan(lambda s, x: (s + x, s + x), Tensor(0.0), Tensor([1.0, 2.0, 3.0]))
    >>> total.item(), sums.tolist()
    (6.0, [1.0, 3.0, 6.0])
    """
    first, structure = flatten(init)
    slices, slice_structure = flatten(xs)
    carries = [as_tensor(t, "scan", "init") for t in first]
    inputs = [as_tensor(t, "scan", "xs") for t in slices]
    count = _length(inputs, length)
    run = _Run(f, structure, slice_structure, inputs)
    made = run.trace(carries)
    # A Python number as first carry takes the type that the body gives it.
    weak = [
        not isinstance(t, Tensor) and c.dtype is not v.dtype
        for t, c, v in zip(first, carries, made.new, strict=True)
    ]
    if any(weak):
        carries = [cast(c, v.dtype) if w else c for c, v, w in zip(carries, made.new, weak, strict=True)]
        made = run.trace(carries)
    _check_carries(carries, made.new, run.name)
    return _looped(made, carries, inputs, count, reverse, structure)


def fori_loop(lower: int, upper: int, body_fun: Callable[[Any, Any], Any], init_val: Any) -> Any:
    """``value = body_fun(i, value)`` for i from ``lower`` to ``upper - 1``, as one native loop; the last value.

    ``i`` is an int64 tensor of rank 0. See ``scan`` for what the body may do.

    >>> fori_loop(0, 5, lambda i, total: total + i, Tensor(0)).item()
    10
    """
    for name, bound in (("lower", lower), ("upper", upper)):
        if isinstance(bound, (bool, Tensor)) or not hasattr(bound, "__index__"):
            raise DTypeError(f"fori_loop: `{name}` is a Python integer, got {type(bound).__name__}")
    steps = arange(int(lower), max(int(upper), int(lower)))
    last, _ = scan(lambda value, i: (body_fun(i, value), None), init_val, steps)
    return last


def _length(inputs: Sequence[Tensor], length: int | None) -> int:
    """The number of iterations."""
    sizes: dict[int, int] = {}
    if length is not None:
        if isinstance(length, bool) or not hasattr(length, "__index__") or length < 0:
            raise ArgumentError(f"scan: `length` is an integer of at least 0, got {length!r}")
        sizes[int(length)] = -1
    for number, tensor in enumerate(inputs):
        if tensor.ndim == 0:
            raise ShapeError(
                f"scan: leaf {number} of `xs` has rank 0 and no axis of slices; use it from outside of `f`"
            )
        sizes.setdefault(tensor.shape[0], number)
    if not sizes:
        raise ArgumentError("scan: `xs` holds no tensor; give the number of iterations as `length`")
    if len(sizes) > 1:
        shown = " and ".join(
            f"{s} ({'`length`' if n < 0 else f'leaf {n} of `xs`'})" for s, n in sizes.items()
        )
        raise ShapeError(f"scan: the numbers of slices differ: {shown}")
    return next(iter(sizes))


@dataclass
class _Made:
    """What one run of the body recorded: stand-ins, new carries, results, and what it used outside."""

    stands: list[Value]
    slices: list[Value]
    new: list[Value]
    ys: list[Value]
    y_structure: Structure
    outside: list[Outside]


class _Run:
    """A body to be recorded."""

    def __init__(
        self, f: Callable[[Any, Any], Any], structure: Structure, slices: Structure, inputs: Sequence[Tensor]
    ) -> None:
        self.f, self.structure, self.slice_structure = f, structure, slices
        self.types = [(t.dtype, t.shape[1:]) for t in inputs]
        self.name = getattr(f, "__name__", "function")

    def trace(self, carries: Sequence[Tensor]) -> _Made:
        trace = Iteration(f"scan({self.name})")
        with trace:
            stands = [trace.stand_in(t.dtype, t.shape) for t in carries]
            slices = [trace.stand_in(*kind) for kind in self.types]
            carry = unflatten(self.structure, map(_variable, stands))
            pair = self.f(carry, unflatten(self.slice_structure, map(_variable, slices)))
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise DTypeError(
                    f"scan: `{self.name}` returns a pair (carry, y), got {type(pair).__name__}; y may be None"
                )
            leaves, structure = flatten(pair[0])
            if structure != self.structure:
                raise ArgumentError(
                    f"scan: `{self.name}` returns a carry with another structure than `init`: {_shown(structure)} instead"
                    f" of {_shown(self.structure)}"
                )
            new = [operand_value(as_tensor(t, "scan", "carry")) for t in leaves]
            results, y_structure = flatten(pair[1])
            ys = [operand_value(as_tensor(t, "scan", "y")) for t in results]
        return _Made(stands, slices, new, ys, y_structure, list(trace.outside.values()))


def _variable(value: Value) -> Tensor:
    """A tensor over a stand-in. Derivatives taken in the body know that others may be taken outside."""
    tensor = from_value(value, (), modes.grad and value.dtype.is_inexact)
    if tensor._requires_grad:
        lazy.register_role(value, tensor)
    return tensor


def _shown(structure: Structure) -> str:
    if structure.kind == "leaf":
        return "*"
    return f"{structure.kind.__name__}({', '.join(map(_shown, structure.children))})"


def _check_carries(carries: Sequence[Tensor], new: Sequence[Value], name: str) -> None:
    for number, (tensor, value) in enumerate(zip(carries, new, strict=True)):
        if value.shape != tensor.shape:
            raise ShapeError(
                f"scan: a carry keeps its shape; leaf {number} of `init` has {tensor.shape}, `{name}` returns {value.shape}"
            )
        if value.dtype is not tensor.dtype:
            raise DTypeError(
                f"scan: a carry keeps its dtype; leaf {number} of `init` has {tensor.dtype}, `{name}` returns"
                f" {value.dtype}; cast one of them"
            )


def _looped(
    made: _Made,
    carries: Sequence[Tensor],
    inputs: Sequence[Tensor],
    count: int,
    reverse: bool,
    structure: Structure,
) -> tuple[Any, Any]:
    """The loop over a recorded body, and its results as trees."""
    assigned = [note for note in made.outside if note.assigned]
    outputs = [*made.new, *(note.after for note in assigned if note.after is not None), *made.ys]
    moving = [*made.stands, *made.slices, *(note.placeholder for note in assigned)]
    consts = _constants(outputs, moving)
    given = {note.placeholder: note.before for note in made.outside}
    body = Body.of([*consts, *made.stands, *(note.placeholder for note in assigned), *made.slices], outputs)
    values = scan_values(
        body, substitute(consts, given), [*map(operand_value, carries), *(note.before for note in assigned)],
        list(map(operand_value, inputs)), count, bool(reverse),
    )  # fmt: skip
    near = [*carries, *inputs, *(note.tensor for note in made.outside)]
    recorded = _recorded(made, carries, inputs, assigned, outputs)
    tensors = [from_value(v, near, r and v.dtype.is_inexact) for v, r in zip(values, recorded, strict=True)]
    at = len(carries)
    for note, tensor in zip(assigned, tensors[at:], strict=False):
        _write_back(note, tensor)
    last = unflatten(structure, tensors[:at])
    return last, unflatten(made.y_structure, tensors[at + len(assigned) :])


def _recorded(
    made: _Made,
    carries: Sequence[Tensor],
    inputs: Sequence[Tensor],
    assigned: Sequence[Outside],
    outputs: Sequence[Value],
) -> list[bool]:
    """Which outputs of the body depend, in this or an earlier iteration, on something that requires gradients."""
    if not modes.grad:
        return [False] * len(outputs)
    kept = {note.placeholder for note in assigned}
    sources = {n.placeholder for n in made.outside if n.required and n.placeholder not in kept}
    sources |= {v for v, t in zip(made.slices, inputs, strict=True) if t._requires_grad}
    first = [*(t._requires_grad for t in carries), *(note.required for note in assigned)]
    moving = [*made.stands, *(note.placeholder for note in assigned)]
    order = topological(outputs)
    while True:
        reached = sources | {v for v, required in zip(moving, first, strict=True) if required}
        for value in order:
            if value.op != "stop_gradient" and any(v in reached for v in value.inputs):
                reached.add(value)
        found = [v in reached for v in outputs]
        again = [a or b for a, b in zip(first, found, strict=False)]
        if again == first:
            return [*first, *found[len(first) :]]
        first = again


def _write_back(note: Outside, last: Tensor) -> None:
    """Assign what the last iteration left in a tensor from outside."""
    if note.records:
        note.tensor._rebind(last, "scan")
    else:
        with no_grad():
            note.tensor.assign(last)


def _constants(outputs: Sequence[Value], moving: Sequence[Value]) -> list[Value]:
    """What is the same in every iteration and computed before the loop: the largest values that depend on leaves, but on
    none of ``moving``, and that values of the body read."""
    order = topological(outputs)
    changes = set(moving)
    bare: set[Value] = set()  # made of numbers only
    for value in order:
        if any(v in changes for v in value.inputs):
            changes.add(value)
        elif value.op != "input" and all(v in bare for v in value.inputs):
            bare.add(value)
    found: dict[Value, None] = {}
    stack = [v for v in outputs if v not in changes]
    stack += [v for value in order if value in changes for v in value.inputs if v not in changes]
    while stack:
        value = stack.pop()
        if value in bare or value in found:
            continue
        if value.op in _MOVED:
            stack.append(value.inputs[0])
        else:
            found[value] = None
    return list(found)
