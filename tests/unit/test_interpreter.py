"""What the library takes for granted of the interpreter: the layout of objects, and what counts of references say.

A version of Python is added to `interpreter.KNOWN` when these tests, and all others, pass on it.
"""

from __future__ import annotations

import ctypes
import dis
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any

import pytest
from platform_needs import needs_builtins

import tilewright as tw
from tilewright.core import interpreter
from tilewright.jit import jitted
from tilewright.runtime import buffers, builtin
from tilewright.tensor import hooks

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
counts_are_known = pytest.mark.skipif(
    interpreter.reason() is not None, reason=f"no counts are relied on: {interpreter.reason()}"
)


class Slots:
    __slots__ = ("item", "other")
    item: object
    other: object


def native_count(address: int) -> int:
    return ctypes.c_uint32.from_address(address + builtin.REFERENCES).value


def test_the_project_names_the_known_versions() -> None:
    if not PROJECT.exists():
        pytest.skip("an installed package has no pyproject.toml whose classifiers could be compared")
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    said = {
        tuple(map(int, line.rpartition(" ")[2].split(".")))
        for line in project["classifiers"]
        if line.startswith("Programming Language :: Python :: 3.")
    }
    assert said == set(interpreter.KNOWN)
    assert project["requires-python"] == f">={'.'.join(map(str, interpreter.KNOWN[0]))}"


@needs_builtins
def test_an_object_begins_with_its_count_and_its_type() -> None:
    holder = Slots()
    holder.item = Slots()
    address = id(holder.item)
    assert native_count(address) == 1
    assert ctypes.c_void_p.from_address(address + builtin.TYPE).value == id(Slots)
    at = builtin.slot_offset(Slots, "item")
    assert at is not None and at >= builtin.HEADER
    assert ctypes.c_void_p.from_address(id(holder) + at).value == address


def _in_a_local(holder: Slots) -> Iterator[None]:
    item = holder.item  # noqa: F841
    yield


def _as_an_argument(item: object) -> Iterator[None]:
    yield


def _below_a_call(holder: Slots) -> Iterator[None]:
    def inner(item: object) -> Iterator[None]:
        yield

    item = holder.item
    yield from inner(item)


def _in_a_container(holder: Slots) -> Iterator[None]:
    kept = [(holder.item,)]  # noqa: F841
    yield


@counts_are_known
@pytest.mark.parametrize(
    "begin",
    [_in_a_local, lambda holder: _as_an_argument(holder.item), _below_a_call, _in_a_container],
    ids=["local", "argument", "argument of an argument", "container"],
)
def test_whoever_else_holds_an_object_is_counted(begin: Callable[[Slots], Iterator[None]]) -> None:
    """Also a caller that waits, from whose local variables the interpreter borrows."""
    holder = Slots()
    holder.item = Slots()
    address = id(holder.item)
    other = begin(holder)
    assert next(other, 0) is None
    assert native_count(address) > 1
    item = holder.item
    assert sys.getrefcount(item) > jitted._SOLE
    other.close()  # type: ignore[attr-defined]
    del other
    assert sys.getrefcount(item) == jitted._SOLE
    del item
    assert native_count(address) == 1


@counts_are_known
def test_an_argument_of_calls_that_run_is_counted() -> None:
    """A count of one in the middle of calls that were given the object would be a wrong answer."""
    holder = Slots()
    holder.item = Slots()
    address = id(holder.item)

    def outer(item: object) -> int:
        return inner(item)

    def inner(item: object) -> int:
        return native_count(address)

    for _ in range(100):  # also when the interpreter has specialised the code
        assert outer(holder.item) > 1
        assert inner(holder.item) > 1
        assert (lambda *items: native_count(address))(holder.item) > 1
        assert native_count(address) == 1


def _arguments_of_getrefcount(function: Callable[..., Any]) -> list[tuple[str, ...]]:
    """How the code of a function loads what it asks the count of: an instruction, or two for an attribute."""
    assert isinstance(function, FunctionType)
    code = [i for i in dis.get_instructions(function) if i.opname not in ("PUSH_NULL", "PRECALL", "CACHE")]
    found = []
    for at, instruction in enumerate(code):
        if instruction.argval == "getrefcount":
            end = next(n for n in range(at, len(code)) if code[n].opname.startswith("CALL"))
            found.append(tuple(i.opname for i in code[at + 1 : end]))
    return found


def test_counts_are_asked_for_as_they_were_measured() -> None:
    """Whether a variable on its way to `getrefcount` is counted depends on the instruction that loads it."""
    (measured,) = _arguments_of_getrefcount(jitted._count_sole)
    asked = [
        how
        for function in (jitted.Jitted._run, jitted.Jitted._deliver)
        for how in _arguments_of_getrefcount(function)
    ]
    assert asked == [measured] * 3
    exclusive = buffers.Buffer.exclusive.fget  # type: ignore[attr-defined]
    assert _arguments_of_getrefcount(exclusive) == _arguments_of_getrefcount(buffers._count_single_reference)
    assert len(_arguments_of_getrefcount(hooks._references)) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"implementation": SimpleNamespace(name="pypy")}, "the interpreter is pypy, not CPython"),
        ({"version_info": (3, 99, 0)}, "CPython 3.99 is not among the known versions, 3.11 to 3."),
    ],
)
def test_nothing_is_assumed_of_another_interpreter(
    change: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sysconfig.get_config_var", lambda name: None)  # a build with the global lock
    for name, value in change.items():
        monkeypatch.setattr(sys, name, value)
    assert (interpreter.reason() or "").startswith(said)


def test_a_free_threaded_build_is_another_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysconfig.get_config_var", lambda name: name == "Py_GIL_DISABLED")
    assert "free-threaded" in (interpreter.reason() or "")


def test_a_process_without_the_global_lock_is_refused() -> None:
    program = "import sys\nsys._is_gil_enabled = lambda: False\nimport tilewright"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ImportError: tilewright's threads rely on Python's global lock" in done.stderr
    assert "PYTHON_GIL=1" in done.stderr


UNKNOWN = """
import sysconfig
sysconfig.get_config_var = lambda name: None  # a build with the global lock
from tilewright.core import interpreter
interpreter.KNOWN = ((2, 7), (3, 0))
import numpy as np, tilewright as tw
from tilewright.jit import jitted
from tilewright.runtime import builtin
from tilewright.runtime.buffers import Buffer

x = tw.asarray(np.arange(6, dtype=np.float32))
f = tw.jit(lambda a: a * 2)
total = tw.zeros((6,)).realize()
assert not total._buffer().exclusive
@tw.jit
def add(a):
    total.assign(total + a)
    return total.sum()
seen = []
for _ in range(4):
    assert f(x).numpy().tolist() == [0, 2, 4, 6, 8, 10]
    seen.append(total.numpy())
    add(x)
assert total.tolist() == [0, 4, 8, 12, 16, 20]
assert [s.tolist()[1] for s in seen] == [0, 1, 2, 3]

w = tw.tensor([1.0, 2.0], requires_grad=True)
y = w * 3
grads = []
y.register_hook(lambda g: g * 2)
y.register_hook(lambda g: grads.append(g.tolist()))
y.retain_grad()
(y * y).sum().backward()
assert w.grad.tolist() == [36, 72] and grads == [[12, 24]], (w.grad, grads)

w = tw.tensor([1.0], requires_grad=True)
hooked, alike = w * 2, w * 2
hooked.register_hook(lambda g: g * 10)
(hooked + alike).sum().backward()
assert w.grad.tolist() == [22]  # the hook is on one of them
w.grad = None
late = w * 2
used = late * 3
late.register_hook(lambda g: g * 10)
used.sum().backward()
assert w.grad.tolist() == [60]  # also for what was computed before

assert not builtin.available()
text = f.explain(x)
said = text.split("== calls ==")[1]
assert "every call runs Python code, because CPython" in said and "2.7 to 3.0" in said, said
"""


def test_unknown_versions_compute_the_same_through_python_and_say_so() -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", UNKNOWN], check=True, timeout=120)


@needs_builtins
def test_known_versions_have_nothing_to_say() -> None:
    f = tw.jit(lambda a: a * 2)
    assert "== calls ==" not in f.explain(tw.tensor([1.0]))
