"""Whole numbers that users give: NumPy's go wherever Python's go, and a truth value is no number of anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tilewright as tw
import tilewright.nn.functional as F
from tilewright import nn
from tilewright.train import Trainer

x = tw.tensor(np.arange(24, dtype=np.float32).reshape(2, 3, 4))
v = tw.tensor(np.arange(6, dtype=np.float32))
square = tw.ones((1, 3, 8, 8))


def product(a: tw.Tensor, b: tw.Tensor) -> tw.Tensor:
    return (a * a * b).sum()


CALLS: dict[str, Callable[[Any], Any]] = {
    "sum": lambda i: tw.sum(x, axis=(i(0), i(1))),
    "zeros": lambda i: tw.zeros((i(3), 2)),
    "linspace": lambda i: tw.linspace(0, 1, i(5)),
    "logspace": lambda i: tw.logspace(0, 1, i(3)),
    "split": lambda i: tw.split(v, i(2))[1],
    "hsplit": lambda i: tw.hsplit(v, i(2))[1],
    "roll": lambda i: tw.roll(v, i(2)),
    "repeat": lambda i: tw.repeat(v, i(2)),
    "one_hot": lambda i: tw.one_hot(tw.arange(3), i(4)),
    "diff": lambda i: tw.diff(v, n=i(2)),
    "matrix_power": lambda i: tw.linalg.matrix_power(tw.eye(3) * 2, i(2)),
    "tensordot": lambda i: tw.tensordot(x, x, axes=(i(2), i(2))),
    "tensordot of axes": lambda i: tw.tensordot(tw.ones((2, 3)), tw.ones((3, 2)), axes=i(1)),
    "vmap": lambda i: tw.vmap(lambda a: a * 2, in_axes=i(0), out_axes=i(1))(x),
    "grad": lambda i: tw.grad(product, argnums=i(1))(v, v),
    "jacrev": lambda i: tw.jacrev(product, argnums=i(1))(v, v),
    "hessian": lambda i: tw.hessian(product, argnums=i(0))(v, v),
    "polygamma": lambda i: tw.special.polygamma(i(1), v + 1),
    "multigammaln": lambda i: tw.special.multigammaln(v + 5, i(2)),
    "window": lambda i: tw.signal.get_window("hann", i(8)),
    "layer_norm": lambda i: F.layer_norm(x, i(4)),
    "max_pool2d": lambda i: nn.MaxPool2d(i(2))(square),
    "LayerNorm": lambda i: nn.LayerNorm(i(4))(x),
    "RMSNorm": lambda i: nn.RMSNorm((i(4),))(x),
    "GroupNorm": lambda i: nn.GroupNorm(i(1), i(3))(square),
}
LAYERS: dict[str, Callable[[Any], nn.Module]] = {
    "Linear": lambda i: nn.Linear(i(3), i(4)),
    "Conv2d": lambda i: nn.Conv2d(i(3), i(4), i(3), stride=(i(2), i(1)), groups=i(1)),
    "LSTM": lambda i: nn.LSTM(i(3), i(4), i(2)),
    "GRU": lambda i: nn.GRU(i(3), i(4)),
    "Embedding": lambda i: nn.Embedding(i(3), i(4)),
    "BatchNorm1d": lambda i: nn.BatchNorm1d(i(3)),
    "MultiheadAttention": lambda i: nn.MultiheadAttention(i(4), i(2)),
}


@pytest.mark.parametrize("name", CALLS)
def test_integers_of_numpy_are_integers(name: str) -> None:
    np.testing.assert_array_equal(CALLS[name](np.int64).numpy(), CALLS[name](int).numpy())


@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_numpy_sizes(name: str) -> None:
    found, meant = LAYERS[name](np.int32), LAYERS[name](int)
    assert repr(found) == repr(meant)
    assert [p.shape for p in found.parameters()] == [p.shape for p in meant.parameters()]


def test_numbers_of_random_things() -> None:
    assert sorted(tw.random.permutation(np.int64(5)).tolist()) == list(range(5))
    assert tw.random.choice(np.int64(5), (np.int64(2),)).shape == (2,)
    assert tw.Dim("n", np.int64(1), np.int64(4)) == tw.Dim("n", 1, 4)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: tw.sum(x, axis=True),
        lambda: tw.softmax(x, axis=True),
        lambda: tw.zeros(True),
        lambda: tw.ones((2, True)),
        lambda: tw.reshape(v, (6, True)),
        lambda: tw.permute_dims(x, (False, 2, True)),
        lambda: tw.linspace(0, 1, True),
        lambda: tw.one_hot(tw.arange(2), True),
        lambda: tw.roll(v, True),
        lambda: tw.split(v, True),
        lambda: tw.diff(v, n=True),
        lambda: tw.linalg.matrix_power(tw.eye(3), True),
        lambda: tw.grad(product, argnums=True)(v, v),
        lambda: nn.MaxPool2d(True),
        lambda: nn.Conv2d(3, 4, 3.0),  # type: ignore[arg-type]
        lambda: nn.LayerNorm(True),
        lambda: nn.LSTM(3, 4, True),
        lambda: tw.set_num_threads(True),
        lambda: Trainer(nn.Linear(2, 1), F.mse_loss, None, epochs=True),  # type: ignore[arg-type]
        lambda: Trainer(nn.Linear(2, 1), F.mse_loss, None, batch=2.5),  # type: ignore[arg-type]
    ],
)
def test_a_truth_value_or_a_fraction_is_no_integer(wrong: Callable[[], Any]) -> None:
    with pytest.raises((TypeError, ValueError), match="integer"):
        wrong()


def test_the_number_of_threads() -> None:
    try:
        tw.set_num_threads(np.int64(2))  # type: ignore[arg-type]
        assert tw.get_num_threads() == 2 and type(tw.get_num_threads()) is int
    finally:
        tw.set_num_threads(None)
