"""``scan``, ``fori_loop`` and ``while_loop``: against the loop written out, through every transform, and as one native call."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilewright as tw
from tilewright import compiler
from tilewright.autodiff.scan import scan as scan_values
from tilewright.core import dtype as dt
from tilewright.functions import control
from tilewright.graph.body import Body
from tilewright.graph.graph import Graph
from tilewright.graph.ir import Value, input_value, make, topological
from tilewright.graph.verify import verify
from tilewright.passes.pipeline import run_passes
from tilewright.runtime.statistics import stats

Array = np.ndarray[Any, Any]


def tensor(*shape: int, seed: int = 0) -> tw.Tensor:
    return tw.tensor(np.random.default_rng(seed).normal(size=shape) * 0.5)


def unrolled(f: Callable[[Any, Any], Any], init: Any, xs: Any, length: int, reverse: bool) -> Any:
    """The loop in Python."""
    carry, ys = init, [None] * length
    for i in sorted(range(length), reverse=reverse):
        carry, ys[i] = f(carry, xs[i])
    return carry, tw.stack(ys)


W = tensor(4, 4, seed=1)


def cell(h: tw.Tensor, x: tw.Tensor) -> tuple[tw.Tensor, tw.Tensor]:
    """A recurrent cell that reads ``W`` from outside."""
    new = tw.tanh(h @ W.T + x)
    return new, (new * h).sum(axis=-1)


def swap(carry: Any, x: tw.Tensor) -> tuple[Any, tw.Tensor]:
    """Carries that trade places: no new one can be written over its old one."""
    a, b = carry
    return (b * 0.9, a + x), a - b


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 2, 5])
def test_scan_is_the_loop_written_out(length: int, reverse: bool) -> None:
    xs = tensor(length, 3, 4)
    got, want = tw.scan(cell, tensor(3, 4, seed=2), xs, reverse=reverse), unrolled(
        cell, tensor(3, 4, seed=2), xs, length, reverse
    )  # fmt: skip
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g.numpy(), w.numpy(), rtol=1e-12)
    pair = (tensor(3, 4, seed=2), tensor(3, 4, seed=3))
    (a, b), ys = tw.scan(swap, pair, xs, reverse=reverse)
    (c, d), zs = unrolled(swap, pair, xs, length, reverse)
    for g, w in ((a, c), (b, d), (ys, zs)):
        np.testing.assert_array_equal(g.numpy(), w.numpy())


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 4])
def test_derivatives_are_those_of_the_loop_written_out(length: int, reverse: bool) -> None:
    h, xs = tensor(2, 4, seed=3), tensor(length, 2, 4)

    def loss(run: Callable[..., Any]) -> Callable[..., Any]:
        def of(h: tw.Tensor, xs: tw.Tensor, w: tw.Tensor) -> tw.Tensor:
            def step(h: tw.Tensor, x: tw.Tensor) -> tuple[tw.Tensor, tw.Tensor]:
                new = tw.tanh(h @ w + x)
                return new, (new * h).sum(axis=-1)

            last, ys = run(step, h, xs)
            return last.sum() + (ys * ys).sum()

        return of

    ours = loss(lambda f, h, xs: tw.scan(f, h, xs, reverse=reverse))
    theirs = loss(lambda f, h, xs: unrolled(f, h, xs, length, reverse))
    places = (0, 1, 2)
    for g, w in zip(tw.grad(ours, places)(h, xs, W), tw.grad(theirs, places)(h, xs, W), strict=True):
        np.testing.assert_allclose(g.numpy(), w.numpy(), rtol=1e-10, atol=1e-12)
    moves = (tensor(2, 4, seed=5), tensor(length, 2, 4, seed=6), tensor(4, 4, seed=7))
    for g, w in zip(tw.jvp(ours, (h, xs, W), moves), tw.jvp(theirs, (h, xs, W), moves), strict=True):
        np.testing.assert_allclose(g.numpy(), w.numpy(), rtol=1e-10)
    second = tw.hvp(ours, (h, xs, W), moves), tw.hvp(theirs, (h, xs, W), moves)
    for g, w in zip(*second, strict=True):
        np.testing.assert_allclose(g.numpy(), w.numpy(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("rows", "summed_inside"), [(1, 0), (8, 1)])
@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_of_weights_are_one_contraction_after_the_loop(
    rows: int, summed_inside: int, reverse: bool
) -> None:
    """Factors smaller than the weight are stacked; larger ones leave the sum in the loop."""
    h, xs, v = tensor(rows, 8, seed=3), tensor(3, rows, 4, seed=4), tensor(2, 4, 4, seed=6)

    def loss(run: Callable[..., Any]) -> Callable[..., Any]:
        def of(w: tw.Tensor, u: tw.Tensor, v: tw.Tensor) -> tw.Tensor:
            def step(h: tw.Tensor, x: tw.Tensor) -> tuple[tw.Tensor, tw.Tensor]:
                mixed = tw.einsum("bgi,gij->bgj", h.reshape((rows, 2, 4)), v).reshape((rows, 8))
                return tw.tanh(mixed @ w.T + x @ u), mixed

            last, ys = run(step, h, xs)
            return (last**2).sum() + (ys**2).sum()

        return of

    ours = loss(lambda f, h, xs: tw.scan(f, h, xs, reverse=reverse))
    theirs = loss(lambda f, h, xs: unrolled(f, h, xs, 3, reverse))
    point, places = (tensor(8, 8, seed=1), tensor(4, 8, seed=5), v), (0, 1, 2)
    for g, w in zip(tw.grad(ours, places)(*point), tw.grad(theirs, places)(*point), strict=True):
        np.testing.assert_allclose(g.numpy(), w.numpy(), rtol=1e-9, atol=1e-11)
    final = tw.jit(tw.grad(ours)).executable(*point).final
    loops = {x["body"]: x["carries"] for x in topological(final) if x.op == "scan"}
    assert max(loops.values()) == 1 + summed_inside


def test_the_loop_of_no_iterations_has_gradients_of_zero() -> None:
    def last(w: tw.Tensor) -> tw.Tensor:
        none = tw.zeros((0, 1, 4), dtype=dt.float64)
        return tw.scan(lambda h, x: (tw.tanh(h @ w + x), h), tensor(1, 4), none)[0].sum()

    np.testing.assert_array_equal(tw.grad(last)(W).numpy(), np.zeros((4, 4)))


def test_gradients_match_differences_to_second_order() -> None:
    def total(h: tw.Tensor, xs: tw.Tensor) -> tw.Tensor:
        last, ys = tw.scan(lambda c, x: (tw.sin(c * x) + c, c * x), h, xs)
        return last.sum() + (ys**3).sum()

    tw.check_grads(total, (tensor(3), tensor(4, 3, seed=1)), order=2)


def test_batches_compose_with_loops_in_both_orders() -> None:
    h, xs = tensor(3, 4), tensor(3, 5, 4, seed=1)

    def one(h: tw.Tensor, x: tw.Tensor) -> Any:
        return tw.scan(cell, h, x)

    got = tw.vmap(one)(h, xs)
    rows = [one(h[i], xs[i]) for i in range(3)]
    for n, g in enumerate(got):
        np.testing.assert_allclose(g.numpy(), np.stack([r[n].numpy() for r in rows]), rtol=1e-12)
    # Only the slices differ; the carry follows. Only the constants differ.
    alone = tw.vmap(one, in_axes=(None, 0))(h[0], xs)
    np.testing.assert_allclose(alone[0].numpy()[1], one(h[0], xs[1])[0].numpy(), rtol=1e-12)

    def scaled(s: tw.Tensor) -> Any:
        return tw.scan(lambda c, x: (c * s, x), h[0], xs[0])

    scales = tensor(3)
    last, ys = tw.vmap(scaled)(scales)
    np.testing.assert_allclose(last.numpy()[2], scaled(scales[2])[0].numpy(), rtol=1e-12)
    np.testing.assert_array_equal(ys.numpy()[1], xs[0].numpy())
    # Per-example gradients, and a batched function inside the body.
    each = tw.vmap(tw.grad(lambda h, x: one(h, x)[0].sum()))(h, xs)
    np.testing.assert_allclose(
        each.numpy()[1], tw.grad(lambda h, x: one(h, x)[0].sum())(h[1], xs[1]).numpy(), rtol=1e-10
    )
    inside, _ = tw.scan(lambda c, x: (tw.vmap(lambda row: row * 2.0 + x[0])(c), None), h, xs[0])
    want, _ = tw.scan(lambda c, x: (c * 2.0 + x[0], None), h, xs[0])
    np.testing.assert_allclose(inside.numpy(), want.numpy())


def test_loops_nest_and_derivatives_may_be_taken_inside() -> None:
    def outer(c: tw.Tensor, x: tw.Tensor) -> Any:
        last, ys = tw.scan(lambda a, b: (a * b + c, a), c, tw.stack([x, x + 1.0, x * 2.0]))
        return last, ys.sum()

    def by_hand(c: tw.Tensor, x: tw.Tensor) -> Any:
        a, total = c, tw.tensor(0.0, dtype=tw.float64)
        for b in (x, x + 1.0, x * 2.0):
            a, total = a * b + c, total + a
        return a, total

    c, xs = tensor(), tensor(4, seed=1)
    for place in (0, 1):
        got = tw.grad(lambda c, xs: tw.scan(outer, c, xs)[1].sum(), place)(c, xs)
        want = tw.grad(lambda c, xs: unrolled(by_hand, c, xs, 4, False)[1].sum(), place)(c, xs)
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-10)
    # x -> x + 2 x w in every iteration, by a gradient inside the body; then the gradient of that.
    step = tw.grad(
        lambda ws: tw.scan(lambda c, w: (c + tw.grad(lambda z: z * z * w)(c), None), tw.tensor(1.0), ws)[0]
    )
    assert step(tw.tensor([1.0, 2.0])).tolist() == [10.0, 6.0]


def test_a_jitted_loop_is_one_native_call_in_bounded_memory() -> None:
    step = tw.jit(lambda h, xs: tw.scan(cell, h, xs))
    h, xs = tensor(3, 4), tensor(50, 3, 4)
    want = [t.numpy() for t in tw.scan(cell, h, xs)]
    step(h, xs)
    before = stats.native_calls
    got = [t.numpy() for t in step(h, xs)]
    assert stats.native_calls == before + 1
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-12)
    grad = tw.jit(lambda h, xs: tw.grad(lambda h: tw.scan(cell, h, xs)[1].sum())(h))
    grad(h, xs).numpy()
    before = stats.native_calls
    grad(h, xs).numpy()
    assert stats.native_calls == before + 1


def step_graph(length: int) -> tuple[list[Value], list[Value]]:
    """A loop over 1000 elements with temporary values inside; only the last carry is wanted."""
    c, h = (input_value(dt.float32, (1000,)) for _ in range(2))
    wide = make("reduce_sum", (make("broadcast", (make("mul", (h, c)),), shape=(8, 1000)),), axes=(0,))
    body = Body.of([c, h], [make("add", (wide, c)), wide])
    inputs = [input_value(dt.float32, (1000,)) for _ in range(2)]
    return inputs, scan_values(body, inputs[:1], inputs[1:], [], length, False)


def test_memory_does_not_grow_with_the_number_of_iterations() -> None:
    sizes = []
    for length in (2, 1000):
        inputs, results = step_graph(length)
        executable = compiler.compile(inputs, results[:1])
        assert not executable.fallbacks
        sizes.append(executable.schedule.arena_bytes)
    assert sizes[0] == sizes[1] <= 4 * 4096


def test_loops_over_the_same_operands_become_one() -> None:
    inputs, results = step_graph(4)
    more = Body.of(results[0]["body"].inputs, [*results[0]["body"].outputs, results[0]["body"].inputs[1]])
    again = scan_values(more, inputs[:1], inputs[1:], [], 4, False)
    out = run_passes([results[1], again[2], results[0]])
    assert [v["index"] for v in out] == [1, 2, 0] and len({v["body"] for v in out}) == 1
    (alone,) = run_passes([again[0]])
    assert len(alone["body"].outputs) == 1


def test_carries_that_stay_and_repeated_numbers_leave_the_loop() -> None:
    a, b = (input_value(dt.float32, (3,)) for _ in range(2))
    leaves = [input_value(dt.float32, (3,)) for _ in range(3)]
    body = Body.of(
        leaves,
        [
            leaves[0],
            make("add", (leaves[1], make("mul", (leaves[0], leaves[2])))),
        ],
    )
    xs = input_value(dt.float32, (5, 3))
    kept, summed = run_passes(scan_values(body, [], [a, b], [xs], 5, False))
    assert kept is a
    assert (summed["consts"], summed["carries"]) == (1, 1)


def test_text_holds_the_body() -> None:
    inputs, results = step_graph(4)
    graph = Graph(tuple(inputs), tuple(results))
    verify(graph.outputs, graph.inputs)
    assert Graph.parse(graph.text()).outputs == graph.canonical.outputs
    assert Graph.parse(graph.text()).text() == graph.text()


def test_trees_numbers_no_slices_and_no_iterations() -> None:
    last, ys = tw.scan(
        lambda c, x: ({"a": c["b"], "b": c["a"]}, (c["a"], None)), {"a": tw.tensor(1.0), "b": tw.tensor(2.0)}, length=3
    )  # fmt: skip
    assert (last["a"].item(), last["b"].item(), ys[0].tolist(), ys[1]) == (2.0, 1.0, [1.0, 2.0, 1.0], None)
    total, _ = tw.scan(lambda c, x: (c + x, None), 0, tw.tensor([0.5, 1.5]))  # the number becomes a float32
    assert total.item() == 2.0 and total.dtype is tw.float32
    kept, none = tw.scan(lambda c, x: (c + 1.0, x * 2.0), tw.tensor(3.0), tw.zeros((0, 2)))
    assert kept.item() == 3.0 and none.shape == (0, 2)
    assert tw.fori_loop(2, 5, lambda i, v: v * 10 + i, tw.tensor(0)).item() == 234
    assert tw.fori_loop(5, 2, lambda i, v: v + i, tw.tensor(7)).item() == 7
    z = tw.tensor([1 + 2j, 3 - 1j])
    assert tw.scan(lambda c, x: (c * x, None), tw.tensor(1 + 0j), z)[0].item() == 5 + 5j


def test_random_numbers_and_assigned_tensors_are_carried() -> None:
    tw.manual_seed(3)
    want = [tw.rand(2).tolist() for _ in range(4)]
    for run in (lambda f: f(), lambda f: tw.jit(f)()):
        tw.manual_seed(3)
        drawn = run(lambda: tw.scan(lambda c, x: (c, tw.rand(2)), tw.tensor(0.0), length=3)[1])
        assert [*drawn.tolist(), tw.rand(2).tolist()] == want
    seen = tw.tensor(1.0)

    def step(c: tw.Tensor, x: tw.Tensor) -> tuple[tw.Tensor, tw.Tensor]:
        seen.assign(seen * 2.0 + x)
        return c + seen, seen

    last, ys = tw.scan(step, tw.tensor(0.0), tw.tensor([1.0, 0.0, 1.0]))
    assert (ys.tolist(), last.item(), seen.item()) == ([3.0, 6.0, 13.0], 22.0, 13.0)
    old = seen * 1.0  # made of the tensor before it is assigned

    def mixed(c: tw.Tensor, x: tw.Tensor) -> tuple[tw.Tensor, None]:
        seen.assign(seen + old)
        return c, None

    tw.scan(mixed, tw.tensor(0.0), length=2)
    assert (seen.item(), old.item()) == (39.0, 13.0)


def test_backward_reaches_tensors_that_the_body_reads() -> None:
    w = tw.tensor([0.5, -0.5], requires_grad=True)
    last, _ = tw.scan(lambda c, x: (c * w + x, None), tw.zeros(2), tw.ones((3, 2)))
    last.sum().backward()
    assert w.grad is not None
    np.testing.assert_allclose(w.grad.numpy(), [2.0, 0.0], rtol=1e-6)  # d(1 + w + w^2) = 1 + 2w
    with tw.no_grad():
        assert not tw.scan(lambda c, x: (c * w, None), tw.zeros(2), length=2)[0].requires_grad


@pytest.mark.parametrize("wrap", [lambda f: f, tw.jit])
def test_training_steps_are_the_body_of_a_loop(wrap: Callable[[Any], Any]) -> None:
    """`zero_grad`, `backward` and `step` in the body do what they do in a Python loop, state and all."""
    rows = tensor(6, 4, 3)

    def run(loop: bool) -> tuple[list[float], list[Any]]:
        model = tw.nn.Linear(3, 1)
        model.load_state_dict({"weight": np.ones((1, 3), np.float32), "bias": np.zeros(1, np.float32)})
        model.bias.grad = tw.ones(1)  # of before: replaced, never read
        optimizer = tw.optim.Adam(model.parameters(), lr=0.1)

        def step(total: tw.Tensor, x: tw.Tensor) -> tuple[tw.Tensor, tw.Tensor]:
            optimizer.zero_grad()
            loss = (model(x) - 1.0).square().mean()
            loss.backward()
            optimizer.step()
            return total + loss.detach(), loss.detach()

        def epoch(rows: tw.Tensor) -> tuple[tw.Tensor, tw.Tensor]:
            if loop:
                return tw.scan(step, tw.tensor(0.0), rows)
            return unrolled(step, tw.tensor(0.0), rows, 6, False)

        function = wrap(epoch)
        results = [function(rows.astype(tw.float32)) for _ in range(2)]
        assert not any(t.requires_grad for pair in results for t in pair)
        assert all(p.is_leaf and p.requires_grad for p in model.parameters())
        assert not loop or all(p.grad is None for p in model.parameters())
        state = [t.numpy() for t in (*model.parameters(), *optimizer.state[model.weight].values())]
        return [t.item() for t, _ in results], [*state, optimizer.param_groups[0].step.numpy()]

    (losses, state), (want, expected) = run(True), run(False)
    np.testing.assert_allclose(losses, want, rtol=1e-5)
    for a, b in zip(state, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert losses[1] < losses[0]


def test_results_require_gradients_where_the_body_has_a_path() -> None:
    w, start = tw.tensor(2.0, requires_grad=True), tw.tensor(1.0)

    def body(carry: tuple[tw.Tensor, tw.Tensor], x: None) -> tuple[Any, Any]:
        plain, late = carry
        return (plain * 2.0, late + plain * w), (late, w.detach() * plain)

    (plain, late), (before, detached) = tw.scan(body, (start, start), length=3)
    assert [t.requires_grad for t in (plain, late, before, detached)] == [False, True, True, False]
    late.backward()
    assert w.grad is not None and w.grad.item() == 7.0


def test_an_index_out_of_range_inside_stops_the_loop() -> None:
    with pytest.raises(IndexError, match="out of range for an axis of size 2"):
        tw.scan(lambda c, i: (c, c[i]), tw.tensor([1.0, 2.0]), tw.tensor([0, 1, 5]))[1].numpy()


def looped(cond: Callable[[Any], Any], body: Callable[[Any], Any], value: Any) -> Any:
    """``while_loop`` in Python."""
    while cond(value).item():
        value = body(value)
    return value


@pytest.mark.parametrize("rounds", [0, 1, 2, 3, 8])
def test_while_carries_that_pass_into_one_another(rounds: int) -> None:
    def body(c: Any) -> Any:
        n, a, b, d, e = c
        return n + 1, b, a + b, e, d * 2.0 + a[:3, None]  # fibonacci, and a trade

    first = (tw.tensor(0), tensor(400), tensor(400, seed=1), tensor(3, 50, seed=2), tensor(3, 50, seed=3))
    for run in (tw.while_loop, tw.jit(lambda *c: tw.while_loop(lambda c: c[0] < rounds, body, c))):
        got = run(*first) if run is not tw.while_loop else run(lambda c: c[0] < rounds, body, first)
        for g, w in zip(got, looped(lambda c: c[0] < rounds, body, first), strict=True):
            np.testing.assert_allclose(g.numpy(), w.numpy(), rtol=1e-12)


def test_while_carries_of_every_type_and_size() -> None:
    for kind in (tw.float16, tw.bfloat16, tw.int8, tw.uint64, tw.bool):
        zeros, ones = tw.zeros(3).astype(kind), tw.ones(3).astype(kind)
        a, b, _ = tw.while_loop(lambda c: c[2] < 5, lambda c: (c[1], c[0], c[2] + 1), (zeros, ones, 0))
        assert (a.astype(tw.int32).tolist(), b.astype(tw.int32).tolist()) == ([1, 1, 1], [0, 0, 0])
    empty, n = tw.while_loop(lambda c: c[1] < 3, lambda c: (c[0] * 2.0, c[1] + 1), (tw.zeros((0, 4)), 0))
    assert empty.shape == (0, 4) and n.item() == 3
    w = tensor(150, 150, seed=9) / 10.0
    for rounds in (5, 6):  # work for several threads, in carries that trade places
        p, q = a, b = tensor(150, 150), tensor(150, 150, seed=1)
        _, p, q = tw.while_loop(
            lambda c, rounds=rounds: c[0] < rounds, lambda c: (c[0] + 1, c[2], c[1] @ w + c[2]), (0, p, q)
        )
        for _ in range(rounds):
            a, b = b, a @ w + b
        np.testing.assert_allclose(p.numpy(), a.numpy(), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(q.numpy(), b.numpy(), rtol=1e-9, atol=1e-12)


def collatz(n: tw.Tensor) -> Any:
    return tw.while_loop(
        lambda c: c[0] != 1,
        lambda c: (tw.cond(c[0] % 2 == 0, lambda n: n // 2, lambda n: 3 * n + 1, c[0]), c[1] + 1),
        (n, tw.tensor(0)),
    )[1]


def test_while_nests_batches_and_is_one_native_call() -> None:
    steps = [0, 1, 7, 2, 5, 8, 16, 3, 19]
    numbers = tw.arange(1, 10)
    assert [collatz(n).item() for n in numbers] == steps
    assert tw.vmap(collatz)(numbers).tolist() == steps
    every = tw.jit(lambda numbers: tw.scan(lambda c, n: (c, collatz(n)), 0, numbers)[1])
    assert every(numbers).tolist() == steps
    before = stats.native_calls
    assert every(numbers).tolist() == steps and stats.native_calls == before + 1
    pairs = tw.vmap(tw.vmap(lambda a, b: tw.while_loop(lambda c: c[1] != 0, lambda c: (c[1], c[0] % c[1]), (a, b))[0],
                            (None, 0)), (0, None))  # fmt: skip
    a = np.arange(1, 13)
    assert pairs(tw.tensor(a), tw.tensor(a)).tolist() == np.gcd.outer(a, a).tolist()


def root(x: tw.Tensor) -> tw.Tensor:
    """Newton's iteration; its slopes converge too."""

    def far(c: Any) -> tw.Tensor:
        return (tw.abs(c[0] - c[1]) > 1e-12 * tw.abs(c[0])) & (c[2] < 60)

    return tw.while_loop(far, lambda c: (0.5 * (c[0] + x / c[0]), c[0], c[2] + 1), (x, x * 2.0, 0))[0]


def test_while_has_forward_mode_of_any_order() -> None:
    xs = tw.tensor([0.5, 2.0, 9.0, 1e4], dtype=tw.float64)
    np.testing.assert_allclose(tw.vmap(root)(xs).numpy(), np.sqrt(xs.numpy()), rtol=1e-12)
    slope = tw.jacfwd(root)
    for x in xs:
        np.testing.assert_allclose(slope(x).item(), 0.5 / np.sqrt(x.item()), rtol=1e-9)
        np.testing.assert_allclose(tw.jit(tw.jacfwd(slope))(x).item(), -0.25 * x.item() ** -1.5, rtol=1e-7)
    np.testing.assert_allclose(tw.vmap(slope)(xs).numpy(), 0.5 / np.sqrt(xs.numpy()), rtol=1e-9)
    w = tensor(3, 3, seed=4)

    def fifth(w: tw.Tensor) -> tw.Tensor:
        return tw.while_loop(lambda c: c[0] < 4, lambda c: (c[0] + 1, c[1] @ w), (tw.tensor(0), w))[1]

    _, moved = tw.jvp(fifth, (w,), (w,))
    np.testing.assert_allclose(moved.numpy(), 5 * np.linalg.matrix_power(w.numpy(), 5), rtol=1e-10)
    # Reverse mode of a gradient that does not pass through the loop.
    count = tw.grad(lambda x: x * tw.while_loop(lambda n: n < 5, lambda n: n * 2.0, tw.tensor(1.0)))
    assert count(tw.tensor(3.0)).item() == 8.0


def test_while_reads_assigns_and_draws() -> None:
    tw.manual_seed(5)
    want = [tw.rand(()).item() for _ in range(6)]
    tw.manual_seed(5)
    seen = tw.tensor(0)

    def body(c: tw.Tensor) -> tw.Tensor:
        seen.assign(seen + 1)
        return c + tw.rand(())

    for run in (lambda f: f(), lambda f: tw.jit(f)()):
        total = run(lambda: tw.while_loop(lambda c: c < 1.2, body, tw.tensor(0.0))).item()
        used = int(np.searchsorted(np.cumsum(np.float32(want)), np.float32(1.2))) + 1
        assert seen.item() == used
        np.testing.assert_allclose(total, np.sum(want[:used]), rtol=1e-6)
        tw.manual_seed(5)
        seen.assign(tw.tensor(0))


def test_mistakes_are_named() -> None:
    zero, w = tw.tensor(0.0), tw.tensor(1.0, requires_grad=True)
    cases: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: tw.scan(lambda c, x: c, zero, length=2), TypeError, "returns a pair"),
        (lambda: tw.scan(lambda c, x: ((c, c), x), zero, length=2), ValueError, "another structure"),
        (lambda: tw.scan(lambda c, x: (tw.zeros(2), x), zero, length=2), ValueError, "keeps its shape"),
        (
            lambda: tw.scan(lambda c, x: (c + x, x), zero, tw.tensor([1, 2]).astype(tw.float64)),
            TypeError,
            "its dtype",
        ),
        (lambda: tw.scan(lambda c, x: (c, x), zero), ValueError, "as `length`"),
        (lambda: tw.scan(lambda c, x: (c, x), zero, zero), ValueError, "rank 0"),
        (lambda: tw.scan(lambda c, x: (c, x), zero, tw.zeros(3), length=2), ValueError, "slices differ"),
        (
            lambda: tw.scan(lambda c, x: (c if c > 0 else x, x), zero, tw.zeros(3)),
            RuntimeError,
            "traced tensor",
        ),
        (
            lambda: tw.scan(lambda c, x: ((w * c).backward(), (c, x))[1], zero, length=2),
            RuntimeError,
            "zero_grad",
        ),
        (
            lambda: tw.scan(lambda c, x: (c + (w.grad or 0), x), zero, length=2),
            RuntimeError,
            "before this iteration",
        ),
        (lambda: tw.fori_loop(0, zero, lambda i, v: v, zero), TypeError, "Python integer"),  # type: ignore[arg-type]
        (
            lambda: tw.while_loop(lambda c: c + 1.0, lambda c: c, zero),
            TypeError,
            "gives one bool.*got a tensor float32",
        ),
        (
            lambda: tw.while_loop(lambda c: c > 0, lambda c: c, tw.zeros(2)),
            TypeError,
            r"gives one bool.*bool\[2\]",
        ),
        (
            lambda: tw.while_loop(lambda c: c["n"] > 0, lambda c: {"n": c["n"] > 0}, {"n": zero}),
            TypeError,
            r"while_loop: a carry keeps its dtype; `init_val\['n'\]` has float32, and `<lambda>` returns bool",
        ),
        (
            lambda: tw.grad(lambda x: tw.while_loop(lambda c: c < 9, lambda c: c * x, x))(zero + 2.0),
            RuntimeError,
            "use `scan` or `fori_loop`",
        ),
        (
            lambda: tw.while_loop(lambda c: c > 0, lambda c: c if c > 0 else -c, zero),
            RuntimeError,
            "traced tensor",
        ),
    ]
    for call, kind, text in cases:
        with pytest.raises(kind, match=text):
            call()


def test_examples_run() -> None:
    failed, tried = doctest.testmod(control, extraglobs={"Tensor": tw.Tensor})
    assert tried and not failed
    page = Path(__file__).parents[2] / "docs" / "control-flow.md"
    failed, tried = doctest.testfile(str(page), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert tried and not failed


def _reads(*values: Any) -> Any:
    return values[-1] * float(values[-1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: tw.fori_loop(0, 3, _reads, x), r"note: `fori_loop\(_reads\)` runs once"),
        (lambda x: tw.fori_loop(0, 3, _reads, x), r"move the line out of `fori_loop\(_reads\)`"),
        (lambda x: tw.while_loop(lambda v: v < 3, _reads, x), r"`while_loop\(_reads\)` runs once"),
        (lambda x: tw.scan(_reads, x, tw.ones(3)), r"`scan\(_reads\)` runs once"),
        (lambda x: tw.cond(x > 0, _reads, _reads, x), r"`cond\(_reads\)` runs once"),
        (lambda x: tw.switch(tw.tensor(0), [_reads], x), r"`switch\(_reads\)` runs once"),
        (lambda x: tw.fori_loop(0, 3, lambda i, v: tw.stack([v, v]), x), "^fori_loop: a carry.*`init_val` has"),
        (lambda x: tw.fori_loop(0, 3, lambda i, v: v > 0, x), "^fori_loop: a carry.*`init_val` has"),
        (lambda x: tw.fori_loop(0, 3, lambda i, v: (v, v), x), "^fori_loop: .* structure than `init_val`"),
        (lambda x: tw.fori_loop(0, 3, lambda i, v: "v", x), "^fori_loop: `carry` is a tensor"),
        (lambda x: tw.fori_loop(0, 3, lambda i, v: v, "x"), "^fori_loop: `init_val` is a tensor"),
        (lambda x: tw.fori_loop(0, 3, 4, x), "^fori_loop: `body_fun` is a function, got int"),
        (lambda x: tw.while_loop(lambda v: v.sum() < 3, lambda v: (v, v), x), "^while_loop: .* structure than"),
        (lambda x: tw.while_loop(lambda v: v.sum() < 3, lambda v: "v", x), "^while_loop: `carry` is a tensor"),
        (lambda x: tw.while_loop(lambda v: v < 3, lambda v: tw.stack([v, v]), x), "^while_loop: a carry keeps"),
        (lambda x: tw.while_loop(3, lambda v: v, x), "^while_loop: `cond_fun` is a function, got int"),
        (lambda x: tw.while_loop(lambda v: v < 3, None, x), "^while_loop: `body_fun` is a function, got None"),
        (lambda x: tw.scan("f", x, tw.ones(3)), "^scan: `f` is a function, got str"),
        (lambda x: tw.cond(x > 0, 1, lambda v: v, x), "^cond: `true_fun` is a function, got int"),
        (lambda x: tw.cond(x > 0, lambda v: "v", lambda v: v, x), "^cond: `the result of <lambda>` is a tensor"),
        (lambda x: tw.switch(tw.tensor(0), lambda v: v, x), "^switch: `branches` is a list of functions"),
    ],
)  # fmt: skip
def test_errors_name_the_function_that_was_called(call: Callable[[Any], Any], message: str) -> None:
    with pytest.raises((tw.TracedValueError, TypeError, ValueError), match=message):
        call(tw.tensor(1.0))
