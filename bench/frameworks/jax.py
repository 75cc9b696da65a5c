"""JAX: the whole step under jax.jit, with the state donated. Convolutions run in JAX's usual NHWC layout."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.cases.base import CHECKED_STEPS, Arrays, Case, Training
from bench.cases.kernels import kernel_fingerprint
from bench.frameworks import Runner

Tree = dict[str, Any]
NHWC = ("NHWC", "HWIO", "NHWC")


def linear(p: Tree, name: str, x: jax.Array) -> jax.Array:
    """x[…, K] -> [..., N] with the weight held as [K, N]."""
    y = x @ p[f"{name}.weight"]
    return y + p[f"{name}.bias"] if f"{name}.bias" in p else y


def conv(p: Tree, name: str, x: jax.Array, padding: int) -> jax.Array:
    pads = [(padding, padding)] * 2
    y = jax.lax.conv_general_dilated(x, p[f"{name}.weight"], (1, 1), pads, dimension_numbers=NHWC)
    return y + p[f"{name}.bias"] if f"{name}.bias" in p else y


def max_pool(x: jax.Array) -> jax.Array:
    """Halve both sides of an NHWC image.

    Written with slices: XLA's CPU gradient of `reduce_window` made the whole step up to 1.5 times slower.
    """
    h, w = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    upper = jnp.maximum(x[:, 0:h:2, 0:w:2], x[:, 0:h:2, 1:w:2])
    lower = jnp.maximum(x[:, 1:h:2, 0:w:2], x[:, 1:h:2, 1:w:2])
    return jnp.maximum(upper, lower)


def batch_norm(p: Tree, buffers: Tree, updates: Tree, name: str, x: jax.Array) -> jax.Array:
    """Normalise an NHWC image by the batch's statistics, and move the running ones by a tenth."""
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    count = x.size // x.shape[-1]
    for key, value in (("running_mean", mean), ("running_var", variance * count / (count - 1))):
        updates[f"{name}.{key}"] = 0.9 * buffers[f"{name}.{key}"] + 0.1 * value
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]


def layer_norm(p: Tree, name: str, x: jax.Array) -> jax.Array:
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]


def cross_entropy(logits: jax.Array, y: jax.Array) -> jax.Array:
    log_probabilities = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log_probabilities, y[..., None], -1).mean()


def mlp(p: Tree, buffers: Tree, x: jax.Array) -> tuple[jax.Array, Tree]:
    return linear(p, "2", jax.nn.relu(linear(p, "0", x))), {}


def lenet(p: Tree, buffers: Tree, x: jax.Array) -> tuple[jax.Array, Tree]:
    x = max_pool(jax.nn.relu(conv(p, "0", x, 2)))
    x = max_pool(jax.nn.relu(conv(p, "3", x, 0)))
    x = jax.nn.relu(linear(p, "7", x.reshape(x.shape[0], -1)))
    return linear(p, "11", jax.nn.relu(linear(p, "9", x))), {}


def cnn(p: Tree, buffers: Tree, x: jax.Array) -> tuple[jax.Array, Tree]:
    updates: Tree = {}
    for i in (0, 4, 8):
        x = batch_norm(p, buffers, updates, f"{i + 1}", conv(p, f"{i}", x, 1))
        x = max_pool(jax.nn.relu(x))
    return linear(p, "13", x.reshape(x.shape[0], -1)), updates


def attention(q: jax.Array, k: jax.Array, v: jax.Array, causal: bool) -> jax.Array:
    """(B, T, H, D) each -> (B, T, H, D)"""
    return jax.nn.dot_product_attention(q, k, v, is_causal=causal)


def gpt(p: Tree, buffers: Tree, tokens: jax.Array, heads: int = 4) -> tuple[jax.Array, Tree]:
    x = p["tokens.weight"][tokens] + p["positions.weight"][: tokens.shape[1]]
    b, t, c = x.shape
    for i in itertools.takewhile(lambda i: f"blocks.{i}.norm1.weight" in p, itertools.count()):
        name = f"blocks.{i}"
        qkv = linear(p, f"{name}.qkv", layer_norm(p, f"{name}.norm1", x)).reshape(b, t, 3, heads, c // heads)
        mixed = attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], causal=True)
        x = x + linear(p, f"{name}.projection", mixed.reshape(b, t, c))
        hidden = jax.nn.gelu(
            linear(p, f"{name}.expand", layer_norm(p, f"{name}.norm2", x)), approximate=False
        )
        x = x + linear(p, f"{name}.contract", hidden)
    return linear(p, "head", layer_norm(p, "norm", x)), {}


MODELS: dict[str, Callable[[Tree, Tree, jax.Array], tuple[jax.Array, Tree]]] = {
    "mlp": mlp,
    "lenet": lenet,
    "cnn": cnn,
    "gpt": gpt,
}
# The linear layer after the last image, and that image's (C, H, W): its columns follow the layout.
FLATTENED = {"lenet": ("7.weight", (16, 5, 5)), "cnn": ("13.weight", (128, 4, 4))}


def to_jax_layout(kind: str, parameters: Arrays) -> Arrays:
    """Reorder PyTorch's layouts: linear [N, K] -> [K, N], convolution OIHW -> HWIO, embeddings stay."""
    result = {}
    for name, array in parameters.items():
        if name in ("tokens.weight", "positions.weight"):
            result[name] = array
        elif name == FLATTENED.get(kind, ("",))[0]:
            c, h, w = FLATTENED[kind][1]
            result[name] = array.reshape(-1, c, h, w).transpose(2, 3, 1, 0).reshape(c * h * w, -1)
        elif array.ndim == 4:
            result[name] = array.transpose(2, 3, 1, 0)
        elif array.ndim == 2:
            result[name] = array.T
        else:
            result[name] = array
    return result


def adam(
    lr: float, p: Tree, m: Tree, v: Tree, count: jax.Array, g: Tree
) -> tuple[Tree, Tree, Tree, jax.Array]:
    b1, b2, eps = 0.9, 0.999, 1e-8
    count = count + 1
    m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, m, g)
    v = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, v, g)
    scale1, scale2 = 1 / (1 - b1**count), 1 / (1 - b2**count)
    p = jax.tree.map(lambda p, m, v: p - lr * (m * scale1) / (jnp.sqrt(v * scale2) + eps), p, m, v)
    return p, m, v, count


class TrainingRunner:
    """One Adam step after another over the case's batches."""

    def __init__(self, case: Case) -> None:
        self.data: Training = case.make()
        self.parameters = to_jax_layout(case.kind, self.data.parameters)
        images = self.data.batches[0][0].ndim == 4
        self.batches = [
            (jnp.asarray(x.transpose(0, 2, 3, 1) if images else x), jnp.asarray(y.astype(np.int32)))
            for x, y in self.data.batches
        ]
        model = MODELS[case.kind]

        def loss_of(p: Tree, buffers: Tree, x: jax.Array, y: jax.Array) -> tuple[jax.Array, Tree]:
            logits, updates = model(p, buffers, x)
            return cross_entropy(logits, y), updates

        def step(state: Any, x: jax.Array, y: jax.Array) -> tuple[Any, jax.Array]:
            p, m, v, count, buffers = state
            (loss, buffers), g = jax.value_and_grad(loss_of, has_aux=True)(p, buffers, x, y)
            return (*adam(self.data.lr, p, m, v, count, g), buffers), loss

        self.step = jax.jit(step, donate_argnums=0)
        self.reset()

    def reset(self) -> None:
        p = {name: jnp.array(array) for name, array in self.parameters.items()}
        m, v = jax.tree.map(jnp.zeros_like, p), jax.tree.map(jnp.zeros_like, p)
        buffers = {name: jnp.array(array) for name, array in self.data.buffers.items()}
        self.state = (p, m, v, jnp.zeros((), jnp.float32), buffers)
        self.order = itertools.cycle(self.batches)

    def run(self) -> object:
        self.state, loss = self.step(self.state, *next(self.order))
        return jax.block_until_ready((self.state, loss))[1]

    def fingerprint(self) -> list[float]:
        self.reset()
        return [float(self.run()) for _ in range(CHECKED_STEPS)]


def kernel_matmul(ta: bool = False, tb: bool = False) -> Callable[..., jax.Array]:
    return lambda a, b: (a.mT if ta else a) @ (b.mT if tb else b)


def kernel_conv2d(stride: int = 1, padding: int = 0, groups: int = 1) -> Callable[..., jax.Array]:
    def call(x: jax.Array, w: jax.Array) -> jax.Array:
        pads = [(padding, padding)] * 2
        return jax.lax.conv_general_dilated(
            x, w, (stride, stride), pads, dimension_numbers=NHWC, feature_group_count=groups
        )

    return call


def kernel_layer_norm(x: jax.Array, w: jax.Array, b: jax.Array) -> jax.Array:
    return layer_norm({".weight": w, ".bias": b}, "", x)


def kernel_batch_norm(x: jax.Array, w: jax.Array, b: jax.Array) -> jax.Array:
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * w + b


def chain(x: jax.Array) -> jax.Array:
    for _ in range(5):
        x = jnp.tanh(x * 1.1 + 0.3) - 0.2
    return x


KERNELS: dict[str, Callable[..., Callable[..., jax.Array]]] = {
    "matmul": kernel_matmul,
    "linear_relu": lambda: lambda x, w, b: jax.nn.relu(x @ w.T + b),
    "linear_gelu": lambda: lambda x, w, b: jax.nn.gelu(x @ w.T + b, approximate=False),
    "mlp_block": lambda: lambda x, w1, b1, w2, b2: jax.nn.gelu(x @ w1.T + b1, approximate=False) @ w2.T + b2,
    "conv2d": kernel_conv2d,
    "softmax": lambda: lambda x: jax.nn.softmax(x, -1),
    "layer_norm": lambda: kernel_layer_norm,
    "batch_norm": lambda: kernel_batch_norm,
    "cross_entropy": lambda: cross_entropy,
    "gelu": lambda: lambda x: jax.nn.gelu(x, approximate=False),
    "exp": lambda: jnp.exp,
    "add": lambda: jnp.add,
    "chain": lambda: chain,
    "sum": lambda axis: lambda x: jnp.sum(x, axis),
    "argmax": lambda axis: lambda x: jnp.argmax(x, axis),
    "attention": lambda causal: lambda q, k, v: attention(q, k, v, causal),
}


def gradient_of(forward: Callable[..., jax.Array]) -> Callable[..., tuple[jax.Array, ...]]:
    """Turn `forward` into a function that also computes the gradients of its float operands."""

    def both(*operands: jax.Array) -> tuple[jax.Array, ...]:
        floats = [i for i, o in enumerate(operands) if jnp.issubdtype(o.dtype, jnp.floating)]

        def of_floats(*values: jax.Array) -> jax.Array:
            full = list(operands)
            for i, value in zip(floats, values, strict=True):
                full[i] = value
            return forward(*full)

        result, pull = jax.vjp(of_floats, *(operands[i] for i in floats))
        return (result, *pull(result))

    return both


# How each operation's operands and results lie in JAX when they lie as NCHW / OIHW / BHTD in the case.
IMAGE, WEIGHT, HEADS = (0, 2, 3, 1), (2, 3, 1, 0), (0, 2, 1, 3)
AXES: dict[str, tuple[tuple[int, ...] | None, ...]] = {
    "conv2d": (IMAGE, WEIGHT),
    "batch_norm": (IMAGE, None, None),
    "attention": (HEADS, HEADS, HEADS),
}


class KernelRunner:
    """One operation on fixed operands, laid out as JAX's users lay them out."""

    def __init__(self, case: Case) -> None:
        arrays: Arrays = case.make()
        dtype = {"bf16": jnp.bfloat16, "f32": jnp.float32}[case.options.get("dtype", "f32")]
        self.axes = AXES.get(case.kind, (None,) * len(arrays))
        self.operands = [
            jnp.asarray(array if axes is None else array.transpose(axes).copy()).astype(
                dtype if array.dtype == np.float32 else np.int32
            )
            for array, axes in zip(arrays.values(), self.axes, strict=True)
        ]
        options = {k: v for k, v in case.options.items() if k not in ("backward", "dtype")}
        call = KERNELS[case.kind](**options)
        self.call = jax.jit(gradient_of(call) if case.options.get("backward") else call)

    def reset(self) -> None:
        pass

    def run(self) -> object:
        return jax.block_until_ready(self.call(*self.operands))

    def fingerprint(self) -> list[float]:
        result = self.run()
        outputs = result if isinstance(result, tuple) else (result,)
        back = [None if axes is None else tuple(np.argsort(axes)) for axes in (self.axes[0], *self.axes)]
        arrays = [np.asarray(output, np.float64) for output in outputs]
        return kernel_fingerprint(
            [a if axes is None else a.transpose(axes) for a, axes in zip(arrays, back, strict=False)]
        )


def prepare(case: Case, mode: str) -> Runner:
    return TrainingRunner(case) if case.suite == "training" else KernelRunner(case)
