"""The way out of a `with` block that changes a mode, as a builtin made of JIT code.

Python runs a signal's handler at the first step of a function: an `__exit__` of Python code that Ctrl-C interrupts there has put
nothing back, and the thread would record no derivatives from then on. A builtin has no such step.
"""

from __future__ import annotations

import ctypes
from typing import Any

from tilewright.runtime import builtin
from tilewright.runtime.builtin import Code
from tilewright.tensor.modes import Restoring, modes

__all__ = ["install"]

_NAMES = ("_mode", "_before", "_left")


@builtin.once
def install() -> None:
    """Let blocks be left in native code, where the interpreter allows it."""
    if not builtin.available():
        return
    address = builtin.compiled("tilewright_leave", [_source(), _TABLE])
    if address is None:
        return
    kept: list[Any] = [modes, None, *_NAMES]
    builtin.keep_for_ever(*kept)
    record = builtin.table([id(item) for item in kept])
    builtin.keep_for_ever(record)
    made = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(address)(record.address)
    Restoring.__exit__ = builtin.method(Restoring, "__exit__", made or 0, None)  # type: ignore[method-assign]


_TABLE = """@record = internal global ptr null
define ptr @tilewright_leave(ptr %record) nounwind {
  store ptr %record, ptr @record
  ret ptr @leave
}
"""


def _source() -> str:
    """`Restoring.__exit__`: the mode as it was, then what else there is to do."""
    c = Code("internal ptr @leave(ptr %self, ptr %args, i64 %nargs, ptr %names)")
    record = c.load("@record")
    modes_at, none, *names = (c.load(record, 8 * number) for number in range(2 + len(_NAMES)))
    mode, before, left = (c.call("@PyObject_GetAttr", "%self", name) for name in names)
    for item in (mode, before, left):
        c.unless("ne", item, "null", "failed")
    count = c.call("@PyList_Size", before, type="i64")
    c.unless("sgt", count, "0", "failed", "i64")
    last = c.value(f"sub i64 {count}, 1")
    old = c.call("@PyList_GetItem", before, f"i64 {last}")
    c.call("@Py_IncRef", old, type="void")
    c.call("@PyList_SetSlice", before, f"i64 {last}", f"i64 {count}", "null", type="i32")
    done = c.call("@PyObject_SetAttr", modes_at, mode, old, type="i32")
    for item in (mode, before, old):
        c.call("@Py_DecRef", item, type="void")
    c.unless("eq", done, "0", "failed", "i32")
    c.leave(c.compare("eq", left, none, "ptr"), "nothing")
    answer = c.call("@PyObject_Vectorcall", left, "%args", "i64 %nargs", "null")
    c.call("@Py_DecRef", left, type="void")
    c.line(f"ret ptr {answer}")
    c.block("nothing")
    c.line(f"ret ptr {none}")
    c.block("failed")  # with the exception of what has failed
    c.line("ret ptr null")
    return c.text()
