"""What a failed index leaves behind, and how long a chain of operations may be."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import tilewright as tw
from tilewright.core.files import write_atomic


def test_an_index_out_of_range_leaves_written_back_tensors_as_they_were() -> None:
    """The check fails after tracing, in native code; what the step would have replaced keeps its old elements."""
    state, table = tw.zeros((5,)), tw.ones((5, 3))

    @tw.jit
    def step(index: tw.Tensor) -> tw.Tensor:
        rows = tw.take(table, index, axis=0)
        state.assign(state + tw.sum(rows))
        return rows

    step(tw.asarray(np.array([0, 1])))
    before = state.numpy().copy()
    for _ in range(20):
        with pytest.raises(IndexError, match="size 5"):
            step(tw.asarray(np.array([0, 7])))
        np.testing.assert_array_equal(state.numpy(), before)
    step(tw.asarray(np.array([4, 4])))
    np.testing.assert_array_equal(state.numpy(), before + 6)


def test_a_chain_of_thousands_of_operations_compiles() -> None:
    """Expressions are cut before they outgrow the stack."""

    @tw.jit
    def chain(x: tw.Tensor) -> tw.Tensor:
        for _ in range(1500):
            x = x * 1.0001 + 0.001
        return x

    x = np.linspace(-1, 1, 100, dtype=np.float32)
    want = x.copy()
    for _ in range(1500):
        want = want * np.float32(1.0001) + np.float32(0.001)
    np.testing.assert_array_equal(chain(tw.asarray(x)).numpy(), want)


def test_a_chain_of_functions_and_its_derivative_compile() -> None:
    """Every function of the chain is an expression of its own height; those do not add up."""
    x = tw.tensor([0.1, 0.2], requires_grad=True)
    y, wanted, slope = x, np.array([0.1, 0.2]), np.ones(2)
    for _ in range(120):
        y = tw.exp2(y) * 0.5
        wanted = np.exp2(wanted) * 0.5
        slope = slope * wanted * np.log(2)
    y.sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(y.numpy(), wanted, rtol=1e-5)
    np.testing.assert_allclose(x.grad.numpy(), slope, rtol=1e-3)


def test_a_buffer_filled_again_does_not_change_pending_results() -> None:
    buffer = np.zeros(3, np.float32)
    pending = []
    for i in range(3):
        buffer[:] = i
        pending.append(tw.sum(tw.asarray(buffer) * 2))
    assert [p.item() for p in pending] == [0.0, 6.0, 12.0]
    shared = tw.asarray(buffer, copy=False)
    buffer[:] = 7
    assert shared.tolist() == [7.0, 7.0, 7.0]
    buffer.flags.writeable = False
    assert np.shares_memory(tw.asarray(buffer).numpy(), buffer)


def test_threads_may_write_one_file_and_links_stay(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_bytes(b"old")
    link.symlink_to(real)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: write_atomic(link, [bytes([i]) * 1000]), range(40)))
    assert link.is_symlink() and len(set(real.read_bytes())) == 1 and len(real.read_bytes()) == 1000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "real"]
