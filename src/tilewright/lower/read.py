"""``read(value, index)``: the scalar expression of one element of a value, the heart of fusion.

Elementwise operations apply the scalar operation to their operands' elements, movement operations rewrite the index,
padding becomes a masked read, a stored value becomes a load. Whatever lies between stored values and the place that
asks is thereby computed on the way, without a loop or a buffer of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.core.scalar import SCALAR_OPS
from tilewright.core.shape import Extent, Shape, product, static
from tilewright.graph.ir import Value
from tilewright.kernel import math as scalar_math
from tilewright.kernel.ir import Expr, bitcast, cast, const, load, op
from tilewright.lower.affine import Affine, Space, Unsupported
from tilewright.lower.extents import extent

__all__ = [
    "COMBINE",
    "Access",
    "Reader",
    "Unsupported",
    "accumulator",
    "computed_in",
    "identity",
    "reduction_terms",
]

Index = tuple[Affine, ...]

COMBINE = {
    "reduce_sum": "add",
    "reduce_prod": "mul",
    "reduce_max": "maximum",
    "reduce_min": "minimum",
    "fold": "add",
}


@dataclass(frozen=True, slots=True)
class Access:
    """One memory access of a kernel: which value, at which row-major position."""

    value: Value
    position: Affine


def identity(combine: str, dtype: DType) -> Expr:
    """The value that leaves ``combine`` unchanged."""
    if combine in ("add", "mul"):
        return const(0 if combine == "add" else 1, dtype)
    low = combine == "maximum"
    if dtype.is_bool:
        return const(not low, dtype)
    if dtype.is_float:
        return const(float("-inf") if low else float("inf"), dtype)
    bits, signed = dtype.bits, dtype.kind == "i"
    if low:
        return const(-(1 << (bits - 1)) if signed else 0, dtype)
    return const((1 << (bits - 1)) - 1 if signed else (1 << bits) - 1, dtype)


def accumulator(dtype: DType) -> DType:
    """The type in which sums and products of ``dtype`` run."""
    return dt.float32 if dtype.is_float and dtype.bits == 16 else dtype


def computed_in(v: Value) -> DType:
    """The type in which a reduction is computed."""
    return accumulator(v.dtype) if COMBINE[v.op] in ("add", "mul") else v.dtype


class Reader:
    """Reads values inside one kernel.

    ``stored(value)`` names the buffer in which a value already lies (or None); ``bound`` gives values that the kernel has
    at hand (a reduction's result, a register tile) as functions of the index. Bounds checks of gathers collect in
    ``checks`` as (condition, axis size) pairs.
    """

    def __init__(self, space: Space, stored: Callable[[Value], str | None]) -> None:
        self.space = space
        self.stored = stored
        self.bound: dict[Value, Callable[[Index], Expr]] = {}
        self.accesses: list[Access] = []
        self.checks: list[tuple[Expr, int]] = []
        self.checked: dict[tuple[Value, int], bool] = {}  # (indices, axis size): whether all of them
        self._memo: dict[tuple[Value, Index, Expr | None], Expr] = {}

    def forget(self) -> None:
        """Drop remembered reads; call it when ``bound`` changes."""
        self._memo.clear()

    def read(self, value: Value, index: Index, mask: Expr | None = None) -> Expr:
        """Element ``index`` of ``value``; where ``mask`` is false nothing is accessed and the result is unspecified."""
        key = (value, index, mask)
        found = self._memo.get(key)
        if found is None:
            found = self._read(value, index, mask)
            self._memo[key] = found
        return found

    def _read(self, value: Value, index: Index, mask: Expr | None) -> Expr:
        bound = self.bound.get(value)
        if bound is not None:
            return bound(index)
        name = self.stored(value)
        if name is not None:
            return self.load(value, name, index, mask)
        if value.dtype.is_complex or any(i.dtype.is_complex for i in value.inputs):
            raise Unsupported("complex elements")
        if value.op in SCALAR_OPS:
            return op(value.op, *[self.read(x, index, mask) for x in value.inputs])
        rule = _RULES.get(value.op)
        if rule is None:
            raise Unsupported(f"no lowering for {value.op}")
        return rule(self, value, index, mask)

    def load(self, value: Value, name: str, index: Index, mask: Expr | None) -> Expr:
        position = self.space.linear(index, value.shape)
        self.accesses.append(Access(value, position))
        if mask is None:
            return load(name, position.expr(), value.dtype)
        return load(name, position.expr(), value.dtype, mask, const(0, value.dtype))


def conjunction(*conditions: Expr | None) -> Expr | None:
    """The conditions that are there, all of them."""
    out: Expr | None = None
    for c in conditions:
        if c is not None and c is not out:
            out = c if out is None else op("bitand", out, c)
    return out


def within(space: Space, a: Affine, size: Extent) -> Expr | None:
    """The condition ``0 <= a < size``, or None where the ranges already say so."""
    low, high = space.range(a)
    lower = op("ge", a.expr(), const(0)) if low < 0 else None
    if isinstance(size, int):
        known = high < size
    else:  # a loop that ends there stays below it
        known = high < size.low or (
            a.constant <= 0 and [*a.terms.values()] == [1] and space.extents.get(next(iter(a.terms))) == size
        )
    return conjunction(lower, None if known else op("lt", a.expr(), extent(size)))


# ---- rules --------------------------------------------------------------------------------------------------------


def _constant(r: Reader, v: Value, index: Index, mask: Expr | None) -> Expr:
    if v.dtype.is_storage:
        return scalar_math.converted(const(v["value"], dt.float32), v.dtype)
    return const(v["value"], v.dtype)


def _iota(r: Reader, v: Value, index: Index, mask: Expr | None) -> Expr:
    return cast(index[v["axis"]].expr(), v.dtype)


def _random_bits(r: Reader, v: Value, index: Index, mask: Expr | None) -> Expr:
    key, start = v.inputs
    lead = key.type.rank - 1
    k0, k1 = (r.read(key, (*index[:lead], Affine.of(i)), mask) for i in (0, 1))
    shape = v.shape[lead:]
    n = r.space.linear(index[lead:], shape).expr()
    low = cast(op("bitand", n, const(0xFFFFFFFF)), dt.uint32)
    high = const(0, dt.uint32) if product(shape) < 1 << 32 else cast(op("shr", n, const(32)), dt.uint32)
    s0, s1 = (r.read(start, (*index[:lead], Affine.of(i)), mask) for i in (0, 1))
    if not s0 is s1 is const(0, dt.uint32):
        first, low = low, low + s0
        carry = cast(op("lt", low, first), dt.uint32)
        high = high + s1 + carry
    return scalar_math.threefry2x32(k0, k1, low, high)[v["word"]]


def _cast(r: Reader, v: Value, index: Index, mask: Expr | None) -> Expr:
    return scalar_math.converted(r.read(v.inputs[0], index, mask), v.dtype)


def _bitcast(r: Reader, v: Value, index: Index, mask: Expr | None) -> Expr:
    return bitcast(r.read(v.inputs[0], index, mask), v.dtype)


def _same(r: Reader, v: Value, index: Index, mask: Expr | None) -> Expr:
    return r.read(v.inputs[0], index, mask)


def reshaped_index(space: Space, index: Index, new: Shape, old: Shape) -> Index:
    """The index before a reshape: axes that stay at either end keep their indices, those between run flat."""
    last = 0
    while last < min(len(new), len(old)) and new[-1 - last] == old[-1 - last]:
        last += 1
    kept = index[len(index) - last :]
    new, old = new[: len(new) - last], old[: len(old) - last]
    return (*space.unravel(space.linear(index[: len(new)], new), old), *kept)


def rewrite_index(space: Space, v: Value, index: Index) -> Index:
    """The operand's index that a mask-free movement operation reads."""
    x = v.inputs[0]
    if v.op == "reshape":
        return reshaped_index(space, index, v.shape, x.shape)
    if v.op == "permute":
        out: list[Affine] = [Affine.of(0)] * len(index)
        for i, axis in zip(index, v["axes"], strict=True):
            out[axis] = i
        return tuple(out)
    if v.op == "broadcast":
        lead = len(v.shape) - len(x.shape)
        return tuple(Affine.of(0) if d == 1 else i for i, d in zip(index[lead:], x.shape, strict=True))
    if v.op == "slice":
        return tuple(i * s + a for i, a, s in zip(index, v["start"], v["step"], strict=True))
    if v.op == "flip":
        return tuple(
            i * -1 + (static((n,))[0] - 1) if k in v["axes"] else i
            for k, (i, n) in enumerate(zip(index, v.shape, strict=True))
        )
    if v.op == "window":
        rank = len(x.shape)
        out = list(index[:rank])
        for axis, k, s, d in zip(v["axes"], index[rank:], v["stride"], v["dilation"], strict=True):
            out[axis] = out[axis] * s + k * d
        return tuple(out)
    raise Unsupported(f"{v.op} is not an index rewrite")


REWRITES = ("reshape", "permute", "broadcast", "slice", "flip", "window")


def _rewrite(r: Reader, v: Value, index: Index, mask: Expr | None) -> Expr:
    return r.read(v.inputs[0], rewrite_index(r.space, v, index), mask)


def padded_index(space: Space, v: Value, index: Index) -> tuple[Index, Expr | None]:
    """The operand's index under a pad and the condition that it exists."""
    conditions: list[Expr | None] = []
    out = []
    for i, low, gap, size in zip(index, v["low"], v["interior"], v.inputs[0].shape, strict=True):
        moved = i - low
        if gap:
            if space.range(moved)[0] < 0:
                conditions.append(op("ge", moved.expr(), const(0)))
            moved, rest = space.divmod(moved, gap + 1)
            if rest != Affine.of(0):
                conditions.append(op("eq", rest.expr(), const(0)))
        conditions.append(within(space, moved, size))
        out.append(moved)
    return tuple(out), conjunction(*conditions)


def _pad(r: Reader, v: Value, index: Index, mask: Expr | None) -> Expr:
    inner, condition = padded_index(r.space, v, index)
    if condition is None:
        return r.read(v.inputs[0], inner, mask)
    x = r.read(v.inputs[0], inner, conjunction(mask, condition))
    fill = r.read(v.inputs[1], (), mask)
    if x.op == "load" and len(x.args) == 3 and x.args[1] is condition and x.args[2] is fill:
        return x
    return op("where", condition, x, fill)


def _gather(r: Reader, v: Value, index: Index, mask: Expr | None) -> Expr:
    x, *indices = v.inputs
    rank = len(indices[0].shape)
    at, rest = index[:rank], iter(index[rank:])
    chosen: dict[int, Affine] = {}
    for axis, i in zip(v["axes"], indices, strict=True):
        (size,) = static((x.shape[axis],))
        chosen[axis] = index_atom(r, i, at, size, mask)
    return r.read(x, tuple(chosen[a] if a in chosen else next(rest) for a in range(len(x.shape))), mask)


def index_atom(r: Reader, indices: Value, at: Index, size: int, mask: Expr | None) -> Affine:
    """A run-time index as a form in ``[0, size)``: out-of-range ones are reported after the run, and never accessed."""
    i = r.read(indices, at, mask)
    # uint64 above the signed range becomes negative here, and is then out of range as it should be
    i = bitcast(i, dt.int64) if i.dtype is dt.uint64 else cast(i, dt.int64)
    if i.op == "const" and 0 <= i.attr < size:
        return Affine.of(i.attr)
    good = op("bitand", op("ge", i, const(0)), op("lt", i, const(size)))
    if mask is not None:
        good = op("bitor", good, op("invert", mask))
    r.checks.append((good, size))
    known = r.checked.get((indices, size), False)
    r.checked[indices, size] = known or (mask is None and r.space.covers(at, indices.shape))
    clamped = op("minimum", op("maximum", i, const(0)), const(max(size - 1, 0)))
    return r.space.atom(clamped, 0, max(size - 1, 0))


def reduction_terms(r: Reader, v: Value, index: Index, inner: Index, mask: Expr | None) -> Expr:
    """The term of a reduction ``v`` for output ``index`` at the reduced position ``inner``, in the accumulator's type."""
    x = v.inputs[0]
    if v.op == "fold":
        axes = v["axes"]
        at = list(index)
        conditions: list[Expr | None] = []
        for axis, k, s, d in zip(axes, inner, v["stride"], v["dilation"], strict=True):
            moved = at[axis] - k * d
            if s > 1:
                if r.space.range(moved)[0] < 0:
                    conditions.append(op("ge", moved.expr(), const(0)))
                moved, rest = r.space.divmod(moved, s)
                if rest != Affine.of(0):
                    conditions.append(op("eq", rest.expr(), const(0)))
            (size,) = static((x.shape[axis],))
            conditions.append(within(r.space, moved, size))
            at[axis] = moved
        condition = conjunction(*conditions)
        term = r.read(x, (*at, *inner), conjunction(mask, condition))
        if condition is not None and not (
            term.op == "load" and len(term.args) == 3 and term.args[1] is condition
        ):
            term = op("where", condition, term, const(0, term.dtype))
        return cast(term, accumulator(v.dtype))
    axes = v["axes"]
    outer, reduced = iter(index), iter(inner)
    full = tuple(next(reduced) if a in axes else next(outer) for a in range(len(x.shape)))
    term = r.read(x, full, mask)
    return cast(term, accumulator(v.dtype)) if v.op in ("reduce_sum", "reduce_prod") else term


def is_disjoint_fold(v: Value) -> bool:
    """Whether windows do not overlap, so that the adjoint only moves elements."""
    if v.op != "fold" or any(d != 1 for d in v["dilation"]):
        return False
    return all(k <= s for k, s in zip(reduced_shape(v), v["stride"], strict=True))


def _disjoint_fold(r: Reader, v: Value, index: Index, mask: Expr | None) -> Expr:
    """Element i lies in window i // stride at place i % stride, or in none."""
    x, at, inner = v.inputs[0], list(index), []
    conditions: list[Expr | None] = []
    for axis, size, s in zip(v["axes"], reduced_shape(v), v["stride"], strict=True):
        at[axis], place = r.space.divmod(at[axis], s)
        (count,) = static((x.shape[axis],))
        conditions += [within(r.space, at[axis], count), within(r.space, place, size)]
        inner.append(place)
    condition = conjunction(*conditions)
    value = r.read(x, (*at, *inner), conjunction(mask, condition))
    return value if condition is None else op("where", condition, value, const(0, value.dtype))


def reduced_shape(v: Value) -> Shape:
    """The sizes of the ranges that a reduction runs over."""
    x = v.inputs[0]
    if v.op == "fold":
        return static(x.shape[len(v.shape) :])
    return tuple(x.shape[a] for a in v["axes"])


def _inline_reduction(r: Reader, v: Value, index: Index, mask: Expr | None) -> Expr:
    """A small reduction (a pooling window, an overlap) written out term by term."""
    if is_disjoint_fold(v):
        return _disjoint_fold(r, v, index, mask)
    total: Expr | None = None
    for inner in itertools.product(*[range(n) for n in static(reduced_shape(v))]):
        term = reduction_terms(r, v, index, tuple(Affine.of(i) for i in inner), mask)
        total = term if total is None else op(COMBINE[v.op], total, term)
    if total is None:
        total = identity(COMBINE[v.op], accumulator(v.dtype))
    return cast(total, v.dtype)


def _rules() -> dict[str, Callable[[Reader, Value, Index, Expr | None], Expr]]:
    rules: dict[str, Callable[[Reader, Value, Index, Expr | None], Expr]] = {
        "constant": _constant, "iota": _iota, "random_bits": _random_bits, "cast": _cast, "bitcast": _bitcast,
        "stop_gradient": _same, "mark": _same, "barrier": _same, "pad": _pad, "gather": _gather,
    }  # fmt: skip
    rules.update(dict.fromkeys(REWRITES, _rewrite))
    rules.update(dict.fromkeys(COMBINE, _inline_reduction))
    return rules


_RULES = _rules()
