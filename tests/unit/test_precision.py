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


def test_integer_products_add_up_in_the_type_asked_for() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-128, 128, s).astype(np.int8) for s in ((2, 9, 70), (2, 70, 33)))
    got = tw.matmul(tw.asarray(a), tw.asarray(b), dtype=tw.int32)
    assert got.dtype is tw.int32
    np.testing.assert_array_equal(got.numpy(), a.astype(np.int32) @ b.astype(np.int32))
    np.testing.assert_array_equal((tw.asarray(a) @ tw.asarray(b)).numpy(), a @ b)  # int8 wraps
    with pytest.raises(tw.DTypeError, match="products of int32 do not add up to int8"):
        tw.matmul(tw.asarray([[1]], dtype=tw.int32), tw.asarray([[1]], dtype=tw.int32), dtype=tw.int8)
    with pytest.raises(tw.DTypeError, match="products of float32 do not add up to int32"):
        tw.matmul(tw.ones((1, 1)), tw.ones((1, 1)), dtype=tw.int32)


def test_bfloat16_products_come_out_in_float32() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(s).astype(ml_dtypes.bfloat16) for s in ((5, 301), (301, 40)))
    got = tw.matmul(tw.asarray(a), tw.asarray(b), dtype=tw.float32).numpy()
    np.testing.assert_allclose(got, a.astype(np.float64) @ b.astype(np.float64), rtol=1e-5, atol=1e-4)


def test_derivatives_of_bfloat16_products_are_bfloat16_products() -> None:
    """The gradient that comes in is rounded as the operands were, as where the layer's result is bfloat16."""
    rng = np.random.default_rng(0)
    x, w, g = (rng.standard_normal(s).astype(np.float32) for s in ((6, 40), (40, 20), (6, 20)))

    def loss(w: tw.Tensor) -> tw.Tensor:
        with tw.autocast(tw.bfloat16):
            return tw.sum(tw.matmul(tw.asarray(x), w) * tw.asarray(g))

    got = tw.grad(loss)(tw.asarray(w)).numpy()
    half = [a.astype(ml_dtypes.bfloat16).astype(np.float64) for a in (x, g)]
    np.testing.assert_allclose(got, half[0].T @ half[1], rtol=2**-8, atol=1e-2)
    np.testing.assert_array_equal(got, got.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_quantized_linear() -> None:
    rng = np.random.default_rng(0)
    x, w, bias = (rng.standard_normal(s).astype(np.float32) for s in ((3, 5, 96), (40, 96), (40,)))
    for x_axis, w_axis in ((None, None), (-1, 1)):
        (xq, a), (wq, b) = F.quantize(tw.asarray(x), axis=x_axis), F.quantize(tw.asarray(w), axis=w_axis)
        assert xq.dtype is wq.dtype is tw.int8
        assert np.abs(xq.numpy() * a.numpy() - x).max() <= a.numpy().max() * 0.5001
        got = tw.jit(F.quantized_linear)(xq, wq, a, b, tw.asarray(bias)).numpy()
        total = xq.numpy().astype(np.int64) @ wq.numpy().astype(np.int64).T
        np.testing.assert_allclose(got, total * a.numpy() * b.numpy().ravel() + bias, rtol=1e-5, atol=1e-5)
        assert np.abs(got - (x @ w.T + bias)).max() < 0.6
    q, scale = F.quantize(tw.zeros((4,)))
    assert q.tolist() == [0, 0, 0, 0] and scale.item() > 0
    with pytest.raises(tw.DTypeError, match="`weight` is of type int8, got float32"):
        F.quantized_linear(xq, tw.asarray(w), a, b)
    with pytest.raises(tw.ShapeError, match=r"one for each of 40 outputs, got \(3,\)"):
        F.quantized_linear(xq, wq, a, tw.ones((3,)))
    with pytest.raises(tw.ShapeError, match="does not fit `weight`"):
        F.quantized_linear(xq[..., :7], wq, a, b)
    with pytest.raises(tw.DTypeError, match="floating type, got int8"):
        F.quantize(xq)
