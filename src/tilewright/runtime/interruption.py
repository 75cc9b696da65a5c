"""Ctrl-C during a loop in native code: the loop asks now and then, and stops between two iterations.

The question is native code as well. It takes the GIL and asks whether SIGINT has come, but runs no handler: that could be any
Python code, which must not meet a program half way. So it asks only where the handler is known to raise `KeyboardInterrupt`:
Python's own, and those given to `expect`. The signal is then used up, the run ends with `INTERRUPTED`, and whoever
started it raises. Where there are no builtins of JIT code nothing asks, and a loop runs to its end.
"""

from __future__ import annotations

import importlib
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tilewright.runtime import builtin
from tilewright.runtime.builtin import Code
from tilewright.runtime.memory import Memory
from tilewright.runtime.offsets import LOOK, LOOK_WORDS

__all__ = ["INTERRUPTED", "block", "expect"]

INTERRUPTED = -2  # what a native run returns that was stopped; a program makes `KeyboardInterrupt` of it

_words: list[Memory] = []  # the block, once a loop wants one
_expected: list[Any] = []  # handlers that stand for Python's own


@builtin.once
def _hook() -> int | None:
    """The address of `asked(block)`: whether Ctrl-C has come, which it then no longer has."""
    if not builtin.available():
        return None
    address = builtin.compiled("tilewright_interrupted", [_source()])
    builtin.keep_for_ever(*_asked_with())
    return address


@builtin.once
def _asked_with() -> tuple[Any, ...]:
    """A builtin that finds a signal's handler, the number of SIGINT, and the handler that Python installs."""
    return importlib.import_module("_signal").getsignal, int(signal.SIGINT), signal.default_int_handler


def block(clock: int) -> int:
    """The address of what a loop looks at, with the address of a clock in nanoseconds; 0 where it cannot ask."""
    hook = _hook()
    if hook is None:
        return 0
    if not _words:
        words = [0] * LOOK_WORDS
        words[LOOK["ask"] // 8] = hook
        words[LOOK["clock"] // 8] = clock
        for name, item in zip(("getsignal", "number", "handler"), _asked_with(), strict=True):
            words[LOOK[name] // 8] = id(item)
        words[LOOK["expected"] // 8] = id(_expected[-1]) if _expected else 0
        _words.append(builtin.table(words))
    return _words[0].address


def _expect() -> None:
    for memory in _words:
        memory.words(LOOK["expected"], 1)[0] = id(_expected[-1]) if _expected else 0


@contextmanager
def expect(handler: Any) -> Iterator[None]:
    """Loops may stop for a Ctrl-C that would go to this handler, which is called no more for it: `KeyboardInterrupt` comes out of
    the call. For the main thread, whose handlers these are."""
    assert threading.current_thread() is threading.main_thread()
    _expected.append(handler)
    _expect()
    try:
        yield
    finally:
        _expected.pop()
        _expect()


def _source() -> str:
    c = Code("i32 @tilewright_interrupted(ptr %block)")
    state = c.call("@PyGILState_Ensure", type="i32")
    answer = c.variable("i32")
    c.store("0", answer, type="i32")
    found = c.call(
        "@PyObject_CallOneArg", c.load("%block", LOOK["getsignal"]), c.load("%block", LOOK["number"])
    )
    c.unless("ne", found, "null", "unknown")
    c.call("@Py_DecRef", found, type="void")
    ours, expected = (
        c.compare("eq", found, c.load("%block", LOOK[name]), "ptr") for name in ("handler", "expected")
    )
    with c.when(c.value(f"or i1 {ours}, {expected}")):
        c.store(c.call("@PyOS_InterruptOccurred", type="i32"), answer, type="i32")
    c.line("br label %done")
    c.block("unknown")
    c.call("@PyErr_Clear", type="void")
    c.label("done")
    c.call("@PyGILState_Release", f"i32 {state}", type="void")
    c.line(f"ret i32 {c.load(answer, type='i32')}")
    return c.text()
