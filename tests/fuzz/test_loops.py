"""Random loop bodies: carries that pass into one another, slices and constants of several shapes, compiled against the
reference, results and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conformance.compare import run_compiled

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
