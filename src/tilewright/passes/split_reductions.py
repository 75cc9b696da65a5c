"""Long reductions to few results become two steps, so that all cores take part and sums run in blocks.

    before   reduce_sum(x: f32[1000000], axes=0)
    after    reduce_sum(reduce_sum(reshape(x, [64, 15625]), axes=1), axes=0)

Blocks depend on the shape alone, never on the thread count: results stay the same on any number of cores.
"""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.core.shape import is_static, product, static
from tilewright.graph.ir import Value, make, topological

__all__ = ["split_reductions"]

MIN_ELEMENTS = 1 << 16  # below this one core is done before another has woken up
MIN_ROWS = 32  # with this many independent rows the work is shared out already, and a row stays in one kernel
MIN_COLUMNS = 16384  # the same where the last axis is kept: neighbouring columns share a vector
SPLITTABLE = ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod")


def _blocks(n: int) -> int:
    """How many blocks to cut an axis of ``n`` into: the largest divisor up to 64, or 1."""
    return max((b for b in range(1, 65) if n % b == 0), default=1)


def _split(v: Value) -> Value:
    if v.op not in SPLITTABLE:
        return v
    (x,) = v.inputs
    if not is_static(x.shape) or x.type.size < MIN_ELEMENTS or x.dtype.bits == 16:
        return v
    axes, shape = v["axes"], static(x.shape)
    rows = product(v.shape)
    inner_kept = (len(shape) - 1) not in axes
    if rows >= (MIN_COLUMNS if inner_kept else MIN_ROWS) or (rows and x.type.size // rows < 1024):
        return v
    axis = axes[0]  # the outermost: blocks of it are contiguous
    blocks = _blocks(shape[axis])
    if blocks < 4:
        return v
    if (
        blocks == shape[axis] and len(axes) > 1
    ):  # the axis itself is the blocks: a reduction over the others may share their loops
        return make(v.op, [make(v.op, [x], axes=axes[1:])], axes=(axis,))
    cut = make("reshape", [x], shape=(*shape[:axis], blocks, shape[axis] // blocks, *shape[axis + 1 :]))
    inner = make(v.op, [cut], axes=tuple(a + 1 for a in axes))
    return make(v.op, [inner], axes=(axis,)) if axis < len(inner.shape) else v


def split_reductions(outputs: Sequence[Value]) -> list[Value]:
    """The outputs with long reductions cut."""
    done: dict[Value, Value] = {}
    for v in topological(outputs):
        inputs = tuple(done[x] for x in v.inputs)
        done[v] = _split(v if inputs == v.inputs else make(v.op, inputs, **dict(v.attrs)))
    return [done[v] for v in outputs]
