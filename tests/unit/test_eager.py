"""Eager steps: composite functions and backward passes that are recorded once give what recording anew gives."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tilewright as tw
import tilewright.nn.functional as F
from tilewright import nn, optim
from tilewright.tensor import Tensor, gradients
from tilewright.tensor.composite import composite
from tilewright.tensor.replay import run as replayed


@pytest.fixture
def outcomes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Whether each backward pass ran as a program of its own."""
    seen: list[bool] = []

    def run(*args: Any) -> Any:
        found = replayed(*args)
        seen.append(found is not None)
        return found

    monkeypatch.setattr(gradients.replay, "run", run)
    yield seen


def recorded(loss: Tensor, leaves: list[Tensor]) -> list[np.ndarray[Any, Any]]:
    """Gradients by the other way: ``tw.autograd``'s, recorded as pending work."""
    return [g.numpy() for g in tw.autograd.grad(loss, leaves, retain_graph=True)]


def test_numbers_that_change_from_step_to_step_are_no_part_of_the_program(outcomes: list[bool]) -> None:
    w = tw.tensor([1.0, 2.0, 3.0], requires_grad=True)
    for scale in (0.3, 0.7, 1.9):
        loss = ((w * scale) ** 2.5).sum() * (scale + 0.11)
        (wanted,) = recorded(loss, [w])
        w.grad = None
        loss.backward()
        assert w.grad is not None
        np.testing.assert_allclose(w.grad.numpy(), wanted, rtol=2e-6)
    assert outcomes == [True, True, True]


def test_values_that_were_read_before_the_backward_pass(outcomes: list[bool]) -> None:
    a, b = tw.tensor([1.0, -2.0], requires_grad=True), tw.tensor([3.0, 0.5], requires_grad=True)
    for read in (False, True, True):
        a.grad = b.grad = None
        hidden = tw.tanh(a * b)
        if read:
            hidden.numpy()
        loss = (hidden * hidden * b).sum()
        if read:
            loss.item()
        wanted = recorded(loss, [a, b])
        loss.backward()
        assert a.grad is not None and b.grad is not None
        np.testing.assert_allclose(a.grad.numpy(), wanted[0], rtol=1e-6)
        np.testing.assert_allclose(b.grad.numpy(), wanted[1], rtol=1e-6)
    assert outcomes == [True, True, True]


def test_gradients_accumulate_and_other_pending_work_is_computed_too() -> None:
    w = tw.tensor([1.0, 2.0], requires_grad=True)
    hidden = w * 3
    aside = (hidden.detach() + 1).sum()
    hidden.sum().backward()
    (w * w).sum().backward(tw.tensor(2.0))
    assert w.grad is not None
    assert w.grad.tolist() == [3 + 4, 3 + 8]
    assert aside.item() == 11 and hidden.tolist() == [3, 6]
    with pytest.raises(tw.GradientError, match="freed"):
        (hidden * 2).sum().backward()


def test_a_rule_of_the_user_is_asked_each_time(outcomes: list[bool]) -> None:
    factor = tw.tensor(2.0)

    @tw.custom_vjp
    def scaled(x: Tensor) -> Tensor:
        return x * 1.0

    scaled.defvjp(lambda x: (x * 1.0, ()), lambda saved, g: (g * factor,))
    w = tw.tensor([1.0], requires_grad=True)
    for number in (2.0, 5.0):
        factor = tw.tensor(number)
        w.grad = None
        scaled(w).sum().backward()
        assert w.grad is not None and w.grad.tolist() == [number]
    assert outcomes == [False, False]


def test_an_index_out_of_range_is_reported_where_it_is_read() -> None:
    table = tw.tensor([[1.0], [2.0]], requires_grad=True)
    index = tw.tensor([0, 1]) + tw.tensor([0, 4])
    loss = tw.take(table, index, axis=0).sum()
    loss.backward()
    with pytest.raises(tw.IndexingError):
        loss.item()


@pytest.mark.parametrize("make", [optim.SGD, optim.Adam, optim.AdamW, optim.RMSprop, optim.Adagrad])
def test_compiled_updates_are_the_updates(make: Callable[..., optim.Optimizer]) -> None:
    def trained(compiled: bool) -> list[Any]:
        tw.manual_seed(3)
        model = nn.Linear(4, 2)
        optimizer = make(model.parameters(), lr=0.05, weight_decay=0.01)
        optimizer.compiled = compiled  # type: ignore[misc]
        x, y = tw.ones(3, 4), tw.tensor([0, 1, 1])
        for step in range(6):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            if step == 2:
                optimizer.param_groups[0]["lr"] = 0.01
            if step == 3:
                model.bias.grad = None
            optimizer.step()
        return [p.numpy() for p in model.parameters()]

    for got, wanted in zip(trained(True), trained(False), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-7)


def test_an_optimizer_of_the_user_runs_its_update_each_time() -> None:
    class Counting(optim.SGD):
        def __init__(self, params: Any) -> None:
            super().__init__(params, lr=1.0)
            self.calls = 0

        def _update(self, group: Any, pairs: Any) -> None:
            self.calls += 1
            super()._update(group, pairs)

    w = tw.tensor([1.0], requires_grad=True)
    optimizer = Counting([w])
    for _ in range(3):
        optimizer.zero_grad()
        (w * 2).sum().backward()
        optimizer.step()
    assert optimizer.calls == 3 and w.tolist() == [-5.0]


def test_composites_tell_apart_what_changes_the_graph() -> None:
    calls: list[Any] = []

    @composite
    def scaled(x: Tensor, factor: float = 1.0, axes: tuple[int, ...] = (0,)) -> Tensor:
        calls.append((x.shape, factor, axes))
        return (x * factor).sum(axes)

    x = tw.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert scaled(x).tolist() == [4.0, 6.0]
    assert scaled(x * 2).tolist() == [8.0, 12.0]
    assert len(calls) == 1
    assert scaled(x, axes=(1,)).tolist() == [3.0, 7.0]
    assert scaled(x, -0.0).tolist() == scaled(x, 0.0).tolist() == [0.0, 0.0]
    assert scaled(x.astype(tw.float64), factor=2.0).dtype is tw.float64
    assert len(calls) == 5
    w = tw.tensor([[1.0, 2.0]], requires_grad=True)
    assert scaled(w, 2.0).requires_grad
    with tw.no_grad():
        assert not scaled(w, 2.0).requires_grad
    assert scaled(np.ones((2, 2), np.float32)).tolist() == [2.0, 2.0]  # type: ignore[arg-type]
    with pytest.raises(tw.AxisError):
        scaled(x, axes=(5,))


def test_a_composite_that_writes_or_reads_other_tensors_is_called_each_time() -> None:
    state = tw.zeros(2)

    @composite
    def reads(x: Tensor) -> Tensor:
        return x + state

    @composite
    def writes(x: Tensor) -> Tensor:
        x += 1
        return x * 2

    x = tw.ones(2)
    for number in (1.0, 2.0):
        state = tw.full((2,), number)
        assert reads(x).tolist() == [1 + number] * 2
    assert writes(x).tolist() == [4.0, 4.0] and writes(x).tolist() == [6.0, 6.0]
    assert x.tolist() == [3.0, 3.0]


def test_constants_that_were_read_stay_constants() -> None:
    one, ones = tw.tensor(1.0), tw.ones(3)
    assert one.item() == 1.0 and ones.tolist() == [1.0] * 3
    softmax = tw.jit(lambda x: F.softmax(x, 0) + tw.ones(3))
    x = tw.tensor([1.0, 2.0, 3.0])
    softmax(x)
    program = softmax.executable(x)
    assert program is not None and len(program.inputs) == 1
    again = tw.ones(3)
    again.numpy()
    assert softmax.executable(x) is program
    other = tw.jit(lambda x: F.softmax(x, 0) + tw.ones(3)).executable(x)
    assert other is not None and len(other.inputs) == 1


@pytest.mark.parametrize(
    "make",
    [lambda: tw.zeros(2**62), lambda: tw.zeros((2**31, 1)) + tw.zeros((1, 2**33)), lambda: tw.eye(2**32)],
)
def test_what_no_machine_holds_is_named(make: Callable[[], tw.Tensor]) -> None:
    x = make()  # a shape costs nothing
    with pytest.raises(
        MemoryError, match=r"would take .* GiB, and this machine has .*; the largest is `\w+` of float32\["
    ):
        x.numpy()
