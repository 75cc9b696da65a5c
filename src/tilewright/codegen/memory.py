"""Loads and stores: which instruction fits an index.

Consecutive elements are one unaligned vector access (masked where lanes are missing), elements in reverse the same with a
shuffle, small steps are wide reads and shuffles, one element for all lanes is a scalar access, the rest gathers and scatters.
No address outside the accessed elements' range is ever read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tilewright.codegen.index import Index
from tilewright.codegen.instructions import of_type, type_name
from tilewright.codegen.scopes import Level, Val
from tilewright.core.dtype import DType
from tilewright.kernel.ir import Expr, Prefetch, Store

if TYPE_CHECKING:
    from tilewright.codegen.llvm import _Emitter

__all__ = ["Area", "Memory"]

_LINE = 64  # bytes of a cache line
_MAX_STRIDE = 4  # steps up to this are read as whole vectors and shuffled


@dataclass(frozen=True, slots=True)
class Area:
    """A buffer (``slot`` in the table of pointers) or a scratch area (``offset`` in bytes)."""

    name: str
    dtype: DType
    pointer: str
    slot: int
    offset: int
    stream: bool = False


def _memory_type(dtype: DType, lanes: int) -> str:
    return of_type("i8", lanes) if dtype.is_bool else type_name(dtype, lanes)


def _steps(x: Index) -> int:
    """The distance between neighbouring lanes' elements; 0 when it differs or is not known."""
    return x.step if x.off is None and x.wide is None else 0


def _lower(lanes: int, width: int) -> list[int]:
    """The rows of a square that meet those ``width`` below them in a step of its transposition."""
    return [i for i in range(lanes) if i // width % 2 == 0]


class Memory:
    """Memory accesses of one emitter."""

    def __init__(self, emitter: _Emitter, areas: list[Area]) -> None:
        self.emitter, self.fn = emitter, emitter.fn
        self.areas = {a.name: a for a in areas}
        self.streamed = False  # some store goes past the caches
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
        for a in self.areas.values():
            if a.stream:
                lines += self._streamable(a)
        return lines

    def exit(self) -> list[str]:
        """Instructions before the return: stores past the caches are seen by other threads before what follows them."""
        if not self.streamed:
            return []
        self.fn.declarations["llvm.x86.sse.sfence"] = "declare void @llvm.x86.sse.sfence()"
        return ["  call void @llvm.x86.sse.sfence()"]

    def _streamable(self, area: Area) -> list[str]:
        """The bits of an address that must be zero for a store past the caches: all, so that none is, where the result lies over
        an operand, whose lines the caches hold already."""
        others = [a for a in self.areas.values() if a.slot >= 0 and not a.stream and a.dtype == area.dtype]
        lines, same = [], "false"
        for n, other in enumerate(others):
            lines.append(f"  {area.pointer}.is{n} = icmp eq ptr {area.pointer}, {other.pointer}")
            lines.append(f"  {area.pointer}.any{n} = or i1 {same}, {area.pointer}.is{n}")
            same = f"{area.pointer}.any{n}"
        return [
            *lines,
            f"  {area.pointer}.bits = select i1 {same}, i64 -1, i64 {self.fn.machine.vector_bytes - 1}",
        ]

    def metadata(self) -> list[str]:
        """Branch weights, the mark of stores past the caches, and alias scopes."""
        lines = ['!0 = !{!"branch_weights", i32 1048575, i32 1}', "!1 = !{}", "!2 = !{i32 1}"]
        if self.scoped:
            count = len(self.scoped)
            lines.append('!3 = distinct !{!3, !"scratch"}')
            for i in range(count):
                others = ", ".join(f"!{4 + j}" for j in range(count) if j != i)
                lines += [
                    f"!{4 + i} = distinct !{{!{4 + i}, !3}}",
                    f"!{4 + count + 2 * i} = !{{!{4 + i}}}",
                    f"!{5 + count + 2 * i} = !{{{others}}}",
                ]
        return lines

    def tail(self, area: Area) -> str:
        """Alias metadata of an access."""
        number = self.scoped.get(area.name)
        if number is None:
            return ""
        first = 4 + len(self.scoped) + 2 * number
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
        if len(e.args) == 1:
            return self._load_lanes(area, x, None) if x.varies else self._load_one(area, x)
        mask, other = self.emitter.value(e.args[1]), self.emitter.value(e.args[2])
        if not x.varies:
            return self._load_one_masked(area, x, mask, other)
        if not mask.lanes and not self._masks_well(area, x):
            return self._load_guarded(area, x, mask, other)
        value = self._load_lanes(area, x, mask)
        if other.text in ("0", "false", "0x0000000000000000"):
            return value
        lanes, scalar = self.emitter.lanes, type_name(area.dtype)
        out, t = self.fn.at(value, mask, other), type_name(area.dtype, lanes)
        condition, rest = self.fn.splat(mask, "i1", lanes), self.fn.splat(other, scalar, lanes)
        text = out.write(f"select {of_type('i1', lanes)} {condition}, {t} {value.text}, {t} {rest}")
        return Val(text, lanes, out.number)

    def _level(self, area: Area, *values: Val | None) -> Level:
        """Where a load may go: memory must hold what it holds now, and the load must be wanted."""
        level = max(self.fn.scope.load_floor, self.emitter.level_of("buf:" + area.name))
        return self.fn.level(max(level, *(v.level for v in values if v is not None)))

    def _masks_well(self, area: Area, x: Index) -> bool:
        """Whether a masked access of these elements is about as fast as a plain one."""
        machine = self.fn.machine
        plain = abs(_steps(x)) == 1
        return plain and (machine.has_masks or (machine.vector_bytes >= 32 and area.dtype.itemsize >= 4))

    def _load_lanes(self, area: Area, x: Index, mask: Val | None) -> Val:
        """One element for each lane; zero where ``mask`` is false or the lane is missing."""
        lanes, steps = self.emitter.lanes, _steps(x)
        active = self._active(mask)
        wide_masks = self.fn.machine.has_masks and area.dtype.itemsize >= 4
        if 1 < abs(steps) <= _MAX_STRIDE and (active is None or wide_masks):
            return self._load_strided(area, x, active)
        near = self._near(x) if mask is None else None
        if near is not None:
            return self._load_near(area, x, near)
        t, size = _memory_type(area.dtype, lanes), area.dtype.itemsize
        if abs(steps) != 1:
            pointers = self._pointers(area, x)
            out = self._level(area, pointers, active)
            lanes_mask = active.text if active else "splat (i1 true)"
            raw = self._masked(out, area, "gather", t, of_type("ptr", lanes), pointers.text, lanes_mask)
            return Val(self._into_register(out, area.dtype, lanes, raw), lanes, out.number)
        pointer = self.pointer(area, replace(x, k=x.k - (lanes - 1 if steps < 0 else 0)))
        if mask is not None and not mask.lanes:
            pointer = self._if_wanted(mask, pointer)
        out = self._level(area, pointer, active)
        if active is None:
            raw = out.read(f"load {t}, ptr {pointer.text}, align {size}{self.tail(area)}")
        else:
            lanes_mask = self._reverse(out, "i1", active.text) if steps < 0 else active.text
            raw = self._masked(out, area, "load", t, "ptr", pointer.text, lanes_mask)
        if steps < 0:
            raw = self._reverse(out, _memory_type(area.dtype, 0), raw)
        return Val(self._into_register(out, area.dtype, lanes, raw), lanes, out.number)

    def _load_guarded(self, area: Area, x: Index, mask: Val, other: Val) -> Val:
        """All lanes or none, behind a branch: cheaper than masks where those are taken apart."""
        fn, lanes = self.fn, self.emitter.lanes
        t = type_name(area.dtype, lanes)
        rest = fn.splat(other, type_name(area.dtype), lanes)
        label, done = fn.fresh("wanted"), fn.fresh("done")
        inner = fn.open(label, branch=True)
        value = self._load_lanes(area, x, None)
        lines, scope = self.emitter.close(), fn.scope
        out = fn.here()
        out.do(f"br i1 {mask.text}, label %{label}, label %{done}")
        scope.lines += [f"{label}:", *lines, f"  br label %{done}", f"{done}:"]
        text = out.read(f"phi {t} [ {value.text}, %{inner.label} ], [ {rest}, %{scope.label} ]")
        scope.label = done
        return Val(text, lanes, out.number)

    def _masked(
        self, out: Level, area: Area, kind: str, t: str, pointer_type: str, pointer: str, mask: str
    ) -> str:
        """A masked load or gather; missing lanes are zero."""
        aligned = f"{pointer_type} align {area.dtype.itemsize}"
        args = ((aligned, pointer), (of_type("i1", self.emitter.lanes), mask), (t, "zeroinitializer"))
        return out.call_memory(t, f"llvm.masked.{kind}", (t, pointer_type), args, self.tail(area))

    def _load_one(self, area: Area, x: Index) -> Val:
        """One element for all lanes."""
        pointer, t = self.pointer(area, x), _memory_type(area.dtype, 0)
        out = self._level(area, pointer)
        raw = out.read(f"load {t}, ptr {pointer.text}, align {area.dtype.itemsize}{self.tail(area)}")
        return Val(self._into_register(out, area.dtype, 0, raw), 0, out.number)

    def _load_one_masked(self, area: Area, x: Index, mask: Val, other: Val) -> Val:
        """One element for all lanes, read where any lane wants it."""
        pointer, t, size = self.pointer(area, x), _memory_type(area.dtype, 0), area.dtype.itemsize
        active = self._active(mask) if mask.lanes else mask
        assert active is not None
        out = self._level(area, pointer, active, mask, other)
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

    def _if_wanted(self, mask: Val, pointer: Val) -> Val:
        """The address where all lanes are wanted, one in mapped memory where none is: without a lane, too, an access to a page
        that is not there takes hundreds of cycles."""
        out = self.fn.at(mask, pointer)
        text = out.write(f"select i1 {mask.text}, ptr {pointer.text}, ptr {self._nowhere()}")
        return Val(text, 0, out.number)

    def _nowhere(self) -> str:
        line = "  %nowhere = alloca i64"
        if line not in self.fn.entry:
            self.fn.entry += [line, "  store i64 0, ptr %nowhere"]
        return "%nowhere"

    def _load_strided(self, area: Area, x: Index, active: Val | None) -> Val:
        """Every second to fourth element: whole vectors that end where the last element lies, then shuffles.

        In scratch they start at a multiple of the step, and so serve the elements between as well: equal reads are shared, and
        read what was written as a vector before in one piece. ``scratch_bytes`` leaves room for what lies behind the last one.
        """
        lanes, stride = self.emitter.lanes, abs(x.step)
        whole = area.slot < 0 and active is None and x.step > 0
        shift = x.k % stride if whole else 0
        x = replace(x, k=x.k - shift)
        reach = stride * (lanes - 1) + 1  # elements from the first to the last
        first = replace(x, k=x.k - (reach - 1 if x.step < 0 else 0), step=0)
        t, size = _memory_type(area.dtype, lanes), area.dtype.itemsize
        lane_at = [lanes - 1 - i if x.step < 0 else i for i in range(lanes)]  # by position in memory
        out = self._level(area, self.pointer(area, first), active)
        result, filled, part = "poison", 0, 0
        while filled < lanes:
            offset = part * lanes if whole else min(part * lanes, reach - lanes)
            pointer = self.pointer(area, replace(first, k=first.k + offset)).text
            if active is None:
                raw = out.read(f"load {t}, ptr {pointer}, align {size}{self.tail(area)}")
            else:
                places = [divmod(offset + i, stride) for i in range(lanes)]
                picks = [lanes if rest else lane_at[at] for at, rest in places]
                wanted = self._shuffle(out, "i1", active.text, "zeroinitializer", picks)
                raw = self._masked(out, area, "load", t, "ptr", pointer, wanted)
            last = next((i for i in range(filled, lanes) if stride * i + shift >= offset + lanes), lanes)
            picks = [
                i if i < filled else stride * i + shift - offset + lanes if i < last else -1
                for i in range(lanes)
            ]
            filled, part = last, part + 1
            if filled == lanes:
                picks = [picks[i] for i in lane_at]
            result = self._shuffle(out, _memory_type(area.dtype, 0), result, raw, picks)
        return Val(self._into_register(out, area.dtype, lanes, result), lanes, out.number)

    def _near(self, x: Index) -> list[int] | None:
        """Where the active lanes' elements lie from base + k on, when that is known, irregular and close together."""
        vector, places = self.emitter.vector, self.emitter.indices.lane_values(x)
        if vector is None or places is None or x.off is None or (vector.mask and vector.active is None):
            return None
        used = list(places[: vector.active])
        return used if max(used) - min(used) < _MAX_STRIDE * self.emitter.lanes else None

    def _load_near(self, area: Area, x: Index, places: list[int]) -> Val:
        """Elements at known places close together: the vectors that hold them, then shuffles. Missing lanes are zero."""
        lanes, low = self.emitter.lanes, min(places)
        reach = max(places) - low + 1
        unit = min(lanes, 1 << (reach.bit_length() - 1))
        first = replace(x, k=x.k + low, step=0, off=None, pattern=None, low=0, high=0)
        t, size, scalar = _memory_type(area.dtype, unit), area.dtype.itemsize, _memory_type(area.dtype, 0)
        out = self._level(area, self.pointer(area, first))
        result = "zeroinitializer"
        for part in range(-(-reach // unit)):
            start = min(part * unit, reach - unit)
            pointer = self.pointer(area, replace(first, k=first.k + start)).text
            raw = out.read(f"load {t}, ptr {pointer}, align {size}{self.tail(area)}")
            if unit != lanes:
                wide = ", ".join(f"i32 {i}" if i < unit else "i32 poison" for i in range(lanes))
                raw = out.write(f"shufflevector {t} {raw}, {t} poison, <{lanes} x i32> <{wide}>")
            picks = list(range(lanes))
            for i, place in enumerate(places):
                if min(part * unit, reach) <= place - low < min((part + 1) * unit, reach):
                    picks[i] = lanes + place - low - start
            result = self._shuffle(out, scalar, result, raw, picks)
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

    def prefetch(self, s: Prefetch) -> None:
        """Emit a ``Prefetch`` statement: a read (0), wanted again in the first cache (3) or beyond it (2), of data (1)."""
        area, x = self.areas[s.buffer], self.emitter.indices.of(s.index)
        if x.varies and _steps(x) != 1:
            return  # as many requests as elements
        self.fn.declarations["llvm.prefetch.p0"] = "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)"
        size, lanes = area.dtype.itemsize, self.emitter.lanes if x.varies else 1
        for first in range(0, lanes, max(1, _LINE // size)):
            pointer = self.pointer(area, replace(x, k=x.k + first, step=0)).text
            self.fn.here().do(f"call void @llvm.prefetch.p0(ptr {pointer}, i32 0, i32 {4 - s.cache}, i32 1)")

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
        steps = _steps(x)
        out = self.fn.here()
        text = self.fn.splat(value, type_name(area.dtype), lanes)
        raw = self._into_memory(out, area.dtype, lanes, text)
        t, size = _memory_type(area.dtype, lanes), area.dtype.itemsize
        if active is not None and active.text.startswith("<i1 true") and active.text.count("true") == 1:
            # LLVM 22 for x86 makes of a masked store of truncated elements, under a constant mask of one lane, a plain
            # store of the element before truncation, which overwrites the neighbours: store the one element as such.
            pointer = self.pointer(area, x).text
            raw = out.write(f"extractelement {t} {raw}, i32 0")
            out.do(f"store {_memory_type(area.dtype, 0)} {raw}, ptr {pointer}, align {size}{self.tail(area)}")
            return
        if abs(steps) == 1:
            lanes_mask = active.text if active else ""
            if steps == -1:
                raw = self._reverse(out, _memory_type(area.dtype, 0), raw)
                lanes_mask = self._reverse(out, "i1", lanes_mask) if lanes_mask else ""
            pointer = self.pointer(area, replace(x, k=x.k + (1 - lanes if steps == -1 else 0))).text
            if not lanes_mask:
                line = f"store {t} {raw}, ptr {pointer}, align {size}{self.tail(area)}"
                if area.stream and lanes * size % self.fn.machine.vector_bytes == 0:
                    self._store_past(area, f"store {t} {raw}, ptr {pointer}", pointer, line)
                else:
                    out.do(line)
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

    def _store_past(self, area: Area, store: str, pointer: str, plain: str) -> None:
        """Store whole vectors past the caches where they are aligned, which the instruction demands, else plainly."""
        self.streamed = True
        out, scope = self.fn.here(), self.fn.scope
        low = out.write(f"and i64 {out.write(f'ptrtoint ptr {pointer} to i64')}, {area.pointer}.bits")
        aligned = out.write(f"icmp eq i64 {low}, 0")
        past, cached, done = self.fn.fresh("past"), self.fn.fresh("cached"), self.fn.fresh("done")
        scope.lines += [
            f"  br i1 {aligned}, label %{past}, label %{cached}",
            f"{past}:",
            f"  {store}, align {self.fn.machine.vector_bytes}, !nontemporal !2",
            f"  br label %{done}",
            f"{cached}:",
            f"  {plain}",
            f"  br label %{done}",
            f"{done}:",
        ]
        scope.label = done

    def fits(self, s: Store, lanes: int) -> bool:
        """Whether a square of what is stored is one of vector registers."""
        size = self.areas[s.buffer].dtype.itemsize
        return size >= 4 and lanes * size == self.fn.machine.vector_bytes

    def follows(self, first: Index, x: Index, count: int, rows: int) -> bool:
        """Whether an index lies, in every lane, ``count`` elements behind another one whose lanes are at least ``rows`` apart."""
        return abs(_steps(x)) >= rows and replace(x, k=x.k - count) == first

    def store_transposed(self, buffer: str, x: Index, rows: Sequence[Val], active: int) -> None:
        """Store vectors whose lanes lie far apart and that are neighbours in each lane: the first at ``x``. Only the first
        ``active`` lanes are stored."""
        area, lanes, out = self.areas[buffer], self.emitter.lanes, self.fn.here()
        size, scalar = area.dtype.itemsize, _memory_type(area.dtype, 0)
        square = [
            self._into_memory(out, area.dtype, lanes, self.fn.splat(v, type_name(area.dtype), lanes))
            for v in rows
        ]
        square += ["poison"] * (lanes - len(rows))
        columns = self._transposed(out, scalar, size, square)
        width = len(rows)
        full, t = of_type(scalar, lanes), of_type(scalar, width)
        picks = ", ".join(f"i32 {i}" for i in range(width))
        mask = ", ".join(f"i1 {'true' if i < width else 'false'}" for i in range(lanes))
        masked = self.fn.machine.has_masks and width & (width - 1) != 0
        for lane, column in enumerate(columns[:active]):
            pointer = self.pointer(area, replace(x, k=x.k + lane * x.step, step=0)).text
            if masked:
                args = ((full, column), (f"ptr align {size}", pointer), (of_type("i1", lanes), f"<{mask}>"))
                out.call_memory("void", "llvm.masked.store", (full, "ptr"), args, self.tail(area))
                continue
            if width < lanes:
                column = out.write(f"shufflevector {full} {column}, {full} poison, <{width} x i32> <{picks}>")
            out.do(f"store {t} {column}, ptr {pointer}, align {size}{self.tail(area)}")

    def _transposed(self, out: Level, scalar: str, size: int, rows: list[str]) -> list[str]:
        """The columns of a square of vectors, in steps that are one instruction for each vector and need no constants: rows are
        interleaved within 16 bytes, in pieces of one element, of two and so on; then whole parts of 16 bytes change places."""
        lanes = len(rows)
        part = min(16 // size, lanes)  # elements of 16 bytes
        width = 1  # of a piece
        while width < part:
            low = [
                first + piece + row + i
                for first in range(0, lanes, part)
                for piece in range(0, part // 2, width)
                for row in (0, lanes)
                for i in range(width)
            ]
            both = low, [i + part // 2 for i in low]
            taken = list(rows)
            for i in _lower(lanes, width):
                j = i // (2 * width) * 2 * width + i % width * 2
                for k, picks in enumerate(both):
                    taken[j + k] = self._shuffle(out, scalar, rows[i], rows[i + width], picks)
            rows, width = taken, 2 * width
        while width < lanes:
            even = [i for i in range(lanes) if i // part % 2 == 0]
            even += [i + lanes for i in even]
            taken = list(rows)
            for i in _lower(lanes, width):
                taken[i] = self._shuffle(out, scalar, rows[i], rows[i + width], even)
                odd = [pick + part for pick in even]
                taken[i + width] = self._shuffle(out, scalar, rows[i], rows[i + width], odd)
            rows, width = taken, 2 * width
        return rows

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

    def _shuffle(self, out: Level, scalar: str, a: str, b: str, picks: list[int]) -> str:
        """Lanes of ``a`` and, counted on, of ``b``; -1 for lanes that do not matter."""
        t = of_type(scalar, self.emitter.lanes)
        chosen = ", ".join("i32 poison" if p < 0 else f"i32 {p}" for p in picks)
        return out.write(f"shufflevector {t} {a}, {t} {b}, <{len(picks)} x i32> <{chosen}>")

    def _reverse(self, out: Level, scalar: str, text: str) -> str:
        return self._shuffle(out, scalar, text, "poison", list(range(self.emitter.lanes))[::-1])

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
