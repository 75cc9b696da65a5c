"""Long reductions to few results become two steps, so that all cores take part and sums run in blocks.

    before   reduce_sum(x: f32[1000000], axes=0)
    after    reduce_sum(reduce_sum(reshape(x, [64, 15625]), axes=1), axes=0)

A maximum whose first place is wanted too is cut together with the place: every block gives both, and one pass finds both.
Blocks depend on the shape alone, never on the thread count: results stay the same on any number of cores.
"""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.core.dtype import DType
from tilewright.core.shape import is_static, product, static
from tilewright.graph.extremes import first_extreme, first_extreme_of_parts, first_of
from tilewright.graph.ir import Value, make, topological

__all__ = ["split_reductions"]

MIN_ELEMENTS = 1 << 16  # below this one core is done before another has woken up
MIN_ROWS = 32  # with this many independent rows the work is shared out already, and a row stays in one kernel
MIN_COLUMNS = 16384  # the same where the last axis is kept: neighbouring columns share a vector
SPLITTABLE = ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod")


def _blocks(n: int) -> int:
    """How many blocks to cut an axis of ``n`` into: the largest divisor up to 64, or 1."""
    return max((b for b in range(1, 65) if n % b == 0), default=1)


def _cut(v: Value) -> tuple[int, int] | None:
    """The axis along which a reduction is cut, and into how many blocks; None if it stays whole."""
    if v.op not in SPLITTABLE:
        return None
    (x,) = v.inputs
    if not is_static(x.shape) or x.type.size < MIN_ELEMENTS or x.dtype.bits == 16:
        return None
    axes, shape = v["axes"], static(x.shape)
    rows = product(v.shape)
    inner_kept = (len(shape) - 1) not in axes
    if rows >= (MIN_COLUMNS if inner_kept else MIN_ROWS) or (rows and x.type.size // rows < 1024):
        return None
    axis = axes[0]  # the outermost: blocks of it are contiguous
    blocks = _blocks(shape[axis])
    return None if blocks < 4 else (axis, blocks)


def _in_blocks(x: Value, axis: int, blocks: int) -> Value:
    shape = static(x.shape)
    return make("reshape", [x], shape=(*shape[:axis], blocks, shape[axis] // blocks, *shape[axis + 1 :]))


def _split(v: Value) -> Value:
    found = _cut(v)
    if found is None:
        return v
    axis, blocks = found
    (x,), axes = v.inputs, v["axes"]
    if (
        blocks == x.shape[axis] and len(axes) > 1
    ):  # the axis itself is the blocks: a reduction over the others may share their loops
        return make(v.op, [make(v.op, [x], axes=axes[1:])], axes=(axis,))
    inner = make(v.op, [_in_blocks(x, axis, blocks)], axes=tuple(a + 1 for a in axes))
    return make(v.op, [inner], axes=(axis,)) if axis < len(inner.shape) else v


def _split_place(best: Value, kind: DType) -> Value:
    """The place of the first element that is the best of a row, from those of its blocks; ``best`` is cut."""
    found = _cut(best)
    assert found is not None
    axis, blocks = found
    largest, cut = best.op == "reduce_max", _in_blocks(best.inputs[0], axis, blocks)
    parts, firsts = first_extreme(cut, axis + 1, largest)
    return first_extreme_of_parts(parts, firsts, static(cut.shape)[axis + 1], axis, kind, largest)[1]


def split_reductions(outputs: Sequence[Value]) -> list[Value]:
    """The outputs with long reductions cut."""
    order = topological(outputs)
    extremes = [v for v in order if v.op in ("reduce_max", "reduce_min") and _cut(v) is not None]
    pairs = ((v, first_of(v, extremes)) for v in extremes)
    best_of = {first: v for v, first in pairs if first is not None}
    done: dict[Value, Value] = {}
    for v in order:
        inputs = tuple(done[x] for x in v.inputs)
        new = v if inputs == v.inputs else make(v.op, inputs, **dict(v.attrs))
        if v in best_of:
            best = best_of[v]
            x = done[best.inputs[0]]
            done[v] = _split_place(make(best.op, [x], **dict(best.attrs)), v.dtype)
        else:
            done[v] = _split(new)
    return [done[v] for v in outputs]
