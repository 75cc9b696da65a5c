"""Hooks on tensors and modules, and what ``backward`` may do twice."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import tilewright as tw
from tilewright import nn


def leaf(*numbers: float) -> tw.Tensor:
    return tw.tensor(list(numbers), requires_grad=True)


def test_a_hook_sees_the_gradient_and_may_replace_it() -> None:
    w = leaf(1.0, 2.0)
    h = w * 3.0
    seen: list[Any] = []
    first = h.register_hook(lambda g: seen.append(g.tolist()))
    second = h.register_hook(lambda g: g * 10.0)
    h.register_hook(lambda g: seen.append(g.tolist()))
    loss = (h * h).sum()
    loss.backward(retain_graph=True)
    assert seen == [[6.0, 12.0], [60.0, 120.0]] and w.grad.tolist() == [180.0, 360.0]
    first.remove()
    second.remove()
    second.remove()
    w.grad = None
    loss.backward()
    assert seen[2:] == [[6.0, 12.0]] and w.grad.tolist() == [18.0, 36.0]


def test_hooks_belong_to_one_tensor_and_not_to_another_recorded_alike() -> None:
    w = leaf(1.0)
    a, b = w * 2.0, w * 2.0
    a.register_hook(lambda g: g * 100.0)
    c = w * 2.0
    (a * 3.0 + b * 5.0 + c * 7.0).sum().backward()
    assert w.grad.item() == 2 * (300.0 + 5.0 + 7.0)
    w.grad = None
    a, b = w * 2.0, w * 2.0
    a.retain_grad()
    (a * 3.0 + b * 5.0).sum().backward()
    assert a.grad.item() == 3.0 and w.grad.item() == 16.0
    x = w * 4.0
    y = x.clone()
    y.register_hook(lambda g: g * 0.0)
    w.grad = None
    (x + y).sum().backward()
    assert w.grad.item() == 4.0


def test_a_tensor_may_be_hooked_after_it_was_used() -> None:
    w = leaf(1.0, 2.0)
    for read in (False, True):
        h = w * 3.0
        loss, other = (h * h).sum(), h.sum()
        if read:
            loss.item()
        h.register_hook(lambda g: g + 1.0)
        h.retain_grad()
        w.grad = None
        (loss + other + h.sum()).backward()  # used before and after
        assert w.grad.tolist() == [27.0, 45.0]
        assert h.grad.tolist() == [9.0, 15.0]


def test_a_hook_outlives_the_tensor_and_goes_with_the_graph() -> None:
    def inside(w: tw.Tensor) -> tuple[tw.Tensor, Any]:
        h = w * 3.0

        def hook(g: tw.Tensor) -> tw.Tensor:
            return -g

        h.register_hook(hook)
        return h.sum(), weakref.ref(hook)

    w = leaf(1.0)
    loss, hook = inside(w)
    gc.collect()
    loss.backward()
    assert w.grad.item() == -3.0
    del loss
    gc.collect()
    assert hook() is None


def test_hooks_of_leaves() -> None:
    w, v = leaf(1.0, 2.0), leaf(5.0)
    order: list[Any] = []
    w.register_hook(lambda g: order.append("w") or g * 2.0)
    handle = w.register_post_accumulate_grad_hook(lambda p: order.append(p.grad.tolist()))
    for _ in range(2):
        (w * v).sum().backward()
    assert w.grad.tolist() == [20.0, 20.0] and v.grad.tolist() == [6.0]
    assert order == ["w", [10.0, 10.0], "w", [20.0, 20.0]]
    handle.remove()
    (w * v).sum().backward()
    assert len(order) == 5
    assert tw.autograd.grad((w * v).sum(), [w])[0].tolist() == [10.0, 10.0]
    parameter = nn.Parameter([1.0])
    optimizer = tw.optim.SGD([parameter], lr=0.5)

    def step(p: tw.Tensor) -> None:
        optimizer.step()
        optimizer.zero_grad()

    parameter.register_post_accumulate_grad_hook(step)
    for _ in range(3):
        (parameter * parameter).sum().backward()
    assert parameter.item() == 0.0 and parameter.grad is None


def test_hooks_and_derivatives_of_derivatives() -> None:
    w = leaf(2.0)
    h = w * w
    h.register_hook(lambda g: g * h)  # d/dw (h^2/2) = h * 2w
    h.sum().backward(create_graph=True)
    first = w.grad
    assert first.item() == 16.0
    w.grad = None
    first.sum().backward()
    # first = h * 2w: 2h = 8 directly, and through h, whose cotangent 2w passes the hook again: 2w * h * 2w = 64
    assert w.grad.item() == 72.0

    def f(x: tw.Tensor) -> tw.Tensor:
        y = tw.sin(x)
        y.register_hook(lambda g: g * 5.0)
        return (y * y).sum()

    x = tw.tensor([0.3, 0.7], dtype=tw.float64)
    plain = tw.grad(lambda x: (tw.sin(x) ** 2).sum())(x)
    assert (tw.grad(f)(x) / plain).tolist() == pytest.approx([5.0, 5.0])
    assert (tw.jit(tw.grad(f))(x) / plain).tolist() == pytest.approx([5.0, 5.0])
    assert (tw.vmap(tw.grad(f))(x) / plain).tolist() == pytest.approx([5.0, 5.0])
    assert tw.jvp(f, (x,), (tw.ones_like(x),))[1].item() == pytest.approx(plain.sum().item())
    looped = tw.grad(lambda x: tw.fori_loop(0, 2, lambda i, c: c + f(x), tw.tensor(0.0, dtype=tw.float64)))(x)
    assert (looped / plain).tolist() == pytest.approx([10.0, 10.0])
    chosen = tw.grad(lambda x: tw.cond(x.sum() > 0, f, lambda x: x.sum(), x))(x)
    assert (chosen / plain).tolist() == pytest.approx([5.0, 5.0])


def test_hooks_through_a_jitted_call() -> None:
    w = leaf(1.0, 2.0)

    @tw.jit
    def model(x: tw.Tensor) -> tw.Tensor:
        h = w * x
        h.register_hook(lambda g: g * 2.0)
        return h * 3.0

    out = model(tw.tensor([1.0, 1.0]))
    out.register_hook(lambda g: g + 1.0)
    out.sum().backward()
    assert w.grad.tolist() == [12.0, 12.0]


def test_a_graph_is_used_again_when_it_was_retained_or_is_shared() -> None:
    w = leaf(2.0)
    h = w * w
    loss, other = h.sum() * 2.0, h.sum() * 3.0
    loss.backward()
    with pytest.raises(tw.GradientError, match=r"freed by an earlier backward.*retain_graph=True"):
        loss.backward()
    other.backward()  # what is freed are the tensors along the way, not what others hold
    assert w.grad.item() == 20.0
    with pytest.raises(tw.GradientError, match="freed"):
        (h * 2.0).sum().backward()


def test_what_has_no_slope_has_a_gradient_of_zeros() -> None:
    functions: list[Callable[[tw.Tensor], tw.Tensor]] = [
        tw.sign, tw.floor, tw.ceil, tw.round, tw.trunc, lambda x: x**0, lambda x: x // 2.0, lambda x: tw.floor(x) * 3.0,
    ]  # fmt: skip
    for f in functions:
        for retain in (False, True):
            w, other = leaf(1.5, -2.5), leaf(1.0)
            f(w).sum().backward(retain_graph=retain)
            assert w.grad.tolist() == [0.0, 0.0] and other.grad is None
        assert tw.grad(lambda x, f=f: f(x).sum())(w).tolist() == [0.0, 0.0]
        assert tw.autograd.grad(f(w).sum(), w)[0].tolist() == [0.0, 0.0]
    step = tw.jit(lambda: tw.floor(w).sum().backward(), keep_grads=True)
    w.grad = None
    step()
    assert w.grad.tolist() == [0.0, 0.0]
    unused = tw.grad(lambda x, y: x.sum(), (0, 1))(leaf(1.0), leaf(2.0, 3.0))
    assert [g.tolist() for g in unused] == [[1.0], [0.0, 0.0]]
    w.grad = None
    (w.detach() * other).sum().backward()
    assert w.grad is None and other.grad is not None


def test_slopes_at_corners() -> None:
    def slope(f: Callable[..., tw.Tensor], *at: float) -> list[float]:
        points = [tw.tensor(v, dtype=tw.float64) for v in at]
        reverse = [g.item() for g in tw.grad(f, tuple(range(len(at))))(*points)]
        for n, expected in enumerate(reverse):
            moves = tuple(tw.tensor(float(k == n), dtype=tw.float64) for k in range(len(at)))
            assert tw.jvp(f, tuple(points), moves)[1].item() == expected
        return reverse

    bounded = [slope(lambda x: tw.clip(x, -1.0, 1.0), v)[0] for v in (-2.0, -1.0, 0.0, 1.0, 2.0)]
    assert bounded == [0.0, 1.0, 1.0, 1.0, 0.0]
    assert slope(tw.clip, -2.0, -1.0, 1.0) == [0.0, 1.0, 0.0]
    assert slope(tw.clip, 1.0, -1.0, 1.0) == [1.0, 0.0, 0.0]
    assert slope(tw.clip, 0.0, 1.0, -1.0) == [0.0, 0.0, 1.0]  # bounds crossed: the result is max
    F = nn.functional
    assert [slope(F.hardtanh, v)[0] for v in (-1.0, 0.0, 1.0)] == [0.0, 1.0, 0.0]
    assert [slope(F.relu6, v)[0] for v in (0.0, 3.0, 6.0)] == [0.0, 1.0, 0.0]
    assert slope(tw.atan2, 0.0, 0.0) == [0.0, 0.0]
    assert slope(tw.atan2, 0.0, 2.0) == [0.5, 0.0]
    assert tw.hessian(tw.atan2, (0, 1))(tw.tensor(0.0), tw.tensor(0.0))[0][0].item() == 0.0
    nan = float("nan")
    assert str(tw.clip(tw.tensor([nan, 5.0]), 0.0, 1.0).tolist()) == "[nan, 1.0]"
    assert (
        str(tw.clip(tw.tensor([0.5, 2.0]), tw.tensor([nan, 0.0]), tw.tensor([1.0, nan])).tolist())
        == "[nan, nan]"
    )
    assert tw.clip(tw.tensor([1, 5]), 2, 3).tolist() == [2, 3]


def test_module_hooks() -> None:
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.data = tw.eye(2)
    x = tw.tensor([[1.0, 2.0]])
    seen: list[Any] = []
    before = layer.register_forward_pre_hook(lambda module, args: (args[0] * 2.0,))
    layer.register_forward_pre_hook(lambda module, args: args[0] + 1.0, prepend=True)
    after = layer.register_forward_hook(
        lambda module, args, output: seen.append((module is layer, args[0].tolist()))
    )
    layer.register_forward_hook(lambda module, args, kwargs, output: output * 10.0, with_kwargs=True)
    assert layer(x).tolist() == [[40.0, 60.0]] and seen == [(True, [[4.0, 6.0]])]
    after.remove()
    jitted = tw.jit(lambda x: layer(x))
    assert jitted(x).tolist() == [[40.0, 60.0]]
    before.remove()
    assert jitted(x).tolist() == [[20.0, 30.0]]  # traced anew
    with layer.register_forward_pre_hook(lambda m, a, k: ((a[0] * 0.0,), k), with_kwargs=True):
        assert layer(x).tolist() == [[0.0, 0.0]]
    assert layer(x).tolist() == [[20.0, 30.0]] and len(seen) == 1
    features: list[tw.Tensor] = []
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    model[1].register_forward_hook(lambda module, args, output: features.append(output))
    model(x).sum().backward()
    assert features[0].shape == (1, 3)
    layer.register_forward_pre_hook(lambda m, a, k: a, with_kwargs=True)
    with pytest.raises(TypeError, match=r"None or \(args, kwargs\)"):
        layer(x)


def test_mistakes_are_named() -> None:
    w = leaf(1.0)
    cases: list[tuple[Callable[[], Any], str]] = [
        (lambda: tw.ones(2).register_hook(print), "does not require gradients"),
        (lambda: (w * 2.0).register_post_accumulate_grad_hook(print), "only leaves"),
        (lambda: tw.ones(2).retain_grad(), "does not require gradients"),
    ]
    for call, text in cases:
        with pytest.raises(tw.GradientError, match=text):
            call()
    for bad, kind, text in (
        (lambda g: 1.0, RuntimeError, "a tensor.*got float"),
        (lambda g: g[0], ValueError, r"float32\[\] instead of float32\[1\]"),
    ):
        for tensor in (w, w * 2.0):
            handle = tensor.register_hook(bad)
            with pytest.raises(kind, match=text):
                (tensor * 3.0).sum().backward()
            handle.remove()


def test_rules_of_the_user_hold_for_results_that_were_read() -> None:
    @tw.custom_vjp
    def clipped(x: tw.Tensor) -> tw.Tensor:
        return x * 1.0

    clipped.defvjp(lambda x: (x * 1.0, None), lambda _, g: (g.clip(-1.0, 1.0),))
    w = leaf(2.0)
    y = clipped(w * 3.0)
    assert y.tolist() == [6.0]
    (y * 5.0 + w).sum().backward()
    assert w.grad.tolist() == [4.0]
