"""Stateless functions of networks: those of `tilewright.functions`, under PyTorch's names and argument names.

    import tilewright.nn.functional as F

Functions that PyTorch calls with `dim` take `dim` here; the rest is passed on as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tilewright.core.elsewhere import advising
from tilewright.functions import activations as _activations
from tilewright.functions import normalization as _normalization
from tilewright.functions import padding as _padding
from tilewright.functions.activations import (
    celu,
    elu,
    gelu,
    hardsigmoid,
    hardswish,
    hardtanh,
    leaky_relu,
    mish,
    prelu,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    softplus,
    softsign,
)
from tilewright.functions.activations import log_sigmoid as logsigmoid
from tilewright.functions.attention import embedding
from tilewright.functions.attention import scaled_dot_product_attention as _attention
from tilewright.functions.convolution import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
    max_pool1d,
    max_pool2d,
    max_pool3d,
    unfold,
)
from tilewright.functions.creation import one_hot
from tilewright.functions.elementwise import tanh
from tilewright.functions.linalg import linear
from tilewright.functions.losses import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    nll_loss,
    smooth_l1_loss,
)
from tilewright.functions.movement import flatten
from tilewright.functions.normalization import batch_norm, group_norm, layer_norm, rms_norm
from tilewright.functions.quantization import quantize, quantized_linear
from tilewright.functions.spellings import spell_all as _spell_all
from tilewright.random import dropout
from tilewright.tensor import Tensor

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "batch_norm",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "celu",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "cross_entropy",
    "dropout",
    "elu",
    "embedding",
    "flatten",
    "gelu",
    "group_norm",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log_softmax",
    "logsigmoid",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "mish",
    "mse_loss",
    "nll_loss",
    "normalize",
    "one_hot",
    "pad",
    "prelu",
    "quantize",
    "quantized_linear",
    "relu",
    "relu6",
    "rms_norm",
    "scaled_dot_product_attention",
    "selu",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "softmax",
    "softmin",
    "softplus",
    "softsign",
    "tanh",
    "unfold",
]


def softmax(input: Tensor, dim: int = -1) -> Tensor:
    """exp(input) divided by its sum along `dim`; the last axis unless given.

    >>> softmax(Tensor([0.0, 0.0])).tolist()
    [0.5, 0.5]
    """
    return _activations.softmax(input, axis=dim)


def softmin(input: Tensor, dim: int = -1) -> Tensor:
    """softmax(-input)."""
    return _activations.softmin(input, axis=dim)


def log_softmax(input: Tensor, dim: int = -1) -> Tensor:
    """Logarithm of the softmax along `dim`; the last axis unless given."""
    return _activations.log_softmax(input, axis=dim)


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """input / max(norm, eps) with the p-norm along `dim`."""
    return _normalization.normalize(input, p, axis=dim, eps=eps)


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float = 0.0) -> Tensor:
    """Elements added around the last axes: (low, high) of the last one, then of the one before, ...

    `mode` is "constant" (`value`), "reflect" (mirrored at the outermost element), "replicate" (the outermost element) or
    "circular" (the elements from the other side).

    >>> pad(Tensor([[1.0]]), (0, 1, 1, 0)).tolist()
    [[0.0, 0.0], [1.0, 0.0]]
    """
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise ValueError(f"pad: expected two numbers for each of at most {input.ndim} axes, got {tuple(pad)}")
    widths = [(0, 0)] * (input.ndim - len(pad) // 2)
    widths += [(pad[i], pad[i + 1]) for i in range(len(pad) - 2, -1, -2)]
    modes = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    if mode not in modes:
        raise ValueError(f"pad: `mode` is one of {', '.join(map(repr, modes))}, got {mode!r}")
    return _padding.pad(input, widths, modes[mode], constant_values=value)


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(query keyᵀ scale + mask) value: [..., T, E], [..., S, E] and [..., S, D] to [..., T, D].

    `scale` is 1/√E unless given; `attn_mask` is bool (True: attend) or added to the scores; `dropout_p` drops
    weights.
    """
    drop = None if dropout_p == 0.0 else lambda weights: dropout(weights, dropout_p)
    return _attention(query, key, value, attn_mask, is_causal, scale, enable_gqa, drop)


_spell_all(globals())  # PyTorch's `dim` beside `axis`

if not TYPE_CHECKING:
    __getattr__ = advising(__name__, __all__)
