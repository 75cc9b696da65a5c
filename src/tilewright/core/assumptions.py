"""What a fast call takes for granted, as a number that changes with it.

A fast call skips the questions whose answers seldom change: which threads there are, whether somebody watches, what the
settings say. Whoever changes one of these says so here, and every fast call asks again, once.
"""

from __future__ import annotations

import ctypes

__all__ = ["RUNNING", "VERSION", "address", "changed", "words"]

VERSION, RUNNING = range(2)  # words: how often something changed; native runs during which the GIL is free
words = (ctypes.c_uint64 * 2)(1, 0)


def changed() -> None:
    """Something that fast calls rely on is different: call it after the change, and before anything goes away with it."""
    words[VERSION] += 1


def address() -> int:
    """Where the words lie, for native code."""
    return ctypes.addressof(words)
