"""`Jitted.__call__` as a builtin made of JIT code: calls without Python code.

It goes through the plan in the slot `_plan` of the called object. Whatever it finds different from what the plan says
(another type, another mode, a setting, a run in progress) sends the call through `Jitted._call`, which is Python and knows
everything; nothing has been changed by then.

The order of the steps matters. What may run other code (attributes, allocation, which may collect garbage) comes first;
the rest, from the look at `assumptions` on, runs under the GIL without a gap, and so does the program unless it is `long`.
A long one takes the runtime's lock and runs without the GIL, as `Program.run` does.
"""

from __future__ import annotations

from tilewright.core import assumptions
from tilewright.graph.ir import TensorType, Value
from tilewright.jit.layout import GUARD, OPERAND, PLAN, RESULT, Kind, Write
from tilewright.runtime import builtin, fresh
from tilewright.runtime.blocks import block_type, take_source
from tilewright.runtime.buffers import Buffer
from tilewright.runtime.builtin import REFERENCES, TYPE, Code, Offsets, Template
from tilewright.runtime.fresh import FRESH
from tilewright.runtime.memory import Memory
from tilewright.runtime.statistics import WORDS
from tilewright.tensor import Tensor

__all__ = ["compiled", "offsets"]

_SLOTS: dict[type, tuple[str, ...]] = {
    Tensor: Tensor.__slots__,
    Value: Value.__slots__,
    TensorType: TensorType.__slots__,
    Buffer: Buffer.__slots__,
    Memory: ("address",),
}


@builtin.once
def offsets() -> Offsets | None:
    """Where the objects that a call touches keep their slots; None where that cannot be seen."""
    return builtin.slot_offsets(_SLOTS)


def compiled(jitted: type, plan: type) -> int | None:
    """The address of the builtin for objects of `jitted` with plans of type `plan`; None where the interpreter has none."""
    if not builtin.available() or block_type() is None:
        return None
    home, address = builtin.slot_offset(jitted, "_plan"), builtin.slot_offset(plan, "address")
    at = offsets()
    if at is None or home is None or address is None:
        return None
    functions = [
        Template.source(),
        take_source(),
        fresh.source(at),
        _new_tensor(at),
        _same_type(at),
        _rebound(at),
        _call(at, home, address),
    ]
    return builtin.compiled("tilewright_call", functions)


def _new_tensor(at: Offsets) -> str:
    """`new_tensor(table, result, buffer)`: a tensor over a fresh leaf; null with an exception."""
    c = Code("internal ptr @new_tensor(ptr %table, ptr %result, ptr %buffer)")
    leaf = c.call("@like", c.load("%result", RESULT["template"]))
    c.unless("ne", leaf, "null", "none")
    c.call("@Py_IncRef", "%buffer", type="void")
    c.store("%buffer", leaf, at[Value, "buffer"])
    number = c.call("@PyIter_Next", c.load("%table", PLAN["ids"]))
    c.unless("ne", number, "null", "no.number")
    name = c.load("%table", PLAN["id_name"])
    pair = c.value(f"call ptr (i64, ...) @PyTuple_Pack(i64 2, ptr {name}, ptr {number})")
    c.call("@Py_DecRef", number, type="void")
    c.unless("ne", pair, "null", "no.number")
    rest = ", ".join(f"ptr {c.load('%result', RESULT[name])}" for name in ("dtype", "shape"))
    attrs = c.value(f"call ptr (i64, ...) @PyTuple_Pack(i64 3, ptr {pair}, {rest})")
    c.call("@Py_DecRef", pair, type="void")
    c.unless("ne", attrs, "null", "no.number")
    c.store(attrs, leaf, at[Value, "attrs"])
    tensor = c.call("@like", c.load("%table", PLAN["tensor"]))
    c.unless("ne", tensor, "null", "no.number")
    c.store(leaf, tensor, at[Tensor, "_value"])
    c.line(f"ret ptr {tensor}")
    c.block("no.number")
    c.call("@Py_DecRef", leaf, type="void")
    c.label("none")
    c.line("ret ptr null")
    return c.text()


def _same_type(at: Offsets) -> str:
    """`same_type(type, row)`: whether a value's type is that of an operand. Compares tuples of integers at most."""
    c = Code("internal i1 @same_type(ptr %type, ptr %row)")
    c.leave(c.compare("eq", "%type", c.load("%row", OPERAND["type"]), "ptr"), "yes")
    dtype, shape = (c.load("%type", at[TensorType, name]) for name in ("dtype", "shape"))
    c.unless("eq", dtype, c.load("%row", OPERAND["dtype"]), "no")
    equal = c.call("@PyObject_RichCompareBool", shape, c.load("%row", OPERAND["shape"]), _EQUAL, type="i32")
    c.leave(c.compare("eq", equal, "1", "i32"), "yes")
    c.call("@PyErr_Clear", type="void")
    c.label("no")
    c.line("ret i1 false")
    c.block("yes")
    c.line("ret i1 true")
    return c.text()


def _rebound(at: Offsets) -> str:
    """`rebound(table, tensor, buffer, type, kept)`: gives a tensor new memory; null with an exception. Its leaf stays when nobody
    else refers to it. An exception that a signal's handler raises meanwhile goes into the three words `kept`, once: what a
    run has changed is delivered as a whole."""
    c = Code("internal ptr @rebound(ptr %table, ptr %tensor, ptr %buffer, ptr %type, ptr %kept)")
    value = c.load("%tensor", at[Tensor, "_value"])
    c.unless("eq", c.load(value, at[Value, "op"]), c.load("%table", PLAN["input"]), "shared")
    c.unless("eq", c.load(value, REFERENCES, "i32"), "1", "shared", "i32")
    old = c.load(value, at[Value, "buffer"])
    c.call("@Py_IncRef", "%buffer", type="void")
    c.store("%buffer", value, at[Value, "buffer"])
    c.call("@Py_DecRef", old, type="void")
    c.line("ret ptr %tensor")
    c.block("shared")
    given = c.variable("[3 x ptr]")
    for number, item in enumerate(("%tensor", "%buffer", "%type")):
        c.store(item, given, 8 * number)
    rebind = c.load("%table", PLAN["rebind"])
    answer = c.call("@PyObject_Vectorcall", rebind, given, "i64 3", "null")
    interrupted = c.compare("eq", answer, "null", "ptr")
    c.leave(c.value(f"and i1 {interrupted}, {c.compare('eq', c.load('%kept'), 'null', 'ptr')}"), "again")
    c.call("@Py_DecRef", answer, type="void")
    c.line(f"ret ptr {answer}")
    c.block("again")
    c.call("@PyErr_Fetch", "%kept", c.at("%kept", 8), c.at("%kept", 16), type="void")
    second = c.call("@PyObject_Vectorcall", rebind, given, "i64 3", "null")
    c.call("@Py_DecRef", second, type="void")
    c.line(f"ret ptr {second}")
    return c.text()


_EQUAL = "i32 2"  # Py_EQ


class _Call:
    """The text of the builtin, stage by stage."""

    def __init__(self, at: Offsets, home: int, address: int) -> None:
        self.at = at
        self.code = c = Code("ptr @tilewright_call(ptr %self, ptr %args, i64 %nargs, ptr %names)")
        self.locked = c.variable("i1")
        c.store("false", self.locked, type="i1")
        self.plan = c.load("%self", home)
        c.unless("ne", self.plan, "null", "unmade")  # `__init__` has not run
        c.call("@Py_IncRef", self.plan, type="void")  # other code may set another plan meanwhile
        self.table = c.call("@PyLong_AsVoidPtr", c.load(self.plan, address))
        self.none = self.field("none", "ptr")

    def text(self) -> str:
        self.arguments()
        self.guards()
        self.make()
        self.lock()
        self.look()
        self.run()
        self.deliver()
        self.answer()
        self.ends()
        return self.code.text()

    def field(self, name: str, type: str = "i64") -> str:
        return self.code.load(self.table, PLAN[name], type)

    def slot(self, item: str, cls: type, name: str) -> str:
        return self.code.load(item, self.at[cls, name])

    def drop(self, *items: str) -> None:
        for item in items:
            self.code.call("@Py_DecRef", item, type="void")

    def drop_all(self, *arrays: tuple[str, str]) -> None:
        for array, count in arrays:
            with self.code.each(count) as (i, _):
                self.drop(self.code.load(self.code.word(array, i)))  # null is nothing to it

    def arguments(self) -> None:
        """As many as the plan takes, the last ones by the names it knows, of a plan that was valid when this began."""
        c, names = self.code, self.field("names", "ptr")
        version = c.load(self.field("assumed", "ptr"), 8 * assumptions.VERSION, "i64")
        c.unless("eq", version, self.field("version"), "slow", "i64")
        given = c.variable()
        c.store("%nargs", given, type="i64")
        with c.when(c.compare("ne", "%names", names, "ptr")):
            for side in ("%names", names):
                c.unless("ne", side, "null", "slow")
            equal = c.call("@PyObject_RichCompareBool", "%names", names, _EQUAL, type="i32")
            c.unless("eq", equal, "1", "slow.clear", "i32")
        with c.when(c.compare("ne", "%names", "null", "ptr")):
            c.store(
                c.value(f"add i64 %nargs, {c.call('@PyTuple_Size', '%names', type='i64')}"), given, type="i64"
            )
        self.given = c.load(given, type="i64")
        c.unless("eq", self.given, self.field("arguments"), "slow", "i64")

    def guards(self) -> None:
        c = self.code
        with c.each(self.field("guard_count"), self.field("guards", "ptr"), 8 * len(GUARD)) as (_, row):
            found = c.call("@PyObject_GetAttr", c.load(row, GUARD["owner"]), c.load(row, GUARD["name"]))
            c.unless("ne", found, "null", "slow.clear")
            equal = c.call(
                "@PyObject_RichCompareBool", found, c.load(row, GUARD["value"]), _EQUAL, type="i32"
            )
            self.drop(found)
            c.unless("eq", equal, "1", "slow.clear", "i32")

    def make(self) -> None:
        """The buffers of the run's memory and the tensors over them."""
        c = self.code
        self.fresh, self.results = self.field("fresh", "ptr"), self.field("results", "ptr")
        counts = self.field("fresh_count"), self.field("result_count"), self.field("operand_count")
        self.made, self.tensors, self.held = ((c.variable("ptr", count), count) for count in counts)
        for array, count in (self.made, self.tensors, self.held):
            with c.each(count) as (i, _):
                c.store("null", c.word(array, i))
        self.counters = self.field("counters", "ptr")
        reused = c.at(self.counters, 8 * WORDS.index("buffers_reused"))
        with c.each(counts[0], self.fresh, 8 * len(FRESH)) as (i, row):
            buffer = c.call("@new_buffer", row, self.field("block_type", "ptr"), reused)
            c.unless("ne", buffer, "null", "failed")
            c.store(buffer, c.word(self.made[0], i))
        with c.each(counts[1], self.results, 8 * len(RESULT)) as (i, row):
            buffer = c.load(c.word(self.made[0], c.load(row, RESULT["fresh"], "i64")))
            tensor = c.call("@new_tensor", self.table, row, buffer)
            c.unless("ne", tensor, "null", "failed")
            c.store(tensor, c.word(self.tensors[0], i))

    def lock(self) -> None:
        c = self.code
        self.assumed = self.field("assumed", "ptr")
        with c.when(c.compare("ne", self.field("long"), "0")):
            self.same_version()  # the lock may be one that a forked child has replaced and nobody releases
            got = c.call("@PyObject_CallNoArgs", self.field("acquire", "ptr"))
            c.unless("ne", got, "null", "failed")
            self.drop(got)
            c.store("true", self.locked, type="i1")

    def look(self) -> None:
        """Whether all is as the plan says, and the pointer table. From here on nothing runs other code."""
        c = self.code
        self.same_version()
        self.running = c.at(self.assumed, 8 * assumptions.RUNNING)
        c.unless("eq", c.load(self.running, type="i64"), "0", "undo", "i64")
        slots, written = self.field("slots", "ptr"), c.compare("ne", self.field("written"), "0")
        with c.each(self.held[1], self.field("operands", "ptr"), 8 * len(OPERAND)) as (i, row):
            self.operand(row, i, slots, written)
        with c.each(self.made[1], self.fresh, 8 * len(FRESH)) as (i, row):
            address = self.slot(c.load(c.word(self.made[0], i)), Buffer, "address")
            word = c.call("@PyLong_AsUnsignedLongLong", address, type="i64")
            c.store(word, c.word(slots, c.load(row, FRESH["slot"], "i64")), type="i64")

    def same_version(self) -> None:
        c = self.code
        now = c.load(self.assumed, 8 * assumptions.VERSION, "i64")
        c.unless("eq", now, self.field("version"), "undo", "i64")

    def operand(self, row: str, number: str, slots: str, written: str) -> None:
        """Look at an operand, and put the address of its memory into its slot."""
        c = self.code
        address, tensor = c.variable(), c.variable("ptr")
        source = c.load(row, OPERAND["source"])
        index = c.load(row, OPERAND["source"], "i64")
        cases = (Kind.ARGUMENT, Kind.CAPTURED, Kind.SAME, Kind.GRADIENT, Kind.NO_GRAD, Kind.SOME_GRAD)
        targets = " ".join(f"i64 {kind}, label %kind{kind}" for kind in cases)
        c.line(f"switch i64 {c.load(row, OPERAND['kind'], 'i64')}, label %constant [{targets}]")
        c.block("constant")
        c.store(index, address, type="i64")
        c.line("br label %bind")
        for kind, how in ((Kind.NO_GRAD, "eq"), (Kind.SOME_GRAD, "ne")):
            c.block(f"kind{kind}")
            c.unless(how, self.slot(source, Tensor, "_grad"), self.none, "undo")
            c.line("br label %bind")
        c.block(f"kind{Kind.SAME}")
        c.unless("eq", c.load(c.word("%args", index)), c.load(row, OPERAND["type"]), "undo")
        c.line("br label %bind")
        c.block(f"kind{Kind.GRADIENT}")
        gradient = self.slot(source, Tensor, "_grad")
        c.unless("ne", gradient, self.none, "undo")
        c.unless("eq", c.load(gradient, TYPE), self.field("tensor_type", "ptr"), "undo")
        # Held by nobody else, it is none of the captured tensors, which the run may write over.
        c.unless("eq", c.load(gradient, REFERENCES, "i32"), "1", "undo", "i32")
        c.store(gradient, tensor)
        c.line("br label %tensor")
        c.block(f"kind{Kind.ARGUMENT}")
        given = c.load(c.word("%args", index))
        c.unless("eq", c.load(given, TYPE), self.field("tensor_type", "ptr"), "undo")
        c.store(given, tensor)
        c.line(f"br i1 {written}, label %alone, label %tensor")
        c.block("alone")  # a tensor that comes twice would be seen to change
        with c.each(index) as (i, _):
            c.unless("ne", c.load(c.word("%args", i)), given, "undo")
        c.line("br label %tensor")
        c.block(f"kind{Kind.CAPTURED}")
        c.store(source, tensor)
        c.line(f"br i1 {written}, label %apart, label %tensor")
        c.block("apart")
        with c.each(self.given) as (i, _):
            c.unless("ne", c.load(c.word("%args", i)), source, "undo")
        c.label("tensor")
        item = c.load(tensor)
        c.unless(
            "eq", self.slot(item, Tensor, "_requires_grad"), c.load(row, OPERAND["required_grad"]), "undo"
        )
        c.unless("eq", self.slot(item, Tensor, "_trace"), self.none, "undo")
        value = self.slot(item, Tensor, "_value")
        same = c.call("@same_type", self.slot(value, Value, "type"), row, type="i1")
        c.unless("eq", same, "true", "undo", "i1")
        buffer = self.slot(value, Value, "buffer")
        c.unless("ne", buffer, self.none, "undo")
        version = c.load(row, OPERAND["memory_version"])
        with c.when(c.compare("ne", version, "null", "ptr")):
            c.unless("eq", self.slot(buffer, Buffer, "version"), version, "undo")
        over = c.compare("eq", c.load(row, OPERAND["write"], "i64"), str(Write.OVER))
        with c.when(over):
            self.only_reference(value, buffer)
        word = c.call("@PyLong_AsUnsignedLongLong", self.slot(buffer, Buffer, "address"), type="i64")
        c.store(word, address, type="i64")
        with c.when(c.load(self.locked, type="i1")):  # others may rebind the tensor while it runs
            c.call("@Py_IncRef", buffer, type="void")
            c.store(buffer, c.word(self.held[0], number))
        c.label("bind")
        place = c.load(row, OPERAND["slot"], "i64")
        with c.when(c.compare("ne", place, "0")):
            c.store(c.load(address, type="i64"), c.word(slots, place), type="i64")

    def only_reference(self, value: str, buffer: str) -> None:
        """Memory may be written over when it is our own and nothing but the tensor leads to it: as `Jitted._run` asks."""
        c = self.code
        for item in (value, buffer, self.slot(buffer, Buffer, "_owner")):
            c.unless("eq", c.load(item, REFERENCES, "i32"), "1", "undo", "i32")
        c.unless("eq", self.slot(buffer, Buffer, "owned"), self.field("true", "ptr"), "undo")
        c.unless("eq", self.slot(buffer, Buffer, "readonly"), self.field("false", "ptr"), "undo")

    def run(self) -> None:
        c = self.code
        entry, entered, code = self.field("entry", "ptr"), self.field("entered", "ptr"), c.variable("i32")
        launches = self.field("launches")
        c.line(f"br i1 {c.load(self.locked, type='i1')}, label %long, label %brief")
        c.block("long")
        c.add(self.running, "1")
        thread = c.call("@PyEval_SaveThread")
        c.store(c.call(entry, entered, type="i32"), code, type="i32")
        c.call("@PyEval_RestoreThread", thread, type="void")
        c.add(self.running, "-1")
        got = c.call("@PyObject_CallNoArgs", self.field("release", "ptr"))
        self.drop(got)
        c.store("false", self.locked, type="i1")
        self.drop_all(self.held)
        c.line("br label %ran")
        c.block("brief")
        c.store(c.call(entry, entered, type="i32"), code, type="i32")
        c.label("ran")
        self.status = c.load(code, type="i32")
        c.unless("eq", self.status, "0", "reported", "i32")
        for name, more in (("native_calls", "1"), ("launches", launches)):
            c.add(c.at(self.counters, 8 * WORDS.index(name)), more)

    def deliver(self) -> None:
        """What the run wrote, for the captured tensors it belongs to."""
        c = self.code
        kept = c.variable("[3 x ptr]")
        done = c.compare("eq", self.field("written"), "0")
        c.leave(done, "delivered")
        c.store("null", kept)
        with c.each(self.held[1], self.field("operands", "ptr"), 8 * len(OPERAND)) as (_, row):
            write, tensor = c.load(row, OPERAND["write"], "i64"), c.load(row, OPERAND["source"])
            with c.when(c.compare("eq", write, str(Write.NEW))):
                buffer = c.load(c.word(self.made[0], c.load(row, OPERAND["fresh"], "i64")))
                type = c.load(row, OPERAND["type"])
                answer = c.call("@rebound", self.table, tensor, buffer, type, kept)
                c.unless("ne", answer, "null", "failed")
            with c.when(c.compare("eq", write, str(Write.OVER))):
                self.renew(self.slot(self.slot(tensor, Tensor, "_value"), Value, "buffer"))
        c.unless("ne", c.load(kept), "null", "delivered")
        c.call("@PyErr_Restore", *[c.load(kept, 8 * n) for n in range(3)], type="void")
        c.line("br label %failed")
        c.block("delivered")

    def renew(self, buffer: str) -> None:
        """Take the version from a buffer that was written over."""
        c = self.code
        old = self.slot(buffer, Buffer, "version")
        new = c.call("@PyLong_FromLong", "i64 0")
        c.unless("ne", new, "null", "failed")
        c.store(new, buffer, self.at[Buffer, "version"])
        self.drop(old)

    def answer(self) -> None:
        c = self.code
        self.drop_all(self.made)
        finish = self.field("finish", "ptr")
        c.line(f"br i1 {c.compare('eq', finish, 'null', 'ptr')}, label %single, label %several")
        c.block("single")
        self.drop(self.plan)
        c.line(f"ret ptr {c.load(self.tensors[0])}")
        c.block("several")
        leaves = c.call("@PyTuple_New", f"i64 {self.tensors[1]}")
        c.unless("ne", leaves, "null", "lost")
        with c.each(self.tensors[1]) as (i, _):
            c.call("@PyTuple_SetItem", leaves, f"i64 {i}", c.load(c.word(self.tensors[0], i)), type="i32")
        answer = c.call("@PyObject_CallOneArg", finish, leaves)
        self.drop(leaves, self.plan)
        c.line(f"ret ptr {answer}")

    def ends(self) -> None:
        """The other ways out: `undo` what was made and go through Python; `reported` by a kernel; `failed` with an exception."""
        c = self.code
        c.block("undo")
        with c.when(c.load(self.locked, type="i1")):
            self.drop(c.call("@PyObject_CallNoArgs", self.field("release", "ptr")))
        self.drop_all(self.made, self.tensors, self.held)
        c.line("br label %slow")
        c.block("slow.clear")
        c.call("@PyErr_Clear", type="void")
        c.label("slow")
        answer = self.vectorcall(self.field("slow", "ptr"), "%self", "%names")
        self.drop(self.plan)
        c.line(f"ret ptr {answer}")
        c.block("reported")
        number = c.call("@PyLong_FromLong", "i64 " + c.value(f"sext i32 {self.status} to i64"))
        c.unless("ne", number, "null", "failed")
        answer = self.vectorcall(self.field("failed", "ptr"), number, "null")  # raises
        self.drop(answer, number)
        c.label("failed")
        self.drop_all(self.made, self.tensors)
        c.label("lost")
        self.drop(self.plan)
        c.line("ret ptr null")
        c.block("unmade")
        c.call("@PyErr_BadInternalCall", type="void")
        c.line("ret ptr null")

    def vectorcall(self, function: str, first: str, names: str) -> str:
        """Call a Python function with one argument more in front; without `names` all go by position."""
        c = self.code
        total = c.variable()
        c.store("%nargs", total, type="i64")
        with c.when(c.compare("ne", "%names", "null", "ptr")):
            c.store(
                c.value(f"add i64 %nargs, {c.call('@PyTuple_Size', '%names', type='i64')}"), total, type="i64"
            )
        whole = c.variable("ptr", c.value(f"add i64 {c.load(total, type='i64')}, 1"))
        c.store(first, whole)
        after = c.at(whole, 8)
        with c.each(c.load(total, type="i64")) as (i, _):
            c.store(c.load(c.word("%args", i)), c.word(after, i))
        count = c.value(f"add i64 {c.load(total, type='i64') if names == 'null' else '%nargs'}, 1")
        return c.call("@PyObject_Vectorcall", function, whole, f"i64 {count}", names)


def _call(at: Offsets, home: int, address: int) -> str:
    return _Call(at, home, address).text()
