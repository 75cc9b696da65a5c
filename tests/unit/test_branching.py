"""``cond`` and ``switch``: the branch in Python as the judge, through every transform, and as one native call."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tilewright as tw
from tilewright import compiler
from tilewright.autodiff.switch import switch as switch_values
from tilewright.core import dtype as dt
from tilewright.functions import branching
from tilewright.graph.body import Body
from tilewright.graph.graph import Graph
from tilewright.graph.ir import Value, constant, input_value, make, topological
from tilewright.graph.verify import verify
from tilewright.passes.pipeline import run_passes
from tilewright.runtime.statistics import stats

F64 = tw.float64


def tensor(*shape: int, seed: int = 0) -> tw.Tensor:
    return tw.tensor(np.random.default_rng(seed).normal(size=shape) * 0.5)


W = tensor(4, 4, seed=1)


def heavy(x: tw.Tensor) -> tw.Tensor:
    return (tw.tanh(x @ W) @ W.T).sum()


def light(x: tw.Tensor) -> tw.Tensor:
    return (x * x * 3.0).sum()


def log(x: tw.Tensor) -> tw.Tensor:
    return tw.log(x * x).sum()


BRANCHES = (heavy, light, log)


@pytest.mark.parametrize("index", [-3, 0, 1, 2, 9])
def test_switch_is_the_branch_and_so_are_its_derivatives(index: int) -> None:
    x, t = tensor(3, 4, seed=2), tensor(3, 4, seed=3)
    chosen = BRANCHES[min(max(index, 0), 2)]
    number = tw.tensor(index)

    def f(x: tw.Tensor) -> tw.Tensor:
        return tw.switch(number, BRANCHES, x)

    for run in (lambda g: g, tw.jit):
        for transform in (
            lambda h: h, tw.grad, lambda h: lambda x: tw.jvp(h, (x,), (t,))[1], lambda h: lambda x: tw.hvp(h, (x,), (t,))[0],
            lambda h: tw.grad(lambda x: (tw.grad(h)(x) * t).sum()), tw.hessian, tw.checkpoint,
        ):  # fmt: skip
            got, want = run(transform(f))(x), transform(chosen)(x)
            np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-9, atol=1e-12)


def test_gradients_match_differences_to_third_order() -> None:
    def f(x: tw.Tensor, y: tw.Tensor) -> tw.Tensor:
        return tw.cond(
            (x * y).sum() > 0, lambda: (tw.sin(x) * y).sum(), lambda: (x * x * x * y).sum() + (x @ y)
        )

    for seed in (0, 3):
        tw.check_grads(f, (tensor(4, seed=seed), tensor(4, seed=seed + 1)), order=3)


def test_only_the_branch_taken_is_computed() -> None:
    # A root of a negative number would be NaN, and its slope at 0 infinite, if the other branch were computed at all.
    f = tw.jit(tw.grad(lambda x: tw.cond(x > 0, tw.sqrt, lambda x: x * 0.5, x)))
    assert f(tw.tensor(0.0)).item() == 0.5 and f(tw.tensor(4.0)).item() == 0.25
    out_of_range = tw.tensor([7])
    table = tw.tensor([1.0, 2.0])
    pick = tw.jit(lambda p: tw.cond(p, lambda: table[out_of_range].sum(), lambda: table.sum()))
    assert pick(tw.tensor(False)).item() == 3.0
    with pytest.raises(IndexError, match="out of range"):
        pick(tw.tensor(True)).item()
    assert pick(tw.tensor(False)).item() == 3.0


def test_a_jitted_choice_is_one_native_call_also_backwards() -> None:
    step = tw.jit(tw.value_and_grad(lambda x, p: tw.cond(p, heavy, light, x)))
    x = tensor(3, 4, seed=2)
    for p in (True, False):
        step(x, tw.tensor(p))
        before = stats.native_calls
        value, slope = step(x, tw.tensor(p))
        assert stats.native_calls == before + 1
        want = tw.value_and_grad(heavy if p else light)(x)
        np.testing.assert_allclose(value.item(), want[0].item(), rtol=1e-12)
        np.testing.assert_allclose(slope.numpy(), want[1].numpy(), rtol=1e-10)
    executable = step.executable(x, tw.tensor(True))
    assert executable is not None and not executable.fallbacks
    assert "branch 0 of 2" in executable.stage_text("plan")


def test_backward_reaches_tensors_that_branches_read() -> None:
    w, b = (tw.tensor(v, requires_grad=True) for v in ([1.0, 2.0], [3.0, 4.0]))
    x = tw.tensor([5.0, 6.0])
    for p in (True, False):
        w.grad = b.grad = None
        tw.cond(tw.tensor(p), lambda x: (x * w).sum(), lambda x: (x + b).sum() * 2.0, x).backward()
        assert w.grad.tolist() == ([5.0, 6.0] if p else [0.0, 0.0])
        assert b.grad.tolist() == ([0.0, 0.0] if p else [2.0, 2.0])
    with tw.no_grad():
        assert not tw.cond(tw.tensor(True), lambda: w, lambda: b).requires_grad


def test_batches_select_or_share_the_branch() -> None:
    xs, ps = tensor(5, 4), tw.tensor([True, False, True, True, False])

    def one(p: tw.Tensor, x: tw.Tensor) -> Any:
        return tw.cond(p, lambda x: (x * 2.0, x.sum()), lambda x: (W[0], x @ W[1]), x)

    for p_axis, x_axis in ((0, 0), (0, None), (None, 0)):
        p, x = ps if p_axis == 0 else ps[0], xs if x_axis == 0 else xs[1]
        got = tw.vmap(one, (p_axis, x_axis))(p, x)
        rows = [one(p[n] if p_axis == 0 else p, x[n] if x_axis == 0 else x) for n in range(5)]
        for k in range(2):
            np.testing.assert_allclose(got[k].numpy(), np.stack([r[k].numpy() for r in rows]), rtol=1e-12)
    slopes = tw.vmap(tw.grad(lambda p, x: one(p, x)[1], 1))(ps, xs)
    rows = [tw.grad(lambda p, x: one(p, x)[1], 1)(ps[n], xs[n]) for n in range(5)]
    np.testing.assert_allclose(slopes.numpy(), np.stack([r.numpy() for r in rows]), rtol=1e-12)
    numbers = tw.tensor([0, 1, 2, 7, -1])
    got = tw.jit(tw.vmap(lambda n, x: tw.switch(n, BRANCHES, x)))(numbers, tensor(5, 3, 4))
    want = [tw.switch(numbers[n], BRANCHES, tensor(5, 3, 4)[n]).item() for n in range(5)]
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-10)


def test_branches_in_loops_and_loops_in_branches() -> None:
    def step(c: tw.Tensor, x: tw.Tensor) -> Any:
        c = tw.cond(
            x > 0, lambda c: c * x + 1.0, lambda c: tw.fori_loop(0, 3, lambda i, v: v * 0.5 - x, c), c
        )
        return c, tw.switch(tw.round(x * 2.0).astype(tw.int32), (tw.sin, tw.cos, lambda v: v * v), c)

    def by_hand(start: tw.Tensor, xs: tw.Tensor) -> tw.Tensor:
        c, total = start, tw.tensor(0.0, dtype=F64)
        for x, number in zip(xs, xs.numpy(), strict=True):
            if number > 0:
                c = c * x + 1.0
            else:
                for _ in range(3):
                    c = c * 0.5 - x
            branch = min(max(int(np.round(number * 2)), 0), 2)
            total = total + (tw.sin, tw.cos, lambda v: v * v)[branch](c)
        return total + c

    def looped(start: tw.Tensor, xs: tw.Tensor) -> tw.Tensor:
        last, ys = tw.scan(step, start, xs)
        return last + ys.sum()

    c, xs = tensor(seed=5), tensor(7, seed=6) * 2.0
    for f in (lambda g: g, tw.grad, lambda g: tw.grad(g, 1), lambda g: tw.jacfwd(tw.grad(g, 1), 1)):
        np.testing.assert_allclose(f(looped)(c, xs).numpy(), f(by_hand)(c, xs).numpy(), rtol=1e-8, atol=1e-10)
    got = tw.vmap(looped, (0, 0))(tensor(3, seed=7), tensor(3, 7, seed=8) * 2.0)
    want = [by_hand(tensor(3, seed=7)[n], (tensor(3, 7, seed=8) * 2.0)[n]).item() for n in range(3)]
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-9)


def test_it_composes_with_rules_of_the_user_and_checkpoints() -> None:
    @tw.custom_vjp
    def clipped(x: tw.Tensor) -> tw.Tensor:
        return x

    clipped.defvjp(lambda x: (x, None), lambda _, g: (g.clip(-1.0, 1.0),))

    def f(x: tw.Tensor) -> tw.Tensor:
        return tw.cond(x.sum() > 0, lambda x: (clipped(x) * 5.0).sum(), tw.checkpoint(light), x)

    assert tw.grad(f)(tw.tensor([1.0, 2.0])).tolist() == [1.0, 1.0]
    assert tw.grad(tw.checkpoint(f))(tw.tensor([-1.0, -2.0])).tolist() == [-6.0, -12.0]

    @tw.custom_vjp
    def chooses(x: tw.Tensor) -> tw.Tensor:
        return tw.cond(x > 0, lambda: x * 2.0, lambda: x)

    chooses.defvjp(lambda x: (chooses.fun(x), x), lambda x, g: (tw.cond(x > 1, lambda: g * 7.0, lambda: g),))
    assert [tw.grad(chooses)(tw.tensor(v)).item() for v in (3.0, 0.5)] == [7.0, 1.0]


def test_trees_numbers_and_what_is_not_a_tensor() -> None:
    def pair(scale: float, tree: Any, word: str) -> Any:
        return {"a": tree["x"] * scale, "b": (1, len(word))}

    got = tw.cond(True, pair, lambda *_: {"a": tw.tensor([0.0]), "b": (tw.tensor(2, dtype=tw.int32), 0)}, 2.0,
                  {"x": np.asarray([1.5], np.float32)}, "abc")  # fmt: skip
    assert (got["a"].tolist(), got["b"][0].item(), got["b"][1].item()) == ([3.0], 1, 3)
    assert got["b"][0].dtype is tw.int32
    assert tw.cond(0, lambda: 1.5, lambda: 2).dtype is tw.float32
    assert tw.cond(np.float64(0.5), lambda: 1, lambda: 2).item() == 1
    assert tw.cond(tw.tensor(0.0), lambda: None, lambda: None) is None
    assert [tw.switch(tw.tensor(n, dtype=d), [lambda: 1, lambda: 2]).item() for n, d in (
        (-1, tw.int8), (2**40, tw.int64), (2**63, tw.uint64), (1, tw.uint8))] == [1, 2, 2, 2]  # fmt: skip
    z = tw.tensor([1 + 2j, 3 - 1j])
    assert (
        tw.cond(tw.tensor(True), lambda z: z * z, lambda z: z, z).tolist() == (z * z).tolist()
    )  # by the reference


def test_what_branches_assign_and_draw() -> None:
    state, other = tw.tensor(1.0), tw.tensor([1.0])

    def doubles() -> tw.Tensor:
        state.assign(state * 2.0)
        return tw.rand(2)

    def adds() -> tw.Tensor:
        state.assign(state + 10.0)
        other.assign(other - 1.0)
        return tw.zeros(2)

    f = tw.jit(lambda p: tw.cond(p, doubles, adds))
    tw.manual_seed(3)
    want = [tw.rand(2).tolist() for _ in range(2)]
    tw.manual_seed(3)
    for run in (f, lambda p: tw.cond(p, doubles, adds)):
        before = state.item(), other.item()
        assert run(tw.tensor(False)).tolist() == [0.0, 0.0]  # draws nothing
        assert (state.item(), other.item()) == (before[0] + 10.0, before[1] - 1.0)
        drawn = run(tw.tensor(True)).tolist()
        assert drawn == want.pop(0) and state.item() == 2 * (before[0] + 10.0)


def test_a_training_step_may_be_a_branch() -> None:
    w = tw.tensor([1.0, 2.0], requires_grad=True)
    optimizer = tw.optim.SGD([w], lr=0.5)

    def step(x: tw.Tensor) -> tw.Tensor:
        optimizer.zero_grad()
        loss = (w * x).sum()
        loss.backward()
        optimizer.step()
        return loss.detach()

    maybe = tw.jit(lambda p, x: tw.cond(p, step, lambda x: tw.tensor(0.0), x))
    x = tw.tensor([2.0, 4.0])
    assert maybe(tw.tensor(False), x).item() == 0.0 and w.tolist() == [1.0, 2.0]
    assert maybe(tw.tensor(True), x).item() == 10.0 and w.tolist() == [0.0, 0.0]
    loss = tw.cond(tw.tensor(True), step, lambda x: tw.tensor(0.0), x)
    assert (loss.item(), loss.requires_grad, w.tolist(), w.requires_grad) == (0.0, False, [-1.0, -2.0], True)


def test_only_iterations_that_take_a_branch_draw() -> None:
    def step(c: tw.Tensor, x: tw.Tensor) -> Any:
        y = tw.cond(x > 0, lambda: tw.rand(2), lambda: tw.zeros(2))
        return c + y.sum(), y

    xs = tw.tensor([1.0, -1.0, 2.0, -3.0])
    tw.manual_seed(0)
    first, second, after = (tw.rand(2).tolist() for _ in range(3))
    for run in (lambda f: f(), lambda f: tw.jit(f)()):
        tw.manual_seed(0)
        drawn = run(lambda: tw.scan(step, 0.0, xs)[1]).tolist()
        assert drawn == [first, [0.0, 0.0], second, [0.0, 0.0]] and tw.rand(2).tolist() == after


def test_statistics_change_only_in_the_branch_taken() -> None:
    normal, plain = tw.nn.BatchNorm1d(4), tw.nn.Linear(4, 4)
    x = tensor(8, 4).astype(tw.float32) + 1.0

    @tw.jit(keep_grads=True)
    def step(p: tw.Tensor, x: tw.Tensor) -> tw.Tensor:
        loss = (tw.cond(p, normal, plain, x) ** 2).sum()
        loss.backward()
        return loss

    step(tw.tensor(False), x)
    assert normal.running_mean.tolist() == [0.0] * 4 and normal.weight.grad.tolist() == [0.0] * 4
    assert float(tw.abs(plain.weight.grad).sum()) > 0
    step(tw.tensor(True), x)
    np.testing.assert_allclose(normal.running_mean.numpy(), 0.1 * x.numpy().mean(0), rtol=1e-5)


def choice() -> tuple[list[Value], list[Body]]:
    inputs = [input_value(dt.int32, ()), *(input_value(dt.float32, (3,)) for _ in range(2))]
    c, x = (input_value(dt.float32, (3,)) for _ in range(2))
    both = make("add", (make("exp", (x,)), c))
    return inputs, [
        Body.of([c, x], [both, make("mul", (both, x)), c]),
        Body.of([c, x], [x, make("neg", (x,)), c]),
    ]


def test_choices_over_the_same_operands_become_one() -> None:
    (selector, *operands), branches = choice()
    first = switch_values(selector, operands, branches)
    fewer = [Body.of(b.inputs, b.outputs[:2]) for b in branches]
    again = switch_values(selector, operands, fewer)
    out = run_passes([first[1], again[0], first[2]])
    assert out[2] is operands[0]  # all branches agree
    assert out[0]["branches"] == out[1]["branches"] and {v["index"] for v in out[:2]} == {0, 1}
    (alone,) = run_passes(switch_values(constant(5, dt.int32), operands, branches)[1:2])
    assert alone.op == "neg"
    (some,) = run_passes(
        switch_values(selector, operands, [Body.of(b.inputs, b.outputs[1:2]) for b in branches[1:] * 2])
    )
    assert some.op == "neg"


def test_the_forward_choice_of_a_gradient_is_the_one_of_the_function() -> None:
    f = tw.jit(tw.value_and_grad(lambda x, p: tw.cond(p, heavy, light, x)))
    executable = f.executable(tensor(3, 4), tw.tensor(True))
    assert executable is not None
    families = {v.attrs[:-1] for v in topological(executable.final) if v.op == "switch"}
    assert len(families) == 2  # one forward, one backward
    dots = sum(
        v.op == "dot" for key in families for b in dict(key)["branches"] for v in topological(b.outputs)
    )
    assert dots == 4  # the products of the forward pass are not computed again


def test_text_holds_the_branches_and_the_verifier_looks_into_them() -> None:
    inputs, branches = choice()
    nested = switch_values(inputs[0], inputs[1:], branches)
    outer = Body.of(inputs, nested[:1])
    results = switch_values(inputs[0], inputs, [outer, Body.of(inputs, [inputs[1]])])
    graph = Graph(tuple(inputs), (*nested, *results))
    verify(graph.outputs, graph.inputs)
    assert Graph.parse(graph.text()).outputs == graph.canonical.outputs
    assert Graph.parse(graph.text()).text() == graph.text()
    with pytest.raises(TypeError, match=r"branches give \(float32\[3\]\) and \(int32\[\]\)"):
        make(
            "switch",
            inputs,
            branches=(Body.of(inputs[1:], inputs[1:2]), Body.of(inputs[1:], [constant(1, dt.int32)])),
            index=0,
        )
    with pytest.raises(TypeError, match="the body takes"):
        make("switch", inputs[:2], branches=tuple(branches), index=0)
    with pytest.raises(ValueError, match="result 3 of 3"):
        make("switch", inputs, branches=tuple(branches), index=3)


def test_memory_of_branches_is_shared() -> None:
    x = input_value(dt.float32, (1000,))
    wide = make("reduce_sum", (make("broadcast", (make("exp", (x,)),), shape=(8, 1000)),), axes=(0,))
    other = make("reduce_max", (make("broadcast", (make("sin", (x,)),), shape=(8, 1000)),), axes=(0,))
    selector = input_value(dt.int32, ())
    (out,) = switch_values(selector, [x], [Body.of([x], [make("mul", (v, v))]) for v in (wide, other)])
    executable = compiler.compile([selector, x], [out])
    assert not executable.fallbacks and executable.schedule.arena_bytes <= 2 * 4096


def nothing(x: tw.Tensor) -> None:
    return None


def test_mistakes_are_named() -> None:
    x, yes = tw.zeros(2), tw.tensor(True)
    cases: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (
            lambda: tw.cond(tw.zeros(2), light, light, x),
            ValueError,
            r"`pred` is one element, got a tensor of shape \(2,\)",
        ),
        (
            lambda: tw.cond(yes, light, nothing, x),
            ValueError,
            r"\(nothing\) returns NoneType\(\), and `true_fun`",
        ),
        (
            lambda: tw.cond(yes, lambda x: {"a": [x, x]}, lambda x: {"a": [x, x[:1]]}, x),
            ValueError,
            r"for `result\['a'\]\[1\]`, `false_fun` \(<lambda>\) returns float32\[1\] and `true_fun`",
        ),
        (
            lambda: tw.cond(yes, light, lambda x: x.sum().astype(tw.int32), x),
            TypeError,
            r"int32.* and `true_fun` \(light\) float32",
        ),
        (
            lambda: tw.switch(tw.tensor(1.0), [light], x),
            TypeError,
            "`index` is one integer, got a tensor of float32",
        ),
        (lambda: tw.switch(0, [], x), ValueError, "`branches` is empty"),
        (lambda: tw.cond(yes, lambda x: x if x[0] > 0 else -x, light, x), RuntimeError, "traced tensor"),
    ]
    for call, kind, text in cases:
        with pytest.raises(kind, match=text):
            call()


def test_examples_run() -> None:
    failed, tried = doctest.testmod(branching, extraglobs={"Tensor": tw.Tensor})
    assert tried and not failed
