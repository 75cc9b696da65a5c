"""Operands of products that lie scattered: rows that begin anywhere, and steps of k from page to page."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


def plan_of(f, *args) -> str:
    return f.executable(*args).stage_text("plan")


def test_rows_that_begin_anywhere_are_read_in_place():
    """Batch-first operands of a product over all steps: no copy of A."""
    x, w = draw(8, 16, 64), draw(48, 64)

    @tw.jit
    def f(x, w):
        return tw.permute(x, (1, 0, 2)) @ w.T

    got = f(tw.tensor(x), tw.tensor(w)).numpy()
    np.testing.assert_allclose(got, x.transpose(1, 0, 2) @ w.T, rtol=1e-4, atol=1e-4)
    kernels = f.executable(tw.tensor(x), tw.tensor(w)).stage_text("kernels")
    assert kernels.count("scratch") <= 1, kernels


@pytest.mark.parametrize(("batch", "steps"), [(8, 32), (5, 7)])
def test_a_right_operand_whose_rows_lie_pages_apart_is_laid_out_once(batch, steps):
    """The gradient of a batch-first layer's weight: every step of k leads to another page where ``steps`` is 32."""
    x, g = draw(batch, steps, 128), draw(steps, batch, 256)

    @tw.jit
    def f(x, g):
        return tw.einsum("tbm,btn->mn", g, x)

    got = f(tw.tensor(x), tw.tensor(g)).numpy()
    np.testing.assert_allclose(got, np.einsum("tbm,btn->mn", g, x), rtol=1e-3, atol=1e-3)
    assert ("lay out" in plan_of(f, tw.tensor(x), tw.tensor(g))) == (steps == 32)
