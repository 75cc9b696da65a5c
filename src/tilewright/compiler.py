"""From graph to running program: the whole pipeline on one page.

    graph      what the caller recorded: interned values
    passes     canonical form, long reductions cut                                        passes/
    groups     which values are computed together                                         lower/groups.py
    calls      every group as kernels over stored values, by index algebra and recipes    lower/, recipes/
    schedule   order, launches, lifetimes, arena offsets, waits                           lower/schedule.py
    native     LLVM IR of every distinct kernel, compiled in parallel or found in a cache codegen/, runtime/jit.py
    program    one table of launches that the thread team walks in one native call        runtime/program.py

``compile`` takes the leaves and outputs of a graph and gives an ``Executable``; ``Executable.run`` takes one buffer per
leaf and gives one buffer per output. What has no native lowering is computed by the NumPy reference between native parts;
``Executable.fallbacks`` says what and why.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from tilewright.codegen import llvm as emitter
from tilewright.core.diagnostics import IndexingError
from tilewright.core.settings import settings
from tilewright.core.shape import Extent, is_static, static, total, upper
from tilewright.core.size import SymbolicSizeError, bind
from tilewright.graph import reference
from tilewright.graph.bounds import describe_out_of_range
from tilewright.graph.graph import Graph
from tilewright.graph.ir import Value, keep_history, topological
from tilewright.kernel import digest as digest_module
from tilewright.kernel.digest import digest
from tilewright.kernel.ir import Kernel
from tilewright.kernel.text import print_kernel
from tilewright.lower.affine import Unsupported
from tilewright.lower.calls import Call, Place
from tilewright.lower.groups import NESTS, Group, form_groups, unshaped
from tilewright.lower.lowering import lower_groups
from tilewright.lower.schedule import HostCall, LoopCall, Schedule, Step, SwitchCall, nbytes, schedule
from tilewright.lower.settled import hoist, settled_values
from tilewright.passes.pipeline import run_passes
from tilewright.recipes.machine import Machine
from tilewright.recipes.tuned import database_path, read_choices
from tilewright.runtime import brief, jit
from tilewright.runtime.brief import Brief
from tilewright.runtime.buffers import Buffer, size_class
from tilewright.runtime.program import Program
from tilewright.runtime.steps import ArrayRef, Choice, HostStep, Launch, Loop, Segment
from tilewright.runtime.team import default_threads

__all__ = ["STAGES", "Executable", "NeedsNumbers", "Run", "compile", "load_kernels"]


def _emitter_version() -> str:
    """A hash of the code that turns kernels into LLVM IR: cached objects of another version are not found."""
    files = sorted(
        [*Path(emitter.__file__).parent.glob("*.py"), *Path(digest_module.__file__).parent.glob("*.py")]
    )
    return blake2b(b"".join(f.read_bytes() for f in files), digest_size=8).hexdigest()


_EMITTER = _emitter_version()
DETERMINISTIC_THREADS = 8
_BRIEF_FLOPS, _BRIEF_BYTES = 2_000_000, 1 << 20  # some 50 us
_SHORT_FLOPS, _SHORT_BYTES = 4_000_000, 4 << 20  # some 100 us
STAGES = ("graph", "groups", "kernels", "llvm", "asm", "plan")
# What TW_DEBUG shows of every program that is compiled, from a level on. Levels 1 and 2 are the runs' (runtime/profiler.py).
DEBUG_STAGES = (
    (3, "plan"),
    (4, "kernels"),
    (5, "llvm"),
    (6, "recorded"),
    (6, "graph"),
    (6, "groups"),
    (7, "asm"),
)


def load_kernels(
    library: jit.KernelLibrary, kernels: Iterable[Kernel]
) -> tuple[dict[Kernel, str], dict[str, int]]:
    """The names of distinct kernels, and their native addresses by name."""
    names: dict[Kernel, str] = {}
    for kernel in kernels:
        if kernel not in names:
            names[kernel] = f"k_{digest(kernel)}"
    sources = [(name, _source(k, name, library.target), _EMITTER + name) for k, name in names.items()]
    return names, library.compile(sources)


def _physical_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class NeedsNumbers(Exception):
    """A graph with symbolic sizes has a part that is compiled for known sizes only. ``code`` says which kind of part."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(slots=True)
class Run:
    """What is known of a run that an exception may have ended: memory of the outputs, and what the last native call returned."""

    computed: list[Buffer] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every output is computed. A signal's handler raises behind the native call at the earliest."""
        return self.codes[-1:] == [0]


class Executable:
    """A compiled graph. ``run`` is all that most callers need; the rest explains it."""

    def __init__(
        self,
        inputs: Sequence[Value],
        outputs: Sequence[Value],
        donated: Mapping[int, int],
        sizes: Mapping[str, Value],
        settled: Sequence[int],
    ) -> None:
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.donated = frozenset(donated)
        self.sizes = dict(sizes)
        self.settled = tuple(settled)
        self.linked = jit.default_library()
        target = self.linked.target
        # buffers are flat: a reshaped output is the value below it
        self.final = [unshaped(v) for v in run_passes(self.outputs)]
        self._check_memory(self.final, 0)
        keep_history((*self.outputs, *self.final))
        self.groups: list[Group] = []
        # The recipes cut long sums for a number of threads; a fixed one makes results equal on any number.
        threads = DETERMINISTIC_THREADS if settings.deterministic else default_threads()
        tuned = None
        if settings.cache_dir is not None and not settings.deterministic:
            tuned = read_choices(database_path(settings.cache_dir, target.key), target.key)
        self.machine = Machine(
            target.vector_bytes,
            target.registers,
            target.l1,
            target.l2,
            threads,
            target.dots,
            target.has_fma,
            target.fmas,
            target.l3,
            tuned,
        )
        steps, kept = self._lowered(self.machine), list[Place]()
        self.preparation: Schedule | None = None
        if self.settled:
            early, steps, kept = hoist(steps, [self.inputs[i] for i in self.settled], self.final)
            if kept:
                self.preparation = schedule(early, self.inputs, (), {}, kept)
        self.schedule: Schedule = schedule(steps, self.inputs, self.final, donated, kept)
        self._check_memory(self.final, self.schedule.arena_bytes)
        plans = [p for p in (self.preparation, self.schedule) if p is not None]
        self.names, addresses = load_kernels(
            self.linked, [k for plan in plans for step in plan.steps for k in step.kernels()]
        )
        self.program = self._program(self.schedule, addresses, len(kept))
        if self.preparation is not None:
            self._prepare = self._program(self.preparation, addresses, len(kept))
            self._kept = [(nbytes(p), p.dtype.numpy) for p in kept]
        self.fallbacks = [s.host for s in self.schedule.steps if s.host is not None]
        self._plan_run()
        if settings.debug >= DEBUG_STAGES[0][0]:
            self._print_stages(settings.debug)

    def _check_memory(self, results: Sequence[Value], arena: int) -> None:
        """Raises ``MemoryError`` for what no swapping would help: results and interior values of twice the machine's memory."""
        if self.sizes:
            return  # planned for the largest sizes, of which a call touches its own part only
        own = [v for v in results if v not in self.inputs]
        needed = sum(v.type.nbytes for v in own) + arena
        if needed > 2 * _physical_bytes():
            largest = max(own, key=lambda v: v.type.nbytes, default=None)
            what = f"; the largest is `{largest.op}` of {largest.type}" if largest is not None else ""
            raise MemoryError(
                f"results and interior values would take {needed / 2**30:,.0f} GiB, and this machine has"
                f" {_physical_bytes() / 2**30:,.0f} GiB of memory{what}"
            )

    def _lowered(self, machine: Machine) -> list[Step]:
        """The steps of all groups. Raises ``NeedsNumbers`` where one cannot run with symbolic sizes."""
        if not self.sizes:
            self.groups = form_groups(self.final)
            settled = settled_values([self.inputs[i] for i in self.settled]) if self.settled else None
            return lower_groups(self.groups, machine, settled=settled)
        for v in topological(self.final):
            if v.op == "host_call" or v.dtype.is_complex:
                what = v["function"] if v.op == "host_call" else "complex elements"
                raise NeedsNumbers("host", f"computed by NumPy: {what}")
            if v.op in NESTS:
                raise NeedsNumbers("loop", "the plan of a loop is made for known sizes")
        try:
            self.groups = form_groups(self.final)
            steps = lower_groups(self.groups, machine, self.sizes)
        except (Unsupported, SymbolicSizeError) as reason:
            raise NeedsNumbers("lowering", f"no loops over {reason}") from None
        for step in steps:
            if step.host is not None:
                raise NeedsNumbers("lowering", f"no loops over {step.host.reason}")
        return steps

    def _program(self, plan: Schedule, addresses: Mapping[str, int], kept: int) -> Program:
        return Program(
            [
                self._host_step(step.host)
                if step.host is not None
                else self._native_step(step, plan, addresses)
                for step in plan.steps
            ],
            slots=1 + len(self.inputs) + kept + len(plan.fresh),
            arena_bytes=plan.arena_bytes,
            scratch_bytes=max((emitter.scratch_bytes(k) for k in self.names), default=0),
            checks=_Checks(),
            serial=not any(map(_shares_work, plan.steps)),
            lazy=self._within(_SHORT_FLOPS, _SHORT_BYTES),
        )

    def _native_step(
        self, step: Step, plan: Schedule, addresses: Mapping[str, int]
    ) -> Launch | Loop | Choice:
        """One launch, or a loop or choice over the launches of the plans of its bodies."""
        nest = step.nest
        if nest is not None:
            slots = []
            for s in nest.slots:
                at = plan.locations[s.place]
                slots.append((at.slot, at.offset + s.offset, s.stride))
            inside = [[self._native_step(s, body, addresses) for s in body.steps] for body in nest.plans]
            if isinstance(nest, SwitchCall):
                return Choice(inside, [slot[:2] for slot in slots], nest.selector)
            return Loop(inside[0], nest.count or 0, slots, nest.swaps, nest.condition, nest.stops)
        segments = []
        for call in step.calls:
            args = []
            for arg in call.args:
                at = plan.locations[arg.place]
                args.append((at.slot, at.offset + arg.offset * arg.place.dtype.itemsize))
            segments.append(Segment(args, upper(call.grid), call.chunk))
        first = step.calls[0]
        flops = sum(c.flops for c in step.calls)
        return Launch(addresses[self.names[first.kernel]], segments, step.wait_for, first.label, flops)

    def _host_step(self, host: HostCall) -> HostStep:
        places = [*host.inputs, *host.outputs]
        refs = []
        for v in places:
            at = self.schedule.locations[v]
            refs.append(ArrayRef(at.slot, at.offset, static(v.shape), v.dtype.numpy))
        count = len(host.inputs)

        def run(*arrays: Any) -> None:
            bound = dict(zip(host.inputs, arrays[:count], strict=True))
            for target, result in zip(arrays[count:], reference.evaluate(host.outputs, bound), strict=True):
                target[...] = result

        return HostStep(run, refs, host.reason)

    def _plan_run(self) -> None:
        """Precompute what ``run`` has to do for each output."""
        position = {v: i for i, v in reversed(list(enumerate(self.inputs)))}
        first = {v: o for o, v in reversed(list(enumerate(self.final)))}
        plan = self.schedule
        self._fresh: list[tuple[int, Extent, np.dtype[Any]]] = []
        for o in plan.fresh:
            v = self.final[o]
            self._fresh.append((size_class(v.type.nbytes), total(v.shape), v.dtype.numpy))
        self._calls = [step.calls for step in plan.steps]
        self._bound: tuple[tuple[int, ...], list[list[int]]] = ((), [])
        slot = {o: k for k, o in enumerate(plan.fresh)}
        self._results: list[tuple[bool, int]] = []  # (from the inputs?, number)
        for v in self.final:
            if v in position:
                self._results.append((True, position[v]))
            elif first[v] in plan.taken:
                self._results.append((True, plan.taken[first[v]]))
            else:
                self._results.append((False, slot[first[v]]))
        self._in_order = self._results == [(False, k) for k in range(len(plan.fresh))]
        self._record: Brief | None = None  # of runs in one builtin, once there was a second run
        self._ran = False

    @cached_property
    def _run_briefly(self) -> brief.Run | None:
        """The builtin, where a run is one native call that takes the inputs, makes the outputs and is over soon."""
        if self.sizes or self.donated or self.preparation is not None or self.fallbacks or not self.brief:
            return None
        if self.program.slots != 1 + len(self.inputs) + len(self._fresh):
            return None
        return brief.function()

    def prepare(self, buffers: Sequence[Buffer]) -> list[Buffer]:
        """What settled inputs alone decide, such as weights laid out for products: for ``run`` with the same inputs there."""
        if self.preparation is None:
            return []
        kept = [Buffer.of_size(size_class(n), n // dtype.itemsize, dtype) for n, dtype in self._kept]
        self._prepare.run([b.address for b in (*buffers, *kept)])
        return kept

    def compute(self, buffers: list[Buffer]) -> list[Buffer]:
        """``run`` of a program of known sizes, in one builtin where that is possible."""
        if self._record is not None and self._run_briefly is not None:
            fresh = self._run_briefly(self._record.address, buffers)
            if fresh is not None:
                if self._in_order:
                    return fresh
                return [buffers[k] if given else fresh[k] for given, k in self._results]
        computed = self.run(buffers)
        if self._ran and self._run_briefly is not None:
            if self._record is None:
                sizes = [(size, total, dtype) for size, total, dtype in self._fresh if isinstance(total, int)]
                self._record = Brief(self.program, len(self.inputs), sizes)
            self._record.arm()
        self._ran = True
        return computed

    @property
    def record(self) -> int:
        """The address of the record of brief runs, where there is one and they make just the outputs, in order; else 0."""
        return self._record.address if self._record is not None and self._in_order else 0

    def run(
        self,
        buffers: Sequence[Buffer],
        numbers: Mapping[str, int] | None = None,
        kept: Sequence[Buffer] | None = None,
        run: Run | None = None,
    ) -> list[Buffer]:
        """Compute every output. ``buffers[i]`` holds ``inputs[i]``; a donated input's memory may become its output's.
        ``numbers`` are those of the symbolic sizes, which their leaves among the inputs hold as well. ``kept`` is what
        ``prepare`` gave for the same settled inputs; without it that is computed now. ``run`` knows afterwards, also after
        an exception, whether the outputs are computed, and where.

        Raises ``IndexingError`` when a gather or scatter met an index out of range.
        """
        run = run or Run()
        fresh: list[Buffer]
        try:
            if not self.sizes:
                if kept is None:
                    kept = self.prepare(buffers)
                fresh = [Buffer.of_size(size, count, dtype) for size, count, dtype in self._fresh]  # type: ignore[arg-type]
                run.computed = [buffers[k] if given else fresh[k] for given, k in self._results]
                self.program.run([b.address for b in (*buffers, *kept, *fresh)], codes=run.codes)
            else:
                assert numbers is not None
                fresh = [Buffer.allocate(bind(count, numbers), dtype) for _, count, dtype in self._fresh]
                run.computed = [buffers[k] if given else fresh[k] for given, k in self._results]
                grids = self._grids_for(numbers)
                self.program.run([b.address for b in (*buffers, *fresh)], grids, run.codes)
        except IndexingError as error:
            raise self._explained(error, buffers) from None
        return run.computed

    def fail(self, words: tuple[int, int, int, int], buffers: Sequence[Buffer]) -> None:
        """Raise what a run means that left these words in its status, as `run` does."""
        try:
            self.program.fail(words)
        except IndexingError as error:
            raise self._explained(error, buffers) from None

    @property
    def fresh(self) -> Sequence[tuple[int, Extent, np.dtype[Any]]]:
        """Size class, elements and type of the memory that a run makes, in the order of the program's slots."""
        return self._fresh

    @property
    def results(self) -> Sequence[tuple[bool, int]]:
        """Where each output is: in an input, or in the memory that a run makes, and in which."""
        return self._results

    @property
    def brief(self) -> bool:
        """Whether a run takes less than some 50 us, by its arithmetic and its memory, so that other threads can wait for it."""
        return self._within(_BRIEF_FLOPS, _BRIEF_BYTES)

    def _within(self, most_flops: int, most_bytes: int) -> bool:
        """Whether a run is launches of no more than so much arithmetic, over so much memory."""
        steps = self.schedule.steps
        if any(step.nest is not None or step.host is not None for step in steps):
            return False
        flops = sum(call.flops for step in steps for call in step.calls)
        nbytes = self.schedule.planned_bytes + sum(v.type.nbytes for v in (*self.inputs, *self.final))
        return flops <= most_flops and nbytes <= most_bytes

    def _grids_for(self, numbers: Mapping[str, int]) -> list[list[int]]:
        """The grids of all calls, step by step; the same object while the numbers stay the same."""
        key, grids = self._bound
        now = tuple(numbers[name] for name in self.sizes)
        if key != now:
            grids = [[_grid(call, numbers) for call in calls] for calls in self._calls]
            self._bound = now, grids
        return grids

    def _explained(self, error: IndexingError, buffers: Sequence[Buffer]) -> IndexingError:
        """The error with the index that was out of range, as far as it can be found again."""
        known = {
            v: b.to_numpy(static(v.shape))
            for i, (v, b) in enumerate(zip(self.inputs, buffers, strict=True))
            if i not in self.donated and is_static(v.shape)
        }
        found = describe_out_of_range(self.outputs, known)
        return error if found is None else IndexingError(f"{found}; {_WHEN}")

    # ---- explanation ----

    def explain(self) -> str:
        """Every stage before machine code, as text."""
        return "\n\n".join(
            f"== {name} ==\n{self.stage_text(name)}" for name in ("graph", "groups", "plan", "kernels")
        )

    def stage_text(self, name: str) -> str:
        """The text of one stage of ``STAGES``."""
        texts: dict[str, Callable[[], str]] = {
            "recorded": lambda: Graph(self.inputs, self.outputs).text(),
            "graph": lambda: Graph(self.inputs, tuple(self.final)).text(),
            "groups": self._groups_text,
            "kernels": lambda: "\n\n".join(print_kernel(self._named(k)) for k in self.names),
            "llvm": lambda: "\n".join(emitter.emit(self._named(k), self.linked.target) for k in self.names),
            "asm": lambda: "\n".join(self.linked.disassemble(n) for n in self.names.values()),
            "plan": self._plan_text,
        }
        if name not in texts:
            raise ValueError(f"unknown stage {name!r}; the stages are {', '.join(STAGES)}")
        return texts[name]()

    def _print_stages(self, debug: int) -> None:
        """The stages that ``TW_DEBUG`` asks for, on stderr: "recorded" is the graph before the passes."""
        for level, name in DEBUG_STAGES:
            if debug >= level:
                print(f"== {name} ==\n{self.stage_text(name)}\n", file=sys.stderr)

    def _named(self, kernel: Kernel) -> Kernel:
        return Kernel(kernel.buffers, kernel.body, kernel.scratch, self.names[kernel])

    def _groups_text(self) -> str:
        lines = []
        for group in self.groups:
            why = f"  # {group.reason}" if group.reason else ""
            lines.append(f"group {group.number} {group.kind} {list(group.dims)}{why}")
            lines += [f"    {'-> ' if v in group.outputs else '   '}{v.op} : {v.type}" for v in group.members]
        return "\n".join(lines)

    def _plan_text(self) -> str:
        plan = self.schedule
        lines = []
        if self.preparation is not None:
            size = sum(n for n, _ in self._kept)
            lines.append(f"once for each set of weights, {size:,} bytes kept")
            lines += self._step_lines(self.preparation.steps)
        lines.append(
            f"arena {plan.arena_bytes:,} bytes for {plan.planned_bytes:,} bytes of intermediate values"
        )
        lines += self._step_lines(plan.steps)
        lines += [f"output {o} takes over the memory of input {i}" for o, i in plan.taken.items()]
        return "\n".join(lines)

    def _step_lines(self, steps: Sequence[Step]) -> list[str]:
        lines = []
        for n, step in enumerate(steps):
            if step.host is not None:
                lines.append(f"{n:4} host {step.host.reason}")
                continue
            if step.nest is not None:
                for title, body in _titled(step.nest):
                    lines.append(f"{n:4} {title}")
                    lines += [f"    {line}" for line in self._step_lines(body.steps)]
                continue
            call = step.calls[0]
            pieces = f" x {len(step.calls)} segments" if len(step.calls) > 1 else ""
            lines.append(
                f"{n:4} {call.label}{pieces}: grid {call.grid} by {call.chunk}, after {step.wait_for}, {self.names[call.kernel]}"
            )
        return lines


def _titled(nest: LoopCall | SwitchCall) -> list[tuple[str, Schedule]]:
    """The plans inside a loop or switch, each with a line that says when it runs."""
    if isinstance(nest, SwitchCall):
        return [(f"branch {k} of {len(nest.plans)}", plan) for k, plan in enumerate(nest.plans)]
    often = "while its condition holds" if nest.count is None else f"of {nest.count} iterations"
    return [(f"loop {often}", nest.body)]


def _grid(call: Call, numbers: Mapping[str, int]) -> int:
    """The grid of a call where symbolic sizes have these numbers: empty where another version of the call runs."""
    if any(not low <= bind(size, numbers) <= high for size, low, high in call.when):
        return 0
    return bind(call.grid, numbers)


def _shares_work(step: Step) -> bool:
    """Whether a step, or one inside a loop, has more than one chunk."""
    if step.nest is not None:
        return any(_shares_work(inner) for plan in step.nest.plans for inner in plan.steps)
    return any(upper(c.grid) > c.chunk for c in step.calls)


def _source(kernel: Kernel, name: str, target: Any) -> Callable[[], str]:
    return lambda: emitter.emit(Kernel(kernel.buffers, kernel.body, kernel.scratch, name), target)


_WHEN = "tensors are computed when they are read, so the indexing is here or earlier"


class _Checks(dict[int, Any]):
    """Exceptions for the codes that kernels report: the axis size + 1 of an index out of range."""

    def get(self, code: int, default: Any = None) -> Any:
        size = code - 1
        return lambda words: IndexingError(
            f"a tensor of indices holds one that is out of range for an axis of size {size}"
            + (f" (it takes {-size} to {size - 1})" if size else "")
            + f"; {_WHEN}"
        )


def compile(
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    donated: Mapping[int, int] | None = None,
    sizes: Mapping[str, Value] | None = None,
    settled: Sequence[int] = (),
) -> Executable:
    """Compile the graph that computes ``outputs`` from the leaves ``inputs``.

    ``donated`` maps an input's position to the output that may take over its memory (same type and shape): parameters
    and optimizer state that a step writes back. ``sizes`` maps the names of symbolic sizes to the inputs, ``int64[]``, that hold
    their numbers; raises ``NeedsNumbers`` where the graph can be compiled for known sizes only. ``settled`` are positions of
    inputs that change rarely: what depends on them alone is computed by ``Executable.prepare``.
    """
    return Executable(inputs, outputs, donated or {}, sizes or {}, () if sizes else settled)
