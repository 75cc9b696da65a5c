"""Packed values: what a template makes of its operands is one value of an eager graph until somebody looks into it."""

import threading
from typing import Any

import numpy as np
import pytest

import tilewright as tw
import tilewright.nn.functional as F
from tilewright import compiler, nn, optim
from tilewright.graph.ir import Value
from tilewright.graph.template import Template
from tilewright.tensor import Tensor
from tilewright.tensor.composite import composite


class Counts:
    """How many programs were compiled, and how many packed values written out."""

    def __init__(self) -> None:
        self.compiled = self.written = 0


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    found = Counts()
    compile, write_out = compiler.compile, Template.write_out

    def compiled(*args: Any) -> Any:
        found.compiled += 1
        return compile(*args)

    def written(self: Template, value: Value, operands: tuple[Value, ...]) -> None:
        found.written += 1
        write_out(self, value, operands)

    monkeypatch.setattr(compiler, "compile", compiled)
    monkeypatch.setattr(Template, "write_out", written)
    return found


def test_a_step_that_was_seen_before_is_never_written_out(counts: Counts) -> None:
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    x, y = tw.ones(4, 5), tw.tensor([0, 2, 1, 1])
    losses = []
    for step in range(4):
        if step == 2:
            counts.compiled = counts.written = 0
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y) + 0.1 * tw.exp(-x).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert counts.written == counts.compiled == 0
    assert losses == sorted(losses, reverse=True)


def test_a_number_that_changes_compiles_once_however_often_each_was_seen(counts: Counts) -> None:
    x, w = tw.tensor([1.0] * 4), tw.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    for number in (0.3, 0.3, 0.3, 0.7, 0.7, 0.9):
        assert (x * number + x).tolist() == pytest.approx([number + 1] * 4)
    assert counts.compiled == 1
    counts.compiled = 0
    for number in (0.3, 0.3, 0.3, 0.7, 0.7, 0.9):
        w.grad = None
        (w * w * number).sum().backward()
        assert w.grad is not None
        np.testing.assert_allclose(w.grad.numpy(), 2 * number * w.numpy(), rtol=1e-6)
    assert counts.compiled == 1


def test_operands_that_are_read_in_another_order_or_not_at_all() -> None:
    @composite
    def backwards(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        return (c * 0.3).sum() - a

    a, b, c = (tw.tensor(v, requires_grad=True) for v in ([1.0, 2.0], [5.0], [10.0, 20.0, 30.0]))
    for _ in range(3):
        a.grad = b.grad = c.grad = None
        out = backwards(a, b, c)
        assert out.tolist() == pytest.approx([17.0, 16.0])
        (out * out).sum().backward()
        assert b.grad is None and a.grad is not None and c.grad is not None
        np.testing.assert_allclose(a.grad.numpy(), [-34.0, -32.0], rtol=1e-6)
        np.testing.assert_allclose(c.grad.numpy(), [0.3 * 66] * 3, rtol=1e-6)


def test_no_gradient_flows_where_a_function_cuts_it_off() -> None:
    @composite
    def scaled(x: Tensor, scale: Tensor) -> Tensor:
        return x * scale.detach()

    x, scale = tw.tensor([1.0, 2.0], requires_grad=True), tw.tensor([3.0, 4.0], requires_grad=True)
    for read in (False, True, True):
        x.grad = None
        out = scaled(x, scale)
        if read:
            assert out.tolist() == [3.0, 8.0]
        out.sum().backward()
        assert scale.grad is None and x.grad is not None and x.grad.tolist() == [3.0, 4.0]


def test_hooks_retained_gradients_and_second_derivatives_look_into_it() -> None:
    x = tw.tensor([0.5, -1.0], requires_grad=True)
    for _ in range(3):
        x.grad = None
        early, late = tw.tanh(x), tw.exp(x)
        early.register_hook(lambda g: g * 10)
        product = early * late
        late.register_hook(lambda g: g * 100)
        product.retain_grad()
        product.sum().backward()
        assert x.grad is not None and product.grad is not None
        e, t = np.exp(x.numpy()), np.tanh(x.numpy())
        np.testing.assert_allclose(x.grad.numpy(), 10 * (1 - t * t) * e + 100 * t * e, rtol=1e-5)
        assert product.grad.tolist() == [1.0, 1.0]
        (slope,) = tw.autograd.grad(tw.exp(x * 2).sum(), [x], create_graph=True)
        (curve,) = tw.autograd.grad(slope.sum(), [x])
        np.testing.assert_allclose(curve.numpy(), 4 * np.exp(2 * x.numpy()), rtol=1e-5)


def test_values_before_and_after_they_are_written_out_are_one() -> None:
    x = tw.tensor([1.0, 2.0], requires_grad=True)
    for look in (False, True):
        x.grad = None
        hidden = tw.sigmoid(x) * 3
        value = hidden._value
        assert value.packed is not None
        if look:
            assert value.op == "mul" and value.packed is None
        loss = (hidden * hidden).sum()
        if look:
            loss.item()
        loss.backward()
        s = 1 / (1 + np.exp(-x.numpy()))
        assert x.grad is not None
        np.testing.assert_allclose(x.grad.numpy(), 18 * s * s * (1 - s), rtol=1e-5)
        with pytest.raises(AttributeError, match="nothing"):
            value.nothing  # noqa: B018
        with pytest.raises(tw.GradientError, match="freed"):
            (hidden * 2).sum().backward()


def test_threads_that_look_into_one_value_see_the_same() -> None:
    x = tw.tensor(np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3), requires_grad=True)
    target = tw.tensor([0, 2])
    expected = None
    for _ in range(30):
        loss = F.cross_entropy(x * 2, target)
        value, barrier = loss._value, threading.Barrier(4)
        assert value.packed is not None
        seen: list[Any] = []

        def look(value: Value = value, barrier: threading.Barrier = barrier, seen: list[Any] = seen) -> None:
            barrier.wait()
            seen.append((value.op, value.inputs, value.attrs))

        threads = [threading.Thread(target=look) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(seen) == 4 and all(s == seen[0] for s in seen)
        x.grad = None
        loss.backward()
        assert x.grad is not None
        expected = x.grad.numpy().copy() if expected is None else expected
        np.testing.assert_array_equal(x.grad.numpy(), expected)
