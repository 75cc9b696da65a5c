"""Backward passes as programs: forward and backward pass of a pending graph in one run, by the structure of the graph.

An eager training loop builds the same graph in every step. Its derivatives are recorded and compiled at the first
``backward``; later ones only number the forward graph to find the program. The forward graph is rebuilt over
inputs of its own for that, so that nothing of one step stays in the program. A packed value is one node of it.

``run`` gives up (None) where a step could differ in more than its leaves; ``gradients.backward`` then records the
derivatives as ordinary pending work.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tilewright.autodiff.vjp import vjp
from tilewright.core.settings import settings
from tilewright.graph.build import full, zeros_like
from tilewright.graph.ir import Value, constant, input_value, make
from tilewright.runtime.buffers import Buffer
from tilewright.tensor import execute, lazy
from tilewright.tensor.execute import Packed

if TYPE_CHECKING:
    from tilewright.tensor.handle import Tensor

__all__ = ["run"]

CACHE_LIMIT = 256  # programs kept; the least recently used goes first

# `custom` has a rule written by the user, which may refer to tensors of one step. A `mark` that still is pending
# stands for a variable of a transformation.
_OPAQUE = frozenset(("custom", "mark"))

_NOTHING: Mapping[Value, Packed] = {}


class _Opaque(Exception):
    """The graph has a node whose derivative may be another in the next step."""


@dataclass(slots=True)
class _Numbered:
    """A graph as one hashable tuple. ``given`` are the numbers of the nodes whose elements exist: ``leaves``, below which
    nothing matters, and computed values that a derivative flows through."""

    order: list[Value]
    numbers: dict[Value, int]
    given: list[int]
    leaves: set[int]
    signature: list[Any]
    packed: dict[int, Packed]  # what the nodes are packed of that were taken as a whole


@dataclass(slots=True)
class _Pass:
    """A compiled pass: the nodes it reads (or memory of constants), and where the gradient of each leaf is among its
    outputs. The other outputs, first in order, are the values asked for."""

    program: execute.Program
    reads: list[int | Buffer]
    gradients: list[int]


_programs: OrderedDict[tuple[Any, ...], _Pass] = OrderedDict()


def run(
    tensor: Tensor,
    seed: Value | None,
    order: Sequence[Value],
    leaves: Sequence[Value],
    packed: Mapping[Value, Packed] = _NOTHING,
) -> list[Value] | None:
    """The gradients of a tensor with respect to ``leaves``, computed together with the tensor and all pending work of
    its group. ``order`` is the tensor's history, in which ``packed`` values were taken as a whole, ``seed`` its cotangent
    (None: one).

    Gives values that hold their elements. None when the graph cannot be told from another one, or a computation failed:
    nothing has changed then.
    """
    groups, company = lazy.pending_with([tensor])
    if tensor._value.buffer is None:
        company = [tensor, *company]
    wanted = list(dict.fromkeys(t._value for t in company))
    roots = [tensor._value, *([] if seed is None else [seed]), *wanted]
    try:
        graph = _number(roots, set(order), set(leaves), packed)
        key = (
            tuple(graph.signature),
            tuple(graph.numbers[v] for v in leaves),
            seed is None,
            len(wanted),
            settings.compilation,
        )
        found = _programs.get(key)
        if found is None:
            found = _programs[key] = _compile(graph, tensor._value, seed, wanted, leaves)
            while len(_programs) > CACHE_LIMIT:
                _programs.popitem(last=False)
        else:
            _programs.move_to_end(key)
        nodes = graph.order
        buffers = [execute.leaf_buffer(nodes[r]) if isinstance(r, int) else r for r in found.reads]
        ready = found.program
        computed = ready.executable.compute(buffers) if ready.executable is not None else []
    except Exception:  # recorded as pending work, it fails where it is read, and alone
        return None
    outputs = [buffers[r] if r >= 0 else computed[~r] for r in ready.results]
    for value, buffer in zip(wanted, outputs, strict=False):
        value.buffer = buffer
    lazy.settle_all(company)
    lazy.drop_computed(groups)
    return [lazy.leaf_of(outputs[at], leaf.type) for at, leaf in zip(found.gradients, leaves, strict=True)]


def _number(
    roots: Sequence[Value], history: set[Value], leaves: set[Value], packed: Mapping[Value, Packed]
) -> _Numbered:
    """Number the graph below ``roots`` by first use. Computed values end it, except where a derivative flows on.

    Values of the history are taken as a whole where the history did, others where they are packed now: another thread may
    write one out at any time."""
    graph = _Numbered([], {}, [], set(), [], {})
    numbers, order, given, signature = graph.numbers, graph.order, graph.given, graph.signature
    stack: list[Value | None] = [*reversed(roots)]
    begun: list[tuple[Value, Packed | None, Any, tuple[Value, ...], bool]] = []
    while stack:
        value = stack.pop()
        op: Any
        if value is None:  # all operands of the last one begun have numbers
            value, whole, op, inputs, held = begun.pop()
            leaf = False
        elif value in numbers:
            continue
        else:
            inside = value in history
            whole = packed.get(value) if inside else value.packed
            if whole is None:
                op, inputs = value.op, value.inputs
                held = value.buffer is not None and op != "constant"
                leaf = value in leaves or (held and (not inputs or not inside or _ends(value)))
            else:
                op, inputs = whole[0].kind, whole[1]
                held = value.buffer is not None
                leaf = held and not (inside and whole[0].flows)
            if not leaf:
                if op in _OPAQUE:
                    raise _Opaque
                if op == "input":
                    raise execute.UnboundLeaf(value)
                waiting = [i for i in inputs if i not in numbers]
                if waiting:
                    begun.append((value, whole, op, inputs, held))
                    stack.append(None)
                    waiting.reverse()
                    stack.extend(waiting)
                    continue
                leaf = op == "constant" and execute.changes(value)
        number = numbers[value] = len(order)
        order.append(value)
        if leaf or held:
            given.append(number)
            signature.append(leaf)
        if leaf:
            graph.leaves.add(number)
            signature.append(value.type.dtype)
            signature.append(value.type.shape)
        elif op == "constant":
            signature.append(repr(value.attrs[0][1]))
            signature.append(value.type.dtype)
        else:
            signature.append(op)
            if whole is not None:
                graph.packed[number] = whole
            elif value.attrs:
                signature.append(value.attrs)
            signature.extend([numbers[i] for i in inputs])
    signature.append(tuple([numbers[v] for v in roots]))
    return graph


def _ends(value: Value) -> bool:
    """Whether no derivative flows on through a value of the history."""
    return value.op == "stop_gradient" or (value.op == "mark" and value.role is not None)


def _compile(
    graph: _Numbered, root: Value, seed: Value | None, wanted: Sequence[Value], leaves: Sequence[Value]
) -> _Pass:
    """Record the derivatives over placeholders and compile them with the values asked for."""
    canonical: list[Value] = []
    for number, value in enumerate(graph.order):
        kind = value.type
        if number in graph.leaves:
            canonical.append(input_value(kind.dtype, kind.shape))
        elif number in graph.packed:
            template, inside = graph.packed[number]
            canonical.append(template.kind.build([canonical[graph.numbers[i]] for i in inside]))
        elif value.op == "constant":
            canonical.append(constant(value.attrs[0][1], kind.dtype))
        else:
            operands = [canonical[graph.numbers[i]] for i in value.inputs]
            canonical.append(make(value.op, operands, **dict(value.attrs)))
    at = {value: canonical[number] for value, number in graph.numbers.items()}
    start = full(1, root.type.dtype, root.type.shape) if seed is None else at[seed]
    variables = [at[v] for v in leaves]
    slopes = vjp([at[root]], [start], variables)
    found = [zeros_like(v) if g is None else g for g, v in zip(slopes, variables, strict=True)]
    outputs = [at[v] for v in wanted]
    places = [len(outputs) + n for n in range(len(found))]
    outputs += found
    bound = {canonical[n]: n for n in graph.given}
    planned = execute.plan(outputs, eager=False, bound=bound)
    # A leaf that is not bound is a constant that was computed before.
    return _Pass(execute.program(planned), [bound.get(v, v.buffer) for v in planned.leaves], places)
