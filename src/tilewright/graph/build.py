"""Small builders over ``make``: broadcasting, scalars, and composites that several packages need.

Operands of one operation have one dtype; nothing here promotes, that is the array functions' business. A
Python number takes the dtype and shape of the value beside it. Movement that changes nothing gives back its
operand.
"""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.core.shape import Extent, Shape, broadcast_shapes, product, static
from tilewright.graph.ir import Value, constant, make

__all__ = [
    "add", "broadcast", "cast", "compare", "conj", "div", "dot", "expand", "full", "full_like", "mul", "neg",
    "ones_like", "pad", "permute", "reduce_sum", "reshape", "slice_", "spread", "square", "sub", "unary",
    "unbroadcast", "where", "zeros_like",
]  # fmt: skip

Number = bool | int | float | complex
Operand = Value | Number


# ---- constants ---------------------------------------------------------------------------------------------


def full(value: Number, dtype: DType, shape: Shape) -> Value:
    """A tensor of one repeated number."""
    return broadcast(constant(value, dtype), shape)


def full_like(like: Value, value: Number) -> Value:
    return full(value, like.dtype, like.shape)


def zeros_like(like: Value) -> Value:
    return full(0, like.dtype, like.shape)


def ones_like(like: Value) -> Value:
    return full(1, like.dtype, like.shape)


# ---- elementwise -------------------------------------------------------------------------------------------


def _fit(operands: Sequence[Operand]) -> list[Value]:
    """Numbers become constants of the first value's dtype; all get the common shape."""
    like = next(x for x in operands if isinstance(x, Value))
    values = [x if isinstance(x, Value) else constant(x, like.dtype) for x in operands]
    shape = broadcast_shapes([v.shape for v in values])
    return [broadcast(v, shape) for v in values]


def unary(op: str, x: Value) -> Value:
    return make(op, (x,))


def add(a: Operand, b: Operand) -> Value:
    return make("add", _fit((a, b)))


def sub(a: Operand, b: Operand) -> Value:
    return make("sub", _fit((a, b)))


def mul(a: Operand, b: Operand) -> Value:
    return make("mul", _fit((a, b)))


def div(a: Operand, b: Operand) -> Value:
    return make("div", _fit((a, b)))


def compare(op: str, a: Operand, b: Operand) -> Value:
    """``eq ne lt le gt ge`` with broadcasting."""
    return make(op, _fit((a, b)))


def where(condition: Value, a: Operand, b: Operand) -> Value:
    """``a`` where ``condition`` (bool, of the result's shape or broadcast to it), else ``b``."""
    a, b = _fit((a, b))
    shape = broadcast_shapes((condition.shape, a.shape))
    return make("where", (broadcast(condition, shape), broadcast(a, shape), broadcast(b, shape)))


def neg(x: Value) -> Value:
    return make("neg", (x,))


def square(x: Value) -> Value:
    return make("mul", (x, x))


def conj(x: Value) -> Value:
    """The complex conjugate; a real value is its own."""
    return make("conj", (x,)) if x.dtype.is_complex else x


def cast(x: Value, dtype: DType) -> Value:
    return x if x.dtype is dtype else make("cast", (x,), dtype=dtype)


# ---- movement ----------------------------------------------------------------------------------------------


def broadcast(x: Value, shape: Shape) -> Value:
    return x if x.shape == shape else make("broadcast", (x,), shape=shape)


def reshape(x: Value, shape: Shape) -> Value:
    return x if x.shape == shape else make("reshape", (x,), shape=shape)


def permute(x: Value, axes: Sequence[int]) -> Value:
    axes = tuple(axes)
    return x if axes == tuple(range(x.type.rank)) else make("permute", (x,), axes=axes)


def slice_(
    x: Value, start: Sequence[int], stop: Sequence[Extent], step: Sequence[int] | None = None
) -> Value:
    step = (1,) * x.type.rank if step is None else tuple(step)
    if not any(start) and tuple(stop) == x.shape and all(s == 1 for s in step):
        return x
    return make("slice", (x,), start=tuple(start), stop=tuple(stop), step=step)


def pad(
    x: Value,
    low: Sequence[int],
    high: Sequence[int],
    interior: Sequence[int] | None = None,
    value: Operand = 0,
) -> Value:
    """Pad with a number or a rank-0 value; widths per axis, not negative."""
    interior = (0,) * x.type.rank if interior is None else tuple(interior)
    if not any((*low, *high, *interior)):
        return x
    fill = value if isinstance(value, Value) else constant(value, x.dtype)
    return make("pad", (x, fill), low=tuple(low), high=tuple(high), interior=interior)


def spread(x: Value, padding: Sequence[tuple[int, int]], dilation: Sequence[int]) -> Value:
    """The image [n, c, s...] as a convolution's windows see it: zeros between (``dilation - 1``) and around.

    ``padding`` is (low, high) per spatial axis; a negative width removes elements.
    """
    none = [0, 0]
    wide = pad(
        x,
        [*none, *(max(low, 0) for low, _ in padding)],
        [*none, *(max(high, 0) for _, high in padding)],
        [*none, *(d - 1 for d in dilation)],
    )
    stops = [n - max(-high, 0) for n, (_, high) in zip(static(wide.shape[2:]), padding, strict=True)]
    return slice_(wide, [*none, *(max(-low, 0) for low, _ in padding)], [*wide.shape[:2], *stops])


# ---- reductions --------------------------------------------------------------------------------------------


def reduce_sum(x: Value, axes: Sequence[int]) -> Value:
    """Sum over ``axes``, which disappear. Where a broadcast only repeated, the sum is a factor instead."""
    axes = tuple(sorted(axes))
    if x.op == "broadcast" and x.dtype.is_inexact:
        source = x.inputs[0]
        lead = x.type.rank - source.type.rank
        repeated = [
            a for a in axes if isinstance(x.shape[a], int) and (a < lead or source.shape[a - lead] == 1)
        ]
        count = product(x.shape[a] for a in axes)
        if axes and count and len(repeated) == len(axes):
            kept = tuple(d for a, d in enumerate(x.shape) if a not in axes)
            squeezed = tuple(d for a, d in enumerate(source.shape, lead) if a not in axes)
            return broadcast(mul(reshape(source, squeezed), count), kept)
    return make("reduce_sum", (x,), axes=axes) if axes else x


def expand(x: Value, axes: Sequence[int], shape: Shape) -> Value:
    """The adjoint of ``reduce_sum``: ``x`` repeated along ``axes`` of ``shape``."""
    if set(axes) != set(range(len(axes))):  # leading axes need no place of their own
        x = reshape(x, tuple(1 if a in axes else d for a, d in enumerate(shape)))
    return broadcast(x, shape)


def unbroadcast(x: Value, shape: Shape) -> Value:
    """The adjoint of ``broadcast`` from ``shape``: sum over every axis that was added or repeated."""
    lead = x.type.rank - len(shape)
    repeated = [a for a, d in enumerate(shape, lead) if d == 1 and x.shape[a] != 1]
    return reshape(reduce_sum(x, [*range(lead), *repeated]), shape)


# ---- contractions ------------------------------------------------------------------------------------------


def dot(
    lhs: Value,
    rhs: Value,
    contract: tuple[Sequence[int], Sequence[int]],
    batch: tuple[Sequence[int], Sequence[int]] = ((), ()),
    dtype: DType | None = None,
) -> Value:
    """Contract ``lhs`` with ``rhs`` over pairs of axes; the result's axes are batch, lhs free, rhs free.

    Operands of different floating types meet in the wider one; ``dtype`` is the result's (default: the
    operands').
    """
    wide = dt.promote(lhs.dtype, rhs.dtype)
    return make(
        "dot", (cast(lhs, wide), cast(rhs, wide)), lhs_contract=tuple(contract[0]),
        rhs_contract=tuple(contract[1]), lhs_batch=tuple(batch[0]), rhs_batch=tuple(batch[1]),
        dtype=dtype or wide,
    )  # fmt: skip
