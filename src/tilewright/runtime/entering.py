"""The way from a list of addresses into a program's native code, in one builtin made of JIT code.

It writes the addresses into the program's pointer table and runs it without the GIL, between two steps of which no other
thread can come. `program` does the same in several steps of Python where there are no builtins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tilewright.core import assumptions
from tilewright.runtime import builtin
from tilewright.runtime.builtin import Code
from tilewright.runtime.statistics import WORDS

__all__ = ["ENTRY", "function"]

# The words of a program's record: its pointer table, how many pointers a run takes, the driver's function and what it
# runs, the number of launches, and where `assumptions` and `statistics` keep their words.
ENTRY = ("slots", "count", "entry", "entered", "launches", "assumed", "counters")


@builtin.once
def function() -> Callable[[int, Any], int] | None:
    """`enter(record, pointers)`: the status of a run, or -1, which none is, when `pointers` is no list of as many integers as
    the program takes; then nothing has run. Call it with the runtime's lock held. None without builtins."""
    if not builtin.available():
        return None
    address = builtin.compiled("tilewright_enter", [_source()])
    if address is None:
        return None
    enter: Callable[[int, Any], int] = builtin.function("tilewright_enter", address)
    return enter


def _source() -> str:
    c = Code("ptr @tilewright_enter(ptr %self, ptr %args, i64 %nargs)")
    c.unless("eq", "%nargs", "2", "other", "i64")
    record = c.call("@PyLong_AsVoidPtr", c.load("%args"))
    c.unless("ne", record, "null", "other")
    slots, count, entry, entered, launches, assumed, counters = (
        c.load(record, 8 * number, "i64" if name in ("count", "launches") else "ptr")
        for number, name in enumerate(ENTRY)
    )
    pointers = c.load("%args", 8)
    c.unless("eq", c.call("@PyList_Size", pointers, type="i64"), count, "other", "i64")
    with c.each(count) as (i, _):
        word = c.call(
            "@PyLong_AsUnsignedLongLong", c.call("@PyList_GetItem", pointers, f"i64 {i}"), type="i64"
        )
        with c.when(c.compare("eq", word, "-1")):
            c.unless("eq", c.call("@PyErr_Occurred"), "null", "other")
        c.store(word, c.word(slots, c.value(f"add i64 {i}, 1")), type="i64")
    running = c.at(assumed, 8 * assumptions.RUNNING)
    c.store(c.value(f"add i64 {c.load(running, type='i64')}, 1"), running, type="i64")
    thread = c.call("@PyEval_SaveThread")
    code = c.call(entry, entered, type="i32")
    c.call("@PyEval_RestoreThread", thread, type="void")
    c.store(c.value(f"sub i64 {c.load(running, type='i64')}, 1"), running, type="i64")
    for name, more in (("native_calls", "1"), ("launches", launches)):
        at = c.at(counters, 8 * WORDS.index(name))
        c.store(c.value(f"add i64 {c.load(at, type='i64')}, {more}"), at, type="i64")
    c.line(f"ret ptr {c.call('@PyLong_FromLong', 'i64 ' + c.value(f'sext i32 {code} to i64'))}")
    c.block("other")
    c.call("@PyErr_Clear", type="void")
    c.line(f"ret ptr {c.call('@PyLong_FromLong', 'i64 -1')}")
    return c.text()
