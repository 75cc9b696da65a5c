"""From kernel calls to steps: order, merged launches, memory that outputs take over from inputs, lifetimes, waits.

Calls whose results nobody else reads run last, equal kernels side by side: the optimizer's updates of small parameters thus
become one launch with a segment per parameter, after the last read of the old values, and may write over them. The update
of a large one runs as soon as its gradient's operands are there and the old value is read for the last time: all of them
at the end would keep all operands until then.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tilewright.graph.ir import Value, topological
from tilewright.kernel.ir import Check, Kernel, walk
from tilewright.lower.arena import Block, plan_arena
from tilewright.lower.calls import Call, Place, Temporary

__all__ = [
    "HostCall", "Location", "LoopCall", "LoopSlot", "Schedule", "Step", "SwitchCall", "has_checks", "may_fail", "nbytes",
    "schedule",
]  # fmt: skip

LONG_SECONDS = 0.25
_FLOPS, _BYTES, _LAUNCHES = 1e11, 1e10, 5e6  # of one core in a second, roughly
HELD_BYTES = 1 << 20  # intermediate values that one call keeps for this long are worth a launch of its own


@dataclass(slots=True)
class HostCall:
    """Values computed by the NumPy reference between native parts, and why."""

    inputs: list[Value]
    outputs: list[Value]
    reason: str


@dataclass(frozen=True, slots=True)
class LoopSlot:
    """Where a slot of the body of a loop or branch lies in the plan around it: at a byte of a place, moving every iteration."""

    place: Place
    access: str
    offset: int = 0
    stride: int = 0


@dataclass(slots=True)
class LoopCall:
    """A plan of its own that runs ``count`` times, or while the bool in slot ``condition`` is true (``count`` is None).
    ``slots`` are those of the body, its arena first; ``swaps`` are pairs of them that trade places after each iteration,
    with their bytes. ``views`` are results that lie inside another place, each with the byte at which it begins."""

    body: Schedule
    count: int | None
    slots: list[LoopSlot]
    swaps: list[tuple[int, int, int]]
    condition: int = -1
    views: dict[Place, tuple[Place, int]] = field(default_factory=dict)

    @property
    def plans(self) -> list[Schedule]:
        return [self.body]

    @property
    def stops(self) -> bool:
        """Whether Ctrl-C may end it between two iterations: it takes long enough for somebody to press that."""
        return _seconds(self) > LONG_SECONDS


@dataclass(slots=True)
class SwitchCall:
    """Plans of which one runs: that of the number in slot ``selector``. All have the same ``slots``, their arena first."""

    plans: list[Schedule]
    slots: list[LoopSlot]
    selector: int


@dataclass(slots=True, eq=False)
class Step:
    """Calls of one kernel that run together, one host call, or one loop or switch (``nest``); ``wait_for`` is the last step
    that must be complete. All but calls wait for everything before them, and everything after waits for them."""

    calls: list[Call]
    host: HostCall | None = None
    wait_for: int = -1
    nest: LoopCall | SwitchCall | None = None

    @property
    def alone(self) -> bool:
        """Whether nothing else runs at the same time."""
        return self.host is not None or self.nest is not None

    def kernels(self) -> list[Kernel]:
        """All kernels, those of bodies included."""
        if self.nest is not None:
            return [k for plan in self.nest.plans for s in plan.steps for k in s.kernels()]
        return [c.kernel for c in self.calls]

    def reads(self) -> list[Place]:
        if self.nest is not None:
            return [s.place for s in self.nest.slots if "r" in s.access]
        if self.host is not None:
            return list(self.host.inputs)
        return [a.place for c in self.calls for a in c.args if "r" in a.access]

    def writes(self) -> list[Place]:
        if self.nest is not None:
            return [s.place for s in self.nest.slots if "w" in s.access]
        if self.host is not None:
            return list(self.host.outputs)
        return [a.place for c in self.calls for a in c.args if "w" in a.access]


@dataclass(frozen=True, slots=True)
class Location:
    """Slot (0: the arena, then inputs, kept places, outputs) and byte offset of a place."""

    slot: int
    offset: int


@dataclass(slots=True)
class Schedule:
    """The steps in order and where everything lies. ``taken[o]`` is the input whose memory output ``o`` takes over."""

    steps: list[Step]
    locations: dict[Place, Location]
    arena_bytes: int
    planned_bytes: int
    taken: dict[int, int] = field(default_factory=dict)
    fresh: list[int] = field(
        default_factory=list
    )  # output numbers that get memory of their own, in slot order


def _seconds(nest: LoopCall | SwitchCall) -> float:
    """About how long a loop or a choice takes; for ever, where nobody knows how many iterations there are."""
    if isinstance(nest, LoopCall) and nest.count is None:
        return math.inf
    longest = 0.0
    for plan in nest.plans:
        seconds = 0.0
        for s in plan.steps:
            if s.nest is not None:
                seconds += _seconds(s.nest)
                continue
            moved = sum(nbytes(p) for p in {*s.reads(), *s.writes()})
            seconds += sum(c.flops for c in s.calls) / _FLOPS + moved / _BYTES + 1 / _LAUNCHES
        longest = max(longest, seconds)
    return longest * (nest.count or 0) if isinstance(nest, LoopCall) else longest


def _stops(nest: LoopCall | SwitchCall) -> bool:
    """Whether a run may end inside."""
    if isinstance(nest, LoopCall) and nest.stops:
        return True
    return any(_stops(s.nest) for plan in nest.plans for s in plan.steps if s.nest is not None)


def _awaited(steps: Sequence[Step], outputs: Sequence[Value]) -> set[Place]:
    """What barriers wait for, or what is stored in its stead: it is not put off to the end."""
    order = topological(outputs)
    waited = {x for v in order if v.op == "barrier" for x in v.inputs[1:]}
    if not waited:
        return set()
    written = {p for s in steps for p in s.writes()}
    found: set[Place] = set()
    for v in order:
        read = v.inputs[:1] if v.op == "barrier" else v.inputs
        if v in waited or not waited.isdisjoint(read):
            if v in written:
                found.add(v)
                waited.discard(v)
            else:
                waited.add(v)
    return found


def _order(
    steps: list[Step], inputs: Sequence[Value], outputs: Sequence[Value], donated: Mapping[int, int]
) -> list[Step]:
    """Calls that nobody waits for go last, equal kernels side by side and merged into one launch where independent; at the very
    end those whose results may take over memory that others still read. What would hold much memory until then goes as
    early as it can."""
    awaited = _awaited(steps, outputs)
    replacing = {outputs[o]: inputs[i] for i, o in donated.items()}
    touched = Counter(p for s in steps for p in {*s.reads(), *s.writes()})
    late = [s for s in steps if not s.alone and all(touched[p] == 1 and p not in awaited for p in s.writes())]
    put_off = set(late)
    early = [s for s in steps if s not in put_off]
    early, late = _brought_forward(early, late, replacing, outputs)
    late.sort(key=lambda s: not replacing.keys().isdisjoint(s.writes()))
    by_kernel: dict[object, list[Step]] = {}
    for s in late:
        key = (s.calls[0].kernel, replacing.keys().isdisjoint(s.writes()))
        by_kernel.setdefault(key, []).append(s)
    merged: list[Step] = []
    for same in by_kernel.values():
        first = same[0]
        seen, rest = set(first.writes()), list[Step]()
        for s in same[1:]:
            if seen.isdisjoint(s.writes()) and seen.isdisjoint(s.reads()):
                first.calls.extend(s.calls)
                seen.update(s.writes())
            else:
                rest.append(s)
        merged += [first, *rest]
    return early + merged


def _brought_forward(
    early: list[Step], late: list[Step], replacing: Mapping[Value, Value], outputs: Sequence[Value]
) -> tuple[list[Step], list[Step]]:
    """The steps with each of ``late`` that reads many intermediate bytes behind the last one that it needs, and the rest of
    ``late``. It needs what it reads, and every other reader of what its results replace."""
    results = set(outputs)
    writer = {p: n for n, s in enumerate(early) for p in s.writes()}
    reader = {p: n for n, s in enumerate(early) for p in s.reads()}
    waiting = Counter(p for s in late for p in set(s.reads()))
    after: dict[int, list[Step]] = {}
    rest: list[Step] = []
    for s in late:
        held = [p for p in set(s.reads()) if p in writer and p not in results]
        old = [replacing[p] for p in s.writes() if isinstance(p, Value) and p in replacing]
        mine = set(s.reads())
        if sum(map(nbytes, held)) < HELD_BYTES or any(waiting[p] > (p in mine) for p in old):
            rest.append(s)
            continue
        place = max([writer[p] for p in mine if p in writer] + [reader.get(p, -1) for p in old])
        after.setdefault(place, []).append(s)
    return [t for n, s in enumerate(early) for t in (s, *after.get(n, ()))], rest


def _take_over(
    steps: list[Step],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    donated: Mapping[int, int],
    failing: Sequence[bool],
) -> dict[int, int]:
    """Which outputs may be written over their donated inputs: the writing call reads the input at the same elements or
    not at all, every other reader is complete before, and nothing after it can fail."""
    last_check = max((n for n, fails in enumerate(failing) if fails), default=-1)
    writers: dict[Place, list[int]] = {}
    last_reader: dict[Place, int] = {}
    for n, s in enumerate(steps):
        for p in set(s.writes()):
            writers.setdefault(p, []).append(n)
        for p in s.reads():
            last_reader[p] = n
    input_number = {v: i for i, v in reversed(list(enumerate(inputs)))}
    output_number = {v: o for o, v in reversed(list(enumerate(outputs)))}
    taken: dict[int, int] = {}
    used: set[int] = set()
    for i, o in donated.items():
        source, target = inputs[i], outputs[o]
        if source in output_number or target.type != source.type or o in taken or i in used:
            continue
        if output_number[target] != o or input_number[source] != i or target.op == "input":
            continue
        found = writers.get(target, ())
        if len(found) != 1 or found[0] < last_check or last_reader.get(source, -1) > found[0]:
            continue
        step = steps[found[0]]
        # a step that fails could leave part of the memory overwritten
        if step.alone or failing[found[0]] or not all(_reads_in_place(c, source, target) for c in step.calls):
            continue
        taken[o] = i
        used.add(i)
    return taken


def has_checks(kernel: Kernel) -> bool:
    """Whether a kernel may report an index out of range."""
    return any(isinstance(s, Check) for s in walk(kernel.body))


def may_fail(steps: Sequence[Step]) -> list[bool]:
    """Which steps may end the run: a bounds check, unless an earlier step has made the same, a long loop, by Ctrl-C, or anything
    the reference does."""
    checking: dict[int, bool] = {}
    made: set[tuple[Value, int]] = set()
    out = []
    for s in steps:
        fails = s.host is not None
        for kernel in s.kernels():
            if id(kernel) not in checking:
                checking[id(kernel)] = has_checks(kernel)
        if s.nest is not None:
            fails = _stops(s.nest) or any(checking[id(k)] for k in s.kernels())
        for c in s.calls:
            fails = fails or (
                checking[id(c.kernel)] and (c.checked is None or not made.issuperset(c.checked))
            )
        out.append(fails)
        made.update(what for c in s.calls for what, whole in (c.checked or {}).items() if whole)
    return out


def _reads_in_place(call: Call, source: Value, target: Value) -> bool:
    if all(a.place is not source for a in call.args):
        return True
    return any(call.args[o].place is target and call.args[i].place is source for o, i in call.inplace)


def schedule(
    steps: list[Step],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    donated: Mapping[int, int],
    kept: Sequence[Place] = (),
) -> Schedule:
    """Order the steps and place every value. ``kept``: places that other plans use as well, in slots behind the inputs."""
    steps = _order(steps, inputs, outputs, donated)
    failing = may_fail(steps)
    taken = _take_over(steps, inputs, outputs, donated, failing)
    locations: dict[Place, Location] = {}
    alias: dict[Place, Place] = {}
    for i, v in enumerate(inputs):
        locations.setdefault(v, Location(1 + i, 0))
    for i, p in enumerate(kept):
        locations[p] = Location(1 + len(inputs) + i, 0)
    fresh: list[int] = []
    for o, v in enumerate(outputs):
        if v in locations:
            continue
        if o in taken:
            alias[v] = inputs[taken[o]]
            locations[v] = locations[inputs[taken[o]]]
        else:
            locations[v] = Location(1 + len(inputs) + len(kept) + len(fresh), 0)
            fresh.append(o)
    first: dict[Place, int] = {}
    last: dict[Place, int] = {}
    for n, s in enumerate(steps):
        for p in (*s.writes(), *s.reads()):
            if p not in locations:
                first.setdefault(p, n)
                last[p] = n
    _reuse_in_place(steps, first, last, alias)
    places = [p for p in first if p not in alias]
    blocks = [Block(nbytes(p), first[p], last[p]) for p in places]
    plan = plan_arena(blocks)
    reused = dict(zip(places, plan.waits, strict=True))
    locations.update({p: Location(0, offset) for p, offset in zip(places, plan.offsets, strict=True)})
    locations.update({p: locations[alias[p]] for p in first if p in alias})
    _set_waits(steps, alias, reused, {outputs[o] for o in taken}, failing)
    total = sum(nbytes(p) for p in first)
    return Schedule(steps, locations, plan.nbytes, total, taken, fresh)


def nbytes(place: Place) -> int:
    """Bytes of a place."""
    return place.nbytes if isinstance(place, Temporary) else place.type.nbytes


def _reuse_in_place(
    steps: list[Step], first: dict[Place, int], last: dict[Place, int], alias: dict[Place, Place]
) -> None:
    """A step that reads an intermediate value for the last time, each element before it writes its own, writes over it."""
    for n, s in enumerate(steps):
        if len(s.calls) != 1:
            continue
        call = s.calls[0]
        for o, i in call.inplace:
            new, old = call.args[o].place, call.args[i].place
            home = alias.get(old, old)
            if new in alias or new not in first or old not in first or home not in first:
                continue
            if first[new] != n or last[home] != n or nbytes(new) != nbytes(home):
                continue
            alias[new] = home
            last[home] = last[new]


def _set_waits(
    steps: list[Step],
    alias: dict[Place, Place],
    reused: dict[Place, int],
    replacing: set[Value],
    failing: Sequence[bool],
) -> None:
    """The last earlier step each step conflicts with: it wrote what this one reads, or used memory this one writes. What
    replaces an input's elements also waits for every bounds check: after a failed one the driver runs nothing more, so the
    caller's tensors are as they were."""
    checked = -1
    writer: dict[Place, int] = {}
    user: dict[Place, int] = {}
    for n, s in enumerate(steps):
        wait = -1
        for p in s.reads():
            wait = max(wait, writer.get(alias.get(p, p), -1))
        for p in s.writes():
            home = alias.get(p, p)
            wait = max(wait, user.get(home, -1), reused.get(home, -1), checked if p in replacing else -1)
        s.wait_for = n - 1 if s.alone else wait
        if failing[n]:
            checked = n
        for p in (*s.reads(), *s.writes()):
            user[alias.get(p, p)] = n
        for p in s.writes():
            writer[alias.get(p, p)] = n
