"""The learning-rate schedules against their formulas."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from tilewright import optim
from tilewright.jit import jit
from tilewright.nn import Parameter
from tilewright.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
    StepLR,
)
from tilewright.tensor import Tensor


def make(lr: float = 1.0) -> optim.SGD:
    return optim.SGD([Parameter([1.0])], lr=lr, momentum=0.9)


def rates(scheduler: LRScheduler, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found += scheduler.get_last_lr()
        scheduler.step()
    return found


def test_step() -> None:
    assert rates(StepLR(make(), 2, gamma=0.5), 6) == pytest.approx([1, 1, 0.5, 0.5, 0.25, 0.25])


def test_lambda() -> None:
    assert rates(LambdaLR(make(2.0), lambda epoch: 1 / (epoch + 1)), 3) == pytest.approx([2, 1, 2 / 3])


def test_cosine() -> None:
    expected = [0.1 + 0.9 * (1 + math.cos(math.pi * t / 4)) / 2 for t in range(5)]
    assert rates(CosineAnnealingLR(make(), 4, eta_min=0.1), 5) == pytest.approx(expected)


def test_one_cycle() -> None:
    optimizer = make()
    scheduler = OneCycleLR(optimizer, max_lr=1.0, total_steps=10, div_factor=10.0, final_div_factor=100.0)
    # up over the first 0.3 * 10 - 1 = 2 steps, then down to 1 / 10 / 100
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)
    assert optimizer.param_groups[0]["momentum"] == pytest.approx(0.95)
    found, momenta = [], []
    for _ in range(10):
        found.append(optimizer.param_groups[0]["lr"])
        momenta.append(optimizer.param_groups[0]["momentum"])
        scheduler.step()
    up = [1.0 + (0.1 - 1.0) / 2 * (1 + math.cos(math.pi * t / 2)) for t in range(3)]
    down = [0.001 + (1.0 - 0.001) / 2 * (1 + math.cos(math.pi * (t - 2) / 7)) for t in range(3, 10)]
    assert found == pytest.approx(up + down)
    assert momenta[2] == pytest.approx(0.85) and momenta[9] == pytest.approx(0.95)
    with pytest.raises(ValueError, match="after its end"):
        scheduler.step()


def test_one_cycle_in_three_phases_and_straight_lines() -> None:
    scheduler = OneCycleLR(
        make(), max_lr=1.0, total_steps=11, pct_start=0.5, div_factor=10.0, final_div_factor=10.0,
        three_phase=True, anneal_strategy="linear",
    )  # fmt: skip
    found = rates(scheduler, 11)
    assert found[0] == pytest.approx(0.1) and found[-1] == pytest.approx(0.01)
    assert found[4] == pytest.approx(0.1 + 0.9 * 4 / 4.5)
    assert found[9] == pytest.approx(0.1) and found[5] == pytest.approx(1.0 - 0.9 * 0.5 / 4.5)


def test_the_momentum_of_adam_is_cycled_inside_jit_without_compiling_again() -> None:
    p = Parameter([1.0])
    optimizer = optim.Adam([p], lr=1.0, betas=(0.9, 0.5), eps=1e-3)
    scheduler = OneCycleLR(optimizer, max_lr=0.5, total_steps=5)

    @jit
    def step() -> None:
        optimizer.zero_grad()
        (p * p).sum().backward()
        optimizer.step()

    x, m, v = 1.0, 0.0, 0.0
    for t in range(1, 6):
        (b1, b2), lr = optimizer.param_groups[0]["betas"], optimizer.param_groups[0]["lr"]
        g = 2 * x
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        x -= lr / (1 - b1**t) * m / (math.sqrt(v / (1 - b2**t)) + 1e-3)
        step()
        if t < 5:
            scheduler.step()
        np.testing.assert_allclose(p.item(), x, rtol=1e-4)
    assert step.traces == 1


def test_plateau() -> None:
    optimizer = make()
    scheduler = ReduceLROnPlateau(optimizer, factor=0.5, patience=1, cooldown=1, min_lr=0.2)
    found = []
    for loss in (1.0, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9):
        scheduler.step(Tensor(loss))
        found.append(optimizer.param_groups[0]["lr"])
    assert found == pytest.approx([1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.2, 0.2])
    highest = ReduceLROnPlateau(make(), mode="max", patience=0, threshold=0.1, threshold_mode="abs")
    for value, bad in ((0.5, 0), (0.55, 0), (0.7, 0)):
        highest.step(value)
        assert highest.num_bad_epochs == bad
    assert highest.optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    "build",
    [
        lambda o: StepLR(o, 2),
        lambda o: CosineAnnealingLR(o, 7),
        lambda o: LambdaLR(o, lambda e: 0.9**e),
        lambda o: OneCycleLR(o, 1.0, total_steps=20),
    ],
)
def test_a_restored_schedule_continues(build: Callable[[optim.Optimizer], LRScheduler]) -> None:
    whole = rates(build(make()), 10)
    first = build(make())
    rates(first, 5)
    second = build(make())
    second.load_state_dict(first.state_dict())
    assert rates(second, 5) == pytest.approx(whole[5:])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda o: StepLR(o, 0), "step_size"),
        (lambda o: CosineAnnealingLR(o, 0), "T_max"),
        (lambda o: OneCycleLR(o, 1.0), "total_steps"),
        (lambda o: OneCycleLR(o, 1.0, total_steps=5, pct_start=2.0), "pct_start"),
        (lambda o: OneCycleLR(o, 1.0, total_steps=5, anneal_strategy="x"), "anneal_strategy"),
        (lambda o: LambdaLR(o, []), "0 functions"),
        (lambda o: ReduceLROnPlateau(o, factor=2.0), "factor"),
        (lambda o: ReduceLROnPlateau(o, mode="x"), "mode"),
    ],
)
def test_wrong_arguments_are_named(build: Callable[[optim.Optimizer], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(make())
