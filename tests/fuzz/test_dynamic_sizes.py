"""Random programs with a symbolic leading axis: one program for all sizes against ordinary compilation and eager execution.

What it is after: a size that became a constant somewhere. Every program is run at several sizes of the range, among them the
smallest, the largest and those around vector widths; where it cannot serve the range, it must still give the right result.
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tilewright as tw

LOW, HIGH = 2, 70
SIZES = (70, 2, 3, 8, 17, 33, 64)
Rng = np.random.Generator


def _rows(x: tw.Tensor) -> bool:
    return x.ndim == 2


STEPS: dict[str, Callable[[tw.Tensor, tw.Tensor, Rng], tw.Tensor]] = {
    "tanh": lambda x, y, r: x.tanh(),
    "scaled": lambda x, y, r: x * float(r.integers(1, 4)) + 0.5,
    "sum": lambda x, y, r: x.sum(int(r.integers(0, x.ndim)), keepdims=True) + x,
    "mean": lambda x, y, r: x - x.mean(int(r.integers(0, x.ndim)), keepdims=True),
    "mean of all": lambda x, y, r: x * x.mean(),
    "variance": lambda x, y, r: x / (x.var(0, correction=1.0, keepdims=True) + 1.0),
    "maximum": lambda x, y, r: x - x.max(int(r.integers(0, x.ndim)), keepdims=True),
    "softmax": lambda x, y, r: tw.softmax(x, -1),
    "softmax of columns": lambda x, y, r: tw.softmax(x, 0),
    "argmax": lambda x, y, r: x + x.argmax(int(r.integers(0, x.ndim)), keepdims=True),
    "size": lambda x, y, r: x / x.shape[0] + x.size,
    "arange": lambda x, y, r: x + tw.arange(x.shape[0]).reshape(-1, *(1,) * (x.ndim - 1)),
    "flat": lambda x, y, r: x.reshape(-1).reshape(x.shape),
    "split": lambda x, y, r: x.reshape(x.shape[0], -1, 2).sum(-1).repeat(2, axis=1) if x.ndim == 2 else x,
    "add": lambda x, y, r: x + y if x.shape == y.shape else x,
    "where": lambda x, y, r: tw.where(y > 0, x, 0.0) if x.shape == y.shape else x,
    "turned": lambda x, y, r: (x.T + 1).T if _rows(x) else x,
    "flipped": lambda x, y, r: tw.flip(x, -1),
    "flipped rows": lambda x, y, r: tw.flip(x, 0),
    "later rows": lambda x, y, r: tw.pad(x[1:], ((1, 0), (0, 0))) if _rows(x) else x,
    "padded": lambda x, y, r: tw.pad(x, ((0, 0), (1, 1)))[:, 1:-1] if _rows(x) else x,
    "joined": lambda x, y, r: tw.concat([x, x * 2], 1)[:, : x.shape[1]] if _rows(x) else x,
    "joined rows": lambda x, y, r: tw.concat([x, x], 0)[: x.shape[0]],
    "running": lambda x, y, r: tw.cumsum(x, int(r.integers(0, x.ndim))) * 0.1,
    "picked": lambda x, y, r: x[:, [2, 0, 1, 3]] if _rows(x) else x,
    "rolled": lambda x, y, r: tw.roll(x, 1, 1) if _rows(x) else x,
    "weighed": lambda x, y, r: x @ tw.ones((x.shape[1], 4)) * 0.2 if _rows(x) else x,
    "correlated": lambda x, y, r: x @ (x.T @ x) * 0.01 if _rows(x) else x,
    "similar": lambda x, y, r: tw.softmax(x @ x.T, -1) @ x if _rows(x) else x,
    "filled": lambda x, y, r: x + tw.full((x.shape[0], *(1,) * (x.ndim - 1)), 0.25),
    "first": lambda x, y, r: x - x[0],
    "counted": lambda x, y, r: x * (x > 0).sum() / tw.count_nonzero(x + 10),
}  # fmt: skip


def program(seed: int) -> Callable[[Any, Any], list[tw.Tensor]]:
    rng = np.random.default_rng(seed)
    names = [str(n) for n in rng.choice(list(STEPS), int(rng.integers(2, 7)))]
    seeds = [int(s) for s in rng.integers(0, 1 << 30, len(names))]
    differentiated = bool(rng.integers(0, 2))

    def run(x: tw.Tensor, y: tw.Tensor) -> tw.Tensor:
        for name, own in zip(names, seeds, strict=True):
            x = STEPS[name](x, y, np.random.default_rng(own))
        return x

    def both(x: tw.Tensor, y: tw.Tensor) -> list[tw.Tensor]:
        out = [run(x, y)]
        if differentiated:
            out.append(tw.grad(lambda z: (run(z, y) ** 2).mean())(x))
        return out

    both.__name__ = f"seed {seed}: {names}{' with gradient' if differentiated else ''}"
    return both


@pytest.mark.parametrize("seed", range(int(os.environ.get("TW_FUZZ_DYNAMIC", "8"))))
def test_one_program_serves_every_size(seed: int) -> None:
    function = program(seed)
    batch = tw.Dim("batch", LOW, HIGH)
    dynamic = tw.jit(function, dynamic={"x": {0: batch}, "y": (batch, None)})
    rng = np.random.default_rng(seed)
    for size in SIZES:
        x, y = (rng.standard_normal((size, 4)).astype(np.float32) for _ in range(2))
        found, wanted = dynamic(x, y), function(tw.tensor(x), tw.tensor(y))
        for a, b in zip(found, wanted, strict=True):
            assert a.shape == b.shape
            np.testing.assert_allclose(
                a.numpy(), b.numpy(), rtol=2e-3, atol=2e-4, err_msg=f"{function.__name__}, size {size}"
            )
    if not dynamic.specialised:
        assert dynamic.traces == 1, function.__name__
    if os.environ.get("TW_FUZZ_DYNAMIC"):
        print(function.__name__, list(dynamic.specialised.values()))
