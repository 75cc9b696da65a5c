"""``execute.evaluate`` of what was computed before, as a builtin made of JIT code.

It numbers graphs of packed values over computed ones and constants as ``execute.plan`` does, finds the program by the same
signature and runs it, if that is brief. Everything else (other values, very deep graphs, programs that are not there yet) is
left to Python: then it gives None, and nothing has happened.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from typing import Any

from tilewright.core.settings import settings
from tilewright.graph.ir import TensorType, Value
from tilewright.graph.template import Template as Recorded
from tilewright.runtime import brief, builtin, fresh
from tilewright.runtime.blocks import block_type
from tilewright.runtime.buffers import Buffer
from tilewright.runtime.builtin import Code, Offsets

__all__ = ["function"]

_DEEPEST = 200  # packed values one below the other
_WORDS = ("none", "true", "constant", "memory", "programs", "settings", "compilation", "nothing")

Repeated = Callable[[list[Value]], list[Buffer] | None]


@builtin.once
def function(
    program: type, programs: Mapping[Any, Any], memory: Callable[[Value], Buffer | None]
) -> Repeated | None:
    """``repeated(outputs)``: a buffer for each, or None. ``programs`` are of type ``program``, by the key of their plans;
    ``memory`` gives that of a constant which is an operand of programs. None without builtins."""
    slots = {
        Value: ("attrs", "buffer", "op", "packed", "type"), TensorType: TensorType.__slots__, Recorded: ("kind",),
        program: ("record", "used"),
    }  # fmt: skip
    if not builtin.available() or block_type() is None:
        return None
    at, places = builtin.slot_offsets(slots), fresh.offsets()
    if at is None or places is None:
        return None
    functions = [
        *brief.sources(places),
        _visit(at),
        _repeated(at, program),
        builtin.word_source("tilewright_repeating", "repeated"),
    ]
    address = builtin.compiled("tilewright_repeating", functions)
    if address is None:
        return None
    items = {
        "none": None, "true": True, "constant": "constant", "memory": memory, "programs": programs, "settings": settings,
        "compilation": "compilation", "nothing": (),
    }  # fmt: skip
    words = builtin.table([id(items[name]) for name in _WORDS])
    builtin.keep_for_ever(*items.values(), words)
    code = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(address)(words.address)
    repeated: Repeated = builtin.function("repeated", code or 0)
    return repeated


def _word(c: Code, name: str) -> str:
    return builtin.word(c, _WORDS, name)


def _append(c: Code, items: str, item: str) -> None:
    c.unless("eq", c.call("@PyList_Append", items, item, type="i32"), "0", "no", "i32")


def _append_number(c: Code, items: str, number: str) -> None:
    made = c.call("@PyLong_FromLong", f"i64 {number}")
    c.unless("ne", made, "null", "no")
    wrong = c.call("@PyList_Append", items, made, type="i32")
    c.call("@Py_DecRef", made, type="void")
    c.unless("eq", wrong, "0", "no", "i32")


def _visit(at: Offsets) -> str:
    """`visit(value, numbers, signature, buffers, depth)`: the value's number, after those of all below it, or -1, where an
    exception may be set."""
    c = Code("internal i64 @visit(ptr %value, ptr %numbers, ptr %signature, ptr %buffers, i64 %depth)")
    held = c.variable("ptr")
    c.store("null", held)
    none = _word(c, "none")
    known = c.call("@PyDict_GetItem", "%numbers", "%value")
    c.leave(c.compare("ne", known, "null", "ptr"), "known")
    packed, buffer = (c.load("%value", at[Value, name]) for name in ("packed", "buffer"))
    computed = c.compare("ne", buffer, none, "ptr")
    c.leave(c.compare("ne", packed, none, "ptr"), "packed")
    c.leave(c.compare("eq", c.load("%value", at[Value, "op"]), _word(c, "constant"), "ptr"), "constant")
    c.line(f"br i1 {computed}, label %leaf, label %no")
    c.block("constant")
    memory = c.call("@PyObject_CallOneArg", _word(c, "memory"), "%value")
    c.store(memory, held)
    c.unless("ne", memory, "null", "no")
    c.leave(c.compare("ne", memory, none, "ptr"), "given")
    value = c.call("@PyTuple_GetItem", c.load("%value", at[Value, "attrs"]), "i64 0")
    text = c.call("@PyObject_Repr", c.call("@PyTuple_GetItem", value, "i64 1"))
    c.call("@Py_DecRef", memory, type="void")
    c.store(text, held)
    c.unless("ne", text, "null", "no")
    _append(c, "%signature", text)
    _append(c, "%signature", c.load(c.load("%value", at[Value, "type"]), at[TensorType, "dtype"]))
    c.call("@Py_DecRef", text, type="void")
    c.store("null", held)
    c.line("br label %number")
    c.block("packed")
    c.leave(computed, "leaf")
    c.unless("ult", "%depth", str(_DEEPEST), "no", "i64")
    c.call("@Py_IncRef", packed, type="void")  # other code may write the value out
    c.store(packed, held)
    template, inputs = (c.call("@PyTuple_GetItem", packed, f"i64 {n}") for n in range(2))
    count = c.call("@PyTuple_Size", inputs, type="i64")
    deeper = c.value("add i64 %depth, 1")
    with c.each(count) as (i, _):
        given = c.call("@PyTuple_GetItem", inputs, f"i64 {i}")
        number = c.call("@visit", given, "%numbers", "%signature", "%buffers", f"i64 {deeper}", type="i64")
        c.unless("sge", number, "0", "no", "i64")
    _append(c, "%signature", c.load(template, at[Recorded, "kind"]))
    with c.each(count) as (i, _):
        given = c.call("@PyTuple_GetItem", inputs, f"i64 {i}")
        _append(c, "%signature", c.call("@PyDict_GetItem", "%numbers", given))
    c.call("@Py_DecRef", packed, type="void")
    c.store("null", held)
    c.line("br label %number")
    c.block("leaf")
    c.call("@Py_IncRef", buffer, type="void")
    c.store(buffer, held)
    c.label("given")
    _append(c, "%buffers", c.load(held))
    c.call("@Py_DecRef", c.load(held), type="void")
    c.store("null", held)
    for name in ("dtype", "shape"):
        _append(c, "%signature", c.load(c.load("%value", at[Value, "type"]), at[TensorType, name]))
    c.label("number")
    number = c.call("@PyDict_Size", "%numbers", type="i64")
    made = c.call("@PyLong_FromLong", f"i64 {number}")
    c.unless("ne", made, "null", "no")
    wrong = c.call("@PyDict_SetItem", "%numbers", "%value", made, type="i32")
    c.call("@Py_DecRef", made, type="void")
    c.unless("eq", wrong, "0", "no", "i32")
    c.line(f"ret i64 {number}")
    c.block("known")
    c.line(f"ret i64 {c.call('@PyLong_AsSsize_t', known, type='i64')}")
    c.block("no")
    c.call("@Py_DecRef", c.load(held), type="void")
    c.line("ret i64 -1")
    return c.text()


def _repeated(at: Offsets, program: type) -> str:
    c = Code("internal ptr @repeated(ptr %self, ptr %args, i64 %nargs)")
    c.unless("eq", "%nargs", "1", "wrong", "i64")
    outputs, none = c.load("%args"), _word(c, "none")
    numbers = c.call("@PyDict_New")
    results, signature, buffers = (c.call("@PyList_New", "i64 0") for _ in range(3))
    made = (numbers, results, signature, buffers)
    for item in made:
        c.unless("ne", item, "null", "no")
    with c.each(c.call("@PyList_Size", outputs, type="i64")) as (i, _):
        value = c.call("@PyList_GetItem", outputs, f"i64 {i}")
        number = c.call("@visit", value, numbers, signature, buffers, "i64 0", type="i64")
        c.unless("sge", number, "0", "no", "i64")
        _append_number(c, results, number)
    last = c.call("@PyList_AsTuple", results)
    c.unless("ne", last, "null", "no")
    wrong = c.call("@PyList_Append", signature, last, type="i32")
    c.call("@Py_DecRef", last, type="void")
    c.unless("eq", wrong, "0", "no", "i32")
    parts = (
        c.call("@PyList_AsTuple", signature),
        c.call("@PyObject_GetAttr", _word(c, "settings"), _word(c, "compilation")),
    )
    c.unless("ne", parts[0], "null", "no")
    c.unless("ne", parts[1], "null", "no")
    nothing = f"ptr {_word(c, 'nothing')}"
    key = c.value(
        f"call ptr (i64, ...) @PyTuple_Pack(i64 4, ptr {parts[0]}, {nothing}, {nothing}, ptr {parts[1]})"
    )
    for item in parts:
        c.call("@Py_DecRef", item, type="void")
    c.unless("ne", key, "null", "no")
    found = c.call("@PyDict_GetItem", _word(c, "programs"), key)
    c.call("@Py_IncRef", found, type="void")
    c.call("@Py_DecRef", key, type="void")
    c.unless("ne", found, "null", "no")
    used = c.load(found, at[program, "used"])
    c.call("@Py_IncRef", _word(c, "true"), type="void")
    c.store(_word(c, "true"), found, at[program, "used"])
    c.call("@Py_DecRef", used, type="void")
    answer = c.variable("ptr")
    c.call("@Py_IncRef", none, type="void")
    c.store(none, answer)
    record = c.call("@PyLong_AsVoidPtr", c.load(found, at[program, "record"]))
    with c.when(c.compare("ne", record, "null", "ptr")):
        c.call("@Py_DecRef", none, type="void")
        c.store(c.call("@run_brief", record, buffers), answer)
    for item in (found, *made):
        c.call("@Py_DecRef", item, type="void")
    c.line(f"ret ptr {c.load(answer)}")
    c.block("no")
    for item in made:
        c.call("@Py_DecRef", item, type="void")
    c.unless("eq", c.call("@PyErr_Occurred"), "null", "raised")  # such as Ctrl-C while `memory` ran
    c.call("@Py_IncRef", none, type="void")
    c.line(f"ret ptr {none}")
    c.block("wrong")
    c.call("@PyErr_BadInternalCall", type="void")
    c.label("raised")
    c.line("ret ptr null")
    return c.text()
