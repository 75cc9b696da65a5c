"""Ctrl-C between two steps: the signal is noted when it comes and acted on where nothing is half done.

Python raises `KeyboardInterrupt` wherever the main thread happens to be, also in a destructor, where it is lost.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from tilewright.runtime.interruption import expect

__all__ = ["ctrl_c_noted"]


@contextmanager
def ctrl_c_noted() -> Iterator[Callable[[], None]]:
    """A function that raises `KeyboardInterrupt` if Ctrl-C came since; pressed twice, it interrupts at once.

    In another thread than the main one, or where the program has a handler of its own, nothing is changed.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: None
        return
    pressed: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if pressed:
            signal.default_int_handler(number, frame)
        pressed.append(number)

    def check() -> None:
        if pressed:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, note)
    try:
        with expect(note):  # a loop that takes long is left where it is: the step has not happened then
            yield check
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
