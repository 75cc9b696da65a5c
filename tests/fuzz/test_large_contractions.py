"""Random contractions large enough to be blocked and shared out, over several free, batch and contracted axes: exact in int32."""

from __future__ import annotations

import os

import numpy as np
import pytest
from conformance.compare import run_compiled

from tilewright.core import dtype as dt
from tilewright.graph import reference
from tilewright.graph.ir import input_value, make

COUNT = max(1, int(os.environ.get("TW_FUZZ", "200")) // 8)


def split(rng: np.random.Generator, size: int, parts: int) -> tuple[int, ...]:
    """A size of about ``size`` as a product of ``parts`` sizes, odd ones among them."""
    out = []
    for left in range(parts, 0, -1):
        part = max(1, round(size ** (1 / left) * rng.uniform(0.6, 1.6)))
        out.append(part)
        size = max(1, size // part)
    return tuple(out)


@pytest.mark.parametrize("seed", range(COUNT))
def test_contractions_over_several_axes_agree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    m, n, k, b = (
        split(rng, int(s), int(rng.integers(1, 4)))
        for s in (rng.integers(1, 300), rng.integers(1, 300), rng.integers(20, 1500), rng.integers(1, 4))
    )
    sides = []
    for free in (m, n):
        sizes = [*b, *free, *k]
        order = rng.permutation(len(sizes))
        place = {int(axis): at for at, axis in enumerate(order)}
        shape = tuple(sizes[axis] for axis in order)
        batch = tuple(place[i] for i in range(len(b)))
        contract = tuple(place[len(b) + len(free) + i] for i in range(len(k)))
        sides.append((input_value(dt.int32, shape), batch, contract))
    (x, xb, xc), (y, yb, yc) = sides
    value = make("dot", (x, y), lhs_contract=xc, rhs_contract=yc, lhs_batch=xb, rhs_batch=yb, dtype=dt.int32)
    arrays = [rng.integers(-9, 10, v.shape).astype(np.int32) for v in (x, y)]
    (want,) = reference.evaluate([value], dict(zip((x, y), arrays, strict=True)))
    (got,) = run_compiled([x, y], [value], arrays)
    np.testing.assert_array_equal(got, want, err_msg=repr(value))
