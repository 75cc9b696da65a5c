"""Small training steps whose stages many tests look at: an MLP, a CNN with batch norm, one GPT block.

``step(name)`` gives the jitted step and its arguments; every call builds the model anew from one seed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import tilewright as tw
import tilewright.nn.functional as F
from tilewright import nn, optim

Step = tuple[Any, tuple[tw.Tensor, tw.Tensor]]


class Block(nn.Module):
    """Embedding, causal self-attention and a gated unit, each with a residual, and a head over the vocabulary."""

    def __init__(self, vocabulary: int = 11, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Embedding(vocabulary, width)
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: tw.Tensor) -> tw.Tensor:
        x = self.embed(tokens)
        b, t, c = x.shape
        parts = self.qkv(self.norm1(x)).reshape((b, t, 3, self.heads, c // self.heads))
        q, k, v = (parts[:, :, n].permute_dims((0, 2, 1, 3)) for n in range(3))
        scores = (q @ k.permute_dims((0, 1, 3, 2))) / float(np.sqrt(c // self.heads))
        past = tw.tril(tw.ones((t, t))) > 0
        weights = F.softmax(tw.where(past, scores, -1e9), -1)
        mixed = (weights @ v).permute_dims((0, 2, 1, 3)).reshape((b, t, c))
        x = x + self.out(mixed)
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        return self.head(x)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 5))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(24, 5),
    )  # fmt: skip


def _mlp_data(rng: np.random.Generator) -> tuple[Any, Any]:
    return rng.standard_normal((8, 20)).astype(np.float32), rng.integers(0, 5, 8)


def _cnn_data(rng: np.random.Generator) -> tuple[Any, Any]:
    return rng.standard_normal((3, 1, 8, 8)).astype(np.float32), rng.integers(0, 5, 3)


def _gpt_data(rng: np.random.Generator) -> tuple[Any, Any]:
    tokens = rng.integers(0, 11, (2, 7))
    return tokens[:, :-1].copy(), tokens[:, 1:].copy()


def _sgd(parameters: Any) -> optim.Optimizer:
    return optim.SGD(parameters, lr=0.1, momentum=0.9)


def _adam(parameters: Any) -> optim.Optimizer:
    return optim.AdamW(parameters, lr=1e-2)


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[..., Any], Callable[..., Any]]] = {
    "mlp": (mlp, _mlp_data, _sgd),
    "cnn": (cnn, _cnn_data, _adam),
    "gpt": (Block, _gpt_data, _adam),
}


def step(name: str) -> Step:
    """The jitted training step of a model, and a batch."""
    build, data, make_optimizer = MODELS[name]
    tw.manual_seed(0)
    model = build()
    optimizer = make_optimizer(model.parameters())
    x, y = (tw.tensor(a) for a in data(np.random.default_rng(0)))

    @tw.jit
    def train(x: tw.Tensor, y: tw.Tensor) -> tw.Tensor:
        optimizer.zero_grad()
        logits = model(x)
        loss = F.cross_entropy(logits.reshape((-1, logits.shape[-1])), y.reshape((-1,)))
        loss.backward()
        optimizer.step()
        return loss

    train(x, y)  # the optimizer's state exists from here on
    return train, (x, y)
