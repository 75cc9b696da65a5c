"""Kernels as LLVM IR text with explicit vectors.

``emit`` gives a module that defines ``void @NAME(ptr %bufs, ptr %scratch, i64 %lo, i64 %hi, ptr %status)``: ``bufs`` is a table
of buffer pointers, ``scratch`` the thread's own memory of ``scratch_bytes`` bytes aligned to 64, ``status`` an int32 that
receives the code of a failed check. A vector loop becomes a loop over full blocks of lanes and one masked block for the rest.

What it does not do: it never chooses tile sizes, vectorises or reorders arithmetic, and no operation is contracted unless the
kernel says ``fma``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from tilewright.codegen import instructions as ins
from tilewright.codegen.index import INDEX_OPS, RECURSION, Index, Indices
from tilewright.codegen.instructions import Machine, of_type, type_name
from tilewright.codegen.memory import Area, Memory
from tilewright.codegen.scopes import Function, Val
from tilewright.codegen.survey import Survey
from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.kernel.ir import Check, Expr, If, Kernel, Let, Loop, Prefetch, Reg, Set, Stmt, Store
from tilewright.kernel.math import EXPANSIONS

__all__ = ["emit", "scratch_bytes"]

T = TypeVar("T")
Memo = dict[object, tuple[T, int]]  # by expression and what its names stand for: what was emitted, and when

_ALIGN = 64
_FEW_BLOCKS = 4  # of a vector loop over a single store: they are written out
_COMPARE = ("eq", "ne", "lt", "le", "gt", "ge")


def scratch_bytes(kernel: Kernel) -> int:
    """Bytes of scratch memory a thread needs to run ``kernel``: areas one after the other, aligned to 64 bytes, and some room
    behind the last, up to which whole vectors may be read."""
    areas = sum(-(-s.size * s.dtype.itemsize // _ALIGN) * _ALIGN for s in kernel.scratch)
    return areas + _ALIGN if areas else 0


def emit(kernel: Kernel, target: Machine) -> str:
    """LLVM IR text of ``kernel`` for ``target``.

    The kernel must satisfy ``kernel.verify``. ``target`` is a ``runtime.target.Target`` or anything with its fields.
    """
    return _Emitter(kernel, target).run()


@dataclass(slots=True)
class _Register:
    dtype: DType
    slots: list[str]
    shape: tuple[int, ...]
    lanes: int
    level: int


@dataclass(frozen=True, slots=True)
class _Lanes:
    """The vector loop being emitted: how many lanes, and which are active (None: all); the first ``active``, where known."""

    count: int
    mask: Val | None
    active: int | None = None


class _Emitter:
    def __init__(self, kernel: Kernel, target: Machine) -> None:
        self.kernel, self.target = kernel, target
        self.fn = Function(target)
        self.indices = Indices(self)
        self.memory = Memory(self, _areas(kernel, target))
        self.vector: _Lanes | None = None
        self.bound: dict[str, tuple[Index | Val, int]] = {}  # what a name stands for, and a number for that
        self.bindings: dict[object, int] = {}
        self.registers: dict[str, _Register] = {}
        self.values: Memo[Val] = {}
        self.forms: Memo[Index] = {}
        self.clock = 0
        self.changed: dict[str, int] = {}
        self.survey = Survey(kernel)
        self._expanded: dict[Expr, Expr] = {}

    def run(self) -> str:
        for name in ("lo", "hi"):
            self.bind(name, Index(Val("%" + name)))
        self.body(self.kernel.body)
        fn, scope = self.fn, self.fn.scopes[0]
        width = self.target.vector_bytes * 8
        parts = [
            f"define void @{self.kernel.name}(ptr noalias readonly %bufs, ptr noalias align {_ALIGN} %scratch, "
            "i64 %lo, i64 %hi, ptr noalias %status) #0 {",
            "entry:",
            *fn.entry,
            *self.memory.entry(),
            "  br label %start",
            "start:",
            *scope.lines,
            *self.memory.exit(),
            "  ret void",
            "}",
            *fn.definitions.values(),
            *fn.declarations.values(),
            f'attributes #0 = {{ nounwind "prefer-vector-width"="{width}" "no-trapping-math"="true" "stackrealign" }}',
            *self.memory.metadata(),
        ]
        return "\n".join(parts) + "\n"

    # ---- what is known of expressions -----------------------------------------------------------------------------

    @property
    def lanes(self) -> int:
        """Lanes of the vector loop being emitted; 0 outside."""
        return self.vector.count if self.vector else 0

    def touch(self, name: str) -> None:
        """Values that depend on ``name`` must be computed anew from here on."""
        self.clock += 1
        self.changed[name] = self.clock

    def level_of(self, name: str) -> int:
        """The outermost open level at which ``name`` keeps its value until now."""
        for number in range(len(self.fn.scopes) - 1, -1, -1):
            if name in self.fn.scopes[number].writes:
                return number
        return 0

    def key(self, e: Expr) -> object:
        """Expressions are remembered for what their names stand for: unrolled copies share what they have in common."""
        names = self.survey.facts(e)[1]
        if not names:
            return e
        bound = self.bound
        if len(names) == 1:
            return (e, bound[names[0]][1])
        return (e, *[bound[name][1] for name in names])

    def recall(self, memo: Memo[T], e: Expr, key: object) -> T | None:
        """What ``remember`` kept of ``e`` under its ``key``, if it still holds."""
        entry = memo.get(key)
        if entry is not None:
            for name in self.survey.known[e][0]:
                if self.changed.get(name, 0) > entry[1]:
                    return None
            return entry[0]
        return None

    def remember(self, memo: Memo[T], key: object, result: T, level: int) -> None:
        """Keep what was emitted for an expression until the level it lies at ends."""
        memo[key] = (result, self.clock)
        self.fn.scopes[level].memo.append((memo, key))

    def close(self) -> list[str]:
        """End the innermost level and forget what it defined; returns its lines."""
        scope = self.fn.close()
        for memo, key in scope.memo:
            memo.pop(key, None)
        return scope.lines

    # ---- expressions ----------------------------------------------------------------------------------------------

    def value(self, e: Expr) -> Val:
        """The value of ``e``: a vector where it varies with the vector loop, otherwise a scalar."""
        key = self.key(e)
        found = self.recall(self.values, e, key)
        if found is None:
            if self.survey.known[e][2] > RECURSION:
                self.climb(e)
            found = self.compute(e)
            self.remember(self.values, key, found, found.level)
        return found

    def climb(self, e: Expr) -> None:
        """Emit parts of an expression that is higher than recursion may run, from its leaves up."""
        stack, seen = [e], {e}
        while stack:
            for a in stack.pop().args:
                if a not in seen and self.survey.facts(a)[2] > RECURSION // 2:
                    seen.add(a)
                    stack.append(a)
        height = self.survey.known
        for x in sorted(seen - {e}, key=lambda x: height[x][2]):
            key = self.key(x)
            if x.dtype is dt.int64 and x.op in INDEX_OPS:
                if self.recall(self.forms, x, key) is None:
                    self.indices.build(x, key)
            elif self.recall(self.values, x, key) is None:
                result = self.compute(x)
                self.remember(self.values, key, result, result.level)

    def compute(self, e: Expr) -> Val:
        """Emit ``e``."""
        if e.op == "const":
            return Val(ins.constant(e.attr, e.dtype))
        if e.dtype is dt.int64 and e.op in INDEX_OPS:
            return self.indices.whole(self.indices.of(e))
        if e.op == "var":
            bound = self.bound[e.attr][0]
            assert isinstance(bound, Val)
            return bound
        if e.op == "load":
            return self.memory.load(e)
        if e.op == "reg":
            return self.read_register(e)
        if e.op == "across":
            return self.across(e)
        if e.op in _COMPARE and e.args[0].dtype is dt.int64 and self.lanes:
            compared = self.indices.compare(e.op, e.args[0], e.args[1])
            if compared is not None:
                return compared
        if e.op == "cast" and e.args[0].dtype is dt.int64 and self.lanes:
            narrow = self.indices.cast(e.args[0], e.dtype)
            if narrow is not None:
                return narrow
        return self.operation(e)

    def operation(self, e: Expr) -> Val:
        """Emit an operation on the values of its operands."""
        if e.op in EXPANSIONS and e.dtype.is_float:
            for a in e.args:  # first, or the heights of expansions within expansions would add up
                self.value(a)
            return self.value(self.expanded(e))
        if e.op == "dotacc":
            return self.dot_accumulate(e)
        if e.op == "rarely":
            return self.rarely(e)
        values = [self.value(a) for a in e.args]
        lanes = max(v.lanes for v in values)
        out = self.fn.at(*values)
        texts = [self.fn.splat(v, type_name(a.dtype), lanes) for v, a in zip(values, e.args, strict=True)]
        if e.op == "cast":
            text = ins.convert(out, e.args[0].dtype, e.dtype, lanes, texts[0])
        elif e.op == "bitcast":
            text = ins.bits(out, e.args[0].dtype, e.dtype, lanes, texts[0])
        elif e.op == "fma":
            text = ins.fused(out, e.dtype, lanes, *texts)
        else:
            known = tuple(a.op == "const" and a.attr == a.attr for a in e.args)
            text = ins.lower(out, e.op, e.args[-1].dtype, lanes, *texts, known=known)
        return Val(text, lanes, out.number)

    def rarely(self, e: Expr) -> Val:
        """Emit a ``rarely``: what is wanted rarely stands behind a branch that is taken where any lane wants it."""
        fn, condition, usual = self.fn, self.value(e.args[0]), self.value(e.args[2])
        wanted, label, done = condition.text, fn.fresh("rare"), fn.fresh("done")
        if condition.lanes:
            bools = (of_type("i1", condition.lanes), condition.text)
            wanted = fn.at(condition).call("i1", "llvm.vector.reduce.or", bools)
        inner = fn.open(label, branch=True)
        rare = self.value(e.args[1])
        lanes = max(condition.lanes, usual.lanes, rare.lanes)
        t, scalar = type_name(e.dtype, lanes), type_name(e.dtype)
        texts = [fn.splat(v, scalar, lanes) for v in (rare, usual)]
        bools = (of_type("i1", lanes), fn.splat(condition, "i1", lanes))
        chosen = fn.here().write(f"select {' '.join(bools)}, {t} {texts[0]}, {t} {texts[1]}")
        lines, scope = self.close(), fn.scope
        kept = fn.splat(usual, scalar, lanes)
        never = fn.here().write(f"xor i1 {wanted}, true")
        scope.lines += [f"  br i1 {never}, label %{done}, label %{label}, !prof !0"]
        scope.lines += [f"{label}:", *lines, f"  br label %{done}", f"{done}:"]
        text = fn.here().read(f"phi {t} [ {chosen}, %{inner.label} ], [ {kept}, %{scope.label} ]")
        scope.label = done
        return Val(text, lanes, len(fn.scopes) - 1)

    def dot_accumulate(self, e: Expr) -> Val:
        """Emit a ``dotacc``. Bits that are flipped in a word for all lanes are flipped in the lanes: there the instruction reads
        and spreads its operand from memory, while a scalar would have to be moved to a vector register first."""
        total, *words = e.args
        flips = [w.op == "bitxor" and w.args[1].op == "const" for w in words]
        values = [self.value(total)]
        values += [self.value(w.args[0] if flip else w) for w, flip in zip(words, flips, strict=True)]
        lanes = max(v.lanes for v in values)
        out = self.fn.at(*values)
        texts = [self.fn.splat(v, type_name(a.dtype), lanes) for v, a in zip(values, e.args, strict=True)]
        for n, (w, flip) in enumerate(zip(words, flips, strict=True), 1):
            if flip:
                bits = ins.constant(w.args[1].attr, w.dtype, lanes)
                texts[n] = out.write(f"xor {type_name(w.dtype, lanes)} {texts[n]}, {bits}")
        return Val(ins.dot_accumulate(out, e.attr, lanes, *texts), lanes, out.number)

    def expanded(self, e: Expr) -> Expr:
        """A mathematical function in basic operations."""
        found = self._expanded.get(e)
        if found is None:
            found = self._expanded[e] = EXPANSIONS[e.op](*e.args)
        return found

    def slot(self, name: str, at: Sequence[Expr]) -> str:
        """The stack slot of a register tile's element."""
        register = self.registers[name]
        flat = 0
        for size, i in zip(register.shape, at, strict=True):
            flat = flat * size + self.indices.static(i)
        return register.slots[flat]

    def read_register(self, e: Expr) -> Val:
        register = self.registers[e.attr]
        level = max(register.level, self.level_of("reg:" + e.attr), self.fn.scope.floor)
        text = self.fn.level(level).read(
            f"load {type_name(e.dtype, register.lanes)}, ptr {self.slot(e.attr, e.args)}"
        )
        return Val(text, register.lanes, level)

    def across(self, e: Expr) -> Val:
        """Combine a register's lanes as a tree: the first half with the second half, an odd last one carried along. Whether
        an extremum is NaN is found beside the tree: a step takes one instruction, not the latency of three."""
        whole = self.read_register(e.args[0])
        out, lanes, dtype = self.fn.at(whole), whole.lanes, e.dtype
        scalar, text = type_name(dtype), whole.text

        def part(first: int, count: int) -> str:
            if count == 1:
                return out.write(f"extractelement {of_type(scalar, lanes)} {text}, i64 {first}")
            picks = ins.iota("i32", count, start=first)
            vector = of_type(scalar, lanes)
            return out.write(f"shufflevector {vector} {text}, {vector} poison, <{count} x i32> {picks}")

        extreme = e.attr in ("maximum", "minimum") and dtype.is_float and dtype.bits >= 32 and lanes % 2 == 0
        any_nan, numbers = "", (True, False) if extreme else ()
        if extreme:
            half = lanes // 2
            low, high = part(0, half), part(half, half)
            any_nan = out.write(f"fcmp uno {type_name(dtype, half if half > 1 else 0)} {low}, {high}")
            if half > 1:
                any_nan = out.call("i1", "llvm.vector.reduce.or", (of_type("i1", half), any_nan))
        if lanes == 1:
            text = part(0, 1)
        rest = []
        while lanes > 1:
            half = lanes // 2
            if lanes % 2:
                rest.append(part(lanes - 1, 1))
            low, high = part(0, half), part(half, half)
            text = ins.lower(out, e.attr, dtype, 0 if half == 1 else half, low, high, known=numbers)
            lanes = half
        for one in reversed(rest):
            text = ins.lower(out, e.attr, dtype, 0, text, one, known=numbers)
        if extreme:
            text = out.write(
                f"select i1 {any_nan}, {scalar} {ins.constant(float('nan'), dtype)}, {scalar} {text}"
            )
        return Val(text, 0, out.number)

    # ---- statements -----------------------------------------------------------------------------------------------

    def body(self, statements: Sequence[Stmt]) -> None:
        """Emit statements; names they bind are gone afterwards."""
        before, registers = dict(self.bound), dict(self.registers)
        for s in statements:
            _STATEMENTS[type(s)](self, s)
        self.bound, self.registers = before, registers

    def bind(self, name: str, what: Index | Val) -> None:
        """Let ``name`` stand for ``what`` in expressions from here on."""
        vector = self.vector
        key = (what, vector.count, vector.mask) if vector else (what, 0, None)
        self.bound[name] = what, self.bindings.setdefault(key, len(self.bindings))

    def let(self, s: Let) -> None:
        self.bind(s.name, self.indices.of(s.value) if s.value.dtype is dt.int64 else self.value(s.value))

    def declare(self, s: Reg) -> None:
        lanes = s.lanes or self.lanes
        t = type_name(s.dtype, lanes)
        count = 1
        for size in s.shape:
            count *= size
        init = self.fn.splat(self.value(s.init), type_name(s.dtype), lanes)
        slots = ["%" + self.fn.fresh("r") for _ in range(count)]
        out = self.fn.here()
        for slot in slots:
            self.fn.entry.append(f"  {slot} = alloca {t}")
            out.do(f"store {t} {init}, ptr {slot}")
        self.registers[s.name] = _Register(s.dtype, slots, s.shape, lanes, out.number)
        self.touch("reg:" + s.name)

    def set(self, s: Set) -> None:
        register = self.registers[s.name]
        value = self.fn.splat(self.value(s.value), type_name(register.dtype), register.lanes)
        slot, t, out = self.slot(s.name, s.at), type_name(register.dtype, register.lanes), self.fn.here()
        if self.vector and self.vector.mask and s.name not in self.survey.idle_lanes():
            old = out.read(f"load {t}, ptr {slot}")
            value = out.read(
                f"select <{register.lanes} x i1> {self.vector.mask.text}, {t} {value}, {t} {old}"
            )
        out.do(f"store {t} {value}, ptr {slot}")
        self.touch("reg:" + s.name)

    def store(self, s: Store) -> None:
        self.memory.store(s)
        self.touch("buf:" + s.buffer)

    def prefetch(self, s: Prefetch) -> None:
        self.memory.prefetch(s)

    def check(self, s: Check) -> None:
        condition, out = self.value(s.condition), self.fn.here()
        if condition.lanes:
            t = of_type("i1", condition.lanes)
            failed = out.write(f"xor {t} {condition.text}, splat (i1 true)")
            if self.vector and self.vector.mask:
                failed = out.write(f"and {t} {failed}, {self.vector.mask.text}")
            ok = out.write(f"xor i1 {out.call('i1', 'llvm.vector.reduce.or', (t, failed))}, true")
        else:
            ok = condition.text
        bad, then, scope = self.fn.fresh("bad"), self.fn.fresh("ok"), self.fn.scope
        scope.lines += [
            f"  br i1 {ok}, label %{then}, label %{bad}, !prof !0",
            f"{bad}:",
            f"  store i32 {s.code}, ptr %status, align 4",
            f"  br label %{then}",
            f"{then}:",
        ]
        scope.label = then

    def branch(self, s: If) -> None:
        condition = self.value(s.condition).text
        then, orelse, done = (self.fn.fresh(n) for n in ("then", "else", "done"))
        texts: list[str] = []
        for label, statements in ((then, s.then), (orelse, s.orelse)):
            if statements:
                self.fn.open(label, self.survey.mutated(statements), branch=True)
                self.body(statements)
                texts += [f"{label}:", *self.close(), f"  br label %{done}"]
        scope = self.fn.scope
        targets = [
            label if statements else done for label, statements in ((then, s.then), (orelse, s.orelse))
        ]
        scope.lines += [f"  br i1 {condition}, label %{targets[0]}, label %{targets[1]}", *texts, f"{done}:"]
        scope.label = done

    # ---- loops ----------------------------------------------------------------------------------------------------

    def loop(self, s: Loop) -> None:
        start, stop = self.indices.of(s.start), self.indices.of(s.stop)
        trips = self.indices.difference(stop, start)
        if trips is not None and trips <= 0:
            return
        if s.kind == "unroll":
            self.unroll(s, start, stop)
            return
        emit = self.vector_loop if s.kind == "vector" else self.serial_loop
        if trips is not None:
            emit(s, start, stop, trips)
            return
        first, last = self.indices.whole(start), self.indices.whole(stop)
        some = self.fn.at(first, last).write(f"icmp slt i64 {first.text}, {last.text}")
        label, done = self.fn.fresh("some"), self.fn.fresh("done")
        inner = self.fn.open(label, guard=True)
        emit(s, start, stop, None)
        lines, scope = self.close(), self.fn.scope
        del inner
        scope.lines += [
            f"  br i1 {some}, label %{label}, label %{done}",
            f"{label}:",
            *lines,
            f"  br label %{done}",
        ]
        scope.lines.append(f"{done}:")
        scope.label = done

    def unroll(self, s: Loop, start: Index, stop: Index) -> None:
        numbers = range(self.indices.known(start), self.indices.known(stop))
        if self.transposed(s, numbers):
            return
        for i in numbers:
            self.scoped(s, Index(None, i))

    def transposed(self, s: Loop, rows: range) -> bool:
        """Emit an unrolled loop whose rounds store vectors that are neighbours in every lane while lanes lie far apart: a square,
        which is transposed in registers and stored in lines. Returns False for any other loop, with no store emitted.
        """
        inner = s.body[0] if len(s.body) == 1 else None
        if not isinstance(inner, Loop) or inner.kind != "vector" or len(inner.body) != 1:
            return False
        store, lanes = inner.body[0], inner.lanes
        fixed = inner.start.op == inner.stop.op == "const"
        if not isinstance(store, Store) or store.mask is not None or not fixed:
            return False
        active = inner.stop.attr - inner.start.attr
        reads_it = "buf:" + store.buffer in self.survey.facts(store.value)[0]
        if reads_it or not (
            1 < len(rows) <= lanes and 1 < active <= lanes and self.memory.fits(store, lanes)
        ):
            return False
        if active < lanes and self.target.vector_bytes < 32:
            return False  # masks would be taken apart
        self.vector = _Lanes(lanes, None) if active == lanes else self.first_lanes(lanes, active)
        places: list[Index] = []
        values: list[Val] = []
        for row in rows:
            with (
                self.bound_to(s.var, Index(None, row)),
                self.bound_to(inner.var, Index(None, inner.start.attr, 1)),
            ):
                places.append(self.indices.of(store.index))
                if not self.memory.follows(places[0], places[-1], row - rows[0], len(rows)):
                    break
                values.append(self.value(store.value))
        square = len(values) == len(rows)
        if square:
            self.memory.store_transposed(store.buffer, places[0], values, active)
            self.touch("buf:" + store.buffer)
        self.vector = None
        return square

    def first_lanes(self, lanes: int, active: int) -> _Lanes:
        """The lanes of a vector loop's last block, which are fewer than a vector's."""
        bits = ", ".join(f"i1 {'true' if i < active else 'false'}" for i in range(lanes))
        return _Lanes(lanes, Val(f"<{bits}>", lanes), active)

    def serial_loop(self, s: Loop, start: Index, stop: Index, trips: int | None) -> None:
        if trips == 1:
            self.scoped(s, start)
            return
        span = self.indices.span_of_loop(start, stop)
        self.rolled(s, start, self.indices.whole(stop), 1, None, span)

    def scoped(self, s: Loop, at: Index) -> None:
        """The body once, with the variable bound."""
        with self.bound_to(s.var, at):
            self.body(s.body)

    @contextmanager
    def bound_to(self, name: str, at: Index) -> Iterator[None]:
        """A loop's variable stands for ``at`` inside."""
        before = self.bound.get(name)
        self.bind(name, at)
        yield
        if before is None:
            del self.bound[name]
        else:
            self.bound[name] = before

    def rolled(
        self, s: Loop, start: Index, stop: Val, step: int, enter: str | None, span: tuple[int, int] | None,
        after: str | None = None,
    ) -> None:  # fmt: skip
        """A loop whose test is at its end; with ``enter``, it is skipped (to block ``after``) unless that is true."""
        first = self.indices.whole(start)
        label, done = self.fn.fresh("loop"), after or self.fn.fresh("done")
        counter = "%" + self.fn.fresh(re.sub(r"\W", "_", s.var) + ".")
        changes = self.survey.mutated(s.body)
        for name in changes:
            self.touch(name)
        scope = self.fn.open(label, changes)
        level = len(self.fn.scopes) - 1
        vector = s.kind == "vector"
        align = math.gcd(step, start.k, start.multiple)
        self.scoped(s, Index(Val(counter, 0, level), step=1 if vector else 0, span=span, align=align))
        tail = scope.label
        lines, outer = self.close(), self.fn.scope
        enter_to = f"br i1 {enter}, label %{label}, label %{done}" if enter else f"br label %{label}"
        outer.lines += [
            f"  {enter_to}",
            f"{label}:",
            f"  {counter} = phi i64 [ {first.text}, %{outer.label} ], [ {counter}.next, %{tail} ]",
            *lines,
            f"  {counter}.next = add nuw nsw i64 {counter}, {step}",
            f"  {counter}.more = icmp slt i64 {counter}.next, {stop.text}",
            f"  br i1 {counter}.more, label %{label}, label %{done}",
            f"{done}:",
        ]
        outer.label = done

    def vector_loop(self, s: Loop, start: Index, stop: Index, trips: int | None) -> None:
        if trips is None:
            self.vector_loop_dynamic(s, start, stop)
            return
        lanes, (full, rest) = s.lanes, divmod(trips, s.lanes)
        end = self.indices.add(start, Index(None, full * lanes))
        self.vector = _Lanes(lanes, None)
        if full == 1 or (full <= _FEW_BLOCKS and len(s.body) == 1 and isinstance(s.body[0], Store)):
            # in each of a few blocks of a short copy, masks and addresses can be found before the loops around
            for block in range(full):
                self.scoped(s, self.indices.stepped(self.indices.add(start, Index(None, block * lanes))))
        elif full:
            self.rolled(s, start, self.indices.whole(end), lanes, None, self.indices.span_of_loop(start, end))
        if rest and self.single_steps(s):
            self.vector = _Lanes(1, None)
            last = self.indices.add(start, Index(None, trips))
            self.rolled(s, end, self.indices.whole(last), 1, None, self.indices.span_of_loop(end, last))
        elif rest:
            self.vector = self.first_lanes(lanes, rest)
            self.scoped(s, self.indices.stepped(end))
        self.vector = None

    def single_steps(self, s: Loop) -> bool:
        """Whether what is left of a vector loop runs one element at a time: where masks are taken apart into branches.

        That is so without masks of the instruction set (AVX2 has them for four and eight bytes). Registers with lanes
        need their lane's position, so their loops keep the masks.
        """
        if self.target.has_masks:
            return False
        names = self.survey.names(s.body)
        if any(n in names and r.lanes for n, r in self.registers.items()):
            return False
        areas = self.memory.areas
        return self.target.vector_bytes < 32 or any(n in areas and areas[n].dtype.itemsize < 4 for n in names)

    def vector_loop_dynamic(self, s: Loop, start: Index, stop: Index) -> None:
        lanes, ix = s.lanes, self.indices
        first, last = ix.whole(start), ix.whole(stop)
        out = self.fn.at(first, last)
        count = out.write(f"sub i64 {last.text}, {first.text}")
        if lanes & (lanes - 1):
            blocks = out.write(f"mul i64 {out.write(f'udiv i64 {count}, {lanes}')}, {lanes}")
        else:
            blocks = out.write(f"and i64 {count}, {-lanes}")
        end = Val(out.write(f"add i64 {first.text}, {blocks}"), 0, out.number)
        any_block = out.write(f"icmp ne i64 {blocks}, 0")
        any_rest = out.write(f"icmp ne i64 {blocks}, {count}")
        span = ix.span_of_loop(start, stop)
        self.vector = _Lanes(lanes, None)
        self.rolled(s, start, end, lanes, any_block, span)
        if self.single_steps(s):
            self.vector = _Lanes(1, None)
            self.rolled(s, Index(end), last, 1, any_rest, span)
            self.vector = None
            return
        label, done = self.fn.fresh("rest"), self.fn.fresh("done")
        for name in self.survey.mutated(s.body):
            self.touch(name)
        self.fn.open(label, self.survey.mutated(s.body), branch=True)
        out = self.fn.here()
        left = out.write(f"trunc i64 {out.write(f'sub i64 {last.text}, {end.text}')} to i32")
        vector = of_type("i32", lanes)
        spread = self.fn.splat(Val(left, 0, out.number), "i32", lanes)
        mask = out.write(f"icmp ult {vector} {ins.iota('i32', lanes)}, {spread}")
        self.vector = _Lanes(lanes, Val(mask, lanes, out.number))
        self.scoped(s, Index(end, step=1, span=span))
        self.vector = None
        lines, scope = self.close(), self.fn.scope
        scope.lines += [
            f"  br i1 {any_rest}, label %{label}, label %{done}",
            f"{label}:",
            *lines,
            f"  br label %{done}",
        ]
        scope.lines.append(f"{done}:")
        scope.label = done


_STATEMENTS: dict[type, Callable[..., None]] = {
    Loop: _Emitter.loop, Store: _Emitter.store, Let: _Emitter.let, Reg: _Emitter.declare, Set: _Emitter.set,
    Prefetch: _Emitter.prefetch, Check: _Emitter.check, If: _Emitter.branch,
}  # fmt: skip


def _areas(kernel: Kernel, target: Machine) -> list[Area]:
    areas = [
        Area(b.name, b.dtype, f"%b.{i}", i, -1, b.stream and target.streams)
        for i, b in enumerate(kernel.buffers)
    ]
    offset = 0
    for i, s in enumerate(kernel.scratch):
        areas.append(Area(s.name, s.dtype, f"%s.{i}", -1, offset))
        offset += -(-s.size * s.dtype.itemsize // _ALIGN) * _ALIGN
    return areas
