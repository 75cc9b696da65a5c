"""Layers against their definitions, written out in NumPy, and what training changes in them."""

import math
from typing import Any

import numpy as np
import pytest

from tilewright import nn, optim, random
from tilewright.core import dtype as dt
from tilewright.jit import jit
from tilewright.tensor import Tensor, no_grad

Array = np.ndarray[Any, np.dtype[Any]]


def draw(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def run(layer: nn.Module, *inputs: Array) -> Array:
    with no_grad():
        out: Tensor = layer(*(Tensor(x) for x in inputs))
    return out.numpy()


def test_linear() -> None:
    layer = nn.Linear(3, 5)
    x = draw(2, 4, 3)
    np.testing.assert_allclose(
        run(layer, x), x @ layer.weight.numpy().T + layer.bias.numpy(), rtol=1e-5, atol=1e-6
    )
    bare = nn.Linear(3, 5, bias=False)
    assert bare.bias is None
    np.testing.assert_allclose(run(bare, x), x @ bare.weight.numpy().T, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="non-negative"):
        nn.Linear(3, -1)


def test_embedding_and_its_padding_row() -> None:
    layer = nn.Embedding(5, 3, padding_idx=-1)
    index = np.array([[0, 4], [2, 2]])
    np.testing.assert_array_equal(run(layer, index), layer.weight.numpy()[index])
    assert (layer.weight.numpy()[4] == 0).all() and layer.padding_idx == 4
    layer(Tensor(index)).sum().backward()
    grad = layer.weight.grad.numpy()
    np.testing.assert_array_equal(grad[:, 0], [1, 0, 2, 0, 0])  # no gradient for the padding row


def convolve(
    x: Array,
    w: Array,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Array:
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    n, _, height, width = x.shape
    o, c, kh, kw = w.shape
    oh = (height - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    ow = (width - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    out = np.zeros((n, o, oh, ow))
    for g in range(groups):
        for k in range(o // groups):
            f = g * (o // groups) + k
            for i in range(oh):
                for j in range(ow):
                    rows = slice(i * stride[0], i * stride[0] + dilation[0] * (kh - 1) + 1, dilation[0])
                    cols = slice(j * stride[1], j * stride[1] + dilation[1] * (kw - 1) + 1, dilation[1])
                    out[:, f, i, j] = (x[:, g * c : (g + 1) * c, rows, cols] * w[f]).sum((1, 2, 3))
    return out


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"),
    [
        ((1, 1), (0, 0), (1, 1), 1),
        ((2, 1), (1, 2), (1, 1), 1),
        ((1, 2), (2, 1), (2, 1), 2),
    ],
)
def test_conv2d(
    stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int], groups: int
) -> None:
    layer = nn.Conv2d(4, 6, (3, 2), stride, padding, dilation, groups)
    x = draw(2, 4, 7, 6)
    wanted = convolve(x, layer.weight.numpy(), stride, padding, dilation, groups)
    wanted += layer.bias.numpy()[:, None, None]
    np.testing.assert_allclose(run(layer, x), wanted, rtol=1e-4, atol=1e-5)


def test_conv2d_padding_words_and_conv1d() -> None:
    x = draw(1, 2, 5, 5)
    layer = nn.Conv2d(2, 3, 3, padding="same", bias=False)
    wanted = convolve(x, layer.weight.numpy(), (1, 1), (1, 1), (1, 1), 1)
    np.testing.assert_allclose(run(layer, x), wanted, rtol=1e-4, atol=1e-5)
    assert run(nn.Conv2d(2, 3, 3, padding="valid"), x).shape == (1, 3, 3, 3)
    line = nn.Conv1d(2, 3, 3, stride=2, padding=1)
    wanted = convolve(x[:, :, 0:1], line.weight.numpy()[:, :, None], (1, 2), (0, 1), (1, 1), 1)[:, :, 0]
    np.testing.assert_allclose(
        run(line, x[:, :, 0]), wanted + line.bias.numpy()[:, None], rtol=1e-4, atol=1e-5
    )
    with pytest.raises(ValueError, match="stride 1"):
        nn.Conv2d(2, 3, 3, stride=2, padding="same")
    with pytest.raises(ValueError, match="3 groups"):
        nn.Conv2d(2, 3, 3, groups=3)
    with pytest.raises(ValueError, match="'full'"):
        nn.Conv2d(2, 3, 3, padding="full")


@pytest.mark.parametrize(("stride", "padding", "extra", "groups"), [(1, 0, 0, 1), (2, 1, 1, 1), (3, 1, 2, 2)])
def test_conv_transpose2d_is_the_adjoint_of_conv2d(
    stride: int, padding: int, extra: int, groups: int
) -> None:
    layer = nn.ConvTranspose2d(4, 6, 3, stride, padding, extra, groups, bias=False)
    x = draw(2, 4, 5, 5)
    y = run(layer, x)
    size = (5 - 1) * stride - 2 * padding + 2 + extra + 1
    assert y.shape == (2, 6, size, size)
    z = draw(*y.shape, seed=1)
    back = convolve(z, layer.weight.numpy(), (stride,) * 2, (padding,) * 2, (1, 1), groups)
    np.testing.assert_allclose((y * z).sum(), (x * back).sum(), rtol=1e-4)


def test_pooling() -> None:
    x = draw(2, 3, 7, 6)
    rows = x[:, :, :6].reshape(2, 3, 3, 2, 3, 2)
    np.testing.assert_array_equal(run(nn.MaxPool2d(2), x), rows.max((3, 5)))
    np.testing.assert_allclose(run(nn.AvgPool2d(2), x), rows.mean((3, 5)), rtol=1e-5, atol=1e-6)
    negative = -np.abs(x) - 1
    padded = np.pad(negative, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))[:, :, ::2, ::2]
    np.testing.assert_array_equal(run(nn.MaxPool2d(3, 2, 1), negative), windows.max((4, 5)))
    zeros = np.lib.stride_tricks.sliding_window_view(np.where(padded == -np.inf, 0, padded), (3, 3), (2, 3))
    np.testing.assert_allclose(
        run(nn.AvgPool2d(3, 2, 1), negative), zeros[:, :, ::2, ::2].mean((4, 5)), rtol=1e-5
    )
    np.testing.assert_allclose(
        run(nn.AdaptiveAvgPool2d(1), x)[..., 0, 0], x.mean((2, 3)), rtol=1e-4, atol=1e-6
    )
    with pytest.raises(ValueError, match="more than half"):
        nn.MaxPool2d(2, padding=2)


def test_batch_norm_normalises_and_tracks() -> None:
    layer = nn.BatchNorm2d(3)
    x = draw(4, 3, 5, 5) * 3 + 2
    with no_grad():
        layer.weight.assign(Tensor([1.0, 2.0, 3.0]))
        layer.bias.assign(Tensor([0.5, 0.0, -0.5]))
    out = run(layer, x)
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
    column = (slice(None), None, None)
    wanted = (x - mean[column]) / np.sqrt(var[column] + 1e-5) * np.array([1, 2, 3])[column]
    np.testing.assert_allclose(out, wanted + np.array([0.5, 0, -0.5])[column], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.running_mean.numpy(), 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(layer.running_var.numpy(), 0.9 + 0.1 * var * 100 / 99, rtol=1e-5)
    assert layer.num_batches_tracked.item() == 1
    layer.eval()
    running = layer.running_mean.numpy(), layer.running_var.numpy()
    wanted = (x - running[0][column]) / np.sqrt(running[1][column] + 1e-5) * np.array([1, 2, 3])[column]
    np.testing.assert_allclose(run(layer, x), wanted + np.array([0.5, 0, -0.5])[column], rtol=1e-4, atol=1e-5)
    assert layer.num_batches_tracked.item() == 1


def test_batch_norm_statistics_are_written_back_by_jit_as_eagerly() -> None:
    layers = [nn.BatchNorm1d(4), nn.BatchNorm1d(4)]
    losses = [lambda x: (layers[0](x) ** 3).mean(), jit(lambda x: (layers[1](x) ** 3).mean())]
    for step in range(3):
        x = draw(8, 4, seed=step) + step
        with no_grad():
            for loss in losses:
                loss(x if loss is losses[1] else Tensor(x)).item()
    assert losses[1].traces == 1
    for name, tensor in layers[0].state_dict().items():
        np.testing.assert_allclose(layers[1].state_dict()[name].numpy(), tensor.numpy(), rtol=1e-6)
    assert layers[1].num_batches_tracked.item() == 3


def test_batch_norm_without_momentum_averages_all_batches() -> None:
    layer = nn.BatchNorm1d(2, momentum=None, affine=False)
    batches = [draw(6, 2, seed=s) for s in range(4)]
    for x in batches:
        run(layer, x)
    np.testing.assert_allclose(
        layer.running_mean.numpy(), np.mean([b.mean(0) for b in batches], 0), rtol=1e-4, atol=1e-6
    )
    with pytest.raises(ValueError, match="one value per channel"):
        run(layer, draw(1, 2))
    with pytest.raises(ValueError, match="expected 2 channels"):
        run(layer, draw(4, 3))
    with pytest.raises(ValueError, match="2 axes or 3 axes"):
        run(layer, draw(4, 2, 3, 3))


def test_layer_rms_and_group_norm() -> None:
    x = draw(2, 3, 8) * 2 + 1
    layer = nn.LayerNorm(8)
    wanted = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(run(layer, x), wanted, rtol=1e-4, atol=1e-5)
    both = nn.LayerNorm((3, 8), elementwise_affine=False)
    wanted = (x - x.mean((1, 2), keepdims=True)) / np.sqrt(x.var((1, 2), keepdims=True) + 1e-5)
    np.testing.assert_allclose(run(both, x), wanted, rtol=1e-4, atol=1e-5)
    wanted = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-3)
    np.testing.assert_allclose(run(nn.RMSNorm(8, eps=1e-3), x), wanted, rtol=1e-4, atol=1e-5)
    y = draw(2, 6, 4, 4)
    groups = y.reshape(2, 3, -1)
    wanted = (groups - groups.mean(-1, keepdims=True)) / np.sqrt(groups.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(run(nn.GroupNorm(3, 6), y), wanted.reshape(y.shape), rtol=1e-4, atol=1e-5)


def test_dropout_scales_what_it_keeps() -> None:
    random.manual_seed(0)
    layer = nn.Dropout(0.25)
    out = run(layer, np.ones((100, 100), np.float32))
    kept = out != 0
    np.testing.assert_allclose(out[kept], 1 / 0.75, rtol=1e-6)
    assert abs(kept.mean() - 0.75) < 0.02
    assert (run(layer, np.ones((100, 100), np.float32)) != out).any()  # another mask at every call
    layer.eval()
    np.testing.assert_array_equal(run(layer, np.ones(3, np.float32)), np.ones(3))
    assert (run(nn.Dropout(1.0), np.ones(3, np.float32)) == 0).all()
    with pytest.raises(ValueError, match="probability"):
        nn.Dropout(1.5)


@pytest.mark.parametrize(
    ("layer", "rule"),
    [
        (nn.Identity(54, unused=True), lambda x: x),
        (nn.ReLU(), lambda x: np.maximum(x, 0)),
        (nn.ReLU6(), lambda x: np.clip(x, 0, 6)),
        (nn.LeakyReLU(0.1), lambda x: np.where(x > 0, x, 0.1 * x)),
        (nn.ELU(), lambda x: np.where(x > 0, x, np.expm1(x))),
        (nn.GELU(), lambda x: x * np.vectorize(lambda v: (1 + math.erf(v / math.sqrt(2))) / 2)(x)),
        (nn.GELU("tanh"), lambda x: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))),
        (nn.SiLU(), lambda x: x / (1 + np.exp(-x))),
        (nn.Mish(), lambda x: x * np.tanh(np.log1p(np.exp(x)))),
        (nn.Hardswish(), lambda x: x * np.clip(x + 3, 0, 6) / 6),
        (nn.Sigmoid(), lambda x: 1 / (1 + np.exp(-x))),
        (nn.Tanh(), np.tanh),
        (nn.Softplus(), lambda x: np.log1p(np.exp(x))),
        (nn.Softmax(dim=0), lambda x: np.exp(x) / np.exp(x).sum(0)),
        (nn.LogSoftmax(dim=1), lambda x: x - np.log(np.exp(x).sum(1, keepdims=True))),
        (nn.Flatten(), lambda x: x.reshape(3, -1)),
        (nn.Flatten(0), lambda x: x.reshape(-1)),
        (nn.Unflatten(1, (2, -1)), lambda x: x.reshape(3, 2, 2)),
    ],
    ids=lambda value: repr(value) if isinstance(value, nn.Module) else "",
)
def test_activations_and_shapes(layer: nn.Module, rule: Any) -> None:
    x = draw(3, 4) * 4
    np.testing.assert_allclose(run(layer, x), rule(x.astype(np.float64)), rtol=1e-5, atol=1e-6)


def softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def attend(
    layer: nn.MultiheadAttention, q: Array, k: Array, v: Array, mask: Array | float = 0.0
) -> tuple[Array, Array]:
    """[B, T, E] inputs, by the definition; mask [.., T, S] is added to the scores."""
    e, h = layer.embed_dim, layer.num_heads
    w, b = layer.in_proj_weight.numpy(), layer.in_proj_bias.numpy()
    parts = [x @ w[i * e : (i + 1) * e].T + b[i * e : (i + 1) * e] for i, x in enumerate((q, k, v))]
    q, k, v = (p.reshape(*p.shape[:2], h, e // h).transpose(0, 2, 1, 3) for p in parts)
    weights = softmax(q @ k.transpose(0, 1, 3, 2) / math.sqrt(e // h) + mask)
    joined = (weights @ v).transpose(0, 2, 1, 3).reshape(q.shape[0], q.shape[2], e)
    return joined @ layer.out_proj.weight.numpy().T + layer.out_proj.bias.numpy(), weights


def test_multihead_attention() -> None:
    layer = nn.MultiheadAttention(8, 2, batch_first=True)
    q, kv = draw(3, 4, 8), draw(3, 5, 8, seed=1)
    with no_grad():
        out, weights = layer(Tensor(q), Tensor(kv), Tensor(kv))
        wanted, each = attend(layer, q, kv, kv)
        np.testing.assert_allclose(out.numpy(), wanted, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(weights.numpy(), each.mean(1), rtol=1e-4, atol=1e-5)
        x = Tensor(q)
        causal, _ = layer(x, x, x, is_causal=True)
        above = np.where(np.triu(np.ones((4, 4)), 1) > 0, -np.inf, 0.0)
        np.testing.assert_allclose(causal.numpy(), attend(layer, q, q, q, above)[0], rtol=1e-4, atol=1e-5)
        padding = np.zeros((3, 5), bool)
        padding[1, 3:] = True
        masked, none = layer(
            Tensor(q), Tensor(kv), Tensor(kv), key_padding_mask=Tensor(padding), need_weights=False
        )
        added = np.where(padding, -np.inf, 0.0)[:, None, None]
        np.testing.assert_allclose(masked.numpy(), attend(layer, q, kv, kv, added)[0], rtol=1e-4, atol=1e-5)
        assert none is None
        late = nn.MultiheadAttention(8, 2)
        late.load_state_dict(layer.state_dict())
        swapped, _ = late(*(Tensor(a.transpose(1, 0, 2)) for a in (q, kv, kv)))
        np.testing.assert_allclose(swapped.numpy().transpose(1, 0, 2), wanted, rtol=1e-4, atol=1e-5)
        single, _ = layer(Tensor(q[0]), Tensor(kv[0]), Tensor(kv[0]))
        np.testing.assert_allclose(single.numpy(), wanted[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="3 heads"):
        nn.MultiheadAttention(8, 3)


@pytest.mark.parametrize("norm_first", [False, True])
def test_transformer_encoder_layer(norm_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, norm_first=norm_first)
    x = draw(2, 4, 8)

    def norm(a: Array) -> Array:
        return (a - a.mean(-1, keepdims=True)) / np.sqrt(a.var(-1, keepdims=True) + 1e-5)

    def feed(a: Array) -> Array:
        hidden = np.maximum(a @ layer.linear1.weight.numpy().T + layer.linear1.bias.numpy(), 0)
        return hidden @ layer.linear2.weight.numpy().T + layer.linear2.bias.numpy()

    def look(a: Array) -> Array:
        return attend(layer.self_attn, a, a, a)[0]

    if norm_first:
        y = x + look(norm(x))
        wanted = y + feed(norm(y))
    else:
        y = norm(x + look(x))
        wanted = norm(y + feed(y))
    np.testing.assert_allclose(run(layer, x), wanted, rtol=1e-3, atol=1e-4)
    stack = nn.TransformerEncoder(layer, 2)
    assert len({name.split(".")[1] for name, _ in stack.named_parameters()}) == 2
    np.testing.assert_allclose(run(stack, x), run(layer, run(layer, x)), rtol=1e-4, atol=1e-5)


LOSSES: list[tuple[nn.Module, Any, Array, Array]] = [
    (nn.MSELoss(), lambda p, t: (p - t) ** 2, draw(4, 3), draw(4, 3, seed=1)),
    (nn.L1Loss(), lambda p, t: np.abs(p - t), draw(4, 3), draw(4, 3, seed=1)),
    (
        nn.HuberLoss(delta=0.5),
        lambda p, t: np.where(np.abs(p - t) < 0.5, (p - t) ** 2 / 2, 0.5 * (np.abs(p - t) - 0.25)),
        draw(4, 3),
        draw(4, 3, seed=1),
    ),
    (
        nn.SmoothL1Loss(beta=0.5),
        lambda p, t: np.where(np.abs(p - t) < 0.5, (p - t) ** 2, np.abs(p - t) - 0.25),
        draw(4, 3),
        draw(4, 3, seed=1),
    ),
    (
        nn.BCELoss(),
        lambda p, t: -(t * np.log(p) + (1 - t) * np.log(1 - p)),
        np.array([[0.2], [0.9]], np.float32),
        np.array([[0.0], [1.0]], np.float32),
    ),
    (
        nn.BCEWithLogitsLoss(),
        lambda p, t: np.logaddexp(0, p) - p * t,
        np.array([[-200.0], [0.3], [200.0]], np.float32),
        np.array([[0.0], [1.0], [0.0]], np.float32),
    ),
    (
        nn.CrossEntropyLoss(),
        lambda p, t: -np.log(softmax(p)[np.arange(len(t)), t]),
        draw(4, 3) * 5,
        np.array([0, 2, 1, 1]),
    ),
    (nn.NLLLoss(), lambda p, t: -p[np.arange(len(t)), t], draw(4, 3), np.array([0, 2, 1, 1])),
]


@pytest.mark.parametrize(
    ("loss", "rule", "input", "target"), LOSSES, ids=lambda v: repr(v) if isinstance(v, nn.Module) else ""
)
def test_losses_and_their_reductions(loss: nn.Module, rule: Any, input: Array, target: Array) -> None:
    each = rule(input.astype(np.float64), target)
    np.testing.assert_allclose(run(loss, input, target), each.mean(), rtol=1e-5)
    loss.reduction = "sum"
    np.testing.assert_allclose(run(loss, input, target), each.sum(), rtol=1e-5)
    loss.reduction = "none"
    np.testing.assert_allclose(run(loss, input, target), each, rtol=1e-5, atol=1e-6)
    loss.reduction = "mean"
    with pytest.raises(ValueError, match="'median'"):
        type(loss)(reduction="median")


def test_cross_entropy_options() -> None:
    p, t = draw(5, 3) * 2, np.array([0, 2, -100, 1, 1])
    logs = np.log(softmax(p.astype(np.float64)))
    rows = np.array([0, 1, 3, 4])
    np.testing.assert_allclose(run(nn.CrossEntropyLoss(), p, t), -logs[rows, t[rows]].mean(), rtol=1e-5)
    weight = np.array([1.0, 2.0, 3.0], np.float32)
    wanted = -(weight[t[rows]] * logs[rows, t[rows]]).sum() / weight[t[rows]].sum()
    np.testing.assert_allclose(run(nn.CrossEntropyLoss(weight=Tensor(weight)), p, t), wanted, rtol=1e-5)
    smooth = -(0.9 * logs[rows, t[rows]] + 0.1 * logs[rows].mean(1)).mean()
    np.testing.assert_allclose(run(nn.CrossEntropyLoss(label_smoothing=0.1), p, t), smooth, rtol=1e-5)


def test_a_network_learns() -> None:
    """A convolutional network with every kind of state fits 32 random images."""
    random.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.1),
        nn.Linear(64, 3),
    )  # fmt: skip
    optimizer = optim.Adam(model.parameters(), lr=1e-2)
    loss_of = nn.CrossEntropyLoss()
    x, y = draw(32, 1, 8, 8), np.random.default_rng(1).integers(0, 3, 32)

    @jit
    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = loss_of(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    losses = [step(x, y).item() for _ in range(60)]
    assert losses[-1] < 0.2 * losses[0]
    assert step.traces == 1 and model[0].weight.dtype is dt.float32
