"""Tilewright: the whole step under @tw.jit, or the same step without it."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

import tilewright as tw
import tilewright.nn.functional as F
from bench.cases.base import CHECKED_STEPS, Arrays, Case, Training
from bench.cases.kernels import kernel_fingerprint
from bench.frameworks import Runner
from tilewright import nn, optim

Tensor = Any


class Block(nn.Module):
    """A pre-norm transformer block. (B, T, C) -> (B, T, C)"""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.expand, self.contract = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        qkv = tw.reshape(self.qkv(self.norm1(x)), (b, t, 3, self.heads, c // self.heads))
        q, k, v = (tw.permute_dims(qkv[:, :, i], (0, 2, 1, 3)) for i in range(3))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.projection(tw.reshape(tw.permute_dims(mixed, (0, 2, 1, 3)), (b, t, c)))
        return x + self.contract(F.gelu(self.expand(self.norm2(x))))


class GPT(nn.Module):
    """Token and position embeddings, blocks, a final norm, logits. (B, T) -> (B, T, vocabulary)"""

    def __init__(self, tokens: int, width: int, layers: int, vocabulary: int, heads: int = 4) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(tokens, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        return self.head(self.norm(self.blocks(x)))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def lenet() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


def cnn() -> nn.Module:
    layers: list[nn.Module] = []
    for c, n in ((3, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(c, n, 3, padding=1, bias=False), nn.BatchNorm2d(n), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(2048, 10))


def gpt(batch: int, tokens: int, width: int, layers: int, vocabulary: int) -> nn.Module:
    return GPT(tokens, width, layers, vocabulary)


MODELS: dict[str, Callable[..., nn.Module]] = {"mlp": mlp, "lenet": lenet, "cnn": cnn, "gpt": gpt}


def snapshot(state_dict: dict[str, Any]) -> dict[str, Any]:
    """Copy an optimizer's state, whose tensors are its own and change with every step."""
    state = {
        index: {name: tensor.numpy().copy() for name, tensor in entries.items()}
        for index, entries in state_dict["state"].items()
    }
    return {"state": state, "param_groups": state_dict["param_groups"]}


class TrainingRunner:
    """One Adam step after another over the case's batches."""

    def __init__(self, case: Case, mode: str) -> None:
        self.data: Training = case.make()
        self.model = MODELS[case.kind](**case.options)
        self.optimizer = optim.Adam(self.model.parameters(), lr=self.data.lr)
        self.batches = [(tw.asarray(x), tw.asarray(y.reshape(-1))) for x, y in self.data.batches]
        self.step = tw.jit(self.step_of) if mode == "jit" else self.step_of
        self.fresh_optimizer = snapshot(self.optimizer.state_dict())
        self.reset()

    def step_of(self, x: Tensor, y: Tensor) -> Tensor:
        self.optimizer.zero_grad()
        logits = self.model(x)
        loss = F.cross_entropy(tw.reshape(logits, (-1, logits.shape[-1])), y)
        loss.backward()
        self.optimizer.step()
        return loss

    def reset(self) -> None:
        self.model.load_state_dict(self.data.parameters | self.data.buffers, strict=False)
        self.optimizer.load_state_dict(self.fresh_optimizer)
        self.order = itertools.cycle(self.batches)

    def run(self) -> float:
        return float(self.step(*next(self.order)).item())

    def fingerprint(self) -> list[float]:
        self.reset()
        return [self.run() for _ in range(CHECKED_STEPS)]


def chain(x: Tensor) -> Tensor:
    for _ in range(5):
        x = tw.tanh(x * 1.1 + 0.3) - 0.2
    return x


def kernel_matmul(ta: bool = False, tb: bool = False) -> Callable[..., Tensor]:
    return lambda a, b: tw.matmul(tw.matrix_transpose(a) if ta else a, tw.matrix_transpose(b) if tb else b)


KERNELS: dict[str, Callable[..., Callable[..., Tensor]]] = {
    "matmul": kernel_matmul,
    "linear_relu": lambda: lambda x, w, b: F.relu(F.linear(x, w, b)),
    "linear_gelu": lambda: lambda x, w, b: F.gelu(F.linear(x, w, b)),
    "mlp_block": lambda: lambda x, w1, b1, w2, b2: F.linear(F.gelu(F.linear(x, w1, b1)), w2, b2),
    "conv2d": lambda **options: lambda x, w: F.conv2d(x, w, **options),
    "softmax": lambda: lambda x: F.softmax(x, -1),
    "layer_norm": lambda: lambda x, w, b: F.layer_norm(x, x.shape[-1:], w, b),
    "batch_norm": lambda: lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
    "cross_entropy": lambda: F.cross_entropy,
    "gelu": lambda: F.gelu,
    "exp": lambda: tw.exp,
    "add": lambda: tw.add,
    "chain": lambda: chain,
    "sum": lambda axis: lambda x: tw.sum(x, axis=axis),
    "argmax": lambda axis: lambda x: tw.argmax(x, axis=axis),
    "attention": lambda causal: lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal),
}


class KernelRunner:
    """One operation on fixed operands, compiled with tw.jit; `backward` as in the PyTorch runner."""

    def __init__(self, case: Case, mode: str) -> None:
        arrays: Arrays = case.make()
        dtype = {"bf16": tw.bfloat16, "f32": tw.float32}[case.options.get("dtype", "f32")]
        self.operands = [
            tw.asarray(array).astype(dtype).realize() if array.dtype == np.float32 else tw.asarray(array)
            for array in arrays.values()
        ]
        options = {k: v for k, v in case.options.items() if k not in ("backward", "dtype")}
        call = KERNELS[case.kind](**options)
        if case.options.get("backward"):
            call = self.gradient_of(call)
        self.call = tw.jit(call) if mode == "jit" else call

    @staticmethod
    def gradient_of(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def both(*operands: Tensor) -> tuple[Tensor, ...]:
            leaves = [o.detach() for o in operands]
            wanted = [leaf.requires_grad_() for leaf in leaves if leaf.dtype in (tw.float32, tw.bfloat16)]
            result = forward(*leaves)
            result.backward(result.detach())
            return (result.detach(), *(leaf.grad for leaf in wanted))

        return both

    def reset(self) -> None:
        pass

    def run(self) -> object:
        result = self.call(*self.operands)
        for output in result if isinstance(result, tuple) else (result,):
            output.realize()
        return result

    def fingerprint(self) -> list[float]:
        result = self.run()
        outputs = result if isinstance(result, tuple) else (result,)
        return kernel_fingerprint([np.asarray(output.numpy(), np.float64) for output in outputs])


def prepare(case: Case, mode: str) -> Runner:
    return TrainingRunner(case, mode) if case.suite == "training" else KernelRunner(case, mode)
