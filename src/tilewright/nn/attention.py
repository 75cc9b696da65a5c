"""Multi-head attention and the transformer's encoder layer (Vaswani et al., 2017).

Shapes: B batch, T queries, S keys, E width, H heads, D = E / H.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.functions.arguments import check_device
from tilewright.functions.creation import iota
from tilewright.functions.elementwise import where
from tilewright.nn import functional as F
from tilewright.nn import init
from tilewright.nn.activations import Dropout
from tilewright.nn.containers import ModuleList
from tilewright.nn.linear import Linear
from tilewright.nn.module import Module
from tilewright.nn.normalization import LayerNorm
from tilewright.nn.parameter import Parameter, empty_parameter
from tilewright.tensor import Tensor

__all__ = ["MultiheadAttention", "TransformerEncoder", "TransformerEncoderLayer"]


class MultiheadAttention(Module):
    """H attentions side by side over slices of the width, then a linear layer.

    `in_proj_weight` is [3E, E]: the projections of query, key and value on top of each other. Inputs are [T,
    B, E], or [B, T, E] with `batch_first=True`, or without the batch axis.
    """

    in_proj_weight: Parameter
    in_proj_bias: Parameter | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        *,
        batch_first: bool = False,
        device: str | None = None,
        dtype: DType = dt.float32,
    ) -> None:
        check_device(device, type(self).__name__)
        super().__init__()
        if num_heads < 1 or embed_dim % num_heads:
            raise ValueError(f"MultiheadAttention: width {embed_dim} does not divide into {num_heads} heads")
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.head_dim = embed_dim // num_heads
        self.in_proj_weight = empty_parameter((3 * embed_dim, embed_dim), dtype)
        self.register_parameter("in_proj_bias", empty_parameter((3 * embed_dim,), dtype) if bias else None)
        self.out_proj = Linear(embed_dim, embed_dim, bias=bias, dtype=dtype)
        init.xavier_uniform_(self.in_proj_weight)
        if self.out_proj.bias is not None:
            init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """The attended values in the shape of `query`, and the weights [B, T, S] (of each head: [B, H, T, S])
        or None.

        Masks are boolean with True where attention is not allowed, or floats to be added: `attn_mask` is [T,
        S] or [B * H, T, S], `key_padding_mask` is [B, S]. `is_causal` lets no query look at later keys.
        """
        batched = query.ndim == 3
        q, k, v = (
            x if batched else x.expand_dims(axis=0 if self.batch_first else 1) for x in (query, key, value)
        )
        if not self.batch_first:
            q, k, v = (x.permute_dims((1, 0, 2)) for x in (q, k, v))
        q, k, v = self._project(q, k, v)
        mask = self._mask(q, k, attn_mask, key_padding_mask, batched, is_causal)
        scores = (q * self.head_dim**-0.5) @ k.permute_dims((0, 1, 3, 2))
        if mask is not None:
            scores = scores + mask
        weights = F.softmax(scores, -1)
        out = F.dropout(weights, self.dropout, self.training) @ v
        out = self.out_proj(out.permute_dims((0, 2, 1, 3)).reshape((q.shape[0], q.shape[2], self.embed_dim)))
        if not self.batch_first:
            out = out.permute_dims((1, 0, 2))
        shown = weights.mean(axis=1) if average_attn_weights else weights
        if not batched:
            out = out.squeeze(axis=0 if self.batch_first else 1)
            shown = shown.squeeze(axis=0)
        return out, shown if need_weights else None

    def _project(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value as [B, H, T, D]; self-attention multiplies once by the whole weight."""
        e = self.embed_dim
        bias = self.in_proj_bias
        if q is k and k is v:
            joined = F.linear(q, self.in_proj_weight, bias)
            parts = [joined[..., i * e : (i + 1) * e] for i in range(3)]
        else:
            parts = [
                F.linear(
                    x,
                    self.in_proj_weight[i * e : (i + 1) * e],
                    None if bias is None else bias[i * e : (i + 1) * e],
                )
                for i, x in enumerate((q, k, v))
            ]
        heads = [
            p.reshape((*p.shape[:2], self.num_heads, self.head_dim)).permute_dims((0, 2, 1, 3)) for p in parts
        ]
        return heads[0], heads[1], heads[2]

    def _mask(
        self, q: Tensor, k: Tensor, attn: Tensor | None, padding: Tensor | None, batched: bool, causal: bool
    ) -> Tensor | None:
        """What is added to the scores [B, H, T, S], or None."""
        b, h, t, s = q.shape[0], self.num_heads, q.shape[2], k.shape[2]
        total: Tensor | None = None
        if causal:
            total = _added(iota((t, s), 1) > iota((t, s), 0), q.dtype)
        if attn is not None:
            part = _added(attn, q.dtype)
            part = part.reshape((b, h, t, s)) if part.ndim == 3 else part
            total = part if total is None else total + part
        if padding is not None:
            part = _added(padding, q.dtype)
            part = (part if batched else part.expand_dims(axis=0)).reshape((b, 1, 1, s))
            total = part if total is None else total + part
        return total

    def extra_repr(self) -> str:
        return f"embed_dim={self.embed_dim}, num_heads={self.num_heads}"


def _added(mask: Tensor, dtype: DType) -> Tensor:
    """A mask as numbers to be added to scores: -inf where a boolean mask forbids."""
    if not mask.dtype.is_bool:
        return mask.astype(dtype)
    return where(mask, float("-inf"), 0.0).astype(dtype)


class TransformerEncoderLayer(Module):
    """Self-attention, then a two-layer network on each position, both with a residual and a layer norm.

    The norms come after the residuals, or with `norm_first=True` before attention and network.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Callable[[Tensor], Tensor] = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        *,
        device: str | None = None,
        dtype: DType = dt.float32,
    ) -> None:
        check_device(device, type(self).__name__)
        super().__init__()
        if isinstance(activation, str) and activation not in ("relu", "gelu"):
            raise ValueError(
                f"TransformerEncoderLayer: activation is 'relu', 'gelu' or a function, got {activation!r}"
            )
        self.self_attn = MultiheadAttention(
            d_model, nhead, dropout, bias, batch_first=batch_first, dtype=dtype
        )
        self.linear1 = Linear(d_model, dim_feedforward, bias=bias, dtype=dtype)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias=bias, dtype=dtype)
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.norm_first = norm_first
        self.activation: Callable[[Tensor], Tensor]
        self.activation = (
            {"relu": F.relu, "gelu": F.gelu}[activation] if isinstance(activation, str) else activation
        )

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """[T, B, E], or [B, T, E] with `batch_first=True`, to the same shape."""
        masks = (src_mask, src_key_padding_mask, is_causal)
        if self.norm_first:
            x = src + self._attend(self.norm1(src), *masks)
            return x + self._feed(self.norm2(x))
        x = self.norm1(src + self._attend(src, *masks))
        out: Tensor = self.norm2(x + self._feed(x))
        return out

    def _attend(self, x: Tensor, mask: Tensor | None, padding: Tensor | None, causal: bool) -> Tensor:
        attended, _ = self.self_attn(
            x, x, x, attn_mask=mask, key_padding_mask=padding, need_weights=False, is_causal=causal
        )  # fmt: skip
        out: Tensor = self.dropout1(attended)
        return out

    def _feed(self, x: Tensor) -> Tensor:
        out: Tensor = self.dropout2(self.linear2(self.dropout(self.activation(self.linear1(x)))))
        return out


class TransformerEncoder(Module):
    """`num_layers` copies of an encoder layer in sequence; like it, the copies start with equal weights."""

    def __init__(
        self, encoder_layer: TransformerEncoderLayer, num_layers: int, norm: Module | None = None
    ) -> None:
        super().__init__()
        self.layers = ModuleList(copy.deepcopy(encoder_layer) for _ in range(num_layers))
        self.num_layers = num_layers
        self.norm = norm

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """[T, B, E], or [B, T, E] with `batch_first=True`, to the same shape."""
        for layer in self.layers:
            src = layer(src, mask, src_key_padding_mask, is_causal)
        return src if self.norm is None else self.norm(src)
