"""Single operations, at the sizes where users meet them: contractions, convolutions, row programs, attention.

`backward` cases compute the result and the gradients of every float operand; the gradient that flows in is
the result itself, as if the loss were half the sum of its squares.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from bench.cases.base import Arrays, Case

F32 = 4


def draw(shapes: dict[str, tuple[int, ...]], scale: float = 1.0) -> Arrays:
    rng = np.random.default_rng(0)
    return {name: (scale * rng.standard_normal(s)).astype(np.float32) for name, s in shapes.items()}


def kernel_fingerprint(outputs: Sequence[np.ndarray]) -> list[float]:
    """Sum up float64 outputs as numbers that a wrong element, order or axis would change.

    Each output gives its mean, its root mean square, and a weighted sum whose weights differ from element to
    element, scaled so that all three are of the outputs' size.
    """
    numbers = []
    for output in outputs:
        flat = np.asarray(output, np.float64).ravel()
        weights = np.cos(np.arange(flat.size))
        numbers += [flat.mean(), math.sqrt((flat**2).mean()), (flat * weights).sum() / math.sqrt(flat.size)]
    return [float(number) for number in numbers]


def matmul(m: int, n: int, k: int, batch: tuple[int, ...] = (), ta: bool = False, tb: bool = False) -> Case:
    """C[M, N] = A[M, K] B[K, N], with operands stored transposed where `ta` or `tb` says so."""
    shapes = {"a": (*batch, k, m) if ta else (*batch, m, k), "b": (*batch, n, k) if tb else (*batch, k, n)}
    count = math.prod(batch)
    name = "x".join(map(str, (*batch, m, k, n))) + (" T" if ta or tb else "") + "a" * ta + "b" * tb
    return Case(
        f"matmul {name}",
        "kernels",
        "matmul",
        2.0 * count * m * n * k,
        F32 * count * (m * k + k * n + m * n),
        partial(draw, shapes),
        {"ta": ta, "tb": tb} if ta or tb else {},
    )


def linear(kind: str, m: int, k: int, n: int) -> Case:
    shapes = {"x": (m, k), "w": (n, k), "b": (n,)}
    nbytes = F32 * (m * k + k * n + m * n)
    return Case(f"{kind} {m}x{k}->{n}", "kernels", kind, 2.0 * m * n * k, nbytes, partial(draw, shapes, 0.1))


def mlp_block(m: int, width: int, hidden: int) -> Case:
    shapes = {"x": (m, width), "w1": (hidden, width), "b1": (hidden,), "w2": (width, hidden), "b2": (width,)}
    nbytes = F32 * (2 * m * width + 2 * width * hidden)
    name = f"MLP block {m}x{width}->{hidden}->{width}"
    return Case(name, "kernels", "mlp_block", 4.0 * m * width * hidden, nbytes, partial(draw, shapes, 0.1))


def conv2d(
    x: tuple[int, int, int, int],
    n: int,
    size: int,
    backward: bool,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
) -> Case:
    b, c, h, w = x
    oh, ow = ((side + 2 * padding - size) // stride + 1 for side in (h, w))
    macs = b * n * oh * ow * (c // groups) * size * size
    extra: dict[str, Any] = {"stride": stride} if stride > 1 else {}
    if padding:
        extra["padding"] = padding
    if groups > 1:
        extra["groups"] = groups
    name = (
        f"conv2d {b}x{c}x{h}x{w}->{n} k{size}" + f" s{stride}" * (stride > 1) + f" g{groups}" * (groups > 1)
    )
    nbytes = F32 * (b * c * h * w + b * n * oh * ow + n * (c // groups) * size * size)
    shapes = {"x": x, "w": (n, c // groups, size, size)}
    return with_backward(
        name, "conv2d", 2.0 * macs, nbytes, shapes, extra, backward, flops_factor=3.0, bytes_factor=3.0
    )


def with_backward(
    name: str,
    kind: str,
    flops: float,
    nbytes: float,
    shapes: dict[str, tuple[int, ...]],
    options: dict[str, Any],
    backward: bool,
    flops_factor: float,
    bytes_factor: float,
) -> Case:
    if backward:
        options = options | {"backward": True}
        name, flops, nbytes = name + " fwd+bwd", flops * flops_factor, nbytes * bytes_factor
    return Case(name, "kernels", kind, flops, nbytes, partial(draw, shapes), options)


def rows(kind: str, m: int, n: int, backward: bool = False, **options: Any) -> Case:
    """A program over the rows of (M, N): reads once, writes once; backward reads twice, writes once."""
    shapes: dict[str, tuple[int, ...]] = {"x": (m, n)}
    if kind == "layer_norm":
        shapes |= {"w": (n,), "b": (n,)}
    elif kind == "add":
        shapes |= {"y": (m, n)}
    moved = {"add": 3, "sum": 1, "argmax": 1}.get(kind, 2)
    suffix = "".join(f" {key}={value}" for key, value in options.items())
    name = f"{kind} {m}x{n}{suffix}"
    return with_backward(name, kind, 0.0, F32 * m * n * moved, shapes, options, backward, 1.0, 2.0)


def batch_norm(b: int, c: int, h: int, w: int, backward: bool) -> Case:
    shapes = {"x": (b, c, h, w), "w": (c,), "b": (c,)}
    nbytes = F32 * b * c * h * w * 2
    return with_backward(
        f"batch_norm {b}x{c}x{h}x{w}", "batch_norm", 0.0, nbytes, shapes, {}, backward, 1.0, 2.0
    )


def make_cross_entropy(m: int, n: int) -> Arrays:
    rng = np.random.default_rng(0)
    return {
        "x": rng.standard_normal((m, n)).astype(np.float32),
        "y": rng.integers(0, n, m).astype(np.int64),
    }


def cross_entropy(m: int, n: int, backward: bool) -> Case:
    name = f"cross_entropy {m}x{n}" + " fwd+bwd" * backward
    nbytes = F32 * m * n * (2 if backward else 1)
    options = {"backward": True} if backward else {}
    return Case(name, "kernels", "cross_entropy", 0.0, nbytes, partial(make_cross_entropy, m, n), options)


def attention(heads: int, tokens: int, width: int, causal: bool, backward: bool) -> Case:
    shape = (1, heads, tokens, width)
    flops = 4.0 * heads * tokens * tokens * width / (2 if causal else 1)
    return with_backward(
        f"attention {heads}x{tokens}x{width}" + " causal" * causal,
        "attention",
        flops,
        F32 * 4 * heads * tokens * width,
        {"q": shape, "k": shape, "v": shape},
        {"causal": causal},
        backward,
        flops_factor=3.5,  # five contractions backward, one of them recomputed scores, against two forward
        bytes_factor=2.0,
    )


GEMM = [
    *(matmul(s, s, s) for s in (64, 128, 256, 512, 1024, 2048)),
    matmul(128, 64, 256),
    matmul(256, 256, 64),
    matmul(64, 2048, 2048),
    matmul(12, 3072, 768),
    matmul(1, 4096, 1024),
    matmul(256, 10, 128),
    matmul(64, 64, 64, batch=(12,)),
    *(matmul(512, 512, 512, ta=ta, tb=tb) for ta, tb in ((True, False), (False, True), (True, True))),
]
LINEAR = [
    linear("linear_relu", 256, 784, 128),
    linear("linear_gelu", 768, 128, 512),
    linear("linear_gelu", 64, 2048, 8192),
    mlp_block(64, 2048, 8192),
]
CONV = [
    conv2d(x, n, size, backward, **options)
    for x, n, size, options in (
        ((1, 3, 64, 64), 32, 3, {"padding": 1}),
        ((8, 32, 32, 32), 64, 3, {"padding": 1}),
        ((16, 64, 16, 16), 128, 3, {"padding": 1}),
        ((8, 64, 32, 32), 64, 1, {}),
        ((8, 64, 32, 32), 64, 3, {"padding": 1, "groups": 64}),
        ((8, 32, 32, 32), 64, 3, {"padding": 1, "stride": 2}),
        ((64, 1, 28, 28), 6, 5, {"padding": 2}),
        ((64, 6, 14, 14), 16, 5, {}),
    )
    for backward in (False, True)
]
ROWS = [
    *(
        rows(kind, m, 1024, b)
        for kind in ("softmax", "layer_norm", "gelu")
        for m in (128, 4096)
        for b in (False, True)
    ),
    *(rows(kind, m, 1024) for kind in ("exp", "add", "chain") for m in (128, 4096)),
    *(rows("sum", 4096, 1024, axis=axis) for axis in (0, 1)),
    rows("argmax", 4096, 1024, axis=1),
    *(batch_norm(32, 64, 16, 16, b) for b in (False, True)),
    *(cross_entropy(m, n, b) for m, n in ((256, 10), (768, 65), (1024, 4096)) for b in (False, True)),
]
ATTENTION = [
    attention(12, tokens, 64, causal, backward)
    for tokens in (128, 1024, 4096)
    for causal in (False, True)
    for backward in (False, True)
]
CASES = [*GEMM, *LINEAR, *CONV, *ROWS, *ATTENTION]
