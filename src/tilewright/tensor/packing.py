"""Calls of composite functions whose kind is known, as a builtin made of JIT code: one packed value, one pending tensor.

It does what ``composite`` does in Python, where that is plain: arguments that are tensors, numbers, words or tuples of integers,
operands of at most one group, neither many nor deep, no limit reached. For everything else it gives None: nothing has happened.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from typing import Any

from tilewright.graph.ir import TensorType, Value, fresh_leaf, packed_value
from tilewright.graph.template import Template as Recorded
from tilewright.runtime import builtin
from tilewright.runtime.buffers import Buffer
from tilewright.runtime.builtin import TYPE, Code, Offsets, Template
from tilewright.tensor import lazy
from tilewright.tensor.handle import Tensor, from_leaf
from tilewright.tensor.modes import modes

__all__ = ["function"]

Known = Callable[[Mapping[Any, Any], "tuple[str, ...] | None", "tuple[Any, ...]"], Tensor | None]

_DEEPEST = 16  # tuples in tuples
_MOST = 512  # operands: what is kept of them lies on the stack
_WORDS = (
    "modes", "grad", "products", "trace", "none", "true", "tensor_type", "float_type", "tuple_type", "slice_type",
    "int_type", "exact", "start", "stop", "step",
    "value", "tensor", "group", "zero", "recipe_type", "enroll",
)  # fmt: skip


@builtin.once
def function(recipe: type, exact: frozenset[type]) -> Known | None:
    """``known(recipes, names, items)``: the result of a call with these arguments, of which the last go by ``names``, or None.
    ``recipe`` is the type of the recipes, ``exact`` are types whose values tell kinds apart. None without builtins."""
    slots = {
        Tensor: Tensor.__slots__, Value: Value.__slots__, TensorType: TensorType.__slots__,
        Buffer: ("nbytes",), recipe: ("template", "requires_grad", "nodes"), lazy.Group: lazy.Group.__slots__,
        Recorded: ("packs", "picks", "varying", "type", "anchor", "open", "chain"),
    }  # fmt: skip
    at = builtin.slot_offsets(slots) if builtin.available() else None
    if at is None:
        return None
    functions = [
        Template.source(),
        _describe(),
        _kind(at),
        _value(at),
        _enroll(at, recipe),
        _known(at, recipe),
        builtin.word_source("tilewright_packing", "known"),
    ]
    address = builtin.compiled("tilewright_packing", functions)
    if address is None:
        return None
    leaf = fresh_leaf(TensorType(None, ()))  # type: ignore[arg-type]
    packed = packed_value(None, (), leaf.type)
    templates = {
        "value": (packed, "op inputs attrs type packed names"),
        "tensor": (from_leaf(leaf), "_value _requires_grad"),
        "group": (lazy.Group(), "members nodes nbytes"),
    }
    items: dict[str, Any] = {
        "modes": modes, "grad": "grad", "products": "products", "trace": "trace", "none": None, "true": True,
        "tensor_type": Tensor, "float_type": float, "tuple_type": tuple, "slice_type": slice,
        "start": "start", "stop": "stop", "step": "step", "int_type": int, "exact": exact, "zero": 0,
        "recipe_type": recipe, "enroll": lazy.enroll,
    }  # fmt: skip
    addresses = {name: id(item) for name, item in items.items()}
    for name, (prototype, without) in templates.items():
        items[name] = Template(prototype, lambda cls, slot: at[cls, slot], without.split())
        addresses[name] = items[name].address
    builtin.keep_for_ever(*items.values())
    words = builtin.table([addresses[name] for name in _WORDS])
    builtin.keep_for_ever(words)
    code = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(address)(words.address)
    known: Known = builtin.function("known", code or 0)
    return known


def _word(c: Code, name: str) -> str:
    return builtin.word(c, _WORDS, name)


def _is_tensor(c: Code, item: str) -> str:
    """Whether an object is a tensor, or a parameter."""
    below = c.call("@PyType_IsSubtype", c.load(item, TYPE), _word(c, "tensor_type"), type="i32")
    return c.compare("ne", below, "0", "i32")


class _Key:
    """Adding to the list `%key`; going to `no` where that fails."""

    def __init__(self, c: Code, key: str) -> None:
        self.c = c
        self.key = key

    def add(self, *items: str) -> None:
        for item in items:
            self.c.unless("eq", self.c.call("@PyList_Append", self.key, item, type="i32"), "0", "no", "i32")

    def add_new(self, item: str) -> None:
        """Of an object that is ours."""
        self.c.unless("ne", item, "null", "no")
        wrong = self.c.call("@PyList_Append", self.key, item, type="i32")
        self.c.call("@Py_DecRef", item, type="void")
        self.c.unless("eq", wrong, "0", "no", "i32")


def _describe() -> str:
    """`describe(key, item, room)`: `composite._describe`, except for an error that is left set, of so many levels at most."""
    c = Code("internal i1 @describe(ptr %key, ptr %item, i64 %room)")
    key, kind = _Key(c, "%key"), c.load("%item", TYPE)
    less = c.value("sub i64 %room, 1")

    def add_described(part: str) -> None:
        known = c.call("@describe", "%key", part, f"i64 {less}", type="i1")
        c.unless("eq", known, "true", "no", "i1")

    for name in ("float", "tuple", "slice"):
        c.leave(c.compare("eq", kind, _word(c, f"{name}_type"), "ptr"), name)
    exact = c.call("@PySet_Contains", _word(c, "exact"), kind, type="i32")
    c.unless("eq", exact, "1", "no", "i32")
    key.add(kind, "%item")
    c.line("ret i1 true")
    c.block("float")  # 0.0 and -0.0 are equal
    key.add_new(c.call("@PyObject_Repr", "%item"))
    c.line("ret i1 true")
    c.block("tuple")
    size = c.call("@PyTuple_Size", "%item", type="i64")
    c.unless("ne", size, "0", "mixed", "i64")
    with c.each(size) as (i, _):
        part = c.load(c.call("@PyTuple_GetItem", "%item", f"i64 {i}"), TYPE)
        c.unless("eq", part, _word(c, "int_type"), "mixed")
    key.add(_word(c, "int_type"), "%item")
    c.line("ret i1 true")
    c.block("mixed")
    c.unless("ne", "%room", "0", "no", "i64")
    key.add(kind)
    key.add_new(c.call("@PyLong_FromLong", f"i64 {size}"))
    with c.each(size) as (i, _):
        add_described(c.call("@PyTuple_GetItem", "%item", f"i64 {i}"))
    c.line("ret i1 true")
    c.block("slice")
    c.unless("ne", "%room", "0", "no", "i64")
    key.add(kind)
    for name in ("start", "stop", "step"):
        part = c.call("@PyObject_GetAttr", "%item", _word(c, name))
        c.call("@Py_DecRef", part, type="void")  # the slice holds it
        add_described(part)
    c.line("ret i1 true")
    c.block("no")
    c.line("ret i1 false")
    return c.text()


def _kind(at: Offsets) -> str:
    """`kind(names, items)`: the key that `composite` makes of arguments; null where Python has to look at them."""
    c = Code("internal ptr @kind(ptr %names, ptr %items)")
    made = c.call("@PyList_New", "i64 0")
    c.unless("ne", made, "null", "none")
    key, none = _Key(c, made), _word(c, "none")
    for name in ("grad", "products"):
        key.add_new(c.call("@PyObject_GetAttr", _word(c, "modes"), _word(c, name)))
    with c.when(c.compare("ne", "%names", none, "ptr")):
        key.add("%names")
    with c.each(c.call("@PyTuple_Size", "%items", type="i64")) as (i, _):
        item = c.call("@PyTuple_GetItem", "%items", f"i64 {i}")
        tensor = _is_tensor(c, item)
        with c.when(tensor):
            c.unless("eq", c.load(item, at[Tensor, "_trace"]), none, "no")
            type = c.load(c.load(item, at[Tensor, "_value"]), at[Value, "type"])
            key.add(c.load(type, at[TensorType, "dtype"]), c.load(type, at[TensorType, "shape"]))
            key.add(c.load(item, at[Tensor, "_requires_grad"]))
        with c.when(c.value(f"xor i1 {tensor}, true")):
            c.unless("eq", c.call("@describe", made, item, f"i64 {_DEEPEST}", type="i1"), "true", "no", "i1")
    whole = c.call("@PyList_AsTuple", made)
    c.call("@Py_DecRef", made, type="void")
    c.line(f"ret ptr {whole}")
    c.block("no")
    c.call("@Py_DecRef", made, type="void")
    c.label("none")
    c.line("ret ptr null")
    return c.text()


def _value(at: Offsets) -> str:
    """`value(template, tensors, count)`: `Template.pack` of the values of so many tensors; null where it is not one."""
    c = Code("internal ptr @value(ptr %template, ptr %tensors, i64 %count)")
    none, made, packed = _word(c, "none"), c.variable("ptr"), c.variable("ptr")
    picks, varying = (c.load("%template", at[Recorded, name]) for name in ("picks", "varying"))
    c.unless("eq", c.load("%template", at[Recorded, "packs"]), _word(c, "true"), "none")
    size, number, operand = c.variable(), c.variable(), c.variable("ptr")
    c.store("%count", size, type="i64")
    picked = c.compare("ne", picks, none, "ptr")
    with c.when(picked):
        c.store(c.call("@PyTuple_Size", picks, type="i64"), size, type="i64")
    operands = c.call("@PyTuple_New", f"i64 {c.load(size, type='i64')}")
    c.unless("ne", operands, "null", "none")
    with c.each(c.load(size, type="i64")) as (i, _):
        c.store(i, number, type="i64")
        with c.when(picked):
            pick = c.call("@PyTuple_GetItem", picks, f"i64 {i}")
            c.store(c.call("@PyLong_AsSsize_t", pick, type="i64"), number, type="i64")
        at_number = c.load(number, type="i64")
        given = c.compare("ult", at_number, "%count")
        with c.when(given):
            c.store(c.load(c.load(c.word("%tensors", at_number)), at[Tensor, "_value"]), operand)
        with c.when(c.value(f"xor i1 {given}, true")):
            beyond = c.value(f"sub i64 {at_number}, %count")
            c.store(c.call("@PyTuple_GetItem", varying, f"i64 {beyond}"), operand)
        c.call("@Py_IncRef", c.load(operand), type="void")
        c.call("@PyTuple_SetItem", operands, f"i64 {i}", c.load(operand), type="i32")
    c.store(c.value(f"call ptr (i64, ...) @PyTuple_Pack(i64 2, ptr %template, ptr {operands})"), packed)
    c.call("@Py_DecRef", operands, type="void")
    c.unless("ne", c.load(packed), "null", "none")
    c.store(c.call("@like", _word(c, "value")), made)
    value = c.load(made)
    c.unless("ne", value, "null", "drop")
    c.store(c.load(packed), value, at[Value, "packed"])
    type = c.load("%template", at[Recorded, "type"])
    for item, slot in ((type, "type"), (none, "names")):
        c.call("@Py_IncRef", item, type="void")
        c.store(item, value, at[Value, slot])
    c.line(f"ret ptr {value}")
    c.block("drop")
    c.call("@Py_DecRef", c.load(packed), type="void")
    c.label("none")
    c.line("ret ptr null")
    return c.text()


def _enroll(at: Offsets, recipe: type) -> str:
    """`enroll(tensor, recipe, tensors, count)`: `lazy.enroll` below all limits; whether the tensor now is in a group."""
    c = Code("internal i1 @enroll(ptr %tensor, ptr %recipe, ptr %tensors, i64 %count)")
    none, true = _word(c, "none"), _word(c, "true")
    Group = lazy.Group
    template = c.load("%recipe", at[recipe, "template"])
    chain, nbytes, group = c.variable(), c.variable(), c.variable("ptr")
    for total in (chain, nbytes):
        c.store("0", total, type="i64")
    c.store("null", group)

    def number(item: str, offset: int) -> str:
        return c.call("@PyLong_AsSsize_t", c.load(item, offset), type="i64")

    with c.each("%count") as (i, _):
        tensor = c.load(c.word("%tensors", i))
        length = number(tensor, at[Tensor, "_chain"])
        with c.when(c.compare("ugt", length, c.load(chain, type="i64"))):
            c.store(length, chain, type="i64")
        other = c.load(tensor, at[Tensor, "_group"])
        computed = c.compare("eq", other, none, "ptr")
        with c.when(computed):
            buffer = c.load(c.load(tensor, at[Tensor, "_value"]), at[Value, "buffer"])
            with c.when(c.compare("ne", buffer, none, "ptr")):
                c.add(nbytes, number(buffer, at[Buffer, "nbytes"]))
        with c.when(c.value(f"xor i1 {computed}, true")):
            c.unless("eq", c.load(other, at[Group, "parent"]), none, "no")
            known = c.load(group)
            with c.when(c.compare("ne", known, "null", "ptr")):
                c.unless("eq", known, other, "no")
            c.store(other, group)
    found, ref = c.load(group), c.variable("ptr")
    c.store("null", ref)
    anchor, open = (
        c.compare("eq", c.load(template, at[Recorded, name]), true, "ptr") for name in ("anchor", "open")
    )
    length, own = c.load(chain, type="i64"), number(template, at[Recorded, "chain"])
    longest = c.value(f"select i1 {open}, i64 {c.value(f'add i64 {own}, {length}')}, i64 {own}")
    below = c.compare("ult", length, str(lazy.CHAIN_LIMIT))
    c.unless("eq", c.value(f"or i1 {anchor}, {below}"), "true", "no", "i1")
    c.call("@Py_IncRef", found, type="void")
    with c.when(c.compare("eq", found, "null", "ptr")):
        made = c.call("@like", _word(c, "group"))
        c.store(made, group)
        c.unless("ne", made, "null", "no")
        c.store(c.call("@PyList_New", "i64 0"), made, at[Group, "members"])
        for name in ("nodes", "nbytes"):
            c.call("@Py_IncRef", _word(c, "zero"), type="void")
            c.store(_word(c, "zero"), made, at[Group, name])
        c.unless("ne", c.load(made, at[Group, "members"]), "null", "drop")
    c.store(c.call("@PyWeakref_NewRef", "%tensor", "null"), ref)
    c.unless("ne", c.load(ref), "null", "drop")
    # What may collect garbage is done: from here on nothing runs other code.
    found = c.load(group)
    members = c.load(found, at[Group, "members"])
    room = number(found, at[Group, "limit"])
    c.unless("slt", c.call("@PyList_Size", members, type="i64"), room, "drop", "i64")
    nodes = c.value(f"add i64 {number(found, at[Group, 'nodes'])}, {number('%recipe', at[recipe, 'nodes'])}")
    size = c.value(f"add i64 {number(found, at[Group, 'nbytes'])}, {c.load(nbytes, type='i64')}")
    c.unless("slt", nodes, str(lazy.NODE_LIMIT // 2), "drop", "i64")
    c.unless("slt", size, str(lazy.BYTE_LIMIT // 2), "drop", "i64")
    c.unless("eq", c.call("@PyList_Append", members, c.load(ref), type="i32"), "0", "drop", "i32")
    c.call("@Py_DecRef", c.load(ref), type="void")

    def replace(new: str, item: str, offset: int) -> None:
        old = c.load(item, offset)
        c.store(new, item, offset)
        c.call("@Py_DecRef", old, type="void")

    replace(c.call("@PyLong_FromLong", f"i64 {nodes}"), found, at[Group, "nodes"])
    replace(c.call("@PyLong_FromLong", f"i64 {size}"), found, at[Group, "nbytes"])
    chain_now = c.call("@PyLong_FromLong", "i64 " + c.value(f"select i1 {anchor}, i64 0, i64 {longest}"))
    replace(chain_now, "%tensor", at[Tensor, "_chain"])
    replace(found, "%tensor", at[Tensor, "_group"])
    c.line("ret i1 true")
    c.block("drop")
    c.call("@Py_DecRef", c.load(ref), type="void")
    c.call("@Py_DecRef", c.load(group), type="void")
    c.label("no")
    c.line("ret i1 false")
    return c.text()


def _known(at: Offsets, recipe: type) -> str:
    c = Code("internal ptr @known(ptr %self, ptr %args, i64 %nargs)")
    c.unless("eq", "%nargs", "3", "wrong", "i64")
    recipes, names, items = (c.load("%args", 8 * n) for n in range(3))
    none = _word(c, "none")
    found, value, tensor, count = c.variable("ptr"), c.variable("ptr"), c.variable("ptr"), c.variable()
    for item in (found, value, tensor):
        c.store("null", item)
    trace = c.call("@PyObject_GetAttr", _word(c, "modes"), _word(c, "trace"))
    c.call("@Py_DecRef", trace, type="void")
    c.unless("eq", trace, none, "other")
    key = c.call("@kind", names, items)
    c.unless("ne", key, "null", "other")
    known = c.call("@PyDict_GetItem", recipes, key)
    c.call("@Py_IncRef", known, type="void")
    c.store(known, found)
    c.call("@Py_DecRef", key, type="void")
    c.unless("ne", known, "null", "other")
    c.unless("eq", c.load(known, TYPE), _word(c, "recipe_type"), "other")
    template = c.load(known, at[recipe, "template"])
    c.unless("ne", template, none, "other")
    given = c.call("@PyTuple_Size", items, type="i64")
    c.unless("ult", given, str(_MOST), "other", "i64")
    tensors = c.variable("ptr", given)
    c.store("0", count, type="i64")
    with c.each(given) as (i, _):
        item = c.call("@PyTuple_GetItem", items, f"i64 {i}")
        with c.when(_is_tensor(c, item)):
            c.store(item, c.word(tensors, c.load(count, type="i64")))
            c.add(count, "1")
    number = c.load(count, type="i64")
    c.store(c.call("@value", template, tensors, f"i64 {number}"), value)
    c.unless("ne", c.load(value), "null", "other")
    c.store(c.call("@like", _word(c, "tensor")), tensor)
    made = c.load(tensor)
    c.unless("ne", made, "null", "other")
    c.store(c.load(value), made, at[Tensor, "_value"])
    required = c.load(known, at[recipe, "requires_grad"])
    c.call("@Py_IncRef", required, type="void")
    c.store(required, made, at[Tensor, "_requires_grad"])
    with c.when(c.compare("eq", required, _word(c, "true"), "ptr")):  # `lazy.name_interior`
        row = c.call("@PyList_New", "i64 0")
        c.unless("ne", row, "null", "unnamed")
        c.call("@Py_DecRef", none, type="void")
        c.store(row, c.load(value), at[Value, "names"])
        ref = c.call("@PyWeakref_NewRef", made, "null")
        c.unless("ne", ref, "null", "unnamed")
        wrong = c.call("@PyList_Append", row, ref, type="i32")
        c.call("@Py_DecRef", ref, type="void")
        c.unless("eq", wrong, "0", "unnamed", "i32")
    enrolled = c.call("@enroll", made, known, tensors, f"i64 {number}", type="i1")
    c.leave(enrolled, "done")
    c.call("@PyErr_Clear", type="void")
    operands = c.call("@PyTuple_New", f"i64 {number}")
    c.unless("ne", operands, "null", "unnamed")
    with c.each(number) as (i, _):
        item = c.load(c.word(tensors, i))
        c.call("@Py_IncRef", item, type="void")
        c.call("@PyTuple_SetItem", operands, f"i64 {i}", item, type="i32")
    four = c.variable("[4 x ptr]")
    for n, item in enumerate((made, operands, c.load(known, at[recipe, "nodes"]), template)):
        c.store(item, four, 8 * n)
    answer = c.call("@PyObject_Vectorcall", _word(c, "enroll"), four, "i64 4", "null")
    c.call("@Py_DecRef", operands, type="void")
    c.unless("ne", answer, "null", "failed")
    c.call("@Py_DecRef", answer, type="void")
    c.label("done")
    c.call("@Py_DecRef", known, type="void")
    c.line(f"ret ptr {made}")
    c.block("unnamed")
    c.call("@PyErr_Clear", type="void")
    c.call("@Py_DecRef", made, type="void")
    c.store("null", value)  # went with it
    c.label("other")
    c.call("@PyErr_Clear", type="void")
    for item in (found, value):
        c.call("@Py_DecRef", c.load(item), type="void")
    c.call("@Py_IncRef", none, type="void")
    c.line(f"ret ptr {none}")
    c.block("failed")
    c.call("@Py_DecRef", made, type="void")
    c.call("@Py_DecRef", known, type="void")
    c.line("ret ptr null")
    c.block("wrong")
    c.call("@PyErr_BadInternalCall", type="void")
    c.line("ret ptr null")
    return c.text()
