"""Recurrent layers against NumPy loops, their parameters' names and shapes, and training of one."""

from __future__ import annotations

import doctest
from typing import Any

import numpy as np
import pytest

import tilewright as tw
from tilewright import nn, optim
from tilewright.nn import recurrent

Array = np.ndarray[Any, Any]
T, B, I, H = 5, 3, 4, 6


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def step(kind: str, x: Array, state: list[Array], p: dict[str, Array], suffix: str) -> list[Array]:
    mine = p["weight_hh" + suffix] @ state[0] + p["bias_hh" + suffix]
    given = p["weight_ih" + suffix] @ x + p["bias_ih" + suffix]
    if kind == "LSTM":
        i, f, g, o = np.split(given + mine, 4)
        c = sigmoid(f) * state[1] + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        return [p["weight_hr" + suffix] @ h if "weight_hr" + suffix in p else h, c]
    if kind == "GRU":
        (a, b, c), (d, e, f) = np.split(given, 3), np.split(mine, 3)
        z = sigmoid(b + e)
        return [(1 - z) * np.tanh(c + sigmoid(a + d) * f) + z * state[0]]
    return [np.tanh(given + mine)]


def reference(kind: str, layer: Any, x: Array, first: list[Array]) -> tuple[Array, list[Array]]:
    """One example [T, I] and its first states [L D, width]; a loop over layers, directions and times."""
    p = {name: v.numpy() for name, v in layer.state_dict().items()}
    ends: list[list[Array]] = []
    for n in range(layer.num_layers):
        outs = []
        for suffix in [f"_l{n}", f"_l{n}_reverse"] if layer.bidirectional else [f"_l{n}"]:
            state = [s[len(ends)] for s in first]
            ys = np.zeros((len(x), len(state[0])))
            for t in sorted(range(len(x)), reverse=suffix.endswith("reverse")):
                state = step(kind, x[t], state, p, suffix)
                ys[t] = state[0]
            ends.append(state)
            outs.append(ys)
        x = np.concatenate(outs, axis=-1)
    return x, [np.stack(parts) for parts in zip(*ends, strict=True)]


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize(
    ("layers", "both", "batch_first"), [(1, False, False), (2, True, False), (2, False, True)]
)
def test_layers_are_their_formulas(kind: str, layers: int, both: bool, batch_first: bool) -> None:
    tw.manual_seed(1)
    options: dict[str, Any] = {"num_layers": layers, "bidirectional": both, "batch_first": batch_first}
    if kind == "LSTM" and both:
        options["proj_size"] = 2
    layer = getattr(nn, kind)(I, H, dtype=tw.float64, **options)
    rng = np.random.default_rng(2)
    x = rng.normal(size=(T, B, I))
    widths = [options.get("proj_size", H), H] if kind == "LSTM" else [H]
    for first in (
        [rng.normal(size=(layers * (1 + both), B, w)) for w in widths],
        [np.zeros((layers * (1 + both), B, w)) for w in widths],
    ):
        hx: Any = None
        if first[0].any():
            hx = tuple(map(tw.tensor, first)) if kind == "LSTM" else tw.tensor(first[0])
        output, last = layer(tw.tensor(x.swapaxes(0, 1) if batch_first else x), hx)
        got = output.numpy().swapaxes(0, 1) if batch_first else output.numpy()
        states = last if kind == "LSTM" else (last,)
        for b in range(B):
            ys, ends = reference(kind, layer, x[:, b], [s[:, b] for s in first])
            np.testing.assert_allclose(got[:, b], ys, rtol=1e-9, atol=1e-12)
            for s, e in zip(states, ends, strict=True):
                np.testing.assert_allclose(s.numpy()[:, b], e, rtol=1e-9, atol=1e-12)
    alone, _ = layer(tw.tensor(x[:, 0]))
    np.testing.assert_allclose(alone.numpy(), got[:, 0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_gradients_are_those_of_the_cell_in_a_python_loop(kind: str) -> None:
    tw.manual_seed(3)
    layer, cell = (
        getattr(nn, kind)(I, H, dtype=tw.float64),
        getattr(nn, kind + "Cell")(I, H, dtype=tw.float64),
    )
    for name, parameter in cell.named_parameters():
        with tw.no_grad():
            parameter.assign(getattr(layer, name + "_l0").detach())
    x = tw.tensor(np.random.default_rng(4).normal(size=(T, B, I)), requires_grad=True)
    output, _ = layer(x)
    (output * output).sum().backward()
    assert x.grad is not None
    got, x.grad = x.grad.numpy(), None
    state, total = None, tw.tensor(0.0, dtype=tw.float64)
    for t in range(T):
        state = cell(x[t], state)
        h = state[0] if kind == "LSTM" else state
        total = total + (h * h).sum()
    total.backward()
    assert x.grad is not None
    np.testing.assert_allclose(got, x.grad.numpy(), rtol=1e-9, atol=1e-12)
    for name, parameter in cell.named_parameters():
        np.testing.assert_allclose(
            getattr(layer, name + "_l0").grad.numpy(), parameter.grad.numpy(), rtol=1e-9, atol=1e-12
        )


def test_parameters_have_the_usual_names_and_shapes() -> None:
    shapes = {
        k: v.shape
        for k, v in nn.LSTM(I, H, num_layers=2, bidirectional=True, proj_size=2).state_dict().items()
    }
    assert list(shapes)[:5] == ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "weight_hr_l0"]
    assert len(shapes) == 20
    assert (shapes["weight_ih_l0_reverse"], shapes["weight_hh_l0"], shapes["weight_hr_l1"]) == (
        (24, 4),
        (24, 2),
        (2, 6),
    )
    assert shapes["weight_ih_l1"] == (24, 4)
    assert sorted(nn.GRU(I, H, bias=False).state_dict()) == ["weight_hh_l0", "weight_ih_l0"]
    bound = 1 / np.sqrt(H)
    assert all(
        np.abs(v.numpy()).max() <= bound for v in nn.RNN(I, H, nonlinearity="relu").state_dict().values()
    )
    assert repr(nn.GRU(2, 3, num_layers=2, dropout=0.5)) == "GRU(2, 3, num_layers=2, dropout=0.5)"


def test_dropout_is_between_layers_and_in_training_only() -> None:
    layer = nn.RNN(I, H, num_layers=2, dropout=1.0)
    x = tw.tensor(np.ones((T, B, I), np.float32))
    plain = nn.RNN(I, H, num_layers=2)
    plain.load_state_dict(layer.state_dict())
    layer.eval()
    np.testing.assert_array_equal(layer(x)[0].numpy(), plain(x)[0].numpy())
    layer.train()
    nothing = plain(x * 0.0)[0]
    assert layer(x)[0].shape == nothing.shape and not np.array_equal(layer(x)[0].numpy(), plain(x)[0].numpy())


def test_a_jitted_step_learns_to_remember() -> None:
    """The first input of a sequence has to be told at its end."""
    tw.manual_seed(0)
    layer, head = nn.LSTM(1, 16), nn.Linear(16, 1)
    opt = optim.Adam([*layer.parameters(), *head.parameters()], lr=1e-2)

    @tw.jit
    def train(x: tw.Tensor) -> tw.Tensor:
        opt.zero_grad()
        output, _ = layer(x)
        loss = ((head(output[-1]) - x[0]) ** 2).mean()
        loss.backward()
        opt.step()
        return loss

    rng = np.random.default_rng(0)
    losses = [train(tw.tensor(rng.normal(size=(8, 32, 1)).astype(np.float32))).item() for _ in range(200)]
    assert np.mean(losses[-20:]) < 0.15 * np.mean(losses[:20])


def test_a_step_of_the_loops_is_few_launches() -> None:
    """Forward: the gates' product, then all that is elementwise. Backward: the state's share, the gates' gradients, a product.
    The gates are kept for it, not computed again, and their gradients are written side by side."""
    layer = nn.LSTM(I, H)

    @tw.jit
    def gradients(x: tw.Tensor) -> list[tw.Tensor]:
        (layer(x)[0] ** 2).sum().backward()
        grads = [p.grad for p in layer.parameters()]
        return [g for g in grads if g is not None]

    plan = gradients.executable(tw.ones((T, B, I))).stage_text("plan")
    forward, backward = (part.split("\n") for part in plan.split(f"loop of {T} iterations\n")[1:])
    inside = [[line.split()[1] for line in part if line.startswith("      ")] for part in (forward, backward)]
    assert inside == [["dot", "map"], ["map", "dot"]]
    assert "tanh" not in " ".join(backward) and "sigmoid" not in " ".join(backward)


def test_mistakes_are_named() -> None:
    for call, text in (
        (lambda: nn.LSTM(I, H)(tw.zeros((T, B, I + 1))), "with I = 4"),
        (lambda: nn.GRU(I, H)(tw.zeros((T, B, I)), tw.zeros((2, B, H))), "a first state has the shape"),
        (lambda: nn.RNN(I, H, nonlinearity="sin"), "'tanh' or 'relu'"),
        (lambda: nn.LSTM(I, H, proj_size=H), "below hidden_size"),
        (lambda: nn.GRU(I, 0), "at least 1"),
        (lambda: nn.LSTMCell(I, H)(tw.zeros((B, 1))), "with I = 4"),
    ):
        with pytest.raises(ValueError, match=text):
            call()


def test_examples_run() -> None:
    failed, tried = doctest.testmod(recurrent)
    assert tried and not failed
