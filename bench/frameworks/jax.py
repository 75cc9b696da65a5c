"""JAX: the whole step under jax.jit, with the state donated. Convolutions run in JAX's usual NHWC layout."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.cases.base import Arrays, Case, Training
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


def mlp(p: Tree, buffers: Tree, x: jax.Array, **_: Any) -> tuple[jax.Array, Tree]:
    last = len(p) - 2  # a weight and a bias each, named 0, 2, 4, ...
    for i in range(0, last, 2):
        x = jax.nn.relu(linear(p, f"{i}", x))
    return linear(p, f"{last}", x), {}


def lenet(p: Tree, buffers: Tree, x: jax.Array) -> tuple[jax.Array, Tree]:
    x = max_pool(jax.nn.relu(conv(p, "0", x, 2)))
    x = max_pool(jax.nn.relu(conv(p, "3", x, 0)))
    x = jax.nn.relu(linear(p, "7", x.reshape(x.shape[0], -1)))
    return linear(p, "11", jax.nn.relu(linear(p, "9", x))), {}


def cnn(p: Tree, buffers: Tree, x: jax.Array, training: bool = True) -> tuple[jax.Array, Tree]:
    updates: Tree = {}
    for i in (0, 4, 8):
        x = conv(p, f"{i}", x, 1)
        if training:
            x = batch_norm(p, buffers, updates, f"{i + 1}", x)
        else:
            scale = p[f"{i + 1}.weight"] * jax.lax.rsqrt(buffers[f"{i + 1}.running_var"] + 1e-5)
            x = (x - buffers[f"{i + 1}.running_mean"]) * scale + p[f"{i + 1}.bias"]
        x = max_pool(jax.nn.relu(x))
    return linear(p, "13", x.reshape(x.shape[0], -1)), updates


def attention(q: jax.Array, k: jax.Array, v: jax.Array, causal: bool) -> jax.Array:
    """(B, T, H, D) each -> (B, T, H, D)"""
    return jax.nn.dot_product_attention(q, k, v, is_causal=causal)


def lstm(p: Tree, buffers: Tree, x: jax.Array, **_: Any) -> tuple[jax.Array, Tree]:
    """The inputs' share of the gates is one product before the loop, as it is in ours."""
    share = x @ p["lstm.weight_ih_l0"] + p["lstm.bias_ih_l0"] + p["lstm.bias_hh_l0"]

    def step(state: tuple[jax.Array, jax.Array], share: jax.Array) -> tuple[Any, None]:
        h, c = state
        i, f, g, o = jnp.split(share + h @ p["lstm.weight_hh_l0"], 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

    zero = jnp.zeros((x.shape[0], p["head.weight"].shape[0]))
    (h, _), _ = jax.lax.scan(step, (zero, zero), share.transpose(1, 0, 2))
    return linear(p, "head", h), {}


def gpt(p: Tree, buffers: Tree, text: jax.Array, heads: int, **_: Any) -> tuple[jax.Array, Tree]:
    x = p["tokens.weight"][text] + p["positions.weight"][: text.shape[1]]
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
    x = layer_norm(p, "norm", x)
    return linear(p, "head", x) if "head.weight" in p else x @ p["tokens.weight"].T, {}


MODELS: dict[str, Callable[..., tuple[jax.Array, Tree]]] = {
    "mlp": mlp,
    "lenet": lenet,
    "cnn": cnn,
    "gpt": gpt,
    "lstm": lstm,
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
        self.checked = case.checked
        self.batches = [
            (jnp.asarray(x.transpose(0, 2, 3, 1) if x.ndim == 4 else x), jnp.asarray(y.astype(np.int32)))
            for x, y in self.data.batches
        ]
        model = partial(MODELS[case.kind], **case.options)

        def loss_of(p: Tree, buffers: Tree, x: jax.Array, y: jax.Array) -> tuple[jax.Array, Tree]:
            logits, updates = model(p, buffers, x)
            return cross_entropy(logits, y), updates

        def step(state: Any, x: jax.Array, y: jax.Array) -> tuple[Any, jax.Array]:
            p, m, v, count, buffers = state
            (loss, buffers), g = jax.value_and_grad(loss_of, has_aux=True)(p, buffers, x, y)
            return (*adam(self.data.lr, p, m, v, count, g), buffers), loss

        self.step = self.compiled(step)
        self.reset()

    def compiled(self, step: Callable[..., Any]) -> Callable[..., Any]:
        return jax.jit(step, donate_argnums=0)

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
        return [float(self.run()) for _ in range(self.checked)]


class EpochRunner(TrainingRunner):
    """All samples once, in an order drawn anew: one call of one compiled function. Returns the mean loss."""

    def __init__(self, case: Case) -> None:
        self.batch = case.options["batch"]
        self.key, self.shuffled = jax.random.key(0), True
        super().__init__(case)

    def compiled(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def epoch(state: Any, x: jax.Array, y: jax.Array, key: jax.Array, shuffled: bool) -> Any:
            order = jax.random.permutation(key, len(x)) if shuffled else jnp.arange(len(x))
            batches = order[: len(order) // self.batch * self.batch].reshape(-1, self.batch)
            state, losses = jax.lax.scan(lambda s, rows: step(s, x[rows], y[rows]), state, batches)
            return state, losses.mean()

        return jax.jit(epoch, donate_argnums=0, static_argnums=4)

    def run(self) -> float:
        self.key, key = jax.random.split(self.key)
        self.state, loss = self.step(self.state, *self.batches[0], key, self.shuffled)
        return float(jax.block_until_ready((self.state, loss))[1])

    def fingerprint(self) -> list[float]:
        """The mean loss of an epoch in the samples' own order, which every framework can repeat."""
        self.reset()
        self.shuffled = False
        loss = self.run()
        self.shuffled = True
        return [loss]


class InferenceRunner:
    """The model's logits, batch after batch."""

    def __init__(self, case: Case) -> None:
        data: Training = case.make()
        p = {name: jnp.asarray(a) for name, a in to_jax_layout(case.kind, data.parameters).items()}
        buffers = {name: jnp.asarray(a) for name, a in data.buffers.items()}
        options = case.options | ({"training": False} if case.kind == "cnn" else {})
        model = MODELS[case.kind]
        self.inputs = [jnp.asarray(x.transpose(0, 2, 3, 1) if x.ndim == 4 else x) for x, _ in data.batches]
        self.call = partial(jax.jit(lambda p, buffers, x: model(p, buffers, x, **options)[0]), p, buffers)
        self.reset()

    def reset(self) -> None:
        self.order = itertools.cycle(self.inputs)

    def run(self) -> np.ndarray:
        return np.asarray(self.call(next(self.order)))

    def fingerprint(self) -> list[float]:
        self.reset()
        return kernel_fingerprint([self.run()])


def kernel_matmul(ta: bool = False, tb: bool = False) -> Callable[..., jax.Array]:
    return lambda a, b: (a.mT if ta else a) @ (b.mT if tb else b)


def int_matmul(ta: bool = False, tb: bool = False) -> Callable[..., jax.Array]:
    """int8 operands, int32 sums."""
    return lambda a, b: jnp.matmul(a.mT if ta else a, b.mT if tb else b, preferred_element_type=jnp.int32)


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
    **{name: partial(lambda f: f, getattr(jnp, name)) for name in ("log", "tanh", "sin", "cos", "tan")},
    "pow": lambda: jnp.power,
    "erf": lambda: jax.lax.erf,
}


def gradient_of(forward: Callable[..., jax.Array], only: int | None) -> Callable[..., tuple[jax.Array, ...]]:
    """The result and the gradients of all float operands, or the gradient of one operand alone.

    The last operand is the gradient of the result.
    """

    def both(*operands: jax.Array) -> tuple[jax.Array, ...]:
        *operands, gradient = operands
        chosen = range(len(operands)) if only is None else (only,)
        floats = [i for i in chosen if jnp.issubdtype(operands[i].dtype, jnp.floating)]

        def of_floats(*values: jax.Array) -> jax.Array:
            full = list(operands)
            for i, value in zip(floats, values, strict=True):
                full[i] = value
            return forward(*full)

        result, pull = jax.vjp(of_floats, *(operands[i] for i in floats))
        return pull(gradient) if only is not None else (result, *pull(gradient))

    return both


# How each operation's operands and results lie in JAX when they lie as NCHW / OIHW / BHTD in the case.
IMAGE, WEIGHT, HEADS = (0, 2, 3, 1), (2, 3, 1, 0), (0, 2, 1, 3)
AXES: dict[str, tuple[tuple[int, ...] | None, ...]] = {
    "conv2d": (IMAGE, WEIGHT, IMAGE),
    "batch_norm": (IMAGE, None, None, IMAGE),
    "attention": (HEADS, HEADS, HEADS, HEADS),
}


class KernelRunner:
    """One operation on fixed operands, laid out as JAX's users lay them out."""

    def __init__(self, case: Case) -> None:
        arrays: Arrays = case.make()
        options = dict(case.options)
        dtype, backward = options.pop("dtype", "f32"), options.pop("backward", "")
        axes = AXES.get(case.kind, (None,) * len(arrays))[: len(arrays)]
        self.operands = [
            self.placed(array if a is None else array.transpose(a).copy(), dtype)
            for array, a in zip(arrays.values(), axes, strict=True)
        ]
        call = int_matmul(**options) if dtype == "int8" else KERNELS[case.kind](**options)
        # how the results lie: the forward one like the first operand, gradients like their operands
        self.axes = [axes[0], *axes]
        if backward:
            only = None if backward == "all" else "xw".index(backward)
            call = gradient_of(call, only)
            self.axes = self.axes if only is None else [axes[only]]
        self.call = jax.jit(call)

    @staticmethod
    def placed(array: np.ndarray, dtype: str) -> jax.Array:
        if array.dtype == np.float32 and dtype == "bf16":
            return jnp.asarray(array, jnp.bfloat16)
        return jnp.asarray(array.astype(np.int32) if array.dtype == np.int64 else array)

    def reset(self) -> None:
        pass

    def run(self) -> object:
        return jax.block_until_ready(self.call(*self.operands))

    def fingerprint(self) -> list[float]:
        result = self.run()
        outputs = result if isinstance(result, tuple) else (result,)
        back = [None if axes is None else tuple(np.argsort(axes)) for axes in self.axes]
        arrays = [np.asarray(output, np.float64) for output in outputs]
        return kernel_fingerprint(
            [a if axes is None else a.transpose(axes) for a, axes in zip(arrays, back, strict=False)]
        )


RUNNERS: dict[str, Callable[[Case], Runner]] = {
    "kernels": KernelRunner,
    "training": TrainingRunner,
    "eager": TrainingRunner,
    "inference": InferenceRunner,
    "epoch": EpochRunner,
}


def prepare(case: Case, mode: str) -> Runner:
    return RUNNERS[case.suite](case)
