"""Random convolutions with both gradients, over sizes, strides, paddings, dilations and groups: exact in small integers."""

from __future__ import annotations

import os

import numpy as np
import pytest
from conformance.compare import run_compiled

from tilewright.autodiff.vjp import vjp
from tilewright.core import dtype as dt
from tilewright.graph import reference
from tilewright.graph.ir import Value, input_value, make

COUNT = max(1, int(os.environ.get("TW_FUZZ", "200")) // 4)
FIXED = (  # images, channels, rows, columns, filters, kernel, stride, padding, groups
    (2, 32, 16, 16, 64, 3, 1, 1, 1), (3, 64, 8, 8, 40, 3, 1, 1, 1), (2, 16, 32, 32, 32, 3, 2, 1, 1),
    (1, 3, 64, 64, 32, 3, 1, 1, 1), (4, 6, 14, 14, 16, 5, 1, 0, 1), (4, 1, 28, 28, 6, 5, 1, 2, 1),
    (2, 8, 12, 12, 8, 3, 1, 1, 8), (2, 8, 13, 13, 8, 1, 2, 0, 1), (1, 2, 40, 40, 3, 7, 3, 3, 1),
)  # fmt: skip


def check(x: Value, w: Value, rng: np.random.Generator, **attrs: object) -> None:
    """Compare a convolution and its gradients with the reference."""
    y = make("conv", [x, w], **attrs, dtype=dt.float32)
    g = input_value(dt.float32, y.shape)
    outputs = [y, *(v for v in vjp([y], [g], [x, w]) if v is not None)]
    arrays = [rng.integers(-3, 4, v.shape).astype(np.float32) for v in (x, w, g)]
    want = reference.evaluate(outputs, dict(zip((x, w, g), arrays, strict=True)))
    for got, right in zip(run_compiled([x, w, g], outputs, arrays), want, strict=True):
        np.testing.assert_array_equal(got, right, err_msg=repr(y))


@pytest.mark.parametrize("case", FIXED, ids=lambda c: "x".join(map(str, c)))
def test_convolutions_of_usual_shapes_agree(case: tuple[int, ...]) -> None:
    n, c, h, w, filters, size, stride, padding, groups = case
    x = input_value(dt.float32, (n, c, h, w))
    kernel = input_value(dt.float32, (filters, c // groups, size, size))
    check(
        x, kernel, np.random.default_rng(0), stride=(stride,) * 2, padding=((padding,) * 2,) * 2,
        lhs_dilation=(1, 1), rhs_dilation=(1, 1), groups=groups,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(COUNT))
def test_random_convolutions_agree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rank = int(rng.choice([1, 2, 2, 2, 3]))
    groups = int(rng.choice([1, 1, 1, 2, 4]))
    size = rng.integers(1, 6 if rank < 3 else 4, rank)
    stride, spread = rng.integers(1, 4, rank), rng.integers(1, 3, rank)
    dilation = np.ones(rank, int) if rng.random() < 0.8 else rng.integers(1, 3, rank)
    padding = rng.integers(0, 4, (rank, 2))
    reach = (size - 1) * spread + 1
    sides = [
        int(rng.integers(max(1, r - p.sum()), {1: 300, 2: 36, 3: 12}[rank]))
        for r, p in zip(reach, padding, strict=True)
    ]
    channels, filters = int(rng.integers(1, 9)), int(rng.integers(1, 20))
    x = input_value(dt.float32, (int(rng.integers(1, 6)), groups * channels, *sides))
    w = input_value(dt.float32, (groups * filters, channels, *map(int, size)))
    check(
        x, w, rng, stride=tuple(map(int, stride)), padding=tuple((int(a), int(b)) for a, b in padding),
        lhs_dilation=tuple(map(int, dilation)), rhs_dilation=tuple(map(int, spread)), groups=groups,
    )  # fmt: skip
