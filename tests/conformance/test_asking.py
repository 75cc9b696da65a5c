"""Requests for operands from memory: no effect on results, and only where they can pay."""

from __future__ import annotations

import re

import numpy as np
import pytest

from conformance.emitting import LEVELS, compare, counter, targets
from tilewright.codegen.llvm import emit
from tilewright.core import dtype as dt
from tilewright.graph.extremes import first_extreme
from tilewright.graph.graph import Graph
from tilewright.graph.ir import input_value
from tilewright.kernel.digest import digest
from tilewright.kernel.ir import HI, LO, Buf, Kernel, Loop, Prefetch, Store, load, var
from tilewright.kernel.text import print_kernel
from tilewright.lower.groups import form_groups
from tilewright.lower.lowering import lower_groups
from tilewright.recipes.machine import Machine
from tilewright.runtime.target import Target

i = var("i")
F = dt.float32


def copied(lanes: int, cache: int = 1, stride: int = 1) -> Kernel:
    """y = x, where x is asked for far beyond its end."""
    ask = Prefetch("x", i * stride + (1 << 30), cache)
    body = (ask, Store("y", i, load("x", i, F)))
    bufs = (Buf("x", F, "r"), Buf("y", F, "w"))
    return Kernel(bufs, (Loop("i", LO, HI, body, "vector", lanes),), name=f"asking{next(counter)}")


@targets
def test_elements_outside_a_buffer(target: Target) -> None:
    x = np.arange(203, dtype=np.float32)
    got = compare(copied(4 * target.lanes(4)), target, {"x": x, "y": np.zeros_like(x)}, 0, len(x))
    np.testing.assert_array_equal(got["y"], x)


def test_one_request_a_line() -> None:
    """Of 64 elements of 4 bytes four lines, of lanes far apart none."""
    target = LEVELS[0]
    for cache, locality in ((1, 3), (2, 2)):
        body = emit(copied(64, cache), target).partition("rest")[0]
        assert body.count("call void @llvm.prefetch.p0(ptr %") == 4
        assert f"i32 0, i32 {locality}, i32 1" in body
    assert "call void @llvm.prefetch" not in emit(copied(64, stride=100), target)
    assert digest(copied(64, 1)) != digest(copied(64, 2))


ROWS = """graph(%0: float32[64, 1024]) {
    %1 = reduce_max %0 axes=[1] : float32[64]
    %2 = reshape %1 shape=[64, 1] : float32[64, 1]
    %3 = broadcast %2 shape=[64, 1024] : float32[64, 1024]
    %4 = sub %0, %3 : float32[64, 1024]
    %5 = exp %4 : float32[64, 1024]
    %6 = reduce_sum %5 axes=[1] : float32[64]
    %7 = reshape %6 shape=[64, 1] : float32[64, 1]
    %8 = broadcast %7 shape=[64, 1024] : float32[64, 1024]
    %9 = div %5, %8 : float32[64, 1024]
    return %9
}"""
MAP = """graph(%0: float32[64, 1024]) {
    %1 = exp %0 : float32[64, 1024]
    return %1
}"""
SUM = """graph(%0: float32[64, 1024], %1: float32[64, 1024]) {
    %2 = add %0, %1 : float32[64, 1024]
    return %2
}"""
UPDATE = """graph(%0: float32[64, 1024], %1: float32[64, 1024], %2: float32[64, 1024], %3: float32[64, 1024]) {
    %4 = pow %0, %1 : float32[64, 1024]
    %5 = pow %2, %3 : float32[64, 1024]
    %6 = add %4, %5 : float32[64, 1024]
    return %6
}"""
CHANNELS = """graph(%0: float32[16, 4, 1024]) {
    %1 = reduce_sum %0 axes=[0, 2] : float32[4]
    return %1
}"""
LINE = re.compile(r"prefetch (\w+)\[(.*)\]( cache 1)?")


def asked(text: str, l3: int = 1 << 16, threads: int = 1) -> list[tuple[str, str]]:
    machine = Machine(64, 32, 48 << 10, 1 << 20, threads, l3=l3)
    (step,) = lower_groups(form_groups(Graph.parse(text).outputs), machine)
    (call,) = step.calls
    return [(at, near) for _, at, near in LINE.findall(print_kernel(call.kernel))]


def test_what_is_asked_for() -> None:
    """Two pages ahead, or the rows that go through the phases next, in the phase with the exponentials; along rows that lie
    apart, in the rows that follow."""
    assert asked(MAP) == [("i0 + 2048", " cache 1")]
    assert asked(ROWS) == [("i1 + i0 * 1024 + 4096", "")]
    assert asked(CHANNELS) == [("i2 + i1 * 1024 + i0 * 4096 + 8192", " cache 1")]


def test_rows_of_which_the_greatest_element_is_looked_for() -> None:
    """Blocks of four vectors, a line each."""
    x = input_value(F, (64, 1024))
    best, first = first_extreme(x, 1, True)
    (step,) = lower_groups(form_groups((best, first)), Machine(64, 32, 48 << 10, 1 << 20, 1, l3=1 << 16))
    found = LINE.findall(print_kernel(step.calls[0].kernel))
    assert len(found) == 4 and all("block0_0.at" in at for _, at, _ in found)


COLUMNS = """graph(%0: float32[4, 64, 1024]) {
    %1 = reduce_max %0 axes=[1] : float32[4, 1024]
    return %1
}"""


def test_sums_over_columns() -> None:
    """Row by row, so that rows can be asked for four pages ahead; a plain sum keeps memory busy by itself."""
    assert asked(COLUMNS) == [("i2 + i1 * 1024 + i0 * 65536 + 4096", " cache 1")]
    assert asked(COLUMNS.replace("reduce_max", "reduce_sum")) == []


@pytest.mark.parametrize("text", [MAP, ROWS, CHANNELS])
def test_only_of_operands_that_leave_the_caches(text: str) -> None:
    assert asked(text, l3=1 << 20) == []


def test_several_operands() -> None:
    """Those that are only added keep memory busy by themselves; others share what is asked for."""
    assert asked(SUM) == []
    assert asked(SUM.replace("%2 = add %0, %1", "%2 = pow %0, %1")) == [("i0 + 1024", " cache 1")] * 2
    assert asked(UPDATE) == []
