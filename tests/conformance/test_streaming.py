"""Stores past the caches: the same memory as other stores leave, wherever a result lies, and only where they can pay."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from conformance.emitting import HOST, LEVELS, LIBRARIES, counter, targets
from tilewright.codegen.llvm import emit, scratch_bytes
from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.core.shape import static, upper
from tilewright.graph.graph import Graph
from tilewright.graph.reference import evaluate
from tilewright.kernel.digest import digest
from tilewright.kernel.ir import HI, LO, Buf, Kernel, Loop, Store, index, load, op, var
from tilewright.kernel.text import parse_kernel, print_kernel
from tilewright.lower.groups import form_groups
from tilewright.lower.lowering import lower_groups
from tilewright.recipes.machine import Machine
from tilewright.runtime.target import Target

i, j = var("i"), var("j")
ROOM = 64  # bytes around a result that nobody may touch


def added(dtype: DType, lanes: int, columns: int = 0) -> Kernel:
    """o = a + b over elements, or over rows of ``columns``."""
    at = i * columns + j if columns else i
    body = Store("o", at, op("add", load("a", at, dtype), load("b", at, dtype)))
    inner = Loop(
        "j" if columns else "i",
        index(0) if columns else LO,
        index(columns) if columns else HI,
        (body,),
        "vector",
        lanes,
    )
    loop = Loop("i", LO, HI, (inner,)) if columns else inner
    bufs = (Buf("a", dtype, "r"), Buf("b", dtype, "r"), Buf("o", dtype, "w", stream=True))
    return Kernel(bufs, (loop,), name=f"stream{next(counter)}")


def call(kernel: Kernel, target: Target, pointers: list[int], lo: int, hi: int) -> str:
    """Run a kernel compiled for ``target`` on memory given by address; returns its LLVM IR."""
    scratch = memory(scratch_bytes(kernel), 0)
    text = emit(kernel, target)
    address = LIBRARIES[target.name].compile([(kernel.name, text, "")])[kernel.name]
    table = (ctypes.c_void_p * len(pointers))(*pointers)
    status = ctypes.c_int32(0)
    signature = ctypes.CFUNCTYPE(
        None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p
    )
    signature(address)(table, scratch.ctypes.data, lo, hi, ctypes.byref(status))
    return text


def memory(nbytes: int, offset: int) -> np.ndarray[Any, Any]:
    """Bytes of which the first that belongs to a result lies ``offset`` behind a multiple of 64, after ``ROOM`` others."""
    raw = np.full(nbytes + 4 * ROOM, 0xA5, np.uint8)
    start = (-raw.ctypes.data) % 64 + offset
    return raw[start : start + nbytes + 2 * ROOM]


PLACES = [
    (d, n)
    for d in (dt.float32, dt.float64, dt.int8, dt.bfloat16)
    for n in (0, 4, 8, 32, 60)
    if n % d.itemsize == 0
]


@targets
@pytest.mark.parametrize(("dtype", "offset"), PLACES, ids=str)
@pytest.mark.parametrize("size", [1, 31, 64, 500])
def test_results_at_any_address(target: Target, dtype: DType, offset: int, size: int) -> None:
    """Aligned or not, with or without a rest: every element is written, and nothing around them."""
    values = [(np.arange(size) % 50 + n).astype(dtype.numpy) for n in (1, 3)]
    nbytes = size * dtype.itemsize
    for lanes in (target.lanes(dtype.itemsize), 4 * target.lanes(4)):
        out = memory(nbytes, offset)
        pointers = [v.ctypes.data for v in values] + [out.ctypes.data + ROOM]
        call(added(dtype, lanes), target, pointers, 0, size)
        result = out[ROOM:-ROOM].copy().view(dtype.numpy)
        np.testing.assert_array_equal(result, values[0] + values[1])
        assert (out[:ROOM] == 0xA5).all() and (out[-ROOM:] == 0xA5).all()


@targets
@pytest.mark.parametrize("columns", [16, 17, 64, 100])
def test_rows(target: Target, columns: int) -> None:
    """Rows whose beginnings are aligned, or some of them."""
    rows = 9
    a, b = (np.random.default_rng(n).standard_normal((rows, columns)).astype(np.float32) for n in (1, 2))
    out = memory(a.nbytes, 0)
    pointers = [a.ctypes.data, b.ctypes.data, out.ctypes.data + ROOM]
    call(added(dt.float32, target.lanes(4), columns), target, pointers, 2, rows)
    result = out[ROOM:-ROOM].copy().view(np.float32).reshape(rows, columns)
    np.testing.assert_array_equal(result[2:], a[2:] + b[2:])


@targets
def test_over_an_operand(target: Target) -> None:
    """A result that takes an operand's memory."""
    out = memory(4000, 0)
    view = out[ROOM:-ROOM].view(np.float32)
    view[:] = np.arange(1000)
    other = np.full(1000, 0.5, np.float32)
    place = out.ctypes.data + ROOM
    call(added(dt.float32, 32), target, [place, other.ctypes.data, place], 0, 1000)
    np.testing.assert_array_equal(view, np.arange(1000, dtype=np.float32) + np.float32(0.5))


def test_which_targets_have_them() -> None:
    kernel = added(dt.float32, 16)
    for target in (*LEVELS, Target.named("neon")):
        text = emit(kernel, target)
        expected = target.vector_bytes >= 32 and target.triple.startswith("x86_64")
        assert ("!nontemporal" in text, "sfence" in text.partition("ret void")[0]) == (expected, expected)
    plain = replace(kernel, buffers=tuple(Buf(b.name, b.dtype, b.access) for b in kernel.buffers))
    assert "!nontemporal" not in emit(plain, HOST)


def test_it_is_part_of_a_kernel() -> None:
    kernel = added(dt.float32, 16)
    plain = replace(kernel, buffers=tuple(Buf(b.name, b.dtype, b.access) for b in kernel.buffers))
    assert digest(kernel) != digest(plain)
    assert "o: w stream float32" in print_kernel(kernel)
    assert parse_kernel(print_kernel(kernel)) == kernel


SOFTMAX = """graph(%0: float32[64, 256]) {
    %1 = reduce_max %0 axes=[1] : float32[64]
    %2 = reshape %1 shape=[64, 1] : float32[64, 1]
    %3 = broadcast %2 shape=[64, 256] : float32[64, 256]
    %4 = sub %0, %3 : float32[64, 256]
    %5 = exp %4 : float32[64, 256]
    %6 = reduce_sum %4 axes=[1] : float32[64]
    return %5, %6
}"""


@pytest.mark.parametrize("l3", [1 << 16, 1 << 17])
def test_results_as_large_as_the_last_cache(l3: int) -> None:
    """64 KiB leave a cache of that size before they are read again; what is smaller stays."""
    machine = Machine(64, 32, 1 << 15, 1 << 20, 2, l3=l3)
    steps = lower_groups(form_groups(Graph.parse(SOFTMAX).outputs), machine)
    buffers = [
        (b, a.place) for s in steps for c in s.calls for b, a in zip(c.kernel.buffers, c.args, strict=True)
    ]
    marked = {place.type.nbytes for b, place in buffers if b.stream}
    assert marked == ({1 << 16} if l3 == 1 << 16 else set())


@pytest.mark.parametrize(("columns", "whole"), [(256, True), (250, False), (8, False), (16, True)])
def test_only_whole_lines(columns: int, whole: bool) -> None:
    """Rows that do not end with a line would be written in parts; elements that run as one long row would not."""
    rows = (1 << 16) // columns
    spread = f"""graph(%0: float32[{rows}, {columns}], %1: float32[{rows}]) {{
    %2 = reshape %1 shape=[{rows}, 1] : float32[{rows}, 1]
    %3 = broadcast %2 shape=[{rows}, {columns}] : float32[{rows}, {columns}]
    %4 = mul %0, %3 : float32[{rows}, {columns}]
    return %4
}}"""
    flat = f"""graph(%0: float32[{rows}, {columns}]) {{
    %1 = neg %0 : float32[{rows}, {columns}]
    return %1
}}"""
    machine = Machine(64, 32, 1 << 15, 1 << 20, 2, l3=1 << 16)
    for text, expected in ((spread, whole), (flat, True)):
        (step,) = lower_groups(form_groups(Graph.parse(text).outputs), machine)
        (call,) = step.calls
        assert any(b.stream for b in call.kernel.buffers) == expected


LONG_ROWS = """graph(%0: float32[9, 1403], %1: float32[1403]) {
    %2 = reshape %1 shape=[1, 1403] : float32[1, 1403]
    %3 = broadcast %2 shape=[9, 1403] : float32[9, 1403]
    %4 = add %0, %3 : float32[9, 1403]
    return %4
}"""
SOFTMAX_ROWS = """graph(%0: float32[9, 1403]) {
    %1 = exp %0 : float32[9, 1403]
    %2 = reduce_sum %1 axes=[1] : float32[9]
    %3 = reshape %2 shape=[9, 1] : float32[9, 1]
    %4 = broadcast %3 shape=[9, 1403] : float32[9, 1403]
    %5 = div %1, %4 : float32[9, 1403]
    return %5
}"""


@targets
@pytest.mark.parametrize("text", [LONG_ROWS, SOFTMAX_ROWS], ids=["map", "rows"])
def test_long_rows_are_cut_where_their_first_line_begins(target: Target, text: str) -> None:
    """Rows of 1,403 elements begin at every place of a line; memory that begins elsewhere is only stored plainly."""
    graph = Graph.parse(text)
    machine = Machine(target.vector_bytes, target.registers, 48 << 10, 1 << 20, 1, l3=1 << 15)
    (step,) = lower_groups(form_groups(graph.outputs), machine)
    kernel = replace(step.calls[0].kernel, name=f"stream{next(counter)}")
    shown = print_kernel(kernel)
    assert "stream" in shown and shown.count("(16 - i0 * 1403 % 16) % 16") == 2
    rng = np.random.default_rng(0)
    arrays = {v: rng.standard_normal(static(v.shape)).astype(np.float32) for v in graph.inputs}
    (want,) = evaluate(graph.outputs, arrays)
    for offset in (0, 4):
        out = memory(want.nbytes, offset)
        places = [a.place for a in step.calls[0].args]
        pointers = [arrays[p].ctypes.data if p in arrays else out.ctypes.data + ROOM for p in places]
        call(kernel, target, pointers, 0, upper(step.calls[0].grid))
        np.testing.assert_allclose(
            out[ROOM:-ROOM].copy().view(np.float32).reshape(want.shape), want, rtol=1e-6
        )
        assert (out[:ROOM] == 0xA5).all() and (out[-ROOM:] == 0xA5).all()
