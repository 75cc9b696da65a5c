"""A concat of values that one map computes is written by that map, part by part."""

from __future__ import annotations

import numpy as np
import pytest
from compiled_steps import check_exactly

import tilewright as tw
from tilewright import compiler
from tilewright.core import dtype as dt
from tilewright.graph.ir import input_value, make

N = 7
X = np.random.default_rng(0).standard_normal((5, N)).astype("float32")


def test_a_concat_of_what_a_map_computes_is_written_by_it():
    """What stays floating among its parts may be read by older kernels."""

    @tw.jit
    def f(a, b):
        s, t = tw.exp(a * b), tw.tanh(a + b)
        parts = [s * t, s - t, t * t, a * b]
        whole = tw.concat(parts, axis=1)
        return whole @ tw.ones((4 * N, 3)), s * 1.0

    a, b = X, X[::-1].copy()
    got, s = f(tw.tensor(a), tw.tensor(b))
    es, et = np.exp(a * b), np.tanh(a + b)
    want = np.concatenate([es * et, es - et, et * et, a * b], axis=1) @ np.ones((4 * N, 3), np.float32)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-5)
    np.testing.assert_allclose(s.numpy(), es, rtol=1e-6)
    plan = f.executable(tw.tensor(a), tw.tensor(b)).stage_text("plan")
    assert any("map" in line and "concat" in line for line in plan.split("\n")), plan


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_parts_of_a_concat_are_read_from_it(axis):
    @tw.jit
    def f(x):
        e = tw.exp(x)
        whole = tw.concat([e * 2.0, e + 1.0], axis=axis)
        first = whole[tuple(slice(0, n) for n in x.shape)]
        return whole * 1.0, first + e, e * 3.0

    x = np.random.default_rng(1).standard_normal((3, 4, 5)).astype("float32")
    e = np.exp(x)
    whole = np.concatenate([e * 2, e + 1], axis=axis)
    for got, want in zip(f(tw.tensor(x)), (whole, e * 2 + e, e * 3), strict=True):
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-5)


@pytest.mark.parametrize("floating", [False, True])
def test_parts_that_reduce_or_move_stay_apart(floating):
    """A row's sum and a transposed part are not computed at the map's own index."""

    @tw.jit
    def f(x):
        e = tw.exp(x)
        turned = tw.permute(e * 2.0, (1, 0)) if floating else e * 2.0
        whole = tw.concat([e, turned], axis=0)
        return whole.sum(axis=1), e * 1.0, tw.concat([e, x], axis=1).sum(axis=1)

    x = np.random.default_rng(1).standard_normal((6, 6)).astype("float32")
    e = np.exp(x)
    whole = np.concatenate([e, 2 * e.T if floating else 2 * e])
    want = whole.sum(axis=1), e, np.concatenate([e, x], axis=1).sum(axis=1)
    for got, one in zip(f(tw.tensor(x)), want, strict=True):
        np.testing.assert_allclose(got.numpy(), one, rtol=1e-5, atol=1e-5)


def test_kernels_of_a_concat_of_single_elements_are_well_formed():
    x = input_value(dt.float32, (1,))
    turned = make("flip", [x], axes=(0,))
    whole = make("concat", [turned, x], axis=0)
    check_exactly(
        compiler.compile([x], [whole, turned]), [x], [whole, turned], lambda rng, v: np.ones(1, "float32")
    )
