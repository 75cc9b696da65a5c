"""Branches inside the graph: ``cond`` and ``switch``.

Every branch runs once, with stand-ins for the operands and for the tensors it reads from outside; what it recorded
becomes a static argument of one operation. A compiled program computes the branch that is taken and no other, in
derivatives too. A tensor from outside that a branch assigns is one more result, which other branches leave as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tilewright.autodiff.switch import switch as switch_values
from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.core.trees import Structure, flatten, paths, unflatten
from tilewright.functions.arguments import as_tensor, cast
from tilewright.functions.elementwise import clip, not_equal
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

__all__ = ["cond", "switch"]


def cond(pred: Any, true_fun: Callable[..., Any], false_fun: Callable[..., Any], *operands: Any) -> Any:
    """``true_fun(*operands)`` if ``pred``, else ``false_fun(*operands)``; only the one that is taken is computed.

    ``pred`` is one bool, or a number (true unless 0). Both functions return trees of one structure, with tensors of one
    shape and dtype at each place; a Python number takes the dtype that the other one has there. Operands may be any
    trees. The functions run once each, with tensors that have no elements yet, and may read and assign tensors from
    outside; derivatives reach those too. Under ``vmap``, examples with a ``pred`` of their own compute both functions and
    select.

    >>> cond(Tensor(2.0) > 1, lambda x: x * 10, lambda x: x - 1, Tensor(3.0)).item()
    30.0
    """
    chosen = _scalar(pred, "cond", "pred")
    truth = chosen if chosen.dtype.is_bool else not_equal(chosen, 0)
    branches = {"false_fun": false_fun, "true_fun": true_fun}
    return _switched("cond", cast(truth, dt.int32), branches, operands)


def switch(index: Any, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
    """``branches[index](*operands)``; only that branch is computed. An index out of range takes the nearest branch.

    ``index`` is one integer. See ``cond`` for what the branches return and may do.

    >>> switch(Tensor(1), [lambda x: x, lambda x: x * x, lambda x: -x], Tensor(3.0)).item()
    9.0
    """
    if callable(branches):
        raise DTypeError("switch: `branches` is a list of functions, got one function")
    branches = tuple(branches)
    if not branches:
        raise ArgumentError("switch: `branches` is empty; there is nothing to choose from")
    number = _scalar(index, "switch", "index")
    if not number.dtype.is_integer:
        raise DTypeError(f"switch: `index` is one integer, got a tensor of {number.dtype}")
    if number.dtype.bits < 32:
        number = cast(number, dt.int32)
    named = {f"branches[{n}]": fun for n, fun in enumerate(branches)}
    return _switched("switch", cast(clip(number, 0, len(branches) - 1), dt.int32), named, operands)


def _scalar(x: Any, what: str, name: str) -> Tensor:
    given = as_tensor(x, what, name)
    if given.shape != ():
        raise ShapeError(
            f"{what}: `{name}` is one element, got a tensor of shape {given.shape}; reduce it with `.any()` or `.all()`,"
            f" choose element by element with `tw.where`, or use `tw.vmap` for an axis of examples"
        )
    return given


@dataclass
class _Branch:
    """What one branch recorded: its stand-ins, the leaves of its result, and what it used outside."""

    name: str
    stands: list[Value]
    leaves: list[Any]  # values, and Python numbers
    structure: Structure
    outside: dict[int, Outside]

    @classmethod
    def traced(
        cls, role: str, fun: Callable[..., Any], what: str, operands: Sequence[Any], structure: Structure
    ) -> _Branch:
        check_function(fun, what, role)
        name = getattr(fun, "__name__", "function")
        trace = Iteration(f"{what}({name})")
        with trace:
            stands: list[Value] = []
            given = []
            for leaf in operands:
                if isinstance(leaf, Tensor):
                    stands.append(trace.stand_in(leaf.dtype, leaf.shape))
                    given.append(variable(stands[-1]))
                else:
                    given.append(leaf)
            results, result_structure = flatten(fun(*unflatten(structure, given)))
            leaves = [
                x
                if isinstance(x, (bool, int, float, complex))
                else operand_value(as_tensor(x, what, f"the result of {name}"))
                for x in results
            ]
        return cls(f"`{role}` ({name})", stands, leaves, result_structure, trace.outside)


def _switched(
    what: str, selector: Tensor, funs: Mapping[str, Callable[..., Any]], operands: Sequence[Any]
) -> Any:
    leaves, structure = flatten(tuple(operands))
    leaves = [x if isinstance(x, (Tensor, bool, int, float, complex)) else _array(x, what) for x in leaves]
    tensors = [x for x in leaves if isinstance(x, Tensor)]
    made = [_Branch.traced(role, fun, what, leaves, structure) for role, fun in funs.items()]
    results = _agreed(made, what)
    notes: dict[int, list[Outside]] = {}
    for branch in made:
        for key, note in branch.outside.items():
            notes.setdefault(key, []).append(note)
    assigned = {key: own for key, own in notes.items() if any(note.assigned for note in own)}

    bodies, given = _bodies(made, results, notes, assigned)
    values = switch_values(operand_value(selector), [*map(operand_value, tensors), *given], bodies)
    near = [selector, *tensors, *(own[0].tensor for own in notes.values())]
    required = [t._requires_grad for t in tensors] + [own[0].required for own in notes.values()]
    recorded = _recorded(bodies, required)
    out = [from_value(v, near, r and v.dtype.is_inexact) for v, r in zip(values, recorded, strict=True)]
    count = len(results[0])
    for own, tensor in zip(assigned.values(), out[count:], strict=True):
        records = any(note.records for note in own)
        own[0].records = records
        write_back(own[0], tensor, what)
    return unflatten(made[0].structure, out[:count])


def _recorded(bodies: Sequence[Body], required: Sequence[bool]) -> list[bool]:
    """Which results depend, in some branch, on an input that requires gradients."""
    found = [False] * len(bodies[0].outputs)
    if modes.grad:
        for body in bodies:
            reached = {v for v, r in zip(body.inputs, required, strict=False) if r}
            for value in topological(body.outputs):
                if value.op != "stop_gradient" and any(v in reached for v in value.inputs):
                    reached.add(value)
            found = [f or v in reached for f, v in zip(found, body.outputs, strict=True)]
    return found


def _array(x: Any, what: str) -> Any:
    """A NumPy array as a tensor; what is neither an array nor a number is passed on as it is."""
    return as_tensor(x, what, "operands") if hasattr(x, "__array__") else x


def _bodies(
    made: Sequence[_Branch],
    results: Sequence[Sequence[Value]],
    notes: dict[int, list[Outside]],
    assigned: dict[int, list[Outside]],
) -> tuple[list[Body], list[Value]]:
    """The branches over one list of inputs (operands, then what they use outside), and what those from outside are."""
    known = {v for b in made for v in (*b.stands, *(note.placeholder for note in b.outside.values()))}
    literals: dict[Value, None] = {}  # tensors made inside from data
    outputs = []
    for branch, own in zip(made, results, strict=True):
        left = [
            branch.outside[key].after if key in branch.outside else None for key in assigned
        ]  # None: as it is
        outputs.append((list(own), left))
        for v in topological([*own, *(x for x in left if x is not None)]):
            if v.op == "input" and v not in known:
                literals[v] = None
    bodies = []
    for branch, (own, left) in zip(made, outputs, strict=True):
        places = {
            key: branch.outside[key].placeholder
            if key in branch.outside
            else input_value(of[0].before.dtype, of[0].before.shape)
            for key, of in notes.items()
        }
        after = [places[key] if x is None else x for key, x in zip(assigned, left, strict=True)]
        bodies.append(Body.of([*branch.stands, *places.values(), *literals], [*own, *after]))
    return bodies, [*(of[0].before for of in notes.values()), *literals]


def _agreed(made: Sequence[_Branch], what: str) -> list[list[Value]]:
    """The results of every branch as values of the same types. Raises where they differ."""
    first = made[0]
    for branch in made[1:]:
        if branch.structure != first.structure:
            raise ArgumentError(
                f"{what}: branches return trees of one structure; {first.name} returns {shown(first.structure)}, and"
                f" {branch.name} {shown(branch.structure)}"
            )
    out: list[list[Value]] = [[] for _ in made]
    for n, place in enumerate(paths(first.structure, "result")):
        column = [branch.leaves[n] for branch in made]
        kind = next((x.dtype for x in column if isinstance(x, Value)), None) or _common(column)
        values = [x if isinstance(x, Value) else _number(x, kind) for x in column]
        for branch, value in zip(made[1:], values[1:], strict=True):
            if value.type != values[0].type:
                error = ShapeError if value.shape != values[0].shape else DTypeError
                raise error(
                    f"{what}: branches return the same shapes and dtypes; for `{place}`, {first.name} returns"
                    f" {values[0].type} and {branch.name} {value.type}"
                )
        for own, value in zip(out, values, strict=True):
            own.append(value)
    return out


def _common(numbers: Sequence[bool | int | float | complex]) -> DType:
    """The dtype that Python numbers take together."""
    return max((dt.of_scalar(x) for x in numbers), key=lambda d: "biufc".index(d.kind))


def _number(x: bool | int | float | complex, kind: DType) -> Value:
    """A Python number among tensors of a dtype, where it fits; otherwise in its own."""
    own = dt.of_scalar(x)
    fits = "biufc".index(own.kind) <= "biufc".index(kind.kind) or (own.kind == "i" and kind.kind == "u")
    return operand_value(Tensor(x, kind if fits else own))
