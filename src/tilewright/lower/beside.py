"""What a register tile does beside its products: after every few steps of k, a piece of other work.

A core that multiplies has units to spare, and sees some hundred instructions ahead: a short piece of work among them takes hardly
any time, where the same work in one go would take all of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tilewright.kernel.ir import Loop, Stmt, const, index, op
from tilewright.lower.affine import Affine, Space

__all__ = ["Work", "steps_beside"]

Work = tuple[int, Callable[[Affine], list[Stmt]]]  # pieces, and what one does, given its number


def steps_beside(
    space: Space, name: str, length: int, step: Sequence[Stmt], works: Sequence[Work]
) -> list[Stmt]:
    """The loop ``name`` over ``length`` steps of k, with pieces of other work among them."""
    count = max(pieces for pieces, _ in works)
    each = length // count
    piece = space.loop("piece", count)
    body: list[Stmt] = [Loop(name, (piece * each).expr(), ((piece + 1) * each).expr(), tuple(step))]
    for pieces, work in works:
        done = work(piece)
        if pieces < count:
            some = op("minimum", op("sub", const(pieces), piece.expr()), const(1))
            done = [Loop("some", index(0), some, tuple(done))]
        body += done
    out: list[Stmt] = [Loop("piece", index(0), index(count), tuple(body))]
    if count * each < length:
        out.append(Loop(name, index(count * each), index(length), tuple(step)))
    return out
