"""Training steps: forward, cross-entropy, backward, Adam, on eight models. N is the batch; GPT has B, T, C.

The same steps without compilation are the suite "eager", and a whole epoch in one call is the suite "epoch".

The data is random with a fixed seed: the time of a step does not depend on what the images show. Every round
of a measurement starts again from the same parameters, so that no framework drifts into numbers that are
unusually small or large.
"""

import math
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np

from bench.cases.base import Arrays, Case, Training

BATCHES = 8
F32 = 4


def uniform(rng: np.random.Generator, fan_in: int, *shape: int) -> np.ndarray:
    """Draw what PyTorch's linear and convolution layers start from: U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""
    bound = 1.0 / math.sqrt(fan_in)
    return rng.uniform(-bound, bound, shape).astype(np.float32)


def linear(rng: np.random.Generator, name: str, k: int, n: int, bias: bool = True) -> Arrays:
    arrays = {f"{name}.weight": uniform(rng, k, n, k)}
    if bias:
        arrays[f"{name}.bias"] = uniform(rng, k, n)
    return arrays


def conv(rng: np.random.Generator, name: str, c: int, n: int, size: int, bias: bool = True) -> Arrays:
    fan_in = c * size * size
    arrays = {f"{name}.weight": uniform(rng, fan_in, n, c, size, size)}
    if bias:
        arrays[f"{name}.bias"] = uniform(rng, fan_in, n)
    return arrays


def ones_and_zeros(name: str, c: int) -> Arrays:
    return {f"{name}.weight": np.ones(c, np.float32), f"{name}.bias": np.zeros(c, np.float32)}


def images(
    rng: np.random.Generator, *shape: int, batches: int = BATCHES
) -> list[tuple[np.ndarray, np.ndarray]]:
    return [
        (rng.standard_normal(shape, np.float32), rng.integers(0, 10, shape[0]).astype(np.int64))
        for _ in range(batches)
    ]


def make_mlp(batch: int, widths: tuple[int, ...], batches: int = BATCHES) -> Training:
    """Linear layers of these widths with ReLU between, named 0, 2, 4, ... as in a PyTorch Sequential."""
    rng = np.random.default_rng(0)
    parameters: Arrays = {}
    for i, (k, n) in enumerate(pairwise(widths)):
        parameters |= linear(rng, f"{2 * i}", k, n)
    return Training(parameters, {}, images(rng, batch, widths[0], batches=batches))


def make_lenet(batch: int) -> Training:
    rng = np.random.default_rng(0)
    parameters = conv(rng, "0", 1, 6, 5) | conv(rng, "3", 6, 16, 5)
    parameters |= linear(rng, "7", 400, 120) | linear(rng, "9", 120, 84) | linear(rng, "11", 84, 10)
    return Training(parameters, {}, images(rng, batch, 1, 28, 28))


def make_cnn(batch: int) -> Training:
    rng = np.random.default_rng(0)
    parameters: Arrays = {}
    buffers: Arrays = {}
    for layer, (c, n) in zip((0, 4, 8), ((3, 32), (32, 64), (64, 128)), strict=True):
        parameters |= conv(
            rng, f"{layer}", c, n, 3, bias=False
        )  # the normalisation that follows has the bias
        parameters |= ones_and_zeros(f"{layer + 1}", n)
        buffers[f"{layer + 1}.running_mean"] = np.zeros(n, np.float32)
        buffers[f"{layer + 1}.running_var"] = np.ones(n, np.float32)
    parameters |= linear(rng, "13", 128 * 4 * 4, 10)
    return Training(parameters, buffers, images(rng, batch, 3, 32, 32))


def make_lstm(batch: int, steps: int, inputs: int, width: int) -> Training:
    """One layer over all steps; the last hidden state is classified. Gates in, forget, cell, out, as in PyTorch."""
    rng = np.random.default_rng(0)
    parameters = {
        "lstm.weight_ih_l0": uniform(rng, width, 4 * width, inputs),
        "lstm.weight_hh_l0": uniform(rng, width, 4 * width, width),
        "lstm.bias_ih_l0": uniform(rng, width, 4 * width),
        "lstm.bias_hh_l0": uniform(rng, width, 4 * width),
    }
    parameters |= linear(rng, "head", width, 10)
    return Training(parameters, {}, images(rng, batch, steps, inputs))


def make_gpt(
    batch: int, tokens: int, width: int, layers: int, vocabulary: int, heads: int, tied: bool = False
) -> Training:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return (0.02 * rng.standard_normal(shape)).astype(np.float32)

    parameters = {"tokens.weight": normal(vocabulary, width), "positions.weight": normal(tokens, width)}
    for i in range(layers):
        parameters |= ones_and_zeros(f"blocks.{i}.norm1", width)
        parameters |= linear(rng, f"blocks.{i}.qkv", width, 3 * width)
        parameters |= linear(rng, f"blocks.{i}.projection", width, width)
        parameters |= ones_and_zeros(f"blocks.{i}.norm2", width)
        parameters |= linear(rng, f"blocks.{i}.expand", width, 4 * width)
        parameters |= linear(rng, f"blocks.{i}.contract", 4 * width, width)
    parameters |= ones_and_zeros("norm", width)
    if not tied:  # else the head's weight is that of the token embedding
        parameters |= linear(rng, "head", width, vocabulary, bias=False)
    batches = []
    for _ in range(BATCHES):
        text = rng.integers(0, vocabulary, (batch, tokens + 1))
        batches.append((text[:, :-1].astype(np.int64), text[:, 1:].astype(np.int64)))
    return Training(parameters, {}, batches)


def step_flops(layers: list[float]) -> float:
    """Forward, weight gradient and input gradient of each contraction; the first layer has no input gradient.

    Args:
        layers: multiplications of each contraction's forward pass, in order.
    """
    return 2 * (3 * sum(layers) - layers[0])


def mlp_flops(batch: int, widths: tuple[int, ...]) -> float:
    return step_flops([float(batch) * k * n for k, n in pairwise(widths)])


def lenet_flops(batch: int) -> float:
    convolutions = [batch * 28 * 28 * 6 * 25.0, batch * 10 * 10 * 16 * 6 * 25.0]
    return step_flops([*convolutions, batch * 400 * 120.0, batch * 120 * 84.0, batch * 84 * 10.0])


def cnn_flops(batch: int) -> float:
    sizes = [(32, 3, 32), (16, 32, 64), (8, 64, 128)]
    convolutions = [batch * side * side * c * n * 9.0 for side, c, n in sizes]
    return step_flops([*convolutions, batch * 2048 * 10.0])


def lstm_flops(batch: int, steps: int, inputs: int, width: int) -> float:
    """The first step's input gradient is spared, like that of the inputs' share of the gates."""
    inner = 4.0 * batch * steps * width
    return 2 * (2 * inner * inputs + 3 * inner * width + 3 * 10.0 * batch * width)


def gpt_flops(
    batch: int, tokens: int, width: int, layers: int, vocabulary: int, heads: int, tied: bool = False
) -> float:
    """The embedding is a gather, so no contraction is spared its input gradient; causal scores count half."""
    rows = batch * tokens
    block = 12.0 * rows * width * width + 2.0 * batch * tokens * tokens * width / 2
    return 2 * 3 * (layers * block + rows * width * vocabulary)


MLP, MLP3 = (784, 128, 10), (784, 256, 128, 10)
LSTM = {"batch": 32, "steps": 64, "inputs": 128, "width": 128}
GPT = {"batch": 12, "tokens": 64, "width": 128, "layers": 4, "vocabulary": 65, "heads": 4}
GPT2 = {
    "batch": 1, "tokens": 256, "width": 768, "layers": 12, "vocabulary": 50257, "heads": 12, "tied": True
}  # fmt: skip


def mlp_step(batch: int, widths: tuple[int, ...]) -> Case:
    name = f"MLP {'-'.join(map(str, widths))}, N={batch}"
    make = partial(make_mlp, batch, widths)
    return Case(name, "training", "mlp", mlp_flops(batch, widths), 0.0, make, {"widths": widths})


CASES = [
    mlp_step(64, MLP),
    mlp_step(256, MLP),
    mlp_step(128, MLP3),
    Case("LeNet-5, N=64", "training", "lenet", lenet_flops(64), 0.0, partial(make_lenet, 64)),
    Case("CNN 3 conv + BN, 32x3x32x32", "training", "cnn", cnn_flops(32), 0.0, partial(make_cnn, 32)),
    Case("GPT 4x128, 12x64 tokens", "training", "gpt", gpt_flops(**GPT), 0.0, partial(make_gpt, **GPT), GPT),
    Case(
        "GPT-2 124M, 1x256 tokens",
        "training",
        "gpt",
        gpt_flops(**GPT2),
        0.0,
        partial(make_gpt, **GPT2),
        GPT2,
        skip={"torch": "torch-fused takes less time and memory"},
        slow=True,
        checked=2,
    ),
    Case(
        "LSTM 128, 64 steps, N=32",
        "training",
        "lstm",
        lstm_flops(**LSTM),
        0.0,
        partial(make_lstm, **LSTM),
        LSTM,
    ),
]
EAGER = [replace(case, suite="eager") for case in CASES if case.kind in ("mlp", "lenet")]
EPOCH_SAMPLES = 60_000
EPOCH = [
    Case(
        "epoch of 60,000, MLP 784-128-10, N=256",
        "epoch",
        "mlp",
        mlp_flops(EPOCH_SAMPLES // 256 * 256, MLP),
        F32 * EPOCH_SAMPLES * 784,
        partial(make_mlp, EPOCH_SAMPLES, MLP, batches=1),
        {"widths": MLP, "batch": 256},
        checked=1,
    )
]
