"""Random loop bodies: carries that pass into one another, slices and constants of several shapes, compiled against the
reference, results and gradients; and random nestings of loops and branches against the same in Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conformance.compare import run_compiled

import tilewright as tw
from tilewright import compiler
from tilewright.autodiff.scan import scan
from tilewright.autodiff.vjp import vjp
from tilewright.core import dtype as dt
from tilewright.graph.body import Body
from tilewright.graph.build import add, broadcast, dot, mul, permute, reduce_sum, sub, unary
from tilewright.graph.ir import Value, input_value, make
from tilewright.graph.reference import evaluate

SHAPES: tuple[tuple[int, ...], ...] = ((), (5,), (4, 5), (5, 5), (37,))
Rng = np.random.Generator


def pick(rng: Rng, values: list[Value]) -> Value:
    return values[int(rng.integers(len(values)))]


def grown(rng: Rng, values: list[Value]) -> Value:
    """One more value made of some of those there are."""
    kind = int(rng.integers(8))
    x = pick(rng, values)
    if kind == 0:
        return unary("tanh", x)
    if kind == 1 and x.type.rank == 2:
        return reduce_sum(mul(x, 0.3), (int(rng.integers(2)),))
    if kind == 2 and x.shape == (5, 5):
        return permute(x, (1, 0))
    if kind == 3:
        squares = [v for v in values if v.shape == (5, 5)]
        if x.type.rank == 2 and squares:
            return unary("tanh", dot(x, pick(rng, squares), ((1,), (0,))))
    if kind == 4 and x.shape == (5,):
        return broadcast(x, (4, 5))
    if kind == 5 and x.shape == (37,):
        return make("slice", (make("flip", (x,), axes=(0,)),), start=(3,), stop=(8,), step=(1,))
    alike = [v for v in values if v.shape == x.shape]
    y = pick(rng, alike)
    return unary("sin", add(x, y)) if kind == 6 else mul(sub(x, mul(y, 0.5)), 0.7)


def random_loop(rng: Rng) -> tuple[list[Value], list[Value]]:
    """Leaves and results of a random loop."""
    counts = [int(rng.integers(0, 3)), int(rng.integers(1, 5)), int(rng.integers(0, 3))]
    kinds = [[SHAPES[int(rng.integers(len(SHAPES)))] for _ in range(n)] for n in counts]
    leaves = [input_value(dt.float64, s) for group in kinds for s in group]
    values = list(leaves)
    for _ in range(int(rng.integers(2, 14))):
        values.append(grown(rng, values))
    new = []
    for shape in kinds[1]:
        alike = [v for v in values if v.shape == shape]
        # Newest values more often; old carries, slices and constants too, for trades and copies.
        new.append(alike[-1] if rng.random() < 0.5 else pick(rng, alike))
    ys = [pick(rng, values) for _ in range(int(rng.integers(0, 4)))]
    length, reverse = int(rng.choice([0, 1, 2, 3, 6])), bool(rng.integers(2))
    outer = [
        input_value(dt.float64, (length, *s) if n == 2 else s) for n, group in enumerate(kinds) for s in group
    ]
    first, past = counts[0], counts[0] + counts[1]
    body = Body.of(leaves, [*new, *ys])
    return outer, scan(body, outer[:first], outer[first:past], outer[past:], length, reverse)


@pytest.mark.parametrize("seed", range(40))
def test_random_loops_are_what_the_reference_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    inputs, results = random_loop(rng)
    keep = [v for v in results if rng.random() < 0.8] or results[:1]
    seeds = [input_value(v.dtype, v.shape) for v in keep]
    found = [g for g in vjp(keep, seeds, inputs) if g is not None]
    leaves, outputs = [*inputs, *seeds], [*keep, *found]
    arrays: list[Any] = [rng.normal(size=v.shape) for v in leaves]  # type: ignore[arg-type]
    assert not compiler.compile(leaves, outputs).fallbacks
    want = evaluate(outputs, dict(zip(leaves, arrays, strict=True)))
    for value, got, expected in zip(outputs, run_compiled(leaves, outputs, arrays), want, strict=True):
        size = float(np.max(np.abs(expected), initial=0)) + 1
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-11 * size, err_msg=str(value))


# ---- nested control flow -----------------------------------------------------------------------------------


def program(rng: Rng, depth: int) -> Any:
    """A random function of two vectors and a selector in the user's own functions, and the same in plain Python."""
    kind = int(rng.integers(6)) if depth else 0
    a, b = (round(float(v), 2) for v in rng.normal(size=2))
    if kind == 0:
        pick = int(rng.integers(4))
        leaf = (
            lambda x, y: (y * a, x + y),
            lambda x, y: (tw.sin(x) + y * b, x * a),
            lambda x, y: (x * x.sum() * 0.2, y),
            lambda x, y: (tw.tanh(y), tw.tanh(x * y)),
        )[pick]
        return leaf, leaf
    ours, plain = zip(*(program(rng, depth - 1) for _ in range(3)), strict=True)
    times = int(rng.integers(0, 4))
    if kind == 1:
        return (
            lambda x, y: tw.cond(x.sum() > a, ours[0], ours[1], x, y),
            lambda x, y: plain[0](x, y) if (x.sum() > a).item() else plain[1](x, y),
        )
    if kind == 2:
        return (
            lambda x, y: tw.switch(tw.round(y.sum()).astype(tw.int32), ours, x, y),
            lambda x, y: plain[min(max(int(tw.round(y.sum()).item()), 0), 2)](x, y),
        )
    if kind == 3:

        def several(f: Any, x: Any, y: Any) -> Any:
            for _ in range(times):
                x, y = f(x, y)
            return x, y

        return (
            lambda x, y: tw.fori_loop(0, times, lambda i, c: ours[0](*c), (x, y)),
            lambda x, y: several(plain[0], x, y),
        )
    if kind == 4:

        def stacked(x: Any, y: Any) -> Any:
            c, total = x, y
            for row in (y, y * 0.5):
                c, out = plain[1](c, row)
                total = total + out
            return c, total

        def scanned(x: Any, y: Any) -> Any:
            last, outs = tw.scan(lambda c, row: ours[1](c, row), x, tw.stack([y, y * 0.5]))
            return last, y + outs.sum(0)

        return scanned, stacked

    def until(x: Any, y: Any) -> Any:
        n = 0
        while n < times and (tw.abs(x).sum() > 0.3).item():
            (x, y), n = plain[2](x, y), n + 1
        return y, x

    def native(x: Any, y: Any) -> Any:
        x, y, _ = tw.while_loop(
            lambda c: (c[2] < times) & (tw.abs(c[0]).sum() > 0.3),
            lambda c: (*ours[2](c[0], c[1]), c[2] + 1),
            (x, y, 0),
        )
        return y, x

    return native, until


@pytest.mark.parametrize("seed", range(24))
def test_random_control_flow_is_what_python_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ours, plain = program(rng, 3)
    xs, ys, moves = (tw.tensor(rng.normal(size=(3, 4))) for _ in range(3))

    def loss(f: Any) -> Any:
        return lambda x, y: sum((v * v).sum() for v in f(x, y))

    want = [[v.numpy() for v in plain(x, y)] for x, y in zip(xs, ys, strict=True)]
    for n, got in enumerate((tw.jit(ours)(xs[0], ys[0]), ours(xs[1], ys[1]))):
        for g, w in zip(got, want[n], strict=True):
            np.testing.assert_allclose(g.numpy(), w, rtol=1e-9, atol=1e-11)
    for k, g in enumerate(tw.vmap(ours)(xs, ys)):
        np.testing.assert_allclose(g.numpy(), np.stack([w[k] for w in want]), rtol=1e-9, atol=1e-11)
    x, y, move = xs[0], ys[0], moves[0]
    exact = tw.jvp(loss(plain), (x, y), (move, y))[1].item()
    np.testing.assert_allclose(
        tw.jit(lambda *a: tw.jvp(loss(ours), a, (move, y))[1])(x, y).item(), exact, rtol=1e-8, atol=1e-10
    )
    try:
        slopes = tw.jit(tw.grad(loss(ours), (0, 1)))(x, y)
    except tw.GradientError as error:
        assert "while_loop" in str(error)
        return
    for g, w in zip(slopes, tw.grad(loss(plain), (0, 1))(x, y), strict=True):
        np.testing.assert_allclose(g.numpy(), w.numpy(), rtol=1e-8, atol=1e-10)
    second = (tw.hvp(loss(f), (x, y), (move, y)) for f in (ours, plain))
    for g, w in zip(*second, strict=True):
        np.testing.assert_allclose(g.numpy(), w.numpy(), rtol=1e-7, atol=1e-8)
