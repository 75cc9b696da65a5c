"""Runs of brief programs from buffers to new buffers, in one builtin made of JIT code.

It makes the buffers of the results, writes all addresses into the program's pointer table and runs it, while it holds the GIL.
Like a compiled call (`jit.native`) it only ever does what is as it was when the record was armed (`assumptions`); otherwise, and
where a kernel reports something, it gives None, and nothing has happened: `Program.run` knows everything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tilewright.core import assumptions
from tilewright.core.settings import settings
from tilewright.runtime import builtin, fresh, profiler
from tilewright.runtime.blocks import block_type, take_source
from tilewright.runtime.buffers import Buffer
from tilewright.runtime.builtin import TYPE, Code, Offsets, Template
from tilewright.runtime.fresh import FRESH
from tilewright.runtime.program import Program
from tilewright.runtime.statistics import WORDS, stats

__all__ = ["Brief", "function", "sources"]

# The words of a record: what has to be as it was, the driver's function, what it runs, its pointer table; how many buffers a
# run takes and makes, and the rows of those.
_RECORD = (
    "version", "entry", "entered", "launches", "slots", "given", "made", "fresh", "assumed", "counters", "buffer_type",
    "block_type", "none",
)  # fmt: skip
_AT = {name: 8 * number for number, name in enumerate(_RECORD)}

Run = Callable[[int, list[Buffer]], list[Buffer] | None]


class Brief:
    """The record of a program that takes `given` buffers and makes those that `sizes` tells: size class, elements, type."""

    __slots__ = ("_compilation", "_keep", "_memory", "_program", "address")

    def __init__(self, program: Program, given: int, sizes: Sequence[tuple[int, int, np.dtype[Any]]]) -> None:
        self._program = program
        self._compilation = settings.compilation
        self._keep: list[Any] = []
        words: list[int] = []
        for slot, (size, count, dtype) in enumerate(sizes, 1 + given):
            words += fresh.fresh_row(size, count, dtype, slot, self._keep.append)
        rows = builtin.table(words or [0])
        self._keep.append(rows)
        fields = {
            "slots": program.slots_address, "given": given, "made": len(sizes), "fresh": rows.address,
            "assumed": assumptions.address(), "counters": stats.address(), "buffer_type": id(Buffer),
            "block_type": id(block_type()), "none": id(None),
        }  # fmt: skip
        self._memory = builtin.table([fields.get(name, 0) for name in _RECORD])
        self.address = self._memory.address

    def arm(self) -> None:
        """Take for granted what holds now, if that allows a brief run. After a run that made the program ready."""
        now = assumptions.words[assumptions.VERSION]
        program = self._program
        if not program.is_ready() or settings.debug or profiler.active():
            return
        if settings.compilation != self._compilation:
            return
        for name, word in (
            ("entry", program.entry),
            ("entered", program.entered),
            ("launches", program.launch_count),
            ("version", now),  # last: runs of other threads may come in between
        ):
            self._memory.words(_AT[name], 1)[0] = word


@builtin.once
def function() -> Run | None:
    """`run(record, buffers)`: the new buffers of a run, in the order of their slots, or None. None without builtins."""
    at = fresh.offsets() if builtin.available() and block_type() is not None else None
    if at is None:
        return None
    functions = [*sources(at), _entry()]
    address = builtin.compiled("tilewright_brief", functions)
    if address is None:
        return None
    run: Run = builtin.function("tilewright_brief", address)
    return run


def sources(at: Offsets) -> list[str]:
    """`run_brief(record, buffers)` in IR, and what it needs: a new reference to the list or to None; null with an exception."""
    return [Template.source(), take_source(), fresh.source(at), _run(at)]


def _run(at: Offsets) -> str:
    c = Code("internal ptr @run_brief(ptr %record, ptr %buffers)")
    record, buffers = "%record", "%buffers"

    def word(name: str, type: str = "i64") -> str:
        return c.load(record, _AT[name], type)

    def as_it_was(otherwise: str) -> None:
        version = c.load(word("assumed", "ptr"), 8 * assumptions.VERSION, "i64")
        c.unless("eq", version, word("version"), otherwise, "i64")

    none, made, slots, counters = (
        word("none", "ptr"),
        word("made"),
        word("slots", "ptr"),
        word("counters", "ptr"),
    )
    as_it_was("other")
    results = c.call("@PyList_New", f"i64 {made}")
    c.unless("ne", results, "null", "failed")
    reused = c.at(counters, 8 * WORDS.index("buffers_reused"))
    with c.each(made, word("fresh", "ptr"), 8 * len(FRESH)) as (i, row):
        buffer = c.call("@new_buffer", row, word("block_type", "ptr"), reused)
        c.unless("ne", buffer, "null", "drop")
        c.call("@PyList_SetItem", results, f"i64 {i}", buffer, type="i32")
    # What may run other code is done: from here on all happens at once.
    as_it_was("undo")
    running = c.load(word("assumed", "ptr"), 8 * assumptions.RUNNING, "i64")
    c.unless("eq", running, "0", "undo", "i64")
    c.unless("eq", c.call("@PyList_Size", buffers, type="i64"), word("given"), "undo", "i64")

    def bind(buffer: str, slot: str) -> None:
        address = c.call("@PyLong_AsUnsignedLongLong", c.load(buffer, at[Buffer, "address"]), type="i64")
        c.store(address, c.word(slots, slot), type="i64")

    with c.each(word("given")) as (i, _):
        buffer = c.call("@PyList_GetItem", buffers, f"i64 {i}")
        c.unless("eq", c.load(buffer, TYPE), word("buffer_type", "ptr"), "undo")
        bind(buffer, c.value(f"add i64 {i}, 1"))
    with c.each(made, word("fresh", "ptr"), 8 * len(FRESH)) as (i, row):
        bind(c.call("@PyList_GetItem", results, f"i64 {i}"), c.load(row, FRESH["slot"], "i64"))
    status = c.call(word("entry", "ptr"), word("entered", "ptr"), type="i32")
    c.unless("eq", status, "0", "undo", "i32")
    for name, more in (("native_calls", "1"), ("launches", word("launches"))):
        c.add(c.at(counters, 8 * WORDS.index(name)), more)
    c.line(f"ret ptr {results}")
    c.block("undo")
    c.call("@PyErr_Clear", type="void")
    c.call("@Py_DecRef", results, type="void")
    c.label("other")
    c.call("@Py_IncRef", none, type="void")
    c.line(f"ret ptr {none}")
    c.block("drop")
    c.call("@Py_DecRef", results, type="void")
    c.label("failed")
    c.line("ret ptr null")
    return c.text()


def _entry() -> str:
    c = Code("ptr @tilewright_brief(ptr %self, ptr %args, i64 %nargs)")
    c.unless("eq", "%nargs", "2", "wrong", "i64")
    record = c.call("@PyLong_AsVoidPtr", c.load("%args"))
    c.unless("ne", record, "null", "wrong")
    c.line(f"ret ptr {c.call('@run_brief', record, c.load('%args', 8))}")
    c.block("wrong")
    c.call("@PyErr_BadInternalCall", type="void")
    c.line("ret ptr null")
    return c.text()
