"""Eager and jitted training agree, one seed gives one model, and a jitted step is one native call."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tilewright as tw
import tilewright.nn.functional as F
from tilewright import nn, optim
from tilewright.runtime.statistics import stats

Array = np.ndarray[Any, np.dtype[Any]]
STEPS = 100


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 10))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


def batches(count: int) -> list[tuple[Array, Array]]:
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((10, 64))
    labels = rng.integers(0, 10, (count, 16))
    return [((centers[y] + rng.standard_normal((16, 64))).astype(np.float32), y) for y in labels]


def train(build: Callable[[], nn.Module], jitted: bool) -> tuple[Array, dict[str, Array]]:
    """Losses of every step, and the final state."""
    tw.manual_seed(1)
    model = build()
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)

    def step(x: tw.Tensor, y: tw.Tensor) -> tw.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    run = tw.jit(step) if jitted else step
    losses = [run(tw.tensor(x), tw.tensor(y)).item() for x, y in batches(STEPS)]
    return np.array(losses), {name: np.array(t.numpy()) for name, t in model.state_dict().items()}


@pytest.mark.parametrize("build", [mlp, cnn])
def test_eager_and_jitted_training_give_the_same_losses(build: Callable[[], nn.Module]) -> None:
    eager, eager_state = train(build, jitted=False)
    jitted, jitted_state = train(build, jitted=True)
    np.testing.assert_allclose(jitted, eager, rtol=2e-4)
    assert jitted[-10:].mean() < 0.8 * jitted[:10].mean()
    for name, tensor in eager_state.items():
        np.testing.assert_allclose(jitted_state[name], tensor, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("build", [mlp, cnn])
@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
def test_one_seed_gives_bitwise_equal_parameters(build: Callable[[], nn.Module], jitted: bool) -> None:
    first, second = train(build, jitted), train(build, jitted)
    np.testing.assert_array_equal(first[0], second[0])
    for name, tensor in first[1].items():
        np.testing.assert_array_equal(second[1][name], tensor)


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam])
def test_a_jitted_step_makes_one_native_call(kind: type[optim.Optimizer]) -> None:
    tw.manual_seed(0)
    model = mlp()
    optimizer = kind(model.parameters(), lr=1e-2)  # type: ignore[call-arg]

    @tw.jit
    def step(x: tw.Tensor, y: tw.Tensor) -> tw.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    [(x, y)] = batches(1)
    step(x, y).item()
    before = stats.snapshot()
    for lr in (1e-2, 1e-3, 1e-4):
        optimizer.param_groups[0]["lr"] = lr
        step(x, y).item()
    gained = stats.since(before)
    assert gained["native_calls"] == 3 and gained["host_calls"] == 0
    assert step.traces == 1
