"""What is kept from one call to the next is bounded, and what was dropped is made again with the same result."""

from __future__ import annotations

import gc
import importlib
from collections import OrderedDict

import pytest

import tilewright as tw
from tilewright.graph import ir
from tilewright.tensor import execute, replay
from tilewright.tensor.composite import composite


def test_compiled_eager_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "CACHE_LIMIT", 4)
    for _ in range(2):
        for size in range(300, 310):  # ten programs, twice, of which four are kept
            assert (tw.ones(size) * 2).sum().item() == 2 * size
            assert len(execute._programs) <= 4


def test_traces_of_a_jitted_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("tilewright.jit.jitted"), "VARIANT_LIMIT", 3)

    @tw.jit
    def doubled(x: tw.Tensor) -> tw.Tensor:
        return (x * 2).sum()

    for _ in range(2):
        for size in range(1, 7):
            assert doubled(tw.ones(size)).item() == 2 * size
            assert len(doubled._variants) <= 3
    assert doubled.traces == 12  # in this order nothing that is needed again is still there
    assert doubled(tw.ones(6)).item() == 12 and doubled.traces == 12


def test_values_that_nobody_refers_to() -> None:
    def step(number: int) -> None:
        x = tw.Tensor([float(number)], requires_grad=True)
        (tw.exp(x) * number).sum().backward()
        assert x.grad is not None
        x.grad.numpy()

    for number in range(100):  # small whole numbers are part of a program, larger ones are its operands
        step(number)
    gc.collect()
    before = len(ir._interned)
    for number in range(100):
        step(number)
    gc.collect()
    assert len(ir._interned) <= before


def test_eager_backward_passes_and_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "CACHE_LIMIT", 4)
    monkeypatch.setattr(
        replay, "_programs", OrderedDict()
    )  # other tests' may be as long as this one finds its own
    monkeypatch.setattr(importlib.import_module("tilewright.tensor.composite"), "CACHE_LIMIT", 3)
    seen: list[int] = []

    @composite
    def doubled(x: tw.Tensor) -> tw.Tensor:
        seen.append(x.size)
        return x * 2

    for _ in range(2):
        for size in range(1, 8):
            w = tw.ones(size).requires_grad_()
            doubled(w).sum().backward()
            assert w.grad is not None and w.grad.tolist() == [2.0] * size
            assert len(replay._programs) <= 4
    assert len(seen) == 14  # in this order nothing that is needed again is still there
