"""Loops inside the graph: ``scan``, ``fori_loop`` and ``while_loop``.

The body runs once, with stand-ins for the carry and for one slice; what it recorded becomes the static argument of one
operation, which compiles to a native loop and has derivatives and batches of its own. What the body reads from
outside becomes a constant of the loop, what it assigns outside becomes a carry. Branches are in ``branching``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tilewright.autodiff.custom import substitute
from tilewright.autodiff.scan import scan as scan_values
from tilewright.autodiff.scan import while_loop as while_values
from tilewright.core import dtype as dt
from tilewright.core.trees import Structure, flatten, paths, unflatten
from tilewright.functions.arguments import as_tensor, cast
from tilewright.functions.creation import arange
from tilewright.functions.recording import check_function, shown, variable, write_back
from tilewright.graph.body import Body
from tilewright.graph.ir import Value, input_value, topological
from tilewright.tensor import (
    ArgumentError,
    DTypeError,
    ShapeError,
    Tensor,
    from_value,
    modes,
    operand_value,
)
from tilewright.tensor.iteration import Iteration, Outside
from tilewright.tensor.standins import StandIns

__all__ = ["fori_loop", "scan", "while_loop"]

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
    check_function(f, "scan", "f")
    return _scan(f, init, xs, length, reverse)


def _scan(
    f: Callable[[Any, Any], Any],
    init: Any,
    xs: Any,
    length: int | None = None,
    reverse: bool = False,
    loop: str = "scan",
    name: str = "init",
) -> tuple[Any, Any]:
    """``scan``, for the user's function ``loop``, whose first carry is called ``name``."""
    first, structure = flatten(init)
    slices, slice_structure = flatten(xs)
    inputs = [as_tensor(t, loop, "xs") for t in slices]
    count = _length(inputs, length)
    run = _Run(f, structure, slice_structure, inputs, loop, name)
    carries, made = run.settled(first)
    return _looped(made, carries, inputs, count, reverse, structure, loop)


def fori_loop(lower: int, upper: int, body_fun: Callable[[Any, Any], Any], init_val: Any) -> Any:
    """``value = body_fun(i, value)`` for i from ``lower`` to ``upper - 1``, as one native loop; the last value.

    ``i`` is an int64 tensor of rank 0. See ``scan`` for what the body may do.

    >>> fori_loop(0, 5, lambda i, total: total + i, Tensor(0)).item()
    10
    """
    check_function(body_fun, "fori_loop", "body_fun")
    for name, bound in (("lower", lower), ("upper", upper)):
        if isinstance(bound, (bool, Tensor)) or not hasattr(bound, "__index__"):
            raise DTypeError(f"fori_loop: `{name}` is a Python integer, got {type(bound).__name__}")
    steps = arange(int(lower), max(int(upper), int(lower)))

    def step(value: Any, i: Any) -> tuple[Any, None]:
        return body_fun(i, value), None

    step.__name__ = _name(body_fun)
    last, _ = _scan(step, init_val, steps, loop="fori_loop", name="init_val")
    return last


def while_loop(cond_fun: Callable[[Any], Any], body_fun: Callable[[Any], Any], init_val: Any) -> Any:
    """``while cond_fun(value): value = body_fun(value)``, as one native loop; the last value.

    ``init_val`` is a tensor or a tree of them; the value keeps its structure, shapes and dtypes. ``cond_fun`` gives one
    bool. See ``scan`` for what both may do. The number of iterations is known only at the end, so there is forward mode
    (``jvp``, ``jacfwd``) and no reverse mode, for which ``scan`` and ``fori_loop`` are there. Under ``vmap`` the loop
    runs until all examples are done, each of which keeps its own last value. Ctrl-C ends it between two iterations.

    >>> while_loop(lambda n: n < 100, lambda n: n * 2, Tensor(3)).item()
    192
    """
    check_function(cond_fun, "while_loop", "cond_fun")
    check_function(body_fun, "while_loop", "body_fun")
    first, structure = flatten(init_val)

    def step(value: Any, nothing: Any) -> tuple[Any, Any]:
        new = body_fun(value)
        given = run.leaves(new)  # before `cond_fun` wonders what it got
        run.check_shapes(flatten(value)[0], [operand_value(t) for t in given])
        return new, cond_fun(unflatten(structure, given))

    step.__name__ = _name(body_fun)
    run = _Run(step, structure, flatten(None)[1], (), "while_loop", "init_val")
    carries, made = run.settled(first)
    start = _condition(cond_fun, unflatten(structure, carries))
    if [y.type for y in made.ys] != [start._value.type]:
        got = ", ".join(str(y.type) for y in made.ys) or "nothing"
        raise DTypeError(f"while_loop: `{_name(cond_fun)}` gives one bool at first and then {got}")
    assigned = [note for note in made.outside if note.assigned]
    outputs = [*made.ys, *made.new, *(note.after for note in assigned if note.after is not None)]
    moving = [*made.stands, *(note.placeholder for note in assigned)]
    consts = _constants(outputs, moving)
    given = {
        note.placeholder: note.tensor._value for note in made.outside
    }  # as the first condition left them
    values = while_values(
        Body.of([*consts, input_value(dt.bool_, ()), *moving], outputs), substitute(consts, given),
        [operand_value(start), *map(operand_value, carries), *(given[note.placeholder] for note in assigned)],
    )  # fmt: skip
    near = [start, *carries, *(note.tensor for note in made.outside)]
    recorded = _recorded(made, carries, (), assigned, outputs[1:])
    tensors = [
        from_value(v, near, r and v.dtype.is_inexact) for v, r in zip(values[1:], recorded, strict=True)
    ]
    for note, tensor in zip(assigned, tensors[len(carries) :], strict=True):
        write_back(note, tensor, "while_loop")
    return unflatten(structure, tensors[: len(carries)])


def _condition(cond_fun: Callable[[Any], Any], value: Any) -> Tensor:
    """Whether the loop begins."""
    given = cond_fun(value)
    found = given if isinstance(given, Tensor) else Tensor(given) if isinstance(given, bool) else None
    if found is None or found.shape != () or not found.dtype.is_bool:
        got = f"a tensor {given._value.type}" if isinstance(given, Tensor) else type(given).__name__
        raise DTypeError(
            f"while_loop: `{_name(cond_fun)}` gives one bool, a tensor of shape () and dtype bool, got {got}"
        )
    return found


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", "function")


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
        self,
        f: Callable[[Any, Any], Any],
        structure: Structure,
        slices: Structure,
        inputs: Sequence[Tensor],
        loop: str,
        init: str,
    ) -> None:
        self.f, self.structure, self.slice_structure = f, structure, slices
        self.types = [(t.dtype, t.shape[1:]) for t in inputs]
        self.name = _name(f)
        self.loop, self.init = loop, init

    def settled(self, first: Sequence[Any]) -> tuple[list[Tensor], _Made]:
        """The first carries and what the body made of them; a Python number among them takes the type it gets there."""
        carries = [as_tensor(t, self.loop, self.init) for t in first]
        made = self.trace(carries)
        weak = [
            not isinstance(t, Tensor) and c.dtype is not v.dtype
            for t, c, v in zip(first, carries, made.new, strict=True)
        ]
        if any(weak):
            carries = [cast(c, v.dtype) if w else c for c, v, w in zip(carries, made.new, weak, strict=True)]
            made = self.trace(carries)
        self.check(carries, made.new)
        return carries, made

    def leaves(self, carry: Any) -> list[Tensor]:
        """The tensors of what the body returns as the next carry."""
        leaves, structure = flatten(carry)
        if structure != self.structure:
            raise ArgumentError(
                f"{self.loop}: `{self.name}` returns a carry with another structure than `{self.init}`:"
                f" {shown(structure)} instead of {shown(self.structure)}"
            )
        return [as_tensor(t, self.loop, "carry") for t in leaves]

    def check_shapes(self, carries: Sequence[Tensor], new: Sequence[Value]) -> None:
        for place, tensor, value in zip(paths(self.structure, self.init), carries, new, strict=True):
            if value.shape != tensor.shape:
                raise ShapeError(
                    f"{self.loop}: a carry keeps its shape; `{place}` has {tensor.shape}, and `{self.name}` returns"
                    f" {value.shape} for it"
                )

    def check(self, carries: Sequence[Tensor], new: Sequence[Value]) -> None:
        self.check_shapes(carries, new)
        for place, tensor, value in zip(paths(self.structure, self.init), carries, new, strict=True):
            if value.dtype is not tensor.dtype:
                raise DTypeError(
                    f"{self.loop}: a carry keeps its dtype; `{place}` has {tensor.dtype}, and `{self.name}` returns"
                    f" {value.dtype} for it; cast one of them"
                )

    def trace(self, carries: Sequence[Tensor]) -> _Made:
        trace = Iteration(f"{self.loop}({self.name})")
        with trace:
            stands = [trace.stand_in(t.dtype, t.shape) for t in carries]
            slices = [trace.stand_in(*kind) for kind in self.types]
            carry = unflatten(self.structure, map(variable, stands))
            pair = self.f(carry, unflatten(self.slice_structure, map(variable, slices)))
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise DTypeError(
                    f"scan: `{self.name}` returns a pair (carry, y), got {type(pair).__name__}; y may be None"
                )
            new = [operand_value(t) for t in self.leaves(pair[0])]
            results, y_structure = flatten(pair[1])
            ys = [operand_value(as_tensor(t, self.loop, "y")) for t in results]
        return _Made(stands, slices, new, ys, y_structure, list(trace.outside.values()))


def _looped(
    made: _Made,
    carries: Sequence[Tensor],
    inputs: Sequence[Tensor],
    count: int,
    reverse: bool,
    structure: Structure,
    loop: str,
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
        alone = _own_loop(note, count)
        write_back(note, tensor if alone is None else alone, loop)
    last = unflatten(structure, tensors[:at])
    return last, unflatten(made.y_structure, tensors[at + len(assigned) :])


def _own_loop(note: Outside, count: int) -> Tensor | None:
    """The last value of a tensor that the body makes of itself alone (a generator's state), by a loop of its own.

    Inside ``vmap`` it is the same for all examples, and must not depend on a loop that differs between them.
    """
    if not (isinstance(modes.trace, StandIns) and note.after is not None):
        return None
    if any(v.op == "input" and v is not note.placeholder for v in topological([note.after])):
        return None
    body = Body.of([note.placeholder], [note.after])
    (last,) = scan_values(body, [], [note.before], [], count, False)
    return from_value(last, (note.tensor,))


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
