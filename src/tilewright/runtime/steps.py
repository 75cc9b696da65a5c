"""What a program is made of: launches, loops, choices and host steps as data, and what makes a sequence of them one that runs.

Kernels are named by address, memory by slot and byte offset. `program.py` turns this into native tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilewright.runtime import offsets

__all__ = [
    "ArrayRef", "Choice", "HostStep", "Launch", "Loop", "Segment", "check_steps", "host_name", "launch_name",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Segment:
    """One piece of a launch's work: where its arguments are, and its grid.

    args    (slot, byte offset) of each pointer in the kernel's argument order
    grid    number of work items; 0 is allowed and runs nothing
    chunk   items a thread claims at a time: every call gets `lo`, a multiple of `chunk`, and
            `hi = min(lo + chunk, grid)`
    """

    args: Sequence[tuple[int, int]]
    grid: int
    chunk: int


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel over its segments; all their chunks may run in any order and at the same time.

    kernel     native address, or a name in the program's `kernels`
    wait_for   every step with index <= wait_for is complete before this one starts; -1: none has to be
    name       for timings; defaults to the kernel's name or address
    flops, nbytes   arithmetic and memory traffic of the launch, for timings; 0 when unknown
    """

    kernel: int | str
    segments: Sequence[Segment]
    wait_for: int = -1
    name: str = ""
    flops: int = 0
    nbytes: int = 0


@dataclass(frozen=True, slots=True)
class Loop:
    """Steps that run `count` times over a pointer table of their own; iterations follow one another.

    steps   launches, loops and choices; what they wait for, and their slots, are numbered within the loop
    slots   for each slot of the table inside: slot of the table around, byte offset, and the bytes by which it moves
            from one iteration to the next
    swaps   (slot, slot, bytes): pairs of slots inside that trade places after each iteration
    stops   whether Ctrl-C may end the run between two iterations: nothing that the caller keeps is half written then
    condition   slot inside that points to a byte: the loop ends before an iteration that finds it zero, `count` is not
            read, and what swaps left in the second place of a pair is copied to the first; -1: none

    It starts when every earlier step is complete, and every later step waits for it.
    """

    steps: Sequence[Launch | Loop | Choice]
    count: int
    slots: Sequence[tuple[int, int, int]]
    swaps: Sequence[tuple[int, int, int]] = ()
    condition: int = -1
    stops: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """The steps of one of several branches, over a pointer table of their own.

    branches   for each branch its launches, loops and choices; what they wait for is numbered within the branch
    slots      for each slot of the table inside: slot of the table around and byte offset
    selector   slot inside that points to the branch's number (int32); the nearest branch when there is none of it

    It starts when every earlier step is complete, and every later step waits for it.
    """

    branches: Sequence[Sequence[Launch | Loop | Choice]]
    slots: Sequence[tuple[int, int]]
    selector: int


@dataclass(frozen=True, slots=True)
class ArrayRef:
    """A C-contiguous array in a slot; a host step receives it as a writable NumPy array over that memory."""

    slot: int
    byte_offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class HostStep:
    """A Python callable run between native parts as `function(*arrays)`; it works in the arrays' memory.

    It starts when every earlier step is complete, and every later step waits for it. Its exceptions pass
    through `run`.
    """

    function: Callable[..., None]
    arrays: Sequence[ArrayRef]
    name: str = ""


def launch_name(launch: Launch) -> str:
    return launch.name or (launch.kernel if isinstance(launch.kernel, str) else hex(launch.kernel))


def host_name(step: HostStep) -> str:
    return step.name or getattr(step.function, "__name__", "host")


def check_steps(
    steps: Sequence[Launch | Loop | Choice | HostStep], slots: int, kernels: Mapping[str, int]
) -> None:
    """Reject what the native tables could not express or the driver would wait for for ever."""
    if slots < 1:
        raise ValueError("slot 0 is the arena: a program has at least one slot")
    for index, step in enumerate(steps):
        where = f"step {index}"
        if isinstance(step, HostStep):
            used = [(ref.slot, ref.byte_offset) for ref in step.arrays]
        elif isinstance(step, (Loop, Choice)):
            _check_nest(step, where, kernels)
            used = [(slot[0], slot[1]) for slot in step.slots]
        else:
            where += f" ({launch_name(step)})"
            if not -1 <= step.wait_for < index:
                raise ValueError(f"{where} waits for step {step.wait_for}, which is not before it")
            if isinstance(step.kernel, str) and step.kernel not in kernels:
                raise ValueError(f"{where}: no kernel of this name was given")
            total = 0
            for piece in step.segments:
                if piece.grid < 0 or piece.chunk < 1:
                    raise ValueError(f"{where}: grid {piece.grid} and chunk {piece.chunk} are not sizes")
                total += -(-piece.grid // piece.chunk)
            if total >= offsets.CHUNK_LIMIT:
                raise ValueError(
                    f"{where} has {total} chunks; at most {offsets.CHUNK_LIMIT - 1} fit: raise `chunk`"
                )
            used = [arg for piece in step.segments for arg in piece.args]
        for slot, offset in used:
            if not 0 <= slot < slots or offset < 0:
                raise ValueError(f"{where}: slot {slot}, byte {offset} is outside of {slots} slots")


def _check_nest(step: Loop | Choice, where: str, kernels: Mapping[str, int]) -> None:
    inside = [step.steps] if isinstance(step, Loop) else step.branches
    count = len(step.slots)
    for steps in inside:
        if any(isinstance(inner, HostStep) for inner in steps):
            raise ValueError(f"{where}: a loop or choice runs launches, loops and choices")
        check_steps(steps, count, kernels)
    if isinstance(step, Choice):
        if not step.branches or not 0 <= step.selector < count:
            raise ValueError(
                f"{where}: slot {step.selector} of {count} selects one of {len(step.branches)} branches"
            )
        return
    if step.count < 0 or not -1 <= step.condition < count:
        raise ValueError(f"{where}: {step.count} iterations, condition {step.condition} of {count} slots")
    if any(not 0 <= slot < count for first, second, _ in step.swaps for slot in (first, second)):
        raise ValueError(f"{where}: swaps {step.swaps} are outside of {count} slots")
