"""Products in half types: what is rounded, what stays float32, and what an overflow does to a step."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import tilewright as tw
import tilewright.nn.functional as F
from tilewright import nn, optim
from tilewright.train import LossScale, Trainer


@pytest.mark.parametrize(("dtype", "numpy"), [(tw.bfloat16, ml_dtypes.bfloat16), (tw.float16, np.float16)])
def test_operands_are_rounded_and_sums_stay_float32(dtype: object, numpy: type) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((33, 257), (257, 19)))
    with tw.autocast(dtype):
        got = tw.matmul(tw.asarray(a), tw.asarray(b))
    assert got.dtype is tw.float32
    rounded = a.astype(numpy).astype(np.float64) @ b.astype(numpy).astype(np.float64)
    np.testing.assert_allclose(got.numpy(), rounded, rtol=2e-5, atol=2e-5)
    assert np.abs(got.numpy() - a.astype(np.float64) @ b).max() > 1e-3  # it is not the float32 product


def test_a_jitted_function_is_compiled_for_the_mode_it_is_called_in() -> None:
    product = tw.jit(lambda x: x @ x)
    x = tw.asarray(np.full((1, 1), 1.001, np.float32))
    assert product(x).item() == pytest.approx(1.001**2, rel=1e-6)
    with tw.autocast(tw.bfloat16):
        assert product(x).item() == 1.0
    assert product(x).item() == pytest.approx(1.001**2, rel=1e-6)


def test_only_half_types_are_taken() -> None:
    with pytest.raises(TypeError, match="bfloat16, float16 or None, got float64"):
        tw.autocast(tw.float64)


def test_a_step_that_overflows_changes_nothing_but_the_scale() -> None:
    tw.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    scale = LossScale(initial=1024.0, interval=2)

    @tw.jit
    def step(x: tw.Tensor) -> tw.Tensor:
        optimizer.zero_grad()
        loss = tw.mean(model(x))
        scale.step(loss, optimizer)
        return loss

    good, bad = tw.ones((2, 3)), tw.asarray(np.array([[np.inf, 0, 0]] * 2, np.float32))
    step(good)
    before = [p.numpy().copy() for p in model.parameters()]
    moments = [t.numpy().copy() for s in optimizer.state.values() for t in s.values()]
    step(bad)
    assert scale.factor.item() == 512.0
    for p, old in zip(model.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.numpy(), old)
    now = [t.numpy() for s in optimizer.state.values() for t in s.values()]
    for a, b in zip(now, moments, strict=True):
        np.testing.assert_array_equal(a, b)
    step(good)
    step(good)
    assert scale.factor.item() == 1024.0  # two good steps in a row
    assert any(np.any(p.numpy() != old) for p, old in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("precision", [tw.bfloat16, tw.float16])
def test_training_in_half_precision_learns(precision: object) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((256, 8)).astype(np.float32)
    y = (x @ rng.standard_normal((8, 1)) + 0.5).astype(np.float32)
    tw.manual_seed(0)
    model = nn.Linear(8, 1)
    trainer = Trainer(
        model, F.mse_loss, optim.Adam(model.parameters(), lr=0.05), epochs=20, precision=precision
    )
    history = trainer.fit(x, y)
    assert history.epochs[-1].loss < 0.01 * history.epochs[0].loss
