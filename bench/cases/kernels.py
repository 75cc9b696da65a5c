"""Single operations, at the sizes where users meet them: contractions, convolutions, row programs, attention.

`backward` cases compute the result and the gradients of every float operand, from a gradient `g` of the result
that is the last operand; of convolutions each gradient is a case of its own. Memory-bound operations come twice:
SMALL, whose arrays together fit a second-level cache, and LARGE, far outside all caches. The gradient of a sum is
`g` repeated, which PyTorch gives as a view without computing anything, so it is no case.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from bench.cases.base import Arrays, Case

F32 = 4
BLOCK = 4099  # prime, so that no axis of an array repeats its weights
SMALL, LARGE = (64, 1024), (16384, 1024)
NO_COMPILER = {"torch-compile": "calls the same library routine as PyTorch eager"}
NO_NUMPY = {"numpy": "peer of element work only"}

Shapes = dict[str, tuple[int, ...]]


def draw(shapes: Shapes, scale: float = 1.0, dtype: str = "f32") -> Arrays:
    rng = np.random.default_rng(0)
    if dtype == "int8":
        return {name: rng.integers(-127, 128, s).astype(np.int8) for name, s in shapes.items()}
    return {name: (scale * rng.standard_normal(s)).astype(np.float32) for name, s in shapes.items()}


def kernel_fingerprint(outputs: Sequence[np.ndarray]) -> list[float]:
    """Sum up float64 outputs as numbers that a wrong element, order or axis would change.

    Each output gives its mean, its root mean square, and a weighted sum whose weights differ from element to
    element (by the place within a block, and by the block), scaled so that all three are of the outputs' size.
    """
    numbers = []
    for output in outputs:
        flat = np.asarray(output, np.float64).ravel()
        whole = flat.size // BLOCK * BLOCK
        within = np.cos(np.arange(BLOCK))
        sums = flat[:whole].reshape(-1, BLOCK) @ within
        weighted = sums @ np.sin(1.0 + np.arange(sums.size)) + flat[whole:] @ within[: flat.size - whole]
        numbers += [flat.mean(), math.sqrt(flat @ flat / flat.size), weighted / math.sqrt(flat.size)]
    return [float(number) for number in numbers]


def matmul(
    m: int,
    n: int,
    k: int,
    batch: tuple[int, ...] = (),
    ta: bool = False,
    tb: bool = False,
    dtype: str = "f32",
) -> Case:
    """C[M, N] = A[M, K] B[K, N], with operands stored transposed where `ta` or `tb` says so.

    int8 operands give int32 sums; bf16 operands give bf16 results of float32 sums.
    """
    shapes = {"a": (*batch, k, m) if ta else (*batch, m, k), "b": (*batch, n, k) if tb else (*batch, k, n)}
    count = math.prod(batch)
    name = "x".join(map(str, (*batch, m, k, n))) + (" T" if ta or tb else "") + "a" * ta + "b" * tb
    size, result = {"f32": (4, 4), "bf16": (2, 2), "int8": (1, 4)}[dtype]
    options: dict[str, Any] = {"ta": ta, "tb": tb} if ta or tb else {}
    if dtype != "f32":
        options["dtype"], name = dtype, f"{name} {dtype}"
    return Case(
        f"matmul {name}",
        "kernels",
        "matmul",
        2.0 * count * m * n * k,
        float(count * (size * (m * k + k * n) + result * m * n)),
        partial(draw, shapes, dtype=dtype),
        options,
        group=f"gemm {dtype}",
        skip=NO_COMPILER,
    )


def linear(kind: str, m: int, k: int, n: int) -> Case:
    shapes = {"x": (m, k), "w": (n, k), "b": (n,)}
    nbytes = F32 * (m * k + k * n + m * n)
    name = f"{kind} {m}x{k}->{n}"
    return Case(
        name, "kernels", kind, 2.0 * m * n * k, nbytes, partial(draw, shapes, 0.1), {}, "linear", NO_NUMPY
    )


def mlp_block(m: int, width: int, hidden: int) -> Case:
    shapes = {"x": (m, width), "w1": (hidden, width), "b1": (hidden,), "w2": (width, hidden), "b2": (width,)}
    nbytes = F32 * (2 * m * width + 2 * width * hidden)
    name, flops = f"MLP block {m}x{width}->{hidden}->{width}", 4.0 * m * width * hidden
    make = partial(draw, shapes, 0.1)
    return Case(name, "kernels", "mlp_block", flops, nbytes, make, {}, "linear", NO_NUMPY)


def conv2d(
    x: tuple[int, int, int, int],
    n: int,
    size: int,
    wrt: str = "",
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
) -> Case:
    """The forward pass, or the gradient alone with respect to `wrt`, the image "x" or the filter "w"."""
    b, c, h, w = x
    oh, ow = ((side + 2 * padding - size) // stride + 1 for side in (h, w))
    macs = b * n * oh * ow * (c // groups) * size * size
    options: dict[str, Any] = {"stride": stride} if stride > 1 else {}
    if padding:
        options["padding"] = padding
    if groups > 1:
        options["groups"] = groups
    name = f"conv2d {b}x{c}x{h}x{w}->{n} k{size}"
    name += f" s{stride}" * (stride > 1) + f" g{groups}" * (groups > 1) + f" grad {wrt}" * bool(wrt)
    nbytes = F32 * (b * c * h * w + b * n * oh * ow + n * (c // groups) * size * size)
    shapes: Shapes = {"x": x, "w": (n, c // groups, size, size)}
    if wrt:
        shapes["g"], options["backward"] = (b, n, oh, ow), wrt
    make = partial(draw, shapes)
    return Case(
        name, "kernels", "conv2d", 2.0 * macs, nbytes, make, options, "conv", {**NO_COMPILER, **NO_NUMPY}
    )


def with_backward(case: Case, shapes: Shapes, result: tuple[int, ...], flops: float, moved: float) -> Case:
    """The same operation with its gradients: `flops` and `moved` times the forward pass's work and traffic."""
    return Case(
        f"{case.name} fwd+bwd",
        case.suite,
        case.kind,
        case.flops * flops,
        case.nbytes * moved,
        partial(draw, {**shapes, "g": result}),
        {**case.options, "backward": "all"},
        case.group,
        {**case.skip, **NO_NUMPY},
        case.slow,
    )


def size_group(shape: tuple[int, ...]) -> str:
    return "memory large" if math.prod(shape) >= 2**22 else "memory small"


def rows(kind: str, shape: tuple[int, ...], backward: bool = False, **options: Any) -> Case:
    """A program over rows: reads once, writes once; with its gradient reads x and g, and writes both results."""
    shapes: Shapes = {"x": shape}
    if kind == "layer_norm":
        shapes |= {"w": shape[-1:], "b": shape[-1:]}
    elif kind in ("add", "pow"):
        shapes |= {"y": shape}
    moved = {"add": 3, "pow": 3, "sum": 1, "argmax": 1}.get(kind, 2)
    name = f"{kind} {'x'.join(map(str, shape))}" + "".join(f" {k}={v}" for k, v in options.items())
    nbytes = F32 * math.prod(shape) * moved
    make = partial(draw_positive if kind in ("log", "pow") else draw, shapes)
    case = Case(name, "kernels", kind, 0.0, nbytes, make, options, size_group(shape))
    return with_backward(case, shapes, shape, 1.0, 2.0) if backward else case


def draw_positive(shapes: Shapes) -> Arrays:
    return {name: np.abs(array) + np.float32(0.1) for name, array in draw(shapes).items()}


def math_function(kind: str) -> Case:
    case = rows(kind, SMALL)
    return Case(case.name, case.suite, kind, 0.0, case.nbytes, case.make, {}, "math")


def batch_norm(shape: tuple[int, int, int, int], backward: bool) -> Case:
    shapes: Shapes = {"x": shape, "w": shape[1:2], "b": shape[1:2]}
    name, nbytes = f"batch_norm {'x'.join(map(str, shape))}", F32 * math.prod(shape) * 2
    case = Case(name, "kernels", "batch_norm", 0.0, nbytes, partial(draw, shapes), {}, size_group(shape))
    return with_backward(case, shapes, shape, 1.0, 2.0) if backward else case


def make_cross_entropy(m: int, n: int, backward: bool) -> Arrays:
    rng = np.random.default_rng(0)
    arrays = {
        "x": rng.standard_normal((m, n)).astype(np.float32),
        "y": rng.integers(0, n, m).astype(np.int64),
    }
    return arrays | ({"g": np.ones((), np.float32)} if backward else {})


def cross_entropy(m: int, n: int, backward: bool) -> Case:
    return Case(
        f"cross_entropy {m}x{n}" + " fwd+bwd" * backward,
        "kernels",
        "cross_entropy",
        0.0,
        F32 * m * n * (2 if backward else 1),
        partial(make_cross_entropy, m, n, backward),
        {"backward": "all"} if backward else {},
        size_group((m, n)),
        NO_NUMPY,
    )


def attention(heads: int, tokens: int, width: int, causal: bool, backward: bool) -> Case:
    shape = (1, heads, tokens, width)
    shapes = {"q": shape, "k": shape, "v": shape}
    flops = 4.0 * heads * tokens * tokens * width / (2 if causal else 1)
    nbytes = F32 * 4 * heads * tokens * width
    name = f"attention {heads}x{tokens}x{width}" + " causal" * causal
    case = Case(
        name,
        "kernels",
        "attention",
        flops,
        nbytes,
        partial(draw, shapes),
        {"causal": causal},
        "attention",
        NO_NUMPY,
        slow=tokens > 2048,
    )
    # backward: five contractions, one of them scores computed again, against two forward
    return with_backward(case, shapes, shape, 3.5, 2.0) if backward else case


TRANSPOSED = [(True, False), (False, True), (True, True)]
GEMM = [
    *(matmul(s, s, s) for s in (64, 128, 256, 512, 1024, 2048)),
    matmul(128, 64, 256),
    matmul(256, 256, 64),
    matmul(64, 2048, 2048),
    matmul(12, 3072, 768),
    matmul(1, 4096, 1024),
    matmul(1, 4096, 1024, tb=True),
    matmul(4096, 1, 1024),
    matmul(256, 10, 128),
    matmul(64, 64, 64, batch=(12,)),
    *(matmul(512, 512, 512, ta=ta, tb=tb) for ta, tb in TRANSPOSED),
    *(matmul(128, 64, 256, ta=ta, tb=tb) for ta, tb in TRANSPOSED),
]
LOW_PRECISION = [
    case
    for dtype in ("bf16", "int8")
    for case in (
        *(matmul(s, s, s, dtype=dtype) for s in (128, 512, 1024, 2048)),
        matmul(64, 2048, 2048, tb=True, dtype=dtype),
        matmul(12, 3072, 768, tb=True, dtype=dtype),
        matmul(1, 4096, 1024, tb=True, dtype=dtype),
    )
]
LINEAR = [
    linear("linear_relu", 256, 784, 128),
    linear("linear_relu", 64, 2048, 8192),
    linear("linear_gelu", 768, 128, 512),
    linear("linear_gelu", 64, 2048, 8192),
    mlp_block(64, 2048, 8192),
]
CONV = [
    conv2d(x, n, size, wrt, **options)
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
    for wrt in ("", "x", "w")
]
ROWS = [
    *(
        rows(kind, shape, backward)
        for kind in ("softmax", "layer_norm", "gelu", "chain")
        for shape in (SMALL, LARGE)
        for backward in (False, True)
    ),
    *(rows(kind, shape) for kind in ("exp", "add") for shape in (SMALL, LARGE)),
    *(rows("sum", shape, axis=axis) for shape in (SMALL, LARGE) for axis in (0, 1)),
    rows("sum", (64, 512, 512), axis=1),
    *(rows("argmax", shape, axis=axis) for shape in (SMALL, LARGE) for axis in (0, 1)),
    *(batch_norm(shape, b) for shape in ((8, 32, 16, 16), (64, 64, 64, 64)) for b in (False, True)),
    *(
        cross_entropy(m, n, b)
        for m, n in ((256, 10), (768, 65), (64, 1024), (1024, 50257))
        for b in (False, True)
    ),
]
MATH = [math_function(kind) for kind in ("log", "tanh", "erf", "sin", "cos", "tan", "pow")]
ATTENTION = [
    attention(12, tokens, 64, causal, backward)
    for tokens in (128, 1024, 4096)
    for causal in (False, True)
    for backward in (False, True)
]
CASES = [*GEMM, *LOW_PRECISION, *LINEAR, *CONV, *ROWS, *MATH, *ATTENTION]
