"""PyTorch: eager with the optimizer's defaults, eager with the fused optimizer, and torch.compile."""

import itertools
import os
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.cases.base import CHECKED_STEPS, Arrays, Case, Training
from bench.cases.kernels import kernel_fingerprint
from bench.frameworks import Runner, Unsupported


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
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.projection(mixed.transpose(1, 2).reshape(b, t, c))
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


class TrainingRunner:
    """One Adam step after another over the case's batches."""

    def __init__(self, case: Case, mode: str) -> None:
        self.data: Training = case.make()
        self.model = MODELS[case.kind](**case.options)
        self.state = {
            name: torch.from_numpy(array)
            for name, array in (self.data.parameters | self.data.buffers).items()
        }
        fused = {"fused": True} if mode != "eager" else {}
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=self.data.lr, **fused)
        self.batches = [(torch.from_numpy(x), torch.from_numpy(y).flatten()) for x, y in self.data.batches]
        self.loss: Callable[[Tensor, Tensor], Tensor] = self.loss_of
        if mode == "compile":
            self.loss = torch.compile(self.loss_of)
        self.reset()

    def loss_of(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.model(x).flatten(0, -2), y)

    def reset(self) -> None:
        missing, unexpected = self.model.load_state_dict(self.state, strict=False)
        assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing), missing
        for state in self.optimizer.state.values():
            for value in state.values():
                value.zero_()
        self.order = itertools.cycle(self.batches)

    def run(self) -> float:
        x, y = next(self.order)
        self.optimizer.zero_grad()
        loss = self.loss(x, y)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def fingerprint(self) -> list[float]:
        self.reset()
        return [self.run() for _ in range(CHECKED_STEPS)]


def softmax_cross_entropy(x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(x, y)


def chain(x: Tensor) -> Tensor:
    for _ in range(5):
        x = torch.tanh(x * 1.1 + 0.3) - 0.2
    return x


def gradient_of(forward: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, ...]]:
    """Turn `forward` into a function that also computes the gradients of its float operands.

    The gradient that flows in is the result itself, as if the loss were half the sum of its squares.
    """

    def both(*operands: Tensor) -> tuple[Tensor, ...]:
        leaves = [o.detach().requires_grad_() if o.is_floating_point() else o for o in operands]
        result = forward(*leaves)
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        return (result.detach(), *torch.autograd.grad(result, wanted, result.detach()))

    return both


KERNELS: dict[str, Callable[..., Callable[..., Tensor]]] = {
    "matmul": lambda ta=False, tb=False: lambda a, b: (a.mT if ta else a) @ (b.mT if tb else b),
    "linear_relu": lambda: lambda x, w, b: F.relu(F.linear(x, w, b)),
    "linear_gelu": lambda: lambda x, w, b: F.gelu(F.linear(x, w, b)),
    "mlp_block": lambda: lambda x, w1, b1, w2, b2: F.linear(F.gelu(F.linear(x, w1, b1)), w2, b2),
    "conv2d": lambda **options: lambda x, w: F.conv2d(x, w, **options),
    "softmax": lambda: lambda x: torch.softmax(x, -1),
    "layer_norm": lambda: lambda x, w, b: F.layer_norm(x, x.shape[-1:], w, b),
    "batch_norm": lambda: lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
    "cross_entropy": lambda: softmax_cross_entropy,
    "gelu": lambda: F.gelu,
    "exp": lambda: torch.exp,
    "add": lambda: torch.add,
    "chain": lambda: chain,
    "sum": lambda axis: lambda x: torch.sum(x, axis),
    "argmax": lambda axis: lambda x: torch.argmax(x, axis),
    "attention": lambda causal: lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal),
}


class KernelRunner:
    """One operation on fixed operands."""

    def __init__(self, case: Case, mode: str) -> None:
        if mode == "fused":
            raise Unsupported("a mode of the optimizer")
        arrays: Arrays = case.make()
        dtype = {"bf16": torch.bfloat16, "f32": torch.float32}[case.options.get("dtype", "f32")]
        self.operands = [
            torch.from_numpy(array).to(dtype) if array.dtype == np.float32 else torch.from_numpy(array)
            for array in arrays.values()
        ]
        options = {k: v for k, v in case.options.items() if k not in ("backward", "dtype")}
        call = KERNELS[case.kind](**options)
        self.call: Callable[..., object] = gradient_of(call) if case.options.get("backward") else call
        if mode == "compile":
            self.call = torch.compile(self.call)

    def reset(self) -> None:
        pass

    def run(self) -> object:
        return self.call(*self.operands)

    def fingerprint(self) -> list[float]:
        result = self.run()
        outputs = result if isinstance(result, tuple) else (result,)
        return kernel_fingerprint([o.double().numpy() for o in outputs])


def prepare(case: Case, mode: str) -> Runner:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    return TrainingRunner(case, mode) if case.suite == "training" else KernelRunner(case, mode)
