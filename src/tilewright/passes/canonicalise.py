"""Canonical form: one way to write each thing, constants folded, markers gone.

    before   reshape(reshape(x)), permute(permute(x)), x * 1, cast(x: t, t), add(constant 2, constant 3), stop_gradient(x)
    after    one reshape, one permute, x, x, constant 5, x

Only rules that are exact for every element are here: ``x + 0`` stays for floats (it turns -0 into 0), ``x * 0`` stays (NaN).
Common subexpressions merge by themselves, because rebuilt values are interned; dead code is what nothing reaches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from tilewright.core.dtype import float32, int64
from tilewright.core.scalar import SCALAR_OPS, cast_numpy
from tilewright.core.shape import is_static, product, static
from tilewright.graph.extremes import first_extreme
from tilewright.graph.ir import Value, constant, make, topological

__all__ = ["canonicalise"]


def broadcast_to(x: Value, shape: tuple[object, ...]) -> Value:
    return x if x.shape == shape else make("broadcast", [x], shape=shape)


def scalar_of(v: Value) -> Value | None:
    """The rank-0 constant that a value repeats, if it does."""
    while v.op in ("broadcast", "reshape"):
        v = v.inputs[0]
    return v if v.op == "constant" else None


def is_scalar(v: Value, number: float) -> bool:
    c = scalar_of(v)
    if c is None or isinstance(c["value"], complex):
        return False
    return bool(c["value"] == number) and not (number == 0 and math.copysign(1, c["value"]) < 0)


def _fold(v: Value) -> Value | None:
    """A scalar operation on constants."""
    scalars = [scalar_of(x) for x in v.inputs]
    if not v.inputs or any(s is None for s in scalars):
        return None
    args = [np.asarray(s["value"], s.dtype.numpy) for s in scalars if s is not None]
    if v.op == "cast":
        out = cast_numpy(args[0], v.dtype)
    else:
        out = SCALAR_OPS[v.op].numpy(*args)
    return broadcast_to(constant(np.asarray(out).astype(v.dtype.numpy).item(), v.dtype), v.shape)


def _elementwise(v: Value) -> Value | None:
    folded = _fold(v)
    if folded is not None:
        return folded
    rule = _SCALAR_RULES.get(v.op)
    return rule(v) if rule is not None else None


def _mul(v: Value) -> Value | None:
    for x, y in (v.inputs, v.inputs[::-1]):
        if is_scalar(y, 1):
            return x
    return None


def _div(v: Value) -> Value | None:
    x, y = v.inputs
    if is_scalar(y, 1):
        return x
    c = scalar_of(y)
    if c is not None and v.dtype.is_float and c["value"] and math.isfinite(c["value"]):
        mantissa, exponent = math.frexp(c["value"])
        if (
            abs(mantissa) == 0.5 and abs(exponent) < 100 and v.dtype.bits >= 32
        ):  # a power of two: the reciprocal is exact
            return make("mul", [x, broadcast_to(constant(1 / c["value"], v.dtype), v.shape)])
    return None


def _add(v: Value) -> Value | None:
    if v.dtype.is_integer:
        for x, y in (v.inputs, v.inputs[::-1]):
            if is_scalar(y, 0):
                return x
    return None


def _sub(v: Value) -> Value | None:
    return v.inputs[0] if is_scalar(v.inputs[1], 0) else None


def _neg(v: Value) -> Value | None:
    return v.inputs[0].inputs[0] if v.inputs[0].op == "neg" else None


def _where(v: Value) -> Value | None:
    condition, a, b = v.inputs
    c = scalar_of(condition)
    if c is not None:
        return a if c["value"] else b
    return a if a is b else None


def _bit(v: Value) -> Value | None:
    a, b = v.inputs
    if a is b:
        return a
    if v.dtype.is_bool:
        for x, y in ((a, b), (b, a)):
            c = scalar_of(y)
            if c is not None:
                return (x if c["value"] else y) if v.op == "bitand" else (y if c["value"] else x)
    return None


_SCALAR_RULES: dict[str, Callable[[Value], Value | None]] = {
    "mul": _mul, "div": _div, "add": _add, "sub": _sub, "neg": _neg, "where": _where, "bitand": _bit, "bitor": _bit,
}  # fmt: skip


def _cast(v: Value) -> Value | None:
    (x,) = v.inputs
    if x.dtype is v.dtype:
        return x
    if x.op == "cast":
        source = x.inputs[0].dtype
        widens = source.kind == x.dtype.kind and source.bits < x.dtype.bits and source.kind in "iuf"
        if widens or (source.is_bool and not v.dtype.is_bool):
            return make("cast", [x.inputs[0]], dtype=v.dtype)
    return _fold(v)


def _reshape(v: Value) -> Value | None:
    (x,) = v.inputs
    if x.shape == v.shape:
        return x
    if x.op == "reshape":
        return make("reshape", [x.inputs[0]], shape=v.shape)
    if x.op == "broadcast" and not x.inputs[0].shape:
        return make("broadcast", [x.inputs[0]], shape=v.shape)
    return None


def _permute(v: Value) -> Value | None:
    (x,) = v.inputs
    axes = v["axes"]
    if axes == tuple(range(len(axes))):
        return x
    if x.op == "permute":
        return make("permute", [x.inputs[0]], axes=tuple(x["axes"][a] for a in axes))
    if x.op == "broadcast" and not x.inputs[0].shape:
        return make("broadcast", [x.inputs[0]], shape=v.shape)
    moving = [a for a in axes if x.shape[a] != 1]
    if moving == sorted(moving):
        return make("reshape", [x], shape=v.shape)
    return None


def _broadcast(v: Value) -> Value | None:
    (x,) = v.inputs
    if x.shape == v.shape:
        return x
    if x.op == "broadcast":
        return make("broadcast", [x.inputs[0]], shape=v.shape)
    if x.op == "reshape" and x.type.size == 1 and not x.inputs[0].shape:
        return make("broadcast", [x.inputs[0]], shape=v.shape)
    return None


def _slice(v: Value) -> Value | None:
    (x,) = v.inputs
    if x.shape == v.shape:
        return x
    if x.op == "broadcast" and not x.inputs[0].shape:
        return make("broadcast", [x.inputs[0]], shape=v.shape)
    return _last_carry(v)


def _last_carry(v: Value) -> Value | None:
    """The last carry of a loop, where a slice takes the last iteration's of the same carry stacked: it need not be stacked."""
    (x,) = v.inputs
    stack, axes = (x.inputs[0], x["axes"]) if x.op == "permute" else (x, tuple(range(len(x.shape))))
    if stack.op != "scan" or stack["index"] < stack["carries"]:
        return None
    outputs = stack["body"].outputs
    carry = next((k for k in range(stack["carries"]) if outputs[k] is outputs[stack["index"]]), None)
    along = axes.index(0)
    begins = [0] * len(axes)
    begins[along] = 0 if stack["reverse"] else stack["length"] - 1
    kept = (*x.shape[:along], 1, *x.shape[along + 1 :])
    if carry is None or list(v["start"]) != begins or v.shape != kept:
        return None
    last = make("scan", stack.inputs, **{**dict(stack.attrs), "index": carry})
    one = make("reshape", [last], shape=(1, *last.shape))
    return make("permute", [one], axes=axes) if axes != tuple(range(len(axes))) else one


def _pad(v: Value) -> Value | None:
    return v.inputs[0] if v.shape == v.inputs[0].shape else None


def _flip(v: Value) -> Value | None:
    axes = tuple(a for a in v["axes"] if v.shape[a] != 1)
    if not axes:
        return v.inputs[0]
    return make("flip", v.inputs, axes=axes) if axes != v["axes"] else None


def _concat(v: Value) -> Value | None:
    axis = v["axis"]
    filled = [x for x in v.inputs if x.shape[axis] != 0]
    if len(filled) == 1:
        return filled[0]
    return make("concat", filled, axis=axis) if filled and len(filled) < len(v.inputs) else None


def _reduce(v: Value) -> Value | None:
    (x,) = v.inputs
    axes = v["axes"]
    if all(x.shape[a] == 1 for a in axes):
        return make("reshape", [x], shape=v.shape)
    if x.op == v.op:
        kept = [a for a in range(len(x.inputs[0].shape)) if a not in x["axes"]]
        return make(v.op, x.inputs, axes=tuple(sorted((*x["axes"], *[kept[a] for a in axes]))))
    if is_static(x.shape) and x.op == "broadcast" and product(x.shape):
        return _reduce_repeated(v, x)
    return None


def _reduce_repeated(v: Value, x: Value) -> Value | None:
    """A reduction over axes along which elements are repeated: the sum is a product with their number, which is nearer to the
    sum than adding up so many terms of one size. Sums of half types stay, for their accumulator's sake."""
    c = x.inputs[0]
    lead = len(x.shape) - len(c.shape)
    count = product([x.shape[a] for a in v["axes"] if a < lead or c.shape[a - lead] == 1])
    summed = v.op == "reduce_sum" and not (c.dtype.is_float and c.dtype.bits == 16)
    if count == 1 or not (summed or v.op in ("reduce_max", "reduce_min")):
        return None
    own = tuple(a - lead for a in v["axes"] if a >= lead)
    once = simplify(make(v.op, [c], axes=own)) if own else c
    if summed:
        if c.dtype.is_integer:  # sums wrap around, and so may the number of terms
            count = int(np.asarray(count % (1 << c.dtype.bits), np.uint64).astype(c.dtype.numpy))
        once = make("mul", [once, broadcast_to(constant(count, c.dtype), once.shape)])
    return broadcast_to(once, v.shape)


def _first(v: Value) -> Value | None:
    return v.inputs[0]


def _custom(v: Value) -> Value | None:
    chosen: Value = v.inputs[v["index"]]
    return chosen


def _dot(v: Value) -> Value | None:
    """A contraction over nothing is zero."""
    lhs = v.inputs[0]
    if is_static(lhs.shape) and v["lhs_contract"] and product([lhs.shape[a] for a in v["lhs_contract"]]) == 0:
        return broadcast_to(constant(0, v.dtype), v.shape)
    return None


def _conv(v: Value) -> Value | None:
    if 0 in static(v.inputs[1].shape[1:]):
        return broadcast_to(constant(0, v.dtype), v.shape)
    return None


def _scatter(v: Value) -> Value | None:
    """Repeated additions to half types are rounded once, at the end."""
    if v["mode"] != "add" or not v.dtype.is_float or v.dtype.bits != 16:
        return None
    x, updates = (make("cast", [i], dtype=float32) for i in v.inputs[:2])
    return make(
        "cast", [make("scatter", [x, updates, *v.inputs[2:]], axes=v["axes"], mode="add")], dtype=v.dtype
    )


def _arg_reduction(v: Value) -> Value:
    """argmax(x) -> two row reductions, which vectorise: the maximum, and the first index at which x is that (or NaN)."""
    _, first = first_extreme(v.inputs[0], v["axis"], v.op == "argmax")
    return make("cast", [first], dtype=int64)


_RULES: dict[str, Callable[[Value], Value | None]] = {
    "cast": _cast, "reshape": _reshape, "permute": _permute, "broadcast": _broadcast, "slice": _slice, "pad": _pad,
    "flip": _flip, "concat": _concat, "stop_gradient": _first, "mark": _first, "custom": _custom,
    "dot": _dot, "conv": _conv, "scatter": _scatter, "argmax": _arg_reduction, "argmin": _arg_reduction,
    "reduce_sum": _reduce, "reduce_prod": _reduce, "reduce_max": _reduce, "reduce_min": _reduce,
}  # fmt: skip


def simplify(v: Value) -> Value:
    """Apply the rules at one value until none fits."""
    for _ in range(20):
        rule = _RULES.get(v.op) or (_elementwise if v.op in SCALAR_OPS else None)
        new = rule(v) if rule is not None else None
        if new is None or new is v:
            return v
        v = new
    return v


def canonicalise(outputs: Sequence[Value]) -> list[Value]:
    """The outputs in canonical form."""
    done: dict[Value, Value] = {}
    for v in topological(outputs):
        inputs = tuple(done[x] for x in v.inputs)
        if inputs != v.inputs:
            done[v] = simplify(make(v.op, inputs, **dict(v.attrs)))
        else:
            done[v] = simplify(v)
    return [done[v] for v in outputs]
