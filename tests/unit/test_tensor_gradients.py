"""Gradients between tensors: accumulation, freeing, higher order, roles that interning must not confuse."""

import gc
import weakref

import numpy as np
import pytest

import tilewright as tw


def test_gradients_accumulate() -> None:
    w = tw.tensor([1.0, 2.0], requires_grad=True)
    (w * 3).sum().backward()
    (w * w).sum().backward()
    assert w.grad.tolist() == [5.0, 7.0]
    assert not w.grad.requires_grad


def test_a_gradient_argument_weighs_the_outputs() -> None:
    w = tw.tensor([1.0, 2.0], requires_grad=True)
    (w * w).backward(tw.tensor([1.0, 10.0]))
    assert w.grad.tolist() == [2.0, 40.0]


def test_two_leaves_with_one_value_are_two_leaves() -> None:
    a, b = tw.zeros(3, requires_grad=True), tw.zeros(3, requires_grad=True)
    (a * 2 + b * 5).sum().backward()
    assert a.grad.tolist() == [2.0] * 3
    assert b.grad.tolist() == [5.0] * 3


def test_equal_updates_do_not_join_two_parameters() -> None:
    a, b = tw.ones(2, requires_grad=True), tw.ones(2, requires_grad=True)
    for _ in range(2):
        with tw.no_grad():
            a *= 2
            b *= 2
    (a * 3 + b * 4).sum().backward()
    assert a.grad.tolist() == [3.0, 3.0]
    assert b.grad.tolist() == [4.0, 4.0]


def test_reading_a_leaf_between_two_uses_keeps_both() -> None:
    w = tw.tensor([2.0, 2.0], requires_grad=True)
    with tw.no_grad():
        w *= 2  # pending when first used
    first = w * 3
    assert w.tolist() == [4.0, 4.0]
    second = w * 5
    (first + second).sum().backward()
    assert w.grad.tolist() == [8.0, 8.0]


def test_reading_the_loss_before_backward() -> None:
    w = tw.tensor([3.0], requires_grad=True)
    h = w * w
    loss = (h * 2).sum()
    assert h.tolist() == [9.0]
    assert loss.item() == 18.0
    loss.backward()
    assert w.grad.tolist() == [12.0]


def test_no_grad_detach_and_integers_stop_gradients() -> None:
    w = tw.tensor([2.0, 3.0], requires_grad=True)
    with tw.no_grad():
        constant = w * 10
    assert not constant.requires_grad
    assert not w.detach().requires_grad
    assert not w.argmax().requires_grad
    assert not (w > 2).requires_grad
    (w * constant + w.detach() * w).sum().backward()
    assert w.grad.tolist() == [22.0, 33.0]


def test_modes_nest_and_decorate() -> None:
    @tw.no_grad()
    def evaluate(x: tw.Tensor) -> tw.Tensor:
        assert not tw.is_grad_enabled()
        with tw.enable_grad():
            assert tw.is_grad_enabled()
        return x * 2

    w = tw.ones(1, requires_grad=True)
    assert not evaluate(w).requires_grad
    assert tw.is_grad_enabled()
    with tw.set_grad_enabled(False):
        assert not (w * 2).requires_grad


def test_gradient_used_in_a_later_graph_is_a_constant() -> None:
    w = tw.tensor([3.0], requires_grad=True)
    (w * w).sum().backward()
    g = w.grad
    w.grad = None
    (g * w).sum().backward()
    assert w.grad.tolist() == [6.0]


def test_gradients_of_gradients() -> None:
    w = tw.tensor([2.0], requires_grad=True)
    (w**3).sum().backward(create_graph=True)
    first = w.grad
    assert first.requires_grad
    w.grad = None
    first.sum().backward()
    assert w.grad.tolist() == [12.0]


def test_the_graph_is_freed_unless_retained() -> None:
    w = tw.tensor([2.0], requires_grad=True)
    h = w * 2
    loss = (h * h).sum()
    loss.backward(retain_graph=True)
    loss.backward()
    assert w.grad.tolist() == [32.0]
    with pytest.raises(tw.GradientError, match="freed"):
        loss.backward()
    with pytest.raises(tw.GradientError, match="freed"):
        (h + 1).sum().backward()


def test_keeping_losses_does_not_keep_graphs() -> None:
    w = tw.tensor([2.0], requires_grad=True)
    kept, graphs = [], []
    for _ in range(3):
        x = tw.tensor(np.ones(100, np.float32))
        graphs.append(weakref.ref(x._value))
        loss = (x * w).sum()
        loss.backward()
        loss.realize()
        kept.append(loss)
    del x
    w.grad.realize()
    gc.collect()
    assert all(g() is None for g in graphs)
    assert [k.item() for k in kept] == [200.0] * 3


def test_retain_grad_of_an_interior_tensor() -> None:
    w = tw.tensor([2.0], requires_grad=True)
    h = w * 3
    h.retain_grad()
    (h * h).sum().backward()
    assert h.grad.tolist() == [12.0]
    assert not h.is_leaf


def test_autograd_grad() -> None:
    x = tw.tensor([1.0, 2.0], requires_grad=True)
    y = tw.tensor([3.0, 4.0], requires_grad=True)
    z = (x * x * y).sum()
    gx, gy = tw.autograd.grad(z, [x, y], create_graph=True)
    assert gx.tolist() == [6.0, 16.0]
    assert gy.tolist() == [1.0, 4.0]
    assert x.grad is None
    (gxy,) = tw.autograd.grad(gx.sum(), y)
    assert gxy.tolist() == [2.0, 4.0]
    unused = tw.ones(1, requires_grad=True)
    with pytest.raises(tw.GradientError, match="allow_unused"):
        tw.autograd.grad((x * 2).sum(), unused)
    assert tw.autograd.grad((x * 2).sum(), unused, allow_unused=True) == (None,)


def test_grad_and_value_and_grad_over_trees() -> None:
    def loss(p, x):
        return ((x @ p["w"] + p["b"]) ** 2).sum()

    p = {"w": tw.tensor([[1.0], [2.0]]), "b": tw.tensor([0.5])}
    x = tw.tensor([[1.0, 1.0], [2.0, 0.0]])
    value, g = tw.value_and_grad(loss)(p, x)
    assert value.item() == 3.5**2 + 2.5**2
    assert g["w"].tolist() == [[2 * 3.5 + 4 * 2.5], [2 * 3.5]]
    assert g["b"].tolist() == [2 * 3.5 + 2 * 2.5]
    assert not value.requires_grad
    assert tw.grad(lambda a, b: (a * b).sum(), argnums=(0, 1))(x, x * 3)[1].tolist() == x.tolist()
    both, aux = tw.grad(lambda a: ((a * a).sum(), "aux"), has_aux=True)(x)
    assert both.tolist() == (x * 2).tolist()
    assert aux == "aux"


def test_nested_derivatives_keep_their_variables_apart() -> None:
    # d/dx (x * d/dy (x + y)) = 1, also where x and y have the same value
    def outer(x):
        inner = tw.grad(lambda y: x + y)(tw.tensor(2.0))
        return x * inner

    assert tw.grad(outer)(tw.tensor(2.0)).item() == 1.0
    assert tw.grad(tw.grad(tw.grad(lambda x: x**4)))(tw.tensor(2.0)).item() == 48.0


def test_grad_of_a_function_over_a_parameter_keeps_the_outer_graph() -> None:
    w = tw.tensor(3.0, requires_grad=True)
    g = tw.grad(lambda x: w * x * x)(tw.tensor(2.0))  # 2 w x
    assert g.requires_grad
    g.backward()
    assert w.grad.item() == 4.0
    assert not tw.grad(lambda x: x * x)(tw.tensor(2.0)).requires_grad


def test_second_order_training_matches_finite_differences() -> None:
    rng = np.random.default_rng(1)
    w0 = rng.standard_normal((3, 2))
    x0 = rng.standard_normal((4, 3))

    def penalty(w):
        x = tw.tensor(x0, requires_grad=True)
        y = tw.tanh(x @ w).sum()
        (g,) = tw.autograd.grad(y, x, create_graph=True)
        return (g * g).sum()

    w = tw.tensor(w0, requires_grad=True)
    penalty(w).backward()
    numeric = np.zeros_like(w0)
    for i in np.ndindex(w0.shape):
        up, down = w0.copy(), w0.copy()
        up[i] += 1e-6
        down[i] -= 1e-6
        numeric[i] = (penalty(tw.tensor(up)).item() - penalty(tw.tensor(down)).item()) / 2e-6
    assert w.grad.numpy() == pytest.approx(numeric, rel=1e-6, abs=1e-8)


def test_requires_grad_can_be_turned_off() -> None:
    w = tw.ones(2, requires_grad=True)
    w.requires_grad_(False)
    v = tw.ones(2, requires_grad=True)
    (w * v).sum().backward()
    assert w.grad is None
    assert v.grad.tolist() == [1.0, 1.0]
    with pytest.raises(tw.GradientError, match="detach"):
        (v * 2).requires_grad_(False)
