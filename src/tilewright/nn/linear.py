"""Layers that multiply by a weight or look rows up in one: Linear and Embedding.

Shapes: B batch (any leading axes), I inputs, O outputs, V rows of the table, D its width.
"""

from __future__ import annotations

import math

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.functions.arguments import check_device
from tilewright.functions.creation import zeros
from tilewright.nn import functional as F
from tilewright.nn import init
from tilewright.nn.module import Module
from tilewright.nn.parameter import Parameter, empty_parameter
from tilewright.tensor import Tensor, no_grad

__all__ = ["Embedding", "Linear"]


class Linear(Module):
    """y = x weightᵀ + bias: [B..., I] to [B..., O]. `weight` is [O, I], `bias` is [O].

    Both start evenly spread over ±1/√I.
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        device: str | None = None,
        dtype: DType = dt.float32,
    ) -> None:
        check_device(device, type(self).__name__)
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.weight = empty_parameter((out_features, in_features), dtype)
        self.register_parameter("bias", empty_parameter((out_features,), dtype) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features) if self.in_features > 0 else 0.0
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        )


class Embedding(Module):
    """Rows of a table by integer index: int[B...] to [B..., D]. `weight` is [V, D], normally distributed at
    first.

    The row `padding_idx` starts as zeros and is not trained.
    """

    weight: Parameter

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        device: str | None = None,
        dtype: DType = dt.float32,
    ) -> None:
        check_device(device, type(self).__name__)
        super().__init__()
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise ValueError(f"Embedding: padding_idx {padding_idx} is not one of {num_embeddings} rows")
            padding_idx %= num_embeddings
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = padding_idx
        self.weight = empty_parameter((num_embeddings, embedding_dim), dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                row = zeros((self.embedding_dim,), dtype=self.weight.dtype)
                self.weight.assign(self.weight.detach().at[self.padding_idx].set(row))

    def forward(self, input: Tensor) -> Tensor:
        return F.embedding(input, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"
