"""Index arithmetic in vector loops: a scalar part, a known multiple of the lane number, and small 32-bit offsets.

Almost every index in a vector loop is *scalar + constant * lane + small offset*. Kept apart, consecutive elements are
recognised, address work that does not vary stays scalar and leaves inner loops, and what is left of divisions and comparisons
fits vectors of 32-bit integers, which is twice as fast as 64 bits and the only width some vector units have.

    i*8 + 3                 ->  scalar 0, constant 3, step 8                      (i is the vector loop's variable)
    (i // 24)*7             ->  scalar (i0 // 24)*7, offsets 0 or 7               (i0: the variable in the first lane)
    table[i]*4              ->  whole 64-bit vector (an index read from memory)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tilewright.codegen import instructions as ins
from tilewright.codegen.instructions import of_type
from tilewright.codegen.scopes import Val
from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.kernel.ir import Expr

if TYPE_CHECKING:
    from tilewright.codegen.llvm import _Emitter

__all__ = ["INDEX_OPS", "RECURSION", "Index", "Indices"]

INDEX_OPS = frozenset(
    ("const", "var", "add", "sub", "mul", "idiv", "imod", "cast", "maximum", "minimum", "where")
)
RECURSION = 100  # expressions higher than this are emitted in several steps
_I32 = (-(2**31), 2**31 - 1)
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Index:
    """``base`` + ``k`` + ``step`` * lane + ``off``, or ``wide`` (64-bit lanes) alone.

    ``low`` and ``high`` bound ``off`` (32-bit lanes); ``span`` bounds ``base`` where that is known. ``align`` divides ``base``
    (0: there is none, which everything divides); ``pattern`` is ``off`` lane by lane, where that is known.
    """

    base: Val | None = None
    k: int = 0
    step: int = 0
    off: Val | None = None
    low: int = 0
    high: int = 0
    wide: Val | None = None
    span: Span | None = None
    align: int = 1
    pattern: tuple[int, ...] | None = None

    @property
    def multiple(self) -> int:
        """A number that divides ``base``; 0 where there is none."""
        return self.align if self.base is not None else 0

    @property
    def varies(self) -> bool:
        """Whether lanes differ."""
        return self.step != 0 or self.off is not None or self.wide is not None

    @property
    def level(self) -> int:
        return max((v.level for v in (self.base, self.off, self.wide) if v is not None), default=0)


def _plus(a: Span | None, b: Span | None) -> Span | None:
    return None if a is None or b is None else (a[0] + b[0], a[1] + b[1])


class Indices:
    """Builds and uses index forms for one emitter."""

    def __init__(self, emitter: _Emitter) -> None:
        self.emitter, self.fn = emitter, emitter.fn

    @property
    def lanes(self) -> int:
        return self.emitter.lanes

    # ---- construction ---------------------------------------------------------------------------------------------

    def of(self, e: Expr) -> Index:
        """The index form of an int64 expression."""
        if e.op == "const":
            return Index(None, e.attr)
        emitter = self.emitter
        key = emitter.key(e)
        found = emitter.recall(emitter.forms, e, key)
        if found is not None:
            return found
        if emitter.survey.facts(e)[2] > RECURSION:
            emitter.climb(e)
        return self.build(e, key)

    def build(self, e: Expr, key: object) -> Index:
        """Emit the index form of ``e`` and remember it."""
        form = self._build(e)
        self.emitter.remember(self.emitter.forms, key, form, max(form.level, self.fn.scope.floor))
        return form

    def _build(self, e: Expr) -> Index:
        if e.op == "var":
            bound = self.emitter.bound[e.attr][0]
            return bound if isinstance(bound, Index) else self._leaf(bound)
        if e.op == "add":
            return self.add(self.of(e.args[0]), self.of(e.args[1]))
        if e.op == "sub":
            return self.add(self.of(e.args[0]), self.scale(self.of(e.args[1]), -1))
        if e.op == "mul":
            return self.multiply(self.of(e.args[0]), self.of(e.args[1]))
        if e.op in ("idiv", "imod"):
            return self.divide(e.op, self.of(e.args[0]), e.args[1].attr)
        if e.op == "cast":
            return self._cast_in(e)
        if e.op in ("maximum", "minimum", "where"):
            found = self._choose(e)
            if found is not None:
                return found
            return self._leaf(self.emitter.operation(e))
        return self._leaf(self.emitter.value(e))

    def _leaf(self, value: Val) -> Index:
        return Index(wide=value) if value.lanes else Index(value)

    def _cast_in(self, e: Expr) -> Index:
        source = e.args[0].dtype
        value = self.emitter.value(e.args[0])
        out = self.fn.at(value)
        if source.is_bool:
            span = (0, 1)
        elif source.is_integer and (source.bits < 32 or source is dt.int32):
            span = (
                (-(2 ** (source.bits - 1)), 2 ** (source.bits - 1) - 1)
                if source.kind == "i"
                else (0, 2**source.bits - 1)
            )
        else:
            return self._leaf(
                Val(ins.convert(out, source, dt.int64, value.lanes, value.text), value.lanes, out.number)
            )
        if not value.lanes:
            return Index(Val(ins.convert(out, source, dt.int64, 0, value.text), 0, out.number), span=span)
        off = Val(ins.convert(out, source, dt.int32, value.lanes, value.text), value.lanes, out.number)
        return Index(off=off, low=span[0], high=span[1])

    # ---- arithmetic -----------------------------------------------------------------------------------------------

    def _scalar(self, op: str, a: Val, b: Val | int) -> Val:
        out = self.fn.at(a, b if isinstance(b, Val) else None)
        return Val(out.write(f"{op} i64 {a.text}, {b.text if isinstance(b, Val) else b}"), 0, out.number)

    def _small(self, op: str, a: Val, b: Val | int) -> Val:
        """A 32-bit operation on lanes."""
        lanes = a.lanes
        out = self.fn.at(a, b if isinstance(b, Val) else None)
        right = f"splat (i32 {b})" if isinstance(b, int) else self.fn.splat(b, "i32", lanes)
        return Val(out.write(f"{op} {of_type('i32', lanes)} {a.text}, {right}"), lanes, out.number)

    def _fits(self, x: Index) -> bool:
        """Whether step * lane + off stays within 32 bits."""
        low, high = self.offset_span(x)
        return _I32[0] <= low and high <= _I32[1]

    def offset_span(self, x: Index) -> Span:
        """Bounds of step * lane + off."""
        reach = x.step * max(self.lanes - 1, 0)
        return x.low + min(reach, 0), x.high + max(reach, 0)

    def add(self, a: Index, b: Index) -> Index:
        """a + b"""
        if a.wide or b.wide:
            return self._wide("add", a, b)
        span = None
        if a.base and b.base:
            base: Val | None = self._scalar("add", a.base, b.base)
            span = _plus(a.span, b.span)
        else:
            base = a.base or b.base
            span = a.span if a.base else b.span
        low, high = a.low + b.low, a.high + b.high
        pattern = a.pattern if a.off else b.pattern
        if a.off and b.off:
            pattern = None
            if a.pattern and b.pattern:
                pattern = tuple(x + y for x, y in zip(a.pattern, b.pattern, strict=True))
        align = math.gcd(a.multiple, b.multiple)
        total = Index(base, a.k + b.k, a.step + b.step, a.off or b.off, low, high, None, span, align, pattern)
        if not self._fits(total):
            return self._wide("add", a, b)
        return replace(total, off=self._small("add", a.off, b.off)) if a.off and b.off else total

    def scale(self, x: Index, c: int) -> Index:
        """x * c"""
        if c == 1:
            return x
        if c == 0:
            return Index()
        if x.wide:
            return self._wide("mul", x, Index(None, c))
        low, high = sorted((x.low * c, x.high * c))
        scaled = Index(None, x.k * c, x.step * c, x.off, low, high)
        if not self._fits(scaled):
            return self._wide("mul", x, Index(None, c))
        off = self._small("mul", x.off, c) if x.off else None
        base = self._scalar("mul", x.base, c) if x.base else None
        span = None
        if x.span:
            ends = sorted((x.span[0] * c, x.span[1] * c))
            span = (ends[0], ends[1])
        pattern = tuple(v * c for v in x.pattern) if x.pattern else None
        return replace(scaled, base=base, off=off, span=span, align=x.align * abs(c), pattern=pattern)

    def multiply(self, a: Index, b: Index) -> Index:
        """a * b"""
        for x, y in ((a, b), (b, a)):
            if not y.varies and y.base is None:
                return self.scale(x, y.k)
        if not a.varies and not b.varies:
            return Index(self._scalar("mul", self.whole(a), self.whole(b)))
        return self._wide("mul", a, b)

    def _wide(self, op: str, a: Index, b: Index) -> Index:
        x, y = self.whole(a), self.whole(b)
        out, lanes = self.fn.at(x, y), max(x.lanes, y.lanes)
        left, right = (self.fn.splat(v, "i64", lanes) for v in (x, y))
        result = Val(out.write(f"{op} {of_type('i64', lanes)} {left}, {right}"), lanes, out.number)
        return Index(wide=result) if lanes else Index(result)

    def divide(self, op: str, x: Index, b: int) -> Index:
        """x // b or x % b for x >= 0 and a constant b > 0."""
        if not x.varies:
            return self._divide_scalar(op, x, b)
        exact = self._divide_pattern(op, x, b)
        if exact is not None:
            return exact
        low, high = self.offset_span(x)
        if x.wide or b - 1 + high - low > _I32[1]:
            whole = self.whole(x)
            text = self.fn.at(whole).write(
                f"{'udiv' if op == 'idiv' else 'urem'} {of_type('i64', whole.lanes)} {whole.text}, splat (i64 {b})"
            )
            return Index(wide=Val(text, whole.lanes, self.fn.at(whole).number))
        # The scalar part is divided once; lanes divide only their offset from its remainder. Where indices fall from lane to
        # lane, those after the loop's end, which nobody uses, may take the scalar part below zero: a multiple of b lifts it.
        lift = 0 if low >= 0 and x.off is None else -(-(high - low) // b)
        first = replace(x, k=x.k + low + lift * b, step=0, off=None, low=0, high=0)
        quotient, rest = self._divide_scalar("idiv", first, b), self._divide_scalar("imod", first, b)
        quotient = self.add(quotient, Index(None, -lift))
        offsets = self.offsets(replace(x, low=x.low, high=x.high))
        spread = self._narrow_scalar(self.add(rest, Index(None, -low)))
        inside = self._small("add", offsets, spread)
        most = (b - 1 if rest.base else rest.k) + high - low
        if most < b:
            carry = None
        elif most < 2 * b:
            out, t = self.fn.at(inside), of_type("i32", inside.lanes)
            over = out.write(f"icmp uge {t} {inside.text}, splat (i32 {b})")
            carry = Val(
                out.write(f"zext {of_type('i1', inside.lanes)} {over} to {t}"), inside.lanes, out.number
            )
        else:
            carry = self._divide_small(inside, b, most)
        if op == "idiv":
            return self.add(quotient, Index(off=carry, high=most // b)) if carry else quotient
        if carry is None:
            return Index(off=inside, high=most)
        if most < 2 * b:  # the smaller of x and x - b as unsigned numbers
            t, less = of_type("i32", inside.lanes), self._small("sub", inside, b)
            out = self.fn.at(less)
            text = out.call(t, "llvm.umin", (t, inside.text), (t, less.text))
            return Index(off=Val(text, inside.lanes, out.number), high=b - 1)
        return Index(off=self._small("sub", inside, self._small("mul", carry, b)), high=b - 1)

    def lane_values(self, x: Index) -> tuple[int, ...] | None:
        """step * lane + off for every lane, where it is known."""
        if x.wide is not None or not self.lanes or (x.off is not None and x.pattern is None):
            return None
        return tuple(x.step * i + (x.pattern[i] if x.pattern else 0) for i in range(self.lanes))

    def _divide_pattern(self, op: str, x: Index, b: int) -> Index | None:
        """x // b or x % b lane by lane, where lanes are known and the scalar part is a multiple of b."""
        values = self.lane_values(x)
        if values is None or (x.base is not None and x.align % b):
            return None
        if op == "imod":
            return self._known_lanes([(x.k + v) % b for v in values])
        quotients = self._known_lanes([(x.k + v) // b for v in values])
        if x.base is None:
            return quotients
        span = (x.span[0] // b, x.span[1] // b) if x.span else None
        return self.add(
            Index(self._scalar("sdiv exact", x.base, b), span=span, align=x.align // b), quotients
        )

    def _known_lanes(self, values: list[int]) -> Index:
        """An index of constants, one for each lane."""
        first, step = values[0], values[1] - values[0] if len(values) > 1 else 0
        if all(v == first + step * i for i, v in enumerate(values)):
            return Index(None, first, step)
        low = min(values)
        pattern = tuple(v - low for v in values)
        text = ", ".join(f"i32 {v}" for v in pattern)
        return Index(None, low, off=Val(f"<{text}>", len(values)), high=max(pattern), pattern=pattern)

    def _divide_scalar(self, op: str, x: Index, b: int) -> Index:
        if x.base is None:
            return Index(None, x.k // b if op == "idiv" else x.k % b)
        whole = self.whole(x)
        total = _plus(x.span, (x.k, x.k))
        if op == "idiv":
            span = (total[0] // b, total[1] // b) if total else None
            return Index(self._scalar("udiv", whole, b), span=span)
        return Index(self._scalar("urem", whole, b), span=(0, b - 1))

    def _divide_small(self, x: Val, b: int, most: int) -> Val:
        """x // b in lanes, 0 <= x <= most: one multiplication and a shift where 32 bits are enough."""
        for shift in range(31, 0, -1):
            factor = -(-(1 << shift) // b)
            if most * factor < 1 << 32 and most * (factor * b - (1 << shift)) < 1 << shift:
                return self._small("lshr", self._small("mul", x, factor), shift)
        return self._small("udiv", x, b)

    def _choose(self, e: Expr) -> Index | None:
        """maximum, minimum and where on lanes whose values fit 32 bits."""
        a, b = self.of(e.args[-2]), self.of(e.args[-1])
        constants = a.base is None and b.base is None and not (a.varies or b.varies)
        if constants and e.op != "where":
            return Index(None, max(a.k, b.k) if e.op == "maximum" else min(a.k, b.k))
        spans = self.total_span(a), self.total_span(b)
        if not self.lanes or not (a.varies or b.varies or e.op == "where"):
            return None
        if not all(s and _I32[0] <= s[0] and s[1] <= _I32[1] for s in spans):
            return None
        (low, high), (low2, high2) = (s for s in spans if s)
        x, y = self._narrow(a), self._narrow(b)
        values = [x, y]
        if e.op == "where":
            values.insert(0, self.emitter.value(e.args[0]))
        if not any(v.lanes for v in values):
            return None
        out, lanes = self.fn.at(*values), self.lanes
        texts = [self.fn.splat(v, "i32", lanes) for v in (x, y)]
        if e.op == "where":
            texts.insert(0, self.fn.splat(values[0], "i1", lanes))
        result = Val(ins.lower(out, e.op, dt.int32, lanes, *texts), lanes, out.number)
        choose = {"maximum": (max, max), "minimum": (min, min), "where": (min, max)}[e.op]
        return Index(off=result, low=choose[0](low, low2), high=choose[1](high, high2))

    # ---- use ------------------------------------------------------------------------------------------------------

    def total_span(self, x: Index) -> Span | None:
        """Bounds of the whole index in any lane, where they are known."""
        if x.wide:
            return None
        base: Span | None = (0, 0) if x.base is None else x.span
        return _plus(_plus(base, (x.k, x.k)), self.offset_span(x))

    def offsets(self, x: Index) -> Val:
        """step * lane + off as 32-bit lanes."""
        lanes = self.lanes
        steps = Val(ins.iota("i32", lanes, x.step), lanes)
        if x.off is None:
            return steps
        return self._small("add", x.off, steps) if x.step else x.off

    def scalar(self, x: Index) -> Val:
        """base + k"""
        if x.base is None:
            return Val(str(x.k))
        return self._scalar("add", x.base, x.k) if x.k else x.base

    def whole(self, x: Index) -> Val:
        """The 64-bit value, one or in lanes."""
        if x.wide:
            return x.wide
        scalar = self.scalar(x)
        if not x.varies:
            return scalar
        lanes, t = self.lanes, of_type("i64", self.lanes)
        if x.off is None:
            lane_part = Val(ins.iota("i64", lanes, x.step), lanes)
        else:
            small = self.offsets(x)
            out = self.fn.at(small)
            kind = "zext nneg" if self.offset_span(x)[0] >= 0 else "sext"
            lane_part = Val(
                out.write(f"{kind} {of_type('i32', lanes)} {small.text} to {t}"), lanes, out.number
            )
        if scalar.text == "0":
            return lane_part
        spread, out = self.fn.splat(scalar, "i64", lanes), self.fn.at(scalar, lane_part)
        return Val(out.write(f"add {t} {spread}, {lane_part.text}"), lanes, out.number)

    def _narrow_scalar(self, x: Index) -> Val:
        """base + k as a 32-bit scalar."""
        if x.base is None:
            return Val(str((x.k + 2**31) % 2**32 - 2**31))
        whole = self.scalar(x)
        out = self.fn.at(whole)
        return Val(out.write(f"trunc i64 {whole.text} to i32"), 0, out.number)

    def _narrow(self, x: Index) -> Val:
        """The low 32 bits, one or in lanes; ``x`` is not wide."""
        scalar = self._narrow_scalar(replace(x, step=0, off=None, low=0, high=0))
        if not x.varies:
            return scalar
        offsets = self.offsets(x)
        return offsets if scalar.text == "0" else self._small("add", offsets, scalar)

    def cast(self, e: Expr, to: DType) -> Val | None:
        """The index ``e`` in lanes as another type by way of 32 bits; None where that is not exact."""
        x = self.of(e)
        if x.wide or not x.varies:
            return None
        span = self.total_span(x)
        exact = span is not None and _I32[0] <= span[0] and span[1] <= _I32[1]
        if not exact and (not to.is_integer or to.bits > 32):
            return None
        value = self._narrow(x)
        out = self.fn.at(value)
        return Val(ins.convert(out, dt.int32, to, value.lanes, value.text), value.lanes, out.number)

    def compare(self, op: str, a: Expr, b: Expr) -> Val | None:
        """a < b and the like in 32-bit lanes: offsets against the distance of the scalar parts, clamped to 32 bits."""
        x, y = self.of(a), self.of(b)
        if x.wide or y.wide or not (x.varies or y.varies):
            return None
        gap = self.add(x, self.scale(y, -1))
        if gap.wide or not gap.varies:
            return None
        low, high = self.offset_span(gap)
        if low - 1 < _I32[0] or high + 1 > _I32[1]:
            return None
        limit = self.scale(replace(gap, step=0, off=None, low=0, high=0), -1)
        if limit.base is None:
            bound = Val(str(min(max(limit.k, low - 1), high + 1)))
        else:
            raw = self.scalar(limit)
            out = self.fn.at(raw)
            text = out.call("i64", "llvm.smax", ("i64", raw.text), ("i64", str(low - 1)))
            text = out.call("i64", "llvm.smin", ("i64", text), ("i64", str(high + 1)))
            bound = Val(out.write(f"trunc i64 {text} to i32"), 0, out.number)
        offsets = self.offsets(gap)
        order = op if op in ("eq", "ne") else "s" + op
        return self._small(f"icmp {order}", offsets, bound)

    # ---- what is known while emitting -----------------------------------------------------------------------------

    def difference(self, a: Index, b: Index) -> int | None:
        """a - b where it does not depend on anything that varies."""
        if a.varies or b.varies or (a.base.text if a.base else "") != (b.base.text if b.base else ""):
            return None
        return a.k - b.k

    def known(self, x: Index) -> int:
        """The value of a constant index."""
        assert x.base is None and not x.varies, (
            "an unrolled loop's bounds and a register's indices are constants"
        )
        return x.k

    def static(self, e: Expr) -> int:
        """The value of an expression of constants and unrolled variables."""
        return self.known(self.of(e))

    def stepped(self, start: Index) -> Index:
        """The vector variable of a block that begins at ``start``."""
        return replace(start, step=1)

    def span_of_loop(self, start: Index, stop: Index) -> Span | None:
        """Bounds of a loop variable's values."""
        first, last = self.total_span(start), self.total_span(stop)
        return (first[0], max(last[1] - 1, first[0])) if first and last else None
