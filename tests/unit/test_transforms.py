"""The user's transforms: what each gives, that they compose in any order and inside `jit`, and their messages."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tilewright as tw
import tilewright.nn.functional as F

F64 = tw.float64


def t(*numbers: float) -> tw.Tensor:
    return tw.tensor(list(numbers), dtype=F64)


def draw(*shape: int, seed: int = 0) -> tw.Tensor:
    return tw.tensor(np.random.default_rng(seed).uniform(-1, 1, shape))


def same(a: Any, b: Any, rtol: float = 1e-9) -> None:
    np.testing.assert_allclose(
        np.asarray(a.numpy()), np.asarray(b.numpy() if isinstance(b, tw.Tensor) else b), rtol, 1e-10
    )


def network(w: tw.Tensor, x: tw.Tensor) -> tw.Tensor:
    """[D, H], [D] -> [H]: enough of everything for the transforms to get wrong."""
    h = F.softmax(x @ w, -1) * (x.sin().sum() + 2.0)
    return tw.where(h > 0.5, h.exp(), h * h) + tw.concat([h[1:], h[:1]])


# ---- products with the Jacobian ----------------------------------------------------------------------------


def test_jvp_and_vjp_are_transposes() -> None:
    w, x, dw, dx, g = draw(4, 3), draw(4, seed=1), draw(4, 3, seed=2), draw(4, seed=3), draw(3, seed=4)
    y, dy = tw.jvp(network, (w, x), (dw, dx))
    out, pull = tw.vjp(network, w, x)
    same(y, network(w, x))
    same(out, y)
    gw, gx = pull(g)
    assert float((dy * g).sum()) == pytest.approx(float((gw * dw).sum() + (gx * dx).sum()), rel=1e-12)


def test_trees_and_arguments_without_derivatives() -> None:
    def f(p: dict[str, Any], n: tw.Tensor, flag: str) -> dict[str, tw.Tensor]:
        assert flag == "yes"
        return {"a": p["x"] * p["y"][0], "n": n + 1, "unused": tw.ones(2)}

    p = {"x": t(2.0), "y": [t(3.0)]}
    n = tw.tensor([1])
    _, pull = tw.vjp(f, p, n, "yes")
    gp, gn, gf = pull({"a": t(1.0), "n": None, "unused": None})
    assert gp["x"].item() == 3.0 and gp["y"][0].item() == 2.0 and gn is None and gf is None
    _, dy = tw.jvp(f, (p, n, "yes"), ({"x": t(1.0), "y": None}, None, None))
    assert dy["a"].item() == 3.0 and dy["n"].tolist() == [0] and dy["unused"].tolist() == [0.0, 0.0]


def test_linearize_computes_what_does_not_move_once() -> None:
    calls = []

    def f(x: tw.Tensor) -> tw.Tensor:
        calls.append(1)
        return (x.sin() * x).sum()

    x = draw(5)
    y, push = tw.linearize(f, x)
    for seed in range(3):
        v = draw(5, seed=seed)
        same(push(v), tw.jvp(f, (x,), (v,))[1])
    assert len(calls) == 4
    y, pull = tw.vjp(f, x)
    same(pull(tw.tensor(2.0, dtype=F64))[0], 2 * tw.grad(f)(x).numpy())
    same(pull(tw.tensor(1.0, dtype=F64))[0], tw.grad(f)(x))
    same(y, f(x))


def test_auxiliary_data_passes_through() -> None:
    def f(x: tw.Tensor) -> tuple[tw.Tensor, Any]:
        return x * x, {"twice": 2 * x, "name": "f"}

    x = t(3.0)
    for result in (
        tw.jvp(f, (x,), (x,), has_aux=True),
        tw.vjp(f, x, has_aux=True),
        tw.linearize(f, x, has_aux=True),
    ):
        assert result[2]["twice"].item() == 6.0 and result[2]["name"] == "f"
        assert not result[2]["twice"].requires_grad
    jacobian, aux = tw.jacrev(f, has_aux=True)(x)
    assert jacobian.item() == 6.0 and aux["name"] == "f"
    assert tw.jacfwd(f, has_aux=True)(x)[0].item() == 6.0
    assert tw.hessian(f, has_aux=True)(x)[0].item() == 2.0


def test_results_have_no_history_of_their_own() -> None:
    x = t(1.0, 2.0)
    y, dy = tw.jvp(tw.sin, (x,), (x,))
    out, pull = tw.vjp(tw.sin, x)
    for tensor in (y, dy, out, pull(x)[0], tw.jacrev(tw.sin)(x), tw.jacfwd(tw.sin)(x), tw.vmap(tw.sin)(x)):
        assert not tensor.requires_grad
    assert not any(g.requires_grad for g in tw.grad(lambda a, b: (a * b).sum(), argnums=(0, 1))(x, x * 2))


def test_a_leaf_outside_is_reached_through_every_transform() -> None:
    for use in (
        lambda f, x: tw.jvp(f, (x,), (tw.ones_like(x),))[1],
        lambda f, x: tw.vjp(f, x)[1](tw.ones_like(x))[0],
        lambda f, x: tw.linearize(f, x)[1](tw.ones_like(x)),
        lambda f, x: tw.jacrev(f)(x).sum(0),
        lambda f, x: tw.jacfwd(f)(x).sum(0),
        lambda f, x: tw.vmap(tw.grad(f))(x),
    ):
        w = tw.tensor(2.0, dtype=F64, requires_grad=True)
        use(lambda x, w=w: w * w * x * x, t(1.0, 3.0)).sum().backward()  # type: ignore[no-untyped-call]
        assert w.grad is not None and w.grad.item() == pytest.approx(2 * 2.0 * 2 * (1 + 3))


# ---- Jacobians ---------------------------------------------------------------------------------------------


def test_jacobians_of_both_modes_agree() -> None:
    w, x = draw(4, 3), draw(4, seed=1)
    forward = tw.jacfwd(network, argnums=(0, 1))(w, x)
    reverse = tw.jacrev(network, argnums=(0, 1))(w, x)
    for a, b, shape in zip(forward, reverse, ((3, 4, 3), (3, 4)), strict=True):
        assert a.shape == shape
        same(a, b)
    columns = [tw.jvp(lambda x: network(w, x), (x,), (tw.eye(4, dtype=F64)[i],))[1].numpy() for i in range(4)]
    same(forward[1], np.stack(columns, -1))


def test_jacobian_of_trees() -> None:
    def f(p: dict[str, tw.Tensor]) -> dict[str, tw.Tensor]:
        return {"s": p["a"].sum(), "o": p["a"][:, None] * p["b"]}

    p = {"a": t(1.0, 2.0), "b": t(3.0, 4.0, 5.0)}
    for mode in (tw.jacfwd, tw.jacrev):
        j = mode(f)(p)
        assert j["o"]["a"].shape == (2, 3, 2) and j["s"]["b"].tolist() == [0.0, 0.0, 0.0]
        same(j["s"]["a"], [1.0, 1.0])
        same(j["o"]["b"], np.einsum("i,jk->ijk", [1.0, 2.0], np.eye(3)))


def test_hessian_and_its_product() -> None:
    def f(x: tw.Tensor) -> tw.Tensor:
        return (x.exp() * x[::-1]).sum() * x.sum()

    x, v = draw(4), draw(4, seed=1)
    h = tw.hessian(f)(x)
    same(h, h.mT.numpy())
    for first, second in itertools.product((tw.jacfwd, tw.jacrev), repeat=2):
        same(first(second(f))(x), h)
    same(tw.hvp(f, (x,), (v,))[0], (h @ v).numpy())
    same(tw.grad(lambda x: (tw.grad(f)(x) * v).sum())(x), (h @ v).numpy())


def test_holomorphic_derivatives() -> None:
    z = tw.tensor([1 + 2j, 0.5 - 1j], dtype=tw.complex128)
    for mode in (tw.jacfwd, tw.jacrev):
        same(mode(lambda z: z * z * 1j, holomorphic=True)(z), np.diag(2j * z.numpy()))
        with pytest.raises(tw.DTypeError, match="holomorphic=True"):
            mode(lambda z: z)(z)


# ---- vmap --------------------------------------------------------------------------------------------------


def test_vmap_is_a_loop() -> None:
    w, xs = draw(4, 3), draw(5, 4, seed=1)
    want = np.stack([network(w, x).numpy() for x in xs])
    same(tw.vmap(network, in_axes=(None, 0))(w, xs), want)
    same(tw.vmap(network, in_axes=(None, 1), out_axes=1)(w, xs.mT), want.T)
    same(tw.vmap(network, in_axes=(None, -1), out_axes=-1)(w, xs.mT), want.T)
    same(tw.vmap(lambda x, w: network(w, x), in_axes=(0, None))(xs, w), want)
    same(tw.vmap(lambda x: network(w, x))(xs), want)
    same(tw.jit(tw.vmap(tw.jit(network), in_axes=[None, 0]))(w, xs), want)


def test_nested_vmap() -> None:
    a, b = draw(3, 2, seed=1), draw(4, 2, seed=2)
    pairs = tw.vmap(tw.vmap(lambda x, y: (x - y).abs().sum(), in_axes=(None, 0)), in_axes=(0, None))(a, b)
    same(pairs, np.abs(a.numpy()[:, None] - b.numpy()).sum(-1))


def test_vmap_over_trees_and_keywords() -> None:
    def f(p: dict[str, Any], *, scale: tw.Tensor) -> tuple[tw.Tensor, tw.Tensor, tw.Tensor]:
        return p["x"] * p["k"][0] * scale, p["k"][0] + 1, p["n"]

    p = {"x": draw(2, 3), "k": (t(2.0),), "n": tw.tensor([1, 2])}
    axes = {"x": 0, "k": None, "n": 0}
    y, k, n = tw.vmap(f, in_axes=(axes,), out_axes=(0, None, 0))(p, scale=t(1.0, 10.0))
    same(y, p["x"].numpy() * 2 * np.array([[1.0], [10.0]]))
    assert k.tolist() == [3.0] and n.tolist() == [1, 2]
    assert tw.vmap(lambda: tw.ones(2), in_axes=(), axis_size=3)().shape == (3, 2)


def test_per_example_gradients() -> None:
    def loss(w: tw.Tensor, x: tw.Tensor, y: tw.Tensor) -> tw.Tensor:
        return F.cross_entropy((x @ w)[None], y[None])

    w, xs, ys = draw(4, 3), draw(5, 4, seed=1), tw.tensor([0, 2, 1, 1, 0])
    per_example = tw.vmap(tw.grad(loss), in_axes=(None, 0, 0))
    rows = np.stack([tw.grad(loss)(w, x, y).numpy() for x, y in zip(xs, ys, strict=True)])
    same(per_example(w, xs, ys), rows)
    same(tw.jit(per_example)(w, xs, ys), rows)
    mean = tw.grad(lambda w: F.cross_entropy(xs @ w, ys))(w)
    same(mean, rows.mean(0))


def test_vmap_of_convolutions_and_pooling() -> None:
    x, k = draw(3, 2, 4, 8, 8), draw(3, 6, 2, 3, 3, seed=1)
    conv = lambda x, k: F.max_pool2d(F.conv2d(x, k, stride=1, padding=1, groups=2).relu(), 2)  # noqa: E731
    for axes in ((0, 0), (0, None), (None, 0)):
        args = [v if a == 0 else v[0] for v, a in zip((x, k), axes, strict=True)]
        loop = [
            conv(*(v[i] if a == 0 else v for v, a in zip(args, axes, strict=True))).numpy() for i in range(3)
        ]
        same(tw.vmap(conv, in_axes=axes)(*args), np.stack(loop))


def test_a_long_function_and_no_grad_inside() -> None:
    def long(x: tw.Tensor) -> tw.Tensor:
        with tw.no_grad():
            for _ in range(200):  # longer than a chain that is computed while it is recorded
                x = (x * 1.01).sin() + x
        return x

    x = draw(3)
    same(tw.vmap(long)(x), long(x))
    assert tw.grad(lambda x: tw.vmap(long)(x).sum() + x.sum())(x).tolist() == [1.0, 1.0, 1.0]
    y, dy = tw.jvp(long, (x,), (x,))
    same(y, long(x))
    assert dy.tolist() == [0.0, 0.0, 0.0]


def test_state_and_random_numbers_inside_vmap() -> None:
    tw.manual_seed(0)
    noise = tw.vmap(lambda x: x + tw.rand(2), randomness="same")(tw.zeros((3, 2)))
    again = tw.rand(2)
    assert noise[0].tolist() == noise[2].tolist() != again.tolist()
    tw.manual_seed(0)
    assert tw.rand(2).tolist() == noise[0].tolist() and tw.rand(2).tolist() == again.tolist()
    counter = tw.zeros(())

    def count(x: tw.Tensor) -> tw.Tensor:
        counter.assign(counter + 1)
        return x + counter

    assert tw.vmap(count)(tw.zeros(2)).tolist() == [1.0, 1.0] and counter.item() == 1.0
    with pytest.raises(tw.LeakedTensorError, match="from outside"):
        tw.vmap(lambda x: counter.assign(x))(tw.ones(2))
    assert counter.item() == 1.0


# ---- every order of two transforms -------------------------------------------------------------------------

Unary = Callable[[tw.Tensor], tw.Tensor]


def cube(x: tw.Tensor) -> tw.Tensor:
    return x * x * x


# Each takes an elementwise function to its derivative.
MODES: dict[str, Callable[[Unary], Unary]] = {
    "grad": lambda f: tw.grad(lambda x: f(x).sum()),
    "jvp": lambda f: lambda x: tw.jvp(f, (x,), (tw.ones_like(x),))[1],
    "vjp": lambda f: lambda x: tw.vjp(f, x)[1](tw.ones_like(x))[0],
    "linearize": lambda f: lambda x: tw.linearize(f, x)[1](tw.ones_like(x)),
    "jacrev": lambda f: lambda x: tw.jacrev(lambda x: f(x).sum())(x),
    "jacfwd": lambda f: lambda x: tw.jacfwd(lambda x: f(x).sum())(x),
    "vmap grad": lambda f: tw.vmap(tw.grad(lambda x: f(x).sum())),
    "vmap jvp": lambda f: tw.vmap(lambda x: tw.jvp(f, (x,), (tw.ones_like(x),))[1]),
    "grad vmap": lambda f: tw.grad(lambda x: tw.vmap(f)(x).sum()),
    "jit grad": lambda f: tw.jit(tw.grad(lambda x: f(x).sum())),
    "grad jit": lambda f: tw.grad(tw.jit(lambda x: f(x).sum())),
    "checkpoint": lambda f: tw.grad(tw.checkpoint(lambda x: f(x).sum())),
    "jvp checkpoint": lambda f: lambda x: tw.jvp(tw.checkpoint(f), (x,), (tw.ones_like(x),))[1],
}


@pytest.mark.parametrize("inner", MODES)
@pytest.mark.parametrize("outer", MODES)
def test_two_derivatives_in_any_order(outer: str, inner: str) -> None:
    x = t(0.5, 2.0, -1.0, 3.0).reshape(2, 2)
    second = MODES[outer](MODES[inner](cube))
    same(second(x), 6 * x.numpy())
    same(tw.jit(second)(x), 6 * x.numpy())


def test_third_derivatives() -> None:
    x = t(0.5, 2.0)[:, None]
    for names in (
        ("grad", "jvp", "vmap grad"),
        ("vmap jvp", "linearize", "vjp"),
        ("jvp", "jvp", "jvp"),
        ("jacfwd",) * 3,
    ):
        f: Unary = lambda x: x * cube(x)  # noqa: E731
        for name in names:
            f = MODES[name](f)
        same(f(x), 24 * x.numpy())


def test_variables_of_nested_transforms_are_not_confused() -> None:
    x = tw.tensor(2.0, dtype=F64)
    inner = lambda x: tw.jvp(lambda y: x + y, (tw.ones_like(x),), (tw.ones_like(x),))[1]  # noqa: E731
    assert tw.grad(lambda x: x * inner(x))(x).item() == 1.0
    assert tw.jvp(lambda x: x * inner(x), (x,), (tw.ones_like(x),))[1].item() == 1.0


# ---- rules of the user's own -------------------------------------------------------------------------------


def doubled_vjp() -> Any:
    """x y with a gradient that is twice too large, and shows where it was used."""

    @tw.custom_vjp
    def f(x: tw.Tensor, y: tw.Tensor) -> tw.Tensor:
        return x * y

    f.defvjp(lambda x, y: (x * y, (x, y)), lambda saved, g: (2.0 * g * saved[1], 2.0 * g * saved[0]))
    return f


def doubled_jvp() -> Any:
    @tw.custom_jvp
    def f(x: tw.Tensor, y: tw.Tensor) -> tw.Tensor:
        return x * y

    @f.defjvp
    def rule(primals: Any, tangents: Any) -> Any:
        (x, y), (dx, dy) = primals, tangents
        return f(x, y), 2.0 * (dx * y + x * dy)

    return f


@pytest.mark.parametrize("make", [doubled_vjp, doubled_jvp])
def test_a_rule_of_the_users_in_every_transform(make: Callable[[], Any]) -> None:
    f = make()
    x, y = t(2.0, 3.0), t(5.0, 7.0)
    same(f(x, y), [10.0, 21.0])
    same(tw.grad(lambda x: f(x, y).sum())(x), 2 * y.numpy())
    same(tw.jit(tw.grad(lambda x: f(x, y).sum()))(x), 2 * y.numpy())
    same(tw.jvp(f, (x, y), (x, None))[1], 2 * (x * y).numpy())
    same(tw.vmap(f)(x, y), [10.0, 21.0])
    same(tw.vmap(tw.grad(f), in_axes=(0, 0))(x, y), 2 * y.numpy())
    same(tw.grad(lambda x: tw.vmap(f)(x, y).sum())(x), 2 * y.numpy())
    same(tw.grad(lambda y0: tw.vmap(lambda x: f(x, y0))(x).sum())(y[0]), 2 * 5.0)
    same(tw.jvp(lambda x: tw.vmap(f)(x, y), (x,), (x,))[1], 2 * (x * y).numpy())
    same(
        tw.jacfwd(lambda x: tw.grad(lambda x: f(x, x).sum())(x))(x), np.diag([4.0, 4.0])
    )  # the rule itself is differentiated
    same(tw.grad(tw.checkpoint(lambda x: f(x.exp(), y).sum()))(x), 2 * (x.exp() * y).numpy())
    leaf = tw.tensor([1.0, 2.0], dtype=F64, requires_grad=True)
    f(leaf * 3.0, y).sum().backward()
    same(leaf.grad, 6 * y.numpy())


def test_custom_vjp_with_several_results_sees_all_cotangents_at_once() -> None:
    seen = []

    @tw.custom_vjp
    def f(x: tw.Tensor) -> dict[str, tw.Tensor]:
        return {"a": x + 1, "b": x * 2}

    def bwd(saved: None, g: dict[str, tw.Tensor]) -> tuple[tw.Tensor]:
        seen.append(sorted(g))
        return (tw.maximum(g["a"], g["b"]),)  # not linear, as clipping is not

    f.defvjp(lambda x: (f.fun(x), None), bwd)
    x = t(1.0, 1.0)
    weights = t(3.0, 1.0), t(1.0, 5.0)
    both = lambda x: (lambda y: (y["a"] * weights[0]).sum() + (y["b"] * weights[1]).sum())(f(x))  # noqa: E731
    same(tw.grad(both)(x), [3.0, 5.0])
    same(tw.grad(lambda x: f(x)["b"].sum())(x), [1.0, 1.0])
    assert seen == [["a", "b"], ["a", "b"]]


def test_arguments_without_derivative_of_custom_rules() -> None:
    @tw.custom_vjp
    def f(x: tw.Tensor, n: tw.Tensor, power: int = 2) -> tw.Tensor:
        return x**power * n

    f = tw.custom_vjp(f.fun, nondiff_argnums=(2,))
    f.defvjp(lambda x, n, power: (x**power * n, x), lambda power, x, g: (g * 100.0 * power, None))
    assert tw.grad(f)(tw.tensor(2.0), tw.tensor(3), power=3).item() == 300.0

    @tw.custom_jvp
    def h(x: tw.Tensor, y: tw.Tensor) -> tw.Tensor:
        return x * y

    h.defjvps(None, lambda t, out, x, y: 10.0 * t * x)
    assert [g.item() for g in tw.grad(h, argnums=(0, 1))(tw.tensor(2.0), tw.tensor(3.0))] == [0.0, 20.0]


def test_messages_of_custom_rules() -> None:
    f = tw.custom_vjp(lambda x: x)
    with pytest.raises(tw.GradientError, match="no rule"):
        f(tw.ones(2))
    f.defvjp(lambda x: (x, None), lambda saved, g: g)
    with pytest.raises(tw.GradientError, match="returns a tuple"):
        tw.grad(lambda x: f(x).sum())(tw.ones(2))
    f.defvjp(lambda x: (x, None), lambda saved, g: (g.sum(),))
    with pytest.raises(tw.ShapeError, match=r"shape \(2,\)"):
        tw.grad(lambda x: f(x).sum())(tw.ones(2))


def test_stop_gradient() -> None:
    x = t(3.0)
    f = lambda x: (x * tw.stop_gradient({"x": x})["x"]).sum()  # noqa: E731
    assert tw.grad(f)(x).tolist() == [3.0]
    assert tw.jvp(f, (x,), (tw.ones_like(x),))[1].item() == 3.0
    assert tw.grad(lambda x: tw.vmap(f)(x[None]).sum())(x).tolist() == [3.0]


# ---- recomputation -----------------------------------------------------------------------------------------

WIDTH, ROWS, LAYERS = 64, 256, 8


def chain(
    layer: Callable[[tw.Tensor, tw.Tensor], tw.Tensor],
) -> Callable[[tw.Tensor, list[tw.Tensor]], tw.Tensor]:
    def loss(x: tw.Tensor, weights: list[tw.Tensor]) -> tw.Tensor:
        for w in weights:
            x = layer(x, w)
        return (x * x).mean()

    return loss


def block(x: tw.Tensor, w: tw.Tensor) -> tw.Tensor:
    h = (x @ w).tanh()
    for _ in range(2):
        h = (h @ w.mT).sin() @ w
    return h + x


def test_checkpoint_gives_the_same_gradients_in_less_memory() -> None:
    rng = np.random.default_rng(0)
    x = tw.tensor(rng.normal(size=(ROWS, WIDTH)).astype(np.float32))
    weights = [tw.tensor((rng.normal(size=(WIDTH, WIDTH)) / 16).astype(np.float32)) for _ in range(LAYERS)]
    needed, found = {}, {}
    for name, layer in (("kept", block), ("recomputed", tw.checkpoint(block))):
        step = tw.jit(tw.value_and_grad(chain(layer), argnums=1))
        found[name] = step(x, weights)[1]
        executable = step.executable(x, weights)
        assert executable is not None
        needed[name] = executable.schedule.arena_bytes
    for a, b in zip(found["kept"], found["recomputed"], strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=2e-4, atol=1e-6)
    assert needed["recomputed"] < 0.6 * needed["kept"], needed


def dots(step: Any, *args: Any) -> int:
    executable = step.executable(*args)
    assert executable is not None
    return sum(
        line.split()[2] == "dot" for line in executable.stage_text("graph").splitlines() if "= dot" in line
    )


def test_policies_say_what_is_kept() -> None:
    x, w = draw(8, 4), draw(4, 4, seed=1)
    layer = lambda x, w: ((x @ w).sin() @ w).sin()  # noqa: E731
    counts, grads = {}, {}
    for name in (
        "nothing_saveable",
        "everything_saveable",
        "dots_saveable",
        "dots_with_no_batch_dims_saveable",
    ):
        policy = getattr(tw.checkpoint_policies, name)
        step = tw.jit(tw.value_and_grad(lambda w, p=policy: tw.checkpoint(layer, policy=p)(x, w).sum()))
        counts[name], grads[name] = dots(step, w), step(w)[1]
    plain = tw.jit(tw.value_and_grad(lambda w: layer(x, w).sum()))
    for g in grads.values():
        same(g, plain(w)[1])
    base = dots(plain, w)
    assert counts["everything_saveable"] == counts["dots_saveable"] == base
    assert counts["dots_with_no_batch_dims_saveable"] == base
    assert counts["nothing_saveable"] > base


def test_checkpoint_reaches_what_the_function_captures() -> None:
    w = tw.tensor([2.0, 3.0], dtype=F64, requires_grad=True)
    v = w * 2
    tw.checkpoint(lambda x: (x * v).sin().sum())(t(1.0, 2.0)).backward()
    same(w.grad, np.cos([4.0, 12.0]) * [2.0, 4.0])
    x = t(1.0, 2.0)
    nested = tw.checkpoint(lambda x: tw.checkpoint(lambda x: x.sin() * x)(x).cos().sum())
    same(tw.grad(nested)(x), tw.grad(lambda x: (x.sin() * x).cos().sum())(x))
    same(tw.vmap(tw.grad(nested))(x[:, None]).sum(-1), tw.grad(lambda x: (x.sin() * x).cos().sum())(x))
    same(tw.hessian(nested)(x), tw.hessian(lambda x: (x.sin() * x).cos().sum())(x))


def test_grad_takes_arrays_integers_and_auxiliary_results() -> None:
    def f(x: Any, n: Any, tree: Any, *, scale: float = 1.0) -> Any:
        return (x * tree["a"] * scale).sum() * n, {"n": n, "y": x}

    x, tree = np.asarray([1.0, 2.0]), {"a": tw.tensor([3.0, 4.0], dtype=tw.float64)}
    (dx, dt_), aux = tw.grad(f, (0, -1), has_aux=True)(x, 2, tree, scale=0.5)
    assert (dx.tolist(), dt_["a"].tolist()) == ([3.0, 4.0], [1.0, 2.0])
    assert aux["n"] == 2 and aux["y"].tolist() == [1.0, 2.0]
    (value, _), slope = tw.value_and_grad(f, has_aux=True)(np.float64(2.0), tw.tensor(3), {"a": 1.0})
    assert (value.item(), slope.item()) == (6.0, 3.0)
    assert (
        tw.jacfwd(lambda x: x * x)(x).tolist()
        == tw.jacrev(lambda x: x * x)(x).tolist()
        == [[2.0, 0.0], [0.0, 4.0]]
    )
    with pytest.raises(TypeError, match="a tensor of int64; see `argnums`"):
        tw.grad(f, 1, has_aux=True)(x, np.asarray(2), tree)


# ---- check_grads -------------------------------------------------------------------------------------------


def test_check_grads_accepts_what_is_right_and_names_what_is_wrong() -> None:
    tw.check_grads(network, (draw(4, 3), draw(4, seed=1)), order=2)
    tw.check_grads(lambda p: p["z"] * p["z"].conj(), ({"z": tw.tensor([1 + 2j], dtype=tw.complex128)},), 2)
    tw.check_grads(lambda x: x.sin(), (tw.tensor([0.5, 1.0]),), order=1)
    with pytest.raises(tw.GradientError, match=r"derivative \(rev\)"):
        tw.check_grads(doubled_vjp(), (t(1.0), t(2.0)), order=1, modes=("rev",))
    with pytest.raises(tw.GradientError, match=r"derivative \(fwd\)"):
        tw.check_grads(doubled_jvp(), (t(1.0), t(2.0)), order=1)
    with pytest.raises(tw.DTypeError, match="floating-point"):
        tw.check_grads(lambda x: x, (tw.tensor([1]),), order=1)


# ---- messages ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: tw.vmap(tw.sin)(tw.tensor(1.0)), tw.AxisError, "rank 0"),
        (lambda: tw.vmap(tw.add)(tw.ones(2), tw.ones(3)), tw.ShapeError, r"2 \(argument leaf 0\) and 3 \(argument leaf 1\)"),
        (lambda: tw.vmap(tw.sin, in_axes=1)(tw.ones(2)), tw.AxisError, "in_axes"),
        (lambda: tw.vmap(tw.sin, in_axes=None)(tw.ones(2)), tw.ArgumentError, "axis_size"),
        (lambda: tw.vmap(tw.sin, in_axes=(0, 0))(tw.ones(2)), tw.ArgumentError, "2 entries for 1"),
        (lambda: tw.vmap(tw.sin, out_axes=None)(tw.ones(2)), tw.ArgumentError, "differs between examples"),
        (lambda: tw.vmap(tw.sin, out_axes=1)(tw.ones(2)), tw.AxisError, "out_axes"),
        (lambda: tw.vmap(lambda x: x.item())(tw.ones(2)), tw.TracedValueError, "read as a number"),
        (lambda: tw.vmap(lambda x: x if x > 0 else -x)(tw.ones(2)), tw.TracedValueError, "read as a number"),
        (lambda: tw.jvp(tw.sin, tw.ones(2), (tw.ones(2),)), tw.DTypeError, "`primals` is a tuple"),
        (lambda: tw.jvp(tw.sin, (tw.ones(2),), (tw.ones(3),)), tw.ShapeError, "tangents"),
        (lambda: tw.jvp(tw.sin, (tw.ones(2),), (tw.tensor([1, 2]),)), tw.DTypeError, "float32"),
        (lambda: tw.vjp(tw.sin, tw.ones(2))[1](tw.ones(3)), tw.ShapeError, "cotangent"),
        (lambda: tw.jacrev(lambda x: x > 0)(tw.ones(2)), tw.DTypeError, "no derivative"),
        (lambda: tw.jacfwd(tw.sin)(tw.tensor([1, 2])), tw.DTypeError, "argnums"),
        (lambda: tw.hessian(tw.sin, argnums=1)(tw.ones(2)), tw.GradientError, "argnums"),
        (lambda: tw.jvp(lambda x: "text", (tw.ones(2),), (tw.ones(2),)), tw.DTypeError, "returns tensors"),
    ],
)  # fmt: skip
def test_messages(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_tensor_of_one_example_does_not_leave() -> None:
    kept: list[tw.Tensor] = []
    tw.vmap(lambda x: kept.append(x) or x)(tw.ones(2))  # type: ignore[func-returns-value]
    with pytest.raises(tw.LeakedTensorError):
        kept[0] + 1


# ---- associative scans -------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 8, 33])
def test_associative_scan_is_a_loop(count: int) -> None:
    x = draw(2, count, 3)
    same(tw.associative_scan(tw.add, x, axis=1), np.cumsum(x.numpy(), 1))
    same(tw.associative_scan(tw.add, x, axis=-2, reverse=True), np.cumsum(x.numpy()[:, ::-1], 1)[:, ::-1])
    m = draw(count, 3, 3, seed=1)
    products = [m.numpy()[0]] if count else []
    for k in range(1, count):
        products.append(products[-1] @ m.numpy()[k])
    same(tw.associative_scan(tw.matmul, m), np.reshape(products, (count, 3, 3)))


def test_a_linear_recurrence_as_an_associative_scan() -> None:
    """h[t] = a[t] h[t-1] + b[t], its gradient, and both for many examples."""
    a, b = draw(5, 9), draw(5, 9, seed=1)

    def run(a: tw.Tensor, b: tw.Tensor) -> tw.Tensor:
        step = lambda p, q: {"a": q["a"] * p["a"], "b": q["a"] * p["b"] + q["b"]}  # noqa: E731
        return tw.associative_scan(step, {"a": a, "b": b})["b"]

    def loop(a: tw.Tensor, b: tw.Tensor) -> tw.Tensor:
        h = [b[0]]
        for k in range(1, 9):
            h.append(a[k] * h[-1] + b[k])
        return tw.stack(h)

    for f in (lambda a, b: run(a, b), tw.jit(run)):
        same(tw.vmap(f)(a, b), np.stack([loop(*ab).numpy() for ab in zip(a, b, strict=True)]))
        for got, want in zip(
            *(tw.vmap(tw.grad(lambda a, b, g=g: g(a, b).sum(), (0, 1)))(a, b) for g in (f, loop)), strict=True
        ):
            same(got, want)
    tw.check_grads(run, (a[0], b[0]), order=2)
    with pytest.raises(tw.DTypeError, match="of their kind"):
        tw.associative_scan(lambda p, q: p.sum(), a)


def test_forward_functions_of_custom_rules_may_call_the_function_itself() -> None:
    """The way that rules are written in JAX: ``fwd`` calls the function, whose own rule holds in higher derivatives."""

    @tw.custom_vjp
    def cube(x: tw.Tensor) -> tw.Tensor:
        return x * x * x

    cube.defvjp(lambda x: (cube(x), cube(x)), lambda y, g: (3 * y ** (2 / 3) * g,))
    x = tw.tensor(0.3, dtype="float64")
    first, second, third = tw.grad(cube), tw.grad(tw.grad(cube)), tw.grad(tw.grad(tw.grad(cube)))
    for transform in (lambda f: f, tw.jit):
        found = [transform(f)(x).item() for f in (first, second, third)]
        np.testing.assert_allclose(found, [0.27, 1.8, 6.0], rtol=1e-12)
    np.testing.assert_allclose(tw.jvp(second, (x,), (x,))[1].item(), 6 * 0.3, rtol=1e-12)
    xs = tw.tensor([0.3, 0.5], dtype="float64")
    np.testing.assert_allclose(tw.vmap(second)(xs).tolist(), [1.8, 3.0], rtol=1e-12)

    @functools.partial(tw.custom_vjp, nondiff_argnums=(0,))
    def power(n: int, x: tw.Tensor) -> tw.Tensor:
        return x**n

    power.defvjp(lambda n, x: (power(n, x), (x,)), lambda n, kept, g: (g * n * power(n - 1, kept[0]),))
    slope = tw.grad(tw.grad(lambda x: power(3, x)))
    np.testing.assert_allclose(slope(x).item(), 1.8, rtol=1e-12)


def test_implicit_derivative_of_a_fixed_point_found_by_a_loop() -> None:
    @tw.custom_vjp
    def fixed_point(a: tw.Tensor, start: tw.Tensor) -> tw.Tensor:
        def go_on(c: tuple[tw.Tensor, tw.Tensor]) -> tw.Tensor:
            return abs(c[0] - c[1]) > 1e-13

        return tw.while_loop(go_on, lambda c: (c[1], tw.cos(a * c[1])), (start + 1.0, start))[1]

    def forward(a: tw.Tensor, start: tw.Tensor) -> tuple[tw.Tensor, tuple[tw.Tensor, tw.Tensor]]:
        x = fixed_point(a, start)
        return x, (a, x)

    def backward(kept: tuple[tw.Tensor, tw.Tensor], g: tw.Tensor) -> tuple[tw.Tensor, None]:
        a, x = kept
        sine = tw.sin(a * x)
        return g * (-x * sine) / (1 + a * sine), None

    fixed_point.defvjp(forward, backward)
    a, start = tw.tensor(0.8, dtype="float64"), tw.tensor(0.5, dtype="float64")

    def near(h: float) -> float:
        return fixed_point(a + h, start).item()

    first, second = tw.grad(fixed_point), tw.grad(tw.grad(fixed_point))
    np.testing.assert_allclose(first(a, start).item(), (near(1e-5) - near(-1e-5)) / 2e-5, rtol=1e-7)
    np.testing.assert_allclose(
        tw.jit(second)(a, start).item(), (near(1e-3) - 2 * near(0) + near(-1e-3)) / 1e-6, rtol=1e-4
    )


@pytest.mark.parametrize("rule", ["vjp", "jvp"])
@pytest.mark.parametrize("around", ["scan", "reversed", "fori", "cond", "switch", "nested"])
def test_a_rule_of_the_users_makes_and_reads_tensors_inside_loops_and_branches(
    rule: str, around: str
) -> None:
    """Tensors that a rule reads besides its operands become operands of the loop or branch it is differentiated in."""
    outside = tw.tensor([[0.5, -1.0], [0.25, 2.0]], dtype=tw.float64)

    def plain(x: Any) -> Any:
        return tw.tanh(outside @ x) + tw.tensor([0.1, 0.2], dtype=tw.float64) * x

    def slope(x: Any) -> Any:  # of tanh, then of the whole: also of tensors that are made here
        kept = 1 - tw.tanh(outside @ x) ** 2
        return kept[:, None] * outside + tw.diag(tw.tensor([0.1, 0.2], dtype=tw.float64))

    if rule == "vjp":
        own = tw.custom_vjp(plain)
        own.defvjp(lambda x: (plain(x), x), lambda x, g: (g @ slope(x),))
    else:
        own = tw.custom_jvp(plain)
        own.defjvp(lambda primals, tangents: (own(*primals), slope(*primals) @ tangents[0]))

    def wrapped(f: Any) -> Any:
        return {
            "scan": lambda x: tw.scan(lambda c, s: (f(c) * s, c), x, tw.tensor([0.5, 2.0, 1.5], dtype=tw.float64))[0],
            "reversed": lambda x: tw.scan(lambda c, s: (c + f(s), f(c)), x, tw.stack([x, 2 * x]), reverse=True)[1].sum(0),
            "fori": lambda x: tw.fori_loop(0, 3, lambda i, y: f(y), x),
            "cond": lambda x: tw.cond(x.sum() > 0, f, lambda y: y, x),
            "switch": lambda x: tw.switch(tw.tensor(1), [lambda y: y, lambda y: f(y) * y], x),
            "nested": lambda x: tw.scan(lambda c, _: (tw.fori_loop(0, 2, lambda i, y: f(y), c), None), x, length=2)[0],
        }[around]  # fmt: skip

    x = tw.tensor([0.3, 0.9], dtype=tw.float64)
    want = tw.jacrev(wrapped(plain))(x).numpy()
    for jacobian in (tw.jacrev, tw.jacfwd, lambda f: tw.jit(tw.jacrev(f))):
        np.testing.assert_allclose(jacobian(wrapped(own))(x).numpy(), want, rtol=1e-12)
    twice = tw.grad(lambda x: (tw.grad(lambda y: wrapped(own)(y).sum())(x) ** 2).sum())
    plainly = tw.grad(lambda x: (tw.grad(lambda y: wrapped(plain)(y).sum())(x) ** 2).sum())
    np.testing.assert_allclose(twice(x).numpy(), plainly(x).numpy(), rtol=1e-12)
