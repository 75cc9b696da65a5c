"""Functions of networks: activations, losses, norms, convolutions, pooling and attention, with their gradients.

Values are compared with plain NumPy formulas, gradients with central differences in float64.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tilewright as tw
from tilewright import functions as F

RNG = np.random.default_rng(3)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def check_gradients(function: Callable[..., tw.Tensor], *arrays: np.ndarray, points: int = 12) -> None:
    """Central differences of <function, weights> at a few elements of every array."""
    weights: np.ndarray | None = None

    def scalar(*values: np.ndarray) -> float:
        return float((function(*map(tw.tensor, values)).numpy() * weights).sum())

    tensors = [tw.tensor(a, requires_grad=True) for a in arrays]
    out = function(*tensors)
    weights = np.random.default_rng(1).standard_normal(out.shape)
    (out * tw.tensor(weights)).sum().backward()
    for number, (array, tensor) in enumerate(zip(arrays, tensors, strict=True)):
        picks = RNG.choice(array.size, min(points, array.size), replace=False)
        for flat in picks:
            at = np.unravel_index(flat, array.shape)
            up, down = array.copy(), array.copy()
            up[at] += 1e-6
            down[at] -= 1e-6
            ends = [[*arrays[:number], a, *arrays[number + 1 :]] for a in (up, down)]
            numeric = (scalar(*ends[0]) - scalar(*ends[1])) / 2e-6
            got = 0.0 if tensor.grad is None else tensor.grad.numpy()[at]
            assert got == pytest.approx(numeric, rel=2e-5, abs=2e-7), (number, at)


def logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


_erf = np.vectorize(math.erf)
ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "sigmoid": logistic,
    "log_sigmoid": lambda x: np.log(logistic(x)),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "silu": lambda x: x * logistic(x),
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "gelu": lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "celu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
    "hardtanh": lambda x: np.clip(x, -1, 1),
    "hardsigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
    "hardswish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "softsign": lambda x: x / (1 + np.abs(x)),
    "softmax": softmax,
    "log_softmax": lambda x: np.log(softmax(x)),
    "logsumexp": lambda x: np.log(np.exp(x).sum()),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str) -> None:
    x = normal(4, 5) * 2
    np.testing.assert_allclose(
        getattr(F, name)(tw.tensor(x)).numpy(), ACTIVATIONS[name](x), rtol=1e-10, atol=1e-12
    )
    check_gradients(getattr(F, name), x)


@pytest.mark.parametrize(
    "name", ["sigmoid", "softmax", "log_softmax", "log_sigmoid", "softplus", "silu", "gelu"]
)
def test_large_inputs_do_not_overflow(name: str) -> None:
    x = tw.tensor([[-1e4, 0.0, 1e4], [-88.0, 88.0, 30.0]], requires_grad=True)
    out = getattr(F, name)(x)
    out.sum().backward()
    assert np.isfinite(out.numpy()).all()
    assert np.isfinite(x.grad.numpy()).all()


def test_logsumexp_of_infinities() -> None:
    assert F.logsumexp(tw.tensor([-math.inf, -math.inf])).item() == -math.inf
    assert F.logsumexp(tw.tensor([0.0, math.inf])).item() == math.inf


# ---- losses ---------------------------------------------------------------------------------------------------


def class_loss(
    x: np.ndarray, t: np.ndarray, weight: Any = None, smoothing: float = 0.0, reduction: str = "mean"
) -> Any:
    """Cross-entropy as written in a textbook, over the last axis of [N, C]."""
    logs = np.log(softmax(x))
    n, c = x.shape
    w = np.ones(c) if weight is None else weight
    losses, shares = [], []
    for i in range(n):
        if t[i] == -100:
            losses.append(0.0)
            shares.append(0.0)
            continue
        near = -logs[i, t[i]] * w[t[i]]
        losses.append((1 - smoothing) * near + smoothing / c * -(logs[i] * w).sum())
        shares.append(w[t[i]])
    if reduction == "none":
        return np.array(losses)
    return np.sum(losses) if reduction == "sum" else np.sum(losses) / np.sum(shares)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy(smoothing: float, reduction: str) -> None:
    x, w = normal(6, 4), np.abs(normal(4))
    t = np.array([0, 3, -100, 1, 2, 3])
    for weight in (None, w):
        ours = F.cross_entropy(tw.tensor(x), t, weight, reduction=reduction, label_smoothing=smoothing)
        np.testing.assert_allclose(ours.numpy(), class_loss(x, t, weight, smoothing, reduction), rtol=1e-10)
        check_gradients(
            lambda v, weight=weight: F.cross_entropy(
                v, t, weight, reduction=reduction, label_smoothing=smoothing
            ),
            x,
        )
    if smoothing == 0:
        ours = F.nll_loss(F.log_softmax(tw.tensor(x)), t, w, reduction=reduction)
        np.testing.assert_allclose(ours.numpy(), class_loss(x, t, w, 0.0, reduction), rtol=1e-10)


def test_cross_entropy_of_images_and_of_probabilities() -> None:
    x, t = normal(2, 3, 4, 5), RNG.integers(0, 3, (2, 4, 5))
    flat = x.transpose(0, 2, 3, 1).reshape(-1, 3)
    ours = F.cross_entropy(tw.tensor(x), t)
    np.testing.assert_allclose(ours.item(), class_loss(flat, t.ravel()), rtol=1e-10)
    one_hot = np.eye(3)[t].transpose(0, 3, 1, 2)
    np.testing.assert_allclose(F.cross_entropy(tw.tensor(x), one_hot).item(), ours.item(), rtol=1e-10)
    assert F.cross_entropy(tw.tensor(x[0, :, 0, 0]), 2).item() == pytest.approx(
        class_loss(x[:1, :, 0, 0], np.array([2]))
    )


def test_a_class_that_does_not_exist_never_passes_silently() -> None:
    x = tw.zeros(2, 3)
    with pytest.raises(tw.ArgumentError, match="target 7 is not a class"):
        F.cross_entropy(x, tw.tensor([1, 7]))
    assert math.isnan(F.cross_entropy(x, tw.tensor([1, 7]) + 0).item())
    assert math.isnan(tw.jit(F.cross_entropy)(x, tw.tensor([1, -1])).item())


def test_ignore_index() -> None:
    x = normal(3, 4)
    ours = F.cross_entropy(tw.tensor(x), [1, 2, 1], ignore_index=2)
    np.testing.assert_allclose(ours.item(), class_loss(x, np.array([1, -100, 1])), rtol=1e-10)
    assert math.isnan(F.cross_entropy(tw.tensor(x), [2, 2, 2], ignore_index=2).item())


PAIRS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "mse_loss": lambda x, t: (x - t) ** 2,
    "l1_loss": lambda x, t: np.abs(x - t),
    "smooth_l1_loss": lambda x, t: np.where(np.abs(x - t) < 1, 0.5 * (x - t) ** 2, np.abs(x - t) - 0.5),
    "huber_loss": lambda x, t: np.where(np.abs(x - t) < 1, 0.5 * (x - t) ** 2, np.abs(x - t) - 0.5),
    "binary_cross_entropy": lambda x, t: -(t * np.log(x) + (1 - t) * np.log(1 - x)),
    "binary_cross_entropy_with_logits": lambda x, t: (
        -(t * np.log(logistic(x)) + (1 - t) * np.log(1 - logistic(x)))
    ),
    "kl_div": lambda x, t: t * (np.log(t) - x),
}


@pytest.mark.parametrize("name", PAIRS)
def test_losses_of_pairs(name: str) -> None:
    x, t = RNG.uniform(0.05, 0.95, (3, 4)), RNG.uniform(0.05, 0.95, (3, 4))
    if name not in ("binary_cross_entropy", "kl_div"):
        x, t = x * 4 - 2, t if "logits" in name else t * 4
    for reduction, reduce in (("mean", np.mean), ("sum", np.sum), ("none", lambda v: v)):
        ours = getattr(F, name)(tw.tensor(x), tw.tensor(t), reduction=reduction)
        np.testing.assert_allclose(ours.numpy(), reduce(PAIRS[name](x, t)), rtol=1e-10)
    check_gradients(lambda v: getattr(F, name)(v, t), x)


def test_losses_at_the_limits() -> None:
    p, t = tw.tensor([0.0, 1.0], requires_grad=True), tw.tensor([1.0, 1.0])
    assert F.binary_cross_entropy(p, t).item() == 50.0  # logarithms stop at -100
    z = tw.tensor([1000.0, -1000.0], requires_grad=True)
    loss = F.binary_cross_entropy_with_logits(z, tw.tensor([1.0, 0.0]))
    loss.backward()
    assert loss.item() == 0.0
    assert z.grad.tolist() == [0.0, 0.0]
    x = normal(5)
    pw = 3.0
    expected = -(pw * 0.7 * np.log(logistic(x)) + 0.3 * np.log(1 - logistic(x)))
    ours = F.binary_cross_entropy_with_logits(tw.tensor(x), np.full(5, 0.7), pos_weight=pw, reduction="none")
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-10)


# ---- norms ----------------------------------------------------------------------------------------------------


def standard(x: np.ndarray, axes: tuple[int, ...], eps: float = 1e-5) -> np.ndarray:
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


def test_layer_norm_and_rms_norm() -> None:
    x, w, b = normal(3, 4, 5), normal(4, 5), normal(4, 5)
    np.testing.assert_allclose(
        F.layer_norm(*map(tw.tensor, (x,)), (4, 5), w, b).numpy(), standard(x, (1, 2)) * w + b, rtol=1e-10
    )
    check_gradients(lambda x, w, b: F.layer_norm(x, (4, 5), w, b), x, w, b)
    expected = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * w[0]
    np.testing.assert_allclose(F.rms_norm(tw.tensor(x), 5, w[0], 1e-6).numpy(), expected, rtol=1e-10)
    check_gradients(lambda x, w: F.rms_norm(x, 5, w, 1e-6), x, w[0])


def test_batch_norm_moves_its_statistics() -> None:
    x, w, b = normal(6, 3, 4), normal(3), normal(3)
    mean, var = tw.zeros(3, dtype="float64"), tw.ones(3, dtype="float64")
    out = F.batch_norm(tw.tensor(x), mean, var, w, b, training=True, momentum=0.1)
    np.testing.assert_allclose(out.numpy(), standard(x, (0, 2)) * w[:, None] + b[:, None], rtol=1e-9)
    np.testing.assert_allclose(mean.numpy(), 0.1 * x.mean((0, 2)), rtol=1e-10)
    np.testing.assert_allclose(var.numpy(), 0.9 + 0.1 * x.var((0, 2), ddof=1), rtol=1e-10)
    check_gradients(lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True), x, w, b)
    expected = (x - mean.numpy()[:, None]) / np.sqrt(var.numpy()[:, None] + 1e-5)
    np.testing.assert_allclose(F.batch_norm(tw.tensor(x), mean, var).numpy(), expected, rtol=1e-9)
    with pytest.raises(tw.ShapeError, match="more than one"):
        F.batch_norm(tw.ones(1, 3), mean, var, training=True)


def test_group_and_instance_norm() -> None:
    x = normal(2, 4, 3, 3)
    groups = standard(x.reshape(2, 2, -1), (2,)).reshape(x.shape)
    np.testing.assert_allclose(F.group_norm(tw.tensor(x), 2).numpy(), groups, rtol=1e-9)
    np.testing.assert_allclose(F.instance_norm(tw.tensor(x)).numpy(), standard(x, (2, 3)), rtol=1e-9)
    check_gradients(lambda x: F.group_norm(x, 2), x, points=4)


def test_vector_norms() -> None:
    x = normal(3, 4)
    for order in (1, 2, 3, math.inf):
        expected = np.linalg.norm(x, order, 1)
        np.testing.assert_allclose(F.vector_norm(tw.tensor(x), 1, ord=order).numpy(), expected, rtol=1e-10)
    np.testing.assert_allclose(
        F.normalize(tw.tensor(x)).numpy(), x / np.linalg.norm(x, axis=1, keepdims=True), rtol=1e-10
    )


# ---- convolutions and pooling ---------------------------------------------------------------------------------


def convolve(
    x: np.ndarray, w: np.ndarray, stride: Any, padding: Any, dilation: Any, groups: int
) -> np.ndarray:
    """A convolution of [N, C, H, W] as a sum over kernel places."""
    (sh, sw), (ph, pw), (dh, dw) = stride, padding, dilation
    x = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    n, _, h, width = x.shape
    o, per, kh, kw = w.shape
    oh, ow = (h - (kh - 1) * dh - 1) // sh + 1, (width - (kw - 1) * dw - 1) // sw + 1
    out = np.zeros((n, o, oh, ow))
    for f in range(o):
        first = f // (o // groups) * per
        for i in range(kh):
            for j in range(kw):
                rows = slice(i * dh, i * dh + (oh - 1) * sh + 1, sh)
                columns = slice(j * dw, j * dw + (ow - 1) * sw + 1, sw)
                part = x[:, first : first + per, rows, columns]
                out[:, f] += np.einsum("nchw,c->nhw", part, w[f, :, i, j])
    return out


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"),
    [
        ((1, 1), (0, 0), (1, 1), 1),
        ((2, 1), (1, 2), (1, 1), 1),
        ((1, 1), (2, 1), (2, 1), 2),
        ((3, 2), (1, 1), (1, 2), 4),
    ],
)
def test_conv2d(stride: Any, padding: Any, dilation: Any, groups: int) -> None:
    x, w, b = normal(2, 4, 7, 8), normal(4, 4 // groups, 3, 2), normal(4)
    ours = F.conv2d(tw.tensor(x), w, b, stride, padding, dilation, groups)
    expected = convolve(x, w, stride, padding, dilation, groups) + b[:, None, None]
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-10, atol=1e-12)
    check_gradients(lambda x, w, b: F.conv2d(x, w, b, stride, padding, dilation, groups), x, w, b, points=5)


@pytest.mark.parametrize(
    ("stride", "padding", "extra", "dilation", "groups"), [(1, 0, 0, 1, 1), (2, 1, 1, 1, 1), (3, 1, 0, 2, 2)]
)
def test_conv_transpose2d_is_the_adjoint_of_conv2d(
    stride: int, padding: int, extra: int, dilation: int, groups: int
) -> None:
    w = normal(4, 6 // groups, 3, 3)  # of the convolution from 6 to 4 channels
    y = normal(2, 4, 5, 4)
    back = F.conv_transpose2d(tw.tensor(y), w, None, stride, padding, extra, groups, dilation)
    x = normal(*back.shape)
    forth = F.conv2d(tw.tensor(x), w, None, stride, padding, dilation, groups)
    assert forth.shape == y.shape
    assert (forth.numpy() * y).sum() == pytest.approx((back.numpy() * x).sum(), rel=1e-10)
    check_gradients(
        lambda y, w: F.conv_transpose2d(y, w, None, stride, padding, extra, groups, dilation), y, w, points=4
    )


def test_conv_of_one_and_three_dimensions_and_same_padding() -> None:
    x, w = normal(2, 3, 9), normal(4, 3, 3)
    expected = convolve(x[:, :, None], w[:, :, None], (1, 2), (0, 1), (1, 1), 1)[:, :, 0]
    np.testing.assert_allclose(
        F.conv1d(tw.tensor(x), w, None, 2, 1).numpy(), expected, rtol=1e-10, atol=1e-12
    )
    np.testing.assert_allclose(
        F.conv1d(tw.tensor(x[0]), w, None, 2, 1).numpy(), expected[0], rtol=1e-10, atol=1e-12
    )
    assert F.conv3d(tw.ones(1, 2, 4, 5, 6), tw.ones(3, 2, 2, 2, 2)).shape == (1, 3, 3, 4, 5)
    assert F.conv2d(tw.ones(1, 1, 5, 6), tw.ones(1, 1, 3, 2), padding="same").shape == (1, 1, 5, 6)


def windows(x: np.ndarray, k: int, stride: int, padding: int, fill: float) -> np.ndarray:
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)), constant_values=fill)
    view = np.lib.stride_tricks.sliding_window_view(x, (k, k), (2, 3))
    return view[:, :, ::stride, ::stride]


@pytest.mark.parametrize(("k", "stride", "padding"), [(2, None, 0), (3, 1, 1), (3, 2, 0)])
def test_pooling(k: int, stride: int | None, padding: int) -> None:
    x = normal(2, 3, 7, 8)
    step = k if stride is None else stride
    ours = F.max_pool2d(tw.tensor(x), k, stride, padding)
    np.testing.assert_array_equal(ours.numpy(), windows(x, k, step, padding, -np.inf).max((-1, -2)))
    check_gradients(lambda x: F.max_pool2d(x, k, stride, padding), x)
    ours = F.avg_pool2d(tw.tensor(x), k, stride, padding)
    np.testing.assert_allclose(ours.numpy(), windows(x, k, step, padding, 0.0).mean((-1, -2)), rtol=1e-10)
    check_gradients(lambda x: F.avg_pool2d(x, k, stride, padding), x)
    counts = windows(np.ones_like(x), k, step, padding, 0.0).sum((-1, -2))
    ours = F.avg_pool2d(tw.tensor(x), k, stride, padding, count_include_pad=False)
    np.testing.assert_allclose(
        ours.numpy(), windows(x, k, step, padding, 0.0).sum((-1, -2)) / counts, rtol=1e-10
    )


def test_pooling_modes() -> None:
    x = np.arange(25.0).reshape(1, 1, 5, 5)
    assert F.max_pool2d(tw.tensor(x), 2, ceil_mode=True).tolist() == [
        [[[6, 8, 9], [16, 18, 19], [21, 23, 24]]]
    ]
    assert F.max_pool2d(tw.tensor(x.astype(np.int32)), 3, 1, 1).tolist()[0][0][0] == [6, 7, 8, 9, 9]
    assert F.adaptive_avg_pool2d(tw.tensor(x), 1).item() == 12.0
    assert F.adaptive_max_pool2d(tw.tensor(x), (2, None)).tolist() == [
        [[[10, 11, 12, 13, 14], [20, 21, 22, 23, 24]]]
    ]
    ours = F.unfold(tw.tensor(x), 2)
    assert ours.shape == (1, 4, 16)
    assert ours.tolist()[0][3][0] == 6.0


# ---- attention ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
def test_attention(causal: bool) -> None:
    q, k, v = normal(2, 3, 5, 4), normal(2, 3, 5, 4), normal(2, 3, 5, 6)
    scores = q @ k.swapaxes(-1, -2) / 2
    if causal:
        scores = np.where(np.tril(np.ones((5, 5), bool)), scores, -np.inf)
    ours = F.scaled_dot_product_attention(*map(tw.tensor, (q, k, v)), is_causal=causal)
    np.testing.assert_allclose(ours.numpy(), softmax(scores) @ v, rtol=1e-9)
    check_gradients(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal), q, k, v, points=4
    )


def test_attention_masks_and_grouped_heads() -> None:
    q, k, v = normal(1, 4, 3, 2), normal(1, 2, 5, 2), normal(1, 2, 5, 3)
    mask = RNG.random((3, 5)) > 0.3
    wide_k, wide_v = np.repeat(k, 2, 1), np.repeat(v, 2, 1)
    scores = q @ wide_k.swapaxes(-1, -2)
    ours = F.scaled_dot_product_attention(
        *map(tw.tensor, (q, k, v)), attn_mask=mask, scale=1.0, enable_gqa=True
    )
    np.testing.assert_allclose(ours.numpy(), softmax(np.where(mask, scores, -np.inf)) @ wide_v, rtol=1e-9)
    bias = normal(3, 5)
    ours = F.scaled_dot_product_attention(
        *map(tw.tensor, (q, k, v)), attn_mask=bias, scale=1.0, enable_gqa=True
    )
    np.testing.assert_allclose(ours.numpy(), softmax(scores + bias) @ wide_v, rtol=1e-9)


def test_embedding_and_its_padding_row() -> None:
    w = tw.tensor(normal(5, 3), requires_grad=True)
    index = np.array([[1, 2], [1, 4]])
    out = F.embedding(index, w, padding_idx=1)
    assert np.array_equal(out.numpy(), w.numpy()[index])
    out.sum().backward()
    assert w.grad.tolist() == [[0.0] * 3, [0.0] * 3, [1.0] * 3, [0.0] * 3, [1.0] * 3]


def test_linear_over_leading_axes() -> None:
    x, w, b = normal(2, 3, 4), normal(5, 4), normal(5)
    np.testing.assert_allclose(F.linear(tw.tensor(x), w, b).numpy(), x @ w.T + b, rtol=1e-11)
    check_gradients(F.linear, x, w, b, points=5)


@pytest.mark.parametrize("dtype", [tw.bfloat16, tw.float32, tw.float64])
def test_binary_cross_entropy_of_saturated_probabilities_is_finite(dtype: Any) -> None:
    z = tw.tensor([200.0, -200.0, 200.0, -200.0], dtype=dtype, requires_grad=True)
    target = tw.tensor([1.0, 0.0, 0.0, 1.0], dtype=dtype)
    loss = F.binary_cross_entropy(F.sigmoid(z), target, reduction="none")
    loss.sum().backward()
    assert z.grad is not None
    np.testing.assert_allclose(loss.numpy().astype(float), [0, 0, 100, 100], atol=1e-30)
    np.testing.assert_allclose(z.grad.numpy().astype(float), 0, atol=1e-30)


def test_the_slope_of_binary_cross_entropy_is_limited_where_its_logarithm_ends() -> None:
    p = [0.0, 1e-40, 1e-13, 1e-11, 0.3, 0.999, 1.0]
    x = tw.tensor(p, requires_grad=True)
    F.binary_cross_entropy(x, tw.zeros(7), reduction="sum").backward()
    assert x.grad is not None
    np.testing.assert_allclose(
        x.grad.numpy(), [1, 1, 1, 1, 1 / 0.7, 1 / np.float32(1 - np.float32(0.999)), 1e12], 1e-5
    )
    x.grad = None
    F.binary_cross_entropy(x, tw.ones(7), reduction="sum").backward()
    np.testing.assert_allclose(x.grad.numpy(), [-1e12, -1e12, -1e12, -1e11, -1 / 0.3, -1 / 0.999, -1], 1e-5)


@pytest.mark.parametrize(
    ("function", "at", "first", "second"),
    [
        (F.sigmoid, 0.0, 0.25, 0.0),
        (F.log_sigmoid, 0.0, 0.5, -0.25),
        (F.silu, 0.0, 0.5, 0.5),
        (F.softplus, 0.0, 0.5, 0.25),
        (F.softplus, 20.0, 1.0, 0.0),
        (F.mish, 0.0, 0.6, 0.64),
        (F.elu, 0.0, 1.0, 1.0),
        (F.celu, 0.0, 1.0, 1.0),
        (F.gelu, 0.0, 0.5, 2 / math.sqrt(2 * math.pi)),
        (F.tanh, 0.0, 1.0, 0.0),
        (lambda x: F.logaddexp(x, 0.0 * x), 0.0, 0.5, 0.25),
        (lambda x: F.binary_cross_entropy_with_logits(x, tw.tensor([1.0])), 0.0, -0.5, 0.25),
        (
            lambda x: F.binary_cross_entropy_with_logits(x, tw.tensor([1.0]), pos_weight=tw.tensor([3.0])),
            0.0,
            -1.5,
            0.75,
        ),
        (lambda x: F.huber_loss(x, tw.tensor([1.0])), 1.0, 0.0, 1.0),
        (lambda x: F.smooth_l1_loss(x, tw.tensor([1.0])), 1.0, 0.0, 1.0),
    ],
)
def test_derivatives_at_the_point_where_a_formula_changes_sides(
    function: Callable[[tw.Tensor], tw.Tensor], at: float, first: float, second: float
) -> None:
    """The functions are smooth there: a model whose weights start at 0 sits exactly at these points."""
    slope = tw.grad(lambda x: function(x).sum())
    x = tw.tensor([at])
    assert slope(x).item() == pytest.approx(first, abs=1e-6)
    assert tw.grad(lambda x: slope(x).sum())(x).item() == pytest.approx(second, abs=1e-6)


def test_functions_of_two_sides_keep_their_limits() -> None:
    x = tw.tensor([-math.inf, -200.0, -0.0, 200.0, math.inf, math.nan], dtype=tw.float64)
    np.testing.assert_allclose(F.sigmoid(x).numpy(), [0, math.exp(-200), 0.5, 1, 1, math.nan])
    np.testing.assert_allclose(
        F.log_sigmoid(x).numpy(), [-math.inf, -200, math.log(0.5), 0, 0, math.nan], atol=1e-80
    )
    both = F.logaddexp(x, x).numpy()
    np.testing.assert_allclose(both, x.numpy() + math.log(2))


def test_the_standard_deviation_of_equal_elements_has_a_gradient() -> None:
    x = tw.tensor([[2.0, 2.0, 2.0], [1.0, 2.0, 3.0]])
    slopes = tw.grad(lambda x: F.std(x, axis=1).sum())(x).numpy()
    np.testing.assert_allclose(slopes, [[0, 0, 0], np.array([-1, 0, 1]) / 3 / math.sqrt(2 / 3)], rtol=1e-6)


@pytest.mark.parametrize(
    "sides", [(32, 32), (28, 28), (8, 8), (10, 10), (16, 48), (9, 13), (33, 18)], ids=str
)
@pytest.mark.parametrize("size", [2, 3, 4, 8])
def test_gradient_of_pooling_is_that_of_windows_side_by_side(sides: tuple[int, int], size: int) -> None:
    x = RNG.integers(-3, 4, (2, 3, *sides)).astype(np.float32)  # ties among them, which share
    high, wide = (n // size for n in sides)
    windows = np.maximum(x - 0.25, 0)[:, :, : high * size, : wide * size].reshape(
        2, 3, high, size, wide, size
    )
    best = windows.max((3, 5), keepdims=True)
    ties = windows == best
    within = np.where(ties, 2 * best / ties.sum((3, 5), keepdims=True), 0)
    expected = np.zeros(x.shape, np.float32)
    expected[:, :, : high * size, : wide * size] = within.reshape(2, 3, high * size, wide * size)

    def loss(t: tw.Tensor) -> tw.Tensor:
        pooled = F.max_pool2d(F.relu(t - 0.25), size)
        return (pooled * pooled).sum()

    got = tw.jit(tw.grad(loss))(tw.tensor(x)).numpy()
    np.testing.assert_allclose(got, expected * (x > 0.25), rtol=1e-6)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [(1, 16), (16, 120), (5, 3)], ids=str)
@pytest.mark.parametrize(("taps", "size"), [(3, 3), (5, 5), (5, 6), (2, 2), (3, 4)])
def test_filters_about_as_large_as_the_image(
    channels: tuple[int, int], taps: int, size: int, stride: int
) -> None:
    """Whole numbers, so that every gradient is exact."""
    rng = np.random.default_rng(taps)
    c, o = channels
    out = (size - taps) // stride + 1
    x, w, g = (
        rng.integers(-4, 5, shape).astype(np.float32)
        for shape in ((2, c, size, size), (o, c, taps, taps), (2, o, out, out))
    )
    loss = tw.jit(tw.grad(lambda x, w, g: (F.conv2d(x, w, stride=stride) * g).sum(), argnums=(0, 1)))
    got = [a.numpy() for a in loss(tw.asarray(x), tw.asarray(w), tw.asarray(g))]
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for u in range(taps):
        for v in range(taps):
            places = np.s_[
                :, :, u : u + stride * (out - 1) + 1 : stride, v : v + stride * (out - 1) + 1 : stride
            ]
            dx[places] += np.einsum("noij,oc->ncij", g, w[:, :, u, v])
            dw[:, :, u, v] = np.einsum("noij,ncij->oc", g, x[places])
    np.testing.assert_array_equal(got[0], dx)
    np.testing.assert_array_equal(got[1], dw)
