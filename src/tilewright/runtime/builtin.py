"""Builtin functions made of JIT code: LLVM IR that calls CPython's C API, callable from Python like a function of C.

A Python frame costs as much as a small kernel, and one compiled call would need ten of them. So the short way through a
call is IR text over the C API, compiled like any kernel: the symbols it names are found in the running process, so that
object code in the cache holds no address, and what it knows of Python objects are the offsets of `__slots__`, which
`slot_offset` observes in this process. Where a piece of that is missing (another interpreter, a build without the GIL, a
symbol that is not exported) `available` is False, `unavailable` says why, and everything runs in Python.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from tilewright.core import interpreter
from tilewright.runtime import driver
from tilewright.runtime.jit import KernelCompileError, default_library, loaded
from tilewright.runtime.memory import Memory

__all__ = [
    "Code",
    "Offsets",
    "Template",
    "available",
    "compiled",
    "function",
    "heap_type",
    "keep_for_ever",
    "method",
    "once",
    "slot_offset",
    "slot_offsets",
    "table",
    "unavailable",
    "word",
    "word_source",
]

P = ParamSpec("P")
R = TypeVar("R")
Offsets = dict[tuple[type, str], int]

REFERENCES, TYPE, HEADER = (
    0,
    8,
    16,
)  # of an object: byte offsets of its reference count and type, and where its own begins
_FAST, _KEYWORDS, _NO_ARGUMENTS = 0x80, 0x2, 0x4  # METH_FASTCALL, METH_KEYWORDS, METH_NOARGS
_DEALLOC, _NOT_MADE_BY_CALLS = 52, 1 << 7  # Py_tp_dealloc, Py_TPFLAGS_DISALLOW_INSTANTIATION

_DECLARATIONS = """
declare void @Py_IncRef(ptr)
declare void @Py_DecRef(ptr)
declare ptr @PyType_GenericAlloc(ptr, i64)
declare i32 @PyType_IsSubtype(ptr, ptr)
declare void @PyObject_Free(ptr)
declare ptr @PyObject_GetAttr(ptr, ptr)
declare i32 @PyObject_SetAttr(ptr, ptr, ptr)
declare i32 @PyObject_RichCompareBool(ptr, ptr, i32)
declare ptr @PyObject_Vectorcall(ptr, ptr, i64, ptr)
declare ptr @PyObject_CallNoArgs(ptr)
declare ptr @PyObject_CallOneArg(ptr, ptr)
declare ptr @PyIter_Next(ptr)
declare i32 @PySet_Contains(ptr, ptr)
declare ptr @PyObject_Repr(ptr)
declare ptr @PyWeakref_NewRef(ptr, ptr)
declare ptr @PyTuple_New(i64)
declare i32 @PyTuple_SetItem(ptr, i64, ptr)
declare ptr @PyTuple_GetItem(ptr, i64)
declare i64 @PyTuple_Size(ptr)
declare ptr @PyTuple_Pack(i64, ...)
declare ptr @PyList_GetItem(ptr, i64)
declare i64 @PyList_Size(ptr)
declare ptr @PyList_New(i64)
declare i32 @PyList_SetItem(ptr, i64, ptr)
declare i32 @PyList_Append(ptr, ptr)
declare ptr @PyList_AsTuple(ptr)
declare i32 @PyList_SetSlice(ptr, i64, i64, ptr)
declare ptr @PyDict_New()
declare i64 @PyDict_Size(ptr)
declare i32 @PyDict_SetItem(ptr, ptr, ptr)
declare ptr @PyDict_GetItem(ptr, ptr)
declare ptr @PyDict_SetDefault(ptr, ptr, ptr)
declare void @PyDict_Clear(ptr)
declare ptr @PyLong_AsVoidPtr(ptr)
declare i64 @PyLong_AsSsize_t(ptr)
declare i64 @PyLong_AsUnsignedLongLong(ptr)
declare ptr @PyLong_FromLong(i64)
declare ptr @PyErr_Occurred()
declare void @PyErr_BadInternalCall()
declare void @PyErr_Clear()
declare void @PyErr_Fetch(ptr, ptr, ptr)
declare void @PyErr_Restore(ptr, ptr, ptr)
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare i32 @PyGILState_Ensure()
declare void @PyGILState_Release(i32)
declare i32 @PyOS_InterruptOccurred()
"""


class Code:
    """The text of one function in LLVM IR, line by line; every method that computes returns the name of its value.

    Local variables are stack slots (`variable`), which the pipeline turns into registers.
    """

    def __init__(self, signature: str) -> None:
        self._signature = signature
        self._variables: list[str] = []
        self._lines: list[str] = []
        self._count = 0

    def text(self) -> str:
        body = [*self._variables, "br label %start", "start:", *self._lines]
        return f"define {self._signature} nounwind {{\nentry:\n" + "\n".join(body) + "\n}\n"

    def line(self, text: str) -> None:
        self._lines.append(text)

    def value(self, text: str) -> str:
        self._count += 1
        name = f"%v{self._count}"
        self._lines.append(f"{name} = {text}")
        return name

    def variable(self, type: str = "i64", count: str = "") -> str:
        """A stack slot; of `count` elements, made where the code is now, when that is given."""
        if count:
            return self.value(f"alloca {type}, i64 {count}")
        self._count += 1
        self._variables.append(f"%s{self._count} = alloca {type}")
        return f"%s{self._count}"

    def at(self, base: str, offset: int | str) -> str:
        return self.value(f"getelementptr i8, ptr {base}, i64 {offset}")

    def word(self, base: str, index: str) -> str:
        """The address of the word `index` of an array of words."""
        return self.value(f"getelementptr i64, ptr {base}, i64 {index}")

    def load(self, base: str, offset: int = 0, type: str = "ptr") -> str:
        return self.value(f"load {type}, ptr {self.at(base, offset) if offset else base}")

    def store(self, item: str, base: str, offset: int = 0, type: str = "ptr") -> None:
        self.line(f"store {type} {item}, ptr {self.at(base, offset) if offset else base}")

    def call(self, function: str, *arguments: str, type: str = "ptr") -> str:
        """A call; arguments are pointers unless they name their type."""
        given = ", ".join(a if " " in a else f"ptr {a}" for a in arguments)
        if type == "void":
            self.line(f"call void {function}({given})")
            return ""
        return self.value(f"call {type} {function}({given})")

    def add(self, address: str, number: str) -> None:
        """Add to the word at an address."""
        self.store(self.value(f"add i64 {self.load(address, type='i64')}, {number}"), address, type="i64")

    def compare(self, how: str, a: str, b: str, type: str = "i64") -> str:
        return self.value(f"icmp {how} {type} {a}, {b}")

    def label(self, name: str = "") -> str:
        """Begin a block, which the code so far runs into; without a name a new one is made."""
        if not name:
            self._count += 1
            name = f"b{self._count}"
        self.line(f"br label %{name}")
        self.line(f"{name}:")
        return name

    def block(self, name: str) -> None:
        """Begin a block that is reached by branches only."""
        self.line(f"{name}:")

    def leave(self, condition: str, target: str) -> None:
        """Go to `target` when `condition` holds, else on."""
        self._count += 1
        self.line(f"br i1 {condition}, label %{target}, label %b{self._count}")
        self.line(f"b{self._count}:")

    def unless(self, how: str, a: str, b: str, target: str, type: str = "ptr") -> None:
        """Go to `target` unless the comparison holds."""
        self._count += 1
        holds = self.compare(how, a, b, type)
        self.line(f"br i1 {holds}, label %c{self._count}, label %{target}")
        self.line(f"c{self._count}:")

    @contextmanager
    def when(self, condition: str) -> Iterator[None]:
        self._count += 1
        number = self._count
        self.line(f"br i1 {condition}, label %then{number}, label %end{number}")
        self.line(f"then{number}:")
        yield
        self.line(f"br label %end{number}")
        self.line(f"end{number}:")

    @contextmanager
    def each(self, count: str, records: str = "", nbytes: int = 0) -> Iterator[tuple[str, str]]:
        """A loop over `count` records of `nbytes` each: the number and the address of one."""
        index = self.variable()
        self.store("0", index, type="i64")
        self._count += 1
        number = self._count
        self.line(f"br label %head{number}")
        self.line(f"head{number}:")
        i = self.load(index, type="i64")
        more = self.compare("ult", i, count)
        self.line(f"br i1 {more}, label %body{number}, label %done{number}")
        self.line(f"body{number}:")
        record = self.at(records, self.value(f"mul i64 {i}, {nbytes}")) if records else ""
        yield i, record
        self.add(index, "1")
        self.line(f"br label %head{number}")
        self.line(f"done{number}:")


class _Guard:
    """The lock under which native code is installed; a forked child has a fresh one."""

    def __init__(self) -> None:
        self.renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        self.lock = threading.RLock()


_guard = _Guard()


def once(function: Callable[P, R]) -> Callable[P, R]:
    """A function that does its work in the first call, while other threads wait for it; later calls give the same result."""
    results: list[R] = []

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        if not results:
            with _guard.lock:
                if not results:
                    results.append(function(*args, **kwargs))
        return results[0]

    return wrapped


@once
def unavailable() -> str | None:
    """Why this process runs no builtins made of JIT code; None when it does. The first call compiles nothing."""
    why = interpreter.reason()
    if why is not None:
        return why
    if struct.calcsize("P") != 8:
        return "pointers have 32 bits"
    if not driver.has_futex(default_library().target.triple):
        # Workers sleep and wake through Python, which a caller that holds the GIL would wait for in vain.
        return "the system is not Linux"
    return None if _objects_begin_as_known() else "objects of this build of CPython begin in another way"


def available() -> bool:
    """Whether this process runs builtins made of JIT code."""
    return unavailable() is None


def _objects_begin_as_known() -> bool:
    """Whether an object has its count of references, its type, and what is its own where native code looks for them."""
    probe = object()
    address = id(probe)
    counts = [ctypes.c_uint32.from_address(address + REFERENCES).value]
    held = [probe] * 5
    counts.append(ctypes.c_uint32.from_address(address + REFERENCES).value)
    return (
        ctypes.c_void_p.from_address(id(Code) + TYPE).value == id(type)
        and object.__basicsize__ == HEADER
        and counts[1] - counts[0] == len(held)
    )


def compiled(name: str, functions: Sequence[str]) -> int | None:
    """The address of the function `name`, the last of `functions`; None where a symbol of the C API is missing."""
    try:
        address = default_library().compile([(name, _DECLARATIONS + "".join(functions), "")])[name]
    except KernelCompileError:
        return None
    keep_for_ever(*loaded)  # a destructor in it may run when the modules are gone
    return address


def slot_offset(cls: type, name: str) -> int | None:
    """Where objects of `cls` keep the slot `name`: found by looking for a value that was put there."""
    probe: Any = object.__new__(cls)
    sentinel = object()
    object.__setattr__(probe, name, sentinel)
    found = [
        offset
        for offset in range(HEADER, cls.__basicsize__, 8)
        if ctypes.c_void_p.from_address(id(probe) + offset).value == id(sentinel)
    ]
    if len(found) != 1:
        return None
    object.__setattr__(probe, name, None)
    return found[0] if ctypes.c_void_p.from_address(id(probe) + found[0]).value == id(None) else None


def slot_offsets(slots: Mapping[type, Iterable[str]]) -> Offsets | None:
    """`slot_offset` of several; None where one cannot be seen."""
    found: Offsets = {}
    for cls, names in slots.items():
        for name in names:
            if not name.startswith("__"):
                offset = slot_offset(cls, name)
                if offset is None:
                    return None
                found[cls, name] = offset
    return found


class _MethodDef(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


class _TypeSlot(ctypes.Structure):
    _fields_ = (("slot", ctypes.c_int), ("function", ctypes.c_void_p))


class _TypeSpec(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("basicsize", ctypes.c_int),
        ("itemsize", ctypes.c_int),
        ("flags", ctypes.c_uint),
        ("slots", ctypes.POINTER(_TypeSlot)),
    )


_immortal: list[Any] = []  # what the interpreter refers to without counting


def keep_for_ever(*items: Any) -> None:
    """Never free these, not even while the interpreter goes down: native code reaches them until the end."""
    for item in items:
        _immortal.append(item)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(item))


def function(name: str, address: int) -> Any:
    """A function `(*args)` whose code, over `(ptr, ptr args, i64 nargs)`, lies at `address`."""
    row = _MethodDef(name.encode(), address, _FAST, b"")
    keep_for_ever(row)
    make = ctypes.pythonapi.PyCFunction_NewEx
    make.restype = ctypes.py_object
    make.argtypes = (ctypes.POINTER(_MethodDef), ctypes.c_void_p, ctypes.c_void_p)
    return make(ctypes.byref(row), None, None)


def method(cls: type, name: str, address: int, doc: str | None, arguments: bool = True) -> Any:
    """A method of `cls`, `(self, *args, **kwargs)` or `(self)`, whose code lies at `address`."""
    flags = _FAST | _KEYWORDS if arguments else _NO_ARGUMENTS
    signature = f"{name}($self, /{', *args, **kwargs' if arguments else ''})\n--\n\n"  # for inspect
    row = _MethodDef(name.encode(), address, flags, (signature + (doc or "")).encode())
    keep_for_ever(row)
    make = ctypes.pythonapi.PyDescr_NewMethod
    make.restype, make.argtypes = ctypes.py_object, (ctypes.py_object, ctypes.POINTER(_MethodDef))
    return make(cls, ctypes.byref(row))


def heap_type(name: str, words: int, dealloc: int) -> type:
    """A type of objects with `words` words of their own that Python code cannot make; `dealloc` frees one."""
    slots = (_TypeSlot * 2)(_TypeSlot(_DEALLOC, dealloc), _TypeSlot(0, None))
    spec = _TypeSpec(name.encode(), HEADER + 8 * words, 0, _NOT_MADE_BY_CALLS, slots)
    make = ctypes.pythonapi.PyType_FromSpec
    make.restype, make.argtypes = ctypes.py_object, (ctypes.POINTER(_TypeSpec),)
    made: type = make(ctypes.byref(spec))
    keep_for_ever(spec, slots, made)
    return made


def table(words: Sequence[int]) -> Memory:
    """Native memory that holds these words."""
    memory = Memory(8 * len(words))
    memory.words(0, len(words))[:] = [word & 0xFFFFFFFFFFFFFFFF for word in words]
    return memory


class Template:
    """Objects like a given one: their type and the values of their slots, except for those that differ from one to the next.

    The table is type, number of slots, then offset and value of each. `like` in IR makes an object of it.
    """

    __slots__ = ("address", "keep")

    def __init__(self, prototype: object, offset: Callable[[type, str], int], without: Sequence[str]) -> None:
        cls = type(prototype)
        words = [id(cls), 0]
        values = []
        for name in cls.__dict__["__slots__"]:
            if not name.startswith("__") and name not in without:
                values.append(getattr(prototype, name))
                words += [offset(cls, name), id(values[-1])]
        words[1] = len(values)
        memory = table(words)
        self.address = memory.address
        self.keep = (memory, values)

    @staticmethod
    def source() -> str:
        """`like` in IR: a new object of a template; null, with an exception, when memory runs out."""
        c = Code("internal ptr @like(ptr %template)")
        made = c.call("@PyType_GenericAlloc", c.load("%template"), "i64 0")
        c.unless("ne", made, "null", "full")
        with c.each(c.load("%template", 8, "i64"), c.at("%template", 16), 16) as (_, row):
            item = c.load(row, 8)
            c.call("@Py_IncRef", item, type="void")
            c.store(item, c.at(made, c.load(row, 0, "i64")))
        c.line(f"ret ptr {made}")
        c.block("full")
        c.line("ret ptr null")
        return c.text()


def word_source(maker: str, function: str) -> str:
    """IR text of `maker(words)`, which keeps the address of a table of Python objects and gives that of the builtin
    `function`; `word` reads the table."""
    return f"""@words = internal global ptr null
define ptr @{maker}(ptr %words) nounwind {{
  store ptr %words, ptr @words
  ret ptr @{function}
}}
"""


def word(c: Code, words: Sequence[str], name: str) -> str:
    """The object of that name, where the table lies in the order of `words`."""
    return c.load(c.load("@words"), 8 * words.index(name))
