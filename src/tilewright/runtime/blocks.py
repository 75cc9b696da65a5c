"""Blocks of memory that native code hands out and takes back: what the results of fast calls lie in.

A shelf holds the free memory of one size class in front of the pool, as a stack that native code pushes and pops while it
holds the GIL. A block owns one piece; its type's destructor is JIT code that puts the piece back on its shelf, or gives
it to the pool when the shelf is full.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from tilewright.runtime import builtin, pooling
from tilewright.runtime.buffers import pool
from tilewright.runtime.builtin import HEADER, TYPE, Code
from tilewright.runtime.memory import Memory

__all__ = ["block_type", "shelf", "take_source"]

_LIMIT = 1 << 20  # bytes a shelf keeps, where that is more than two pieces
_LARGEST = 4 << 20  # larger pieces go to the pool, which any program may take them from
_COUNT, _CAPACITY, _GIVE, _TAKE, _SIZE, _ITEMS = range(0, 48, 8)  # byte offsets in a shelf
_MEMORY, _SHELF = HEADER, HEADER + 8  # and in a block


def shelf(size: int) -> int:
    """The address of the shelf of a size class; it lives as long as the process."""
    known = _shelves.get(size)
    if known is None:
        capacity = 0 if size > _LARGEST else max(2, min(32, _LIMIT // size))
        pooling.install()
        give, take = pool.give, pool.take_size
        memory = builtin.table([0, capacity, id(give), id(take), id(size), *[0] * capacity])
        builtin.keep_for_ever(give, take, size, memory)
        known = _shelves.setdefault(size, memory)
    return known.address


def _clear() -> None:
    """Give what lies on the shelves back to the system, with the rest of the pool."""
    empty = _emptier()
    for memory in list(_shelves.values()):
        empty(memory.address)


_shelves: dict[int, Memory] = {}
pool.fronts.append(_clear)


@builtin.once
def _emptier() -> Callable[[int], None]:
    """Empties a shelf. In native code with the GIL held: other threads push and pop between any two steps of Python."""
    address = builtin.compiled("tilewright_empty_shelf", [_empty_source()])
    assert address is not None  # or there would be no shelf
    return ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(address)


@builtin.once
def block_type() -> type | None:
    """The type of blocks; None where the interpreter has no builtins of JIT code."""
    address = builtin.compiled("tilewright_free_block", [_free_source()]) if builtin.available() else None
    if address is None:
        return None
    _emptier()  # compiled now: it is needed where memory is short
    return builtin.heap_type("tilewright.Block", 2, address)


def _free_source() -> str:
    c = Code("void @tilewright_free_block(ptr %self)")
    memory, home = c.load("%self", _MEMORY), c.load("%self", _SHELF)
    count = c.load(home, _COUNT, "i64")
    room = c.compare("ult", count, c.load(home, _CAPACITY, "i64"))
    c.line(f"br i1 {room}, label %push, label %full")
    c.block("push")
    c.store(memory, c.word(c.at(home, _ITEMS), count))
    c.store(c.value(f"add i64 {count}, 1"), home, _COUNT, "i64")
    c.line("br label %free")
    c.block("full")  # what the pool does must not meet an exception on its way through the caller
    pending = [c.variable("ptr") for _ in range(3)]
    c.call("@PyErr_Fetch", *pending, type="void")
    answer = c.call("@PyObject_CallOneArg", c.load(home, _GIVE), memory)
    c.call("@Py_DecRef", answer, type="void")
    c.call("@PyErr_Clear", type="void")
    c.call("@PyErr_Restore", *[c.load(p) for p in pending], type="void")
    c.call("@Py_DecRef", memory, type="void")
    c.label("free")
    kind = c.load("%self", TYPE)
    c.call("@PyObject_Free", "%self", type="void")
    c.call("@Py_DecRef", kind, type="void")
    c.line("ret void")
    return c.text()


def _empty_source() -> str:
    c = Code("void @tilewright_empty_shelf(ptr %shelf)")
    c.label("next")
    count = c.load("%shelf", _COUNT, "i64")
    c.leave(c.compare("eq", count, "0"), "done")
    left = c.value(f"sub i64 {count}, 1")
    c.store(left, "%shelf", _COUNT, "i64")
    c.call("@Py_DecRef", c.load(c.word(c.at("%shelf", _ITEMS), left)), type="void")
    c.line("br label %next")
    c.block("done")
    c.line("ret void")
    return c.text()


def take_source() -> str:
    """`take_block(shelf, type, reused)` in IR: a new block; null, with an exception, when there is no memory. Counts in
    `reused` the pieces that were on the shelf."""
    c = Code("internal ptr @take_block(ptr %shelf, ptr %type, ptr %reused)")
    memory = c.variable("ptr")
    made = c.call(
        "@PyType_GenericAlloc", "%type", "i64 0"
    )  # may collect garbage, whose blocks fill the shelf
    c.unless("ne", made, "null", "no.object")
    count = c.load("%shelf", _COUNT, "i64")
    c.line(f"br i1 {c.compare('ne', count, '0')}, label %pop, label %ask")
    c.block("pop")
    left = c.value(f"sub i64 {count}, 1")
    c.store(left, "%shelf", _COUNT, "i64")
    c.store(c.load(c.word(c.at("%shelf", _ITEMS), left)), memory)
    c.store(c.value(f"add i64 {c.load('%reused', type='i64')}, 1"), "%reused", type="i64")
    c.line("br label %got")
    c.block("ask")
    new = c.call("@PyObject_CallOneArg", c.load("%shelf", _TAKE), c.load("%shelf", _SIZE))
    c.unless("ne", new, "null", "no.memory")
    c.store(new, memory)
    c.label("got")
    c.store(c.load(memory), made, _MEMORY)
    c.store("%shelf", made, _SHELF)
    c.line(f"ret ptr {made}")
    c.block("no.memory")  # the block is empty, so its destructor must not see it
    c.call("@PyObject_Free", made, type="void")
    c.call("@Py_DecRef", "%type", type="void")
    c.label("no.object")
    c.line("ret ptr null")
    return c.text()
