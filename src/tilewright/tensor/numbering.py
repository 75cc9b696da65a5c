"""``execute.plan`` of graphs of packed values over computed ones, as a builtin made of JIT code: what finds the program again.

It numbers as ``plan`` does and gives the same signature. Graphs with other values in them, and very deep ones, are left to
Python.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from tilewright.graph.ir import TensorType, Value
from tilewright.graph.template import Template as Recorded
from tilewright.runtime import builtin
from tilewright.runtime.builtin import Code, Offsets

__all__ = ["function"]

_DEEPEST = 200  # packed values one below the other
_WORDS = ("none", "constant", "varies", "true")

Outline = Callable[[list[Value]], "tuple[tuple[Any, ...], list[Value]] | None"]


@builtin.once
def function(varies: Callable[[Value], bool]) -> Outline | None:
    """``outline(outputs)``: the signature of the plan of ``outputs`` and its leaves; or None. ``varies`` tells which
    constants are leaves. None without builtins."""
    slots = {
        Value: ("buffer", "op", "packed", "type"), TensorType: TensorType.__slots__, Recorded: ("kind",),
    }  # fmt: skip
    at = builtin.slot_offsets(slots) if builtin.available() else None
    if at is None:
        return None
    address = builtin.compiled("tilewright_numbering", [_visit(at), _outline(), _TABLE])
    if address is None:
        return None
    items = {"none": None, "constant": "constant", "varies": varies, "true": True}
    words = builtin.table([id(items[name]) for name in _WORDS])
    builtin.keep_for_ever(*items.values(), words)
    code = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(address)(words.address)
    outline: Outline = builtin.function("outline", code or 0)
    return outline


_TABLE = """@words = internal global ptr null
define ptr @tilewright_numbering(ptr %words) nounwind {
  store ptr %words, ptr @words
  ret ptr @outline
}
"""


def _word(c: Code, name: str) -> str:
    return c.load(c.load("@words"), 8 * _WORDS.index(name))


def _append(c: Code, items: str, item: str) -> None:
    c.unless("eq", c.call("@PyList_Append", items, item, type="i32"), "0", "no", "i32")


def _append_number(c: Code, items: str, number: str) -> None:
    made = c.call("@PyLong_FromLong", f"i64 {number}")
    c.unless("ne", made, "null", "no")
    wrong = c.call("@PyList_Append", items, made, type="i32")
    c.call("@Py_DecRef", made, type="void")
    c.unless("eq", wrong, "0", "no", "i32")


def _visit(at: Offsets) -> str:
    """`visit(value, numbers, signature, leaves, depth)`: the value's number, after those of all below it; -1 where Python has to
    do it."""
    c = Code("internal i64 @visit(ptr %value, ptr %numbers, ptr %signature, ptr %leaves, i64 %depth)")
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
    varies = c.call("@PyObject_CallOneArg", _word(c, "varies"), "%value")
    c.call("@Py_DecRef", varies, type="void")
    c.line(f"br i1 {c.compare('eq', varies, _word(c, 'true'), 'ptr')}, label %leaf, label %no")
    c.block("packed")
    c.leave(computed, "leaf")
    c.unless("ult", "%depth", str(_DEEPEST), "no", "i64")
    c.call("@Py_IncRef", packed, type="void")  # other code may write the value out
    c.store(packed, held)
    template, inputs = (c.call("@PyTuple_GetItem", packed, f"i64 {n}") for n in range(2))
    count = c.call("@PyTuple_Size", inputs, type="i64")
    below, deeper = c.variable("i64", count), c.value("add i64 %depth, 1")
    with c.each(count) as (i, _):
        given = c.call("@PyTuple_GetItem", inputs, f"i64 {i}")
        number = c.call("@visit", given, "%numbers", "%signature", "%leaves", f"i64 {deeper}", type="i64")
        c.unless("sge", number, "0", "no", "i64")
        c.store(number, c.word(below, i), type="i64")
    _append(c, "%signature", c.load(template, at[Recorded, "kind"]))
    with c.each(count) as (i, _):
        _append_number(c, "%signature", c.load(c.word(below, i), type="i64"))
    c.call("@Py_DecRef", packed, type="void")
    c.store("null", held)
    c.line("br label %number")
    c.block("leaf")
    _append(c, "%leaves", "%value")
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


def _outline() -> str:
    c = Code("internal ptr @outline(ptr %self, ptr %args, i64 %nargs)")
    c.unless("eq", "%nargs", "1", "wrong", "i64")
    outputs, none = c.load("%args"), _word(c, "none")
    numbers, results = c.call("@PyDict_New"), c.call("@PyList_New", "i64 0")
    signature, leaves = c.call("@PyList_New", "i64 0"), c.call("@PyList_New", "i64 0")
    for item in (numbers, results, signature, leaves):
        c.unless("ne", item, "null", "no")
    with c.each(c.call("@PyList_Size", outputs, type="i64")) as (i, _):
        value = c.call("@PyList_GetItem", outputs, f"i64 {i}")
        number = c.call("@visit", value, numbers, signature, leaves, "i64 0", type="i64")
        c.unless("sge", number, "0", "no", "i64")
        _append_number(c, results, number)
    last = c.call("@PyList_AsTuple", results)
    c.unless("ne", last, "null", "no")
    wrong = c.call("@PyList_Append", signature, last, type="i32")
    c.call("@Py_DecRef", last, type="void")
    c.unless("eq", wrong, "0", "no", "i32")
    whole = c.call("@PyList_AsTuple", signature)
    c.unless("ne", whole, "null", "no")
    pair = c.value(f"call ptr (i64, ...) @PyTuple_Pack(i64 2, ptr {whole}, ptr {leaves})")
    for item in (whole, numbers, results, signature, leaves):
        c.call("@Py_DecRef", item, type="void")
    c.line(f"ret ptr {pair}")
    c.block("no")
    c.call("@PyErr_Clear", type="void")
    for item in (numbers, results, signature, leaves):
        c.call("@Py_DecRef", item, type="void")
    c.call("@Py_IncRef", none, type="void")
    c.line(f"ret ptr {none}")
    c.block("wrong")
    c.call("@PyErr_BadInternalCall", type="void")
    c.line("ret ptr null")
    return c.text()
