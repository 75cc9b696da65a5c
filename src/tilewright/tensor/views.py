"""``Tensor.numpy`` as a builtin made of JIT code: an array over computed memory of our own, in one step.

A pending tensor is computed first, by ``lazy.realize``. Everything else (a traced tensor, memory of another's) goes through
the method in Python, which it replaces. It calls NumPy's C API through the table that NumPy gives extension modules.
"""

from __future__ import annotations

import ctypes
from importlib import import_module
from typing import Any

import numpy as np

from tilewright.graph.ir import TensorType, Value
from tilewright.runtime import builtin
from tilewright.runtime.blocks import block_type
from tilewright.runtime.buffers import Buffer, PoolBlock
from tilewright.runtime.builtin import TYPE, Code
from tilewright.tensor import lazy
from tilewright.tensor.modes import modes

__all__ = ["install"]

_NEW_ARRAY, _SET_BASE = (
    94,
    282,
)  # PyArray_NewFromDescr, PyArray_SetBaseObject: numbers in NumPy's table, since 1.7
_ALIGNED = 0x0100  # NPY_ARRAY_ALIGNED; without NPY_ARRAY_WRITEABLE
_MOST_AXES = 32
_WORDS = (
    "new_array",
    "set_base",
    "array_type",
    "slow",
    "realize",
    "modes",
    "trace",
    "none",
    "block_type",
    "pool_block_type",
)


@builtin.once
def install(tensor: type) -> None:
    """Replace the method ``numpy`` of ``tensor``, where the interpreter allows it."""
    if not builtin.available() or block_type() is None:
        return
    slots = [
        (tensor, "_value"), (tensor, "_trace"), (Value, "type"), (Value, "buffer"), (TensorType, "shape"),
        (Buffer, "_owner"), (Buffer, "address"), (Buffer, "count"), (Buffer, "dtype"),
    ]  # fmt: skip
    offsets = {name: builtin.slot_offset(cls, name) for cls, name in slots}
    api = _numpy_table()
    if api is None or None in offsets.values():
        return
    functions = builtin.compiled(
        "tilewright_views", [_source({k: v or 0 for k, v in offsets.items()}), _TABLE]
    )
    if functions is None:
        return
    method, words = (ctypes.c_uint64 * 2).from_address(_Entry(functions)())
    slow, realize = tensor.numpy, lazy.realize  # type: ignore[attr-defined]
    items: dict[str, Any] = {
        "slow": slow, "realize": realize, "array_type": np.ndarray, "modes": modes, "trace": "trace", "none": None,
        "block_type": block_type(), "pool_block_type": PoolBlock,
    }  # fmt: skip
    builtin.keep_for_ever(*items.values())
    addresses = {name: id(item) for name, item in items.items()}
    addresses |= {"new_array": api[_NEW_ARRAY], "set_base": api[_SET_BASE]}
    (ctypes.c_uint64 * len(_WORDS)).from_address(words)[:] = [addresses[name] for name in _WORDS]
    tensor.numpy = builtin.method(tensor, "numpy", method, slow.__doc__, arguments=False)  # type: ignore[attr-defined]


_Entry = ctypes.CFUNCTYPE(ctypes.c_void_p)
_TABLE = f"""
@words = internal global [{len(_WORDS)} x i64] zeroinitializer
@functions = private constant [2 x ptr] [ptr @numpy, ptr @words]
define ptr @tilewright_views() nounwind {{ ret ptr @functions }}
"""


def _numpy_table() -> Any:
    """The table of NumPy's C API, by number; None where it is not where it was."""
    try:
        module: Any = import_module("numpy._core._multiarray_umath")
        get = ctypes.pythonapi.PyCapsule_GetPointer
        get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
        table = (ctypes.c_uint64 * (_SET_BASE + 1)).from_address(get(module._ARRAY_API, None))
    except (ImportError, AttributeError, ValueError, TypeError):
        return None
    return table if table[2] == id(np.ndarray) else None  # the array type's place


def _source(offsets: dict[str, int]) -> str:
    c = Code("internal ptr @numpy(ptr %self, ptr %unused)")

    def word(name: str) -> str:
        return c.load("@words", 8 * _WORDS.index(name))

    none = word("none")
    c.unless("eq", c.load("%self", offsets["_trace"]), none, "slow")
    pending = c.load(c.load("%self", offsets["_value"]), offsets["buffer"])
    with c.when(c.compare("eq", pending, none, "ptr")):
        realized = c.call("@PyObject_CallOneArg", word("realize"), "%self")
        c.unless("ne", realized, "null", "raised")
        c.call("@Py_DecRef", realized, type="void")
    value = c.load("%self", offsets["_value"])
    buffer, shape = c.load(value, offsets["buffer"]), c.load(c.load(value, offsets["type"]), offsets["shape"])
    c.unless("ne", buffer, none, "slow")
    owner = c.load(buffer, offsets["_owner"])
    kind = c.load(owner, TYPE)
    ours = c.value(
        f"or i1 {c.compare('eq', kind, word('block_type'), 'ptr')}, {c.compare('eq', kind, word('pool_block_type'), 'ptr')}"
    )
    c.unless("eq", ours, "true", "slow", "i1")
    c.call("@Py_IncRef", owner, type="void")  # other code may rebind the tensor from here on
    c.call("@Py_IncRef", shape, type="void")
    dtype = c.load(buffer, offsets["dtype"])
    c.call("@Py_IncRef", dtype, type="void")
    address = c.call("@PyLong_AsVoidPtr", c.load(buffer, offsets["address"]))
    elements = c.call("@PyLong_AsSsize_t", c.load(buffer, offsets["count"]), type="i64")
    trace = c.call("@PyObject_GetAttr", word("modes"), word("trace"))
    c.call("@Py_DecRef", trace, type="void")
    axes = c.call("@PyTuple_Size", shape, type="i64")
    product = c.variable()
    c.store("1", product, type="i64")
    c.unless("eq", trace, none, "drop")
    c.unless("ule", axes, str(_MOST_AXES), "drop", "i64")
    sizes = c.variable("i64", axes)
    with c.each(axes) as (i, _):
        size = c.call("@PyLong_AsSsize_t", c.call("@PyTuple_GetItem", shape, f"i64 {i}"), type="i64")
        c.store(size, c.word(sizes, i), type="i64")
        c.store(c.value(f"mul i64 {c.load(product, type='i64')}, {size}"), product, type="i64")
    c.unless("eq", c.load(product, type="i64"), elements, "drop", "i64")
    c.call("@Py_DecRef", shape, type="void")
    array = c.call(
        word("new_array"), word("array_type"), dtype, "i32 " + c.value(f"trunc i64 {axes} to i32"), sizes, "null",
        address, f"i32 {_ALIGNED}", "null",
    )  # takes over the reference to the type  # fmt: skip
    c.unless("ne", array, "null", "failed")
    wrong = c.call(word("set_base"), array, owner, type="i32")  # takes over the reference to the owner
    c.unless("eq", wrong, "0", "unowned", "i32")
    c.line(f"ret ptr {array}")
    c.block("unowned")
    c.call("@Py_DecRef", array, type="void")
    c.line("ret ptr null")
    c.block("failed")
    c.call("@Py_DecRef", owner, type="void")
    c.label("raised")
    c.line("ret ptr null")
    c.block("drop")
    for held in (owner, shape, dtype):
        c.call("@Py_DecRef", held, type="void")
    c.call("@PyErr_Clear", type="void")
    c.label("slow")
    c.line(f"ret ptr {c.call('@PyObject_CallOneArg', word('slow'), '%self')}")
    return c.text()
