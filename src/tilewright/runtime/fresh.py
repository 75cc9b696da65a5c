"""New buffers for the results of a run, made in native code.

A table has a row for each: the shelf that its memory comes from, its slot of the program's pointer table, and what such a
buffer is like. `new_buffer` in IR makes one of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tilewright.runtime import builtin
from tilewright.runtime.blocks import shelf
from tilewright.runtime.buffers import Buffer
from tilewright.runtime.builtin import HEADER, Code, Offsets, Template
from tilewright.runtime.memory import Memory

__all__ = ["FRESH", "fresh_row", "offsets", "source"]

FRESH = {"shelf": 0, "slot": 8, "template": 16}  # byte offsets in a row


@builtin.once
def offsets() -> Offsets | None:
    """Where buffers keep their slots, and memory its address; None where that cannot be seen."""
    return builtin.slot_offsets({Buffer: Buffer.__slots__, Memory: ("address",)})


def fresh_row(
    size: int, count: int, dtype: np.dtype[np.generic], slot: int, keep: Callable[[object], object]
) -> Sequence[int]:
    """The words of a row: `count` elements of `dtype` in memory of a size class. `keep` is given what has to live as long."""
    at = offsets()
    assert at is not None
    template = Template(
        Buffer(None, 0, count, dtype, owned=True), lambda cls, name: at[cls, name], ("_owner", "address")
    )
    keep(template)
    return shelf(size), slot, template.address


def source(at: Offsets) -> str:
    """`new_buffer(row, block_type, reused)` in IR: null, with an exception, when there is no memory. It may collect garbage.
    Needs `Template.source()` and `take_source()`."""
    c = Code("internal ptr @new_buffer(ptr %row, ptr %block_type, ptr %reused)")
    buffer = c.call("@like", c.load("%row", FRESH["template"]))
    c.unless("ne", buffer, "null", "none")
    block = c.call("@take_block", c.load("%row", FRESH["shelf"]), "%block_type", "%reused")
    c.unless("ne", block, "null", "full")
    c.store(block, buffer, at[Buffer, "_owner"])
    address = c.load(c.load(block, HEADER), at[Memory, "address"])
    c.call("@Py_IncRef", address, type="void")
    c.store(address, buffer, at[Buffer, "address"])
    c.line(f"ret ptr {buffer}")
    c.block("full")
    c.call("@Py_DecRef", buffer, type="void")
    c.label("none")
    c.line("ret ptr null")
    return c.text()
