"""Carries that live in a stack of their values, and what is read of stacks: the same results, fewer copies."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw

T, N = 5, 7
X = np.random.default_rng(0).standard_normal((T, N)).astype("float32")


def body(h, x):
    new = tw.tanh(h * 0.5 + x)
    return new, new


def expected(reverse: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The last carry, the carries after and before every iteration."""
    h, after, before = np.ones(N, np.float32), np.zeros_like(X), np.zeros_like(X)
    for i in range(T)[:: -1 if reverse else 1]:
        before[i] = h
        h = after[i] = np.tanh(h * np.float32(0.5) + X[i])
    return h, after, before


def both(h, x):
    new = tw.tanh(h * 0.5 + x)
    return new, (new, h)


def loops_of(f, *args) -> list[str]:
    """The plan of each loop."""
    plan = f.executable(*args).stage_text("plan").split("iterations\n")[1:]
    return ["\n".join(line for line in part.split("\n") if line.startswith("      ")) for part in plan]


@pytest.mark.parametrize("reverse", [False, True])
def test_carries_before_and_after_are_views_of_one_stack(reverse):
    @tw.jit
    def f(x):
        last, (after, before) = tw.scan(both, tw.ones((N,)), x, reverse=reverse)
        return last + 0.0, after * 1.5, before * 2.0

    last, after, before = (np.asarray(r.numpy()) for r in f(tw.tensor(X)))
    want = expected(reverse)
    np.testing.assert_allclose(last, want[0], rtol=1e-6)
    np.testing.assert_allclose(after, 1.5 * want[1], rtol=1e-6)
    np.testing.assert_allclose(before, 2 * want[2], rtol=1e-6)
    (inside,) = loops_of(f, tw.tensor(X))
    assert "mark" not in inside, inside


@pytest.mark.parametrize("reverse", [False, True])
def test_results_of_the_program_have_memory_of_their_own(reverse):
    @tw.jit
    def f(x):
        last, (after, before) = tw.scan(both, tw.ones((N,)), x, reverse=reverse)
        return last, after, before, (after * before).sum()

    last, after, before, total = (np.asarray(r.numpy()) for r in f(tw.tensor(X)))
    for got, want in zip((last, after, before), expected(reverse), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)
    np.testing.assert_allclose(total, (after * before).sum(), rtol=1e-5)


def test_numpy_reads_a_stack():
    @tw.jit
    def f(x):
        last, (after, before) = tw.scan(both, tw.ones((N,)), x)
        return tw.sort(after, axis=1) * 2.0, before * 1.0, last

    got, before, last = (np.asarray(r.numpy()) for r in f(tw.tensor(X)))
    want = expected(False)
    np.testing.assert_allclose(got, 2 * np.sort(want[1], axis=1), rtol=1e-6)
    np.testing.assert_allclose(before, want[2], rtol=1e-6)
    np.testing.assert_allclose(last, want[0], rtol=1e-6)


def test_two_carries_that_trade_places_keep_their_stacks():
    def swap(state, x):
        a, b = state
        return (b, a + x), (a, b)

    @tw.jit
    def f(x):
        (a, b), (before_a, before_b) = tw.scan(swap, (tw.zeros((N,)), tw.ones((N,))), x)
        return a * 1.0, b * 1.0, before_a * 1.0, before_b * 1.0

    a, b = np.zeros(N, np.float32), np.ones(N, np.float32)
    want_a, want_b = [], []
    for x in X:
        want_a.append(a)
        want_b.append(b)
        a, b = b, a + x
    got = [np.asarray(r.numpy()) for r in f(tw.tensor(X))]
    for one, want in zip(got, (a, b, np.stack(want_a), np.stack(want_b)), strict=True):
        np.testing.assert_allclose(one, want, rtol=1e-6)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_last_of_stacked_carries_is_the_last_carry(reverse, batch_first):
    """Nothing is stacked for it, and no gradient of zeros is."""

    def last_of(x, h):
        y = tw.scan(body, h, x, reverse=reverse)[1]
        at = 0 if reverse else -1
        return tw.permute(y, (1, 0))[:, at] if batch_first else y[at]

    forward = tw.jit(last_of)
    h = tw.ones((N,))
    np.testing.assert_allclose(forward(tw.tensor(X), h).numpy(), expected(reverse)[0], rtol=1e-6)
    assert f"[{T}, {N}]" not in forward.executable(tw.tensor(X), h).stage_text("groups")

    gradients = tw.jit(tw.grad(lambda x, h: (last_of(x, h) * last_of(x, h)).sum(), argnums=(0, 1)))
    dx, dh = gradients(tw.tensor(X), h)
    want, wanted = expected(reverse), np.zeros_like(X)
    g = 2 * want[0]
    for i in range(T)[:: 1 if reverse else -1]:
        wanted[i] = g * (1 - want[1][i] ** 2)
        g = wanted[i] * 0.5
    np.testing.assert_allclose(dx.numpy(), wanted, rtol=2e-5, atol=1e-7)
    np.testing.assert_allclose(dh.numpy(), g, rtol=2e-5, atol=1e-7)
    graph = gradients.executable(tw.tensor(X), h).stage_text("graph")
    assert "pad" not in graph, graph


def test_another_slice_of_stacked_carries_is_read_from_the_stack():
    @tw.jit
    def f(x):
        y = tw.scan(body, tw.ones((N,)), x)[1]
        return y[1:2] + 0.0, y[-1, 2:4] + 0.0, y[::4] + 0.0

    want = expected(False)[1]
    for got, one in zip(f(tw.tensor(X)), (want[1:2], want[-1, 2:4], want[::4]), strict=True):
        np.testing.assert_allclose(got.numpy(), one, rtol=1e-6)
