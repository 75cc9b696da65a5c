"""Running the steps of a compiled graph one chunk at a time, in any order that their waits allow.

The thread team keeps to one of many allowed orders; this runs others, on one thread, so that a wait that is missing
shows in the results. It also takes a schedule's memory apart: which bytes every step reads and writes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilewright import compiler
from tilewright.codegen import llvm as emitter
from tilewright.compiler import Executable
from tilewright.core.shape import static
from tilewright.graph import reference
from tilewright.graph.ir import Value
from tilewright.kernel import interpret
from tilewright.kernel.verify import verify
from tilewright.lower.calls import Call, Place, Temporary
from tilewright.lower.schedule import Step
from tilewright.runtime.buffers import Buffer

Array = np.ndarray[Any, Any]
SIGNATURE = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p
)


@dataclass(frozen=True)
class Span:
    """Bytes ``start``..``stop`` of a slot."""

    slot: int
    start: int
    stop: int

    def meets(self, other: Span) -> bool:
        return self.slot == other.slot and self.start < other.stop and other.start < self.stop


def nbytes(place: Place) -> int:
    return place.nbytes if isinstance(place, Temporary) else int(place.type.nbytes)


def span(executable: Executable, place: Place) -> Span:
    at = executable.schedule.locations[place]
    return Span(at.slot, at.offset, at.offset + nbytes(place))


def spans(executable: Executable, places: Sequence[Place]) -> list[Span]:
    return [span(executable, p) for p in places]


def conflicts(executable: Executable) -> Iterator[tuple[int, int]]:
    """Pairs of steps (earlier, later) that touch the same bytes, at least one of them to write."""
    touched = [
        (spans(executable, s.reads()), spans(executable, s.writes())) for s in executable.schedule.steps
    ]
    for b, (reads, writes) in enumerate(touched):
        for a, (earlier_reads, earlier_writes) in enumerate(touched[:b]):
            if any(x.meets(y) for x in writes for y in (*earlier_reads, *earlier_writes)) or any(
                x.meets(y) for x in reads for y in earlier_writes
            ):
                yield a, b


class Memory:
    """The arena, copies of the inputs and fresh outputs of one run, filled with rubbish as reused memory is."""

    def __init__(self, executable: Executable, arrays: Sequence[Array]) -> None:
        self.executable, plan = executable, executable.schedule
        self.inputs = [np.array(a, copy=True) for a in arrays]
        self.fresh = [np.full(max(1, executable.outputs[o].type.nbytes), 0xA5, np.uint8) for o in plan.fresh]
        self.arena = np.full(plan.arena_bytes + 64, 0xA5, np.uint8)
        base = self.arena.ctypes.data + (-self.arena.ctypes.data) % 64
        self.slots = [base, *(a.ctypes.data for a in self.inputs), *(a.ctypes.data for a in self.fresh)]

    def address(self, place: Place, offset: int = 0) -> int:
        at = self.executable.schedule.locations[place]
        return int(self.slots[at.slot] + at.offset + offset * place.dtype.itemsize)

    def flat(self, place: Place, offset: int = 0) -> Array:
        """A writable view of a place's elements from ``offset`` on."""
        size = nbytes(place)
        memory = (ctypes.c_uint8 * max(1, size)).from_address(self.address(place))
        return np.frombuffer(memory, np.uint8)[:size].view(place.dtype.numpy)[offset:]

    def run_host(self, step: Step) -> None:
        assert step.host is not None
        bound = {v: self.flat(v).reshape(static(v.shape)) for v in step.host.inputs}
        for v, result in zip(step.host.outputs, reference.evaluate(step.host.outputs, bound), strict=True):
            self.flat(v).reshape(static(v.shape))[...] = result

    def results(self) -> list[Array]:
        out = []
        for v, (given, k) in zip(self.executable.outputs, self.executable._results, strict=True):
            memory = self.inputs[k].reshape(-1).view(np.uint8) if given else self.fresh[k][: v.type.nbytes]
            out.append(memory.view(v.dtype.numpy).reshape(static(v.shape)).copy())
        return out


def run_in_random_order(
    executable: Executable, arrays: Sequence[Array], rng: np.random.Generator
) -> list[Array]:
    """The outputs, computed by native code chunk by chunk in a random order; ``arrays`` are copied."""
    plan, memory = executable.schedule, Memory(executable, arrays)
    needed = max((emitter.scratch_bytes(k) for k in executable.names), default=0)
    scratch = np.full(needed + 64, 0xA5, np.uint8)
    aligned = scratch.ctypes.data + (-scratch.ctypes.data) % 64
    addresses = executable.linked.compile(
        [
            (name, compiler._source(k, name, executable.linked.target), compiler._EMITTER + name)
            for k, name in executable.names.items()
        ]
    )
    status = ctypes.c_int32(0)

    def run_chunk(call: Call, lo: int) -> None:
        table = (ctypes.c_void_p * max(1, len(call.args)))(
            *(memory.address(a.place, a.offset) for a in call.args)
        )
        function = SIGNATURE(addresses[executable.names[call.kernel]])
        function(table, aligned, lo, min(lo + call.chunk, call.grid), ctypes.byref(status))

    left: list[list[tuple[Call, int] | None]] = [
        [None] if s.host is not None else [(c, lo) for c in s.calls for lo in range(0, c.grid, c.chunk)]
        for s in plan.steps
    ]
    for chunks in left:
        rng.shuffle(chunks)  # type: ignore[arg-type]
    hosts = [n for n, s in enumerate(plan.steps) if s.host is not None]
    done = 0  # all steps before this one are complete
    while done < len(left):
        if not left[done]:
            done += 1
            continue
        # what comes after a host step waits for it
        end = next((n for n in hosts if n > done), len(left)) if done not in hosts else done + 1
        n = int(rng.choice([n for n in range(done, end) if left[n] and plan.steps[n].wait_for < done]))
        chunk = left[n].pop()
        if chunk is None:
            memory.run_host(plan.steps[n])
        else:
            run_chunk(*chunk)
    assert status.value == 0
    return memory.results()


def interpreted(executable: Executable, arrays: Sequence[Array]) -> list[Array]:
    """The outputs, computed by the kernel interpreter in order; an access outside a buffer is an error."""
    memory = Memory(executable, arrays)
    for step in executable.schedule.steps:
        if step.host is not None:
            memory.run_host(step)
        for call in step.calls:
            buffers = {
                b.name: memory.flat(a.place, a.offset)
                for b, a in zip(call.kernel.buffers, call.args, strict=True)
            }
            for lo in range(0, call.grid, call.chunk):
                assert interpret.run(call.kernel, buffers, lo, min(lo + call.chunk, call.grid)) == []
    return memory.results()


def native(executable: Executable, arrays: Sequence[Array]) -> list[Array]:
    """The outputs, computed by the thread team; ``arrays`` are copied."""
    results = executable.run([Buffer.from_numpy(a, copy=True) for a in arrays])
    return [b.to_numpy(static(v.shape)).copy() for b, v in zip(results, executable.outputs, strict=True)]


def equal_bits(a: Array, b: Array) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def check_exactly(
    executable: Executable,
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    draw: Callable[[np.random.Generator, Value], Array],
) -> None:
    """Verify every kernel and compare with the reference bit for bit, in order and with chunks in a random order."""
    rng = np.random.default_rng(0)
    arrays = [draw(rng, v) for v in inputs]
    for kernel in executable.names:
        verify(kernel)
    want = reference.evaluate(outputs, dict(zip(inputs, arrays, strict=True)))
    for results in (native(executable, arrays), run_in_random_order(executable, arrays, rng)):
        for got, right in zip(results, want, strict=True):
            np.testing.assert_array_equal(got, right)
