"""Loads and stores: which instruction fits an index.

Consecutive elements are one unaligned vector access (masked where lanes are missing), elements in reverse the same with a
shuffle, small steps are wide reads and shuffles, one element for all lanes is a scalar access, the rest gathers and scatters.
No address outside the accessed elements' range is ever read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tilewright.codegen import instructions as ins
from tilewright.codegen.index import Index
from tilewright.codegen.instructions import of_type, type_name
from tilewright.codegen.scopes import Level, Val
from tilewright.core.dtype import DType
from tilewright.kernel.ir import Expr, Store

if TYPE_CHECKING:
    from tilewright.codegen.llvm import _Emitter

__all__ = ["Area", "Memory"]

_MAX_STRIDE = 4  # steps up to this are read as whole vectors and shuffled


@dataclass(frozen=True, slots=True)
class Area:
    """A buffer (``slot`` in the table of pointers) or a scratch area (``offset`` in bytes)."""

    name: str
    dtype: DType
    pointer: str
    slot: int
    offset: int


def _memory_type(dtype: DType, lanes: int) -> str:
    return of_type("i8", lanes) if dtype.is_bool else type_name(dtype, lanes)


class Memory:
    """Memory accesses of one emitter."""

    def __init__(self, emitter: _Emitter, areas: list[Area]) -> None:
        self.emitter, self.fn = emitter, emitter.fn
        self.areas = {a.name: a for a in areas}
        scratch = [a for a in areas if a.slot < 0]
        # Arguments may overlap each other (a result over an input), scratch areas nothing: `noalias` on the scratch pointer says
        # the latter of the arguments, these scopes say it among the areas.
        self.scoped = {a.name: i for i, a in enumerate(scratch)} if len(scratch) > 1 else {}

    def entry(self) -> list[str]:
        """Instructions that find the areas' addresses."""
        lines = []
        for a in self.areas.values():
            if a.slot >= 0:
                lines.append(f"  {a.pointer}.p = getelementptr i8, ptr %bufs, i64 {8 * a.slot}")
                lines.append(f"  {a.pointer} = load ptr, ptr {a.pointer}.p, align 8, !invariant.load !1")
            else:
                lines.append(f"  {a.pointer} = getelementptr i8, ptr %scratch, i64 {a.offset}")
        return lines

    def metadata(self) -> list[str]:
        """Branch weights and alias scopes."""
        lines = ['!0 = !{!"branch_weights", i32 1048575, i32 1}', "!1 = !{}"]
        if self.scoped:
            count = len(self.scoped)
            lines.append('!2 = distinct !{!2, !"scratch"}')
            for i in range(count):
                others = ", ".join(f"!{3 + j}" for j in range(count) if j != i)
                lines += [
                    f"!{3 + i} = distinct !{{!{3 + i}, !2}}",
                    f"!{3 + count + 2 * i} = !{{!{3 + i}}}",
                    f"!{4 + count + 2 * i} = !{{{others}}}",
                ]
        return lines

    def tail(self, area: Area) -> str:
        """Alias metadata of an access."""
        number = self.scoped.get(area.name)
        if number is None:
            return ""
        first = 3 + len(self.scoped) + 2 * number
        return f", !alias.scope !{first}, !noalias !{first + 1}"

    def pointer(self, area: Area, x: Index) -> Val:
        """The address of element base + k."""
        text, level = area.pointer, 0
        if x.base is not None:
            out = self.fn.at(x.base)
            text = out.write(f"getelementptr {_memory_type(area.dtype, 0)}, ptr {text}, i64 {x.base.text}")
            level = out.number
        if x.k:
            out = self.fn.level(max(level, self.fn.scope.floor))
            text = out.write(f"getelementptr i8, ptr {text}, i64 {x.k * area.dtype.itemsize}")
            level = out.number
        return Val(text, 0, level)

    # ---- loads ----------------------------------------------------------------------------------------------------

    def load(self, e: Expr) -> Val:
        """Emit a ``load`` expression."""
        area, x = self.areas[e.attr], self.emitter.indices.of(e.args[0])
        mask = self.emitter.value(e.args[1]) if len(e.args) > 1 else None
        other = self.emitter.value(e.args[2]) if len(e.args) > 1 else None
        level = max(self.fn.scope.load_floor, self.emitter.level_of("buf:" + area.name))
        if not x.varies:
            return self._load_one(area, x, mask, other, level)
        lanes = self.emitter.lanes
        active = self._active(mask)
        steps = x.step if x.off is None and x.wide is None else 0
        if active is None and 1 < abs(steps) <= _MAX_STRIDE:
            return self._load_strided(area, x, level)
        pointer = self.pointer(area, replace(x, k=x.k + (steps * (lanes - 1) if steps == -1 else 0)))
        out = self.fn.level(
            max(level, pointer.level, *(v.level for v in (active, other, x.off, x.wide) if v))
        )
        t = _memory_type(area.dtype, lanes)
        if abs(steps) == 1:
            if active is None:
                raw = out.read(f"load {t}, ptr {pointer.text}, align {area.dtype.itemsize}{self.tail(area)}")
            else:
                lanes_mask = self._reverse(out, "i1", active.text) if steps == -1 else active.text
                raw = self._masked(
                    out, area, "load", t, f"ptr align {area.dtype.itemsize}", pointer.text, lanes_mask
                )
            if steps == -1:
                raw = self._reverse(out, _memory_type(area.dtype, 0), raw)
        else:
            pointers = self._pointers(area, x)
            out = self.fn.level(max(out.number, pointers.level))
            lanes_mask = active.text if active else "splat (i1 true)"
            vector = of_type("ptr", lanes)
            raw = self._masked(
                out, area, "gather", t, f"{vector.replace('ptr', 'ptr')}", pointers.text, lanes_mask
            )
        text = self._into_register(out, area.dtype, lanes, raw)
        if other is not None and mask is not None and other.text not in ("0", "false", "0x0000000000000000"):
            scalar = type_name(area.dtype)
            condition = self.fn.splat(mask, "i1", lanes)
            value = self.fn.splat(other, scalar, lanes)
            out = self.fn.level(max(out.number, mask.level, other.level))
            text = out.write(
                f"select <{lanes} x i1> {condition}, {of_type(scalar, lanes)} {text}, {of_type(scalar, lanes)} {value}"
            )
        return Val(text, lanes, out.number)

    def _masked(
        self, out: Level, area: Area, kind: str, t: str, pointer_type: str, pointer: str, mask: str
    ) -> str:
        """A masked load or gather; missing lanes are zero."""
        lanes = self.emitter.lanes
        vector = of_type("ptr", lanes)
        overloads = (t, "ptr") if kind == "load" else (t, vector)
        if kind == "gather":
            pointer_type = f"{vector} align {area.dtype.itemsize}"
        args = ((pointer_type, pointer), (of_type("i1", lanes), mask), (t, "zeroinitializer"))
        return out.call_memory(t, f"llvm.masked.{kind}", overloads, args, self.tail(area))

    def _load_one(self, area: Area, x: Index, mask: Val | None, other: Val | None, level: int) -> Val:
        """One element for all lanes; under a mask, where any lane wants it."""
        pointer = self.pointer(area, x)
        t, size = _memory_type(area.dtype, 0), area.dtype.itemsize
        if mask is None or other is None:
            out = self.fn.level(max(level, pointer.level))
            raw = out.read(f"load {t}, ptr {pointer.text}, align {size}{self.tail(area)}")
            return Val(self._into_register(out, area.dtype, 0, raw), 0, out.number)
        active = self._active(mask) if mask.lanes else mask
        assert active is not None
        out = self.fn.level(max(level, pointer.level, active.level, mask.level, other.level))
        wanted = active.text
        if active.lanes:
            wanted = out.call("i1", "llvm.vector.reduce.or", (of_type("i1", active.lanes), active.text))
        # A stand-in address instead of a branch: the value read there is not used.
        address = out.write(f"select i1 {wanted}, ptr {pointer.text}, ptr {self._nowhere()}")
        raw = out.read(f"load {t}, ptr {address}, align {size}")
        value = Val(self._into_register(out, area.dtype, 0, raw), 0, out.number)
        lanes, scalar = max(mask.lanes, other.lanes), type_name(area.dtype)
        a, b = self.fn.splat(value, scalar, lanes), self.fn.splat(other, scalar, lanes)
        condition, full = self.fn.splat(mask, "i1", lanes), of_type(scalar, lanes)
        text = out.write(f"select {of_type('i1', lanes)} {condition}, {full} {a}, {full} {b}")
        return Val(text, lanes, out.number)

    def _nowhere(self) -> str:
        line = "  %nowhere = alloca i64"
        if line not in self.fn.entry:
            self.fn.entry += [line, "  store i64 0, ptr %nowhere"]
        return "%nowhere"

    def _load_strided(self, area: Area, x: Index, level: int) -> Val:
        """Every second to fourth element: whole vectors that end where the last element lies, then shuffles."""
        lanes, stride = self.emitter.lanes, abs(x.step)
        reach = stride * (lanes - 1) + 1  # elements from the first to the last
        first = replace(x, k=x.k - (reach - 1 if x.step < 0 else 0), step=0)
        t, size = _memory_type(area.dtype, lanes), area.dtype.itemsize
        result, filled = "", 0
        part = 0
        while filled < lanes:
            offset = min(part * lanes, reach - lanes)
            pointer = self.pointer(area, replace(first, k=first.k + offset))
            out = self.fn.level(max(level, pointer.level))
            raw = out.read(f"load {t}, ptr {pointer.text}, align {size}{self.tail(area)}")
            here = [lane for lane in range(filled, lanes) if stride * lane < offset + lanes]
            picks = [lane if lane < filled else -1 for lane in range(lanes)]
            for lane in here:
                picks[lane] = stride * lane - offset + lanes
            filled, part = here[-1] + 1, part + 1
            if x.step < 0 and filled == lanes:
                picks = picks[::-1]
            text = ", ".join("i32 poison" if p < 0 else f"i32 {p}" for p in picks)
            result = out.write(f"shufflevector {t} {result or 'poison'}, {t} {raw}, <{lanes} x i32> <{text}>")
        return Val(self._into_register(out, area.dtype, lanes, result), lanes, out.number)

    def _pointers(self, area: Area, x: Index) -> Val:
        """One address for each lane."""
        indices, lanes = self.emitter.indices, self.emitter.lanes
        pointer = self.pointer(area, replace(x, step=0, off=None, wide=None))
        if x.wide:
            steps, kind = x.wide, "i64"
        else:
            steps, kind = indices.offsets(x), "i32"
        out = self.fn.at(pointer, steps)
        t = _memory_type(area.dtype, 0)
        text = out.write(f"getelementptr {t}, ptr {pointer.text}, {of_type(kind, lanes)} {steps.text}")
        return Val(text, lanes, out.number)

    # ---- stores ---------------------------------------------------------------------------------------------------

    def store(self, s: Store) -> None:
        """Emit a ``Store`` statement."""
        area, x = self.areas[s.buffer], self.emitter.indices.of(s.index)
        value = self.emitter.value(s.value)
        mask = self.emitter.value(s.mask) if s.mask is not None else None
        if not x.varies and not value.lanes:
            self._store_one(area, x, value, self._active(mask) if mask and mask.lanes else mask)
            return
        lanes, active = self.emitter.lanes, self._active(mask)
        steps = x.step if x.off is None and x.wide is None else 0
        out = self.fn.here()
        text = self.fn.splat(value, type_name(area.dtype), lanes)
        raw = self._into_memory(out, area.dtype, lanes, text)
        t, size = _memory_type(area.dtype, lanes), area.dtype.itemsize
        if abs(steps) == 1:
            lanes_mask = active.text if active else ""
            if steps == -1:
                raw = self._reverse(out, _memory_type(area.dtype, 0), raw)
                lanes_mask = self._reverse(out, "i1", lanes_mask) if lanes_mask else ""
            pointer = self.pointer(area, replace(x, k=x.k + (1 - lanes if steps == -1 else 0))).text
            if not lanes_mask:
                out.do(f"store {t} {raw}, ptr {pointer}, align {size}{self.tail(area)}")
                return
            args = ((t, raw), (f"ptr align {size}", pointer), (of_type("i1", lanes), lanes_mask))
            out.call_memory("void", "llvm.masked.store", (t, "ptr"), args, self.tail(area))
            return
        vector = of_type("ptr", lanes)
        pointers = self._pointers(area, x) if x.varies else self.pointer(area, x)
        addresses = self.fn.splat(pointers, "ptr", lanes)
        lanes_mask = active.text if active else "splat (i1 true)"
        args = ((t, raw), (f"{vector} align {size}", addresses), (of_type("i1", lanes), lanes_mask))
        out.call_memory("void", "llvm.masked.scatter", (t, vector), args, self.tail(area))

    def _store_one(self, area: Area, x: Index, value: Val, mask: Val | None) -> None:
        pointer, out, scope = self.pointer(area, x), self.fn.here(), self.fn.scope
        raw = self._into_memory(out, area.dtype, 0, value.text)
        line = f"store {_memory_type(area.dtype, 0)} {raw}, ptr {pointer.text}, align {area.dtype.itemsize}{self.tail(area)}"
        if mask is None:
            out.do(line)
            return
        wanted = mask.text
        if mask.lanes:
            wanted = out.call("i1", "llvm.vector.reduce.or", (of_type("i1", mask.lanes), mask.text))
        then, done = self.fn.fresh("store"), self.fn.fresh("done")
        scope.lines += [
            f"  br i1 {wanted}, label %{then}, label %{done}",
            f"{then}:",
            "  " + line,
            f"  br label %{done}",
            f"{done}:",
        ]
        scope.label = done

    # ---- parts ----------------------------------------------------------------------------------------------------

    def _active(self, mask: Val | None) -> Val | None:
        """The lanes that are in the loop and wanted, as a vector; None when all are."""
        vector = self.emitter.vector
        inside = vector.mask if vector else None
        lanes = self.emitter.lanes
        if mask is None or not lanes:
            return inside
        wanted = Val(self.fn.splat(mask, "i1", lanes), lanes, max(mask.level, self.fn.scope.floor))
        if inside is None:
            return wanted
        out = self.fn.at(wanted, inside)
        return Val(out.write(f"and {of_type('i1', lanes)} {wanted.text}, {inside.text}"), lanes, out.number)

    def _reverse(self, out: Level, scalar: str, text: str) -> str:
        lanes = self.emitter.lanes
        vector, picks = of_type(scalar, lanes), ins.iota("i32", lanes, -1, lanes - 1)
        return out.write(f"shufflevector {vector} {text}, {vector} poison, <{lanes} x i32> {picks}")

    def _into_register(self, out: Level, dtype: DType, lanes: int, raw: str) -> str:
        if not dtype.is_bool:
            return raw
        return out.write(f"icmp ne {of_type('i8', lanes)} {raw}, {'zeroinitializer' if lanes else '0'}")

    def _into_memory(self, out: Level, dtype: DType, lanes: int, text: str) -> str:
        return (
            out.write(f"zext {of_type('i1', lanes)} {text} to {of_type('i8', lanes)}")
            if dtype.is_bool
            else text
        )
