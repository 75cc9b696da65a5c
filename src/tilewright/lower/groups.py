"""Fusion groups: which values are computed together in one kernel.

Values are visited operands first. An operation that needs loops of its own (a reduction, a contraction...) opens a group;
an elementwise operation joins the newest group that it reads from when, index for index, it reads that group's members at
the same place, and otherwise stays *floating*: it is computed by whoever reads it. A floating value becomes a group of its
own when it is an output or when recomputing it for several readers would cost more than storing it. Groups only read
older groups, so the order of groups is an order of execution.

    before   h = dot(x, w); y = h + broadcast(b); z = maximum(y, 0); m = reduce_max(z); e = exp(z - m); s = reduce_sum(e)
    after    [dot: h y z -> z]  [row: m, z - m, e, s -> s e]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from tilewright.core.scalar import SCALAR_OPS
from tilewright.core.shape import Shape, is_static, product
from tilewright.graph.ir import Value
from tilewright.lower.affine import Affine, Space
from tilewright.lower.columns import BYTES, operand_index, result_index, rows_reduced
from tilewright.lower.order import visiting_order
from tilewright.lower.read import (
    COMBINE,
    REWRITES,
    is_disjoint_fold,
    padded_index,
    reduced_shape,
    rewrite_index,
)

__all__ = ["Group", "form_groups", "is_leaf", "unshaped"]

Index = tuple[Affine, ...]

_COSTS = {
    "div": 4,
    "sqrt": 4,
    "rsqrt": 4,
    "floordiv": 8,
    "mod": 8,
    "pow": 24,
    "random_bits": 45,
    "gather": 4,
    "pad": 2,
}
_CHEAP = {
    "neg", "abs", "sign", "invert", "floor", "ceil", "round", "trunc", "add", "sub", "mul", "maximum", "minimum", "copysign",
    "bitand", "bitor", "bitxor", "shl", "shr", "eq", "ne", "lt", "le", "gt", "ge", "where",
}  # fmt: skip
INLINE_REDUCTION = 36  # window and overlap sums up to this many terms are written out
STORE_COST = 4  # storing and loading an element costs about as much as this many cheap operations
RECOMPUTE_COST = 20  # the same for an array that waits for a later pass, and takes up memory meanwhile
WIDE_COST = 2  # what is read many times is stored when it costs more than this
MAX_DEPTH = 64  # longer chains are cut: expressions stay within reach of the stack and of the registers
MAX_FLOATING_COST = 120
SMALL_MAP = 1 << 14  # elements of a map that takes about as long as starting it
LARGE_MAP = 1 << 22  # elements that caches hardly hold until they are read again
FEW_READERS = 3  # groups that compute a short function again instead of reading it
MAX_TOGETHER = 24  # values that one map computes side by side
WIDE_READERS = ("dot", "conv", "attention", "attention_grad")  # read an element many times, or pack it


def own_cost(v: Value) -> int:
    """A rough count of cheap instructions for one element."""
    if v.op in SCALAR_OPS:
        return operation_cost(v.op)
    if v.op == "cast" and v.dtype.is_float and v.dtype.bits == 16:
        return 6  # rounding is several integer operations
    return _COSTS.get(v.op, 1 if v.op in ("cast", "bitcast") else 0)


def operation_cost(op: str) -> int:
    """The same for a scalar operation, or an expression's other operations."""
    if op in _CHEAP or op not in SCALAR_OPS:
        return 1
    return _COSTS.get(op, 14)


def reads(v: Value) -> tuple[Value, ...]:
    """The operands whose elements a value reads; a barrier only waits for all but the first."""
    return v.inputs[:1] if v.op == "barrier" else v.inputs


def is_leaf(v: Value) -> bool:
    return v.op in ("input", "constant", "iota")


def unshaped(v: Value) -> Value:
    """The value whose memory, being flat, holds ``v`` as well."""
    while v.op == "reshape" and v.inputs[0].op not in ("constant", "iota"):
        v = v.inputs[0]
    return v


NESTS = ("scan", "while_loop", "switch")  # operations over bodies


def _nest_operands(v: Value) -> list[Value]:
    """What bodies read from memory: all operands but the first carries of a loop, which are copied before."""
    if v.op == "switch":
        return [unshaped(x) for x in v.inputs]
    first, past = v["consts"], v["consts"] + v["carries"]
    return [unshaped(x) for x in (*v.inputs[:first], *v.inputs[past:])]


def is_small_reduction(v: Value) -> bool:
    """A pooling window or its adjoint, small enough to write out."""
    if v.op not in COMBINE or product(reduced_shape(v)) > INLINE_REDUCTION or not is_static(reduced_shape(v)):
        return False
    if v.op == "fold":
        return True
    x = v.inputs[0]
    while x.op in SCALAR_OPS or (x.op in ("cast", "reshape") and x.inputs):
        x = max(x.inputs, key=lambda i: len(i.shape))
        if x.op == "window":
            break
    return (
        x.op == "window"
        and all(a >= len(x.inputs[0].shape) for a in v["axes"])
        and len(x.shape) == len(v.inputs[0].shape)
    )


@dataclass(eq=False)
class Group:
    """Values computed by one kernel (or a few of one recipe).

    ``kind``: ``map`` (elementwise), ``row`` (reductions over ``reduced`` dims of ``dims`` with elementwise work around),
    ``dot`` (contraction with an epilogue), ``attention`` (its results for one set of operands), ``loop`` and ``switch`` (all
    results of one), ``single`` (one operation with a recipe of its own), ``host``.
    ``members`` maps every value to its index over the group's loop variables ``loops``. A concat that a map writes has that
    of its operands. ``columns`` are reductions over the rows of a row group, which are computed on the way (`columns.py`).
    """

    number: int
    kind: str
    anchor: Value
    dims: Shape
    reduced: frozenset[int]
    space: Space
    loops: Index
    members: dict[Value, Index] = field(default_factory=dict)
    outputs: list[Value] = field(default_factory=list)
    reductions: list[Value] = field(default_factory=list)
    columns: list[Value] = field(default_factory=list)
    reason: str = ""
    results: set[Value] = field(default_factory=set)  # members that are results of the whole graph

    def outer(self) -> Index:
        """The index over the dims that are not reduced."""
        return tuple(i for k, i in enumerate(self.loops) if k not in self.reduced)


class _Former:
    def __init__(self, outputs: Sequence[Value]) -> None:
        self.order = visiting_order(outputs)
        self.outputs = dict.fromkeys(outputs)
        nests = [v for v in self.order if v.op in NESTS]
        self.operands = {x for v in nests for x in _nest_operands(v)}  # have to be stored
        self.nests: dict[object, Group] = {}
        self.groups: list[Group] = []
        self.home: dict[Value, Group] = {}
        self.depth: dict[Value, int] = {}  # elementwise operations in a row that one expression would hold
        self.cost: dict[Value, int] = {}  # of a floating value, per element, operands included
        self.newest: dict[Value, int] = {}  # number of the newest group a value depends on, -1 for none
        self.uses: dict[Value, list[Value]] = {v: [] for v in self.order}
        for v in self.order:
            for x in set(reads(v)):
                self.uses[x].append(v)

    def run(self) -> list[Group]:
        for v in self.order:
            self.newest[v] = max((self.newest[x] for x in v.inputs), default=-1)
            self.depth[v] = self.expression_depth(v)
            if is_leaf(v):
                self.cost[v] = 0
                if v in self.operands and v.op != "input":
                    self.open("map", v)
            elif v.op in NESTS:
                self.nest(v)
            elif v.dtype.is_complex or any(x.dtype.is_complex for x in v.inputs):
                self.open("host", v, reason="complex elements")
            elif is_disjoint_fold(v):
                self.floating(v)
            elif v.op in SCALAR_OPS or v.op in ("cast", "bitcast", "mark") or is_small_reduction(v):
                self.elementwise(v)
            elif v.op in COMBINE:
                self.reduction(v)
            elif v.op in ("dot", "conv"):
                self.open("dot", v)
            elif v.op == "concat":
                self.concat(v)
            elif v.op in ("cumsum", "scatter"):
                self.open("single", v)
            elif v.op in ("attention", "attention_grad"):
                self.attention(v)
            elif v.op in REWRITES or v.op in (
                "pad",
                "gather",
                "random_bits",
                "stop_gradient",
                "barrier",
            ):
                self.floating(v)
            else:
                self.open("host", v, reason=f"no native lowering for {v.op}")
        for v in self.outputs:
            if is_leaf(v) and v.op != "input" and v not in self.home:
                self.open("map", v)
        self.find_outputs()
        return self.groups

    # ---- placing one value ----

    def open(self, kind: str, v: Value, reason: str = "") -> Group:
        shape = v.shape
        group = Group(len(self.groups), kind, v, shape, frozenset(), Space(), (), reason=reason)
        group.loops = tuple(group.space.loop(f"i{k}", n) for k, n in enumerate(shape))
        self.groups.append(group)
        self.place(group, v, group.loops)
        self.depth[v] = 0
        return group

    def nest(self, v: Value) -> None:
        """The results of one loop or switch are one group."""
        key = (v.inputs, v.attrs[:-1])
        if key in self.nests:
            self.place(self.nests[key], v, ())
        else:
            self.nests[key] = self.open("switch" if v.op == "switch" else "loop", v)

    def expression_depth(self, v: Value) -> int:
        """How many operations deep the expression of ``v`` would be on top of what its group does not compute."""
        inside = [x for x in v.inputs if x not in self.home or self.home[x].number == self.newest[v]]
        return 1 + max((self.depth[x] for x in inside), default=-1)

    def attention(self, v: Value) -> None:
        """One pass over the scores gives all results of one set of operands."""
        for group in self.groups:
            a = group.anchor
            if a.op == v.op and a.inputs == v.inputs and a.attrs[:2] == v.attrs[:2]:
                self.place(group, v, ())
                self.depth[v] = 0
                return
        self.open("attention", v)

    def place(self, group: Group, v: Value, index: Index) -> None:
        group.members[v] = index
        self.home[v] = group
        self.newest[v] = group.number
        self.cost[v] = 0

    def floating(self, v: Value) -> None:
        terms = product(reduced_shape(v)) if v.op in COMBINE and not is_disjoint_fold(v) else 1
        self.cost[v] = own_cost(v) + terms * (1 + sum(self.cost[x] for x in reads(v))) - 1
        uses = self.uses[v]
        if v in self.outputs or v in self.operands:
            self.store(v)
            return
        moving = v.op in REWRITES
        if moving and self.cost[v] == 0:
            return
        several = len(uses) > 1 and self.cost[v] > STORE_COST
        wide = any(self.read_widely(u) for u in uses) and self.cost[v] > WIDE_COST
        if self.cost[v] > STORE_COST:
            wide = wide or (self.repeats(v) - 1) * self.cost[v] > RECOMPUTE_COST
        if (several or wide or self.cost[v] > MAX_FLOATING_COST) and not moving:
            self.store(v)

    def store(self, v: Value) -> None:
        """Compute ``v`` in a map over the same elements that is there anyway, or in one of its own."""
        for group in reversed(self.groups[self.newest[v] + 1 :]):
            if self.joins_map(v, group):
                self.place(group, v, group.loops)
                self.depth[v] = 0
                return
        self.open("map", v)

    def joins_map(self, v: Value, group: Group) -> bool:
        """Whether a map, of which ``v`` reads nothing, should compute ``v`` too: it reads what ``v`` reads, or both are so small
        that starting another kernel costs as much. Results stay apart from intermediate values: these
        are computed early, those as late as possible, over memory that others read."""
        if group.kind != "map" or group.dims != v.shape or len(group.members) >= MAX_TOGETHER:
            return False
        if (v in self.outputs) != any(m in self.outputs for m in group.members):
            return False
        small = is_static(v.shape) and product(v.shape) <= SMALL_MAP
        return small or self.shares_reads(v, group)

    def concat(self, v: Value) -> None:
        """Written part by part by the map that computes its operands, where one does for those that would be stored: they are
        never stored by themselves. Otherwise a kernel of its own."""
        group = self.map_of_parts(v)
        if group is None:
            self.open("single", v)
            return
        self.place(group, v, group.loops)
        self.depth[v] = 0

    def map_of_parts(self, v: Value) -> Group | None:
        """The map that computes operands of a concat, if it can compute all of them."""
        homes = {self.home[x] for x in v.inputs if x in self.home}
        if len(homes) != 1 or not is_static(v.shape):
            return None
        (group,) = homes
        if group.kind != "map" or len(group.members) + len(v.inputs) > MAX_TOGETHER:
            return None
        for x in v.inputs:
            plain = x.op in SCALAR_OPS or x.op == "cast"
            if not plain or x.shape != group.dims or self.newest[x] > group.number:
                return None
            if not self._consistent(x, group.loops, group, {}):
                return None
        return group

    def repeats(self, v: Value) -> int:
        """How often readers read each element of a value: a pooled element's gradient is read by each place of its window."""
        found = 1
        for u in self.uses[v]:
            if u.op == "broadcast" and is_static(u.shape) and v.type.size > 1:
                found = max(found, u.type.size // v.type.size)
            elif u.op in ("reshape", "permute", "cast"):
                found = max(found, self.repeats(u))
        return found

    def read_widely(self, u: Value) -> bool:
        """Whether a reader, perhaps through movement, reads each element many times."""
        if u.op in WIDE_READERS or (u.op == "fold" and not is_disjoint_fold(u)):
            return True
        if u.op == "broadcast" and u.type.size >= 8 * u.inputs[0].type.size > 8:
            return True
        if u.op == "window" and any(
            n > (s if d == 1 else 1) for n, s, d in zip(u["size"], u["stride"], u["dilation"], strict=True)
        ):
            return True
        return (u.op in REWRITES or u.op in ("pad", "cast")) and any(
            self.read_widely(w) for w in self.uses[u]
        )

    def elementwise(self, v: Value) -> None:
        number = self.newest[v]
        if self.depth[v] > MAX_DEPTH:
            self.open("map", v)
        elif number >= 0:
            group = self.groups[number]
            if group.kind in ("map", "row") or (group.kind == "dot" and self.reads_plainly(v, group)):
                for index in self.candidates(v, group):
                    if self.consistent(v, index, group):
                        self.place(group, v, index)
                        return
            self.floating(v)
        else:
            self.floating(v)

    def reads_plainly(self, v: Value, group: Group) -> bool:
        """Whether all that ``v`` reads on top of the group and of stored values is elementwise at one place: an epilogue that
        reaches elsewhere would keep the contraction's ranges from running as one."""
        stack, seen = list(v.inputs), set[Value]()
        while stack:
            x = stack.pop()
            if x in seen or x in self.home or is_leaf(x):
                continue
            seen.add(x)
            if x.op not in SCALAR_OPS and x.op not in (
                "cast",
                "bitcast",
                "reshape",
                "broadcast",
                "permute",
                "stop_gradient",
            ):
                return False
            stack.extend(x.inputs)
        return True

    def candidates(self, v: Value, group: Group) -> Iterable[Index]:
        """Indices at which ``v`` might be computed in the group: its loops, their outer part, or a member's index pushed on."""
        shape = v.shape
        if shape == group.dims:
            yield group.loops
        if group.kind == "row" and shape == tuple(
            n for k, n in enumerate(group.dims) if k not in group.reduced
        ):
            yield group.outer()
        nowhere = set[Value]()
        for x in v.inputs:
            pushed = self.push(x, group, nowhere)
            if pushed is not None and all(group.space.is_plain(i) for i in pushed):
                yield pushed

    def push(self, x: Value, group: Group, nowhere: set[Value]) -> Index | None:
        """The index of ``x`` that reads a member of the group at the member's own index, followed through movement.

        ``nowhere`` collects what leads to no member, so that a value with many readers is followed once.
        """
        if x in group.members:
            return None if x.op == "concat" or x in group.columns else group.members[x]
        if x in nowhere:
            return None
        index = self.pushed(x, group, nowhere)
        if index is None:
            nowhere.add(x)
        return index

    def pushed(self, x: Value, group: Group, nowhere: set[Value]) -> Index | None:
        if x.op not in ("reshape", "permute", "broadcast") and not (x.op in SCALAR_OPS or x.op == "cast"):
            return None
        for y in x.inputs:
            inner = self.push(y, group, nowhere)
            if inner is None:
                continue
            if x.op == "reshape":
                return tuple(group.space.unravel(group.space.linear(inner, y.shape), x.shape))
            if x.op == "permute":
                return tuple(inner[a] for a in x["axes"])
            if x.op == "broadcast":
                lead = len(x.shape) - len(y.shape)
                if lead or x.shape != y.shape:
                    return None
            return inner
        return None

    def consistent(self, v: Value, index: Index, group: Group) -> bool:
        """Whether computing ``v`` at ``index`` reads members of the group only at their own index."""
        for x in v.inputs if v.op not in COMBINE else ():
            if not self._consistent(x, index, group, {}):
                return False
        return v.op not in COMBINE or not self._touches(v, group)

    def _touches(self, v: Value, group: Group) -> bool:
        return self.newest[v] == group.number

    def _consistent(
        self, x: Value, index: Index, group: Group, seen: dict[tuple[Value, Index], bool]
    ) -> bool:
        if self.newest[x] < group.number:
            return True
        key = (x, index)
        if key in seen:
            return seen[key]
        if x in group.members:
            good = group.members[x] == index and x.op != "concat" and x not in group.columns
        elif x.op in SCALAR_OPS or x.op in ("cast", "bitcast"):
            good = all(self._consistent(y, index, group, seen) for y in x.inputs)
        elif x.op == "barrier":
            good = self._consistent(x.inputs[0], index, group, seen)
        elif x.op in REWRITES:
            good = self._consistent(x.inputs[0], rewrite_index(group.space, x, index), group, seen)
        elif x.op == "pad":
            inner, condition = padded_index(group.space, x, index)
            good = condition is None and self._consistent(x.inputs[0], inner, group, seen)
        else:
            good = False
        seen[key] = good
        return good

    def reduction(self, v: Value) -> None:
        """Join a row group over the same rows, turn a map group over the same elements into one, or open a new one."""
        x = v.inputs[0]
        if v.op == "fold":
            dims = (*v.shape, *reduced_shape(v))
            axes = frozenset(range(len(v.shape), len(dims)))
        else:
            dims, axes = x.shape, frozenset(v["axes"])
            for group in reversed(self.groups[max(self.newest[v], 0) :]):
                if self.joins_rows(v, x, group, dims, axes) or self.joins_columns(v, x, group):
                    return
        group = Group(len(self.groups), "row", v, dims, axes, Space(), ())
        group.loops = tuple(group.space.loop(f"i{k}", n) for k, n in enumerate(dims))
        self.groups.append(group)
        group.reductions.append(v)
        self.place(group, v, group.outer())

    def joins_rows(self, v: Value, x: Value, group: Group, dims: Shape, axes: frozenset[int]) -> bool:
        if group.dims != dims or group.kind not in ("row", "map"):
            return False
        if group.kind == "row" and group.reduced != axes:
            return False
        if group.number > self.newest[v] and not self.shares_reads(x, group):
            return False
        if not self._consistent(x, group.loops, group, {}):
            return False
        if group.kind == "map":
            if any(index != group.loops or m.op == "concat" for m, index in group.members.items()):
                return False
            group.kind, group.reduced, group.anchor = "row", axes, v
        group.reductions.append(v)
        self.place(group, v, group.outer())
        return True

    def joins_columns(self, v: Value, x: Value, group: Group) -> bool:
        """Join the rows that give the terms of a reduction over blocks of them: a row group's, or a large map's along its last
        axis."""
        space, loops, dims = group.space, group.loops, group.dims
        along, last = group.reduced, len(dims) - 1
        if group.kind == "map" and last > 0 and is_static(dims) and product(dims) >= LARGE_MAP:
            if any(index != loops or m.op == "concat" for m, index in group.members.items()):
                return False
            along = frozenset([last])
        elif group.kind != "row" or last not in along:
            return False
        if group.number > self.newest[v] and not self.shares_reads(x, group):
            return False
        over = rows_reduced(space, loops, dims, along, v)
        if over is None or any(over != rows_reduced(space, loops, dims, along, u) for u in group.columns):
            return False
        columns = product([n for k, n in enumerate(dims) if k in along])
        if columns * sum(max(u.dtype.itemsize, 4) for u in (v, *group.columns)) > BYTES:
            return False
        at = operand_index(space, loops, dims, v)
        if not self._consistent(x, at, group, {}):
            return False
        group.kind, group.reduced = "row", along
        group.columns.append(v)
        self.place(group, v, result_index(v, at))
        return True

    def shares_reads(self, x: Value, group: Group) -> bool:
        """Whether a reduction of ``x`` reads what the group reads anyway, so that one pass serves both."""
        mine = self.stored_below([x], group)
        theirs = self.stored_below([y for m in group.members for y in m.inputs], group)
        return bool(mine & theirs)

    def stored_below(self, roots: list[Value], group: Group) -> set[Value]:
        found: set[Value] = set()
        seen: set[Value] = set()
        while roots:
            x = roots.pop()
            if x in seen:
                continue
            seen.add(x)
            if x.op == "input" or (x in self.home and self.home[x] is not group):
                if x.type.size > 1:
                    found.add(x)
            else:
                roots.extend(reads(x))
        return found

    # ---- after all values are placed ----

    def find_outputs(self) -> None:
        """A group's outputs: members that program outputs or other groups read."""
        needed: set[Value] = {v for v in self.outputs if v in self.home}
        for group in self.groups:
            seen: set[Value] = set()
            stack = [x for m in group.members for x in m.inputs]
            while stack:
                x = stack.pop()
                if x in seen or x in group.members:
                    continue
                seen.add(x)
                if x in self.home:
                    needed.add(x)
                else:
                    stack.extend(reads(x))
        for group in self.groups:
            group.outputs = [m for m in group.members if m in needed]
            group.results = {m for m in group.outputs if m in self.outputs}
            if group.kind == "dot" and len(group.outputs) > 2:
                self.store_fewer(group)
            if group.kind == "row":
                self.store_statistics(group)

    def store_fewer(self, group: Group) -> None:
        """Store one value instead of several elementwise functions of it that are read once each: readers compute them again.

        What a derivative needs of an activation is an example: GELU's three factors follow from its operand.
        """
        once = [
            m for m in group.outputs if m not in self.outputs and m not in self.operands and self.read_once(m)
        ]
        for base in reversed(group.members):
            above = {
                m: work
                for m in once
                if m is not base and (work := self.work_above(m, base, group)) is not None
            }
            saved = len(above) - (base not in group.outputs)
            work = set[Value]().union(*above.values())
            if saved > 0 and sum(map(own_cost, work)) <= RECOMPUTE_COST * saved:
                kept = {*group.outputs, base} - set(above)
                group.outputs = [m for m in group.members if m in kept]
                return

    def store_statistics(self, group: Group) -> None:
        """Store what rows have in common instead of short functions of it and of stored values: readers compute them again.
        A batch norm's centred elements, its result and the sign of that follow from its operand, a mean and a factor."""
        dropped, kept, sources, work = list[Value](), set[Value](), set[Value](), set[Value]()
        for m in group.outputs:
            found = None if m in self.outputs or m in self.operands else self.short_function(m, group)
            if found is not None and self.few_readers(m):
                dropped.append(m)
                for all, some in zip((kept, sources, work), found, strict=True):
                    all |= some
        if len(sources) <= len(dropped) and sum(map(own_cost, work)) <= STORE_COST * len(dropped):
            needed = (kept | set(group.outputs)) - set(dropped)
            group.outputs = [m for m in group.members if m in needed]

    def short_function(self, m: Value, group: Group) -> tuple[set[Value], set[Value], set[Value]] | None:
        """What the elementwise function ``m`` reads of the group's statistics, what of other stored values as large as itself,
        and the operations in it; None if it is something else."""
        kept, sources, work = set[Value](), set[Value](), set[Value]()
        stack = [m]
        while stack:
            x = stack.pop()
            if x in work or x.op == "constant":
                continue
            if x in group.members and 8 * x.type.size <= m.type.size:
                kept.add(x)
            elif x is not m and (x.op == "input" or (x in self.home and self.home[x] is not group)):
                sources |= {x} if 8 * x.type.size > m.type.size else set()
            elif x.op in SCALAR_OPS or x.op in ("cast", "broadcast", "reshape", "stop_gradient"):
                work.add(x)
                stack.extend(x.inputs)
            else:
                return None
        return (kept, sources, work) if sources else None

    def few_readers(self, m: Value) -> bool:
        """Whether few other groups read a value, no element of it many times."""
        homes = self.reading_groups(m, lambda u: u.op in NESTS)
        return homes is not None and len(homes) <= FEW_READERS

    def read_once(self, m: Value) -> bool:
        """Whether one other group reads a value, each element once."""
        homes = self.reading_groups(m, lambda u: u.op in COMBINE)
        return homes is not None and len(homes) == 1

    def reading_groups(self, m: Value, stops: Callable[[Value], bool]) -> set[Group] | None:
        """The other groups that read a value, through floating values too; None where a reader reads elements many times or
        ``stops``."""
        homes: set[Group] = set()
        stack, seen = [m], set[Value]()
        while stack:
            for u in self.uses[stack.pop()]:
                if u in seen:
                    continue
                seen.add(u)
                if self.read_widely(u) or stops(u):
                    return None
                if u not in self.home:
                    stack.append(u)
                elif self.home[u] is not self.home[m]:
                    homes.add(self.home[u])
        return homes

    def work_above(self, m: Value, base: Value, group: Group) -> set[Value] | None:
        """The elementwise operations that give ``m`` from ``base`` and from stored values; None where there are others."""
        work: set[Value] = set()
        stack = [m]
        while stack:
            x = stack.pop()
            if x is base or x in work or (x not in group.members and (x in self.home or is_leaf(x))):
                continue
            plain = x.op in SCALAR_OPS or x.op in ("cast", "broadcast", "reshape", "stop_gradient")
            if (
                not plain
                or x is group.anchor
                or (x in group.members and group.members[x] != group.members[base])
            ):
                return None
            work.add(x)
            stack.extend(x.inputs)
        return work


def form_groups(outputs: Sequence[Value]) -> list[Group]:
    """The fusion groups that compute ``outputs``, in an order of execution."""
    groups = _Former(outputs).run()
    return [g for g in groups if g.outputs]
