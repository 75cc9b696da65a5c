"""Normalisation layers: over the batch, over features, over groups of channels.

Shapes: N batch, C channels or features, * any further axes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.functions.arguments import check_device, shape_of
from tilewright.nn import functional as F
from tilewright.nn import init
from tilewright.nn.module import Module
from tilewright.nn.parameter import Parameter, empty_parameter
from tilewright.tensor import Tensor, no_grad

__all__ = ["BatchNorm1d", "BatchNorm2d", "GroupNorm", "LayerNorm", "RMSNorm"]


class _BatchNorm(Module):
    """Batch normalisation (Ioffe & Szegedy, 2015) of each of C channels, with scale and shift.

    In training the batch's mean and biased variance normalise, and the running estimates (with the unbiased
    variance) move towards them by `momentum`; None makes them plain averages over all batches. In evaluation
    the running estimates normalise.
    """

    ranks: tuple[int, ...]
    weight: Parameter | None
    bias: Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        device: str | None = None,
        dtype: DType = dt.float32,
    ) -> None:
        check_device(device, type(self).__name__)
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        self.register_parameter("weight", empty_parameter((num_features,), dtype) if affine else None)
        self.register_parameter("bias", empty_parameter((num_features,), dtype) if affine else None)
        track = track_running_stats
        self.register_buffer("running_mean", Tensor(np.zeros(num_features, dtype.numpy)) if track else None)
        self.register_buffer("running_var", Tensor(np.ones(num_features, dtype.numpy)) if track else None)
        self.register_buffer("num_batches_tracked", Tensor(0) if track else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scale 1, shift 0, running mean 0 and variance 1."""
        if self.weight is not None and self.bias is not None:
            init.ones_(self.weight)
            init.zeros_(self.bias)
        if self.running_mean is not None and self.running_var is not None:
            init.zeros_(self.running_mean)
            init.ones_(self.running_var)
        if self.num_batches_tracked is not None:
            init.zeros_(self.num_batches_tracked)

    def forward(self, input: Tensor) -> Tensor:
        shape = tuple(input.shape)
        kind = type(self).__name__
        if len(shape) not in self.ranks:
            wanted = " or ".join(f"{rank} axes" for rank in self.ranks)
            raise ValueError(f"{kind}: expected an input of {wanted}, got shape {shape}")
        if shape[1] != self.num_features:
            raise ValueError(f"{kind}: expected {self.num_features} channels on axis 1, got shape {shape}")
        share: Any = self.momentum
        if self.training and self.num_batches_tracked is not None:
            with no_grad():
                self.num_batches_tracked.assign(self.num_batches_tracked + 1)
            if share is None:  # a plain average over all batches: each counts 1 / n
                share = 1.0 / self.num_batches_tracked.astype(dt.float32)
        return F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, self.training, share, self.eps
        )

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of [N, C] or [N, C, L] over all axes but the second."""

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of [N, C, H, W] over all axes but the second."""

    ranks = (4,)


class LayerNorm(Module):
    """Layer normalisation (Ba et al., 2016) over the last axes, those of `normalized_shape`, with scale and
    shift.
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        device: str | None = None,
        dtype: DType = dt.float32,
    ) -> None:
        check_device(device, type(self).__name__)
        super().__init__()
        shape = shape_of(normalized_shape, type(self).__name__, "normalized_shape")
        self.normalized_shape = shape
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self.register_parameter("weight", empty_parameter(shape, dtype) if elementwise_affine else None)
        self.register_parameter(
            "bias", empty_parameter(shape, dtype) if elementwise_affine and bias else None
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scale 1, shift 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class RMSNorm(Module):
    """Division by the root mean square over the last axes (Zhang & Sennrich, 2019), with scale.

    `eps=None` is the machine epsilon of the input's type.
    """

    weight: Parameter | None

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float | None = None,
        elementwise_affine: bool = True,
        *,
        device: str | None = None,
        dtype: DType = dt.float32,
    ) -> None:
        check_device(device, type(self).__name__)
        super().__init__()
        shape = shape_of(normalized_shape, type(self).__name__, "normalized_shape")
        self.normalized_shape = shape
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self.register_parameter("weight", empty_parameter(shape, dtype) if elementwise_affine else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scale 1."""
        if self.weight is not None:
            init.ones_(self.weight)

    def forward(self, input: Tensor) -> Tensor:
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class GroupNorm(Module):
    """Normalisation of [N, C, *] over each of `num_groups` groups of channels (Wu & He, 2018), with scale and
    shift.
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        device: str | None = None,
        dtype: DType = dt.float32,
    ) -> None:
        check_device(device, type(self).__name__)
        super().__init__()
        if num_groups < 1 or num_channels % num_groups:
            raise ValueError(f"GroupNorm: {num_channels} channels do not divide into {num_groups} groups")
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.affine = affine
        self.register_parameter("weight", empty_parameter((num_channels,), dtype) if affine else None)
        self.register_parameter("bias", empty_parameter((num_channels,), dtype) if affine else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scale 1, shift 0."""
        if self.weight is not None and self.bias is not None:
            init.ones_(self.weight)
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"
