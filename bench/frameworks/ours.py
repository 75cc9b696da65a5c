"""Tilewright: the whole step under @tw.jit, or the same step without it."""

import itertools
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

import tilewright as tw
import tilewright.nn.functional as F
from bench.cases.base import Arrays, Case, Training
from bench.cases.kernels import kernel_fingerprint
from bench.frameworks import Runner
from tilewright import nn, optim
from tilewright.graph.ir import topological
from tilewright.lower.read import REWRITES

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

    def __init__(self, tokens: int, width: int, layers: int, vocabulary: int, heads: int, tied: bool) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(tokens, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = None if tied else nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        x = self.norm(self.blocks(x))
        return F.linear(x, self.tokens.weight) if self.head is None else self.head(x)


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


def snapshot(state_dict: dict[str, Any]) -> dict[str, Any]:
    """Copy an optimizer's state, whose tensors are its own and change with every step. Its zeros take up no memory."""
    state = {
        index: {name: compact(tensor.numpy()) for name, tensor in entries.items()}
        for index, entries in state_dict["state"].items()
    }
    return {"state": state, "param_groups": state_dict["param_groups"]}


def compact(array: np.ndarray) -> np.ndarray:
    """A copy, of one element where all are equal."""
    first = array.reshape(-1)[:1]
    return np.broadcast_to(first[0].copy(), array.shape) if np.all(array == first) else array.copy()


class TrainingRunner:
    """One Adam step after another over the case's batches."""

    def __init__(self, case: Case, mode: str) -> None:
        self.data: Training = case.make()
        self.checked = case.checked
        self.model = MODELS[case.kind](**case.options)
        self.optimizer = optim.Adam(self.model.parameters(), lr=self.data.lr)
        self.batches = [(tw.asarray(x), tw.asarray(y.reshape(-1))) for x, y in self.data.batches]
        self.step = tw.jit(self.step_of) if mode == "jit" else self.step_of
        self.fresh_optimizer = snapshot(self.optimizer.state_dict())
        self.reset()

    def memory(self) -> dict[str, int]:
        """Bytes of the compiled step's arena, of the values that are stored in it, and of all tensors that the step computes.

        The last is what a framework holds that gives every operation's result memory of its own; what only moves
        elements (reshapes, broadcasts, slices) counts as a view.
        """
        executable = self.step.executable(*self.batches[0])
        plan = executable.schedule
        views = {"input", "constant", "iota", "stop_gradient", "mark", "barrier", *REWRITES}
        tensors = (v for v in topological(executable.final) if v.op not in views)
        return {
            "arena_bytes": plan.arena_bytes,
            "stored_bytes": plan.planned_bytes,
            "tensor_bytes": sum(v.type.size * v.dtype.itemsize for v in tensors),
        }

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
        return [self.run() for _ in range(self.checked)]


class EpochRunner(TrainingRunner):
    """All samples once, in an order drawn anew, the data held in one tensor: one call of one compiled program.

    Returns the mean loss.
    """

    def __init__(self, case: Case, mode: str) -> None:
        super().__init__(case, "eager")
        (self.x, self.y), self.batch = self.batches[0], case.options["batch"]
        self.epoch = tw.jit(self.epoch_of)
        self.shuffled = True

    def epoch_of(self, x: Tensor, y: Tensor, shuffled: bool) -> Tensor:
        count = x.shape[0]
        order = tw.random.permutation(count) if shuffled else tw.arange(count)
        batches = tw.reshape(order[: count // self.batch * self.batch], (-1, self.batch))

        def step(total: Tensor, rows: Tensor) -> tuple[Tensor, None]:
            return total + self.step_of(x[rows], y[rows]).detach(), None

        total, _ = tw.scan(step, tw.tensor(0.0), batches)
        return total / batches.shape[0]

    def run(self) -> float:
        return float(self.epoch(self.x, self.y, self.shuffled).item())

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
        data: Training = case.make()
        model = MODELS[case.kind](**case.options).eval()
        model.load_state_dict(data.parameters | data.buffers, strict=False)
        self.inputs = [tw.asarray(x) for x, _ in data.batches]
        self.call = tw.jit(model) if mode == "jit" else model
        self.reset()

    def reset(self) -> None:
        self.order = itertools.cycle(self.inputs)

    def run(self) -> np.ndarray:
        with tw.no_grad():
            return self.call(next(self.order)).numpy()

    def fingerprint(self) -> list[float]:
        self.reset()
        return kernel_fingerprint([self.run()])


def chain(x: Tensor) -> Tensor:
    for _ in range(5):
        x = tw.tanh(x * 1.1 + 0.3) - 0.2
    return x


def kernel_matmul(ta: bool = False, tb: bool = False) -> Callable[..., Tensor]:
    return lambda a, b: tw.matmul(tw.matrix_transpose(a) if ta else a, tw.matrix_transpose(b) if tb else b)


def int_matmul(ta: bool = False, tb: bool = False) -> Callable[..., Tensor]:
    """int8 operands, int32 sums."""
    return lambda a, b: tw.matmul(
        tw.matrix_transpose(a) if ta else a, tw.matrix_transpose(b) if tb else b, dtype=tw.int32
    )


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
    **{
        name: partial(lambda f: f, getattr(tw, name))
        for name in ("log", "tanh", "erf", "sin", "cos", "tan", "pow")
    },
}


class KernelRunner:
    """One operation on fixed operands, compiled with tw.jit; `backward` as in the PyTorch runner."""

    def __init__(self, case: Case, mode: str) -> None:
        arrays: Arrays = case.make()
        options = dict(case.options)
        dtype, backward = options.pop("dtype", "f32"), options.pop("backward", "")
        self.operands = [tw.asarray(array) for array in arrays.values()]
        if dtype == "bf16":
            self.operands = [o.astype(tw.bfloat16).realize() for o in self.operands]
        call = int_matmul(**options) if dtype == "int8" else KERNELS[case.kind](**options)
        if backward:
            call = self.gradient_of(call, None if backward == "all" else "xw".index(backward))
        self.call = tw.jit(call) if mode == "jit" else call

    @staticmethod
    def gradient_of(forward: Callable[..., Tensor], only: int | None) -> Callable[..., Tensor]:
        """The result and the gradients of all float operands, or the gradient of one operand alone."""

        def both(*operands: Tensor) -> tuple[Tensor, ...]:
            *leaves, gradient = (o.detach() for o in operands)
            chosen = range(len(leaves)) if only is None else (only,)
            wanted = [leaves[i].requires_grad_() for i in chosen if leaves[i].dtype is tw.float32]
            result = forward(*leaves)
            result.backward(gradient)
            gradients = tuple(leaf.grad for leaf in wanted)
            return gradients if only is not None else (result.detach(), *gradients)

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


RUNNERS: dict[str, Callable[[Case, str], Runner]] = {
    "kernels": KernelRunner,
    "training": TrainingRunner,
    "eager": TrainingRunner,
    "inference": InferenceRunner,
    "epoch": EpochRunner,
}


def prepare(case: Case, mode: str) -> Runner:
    return RUNNERS[case.suite](case, mode)
