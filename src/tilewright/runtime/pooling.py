"""Blocks go back to the pool in native code: a signal's handler cannot come in between.

Python runs handlers between two steps of Python code, also inside a destructor, and an exception there is printed and lost:
Ctrl-C would do nothing. So once there is native code at all, the pool's `give` and `take_size` and the destructor of its blocks
are builtins made of JIT code. They do what the methods do, under the GIL instead of the pool's lock.
"""

from __future__ import annotations

import ctypes
from typing import Any

from tilewright.runtime import builtin
from tilewright.runtime.buffers import PoolBlock, pool
from tilewright.runtime.builtin import TYPE, Code
from tilewright.runtime.memory import Memory
from tilewright.runtime.statistics import WORDS, stats

__all__ = ["install"]

_FUNCTIONS = ("take", "give", "destroy")
_FREE, _HELD, _LIMIT, _MEMORY_TYPE, _NONE, _MAKE, _REUSED = range(0, 56, 8)  # byte offsets of the record


@builtin.once
def install() -> None:
    """Let the process's pool take blocks back in native code, where the interpreter allows it."""
    if not builtin.available():
        return
    nbytes, memory = builtin.slot_offset(Memory, "nbytes"), builtin.slot_offset(PoolBlock, "memory")
    if nbytes is None or memory is None:
        return
    functions = [_take(), _keep(nbytes), _give(), _destroy(memory), _table()]
    address = builtin.compiled("tilewright_pool", functions)
    if address is None:
        return
    held, limit = (ctypes.addressof(word) for word in (pool.held, pool.bound))
    make, reused = pool.make, stats.address() + 8 * WORDS.index("buffers_reused")
    record = builtin.table([id(pool.free), held, limit, id(Memory), id(None), id(make), reused])
    builtin.keep_for_ever(pool, pool.free, pool.held, pool.bound, make, Memory, PoolBlock, record)
    made = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(address)(record.address)
    words = (ctypes.c_uint64 * len(_FUNCTIONS)).from_address(made or 0)
    found: dict[str, int] = dict(zip(_FUNCTIONS, words, strict=True))
    give: Any = builtin.function("give", found["give"])
    take: Any = builtin.function("take", found["take"])
    builtin.keep_for_ever(give, take)
    pool.give, pool.take_size = give, take  # type: ignore[method-assign]
    PoolBlock.__del__ = builtin.method(PoolBlock, "__del__", found["destroy"], None, arguments=False)  # type: ignore[method-assign]


def _table() -> str:
    """`tilewright_pool(record)`: what the others work with, and where they are."""
    names = ", ".join(f"ptr @{name}" for name in _FUNCTIONS)
    return (
        "@record = internal global ptr null\n"
        f"@functions = private constant [{len(_FUNCTIONS)} x ptr] [{names}]\n"
        "define ptr @tilewright_pool(ptr %record) nounwind {\n"
        "  store ptr %record, ptr @record\n  ret ptr @functions\n}\n"
    )


def _take() -> str:
    """`take(size)`: `MemoryPool.take_size`."""
    c = Code("internal ptr @take(ptr %self, ptr %args, i64 %nargs)")
    record = c.load("@record")
    c.unless("eq", "%nargs", "1", "wrong", "i64")
    number = c.load("%args")
    blocks = c.call("@PyDict_GetItem", c.load(record, _FREE), number)
    c.unless("ne", blocks, "null", "make")
    count = c.call("@PyList_Size", blocks, type="i64")
    c.unless("ne", count, "0", "make", "i64")
    last = c.value(f"sub i64 {count}, 1")
    found = c.call("@PyList_GetItem", blocks, f"i64 {last}")
    c.call("@Py_IncRef", found, type="void")
    c.call("@PyList_SetSlice", blocks, f"i64 {last}", f"i64 {count}", "null", type="i32")
    size = c.call("@PyLong_AsSsize_t", number, type="i64")
    c.add(c.load(record, _HELD), c.value(f"sub i64 0, {size}"))
    c.add(c.load(record, _REUSED), "1")
    c.line(f"ret ptr {found}")
    c.block("make")
    c.line(f"ret ptr {c.call('@PyObject_CallOneArg', c.load(record, _MAKE), number)}")
    c.block("wrong")
    c.call("@PyErr_BadInternalCall", type="void")
    c.line("ret ptr null")
    return c.text()


def _keep(nbytes: int) -> str:
    """`keep(memory)`: `MemoryPool.give`. The list of a size is made before anything else, as that may collect garbage and so
    come here again."""
    c = Code("internal void @keep(ptr %memory)")
    record = c.load("@record")
    free, held_at = c.load(record, _FREE), c.load(record, _HELD)
    limit = c.load(c.load(record, _LIMIT), type="i64")
    number = c.load("%memory", nbytes)
    size = c.call("@PyLong_AsSsize_t", number, type="i64")
    c.leave(c.compare("sgt", size, limit), "done")
    known = c.call("@PyDict_GetItem", free, number)
    with c.when(c.compare("eq", known, "null", "ptr")):
        _begin(c, free, number)
    over = c.compare("sgt", c.value(f"add i64 {c.load(held_at, type='i64')}, {size}"), limit)
    with c.when(over):  # what it holds is not what is in use now
        c.store("0", held_at, type="i64")
        c.call("@PyDict_Clear", free, type="void")
        _begin(c, free, number)
    blocks = c.call("@PyDict_GetItem", free, number)
    c.unless("ne", blocks, "null", "full")
    c.unless("eq", c.call("@PyList_Append", blocks, "%memory", type="i32"), "0", "full", "i32")
    c.add(held_at, size)
    c.line("br label %done")
    c.block("full")
    c.call("@PyErr_Clear", type="void")
    c.label("done")
    c.line("ret void")
    return c.text()


def _begin(c: Code, free: str, number: str) -> None:
    """An empty list of a size's blocks."""
    made = c.call("@PyList_New", "i64 0")
    c.unless("ne", made, "null", "full")
    c.call("@PyDict_SetDefault", free, number, made)
    c.call("@Py_DecRef", made, type="void")


def _give() -> str:
    """`give(memory)`."""
    c = Code("internal ptr @give(ptr %self, ptr %args, i64 %nargs)")
    record = c.load("@record")
    c.unless("eq", "%nargs", "1", "wrong", "i64")
    memory = c.load("%args")
    c.unless("eq", c.load(memory, TYPE), c.load(record, _MEMORY_TYPE), "wrong")
    c.call("@keep", memory, type="void")
    none = c.load(record, _NONE)
    c.call("@Py_IncRef", none, type="void")
    c.line(f"ret ptr {none}")
    c.block("wrong")
    c.call("@PyErr_BadInternalCall", type="void")
    c.line("ret ptr null")
    return c.text()


def _destroy(at: int) -> str:
    """`PoolBlock.__del__`. An exception that is on its way through the caller stays what it is."""
    c = Code("internal ptr @destroy(ptr %self, ptr %nothing)")
    record, memory = c.load("@record"), c.load("%self", at)
    c.unless("ne", memory, "null", "done")
    c.unless("eq", c.load(memory, TYPE), c.load(record, _MEMORY_TYPE), "done")
    pending = [c.variable("ptr") for _ in range(3)]
    c.call("@PyErr_Fetch", *pending, type="void")
    c.call("@keep", memory, type="void")
    c.call("@PyErr_Restore", *[c.load(p) for p in pending], type="void")
    c.label("done")
    none = c.load(record, _NONE)
    c.call("@Py_IncRef", none, type="void")
    c.line(f"ret ptr {none}")
    return c.text()
