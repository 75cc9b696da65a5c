"""PyTorch: eager with the optimizer's defaults, eager with the fused optimizer, and torch.compile."""

import itertools
import os
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.cases.base import Arrays, Case, Training
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

    def __init__(self, tokens: int, width: int, layers: int, vocabulary: int, heads: int, tied: bool) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(tokens, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        return self.head(self.norm(self.blocks(x)))


class LSTM(nn.Module):
    """One layer over all steps, its last hidden state classified. (B, T, I) -> (B, 10)"""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, width, batch_first=True)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


def mlp(widths: tuple[int, ...], **_: int) -> nn.Module:
    layers = [nn.Linear(k, n) for k, n in pairwise(widths)]
    return nn.Sequential(*(part for layer in layers[:-1] for part in (layer, nn.ReLU())), layers[-1])


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


def gpt(
    batch: int, tokens: int, width: int, layers: int, vocabulary: int, heads: int, tied: bool = False
) -> nn.Module:
    return GPT(tokens, width, layers, vocabulary, heads, tied)


def lstm(batch: int, steps: int, inputs: int, width: int) -> nn.Module:
    return LSTM(inputs, width)


MODELS: dict[str, Callable[..., nn.Module]] = {
    "mlp": mlp,
    "lenet": lenet,
    "cnn": cnn,
    "gpt": gpt,
    "lstm": lstm,
}


def load(model: nn.Module, data: Training) -> None:
    state = {name: torch.from_numpy(array) for name, array in (data.parameters | data.buffers).items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    known = ("num_batches_tracked", "head.weight")  # a tied head has the embedding's weight
    assert not unexpected and all(name.endswith(known) for name in missing), missing


class TrainingRunner:
    """One Adam step after another over the case's batches."""

    def __init__(self, case: Case, mode: str) -> None:
        self.data: Training = case.make()
        self.checked = case.checked
        self.model = MODELS[case.kind](**case.options)
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
        load(self.model, self.data)
        for state in self.optimizer.state.values():
            for value in state.values():
                value.zero_()
        self.order = itertools.cycle(self.batches)

    def run(self) -> float:
        return self.step(*next(self.order)).item()

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        self.optimizer.zero_grad()
        loss = self.loss(x, y)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def fingerprint(self) -> list[float]:
        self.reset()
        return [self.run() for _ in range(self.checked)]


class EpochRunner(TrainingRunner):
    """All samples once, in an order drawn anew, the data held in one tensor; returns the mean loss."""

    def __init__(self, case: Case, mode: str) -> None:
        super().__init__(case, mode)
        (self.x, self.y), self.batch = self.batches[0], case.options["batch"]
        self.shuffled = True

    def run(self) -> float:
        order = torch.randperm(len(self.x)) if self.shuffled else torch.arange(len(self.x))
        batches = order[: len(order) // self.batch * self.batch].view(-1, self.batch)
        total = torch.zeros(())
        for rows in batches:
            total += self.step(self.x[rows], self.y[rows])
        return total.item() / len(batches)

    def fingerprint(self) -> list[float]:
        """The mean loss of an epoch in the samples' own order, which every framework can repeat."""
        self.reset()
        self.shuffled = False
        loss = self.run()
        self.shuffled = True
        return [loss]


class InferenceRunner:
    """The model's logits, batch after batch."""

    def __init__(self, case: Case, mode: str) -> None:
        if mode == "fused":
            raise Unsupported("a mode of the optimizer")
        data: Training = case.make()
        model = MODELS[case.kind](**case.options).eval()
        load(model, data)
        self.inputs = [torch.from_numpy(x) for x, _ in data.batches]
        self.call = torch.compile(model) if mode == "compile" else model
        self.reset()

    def reset(self) -> None:
        self.order = itertools.cycle(self.inputs)

    def run(self) -> np.ndarray:
        with torch.inference_mode():
            return self.call(next(self.order)).numpy()

    def fingerprint(self) -> list[float]:
        self.reset()
        return kernel_fingerprint([self.run()])


def softmax_cross_entropy(x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(x, y)


def chain(x: Tensor) -> Tensor:
    for _ in range(5):
        x = torch.tanh(x * 1.1 + 0.3) - 0.2
    return x


class Gradient:
    """A function with the gradients of its float operands; the last operand is the gradient of its result."""

    def __init__(self, forward: Callable[..., Tensor], operands: list[Tensor]) -> None:
        self.forward = forward
        self.leaves = [o.detach().requires_grad_() if o.is_floating_point() else o for o in operands[:-1]]
        self.wanted = [leaf for leaf in self.leaves if leaf.requires_grad]

    def __call__(self, *operands: Tensor) -> tuple[Tensor, ...]:
        result = self.forward(*self.leaves)
        return (result.detach(), *torch.autograd.grad(result, self.wanted, operands[-1]))


def conv2d_gradient(wrt: str, stride: int = 1, padding: int = 0, groups: int = 1) -> Callable[..., Tensor]:
    """Of a convolution with respect to one operand, alone."""
    two, mask, at = [stride] * 2, [wrt == "x", wrt == "w", False], "xw".index(wrt)

    def call(x: Tensor, w: Tensor, g: Tensor) -> Tensor:
        return torch.ops.aten.convolution_backward(
            g, x, w, None, two, [padding] * 2, [1, 1], False, [0, 0], groups, mask
        )[at]

    return call


def int_mm(ta: bool = False, tb: bool = False) -> Callable[..., Tensor]:
    """int8 operands, int32 sums, through oneDNN."""
    return lambda a, b: torch._int_mm(a.mT if ta else a, b.mT if tb else b)


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
    **{
        name: partial(lambda f: f, getattr(torch, name))
        for name in ("log", "tanh", "erf", "sin", "cos", "tan", "pow")
    },
}


class KernelRunner:
    """One operation on fixed operands."""

    def __init__(self, case: Case, mode: str) -> None:
        if mode == "fused":
            raise Unsupported("a mode of the optimizer")
        arrays: Arrays = case.make()
        options = dict(case.options)
        dtype, backward = options.pop("dtype", "f32"), options.pop("backward", "")
        self.operands = [torch.from_numpy(array) for array in arrays.values()]
        if dtype == "bf16":
            self.operands = [o.bfloat16() for o in self.operands]
        if backward in ("x", "w"):
            self.call: Callable[..., object] = conv2d_gradient(backward, **options)
        else:
            call = int_mm(**options) if dtype == "int8" else KERNELS[case.kind](**options)
            if mode == "compile":
                call = torch.compile(call)
            self.call = Gradient(call, self.operands) if backward else call

    def reset(self) -> None:
        pass

    def run(self) -> object:
        return self.call(*self.operands)

    def fingerprint(self) -> list[float]:
        result = self.run()
        outputs = result if isinstance(result, tuple) else (result,)
        return kernel_fingerprint([o.double().numpy() for o in outputs])


RUNNERS: dict[str, Callable[[Case, str], Runner]] = {
    "kernels": KernelRunner,
    "training": TrainingRunner,
    "eager": TrainingRunner,
    "inference": InferenceRunner,
    "epoch": EpochRunner,
}


def prepare(case: Case, mode: str) -> Runner:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    return RUNNERS[case.suite](case, mode)
