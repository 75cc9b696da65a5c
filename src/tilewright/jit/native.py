"""Calls of jitted functions without Python code: `Jitted.__call__` as a builtin made of JIT code.

A `Plan` describes calls of one kind as native tables: the types of the arguments, the captured tensors and attributes that
have to be as they were, the memory of the results, and the run. The builtin goes through the plan of the last call of this
kind. Whatever it finds different (another type, another mode, a setting, a run in progress) sends the call through
`Jitted._call`, which is Python and knows everything; nothing has been changed by then. So a plan only ever says "as last
time".

The order of its steps matters. What may run other code (attributes, allocation, which may collect garbage) comes first;
the rest, from the look at `assumptions` on, runs under the GIL without a gap, and so does the program unless it is `long`.
A long one takes the runtime's lock and runs without the GIL, as `Program.run` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from tilewright.compiler import Executable
from tilewright.core import assumptions
from tilewright.core.settings import settings
from tilewright.core.trees import unflatten
from tilewright.graph.ir import TensorType, Value, fresh_leaf, leaf_ids
from tilewright.jit.variant import ARGUMENT, CAPTURED, FIXED, OUTPUT, Variant
from tilewright.runtime import builtin, profiler
from tilewright.runtime.blocks import block_type, shelf, take_source
from tilewright.runtime.buffers import Buffer
from tilewright.runtime.builtin import TYPE, Code, Template
from tilewright.runtime.memory import Memory
from tilewright.runtime.statistics import WORDS, stats
from tilewright.runtime.team import state
from tilewright.tensor import Tensor
from tilewright.tensor.handle import from_leaf
from tilewright.tensor.modes import modes

__all__ = ["NO_PLAN", "Plan", "install", "plan"]

# A plan's table: words in this order.
_FIELDS = (
    "arguments", "slow", "version", "long", "acquire", "release", "entry", "part", "slots", "launches",
    "assumed", "counters", "none", "tensor_type", "block_type", "ids", "id_name", "tensor", "finish",
    "guards", "guard_count", "fresh", "fresh_count", "results", "result_count", "operands", "operand_count",
)  # fmt: skip
_AT = {name: 8 * number for number, name in enumerate(_FIELDS)}
_GUARD = 24  # bytes of a record: owner, name, value
_FRESH = 24  # shelf, slot, template of the buffer
_RESULT = 32  # number among the fresh, template of the value, pairs of its attributes
_OPERAND = 64  # kind, source, type, dtype, shape, required_grad, slot or 0: looked at only, version or 0: any
_FROM_ARGUMENT, _FROM_TENSOR, _CONSTANT, _NO_GRAD, _SOME_GRAD = range(5)  # kinds of operands


class Plan:
    """Native tables of a call, and what they refer to."""

    __slots__ = ("address", "deterministic", "executable", "keep", "lock", "memory")

    def __init__(
        self, fields: dict[str, int], keep: Any = None, executable: Executable | None = None
    ) -> None:
        self.memory: Memory = builtin.table([fields.get(name, 0) for name in _FIELDS])
        self.address = self.memory.address
        self.keep = keep
        self.executable = executable
        self.deterministic = settings.deterministic
        self.lock: tuple[Any, ...] = (None,)  # the runtime's, with its methods

    def _store(self, name: str, word: int) -> None:
        self.memory.words(_AT[name], 1)[0] = word

    def arm(self) -> None:
        """Take for granted what holds now, unless it does not allow a fast call. After a run in Python, which made the program
        ready."""
        now = assumptions.words[assumptions.VERSION]
        if self.executable is None or self.memory.words(_AT["version"], 1)[0] == now:
            return
        program = self.executable.program
        if not program.is_ready() or settings.debug or profiler.active():
            return
        if settings.deterministic is not self.deterministic:
            return
        if self.lock[0] is not state.lock:  # a forked child has one of its own
            self.lock = state.lock, state.lock.acquire, state.lock.release
        for name, word in (
            ("acquire", id(self.lock[1])),
            ("release", id(self.lock[2])),
            ("entry", program.entry),
            ("part", program.entered),
            ("launches", program.launch_count),
            ("version", now),  # last: calls of other threads may come in between
        ):
            self._store(name, word)


NO_PLAN = Plan({"arguments": -1})


def plan(variant: Variant, types: Sequence[TensorType], given: tuple[Any, ...]) -> Plan | None:
    """The plan of calls of a variant with tensors of these types as positional arguments, in these modes; None where there is
    none."""
    if not _slow or not _fits(variant):
        return None
    assert variant.program is not None and variant.program.executable is not None
    executable: Executable = variant.program.executable
    offsets = _offsets()
    keep: list[Any] = [variant, types, given]

    def rows(records: Sequence[Sequence[int]]) -> int:
        memory = builtin.table([word for record in records for word in record] or [0])
        keep.append(memory)
        return memory.address

    def kept(item: object) -> int:
        keep.append(item)
        return id(item)

    def like(prototype: object, without: str) -> int:
        template = Template(prototype, lambda cls, name: offsets[cls, name], without.split())
        keep.append(template)
        return template.address

    guards = [
        (modes, "grad", given[0]),
        (modes, "products", given[1]),
        (modes, "trace", None),
        *variant.guards,
    ]
    guard_rows = [(kept(owner), kept(name), kept(value)) for owner, name, value in guards]
    fresh_rows = []
    prepared = variant.settled_memory()
    keep.append(prepared)
    slots = 1 + len(executable.inputs) + len(prepared)
    for number, (size, total, dtype) in enumerate(executable.fresh):
        assert isinstance(total, int)
        prototype = Buffer(None, 0, total, dtype, owned=True)
        fresh_rows.append((shelf(size), slots + number, like(prototype, "_owner address")))
    result_rows = []
    for _, position in variant.results:
        type = variant.types[position]
        leaf = fresh_leaf(type)
        number = executable.results[~variant.program.results[position]][1]
        pairs = [kept(pair) for pair in leaf.attrs[1:]]
        result_rows.append((number, like(leaf, "buffer attrs"), *pairs))
    operand_rows = _operands(variant, types, kept)
    single = variant.structure.kind == "leaf"
    structure = variant.structure
    return Plan(
        {
            "arguments": len(types),
            "slow": id(_slow[0]),
            "long": not executable.brief,
            "slots": executable.program.slots_address,
            "assumed": assumptions.address(),
            "counters": stats.address(),
            "none": id(None),
            "tensor_type": id(Tensor),
            "block_type": id(block_type()),
            "ids": id(leaf_ids),
            "id_name": kept("id"),
            "tensor": like(from_leaf(fresh_leaf(variant.types[0])), "_value"),
            "finish": 0 if single else kept(lambda leaves: unflatten(structure, leaves)),
            "guards": rows(guard_rows),
            "guard_count": len(guard_rows),
            "fresh": rows(fresh_rows),
            "fresh_count": len(fresh_rows),
            "results": rows(result_rows),
            "result_count": len(result_rows),
            "operands": rows(operand_rows),
            "operand_count": len(operand_rows),
        },
        keep,
        executable,
    )


def _fits(variant: Variant) -> bool:
    """Whether a variant only computes tensors from tensors: it writes nothing, and its results are all new."""
    program = variant.program
    executable = program.executable if program is not None else None
    if executable is not None and executable.preparation is not None and not variant.settled_memory():
        return False  # weights that others may write at any time
    return (
        not (variant.inline or variant.recorded or variant.written or variant.keep or variant.symbolic)
        and not (variant.grads or variant.gradient_types)
        and program is not None
        and program.executable is not None
        and not program.executable.sizes
        and bool(variant.results)
        and all(kind in (ARGUMENT, CAPTURED, FIXED) for kind, _, _, _ in variant.binds)
        and all(kind == OUTPUT and program.results[position] < 0 for kind, position in variant.results)
        and all(not program.executable.results[~program.results[p]][0] for _, p in variant.results)
    )


def _operands(variant: Variant, types: Sequence[TensorType], kept: Any) -> list[tuple[int, ...]]:
    """What a call looks at: its arguments, the captured tensors, the constants."""
    bound: dict[tuple[int, int], list[int]] = {}
    rows: list[tuple[int, ...]] = []
    for slot, (kind, source, _, _) in enumerate(variant.binds, 1):
        if kind == FIXED:
            kept(source)
            rows.append((_CONSTANT, source.address, 0, 0, 0, 0, slot, 0))
        else:
            bound.setdefault((kind, source if kind == ARGUMENT else id(source)), []).append(slot)

    versions = {1 + i: kept(version) for i, version in variant.settled_versions()}
    for slot, buffer in enumerate(variant.settled_memory(), 1 + len(variant.binds)):
        rows.append((_CONSTANT, buffer.address, 0, 0, 0, 0, slot, 0))

    def tensor(kind: int, source: int, key: tuple[int, int], type: TensorType, required: bool) -> None:
        for slot in bound.pop(key, [0]):
            row = kept(type), kept(type.dtype), kept(type.shape), id(required)
            rows.append((kind, source, *row, slot, versions.get(slot, 0)))

    for position, type in enumerate(types):
        tensor(_FROM_ARGUMENT, position, (ARGUMENT, position), type, False)
    for captured, type, required in variant.captured_types:
        tensor(_FROM_TENSOR, kept(captured), (CAPTURED, id(captured)), type, required)
    for watched, absent in variant.grad_guards:
        rows.append((_NO_GRAD if absent else _SOME_GRAD, kept(watched), 0, 0, 0, 0, 0, 0))
    assert not bound
    return rows


# ---- the builtin ------------------------------------------------------------------------------------------------

_slow: list[Any] = []
_SLOTS = {
    Plan: ("address",),
    Tensor: Tensor.__slots__,
    Value: Value.__slots__,
    TensorType: TensorType.__slots__,
    Buffer: Buffer.__slots__,
    Memory: ("address",),
}


@lru_cache(maxsize=1)
def _offsets() -> dict[tuple[type, str], int]:
    """Where the objects that a call touches keep their slots; incomplete where that cannot be seen."""
    found = {}
    for cls, names in _SLOTS.items():
        for name in names:
            offset = None if name.startswith("__") else builtin.slot_offset(cls, name)
            if offset is not None:
                found[cls, name] = offset
    return found


def install(jitted: type) -> None:
    """Let calls of `jitted` objects go through the plan in their slot `_plan`, where the interpreter allows it. Its method
    `_call` is the way through Python."""
    if _slow or not builtin.available() or block_type() is None:
        return
    offsets = dict(_offsets())
    wanted = sum(not name.startswith("__") for names in _SLOTS.values() for name in names)
    home = builtin.slot_offset(jitted, "_plan")
    if home is None or len(offsets) != wanted:
        return
    functions = [
        Template.source(),
        take_source(),
        _new_tensor(offsets),
        _same_type(offsets),
        _call(offsets, home),
    ]
    address = builtin.compiled("tilewright_call", functions)
    if address is None:
        return
    slow = jitted._call  # type: ignore[attr-defined]
    builtin.keep_for_ever(slow)
    NO_PLAN._store("slow", id(slow))
    _slow.append(slow)
    call = builtin.method(jitted, "__call__", address, jitted.__call__.__doc__)
    jitted.__call__ = call  # type: ignore[method-assign]


def _new_tensor(offsets: dict[tuple[type, str], int]) -> str:
    """`new_tensor(table, result, buffer)`: a tensor over a fresh leaf; null with an exception."""
    c = Code("internal ptr @new_tensor(ptr %table, ptr %result, ptr %buffer)")
    leaf = c.call("@like", c.load("%result", 8))
    c.unless("ne", leaf, "null", "none")
    c.call("@Py_IncRef", "%buffer", type="void")
    c.store("%buffer", leaf, offsets[Value, "buffer"])
    number = c.call("@PyIter_Next", c.load("%table", _AT["ids"]))
    c.unless("ne", number, "null", "no.number")
    name = c.load("%table", _AT["id_name"])
    pair = c.value(f"call ptr (i64, ...) @PyTuple_Pack(i64 2, ptr {name}, ptr {number})")
    c.call("@Py_DecRef", number, type="void")
    c.unless("ne", pair, "null", "no.number")
    rest = ", ".join(f"ptr {c.load('%result', at)}" for at in (16, 24))
    attrs = c.value(f"call ptr (i64, ...) @PyTuple_Pack(i64 3, ptr {pair}, {rest})")
    c.call("@Py_DecRef", pair, type="void")
    c.unless("ne", attrs, "null", "no.number")
    c.store(attrs, leaf, offsets[Value, "attrs"])
    tensor = c.call("@like", c.load("%table", _AT["tensor"]))
    c.unless("ne", tensor, "null", "no.number")
    c.store(leaf, tensor, offsets[Tensor, "_value"])
    c.line(f"ret ptr {tensor}")
    c.block("no.number")
    c.call("@Py_DecRef", leaf, type="void")
    c.label("none")
    c.line("ret ptr null")
    return c.text()


def _same_type(offsets: dict[tuple[type, str], int]) -> str:
    """`same_type(type, row)`: whether a value's type is that of an operand. Compares tuples of integers at most."""
    c = Code("internal i1 @same_type(ptr %type, ptr %row)")
    c.leave(c.compare("eq", "%type", c.load("%row", 16), "ptr"), "yes")
    dtype, shape = (c.load("%type", offsets[TensorType, name]) for name in ("dtype", "shape"))
    c.unless("eq", dtype, c.load("%row", 24), "no")
    equal = c.call("@PyObject_RichCompareBool", shape, c.load("%row", 32), "i32 2", type="i32")  # Py_EQ
    c.leave(c.compare("eq", equal, "1", "i32"), "yes")
    c.call("@PyErr_Clear", type="void")
    c.label("no")
    c.line("ret i1 false")
    c.block("yes")
    c.line("ret i1 true")
    return c.text()


def _call(offsets: dict[tuple[type, str], int], home: int) -> str:
    c = Code("ptr @tilewright_call(ptr %self, ptr %args, i64 %nargs, ptr %names)")

    def field(name: str, type: str = "i64") -> str:
        return c.load(table, _AT[name], type)

    def slot(item: str, cls: type, name: str) -> str:
        return c.load(item, offsets[cls, name])

    locked = c.variable("i1")
    c.store("false", locked, type="i1")
    plan = c.load("%self", home)
    c.call("@Py_IncRef", plan, type="void")  # other code may set another plan meanwhile
    table = c.call("@PyLong_AsVoidPtr", slot(plan, Plan, "address"))
    c.unless("eq", "%names", "null", "slow")
    c.unless("eq", "%nargs", field("arguments"), "slow", "i64")

    with c.each(field("guard_count"), field("guards", "ptr"), _GUARD) as (_, row):
        found = c.call("@PyObject_GetAttr", c.load(row), c.load(row, 8))
        c.unless("ne", found, "null", "slow.clear")
        equal = c.call("@PyObject_RichCompareBool", found, c.load(row, 16), "i32 2", type="i32")
        c.call("@Py_DecRef", found, type="void")
        c.unless("eq", equal, "1", "slow.clear", "i32")

    fresh, results = field("fresh", "ptr"), field("results", "ptr")
    fresh_count, result_count = field("fresh_count"), field("result_count")
    counters = field("counters", "ptr")
    made = c.variable("ptr", fresh_count)
    tensors = c.variable("ptr", result_count)
    for array, count in ((made, fresh_count), (tensors, result_count)):
        with c.each(count) as (i, _):
            c.store("null", c.word(array, i))
    none = field("block_type", "ptr")
    with c.each(fresh_count, fresh, _FRESH) as (i, row):
        buffer = c.call("@like", c.load(row, 16))
        c.unless("ne", buffer, "null", "failed")
        c.store(buffer, c.word(made, i))
        block = c.call("@take_block", c.load(row), none, c.at(counters, 8 * WORDS.index("buffers_reused")))
        c.unless("ne", block, "null", "failed")
        c.store(block, buffer, offsets[Buffer, "_owner"])
        address = slot(c.load(block, builtin.HEADER), Memory, "address")
        c.call("@Py_IncRef", address, type="void")
        c.store(address, buffer, offsets[Buffer, "address"])
    with c.each(result_count, results, _RESULT) as (i, row):
        buffer = c.load(c.word(made, c.load(row, 0, "i64")))
        tensor = c.call("@new_tensor", table, row, buffer)
        c.unless("ne", tensor, "null", "failed")
        c.store(tensor, c.word(tensors, i))

    with c.when(c.compare("ne", field("long"), "0")):
        got = c.call("@PyObject_CallNoArgs", field("acquire", "ptr"))
        c.unless("ne", got, "null", "failed")
        c.call("@Py_DecRef", got, type="void")
        c.store("true", locked, type="i1")

    # From here on nothing runs other code.
    assumed = field("assumed", "ptr")
    c.unless("eq", c.load(assumed, 8 * assumptions.VERSION, "i64"), field("version"), "undo", "i64")
    running = c.at(assumed, 8 * assumptions.RUNNING)
    c.unless("eq", c.load(running, type="i64"), "0", "undo", "i64")
    slots = field("slots", "ptr")
    with c.each(field("operand_count"), field("operands", "ptr"), _OPERAND) as (_, row):
        _operand(c, row, slots, field("none", "ptr"), field("tensor_type", "ptr"), slot)
    with c.each(fresh_count, fresh, _FRESH) as (i, row):
        address = slot(c.load(c.word(made, i)), Buffer, "address")
        word = c.call("@PyLong_AsUnsignedLongLong", address, type="i64")
        c.store(word, c.word(slots, c.load(row, 8, "i64")), type="i64")

    entry, part, code = field("entry", "ptr"), field("part", "ptr"), c.variable("i32")
    launches = field("launches")
    c.line(f"br i1 {c.load(locked, type='i1')}, label %long, label %brief")
    c.block("long")
    c.store(c.value(f"add i64 {c.load(running, type='i64')}, 1"), running, type="i64")
    thread = c.call("@PyEval_SaveThread")
    c.store(c.call(entry, part, type="i32"), code, type="i32")
    c.call("@PyEval_RestoreThread", thread, type="void")
    c.store(c.value(f"sub i64 {c.load(running, type='i64')}, 1"), running, type="i64")
    got = c.call("@PyObject_CallNoArgs", field("release", "ptr"))
    c.call("@Py_DecRef", got, type="void")
    c.store("false", locked, type="i1")
    c.line("br label %ran")
    c.block("brief")
    c.store(c.call(entry, part, type="i32"), code, type="i32")
    c.label("ran")
    c.unless("eq", c.load(code, type="i32"), "0", "undo", "i32")
    for name, more in (("native_calls", "1"), ("launches", launches)):
        at = c.at(counters, 8 * WORDS.index(name))
        c.store(c.value(f"add i64 {c.load(at, type='i64')}, {more}"), at, type="i64")
    with c.each(fresh_count) as (i, _):
        c.call("@Py_DecRef", c.load(c.word(made, i)), type="void")
    finish = field("finish", "ptr")
    c.line(f"br i1 {c.compare('eq', finish, 'null', 'ptr')}, label %single, label %several")
    c.block("single")
    c.call("@Py_DecRef", plan, type="void")
    c.line(f"ret ptr {c.load(tensors)}")
    c.block("several")
    leaves = c.call("@PyTuple_New", f"i64 {result_count}")
    c.unless("ne", leaves, "null", "lost")
    with c.each(result_count) as (i, _):
        c.call("@PyTuple_SetItem", leaves, f"i64 {i}", c.load(c.word(tensors, i)), type="i32")
    answer = c.call("@PyObject_CallOneArg", finish, leaves)
    c.call("@Py_DecRef", leaves, type="void")
    c.call("@Py_DecRef", plan, type="void")
    c.line(f"ret ptr {answer}")
    _ends(c, plan, table, (made, fresh_count), (tensors, result_count), locked)
    return c.text()


def _operand(c: Code, row: str, slots: str, none: str, tensor_type: str, slot: Any) -> None:
    """Look at an operand, and put the address of its memory into its slot."""
    number = c._count = c._count + 1
    kind = c.load(row, 0, "i64")
    address, tensor = c.variable(), c.variable("ptr")
    cases = " ".join(
        f"i64 {k}, label %{name}{number}"
        for k, name in (
            (_FROM_ARGUMENT, "argument"), (_FROM_TENSOR, "captured"), (_NO_GRAD, "absent"), (_SOME_GRAD, "present"),
        )
    )  # fmt: skip
    c.line(f"switch i64 {kind}, label %constant{number} [{cases}]")
    c.block(f"constant{number}")
    c.store(c.load(row, 8, "i64"), address, type="i64")
    c.line(f"br label %bind{number}")
    for name, how in (("absent", "eq"), ("present", "ne")):
        c.block(f"{name}{number}")
        c.unless(how, slot(c.load(row, 8), Tensor, "_grad"), none, "undo")
        c.line(f"br label %bind{number}")
    c.block(f"argument{number}")
    given = c.load(c.word("%args", c.load(row, 8, "i64")))
    c.unless("eq", c.load(given, TYPE), tensor_type, "undo")
    c.store(given, tensor)
    c.line(f"br label %tensor{number}")
    c.block(f"captured{number}")
    c.store(c.load(row, 8), tensor)
    c.label(f"tensor{number}")
    item = c.load(tensor)
    c.unless("eq", slot(item, Tensor, "_requires_grad"), c.load(row, 40), "undo")
    c.unless("eq", slot(item, Tensor, "_trace"), none, "undo")
    value = slot(item, Tensor, "_value")
    same = c.call("@same_type", slot(value, Value, "type"), row, type="i1")
    c.unless("eq", same, "true", "undo", "i1")
    buffer = slot(value, Value, "buffer")
    c.unless("ne", buffer, none, "undo")
    version = c.load(row, 56)
    with c.when(c.compare("ne", version, "null", "ptr")):
        c.unless("eq", slot(buffer, Buffer, "version"), version, "undo")
    word = c.call("@PyLong_AsUnsignedLongLong", slot(buffer, Buffer, "address"), type="i64")
    c.store(word, address, type="i64")
    c.label(f"bind{number}")
    place = c.load(row, 48, "i64")
    with c.when(c.compare("ne", place, "0")):
        c.store(c.load(address, type="i64"), c.word(slots, place), type="i64")


def _ends(
    c: Code, plan: str, table: str, made: tuple[str, str], tensors: tuple[str, str], locked: str
) -> None:
    """The other ways out: `undo` what was made and go through Python; `failed` with an exception; `lost` with one, after the
    run."""

    def drop() -> None:
        for array, count in (made, tensors):
            with c.each(count) as (i, _):
                c.call("@Py_DecRef", c.load(c.word(array, i)), type="void")  # null is nothing to it

    c.block("undo")
    with c.when(c.load(locked, type="i1")):
        got = c.call("@PyObject_CallNoArgs", c.load(table, _AT["release"]))
        c.call("@Py_DecRef", got, type="void")
    drop()
    c.line("br label %slow")
    c.block("slow.clear")
    c.call("@PyErr_Clear", type="void")
    c.label("slow")
    keywords = c.variable()
    c.store("0", keywords, type="i64")
    with c.when(c.compare("ne", "%names", "null", "ptr")):
        c.store(c.call("@PyTuple_Size", "%names", type="i64"), keywords, type="i64")
    given = c.value(f"add i64 %nargs, {c.load(keywords, type='i64')}")
    whole = c.variable("ptr", c.value(f"add i64 {given}, 1"))
    c.store("%self", whole)
    after = c.at(whole, 8)
    with c.each(given) as (i, _):
        c.store(c.load(c.word("%args", i)), c.word(after, i))
    slow = c.load(table, _AT["slow"])
    count = c.value("add i64 %nargs, 1")
    answer = c.call("@PyObject_Vectorcall", slow, whole, f"i64 {count}", "ptr %names")
    c.call("@Py_DecRef", plan, type="void")
    c.line(f"ret ptr {answer}")
    c.block("failed")
    drop()
    c.label("lost")
    c.call("@Py_DecRef", plan, type="void")
    c.line("ret ptr null")
