"""Which pending tensors are computed together, and when.

Every operation joins the groups of its operands, so a group is a connected piece of pending work. Reading one tensor
computes all tensors of its group that somebody still holds: a loss, its logits and the parameters updated from it are
computed once, in one program. A group that grows past a limit is computed at once (a running sum over a million steps
must not grow); it is cut where it was cut before, so that the pieces of a loop have one structure and one program.

This file decides what to compute; ``execute`` compiles and runs it. It does not know derivatives.
"""

from __future__ import annotations

import itertools
import sys
import weakref
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from types import CodeType
from typing import TYPE_CHECKING

from tilewright.core.dtype import DType
from tilewright.graph.ir import TensorType, Value, forget_history, fresh_leaf, is_kept
from tilewright.graph.ops import ANCHORS
from tilewright.graph.template import Template
from tilewright.runtime.buffers import Buffer
from tilewright.tensor import execute
from tilewright.tensor.errors import LeakedTensorError, TracedValueError, located, user_frame
from tilewright.tensor.modes import modes

if TYPE_CHECKING:
    from tilewright.tensor.handle import Tensor

__all__ = [
    "NODE_LIMIT",
    "Group",
    "enroll",
    "handles_of",
    "leaf",
    "realize",
    "realize_tensors",
    "register_role",
    "role_of",
]

NODE_LIMIT = 2_000  # pending operations of a group before it is computed without being read
CHAIN_LIMIT = (
    64  # pending elementwise operations in a row: one kernel computes them, and more would gain nothing
)
BYTE_LIMIT = 512 << 20  # bytes of realized operands that a group keeps alive before it is computed

# A value's role says that gradients arrive there: for the tensor that it stands for in a graph (a tensor that is written in
# place or realized has several over time), or for a deferred graph. FREED: an earlier backward released the graph.
_ANCHORS = frozenset(ANCHORS)
FREED = "freed"
marks = itertools.count()  # identities of marked values


class Deferred:
    """A result of a compiled call: ``value`` in terms of placeholders, the leaves ``bound`` to those, and the ``numbers`` of its
    symbolic sizes.

    Its graph is written out when it is differentiated (``deferred``).
    """

    __slots__ = ("bound", "numbers", "value")

    def __init__(
        self, value: Value, bound: Mapping[Value, Value], numbers: Mapping[str, int] | None = None
    ) -> None:
        self.value = value
        self.bound = bound
        self.numbers = numbers


def leaf(buffer: Buffer, dtype: DType, shape: tuple[int, ...]) -> Value:
    """A fresh leaf over memory that holds computed elements."""
    return leaf_of(buffer, _type(dtype, shape))


_type = lru_cache(maxsize=1024)(TensorType)  # making one costs more than the leaf


def leaf_of(buffer: Buffer, type: TensorType) -> Value:
    """``leaf`` where the type is at hand."""
    value = fresh_leaf(type)
    value.buffer = buffer
    return value


def register_role(value: Value, role: Tensor | Deferred | None) -> None:
    """Gradients that arrive at ``value`` belong to a tensor, or to a deferred graph; None: the graph below was freed."""
    if role is None:
        value.role = FREED
    else:
        value.role = role if isinstance(role, Deferred) else weakref.ref(role)


def role_of(value: Value) -> Tensor | Deferred | str | None:
    """The tensor for which ``value`` is a leaf, a deferred graph, FREED, or None."""
    found = value.role
    return found() if isinstance(found, weakref.ref) else found


def name_interior(value: Value, tensor: Tensor) -> None:
    """Remember that ``tensor`` names a value with a history."""
    names = value.names
    if names is None:
        value.names = [weakref.ref(tensor)]
    else:
        if len(names) > 8:
            names[:] = [r for r in names if r() is not None]
        names.append(weakref.ref(tensor))


def handles_of(value: Value) -> list[Tensor]:
    """The live tensors that name an interior value with a history."""
    return [t for r in value.names or () if (t := r()) is not None and t._value is value]


class Group:
    """A connected piece of pending work: a disjoint-set node with the tensors that belong to it."""

    __slots__ = ("limit", "members", "nbytes", "nodes", "parent")

    def __init__(self) -> None:
        self.parent: Group | None = None
        self.members: list[weakref.ref[Tensor]] = []
        self.nodes = 0
        self.nbytes = 0
        self.limit = 64  # members at which dead ones are dropped

    def live(self) -> list[Tensor]:
        """The tensors still held by somebody, in order of creation within each joined part."""
        return [
            t
            for r in self.members
            if (t := r()) is not None
            and (t._group is self or (t._group is not None and find(t._group) is self))
        ]

    def company(self, tensor: Tensor) -> list[Tensor]:
        """The others of ``live``."""
        return [
            t
            for r in self.members
            if (t := r()) is not None
            and t is not tensor
            and (t._group is self or (t._group is not None and find(t._group) is self))
        ]

    def add(self, tensor: Tensor) -> None:
        if len(self.members) >= self.limit:
            self.members = [r for r in self.members if r() is not None]
            self.limit = max(64, 2 * len(self.members))
        self.members.append(weakref.ref(tensor))

    def clear(self) -> None:
        self.members = []
        self.nodes = self.nbytes = 0


def find(group: Group) -> Group:
    """The representative of a group."""
    root = group
    while root.parent is not None:
        root = root.parent
    while group.parent is not None:
        group.parent, group = root, group.parent
    return root


def _join(a: Group, b: Group) -> Group:
    if len(a.members) < len(b.members):
        a, b = b, a
    b.parent = a
    a.members.extend(b.members)
    a.nodes += b.nodes
    a.nbytes += b.nbytes
    b.members = []
    return a


def enroll(
    tensor: Tensor, operands: Iterable[Tensor], nodes: int = 1, template: Template | None = None
) -> None:
    """Put a new pending tensor into the group of its operands; compute the group when it has become too large."""
    group: Group | None = None
    nbytes = chain = 0
    for operand in operands:
        if operand._chain > chain:
            chain = operand._chain
        other = operand._group
        if other is None:
            buffer = operand._value.buffer
            if buffer is not None:
                nbytes += buffer.nbytes
        else:
            other = find(other)
            if group is None:
                group = other
            elif group is not other:
                group = _join(group, other)
    if group is None:
        group = Group()
    tensor._group = group
    group.add(tensor)
    group.nodes += nodes
    group.nbytes += nbytes
    packed = tensor._value.packed
    if not (tensor._value.op in _ANCHORS if packed is None else packed[0].anchor):
        if template is None:
            tensor._chain = chain + 1
        else:
            tensor._chain = chain + template.chain if template.open else template.chain
        if chain >= CHAIN_LIMIT:
            realize_tensors((tensor,))
            return
    if (group.nodes >= NODE_LIMIT // 2 or group.nbytes >= BYTE_LIMIT // 2) and _cut_here(group):
        realize_tensors((tensor,))


_cut_sites: dict[tuple[CodeType, int], None] = {}


def _cut_here(group: Group) -> bool:
    """Whether to compute the group now. Past half the limit only where a group was cut before: in a loop the pieces
    then begin and end at one place, have one structure, and compile once."""
    frame = sys._getframe(1)
    package = __file__.rsplit("tensor", 1)[0]
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        frame = frame.f_back
    site = (frame.f_code, frame.f_lasti)
    if site in _cut_sites:
        return True
    if group.nodes < NODE_LIMIT and group.nbytes < BYTE_LIMIT:
        return False
    if len(_cut_sites) >= 64:
        _cut_sites.pop(next(iter(_cut_sites)))
    _cut_sites[site] = None
    return True


def realize_tensors(tensors: Iterable[Tensor], subgraph_only: bool = False) -> None:
    """Compute tensors and, in the same program, all pending tensors of their groups that somebody still holds.

    ``subgraph_only`` leaves out those that the given tensors do not depend on. Raises ``TracedValueError`` when a tensor
    belongs to a function being traced.
    """
    wanted: list[Tensor] = []
    for tensor in tensors:
        if tensor._value.buffer is not None:
            continue
        if tensor._trace is not modes.trace:
            check_usable(tensor)
        if not wanted or all(t is not tensor for t in wanted):
            wanted.append(tensor)
    if not wanted:
        return
    groups, company = pending_with(wanted)
    try:
        if subgraph_only:
            inside = execute.plan([t._value for t in wanted]).numbers
            company = [t for t in company if t._value in inside]
        _compute(wanted, company)
    except execute.UnboundLeaf:
        raise traced() from None
    drop_computed(groups)


def realize(tensor: Tensor) -> None:
    """``realize_tensors`` of one that is pending, in the fewest steps of Python: what reading a number does."""
    group, value = tensor._group, tensor._value
    if group is None or group.parent is not None or tensor._trace is not None or modes.trace is not None:
        realize_tensors((tensor,))
        return
    company = group.company(tensor)
    try:
        if company or value.packed is None:
            _compute([tensor], company)
        else:
            (value.buffer,) = execute.evaluate([value])
            settle(tensor)
    except execute.UnboundLeaf:
        raise traced() from None
    if len(group.members) == 1:
        group.clear()
    else:
        drop_computed((group,))


def pending_with(wanted: Sequence[Tensor]) -> tuple[list[Group], list[Tensor]]:
    """The groups of pending tensors, and the others in them that somebody still holds."""
    if len(wanted) == 1:
        (tensor,) = wanted
        group = tensor._group
        if group is not None and group.parent is None:
            return [group], group.company(tensor)
    groups = list({id(g): g for t in wanted if t._group is not None for g in (find(t._group),)}.values())
    asked = {id(t) for t in wanted}
    return groups, [t for g in groups for t in g.live() if id(t) not in asked]


def drop_computed(groups: Iterable[Group]) -> None:
    """Let groups go of the members that are computed."""
    for group in groups:
        rest = [r for r in group.members if (t := r()) is not None and t._value.buffer is None]
        group.clear()
        group.members = rest


def _compute(wanted: list[Tensor], company: list[Tensor]) -> None:
    tensors = wanted + company
    values = list(dict.fromkeys([t._value for t in tensors]))
    try:
        buffers = execute.evaluate(values)
    except execute.UnboundLeaf:
        raise
    except Exception:
        if not company:
            raise
        _compute(wanted, [])  # what failed may be a companion that nobody asked for
        return
    for value, buffer in zip(values, buffers, strict=True):
        value.buffer = buffer
    settle_all(tensors)


def settle_all(tensors: Iterable[Tensor]) -> None:
    """``settle`` tensors that were computed together; those of one value share its new leaf."""
    fresh: dict[Value, Value] = {}
    for tensor in tensors:
        settle(tensor, fresh)
    for value in fresh:
        if value.inputs and is_kept(value):  # interned for good: other graphs must find it as it was
            value.buffer = None


def settle(tensor: Tensor, fresh: dict[Value, Value] | None = None) -> None:
    """Let a computed tensor go of its graph, unless a later ``backward`` needs it."""
    tensor._group = None
    tensor._chain = 0
    value = tensor._value
    if not tensor._requires_grad:
        if value.packed is not None:
            forget_history(value)
        if value.op == "input":
            return
        known = None if fresh is None else fresh.get(value)
        if known is None:
            known = leaf_of(value.buffer, value.type)
            if fresh is not None:
                fresh[value] = known
        tensor._value = known
        forget_history(value)
    elif tensor._leaf or value.role is FREED:
        tensor._value = leaf_of(value.buffer, value.type)
        register_role(tensor._value, tensor if tensor._leaf else None)
        forget_history(value)


def traced() -> TracedValueError:
    """The error for reading a traced value, pointing at the user's line."""
    trace = modes.trace
    name = f"`{trace.name}`" if trace is not None else "a jitted function"
    diagnostic, sources = located(
        "TW301",
        "a traced tensor was read as a number",
        "this needs the tensor's elements",
        (
            f"{name} runs once with stand-ins for its tensors, to record what it does; they have no elements yet",
        ),
        (
            "to choose between tensors use `tw.where(condition, a, b)` or `tw.cond`; to use a number return it from the function"
            f" and read it outside; or move the line out of {name}",
        ),
    )
    return TracedValueError(diagnostic, sources)


def check_usable(tensor: Tensor) -> None:
    """Make a tensor usable where the code runs now: the running trace takes it in; one of a finished trace is an error."""
    trace = modes.trace
    if tensor._trace is trace:
        return
    if trace is not None:
        trace.capture(tensor)
    elif tensor._trace is not None:
        if tensor._trace.closed:
            raise leaked(tensor)
        raise elsewhere(tensor._trace.name)


def elsewhere(name: str) -> TracedValueError:
    """The error for using a tensor that another thread's trace has taken in."""
    diagnostic, sources = located(
        "TW301",
        f"a tensor was used while another thread traces `{name}` with it",
        "this needs the tensor itself",
        (
            f"the first call of `{name}` with arguments of a kind runs it with stand-ins for the tensors it uses",
        ),
        (
            "call it once before other threads use its tensors, or let them use the tensors through jitted functions,"
            " which wait for each other",
        ),
    )
    return TracedValueError(diagnostic, sources)


def leaked(tensor: Tensor) -> LeakedTensorError:
    """The error for using a tensor that belongs to a finished trace."""
    place = user_frame()
    where = f" (used at {place[0]}:{place[1]})" if place else ""
    name = tensor._trace.name if tensor._trace is not None else "?"
    return LeakedTensorError(
        f"this tensor of shape {tensor.shape} was made while `{name}` was traced and has no elements outside it{where};"
        " return it from the function, or assign it to an existing tensor inside: `state.assign(value)`"
    )
